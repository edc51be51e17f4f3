//! Wires of both planes beside a plain veth: TCP, round trips, how these grow with the number of ports, and a hundred links made at once.
//!
//! The network service runs alone, in a namespace of its own with an Open vSwitch of its own; nodes are namespaces.

#[path = "../src/bin/floor/netlink.rs"]
#[allow(dead_code, reason = "the floor's program uses the rest")]
mod netlink;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use netloom_benches::{Turns, at_least, both, middle, size, text, told};
use netloom_model::id::{LabUid, NodeUid};
use netloom_proto::network::v1 as pb;
use netloom_proto::network::v1::network_service_client::NetworkServiceClient;
use netloom_proto::network::v1::observe_response::Event;
use netloom_proto::v1::Plane;
use netloom_service::{Channel, Connector, Endpoint};
use netloom_tests::{Namespace, Ovs};
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use self::netlink::{Body, CREATE, DELETE_LINK, NESTED, NEW_LINK, Netlink, SET_LINK};

const UP: u32 = libc::IFF_UP as u32;
const SLICE: Duration = Duration::from_secs(1);

/// The rows.
pub fn rows() {
    let name = format!("netloom-bench-{}", std::process::id());
    let namespace = Arc::new(Namespace::make(&name));
    std::thread::scope(|scope| {
        let host = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).expect("the rights to make namespaces");
            let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).expect("mounts of its own");
            enter(&File::open(format!("/run/netns/{name}")).expect("the namespace"));
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            let runtime = builder.worker_threads(2).enable_all().build().expect("a runtime");
            runtime.block_on(measure(namespace.clone()));
        });
        if let Err(panic) = host.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

async fn measure(namespace: Arc<Namespace>) {
    let mut host = Host::start(namespace).await;
    let plain = [Node::make(None), Node::make(None)];
    direct(&plain);
    let kernel = host.pair(Plane::Kernel, 1).await;
    let ovs = host.pair(Plane::Ovs, 2).await;
    throughput(&plain, &kernel, &ovs);
    round_trips(&plain, &kernel, "round trip, kernel plane / plain veth", 1.5);
    growth(&mut host, &plain, &kernel, &ovs).await;
    hundred_links(&mut host).await;
    between_hosts().await;
}

/// A second of TCP each, in turns.
fn tcp_in_turns(what: &str, measured: &[Node; 2], plain: &[Node; 2], bar: f64) {
    let turns: Vec<(f64, f64)> =
        (0..size(9, 1)).map(|round| both(round, || tcp(measured), || tcp(plain))).collect();
    at_least(what, "Gbit/s", &turns, bar);
}

fn throughput(plain: &[Node; 2], kernel: &[Node; 2], ovs: &[Node; 2]) {
    tcp_in_turns("TCP, kernel plane / plain veth", kernel, plain, 0.85);
    let turns: Vec<(f64, f64)> =
        (0..size(3, 1)).map(|round| both(round, || tcp(ovs), || tcp(plain))).collect();
    let of = |figure: fn(&(f64, f64)) -> f64| middle(turns.iter().map(figure).collect());
    told(
        "TCP, Open vSwitch in userspace / plain veth",
        &format!("{:.2} Gbit/s", of(|t| t.0)),
        &format!("{:.1} Gbit/s", of(|t| t.1)),
        &format!("{:.4}", of(|t| t.0 / t.1)),
    );
}

fn round_trips(plain: &[Node; 2], measured: &[Node; 2], what: &str, bar: f64) {
    let rounds = size(5_000, 200);
    let turns = Turns::take(size(11, 1), || round_trip(measured, rounds), || round_trip(plain, rounds));
    turns.row(what, bar);
}

/// A round trip while the host has more and more other wires, on the same plane.
async fn growth(host: &mut Host, plain: &[Node; 2], kernel: &[Node; 2], ovs: &[Node; 2]) {
    for (plane, pair, name) in
        [(Plane::Kernel, kernel, "kernel plane"), (Plane::Ovs, ovs, "Open vSwitch in userspace")]
    {
        let (nodes, mut there) = ([host.node(), host.node()], 2);
        let mut more = Vec::new();
        for ports in size([2, 20, 50, 100, 200], [2, 4, 6, 8, 10]) {
            let mut slice = pb::Slice::default();
            for n in (there..ports).step_by(2) {
                more.extend(add(&mut slice, [(&nodes[0], n), (&nodes[1], n)], plane, None));
            }
            host.up(slice).await;
            there = ports;
            let rounds = size(500, 100);
            let turns = Turns::take(size(21, 1), || round_trip(pair, rounds), || round_trip(plain, rounds));
            let what = format!("round trip with {ports} ports, {name} / plain veth");
            told(&what, &text(turns.measured()), &text(turns.floor()), &format!("{:.2}", turns.ratio()));
        }
        host.remove(more).await;
    }
}

