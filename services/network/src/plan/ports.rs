//! Which ports to add and to delete.
//!
//! A port is bound to one host end, not to its name. Open vSwitch takes an interface that vanished and came back under its name for the same
//! and goes on reading from the one that is gone, while its status looks healthy. So a port carries the number of the interface it was made
//! for; one of another number is deleted, and added again only when ovs-vswitchd has taken up the deletion.

use std::collections::BTreeMap;

use netloom_model::id::WireId;
use netloom_model::slice::{Tunnel, Wire, WireEnd};

use super::bridges::Bridges;
use super::joins::{is_joined, segment_ends, tail_link, tail_mtu};
use super::nics::Places;
use super::uplinks::{UPLINK_END, Uplinks, Way};
use super::{Facts, Plan};
use crate::driver::ovs::{Change, Port, PortKind};

/// How a wanted port does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Open vSwitch has it, under this number.
    Ready(u32),
    /// It is being made.
    Making,
    /// It cannot be made.
    Failed(String),
}

/// Wanted ports, by name.
pub type Ports = BTreeMap<String, State>;

struct Wish {
    bridge: String,
    /// None: all wires to other hosts go through it.
    wire: Option<WireId>,
    kind: PortKind,
    /// True when it is not to be added yet.
    held: bool,
}

/// Decides about ports.
pub fn plan(
    facts: &Facts<'_>,
    nics: &Places<'_>,
    bridges: &Bridges,
    uplinks: &Uplinks<'_>,
    plan: &mut Plan,
) -> Ports {
    let mut wishes = wishes(facts, nics);
    for (wire, way) in uplinks.ways() {
        wish_for_uplink(facts, wire, way, &mut wishes);
    }
    let Some(ovs) = facts.ovs else {
        return wishes.into_keys().map(|name| (name, State::Making)).collect();
    };
    let ours = |port: &Port| port.owner.as_ref() == Some(&facts.names.owner);
    let mut ports = Ports::new();
    for (name, wish) in &wishes {
        let state = match ovs.ports.get(name) {
            Some(port) if !ours(port) => State::Failed(format!(
                "bridge {} has a port {name} that is not netloom's: it is left alone; remove it",
                port.bridge
            )),
            Some(port) if !fits(port, wish) => State::Making,
            Some(port) => {
                plan.changes.extend(other_mtu(port, wish, name));
                match (&port.error, port.ofport) {
                    (Some(error), _) => State::Failed(format!("Open vSwitch: {error}")),
                    (None, Some(number)) => State::Ready(number),
                    (None, None) => State::Making,
                }
            }
            None => {
                let let_go = facts.deleted.get(name).is_none_or(|cfg| ovs.cur_cfg >= *cfg);
                if let_go && facts.settled && !wish.held && bridges.takes_ports(&wish.bridge) {
                    plan.changes.push(Change::AddPort {
                        bridge: wish.bridge.clone(),
                        name: name.clone(),
                        wire: wish.wire,
                        kind: wish.kind.clone(),
                    });
                }
                State::Making
            }
        };
        ports.insert(name.clone(), state);
    }
    for (name, port) in ovs.ports.iter().filter(|(_, port)| ours(port)) {
        let wire = port.wire;
        // One that is not in the slice and was not removed either stays, and is told of.
        let is_known = |wire| facts.is_wanted(wire) || facts.wanted.doomed.contains(&wire);
        let ours_to_judge = wire.map_or(*name == facts.names.tunnel_port(), is_known);
        let fits = wishes.get(name).is_some_and(|wish| fits(port, wish));
        let rests = wire.is_none_or(|wire| facts.resting(wire));
        let stays = fits && (port.error.is_none() || rests);
        // Flows go first, so that none ever names a port that is not there.
        if ours_to_judge && !stays && !has_flows(facts, port) {
            let (bridge, name) = (port.bridge.clone(), name.clone());
            if let Some((error, wire)) = port.error.clone().filter(|_| fits).zip(wire) {
                plan.faulty_ports.insert(wire, format!("Open vSwitch: {error}"));
            }
            plan.changes.push(Change::DeletePort { bridge, uuid: port.uuid, name, wire });
        }
    }
    ports
}

/// An MTU is changed where it is: Open vSwitch would otherwise set the one back that it was told first.
fn other_mtu(port: &Port, wish: &Wish, name: &str) -> Option<Change> {
    let PortKind::Nic { mtu, .. } = wish.kind else { return None };
    let (interface, wire, name) = (port.interface, wish.wire?, name.to_owned());
    (port.mtu != Some(mtu)).then_some(Change::SetMtu { interface, name, wire, mtu })
}

fn fits(port: &Port, wish: &Wish) -> bool {
    let behind = match &wish.kind {
        PortKind::Nic { index, .. } | PortKind::Uplink { index } => port.index == Some(*index),
        PortKind::Patch { peer } => port.peer.as_ref() == Some(peer),
        PortKind::Tunnel { local, port: number } => port.tunnel == Some((*local, *number)),
    };
    behind && port.intact && port.bridge == wish.bridge && port.wire == wish.wire
}

fn has_flows(facts: &Facts<'_>, port: &Port) -> bool {
    let table =
        facts.tables.get(&port.bridge).filter(|table| table.trusted && port.bridge == facts.names.bridge);
    table.is_some_and(|table| {
        port.ofport.is_some()
            && table.rules.iter().any(|rule| rule.from == port.ofport || rule.to == port.ofport)
    })
}

