//! A segment is joined to an interface or a bridge of its host: frames pass as they are, and the host's things are as they were when it goes.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use netloom_proto::network::v1 as pb;
use netloom_proto::v1 as p;
use netloom_service::testing::eventually;

use crate::frames::{Port, cross};
use crate::harness::{BOUND, Host, Node, Slice, Told, nic, on_a_host, run, segment};

/// A cable from an interface of the host to `far0` of a namespace that stands for what is out there.
fn cable(interface: &str, out_there: &Node) {
    let here = nix::unistd::gettid().to_string();
    out_there.run("ip", &["link", "add", "far0", "type", "veth", "peer", "name", interface, "netns", &here]);
    out_there.run("ip", &["link", "set", "far0", "up"]);
}

/// All that the host shows of an interface.
fn shown(interface: &str) -> String {
    let sysctl = |key: &str| fs::read_to_string(format!("/proc/sys/net/{key}")).unwrap();
    let of = |family: &str, key: &str| sysctl(&format!("{family}/conf/{interface}/{key}"));
    let [a, b, c] =
        [("ipv4", "rp_filter"), ("ipv4", "arp_ignore"), ("ipv6", "disable_ipv6")].map(|(f, k)| of(f, k));
    run("ip", &["-d", "-o", "link", "show", interface]) + &a + &b + &c
}

fn tagged() -> Vec<u8> {
    let mut frame = [[0xff; 6], [2, 0, 0, 0, 0, 9]].concat();
    frame.extend([0x81, 0, 0, 9, 0x88, 0xb5]);
    frame.resize(1_400, 7);
    frame
}

/// Frames with and without a tag pass both ways.
fn joined(node: &Node, out_there: &Node) {
    let [node, out_there] = [(node, "eth1"), (out_there, "far0")].map(|(n, name)| Port::open(n, name));
    for (frame, what) in [(crate::frames::marked("untagged"), "a frame"), (tagged(), "a tagged frame")] {
        cross(&node, &out_there, &frame, what);
        cross(&out_there, &node, &frame, what);
    }
}

fn failed(told: &Told, segment: u64, words: &str) -> bool {
    let is = |s: &pb::ObservedSegment| s.state() == pb::WireState::Failed && s.detail.contains(words);
    told.segments.get(&segment).is_some_and(is)
}

fn uplink(told: &Told, name: &str) -> Option<(p::UplinkKind, String)> {
    let one = told.inventory.uplinks.iter().find(|one| one.interface == name)?;
    Some((one.kind(), one.problem.clone()))
}

/// A node with an interface in a segment with this uplink, and its wire and segment.
fn node_on(host: &Host, slice: &mut Slice, uplink: &str, address: &str) -> (Node, u64, u64) {
    let node = host.node();
    let port = slice.nic_as(&node, "eth1", "02:00:00:00:0a:02", &[address]);
    let switch = slice.segment_on(uplink);
    let wire = slice.wire(nic(port), segment(switch));
    (node, wire, switch)
}

fn pings(from: &Node, address: &str) -> bool {
    let ping = || std::process::Command::new("ping").args(["-c", "1", "-W", "1", address]).output().unwrap();
    from.inside(ping).status.success()
}

