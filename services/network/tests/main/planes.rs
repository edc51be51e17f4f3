//! Which plane carries a wire, and what it takes to change that while it carries.

use std::time::Duration;

use netloom_proto::network::v1 as pb;
use netloom_proto::v1::Plane;
use netloom_service::testing::eventually;

use crate::frames::{Port, marked};
use crate::harness::{
    BOUND, Handle, Host, Node, On, Slice, Told, host_end, nic, on_a_host, on_both_planes, run, with_machines,
};
use crate::traffic::Traffic;

/// Two nodes and a wire between them, with traffic both ways.
struct Pair {
    // Dropped before the host, in whose directory they are mounted.
    nodes: [Node; 2],
    host: Host,
    slice: Slice,
    wire: u64,
}

impl Pair {
    async fn start(on: On) -> Pair {
        let host = Host::start_on(on).await;
        let nodes = [host.node(), host.node()];
        let mut slice = Slice::default();
        let nics = [0, 1].map(|n| {
            let (mac, address) = (format!("02:00:00:00:00:0{}", n + 1), format!("10.8.0.{}/24", n + 1));
            slice.nic_as(&nodes[n], "eth1", &mac, &[&address])
        });
        let wire = slice.wire(nic(nics[0]), nic(nics[1]));
        host.sync(&slice).await;
        host.until_up(&[wire]).await;
        for node in &nodes {
            node.until_running("eth1").await;
        }
        Pair { nodes, host, slice, wire }
    }

    fn traffic(&self) -> [Traffic; 2] {
        let way = |from: usize, to: usize| {
            Traffic::start(Port::open(&self.nodes[from], "eth1"), Port::open(&self.nodes[to], "eth1"))
        };
        [way(0, 1), way(1, 0)]
    }

    async fn go(&mut self, plane: Plane, name: &str) {
        self.slice.0.wires[0].plane = plane.into();
        self.host.ensure(&self.slice).await;
        let wire = self.wire;
        self.host.until("it changed its plane", |t| t.up(wire) && t.wires[&wire].plane == name).await;
    }

    /// What stays the same of each NIC whatever carries its wire.
    fn identities(&self) -> Vec<(String, u64)> {
        let of = |node: &Node| (node.index("eth1"), node.carrier_changes("eth1"));
        self.nodes.iter().map(of).collect()
    }

    /// Whether each node leaves checksums to whoever takes its frames.
    fn offloads(&self) -> [bool; 2] {
        [0, 1].map(|n| Handle::open(&self.nodes[n], "eth1").leaves_checksums())
    }
}

on_both_planes!(
    what_a_wire_carries_is_counted_each_way_by_itself,
    what_somebody_else_does_to_its_frames_is_told_and_left_alone,
);
with_machines!(what_a_wire_carries_is_counted_each_way_by_itself);

