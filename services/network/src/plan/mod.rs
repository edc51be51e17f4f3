//! What to do and what to tell, from what is wanted and what was read. Pure: no I/O, no clock.
//!
//! Every pass begins from nothing: it compares all that is wanted with all that is there. So a thing that was deleted behind our back, a
//! restart of anything, and an effect that failed halfway need no code of their own. `refusals` decides what cannot be, `nics` about
//! interfaces, `taps` about those of virtual machines, `bridges` about Open vSwitch's bridges, `planes` says what carries a wire, `ports` decides about ports of Open vSwitch, `joins`
//! about what joins wires in the kernel, `tunnels` about ways to other hosts there, `uplinks` about what of the host segments are joined to, `wires` about flows, carrier and states.

mod bridges;
mod joins;
mod nics;
mod planes;
mod ports;
mod refusals;
mod taps;
mod tunnels;
mod uplinks;
mod wires;

#[cfg(test)]
mod kernel_tests;
#[cfg(test)]
mod plane_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tunnel_tests;
#[cfg(test)]
mod uplink_tests;
#[cfg(test)]
mod world;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use netloom_model::id::{NodeUid, WireId};
use netloom_model::observed::{self, NetworkInventory};
use netloom_model::slice::{Wire, WireEnd};
use netloom_model::spec::Plane;

use crate::carrier::Cables;
use crate::config::Datapath;
use crate::counts::Ways;
use crate::driver::flows::Rule;
use crate::driver::ovs::{Change, View};
use crate::guest::Setting;
use crate::links::Links;
use crate::names::Names;
use crate::netns::Starts;
use crate::observe::Observed;
use crate::paths::Paths;
use crate::slice::Wanted;
use crate::underlay::Underlay;
use crate::uplink::Uplinks;

pub use self::joins::{Control, NewTail, Op};
pub use self::tunnels::NewTunnel;
pub use self::uplinks::Handling;

/// All that a pass knows.
pub struct Facts<'a> {
    /// How our things are named.
    pub names: &'a Names,
    /// What is wanted.
    pub wanted: &'a Wanted,
    /// The nodes that run.
    pub starts: &'a Starts,
    /// The host's interfaces.
    pub links: &'a Links,
    /// Open vSwitch's database; none when it does not answer.
    pub ovs: Option<&'a View>,
    /// True once ovs-vswitchd has taken up what was asked of it when the database was (re)connected.
    pub settled: bool,
    /// Flows of bridges whose management connection stands.
    pub tables: &'a BTreeMap<String, Reading>,
    /// Ports that were deleted, and the configuration with which ovs-vswitchd lets go of their interfaces. One that is added sooner
    /// is taken for the old one, which reads from an interface that is gone.
    pub deleted: &'a HashMap<String, i64>,
    /// What failed, by what it was for.
    pub troubles: &'a BTreeMap<WireId, Trouble>,
    /// Why the last change of the database failed.
    pub refused: Option<&'a str>,
    /// What to forward with.
    pub datapath: Datapath,
    /// True when the kernel has Open vSwitch's datapath.
    pub kernel_datapath: bool,
    /// What the bridge was found to forward with when it was seen last; none when it was not.
    pub found_datapath: Option<&'a str>,
    /// What carries wires of labs that do not say.
    pub plane: Plane,
    /// Fields of an impairment that this kernel can bring about.
    pub impairments: &'a [String],
    /// Whether wires may end in interfaces of the host.
    pub host_interfaces: bool,
    /// What segments may have for uplinks.
    pub allowed_uplinks: &'a BTreeSet<String>,
    /// What was seen of the interfaces among them, and of those that are uplinks.
    pub uplinks: &'a Uplinks,
    /// Where wires to other hosts begin; none where there are none.
    pub underlay: Option<&'a Underlay>,
    /// What was measured of the ways to other hosts.
    pub paths: &'a Paths,
}

