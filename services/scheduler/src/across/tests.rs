use std::collections::BTreeMap;

use netloom_model::id::WireId;
use netloom_model::kind::Catalogue;
use netloom_model::observed::{End, ObservedNic, ObservedWire, WireState};
use netloom_model::slice::{Tunnel, WireEnd};
use netloom_model::spec::{Endpoint, Impairment, LabSpec, LinkSpec, NodeSpec};
use netloom_model::state::{LinkState, Wanted};

use super::*;
use crate::place::{Allowed, Room};
use crate::plan::{Context, Planned, plan};
use crate::rows::ImageStep;
use crate::world::HostView;
use crate::{facts, slices, vnis};

fn host(id: &str) -> HostId {
    id.parse().unwrap()
}

fn underlay(last: u8, mtu: u32) -> Underlay {
    Underlay { address: [192, 0, 2, last].into(), port: 4789, mtu }
}

fn reach(last: u8, mtu: u32) -> Reach {
    Reach { underlay: Some(underlay(last, mtu)), by_ovs: true, kernel_datapath: false }
}

/// A host that has room for one node.
fn room(id: &str, reach: Option<Reach>) -> Room {
    Room {
        host: host(id),
        heard: true,
        runtimes: [Runtime::Docker].into(),
        cpu_millis: 60,
        memory_bytes: 64 << 30,
        cpu_reserved: 0,
        memory_reserved: 0,
        disk_bytes: None,
        disk_reserved: 0,
        allowed: Allowed {
            capabilities: vec!["NET_ADMIN".into(), "SYS_ADMIN".into()],
            impairments: vec!["rate_bps".into()],
            reach,
            ..Allowed::default()
        },
    }
}

fn rooms() -> Vec<Room> {
    vec![room("h1", Some(reach(1, 1_450))), room("h2", Some(reach(2, 1_550)))]
}

/// Two nodes, with a link that does not say its MTU, and one that does.
fn spec() -> LabSpec {
    let node =
        |id: &str| NodeSpec { id: id.into(), kind: "linux".into(), image: "i".into(), ..NodeSpec::default() };
    let link = |interface: &str, mtu| {
        let end =
            |node: &str| Endpoint { node: node.into(), interface: interface.into(), ..Endpoint::default() };
        LinkSpec { a: end("a"), b: end("b"), mtu, ..LinkSpec::default() }
    };
    LabSpec {
        nodes: vec![node("a"), node("b")],
        links: vec![link("eth1", 0), link("eth2", 1_400)],
        ..LabSpec::default()
    }
}

fn planned(current: &LabRows, spec: &LabSpec, rooms: &[Room]) -> Planned {
    let catalogue = Catalogue::embedded();
    plan(current, spec, Context { catalogue: &catalogue, rooms, asked: true, revive: true, now: 1 })
}

fn empty() -> LabRows {
    LabRows::new("lab".parse().unwrap(), 1)
}

/// The lab of [`spec`] on two hosts, with network identifiers.
fn rows() -> LabRows {
    let mut rows = planned(&empty(), &spec(), &rooms()).rows;
    rows.nodes.values_mut().for_each(|node| node.image_step = ImageStep::Ready);
    vnis::allot(&mut rows, &BTreeSet::new(), &(1..=99));
    rows
}

fn first(rows: &LabRows) -> &LinkRow {
    rows.link("a:eth1--b:eth1").unwrap()
}

#[test]
fn a_link_between_hosts_has_all_that_both_are_told_alike() {
    let Planned { rows: planned_rows, plan, .. } = planned(&empty(), &spec(), &rooms());
    let link = first(&planned_rows);
    let far = link.far.clone().unwrap();
    assert_ne!(link.host.as_ref(), Some(&far.host));
    assert_eq!((far.plane, far.plane_reason.as_str()), (Plane::Ovs, "hosts: both take Open vSwitch"));
    let told: Vec<&str> =
        plan.actions.iter().filter(|a| a.id == link.id).map(|a| a.reason.as_str()).collect();
    assert_eq!(told, ["it is new; its MTU is 1450, which is what fits between hosts h1 and h2"]);
    assert_eq!(plan.actions.iter().find(|a| a.id == link.id).unwrap().host, "h1, h2");
    let mtus =
        |rows: &LabRows| rows.nics.values().map(|n| (n.interface.clone(), n.mtu)).collect::<BTreeSet<_>>();
    assert_eq!(mtus(&planned_rows), [("eth1".to_owned(), 1_450), ("eth2".to_owned(), 1_400)].into());

    // Planned again, nothing changes; nor where hosts are not heard of.
    let rows = rows();
    let again = planned(&rows, &spec(), &rooms());
    assert!(again.plan.actions.is_empty() && again.rows == rows, "{:?}", again.plan.actions);
    let silent = [room("h1", None), room("h2", None)];
    assert_eq!(planned(&rows, &spec(), &silent).rows, rows);
    // An underlay that takes larger frames is used, and the plan says so.
    let wider = [room("h1", Some(reach(1, 1_500))), room("h2", Some(reach(2, 1_550)))];
    let Planned { rows: changed, plan, .. } = planned(&rows, &spec(), &wider);
    assert_eq!(mtus(&changed), [("eth1".to_owned(), 1_500), ("eth2".to_owned(), 1_400)].into());
    let told: Vec<(Verb, &str)> = plan.actions.iter().map(|a| (a.verb, a.id.as_str())).collect();
    assert_eq!(told, [(Verb::Update, "a:eth1--b:eth1")]);
}

