//! Plans against a host in memory.

use std::collections::BTreeSet;
use std::sync::Arc;

use netloom_model::id::{LabUid, NodeUid, Owner, WireId};
use netloom_model::observed::WireState;
use netloom_model::slice::{Segment, WireEnd};
use netloom_ovsdb::Uuid;
use netloom_service::handover::Machine;
use proptest::prelude::*;

use super::world::{World, id};
use super::{Plan, Trouble};
use crate::driver::flows::Rule;
use crate::driver::ovs::{Bridge, Change, View};
use crate::netlink::Link;
use crate::netns::Start;
use crate::slice::Wanted;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_happens_wires_come_back_and_never_meet(
        disturbances in prop::collection::vec((0u8..15, 0u64..8, any::<bool>()), 0..14),
    ) {
        let mut world = World::new();
        for (what, which, settle) in disturbances {
            world.disturb(what, which);
            if settle {
                world.settle();
            } else {
                let plan = world.plan();
                world.act(&plan);
            }
        }
        let plan = world.settle();
        let mut rules = 0;
        for wire in plan.observed.wires.values() {
            let wanted = &world.wanted.slice.wires[&wire.wire_id];
            let enabled = wanted.enabled;
            let [a, b] = [&wanted.a, &wanted.b].map(|end| match end {
                WireEnd::Nic(nic) => &world.links[&world.names.nic(*nic)],
                _ => unreachable!("all ends are NICs"),
            });
            let [up_a, up_b] = [a, b].map(|link| link.guest.as_ref().unwrap().up);
            let up = enabled && up_a && up_b;
            prop_assert_eq!(wire.state, if up { WireState::Up } else { WireState::Down }, "{}", wire.detail);
            prop_assert_eq!((a.up, b.up), (enabled && up_b, enabled && up_a));
            let joined = super::joins::is_joined(&world.facts(), &world.wanted.slice.wires[&wire.wire_id]);
            rules += if enabled && !joined { 2 } else { 0 };
            let redirects = world.links.values().filter(|link| link.redirect.is_some()).count();
            prop_assert!(redirects % 2 == 0);
        }
        for link in world.links.values().filter(|link| link.redirect.is_some()) {
            let port = world.ovs.as_ref().unwrap().ports.values().find(|port| port.index == Some(link.index));
            prop_assert!(port.is_none(), "{} is on both planes", link.name);
        }
        prop_assert_eq!(world.tables["nl0"].rules.len(), rules);
        prop_assert!(plan.observed.unwanted.is_empty());
    }
}

#[test]
fn before_the_first_sync_all_is_told_and_nothing_done() {
    let mut world = World::new();
    world.settle();
    world.wanted = Wanted::default();
    let plan = world.plan();
    assert!(!plan.observed.synced && plan.flows.is_empty() && plan.changes.is_empty());
    assert!(plan.unplug.is_empty() && world.switched(&plan).is_empty());
    assert_eq!(plan.observed.unwanted.len(), 12, "8 NICs and 4 wires");
}

#[test]
fn what_is_not_wanted_stays_and_what_was_removed_goes() {
    let mut world = World::new();
    world.settle();
    let everything = std::mem::take(&mut world.wanted.slice);
    let plan = world.plan();
    assert!(plan.unplug.is_empty() && plan.changes.is_empty());
    assert_eq!(plan.flows["nl0"].len(), 8, "flows of wires that nobody took out");
    assert_eq!(plan.observed.unwanted.len(), 12);
    world.wanted.doomed = everything.nics.keys().chain(everything.wires.keys()).copied().collect();
    assert_eq!(world.plan().left.len(), 12);
    let plan = world.settle();
    assert!(plan.left.is_empty() && plan.observed.unwanted.is_empty());
    assert!(world.links.is_empty() && world.ovs.unwrap().ports.is_empty());
    assert!(world.tables["nl0"].rules.is_empty());
}

