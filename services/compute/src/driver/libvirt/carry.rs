//! Disks of machines that go to other hosts, with what belongs to them: snapshots, which are in the disks, and what the firmware keeps.
//!
//! What comes is written to `instances/<node uid>.draft` and has the machine's own directory only once it is whole: so whatever is in that directory is a disk to begin on. It comes from another
//! host, which may be anybody's by now: only names that are known here are taken, its base is the one that this host has under its digest, whatever the disk itself calls it, and a disk that names any
//! other file is refused. How a machine ran when a snapshot was taken, which libvirt would start as it is written, does not come with it: such a snapshot is begun from the disk alone.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use futures::FutureExt as _;
use netloom_model::id::{NodeId, NodeUid};
use netloom_model::observed::NEEDS_IMAGE;
use netloom_model::slice::Instance;
use nix::sys::statvfs::statvfs;
use tokio::process::Command;
use virt::domain::Domain;
use virt_sys as sys;

use super::disks::{self, Base, Disks, FEATURES, QCOW2};
use super::nics::{attribute, each};
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

    /// The files of a machine's disk that are in its directory. What cannot be looked at is not missing: the machine would begin on an empty disk elsewhere.
    fn carried(&self, node: NodeUid) -> Result<Vec<DiskFile>, Error> {
        let dir = self.dir(node);
        let mut names = [DISK, DATA, NVRAM].map(str::to_owned).to_vec();
        let failed = |e| Error::host(format!("cannot read {}", dir.display()), e);
        match fs::read_dir(dir.join(SNAPSHOTS)) {
            Ok(all) => {
                for entry in all {
                    let kept = entry.map_err(failed)?.file_name();
                    let kept = kept.to_string_lossy();
                    names.extend(OF_SNAPSHOTS.map(|file| format!("{SNAPSHOTS}/{kept}/{file}")));
                }
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(failed(e)),
        }
        let mut files = Vec::new();
        for name in names.into_iter().filter(|name| most(name).is_some()) {
            let path = dir.join(&name);
            if is_there(&path)? {
                files.push(DiskFile { name, path });
            }
        }
        Ok(files)
    }

    /// The files of the disk of a machine that libvirt describes so. One that it names and that is not there is gone, or its file system is.
    fn of_machine(&self, node: NodeUid, machine: &str, has_run: bool) -> Result<Vec<DiskFile>, Error> {
        let mut files = self.carried(node)?;
        let nvram = nvram_of(machine);
        // That is made as it starts.
        for path in disks_of(machine).iter().chain(nvram.as_ref().filter(|_| has_run)) {
            if !is_there(path)? {
                return Err(Error::Host(format!(
                    "{} is not there, which the node's machine has: its disk is not copied without it",
                    path.display()
                )));
            }
        }
        if let Some(path) = nvram
            && !files.iter().any(|file| file.name == NVRAM)
            && is_there(&path)?
        {
            files.push(DiskFile { name: NVRAM.to_owned(), path });
        }
        Ok(files)
    }

    /// Refuses a machine whose disk was to be brought here and is not, or lies on another base than it is to be made from.
    pub(super) fn require_brought(&self, instance: &Instance, base: &Path) -> Result<(), Error> {
        let dir = self.dir(instance.uid);
        let disk = dir.join(DISK);
        let lies_on = below(&disk).map_err(|e| Error::host(format!("cannot read {}", disk.display()), e))?;
        let why = match lies_on.filter(|on| base.file_name() != Some(on.as_ref())) {
            Some(on) => format!("lies on sha256:{on}, which is not the image that it is to be made from"),
            None if !is_there(&dir)? => "is not here: it did not come, or is gone since".to_owned(),
            None => return Ok(()),
        };
        let node = &instance.spec.id;
        Err(Error::NoDisk(format!(
            "the disk of node {node}, which is to come from another host, {why}; netloom node wipe {} {node} makes it with an empty one",
            instance.lab
        )))
    }

    /// Judges what came: the base of this host that the disk is to lie on; none where no disk came.
    fn judge(&self, node: NodeUid) -> Result<Option<Base>, Error> {
        let [disk, data, nvram] = [DISK, DATA, NVRAM].map(|name| self.draft(node).join(name));
        let refused = |what: &str, why: &str| Error::Refused(format!("{what} that came: {why}"));
        if let Some(head) = head(&data)? {
            let judged = disks::refuse_external_data(&head).and_then(|()| disks::format(&head));
            judged.map_err(|why| refused("a second disk", &why))?;
        }
        if head(&nvram)?.is_some_and(|head| head.starts_with(QCOW2)) {
            return Err(refused("what the firmware keeps", "it is a qcow2, which may name other files"));
        }
        let Some(head) = head(&disk)? else { return Ok(None) };
        disks::refuse_external_data(&head).map_err(|why| refused("a disk", &why))?;
        let lies_on = below(&disk).map_err(|e| Error::host(format!("cannot read {}", disk.display()), e))?;
        let name = lies_on.ok_or_else(|| refused("a disk", "it lies on no image"))?;
        let lost = || Error::ImageLost(format!("{NEEDS_IMAGE} sha256:{name}, which its disk lies on"));
        self.base(&format!("sha256:{name}"))?.ok_or_else(lost).map(Some)
    }

    /// Judges what came, and puts the base of this host below it.
    async fn adopt(&self, node: NodeUid) -> Result<(), Error> {
        let Some(base) = self.blocking(move |disks| disks.judge(node)).await? else { return Ok(()) };
        let disk = self.draft(node).join(DISK);
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

/// Most bytes of a file of this name that a disk consists of; none for any other name.
fn most(name: &str) -> Option<u64> {
    match name.split('/').collect::<Vec<_>>()[..] {
        [DISK | DATA] => Some(64 << 40),
        [NVRAM] => Some(64 << 20),
        [SNAPSHOTS, id, file] if OF_SNAPSHOTS.contains(&file) && id.parse::<NodeId>().is_ok() => {
            Some(16 << 20)
        }
        _ => None,
    }
}

fn is_there(path: &Path) -> Result<bool, Error> {
    path.try_exists().map_err(|e| Error::host(format!("cannot look at {}", path.display()), e))
}

/// What a disk begins with; none when there is none.
fn head(disk: &Path) -> Result<Option<Vec<u8>>, Error> {
    let file = match File::open(disk) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|e| Error::host(format!("cannot open {}", disk.display()), e))?,
    };
    let mut head = Vec::new();
    let read = file.take(FEATURES as u64 + 8).read_to_end(&mut head);
    read.map_err(|e| Error::host(format!("cannot read {}", disk.display()), e))?;
    Ok(Some(head))
}

