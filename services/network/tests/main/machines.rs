//! Taps of virtual machines: taken over while their machine holds them, let go of, never deleted; and carrier, which their guests see as compute tells
//! them.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use netloom_model::id::NodeUid;
use netloom_proto::network::v1 as pb;
use netloom_proto::v1::Plane;
use netloom_service::handover;
use netloom_service::testing::{eventually, libvirt, require};

use crate::frames::{Port, crossings};
use crate::harness::{BOUND, Handle, Host, Node, On, Slice, host_end, nic, on_a_host, on_both_planes, run};
use crate::traffic::Traffic;

on_both_planes!(
    a_machine_sees_its_far_end_go_down_and_come_back,
    two_machines_see_each_other_end_and_start,
    a_guest_of_qemu_moves_data_by_tcp,
    a_machine_that_dies_takes_carrier_from_the_far_end_though_nobody_says_so,
    a_nic_that_is_removed_from_a_running_machine_is_let_go_of_and_taken_over_again,
);

/// A container, a virtual machine and a wire between them.
struct Pair {
    // Dropped before the host, in whose directory they are published.
    nodes: [Node; 2],
    host: Host,
    slice: Slice,
    nics: [u64; 2],
    wire: u64,
}

impl Pair {
    async fn start(on: On) -> Pair {
        let host = Host::start_on(on).await;
        let nodes = [host.node(), host.machine()];
        let mut slice = Slice::default();
        let nics = [0, 1].map(|n| slice.nic(&nodes[n], "eth1"));
        let wire = slice.wire(nic(nics[0]), nic(nics[1]));
        host.sync(&slice).await;
        host.until_up(&[wire]).await;
        Pair { nodes, host, slice, nics, wire }
    }

    async fn until_it_carries(&self) {
        self.host.until_up(&[self.wire]).await;
        let ports = [0, 1].map(|n| Port::open(&self.nodes[n], "eth1"));
        let both: BTreeSet<(usize, usize)> = [(0, 1), (1, 0)].into();
        let patience = Duration::from_millis(300);
        eventually("frames cross both ways", BOUND, || async { crossings(&ports, &both, patience) == both })
            .await;
    }

    fn tap(&self) -> String {
        host_end(self.nics[1])
    }
}

fn a_machine_that_dies_takes_carrier_from_the_far_end_though_nobody_says_so(on: On) {
    on_a_host("a_machine_that_dies_takes_carrier_from_the_far_end_though_nobody_says_so", || async move {
        let mut pair = Pair::start(on).await;
        let (far, wire) = (Handle::open(&pair.nodes[0], "eth1"), pair.wire);
        for _ in 0..3 {
            pair.nodes[1].kill();
            let took = far.until_carrier(false);
            eprintln!("carrier lost {took:?} after the machine");
            pair.host.until("it is told", |t| !t.up(wire)).await;
            pair.nodes[1].restart();
            pair.until_it_carries().await;
            assert!(far.has_carrier());
        }
    });
}

fn a_nic_that_is_removed_from_a_running_machine_is_let_go_of_and_taken_over_again(on: On) {
    on_a_host(
        "a_nic_that_is_removed_from_a_running_machine_is_let_go_of_and_taken_over_again",
        || async move {
            let pair = Pair::start(on).await;
            let shown = || run("ip", &["-o", "link", "show", &pair.tap()]);
            let index = || shown().split(':').next().unwrap().to_owned();
            let before = index();
            assert!(shown().contains("alias netloom:"), "{}", shown());
            pair.host.remove(vec![pair.wire, pair.nics[1]]).await;
            // Open vSwitch may set up again what was when it got it: without our mark it is no cable to anybody.
            assert!(!shown().contains("netloom:"), "{}", shown());
            assert!(!pair.nodes[0].has_carrier("eth1"));
            let left = run("tc", &["filter", "show", "dev", &pair.tap(), "ingress"]);
            assert!(left.trim().is_empty(), "{left}");
            pair.host.ensure(&pair.slice).await;
            pair.until_it_carries().await;
            assert_eq!(index(), before, "it is the same tap");
        },
    );
}

