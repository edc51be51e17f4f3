use std::sync::LazyLock;

use netloom_model::kind::Catalogue;
use netloom_model::observed::{Observed, Phase};
use netloom_model::spec::{Bind, Endpoint, LabSpec, LinkSpec, NodeSpec};

use super::*;
use crate::plan::{Before, plan, without_host};
use crate::rows::ImageStep;

pub static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(Catalogue::embedded);

pub fn host(id: &str) -> HostId {
    id.parse().unwrap()
}

pub fn room(id: &str, cpu_millis: u64) -> Room {
    Room {
        host: host(id),
        heard: true,
        runtimes: [Runtime::Docker, Runtime::Libvirt].into(),
        cpu_millis,
        memory_bytes: 64 << 30,
        cpu_reserved: 0,
        memory_reserved: 0,
        disk_bytes: None,
        disk_reserved: 0,
        allowed: crate::place::Allowed {
            capabilities: vec!["NET_ADMIN".into(), "SYS_ADMIN".into()],
            ..Default::default()
        },
    }
}

pub fn node(id: &str) -> NodeSpec {
    NodeSpec {
        id: id.into(),
        kind: "linux".into(),
        image: "i".into(),
        cpu_request_millis: 1_000,
        ..NodeSpec::default()
    }
}

pub fn link(a: &str, b: &str) -> LinkSpec {
    let end = |at: &str| {
        let (node, interface) = at.split_once(':').unwrap();
        Endpoint { node: node.into(), interface: interface.into(), ..Endpoint::default() }
    };
    LinkSpec { a: end(a), b: end(b), ..LinkSpec::default() }
}

pub fn ctx(rooms: &[Room]) -> Context<'_> {
    Context { catalogue: &CATALOGUE, rooms, asked: false, revive: false, now: 9 }
}

/// The spec as it runs on these hosts.
pub fn running(spec: &LabSpec, rooms: &[Room]) -> LabRows {
    let ctx = Context { asked: true, revive: true, ..ctx(rooms) };
    let mut rows = plan(&LabRows::new("lab".parse().unwrap(), 1), spec, ctx).rows;
    seen(&mut rows);
    rows
}

/// All is there that hosts are told.
fn seen(rows: &mut LabRows) {
    let lab = rows.lab.uid;
    for node in rows.nodes.values_mut().filter(|n| !n.is_successor()) {
        node.image_step = ImageStep::Ready;
        let mut seen = Observed::absent(node.uid, lab);
        seen.phase = if node.is_aside() { Phase::Aside } else { Phase::Running };
        node.observed = Some(seen.into());
    }
}

fn pair() -> LabSpec {
    let nodes = vec![node("a"), node("b"), node("c")];
    LabSpec { nodes, links: vec![link("a:eth1", "b:eth1"), link("b:eth2", "c:eth1")], ..LabSpec::default() }
}

fn off(rows: &LabRows, from: &str) -> Moves {
    Moves { nodes: on_host(rows, &host(from)), not_to: [host(from)].into(), ..Moves::default() }
}

fn told(plan: &Plan) -> Vec<String> {
    plan.actions.iter().map(|a| format!("{} {} @{}: {}", a.object.as_str(), a.id, a.host, a.reason)).collect()
}

fn why(plan: &Plan) -> Vec<String> {
    let of = |u: &Unplaced| format!("{} {} {}", u.node, u.rejections[0].host, u.rejections[0].code);
    plan.unplaced.iter().map(of).collect()
}

