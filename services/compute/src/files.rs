//! What netloom puts on the host for nodes: the files of a lab (`<data dir>/labs/<lab uid>/files/`) and the small ones of each node (`…/nodes/<node uid>/`).
//!
//! A lab's files are mounted read-write into its nodes, whose root may put a symbolic link wherever a file was. So no path below `files/` is ever followed through one: each part is opened
//! by itself, from the directory before it, and a link is an error.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use netloom_model::id::{Digest, LabUid, NodeUid};
use netloom_model::spec::{FileEntry, MAX_FILES_BYTES, is_relative_normal};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::{Mode, mkdirat};
use sha2::Digest as _;

use crate::error::Error;

/// The directory of all labs.
pub struct Files {
    root: PathBuf,
    uploads: AtomicU64,
    /// Held while a file comes into place and into the manifest.
    manifest: Mutex<()>,
}

impl Files {
    /// Below this data directory.
    pub fn open(data_dir: &Path) -> Result<Files, Error> {
        let root = data_dir.join("labs");
        // What labs hold is no business of other users of this machine; mounts do not need the way to be open.
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&root);
        made.map_err(|e| Error::host(format!("cannot make {}", root.display()), e))?;
        Ok(Files { root, uploads: AtomicU64::new(0), manifest: Mutex::default() })
    }

    fn lab(&self, lab: LabUid) -> PathBuf {
        self.root.join(lab.to_string())
    }

    /// Directory of a node's small files, made when it is not there.
    pub fn node_dir(&self, lab: LabUid, node: NodeUid) -> Result<PathBuf, Error> {
        let dir = self.lab(lab).join("nodes").join(node.to_string());
        make_dirs(&dir).map_err(|e| Error::host(format!("cannot make {}", dir.display()), e))?;
        Ok(dir)
    }

    /// Removes a node's small files.
    pub fn remove_node(&self, lab: LabUid, node: NodeUid) -> Result<(), Error> {
        remove_dir(&self.lab(lab).join("nodes").join(node.to_string()))
    }

    /// Removes everything of a lab.
    pub fn remove_lab(&self, lab: LabUid) -> Result<(), Error> {
        remove_dir(&self.lab(lab))
    }

    /// Begins to receive a file.
    pub fn receive(&self, lab: LabUid, entry: FileEntry) -> Result<Upload<'_>, Error> {
        if !is_relative_normal(&entry.path) {
            return Err(Error::Invalid(format!("\"{}\" is not a relative path without \"..\"", entry.path)));
        }
        if entry.size_bytes > MAX_FILES_BYTES {
            return Err(Error::Invalid(format!("{} is larger than {MAX_FILES_BYTES} bytes", entry.path)));
        }
        let failed = |e: io::Error| Error::host(format!("cannot write {} of lab {lab}", entry.path), e);
        make_dirs(&self.lab(lab).join("files")).map_err(failed)?;
        let number = self.uploads.fetch_add(1, Ordering::Relaxed);
        let draft = self.lab(lab).join(format!(".incoming.{}.{number}", std::process::id()));
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)
            .map_err(failed)?;
        Ok(Upload { files: self, lab, entry, draft, file, hash: sha2::Sha256::new(), size: 0 })
    }

    /// Path on the host of a file or directory among the lab's files, to be mounted. An error when it is not there, or leads through a symbolic link.
    pub fn resolve(&self, lab: LabUid, path: &str) -> Result<PathBuf, Error> {
        if !is_relative_normal(path) {
            return Err(Error::Invalid(format!("bind \"{path}\" is not a relative path without \"..\"")));
        }
        let root = self.lab(lab).join("files");
        let walk = || -> Result<(), Errno> {
            let (parent, name) = open_parent(&root, path, false)?;
            openat(parent, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
                .and_then(|fd| {
                    let is_link =
                        nix::sys::stat::fstat(&fd)?.st_mode & nix::libc::S_IFMT == nix::libc::S_IFLNK;
                    if is_link { Err(Errno::ELOOP) } else { Ok(()) }
                })
        };
        walk().map_err(|e| match e {
            Errno::ENOENT => Error::Refused(format!("\"{path}\" is not among the lab's files on this host; deploy the lab again")),
            Errno::ELOOP | Errno::ENOTDIR => Error::Refused(format!(
                "\"{path}\" leads through a symbolic link that a node put among the lab's files; netloom does not follow it"
            )),
            e => Error::host(format!("cannot look at \"{path}\" among the lab's files"), e),
        })?;
        Ok(root.join(path))
    }

    fn read_manifest(&self, lab: LabUid) -> BTreeMap<String, Digest> {
        let text = fs::read_to_string(self.lab(lab).join("manifest.json")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    fn write_manifest(&self, lab: LabUid, manifest: &BTreeMap<String, Digest>) -> io::Result<()> {
        let path = self.lab(lab).join("manifest.json");
        let draft = path.with_extension("new");
        fs::write(&draft, serde_json::to_vec(manifest)?)?;
        fs::rename(draft, path)
    }
}

/// A file on its way in. It comes into place only when it is whole and has the digest it was announced with.
pub struct Upload<'a> {
    files: &'a Files,
    lab: LabUid,
    entry: FileEntry,
    draft: PathBuf,
    file: File,
    hash: sha2::Sha256,
    size: u64,
}

impl Upload<'_> {
    /// True when this is the upload of that file.
    pub fn is_of(&self, lab: LabUid, entry: &FileEntry) -> bool {
        self.lab == lab && self.entry == *entry
    }

    /// The next bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.size += bytes.len() as u64;
        if self.size > self.entry.size_bytes {
            return Err(Error::Invalid(format!(
                "{} is longer than the {} bytes announced",
                self.entry.path, self.entry.size_bytes
            )));
        }
        self.hash.update(bytes);
        self.file.write_all(bytes).map_err(|e| self.failed(e))
    }

    /// Puts the file in its place, unless the same was put there before. True when it did.
    pub fn finish(self) -> Result<bool, Error> {
        let digest: String = self.hash.clone().finalize().iter().map(|b| format!("{b:02x}")).collect();
        if format!("sha256:{digest}") != self.entry.digest.as_str() {
            return Err(Error::Invalid(format!(
                "{} arrived with another digest than announced; send it again",
                self.entry.path
            )));
        }
        let root = self.files.lab(self.lab).join("files");
        let _held = self.files.manifest.lock().expect("no holder panics");
        let mut manifest = self.files.read_manifest(self.lab);
        let same = manifest.get(&self.entry.path) == Some(&self.entry.digest);
        if same && fs::symlink_metadata(root.join(&self.entry.path)).is_ok() {
            return Ok(false);
        }
        let put = || -> io::Result<()> {
            nix::sys::stat::fchmod(&self.file, Mode::from_bits_truncate(self.entry.mode & 0o777))?;
            let (parent, name) = open_parent(&root, &self.entry.path, true)?;
            renameat(nix::fcntl::AT_FDCWD, &self.draft, parent, name)?;
            Ok(())
        };
        put().map_err(|e| self.failed(e))?;
        manifest.insert(self.entry.path.clone(), self.entry.digest.clone());
        self.files.write_manifest(self.lab, &manifest).map_err(|e| self.failed(e))?;
        Ok(true)
    }

    fn failed(&self, e: io::Error) -> Error {
        let what = match e.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ELOOP | Errno::ENOTDIR) => {
                "a symbolic link or a file is where a directory has to be".to_owned()
            }
            Some(Errno::EISDIR) => "a directory is in its place".to_owned(),
            _ => e.to_string(),
        };
        Error::Refused(format!("cannot write {} of lab {}: {what}", self.entry.path, self.lab))
    }
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        // Gone already when it came into place.
        let _ = fs::remove_file(&self.draft);
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