fn a_machine_sees_its_far_end_go_down_and_come_back(on: On) {
    on_a_host("a_machine_sees_its_far_end_go_down_and_come_back", || async move {
        let mut pair = Pair::start(on).await;
        let (near, guest) = (Handle::open(&pair.nodes[0], "eth1"), Handle::open(&pair.nodes[1], "eth1"));
        let wire = pair.wire;
        assert!(guest.has_carrier(), "a wire that is up is seen to be");
        for _ in 0..5 {
            near.set_up(false);
            let down = guest.until_carrier(false);
            pair.host
                .until("it is told", |t| {
                    let told = &t.wires[&wire];
                    told.end() == pb::End::A && told.detail == "the interface is down in its node"
                })
                .await;
            near.set_up(true);
            let up = guest.until_carrier(true);
            near.until_carrier(true);
            eprintln!("down {down:?}, up {up:?}");
            pair.host.until_up(&[wire]).await;
        }
        pair.slice.0.wires[0].enabled = false;
        pair.host.ensure(&pair.slice).await;
        guest.until_carrier(false);
        near.until_carrier(false);
        pair.slice.0.wires[0].enabled = true;
        pair.host.ensure(&pair.slice).await;
        pair.until_it_carries().await;
        assert!(guest.has_carrier() && near.has_carrier());
        pair.nodes[0].stop();
        guest.until_carrier(false);
        pair.nodes[0].restart();
        pair.until_it_carries().await;
        assert!(guest.has_carrier());
        // What is up only on the host is not up.
        let near = Handle::open(&pair.nodes[0], "eth1");
        near.set_up(false);
        guest.until_carrier(false);
        pair.nodes[1].stop_compute(true);
        near.set_up(true);
        pair.host
            .until("the machine was not told", |t| {
                let told = &t.wires[&wire];
                told.end() == pb::End::B && told.detail == "its virtual machine does not see the cable yet"
            })
            .await;
        pair.nodes[1].stop_compute(false);
        pair.host.until_up(&[wire]).await;
    });
}

fn two_machines_see_each_other_end_and_start(on: On) {
    on_a_host("two_machines_see_each_other_end_and_start", || async move {
        let host = Host::start_on(on).await;
        let mut nodes = [host.machine(), host.machine()];
        let mut slice = Slice::default();
        let nics = [0, 1].map(|n| slice.nic(&nodes[n], "eth1"));
        let wire = slice.wire(nic(nics[0]), nic(nics[1]));
        host.sync(&slice).await;
        host.until_up(&[wire]).await;
        for n in [0, 1, 0, 1] {
            let far = Handle::open(&nodes[1 - n], "eth1");
            assert!(far.has_carrier());
            nodes[n].stop();
            far.until_carrier(false);
            nodes[n].restart();
            far.until_carrier(true);
            host.until_up(&[wire]).await;
        }
        // Both at a time: neither waits for the other.
        nodes.iter_mut().for_each(Node::stop);
        host.until("both are gone", |t| nics.iter().all(|nic| !t.nics[nic].present)).await;
        nodes.iter_mut().for_each(Node::restart);
        host.until_up(&[wire]).await;
        for node in &nodes {
            Handle::open(node, "eth1").until_carrier(true);
        }
    });
}

#[test]
fn a_tap_that_its_machine_does_not_hold_is_left_alone() {
    on_a_host("a_tap_that_its_machine_does_not_hold_is_left_alone", || async {
        let host = Host::start().await;
        let nodes = [host.node(), host.machine()];
        let mut slice = Slice::default();
        let nics = [0, 1].map(|n| slice.nic(&nodes[n], "eth1"));
        let wire = slice.wire(nic(nics[0]), nic(nics[1]));
        let tap = host_end(nics[1]);
        run("ip", &["tuntap", "add", &tap, "mode", "tap"]);
        let shown = || run("ip", &["-o", "link", "show", &tap]);
        let before = shown();
        host.sync_without_machines(&slice).await;
        let begin = std::time::Instant::now();
        host.until("it fails", |t| t.wires.get(&wire).is_some_and(|w| w.state() == pb::WireState::Failed))
            .await;
        // A NIC that was added to a machine that runs failed at once: libvirt makes its tap before QEMU holds it.
        assert!(begin.elapsed() > Duration::from_secs(1), "it was given no time");
        let detail = host.told().wires[&wire].detail.clone();
        assert!(detail.contains(&format!("a tap {tap} that its virtual machine")), "{detail}");
        assert_eq!(shown(), before);
        host.remove(slice.ids()).await;
        assert_eq!(shown(), before);
    });
}

/// A QEMU with a guest that boots, ended when this is dropped.
struct Guest(Child);

