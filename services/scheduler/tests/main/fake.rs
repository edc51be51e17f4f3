//! A host and a registry in memory: they do at once what they are told, unless a test says otherwise, and write down what they were told.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::Stream;
use netloom_model::failure::{Code, Failure};
use netloom_model::observed::{ExecPhase, Phase};
use netloom_model::state::Runtime;
use netloom_proto::compute::v1 as pc;
use netloom_proto::compute::v1::compute_service_server::{ComputeService, ComputeServiceServer};
use netloom_proto::image_registry::v1 as pi;
use netloom_proto::image_registry::v1::image_registry_service_server::{
    ImageRegistryService, ImageRegistryServiceServer,
};
use netloom_proto::network::v1 as pn;
use netloom_proto::network::v1::network_service_server::{NetworkService, NetworkServiceServer};
use netloom_proto::v1 as p;
use netloom_service::server::serve;
use netloom_service::status::to_status;
use netloom_service::{Connector, Endpoint, Shutdown};
use prost::Message as _;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

/// An instance that exists on the fake host.
#[derive(Clone, PartialEq, Debug)]
pub struct Existing {
    pub lab_uid: String,
    pub node: String,
    pub spec_hash: String,
    pub start: String,
    pub phase: Phase,
    pub exec: ExecPhase,
}

/// All that the fake host knows.
#[derive(Default)]
pub struct State {
    pub term: u64,
    pub calls: Vec<String>,
    /// False: nothing is answered and no heartbeat comes.
    pub silent: bool,
    pub synced: bool,
    pub wanted: BTreeMap<String, pc::Instance>,
    pub exists: BTreeMap<String, Existing>,
    pub nics: BTreeMap<u64, pn::Nic>,
    pub wires: BTreeMap<u64, pn::Wire>,
    pub segments: BTreeMap<u64, pn::Segment>,
    pub files: BTreeMap<String, Vec<u8>>,
    pub images: BTreeSet<String>,
    pub pullable: BTreeSet<String>,
    /// Nodes that are made but never run.
    pub broken: BTreeSet<String>,
    /// True: nothing more is made.
    pub hold: bool,
    /// True: wires never come up.
    pub unplugged: bool,
    pub cpu_millis: u64,
    pub memory_bytes: u64,
    pub ticket_key: Vec<u8>,
    pub largest_message: usize,
}

/// A fake host.
#[derive(Clone)]
pub struct Host {
    pub state: Arc<Mutex<State>>,
    version: Arc<watch::Sender<u64>>,
    pub name: String,
}

impl Host {
    pub fn new(name: &str) -> Host {
        let state = State {
            images: ["linux:1".to_owned(), "netloom/frr:local".to_owned()].into(),
            cpu_millis: 4_000,
            memory_bytes: 8 << 30,
            ..State::default()
        };
        Host { state: Arc::new(Mutex::new(state)), version: Arc::new(watch::Sender::new(0)), name: name.into() }
    }

    pub fn endpoint(&self, service: &str) -> Endpoint {
        format!("mem:{service}-{}", self.name).parse().unwrap()
    }

    /// Serves both services until shut down.
    pub async fn serve(&self, connector: &Connector, shutdown: &Shutdown) {
        let routes = Routes::new(ComputeServiceServer::new(self.clone()));
        let listener = connector.listen(&self.endpoint("compute")).await.unwrap();
        tokio::spawn(serve(listener, routes, "compute", netloom_proto::DESCRIPTORS, shutdown.clone()));
        let routes = Routes::new(NetworkServiceServer::new(self.clone()));
        let listener = connector.listen(&self.endpoint("network")).await.unwrap();
        tokio::spawn(serve(listener, routes, "network", netloom_proto::DESCRIPTORS, shutdown.clone()));
    }

    /// Changes the state, lets the host act on it, and tells who observes.
    pub fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap();
        let result = change(&mut state);
        state.act();
        drop(state);
        self.version.send_modify(|v| *v += 1);
        result
    }

    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock().unwrap())
    }

    /// How often a call was made.
    pub fn count(&self, call: &str) -> usize {
        self.read(|s| s.calls.iter().filter(|c| c.as_str() == call).count())
    }

    /// Names of the nodes that run.
    pub fn running(&self) -> Vec<String> {
        let mut names: Vec<String> = self.read(|s| {
            s.exists.values().filter(|e| e.phase == Phase::Running).map(|e| e.node.clone()).collect()
        });
        names.sort();
        names
    }

    fn called(&self, call: &str, term: Option<u64>, bytes: usize) -> Result<(), Status> {
        let mut state = self.state.lock().unwrap();
        if state.silent {
            return Err(Status::unavailable("silent"));
        }
        state.calls.push(call.to_owned());
        state.largest_message = state.largest_message.max(bytes);
        if let Some(term) = term {
            if term < state.term {
                return Err(to_status(Failure::new(Code::FailedPrecondition, "STALE_TERM", "stale")));
            }
            state.term = term;
        }
        Ok(())
    }
}

