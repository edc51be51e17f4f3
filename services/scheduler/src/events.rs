//! Watching: events after a number, then new ones as they are written.
//!
//! A watcher always reads from the log; a commit only wakes it. So a slow one falls behind and catches up, and loses nothing, until what it has not read is
//! dropped from the log: then it is told to list again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use netloom_model::{Code, Failure};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::Result;
use crate::rows::LabRows;
use crate::scheduler::Scheduler;
use crate::store::{Event, Of, Reading};

/// How often a watcher hears something although nothing happened.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How many events are read at once.
const BATCH: u32 = 200;

/// How often who watches operations alone hears, at most, that something happened in their lab: what is told of one holds all that it is about.
const HAPPENING: Duration = Duration::from_millis(200);

/// What a watcher hears.
#[derive(Debug)]
pub enum Heard {
    /// An event.
    Event(Box<Event>),
    /// Nothing happened; this is the newest number there is.
    Heartbeat(u64),
}

struct Watcher {
    core: Arc<Scheduler>,
    of: Of,
    happening: Happening,
    cursor: u64,
    /// True before the first message, when the watcher asked for "from now on".
    greet: bool,
    ready: VecDeque<Event>,
    wake: watch::Receiver<u64>,
    over: bool,
}

/// That something happened in a lab (or, empty, in any), for who does not want to hear what.
struct Happening {
    revision: watch::Receiver<u64>,
    rows: Option<Arc<LabRows>>,
    told: Instant,
}

impl Happening {
    fn new(core: &Scheduler, lab: &str) -> Happening {
        let revision = core.store.subscribe();
        Happening { revision, rows: core.store.rows_of(&lab.to_ascii_lowercase()), told: Instant::now() }
    }

    /// Waits for the next time, and some time after the last one. Dropped before, it misses nothing.
    async fn next(&mut self, core: &Scheduler, lab: &str) {
        loop {
            tokio::time::sleep_until(self.told + HAPPENING).await;
            if self.revision.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            let rows = core.store.rows_of(&lab.to_ascii_lowercase());
            let is_same =
                matches!((&rows, &self.rows), (Some(now), Some(before)) if Arc::ptr_eq(now, before));
            if !is_same {
                (self.rows, self.told) = (rows, Instant::now());
                return;
            }
        }
    }
}

/// Such events after a number; 0 begins now, and says which number that is. A number that cannot be gone on from is refused before
/// there is a stream. The stream ends after an error.
pub async fn watch(
    core: Arc<Scheduler>,
    since: u64,
    of: Of,
) -> Result<impl Stream<Item = Result<Heard>> + Send> {
    let wake = core.store.subscribe_events(&of);
    let happening = Happening::new(&core, &of.lab);
    let cursor = if since == 0 { core.store.last_event() } else { since };
    let mut watcher =
        Watcher { core, of, happening, cursor, greet: since == 0, ready: VecDeque::new(), wake, over: false };
    if since > 0 {
        let newest = *watcher.wake.borrow_and_update();
        watcher.read_to(newest).await?;
    }
    Ok(futures::stream::unfold(watcher, |mut w| async move {
        if w.over {
            return None;
        }
        let next = w.next().await;
        w.over = next.is_err();
        Some((next, w))
    }))
}

impl Watcher {
    async fn next(&mut self) -> Result<Heard> {
        if std::mem::take(&mut self.greet) {
            return Ok(Heard::Heartbeat(self.cursor));
        }
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.cursor = event.sequence;
                return Ok(Heard::Event(Box::new(event)));
            }
            if self.read().await? {
                continue;
            }
            tokio::select! {
                // The store is as old as the scheduler: its end is ours.
                woken = self.wake.changed() => if woken.is_err() {
                    return Ok(Heard::Heartbeat(self.cursor));
                },
                () = self.happening.next(&self.core, &self.of.lab), if self.of.operations => {
                    return Ok(Heard::Heartbeat(self.cursor));
                }
                () = tokio::time::sleep(HEARTBEAT) => return Ok(Heard::Heartbeat(self.cursor)),
            }
        }
    }

    /// Reads on; false when there is nothing new.
    async fn read(&mut self) -> Result<bool> {
        // Taken before the read: events of other labs up to here are passed over, those written meanwhile are not.
        let newest = *self.wake.borrow_and_update();
        if newest <= self.cursor {
            return Ok(false);
        }
        self.read_to(newest).await?;
        Ok(true)
    }

    async fn read_to(&mut self, newest: u64) -> Result<()> {
        let since = self.cursor;
        // In a task of its own: a stream that nobody takes from is not gone on with, and must not keep a connection to the database meanwhile.
        let (core, of) = (self.core.clone(), self.of.clone());
        let reading = tokio::spawn(async move { core.store.read_events(since, &of, BATCH).await });
        match reading.await.map_err(|e| Failure::internal(format!("events were not read: {e}")))?? {
            Reading::Relist => {
                Err(relist(since, &format!("events after number {since} are not kept any more")).into())
            }
            Reading::Ahead { newest } => {
                let why = format!("there is no event {since} yet, the newest is number {newest}");
                Err(relist(since, &why).into())
            }
            Reading::Events(events) => {
                if events.is_empty() {
                    self.cursor = since.max(newest);
                }
                self.ready = events.into();
                Ok(())
            }
        }
    }
}

fn relist(since: u64, why: &str) -> Failure {
    let message = format!("{why}: list again, and watch from the number of a new watch");
    Failure::new(Code::OutOfRange, "RELIST_NEEDED", message).with("since", since.to_string())
}