impl Facts<'_> {
    /// What a new bridge forwards with.
    pub fn new_datapath(&self) -> &'static str {
        match self.datapath {
            Datapath::System => "system",
            Datapath::Auto if self.kernel_datapath => "system",
            Datapath::Auto | Datapath::Netdev => "netdev",
        }
    }

    /// True when Open vSwitch forwards frames by a process, which is slow and does not fill in checksums. A database that does not answer for
    /// a while changes nothing of it.
    pub fn userspace(&self) -> bool {
        let bridge = self.ovs.and_then(|ovs| ovs.bridges.get(&self.names.bridge));
        let datapath = bridge.map(|bridge| bridge.datapath.as_str()).or(self.found_datapath);
        datapath.unwrap_or(self.new_datapath()) == "netdev"
    }

    /// The message of a failure.
    fn trouble(&self, wire: WireId) -> Option<&str> {
        self.troubles.get(&wire).map(|trouble| trouble.message.as_str())
    }

    /// Why what is for this failed again and again.
    fn lasting_trouble(&self, wire: WireId) -> Option<&str> {
        self.trouble(wire).filter(|_| self.troubles[&wire].lasts)
    }

    /// True while a failed effect is not to be tried again.
    fn resting(&self, wire: WireId) -> bool {
        self.troubles.get(&wire).is_some_and(|trouble| trouble.resting)
    }

    fn is_wanted(&self, wire: WireId) -> bool {
        let slice = &self.wanted.slice;
        slice.nics.contains_key(&wire)
            || slice.wires.contains_key(&wire)
            || slice.segments.contains_key(&wire)
    }
}

/// A bridge's flows.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// The flows of ours that were read.
    pub rules: Arc<BTreeSet<Rule>>,
    /// True when the database is known to tell the port numbers of the ovs-vswitchd that the flows were read from.
    pub trusted: bool,
    /// When flows were last found missing, by cookie.
    pub lost: Arc<BTreeMap<u64, Instant>>,
    /// Why what is wanted cannot be had.
    pub problem: Option<String>,
}

/// An effect that failed.
#[derive(Debug, Clone)]
pub struct Trouble {
    /// Why.
    pub message: String,
    /// True until it is to be tried again.
    pub resting: bool,
    /// True once it was tried again for a while, in vain.
    pub lasts: bool,
}

/// A NIC to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlugWish {
    /// The NIC.
    pub wire: WireId,
    /// What its host end is called.
    pub host_name: String,
    /// Whether its node may leave checksums and segmentation to others.
    pub offload: bool,
}

/// A tap of a virtual machine to be taken over as the host end of a NIC, or to be marked and set anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adoption {
    /// The NIC.
    pub wire: WireId,
    /// Number of the tap.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The process that has to hold it.
    pub pid: i32,
    /// Its MTU then, in bytes.
    pub mtu: u32,
    /// Its alias then.
    pub alias: String,
    /// True when it is not ours yet.
    pub is_new: bool,
}

/// A NIC to be changed while it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adjustment {
    /// The NIC.
    pub wire: WireId,
    /// Number of its end in the node.
    pub guest_index: u32,
    /// Number of its end on the host.
    pub host_index: u32,
    /// What its node calls it.
    pub called: Option<String>,
    /// How it was set by us.
    pub before: Setting,
    /// Whether its node may leave checksums and segmentation to others; none is as it is.
    pub offload: Option<bool>,
}

/// A host end to be called differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rename {
    /// The NIC.
    pub wire: WireId,
    /// Its number.
    pub index: u32,
    /// Its name.
    pub from: String,
    /// Its name then.
    pub to: String,
    /// True when the host's own stack is to take no notice of it then.
    pub silent: bool,
}

/// What to do and what to tell.
#[derive(Debug, Default)]
pub struct Plan {
    /// Host ends to delete: their numbers.
    pub unplug: BTreeMap<WireId, u32>,
    /// True when these are all that is in our group, which then goes as it is.
    pub unplug_all: bool,
    /// NICs to make, by the node they go into.
    pub plug: BTreeMap<NodeUid, Vec<PlugWish>>,
    /// NICs to change, by the node they are in.
    pub adjust: BTreeMap<NodeUid, Vec<Adjustment>>,
    /// Taps to take over.
    pub adopt: Vec<Adoption>,
    /// Taps to let go of: their numbers.
    pub release: Vec<u32>,
    /// Host ends to call differently.
    pub renames: Vec<Rename>,
    /// Host ends, and the Linux bridges that they are to be ports of; 0 is none.
    pub masters: BTreeMap<WireId, (u32, u32)>,
    /// Tails to make.
    pub tails: Vec<NewTail>,
    /// Tunnels to make.
    pub tunnels: Vec<NewTunnel>,
    /// Ends of tails, and tunnels, to delete: their numbers.
    pub untail: Vec<u32>,
    /// Ends of tails, and tunnels, to set up.
    pub raise: Vec<u32>,
    /// Ends of tails, and tunnels, and the MTUs that they are to have.
    pub mtus: Vec<(u32, u32)>,
    /// Interfaces of the host to take for uplinks, or to put back as they were.
    pub handlings: Vec<Handling>,
    /// What is to be done to frames.
    pub controls: Vec<Control>,
    /// What the carrier of host ends follows.
    pub cables: Arc<Cables>,
    /// Changes to Open vSwitch's database.
    pub changes: Vec<Change>,
    /// Ports that are deleted since Open vSwitch cannot use them, and why: they are to rest before they are tried again.
    pub faulty_ports: BTreeMap<WireId, String>,
    /// What each bridge's flows have to be; a bridge that is not named is left as it is.
    pub flows: BTreeMap<String, BTreeSet<Rule>>,
    /// Where what wires carry is counted.
    pub ways: BTreeMap<WireId, Ways>,
    /// What was read, in the words of the contract.
    pub observed: Observed,
    /// What was removed and still exists, and what of it.
    pub left: BTreeMap<WireId, String>,
}

