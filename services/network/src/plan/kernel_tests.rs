//! Plans of wires that go through the kernel: impaired ones, and those that lead out of the lab.

use netloom_model::id::{LabUid, NodeUid};
use netloom_model::observed::{Source, WireState};
use netloom_model::slice::{Segment, WireEnd};

use super::Op;
use super::world::{World, id};
use crate::netlink::Link;
use crate::qdisc::Shape;
use crate::redirect::Redirect;

fn rate(world: &mut World, wire: u64, bps: u64) {
    world.wanted.slice.wires.get_mut(&id(wire)).unwrap().a_to_b.rate_bps = bps;
}

fn foreign(world: &mut World, name: &str, is_bridge: bool) -> u32 {
    let index = world.number();
    let link = Link { index, name: name.into(), is_bridge, up: true, ..Link::default() };
    world.links.insert(name.into(), link);
    index
}

#[test]
fn an_impaired_wire_is_on_one_plane_at_a_time() {
    let mut world = World::new();
    world.settle();
    rate(&mut world, 101, 1_000_000);
    // First the flows go, then the redirects come: never both.
    let plan = world.plan();
    assert!(plan.controls.is_empty() && plan.flows["nl0"].len() == 6);
    world.act(&plan);
    let plan = world.plan();
    assert_eq!(plan.controls.len(), 2);
    assert!(world.switched(&plan).is_empty(), "its carrier stays meanwhile");
    let plan = world.settle();
    let wire = &plan.observed.wires[&id(101)];
    assert_eq!((wire.state, wire.plane.as_str()), (WireState::Up, "kernel"));
    // What frames from a to b go through is where they leave: at b.
    let (a, b) = (world.link(11).clone(), world.link(22).clone());
    assert!(matches!(b.shape, Some(Shape::Rate(rate)) if rate.bytes_per_second == 125_000));
    let to = |link: &Link| link.redirect.map(|redirect| redirect.to);
    assert_eq!((a.shape, to(&a), to(&b)), (None, Some(b.index), Some(a.index)));
    assert!(!world.ovs.as_ref().unwrap().ports.contains_key(&world.names.nic(id(11))));

    // A changed rate is one operation on one interface.
    rate(&mut world, 101, 2_000_000);
    let plan = world.plan();
    let [control] = plan.controls.as_slice() else { panic!("{:?}", plan.controls) };
    assert!(matches!(control.ops.as_slice(), [Op::Put(Shape::Rate(_), _)]) && control.index == b.index);
    // It carries meanwhile, and says what is still to come.
    let told = |plan: &super::Plan| plan.observed.wires[&id(101)].clone();
    let changing = told(&plan);
    assert_eq!((changing.state, changing.detail.as_str()), (WireState::Up, "its impairment is being made"));
    assert!(world.switched(&plan).is_empty());
    assert_eq!(told(&world.settle()).detail, "");

    // The way back: the redirects go when the ports are there, the flows come when the redirects are gone.
    rate(&mut world, 101, 0);
    let plan = world.plan();
    assert!(!plan.controls.iter().any(|c| c.ops.contains(&Op::Undirect)), "{:?}", plan.controls);
    world.act(&plan);
    let plan = world.plan();
    assert_eq!(plan.controls.iter().filter(|c| c.ops.contains(&Op::Undirect)).count(), 2);
    assert_eq!(plan.flows["nl0"].len(), 6);
    world.act(&plan);
    assert_eq!(world.plan().flows["nl0"].len(), 8);
    assert_eq!(world.settle().observed.wires[&id(101)].plane, "ovs");
}

#[test]
fn what_is_done_to_frames_goes_with_its_interface() {
    let mut world = World::new();
    rate(&mut world, 101, 1_000_000);
    world.settle();
    assert!(world.link(11).redirect.is_some() && world.link(22).shape.is_some());
    world.wanted.slice.wires.remove(&id(101));
    world.wanted.slice.nics.retain(|nic, _| ![11, 22].map(id).contains(nic));
    world.wanted.doomed.extend([101, 11, 22].map(id));
    let plan = world.plan();
    assert_eq!((plan.unplug.len(), plan.controls.len()), (2, 0), "{:?}", plan.controls);
    assert!(world.settle().left.is_empty());
}

