//! The management network.

use netloom_model::id::Digest;
use netloom_model::spec::{MgmtSpec, NodeSpec, Subnet};

use crate::diagnostic::{Pos, Report};
use crate::keys::{Section, known};
use crate::value;
use crate::yaml::Node;

/// The management network, and where its parts stand.
pub(crate) struct Mgmt {
    pub spec: MgmtSpec,
    /// True when there is to be none unless a node is on it.
    pub skip_when_unused: bool,
    /// By the names of the spec's fields.
    pub places: Vec<(&'static str, Pos)>,
    /// True when the IPv6 subnet is to be chosen.
    auto_ipv6: bool,
}

impl Mgmt {
    pub fn read(node: &Node, report: &mut Report) -> Mgmt {
        let mut mgmt =
            Mgmt { spec: MgmtSpec::default(), skip_when_unused: false, places: Vec::new(), auto_ipv6: false };
        let spec = &mut mgmt.spec;
        for (key, entry) in known(Section::Mgmt, value::map(node, report), report) {
            let node = &entry.node;
            let field = match key {
                "network" => {
                    spec.network = text(node, report, value::label);
                    "network"
                }
                "bridge" => {
                    spec.bridge = text(node, report, value::one_word);
                    "bridge"
                }
                "ipv4-subnet" | "ipv4_subnet" => {
                    // Docker chooses one by itself.
                    spec.ipv4_subnet =
                        subnet(node, false, report).filter(|s| s != "auto").unwrap_or_default();
                    "ipv4_subnet"
                }
                "ipv6-subnet" | "ipv6_subnet" => {
                    let text = subnet(node, true, report);
                    mgmt.auto_ipv6 = text.as_deref() == Some("auto");
                    spec.ipv6_subnet = text.filter(|s| s != "auto").unwrap_or_default();
                    "ipv6_subnet"
                }
                "ipv4-gw" => {
                    spec.ipv4_gateway = text(node, report, |t| value::address(t, false));
                    "ipv4_gateway"
                }
                "ipv6-gw" => {
                    spec.ipv6_gateway = text(node, report, |t| value::address(t, true));
                    "ipv6_gateway"
                }
                "ipv4-range" => {
                    spec.ipv4_range = text(node, report, |t| Subnet::parse(t, false).map(|s| s.to_string()));
                    "ipv4_range"
                }
                "ipv6-range" => {
                    spec.ipv6_range = text(node, report, |t| Subnet::parse(t, true).map(|s| s.to_string()));
                    "ipv6_range"
                }
                "mtu" => {
                    spec.mtu =
                        value::parsed(node, report, |t| value::number(t, 576, 65_535)).map_or(0, |m| m.value);
                    "mtu"
                }
                "external-access" => {
                    spec.internal = value::parsed(node, report, value::truth).is_some_and(|t| !t.value);
                    "internal"
                }
                "skip-when-unused" => {
                    mgmt.skip_when_unused =
                        value::parsed(node, report, value::truth).is_some_and(|t| t.value);
                    ""
                }
                "driver-opts" => {
                    let options = value::text_map(node, report);
                    spec.driver_options = options.into_iter().map(|(k, v)| (k, v.value)).collect();
                    "driver_options"
                }
                _ => unreachable!("{key} is in the table as done, and is not read here"),
            };
            mgmt.places.push((field, node.pos));
        }
        mgmt
    }

    /// Chooses what follows from the lab's name.
    pub fn choose(&mut self, lab: &str) {
        if self.auto_ipv6 {
            self.spec.ipv6_subnet = unique_local(lab);
        }
    }
}

/// The network of a lab whose file asks for none, though nodes have what needs one. It holds the nodes' fixed addresses: the subnet is that of the first.
pub(crate) fn implied<'n>(nodes: impl Iterator<Item = &'n NodeSpec> + Clone) -> MgmtSpec {
    let first = |address: fn(&NodeSpec) -> &str, bits: u8, v6: bool| {
        let Some(address) = nodes.clone().map(address).find(|a| !a.is_empty()) else { return String::new() };
        Subnet::around(address, bits, v6).map(|s| s.to_string()).unwrap_or_default()
    };
    MgmtSpec {
        ipv4_subnet: first(|n| &n.mgmt_ipv4, 24, false),
        ipv6_subnet: first(|n| &n.mgmt_ipv6, 64, true),
        ..MgmtSpec::default()
    }
}

/// A unique local /64 (RFC 4193 §3.1) that is always the same for a lab's name.
fn unique_local(lab: &str) -> String {
    let digest = Digest::of(lab.to_ascii_lowercase().as_bytes()).to_string();
    let hex = digest.rsplit(':').next().unwrap_or_default();
    let address = format!("fd{}:{}:{}::", &hex[..2], &hex[2..6], &hex[6..10]);
    let address = value::address(&address, true).unwrap_or(address);
    format!("{address}/64")
}

fn text(node: &Node, report: &mut Report, read: impl FnOnce(&str) -> Result<String, String>) -> String {
    value::parsed(node, report, read).map(|t| t.value).unwrap_or_default()
}

/// A subnet in CIDR form, or `auto`.
fn subnet(node: &Node, v6: bool, report: &mut Report) -> Option<String> {
    let read = |t: &str| match t {
        "auto" => Ok(t.to_owned()),
        _ => Subnet::parse(t, v6).map(|s| s.to_string()),
    };
    value::parsed(node, report, read).map(|s| s.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chosen_subnet_is_local_and_stable() {
        let chosen = unique_local("Demo");
        assert_eq!(chosen, unique_local("demo"));
        assert_ne!(chosen, unique_local("other"));
        assert!(chosen.starts_with("fd") && Subnet::parse(&chosen, true).is_ok(), "{chosen}");
    }
}
