use netloom_model::kind::Catalogue;
use netloom_model::observed::Observed;
use netloom_model::slice::ReadinessCheck;
use netloom_model::spec::{LabSpec, LinkSpec, MgmtSpec, NodeSpec};
use netloom_model::state::NodeState;

use super::*;
use crate::place::Room;
use crate::plan::{Context, plan};

fn host() -> HostId {
    "h1".parse().unwrap()
}

fn planned(current: &LabRows, spec: &LabSpec) -> LabRows {
    let room = Room {
        host: host(),
        heard: true,
        runtimes: [Runtime::Docker].into(),
        cpu_millis: 9_000,
        memory_bytes: 9 << 30,
        cpu_reserved: 0,
        memory_reserved: 0,
        disk_bytes: None,
        disk_reserved: 0,
        allowed: crate::place::Allowed {
            capabilities: vec!["NET_ADMIN".into(), "SYS_ADMIN".into()],
            ..Default::default()
        },
    };
    let catalogue = Catalogue::embedded();
    plan(current, spec, Context { catalogue: &catalogue, rooms: &[room], asked: true, revive: true, now: 1 })
        .rows
}

fn spec() -> LabSpec {
    serde_json::from_value(serde_json::json!({
        "prefix": "p",
        "nodes": [
            {"id": "r2", "kind": "linux", "image": "i"},
            {"id": "r1", "kind": "frr", "binds": [{"source": {"bundle": "r1"}, "target": "/etc/frr", "read_only": false}]},
            {"id": "sw", "kind": "bridge"}],
        "links": [
            {"a": {"node": "r2", "interface": "eth3", "ipv4": "10.0.0.2/24", "ipv6": "fd00::2/64"},
             "b": {"node": "r1", "interface": "eth1", "ipv4": "10.0.0.1/24", "mac": "02:00:00:00:00:AA"}, "mtu": 1500, "labels": {}},
            {"a": {"node": "r1", "interface": "eth2", "ipv4": "10.0.1.1/24"}, "b": {"node": "sw", "interface": "p1"}, "mtu": 0, "labels": {}}],
        "files": [
            {"path": "r1/frr.conf", "digest": format!("sha256:{}", "0".repeat(64)), "size_bytes": 5, "mode": 420},
            {"path": "r2/x", "digest": format!("sha256:{}", "1".repeat(64)), "size_bytes": 5, "mode": 420}],
    }))
    .unwrap()
}

fn ready() -> LabRows {
    let mut rows = planned(&LabRows::new("lab".parse().unwrap(), 1), &spec());
    for node in rows.nodes.values_mut() {
        node.image_step = ImageStep::Ready;
    }
    rows
}

#[test]
fn a_virtual_machine_is_told_its_nics_and_how_it_is_ready() {
    let mut rows = ready();
    let r2 = rows.node("r2").unwrap().uid;
    let before = instances(&rows, &host(), &Catalogue::embedded());
    assert!(before[&r2].nics.is_empty(), "those of a container are the network service's");
    let node = rows.nodes.values_mut().find(|n| n.uid == r2).unwrap();
    (node.spec.kind, node.runtime) = ("tcl".into(), Runtime::Libvirt);
    let all = instances(&rows, &host(), &Catalogue::embedded());
    let nics: Vec<_> = all[&r2].nics.iter().map(|n| (n.guest_name.as_str(), n.wire_id)).collect();
    let made = network(&rows, &host()).nics;
    let of_network: Vec<_> =
        made.values().filter(|n| n.node_uid == r2).map(|n| (n.guest_name.as_str(), n.wire_id)).collect();
    assert_eq!(nics, of_network);
    assert_eq!(nics.len(), 1);
    assert!(netloom_model::spec::is_mac(&all[&r2].nics[0].mac));
    let check = all[&r2].readiness.as_ref().map(|r| r.check.clone());
    assert_eq!(check, Some(ReadinessCheck::LogPattern("tc@box|login:".into())));
}

