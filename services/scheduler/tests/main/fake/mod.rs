//! A host and a registry in memory: they do at once what they are told, unless a test says otherwise, and write down what they were told.

mod compute;
mod network;
mod registry;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::Stream;
use netloom_model::failure::{Code, Failure};
use netloom_model::observed::{ExecPhase, NEEDS_IMAGE, Phase};
use netloom_model::state::Runtime;
use netloom_proto::compute::v1 as pc;
use netloom_proto::compute::v1::compute_service_server::ComputeServiceServer;
use netloom_proto::network::v1 as pn;
use netloom_proto::network::v1::network_service_server::NetworkServiceServer;
use netloom_proto::v1 as p;
use netloom_service::order::{Order, Overtaken};
use netloom_service::server::serve;
use netloom_service::status::to_status;
use netloom_service::{Connector, Endpoint, Shutdown};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::service::Routes;
use tonic::{Response, Status};

pub use self::registry::Registry;

/// An instance that exists on the fake host.
#[derive(Clone, PartialEq, Debug)]
pub struct Existing {
    /// Names it among all that were ever made.
    pub id: String,
    pub lab_uid: String,
    pub node: String,
    pub spec_hash: String,
    pub start: String,
    pub phase: Phase,
    pub exec: ExecPhase,
    pub exit_code: Option<i32>,
    pub restarts: u64,
    pub exited: bool,
    /// Points that this start was told to have reached.
    pub reached: Vec<pc::StagePoint>,
    /// `exec` commands that ran in this start.
    pub ran: Vec<String>,
}

