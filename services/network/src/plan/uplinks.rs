//! What of the host segments are joined to: an interface, which becomes a port of one segment, or a bridge, which any number may be joined to.
//!
//! Both are the host's. Which a segment may name its configuration says, and what it uses itself is left alone, whoever names it. An interface is marked before anything of it is changed, and goes back
//! once Open vSwitch has let go of it. A Linux bridge gets the end of a tail for a port, a bridge of Open vSwitch a patch.

use std::collections::BTreeMap;

use netloom_model::id::WireId;
use netloom_model::observed::{Source, Uplink, UplinkKind, WireState};

use super::joins::tail_link;
use super::ports::{Ports, State};
use super::{Facts, Plan};
use crate::driver::ovs::Port;
use crate::names::End;
use crate::netlink::Link;
use crate::uplink::Manner;

/// The end of a segment that its uplink is at, where names of tails ask for one.
pub const UPLINK_END: End = End::A;

/// What is to be done to an interface of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handling {
    /// The segment.
    pub wire: WireId,
    /// The interface.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The alternative name that marks it.
    pub mark: String,
    /// True when it is taken for an uplink; else it goes back.
    pub take: bool,
    /// How it is set.
    pub now: Manner,
    /// How it is to be set.
    pub then: Manner,
}

/// How a segment is joined to its uplink.
#[derive(Clone, Copy)]
pub enum Way<'a> {
    /// The interface is a port of it.
    Nic {
        /// The interface.
        link: &'a Link,
        /// True once it is marked.
        is_marked: bool,
        /// True once it is set as an uplink is.
        is_set: bool,
    },
    /// A tail leads to a Linux bridge.
    LinuxBridge(&'a Link),
    /// A patch leads to a bridge of Open vSwitch.
    OvsBridge(&'a str),
}

/// How each segment with an uplink is joined to it, or why it cannot be.
pub struct Uplinks<'a>(BTreeMap<WireId, Result<Way<'a>, String>>);

impl<'a> Uplinks<'a> {
    /// The ways that there are.
    pub fn ways(&self) -> impl Iterator<Item = (WireId, Way<'a>)> {
        self.0.iter().filter_map(|(wire, way)| Some((*wire, *way.as_ref().ok()?)))
    }

    /// The segments that are joined to Linux bridges, and these.
    pub fn linux_bridges(&self) -> impl Iterator<Item = (WireId, &'a Link)> {
        self.ways().filter_map(|(wire, way)| match way {
            Way::LinuxBridge(bridge) => Some((wire, bridge)),
            _ => None,
        })
    }
}

/// What segments may have for uplinks, as it is.
pub fn inventory(facts: &Facts<'_>) -> Vec<Uplink> {
    let uplink = |name: &String| {
        let found = find(facts, name);
        let kind = found.as_ref().ok().map(|way| match way {
            Way::Nic { .. } => UplinkKind::Nic,
            Way::LinuxBridge(_) => UplinkKind::Bridge,
            Way::OvsBridge(_) => UplinkKind::OvsBridge,
        });
        let problem = found.map_or_else(Some, |way| problem(facts, name, way)).unwrap_or_default();
        Uplink { interface: name.clone(), kind, problem }
    };
    facts.allowed_uplinks.iter().map(uplink).collect()
}

