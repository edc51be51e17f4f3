//! Files on their way in. A file comes into place only when it is whole and has the digest it was announced with, and is on disk before the manifest says so.
//!
//! A file that is there is written over and stays the same file, since a mount of a single file follows the file and not its name: nodes that have it mounted see the new content. A loss of power in
//! that moment may leave half of it; nobody was told that it is there then, so it is sent again. What is new, or in whose place a node put something else, comes by its name.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use netloom_model::id::{Digest, LabUid};
use netloom_model::spec::{FileEntry, MAX_FILES_BYTES, is_relative_normal};
use netloom_service::fail_point;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;
use sha2::Digest as _;

use super::{Files, make_dirs, open_parent};
use crate::error::Error;

/// The files of one call, part after part.
pub struct Uploads {
    files: Arc<Files>,
    current: Option<Upload>,
    written: u32,
}

impl Uploads {
    /// None yet.
    pub fn new(files: Arc<Files>) -> Uploads {
        Uploads { files, current: None, written: 0 }
    }

    /// Takes a part of a file. Another file than before ends that one.
    pub fn part(mut self, lab: LabUid, entry: FileEntry, content: &[u8]) -> Result<Uploads, Error> {
        let mut upload = match self.current.take() {
            Some(current) if current.is_of(lab, &entry) => current,
            before => {
                self.end(before)?;
                Upload::begin(self.files.clone(), lab, entry)?
            }
        };
        upload.write(content)?;
        self.current = Some(upload);
        Ok(self)
    }

    /// Ends the last file and answers how many were written.
    pub fn finish(mut self) -> Result<u32, Error> {
        let last = self.current.take();
        self.end(last)?;
        Ok(self.written)
    }

    fn end(&mut self, upload: Option<Upload>) -> Result<(), Error> {
        if let Some(upload) = upload {
            self.written += u32::from(upload.finish()?);
        }
        Ok(())
    }
}

/// A file on its way in.
struct Upload {
    files: Arc<Files>,
    lab: LabUid,
    entry: FileEntry,
    draft: PathBuf,
    file: File,
    hash: sha2::Sha256,
    size: u64,
}

impl Upload {
    fn begin(files: Arc<Files>, lab: LabUid, entry: FileEntry) -> Result<Upload, Error> {
        if !is_relative_normal(&entry.path) {
            return Err(Error::Invalid(format!("\"{}\" is not a relative path without \"..\"", entry.path)));
        }
        if entry.size_bytes > MAX_FILES_BYTES {
            return Err(Error::Invalid(format!("{} is larger than {MAX_FILES_BYTES} bytes", entry.path)));
        }
        let number = files.uploads.fetch_add(1, Ordering::Relaxed);
        let draft = files.lab(lab).join(format!(".incoming.{}.{number}", std::process::id()));
        let held = files.hold(lab)?;
        let open = || -> io::Result<File> {
            make_dirs(&files.lab(lab).join("files"))?;
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)
        };
        let file = open().map_err(|e| Error::host(format!("cannot write {} of lab {lab}", entry.path), e))?;
        drop(held);
        Ok(Upload { files, lab, entry, draft, file, hash: sha2::Sha256::new(), size: 0 })
    }

    /// True when this is the upload of that file.
    fn is_of(&self, lab: LabUid, entry: &FileEntry) -> bool {
        self.lab == lab && self.entry == *entry
    }

    /// The next bytes.
    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
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
    fn finish(self) -> Result<bool, Error> {
        let digest: String = self.hash.clone().finalize().iter().map(|b| format!("{b:02x}")).collect();
        if format!("sha256:{digest}") != self.entry.digest.as_str() {
            return Err(Error::Invalid(format!(
                "{} arrived with another digest than announced; send it again",
                self.entry.path
            )));
        }
        let root = self.files.lab(self.lab).join("files");
        let _held = self.files.hold(self.lab)?;
        let mut manifest = self.files.read_manifest(self.lab)?;
        let same = manifest.get(&self.entry.path) == Some(&self.entry.digest);
        if same && fs::symlink_metadata(root.join(&self.entry.path)).is_ok() {
            return Ok(false);
        }
        let put = || -> io::Result<()> {
            nix::sys::stat::fchmod(&self.file, Mode::from_bits_truncate(self.entry.mode & 0o777))?;
            self.file.sync_all()?;
            let (parent, name) = open_parent(&root, &self.entry.path, true)?;
            if self.write_over(&parent, name)? {
                return Ok(());
            }
            renameat(nix::fcntl::AT_FDCWD, &self.draft, &parent, name)?;
            sync(&parent)
        };
        fail_point::pass("compute.put-file", "before");
        put().map_err(|e| self.failed(e))?;
        fail_point::pass("compute.put-file", "placed");
        manifest.insert(self.entry.path.clone(), self.entry.digest.clone());
        self.files.write_manifest(self.lab, &manifest).map_err(|e| self.failed(e))?;
        fail_point::pass("compute.put-file", "after");
        Ok(true)
    }

    /// Writes the content over the file that is there; false when there is none that can be: nothing, no file, or a program that is being run.
    fn write_over(&self, parent: &OwnedFd, name: &str) -> io::Result<bool> {
        let flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let there = match openat(parent, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::ENOENT | Errno::ELOOP | Errno::EISDIR | Errno::ENXIO | Errno::ETXTBSY) => {
                return Ok(false);
            }
            Err(e) => return Err(e.into()),
        };
        if !there.metadata()?.is_file() {
            return Ok(false);
        }
        let content = fs::read(&self.draft)?;
        there.write_all_at(&content, 0)?;
        there.set_len(content.len() as u64)?;
        nix::sys::stat::fchmod(&there, Mode::from_bits_truncate(self.entry.mode & 0o777))?;
        there.sync_all()?;
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

