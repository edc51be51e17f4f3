//! What the owner of a host allows and its kernel can do, beside what a node asks for. Pure.
//!
//! A node that asks for what no host allows is refused before anything is written; where some host allows it, it goes there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::constraint::{LABELS, PINNED};
use super::taste::Images;
use crate::across::Reach;

use netloom_model::observed::{Acceleration, PathMtu, Uplink, UplinkKind};
use netloom_model::spec::{
    EndpointType, Impairment, KvmNeed, LinkSpec, NetworkMode, NodeSpec, Placement, capability,
    security_option,
};

/// What a host allows and can do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Allowed {
    /// True while it takes no new nodes at all.
    pub cordoned: bool,
    /// Devices that nodes may be given.
    pub devices: Vec<String>,
    /// Docker security options that nodes may set.
    pub security_opts: Vec<String>,
    /// Capabilities that nodes may be given.
    pub capabilities: Vec<String>,
    /// True when nodes may share its network namespace.
    pub host_network: bool,
    /// True when links may end in its interfaces.
    pub host_interfaces: bool,
    /// Fields of an impairment that its kernel can bring about.
    pub impairments: Vec<String>,
    /// What virtual machines run on there; none where it does not tell.
    pub acceleration: Option<Acceleration>,
    /// What it had of images when it was last asked.
    pub images: Arc<Images>,
    /// What of it bridges may have for uplinks.
    pub uplinks: Vec<Uplink>,
    /// Interfaces among them that bridges have, and which.
    pub taken_uplinks: BTreeMap<String, String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What keeps nodes away that do not tolerate it.
    pub taints: BTreeMap<String, String>,
    /// How other hosts are reached from it; none while it is not known.
    pub reach: Option<Reach>,
    /// What it measured of the ways to other hosts.
    pub paths: Arc<[PathMtu]>,
}

/// What a node asks of its host beside room.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Asks {
    devices: BTreeSet<String>,
    security_opts: BTreeSet<String>,
    capabilities: BTreeSet<String>,
    host_network: bool,
    host_interfaces: BTreeSet<String>,
    impairments: BTreeSet<Impaired>,
    /// What of its host a bridge is to be joined to; empty when nothing.
    pub(super) uplink: String,
    /// Which hosts it may be on.
    pub(super) placement: Placement,
}

/// What a link is to do to frames one way.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Impaired {
    link: String,
    from: String,
    to: String,
    field: &'static str,
}

impl Impaired {
    fn of(link: &LinkSpec) -> impl Iterator<Item = Impaired> {
        let ways = [(&link.a, &link.b, &link.a_to_b), (&link.b, &link.a, &link.b_to_a)];
        ways.into_iter().flat_map(move |(from, to, impairment)| {
            impairment.fields().into_iter().map(move |(field, _)| Impaired {
                link: link.id(),
                from: from.to_string(),
                to: to.to_string(),
                field,
            })
        })
    }
}

/// The codes of rejections that no room can help with.
const CODES: [&str; 9] = [
    PINNED,
    LABELS,
    "DEVICE_NOT_ALLOWED",
    "SECURITY_OPTION_NOT_ALLOWED",
    "CAPABILITY_NOT_ALLOWED",
    "HOST_NETWORK_NOT_ALLOWED",
    "HOST_INTERFACE_NOT_ALLOWED",
    "UPLINK_NOT_ALLOWED",
    "IMPAIRMENT_NOT_SUPPORTED",
];

/// True for the code of a rejection by what a host allows or can do.
pub fn is_policy(code: &str) -> bool {
    CODES.contains(&code)
}

/// True for the code of a rejection by a node that is to be on another host.
pub fn is_elsewhere(code: &str) -> bool {
    code == PINNED
}

impl Asks {
    /// As it is for a node that may only be on certain hosts.
    pub fn on(self, placement: &Placement) -> Asks {
        Asks { placement: placement.clone(), ..self }
    }

