//! Virtual machines, by libvirt.
//!
//! ```text
//!   Driver ── looks ─► connection ─► thread ─┐            identity: whose a domain is, in its metadata
//!      │                                     ├─► libvirtd  xml:      what a domain is, from its kind and its node
//!      ├───── acts ──► 8 × (connection ─► thread) ─┤      disks:    overlays on base images
//!      └── carrier ──► connection ─► thread ─┘            carrier:  links of NICs follow their taps
//!                                                         mgmt:     the NIC on the lab's management network
//!                                                         medium:   what a guest is told at its start
//!                                                         console:  who reads its serial line, and who writes
//!                                                         typed:    commands at its serial line, by a dialogue
//! ```
//!
//! Several connections, since libvirtd can take a minute to define a domain and takes seconds to end one, and neither what is seen nor carrier, nor what is done about others, must wait meanwhile; a few more that write memories to disks. A domain is defined anew at each start, so that what
//! may have changed since (its taps, its size, how guests run here) is what it starts with; its disk and its addresses stay.

mod accel;
mod carrier;
mod carry;
mod connection;
mod console;
mod dialogue;
mod disks;
mod events;
mod fat;
mod hotplug;
mod identity;
mod iso;
mod lives;
mod log;
mod machines;
mod medium;
mod mgmt;
mod nics;
mod read;
mod room;
mod snapshots;
mod tap;
mod typed;
mod xml;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{FutureExt as _, ready};
use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};
use netloom_kvm::Emulator;
use netloom_model::id::{LabUid, NodeUid, Owner, WireId};
use netloom_model::kind::{Catalogue, Startup, Vm};
use netloom_model::observed::Acceleration;
use netloom_model::slice::Instance;
use netloom_model::state::Runtime;
use netloom_service::Shutdown;
use netloom_service::handover::Machine;
use tokio_stream::wrappers::BroadcastStream;

use super::docker::DockerDriver;
use super::{
    Answer, Attach, Carries, Command, Console, Driver, Found, Image, Limits, Line, Lines, Listed, NetworkOf,
    NewSnapshot, Probe, Session, Snapshot,
};
use crate::config::Config;
use crate::error::Error;
use crate::files::Files;
use carrier::Carrier;
use connection::{Connection, Connections, Refused};
use disks::Disks;
pub use disks::has_machines;
use identity::Identity;
use lives::Lives;
use read::Reading;
use room::Room;

/// How long an answer about what there is may take.
const LOOK: Duration = Duration::from_secs(10);
/// How long a change may take: a libvirtd that asks QEMU anew what it can do takes most of a minute for each definition.
const ACT: Duration = Duration::from_secs(180);

/// So many changes are under way at once: each is mostly a wait for a QEMU to begin or to end.
const ACTS: usize = 8;
/// How often logs of consoles are looked at.
const LOGS: Duration = Duration::from_secs(2);
/// So many memories are written to disks, or read, at once: each takes all that a disk gives.
const SAVES: usize = 2;
/// How long a machine's memory may take to be written to its disk, once its turn has come.
const SAVE: Duration = Duration::from_secs(900);

/// See the module.
pub struct LibvirtDriver {
    owner: Owner,
    looks: Connection,
    /// Where it is asked whether it answers at all: behind nothing that takes its time.
    pulse: Connection,
    acts: Arc<Connections>,
    saves: Connections,
    disks: Disks,
    files: Arc<Files>,
    kinds: Catalogue,
    stop_timeout: Duration,
    accels: accel::Accels,
    lives: Arc<Lives>,
    writers: Arc<console::Writers>,
    carrier: Arc<Carrier>,
    room: Arc<Room>,
    lacks: hotplug::Lacks,
    /// Who makes management networks; none where Docker does not run here.
    networks: Option<Arc<DockerDriver>>,
    given: mgmt::Given,
    /// What names of taps that have a cable begin with: what follows is the wire's id, as in the name of every host end.
    nic_prefix: String,
}

