//! What is wanted and what was seen of every instance, in one place under one lock. Every change ends in [`Table::settle_entry`]: it tells observers what is different and wakes the
//! reconciler, so that neither can be forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use netloom_model::id::{LabUid, NodeUid};
use netloom_model::observed::{ComputeInventory, ExecPhase, Observed};
use netloom_model::slice::Instance;
use netloom_model::state::Wanted;
use tokio::sync::{Notify, broadcast, oneshot};

use crate::driver::{Found, Process};
use crate::exec_runs::ExecState;
use crate::plan::{self, Memory, Next, Situation, Step, Want};

/// Changes that an observer may lag behind before it is told everything again.
const BACKLOG: usize = 4096;

/// What observers are told.
#[derive(Debug, Clone)]
pub enum Told {
    /// An instance changed.
    Changed(Box<Observed>),
    /// Nothing exists of it any more and it is not wanted.
    Gone(NodeUid),
    /// What the host can do changed.
    Inventory,
    /// Much changed at once: take a snapshot.
    Everything,
}

/// Everything, at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The instances.
    pub instances: Vec<Observed>,
    /// What the host can do.
    pub inventory: ComputeInventory,
    /// A Sync was taken.
    pub synced: bool,
}

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

enum Wish {
    Unsaid,
    Keep(Arc<Instance>),
    Gone,
}

struct Entry {
    lab_uid: LabUid,
    driver: usize,
    wish: Wish,
    found: Option<Found>,
    memory: Memory,
    /// A job holds it, though it may still wait for its turn.
    busy: bool,
    doing: Option<Step>,
    exec: ExecState,
    traceparent: String,
    waiters: Vec<oneshot::Sender<Result<(), String>>>,
    glance: u64,
    told: Option<Observed>,
}

impl Entry {
    fn new(lab_uid: LabUid, driver: usize) -> Entry {
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

    fn situation(&self, synced: bool, answers: bool) -> Situation<'_> {
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

    fn observed(&self, uid: NodeUid, answers: bool) -> Observed {
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
            }
        }
        o
    }
}

#[derive(Default)]
struct Inner {
    entries: BTreeMap<NodeUid, Entry>,
    synced: bool,
    /// Which drivers answer.
    answers: Vec<bool>,
    inventory: ComputeInventory,
    glances: u64,
}

/// See the module.
pub struct Table {
    inner: Mutex<Inner>,
    told: broadcast::Sender<Told>,
    /// Rung when there may be something to do.
    pub wake: Notify,
}