#[test]
fn an_instance_is_all_that_its_host_needs() {
    let rows = ready();
    let all = instances(&rows, &host(), &Catalogue::embedded());
    assert_eq!(all.len(), 2, "a bridge has no instance");
    let readiness = |id: &str| all[&rows.node(id).unwrap().uid].readiness.clone();
    assert_eq!((readiness("r2"), readiness("r1").map(|r| r.timeout_seconds)), (None, Some(60)));
    let r1 = &all[&rows.node("r1").unwrap().uid];
    assert_eq!((r1.name.as_str(), r1.wanted, r1.runtime), ("p-lab-r1", Wanted::Running, Runtime::Docker));
    assert_eq!(r1.interfaces, ["eth1", "eth2"]);
    assert_eq!(r1.files.iter().map(|f| f.path.as_str()).collect::<Vec<_>>(), ["r1/frr.conf"]);
    assert_eq!(r1.spec.image, "netloom/frr:local", "the kind's defaults are filled in");
    assert!(r1.network.is_none());
    let hosts: Vec<String> =
        r1.host_entries.iter().map(|e| format!("{} {}", e.address, e.names.join(" "))).collect();
    assert_eq!(hosts, ["10.0.0.1 r1", "10.0.0.2 r2", "fd00::2 r2"]);
    let r2 = &all[&rows.node("r2").unwrap().uid];
    assert_eq!(
        (r2.interfaces.as_slice(), &r2.host_entries),
        (["eth3".to_owned()].as_slice(), &r1.host_entries)
    );
    assert!(instances(&rows, &"h2".parse().unwrap(), &Catalogue::embedded()).is_empty());
}

#[test]
fn management_addresses_come_first() {
    let mut spec = spec();
    spec.mgmt = Some(MgmtSpec::default());
    let mut rows = planned(&LabRows::new("lab".parse().unwrap(), 1), &spec);
    for node in rows.nodes.values_mut() {
        node.image_step = ImageStep::Ready;
        let mut seen = Observed::absent(node.uid, rows.lab.uid);
        seen.mgmt_ipv4 = "172.20.0.9".into();
        node.observed = Some(seen.into());
    }
    let all = instances(&rows, &host(), &Catalogue::embedded());
    let r1 = &all[&rows.node("r1").unwrap().uid];
    assert_eq!(r1.network.as_ref().unwrap().name, "p-lab");
    assert_eq!(r1.host_entries[0].address, "172.20.0.9");
}

#[test]
fn a_host_is_told_the_fixed_addresses_of_containers_and_of_machines() {
    let mut spec = spec();
    spec.mgmt = Some(MgmtSpec { ipv4_subnet: "172.20.0.0/24".into(), ..MgmtSpec::default() });
    let mut rows = planned(&LabRows::new("lab".parse().unwrap(), 1), &spec);
    for node in rows.nodes.values_mut() {
        node.image_step = ImageStep::Ready;
        node.spec.mgmt_ipv4 = if node.id.as_str() == "r1" { "172.20.0.9" } else { "172.20.0.8" }.into();
        node.spec.mgmt_ipv6 = if node.id.as_str() == "r1" { "fd00::9" } else { "" }.into();
        if node.id.as_str() == "r2" {
            node.runtime = Runtime::Libvirt;
        }
    }
    rows.nodes.retain(|_, n| n.runtime != Runtime::Bridge);
    let all = instances(&rows, &host(), &Catalogue::embedded());
    for one in all.values() {
        let network = one.network.as_ref().unwrap();
        assert_eq!(network.fixed, ["172.20.0.9", "fd00::9"]);
        assert_eq!(network.fixed_of_machines, ["172.20.0.8"]);
        assert_eq!(one.spec_hash, rows.nodes[&one.uid].instance_hash(), "nothing is made anew for it");
    }
}

