//! What went over wires, each direction by itself: as the kernel's redirects count it, and Open vSwitch's flows.
//!
//! Both are read all at once, the redirects in one dump of their actions, the flows whenever they are read anyway; so it costs no more than a
//! message for hundreds of wires. Counts change all the time and are told on demand of time, not as a change of anything.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::time::Instant;

use netloom_model::id::WireId;
use netloom_model::observed::{Carried, Count, Source};

use crate::names::Names;
use crate::netlink::Netlink;
use crate::redirect;

/// What each wire carried.
pub type Counts = BTreeMap<WireId, Carried>;
/// When each source was last read, or known to answer.
pub type Reads = BTreeMap<Source, Instant>;
/// What was counted of frames that came in by an interface, or by a port of Open vSwitch, of a wire.
pub type Read = HashMap<(WireId, u32), Count>;

/// Where frames of a wire come in, at its first and its second end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ways {
    /// By these interfaces.
    Interfaces(u32, u32),
    /// By these ports of Open vSwitch.
    Ports(u32, u32),
}

/// What the redirects of this installation counted.
pub fn of_redirects(netlink: &mut Netlink, names: &Names) -> io::Result<Read> {
    let mut read = Read::new();
    netlink.dump(redirect::GET_ACTION, &redirect::all_actions(), |_, payload| {
        let ours = redirect::counts(payload).into_iter();
        let ours = ours.filter(|(mark, _)| *mark == names.mark(mark.wire, mark.from));
        read.extend(ours.map(|(mark, count)| ((mark.wire, mark.from), count)));
    })?;
    Ok(read)
}

/// What each wire carried. Of one that nothing counts nothing is said.
pub fn put_together(ways: &BTreeMap<WireId, Ways>, redirects: &Read, flows: &Read) -> Counts {
    let carried = |(wire, ways): (&WireId, &Ways)| {
        let (read, a, b) = match ways {
            Ways::Interfaces(a, b) => (redirects, a, b),
            Ways::Ports(a, b) => (flows, a, b),
        };
        let (a_to_b, b_to_a) = (*read.get(&(*wire, *a))?, *read.get(&(*wire, *b))?);
        Some((*wire, Carried { a_to_b, b_to_a }))
    };
    ways.iter().filter_map(carried).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_direction_is_counted_where_its_frames_come_in() {
        let wire = |n: u64| WireId::try_from(n).unwrap();
        let count = |frames| Count { frames, bytes: 60 * frames };
        let ways =
            [(wire(1), Ways::Interfaces(7, 8)), (wire(2), Ways::Ports(7, 8)), (wire(3), Ways::Ports(1, 2))];
        let redirects =
            Read::from([((wire(1), 7), count(3)), ((wire(1), 8), count(4)), ((wire(2), 7), count(9))]);
        let flows =
            Read::from([((wire(2), 7), count(5)), ((wire(2), 8), count(6)), ((wire(3), 1), count(9))]);
        let all = put_together(&ways.into(), &redirects, &flows);
        let carried = |n| all.get(&wire(n)).map(|c| (c.a_to_b.frames, c.b_to_a.frames));
        assert_eq!([1, 2, 3].map(carried), [Some((3, 4)), Some((5, 6)), None], "half a wire is none");
    }
}