impl LibvirtDriver {
    /// A driver that connects when it is first asked something. `nic_prefix` is the network service's.
    #[expect(clippy::too_many_arguments, reason = "each is one thing of the service that it is a part of")]
    pub fn new(
        owner: Owner,
        config: &Config,
        kinds: Catalogue,
        files: Arc<Files>,
        data_dir: &Path,
        nic_prefix: String,
        networks: Option<Arc<DockerDriver>>,
        shutdown: Shutdown,
    ) -> Result<LibvirtDriver, Error> {
        let lives = Lives::new();
        let told = lives.clone();
        let looks = Connection::hearing(&config.libvirt_uri, LOOK, move |change| told.told(change))?;
        let links = Connection::new(&config.libvirt_uri, LOOK)?;
        let acts = Arc::new(Connections::new(ACTS, &config.libvirt_uri, ACT)?);
        let disks = Disks::open(data_dir)?;
        tokio::spawn(bound_logs(lives.clone(), disks.clone(), shutdown.clone()));
        Ok(LibvirtDriver {
            owner,
            looks,
            pulse: Connection::new(&config.libvirt_uri, LOOK)?,
            room: Room::new(acts.clone(), data_dir, shutdown.clone()),
            acts,
            saves: Connections::in_turn(SAVES, &config.libvirt_uri, SAVE)?,
            disks,
            files,
            kinds,
            stop_timeout: Duration::from_secs(config.stop_timeout.into()),
            accels: accel::Accels::default(),
            writers: Arc::default(),
            carrier: Carrier::keep(links, lives.news(), shutdown),
            lives,
            lacks: hotplug::Lacks::default(),
            networks,
            given: mgmt::Given::default(),
            nic_prefix,
        })
    }

    /// How guests run here. libvirt may take most of a minute to say what runs them, so it is asked where others do not wait.
    async fn acceleration(&self) -> Result<Acceleration, Error> {
        let asked = async {
            let said = self.acts.call(|connect| connect.get_capabilities()).await;
            said.map(|said| Emulator::of_libvirt(&said)).map_err(|refused| self.acts.error(refused))
        };
        self.accels.now(asked).await
    }

    /// What its kind says of its machine.
    fn vm(&self, kind: &str) -> Result<&Vm, Error> {
        let vm = self.kinds.on(kind, Runtime::Libvirt).and_then(|k| k.vm.as_ref());
        vm.ok_or_else(|| {
            Error::Refused(format!(
                "this host has no kind {kind} of virtual machines: give it the kind's file"
            ))
        })
    }

    /// How a kind's machines take the configuration that they start with.
    fn startup(&self, kind: &str) -> &Startup {
        self.kinds.on(kind, Runtime::Libvirt).map_or(&Startup::None {}, |kind| &kind.config.startup)
    }

    /// What the network service has to know of a machine that runs.
    fn machine(&self, reading: &Reading) -> Option<Machine> {
        let machine = self.lives.machine(reading)?;
        let up = reading.nics.iter().filter(|nic| nic.up);
        let carrier = up.filter_map(|nic| WireId::from_interface_name(&self.nic_prefix, &nic.tap)).collect();
        Some(Machine { carrier, lacks: self.lacks.of(reading), ..machine })
    }

    /// Says whether this start of a machine still runs.
    fn runs(&self, reading: &Reading) -> log::Runs {
        let (lives, id, start) = (self.lives.clone(), reading.id.clone(), reading.started_ns());
        Arc::new(move || lives.runs(&id, start))
    }

    /// The machine with this id as it is now; none when there is none, or it is not ours.
    async fn reading(&self, id: &str) -> Result<Option<Reading>, Error> {
        match self.lives.dead(id).await {
            Some(dead) => Ok(Some(dead)),
            None => self.ask(id).await,
        }
    }

    /// The same, as libvirt says it.
    async fn ask(&self, id: &str) -> Result<Option<Reading>, Error> {
        let (id, owner) = (id.to_owned(), self.owner);
        match self.looks.call(move |connect| read::by_id(connect, &id)).await {
            Ok(seen) => match seen.and_then(|seen| Reading::new(seen, owner)) {
                Some(reading) => self.with_log(reading).await.map(|reading| Some(self.lives.judge(reading))),
                None => Ok(None),
            },
            Err(refused) if refused.is_no_domain() => Ok(None),
            Err(refused) => Err(self.looks.error(refused)),
        }
    }