#[test]
fn what_moves_runs_on_until_its_image_is_there_and_a_cancel_has_the_very_container_back() {
    let rooms = [room("h1", 9_000), room("h2", 9_000)];
    let mut rows = running(&pair(), &rooms[..1]);
    let unplugged = rows.links.values_mut().find(|l| l.id == "b:eth2--c:eth1").unwrap();
    unplugged.enabled = false;
    let (mut moved, plan) = move_nodes(&rows, &off(&rows, "h1"), ctx(&rooms));
    assert_eq!(
        told(&plan),
        [
            "node a @h2: moves from h1 to h2: what its programs wrote in it is lost",
            "node b @h2: moves from h1 to h2: what its programs wrote in it is lost",
            "node c @h2: moves from h1 to h2: what its programs wrote in it is lost",
            "link a:eth1--b:eth1 @h2: its nodes moved",
            "link b:eth2--c:eth1 @h2: its nodes moved",
        ]
    );
    assert!(plan.unplaced.is_empty());
    let uid = |rows: &LabRows, id: &str| rows.node(id).unwrap().uid;
    assert_eq!(uid(&moved, "a"), uid(&rows, "a"), "it is still the one that is shown");
    assert_eq!(moved.nodes.values().filter(|n| n.is_successor()).count(), 3);
    assert!(moved.links.values().all(|l| l.is_wanted() && l.is_on(&host("h1"))), "its links are where it is");

    let before = Before::of(&rows);
    moved.nodes.values_mut().for_each(|n| n.image_step = ImageStep::Ready);
    take_over(&mut moved, &CATALOGUE, 10);
    assert_eq!(moved.node("a").unwrap().host, Some(host("h2")));
    assert_eq!(
        moved.nodes.values().filter(|n| n.is_aside()).count(),
        3,
        "what ran is out of the way, and kept"
    );
    let link = moved.link("a:eth1--b:eth1").unwrap();
    assert!(link.wire_id != rows.link("a:eth1--b:eth1").unwrap().wire_id && link.host == Some(host("h2")));
    assert!(!moved.link("b:eth2--c:eth1").unwrap().enabled, "an unplugged link stays so");
    let waits = crate::claims::waiting(&moved);
    assert!(
        waits.contains_key(&uid(&moved, "a")),
        "until its host said that the former one is out of the way"
    );

    before.put_back(&mut moved);
    let back = plan_back(&moved, &rooms);
    for id in ["a", "b", "c"] {
        assert_eq!((uid(&back, id), &back.node(id).unwrap().host), (uid(&rows, id), &Some(host("h1"))));
    }
    assert!(back.links.values().filter(|l| l.is_wanted()).all(|l| l.is_on(&host("h1"))));
}

fn plan_back(rows: &LabRows, rooms: &[Room]) -> LabRows {
    let spec = rows.lab.spec.clone();
    plan(rows, &spec, ctx(rooms)).rows
}

#[test]
fn what_cannot_move_stays_and_is_told_why() {
    let rooms = [room("h1", 9_000), room("h2", 2_000)];
    let mut spec = pair();
    spec.nodes.push(NodeSpec { kind: "tcl".into(), ..node("vm") });
    spec.nodes.push(NodeSpec {
        binds: vec![Bind { source: BindSource::Host("/srv".into()), target: "/srv".into(), read_only: true }],
        ..node("tied")
    });
    spec.nodes.push(NodeSpec { network_mode: NetworkMode::Node("vm".into()), ..node("side") });
    spec.nodes[5].network_mode = NetworkMode::Node("tied".into());
    let rows = running(&spec, &rooms[..1]);
    let (_, plan) = move_nodes(&rows, &off(&rows, "h1"), ctx(&rooms));
    let moved = plan.actions.iter().filter(|a| a.object == Object::Node).count();
    assert_eq!(moved, 2, "h2 has room for two: {plan:?}");
    let mut stay = why(&plan);
    stay.retain(|told| !told.ends_with("INSUFFICIENT_CPU"));
    assert_eq!(stay, ["side h1 NETWORK_ELSEWHERE", "tied h1 TIED_TO_HOST"]);
    assert_eq!(plan.unplaced.len(), 4);

    // By name it goes where it is told, with what shares its network namespace.
    let to = Moves { nodes: [(rows.node("tied").unwrap().uid, Some(host("h2")))].into(), ..Moves::default() };
    let (moved, plan) = move_nodes(&rows, &to, ctx(&rooms));
    assert!(plan.unplaced.is_empty(), "{plan:?}");
    let successor =
        |id: &str| moved.nodes.values().find(|n| n.is_successor() && n.id.as_str() == id).unwrap();
    assert_eq!(successor("side").shares, Some(successor("tied").uid));
    let full = [room("h1", 9_000), room("h2", 1_500)];
    let (same, plan) = move_nodes(&rows, &to, ctx(&full));
    assert!(plan.actions.is_empty() && plan.unplaced.len() == 2 && same == rows, "{plan:?}");
}

