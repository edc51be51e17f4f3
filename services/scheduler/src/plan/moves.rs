//! Nodes that go to other hosts. Pure.
//!
//! A move is a node made anew elsewhere: its successor stands beside the one that is shown until its image is on the other host, then they change places
//! ([`take_over`](super::take_over)), and the other host is told only when the former one said that what ran is out of the way. So there are never two live copies of a
//! node, a cancel has the very container back, and links are wired anew by the rules that a deploy has.
//!
//! From a host that is not heard of nothing can be taken out of the way: its nodes stay, unless they are moved by force. Then the rows of what may still run there stay as
//! what is to be removed, under their own uids, until the host is back; links get other wires and numbers, so that what goes on there reaches nobody.
//!
//! The disk of a virtual machine goes with it: its successor is told of the disk that it brings, and its host is told of it only when the disk is there ([`disks`](crate::disks)).
//!
//! A node moves as it is asked for: when a deployed change of it waits for room, it goes with that change where both fit, and stays where they do not. Moved as it runs, its change
//! would be forgotten, and nothing would bring it about but another deploy.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use netloom_model::human;
use netloom_model::id::{HostId, NodeUid};
use netloom_model::plan::{Action, Object, Plan, Rejection, Unplaced, Verb};
use netloom_model::spec::{BindSource, EndpointType, NetworkMode};
use netloom_model::state::{Runtime, Wanted};

use super::anew::{New, note_owners, swap};
use super::rooms::{Keep, Kept, kept_of, rooms_for};
use super::{Context, action, is_unplaced, links, needs, take_over, wire_up};
use crate::across;
use crate::place::{Need, Room, apart, place};
use crate::rows::{LabRows, NodeRow};

/// The code of what is told of a node that did not come up on a host that it was moved to.
pub const MOVE_FAILED: &str = "MOVE_FAILED";

/// The code of what is told of a node that stays since a deployed change of it has no room elsewhere.
const CHANGE_WAITS: &str = "CHANGE_WAITS";

/// What is to go where.
#[derive(Debug, Clone, Default)]
pub struct Moves {
    /// The nodes, and the host of each; none for wherever there is room. Those that share a network namespace with one of them go with it.
    pub nodes: BTreeMap<NodeUid, Option<HostId>>,
    /// Where none of them goes that is not to go to a host by name.
    pub not_to: BTreeSet<HostId>,
    /// True when disks of virtual machines are not copied, and lost.
    pub lose_disks: bool,
    /// True when nodes may be made elsewhere although their host is not heard of and may still run them.
    pub force: bool,
    /// After so many seconds without a word of it their host is given up; 0 where somebody asks.
    pub silent_for: u32,
    /// How many bytes the disks of nodes take that would be copied, or why their host does not give them.
    pub disks: BTreeMap<NodeUid, Result<u64, String>>,
    /// What speaks against a host of a node beside what hosts say: an image that is not to be had there.
    pub refused: BTreeMap<NodeUid, Vec<Rejection>>,
}

