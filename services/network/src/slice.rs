//! What is wanted on this host, and who may say so.
//!
//! The slice is kept in memory: the scheduler sends it whole after each start. What is kept over a restart is the fencing term, so that a
//! scheduler that lost its lead cannot change anything, however late its call arrives.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use netloom_model::id::WireId;
use netloom_model::slice::{NetworkSlice, Wire, WireEnd};
use netloom_service::fence::{Fence, term_file};
use netloom_service::order::{Decision, Order};
use tokio::sync::watch;

use crate::error::Error;
use crate::trace::Traces;

/// A Sync that comes in parts is given up when the next part does not come within this.
const PARTS: Duration = Duration::from_secs(30);

/// What is wanted.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Counts the changes.
    pub revision: u64,
    /// False until the first Sync: nothing may be made or removed.
    pub synced: bool,
    /// The NICs, wires and segments.
    pub slice: NetworkSlice,
    /// What was removed and may still exist.
    pub doomed: BTreeSet<WireId>,
    /// What wires were before they were changed or removed, for as long as anything of them may exist: what carried them then.
    pub former: BTreeMap<WireId, Vec<Wire>>,
    /// Who asked for it.
    pub traces: Traces,
}

impl Wanted {
    /// Takes down what a wire was, when it is to be another or none.
    fn was(&mut self, id: WireId, becomes: Option<&Wire>) {
        if let Some(wire) = self.slice.wires.get(&id).filter(|wire| Some(*wire) != becomes) {
            let former = self.former.entry(id).or_default();
            if !former.iter().any(|earlier| is_carried_alike(earlier, wire)) {
                former.push(wire.clone());
            }
        }
    }

    /// Every wire of which something may exist, as it is and as it was.
    pub fn wires_ever(&self) -> impl Iterator<Item = &Wire> {
        self.slice.wires.values().chain(self.former.values().flatten())
    }
}

/// Whether nothing differs by which it is decided what carries them.
fn is_carried_alike(one: &Wire, other: &Wire) -> bool {
    let by = |wire: &Wire| (wire.plane, wire.a_to_b.is_none() && wire.b_to_a.is_none());
    one.a == other.a && one.b == other.b && by(one) == by(other)
}

/// Holds what is wanted. Clones share it.
#[derive(Clone)]
pub struct Store {
    wanted: watch::Sender<Arc<Wanted>>,
    door: Arc<Door>,
}

/// Calls pass one at a time: one of a term that is over must not take effect after one of the next.
struct Door {
    fence: Fence,
    turn: Mutex<Turn>,
    /// What tickets are signed with; empty until a Sync told it.
    ticket_key: Mutex<Vec<u8>>,
}

/// What the next call finds.
#[derive(Default)]
struct Turn {
    order: Order<WireId>,
    partial: Option<Partial>,
}

/// A Sync of which parts are missing.
struct Partial {
    of: Decision,
    /// When its last part came.
    at: Instant,
    slice: NetworkSlice,
}

impl Store {
    /// Opens the store: only the term comes from disk.
    pub fn open(data_dir: &Path) -> Result<Store, Error> {
        let fence = Fence::open(&term_file(data_dir, "network"))?;
        let door = Arc::new(Door { fence, turn: Mutex::default(), ticket_key: Mutex::default() });
        Ok(Store { wanted: watch::Sender::default(), door })
    }

    /// What is wanted, as a level.
    pub fn wanted(&self) -> watch::Receiver<Arc<Wanted>> {
        self.wanted.subscribe()
    }

