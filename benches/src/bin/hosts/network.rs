//! The network service of a simulated host: it believes what it is told of wires, and looks at the host's compute service for which nodes run.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::Stream;
use futures::stream::unfold;
use netloom_proto::compute::v1 as pc;
use netloom_proto::compute::v1::compute_service_client::ComputeServiceClient;
use netloom_proto::compute::v1::compute_service_server::ComputeServiceServer;
use netloom_proto::network::v1 as p;
use netloom_proto::network::v1::network_service_server::{NetworkService, NetworkServiceServer};
use netloom_proto::v1::EvidenceSource;
use netloom_service::relay::Relay;
use netloom_service::server::{MAX_MESSAGE, serve};
use netloom_service::{Channel, Connector, Endpoint, Shutdown};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::server::NamedService as _;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

/// As of netloom's own.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Serves until shut down, at the host's one place: the network service itself, and the compute service by handing calls on to it.
pub async fn run(
    n: usize,
    front: Endpoint,
    compute: Endpoint,
    connector: Connector,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let host = Host { n, state: Arc::default(), version: Arc::new(watch::Sender::new(0)) };
    let listener = connector.listen(&front).await?;
    let service = NetworkServiceServer::new(host.clone()).max_decoding_message_size(MAX_MESSAGE);
    let name = NetworkServiceServer::<Host>::NAME;
    let relay: Relay<ComputeServiceServer<()>> = Relay::all(connector.channel(&compute));
    let routes = Routes::new(relay).add_service(service);
    tokio::try_join!(
        serve(listener, routes, name, netloom_proto::DESCRIPTORS, shutdown),
        host.look(connector.channel(&compute)),
    )?;
    Ok(())
}

#[derive(Clone)]
struct Host {
    n: usize,
    state: Arc<Mutex<State>>,
    version: Arc<watch::Sender<u64>>,
}

#[derive(Default)]
struct State {
    synced: bool,
    nics: BTreeMap<u64, p::Nic>,
    wires: BTreeMap<u64, p::Wire>,
    segments: BTreeMap<u64, p::Segment>,
    /// The start of each node that runs.
    runs: HashMap<String, String>,
}

impl State {
    fn add(&mut self, slice: p::Slice) {
        self.nics.extend(slice.nics.into_iter().map(|nic| (nic.wire_id, nic)));
        self.wires.extend(slice.wires.into_iter().map(|wire| (wire.wire_id, wire)));
        self.segments.extend(slice.segments.into_iter().map(|segment| (segment.wire_id, segment)));
    }

    fn saw(&mut self, instance: pc::Observed) {
        if instance.phase() == pc::Phase::Running {
            self.runs.insert(instance.uid, instance.start_id);
        } else {
            self.runs.remove(&instance.uid);
        }
    }

    fn changes(&self) -> p::Changes {
        p::Changes {
            nics: self.nics.values().map(|nic| self.nic(nic)).collect(),
            wires: self.wires.values().map(|wire| self.wire(wire)).collect(),
            segments: self.segments.keys().map(|id| segment(*id)).collect(),
        }
    }

    fn nic(&self, nic: &p::Nic) -> p::ObservedNic {
        let start = self.runs.get(&nic.node_uid);
        p::ObservedNic {
            wire_id: nic.wire_id,
            present: start.is_some(),
            start_id: start.cloned().unwrap_or_default(),
            carrier: start.is_some(),
            alive: start.is_some(),
            detail: String::new(),
        }
    }

    fn wire(&self, wire: &p::Wire) -> p::ObservedWire {
        use p::wire_end::End as E;
        let ends = [&wire.a, &wire.b].map(|end| end.as_ref().and_then(|e| e.end.as_ref()));
        let is_up = |end: &Option<&E>| match end {
            Some(E::Nic(id)) => self.nics.get(id).is_some_and(|nic| self.runs.contains_key(&nic.node_uid)),
            Some(E::Tunnel(tunnel)) => tunnel.remote_up,
            Some(E::Segment(id)) => self.segments.contains_key(id),
            other => other.is_some(),
        };
        let is_far_down = |end: &Option<&E>| matches!(end, Some(E::Tunnel(tunnel)) if !tunnel.remote_up);
        let state = match (wire.enabled, ends.iter().all(is_up), ends.iter().any(is_far_down)) {
            (true, true, _) => p::WireState::Up,
            (true, false, false) => p::WireState::Pending,
            _ => p::WireState::Down,
        };
        let end = match ends.iter().position(is_far_down) {
            Some(0) => p::End::A,
            Some(_) => p::End::B,
            None => p::End::Unspecified,
        };
        p::ObservedWire {
            wire_id: wire.wire_id,
            state: state.into(),
            detail: String::new(),
            plane: "kernel".to_owned(),
            plane_reason: "it is simulated".to_owned(),
            end: end.into(),
            sources: vec![EvidenceSource::Sim.into()],
        }
    }
}

fn segment(wire_id: u64) -> p::ObservedSegment {
    p::ObservedSegment {
        wire_id,
        state: p::WireState::Up.into(),
        detail: String::new(),
        sources: vec![EvidenceSource::Sim.into()],
    }
}

/// What of these is not in those.
fn changed<T: PartialEq + Clone>(before: &[T], now: &[T]) -> Vec<T> {
    now.iter().filter(|one| !before.contains(one)).cloned().collect()
}