    /// What a node and its links ask for, wherever it is.
    pub fn of<'a>(node: &NodeSpec, links: impl Iterator<Item = &'a LinkSpec>) -> Asks {
        let mut asks = Asks {
            devices: node.devices.iter().map(|d| d.host_path.clone()).collect(),
            security_opts: node.security_opts.iter().map(|o| security_option(o).to_owned()).collect(),
            capabilities: node.cap_add.iter().map(|c| capability(c)).collect(),
            host_network: node.network_mode == NetworkMode::Host,
            uplink: node.uplink.clone(),
            ..Asks::default()
        };
        for link in links {
            let ends = [&link.a, &link.b].into_iter().filter(|end| end.kind == EndpointType::Host);
            asks.host_interfaces.extend(ends.map(|end| end.interface.clone()));
            asks.impairments.extend(Impaired::of(link));
        }
        asks
    }
}

impl Allowed {
    /// The code and the words for what of this is not allowed or cannot be done; none when all of it is.
    pub fn lacks(&self, asks: &Asks) -> Option<(&'static str, String)> {
        let missing = |asked: &BTreeSet<String>, allowed: &[String]| -> String {
            let not = |a: &&String| !allowed.contains(a);
            asked.iter().filter(not).cloned().collect::<Vec<_>>().join(", ")
        };
        let devices = missing(&asks.devices, &self.devices);
        if !devices.is_empty() {
            let what = format!("device {devices} is not in `devices` of [compute] on it");
            return Some(("DEVICE_NOT_ALLOWED", what));
        }
        let named: Vec<String> = self.security_opts.iter().map(|o| security_option(o).to_owned()).collect();
        let options = missing(&asks.security_opts, &named);
        if !options.is_empty() {
            let what = format!("security option {options} is not in `security_opts` of [compute] on it");
            return Some(("SECURITY_OPTION_NOT_ALLOWED", what));
        }
        let capabilities = missing(&asks.capabilities, &self.capabilities);
        if !capabilities.is_empty() {
            let what = format!("capability {capabilities} is not in `capabilities` of [compute] on it");
            return Some(("CAPABILITY_NOT_ALLOWED", what));
        }
        if asks.host_network && !self.host_network {
            let what = "nodes may share its network only with `host_network` of [compute] on it";
            return Some(("HOST_NETWORK_NOT_ALLOWED", what.to_owned()));
        }
        if !asks.host_interfaces.is_empty() && !self.host_interfaces {
            let names = asks.host_interfaces.iter().cloned().collect::<Vec<_>>().join(", ");
            let what = format!(
                "links may end in its interfaces ({names}) only with `host_interfaces` of [network] on it"
            );
            return Some(("HOST_INTERFACE_NOT_ALLOWED", what));
        }
        if !asks.uplink.is_empty() && self.uplink(&asks.uplink).is_none() {
            let what = format!(
                "has no interface {} that labs may use: name it in `uplinks` of [network] on it",
                asks.uplink
            );
            return Some(("UPLINK_NOT_ALLOWED", what));
        }
        self.lacks_impairments(asks).map(|what| ("IMPAIRMENT_NOT_SUPPORTED", what))
    }

    /// Why a machine that needs KVM is not run there; none when it is, or needs none. This may change while the host is there, so the node waits.
    pub fn lacks_kvm(&self, asks: &Asks) -> Option<String> {
        if asks.placement.kvm != Some(KvmNeed::Required) {
            return None;
        }
        match &self.acceleration {
            Some(Acceleration::Kvm) => None,
            Some(Acceleration::Emulated(why)) => Some(format!(
                "has no KVM, which the node needs ({why}): see to what netloom doctor says of it there, or let the node be emulated with kvm: preferred in its placement"
            )),
            None => Some(
                "does not say whether it has KVM, which the node needs: it runs an earlier version of netloom"
                    .to_owned(),
            ),
        }
    }

    fn uplink(&self, name: &str) -> Option<&Uplink> {
        self.uplinks.iter().find(|uplink| uplink.interface == name)
    }

