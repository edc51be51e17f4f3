//! A scheduler, an image registry and a compute service in memory, which answer with the facts of [`crate::fixture`].

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures::{Stream, StreamExt as _, stream};
use netloom_model::{Code, Failure};
use netloom_proto::compute::v1 as pc;
use netloom_proto::compute::v1::compute_service_server::{ComputeService, ComputeServiceServer};
use netloom_proto::image_registry::v1 as pr;
use netloom_proto::image_registry::v1::image_registry_service_server::{
    ImageRegistryService, ImageRegistryServiceServer,
};
use netloom_proto::network::v1::network_service_server::NetworkServiceServer;
use netloom_proto::scheduler::v1 as ps;
use netloom_proto::scheduler::v1::scheduler_service_server::{SchedulerService, SchedulerServiceServer};
use netloom_proto::v1 as p;
use netloom_service::server::serve;
use netloom_service::status::to_status;
use netloom_service::{Connector, Endpoint, Shutdown};
use tokio::sync::broadcast;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use crate::fixture::{self, DONE, time};

/// The event number that snapshots are true for.
pub const SEQUENCE: u64 = 41;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// All that the fakes know and were told.
pub struct World {
    pub labs: Vec<ps::LabFacts>,
    pub nodes: Vec<ps::NodeFacts>,
    pub links: Vec<ps::LinkFacts>,
    pub hosts: Vec<ps::HostFacts>,
    pub operations: Mutex<BTreeMap<String, ps::OperationFacts>>,
    pub images: Vec<pr::Image>,
    /// Sent to each watcher after the first heartbeat.
    pub script: Mutex<Vec<ps::WatchResponse>>,
    /// Sent to all watchers when a test does.
    pub events: broadcast::Sender<ps::WatchResponse>,
    /// What ApplyLab was asked.
    pub applied: Mutex<Vec<ps::ApplyLabRequest>>,
    /// What ChangeNodes and ChangeLink were asked.
    pub changed_nodes: Mutex<Vec<ps::ChangeNodesRequest>>,
    pub changed_links: Mutex<Vec<ps::ChangeLinkRequest>>,
    /// Size of each part that PutFiles was sent.
    pub parts: Mutex<Vec<(String, usize)>>,
    /// What Exec was sent.
    pub typed: Mutex<Vec<pc::exec_request::Part>>,
    /// Answer every call with this.
    pub broken: Mutex<Option<Failure>>,
    /// The trace context of each call to the scheduler that is recorded, by its name.
    pub traces: Mutex<Vec<(&'static str, String)>>,
    /// Messages of Watch that were handed out.
    pub watched: std::sync::atomic::AtomicUsize,
    /// What Capture was asked.
    pub captured: Mutex<Vec<netloom_proto::network::v1::CaptureRequest>>,
}

impl World {
    pub fn new() -> World {
        let (nodes, links) = (fixture::nodes(), fixture::links());
        let labs = fixture::labs(&nodes, &links);
        let script = vec![
            event(42, "mixed", ps::watch_response::Object::LabFacts(labs[1].clone())),
            event(43, "mixed", ps::watch_response::Object::Node(nodes[0].clone())),
            event(44, "mixed", ps::watch_response::Object::Link(links[0].clone())),
            ps::WatchResponse {
                kind: ps::EventKind::Deleted.into(),
                ..event(45, "mixed", ps::watch_response::Object::Node(nodes[1].clone()))
            },
        ];
        World {
            hosts: fixture::hosts(&nodes),
            operations: Mutex::new(fixture::operations().into_iter().map(|o| (o.id.clone(), o)).collect()),
            images: fixture::images(),
            labs,
            nodes,
            links,
            script: Mutex::new(script),
            events: broadcast::channel(1024).0,
            applied: Mutex::default(),
            changed_nodes: Mutex::default(),
            changed_links: Mutex::default(),
            parts: Mutex::default(),
            typed: Mutex::default(),
            broken: Mutex::default(),
            traces: Mutex::default(),
            watched: Default::default(),
            captured: Mutex::default(),
        }
    }

