//! One instance in the table.

use std::sync::Arc;
use std::time::Instant;

use netloom_model::id::{LabUid, NodeUid};
use netloom_model::observed::{ExecPhase, Observed, Phase, Source};
use netloom_model::slice::Instance;
use netloom_model::state::Wanted;
use tokio::sync::oneshot;

use crate::driver::{Found, Process};
use crate::exec_state::{Asked, ExecState};
use crate::files::Files;
use crate::memory::Memory;
use crate::plan::{self, Peer, Situation, Step, Want};
use crate::record::Record;

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
    /// Id of the instance whose network namespace it shares.
    pub shares: Option<String>,
    /// The call that asked for it.
    pub traceparent: String,
}

/// A node whose commands are to be run, or that is to be asked whether it is ready.
#[derive(Debug, Clone)]
pub struct ExecJob {
    /// The node.
    pub uid: NodeUid,
    /// Its lab's id, for people.
    pub lab: String,
    /// Its own id, for people.
    pub node: String,
    /// The container's or domain's own id.
    pub id: String,
    /// Which driver runs it.
    pub driver: usize,
    /// Which start.
    pub start_id: String,
    /// When it started, in microseconds since 1970.
    pub started_us: i64,
    /// What is asked of it.
    pub instance: Arc<Instance>,
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
    pub(super) record: Record,
    /// What is remembered is not written yet.
    pub(super) unsaved: bool,
    /// A job holds it, though it may still wait for its turn.
    pub(super) busy: bool,
    pub(super) doing: Option<Step>,
    /// The step under way looks at the instance when it is done, and has not begun to.
    pub(super) look_due: bool,
    /// Id of the instance that the step under way has made.
    pub(super) made: Option<String>,
    pub(super) exec: ExecState,
    pub(super) traceparent: String,
    pub(super) waiters: Vec<oneshot::Sender<Result<(), String>>>,
    pub(super) glance: u64,
    pub(super) told: Option<Observed>,
}

impl Entry {
    pub(super) fn new(lab_uid: LabUid, driver: usize, record: Record) -> Entry {
        Entry {
            lab_uid,
            driver,
            wish: Wish::Unsaid,
            found: None,
            memory: Memory::after(record.removed.as_ref().map(|r| r.exit_code)),
            record,
            unsaved: false,
            busy: false,
            doing: None,
            look_due: false,
            made: None,
            exec: ExecState::default(),
            traceparent: String::new(),
            waiters: Vec::new(),
            glance: 0,
            told: None,
        }
    }

