//! Snapshots of machines: in their own disks, as qcow2 keeps them, so that they go where the disk goes and outlive this service, the machine's stop and the host's reboot.
//!
//! | path below the machine's directory | what |
//! |---|---|
//! | `snapshots/<name>/about.json` | how many bytes its disks had taken by then, which start it was taken in, whether that had been prepared, and who asked |
//! | `snapshots/<name>/domain.xml` | the machine as it ran, where it did |
//! | `snapshots/<name>/console.log` | the end of what its console had written |
//!
//! What there is, is what all its disks say; these files, which are written first, only add to it. What could not be kept as a whole is taken out again. libvirt knows of none: what it remembers of snapshots would keep a domain from being renamed, and would put an earlier start in the place of the one
//! that is to be. It is told of one for as long as it takes to delete it, or to start from it; what it knows still, since this service ended meanwhile, it is told to forget before a domain is renamed.
//!
//! A machine that runs is kept with its memory and stands still while that is written. It goes on from there as a new start, whose log begins with the console as it was: so what says that it is ready
//! is there, if it had been; what is done once in a start, its configuration and its commands, is not done again where it had been. Where its memory does not fit any more (another QEMU, other limits) it is started from the disk alone, as after a power cut.

mod text;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use netloom_model::human;
use netloom_model::id::NodeUid;
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::domain_snapshot::DomainSnapshot;
use virt::error::Error as VirtError;
use virt_sys as sys;

use super::connection::Refused;
use super::disks::{self, Disks};
use super::identity::Identity;
use super::read::Reading;
use super::{LibvirtDriver, log, xml};
use crate::driver::{NewSnapshot, Snapshot};
use crate::error::Error;
use text::{element, fits, other_start};

/// What the names of snapshots of ours begin with in a disk. Without, one called 1 would be taken for the first.
const PREFIX: &str = "netloom-";
/// So much of a console is kept with a snapshot.
const CONSOLE: u64 = 1 << 20;

/// What qemu-img says of a disk.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Info {
    actual_size: u64,
    #[serde(default)]
    snapshots: Vec<Kept>,
}

/// A snapshot in a disk.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kept {
    name: String,
    vm_state_size: u64,
    date_sec: i64,
    date_nsec: i64,
}

/// What is known of a snapshot beside.
#[derive(Serialize, Deserialize)]
struct About {
    disk_bytes: u64,
    started_ns: i64,
    #[serde(default)]
    prepared: bool,
    #[serde(default)]
    request_id: String,
}

/// A machine that runs, as it is kept.
struct Running {
    xml: String,
    memory_bytes: u64,
    host: String,
}

impl Disks {
    /// Where things that are known of a snapshot are.
    fn about(&self, node: NodeUid, name: &str) -> PathBuf {
        self.dir(node).join("snapshots").join(name)
    }

    /// What is known of a snapshot; none when that cannot be read.
    fn read_about(&self, node: NodeUid, name: &str) -> Option<About> {
        serde_json::from_slice(&fs::read(self.about(node, name).join("about.json")).ok()?).ok()
    }

    /// The disks of a machine, and what is kept in each.
    async fn kept(&self, node: NodeUid) -> Result<Vec<(PathBuf, Info)>, Error> {
        let mut all = Vec::new();
        for disk in self.of(node) {
            let info = info(&disk).await?;
            all.push((disk, info));
        }
        Ok(all)
    }

    /// The snapshots of a machine, oldest first.
    async fn snapshots(&self, node: NodeUid) -> Result<Vec<Snapshot>, Error> {
        let disks = self.kept(node).await?.into_iter().map(|(_, info)| info.snapshots);
        let kept = in_all(disks);
        let read = move |disks: &Disks| {
            let of = |kept: Kept| {
                let id = kept.name.strip_prefix(PREFIX)?.to_owned();
                let disk_bytes = disks.read_about(node, &id).map_or(0, |about| about.disk_bytes);
                Some(Snapshot {
                    id,
                    taken_ns: kept.date_sec.saturating_mul(1_000_000_000).saturating_add(kept.date_nsec),
                    size_bytes: disk_bytes.saturating_add(kept.vm_state_size),
                    has_memory: kept.vm_state_size > 0,
                })
            };
            Ok(kept.into_iter().filter_map(of).collect())
        };
        self.blocking(read).await
    }

    fn forget(&self, node: NodeUid, name: &str) {
        let _ = fs::remove_dir_all(self.about(node, name));
    }
}

