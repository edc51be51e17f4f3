//! OperationService.

use std::time::Duration;

use netloom_api::v1::{self, operation_service_server::OperationService};
use netloom_proto::scheduler::v1 as ps;
use tonic::{Request, Response, Status};

use super::Api;
use crate::apply::with_lab;
use crate::error::Error;
use crate::watch::{self, Answers};
use crate::{names, pages, view};

const LIST: &str = "operations";
/// How long WaitOperation waits when nothing is said.
const DEFAULT_WAIT: Duration = Duration::from_secs(60);
/// How long it waits at most.
const MAX_WAIT: Duration = Duration::from_secs(600);

#[tonic::async_trait]
impl OperationService for Api {
    async fn list_operations(
        &self,
        request: Request<v1::ListOperationsRequest>,
    ) -> Result<Response<v1::ListOperationsResponse>, Status> {
        let request = request.into_inner();
        let page = pages::read(LIST, request.page_size, &request.page_token)?;
        let request = ps::ListOperationsRequest { page_size: page.size, before: page.after };
        let found =
            self.peers.scheduler().list_operations(request).await.map_err(self.peers.scheduler_error())?;
        let found = found.into_inner();
        let next_page_token = pages::next(LIST, found.more, found.operations.last().map(|o| o.id.as_str()));
        let operations = found.operations.into_iter().map(|o| view::operation(o, None, Vec::new())).collect();
        Ok(Response::new(v1::ListOperationsResponse { operations, next_page_token }))
    }

    async fn get_operation(
        &self,
        request: Request<v1::GetOperationRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        let id = names::read_operation("name", &request.into_inner().name)?;
        let facts = self.peers.operation(id).await?;
        Ok(Response::new(with_lab(&self.peers, facts, Vec::new()).await?))
    }

    async fn wait_operation(
        &self,
        request: Request<v1::WaitOperationRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        let request = request.into_inner();
        let id = names::read_operation("name", &request.name)?;
        let bound = match request.timeout {
            None => DEFAULT_WAIT,
            Some(d) => Duration::try_from(d)
                .map_err(|_| Error::field("timeout", "is negative; 0 s to 10 minutes"))?
                .min(MAX_WAIT),
        };
        let facts = tokio::select! {
            facts = watch::wait(self.peers.clone(), id, bound) => facts?,
            () = self.shutdown.cancelled() => return Err(Error::ShuttingDown.into()),
        };
        Ok(Response::new(with_lab(&self.peers, facts, Vec::new()).await?))
    }

    type WatchOperationStream = Answers<v1::Operation>;

    async fn watch_operation(
        &self,
        request: Request<v1::WatchOperationRequest>,
    ) -> Result<Response<Self::WatchOperationStream>, Status> {
        let id = names::read_operation("name", &request.into_inner().name)?;
        let changes = watch::operation(self.peers.clone(), self.shutdown.clone(), id).await?;
        Ok(Response::new(changes))
    }

    async fn cancel_operation(
        &self,
        request: Request<v1::CancelOperationRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        let id = names::read_operation("name", &request.into_inner().name)?;
        tracing::info!(operation = %id, "an operation is to be cancelled");
        let request = ps::CancelOperationRequest { operation: id.to_string() };
        let facts =
            self.peers.scheduler().cancel_operation(request).await.map_err(self.peers.scheduler_error())?;
        Ok(Response::new(with_lab(&self.peers, facts.into_inner(), Vec::new()).await?))
    }
}