impl Table {
    /// An empty table over so many drivers, none of which has answered yet.
    pub fn new(drivers: usize, inventory: ComputeInventory) -> Table {
        let inner = Inner { answers: vec![false; drivers], inventory, ..Inner::default() };
        Table { inner: Mutex::new(inner), told: broadcast::channel(BACKLOG).0, wake: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder panics")
    }

    // ---- what is wanted

    /// Replaces the slice. What exists beyond it is left alone.
    pub fn sync(&self, instances: Vec<(usize, Instance)>, traceparent: &str) {
        let mut inner = self.lock();
        let kept: BTreeSet<NodeUid> = instances.iter().map(|(_, i)| i.uid).collect();
        for (driver, instance) in instances {
            inner.keep(driver, instance, traceparent);
        }
        for (uid, entry) in &mut inner.entries {
            if !kept.contains(uid) && matches!(entry.wish, Wish::Keep(_)) {
                entry.wish = Wish::Unsaid;
            }
        }
        inner.synced = true;
        inner.forget_gone();
        inner.retell();
        let _ = self.told.send(Told::Everything);
        self.wake.notify_one();
    }

    /// Adds or changes instances.
    pub fn ensure(&self, instances: Vec<(usize, Instance)>, traceparent: &str) {
        let mut inner = self.lock();
        for (driver, instance) in instances {
            let uid = instance.uid;
            inner.keep(driver, instance, traceparent);
            self.settle_entry(&mut inner, uid);
        }
    }

    /// Wants these gone, and whatever exists of these labs; each answer comes when it is.
    pub fn remove(
        &self,
        uids: &[NodeUid],
        labs: &[LabUid],
        traceparent: &str,
    ) -> Vec<(NodeUid, oneshot::Receiver<Result<(), String>>)> {
        let mut inner = self.lock();
        let of_labs = inner.entries.iter().filter(|(_, e)| labs.contains(&e.lab_uid)).map(|(uid, _)| *uid);
        let all: BTreeSet<NodeUid> = of_labs.chain(uids.iter().copied()).collect();
        let everything_seen = inner.answers.iter().all(|a| *a);
        let mut answers = Vec::new();
        for uid in all {
            let (sender, receiver) = oneshot::channel();
            answers.push((uid, receiver));
            let answering = inner.entries.get(&uid).map(|e| inner.answers[e.driver]);
            let Some(entry) = inner.entries.get_mut(&uid) else {
                let known =
                    if everything_seen { Ok(()) } else { Err("its runtime does not answer".to_owned()) };
                let _ = sender.send(known);
                continue;
            };
            if answering == Some(false) {
                let _ = sender.send(Err("its runtime does not answer".to_owned()));
                continue;
            }
            entry.waiters.push(sender);
            entry.wish = Wish::Gone;
            entry.memory.renew();
            entry.traceparent = traceparent.to_owned();
            self.settle_entry(&mut inner, uid);
        }
        answers
    }

    /// The links of a start are settled. Only the first time counts, and only for the current start.
    pub fn settle(&self, uid: NodeUid, start_id: &str, traceparent: &str) {
        let mut inner = self.lock();
        if let Some(entry) = inner.entries.get_mut(&uid) {
            if entry.exec.settle(start_id) {
                entry.traceparent = traceparent.to_owned();
            }
            self.settle_entry(&mut inner, uid);
        }
    }

    // ---- what is seen

    /// To be taken before one looks: what was seen later than another look began is not overwritten by it.
    pub fn glance(&self) -> u64 {
        let mut inner = self.lock();
        inner.glances += 1;
        inner.glances
    }

    /// An instance was seen. False when a later look was faster.
    pub fn seen(&self, driver: usize, found: Found, glance: u64, exec: impl FnOnce() -> ExecState) -> bool {
        let mut inner = self.lock();
        let uid = found.uid;
        let entry = inner.entries.entry(uid).or_insert_with(|| Entry::new(found.lab_uid, driver));
        let other = entry.found.as_ref().is_some_and(|f| f.id != found.id);
        if glance < entry.glance || (other && glance == entry.glance) {
            return false;
        }
        entry.glance = glance;
        entry.driver = driver;
        if let Process::Ended { code, .. } = found.process {
            let asked = match &entry.wish {
                Wish::Keep(i) => i.wanted != Wanted::Running,
                Wish::Unsaid | Wish::Gone => true,
            };
            entry.memory.ended(&found.start_id, found.ran, code, asked, Instant::now());
        }
        if matches!(found.process, Process::Running { .. }) {
            if entry.doing == Some(Step::Start) {
                entry.memory.began();
            }
            if entry.exec.start_id != found.start_id {
                entry.exec = exec();
            }
        }
        entry.found = Some(found);
        self.settle_entry(&mut inner, uid);
        true
    }

    /// The instance with this id was looked for and is not there. Answers which node it was.
    pub fn not_seen(&self, id: &str, glance: u64) -> Option<NodeUid> {
        let mut inner = self.lock();
        let is_it = |e: &Entry| e.glance <= glance && e.found.as_ref().is_some_and(|f| f.id == id);
        let (uid, entry) = inner.entries.iter_mut().find(|(_, e)| is_it(e))?;
        let uid = *uid;
        entry.glance = glance;
        entry.found = None;
        self.settle_entry(&mut inner, uid);
        Some(uid)
    }

    /// Ids of what a driver was last seen to have, and whether each ran.
    pub fn known(&self, driver: usize) -> Vec<(String, bool)> {
        let inner = self.lock();
        let of_driver =
            inner.entries.values().filter(|e| e.driver == driver).filter_map(|e| e.found.as_ref());
        of_driver.map(|f| (f.id.clone(), matches!(f.process, Process::Running { .. }))).collect()
    }

    /// Every start that runs.
    pub fn running(&self) -> BTreeSet<(NodeUid, String)> {
        let inner = self.lock();
        let found = inner.entries.values().filter_map(|e| e.found.as_ref());
        found
            .filter(|f| matches!(f.process, Process::Running { .. }))
            .map(|f| (f.uid, f.start_id.clone()))
            .collect()
    }

    /// A driver answers, or does not, which changes what the host can do.
    pub fn answers(&self, driver: usize, answers: bool, inventory: ComputeInventory) {
        let mut inner = self.lock();
        let turned = inner.answers[driver] != answers;
        inner.answers[driver] = answers;
        if turned {
            for entry in inner.entries.values_mut().filter(|e| e.driver == driver) {
                entry.memory.forgive();
                if !answers {
                    for waiter in entry.waiters.drain(..) {
                        let _ = waiter.send(Err("its runtime does not answer".to_owned()));
                    }
                }
            }
            inner.retell();
            let _ = self.told.send(Told::Everything);
        } else if inner.inventory != inventory {
            let _ = self.told.send(Told::Inventory);
        }
        inner.inventory = inventory;
        self.wake.notify_one();
    }

    // ---- what is done

    /// The steps to take now, which are then held by the caller, and when to ask again.
    pub fn work(&self, now: Instant) -> (Vec<Job>, Vec<ExecJob>, Option<Instant>) {
        let mut inner = self.lock();
        let (mut jobs, mut runs, mut next) = (Vec::new(), Vec::new(), None::<Instant>);
        let Inner { entries, synced, answers, .. } = &mut *inner;
        for (uid, entry) in entries {
            let answers = answers[entry.driver];
            if let Some(run) = entry.exec_due(*synced && answers) {
                runs.push(run);
            }
            if entry.busy {
                continue;
            }
            match plan::next(&entry.situation(*synced, answers), now) {
                Next::Nothing => {}
                Next::At(at) => next = Some(next.map_or(at, |n| n.min(at))),
                Next::Do(step) => {
                    entry.busy = true;
                    let instance = match &entry.wish {
                        Wish::Keep(instance) => Some(instance.clone()),
                        Wish::Unsaid | Wish::Gone => None,
                    };
                    jobs.push(Job {
                        uid: *uid,
                        lab_uid: entry.lab_uid,
                        driver: entry.driver,
                        step,
                        instance,
                        found: entry.found.clone(),
                        traceparent: entry.traceparent.clone(),
                    });
                }
            }
        }
        (jobs, runs, next)
    }

    /// A job's turn has come.
    pub fn begins(&self, uid: NodeUid, step: Step) {
        let mut inner = self.lock();
        if let Some(entry) = inner.entries.get_mut(&uid) {
            entry.doing = Some(step);
            self.settle_entry(&mut inner, uid);
        }
    }

    /// A job has ended; `Err` holds why in words and whether what was in the way goes by itself.
    pub fn ended(&self, uid: NodeUid, step: Step, outcome: Result<(), (String, bool)>) {
        let mut inner = self.lock();
        let Some(entry) = inner.entries.get_mut(&uid) else { return };
        entry.busy = false;
        entry.doing = None;
        let gone_for_good = matches!(entry.wish, Wish::Gone) && step == Step::Remove;
        match outcome {
            Ok(()) => {
                entry.memory.worked(step);
                if gone_for_good {
                    entry.wish = Wish::Unsaid;
                    let answer = match &entry.found {
                        None => Ok(()),
                        Some(_) => Err("it is still there after it was removed".to_owned()),
                    };
                    entry.waiters.drain(..).for_each(|w| drop(w.send(answer.clone())));
                }
            }
            Err((message, soon)) => {
                if gone_for_good {
                    entry.wish = Wish::Unsaid;
                    entry.waiters.drain(..).for_each(|w| drop(w.send(Err(message.clone()))));
                }
                entry.memory.failed(message, soon, Instant::now());
            }
        }
        self.settle_entry(&mut inner, uid);
    }

    /// Exec commands went on. Ignored when the instance has been started anew meanwhile.
    pub fn exec_went(&self, uid: NodeUid, start_id: &str, phase: ExecPhase, error: &str) {
        let mut inner = self.lock();
        if let Some(entry) = inner.entries.get_mut(&uid).filter(|e| e.exec.start_id == start_id) {
            entry.exec.phase = phase;
            entry.exec.error = error.to_owned();
            self.settle_entry(&mut inner, uid);
        }
    }

    // ---- what is told

    /// Everything, and all changes from then on.
    pub fn observe(&self) -> (Snapshot, broadcast::Receiver<Told>) {
        let inner = self.lock();
        (inner.snapshot(), self.told.subscribe())
    }

    /// What the host can do.
    pub fn inventory(&self) -> ComputeInventory {
        self.lock().inventory.clone()
    }

    /// True once a Sync was taken.
    pub fn synced(&self) -> bool {
        self.lock().synced
    }

    /// A running instance: its driver, its own id, and its kind where it is in the slice.
    pub fn instance(&self, uid: NodeUid) -> Option<(usize, Found, Option<Arc<Instance>>)> {
        let inner = self.lock();
        let entry = inner.entries.get(&uid)?;
        let instance = match &entry.wish {
            Wish::Keep(instance) => Some(instance.clone()),
            Wish::Unsaid | Wish::Gone => None,
        };
        Some((entry.driver, entry.found.clone()?, instance))
    }

    /// Tells what changed of an entry, drops it when nothing is left of it, and wakes the reconciler.
    fn settle_entry(&self, inner: &mut Inner, uid: NodeUid) {
        let Some(entry) = inner.entries.get_mut(&uid) else { return };
        if entry.is_nothing() {
            inner.entries.remove(&uid);
            let _ = self.told.send(Told::Gone(uid));
        } else {
            let observed = entry.observed(uid, inner.answers[entry.driver]);
            if entry.told.as_ref() != Some(&observed) {
                entry.told = Some(observed.clone());
                let _ = self.told.send(Told::Changed(Box::new(observed)));
            }
        }
        self.wake.notify_one();
    }
}

impl Entry {
    fn is_nothing(&self) -> bool {
        matches!(self.wish, Wish::Unsaid) && self.found.is_none() && !self.busy
    }

