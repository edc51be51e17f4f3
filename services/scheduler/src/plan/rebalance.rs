//! Which nodes of a lab would better be on other hosts. Pure.
//!
//! Fewer links between hosts come first, then that none of them is much fuller than another. Two ways are looked at: node by node from where all is, and all of it placed
//! anew; the one with fewer links between hosts is taken, and of equal ones that which moves fewer nodes. What is taken is then as good as either finds it, so asked again nothing moves.

use std::collections::{BTreeMap, BTreeSet};

use netloom_model::id::{HostId, NodeUid};
use netloom_model::spec::NetworkMode;

use super::rooms::{Keep, kept_of, rooms_for};
use super::{Context, Moves, is_unplaced, moves, needs};
use crate::place::{Need, Room, apart, place};
use crate::rows::LabRows;

/// How much fuller than another one a host is before a node moves for that alone, in thousandths of the whole.
const SLOPE: u128 = 100;
/// Most steps of the first way.
const STEPS: usize = 1_000;

type Places = BTreeMap<NodeUid, HostId>;

/// The nodes that would better be elsewhere, and where. Those that cannot move, those of which a change waits for room, and those of hosts that are not heard of, stay.
pub fn rebalanced(current: &LabRows, moves: &Moves, ctx: Context<'_>) -> BTreeMap<NodeUid, Option<HostId>> {
    let sharers = current.nodes.values().filter_map(|n| match &n.spec.network_mode {
        NetworkMode::Node(owner) => Some([owner.to_ascii_lowercase(), n.id.folded()]),
        _ => None,
    });
    let sharers: BTreeSet<String> = sharers.flatten().collect();
    let stay = kept_of(current, Keep::Surely, |n| n.host.as_ref());
    let mut rows = current.clone();
    let mut now = Places::new();
    for node in rows.nodes.values_mut().filter(|n| n.is_wanted()) {
        let stays = moves::stays(node, current, moves, ctx.rooms).is_some();
        if !stays && !stay.contains_key(&node.uid) && !sharers.contains(&node.id.folded()) {
            now.extend(node.host.take().map(|host| (node.uid, host)));
        }
    }
    let fixed = moves::places_of(&rows, &stay);
    let spec = rows.lab.spec.clone();
    let mut movable = needs(&rows, &spec, &BTreeMap::new(), is_unplaced);
    movable.retain(|need| now.contains_key(&need.uid));
    let rooms = rooms_for(&rows, &stay, ctx.rooms);
    let anew: Option<Places> =
        place(&movable, &fixed, &rooms).into_iter().map(|(uid, to)| Some((uid, to.ok()?))).collect();
    let stepwise = step_by_step(&movable, &fixed, now.clone(), rooms);
    let moved = |places: &Places| places.iter().filter(|(uid, host)| now.get(*uid) != Some(*host)).count();
    let cost = |places: &Places| (cut(&movable, &fixed, places), moved(places));
    let best = match anew {
        Some(anew) if cost(&anew).0 < cost(&stepwise).0 => anew,
        _ => stepwise,
    };
    best.into_iter()
        .filter(|(uid, host)| now.get(uid) != Some(host))
        .map(|(uid, host)| (uid, Some(host)))
        .collect()
}

/// How many links go between hosts. Those between two movable nodes count twice.
fn cut(movable: &[Need], fixed: &Places, places: &Places) -> u64 {
    let host_of = |uid: &NodeUid| places.get(uid).or_else(|| fixed.get(uid));
    let of = |need: &Need| -> u64 {
        let own = host_of(&need.uid);
        let apart =
            need.neighbours.iter().filter(|(other, _)| host_of(other).is_some_and(|h| Some(h) != own));
        let weight =
            |(other, n): (&NodeUid, &u32)| u64::from(*n) * if fixed.contains_key(other) { 2 } else { 1 };
        apart.map(weight).sum()
    };
    movable.iter().map(of).sum()
}

/// Moves one node after the other, that which saves most links first, until none saves any; then for balance.
fn step_by_step(movable: &[Need], fixed: &Places, now: Places, mut rooms: Vec<Room>) -> Places {
    let mut places = now;
    for need in movable {
        let own = places.get(&need.uid);
        if let Some(room) = rooms.iter_mut().find(|room| Some(&room.host) == own) {
            room.reserve(need.wants());
        }
    }
    let mut order: Vec<&Need> = movable.iter().collect();
    order.sort_by(|a, b| a.id.cmp(&b.id));
    for _ in 0..STEPS {
        let there: Places = fixed.iter().chain(&places).map(|(uid, host)| (*uid, host.clone())).collect();
        let mut best: Option<(u64, u128, usize, usize)> = None;
        for (i, need) in order.iter().enumerate() {
            let Some(from) = rooms.iter().find(|r| places.get(&need.uid) == Some(&r.host)) else { continue };
            let links_to = |host: &HostId| -> u64 {
                let is_there = |(other, _): &(&NodeUid, &u32)| there.get(other) == Some(host);
                need.neighbours.iter().filter(is_there).map(|(_, n)| u64::from(*n)).sum()
            };
            let had = links_to(&from.host);
            for (j, to) in rooms.iter().enumerate().filter(|(_, r)| r.host != from.host) {
                let has = links_to(&to.host);
                if has < had || to.rejects(need).or_else(|| apart(need, to, &there)).is_some() {
                    continue;
                }
                let mut then = to.clone();
                then.reserve(need.wants());
                let slope = fullness(from).saturating_sub(fullness(&then));
                let better = (has - had, slope);
                let counts = has > had || slope > SLOPE;
                if counts && best.is_none_or(|(links, slope, _, _)| better > (links, slope)) {
                    best = Some((better.0, better.1, i, j));
                }
            }
        }
        let Some((_, _, i, j)) = best else { break };
        let need = order[i];
        if let Some(from) = rooms.iter_mut().find(|r| places.get(&need.uid) == Some(&r.host)) {
            from.free_again(need.wants());
        }
        rooms[j].reserve(need.wants());
        places.insert(need.uid, rooms[j].host.clone());
    }
    places
}

/// How full the fuller part of a host is, in thousandths.
fn fullness(room: &Room) -> u128 {
    let part = |reserved: u64, all: u64| u128::from(reserved) * 1_000 / u128::from(all.max(1));
    let disk = room.disk_bytes.map_or(0, |all| part(room.disk_reserved, all));
    part(room.cpu_reserved, room.cpu_millis).max(part(room.memory_reserved, room.memory_bytes)).max(disk)
}

#[cfg(test)]
mod tests;
