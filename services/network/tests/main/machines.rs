//! Taps of virtual machines: taken over while their machine holds them, let go of, never deleted; and carrier, which their guests see as compute tells
//! them.

use std::collections::BTreeSet;
use std::time::Duration;

use netloom_proto::network::v1 as pb;
use netloom_proto::v1::Plane;
use netloom_service::testing::eventually;

use crate::frames::{Port, crossings};
use crate::harness::{BOUND, Handle, Host, Node, On, Slice, host_end, nic, on_a_host, on_both_planes, run};
use crate::traffic::Traffic;

on_both_planes!(
    a_machine_sees_its_far_end_go_down_and_come_back,
    two_machines_see_each_other_end_and_start,
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
        host.until("it fails", |t| t.wires.get(&wire).is_some_and(|w| w.state() == pb::WireState::Failed))
            .await;
        let detail = host.told().wires[&wire].detail.clone();
        assert!(detail.contains(&format!("a tap {tap} that its virtual machine")), "{detail}");
        assert_eq!(shown(), before);
        host.remove(slice.ids()).await;
        assert_eq!(shown(), before);
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
            assert!(outcome.came_once(), "a frame came twice");
        }
    });
}
