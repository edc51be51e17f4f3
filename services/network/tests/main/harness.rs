//! A host, its Open vSwitch, its network service, and nodes.

use std::collections::BTreeMap;
use std::fs::File;
use std::future::Future;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use netloom_model::id::{LabUid, NodeUid};
use netloom_proto::network::v1 as pb;
use netloom_proto::network::v1::network_service_client::NetworkServiceClient;
use netloom_proto::network::v1::observe_response::Event;
use netloom_service::testing::{eventually, require};
use netloom_service::{Channel, Connector, Settings, Shutdown};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use tokio::task::JoinHandle;

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
/// What tickets are signed with.
pub const KEY: [u8; 32] = [7; 32];
/// Long enough for a machine that does other things as well.
pub const BOUND: Duration = Duration::from_secs(30);

/// Runs a test on a host of its own; not at all where Open vSwitch or the rights are missing.
pub fn on_a_host<Fut: Future<Output = ()>>(test: &'static str, body: impl FnOnce() -> Fut + Send) {
    if !require(test, "root") || !require(test, "ovs") {
        return;
    }
    // With NETLOOM_LOG=debug a test says what its service did.
    if std::env::var_os("NETLOOM_LOG").is_some() {
        netloom_service::telemetry::init("test");
    }
    std::thread::scope(|scope| {
        let host = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
            let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).unwrap();
            // Threads of the runtime begin in the namespaces of the thread that starts them.
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            let runtime = builder.worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(body());
        });
        if let Err(panic) = host.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Runs a program; panics when it fails.
pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// A child that is killed when dropped, and when its test's thread dies.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A private Open vSwitch.
pub struct Ovs {
    vswitchd: Option<Daemon>,
    server: Option<Daemon>,
    dir: PathBuf,
}

impl Ovs {
    fn start(dir: PathBuf) -> Ovs {
        std::fs::create_dir(&dir).unwrap();
        let mut ovs = Ovs { vswitchd: None, server: None, dir };
        ovs.make_database();
        ovs.start_server();
        ovs.init();
        ovs.start_vswitchd();
        ovs
    }

    fn at(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn daemon(&self, program: &str, args: &[&str]) -> Daemon {
        let mut command = Command::new(program);
        for name in ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR"] {
            command.env(name, &self.dir);
        }
        let [pid, ctl, log] = ["pid", "ctl", "log"].map(|kind| self.at(&format!("{program}.{kind}")));
        command
            .args(args)
            .args([format!("--pidfile={pid}"), format!("--unixctl={ctl}"), format!("--log-file={log}")])
            .arg("-vconsole:off")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // SAFETY: only a system call is made between fork and exec.
        unsafe {
            command.pre_exec(|| {
                nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(Into::into)
            });
        }
        Daemon(command.spawn().unwrap())
    }

    pub fn make_database(&self) {
        let _ = std::fs::remove_file(self.dir.join("conf.db"));
        run("ovsdb-tool", &["create", &self.at("conf.db"), SCHEMA]);
    }

