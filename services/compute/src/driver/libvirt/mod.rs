//! Virtual machines, by libvirt.
//!
//! ```text
//!   Driver ── looks ─► connection ─► thread ─┐            identity: whose a domain is, in its metadata
//!      │                                     ├─► libvirtd  xml:      what a domain is, from its kind and its node
//!      └───── acts ──► connection ─► thread ─┘            disks:    overlays on base images
//! ```
//!
//! Two connections, since libvirtd can take a minute to define a domain or to end one, and what is seen must not become old meanwhile. A domain is defined anew at each start, so that what
//! may have changed since (its taps, its size, how guests run here) is what it starts with; its disk and its addresses stay.

mod accel;
mod connection;
mod disks;
mod events;
mod identity;
mod lives;
mod log;
mod read;
mod xml;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::future::{FutureExt as _, ready};
use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};
use netloom_model::id::{LabUid, NodeUid, Owner};
use netloom_model::kind::{Catalogue, Vm};
use netloom_model::naming;
use netloom_model::slice::Instance;
use netloom_model::spec::NetworkMode;
use netloom_model::state::Runtime;
use tokio::sync::OnceCell;
use tokio_stream::wrappers::BroadcastStream;
use virt::domain::Domain;
use virt_sys as sys;

use super::{Answer, Command, Driver, Found, Image, Limits, Line, Lines, Listed, NetworkOf, Probe, Session};
use crate::config::Config;
use crate::error::Error;
use connection::{Connection, Refused};
use disks::Disks;
use identity::Identity;
use lives::{CLEARING, Lives};
use read::Reading;
use xml::{Machine, Nic};

/// How long an answer about what there is may take.
const LOOK: Duration = Duration::from_secs(10);
/// How long a change may take: a libvirtd that asks QEMU anew what it can do takes most of a minute for each definition.
const ACT: Duration = Duration::from_secs(180);
/// How often a machine that was asked to stop is looked at.
const STOPPING: Duration = Duration::from_millis(200);
/// Logs of so many starts are kept.
const LOGS: usize = 5;
const KVM: &str = "/dev/kvm";

/// See the module.
pub struct LibvirtDriver {
    owner: Owner,
    looks: Connection,
    acts: Connection,
    disks: Disks,
    kinds: Catalogue,
    stop_timeout: Duration,
    accel: OnceCell<accel::Found>,
    lives: Arc<Lives>,
}

impl LibvirtDriver {
    /// A driver that connects when it is first asked something.
    pub fn new(
        owner: Owner,
        config: &Config,
        kinds: Catalogue,
        data_dir: &Path,
    ) -> Result<LibvirtDriver, Error> {
        Ok(LibvirtDriver {
            owner,
            looks: Connection::new(&config.libvirt_uri, LOOK)?,
            acts: Connection::new(&config.libvirt_uri, ACT)?,
            disks: Disks::open(data_dir)?,
            kinds,
            stop_timeout: Duration::from_secs(config.stop_timeout.into()),
            accel: OnceCell::new(),
            lives: Lives::new(),
        })
    }

    async fn accel(&self) -> &accel::Found {
        self.accel.get_or_init(|| accel::find(Path::new(KVM))).await
    }

    /// What its kind says of its machine.
    fn vm(&self, kind: &str) -> Result<&Vm, Error> {
        let vm = self.kinds.get(kind).and_then(|k| k.vm.as_ref());
        vm.ok_or_else(|| {
            Error::Refused(format!(
                "this host has no kind {kind} of virtual machines: give it the kind's file"
            ))
        })
    }

    /// The machine with this id as it is now; none when there is none, or it is not ours.
    async fn reading(&self, id: &str) -> Result<Option<Reading>, Error> {
        match self.lives.dead(id) {
            Some(dead) => Ok(Some(dead)),
            None => self.ask(id).await,
        }
    }

    /// The same, as libvirt says it.
    async fn ask(&self, id: &str) -> Result<Option<Reading>, Error> {
        let (id, owner) = (id.to_owned(), self.owner);
        match self.looks.call(move |connect| read::by_id(connect, &id)).await {
            Ok(seen) => Ok(seen.and_then(|seen| Reading::new(seen, owner)).map(|r| self.lives.judge(r))),
            Err(refused) if refused.is_no_domain() => Ok(None),
            Err(refused) => Err(self.looks.error(refused)),
        }
    }

