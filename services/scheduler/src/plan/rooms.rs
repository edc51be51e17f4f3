//! What of hosts a lab has and asks for, and where its nodes go beside that. Pure.
//!
//! A node and its successor count once, as they are to be. But a successor may not come about: its image cannot be had, or its host refuses. Then the node that it was to
//! succeed goes on, and were the room that it had been to give up another's by then, the host would have more to run than it has. So until it is known that a successor is made,
//! what its former self has is kept for that: what needs this very room has no host until then, and is placed once it is free.

use std::collections::BTreeMap;

use netloom_model::id::{HostId, NodeId, NodeUid};
use netloom_model::plan::{Rejection, Unplaced};
use netloom_model::spec::LabSpec;

use super::{Context, is_unplaced, needs};
use crate::place::{Need, Placed, Room, place};
use crate::rows::{ImageStep, LabRows, NodeRow, Resources};

/// What of its host a node keeps beyond what its successor has there.
pub(super) type Kept = BTreeMap<NodeUid, Resources>;

/// Which nodes with successors keep what they have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// All of them: an image that cannot be had, or a host that refuses, and they go on.
    UntilKnown,
    /// Those of which it is known that they go on: their successors have no place, or failed.
    Surely,
}

/// Gives a host to every wanted node that has none, and says which fit nowhere.
pub(super) fn placement(
    rows: &mut LabRows,
    spec: &LabSpec,
    ctx: Context<'_>,
    former: &BTreeMap<NodeUid, HostId>,
) -> Vec<Unplaced> {
    let needs = needs(rows, spec, former, is_unplaced);
    if needs.is_empty() {
        return Vec::new();
    }
    let places = settled(rows, &needs, ctx.rooms, Keep::UntilKnown);
    // What has a place as soon as all successors took over waits for that, and for nothing else.
    let is_short = places.values().any(Result::is_err) && rows.nodes.values().any(NodeRow::is_successor);
    let then = if is_short { settled(rows, &needs, ctx.rooms, Keep::Surely) } else { Placed::new() };
    let mut unplaced = Vec::new();
    for (uid, outcome) in places {
        let Some(node) = rows.nodes.get_mut(&uid) else { continue };
        match outcome {
            Ok(host) => {
                node.host = Some(host);
                node.rejections = Vec::new();
            }
            Err(rejections) => {
                node.rejections.clone_from(&rejections);
                if !then.get(&uid).is_some_and(Result::is_ok) {
                    unplaced.push(Unplaced { node: node.id.to_string(), rejections });
                }
            }
        }
    }
    unplaced.sort_by(|a, b| a.node.cmp(&b.node));
    unplaced
}

/// Where they go when what the lab keeps of its hosts is nobody else's: where successors go decides what that is, and the other way round.
fn settled(rows: &LabRows, needs: &[Need], rooms: &[Room], keep: Keep) -> Placed {
    let mut kept = Kept::new();
    loop {
        let places = place_needs(rows, needs, &kept, rooms);
        let more = kept_of(rows, keep, |n| {
            n.host.as_ref().or_else(|| places.get(&n.uid).and_then(|host| host.as_ref().ok()))
        });
        let mut is_more = false;
        for (uid, of_node) in more {
            let had = kept.entry(uid).or_default();
            let most = had.most(of_node);
            is_more |= most != *had;
            *had = most;
        }
        if !is_more {
            return places;
        }
    }
}

/// Where they go, beside all that has a host and what is kept.
pub(super) fn place_needs(rows: &LabRows, needs: &[Need], kept: &Kept, rooms: &[Room]) -> Placed {
    let placed: BTreeMap<NodeUid, HostId> =
        rows.asked_for().into_iter().filter_map(|n| n.host.clone().map(|h| (n.uid, h))).collect();
    place(needs, &placed, &rooms_for(rows, kept, rooms))
}

fn request(node: &NodeRow) -> Resources {
    Resources::of(&node.spec)
}