    /// Why the uplink that is asked for cannot be had as it is now; none when it can, or none is asked for.
    pub fn lacks_uplink(&self, asks: &Asks) -> Option<String> {
        let uplink = self.uplink(&asks.uplink)?;
        if !uplink.problem.is_empty() {
            return Some(format!("cannot join a bridge to its {}: {}", uplink.interface, uplink.problem));
        }
        let taken = self.taken_uplinks.get(&uplink.interface)?;
        Some(format!("has its interface {} in bridge {taken}, and it can be in one only", uplink.interface))
    }

    /// Counts an interface that a bridge is joined to. A bridge of the host takes any number.
    pub fn take_uplink(&mut self, name: &str, bridge: impl FnOnce() -> String) {
        if self.uplink(name).is_some_and(|uplink| uplink.kind == Some(UplinkKind::Nic)) {
            self.taken_uplinks.entry(name.to_owned()).or_insert_with(bridge);
        }
    }

    /// What links are to do to frames that its kernel cannot: by the words that files and options have, with the link and the way.
    fn lacks_impairments(&self, asks: &Asks) -> Option<String> {
        let mut cannot: BTreeMap<(&str, &str, &str), Vec<&str>> = BTreeMap::new();
        for asked in asks.impairments.iter().filter(|i| !self.impairments.iter().any(|a| a == i.field)) {
            let way = (asked.link.as_str(), asked.from.as_str(), asked.to.as_str());
            cannot.entry(way).or_default().push(Impairment::word(asked.field));
        }
        if cannot.is_empty() {
            return None;
        }
        let mut told = Vec::new();
        for (&(link, from, to), fields) in &cannot {
            let fields = fields.join(", ");
            match cannot.get(&(link, to, from)) {
                Some(back) if back.join(", ") == fields && from > to => {}
                Some(back) if back.join(", ") == fields => told.push(format!("{fields} of link {link}")),
                _ => told.push(format!("{fields} of link {link} from {from} to {to}")),
            }
        }
        let can = match self.impairments.as_slice() {
            [] => "it can do none".to_owned(),
            some => {
                let words: Vec<&str> = some.iter().map(|field| Impairment::word(field)).collect();
                format!("it can do {}", words.join(", "))
            }
        };
        Some(format!("its kernel cannot do {}; {can}", told.join(" and ")))
    }
}

#[cfg(test)]
mod tests {
    use netloom_model::spec::{DeviceMapping, Endpoint};

    use super::*;

    #[test]
    fn what_is_not_allowed_is_named_with_the_key_that_allows_it() {
        let device = DeviceMapping { host_path: "/dev/net/tun".into(), ..DeviceMapping::default() };
        let node = NodeSpec { devices: vec![device], ..NodeSpec::default() };
        let asks = Asks::of(&node, [].into_iter());
        let (code, what) = Allowed::default().lacks(&asks).unwrap();
        assert!(
            is_policy(code) && what.contains("/dev/net/tun") && what.contains("`devices` of [compute]"),
            "{what}"
        );
        let allowed = Allowed { devices: vec!["/dev/net/tun".into()], ..Allowed::default() };
        assert_eq!(allowed.lacks(&asks), None);

        let node = NodeSpec { security_opts: vec!["seccomp=unconfined".into()], ..NodeSpec::default() };
        let code = Allowed::default().lacks(&Asks::of(&node, [].into_iter())).unwrap().0;
        assert_eq!(code, "SECURITY_OPTION_NOT_ALLOWED");
        for (asked, named) in
            [("no-new-privileges:true", "no-new-privileges"), ("no-new-privileges", "no-new-privileges=true")]
        {
            let node = NodeSpec { security_opts: vec![asked.into()], ..NodeSpec::default() };
            let allowed = Allowed { security_opts: vec![named.into()], ..Allowed::default() };
            assert_eq!(allowed.lacks(&Asks::of(&node, [].into_iter())), None, "{asked}");
        }
        let node = NodeSpec { network_mode: NetworkMode::Host, ..NodeSpec::default() };
        let code = Allowed::default().lacks(&Asks::of(&node, [].into_iter())).unwrap().0;
        assert_eq!(code, "HOST_NETWORK_NOT_ALLOWED");
    }

