//! Blobs in a directory.
//!
//! ```text
//! <dir>/blobs/<2 digits>/<sha256>  mode 0444
//! <dir>/quarantine/<sha256>
//! <dir>/owner
//! ```
//!
//! A blob comes to be by a rename of a staged file that was synced, and the directory is synced after it.

use std::fs::{File, Permissions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Digest, PIECE, Pieces, Shelf, Staged, WAITING};
use crate::error::Error;

/// The directory. Files are staged on the same file system.
#[derive(Debug, Clone)]
pub struct Directory {
    dir: PathBuf,
}

impl Directory {
    /// In this directory, in which what belongs into it is made.
    pub fn open(dir: &Path) -> io::Result<Directory> {
        for part in ["blobs", "quarantine"] {
            std::fs::create_dir_all(dir.join(part))?;
        }
        Ok(Directory { dir: dir.to_owned() })
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs").join(&digest.hex()[..2]).join(digest.hex())
    }

    fn aside(&self, digest: &Digest) -> PathBuf {
        self.dir.join("quarantine").join(digest.hex())
    }

    /// Does what blocks away from the threads that serve calls.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Directory) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let this = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&this)).await;
        done.map_err(|_| Error::Ended)?.map_err(|e| Error::disk(&self.dir, e))
    }
}

#[tonic::async_trait]
impl Shelf for Directory {
    async fn keep(&self, staged: Staged, digest: &Digest) -> Result<(), Error> {
        let target = self.path(digest);
        let kept = self.on_disk(move |this| {
            staged.file.set_permissions(Permissions::from_mode(0o444))?;
            staged.file.sync_all()?;
            let shard = target.parent().unwrap_or(&this.dir);
            std::fs::create_dir_all(shard)?;
            std::fs::rename(&staged.path, &target)?;
            File::open(shard)?.sync_all()?;
            File::open(this.dir.join("blobs"))?.sync_all()
        });
        kept.await
    }

    async fn size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        let path = self.path(digest);
        let found = self.on_disk(move |_| match std::fs::metadata(path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        });
        found.await
    }

    async fn read(&self, digest: &Digest, offset: u64) -> Result<Option<Pieces>, Error> {
        let path = self.path(digest);
        let opened = self.on_disk(move |_| match File::open(path) {
            Ok(mut file) => file.seek(SeekFrom::Start(offset)).map(|_| Some(file)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        });
        let Some(file) = opened.await? else { return Ok(None) };
        let (give, take) = mpsc::channel(WAITING);
        let dir = self.dir.clone();
        tokio::task::spawn_blocking(move || {
            // Whoever reads may go away.
            if let Err(e) = each_piece(file, |piece| give.blocking_send(Ok(piece)).is_ok()) {
                let _ = give.blocking_send(Err(Error::disk(&dir, e)));
            }
        });
        Ok(Some(take))
    }

    async fn all(&self) -> Result<Vec<(Digest, u64)>, Error> {
        let found = self.on_disk(|this| {
            let blobs = this.dir.join("blobs");
            let mut found = Vec::new();
            for shard in names(&blobs)? {
                found.extend(digests(&blobs.join(shard))?);
            }
            Ok(found)
        });
        found.await
    }

    async fn remove(&self, digest: &Digest) -> Result<(), Error> {
        let path = self.path(digest);
        self.on_disk(move |_| gone(std::fs::remove_file(path))).await
    }

    async fn quarantine(&self, digest: &Digest) -> Result<(), Error> {
        let (from, to) = (self.path(digest), self.aside(digest));
        self.on_disk(move |_| gone(std::fs::rename(from, to))).await
    }

    async fn quarantined(&self) -> Result<Vec<(Digest, u64)>, Error> {
        self.on_disk(|this| digests(&this.dir.join("quarantine"))).await
    }

    async fn forget(&self, digest: &Digest) -> Result<(), Error> {
        let path = self.aside(digest);
        self.on_disk(move |_| gone(std::fs::remove_file(path))).await
    }

    fn owner_place(&self) -> String {
        self.dir.join("owner").display().to_string()
    }

    async fn owner(&self) -> Result<Option<String>, Error> {
        let read = self.on_disk(|this| match std::fs::read_to_string(this.dir.join("owner")) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        });
        read.await
    }

    async fn own(&self, owner: &str) -> Result<(), Error> {
        let owner = owner.to_owned();
        let made = self.on_disk(move |this| {
            netloom_service::installation::read_or_make(&this.dir.join("owner"), 0o600, || owner).map(|_| ())
        });
        made.await
    }
}

/// The blobs of a directory, with their sizes. What has another name is none.
fn digests(dir: &Path) -> io::Result<Vec<(Digest, u64)>> {
    let digests = names(dir)?.into_iter().filter_map(|name| Digest::from_hex(&name));
    digests.map(|d| Ok((d.clone(), std::fs::metadata(dir.join(d.hex()))?.len()))).collect()
}

/// Hands on the bytes of a file, until no more are taken.
pub(super) fn each_piece(mut file: File, mut take: impl FnMut(Bytes) -> bool) -> io::Result<()> {
    loop {
        let mut piece = vec![0; PIECE];
        match file.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                piece.truncate(n);
                if !take(piece.into()) {
                    return Ok(());
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

pub(super) fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        found.extend(entry?.file_name().into_string());
    }
    found.sort();
    Ok(found)
}

/// What is gone already is gone.
pub(super) fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