fn wishes(facts: &Facts<'_>, nics: &Places<'_>) -> BTreeMap<String, Wish> {
    let names = facts.names;
    let mut wishes = BTreeMap::new();
    for wire in facts.wanted.slice.wires.values() {
        if is_joined(facts, wire) {
            wish_for_tails(facts, wire, &mut wishes);
            continue;
        }
        match ends(wire) {
            Ends::Nics(a, b) => {
                for nic in [a, b] {
                    wish_for_nic(facts, nics, nic, names.bridge.clone(), &mut wishes);
                }
            }
            Ends::NicAndSegment(nic, segment) => {
                wish_for_nic(facts, nics, nic, names.segment(segment), &mut wishes);
            }
            Ends::Segments(a, b) if wire.enabled && a != b => {
                let [one, other] = names.patch(wire.wire_id);
                for (bridge, name, peer) in [(a, &one, &other), (b, &other, &one)] {
                    let kind = PortKind::Patch { peer: peer.clone() };
                    let wire = Some(wire.wire_id);
                    let wish = Wish { bridge: names.segment(bridge), wire, kind, held: false };
                    wishes.insert(name.clone(), wish);
                }
            }
            Ends::Tunnel(WireEnd::Nic(nic), _) => {
                wish_for_nic(facts, nics, *nic, names.bridge.clone(), &mut wishes);
                if let Some(underlay) = facts.underlay {
                    let kind = PortKind::Tunnel { local: underlay.address, port: underlay.ovs_port() };
                    let wish = Wish { bridge: names.bridge.clone(), wire: None, kind, held: false };
                    wishes.insert(names.tunnel_port(), wish);
                }
            }
            Ends::Segments(..) | Ends::Special(..) | Ends::Tunnel(..) | Ends::Other => {}
        }
    }
    wishes
}

/// A wire that goes through the kernel has no ports but those of its tails.
fn wish_for_tails(facts: &Facts<'_>, wire: &Wire, wishes: &mut BTreeMap<String, Wish>) {
    for (end, segment) in segment_ends(wire) {
        let name = facts.names.tail(wire.wire_id, end).outer;
        let Some(link) = tail_link(facts, wire.wire_id, &name) else { continue };
        let kind = PortKind::Nic { index: link.index, mtu: tail_mtu(facts, wire) };
        let bridge = facts.names.segment(segment);
        wishes.insert(name, Wish { bridge, wire: Some(wire.wire_id), kind, held: false });
    }
}

/// What joins a segment to something of the host: the port that is that, or a way there.
fn wish_for_uplink(facts: &Facts<'_>, segment: WireId, way: Way<'_>, wishes: &mut BTreeMap<String, Wish>) {
    let mut wish = |bridge: String, name: String, kind| {
        wishes.insert(name, Wish { bridge, wire: Some(segment), kind, held: false });
    };
    let (bridge, names) = (facts.names.segment(segment), facts.names);
    match way {
        Way::Nic { link, is_marked: true, .. } => {
            wish(bridge, link.name.clone(), PortKind::Uplink { index: link.index });
        }
        Way::Nic { .. } => {}
        Way::LinuxBridge(foreign) => {
            let name = names.tail(segment, UPLINK_END).outer;
            if let Some(link) = tail_link(facts, segment, &name) {
                wish(bridge, name, PortKind::Nic { index: link.index, mtu: foreign.mtu });
            }
        }
        Way::OvsBridge(foreign) => {
            let [one, other] = names.patch(segment);
            wish(bridge, one.clone(), PortKind::Patch { peer: other.clone() });
            wish(foreign.to_owned(), other, PortKind::Patch { peer: one });
        }
    }
}

/// The first wire a NIC is named in has it.
fn wish_for_nic(
    facts: &Facts<'_>,
    nics: &Places<'_>,
    nic: WireId,
    bridge: String,
    wishes: &mut BTreeMap<String, Wish>,
) {
    let Some((place, link)) = nics.get(&nic).and_then(|place| Some((place, place.link?))) else { return };
    let kind = PortKind::Nic { index: link.index, mtu: place.nic.mtu };
    let held = place.held;
    wishes.entry(facts.names.nic(nic)).or_insert(Wish { bridge, wire: Some(nic), kind, held });
}

/// What a wire ends in.
pub enum Ends<'w> {
    /// Two NICs.
    Nics(WireId, WireId),
    /// A NIC and a segment.
    NicAndSegment(WireId, WireId),
    /// Two segments.
    Segments(WireId, WireId),
    /// A NIC or a segment, and another host.
    Tunnel(&'w WireEnd, &'w Tunnel),
    /// A NIC, and something else that needs no port.
    Special(WireId, WireEnd),
    /// What no wire can end in.
    Other,
}

/// What a wire ends in.
pub fn ends(wire: &Wire) -> Ends<'_> {
    match (&wire.a, &wire.b) {
        (WireEnd::Nic(a), WireEnd::Nic(b)) => Ends::Nics(*a, *b),
        (WireEnd::Nic(nic), WireEnd::Segment(segment)) | (WireEnd::Segment(segment), WireEnd::Nic(nic)) => {
            Ends::NicAndSegment(*nic, *segment)
        }
        (WireEnd::Segment(a), WireEnd::Segment(b)) => Ends::Segments(*a, *b),
        (here @ (WireEnd::Nic(_) | WireEnd::Segment(_)), WireEnd::Tunnel(tunnel))
        | (WireEnd::Tunnel(tunnel), here @ (WireEnd::Nic(_) | WireEnd::Segment(_))) => {
            Ends::Tunnel(here, tunnel)
        }
        (WireEnd::Nic(nic), other) | (other, WireEnd::Nic(nic)) => Ends::Special(*nic, other.clone()),
        _ => Ends::Other,
    }
}
