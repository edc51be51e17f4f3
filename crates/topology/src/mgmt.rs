//! The management network, and the nodes' fixed addresses in it.

use std::collections::BTreeMap;

use netloom_model::spec::MgmtSpec;

use crate::diagnostic::{At, Pos, Report, quoted};
use crate::keys::{Section, known};
use crate::value::{self, Subnet};
use crate::yaml::Node;

/// Networks that Docker has by itself.
const DOCKERS_OWN: [&str; 3] = ["bridge", "host", "none"];

/// The management network, with its subnets as far as the file names them.
pub(crate) struct Mgmt {
    pub spec: MgmtSpec,
    subnets: [Option<Subnet>; 2],
}

impl Mgmt {
    pub fn read(node: &Node, report: &mut Report) -> Mgmt {
        let mut mgmt = Mgmt { spec: MgmtSpec::default(), subnets: [None, None] };
        let mut gateways: [Option<At<String>>; 2] = [None, None];
        for (key, entry) in known(Section::Mgmt, value::map(node, report), report) {
            let node = &entry.node;
            match key {
                "network" => mgmt.spec.network = network(node, report),
                "ipv4-subnet" | "ipv4_subnet" => mgmt.spec.ipv4_subnet = mgmt.subnet(node, false, report),
                "ipv6-subnet" | "ipv6_subnet" => mgmt.spec.ipv6_subnet = mgmt.subnet(node, true, report),
                "ipv4-gw" => gateways[0] = value::parsed(node, report, |t| value::address(t, false)),
                "ipv6-gw" => gateways[1] = value::parsed(node, report, |t| value::address(t, true)),
                "mtu" => {
                    mgmt.spec.mtu =
                        value::parsed(node, report, |t| value::number(t, 576, 65_535)).map_or(0, |m| m.value)
                }
                "external-access" => external_access(node, report),
                _ => unreachable!("{key} is in the table as done, and is not read here"),
            }
        }
        for (v6, gateway) in [false, true].into_iter().zip(&gateways) {
            let Some(gateway) = gateway else { continue };
            mgmt.check_address(gateway, v6, report);
            let field = if v6 { &mut mgmt.spec.ipv6_gateway } else { &mut mgmt.spec.ipv4_gateway };
            field.clone_from(&gateway.value);
        }
        mgmt
    }

    fn subnet(&mut self, node: &Node, v6: bool, report: &mut Report) -> String {
        let Some(text) = value::text(node, report) else { return String::new() };
        if text.value == "auto" {
            if v6 {
                report.warning(text.pos, "KEY_NOT_SUPPORTED", "an IPv6 subnet is not chosen for you, so the network has no IPv6: name a subnet like 2001:db8::/64");
            }
            return String::new();
        }
        let subnet = value::parsed(node, report, |t| Subnet::parse(t, v6));
        self.subnets[usize::from(v6)] = subnet.map(|s| s.value);
        text.value
    }

    /// Tells an address that the network cannot give.
    fn check_address(&self, address: &At<String>, v6: bool, report: &mut Report) {
        let version = if v6 { 6 } else { 4 };
        match self.subnets[usize::from(v6)] {
            None => {
                let message =
                    format!("{} needs mgmt with an ipv{version}-subnet that holds it", address.value);
                report.error(address.pos, "MGMT_ADDRESS", message);
            }
            Some(subnet) if !subnet.holds(&address.value) => {
                report.error(
                    address.pos,
                    "MGMT_ADDRESS",
                    format!("{} is not in the ipv{version}-subnet of mgmt", address.value),
                );
            }
            Some(_) => {}
        }
    }
}

fn network(node: &Node, report: &mut Report) -> String {
    let Some(name) = value::parsed(node, report, value::label) else { return String::new() };
    if DOCKERS_OWN.contains(&name.value.as_str()) {
        let message = format!(
            "{} is a network of Docker's own; a lab has one to itself: leave the name out, or choose another",
            quoted(&name.value)
        );
        report.error(name.pos, "INVALID_VALUE", message);
    }
    name.value
}

fn external_access(node: &Node, report: &mut Report) {
    if let Some(At { value: false, pos }) = value::parsed(node, report, value::truth) {
        report.error(pos, "KEY_NOT_SUPPORTED", "external-access: false is not supported yet: who reaches the network is for Docker and the host's firewall to say");
    }
}

/// Checks the nodes' fixed addresses: in a subnet, and of one node only.
pub(crate) fn check_nodes<'n>(
    mgmt: Option<&Mgmt>,
    nodes: impl Iterator<Item = (&'n str, &'n [Option<At<String>>; 2])>,
    report: &mut Report,
) {
    let nothing = Mgmt { spec: MgmtSpec::default(), subnets: [None, None] };
    let mgmt = mgmt.unwrap_or(&nothing);
    let mut taken: BTreeMap<&str, (&str, Pos)> = BTreeMap::new();
    for (node, addresses) in nodes {
        for (v6, address) in [false, true].into_iter().zip(addresses) {
            let Some(address) = address else { continue };
            mgmt.check_address(address, v6, report);
            if let Some((other, first)) = taken.insert(&address.value, (node, address.pos)) {
                let message =
                    format!("{} is the address of {} too, at {first}", address.value, quoted(other));
                report.error(address.pos, "MGMT_ADDRESS", message);
            }
        }
    }
}
