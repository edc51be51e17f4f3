//! What of the host segments are joined to, decided.

use netloom_model::id::{LabUid, NodeUid, WireId};
use netloom_model::observed::{UplinkKind, WireState};
use netloom_model::slice::Segment;
use netloom_ovsdb::Uuid;

use super::world::{World, id};
use crate::driver::ovs::{Bridge, Change, Port, PortKind};
use crate::netlink::Link;
use crate::uplink::{Manner, Seen};

const BEFORE: Manner = Manner { up: false, rp_filter: 2, arp_ignore: 0, ipv6_off: false, merges: Some(true) };

/// A host with an interface `ens5` and a bridge `br0` that labs may use, and a segment that is to be joined to one of them.
fn world(uplink: &str) -> World {
    let mut world = World::new();
    world.allowed_uplinks = ["br0", "ens5"].map(str::to_owned).into();
    let ens5 = Link { index: 7, name: "ens5".into(), mtu: 1_500, ..Link::default() };
    let br0 = Link { index: 8, name: "br0".into(), mtu: 1_400, is_bridge: true, up: true, ..Link::default() };
    world.links.extend([ens5, br0].map(|link| (link.name.clone(), link)));
    world.uplinks.insert("ens5".into(), Seen { used: None, manner: BEFORE });
    add(&mut world, 500, uplink);
    world
}

fn add(world: &mut World, segment: u64, uplink: &str) {
    let (node_uid, lab_uid) = (NodeUid::new(), LabUid::new());
    let segment = Segment { wire_id: id(segment), node_uid, lab_uid, uplink: uplink.to_owned() };
    world.wanted.slice.segments.insert(segment.wire_id, segment);
}

fn said(world: &World, segment: u64) -> (WireState, String) {
    let told = world.plan().observed.segments[&id(segment)].clone();
    (told.state, told.detail)
}

fn up() -> (WireState, String) {
    (WireState::Up, String::new())
}

fn remove(world: &mut World, segment: WireId) {
    world.wanted.slice.segments.remove(&segment);
    world.wanted.doomed.insert(segment);
}

fn port<'w>(world: &'w World, name: &str) -> Option<&'w Port> {
    world.ovs.as_ref().unwrap().ports.get(name)
}

#[test]
fn an_interface_is_marked_and_set_before_it_is_a_port_and_goes_back_after() {
    let mut world = world("ens5");
    let plan = world.plan();
    let [handling] = &plan.handlings[..] else { panic!("{:?}", plan.handlings) };
    assert!(handling.take && handling.then.up && handling.then.ipv6_off);
    assert_eq!(
        handling.then.merges,
        Some(false),
        "in userspace Open vSwitch would cut off what was put together"
    );
    assert!(!plan.changes.iter().any(|c| matches!(c, Change::AddPort { name, .. } if name == "ens5")));
    world.settle();
    assert_eq!(said(&world, 500), up());
    let there = port(&world, "ens5").unwrap();
    assert_eq!((there.bridge.clone(), there.index, there.mtu), (world.names.segment(id(500)), Some(7), None));
    assert_eq!(world.names.uplink_of(&world.links["ens5"]), Some((id(500), BEFORE)));

    // The host takes away its port, or sets it otherwise: both are put right.
    world.ovs.as_mut().unwrap().ports.remove("ens5");
    world.uplinks.get_mut("ens5").unwrap().manner.arp_ignore = 0;
    assert_eq!(said(&world, 500).0, WireState::Pending);
    world.settle();
    assert_eq!(said(&world, 500), up());
    assert_eq!(
        world.names.uplink_of(&world.links["ens5"]),
        Some((id(500), BEFORE)),
        "how it was stays known"
    );

    world.links.get_mut("ens5").unwrap().lower_up = false;
    assert_eq!(said(&world, 500), (WireState::Up, "its uplink ens5 has no carrier".into()));

    remove(&mut world, id(500));
    assert!(world.plan().handlings.is_empty(), "Open vSwitch has it still");
    assert!(world.plan().left.contains_key(&id(500)));
    world.settle();
    assert_eq!((world.uplinks["ens5"].manner, world.links["ens5"].uplink.as_str()), (BEFORE, ""));
    assert!(!world.links["ens5"].up && world.plan().left.is_empty());
}

#[test]
fn an_interface_is_of_one_segment() {
    let mut world = world("ens5");
    world.settle();
    // One of a lower number that comes later does not take it away.
    add(&mut world, 400, "ens5");
    world.settle();
    assert_eq!(said(&world, 500), up());
    let (state, why) = said(&world, 400);
    assert!(state == WireState::Failed && why.contains("interface ens5 is the uplink of another"), "{why}");
    remove(&mut world, id(500));
    world.settle();
    assert_eq!(said(&world, 400), up());
    assert_eq!(world.names.uplink_of(&world.links["ens5"]), Some((id(400), BEFORE)));
}

