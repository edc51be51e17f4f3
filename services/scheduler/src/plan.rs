//! From a lab's rows and a spec to the rows that the spec asks for, and the plan that says what differs. Pure: `plan`, `validate_only`, deploy, cancel, removal and
//! the retry of nodes that fitted nowhere are all this one function, so what a plan shows is what a deploy does.
//!
//! Planning again changes nothing. Each change takes the smallest action: a changed link never restarts a node, and a node is made anew only when its
//! [`spec_hash`] says that a container cannot change so far while it lives.

mod anew;
mod apart;
mod before;
mod explain;
mod links;
pub mod lost;
mod moves;
mod reason;
mod rebalance;
mod rooms;
mod same;
mod verbs;

use std::collections::{BTreeMap, BTreeSet};

use netloom_model::id::{HostId, NodeId, NodeUid, WireId};
use netloom_model::kind::Catalogue;
use netloom_model::naming;
use netloom_model::observed::{NEEDS_IMAGE, Observed, Phase};
use netloom_model::plan::{Action, Object, Plan, Rejection, Verb};
use netloom_model::slice::spec_hash;
use netloom_model::spec::{FileEntry, LabSpec, LinkSpec, NetworkMode, NodeSpec};
use netloom_model::state::{Runtime, Wanted};

pub use self::anew::take_over;
use self::anew::{Anew, Made, New, leaves};
pub use self::before::Before;
pub use self::explain::explain;
pub use self::moves::{MOVE_FAILED, Moves, move_nodes, on_host};
pub use self::reason::tell_left_out;
pub use self::rebalance::rebalanced;
use self::rooms::{overgrown, placement};
pub use self::same::different;
pub use self::verbs::{NodeChange, change_nodes};
use crate::across::{self, Reach};
use crate::place::{Asks, Need, Room, is_elsewhere, is_policy};
use crate::rows::{ImageStep, LabRows, NicRow, NodeRow, network_of};

/// Said of what was set aside and is asked for again.
fn comes_back(runtime: Runtime) -> String {
    format!("its former {} comes back", instance_of(runtime))
}

/// What is made of a node, in words.
fn instance_of(runtime: Runtime) -> &'static str {
    match runtime {
        Runtime::Libvirt => "virtual machine",
        Runtime::Docker | Runtime::Bridge => "container",
    }
}

/// What a spec asks for beside what there is.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// The rows that it asks for.
    pub rows: LabRows,
    /// What differs.
    pub plan: Plan,
    /// Placed nodes that ask for more than before and than their host has free.
    pub overgrown: Vec<(NodeId, Rejection)>,
    /// Nodes that ask for what no host allows or can do, or a placed one for what its host does not.
    pub forbidden: Vec<(NodeId, Rejection)>,
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
    /// True when a whole lab is asked for: nodes that were stopped are started, and links that were unplugged are plugged.
    pub revive: bool,
    /// The time.
    pub now: i64,
}

/// Plans a spec that was checked ([`LabSpec::check`], [`Catalogue::check`]).
pub fn plan(current: &LabRows, spec: &LabSpec, ctx: Context<'_>) -> Planned {
    let mut rows = current.clone();
    if *rows.lab.spec != *spec {
        let leases_change = rows.lab.spec.reschedule_after_seconds != spec.reschedule_after_seconds;
        rows.lab.spec = spec.clone().into();
        rows.lab.generation += 1;
        if leases_change {
            rows.lab.leases = rows.lab.generation;
        }
        rows.lab.update_us = ctx.now;
    }
    let mut actions = Vec::new();
    let former = nodes(&mut rows, (&current.lab.spec, spec), ctx, &mut actions);
    let homeless: BTreeSet<NodeUid> = rows
        .nodes
        .values()
        .filter(|n| n.host.is_none() && current.nodes.contains_key(&n.uid))
        .map(|n| n.uid)
        .collect();
    let overgrown = overgrown(current, &rows, ctx.rooms);
    let unplaced = placement(&mut rows, spec, ctx, &former);
    for node in
        homeless.iter().filter_map(|uid| rows.nodes.get(uid)).filter(|n| n.wanted.stays() && n.host.is_some())
    {
        actions.push(action(Verb::Create, Object::Node, node.id.as_str(), "there is room for it now"));
    }
    let told = rows.told();
    for action in &mut actions {
        let host = told.get(&action.id.to_ascii_lowercase()).and_then(|n| n.host.as_ref());
        action.host = host.map(HostId::to_string).unwrap_or_default();
    }
    links::links(&mut rows, &current.lab.spec, spec, ctx, &mut actions);
    wire_up(&mut rows, ctx);
    across::tell(current, &rows, &mut actions);
    take_over(&mut rows, ctx.catalogue, ctx.now);
    let forbidden = forbidden(current, &rows, ctx.rooms);
    Planned { rows, plan: Plan { actions, unplaced, ..Plan::default() }, overgrown, forbidden }
}

