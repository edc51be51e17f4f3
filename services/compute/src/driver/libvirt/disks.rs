//! Disks of virtual machines. A base image is a file of its digest's name that is never written to; each machine has an overlay of its own on it, which stays while the machine does.
//!
//! | path below the data directory | what |
//! |---|---|
//! | `images/<sha256>` | a base image, mode 0444 |
//! | `instances/<node uid>/disk.qcow2` | the overlay; under `disk.new` until it is whole |
//! | `instances/<node uid>/data.qcow2` | the empty second disk, where the kind has one |
//! | `instances/<node uid>/config.iso` | the medium that its configuration is on, where the kind has one: made anew for each start |
//! | `instances/<node uid>/console/<start>.log` | what the console wrote in that start |
//! | `instances/<node uid>/snapshots/<name>/` | what is known of a snapshot, which itself is in the disks: see `snapshots` |
//! | `instances/<node uid>/nvram.fd` | what the firmware of an EFI machine keeps, where its disk came from another host: else libvirt has it |
//! | `instances/<node uid>.draft/` | a disk that is on its way from another host: see `carry` |
//! | `instances/<node uid>/wipes` | how often it had been wiped when its disks were made; not there: never |
//!
//! The disks of a machine that is removed go before its domain does. So a disk without a domain is one that somebody took the domain away from, or whose domain was about to be made: what its guest wrote is kept.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use netloom_model::id::{Digest, NodeUid};
use netloom_model::observed::NEEDS_IMAGE;
use netloom_model::slice::Instance;
use nix::libc;
use tokio::process::Command;

use crate::driver::ImageFormat;
use crate::error::Error;
use crate::images::shelf::below;

/// Offsets in the header of a qcow2 file, of the name of another file that it needs and of its features; and the feature of keeping its data in another file.
const BACKING_FILE: usize = 8;
pub(super) const FEATURES: usize = 72;
const EXTERNAL_DATA: u64 = 1 << 2;
pub(super) const QCOW2: &[u8] = b"QFI\xfb";
const WIPES: &str = "wipes";

/// See the module.
#[derive(Debug, Clone)]
pub struct Disks {
    pub(super) images: PathBuf,
    pub(super) instances: PathBuf,
}

/// A base image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// The file.
    pub path: PathBuf,
    /// Its digest.
    pub digest: Digest,
    /// Its format, by its content.
    pub format: ImageFormat,
    /// Its bytes.
    pub size_bytes: u64,
}

/// A buffer as direct I/O wants it.
#[repr(align(4096))]
struct Block([u8; 4096]);

/// True when machines of an earlier run may be there: each has a directory before it is defined, and as long as it may run. One whose directory cannot be read may be there too.
pub fn has_machines(data_dir: &Path) -> bool {
    match fs::read_dir(data_dir.join("instances")) {
        Ok(mut found) => found.any(|entry| {
            entry.map_or(true, |e| e.file_name().to_str().is_some_and(|name| name.parse::<NodeUid>().is_ok()))
        }),
        Err(e) => e.kind() != io::ErrorKind::NotFound,
    }
}

impl Disks {
    /// In this data directory.
    pub fn open(data_dir: &Path) -> Result<Disks, Error> {
        let absolute =
            std::path::absolute(data_dir).map_err(|e| Error::host("the data directory has no path", e))?;
        let disks = Disks { images: absolute.join("images"), instances: absolute.join("instances") };
        for dir in [&disks.images, &disks.instances] {
            fs::create_dir_all(dir).map_err(|e| Error::host(format!("cannot make {}", dir.display()), e))?;
        }
        disks.remove_drafts()?;
        Ok(disks)
    }