/// What is in all disks: what is in some of them brings back nothing. Its memory is in one of them.
fn in_all(mut disks: impl Iterator<Item = Vec<Kept>>) -> Vec<Kept> {
    let mut whole = disks.next().unwrap_or_default();
    for other in disks {
        whole.retain_mut(|kept| {
            let same = other.iter().find(|o| o.name == kept.name);
            kept.vm_state_size = kept.vm_state_size.max(same.map_or(0, |o| o.vm_state_size));
            same.is_some()
        });
    }
    whole
}

/// Does something with a snapshot in the disk of a machine that is off.
async fn change(disk: &Path, how: &str, name: &str) -> Result<(), Error> {
    let mut command = Command::new("qemu-img");
    command.args(["snapshot", "-q", how, &format!("{PREFIX}{name}")]).arg(disk);
    disks::run(command).await.map(drop)
}

async fn info(disk: &Path) -> Result<Info, Error> {
    let mut command = Command::new("qemu-img");
    // Not kept from it by the lock of a QEMU that runs on it.
    command.args(["info", "-U", "--output=json"]).arg(disk);
    let told = disks::run(command).await?;
    serde_json::from_slice(&told).map_err(|e| Error::host("what qemu-img says cannot be read", e))
}

impl LibvirtDriver {
    /// The machine, once libvirt has cleared up after it.
    async fn there(&self, id: &str) -> Result<Reading, Error> {
        let reading = self.cleared(id).await?;
        match reading.is_dead() {
            true => Err(Error::Busy("its virtual machine has just ended: try again in a moment".to_owned())),
            false => Ok(reading),
        }
    }

    pub(super) async fn snapshots_of(&self, id: &str) -> Result<Vec<Snapshot>, Error> {
        let node = self.there(id).await?.identity.uid;
        self.disks.snapshots(node).await
    }

    /// The snapshot of this name.
    async fn snapshot(&self, identity: &Identity, name: &str) -> Result<Snapshot, Error> {
        let all = self.disks.snapshots(identity.uid).await?;
        let none = || Error::NoSnapshot { node: identity.node.clone(), snapshot: name.to_owned() };
        all.into_iter().find(|s| s.id == name).ok_or_else(none)
    }

    /// Takes a snapshot.
    pub(super) async fn keep(&self, id: &str, new: &NewSnapshot) -> Result<Snapshot, Error> {
        let reading = self.there(id).await?;
        let (identity, name) = (&reading.identity, new.id.as_str());
        match self.snapshot(identity, name).await {
            Ok(taken) => {
                let (node, kept) = (identity.uid, name.to_owned());
                let about = self.disks.blocking(move |disks| Ok(disks.read_about(node, &kept))).await?;
                let is_same = |about: About| !new.request_id.is_empty() && about.request_id == new.request_id;
                return match about.is_some_and(is_same) {
                    true => Ok(taken),
                    false => {
                        Err(Error::SnapshotExists { node: identity.node.clone(), snapshot: name.to_owned() })
                    }
                };
            }
            Err(Error::NoSnapshot { .. }) => {}
            Err(e) => return Err(e),
        }
        // What is left of one that could not be kept as a whole.
        self.erase(&reading, name).await?;
        let kept = match reading.runs() {
            true => self.keep_running(&reading, new).await,
            false => self.keep_off(&reading, new).await,
        };
        if let Err(error) = kept {
            let erase = async { self.erase(&self.there(id).await?, name).await };
            if let Err(error) = erase.await {
                tracing::warn!(%error, name, "what there is of a snapshot that could not be taken stays for now");
            }
            return Err(error);
        }
        self.snapshot(identity, name).await
    }

    async fn keep_off(&self, reading: &Reading, new: &NewSnapshot) -> Result<(), Error> {
        self.write_about(reading, new, None).await?;
        for disk in self.disks.of(reading.identity.uid) {
            change(&disk, "-c", &new.id).await?;
        }
        Ok(())
    }

    async fn keep_running(&self, reading: &Reading, new: &NewSnapshot) -> Result<(), Error> {
        let id = reading.id.clone();
        let look = move |connect: &Connect| {
            let domain = Domain::lookup_by_uuid_string(connect, &id)?;
            Ok(Running {
                xml: domain.get_xml_desc(sys::VIR_DOMAIN_XML_MIGRATABLE)?,
                memory_bytes: domain.get_max_memory()?.saturating_mul(1024),
                host: connect.get_hostname()?,
            })
        };
        let running = self.looks.call(look).await.map_err(|refused| self.looks.error(refused))?;
        require_room(&reading.identity.node, &running, self.room.free())?;
        let machine = running.xml.clone();
        self.write_about(reading, new, Some(running.xml)).await?;
        let (id, node, name) = (reading.id.clone(), reading.identity.uid, new.id.clone());
        let disks = self.disks.clone();
        let waits = Arc::new(());
        let waiting = Arc::downgrade(&waits);
        let save = move |connect: &Connect| {
            let domain = Domain::lookup_by_uuid_string(connect, &id)?;
            let inner = format!("{PREFIX}{name}");
            let text = element(&inner, &machine, true, false);
            DomainSnapshot::create_xml(&domain, &text, sys::VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA)?;
            // Who asked was told by now that it could not be taken.
            if waiting.strong_count() == 0 {
                tell(&domain, &element(&inner, &machine, true, true), |snapshot| snapshot.delete(0))?;
                disks.forget(node, &name);
            }
            Ok(())
        };
        let saved = self.saves.call(save).await;
        drop(waits);
        saved.map_err(|refused| self.saves.error(refused))
    }

