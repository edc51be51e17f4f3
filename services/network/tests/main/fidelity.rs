//! A wire passes every frame a cable would, to its far end and nowhere else.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use netloom_service::testing::eventually;

use crate::frames::{Port, cross, crossings, marked};
use crate::harness::{
    BOUND, Host, Node, On, Slice, nic, number, on_a_host, on_both_planes, run, with_machines,
};

on_both_planes!(
    a_wire_carries_every_kind_of_frame_byte_for_byte,
    two_equal_labs_do_not_meet,
    tcp_moves_data_over_a_wire,
    the_host_itself_does_not_answer_on_a_wire,
);
with_machines!(
    a_wire_carries_every_kind_of_frame_byte_for_byte,
    two_equal_labs_do_not_meet,
    tcp_moves_data_over_a_wire,
    the_host_itself_does_not_answer_on_a_wire,
);

/// One frame of each kind that bridges and switches like to eat.
pub fn kinds() -> Vec<(&'static str, Vec<u8>)> {
    let frame = |to: [u8; 6], rest: &[u8]| {
        let mut frame = [to, [2, 0, 0, 0, 0, 9]].concat();
        frame.extend(rest);
        frame.resize(frame.len().max(60), 0x5a);
        frame
    };
    let unicast = [2, 0, 0, 0, 0, 8];
    let group = |last| [0x01, 0x80, 0xc2, 0, 0, last];
    let mut full = frame(unicast, &[0x88, 0xb5]);
    full.extend((0..9514 - full.len()).map(|n| n as u8));
    let mut full_tagged = frame(unicast, &[0x81, 0x00, 0x00, 0x07, 0x88, 0xb5]);
    full_tagged.extend((0..9518 - full_tagged.len()).map(|n| n as u8));
    vec![
        ("LLDP", frame(group(0x0e), &[0x88, 0xcc, 0x02, 0x07, 0x04])),
        ("LACP", frame(group(0x02), &[0x88, 0x09, 0x01, 0x01])),
        ("STP", frame(group(0x00), &[0x00, 0x26, 0x42, 0x42, 0x03])),
        ("EAPOL", frame(group(0x03), &[0x88, 0x8e, 0x01, 0x01])),
        ("PAUSE", frame(group(0x01), &[0x88, 0x08, 0x00, 0x01])),
        ("MACsec", frame(unicast, &[0x88, 0xe5, 0x2c, 0x00])),
        ("MPLS", frame(unicast, &[0x88, 0x47, 0x00, 0x01, 0x01, 0xff])),
        ("PPPoE", frame(unicast, &[0x88, 0x63, 0x11, 0x09])),
        ("broadcast", frame([0xff; 6], &[0x08, 0x06, 0x00, 0x01])),
        ("802.1Q", frame(unicast, &[0x81, 0x00, 0x60, 0x64, 0x88, 0xb5])),
        ("802.1Q VLAN 0", frame(unicast, &[0x81, 0x00, 0xe0, 0x00, 0x88, 0xb5])),
        ("802.1Q VLAN 4095", frame(unicast, &[0x81, 0x00, 0x0f, 0xff, 0x88, 0xb5])),
        ("802.1ad", frame(unicast, &[0x88, 0xa8, 0x00, 0x0a, 0x81, 0x00, 0x00, 0x14, 0x88, 0xb5])),
        ("802.1Q twice", frame(unicast, &[0x81, 0x00, 0x00, 0x0a, 0x81, 0x00, 0x00, 0x14, 0x88, 0xb5])),
        ("IPv6 multicast", frame([0x33, 0x33, 0, 0, 0, 5], &[0x86, 0xdd, 0x6c, 0])),
        ("full MTU", full),
        ("full MTU, tagged", full_tagged),
    ]
}

fn a_wire_carries_every_kind_of_frame_byte_for_byte(on: On) {
    on_a_host("a_wire_carries_every_kind_of_frame_byte_for_byte", || async move {
        let host = Host::start_on(on).await;
        let (a, b) = (host.node(), host.node());
        let mut slice = Slice::default();
        let (left, right) = (slice.nic(&a, "eth1"), slice.nic(&b, "eth1"));
        let wire = slice.wire(nic(left), nic(right));
        host.sync(&slice).await;
        host.until_up(&[wire]).await;
        for node in [&a, &b] {
            node.until_running("eth1").await;
        }
        let ports = [Port::open(&a, "eth1"), Port::open(&b, "eth1")];
        for (name, frame) in kinds() {
            cross(&ports[0], &ports[1], &frame, name);
            cross(&ports[1], &ports[0], &frame, name);
        }
    });
}

/// Two triangles with the same names, MACs and addresses: their nodes, and the pairs of ports that are wired.
fn twins(host: &Host, slice: &mut Slice) -> (Vec<Node>, Vec<u64>) {
    let (mut nodes, mut wires) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let lab: Vec<Node> = (0..3).map(|_| host.node()).collect();
        for (a, b) in [(0, 1), (1, 2), (2, 0)] {
            let mut end = |node: usize, name: &str, last: usize| {
                let mac = format!("02:00:00:00:0{a}:0{last}");
                slice.nic_as(&lab[node], name, &mac, &[&format!("10.0.{a}.{last}/24")])
            };
            let (left, right) = (end(a, "eth1", 1), end(b, "eth2", 2));
            wires.push(slice.wire(nic(left), nic(right)));
        }
        nodes.extend(lab);
    }
    (nodes, wires)
}

