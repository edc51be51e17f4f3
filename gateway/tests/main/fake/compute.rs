//! A host's compute service.

use std::sync::Arc;

use futures::{StreamExt as _, stream};
use netloom_model::{Code, Failure};
use netloom_proto::compute::v1 as pc;
use netloom_proto::compute::v1::compute_service_server::ComputeService;
use netloom_service::status::to_status;
use tonic::{Request, Response, Status, Streaming};

use super::{Answers, World};

pub struct Compute(pub Arc<World>);

#[tonic::async_trait]
impl ComputeService for Compute {
    async fn sync(&self, _: Request<pc::SyncRequest>) -> Result<Response<pc::SyncResponse>, Status> {
        Err(Status::unimplemented("the gateway does not call this"))
    }
    async fn ensure(&self, _: Request<pc::EnsureRequest>) -> Result<Response<pc::EnsureResponse>, Status> {
        Err(Status::unimplemented("the gateway does not call this"))
    }
    async fn remove(&self, _: Request<pc::RemoveRequest>) -> Result<Response<pc::RemoveResponse>, Status> {
        Err(Status::unimplemented("the gateway does not call this"))
    }
    async fn settle(&self, _: Request<pc::SettleRequest>) -> Result<Response<pc::SettleResponse>, Status> {
        Err(Status::unimplemented("the gateway does not call this"))
    }
    async fn renew(&self, _: Request<pc::RenewRequest>) -> Result<Response<pc::RenewResponse>, Status> {
        Err(Status::unimplemented("the gateway does not call this"))
    }
    type ObserveStream = Answers<pc::ObserveResponse>;
    async fn observe(&self, _: Request<pc::ObserveRequest>) -> Result<Response<Self::ObserveStream>, Status> {
        Err(Status::unimplemented("the gateway does not call this"))
    }
    async fn put_files(
        &self,
        _: Request<Streaming<pc::PutFilesRequest>>,
    ) -> Result<Response<pc::PutFilesResponse>, Status> {
        Err(Status::unimplemented("the gateway does not call this"))
    }

    async fn remove_files(
        &self,
        _: Request<pc::RemoveFilesRequest>,
    ) -> Result<Response<pc::RemoveFilesResponse>, Status> {
        Err(Status::unimplemented("the gateway does not call this"))
    }
    async fn inspect_images(
        &self,
        _: Request<pc::InspectImagesRequest>,
    ) -> Result<Response<pc::InspectImagesResponse>, Status> {
        Err(Status::unimplemented("the gateway does not call this"))
    }
    async fn check_instances(
        &self,
        _: Request<pc::CheckInstancesRequest>,
    ) -> Result<Response<pc::CheckInstancesResponse>, Status> {
        Err(Status::unimplemented("the gateway does not call this"))
    }
    type PullImageStream = Answers<pc::PullImageResponse>;
    async fn pull_image(
        &self,
        _: Request<pc::PullImageRequest>,
    ) -> Result<Response<Self::PullImageStream>, Status> {
        Err(Status::unimplemented("the gateway does not call this"))
    }

    type VerifyImagesStream = Answers<pc::VerifyImagesResponse>;
    async fn verify_images(
        &self,
        _: Request<pc::VerifyImagesRequest>,
    ) -> Result<Response<Self::VerifyImagesStream>, Status> {
        Err(Status::unimplemented("the gateway does not call this"))
    }

    type ExecStream = Answers<pc::ExecResponse>;

