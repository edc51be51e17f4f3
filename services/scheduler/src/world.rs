//! What the hosts last said, in memory. Observers write it, everything else reads it.
//!
//! Nothing of this is believed longer than the host is heard of. What changes marks its lab as dirty and wakes the keeper of the rows
//! ([`crate::observer`]).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use netloom_model::id::{HostId, LabUid, NodeUid, WireId};
use netloom_model::observed::{
    Carried, ComputeInventory, NetworkInventory, Observed, ObservedNic, ObservedSegment, ObservedWire, Source,
};
use netloom_model::plan::Unplaced;
use netloom_model::shared::Shared;
use netloom_model::state::Runtime;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::bells::Bells;
use crate::place::Images;
use crate::policy::HostPolicy;
use crate::rows::{Drain, Resources, now_us};

/// Whether a host's service is heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Heard {
    /// Not since this scheduler started, and it was not given up yet.
    #[default]
    NotYet,
    /// It is.
    Yes,
    /// It was given up.
    Lost,
}

/// What a host's compute service said.
#[derive(Debug, Clone, Default)]
pub struct ComputeView {
    /// Whether it is heard of.
    pub heard: Heard,
    /// When it last was.
    pub heard_us: i64,
    /// What it said last that its leases are renewed with; empty when it keeps none.
    pub beat: String,
    /// How far the host's clock is ahead of this machine's; less than 0 when it is behind.
    pub ahead_us: i64,
    /// When each of its sources was last read, or known to answer.
    pub reads: BTreeMap<Source, i64>,
    /// Grows with each snapshot that asks for a new Sync.
    pub epoch: u64,
    /// Its instances.
    pub instances: HashMap<NodeUid, Shared<Observed>>,
    /// What it can do.
    pub inventory: ComputeInventory,
}

/// What a host's network service said.
#[derive(Debug, Clone, Default)]
pub struct NetworkView {
    /// Whether it is heard of.
    pub heard: Heard,
    /// When it last was.
    pub heard_us: i64,
    /// When each of its sources was last read, or known to answer.
    pub reads: BTreeMap<Source, i64>,
    /// Grows with each snapshot that asks for a new Sync.
    pub epoch: u64,
    /// Its NICs.
    pub nics: HashMap<WireId, ObservedNic>,
    /// Its wires.
    pub wires: HashMap<WireId, ObservedWire>,
    /// What its wires carried. Kept here alone: it changes all the time.
    pub carried: HashMap<WireId, Carried>,
    /// Its segments.
    pub segments: HashMap<WireId, ObservedSegment>,
    /// What exists there and is not in its slice.
    pub unwanted: BTreeSet<WireId>,
    /// What it can do.
    pub inventory: NetworkInventory,
}

/// What a service of a host will not take of a lab, however often it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The rows' revision that was told.
    pub revision: u64,
    /// What it said.
    pub why: String,
}

/// What a host said.
#[derive(Debug, Clone, Default)]
pub struct HostView {
    /// What its services refuse for good, by service and lab.
    pub refused: HashMap<(&'static str, LabUid), Refusal>,
    /// Its compute service.
    pub compute: ComputeView,
    /// Its network service.
    pub network: NetworkView,
    /// True while it takes no new nodes.
    pub cordoned: bool,
    /// What its administrator says of it.
    pub policy: HostPolicy,
    /// What it had of images when it was last asked.
    pub images: Arc<Images>,
    /// What it had when it was last written down, by whoever led then.
    pub had: Resources,
    /// Whether it was known how large its disk is.
    pub had_disk: bool,
    /// Set while what is on it moves away.
    pub drain: Option<Drain>,
    /// Nodes of labs that stay on it all the same, and why.
    pub stay: BTreeMap<LabUid, Vec<Unplaced>>,
    /// When one of its services was last heard of, or first listened to, by a clock that is never set.
    pub heard_at: Option<Instant>,
}

impl HostView {
    /// A host that is listened to from now on.
    fn begun(cordoned: bool, drain: Option<Drain>) -> HostView {
        HostView { cordoned, drain, heard_at: Some(Instant::now()), ..HostView::default() }
    }

