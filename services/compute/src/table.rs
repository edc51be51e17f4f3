//! What is wanted and what was seen of every instance, in one place under one lock. Every change ends in [`Table::settle_entry`]: it writes down what must be
//! remembered, tells observers what is different and wakes the reconciler, so that none of these can be forgotten.

mod addresses;
mod commands;
mod entry;
mod known;
mod look;
mod news;
mod peers;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use netloom_model::id::{LabUid, NodeUid};
use netloom_model::observed::{ComputeInventory, Observed, Source};
use netloom_model::slice::Instance;
use netloom_model::state::Wanted;
use tokio::sync::{Notify, broadcast, oneshot};

use crate::driver::{Found, Process};
use crate::exec_state::{Asked, ExecState};
use crate::files::Files;
use crate::plan::Step;
use crate::record::Record;
use entry::{Entry, Wish};
pub use entry::{ExecJob, Job};
use look::Look;

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

/// Work that is due.
#[derive(Default)]
pub struct Work {
    /// Instances for which a step is due, which are then held by the caller.
    pub steps: Vec<Due>,
    /// Nodes whose commands are due.
    pub commands: Vec<ExecJob>,
    /// When to ask again.
    pub again: Option<Instant>,
}

/// A step that is due.
#[derive(Debug, PartialEq, Eq)]
pub struct Due {
    /// The instance.
    pub uid: NodeUid,
    /// What runs it: its place among the drivers.
    pub driver: usize,
    /// It is mostly a wait for a process to end.
    pub is_stop: bool,
}

struct Inner {
    entries: BTreeMap<NodeUid, Entry>,
    sharers: peers::Sharers,
    files: Arc<Files>,
    synced: bool,
    /// Instances whose lease is over.
    over: BTreeSet<NodeUid>,
    /// Which drivers answer.
    answers: Vec<bool>,
    /// Without which drivers' answers it is not known what exists: those that were named or of which an earlier run left something, and those that answered once.
    needed: Vec<bool>,
    /// What each driver reads from.
    sources: Vec<Source>,
    /// When that was last read, or known to answer.
    reads: BTreeMap<Source, Instant>,
    inventory: ComputeInventory,
    glances: u64,
    look: Look,
    gone: news::Gone,
}

/// Comes when what was to be removed is gone, or cannot be.
pub type Removal = oneshot::Receiver<Result<(), String>>;

/// See the module.
pub struct Table {
    inner: Mutex<Inner>,
    told: broadcast::Sender<Told>,
    /// Rung when there may be something to do.
    pub wake: Notify,
}