impl Guest {
    /// With a tap of this name, and the NIC that compute gives machines: one that does not offer its guest to finish frames for it.
    fn boot(tap: &str, mac: &str) -> Guest {
        let disk = format!("file={},if=virtio,snapshot=on", libvirt::guest().display());
        let nic = format!(
            "virtio-net-pci,netdev=n,mac={mac},csum=off,gso=off,host_tso4=off,host_tso6=off,host_ecn=off,host_ufo=off"
        );
        let child = Command::new("qemu-system-x86_64")
            .args([
                "-machine",
                "q35,accel=tcg",
                "-cpu",
                "max",
                "-m",
                "128",
                "-nodefaults",
                "-display",
                "none",
            ])
            .args(["-netdev", &format!("tap,id=n,ifname={tap},script=no,downscript=no"), "-device", &nic])
            .args(["-drive", &disk, "-serial", "stdio"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn();
        let mut guest = Guest(child.unwrap());
        guest.until("guest is ready");
        guest
    }

    fn until(&mut self, text: &str) {
        let (mut said, mut byte) = (String::new(), [0]);
        while !said.ends_with(text) {
            assert_eq!(self.0.stdout.as_mut().unwrap().read(&mut byte).unwrap(), 1, "it ended: {said}");
            said.push(byte[0].into());
        }
    }

    fn run(&mut self, script: &str) {
        writeln!(self.0.stdin.as_mut().unwrap(), "{script}").unwrap();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn a_guest_of_qemu_moves_data_by_tcp(on: On) {
    if !require("a_guest_of_qemu_moves_data_by_tcp", "libvirt") {
        return;
    }
    // It may have to be built, for which this host has no network.
    libvirt::guest();
    on_a_host("a_guest_of_qemu_moves_data_by_tcp", || async move {
        const BYTES: usize = 2 << 20;
        let host = Host::start_on(on).await;
        let node = host.node();
        let mut slice = Slice::default();
        let near = slice.nic_as(&node, "eth1", "02:00:00:00:00:01", &["10.9.0.1/24"]);
        let far = slice.nic_as(&node, "eth1", "02:00:00:00:00:02", &[]);
        let uid = NodeUid::new();
        slice.0.nics[1].node_uid = uid.to_string();
        let wire = slice.wire(nic(near), nic(far));
        let mut guest = Guest::boot(&host_end(far), "02:00:00:00:00:02");
        let mut machine = handover::Machine::of(guest.0.id() as i32).unwrap();
        machine.carrier.insert(far.try_into().unwrap());
        machine.write(&host.dir.path().join(format!("run/netns/{uid}.s1"))).unwrap();
        host.sync(&slice).await;
        host.until_up(&[wire]).await;
        let listener = node.inside(|| TcpListener::bind("10.9.0.1:7")).unwrap();
        listener.set_nonblocking(true).unwrap();
        guest.run("ip address add 10.9.0.2/24 dev eth0");
        guest.run(&format!("dd if=/dev/zero bs=1024 count={} | nc 10.9.0.1 7 >/dev/null", BYTES / 1024));
        let mut stream = None;
        eventually("it connects", BOUND, || {
            stream = stream.take().or_else(|| listener.accept().ok());
            let is_there = stream.is_some();
            async move { is_there }
        })
        .await;
        let (mut stream, _) = stream.unwrap();
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(BOUND)).unwrap();
        stream.set_write_timeout(Some(BOUND)).unwrap();
        // And back, at the same time: who only writes is not read from either.
        let mut back = stream.try_clone().unwrap();
        let back = std::thread::spawn(move || back.write_all(&vec![b'x'; BYTES]));
        let (mut got, mut part) = (0, vec![0; 1 << 16]);
        while got < BYTES {
            let more = stream.read(&mut part).unwrap();
            assert!(more > 0, "it ended after {got} bytes");
            got += more;
        }
        back.join().unwrap().unwrap();
    });
}

#[test]
fn a_wire_of_a_machine_changes_its_plane_under_traffic() {
    on_a_host("a_wire_of_a_machine_changes_its_plane_under_traffic", || async {
        let mut pair = Pair::start(On::Ovs).await;
        for node in &pair.nodes {
            node.until_running("eth1").await;
        }
        let port = |n: usize| Port::open(&pair.nodes[n], "eth1");
        let traffic = [Traffic::start(port(0), port(1)), Traffic::start(port(1), port(0))];
        traffic[0].more(50).await;
        let tap = pair.tap();
        let index = || run("ip", &["-o", "link", "show", &tap]).split(':').next().unwrap().to_owned();
        let (before, wire) = (index(), pair.wire);
        for (plane, name) in [(Plane::Kernel, "kernel"), (Plane::Ovs, "ovs"), (Plane::Kernel, "kernel")] {
            pair.slice.0.wires[0].plane = plane.into();
            pair.host.ensure(&pair.slice).await;
            pair.host.until("it changed its plane", |t| t.up(wire) && t.wires[&wire].plane == name).await;
            traffic[0].more(50).await;
        }
        assert_eq!(index(), before);
        for traffic in traffic {
            let outcome = traffic.stop();
            let lost = outcome.lost_in_all();
            eprintln!("{lost} of {} frames lost over three changes", outcome.sent());
            assert!(lost < 450, "{lost} frames were lost");
            assert!(outcome.came_again() < 100, "{} frames came twice", outcome.came_again());
        }
    });
}