#[test]
fn a_node_is_admitted_when_its_image_is_there_and_its_former_self_is_out_of_the_way() {
    let mut rows = ready();
    let uid = rows.node("r1").unwrap().uid;
    let files = rows.lab.spec.files_of(&rows.nodes[&uid].spec);
    let node = rows.nodes.get_mut(&uid).unwrap();
    (node.files, node.own_files) = (netloom_model::slice::files_hash(&files), files);
    node.image_step = ImageStep::Pulling;
    assert!(!instances(&rows, &host(), &Catalogue::embedded()).contains_key(&uid));
    rows.nodes.get_mut(&uid).unwrap().image_step = ImageStep::Ready;
    let mut changed = spec();
    changed.nodes[1].env.insert("A".into(), "1".into());
    let mut next = planned(&rows, &changed);
    let new = next.told()["r1"].uid;
    assert_eq!(
        instances(&next, &host(), &Catalogue::embedded()),
        instances(&rows, &host(), &Catalogue::embedded())
    );
    assert!(
        instances_to_remove(&next, &host()).is_empty(),
        "what runs stays until its successor can be made"
    );
    assert_eq!(network(&next, &host()), network(&rows, &host()));
    next.nodes.get_mut(&new).unwrap().image_step = ImageStep::Ready;
    let mut seen = Observed::absent(uid, next.lab.uid);
    seen.phase = Phase::Running;
    next.nodes.get_mut(&uid).unwrap().observed = Some(seen.into());
    crate::plan::take_over(&mut next, &Catalogue::embedded(), 2);
    assert_eq!(next.node("r1").unwrap().uid, new);
    assert!(instances_to_remove(&next, &host()).is_empty());
    let told =
        |rows: &LabRows, uid| instances(rows, &host(), &Catalogue::embedded()).get(&uid).map(|i| i.wanted);
    assert_eq!((told(&next, uid), told(&next, new)), (Some(Wanted::Aside), None));
    let nics: BTreeSet<WireId> = network(&rows, &host()).nics.keys().copied().collect();
    assert!(nics.iter().all(|nic| network(&next, &host()).nics.contains_key(nic)), "with its interfaces");
    assert!(wires_to_remove(&next, &host()).is_empty());
    next.nodes.get_mut(&uid).unwrap().observed.as_mut().unwrap().phase = Phase::Aside;
    assert_eq!((told(&next, uid), told(&next, new)), (Some(Wanted::Aside), Some(Wanted::Running)));
    // Removed in the end, it is in nobody's way.
    next.nodes.get_mut(&uid).unwrap().wanted = Wanted::Absent;
    assert_eq!((told(&next, uid), told(&next, new)), (None, Some(Wanted::Running)));
    assert_eq!(instances_to_remove(&next, &host()), BTreeSet::from([uid]));
}

#[test]
fn wires_end_in_nics_and_segments() {
    let rows = ready();
    let slice = network(&rows, &host());
    assert_eq!((slice.nics.len(), slice.wires.len(), slice.segments.len()), (3, 2, 1));
    let r1 = rows.node("r1").unwrap().uid;
    let eth1 = slice.nics.values().find(|n| n.node_uid == r1 && n.guest_name == "eth1").unwrap();
    assert_eq!(
        (eth1.mac.as_str(), eth1.mtu, eth1.addresses.as_slice()),
        ("02:00:00:00:00:aa", 1_500, ["10.0.0.1/24".to_owned()].as_slice())
    );
    let eth2 = slice.nics.values().find(|n| n.node_uid == r1 && n.guest_name == "eth2").unwrap();
    let segment = *slice.segments.keys().next().unwrap();
    let to_switch = slice.wires.values().find(|w| w.a == WireEnd::Nic(eth2.wire_id)).unwrap();
    assert_eq!((&to_switch.b, to_switch.enabled), (&WireEnd::Segment(segment), true));
    assert!(wires_to_remove(&rows, &host()).is_empty());
    let mut gone = planned(&rows, &LabSpec::default());
    gone.nodes.values_mut().for_each(|n| n.wanted = Wanted::Absent);
    assert_eq!(wires_to_remove(&gone, &host()), rows.wire_ids());
    assert_eq!(network(&gone, &host()), NetworkSlice::default());
}