/// A virtual machine on h1 that is linked to a container on h2, and where either can be.
fn machine() -> (LabRows, [Room; 2]) {
    let rooms = [room("h1", 9_000), room("h2", 9_000)];
    let nodes = vec![NodeSpec { kind: "tcl".into(), ..node("vm") }, node("a")];
    let spec = LabSpec { nodes, links: vec![link("vm:eth1", "a:eth1")], ..LabSpec::default() };
    let mut rows = running(&spec, &rooms[..1]);
    let vm = rows.node("vm").unwrap().uid;
    let seen = rows.nodes.get_mut(&vm).unwrap().observed.as_mut().unwrap();
    seen.image_digest = "sha256:ab".into();
    (rows, rooms)
}

fn named(rows: &LabRows, moves: Moves) -> Moves {
    Moves { nodes: [(rows.node("vm").unwrap().uid, Some(host("h2")))].into(), ..moves }
}

#[test]
fn a_machine_takes_its_disk_along_and_its_guest_knows_its_nics_again() {
    let (rows, rooms) = machine();
    let vm = rows.node("vm").unwrap();
    let mac = |rows: &LabRows| rows.nics_of(rows.node("vm").unwrap().uid)[0].mac.clone();
    let (mut moved, plan) = move_nodes(&rows, &named(&rows, Moves::default()), ctx(&rooms));
    let with = "node vm @h2: moves from h1 to h2 with its disk: it is down while that is copied";
    assert_eq!(told(&plan)[0], with);
    let disks = [(vm.uid, Ok(3 << 30))].into();
    let sized = move_nodes(&rows, &named(&rows, Moves { disks, ..Moves::default() }), ctx(&rooms)).1;
    assert!(told(&sized)[0].contains("with its disk (3.0 GiB): it is down"), "{sized:?}");

    let successor = moved.nodes.values_mut().find(|n| n.is_successor()).unwrap();
    assert_eq!((successor.disk_of, successor.disk_due), (Some(vm.uid), true));
    assert_eq!(successor.image(), "i@sha256:ab", "of the bytes that the disk lies on, whatever i is by now");
    successor.image_step = ImageStep::Ready;
    take_over(&mut moved, &CATALOGUE, 10);
    assert_eq!(mac(&moved), mac(&rows));
    let wires = |rows: &LabRows| rows.nics_of(rows.node("vm").unwrap().uid)[0].wire_id;
    assert_ne!(wires(&moved), wires(&rows), "two that are never mixed up");

    // On it goes, and is still known by the first one.
    let vm = rows.node("vm").unwrap();
    let mut there = moved;
    there.nodes.retain(|_, n| !n.is_aside());
    there.nics.retain(|_, n| n.node_uid != vm.uid);
    let now = there.node("vm").unwrap().uid;
    there.nodes.get_mut(&now).unwrap().disk_due = false;
    let back = Moves { nodes: [(now, Some(host("h1")))].into(), ..Moves::default() };
    let (back, plan) = move_nodes(&there, &back, ctx(&rooms));
    assert_eq!(plan.unplaced.len(), 0, "{plan:?}");
    assert_eq!(back.nodes.values().find(|n| n.is_successor()).unwrap().disk_of, Some(vm.uid));
}

