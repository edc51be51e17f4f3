//! Which NICs to make, to change and to take away, and what their host ends are called.
//!
//! A NIC belongs to one start of its node. Its host end's alias says which, and how the NIC was set then; so after a restart of this
//! service a NIC that is as it should be is known without entering its namespace, and goes on carrying untouched. Only another name inside
//! the node makes a NIC anew: everything else is changed while it is there.

use std::collections::BTreeMap;

use netloom_model::id::WireId;
use netloom_model::observed::{NEEDS_RESTART, ObservedNic};
use netloom_model::slice::{Nic, WireEnd};

use super::planes;
use super::refusals;
use super::taps;
use super::{Adjustment, Facts, Plan, PlugWish, Rename};
use crate::carrier::Will;
use crate::guest::{Guest, Setting};
use crate::names::{Tag, fingerprint};
use crate::netlink::Link;

/// A wanted NIC as it is.
pub struct Place<'a> {
    /// The NIC.
    pub nic: &'a Nic,
    /// Its host end; none unless it is plugged into the current start of its node.
    pub link: Option<&'a Link>,
    /// That start.
    pub start: String,
    /// That its node calls it differently, and why it still does.
    pub misnamed: Option<String>,
    /// Why it is not plugged.
    pub why: String,
    /// True when that is not just a matter of time.
    pub failed: bool,
    /// True while its offload is being changed: it is not to go to another plane before.
    pub held: bool,
    /// Whether its node sees the carrier of its host end: of a virtual machine, compute has to tell it.
    pub shown: bool,
}

/// Wanted NICs.
pub type Places<'a> = BTreeMap<WireId, Place<'a>>;

/// What the wire of each NIC leads to, where that is no NIC, no segment and no other host.
type Roles<'a> = BTreeMap<WireId, &'a WireEnd>;

fn roles<'a>(facts: &Facts<'a>) -> Roles<'a> {
    let mut roles = Roles::new();
    for wire in facts.wanted.slice.wires.values() {
        for (end, other) in [(&wire.a, &wire.b), (&wire.b, &wire.a)] {
            if let WireEnd::Nic(nic) = end {
                roles.entry(*nic).or_insert(other);
            }
        }
    }
    roles.retain(|_, other| !matches!(other, WireEnd::Nic(_) | WireEnd::Segment(_) | WireEnd::Tunnel(_)));
    roles
}

/// Whether nodes may leave checksums and segmentation to others, of each NIC that has a wire.
fn offloads(facts: &Facts<'_>) -> BTreeMap<WireId, bool> {
    let mut offloads = BTreeMap::new();
    for wire in facts.wanted.slice.wires.values() {
        let may = planes::offloads(facts, wire);
        for end in [&wire.a, &wire.b] {
            if let WireEnd::Nic(nic) = end {
                offloads.entry(*nic).or_insert(may);
            }
        }
    }
    offloads
}

