//! How this installation's things on the host are named and known again.
//!
//! Three marks say whose a thing is: the `netloom-owner` external id in Open vSwitch, the alias of a host interface, and the group of a
//! host interface, which the kernel sets in the moment it makes it: a crash between making and aliasing leaves nothing ownerless.

use netloom_model::id::{Owner, WireId};
use netloom_model::slice::Nic;

use crate::config::Config;
use crate::netlink::Link;

/// The external id that names the owner.
pub const OWNER_KEY: &str = "netloom-owner";
/// The external id that names the wire id.
pub const WIRE_KEY: &str = "netloom-wire";
/// The external id of a port that names the interface index it was made for.
pub const INDEX_KEY: &str = "netloom-ifindex";

/// Names of one installation.
#[derive(Debug, Clone)]
pub struct Names {
    /// The installation.
    pub owner: String,
    /// The bridge of wires between NICs.
    pub bridge: String,
    nic_prefix: String,
    segment_prefix: String,
    /// Interface group of our host ends.
    pub group: u32,
}

/// What the alias of a host end tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// The NIC.
    pub wire: WireId,
    /// The start of its node that it was plugged into; empty when the NIC was not finished.
    pub start: String,
    /// [`fingerprint`] of the NIC as it was wanted then.
    pub fingerprint: String,
}

impl Names {
    /// Names as configured, for this owner.
    pub fn new(config: &Config, owner: Owner) -> Names {
        let owner = owner.to_string();
        // Even and positive: the odd number after it marks what is about to be deleted.
        let group = (fnv(&owner) & 0x7fff_fffe) | 0x4000_0000;
        Names {
            owner,
            bridge: config.bridge.clone(),
            nic_prefix: config.nic_prefix.clone(),
            segment_prefix: config.segment_prefix.clone(),
            group,
        }
    }

    /// Group of host ends that are deleted together.
    pub fn condemned_group(&self) -> u32 {
        self.group | 1
    }

    /// Name of a NIC's host end.
    pub fn nic(&self, wire: WireId) -> String {
        wire.interface_name(&self.nic_prefix)
    }

    /// Name of a segment's bridge: the prefix and the low 60 bits in base 32.
    pub fn segment(&self, wire: WireId) -> String {
        format!("{}{}", self.segment_prefix, &wire.interface_name("")[1..])
    }

    /// Names of the two patch ports of a wire between segments.
    pub fn patch(&self, wire: WireId) -> [String; 2] {
        ["a", "b"].map(|end| format!("{}{end}", self.nic(wire)))
    }

    /// The alias of a NIC's host end.
    pub fn alias(&self, nic: &Nic, start: &str) -> String {
        format!("netloom:{}:{}:{start}:{}", self.owner, nic.wire_id, fingerprint(nic))
    }

    /// What a host interface is to us; none when it is not ours.
    pub fn tag(&self, link: &Link) -> Option<Tag> {
        let wire = WireId::from_interface_name(&self.nic_prefix, &link.name)?;
        if link.alias.is_empty() {
            let ours = link.group == self.group || link.group == self.condemned_group();
            return ours.then(|| Tag { wire, start: String::new(), fingerprint: String::new() });
        }
        let rest = link.alias.strip_prefix("netloom:")?.strip_prefix(&self.owner)?.strip_prefix(':')?;
        let mut parts = rest.splitn(2, ':');
        let aliased: u64 = parts.next()?.parse().ok()?;
        let (start, fingerprint) = parts.next()?.rsplit_once(':')?;
        (aliased == wire.get()).then(|| Tag {
            wire,
            start: start.to_owned(),
            fingerprint: fingerprint.to_owned(),
        })
    }
}

/// Changes with everything about a NIC that can only be changed by plugging it anew. Kept stable over versions: a changed one replugs.
pub fn fingerprint(nic: &Nic) -> String {
    let text = format!("{}|{}|{}|{}", nic.guest_name, nic.mac, nic.mtu, nic.addresses.join(","));
    format!("{:08x}", fnv(&text))
}

/// FNV-1a, 32 bits.
fn fnv(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, b| (hash ^ u32::from(b)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use netloom_model::id::{LabUid, NodeUid};

    use super::*;

    fn nic(wire: u64) -> Nic {
        Nic {
            wire_id: wire.try_into().unwrap(),
            node_uid: NodeUid::new(),
            guest_name: "eth1".into(),
            mac: "02:00:00:00:00:01".into(),
            mtu: 9500,
            addresses: vec![],
            lab_uid: LabUid::new(),
        }
    }

    fn link(name: String, alias: String, group: u32) -> Link {
        Link { index: 7, name, alias, group, up: false, lower_up: false }
    }

    #[test]
    fn an_alias_is_read_back_by_its_owner_alone() {
        let (names, others) =
            (Names::new(&Config::default(), Owner::new()), Names::new(&Config::default(), Owner::new()));
        let nic = nic(77);
        let tagged = link(names.nic(nic.wire_id), names.alias(&nic, "a:b.c"), names.group);
        let tag = names.tag(&tagged).unwrap();
        assert_eq!((tag.wire, tag.start.as_str()), (nic.wire_id, "a:b.c"));
        assert_eq!(tag.fingerprint, fingerprint(&nic));
        assert_eq!(others.tag(&tagged), None);
        let renamed = Link { name: names.nic(78.try_into().unwrap()), ..tagged };
        assert_eq!(names.tag(&renamed), None, "the alias is of another NIC");
    }

    #[test]
    fn an_unfinished_nic_is_known_by_its_group() {
        let names = Names::new(&Config::default(), Owner::new());
        let name = names.nic(5.try_into().unwrap());
        assert!(names.tag(&link(name.clone(), String::new(), names.group)).is_some());
        assert!(names.tag(&link(name, String::new(), 0)).is_none());
        assert!(names.tag(&link("eth0".into(), String::new(), names.group)).is_none());
    }

    #[test]
    fn names_fit_and_never_meet() {
        let names = Names::new(&Config::default(), Owner::new());
        let last = WireId::try_from(u64::MAX >> 1).unwrap();
        assert_eq!((names.nic(last).len(), names.segment(last).len()), (15, 15));
        assert_eq!(WireId::from_interface_name("nl", &names.segment(last)), None);
    }

    #[test]
    fn what_needs_a_new_nic_changes_the_fingerprint() {
        let one = nic(1);
        let other = Nic { mtu: 1500, ..one.clone() };
        assert_ne!(fingerprint(&one), fingerprint(&other));
        assert_eq!(fingerprint(&one), fingerprint(&Nic { lab_uid: LabUid::new(), ..one.clone() }));
    }
}
