//! Plans of wires that go to other hosts.

use netloom_model::observed::{End, WireState};
use netloom_model::slice::{Tunnel, WireEnd};
use netloom_model::spec::Plane;

use super::world::{World, id};
use crate::driver::flows::Rule;
use crate::netlink::Vxlan;
use crate::redirect::Redirect;
use crate::underlay::Underlay;

const HERE: [u8; 4] = [192, 0, 2, 1];
const THERE: [u8; 4] = [192, 0, 2, 2];

/// Wire 101, from NIC 11, goes to another host; NIC 22 is there.
fn across(plane: Plane) -> World {
    let mut world = World::new();
    world.underlay = Some(Underlay { address: HERE.into(), port: 4789, interface: Some("u0".into()) });
    let underlay = crate::netlink::Link { index: 1, name: "u0".into(), mtu: 1_600, ..Default::default() };
    world.links.insert("u0".into(), underlay);
    world.kernel_datapath = true;
    let wire = world.wanted.slice.wires.get_mut(&id(101)).unwrap();
    wire.b = WireEnd::Tunnel(Tunnel { remote: THERE.into(), vni: 7_777, remote_up: true });
    wire.plane = Some(plane);
    world.wanted.slice.nics.remove(&id(22));
    world
}

fn tell_remote(world: &mut World, up: bool) {
    let wire = world.wanted.slice.wires.get_mut(&id(101)).unwrap();
    if let WireEnd::Tunnel(tunnel) = &mut wire.b {
        tunnel.remote_up = up;
    }
}

fn told(world: &World) -> (WireState, String, Option<End>) {
    let wire = world.plan().observed.wires[&id(101)].clone();
    (wire.state, wire.detail, wire.end)
}

#[test]
fn a_wire_of_the_kernel_has_a_tunnel_that_is_joined_with_its_nic() {
    let mut world = across(Plane::Kernel);
    let plan = world.settle();
    assert_eq!(told(&world), (WireState::Up, String::new(), None));
    let tunnel = world.links[&world.names.tunnel(id(101))].clone();
    let wanted = Vxlan { vni: 7_777, local: HERE.into(), remote: THERE.into(), port: 4789 };
    assert_eq!((tunnel.vxlan, tunnel.mtu), (Some(wanted), 9_500));
    let host_end = world.link(11).clone();
    let redirect = |from, to| Some(Redirect { to, mark: Some(world.names.mark(id(101), from)) });
    assert_eq!(host_end.redirect, redirect(host_end.index, tunnel.index));
    assert_eq!(tunnel.redirect, redirect(tunnel.index, host_end.index));
    assert!(!plan.flows["nl0"].iter().any(|rule| rule.cookie == 101));
    assert_eq!(plan.observed.inventory.underlay.map(|u| (u.port, u.mtu)), Some((4789, 1_550)));

    // Another host, or somebody who changed it: made anew.
    let name = world.names.tunnel(id(101));
    world.links.get_mut(&name).unwrap().vxlan = Some(Vxlan { vni: 8, ..wanted });
    assert!(world.plan().untail.contains(&tunnel.index));
    world.settle();
    assert_eq!(world.links[&name].vxlan, Some(wanted));

    // Removed, nothing of it is left.
    world.wanted.slice.wires.remove(&id(101));
    world.wanted.doomed.insert(id(101));
    assert!(world.plan().left.contains_key(&id(101)));
    assert!(world.settle().left.is_empty() && !world.links.contains_key(&name));
    assert_eq!(world.link(11).redirect, None);
}