#[test]
fn an_interface_is_a_port_of_a_segment_and_goes_back_as_it_was() {
    on_a_host("an_interface_is_a_port_of_a_segment_and_goes_back_as_it_was", || async {
        let mut host = Host::start_with("uplinks = [\"ens5\", \"ens6\", \"gone\"]", |_| {}).await;
        let out_there = host.node();
        cable("ens5", &out_there);
        // An interface has a queue once it was set up.
        for state in ["up", "down"] {
            run("ip", &["link", "set", "ens5", state]);
        }
        fs::write("/proc/sys/net/ipv4/conf/ens5/arp_ignore", "1").unwrap();
        let before = shown("ens5");
        host.until("it is told", |t| uplink(t, "ens5") == Some((p::UplinkKind::Nic, String::new()))).await;
        assert!(uplink(&host.told(), "gone").unwrap().1.contains("there is no interface gone"));

        let mut slice = Slice::default();
        let (node, wire, switch) = node_on(&host, &mut slice, "ens5", "10.7.0.2/24");
        host.sync(&slice).await;
        host.until_up(&[wire]).await;
        host.until("the segment is up", |t| t.segment_up(switch)).await;
        joined(&node, &out_there);

        // What is out there reaches the lab, and nothing of the host.
        run("ip", &["link", "set", "lo", "up"]);
        run("ip", &["address", "add", "10.7.0.1/32", "dev", "lo"]);
        out_there.run("ip", &["address", "add", "10.7.0.9/24", "dev", "far0"]);
        eventually("the node answers", BOUND, || async { pings(&out_there, "10.7.0.2") }).await;
        assert!(!pings(&out_there, "10.7.0.1"));
        let neighbours = out_there.run("ip", &["neigh", "show", "10.7.0.1"]);
        assert!(!neighbours.contains("lladdr"), "the host answers by its uplink: {neighbours}");
        assert!(!run("ip", &["address", "show", "ens5"]).contains("inet"), "the host gave it an address");

        // What is taken away by hand is put back, also what keeps the host off.
        host.ovs.vsctl(&["del-port", "ens5"]);
        fs::write("/proc/sys/net/ipv4/conf/ens5/arp_ignore", "0").unwrap();
        host.until("it is up again", |t| t.ups(switch) > 1 && t.segment_up(switch)).await;
        joined(&node, &out_there);
        let ignores =
            || async { fs::read_to_string("/proc/sys/net/ipv4/conf/ens5/arp_ignore").unwrap() == "8\n" };
        eventually("the host is kept off again", BOUND, ignores).await;

        // A service that starts again finds it.
        let port = host.ovs.vsctl(&["get", "port", "ens5", "_uuid"]);
        host.stop_service().await;
        joined(&node, &out_there);
        host.start_service().await;
        host.sync(&slice).await;
        host.until("the segment is up", |t| t.segment_up(switch)).await;
        assert_eq!(host.ovs.vsctl(&["get", "port", "ens5", "_uuid"]), port, "it was made anew");

        // It has room for one segment.
        let mut more = Slice::default();
        let second = more.segment_on("ens5");
        let third = more.segment_on("lo");
        host.ensure(&more).await;
        host.until("the second is refused", |t| failed(t, second, "is the uplink of another bridge")).await;
        host.until("so is what is not allowed", |t| failed(t, third, "name it in `uplinks`")).await;
        host.remove(more.ids()).await;

        host.remove(slice.ids()).await;
        assert_eq!(shown("ens5"), before);
        assert_eq!(host.ovs.vsctl(&["list-br"]).trim(), "nl0");
    });
}

#[test]
fn an_interface_that_is_pulled_out_is_told_and_taken_anew_when_it_is_back() {
    on_a_host("an_interface_that_is_pulled_out_is_told_and_taken_anew_when_it_is_back", || async {
        let host = Host::start_with("uplinks = [\"ens5\"]", |_| {}).await;
        let out_there = host.node();
        cable("ens5", &out_there);
        let mut slice = Slice::default();
        let (node, wire, switch) = node_on(&host, &mut slice, "ens5", "10.7.0.2/24");
        host.sync(&slice).await;
        host.until("the segment is up", |t| t.up(wire) && t.segment_up(switch)).await;
        out_there.run("ip", &["link", "set", "far0", "down"]);
        let detail = |t: &Told| t.segments[&switch].detail.clone();
        host.until("its cable is told to be out", |t| detail(t) == "its uplink ens5 has no carrier").await;
        run("ip", &["link", "delete", "ens5"]);
        host.until("it is told", |t| failed(t, switch, "there is no interface ens5")).await;
        assert!(host.told().up(wire), "the rest of the segment carries");
        cable("ens5", &out_there);
        host.until("it is back", |t| t.segment_up(switch) && detail(t).is_empty()).await;
        joined(&node, &out_there);
        // What the host takes into use goes back to it.
        run("ip", &["address", "add", "192.0.2.1/24", "dev", "ens5"]);
        host.until("it is let go of", |t| failed(t, switch, "has the address 192.0.2.1 of the host")).await;
        eventually("it is as it was", BOUND, || async { !shown("ens5").contains("netloom") }).await;
        run("ip", &["address", "flush", "dev", "ens5"]);
        host.until("it is taken again", |t| t.segment_up(switch)).await;
        joined(&node, &out_there);
    });
}