    /// What it has as far as is known, and whether that is so of its disk; nothing of one that never said anything.
    pub fn has(&self) -> (Resources, bool) {
        if self.compute.heard_us == 0 {
            return (self.had, self.had_disk);
        }
        let has = &self.compute.inventory;
        (amounts(has), has.disk_bytes.is_some())
    }

    /// True when both services are heard of.
    pub fn is_heard(&self) -> bool {
        self.compute.heard == Heard::Yes && self.network.heard == Heard::Yes
    }

    /// When the service that was heard of longer ago was; 0 when one never was.
    pub fn heard_us(&self) -> i64 {
        self.compute.heard_us.min(self.network.heard_us)
    }

    /// For how long nothing was heard of it since this scheduler leads: what a former one heard, it does not know.
    pub fn silent(&self) -> Duration {
        self.heard_at.map_or(Duration::ZERO, |at| at.elapsed())
    }

    /// True while one of them may still be heard of for the first time.
    pub fn is_awaited(&self) -> bool {
        self.compute.heard != Heard::Lost
            && self.network.heard != Heard::Lost
            && (self.compute.heard == Heard::NotYet || self.network.heard == Heard::NotYet)
    }
}

fn amounts(has: &ComputeInventory) -> Resources {
    Resources {
        cpu_millis: has.cpu_millis,
        memory_bytes: has.memory_bytes,
        disk_bytes: has.disk_bytes.unwrap_or_default(),
    }
}

/// What rows may no longer be in step with what hosts said.
#[derive(Debug, Default)]
pub struct Dirty {
    /// Everything on these hosts.
    pub hosts: BTreeSet<HostId>,
    /// These labs.
    pub labs: BTreeSet<LabUid>,
    /// The labs of these wires.
    pub wires: BTreeSet<WireId>,
    /// True when what hosts can do changed, or whether they are heard of.
    pub room: bool,
    /// Hosts of which that changed what is written down of them.
    pub told: BTreeSet<HostId>,
}

/// What a service's word changed of what is known of its host.
#[derive(Debug, Clone, Copy, Default)]
pub struct News {
    /// Anything on it may be otherwise.
    pub all: bool,
    /// What it can do is.
    pub inventory: bool,
    /// Something that it has is.
    pub some: bool,
}

impl News {
    fn is_any(self) -> bool {
        self.all || self.inventory || self.some
    }
}

/// A lab's rows at a host's service, by what was acknowledged.
type Pushed = HashMap<(HostId, &'static str, LabUid), u64>;

/// What all hosts said.
#[derive(Debug)]
pub struct World {
    hosts: Mutex<BTreeMap<HostId, HostView>>,
    dirty: Mutex<Dirty>,
    pushed: Mutex<Pushed>,
    left: Mutex<BTreeMap<(LabUid, HostId), String>>,
    cleaned: Mutex<BTreeSet<(LabUid, HostId)>>,
    given_up: Mutex<BTreeMap<HostId, String>>,
    changed: watch::Sender<u64>,
    bells: Bells,
    answers: watch::Sender<u64>,
    kept: watch::Sender<u64>,
}

impl World {
    /// A world of these hosts, none of them heard of yet.
    pub fn new(hosts: impl Iterator<Item = HostId>) -> World {
        World {
            hosts: Mutex::new(hosts.map(|h| (h, HostView::begun(false, None))).collect()),
            dirty: Mutex::default(),
            pushed: Mutex::default(),
            left: Mutex::default(),
            cleaned: Mutex::default(),
            given_up: Mutex::default(),
            changed: watch::Sender::new(0),
            bells: Bells::default(),
            answers: watch::Sender::new(0),
            kept: watch::Sender::new(0),
        }
    }

    /// Looks at what the hosts said.
    pub fn read<T>(&self, look: impl FnOnce(&BTreeMap<HostId, HostView>) -> T) -> T {
        look(&self.hosts.lock().expect("no holder panics"))
    }

    /// Looks at one host.
    pub fn host<T>(&self, host: &HostId, look: impl FnOnce(&HostView) -> T) -> Option<T> {
        self.read(|hosts| hosts.get(host).map(look))
    }

    /// A host that may be heard of from now on.
    pub fn add(&self, host: &HostId, cordoned: bool, drain: Option<Drain>) {
        let view = HostView::begun(cordoned, drain);
        self.hosts.lock().expect("no holder panics").entry(host.clone()).or_insert(view);
        self.mark(|dirty| dirty.room = true);
    }

    /// Forgets a host, and all it said.
    pub fn remove(&self, host: &HostId) {
        self.hosts.lock().expect("no holder panics").remove(host);
        self.bells.forget_unheard();
        self.left.lock().expect("no holder panics").retain(|(_, h), _| h != host);
        self.pushed.lock().expect("no holder panics").retain(|(h, _, _), _| h != host);
        self.mark(|dirty| dirty.room = true);
    }

    /// Notes that a host takes no new nodes, and whether what is on it moves away; or that it takes nodes again.
    pub fn set_cordoned(&self, host: &HostId, cordoned: bool, drain: Option<Drain>) {
        self.update(host, |view, dirty| {
            (view.cordoned, view.drain) = (cordoned, drain);
            view.stay.clear();
            dirty.room = true;
            true
        });
    }

    /// Notes what is said of a host.
    pub fn set_policy(&self, host: &HostId, policy: HostPolicy) {
        self.update(host, |view, dirty| {
            view.policy = policy;
            dirty.room = true;
            true
        });
    }

    /// Notes what a host had when a former scheduler wrote it down.
    pub fn set_had(&self, host: &HostId, had: &ComputeInventory) {
        self.update(host, |view, _| {
            (view.had, view.had_disk) = (amounts(had), had.disk_bytes.is_some());
            false
        });
    }

    /// Notes which images a host has, as it says, or has no more.
    pub fn note_images(&self, host: &HostId, said: impl IntoIterator<Item = (Runtime, String, bool)>) {
        self.update(host, |view, _| {
            let images = Arc::make_mut(&mut view.images);
            for (runtime, reference, is_there) in said {
                let of_runtime = images.entry(runtime).or_default();
                if is_there {
                    of_runtime.insert(reference);
                } else {
                    of_runtime.remove(&reference);
                }
            }
            false
        });
    }

    /// The hosts that are drained, and how.
    pub fn drained(&self) -> BTreeMap<HostId, Drain> {
        self.read(|hosts| hosts.iter().filter_map(|(id, view)| Some((id.clone(), view.drain?))).collect())
    }

    /// Notes which nodes of a lab stay on a host that is drained or silent, and why; none when nothing of it is there any more.
    pub fn stay(&self, host: &HostId, lab: LabUid, nodes: Option<Vec<Unplaced>>) {
        self.update(host, |view, _| {
            match nodes.filter(|nodes| !nodes.is_empty() && (view.drain.is_some() || !view.is_heard())) {
                Some(nodes) => drop(view.stay.insert(lab, nodes)),
                None => drop(view.stay.remove(&lab)),
            }
            false
        });
    }

    /// Wakes at each change.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Wakes at each change of this host.
    pub fn subscribe_to(&self, host: &HostId) -> watch::Receiver<()> {
        self.bells.listen(host)
    }

    /// Wakes when a host acknowledges what it was told of a lab, or refuses it.
    pub fn subscribe_answers(&self) -> watch::Receiver<u64> {
        self.answers.subscribe()
    }

    /// Says that the rows are in step with the world as it was at this change.
    pub fn kept(&self, change: u64) {
        self.kept.send_replace(change);
    }

    /// Waits until the rows are in step with the world as it is now.
    pub async fn until_kept(&self) {
        let now = *self.changed.borrow();
        // The sender lives as long as this world does.
        let _ = self.kept.subscribe().wait_for(|kept| *kept >= now).await;
    }

    /// When the host heard of longest ago, of these, was last heard of; 0 when there is none.
    pub fn heard_us<'a>(&self, of: impl Iterator<Item = &'a HostId>) -> i64 {
        self.read(|hosts| of.filter_map(|h| hosts.get(h).map(HostView::heard_us)).min().unwrap_or(0))
    }

    /// When the sources of what is told of something on a host were last read, by the oldest of them; when the host was last heard of, where none is told. 0 when never.
    pub fn read_us(&self, host: Option<&HostId>, sources: &[Source]) -> i64 {
        let of = |view: &HostView| {
            let at = |s: &Source| view.compute.reads.get(s).or_else(|| view.network.reads.get(s)).copied();
            sources.iter().filter_map(at).min()
        };
        let read = host.and_then(|host| self.host(host, of)).flatten();
        read.unwrap_or_else(|| self.heard_us(host.into_iter()))
    }

    /// Takes what is dirty.
    pub fn take_dirty(&self) -> Dirty {
        std::mem::take(&mut *self.dirty.lock().expect("no holder panics"))
    }

    /// Marks things as dirty, and wakes.
    pub fn mark(&self, mark: impl FnOnce(&mut Dirty)) {
        mark(&mut self.dirty.lock().expect("no holder panics"));
        self.changed.send_modify(|n| *n += 1);
    }

    fn update(&self, host: &HostId, change: impl FnOnce(&mut HostView, &mut Dirty) -> bool) {
        let changed = {
            let mut hosts = self.hosts.lock().expect("no holder panics");
            let mut dirty = self.dirty.lock().expect("no holder panics");
            hosts.get_mut(host).is_some_and(|view| change(view, &mut dirty))
        };
        if changed {
            self.changed.send_modify(|n| *n += 1);
            self.bells.ring(host);
        }
    }

    /// Compute said something.
    pub fn compute(&self, host: &HostId, change: impl FnOnce(&mut ComputeView, &mut Dirty) -> News) {
        self.update(host, |view, dirty| {
            let first = view.compute.heard != Heard::Yes;
            let news = change(&mut view.compute, dirty);
            view.compute.heard = Heard::Yes;
            view.compute.heard_us = now_us();
            view.heard_at = Some(Instant::now());
            if view.drain.is_none() {
                view.stay.clear();
            }
            if first || news.inventory {
                dirty.room = true;
                dirty.told.insert(host.clone());
            }
            if first || news.all {
                dirty.hosts.insert(host.clone());
            }
            first || news.is_any()
        });
    }

    /// Network said something.
    pub fn network(&self, host: &HostId, change: impl FnOnce(&mut NetworkView, &mut Dirty) -> News) {
        self.update(host, |view, dirty| {
            let first = view.network.heard != Heard::Yes;
            let news = change(&mut view.network, dirty);
            view.network.heard = Heard::Yes;
            view.network.heard_us = now_us();
            view.heard_at = Some(Instant::now());
            if first || news.inventory {
                dirty.room = true;
                dirty.told.insert(host.clone());
            }
            // Links to other hosts go by what it can do.
            if first || news.all || news.inventory {
                dirty.hosts.insert(host.clone());
            }
            first || news.is_any()
        });
    }

    /// A host's service was given up.
    pub fn lost(&self, host: &HostId, service: &'static str) {
        self.update(host, |view, dirty| {
            let heard = if service == crate::client::COMPUTE {
                &mut view.compute.heard
            } else {
                &mut view.network.heard
            };
            if *heard == Heard::Lost {
                return false;
            }
            tracing::warn!(%host, service, "not heard of any more: what it told is unknown");
            *heard = Heard::Lost;
            dirty.hosts.insert(host.clone());
            dirty.told.insert(host.clone());
            dirty.room = true;
            true
        });
    }

    /// A host acknowledged everything of a lab, as of this revision of the rows.
    pub fn acknowledged(&self, host: &HostId, service: &'static str, lab: LabUid, revision: u64) {
        let before =
            self.pushed.lock().expect("no holder panics").insert((host.clone(), service, lab), revision);
        if before != Some(revision) {
            self.answers.send_modify(|n| *n += 1);
        }
    }

    /// Notes that a host's service refuses for good what was told of a lab, or (none) that it took it.
    pub fn refused(&self, host: &HostId, service: &'static str, lab: LabUid, refusal: Option<Refusal>) {
        self.update(host, |view, dirty| {
            let why = |r: &Option<Refusal>| r.as_ref().map(|r| r.why.clone());
            let is_news = refusal.is_some();
            let key = (service, lab);
            let now = why(&refusal);
            let before = match refusal {
                Some(refusal) => view.refused.insert(key, refusal),
                None => view.refused.remove(&key),
            };
            if why(&before) != now {
                dirty.labs.insert(lab);
            }
            is_news || before.is_some()
        });
        self.answers.send_modify(|n| *n += 1);
    }

    /// What a host refuses for good of this revision of a lab's rows or a later one, with the service and the host.
    pub fn refusal(&self, lab: LabUid, revision: u64) -> Option<(HostId, &'static str, Refusal)> {
        self.read(|hosts| {
            let all = hosts.iter().flat_map(|(host, view)| view.refused.iter().map(move |r| (host, r)));
            let found = all
                .filter(|(_, ((_, l), r))| *l == lab && r.revision >= revision)
                .min_by_key(|(_, (k, _))| k.0);
            found.map(|(host, ((service, _), refusal))| (host.clone(), *service, refusal.clone()))
        })
    }

    /// True when a host acknowledged everything of a lab as of this revision or a later one.
    pub fn has_acknowledged(&self, host: &HostId, service: &'static str, lab: LabUid, revision: u64) -> bool {
        let pushed = self.pushed.lock().expect("no holder panics");
        pushed.get(&(host.clone(), service, lab)).is_some_and(|r| *r >= revision)
    }

    /// Notes why the files and networks of a lab that is being removed are still on a host, or (none) that they are not; says whether that is news.
    pub fn note_left(&self, lab: LabUid, host: &HostId, why: Option<String>) -> bool {
        let mut left = self.left.lock().expect("no holder panics");
        let before = match why.clone() {
            Some(why) => left.insert((lab, host.clone()), why),
            None => left.remove(&(lab, host.clone())),
        };
        before != why
    }

    /// Notes that files and networks of a lab are being removed from a host, for as long as what it returns is kept: none may be put there meanwhile.
    pub fn clean(&self, lab: LabUid, host: &HostId) -> Cleaned<'_> {
        let of = (lab, host.clone());
        self.cleaned.lock().expect("no holder panics").insert(of.clone());
        Cleaned { world: self, of }
    }