#[test]
fn a_machine_begins_anew_only_where_that_was_said() {
    let (mut rows, rooms) = machine();
    let uid = rows.node("vm").unwrap().uid;
    let lose = Moves { lose_disks: true, ..Moves::default() };
    let (moved, plan) = move_nodes(&rows, &named(&rows, lose.clone()), ctx(&rooms));
    assert!(told(&plan)[0].ends_with("moves from h1 to h2: its disk is lost"), "{plan:?}");
    let successor = moved.nodes.values().find(|n| n.is_successor()).unwrap();
    assert_eq!((successor.disk_of, successor.disk_due), (None, false));

    // Its host does not give it: one of an earlier version, for instance.
    let stays = |moves: Moves, rooms: &[Room]| {
        let (same, plan) = move_nodes(&rows, &named(&rows, moves), ctx(rooms));
        assert!(same == rows && plan.actions.is_empty(), "{plan:?}");
        let why = &plan.unplaced[0].rejections[0];
        assert_eq!(why.code, "DISK_ON_HOST");
        (why.detail.clone(), why.resolvable)
    };
    let disks = [(uid, Err("it cannot".into()))].into();
    let (why, passes) = stays(Moves { disks, ..Moves::default() }, &rooms);
    assert!(why.contains("disk and does not give it: it cannot: ") && !passes, "{why}");
    assert!(why.contains("--lose-disks"), "{why}");
    // A host that is lost cannot be read.
    let lost = [Room { heard: false, ..rooms[0].clone() }, rooms[1].clone()];
    let (why, passes) = stays(Moves { force: true, ..Moves::default() }, &lost);
    assert!(why.contains("cannot be read while it is not heard of") && passes, "{why}");
    let (_, plan) = move_nodes(&rows, &named(&rows, Moves { force: true, ..lose }), ctx(&lost));
    assert!(plan.unplaced.is_empty(), "{plan:?}");
    // One that was never made has none.
    rows.nodes.get_mut(&uid).unwrap().image_step = ImageStep::Failed;
    let (moved, plan) = move_nodes(&rows, &named(&rows, Moves::default()), ctx(&rooms));
    assert!(told(&plan)[0].ends_with("moves from h1 to h2"), "{plan:?}");
    assert!(moved.nodes.values().all(|n| !n.disk_due));
}

#[test]
fn from_a_host_that_is_not_heard_of_nothing_moves_but_by_force_and_then_as_another_node() {
    let spread = [room("h1", 2_000), room("h2", 1_000)];
    let rows = running(&pair(), &spread);
    let on = |id: &str| rows.node(id).unwrap().host.clone().unwrap();
    let lost = on("b");
    let other = if lost == host("h1") { host("h2") } else { host("h1") };
    let rooms = [Room { heard: false, ..room(lost.as_str(), 9_000) }, room(other.as_str(), 9_000)];
    let mut rows = rows;
    rows.links.values_mut().filter(|l| l.far.is_some()).for_each(|l| l.vni = Some(7));
    assert!(rows.links.values().any(|l| l.vni == Some(7)), "one goes between the hosts");
    let (same, plan) = move_nodes(&rows, &off(&rows, lost.as_str()), ctx(&rooms));
    assert!(same == rows && plan.actions.is_empty());
    assert!(why(&plan).iter().all(|told| told.ends_with("HOST_UNKNOWN")), "{plan:?}");

    let force = Moves { force: true, ..off(&rows, lost.as_str()) };
    let (moved, plan) = move_nodes(&rows, &force, ctx(&rooms));
    assert!(plan.unplaced.is_empty(), "{plan:?}");
    let (old, new) = (rows.node("b").unwrap().uid, moved.node("b").unwrap());
    assert!(new.uid != old && new.host == Some(other.clone()));
    assert!(
        !crate::claims::waiting(&moved).contains_key(&new.uid),
        "nobody can say that it is out of the way"
    );
    assert_eq!(moved.nodes[&old].wanted, Wanted::Absent, "it is removed when its host is back");
    let former: Vec<_> = moved.links.values().filter(|l| l.vni == Some(7)).collect();
    assert!(!former.is_empty() && former.iter().all(|l| l.wanted == Wanted::Absent && l.is_on(&lost)));
    for link in moved.links.values().filter(|l| l.is_wanted()) {
        let had = rows.link(&link.id).unwrap();
        assert!(!had.is_on(&lost) || (had.wire_id != link.wire_id && link.vni.is_none()), "{link:?}");
    }
}