#[test]
fn what_is_not_ours_at_an_interface_stays_unless_it_is_in_the_way() {
    let mut world = World::new();
    world.settle();
    world.link(11).redirect = Some(Redirect { to: 77, mark: None });
    let plan = world.plan();
    assert!(plan.controls.iter().any(|c| c.ops == [Op::Undirect]), "a redirect of ours that nobody wants");
    // Of other people's interfaces nothing is ever said.
    let mut world = World::new();
    world.settle();
    let index = foreign(&mut world, "eth0", false);
    let link = world.links.get_mut("eth0").unwrap();
    (link.redirect, link.shape) = (Some(Redirect { to: 1, mark: None }), Some(Shape::Strange));
    assert!(!world.plan().controls.iter().any(|c| c.index == index));
}

#[test]
fn an_impaired_wire_to_a_segment_has_a_tail() {
    let mut world = World::new();
    let wire_id = id(500);
    let (node_uid, lab_uid) = (NodeUid::new(), LabUid::new());
    world
        .wanted
        .slice
        .segments
        .insert(wire_id, Segment { wire_id, node_uid, lab_uid, uplink: String::new() });
    world.wanted.slice.wires.get_mut(&id(101)).unwrap().b = WireEnd::Segment(wire_id);
    world.settle();
    let plain = world.links.len();
    let read = |plan: &super::Plan| plan.observed.wires[&id(101)].sources.clone();
    let of_bridge = vec![Source::Ovsdb, Source::Flows, Source::Interfaces];
    assert_eq!(read(&world.plan()), of_bridge);
    rate(&mut world, 101, 1_000_000);
    let plan = world.settle();
    assert_eq!(plan.observed.wires[&id(101)].state, WireState::Up);
    // It goes through the kernel, and into a bridge of Open vSwitch all the same.
    assert_eq!(read(&plan), [of_bridge, vec![Source::Redirects]].concat());
    assert_eq!(world.links.len(), plain + 2);
    let tail = world.names.tail(id(101), crate::names::End::B);
    assert_eq!(world.ovs.as_ref().unwrap().ports[&tail.outer].bridge, world.names.segment(wire_id));
    assert!(world.links[&tail.inner].shape.is_some());
    // One that was made and not marked is made again.
    world.links.get_mut(&tail.inner).unwrap().alias = String::new();
    let plan = world.plan();
    assert_eq!(plan.untail, [world.links[&tail.inner].index]);
    world.act(&plan);
    world.settle();
    // With its wire it goes.
    world.wanted.slice.wires.remove(&id(101));
    world.wanted.doomed.insert(id(101));
    assert!(world.plan().left[&id(101)].contains("tail"));
    world.settle();
    assert_eq!(world.links.len(), plain);
}

#[test]
fn what_the_kernel_lacks_is_refused_with_its_names() {
    let mut world = World::new();
    world.settle();
    let wire = world.wanted.slice.wires.get_mut(&id(101)).unwrap();
    (wire.b_to_a.delay_us, wire.b_to_a.rate_bps) = (5, 5);
    let plan = world.settle();
    let wire = &plan.observed.wires[&id(101)];
    assert_eq!(wire.state, WireState::Failed);
    assert!(wire.detail.starts_with("IMPAIRMENT_NOT_SUPPORTED"), "{}", wire.detail);
    assert!(wire.detail.contains("cannot do delay from b to a;"), "{}", wire.detail);
    assert!(!world.link(11).up && world.links.values().all(|link| link.redirect.is_none()));
    world.impairments.push("delay_us".into());
    assert_eq!(world.settle().observed.wires[&id(101)].state, WireState::Up);
}

