//! What netloom puts on the host for nodes: the files of a lab (`<data dir>/labs/<lab uid>/files/`) and the small ones of each node (`…/nodes/<node uid>/`).
//!
//! A lab's files are mounted read-write into its nodes, whose root may put a symbolic link wherever a file was. So no path below `files/` is ever followed through one: each part is opened
//! by itself, from the directory before it, and a link is an error.
//!
//! What a node made of a file before it was written over or removed is kept until a deploy of the lab has succeeded (`…/kept/`).

mod kept;
mod remove;
mod upload;

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use netloom_model::id::{LabUid, NodeUid};
use netloom_model::spec::is_relative_normal;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};

use crate::error::Error;
pub use upload::Uploads;

/// The directory of all labs.
pub struct Files {
    root: PathBuf,
    uploads: AtomicU64,
    /// Labs that were removed since the service started: what is still on its way to them must not make them anew. Held while the files of a lab change.
    removed: Mutex<BTreeSet<LabUid>>,
}

impl Files {
    /// Below this data directory.
    pub fn open(data_dir: &Path) -> Result<Files, Error> {
        let root = data_dir.join("labs");
        // What labs hold is no business of other users of this machine; mounts do not need the way to be open.
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&root);
        made.map_err(|e| Error::host(format!("cannot make {}", root.display()), e))?;
        Ok(Files { root, uploads: AtomicU64::new(0), removed: Mutex::default() })
    }

    fn lab(&self, lab: LabUid) -> PathBuf {
        self.root.join(lab.to_string())
    }

    /// Directory of a node's small files, whether it is there or not.
    pub fn node_path(&self, lab: LabUid, node: NodeUid) -> PathBuf {
        self.lab(lab).join("nodes").join(node.to_string())
    }

    /// Directory of a node's small files, made when it is not there.
    pub fn node_dir(&self, lab: LabUid, node: NodeUid) -> Result<PathBuf, Error> {
        let dir = self.node_path(lab, node);
        make_dirs(&dir).map_err(|e| Error::host(format!("cannot make {}", dir.display()), e))?;
        Ok(dir)
    }

    /// Removes a node's small files.
    pub fn remove_node(&self, lab: LabUid, node: NodeUid) -> Result<(), Error> {
        remove_dir(&self.node_path(lab, node))
    }

    /// Removes everything of a lab, which takes no more files then.
    pub fn remove_lab(&self, lab: LabUid) -> Result<(), Error> {
        let mut removed = self.removed.lock().expect("no holder panics");
        removed.insert(lab);
        remove_dir(&self.lab(lab))
    }

    /// Removes the labs other than these that nothing has come to for so long, and answers which: a lab whose removal this host missed.
    pub fn sweep(&self, kept: &BTreeSet<LabUid>, unused: Duration) -> Result<Vec<LabUid>, Error> {
        let _held = self.removed.lock().expect("no holder panics");
        let entries = fs::read_dir(&self.root)
            .map_err(|e| Error::host(format!("cannot read {}", self.root.display()), e))?;
        let mut swept = Vec::new();
        for entry in entries.flatten() {
            let Some(lab) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let changed = entry.metadata().and_then(|m| m.modified()).ok();
            let is_old = changed.and_then(|t| t.elapsed().ok()).is_some_and(|age| age >= unused);
            if is_old && !kept.contains(&lab) {
                remove_dir(&entry.path())?;
                swept.push(lab);
            }
        }
        Ok(swept)
    }

    /// Holds the files of all labs still, for a change of this lab's.
    fn hold(&self, lab: LabUid) -> Result<MutexGuard<'_, BTreeSet<LabUid>>, Error> {
        let removed = self.removed.lock().expect("no holder panics");
        if removed.contains(&lab) {
            return Err(Error::Gone(format!("lab {lab} was removed from this host; it takes no files")));
        }
        Ok(removed)
    }

    /// What a file among the lab's files holds.
    pub fn read(&self, lab: LabUid, path: &str) -> Result<Vec<u8>, Error> {
        let file = self.resolve(lab, path)?;
        // By its descriptor: what a node puts in its place meanwhile is not what was looked at.
        fs::read(format!("/proc/self/fd/{}", file.as_raw_fd()))
            .map_err(|e| Error::host(format!("cannot read \"{path}\" among the lab's files"), e))
    }

    /// A file or directory among the lab's files, to be mounted. An error when it is not there, or leads through a symbolic link. The descriptor stays with what was looked at, whatever a node
    /// puts in its place.
    pub fn resolve(&self, lab: LabUid, path: &str) -> Result<OwnedFd, Error> {
        if !is_relative_normal(path) {
            return Err(Error::Invalid(format!("bind \"{path}\" is not a relative path without \"..\"")));
        }
        let root = self.lab(lab).join("files");
        let walk = || -> Result<OwnedFd, Errno> {
            let (parent, name) = open_parent(&root, path, false)?;
            let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let fd = openat(parent, name, flags, Mode::empty())?;
            let is_link = nix::sys::stat::fstat(&fd)?.st_mode & nix::libc::S_IFMT == nix::libc::S_IFLNK;
            if is_link { Err(Errno::ELOOP) } else { Ok(fd) }
        };
        walk().map_err(|e| match e {
            Errno::ENOENT => Error::Refused(format!("\"{path}\" is not among the lab's files on this host; deploy the lab again")),
            Errno::ELOOP | Errno::ENOTDIR => Error::Refused(format!(
                "\"{path}\" leads through a symbolic link that a node put among the lab's files; netloom does not follow it"
            )),
            e => Error::host(format!("cannot look at \"{path}\" among the lab's files"), e),
        })
    }
}