#[test]
fn a_host_that_is_given_up_leaves_no_number_that_it_could_go_on_talking_into() {
    let spread = [room("h1", 2_000), room("h2", 1_000)];
    let mut rows = running(&pair(), &spread);
    rows.links.values_mut().filter(|l| l.far.is_some()).for_each(|l| (l.vni, l.enabled) = (Some(7), false));
    let across = rows.links.values().find(|l| l.vni == Some(7)).unwrap().clone();
    let lost = across.host.clone().unwrap();
    let other = across.far.as_ref().unwrap().host.clone();
    let leaving = across.id.clone();
    let rooms = [room(lost.as_str(), 9_000), room(other.as_str(), 9_000)];
    let after = without_host(&rows, &lost, ctx(&rooms));
    let (former, new) = (&after.links[&across.uid], after.link(&leaving).unwrap());
    assert_eq!((former.host.as_ref(), former.far.as_ref(), former.vni), (Some(&other), None, Some(7)));
    assert_eq!(former.wanted, Wanted::Absent, "it keeps its number until the other host has removed it");
    assert!(new.uid != across.uid && new.wire_id != across.wire_id && new.vni.is_none() && !new.enabled);
    for (uid, old) in rows.nodes.iter().filter(|(_, n)| n.host.as_ref() == Some(&lost)) {
        assert!(!after.nodes.contains_key(uid), "known to be removed, should that machine ever come back");
        assert_eq!(after.node(&old.id.folded()).unwrap().host.as_ref(), Some(&other));
    }
    assert!(!after.hosts.contains(&lost));
    // One that is being removed is gone from the host that is, and no sooner from the other.
    let mut removed = rows.clone();
    removed.links.get_mut(&across.uid).unwrap().wanted = Wanted::Absent;
    let after = without_host(&removed, &lost, ctx(&rooms));
    assert_eq!(after.links[&across.uid].vni, Some(7));
}

/// One of this size that is never on the host of another.
fn sized(id: &str, cpu: u32, apart_from: &[&str]) -> NodeSpec {
    let mut node = NodeSpec { cpu_request_millis: cpu, ..node(id) };
    node.placement.apart_from = apart_from.iter().map(|id| (*id).to_owned()).collect();
    node
}

fn of(nodes: Vec<NodeSpec>) -> LabSpec {
    LabSpec { nodes, ..LabSpec::default() }
}

fn to(rows: &LabRows, id: &str, host_id: Option<&str>) -> Moves {
    Moves { nodes: [(rows.node(id).unwrap().uid, host_id.map(host))].into(), ..Moves::default() }
}

fn at(rows: &LabRows, id: &str, host_id: &str) -> LabRows {
    let mut rows = rows.clone();
    let uid = rows.node(id).unwrap().uid;
    rows.nodes.get_mut(&uid).unwrap().host = Some(host(host_id));
    rows
}

#[test]
fn a_move_by_name_and_a_drain_keep_nodes_apart() {
    let rooms = [room("h1", 9_000), room("h2", 9_000), room("h3", 9_000)];
    for (a, b) in [(&["b"][..], &[][..]), (&[][..], &["a"][..])] {
        let rows = running(&of(vec![sized("a", 1_000, a), sized("b", 1_000, b)]), &rooms[..2]);
        let rows = at(&at(&rows, "a", "h1"), "b", "h2");
        let (same, plan) = move_nodes(&rows, &to(&rows, "a", Some("h2")), ctx(&rooms));
        assert_eq!((why(&plan), &same), (vec!["a h2 NODE_APART".to_owned()], &rows));
        let (_, plan) = move_nodes(&rows, &off(&rows, "h1"), ctx(&rooms[..2]));
        assert_eq!((why(&plan), plan.actions.len()), (vec!["a h2 NODE_APART".to_owned()], 0));
        let (_, plan) = move_nodes(&rows, &off(&rows, "h1"), ctx(&rooms));
        assert_eq!((plan.actions[0].host.as_str(), plan.unplaced.len()), ("h3", 0), "{plan:?}");
        // Both of them to one host: not that either.
        let mut both = to(&rows, "a", Some("h3"));
        both.nodes.extend(to(&rows, "b", Some("h3")).nodes);
        let (_, plan) = move_nodes(&rows, &both, ctx(&rooms));
        assert_eq!(why(&plan), ["a h3 NODE_APART", "b h3 NODE_APART"]);
    }
}