impl State {
    /// Makes what is wanted and does not exist, and makes anew what exists otherwise.
    fn act(&mut self) {
        if self.hold || !self.synced {
            return;
        }
        for (uid, wanted) in &self.wanted {
            let same = self.exists.get(uid).is_some_and(|e| e.spec_hash == wanted.spec_hash);
            if same {
                continue;
            }
            let node = wanted.spec.clone().unwrap_or_default().id;
            let broken = self.broken.contains(&node);
            let existing = Existing {
                lab_uid: wanted.lab_uid.clone(),
                spec_hash: wanted.spec_hash.clone(),
                start: if broken { String::new() } else { uuid::Uuid::now_v7().to_string() },
                phase: if broken { Phase::Failed } else { Phase::Running },
                exec: if broken { ExecPhase::None } else { ExecPhase::Waiting },
                node,
            };
            self.exists.insert(uid.clone(), existing);
        }
    }

    /// The process of a node ends and is started again.
    pub fn restart(&mut self, node: &str) {
        for e in self.exists.values_mut().filter(|e| e.node == node) {
            e.start = uuid::Uuid::now_v7().to_string();
            e.exec = ExecPhase::Waiting;
        }
    }

    fn observed(&self) -> BTreeMap<String, pc::Observed> {
        let mut all = BTreeMap::new();
        for (uid, wanted) in &self.wanted {
            let absent = pc::Observed {
                uid: uid.clone(),
                lab_uid: wanted.lab_uid.clone(),
                phase: pc::Phase::Absent.into(),
                wanted: true,
                ..pc::Observed::default()
            };
            all.insert(uid.clone(), absent);
        }
        for (uid, e) in &self.exists {
            let observed = pc::Observed {
                uid: uid.clone(),
                lab_uid: e.lab_uid.clone(),
                phase: pc::Phase::from(e.phase).into(),
                start_id: e.start.clone(),
                spec_hash: e.spec_hash.clone(),
                exec_phase: pc::ExecPhase::from(e.exec).into(),
                detail: if e.phase == Phase::Failed { "it is broken".into() } else { String::new() },
                wanted: self.wanted.contains_key(uid),
                ..pc::Observed::default()
            };
            all.insert(uid.clone(), observed);
        }
        all
    }

    fn inventory(&self) -> pc::Inventory {
        pc::Inventory {
            cpu_millis: self.cpu_millis,
            memory_bytes: self.memory_bytes,
            runtimes: vec![p::Runtime::from(Runtime::Docker).into()],
            ..pc::Inventory::default()
        }
    }

    fn observed_nics(&self) -> BTreeMap<u64, pn::ObservedNic> {
        let nic = |n: &pn::Nic| {
            let running = self.exists.get(&n.node_uid).filter(|e| e.phase == Phase::Running);
            pn::ObservedNic {
                wire_id: n.wire_id,
                present: running.is_some(),
                start_id: running.map(|e| e.start.clone()).unwrap_or_default(),
                carrier: running.is_some(),
                detail: String::new(),
            }
        };
        self.nics.values().map(|n| (n.wire_id, nic(n))).collect()
    }

    fn observed_wires(&self) -> BTreeMap<u64, pn::ObservedWire> {
        let nics = self.observed_nics();
        let up = |end: &Option<pn::WireEnd>| match end.as_ref().and_then(|e| e.end.as_ref()) {
            Some(pn::wire_end::End::Nic(id)) => nics.get(id).is_some_and(|n| n.present),
            Some(pn::wire_end::End::Segment(id)) => self.segments.contains_key(id),
            None => false,
        };
        let wire = |w: &pn::Wire| {
            let state = match (self.unplugged, up(&w.a) && up(&w.b)) {
                (true, _) => pn::WireState::Down,
                (false, true) => pn::WireState::Up,
                (false, false) => pn::WireState::Pending,
            };
            pn::ObservedWire { wire_id: w.wire_id, state: state.into(), detail: String::new(), plane: "ovs".into() }
        };
        self.wires.values().map(|w| (w.wire_id, wire(w))).collect()
    }