/// Tries again to place the nodes that fitted nowhere, and touches nothing else: no node is made anew because a kind changed since it was planned.
pub fn place_again(current: &LabRows, ctx: Context<'_>) -> LabRows {
    let mut rows = current.clone();
    let spec = rows.lab.spec.clone();
    placement(&mut rows, &spec, ctx, &BTreeMap::new());
    links::links(&mut rows, &spec, &spec, Context { revive: false, ..ctx }, &mut Vec::new());
    wire_up(&mut rows, ctx);
    rows
}

/// True when nodes of a lab, its links, its files or networks are on a host.
pub fn is_on(rows: &LabRows, host: &HostId) -> bool {
    rows.hosts.contains(host) || has_nodes_on(rows, host)
}

/// True when nodes of a lab are on a host, those that leave it included.
pub fn has_nodes_on(rows: &LabRows, host: &HostId) -> bool {
    rows.nodes.values().any(|n| n.host.as_ref() == Some(host))
}

/// The rows without a host that was given up: what was on it and is wanted is made anew wherever there is room, under other uids, and its links get other wires and
/// numbers. The machine may run on, and come back under another name: what is on it then is known to be removed.
pub fn without_host(current: &LabRows, host: &HostId, ctx: Context<'_>) -> LabRows {
    let is_there = |of: &Option<HostId>| of.as_ref() == Some(host);
    let rooms: Vec<Room> = ctx.rooms.iter().filter(|room| room.host != *host).cloned().collect();
    let ctx = Context { rooms: &rooms, ..ctx };
    let mut rows = current.clone();
    let gone: Vec<NodeRow> = rows.nodes.values().filter(|n| is_there(&n.host)).cloned().collect();
    for node in gone {
        rows.nodes.remove(&node.uid);
        if node.wanted.stays() {
            let (wanted, replaced, placed) = (node.wanted, node.replaced, node.placed);
            let new = New {
                id: node.id,
                spec: node.spec.into_inner(),
                runtime: node.runtime,
                hash: node.spec_hash,
                now: ctx.now,
            };
            let new = NodeRow { wanted, replaced, placed, ..new.row() };
            rows.nodes.insert(new.uid, new);
        }
    }
    anew::note_owners(&mut rows);
    rows.nics.retain(|_, n| !is_there(&n.host));
    // What the other host has of a link stays known, and its number taken, until that is gone there.
    rows.links.retain(|_, l| {
        let touches = l.is_on(host);
        if touches && l.wanted != Wanted::Absent {
            (l.wanted, l.replaced) = (Wanted::Absent, true);
        }
        !(touches && l.leaves(host))
    });
    let unplugged: BTreeSet<&str> =
        current.links.values().filter(|l| l.is_wanted() && !l.enabled).map(|l| l.id.as_str()).collect();
    rows.hosts.remove(host);
    let mut rows = place_again(&rows, ctx);
    for link in rows.links.values_mut().filter(|l| l.is_wanted() && unplugged.contains(l.id.as_str())) {
        link.enabled = false;
    }
    rows
}

