//! Streams that follow what changes: labs with all that is in them, and single operations.
//!
//! Each stream is fed by one task through a channel of a few places. A watcher that does not read fills the channel, the task waits, and the scheduler's
//! stream behind it is held back by flow control: memory does not grow, and no one else waits.

use std::future::{self, Future};
use std::pin::Pin;
use std::sync::LazyLock;
use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use netloom_api::v1;
use netloom_model::id::{LabId, OperationId};
use netloom_proto::scheduler::v1 as ps;
use netloom_service::{Shutdown, metrics};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tracing::Instrument as _;

use crate::apply::with_lab;
use crate::client::{PATIENCE, Peers, RETRY, patiently};
use crate::error::Error;
use crate::view;

/// A stream of a call's answer.
pub type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Messages that wait for a watcher before its stream is held back.
const PLACES: usize = 16;
/// Labs read at once for a snapshot; each holds its whole spec.
const LABS_AT_ONCE: u32 = 50;
/// Nodes or links read at once for a snapshot.
const PARTS_AT_ONCE: u32 = 500;
/// Least time between two reads of an operation because of what happens in its lab: each holds all that its plan is about.
const PACE: Duration = Duration::from_millis(200);

/// Where a task puts what it produces.
struct Out<T>(mpsc::Sender<Result<T, Status>>);

impl<T> Out<T> {
    /// Waits for a place. A watcher that has gone ends the task by itself, so there is nothing to report here.
    async fn put(&self, item: T) {
        let _ = self.0.send(Ok(item)).await;
    }
}

static WATCHERS: LazyLock<metrics::IntGaugeVec> = LazyLock::new(|| {
    metrics::gauges(
        "netloom_gateway_watchers",
        "Streams that follow changes, by what they follow.",
        &["stream"],
    )
});

/// One watcher, counted while it is there.
struct Watcher(metrics::IntGauge);