/// A hundred links between fifty nodes, until each is up, against two hundred veth pairs by hand.
async fn hundred_links(host: &mut Host) {
    let count = size(50, 6);
    let nodes: Vec<Node> = (0..count).map(|_| host.node()).collect();
    let bare: Vec<Node> = (0..count).map(|_| Node::make(None)).collect();
    for (plane, what, bar) in [
        (Plane::Kernel, "100 links made, kernel plane / 200 plain veth pairs", Some(1.5)),
        (Plane::Ovs, "100 links made, Open vSwitch / 200 plain veth pairs", None),
    ] {
        let mut turns = Turns::default();
        for _ in 0..size(7, 1) {
            let mut slice = pb::Slice::default();
            let mut all = Vec::new();
            for (at, node) in nodes.iter().enumerate() {
                let next = &nodes[(at + 1) % nodes.len()];
                for n in [1, 3] {
                    all.extend(add(&mut slice, [(node, n), (next, n + 1)], plane, None));
                }
            }
            let measured = host.up(slice).await;
            host.remove(all).await;
            turns.add(measured, by_hand(&bare));
        }
        match bar {
            Some(bar) => turns.row(what, bar),
            None => {
                told(what, &text(turns.measured()), &text(turns.floor()), &format!("{:.2}", turns.ratio()))
            }
        }
    }
}

/// Four interfaces in each node, both ends up, and gone again; what the making took.
fn by_hand(nodes: &[Node]) -> Duration {
    const GROUP: u32 = 0x666c_7a7a;
    std::thread::scope(|scope| {
        let work = scope.spawn(|| {
            let here = File::open("/proc/thread-self/ns/net").expect("this namespace");
            let mut host = Netlink::open().expect("netlink");
            let begun = Instant::now();
            let mut ends = Vec::new();
            for (at, node) in nodes.iter().enumerate() {
                enter(&node.namespace);
                let of_node = (1..=4u32).map(|n| {
                    let index = 900_000_000 + 10 * at as u32 + n;
                    let peer = Body::link(index, 0, 0).text(3, &format!("pl{index}"));
                    let peer =
                        peer.number(28, here.as_raw_fd().cast_unsigned()).number(4, 9500).number(27, GROUP);
                    let data = Body::default().with(1, &peer.0);
                    let info = Body::default().text(1, "veth").with(2 | NESTED, &data.0);
                    let body = Body::link(n + 1, UP, UP).text(3, &format!("eth{n}")).number(4, 9500);
                    ends.push(index);
                    (NEW_LINK, CREATE, body.with(18 | NESTED, &info.0))
                });
                let requests: Vec<_> = of_node.collect();
                Netlink::open().and_then(|mut n| n.batch(&requests)).expect("veth pairs");
            }
            enter(&here);
            let up: Vec<_> = ends.iter().map(|index| (SET_LINK, 0, Body::link(*index, UP, UP))).collect();
            host.batch(&up).expect("their other ends up");
            let took = begun.elapsed();
            host.batch(&[(DELETE_LINK, 0, Body::link(0, 0, 0).number(27, GROUP))]).expect("gone again");
            took
        });
        work.join().expect("no panic")
    })
}

