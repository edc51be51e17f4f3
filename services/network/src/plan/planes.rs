//! What carries each wire, and why.
//!
//! A wire between two NICs is carried by what its lab says, else by what the host says; `auto` is Open vSwitch where it forwards in the
//! kernel, and the kernel alone where it has only a process to do so. Three kinds of wires have no choice: one that is impaired, and one
//! that leads out of the lab, go through the kernel; one that ends in a segment goes through that segment's bridge. Of one that goes to another host the scheduler says it, for both.

use netloom_model::slice::{Wire, WireEnd};
use netloom_model::spec::Plane;

use super::Facts;
use super::ports::{Ends, ends};
use crate::driver;

/// What carries a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// True for the kernel alone, false for Open vSwitch.
    pub kernel: bool,
    /// Why: one word for a table, and the rest behind a colon.
    pub why: &'static str,
}

impl Choice {
    /// Its name in observed wires.
    pub fn name(&self) -> &'static str {
        if self.kernel { driver::KERNEL } else { driver::OVS }
    }
}

/// What carries this wire.
pub fn of(facts: &Facts<'_>, wire: &Wire) -> Choice {
    let kernel = |why| Choice { kernel: true, why };
    match ends(wire) {
        Ends::Special(_, WireEnd::Dummy) => kernel("dummy: it leads nowhere"),
        Ends::Special(..) => kernel("outside: it leads out of the lab"),
        Ends::Other => kernel("dummy: it ends in nothing"),
        _ if is_impaired(wire) => kernel("impaired: what slows or loses frames is the kernel's"),
        // Both hosts have to carry it alike: who knows both says how.
        Ends::Tunnel(WireEnd::Nic(_), _) if wire.plane == Some(Plane::Ovs) => {
            Choice { kernel: false, why: "hosts: both carry it by Open vSwitch" }
        }
        Ends::Tunnel(..) => kernel("hosts: both carry it by the kernel"),
        Ends::NicAndSegment(..) | Ends::Segments(..) => {
            Choice { kernel: false, why: "bridge: it ends in a bridge of the lab" }
        }
        Ends::Nics(..) => between_nics(facts, wire.plane),
    }
}

/// What carries a wire between two NICs of a lab that says this.
pub fn between_nics(facts: &Facts<'_>, lab: Option<Plane>) -> Choice {
    let choose = |plane, why: [&'static str; 4]| match plane {
        Plane::Ovs => Choice { kernel: false, why: why[0] },
        Plane::Kernel => Choice { kernel: true, why: why[1] },
        Plane::Auto if facts.userspace() => Choice { kernel: true, why: why[2] },
        Plane::Auto => Choice { kernel: false, why: why[3] },
    };
    match lab {
        Some(plane) => choose(
            plane,
            [
                "lab: its plane is ovs",
                "lab: its plane is kernel",
                "lab: its plane is auto, and Open vSwitch forwards in userspace only",
                "lab: its plane is auto, and Open vSwitch forwards in the kernel",
            ],
        ),
        None => choose(
            facts.plane,
            [
                "host: network.plane is ovs",
                "host: network.plane is kernel",
                "auto: Open vSwitch forwards in userspace only",
                "auto: Open vSwitch forwards in the kernel",
            ],
        ),
    }
}

fn is_impaired(wire: &Wire) -> bool {
    !wire.a_to_b.is_none() || !wire.b_to_a.is_none()
}

/// Whether NICs of this wire may leave checksums and segmentation to whoever takes their frames.
pub fn offloads(facts: &Facts<'_>, wire: &Wire) -> bool {
    match ends(wire) {
        Ends::Special(..) | Ends::Other => true,
        // What slows or loses frames must meet them one by one.
        _ if is_impaired(wire) => false,
        Ends::Nics(..) | Ends::Tunnel(..) if of(facts, wire).kernel => true,
        _ => !facts.userspace(),
    }
}
