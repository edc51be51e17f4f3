//! Which instances are to be looked at for something to do. With many, looking at all of them after every step of each would be most of the work.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use netloom_model::id::NodeUid;

/// How often all are looked at, whatever changed.
const EVERYTHING: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Default)]
pub(super) struct Look {
    /// What changed since the last look.
    changed: BTreeSet<NodeUid>,
    /// What changes by itself, and when.
    later: BTreeMap<NodeUid, Instant>,
    /// When everything was last looked at; none when everything is to be.
    everything: Option<Instant>,
}

impl Look {
    /// Something about it changed.
    pub(super) fn changed(&mut self, uid: NodeUid) {
        self.changed.insert(uid);
    }

    /// It is to be looked at again then, if not sooner.
    pub(super) fn at(&mut self, uid: NodeUid, at: Instant) {
        self.later.entry(uid).and_modify(|sooner| *sooner = at.min(*sooner)).or_insert(at);
    }

    /// All are to be looked at.
    pub(super) fn at_everything(&mut self) {
        self.everything = None;
    }

    /// What to look at now: everything now and then, else what may have become due.
    pub(super) fn take(&mut self, all: impl Iterator<Item = NodeUid>, now: Instant) -> BTreeSet<NodeUid> {
        let changed = std::mem::take(&mut self.changed);
        if self.everything.is_none_or(|last| now.saturating_duration_since(last) >= EVERYTHING) {
            self.everything = Some(now);
            self.later.clear();
            return all.collect();
        }
        let due = self.later.iter().filter(|(_, at)| **at <= now).map(|(uid, _)| *uid);
        let uids: BTreeSet<NodeUid> = due.chain(changed).collect();
        self.later.retain(|uid, _| !uids.contains(uid));
        uids
    }

    /// When to look again although nothing changed.
    pub(super) fn again(&self) -> Option<Instant> {
        self.later.values().copied().chain(self.everything.map(|last| last + EVERYTHING)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_or_is_due_is_looked_at_and_everything_now_and_then() {
        let all: [NodeUid; 4] = std::array::from_fn(|_| NodeUid::new());
        let (mut look, begun) = (Look::default(), Instant::now());
        let take = |look: &mut Look, ms| -> Vec<NodeUid> {
            look.take(all.into_iter(), begun + Duration::from_millis(ms)).into_iter().collect()
        };
        assert_eq!(take(&mut look, 0), all, "at first everything");
        assert_eq!(take(&mut look, 1), []);
        look.changed(all[1]);
        look.at(all[2], begun + Duration::from_millis(10));
        look.at(all[3], begun + Duration::from_millis(20));
        assert_eq!(look.again(), Some(begun + Duration::from_millis(10)));
        assert_eq!(take(&mut look, 15), [all[1], all[2]]);
        assert_eq!(take(&mut look, 16), [], "once");
        assert_eq!(take(&mut look, 30), [all[3]]);
        assert_eq!(look.again(), Some(begun + EVERYTHING));
        look.at_everything();
        assert_eq!(take(&mut look, 40), all);
        assert_eq!(take(&mut look, 5_041), all, "whatever changed");
    }
}