impl Watcher {
    fn of(stream: &str) -> Watcher {
        let watchers = WATCHERS.with_label_values(&[stream]);
        watchers.inc();
        Watcher(watchers)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Runs a producer in a task of its own until it ends, its watcher goes away, or the gateway shuts down.
fn produce<T, F, Fut>(stream: &str, shutdown: Shutdown, producer: F) -> Answers<T>
where
    T: Send + 'static,
    F: FnOnce(Out<T>) -> Fut,
    Fut: Future<Output = Result<(), Error>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(PLACES);
    let producing = producer(Out(sender.clone()));
    let watcher = Watcher::of(stream);
    let task = async move {
        let _watcher = watcher;
        let failed = tokio::select! {
            ended = producing => ended.err(),
            () = sender.closed() => None,
            () = shutdown.cancelled() => Some(Error::ShuttingDown),
        };
        if let Some(e) = failed {
            let _ = sender.send(Err(e.into())).await;
        }
    };
    tokio::spawn(task.in_current_span());
    Box::pin(ReceiverStream::new(receiver))
}

/// The stream, ended with an error when the gateway shuts down first.
pub fn until_shutdown<T, S>(stream: S, shutdown: &Shutdown) -> Answers<T>
where
    T: Send + 'static,
    S: Stream<Item = Result<T, Status>> + Send + 'static,
{
    let over = shutdown.clone();
    let last = stream::once(async move { over.is_cancelled().then(|| Err(Error::ShuttingDown.into())) })
        .filter_map(future::ready);
    Box::pin(stream.take_until(shutdown.clone().cancelled_owned()).chain(last))
}

/// Labs, nodes, links and operations: a snapshot when `since` is 0, then every change after.
///
/// What can be told at once (a lab that does not exist, a number that is too old, no scheduler) fails the call itself.
pub async fn labs(
    peers: Peers,
    shutdown: Shutdown,
    lab: Option<LabId>,
    since: u64,
) -> Result<Answers<v1::WatchLabsResponse>, Error> {
    let filter = lab.as_ref().map(ToString::to_string).unwrap_or_default();
    if since > 0 {
        let events = peers.watch(since, &filter).await?;
        return Ok(produce("labs", shutdown, move |out| async move {
            changes(&peers, &filter, (since, events), &out).await
        }));
    }
    if let Some(lab) = &lab {
        peers.lab(lab).await?;
    }
    // The stream of changes is open, and its number known, before anything is read: no change falls in between.
    let mut events = peers.watch(0, &filter).await?;
    let first = events.message().await.map_err(peers.scheduler_error())?;
    let sequence = first.ok_or_else(|| peers.scheduler_ended())?.sequence;
    Ok(produce("labs", shutdown, move |out| async move {
        snapshot(&peers, lab.as_ref(), sequence, &out).await?;
        out.put(view::event(sequence, v1::WatchEventType::SnapshotEnd, None, None)).await;
        changes(&peers, &filter, (sequence, events), &out).await
    }))
}

async fn snapshot(
    peers: &Peers,
    lab: Option<&LabId>,
    sequence: u64,
    out: &Out<v1::WatchLabsResponse>,
) -> Result<(), Error> {
    if let Some(lab) = lab {
        return match peers.lab(lab).await {
            Ok(facts) => snapshot_lab(peers, facts, sequence, out).await,
            Err(e) if e.is_not_found() => Ok(()),
            Err(e) => Err(e),
        };
    }
    let mut after = String::new();
    loop {
        let request = ps::ListLabsRequest { page_size: LABS_AT_ONCE, after };
        let page = peers.scheduler().list_labs(request).await.map_err(peers.scheduler_error())?.into_inner();
        let Some(last) = page.labs.last().map(|l| l.id.clone()) else { return Ok(()) };
        for facts in page.labs {
            snapshot_lab(peers, facts, sequence, out).await?;
        }
        if !page.more {
            return Ok(());
        }
        after = last;
    }
}

/// A lab and what is in it. One that is removed meanwhile is told of by the changes that follow.
async fn snapshot_lab(
    peers: &Peers,
    facts: ps::LabFacts,
    sequence: u64,
    out: &Out<v1::WatchLabsResponse>,
) -> Result<(), Error> {
    use v1::watch_labs_response::Object;
    let lab = facts.id.clone();
    let put = |object| out.put(view::event(sequence, v1::WatchEventType::Snapshot, Some(object), None));
    put(Object::Lab(view::lab(facts)?)).await;
    let mut after = String::new();
    loop {
        let request = ps::ListNodesRequest { lab: lab.clone(), page_size: PARTS_AT_ONCE, after };
        let page = match peers.scheduler().list_nodes(request).await.map_err(peers.scheduler_error()) {
            Ok(page) => page.into_inner(),
            Err(e) if e.is_not_found() => return Ok(()),
            Err(e) => return Err(e),
        };
        let last = page.nodes.last().and_then(|n| n.spec.as_ref()).map(|s| s.id.clone());
        for node in page.nodes {
            put(Object::Node(view::node(node))).await;
        }
        match last {
            Some(last) if page.more => after = last,
            _ => break,
        }
    }
    let mut after = String::new();
    loop {
        let request = ps::ListLinksRequest { lab: lab.clone(), page_size: PARTS_AT_ONCE, after };
        let page = match peers.scheduler().list_links(request).await.map_err(peers.scheduler_error()) {
            Ok(page) => page.into_inner(),
            Err(e) if e.is_not_found() => return Ok(()),
            Err(e) => return Err(e),
        };
        let last = page.links.last().map(|l| l.id.clone());
        for link in page.links {
            put(Object::Link(view::link(link))).await;
        }
        match last {
            Some(last) if page.more => after = last,
            _ => return Ok(()),
        }
    }
}

/// Hands on what changes after a number. A scheduler that ends meanwhile is waited for, or the next one that leads: events have the same numbers there, so the stream goes on after the
/// last one that was handed on.
async fn changes(
    peers: &Peers,
    filter: &str,
    (mut last, mut events): (u64, Streaming<ps::WatchResponse>),
    out: &Out<v1::WatchLabsResponse>,
) -> Result<(), Error> {
    loop {
        let lost = loop {
            let event = match events.message().await.map_err(peers.scheduler_error()) {
                Ok(Some(event)) => event,
                Ok(None) => break peers.scheduler_ended(),
                Err(e) => break e,
            };
            let (sequence, kind) = (event.sequence, event.kind());
            let object = event.object.map(view::event_object).transpose()?;
            let r#type = match kind {
                ps::EventKind::Deleted => v1::WatchEventType::Deleted,
                ps::EventKind::Changed => v1::WatchEventType::Changed,
                ps::EventKind::Heartbeat | ps::EventKind::Unspecified => v1::WatchEventType::Heartbeat,
            };
            out.put(view::event(sequence, r#type, object, event.time)).await;
            last = sequence;
        };
        // Before anything happened there is no number to go on from.
        if last == 0 || !lost.is_passing() {
            return Err(lost);
        }
        tracing::info!(after = last, "a watch goes on once a scheduler answers again: {lost}");
        events = patiently(|| peers.watch(last, filter)).await?;
    }
}

/// An operation, followed until it is over.
///
/// It is a level that is followed, not an edge: facts are read again after the scheduler's events are open, soon after anything happens in its lab and at each
/// heartbeat, so that no change can be missed. A scheduler that restarts meanwhile is waited for.
pub struct Follow {
    peers: Peers,
    id: OperationId,
    events: Option<Streaming<ps::WatchResponse>>,
    facts: ps::OperationFacts,
    told: bool,
    /// When the facts were last read.
    read_at: Instant,
    /// Something happened in its lab since.
    stale: bool,
    silent_since: Option<Instant>,
}

impl Follow {
    /// Begins with the operation as it is now.
    pub async fn begin(peers: Peers, id: OperationId) -> Result<Follow, Error> {
        let facts = peers.operation(id).await?;
        let (read_at, stale) = (Instant::now(), false);
        Ok(Follow { peers, id, events: None, facts, told: false, read_at, stale, silent_since: None })
    }

    /// The operation as it was last read.
    pub fn facts(&self) -> &ps::OperationFacts {
        &self.facts
    }

    /// The operation at first, then after its next change; none when it is over and that was told.
    pub async fn next(&mut self) -> Result<Option<ps::OperationFacts>, Error> {
        loop {
            if !self.told {
                self.told = true;
                return Ok(Some(self.facts.clone()));
            }
            if view::is_over(&self.facts) {
                return Ok(None);
            }
            match self.step().await {
                Ok(facts) => {
                    self.silent_since = None;
                    self.told = facts == self.facts;
                    self.facts = facts;
                }
                Err(e) => {
                    let since = *self.silent_since.get_or_insert_with(Instant::now);
                    if !e.is_passing() || since.elapsed() > PATIENCE {
                        return Err(e);
                    }
                    self.events = None;
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Waits for an event that may concern the operation, and returns the operation after it.
    async fn step(&mut self) -> Result<ps::OperationFacts, Error> {
        let failed = self.peers.scheduler_error();
        let Some(events) = &mut self.events else {
            let mut events = self.peers.watch_operations(&self.facts.lab).await?;
            // Its first message says that it is open.
            events.message().await.map_err(failed)?.ok_or_else(|| self.peers.scheduler_ended())?;
            self.events = Some(events);
            return self.read().await;
        };
        loop {
            let event = tokio::select! {
                event = events.message() => event.map_err(&failed)?.ok_or_else(|| self.peers.scheduler_ended())?,
                () = tokio::time::sleep_until(self.read_at + PACE), if self.stale => return self.read().await,
            };
            match event.object {
                Some(ps::watch_response::Object::Operation(facts)) if facts.id == self.facts.id => {
                    return Ok(facts);
                }
                None => return self.read().await,
                // The progress of its nodes and links is part of it, and no event of its own.
                Some(_) => self.stale = true,
            }
        }
    }

    async fn read(&mut self) -> Result<ps::OperationFacts, Error> {
        // What happens from here on may not be in it.
        self.stale = false;
        let facts = self.peers.operation(self.id).await;
        self.read_at = Instant::now();
        facts
    }
}

/// The operation when it is over or the time is, whichever is first.
pub async fn wait(peers: Peers, id: OperationId, bound: Duration) -> Result<ps::OperationFacts, Error> {
    let end = Instant::now() + bound;
    let mut follow = Follow::begin(peers, id).await?;
    loop {
        match tokio::time::timeout_at(end, follow.next()).await {
            Ok(Ok(Some(_))) => {}
            Ok(Ok(None)) | Err(_) => return Ok(follow.facts().clone()),
            Ok(Err(e)) => return Err(e),
        }
    }
}

/// The operation with its lab, at each change, until it is over.
pub async fn operation(
    peers: Peers,
    shutdown: Shutdown,
    id: OperationId,
) -> Result<Answers<v1::Operation>, Error> {
    let mut follow = Follow::begin(peers.clone(), id).await?;
    Ok(produce("operation", shutdown, move |out| async move {
        while let Some(facts) = follow.next().await? {
            let told = patiently(|| with_lab(&peers, facts.clone(), Vec::new())).await?;
            out.put(told).await;
        }
        Ok(())
    }))
}