#[test]
fn a_wire_of_open_vswitch_has_two_flows_over_one_port_for_all() {
    let mut world = across(Plane::Ovs);
    let plan = world.settle();
    assert_eq!(told(&world), (WireState::Up, String::new(), None));
    let ports = &world.ovs.as_ref().unwrap().ports;
    let number = |name: String| ports[&name].ofport.unwrap();
    let out = &ports[&world.names.tunnel_port()];
    assert_eq!((out.tunnel, out.wire), (Some((HERE.into(), 4790)), None));
    let (nic, out) = (number(world.names.nic(id(11))), number(world.names.tunnel_port()));
    let rules = Rule::tunnel(id(101), nic, out, 7_777, THERE.into());
    assert!(rules.iter().all(|rule| plan.flows["nl0"].contains(rule)), "{:?}", plan.flows);
    assert!(world.links.values().all(|link| link.vxlan.is_none()));

    // To the kernel and back: never on both, and the port goes with its last wire.
    world.wanted.slice.wires.get_mut(&id(101)).unwrap().plane = Some(Plane::Kernel);
    world.settle();
    assert_eq!(told(&world).0, WireState::Up);
    assert!(!world.ovs.as_ref().unwrap().ports.contains_key(&world.names.tunnel_port()));
    world.wanted.slice.wires.get_mut(&id(101)).unwrap().plane = Some(Plane::Ovs);
    world.settle();
    assert_eq!(told(&world).0, WireState::Up);
    assert!(world.links.values().all(|link| link.vxlan.is_none()));
}

#[test]
fn what_happens_to_frames_happens_where_they_come_out() {
    let mut world = across(Plane::Ovs);
    let wire = world.wanted.slice.wires.get_mut(&id(101)).unwrap();
    (wire.a_to_b.rate_bps, wire.b_to_a.rate_bps) = (1_000_000, 2_000_000);
    let plan = world.settle();
    let wire = &plan.observed.wires[&id(101)];
    assert_eq!((wire.state, wire.plane.as_str(), wire.detail.as_str()), (WireState::Up, "kernel", ""));
    assert!(world.link(11).shape.is_some() && world.links[&world.names.tunnel(id(101))].shape.is_none());
}

#[test]
fn carrier_follows_what_is_told_of_the_far_end() {
    let mut world = across(Plane::Kernel);
    world.settle();
    assert!(world.link(11).up);
    tell_remote(&mut world, false);
    world.settle();
    assert!(!world.link(11).up, "the node is to see no carrier");
    let down = "the far end is down on its host";
    assert_eq!(told(&world), (WireState::Down, down.into(), Some(End::B)));
    // What is told to the other host is this end's own will, whatever carrier it has: else both would wait for each other.
    let nic = |world: &World| world.plan().observed.nics[&id(11)].clone();
    assert!(nic(&world).alive && !nic(&world).carrier);
    world.set_guest(11, false);
    assert!(!nic(&world).alive);
    assert_eq!(told(&world).2, Some(End::A), "this end's own reason comes first");
    world.set_guest(11, true);
    tell_remote(&mut world, true);
    world.settle();
    assert!(world.link(11).up);
    assert_eq!(told(&world).0, WireState::Up);
}

#[test]
fn a_host_without_an_address_says_so() {
    let mut world = across(Plane::Kernel);
    world.underlay = None;
    world.settle();
    let (state, why, _) = told(&world);
    assert!(state == WireState::Failed && why.contains("network.tunnel_address"), "{why}");
    assert_eq!(world.plan().observed.inventory.underlay, None);
    world.underlay = Some(Underlay { address: HERE.into(), port: 4789, interface: None });
    let (state, why, _) = told(&world);
    assert!(state == WireState::Failed && why.contains("192.0.2.1"), "{why}");
    assert!(world.plan().observed.inventory.problems.iter().any(|p| p.contains("192.0.2.1")));
    world.underlay = Some(Underlay { address: HERE.into(), port: 4789, interface: Some("u0".into()) });
    assert_eq!(told(&world).0, WireState::Pending);
    // In userspace Open vSwitch does not see what comes in by an interface that is none of its own.
    world.wanted.slice.wires.get_mut(&id(101)).unwrap().plane = Some(Plane::Ovs);
    world.ovs.as_mut().unwrap().bridges.get_mut("nl0").unwrap().datapath = "netdev".into();
    let (state, why, _) = told(&world);
    assert!(state == WireState::Failed && why.contains("not on u0"), "{why}");
    let six = "2001:db8::1".parse().unwrap();
    world.underlay = Some(Underlay { address: six, port: 4789, interface: Some("u0".into()) });
    assert!(told(&world).1.contains("one family"));
}
