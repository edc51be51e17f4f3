//! Which events of a runtime tell more than is known, or will be, without a look for each. Each step ends with a look of its own, and a look costs the runtime as much as it costs this service.

use std::collections::VecDeque;

use netloom_model::id::NodeUid;

use super::entry::Entry;
use super::{Inner, Table};

/// So many instances that are gone are remembered: the runtime's last words of them come within milliseconds.
const GONE: usize = 1024;

/// Ids of the last instances that were looked for and not there any more.
#[derive(Default)]
pub(super) struct Gone(VecDeque<String>);

impl Gone {
    pub(super) fn note(&mut self, id: &str) {
        if !self.has(id) {
            self.0.truncate(GONE - 1);
            self.0.push_front(id.to_owned());
        }
    }

    /// It is there again: not every runtime gives each instance an id of its own.
    pub(super) fn forget(&mut self, id: &str) {
        self.0.retain(|gone| gone != id);
    }

    fn has(&self, id: &str) -> bool {
        self.0.iter().any(|gone| gone == id)
    }
}

impl Inner {
    /// That of the instance with this id, which may just have been made and not been looked at.
    fn of_id(&mut self, id: &str) -> Option<&mut Entry> {
        let is_it =
            |e: &&mut Entry| e.found.as_ref().is_some_and(|f| f.id == id) || e.made.as_deref() == Some(id);
        self.entries.values_mut().find(is_it)
    }
}

impl Table {
    /// As [`Table::glance`], of a look at the instance with this id.
    pub fn glance_at(&self, id: &str) -> u64 {
        let mut inner = self.lock();
        if let Some(entry) = inner.of_id(id) {
            entry.look_due = false;
        }
        inner.glances += 1;
        inner.glances
    }

    /// The step under way has made an instance with this id for a node.
    pub fn made(&self, uid: NodeUid, id: &str) {
        let mut inner = self.lock();
        inner.gone.forget(id);
        if let Some(entry) = inner.entries.get_mut(&uid) {
            entry.made = Some(id.to_owned());
        }
    }

    /// Id of the instance of a node that a step has made, or else found.
    pub fn instance_of(&self, uid: NodeUid) -> Option<String> {
        let inner = self.lock();
        let entry = inner.entries.get(&uid)?;
        entry.made.clone().or_else(|| entry.found.as_ref().map(|found| found.id.clone()))
    }

    /// False for an event of the instance with this id that tells nothing more: the step under way looks at it by itself, later than now, or it is known to be gone.
    pub fn is_news(&self, id: &str) -> bool {
        let mut inner = self.lock();
        !inner.gone.has(id) && inner.of_id(id).is_none_or(|e| !e.look_due)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use netloom_model::observed::{Phase, Source};

    use super::*;
    use crate::driver::Found;
    use crate::driver::testing::{found, instance};
    use crate::exec_state::ExecState;
    use crate::files::Files;
    use crate::table::{Due, Told};

    fn table() -> (tempfile::TempDir, Table) {
        let dir = tempfile::tempdir().unwrap();
        let files = Arc::new(Files::open(dir.path()).unwrap());
        (dir, Table::new(vec![(Source::Sim, true)], Default::default(), files))
    }

    #[test]
    fn what_a_step_looks_at_by_itself_is_no_news_until_it_does() {
        let (_dir, table) = table();
        let instance = instance();
        let uid = instance.uid;
        let found = || Found { uid, lab_uid: instance.lab_uid, id: "c1".into(), ..found() };
        table.answers(0, true, Default::default());
        table.sync(vec![(0, instance.clone())], "");
        assert_eq!(table.work(Instant::now()).steps, [Due { uid, driver: 0, is_stop: false }]);
        let job = table.begin(uid).unwrap();
        assert!(table.is_news("c1"), "nobody has made it");
        table.made(uid, "c1");
        assert!(!table.is_news("c1") && table.is_news("c2"));
        let glance = table.glance_at("c1");
        assert!(table.is_news("c1"), "what happens from now on the look may miss");
        table.seen(0, found(), glance, ExecState::default);
        table.ended(&job, Ok(()));
        assert!(table.is_news("c1"));
        table.not_seen("c1", table.glance());
        assert!(!table.is_news("c1"), "it is gone");
        table.seen(0, found(), table.glance(), ExecState::default);
        assert!(table.is_news("c1"), "it is there again");
    }

    #[test]
    fn a_step_that_failed_before_its_look_leaves_no_event_unheard() {
        let (_dir, table) = table();
        let instance = instance();
        let uid = instance.uid;
        table.answers(0, true, Default::default());
        table.sync(vec![(0, instance)], "");
        table.work(Instant::now());
        let job = table.begin(uid).unwrap();
        table.made(uid, "c1");
        table.ended(&job, Err(("no".into(), false)));
        assert!(table.is_news("c1"));
    }

    #[test]
    fn a_start_whose_answer_was_lost_is_no_failure_once_it_is_seen_to_run() {
        let (_dir, table) = table();
        let instance = instance();
        let uid = instance.uid;
        let mut told = table.changes();
        let found =
            Found { uid, lab_uid: instance.lab_uid, spec_hash: instance.spec_hash.clone(), ..found() };
        table.answers(0, true, Default::default());
        table.sync(vec![(0, instance)], "");
        table.work(Instant::now());
        let job = table.begin(uid).unwrap();
        table.made(uid, &found.id);
        assert_eq!(table.instance_of(uid), Some(found.id.clone()));
        table.ended(&job, Err(("the runtime does not answer".into(), true)));
        table.seen(0, found, table.glance(), ExecState::default);
        assert_eq!(table.work(Instant::now()).steps, []);
        let mut last = None;
        while let Ok(news) = told.try_recv() {
            if let Told::Changed(observed) = news {
                last = Some((observed.phase, observed.detail));
            }
        }
        assert_eq!(last, Some((Phase::Running, String::new())));
    }
}
