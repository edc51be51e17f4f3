//! Commands of nodes: what is told of them, and what their runner asks.

use netloom_model::id::NodeUid;
use netloom_model::observed::StagePoint;

use super::Table;
use crate::exec_state::{Due, ExecState};

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
            entry.exec.advance(&instance.spec);
        }
        let state = entry.exec.clone();
        self.settle_entry(&mut inner, uid);
        Some(state)
    }

    /// The next command of a start begins, with what is to be written first. None when there is none, or it is another start by now.
    pub fn command_begins(
        &self,
        uid: NodeUid,
        start_id: &str,
        progress: impl FnOnce(&str) -> String,
    ) -> Option<(Due, ExecState)> {
        let mut inner = self.lock();
        let entry = inner.entries.get_mut(&uid).filter(|e| e.exec.start_id == start_id)?;
        let due = match entry.instance().cloned().filter(|_| entry.runs()) {
            Some(instance) => entry.exec.begin(&instance.spec, progress),
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
        let mut inner = self.lock();
        let entry = inner.entries.get_mut(&uid).filter(|e| e.exec.start_id == start_id)?;
        if !entry.runs() {
            entry.exec.leave();
            return None;
        }
        let instance = entry.instance().cloned();
        entry.exec.end(instance.as_deref().map(|i| &i.spec), failed);
        let state = entry.exec.clone();
        self.settle_entry(&mut inner, uid);
        Some(state)
    }
}
