//! How this installation's things on the host are named and known again.
//!
//! Four marks say whose a thing is: the `netloom-owner` external id in Open vSwitch, the alias of a host interface, the cookie of a redirect,
//! and the group of a host interface, which the kernel sets in the moment it makes it: a crash between making and aliasing leaves nothing ownerless.

use netloom_model::id::{Owner, WireId};
pub use netloom_model::observed::End;
use netloom_model::slice::Nic;

use crate::config::Config;
use crate::guest::Setting;
use crate::links::Links;
use crate::netlink::{Link, UPLINK};
use crate::redirect::Mark;
use crate::uplink::Manner;

/// What stands behind the fingerprint of a NIC whose node leaves checksums to others, and of one whose node fills them in.
const ON: &str = "+";
const OFF: &str = "-";
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
    /// [`fingerprint`] of the NIC as it was made.
    pub fingerprint: String,
    /// Whether the node leaves checksums and segmentation to whoever takes its frames; none when it is not known.
    pub offload: Option<bool>,
    /// What of it can be changed, as it was set last: a [`Setting`] in words, or a digest of a longer one.
    pub setting: String,
}

/// The two ends of a tail: a veth that leads from a segment to where a wire is impaired.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tail {
    /// Name of the end that is a port of the segment.
    pub outer: String,
    /// Name of the end that frames are handed to and from.
    pub inner: String,
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

    /// The mark of a redirect on this interface.
    pub fn mark(&self, wire: WireId, from: u32) -> Mark {
        Mark { owner: self.group, from, wire }
    }

    /// Name of a NIC's host end.
    pub fn nic(&self, wire: WireId) -> String {
        wire.interface_name(&self.nic_prefix)
    }

    /// The host end of a NIC, among the host's interfaces. Nearly always it bears its own name; only one that was given to the host bears another.
    pub fn host_end<'a>(&self, links: &'a Links, wire: WireId) -> Option<&'a Link> {
        let is_its =
            |link: &&Link| self.tag(link).is_some_and(|tag| tag.wire == wire && !tag.start.is_empty());
        links.get(&self.nic(wire)).filter(is_its).or_else(|| links.values().find(is_its))
    }

    /// Name of a segment's bridge: the prefix and the low 60 bits in base 32.
    pub fn segment(&self, wire: WireId) -> String {
        format!("{}{}", self.segment_prefix, &wire.interface_name("")[1..])
    }

    /// Names of the two patch ports of a wire between segments.
    pub fn patch(&self, wire: WireId) -> [String; 2] {
        ["a", "b"].map(|end| format!("{}{end}", self.nic(wire)))
    }

    /// Names of a tail: the prefix, a letter that begins no wire id, and the low 60 bits in base 32.
    pub fn tail(&self, wire: WireId, end: End) -> Tail {
        let letters = match end {
            End::A => ['w', 'x'],
            End::B => ['y', 'z'],
        };
        let [outer, inner] =
            letters.map(|letter| format!("{}{letter}{}", self.nic_prefix, &wire.interface_name("")[1..]));
        Tail { outer, inner }
    }

    /// Name of a wire's tunnel to another host in the kernel, made as those of tails.
    pub fn tunnel(&self, wire: WireId) -> String {
        format!("{}v{}", self.nic_prefix, &wire.interface_name("")[1..])
    }

    /// Name of the one port of Open vSwitch that wires to other hosts go through.
    pub fn tunnel_port(&self) -> String {
        format!("{}vx{:08x}", self.nic_prefix, self.group)
    }

    /// True for a name that has the form of one that is made here: a host end, a tail, a tunnel, the bridge of a segment or of all wires.
    pub fn is_reserved(&self, name: &str) -> bool {
        let is_made = |prefix: &str, digits| {
            name.strip_prefix(prefix).is_some_and(|rest| WireId::are_digits(rest, digits))
        };
        name == self.bridge
            || name == self.tunnel_port()
            || is_made(&self.nic_prefix, WireId::DIGITS)
            || is_made(&self.segment_prefix, WireId::DIGITS - 1)
    }

    /// The alternative name of an interface that a segment has for an uplink: whose it is, and how it was set before.
    pub fn uplink_mark(&self, segment: WireId, index: u32, before: &Manner) -> String {
        // No two interfaces have one alternative name, and a segment may be given another uplink while it has one.
        format!("{UPLINK}{}.{segment}.{index}.{before}", self.owner)
    }

    /// The segment that has an interface for an uplink, and how it was set before; none when it is none of ours.
    pub fn uplink_of(&self, link: &Link) -> Option<(WireId, Manner)> {
        let rest = link.uplink.strip_prefix(UPLINK)?.strip_prefix(&self.owner)?.strip_prefix('.')?;
        let (segment, rest) = rest.split_once('.')?;
        let (_, before) = rest.split_once('.')?;
        Some((segment.parse::<u64>().ok()?.try_into().ok()?, before.parse().ok()?))
    }

    /// The alias of a tail's ends.
    pub fn tail_alias(&self, wire: WireId) -> String {
        format!("netloom:{}:{wire}:tail", self.owner)
    }

    /// The alias of a tunnel.
    pub fn tunnel_alias(&self, wire: WireId) -> String {
        format!("netloom:{}:{wire}:tunnel", self.owner)
    }

    /// The wire that a host interface is a tail's end of; none when it is not ours.
    pub fn tail_of(&self, link: &Link) -> Option<WireId> {
        self.marked(link, ":tail")
    }

    /// The wire that a host interface is the tunnel of; none when it is not ours.
    pub fn tunnel_of(&self, link: &Link) -> Option<WireId> {
        self.marked(link, ":tunnel")
    }

    fn marked(&self, link: &Link, what: &str) -> Option<WireId> {
        let rest = link.alias.strip_prefix("netloom:")?.strip_prefix(&self.owner)?.strip_prefix(':')?;
        rest.strip_suffix(what)?.parse::<u64>().ok()?.try_into().ok()
    }

    /// True when an interface that is named like a tail's end is ours: also one that was not finished.
    pub fn is_our_tail(&self, link: &Link, wire: WireId) -> bool {
        link.group == self.group && (link.alias.is_empty() || self.tail_of(link) == Some(wire))
    }

    /// True when an interface that is named like a tunnel is ours: also one that was not finished.
    pub fn is_our_tunnel(&self, link: &Link, wire: WireId) -> bool {
        link.group == self.group && (link.alias.is_empty() || self.tunnel_of(link) == Some(wire))
    }

    /// The alias of a NIC's host end. The kernel keeps 255 characters.
    pub fn alias(&self, nic: &Nic, start: &str, offload: Option<bool>) -> String {
        let sign = offload.map_or("", |on| if on { ON } else { OFF });
        let fixed = format!("netloom:{}:{}:{start}:{}{sign}|", self.owner, nic.wire_id, fingerprint(nic));
        let setting = Setting::text(nic);
        if fixed.len() + setting.len() < 256 { fixed + &setting } else { fixed + &digest(&setting) }
    }

    /// True when a NIC is set as it is wanted.
    pub fn is_set(&self, tag: &Tag, nic: &Nic) -> bool {
        let setting = Setting::text(nic);
        tag.setting == setting || tag.setting == digest(&setting)
    }

    /// What a host interface is to us; none when it is not ours. One that bears a name of the host's own choosing is known by its alias and
    /// its group.
    pub fn tag(&self, link: &Link) -> Option<Tag> {
        let named = WireId::from_interface_name(&self.nic_prefix, &link.name);
        let ours = link.group == self.group || link.group == self.condemned_group();
        if link.alias.is_empty() {
            let (start, fingerprint, setting) = Default::default();
            let tag = |wire| Tag { wire, start, fingerprint, offload: None, setting };
            return named.filter(|_| ours).map(tag);
        }
        let rest = link.alias.strip_prefix("netloom:")?.strip_prefix(&self.owner)?.strip_prefix(':')?;
        let mut parts = rest.splitn(2, ':');
        let wire = parts.next()?.parse::<u64>().ok()?.try_into().ok()?;
        let (marks, setting) = parts.next()?.rsplit_once('|')?;
        let (start, fingerprint) = marks.rsplit_once(':')?;
        let signed = |sign| fingerprint.strip_suffix(sign);
        let (fingerprint, offload) = match (signed(ON), signed(OFF)) {
            (Some(rest), _) => (rest, Some(true)),
            (_, Some(rest)) => (rest, Some(false)),
            (None, None) => (fingerprint, None),
        };
        let is_its = named.map_or(ours, |named| named == wire);
        is_its.then(|| Tag {
            wire,
            start: start.to_owned(),
            fingerprint: fingerprint.to_owned(),
            offload,
            setting: setting.to_owned(),
        })
    }
}