    /// Writes what is known of a snapshot to be, and of the machine as it runs.
    async fn write_about(
        &self,
        reading: &Reading,
        new: &NewSnapshot,
        running: Option<String>,
    ) -> Result<(), Error> {
        let (node, started_ns) = (reading.identity.uid, reading.started_ns());
        let disk_bytes = self.disks.kept(node).await?.iter().map(|(_, info)| info.actual_size).sum();
        let NewSnapshot { id, request_id, prepared } = new.clone();
        let about = About { disk_bytes, started_ns, prepared, request_id };
        let write = move |disks: &Disks| {
            let dir = disks.about(node, &id);
            let text = serde_json::to_vec(&about).expect("it always serialises");
            let write = || {
                fs::create_dir_all(&dir)?;
                fs::write(dir.join("about.json"), text)?;
                let Some(machine) = running else { return Ok(()) };
                fs::write(dir.join("domain.xml"), machine)?;
                let end = log::end(&disks.console(node), started_ns, CONSOLE).unwrap_or_default();
                fs::write(dir.join("console.log"), end)
            };
            write().map_err(|e| Error::host(format!("cannot write in {}", dir.display()), e))
        };
        self.disks.blocking(write).await
    }

    /// Forgets a snapshot.
    pub(super) async fn forget_snapshot(&self, id: &str, name: &str) -> Result<(), Error> {
        let reading = self.there(id).await?;
        self.snapshot(&reading.identity, name).await?;
        self.erase(&reading, name).await
    }

    /// Takes a snapshot out of those disks that have it; fine when none has.
    async fn erase(&self, reading: &Reading, name: &str) -> Result<(), Error> {
        let (node, inner) = (reading.identity.uid, format!("{PREFIX}{name}"));
        let find = |info: Info| info.snapshots.into_iter().find(|kept| kept.name == inner);
        let disks = self.disks.kept(node).await?.into_iter();
        let having: Vec<_> = disks.filter_map(|(disk, info)| Some((disk, find(info)?))).collect();
        if reading.runs() && !having.is_empty() {
            let has_memory = having.iter().any(|(_, kept)| kept.vm_state_size > 0);
            let id = reading.id.clone();
            let delete = move |connect: &Connect| {
                let domain = Domain::lookup_by_uuid_string(connect, &id)?;
                let machine = domain.get_xml_desc(sys::VIR_DOMAIN_XML_MIGRATABLE)?;
                tell(&domain, &element(&inner, &machine, has_memory, true), |snapshot| snapshot.delete(0))
            };
            self.saves.call(delete).await.map_err(|refused| self.saves.error(refused))?;
        } else {
            for (disk, _) in &having {
                change(disk, "-d", name).await?;
            }
        }
        let name = name.to_owned();
        let forget = move |disks: &Disks| {
            disks.forget(node, &name);
            Ok(())
        };
        self.disks.blocking(forget).await
    }

    /// Starts a machine that is off from a snapshot: with its memory, where it was kept and fits, else from its disk. `xml` is the machine as it is to be, for this start.
    pub(super) async fn start_from(
        &self,
        name: &str,
        xml: String,
        id: &str,
        identity: &Identity,
    ) -> Result<(), Error> {
        // Which is in all disks, before any is changed.
        if self.snapshot(identity, name).await?.has_memory
            && let Some(machine) = self.as_it_was(name, &xml, identity).await?
        {
            let (id, name, xml) = (id.to_owned(), format!("{PREFIX}{name}"), xml.clone());
            let resume = move |connect: &Connect| {
                let domain = Domain::define_xml(connect, &xml)?;
                tell(&domain, &element(&name, &machine, true, true), |snapshot| snapshot.revert(0))
            };
            match self.saves.call(resume).await {
                Ok(()) => {
                    tracing::info!(instance = id, "virtual machine goes on from its memory");
                    return Ok(());
                }
                Err(Refused::Answer(error)) if !super::connection::is_loss(&error) => {
                    tracing::warn!(%error, "a virtual machine's memory does not fit any more: it is started from its disk alone");
                }
                Err(refused) => return Err(self.saves.error(refused)),
            }
        }
        for disk in self.disks.of(identity.uid) {
            change(&disk, "-a", name).await?;
        }
        self.start(xml).await
    }

