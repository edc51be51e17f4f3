//! Images are compared when somebody asks for it, and now and then by themselves: a disk may lose bits that nobody reads for months. That takes what nobody else wants of the disk and the processor, and
//! never more than a bound.
//!
//! What was found wrong stands in the inventory for as long as it is so: the scheduler fetches again what was set aside, and people see on the host what cannot be read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{self, Stream, StreamExt as _};
use netloom_model::id::Digest;
use netloom_service::Shutdown;
use nix::libc;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::check::{Checked, Outcome};
use super::{EVERY, Images};
use crate::error::Error;
use crate::host::Host;
use crate::inventory::Inventory;

/// How often images that are due are looked for: so many times in the time after which each is, within these.
const LOOKS: u32 = 64;
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(600);
/// How often what is lost is looked for, though every change is told.
const LOOK: Duration = Duration::from_secs(30);
/// The class of `ioprio_set` that gets what nobody else wants, and whom it is said of: this thread.
const IDLE: libc::c_int = 3 << 13;
const OF_THREAD: libc::c_int = 1;

/// How hard it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// As fast as it goes: somebody waits for it.
    Full,
    /// With what nobody else wants, and so many bytes a second at most.
    Idle {
        /// At least 1.
        bytes_per_second: u64,
    },
}

/// What is told while images are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// So many bytes of so many of this one were read.
    Under(Digest, u64, u64),
    /// What came of one.
    Checked(Checked),
}

impl Images {
    /// Compares these images, or all that are here, and tells how far it is. It ends when nobody listens any more.
    pub fn verify(
        self: Arc<Self>,
        digests: Vec<Digest>,
        pace: Pace,
    ) -> impl Stream<Item = Result<Told, Error>> + Send {
        let (tell, told) = mpsc::channel(4);
        let (images, work) = (self.clone(), self);
        // A thread of its own: what is said of its priority is said for good.
        let thread = std::thread::Builder::new().name("images".to_owned());
        let begun = thread.spawn(move || {
            if let Pace::Idle { .. } = pace {
                yield_to_others();
            }
            if let Err(error) = work.compare(&digests, pace, &tell) {
                // Nobody listening is fine.
                let _ = tell.blocking_send(Err(images.disk(error)));
            }
        });
        let failed = begun.err().map(|e| Err(Error::host("no thread to compare images", e)));
        stream::iter(failed).chain(ReceiverStream::new(told))
    }

