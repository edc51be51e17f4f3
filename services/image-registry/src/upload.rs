//! Uploads: bytes on their way into the store, and how they become images.
//!
//! ```text
//! create ─► write, as often as it is cut off ─► finish: size, digest and content are right ─► blob and image
//!    └─ the digest is there already ───────────────┘         └─ they are not: the upload ends with the reason
//! ```
//!
//! Of several image registries over the same rows each can go on with an upload, one at a time: how far it is, its file says, so where they do not share the directory of uploads it begins anew at
//! another one.
//!
//! The bytes are written, hashed and inspected in one pass as they come, by a thread of their own. An upload that this process did not see from its start, for
//! it was restarted meanwhile or a disk ran full, is read once more when it goes on.
//!
//! Whoever goes on with an upload that it found by the name of its file may have another file of that name: such an upload is finished by its digest only. Whoever says nothing for a while
//! loses its turn: a connection that is dead on one side only would keep everybody else from going on.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedMutexGuard, mpsc};
use uuid::Uuid;

use crate::blob::{Blobs, Digest, Pass, Staged, Staging};
use crate::error::Error;
use crate::held::Held;
use crate::reference::Reference;
use crate::store::blobs::{Blob, Upload};
use crate::store::{Image, Lock, Name, Store, micros_of, now_us};

/// Pieces that may wait for the disk.
const WAITING: usize = 8;
/// How long a call waits for another one to let go of the same upload: the one before it may not have seen yet that its caller is gone.
const TURN: Duration = Duration::from_secs(10);

/// How far an upload is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The upload.
    pub upload: Upload,
    /// How many bytes have come.
    pub offset: u64,
    /// When it is given up, in microseconds since 1970.
    pub expire_time_us: i64,
    /// No digest is said, and the store has bytes of this very size.
    pub is_size_known: bool,
}

/// All uploads.
#[derive(Clone)]
pub struct Uploads {
    store: Store,
    blobs: Blobs,
    keep: Duration,
    /// How long whoever sends bytes may say nothing.
    silence: Duration,
    open: Arc<Mutex<HashMap<String, Passing>>>,
    /// Bytes that are on their way to the shelf and to their row, or out.
    pub(crate) held: Held,
}

/// The one who works on an upload has its pass.
type Passing = Arc<tokio::sync::Mutex<Option<Pass>>>;

/// Who works on an upload, of all who could: its pass, as far as this one has made it.
struct Turn {
    pass: OwnedMutexGuard<Option<Pass>>,
    _among: Lock,
}

impl Uploads {
    /// Uploads that are given up when nothing came for so long, and of which a turn is over when nothing came for as long as `silence`.
    pub fn new(store: Store, blobs: Blobs, keep: Duration, silence: Duration) -> Uploads {
        let held = Held::new(store.clone());
        Uploads { store, blobs, keep, silence, open: Arc::default(), held }
    }

    /// Makes an upload. One that was cut off, of the same bytes for the same image, is gone on with instead, unless somebody does so right now.
    pub async fn create(&self, mut upload: Upload) -> Result<Progress, Error> {
        if let Some(mut begun) = self.begun(&upload).await? {
            let far = self.progress_of(begun.clone()).await?;
            if begun.digest.is_some() || far.offset == 0 {
                return Ok(far);
            }
            self.store.resume_upload(&begun.id).await?;
            begun.resumed = true;
            return Ok(Progress { upload: begun, ..far });
        }
        upload.id = Uuid::now_v7().to_string();
        upload.create_time_us = now_us();
        if let Some(blob) = self.known(&upload).await? {
            upload.size_bytes = blob.size_bytes;
        } else {
            let (blobs, wanted) = (self.blobs.clone(), upload.size_bytes);
            let room = blocking(move || blobs.staging.room()).await?;
            if wanted > room {
                return Err(Error::NoRoom { wanted, room, dir: self.blobs.staging.dir().to_owned() });
            }
        }
        self.store.add_upload(&upload).await?;
        self.progress_of(upload).await
    }