#[test]
fn what_a_node_is_to_be_apart_from_counts_where_it_is_while_its_change_waits() {
    let rooms = [room("h1", 2_000), room("h2", 2_000)];
    let rows = running(&of(vec![sized("a", 2_000, &["b"]), sized("b", 1_000, &[])]), &rooms);
    let rows = at(&at(&rows, "a", "h1"), "b", "h2");
    let rows = changed(&rows, of(vec![sized("a", 9_000, &["b"]), sized("b", 1_000, &[])]), &rooms);
    let more = [room("h1", 8_000), room("h2", 2_000)];
    let (_, plan) = move_nodes(&rows, &to(&rows, "b", Some("h1")), ctx(&more));
    assert_eq!(why(&plan), ["b h1 NODE_APART"]);
}

/// The rows once another spec was deployed, of which nothing came about so far.
fn changed(rows: &LabRows, spec: LabSpec, rooms: &[Room]) -> LabRows {
    let mut spec = spec;
    spec.nodes
        .iter_mut()
        .for_each(|n| drop(n.env.insert("CHANGED".into(), n.cpu_request_millis.to_string())));
    for node in &mut spec.nodes {
        let had = rows.node(&node.id).unwrap();
        if had.spec.cpu_request_millis == node.cpu_request_millis {
            node.env.clone_from(&had.spec.env);
        }
    }
    let ctx = Context { asked: true, revive: true, ..ctx(rooms) };
    plan(rows, &spec, ctx).rows
}

fn successor<'r>(rows: &'r LabRows, id: &str) -> Option<&'r NodeRow> {
    rows.nodes.values().find(|n| n.is_successor() && n.id.as_str() == id)
}

#[test]
fn a_change_that_waits_for_room_comes_with_its_node_or_keeps_it_where_it_is() {
    let rooms = [room("h1", 4_000), room("h2", 3_000)];
    let rows = running(&of(vec![sized("a", 1_000, &[]), sized("b", 1_000, &[])]), &rooms[..1]);
    let rows = changed(&rows, of(vec![sized("a", 5_000, &[]), sized("b", 1_000, &[])]), &rooms);
    let waiting = successor(&rows, "a").unwrap();
    assert!(waiting.host.is_none(), "it fits nowhere");

    // It has no room elsewhere either: the node stays, and the change with it.
    let (after, plan) = move_nodes(&rows, &off(&rows, "h1"), ctx(&rooms));
    let told: Vec<&str> = plan.actions.iter().map(|a| a.id.as_str()).collect();
    assert_eq!((told, why(&plan)), (vec!["b"], vec!["a h1 CHANGE_WAITS".to_owned()]));
    let reasons: Vec<&str> = plan.unplaced[0].rejections.iter().map(|r| r.code.as_str()).collect();
    assert_eq!(reasons, ["CHANGE_WAITS", "INSUFFICIENT_CPU"]);
    assert_eq!(successor(&after, "a"), Some(waiting));
    let (after, plan) = move_nodes(&rows, &to(&rows, "a", Some("h2")), ctx(&rooms));
    assert_eq!((why(&plan), &after), (vec!["a h1 CHANGE_WAITS".to_owned()], &rows));

    // There is room: it is what was deployed that goes there.
    let rooms = [room("h1", 4_000), room("h2", 9_000)];
    let (mut after, plan) = move_nodes(&rows, &off(&rows, "h1"), ctx(&rooms));
    assert!(plan.unplaced.is_empty(), "{plan:?}");
    assert!(plan.actions[0].reason.ends_with("its change, which waited for room, comes with it"));
    let moved = successor(&after, "a").unwrap();
    let asked = |n: &NodeRow| (n.spec_hash.clone(), n.spec.cpu_request_millis);
    assert_eq!((asked(moved), &moved.host), (asked(waiting), &Some(host("h2"))));
    assert_eq!(after.nodes.values().filter(|n| n.is_successor()).count(), 2);

    // A cancel has the node back where it was, and what was deployed waits again.
    let before = Before::of(&rows);
    after.nodes.values_mut().for_each(|n| n.image_step = ImageStep::Ready);
    take_over(&mut after, &CATALOGUE, 10);
    before.put_back(&mut after);
    let full = [room("h1", 4_000), room("h2", 3_000)];
    let back = plan_back(&after, &full);
    assert_eq!(back.node("a").unwrap().uid, rows.node("a").unwrap().uid);
    let again = successor(&back, "a").unwrap();
    assert_eq!((asked(again), &again.host, again.image_step), (asked(waiting), &None, ImageStep::Waiting));
}