/// The rows when these nodes are moved, and the plan: its nodes without a place are those that stay, with the reasons.
pub fn move_nodes(current: &LabRows, moves: &Moves, ctx: Context<'_>) -> (LabRows, Plan) {
    let mut going = with_sharers(current, &moves.nodes);
    let mut stay: BTreeMap<NodeUid, Vec<Rejection>> = BTreeMap::new();
    let mut why: BTreeMap<NodeUid, Vec<Rejection>> = going
        .keys()
        .filter_map(|uid| current.nodes.get(uid))
        .filter_map(|node| Some((node.uid, vec![stays(node, current, moves, ctx.rooms)?])))
        .collect();
    let (rows, moved) = loop {
        keep_back(current, &mut going, why, &mut stay);
        let (rows, moved, homeless) = elsewhere(current, &going, moves, ctx);
        if homeless.is_empty() {
            break (rows, moved);
        }
        why = homeless;
    };
    let mut actions = Vec::new();
    for (old, new) in &moved {
        let (Some(old), Some(new)) = (current.nodes.get(old), rows.nodes.get(new)) else { continue };
        let name = |host: &Option<HostId>| host.as_ref().map(HostId::to_string).unwrap_or_default();
        let (from, to) = (name(&old.host), name(&new.host));
        let size = || match moves.disks.get(&old.uid) {
            Some(Ok(bytes)) => format!(" ({})", human::bytes(*bytes)),
            _ => String::new(),
        };
        let lost = match old.runtime {
            Runtime::Bridge => String::new(),
            Runtime::Docker => ": what its programs wrote in it is lost".to_owned(),
            Runtime::Libvirt if new.disk_due => {
                format!(" with its disk{}: it is down while that is copied", size())
            }
            Runtime::Libvirt if old.has_disk() => ": its disk is lost".to_owned(),
            Runtime::Libvirt => String::new(),
        };
        let changes = match waiting_change(current, old) {
            Some(_) => "; its change, which waited for room, comes with it",
            None => "",
        };
        let silent = match moves.silent_for {
            0 => String::new(),
            seconds => format!(", of which nothing was heard for {seconds} s,"),
        };
        let reason = format!("moves from {from}{silent} to {to}{lost}{changes}");
        let told = action(Verb::Recreate, Object::Node, old.id.as_str(), reason);
        actions.push(Action { host: to, ..told });
    }
    actions.sort_by(|a, b| a.id.cmp(&b.id));
    let mut rows = rows;
    if !moved.is_empty() {
        tell_links(current, &rows, &moved, ctx, &mut actions);
        settle(&mut rows, ctx);
    }
    let of = |(uid, rejections): (NodeUid, Vec<Rejection>)| {
        let node = current.nodes.get(&uid).map(|n| n.id.to_string()).unwrap_or_default();
        Unplaced { node, rejections }
    };
    let mut unplaced: Vec<Unplaced> = stay.into_iter().map(of).collect();
    unplaced.sort_by(|a, b| a.node.cmp(&b.node));
    (rows, Plan { actions, unplaced, ..Plan::default() })
}

/// The nodes on a host that are to leave it: those that are wanted.
pub fn on_host(rows: &LabRows, host: &HostId) -> BTreeMap<NodeUid, Option<HostId>> {
    let there = rows.nodes.values().filter(|n| n.is_wanted() && n.host.as_ref() == Some(host));
    there.map(|n| (n.uid, None)).collect()
}

fn settle(rows: &mut LabRows, ctx: Context<'_>) {
    let spec = rows.lab.spec.clone();
    // What was moved by force has changed places already.
    links::links(rows, &spec, &spec, Context { revive: false, ..ctx }, &mut Vec::new());
    wire_up(rows, ctx);
    take_over(rows, ctx.catalogue, ctx.now);
}

/// These, and all that share a network namespace with one of them: they are on one host.
pub(super) fn with_sharers(
    rows: &LabRows,
    nodes: &BTreeMap<NodeUid, Option<HostId>>,
) -> BTreeMap<NodeUid, Option<HostId>> {
    let mut all = nodes.clone();
    let placed = || rows.nodes.values().filter(|n| n.is_wanted() && n.host.is_some());
    loop {
        let next = placed().filter(|n| !all.contains_key(&n.uid)).find_map(|node| {
            let with = |other: &&NodeRow| shares(node, other) || shares(other, node);
            let (_, to) = all.iter().find(|(uid, _)| rows.nodes.get(uid).as_ref().is_some_and(with))?;
            Some((node.uid, to.clone()))
        });
        let Some((uid, to)) = next else { return all };
        all.insert(uid, to);
    }
}

fn shares(node: &NodeRow, owner: &NodeRow) -> bool {
    matches!(&node.spec.network_mode, NetworkMode::Node(id) if id.eq_ignore_ascii_case(owner.id.as_str()))
}

