//! Plans of wires whose plane is chosen, and changed while they carry.

use netloom_model::observed::WireState;
use netloom_model::spec::Plane;

use super::Op;
use super::planes;
use super::world::{World, id};
use crate::driver::ovs::Change;

fn choose(world: &mut World, plane: Option<Plane>) {
    world.wanted.slice.wires.values_mut().for_each(|wire| wire.plane = plane);
}

#[test]
fn the_lab_says_else_the_host_and_auto_goes_by_what_open_vswitch_forwards_with() {
    let mut world = World::new();
    let chosen = |world: &World, host: Plane, lab: Option<Plane>| {
        let facts = super::Facts { plane: host, ..world.facts() };
        let choice = planes::between_nics(&facts, lab);
        (choice.name(), choice.why)
    };
    use Plane::{Auto, Kernel, Ovs};
    assert_eq!(chosen(&world, Auto, None), ("kernel", "auto: Open vSwitch forwards in userspace only"));
    assert_eq!(chosen(&world, Ovs, None), ("ovs", "host: network.plane is ovs"));
    assert_eq!(chosen(&world, Ovs, Some(Kernel)), ("kernel", "lab: its plane is kernel"));
    assert_eq!(chosen(&world, Kernel, Some(Ovs)), ("ovs", "lab: its plane is ovs"));
    assert_eq!(chosen(&world, Ovs, Some(Auto)).0, "kernel", "the lab wants it found out");
    world.kernel_datapath = true;
    assert_eq!(chosen(&world, Auto, None), ("ovs", "auto: Open vSwitch forwards in the kernel"));
    // One that was given up goes by what the bridge has now, also while the database does not answer.
    world.settle();
    world.ovs.as_mut().unwrap().bridges.get_mut("nl0").unwrap().datapath = "netdev".into();
    assert_eq!(chosen(&world, Auto, None).0, "kernel");
    world.ovs = None;
    let facts = super::Facts { found_datapath: Some("netdev"), ..world.facts() };
    assert!(planes::between_nics(&facts, None).kernel);
}

#[test]
fn a_wire_of_the_kernel_needs_nothing_of_open_vswitch() {
    let mut world = World::new();
    choose(&mut world, None);
    let plan = world.settle();
    assert!(plan.observed.wires.values().all(|w| w.state == WireState::Up && w.plane == "kernel"));
    assert!(world.ovs.as_ref().unwrap().ports.is_empty());
    let wire = &plan.observed.wires[&id(101)];
    assert_eq!(wire.plane_reason, "auto: Open vSwitch forwards in userspace only");
    // A database that does not answer takes nothing away.
    world.ovs = None;
    let plan = world.plan();
    assert!(
        plan.observed.wires.values().all(|wire| wire.state == WireState::Up),
        "{:?}",
        plan.observed.wires
    );
    assert!(plan.controls.is_empty() && world.switched(&plan).is_empty());
}

#[test]
fn a_change_of_plane_changes_no_nic_and_is_on_one_plane_at_a_time() {
    let mut world = World::new();
    choose(&mut world, Some(Plane::Kernel));
    world.settle();
    let numbers = |world: &World| {
        let mut numbers: Vec<u32> = world.links.values().map(|link| link.index).collect();
        numbers.sort_unstable();
        numbers
    };
    let made = numbers(&world);
    for plane in [Plane::Ovs, Plane::Kernel] {
        choose(&mut world, Some(plane));
        loop {
            let plan = world.plan();
            assert!(plan.unplug.is_empty() && plan.plug.is_empty(), "a NIC is made anew");
            assert!(world.switched(&plan).is_empty(), "carrier is lost");
            let redirected = world.links.values().any(|link| link.redirect.is_some());
            if redirected {
                assert!(plan.flows["nl0"].is_empty(), "both planes carry");
            }
            let directs = |op: &Op| matches!(op, Op::Redirect { .. });
            if plan.controls.iter().any(|control| control.ops.iter().any(directs)) {
                assert!(super::world::rules(&world).is_empty(), "both planes carry");
            }
            let before = numbers(&world);
            world.act(&plan);
            assert_eq!(numbers(&world), before);
            let now = world.plan();
            let done = now.observed.wires.values().all(|w| w.state == WireState::Up);
            if done && now.controls.is_empty() && now.changes.is_empty() && now.adjust.is_empty() {
                break;
            }
        }
        assert_eq!(numbers(&world), made);
        let plan = world.plan();
        assert!(plan.observed.wires.values().all(|wire| wire.plane == plane.as_str()));
    }
}

#[test]
fn a_nic_goes_to_userspace_only_when_its_node_fills_in_checksums() {
    let mut world = World::new();
    choose(&mut world, Some(Plane::Kernel));
    world.settle();
    let offload = |world: &mut World| {
        let link = world.link(11).clone();
        world.names.tag(&link).unwrap().offload
    };
    assert_eq!(offload(&mut world), Some(true));
    choose(&mut world, Some(Plane::Ovs));
    let plan = world.plan();
    let adjusted: Vec<Option<bool>> = plan.adjust.values().flatten().map(|a| a.offload).collect();
    assert_eq!(adjusted, [Some(false); 8]);
    let adds = |plan: &super::Plan| plan.changes.iter().any(|c| matches!(c, Change::AddPort { .. }));
    assert!(!adds(&plan), "it would send frames without checksums");
    world.act(&plan);
    assert!(adds(&world.plan()));
    world.settle();
    assert_eq!(offload(&mut world), Some(false));
    // What loses or delays frames has to meet them one by one.
    choose(&mut world, Some(Plane::Kernel));
    world.wanted.slice.wires.get_mut(&id(101)).unwrap().a_to_b.rate_bps = 1_000_000;
    world.settle();
    assert_eq!(offload(&mut world), Some(false));
    world.wanted.slice.wires.get_mut(&id(101)).unwrap().a_to_b.rate_bps = 0;
    world.settle();
    assert_eq!(offload(&mut world), Some(true));
    // Where Open vSwitch forwards in the kernel, everything takes such frames. A NIC without a wire stays as it is.
    world.kernel_datapath = true;
    world.wanted.slice.wires.clear();
    assert!(world.plan().adjust.is_empty());
}
