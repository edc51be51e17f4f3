use netloom_model::kind::Catalogue;
use netloom_model::observed::{ExecPhase, Observed, ObservedNic, ObservedSegment, ObservedWire, Phase};
use netloom_model::spec::{LabSpec, LinkSpec, NodeSpec};

use super::*;
use crate::place::Room;
use crate::plan::{Context, plan};

fn host() -> HostId {
    "h1".parse().unwrap()
}

/// Two containers and a bridge; a link between the containers, and one to the bridge.
fn rows() -> LabRows {
    let node = |id: &str, kind: &str| NodeSpec {
        id: id.into(),
        kind: kind.into(),
        image: if kind == "linux" { "i".into() } else { String::new() },
        ..NodeSpec::default()
    };
    let link = |a: (&str, &str), b: (&str, &str)| LinkSpec {
        a: netloom_model::spec::Endpoint { node: a.0.into(), interface: a.1.into(), ..Default::default() },
        b: netloom_model::spec::Endpoint { node: b.0.into(), interface: b.1.into(), ..Default::default() },
        ..LinkSpec::default()
    };
    let spec = LabSpec {
        nodes: vec![node("a", "linux"), node("b", "linux"), node("s", "bridge")],
        links: vec![link(("a", "eth1"), ("b", "eth1")), link(("a", "eth2"), ("s", "p1"))],
        ..LabSpec::default()
    };
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
    let ctx = Context { catalogue: &catalogue, rooms: &[room], asked: true, revive: true, now: 1 };
    let mut rows = plan(&LabRows::new("lab".parse().unwrap(), 1), &spec, ctx).rows;
    for node in rows.nodes.values_mut() {
        node.image_step = ImageStep::Ready;
    }
    rows
}

/// A host on which everything of the rows is as it should be.
fn well(rows: &LabRows) -> HostView {
    let mut view = HostView::default();
    (view.compute.heard, view.network.heard) = (Heard::Yes, Heard::Yes);
    for node in rows.nodes.values() {
        let mut seen = Observed::absent(node.uid, rows.lab.uid);
        seen.phase = Phase::Running;
        seen.exec_phase = ExecPhase::Done;
        seen.start_id = "s1".into();
        match node.segment {
            Some(wire_id) => {
                let segment = ObservedSegment {
                    wire_id,
                    state: WireState::Up,
                    detail: String::new(),
                    sources: Vec::new(),
                };
                view.network.segments.insert(wire_id, segment);
            }
            None => drop(view.compute.instances.insert(node.uid, seen.into())),
        }
    }
    for wire_id in rows.nics.keys().copied() {
        let nic = ObservedNic {
            wire_id,
            present: true,
            start_id: "s1".into(),
            carrier: true,
            alive: true,
            detail: String::new(),
        };
        view.network.nics.insert(wire_id, nic);
    }
    for wire_id in rows.links.values().map(|l| l.wire_id) {
        let (detail, plane_reason) = Default::default();
        let (state, plane) = (WireState::Up, "ovs".into());
        let wire =
            ObservedWire { wire_id, state, detail, end: None, plane, plane_reason, sources: Vec::new() };
        view.network.wires.insert(wire_id, wire);
    }
    view
}

fn told(rows: &LabRows, view: HostView) -> LabRows {
    let mut rows = rows.clone();
    refresh(&mut rows, &BTreeMap::from([(host(), view)]));
    rows
}

fn states(rows: &LabRows) -> String {
    let mut nodes: Vec<String> = rows.nodes.values().map(|n| format!("{} {}", n.id, n.state)).collect();
    nodes.sort();
    let mut links: Vec<String> = rows.links.values().map(|l| l.state.to_string()).collect();
    links.sort();
    format!("{} | {}", nodes.join(", "), links.join(" "))
}

#[test]
fn nothing_is_said_without_evidence() {
    let rows = rows();
    let heard = HostView { ..well(&LabRows::new("x".parse().unwrap(), 1)) };
    assert_eq!(states(&told(&rows, heard)), "a PENDING, b PENDING, s PENDING | PENDING PENDING");
    let well = told(&rows, well(&rows));
    assert_eq!(states(&well), "a READY, b READY, s READY | UP UP");
    assert!(well.nics.values().all(|n| n.present && n.carrier));
    assert!(well.links.values().all(|l| l.plane == "ovs"));
}

#[test]
fn a_link_that_is_down_says_which_of_its_ends_is() {
    let rows = rows();
    let mut view = well(&rows);
    let link = rows.links.values().find(|link| link.spec.b.node == "b").unwrap();
    let wire = view.network.wires.get_mut(&link.wire_id).unwrap();
    (wire.state, wire.end) = (WireState::Down, Some(End::B));
    wire.detail = "the interface is down in its node".into();
    let told = told(&rows, view);
    let (state, why) = (told.links[&link.uid].state, told.links[&link.uid].reason.as_str());
    assert_eq!(state, LinkState::Down);
    assert_eq!(why, format!("{}: the interface is down in its node", link.spec.b));
    assert!(why.starts_with("b:eth"), "{why}");
}

