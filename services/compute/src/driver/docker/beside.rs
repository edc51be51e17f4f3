//! What of the host somebody else has, asked before something is made anew: ports that are published, and the names and addresses of management networks. Nothing is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::path::Path;

use bollard::models::{self, ContainerSummary, PortSummary};
use bollard::query_parameters::{ListContainersOptions, ListNetworksOptions};
use netloom_model::id::NodeUid;
use netloom_model::slice::{Instance, Network};
use netloom_model::spec::{PortMapping, Subnet};

use super::{DockerDriver, create, label, network};
use crate::error::Error;

impl DockerDriver {
    /// Which of these instances could not be made once those of the leaving nodes are gone, and why.
    pub(super) async fn check_beside(
        &self,
        instances: &[Instance],
        leaving: &BTreeSet<NodeUid>,
    ) -> Result<Vec<(NodeUid, Error)>, Error> {
        let mut refused = self.check_networks(instances).await?;
        let publishes = |i: &&Instance| i.spec.ports.iter().any(|p| p.host_port > 0);
        let publishing: Vec<&Instance> = instances.iter().filter(publishes).collect();
        if publishing.is_empty() {
            return Ok(refused);
        }
        let client = self.client().await?;
        let containers =
            client.list_containers(None::<ListContainersOptions>).await.map_err(|e| self.error(e))?;
        let held: Vec<(PortSummary, Holder)> =
            containers.into_iter().flat_map(|c| ports(c, leaving)).collect();
        for instance in publishing {
            let taken = instance.spec.ports.iter().filter(|p| p.host_port > 0);
            if let Some(error) = taken.filter_map(|port| taken_by(port, &held)).next() {
                refused.push((instance.uid, error));
            }
        }
        Ok(refused)
    }

    /// Instances whose management network is not there as asked, and cannot be made.
    pub(in crate::driver) async fn check_networks(
        &self,
        instances: &[Instance],
    ) -> Result<Vec<(NodeUid, Error)>, Error> {
        let mut wanted: BTreeMap<&str, (&Instance, &Network, Vec<NodeUid>)> = BTreeMap::new();
        for instance in instances {
            if let Ok(create::Network::Management(network)) = create::network(instance, None) {
                let entry = wanted.entry(&network.name).or_insert((instance, network, Vec::new()));
                entry.2.push(instance.uid);
            }
        }
        let mut refused = Vec::new();
        if wanted.is_empty() {
            return Ok(refused);
        }
        let there = self.client().await?.list_networks(None::<ListNetworksOptions>).await;
        let there = there.map_err(|e| self.error(e))?;
        for (instance, network, uids) in wanted.into_values() {
            let request = network::request(network, instance.lab_uid, instance.lab.as_str(), self.owner);
            let labels = request.labels.clone().unwrap_or_default();
            let bridge = request.options.as_ref().and_then(|o| o.get(network::BRIDGE));
            let exists = |bridge: &str| Path::new("/sys/class/net").join(bridge).exists();
            let why = || network_taken(network, &labels, bridge.map(String::as_str), &there, exists);
            // An error cannot be had twice: each node gets its own.
            refused.extend(uids.into_iter().filter_map(|uid| Some((uid, why()?))));
        }
        Ok(refused)
    }
}

/// Who has a published port.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Holder {
    /// A container that goes first.
    Leaving,
    /// This one.
    Container(String),
}

/// The ports of the host that a container has.
fn ports(container: ContainerSummary, leaving: &BTreeSet<NodeUid>) -> Vec<(PortSummary, Holder)> {
    let labels = container.labels.unwrap_or_default();
    let uid = labels.get(label::UID).and_then(|uid| uid.parse().ok());
    let holder = match uid.is_some_and(|uid| leaving.contains(&uid)) {
        true => Holder::Leaving,
        false => {
            let name = container.names.unwrap_or_default().into_iter().next().unwrap_or_default();
            Holder::Container(name.trim_start_matches('/').to_owned())
        }
    };
    container.ports.unwrap_or_default().into_iter().map(|port| (port, holder.clone())).collect()
}

fn taken_by(port: &PortMapping, held: &[(PortSummary, Holder)]) -> Option<Error> {
    let address = if port.host_address.is_empty() { create::LOOPBACK } else { &port.host_address };
    let protocol = if port.protocol.is_empty() { "tcp" } else { &port.protocol };
    let everywhere = |a: &str| a.parse::<IpAddr>().is_ok_and(|a| a.is_unspecified());
    let same = |p: &PortSummary| {
        let of = p.ip.as_deref().unwrap_or_default();
        p.public_port.map(u32::from) == Some(port.host_port)
            && p.typ.is_some_and(|t| t.to_string() == protocol)
            && (of == address || of.is_empty() || everywhere(of) || everywhere(address))
    };
    let mut holders = held.iter().filter(|(p, _)| same(p)).map(|(_, holder)| holder).peekable();
    if holders.peek().is_none() {
        return is_bound(address, port.host_port, protocol)
            .then(|| Error::port_taken(port, "a program of this host has it"));
    }
    holders.find_map(|holder| match holder {
        Holder::Leaving => None,
        Holder::Container(name) => Some(Error::port_taken(port, &format!("container {name} has it"))),
    })
}

/// True when a program has this port, by trying: Docker knows of its own only.
fn is_bound(address: &str, port: u32, protocol: &str) -> bool {
    let (Ok(address), Ok(port)) = (address.parse::<IpAddr>(), u16::try_from(port)) else { return false };
    let tried = match protocol {
        "tcp" => TcpListener::bind((address, port)).map(drop),
        "udp" => UdpSocket::bind((address, port)).map(drop),
        _ => return false,
    };
    // What else may be wrong with it the runtime says.
    tried.is_err_and(|e| e.kind() == ErrorKind::AddrInUse)
}