    fn observed_segments(&self) -> BTreeMap<u64, pn::ObservedSegment> {
        let segment = |s: &pn::Segment| pn::ObservedSegment { wire_id: s.wire_id, up: true, detail: String::new() };
        self.segments.values().map(|s| (s.wire_id, segment(s))).collect()
    }
}

fn changed<K: Ord + Clone, V: PartialEq + Clone>(old: &BTreeMap<K, V>, new: &BTreeMap<K, V>) -> Vec<V> {
    new.iter().filter(|(k, v)| old.get(*k) != Some(*v)).map(|(_, v)| v.clone()).collect()
}

const HEARTBEAT: Duration = Duration::from_millis(100);

type Answer<T> = Result<Response<T>, Status>;
type Stream_<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A stream that looks at the host at each change, and once each heartbeat although nothing changed; a silent host says nothing.
fn observe<T: Send + 'static, S: Default + Send + 'static>(
    host: Host,
    look: impl Fn(&State, &mut S, bool) -> Vec<T> + Send + Sync + Copy + 'static,
) -> Stream_<T> {
    let mut version = host.version.subscribe();
    version.mark_changed();
    let start = (host, version, S::default(), std::collections::VecDeque::new());
    Box::pin(futures::stream::unfold(start, move |(host, mut version, mut seen, mut ready)| async move {
        loop {
            if let Some(message) = ready.pop_front() {
                return Some((Ok(message), (host, version, seen, ready)));
            }
            let due = tokio::time::timeout(HEARTBEAT, version.changed()).await.is_err();
            let state = host.state.lock().unwrap();
            if !state.silent {
                ready.extend(look(&state, &mut seen, due));
            }
        }
    }))
}

#[tonic::async_trait]
impl ComputeService for Host {
    async fn sync(&self, request: Request<pc::SyncRequest>) -> Answer<pc::SyncResponse> {
        let request = request.into_inner();
        self.called("compute.sync", Some(request.term), request.encoded_len())?;
        self.with(|s| {
            s.wanted = request.instances.into_iter().map(|i| (i.uid.clone(), i)).collect();
            s.ticket_key = request.ticket_key;
            s.synced = true;
        });
        Ok(Response::new(pc::SyncResponse {}))
    }

    async fn ensure(&self, request: Request<pc::EnsureRequest>) -> Answer<pc::EnsureResponse> {
        let request = request.into_inner();
        self.called("compute.ensure", Some(request.term), request.encoded_len())?;
        self.with(|s| s.wanted.extend(request.instances.into_iter().map(|i| (i.uid.clone(), i))));
        Ok(Response::new(pc::EnsureResponse {}))
    }

    async fn remove(&self, request: Request<pc::RemoveRequest>) -> Answer<pc::RemoveResponse> {
        let request = request.into_inner();
        self.called("compute.remove", Some(request.term), request.encoded_len())?;
        self.with(|s| {
            for uid in &request.uids {
                s.wanted.remove(uid);
                s.exists.remove(uid);
            }
            for lab in &request.lab_uids {
                s.calls.push(format!("lab gone {lab}"));
            }
        });
        Ok(Response::new(pc::RemoveResponse::default()))
    }

    async fn settle(&self, request: Request<pc::SettleRequest>) -> Answer<pc::SettleResponse> {
        let request = request.into_inner();
        self.called("compute.settle", Some(request.term), 0)?;
        self.with(|s| {
            for start in request.starts {
                if let Some(e) = s.exists.get_mut(&start.uid).filter(|e| e.start == start.start_id) {
                    e.exec = ExecPhase::Done;
                    s.calls.push(format!("settled {}", e.node));
                }
            }
        });
        Ok(Response::new(pc::SettleResponse {}))
    }

    type ObserveStream = Stream_<pc::ObserveResponse>;

    async fn observe(&self, _: Request<pc::ObserveRequest>) -> Answer<Self::ObserveStream> {
        self.called("compute.observe", None, 0)?;
        use pc::observe_response::Event as E;
        let message = |event| pc::ObserveResponse { event: Some(event) };
        type Seen = Option<(BTreeMap<String, pc::Observed>, pc::Inventory, bool)>;
        let look = move |s: &State, seen: &mut Seen, due: bool| {
            let now = (s.observed(), s.inventory(), s.synced);
            let messages = match seen {
                Some((old, inventory, synced)) if *synced <= s.synced => {
                    let gone = old.keys().filter(|k| !now.0.contains_key(*k)).cloned().map(E::Gone);
                    let events = changed(old, &now.0).into_iter().map(E::Changed).chain(gone);
                    let news = (*inventory != now.1).then(|| now.1.clone());
                    let beat = (due || news.is_some()).then_some(E::Heartbeat(pc::Heartbeat { inventory: news }));
                    events.chain(beat).collect::<Vec<_>>()
                }
                _ => vec![E::Snapshot(pc::Snapshot {
                    instances: now.0.values().cloned().collect(),
                    inventory: Some(now.1.clone()),
                    synced: s.synced,
                })],
            };
            *seen = Some(now);
            messages.into_iter().map(message).collect()
        };
        Ok(Response::new(observe(self.clone(), look)))
    }

