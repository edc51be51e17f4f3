//! The contract on the wire: decode, call, encode.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt as _};
use netloom_model::id::{LabUid, NodeUid};
use netloom_model::slice::Instance;
use netloom_model::spec::FileEntry;
use netloom_proto::compute::v1 as p;
use netloom_proto::compute::v1::compute_service_server::ComputeService;
use netloom_proto::convert::id;
use netloom_proto::v1::ConsoleEvent;
use netloom_service::order::Decision;
use tokio::time::MissedTickBehavior;
use tonic::{Request, Response, Status, Streaming};

use crate::driver::{Attach, Command, Input, Line, Lines, Output, Size, Told};
use crate::error::Error;
use crate::files::Uploads;
use crate::host::Host;
use crate::log;

mod disks;
mod images;
mod observer;
mod snapshots;

use observer::Observer;

/// How often an observer hears that the host is there.
const HEARTBEAT: Duration = Duration::from_secs(1);

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service.
pub struct Grpc {
    host: Arc<Host>,
}

impl Grpc {
    /// Over this host.
    pub fn new(host: Arc<Host>) -> Grpc {
        Grpc { host }
    }

    /// Ends with the service: an open stream would keep it from ending.
    fn until_shutdown<T: Send + 'static>(
        &self,
        stream: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> Response<Streamed<T>> {
        Response::new(stream.take_until(self.host.shutdown.clone().cancelled_owned()).boxed())
    }
}

fn instances(from: Vec<p::Instance>) -> Result<Vec<Instance>, Error> {
    from.into_iter().map(|i| Instance::try_from(i).map_err(Error::from)).collect()
}

fn ids<T: std::str::FromStr>(field: &str, from: &[String]) -> Result<Vec<T>, Error>
where
    T::Err: std::fmt::Display,
{
    from.iter().map(|text| id(field, text).map_err(Error::from)).collect()
}

#[tonic::async_trait]
impl ComputeService for Grpc {
    async fn sync(&self, request: Request<p::SyncRequest>) -> Result<Response<p::SyncResponse>, Status> {
        let r = request.into_inner();
        let of = Decision { term: r.term, number: r.decision };
        self.host.sync(of, &r.beat, instances(r.instances)?, r.ticket_key, r.more)?;
        Ok(Response::new(p::SyncResponse {}))
    }

    async fn ensure(
        &self,
        request: Request<p::EnsureRequest>,
    ) -> Result<Response<p::EnsureResponse>, Status> {
        let r = request.into_inner();
        let of = Decision { term: r.term, number: r.decision };
        self.host.ensure(of, &r.beat, instances(r.instances)?)?;
        Ok(Response::new(p::EnsureResponse {}))
    }

    async fn remove(
        &self,
        request: Request<p::RemoveRequest>,
    ) -> Result<Response<p::RemoveResponse>, Status> {
        let r = request.into_inner();
        let (uids, labs) = (ids("uids", &r.uids)?, ids("lab_uids", &r.lab_uids)?);
        let of = Decision { term: r.term, number: r.decision };
        let failures = self.host.remove(of, uids, labs).await?;
        let failures =
            failures.into_iter().map(|f| p::RemoveFailure { uid: f.uid, message: f.message }).collect();
        Ok(Response::new(p::RemoveResponse { failures }))
    }

    async fn settle(
        &self,
        request: Request<p::SettleRequest>,
    ) -> Result<Response<p::SettleResponse>, Status> {
        let r = request.into_inner();
        let starts = r.starts.into_iter().map(|s| {
            let reached = s.reached.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
            Ok((id("starts.uid", &s.uid)?, s.start_id, reached))
        });
        let starts = starts.collect::<Result<_, Error>>()?;
        self.host.settle(r.term, starts)?;
        Ok(Response::new(p::SettleResponse {}))
    }

    async fn renew(&self, request: Request<p::RenewRequest>) -> Result<Response<p::RenewResponse>, Status> {
        let (host, r) = (self.host.clone(), request.into_inner());
        // Every few seconds it waits for the disk.
        let done = tokio::task::spawn_blocking(move || host.renew(r.term, &r.beat)).await;
        done.map_err(|e| Error::host("the renewal of leases did not end", e))??;
        Ok(Response::new(p::RenewResponse {}))
    }