    pub(super) fn situation<'a>(
        &'a self,
        synced: bool,
        over: bool,
        answers: bool,
        peer: Option<&'a Peer>,
    ) -> Situation<'a> {
        let want = match &self.wish {
            Wish::Unsaid => Want::Unsaid,
            Wish::Keep(instance) => Want::Keep(instance),
            Wish::Gone => Want::Gone,
        };
        Situation {
            synced,
            over,
            answers,
            want,
            found: self.found.as_ref(),
            doing: self.doing,
            memory: &self.memory,
            record: &self.record,
            peer,
        }
    }

    /// As it is told; its driver read it from the source, or does not answer.
    pub(super) fn observed(
        &self,
        uid: NodeUid,
        source: Option<Source>,
        over: bool,
        peer: Option<&Peer>,
    ) -> Observed {
        let (phase, detail) = plan::phase(&self.situation(true, over, source.is_some(), peer));
        let mut o = Observed::absent(uid, self.lab_uid);
        (o.phase, o.detail) = (phase, detail);
        o.sources = source.into_iter().collect();
        o.wanted = matches!(self.wish, Wish::Keep(_));
        o.lease = self.instance().and_then(|i| i.lease);
        o.exit_code = self.memory.exit_code;
        o.restart_count = self.memory.restart_count;
        (o.restarts, o.exited) = (self.record.restarts, self.record.exited);
        let Some(found) = &self.found else { return o };
        o.start_id = found.start_id.clone();
        o.spec_hash = found.spec_hash.clone();
        o.instance_id = found.id.clone();
        o.image_digest = found.image_digest.clone();
        o.start_time_us = found.started_us;
        o.mgmt_ipv4 = found.mgmt_ipv4.clone();
        o.mgmt_ipv6 = found.mgmt_ipv6.clone();
        if self.runs() {
            let asked = self.instance().map(|i| Asked::of(i));
            o.exec_phase = self.exec.phase(asked);
            o.exec_error = self.exec.error(asked);
            o.stages_done = self.exec.done.clone();
            (o.health, o.ports) = (found.health.clone(), found.ports.clone());
            if o.phase == Phase::Running && o.detail.is_empty() {
                o.detail = self.exec.progress.clone();
            }
            // It has just ended once: whether it lasts now is part of whether it is ready.
            let prepared = matches!(o.exec_phase, ExecPhase::Done | ExecPhase::Failed);
            if prepared && self.memory.believed_at.is_some() {
                o.exec_phase = ExecPhase::Running;
                o.detail = self.memory.doubting.clone();
            }
        }
        o
    }

    /// A start was seen that may be the one that is being made.
    pub(super) fn began(&mut self) {
        if self.doing == Some(Step::Start) {
            let asked = self.instance().is_some_and(|i| i.restarts > self.record.restarts);
            self.memory.began(!self.record.stopped && !asked, Instant::now());
        }
    }

    pub(super) fn is_nothing(&self) -> bool {
        matches!(self.wish, Wish::Unsaid) && self.found.is_none() && !self.busy
    }

    /// Its process runs.
    pub(super) fn runs(&self) -> bool {
        self.found.as_ref().is_some_and(|f| matches!(f.process, Process::Running { .. }))
    }

    /// Changes what is remembered.
    pub(super) fn remember(&mut self, change: impl FnOnce(&mut Record)) {
        let before = self.record.clone();
        change(&mut self.record);
        self.unsaved |= self.record != before;
    }

    /// Writes what is remembered, before anybody is told of it. Not of one that is to be gone: so is where it is written.
    pub(super) fn save(&mut self, files: &Files, uid: NodeUid) {
        if matches!(self.wish, Wish::Gone) || !std::mem::take(&mut self.unsaved) {
            return;
        }
        if let Err(error) = self.record.save(files, self.lab_uid, uid) {
            tracing::warn!(%error, "what is to be remembered of a node cannot be written; after a restart of this service it may be started once more");
        }
    }

    /// Another takes part in its network namespace: what that must know.
    pub(super) fn as_peer(&self) -> Peer {
        let found = self.found.as_ref();
        let node = match (&self.wish, found) {
            (Wish::Keep(i), _) => i.spec.id.clone(),
            (_, Some(f)) => f.node.clone(),
            (_, None) => String::new(),
        };
        Peer {
            node,
            id: found.map(|f| f.id.clone()).unwrap_or_default(),
            // One that is being stopped takes its namespace along.
            runs: self.runs() && !self.doing.is_some_and(Step::ends),
            namespace: found.and_then(|f| f.namespace),
        }
    }

    /// The commands that are due, which are then the caller's to run.
    pub(super) fn exec_due(&mut self, uid: NodeUid, may: bool) -> Option<ExecJob> {
        let Wish::Keep(instance) = &self.wish else { return None };
        let found = self.found.as_ref().filter(|f| matches!(f.process, Process::Running { .. }))?;
        if !may || self.exec.start_id != found.start_id || !self.exec.take(Asked::of(instance)) {
            return None;
        }
        Some(ExecJob {
            uid,
            lab: instance.lab.to_string(),
            node: instance.spec.id.clone(),
            id: found.id.clone(),
            driver: self.driver,
            start_id: found.start_id.clone(),
            started_us: found.started_us,
            instance: instance.clone(),
            traceparent: self.traceparent.clone(),
        })
    }

    /// Is in the slice from now on, as it is asked for now.
    pub(super) fn keep(&mut self, driver: usize, instance: Instance, traceparent: &str) {
        match &self.wish {
            Wish::Keep(before) if **before == instance => return,
            Wish::Keep(before) => {
                let is_aside = |i: &Instance| i.wanted == Wanted::Aside;
                if before.spec_hash != instance.spec_hash || is_aside(before) != is_aside(&instance) {
                    self.memory.renew();
                }
                let turned_on = before.wanted != Wanted::Running && instance.wanted == Wanted::Running;
                if turned_on || before.restarts < instance.restarts {
                    self.memory.forgive();
                }
                self.memory.start_demanded |= turned_on;
            }
            // A removal under way is let finish; then it is made anew.
            Wish::Unsaid | Wish::Gone => {}
        }
        let is_free = |i: &Instance| i.wanted == Wanted::Running && !i.held;
        if is_free(&instance) && !self.instance().is_some_and(|i| is_free(i)) {
            self.memory.free_since = Some(Instant::now());
        }
        if let Some(found) = self.found.clone().filter(|f| matches!(f.process, Process::Ended { .. })) {
            let asked = instance.wanted != Wanted::Running;
            self.remember(|record| {
                record.judge(&found, asked);
                if asked {
                    record.rests();
                }
            });
        }
        if instance.wanted != Wanted::Running {
            self.remember(|record| record.removed = None);
        }
        self.exec.changed();
        self.exec.advance(Asked::of(&instance));
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

    /// As it is asked for now: a snapshot is what one start begins from, not those that follow it.
    fn for_this_start(&self, instance: &Arc<Instance>) -> Arc<Instance> {
        match instance.restore.is_empty() || instance.restarts > self.record.restarts {
            true => instance.clone(),
            false => Arc::new(Instance { restore: String::new(), ..Instance::clone(instance) }),
        }
    }

    /// The step with all that is needed to take it.
    pub(super) fn job(&self, uid: NodeUid, step: Step, peer: Option<&Peer>) -> Job {
        Job {
            uid,
            lab_uid: self.lab_uid,
            driver: self.driver,
            step,
            instance: self.instance().map(|i| self.for_this_start(i)),
            found: self.found.clone(),
            shares: peer.map(|p| p.id.clone()),
            traceparent: self.traceparent.clone(),
        }
    }
}
