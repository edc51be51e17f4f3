//! The rule of carrier: which host ends are up.
//!
//! A host end is up if and only if its cable is in (the wire is enabled and made), the guest's interface at the *far* end is set up by its
//! node, and that node lives. What a node asks of its own interface does not depend on what it sees of the other, so there is no circle in
//! which two ends wait for each other: `docs/decisions/0022-carrier.md` tells of the rules that have one.
//!
//! Both who decides about everything and who acts on a single event ask here: [`is_lit`] is the rule, [`due`] what it comes to.

use std::collections::BTreeMap;

use netloom_model::id::NodeUid;

use crate::netlink::Link;
use crate::netns::Starts;

/// What a guest wants of its own end of a cable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Will {
    /// It is set up.
    Up,
    /// It is set down.
    Down,
    /// It is not there, or its node does not live.
    Gone,
    /// It was not read yet.
    Unknown,
}

impl Will {
    /// Of a container: the flag that its namespace shows of the other end of this veth. Of a virtual machine, whose guest's flags nobody can see
    /// from outside: that its tap is there, which it is for as long as the machine runs. A host end whose node is not alive may outlast it for
    /// some milliseconds.
    pub fn of(host_end: Option<&Link>, alive: bool) -> Will {
        match host_end.filter(|_| alive) {
            None => Will::Gone,
            Some(link) => match &link.guest {
                None if link.is_tap => Will::Up,
                None => Will::Unknown,
                Some(guest) if guest.up => Will::Up,
                Some(_) => Will::Down,
            },
        }
    }
}

/// What is at the far end of a cable, and where its will is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Far {
    /// What has no will of its own: a segment, an interface of the host, nothing.
    Steady,
    /// What is on another host, and whether it was said to live and be set up.
    Remote(bool),
    /// A NIC of a start of a node.
    Nic {
        /// The number of its host end.
        index: u32,
        /// The node.
        node: NodeUid,
        /// Which start of it.
        start: String,
    },
}

impl Far {
    /// What it wants, from what is known of host ends and of running nodes.
    pub fn will<'a>(&self, link: impl Fn(u32) -> Option<&'a Link>, starts: &Starts) -> Will {
        match self {
            Far::Steady | Far::Remote(true) => Will::Up,
            Far::Remote(false) => Will::Down,
            Far::Nic { index, node, start } => {
                Will::of(link(*index), starts.get(node).is_some_and(|now| now.id == *start))
            }
        }
    }
}

/// What the carrier of a host end follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cable {
    /// True when a wire that is enabled and made is plugged into it.
    pub is_in: bool,
    /// What is at its far end.
    pub far: Far,
}

/// Cables by the number of the host end; one that is not here is left as it is.
pub type Cables = BTreeMap<u32, Cable>;

/// The rule: whether a host end is up; none when that cannot be said yet, and it stays as it is.
pub fn is_lit(is_in: bool, far: Will) -> Option<bool> {
    match (is_in, far) {
        (false, _) => Some(false),
        (true, Will::Unknown) => None,
        (true, will) => Some(will == Will::Up),
    }
}

/// Host ends that are not as the rule says, and how they are to be.
pub fn due<'a>(cables: &Cables, link: impl Fn(u32) -> Option<&'a Link>, starts: &Starts) -> Vec<(u32, bool)> {
    let wrong = cables.iter().filter_map(|(index, cable)| {
        let up = is_lit(cable.is_in, cable.far.will(&link, starts))?;
        (link(*index)?.up != up).then_some((*index, up))
    });
    wrong.collect()
}

#[cfg(test)]
mod tests;