#[test]
fn a_link_ends_in_what_is_no_node() {
    use netloom_model::slice::mgmt_bridge;
    use netloom_model::spec::{EndpointType, LinkSpec};
    let end = |node: &str, interface: &str, kind| Endpoint {
        node: node.into(),
        interface: interface.into(),
        kind,
        ..Endpoint::default()
    };
    let link = |n: u32, other| LinkSpec {
        a: end("r2", &format!("eth{n}"), EndpointType::Node),
        b: other,
        ..LinkSpec::default()
    };
    let mut spec = LabSpec { mgmt: Some(MgmtSpec::default()), ..spec() };
    spec.links = vec![
        link(1, end("host", "veth-up", EndpointType::Host)),
        link(2, end("mgmt-net", "r2-up", EndpointType::MgmtNet)),
        link(3, end("dummy", "", EndpointType::Dummy)),
    ];
    let mut rows = planned(&LabRows::new("lab".parse().unwrap(), 1), &LabSpec::default());
    rows = {
        let room = Room {
            host: host(),
            heard: true,
            runtimes: [Runtime::Docker].into(),
            cpu_millis: 9_000,
            memory_bytes: 9 << 30,
            cpu_reserved: 0,
            memory_reserved: 0,
            disk_bytes: None,
            disk_reserved: 0,
            allowed: crate::place::Allowed {
                host_interfaces: true,
                capabilities: vec!["NET_ADMIN".into(), "SYS_ADMIN".into()],
                ..Default::default()
            },
        };
        let catalogue = Catalogue::embedded();
        let ctx = Context { catalogue: &catalogue, rooms: &[room], asked: true, revive: true, now: 1 };
        plan(&rows, &spec, ctx).rows
    };
    let slice = network(&rows, &host());
    let bridge = mgmt_bridge(&rows.lab.uid, &MgmtSpec::default());
    let ends: BTreeSet<String> = slice
        .wires
        .values()
        .flat_map(|w| [&w.a, &w.b])
        .filter_map(|e| match e {
            WireEnd::HostInterface(name) | WireEnd::Bridge(name) => Some(name.clone()),
            WireEnd::Dummy => Some("dummy".into()),
            WireEnd::Nic(_) | WireEnd::Segment(_) | WireEnd::Tunnel(_) => None,
        })
        .collect();
    assert_eq!(ends, ["veth-up".to_owned(), bridge.clone(), "dummy".into()].into());
    assert_eq!((slice.nics.len(), slice.wires.len()), (3, 3));
    rows.nodes.values_mut().for_each(|n| n.image_step = ImageStep::Ready);
    let instances = instances(&rows, &host(), &Catalogue::embedded());
    assert!(instances.values().all(|i| i.network.as_ref().unwrap().spec.bridge == bridge));
}

/// Nodes and interfaces were looked for one by one, at each end of each link: the plan of a lab of 4,000 nodes took 24 times as long as that of one of 1,000.
#[test]
fn a_large_lab_takes_about_the_work_of_as_many_nodes_in_small_ones() {
    // What this thread had of a processor, whatever else the machine does.
    let used = || -> u64 {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    };
    let work = |size: usize, times: usize| {
        let node = |i: usize| NodeSpec {
            id: format!("n{i}"),
            kind: "linux".into(),
            image: "i".into(),
            cpu_request_millis: 1,
            memory_request_bytes: 1,
            ..NodeSpec::default()
        };
        let end = |i: usize, interface: &str| Endpoint {
            node: format!("n{i}"),
            interface: interface.into(),
            ..Endpoint::default()
        };
        let link =
            |i: usize| LinkSpec { a: end(i, "eth1"), b: end((i + 1) % size, "eth2"), ..LinkSpec::default() };
        let spec = LabSpec {
            nodes: (0..size).map(node).collect(),
            links: (0..size).map(link).collect(),
            ..LabSpec::default()
        };
        let mut rows = planned(&LabRows::new("lab".parse().unwrap(), 1), &spec);
        for node in rows.nodes.values_mut() {
            (node.image_step, node.state) = (ImageStep::Ready, NodeState::Ready);
        }
        rows.operation = Some(netloom_model::id::OperationId::new());
        let catalogue = Catalogue::embedded();
        let before = used();
        for _ in 0..times {
            let told = network(&rows, &host());
            assert_eq!((told.wires.len(), told.nics.len()), (size, 2 * size));
            assert_eq!(instances(&rows, &host(), &catalogue).len(), size);
            let index = rows.index();
            let mut views = rows.nodes.values().map(|n| crate::store::NodeView::new(&index, n));
            assert!(views.all(|view| view.interfaces.len() == 2));
            assert!(operation::unchanged_verdict(&rows).is_none(), "its links are not up");
        }
        used() - before
    };
    let (small, large) = (work(500, 8), work(4_000, 1));
    assert!(
        large < 3 * small,
        "{small} ns and {large} ns; a pass over the lab for each link would be eight times the work"
    );
}
