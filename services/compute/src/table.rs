//! What is wanted and what was seen of every instance, in one place under one lock. Every change ends in [`Table::settle_entry`]: it tells observers what is different and wakes the
//! reconciler, so that neither can be forgotten.

mod entry;

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
use crate::plan::{self, Next, Step};
use entry::{Entry, Wish};
pub use entry::{ExecJob, Job};

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
                let _ = sender.send(if everything_seen { Ok(()) } else { silent() });
                continue;
            };
            if answering == Some(false) {
                let _ = sender.send(silent());
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
                    entry.answer(&silent());
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

    /// The instances for which a step is due, which are then held by the caller; exec commands that are due; and when to ask again.
    pub fn work(&self, now: Instant) -> (Vec<NodeUid>, Vec<ExecJob>, Option<Instant>) {
        let mut inner = self.lock();
        let (mut due, mut runs, mut again) = (Vec::new(), Vec::new(), None::<Instant>);
        let Inner { entries, synced, answers, .. } = &mut *inner;
        for (uid, entry) in entries {
            let answers = answers[entry.driver];
            runs.extend(entry.exec_due(*synced && answers));
            if entry.busy {
                continue;
            }
            match plan::next(&entry.situation(*synced, answers), now) {
                Next::Nothing => {}
                Next::At(at) => again = Some(again.map_or(at, |a| a.min(at))),
                Next::Do(_) => {
                    entry.busy = true;
                    due.push(*uid);
                }
            }
        }
        (due, runs, again)
    }

    /// The turn of a held instance has come: the step that is due now. None, and it is held no longer, when what was due is not any more.
    pub fn begin(&self, uid: NodeUid) -> Option<Job> {
        let mut inner = self.lock();
        let Inner { entries, synced, answers, .. } = &mut *inner;
        let entry = entries.get_mut(&uid)?;
        let next = plan::next(&entry.situation(*synced, answers[entry.driver]), Instant::now());
        let job = match next {
            Next::Do(step) => {
                entry.doing = Some(step);
                Some(entry.job(uid, step))
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
                    entry.answer(&answer);
                }
            }
            Err((message, passing)) => {
                if gone_for_good {
                    entry.wish = Wish::Unsaid;
                    entry.answer(&Err(message.clone()));
                }
                entry.memory.failed(message, passing, Instant::now());
            }
        }
        self.settle_entry(&mut inner, uid);
    }

    /// Exec commands went on. Ignored when the instance has been started anew meanwhile.
    pub fn exec_went(&self, uid: NodeUid, start_id: &str, phase: ExecPhase, progress: &str, error: &str) {
        let mut inner = self.lock();
        if let Some(entry) = inner.entries.get_mut(&uid).filter(|e| e.exec.start_id == start_id) {
            entry.exec.phase = phase;
            entry.exec.progress = progress.to_owned();
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

    /// Labs of which an instance is in the slice or exists; none as long as that is not known.
    pub fn labs(&self) -> Option<BTreeSet<LabUid>> {
        let inner = self.lock();
        let known = inner.synced && inner.answers.iter().all(|a| *a);
        known.then(|| inner.entries.values().map(|e| e.lab_uid).collect())
    }

    /// Every instance that is in the slice or exists.
    pub fn uids(&self) -> BTreeSet<NodeUid> {
        self.lock().entries.keys().copied().collect()
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
        Some((entry.driver, entry.found.clone()?, entry.instance().cloned()))
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

impl Inner {
    fn keep(&mut self, driver: usize, instance: Instance, traceparent: &str) {
        let entry = self.entries.entry(instance.uid).or_insert_with(|| Entry::new(instance.lab_uid, driver));
        entry.keep(driver, instance, traceparent);
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

fn silent() -> Result<(), String> {
    Err("its runtime does not answer".to_owned())
}