/// What h1 and h2 measured of the way to each other.
fn paths(to: Option<u32>, back: Option<u32>) -> [(HostId, Arc<[PathMtu]>); 2] {
    let path = |last: u8, mtu| {
        let problem = String::new();
        Arc::from([PathMtu { address: [192, 0, 2, last].into(), mtu, problem }])
    };
    [(host("h1"), path(2, to)), (host("h2"), path(1, back))]
}

#[test]
fn what_was_measured_decides_the_smaller_of_both_ways() {
    let measured_rooms = |to, back| {
        let mut rooms = rooms();
        for (room, (_, paths)) in rooms.iter_mut().zip(paths(to, back)) {
            room.allowed.paths = paths;
        }
        rooms
    };
    for (to, back, mtu) in [
        (Some(1_350), Some(1_450), 1_350),
        (Some(1_450), Some(1_300), 1_300),
        (None, Some(1_400), 1_400),
        (Some(9_000), Some(9_000), 1_450),
        (None, None, 1_450),
    ] {
        let Planned { rows, plan, .. } = planned(&empty(), &spec(), &measured_rooms(to, back));
        let link = first(&rows);
        let nic = rows.nics.values().find(|nic| nic.interface == "eth1").unwrap();
        assert_eq!((link.far.as_ref().unwrap().mtu(), nic.mtu), (Some(mtu), mtu), "{to:?} {back:?}");
        let reason = &plan.actions.iter().find(|a| a.id == link.id).unwrap().reason;
        let measured = format!(
            "its MTU is {mtu}, which is what fits between hosts h1 and h2 as measured; their interfaces would take 1450"
        );
        assert_eq!(reason.ends_with(&measured), mtu < 1_450, "{reason}");
    }
}

#[test]
fn what_was_measured_stands_until_it_is_measured_anew() {
    let rows = rows();
    let mut hosts = well(&rows);
    let mut say = |to, back| {
        for (id, paths) in paths(to, back) {
            hosts.get_mut(&id).unwrap().network.inventory.paths = paths;
        }
        hosts.clone()
    };
    let mtu = |rows: &LabRows| rows.nics.values().find(|nic| nic.interface == "eth1").unwrap().mtu;
    let (.., narrow) = told(&rows, &say(Some(1_350), Some(1_400)));
    assert_eq!(mtu(&narrow), 1_350);
    // A network service that starts again has measured nothing yet.
    let (.., same) = told(&narrow, &say(None, None));
    assert_eq!(mtu(&same), 1_350);
    let (.., wider) = told(&narrow, &say(Some(1_440), Some(1_450)));
    assert_eq!(mtu(&wider), 1_440);
    assert_eq!(mtu(&rows), 1_450, "believed until it was measured");
}