/// All that the fake host knows.
#[derive(Default)]
pub struct State {
    pub term: u64,
    pub calls: Vec<String>,
    /// False: nothing is answered and no heartbeat comes.
    pub silent: bool,
    /// True: calls are answered, and streams say nothing.
    pub mute: bool,
    pub synced: bool,
    /// What passed so far of calls that say something of instances and labs, and of wires.
    pub instance_order: Order<String>,
    pub wire_order: Order<u64>,
    pub wanted: BTreeMap<String, pc::Instance>,
    pub exists: BTreeMap<String, Existing>,
    pub nics: BTreeMap<u64, pn::Nic>,
    pub wires: BTreeMap<u64, pn::Wire>,
    pub segments: BTreeMap<u64, pn::Segment>,
    /// Wires that exist and are in no slice.
    pub leftovers: BTreeSet<u64>,
    pub files: BTreeMap<String, Vec<u8>>,
    pub images: BTreeSet<String>,
    pub pullable: BTreeSet<String>,
    /// True: names mean other images here than elsewhere.
    pub pulls_others: bool,
    /// True: images that are being fetched do not come.
    pub hold_pulls: bool,
    /// True: which images there are is not said yet.
    pub hold_images: bool,
    /// True: nobody answers when it is asked which images there are.
    pub hides_images: bool,
    /// True: the host does not reach the image registry.
    pub no_registry: bool,
    /// So many fetches end as when their service dies meanwhile.
    pub cut_pulls: usize,
    /// Pulls that are refused for these reasons, one after the other.
    pub refused_pulls: Vec<&'static str>,
    /// Ports of the host that somebody else has.
    pub taken_ports: BTreeSet<u32>,
    /// Nodes whose disk lies on an image that is gone, with its digest.
    pub lost_images: BTreeMap<String, String>,
    /// Images whose copy here is something else, by digest: found when they are compared, and then fetched again.
    pub spoiled_images: BTreeSet<String>,
    /// Images that this host says it has set aside.
    pub aside_images: BTreeSet<String>,
    /// Nodes that are made but never run.
    pub broken: BTreeSet<String>,
    /// Nodes whose process ends by itself, with this code, and stays so.
    pub ends: BTreeMap<String, i32>,
    /// What health checks of nodes say.
    pub health: BTreeMap<String, String>,
    pub devices: Vec<String>,
    pub capabilities: Vec<String>,
    pub host_network: bool,
    pub impairments: Vec<String>,
    pub host_interfaces: bool,
    pub uplinks: Vec<p::HostUplink>,
    /// Why no Ensure of wires is taken; empty when it is.
    pub refuses_wires: String,
    /// True: bridges are being made.
    pub slow_segments: bool,
    /// How many deploys were said to have succeeded with the last files.
    pub deploys: u64,
    /// True: files that were sent are not written yet.
    pub hold_files: bool,
    /// True: of files that are sent only half is written.
    pub cuts_files: bool,
    /// Why the rest of a lab cannot be removed.
    pub stuck: String,
    /// True: nothing more is made.
    pub hold: bool,
    /// True: nothing more is set aside.
    pub hold_aside: bool,
    /// True: nothing is removed.
    pub hold_removals: bool,
    /// True: no instance can be removed.
    pub busy: bool,
    /// Nodes with an environment variable of such a name never run.
    pub crashes: BTreeSet<String>,
    /// True: Docker does not answer.
    pub docker_down: bool,
    /// True: no wire can be removed.
    pub hold_wires: bool,
    /// True: libvirt answers, too.
    pub machines: bool,
    /// What virtual machines run on, and why they are emulated.
    pub acceleration: (p::Acceleration, &'static str),
    /// What was written on the disks of virtual machines: the node that a disk was made for, then each start.
    pub disks: BTreeMap<String, Vec<String>>,
    /// Nodes that were removed: no disk is taken for them any more.
    pub removed: BTreeSet<String>,
    /// True: of disks that are read only the beginning comes.
    pub hold_disks: bool,
    /// So many disks that are written break off.
    pub cut_disks: usize,
    /// Why no disk is taken; empty when they are.
    pub refuses_disks: String,
    /// Where tunnels to other hosts begin.
    pub underlay: Option<pn::Underlay>,
    /// Nodes whose interfaces are set down.
    pub down: BTreeSet<String>,
    /// True: wires never come up.
    pub unplugged: bool,
    /// Hosts that it was told to measure the paths to.
    pub peers: Vec<String>,
    /// What it measured.
    pub paths: Vec<pn::PathMtu>,
    /// Marked frames that were sent.
    pub frames: Vec<pn::SendFramesRequest>,
    /// True: no interface takes frames.
    pub takes_no_frames: bool,
    /// How far its clock is ahead.
    pub ahead_us: i64,
    /// True: each call takes ten seconds.
    pub slow: bool,
    /// When the machine started: what is said with each word of it is counted from there. None: it keeps no leases, as a host of an earlier version.
    pub began: Option<Instant>,
    /// How often the machine started again.
    pub boots: u64,
    /// What was read before then is refused.
    pub since: Option<Instant>,
    /// Leases by uid, in seconds, which it knows whatever starts again.
    pub leases: BTreeMap<String, u32>,
    /// From when they go on; none: they are over.
    pub renewed: Option<Instant>,
    /// Instances whose lease is over.
    pub over: BTreeSet<String>,
    /// Instances that were stopped for that.
    pub lapsed: BTreeSet<String>,
    pub cpu_millis: u64,
    pub memory_bytes: u64,
    /// None: it does not tell, as a host of an earlier version.
    pub disk_bytes: Option<u64>,
    pub ticket_key: Vec<u8>,
    pub largest_message: usize,
}

/// A fake host.
#[derive(Clone)]
pub struct Host {
    pub state: Arc<Mutex<State>>,
    version: Arc<watch::Sender<u64>>,
    pub name: String,
    /// How often it says that it is still there.
    pub heartbeat: Duration,
}

/// How often a host looks which leases are over.
const LEASES: Duration = Duration::from_millis(500);

impl Host {
    pub fn new(name: &str) -> Host {
        let state = State {
            began: Some(Instant::now()),
            images: ["linux:1".to_owned(), "netloom/frr:local".to_owned()].into(),
            capabilities: ["NET_ADMIN", "NET_RAW", "SYS_ADMIN"].map(str::to_owned).into(),
            cpu_millis: 4_000,
            memory_bytes: 8 << 30,
            underlay: Some(pn::Underlay {
                address: format!("192.0.2.{}", name.trim_start_matches(|c: char| !c.is_ascii_digit())),
                port: 4789,
                mtu: 1_450,
            }),
            ..State::default()
        };
        let host = Host {
            state: Arc::new(Mutex::new(state)),
            version: Arc::new(watch::Sender::new(0)),
            name: name.into(),
            heartbeat: Duration::from_millis(100),
        };
        let (state, version) = (Arc::downgrade(&host.state), host.version.clone());
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LEASES).await;
                let Some(state) = state.upgrade() else { return };
                if state.lock().unwrap().look_at_leases() {
                    version.send_modify(|v| *v += 1);
                }
            }
        });
        host
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

    async fn called(&self, call: &str, term: Option<u64>, bytes: usize) -> Result<(), Status> {
        let begun = Instant::now();
        let mut version = self.version.subscribe();
        while self.read(|s| s.slow) && begun.elapsed() < SLOW {
            let _ = tokio::time::timeout_at(begun + SLOW, version.changed()).await;
        }
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

impl Existing {
    fn begin(&mut self) {
        self.start = uuid::Uuid::now_v7().to_string();
        self.exec = ExecPhase::Waiting;
        self.reached = Vec::new();
        self.ran = Vec::new();
    }

    /// Runs the `exec` commands that did not run yet, once they may.
    fn run(&mut self, calls: &mut Vec<String>, wanted: &pc::Instance) {
        let may = self.reached.iter().any(|p| p.stage() == p::Stage::Configure && !p.on_exit);
        for command in wanted.spec.iter().flat_map(|s| &s.exec).filter(|_| may) {
            if !self.ran.contains(command) {
                self.ran.push(command.clone());
                calls.push(format!("exec {} {command}", self.node));
            }
        }
    }
}

/// What a call that was decided too early is told.
pub fn overtaken(_: Overtaken) -> Status {
    to_status(Failure::new(Code::Aborted, "OVERTAKEN", "that is old"))
}

impl State {
    /// What is said with each word of it.
    fn beat(&self) -> String {
        self.began.map_or_else(String::new, |began| format!("{}/{}", self.boots, began.elapsed().as_millis()))
    }

    /// When this was said; none where it was not since this machine started.
    fn said(&self, beat: &str) -> Option<Instant> {
        let (boot, at) = beat.split_once('/')?;
        let said = self.began? + Duration::from_millis(at.parse().ok()?);
        (boot.parse() == Ok(self.boots) && said <= Instant::now()).then_some(said)
    }

    /// Takes leases as they are told; what was read before it lost leases, or before what it was told since, is refused.
    fn keep_leases(&mut self, beat: &str, instances: &[pc::Instance], all: bool) -> Result<(), Status> {
        if self.began.is_none() {
            return Ok(());
        }
        let said = self.said(beat);
        let has_leases = !self.leases.is_empty() || instances.iter().any(|i| i.lease.is_some());
        if has_leases && (said.is_none() || said < self.since) {
            return Err(overtaken(Overtaken));
        }
        if all {
            self.leases.clear();
            self.since = self.since.max(said);
        }
        for i in instances {
            match i.lease {
                None => drop(self.leases.remove(&i.uid)),
                Some(lease) => drop(self.leases.insert(i.uid.clone(), lease.seconds)),
            }
        }
        self.look_at_leases();
        Ok(())
    }

    /// Stops what has no lease any more; says whether anything is other than before. What it has to run is not known once leases go on, until it is told all.
    fn look_at_leases(&mut self) -> bool {
        let is_over = |seconds: &u32| {
            self.renewed.is_none_or(|at| at.elapsed() > Duration::from_secs((*seconds).into()))
        };
        let over: BTreeSet<String> =
            self.leases.iter().filter(|(_, seconds)| is_over(seconds)).map(|(uid, _)| uid.clone()).collect();
        if over == self.over {
            return false;
        }
        if self.over.iter().any(|uid| !over.contains(uid) && self.wanted.contains_key(uid)) {
            self.synced = false;
        }
        for (uid, e) in self.exists.iter_mut().filter(|(uid, _)| over.contains(*uid)) {
            if e.phase == Phase::Running {
                (e.phase, e.start, e.exec) = (Phase::Stopped, String::new(), ExecPhase::None);
                self.calls.push(format!("lease of {} is over", e.node));
                self.lapsed.insert(uid.clone());
            }
        }
        self.over = over;
        true
    }

    /// Makes what is wanted and does not exist, and makes anew what exists otherwise.
    fn act(&mut self) {
        if !self.synced {
            return;
        }
        for (uid, wanted) in &self.wanted {
            if self.over.contains(uid) {
                continue;
            }
            let stopped = wanted.wanted() == p::Wanted::Stopped;
            let node = wanted.spec.clone().unwrap_or_default().id;
            let has_place =
                |e: &Existing| e.phase != Phase::Aside && e.node == node && e.lab_uid == wanted.lab_uid;
            let is_taken = self.exists.iter().any(|(other, e)| other != uid && has_place(e));
            if wanted.aside {
                let e = self.exists.get_mut(uid).filter(|e| e.phase != Phase::Aside && !self.hold_aside);
                if let Some(e) = e {
                    (e.phase, e.start, e.exec) = (Phase::Aside, String::new(), ExecPhase::None);
                    self.calls.push(format!("aside {node}"));
                }
                continue;
            }
            if let Some(e) = self.exists.get_mut(uid).filter(|e| e.phase == Phase::Aside) {
                if !is_taken && !wanted.held && !self.hold {
                    e.phase = Phase::Running;
                    e.begin();
                    self.disks.entry(uid.clone()).and_modify(|disk| disk.push(e.start.clone()));
                    self.calls.push(format!("back {node}"));
                }
                continue;
            }
            if let Some(e) = self.exists.get_mut(uid).filter(|e| e.spec_hash == wanted.spec_hash) {
                if stopped && e.phase == Phase::Running {
                    (e.phase, e.start, e.exec) = (Phase::Stopped, String::new(), ExecPhase::None);
                    e.exit_code = Some(143);
                } else if !stopped && self.lapsed.remove(uid) {
                    e.phase = Phase::Running;
                    e.begin();
                } else if !stopped && wanted.restarts > e.restarts {
                    e.restarts = wanted.restarts;
                    e.phase = Phase::Running;
                    e.begin();
                    self.disks.entry(uid.clone()).and_modify(|disk| disk.push(e.start.clone()));
                }
                e.run(&mut self.calls, wanted);
                continue;
            }
            if wanted.wipes > 0 && self.exists.remove(uid).is_some() {
                self.disks.remove(uid);
                self.calls.push(format!("wiped {node}"));
            }
            if stopped || wanted.held || is_taken || self.hold {
                continue;
            }
            let crashes = |name: &String| wanted.spec.as_ref().is_some_and(|s| s.env.contains_key(name));
            let broken = self.broken.contains(&node) || self.crashes.iter().any(crashes);
            let exit_code = self.ends.get(&node).copied();
            let phase = match (broken, exit_code) {
                (true, _) => Phase::Failed,
                (false, Some(_)) => Phase::Stopped,
                (false, None) => Phase::Running,
            };
            let runs = phase == Phase::Running;
            let existing = Existing {
                id: uuid::Uuid::now_v7().to_string(),
                lab_uid: wanted.lab_uid.clone(),
                spec_hash: wanted.spec_hash.clone(),
                start: if runs { uuid::Uuid::now_v7().to_string() } else { String::new() },
                phase,
                exec: if runs { ExecPhase::Waiting } else { ExecPhase::None },
                exit_code,
                restarts: wanted.restarts,
                exited: exit_code.is_some(),
                reached: Vec::new(),
                ran: Vec::new(),
                node,
            };
            if wanted.runtime() == p::Runtime::Libvirt {
                let comes = !wanted.disk_of.is_empty() && wanted.wipes == 0;
                assert!(
                    !comes || self.disks.contains_key(uid),
                    "{uid} is made without the disk that was to come"
                );
                let disk = self.disks.entry(uid.clone()).or_insert_with(|| vec![uid.clone()]);
                disk.push(existing.start.clone());
            }
            self.exists.insert(uid.clone(), existing);
        }
    }

    /// The compute service starts again: it finds its instances, and knows of no slice.
    pub fn forget_instances(&mut self) {
        self.synced = false;
        self.wanted.clear();
        self.since = Some(Instant::now());
    }

    /// The network service starts again: what it finds is in no slice.
    pub fn forget_wires(&mut self) {
        self.take_wires(pn::Slice::default());
    }

    /// A new slice of wires: what was there and is not in it stays, unwanted.
    fn take_wires(&mut self, slice: pn::Slice) {
        let was = self.nics.keys().chain(self.wires.keys()).chain(self.segments.keys());
        self.leftovers.extend(was);
        self.nics.clear();
        self.wires.clear();
        self.segments.clear();
        self.add_wires(slice);
    }

    fn add_wires(&mut self, slice: pn::Slice) {
        self.nics.extend(slice.nics.into_iter().map(|n| (n.wire_id, n)));
        self.wires.extend(slice.wires.into_iter().map(|w| (w.wire_id, w)));
        self.segments.extend(slice.segments.into_iter().map(|x| (x.wire_id, x)));
        let State { nics, wires, segments, leftovers, .. } = self;
        leftovers
            .retain(|id| !nics.contains_key(id) && !wires.contains_key(id) && !segments.contains_key(id));
    }

    /// The process of a node ends and is started again.
    pub fn restart(&mut self, node: &str) {
        for e in self.exists.values_mut().filter(|e| e.node == node) {
            e.begin();
        }
    }

    /// The process of a node ends, and stays so.
    pub fn end(&mut self, node: &str, code: i32) {
        for e in self.exists.values_mut().filter(|e| e.node == node) {
            (e.phase, e.start, e.exited, e.exit_code) = (Phase::Stopped, String::new(), true, Some(code));
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
                lease: wanted.lease.filter(|_| self.began.is_some()),
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
                detail: match self.lost_images.get(&e.node) {
                    Some(digest) => format!("{NEEDS_IMAGE} {digest} again"),
                    None if e.phase == Phase::Failed => "it is broken".into(),
                    None => String::new(),
                },
                image_digest: self.lost_images.get(&e.node).cloned().unwrap_or_default(),
                wanted: self.wanted.contains_key(uid),
                lease: self.wanted.get(uid).and_then(|w| w.lease).filter(|_| self.began.is_some()),
                exit_code: e.exit_code,
                restarts: e.restarts,
                exited: e.exited,
                health: self.health.get(&e.node).filter(|_| !e.start.is_empty()).cloned().unwrap_or_default(),
                stages_done: e.reached.clone(),
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
            disk_bytes: self.disk_bytes,
            architecture: "riscv64".into(),
            allowed_devices: self.devices.clone(),
            allowed_capabilities: self.capabilities.clone(),
            host_network: self.host_network,
            lost_images: self.aside_images.iter().cloned().collect(),
            acceleration: self.acceleration.0.into(),
            acceleration_reason: self.acceleration.1.into(),
            runtimes: [(!self.docker_down, Runtime::Docker), (self.machines, Runtime::Libvirt)]
                .into_iter()
                .filter(|(answers, _)| *answers)
                .map(|(_, runtime)| p::Runtime::from(runtime).into())
                .collect(),
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
                alive: running.is_some_and(|e| !self.down.contains(&e.node)),
                detail: String::new(),
            }
        };
        self.nics.values().map(|n| (n.wire_id, nic(n))).collect()
    }

    fn observed_wires(&self) -> BTreeMap<u64, pn::ObservedWire> {
        let nics = self.observed_nics();
        let up = |end: &Option<pn::WireEnd>| match end.as_ref().and_then(|e| e.end.as_ref()) {
            Some(pn::wire_end::End::Nic(id)) => nics.get(id).is_some_and(|n| n.present && n.alive),
            Some(pn::wire_end::End::Tunnel(tunnel)) => tunnel.remote_up,
            Some(pn::wire_end::End::Segment(id)) => !self.slow_segments && self.segments.contains_key(id),
            Some(_) => true,
            None => false,
        };
        let is_by_far = |end: &Option<pn::WireEnd>| {
            let end = end.as_ref().and_then(|e| e.end.as_ref());
            matches!(end, Some(pn::wire_end::End::Tunnel(tunnel)) if !tunnel.remote_up)
        };
        let wire = |w: &pn::Wire| {
            let far = match (is_by_far(&w.a), is_by_far(&w.b)) {
                (true, _) => pn::End::A,
                (_, true) => pn::End::B,
                _ => pn::End::Unspecified,
            };
            let state = match (self.unplugged || !w.enabled, up(&w.a) && up(&w.b)) {
                (true, _) => pn::WireState::Down,
                (false, true) => pn::WireState::Up,
                (false, false) if far != pn::End::Unspecified => pn::WireState::Down,
                (false, false) => pn::WireState::Pending,
            };
            pn::ObservedWire {
                wire_id: w.wire_id,
                state: state.into(),
                detail: String::new(),
                plane: "ovs".into(),
                plane_reason: "host: network.plane is ovs".into(),
                end: far.into(),
                sources: vec![p::EvidenceSource::Flows.into()],
            }
        };
        self.wires.values().map(|w| (w.wire_id, wire(w))).collect()
    }

    fn observed_segments(&self) -> BTreeMap<u64, pn::ObservedSegment> {
        let state = if self.slow_segments { pn::WireState::Pending } else { pn::WireState::Up };
        let segment = |s: &pn::Segment| pn::ObservedSegment {
            wire_id: s.wire_id,
            state: state.into(),
            detail: String::new(),
            sources: vec![p::EvidenceSource::Ovsdb.into()],
        };
        self.segments.values().map(|s| (s.wire_id, segment(s))).collect()
    }
}