    type ObserveStream = Streamed<p::ObserveResponse>;

    async fn observe(&self, _: Request<p::ObserveRequest>) -> Result<Response<Self::ObserveStream>, Status> {
        let mut beat = tokio::time::interval_at(tokio::time::Instant::now() + HEARTBEAT, HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let observer = Observer::new(self.host.clone(), beat);
        let told = stream::unfold(observer, |mut observer| async {
            let next = observer.next().await?;
            Some((Ok(next), observer))
        });
        Ok(self.until_shutdown(told))
    }

    async fn put_files(
        &self,
        request: Request<Streaming<p::PutFilesRequest>>,
    ) -> Result<Response<p::PutFilesResponse>, Status> {
        let mut parts = request.into_inner();
        let mut uploads = Uploads::new(self.host.files.clone());
        while let Some(part) = parts.message().await? {
            self.host.admit(part.term)?;
            let lab: LabUid = id("lab_uid", &part.lab_uid).map_err(Error::from)?;
            let entry = part.file.ok_or_else(|| Error::Invalid("file: is not set".to_owned()))?;
            let entry: FileEntry = entry.try_into().map_err(Error::from)?;
            uploads =
                self.host.on_files(move |_| uploads.part(lab, entry, part.deploys, &part.content)).await?;
        }
        let written = self.host.on_files(move |_| uploads.finish()).await?;
        Ok(Response::new(p::PutFilesResponse { written }))
    }

    async fn remove_files(
        &self,
        request: Request<p::RemoveFilesRequest>,
    ) -> Result<Response<p::RemoveFilesResponse>, Status> {
        let p::RemoveFilesRequest { term, lab_uid, directories, files, deploys } = request.into_inner();
        self.host.admit(term)?;
        let lab: LabUid = id("lab_uid", &lab_uid).map_err(Error::from)?;
        let removed =
            self.host.on_files(move |all| all.remove_others(lab, &directories, &files, deploys)).await?;
        Ok(Response::new(p::RemoveFilesResponse { removed }))
    }

    async fn inspect_images(
        &self,
        request: Request<p::InspectImagesRequest>,
    ) -> Result<Response<p::InspectImagesResponse>, Status> {
        let mut images = Vec::new();
        for query in request.into_inner().images {
            let runtime = query.runtime();
            images.push(images::facts(&self.host, query.reference, runtime, &query.digest).await?);
        }
        let room_bytes = self.host.images.room().await.inspect_err(|e| tracing::warn!("{e}")).ok();
        Ok(Response::new(p::InspectImagesResponse { images, room_bytes }))
    }

    async fn check_instances(
        &self,
        request: Request<p::CheckInstancesRequest>,
    ) -> Result<Response<p::CheckInstancesResponse>, Status> {
        let r = request.into_inner();
        let leaving: BTreeSet<NodeUid> = ids("leaving_uids", &r.leaving_uids)?.into_iter().collect();
        let failures = self.host.check(instances(r.instances)?, &leaving).await?;
        let failures = failures.into_iter().map(|(uid, failure)| p::CheckFailure {
            uid: uid.to_string(),
            reason: failure.reason.to_string(),
            message: failure.message,
        });
        Ok(Response::new(p::CheckInstancesResponse { failures: failures.collect() }))
    }

    type PullImageStream = Streamed<p::PullImageResponse>;

    async fn pull_image(
        &self,
        request: Request<p::PullImageRequest>,
    ) -> Result<Response<Self::PullImageStream>, Status> {
        let r = request.into_inner();
        self.host.admit(r.term)?;
        let pulled = images::pull(self.host.clone(), r).await?;
        Ok(self.until_shutdown(until_error(pulled)))
    }

    type VerifyImagesStream = Streamed<p::VerifyImagesResponse>;

    async fn verify_images(
        &self,
        request: Request<p::VerifyImagesRequest>,
    ) -> Result<Response<Self::VerifyImagesStream>, Status> {
        let p::VerifyImagesRequest { term, digests } = request.into_inner();
        self.host.admit(term)?;
        Ok(self.until_shutdown(images::verify(&self.host, digests)?))
    }

    type ExecStream = Streamed<p::ExecResponse>;

    async fn exec(
        &self,
        request: Request<Streaming<p::ExecRequest>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        let mut parts = request.into_inner();
        let Some(p::exec_request::Part::Start(start)) = parts.message().await?.and_then(|m| m.part) else {
            return Err(Error::Invalid("the first message is not `start`".to_owned()).into());
        };
        let opened = self.host.open(&start.uid, "exec", &start.ticket)?;
        let command = Command {
            argv: if start.command.is_empty() { opened.shell } else { start.command },
            tty: start.tty,
            stdin: true,
            size: start.size.map(size),
        };
        let session = opened.driver.exec(&opened.id, opened.instance.as_deref(), command).await?;
        let (input, node, end) = (session.input, opened.node, if start.tty { "\r\n" } else { "\n" });
        // Ends when the caller has nothing more to say, and when the command takes no more.
        tokio::spawn(async move {
            while let Ok(Some(message)) = parts.message().await {
                let given = match message.part {
                    Some(p::exec_request::Part::Stdin(bytes)) => Input::Data(bytes.into()),
                    Some(p::exec_request::Part::StdinEnd(true)) => Input::End,
                    Some(p::exec_request::Part::Resize(s)) => Input::Resize(size(s)),
                    Some(p::exec_request::Part::StdinEnd(false) | p::exec_request::Part::Start(_)) | None => {
                        continue;
                    }
                };
                if input.send(given).await.is_err() {
                    return;
                }
            }
            // A caller that closes its side without a word has no more input either.
            let _ = input.send(Input::End).await;
        });
        let output = session.output.flat_map(move |part| {
            let parts = match part {
                Ok(Output::Stdout(bytes)) => vec![Ok(p::exec_response::Part::Stdout(bytes.into()))],
                Ok(Output::Stderr(bytes)) => vec![Ok(p::exec_response::Part::Stderr(bytes.into()))],
                Ok(Output::Exit(code)) => vec![Ok(p::exec_response::Part::ExitCode(code))],
                // As a shell would tell it.
                Ok(Output::NotStarted(not)) => vec![
                    Ok(p::exec_response::Part::Stderr(format!("{node}: {}{end}", not.why).into_bytes())),
                    Ok(p::exec_response::Part::ExitCode(not.code)),
                ],
                Err(e) => vec![Err(e)],
            };
            stream::iter(parts).map(|part: Result<_, Error>| Ok(p::ExecResponse { part: Some(part?) }))
        });
        Ok(self.until_shutdown(until_error(output)))
    }

    type ConsoleStream = Streamed<p::ConsoleResponse>;

    async fn console(
        &self,
        request: Request<Streaming<p::ConsoleRequest>>,
    ) -> Result<Response<Self::ConsoleStream>, Status> {
        use p::console_request::Part as Given;
        use p::console_response::Part;
        let mut parts = request.into_inner();
        let Some(Given::Start(start)) = parts.message().await?.and_then(|m| m.part) else {
            return Err(Error::Invalid("the first message is not `start`".to_owned()).into());
        };
        let opened = self.host.open(&start.uid, "console", &start.ticket)?;
        let how = match (start.read_only, start.take) {
            (true, _) => Attach::Read,
            (false, true) => Attach::Take,
            (false, false) => Attach::Write,
        };
        let console = opened.driver.console(&opened.id, how).await?;
        if let Some(input) = console.input {
            let shutdown = self.host.shutdown.clone();
            // Ends when the caller has nothing more to say, when the line is somebody else's, and with the service: a caller that is listened to would keep it from ending.
            tokio::spawn(async move {
                let writing = async {
                    while let Ok(Some(message)) = parts.message().await {
                        if let Some(Given::Input(bytes)) = message.part
                            && input.send(bytes.into()).await.is_err()
                        {
                            return;
                        }
                    }
                };
                tokio::select! {
                    () = writing => {}
                    () = input.closed() => {}
                    () = shutdown.cancelled() => {}
                }
            });
        }
        let event = |event: ConsoleEvent| Part::Event(event.into());
        let told = console.told.map(move |told| {
            let part = match told? {
                Told::Output(bytes) => Part::Output(bytes.into()),
                Told::Taken => event(ConsoleEvent::Taken),
                Told::Ended => event(ConsoleEvent::Ended),
            };
            Ok(p::ConsoleResponse { part: Some(part) })
        });
        let attached = p::ConsoleResponse { part: Some(event(ConsoleEvent::Attached)) };
        Ok(self.until_shutdown(stream::once(async { Ok(attached) }).chain(until_error(told))))
    }

    async fn list_snapshots(
        &self,
        request: Request<p::ListSnapshotsRequest>,
    ) -> Result<Response<p::ListSnapshotsResponse>, Status> {
        let r = request.into_inner();
        Ok(Response::new(snapshots::list(self.host.open(&r.uid, snapshots::VERB, &r.ticket)?).await?))
    }

    async fn create_snapshot(
        &self,
        request: Request<p::CreateSnapshotRequest>,
    ) -> Result<Response<p::DiskSnapshot>, Status> {
        let r = request.into_inner();
        let opened = self.host.open(&r.uid, snapshots::VERB, &r.ticket)?;
        let taken = snapshots::create(self.host.clone(), opened, r.snapshot, r.request_id).await?;
        Ok(Response::new(taken))
    }

    async fn delete_snapshot(
        &self,
        request: Request<p::DeleteSnapshotRequest>,
    ) -> Result<Response<p::DeleteSnapshotResponse>, Status> {
        let r = request.into_inner();
        let opened = self.host.open(&r.uid, snapshots::VERB, &r.ticket)?;
        Ok(Response::new(snapshots::delete(self.host.clone(), opened, r.snapshot).await?))
    }

    type ReadDiskStream = Streamed<p::DiskPart>;

    async fn read_disk(
        &self,
        request: Request<p::ReadDiskRequest>,
    ) -> Result<Response<Self::ReadDiskStream>, Status> {
        let p::ReadDiskRequest { term, uid, size_only } = request.into_inner();
        self.host.admit(term)?;
        let node = id("uid", &uid).map_err(Error::from)?;
        Ok(self.until_shutdown(disks::read(&self.host, node, size_only).await?))
    }

    async fn write_disk(
        &self,
        request: Request<Streaming<p::WriteDiskRequest>>,
    ) -> Result<Response<p::WriteDiskResponse>, Status> {
        disks::write(self.host.clone(), request.into_inner()).await?;
        Ok(Response::new(p::WriteDiskResponse {}))
    }

    type LogsStream = Streamed<p::LogsResponse>;

    async fn logs(&self, request: Request<p::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let r = request.into_inner();
        let opened = self.host.open(&r.uid, "logs", &r.ticket)?;
        let lines = Lines { follow: r.follow, tail: r.tail, after_ns: r.after_ns };
        let lines = log::read(self.host.clone(), opened, lines).await?;
        let lines = lines.filter_map(|line| async {
            let Line { at_ns, output } = match line {
                Ok(line) => line,
                Err(e) => return Some(Err(e.into())),
            };
            let part = match output {
                Output::Stdout(bytes) => p::logs_response::Part::Stdout(bytes.into()),
                Output::Stderr(bytes) => p::logs_response::Part::Stderr(bytes.into()),
                Output::Exit(_) | Output::NotStarted(_) => return None,
            };
            // One whose time cannot be read has none.
            let at_ns = if at_ns == i64::MAX { 0 } else { at_ns };
            Some(Ok(p::LogsResponse { part: Some(part), at_ns }))
        });
        Ok(self.until_shutdown(until_error(lines)))
    }
}

fn size(s: p::ExecSize) -> Size {
    let fit = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
    Size { columns: fit(s.columns), rows: fit(s.rows) }
}

/// Ends a stream after its first error: gRPC sends nothing after a status.
fn until_error<T: Send + 'static>(
    stream: impl Stream<Item = Result<T, Status>> + Send + 'static,
) -> BoxStream<'static, Result<T, Status>> {
    let ended = stream.scan(false, |over, item| {
        let item = (!*over).then_some(item);
        *over |= matches!(item, Some(Err(_)));
        futures::future::ready(item)
    });
    ended.boxed()
}
