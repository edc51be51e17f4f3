//! Wires that go to another host through the kernel: which tunnels to make, to change and to take away.
//!
//! Each has a VXLAN device of its own, with the network identifier that both hosts have for it; redirects join it with the NIC's host end or the
//! segment's tail as they join host ends ([`super::joins`]). What a tunnel is cannot be changed while it is there: one that is not as it is wanted is deleted and made
//! anew. Wires that Open vSwitch carries to other hosts have one port in common, and two flows each.

use netloom_model::id::WireId;
use netloom_model::slice::{Tunnel, Wire, WireEnd};

use super::joins::{is_joined, tail_mtu};
use super::ports::{Ends, ends};
use super::refusals::Refusals;
use super::{Facts, Plan, planes};
use crate::netlink::{Link, Vxlan};

/// A tunnel to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTunnel {
    /// Its wire.
    pub wire: WireId,
    /// What it is.
    pub vxlan: Vxlan,
    /// Its MTU in bytes.
    pub mtu: u32,
}

/// Why a wire cannot go to the other host; none when it can.
pub fn refuse(facts: &Facts<'_>, wire: &Wire, tunnel: &Tunnel) -> Option<String> {
    let Some(underlay) = facts.underlay else {
        return Some(
            "this host has no address for wires to other hosts: set network.tunnel_address in its configuration".to_owned(),
        );
    };
    if let Some(why) = underlay.problem(facts.links) {
        return Some(why);
    }
    if underlay.address.is_ipv4() != tunnel.remote.is_ipv4() {
        return Some(format!(
            "this host's tunnel address {} and the other host's {} are not of one family: give both an IPv4 or both an IPv6 address",
            underlay.address, tunnel.remote
        ));
    }
    if planes::of(facts, wire).kernel {
        return None;
    }
    if tunnel.remote.is_ipv6() {
        return Some("Open vSwitch carries wires to other hosts over IPv4 only: take plane: ovs out of the lab, or give the hosts IPv4 tunnel addresses".to_owned());
    }
    // In userspace it sees only the frames of its own bridges.
    let (ovs, interface) = (facts.ovs?, underlay.interface.as_ref()?);
    let sees = !facts.userspace() || ovs.bridges.contains_key(interface) || ovs.ports.contains_key(interface);
    (!sees).then(|| {
        format!(
            "Open vSwitch forwards in userspace here, and takes tunnels only from an address on a bridge of its own, not on {interface}: make a bridge with {interface} as its port and move the tunnel address to it, or have the kernel carry the lab's links (plane: kernel)"
        )
    })
}

/// The tunnel that a wire is to have; none of one that has none in the kernel.
fn wanted(facts: &Facts<'_>, wire: &Wire) -> Option<Vxlan> {
    let Ends::Tunnel(_, tunnel) = ends(wire) else { return None };
    let underlay = facts.underlay.filter(|_| is_joined(facts, wire))?;
    Some(Vxlan { vni: tunnel.vni, local: underlay.address, remote: tunnel.remote, port: underlay.port })
}

/// A wire's tunnel, once it is there and finished.
pub fn link<'a>(facts: &Facts<'a>, wire: &Wire) -> Option<&'a Link> {
    let (id, wanted) = (wire.wire_id, wanted(facts, wire)?);
    let link = facts.links.get(&facts.names.tunnel(id))?;
    let finished = facts.names.is_our_tunnel(link, id) && !link.alias.is_empty() && link.up;
    (finished && link.vxlan == Some(wanted)).then_some(link)
}

/// True when a wire's tunnel has a name that an interface of somebody else's has.
pub fn taken_by_others<'a>(facts: &Facts<'a>, wire: &Wire) -> Option<&'a Link> {
    let there = facts.links.get(&facts.names.tunnel(wire.wire_id))?;
    (wanted(facts, wire).is_some() && !facts.names.is_our_tunnel(there, wire.wire_id)).then_some(there)
}

/// Whether what the wire ends in on the other host was said to live and be set up; none of one that goes to no other host.
pub fn remote_up(end: &WireEnd) -> Option<bool> {
    match end {
        WireEnd::Tunnel(tunnel) => Some(tunnel.remote_up),
        _ => None,
    }
}

/// Decides about tunnels in the kernel.
pub fn plan(facts: &Facts<'_>, refusals: &Refusals, plan: &mut Plan) {
    let names = facts.names;
    let accepted = |wire: &&Wire| !refusals.contains_key(&wire.wire_id);
    for wire in facts.wanted.slice.wires.values().filter(accepted) {
        let Some(vxlan) = wanted(facts, wire) else { continue };
        let (id, mtu) = (wire.wire_id, tail_mtu(facts, wire));
        match facts.links.get(&names.tunnel(id)) {
            None if facts.resting(id) => {}
            None => plan.tunnels.push(NewTunnel { wire: id, vxlan, mtu }),
            Some(link) if names.is_our_tunnel(link, id) => {
                if link.mtu != mtu {
                    plan.mtus.push((link.index, mtu));
                }
                if !link.up {
                    plan.raise.push(link.index);
                }
            }
            Some(_) => {}
        }
    }
    for link in facts.links.values() {
        let Some(id) = names.tunnel_of(link).or_else(|| unfinished(facts, link)) else { continue };
        let wire = facts.wanted.slice.wires.get(&id).filter(|wire| !refusals.contains_key(&wire.wire_id));
        let wanted = wire.and_then(|wire| wanted(facts, wire));
        let stays = wanted.is_some() && link.vxlan == wanted && !link.alias.is_empty();
        let is_judged = facts.is_wanted(id) || facts.wanted.doomed.contains(&id);
        if is_judged && !stays {
            plan.untail.push(link.index);
        }
    }
}

/// The wire of a tunnel that was made and not marked: a crash came between.
fn unfinished(facts: &Facts<'_>, link: &Link) -> Option<WireId> {
    if link.group != facts.names.group || !link.alias.is_empty() || link.vxlan.is_none() {
        return None;
    }
    let known = facts.wanted.slice.wires.keys().chain(&facts.wanted.doomed);
    known.copied().find(|wire| facts.names.tunnel(*wire) == link.name)
}