/// What the lab has of its hosts beside its nodes as they are to be; `to` says where these go. A node and its successor never run at the same time, so on one host the
/// larger of the two counts. What the lab's operation set aside may come back to where it was; what was made
/// there in its place with less leaves the rest to what the same operation made, which goes when that comes back.
pub(super) fn kept_of<'a>(
    rows: &'a LabRows,
    keep: Keep,
    to: impl Fn(&'a NodeRow) -> Option<&'a HostId>,
) -> Kept {
    let asked: BTreeMap<String, &NodeRow> =
        rows.asked_for().into_iter().map(|n| (n.id.folded(), n)).collect();
    let outlives = |since: i64| rows.nodes.values().any(|n| is_unplaced(n) && n.create_us < since);
    let keeps = |node: &NodeRow, next: Option<&'a NodeRow>| match next {
        Some(next) if node.is_wanted() && next.is_successor() => {
            keep == Keep::UntilKnown || to(next).is_none() || next.image_step == ImageStep::Failed
        }
        Some(next) if node.is_aside() && rows.operation.is_some() && to(next) == node.host.as_ref() => {
            outlives(next.create_us.max(rows.lab.update_us))
        }
        _ if node.is_aside() => rows.operation.is_some(),
        _ => false,
    };
    let kept = |node: &NodeRow| {
        let next = asked.get(&node.id.folded()).copied();
        if !keeps(node, next) {
            return None;
        }
        let beside = next.filter(|n| to(n).is_some() && to(n) == node.host.as_ref());
        Some((node.uid, request(node).minus(beside.map(request).unwrap_or_default())))
    };
    rows.nodes.values().filter_map(kept).collect()
}

/// The rooms, with this lab's own nodes counted as they are to be in these rows: once each, and nodes that leave and former selves with what they keep.
pub(super) fn rooms_for(rows: &LabRows, kept: &Kept, others: &[Room]) -> Vec<Room> {
    let mut rooms = others.to_vec();
    let mut reserve = |host: Option<&HostId>, what: Resources| {
        if let Some(room) = rooms.iter_mut().find(|r| Some(&r.host) == host) {
            room.reserve(what);
        }
    };
    rows.asked_for().into_iter().for_each(|n| reserve(n.host.as_ref(), request(n)));
    let mut most: BTreeMap<(Option<&HostId>, String), Resources> = BTreeMap::new();
    for (node, kept) in kept.iter().filter_map(|(uid, kept)| Some((rows.nodes.get(uid)?, kept))) {
        let of_name = most.entry((node.host.as_ref(), node.id.folded())).or_default();
        *of_name = of_name.most(*kept);
    }
    most.into_iter().for_each(|((host, _), kept)| reserve(host, kept));
    for node in rows.asked_for() {
        if let Some(room) = rooms.iter_mut().find(|r| Some(&r.host) == node.host.as_ref()) {
            room.allowed.take_uplink(&node.spec.uplink, || node.id.to_string());
        }
    }
    rooms
}

/// Placed nodes whose request grew beyond what its host has free beside all other reservations: of one that is not heard of, by its last word; of one that never said anything nothing is known.
pub(super) fn overgrown(before: &LabRows, after: &LabRows, others: &[Room]) -> Vec<(NodeId, Rejection)> {
    let rooms = rooms_for(after, &kept_of(after, Keep::UntilKnown, |n| n.host.as_ref()), others);
    // Of what is set aside nothing is reserved.
    let had = |n: &NodeRow| if n.is_aside() { Resources::default() } else { request(n) };
    let beyond = |node: &NodeRow| {
        let (asks, had) = (request(node), had(before.nodes.get(&node.uid)?));
        let mut room = rooms
            .iter()
            .find(|r| (r.heard || r.cpu_millis > 0) && Some(&r.host) == node.host.as_ref())?
            .clone();
        room.free_again(asks);
        room.lacks(asks.grown(had)).map(|r| (node.id.clone(), r))
    };
    let mut all: Vec<_> = after.asked_for().into_iter().filter_map(beyond).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

#[cfg(test)]
mod tests;