    async fn make(&self, instance: &Instance) -> Result<String, Error> {
        let vm = self.vm(&instance.spec.kind)?.clone();
        let base = self.disks.base(&instance.spec.image)?;
        let base = base.ok_or_else(|| Error::ImageMissing(instance.spec.image.clone()))?;
        self.disks.require_direct_io()?;
        if let Some(id) = self.made_before(instance).await? {
            return Ok(id);
        }
        self.disks.make(instance.uid, &base, vm.data_disk_gib).await?;
        let identity = Identity {
            owner: self.owner,
            uid: instance.uid,
            lab_uid: instance.lab_uid,
            lab: instance.lab.to_string(),
            node: instance.spec.id.clone(),
            spec_hash: instance.spec_hash.clone(),
            image: base.digest.to_string(),
            limits: Limits::of(&instance.spec),
            started_ns: 0,
        };
        let id = uuid::Uuid::new_v4().to_string();
        let xml = self.xml(&id, instance, &identity).await?;
        let defined = self.acts.call(move |connect| Domain::define_xml(connect, &xml).map(drop)).await;
        defined.map_err(|refused| self.acts.error(refused))?;
        Ok(id)
    }

    /// The name may be taken: by this very instance (made by a call whose answer was lost), by an earlier one of ours that is about to go, or by somebody else.
    async fn made_before(&self, instance: &Instance) -> Result<Option<String>, Error> {
        let (name, owner) = (instance.name.clone(), self.owner);
        let seen = match self.looks.call(move |connect| read::by_name(connect, &name)).await {
            Ok(seen) => seen,
            Err(refused) if refused.is_no_domain() => return Ok(None),
            Err(refused) => return Err(self.looks.error(refused)),
        };
        let name = &instance.name;
        match seen.and_then(|seen| Reading::new(seen, owner)) {
            Some(reading) if reading.identity.uid == instance.uid => Ok(Some(reading.id)),
            Some(_) => Err(Error::Busy(format!(
                "waits until the virtual machine of an earlier node called {name} is removed"
            ))),
            None => Err(Error::Foreign(format!(
                "a domain called {name} exists that is not this installation's; remove it (virsh undefine {name}) or give the lab another name or prefix"
            ))),
        }
    }

    async fn xml(&self, id: &str, instance: &Instance, identity: &Identity) -> Result<String, Error> {
        let vm = self.vm(&instance.spec.kind)?;
        let disks = self.disks.of(instance.uid);
        if disks.is_empty() {
            return Err(Error::Host(format!(
                "the disk of node {} is gone from this host; make it anew: netloom deploy --recreate {}",
                instance.spec.id, instance.spec.id
            )));
        }
        let disks: Vec<&Path> = disks.iter().map(AsRef::as_ref).collect();
        let console = self.disks.console(instance.uid).join(log::name(identity.started_ns));
        let or = |limit: u64, counted: u64| if limit > 0 { limit } else { counted };
        let millis = or(instance.spec.cpu_limit_millis.into(), instance.spec.cpu_request_millis.into());
        Ok(xml::domain(&Machine {
            name: &instance.name,
            id,
            identity,
            vm,
            accel: self.accel().await.accel,
            cpus: u32::try_from(millis.div_ceil(1000)).unwrap_or(u32::MAX),
            cpu_set: &instance.spec.cpu_set,
            memory_bytes: or(instance.spec.memory_limit_bytes, instance.spec.memory_request_bytes),
            disks: &disks,
            nics: &self.nics(instance),
            console_log: &console,
        }))
    }

    /// Its NICs in order: management, those that its kind keeps, and its ports up to the last that has a cable.
    fn nics(&self, instance: &Instance) -> Vec<Nic> {
        let Some(naming) = self.kinds.get(&instance.spec.kind).map(|k| &k.interfaces) else {
            return Vec::new();
        };
        let place =
            |nic: &netloom_model::slice::MachineNic| naming.nic(naming::guest_index(&nic.guest_name)?);
        let wired: BTreeMap<u32, _> =
            instance.nics.iter().filter_map(|nic| Some((place(nic)?, nic))).collect();
        let last = wired.keys().next_back().copied().unwrap_or_default();
        let nic = |place: u32| match wired.get(&place) {
            Some(nic) => Nic { tap: nic.wire_id.interface_name(TAP), mac: nic.mac.clone(), carrier: true },
            None => idle(instance.uid, place),
        };
        (0..=last).map(nic).collect()
    }

