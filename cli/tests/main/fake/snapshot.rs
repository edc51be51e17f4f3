//! SnapshotService, by the script.

use netloom_api::v1 as api;
use netloom_api::v1::snapshot_service_server::SnapshotService;
use tonic::{Request, Response, Status};

use super::{Server, not_scripted};

#[tonic::async_trait]
impl SnapshotService for Server {
    async fn list_snapshots(
        &self,
        request: Request<api::ListSnapshotsRequest>,
    ) -> Result<Response<api::ListSnapshotsResponse>, Status> {
        let parent = request.get_ref().parent.clone();
        let snapshots = self.called("ListSnapshots", &parent, &request).snapshots.clone();
        Ok(Response::new(api::ListSnapshotsResponse { snapshots, next_page_token: String::new() }))
    }

    async fn get_snapshot(
        &self,
        _: Request<api::GetSnapshotRequest>,
    ) -> Result<Response<api::Snapshot>, Status> {
        not_scripted()
    }

    async fn create_snapshot(
        &self,
        request: Request<api::CreateSnapshotRequest>,
    ) -> Result<Response<api::Snapshot>, Status> {
        let r = request.get_ref();
        let name = format!("{}/snapshots/{}", r.parent, r.snapshot_id);
        drop(self.called("CreateSnapshot", &name, &request));
        Ok(Response::new(api::Snapshot { name, size_bytes: 5 << 20, has_memory: true, ..Default::default() }))
    }

    async fn delete_snapshot(
        &self,
        request: Request<api::DeleteSnapshotRequest>,
    ) -> Result<Response<()>, Status> {
        let name = request.get_ref().name.clone();
        drop(self.called("DeleteSnapshot", &name, &request));
        Ok(Response::new(()))
    }

    async fn restore_snapshot(
        &self,
        request: Request<api::RestoreSnapshotRequest>,
    ) -> Result<Response<api::Operation>, Status> {
        let name = request.get_ref().name.clone();
        self.changed("RestoreSnapshot", &name, &request)
    }
}
