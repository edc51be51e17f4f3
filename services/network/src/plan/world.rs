//! A host in memory for tests of plans, which does what it is told the way the kernel and Open vSwitch do.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use netloom_model::id::{LabUid, NodeUid, Owner, WireId};
use netloom_model::observed::{End, ObservedWire, WireState};
use netloom_model::slice::{Nic, Wire, WireEnd};
use netloom_model::spec::Plane;
use netloom_ovsdb::Uuid;

use super::{Facts, Op, Plan, Reading, Trouble, plan};
use crate::config::{Config, Datapath};
use crate::driver::flows::Rule;
use crate::driver::ovs::{Bridge, Change, Port, PortKind, View};
use crate::links::Links;
use crate::names::Names;
use crate::netlink::{GuestEnd, Link};
use crate::netns::{Start, Starts};
use crate::paths::Paths;
use crate::redirect::Redirect;
use crate::slice::Wanted;
use crate::underlay::Underlay;
use crate::uplink::Uplinks;

pub fn id(n: u64) -> WireId {
    n.try_into().unwrap()
}

/// A host in memory.
pub struct World {
    pub names: Names,
    pub wanted: Wanted,
    pub starts: Starts,
    pub links: Links,
    pub ovs: Option<View>,
    pub tables: BTreeMap<String, Reading>,
    pub deleted: HashMap<String, i64>,
    pub troubles: BTreeMap<WireId, Trouble>,
    pub impairments: Vec<String>,
    pub kernel_datapath: bool,
    pub underlay: Option<Underlay>,
    pub allowed_uplinks: BTreeSet<String>,
    pub uplinks: Uplinks,
    pub paths: Paths,
    pub next: u32,
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
            underlay: None,
            allowed_uplinks: BTreeSet::new(),
            uplinks: Uplinks::new(),
            paths: Paths::new(),
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
            allowed_uplinks: &self.allowed_uplinks,
            uplinks: &self.uplinks,
            underlay: self.underlay.as_ref(),
            paths: &self.paths,
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
        let group = plan.unplug_all.then_some(self.names.group);
        let goes = |link: &Link| match group {
            Some(group) => link.group == group,
            None => plan.unplug.values().any(|index| *index == link.index),
        };
        self.links.retain(|_, link| !goes(link));
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
            link.lower_up = link.up && link.guest.as_ref().is_none_or(|guest| guest.up);
        }
        for change in &plan.changes {
            self.change(change);
        }
        for (bridge, rules) in &plan.flows {
            self.tables.get_mut(bridge).unwrap().rules = Arc::new(rules.clone());
        }
    }

    pub fn act_on_links(&mut self, plan: &Plan) {
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
        for tunnel in &plan.tunnels {
            let (alias, group, index) =
                (self.names.tunnel_alias(tunnel.wire), self.names.group, self.number());
            let (name, vxlan, mtu) = (self.names.tunnel(tunnel.wire), Some(tunnel.vxlan), tunnel.mtu);
            let link = Link { index, name, alias, group, up: true, mtu, vxlan, ..Link::default() };
            assert!(self.links.insert(link.name.clone(), link).is_none(), "a tunnel is made twice");
        }
        for (index, mtu) in &plan.mtus {
            by_index(&mut self.links, *index, &|link| link.mtu = *mtu);
        }
        for handling in &plan.handlings {
            let mark = if handling.take { handling.mark.clone() } else { String::new() };
            by_index(&mut self.links, handling.index, &|link| {
                (link.uplink, link.up, link.lower_up) = (mark.clone(), handling.then.up, handling.then.up);
            });
            self.uplinks.get_mut(&handling.name).unwrap().manner = handling.then;
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

    pub fn change(&mut self, change: &Change) {
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
                let (index, mtu, peer, tunnel) = match kind {
                    PortKind::Nic { index, mtu } => (Some(index), Some(mtu), None, None),
                    PortKind::Uplink { index } => (Some(index), None, None, None),
                    PortKind::Patch { peer } => (None, None, Some(peer), None),
                    PortKind::Tunnel { local, port } => (None, None, None, Some((local, port))),
                };
                assert!(ovs.bridges.contains_key(&bridge), "no bridge for {name}");
                let ofport = Some(number);
                let (interface, error, intact) = (uuid, None, true);
                let port = Port {
                    uuid,
                    interface,
                    mtu,
                    bridge,
                    owner,
                    wire,
                    index,
                    ofport,
                    error,
                    peer,
                    tunnel,
                    intact,
                };
                assert!(ovs.ports.insert(name.clone(), port).is_none(), "{name} is added twice");
            }
            Change::SetMtu { name, mtu, .. } => ovs.ports.get_mut(&name).unwrap().mtu = Some(mtu),
            Change::DeletePort { name, .. } => {
                // It may be gone with its bridge.
                ovs.ports.remove(&name);
            }
        }
    }

    /// Which wire each port of the bridge of all wires belongs to.
    pub fn wire_of(&self, ofport: u32) -> Option<WireId> {
        let port = self.ovs.as_ref()?.ports.values().find(|port| port.ofport == Some(ofport))?;
        let nic = WireEnd::Nic(port.wire?);
        let is_end = |wire: &&Wire| [&wire.a, &wire.b].contains(&&nic);
        self.wanted.slice.wires.values().find(is_end).map(|wire| wire.wire_id)
    }

    /// Passes until nothing is left to do; in none of them may a flow join ports of different wires.
    pub fn settle(&mut self) -> Plan {
        for _ in 0..20 {
            let plan = self.plan();
            for rule in plan.flows.get("nl0").into_iter().flatten() {
                let to_hosts = self.ovs.as_ref().unwrap().ports.get(&self.names.tunnel_port());
                let to_hosts = to_hosts.and_then(|port| port.ofport);
                for port in [rule.from, rule.to].into_iter().filter(|port| *port != to_hosts) {
                    let wire = self.wire_of(port.unwrap());
                    assert_eq!(wire, Some(id(rule.cookie)), "{rule:?} joins what is not one wire");
                }
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
                && plan.tunnels.is_empty()
                && plan.untail.is_empty()
                && plan.handlings.is_empty()
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

    pub fn states(&self) -> Vec<(WireState, String)> {
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
    pub fn set_guest(&mut self, nic: u64, up: bool) {
        self.link(nic).guest.as_mut().unwrap().up = up;
        let link = self.link(nic);
        link.lower_up = link.up && up;
    }

    pub fn port(&mut self, nic: u64) -> &mut Port {
        let name = self.names.nic(id(nic));
        self.ovs.as_mut().unwrap().ports.get_mut(&name).unwrap()
    }

    /// What happens to hosts.
    pub fn disturb(&mut self, what: u8, which: u64) {
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
                    let rule = Rule { cookie: 999, from: Some(from), to: Some(to), ..Rule::default() };
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

/// The rules of the bridge of all wires.
pub fn rules(world: &World) -> &BTreeSet<Rule> {
    &world.tables["nl0"].rules
}