    /// What tickets are signed with; empty before the first Sync that told it.
    pub fn ticket_key(&self) -> Vec<u8> {
        self.door.ticket_key.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the slice, once its last part is there. An empty key leaves the one that was told before.
    pub fn sync(
        &self,
        of: Decision,
        part: NetworkSlice,
        more: bool,
        ticket_key: Vec<u8>,
    ) -> Result<(), Error> {
        let mut turn = self.admit(of.term)?;
        turn.order.admit_all(of)?;
        if !ticket_key.is_empty() {
            *self.door.ticket_key.lock().unwrap_or_else(PoisonError::into_inner) = ticket_key;
        }
        let mut slice = match turn.partial.take() {
            Some(before) if before.of == of && before.at.elapsed() < PARTS => before.slice,
            _ => NetworkSlice::default(),
        };
        add(&mut slice, part);
        if more {
            turn.partial = Some(Partial { of, at: Instant::now(), slice });
            return Ok(());
        }
        self.change(|wanted| {
            let new = ids(&slice).filter(|id| !same(&wanted.slice, &slice, *id)).collect::<Vec<_>>();
            wanted.traces.note(new);
            wanted.doomed.retain(|id| !ids(&slice).any(|there| there == *id));
            let before: Vec<WireId> = wanted.slice.wires.keys().copied().collect();
            before.into_iter().for_each(|id| wanted.was(id, slice.wires.get(&id)));
            wanted.slice = slice;
            wanted.synced = true;
        });
        Ok(())
    }

    /// Adds to the slice, or changes what is in it.
    pub fn ensure(&self, of: Decision, part: NetworkSlice) -> Result<(), Error> {
        let mut turn = self.admit(of.term)?;
        turn.order.admit(of, ids(&part))?;
        self.change(|wanted| {
            let new = ids(&part).filter(|id| !same(&wanted.slice, &part, *id)).collect::<Vec<_>>();
            wanted.traces.note(new);
            for id in ids(&part) {
                wanted.doomed.remove(&id);
            }
            part.wires.iter().for_each(|(id, wire)| wanted.was(*id, Some(wire)));
            add(&mut wanted.slice, part);
        });
        Ok(())
    }

    /// Takes these out of the slice; they stay doomed until [`Store::gone`].
    pub fn remove(&self, of: Decision, wires: &BTreeSet<WireId>) -> Result<(), Error> {
        let mut turn = self.admit(of.term)?;
        turn.order.admit(of, wires.iter().copied())?;
        self.change(|wanted| {
            for wire in wires {
                wanted.was(*wire, None);
                wanted.slice.nics.remove(wire);
                wanted.slice.wires.remove(wire);
                wanted.slice.segments.remove(wire);
                wanted.doomed.insert(*wire);
            }
            wanted.traces.note(wires.iter().copied());
        });
        Ok(())
    }

    /// Notes that nothing is left of what was doomed in this revision, but for `left`.
    pub fn gone(&self, judged: &Wanted, left: &BTreeSet<WireId>) {
        let gone: Vec<WireId> = judged.doomed.difference(left).copied().collect();
        self.wanted.send_if_modified(|wanted| {
            if gone.is_empty() || wanted.revision != judged.revision {
                return false;
            }
            let wanted = Arc::make_mut(wanted);
            for wire in gone {
                wanted.doomed.remove(&wire);
            }
            let NetworkSlice { nics, wires, segments } = &wanted.slice;
            let doomed = &wanted.doomed;
            let is_known = |id: &WireId| {
                nics.contains_key(id)
                    || wires.contains_key(id)
                    || segments.contains_key(id)
                    || doomed.contains(id)
            };
            wanted.traces.retain(|id| is_known(&id));
            let is_end = |end: &WireEnd| matches!(end, WireEnd::Nic(nic) if is_known(nic));
            wanted.former.retain(|id, former| {
                is_known(id) || former.iter().any(|wire| is_end(&wire.a) || is_end(&wire.b))
            });
            true
        });
    }

    fn change(&self, change: impl FnOnce(&mut Wanted)) {
        self.wanted.send_modify(|wanted| {
            let wanted = Arc::make_mut(wanted);
            change(wanted);
            wanted.revision += 1;
        });
    }

    /// Lets a call pass that changes nothing of what is wanted, if it is the leader's.
    pub fn ask(&self, term: u64) -> Result<(), Error> {
        self.admit(term).map(drop)
    }

    /// Refuses a term that is over; a higher one is on disk when this returns.
    fn admit(&self, term: u64) -> Result<MutexGuard<'_, Turn>, Error> {
        let turn = self.door.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.door.fence.admit(term)?;
        Ok(turn)
    }
}

fn add(slice: &mut NetworkSlice, part: NetworkSlice) {
    slice.nics.extend(part.nics);
    slice.wires.extend(part.wires);
    slice.segments.extend(part.segments);
}

fn ids(slice: &NetworkSlice) -> impl Iterator<Item = WireId> {
    slice.nics.keys().chain(slice.wires.keys()).chain(slice.segments.keys()).copied()
}