fn what_a_wire_carries_is_counted_each_way_by_itself(on: On) {
    on_a_host("what_a_wire_carries_is_counted_each_way_by_itself", || async move {
        let pair = Pair::start(on).await;
        let frames = |n: usize| {
            let port = Port::open(&pair.nodes[n], "eth1");
            move |count: u32| {
                for _ in 0..count {
                    port.send(&marked(&"x".repeat(1_000)));
                    // No more at once than userspace has room for.
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        };
        let (there, back) = (frames(0), frames(1));
        let counted = |told: &Told| {
            let carried = told.carried.get(&pair.wire)?;
            let of = |way: Option<netloom_proto::v1::Carried>| way.map_or((0, 0), |c| (c.frames, c.bytes));
            Some((of(carried.a_to_b), of(carried.b_to_a)))
        };
        pair.host.until("something is counted", |told| counted(told).is_some()).await;
        // The nodes say something of themselves now and then, so it may be a little more.
        let (a, b) = counted(&pair.host.told()).unwrap();
        there(300);
        back(50);
        pair.host
            .until("they are counted", |told| {
                let Some((now_a, now_b)) = counted(told) else { return false };
                let (there, back) = (now_a.0 - a.0, now_b.0 - b.0);
                let bytes = (now_a.1 - a.1) / there.max(1);
                (300..340).contains(&there) && (50..90).contains(&back) && (880..1_020).contains(&bytes)
            })
            .await;
    });
}

fn what_somebody_else_does_to_its_frames_is_told_and_left_alone(on: On) {
    on_a_host("what_somebody_else_does_to_its_frames_is_told_and_left_alone", || async move {
        let mut pair = Pair::start(on).await;
        let (wire, end) = (pair.wire, host_end(pair.slice.0.nics[1].wire_id));
        let tc = |words: &str| run("tc", &words.replace("END", &end).split(' ').collect::<Vec<_>>());
        let says = |t: &Told, words: &str| {
            let told = &t.wires[&wire];
            t.up(wire) && told.detail.contains(words) && told.end() == pb::End::B
        };
        let is_silent = |t: &Told| t.up(wire) && t.wires[&wire].detail.is_empty();
        assert!(is_silent(&pair.host.told()));
        tc("qdisc add dev END root handle 7: pfifo limit 50");
        pair.host.until("the queue is told", |t| says(t, "a queue of somebody else's")).await;
        pair.nodes[0].run("ping", &["-c", "1", "-W", "5", "10.8.0.2"]);
        // Also by a service that finds it.
        pair.host.stop_service().await;
        pair.host.start_service().await;
        pair.host.sync(&pair.slice).await;
        let is_told = |t: &Told| t.wires.contains_key(&wire) && says(t, "a queue of somebody else's");
        pair.host.until("the queue is told again", is_told).await;
        assert!(tc("qdisc show dev END").contains("pfifo 7:"));
        tc("qdisc del dev END root");
        pair.host.until("it is gone", is_silent).await;
        if on == On::Kernel {
            let filters =
                "filter add dev END ingress protocol all pref 7 u32 match u32 0xdead 0xffffffff flowid 1:1";
            let is_told = |t: &Told| says(t, "a filter of somebody else's");
            for delete in ["pref 7 protocol all u32", "pref 7"] {
                tc(filters);
                pair.host.until("the filter is told", is_told).await;
                assert!(tc("filter show dev END ingress").contains("pref 7 "));
                tc(&format!("filter del dev END ingress {delete}"));
                pair.host.until("it is gone", is_silent).await;
            }
        }
    });
}

#[test]
fn a_change_of_plane_under_traffic_keeps_every_nic_and_loses_little() {
    on_a_host("a_change_of_plane_under_traffic_keeps_every_nic_and_loses_little", || async {
        let mut pair = Pair::start(On::Ovs).await;
        assert_eq!(pair.offloads(), [false; 2], "userspace takes finished frames only");
        let before = pair.identities();
        let traffic = pair.traffic();
        traffic[0].more(100).await;
        let mut quiet = Vec::new();
        for _ in 0..3 {
            for (plane, name, offload) in [(Plane::Kernel, "kernel", true), (Plane::Ovs, "ovs", false)] {
                pair.go(plane, name).await;
                eventually("offload follows", BOUND, || async { pair.offloads() == [offload; 2] }).await;
                // What the datapath has cached of the former way goes a moment later.
                traffic[0].more(100).await;
                let from = [traffic[0].now(), traffic[1].now()];
                traffic[0].more(200).await;
                let until = [traffic[0].now(), traffic[1].now()];
                quiet.push((name, [from[0]..until[0], from[1]..until[1]]));
            }
        }
        assert_eq!(pair.identities(), before, "a NIC was made anew, or lost its carrier");
        for (way, traffic) in traffic.into_iter().enumerate() {
            let outcome = traffic.stop();
            // A switch in userspace that gets no processor for long loses frames; not in every round, though.
            for plane in ["kernel", "ovs"] {
                let rounds = quiet.iter().filter(|(name, _)| *name == plane);
                let lost: Vec<_> = rounds.map(|(_, ranges)| outcome.lost(ranges[way].clone())).collect();
                assert!(lost.contains(&0), "lost on {plane} though nothing changed: {lost:?}");
            }
            let lost = outcome.lost_in_all();
            eprintln!("{lost} of {} frames lost over six changes", outcome.sent());
            // Six changes of some ten milliseconds each; a busy machine may take ten times as long.
            assert!(lost < 900, "{lost} frames were lost");
            // Userspace goes by what it has cached of flows that are gone, for a moment.
            assert!(outcome.came_again() < 100, "{} frames came twice", outcome.came_again());
        }
        // Checksums are right on either plane.
        for (plane, name) in [(Plane::Kernel, "kernel"), (Plane::Ovs, "ovs")] {
            pair.go(plane, name).await;
            crate::fidelity::moves_data(&pair.nodes, "10.8.0.2", 2 << 20);
        }
        let state =
            (pair.host.ovs.flows("nl0").len(), pair.host.ovs.vsctl(&["list-ports", "nl0"]).lines().count());
        assert_eq!(state, (2, 2));
    });
}

#[test]
fn a_wire_of_the_kernel_loses_no_frame_while_everything_around_it_restarts() {
    on_a_host("a_wire_of_the_kernel_loses_no_frame_while_everything_around_it_restarts", || async {
        let mut pair = Pair::start(On::Kernel).await;
        let before = (pair.identities(), pair.host.joints());
        let traffic = pair.traffic();
        traffic[0].more(50).await;
        pair.host.stop_service().await;
        traffic[0].more(50).await;
        pair.host.start_service().await;
        pair.host.until("what exists is told", |t| t.unwanted.len() == 3).await;
        pair.host.sync(&pair.slice).await;
        pair.host.until_up(&[pair.wire]).await;
        pair.host.ovs.kill_vswitchd();
        traffic[0].more(100).await;
        assert!(pair.host.told().up(pair.wire), "Open vSwitch has no part in it");
        pair.host.ovs.start_vswitchd();
        traffic[0].more(100).await;
        // Also when its database is lost.
        pair.host.ovs.stop_server();
        pair.host.until("it is told", |t| t.inventory.problems.iter().any(|p| p.contains("database"))).await;
        assert!(pair.host.told().up(pair.wire));
        pair.host.ovs.make_database();
        pair.host.ovs.start_server();
        pair.host.ovs.init();
        pair.host.until("all is well", |t| t.inventory.problems.is_empty()).await;
        traffic[0].more(100).await;
        assert_eq!((pair.identities(), pair.host.joints()), before);
        for traffic in traffic {
            let outcome = traffic.stop();
            assert_eq!(outcome.lost_in_all(), 0, "of {} frames", outcome.sent());
            assert_eq!(outcome.came_again(), 0);
        }
    });
}

#[test]
fn a_redirect_that_is_not_its_own_is_mended_and_what_others_hang_beside_it_stays() {
    on_a_host("a_redirect_that_is_not_its_own_is_mended_and_what_others_hang_beside_it_stays", || async {
        let mut pair = Pair::start(On::Kernel).await;
        let whole = pair.host.joints();
        let [end, far] = [0, 1].map(|n| host_end(pair.slice.0.nics[n].wire_id));
        let filters = || run("tc", &["filter", "show", "dev", &end, "ingress"]);
        // Somebody looks for frames of a kind of theirs before they go on.
        let words = format!(
            "filter add dev {end} ingress protocol all pref 7 u32 match u32 0xdead 0xffffffff flowid 1:1"
        );
        run("tc", &words.split(' ').collect::<Vec<_>>());
        // A redirect to the right place, with the mark of nobody: it is not known to be of this wire.
        let pref = "28268";
        run("tc", &["filter", "del", "dev", &end, "ingress", "pref", pref]);
        let words = format!(
            "filter add dev {end} parent ffff: protocol all pref {pref} u32 match u32 0 0 \
             action mirred egress redirect dev {far}"
        );
        run("tc", &words.split_whitespace().collect::<Vec<_>>());
        eventually("it is its own again", BOUND, || async {
            filters().contains("cookie") && pair.host.joints().len() == whole.len()
        })
        .await;
        pair.host.until_up(&[pair.wire]).await;
        pair.nodes[0].run("ping", &["-c", "1", "-W", "5", "10.8.0.2"]);
        assert!(filters().contains("pref 7 "), "a filter of somebody else's went: {}", filters());
        // Also when it is unplugged, and its place goes where nobody else uses it. (Open vSwitch itself clears that of its ports.)
        pair.slice.0.wires[0].enabled = false;
        pair.host.ensure(&pair.slice).await;
        eventually("no redirect is left", BOUND, || async { !filters().contains("mirred") }).await;
        assert!(filters().contains("pref 7 "), "{}", filters());
        eventually("the other end is as it was", BOUND, || async {
            !run("tc", &["qdisc", "show", "dev", &far]).contains("ingress")
        })
        .await;
    });
}

#[test]
fn auto_takes_the_kernel_where_open_vswitch_forwards_in_userspace_and_a_lab_may_say_otherwise() {
    on_a_host(
        "auto_takes_the_kernel_where_open_vswitch_forwards_in_userspace_and_a_lab_may_say_otherwise",
        || async {
            let host = Host::start_on(On::Auto).await;
            let nodes = [host.node(), host.node()];
            let mut slice = Slice::default();
            let wires = ["eth1", "eth2", "eth3"].map(|name| {
                let ends = [slice.nic(&nodes[0], name), slice.nic(&nodes[1], name)];
                slice.wire(nic(ends[0]), nic(ends[1]))
            });
            slice.0.wires[1].plane = Plane::Ovs.into();
            slice.0.wires[2].plane = Plane::Kernel.into();
            host.sync(&slice).await;
            host.until_up(&wires).await;
            let told = host.told();
            let of = |wire: u64| (told.wires[&wire].plane.as_str(), told.wires[&wire].plane_reason.as_str());
            assert_eq!(of(wires[0]), ("kernel", "auto: Open vSwitch forwards in userspace only"));
            assert_eq!(of(wires[1]), ("ovs", "lab: its plane is ovs"));
            assert_eq!(of(wires[2]), ("kernel", "lab: its plane is kernel"));
            assert_eq!(told.inventory.plane, "kernel");
            assert_eq!(told.inventory.plane_reason, "auto: Open vSwitch forwards in userspace only");
            assert_eq!(host.ovs.vsctl(&["list-ports", "nl0"]).lines().count(), 2, "ports of one wire");
            assert_eq!((host.ovs.flows("nl0").len(), host.joints().len()), (2, 4));
        },
    );
}
