//! What a dry run says beside its steps: where each node that it places goes, why not elsewhere, and which links go between hosts. Pure.

use std::collections::BTreeMap;

use netloom_model::id::{HostId, NodeUid};
use netloom_model::plan::Placement;
use netloom_model::spec::LabSpec;

use super::rooms::{Keep, kept_of, rooms_for};
use super::{Planned, needs};
use crate::place::{Room, others};
use crate::rows::LabRows;

/// Most reasons that are told in all: thousands of nodes on hundreds of hosts have more than anybody reads.
const MOST: usize = 10_000;

/// Completes the plan from the rows before it, and what all hosts offer beside this lab's reservations.
pub fn explain(before: &LabRows, planned: &mut Planned, spec: &LabSpec, rooms: &[Room]) {
    let rows = &planned.rows;
    let is_new = |uid: NodeUid| before.nodes.get(&uid).is_none_or(|n| n.host.is_none());
    let mut needs =
        needs(rows, spec, &BTreeMap::new(), |n| n.wanted.stays() && n.host.is_some() && is_new(n.uid));
    needs.sort_by(|a, b| a.id.cmp(&b.id));
    let there: BTreeMap<NodeUid, HostId> =
        rows.asked_for().into_iter().filter_map(|n| Some((n.uid, n.host.clone()?))).collect();
    let rooms = rooms_for(rows, &kept_of(rows, Keep::UntilKnown, |n| n.host.as_ref()), rooms);
    let mut left = MOST;
    let placements = needs.iter().filter_map(|need| {
        let host = there.get(&need.uid)?;
        left = left.saturating_sub(rooms.len());
        let others = if left > 0 { others(need, host, &there, &rooms) } else { Vec::new() };
        Some(Placement { node: need.id.clone(), host: host.to_string(), others })
    });
    planned.plan.placements = placements.collect();
    let hosts: BTreeMap<&str, &HostId> =
        rows.asked_for().into_iter().filter_map(|n| Some((n.spec.id.as_str(), n.host.as_ref()?))).collect();
    let is_cut = |link: &&netloom_model::spec::LinkSpec| {
        let mut ends = link.node_ends().filter_map(|end| hosts.get(end.node.as_str()));
        matches!((ends.next(), ends.next()), (Some(a), Some(b)) if a != b)
    };
    planned.plan.cut = spec.links.iter().filter(is_cut).map(|link| link.id()).collect();
    planned.plan.cut.sort();
}