    /// Notes that nodes of a silent host are being made anew elsewhere, or are no longer. Meanwhile it counts for nothing what it says: see [`World::beat`].
    pub fn give_up(&self, host: &HostId, does: bool) {
        let mut given_up = self.given_up.lock().expect("no holder panics");
        let last = || self.host(host, |view| view.compute.beat.clone()).unwrap_or_default();
        if does { drop(given_up.insert(host.clone(), last())) } else { drop(given_up.remove(host)) }
    }

    /// What a host said last that its leases are renewed with; while nodes of it are being made anew elsewhere, what it had said before. Empty where it keeps none.
    pub fn beat(&self, host: &HostId) -> String {
        let given_up = self.given_up.lock().expect("no holder panics");
        let last = || self.host(host, |view| view.compute.beat.clone()).unwrap_or_default();
        given_up.get(host).cloned().unwrap_or_else(last)
    }

    /// True while files and networks of a lab are being removed from a host.
    pub fn is_cleaned(&self, lab: LabUid, host: &HostId) -> bool {
        self.cleaned.lock().expect("no holder panics").contains(&(lab, host.clone()))
    }

    /// Why files and networks of a lab that is being removed are still on hosts; empty when they are on none, or nothing went wrong.
    pub fn left_of(&self, lab: LabUid) -> String {
        let left = self.left.lock().expect("no holder panics");
        let of_lab = left.iter().filter(|((l, _), _)| *l == lab);
        let words = of_lab.map(|((_, host), why)| {
            format!("the lab's files or networks on host {host} could not be removed, tried again: {why}")
        });
        words.collect::<Vec<_>>().join("; ")
    }

    /// Forgets a lab that is gone.
    pub fn forget(&self, lab: LabUid) {
        for view in self.hosts.lock().expect("no holder panics").values_mut() {
            view.refused.retain(|(_, l), _| *l != lab);
            view.stay.remove(&lab);
        }
        self.left.lock().expect("no holder panics").retain(|(l, _), _| *l != lab);
        self.pushed.lock().expect("no holder panics").retain(|(_, _, l), _| *l != lab);
    }
}

/// Kept while files and networks of a lab are being removed from a host.
pub struct Cleaned<'w> {
    world: &'w World,
    of: (LabUid, HostId),
}

impl Drop for Cleaned<'_> {
    fn drop(&mut self) {
        self.world.cleaned.lock().expect("no holder panics").remove(&self.of);
    }
}
