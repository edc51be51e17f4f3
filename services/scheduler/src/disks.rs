//! Disks of virtual machines that move: copied from the host that they leave to the one that they go to.
//!
//! ```text
//! places changed ─► the former one is set aside ─► its disk is read ─► … relayed here … ─► written as a draft, whole, named ─► the new one is told to its host
//!                                                       │ broken: from the beginning, after a pause
//!                                                       └ refused: the node has failed, and with it the move
//! ```
//!
//! Hosts do not know each other, and this is who both let in. That a disk is to come is a part of its node's row, so whoever leads begins where the former leader was: a host that has all of it says so at once, and
//! one that has some has nothing. Cancelled, the node is not wanted any more and its copy ends in the middle; its host removes what came, and what was set aside has its disk as it was.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use netloom_model::failure::{Code, Failure};
use netloom_model::human;
use netloom_model::id::{HostId, LabUid, NodeUid};
use netloom_model::shared::Shared;
use netloom_service::{Shutdown, fail_point, telemetry};
use tokio::sync::{Semaphore, watch};
use tracing::Instrument as _;

use crate::error::{Error, Result};
use crate::rows::{ImageStep, LabRows, NodeRow};
use crate::scheduler::Scheduler;

/// How often disks that are to be copied are looked for although nothing happened.
const TICK: Duration = Duration::from_secs(5);
/// How long after a failure a disk is copied again, and the most that this grows to.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// So many are copied at once: all bytes go through here.
const AT_ONCE: usize = 4;
/// How often it is written down how far a copy is.
const TOLD: Duration = Duration::from_secs(1);

/// A disk that is to be copied now.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Due {
    /// What was set aside and has it.
    from: (NodeUid, HostId),
    /// What is to have it.
    to: (NodeUid, HostId),
}

/// The disk that a node waits for; none while what has it is not out of the way, `Err` when there is nothing any more that has it.
fn due(rows: &LabRows, node: &NodeRow) -> Option<Result<Due, String>> {
    if !(node.disk_due && node.is_wanted() && node.image_step == ImageStep::Ready) {
        return None;
    }
    let to = node.host.clone()?;
    let is_it = |n: &&NodeRow| n.is_aside() && n.origin() == node.origin();
    let Some((from, host)) =
        rows.nodes.values().find(is_it).and_then(|from| Some((from, from.host.clone()?)))
    else {
        return Some(Err("what had its disk is not there any more".to_owned()));
    };
    let due = Due { from: (from.uid, host), to: (node.uid, to) };
    (!from.is_in_the_way()).then_some(Ok(due))
}

fn due_of(rows: &LabRows, node: NodeUid) -> Option<Result<Due, String>> {
    due(rows, rows.nodes.get(&node)?)
}