    async fn run(&self, id: &str, instance: &Instance) -> Result<(), Error> {
        let until = Instant::now() + CLEARING;
        let reading = loop {
            match self.ask(id).await? {
                None => return Err(Error::Busy("its virtual machine is gone meanwhile".to_owned())),
                Some(reading) if reading.runs() => return Ok(()),
                // libvirt clears up for seconds after a QEMU that has ended.
                Some(reading) if reading.is_dead() && Instant::now() < until => {
                    tokio::time::sleep(STOPPING).await
                }
                Some(reading) => break reading,
            }
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let before = reading.clone();
        let identity = Identity {
            started_ns: i64::try_from(now.as_nanos()).unwrap_or(i64::MAX),
            limits: Limits::of(&instance.spec),
            ..reading.identity
        };
        log::keep_last(&self.disks.console(instance.uid), LOGS - 1);
        let xml = self.xml(id, instance, &identity).await?;
        let start = move |connect: &_| Domain::define_xml(connect, &xml)?.create().map(drop);
        self.lives.starts(before);
        let started = self.acts.call(start).await;
        self.lives.started(id);
        started.map_err(|refused| self.acts.error(refused))
    }

    /// Presses its power button, and pulls the plug when that does not help in time.
    async fn end(&self, id: &str) -> Result<(), Error> {
        let press = id.to_owned();
        let pressed =
            self.acts.call(move |connect| Domain::lookup_by_uuid_string(connect, &press)?.shutdown());
        match pressed.await {
            Err(refused) if refused.is_no_domain() => return Ok(()),
            // It may be off already, or no operating system be there to hear of it.
            Ok(_) | Err(Refused::Answer(_)) => {}
            Err(refused) => return Err(self.acts.error(refused)),
        }
        let until = Instant::now() + self.stop_timeout;
        while self.reading(id).await?.is_some_and(|reading| reading.runs()) {
            if Instant::now() >= until {
                return self.destroy(id).await;
            }
            tokio::time::sleep(STOPPING).await;
        }
        Ok(())
    }

    async fn destroy(&self, id: &str) -> Result<(), Error> {
        let pull = id.to_owned();
        let destroy = move |connect: &_| {
            let domain = Domain::lookup_by_uuid_string(connect, &pull)?;
            match domain.destroy() {
                // It was off, or went off by itself.
                Err(_) if !domain.is_active()? => Ok(()),
                other => other,
            }
        };
        match self.acts.call(destroy).await {
            Err(refused) if !refused.is_no_domain() => Err(self.acts.error(refused)),
            _ => Ok(()),
        }
    }

    async fn undefine(&self, id: &str) -> Result<(), Error> {
        let Some(reading) = self.reading(id).await? else { return Ok(()) };
        self.destroy(id).await?;
        let gone = id.to_owned();
        let flags = sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
            | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
            | sys::VIR_DOMAIN_UNDEFINE_NVRAM;
        let undefine =
            move |connect: &_| Domain::lookup_by_uuid_string(connect, &gone)?.undefine_flags(flags);
        match self.acts.call(undefine).await {
            Err(refused) if !refused.is_no_domain() => return Err(self.acts.error(refused)),
            _ => {}
        }
        self.lives.forget(id);
        self.disks.remove(reading.identity.uid)
    }
}

/// Prefix of taps that have a cable: what follows is the wire's id, as in the name of every host end.
const TAP: &str = "nl";

/// A NIC that nothing is plugged into.
fn idle(uid: NodeUid, place: u32) -> Nic {
    let digest = netloom_model::id::Digest::of(format!("{uid} {place}").as_bytes());
    let hex = &digest.as_str()["sha256:".len()..];
    let mac: Vec<&str> = (0..5).map(|i| &hex[2 * i..2 * i + 2]).collect();
    Nic { tap: format!("nv{}", &hex[..12]), mac: format!("02:{}", mac.join(":")), carrier: false }
}

impl Driver for LibvirtDriver {
    fn serves(&self, runtime: Runtime) -> bool {
        runtime == Runtime::Libvirt
    }