/// A wire between two hosts, beside what the hosts themselves have over the veth between them.
async fn between_hosts() {
    const UNDERLAY: u8 = 3;
    const WIRE: u8 = 4;
    let names = ["a", "b"].map(|end| format!("netloom-bench-{}{end}", std::process::id()));
    let namespaces = names.each_ref().map(|name| Arc::new(Namespace::make(name)));
    let tunnels = addresses(UNDERLAY);
    let with_length = tunnels.each_ref().map(|address| format!("{address}/24"));
    namespaces[0].connect(&namespaces[1], "u0", with_length.each_ref().map(String::as_str));
    let plain = names.each_ref().map(|name| Node {
        uid: NodeUid::new(),
        namespace: File::open(format!("/run/netns/{name}")).expect("the namespace"),
        net: UNDERLAY.into(),
    });
    for host in &plain {
        host.inside(|| netloom_tests::run("ip", &["link", "set", "u0", "mtu", "9600"]).must());
    }
    let [near, far] = &namespaces;
    let mut hosts = [
        Host::start_with(near.clone(), &format!("tunnel_address = {:?}", tunnels[0])).await,
        Host::start_with(far.clone(), &format!("tunnel_address = {:?}", tunnels[1])).await,
    ];
    let nodes = hosts.each_ref().map(Host::node);
    let mut slice = pb::Slice::default();
    let [_, _, wire_id] = add(&mut slice, [(&nodes[0], 1), (&nodes[1], 1)], Plane::Kernel, Some(WIRE));
    let tunnel = |remote: &str| {
        let tunnel = pb::Tunnel { remote_address: remote.to_owned(), vni: 7, remote_up: true };
        Some(pb::WireEnd { end: Some(pb::wire_end::End::Tunnel(tunnel)) })
    };
    for (at, host) in hosts.iter_mut().enumerate() {
        let mut half = pb::Slice { nics: vec![slice.nics[at].clone()], ..slice.clone() };
        let wire = &mut half.wires[0];
        *(if at == 0 { &mut wire.b } else { &mut wire.a }) = tunnel(&tunnels[1 - at]);
        host.up(half).await;
        nodes[at].net.set(WIRE).expect("set once");
    }
    tcp_in_turns("TCP between hosts, kernel plane / veth between them", &nodes, &plain, 0.65);
    let rounds = size(5_000, 200);
    let turns = Turns::take(size(11, 1), || round_trip(&nodes, rounds), || round_trip(&plain, rounds));
    let what = "round trip between hosts, kernel plane / veth between them";
    told(what, &text(turns.measured()), &text(turns.floor()), &format!("{:.2}", turns.ratio()));
    for host in &mut hosts {
        host.remove(vec![wire_id]).await;
    }
}

/// Two nodes joined by nothing but a veth, with addresses.
fn direct(nodes: &[Node; 2]) {
    let make = || {
        let far = nodes[1].namespace.as_raw_fd().cast_unsigned();
        let peer = Body::link(0, 0, 0).text(3, "eth1").number(28, far).number(4, 9500);
        let info = Body::default().text(1, "veth").with(2 | NESTED, &Body::default().with(1, &peer.0).0);
        let body = Body::link(0, 0, 0).text(3, "eth1").number(4, 9500).with(18 | NESTED, &info.0);
        Netlink::open().and_then(|mut n| n.batch(&[(NEW_LINK, CREATE, body)])).expect("a veth pair");
    };
    nodes[0].inside(make);
    for (node, address) in nodes.iter().zip(addresses(0)) {
        let ip = |args: &[&str]| netloom_tests::run("ip", args).must();
        node.inside(|| {
            ip(&["address", "add", &format!("{address}/24"), "dev", "eth1"]);
            ip(&["link", "set", "eth1", "up"]);
        });
    }
    nodes[0].net.set(0).expect("set once");
    nodes[1].net.set(0).expect("set once");
}

fn addresses(net: u8) -> [String; 2] {
    [1, 2].map(|n| format!("10.77.{net}.{n}"))
}

/// Gigabits a second.
fn tcp([from, to]: &[Node; 2]) -> f64 {
    let target = &addresses(*to.net.get().expect("a pair"))[1];
    let listener = to.inside(|| TcpListener::bind(format!("{target}:0"))).expect("a port");
    let target = listener.local_addr().expect("bound");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            enter(&from.namespace);
            let mut stream =
                TcpStream::connect_timeout(&target, Duration::from_secs(20)).expect("it connects");
            let data = vec![0; 256 << 10];
            while !over.load(Ordering::Relaxed) {
                if stream.write_all(&data).is_err() {
                    break;
                }
            }
        });
        let (mut stream, _) = listener.accept().expect("it connects");
        let mut buffer = vec![0; 1 << 20];
        let mut receive = |time: Duration| {
            let (begun, mut bytes) = (Instant::now(), 0);
            while begun.elapsed() < time {
                bytes += stream.read(&mut buffer).expect("data");
            }
            8.0 * bytes as f64 / begun.elapsed().as_secs_f64() / 1e9
        };
        receive(SLICE / 4);
        let rate = receive(SLICE);
        over.store(true, Ordering::Relaxed);
        // What the sender waits for comes.
        drop(stream);
        rate
    })
}