/// Takes these out of what goes, and all that share a network namespace with one of them.
fn keep_back(
    rows: &LabRows,
    going: &mut BTreeMap<NodeUid, Option<HostId>>,
    why: BTreeMap<NodeUid, Vec<Rejection>>,
    stay: &mut BTreeMap<NodeUid, Vec<Rejection>>,
) {
    let mut with = with_sharers(rows, &why.keys().map(|uid| (*uid, None)).collect());
    with.retain(|uid, _| going.remove(uid).is_some());
    let first = why.keys().next().and_then(|uid| rows.nodes.get(uid)).map(|n| n.id.to_string());
    for uid in with.into_keys() {
        let beside = || {
            let host = rows.nodes.get(&uid).and_then(|n| n.host.as_ref()).map(HostId::to_string);
            let detail = format!(
                "it shares a network namespace with {}, which stays",
                first.as_deref().unwrap_or_default()
            );
            let code = "NETWORK_ELSEWHERE".to_owned();
            vec![Rejection { host: host.unwrap_or_default(), code, detail, resolvable: true }]
        };
        stay.insert(uid, why.get(&uid).cloned().unwrap_or_else(beside));
    }
}

/// Why a node stays where it is, whatever room there is elsewhere.
pub(super) fn stays(node: &NodeRow, rows: &LabRows, moves: &Moves, rooms: &[Room]) -> Option<Rejection> {
    let host = node.host.as_ref()?;
    let rejection = |code: &str, detail: &str, resolvable: bool| Rejection {
        host: host.to_string(),
        code: code.to_owned(),
        detail: detail.to_owned(),
        resolvable,
    };
    let is_heard = is_heard(host, rooms);
    if !is_heard && !moves.force {
        let why = "is not heard of, so what may run there cannot be stopped: move it by force once that machine is known to be off";
        return Some(rejection("HOST_UNKNOWN", why, true));
    }
    if node.has_disk() && !moves.lose_disks {
        let why = match moves.disks.get(&node.uid) {
            _ if !is_heard => Some((", which cannot be read while it is not heard of".to_owned(), true)),
            _ if waiting_change(rows, node).is_some() => {
                let gone = ", which a deployed change of it, that waits for room, does not have any more";
                Some((gone.to_owned(), true))
            }
            Some(Err(why)) => Some((format!(" and does not give it: {why}"), false)),
            Some(Ok(_)) | None => None,
        };
        if let Some((why, resolvable)) = why {
            let why = format!("has the node's disk{why}: let it begin with a new one by --lose-disks");
            return Some(rejection("DISK_ON_HOST", &why, resolvable));
        }
    }
    let is_named = moves.nodes.get(&node.uid).is_some_and(Option::is_some);
    let what = tied_by(node, rows).filter(|_| !is_named)?;
    let why = format!("{what}, and that of another host is another one: say where with netloom node move");
    Some(rejection("TIED_TO_HOST", &why, false))
}

/// What of its host a node uses that no other host has.
fn tied_by(node: &NodeRow, rows: &LabRows) -> Option<String> {
    let path = node.spec.binds.iter().find_map(|bind| match &bind.source {
        BindSource::Host(path) => Some(format!("has the path {path} that the node mounts")),
        _ => None,
    });
    if path.is_some() {
        return path;
    }
    if node.spec.network_mode == NetworkMode::Host {
        return Some("has the network that the node shares".to_owned());
    }
    let of_node = |l: &&netloom_model::spec::LinkSpec| l.node_ends().any(|end| end.node == node.spec.id);
    let ends = rows.lab.spec.links.iter().filter(of_node).flat_map(|l| [&l.a, &l.b]);
    ends.filter(|end| end.kind == EndpointType::Host)
        .map(|end| format!("has the interface {} that a link of the node ends in", end.interface))
        .next()
}

fn is_heard(host: &HostId, rooms: &[Room]) -> bool {
    rooms.iter().any(|room| room.host == *host && room.heard)
}

type Homeless = BTreeMap<NodeUid, Vec<Rejection>>;

