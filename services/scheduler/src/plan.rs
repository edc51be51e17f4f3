//! From a lab's rows and a spec to the rows that the spec asks for, and the plan that says what differs. Pure: `plan`, `validate_only`, deploy, cancel, removal and
//! the retry of nodes that fitted nowhere are all this one function, so what a plan shows is what a deploy does.
//!
//! Planning again changes nothing. Each change takes the smallest action: a changed link never restarts a node, and a node is made anew only when its
//! [`spec_hash`] says that a container cannot change so far while it lives.

use std::collections::{BTreeMap, BTreeSet};

use netloom_model::id::{HostId, LinkUid, NodeId, NodeUid, WireId};
use netloom_model::kind::Catalogue;
use netloom_model::naming;
use netloom_model::plan::{Action, Object, Plan, Rejection, Unplaced, Verb};
use netloom_model::slice::{mac_of, spec_hash};
use netloom_model::spec::{Endpoint, LabSpec, LinkSpec, NodeSpec};
use netloom_model::state::{LinkState, NodeState, Runtime, Wanted};

use crate::place::{Need, Room, place};
use crate::rows::{ImageStep, LabRows, LinkRow, NicRow, NodeRow, network_of};

/// What a spec asks for beside what there is.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// The rows that it asks for.
    pub rows: LabRows,
    /// What differs.
    pub plan: Plan,
    /// Placed nodes that ask for more than before and than their host has free.
    pub overgrown: Vec<(NodeId, Rejection)>,
}

/// How to plan.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The kinds.
    pub catalogue: &'a Catalogue,
    /// What hosts offer, and what everything but this lab has reserved there.
    pub rooms: &'a [Room],
    /// True when a user asks: an image that could not be used is tried again.
    pub asked: bool,
    /// The time.
    pub now: i64,
}

/// Plans a spec that was checked ([`LabSpec::check`], [`Catalogue::check`]).
pub fn plan(current: &LabRows, spec: &LabSpec, ctx: Context<'_>) -> Planned {
    let mut rows = current.clone();
    if rows.lab.spec != *spec {
        rows.lab.spec = spec.clone();
        rows.lab.generation += 1;
        rows.lab.update_us = ctx.now;
    }
    let mut actions = Vec::new();
    let former = nodes(&mut rows, spec, ctx, &mut actions);
    let homeless: BTreeSet<NodeUid> = rows
        .nodes
        .values()
        .filter(|n| n.host.is_none() && current.nodes.contains_key(&n.uid))
        .map(|n| n.uid)
        .collect();
    let overgrown = overgrown(current, &rows, ctx.rooms);
    let unplaced = placement(&mut rows, spec, ctx, &former);
    for node in
        homeless.iter().filter_map(|uid| rows.nodes.get(uid)).filter(|n| n.is_wanted() && n.host.is_some())
    {
        actions.push(action(Verb::Create, Object::Node, node.id.as_str(), "there is room for it now"));
    }
    for action in &mut actions {
        let host = rows.node(&action.id.to_ascii_lowercase()).and_then(|n| n.host.as_ref());
        action.host = host.map(HostId::to_string).unwrap_or_default();
    }
    links(&mut rows, spec, ctx.now, &mut actions);
    wire_up(&mut rows, ctx);
    Planned { rows, plan: Plan { actions, unplaced }, overgrown }
}

/// Tries again to place the nodes that fitted nowhere, and touches nothing else: no node is made anew because a kind changed since it was planned.
pub fn place_again(current: &LabRows, ctx: Context<'_>) -> LabRows {
    let mut rows = current.clone();
    let spec = rows.lab.spec.clone();
    placement(&mut rows, &spec, ctx, &BTreeMap::new());
    links(&mut rows, &spec, ctx.now, &mut Vec::new());
    wire_up(&mut rows, ctx);
    rows
}

fn wire_up(rows: &mut LabRows, ctx: Context<'_>) {
    nics(rows, ctx.catalogue);
    forget_what_is_nowhere(rows);
    let hosts: Vec<HostId> = rows.nodes.values().filter_map(|n| n.host.clone()).collect();
    rows.hosts.extend(hosts);
}

fn action(verb: Verb, object: Object, id: &str, reason: impl Into<String>) -> Action {
    Action { verb, object, id: id.to_owned(), reason: reason.into(), host: String::new() }
}