    fn compare(
        &self,
        digests: &[Digest],
        pace: Pace,
        tell: &mpsc::Sender<Result<Told, Error>>,
    ) -> std::io::Result<()> {
        let all = if digests.is_empty() { self.shelf.kept()? } else { digests.to_vec() };
        for digest in &all {
            let (begun, mut said) = (Instant::now(), Instant::now());
            let mut before = 0;
            let goes_on = |at: u64, of: u64| {
                if let Pace::Idle { bytes_per_second } = pace {
                    let due = Duration::from_secs_f64(at as f64 / bytes_per_second.max(1) as f64);
                    std::thread::sleep(due.saturating_sub(begun.elapsed()));
                }
                // A second reading begins anew.
                if said.elapsed() >= EVERY || at < before {
                    said = Instant::now();
                    let _ = tell.try_send(Ok(Told::Under(digest.clone(), at, of)));
                }
                before = at;
                !tell.is_closed() && !self.shutdown.is_cancelled()
            };
            let checked = match self.shelf.check(digest, goes_on) {
                Ok(Some(checked)) => checked,
                Ok(None) => return Ok(()),
                // Whatever is wrong with one, the others are compared.
                Err(e) => Checked {
                    digest: digest.clone(),
                    outcome: Outcome::Unreadable(e.to_string()),
                    size_bytes: 0,
                    nodes: Vec::new(),
                },
            };
            self.note(&checked);
            if tell.blocking_send(Ok(Told::Checked(checked))).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Takes note of what came of one.
    fn note(&self, checked: &Checked) {
        let mut unreadable = self.unreadable.lock().expect("no holder panics");
        let before = match &checked.outcome {
            Outcome::Unreadable(why) => unreadable.insert(checked.digest.clone(), why.clone()),
            _ => unreadable.remove(&checked.digest),
        };
        let now = unreadable.get(&checked.digest);
        if now != before.as_ref() {
            self.changed.send_modify(|n| *n += 1);
        }
    }

    /// How many images were set aside, to wait on.
    pub fn set_aside(&self) -> watch::Receiver<u64> {
        self.shelf.aside.subscribe()
    }

    /// What cannot be read, in words.
    fn problems(&self) -> Vec<String> {
        let unreadable = self.unreadable.lock().expect("no holder panics");
        let there = unreadable.iter().filter(|(digest, _)| self.shelf.path(digest).exists());
        there.map(|(digest, why)| self.unreadable_words(digest, why)).collect()
    }

    /// What is said of an image that cannot be read.
    pub fn unreadable_words(&self, digest: &Digest, why: &str) -> String {
        format!(
            "image {digest} cannot be read from the disk ({why}): see to the disk, then remove {}, and it is fetched again when it is needed",
            self.shelf.path(digest).display()
        )
    }
}

/// Lets all others go first.
fn yield_to_others() {
    // SAFETY: both calls take numbers only, and are about this thread. Where they are refused it reads as others do, within its bound.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, 19);
        libc::syscall(libc::SYS_ioprio_set, OF_THREAD, 0, IDLE);
    }
}

/// Compares each image when its time has come, for ever.
pub async fn run(host: Arc<Host>, every: Duration, pace: Pace) {
    let images = &host.images;
    if every.is_zero() {
        return host.shutdown.cancelled().await;
    }
    let rest = (every / LOOKS).clamp(SHORTEST, LONGEST);
    while rested(&host.shutdown, rest).await {
        let due = move |shelf: &super::shelf::Shelf| {
            let mut all = shelf.kept()?;
            all.retain(|digest| shelf.is_due(digest, every));
            Ok(all)
        };
        let due = match images.on_shelf(due).await {
            Ok(due) => due,
            Err(error) => {
                tracing::warn!(%error, "images that are to be compared cannot be looked for");
                continue;
            }
        };
        for digest in due {
            let mut told = Box::pin(images.clone().verify(vec![digest], pace));
            while let Some(part) = told.next().await {
                match part {
                    Ok(Told::Checked(Checked { outcome: Outcome::Unreadable(why), digest, .. })) => {
                        tracing::error!("{}", images.unreadable_words(&digest, &why));
                    }
                    Ok(Told::Checked(checked)) => {
                        tracing::info!(digest = %checked.digest, outcome = ?checked.outcome, "an image was compared");
                    }
                    Ok(Told::Under(..)) => {}
                    Err(error) => tracing::warn!(%error, "images cannot be compared"),
                }
            }
        }
    }
}

/// Keeps the inventory as it is with images, for ever.
pub async fn tell(host: Arc<Host>, inventory: Arc<Inventory>) {
    let (mut aside, mut changed) = (host.images.set_aside(), host.images.changed.subscribe());
    loop {
        aside.borrow_and_update();
        changed.borrow_and_update();
        match host.images.on_shelf(|shelf| shelf.lost()).await {
            Ok(lost) => {
                inventory.images(lost, host.images.problems());
                inventory.tell(|now| host.table.has(now));
            }
            Err(error) => tracing::warn!(%error, "images that were set aside cannot be looked for"),
        }
        tokio::select! {
            // Their senders are as old as the host.
            _ = aside.changed() => {}
            _ = changed.changed() => {}
            () = tokio::time::sleep(LOOK) => {}
            () = host.shutdown.cancelled() => return,
        }
    }
}

/// False when the service ends.
async fn rested(shutdown: &Shutdown, time: Duration) -> bool {
    tokio::time::timeout(time, shutdown.cancelled()).await.is_err()
}
