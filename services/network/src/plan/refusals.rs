//! Which wires cannot be, and why.

use std::collections::BTreeMap;

use netloom_model::id::WireId;
use netloom_model::slice::{Wire, WireEnd};
use netloom_model::spec::{INTERFACE_NAME, Impairment, is_interface_name};

use super::Facts;
use super::ports::{Ends, ends};
use super::tunnels;
use crate::qdisc;

/// Wires that are refused, and why.
pub type Refusals = BTreeMap<WireId, String>;

/// Decides. Of two wires that name the same NIC the first one has it.
pub fn plan(facts: &Facts<'_>) -> Refusals {
    let mut users = BTreeMap::<WireId, WireId>::new();
    let mut refusals = Refusals::new();
    for wire in facts.wanted.slice.wires.values() {
        let id = wire.wire_id;
        let other_user = [&wire.a, &wire.b].into_iter().find_map(|end| match end {
            WireEnd::Nic(nic) => Some(*users.entry(*nic).or_insert(id)).filter(|user| *user != id),
            _ => None,
        });
        let why = match other_user {
            Some(user) => Some(format!("a NIC it ends in is in wire {user} already")),
            None if wire.a == wire.b => Some("both its ends are the same".to_owned()),
            None => special(facts, wire).or_else(|| impairment(facts, wire)),
        };
        refusals.extend(why.map(|why| (id, why)));
    }
    refusals
}

/// Why it cannot end in what it ends in.
fn special(facts: &Facts<'_>, wire: &Wire) -> Option<String> {
    if let Some(why) = [&wire.a, &wire.b].into_iter().find_map(|end| name(facts, end)) {
        return Some(why);
    }
    let of_host = [&wire.a, &wire.b].into_iter().any(|end| matches!(end, WireEnd::HostInterface(_)));
    match ends(wire) {
        Ends::Other => Some("a wire needs a NIC or a segment at each end, or a NIC at one".to_owned()),
        Ends::Tunnel(_, tunnel) => tunnels::refuse(facts, wire, tunnel),
        _ if of_host && !facts.host_interfaces => Some(
            "wires must not end in interfaces of this host: allow it with network.host_interfaces in its configuration"
                .to_owned(),
        ),
        _ => None,
    }
}

/// Why what a wire ends in cannot be called as asked.
pub fn name(facts: &Facts<'_>, end: &WireEnd) -> Option<String> {
    let (what, name) = match end {
        WireEnd::HostInterface(name) => ("an interface of the host", name),
        WireEnd::Bridge(name) => ("a bridge of the host", name),
        _ => return None,
    };
    if !is_interface_name(name) {
        return Some(format!("\"{name}\" is not a name for {what}: {INTERFACE_NAME}"));
    }
    let reserved = matches!(end, WireEnd::HostInterface(_)) && facts.names.is_reserved(name);
    reserved.then(|| {
        format!(
            "\"{name}\" is a name that netloom gives to interfaces of its own on this host: name another in the link, or set \
             network.nic_prefix and network.segment_prefix"
        )
    })
}

/// Why its frames cannot be treated as asked.
fn impairment(facts: &Facts<'_>, wire: &Wire) -> Option<String> {
    for (direction, impairment) in [("a to b", &wire.a_to_b), ("b to a", &wire.b_to_a)] {
        let lacking = |field: &&str| !facts.impairments.iter().any(|works| works == field);
        let lacking: Vec<&str> = qdisc::fields(impairment).filter(lacking).map(Impairment::word).collect();
        if !lacking.is_empty() {
            return Some(format!(
                "IMPAIRMENT_NOT_SUPPORTED: this host's kernel cannot do {} from {direction}; leave it out, or load the module (sch_tbf, sch_netem) and start the network service again",
                lacking.join(", ")
            ));
        }
    }
    let outward = outward(wire)?;
    (!outward.is_none()).then(|| {
        "IMPAIRMENT_NOT_SUPPORTED: frames on their way out of a lab cannot be impaired; impair the other direction only"
            .to_owned()
    })
}

/// What happens to frames from the NIC of a wire to what is neither NIC nor segment.
fn outward(wire: &Wire) -> Option<&Impairment> {
    match (ends(wire), &wire.a) {
        (Ends::Special(..), WireEnd::Nic(_)) => Some(&wire.a_to_b),
        (Ends::Special(..), _) => Some(&wire.b_to_a),
        _ => None,
    }
}
