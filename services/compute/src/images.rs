//! Images that come to this host from the registry's store.
//!
//! ```text
//! pull ─► has the runtime got it? ─► fetch ─────────► load ─► the runtime's own store (Docker)
//!                                     │ one for all who ask for the same bytes, a few at once
//!                                     ▼
//!                          <data-dir>/images/<sha256>  ─► machines' disks lie on it
//! ```
//!
//! What is on disk is looked at, not remembered ([`shelf`]); how bytes come is in [`fetch`]. A disk stays for as long as something here needs it, and for a while after; an
//! archive only until Docker has what is in it. What stays is compared with its digest on the disk itself, now and then and when somebody asks ([`check`], [`scrub`]).

pub mod check;
mod fetch;
pub mod scrub;
pub mod shelf;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::stream::{self, Stream, StreamExt as _};
use netloom_model::Failure;
use netloom_model::id::Digest;
use netloom_model::state::Runtime;
use netloom_proto::image_registry::v1::image_registry_service_client::ImageRegistryServiceClient;
use netloom_service::{Channel, Connector, Replicas, Shutdown, Whom};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::driver::Driver;
use crate::error::Error;
use crate::host::Host;
use shelf::Shelf;

/// So many images come at once: more share the same line and the same disk.
const AT_ONCE: usize = 3;
/// Progress is told at most this often.
const EVERY: Duration = Duration::from_millis(250);
/// The same word is told again after so long: it is a sign of life.
const STILL: Duration = Duration::from_secs(30);
/// How often what nothing needs is looked for: a quarter of what it is kept for, within these.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(600);

/// Bytes in the registry's store, and the right to read them.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Their SHA-256.
    pub digest: Digest,
    /// How many.
    pub size_bytes: u64,
    /// True for an archive of container images.
    pub is_archive: bool,
    /// What Docker calls the ids of the images in an archive.
    pub image_ids: Vec<String>,
    /// The right.
    pub ticket: String,
}

/// How far a fetch is.
#[derive(Debug, Clone)]
enum State {
    /// In words.
    Under(String),
    /// It is over.
    Over(Result<(), Failure>),
}

/// See the module.
pub struct Images {
    shelf: Arc<Shelf>,
    registry: ImageRegistryServiceClient<Channel>,
    endpoint: Replicas,
    slots: Semaphore,
    running: Mutex<HashMap<Digest, watch::Receiver<State>>>,
    loads: tokio::sync::Mutex<()>,
    keep: Duration,
    /// Images that could not be read when they were compared last, and why.
    unreadable: Mutex<BTreeMap<Digest, String>>,
    /// Grows when a fetch is over, and when one cannot be read or can again.
    changed: watch::Sender<u64>,
    shutdown: Shutdown,
}

impl Images {
    /// In this data directory, from the registry at this endpoint.
    pub fn open(
        data_dir: &Path,
        endpoint: &Replicas,
        connector: &Connector,
        keep: Duration,
        shutdown: Shutdown,
    ) -> Result<Images, Error> {
        let shelf = Shelf::open(data_dir).map_err(|e| Error::host("cannot keep images", e))?;
        Ok(Images {
            shelf: Arc::new(shelf),
            registry: ImageRegistryServiceClient::new(connector.channel_to(endpoint, Whom::Any)),
            endpoint: endpoint.clone(),
            slots: Semaphore::new(AT_ONCE),
            running: Mutex::default(),
            loads: tokio::sync::Mutex::default(),
            keep,
            unreadable: Mutex::default(),
            changed: watch::channel(0).0,
            shutdown,
        })
    }

    /// Size of an image that is on this host's disk, compared with its digest.
    pub async fn look(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        let digest = digest.clone();
        self.on_shelf(move |shelf| shelf.look(&digest)).await
    }

    /// Bytes that there is room for where images come to, which may be a disk of its own.
    pub async fn room(&self) -> Result<u64, Error> {
        self.on_shelf(|shelf| shelf.room()).await
    }

    /// Brings an image to the runtime that this driver runs, telling its progress in words.
    pub fn pull(
        self: Arc<Self>,
        driver: Arc<dyn Driver>,
        runtime: Runtime,
        reference: String,
        stored: Stored,
    ) -> impl Stream<Item = Result<String, Error>> + Send {
        let (tell, told) = mpsc::channel(1);
        let work = async move { self.bring(&*driver, runtime, &reference, &stored, tell).await };
        let work = stream::once(work).filter_map(|done| std::future::ready(done.err().map(Err)));
        stream::select(ReceiverStream::new(told).map(Ok), work)
    }