/// Ports in the order eth1, eth2 of each node; who reaches whom when all is right.
fn far_ends(nodes: &[Node]) -> (Vec<Port>, BTreeSet<(usize, usize)>) {
    let ports = nodes.iter().flat_map(|n| ["eth1", "eth2"].map(|name| Port::open(n, name))).collect();
    let mut pairs = BTreeSet::new();
    for lab in 0..nodes.len() / 3 {
        for (a, b) in [(0, 1), (1, 2), (2, 0)] {
            let (eth1, eth2) = (2 * (3 * lab + a), 2 * (3 * lab + b) + 1);
            pairs.extend([(eth1, eth2), (eth2, eth1)]);
        }
    }
    (ports, pairs)
}

fn two_equal_labs_do_not_meet(on: On) {
    on_a_host("two_equal_labs_do_not_meet", || async move {
        let mut host = Host::start_on(on).await;
        let mut slice = Slice::default();
        let (nodes, wires) = twins(&host, &mut slice);
        host.sync(&slice).await;
        host.until_up(&wires).await;
        let (ports, pairs) = far_ends(&nodes);
        let patience = Duration::from_millis(500);
        assert_eq!(crossings(&ports, &pairs, patience), pairs);
        // ping finds the right one of two equal addresses.
        for lab in 0..2 {
            nodes[3 * lab].run("ping", &["-c", "1", "-W", "5", "10.0.0.2"]);
        }
        // With the isolation taken out, and nobody there to mend it, the same check sees frames where they do not belong.
        host.stop_service().await;
        let whole = host.joints();
        host.leak();
        let leaked = crossings(&ports, &pairs, patience);
        assert!(leaked.len() > pairs.len() && leaked.is_superset(&pairs), "no leak was seen: {leaked:?}");
        // And with the service back, what is not its own goes.
        host.start_service().await;
        host.sync(&slice).await;
        host.until_up(&wires).await;
        eventually("what leaked goes", BOUND, || async { host.joints() == whole }).await;
        // What the datapath had cached of it goes a moment later.
        eventually("the labs are apart again", BOUND, || async {
            crossings(&ports, &pairs, patience) == pairs
        })
        .await;
    });
}

fn tcp_moves_data_over_a_wire(on: On) {
    on_a_host("tcp_moves_data_over_a_wire", || async move {
        let host = Host::start_on(on).await;
        let (a, b) = (host.node(), host.node());
        let mut slice = Slice::default();
        let left = slice.nic_as(&a, "eth1", "02:00:00:00:00:01", &["10.9.0.1/24", "2001:db8::1/64"]);
        let right = slice.nic_as(&b, "eth1", "02:00:00:00:00:02", &["10.9.0.2/24", "2001:db8::2/64"]);
        let wire = slice.wire(nic(left), nic(right));
        host.sync(&slice).await;
        host.until_up(&[wire]).await;
        let interface = b.interface("eth1").unwrap();
        assert_eq!(interface.mac, "02:00:00:00:00:02");
        assert!(interface.addresses.contains(&"10.9.0.2".to_owned()), "{interface:?}");
        assert!(interface.addresses.contains(&"2001:db8::2".to_owned()), "{interface:?}");
        moves_data(&[a, b], "10.9.0.2", 20 << 20);
    });
}

/// Moves so many bytes over TCP from the first node to the second, and looks at what arrived.
pub fn moves_data([a, b]: &[Node; 2], address: &str, bytes: usize) {
    let listener = b.inside(|| TcpListener::bind(format!("{address}:7"))).unwrap();
    let target = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(BOUND)).unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        got
    });
    let sent: Vec<u8> = (0..bytes).map(|n| (n / 7) as u8).collect();
    a.inside(|| {
        let mut stream = TcpStream::connect_timeout(&target, BOUND).unwrap();
        stream.set_write_timeout(Some(BOUND)).unwrap();
        stream.write_all(&sent).unwrap();
    });
    assert!(server.join().unwrap() == sent, "not the bytes that were sent");
}

fn the_host_itself_does_not_answer_on_a_wire(on: On) {
    on_a_host("the_host_itself_does_not_answer_on_a_wire", || async move {
        let host = Host::start_on(on).await;
        run("ip", &["link", "set", "lo", "up"]);
        run("ip", &["address", "add", "10.9.0.99/32", "dev", "lo"]);
        let (a, b) = (host.node(), host.node());
        let mut slice = Slice::default();
        let left = slice.nic_as(&a, "eth1", "02:00:00:00:00:01", &["10.9.0.1/24"]);
        let right = slice.nic_as(&b, "eth1", "02:00:00:00:00:02", &["10.9.0.2/24"]);
        let wire = slice.wire(nic(left), nic(right));
        host.sync(&slice).await;
        host.until_up(&[wire]).await;
        let (here, there) = (Port::open(&a, "eth1"), Port::open(&b, "eth1"));
        // Who has the host's address? The far end hears the question; nobody answers.
        let mut question = [[0xff; 6], [2, 0, 0, 0, 0, 1]].concat();
        question.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 9, 0, 1]);
        question.extend([0, 0, 0, 0, 0, 0, 10, 9, 0, 99]);
        question.resize(60, 0);
        cross(&here, &there, &question, "the question");
        // An answer would be back before a frame that crosses the wire twice.
        let token = marked(&format!("behind{};", number()));
        let deadline = std::time::Instant::now() + BOUND;
        let mut heard = Vec::new();
        while !heard.contains(&token) {
            assert!(std::time::Instant::now() < deadline, "the frame behind did not come");
            there.send(&token);
            std::thread::sleep(Duration::from_millis(20));
            heard.extend(here.drain());
        }
        let answers = heard.iter().filter(|f| f[12..14] == [0x08, 0x06] && f[20..22] == [0, 2]);
        assert_eq!(answers.count(), 0, "the host answered ARP");
    });
}
