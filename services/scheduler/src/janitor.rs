//! Drops what has had its time: old events, tombstones, operations, and files that no lab names.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use netloom_model::id::Digest;
use netloom_service::Shutdown;

use crate::error::Result;
use crate::scheduler::Scheduler;

const TICK: Duration = Duration::from_secs(600);
const HOUR_US: i64 = 3_600_000_000;
const DAY_US: i64 = 24 * HOUR_US;

/// Cleans up for ever.
pub async fn run(core: Arc<Scheduler>, shutdown: Shutdown) {
    loop {
        if let Err(e) = sweep(&core).await {
            tracing::error!("what has had its time could not be dropped, tried again: {e}");
        }
        tokio::select! {
            () = tokio::time::sleep(TICK) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Cleans up once.
pub async fn sweep(core: &Scheduler) -> Result<()> {
    let mut tx = core.store.begin("scheduler.sweep").await?;
    let labs = core.store.all();
    let of_specs = labs
        .iter()
        .flat_map(|r| [Some(&r.lab.spec), r.lab.completed.as_ref()])
        .flatten()
        .flat_map(|spec| &spec.files);
    // Of none of these a node that goes on beside a successor may be.
    let of_nodes = labs.iter().flat_map(|r| r.nodes.values()).flat_map(|n| &n.own_files);
    let used: BTreeSet<Digest> = of_specs.chain(of_nodes).map(|f| f.digest.clone()).collect();
    let now = tx.now();
    tx.prune_files(now - HOUR_US, &used).await?;
    tx.prune_events(now - 7 * DAY_US).await?;
    tx.prune_tombstones(now - 7 * DAY_US).await?;
    tx.prune_tokens(now - 30 * DAY_US).await?;
    tx.prune_operations(now - 30 * DAY_US).await?;
    tx.commit().await
}
