//! Disks of machines that go to other hosts, with what belongs to them: snapshots, which are in the disks, and what the firmware keeps.
//!
//! What comes is written to `instances/<node uid>.draft` and has the machine's own directory only once it is whole: so whatever is in that directory is a disk to begin on. It comes from another
//! host, which may be anybody's by now: only names that are known here are taken, its base is the one that this host has under its digest, whatever the disk itself calls it, and a disk that names any
//! other file is refused. How a machine ran when a snapshot was taken, which libvirt would start as it is written, does not come with it: such a snapshot is begun from the disk alone.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use futures::FutureExt as _;
use netloom_model::id::{NodeId, NodeUid};
use netloom_model::observed::NEEDS_IMAGE;
use tokio::process::Command;
use virt::domain::Domain;
use virt_sys as sys;

use super::disks::{self, Disks, FEATURES};
use super::nics::each;
use super::read::{self, Reading};
use super::{LibvirtDriver, xml};
use crate::driver::{Answer, Carries, DiskFile, ImageFormat};
use crate::error::Error;
use crate::images::shelf::below;

const DISK: &str = "disk.qcow2";
const DATA: &str = "data.qcow2";
const NVRAM: &str = "nvram.fd";
const SNAPSHOTS: &str = "snapshots";
/// What of a snapshot comes with it.
const OF_SNAPSHOTS: [&str; 2] = ["about.json", "console.log"];
/// What a disk that is on its way ends in.
const DRAFT: &str = ".draft";

impl Disks {
    fn draft(&self, node: NodeUid) -> PathBuf {
        self.instances.join(format!("{node}{DRAFT}"))
    }

    /// Removes what was on its way when this service ended: whoever sent it begins anew.
    pub(super) fn remove_drafts(&self) -> Result<(), Error> {
        let failed = |e| Error::host(format!("cannot read {}", self.instances.display()), e);
        for entry in fs::read_dir(&self.instances).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().to_string_lossy().ends_with(DRAFT) {
                disks::remove_all(&entry.path())?;
            }
        }
        Ok(())
    }

    /// What the firmware of a machine keeps, where it came with its disk.
    pub(super) fn nvram(&self, node: NodeUid) -> Option<PathBuf> {
        Some(self.dir(node).join(NVRAM)).filter(|file| file.exists())
    }

    /// The files of a machine's disk that are in its directory.
    fn carried(&self, node: NodeUid) -> Result<Vec<DiskFile>, Error> {
        let dir = self.dir(node);
        let mut names = [DISK, DATA, NVRAM].map(str::to_owned).to_vec();
        match fs::read_dir(dir.join(SNAPSHOTS)) {
            Ok(all) => {
                let kept = all.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
                names.extend(
                    kept.flat_map(|kept| OF_SNAPSHOTS.map(|file| format!("{SNAPSHOTS}/{kept}/{file}"))),
                );
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::host(format!("cannot read {}", dir.display()), e)),
        }
        let files = names.into_iter().map(|name| DiskFile { path: dir.join(&name), name });
        Ok(files.filter(|file| is_carried(&file.name) && file.path.is_file()).collect())
    }

    /// Refuses a machine whose disk was to be brought here and is not, or lies on another base than it is to be made from.
    pub(super) fn require_brought(&self, node: NodeUid, name: &str, base: &Path) -> Result<(), Error> {
        let disk = self.dir(node).join(DISK);
        let lies_on = below(&disk).map_err(|e| Error::host(format!("cannot read {}", disk.display()), e))?;
        let lies_elsewhere = lies_on.is_some_and(|on| base.file_name() != Some(on.as_ref()));
        if self.dir(node).exists() && !lies_elsewhere {
            return Ok(());
        }
        Err(Error::NoDisk(format!(
            "the disk of node {name}, which is to come from another host, is not here: it is not made with an empty one"
        )))
    }

    /// Judges what came, and puts the base of this host below it.
    async fn adopt(&self, node: NodeUid) -> Result<(), Error> {
        let (disk, data) = (self.draft(node).join(DISK), self.draft(node).join(DATA));
        let judged = self
            .blocking(move |disks| {
                for file in [&disk, &data] {
                    refuse_others(file)?;
                }
                let failed = |e| Error::host("what came of a disk cannot be read", e);
                if below(&data).map_err(failed)?.is_some() {
                    return Err(Error::Refused("a second disk that came lies on another file".to_owned()));
                }
                let Some(name) = below(&disk).map_err(failed)? else {
                    return match disk.exists() {
                        true => Err(Error::Refused("a disk that came lies on no image".to_owned())),
                        false => Ok(None),
                    };
                };
                let base = disks.base(&format!("sha256:{name}"))?.ok_or_else(|| {
                    Error::ImageLost(format!("{NEEDS_IMAGE} sha256:{name}, which its disk lies on"))
                })?;
                Ok(Some((disk, base)))
            })
            .await?;
        let Some((disk, base)) = judged else { return Ok(()) };
        let format = match base.format {
            ImageFormat::Qcow2 => "qcow2",
            _ => "raw",
        };
        let mut command = Command::new("qemu-img");
        command.args(["rebase", "-q", "-u", "-f", "qcow2", "-F", format, "-b"]).arg(&base.path).arg(&disk);
        disks::run(command).await?;
        self.blocking(move |_| sync(&disk)).await
    }
}

