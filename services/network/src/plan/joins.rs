//! Wires that are joined in the kernel, from the host end of one NIC straight to the other's: no NIC of theirs is a port of Open vSwitch.
//!
//! So are those that the lab or the host wants there (see [`super::planes`]), and those whose frames are slowed or harmed. What bounds a rate
//! is a queue, and a queue before a port of Open vSwitch's userspace datapath holds frames that are charged to the one
//! socket that it sends to all its ports by: when some queues are full it drops frames of every other wire (measured, see
//! docs/decisions/0020-impairment-and-capture.md). A redirect hands the frames that come in by
//! one host end to the other, at whose root the queue of an impaired wire is. A segment has no host end; a tail stands for it, a veth of which one end is a port
//! of the segment. For another host stands a tunnel ([`super::tunnels`]).
//!
//! A wire is never on both planes: the redirect is made when the flows are gone, the flows when the redirect is gone.

use std::collections::{BTreeMap, BTreeSet};

use netloom_model::id::WireId;
use netloom_model::slice::{Wire, WireEnd};
use netloom_model::spec::{DEFAULT_MTU, Impairment};

use super::nics::Places;
use super::planes;
use super::ports::{Ends, Ports, State, ends};
use super::refusals::Refusals;
use super::tunnels;
use super::uplinks::{UPLINK_END, Uplinks};
use super::{Facts, Plan};
use crate::driver::flows::Rule;
use crate::names::End;
use crate::netlink::Link;
use crate::qdisc::Shape;
use crate::redirect::Redirect;

/// What is to be done to an interface's frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Puts this at its root; the number is its MTU.
    Put(Shape, u32),
    /// Takes ours from its root.
    Take(Shape),
    /// Hands what comes in by it to the interface of this number, after taking away an earlier redirect.
    Redirect {
        /// To where.
        to: u32,
        /// True when there is an earlier one.
        anew: bool,
    },
    /// Takes the redirect away.
    Undirect,
}

/// A change of what is done to an interface's frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// The wire that it is for, or the NIC that it was for.
    pub wire: WireId,
    /// The interface.
    pub index: u32,
    /// What is to be done, in order.
    pub ops: Vec<Op>,
}

/// A tail to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTail {
    /// Its wire.
    pub wire: WireId,
    /// The end of the wire that is a segment.
    pub end: End,
    /// Its MTU.
    pub mtu: u32,
    /// True when its other end is to be a port of a Linux bridge of the host.
    pub is_uplink: bool,
}

/// True when the wire is joined in the kernel, not by Open vSwitch.
pub fn is_joined(facts: &Facts<'_>, wire: &Wire) -> bool {
    planes::of(facts, wire).kernel && !matches!(ends(wire), Ends::Special(..) | Ends::Other)
}

/// The segments that a joined wire ends in.
pub fn segment_ends(wire: &Wire) -> impl Iterator<Item = (End, WireId)> {
    [(End::A, &wire.a), (End::B, &wire.b)].into_iter().filter_map(|(end, what)| match what {
        WireEnd::Segment(segment) => Some((end, *segment)),
        _ => None,
    })
}

/// MTU of a wire's tails.
pub fn tail_mtu(facts: &Facts<'_>, wire: &Wire) -> u32 {
    let nics = [&wire.a, &wire.b].into_iter().filter_map(|end| match end {
        WireEnd::Nic(nic) => facts.wanted.slice.nics.get(nic),
        _ => None,
    });
    nics.map(|nic| nic.mtu).chain([DEFAULT_MTU]).max().unwrap_or(DEFAULT_MTU)
}

/// An end of a tail, once it is there and finished.
pub fn tail_link<'a>(facts: &Facts<'a>, wire: WireId, name: &str) -> Option<&'a Link> {
    let link = facts.links.get(name)?;
    (facts.names.is_our_tail(link, wire) && !link.alias.is_empty()).then_some(link)
}

/// The interfaces that a joined wire goes by; none while one is missing.
pub fn devices<'a>(facts: &Facts<'a>, nics: &Places<'a>, wire: &Wire) -> Option<[&'a Link; 2]> {
    Some([device(facts, nics, wire, End::A, &wire.a)?, device(facts, nics, wire, End::B, &wire.b)?])
}

fn device<'a>(
    facts: &Facts<'a>,
    nics: &Places<'a>,
    wire: &Wire,
    end: End,
    what: &WireEnd,
) -> Option<&'a Link> {
    match what {
        WireEnd::Nic(nic) => nics.get(nic)?.link,
        WireEnd::Segment(_) => tail_link(facts, wire.wire_id, &facts.names.tail(wire.wire_id, end).inner),
        WireEnd::Tunnel(_) => tunnels::link(facts, wire),
        _ => None,
    }
}