/// The rows with successors of these nodes on other hosts, by the nodes; and those that fit nowhere.
fn elsewhere(
    current: &LabRows,
    going: &BTreeMap<NodeUid, Option<HostId>>,
    moves: &Moves,
    ctx: Context<'_>,
) -> (LabRows, BTreeMap<NodeUid, NodeUid>, Homeless) {
    let mut rows = current.clone();
    let ids: BTreeSet<String> =
        going.keys().filter_map(|uid| current.nodes.get(uid)).map(|n| n.id.folded()).collect();
    // Of a successor that could not be made there is nothing.
    rows.nodes.retain(|_, n| !(n.is_successor() && !n.placed && ids.contains(&n.id.folded())));
    let mut moved = BTreeMap::new();
    for (uid, to) in going {
        let Some(old) = rows.nodes.get(uid) else { continue };
        let asked = waiting_change(current, old).unwrap_or(old).clone();
        let new = New {
            id: asked.id,
            spec: asked.spec.into_inner(),
            runtime: asked.runtime,
            hash: asked.spec_hash,
            now: ctx.now,
        };
        let mut new =
            NodeRow { wanted: asked.wanted, replaced: true, placed: false, host: to.clone(), ..new.row() };
        if old.has_disk() && !moves.lose_disks {
            (new.disk_of, new.disk_due) = (Some(old.origin()), true);
            new.image_digest = lies_on(old);
        }
        moved.insert(*uid, new.uid);
        rows.nodes.insert(new.uid, new);
    }
    note_owners(&mut rows);
    let mut homeless = find_places(&mut rows, &moved, moves, ctx.rooms);
    for (uid, why) in &mut homeless {
        let host = current.nodes.get(uid).filter(|old| waiting_change(current, old).is_some());
        if let Some(host) = host.and_then(|old| old.host.as_ref()) {
            let detail = "has it as it was before a deployed change, which waits for room and has none elsewhere: make room, or deploy what fits";
            let (code, detail) = (CHANGE_WAITS.to_owned(), detail.to_owned());
            why.insert(0, Rejection { host: host.to_string(), code, detail, resolvable: true });
        }
    }
    for (old, new) in &moved {
        let is_gone = current.nodes.get(old).and_then(|n| n.host.as_ref());
        if is_gone.is_some_and(|host| !is_heard(host, ctx.rooms)) {
            swap(&mut rows, *old, *new);
            if let Some(old) = rows.nodes.get_mut(old) {
                // What runs there, if it does, is of no matter: it is removed when the host is back.
                (old.wanted, old.observed) = (Wanted::Absent, None);
            }
        }
    }
    (rows, moved, homeless)
}

/// Digest of the image that the disk of a node lies on; empty where nobody said.
fn lies_on(node: &NodeRow) -> String {
    let seen = node.observed.as_deref().map(|o| o.image_digest.clone()).filter(|digest| !digest.is_empty());
    seen.unwrap_or_else(|| node.image_digest.clone())
}

/// The successor of a node that waits for room: what was deployed and is still to come about.
fn waiting_change<'r>(rows: &'r LabRows, node: &NodeRow) -> Option<&'r NodeRow> {
    let waits = |n: &&NodeRow| n.is_successor() && n.host.is_none() && n.id.folded() == node.id.folded();
    rows.nodes.values().find(waits)
}

/// Gives a host to each that has none; says which of all of them have no room where they are to go.
fn find_places(
    rows: &mut LabRows,
    moved: &BTreeMap<NodeUid, NodeUid>,
    moves: &Moves,
    rooms: &[Room],
) -> Homeless {
    let spec = rows.lab.spec.clone();
    let mut homeless = Homeless::new();
    let olds: BTreeMap<NodeUid, NodeUid> = moved.iter().map(|(old, new)| (*new, *old)).collect();
    let goes_to = |new: &&NodeUid| rows.nodes.get(new).is_some_and(|n| n.host.is_some());
    let named: BTreeSet<NodeUid> = olds.keys().filter(goes_to).copied().collect();
    // Of what moves nothing is reserved where it was.
    let mut stay = kept_of(rows, Keep::Surely, |n| n.host.as_ref());
    stay.retain(|uid, _| !moved.contains_key(uid));
    let asked = needs(rows, &spec, &BTreeMap::new(), |n| is_unplaced(n) && olds.contains_key(&n.uid));
    for ((_, refused), together) in by_refusals(rows, asked, &olds, moves) {
        let takes =
            |room: &&Room| !moves.not_to.contains(&room.host) && !refused.contains(room.host.as_str());
        let others: Vec<Room> = rooms.iter().filter(takes).cloned().collect();
        let places = place(&together, &places_of(rows, &stay), &rooms_for(rows, &stay, &others));
        for (new, outcome) in places {
            match (outcome, rows.nodes.get_mut(&new)) {
                (Ok(host), Some(node)) => node.host = Some(host),
                (Err(mut why), _) => {
                    why.extend(refusals(rows, olds[&new], moves));
                    homeless.insert(olds[&new], why);
                }
                (Ok(_), None) => {}
            }
        }
    }
    // One that was named a host is asked there as if it were the last to come.
    let (there, rooms) = (places_of(rows, &stay), rooms_for(rows, &stay, rooms));
    for need in needs(rows, &spec, &BTreeMap::new(), |n| named.contains(&n.uid)) {
        let (old, host) = (olds[&need.uid], there.get(&need.uid));
        let Some(room) = rooms.iter().find(|room| Some(&room.host) == host) else { continue };
        let refused = || refusals(rows, old, moves).into_iter().find(|r| r.host == room.host.as_str());
        let mut room = room.clone();
        room.free_again(need.wants());
        let why = refused().or_else(|| room.rejects(&need)).or_else(|| apart(&need, &room, &there));
        homeless.extend(why.map(|why| (old, vec![why])));
    }
    homeless
}

