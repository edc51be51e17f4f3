//! Plans against a host in memory, which does what it is told the way the kernel and Open vSwitch do.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use netloom_model::id::{LabUid, NodeUid, Owner, WireId};
use netloom_model::observed::{End, ObservedWire, WireState};
use netloom_model::slice::{Nic, Segment, Wire, WireEnd};
use netloom_model::spec::Plane;
use netloom_ovsdb::Uuid;
use proptest::prelude::*;

use super::{Facts, Op, Plan, Reading, Trouble, plan};
use crate::config::{Config, Datapath};
use crate::driver::flows::Rule;
use crate::driver::ovs::{Bridge, Change, Port, PortKind, View};
use crate::links::Links;
use crate::names::Names;
use crate::netlink::{GuestEnd, Link};
use crate::netns::{Start, Starts};
use crate::redirect::Redirect;
use crate::slice::Wanted;

pub fn id(n: u64) -> WireId {
    n.try_into().unwrap()
}

/// A host in memory.
pub struct World {
    pub names: Names,
    pub wanted: Wanted,
    starts: Starts,
    pub links: Links,
    pub ovs: Option<View>,
    tables: BTreeMap<String, Reading>,
    deleted: HashMap<String, i64>,
    troubles: BTreeMap<WireId, Trouble>,
    pub impairments: Vec<String>,
    pub kernel_datapath: bool,
    next: u32,
}

const NODES: u64 = 4;

impl World {
    /// Nodes 1 to 4, each with NICs 10n+1 and 10n+2; wires 101 to 104 around them, in a ring.
    pub fn new() -> World {
        let mut wanted = Wanted { synced: true, ..Wanted::default() };
        let lab_uid = LabUid::new();
        let mut starts = Starts::new();
        for node in 1..=NODES {
            let node_uid = NodeUid::new();
            starts.insert(node_uid, Start { id: "1".into(), path: "/".into(), machine: None });
            for port in 1..=2 {
                let wire_id = id(10 * node + port);
                let mac = netloom_model::slice::mac_of(wire_id);
                let (guest_name, addresses) = (format!("eth{port}"), vec![]);
                let nic = Nic { wire_id, node_uid, guest_name, mac, mtu: 9500, addresses, lab_uid };
                wanted.slice.nics.insert(wire_id, nic);
            }
        }
        for node in 1..=NODES {
            let next = node % NODES + 1;
            let (a, b) = (WireEnd::Nic(id(10 * node + 1)), WireEnd::Nic(id(10 * next + 2)));
            let wire_id = id(100 + node);
            let (a_to_b, b_to_a) = Default::default();
            let wire =
                Wire { wire_id, a, b, enabled: true, lab_uid, a_to_b, b_to_a, plane: Some(Plane::Ovs) };
            wanted.slice.wires.insert(wire_id, wire);
        }
        World {
            names: Names::new(&Config::default(), Owner::new()),
            wanted,
            starts,
            links: Links::new(),
            ovs: Some(View::default()),
            tables: BTreeMap::new(),
            deleted: HashMap::new(),
            troubles: BTreeMap::new(),
            impairments: vec!["rate_bps".to_owned()],
            kernel_datapath: false,
            next: 100_001,
        }
    }