#[test]
fn what_goes_on_while_its_change_waits_keeps_its_room_from_what_is_moved() {
    let rooms = [room("h1", 4_000), room("h2", 4_000)];
    let rows = running(&of(vec![sized("a", 2_000, &[]), sized("b", 4_000, &[])]), &rooms);
    let rows = at(&at(&rows, "a", "h2"), "b", "h1");
    let rows = changed(&rows, of(vec![sized("a", 9_000, &[]), sized("b", 4_000, &[])]), &rooms);
    assert!(successor(&rows, "a").unwrap().host.is_none());
    let (same, plan) = move_nodes(&rows, &to(&rows, "b", Some("h2")), ctx(&rooms));
    assert_eq!((why(&plan), &same), (vec!["b h2 INSUFFICIENT_CPU".to_owned()], &rows), "6 of 4");
    let (_, plan) = move_nodes(&rows, &off(&rows, "h1"), ctx(&rooms));
    assert_eq!((why(&plan), plan.actions.len()), (vec!["b h2 INSUFFICIENT_CPU".to_owned()], 0));
    assert!(crate::plan::rebalanced(&rows, &Moves::default(), ctx(&rooms)).is_empty());
    // What moves itself needs no room where it is: two that fill their hosts change places.
    let rows = running(&of(vec![sized("a", 4_000, &[]), sized("b", 4_000, &[])]), &rooms);
    let rows = at(&at(&rows, "a", "h2"), "b", "h1");
    let mut both = to(&rows, "a", Some("h1"));
    both.nodes.extend(to(&rows, "b", Some("h2")).nodes);
    let (_, plan) = move_nodes(&rows, &both, ctx(&rooms));
    assert_eq!((plan.unplaced.len(), plan.actions.len()), (0, 2), "{plan:?}");
}

#[test]
fn a_host_that_did_not_take_a_node_before_is_left_out_and_a_third_one_takes_it() {
    let rooms = [room("h1", 9_000), room("h2", 9_000), room("h3", 9_000)];
    let mut spec = pair();
    spec.nodes.push(NodeSpec { network_mode: NetworkMode::Node("a".into()), ..node("side") });
    let rows = running(&spec, &rooms[..1]);
    let refuse = |id: &str, hosts: &[&str]| {
        let of = |h: &&str| Rejection {
            host: (*h).into(),
            code: MOVE_FAILED.into(),
            detail: "it did not come up there".into(),
            resolvable: false,
        };
        let mut moves = off(&rows, "h1");
        moves.refused.insert(rows.node(id).unwrap().uid, hosts.iter().map(of).collect());
        moves
    };
    let (_, plan) = move_nodes(&rows, &off(&rows, "h1"), ctx(&rooms));
    let other = if plan.actions[0].host == "h2" { ["h2", "h3"] } else { ["h3", "h2"] };
    // That it is the other one of its network namespace makes no difference.
    let (after, plan) = move_nodes(&rows, &refuse("side", &other[..1]), ctx(&rooms));
    assert!(plan.unplaced.is_empty(), "{plan:?}");
    assert_eq!(successor(&after, "a").unwrap().host, Some(host(other[1])));
    assert_eq!(successor(&after, "side").unwrap().host, Some(host(other[1])));
    // Where all do not, it stays with each one's reason, and the others move without it.
    let (_, plan) = move_nodes(&rows, &refuse("b", &other), ctx(&rooms));
    let [stays] = plan.unplaced.as_slice() else { panic!("{plan:?}") };
    let hosts: Vec<&str> = stays.rejections.iter().map(|r| r.host.as_str()).collect();
    assert_eq!((stays.node.as_str(), hosts), ("b", other.to_vec()));
    assert_eq!(plan.actions.iter().filter(|a| a.object == Object::Node).count(), 3);
    // By name it is not moved there either.
    let named = Moves { refused: refuse("b", &["h2"]).refused, ..to(&rows, "b", Some("h2")) };
    let (_, plan) = move_nodes(&rows, &named, ctx(&rooms));
    assert_eq!(why(&plan), ["b h2 MOVE_FAILED"]);
}
