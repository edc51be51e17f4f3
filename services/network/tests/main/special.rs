//! Wires that lead out of the lab, or nowhere.

use netloom_proto::network::v1 as pb;
use netloom_service::testing::eventually;

use crate::harness::{
    BOUND, Host, Slice, Told, dummy, host_end, host_interface, interfaces, linux_bridge, nic, on_a_host, run,
};

#[test]
fn a_dummy_has_carrier_and_reaches_nobody() {
    on_a_host("a_dummy_has_carrier_and_reaches_nobody", || async {
        let host = Host::start().await;
        let node = host.node();
        let mut slice = Slice::default();
        let port = slice.nic(&node, "eth1");
        let wire = slice.wire(nic(port), dummy());
        host.sync(&slice).await;
        host.until_up(&[wire]).await;
        assert!(node.has_carrier("eth1"));
        host.until("there is a bridge", |t| t.inventory.datapath == "netdev").await;
        assert_eq!(host.ovs.vsctl(&["list-ports", "nl0"]).trim(), "");
        slice.0.wires[0].enabled = false;
        host.ensure(&slice).await;
        host.until("it is unplugged", |t| t.wires[&wire].detail == "unplugged").await;
        eventually("no carrier", BOUND, || async { !node.has_carrier("eth1") }).await;
    });
}

#[test]
fn a_wire_to_the_host_gives_it_an_interface_of_that_name() {
    on_a_host("a_wire_to_the_host_gives_it_an_interface_of_that_name", || async {
        let mut host = Host::start().await;
        let mut node = host.node();
        let mut slice = Slice::default();
        let port = slice.nic_as(&node, "eth1", "02:00:00:00:00:01", &["10.5.0.2/24"]);
        let wire = slice.wire(host_interface("lab-up"), nic(port));
        run("ip", &["link", "add", "lab-up", "type", "veth", "peer", "name", "other"]);
        let foreign = run("ip", &["-o", "link", "show", "lab-up"]);
        assert!(host.told().inventory.host_interfaces);
        host.sync(&slice).await;
        host.until("the clash is told", |t| {
            let wire = t.wires.get(&wire);
            wire.is_some_and(|w| w.state() == pb::WireState::Failed && w.detail.contains("lab-up"))
        })
        .await;
        assert_eq!(run("ip", &["-o", "link", "show", "lab-up"]), foreign, "a foreign interface was touched");
        run("ip", &["link", "delete", "lab-up"]);
        host.until_up(&[wire]).await;
        run("ip", &["address", "add", "10.5.0.1/24", "dev", "lab-up"]);
        node.until_running("eth1").await;
        run("ping", &["-c", "1", "-W", "5", "10.5.0.2"]);
        node.run("ping", &["-c", "1", "-W", "5", "10.5.0.1"]);
        assert_eq!(host.ovs.vsctl(&["list-ports", "nl0"]).trim(), "");
        // It is known again after a restart, and there again after one of the node.
        host.stop_service().await;
        host.start_service().await;
        host.sync(&slice).await;
        host.until_up(&[wire]).await;
        assert!(run("ip", &["address", "show", "lab-up"]).contains("10.5.0.1"), "it was made anew");
        node.restart();
        host.until("the new NIC is there", |t| t.nics[&port].start_id == node.start).await;
        host.until_up(&[wire]).await;
        assert!(run("ip", &["link", "show", "lab-up"]).contains("LOWER_UP"));
        // Without its wire it is an end like any other, and goes with its NIC.
        host.remove(vec![wire]).await;
        eventually("it has its own name", BOUND, || async { host.interfaces().contains(&host_end(port)) })
            .await;
        host.remove(vec![port]).await;
        assert_eq!(host.interfaces(), Vec::<String>::new());
    });
}

#[test]
fn a_host_that_does_not_want_it_gives_no_interface() {
    on_a_host("a_host_that_does_not_want_it_gives_no_interface", || async {
        let host = Host::start_with("host_interfaces = false", |_| {}).await;
        let node = host.node();
        let mut slice = Slice::default();
        let port = slice.nic(&node, "eth1");
        let wire = slice.wire(nic(port), host_interface("lab-up"));
        host.sync(&slice).await;
        host.until("it is refused", |t| {
            t.wires.get(&wire).is_some_and(|w| w.detail.contains("network.host_interfaces"))
        })
        .await;
        assert!(!host.told().inventory.host_interfaces);
    });
}