/// Changes with everything about a NIC that can only be changed by plugging it anew. Kept stable over versions: a changed one replugs.
pub fn fingerprint(nic: &Nic) -> String {
    format!("{:08x}", fnv(&nic.guest_name))
}

fn digest(setting: &str) -> String {
    format!("#{:08x}", fnv(setting))
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
        Link { index: 7, name, alias, group, ..Link::default() }
    }

    #[test]
    fn an_alias_is_read_back_by_its_owner_alone() {
        let (names, others) =
            (Names::new(&Config::default(), Owner::new()), Names::new(&Config::default(), Owner::new()));
        let nic = nic(77);
        let tagged = link(names.nic(nic.wire_id), names.alias(&nic, "a:b.c", Some(false)), names.group);
        let tag = names.tag(&tagged).unwrap();
        assert_eq!((tag.wire, tag.start.as_str()), (nic.wire_id, "a:b.c"));
        assert_eq!((tag.fingerprint.as_str(), tag.offload), (fingerprint(&nic).as_str(), Some(false)));
        assert_eq!(others.tag(&tagged), None);
        let renamed = Link { name: names.nic(78.try_into().unwrap()), ..tagged };
        assert_eq!(names.tag(&renamed), None, "the alias is of another NIC");
        let given = Link { name: "uplink".into(), ..renamed };
        assert_eq!(names.tag(&given), Some(tag), "under a name that the host chose");
        assert_eq!(names.tag(&Link { group: 0, ..given }), None);
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
    fn names_of_the_form_of_its_own_are_reserved() {
        let names = Names::new(&Config::default(), Owner::new());
        let wire = WireId::try_from(u64::MAX >> 1).unwrap();
        let Tail { outer, inner } = names.tail(wire, End::B);
        let made =
            [names.nic(wire), names.segment(wire), outer, inner, names.tunnel(wire), names.tunnel_port()];
        for name in made.into_iter().chain(["nl0".to_owned()]) {
            assert!(names.is_reserved(&name), "{name}");
        }
        for name in ["nl1", "nl-uplink", "nl-uplink-to-me", "uplink"] {
            assert!(!names.is_reserved(name), "{name}");
        }
    }

    #[test]
    fn only_another_name_needs_a_new_nic() {
        let one = nic(1);
        let other = Nic { guest_name: "eth2".into(), ..one.clone() };
        assert_ne!(fingerprint(&one), fingerprint(&other));
        let names = Names::new(&Config::default(), Owner::new());
        let tagged = link(names.nic(one.wire_id), names.alias(&one, "s1", None), names.group);
        let tag = names.tag(&tagged).unwrap();
        assert!(names.is_set(&tag, &one));
        for other in [
            Nic { mtu: 1500, ..one.clone() },
            Nic { mac: "02:00:00:00:00:02".into(), ..one.clone() },
            Nic { addresses: vec!["10.0.0.1/24".into()], ..one.clone() },
        ] {
            assert_eq!(fingerprint(&one), fingerprint(&other));
            assert!(!names.is_set(&tag, &other));
        }
    }

    #[test]
    fn an_alias_is_never_longer_than_the_kernel_keeps() {
        let names = Names::new(&Config::default(), Owner::new());
        let many = (0..40).map(|n| format!("2001:db8::{n}/64")).collect();
        let nic = Nic { addresses: many, ..nic(u64::MAX >> 1) };
        let alias = names.alias(&nic, &"s".repeat(64), Some(true));
        assert!(alias.len() < 256, "{}", alias.len());
        let tag = names.tag(&link(names.nic(nic.wire_id), alias, names.group)).unwrap();
        assert!(names.is_set(&tag, &nic) && Setting::read(&tag.setting).is_none());
    }

    #[test]
    fn an_uplink_is_known_by_its_owner_alone() {
        let (names, others) =
            (Names::new(&Config::default(), Owner::new()), Names::new(&Config::default(), Owner::new()));
        let wire = WireId::try_from(u64::MAX >> 1).unwrap();
        let before = Manner { up: true, rp_filter: 2, arp_ignore: 0, ipv6_off: false, merges: Some(true) };
        let mark = names.uplink_mark(wire, i32::MAX as u32, &before);
        // The kernel keeps 127 characters.
        assert!(mark.len() < 128, "{mark}");
        let link = Link { uplink: mark, ..link("ens5".into(), String::new(), 0) };
        assert_eq!(names.uplink_of(&link), Some((wire, before)));
        assert_eq!(others.uplink_of(&link), None);
    }

    #[test]
    fn a_tail_is_told_from_a_nic_and_from_a_segment() {
        let names = Names::new(&Config::default(), Owner::new());
        let wire = WireId::try_from(u64::MAX >> 1).unwrap();
        let Tail { outer, inner } = names.tail(wire, End::A);
        assert!(outer != inner && outer.len() == 15);
        for name in [&outer, &inner] {
            assert_eq!(WireId::from_interface_name("nl", name), None);
        }
        let end = link(outer, names.tail_alias(wire), names.group);
        assert_eq!((names.tail_of(&end), names.tag(&end)), (Some(wire), None));
        assert!(names.is_our_tail(&end, wire) && !names.is_our_tail(&Link { group: 0, ..end }, wire));
        let tunnel = link(names.tunnel(wire), names.tunnel_alias(wire), names.group);
        assert_eq!(
            (names.tunnel_of(&tunnel), names.tail_of(&tunnel), names.tag(&tunnel)),
            (Some(wire), None, None)
        );
        assert!(names.is_our_tunnel(&tunnel, wire) && names.tunnel(wire).len() == 15);
    }
}