    /// Finds out that both file systems bypass the page cache when they are asked to: without it QEMU cannot, and would be told only when a machine starts.
    pub fn require_direct_io(&self) -> Result<(), Error> {
        for dir in [&self.images, &self.instances] {
            let file = dir.join(format!(".direct-io-{}", std::process::id()));
            let tried = try_direct_io(&file);
            let _ = fs::remove_file(&file);
            match tried {
                Ok(()) => {}
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                    return Err(Error::NoDirectIo(format!(
                        "the file system of {} has no direct I/O (O_DIRECT), which disks of virtual machines need: put data_dir on one that has it, such as ext4 or xfs",
                        dir.display()
                    )));
                }
                Err(e) => return Err(Error::host(format!("cannot write in {}", dir.display()), e)),
            }
        }
        Ok(())
    }

    /// The base image that a reference names by its digest: `sha256:…`, or `name@sha256:…`. None when it is not here.
    pub fn base(&self, reference: &str) -> Result<Option<Base>, Error> {
        let digest = reference.rsplit_once('@').map_or(reference, |(_, digest)| digest);
        let Ok(digest) = Digest::try_from(digest.to_owned()) else { return Ok(None) };
        let path = self.images.join(&digest.as_str()["sha256:".len()..]);
        let file = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|e| Error::host(format!("cannot open {}", path.display()), e))?,
        };
        let failed = |e| Error::host(format!("cannot read {}", path.display()), e);
        let size_bytes = file.metadata().map_err(failed)?.len();
        let mut header = Vec::new();
        file.take(FEATURES as u64 + 8).read_to_end(&mut header).map_err(failed)?;
        let format = format(&header).map_err(|why| Error::Refused(format!("image {reference}: {why}")))?;
        // Nobody but the one who brought it writes to it, and that is over.
        fs::set_permissions(&path, Permissions::from_mode(0o444)).map_err(failed)?;
        Ok(Some(Base { path, digest, format, size_bytes }))
    }

    /// The directory of a machine.
    pub(super) fn dir(&self, node: NodeUid) -> PathBuf {
        self.instances.join(node.to_string())
    }

    /// The disks that a machine has.
    pub fn of(&self, node: NodeUid) -> Vec<PathBuf> {
        let disks = ["disk.qcow2", "data.qcow2"].map(|name| self.dir(node).join(name));
        disks.into_iter().filter(|disk| disk.exists()).collect()
    }

    /// Refuses a machine whose disk lies on a base that is not here any more. What is found to be something else is set aside also while machines run on it, and QEMU would say only that
    /// it cannot open a file.
    pub fn require_base(&self, node: NodeUid) -> Result<(), Error> {
        let disk = self.dir(node).join("disk.qcow2");
        let failed = |e| Error::host(format!("cannot read {}", disk.display()), e);
        let Some(name) = below(&disk).map_err(failed)? else { return Ok(()) };
        match self.images.join(&name).try_exists().map_err(failed)? {
            true => Ok(()),
            false => Err(Error::ImageLost(format!(
                "{NEEDS_IMAGE} sha256:{name} again: its disk lies on it, and it is gone from this host or was set aside there; it is fetched from the store, to which it is to be pushed again when that has lost it too"
            ))),
        }
    }

    /// True when this base was set aside after that time: what has run on it since then reads what is not in it.
    pub fn was_spoiled(&self, base: &str, since_ns: i64) -> bool {
        let name = base.strip_prefix("sha256:").unwrap_or(base);
        let aside = fs::metadata(self.images.join("quarantine").join(name));
        let since = UNIX_EPOCH + Duration::from_nanos(since_ns.try_into().unwrap_or_default());
        aside.and_then(|aside| aside.modified()).is_ok_and(|at| at > since)
    }

    /// The medium that a machine's configuration is on, whether it is there or not.
    pub fn medium(&self, node: NodeUid) -> PathBuf {
        self.dir(node).join("config.iso")
    }

    /// Puts a medium in the place of an earlier one. It may hold passwords.
    pub fn write_medium(&self, node: NodeUid, image: &[u8]) -> Result<(), Error> {
        let path = self.medium(node);
        let write = || {
            // libvirt gives a file to the user that runs QEMU, so this is another one.
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?.write_all(image)
        };
        write().map_err(|e| Error::host(format!("cannot write {}", path.display()), e))
    }

    /// Where logs of a machine's console are.
    pub fn console(&self, node: NodeUid) -> PathBuf {
        self.dir(node).join("console")
    }

    /// Makes the disks of a new machine. Those that are there already on the same base and were not wiped since stay; any other goes, but for a disk that came from another host: a machine that
    /// is to have one is made on that, or not at all.
    pub async fn make(&self, instance: &Instance, base: &Base, data_gib: u32) -> Result<(), Error> {
        let (node, wipes, on) = (instance.uid, instance.wipes, base.path.clone());
        if instance.brings_disk() {
            let (instance, on) = (instance.clone(), on.clone());
            self.blocking(move |disks| disks.require_brought(&instance, &on)).await?;
        }
        self.blocking(move |disks| disks.prepare(node, &on, wipes)).await?;
        let dir = self.dir(node);
        let format = match base.format {
            ImageFormat::Qcow2 => "qcow2",
            _ => "raw",
        };
        let overlay = ["-F".as_ref(), format.as_ref(), "-b".as_ref(), base.path.as_os_str()];
        create(&dir.join("disk.qcow2"), &overlay, None).await?;
        if data_gib > 0 {
            create(&dir.join("data.qcow2"), &[], Some(format!("{data_gib}G"))).await?;
        }
        Ok(())
    }

    /// Makes room for the disks of a machine on this base: all that is there goes, unless its overlay lies on that.
    fn prepare(&self, node: NodeUid, base: &Path, wipes: u64) -> Result<(), Error> {
        let disk = self.dir(node).join("disk.qcow2");
        let lies_on = below(&disk).map_err(|e| Error::host(format!("cannot read {}", disk.display()), e))?;
        // By its name, which is the digest: the directory may be called otherwise by now.
        let lies_there = lies_on.as_deref().is_some_and(|name| base.file_name() == Some(name.as_ref()));
        if lies_there && self.wipes(node)? >= wipes {
            tracing::warn!(disk = %disk.display(), "a machine is made anew on the disk that it had");
        } else {
            self.remove(node)?;
        }
        let console = self.console(node);
        fs::create_dir_all(&console)
            .map_err(|e| Error::host(format!("cannot make {}", console.display()), e))?;
        if wipes > 0 {
            let number = self.dir(node).join(WIPES);
            let written = fs::write(&number, wipes.to_string());
            written.map_err(|e| Error::host(format!("cannot write {}", number.display()), e))?;
        }
        Ok(())
    }

    /// How often a machine had been wiped when its disks were made.
    pub(super) fn wipes(&self, node: NodeUid) -> Result<u64, Error> {
        let number = self.dir(node).join(WIPES);
        match fs::read_to_string(&number) {
            Ok(text) => Ok(text.trim().parse().unwrap_or(0)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(e) => Err(Error::host(format!("cannot read {}", number.display()), e)),
        }
    }

    /// Does something with disks where it may take its time.
    pub async fn blocking<T: Send + 'static>(
        &self,
        what: impl FnOnce(&Disks) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let disks = self.clone();
        super::blocking(move || what(&disks)).await
    }

    /// Removes everything of a machine; fine when there is nothing.
    pub fn remove(&self, node: NodeUid) -> Result<(), Error> {
        remove_all(&self.dir(node))
    }
}

