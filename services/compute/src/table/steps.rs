//! What is done with instances: steps that are due, begin and end.

use std::time::Instant;

use netloom_model::id::NodeUid;

use super::entry::{Job, Wish};
use super::{Due, Inner, Table, Work};
use crate::plan::{self, Next, Step};

impl Table {
    /// What is due now.
    pub fn work(&self, now: Instant) -> Work {
        let mut inner = self.lock();
        let mut work = Work::default();
        let mut changed = Vec::new();
        let peers = inner.peers();
        let Inner { entries, synced, over, answers, look, .. } = &mut *inner;
        for uid in &look.take(entries.keys().copied(), now) {
            let Some(entry) = entries.get_mut(uid) else { continue };
            let answers = answers[entry.driver];
            work.commands.extend(entry.exec_due(*uid, *synced && answers));
            if entry.memory.comes_to_believe(now) {
                changed.push(*uid);
            }
            if let Some(at) = entry.memory.believed_at {
                look.at(*uid, at);
            }
            if entry.busy {
                continue;
            }
            let situation = entry.situation(*synced, over.contains(uid), answers, peers.get(uid));
            match plan::next(&situation, now) {
                Next::Nothing => {
                    if let Some(step) = plan::came_about(&situation) {
                        entry.memory.worked(step);
                        changed.push(*uid);
                    }
                }
                Next::At(at) => look.at(*uid, at),
                Next::Do(step) => {
                    entry.busy = true;
                    let is_stop = matches!(step, Step::Stop | Step::Halt | Step::SetAside);
                    work.steps.push(Due { uid: *uid, driver: entry.driver, is_stop });
                }
            }
        }
        work.again = look.again().filter(|_| !entries.is_empty());
        changed.into_iter().for_each(|uid| self.tell(&mut inner, uid));
        work
    }

    /// The turn of a held instance has come: the step that is due now. None, and it is held no longer, when what was due is not any more.
    pub fn begin(&self, uid: NodeUid) -> Option<Job> {
        let mut inner = self.lock();
        let peer = inner.peer_of(uid);
        let Inner { entries, synced, over, answers, .. } = &mut *inner;
        let entry = entries.get_mut(&uid)?;
        let next = plan::next(
            &entry.situation(*synced, over.contains(&uid), answers[entry.driver], peer.as_ref()),
            Instant::now(),
        );
        let job = match next {
            Next::Do(step) => {
                entry.doing = Some(step);
                entry.memory.begins(step);
                // A refresh looks at what it changed alone.
                entry.look_due = step != Step::Refresh;
                Some(entry.job(uid, step, peer.as_ref()))
            }
            Next::Nothing | Next::At(_) => {
                entry.busy = false;
                None
            }
        };
        self.settle_entry(&mut inner, uid);
        job
    }

    /// A job has ended; `Err` holds why in words and whether it passes by itself.
    pub fn ended(&self, job: &Job, outcome: Result<(), (String, bool)>) {
        let mut inner = self.lock();
        let (uid, step) = (job.uid, job.step);
        let Some(entry) = inner.entries.get_mut(&uid) else { return };
        entry.busy = false;
        entry.doing = None;
        entry.look_due = false;
        entry.made = None;
        let gone_for_good = matches!(entry.wish, Wish::Gone) && step == Step::Remove;
        match outcome {
            Ok(()) => {
                entry.memory.worked(step);
                match (step, &job.instance, &job.found) {
                    (Step::Create | Step::Start, Some(instance), _) => {
                        entry.remember(|record| record.started(instance));
                        // It has the interfaces that it had then.
                        entry.memory.stale |= !instance.restore.is_empty();
                    }
                    (Step::Remove, Some(instance), Some(found))
                        if instance.spec.auto_remove && found.spec_hash == instance.spec_hash =>
                    {
                        entry.remember(|record| record.went(found));
                    }
                    _ => {}
                }
                if gone_for_good {
                    entry.wish = Wish::Unsaid;
                    let answer = match &entry.found {
                        None => Ok(()),
                        Some(_) => Err("it is still there after it was removed".to_owned()),
                    };
                    entry.answer(&answer);
                }
            }
            Err((message, passing)) => {
                if gone_for_good {
                    entry.wish = Wish::Unsaid;
                    entry.answer(&Err(message.clone()));
                }
                entry.memory.failed(step, message, passing, Instant::now());
            }
        }
        self.settle_entry(&mut inner, uid);
    }
}
