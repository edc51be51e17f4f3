//! Snapshots of machines: in their own disks, as qcow2 keeps them, so that they go where the disk goes and outlive this service, the machine's stop and the host's reboot.
//!
//! | path below the machine's directory | what |
//! |---|---|
//! | `snapshots/<name>/about.json` | how many bytes its disks had taken by then, and which start it was taken in |
//! | `snapshots/<name>/domain.xml` | the machine as it ran, where it did |
//! | `snapshots/<name>/console.log` | the end of what its console had written |
//!
//! What there is, is what the disk says; these files only add to it. libvirt knows of none: what it remembers of snapshots would keep a domain from being renamed, and would put an earlier start in the place of the one
//! that is to be. It is told of one for as long as it takes to delete it, or to start from it.
//!
//! A machine that runs is kept with its memory and stands still while that is written. It goes on from there as a new start, whose log begins with the console as it was: so what says that it is ready
//! is there, if it had been. Where its memory does not fit any more (another QEMU, another machine) it is started from the disk alone, as after a power cut.

use std::fs;
use std::path::{Path, PathBuf};

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
use super::nics::{attribute, each};
use super::read::Reading;
use super::{LibvirtDriver, log, xml};
use crate::driver::Snapshot;
use crate::error::Error;

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

    /// The snapshots of a machine, oldest first.
    async fn snapshots(&self, node: NodeUid) -> Result<Vec<Snapshot>, Error> {
        let Some(disk) = self.of(node).into_iter().next() else { return Ok(Vec::new()) };
        let kept = info(&disk).await?.snapshots.into_iter().filter_map(|kept| {
            let id = kept.name.strip_prefix(PREFIX)?.to_owned();
            let disk_bytes = self.read_about(node, &id).map_or(0, |about| about.disk_bytes);
            Some(Snapshot {
                id,
                taken_ns: kept.date_sec.saturating_mul(1_000_000_000).saturating_add(kept.date_nsec),
                size_bytes: disk_bytes + kept.vm_state_size,
                has_memory: kept.vm_state_size > 0,
            })
        });
        Ok(kept.collect())
    }

    /// Does something with a snapshot of a machine that is off, in all its disks.
    async fn change_snapshot(&self, node: NodeUid, how: &str, name: &str) -> Result<(), Error> {
        for disk in self.of(node) {
            let mut command = Command::new("qemu-img");
            command.args(["snapshot", "-q", how, &format!("{PREFIX}{name}")]).arg(&disk);
            disks::run(command).await?;
        }
        Ok(())
    }

    fn forget(&self, node: NodeUid, name: &str) {
        let _ = fs::remove_dir_all(self.about(node, name));
    }
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
    pub(super) async fn keep(&self, id: &str, name: &str) -> Result<Snapshot, Error> {
        let reading = self.there(id).await?;
        let (node, name) = (reading.identity.uid, name.to_owned());
        match self.snapshot(&reading.identity, &name).await {
            Ok(_) => {
                return Err(Error::SnapshotExists { node: reading.identity.node, snapshot: name });
            }
            Err(Error::NoSnapshot { .. }) => {}
            Err(e) => return Err(e),
        }
        let mut disk_bytes = 0;
        for disk in self.disks.of(node) {
            disk_bytes += info(&disk).await?.actual_size;
        }
        let about = About { disk_bytes, started_ns: reading.started_ns() };
        let dir = self.disks.about(node, &name);
        let begin = dir.clone();
        self.disks.blocking(move |_| begin_about(&begin, &about)).await?;
        let outcome = match reading.runs() {
            true => self.keep_running(&reading, &name, &dir).await,
            false => self.disks.change_snapshot(node, "-c", &name).await,
        };
        if let Err(error) = outcome {
            self.disks.forget(node, &name);
            if !reading.runs() {
                // In one disk it may be.
                let _ = self.disks.change_snapshot(node, "-d", &name).await;
            }
            return Err(error);
        }
        self.snapshot(&reading.identity, &name).await
    }

    async fn keep_running(&self, reading: &Reading, name: &str, dir: &Path) -> Result<(), Error> {
        let (id, snapshot, file) = (reading.id.clone(), format!("{PREFIX}{name}"), dir.join("domain.xml"));
        let save = move |connect: &Connect| {
            let domain = Domain::lookup_by_uuid_string(connect, &id)?;
            let machine = domain.get_xml_desc(sys::VIR_DOMAIN_XML_MIGRATABLE)?;
            let text = element(&snapshot, &machine, true, false);
            let flags = sys::VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA;
            DomainSnapshot::create_xml(&domain, &text, flags).map(|_| machine)
        };
        let saved = self.saves.call(save).await;
        let machine = saved.map_err(|refused| self.saves.error(refused))?;
        let (console, start) = (self.disks.console(reading.identity.uid), reading.started_ns());
        let log = dir.join("console.log");
        let write = move |_: &Disks| {
            fs::write(&file, machine)
                .map_err(|e| Error::host(format!("cannot write {}", file.display()), e))?;
            let end = log::end(&console, start, CONSOLE).unwrap_or_default();
            fs::write(&log, end).map_err(|e| Error::host(format!("cannot write {}", log.display()), e))
        };
        self.disks.blocking(write).await
    }

    /// Forgets a snapshot.
    pub(super) async fn forget_snapshot(&self, id: &str, name: &str) -> Result<(), Error> {
        let reading = self.there(id).await?;
        let (node, has_memory) =
            (reading.identity.uid, self.snapshot(&reading.identity, name).await?.has_memory);
        if reading.runs() {
            let (id, name) = (id.to_owned(), format!("{PREFIX}{name}"));
            let delete = move |connect: &Connect| {
                let domain = Domain::lookup_by_uuid_string(connect, &id)?;
                let machine = domain.get_xml_desc(sys::VIR_DOMAIN_XML_MIGRATABLE)?;
                told_of(&domain, &element(&name, &machine, has_memory, true))?.delete(0)
            };
            self.saves.call(delete).await.map_err(|refused| self.saves.error(refused))?;
        } else {
            self.disks.change_snapshot(node, "-d", name).await?;
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
        let node = identity.uid;
        if self.snapshot(identity, name).await?.has_memory
            && let Some(machine) = self.as_it_was(name, identity).await?
        {
            let (id, name, xml) = (id.to_owned(), format!("{PREFIX}{name}"), xml.clone());
            let resume = move |connect: &Connect| {
                let domain = Domain::define_xml(connect, &xml)?;
                let snapshot = told_of(&domain, &element(&name, &machine, true, true))?;
                let resumed = snapshot.revert(0);
                snapshot.delete(sys::VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY)?;
                resumed
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
        self.disks.change_snapshot(node, "-a", name).await?;
        self.start(xml).await
    }

    /// The machine as it ran when a snapshot was taken, as the start that is to be; its log begins with the console as it was. None when that is not known.
    async fn as_it_was(&self, name: &str, identity: &Identity) -> Result<Option<String>, Error> {
        let (name, identity) = (name.to_owned(), identity.clone());
        let read = move |disks: &Disks| {
            let dir = disks.about(identity.uid, &name);
            let Some(about) = disks.read_about(identity.uid, &name) else { return Ok(None) };
            let Ok(machine) = fs::read_to_string(dir.join("domain.xml")) else { return Ok(None) };
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

fn begin_about(dir: &Path, about: &About) -> Result<(), Error> {
    let text = serde_json::to_vec(about).expect("it always serialises");
    fs::create_dir_all(dir)
        .and_then(|()| fs::write(dir.join("about.json"), text))
        .map_err(|e| Error::host(format!("cannot write in {}", dir.display()), e))
}

/// Tells libvirt of a snapshot that is there.
fn told_of(domain: &Domain, text: &str) -> Result<DomainSnapshot, VirtError> {
    DomainSnapshot::create_xml(domain, text, sys::VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE)
}

/// A snapshot of a machine, as libvirt reads it: of what it may write to. With the machine itself where it is there already.
fn element(name: &str, machine: &str, has_memory: bool, is_there: bool) -> String {
    let disks = each(machine, "<disk ", "</disk>").filter_map(|disk| {
        let how = if disk.contains("<readonly/>") { "no" } else { "internal" };
        let target = attribute(disk, "<target ", "dev")?;
        Some(format!("<disk name='{target}' snapshot='{how}'/>"))
    });
    let (state, memory) = if has_memory { ("running", "internal") } else { ("shutoff", "no") };
    let there = match is_there {
        // When it was taken, the disk says.
        true => format!("<state>{state}</state><creationTime>1</creationTime>{machine}"),
        false => String::new(),
    };
    format!(
        "<domainsnapshot><name>{name}</name><memory snapshot='{memory}'/><disks>{}</disks>{there}</domainsnapshot>",
        disks.collect::<String>()
    )
}

/// A machine's XML with another start in its metadata.
fn other_start(machine: &str, identity: &Identity) -> String {
    let begin = format!("<{}:instance", super::identity::PREFIX);
    match each(machine, &begin, "/>").next() {
        Some(element) => machine.replace(element, &identity.element()),
        None => machine.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::libvirt::identity::tests::identity;

    #[test]
    fn a_snapshot_is_of_what_is_written_to_and_of_the_start_that_is_to_be() {
        let was = identity().element().replace('\'', "\"");
        let machine = format!(
            "<domain><metadata>\n{was}\n</metadata><disk type='file'><target dev='vda' bus='virtio'/></disk>
             <disk type='file'><target dev='vdb'/><readonly/></disk></domain>"
        );
        let disks = "<disks><disk name='vda' snapshot='internal'/><disk name='vdb' snapshot='no'/></disks>";
        let new = element("netloom-x", &machine, true, false);
        assert!(
            new.contains(disks) && new.contains("<memory snapshot='internal'/>") && !new.contains("<domain>")
        );
        let there = element("netloom-x", &machine, false, true);
        assert!(there.contains("<state>shutoff</state>") && there.contains(&machine), "{there}");
        let next = Identity { started_ns: 99, ..identity() };
        let other = other_start(&machine, &next);
        assert!(other.contains(&next.element()) && !other.contains(&was), "{other}");
    }
}