/// What somebody else does to a wire's frames, which is left alone, and at which end. What they do to an interface that a lab gave to the host is their own.
pub fn meddled_with(facts: &Facts<'_>, nics: &Places<'_>, wire: &Wire) -> Option<(End, String)> {
    if matches!(ends(wire), Ends::Special(..)) {
        return None;
    }
    [(End::A, &wire.a), (End::B, &wire.b)].into_iter().find_map(|(end, what)| {
        let link = device(facts, nics, wire, end, what)?;
        let name = &link.name;
        let why = if link.is_filtered && link.redirect.is_some() {
            format!(
                "a filter of somebody else's meets its frames first; see: tc filter show dev {name} ingress"
            )
        } else if link.is_queued {
            format!("its frames go through a queue of somebody else's; see: tc qdisc show dev {name}")
        } else {
            return None;
        };
        Some((end, why))
    })
}

/// True while flows of the wire are there.
pub fn has_flows(facts: &Facts<'_>, wire: WireId) -> bool {
    // Rules are in the order of their cookies.
    let first = Rule { cookie: wire.get(), ..Rule::default() };
    let table = facts.tables.get(&facts.names.bridge);
    let next = table.and_then(|table| table.rules.range(first..).next());
    next.is_some_and(|rule| rule.cookie == wire.get())
}

/// What hands frames from one interface of a wire to the other.
fn redirect(facts: &Facts<'_>, wire: WireId, from: &Link, to: &Link) -> Redirect {
    Redirect { to: to.index, mark: Some(facts.names.mark(wire, from.index)) }
}

/// What happens here to frames on their way to this end: those that go to another host have it happen there, where they come out.
pub fn happens(end: &WireEnd, impairment: Impairment) -> Impairment {
    if matches!(end, WireEnd::Tunnel(_)) { Impairment::default() } else { impairment }
}

/// True when the two interfaces hand their frames to each other, by redirects of this wire.
pub fn are_joined(facts: &Facts<'_>, wire: WireId, [a, b]: [&Link; 2]) -> bool {
    a.redirect == Some(redirect(facts, wire, a, b)) && b.redirect == Some(redirect(facts, wire, b, a))
}

/// What an interface's frames have to go through.
struct Want {
    wire: WireId,
    redirect: Option<Redirect>,
    shape: Option<Shape>,
}

/// Decides about tails, tunnels, redirects and queues.
pub fn plan(
    facts: &Facts<'_>,
    nics: &Places<'_>,
    ports: &Ports,
    refusals: &Refusals,
    uplinks: &Uplinks<'_>,
    plan: &mut Plan,
) {
    tails(facts, refusals, uplinks, plan);
    tunnels::plan(facts, refusals, plan);
    let mut wants = BTreeMap::<u32, Want>::new();
    let accepted = |wire: &&Wire| wire.enabled && !refusals.contains_key(&wire.wire_id);
    for wire in facts.wanted.slice.wires.values().filter(accepted) {
        wishes(facts, nics, ports, wire, &mut wants);
    }
    // What is done to the frames of an interface goes with it.
    let leaving: BTreeSet<u32> = plan.unplug.values().chain(&plan.untail).copied().collect();
    for link in facts.links.values().filter(|link| !leaving.contains(&link.index)) {
        let nic = facts.names.tag(link).map(|tag| tag.wire);
        let of_wire = || facts.names.tail_of(link).or_else(|| facts.names.tunnel_of(link));
        let Some(owner) = nic.or_else(of_wire) else { continue };
        let judged = facts.is_wanted(owner) || facts.wanted.doomed.contains(&owner);
        let want = wants.get(&link.index);
        let wire = want.map_or(owner, |want| want.wire);
        if !judged || facts.resting(wire) {
            continue;
        }
        let ops = difference(link, want);
        if !ops.is_empty() {
            plan.controls.push(Control { wire, index: link.index, ops });
        }
    }
}