impl Table {
    /// An empty table over drivers, none of which has answered yet: what each reads from, and whether this host needs it ([`crate::config::Config::drivers`]).
    pub fn new(drivers: Vec<(Source, bool)>, inventory: ComputeInventory, files: Arc<Files>) -> Table {
        let (sources, needed): (Vec<Source>, Vec<bool>) = drivers.into_iter().unzip();
        let inner = Inner {
            entries: BTreeMap::new(),
            sharers: peers::Sharers::default(),
            files,
            synced: false,
            over: BTreeSet::new(),
            answers: vec![false; sources.len()],
            needed,
            sources,
            reads: BTreeMap::new(),
            inventory,
            glances: 0,
            look: Look::default(),
            gone: news::Gone::default(),
        };
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
        inner.look.at_everything();
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
    pub fn remove(&self, uids: &[NodeUid], labs: &[LabUid], traceparent: &str) -> Vec<(NodeUid, Removal)> {
        let mut inner = self.lock();
        let of_labs = inner.entries.iter().filter(|(_, e)| labs.contains(&e.lab_uid)).map(|(uid, _)| *uid);
        let all: BTreeSet<NodeUid> = of_labs.chain(uids.iter().copied()).collect();
        let everything_seen = inner.sees_all();
        let mut answers = Vec::new();
        for uid in all {
            let (sender, receiver) = oneshot::channel();
            answers.push((uid, receiver));
            let of_driver = inner.entries.get(&uid).map(|e| (inner.answers[e.driver], inner.sees(e.driver)));
            let Some(entry) = inner.entries.get_mut(&uid) else {
                let _ = sender.send(if everything_seen { Ok(()) } else { silent() });
                continue;
            };
            match of_driver {
                Some((false, false)) => {
                    let _ = sender.send(silent());
                    continue;
                }
                // What runs it is not on this host, so nothing was made of it.
                Some((false, true)) => {
                    entry.wish = Wish::Unsaid;
                    let _ = sender.send(Ok(()));
                    self.settle_entry(&mut inner, uid);
                    continue;
                }
                _ => {}
            }
            entry.waiters.push(sender);
            entry.wish = Wish::Gone;
            entry.memory.renew();
            entry.traceparent = traceparent.to_owned();
            self.settle_entry(&mut inner, uid);
        }
        answers
    }

    /// These have no lease any more: they are stopped, whatever was said of them. When the lease of one goes on again, the slice counts for nothing until the next Sync: it may be elsewhere by now.
    pub fn leases_are_over(&self, over: BTreeSet<NodeUid>) {
        let mut inner = self.lock();
        if inner.over == over {
            return;
        }
        let (ended, back) = (over.difference(&inner.over).count(), inner.over.difference(&over));
        if ended > 0 {
            tracing::warn!(
                instances = ended,
                "leases are over, since no scheduler was heard: what had them is stopped"
            );
        }
        if back.filter(|uid| inner.entries.contains_key(*uid)).count() > 0 {
            tracing::info!("leases go on again: what is to run is not known until the scheduler says so");
            inner.synced = false;
        }
        inner.over = over;
        inner.look.at_everything();
        inner.retell();
        let _ = self.told.send(Told::Everything);
        self.wake.notify_one();
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
        let entry = inner.entry(uid, found.lab_uid, driver);
        let other = entry.found.as_ref().is_some_and(|f| f.id != found.id);
        if glance < entry.glance || (other && glance == entry.glance) {
            return false;
        }
        entry.glance = glance;
        entry.driver = driver;
        entry.remember(|record| record.saw(&found));
        if let Process::Ended { code, .. } = found.process {
            let is_stopped = matches!(entry.doing, Some(Step::Stop | Step::Halt));
            let asked = match &entry.wish {
                Wish::Keep(i) => Some(i.wanted != Wanted::Running || is_stopped),
                // It is judged when something is said of it; what is removed needs no memory.
                Wish::Unsaid | Wish::Gone => is_stopped.then_some(true),
            };
            if let Some(asked) = asked {
                entry.remember(|record| record.judge(&found, asked));
            }
            // It ran, and nobody saw it.
            if entry.memory.ended.as_ref().is_some_and(|start| *start != found.start_id) {
                entry.began();
            }
            entry.memory.ended(&found.start_id, found.ran, code, asked.unwrap_or(true), Instant::now());
        }
        if matches!(found.process, Process::Running { .. }) {
            entry.began();
            if entry.exec.start_id != found.start_id {
                entry.exec = exec();
                if found.prepared {
                    entry.exec.was_prepared();
                }
                if let Some(instance) = entry.instance().cloned() {
                    entry.exec.advance(Asked::of(&instance));
                }
            }
        }
        let id = found.id.clone();
        entry.found = Some(found);
        inner.gone.forget(&id);
        self.settle_entry(&mut inner, uid);
        true
    }

    /// The instance with this id was looked for and is not there. Answers which node it was.
    pub fn not_seen(&self, id: &str, glance: u64) -> Option<NodeUid> {
        let mut inner = self.lock();
        let is_it = |e: &Entry| e.glance <= glance && e.found.as_ref().is_some_and(|f| f.id == id);
        inner.gone.note(id);
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
        inner.needed[driver] |= answers;
        inner.look.at_everything();
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

    /// This is what the host has and can do now.
    pub fn has(&self, inventory: ComputeInventory) {
        let mut inner = self.lock();
        if inner.inventory != inventory {
            inner.inventory = inventory;
            let _ = self.told.send(Told::Inventory);
        }
    }

    /// What a driver reads from answers, and changed in no way that was not told.
    pub fn was_read(&self, driver: usize) {
        let mut inner = self.lock();
        let source = inner.sources[driver];
        inner.reads.insert(source, Instant::now());
    }

    // ---- what is told

    /// When each source was last read, or known to answer.
    pub fn reads(&self) -> BTreeMap<Source, Instant> {
        self.lock().reads.clone()
    }

    /// Everything, and all changes from then on.
    pub fn observe(&self) -> (Snapshot, broadcast::Receiver<Told>) {
        let inner = self.lock();
        (inner.snapshot(), self.told.subscribe())
    }

    /// All changes from now on.
    pub fn changes(&self) -> broadcast::Receiver<Told> {
        self.told.subscribe()
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

    /// How often an instance of the slice was wiped.
    pub fn wipes(&self, uid: NodeUid) -> u64 {
        self.lock().entries.get(&uid).and_then(|entry| Some(entry.instance()?.wipes)).unwrap_or(0)
    }

    /// It is in the slice, or exists and is not to be removed.
    pub fn is_known(&self, uid: NodeUid) -> bool {
        let inner = self.lock();
        inner.entries.get(&uid).is_some_and(|e| match e.wish {
            Wish::Keep(_) => true,
            Wish::Unsaid => e.found.is_some(),
            Wish::Gone => false,
        })
    }

    /// Writes what is to be remembered of an entry, tells what changed of it, drops it when nothing is left of it, and wakes the reconciler.
    fn settle_entry(&self, inner: &mut Inner, uid: NodeUid) {
        let Some(entry) = inner.entries.get_mut(&uid) else { return };
        if entry.is_nothing() {
            inner.entries.remove(&uid);
            let _ = self.told.send(Told::Gone(uid));
        } else {
            entry.save(&inner.files, uid);
        }
        self.tell(inner, uid);
        inner.look.changed(uid);
        for sharer in inner.sharers.of(uid) {
            self.tell(inner, sharer);
            inner.look.changed(sharer);
        }
        self.wake.notify_one();
    }

    fn tell(&self, inner: &mut Inner, uid: NodeUid) {
        let Some(observed) = inner.entries.get(&uid).map(|e| inner.observed(uid, e)) else { return };
        if let Some(entry) = inner.entries.get_mut(&uid).filter(|e| e.told.as_ref() != Some(&observed)) {
            entry.told = Some(observed.clone());
            let _ = self.told.send(Told::Changed(Box::new(observed)));
        }
    }
}

impl Inner {
    fn entry(&mut self, uid: NodeUid, lab_uid: LabUid, driver: usize) -> &mut Entry {
        let files = &self.files;
        let new = || Entry::new(lab_uid, driver, Record::load(files, lab_uid, uid));
        self.entries.entry(uid).or_insert_with(new)
    }

    fn keep(&mut self, driver: usize, instance: Instance, traceparent: &str) {
        self.sharers.note(&instance);
        let (uid, files) = (instance.uid, self.files.clone());
        let entry = self.entry(uid, instance.lab_uid, driver);
        entry.keep(driver, instance, traceparent);
        entry.save(&files, uid);
    }

    fn observed(&self, uid: NodeUid, entry: &Entry) -> Observed {
        let source = self.answers[entry.driver].then(|| self.sources[entry.driver]);
        entry.observed(uid, source, self.over.contains(&uid), self.peer_of(uid).as_ref())
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            instances: self.entries.iter().map(|(uid, e)| self.observed(*uid, e)).collect(),
            inventory: self.inventory.clone(),
            synced: self.synced,
        }
    }

    fn forget_gone(&mut self) {
        self.entries.retain(|_, e| !e.is_nothing());
        let entries = &self.entries;
        self.sharers.keep(|uid| entries.contains_key(uid));
    }

    fn retell(&mut self) {
        let now: Vec<Observed> = self.entries.iter().map(|(uid, e)| self.observed(*uid, e)).collect();
        for (entry, observed) in self.entries.values_mut().zip(now) {
            entry.told = Some(observed);
        }
    }
}

fn silent() -> Result<(), String> {
    Err("its runtime does not answer".to_owned())
}
