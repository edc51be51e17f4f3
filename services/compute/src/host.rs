//! The host: what the calls of the contract do, and what all parts share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use netloom_model::Failure;
use netloom_model::id::{LabUid, NodeUid};
use netloom_model::kind::Catalogue;
use netloom_model::observed::StagePoint;
use netloom_model::slice::Instance;
use netloom_model::state::Runtime;
use netloom_service::fence::Fence;
use netloom_service::order::Decision;
use netloom_service::telemetry::traceparent;
use netloom_service::{Shutdown, fail_point, ticket};
use tokio::sync::Semaphore;

use crate::driver::{Driver, Found, NetworkOf, Process};
use crate::error::Error;
use crate::exec_runs::ExecRuns;
use crate::files::Files;
use crate::holds::Holds;
use crate::images::Images;
use crate::lease::Lease;
use crate::netns::Netns;
use crate::pins::Pins;
use crate::slice::{Object, Turn};
use crate::table::{Removal, Table};

/// So many are stopped at once: each may take its whole time to end.
const STOPS_AT_ONCE: usize = 64;

/// So long after the last file came to it, a lab that nothing on this host belongs to is taken for gone: files come before instances, and images are pulled in between.
const UNUSED: Duration = Duration::from_secs(3600);

/// How soon an instance is looked at again that could not be handed over to the network service.
const AGAIN: Duration = Duration::from_secs(1);

/// See the module.
pub struct Host {
    /// What runs instances, in order of preference.
    pub drivers: Vec<Arc<dyn Driver>>,
    /// What is wanted and seen.
    pub table: Table,
    /// Files of labs and nodes.
    pub files: Arc<Files>,
    /// Images from the registry's store.
    pub images: Arc<Images>,
    /// Markers of exec commands.
    pub exec_runs: ExecRuns,
    /// What is handed over to the network service; none where no driver has any of it.
    pub netns: Option<Arc<Netns>>,
    /// Files of labs that are mounted into nodes; none where no driver mounts any.
    pub pins: Option<Arc<Pins>>,
    /// Nodes that are worked on.
    pub holds: Holds,
    /// Turns of work, by driver.
    pub turns: Vec<Semaphore>,
    /// Turns of stopping.
    pub stops: Semaphore,
    /// Ends everything.
    pub shutdown: Shutdown,
    fence: Fence,
    lease: Lease,
    /// Calls that change what is wanted pass one at a time: one that was overtaken must not take effect after the other.
    turn: Mutex<Turn>,
    /// Nodes that were removed before anything was made of them: what still comes of their disks is too late.
    unmade: Mutex<BTreeSet<NodeUid>>,
    ticket_key: Mutex<Vec<u8>>,
    kinds: Catalogue,
}

/// What was asked to leave.
struct Leaving {
    /// Of these nothing was made.
    unmade: Vec<NodeUid>,
    /// What comes of the others.
    answers: Vec<(NodeUid, Removal)>,
}

/// A running instance that a ticket opened.
pub struct Opened {
    /// The node.
    pub uid: NodeUid,
    /// Its own id, for people.
    pub node: String,
    /// What runs it.
    pub driver: Arc<dyn Driver>,
    /// The container's or domain's own id.
    pub id: String,
    /// What is asked of it; none where that is not known.
    pub instance: Option<Arc<Instance>>,
    /// The shell of its kind.
    pub shell: Vec<String>,
}

/// Something that could not be removed, and why.
pub struct NotRemoved {
    /// The uid.
    pub uid: String,
    /// Why.
    pub message: String,
}

