//! SnapshotService. Snapshots are on the machine's host, so its compute service is asked; only that a node starts from one is the scheduler's to bring about.

use netloom_api::v1::{self, snapshot_service_server::SnapshotService};
use netloom_model::id::{LabId, NodeId};
use netloom_proto::compute::v1 as pc;
use netloom_proto::scheduler::v1 as ps;
use tonic::{Request, Response, Status};

use super::Api;
use crate::error::Error;
use crate::{changes, names, pages, view};

/// The verb of tickets.
const VERB: &str = "snapshot";

impl Api {
    async fn snapshots(&self, lab: &LabId, node: &NodeId) -> Result<Vec<pc::DiskSnapshot>, Error> {
        let (ticket, mut compute) = self.peers.ticket(lab, node, VERB).await?;
        let request = pc::ListSnapshotsRequest { ticket: ticket.ticket, uid: ticket.uid };
        let mut all =
            compute.client.list_snapshots(request).await.map_err(compute.error())?.into_inner().snapshots;
        all.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(all)
    }

    async fn snapshot(&self, lab: &LabId, node: &NodeId, id: &str) -> Result<pc::DiskSnapshot, Error> {
        let found = self.snapshots(lab, node).await?.into_iter().find(|s| s.id == id);
        found.ok_or_else(|| Error::NoSnapshot { node: node.to_string(), snapshot: id.to_owned() })
    }
}

#[tonic::async_trait]
impl SnapshotService for Api {
    async fn list_snapshots(
        &self,
        request: Request<v1::ListSnapshotsRequest>,
    ) -> Result<Response<v1::ListSnapshotsResponse>, Status> {
        let request = request.into_inner();
        let (lab, node) = names::read_node("parent", &request.parent)?;
        let list = format!("{}/snapshots", names::node(lab.as_str(), node.as_str()));
        let page = pages::read(&list, request.page_size, &request.page_token)?;
        let all = self.snapshots(&lab, &node).await?;
        let mut rest = all.into_iter().filter(|s| s.id > page.after);
        let shown: Vec<_> = rest.by_ref().take(page.size as usize).collect();
        let next_page_token = pages::next(&list, rest.next().is_some(), shown.last().map(|s| s.id.as_str()));
        let snapshots = shown.into_iter().map(|s| view::snapshot(&lab, &node, s)).collect();
        Ok(Response::new(v1::ListSnapshotsResponse { snapshots, next_page_token }))
    }

    async fn get_snapshot(
        &self,
        request: Request<v1::GetSnapshotRequest>,
    ) -> Result<Response<v1::Snapshot>, Status> {
        let (lab, node, id) = names::read_snapshot("name", &request.into_inner().name)?;
        let found = self.snapshot(&lab, &node, &id).await?;
        Ok(Response::new(view::snapshot(&lab, &node, found)))
    }

    async fn create_snapshot(
        &self,
        request: Request<v1::CreateSnapshotRequest>,
    ) -> Result<Response<v1::Snapshot>, Status> {
        let request = request.into_inner();
        let (lab, node) = names::read_node("parent", &request.parent)?;
        let snapshot = names::read_snapshot_id("snapshot_id", &request.snapshot_id)?;
        tracing::info!(%lab, %node, snapshot, "a snapshot of a node is to be taken");
        let (ticket, mut compute) = self.peers.ticket(&lab, &node, VERB).await?;
        let (ticket, uid, request_id) = (ticket.ticket, ticket.uid, request.request_id);
        let request = pc::CreateSnapshotRequest { ticket, uid, snapshot, request_id };
        let taken = compute.client.create_snapshot(request).await.map_err(compute.error())?;
        Ok(Response::new(view::snapshot(&lab, &node, taken.into_inner())))
    }

    async fn delete_snapshot(
        &self,
        request: Request<v1::DeleteSnapshotRequest>,
    ) -> Result<Response<()>, Status> {
        let (lab, node, snapshot) = names::read_snapshot("name", &request.into_inner().name)?;
        tracing::info!(%lab, %node, snapshot, "a snapshot of a node is to be deleted");
        let (ticket, mut compute) = self.peers.ticket(&lab, &node, VERB).await?;
        let request = pc::DeleteSnapshotRequest { ticket: ticket.ticket, uid: ticket.uid, snapshot };
        compute.client.delete_snapshot(request).await.map_err(compute.error())?;
        Ok(Response::new(()))
    }

    async fn restore_snapshot(
        &self,
        request: Request<v1::RestoreSnapshotRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        let request = request.into_inner();
        let (lab, node, id) = names::read_snapshot("name", &request.name)?;
        tracing::info!(%lab, %node, snapshot = id, "a node is to be started from a snapshot");
        // Before anything is stopped it is known that it is there.
        self.snapshot(&lab, &node, &id).await?;
        let change = ps::ChangeNodesRequest {
            lab: lab.to_string(),
            nodes: vec![node.to_string()],
            change: ps::NodeChange::Restore.into(),
            request_id: request.request_id,
            snapshot: id,
        };
        Ok(Response::new(changes::nodes(&self.peers, change).await?))
    }
}