    async fn begun(&self, wanted: &Upload) -> Result<Option<Upload>, Error> {
        // Without a digest, whoever finishes it has to say one: what went on with the bytes of another file is found then.
        let is_named = wanted.size_bytes > 0 && !wanted.file_name.is_empty();
        if wanted.digest.is_none() && !is_named {
            return Ok(None);
        }
        let wish = |u: &Upload| Upload { id: String::new(), create_time_us: 0, resumed: false, ..u.clone() };
        let same = |u: &Upload| wish(u) == *wanted;
        for upload in self.store.uploads().await?.into_iter().filter(same) {
            if self.is_free(&upload.id).await? {
                return Ok(Some(upload));
            }
        }
        Ok(None)
    }

    /// True when nobody works on an upload.
    async fn is_free(&self, id: &str) -> Result<bool, Error> {
        let passing = self.open.lock().expect("no holder panics").get(id).cloned();
        if passing.is_some_and(|p| p.try_lock().is_err()) {
            return Ok(false);
        }
        self.store.is_free(Name::Upload(id)).await
    }

    /// The blob that an upload is to become, where the store has it already.
    async fn known(&self, upload: &Upload) -> Result<Option<Blob>, Error> {
        let Some(digest) = upload.digest.clone() else { return Ok(None) };
        let Some(blob) = self.store.blob(&digest).await? else { return Ok(None) };
        let there = self.blobs.size(&digest).await? == Some(blob.size_bytes);
        // Bytes that were taken as raw by somebody's word are not something else by another's.
        let agrees = upload.format.is_none_or(|f| f == blob.format);
        let same_size = upload.size_bytes == 0 || upload.size_bytes == blob.size_bytes;
        Ok(Some(blob).filter(|b| there && agrees && same_size && b.problem.is_empty()))
    }

    /// How far an upload is.
    pub async fn progress(&self, id: &str) -> Result<Progress, Error> {
        let upload = self.store.upload(id).await?;
        self.progress_of(upload).await
    }

    async fn progress_of(&self, upload: Upload) -> Result<Progress, Error> {
        let (blobs, id) = (self.blobs.clone(), upload.id.clone());
        let of_file = blocking(move || blobs.staging.progress(&id)).await?;
        let touched = of_file.map_or(upload.create_time_us, |(_, modified)| micros_of(modified));
        let offset = match of_file {
            Some((offset, _)) => offset,
            None => self.known(&upload).await?.map_or(0, |b| b.size_bytes),
        };
        let keep = i64::try_from(self.keep.as_micros()).unwrap_or(i64::MAX);
        let expire_time_us = touched.max(upload.create_time_us).saturating_add(keep);
        let is_size_known = upload.digest.is_none()
            && upload.size_bytes > 0
            && self.store.has_size(upload.size_bytes).await?;
        Ok(Progress { upload, offset, expire_time_us, is_size_known })
    }

    async fn turn(&self, id: &str) -> Result<Turn, Error> {
        self.store.upload(id).await?;
        let passing = self.open.lock().expect("no holder panics").entry(id.to_owned()).or_default().clone();
        let turn = async {
            let pass = passing.lock_owned().await;
            Ok(Turn { pass, _among: self.store.lock(Name::Upload(id)).await? })
        };
        tokio::time::timeout(TURN, turn).await.map_err(|_| Error::UploadBusy(id.to_owned()))?
    }

    fn let_go(&self, id: &str) {
        self.open.lock().expect("no holder panics").remove(id);
    }

    /// Begins to take bytes of an upload at an offset, which is where it has to stand.
    pub async fn write(&self, id: &str, offset: u64) -> Result<Writing, Error> {
        let turn = self.turn(id).await?;
        let progress = self.progress(id).await?;
        if progress.offset != offset {
            return Err(Error::Offset { id: id.to_owned(), stands: progress.offset, given: offset });
        }
        let limit = match progress.upload.size_bytes {
            0 => u64::MAX,
            size => size,
        };
        let (give, mut take) = mpsc::channel::<Bytes>(WAITING);
        let (blobs, id, silence) = (self.blobs.clone(), id.to_owned(), self.silence);
        let named = id.clone();
        let work = tokio::task::spawn_blocking(move || {
            let mut turn = turn;
            let mut pass = match turn.pass.take() {
                Some(pass) if pass.offset() == offset => pass,
                _ => Pass::resume(&blobs.staging, &id)?,
            };
            // An upload whose bytes the store had a moment ago has none of its own.
            if pass.offset() != offset {
                return Err(Error::Offset { id, stands: pass.offset(), given: offset });
            }
            let disk = |e| Error::disk(blobs.staging.dir(), e);
            let mut came = Ok(());
            while let Some(bytes) = take.blocking_recv() {
                if pass.offset() + bytes.len() as u64 > limit {
                    came = Err(Error::TooLong { id, size: limit });
                    break;
                }
                pass.take(&bytes).map_err(disk)?;
            }
            pass.flush().map_err(disk)?;
            *turn.pass = Some(pass);
            came
        });
        Ok(Writing { id: named, silence, give, work })
    }

