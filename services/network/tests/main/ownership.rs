//! What is not ours is not touched, what nobody wants stays until it is removed, and removal leaves nothing.

use netloom_model::id::{NodeUid, WireId};
use netloom_proto::network::v1 as pb;
use netloom_proto::v1::Plane;
use netloom_service::testing::eventually;

use crate::harness::{BOUND, Host, On, Slice, nic, on_a_host, on_both_planes, run};

on_both_planes!(
    interfaces_and_ports_of_others_are_left_alone,
    nothing_is_done_before_the_first_sync_and_absence_removes_nothing,
    what_cannot_be_removed_is_told,
);

#[test]
fn a_foreign_bridge_of_our_name_is_left_alone() {
    on_a_host("a_foreign_bridge_of_our_name_is_left_alone", || async {
        let host = Host::start_with("", |host| {
            let bridge = ["add-br", "nl0", "--", "set", "Bridge", "nl0", "datapath_type=netdev"];
            host.ovs.vsctl(&bridge);
            host.ovs.vsctl(&[
                "add-port",
                "nl0",
                "theirs",
                "--",
                "set",
                "Interface",
                "theirs",
                "type=internal",
            ]);
            host.ovs.ofctl("add-flow", "nl0", &["cookie=0x77,actions=NORMAL"]);
        })
        .await;
        let state = || (host.ovs.vsctl(&["list", "Bridge"]), host.ovs.flows("nl0"));
        let before = state();
        let (a, b) = (host.node(), host.node());
        let mut slice = Slice::default();
        let (left, right) = (slice.nic(&a, "eth1"), slice.nic(&b, "eth1"));
        let wire = slice.wire(nic(left), nic(right));
        host.sync(&slice).await;
        host.until("it fails", |t| t.wires.get(&wire).is_some_and(|w| w.state() == pb::WireState::Failed))
            .await;
        let detail = host.told().wires[&wire].detail.clone();
        assert!(detail.contains("bridge nl0 exists and is not netloom's"), "{detail}");
        host.until("it is a problem of the host", |t| t.inventory.problems == [detail.clone()]).await;
        assert!(!a.has_carrier("eth1"));
        host.remove(slice.ids()).await;
        assert_eq!(state(), before);
        // Once it is out of the way, ours is made.
        host.sync(&slice).await;
        host.ovs.vsctl(&["del-br", "nl0"]);
        host.until_up(&[wire]).await;
        host.until("the problem is gone", |t| t.inventory.problems.is_empty()).await;
        assert_eq!(host.told().inventory.datapath, "netdev");
        assert!(host.told().inventory.ovs_version.contains('.'));
    });
}

fn interfaces_and_ports_of_others_are_left_alone(on: On) {
    on_a_host("interfaces_and_ports_of_others_are_left_alone", || async move {
        let host = Host::start_on(on).await;
        let nodes = [host.node(), host.node(), host.node()];
        let mut slice = Slice::default();
        let nics = [0, 1, 2].map(|n| slice.nic(&nodes[n], "eth1"));
        let other = slice.nic(&nodes[0], "eth2");
        let names = nics.map(|n| WireId::try_from(n).unwrap().interface_name("nl"));
        // One with the name of our NIC, owned by nobody; one by another installation; a port by nobody.
        run("ip", &["link", "add", &names[0], "type", "veth", "peer", "name", "x0"]);
        run("ip", &["link", "add", &names[1], "type", "veth", "peer", "name", "x1"]);
        let alias = format!("netloom:{}:{}:s1:00000000", NodeUid::new(), nics[1]);
        run("ip", &["link", "set", &names[1], "alias", &alias]);
        host.ovs.vsctl(&["add-br", "theirs", "--", "set", "Bridge", "theirs", "datapath_type=netdev"]);
        let internal = ["--", "set", "Interface", &names[2], "type=internal"];
        host.ovs.vsctl(&[&["add-port", "theirs", &names[2]], &internal[..]].concat());
        let state = || {
            let links =
                names[..2].iter().map(|name| run("ip", &["-o", "link", "show", name])).collect::<Vec<_>>();
            (links, host.ovs.vsctl(&["list-ports", "theirs"]))
        };
        let before = state();
        let wires = [slice.wire(nic(nics[0]), nic(nics[1])), slice.wire(nic(nics[2]), nic(other))];
        host.sync(&slice).await;
        for wire in wires {
            host.until("it fails", |t| {
                t.wires.get(&wire).is_some_and(|w| w.state() == pb::WireState::Failed)
            })
            .await;
            let detail = host.told().wires[&wire].detail.clone();
            assert!(detail.starts_with("the host has an interface"), "{detail}");
        }
        host.remove(slice.ids()).await;
        assert_eq!(state(), before);
        assert!(nodes[0].interface("eth1").is_none());
    });
}