    /// Serves all three under `mem:scheduler`, `mem:registry` and `mem:host`.
    pub async fn serve(self: &Arc<World>, connector: &Connector, shutdown: &Shutdown) {
        let services = [
            ("scheduler", Routes::new(SchedulerServiceServer::new(Scheduler(self.clone())))),
            ("registry", Routes::new(ImageRegistryServiceServer::new(Registry(self.clone())))),
            ("host", Routes::new(ComputeServiceServer::new(Compute(self.clone())))),
            ("network", Routes::new(NetworkServiceServer::new(crate::captures::Network(self.clone())))),
        ];
        for (name, routes) in services {
            let listener = connector.listen(&Endpoint::Memory(name.into())).await.unwrap();
            let shutdown = shutdown.clone();
            tokio::spawn(async move {
                serve(listener, routes, name, netloom_proto::DESCRIPTORS, shutdown).await.unwrap();
            });
        }
    }

    fn check(&self) -> Result<(), Status> {
        match &*self.broken.lock().unwrap() {
            Some(failure) => Err(to_status(failure.clone())),
            None => Ok(()),
        }
    }

    fn trace<T>(&self, call: &'static str, request: &Request<T>) {
        let parent = request.metadata().get("traceparent").and_then(|v| v.to_str().ok());
        self.traces.lock().unwrap().push((call, parent.unwrap_or_default().to_owned()));
    }

    /// Changes an operation and tells watchers.
    pub fn set_operation(&self, id: &str, state: p::OperationState) {
        let mut operations = self.operations.lock().unwrap();
        let facts = operations.get_mut(id).unwrap();
        facts.state = state.into();
        facts.update_time = time(99);
        let _ = self.events.send(event(50, &facts.lab, ps::watch_response::Object::Operation(facts.clone())));
    }
}

pub fn event(sequence: u64, lab: &str, object: ps::watch_response::Object) -> ps::WatchResponse {
    ps::WatchResponse { sequence, lab: lab.into(), kind: ps::EventKind::Changed.into(), object: Some(object) }
}

pub fn heartbeat(sequence: u64) -> ps::WatchResponse {
    ps::WatchResponse { sequence, kind: ps::EventKind::Heartbeat.into(), ..ps::WatchResponse::default() }
}

fn missing(what: &str, id: &str) -> Status {
    let reason = format!("{}_NOT_FOUND", what.to_uppercase());
    to_status(Failure::new(Code::NotFound, &reason, format!("there is no {what} \"{id}\"")).with(what, id))
}

/// One page of what comes after an id.
fn page<T: Clone>(all: &[T], id: impl Fn(&T) -> &str, size: u32, after: &str) -> (Vec<T>, bool) {
    let rest: Vec<T> = all.iter().filter(|t| id(t) > after).cloned().collect();
    let size = size as usize;
    (rest.iter().take(size).cloned().collect(), rest.len() > size)
}

struct Scheduler(Arc<World>);

#[tonic::async_trait]
impl SchedulerService for Scheduler {
    async fn apply_lab(
        &self,
        request: Request<ps::ApplyLabRequest>,
    ) -> Result<Response<ps::ApplyLabResponse>, Status> {
        self.0.trace("apply_lab", &request);
        self.0.check()?;
        let request = request.into_inner();
        let mut operation = self.0.operations.lock().unwrap()[DONE].clone();
        if request.validate_only {
            operation.id.clear();
        }
        operation.lab.clone_from(&request.lab);
        self.0.applied.lock().unwrap().push(request);
        Ok(Response::new(ps::ApplyLabResponse { operation: Some(operation) }))
    }

    async fn put_files(
        &self,
        request: Request<Streaming<ps::PutFilesRequest>>,
    ) -> Result<Response<ps::PutFilesResponse>, Status> {
        self.0.trace("put_files", &request);
        let mut parts = request.into_inner();
        while let Some(part) = parts.message().await? {
            self.0.parts.lock().unwrap().push((part.digest, part.content.len()));
        }
        Ok(Response::new(ps::PutFilesResponse {}))
    }