#[test]
fn interfaces_go_as_the_group_that_they_are_only_where_they_are_all_of_it() {
    let mut world = World::new();
    world.settle();
    let all: Vec<WireId> = world.wanted.slice.nics.keys().copied().collect();
    let doom = |world: &mut World, nics: &[WireId]| {
        for nic in nics {
            world.wanted.slice.nics.remove(nic);
            world.wanted.doomed.insert(*nic);
        }
        let plan = world.plan();
        (plan.unplug.len(), plan.unplug_all)
    };
    assert_eq!(doom(&mut world, &all[..6]), (6, false), "two stay");
    assert_eq!(doom(&mut world, &all[6..]), (8, true));
    // Whoever put it there.
    let foreign = Link { index: 7, name: "eth7".to_owned(), group: world.names.group, ..Link::default() };
    world.links.insert("eth7".to_owned(), foreign);
    assert_eq!(doom(&mut world, &[]), (8, false));
    world.links.get_mut("eth7").unwrap().group = 0;
    world.settle();
    assert_eq!(world.links.keys().collect::<Vec<_>>(), ["eth7"]);
}

#[test]
fn a_port_goes_only_after_its_flows() {
    let mut world = World::new();
    world.settle();
    world.links.remove(&world.names.nic(id(11)));
    let plan = world.plan();
    let deletes = |plan: &Plan| plan.changes.iter().any(|c| matches!(c, Change::DeletePort { .. }));
    assert!(!deletes(&plan) && plan.flows["nl0"].len() == 6);
    world.act(&plan);
    assert!(deletes(&world.plan()));
}

#[test]
fn a_port_of_an_interface_that_is_gone_is_added_again_only_when_it_was_let_go_of() {
    let mut world = World::new();
    world.settle();
    let name = world.names.nic(id(11));
    world.ovs.as_mut().unwrap().ports.remove(&name);
    world.deleted.insert(name, 5);
    world.ovs.as_mut().unwrap().cur_cfg = 4;
    assert!(world.plan().changes.is_empty());
    assert!(world.states()[0].1.contains("port is being made"));
    world.ovs.as_mut().unwrap().cur_cfg = 5;
    assert_eq!(world.plan().changes.len(), 1);
    // One that was made for another interface of the same name is not good enough, whatever its status.
    world.settle();
    world.port(11).index = Some(7);
    assert_ne!(world.states()[0].0, WireState::Up);
}

#[test]
fn port_numbers_of_another_ovs_vswitchd_make_no_flows() {
    let mut world = World::new();
    world.settle();
    let table = world.tables.get_mut("nl0").unwrap();
    (table.trusted, table.rules) = (false, Arc::default());
    let plan = world.plan();
    assert!(plan.flows.is_empty());
    assert!(world.switched(&plan).is_empty(), "carrier waits for the flows to come back");
    assert!(world.states().iter().all(|(state, _)| *state == WireState::Down));
}

#[test]
fn what_is_not_known_is_said_to_be_unknown_and_left_alone() {
    let mut world = World::new();
    world.settle();
    world.tables.clear();
    assert!(
        world.states().iter().all(|(state, why)| *state == WireState::Unknown && why.contains("vswitchd"))
    );
    world.ovs = None;
    let plan = world.plan();
    assert!(world.switched(&plan).is_empty() && plan.unplug.is_empty());
    assert!(plan.observed.wires.values().all(|wire| wire.state == WireState::Unknown));
    assert_eq!(plan.observed.inventory.datapath, "");
    assert_eq!(plan.observed.inventory.problems.len(), 1);
    world.wanted.doomed.insert(id(77));
    assert!(world.plan().left[&id(77)].contains("does not answer"), "who cannot see cannot say it is gone");
}