    /// What is said of a machine whose base turned out to be something else while it ran.
    async fn spoiled(&self, reading: &Reading) -> Result<String, Error> {
        let (base, since) = (reading.identity.image.clone(), reading.started_ns());
        let is_spoiled = self.disks.blocking(move |disks| Ok(disks.was_spoiled(&base, since))).await?;
        let Identity { lab, node, .. } = &reading.identity;
        Ok(match is_spoiled {
            true => format!(
                "the image that its disk lies on was found damaged since it was started: what it reads of it may be wrong until it is started again (netloom node restart {lab} {node})"
            ),
            false => String::new(),
        })
    }

    /// A machine that is off says which start was to be its last. Where that was only defined before this service ended, there is no log of it.
    async fn with_log(&self, mut reading: Reading) -> Result<Reading, Error> {
        let start = reading.started_ns();
        if reading.runs() || start == 0 {
            return Ok(reading);
        }
        let uid = reading.identity.uid;
        let is_there =
            self.disks.blocking(move |disks| Ok(log::is_there(&disks.console(uid), start))).await?;
        if !is_there {
            reading.identity.started_ns = 0;
        }
        Ok(reading)
    }
}

/// Keeps the logs of machines that run from growing for ever, until shut down.
async fn bound_logs(lives: Arc<Lives>, disks: Disks, shutdown: Shutdown) {
    while tokio::time::timeout(LOGS, shutdown.cancelled()).await.is_err() {
        let running = lives.running();
        let bound = move |disks: &Disks| {
            for (node, start) in running {
                if let Err(error) = log::bound(&disks.console(node), start) {
                    tracing::warn!(%error, %node, "the log of a virtual machine's console cannot be bounded");
                }
            }
            Ok(())
        };
        let _ = disks.blocking(bound).await;
    }
}

/// Does something with files where it may take its time.
async fn blocking<T: Send + 'static>(
    what: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(what).await;
    done.map_err(|e| Error::host("work on files did not end", e))?
}

impl Driver for LibvirtDriver {
    fn serves(&self, runtime: Runtime) -> bool {
        runtime == Runtime::Libvirt
    }

    fn at_once(&self) -> usize {
        ACTS
    }

