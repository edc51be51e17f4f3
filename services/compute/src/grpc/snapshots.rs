//! Snapshots of instances. What was begun is brought to its end also when whoever asked goes away: a snapshot by halves helps nobody. While one is taken or forgotten, nothing else is done with its instance.

use std::sync::Arc;

use netloom_model::id::NodeId;
use netloom_proto::compute::v1 as p;

use crate::driver::{NewSnapshot, Snapshot};
use crate::error::Error;
use crate::host::{Host, Opened};

/// The verb of tickets.
pub const VERB: &str = "snapshot";

fn told(s: Snapshot) -> p::DiskSnapshot {
    p::DiskSnapshot { id: s.id, taken_ns: s.taken_ns, size_bytes: s.size_bytes, has_memory: s.has_memory }
}

/// Those that there are.
pub async fn list(opened: Opened) -> Result<p::ListSnapshotsResponse, Error> {
    let all = opened.driver.snapshots(&opened.id).await?;
    Ok(p::ListSnapshotsResponse { snapshots: all.into_iter().map(told).collect() })
}

/// Takes one.
pub async fn create(
    host: Arc<Host>,
    opened: Opened,
    name: String,
    request_id: String,
) -> Result<p::DiskSnapshot, Error> {
    // It becomes part of paths.
    let id: NodeId =
        name.parse().map_err(|_| Error::Invalid(format!("\"{name}\" is no id of a snapshot")))?;
    if !request_id.is_empty() && request_id.parse::<uuid::Uuid>().is_err() {
        return Err(Error::Invalid(format!("request_id: \"{request_id}\" is not a UUID")));
    }
    let take = async move {
        let _held = host.holds.hold(opened.uid).await;
        let prepared = host.table.is_prepared(opened.uid);
        let new = NewSnapshot { id: id.to_string(), request_id, prepared };
        opened.driver.take_snapshot(&opened.id, &new).await
    };
    to_its_end(take).await.map(told)
}

/// Forgets one.
pub async fn delete(
    host: Arc<Host>,
    opened: Opened,
    name: String,
) -> Result<p::DeleteSnapshotResponse, Error> {
    let id: NodeId =
        name.parse().map_err(|_| Error::NoSnapshot { node: opened.node.clone(), snapshot: name })?;
    let delete = async move {
        let _held = host.holds.hold(opened.uid).await;
        opened.driver.delete_snapshot(&opened.id, id.as_str()).await
    };
    to_its_end(delete).await.map(|()| p::DeleteSnapshotResponse {})
}

async fn to_its_end<T: Send + 'static>(
    what: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    tokio::spawn(what).await.map_err(|e| Error::host("work on a snapshot did not end", e))?
}