#[test]
fn states_say_which_end_and_why() {
    let mut world = World::new();
    world.settle();
    world.set_guest(22, false);
    let plan = world.plan();
    let [a, b] = [11, 22].map(|nic| world.link(nic).index);
    assert_eq!(world.switched(&plan), [(a, false)], "the far end loses carrier");
    world.act(&plan);
    let expected = (WireState::Down, "b: the interface is down in its node".to_owned());
    assert_eq!(world.states()[0], expected);
    // Also while both are down; and neither waits for the other to come back.
    world.set_guest(11, false);
    world.settle();
    assert!(!world.link(11).up && !world.link(22).up);
    world.set_guest(22, true);
    world.settle();
    assert_eq!((world.link(11).up, world.link(22).up), (true, false));
    world.set_guest(11, true);
    world.settle();
    assert_eq!(world.states()[0].0, WireState::Up);
    world.link(22).lower_up = false;
    assert_eq!(world.states()[0], (WireState::Down, "b: it has no carrier yet".to_owned()));
    assert_ne!(a, b);

    let node = world.wanted.slice.nics[&id(11)].node_uid;
    world.starts.remove(&node);
    let plan = world.plan();
    assert_eq!(plan.unplug.len(), 2, "what is left of a node that ended");
    let far: BTreeSet<(u32, bool)> = [22, 41].map(|nic| (world.link(nic).index, false)).into();
    assert_eq!(world.switched(&plan).into_iter().collect::<BTreeSet<_>>(), far, "the far ends lose carrier");
    world.act(&plan);
    let (state, why) = world.states()[0].clone();
    assert_eq!((state, why.as_str()), (WireState::Pending, "a: its node has not started"));

    let mut world = World::new();
    world.settle();
    world.port(11).error = Some("could not open network device".into());
    let (state, why) = world.states()[0].clone();
    assert_eq!((state, why.as_str()), (WireState::Failed, "a: Open vSwitch: could not open network device"));

    let mut world = World::new();
    let trouble = Trouble { message: "eth1 cannot be made: no".into(), resting: true, lasts: true };
    world.troubles.insert(id(11), trouble);
    let plan = world.plan();
    assert_eq!(plan.plug.values().map(Vec::len).sum::<usize>(), 7, "it rests");
    assert_eq!(world.states()[0], (WireState::Failed, "a: eth1 cannot be made: no".to_owned()));
}

#[test]
fn a_nic_that_a_machine_has_from_its_next_start_on_is_told_and_one_that_comes_is_awaited() {
    let mut world = World::new();
    let node = world.wanted.slice.nics[&id(11)].node_uid;
    let machine = |lacks| Machine { pid: 1, started: 1, carrier: BTreeSet::new(), lacks };
    let start = |lacks| Start { id: "1".into(), path: "/".into(), machine: Some(machine(lacks)) };
    world.starts.insert(node, start(BTreeSet::new()));
    let awaited = (WireState::Pending, "a: its virtual machine is being given it".to_owned());
    assert_eq!(world.states()[0], awaited);
    world.starts.insert(node, start([id(11)].into()));
    let told = (WireState::Down, format!("a: {}", netloom_model::observed::NEEDS_RESTART));
    assert_eq!(world.states()[0], told, "nobody waits for it");
}

#[test]
fn nothing_of_others_is_ever_in_a_plan() {
    let mut world = World::new();
    world.settle();
    let other = Some(Owner::new().to_string());
    world.port(11).owner = None;
    world.link(12).alias = format!("netloom:{}:12:1:0|", Owner::new());
    world.port(21).owner = other.clone();
    world.wanted.doomed = world.wanted.slice.nics.keys().copied().collect();
    world.wanted.slice = Default::default();
    let (port11, link12) = (world.port(11).uuid, world.link(12).index);
    let port21 = world.port(21).uuid;
    for _ in 0..3 {
        let plan = world.plan();
        assert!(!plan.unplug.values().any(|index| *index == link12));
        let deleted: Vec<Uuid> = plan
            .changes
            .iter()
            .filter_map(|change| match change {
                Change::DeletePort { uuid, .. } | Change::DeleteBridge { uuid, .. } => Some(*uuid),
                _ => None,
            })
            .collect();
        assert!(!deleted.contains(&port11) && !deleted.contains(&port21));
        world.act(&plan);
    }
    let mut world = World::new();
    let owner = other;
    let (uuid, datapath) = (Uuid::nil(), "netdev".to_owned());
    let bridge = Bridge { uuid, owner, wire: None, datapath, works: true, intact: false };
    world.ovs.as_mut().unwrap().bridges.insert("nl0".into(), bridge);
    let plan = world.plan();
    assert!(plan.changes.is_empty() && plan.flows.is_empty());
    assert!(world.states().iter().all(|(s, why)| *s == WireState::Failed || why.contains("plugged")));
}

#[test]
fn a_segment_has_a_bridge_of_its_own() {
    let mut world = World::new();
    let wire_id = id(500);
    let (node_uid, lab_uid) = (NodeUid::new(), LabUid::new());
    world
        .wanted
        .slice
        .segments
        .insert(wire_id, Segment { wire_id, node_uid, lab_uid, uplink: String::new() });
    let wire = world.wanted.slice.wires.get_mut(&id(101)).unwrap();
    wire.b = WireEnd::Segment(wire_id);
    let name = world.names.segment(wire_id);
    let plan = world.settle();
    assert_eq!(plan.flows[&name], [Rule::segment(wire_id)].into());
    assert_eq!(plan.observed.segments[&wire_id].state, WireState::Up);
    assert_eq!(plan.observed.wires[&id(101)].state, WireState::Up);
    assert_eq!(world.port(11).bridge, name);
    // The NIC that is in no wire now has no port and no carrier.
    assert!(!world.ovs.as_ref().unwrap().ports.contains_key(&world.names.nic(id(22))));
    assert!(!world.link(22).up);
    world.wanted.slice.segments.clear();
    world.wanted.doomed.insert(wire_id);
    assert!(world.plan().changes.iter().any(|c| matches!(c, Change::DeleteBridge { .. })));
}