fn changed<K: Ord + Clone, V: PartialEq + Clone>(old: &BTreeMap<K, V>, new: &BTreeMap<K, V>) -> Vec<V> {
    new.iter().filter(|(k, v)| old.get(*k) != Some(*v)).map(|(_, v)| v.clone()).collect()
}

/// How long a call of a slow host takes.
const SLOW: Duration = Duration::from_secs(10);

type Answer<T> = Result<Response<T>, Status>;
type Stream_<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A stream that looks at the host at each change, and once each heartbeat although nothing changed; a silent host says nothing.
fn observe<T: Send + 'static, S: Default + Send + 'static>(
    host: Host,
    look: impl Fn(&State, &mut S, bool) -> Vec<T> + Send + Sync + Copy + 'static,
) -> Stream_<T> {
    let mut version = host.version.subscribe();
    version.mark_changed();
    let start = (host, version, S::default(), VecDeque::new(), Instant::now());
    Box::pin(futures::stream::unfold(
        start,
        move |(host, mut version, mut seen, mut ready, mut last)| async move {
            loop {
                if let Some(message) = ready.pop_front() {
                    last = Instant::now();
                    return Some((Ok(message), (host, version, seen, ready, last)));
                }
                let _ = tokio::time::timeout_at(last + host.heartbeat, version.changed()).await;
                let due = last.elapsed() >= host.heartbeat;
                if due {
                    last = Instant::now();
                }
                let state = host.state.lock().unwrap();
                if !state.silent && !state.mute {
                    ready.extend(look(&state, &mut seen, due));
                }
            }
        },
    ))
}
