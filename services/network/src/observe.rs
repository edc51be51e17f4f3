//! What is told of the host, and what of it is new to an observer.
//!
//! Each observer compares the latest state with what it told last. So one that is slow misses intermediate states, never the last one, and
//! nothing queues up for it. Only one intermediate state is never missed: that something which is up was not up in between. It is kept as the
//! time of that gap, and told before the state that is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use netloom_model::id::WireId;
use netloom_model::observed::{NetworkInventory, ObservedNic, ObservedSegment, ObservedWire, WireState};

/// Why something that is up again was not.
const GAP: &str = "it did not carry for a moment, and was put right";

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
    /// When a wire or segment was last found not to carry after it was up. Not told as such.
    pub gaps: BTreeMap<WireId, Instant>,
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
    /// These changes.
    Changes(Changes),
    /// Everything: something is gone, which changes cannot say.
    Everything,
}

impl Observed {
    /// Takes over the gaps known before, and adds those that begin now. What is not known is no gap: it may carry all the time.
    pub fn note_gaps(&mut self, before: &Observed, now: Instant) {
        let carried = |id: &WireId| matches!(before.state(id), Some(WireState::Up | WireState::Unknown));
        let carries = |id: &WireId| matches!(self.state(id), Some(WireState::Up | WireState::Unknown));
        let went_down = |id: &WireId| carried(id) && !carries(id);
        let known = self.wires.keys().chain(self.segments.keys());
        let gaps = known.filter_map(|id| {
            let noted = self.gaps.get(id).max(before.gaps.get(id)).copied();
            Some((*id, went_down(id).then_some(now).max(noted)?))
        });
        self.gaps = gaps.collect();
    }

    fn state(&self, id: &WireId) -> Option<WireState> {
        let wire = self.wires.get(id).map(|wire| wire.state);
        wire.or_else(|| self.segments.get(id).map(|segment| segment.state))
    }

    fn is_up(&self, id: &WireId) -> bool {
        self.state(id) == Some(WireState::Up)
    }

    /// What to tell an observer that was told `before`, in this order. The inventory goes with heartbeats.
    pub fn since(&self, before: &Observed) -> Vec<News> {
        let cut = |id: &WireId| before.is_up(id) && self.is_up(id) && self.gaps.get(id) > before.gaps.get(id);
        let mut gap = Changes::default();
        for wire in self.wires.values().filter(|wire| cut(&wire.wire_id)) {
            gap.wires.push(ObservedWire { state: WireState::Down, detail: GAP.to_owned(), ..wire.clone() });
        }
        for segment in self.segments.values().filter(|segment| cut(&segment.wire_id)) {
            let (state, detail) = (WireState::Pending, GAP.to_owned());
            gap.segments.push(ObservedSegment { state, detail, ..segment.clone() });
        }
        let now = if self.lacks(before) || self.synced != before.synced || self.unwanted != before.unwanted {
            News::Everything
        } else {
            News::Changes(Changes {
                nics: changed(&self.nics, &before.nics, |_| false),
                wires: changed(&self.wires, &before.wires, cut),
                segments: changed(&self.segments, &before.segments, cut),
            })
        };
        [News::Changes(gap), now].into_iter().filter(|n| *n != News::Changes(Changes::default())).collect()
    }

    /// True when something is gone that was there before.
    fn lacks(&self, before: &Observed) -> bool {
        before.nics.keys().any(|id| !self.nics.contains_key(id))
            || before.wires.keys().any(|id| !self.wires.contains_key(id))
            || before.segments.keys().any(|id| !self.segments.contains_key(id))
    }
}

fn changed<T: Clone + PartialEq>(
    now: &BTreeMap<WireId, T>,
    before: &BTreeMap<WireId, T>,
    again: impl Fn(&WireId) -> bool,
) -> Vec<T> {
    let news = now.iter().filter(|(id, value)| before.get(id) != Some(value) || again(id));
    news.map(|(_, value)| value.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(carriers: &[(u64, bool)]) -> Observed {
        let nic = |(n, carrier): &(u64, bool)| {
            let wire_id = (*n).try_into().unwrap();
            let (present, alive, start_id, detail) = (true, true, String::new(), String::new());
            (wire_id, ObservedNic { wire_id, present, start_id, carrier: *carrier, alive, detail })
        };
        Observed { nics: carriers.iter().map(nic).collect(), ..Observed::default() }
    }

    #[test]
    fn only_what_changed_is_told() {
        let before = observed(&[(1, false), (2, true)]);
        assert_eq!(before.since(&before), []);
        let news = observed(&[(1, true), (2, true), (3, true)]).since(&before);
        let [News::Changes(changes)] = news.as_slice() else { panic!("not changes: {news:?}") };
        assert_eq!(changes.nics.iter().map(|n| n.wire_id.get()).collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn what_is_gone_is_told_by_telling_everything() {
        let before = observed(&[(1, false), (2, true)]);
        assert_eq!(observed(&[(1, false), (3, true)]).since(&before), [News::Everything]);
        let unwanted = Observed { unwanted: [9.try_into().unwrap()].into(), ..before.clone() };
        assert_eq!(unwanted.since(&before), [News::Everything]);
    }

    fn wire(state: WireState) -> Observed {
        let wire_id = 7.try_into().unwrap();
        let (detail, plane, plane_reason) = Default::default();
        let wire =
            ObservedWire { wire_id, state, detail, plane, plane_reason, end: None, sources: Vec::new() };
        Observed { wires: [(wire_id, wire)].into(), ..Observed::default() }
    }

    fn states(news: &[News]) -> Vec<WireState> {
        let wires = news.iter().flat_map(|news| match news {
            News::Changes(changes) => changes.wires.clone(),
            News::Everything => panic!("not changes"),
        });
        wires.map(|wire| wire.state).collect()
    }

    #[test]
    fn a_gap_that_an_observer_missed_is_told_before_the_state_that_is() {
        let (told, now) = (wire(WireState::Up), Instant::now());
        let mut down = wire(WireState::Down);
        down.note_gaps(&told, now);
        let mut up = wire(WireState::Up);
        up.note_gaps(&down, now);
        assert_eq!(states(&up.since(&told)), [WireState::Down, WireState::Up]);
        assert_eq!(states(&up.since(&down)), [WireState::Up], "one that was told hears it once");
        assert_eq!(up.since(&up), []);
        // Flows that were lost and put back between two passes: nobody but their reader saw it.
        let mut again = wire(WireState::Up);
        again.gaps.extend(up.wires.keys().map(|id| (*id, now + std::time::Duration::from_secs(1))));
        again.note_gaps(&up, now);
        assert_eq!(states(&again.since(&up)), [WireState::Down, WireState::Up]);
        // Not known for a while, and up again: nobody found it down.
        let mut unknown = wire(WireState::Unknown);
        unknown.note_gaps(&up, now);
        let mut known = wire(WireState::Up);
        known.note_gaps(&unknown, now);
        assert_eq!(known.since(&up), []);
        // Down from the beginning is no gap.
        let mut first = wire(WireState::Pending);
        first.note_gaps(&Observed::default(), now);
        assert!(first.gaps.is_empty());
    }
}