fn wire_up(rows: &mut LabRows, ctx: Context<'_>) {
    links::nics(rows, ctx.catalogue);
    let reach = ctx.rooms.iter().filter_map(|room| Some((&room.host, room.allowed.reach?)));
    let reach: BTreeMap<&HostId, Reach> = reach.collect();
    let paths: BTreeMap<&HostId, _> =
        ctx.rooms.iter().map(|room| (&room.host, &room.allowed.paths)).collect();
    across::settle(rows, |host| reach.get(host).copied(), |host| paths.get(host).copied().cloned());
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
    (before, spec): (&LabSpec, &LabSpec),
    ctx: Context<'_>,
    actions: &mut Vec<Action>,
) -> BTreeMap<NodeUid, HostId> {
    let lab = rows.lab.id.clone();
    let network = network_of(&lab, spec);
    let hash_of = |node: &NodeSpec, files: &[FileEntry]| {
        spec_hash(&spec.instance_name(&lab, &node.id), node, files, network.as_ref())
    };
    // Both were checked before: a spec that names an unknown kind does not come this far.
    let of_spec = |asked: &NodeSpec| -> Option<New> {
        let (resolved, id) = (ctx.catalogue.resolve(asked).ok()?, asked.id.parse::<NodeId>().ok()?);
        let hash = match resolved.runtime {
            Runtime::Bridge => String::new(),
            _ => hash_of(&resolved.spec, &spec.files_of(&resolved.spec)),
        };
        Some(New { id, spec: resolved.spec, runtime: resolved.runtime, hash, now: ctx.now })
    };
    let asked: Vec<New> = spec.nodes.iter().filter_map(of_spec).collect();
    let hashes = asked.iter().map(|new| (new.id.folded(), new.hash.clone())).collect();
    let mut made = Made::among(rows, hashes, ctx);
    let mut named = BTreeSet::new();
    let shown: BTreeMap<String, NodeUid> =
        rows.nodes.values().filter(|n| !n.replaced).map(|n| (n.id.folded(), n.uid)).collect();
    for new in asked {
        let id = new.id.to_string();
        named.insert(new.id.folded());
        let Some(old) = shown.get(&new.id.folded()).and_then(|uid| rows.nodes.get(uid)) else {
            made.insert(rows, new, None);
            actions.push(action(Verb::Create, Object::Node, &id, "it is new"));
            continue;
        };
        let (uid, stays, same) = (old.uid, old.wanted.stays(), new.is(old));
        let is_there = stays || (new.runtime != Runtime::Bridge && made.finds_its_owner(rows, old));
        if same && is_there {
            let Some(old) = rows.nodes.get_mut(&uid) else { continue };
            if !stays {
                // Its removal may not have begun, or it is aside: then it is as it was.
                let (verb, why) = match old.is_aside() {
                    true => (Verb::Start, comes_back(old.runtime)),
                    false => (Verb::Create, "it is wanted again".to_owned()),
                };
                (old.wanted, old.spec, old.removal) = (Wanted::Running, new.spec.into(), String::new());
                actions.push(action(verb, Object::Node, &id, why));
            } else if let Some((verb, why)) = changed_in_place(old, new.spec, (before, spec), ctx) {
                actions.push(action(verb, Object::Node, &id, why));
            }
            continue;
        }
        let around = reason::surroundings(&lab, (before, &old.spec), (spec, &new.spec));
        let files = spec.files_of(&new.spec);
        let why = [reason::recreation(&old.spec, &new.spec, |node| hash_of(node, &files)), around];
        let why = why.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
        let contents = reason::contents((&had(old, before), &old.spec), (spec, &new.spec), new.runtime, true);
        let verb = if stays { Verb::Recreate } else { Verb::Create };
        let (runtime, forces) = (new.runtime, format!("forces a new {}", instance_of(new.runtime)));
        let why = match made.anew(rows, new, uid) {
            Anew::AsBefore => continue,
            Anew::Back => comes_back(runtime),
            Anew::Made if !stays => "it is wanted again".to_owned(),
            Anew::Made if why.is_empty() => format!("{forces}: it could not be made before"),
            Anew::Made => {
                [format!("{forces}: {why}")].into_iter().chain(contents).collect::<Vec<_>>().join("; ")
            }
        };
        actions.push(action(verb, Object::Node, &id, why));
    }
    for node in rows.nodes.values_mut().filter(|n| n.is_wanted() && !named.contains(&n.id.folded())) {
        leaves(node);
        actions.push(action(Verb::Delete, Object::Node, node.id.as_str(), "it is not in the spec"));
    }
    followers(rows, &mut made, ctx, actions);
    made.drop_others(rows);
    anew::note_owners(rows);
    made.former
}

