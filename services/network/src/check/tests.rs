//! Places of wires, on hosts in memory.

use netloom_model::id::{LabUid, NodeUid, Owner};
use netloom_model::slice::{Nic, Tunnel, Wire, WireEnd};
use netloom_service::handover::Machine;

use super::places::{Origin, of, origin};
use super::*;
use crate::driver::ovs::{Port, View};
use crate::netlink::{GuestEnd, Link};
use crate::netns::Start;
use crate::redirect::Redirect;
use crate::slice::Wanted;

fn id(n: u64) -> WireId {
    n.try_into().unwrap()
}

/// Two nodes with a NIC each, 1 and 2, and a wire 9 between them.
struct World {
    names: Names,
    wanted: Wanted,
    starts: Starts,
    links: Links,
}

impl World {
    fn new() -> World {
        let names = Names::new(&Config::default(), Owner::new());
        let (mut wanted, mut starts, mut links) = (Wanted::default(), Starts::new(), Links::new());
        for n in [1, 2] {
            let (node_uid, wire_id) = (NodeUid::new(), id(n));
            let nic = Nic {
                wire_id,
                node_uid,
                guest_name: "eth1".into(),
                mac: "02:00:00:00:00:01".into(),
                mtu: 1500,
                addresses: vec![],
                lab_uid: LabUid::new(),
            };
            starts.insert(
                node_uid,
                Start { id: "s".into(), path: format!("/netns/{n}").into(), machine: None },
            );
            let link = Link {
                index: 100 + n as u32,
                name: names.nic(wire_id),
                alias: names.alias(&nic, "s", Some(true)),
                group: names.group,
                up: true,
                lower_up: true,
                peer: 2,
                peer_namespace: Some(n as i32),
                home: Some(n as i32),
                guest: Some(GuestEnd { name: "eth1".into(), up: true }),
                ..Link::default()
            };
            links.insert(link.name.clone(), link);
            wanted.slice.nics.insert(wire_id, nic);
        }
        let mut world = World { names, wanted, starts, links };
        world.wire(WireEnd::Nic(id(1)), WireEnd::Nic(id(2)));
        world
    }

    fn wire(&mut self, a: WireEnd, b: WireEnd) {
        let (a_to_b, b_to_a, plane, lab_uid) = (Default::default(), Default::default(), None, LabUid::new());
        let wire = Wire { wire_id: id(9), a, b, enabled: true, lab_uid, a_to_b, b_to_a, plane };
        self.wanted.slice.wires.insert(id(9), wire);
    }

    fn link(&mut self, nic: u64) -> &mut Link {
        let name = self.names.nic(id(nic));
        self.links.get_mut(&name).unwrap()
    }

    fn start(&mut self, nic: u64) -> &mut Start {
        let node = self.wanted.slice.nics[&id(nic)].node_uid;
        self.starts.get_mut(&node).unwrap()
    }

    fn known(&self) -> Known<'_> {
        let World { names, wanted, starts, links } = self;
        Known { names, wanted, starts, links, underlay: Some("u0") }
    }

    fn places(&self) -> Vec<Place> {
        of(&self.known(), id(9))
    }

    fn inside(&self) -> Place {
        self.places().into_iter().find(|place| place.kind == Kind::Interface && place.end == End::A).unwrap()
    }

    fn origin(&self, ovs: Option<&View>, end: End) -> Result<Origin, String> {
        origin(&self.known(), ovs, id(9), end)
    }
}

#[test]
fn frames_come_by_both_ends_of_both_nics() {
    let world = World::new();
    let looks: Vec<_> = world.places().into_iter().map(|place| (place.kind, place.end, place.look)).collect();
    let inside = |n: u32| Look::Node(format!("/netns/{n}").into(), 2, 100 + n);
    assert_eq!(
        looks,
        [
            (Kind::Interface, End::A, inside(1)),
            (Kind::HostEnd, End::A, Look::Host(101)),
            (Kind::Interface, End::B, inside(2)),
            (Kind::HostEnd, End::B, Look::Host(102)),
        ]
    );
    assert!(world.places().iter().all(|place| place.detail.is_empty() && !place.passed_over));
    assert_eq!(world.origin(None, End::B), Ok(Origin::Node("/netns/2".into(), 2, 102)));
    assert_eq!(of(&world.known(), id(8)), [], "a wire that is not here has no places");
}

