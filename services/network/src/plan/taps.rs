//! NICs of virtual machines: taps, which QEMU holds and libvirt makes at each start of a machine.
//!
//! There is no namespace to make anything in. What is done is to take over the tap that has the NIC's name and that the machine's process holds:
//! mark it as ours and set its MTU; then it is a host end as any other. A tap is never deleted, which would cut a running machine off for
//! good: one that is not wanted any more is let go of, and ends with its machine.
//!
//! Whether it is up is all that is said to compute of a NIC's carrier; compute has the guest see the same, and says so in the machine's hand-over.

use netloom_model::slice::Nic;

use super::nics::Place;
use super::{Adoption, Facts, Plan};
use crate::guest::Guest;
use crate::names::{Tag, fingerprint};
use crate::netlink::Link;
use crate::netns::Start;

/// The tap of a NIC: ours already, or one that nobody has marked and that may be that of a machine. A container's NIC has none: what bears its name is
/// somebody else's, a port of Open vSwitch for instance.
pub fn find<'a>(
    facts: &Facts<'a>,
    name: &str,
    ours: Option<&(&'a Link, Tag)>,
    start: Option<&Start>,
) -> Option<&'a Link> {
    match ours {
        Some((link, _)) => Some(*link).filter(|link| link.is_tap),
        None if start.is_some_and(|start| start.machine.is_none()) => None,
        None => facts.links.get(name).filter(|link| link.is_tap && link.alias.is_empty()),
    }
}

/// Decides about a NIC whose tap is there.
pub fn plan<'a>(
    facts: &Facts<'a>,
    nic: &Nic,
    (tap, tag): (&'a Link, Option<&Tag>),
    start: Option<&Start>,
    place: &mut Place<'a>,
    plan: &mut Plan,
) {
    let wire = nic.wire_id;
    let Some((start, machine)) = start.and_then(|start| Some((start, start.machine.as_ref()?))) else {
        let held = "a virtual machine still holds its host end";
        place.why = start.map_or("its node has not started", |_| held).to_owned();
        return;
    };
    let tag = tag.filter(|tag| tag.start == start.id);
    if tag.is_some() {
        place.link = Some(tap);
        place.start.clone_from(&start.id);
        place.shown = machine.carrier.contains(&wire) == tap.up;
    }
    if tag.is_some_and(|tag| tag.fingerprint == fingerprint(nic) && facts.names.is_set(tag, nic)) {
        return;
    }
    if let Err(wrong) = Guest::parse(nic) {
        (place.failed, place.why) = (true, wrong);
        return;
    }
    // libvirt makes the tap of a NIC that is added to a machine that runs before QEMU holds it.
    place.failed = tag.is_none() && facts.lasting_trouble(wire).is_some();
    place.why = facts.lasting_trouble(wire).unwrap_or("its tap is being taken over").to_owned();
    if !facts.resting(wire) {
        plan.adopt.push(Adoption {
            wire,
            index: tap.index,
            name: tap.name.clone(),
            pid: machine.pid,
            mtu: nic.mtu,
            alias: facts.names.alias(nic, &start.id, None),
            is_new: tag.is_none(),
        });
    }
}

/// Has a tap let go of, once nothing is done to its frames any more.
pub fn release(facts: &Facts<'_>, tap: &Link, plan: &mut Plan) {
    let is_port = facts.ovs.is_some_and(|ovs| ovs.ports.contains_key(&tap.name));
    if tap.redirect.is_none() && tap.shape.is_none() && !is_port {
        plan.release.push(tap.index);
    }
}