    async fn put_files(&self, request: Request<Streaming<pc::PutFilesRequest>>) -> Answer<pc::PutFilesResponse> {
        self.called("compute.put_files", None, 0)?;
        let mut parts = request.into_inner();
        while let Some(part) = parts.message().await? {
            self.called("file part", Some(part.term), part.encoded_len())?;
            let path = part.file.unwrap_or_default().path;
            self.with(|s| s.files.entry(path).or_default().extend(part.content));
        }
        Ok(Response::new(pc::PutFilesResponse::default()))
    }

    async fn inspect_images(
        &self,
        request: Request<pc::InspectImagesRequest>,
    ) -> Answer<pc::InspectImagesResponse> {
        self.called("compute.inspect_images", None, 0)?;
        let facts = |q: pc::ImageQuery| pc::ImageFacts {
            present: self.read(|s| s.images.contains(&q.reference)),
            reference: q.reference,
            runtime: q.runtime,
            ..pc::ImageFacts::default()
        };
        let images = request.into_inner().images.into_iter().map(facts).collect();
        Ok(Response::new(pc::InspectImagesResponse { images }))
    }

    type PullImageStream = Stream_<pc::PullImageResponse>;

    async fn pull_image(&self, request: Request<pc::PullImageRequest>) -> Answer<Self::PullImageStream> {
        use pc::pull_image_response::Event as E;
        let request = request.into_inner();
        self.called("compute.pull_image", Some(request.term), 0)?;
        let reference = request.reference;
        if !self.read(|s| s.pullable.contains(&reference)) {
            let why = format!("{reference}: not found upstream");
            return Err(to_status(Failure::new(Code::Unavailable, "PULL_FAILED", why)));
        }
        self.with(|s| s.images.insert(reference.clone()));
        let facts = pc::ImageFacts { reference, runtime: request.runtime, present: true, ..pc::ImageFacts::default() };
        let events = [E::Progress("half of it".into()), E::Done(facts)];
        let events = events.map(|event| Ok(pc::PullImageResponse { event: Some(event) }));
        Ok(Response::new(Box::pin(futures::stream::iter(events))))
    }

    type ExecStream = Stream_<pc::ExecResponse>;

    async fn exec(&self, _: Request<Streaming<pc::ExecRequest>>) -> Answer<Self::ExecStream> {
        Err(Status::unimplemented("not part of these tests"))
    }

    type LogsStream = Stream_<pc::LogsResponse>;

    async fn logs(&self, _: Request<pc::LogsRequest>) -> Answer<Self::LogsStream> {
        Err(Status::unimplemented("not part of these tests"))
    }
}

#[tonic::async_trait]
impl NetworkService for Host {
    async fn sync(&self, request: Request<pn::SyncRequest>) -> Answer<pn::SyncResponse> {
        let request = request.into_inner();
        self.called("network.sync", Some(request.term), request.encoded_len())?;
        let slice = request.slice.unwrap_or_default();
        self.with(|s| {
            s.nics = slice.nics.into_iter().map(|n| (n.wire_id, n)).collect();
            s.wires = slice.wires.into_iter().map(|w| (w.wire_id, w)).collect();
            s.segments = slice.segments.into_iter().map(|x| (x.wire_id, x)).collect();
        });
        Ok(Response::new(pn::SyncResponse {}))
    }

    async fn ensure(&self, request: Request<pn::EnsureRequest>) -> Answer<pn::EnsureResponse> {
        let request = request.into_inner();
        self.called("network.ensure", Some(request.term), request.encoded_len())?;
        let slice = request.slice.unwrap_or_default();
        self.with(|s| {
            s.nics.extend(slice.nics.into_iter().map(|n| (n.wire_id, n)));
            s.wires.extend(slice.wires.into_iter().map(|w| (w.wire_id, w)));
            s.segments.extend(slice.segments.into_iter().map(|x| (x.wire_id, x)));
        });
        Ok(Response::new(pn::EnsureResponse {}))
    }