    /// The run of exec commands that is due, which is then held by the caller.
    fn exec_due(&mut self, may: bool) -> Option<ExecJob> {
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
}

impl Inner {
    fn keep(&mut self, driver: usize, instance: Instance, traceparent: &str) {
        let entry = self.entries.entry(instance.uid).or_insert_with(|| Entry::new(instance.lab_uid, driver));
        match &entry.wish {
            Wish::Keep(before) if **before == instance => return,
            Wish::Keep(before) => {
                if before.spec_hash != instance.spec_hash {
                    entry.memory.renew();
                }
                if before.wanted != Wanted::Running && instance.wanted == Wanted::Running {
                    entry.memory.forgive();
                    entry.memory.start_demanded = true;
                }
            }
            // A removal under way is let finish; then it is made anew.
            Wish::Unsaid | Wish::Gone => {}
        }
        entry.memory.stale = true;
        entry.lab_uid = instance.lab_uid;
        if entry.found.is_none() {
            entry.driver = driver;
        }
        entry.traceparent = traceparent.to_owned();
        for waiter in entry.waiters.drain(..) {
            let _ = waiter.send(Err("it was wanted again meanwhile".to_owned()));
        }
        entry.wish = Wish::Keep(Arc::new(instance));
    }

    fn snapshot(&self) -> Snapshot {
        let observed = |(uid, e): (&NodeUid, &Entry)| e.observed(*uid, self.answers[e.driver]);
        Snapshot {
            instances: self.entries.iter().map(observed).collect(),
            inventory: self.inventory.clone(),
            synced: self.synced,
        }
    }

    fn forget_gone(&mut self) {
        self.entries.retain(|_, e| !e.is_nothing());
    }

    fn retell(&mut self) {
        let Inner { entries, answers, .. } = self;
        for (uid, entry) in entries {
            entry.told = Some(entry.observed(*uid, answers[entry.driver]));
        }
    }
}
