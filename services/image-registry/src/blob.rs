//! The bytes of images on disk.
//!
//! ```text
//! <dir>/uploads/<upload>           bytes on their way in; as long as the upload is far
//! <dir>/blobs/<2 digits>/<sha256>  whole and checked, mode 0444, never written again
//! <dir>/quarantine/<sha256>        what was found to be something else, until the next collection of garbage
//! ```
//!
//! A blob comes to be by a rename of a file that was synced, and the directory is synced after it: it is there whole or not at all. All of this blocks, so it
//! is called away from the threads that serve calls.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use netloom_image::{Facts, Format, Inspector, Refusal, Source};
use sha2::{Digest as _, Sha256};

/// Bytes that are read at once.
const PIECE: usize = 1 << 20;

/// The SHA-256 of a blob: 64 hexadecimal digits in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(String);

impl Digest {
    /// Reads `sha256:` and 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Digest> {
        let hex = text.strip_prefix("sha256:")?;
        let right = hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        right.then(|| Digest(hex.to_owned()))
    }

    pub(crate) fn of(hash: Sha256) -> Digest {
        Digest(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
    }

    /// The hexadecimal digits.
    pub fn hex(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

/// The directory.
#[derive(Debug, Clone)]
pub struct Blobs {
    dir: PathBuf,
}

impl Blobs {
    /// In this directory, which is made with what belongs into it, for nobody else to read.
    pub fn open(dir: &Path) -> io::Result<Blobs> {
        for part in ["uploads", "blobs", "quarantine"] {
            std::fs::create_dir_all(dir.join(part))?;
        }
        std::fs::set_permissions(dir, Permissions::from_mode(0o700))?;
        Ok(Blobs { dir: dir.to_owned() })
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn upload(&self, id: &str) -> PathBuf {
        self.dir.join("uploads").join(id)
    }

    /// The file of a blob.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs").join(&digest.hex()[..2]).join(digest.hex())
    }

    /// Room on the disk for this installation, in bytes.
    pub fn room(&self) -> io::Result<u64> {
        let stat = nix::sys::statvfs::statvfs(&self.dir)?;
        Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
    }

    /// How far an upload is and when it last went on; none when it has no bytes.
    pub fn progress(&self, id: &str) -> io::Result<Option<(u64, SystemTime)>> {
        match std::fs::metadata(self.upload(id)) {
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
        gone(std::fs::remove_file(self.upload(id)))
    }

    /// Size of a blob; none when it is not there.
    pub fn size(&self, digest: &Digest) -> io::Result<Option<u64>> {
        match std::fs::metadata(self.path(digest)) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Digests of all blobs that are there.
    pub fn all(&self) -> io::Result<Vec<Digest>> {
        let blobs = self.dir.join("blobs");
        let mut found = Vec::new();
        for shard in names(&blobs)? {
            found.extend(
                names(&blobs.join(shard))?.iter().filter_map(|n| Digest::parse(&format!("sha256:{n}"))),
            );
        }
        Ok(found)
    }

    /// Removes a blob.
    pub fn remove(&self, digest: &Digest) -> io::Result<()> {
        gone(std::fs::remove_file(self.path(digest)))
    }

    /// Sets a blob aside.
    pub fn quarantine(&self, digest: &Digest) -> io::Result<()> {
        gone(std::fs::rename(self.path(digest), self.dir.join("quarantine").join(digest.hex())))
    }

    /// What was set aside, with its size.
    pub fn quarantined(&self) -> io::Result<Vec<(Digest, u64)>> {
        let dir = self.dir.join("quarantine");
        let digests = names(&dir)?.into_iter().filter_map(|n| Digest::parse(&format!("sha256:{n}")));
        digests.map(|d| Ok((d.clone(), std::fs::metadata(dir.join(d.hex()))?.len()))).collect()
    }

    /// Removes what was set aside.
    pub fn forget(&self, digest: &Digest) -> io::Result<()> {
        gone(std::fs::remove_file(self.dir.join("quarantine").join(digest.hex())))
    }

    /// Opens a blob for reading.
    pub fn read(&self, digest: &Digest) -> io::Result<File> {
        File::open(self.path(digest))
    }

    /// True when a blob's bytes are what its digest says.
    pub fn is_right(&self, digest: &Digest) -> io::Result<bool> {
        let mut hash = Sha256::new();
        each_piece(self.read(digest)?, |piece| hash.update(piece))?;
        Ok(Digest::of(hash) == *digest)
    }
}

/// One pass over the bytes of an upload as they come: written, hashed and inspected once.
pub struct Pass {
    file: File,
    offset: u64,
    hash: Sha256,
    inspector: Inspector,
}

impl Pass {
    /// Goes on where an upload stands. What came in before this process began is read again.
    pub fn resume(blobs: &Blobs, id: &str) -> io::Result<Pass> {
        let file =
            OpenOptions::new().create(true).append(true).read(true).mode(0o600).open(blobs.upload(id))?;
        let (mut offset, mut hash, mut inspector) = (0, Sha256::new(), Inspector::new());
        each_piece(file.try_clone()?, |piece| {
            offset += piece.len() as u64;
            hash.update(piece);
            inspector.push(piece);
        })?;
        Ok(Pass { file, offset, hash, inspector })
    }

    /// How far it is.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Takes the next bytes. After an error the pass is not used any more: what the file then holds is where a new one goes on.
    pub fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.inspector.push(bytes);
        self.offset += bytes.len() as u64;
        Ok(())
    }

    /// The digest of all that came.
    pub fn digest(&self) -> Digest {
        Digest::of(self.hash.clone())
    }

    /// What they are.
    pub fn facts(&mut self, declared: Option<Format>) -> Result<Facts, Refusal> {
        std::mem::take(&mut self.inspector).finish(declared, &mut Reader(&self.file))
    }

    /// Makes the upload the blob of this digest.
    pub fn keep(self, blobs: &Blobs, id: &str, digest: &Digest) -> io::Result<()> {
        // Bytes that are there already are replaced by the same: whatever happened to them on disk is mended.
        let target = blobs.path(digest);
        self.file.set_permissions(Permissions::from_mode(0o444))?;
        self.file.sync_all()?;
        let shard = target.parent().unwrap_or(&blobs.dir);
        std::fs::create_dir_all(shard)?;
        std::fs::rename(blobs.upload(id), &target)?;
        File::open(shard)?.sync_all()?;
        File::open(blobs.dir.join("blobs"))?.sync_all()
    }
}

struct Reader<'a>(&'a File);

impl Source for Reader<'_> {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }
}

fn each_piece(mut file: File, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(n) => take(&piece[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        found.extend(entry?.file_name().into_string());
    }
    found.sort();
    Ok(found)
}

/// What is gone already is gone.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