#[test]
fn a_segment_that_is_given_another_uplink_gives_the_first_one_back() {
    let mut world = world("ens5");
    world.allowed_uplinks.insert("ens6".into());
    let ens6 = Link { index: 9, name: "ens6".into(), ..Link::default() };
    world.links.insert("ens6".into(), ens6);
    world.uplinks.insert("ens6".into(), Seen { used: None, manner: BEFORE });
    world.settle();
    world.wanted.slice.segments.get_mut(&id(500)).unwrap().uplink = "ens6".into();
    let plan = world.plan();
    let marks: Vec<&str> = plan.handlings.iter().map(|handling| handling.mark.as_str()).collect();
    assert!(marks.len() == 1 && marks[0] != world.links["ens5"].uplink, "{marks:?}");
    world.settle();
    assert_eq!(said(&world, 500), up());
    assert_eq!((world.uplinks["ens5"].manner, world.links["ens5"].uplink.as_str()), (BEFORE, ""));
    assert_eq!(world.names.uplink_of(&world.links["ens6"]), Some((id(500), BEFORE)));
}

#[test]
fn an_interface_that_vanishes_is_told_and_taken_anew_when_it_is_back() {
    let mut world = world("ens5");
    world.settle();
    let mut ens5 = world.links.remove("ens5").unwrap();
    let (state, why) = said(&world, 500);
    assert_eq!((state, why.as_str()), (WireState::Failed, "there is no interface ens5 on this host"));
    world.settle();
    assert!(port(&world, "ens5").is_none());
    (ens5.index, ens5.uplink, ens5.up) = (99, String::new(), false);
    world.links.insert("ens5".into(), ens5);
    world.uplinks.insert("ens5".into(), Seen { used: None, manner: BEFORE });
    world.settle();
    assert_eq!((said(&world, 500), port(&world, "ens5").unwrap().index), (up(), Some(99)));
}

#[test]
fn what_the_host_uses_itself_is_left_alone() {
    let foreign = |world: &mut World, bridge: &str| {
        let (uuid, datapath) = (Uuid::from_u128(77), "netdev".to_owned());
        let made = Bridge { uuid, owner: None, wire: None, datapath, works: true, intact: false };
        world.ovs.as_mut().unwrap().bridges.insert(bridge.into(), made);
    };
    let on_it =
        |name: &str, is_veth| Link { index: 9, name: name.into(), peer: 7, is_veth, ..Link::default() };
    type Change = Box<dyn Fn(&mut World)>;
    let ens5 =
        |change: fn(&mut Link)| -> Change { Box::new(move |w| change(w.links.get_mut("ens5").unwrap())) };
    // What of it can come later, too.
    let later = true;
    let cases: Vec<(Change, &str, bool)> = vec![
        (
            Box::new(|w| w.allowed_uplinks.retain(|name| name != "ens5")),
            "name it in `uplinks` of [network]",
            later,
        ),
        (ens5(|l| l.is_loopback = true), "is the host's loopback", later),
        (ens5(|l| l.alias = "netloom:x:1:tail".into()), "is netloom's own", later),
        (ens5(|l| l.uplink = "netloom.x.1.0-0-0-0-0".into()), "another installation of netloom", false),
        (ens5(|l| l.master = 8), "is a port of br0 already", false),
        (
            Box::new(|w| {
                w.uplinks.get_mut("ens5").unwrap().used = Some("has the address 192.0.2.1 of the host".into())
            }),
            "interface ens5 has the address 192.0.2.1 of the host",
            later,
        ),
        (
            Box::new(move |w| drop(w.links.insert("ens5.9".into(), on_it("ens5.9", false)))),
            "carries the interface ens5.9 of the host",
            later,
        ),
        (
            Box::new(move |w| {
                foreign(w, "ovsbr");
                w.change(&super::Change::AddPort {
                    bridge: "ovsbr".into(),
                    name: "ens5".into(),
                    wire: None,
                    kind: PortKind::Uplink { index: 7 },
                });
                w.ovs.as_mut().unwrap().ports.get_mut("ens5").unwrap().owner = None;
            }),
            "is a port of bridge ovsbr already",
            false,
        ),
    ];
    for (change, words, can_come_later) in cases {
        for is_taken in [false, true].into_iter().filter(|is_taken| can_come_later || !is_taken) {
            let mut world = world("ens5");
            if is_taken {
                world.settle();
            }
            change(&mut world);
            world.settle();
            let (state, why) = said(&world, 500);
            assert!(state == WireState::Failed && why.contains(words), "{words}: {state:?} {why}");
            let ours = port(&world, "ens5").filter(|port| port.owner.is_some());
            assert!(ours.is_none() && !world.links["ens5"].up, "{words}");
        }
    }
    // The other end of a veth is not made on it.
    let mut world = world("ens5");
    world.links.insert("peer".into(), on_it("peer", true));
    world.settle();
    assert_eq!(said(&world, 500), up());
}