/// Brings the node rows to the spec; says which host the former self of each node made anew is on.
fn nodes(
    rows: &mut LabRows,
    spec: &LabSpec,
    ctx: Context<'_>,
    actions: &mut Vec<Action>,
) -> BTreeMap<NodeUid, HostId> {
    let lab = rows.lab.id.clone();
    let network = network_of(&lab, spec);
    let mut former = BTreeMap::new();
    let mut named = BTreeSet::new();
    let shown: BTreeMap<String, NodeUid> =
        rows.nodes.values().filter(|n| !n.replaced).map(|n| (n.id.folded(), n.uid)).collect();
    for asked in &spec.nodes {
        // Both were checked before: a spec that names an unknown kind does not come this far.
        let (Ok(resolved), Ok(id)) = (ctx.catalogue.resolve(asked), asked.id.parse::<NodeId>()) else {
            continue;
        };
        named.insert(id.folded());
        let hash = match resolved.runtime {
            Runtime::Bridge => String::new(),
            _ => spec_hash(
                &spec.instance_name(&lab, &asked.id),
                &resolved.spec,
                &spec.files_of(&resolved.spec),
                network.as_ref(),
            ),
        };
        let new = |verb: Verb, reason: String, rows: &mut LabRows, actions: &mut Vec<Action>| {
            let node = new_node(id.clone(), resolved.spec.clone(), resolved.runtime, hash.clone(), ctx.now);
            let uid = node.uid;
            rows.nodes.insert(uid, node);
            actions.push(action(verb, Object::Node, &asked.id, reason));
            uid
        };
        let Some(old) = shown.get(&id.folded()).and_then(|uid| rows.nodes.get_mut(uid)) else {
            new(Verb::Create, "it is new".into(), rows, actions);
            continue;
        };
        if old.wanted == Wanted::Absent {
            old.replaced = true;
            let host = old.host.clone();
            let uid = new(Verb::Create, "it is wanted again".into(), rows, actions);
            former.extend(host.map(|h| (uid, h)));
        } else if old.spec_hash != hash || old.runtime != resolved.runtime || old.id != id {
            let reason = what_changed(&old.spec, &resolved.spec);
            old.wanted = Wanted::Absent;
            old.replaced = true;
            let host = old.host.clone();
            let reason = if reason.is_empty() { "its files, name or network changed".into() } else { reason };
            let uid = new(Verb::Recreate, reason, rows, actions);
            former.extend(host.map(|h| (uid, h)));
        } else {
            let mut reason = String::new();
            if old.spec != resolved.spec {
                reason = what_changed(&old.spec, &resolved.spec);
                if old.spec.exec != resolved.spec.exec {
                    reason += ": its exec commands run at its next start";
                }
                old.spec = resolved.spec;
            }
            if ctx.asked && old.image_step == ImageStep::Failed {
                old.image_step = ImageStep::Waiting;
                old.image_detail = String::new();
                reason = "its image is looked for again".into();
            }
            if !reason.is_empty() {
                actions.push(action(Verb::Update, Object::Node, &asked.id, reason));
            }
        }
    }
    for node in rows.nodes.values_mut().filter(|n| n.is_wanted() && !named.contains(&n.id.folded())) {
        node.wanted = Wanted::Absent;
        actions.push(action(Verb::Delete, Object::Node, node.id.as_str(), "it is not in the spec"));
    }
    former
}

fn new_node(id: NodeId, spec: NodeSpec, runtime: Runtime, spec_hash: String, now: i64) -> NodeRow {
    let bridge = runtime == Runtime::Bridge;
    NodeRow {
        uid: NodeUid::new(),
        id,
        replaced: false,
        runtime,
        wanted: Wanted::Running,
        spec,
        spec_hash,
        host: None,
        // A bridge's name has room for 60 bits only.
        segment: bridge.then(|| new_wire_id(60)),
        rejections: Vec::new(),
        image_step: if bridge { ImageStep::Ready } else { ImageStep::Waiting },
        image_detail: String::new(),
        removal: String::new(),
        settled_start: String::new(),
        state: NodeState::Pending,
        reason: String::new(),
        observed: None,
        create_us: now,
        update_us: now,
    }
}