/// Opens the directory that holds the last part of a path, part by part and never through a symbolic link.
fn open_parent<'a>(root: &Path, path: &'a str, make: bool) -> Result<(OwnedFd, &'a str), Errno> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut directory = nix::fcntl::open(root, flags, Mode::empty())?;
    let (before, name) = path.rsplit_once('/').unwrap_or(("", path));
    for part in before.split('/').filter(|p| !p.is_empty()) {
        if make {
            match mkdirat(directory.as_fd(), part, Mode::from_bits_truncate(0o755)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(e) => return Err(e),
            }
        }
        directory = openat(directory.as_fd(), part, flags, Mode::empty())?;
    }
    Ok((directory, name))
}

/// Writes a file over in place: what is mounted into a node stays the same file. It gets these permission bits.
pub fn write_in_place(path: &Path, text: &[u8], mode: u32) -> Result<(), Error> {
    use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
    let write = || -> io::Result<()> {
        if fs::read(path).is_ok_and(|before| before == text) {
            let before = fs::metadata(path)?.permissions().mode() & 0o7777;
            return if before == mode {
                Ok(())
            } else {
                fs::set_permissions(path, fs::Permissions::from_mode(mode))
            };
        }
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(mode).open(path)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all_at(text, 0)?;
        file.set_len(text.len() as u64)
    };
    write().map_err(|e| Error::host(format!("cannot write {}", path.display()), e))
}

/// The path to mount for a host path that a node asks for: below an allowed root, and neither Docker's socket nor a directory that holds it. Both are compared after every
/// symbolic link has been followed.
pub fn host_path(path: &str, allowed: &[PathBuf], docker_socket: &Path) -> Result<PathBuf, Error> {
    let real = fs::canonicalize(path)
        .map_err(|e| Error::Refused(format!("host path {path} cannot be mounted: {e}")))?;
    let roots = allowed.iter().filter_map(|r| fs::canonicalize(r).ok());
    if !roots.into_iter().any(|root| real.starts_with(root)) {
        return Err(Error::Refused(format!(
            "host path {path} is not below an allowed directory: put the file beside the topology and mount it by a relative path, or name a directory in `allowed_host_paths` of [compute]"
        )));
    }
    if fs::canonicalize(docker_socket).is_ok_and(|socket| socket.starts_with(&real)) {
        return Err(Error::Refused(format!(
            "host path {path} holds Docker's socket, which no node may have"
        )));
    }
    Ok(real)
}

fn make_dirs(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
}

fn remove_dir(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::host(format!("cannot remove {}", path.display()), e))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labs_that_nothing_belongs_to_are_swept_when_they_are_old() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::open(dir.path()).unwrap();
        let (kept, left) = (LabUid::new(), LabUid::new());
        for lab in [kept, left] {
            files.node_dir(lab, NodeUid::new()).unwrap();
        }
        fs::create_dir(files.root.join("notes")).unwrap();
        let keep = BTreeSet::from([kept]);
        assert!(files.sweep(&keep, Duration::from_secs(600)).unwrap().is_empty());
        assert_eq!(files.sweep(&keep, Duration::ZERO).unwrap(), [left]);
        assert!(files.lab(kept).exists() && !files.lab(left).exists() && files.root.join("notes").exists());
    }

    #[test]
    fn a_rewritten_file_is_the_same_file() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        write_in_place(&path, b"a long text", 0o644).unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        write_in_place(&path, b"short", 0o600).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "short");
        let now = fs::metadata(&path).unwrap();
        assert_eq!((now.ino(), now.mode() & 0o777), (inode, 0o600));
    }

    #[test]
    fn the_same_text_with_another_mode_gets_that_mode() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        write_in_place(&path, b"text", 0o644).unwrap();
        write_in_place(&path, b"text", 0o600).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    }

    #[test]
    fn host_paths_need_an_allowed_root() {
        let dir = tempfile::tempdir().unwrap();
        let (root, socket) = (dir.path().join("ok"), dir.path().join("ok/run/docker.sock"));
        fs::create_dir_all(root.join("run")).unwrap();
        fs::write(&socket, "").unwrap();
        fs::write(root.join("f"), "").unwrap();
        fs::write(dir.path().join("secret"), "").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), root.join("way-out")).unwrap();
        let ask = |p: &Path| host_path(p.to_str().unwrap(), std::slice::from_ref(&root), &socket);
        assert!(ask(&root.join("f")).is_ok());
        for refused in [
            dir.path().join("secret"),
            root.join("way-out"),
            root.join("missing"),
            socket.clone(),
            root.join("run"),
            root.clone(),
        ] {
            assert!(ask(&refused).is_err(), "{}", refused.display());
        }
        assert!(host_path(root.join("f").to_str().unwrap(), &[], &socket).is_err());
    }
}