#[test]
fn a_segment_is_joined_to_a_linux_bridge() {
    on_a_host("a_segment_is_joined_to_a_linux_bridge", || async {
        let mut host = Host::start_with("uplinks = [\"br0\"]", |_| {}).await;
        let out_there = host.node();
        cable("ens5", &out_there);
        run("ip", &["link", "add", "br0", "type", "bridge"]);
        run("ip", &["link", "set", "ens5", "master", "br0", "up"]);
        run("ip", &["address", "add", "10.7.0.1/24", "dev", "br0"]);
        run("ip", &["link", "set", "br0", "up"]);
        let link = || run("ip", &["-o", "link", "show", "br0"]);
        let ports = || run("ip", &["-o", "link", "show", "master", "br0"]);
        eventually("it runs", BOUND, || async { link().contains("state UP") }).await;
        let (before, ports_before) = (link(), ports());
        let mut slice = Slice::default();
        let (node, wire, switch) = node_on(&host, &mut slice, "br0", "10.7.0.2/24");
        // Any number of segments may be joined to a bridge.
        let second = slice.segment_on("br0");
        host.sync(&slice).await;
        host.until("all is up", |t| t.up(wire) && t.segment_up(switch) && t.segment_up(second)).await;
        assert_eq!(uplink(&host.told(), "br0"), Some((p::UplinkKind::Bridge, String::new())));
        assert_eq!(link(), before, "the bridge is as it was");
        joined(&node, &out_there);

        // A connection to the host, which leaves checksums to others, as large as they get.
        let listener = node.inside(|| TcpListener::bind("10.7.0.2:80")).unwrap();
        let sent = vec![7; 1 << 20];
        let received = std::thread::scope(|scope| {
            let taken = scope.spawn(|| {
                let (mut taken, mut all) = (listener.accept().unwrap().0, Vec::new());
                taken.read_to_end(&mut all).unwrap();
                all
            });
            TcpStream::connect("10.7.0.2:80").unwrap().write_all(&sent).unwrap();
            taken.join().unwrap()
        });
        assert!(received == sent, "{} bytes of {}", received.len(), sent.len());

        let of_segment = |shown: String| {
            let name = |line: &str| line.split([':', '@']).nth(1).unwrap().trim().to_owned();
            shown.lines().map(name).filter(|name| name.starts_with("nl")).collect::<Vec<_>>()
        };
        let tails = of_segment(ports());
        assert_eq!(tails.len(), 2);
        run("ip", &["link", "set", &tails[0], "nomaster"]);
        run("ip", &["link", "delete", &tails[1]]);
        eventually("both are back", BOUND, || async { of_segment(ports()).len() == 2 }).await;
        host.until("all is up", |t| t.segment_up(switch) && t.segment_up(second)).await;
        joined(&node, &out_there);

        let shown = ports();
        host.stop_service().await;
        host.start_service().await;
        host.sync(&slice).await;
        host.until("all is up", |t| t.segment_up(switch) && t.segment_up(second)).await;
        assert_eq!(ports(), shown, "they were made anew");

        host.remove(slice.ids()).await;
        assert_eq!((link(), ports()), (before, ports_before));
        assert_eq!(host.interfaces(), Vec::<String>::new());
    });
}

#[test]
fn a_segment_is_joined_to_a_bridge_of_open_vswitch() {
    on_a_host("a_segment_is_joined_to_a_bridge_of_open_vswitch", || async {
        let mut host = Host::start_with("uplinks = [\"br0\"]", |host| {
            host.ovs.vsctl(&["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"]);
        })
        .await;
        let out_there = host.node();
        cable("ens5", &out_there);
        run("ip", &["link", "set", "ens5", "up"]);
        host.ovs.vsctl(&["add-port", "br0", "ens5"]);
        let bridge = || {
            host.ovs.vsctl(&[
                "--columns=external_ids,fail_mode,other_config,protocols",
                "list",
                "bridge",
                "br0",
            ])
        };
        let before = bridge();
        let mut slice = Slice::default();
        let (node, wire, switch) = node_on(&host, &mut slice, "br0", "10.7.0.2/24");
        host.sync(&slice).await;
        host.until("all is up", |t| t.up(wire) && t.segment_up(switch)).await;
        assert_eq!(uplink(&host.told(), "br0"), Some((p::UplinkKind::OvsBridge, String::new())));
        joined(&node, &out_there);
        let ports = || host.ovs.vsctl(&["list-ports", "br0"]);
        let there = ports();
        assert_eq!(there.lines().count(), 2, "{there}");
        let ours = there.lines().find(|name| *name != "ens5").unwrap();
        host.ovs.vsctl(&["del-port", "br0", ours]);
        eventually("it is back", BOUND, || async { ports() == there }).await;
        host.until("it is up again", |t| t.ups(switch) > 1 && t.segment_up(switch)).await;
        joined(&node, &out_there);
        assert_eq!(bridge(), before);

        host.stop_service().await;
        host.start_service().await;
        host.sync(&slice).await;
        host.until("all is up", |t| t.up(wire) && t.segment_up(switch)).await;
        host.remove(slice.ids()).await;
        assert_eq!(host.ovs.vsctl(&["list-ports", "br0"]).trim(), "ens5");
        assert_eq!(host.ovs.vsctl(&["list-br"]).lines().collect::<Vec<_>>(), ["br0", "nl0"]);
    });
}
