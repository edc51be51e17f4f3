//! OperationService, by the script.

use futures::stream::{self, BoxStream, StreamExt as _};
use netloom_api::v1 as api;
use netloom_api::v1::operation_service_server::OperationService;
use tonic::{Request, Response, Status};

use super::{Server, next, not_scripted};

#[tonic::async_trait]
impl OperationService for Server {
    type WatchOperationStream = BoxStream<'static, Result<api::Operation, Status>>;

    async fn watch_operation(
        &self,
        request: Request<api::WatchOperationRequest>,
    ) -> Result<Response<Self::WatchOperationStream>, Status> {
        let mut script = self.called("WatchOperation", &request.get_ref().name, &request);
        let (operations, end) = next(&mut script.watches).expect("the test says what WatchOperation streams");
        let operations = stream::iter(operations.into_iter().map(Ok));
        Ok(Response::new(match end {
            Some(status) => operations.chain(stream::iter([Err(status)])).boxed(),
            None => operations.chain(stream::pending()).boxed(),
        }))
    }

    async fn get_operation(
        &self,
        request: Request<api::GetOperationRequest>,
    ) -> Result<Response<api::Operation>, Status> {
        let script = self.called("GetOperation", &request.get_ref().name, &request);
        Ok(Response::new(script.operation.clone().expect("the test says what GetOperation answers")))
    }

    async fn cancel_operation(
        &self,
        request: Request<api::CancelOperationRequest>,
    ) -> Result<Response<api::Operation>, Status> {
        let script = self.called("CancelOperation", &request.get_ref().name, &request);
        if let Some(refused) = &script.cancel_refusal {
            return Err(refused.clone());
        }
        Ok(Response::new(script.operation.clone().expect("the test says what CancelOperation answers")))
    }

    async fn list_operations(
        &self,
        _: Request<api::ListOperationsRequest>,
    ) -> Result<Response<api::ListOperationsResponse>, Status> {
        not_scripted()
    }

    async fn wait_operation(
        &self,
        request: Request<api::WaitOperationRequest>,
    ) -> Result<Response<api::Operation>, Status> {
        let script = self.called("WaitOperation", &request.get_ref().name, &request);
        Ok(Response::new(script.operation.clone().expect("the test says what WaitOperation answers")))
    }
}
