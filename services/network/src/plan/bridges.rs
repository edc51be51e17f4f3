//! Which bridges to make, repair and delete: one for all wires between NICs, and one for each segment.
//!
//! The bridge of all wires stays when the last wire has gone: it costs nothing, and nothing reaches anything through it.

use std::collections::BTreeMap;
use std::time::Instant;

use netloom_model::id::WireId;
use netloom_model::observed::{ObservedSegment, Source, WireState};

use super::{Facts, Plan};
use crate::config::Datapath;
use crate::driver::flows::Rule;
use crate::driver::ovs::{Bridge, Change, View};
use crate::names::OWNER_KEY;

/// A bridge that is wanted.
pub enum State<'a> {
    /// There is none of that name.
    Absent,
    /// It is there.
    Ours(&'a Bridge),
    /// One of that name is there and is not ours: it is not touched.
    Foreign(String),
}

/// What of a bridge's name is there.
pub fn state<'a>(facts: &Facts<'_>, ovs: &'a View, name: &str, segment: Option<WireId>) -> State<'a> {
    let Some(bridge) = ovs.bridges.get(name) else { return State::Absent };
    match &bridge.owner {
        Some(owner) if *owner == facts.names.owner && bridge.wire == segment => State::Ours(bridge),
        Some(owner) => State::Foreign(format!(
            "bridge {name} has {OWNER_KEY} {owner}, which is another installation's or another segment's: it is left alone; set network.bridge and network.segment_prefix to names of their own"
        )),
        None => State::Foreign(format!(
            "bridge {name} exists and is not netloom's: it is left alone; rename it, or set network.bridge and network.segment_prefix to names of their own"
        )),
    }
}

/// How a bridge that wires go through does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Ports can be added, flows can be read.
    Ready,
    /// It is being made.
    Making,
    /// It cannot be asked.
    Silent(String),
    /// It cannot be had.
    Failed(String),
}

/// Bridges that wires go through, by name.
pub struct Bridges {
    health: BTreeMap<String, Health>,
}

impl Bridges {
    /// How a bridge does.
    pub fn health(&self, name: &str) -> &Health {
        self.health.get(name).unwrap_or(&Health::Making)
    }

    /// True when ports may be added to it.
    pub fn takes_ports(&self, name: &str) -> bool {
        matches!(self.health(name), Health::Ready | Health::Making | Health::Silent(_))
    }
}

/// Decides about bridges.
pub fn plan(facts: &Facts<'_>, plan: &mut Plan) -> Bridges {
    let mut bridges = Bridges { health: BTreeMap::new() };
    let names = facts.names;
    let health = one(facts, &names.bridge, None, plan);
    bridges.health.insert(names.bridge.clone(), health);
    for segment in facts.wanted.slice.segments.values() {
        let wire = segment.wire_id;
        let name = names.segment(wire);
        let health = one(facts, &name, Some(wire), plan);
        let rule = Rule::segment(wire);
        if facts.tables.get(&name).is_some_and(|table| table.trusted) {
            plan.flows.insert(name.clone(), [rule].into());
        }
        let (state, detail) = match &health {
            Health::Ready if has_rule(facts, &name, &rule) => (WireState::Up, String::new()),
            Health::Ready => match problem(facts, &name) {
                Some(why) => (WireState::Failed, why.to_owned()),
                None => (WireState::Pending, "its flow is being made".to_owned()),
            },
            Health::Making => (WireState::Pending, "its bridge is being made".to_owned()),
            Health::Silent(why) => (WireState::Unknown, why.clone()),
            Health::Failed(why) => (WireState::Failed, why.clone()),
        };
        plan.observed
            .segments
            .insert(wire, ObservedSegment { wire_id: wire, state, detail, sources: sources(facts, &name) });
        plan.observed.gaps.extend(lost(facts, &name, wire).map(|at| (wire, at)));
        bridges.health.insert(name, health);
    }
    for (name, bridge) in facts.ovs.iter().flat_map(|ovs| &ovs.bridges) {
        let ours = bridge.owner.as_ref() == Some(&names.owner);
        if let Some(segment) = bridge.wire.filter(|wire| ours && facts.wanted.doomed.contains(wire)) {
            plan.changes.push(Change::DeleteBridge { uuid: bridge.uuid, name: name.clone(), segment });
        }
    }
    bridges
}

/// What the state of a bridge, and of what goes by it, is read from, as far as that answers.
pub fn sources(facts: &Facts<'_>, bridge: &str) -> Vec<Source> {
    let database = facts.ovs.map(|_| Source::Ovsdb);
    let flows = facts.tables.get(bridge).map(|_| Source::Flows);
    database.into_iter().chain(flows).collect()
}

/// True when the flow was read back.
pub fn has_rule(facts: &Facts<'_>, bridge: &str, rule: &Rule) -> bool {
    facts.tables.get(bridge).is_some_and(|table| table.rules.contains(rule))
}

/// When a flow of this wire or segment was last found missing.
pub fn lost(facts: &Facts<'_>, bridge: &str, wire: WireId) -> Option<Instant> {
    facts.tables.get(bridge)?.lost.get(&wire.get()).copied()
}

/// Why a bridge's flows cannot be had.
pub fn problem<'a>(facts: &Facts<'a>, bridge: &str) -> Option<&'a str> {
    facts.tables.get(bridge)?.problem.as_deref()
}

/// True when ovs-vswitchd does not take up changes, or made the bridge of all wires and cannot be asked about it.
fn is_silent(facts: &Facts<'_>, ovs: &View) -> bool {
    let bridge = &facts.names.bridge;
    let made = matches!(state(facts, ovs, bridge, None), State::Ours(bridge) if bridge.works);
    !facts.settled || made && !facts.tables.contains_key(bridge)
}

fn one(facts: &Facts<'_>, name: &str, segment: Option<WireId>, plan: &mut Plan) -> Health {
    let Some(ovs) = facts.ovs else {
        return Health::Silent("Open vSwitch's database does not answer".to_owned());
    };
    let silent = || Health::Silent("ovs-vswitchd does not answer".to_owned());
    let bridge = match state(facts, ovs, name, segment) {
        State::Foreign(why) => return Health::Failed(why),
        State::Absent if facts.settled => {
            let datapath = facts.new_datapath();
            plan.changes.push(Change::CreateBridge { name: name.to_owned(), datapath, segment });
            return Health::Making;
        }
        State::Absent => return silent(),
        State::Ours(bridge) => bridge,
    };
    // A kernel that says it has the datapath and then cannot use it is found out here.
    let taken_up = facts.settled && ovs.cur_cfg >= ovs.next_cfg;
    let useless =
        taken_up && !bridge.works && bridge.datapath != "netdev" && facts.datapath == Datapath::Auto;
    if useless || !bridge.intact {
        let datapath = if useless { "netdev".to_owned() } else { bridge.datapath.clone() };
        plan.changes.push(Change::RepairBridge { uuid: bridge.uuid, name: name.to_owned(), datapath });
    }
    match (bridge.works, facts.tables.contains_key(name)) {
        (true, true) => Health::Ready,
        (true, false) => silent(),
        (false, _) if is_silent(facts, ovs) => silent(),
        (false, _) if useless || !taken_up => Health::Making,
        (false, _) => Health::Failed(format!("ovs-vswitchd cannot make bridge {name}: see its log")),
    }
}