fn nothing_is_done_before_the_first_sync_and_absence_removes_nothing(on: On) {
    on_a_host("nothing_is_done_before_the_first_sync_and_absence_removes_nothing", || async move {
        let mut host = Host::start_on(on).await;
        let nodes = [host.node(), host.node()];
        let mut slice = Slice::default();
        let ends = [slice.nic(&nodes[0], "eth1"), slice.nic(&nodes[1], "eth1")];
        let wire = slice.wire(nic(ends[0]), nic(ends[1]));
        host.ensure(&slice).await;
        host.until("heartbeats go on", |t| t.heartbeats > 2).await;
        assert!(nodes[0].interface("eth1").is_none(), "made before the first Sync");
        assert_eq!(host.ovs.vsctl(&["list-br"]), "");
        host.sync(&slice).await;
        host.until_up(&[wire]).await;

        // A slice without them: they stay, they carry, and they are reported.
        host.sync(&Slice::default()).await;
        let mut all = slice.ids();
        all.sort_unstable();
        host.until("they are reported", |t| t.unwanted == all).await;
        let flows = host.joints();
        assert_eq!(flows.len(), 2, "{flows:?}");
        host.until("heartbeats go on", |t| t.heartbeats > 3).await;
        assert_eq!(host.joints(), flows);
        assert!(nodes[0].has_carrier("eth1"));
        // After a restart of the service they can be removed though nobody remembers them.
        host.stop_service().await;
        host.start_service().await;
        host.until("they are reported", |t| t.unwanted == all).await;
        host.sync(&Slice::default()).await;
        host.remove(all).await;
        assert!(host.joints().is_empty());
        assert_eq!(host.ovs.vsctl(&["list-ports", "nl0"]), "");
        assert_eq!(host.interfaces(), Vec::<String>::new());
        eventually("nothing is reported", BOUND, || async { host.told().unwanted.is_empty() }).await;
        assert!(nodes.iter().all(|n| n.interface("eth1").is_none()));
    });
}

fn what_cannot_be_removed_is_told(on: On) {
    on_a_host("what_cannot_be_removed_is_told", || async move {
        let mut host = Host::start_on(on).await;
        let nodes = [host.node(), host.node()];
        let mut slice = Slice::default();
        let ends = [slice.nic(&nodes[0], "eth1"), slice.nic(&nodes[1], "eth1")];
        let wire = slice.wire(nic(ends[0]), nic(ends[1]));
        host.sync(&slice).await;
        host.until_up(&[wire]).await;
        if on == On::Kernel {
            // Where Open vSwitch has no part, it is not waited for.
            host.ovs.stop_server();
            host.remove(slice.ids()).await;
            assert_eq!(host.interfaces(), Vec::<String>::new());
            host.ovs.start_server();
            // Where it may have: the ports of a wire that it carried until a moment ago.
            slice.0.wires[0].plane = Plane::Ovs.into();
            host.sync(&slice).await;
            host.until("Open vSwitch carries it", |t| t.up(wire) && t.wires[&wire].plane == "ovs").await;
            host.ovs.stop_server();
            host.until("its database is missed", |t| !t.inventory.problems.is_empty()).await;
            slice.0.wires[0].plane = Plane::Kernel.into();
            host.ensure(&slice).await;
        } else {
            host.ovs.stop_server();
        }
        let request = pb::RemoveRequest { term: 1, wire_ids: slice.ids(), decision: 0 };
        let response = host.client.clone().remove(request.clone()).await.unwrap().into_inner();
        assert_eq!(response.failures.len(), 3);
        assert!(
            response.failures.iter().all(|f| f.message.contains("database does not answer")),
            "{response:?}"
        );
        host.ovs.start_server();
        host.remove(slice.ids()).await;
        assert_eq!(host.ovs.vsctl(&["list-ports", "nl0"]), "");
    });
}

#[test]
fn a_kernel_datapath_that_does_not_work_is_given_up() {
    on_a_host("a_kernel_datapath_that_does_not_work_is_given_up", || async {
        // As if it had been made where the kernel has the datapath.
        let host = Host::start_with("", |host| {
            let settings = ["datapath_type=system", "fail_mode=secure", "protocols=OpenFlow14"];
            let owner = format!("external_ids:netloom-owner={}", host.owner());
            let other = "other_config:forward-bpdu=true";
            let set = [&["set", "Bridge", "nl0"], &settings[..], &[owner.as_str(), other]].concat();
            host.ovs.vsctl(&[&["--no-wait", "add-br", "nl0", "--"], &set[..]].concat());
        })
        .await;
        let nodes = [host.node(), host.node()];
        let mut slice = Slice::default();
        let ends = [slice.nic(&nodes[0], "eth1"), slice.nic(&nodes[1], "eth1")];
        let wire = slice.wire(nic(ends[0]), nic(ends[1]));
        host.sync(&slice).await;
        host.until_up(&[wire]).await;
        host.until("userspace is told", |t| t.inventory.datapath == "netdev").await;
    });
}