/// A round trip of a small datagram, the mean of so many.
fn round_trip([from, to]: &[Node; 2], rounds: u32) -> Duration {
    let [_, target] = addresses(*to.net.get().expect("a pair"));
    let far = to.inside(|| UdpSocket::bind(format!("{target}:0"))).expect("a port");
    let near = from.inside(|| UdpSocket::bind("0.0.0.0:0")).expect("a port");
    near.connect(far.local_addr().expect("bound")).expect("connected");
    for socket in [&far, &near] {
        socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a bound");
    }
    std::thread::scope(|scope| {
        let echo = scope.spawn(|| {
            let mut buffer = [0; 64];
            loop {
                let Ok((length, back)) = far.recv_from(&mut buffer) else { continue };
                if length < 8 {
                    return;
                }
                let _ = far.send_to(&buffer[..length], back);
            }
        });
        let mut buffer = [0; 64];
        let mut once = |last: &mut u32| {
            // One that is lost is sent again.
            while near.send(&[7; 16]).is_err() || near.recv(&mut buffer).is_err() {
                *last += 1;
            }
        };
        let mut lost = 0;
        (0..20).for_each(|_| once(&mut lost));
        let begun = Instant::now();
        (0..rounds).for_each(|_| once(&mut lost));
        let took = begun.elapsed() / rounds;
        while !echo.is_finished() {
            let _ = near.send(&[0]);
            std::thread::sleep(Duration::from_millis(1));
        }
        took
    })
}

fn enter(namespace: &File) {
    setns(namespace, CloneFlags::CLONE_NEWNET).expect("the namespace can be entered");
}

/// A network namespace that stands in for a node.
struct Node {
    uid: NodeUid,
    namespace: File,
    /// The number of its net, once it is one of a measured pair.
    net: std::sync::OnceLock<u8>,
}

impl Node {
    fn make(published: Option<&Path>) -> Node {
        let uid = NodeUid::new();
        let namespace = std::thread::scope(|scope| {
            let made = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).expect("a namespace");
                netloom_tests::run("ip", &["link", "set", "lo", "up"]).must();
                File::open("/proc/thread-self/ns/net").expect("the namespace")
            });
            made.join().expect("no panic")
        });
        if let Some(directory) = published {
            let path = directory.join(format!("{uid}.s1"));
            File::create(&path).expect("its file");
            let source = format!("/proc/self/fd/{}", namespace.as_raw_fd());
            mount(Some(source.as_str()), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .expect("published");
        }
        Node { uid, namespace, net: std::sync::OnceLock::new() }
    }

    fn inside<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let visit = scope.spawn(|| {
                enter(&self.namespace);
                body()
            });
            visit.join().expect("no panic")
        })
    }
}

/// Adds a wire with its two NICs to a slice; tells their wire ids.
fn add(slice: &mut pb::Slice, ends: [(&Node, u32); 2], plane: Plane, net: Option<u8>) -> [u64; 3] {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    let number = || NEXT.fetch_add(1, Ordering::Relaxed);
    let lab_uid = LabUid::new().to_string();
    let nics = [0, 1].map(|end| {
        let wire_id = number();
        let addresses = net.map(|net| format!("{}/24", addresses(net)[end])).into_iter().collect();
        slice.nics.push(pb::Nic {
            wire_id,
            node_uid: ends[end].0.uid.to_string(),
            guest_name: format!("eth{}", ends[end].1),
            mac: format!(
                "02:00:00:{:02x}:{:02x}:{:02x}",
                wire_id >> 16 & 255,
                wire_id >> 8 & 255,
                wire_id & 255
            ),
            mtu: 9500,
            addresses,
            lab_uid: lab_uid.clone(),
        });
        wire_id
    });
    let end = |nic| Some(pb::WireEnd { end: Some(pb::wire_end::End::Nic(nic)) });
    let wire_id = number();
    let (a, b) = (end(nics[0]), end(nics[1]));
    let wire = pb::Wire { wire_id, a, b, enabled: true, lab_uid, plane: plane.into(), ..pb::Wire::default() };
    slice.wires.push(wire);
    [nics[0], nics[1], wire_id]
}