    /// The machine as it ran when a snapshot was taken, as the start that is to be; its log begins with the console as it was. None when that is not known, or it was another than the one that is to be.
    async fn as_it_was(&self, name: &str, xml: &str, identity: &Identity) -> Result<Option<String>, Error> {
        let (name, xml, identity) = (name.to_owned(), xml.to_owned(), identity.clone());
        let read = move |disks: &Disks| {
            let dir = disks.about(identity.uid, &name);
            let Some(about) = disks.read_about(identity.uid, &name) else { return Ok(None) };
            let Ok(machine) = fs::read_to_string(dir.join("domain.xml")) else { return Ok(None) };
            if !fits(&machine, &xml, &identity) {
                tracing::warn!(
                    name,
                    "a virtual machine had other limits when its snapshot was taken: it is started from its disk alone"
                );
                return Ok(None);
            }
            let identity = Identity { prepared: about.prepared, ..identity };
            let console = disks.console(identity.uid);
            let log = console.join(log::name(identity.started_ns));
            let before = console.join(log::name(about.started_ns));
            fs::copy(dir.join("console.log"), &log)
                .map_err(|e| Error::host(format!("cannot write {}", log.display()), e))?;
            let path = |path: &Path| xml::text(&path.to_string_lossy());
            Ok(Some(other_start(&machine, &identity).replace(&path(&before), &path(&log))))
        };
        self.disks.blocking(read).await
    }
}

/// Refuses to keep a memory that may not fit on the disk.
fn require_room(node: &str, running: &Running, free: u64) -> Result<(), Error> {
    if running.memory_bytes <= free {
        return Ok(());
    }
    let (needed, free, host) = (human::bytes(running.memory_bytes), human::bytes(free), &running.host);
    Err(Error::DiskFull(format!(
        "the memory of node {node} takes up to {needed}, and the disk of data_dir of host {host} has {free} free: make room there, or stop the node first, and its disk alone is kept"
    )))
}

/// Tells libvirt of a snapshot that is there, for as long as something is done with it.
fn tell(
    domain: &Domain,
    text: &str,
    what: impl FnOnce(&DomainSnapshot) -> Result<(), VirtError>,
) -> Result<(), VirtError> {
    let snapshot = DomainSnapshot::create_xml(domain, text, sys::VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE)?;
    let outcome = what(&snapshot);
    // Fails where it is deleted; and what stays is forgotten before it is in the way.
    let _ = snapshot.delete(sys::VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY);
    outcome
}

/// Has libvirt forget what it knows of snapshots of ours, which are in the disk all the same.
pub(super) fn untell(domain: &Domain) -> Result<(), VirtError> {
    for snapshot in domain.list_all_snapshots(0)? {
        if snapshot.get_name()?.starts_with(PREFIX) {
            snapshot.delete(sys::VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_in_all_disks_is_no_snapshot() {
        let kept =
            |name: &str, vm_state_size| Kept { name: name.into(), vm_state_size, date_sec: 1, date_nsec: 0 };
        let first = || vec![kept("a", 0), kept("b", 7), kept("c", 0)];
        let whole = |disks: Vec<Vec<Kept>>| -> Vec<(String, u64)> {
            in_all(disks.into_iter()).into_iter().map(|kept| (kept.name, kept.vm_state_size)).collect()
        };
        let is = |all: &[(&str, u64)]| all.iter().map(|(n, s)| ((*n).to_owned(), *s)).collect::<Vec<_>>();
        assert_eq!(whole(vec![first()]), is(&[("a", 0), ("b", 7), ("c", 0)]));
        assert_eq!(
            whole(vec![first(), vec![kept("c", 9), kept("b", 0), kept("d", 0)]]),
            is(&[("b", 7), ("c", 9)])
        );
        assert_eq!(whole(vec![vec![], first()]), []);
    }

    #[test]
    fn a_memory_that_may_not_fit_on_the_disk_is_refused_with_what_it_takes() {
        let running = Running { xml: String::new(), memory_bytes: 4 << 30, host: "h1".into() };
        require_room("r1", &running, 4 << 30).unwrap();
        let refused = require_room("r1", &running, 1 << 30).unwrap_err();
        let message = refused.to_string();
        assert!(matches!(refused, Error::DiskFull(_)), "{message}");
        assert!(
            ["node r1", "up to 4.0 GiB,", "host h1", "has 1.0 GiB free"].iter().all(|w| message.contains(w)),
            "{message}"
        );
    }
}