    async fn destroy_lab(
        &self,
        request: Request<ps::DestroyLabRequest>,
    ) -> Result<Response<ps::DestroyLabResponse>, Status> {
        self.0.check()?;
        let mut operation = self.0.operations.lock().unwrap()[DONE].clone();
        operation.lab = request.into_inner().lab;
        operation.kind = p::OperationKind::Destroy.into();
        Ok(Response::new(ps::DestroyLabResponse { operation: Some(operation) }))
    }

    async fn list_labs(
        &self,
        request: Request<ps::ListLabsRequest>,
    ) -> Result<Response<ps::ListLabsResponse>, Status> {
        self.0.trace("list_labs", &request);
        self.0.check()?;
        let request = request.into_inner();
        let (labs, more) = page(&self.0.labs, |l| &l.id, request.page_size, &request.after);
        Ok(Response::new(ps::ListLabsResponse { labs, more }))
    }

    async fn get_lab(&self, request: Request<ps::GetLabRequest>) -> Result<Response<ps::LabFacts>, Status> {
        self.0.trace("get_lab", &request);
        self.0.check()?;
        let id = request.into_inner().lab;
        let found = self.0.labs.iter().find(|l| l.id == id);
        Ok(Response::new(found.ok_or_else(|| missing("lab", &id))?.clone()))
    }

    async fn list_nodes(
        &self,
        request: Request<ps::ListNodesRequest>,
    ) -> Result<Response<ps::ListNodesResponse>, Status> {
        self.0.trace("list_nodes", &request);
        self.0.check()?;
        let request = request.into_inner();
        let mine: Vec<_> = self.0.nodes.iter().filter(|n| n.lab == request.lab).cloned().collect();
        let (nodes, more) = page(&mine, |n| &n.spec.as_ref().unwrap().id, request.page_size, &request.after);
        Ok(Response::new(ps::ListNodesResponse { nodes, more }))
    }

    async fn get_node(
        &self,
        request: Request<ps::GetNodeRequest>,
    ) -> Result<Response<ps::NodeFacts>, Status> {
        self.0.check()?;
        let r = request.into_inner();
        let found = self.0.nodes.iter().find(|n| n.lab == r.lab && n.spec.as_ref().unwrap().id == r.node);
        Ok(Response::new(found.ok_or_else(|| missing("node", &r.node))?.clone()))
    }

    async fn list_links(
        &self,
        request: Request<ps::ListLinksRequest>,
    ) -> Result<Response<ps::ListLinksResponse>, Status> {
        self.0.check()?;
        let request = request.into_inner();
        let mine: Vec<_> = self.0.links.iter().filter(|n| n.lab == request.lab).cloned().collect();
        let (links, more) = page(&mine, |l| &l.id, request.page_size, &request.after);
        Ok(Response::new(ps::ListLinksResponse { links, more }))
    }

    async fn get_link(
        &self,
        request: Request<ps::GetLinkRequest>,
    ) -> Result<Response<ps::LinkFacts>, Status> {
        self.0.check()?;
        let r = request.into_inner();
        let found = self.0.links.iter().find(|l| l.lab == r.lab && l.id == r.link);
        Ok(Response::new(found.ok_or_else(|| missing("link", &r.link))?.clone()))
    }

    async fn list_hosts(
        &self,
        request: Request<ps::ListHostsRequest>,
    ) -> Result<Response<ps::ListHostsResponse>, Status> {
        self.0.check()?;
        let request = request.into_inner();
        let (hosts, more) = page(&self.0.hosts, |h| &h.id, request.page_size, &request.after);
        Ok(Response::new(ps::ListHostsResponse { hosts, more }))
    }

    async fn get_host(
        &self,
        request: Request<ps::GetHostRequest>,
    ) -> Result<Response<ps::HostFacts>, Status> {
        self.0.check()?;
        let id = request.into_inner().host;
        let found = self.0.hosts.iter().find(|h| h.id == id);
        Ok(Response::new(found.ok_or_else(|| missing("host", &id))?.clone()))
    }