/// Decides about interfaces and Linux bridges of the host.
pub fn plan<'a>(facts: &Facts<'a>, plan: &mut Plan) -> Uplinks<'a> {
    let mut uplinks = Uplinks(BTreeMap::new());
    for segment in facts.wanted.slice.segments.values().filter(|segment| !segment.uplink.is_empty()) {
        uplinks.0.insert(segment.wire_id, way(facts, segment.wire_id, &segment.uplink));
    }
    for (wire, way) in uplinks.ways().filter(|(wire, _)| !facts.resting(*wire)) {
        match way {
            // Without the database a bridge of Open vSwitch cannot be told from an interface.
            Way::Nic { link, is_marked, is_set } if facts.ovs.is_some() && !(is_marked && is_set) => {
                let is_free = facts.names.uplink_of(link).is_none_or(|(holder, _)| holder == wire);
                plan.handlings.extend(handling(facts, link, wire, true).filter(|_| is_free));
            }
            Way::LinuxBridge(bridge) => {
                let inner = facts.names.tail(wire, UPLINK_END).inner;
                let port = tail_link(facts, wire, &inner).filter(|port| port.master != bridge.index);
                plan.masters.extend(port.map(|port| (wire, (port.index, bridge.index))));
            }
            _ => {}
        }
    }
    let Some(ovs) = facts.ovs.filter(|_| facts.settled) else { return uplinks };
    for link in facts.links.values() {
        let Some((wire, _)) = facts.names.uplink_of(link) else { continue };
        let is_its = |way: &Way<'_>| matches!(way, Way::Nic { link: its, .. } if its.index == link.index);
        let stays = matches!(uplinks.0.get(&wire), Some(Ok(way)) if is_its(way));
        let is_judged = facts.is_wanted(wire) || facts.wanted.doomed.contains(&wire);
        let is_port =
            |port: &Port| port.owner.as_ref() == Some(&facts.names.owner) && port.index == Some(link.index);
        // Until ovs-vswitchd has let go of it, it has more of it than the row.
        let is_free = facts.deleted.get(&link.name).is_none_or(|cfg| ovs.cur_cfg >= *cfg)
            && !ovs.ports.values().any(is_port);
        if is_judged && !stays && is_free && !facts.resting(wire) {
            plan.handlings.extend(handling(facts, link, wire, false));
        }
    }
    uplinks
}

/// What to do to an interface that is taken, or goes back; none until it was looked at.
fn handling(facts: &Facts<'_>, link: &Link, wire: WireId, take: bool) -> Option<Handling> {
    let now = facts.uplinks.get(&link.name)?.manner;
    let before = facts.names.uplink_of(link).map_or(now, |(_, before)| before);
    Some(Handling {
        wire,
        index: link.index,
        name: link.name.clone(),
        mark: facts.names.uplink_mark(wire, link.index, &before),
        take,
        now,
        then: if take { now.taken(facts.userspace()) } else { before },
    })
}

/// How a segment is to be joined to what is called so.
fn way<'a>(facts: &Facts<'a>, wire: WireId, name: &'a str) -> Result<Way<'a>, String> {
    if !facts.allowed_uplinks.contains(name) {
        return Err(format!("labs may not use {name} of this host: name it in `uplinks` of [network]"));
    }
    let way = find(facts, name)?;
    if let Some(why) = problem(facts, name, way) {
        return Err(why);
    }
    let Way::Nic { link, .. } = way else { return Ok(way) };
    let names_it =
        |other: WireId| facts.wanted.slice.segments.get(&other).is_some_and(|segment| segment.uplink == name);
    let has_it = facts.names.uplink_of(link).map(|(holder, _)| holder);
    let first = || facts.wanted.slice.segments.keys().copied().find(|other| names_it(*other));
    if has_it.filter(|holder| names_it(*holder)).or_else(first) != Some(wire) {
        return Err(format!(
            "interface {name} is the uplink of another bridge of a lab, and can be that of one only"
        ));
    }
    let seen = facts.uplinks.get(name);
    let is_set = seen.is_some_and(|seen| seen.manner == seen.manner.taken(facts.userspace()));
    Ok(Way::Nic { link, is_marked: has_it == Some(wire), is_set })
}

/// What of the host is called so.
fn find<'a>(facts: &Facts<'a>, name: &str) -> Result<Way<'a>, String> {
    let bridge = facts.ovs.and_then(|ovs| ovs.bridges.get_key_value(name));
    if let Some((name, _)) = bridge {
        return Ok(Way::OvsBridge(name));
    }
    match facts.links.get(name) {
        None => Err(format!("there is no interface {name} on this host")),
        Some(link) if link.is_bridge => Ok(Way::LinuxBridge(link)),
        Some(link) => Ok(Way::Nic { link, is_marked: false, is_set: false }),
    }
}

/// Why no segment can be joined to it.
fn problem(facts: &Facts<'_>, name: &str, way: Way<'_>) -> Option<String> {
    let own = || Some(format!("bridge {name} is netloom's own"));
    match way {
        Way::LinuxBridge(bridge) if is_netlooms(facts, bridge) => own(),
        Way::LinuxBridge(bridge) if !bridge.up => {
            Some(format!("bridge {name} is down: ip link set {name} up"))
        }
        Way::LinuxBridge(_) => None,
        Way::OvsBridge(_) => {
            let bridges = &facts.ovs?.bridges;
            let bridge = bridges.get(name)?;
            if bridge.owner.is_some() {
                return own();
            }
            let where_to = |userspace| if userspace { "userspace" } else { "the kernel" };
            let (ours, theirs) = (where_to(facts.userspace()), where_to(bridge.datapath == "netdev"));
            (ours != theirs).then(|| {
                format!("bridge {name} forwards in {theirs} and bridges of labs in {ours}: give it the same datapath_type")
            })
        }
        Way::Nic { link, .. } => nic_problem(facts, link),
    }
}

