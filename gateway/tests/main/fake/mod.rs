//! A scheduler, an image registry and a compute service in memory, which answer with the facts of [`crate::fixture`].

mod compute;
mod registry;
mod scheduler;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures::Stream;
use netloom_model::{Code, Failure};
use netloom_proto::compute::v1 as pc;
use netloom_proto::compute::v1::compute_service_server::ComputeServiceServer;
use netloom_proto::image_registry::v1 as pr;
use netloom_proto::image_registry::v1::image_registry_service_server::ImageRegistryServiceServer;
use netloom_proto::network::v1::network_service_server::NetworkServiceServer;
use netloom_proto::scheduler::v1 as ps;
use netloom_proto::scheduler::v1::scheduler_service_server::SchedulerServiceServer;
use netloom_proto::v1 as p;
use netloom_service::server::serve;
use netloom_service::status::to_status;
use netloom_service::{Connector, Endpoint, Shutdown};
use tokio::sync::broadcast;
use tonic::service::Routes;
use tonic::{Request, Status};

use self::compute::Compute;
use self::registry::Registry;
use self::scheduler::Scheduler;
use crate::fixture::{self, time};

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
    pub moved_nodes: Mutex<Vec<ps::MoveNodesRequest>>,
    pub changed_links: Mutex<Vec<ps::ChangeLinkRequest>>,
    /// Snapshots of every node.
    pub snapshots: Mutex<Vec<pc::DiskSnapshot>>,
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
    /// What DeleteImage and CollectGarbage were told of what labs use, and what CreateUpload was asked.
    pub users: Mutex<Vec<pr::ImageUser>>,
    pub uploads: Mutex<Vec<pr::Upload>>,
    /// What WriteUpload was sent: where the bytes begin, and they.
    pub written: Mutex<Vec<(u64, Vec<u8>)>>,
    /// Operations that were read.
    pub read_operations: std::sync::atomic::AtomicUsize,
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
            users: Mutex::default(),
            uploads: Mutex::default(),
            written: Mutex::default(),
            labs,
            nodes,
            links,
            script: Mutex::new(script),
            events: broadcast::channel(1024).0,
            applied: Mutex::default(),
            changed_nodes: Mutex::default(),
            moved_nodes: Mutex::default(),
            snapshots: Mutex::new(vec![pc::DiskSnapshot {
                id: "kept".into(),
                taken_ns: 1_700_000_000_000_000_000,
                size_bytes: 5 << 20,
                has_memory: true,
            }]),
            changed_links: Mutex::default(),
            parts: Mutex::default(),
            typed: Mutex::default(),
            broken: Mutex::default(),
            traces: Mutex::default(),
            watched: Default::default(),
            read_operations: Default::default(),
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

    /// Serves the scheduler there.
    pub async fn serve_scheduler(
        self: &Arc<World>,
        connector: &Connector,
        endpoint: &Endpoint,
        shutdown: &Shutdown,
    ) {
        let routes = Routes::new(SchedulerServiceServer::new(Scheduler(self.clone())));
        let (listener, shutdown) = (connector.listen(endpoint).await.unwrap(), shutdown.clone());
        tokio::spawn(async move {
            serve(listener, routes, "scheduler", netloom_proto::DESCRIPTORS, shutdown).await.unwrap();
        });
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
    let (kind, time) =
        (ps::EventKind::Changed.into(), netloom_proto::convert::timestamp(1_700_000_000_000_000));
    ps::WatchResponse { sequence, lab: lab.into(), kind, object: Some(object), time }
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