    fn probe(&self) -> Answer<'_, Probe> {
        async {
            let version = self.looks.call(|connect| connect.get_lib_version()).await;
            let version = version.map_err(|refused| self.looks.error(refused))?;
            self.disks.blocking(Disks::require_direct_io).await?;
            let acceleration = self.acceleration().await?;
            let (major, minor, patch) = (version / 1_000_000, version / 1000 % 1000, version % 1000);
            let version = format!("libvirt {major}.{minor}.{patch}");
            Ok(Probe { runtimes: vec![Runtime::Libvirt], version, acceleration: Some(acceleration) })
        }
        .boxed()
    }

    fn answers(&self) -> Answer<'_, bool> {
        async {
            let version = self.pulse.call(|connect| connect.get_lib_version()).await;
            version.map(|_| true).map_err(|refused| self.pulse.error(refused))
        }
        .boxed()
    }

    fn events(&self) -> Answer<'_, BoxStream<'static, String>> {
        async {
            let lost = || Refused::Silent("the connection was lost".to_owned());
            let changes = self.looks.changes().ok_or_else(|| self.looks.error(lost()))?;
            let changes = BroadcastStream::new(changes).map(|change| Some(change.ok()?.id));
            let changes = changes.chain(stream::once(ready(None)));
            let news = BroadcastStream::new(self.lives.news().subscribe()).map(Result::ok);
            // Over when libvirt's are, or when either were missed.
            Ok(stream::select(changes, news).take_while(|id| ready(id.is_some())).filter_map(ready).boxed())
        }
        .boxed()
    }

    fn list(&self) -> Answer<'_, Vec<Listed>> {
        async {
            let all = self.looks.call(read::all).await.map_err(|refused| self.looks.error(refused))?;
            let ours = all.into_iter().filter_map(|seen| Reading::new(seen, self.owner));
            let ours = ours.map(|reading| self.lives.judge(reading));
            Ok(ours.map(|reading| Listed { running: reading.runs(), id: reading.id }).collect())
        }
        .boxed()
    }

    fn inspect<'a>(&'a self, id: &'a str) -> Answer<'a, Option<Found>> {
        async move {
            let Some(reading) = self.reading(id).await? else { return Ok(None) };
            let ran = self.lives.saw(&reading).await;
            match reading.runs() {
                true => self.carrier.saw(&reading.id, &reading.nics),
                false => self.carrier.forget(&reading.id),
            }
            if reading.lacks_room() {
                self.room.wait(&reading.id);
            }
            let mut trouble = reading.trouble().to_owned();
            if trouble.is_empty() && reading.runs() {
                trouble = self.spoiled(&reading).await?;
            }
            let port = mgmt::port(&reading);
            let place = mgmt::seen(&reading, port.as_ref()).cloned().unwrap_or_default();
            self.carrier.saw_port(&reading.id, port);
            let address = |of: &str| of.split('/').next().unwrap_or_default().to_owned();
            let Identity { uid, lab_uid, lab, node, spec_hash, image, limits, prepared, .. } =
                reading.identity.clone();
            Ok(Some(Found {
                process: reading.process(),
                aside: reading.is_aside(),
                machine: self.machine(&reading),
                start_id: reading.start_id(),
                started_us: reading.started_ns() / 1000,
                trouble,
                id: reading.id,
                uid,
                lab_uid,
                lab,
                node,
                spec_hash,
                image_digest: image,
                ran,
                mgmt_ipv4: address(&place.ipv4),
                mgmt_ipv6: address(&place.ipv6),
                networks: Some(place.network).into_iter().filter(|network| !network.is_empty()).collect(),
                health: String::new(),
                limits,
                ports: Vec::new(),
                network: NetworkOf::Own,
                namespace: None,
                prepared,
            }))
        }
        .boxed()
    }

    fn check<'a>(
        &'a self,
        instances: &'a [Instance],
        _: &'a BTreeSet<NodeUid>,
    ) -> Answer<'a, Vec<(NodeUid, Error)>> {
        async move {
            let mut refused = match &self.networks {
                Some(networks) => networks.check_networks(instances).await?,
                None => {
                    let asking = instances.iter().filter(|instance| instance.network.is_some());
                    asking.map(|instance| (instance.uid, mgmt::no_networks(instance))).collect()
                }
            };
            for instance in instances {
                let what = machines::unsupported(instance, self.startup(&instance.spec.kind));
                let outcome = match self.vm(&instance.spec.kind) {
                    Err(error) => Err(error),
                    Ok(_) if !what.is_empty() => Err(Error::Refused(format!(
                        "a virtual machine takes no {}: leave them out of node {}",
                        what.join(", "),
                        instance.spec.id
                    ))),
                    Ok(_) => match self.made_before(instance).await {
                        // One of ours that is in the way goes by itself.
                        Err(Error::Busy(_)) | Ok(_) => Ok(()),
                        Err(error) => Err(error),
                    },
                };
                refused.extend(outcome.err().map(|error| (instance.uid, error)));
            }
            Ok(refused)
        }
        .boxed()
    }

    fn create<'a>(&'a self, instance: &'a Instance, _: Option<&'a str>) -> Answer<'a, String> {
        self.make(instance).boxed()
    }

    fn start<'a>(&'a self, id: &'a str, instance: &'a Instance) -> Answer<'a, ()> {
        self.run(id, instance).boxed()
    }

    fn refresh<'a>(&'a self, id: &'a str, instance: &'a Instance, has: &'a Limits) -> Answer<'a, ()> {
        async move {
            let Some(reading) = self.reading(id).await?.filter(Reading::runs) else { return Ok(()) };
            self.plug(&reading, instance).await?;
            if has.satisfy(&instance.spec) {
                return Ok(());
            }
            Err(Error::Refused(format!(
                "a virtual machine gets other processors and memory when it is started again: netloom node restart {} {}",
                instance.lab, instance.spec.id
            )))
        }
        .boxed()
    }

    fn stop<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        self.end(id, self.stop_timeout).boxed()
    }

    fn set_aside<'a>(&'a self, id: &'a str, instance: &'a Instance) -> Answer<'a, ()> {
        async move {
            // A cancel brings its disk back: it gets the time to write what it holds.
            self.end(id, self.stop_timeout).await?;
            self.rename(id, format!("{}{}", instance.name, read::aside_suffix(id))).await
        }
        .boxed()
    }

    fn bring_back<'a>(&'a self, id: &'a str, instance: &'a Instance) -> Answer<'a, ()> {
        async move {
            // What has its place is ours and goes, or is not.
            self.made_before(instance).await?;
            self.rename(id, instance.name.clone()).await
        }
        .boxed()
    }

    fn remove<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        self.undefine(id).boxed()
    }

    fn remove_node(&self, node: NodeUid) -> Answer<'_, ()> {
        self.disks.blocking(move |disks| disks.remove(node)).boxed()
    }

    fn remove_lab(&self, _: LabUid) -> Answer<'_, ()> {
        async { Ok(()) }.boxed()
    }

    fn exec<'a>(
        &'a self,
        id: &'a str,
        instance: Option<&'a Instance>,
        command: Command,
    ) -> Answer<'a, Session> {
        self.type_command(id, instance, command).boxed()
    }

    fn console_held(&self, id: &str) -> bool {
        self.writers.held_by_person(id)
    }

    fn configure<'a>(&'a self, id: &'a str, instance: &'a Instance) -> Answer<'a, ()> {
        async move {
            // What it goes on from has it.
            match self.reading(id).await? {
                Some(reading) if reading.identity.prepared => Ok(()),
                _ => self.type_configuration(id, instance).await,
            }
        }
        .boxed()
    }

    fn console<'a>(&'a self, id: &'a str, how: Attach) -> Answer<'a, Console> {
        self.attach(id, how).boxed()
    }

    fn snapshots<'a>(&'a self, id: &'a str) -> Answer<'a, Vec<Snapshot>> {
        self.snapshots_of(id).boxed()
    }

    fn take_snapshot<'a>(&'a self, id: &'a str, new: &'a NewSnapshot) -> Answer<'a, Snapshot> {
        self.keep(id, new).boxed()
    }

    fn delete_snapshot<'a>(&'a self, id: &'a str, name: &'a str) -> Answer<'a, ()> {
        self.forget_snapshot(id, name).boxed()
    }

    fn carries(&self) -> Option<&dyn Carries> {
        Some(self)
    }

    fn logs<'a>(&'a self, id: &'a str, which: Lines) -> Answer<'a, BoxStream<'static, Result<Line, Error>>> {
        async move {
            let Some(reading) = self.reading(id).await? else { return Ok(stream::empty().boxed()) };
            self.lives.saw(&reading).await;
            let runs = which.follow.then(|| self.runs(&reading));
            log::read(&self.disks.console(reading.identity.uid), which, runs).await
        }
        .boxed()
    }

    fn image<'a>(&'a self, reference: &'a str, _: Runtime) -> Answer<'a, Option<Image>> {
        async move {
            let named = reference.to_owned();
            let base = self.disks.blocking(move |disks| disks.base(&named)).await?;
            // Disks do not say what processor they are for.
            Ok(base.map(|base| Image {
                digest: base.digest.into(),
                format: base.format,
                size_bytes: base.size_bytes,
                architecture: String::new(),
            }))
        }
        .boxed()
    }

    fn pull<'a>(&'a self, reference: &'a str) -> Answer<'a, BoxStream<'static, Result<String, Error>>> {
        let message = "disks of virtual machines come from netloom's own image registry".to_owned();
        async { Err(Error::PullFailed { reference: reference.to_owned(), message }) }.boxed()
    }
}