/// Decides.
pub fn plan(facts: &Facts<'_>) -> Plan {
    let mut plan = Plan::default();
    let found = found(facts);
    let unwanted = |wire: &WireId| !facts.is_wanted(*wire) && !facts.wanted.doomed.contains(wire);
    plan.observed.unwanted = found.keys().copied().filter(unwanted).collect();
    plan.observed.synced = facts.wanted.synced;
    plan.observed.inventory = inventory(facts);
    if !facts.wanted.synced {
        return plan;
    }
    let refusals = refusals::plan(facts);
    let nics = nics::plan(facts, &mut plan);
    let bridges = bridges::plan(facts, &mut plan);
    let uplinks = uplinks::plan(facts, &mut plan);
    let ports = ports::plan(facts, &nics, &bridges, &uplinks, &mut plan);
    joins::plan(facts, &nics, &ports, &refusals, &uplinks, &mut plan);
    uplinks::tell(facts, &uplinks, &ports, &mut plan);
    let view = wires::Wiring { facts, nics: &nics, bridges: &bridges, ports: &ports, refusals: &refusals };
    view.plan(&mut plan);
    plan.unplug_all = is_group(facts, &plan.unplug);
    let blind = blind(facts);
    let apart = blind.map(|_| apart(facts)).unwrap_or_default();
    for wire in &facts.wanted.doomed {
        let blind = blind.filter(|_| !apart.contains(wire));
        if let Some(why) = found.get(wire).copied().or(blind) {
            let trouble = facts.trouble(*wire).map(|t| format!(": {t}")).unwrap_or_default();
            plan.left.insert(*wire, format!("{why}{trouble}"));
        }
    }
    plan
}

/// Whether these are our group, and nothing else is in it.
fn is_group(facts: &Facts<'_>, interfaces: &BTreeMap<WireId, u32>) -> bool {
    let in_group = facts.links.values().filter(|link| link.group == facts.names.group).map(|link| link.index);
    let all: BTreeSet<u32> = interfaces.values().copied().collect();
    !all.is_empty() && in_group.collect::<BTreeSet<u32>>() == all
}