/// Removes a directory with all that is in it; fine when there is none.
pub(super) fn remove_all(dir: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::host(format!("cannot remove {}", dir.display()), e))
        }
        _ => Ok(()),
    }
}

/// The format of a disk by its first bytes. `Err` for a qcow2 that needs another file of the host, whatever that may be.
pub(super) fn format(header: &[u8]) -> Result<ImageFormat, String> {
    if !header.starts_with(QCOW2) {
        return Ok(ImageFormat::Raw);
    }
    if number(header, BACKING_FILE)? != 0 {
        return Err(
            "it is an overlay on another file: convert it to one of its own (qemu-img convert)".to_owned()
        );
    }
    refuse_external_data(header)?;
    Ok(ImageFormat::Qcow2)
}

/// Refuses by its first bytes what is no qcow2, or one that keeps its data in another file of the host.
pub(super) fn refuse_external_data(header: &[u8]) -> Result<(), String> {
    if !header.starts_with(QCOW2) {
        return Err("it is no qcow2".to_owned());
    }
    // Version 2 has no features.
    let version = number(header, 0)? & 0xffff_ffff;
    if version >= 3 && number(header, FEATURES)? & EXTERNAL_DATA != 0 {
        return Err(
            "it keeps its data in another file: convert it to one of its own (qemu-img convert)".to_owned()
        );
    }
    Ok(())
}