#[test]
fn what_cannot_be_is_refused_by_itself_and_the_rest_is_served() {
    on_a_host("what_cannot_be_is_refused_by_itself_and_the_rest_is_served", || async {
        let mut host = Host::start().await;
        let (one, other) = (host.node(), host.node());
        let mut slice = Slice::default();
        let good = ["eth1", "eth2"].map(|name| {
            let ends = [slice.nic(&one, name), slice.nic(&other, name)];
            slice.wire(nic(ends[0]), nic(ends[1]))
        });
        let reserved = host_end(1_000_000);
        let names = ["lo", "%d", "nl%d", "a/b", "all", "sixteen-letters-", &reserved, "nl0"];
        let bad: Vec<(u64, &str)> = names
            .iter()
            .enumerate()
            .map(|(n, name)| {
                let port = slice.nic(&one, &format!("bad{n}"));
                (slice.wire(nic(port), host_interface(name)), *name)
            })
            .collect();
        let bridge = slice.nic(&one, "bridged");
        let bridge = slice.wire(nic(bridge), linux_bridge("a b"));
        let nics = [slice.nic(&one, "eth%d"), slice.nic_as(&one, "eth3", "nonsense", &["10.0.0.1"])];
        let their = nics.map(|port| slice.wire(nic(port), dummy()));
        let refused = |t: &Told, wire: u64, what: &str| {
            let wire = t.wires.get(&wire);
            wire.is_some_and(|w| w.state() == pb::WireState::Failed && w.detail.contains(what))
        };
        let all_refused = |t: &Told| {
            bad.iter().all(|(wire, name)| refused(t, *wire, &format!("\"{name}\"")))
                && refused(t, bridge, "\"a b\"")
                && refused(t, their[0], "its name \"eth%d\"")
                && refused(t, their[1], "its MAC \"nonsense\"")
                && refused(t, their[1], "its address \"10.0.0.1\"")
                && nics.iter().all(|n| t.nics.get(n).is_some_and(|n| !n.present && !n.detail.is_empty()))
        };
        host.sync(&slice).await;
        host.until_up(&good).await;
        host.until("each is refused with its reason", all_refused).await;
        // So it is after a restart, and for what is added later.
        host.stop_service().await;
        host.start_service().await;
        host.sync(&slice).await;
        host.until_up(&good).await;
        host.until("each is refused again", all_refused).await;
        let mut more = Slice::default();
        let ends = [&one, &other].map(|node| more.nic(node, "eth4"));
        let (later, port) = (more.wire(nic(ends[0]), nic(ends[1])), more.nic(&one, "eth5"));
        let wrong = more.wire(nic(port), host_interface("a:b"));
        host.ensure(&more).await;
        host.until_up(&[later]).await;
        host.until("it is refused", |t| refused(t, wrong, "\"a:b\"")).await;
        assert!(!interfaces().iter().any(|i| i.name == "0"), "the kernel made a name of %d");
        // What was refused is mended in place.
        for wire in slice.0.wires.iter_mut().filter(|w| w.wire_id == bad[1].0) {
            wire.b = Some(host_interface("lab-up"));
        }
        host.ensure(&slice).await;
        host.until_up(&[bad[1].0]).await;
        assert!(run("ip", &["link", "show", "lab-up"]).contains("LOWER_UP"));
    });
}

#[test]
fn a_wire_to_a_linux_bridge_waits_for_it_and_becomes_its_port() {
    on_a_host("a_wire_to_a_linux_bridge_waits_for_it_and_becomes_its_port", || async {
        let host = Host::start().await;
        let nodes = [host.node(), host.node()];
        let mut slice = Slice::default();
        let ports = [0, 1].map(|n| {
            let (mac, address) = (format!("02:00:00:00:00:0{n}"), format!("10.6.0.1{n}/24"));
            slice.nic_as(&nodes[n], "eth1", &mac, &[&address])
        });
        let wires = ports.map(|port| slice.wire(nic(port), linux_bridge("br-mgmt")));
        host.sync(&slice).await;
        host.until("they wait", |t| {
            wires.iter().all(|w| t.wires.get(w).is_some_and(|w| w.detail.contains("no bridge br-mgmt yet")))
        })
        .await;
        run("ip", &["link", "add", "br-mgmt", "type", "bridge"]);
        run("ip", &["address", "add", "10.6.0.1/24", "dev", "br-mgmt"]);
        run("ip", &["link", "set", "br-mgmt", "up"]);
        host.until_up(&wires).await;
        for node in &nodes {
            node.until_running("eth1").await;
        }
        nodes[0].run("ping", &["-c", "1", "-W", "5", "10.6.0.11"]);
        run("ping", &["-c", "1", "-W", "5", "10.6.0.10"]);
        // Somebody takes a port out: it is put back.
        run("ip", &["link", "set", &host_end(ports[0]), "nomaster"]);
        eventually("it is a port again", BOUND, || async {
            run("ip", &["link", "show", &host_end(ports[0])]).contains("master br-mgmt")
        })
        .await;
        // Plugged elsewhere it is let go of, and the bridge stays.
        host.remove(wires.to_vec()).await;
        let mut other = Slice::default();
        let wire = other.wire(nic(ports[0]), nic(ports[1]));
        host.ensure(&other).await;
        host.until_up(&[wire]).await;
        eventually("they are no ports any more", BOUND, || async {
            ports.iter().all(|p| !run("ip", &["link", "show", &host_end(*p)]).contains("master br-mgmt"))
        })
        .await;
        nodes[0].run("ping", &["-c", "1", "-W", "5", "10.6.0.11"]);
        assert!(run("ip", &["link", "show", "br-mgmt"]).contains("br-mgmt"));
    });
}
