//! Uploads on this machine's disk.
//!
//! The file of an upload is the only truth about how far it is. All of this blocks, so it is called away from the threads that serve calls.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use netloom_image::{Facts, Format, Inspector, Refusal, Source};
use sha2::{Digest as _, Sha256};

use super::Digest;
use super::directory::{each_piece, gone, names};
use super::disk::Growing;

/// A directory with uploads.
#[derive(Debug, Clone)]
pub struct Staging {
    dir: PathBuf,
}

/// The file of an upload whose bytes are whole and checked.
#[derive(Debug)]
pub struct Staged {
    /// The file, open.
    pub file: File,
    /// Where it is.
    pub path: PathBuf,
    /// Its bytes.
    pub size: u64,
}

impl Staging {
    /// In this directory, which is made for nobody else to read.
    pub fn open(dir: &Path) -> io::Result<Staging> {
        std::fs::create_dir_all(dir.join("uploads"))?;
        std::fs::set_permissions(dir, Permissions::from_mode(0o700))?;
        Ok(Staging { dir: dir.to_owned() })
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn path(&self, id: &str) -> PathBuf {
        self.dir.join("uploads").join(id)
    }

    /// Room on the disk for this installation, in bytes.
    pub fn room(&self) -> io::Result<u64> {
        super::room(&self.dir)
    }

    /// How far an upload is and when it last went on; none when it has no bytes.
    pub fn progress(&self, id: &str) -> io::Result<Option<(u64, SystemTime)>> {
        match std::fs::metadata(self.path(id)) {
            Ok(metadata) => Ok(Some((metadata.len(), metadata.modified()?))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Ids of uploads that have bytes.
    pub fn uploads(&self) -> io::Result<Vec<String>> {
        names(&self.dir.join("uploads"))
    }

    /// Removes an upload's bytes.
    pub fn drop_upload(&self, id: &str) -> io::Result<()> {
        gone(std::fs::remove_file(self.path(id)))
    }
}

/// One pass over the bytes of an upload as they come: written, hashed and inspected once.
pub struct Pass {
    file: Growing,
    path: PathBuf,
    offset: u64,
    hash: Sha256,
    inspector: Inspector,
}

impl Pass {
    /// Goes on where an upload stands. What came in before this process began is read again.
    pub fn resume(staging: &Staging, id: &str) -> io::Result<Pass> {
        let path = staging.path(id);
        let file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(&path)?;
        let (mut offset, mut hash, mut inspector) = (0, Sha256::new(), Inspector::new());
        each_piece(file.try_clone()?, |piece| {
            offset += piece.len() as u64;
            hash.update(&piece);
            inspector.push(&piece);
            true
        })?;
        let file = Growing::at_end(&path, file, offset)?;
        Ok(Pass { file, path, offset, hash, inspector })
    }

    /// How far it is.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Takes the next bytes, of which the last may not be in the file yet. After an error the pass is not used any more: what the file then holds is where a new one goes on.
    pub fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write(bytes)?;
        self.hash.update(bytes);
        self.inspector.push(bytes);
        self.offset += bytes.len() as u64;
        Ok(())
    }

    /// Brings all that came into the file, which says how far the upload is.
    pub fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    /// The digest of all that came.
    pub fn digest(&self) -> Digest {
        Digest::of(self.hash.clone())
    }

    /// What they are.
    pub fn facts(&mut self, declared: Option<Format>) -> Result<Facts, Refusal> {
        std::mem::take(&mut self.inspector).finish(declared, &mut Reader(self.file.file()))
    }

    /// The file, for a shelf, once all is in it.
    pub fn staged(self) -> Staged {
        Staged { file: self.file.into_file(), path: self.path, size: self.offset }
    }
}

struct Reader<'a>(&'a File);

impl Source for Reader<'_> {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }
}