fn nic_problem(facts: &Facts<'_>, link: &Link) -> Option<String> {
    let (name, is_ours) = (&link.name, facts.names.uplink_of(link).is_some());
    let port = facts.ovs.and_then(|ovs| ovs.ports.get(name));
    let is_our_port = port.is_some_and(|port| port.owner.as_ref() == Some(&facts.names.owner));
    let master = facts.links.values().find(|other| link.master != 0 && other.index == link.master);
    // A veth's other end is not made on it.
    let is_on_it = |other: &&Link| {
        other.peer == link.index
            && other.peer_namespace.is_none()
            && !other.is_veth
            && other.index != link.index
    };
    let why = if link.is_loopback {
        "is the host's loopback".to_owned()
    } else if is_netlooms(facts, link) {
        "is netloom's own".to_owned()
    } else if !link.uplink.is_empty() && !is_ours {
        "is the uplink of another installation of netloom".to_owned()
    } else if let Some(port) = port.filter(|_| !is_our_port) {
        format!("is a port of bridge {} already", port.bridge)
    } else if link.master != 0 && !is_our_port {
        format!("is a port of {} already", master.map_or("something else", |master| &master.name))
    } else if let Some(upper) = facts.links.values().find(is_on_it) {
        format!("carries the interface {} of the host", upper.name)
    } else {
        facts.uplinks.get(name)?.used.clone()?
    };
    Some(format!("interface {name} {why}"))
}

/// True for what an installation of netloom made.
fn is_netlooms(facts: &Facts<'_>, link: &Link) -> bool {
    link.alias.starts_with("netloom:") || facts.names.is_reserved(&link.name)
}

/// Says of each segment with an uplink how far that is.
pub fn tell(facts: &Facts<'_>, uplinks: &Uplinks<'_>, ports: &Ports, plan: &mut Plan) {
    for (wire, way) in &uplinks.0 {
        let Some(told) = plan.observed.segments.get_mut(wire) else { continue };
        told.sources.push(Source::Interfaces);
        told.sources.sort();
        told.sources.dedup();
        if told.state == WireState::Up {
            let told_of = match way {
                Err(why) => (WireState::Failed, why.clone()),
                Ok(way) => joined(facts, *wire, *way, ports),
            };
            (told.state, told.detail) = match (told_of, facts.trouble(*wire)) {
                ((WireState::Pending, _), Some(why)) => (WireState::Failed, why.to_owned()),
                (told_of, _) => told_of,
            };
        }
    }
}

/// How far a segment is joined to what it can be joined to.
fn joined(facts: &Facts<'_>, wire: WireId, way: Way<'_>, ports: &Ports) -> (WireState, String) {
    let names = facts.names;
    let tail = names.tail(wire, UPLINK_END);
    let (name, needed, is_there) = match way {
        Way::Nic { link, is_set, .. } => (link.name.as_str(), vec![link.name.clone()], is_set),
        Way::LinuxBridge(bridge) => {
            let port = tail_link(facts, wire, &tail.inner);
            let is_port = port.is_some_and(|port| port.master == bridge.index);
            (bridge.name.as_str(), vec![tail.outer], is_port)
        }
        Way::OvsBridge(name) => (name, names.patch(wire).to_vec(), true),
    };
    let mut states = needed.iter().map(|port| ports.get(port));
    let failed = states.clone().find_map(|state| match state {
        Some(State::Failed(why)) => Some(why.clone()),
        _ => None,
    });
    if let Some(why) = failed {
        return (WireState::Failed, why);
    }
    if !is_there || !states.all(|state| matches!(state, Some(State::Ready(_)))) {
        return (WireState::Pending, format!("it is being joined to {name}"));
    }
    match way {
        Way::Nic { link, .. } if !link.lower_up => {
            (WireState::Up, format!("its uplink {name} has no carrier"))
        }
        _ => (WireState::Up, String::new()),
    }
}
