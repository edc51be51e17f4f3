//! Directories in which this service mounts things for other programs.

use std::fs;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Makes a directory a mount of its own that is shared, as `ip netns` does: what is mounted in it is then seen, and gone, in every mount namespace that has a copy.
pub fn shared(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let share = || mount(None::<&str>, dir, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>);
    match share() {
        Err(Errno::EINVAL) => {
            mount(Some(dir), dir, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
            Ok(share()?)
        }
        other => Ok(other?),
    }
}

/// Undoes [`shared`] when the directory is empty.
pub fn unshared(dir: &Path) {
    if fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none()) {
        let _ = umount2(dir, MntFlags::MNT_DETACH);
    }
}

/// Takes off what is mounted on a path, and then the path itself. What was mounted stays as it is.
pub fn take_away(path: &Path) -> io::Result<()> {
    // A mount over a mount is taken off too.
    while umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).is_ok() {}
    // Never more than the empty directory that a mount was put on: were it still on, its content would be the lab's.
    let removed = match fs::symlink_metadata(path) {
        Ok(m) if m.is_dir() => fs::remove_dir(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