#[test]
fn a_segment_is_failed_only_when_it_cannot_be_made() {
    let mut world = World::new();
    let wire_id = id(500);
    let (node_uid, lab_uid) = (NodeUid::new(), LabUid::new());
    world
        .wanted
        .slice
        .segments
        .insert(wire_id, Segment { wire_id, node_uid, lab_uid, uplink: String::new() });
    let name = world.names.segment(wire_id);
    let state = |world: &World| world.plan().observed.segments[&wire_id].state;
    assert_eq!(state(&world), WireState::Pending, "its bridge is being made");
    world.settle();
    assert_eq!(state(&world), WireState::Up);

    let table = world.tables.get_mut(&name).unwrap();
    table.rules = Arc::default();
    assert_eq!(state(&world), WireState::Pending, "its flow is being made");
    world.tables.get_mut(&name).unwrap().problem = Some("the switch refused flow-mod 0".into());
    assert_eq!(state(&world), WireState::Failed);

    // ovs-vswitchd is gone: what it made, and what it was asked for, are not known.
    world.tables.clear();
    assert_eq!(state(&world), WireState::Unknown);
    world.ovs.as_mut().unwrap().bridges.get_mut(&name).unwrap().works = false;
    assert_eq!(state(&world), WireState::Unknown);
    world.ovs = None;
    assert_eq!(state(&world), WireState::Unknown);

    world.ovs = Some(View::default());
    world.settle();
    world.ovs.as_mut().unwrap().bridges.get_mut(&name).unwrap().owner = None;
    assert_eq!(state(&world), WireState::Failed, "somebody else has the name");
}

#[test]
fn a_flow_that_was_lost_is_a_gap_of_its_wire() {
    let mut world = World::new();
    let segment = id(500);
    let (node_uid, lab_uid) = (NodeUid::new(), LabUid::new());
    world
        .wanted
        .slice
        .segments
        .insert(segment, Segment { wire_id: segment, node_uid, lab_uid, uplink: String::new() });
    world.wanted.slice.wires.get_mut(&id(101)).unwrap().b = WireEnd::Segment(segment);
    assert!(world.settle().observed.gaps.is_empty());
    let (now, name) = (std::time::Instant::now(), world.names.segment(segment));
    world.tables.get_mut(&name).unwrap().lost = Arc::new([(500, now)].into());
    world.tables.get_mut("nl0").unwrap().lost = Arc::new([(102, now), (999, now)].into());
    let gaps = [101, 102, 500].map(|n| (id(n), now));
    assert_eq!(world.plan().observed.gaps, gaps.into());
}

#[test]
fn an_interface_that_its_node_renamed_gets_its_name_back_where_that_is_ours_to_say() {
    let mut world = World::new();
    world.settle();
    world.link(11).guest.as_mut().unwrap().name = "wan".into();
    let plan = world.plan();
    let adjustments: Vec<_> = plan.adjust.values().flatten().collect();
    assert_eq!(adjustments.len(), 1);
    assert_eq!((adjustments[0].wire, adjustments[0].called.as_deref()), (id(11), Some("wan")));
    let said = (WireState::Down, "a: its node calls the interface wan".to_owned());
    assert_eq!(world.states()[0], said);
    world
        .troubles
        .insert(id(11), Trouble { message: "eth1 is another's".into(), resting: true, lasts: true });
    assert!(world.plan().adjust.is_empty(), "it rests");
    assert!(world.states()[0].1.ends_with("calls the interface wan: eth1 is another's"));
    // One that it moved into a namespace of its own it may call as it likes.
    world.troubles.clear();
    (world.link(11).home, world.link(11).peer_namespace) = (Some(1), Some(2));
    assert!(world.plan().adjust.is_empty());
    assert_eq!(world.states()[0].0, WireState::Up);
}