    /// Writes back what is typed; a terminal ends with its input, `fail` breaks, `hang` never ends.
    async fn exec(
        &self,
        request: Request<Streaming<pc::ExecRequest>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        use pc::{exec_request::Part, exec_response};
        let world = self.0.clone();
        let answer = |part| Ok(pc::ExecResponse { part: Some(part) });
        let answers = request.into_inner().flat_map(move |message| {
            let part = message.ok().and_then(|m| m.part);
            world.typed.lock().unwrap().extend(part.clone());
            stream::iter(match part {
                Some(Part::Start(start)) if start.command == ["fail"] => {
                    let said = "the container has no program fail";
                    vec![Err(to_status(Failure::new(Code::FailedPrecondition, "RUNTIME_REFUSED", said)))]
                }
                Some(Part::Start(start)) if start.command == ["show", "running config"] => vec![
                    answer(exec_response::Part::Stdout(b"Building configuration...\nhost".to_vec())),
                    answer(exec_response::Part::Stderr(b"a warning\n".to_vec())),
                    answer(exec_response::Part::Stdout(b"name r1\n".to_vec())),
                    answer(exec_response::Part::ExitCode(0)),
                ],
                Some(Part::Start(start)) if start.command == ["silent"] => vec![
                    answer(exec_response::Part::Stdout(b"\n".to_vec())),
                    answer(exec_response::Part::ExitCode(0)),
                ],
                Some(Part::Start(start)) if start.command == ["endless"] => {
                    vec![answer(exec_response::Part::Stdout(vec![b'x'; 1 << 20])); 5]
                }
                Some(Part::Start(_)) => vec![answer(exec_response::Part::Stderr(b"hello\n".to_vec()))],
                Some(Part::Stdin(bytes)) => vec![answer(exec_response::Part::Stdout(bytes))],
                Some(Part::StdinEnd(_)) => vec![answer(exec_response::Part::ExitCode(7))],
                Some(Part::Resize(_)) | None => Vec::new(),
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    type ConsoleStream = Answers<pc::ConsoleResponse>;

    /// Says how it was attached to and writes back what is typed; the end of that is the machine's.
    async fn console(
        &self,
        request: Request<Streaming<pc::ConsoleRequest>>,
    ) -> Result<Response<Self::ConsoleStream>, Status> {
        use netloom_proto::v1::ConsoleEvent;
        use pc::{console_request::Part, console_response};
        let answers = request.into_inner().flat_map(|message| {
            stream::iter(match message.ok().and_then(|m| m.part) {
                Some(Part::Start(s)) => vec![
                    console_response::Part::Event(ConsoleEvent::Attached.into()),
                    console_response::Part::Output(
                        format!("{} {} {} {}", s.uid, s.ticket, s.read_only, s.take).into_bytes(),
                    ),
                ],
                Some(Part::Input(bytes)) => vec![console_response::Part::Output(bytes)],
                None => Vec::new(),
            })
        });
        let end = console_response::Part::Event(ConsoleEvent::Ended.into());
        let answers = answers.chain(stream::once(async { end }));
        Ok(Response::new(Box::pin(answers.map(|part| Ok(pc::ConsoleResponse { part: Some(part) })))))
    }

    async fn list_snapshots(
        &self,
        request: Request<pc::ListSnapshotsRequest>,
    ) -> Result<Response<pc::ListSnapshotsResponse>, Status> {
        assert_eq!(request.get_ref().ticket, "ticket for snapshot");
        let snapshots = self.0.snapshots.lock().unwrap().clone();
        Ok(Response::new(pc::ListSnapshotsResponse { snapshots }))
    }

    /// As a host's: what is there is refused, unless the request is one that was made before, as all are here that have an id.
    async fn create_snapshot(
        &self,
        request: Request<pc::CreateSnapshotRequest>,
    ) -> Result<Response<pc::DiskSnapshot>, Status> {
        let pc::CreateSnapshotRequest { snapshot: id, request_id, .. } = request.into_inner();
        let mut all = self.0.snapshots.lock().unwrap();
        if let Some(there) = all.iter().find(|s| s.id == id) {
            if !request_id.is_empty() {
                return Ok(Response::new(there.clone()));
            }
            return Err(to_status(Failure::new(
                Code::AlreadyExists,
                "SNAPSHOT_EXISTS",
                "it is there already",
            )));
        }
        all.push(pc::DiskSnapshot {
            id,
            taken_ns: 1_700_000_000_000_000_000,
            size_bytes: 5 << 20,
            has_memory: true,
        });
        Ok(Response::new(all.last().unwrap().clone()))
    }

    async fn delete_snapshot(
        &self,
        request: Request<pc::DeleteSnapshotRequest>,
    ) -> Result<Response<pc::DeleteSnapshotResponse>, Status> {
        self.0.snapshots.lock().unwrap().retain(|s| s.id != request.get_ref().snapshot);
        Ok(Response::new(pc::DeleteSnapshotResponse {}))
    }

    type ReadDiskStream = Answers<pc::DiskPart>;

    async fn read_disk(
        &self,
        _: Request<pc::ReadDiskRequest>,
    ) -> Result<Response<Self::ReadDiskStream>, Status> {
        Err(Status::unimplemented("the gateway does not call this"))
    }

    async fn write_disk(
        &self,
        _: Request<Streaming<pc::WriteDiskRequest>>,
    ) -> Result<Response<pc::WriteDiskResponse>, Status> {
        Err(Status::unimplemented("the gateway does not call this"))
    }

    type LogsStream = Answers<pc::LogsResponse>;

    async fn logs(&self, request: Request<pc::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let request = request.into_inner();
        let line = |text: String| {
            let part = Some(pc::logs_response::Part::Stdout(text.into_bytes()));
            Ok(pc::LogsResponse { part, at_ns: request.after_ns + 1 })
        };
        let told = stream::iter(vec![line(format!("{} {} {}\n", request.uid, request.ticket, request.tail))]);
        if request.follow {
            return Ok(Response::new(Box::pin(told.chain(stream::pending()))));
        }
        Ok(Response::new(Box::pin(told)))
    }
}
