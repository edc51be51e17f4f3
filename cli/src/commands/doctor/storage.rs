//! The directories that netloom keeps things in.

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::libc;

use super::finding::{Check, fail, ok, warn};

/// The check of what direct I/O there is.
pub const DIRECT_IO: &str = "direct-io";
const GIB: u64 = 1 << 30;

/// The directory, or the nearest one above it that exists.
fn existing(directory: &Path) -> &Path {
    directory.ancestors().find(|d| d.is_dir()).unwrap_or(Path::new("/"))
}

/// Free bytes there.
pub fn free_bytes(directory: &Path) -> io::Result<u64> {
    let disk = nix::sys::statvfs::statvfs(existing(directory))?;
    Ok(disk.blocks_available() * disk.fragment_size())
}

/// There is room.
pub fn judge_room(name: &str, directory: &Path, free: io::Result<u64>, key: &str) -> Check {
    let make_room = format!("make room there, or put {key} elsewhere in /etc/netloom/netloom.toml");
    match free {
        Err(e) => warn(name, format!("{}: {e}", directory.display()), "see that the directory can be read"),
        Ok(bytes) => {
            let evidence = format!("{:.1} GiB free at {}", bytes as f64 / GIB as f64, directory.display());
            match bytes {
                0..GIB => fail(name, evidence, make_room),
                b if b < 5 * GIB => warn(name, evidence, make_room),
                _ => ok(name, evidence),
            }
        }
    }
}

/// A buffer as direct I/O wants it.
#[repr(align(4096))]
struct Block([u8; 4096]);

/// Writes a block past the cache, as virtual machines do with their disks, into a file that is gone afterwards.
pub fn direct_io(directory: &Path) -> io::Result<()> {
    let path = existing(directory).join(format!(".netloom-doctor-{}", std::process::id()));
    // One that is refused direct I/O is made all the same, so it is made before it is asked for that.
    std::fs::File::create_new(&path)?;
    let written = std::fs::OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(&path)
        .and_then(|mut file| file.write_all(&Block([0; 4096]).0));
    std::fs::remove_file(&path)?;
    written
}

/// Both directories of disks can do it. Where libvirt is configured, every machine is refused without.
pub fn judge_direct_io(seen: &[(PathBuf, io::Result<()>)], libvirt_configured: bool) -> Check {
    let wrong = seen.iter().find_map(|(directory, tried)| Some((directory, tried.as_ref().err()?)));
    match wrong {
        None => ok(DIRECT_IO, "the directories of images and of disks take it"),
        Some((directory, e)) if e.kind() == io::ErrorKind::PermissionDenied => {
            warn(DIRECT_IO, format!("not tried at {}: {e}", directory.display()), "run sudo netloom doctor")
        }
        Some((directory, e)) => {
            let evidence = format!(
                "{} does not take it, and virtual machines need it for their disks: {e}",
                directory.display()
            );
            let fix =
                "put data_dir on a disk with ext4 or xfs in /etc/netloom/netloom.toml; containers do without";
            if libvirt_configured { fail(DIRECT_IO, evidence, fix) } else { warn(DIRECT_IO, evidence, fix) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::finding::Status;

    #[test]
    fn room_has_bounds() {
        let judged = |gib: u64| judge_room("disk", Path::new("/d"), Ok(gib << 30), "data_dir").status;
        assert_eq!((judged(0), judged(1), judged(5)), (Status::Fail, Status::Warn, Status::Ok));
        assert_eq!(
            judge_room("disk", Path::new("/d"), Err(io::Error::other("no")), "x").status,
            Status::Warn
        );
    }

    #[test]
    fn direct_io_is_tried_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let _ = direct_io(&dir.path().join("images"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    /// What a file system in memory alone says to it.
    #[test]
    fn a_disk_without_direct_io_is_told_and_nothing_is_left_on_it() {
        use nix::mount::{MntFlags, MsFlags, mount, umount2};
        if !netloom_service::testing::require("a_disk_without_direct_io_is_told", "root") {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        mount(Some("ramfs"), dir.path(), Some("ramfs"), MsFlags::empty(), None::<&str>).unwrap();
        let tried = direct_io(&dir.path().join("images"));
        let left = std::fs::read_dir(dir.path()).unwrap().count();
        umount2(dir.path(), MntFlags::MNT_DETACH).unwrap();
        assert_eq!(left, 0);
        assert_eq!(tried.as_ref().unwrap_err().raw_os_error(), Some(libc::EINVAL));
        let judged = judge_direct_io(&[(dir.path().to_owned(), tried)], true);
        assert!(judged.status == Status::Fail && judged.evidence.contains("does not take it"), "{judged:?}");
    }

    #[test]
    fn direct_io_is_needed_where_libvirt_is_configured() {
        let of = |tried: io::Result<()>, configured| {
            judge_direct_io(&[("/a".into(), Ok(())), ("/b".into(), tried)], configured)
        };
        let refused = |configured| of(Err(io::Error::from_raw_os_error(22)), configured);
        assert_eq!((of(Ok(()), true).status, refused(true).status), (Status::Ok, Status::Fail));
        assert!(refused(false).status == Status::Warn && refused(false).fix.contains("data_dir"));
        assert_eq!(of(Err(io::ErrorKind::PermissionDenied.into()), true).status, Status::Warn);
    }
}