impl Host {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    fn with(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.version.send_modify(|version| *version += 1);
    }

    /// Looks at the compute service for as long as it answers.
    async fn look(&self, compute: Channel) -> anyhow::Result<()> {
        use pc::observe_response::Event as E;
        let mut client = ComputeServiceClient::new(compute).max_decoding_message_size(MAX_MESSAGE);
        loop {
            let Ok(answer) = client.observe(pc::ObserveRequest {}).await else {
                tokio::time::sleep(HEARTBEAT).await;
                continue;
            };
            let mut events = answer.into_inner();
            while let Some(answer) = events.message().await? {
                match answer.event {
                    Some(E::Snapshot(all)) => self.with(|s| all.instances.into_iter().for_each(|i| s.saw(i))),
                    Some(E::Changed(one)) => self.with(|s| s.saw(one)),
                    Some(E::Gone(uid)) => self.with(|s| drop(s.runs.remove(&uid))),
                    Some(E::Heartbeat(_)) | None => {}
                }
            }
        }
    }

    fn inventory(&self) -> p::Inventory {
        p::Inventory {
            datapath: "system".to_owned(),
            plane: "kernel".to_owned(),
            underlay: Some(p::Underlay {
                address: format!("10.{}.{}.1", self.n / 256, self.n % 256),
                port: 4789,
                mtu: 9000,
            }),
            ..p::Inventory::default()
        }
    }

    fn snapshot(&self) -> (p::observe_response::Event, p::Changes) {
        let state = self.lock();
        let now = state.changes();
        let p::Changes { nics, wires, segments } = now.clone();
        let synced = state.synced;
        let inventory = Some(self.inventory());
        let snapshot =
            p::Snapshot { nics, wires, segments, inventory, synced, unwanted: Vec::new(), more: false };
        (p::observe_response::Event::Snapshot(snapshot), now)
    }
}

type Answer<T> = Result<Response<T>, Status>;
type Told<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn not_here() -> Status {
    Status::unimplemented("a simulated host has no interfaces")
}

#[tonic::async_trait]
impl NetworkService for Host {
    async fn sync(&self, request: Request<p::SyncRequest>) -> Answer<p::SyncResponse> {
        let request = request.into_inner();
        self.with(|state| {
            state.add(request.slice.unwrap_or_default());
            state.synced |= !request.more;
        });
        Ok(Response::new(p::SyncResponse {}))
    }

    async fn ensure(&self, request: Request<p::EnsureRequest>) -> Answer<p::EnsureResponse> {
        self.with(|state| state.add(request.into_inner().slice.unwrap_or_default()));
        Ok(Response::new(p::EnsureResponse {}))
    }

    async fn remove(&self, request: Request<p::RemoveRequest>) -> Answer<p::RemoveResponse> {
        self.with(|state| {
            for id in request.into_inner().wire_ids {
                state.nics.remove(&id);
                state.wires.remove(&id);
                state.segments.remove(&id);
            }
        });
        Ok(Response::new(p::RemoveResponse::default()))
    }

    type ObserveStream = Told<p::ObserveResponse>;

    async fn observe(&self, _: Request<p::ObserveRequest>) -> Answer<Self::ObserveStream> {
        let mut version = self.version.subscribe();
        version.mark_unchanged();
        let (snapshot, told) = self.snapshot();
        let start = (self.clone(), version, told, VecDeque::from([snapshot]), Instant::now() + HEARTBEAT);
        let events = unfold(start, |(host, mut version, mut told, mut ready, mut beat)| async move {
            loop {
                if let Some(event) = ready.pop_front() {
                    let answer = p::ObserveResponse { event: Some(event) };
                    return Some((Ok(answer), (host, version, told, ready, beat)));
                }
                if tokio::time::timeout_at(beat, version.changed()).await.is_err() {
                    beat = Instant::now() + HEARTBEAT;
                    ready.push_back(p::observe_response::Event::Heartbeat(p::Heartbeat::default()));
                    continue;
                }
                let now = host.lock().changes();
                let changes = p::Changes {
                    nics: changed(&told.nics, &now.nics),
                    wires: changed(&told.wires, &now.wires),
                    segments: changed(&told.segments, &now.segments),
                };
                told = now;
                if changes != p::Changes::default() {
                    ready.push_back(p::observe_response::Event::Changes(changes));
                }
            }
        });
        Ok(Response::new(Box::pin(events)))
    }

    type CaptureStream = Told<p::CaptureResponse>;

    async fn capture(&self, _: Request<p::CaptureRequest>) -> Answer<Self::CaptureStream> {
        Err(not_here())
    }

    async fn end_capture(&self, _: Request<p::EndCaptureRequest>) -> Answer<p::EndCaptureResponse> {
        Err(not_here())
    }

    type WatchFramesStream = Told<p::WatchFramesResponse>;

    async fn watch_frames(&self, _: Request<p::WatchFramesRequest>) -> Answer<Self::WatchFramesStream> {
        Err(not_here())
    }

    async fn send_frames(&self, _: Request<p::SendFramesRequest>) -> Answer<p::SendFramesResponse> {
        Err(not_here())
    }

    async fn set_peers(&self, _: Request<p::SetPeersRequest>) -> Answer<p::SetPeersResponse> {
        Ok(Response::new(p::SetPeersResponse {}))
    }
}