#[test]
fn a_linux_bridge_has_a_tail_for_a_port_of_its_own_mtu() {
    let mut world = world("br0");
    add(&mut world, 501, "br0");
    world.settle();
    for segment in [500, 501] {
        assert_eq!(said(&world, segment), up());
        let tail = world.names.tail(id(segment), super::uplinks::UPLINK_END);
        assert_eq!((world.links[&tail.inner].master, world.links[&tail.inner].mtu), (8, 1_400));
        let there = port(&world, &tail.outer).unwrap();
        assert_eq!((there.bridge.clone(), there.mtu), (world.names.segment(id(segment)), Some(1_400)));
    }
    // It is let go of by hand, and is given another MTU.
    let inner = world.names.tail(id(500), super::uplinks::UPLINK_END).inner;
    world.links.get_mut(&inner).unwrap().master = 0;
    world.links.get_mut("br0").unwrap().mtu = 1_300;
    world.settle();
    assert_eq!((world.links[&inner].master, world.links[&inner].mtu), (8, 1_300));
    world.links.get_mut("br0").unwrap().up = false;
    assert_eq!(said(&world, 500), (WireState::Failed, "bridge br0 is down: ip link set br0 up".into()));
    world.links.get_mut("br0").unwrap().up = true;
    remove(&mut world, id(500));
    world.settle();
    assert!(!world.links.contains_key(&inner) && world.links.contains_key("br0"));
    assert_eq!(said(&world, 501), up());
}

#[test]
fn a_bridge_of_open_vswitch_is_joined_by_a_patch() {
    let mut world = world("br0");
    world.links.remove("br0");
    let (uuid, datapath) = (Uuid::from_u128(77), "netdev".to_owned());
    let foreign = Bridge { uuid, owner: None, wire: None, datapath, works: true, intact: false };
    world.ovs.as_mut().unwrap().bridges.insert("br0".into(), foreign);
    let plan = world.settle();
    assert_eq!(said(&world, 500), up());
    assert!(plan.changes.is_empty(), "the bridge itself is nobody's to put right: {:?}", plan.changes);
    let [one, other] = world.names.patch(id(500));
    assert_eq!(port(&world, &one).unwrap().bridge, world.names.segment(id(500)));
    assert_eq!(port(&world, &other).unwrap().bridge, "br0");
    remove(&mut world, id(500));
    world.settle();
    assert!(port(&world, &one).is_none() && port(&world, &other).is_none());
    assert!(world.ovs.as_ref().unwrap().bridges.contains_key("br0") && world.plan().left.is_empty());

    add(&mut world, 501, "br0");
    world.wanted.doomed.clear();
    world.ovs.as_mut().unwrap().bridges.get_mut("br0").unwrap().datapath = "system".into();
    world.settle();
    let (state, why) = said(&world, 501);
    assert!(state == WireState::Failed && why.contains("give it the same datapath_type"), "{why}");
}

#[test]
fn what_may_be_an_uplink_is_told_with_what_it_is() {
    let mut world = world("ens5");
    world.allowed_uplinks.insert("ens6".into());
    world.wanted.synced = false;
    world.links.get_mut("br0").unwrap().up = false;
    let told = world.plan().observed.inventory.uplinks;
    let told: Vec<_> = told.iter().map(|u| (u.interface.as_str(), u.kind, u.problem.as_str())).collect();
    assert_eq!(
        told,
        [
            ("br0", Some(UplinkKind::Bridge), "bridge br0 is down: ip link set br0 up"),
            ("ens5", Some(UplinkKind::Nic), ""),
            ("ens6", None, "there is no interface ens6 on this host"),
        ]
    );
}

#[test]
fn while_the_database_does_not_answer_nothing_is_taken_and_nothing_goes_back() {
    let mut world = world("ens5");
    world.settle();
    let ovs = world.ovs.take();
    remove(&mut world, id(500));
    assert!(world.plan().handlings.is_empty() && world.plan().left.contains_key(&id(500)));
    world.ovs = ovs;
    world.settle();
    world.ovs = None;
    add(&mut world, 501, "ens5");
    assert!(world.plan().handlings.is_empty(), "a bridge of Open vSwitch may be called so");
}
