//! Making, starting, ending and removing machines.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use netloom_model::id::NodeUid;
use netloom_model::kind::Startup;
use netloom_model::naming;
use netloom_model::observed::Acceleration;
use netloom_model::slice::Instance;
use netloom_model::spec::{Bind, BindSource, NetworkMode, NodeSpec};
use netloom_model::state::Runtime;
use virt::domain::Domain;
use virt_sys as sys;

use super::connection::Refused;
use super::disks::Disks;
use super::identity::{Identity, Place};
use super::lives::CLEARING;
use super::mgmt::Joined;
use super::read::{self, Reading};
use super::xml::{self, Machine, Medium, Nic};
use super::{LibvirtDriver, log, medium, snapshots};
use crate::driver::Limits;
use crate::error::Error;

/// How often a machine that was asked to stop is looked at.
const STOPPING: Duration = Duration::from_millis(200);
/// The place of the NIC for management.
const MANAGEMENT: u32 = 0;
/// Logs of so many starts are kept.
const LOGS: usize = 5;

impl LibvirtDriver {
    pub(super) async fn make(&self, instance: &Instance) -> Result<String, Error> {
        let vm = self.vm(&instance.spec.kind)?.clone();
        // What was judged, whatever the name has come to mean since.
        let image = match instance.image_digest.as_str() {
            "" => instance.spec.image.clone(),
            digest => digest.to_owned(),
        };
        let base = self.disks.blocking(move |disks| disks.base(&image)).await?;
        let base = base.ok_or_else(|| Error::ImageMissing(instance.spec.image.clone()))?;
        self.disks.blocking(Disks::require_direct_io).await?;
        if let Some(id) = self.made_before(instance).await? {
            return Ok(id);
        }
        self.disks.make(instance, &base, vm.data_disk_gib).await?;
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
            prepared: false,
            mgmt: None,
        };
        let id = uuid::Uuid::new_v4().to_string();
        let xml = self.xml(&id, instance, &identity).await?;
        let defined = self.acts.call(move |connect| Domain::define_xml(connect, &xml).map(drop)).await;
        defined.map_err(|refused| self.acts.error(refused))?;
        Ok(id)
    }

    /// The name may be taken: by this very instance (made by a call whose answer was lost), by an earlier one of ours that is about to go, or by somebody else.
    pub(super) async fn made_before(&self, instance: &Instance) -> Result<Option<String>, Error> {
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

    pub(super) async fn xml(
        &self,
        id: &str,
        instance: &Instance,
        identity: &Identity,
    ) -> Result<String, Error> {
        let vm = self.vm(&instance.spec.kind)?;
        let disks = self.disks.of(instance.uid);
        if disks.is_empty() {
            return Err(Error::Host(format!(
                "the disk of node {} is gone from this host; make it anew: deploy the lab without the node, then with it",
                instance.spec.id
            )));
        }
        let disks: Vec<&Path> = disks.iter().map(AsRef::as_ref).collect();
        let medium = self.disks.medium(instance.uid);
        let nvram = self.disks.nvram(instance.uid);
        let is_cd = medium::is_cd(self.startup(&instance.spec.kind), &instance.spec);
        let console = self.disks.console(instance.uid).join(log::name(identity.started_ns));
        let or = |limit: u64, counted: u64| if limit > 0 { limit } else { counted };
        let millis = or(instance.spec.cpu_limit_millis.into(), instance.spec.cpu_request_millis.into());
        Ok(xml::domain(&Machine {
            name: &instance.name,
            id,
            identity,
            vm,
            kvm: self.acceleration().await? == Acceleration::Kvm,
            cpus: u32::try_from(millis.div_ceil(1000)).unwrap_or(u32::MAX),
            cpu_set: &instance.spec.cpu_set,
            memory_bytes: or(instance.spec.memory_limit_bytes, instance.spec.memory_request_bytes),
            disks: &disks,
            medium: is_cd.map(|is_cd| Medium { file: &medium, is_cd }),
            nics: &self.nics(instance, identity.mgmt.as_ref()),
            console_log: &console,
            nvram: nvram.as_deref(),
        }))
    }

    /// Its NICs in order: management, those that its kind keeps, and its ports up to the last that has a cable.
    pub(super) fn nics(&self, instance: &Instance, mgmt: Option<&Place>) -> Vec<Nic> {
        let Some(naming) = self.kinds.on(&instance.spec.kind, Runtime::Libvirt).map(|k| &k.interfaces) else {
            return Vec::new();
        };
        let place =
            |nic: &netloom_model::slice::MachineNic| naming.nic(naming::guest_index(&nic.guest_name)?);
        let wired: BTreeMap<u32, _> =
            instance.nics.iter().filter_map(|nic| Some((place(nic)?, nic))).collect();
        let last = wired.keys().next_back().copied().unwrap_or_default();
        let nic = |place: u32| match wired.get(&place) {
            Some(nic) => Nic {
                tap: nic.wire_id.interface_name(&self.nic_prefix),
                mac: nic.mac.clone(),
                mtu: nic.mtu,
                bridge: String::new(),
            },
            None if place == MANAGEMENT => {
                let bridge = mgmt.map(|mgmt| mgmt.bridge.clone()).unwrap_or_default();
                Nic { bridge, mtu: management_mtu(instance), ..idle(instance.origin(), place) }
            }
            None => idle(instance.origin(), place),
        };
        (0..=last).map(nic).collect()
    }

    pub(super) async fn run(&self, id: &str, instance: &Instance) -> Result<(), Error> {
        let reading = self.cleared(id).await?;
        if reading.runs() {
            return Ok(());
        }
        let uid = instance.uid;
        self.disks.blocking(move |disks| disks.require_base(uid)).await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let before = reading.clone();
        let joined = self.join(instance, &reading.identity).await?;
        let identity = Identity {
            mgmt: joined.as_ref().map(|joined| joined.place.clone()),
            started_ns: i64::try_from(now.as_nanos()).unwrap_or(i64::MAX),
            limits: Limits::of(&instance.spec),
            prepared: false,
            ..reading.identity
        };
        let started = self.run_as(id, instance, identity, joined, before).await;
        self.given.lock().await.remove(&instance.uid);
        started
    }

    async fn run_as(
        &self,
        id: &str,
        instance: &Instance,
        identity: Identity,
        joined: Option<Joined>,
        before: Reading,
    ) -> Result<(), Error> {
        self.prepare(instance, joined).await?;
        let xml = self.xml(id, instance, &identity).await?;
        self.lives.starts(before);
        let started = match instance.restore.as_str() {
            "" => self.start(xml).await,
            snapshot => self.start_from(snapshot, xml, id, &identity).await,
        };
        self.lives.started(id);
        started
    }

    /// Starts a machine as it is described.
    pub(super) async fn start(&self, xml: String) -> Result<(), Error> {
        let start = move |connect: &_| Domain::define_xml(connect, &xml)?.create().map(drop);
        self.acts.call(start).await.map_err(|refused| self.acts.error(refused))
    }

    /// Makes room for the log of a start, and writes what its guest is told at it, where its kind takes that.
    async fn prepare(&self, instance: &Instance, joined: Option<Joined>) -> Result<(), Error> {
        let (instance, files) = (instance.clone(), self.files.clone());
        let startup = self.startup(&instance.spec.kind).clone();
        let prepare = move |disks: &Disks| {
            log::keep_last(&disks.console(instance.uid), LOGS - 1);
            let spec = &instance.spec;
            let read = || files.read(instance.lab_uid, &spec.startup_config);
            let configuration = (!spec.startup_config.is_empty()).then(read).transpose()?;
            let file = |(path, bind): (&str, &Bind)| {
                let mode = instance.files.iter().find(|f| f.path == path).map_or(0o644, |f| f.mode);
                let content = files.read(instance.lab_uid, path)?;
                Ok::<_, Error>(medium::Written { path: bind.target.clone(), mode, content })
            };
            let file = told(spec).next().map(file).transpose()?;
            let management = joined.as_ref().map(|joined| {
                let mac = idle(instance.origin(), MANAGEMENT).mac;
                medium::Management { mac, mtu: management_mtu(&instance), joined }
            });
            let given = medium::Given { configuration: configuration.as_deref(), file: file.as_ref() };
            match medium::image(&startup, &instance, management.as_ref(), given)? {
                Some(image) => disks.write_medium(instance.uid, &image),
                None => Ok(()),
            }
        };
        self.disks.blocking(prepare).await
    }

    /// As it is once libvirt has cleared up after its last start, which takes seconds after its QEMU has ended.
    pub(super) async fn cleared(&self, id: &str) -> Result<Reading, Error> {
        let until = Instant::now() + CLEARING;
        loop {
            match self.ask(id).await? {
                None => return Err(Error::Busy("its virtual machine is gone meanwhile".to_owned())),
                Some(reading) if reading.is_dead() && Instant::now() < until => {
                    tokio::time::sleep(STOPPING).await
                }
                Some(reading) => return Ok(reading),
            }
        }
    }

    /// Gives a machine that is off another name.
    pub(super) async fn rename(&self, id: &str, name: String) -> Result<(), Error> {
        if self.cleared(id).await?.name == name {
            return Ok(());
        }
        let id = id.to_owned();
        let rename = move |connect: &_| {
            let domain = Domain::lookup_by_uuid_string(connect, &id)?;
            snapshots::untell(&domain)?;
            domain.rename(&name, 0)
        };
        self.acts.call(rename).await.map(drop).map_err(|refused| self.acts.error(refused))
    }

    /// Presses its power button, and pulls the plug when that does not help in time.
    pub(super) async fn end(&self, id: &str, grace: Duration) -> Result<(), Error> {
        let press = id.to_owned();
        let pressed =
            self.acts.call(move |connect| Domain::lookup_by_uuid_string(connect, &press)?.shutdown());
        match pressed.await {
            Err(refused) if refused.is_no_domain() => return Ok(()),
            // It may be off already, or no operating system be there to hear of it.
            Ok(_) | Err(Refused::Answer(_)) => {}
            Err(refused) => return Err(self.acts.error(refused)),
        }
        let until = Instant::now() + grace;
        while self.reading(id).await?.is_some_and(|reading| reading.runs()) {
            if Instant::now() >= until {
                return self.destroy(id).await;
            }
            tokio::time::sleep(STOPPING).await;
        }
        Ok(())
    }

    pub(super) async fn destroy(&self, id: &str) -> Result<(), Error> {
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

    pub(super) async fn undefine(&self, id: &str) -> Result<(), Error> {
        let Some(reading) = self.reading(id).await? else { return Ok(()) };
        self.destroy(id).await?;
        // Before the domain, or an end of this service in between would leave disks that look like those of a machine that is to be.
        let uid = reading.identity.uid;
        self.disks.blocking(move |disks| disks.remove(uid)).await?;
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
        self.lacks.forget(id);
        self.carrier.forget(id);
        Ok(())
    }
}

/// MTU in bytes of its management network; 0 where that is as usual, and without one.
fn management_mtu(instance: &Instance) -> u32 {
    instance.network.as_ref().map_or(0, |network| network.spec.mtu)
}

/// A NIC that nothing is plugged into.
fn idle(uid: NodeUid, place: u32) -> Nic {
    let digest = netloom_model::id::Digest::of(format!("{uid} {place}").as_bytes());
    let hex = &digest.as_str()["sha256:".len()..];
    let mac: Vec<&str> = (0..5).map(|i| &hex[2 * i..2 * i + 2]).collect();
    Nic { tap: format!("nv{}", &hex[..12]), mac: format!("02:{}", mac.join(":")), ..Nic::default() }
}

/// Files of the lab that a guest is told where its kind tells files: their paths among those, and their places.
fn told(spec: &NodeSpec) -> impl Iterator<Item = (&str, &Bind)> {
    spec.binds.iter().filter_map(|bind| match &bind.source {
        BindSource::Bundle(path) => Some((path.as_str(), bind)),
        BindSource::Host(_) => None,
    })
}

/// What a node asks for that only containers can be given.
pub(super) fn unsupported(instance: &Instance, startup: &Startup) -> Vec<&'static str> {
    let spec = &instance.spec;
    let takes = if *startup == (Startup::Nocloud {}) { told(spec).take(1).count() } else { 0 };
    let asked = [
        ("binds", spec.binds.len() > takes),
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