    async fn list_operations(
        &self,
        request: Request<ps::ListOperationsRequest>,
    ) -> Result<Response<ps::ListOperationsResponse>, Status> {
        self.0.check()?;
        let request = request.into_inner();
        let all = self.0.operations.lock().unwrap();
        let mut newest =
            all.values().rev().filter(|o| request.before.is_empty() || o.id < request.before).cloned();
        let operations = newest.by_ref().take(request.page_size as usize).collect();
        Ok(Response::new(ps::ListOperationsResponse { operations, more: newest.next().is_some() }))
    }

    async fn get_operation(
        &self,
        request: Request<ps::GetOperationRequest>,
    ) -> Result<Response<ps::OperationFacts>, Status> {
        self.0.check()?;
        let id = request.into_inner().operation;
        let found = self.0.operations.lock().unwrap().get(&id).cloned();
        Ok(Response::new(found.ok_or_else(|| missing("operation", &id))?))
    }

    async fn cancel_operation(
        &self,
        request: Request<ps::CancelOperationRequest>,
    ) -> Result<Response<ps::OperationFacts>, Status> {
        let request = ps::GetOperationRequest { operation: request.into_inner().operation };
        self.get_operation(Request::new(request)).await
    }

    type WatchStream = Answers<ps::WatchResponse>;

    async fn watch(&self, request: Request<ps::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        self.0.check()?;
        let request = request.into_inner();
        if request.since == 1 {
            let failure =
                Failure::new(Code::OutOfRange, "RELIST_NEEDED", "events after 1 were dropped: list again");
            return Err(to_status(failure.with("since", "1")));
        }
        let events = self.0.events.subscribe();
        let script = self.0.script.lock().unwrap().clone();
        let after = move |e: &ps::WatchResponse| e.sequence > request.since.max(SEQUENCE);
        let first = (request.since == 0).then(|| heartbeat(SEQUENCE));
        let told: Vec<_> = first.into_iter().chain(script.into_iter().filter(after)).collect();
        let world = self.0.clone();
        let live =
            stream::unfold(events, |mut events| async move { Some((events.recv().await.ok()?, events)) });
        let all = stream::iter(told).chain(live).map(move |event| {
            world.watched.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok(event)
        });
        Ok(Response::new(Box::pin(all)))
    }

    async fn get_ticket(
        &self,
        request: Request<ps::GetTicketRequest>,
    ) -> Result<Response<ps::Ticket>, Status> {
        self.0.check()?;
        let r = request.into_inner();
        if r.verb == "exec" && r.node == "s1" {
            let said = "node s1 does not run; start it first";
            return Err(to_status(Failure::new(Code::FailedPrecondition, "NODE_NOT_RUNNING", said)));
        }
        let endpoint = if r.node == "v1" { "mem:nowhere" } else { "mem:host" };
        Ok(Response::new(ps::Ticket {
            endpoint: endpoint.into(),
            uid: format!("uid of {}", r.node),
            ticket: format!("ticket for {}", r.verb),
            shell: vec!["/bin/sh".into()],
            save: match r.node.as_str() {
                "r1" => vec!["show".into(), "running config".into()],
                "r2" => vec!["fail".into()],
                "r3" => vec!["silent".into()],
                "r4" => vec!["endless".into()],
                "r5" => vec!["cat".into()],
                _ => vec![],
            },
        }))
    }

    async fn get_capture_ticket(
        &self,
        request: Request<ps::GetCaptureTicketRequest>,
    ) -> Result<Response<ps::CaptureTicket>, Status> {
        self.0.check()?;
        let request = request.into_inner();
        let interfaces = request.targets.iter().enumerate().map(|(at, target)| {
            let name = target.clone();
            ps::CaptureInterface { nic: at as u64 + 1, name }
        });
        Ok(Response::new(ps::CaptureTicket {
            endpoint: "mem:network".into(),
            ticket: format!("ticket for {}", request.lab),
            interfaces: interfaces.collect(),
        }))
    }