/// What exists of ours, wanted or not, and what of it.
fn found(facts: &Facts<'_>) -> BTreeMap<WireId, &'static str> {
    let mut found = BTreeMap::new();
    for (bridge, reading) in facts.tables {
        for rule in reading.rules.iter().filter(|_| *bridge == facts.names.bridge) {
            if let Ok(wire) = WireId::try_from(rule.cookie) {
                found.insert(wire, "its flows still exist");
            }
        }
    }
    let ours = |owner: &Option<String>| owner.as_ref() == Some(&facts.names.owner);
    if let Some(ovs) = facts.ovs {
        for port in ovs.ports.values().filter(|port| ours(&port.owner)) {
            found.extend(port.wire.map(|wire| (wire, "its port on Open vSwitch still exists")));
        }
        for bridge in ovs.bridges.values().filter(|bridge| ours(&bridge.owner)) {
            found.extend(bridge.wire.map(|wire| (wire, "its bridge still exists")));
        }
    }
    // The device of a bridge goes a moment after its row.
    for wire in &facts.wanted.doomed {
        let name = facts.names.segment(*wire);
        let is_deleted = facts.ovs.is_some_and(|ovs| !ovs.bridges.contains_key(&name));
        if is_deleted && facts.links.contains_key(&name) {
            found.insert(*wire, "the device of its bridge still exists");
        }
    }
    for link in facts.links.values() {
        let mark = link.redirect.and_then(|redirect| redirect.mark);
        if let Some(mark) = mark.filter(|mark| *mark == facts.names.mark(mark.wire, link.index)) {
            found.insert(mark.wire, "its redirects still exist");
        }
        found.extend(facts.names.tag(link).map(|tag| (tag.wire, "its host end still exists")));
        found.extend(facts.names.tail_of(link).map(|wire| (wire, "its tail into a segment still exists")));
        found.extend(
            facts.names.uplink_of(link).map(|(wire, _)| (wire, "its uplink is not yet as it was before")),
        );
        found.extend(
            facts.names.tunnel_of(link).map(|wire| (wire, "its tunnel to another host still exists")),
        );
    }
    found
}

/// Of what Open vSwitch never had a part since it was seen last: wires that the kernel alone carried, and NICs that ended no others.
fn apart(facts: &Facts<'_>) -> BTreeSet<WireId> {
    if facts.found_datapath.is_none() {
        return BTreeSet::new();
    }
    let with_nics = |wire: &Wire| {
        let nic = |end: &WireEnd| if let WireEnd::Nic(nic) = end { Some(*nic) } else { None };
        [Some(wire.wire_id), nic(&wire.a), nic(&wire.b)].into_iter().flatten()
    };
    let is_apart = |wire: &&Wire| match ports::ends(wire) {
        ports::Ends::NicAndSegment(..) | ports::Ends::Segments(..) => false,
        _ => planes::of(facts, wire).kernel,
    };
    let (apart, others): (Vec<&Wire>, Vec<&Wire>) = facts.wanted.wires_ever().partition(is_apart);
    let others: BTreeSet<WireId> = others.into_iter().flat_map(with_nics).collect();
    apart.into_iter().flat_map(with_nics).filter(|id| !others.contains(id)).collect()
}

/// Why it cannot be seen whether Open vSwitch has a part in something; none when it can.
fn blind(facts: &Facts<'_>) -> Option<&'static str> {
    let Some(ovs) = facts.ovs else { return Some("Open vSwitch's database does not answer") };
    let bridge = ovs.bridges.get(&facts.names.bridge)?;
    let ours = bridge.owner.as_ref() == Some(&facts.names.owner);
    (ours && !facts.tables.contains_key(&facts.names.bridge)).then_some("ovs-vswitchd does not answer")
}

/// What was measured of the ways to other hosts, in the words of the contract.
fn paths(underlay: &Underlay, paths: &Paths) -> Arc<[observed::PathMtu]> {
    let path = |(address, path): (&IpAddr, &Result<u32, String>)| observed::PathMtu {
        address: *address,
        mtu: path.as_ref().ok().map(|packet| underlay.within(*packet)),
        problem: path.as_ref().err().cloned().unwrap_or_default(),
    };
    paths.iter().map(path).collect()
}

fn inventory(facts: &Facts<'_>) -> NetworkInventory {
    let plane = planes::between_nics(facts, None);
    let mut inventory = NetworkInventory {
        impairments: facts.impairments.to_vec(),
        host_interfaces: facts.host_interfaces,
        plane: plane.name().to_owned(),
        plane_reason: plane.why.to_owned(),
        underlay: facts.underlay.and_then(|underlay| {
            let (address, port) = (underlay.address, underlay.port);
            underlay.mtu(facts.links).map(|mtu| observed::Underlay { address, port, mtu })
        }),
        paths: facts.underlay.map(|underlay| paths(underlay, facts.paths)).unwrap_or_default(),
        uplinks: uplinks::inventory(facts),
        ..NetworkInventory::default()
    };
    inventory.problems.extend(facts.underlay.and_then(|underlay| underlay.problem(facts.links)));
    let Some(ovs) = facts.ovs else {
        inventory.problems.push(
            "Open vSwitch's database does not answer: start ovsdb-server and ovs-vswitchd, or set network.ovsdb_socket"
                .to_owned(),
        );
        return inventory;
    };
    inventory.ovs_version = ovs.version.clone();
    if !facts.settled {
        inventory.problems.push("ovs-vswitchd does not take up changes: see that it runs".to_owned());
        return inventory;
    }
    inventory.problems.extend(facts.refused.map(|why| format!("Open vSwitch's database: {why}")));
    match bridges::state(facts, ovs, &facts.names.bridge, None) {
        bridges::State::Foreign(why) => inventory.problems.push(why),
        bridges::State::Ours(bridge) if bridge.works => inventory.datapath = bridge.datapath.clone(),
        bridges::State::Ours(_) if ovs.cur_cfg >= ovs.next_cfg => inventory
            .problems
            .push(format!("ovs-vswitchd cannot make bridge {}: see its log", facts.names.bridge)),
        // What a bridge will be made with is what the kernel has.
        bridges::State::Ours(_) | bridges::State::Absent => {
            inventory.datapath = facts.new_datapath().to_owned()
        }
    }
    inventory
}