/// The files of a node as they are on its host, or are to be.
fn had(node: &NodeRow, before: &LabSpec) -> Vec<FileEntry> {
    if node.own_files.is_empty() { before.files_of(&node.spec) } else { node.own_files.clone() }
}

/// Brings a node that stays to its spec; says what is done and why, if anything.
fn changed_in_place(
    node: &mut NodeRow,
    spec: NodeSpec,
    (before, after): (&LabSpec, &LabSpec),
    ctx: Context<'_>,
) -> Option<(Verb, String)> {
    let (mut verb, mut reasons) = (Verb::Update, Vec::new());
    let contents = reason::contents((&had(node, before), &node.spec), (after, &spec), node.runtime, false);
    if ctx.revive && node.wanted == Wanted::Stopped {
        verb = Verb::Start;
        verbs::apply(node, verb);
        reasons.push("it was stopped".to_owned());
    }
    if *node.spec != spec {
        reasons.push(reason::node_change(&node.spec, &spec));
        if node.runtime == Runtime::Libvirt && reason::has_other_limits(&node.spec, &spec) {
            reasons.push(reason::FROM_NEXT_START.to_owned());
        }
        node.spec = spec.into();
    }
    reasons.extend(contents);
    if ctx.asked && (node.image_step == ImageStep::Failed || lacks_image(node)) {
        node.image_step = ImageStep::Waiting;
        node.image_detail = String::new();
        reasons.push("its image is looked for again".to_owned());
    }
    (!reasons.is_empty()).then(|| (verb, reasons.join(", ")))
}

/// True for a container that cannot be made again, since its host has lost what it was made from.
fn lacks_image(node: &NodeRow) -> bool {
    let says = |o: &Observed| o.phase == Phase::Failed && o.detail.starts_with(NEEDS_IMAGE);
    node.runtime == Runtime::Docker
        && node.image_step == ImageStep::Ready
        && node.observed.as_deref().is_some_and(says)
}

/// Makes the nodes anew that share the network namespace of one that is: a container cannot change whose it has.
fn followers(rows: &mut LabRows, made: &mut Made, ctx: Context<'_>, actions: &mut Vec<Action>) {
    loop {
        let follows =
            rows.nodes.values().filter(|n| n.is_wanted()).find_map(|node| match &node.spec.network_mode {
                NetworkMode::Node(owner) if !made.names.contains(&node.id.folded()) => {
                    made.names.contains(&owner.to_ascii_lowercase()).then(|| (node.clone(), owner.clone()))
                }
                _ => None,
            });
        let Some((node, owner)) = follows else { return };
        let why =
            format!("forces a new container: it shares the network namespace of {owner}, which is made anew");
        let (uid, id, now) = (node.uid, node.id.to_string(), ctx.now);
        let new = New {
            id: node.id,
            spec: node.spec.into_inner(),
            runtime: node.runtime,
            hash: node.spec_hash,
            now,
        };
        let why = match made.anew(rows, new, uid) {
            Anew::AsBefore => continue,
            Anew::Back => comes_back(Runtime::Docker),
            Anew::Made => why,
        };
        actions.retain(|a| a.object != Object::Node || a.id != id);
        actions.push(action(Verb::Recreate, Object::Node, &id, why));
    }
}