/// Syncs a directory, after those in it.
fn sync_all(dir: &Path) -> Result<(), Error> {
    let failed = |e| Error::host(format!("cannot read {}", dir.display()), e);
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            sync_all(&entry.path())?;
        }
    }
    sync(dir)
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

/// The files of the disks that a machine writes to.
fn disks_of(machine: &str) -> Vec<PathBuf> {
    let written = each(machine, "<disk ", "</disk>").filter(|disk| !disk.contains("<readonly/>"));
    written.filter_map(|disk| Some(xml::plain(attribute(disk, "<source ", "file")?).into())).collect()
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
    fn files(&self, node: NodeUid, wipes: u64, also_running: bool) -> Answer<'_, Vec<DiskFile>> {
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
            let files = move |disks: &Disks| match machine {
                Some((reading, text)) => disks.of_machine(node, &text, reading.started_ns() != 0),
                // What was wiped is to be made with an empty one.
                None if disks.wipes(node)? < wipes => Ok(Vec::new()),
                None => disks.carried(node),
            };
            self.disks.blocking(files).await
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

    fn room(&self) -> Answer<'_, u64> {
        let room = |disks: &Disks| {
            let dir = &disks.instances;
            let of = statvfs(dir)
                .map_err(|e| Error::host(format!("cannot ask for room at {}", dir.display()), e))?;
            Ok(of.blocks_available().saturating_mul(of.fragment_size()))
        };
        self.disks.blocking(room).boxed()
    }

    fn place(&self, node: NodeUid, name: &str, size_bytes: u64) -> Result<PathBuf, Error> {
        match most(name) {
            Some(most) if size_bytes <= most => Ok(self.disks.draft(node).join(name)),
            _ => Err(Error::Refused(format!("\"{name}\" of {size_bytes} bytes is no file of a disk"))),
        }
    }

    fn take(&self, node: NodeUid) -> Answer<'_, ()> {
        async move {
            self.disks.adopt(node).await?;
            let take = move |disks: &Disks| {
                let (draft, dir) = (disks.draft(node), disks.dir(node));
                sync_all(&draft)?;
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
    use crate::driver::testing::instance;
    use netloom_model::id::Digest;

    #[test]
    fn only_files_of_disks_are_taken() {
        for name in ["disk.qcow2", "data.qcow2", "nvram.fd", "snapshots/a-1/about.json"] {
            assert!(most(name).is_some(), "{name}");
        }
        let others = ["", "wipes", "config.iso", "/etc/passwd", "../x", "snapshots/../about.json"];
        for name in others.into_iter().chain(["snapshots/a/domain.xml", "snapshots/a/b/about.json"]) {
            assert_eq!(most(name), None, "{name}");
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
    fn a_disk_of_which_a_file_is_missing_or_cannot_be_looked_at_is_not_given() {
        let dir = tempfile::tempdir().unwrap();
        let disks = Disks::open(dir.path()).unwrap();
        let node = NodeUid::new();
        let home = disks.dir(node);
        let disk = |file: &str, more: &str| {
            format!("<disk type='file' device='disk'><source file='{file}'/>{more}</disk>")
        };
        let named = |name: &str| home.join(name).display().to_string();
        let machine = format!(
            "<domain><os><nvram>{}</nvram></os><devices>{}{}</devices></domain>",
            dir.path().join("vars").display(),
            disk(&named(DISK), ""),
            disk(&named("config.iso"), "<readonly/>")
        );
        let files = |has_run| {
            let files = disks.of_machine(node, &machine, has_run)?;
            Ok::<_, Error>(files.into_iter().map(|file| file.name).collect::<Vec<_>>())
        };
        let refused = |file: &str| {
            let said = files(true).unwrap_err().to_string();
            assert!(said.contains(file), "{said}");
        };
        // Its directory is gone, or the file system that it was on.
        refused(DISK);
        fs::create_dir(&home).unwrap();
        refused(DISK);
        fs::write(home.join(DISK), "").unwrap();
        refused("vars");
        assert_eq!(files(false).unwrap(), [DISK], "it is made as it starts");
        fs::write(dir.path().join("vars"), "").unwrap();
        assert_eq!(files(true).unwrap(), [DISK, NVRAM]);
        // A link to itself stands for what cannot be looked at.
        std::os::unix::fs::symlink(DATA, home.join(DATA)).unwrap();
        refused(DATA);
        disks.carried(node).unwrap_err();
    }

    /// The beginning of a qcow2 whose data is elsewhere or not, and that lies on the file of that name or on none.
    fn qcow2(external: bool, on: &str, at: u64) -> Vec<u8> {
        let mut head = vec![0; 104];
        head[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
        head[FEATURES + 7] = if external { 4 } else { 0 };
        if !on.is_empty() {
            head[8..16].copy_from_slice(&at.to_be_bytes());
            head[16..20].copy_from_slice(&u32::try_from(on.len()).unwrap().to_be_bytes());
            head.resize(usize::try_from(at).unwrap(), 0);
            head.extend_from_slice(on.as_bytes());
        }
        head
    }

    #[test]
    fn what_names_files_of_this_host_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let disks = Disks::open(dir.path()).unwrap();
        let node = NodeUid::new();
        let image = Digest::of(b"a raw disk");
        let base = image.as_str()["sha256:".len()..].to_owned();
        fs::write(disks.images.join(&base), "a raw disk").unwrap();
        let judge = |files: &[(&str, Vec<u8>)]| {
            let draft = disks.draft(node);
            disks::remove_all(&draft).unwrap();
            fs::create_dir(&draft).unwrap();
            for (name, content) in files {
                fs::write(draft.join(name), content).unwrap();
            }
            disks.judge(node)
        };
        let disk = || (DISK, qcow2(false, &format!("/elsewhere/{base}"), 104));
        let found = judge(&[disk(), (DATA, qcow2(false, "", 0)), (NVRAM, b"vars".to_vec())]).unwrap();
        assert_eq!(found.unwrap().path, disks.images.join(&base));
        assert_eq!(judge(&[]).unwrap(), None);
        let bad = [
            vec![(DISK, qcow2(true, &base, 104))],
            vec![(DISK, qcow2(false, "", 0))],
            vec![(DISK, qcow2(false, &base, 2 << 20))],
            vec![(DISK, b"raw".to_vec())],
            vec![disk(), (DATA, qcow2(true, "", 0))],
            vec![disk(), (DATA, qcow2(false, "/etc/shadow", 104))],
            vec![disk(), (DATA, qcow2(false, "/etc/shadow", 2 << 20))],
            vec![disk(), (DATA, b"raw".to_vec())],
            vec![disk(), (NVRAM, qcow2(false, "", 0))],
        ];
        for (i, files) in bad.iter().enumerate() {
            let refused = judge(files).unwrap_err();
            assert!(matches!(refused, Error::Refused(_)), "{i}: {refused}");
        }
        let other = "ab".repeat(32);
        let lost = judge(&[(DISK, qcow2(false, &other, 104))]).unwrap_err();
        assert!(matches!(&lost, Error::ImageLost(why) if why.contains(&other)), "{lost}");
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
        let instance = Instance { uid: node, ..instance() };
        let refused = disks.require_brought(&instance, base).unwrap_err().to_string();
        assert!(refused.contains("is not here") && refused.contains("netloom node wipe x r1 "), "{refused}");
        // Nothing had been written to it: there is nothing to be brought.
        fs::create_dir(disks.dir(node)).unwrap();
        disks.require_brought(&instance, base).unwrap();
        let (ab, cd) = ("ab".repeat(32), "cd".repeat(32));
        fs::write(disks.dir(node).join(DISK), qcow2(false, &format!("/elsewhere/{ab}"), 104)).unwrap();
        disks.require_brought(&instance, &Path::new("/images").join(&ab)).unwrap();
        let refused = disks.require_brought(&instance, &Path::new("/images").join(&cd)).unwrap_err();
        let lies_on = format!("lies on sha256:{ab}");
        assert!(matches!(&refused, Error::NoDisk(why) if why.contains(&lies_on)), "{refused}");
    }
}
