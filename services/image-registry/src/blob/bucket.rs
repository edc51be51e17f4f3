//! Blobs in a bucket of an object store.
//!
//! ```text
//! <prefix>/blobs/<sha256>       put as one object, or in parts that become one at the end: whole or not there
//! <prefix>/quarantine/<sha256>
//! <prefix>/owner
//! ```
//!
//! A staged file is sent when it is whole and checked, and is gone from this machine when the bucket says that it has so many bytes. One that was cut off is sent again when
//! its upload is finished again; parts of it that a crash left behind are the bucket's to expire.

use std::sync::Arc;

use bytes::BytesMut;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::buffered::BufWriter;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt as _};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::{Digest, PIECE, Pieces, Shelf, Staged, WAITING};
use crate::error::Error;

/// The smallest part; of what is larger than [`MOST_PARTS`] of these, parts are larger.
const PART: u64 = 8 << 20;
/// S3 takes 10,000 parts of one object.
const MOST_PARTS: u64 = 9_000;
/// Parts that are on their way at once.
const AT_ONCE: usize = 4;

/// The bucket.
#[derive(Debug, Clone)]
pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    name: String,
    prefix: String,
}

impl Bucket {
    /// What stands below this prefix of this store, which people know by this name.
    pub fn new(store: Arc<dyn ObjectStore>, name: &str, prefix: &str) -> Bucket {
        Bucket { store, name: name.to_owned(), prefix: prefix.trim_matches('/').to_owned() }
    }

    fn dir(&self, part: &str) -> Path {
        Path::from(format!("{}/{part}", self.prefix))
    }

    fn blob(&self, digest: &Digest) -> Path {
        self.dir("blobs").join(digest.hex())
    }

    fn aside(&self, digest: &Digest) -> Path {
        self.dir("quarantine").join(digest.hex())
    }

    fn failed(&self, does: &'static str) -> impl Fn(object_store::Error) -> Error + Send + use<> {
        let bucket = self.name.clone();
        move |e| Error::Bucket { bucket: bucket.clone(), does, source: e.into() }
    }