    pub fn start_server(&mut self) {
        let remote = format!("--remote=punix:{}", self.at("db.sock"));
        self.server = Some(self.daemon("ovsdb-server", &[&self.at("conf.db"), &remote]));
        let deadline = Instant::now() + BOUND;
        while std::os::unix::net::UnixStream::connect(self.dir.join("db.sock")).is_err() {
            assert!(Instant::now() < deadline, "ovsdb-server does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What Open vSwitch's own start script puts into a new database.
    pub fn init(&self) {
        self.vsctl(&["--no-wait", "--", "init", "--", "set", "Open_vSwitch", ".", "ovs-version=3.1.0"]);
    }

    pub fn stop_server(&mut self) {
        self.server = None;
    }

    pub fn start_vswitchd(&mut self) {
        let vswitchd = self.daemon("ovs-vswitchd", &[&format!("unix:{}", self.at("db.sock"))]);
        let pid = vswitchd.0.id();
        self.vswitchd = Some(vswitchd);
        // A change, without which ovs-vsctl would not wait for it.
        self.vsctl(&["set", "Open_vSwitch", ".", &format!("external_ids:started={pid}")]);
    }

    pub fn kill_vswitchd(&mut self) {
        self.vswitchd = None;
    }

    /// SIGSTOP, and SIGCONT.
    pub fn freeze_vswitchd(&self, freeze: bool) {
        use nix::sys::signal::{Signal, kill};
        let pid = self.vswitchd.as_ref().unwrap().0.id() as i32;
        kill(nix::unistd::Pid::from_raw(pid), if freeze { Signal::SIGSTOP } else { Signal::SIGCONT })
            .unwrap();
    }

    pub fn vsctl(&self, args: &[&str]) -> String {
        let db = format!("--db=unix:{}", self.at("db.sock"));
        run("ovs-vsctl", &[&["--timeout=30", &db], args].concat())
    }

    pub fn ofctl(&self, verb: &str, bridge: &str, args: &[&str]) -> String {
        let target = format!("unix:{}", self.at(&format!("{bridge}.mgmt")));
        run("ovs-ofctl", &[&["--timeout=30", "-O", "OpenFlow14", verb, &target], args].concat())
    }

    /// The flows of a bridge, without what counts.
    pub fn flows(&self, bridge: &str) -> Vec<String> {
        let dump = self.ofctl("dump-flows", bridge, &["--no-stats"]);
        dump.lines().map(|line| line.trim().to_owned()).filter(|line| line.contains("actions")).collect()
    }
}

/// What is observed of a host, as told by its stream.
#[derive(Default, Clone, Debug)]
pub struct Told {
    pub nics: BTreeMap<u64, pb::ObservedNic>,
    pub wires: BTreeMap<u64, pb::ObservedWire>,
    pub segments: BTreeMap<u64, pb::ObservedSegment>,
    pub inventory: pb::Inventory,
    pub unwanted: Vec<u64>,
    pub synced: bool,
    pub snapshots: u32,
    pub heartbeats: u32,
    /// Every state that was told of a wire or segment, in order.
    pub history: BTreeMap<u64, Vec<pb::WireState>>,
    /// True while parts of a snapshot are still to come.
    partial: bool,
}

impl Told {
    pub fn hear(&mut self, event: Event) {
        let (nics, wires, segments) = match event {
            Event::Heartbeat(beat) => {
                self.heartbeats += 1;
                self.inventory = beat.inventory.unwrap_or(self.inventory.clone());
                return;
            }
            Event::Snapshot(s) => {
                if !self.partial {
                    (self.nics, self.wires, self.segments, self.unwanted) = Default::default();
                }
                self.partial = s.more;
                self.snapshots += u32::from(!s.more);
                self.unwanted.extend(s.unwanted);
                self.synced = s.synced;
                self.inventory = s.inventory.unwrap();
                (s.nics, s.wires, s.segments)
            }
            Event::Changes(c) => (c.nics, c.wires, c.segments),
        };
        let wire_states = wires.iter().map(|w| (w.wire_id, w.state()));
        for (id, state) in wire_states.chain(segments.iter().map(|s| (s.wire_id, s.state()))) {
            let history = self.history.entry(id).or_default();
            if history.last() != Some(&state) {
                history.push(state);
            }
        }
        self.nics.extend(nics.into_iter().map(|n| (n.wire_id, n)));
        self.wires.extend(wires.into_iter().map(|w| (w.wire_id, w)));
        self.segments.extend(segments.into_iter().map(|s| (s.wire_id, s)));
    }

    pub fn up(&self, wire: u64) -> bool {
        self.wires.get(&wire).is_some_and(|w| w.state() == pb::WireState::Up)
    }

    pub fn segment_up(&self, segment: u64) -> bool {
        self.segments.get(&segment).is_some_and(|s| s.state() == pb::WireState::Up)
    }

    /// How often it was told that a wire or segment is up, after it was told that it is not.
    pub fn ups(&self, id: u64) -> usize {
        self.history.get(&id).into_iter().flatten().filter(|s| **s == pb::WireState::Up).count()
    }
}

/// A host with its service running.
pub struct Host {
    pub client: NetworkServiceClient<Channel>,
    pub told: Arc<Mutex<Told>>,
    shutdown: Shutdown,
    service: Option<JoinHandle<anyhow::Result<()>>>,
    observer: Option<JoinHandle<()>>,
    // Dropped in this order: what has mounts in the directory before it.
    pub ovs: Ovs,
    pub dir: tempfile::TempDir,
    settings: String,
}

static NUMBER: AtomicU64 = AtomicU64::new(1);

impl Host {
    pub async fn start() -> Host {
        Host::start_with("", |_| {}).await
    }

    /// With more lines for `[network]`, and something done to Open vSwitch before the service starts.
    pub async fn start_with(more: &str, before: impl FnOnce(&Host)) -> Host {
        let dir = tempfile::tempdir().unwrap();
        let ovs = Ovs::start(dir.path().join("ovs"));
        let settings = format!(
            "[network]\novsdb_socket = \"{0}/db.sock\"\novs_run_dir = \"{0}\"\n{more}\n",
            ovs.dir.display()
        );
        std::fs::create_dir_all(dir.path().join("run/netns")).unwrap();
        let client = NetworkServiceClient::new(Connector::default().channel(&"mem:none".parse().unwrap()));
        let (told, shutdown) = (Arc::default(), Shutdown::new());
        let mut host = Host { client, told, shutdown, service: None, observer: None, ovs, dir, settings };
        before(&host);
        host.start_service().await;
        host
    }

    pub fn owner(&self) -> String {
        netloom_service::installation::owner(&self.dir.path().join("data")).unwrap().to_string()
    }

    pub async fn start_service(&mut self) {
        let (data, run) = (self.dir.path().join("data"), self.dir.path().join("run"));
        let settings = Settings::from_toml(&self.settings, &data, &run).unwrap();
        let connector = Connector::default();
        self.client = NetworkServiceClient::new(connector.channel(&settings.endpoints.network));
        self.shutdown = Shutdown::new();
        self.service = Some(tokio::spawn(netloom_network::run(settings, connector, self.shutdown.clone())));
        self.told = Arc::default();
        let (mut client, told) = (self.client.clone(), self.told.clone());
        self.observer = Some(tokio::spawn(async move {
            loop {
                if let Ok(stream) = client.observe(pb::ObserveRequest {}).await {
                    let mut stream = stream.into_inner();
                    while let Ok(Some(message)) = stream.message().await {
                        told.lock().unwrap().hear(message.event.unwrap());
                    }
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }));
        self.until("the service observes", |told| told.snapshots > 0).await;
    }

    pub async fn stop_service(&mut self) {
        self.observer.take().unwrap().abort();
        self.shutdown.cancel();
        self.service.take().unwrap().await.unwrap().unwrap();
    }

    pub fn told(&self) -> Told {
        self.told.lock().unwrap().clone()
    }

    /// Waits until what is told of the host is so; says what was told last if that does not come.
    pub async fn until(&self, what: &str, condition: impl Fn(&Told) -> bool) -> Duration {
        let begun = Instant::now();
        while !condition(&self.told.lock().unwrap()) {
            if begun.elapsed() > BOUND {
                let log = std::fs::read_to_string(self.ovs.dir.join("ovs-vswitchd.log")).unwrap_or_default();
                let log: Vec<&str> = log.lines().rev().take(20).collect();
                panic!("not within {BOUND:?}: {what}; told: {:#?}\n{}", self.told(), log.join("\n"));
            }
            assert!(!self.service.as_ref().is_some_and(JoinHandle::is_finished), "the service ended: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        begun.elapsed()
    }

    pub async fn until_up(&self, wires: &[u64]) -> Duration {
        self.until("wires are up", |told| wires.iter().all(|wire| told.up(*wire))).await
    }

    pub async fn sync(&self, slice: &Slice) {
        let slice = Some(slice.0.clone());
        let request = pb::SyncRequest { term: 1, slice, more: false, ticket_key: KEY.to_vec() };
        self.client.clone().sync(request).await.unwrap();
    }

    pub async fn ensure(&self, slice: &Slice) {
        let request = pb::EnsureRequest { term: 1, slice: Some(slice.0.clone()) };
        self.client.clone().ensure(request).await.unwrap();
    }

    /// Removes; panics when something is left.
    pub async fn remove(&self, wire_ids: Vec<u64>) {
        let request = pb::RemoveRequest { term: 1, wire_ids };
        let response = self.client.clone().remove(request).await.unwrap().into_inner();
        assert_eq!(response.failures, [], "left over");
    }

    pub fn node(&self) -> Node {
        Node::start(&self.dir.path().join("run/netns"))
    }

    /// Names of the interfaces of the host itself.
    pub fn interfaces(&self) -> Vec<String> {
        let mut names: Vec<String> = interfaces().into_iter().map(|i| i.name).collect();
        names.retain(|name| name.starts_with("nl") && name != "nl0");
        names
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(observer) = self.observer.take() {
            observer.abort();
        }
        self.shutdown.cancel();
    }
}

/// What a host is told to bring about.
#[derive(Default, Clone)]
pub struct Slice(pub pb::Slice);

pub fn number() -> u64 {
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

impl Slice {
    /// A NIC with made-up MAC and no address; gives its wire id.
    pub fn nic(&mut self, node: &Node, name: &str) -> u64 {
        let wire_id = number();
        let mac = format!("02:00:00:00:{:02x}:{:02x}", wire_id >> 8 & 255, wire_id & 255);
        self.nic_as(node, name, &mac, &[])
    }

    pub fn nic_as(&mut self, node: &Node, name: &str, mac: &str, addresses: &[&str]) -> u64 {
        let wire_id = number();
        self.0.nics.push(pb::Nic {
            wire_id,
            node_uid: node.uid.to_string(),
            guest_name: name.to_owned(),
            mac: mac.to_owned(),
            mtu: 9500,
            addresses: addresses.iter().map(|a| (*a).to_owned()).collect(),
            lab_uid: LabUid::new().to_string(),
        });
        wire_id
    }

    pub fn segment(&mut self) -> u64 {
        let wire_id = number();
        let (node_uid, lab_uid) = (NodeUid::new().to_string(), LabUid::new().to_string());
        self.0.segments.push(pb::Segment { wire_id, node_uid, lab_uid });
        wire_id
    }

    pub fn wire(&mut self, a: pb::WireEnd, b: pb::WireEnd) -> u64 {
        let wire_id = number();
        let lab_uid = LabUid::new().to_string();
        self.0.wires.push(pb::Wire {
            wire_id,
            a: Some(a),
            b: Some(b),
            enabled: true,
            lab_uid,
            ..Default::default()
        });
        wire_id
    }

    pub fn ids(&self) -> Vec<u64> {
        let Slice(slice) = self;
        let nics = slice.nics.iter().map(|n| n.wire_id);
        nics.chain(slice.wires.iter().map(|w| w.wire_id))
            .chain(slice.segments.iter().map(|s| s.wire_id))
            .collect()
    }
}

pub fn nic(wire_id: u64) -> pb::WireEnd {
    pb::WireEnd { end: Some(pb::wire_end::End::Nic(wire_id)) }
}

pub fn segment(wire_id: u64) -> pb::WireEnd {
    pb::WireEnd { end: Some(pb::wire_end::End::Segment(wire_id)) }
}

pub fn host_interface(name: &str) -> pb::WireEnd {
    pb::WireEnd { end: Some(pb::wire_end::End::HostInterface(name.to_owned())) }
}

pub fn linux_bridge(name: &str) -> pb::WireEnd {
    pb::WireEnd { end: Some(pb::wire_end::End::Bridge(name.to_owned())) }
}

pub fn dummy() -> pb::WireEnd {
    pb::WireEnd { end: Some(pb::wire_end::End::Dummy(true)) }
}

/// The host end of a NIC, as it is called unless it was given to the host.
pub fn host_end(nic: u64) -> String {
    netloom_model::id::WireId::try_from(nic).unwrap().interface_name("nl")
}

/// A network namespace, published as compute publishes those of instances.
pub struct Node {
    pub uid: NodeUid,
    pub start: String,
    directory: PathBuf,
    namespace: Arc<File>,
}

impl Node {
    fn start(directory: &Path) -> Node {
        let mut node = Node {
            uid: NodeUid::new(),
            start: String::new(),
            directory: directory.to_owned(),
            namespace: Arc::new(new_namespace()),
        };
        node.publish();
        node
    }

    fn path(&self) -> PathBuf {
        self.directory.join(format!("{}.{}", self.uid, self.start))
    }

    fn publish(&mut self) {
        self.start = format!("s{}", number());
        let path = self.path();
        File::create(&path).unwrap();
        let namespace = format!("/proc/self/fd/{}", self.namespace.as_raw_fd());
        mount(Some(namespace.as_str()), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    }

    fn withdraw(&self) {
        let _ = umount2(&self.path(), MntFlags::MNT_DETACH);
        let _ = std::fs::remove_file(self.path());
    }

    /// The instance ends: its namespace goes, with everything in it.
    pub fn stop(&mut self) {
        self.withdraw();
        // Only threads that look into it hold it beyond this.
        self.namespace = Arc::new(File::open("/dev/null").unwrap());
    }

    /// The instance starts again, in a new namespace.
    pub fn restart(&mut self) {
        self.withdraw();
        self.namespace = Arc::new(new_namespace());
        self.publish();
    }

    /// Runs something on a thread in the node's namespace.
    pub fn inside<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let visit = scope.spawn(|| {
                setns(&*self.namespace, CloneFlags::CLONE_NEWNET).unwrap();
                body()
            });
            visit.join().unwrap()
        })
    }

    /// Runs a program in the node's namespace.
    pub fn run(&self, program: &str, args: &[&str]) -> String {
        self.inside(|| run(program, args))
    }

    pub fn interface(&self, name: &str) -> Option<Interface> {
        self.inside(interfaces).into_iter().find(|i| i.name == name)
    }

    /// True when the interface is there and has carrier.
    pub fn has_carrier(&self, name: &str) -> bool {
        self.interface(name).is_some_and(|i| i.carrier)
    }

    /// The number of an interface in the node: another one means that it was made anew.
    pub fn index(&self, name: &str) -> String {
        self.run("ip", &["-o", "link", "show", name]).split(':').next().unwrap().to_owned()
    }

    /// Waits until the node's kernel sends by the interface: it hears of the carrier a moment after the host does.
    pub async fn until_running(&self, name: &str) {
        eventually("the interface runs", BOUND, || async { self.interface(name).is_some_and(|i| i.running) })
            .await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.withdraw();
    }
}

fn new_namespace() -> File {
    std::thread::scope(|scope| {
        let made = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            run("ip", &["link", "set", "lo", "up"]);
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        made.join().unwrap()
    })
}

/// An interface as its namespace sees it.
#[derive(Debug, Clone, Default)]
pub struct Interface {
    pub name: String,
    pub up: bool,
    pub carrier: bool,
    pub running: bool,
    pub mac: String,
    pub addresses: Vec<String>,
}

/// The interfaces of the calling thread's namespace.
pub fn interfaces() -> Vec<Interface> {
    let mut found = BTreeMap::<String, Interface>::new();
    for entry in nix::ifaddrs::getifaddrs().unwrap() {
        let name = entry.interface_name.clone();
        let interface = found.entry(name.clone()).or_insert(Interface { name, ..Interface::default() });
        interface.up = entry.flags.contains(nix::net::if_::InterfaceFlags::IFF_UP);
        interface.running = entry.flags.contains(nix::net::if_::InterfaceFlags::IFF_RUNNING);
        interface.carrier = entry.flags.contains(nix::net::if_::InterfaceFlags::IFF_LOWER_UP);
        let Some(address) = entry.address else { continue };
        if let Some(link) = address.as_link_addr() {
            let mac = link.addr().unwrap_or_default();
            interface.mac = mac.map(|b| format!("{b:02x}")).join(":");
        } else if let Some(v4) = address.as_sockaddr_in() {
            interface.addresses.push(v4.ip().to_string());
        } else if let Some(v6) = address.as_sockaddr_in6() {
            interface.addresses.push(v6.ip().to_string());
        }
    }
    found.into_values().collect()
}

/// An interface in a node, by a socket that belongs to the node's namespace: looked at and set in a microsecond, from any thread. The
/// namespace lives for as long as this does.
pub struct Handle {
    socket: std::net::UdpSocket,
    name: String,
}

impl Handle {
    pub fn open(node: &Node, name: &str) -> Handle {
        let socket = node.inside(|| std::net::UdpSocket::bind("0.0.0.0:0")).unwrap();
        Handle { socket, name: name.to_owned() }
    }

    fn ask(&self, what: nix::libc::Ioctl, fill: impl FnOnce(&mut nix::libc::ifreq)) -> nix::libc::ifreq {
        // SAFETY: all zero bytes are a valid ifreq.
        let mut request: nix::libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(self.name.bytes().take(15)) {
            *to = from as _;
        }
        fill(&mut request);
        // SAFETY: the request, and what it points to, live through the call.
        let answer = unsafe { nix::libc::ioctl(self.socket.as_raw_fd(), what, &raw mut request) };
        assert_eq!(answer, 0, "{}: {}", self.name, std::io::Error::last_os_error());
        request
    }

    /// Sets it up or down.
    pub fn set_up(&self, up: bool) {
        let request = self.ask(nix::libc::SIOCGIFFLAGS, |_| {});
        // SAFETY: what was just asked for are the flags.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        let flag = nix::libc::IFF_UP as i16;
        let flags = if up { flags | flag } else { flags & !flag };
        self.ask(nix::libc::SIOCSIFFLAGS, |request| request.ifr_ifru.ifru_flags = flags);
    }

    /// Whether it has carrier.
    pub fn has_carrier(&self) -> bool {
        const SIOCETHTOOL: nix::libc::Ioctl = 0x8946;
        const ETHTOOL_GLINK: u32 = 0xa;
        let mut value = [ETHTOOL_GLINK, 0];
        self.ask(SIOCETHTOOL, |request| request.ifr_ifru.ifru_data = value.as_mut_ptr().cast());
        value[1] == 1
    }

    /// Waits for it to have carrier or not; tells how long that took.
    pub fn until_carrier(&self, carrier: bool) -> Duration {
        let begun = Instant::now();
        while self.has_carrier() != carrier {
            assert!(begun.elapsed() < BOUND, "{}: carrier is not {carrier} within {BOUND:?}", self.name);
            std::thread::sleep(Duration::from_micros(20));
        }
        begun.elapsed()
    }
}
