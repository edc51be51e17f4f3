//! A segment is a switch: it floods, it forwards what bridges like to eat, and it reaches nothing but its own.

use std::collections::BTreeSet;
use std::time::Duration;

use netloom_service::testing::eventually;

use crate::frames::{Port, cross, crossings};
use crate::harness::{BOUND, Host, Node, Slice, nic, on_a_host, segment};

/// Everybody to everybody else within each group.
pub fn meshes(groups: &[&[usize]]) -> BTreeSet<(usize, usize)> {
    let pairs = groups.iter().flat_map(|g| g.iter().flat_map(|a| g.iter().map(|b| (*a, *b))));
    pairs.filter(|(a, b)| a != b).collect()
}

#[test]
fn segments_flood_within_themselves_and_join_by_wire() {
    on_a_host("segments_flood_within_themselves_and_join_by_wire", || async {
        let host = Host::start().await;
        let nodes: Vec<Node> = (0..6).map(|_| host.node()).collect();
        let mut slice = Slice::default();
        let segments = [slice.segment(), slice.segment()];
        let mut wires = Vec::new();
        for (at, node) in nodes.iter().enumerate() {
            let port = slice.nic(node, "eth1");
            wires.push(slice.wire(nic(port), segment(segments[at / 3])));
        }
        host.sync(&slice).await;
        host.until_up(&wires).await;
        let told = host.told();
        assert!(segments.iter().all(|s| told.segment_up(*s)), "{told:?}");
        for node in &nodes {
            node.until_running("eth1").await;
        }
        let ports: Vec<Port> = nodes.iter().map(|n| Port::open(n, "eth1")).collect();
        let apart = meshes(&[&[0, 1, 2], &[3, 4, 5]]);
        assert_eq!(crossings(&ports, &apart, Duration::from_millis(500)), apart);

        // Link-local frames, a tagged one and a full one pass a switch of ours too.
        let mut lldp = [[0x01, 0x80, 0xc2, 0, 0, 0x0e], [2, 0, 0, 0, 0, 9]].concat();
        lldp.extend([0x88, 0xcc]);
        lldp.resize(60, 7);
        let mut stp = [[0x01, 0x80, 0xc2, 0, 0, 0], [2, 0, 0, 0, 0, 9]].concat();
        stp.extend([0, 38, 0x42, 0x42, 3]);
        stp.resize(60, 7);
        let mut tagged = [[0xff; 6], [2, 0, 0, 0, 0, 9]].concat();
        tagged.extend([0x81, 0, 0, 9, 0x88, 0xb5]);
        tagged.resize(9518, 7);
        for (name, frame) in [("LLDP", lldp), ("STP", stp), ("a full tagged frame", tagged)] {
            cross(&ports[0], &ports[1], &frame, name);
            cross(&ports[0], &ports[2], &frame, name);
        }

        let mut more = Slice::default();
        let trunk = more.wire(segment(segments[0]), segment(segments[1]));
        host.ensure(&more).await;
        host.until_up(&[trunk]).await;
        let together = meshes(&[&[0, 1, 2, 3, 4, 5]]);
        assert_eq!(crossings(&ports, &together, Duration::from_millis(500)), together);

        more.0.wires[0].enabled = false;
        host.ensure(&more).await;
        eventually("the trunk is cut", BOUND, || async {
            crossings(&ports, &apart, Duration::from_millis(200)) == apart
        })
        .await;
        assert!(host.told().wires[&trunk].detail.contains("unplugged"));

        // Carrier does not cross a segment: the others keep theirs when a node goes.
        let mut nodes = nodes;
        nodes[0].stop();
        host.until("its wire is down", |told| !told.up(wires[0])).await;
        assert!(host.told().up(wires[1]) && nodes[1].has_carrier("eth1"));

        let mut all = slice.ids();
        all.extend(more.ids());
        host.remove(all).await;
        assert_eq!(host.ovs.vsctl(&["list-br"]).trim(), "nl0");
        assert_eq!(host.ovs.vsctl(&["list-ports", "nl0"]).trim(), "");
        assert_eq!(host.interfaces(), Vec::<String>::new());
    });
}

#[test]
fn a_segments_flow_is_put_back() {
    on_a_host("a_segments_flow_is_put_back", || async {
        let host = Host::start().await;
        let mut slice = Slice::default();
        let switch = slice.segment();
        host.sync(&slice).await;
        host.until("it is up", |told| told.segment_up(switch)).await;
        let bridges = host.ovs.vsctl(&["list-br"]);
        let bridge = bridges.lines().find(|name| name.starts_with("nls")).unwrap();
        let flows = host.ovs.flows(bridge);
        assert_eq!(flows.len(), 1, "{flows:?}");
        host.ovs.ofctl("del-flows", bridge, &[]);
        eventually("it is back", BOUND, || async { host.ovs.flows(bridge) == flows }).await;
        host.until("the loss is told", |told| told.ups(switch) > 1).await;
        host.ovs.vsctl(&["del-br", bridge]);
        eventually("the bridge is back", BOUND, || async { host.ovs.vsctl(&["list-br"]) == bridges }).await;
        host.until("it is up again", |told| told.ups(switch) > 2 && told.segment_up(switch)).await;
    });
}