fn wishes(facts: &Facts<'_>, nics: &Places<'_>, ports: &Ports, wire: &Wire, wants: &mut BTreeMap<u32, Want>) {
    let id = wire.wire_id;
    let shape = |impairment: &Impairment, link: &Link| Shape::of(impairment, link.mtu);
    match ends(wire) {
        Ends::Special(nic, _) => {
            let Some(link) = nics.get(&nic).and_then(|place| place.link) else { return };
            let inward = if matches!(wire.a, WireEnd::Nic(_)) { &wire.b_to_a } else { &wire.a_to_b };
            wants.insert(link.index, Want { wire: id, redirect: None, shape: shape(inward, link) });
        }
        _ if is_joined(facts, wire) => {
            let Some([a, b]) = devices(facts, nics, wire).filter(|_| !has_flows(facts, id)) else { return };
            let want =
                |from, to, shape| Want { wire: id, redirect: Some(redirect(facts, id, from, to)), shape };
            wants.insert(a.index, want(a, b, shape(&happens(&wire.a, wire.b_to_a), a)));
            wants.insert(b.index, want(b, a, shape(&happens(&wire.b, wire.a_to_b), b)));
        }
        // On its way back to Open vSwitch it stays joined until its ports are there.
        Ends::Nics(one, other) => {
            let Some([a, b]) = devices(facts, nics, wire) else { return };
            let ready = |nic| matches!(ports.get(&facts.names.nic(nic)), Some(State::Ready(_)));
            let joined = are_joined(facts, id, [a, b]);
            if joined && !(ready(one) && ready(other)) {
                wants.insert(a.index, Want { wire: id, redirect: a.redirect, shape: None });
                wants.insert(b.index, Want { wire: id, redirect: b.redirect, shape: None });
            }
        }
        _ => {}
    }
}

fn difference(link: &Link, want: Option<&Want>) -> Vec<Op> {
    let mut ops = Vec::new();
    let (shape, redirect) = want.map_or((None, None), |want| (want.shape, want.redirect));
    match (link.shape, shape) {
        (there, Some(wanted)) if there != Some(wanted) => ops.push(Op::Put(wanted, link.mtu)),
        (Some(there), None) => ops.push(Op::Take(there)),
        _ => {}
    }
    match (link.redirect, redirect) {
        (there, Some(wanted)) if there != Some(wanted) => {
            ops.push(Op::Redirect { to: wanted.to, anew: there.is_some() });
        }
        (Some(_), None) => ops.push(Op::Undirect),
        _ => {}
    }
    ops
}

fn tails(facts: &Facts<'_>, refusals: &Refusals, uplinks: &Uplinks<'_>, plan: &mut Plan) {
    let names = facts.names;
    let mut wanted = BTreeMap::<String, WireId>::new();
    let accepted = |wire: &&Wire| is_joined(facts, wire) && !refusals.contains_key(&wire.wire_id);
    let of_wire = |wire: &Wire| {
        let (id, mtu) = (wire.wire_id, tail_mtu(facts, wire));
        segment_ends(wire)
            .map(|(end, _)| NewTail { wire: id, end, mtu, is_uplink: false })
            .collect::<Vec<_>>()
    };
    let of_wires = facts.wanted.slice.wires.values().filter(accepted).flat_map(of_wire);
    let of_uplink =
        |(wire, bridge): (WireId, &Link)| NewTail { wire, end: UPLINK_END, mtu: bridge.mtu, is_uplink: true };
    for wish in of_wires.chain(uplinks.linux_bridges().map(of_uplink)) {
        let (id, mtu) = (wish.wire, wish.mtu);
        let tail = names.tail(id, wish.end);
        let there = [&tail.outer, &tail.inner].map(|name| facts.links.get(name));
        if there == [None, None] && !facts.resting(id) {
            plan.tails.push(wish);
        }
        for link in there.into_iter().flatten().filter(|link| names.is_our_tail(link, id)) {
            if link.mtu != mtu {
                plan.mtus.push((link.index, mtu));
            }
            if !link.up {
                plan.raise.push(link.index);
            }
        }
        wanted.extend([(tail.outer, id), (tail.inner, id)]);
    }
    for link in facts.links.values() {
        let tail_of = names.tail_of(link).or_else(|| unfinished(facts, link));
        let Some(wire) = tail_of else { continue };
        let judged = facts.is_wanted(wire) || facts.wanted.doomed.contains(&wire);
        let finished = wanted.get(&link.name) == Some(&wire) && !link.alias.is_empty();
        if judged && !finished {
            plan.untail.push(link.index);
        }
    }
}

/// The wire of a tail that was made and not marked: a crash came between.
fn unfinished(facts: &Facts<'_>, link: &Link) -> Option<WireId> {
    let is_other = link.vxlan.is_some() || facts.names.tag(link).is_some();
    if link.group != facts.names.group || !link.alias.is_empty() || is_other {
        return None;
    }
    let slice = &facts.wanted.slice;
    let known = slice.wires.keys().chain(slice.segments.keys()).chain(&facts.wanted.doomed);
    known.copied().find(|wire| {
        [End::A, End::B]
            .into_iter()
            .map(|end| facts.names.tail(*wire, end))
            .any(|tail| tail.outer == link.name || tail.inner == link.name)
    })
}
