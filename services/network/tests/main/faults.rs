//! What is broken behind our back is told and mended; what restarts is found again.

use std::collections::BTreeSet;
use std::time::Duration;

use netloom_proto::network::v1 as pb;
use netloom_service::testing::eventually;

use crate::frames::{Port, crossings};
use crate::harness::{
    BOUND, Host, Node, On, Slice, nic, number, on_a_host, on_both_planes, run, with_machines,
};

on_both_planes!(
    a_node_that_starts_again_gets_its_nics_and_wires_back,
    what_makes_a_wire_is_put_back_and_its_loss_is_told,
    a_deleted_interface_is_made_again,
    a_service_that_starts_again_finds_everything_and_touches_nothing,
    an_interface_that_its_node_renamed_gets_its_name_back,
);
with_machines!(
    a_node_that_starts_again_gets_its_nics_and_wires_back,
    what_makes_a_wire_is_put_back_and_its_loss_is_told,
    a_service_that_starts_again_finds_everything_and_touches_nothing,
);

/// Two nodes and a wire that is up; ports to check it with.
struct Pair {
    // Dropped before the host, in whose directory they are mounted.
    nodes: [Node; 2],
    host: Host,
    slice: Slice,
    wire: u64,
}

impl Pair {
    async fn start() -> Pair {
        Pair::start_on(On::Ovs).await
    }

    async fn start_on(on: On) -> Pair {
        let host = Host::start_on(on).await;
        let nodes = [host.node(), host.node()];
        let mut slice = Slice::default();
        let left = slice.nic_as(&nodes[0], "eth1", "02:00:00:00:00:01", &["10.9.0.1/24"]);
        let right = slice.nic_as(&nodes[1], "eth1", "02:00:00:00:00:02", &["10.9.0.2/24"]);
        let wire = slice.wire(nic(left), nic(right));
        host.sync(&slice).await;
        host.until_up(&[wire]).await;
        Pair { host, nodes, slice, wire }
    }

    fn carries(&self) -> bool {
        let ports = [0, 1].map(|n| Port::open(&self.nodes[n], "eth1"));
        let both: BTreeSet<(usize, usize)> = [(0, 1), (1, 0)].into();
        crossings(&ports, &both, Duration::from_millis(300)) == both
    }

    async fn until_it_carries(&self) {
        self.host.until_up(&[self.wire]).await;
        eventually("frames cross both ways", BOUND, || async { self.carries() }).await;
    }

    fn index(&self, node: usize) -> String {
        self.nodes[node].run("ip", &["-o", "link", "show", "eth1"])
    }
}

fn a_node_that_starts_again_gets_its_nics_and_wires_back(on: On) {
    on_a_host("a_node_that_starts_again_gets_its_nics_and_wires_back", || async move {
        let mut pair = Pair::start_on(on).await;
        for _ in 0..3 {
            pair.nodes[1].restart();
            let start = pair.nodes[1].start.clone();
            let nics = pair.slice.0.nics.clone();
            pair.host.until("the new start is told", |t| t.nics[&nics[1].wire_id].start_id == start).await;
            pair.until_it_carries().await;
            let interface = pair.nodes[1].interface("eth1").unwrap();
            assert_eq!(interface.mac, "02:00:00:00:00:02");
            assert!(interface.addresses.contains(&"10.9.0.2".to_owned()));
        }
        // Also while ovs-vswitchd is too busy to see that the interface was gone in between.
        pair.host.ovs.freeze_vswitchd(true);
        pair.nodes[1].restart();
        let nics = pair.slice.0.nics.clone();
        let start = pair.nodes[1].start.clone();
        pair.host.until("the new start is told", |t| t.nics[&nics[1].wire_id].start_id == start).await;
        pair.host.ovs.freeze_vswitchd(false);
        pair.until_it_carries().await;
    });
}

fn what_makes_a_wire_is_put_back_and_its_loss_is_told(on: On) {
    on_a_host("what_makes_a_wire_is_put_back_and_its_loss_is_told", || async move {
        let pair = Pair::start_on(on).await;
        let whole = pair.host.joints();
        assert_eq!(whole.len(), 2, "{whole:?}");
        let mut times = Vec::new();
        for loss in 1..=9 {
            pair.host.cut();
            let begun = std::time::Instant::now();
            eventually("it is back", BOUND, || async { pair.host.joints() == whole }).await;
            times.push(begun.elapsed());
            // However soon it is back: that the wire was down is told each time, and then that it is up.
            pair.host.until("the loss is told", |told| told.ups(pair.wire) > loss).await;
        }
        // That it is gone is an event. By a look once a second half of them would take more than half of one.
        times.sort();
        eprintln!("back after {times:?}");
        assert!(times[times.len() / 2] < Duration::from_millis(300), "{times:?}");
        pair.until_it_carries().await;
    });
}

