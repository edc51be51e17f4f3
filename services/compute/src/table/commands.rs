//! Commands of nodes and whether these are ready: what is told of it, and what their runner asks.

use netloom_model::id::NodeUid;
use netloom_model::observed::StagePoint;

use super::Table;
use crate::exec_state::{Asked, Due, ExecState};

impl Table {
    /// These points of a start were reached. Answers what is to be written of it when that is new, and only for the current start.
    pub fn settle(
        &self,
        uid: NodeUid,
        start_id: &str,
        reached: &[StagePoint],
        traceparent: &str,
    ) -> Option<ExecState> {
        let mut inner = self.lock();
        let entry = inner.entries.get_mut(&uid)?;
        if !entry.exec.reach(start_id, reached) {
            return None;
        }
        entry.traceparent = traceparent.to_owned();
        if let Some(instance) = entry.instance().cloned() {
            entry.exec.advance(Asked::of(&instance));
        }
        let state = entry.exec.clone();
        self.settle_entry(&mut inner, uid);
        Some(state)
    }

    /// True when all that is done once in a start was done in the one that runs.
    pub fn is_prepared(&self, uid: NodeUid) -> bool {
        let inner = self.lock();
        let entry = inner.entries.get(&uid).filter(|entry| entry.runs());
        entry.is_some_and(|e| e.exec.is_prepared(e.instance().map(|i| Asked::of(i))))
    }

    /// What is due next in a start begins, with what is to be written first. None when there is nothing, or it is another start by now.
    pub fn command_begins(
        &self,
        uid: NodeUid,
        start_id: &str,
        now_us: i64,
        progress: impl FnOnce(&Due) -> String,
    ) -> Option<(Due, ExecState)> {
        let mut inner = self.lock();
        let entry = inner.entries.get_mut(&uid).filter(|e| e.exec.start_id == start_id)?;
        let due = match entry.instance().cloned().filter(|_| entry.runs()) {
            Some(instance) => entry.exec.begin(Asked::of(&instance), now_us, progress),
            None => {
                entry.exec.leave();
                None
            }
        };
        let state = entry.exec.clone();
        self.settle_entry(&mut inner, uid);
        due.map(|due| (due, state))
    }

    /// A command of a start has ended; how it failed, or nothing. Answers what is to be written, unless it does not run any more.
    pub fn command_ended(&self, uid: NodeUid, start_id: &str, failed: String) -> Option<ExecState> {
        self.progressed(uid, start_id, |exec, asked| exec.end(asked, failed))
    }

    /// A start is ready, or was not in time, and how that is told. Answers as [`Table::command_ended`].
    pub fn ready_known(&self, uid: NodeUid, start_id: &str, ready: Result<(), String>) -> Option<ExecState> {
        self.progressed(uid, start_id, |exec, _| exec.answer(ready))
    }

    /// This is what a start waits for now. False when it does not run any more.
    pub fn command_waits(&self, uid: NodeUid, start_id: &str, progress: String) -> bool {
        self.progressed(uid, start_id, |exec, _| exec.progress = progress).is_some()
    }

    fn progressed(
        &self,
        uid: NodeUid,
        start_id: &str,
        change: impl FnOnce(&mut ExecState, Option<Asked<'_>>),
    ) -> Option<ExecState> {
        let mut inner = self.lock();
        let entry = inner.entries.get_mut(&uid).filter(|e| e.exec.start_id == start_id)?;
        if !entry.runs() {
            entry.exec.leave();
            return None;
        }
        let instance = entry.instance().cloned();
        change(&mut entry.exec, instance.as_deref().map(Asked::of));
        let state = entry.exec.clone();
        self.settle_entry(&mut inner, uid);
        Some(state)
    }
}