/// The network service, with an Open vSwitch.
struct Host {
    client: NetworkServiceClient<Channel>,
    netns: PathBuf,
    service: Child,
    _ovs: Ovs,
    _dir: tempfile::TempDir,
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.service.kill();
        let _ = self.service.wait();
    }
}

impl Host {
    async fn start(namespace: Arc<Namespace>) -> Host {
        Host::start_with(namespace, "").await
    }

    /// With more lines for `[network]`.
    async fn start_with(namespace: Arc<Namespace>, more: &str) -> Host {
        let dir = tempfile::tempdir().expect("a directory");
        let ovs = Ovs::start(&dir.path().join("ovs"), namespace.clone());
        let (data, run, config) =
            (dir.path().join("data"), dir.path().join("run"), dir.path().join("netloom.toml"));
        let text = format!(
            "data_dir = {data:?}\nrun_dir = {run:?}\n[network]\n{more}\novsdb_socket = {:?}\novs_run_dir = {:?}\n",
            ovs.socket(),
            ovs.run_dir()
        );
        std::fs::write(&config, text).expect("a configuration");
        let netns = run.join("netns");
        std::fs::create_dir_all(&netns).expect("a directory");
        let log = File::create(dir.path().join("log")).expect("a log");
        let mut command = namespace.command(netloom_tests::binaries().join("netloom-network"));
        let command = command.arg("--config").arg(&config).stdin(Stdio::null());
        let service = command.stdout(log.try_clone().expect("a handle")).stderr(log).spawn();
        let channel = Connector::default().channel(&Endpoint::Unix(run.join("network.sock")));
        let client = NetworkServiceClient::new(channel).max_decoding_message_size(256 << 20);
        let service = service.expect("netloom-network, which `make bench` builds");
        let mut host = Host { client, netns, service, _ovs: ovs, _dir: dir };
        let sync = pb::SyncRequest { term: 1, ticket_key: vec![7; 32], ..pb::SyncRequest::default() };
        let begun = Instant::now();
        while let Err(e) = host.client.sync(sync.clone()).await {
            assert!(begun.elapsed() < Duration::from_secs(30), "the network service does not answer: {e}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        host
    }

    fn node(&self) -> Node {
        Node::make(Some(&self.netns))
    }

    /// Two nodes with a wire between them that is up.
    async fn pair(&mut self, plane: Plane, net: u8) -> [Node; 2] {
        let nodes = [self.node(), self.node()];
        let mut slice = pb::Slice::default();
        add(&mut slice, [(&nodes[0], 1), (&nodes[1], 1)], plane, Some(net));
        self.up(slice).await;
        for node in &nodes {
            node.net.set(net).expect("set once");
        }
        nodes
    }

    /// Has all this made, and waits until each wire is up; how long that took.
    async fn up(&mut self, slice: pb::Slice) -> Duration {
        let mut missing: std::collections::BTreeSet<u64> = slice.wires.iter().map(|w| w.wire_id).collect();
        let mut events = self.client.observe(pb::ObserveRequest {}).await.expect("a stream").into_inner();
        // Everything that was there before is told first.
        while !matches!(events.message().await.expect("a stream").and_then(|m| m.event), Some(Event::Snapshot(s)) if !s.more)
        {
        }
        let begun = Instant::now();
        let request = pb::EnsureRequest { term: 1, slice: Some(slice), ..pb::EnsureRequest::default() };
        self.client.ensure(request).await.expect("taken note of");
        while !missing.is_empty() {
            let next = tokio::time::timeout(Duration::from_secs(60), events.message()).await;
            let wires = match next.expect("wires come up").expect("a stream").and_then(|m| m.event) {
                Some(Event::Snapshot(everything)) => everything.wires,
                Some(Event::Changes(changes)) => changes.wires,
                _ => Vec::new(),
            };
            for wire in wires.iter().filter(|w| w.state() == pb::WireState::Up) {
                missing.remove(&wire.wire_id);
            }
        }
        begun.elapsed()
    }

    async fn remove(&mut self, wire_ids: Vec<u64>) {
        let request = pb::RemoveRequest { term: 1, wire_ids, ..pb::RemoveRequest::default() };
        let left = self.client.remove(request).await.expect("an answer");
        assert_eq!(left.into_inner().failures, [], "left over");
    }
}