/// Decides about NICs.
pub fn plan<'a>(facts: &Facts<'a>, plan: &mut Plan) -> Places<'a> {
    let (roles, offloads) = (roles(facts), offloads(facts));
    let there: BTreeMap<WireId, (&Link, Tag)> = facts
        .links
        .values()
        .filter_map(|link| facts.names.tag(link).map(|tag| (tag.wire, (link, tag))))
        .collect();
    let mut places = Places::new();
    for nic in facts.wanted.slice.nics.values() {
        let wire = nic.wire_id;
        let name = facts.names.nic(wire);
        let given = match roles.get(&wire) {
            Some(end @ WireEnd::HostInterface(given))
                if facts.host_interfaces && refusals::name(facts, end).is_none() =>
            {
                Some(given)
            }
            _ => None,
        };
        // A name that somebody else has is told by the wire.
        let host_name = given.filter(|given| {
            facts
                .links
                .get(*given)
                .is_none_or(|link| facts.names.tag(link).is_some_and(|tag| tag.wire == wire))
        });
        let (host_name, silent) = (host_name.unwrap_or(&name), host_name.is_none());
        let start = facts.starts.get(&nic.node_uid);
        let (start_id, why) = Default::default();
        let mut place = Place {
            nic,
            link: None,
            start: start_id,
            misnamed: None,
            why,
            failed: false,
            held: false,
            shown: true,
        };
        let offload = offloads.get(&wire).copied();
        let wrong = Guest::parse(nic).err();
        let ours = there.get(&wire);
        let tap = taps::find(facts, &name, ours, start);
        match (ours, start) {
            (_, Some(start))
                if start.machine.as_ref().is_some_and(|machine| machine.lacks.contains(&wire)) =>
            {
                place.why = NEEDS_RESTART.to_owned();
            }
            _ if tap.is_some() => {
                let tap = tap.map(|tap| (tap, ours.map(|(_, tag)| tag)));
                tap.into_iter().for_each(|tap| taps::plan(facts, nic, tap, start, &mut place, plan));
            }
            (None, _) if facts.links.contains_key(&name) => {
                place.failed = true;
                place.why = format!(
                    "the host has an interface {name} that is not netloom's: rename it, or set network.nic_prefix"
                );
            }
            (there, _) if wrong.is_some() => {
                plan.unplug.extend(there.map(|(link, _)| (wire, link.index)));
                place.failed = true;
                place.why = wrong.unwrap_or_default();
            }
            (Some((link, tag)), Some(start)) if tag.start == start.id && stays(facts, nic, tag) => {
                place.link = Some(link);
                place.start.clone_from(&tag.start);
                let other = offload.filter(|offload| tag.offload != Some(*offload));
                place.held = other.is_some() && facts.trouble(wire).is_none();
                let called = called(link);
                let is_renamed = called.is_some_and(|called| *called != nic.guest_name);
                if is_renamed || other.is_some() || !facts.names.is_set(tag, nic) {
                    place.why = adjust(facts, nic, link, tag, other, plan);
                }
                if let Some(called) = called.filter(|_| is_renamed) {
                    let but = facts.trouble(wire).map(|why| format!(": {why}")).unwrap_or_default();
                    place.misnamed = Some(format!("its node calls the interface {called}{but}"));
                }
            }
            (Some((link, _)), _) => {
                // Of an earlier start, or wanted differently since.
                plan.unplug.insert(wire, link.index);
                place.why = "it is being plugged anew".to_owned();
            }
            (None, Some(_)) if facts.resting(wire) => {
                place.failed = true;
                place.why = facts.trouble(wire).unwrap_or_default().to_owned();
            }
            (None, Some(start)) if start.machine.is_some() => {
                place.why = "its virtual machine is being given it".to_owned();
            }
            (None, Some(_)) => {
                // By its own name it is known as ours before it is marked, and is given the host's after.
                let (host_name, offload) = (name.clone(), offload.unwrap_or(true));
                let wish = PlugWish { wire, host_name, offload };
                plan.plug.entry(nic.node_uid).or_default().push(wish);
                place.failed = facts.trouble(wire).is_some();
                place.why = facts.trouble(wire).unwrap_or("it is being plugged").to_owned();
            }
            (None, None) => place.why = "its node has not started".to_owned(),
        }
        if let Some(link) = place.link {
            if link.name != *host_name && !facts.resting(wire) {
                let (index, from, to) = (link.index, link.name.clone(), host_name.clone());
                plan.renames.push(Rename { wire, index, from, to, silent });
            }
            master(facts, wire, link, roles.get(&wire).copied(), plan);
        }
        let observed = ObservedNic {
            wire_id: wire,
            present: place.link.is_some(),
            start_id: place.start.clone(),
            carrier: place.link.is_some_and(|link| link.lower_up),
            alive: Will::of(place.link, true) == Will::Up,
            detail: place.misnamed.as_ref().unwrap_or(&place.why).clone(),
        };
        plan.observed.nics.insert(wire, observed);
        places.insert(wire, place);
    }
    for (wire, (link, _)) in &there {
        if facts.wanted.doomed.contains(wire) {
            match link.is_tap {
                true => taps::release(facts, link, plan),
                false => drop(plan.unplug.insert(*wire, link.index)),
            }
        }
    }
    places
}

/// True when the NIC that is there can become the wanted one.
fn stays(facts: &Facts<'_>, nic: &Nic, tag: &Tag) -> bool {
    let known = facts.names.is_set(tag, nic) || Setting::read(&tag.setting).is_some();
    tag.fingerprint == fingerprint(nic) && known
}

/// What its node calls it. How a node calls an interface in a namespace that it moved it to is its own affair.
fn called(link: &Link) -> Option<&String> {
    link.guest.as_ref().filter(|_| link.home == link.peer_namespace).map(|guest| &guest.name)
}

/// Has it changed where it is; says what there is to say of it meanwhile.
fn adjust(
    facts: &Facts<'_>,
    nic: &Nic,
    link: &Link,
    tag: &Tag,
    offload: Option<bool>,
    plan: &mut Plan,
) -> String {
    let wire = nic.wire_id;
    let as_wanted = || Guest::parse(nic).ok().map(|guest| guest.setting);
    let before = if facts.names.is_set(tag, nic) { as_wanted() } else { Setting::read(&tag.setting) };
    if let Some(before) = before.filter(|_| !facts.resting(wire)) {
        let (guest_index, host_index) = (link.peer, link.index);
        let (offload, called) = (offload.or(tag.offload), called(link).cloned());
        let adjustment = Adjustment { wire, guest_index, host_index, called, before, offload };
        plan.adjust.entry(nic.node_uid).or_default().push(adjustment);
    }
    facts.trouble(wire).unwrap_or("it is being changed").to_owned()
}

/// Has a host end made a port of the Linux bridge that its wire leads to, or let go by the one that it leads to no more. Open vSwitch's
/// kernel datapath is no Linux bridge and is not meant.
fn master(facts: &Facts<'_>, wire: WireId, link: &Link, role: Option<&WireEnd>, plan: &mut Plan) {
    let bridge = match role {
        Some(WireEnd::Bridge(name)) => facts.links.get(name).filter(|link| link.is_bridge),
        _ => None,
    };
    let of_bridge = || facts.links.values().any(|other| other.index == link.master && other.is_bridge);
    let wanted = match (bridge, role) {
        (Some(bridge), _) => bridge.index,
        (None, Some(WireEnd::Bridge(_))) => return,
        (None, _) if link.master != 0 && of_bridge() => 0,
        (None, _) => return,
    };
    if link.master != wanted && !facts.resting(wire) {
        plan.masters.insert(wire, (link.index, wanted));
    }
}
