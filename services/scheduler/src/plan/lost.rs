//! What is made anew elsewhere of a host that fell silent, and when. Pure.
//!
//! A lab says after what time (`reschedule-after`). Its containers have a lease of two thirds of that on their hosts: a host that hears nothing for so long stops them by itself, and has the last
//! third for that. Leases go on from a word of the host that was heard here, so when the whole time has passed since the last one, they are over there, also where the last renewal was lost or
//! came late.
//!
//! Only what its host said to keep just the lease for that is asked for now is given up. Of a host of an earlier version, of what was made just before it fell silent, and where the lab's time was changed since,
//! it is not known what the host does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use netloom_model::id::{HostId, NodeUid};
use netloom_model::slice::Lease;
use netloom_model::state::{Runtime, Wanted};

use super::moves::with_sharers;
use crate::rows::{LabRows, NodeRow};

/// The lease that a node has on its host. What has a disk of its own there waits for it, and what is stopped does no harm.
pub fn lease(rows: &LabRows, node: &NodeRow) -> Option<Lease> {
    let seconds = rows.lab.spec.reschedule_after_seconds / 3 * 2;
    let may_go = node.runtime == Runtime::Docker && node.wanted == Wanted::Running;
    (may_go && seconds > 0).then_some(Lease { seconds, generation: rows.lab.leases })
}

/// The nodes on a host that are to be made anew elsewhere, when nothing was heard of it for so long.
pub fn given_up(rows: &LabRows, host: &HostId, silent: Duration) -> BTreeMap<NodeUid, Option<HostId>> {
    let after = rows.lab.spec.reschedule_after_seconds;
    if after == 0 || silent < Duration::from_secs(after.into()) {
        return BTreeMap::new();
    }
    let there = || rows.nodes.values().filter(|n| n.is_wanted() && n.host.as_ref() == Some(host));
    let is_kept = |n: &NodeRow| {
        let asked = lease(rows, n);
        asked.is_some() && n.observed.as_deref().is_some_and(|seen| seen.lease == asked)
    };
    let mut all: BTreeMap<NodeUid, Option<HostId>> = BTreeMap::new();
    for node in there().filter(|n| is_kept(n)) {
        // They go together, or not at all.
        let with = with_sharers(rows, &[(node.uid, None)].into());
        if with.keys().filter_map(|uid| rows.nodes.get(uid)).all(is_kept) {
            all.insert(node.uid, None);
        }
    }
    // A segment goes where it is needed: what is left of it there carries nothing to where its links are then.
    let here: BTreeSet<String> =
        there().filter(|n| !all.contains_key(&n.uid)).map(|n| n.id.folded()).collect();
    let is_needed = |bridge: &NodeRow| {
        let links =
            rows.lab.spec.links.iter().filter(|l| l.node_ends().any(|end| end.node == bridge.spec.id));
        links.flat_map(|l| l.node_ends()).any(|end| !here.contains(&end.node.to_ascii_lowercase()))
    };
    let bridges = there().filter(|n| n.runtime == Runtime::Bridge && is_needed(n)).map(|n| (n.uid, None));
    all.extend(bridges.collect::<Vec<_>>());
    all
}

#[cfg(test)]
mod tests;