/// What is to be placed, by the hosts that are out of the question for it: those with the most of them first, since they have the fewest to choose from. Those that share a
/// network namespace go together.
fn by_refusals(
    rows: &LabRows,
    asked: Vec<Need>,
    olds: &BTreeMap<NodeUid, NodeUid>,
    moves: &Moves,
) -> BTreeMap<(Reverse<usize>, BTreeSet<String>), Vec<Need>> {
    let mut groups: BTreeMap<_, Vec<Need>> = BTreeMap::new();
    for need in asked {
        let why = olds.get(&need.uid).map(|old| refusals(rows, *old, moves)).unwrap_or_default();
        let hosts: BTreeSet<String> = why.into_iter().map(|r| r.host).collect();
        groups.entry((Reverse(hosts.len()), hosts)).or_default().push(need);
    }
    groups
}

/// What speaks against hosts of a node, and of those that it shares a network namespace with.
fn refusals(rows: &LabRows, old: NodeUid, moves: &Moves) -> Vec<Rejection> {
    if moves.refused.is_empty() {
        return Vec::new();
    }
    let with = with_sharers(rows, &[(old, None)].into());
    with.keys().filter_map(|uid| moves.refused.get(uid)).flatten().cloned().collect()
}

/// Where the nodes of a lab are, or are to be; one whose successor waits for room is where it was.
pub(super) fn places_of(rows: &LabRows, stay: &Kept) -> BTreeMap<NodeUid, HostId> {
    let stays = |n: &&NodeRow| n.is_wanted() && stay.contains_key(&n.uid);
    let was: BTreeMap<String, &HostId> =
        rows.nodes.values().filter(stays).filter_map(|n| Some((n.id.folded(), n.host.as_ref()?))).collect();
    let host = |n: &NodeRow| n.host.clone().or_else(|| was.get(&n.id.folded()).map(|host| (*host).clone()));
    rows.asked_for().into_iter().filter_map(|n| Some((n.uid, host(n)?))).collect()
}

/// Says what becomes of links once all that is to be moved has changed places.
fn tell_links(
    current: &LabRows,
    rows: &LabRows,
    moved: &BTreeMap<NodeUid, NodeUid>,
    ctx: Context<'_>,
    actions: &mut Vec<Action>,
) {
    let mut then = rows.clone();
    for (old, new) in moved.iter().filter(|(_, new)| rows.nodes.get(new).is_some_and(NodeRow::is_successor)) {
        swap(&mut then, *old, *new);
    }
    let spec = then.lab.spec.clone();
    let mut of_links = Vec::new();
    links::links(&mut then, &spec, &spec, Context { revive: false, ..ctx }, &mut of_links);
    wire_up(&mut then, ctx);
    across::tell(current, &then, &mut of_links);
    actions.extend(of_links);
}

#[cfg(test)]
pub(super) mod tests;