#[test]
fn what_is_out_of_the_ordinary_is_said_of_the_place() {
    let mut world = World::new();
    world.link(1).guest = Some(GuestEnd { name: "wan".into(), up: false });
    world.link(1).lower_up = false;
    let inside = world.inside();
    assert_eq!(inside.interface, "wan");
    assert!(inside.detail.contains("set down") && inside.detail.contains("not eth1"), "{}", inside.detail);
    assert!(matches!(inside.look, Look::Node(..)), "it is looked at under any name");
    assert_eq!(world.places()[1].detail, "it has no carrier");
    world.link(1).peer_namespace = Some(7);
    assert_eq!(world.inside().look, Look::Nowhere);
    assert!(world.origin(None, End::A).unwrap_err().contains("another network namespace"));
    world.links.remove(&world.names.nic(id(1)));
    assert_eq!((world.inside().look, world.places()[1].detail.as_str()), (Look::Nowhere, "it is not there"));
    world.starts.clear();
    assert_eq!(world.inside().detail, "its node does not run");
}

#[test]
fn another_host_is_looked_for_in_tunnels() {
    let mut world = World::new();
    let tunnel = Tunnel { remote: [10, 0, 0, 2].into(), vni: 5, remote_up: true };
    world.wire(WireEnd::Nic(id(1)), WireEnd::Tunnel(tunnel));
    let tunnel = world.places().pop().unwrap();
    assert_eq!((tunnel.kind, tunnel.end, tunnel.look), (Kind::Tunnel, End::B, Look::Tunnels));
    assert_eq!(tunnel.interface, "u0");
    assert!(world.origin(None, End::B).unwrap_err().contains("another host"));
}

#[test]
fn what_ends_in_the_host_is_sent_from_the_host_end() {
    let mut world = World::new();
    world.wire(WireEnd::HostInterface("up0".into()), WireEnd::Nic(id(2)));
    assert_eq!(world.places().len(), 2);
    assert_eq!(world.origin(None, End::A), Ok(Origin::Host(102)));
}

/// Nobody else can write what the process of a tap writes: its frames begin where those of the machine are handed on to.
#[test]
fn frames_of_a_virtual_machine_begin_behind_its_tap() {
    let mut world = World::new();
    world.start(1).machine = Some(Machine::of(1).unwrap());
    world.link(1).guest = None;
    let places = world.places();
    assert!(places[..2].iter().all(|place| place.passed_over) && !places[2].passed_over);
    assert_eq!(places[0].look, Look::Nowhere);
    assert!(world.origin(None, End::A).is_err(), "nothing takes on what it sends");
    let port = Port { index: Some(101), ofport: Some(5), bridge: "nl0".into(), ..port() };
    let ovs = View { ports: [(world.names.nic(id(1)), port)].into(), ..View::default() };
    assert_eq!(world.origin(Some(&ovs), End::A), Ok(Origin::Port("nl0".into(), 5, 101)));
    world.link(1).redirect = Some(Redirect { to: 102, mark: None });
    assert_eq!(world.origin(Some(&ovs), End::A), Ok(Origin::Host(102)));
}

fn port() -> Port {
    let uuid = netloom_ovsdb::Uuid::from_u128(1);
    Port {
        uuid,
        interface: uuid,
        mtu: None,
        bridge: String::new(),
        owner: None,
        wire: None,
        index: None,
        ofport: None,
        error: None,
        peer: None,
        tunnel: None,
        intact: true,
    }
}