/// True for a name of a file that a disk consists of.
fn is_carried(name: &str) -> bool {
    if [DISK, DATA, NVRAM].contains(&name) {
        return true;
    }
    let parts: Vec<&str> = name.split('/').collect();
    matches!(parts[..], [SNAPSHOTS, id, file] if OF_SNAPSHOTS.contains(&file) && id.parse::<NodeId>().is_ok())
}

/// Refuses a file that is no qcow2, or keeps its data elsewhere; fine when there is none.
fn refuse_others(disk: &Path) -> Result<(), Error> {
    let file = match File::open(disk) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|e| Error::host(format!("cannot open {}", disk.display()), e))?,
    };
    let mut header = Vec::new();
    let read = file.take(FEATURES as u64 + 8).read_to_end(&mut header);
    read.map_err(|e| Error::host(format!("cannot read {}", disk.display()), e))?;
    disks::refuse_external_data(&header).map_err(|why| Error::Refused(format!("a disk that came: {why}")))
}

fn sync(path: &Path) -> Result<(), Error> {
    let synced = File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|e| Error::host(format!("cannot write {}", path.display()), e))
}

/// The file that libvirt says the firmware of a machine keeps its things in.
fn nvram_of(machine: &str) -> Option<PathBuf> {
    let element = each(machine, "<nvram", "</nvram>").next()?;
    let inside = element.strip_suffix("</nvram>")?.split_once('>')?.1.trim();
    Some(PathBuf::from(xml::plain(inside))).filter(|path| path.is_absolute())
}

impl LibvirtDriver {
    /// The machine of a node, and how it is described; none when there is none.
    async fn described(&self, node: NodeUid) -> Result<Option<(Reading, String)>, Error> {
        let owner = self.owner;
        let look = move |connect: &_| {
            let ours = read::all(connect)?.into_iter().filter_map(|seen| Reading::new(seen, owner));
            let Some(reading) = ours.into_iter().find(|r| r.identity.uid == node) else { return Ok(None) };
            let domain = Domain::lookup_by_uuid_string(connect, &reading.id)?;
            let text = domain.get_xml_desc(sys::VIR_DOMAIN_XML_INACTIVE)?;
            Ok(Some((reading, text)))
        };
        let seen = self.looks.call(look).await.map_err(|refused| self.looks.error(refused))?;
        Ok(seen.map(|(reading, text)| (self.lives.judge(reading), text)))
    }
}