impl Host {
    /// A host that was told nothing yet.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        drivers: Vec<Arc<dyn Driver>>,
        table: Table,
        files: Arc<Files>,
        images: Arc<Images>,
        exec_runs: ExecRuns,
        netns: Option<Arc<Netns>>,
        pins: Option<Arc<Pins>>,
        fence: Fence,
        lease: Lease,
        kinds: Catalogue,
        shutdown: Shutdown,
    ) -> Host {
        Host {
            turns: drivers.iter().map(|driver| Semaphore::new(driver.at_once())).collect(),
            drivers,
            table,
            files,
            images,
            exec_runs,
            netns,
            pins,
            holds: Holds::default(),
            stops: Semaphore::new(STOPS_AT_ONCE),
            shutdown,
            fence,
            lease,
            turn: Mutex::default(),
            unmade: Mutex::default(),
            ticket_key: Mutex::default(),
            kinds,
        }
    }

    /// Lets a call of this term pass, or refuses it.
    pub fn admit(&self, term: u64) -> Result<(), Error> {
        Ok(self.fence.admit(term)?)
    }

    /// The same for one that changes what is wanted, when it is its turn.
    fn turn(&self, of: Decision) -> Result<MutexGuard<'_, Turn>, Error> {
        let turn = self.turn.lock().expect("no holder panics");
        self.admit(of.term)?;
        Ok(turn)
    }

    /// Takes the whole slice, or a part of it.
    pub fn sync(
        self: &Arc<Self>,
        of: Decision,
        beat: &str,
        part: Vec<Instance>,
        ticket_key: Vec<u8>,
        more: bool,
    ) -> Result<(), Error> {
        let mut turn = self.turn(of)?;
        turn.order.admit_all(of)?;
        if !ticket_key.is_empty() {
            *self.ticket_key.lock().expect("no holder panics") = ticket_key;
        }
        if let Some(slice) = turn.parts.add(of, part, more) {
            self.lease.keep(beat, &slice, true)?;
            tracing::info!(instances = slice.len(), term = of.term, "slice synced");
            self.look_at_leases();
            self.table.sync(self.with_drivers(slice), &traceparent());
            self.sweep();
        }
        Ok(())
    }

    /// What is said with each word of this host.
    pub fn beat(&self) -> String {
        self.lease.beat()
    }

    /// Whoever leads heard the word with this beat: leases go on from there.
    pub fn renew(&self, term: u64, beat: &str) -> Result<(), Error> {
        self.admit(term)?;
        // What is over is stopped, however soon leases go on.
        self.look_at_leases();
        self.lease.renew(beat);
        self.look_at_leases();
        Ok(())
    }

    /// Has what has no lease any more stopped.
    pub fn look_at_leases(&self) {
        self.table.leases_are_over(self.lease.over());
    }

    /// Adds or changes instances.
    pub fn ensure(&self, of: Decision, beat: &str, instances: Vec<Instance>) -> Result<(), Error> {
        let mut turn = self.turn(of)?;
        turn.order.admit(of, instances.iter().flat_map(Object::of))?;
        self.lease.keep(beat, &instances, false)?;
        self.look_at_leases();
        self.table.ensure(self.with_drivers(instances), &traceparent());
        Ok(())
    }

    /// Removes instances, and all that labs have; answers when they are gone.
    pub async fn remove(
        &self,
        of: Decision,
        uids: Vec<NodeUid>,
        labs: Vec<LabUid>,
    ) -> Result<Vec<NotRemoved>, Error> {
        let Leaving { unmade, answers } = self.begin_removal(of, &uids, &labs)?;
        let mut failures = Vec::new();
        let mut asked = BTreeSet::new();
        for (uid, answer) in answers {
            asked.insert(uid);
            match answer.await {
                Ok(Ok(())) => {}
                Ok(Err(message)) => failures.push(NotRemoved { uid: uid.to_string(), message }),
                Err(_) => failures
                    .push(NotRemoved { uid: uid.to_string(), message: "this service is ending".to_owned() }),
            }
        }
        for uid in unmade {
            if failures.iter().any(|f: &NotRemoved| f.uid == uid.to_string()) {
                continue;
            }
            if let Err(e) = self.forget_disk(uid).await {
                failures.push(NotRemoved { uid: uid.to_string(), message: e.to_string() });
            }
        }
        self.lease.forget(|uid| asked.contains(uid) && !self.table.is_known(*uid))?;
        for lab in labs {
            // It may have come back here while what left was being stopped.
            self.turn(of)?.order.admit(of, [Object::Lab(lab)])?;
            if let Err(e) = self.remove_lab(lab, failures.is_empty()).await {
                failures.push(NotRemoved { uid: lab.to_string(), message: e.to_string() });
            }
        }
        Ok(failures)
    }

    /// Has these taken away.
    fn begin_removal(&self, of: Decision, uids: &[NodeUid], labs: &[LabUid]) -> Result<Leaving, Error> {
        let mut turn = self.turn(of)?;
        let objects = uids.iter().copied().map(Object::Node);
        turn.order.admit(of, objects.chain(labs.iter().copied().map(Object::Lab)))?;
        if !self.table.synced() {
            return Err(Error::NotSynced);
        }
        let unmade = uids.iter().copied().filter(|uid| !self.table.is_known(*uid)).collect();
        Ok(Leaving { unmade, answers: self.table.remove(uids, labs, &traceparent()) })
    }

    /// Removes the disk that was brought for a node that nothing was made of.
    async fn forget_disk(&self, uid: NodeUid) -> Result<(), Error> {
        let _held = self.holds.hold(uid).await;
        for carries in self.drivers.iter().filter_map(|driver| driver.carries()) {
            self.unmade.lock().expect("no holder panics").insert(uid);
            carries.forget(uid).await?;
        }
        Ok(())
    }

    /// Refuses to take a disk for a node that was removed.
    pub fn refuse_unmade(&self, uid: NodeUid) -> Result<(), Error> {
        match self.unmade.lock().expect("no holder panics").contains(&uid) {
            true => Err(Error::Gone("the node was removed while its disk was copied".to_owned())),
            false => Ok(()),
        }
    }

    async fn remove_lab(&self, lab: LabUid, empty: bool) -> Result<(), Error> {
        if !empty {
            return Err(Error::Busy("waits until its nodes are removed".to_owned()));
        }
        fail_point::pass("compute.remove-lab", "before");
        for driver in &self.drivers {
            driver.remove_lab(lab).await?;
        }
        fail_point::pass("compute.remove-lab-files", "before");
        self.on_files(move |files| files.remove_lab(lab)).await?;
        fail_point::pass("compute.remove-lab-files", "after");
        tracing::info!(lab_uid = %lab, "lab removed from this host");
        Ok(())
    }

    /// Does something with files where it may take its time.
    pub async fn on_files<T: Send + 'static>(
        &self,
        what: impl FnOnce(&Arc<Files>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let files = self.files.clone();
        let done = tokio::task::spawn_blocking(move || what(&files)).await;
        done.map_err(|e| Error::host("work on files did not end", e))?
    }

    /// Removes, in the background, the files of labs that nothing here belongs to. Does nothing as long as it is not known what does.
    pub fn sweep(self: &Arc<Self>) {
        let Some(labs) = self.table.labs() else { return };
        let host = self.clone();
        tokio::spawn(async move {
            match host.on_files(move |files| files.sweep(&labs, UNUSED)).await {
                Ok(swept) => {
                    for lab in swept {
                        tracing::info!(lab_uid = %lab, "files of a lab that is not here any more removed");
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "files of labs that are not here any more cannot be removed")
                }
            }
        });
    }

    /// These points of starts were reached.
    pub fn settle(&self, term: u64, starts: Vec<(NodeUid, String, Vec<StagePoint>)>) -> Result<(), Error> {
        self.admit(term)?;
        for (uid, start_id, reached) in starts {
            if let Some(state) = self.table.settle(uid, &start_id, &reached, &traceparent()) {
                self.exec_runs.mark(uid, &state);
            }
        }
        Ok(())
    }

    /// The instances that would not be taken once those of the leaving nodes are gone, and why. Changes nothing.
    pub async fn check(
        &self,
        instances: Vec<Instance>,
        leaving: &BTreeSet<NodeUid>,
    ) -> Result<Vec<(NodeUid, Failure)>, Error> {
        let mut failures = Vec::new();
        let mut of_driver: BTreeMap<usize, Vec<Instance>> = BTreeMap::new();
        for instance in instances {
            if let Err(e) = self.table.refuse_taken_address(&instance, leaving) {
                failures.push((instance.uid, e.into()));
                continue;
            }
            match self.driver_of(instance.runtime) {
                Ok(driver) => of_driver.entry(driver).or_default().push(instance),
                Err(e) => failures.push((instance.uid, e.into())),
            }
        }
        for (driver, instances) in of_driver {
            let refused = self.drivers[driver].check(&instances, leaving).await?;
            failures.extend(refused.into_iter().map(|(uid, e)| (uid, e.into())));
        }
        Ok(failures)
    }

    /// Looks at an instance now, and takes note of what there is.
    pub async fn look(self: &Arc<Self>, driver: usize, id: &str) -> Result<(), Error> {
        let glance = self.table.glance_at(id);
        match self.drivers[driver].inspect(id).await? {
            Some(found) => self.seen(driver, found, glance),
            None => {
                self.table.not_seen(id, glance);
            }
        }
        Ok(())
    }

    /// Takes note that an instance is gone, as its driver has said: a look would only ask it once more.
    pub fn gone(&self, id: &str) {
        let glance = self.table.glance_at(id);
        self.table.not_seen(id, glance);
    }

    /// Looks at an instance in a while, and again until it was seen: nothing else may come that asks for a look.
    fn look_again(self: &Arc<Self>, driver: usize, id: String) {
        let host = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(AGAIN).await;
                if host.shutdown.is_cancelled() || host.look(driver, &id).await.is_ok() {
                    return;
                }
            }
        });
    }

    fn seen(self: &Arc<Self>, driver: usize, found: Found, glance: u64) {
        let (uid, start_id, id) = (found.uid, found.start_id.clone(), found.id.clone());
        let process = found.process.clone();
        // One that shares another's has nothing to hand over: its interfaces are the other's.
        let own = found.network == NetworkOf::Own;
        if let Some(netns) = self.netns.as_ref().filter(|_| own) {
            let (host, again) = (self.clone(), id.clone());
            let ended = move || {
                // What ends with this service is judged by the next one; a step under way looks by itself.
                let is_heard = !fail_point::is_deaf("compute.end");
                if is_heard && !host.shutdown.is_cancelled() && host.table.is_news(&id) {
                    tokio::spawn(async move { host.look(driver, &id).await });
                }
            };
            let outcome = match (&process, &found.machine) {
                (Process::Running { .. }, Some(machine)) => {
                    netns.publish_machine(uid, &start_id, machine, ended)
                }
                (Process::Running { pid: Some(pid) }, None) => netns.publish(uid, &start_id, *pid, ended),
                _ => Ok(false),
            };
            match outcome {
                Ok(true) => tracing::info!(%uid, start_id, "handed over to the network service"),
                Ok(false) => {}
                // What lives shorter than a look at it is told as ended, which is all there is to say.
                Err(error) if has_ended(&error) => {
                    tracing::debug!(%error, %uid, start_id, "a process ended before it was handed over")
                }
                Err(error) => {
                    tracing::warn!(%error, %uid, start_id, "it cannot be handed over to the network service");
                    // What has no namespace to hand over never will.
                    if error.kind() != std::io::ErrorKind::InvalidInput {
                        self.look_again(driver, again);
                    }
                }
            }
        }
        let fresh = self.table.seen(driver, found, glance, || self.exec_runs.load(uid, &start_id));
        if fresh && matches!(process, Process::Ended { .. }) {
            self.exec_runs.forget(uid, &start_id);
            if let Some(netns) = &self.netns {
                netns.retract(uid, &start_id);
            }
        }
    }

    /// The instance that a ticket opens for a verb.
    pub fn open(&self, uid: &str, verb: &str, token: &str) -> Result<Opened, Error> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let key = self.ticket_key.lock().expect("no holder panics").clone();
        ticket::verify(&key, uid, verb, token, now)?;
        let node = uid.parse().map_err(|_| Error::Invalid(format!("\"{uid}\" is not a uid")))?;
        let (driver, found, instance) =
            self.table.instance(node).ok_or_else(|| Error::NotRunning(uid.to_owned()))?;
        let shell = instance
            .as_deref()
            .and_then(|i| self.kinds.on(&i.spec.kind, i.runtime).map(|k| k.shell.clone()))
            .filter(|shell| !shell.is_empty())
            .unwrap_or_else(|| vec!["/bin/sh".to_owned()]);
        let driver = self.drivers[driver].clone();
        Ok(Opened { uid: node, node: found.node, driver, id: found.id, instance, shell })
    }

    /// The driver that runs this runtime.
    pub fn driver_of(&self, runtime: Runtime) -> Result<usize, Error> {
        self.drivers.iter().position(|d| d.serves(runtime)).ok_or_else(|| {
            Error::Invalid(format!("no driver of this host runs {runtime} nodes; see `drivers` of [compute]"))
        })
    }

    /// An instance that no driver runs goes to the first, where it fails by itself: it must not keep the others from being taken note of.
    fn with_drivers(&self, instances: Vec<Instance>) -> Vec<(usize, Instance)> {
        instances.into_iter().map(|i| (self.driver_of(i.runtime).unwrap_or(0), i)).collect()
    }
}

/// True for the error of a process that is no more.
fn has_ended(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotFound
        || error.raw_os_error() == Some(nix::errno::Errno::ESRCH as i32)
}