#[test]
fn a_flow_that_nobody_wants_goes() {
    on_a_host("a_flow_that_nobody_wants_goes", || async {
        let pair = Pair::start().await;
        let flows = pair.host.joints();
        pair.host.ovs.ofctl("add-flow", "nl0", &["cookie=0x5,priority=7,dl_type=0x800,actions=LOCAL"]);
        pair.host.ovs.ofctl("add-flow", "nl0", &["table=3,actions=NORMAL"]);
        eventually("foreign flows go", BOUND, || async { pair.host.joints() == flows }).await;
        pair.until_it_carries().await;
    });
}

#[test]
fn a_wire_whose_flows_cannot_be_had_is_not_called_up() {
    on_a_host("a_wire_whose_flows_cannot_be_had_is_not_called_up", || async {
        let pair = Pair::start().await;
        // Open vSwitch refuses more flows than its table may have.
        let limit = ["--", "--id=@t", "create", "Flow_Table", "flow_limit=0", "overflow_policy=refuse"];
        pair.host.ovs.vsctl(&[&limit[..], &["--", "set", "Bridge", "nl0", "flow_tables:0=@t"]].concat());
        pair.host.ovs.ofctl("del-flows", "nl0", &[]);
        let wire = pair.wire;
        pair.host.until("it is told", |t| t.wires[&wire].state() == pb::WireState::Failed).await;
        assert!(!pair.host.told().wires[&wire].detail.is_empty());
        pair.host.ovs.vsctl(&["clear", "Bridge", "nl0", "flow_tables"]);
        pair.until_it_carries().await;
    });
}

#[test]
fn a_removed_port_is_added_again() {
    on_a_host("a_removed_port_is_added_again", || async {
        let pair = Pair::start().await;
        let ports = pair.host.ovs.vsctl(&["list-ports", "nl0"]);
        pair.host.ovs.vsctl(&["del-port", ports.lines().next().unwrap()]);
        eventually("it is back", BOUND, || async { pair.host.ovs.vsctl(&["list-ports", "nl0"]) == ports })
            .await;
        pair.until_it_carries().await;
        // A tag that somebody set would take untagged frames for a VLAN's.
        pair.host.ovs.vsctl(&["set", "Port", ports.lines().next().unwrap(), "tag=7"]);
        eventually("the tag goes", BOUND, || async {
            pair.host.ovs.vsctl(&["--bare", "--columns=name", "find", "Port", "tag=7"]).trim().is_empty()
        })
        .await;
        pair.until_it_carries().await;
    });
}

#[test]
fn a_deleted_or_changed_bridge_is_mended() {
    on_a_host("a_deleted_or_changed_bridge_is_mended", || async {
        let pair = Pair::start().await;
        pair.host.ovs.vsctl(&["del-br", "nl0"]);
        let wire = pair.wire;
        pair.host.until("it is told", |t| t.wires[&wire].state() != pb::WireState::Up).await;
        pair.until_it_carries().await;
        pair.host.ovs.vsctl(&["set-fail-mode", "nl0", "standalone"]);
        eventually("it is secure again", BOUND, || async {
            pair.host.ovs.vsctl(&["get-fail-mode", "nl0"]).trim() == "secure"
        })
        .await;
        pair.until_it_carries().await;
    });
}

fn a_deleted_interface_is_made_again(on: On) {
    on_a_host("a_deleted_interface_is_made_again", || async move {
        let pair = Pair::start_on(on).await;
        let ends = pair.host.interfaces();
        assert_eq!(ends.len(), 2, "{ends:?}");
        run("ip", &["link", "delete", &ends[0]]);
        eventually("it is made again", BOUND, || async { pair.host.interfaces() == ends }).await;
        pair.until_it_carries().await;
    });
}

#[test]
fn wires_come_back_after_ovs_vswitchd_was_killed() {
    on_a_host("wires_come_back_after_ovs_vswitchd_was_killed", || async {
        let mut pair = Pair::start().await;
        // More wires, so that port numbers have a chance to be given out differently.
        let mut slice = pair.slice.clone();
        let (others, mut wires) = ([host_nodes(&pair.host), host_nodes(&pair.host)], vec![pair.wire]);
        for (one, other) in others[0].iter().zip(&others[1]) {
            let ends = [slice.nic(one, "eth1"), slice.nic(other, "eth1")];
            wires.push(slice.wire(nic(ends[0]), nic(ends[1])));
        }
        pair.host.sync(&slice).await;
        pair.host.until_up(&wires).await;
        let ports: Vec<Port> = others.iter().flatten().map(|n| Port::open(n, "eth1")).collect();
        let pairs: BTreeSet<(usize, usize)> = (0..8).flat_map(|n| [(n, n + 8), (n + 8, n)]).collect();
        for _ in 0..2 {
            pair.host.ovs.kill_vswitchd();
            let wire = pair.wire;
            pair.host.until("it is told", |t| t.wires[&wire].state() == pb::WireState::Unknown).await;
            assert!(pair.nodes[0].has_carrier("eth1"), "what is not known is not acted on");
            pair.host.ovs.start_vswitchd();
            let took = pair.host.until_up(&wires).await;
            eprintln!("9 wires back {took:?} after ovs-vswitchd");
            // Nothing crossed over while port numbers changed hands.
            assert_eq!(crossings(&ports, &pairs, Duration::from_millis(500)), pairs);
        }
        pair.until_it_carries().await;
    });
}

