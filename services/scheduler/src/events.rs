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

use crate::error::Result;
use crate::scheduler::Scheduler;
use crate::store::{Event, Reading};

/// How often a watcher hears something although nothing happened.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How many events are read at once.
const BATCH: u32 = 200;

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
    lab: String,
    cursor: u64,
    /// True before the first message, when the watcher asked for "from now on".
    greet: bool,
    ready: VecDeque<Event>,
    wake: watch::Receiver<u64>,
    over: bool,
}

/// Events of one lab (or, empty, of all) after a number; 0 begins now, and says which number that is. A number that cannot be gone on from is refused before
/// there is a stream. The stream ends after an error.
pub async fn watch(
    core: Arc<Scheduler>,
    since: u64,
    lab: String,
) -> Result<impl Stream<Item = Result<Heard>> + Send> {
    let wake = core.store.subscribe_events();
    let cursor = if since == 0 { core.store.last_event() } else { since };
    let mut watcher =
        Watcher { core, lab, cursor, greet: since == 0, ready: VecDeque::new(), wake, over: false };
    if since > 0 {
        watcher.read().await?;
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
            match tokio::time::timeout(HEARTBEAT, self.wake.changed()).await {
                Ok(Ok(())) => {}
                // The store is as old as the scheduler: its end is ours.
                Ok(Err(_)) | Err(_) => return Ok(Heard::Heartbeat(self.cursor)),
            }
        }
    }

    /// Reads on; false when there is nothing new.
    async fn read(&mut self) -> Result<bool> {
        // Taken before the read: events of other labs up to here are passed over, those written meanwhile are not.
        let newest = *self.wake.borrow_and_update();
        if newest == self.cursor {
            return Ok(false);
        }
        let since = self.cursor;
        // In a task of its own: a stream that nobody takes from is not gone on with, and must not keep a connection to the database meanwhile.
        let (core, lab) = (self.core.clone(), self.lab.clone());
        let reading = tokio::spawn(async move { core.store.read_events(since, &lab, BATCH).await });
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
                Ok(true)
            }
        }
    }
}

fn relist(since: u64, why: &str) -> Failure {
    let message = format!("{why}: list again, and watch from the number of a new watch");
    Failure::new(Code::OutOfRange, "RELIST_NEEDED", message).with("since", since.to_string())
}