    pub fn facts(&self) -> Facts<'_> {
        Facts {
            names: &self.names,
            wanted: &self.wanted,
            starts: &self.starts,
            links: &self.links,
            ovs: self.ovs.as_ref(),
            settled: true,
            tables: &self.tables,
            deleted: &self.deleted,
            troubles: &self.troubles,
            refused: None,
            datapath: Datapath::Auto,
            kernel_datapath: self.kernel_datapath,
            found_datapath: None,
            plane: Plane::Auto,
            impairments: &self.impairments,
            host_interfaces: true,
        }
    }

    pub fn plan(&self) -> Plan {
        plan(&self.facts())
    }

    /// Host ends that are switched when carrier follows this plan.
    pub fn switched(&self, plan: &Plan) -> Vec<(u32, bool)> {
        let link = |index| self.links.values().find(|link| link.index == index);
        crate::carrier::due(&plan.cables, link, &self.starts)
    }

    pub fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    pub fn act(&mut self, plan: &Plan) {
        self.links.retain(|_, link| !plan.unplug.values().any(|index| *index == link.index));
        for wish in plan.plug.values().flatten() {
            let nic = self.wanted.slice.nics[&wish.wire].clone();
            let (index, name) = (self.number(), wish.host_name.clone());
            let alias = self.names.alias(&nic, &self.starts[&nic.node_uid].id, Some(wish.offload));
            assert!(!self.links.contains_key(&name), "{name} is made twice");
            let guest = Some(GuestEnd { name: nic.guest_name.clone(), up: true });
            let link = Link {
                index,
                alias,
                guest,
                group: self.names.group,
                name: name.clone(),
                mtu: nic.mtu,
                ..Link::default()
            };
            self.links.insert(name, link);
        }
        self.act_on_links(plan);
        for (index, up) in self.switched(plan) {
            let link = self.links.values_mut().find(|link| link.index == index).unwrap();
            link.up = up;
        }
        for link in self.links.values_mut() {
            link.lower_up = link.up && link.guest.as_ref().is_some_and(|guest| guest.up);
        }
        for change in &plan.changes {
            self.change(change);
        }
        for (bridge, rules) in &plan.flows {
            self.tables.get_mut(bridge).unwrap().rules = Arc::new(rules.clone());
        }
    }

    fn act_on_links(&mut self, plan: &Plan) {
        for adjustment in plan.adjust.values().flatten() {
            let nic = self.wanted.slice.nics[&adjustment.wire].clone();
            let alias = self.names.alias(&nic, &self.starts[&nic.node_uid].id, adjustment.offload);
            let link = self.links.values_mut().find(|link| link.index == adjustment.host_index).unwrap();
            (link.alias, link.mtu) = (alias, nic.mtu);
        }
        for rename in &plan.renames {
            let mut link = self.links.remove(&rename.from).unwrap();
            (link.name, link.up, link.lower_up) = (rename.to.clone(), false, false);
            assert!(self.links.insert(rename.to.clone(), link).is_none(), "{} is taken", rename.to);
        }
        let by_index = |links: &mut Links, index: u32, change: &dyn Fn(&mut Link)| {
            links.values_mut().filter(|link| link.index == index).for_each(change);
        };
        for (index, master) in plan.masters.values() {
            by_index(&mut self.links, *index, &|link| link.master = *master);
        }
        self.links.retain(|_, link| !plan.untail.contains(&link.index));
        for tail in &plan.tails {
            let names = self.names.tail(tail.wire, tail.end);
            for name in [names.outer, names.inner] {
                let (alias, group, index) =
                    (self.names.tail_alias(tail.wire), self.names.group, self.number());
                let up = true;
                let link = Link { index, name, alias, group, up, mtu: tail.mtu, ..Link::default() };
                self.links.insert(link.name.clone(), link);
            }
        }
        let names = self.names.clone();
        for control in &plan.controls {
            for op in &control.ops {
                by_index(&mut self.links, control.index, &|link| match *op {
                    Op::Put(shape, _) => link.shape = Some(shape),
                    Op::Take(_) => link.shape = None,
                    Op::Redirect { to, .. } => {
                        let mark = Some(names.mark(control.wire, control.index));
                        link.redirect = Some(Redirect { to, mark });
                    }
                    Op::Undirect => link.redirect = None,
                });
            }
        }
    }

    fn change(&mut self, change: &Change) {
        let number = self.number();
        let uuid = Uuid::from_u128(number.into());
        let owner = Some(self.names.owner.clone());
        let ovs = self.ovs.as_mut().unwrap();
        match change.clone() {
            Change::CreateBridge { name, datapath, segment } => {
                let datapath = datapath.to_owned();
                let bridge = Bridge { uuid, owner, wire: segment, datapath, works: true, intact: true };
                assert!(ovs.bridges.insert(name.clone(), bridge).is_none(), "{name} is made twice");
                self.tables.insert(name, Reading { trusted: true, ..Reading::default() });
            }
            Change::RepairBridge { name, .. } => ovs.bridges.get_mut(&name).unwrap().intact = true,
            Change::DeleteBridge { name, .. } => {
                ovs.bridges.remove(&name);
                ovs.ports.retain(|_, port| port.bridge != name);
                self.tables.remove(&name);
            }
            Change::AddPort { bridge, name, wire, kind } => {
                let (index, mtu, peer) = match kind {
                    PortKind::Nic { index, mtu } => (Some(index), Some(mtu), None),
                    PortKind::Patch { peer } => (None, None, Some(peer)),
                };
                assert!(ovs.bridges.contains_key(&bridge), "no bridge for {name}");
                let (wire, ofport) = (Some(wire), Some(number));
                let (interface, error, intact) = (uuid, None, true);
                let port =
                    Port { uuid, interface, mtu, bridge, owner, wire, index, ofport, error, peer, intact };
                assert!(ovs.ports.insert(name.clone(), port).is_none(), "{name} is added twice");
            }
            Change::SetMtu { name, mtu, .. } => ovs.ports.get_mut(&name).unwrap().mtu = Some(mtu),
            Change::DeletePort { name, .. } => {
                ovs.ports.remove(&name).unwrap();
            }
        }
    }

    /// Which wire each port of the bridge of all wires belongs to.
    fn wire_of(&self, ofport: u32) -> Option<WireId> {
        let port = self.ovs.as_ref()?.ports.values().find(|port| port.ofport == Some(ofport))?;
        let is_end = |wire: &&Wire| [&wire.a, &wire.b].contains(&&WireEnd::Nic(port.wire.unwrap()));
        self.wanted.slice.wires.values().find(is_end).map(|wire| wire.wire_id)
    }

    /// Passes until nothing is left to do; in none of them may a flow join ports of different wires.
    pub fn settle(&mut self) -> Plan {
        for _ in 0..20 {
            let plan = self.plan();
            for rule in plan.flows.get("nl0").into_iter().flatten() {
                let ends = [rule.from, rule.to].map(|port| self.wire_of(port.unwrap()));
                assert_eq!(ends, [Some(id(rule.cookie)); 2], "{rule:?} joins what is not one wire");
                let wire = &self.wanted.slice.wires[&id(rule.cookie)];
                let redirected = [&wire.a, &wire.b].into_iter().any(|end| match end {
                    WireEnd::Nic(nic) => {
                        self.links.get(&self.names.nic(*nic)).is_some_and(|l| l.redirect.is_some())
                    }
                    _ => false,
                });
                assert!(!redirected, "{rule:?} is of a wire that the kernel carries too");
            }
            let flows_are_there =
                plan.flows.iter().all(|(bridge, rules)| *self.tables[bridge].rules == *rules);
            let idle = plan.adjust.is_empty()
                && plan.renames.is_empty()
                && plan.masters.is_empty()
                && plan.tails.is_empty()
                && plan.untail.is_empty()
                && plan.controls.is_empty()
                && plan.unplug.is_empty()
                && plan.plug.is_empty()
                && self.switched(&plan).is_empty()
                && plan.changes.is_empty()
                && flows_are_there;
            if idle {
                return plan;
            }
            self.act(&plan);
        }
        panic!("it does not settle: {:#?}", self.plan());
    }

    fn states(&self) -> Vec<(WireState, String)> {
        let said = |wire: ObservedWire| match wire.end {
            None => (wire.state, wire.detail),
            Some(end) => (wire.state, format!("{}: {}", if end == End::A { 'a' } else { 'b' }, wire.detail)),
        };
        self.plan().observed.wires.into_values().map(said).collect()
    }

    pub fn link(&mut self, nic: u64) -> &mut Link {
        let name = self.names.nic(id(nic));
        self.links.get_mut(&name).unwrap()
    }

    /// A node sets its interface up or down.
    fn set_guest(&mut self, nic: u64, up: bool) {
        self.link(nic).guest.as_mut().unwrap().up = up;
        let link = self.link(nic);
        link.lower_up = link.up && up;
    }

    pub fn port(&mut self, nic: u64) -> &mut Port {
        let name = self.names.nic(id(nic));
        self.ovs.as_mut().unwrap().ports.get_mut(&name).unwrap()
    }

    /// What happens to hosts.
    fn disturb(&mut self, what: u8, which: u64) {
        let nic = id(10 * (which % NODES + 1) + which % 2 + 1);
        let name = self.names.nic(nic);
        match what {
            0 => {
                self.links.remove(&name);
            }
            1 => {
                self.ovs.as_mut().unwrap().ports.remove(&name);
            }
            2 => {
                if let Some(table) = self.tables.get_mut("nl0") {
                    table.rules = Arc::default();
                }
            }
            3 => {
                // A node starts again: its old interfaces go with their namespace.
                let node = self.wanted.slice.nics[&nic].node_uid;
                let start = self.starts.get_mut(&node).unwrap();
                start.id.push('1');
                let gone = self.wanted.slice.nics.values().filter(|nic| nic.node_uid == node);
                for name in gone.map(|nic| self.names.nic(nic.wire_id)) {
                    self.links.remove(&name);
                }
            }
            4 => {
                self.wanted.slice.nics.get_mut(&nic).unwrap().mtu += 1;
            }
            5 => {
                let ovs = self.ovs.as_mut().unwrap();
                ovs.bridges.remove("nl0");
                ovs.ports.clear();
                self.tables.remove("nl0");
            }
            8 => {
                let wire = self.wanted.slice.wires.get_mut(&id(101 + which % NODES)).unwrap();
                wire.a_to_b.rate_bps = if wire.a_to_b.rate_bps > 0 { 0 } else { 1_000_000 * (which + 1) };
            }
            11 | 13 => {
                let wire = self.wanted.slice.wires.get_mut(&id(101 + which % NODES)).unwrap();
                let planes = [Some(Plane::Ovs), Some(Plane::Kernel), Some(Plane::Auto), None];
                wire.plane = planes[(which % 4) as usize];
            }
            12 => {
                // A redirect of somebody else's, where ours is.
                if let Some(link) = self.links.get_mut(&name) {
                    link.redirect = Some(Redirect { to: 7, mark: None });
                }
            }
            9 => {
                // Somebody takes queue and redirect away.
                if let Some(link) = self.links.get_mut(&name) {
                    (link.shape, link.redirect) = (None, None);
                }
            }
            6 => {
                // A rogue flow between ports of different wires, under a cookie that nobody knows.
                let ports = self.ovs.as_ref().unwrap().ports.values().filter_map(|p| p.ofport);
                let ports: BTreeSet<u32> = ports.collect();
                let ends = (ports.first().copied(), ports.last().copied());
                if let (Some(table), (Some(from), Some(to))) = (self.tables.get_mut("nl0"), ends) {
                    let rule = Rule { cookie: 999, from: Some(from), to: Some(to) };
                    Arc::make_mut(&mut table.rules).insert(rule);
                }
            }
            10 => {
                if let Some(guest) = self.links.get_mut(&name).and_then(|link| link.guest.as_mut()) {
                    guest.up = !guest.up;
                }
            }
            _ => {
                let wire = id(101 + which % NODES);
                let wire = self.wanted.slice.wires.get_mut(&wire).unwrap();
                wire.enabled = !wire.enabled;
            }
        }
    }
}

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
    let trouble = Trouble { message: "eth1 cannot be made: no".into(), resting: true };
    world.troubles.insert(id(11), trouble);
    let plan = world.plan();
    assert_eq!(plan.plug.values().map(Vec::len).sum::<usize>(), 7, "it rests");
    assert_eq!(world.states()[0], (WireState::Failed, "a: eth1 cannot be made: no".to_owned()));
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
    world.wanted.slice.segments.insert(wire_id, Segment { wire_id, node_uid, lab_uid });
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
    world.wanted.slice.segments.insert(wire_id, Segment { wire_id, node_uid, lab_uid });
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
    world.wanted.slice.segments.insert(segment, Segment { wire_id: segment, node_uid, lab_uid });
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
    world.troubles.insert(id(11), Trouble { message: "eth1 is another's".into(), resting: true });
    assert!(world.plan().adjust.is_empty(), "it rests");
    assert!(world.states()[0].1.ends_with("calls the interface wan: eth1 is another's"));
    // One that it moved into a namespace of its own it may call as it likes.
    world.troubles.clear();
    (world.link(11).home, world.link(11).peer_namespace) = (Some(1), Some(2));
    assert!(world.plan().adjust.is_empty());
    assert_eq!(world.states()[0].0, WireState::Up);
}

/// The rules of the bridge of all wires.
pub fn rules(world: &World) -> &BTreeSet<Rule> {
    &world.tables["nl0"].rules
}