#[test]
fn a_host_end_is_given_to_the_host_under_the_name_asked_for() {
    let mut world = World::new();
    let wire = world.wanted.slice.wires.get_mut(&id(101)).unwrap();
    wire.b = WireEnd::HostInterface("uplink".into());
    world.settle();
    assert!(world.links["uplink"].up && !world.links.contains_key(&world.names.nic(id(11))));
    // The name of somebody else's is left to them, and told.
    let own = world.links.remove("uplink").unwrap();
    foreign(&mut world, "uplink", false);
    let name = world.names.nic(id(11));
    world.links.insert(name.clone(), Link { name, ..own });
    let plan = world.settle();
    let wire = &plan.observed.wires[&id(101)];
    assert!(wire.state == WireState::Failed && wire.detail.contains("uplink already"), "{}", wire.detail);
    world.links.remove("uplink");
    assert_eq!(world.settle().observed.wires[&id(101)].state, WireState::Up);
    // Without its wire it is called as it was.
    world.wanted.slice.wires.remove(&id(101));
    world.wanted.doomed.insert(id(101));
    world.settle();
    assert!(!world.links.contains_key("uplink") && !world.link(11).up);
}

#[test]
fn a_host_end_that_a_crash_left_unmarked_is_made_anew_whatever_the_host_is_to_call_it() {
    let mut world = World::new();
    world.wanted.slice.wires.get_mut(&id(101)).unwrap().b = WireEnd::HostInterface("uplink".into());
    let plan = world.plan();
    world.act(&plan);
    let index = world.link(11).index;
    world.link(11).alias = String::new();
    assert_eq!(world.plan().unplug[&id(11)], index);
    world.settle();
    assert!(world.links["uplink"].up && world.links["uplink"].index != index);
}

#[test]
fn a_linux_bridge_is_waited_for_and_let_go_of() {
    let mut world = World::new();
    let wire = world.wanted.slice.wires.get_mut(&id(101)).unwrap();
    wire.b = WireEnd::Bridge("br-mgmt".into());
    let plan = world.settle();
    let wire = &plan.observed.wires[&id(101)];
    assert_eq!((wire.state, wire.detail.as_str()), (WireState::Pending, "there is no bridge br-mgmt yet"));
    let bridge = foreign(&mut world, "br-mgmt", true);
    assert_eq!(world.settle().observed.wires[&id(101)].state, WireState::Up);
    assert_eq!(world.link(11).master, bridge);
    world.wanted.slice.wires.get_mut(&id(101)).unwrap().b = WireEnd::Dummy;
    assert_eq!(world.settle().observed.wires[&id(101)].state, WireState::Up);
    assert_eq!(world.link(11).master, 0);
    // A master that is no Linux bridge is Open vSwitch's kernel datapath.
    let datapath = foreign(&mut world, "ovs-system", false);
    world.link(11).master = datapath;
    assert!(world.plan().masters.is_empty());
}

#[test]
fn a_nic_is_changed_in_place_unless_its_name_changes() {
    let mut world = World::new();
    world.settle();
    world.link(11).peer = 9;
    let index = world.link(11).index;
    let nic = world.wanted.slice.nics.get_mut(&id(11)).unwrap();
    (nic.mtu, nic.addresses) = (1_500, vec!["10.0.0.1/24".into()]);
    let plan = world.plan();
    let [adjustment] = plan.adjust.values().next().unwrap().as_slice() else { panic!("{:?}", plan.adjust) };
    assert_eq!((adjustment.guest_index, adjustment.host_index, adjustment.before.mtu), (9, index, 9_500));
    assert!(plan.unplug.is_empty() && world.switched(&plan).is_empty());
    assert_eq!(plan.observed.wires[&id(101)].state, WireState::Up, "it goes on carrying");
    world.settle();
    assert_eq!((world.link(11).index, world.port(11).mtu), (index, Some(1_500)));
    world.wanted.slice.nics.get_mut(&id(11)).unwrap().guest_name = "wan0".into();
    assert_eq!(world.plan().unplug[&id(11)], index);
}