/// Why a management network could not be made; none when it could, or is there.
fn network_taken(
    network: &Network,
    labels: &std::collections::HashMap<String, String>,
    bridge: Option<&str>,
    there: &[models::Network],
    exists: impl Fn(&str) -> bool,
) -> Option<Error> {
    let is_ours = |other: &models::Network| {
        let of = other.labels.as_ref();
        let same = |key: &str| of.and_then(|l| l.get(key)) == labels.get(key);
        same(label::OWNER) && same(label::LAB_UID)
    };
    let name = |other: &models::Network| other.name.clone().unwrap_or_default();
    if let Some(other) = there.iter().find(|n| name(n) == network.name && !is_ours(n)) {
        return Some(network::foreign(&name(other)));
    }
    let is_of = |n: &models::Network, bridge: &str| {
        n.options.as_ref().and_then(|o| o.get(network::BRIDGE)).is_some_and(|b| b == bridge)
    };
    if let Some(bridge) = bridge.filter(|b| exists(b) && !there.iter().any(|n| is_ours(n) && is_of(n, b))) {
        return Some(network::foreign_bridge(bridge));
    }
    let spec = &network.spec;
    for (wanted, v6) in [(&spec.ipv4_subnet, false), (&spec.ipv6_subnet, true)] {
        let Ok(subnet) = Subnet::parse(wanted, v6) else { continue };
        for other in there.iter().filter(|n| !is_ours(n)) {
            let pools = other.ipam.iter().flat_map(|i| i.config.iter().flatten());
            let mut subnets = pools.filter_map(|c| Subnet::parse(c.subnet.as_deref()?, v6).ok());
            if let Some(theirs) = subnets.find(|s| s.holds_all_of(&subnet) || subnet.holds_all_of(s)) {
                return Some(Error::SubnetTaken(format!(
                    "the management subnet {subnet} overlaps {theirs} of the Docker network {}; give `mgmt` another subnet, or remove that network",
                    name(other)
                )));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::{Ipam, IpamConfig, PortSummaryTypeEnum};
    use netloom_model::Failure;
    use netloom_model::id::{LabUid, Owner};
    use netloom_model::spec::MgmtSpec;

    fn mapping(address: &str, port: u32) -> PortMapping {
        PortMapping { host_address: address.into(), host_port: port, node_port: 80, protocol: String::new() }
    }

    #[test]
    fn a_port_is_taken_by_whoever_stays() {
        let port = |ip: &str, port| PortSummary {
            ip: Some(ip.into()),
            public_port: Some(port),
            private_port: 80,
            typ: Some(PortSummaryTypeEnum::TCP),
        };
        let held = [
            (port("0.0.0.0", 81), Holder::Container("web".into())),
            (port("127.0.0.1", 82), Holder::Leaving),
            (port("127.0.0.2", 83), Holder::Container("other".into())),
        ];
        let why = |m: PortMapping| taken_by(&m, &held).map(|e| e.to_string());
        assert_eq!(
            why(mapping("", 81)).unwrap(),
            "host port 81/tcp is taken: container web has it; give the node another host port, or free this one"
        );
        assert_eq!(why(mapping("", 82)), None, "its container goes first");
        assert!(why(mapping("0.0.0.0", 83)).unwrap().contains("container other"));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let bound = mapping("127.0.0.1", listener.local_addr().unwrap().port().into());
        assert!(why(bound.clone()).unwrap().contains("a program of this host"));
        drop(listener);
        assert_eq!(why(bound), None);
    }

    #[test]
    fn a_networks_addresses_are_taken_by_others_only() {
        let (lab, owner) = (LabUid::new(), Owner::new());
        let spec =
            MgmtSpec { ipv4_subnet: "172.20.20.0/24".into(), bridge: "br-x".into(), ..MgmtSpec::default() };
        let wanted = Network { name: "n".into(), spec, ..Network::default() };
        let made = network::request(&wanted, lab, "x", owner);
        let other = |name: &str, subnet: &str, ours: bool| models::Network {
            name: Some(name.into()),
            labels: made.labels.clone().filter(|_| ours),
            options: made.options.clone().filter(|_| ours),
            ipam: Some(Ipam {
                config: Some(vec![IpamConfig { subnet: Some(subnet.into()), ..IpamConfig::default() }]),
                ..Ipam::default()
            }),
            ..models::Network::default()
        };
        let labels = made.labels.clone().unwrap();
        let why = |there: &[models::Network], bridge: bool| {
            network_taken(&wanted, &labels, Some("br-x"), there, |_| bridge).map(|e| Failure::from(e).reason)
        };
        assert_eq!(why(&[other("n", "172.20.20.0/24", true)], true), None, "it is this lab's own");
        assert_eq!(why(&[other("z", "172.20.0.0/16", false)], false).as_deref(), Some("SUBNET_TAKEN"));
        assert_eq!(why(&[other("z", "172.20.20.128/25", false)], false).as_deref(), Some("SUBNET_TAKEN"));
        assert_eq!(why(&[other("z", "172.21.0.0/16", false)], false), None);
        assert_eq!(why(&[other("n", "10.0.0.0/8", false)], false).as_deref(), Some("NAME_TAKEN"));
        assert_eq!(why(&[], true).as_deref(), Some("NAME_TAKEN"), "somebody else has the bridge");
    }
}
