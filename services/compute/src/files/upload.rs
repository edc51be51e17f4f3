//! Files on their way in. A file comes into place only when it is whole and has the digest it was announced with, and is on disk before the manifest says so.
//!
//! A file that is there is written over and stays the same file, since a mount of a single file follows the file and not its name: nodes that have it mounted see the new content. Its room on the disk
//! is taken first. A failure or a loss of power after that may leave half of it: the manifest forgets the file before its first byte changes, so whatever is sent next is written. What is new, or in
//! whose place a node put something else, comes by its name.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use netloom_model::id::{Digest, LabUid};
use netloom_model::spec::{FileEntry, MAX_FILES_BYTES, is_relative_normal};
use netloom_service::fail_point;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag, fallocate, openat, renameat};
use nix::sys::stat::{Mode, fchmod, fstat};
use sha2::Digest as _;

use super::kept::Kept;
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
    pub fn part(
        mut self,
        lab: LabUid,
        entry: FileEntry,
        deploys: u64,
        content: &[u8],
    ) -> Result<Uploads, Error> {
        let mut upload = match self.current.take() {
            Some(current) if current.is_of(lab, &entry) => current,
            before => {
                self.end(before)?;
                Upload::begin(self.files.clone(), lab, entry, deploys)?
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
    /// How many deploys of the lab succeeded: what was kept before is not given back.
    deploys: u64,
    draft: PathBuf,
    file: File,
    hash: sha2::Sha256,
    size: u64,
}

impl Upload {
    fn begin(files: Arc<Files>, lab: LabUid, entry: FileEntry, deploys: u64) -> Result<Upload, Error> {
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
        Ok(Upload { files, lab, entry, deploys, draft, file, hash: sha2::Sha256::new(), size: 0 })
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

    /// Puts the file in its place, unless the same was put there before: then it only gets its permission bits. True when it was put.
    fn finish(mut self) -> Result<bool, Error> {
        let digest: String = self.hash.clone().finalize().iter().map(|b| format!("{b:02x}")).collect();
        if format!("sha256:{digest}") != self.entry.digest.as_str() {
            return Err(Error::Invalid(format!(
                "{} arrived with another digest than announced; send it again",
                self.entry.path
            )));
        }
        let root = self.files.lab(self.lab).join("files");
        let files = self.files.clone();
        let _held = files.hold(self.lab)?;
        let mut manifest = self.files.read_manifest(self.lab)?;
        let same = manifest.get(&self.entry.path) == Some(&self.entry.digest);
        if same && self.is_there(&root).map_err(|e| self.failed(e))? {
            return Ok(false);
        }
        let kept = Kept::of(&self.files, self.lab, self.deploys).map_err(|e| self.failed(e))?;
        let back = kept.given_back(&self.entry.path, &self.entry.digest).map_err(|e| self.failed(e))?;
        if let Some((content, mode)) = back {
            self.become_what_a_node_made(&content, mode).map_err(|e| self.failed(e))?;
        }
        let mut put = || -> io::Result<()> {
            fchmod(&self.file, self.mode())?;
            self.file.sync_all()?;
            let (parent, name) = open_parent(&root, &self.entry.path, true)?;
            if self.write_over(&parent, name, &kept, &mut manifest)? {
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

    /// Takes the place of its content: what a node had made of it, and of its permission bits.
    fn become_what_a_node_made(&mut self, content: &[u8], mode: u32) -> io::Result<()> {
        self.entry.mode = mode;
        self.file.write_all_at(content, 0)?;
        self.file.set_len(content.len() as u64)
    }

    fn mode(&self) -> Mode {
        Mode::from_bits_truncate(self.entry.mode & 0o777)
    }

    /// True when something is in the file's place. A file there has the permission bits of this one then.
    fn is_there(&self, root: &Path) -> io::Result<bool> {
        let there =
            match open_parent(root, &self.entry.path, false).and_then(|(dir, name)| look_at(&dir, name)) {
                Ok(there) => there,
                Err(Errno::ENOENT) => return Ok(false),
                Err(e) => return Err(e.into()),
            };
        let found = fstat(&there)?.st_mode;
        if is_file(found) && found & 0o7777 != self.mode().bits() {
            fs::set_permissions(path_of(&there), fs::Permissions::from_mode(self.mode().bits()))?;
        }
        Ok(true)
    }

    /// Writes the content over the file that is there; false when there is none that can be: nothing, no file, or a program that is being run.
    fn write_over(
        &self,
        parent: &OwnedFd,
        name: &str,
        kept: &Kept,
        manifest: &mut BTreeMap<String, Digest>,
    ) -> io::Result<bool> {
        // A node may have put a device in its place: that must not even be opened.
        let place = match look_at(parent, name) {
            Ok(place) => place,
            Err(Errno::ENOENT) => return Ok(false),
            Err(e) => return Err(e.into()),
        };
        if !is_file(fstat(&place)?.st_mode) {
            return Ok(false);
        }
        if let Some(came_with) = manifest.get(&self.entry.path) {
            kept.keep(&self.entry.path, came_with, &place)?;
        }
        let there = match OpenOptions::new().write(true).open(path_of(&place)) {
            Ok(there) => there,
            Err(e) if e.raw_os_error() == Some(Errno::ETXTBSY as i32) => return Ok(false),
            Err(e) => return Err(e),
        };
        let content = fs::read(&self.draft)?;
        let before = there.metadata()?.len();
        let ready = reserve(&there, content.len() as u64).and_then(|()| {
            manifest
                .remove(&self.entry.path)
                .map_or(Ok(()), |_| self.files.write_manifest(self.lab, manifest))
        });
        if let Err(e) = ready {
            // Gives back what was taken of the disk; the file is as it was.
            let _ = there.set_len(before);
            return Err(e);
        }
        there.write_all_at(&content, 0)?;
        there.set_len(content.len() as u64)?;
        fchmod(&there, self.mode())?;
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
    pub(super) fn read_manifest(&self, lab: LabUid) -> Result<BTreeMap<String, Digest>, Error> {
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

    pub(super) fn write_manifest(&self, lab: LabUid, manifest: &BTreeMap<String, Digest>) -> io::Result<()> {
        let path = self.lab(lab).join("manifest.json");
        let draft = path.with_extension("new");
        let mut file = File::create(&draft)?;
        file.write_all(&serde_json::to_vec(manifest)?)?;
        file.sync_all()?;
        fs::rename(draft, &path)?;
        File::open(self.lab(lab))?.sync_all()
    }
}

/// Takes hold of what has this name, whatever it is, without opening it.
pub(super) fn look_at(parent: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    openat(parent, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
}

pub(super) fn is_file(mode: u32) -> bool {
    mode & nix::libc::S_IFMT == nix::libc::S_IFREG
}

/// A path that leads to what is held, whatever its name stands for by now.
pub(super) fn path_of(held: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", held.as_raw_fd()).into()
}

/// Takes room for so many bytes of a file, of which none changes and neither does its size. Where the file system cannot, writing will tell.
fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    match fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, bytes as i64) {
        Err(Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ENOSYS | Errno::ENODEV) => Ok(()),
        taken => Ok(taken?),
    }
}

/// Brings what a directory names to disk.
pub(super) fn sync(directory: impl AsFd) -> io::Result<()> {
    let readable =
        openat(directory, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    File::from(readable).sync_all()
}

#[cfg(test)]
mod tests;