fn host_nodes(host: &Host) -> Vec<Node> {
    (0..8).map(|_| host.node()).collect()
}

#[test]
fn everything_is_built_again_when_the_database_is_lost() {
    on_a_host("everything_is_built_again_when_the_database_is_lost", || async {
        let mut pair = Pair::start().await;
        let wire = pair.wire;
        // Counters of the new database begin again below those of the old.
        for n in 0..20 {
            pair.host.ovs.vsctl(&["set", "Open_vSwitch", ".", &format!("external_ids:n={n}")]);
        }
        pair.host.ovs.stop_server();
        pair.host.until("it is told", |t| t.wires[&wire].state() == pb::WireState::Unknown).await;
        pair.host.until("and why", |t| t.inventory.problems.iter().any(|p| p.contains("database"))).await;
        pair.host.ovs.make_database();
        pair.host.ovs.start_server();
        pair.host.ovs.init();
        pair.until_it_carries().await;
        pair.host.until("all is well", |t| t.inventory.problems.is_empty()).await;
    });
}

fn a_service_that_starts_again_finds_everything_and_touches_nothing(on: On) {
    on_a_host("a_service_that_starts_again_finds_everything_and_touches_nothing", || async move {
        let mut pair = Pair::start_on(on).await;
        let before = (pair.index(0), pair.index(1), pair.host.joints());
        pair.host.stop_service().await;
        assert!(pair.carries(), "wires go on without the service");
        pair.host.start_service().await;
        let told = pair.host.told();
        assert!(!told.synced);
        pair.host.until("what exists is told", |t| t.unwanted.len() == 3).await;
        assert!(pair.carries());
        pair.host.sync(&pair.slice).await;
        pair.until_it_carries().await;
        assert_eq!((pair.index(0), pair.index(1), pair.host.joints()), before);
        let history = pair.host.told().history[&pair.wire].clone();
        assert!(!history.contains(&pb::WireState::Failed), "{history:?}");
        assert!(pair.host.told().unwanted.is_empty());
    });
}

fn an_interface_that_its_node_renamed_gets_its_name_back(on: On) {
    on_a_host("an_interface_that_its_node_renamed_gets_its_name_back", || async move {
        let pair = Pair::start_on(on).await;
        let (node, wire) = (&pair.nodes[1], pair.wire);
        let index = pair.index(1).split(':').next().unwrap().to_owned();
        for name in ["wan", "lan0"] {
            node.run("ip", &["link", "set", "eth1", "name", name]);
            let begun = std::time::Instant::now();
            eventually("it is called eth1", BOUND, || async { node.interface("eth1").is_some() }).await;
            eprintln!("its name is back after {:?}", begun.elapsed());
            pair.until_it_carries().await;
            assert_eq!(pair.index(1).split(':').next().unwrap(), index, "it was not made anew");
            assert!(node.interface("eth1").unwrap().addresses.contains(&"10.9.0.2".to_owned()));
        }
        // Its name is taken: that is told, and mended when it is free.
        let told = |t: &crate::harness::Told| {
            let told = &t.wires[&wire];
            told.state() == pb::WireState::Down && told.detail.contains("another interface of the node is")
        };
        let take = "printf 'link set eth1 name wan\nlink add eth1 type veth peer name p1\n' | ip -force -batch - || true";
        eventually("another is called eth1", BOUND, || async {
            node.interface("p1").is_some() || {
                node.run("sh", &["-c", take]);
                false
            }
        })
        .await;
        pair.host.until("it is told", told).await;
        node.run("ip", &["link", "delete", "eth1"]);
        pair.until_it_carries().await;
        // An interface in a namespace of the node's own making is left alone.
        let inner = format!("nt{}-{}", std::process::id(), number());
        node.run("ip", &["netns", "add", &inner]);
        node.run("ip", &["link", "set", "eth1", "netns", &inner, "name", "wan"]);
        node.run("ip", &["-n", &inner, "link", "set", "wan", "up"]);
        pair.host.until_up(&[wire]).await;
        assert!(node.run("ip", &["-n", &inner, "-o", "link", "show"]).contains("wan"));
        let a = crate::harness::Handle::open(&pair.nodes[0], "eth1");
        a.until_carrier(true);
        node.run("ip", &["-n", &inner, "link", "set", "wan", "down"]);
        a.until_carrier(false);
        node.run("ip", &["netns", "delete", &inner]);
    });
}
