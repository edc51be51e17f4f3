//! One instance in the table.

use std::sync::Arc;

use netloom_model::id::{LabUid, NodeUid};
use netloom_model::observed::{ExecPhase, Observed, Phase};
use netloom_model::slice::Instance;
use netloom_model::state::Wanted;
use tokio::sync::oneshot;

use crate::driver::{Found, Process};
use crate::exec_runs::ExecState;
use crate::plan::{self, Memory, Situation, Step, Want};

/// A step to take.
#[derive(Debug, Clone)]
pub struct Job {
    /// The node.
    pub uid: NodeUid,
    /// Its lab.
    pub lab_uid: LabUid,
    /// Which driver runs it.
    pub driver: usize,
    /// What to do.
    pub step: Step,
    /// What is wanted; none when it is to be gone for good.
    pub instance: Option<Arc<Instance>>,
    /// What exists.
    pub found: Option<Found>,
    /// The call that asked for it.
    pub traceparent: String,
}

/// Exec commands to run.
#[derive(Debug, Clone)]
pub struct ExecJob {
    /// The node, with its commands.
    pub instance: Arc<Instance>,
    /// The container's or domain's own id.
    pub id: String,
    /// Which driver runs it.
    pub driver: usize,
    /// Which start.
    pub start_id: String,
    /// The first command that was not begun.
    pub from: usize,
    /// What failed before that.
    pub error: String,
    /// The call that asked for it.
    pub traceparent: String,
}

/// What was said of an instance.
pub(super) enum Wish {
    /// Nothing: it is left alone.
    Unsaid,
    /// It is in the slice.
    Keep(Arc<Instance>),
    /// It is to be removed.
    Gone,
}

/// An instance: what was said of it, what was seen of it, and what was tried.
pub(super) struct Entry {
    pub(super) lab_uid: LabUid,
    pub(super) driver: usize,
    pub(super) wish: Wish,
    pub(super) found: Option<Found>,
    pub(super) memory: Memory,
    /// A job holds it, though it may still wait for its turn.
    pub(super) busy: bool,
    pub(super) doing: Option<Step>,
    pub(super) exec: ExecState,
    pub(super) traceparent: String,
    pub(super) waiters: Vec<oneshot::Sender<Result<(), String>>>,
    pub(super) glance: u64,
    pub(super) told: Option<Observed>,
}

impl Entry {
    pub(super) fn new(lab_uid: LabUid, driver: usize) -> Entry {
        Entry {
            lab_uid,
            driver,
            wish: Wish::Unsaid,
            found: None,
            memory: Memory::default(),
            busy: false,
            doing: None,
            exec: ExecState::default(),
            traceparent: String::new(),
            waiters: Vec::new(),
            glance: 0,
            told: None,
        }
    }

    pub(super) fn situation(&self, synced: bool, answers: bool) -> Situation<'_> {
        let want = match &self.wish {
            Wish::Unsaid => Want::Unsaid,
            Wish::Keep(instance) => Want::Keep(instance),
            Wish::Gone => Want::Gone,
        };
        Situation {
            synced,
            answers,
            want,
            found: self.found.as_ref(),
            doing: self.doing,
            memory: &self.memory,
        }
    }

    pub(super) fn observed(&self, uid: NodeUid, answers: bool) -> Observed {
        let (phase, detail) = plan::phase(&self.situation(true, answers));
        let mut o = Observed::absent(uid, self.lab_uid);
        (o.phase, o.detail) = (phase, detail);
        o.wanted = matches!(self.wish, Wish::Keep(_));
        o.exit_code = self.memory.exit_code;
        o.restart_count = self.memory.restart_count;
        if let Some(found) = &self.found {
            o.start_id = found.start_id.clone();
            o.spec_hash = found.spec_hash.clone();
            o.instance_id = found.id.clone();
            o.image_digest = found.image_digest.clone();
            o.start_time_us = found.started_us;
            o.mgmt_ipv4 = found.mgmt_ipv4.clone();
            o.mgmt_ipv6 = found.mgmt_ipv6.clone();
            if matches!(found.process, Process::Running { .. }) {
                o.exec_phase = self.exec.phase;
                o.exec_error = self.exec.error.clone();
                if o.phase == Phase::Running && o.exec_phase == ExecPhase::Running {
                    o.detail = self.exec.progress.clone();
                }
            }
        }
        o
    }

    pub(super) fn is_nothing(&self) -> bool {
        matches!(self.wish, Wish::Unsaid) && self.found.is_none() && !self.busy
    }

    /// The run of exec commands that is due, which is then held by the caller.
    pub(super) fn exec_due(&mut self, may: bool) -> Option<ExecJob> {
        let Wish::Keep(instance) = &self.wish else { return None };
        let found = self.found.as_ref().filter(|f| matches!(f.process, Process::Running { .. }))?;
        if !may || self.exec.start_id != found.start_id || !self.exec.take_due() {
            return None;
        }
        Some(ExecJob {
            instance: instance.clone(),
            id: found.id.clone(),
            driver: self.driver,
            start_id: found.start_id.clone(),
            from: self.exec.from,
            error: self.exec.error.clone(),
            traceparent: self.traceparent.clone(),
        })
    }

    /// Is in the slice from now on, as it is asked for now.
    pub(super) fn keep(&mut self, driver: usize, instance: Instance, traceparent: &str) {
        match &self.wish {
            Wish::Keep(before) if **before == instance => return,
            Wish::Keep(before) => {
                if before.spec_hash != instance.spec_hash {
                    self.memory.renew();
                }
                if before.wanted != Wanted::Running && instance.wanted == Wanted::Running {
                    self.memory.forgive();
                    self.memory.start_demanded = true;
                }
            }
            // A removal under way is let finish; then it is made anew.
            Wish::Unsaid | Wish::Gone => {}
        }
        self.memory.stale = true;
        self.lab_uid = instance.lab_uid;
        if self.found.is_none() {
            self.driver = driver;
        }
        self.traceparent = traceparent.to_owned();
        self.answer(&Err("it was wanted again meanwhile".to_owned()));
        self.wish = Wish::Keep(Arc::new(instance));
    }

    /// Answers those who wait until it is gone.
    pub(super) fn answer(&mut self, answer: &Result<(), String>) {
        for waiter in self.waiters.drain(..) {
            let _ = waiter.send(answer.clone());
        }
    }

    /// The instance in the slice.
    pub(super) fn instance(&self) -> Option<&Arc<Instance>> {
        match &self.wish {
            Wish::Keep(instance) => Some(instance),
            Wish::Unsaid | Wish::Gone => None,
        }
    }

    /// The step with all that is needed to take it.
    pub(super) fn job(&self, uid: NodeUid, step: Step) -> Job {
        Job {
            uid,
            lab_uid: self.lab_uid,
            driver: self.driver,
            step,
            instance: self.instance().cloned(),
            found: self.found.clone(),
            traceparent: self.traceparent.clone(),
        }
    }
}