    /// Gives an upload up.
    pub async fn delete(&self, id: &str) -> Result<Progress, Error> {
        let mut turn = self.turn(id).await?;
        let progress = self.progress(id).await?;
        *turn.pass = None;
        self.end(id).await?;
        Ok(progress)
    }

    async fn end(&self, id: &str) -> Result<(), Error> {
        self.store.end_upload(id).await?;
        let (blobs, upload) = (self.blobs.clone(), id.to_owned());
        blocking(move || blobs.staging.drop_upload(&upload)).await?;
        self.let_go(id);
        Ok(())
    }

    /// Makes an upload the image it is for. This goes on to its end when whoever asked goes away.
    pub async fn finish(&self, id: &str, digest: Option<Digest>) -> Result<Image, Error> {
        let (this, id) = (self.clone(), id.to_owned());
        tokio::spawn(async move { this.finished(&id, digest).await }).await.map_err(|_| Error::Ended)?
    }

    async fn finished(&self, id: &str, digest: Option<Digest>) -> Result<Image, Error> {
        let mut turn = self.turn(id).await?;
        let Progress { mut upload, offset, .. } = self.progress(id).await?;
        if digest.is_some() {
            upload.digest = digest;
        }
        if upload.resumed && upload.digest.is_none() {
            return Err(Error::NoDigest { id: id.to_owned(), file_name: upload.file_name });
        }
        if upload.size_bytes != 0 && offset != upload.size_bytes {
            return Err(Error::Incomplete { id: id.to_owned(), has: offset, wanted: upload.size_bytes });
        }
        let (blobs, of) = (self.blobs.clone(), id.to_owned());
        let has_bytes = blocking(move || blobs.staging.progress(&of)).await?.is_some();
        let known = match &upload.digest {
            Some(digest) if !has_bytes => {
                let hold = self.held.hold(digest).await?;
                self.known(&upload).await?.map(|blob| (blob, hold))
            }
            _ => None,
        };
        let (blob, hold) = match known {
            Some(known) => known,
            None => {
                match self.checked(&upload, turn.pass.take()).await {
                    Ok((blob, staged)) => {
                        self.blobs.claim().await?;
                        let hold = self.held.hold(&blob.digest).await?;
                        self.blobs.keep(staged, &blob.digest).await?;
                        (blob, hold)
                    }
                    Err(e) => {
                        // What its bytes are does not change by sending them again.
                        if matches!(e, Error::Content { .. } | Error::Digest { .. }) {
                            self.end(id).await?;
                        }
                        return Err(e);
                    }
                }
            }
        };
        self.store.finish_upload(&upload, &blob, hold.lock).await?;
        self.let_go(id);
        tracing::info!(image = %upload.reference, digest = %blob.digest, bytes = blob.size_bytes, format = blob.format.as_str(), "stored");
        self.store.get(&upload.reference).await
    }

    async fn checked(&self, upload: &Upload, pass: Option<Pass>) -> Result<(Blob, Staged), Error> {
        let (staging, upload) = (self.blobs.staging.clone(), upload.clone());
        let checked = tokio::task::spawn_blocking(move || check(&staging, &upload, pass));
        checked.await.map_err(|_| Error::Ended)?
    }

    /// Gives up what nobody went on with. Returns how many there were. What another replica ended is let go of here, too: an open file keeps its room on the disk.
    pub async fn expire(&self) -> Result<usize, Error> {
        // Their rows were there before they were open.
        let open: Vec<String> = self.open.lock().expect("no holder panics").keys().cloned().collect();
        if !open.is_empty() {
            let rows = self.store.uploads().await?;
            let is_over = |id: &String| open.contains(id) && !rows.iter().any(|upload| upload.id == *id);
            let mut passing = self.open.lock().expect("no holder panics");
            passing.retain(|id, pass| !is_over(id) || Arc::strong_count(pass) > 1);
        }
        let mut ended = 0;
        for id in self.abandoned().await?.into_iter().map(|(id, _)| id) {
            ended += usize::from(self.give_up(&id).await?);
        }
        Ok(ended)
    }