fn number(header: &[u8], at: usize) -> Result<u64, String> {
    let digits = header.get(at..at + 8).and_then(|b| b.try_into().ok());
    digits.map(u64::from_be_bytes).ok_or_else(|| "it is cut off".to_owned())
}

fn try_direct_io(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).custom_flags(libc::O_DIRECT);
    options.open(path)?.write_all(&Box::new(Block([0; 4096])).0)
}

/// Makes a disk that is not there yet. It has its name only once it is whole.
async fn create(disk: &Path, options: &[&OsStr], size: Option<String>) -> Result<(), Error> {
    let failed = |e| Error::host(format!("cannot make {}", disk.display()), e);
    if tokio::fs::try_exists(disk).await.map_err(failed)? {
        return Ok(());
    }
    let new = disk.with_extension("new");
    let mut command = Command::new("qemu-img");
    command.args(["create", "-q", "-f", "qcow2"]).args(options).arg(&new).args(size);
    run(command).await?;
    tokio::fs::File::open(&new).await.map_err(failed)?.sync_all().await.map_err(failed)?;
    tokio::fs::rename(&new, disk).await.map_err(failed)
}

pub(super) async fn run(mut command: Command) -> Result<Vec<u8>, Error> {
    let output = command
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|e| Error::host("qemu-img cannot be run (install qemu-utils)", e))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::Refused(said.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::mount::{MsFlags, mount, umount};

    #[test]
    fn an_image_that_needs_another_file_is_refused() {
        let mut header = vec![0; 104];
        header[..4].copy_from_slice(QCOW2);
        header[7] = 3;
        assert_eq!(format(&header), Ok(ImageFormat::Qcow2));
        header[FEATURES + 7] = 4;
        assert!(format(&header).unwrap_err().contains("keeps its data in another file"));
        header[7] = 2;
        assert_eq!(format(&header), Ok(ImageFormat::Qcow2), "version 2 has no features there");
        header[BACKING_FILE + 6] = 1;
        assert!(format(&header).unwrap_err().contains("overlay"));
        assert!(format(&header[..10]).unwrap_err().contains("cut off"));
        assert_eq!(format(b"\x33\xc0 a boot sector"), Ok(ImageFormat::Raw));
    }

    #[tokio::test]
    async fn a_base_is_found_by_its_digest_and_not_to_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let disks = Disks::open(dir.path()).unwrap();
        let digest = Digest::of(b"a raw disk");
        let path = dir.path().join("images").join(&digest.as_str()["sha256:".len()..]);
        fs::write(&path, b"a raw disk").unwrap();
        for reference in [digest.as_str().to_owned(), format!("router:1@{digest}")] {
            let base = disks.base(&reference).unwrap().expect("it is there");
            assert_eq!((&base.digest, base.format, base.size_bytes), (&digest, ImageFormat::Raw, 10));
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o444);
        for none in ["router:1", "sha256:12", Digest::of(b"other").as_str(), "../../etc/passwd"] {
            assert_eq!(disks.base(none).unwrap(), None, "{none}");
        }
    }

    #[test]
    fn a_file_system_without_direct_io_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let disks = Disks::open(dir.path()).unwrap();
        disks.require_direct_io().unwrap();
        if !netloom_service::testing::require("a_file_system_without_direct_io_is_refused", "root") {
            return;
        }
        let instances = dir.path().join("instances");
        mount(Some("ramfs"), &instances, Some("ramfs"), MsFlags::empty(), None::<&str>).unwrap();
        let refused = disks.require_direct_io();
        umount(&instances).unwrap();
        let Err(Error::NoDirectIo(message)) = refused else { panic!("{refused:?}") };
        assert!(message.contains(&instances.display().to_string()), "{message}");
    }
}