    #[test]
    fn a_capability_that_its_host_does_not_give_is_refused() {
        let node =
            NodeSpec { cap_add: vec!["NET_ADMIN".into(), "cap_sys_module".into()], ..NodeSpec::default() };
        let mut allowed = Allowed { capabilities: vec!["NET_ADMIN".into()], ..Allowed::default() };
        let asks = Asks::of(&node, [].into_iter());
        let (code, what) = allowed.lacks(&asks).unwrap();
        assert_eq!(
            (code, what.as_str()),
            ("CAPABILITY_NOT_ALLOWED", "capability SYS_MODULE is not in `capabilities` of [compute] on it")
        );
        assert!(is_policy(code));
        allowed.capabilities.push("SYS_MODULE".into());
        assert_eq!(allowed.lacks(&asks), None);
    }

    #[test]
    fn an_uplink_is_one_that_its_host_names_and_an_interface_is_in_one_bridge() {
        let node = NodeSpec { uplink: "ens5".into(), ..NodeSpec::default() };
        let asks = Asks::of(&node, [].into_iter());
        let (code, what) = Allowed::default().lacks(&asks).unwrap();
        assert_eq!(
            (code, what.as_str()),
            (
                "UPLINK_NOT_ALLOWED",
                "has no interface ens5 that labs may use: name it in `uplinks` of [network] on it"
            )
        );
        assert!(is_policy(code));
        let of = |kind, problem: &str| {
            let uplink = Uplink { interface: "ens5".into(), kind, problem: problem.into() };
            Allowed { uplinks: vec![uplink], ..Allowed::default() }
        };
        let gone = of(None, "there is no interface ens5 on this host");
        assert_eq!(gone.lacks(&asks), None, "it may come");
        let what = gone.lacks_uplink(&asks).unwrap();
        assert_eq!(what, "cannot join a bridge to its ens5: there is no interface ens5 on this host");
        for (kind, is_taken) in [(UplinkKind::Nic, true), (UplinkKind::Bridge, false)] {
            let mut allowed = of(Some(kind), "");
            assert_eq!(allowed.lacks_uplink(&asks), None);
            allowed.take_uplink("ens5", || "lab/sw".into());
            assert_eq!(allowed.lacks_uplink(&asks).is_some_and(|what| what.contains("lab/sw")), is_taken);
            assert_eq!(allowed.lacks_uplink(&Asks::default()), None);
        }
    }

    #[test]
    fn links_ask_for_their_nodes() {
        let end = |kind| Endpoint { interface: "veth-up".into(), kind, ..Endpoint::default() };
        let link = LinkSpec {
            a: Endpoint { node: "host".into(), ..end(EndpointType::Host) },
            b: Endpoint { node: "r1".into(), interface: "eth1".into(), ..Endpoint::default() },
            b_to_a: Impairment { delay_us: 5, rate_bps: 9, ..Impairment::default() },
            ..LinkSpec::default()
        };
        let asks = Asks::of(&NodeSpec::default(), [&link].into_iter());
        let (code, what) = Allowed::default().lacks(&asks).unwrap();
        assert_eq!(code, "HOST_INTERFACE_NOT_ALLOWED");
        assert!(what.contains("veth-up"), "{what}");
        let mut allowed =
            Allowed { host_interfaces: true, impairments: vec!["rate_bps".into()], ..Allowed::default() };
        let (code, what) = allowed.lacks(&asks).unwrap();
        assert_eq!(
            (code, what.as_str()),
            (
                "IMPAIRMENT_NOT_SUPPORTED",
                "its kernel cannot do delay of link host:veth-up--r1:eth1 from r1:eth1 to host:veth-up; it can do rate"
            )
        );
        let both = Impairment { delay_us: 5, loss_ppm: 1, ..Impairment::default() };
        let link = LinkSpec { a_to_b: both, b_to_a: both, ..link };
        let asks_both = Asks::of(&NodeSpec::default(), [&link].into_iter());
        let what = allowed.lacks(&asks_both).unwrap().1;
        assert_eq!(what, "its kernel cannot do delay, loss of link host:veth-up--r1:eth1; it can do rate");
        allowed.impairments.push("delay_us".into());
        assert_eq!(allowed.lacks(&asks), None);
    }
}
