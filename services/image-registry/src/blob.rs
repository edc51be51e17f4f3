//! The bytes of images.
//!
//! ```text
//! bytes ─► <blobs>/uploads/<upload>      on their way in: written, hashed and inspected in one pass; as long as the upload is far
//!              │ whole and checked
//!              ▼
//!          a shelf, by SHA-256:  blobs/…       never written again
//!                                quarantine/…  what was found to be something else, until the next collection of garbage
//!                                owner         whose it is: an installation, and its database
//! ```
//!
//! What no row knows is garbage, so it matters whose rows: a shelf that another installation's rows are of, or those of a database that was lost, is neither added to nor cleared
//! ([`Blobs::claim`]).
//!
//! Uploads always stage on this machine's disk ([`staging`]), where they outlive the process and can be read again at any place. Where whole blobs stand is a [`Shelf`]: a
//! directory beside the uploads ([`directory`]), or a bucket of an S3-compatible store ([`bucket`]). One contract suite runs over all of them.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use crate::error::Error;

pub mod bucket;
pub mod directory;
mod disk;
pub mod s3;
pub mod staging;

pub use directory::Directory;
pub use staging::{Pass, Staged, Staging};

/// Bytes that are read at once, and the most of a piece.
pub const PIECE: usize = 1 << 20;
/// Pieces that may wait for whoever reads.
const WAITING: usize = 4;

/// The bytes of a blob in order, in pieces of at most [`PIECE`]. An error is the last of them.
pub type Pieces = mpsc::Receiver<Result<Bytes, Error>>;

/// The SHA-256 of a blob: 64 hexadecimal digits in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(String);

impl Digest {
    /// Reads `sha256:` and 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Digest> {
        Digest::from_hex(text.strip_prefix("sha256:")?)
    }

    /// Reads 64 hexadecimal digits.
    pub fn from_hex(hex: &str) -> Option<Digest> {
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

/// Room on the disk of a directory for this installation, in bytes.
pub(crate) fn room(dir: &Path) -> std::io::Result<u64> {
    let stat = nix::sys::statvfs::statvfs(dir)?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

/// Where whole blobs stand.
#[tonic::async_trait]
pub trait Shelf: Send + Sync {
    /// Makes a staged file the blob of this digest: it is there whole and durable afterwards, or not at all. Bytes that are there already are replaced by the same: whatever
    /// happened to them is mended. The staged file is gone when this is done, and stays when it fails.
    async fn keep(&self, staged: Staged, digest: &Digest) -> Result<(), Error>;

    /// Size of a blob; none when it is not there.
    async fn size(&self, digest: &Digest) -> Result<Option<u64>, Error>;

    /// The bytes of a blob from an offset; none when it is not there, and no bytes when it ends before. Nothing is compared.
    async fn read(&self, digest: &Digest, offset: u64) -> Result<Option<Pieces>, Error>;

    /// All blobs that are there, with their sizes.
    async fn all(&self) -> Result<Vec<(Digest, u64)>, Error>;

    /// Removes a blob. One that is gone already is gone.
    async fn remove(&self, digest: &Digest) -> Result<(), Error>;

    /// Sets a blob aside. One that is gone already is gone.
    async fn quarantine(&self, digest: &Digest) -> Result<(), Error>;

    /// What was set aside, with its size.
    async fn quarantined(&self) -> Result<Vec<(Digest, u64)>, Error>;

    /// Removes what was set aside.
    async fn forget(&self, digest: &Digest) -> Result<(), Error>;

    /// Where it stands who the owner is, for people.
    fn owner_place(&self) -> String;

    /// Who the owner is; none when nobody is yet.
    async fn owner(&self) -> Result<Option<String>, Error>;

    /// Makes this the owner of a shelf that has none. Of two who do so at once, one is.
    async fn own(&self, owner: &str) -> Result<(), Error>;
}

/// The bytes of images: those on their way in, and those that are whole.
#[derive(Clone)]
pub struct Blobs {
    /// Those on their way in.
    pub staging: Staging,
    shelf: Arc<dyn Shelf>,
    owner: Arc<str>,
}

impl std::ops::Deref for Blobs {
    type Target = dyn Shelf;

    fn deref(&self) -> &Self::Target {
        &*self.shelf
    }
}

impl Blobs {
    /// Uploads in this directory, which is made for nobody else to read; blobs on this shelf, or in the directory too. The owner is who keeps them, in words that people can compare.
    pub fn open(dir: &Path, shelf: Option<Arc<dyn Shelf>>, owner: &str) -> std::io::Result<Blobs> {
        let staging = Staging::open(dir)?;
        let shelf = match shelf {
            Some(shelf) => shelf,
            None => Arc::new(Directory::open(dir)?),
        };
        Ok(Blobs { staging, shelf, owner: owner.into() })
    }

    /// Takes a shelf that is nobody's. An error when it is another's: what is there is then nothing to add to or to remove. It is asked each time, since it may be another's by now.
    pub async fn claim(&self) -> Result<(), Error> {
        let found = match self.shelf.owner().await? {
            Some(found) => found,
            None => {
                self.shelf.own(&self.owner).await?;
                self.shelf.owner().await?.unwrap_or_default()
            }
        };
        if *found == *self.owner {
            return Ok(());
        }
        let (place, owner) = (self.shelf.owner_place(), self.owner.to_string());
        Err(Error::OtherOwner { place, found, owner })
    }

    /// True when a blob's bytes are what its digest says; none when it is not there.
    pub async fn is_right(&self, digest: &Digest) -> Result<Option<bool>, Error> {
        let Some(mut pieces) = self.shelf.read(digest, 0).await? else { return Ok(None) };
        let hashed = tokio::task::spawn_blocking(move || {
            let mut hash = Sha256::new();
            while let Some(piece) = pieces.blocking_recv() {
                hash.update(piece?);
            }
            Ok::<_, Error>(Digest::of(hash))
        });
        Ok(Some(hashed.await.map_err(|_| Error::Ended)?? == *digest))
    }
}