#[test]
fn a_link_that_leaves_is_told_once_however_much_of_it_is_left() {
    let mut rows = rows();
    let uid = *rows.links.keys().next().unwrap();
    rows.links.get_mut(&uid).unwrap().wanted = Wanted::Absent;
    let whole = told(&rows, well(&rows));
    let link = &whole.links[&uid];
    assert_eq!((link.state, link.reason.as_str()), (LinkState::Pending, "it is being removed"));
    let mut view = well(&rows);
    view.network.wires.remove(&link.wire_id);
    view.network.nics.clear();
    assert_eq!(told(&whole, view).links[&uid], *link);
    let mut view = well(&rows);
    view.network.heard = Heard::Lost;
    assert_eq!(told(&whole, view).links[&uid].state, LinkState::Unknown);
    // While it is not known whether what replaces it can be made, it stays, and is what it is.
    rows.nodes.values_mut().next().unwrap().image_step = ImageStep::Waiting;
    assert_eq!(told(&rows, well(&rows)).links[&uid].state, LinkState::Up);
}

#[test]
fn each_service_makes_unknown_what_it_told() {
    let rows = rows();
    let known = told(&rows, well(&rows));
    let mut view = well(&rows);
    view.compute.heard = Heard::Lost;
    let lost = told(&known, view);
    assert_eq!(states(&lost), "a UNKNOWN, b UNKNOWN, s READY | UP UP");
    let a = lost.node("a").unwrap();
    assert!(
        a.observed.is_some() && a.reason == "its host is not heard of",
        "what was last seen stays, with its age"
    );
    let mut view = well(&rows);
    view.network.heard = Heard::Lost;
    assert_eq!(states(&told(&known, view)), "a READY, b READY, s UNKNOWN | UNKNOWN UNKNOWN");
}

#[test]
fn just_after_a_start_what_is_stored_stays() {
    let rows = rows();
    let known = told(&rows, well(&rows));
    assert_eq!(told(&known, HostView::default()), known);
}

#[test]
fn what_leaves_says_so_and_why_it_still_does() {
    let mut rows = rows();
    let uid = rows.node("a").unwrap().uid;
    rows.nodes.get_mut(&uid).unwrap().wanted = Wanted::Absent;
    let leaving = told(&rows, well(&rows));
    assert_eq!(
        (leaving.nodes[&uid].state, leaving.nodes[&uid].reason.as_str()),
        (NodeState::Stopping, "it is being removed")
    );
    rows.nodes.get_mut(&uid).unwrap().removal = "busy".into();
    assert_eq!(told(&rows, well(&rows)).nodes[&uid].reason, "busy");
    let mut view = well(&rows);
    view.compute.heard = Heard::Lost;
    assert_eq!(told(&rows, view).nodes[&uid].state, NodeState::Unknown);
}

#[test]
fn images_and_room_come_before_the_host() {
    let mut rows = rows();
    let uid = rows.node("a").unwrap().uid;
    let state = |rows: &LabRows| {
        let rows = told(rows, well(rows));
        (rows.nodes[&uid].state, rows.nodes[&uid].reason.clone())
    };
    let mut step = |step, detail: &str| {
        let node = rows.nodes.get_mut(&uid).unwrap();
        (node.image_step, node.image_detail) = (step, detail.to_owned());
        state(&rows)
    };
    assert_eq!(step(ImageStep::Waiting, "tried again"), (NodeState::Pending, "tried again".into()));
    assert_eq!(step(ImageStep::Pulling, "1 of 2 MB"), (NodeState::Pulling, "1 of 2 MB".into()));
    assert_eq!(step(ImageStep::Failed, "not there"), (NodeState::Failed, "not there".into()));
    let node = rows.nodes.get_mut(&uid).unwrap();
    node.host = None;
    node.rejections = vec![netloom_model::plan::Rejection {
        host: "h1".into(),
        code: "INSUFFICIENT_CPU".into(),
        detail: "needs more".into(),
        resolvable: true,
    }];
    assert_eq!(state(&rows), (NodeState::Unschedulable, "no host has room for it: h1 needs more".into()));
}

#[test]
fn a_link_of_a_node_without_a_host_says_so() {
    let mut rows = rows();
    let uid = rows.node("a").unwrap().uid;
    for link in rows.links.values_mut() {
        link.host = None;
    }
    rows.nodes.get_mut(&uid).unwrap().host = None;
    let waits = told(&rows, well(&rows));
    let waits_for = |l: &LinkRow| l.state == LinkState::Pending && l.reason.contains("node a has no host");
    assert!(waits.links.values().all(waits_for));
}

#[test]
fn an_interface_is_present_when_it_is_plugged() {
    let rows = rows();
    let mut view = well(&rows);
    for nic in view.network.nics.values_mut() {
        nic.start_id = String::new();
    }
    assert!(told(&rows, view).nics.values().all(|n| !n.present && !n.carrier));
}