impl Drop for Upload {
    fn drop(&mut self) {
        // Gone already when it came into place.
        let _ = fs::remove_file(&self.draft);
    }
}

impl Files {
    /// The digest of the content that was last put in the place of a lab's file.
    pub fn placed(&self, lab: LabUid, path: &str) -> Result<Option<Digest>, Error> {
        Ok(self.read_manifest(lab)?.remove(path))
    }

    /// What was put among a lab's files. One that cannot be read is no empty one: every edit of a node's would be written over.
    fn read_manifest(&self, lab: LabUid) -> Result<BTreeMap<String, Digest>, Error> {
        let path = self.lab(lab).join("manifest.json");
        let unreadable = |e: &dyn std::fmt::Display| {
            Error::Host(format!(
                "cannot read {}: {e}; once it is removed, the lab's files are written anew over what nodes changed in them",
                path.display()
            ))
        };
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|e| unreadable(&e)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(e) => Err(unreadable(&e)),
        }
    }

    fn write_manifest(&self, lab: LabUid, manifest: &BTreeMap<String, Digest>) -> io::Result<()> {
        let path = self.lab(lab).join("manifest.json");
        let draft = path.with_extension("new");
        let mut file = File::create(&draft)?;
        file.write_all(&serde_json::to_vec(manifest)?)?;
        file.sync_all()?;
        fs::rename(draft, &path)?;
        File::open(self.lab(lab))?.sync_all()
    }
}

/// Brings what a directory names to disk.
fn sync(directory: impl AsFd) -> io::Result<()> {
    let readable =
        openat(directory, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    File::from(readable).sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd as _;

    fn path_of(fd: &std::os::fd::OwnedFd) -> PathBuf {
        fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap()
    }

    fn entry(path: &str, content: &[u8]) -> FileEntry {
        FileEntry {
            path: path.into(),
            digest: Digest::of(content),
            size_bytes: content.len() as u64,
            mode: 0o640,
        }
    }

    fn put(files: &Arc<Files>, lab: LabUid, path: &str, content: &[u8]) -> Result<bool, Error> {
        let mut upload = Upload::begin(files.clone(), lab, entry(path, content))?;
        upload.write(content)?;
        upload.finish()
    }

    fn labs() -> (tempfile::TempDir, Arc<Files>, LabUid, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (files, lab) = (Arc::new(Files::open(dir.path()).unwrap()), LabUid::new());
        let root = files.lab(lab).join("files");
        (dir, files, lab, root)
    }

    #[test]
    fn a_file_is_written_when_its_digest_differs_and_edits_stay() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_dir, files, lab, root) = labs();
        assert!(put(&files, lab, "r1/frr.conf", b"one").unwrap());
        let path = root.join("r1/frr.conf");
        let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(&path).unwrap());
        let first = inode();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        fs::write(&path, "edited").unwrap();
        assert!(!put(&files, lab, "r1/frr.conf", b"one").unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"edited");
        assert!(put(&files, lab, "r1/frr.conf", b"two").unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(inode(), first, "what mounts the file sees the new content");
        assert_eq!(files.placed(lab, "r1/frr.conf").unwrap(), Some(Digest::of(b"two")));
        fs::remove_file(&path).unwrap();
        assert!(put(&files, lab, "r1/frr.conf", b"two").unwrap());
        let held = files.resolve(lab, "r1/frr.conf").unwrap();
        assert_eq!(path_of(&held), path);
        fs::rename(&path, root.join("aside")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
        assert_eq!(path_of(&held), root.join("aside"), "what was looked at stays what it is");
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
        let mut upload = Upload::begin(files.clone(), lab, entry("f", b"right")).unwrap();
        upload.write(b"wrong").unwrap();
        assert!(upload.finish().is_err());
        let mut upload = Upload::begin(files.clone(), lab, entry("f", b"right")).unwrap();
        assert!(upload.write(b"right and more").is_err());
        drop(upload);
        assert!(!root.join("f").exists());
        let left: Vec<_> = fs::read_dir(files.lab(lab)).unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(left, ["files"], "no draft is left");
        put(&files, lab, "f", b"x").unwrap();
    }

    #[test]
    fn a_removed_lab_takes_no_more_files() {
        let (_dir, files, lab, _) = labs();
        let mut late = Upload::begin(files.clone(), lab, entry("late", b"x")).unwrap();
        late.write(b"x").unwrap();
        files.remove_lab(lab).unwrap();
        files.remove_lab(lab).unwrap();
        assert!(matches!(late.finish(), Err(Error::Gone(_))));
        assert!(matches!(put(&files, lab, "f", b"x"), Err(Error::Gone(_))));
        assert!(!files.lab(lab).exists());
    }

    #[test]
    fn a_manifest_that_cannot_be_read_is_an_error_that_names_it() {
        let (_dir, files, lab, root) = labs();
        put(&files, lab, "f", b"x").unwrap();
        let manifest = files.lab(lab).join("manifest.json");
        fs::write(&manifest, "{").unwrap();
        fs::write(root.join("f"), "edited").unwrap();
        let error = put(&files, lab, "f", b"x").unwrap_err().to_string();
        assert!(error.contains(manifest.to_str().unwrap()), "{error}");
        assert_eq!(fs::read(root.join("f")).unwrap(), b"edited");
    }
}