/// Copies disks that are to be copied, for ever.
pub async fn run(core: Arc<Scheduler>, shutdown: Shutdown) {
    let mut revision = core.store.subscribe();
    let slots = &Semaphore::new(AT_ONCE);
    let mut busy: HashSet<NodeUid> = HashSet::new();
    let mut work = FuturesUnordered::new();
    loop {
        revision.borrow_and_update();
        for rows in core.store.all() {
            if rows.operation.is_none() {
                continue;
            }
            for node in rows.nodes.values().filter(|n| due(&rows, n).is_some()) {
                if !busy.insert(node.uid) {
                    continue;
                }
                let (core, lab, uid) = (core.clone(), rows.lab.uid, node.uid);
                let span = tracing::info_span!("disk", lab = %rows.lab.id, node = %node.id);
                telemetry::continue_trace(&span, &rows.lab.traceparent);
                let bring = async move {
                    if let Err(e) = bring(&core, slots, lab, uid).await {
                        tracing::error!("the disk of a node is not copied yet, tried again: {e}");
                        tokio::time::sleep(BACKOFF.1).await;
                    }
                    uid
                };
                work.push(bring.instrument(span));
            }
        }
        tokio::select! {
            _ = revision.changed() => {}
            Some(done) = work.next() => { busy.remove(&done); }
            () = tokio::time::sleep(TICK) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Copies the disk of a node until it is there, its host refuses it, or it is not to be copied any more.
async fn bring(core: &Scheduler, slots: &Semaphore, lab: LabUid, node: NodeUid) -> Result<()> {
    let mut pause = BACKOFF.0;
    while let Some(now) = core.store.rows(lab).and_then(|rows| due_of(&rows, node)) {
        let due = match now {
            Ok(due) => due,
            Err(why) => return note(core, lab, node, |row| fails(row, &why)).await,
        };
        let copied = tokio::select! {
            copied = copy_in_turn(core, slots, lab, &due) => copied,
            () = until_other(core, lab, &due) => continue,
        };
        match copied {
            Ok(()) => {
                fail_point::pass("scheduler.disk-copied", "before");
                return note(core, lab, node, |row| {
                    (row.disk_due, row.image_detail) = (false, String::new())
                })
                .await;
            }
            Err(e) if e.is_unreachable() => {
                tracing::warn!("a disk is not copied yet, tried again in {pause:?}: {e}");
                let why = format!("its disk is not copied from {} yet, tried again: {e}", due.from.1);
                note(core, lab, node, |row| row.image_detail = why).await?;
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = until_other(core, lab, &due) => {}
                }
                pause = (pause * 2).min(BACKOFF.1);
            }
            Err(e @ (Error::Host { .. } | Error::Refused(_))) => {
                tracing::warn!("a disk cannot be copied: {e}");
                let why = format!("its disk cannot be copied from {}: {}", due.from.1, Failure::from(e));
                return note(core, lab, node, |row| fails(row, &why)).await;
            }
            // No host said that.
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn fails(row: &mut NodeRow, why: &str) {
    (row.image_step, row.image_detail) = (ImageStep::Failed, why.to_owned());
}

/// Changes the row of a node that still waits for its disk.
async fn note(core: &Scheduler, lab: LabUid, node: NodeUid, change: impl FnOnce(&mut NodeRow)) -> Result<()> {
    let waits = |n: &&mut Shared<NodeRow>| n.is_wanted() && n.disk_due;
    core.change("scheduler.disk", lab, |rows| {
        if let Some(row) = rows.nodes.get_mut(&node).filter(waits) {
            change(row);
        }
    })
    .await
}

/// Says how far it is. That it cannot be written down changes nothing of it.
async fn tell(core: &Scheduler, lab: LabUid, node: NodeUid, text: String) {
    if let Err(e) = note(core, lab, node, |row| row.image_detail = text).await {
        tracing::warn!("how far the copy of a disk is cannot be written down: {e}");
    }
}

/// Ends when this disk is not to be copied like this any more.
async fn until_other(core: &Scheduler, lab: LabUid, due: &Due) {
    let mut revision = core.store.subscribe();
    loop {
        revision.borrow_and_update();
        let now = core.store.rows(lab).and_then(|rows| due_of(&rows, due.to.0));
        if now.as_ref().is_none_or(|now| now.as_ref() != Ok(due)) {
            return;
        }
        if revision.changed().await.is_err() {
            return;
        }
    }
}

/// Copies a disk once fewer than [`AT_ONCE`] others are being copied. One whose host is away is none of them while it waits to be tried again.
async fn copy_in_turn(core: &Scheduler, slots: &Semaphore, lab: LabUid, due: &Due) -> Result<()> {
    let _slot = match slots.try_acquire() {
        Ok(slot) => slot,
        Err(_) => {
            tell(core, lab, due.to.0, "its disk waits for other disks that are being copied".to_owned())
                .await;
            slots.acquire().await.expect("nobody closes it")
        }
    };
    copy(core, lab, due).await
}

async fn copy(core: &Scheduler, lab: LabUid, due: &Due) -> Result<()> {
    let client = |host: &HostId| {
        let gone = || {
            let message = format!("host {host} is none of the scheduler's any more");
            Failure::new(Code::FailedPrecondition, "HOST_NOT_FOUND", message)
        };
        core.host(host).ok_or_else(gone)
    };
    let ((former, from), (node, to)) = (&due.from, &due.to);
    let (source, target) = (client(from)?, client(to)?);
    let (far, mut told) = watch::channel((0, 0));
    tracing::info!(%from, %to, "a disk is copied");
    let copied = async move {
        fail_point::pass("scheduler.copy-disk", "before");
        let progress = |done, total| {
            far.send_replace((done, total));
        };
        source.copy_disk(*former, &target, *node, progress).await
    };
    // How far it is is written down no faster than anybody looks.
    let write = async {
        loop {
            let (done, total) = *told.borrow_and_update();
            let text = match total {
                0 => format!("its disk is copied from {from}"),
                _ => format!(
                    "its disk is copied from {from}: {} of {}",
                    human::bytes(done),
                    human::bytes(total)
                ),
            };
            tell(core, lab, *node, text).await;
            tokio::time::sleep(TOLD).await;
            if told.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    };
    tokio::select! {
        copied = copied => copied.inspect(|()| tracing::info!(%from, %to, "a disk was copied")),
        never = write => never,
    }
}

#[cfg(test)]
mod tests;