    async fn bring(
        self: &Arc<Self>,
        driver: &dyn Driver,
        runtime: Runtime,
        reference: &str,
        stored: &Stored,
        tell: mpsc::Sender<String>,
    ) -> Result<(), Error> {
        if stored.is_archive != (runtime == Runtime::Docker) {
            let what = if stored.is_archive { "an archive of containers" } else { "a disk" };
            return Err(Error::Invalid(format!("stored: {what} is nothing for runtime {runtime}")));
        }
        if !stored.is_archive {
            return self.fetch(stored, &tell).await;
        }
        if driver.adopt(reference, &stored.image_ids).await? {
            return Ok(());
        }
        self.fetch(stored, &tell).await?;
        // One after the other: who comes second finds what the first one brought.
        let _turn = self.loads.lock().await;
        if driver.adopt(reference, &stored.image_ids).await? {
            return Ok(());
        }
        let _ = tell.send("loading it".to_owned()).await;
        let is_meant = driver.load(reference, &self.shelf.path(&stored.digest)).await?;
        // By the ids that the store knows; where Docker's are others, by what it says itself.
        if !driver.adopt(reference, &stored.image_ids).await? && !is_meant {
            return Err(Error::PullFailed {
                reference: reference.to_owned(),
                message: format!(
                    "the archive was loaded, and none of its images ({}) is meant by this name; push one image alone, or under a name that the archive itself says",
                    stored.image_ids.join(", ")
                ),
            });
        }
        let digest = stored.digest.clone();
        self.on_shelf(move |shelf| shelf.remove(&digest)).await
    }

    /// Waits until an image is on this host's disk.
    async fn fetch(self: &Arc<Self>, stored: &Stored, tell: &mpsc::Sender<String>) -> Result<(), Error> {
        let mut state = self.fetching(stored);
        let mut said = (String::new(), Instant::now());
        loop {
            let now = state.borrow_and_update().clone();
            match now {
                State::Under(text) if text != said.0 || said.1.elapsed() > STILL => {
                    let _ = tell.send(text.clone()).await;
                    said = (text, Instant::now());
                }
                State::Under(_) => {}
                State::Over(outcome) => return outcome.map_err(|failure| Error::Registry(Box::new(failure))),
            }
            let is_over = state.wait_for(|state| matches!(state, State::Over(_)));
            if tokio::time::timeout(EVERY, is_over).await.is_ok_and(|over| over.is_err()) {
                return Err(Error::Host("a fetch ended without an answer; see the service's log".to_owned()));
            }
        }
    }

    /// The fetch of these bytes, which is begun when none runs. It goes on when those who asked go away.
    fn fetching(self: &Arc<Self>, stored: &Stored) -> watch::Receiver<State> {
        let mut running = self.running.lock().expect("no holder panics");
        if let Some(state) = running.get(&stored.digest).filter(|s| s.has_changed().is_ok()) {
            return state.clone();
        }
        let (tell, told) = watch::channel(State::Under("waits for its turn".to_owned()));
        running.insert(stored.digest.clone(), told.clone());
        let (this, stored) = (self.clone(), stored.clone());
        tokio::spawn(async move {
            let outcome = tokio::select! {
                outcome = fetch::bring(&this, &stored, &tell) => outcome,
                () = this.shutdown.cancelled() => Err(Error::Unavailable("this service is ending".to_owned())),
            };
            if let Err(e) = &outcome {
                tracing::warn!(digest = %stored.digest, "an image is not fetched: {e}");
            }
            this.running.lock().expect("no holder panics").remove(&stored.digest);
            this.changed.send_modify(|n| *n += 1);
            tell.send_replace(State::Over(outcome.map_err(Failure::from)));
        });
        told
    }

    async fn drop_part(&self, digest: &Digest) -> Result<(), Error> {
        let digest = digest.clone();
        self.on_shelf(move |shelf| shelf.drop_part(&digest)).await
    }

    async fn on_shelf<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shelf) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let shelf = self.shelf.clone();
        let done = tokio::task::spawn_blocking(move || work(&shelf)).await;
        done.map_err(|e| Error::host("work on images did not end", e))?.map_err(|e| self.disk(e))
    }

    fn disk(&self, e: io::Error) -> Error {
        let dir = self.shelf.dir().display();
        match e.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Error::DiskFull(format!("the disk of {dir} is full: make room there"))
            }
            _ => Error::host(format!("images in {dir}"), e),
        }
    }

    fn unreachable(&self, status: &Status) -> Error {
        Error::NoRegistry(format!(
            "the image registry at {} does not answer: {}; see `image_registry` of [endpoints]",
            self.endpoint,
            status.message()
        ))
    }
}

/// Removes images that nothing needs, for ever. Nothing is removed before it is known what this host is to run.
pub async fn run(host: Arc<Host>) {
    let images = &host.images;
    let every = (images.keep / 4).clamp(SHORTEST, LONGEST);
    loop {
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = host.shutdown.cancelled() => return,
        }
        let Some(mut needed) = host.table.images() else { continue };
        needed.extend(images.running.lock().expect("no holder panics").keys().cloned());
        let keep = images.keep;
        match images.on_shelf(move |shelf| shelf.collect(&needed, keep)).await {
            Ok(removed) => {
                for digest in removed {
                    tracing::info!(%digest, "an image that nothing here needs is removed");
                }
            }
            Err(error) => tracing::warn!(%error, "images that nothing here needs cannot be removed"),
        }
    }
}

/// The digests that references name.
pub fn pinned<'a>(references: impl Iterator<Item = &'a str>) -> BTreeSet<Digest> {
    let digest = |reference: &'a str| reference.rsplit_once('@').map_or(reference, |(_, digest)| digest);
    references.filter_map(|r| Digest::try_from(digest(r).to_owned()).ok()).collect()
}
