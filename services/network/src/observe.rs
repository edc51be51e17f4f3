//! What is told of the host, and what of it is new to an observer.
//!
//! Each observer compares the latest state with what it told last. So one that is slow misses intermediate states, never the last one, and
//! nothing queues up for it.

use std::collections::{BTreeMap, BTreeSet};

use netloom_model::id::WireId;
use netloom_model::observed::{NetworkInventory, ObservedNic, ObservedSegment, ObservedWire};

/// Everything that is told of a host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// The NICs.
    pub nics: BTreeMap<WireId, ObservedNic>,
    /// The wires.
    pub wires: BTreeMap<WireId, ObservedWire>,
    /// The segments.
    pub segments: BTreeMap<WireId, ObservedSegment>,
    /// What the host can do.
    pub inventory: NetworkInventory,
    /// True once a Sync was taken.
    pub synced: bool,
    /// What exists and is not wanted.
    pub unwanted: BTreeSet<WireId>,
}

/// What changed between two states.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// The NICs.
    pub nics: Vec<ObservedNic>,
    /// The wires.
    pub wires: Vec<ObservedWire>,
    /// The segments.
    pub segments: Vec<ObservedSegment>,
}

/// What to tell an observer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Nothing.
    None,
    /// These changes.
    Changes(Changes),
    /// Everything: something is gone, which changes cannot say.
    Everything,
}

impl Observed {
    /// What to tell an observer that was told `before`. The inventory goes with heartbeats.
    pub fn since(&self, before: &Observed) -> News {
        let lost = |ours: usize, kept: usize| ours != kept;
        let gone = lost(before.nics.len(), before.nics.keys().filter(|k| self.nics.contains_key(k)).count())
            || lost(before.wires.len(), before.wires.keys().filter(|k| self.wires.contains_key(k)).count())
            || lost(
                before.segments.len(),
                before.segments.keys().filter(|k| self.segments.contains_key(k)).count(),
            );
        if gone || self.synced != before.synced || self.unwanted != before.unwanted {
            return News::Everything;
        }
        let changes = Changes {
            nics: changed(&self.nics, &before.nics),
            wires: changed(&self.wires, &before.wires),
            segments: changed(&self.segments, &before.segments),
        };
        if changes == Changes::default() { News::None } else { News::Changes(changes) }
    }
}

fn changed<T: Clone + PartialEq>(now: &BTreeMap<WireId, T>, before: &BTreeMap<WireId, T>) -> Vec<T> {
    now.iter().filter(|(id, value)| before.get(id) != Some(value)).map(|(_, value)| value.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(carriers: &[(u64, bool)]) -> Observed {
        let nic = |(n, carrier): &(u64, bool)| {
            let wire_id = (*n).try_into().unwrap();
            let (present, start_id, detail) = (true, String::new(), String::new());
            (wire_id, ObservedNic { wire_id, present, start_id, carrier: *carrier, detail })
        };
        Observed { nics: carriers.iter().map(nic).collect(), ..Observed::default() }
    }

    #[test]
    fn only_what_changed_is_told() {
        let before = observed(&[(1, false), (2, true)]);
        assert_eq!(before.since(&before), News::None);
        let News::Changes(changes) = observed(&[(1, true), (2, true), (3, true)]).since(&before) else {
            panic!("not changes")
        };
        assert_eq!(changes.nics.iter().map(|n| n.wire_id.get()).collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn what_is_gone_is_told_by_telling_everything() {
        let before = observed(&[(1, false), (2, true)]);
        assert_eq!(observed(&[(1, false), (3, true)]).since(&before), News::Everything);
        let unwanted = Observed { unwanted: [9.try_into().unwrap()].into(), ..before.clone() };
        assert_eq!(unwanted.since(&before), News::Everything);
    }
}