impl Carries for LibvirtDriver {
    fn files(&self, node: NodeUid, also_running: bool) -> Answer<'_, Vec<DiskFile>> {
        async move {
            let machine = self.described(node).await?;
            if let Some((reading, _)) = machine.as_ref().filter(|_| !also_running)
                && (reading.runs() || reading.is_dead())
            {
                return Err(Error::Busy(format!(
                    "the disk of node {} is not read while its machine runs",
                    reading.identity.node
                )));
            }
            let nvram = machine.and_then(|(_, text)| nvram_of(&text));
            self.disks
                .blocking(move |disks| {
                    let mut files = disks.carried(node)?;
                    let kept = nvram.filter(|path| path.is_file() && !files.iter().any(|f| f.name == NVRAM));
                    files.extend(kept.map(|path| DiskFile { name: NVRAM.to_owned(), path }));
                    Ok(files)
                })
                .await
        }
        .boxed()
    }

    fn begin(&self, node: NodeUid) -> Answer<'_, bool> {
        let begin = move |disks: &Disks| {
            if disks.dir(node).exists() {
                return Ok(false);
            }
            let draft = disks.draft(node);
            disks::remove_all(&draft)?;
            let made = fs::create_dir(&draft);
            made.map(|()| true).map_err(|e| Error::host(format!("cannot make {}", draft.display()), e))
        };
        self.disks.blocking(begin).boxed()
    }

    fn place(&self, node: NodeUid, name: &str) -> Result<PathBuf, Error> {
        match is_carried(name) {
            true => Ok(self.disks.draft(node).join(name)),
            false => Err(Error::Refused(format!("\"{name}\" is no file of a disk"))),
        }
    }

    fn take(&self, node: NodeUid) -> Answer<'_, ()> {
        async move {
            self.disks.adopt(node).await?;
            let take = move |disks: &Disks| {
                let (draft, dir) = (disks.draft(node), disks.dir(node));
                sync(&draft)?;
                let named = fs::rename(&draft, &dir);
                named.map_err(|e| Error::host(format!("cannot make {}", dir.display()), e))?;
                sync(&disks.instances)
            };
            self.disks.blocking(take).await
        }
        .boxed()
    }

    fn forget(&self, node: NodeUid) -> Answer<'_, ()> {
        let forget = move |disks: &Disks| {
            disks::remove_all(&disks.draft(node))?;
            disks.remove(node)
        };
        self.disks.blocking(forget).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_disks_are_taken() {
        for name in ["disk.qcow2", "data.qcow2", "nvram.fd", "snapshots/a-1/about.json"] {
            assert!(is_carried(name), "{name}");
        }
        let others = ["", "wipes", "config.iso", "/etc/passwd", "../x", "snapshots/../about.json"];
        for name in others.into_iter().chain(["snapshots/a/domain.xml", "snapshots/a/b/about.json"]) {
            assert!(!is_carried(name), "{name}");
        }
    }

    #[test]
    fn what_the_firmware_keeps_is_where_libvirt_says() {
        let machine = "<os><nvram template='/t.fd'>/var/lib/a&amp;b_VARS.fd</nvram></os>";
        assert_eq!(nvram_of(machine), Some(PathBuf::from("/var/lib/a&b_VARS.fd")));
        assert_eq!(nvram_of("<os><nvram/></os>"), None);
        assert_eq!(nvram_of("<os/>"), None);
    }

    #[test]
    fn what_was_on_its_way_is_gone_after_a_start_and_disks_stay() {
        let dir = tempfile::tempdir().unwrap();
        let disks = Disks::open(dir.path()).unwrap();
        let (one, other) = (NodeUid::new(), NodeUid::new());
        fs::create_dir_all(disks.draft(one).join(SNAPSHOTS)).unwrap();
        fs::create_dir(disks.dir(other)).unwrap();
        let disks = Disks::open(dir.path()).unwrap();
        assert!(!disks.draft(one).exists() && disks.dir(other).exists());
    }

    #[test]
    fn a_machine_is_not_made_without_the_disk_that_was_to_come() {
        let dir = tempfile::tempdir().unwrap();
        let disks = Disks::open(dir.path()).unwrap();
        let (node, base) = (NodeUid::new(), Path::new("/images/ab"));
        let refused = disks.require_brought(node, "vm", base).unwrap_err();
        assert!(matches!(refused, Error::NoDisk(_)), "{refused}");
        // Nothing had been written to it: there is nothing to be brought.
        fs::create_dir(disks.dir(node)).unwrap();
        disks.require_brought(node, "vm", base).unwrap();
        let overlay = |on: &str| {
            let mut head = vec![0; 512];
            head[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
            head[8..16].copy_from_slice(&512u64.to_be_bytes());
            head[16..20].copy_from_slice(&u32::try_from(on.len()).unwrap().to_be_bytes());
            head.extend_from_slice(on.as_bytes());
            head
        };
        let (ab, cd) = ("ab".repeat(32), "cd".repeat(32));
        fs::write(disks.dir(node).join(DISK), overlay(&format!("/elsewhere/{ab}"))).unwrap();
        disks.require_brought(node, "vm", &Path::new("/images").join(&ab)).unwrap();
        let refused = disks.require_brought(node, "vm", &Path::new("/images").join(&cd)).unwrap_err();
        assert!(matches!(refused, Error::NoDisk(_)), "{refused}");
    }
}