/// What nodes of the rows need of a host, those that `of` names.
fn needs(
    rows: &LabRows,
    spec: &LabSpec,
    former: &BTreeMap<NodeUid, HostId>,
    of: impl Fn(&NodeRow) -> bool,
) -> Vec<Need> {
    let uids: BTreeMap<&str, NodeUid> =
        rows.asked_for().into_iter().map(|n| (n.spec.id.as_str(), n.uid)).collect();
    let mut neighbours: BTreeMap<NodeUid, BTreeMap<NodeUid, u32>> = BTreeMap::new();
    for link in &spec.links {
        let ends: Vec<NodeUid> =
            link.node_ends().filter_map(|e| uids.get(e.node.as_str()).copied()).collect();
        if let [a, b] = ends[..] {
            *neighbours.entry(a).or_default().entry(b).or_default() += 1;
            *neighbours.entry(b).or_default().entry(a).or_default() += 1;
        }
    }
    let mut apart = apart::apart(rows, &uids);
    let of_nodes = links_of_nodes(spec);
    let need = |n: &NodeRow| Need {
        uid: n.uid,
        id: n.id.to_string(),
        runtime: n.runtime,
        image: n.image(),
        cpu_millis: u64::from(n.spec.cpu_request_millis),
        memory_bytes: n.spec.memory_request_bytes,
        disk_bytes: n.spec.disk_request_bytes,
        former: former.get(&n.uid).cloned(),
        neighbours: neighbours.remove(&n.uid).unwrap_or_default(),
        asks: asks(n, &of_nodes).on(&n.spec.placement),
        apart: apart.remove(&n.uid).unwrap_or_default(),
        beside: match &n.spec.network_mode {
            NetworkMode::Node(owner) => uids.get(owner.as_str()).copied(),
            _ => None,
        },
    };
    rows.nodes.values().filter(|n| of(n)).map(need).collect()
}

/// The nodes that are to have a host and have none.
fn is_unplaced(node: &NodeRow) -> bool {
    node.wanted.stays() && node.host.is_none()
}

/// The links of each node.
fn links_of_nodes(spec: &LabSpec) -> BTreeMap<&str, Vec<&LinkSpec>> {
    let mut all: BTreeMap<&str, Vec<&LinkSpec>> = BTreeMap::new();
    for link in &spec.links {
        for end in link.node_ends() {
            all.entry(end.node.as_str()).or_default().push(link);
        }
    }
    all
}

fn asks(node: &NodeRow, links: &BTreeMap<&str, Vec<&LinkSpec>>) -> Asks {
    Asks::of(&node.spec, links.get(node.spec.id.as_str()).into_iter().flatten().copied())
}

/// Nodes that ask for what no host allows or can do, and placed ones that now ask for what their host does not. What a placed node asked for before is not asked
/// of its host again.
fn forbidden(before: &LabRows, after: &LabRows, rooms: &[Room]) -> Vec<(NodeId, Rejection)> {
    let (had, has) = (links_of_nodes(&before.lab.spec), links_of_nodes(&after.lab.spec));
    let why = |node: &NodeRow| -> Vec<Rejection> {
        let Some(host) = &node.host else {
            let all = node.rejections.iter().all(|r| is_policy(&r.code));
            // Of one that may be on one host only, what is wrong with that one counts.
            let told = || node.rejections.iter().filter(|r| !is_elsewhere(&r.code));
            return if all { told().cloned().collect() } else { Vec::new() };
        };
        let asked = asks(node, &has);
        if before.nodes.get(&node.uid).is_none_or(|old| asks(old, &had) == asked) {
            return Vec::new();
        }
        let room = rooms.iter().find(|r| r.heard && r.host == *host);
        let lacks = room.and_then(|r| r.allowed.lacks(&asked));
        let reject = |(code, detail): (&str, String)| Rejection {
            host: host.to_string(),
            code: code.to_owned(),
            detail,
            resolvable: false,
        };
        lacks.map(reject).into_iter().collect()
    };
    let wanted = after.nodes.values().filter(|n| n.wanted.stays());
    let mut all: Vec<_> = wanted.flat_map(|n| why(n).into_iter().map(|r| (n.id.clone(), r))).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
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