/// The fields that differ, in words.
fn what_changed(old: &NodeSpec, new: &NodeSpec) -> String {
    let fields = |s: &NodeSpec| match serde_json::to_value(s) {
        Ok(serde_json::Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let (old, new) = (fields(old), fields(new));
    let changed: Vec<&str> =
        new.iter().filter(|(k, v)| old.get(*k) != Some(v)).map(|(k, _)| k.as_str()).collect();
    if changed.is_empty() { String::new() } else { format!("{} changed", changed.join(", ")) }
}

/// Gives a host to every wanted node that has none, and says which fit nowhere.
fn placement(
    rows: &mut LabRows,
    spec: &LabSpec,
    ctx: Context<'_>,
    former: &BTreeMap<NodeUid, HostId>,
) -> Vec<Unplaced> {
    let uids: BTreeMap<&str, NodeUid> =
        rows.nodes.values().filter(|n| n.is_wanted()).map(|n| (n.spec.id.as_str(), n.uid)).collect();
    let mut neighbours: BTreeMap<NodeUid, BTreeSet<NodeUid>> = BTreeMap::new();
    for link in &spec.links {
        if let (Some(a), Some(b)) = (uids.get(link.a.node.as_str()), uids.get(link.b.node.as_str())) {
            neighbours.entry(*a).or_default().insert(*b);
            neighbours.entry(*b).or_default().insert(*a);
        }
    }
    let needs: Vec<Need> = rows
        .nodes
        .values()
        .filter(|n| n.is_wanted() && n.host.is_none())
        .map(|n| Need {
            uid: n.uid,
            id: n.id.to_string(),
            runtime: n.runtime,
            cpu_millis: u64::from(n.spec.cpu_request_millis),
            memory_bytes: n.spec.memory_request_bytes,
            former: former.get(&n.uid).cloned(),
            neighbours: neighbours.remove(&n.uid).unwrap_or_default(),
        })
        .collect();
    if needs.is_empty() {
        return Vec::new();
    }
    let placed: BTreeMap<NodeUid, HostId> = rows
        .nodes
        .values()
        .filter(|n| n.is_wanted())
        .filter_map(|n| n.host.clone().map(|h| (n.uid, h)))
        .collect();
    let mut unplaced = Vec::new();
    for (uid, outcome) in place(&needs, &placed, &rooms_for(rows, ctx.rooms)) {
        let Some(node) = rows.nodes.get_mut(&uid) else { continue };
        match outcome {
            Ok(host) => {
                node.host = Some(host);
                node.rejections = Vec::new();
            }
            Err(rejections) => {
                node.rejections.clone_from(&rejections);
                unplaced.push(Unplaced { node: node.id.to_string(), rejections });
            }
        }
    }
    unplaced.sort_by(|a, b| a.node.cmp(&b.node));
    unplaced
}

/// The rooms, with this lab's own nodes counted as they are in these rows: once each, former selves and nodes that leave not at all.
fn rooms_for(rows: &LabRows, others: &[Room]) -> Vec<Room> {
    let mut rooms = others.to_vec();
    for node in rows.nodes.values().filter(|n| n.is_wanted()) {
        if let Some(room) = rooms.iter_mut().find(|r| Some(&r.host) == node.host.as_ref()) {
            room.reserve(u64::from(node.spec.cpu_request_millis), node.spec.memory_request_bytes);
        }
    }
    rooms
}

/// Placed nodes whose request grew beyond what its host has free beside all other reservations. A host that is not heard of is not asked.
fn overgrown(before: &LabRows, after: &LabRows, others: &[Room]) -> Vec<(NodeId, Rejection)> {
    let request = |n: &NodeRow| (u64::from(n.spec.cpu_request_millis), n.spec.memory_request_bytes);
    let rooms = rooms_for(after, others);
    let beyond = |node: &NodeRow| {
        let ((cpu, memory), (had_cpu, had_memory)) = (request(node), request(before.nodes.get(&node.uid)?));
        let mut room = rooms.iter().find(|r| r.heard && Some(&r.host) == node.host.as_ref())?.clone();
        room.cpu_reserved = room.cpu_reserved.saturating_sub(cpu);
        room.memory_reserved = room.memory_reserved.saturating_sub(memory);
        let grown = |now: u64, had: u64| if now > had { now } else { 0 };
        room.lacks(grown(cpu, had_cpu), grown(memory, had_memory)).map(|r| (node.id.clone(), r))
    };
    let mut all: Vec<_> = after.nodes.values().filter(|n| n.is_wanted()).filter_map(beyond).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// Brings the link rows to the spec.
fn links(rows: &mut LabRows, spec: &LabSpec, now: i64, actions: &mut Vec<Action>) {
    let hosts: BTreeMap<String, Option<HostId>> =
        rows.nodes.values().filter(|n| n.is_wanted()).map(|n| (n.spec.id.clone(), n.host.clone())).collect();
    let host_of = |link: &LinkSpec| {
        let (a, b) = (hosts.get(&link.a.node).cloned().flatten(), hosts.get(&link.b.node).cloned().flatten());
        a.filter(|a| Some(a) == b.as_ref())
    };
    let mut named = BTreeSet::new();
    let shown: BTreeMap<String, LinkUid> =
        rows.links.values().filter(|l| !l.replaced).map(|l| (l.id.clone(), l.uid)).collect();
    for asked in &spec.links {
        let asked = asked.clone().sorted();
        let id = asked.id();
        named.insert(id.clone());
        let host = host_of(&asked);
        let old = shown.get(&id).and_then(|uid| rows.links.get_mut(uid));
        let (verb, reason) = match old {
            None => (Verb::Create, "it is new"),
            Some(old) if old.wanted == Wanted::Absent => {
                old.replaced = true;
                (Verb::Create, "it is wanted again")
            }
            Some(old) if old.host.is_some() && old.host != host => {
                old.replaced = true;
                old.wanted = Wanted::Absent;
                (Verb::Recreate, "its nodes moved")
            }
            Some(old) => {
                old.host = host.clone();
                if old.spec != asked {
                    let reason = link_change(&old.spec, &asked);
                    old.spec = asked;
                    let mut update = action(Verb::Update, Object::Link, &id, reason);
                    update.host = host.map(String::from).unwrap_or_default();
                    actions.push(update);
                }
                continue;
            }
        };
        let mut create = action(verb, Object::Link, &id, reason);
        create.host = host.as_ref().map(HostId::to_string).unwrap_or_default();
        actions.push(create);
        let link = LinkRow {
            uid: LinkUid::new(),
            id,
            replaced: false,
            wire_id: new_wire_id(63),
            wanted: Wanted::Running,
            spec: asked,
            host,
            state: LinkState::Pending,
            reason: String::new(),
            plane: String::new(),
            create_us: now,
            update_us: now,
        };
        rows.links.insert(link.uid, link);
    }
    for link in rows.links.values_mut().filter(|l| l.is_wanted() && !named.contains(&l.id)) {
        link.wanted = Wanted::Absent;
        actions.push(action(Verb::Delete, Object::Link, &link.id, "it is not in the spec"));
    }
}

fn link_change(old: &LinkSpec, new: &LinkSpec) -> String {
    let mut changed = Vec::new();
    for (what, differs) in [
        ("mtu", old.mtu != new.mtu),
        ("labels", old.labels != new.labels),
        ("mac", old.a.mac != new.a.mac || old.b.mac != new.b.mac),
        ("addresses", addresses(&old.a) != addresses(&new.a) || addresses(&old.b) != addresses(&new.b)),
    ] {
        if differs {
            changed.push(what);
        }
    }
    format!("{} changed", changed.join(", "))
}

fn addresses(end: &Endpoint) -> Vec<String> {
    [&end.ipv4, &end.ipv6].into_iter().filter(|a| !a.is_empty()).cloned().collect()
}

/// Brings the interfaces to the links. An interface is a node's port: it stays the same when its link goes elsewhere.
fn nics(rows: &mut LabRows, catalogue: &Catalogue) {
    let ports: BTreeMap<(NodeUid, u32), WireId> =
        rows.nics.values().filter(|n| !n.absent).map(|n| ((n.node_uid, n.port), n.wire_id)).collect();
    let mut used = BTreeSet::new();
    let nodes: BTreeMap<&str, &NodeRow> =
        rows.nodes.values().filter(|n| n.is_wanted()).map(|n| (n.spec.id.as_str(), n)).collect();
    for link in rows.links.values().filter(|l| l.is_wanted()) {
        for end in [&link.spec.a, &link.spec.b] {
            let Some(node) = nodes.get(end.node.as_str()).filter(|n| n.runtime != Runtime::Bridge) else {
                continue;
            };
            let port = catalogue
                .get(&node.spec.kind)
                .and_then(|kind| kind.interfaces.index(&kind.name, &end.interface).ok());
            let Some(port) = port else { continue };
            let wire_id = ports.get(&(node.uid, port)).copied().unwrap_or_else(|| new_wire_id(63));
            let (present, carrier) =
                rows.nics.get(&wire_id).map_or((false, false), |n| (n.present, n.carrier));
            let nic = NicRow {
                wire_id,
                node_uid: node.uid,
                link_uid: link.uid,
                interface: end.interface.clone(),
                port,
                absent: false,
                host: node.host.clone(),
                mac: if end.mac.is_empty() { mac_of(wire_id) } else { end.mac.to_ascii_lowercase() },
                mtu: link.spec.effective_mtu(),
                addresses: addresses(end),
                present,
                carrier,
            };
            used.insert(wire_id);
            rows.nics.insert(wire_id, nic);
        }
    }
    for nic in rows.nics.values_mut().filter(|n| !used.contains(&n.wire_id)) {
        nic.absent = true;
    }
}

/// What is not wanted and was never on a host has nothing to wait for.
fn forget_what_is_nowhere(rows: &mut LabRows) {
    rows.nodes.retain(|_, n| n.wanted != Wanted::Absent || n.host.is_some());
    rows.links.retain(|_, l| l.wanted != Wanted::Absent || l.host.is_some());
    rows.nics.retain(|_, n| !n.absent || n.host.is_some());
}

/// The name of an interface inside its node.
pub fn guest_name(nic: &NicRow) -> String {
    naming::guest_name(nic.port)
}

fn new_wire_id(bits: u32) -> WireId {
    loop {
        if let Ok(id) = WireId::try_from(rand::random::<u64>() >> (64 - bits)) {
            return id;
        }
    }
}

#[cfg(test)]
mod tests;