fn tunnel(rows: &LabRows, on: &str) -> (Tunnel, bool, Option<Plane>) {
    let slice = slices::network(rows, &host(on));
    let wire = &slice.wires[&first(rows).wire_id];
    match (&wire.a, &wire.b) {
        (WireEnd::Nic(nic), WireEnd::Tunnel(tunnel)) if slice.nics.contains_key(nic) => {
            (tunnel.clone(), true, wire.plane)
        }
        (WireEnd::Tunnel(tunnel), WireEnd::Nic(nic)) if slice.nics.contains_key(nic) => {
            (tunnel.clone(), false, wire.plane)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_host_is_told_its_half() {
    let mut rows = rows();
    let vni = first(&rows).vni.unwrap();
    let (one, is_first, plane) = tunnel(&rows, "h1");
    assert_eq!(
        (one.clone(), is_first, plane),
        (Tunnel { remote: [192, 0, 2, 2].into(), vni, remote_up: false }, true, Some(Plane::Ovs))
    );
    let (other, is_first, _) = tunnel(&rows, "h2");
    assert_eq!((other.remote, other.vni, is_first), ([192, 0, 2, 1].into(), vni, false));
    // What lives there is told here.
    let b = rows.node("b").unwrap().uid;
    rows.nics.values_mut().filter(|n| n.node_uid == b).for_each(|n| n.alive = true);
    assert_eq!((tunnel(&rows, "h1").0.remote_up, tunnel(&rows, "h2").0.remote_up), (true, false));
    // Both know what happens to frames: it happens where they come out.
    let rate = Impairment { rate_bps: 1_000_000, ..Impairment::default() };
    let uid = first(&rows).uid;
    rows.links.get_mut(&uid).unwrap().spec.a_to_b = rate;
    let wire = |on: &str| slices::network(&rows, &host(on)).wires[&first(&rows).wire_id].clone();
    assert!(["h1", "h2"].iter().all(|on| wire(on).a_to_b == rate && wire(on).b_to_a.is_none()));
    // Without a number nothing is told.
    rows.links.get_mut(&uid).unwrap().vni = None;
    assert!(!slices::network(&rows, &host("h1")).wires.contains_key(&first(&rows).wire_id));
}

#[test]
fn a_number_is_free_when_both_hosts_said_that_its_link_is_gone() {
    let mut rows = rows();
    let (uid, wire) = (first(&rows).uid, first(&rows).wire_id);
    rows.links.values_mut().for_each(|link| link.wanted = Wanted::Absent);
    for on in ["h1", "h2"] {
        assert!(slices::wires_to_remove(&rows, &host(on)).contains(&wire));
    }
    let link = rows.links.get_mut(&uid).unwrap();
    assert!(!link.leaves(&host("h1")), "the other host has its half");
    assert!(link.vni.is_some() && !link.is_on(&host("h1")) && link.is_on(&host("h2")));
    assert!(!link.clone().leaves(&host("h1")), "told twice");
    assert!(link.leaves(&host("h2")));
    let mut other = self::rows().links.remove(&uid).unwrap_or_else(|| first(&self::rows()).clone().into());
    assert!(!other.leaves(&host("h2")) && other.leaves(&host("h1")), "in any order");
}

/// Hosts on which everything is as it should be.
fn well(rows: &LabRows) -> BTreeMap<HostId, HostView> {
    let mut hosts: BTreeMap<HostId, HostView> = BTreeMap::new();
    for (id, last, mtu) in [("h1", 1, 1_450), ("h2", 2, 1_550)] {
        let view = hosts.entry(host(id)).or_default();
        (view.compute.heard, view.network.heard) = (Heard::Yes, Heard::Yes);
        view.network.inventory.underlay = Some(underlay(last, mtu));
        view.network.inventory.plane = "ovs".into();
        for nic in rows.nics.values().filter(|n| n.host == Some(host(id))) {
            let (wire_id, start_id, detail) = (nic.wire_id, "s1".to_owned(), String::new());
            let seen = ObservedNic { wire_id, present: true, start_id, carrier: true, alive: true, detail };
            view.network.nics.insert(wire_id, seen);
        }
        for link in rows.links.values() {
            view.network.wires.insert(link.wire_id, wire(link.wire_id, WireState::Up, "", None));
        }
    }
    hosts
}

fn wire(wire_id: WireId, state: WireState, detail: &str, end: Option<End>) -> ObservedWire {
    let (plane, plane_reason, sources) = Default::default();
    ObservedWire { wire_id, state, detail: detail.into(), end, plane, plane_reason, sources }
}

fn told(rows: &LabRows, hosts: &BTreeMap<HostId, HostView>) -> (LinkState, String, LabRows) {
    let mut rows = rows.clone();
    facts::refresh(&mut rows, hosts);
    let link = first(&rows).clone();
    (link.state, link.reason, rows)
}

#[test]
fn the_state_of_a_link_between_hosts_is_that_of_both_halves() {
    let rows = rows();
    let (state, reason, up) = told(&rows, &well(&rows));
    assert_eq!((state, reason.as_str(), first(&up).plane.as_str()), (LinkState::Up, "", "ovs"));
    assert!(up.nics.values().all(|nic| nic.alive));
    let id = first(&rows).wire_id;
    let mut hosts = well(&rows);
    let mut say = |on: &str, wire: ObservedWire| {
        hosts.get_mut(&host(on)).unwrap().network.wires.insert(id, wire);
        let (state, reason, _) = told(&rows, &hosts);
        (state, reason)
    };
    let down = |end| wire(id, WireState::Down, "it is down", Some(end));
    // b, the second end, is down on h2; h1 has only heard of it.
    say("h2", down(End::B));
    assert_eq!(say("h1", down(End::B)), (LinkState::Down, "b:eth1: it is down".into()));
    say("h2", wire(id, WireState::Failed, "no module", None));
    assert_eq!(say("h1", down(End::B)), (LinkState::Failed, "host h2: no module".into()));

    // A host that is not heard of: not known, and for the other end as if it were unplugged.
    let mut hosts = well(&rows);
    hosts.get_mut(&host("h2")).unwrap().network.heard = Heard::Lost;
    let (state, reason, lost) = told(&up, &hosts);
    assert_eq!((state, reason.as_str()), (LinkState::Unknown, "host h2 is not heard of"));
    assert!(!tunnel(&lost, "h1").0.remote_up && tunnel(&lost, "h2").0.remote_up);
    // A scheduler that just started has heard of nobody, and changes nothing.
    let none: BTreeMap<HostId, HostView> =
        [(host("h1"), HostView::default()), (host("h2"), HostView::default())].into();
    let (state, _, same) = told(&up, &none);
    assert_eq!(state, LinkState::Up);
    assert_eq!(tunnel(&same, "h1"), tunnel(&up, "h1"));

    // No address.
    let mut hosts = well(&rows);
    hosts.get_mut(&host("h2")).unwrap().network.inventory.underlay = None;
    let (state, reason, _) = told(&rows, &hosts);
    assert_eq!((state, reason), (LinkState::Failed, no_address(&host("h2"))));
}

/// What one host sends to a port the other one does not listen at: both ends were UP, and nothing got through.
#[test]
fn hosts_with_different_ports_for_tunnels_are_told_of() {
    let rows = rows();
    let mut hosts = well(&rows);
    let inventory = &mut hosts.get_mut(&host("h2")).unwrap().network.inventory;
    inventory.underlay = Some(Underlay { port: 8_472, ..underlay(2, 1_550) });
    let (state, reason, _) = told(&rows, &hosts);
    assert_eq!(state, LinkState::Failed);
    for word in
        ["host h1 has its tunnels at UDP port 4789", "host h2 at 8472", "set network.tunnel_port alike"]
    {
        assert!(reason.contains(word), "{reason}");
    }
    let mut other = rooms();
    other[1].allowed.reach = other[1]
        .allowed
        .reach
        .map(|reach| Reach { underlay: Some(Underlay { port: 8_472, ..underlay(2, 1_550) }), ..reach });
    let plan = planned(&empty(), &spec(), &other).plan;
    assert!(plan.actions.iter().any(|a| a.reason.contains("set network.tunnel_port alike")), "{plan:?}");
}

#[test]
fn both_ends_are_carried_by_the_same() {
    let ovs = reach(1, 1_450);
    let of = |lab, one: Reach, other| plane(lab, false, false, [one, other]).0;
    let kernel = Reach { by_ovs: false, ..ovs };
    let module = Reach { kernel_datapath: true, ..ovs };
    assert_eq!((of(None, ovs, ovs), of(None, ovs, kernel)), (Plane::Ovs, Plane::Kernel));
    assert_eq!(
        (of(Some(Plane::Ovs), kernel, kernel), of(Some(Plane::Kernel), ovs, ovs)),
        (Plane::Ovs, Plane::Kernel)
    );
    assert_eq!(
        (of(Some(Plane::Auto), module, module), of(Some(Plane::Auto), module, ovs)),
        (Plane::Ovs, Plane::Kernel)
    );
    let six = Reach {
        underlay: Some(Underlay { address: "2001:db8::1".parse().unwrap(), port: 1, mtu: 1_430 }),
        ..ovs
    };
    assert_eq!(of(None, six, six), Plane::Kernel);
    assert_eq!(plane(Some(Plane::Ovs), false, true, [ovs, ovs]).0, Plane::Kernel, "an impaired one");
    assert_eq!(plane(Some(Plane::Ovs), true, false, [ovs, ovs]).0, Plane::Kernel, "one to a bridge");
}

#[test]
fn no_two_links_have_the_same_number() {
    let mut rows = planned(&empty(), &spec(), &rooms()).rows;
    vnis::allot(&mut rows, &[3, 5].into(), &(3..=6));
    let own: BTreeSet<u32> = rows.links.values().filter_map(|link| link.vni).collect();
    assert_eq!(own, [4, 6].into());
    let mut rows = planned(&empty(), &spec(), &rooms()).rows;
    vnis::allot(&mut rows, &[3, 5].into(), &(3..=5));
    assert_eq!(vnis::without(&rows).len(), 1, "one goes without");
}

#[test]
fn a_node_that_moves_takes_its_link_to_new_hosts_under_a_new_number() {
    let rows = rows();
    let mut apart = rows.clone();
    let b = apart.node("b").unwrap().uid;
    apart.nodes.get_mut(&b).unwrap().host = Some(host("h1"));
    let moved = planned(&apart, &spec(), &rooms()).rows;
    let link = first(&moved);
    assert!(link.far.is_none() && link.vni.is_none() && link.uid != first(&rows).uid);
    let former = moved.links.values().find(|l| l.replaced && l.id == link.id).unwrap();
    assert!(former.vni.is_some() && former.is_on(&host("h2")));
}