    async fn remove(&self, request: Request<pn::RemoveRequest>) -> Answer<pn::RemoveResponse> {
        let request = request.into_inner();
        self.called("network.remove", Some(request.term), request.encoded_len())?;
        self.with(|s| {
            for id in &request.wire_ids {
                s.nics.remove(id);
                s.wires.remove(id);
                s.segments.remove(id);
            }
        });
        Ok(Response::new(pn::RemoveResponse::default()))
    }

    type ObserveStream = Stream_<pn::ObserveResponse>;

    async fn observe(&self, _: Request<pn::ObserveRequest>) -> Answer<Self::ObserveStream> {
        self.called("network.observe", None, 0)?;
        use pn::observe_response::Event as E;
        type Seen = Option<(
            BTreeMap<u64, pn::ObservedNic>,
            BTreeMap<u64, pn::ObservedWire>,
            BTreeMap<u64, pn::ObservedSegment>,
        )>;
        let look = move |s: &State, seen: &mut Seen, due: bool| {
            let now = (s.observed_nics(), s.observed_wires(), s.observed_segments());
            let event = match seen {
                Some((nics, wires, segments)) => {
                    let changes = pn::Changes {
                        nics: changed(nics, &now.0),
                        wires: changed(wires, &now.1),
                        segments: changed(segments, &now.2),
                    };
                    match (changes == pn::Changes::default(), due) {
                        (false, _) => Some(E::Changes(changes)),
                        (true, true) => Some(E::Heartbeat(pn::Heartbeat::default())),
                        (true, false) => None,
                    }
                }
                None => Some(E::Snapshot(pn::Snapshot {
                    nics: now.0.values().cloned().collect(),
                    wires: now.1.values().cloned().collect(),
                    segments: now.2.values().cloned().collect(),
                    inventory: Some(pn::Inventory { datapath: "system".into(), ..pn::Inventory::default() }),
                    synced: s.synced,
                    unwanted: Vec::new(),
                })),
            };
            *seen = Some(now);
            event.map(|event| pn::ObserveResponse { event: Some(event) }).into_iter().collect()
        };
        Ok(Response::new(observe(self.clone(), look)))
    }
}

/// A registry that believes what hosts said.
#[derive(Clone, Default)]
pub struct Registry {
    present: Arc<Mutex<BTreeMap<(String, String), bool>>>,
}

impl Registry {
    pub async fn serve(&self, connector: &Connector, endpoint: &Endpoint, shutdown: &Shutdown) {
        let routes = Routes::new(ImageRegistryServiceServer::new(self.clone()));
        let listener = connector.listen(endpoint).await.unwrap();
        tokio::spawn(serve(listener, routes, "registry", netloom_proto::DESCRIPTORS, shutdown.clone()));
    }
}

#[tonic::async_trait]
impl ImageRegistryService for Registry {
    async fn record_presence(
        &self,
        request: Request<pi::RecordPresenceRequest>,
    ) -> Answer<pi::RecordPresenceResponse> {
        let request = request.into_inner();
        for image in request.images {
            let present = image.presence.is_some_and(|p| p.present);
            self.present.lock().unwrap().insert((request.host.clone(), image.reference), present);
        }
        Ok(Response::new(pi::RecordPresenceResponse {}))
    }

    async fn validate_images(
        &self,
        request: Request<pi::ValidateImagesRequest>,
    ) -> Answer<pi::ValidateImagesResponse> {
        let present = self.present.lock().unwrap();
        let verdict = |u: pi::ImageUse| {
            let there = present.get(&(u.host.clone(), u.reference.clone())).copied().unwrap_or(false);
            match (there, u.pull_policy()) {
                (true, _) => pi::ImageVerdict { decision: pi::ImageDecision::Use.into(), ..Default::default() },
                (false, p::ImagePullPolicy::Never) => pi::ImageVerdict {
                    decision: pi::ImageDecision::Refuse.into(),
                    reason: "IMAGE_MISSING".into(),
                    message: format!("node {}: image {} is not on host {}", u.node, u.reference, u.host),
                    ..Default::default()
                },
                (false, _) => pi::ImageVerdict { decision: pi::ImageDecision::Pull.into(), ..Default::default() },
            }
        };
        let verdicts = request.into_inner().uses.into_iter().map(verdict).collect();
        Ok(Response::new(pi::ValidateImagesResponse { verdicts }))
    }

    async fn list_images(&self, _: Request<pi::ListImagesRequest>) -> Answer<pi::ListImagesResponse> {
        Err(Status::unimplemented("not part of these tests"))
    }

    async fn get_image(&self, _: Request<pi::GetImageRequest>) -> Answer<pi::Image> {
        Err(Status::unimplemented("not part of these tests"))
    }
}