    async fn found(&self, path: &Path) -> Result<Option<u64>, Error> {
        match self.store.head(path).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(self.failed("be asked for an image's size")(e)),
        }
    }

    async fn list(&self, part: &str) -> Result<Vec<(Digest, u64)>, Error> {
        let listed = self.store.list(Some(&self.dir(part))).map_err(self.failed("be listed"));
        let digest = |o: object_store::ObjectMeta| Some((Digest::from_hex(o.location.filename()?)?, o.size));
        listed.try_filter_map(|o| std::future::ready(Ok(digest(o)))).try_collect().await
    }

    async fn delete(&self, path: &Path) -> Result<(), Error> {
        match self.store.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(self.failed("remove an image")(e)),
        }
    }

    async fn pieces(&self, path: &Path, offset: u64) -> Result<Option<Pieces>, Error> {
        let mut options = GetOptions::default();
        if offset > 0 {
            // A range that begins at the end or after it is an error.
            match self.found(path).await? {
                None => return Ok(None),
                Some(size) if offset >= size => return Ok(Some(mpsc::channel(WAITING).1)),
                Some(_) => options.range = Some(GetRange::Offset(offset)),
            }
        }
        let mut bytes = match self.store.get_opts(path, options).await {
            Ok(found) => found.into_stream(),
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(e) => return Err(self.failed("give an image")(e)),
        };
        let (give, take) = mpsc::channel(WAITING);
        let failed = self.failed("give an image");
        tokio::spawn(async move {
            while let Some(piece) = bytes.next().await {
                let mut piece = match piece {
                    Ok(piece) => piece,
                    Err(e) => {
                        let _ = give.send(Err(failed(e))).await;
                        return;
                    }
                };
                while !piece.is_empty() {
                    let part = piece.split_to(piece.len().min(PIECE));
                    // Whoever read went away.
                    if give.send(Ok(part)).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Some(take))
    }

    /// Puts the pieces as one object, of which the bucket then says that it has so many bytes.
    async fn put(&self, path: &Path, size: u64, mut pieces: Pieces) -> Result<(), Error> {
        let part = usize::try_from(PART.max(size.div_ceil(MOST_PARTS))).unwrap_or(usize::MAX);
        let writer = BufWriter::with_capacity(self.store.clone(), path.clone(), part);
        let mut writer = writer.with_max_concurrency(AT_ONCE);
        let failed = self.failed("take an image");
        let sent = async {
            while let Some(piece) = pieces.recv().await {
                writer.put(piece?).await.map_err(&failed)?;
            }
            Ok(())
        };
        if let Err(e) = sent.await {
            let _ = writer.abort().await;
            return Err(e);
        }
        writer.shutdown().await.map_err(|e| failed(of_io(e)))?;
        match self.found(path).await? {
            Some(found) if found == size => Ok(()),
            found => {
                let said = format!("it has {} of {size} bytes of it", found.unwrap_or_default());
                Err(failed(object_store::Error::Generic { store: "S3", source: said.into() }))
            }
        }
    }
}

#[tonic::async_trait]
impl Shelf for Bucket {
    async fn keep(&self, staged: Staged, digest: &Digest) -> Result<(), Error> {
        let (give, take) = mpsc::channel(WAITING);
        let mut file = File::from_std(staged.file);
        tokio::spawn(async move {
            let read = async {
                file.rewind().await?;
                loop {
                    let mut piece = BytesMut::with_capacity(PIECE);
                    if file.read_buf(&mut piece).await? == 0 || give.send(Ok(piece.freeze())).await.is_err() {
                        return Ok(());
                    }
                }
            };
            if let Err(e) = read.await {
                let _ = give.send(Err(Error::Disk(e))).await;
            }
        });
        self.put(&self.blob(digest), staged.size, take).await?;
        tokio::fs::remove_file(&staged.path).await.map_err(Error::Disk)
    }

    async fn size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        self.found(&self.blob(digest)).await
    }

    async fn read(&self, digest: &Digest, offset: u64) -> Result<Option<Pieces>, Error> {
        self.pieces(&self.blob(digest), offset).await
    }

    async fn all(&self) -> Result<Vec<(Digest, u64)>, Error> {
        self.list("blobs").await
    }

    async fn remove(&self, digest: &Digest) -> Result<(), Error> {
        self.delete(&self.blob(digest)).await
    }

    // A copy within S3 ends at 5 GiB, and disks do not: what is set aside goes through here, in parts.
    async fn quarantine(&self, digest: &Digest) -> Result<(), Error> {
        let blob = self.blob(digest);
        let (Some(size), Some(pieces)) = (self.found(&blob).await?, self.pieces(&blob, 0).await?) else {
            return Ok(());
        };
        self.put(&self.aside(digest), size, pieces).await?;
        self.delete(&blob).await
    }

    async fn quarantined(&self) -> Result<Vec<(Digest, u64)>, Error> {
        self.list("quarantine").await
    }

    async fn forget(&self, digest: &Digest) -> Result<(), Error> {
        self.delete(&self.aside(digest)).await
    }

    fn owner_place(&self) -> String {
        format!("{} of the bucket {}", self.dir("owner"), self.name)
    }

    async fn owner(&self) -> Result<Option<String>, Error> {
        let failed = self.failed("say whose it is");
        let found = match self.store.get(&self.dir("owner")).await {
            Ok(found) => found.bytes().await.map_err(failed)?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(e) => return Err(failed(e)),
        };
        Ok(Some(String::from_utf8_lossy(&found).into_owned()))
    }

    async fn own(&self, owner: &str) -> Result<(), Error> {
        let put = self.store.put(&self.dir("owner"), owner.to_owned().into()).await;
        put.map(|_| ()).map_err(self.failed("take note of whose it is"))
    }
}

/// What a writer wraps into an error of the disk's kind.
fn of_io(e: std::io::Error) -> object_store::Error {
    match e.downcast::<object_store::Error>() {
        Ok(e) => e,
        Err(e) => object_store::Error::Generic { store: "S3", source: e.into() },
    }
}