/// Writes a file over in place: what is mounted into a node stays the same file.
pub fn write_in_place(path: &Path, text: &str) -> Result<(), Error> {
    use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
    let write = || -> io::Result<()> {
        if fs::read(path).is_ok_and(|before| before == text.as_bytes()) {
            return Ok(());
        }
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o644).open(path)?;
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        file.write_all_at(text.as_bytes(), 0)?;
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

    fn entry(path: &str, content: &[u8]) -> FileEntry {
        FileEntry {
            path: path.into(),
            digest: Digest::of(content),
            size_bytes: content.len() as u64,
            mode: 0o640,
        }
    }

    fn put(files: &Files, lab: LabUid, path: &str, content: &[u8]) -> Result<bool, Error> {
        let mut upload = files.receive(lab, entry(path, content))?;
        upload.write(content)?;
        upload.finish()
    }

    fn labs() -> (tempfile::TempDir, Files, LabUid, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (files, lab) = (Files::open(dir.path()).unwrap(), LabUid::new());
        let root = files.lab(lab).join("files");
        (dir, files, lab, root)
    }

    #[test]
    fn a_file_is_written_when_its_digest_differs_and_edits_stay() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_dir, files, lab, root) = labs();
        assert!(put(&files, lab, "r1/frr.conf", b"one").unwrap());
        let path = root.join("r1/frr.conf");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        fs::write(&path, "edited").unwrap();
        assert!(!put(&files, lab, "r1/frr.conf", b"one").unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"edited");
        assert!(put(&files, lab, "r1/frr.conf", b"two").unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"two");
        fs::remove_file(&path).unwrap();
        assert!(put(&files, lab, "r1/frr.conf", b"two").unwrap());
        assert_eq!(files.resolve(lab, "r1").unwrap(), root.join("r1"));
    }

    #[test]
    fn nothing_is_written_or_mounted_through_a_link() {
        let (dir, files, lab, root) = labs();
        put(&files, lab, "a/b", b"x").unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
        assert!(put(&files, lab, "link/f", b"x").is_err());
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        // A link in the file's own place is replaced, not written through.
        std::os::unix::fs::symlink(outside.join("f"), root.join("f")).unwrap();
        put(&files, lab, "f", b"x").unwrap();
        assert!(!outside.join("f").exists());
        for path in ["link", "link/f"] {
            assert!(files.resolve(lab, path).is_err(), "{path}");
        }
        for path in ["../x", "/etc/passwd", "a/../../x", "", "a//b"] {
            assert!(matches!(put(&files, lab, path, b"x"), Err(Error::Invalid(_))), "{path}");
            assert!(files.resolve(lab, path).is_err(), "{path}");
        }
    }

    #[test]
    fn only_what_was_announced_comes_into_place() {
        let (_dir, files, lab, root) = labs();
        let mut upload = files.receive(lab, entry("f", b"right")).unwrap();
        upload.write(b"wrong").unwrap();
        assert!(upload.finish().is_err());
        let mut upload = files.receive(lab, entry("f", b"right")).unwrap();
        assert!(upload.write(b"right and more").is_err());
        drop(upload);
        assert!(!root.join("f").exists());
        let left: Vec<_> = fs::read_dir(files.lab(lab)).unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(left, ["files"], "no draft is left");
        put(&files, lab, "f", b"x").unwrap();
        files.remove_lab(lab).unwrap();
        files.remove_lab(lab).unwrap();
        assert!(!files.lab(lab).exists());
    }

    #[test]
    fn a_rewritten_file_is_the_same_file() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        write_in_place(&path, "a long text").unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        write_in_place(&path, "short").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "short");
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
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