fn same(a: &NetworkSlice, b: &NetworkSlice, id: WireId) -> bool {
    a.nics.get(&id) == b.nics.get(&id)
        && a.wires.get(&id) == b.wires.get(&id)
        && a.segments.get(&id) == b.segments.get(&id)
}

#[cfg(test)]
mod tests {
    use netloom_model::id::{LabUid, NodeUid};
    use netloom_model::slice::Segment;
    use netloom_service::fence::FenceError;

    use super::*;

    fn segments(numbers: &[u64]) -> NetworkSlice {
        let mut slice = NetworkSlice::default();
        for n in numbers {
            let wire_id = (*n).try_into().unwrap();
            let segment =
                Segment { wire_id, node_uid: NodeUid::new(), lab_uid: LabUid::new(), uplink: String::new() };
            slice.segments.insert(wire_id, segment);
        }
        slice
    }

    fn by(term: u64) -> Decision {
        Decision { term, number: 0 }
    }

    fn wanted(store: &Store) -> Vec<u64> {
        store.wanted().borrow().slice.segments.keys().map(|id| id.get()).collect()
    }

    #[test]
    fn a_lower_term_is_refused_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.ensure(by(5), segments(&[1])).unwrap();
        assert!(matches!(
            store.ensure(by(4), segments(&[2])),
            Err(Error::Fence(FenceError::Stale { given: 4, current: 5 }))
        ));
        let store = Store::open(dir.path()).unwrap();
        assert!(matches!(store.remove(by(4), &BTreeSet::new()), Err(Error::Fence(FenceError::Stale { .. }))));
        store.sync(by(5), segments(&[3]), false, Vec::new()).unwrap();
        assert_eq!(wanted(&store), [3]);
        std::fs::write(dir.path().join("network/term"), "x").unwrap();
        assert!(Store::open(dir.path()).is_err(), "a term that cannot be read is not taken for 0");
    }

    #[test]
    fn a_sync_in_parts_counts_at_its_last() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.sync(by(1), segments(&[9]), false, Vec::new()).unwrap();
        store.sync(by(1), segments(&[1]), true, Vec::new()).unwrap();
        assert_eq!(wanted(&store), [9]);
        store.sync(by(1), segments(&[2]), false, Vec::new()).unwrap();
        assert_eq!(wanted(&store), [1, 2]);
        // The parts of a leader that was replaced are not mixed with the next one's.
        store.sync(by(1), segments(&[3]), true, Vec::new()).unwrap();
        store.sync(by(2), segments(&[4]), false, Vec::new()).unwrap();
        assert_eq!(wanted(&store), [4]);
    }

    #[test]
    fn what_was_decided_before_a_removal_does_not_come_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let decided = |number| Decision { term: 1, number };
        store.sync(decided(1), segments(&[1, 2]), false, Vec::new()).unwrap();
        store.remove(decided(3), &[1.try_into().unwrap()].into()).unwrap();
        assert!(matches!(store.ensure(decided(2), segments(&[1])), Err(Error::Overtaken(_))));
        assert!(matches!(
            store.sync(decided(2), segments(&[1, 2]), false, Vec::new()),
            Err(Error::Overtaken(_))
        ));
        assert_eq!(wanted(&store), [2]);
        // Parts of a Sync that was begun anew are not mixed with those of the one before.
        store.sync(decided(4), segments(&[7]), true, Vec::new()).unwrap();
        store.sync(decided(5), segments(&[8]), false, Vec::new()).unwrap();
        assert_eq!(wanted(&store), [8]);
    }

    #[test]
    fn what_is_removed_is_doomed_until_it_is_gone_or_wanted_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.sync(by(1), segments(&[1, 2]), false, Vec::new()).unwrap();
        let both: BTreeSet<WireId> = [1, 2].map(|n| n.try_into().unwrap()).into();
        store.remove(by(1), &both).unwrap();
        let judged = store.wanted().borrow().clone();
        assert_eq!(judged.doomed, both);
        store.gone(&judged, &[2.try_into().unwrap()].into());
        assert_eq!(store.wanted().borrow().doomed.len(), 1);
        store.ensure(by(1), segments(&[2])).unwrap();
        assert!(store.wanted().borrow().doomed.is_empty());
        store.remove(by(1), &both).unwrap();
        store.gone(&judged, &BTreeSet::new());
        assert_eq!(store.wanted().borrow().doomed, both, "judged before the second removal");
    }
}