    fn probe(&self) -> Answer<'_, Probe> {
        async {
            let version = self.looks.call(|connect| connect.get_lib_version()).await;
            let version = version.map_err(|refused| self.looks.error(refused))?;
            self.disks.require_direct_io()?;
            let guests = match self.accel().await {
                accel::Found { accel: xml::Accel::Kvm, .. } => "KVM".to_owned(),
                found => format!("emulated: {}", found.why),
            };
            let (major, minor, patch) = (version / 1_000_000, version / 1000 % 1000, version % 1000);
            let version = format!("libvirt {major}.{minor}.{patch} ({guests})");
            Ok(Probe { runtimes: vec![Runtime::Libvirt], version })
        }
        .boxed()
    }

    fn events(&self) -> Answer<'_, BoxStream<'static, String>> {
        async {
            let lost = || Refused::Silent("the connection was lost".to_owned());
            let changes = self.looks.changes().ok_or_else(|| self.looks.error(lost()))?;
            let lives = self.lives.clone();
            let changes = BroadcastStream::new(changes).map(move |change| {
                let change = change.ok()?;
                lives.told(&change);
                Some(change.id)
            });
            let changes = changes.chain(stream::once(ready(None)));
            let ends = BroadcastStream::new(self.lives.ends()).map(Result::ok);
            // Over when libvirt's are, or when either were missed.
            Ok(stream::select(changes, ends).take_while(|id| ready(id.is_some())).filter_map(ready).boxed())
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
            let ran = self.lives.saw(&reading);
            let Identity { uid, lab_uid, lab, node, spec_hash, image, limits, .. } = reading.identity.clone();
            Ok(Some(Found {
                process: reading.process(),
                start_id: reading.start_id(),
                started_us: reading.started_ns() / 1000,
                id: reading.id,
                uid,
                lab_uid,
                lab,
                node,
                spec_hash,
                image_digest: image,
                ran,
                mgmt_ipv4: String::new(),
                mgmt_ipv6: String::new(),
                networks: BTreeSet::new(),
                health: String::new(),
                limits,
                ports: Vec::new(),
                network: NetworkOf::Own,
                namespace: None,
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
            let mut refused = Vec::new();
            for instance in instances {
                let what = unsupported(instance);
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
            if has.satisfy(&instance.spec) || !self.reading(id).await?.is_some_and(|reading| reading.runs()) {
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
        self.end(id).boxed()
    }

    fn remove<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        self.undefine(id).boxed()
    }

    fn remove_node(&self, node: NodeUid) -> Answer<'_, ()> {
        async move { self.disks.remove(node) }.boxed()
    }

    fn remove_lab(&self, _: LabUid) -> Answer<'_, ()> {
        async { Ok(()) }.boxed()
    }

    fn exec<'a>(&'a self, _: &'a str, _: Command) -> Answer<'a, Session> {
        async {
            Err(Error::Refused("no command can be run inside a virtual machine from outside".to_owned()))
        }
        .boxed()
    }

    fn logs<'a>(&'a self, id: &'a str, which: Lines) -> Answer<'a, BoxStream<'static, Result<Line, Error>>> {
        async move {
            let Some(reading) = self.reading(id).await? else { return Ok(stream::empty().boxed()) };
            self.lives.saw(&reading);
            let (lives, id, start) = (self.lives.clone(), reading.id.clone(), reading.started_ns());
            let runs: log::Runs = Arc::new(move || lives.runs(&id, start));
            log::read(&self.disks.console(reading.identity.uid), which, which.follow.then_some(runs))
        }
        .boxed()
    }

    fn image<'a>(&'a self, reference: &'a str, _: Runtime) -> Answer<'a, Option<Image>> {
        async move {
            let base = self.disks.base(reference)?;
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

/// What a node asks for that only containers can be given.
fn unsupported(instance: &Instance) -> Vec<&'static str> {
    let spec = &instance.spec;
    let asked = [
        ("binds", !spec.binds.is_empty()),
        ("volumes", !spec.volumes.is_empty()),
        ("tmpfs", !spec.tmpfs.is_empty()),
        ("devices", !spec.devices.is_empty()),
        ("published ports", !spec.ports.is_empty()),
        ("health checks", spec.healthcheck.is_some()),
        ("certificates", spec.certificate.is_some()),
        ("networks of others", spec.network_mode != NetworkMode::Own),
    ];
    asked.into_iter().filter(|(_, asked)| *asked).map(|(what, _)| what).collect()
}