    /// Ends an upload, unless somebody works on it: then it is not abandoned.
    pub(crate) async fn give_up(&self, id: &str) -> Result<bool, Error> {
        if !self.is_free(id).await? {
            return Ok(false);
        }
        self.end(id).await?;
        Ok(true)
    }

    /// Uploads that nobody went on with, and bytes of uploads that are not known, with their sizes.
    pub async fn abandoned(&self) -> Result<Vec<(String, u64)>, Error> {
        let now = now_us();
        let mut found = Vec::new();
        // Files first: the row of an upload is there before its file.
        let blobs = self.blobs.clone();
        let files = blocking(move || {
            let ids = blobs.staging.uploads()?;
            ids.into_iter()
                .map(|id| Ok((blobs.staging.progress(&id)?.map_or(0, |(bytes, _)| bytes), id)))
                .collect::<io::Result<Vec<_>>>()
        })
        .await?;
        let uploads = self.store.uploads().await?;
        let known: Vec<String> = uploads.iter().map(|u| u.id.clone()).collect();
        for upload in uploads {
            let progress = self.progress_of(upload).await?;
            if progress.expire_time_us <= now {
                let (blobs, id) = (self.blobs.clone(), progress.upload.id.clone());
                let bytes =
                    blocking(move || blobs.staging.progress(&id)).await?.map_or(0, |(bytes, _)| bytes);
                found.push((progress.upload.id, bytes));
            }
        }
        let strays = files.into_iter().filter(|(_, id)| !known.contains(id));
        found.extend(strays.map(|(bytes, id)| (id, bytes)));
        Ok(found)
    }
}

/// Bytes of an upload on their way to the disk.
pub struct Writing {
    id: String,
    silence: Duration,
    give: mpsc::Sender<Bytes>,
    work: tokio::task::JoinHandle<Result<(), Error>>,
}

impl Writing {
    /// Waits for what is sent next. An error when nothing is for too long: the turn is over then.
    pub async fn hear<T>(&self, next: impl Future<Output = T>) -> Result<T, Error> {
        let heard = tokio::time::timeout(self.silence, next).await;
        heard.map_err(|_| Error::Silent { id: self.id.clone(), seconds: self.silence.as_secs() })
    }

    /// Takes the next bytes; false when no more are taken, and [`Writing::finish`] says why.
    pub async fn take(&self, bytes: Bytes) -> bool {
        self.give.send(bytes).await.is_ok()
    }

    /// All that was given is on disk, or why it is not.
    pub async fn finish(self) -> Result<(), Error> {
        drop(self.give);
        self.work.await.map_err(|_| Error::Ended)?
    }
}

/// What came, when it is what it should be.
fn check(staging: &Staging, upload: &Upload, pass: Option<Pass>) -> Result<(Blob, Staged), Error> {
    let disk = |e| Error::disk(staging.dir(), e);
    let on_disk = staging.progress(&upload.id).map_err(disk)?.map_or(0, |(offset, _)| offset);
    let mut pass = match pass {
        Some(pass) if pass.offset() == on_disk => pass,
        _ => Pass::resume(staging, &upload.id).map_err(disk)?,
    };
    let digest = pass.digest();
    let reference = upload.reference.to_string();
    if let Some(wanted) = upload.digest.clone().filter(|w| *w != digest) {
        return Err(Error::Digest { reference, wanted, found: digest });
    }
    let facts = pass.facts(upload.format).map_err(|refusal| Error::Content { reference, refusal })?;
    let staged = pass.staged();
    Ok((Blob::new(digest, staged.size, facts), staged))
}

/// Does what blocks away from the threads that serve calls.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    Ok(tokio::task::spawn_blocking(work).await.map_err(|_| Error::Ended)??)
}

/// The reference of an upload, or the one that its file's name suggests.
pub fn reference(text: &str, file_name: &str) -> Result<Reference, Error> {
    if text.is_empty() && !file_name.is_empty() {
        return Ok(netloom_image::suggest::suggest(file_name).reference.parse()?);
    }
    Ok(text.parse()?)
}