    async fn change_nodes(
        &self,
        request: Request<ps::ChangeNodesRequest>,
    ) -> Result<Response<ps::ChangeNodesResponse>, Status> {
        self.0.check()?;
        let mut operation = self.0.operations.lock().unwrap()[DONE].clone();
        operation.lab.clone_from(&request.get_ref().lab);
        self.0.changed_nodes.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ps::ChangeNodesResponse { operation: Some(operation) }))
    }

    async fn change_link(
        &self,
        request: Request<ps::ChangeLinkRequest>,
    ) -> Result<Response<ps::ChangeLinkResponse>, Status> {
        self.0.check()?;
        let mut operation = self.0.operations.lock().unwrap()[DONE].clone();
        operation.lab.clone_from(&request.get_ref().lab);
        if request.get_ref().validate_only {
            operation.id.clear();
        }
        self.0.changed_links.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ps::ChangeLinkResponse { operation: Some(operation) }))
    }

    async fn set_link_enabled(
        &self,
        request: Request<ps::SetLinkEnabledRequest>,
    ) -> Result<Response<ps::LinkFacts>, Status> {
        self.0.check()?;
        let r = request.into_inner();
        let found = self.0.links.iter().find(|l| l.lab == r.lab && l.id == r.link);
        Ok(Response::new(found.ok_or_else(|| missing("link", &r.link))?.clone()))
    }
}

struct Registry(Arc<World>);

#[tonic::async_trait]
impl ImageRegistryService for Registry {
    async fn record_presence(
        &self,
        _: Request<pr::RecordPresenceRequest>,
    ) -> Result<Response<pr::RecordPresenceResponse>, Status> {
        Err(Status::unimplemented("the gateway does not call this"))
    }

    async fn validate_images(
        &self,
        _: Request<pr::ValidateImagesRequest>,
    ) -> Result<Response<pr::ValidateImagesResponse>, Status> {
        Err(Status::unimplemented("the gateway does not call this"))
    }

    async fn list_images(
        &self,
        request: Request<pr::ListImagesRequest>,
    ) -> Result<Response<pr::ListImagesResponse>, Status> {
        let request = request.into_inner();
        let (images, more) = page(&self.0.images, |i| &i.reference, request.page_size, &request.after);
        Ok(Response::new(pr::ListImagesResponse { images, more }))
    }

    async fn get_image(&self, request: Request<pr::GetImageRequest>) -> Result<Response<pr::Image>, Status> {
        let reference = request.into_inner().reference;
        let found = self.0.images.iter().find(|i| i.reference == reference);
        Ok(Response::new(found.ok_or_else(|| missing("image", &reference))?.clone()))
    }
}

struct Compute(Arc<World>);

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
    async fn inspect_images(
        &self,
        _: Request<pc::InspectImagesRequest>,
    ) -> Result<Response<pc::InspectImagesResponse>, Status> {
        Err(Status::unimplemented("the gateway does not call this"))
    }
    type PullImageStream = Answers<pc::PullImageResponse>;
    async fn pull_image(
        &self,
        _: Request<pc::PullImageRequest>,
    ) -> Result<Response<Self::PullImageStream>, Status> {
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
                    answer(exec_response::Part::Stdout(b"hostname ".to_vec())),
                    answer(exec_response::Part::Stderr(b"a warning\n".to_vec())),
                    answer(exec_response::Part::Stdout(b"r1\n".to_vec())),
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

    type LogsStream = Answers<pc::LogsResponse>;

    async fn logs(&self, request: Request<pc::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let request = request.into_inner();
        let line = |text: String| {
            Ok(pc::LogsResponse { part: Some(pc::logs_response::Part::Stdout(text.into_bytes())) })
        };
        let told = stream::iter(vec![line(format!("{} {} {}\n", request.uid, request.ticket, request.tail))]);
        if request.follow {
            return Ok(Response::new(Box::pin(told.chain(stream::pending()))));
        }
        Ok(Response::new(Box::pin(told)))
    }
}
