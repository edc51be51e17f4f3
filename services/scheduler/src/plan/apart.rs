//! Which nodes are never on one host. Pure.

use std::collections::BTreeMap;

use netloom_model::id::NodeUid;
use netloom_model::spec::NetworkMode;

use crate::rows::{LabRows, NodeRow};

/// The nodes, with their ids, that each is apart from, both ways: who says it does not matter. Nodes of one network namespace are on one host, so what one of them is
/// apart from, all of them are. Of a node and its successor it is the successor that counts: where it goes is where the node will be.
pub(super) fn apart(
    rows: &LabRows,
    uids: &BTreeMap<&str, NodeUid>,
) -> BTreeMap<NodeUid, BTreeMap<NodeUid, String>> {
    let asked = rows.asked_for();
    let owner = |node: &NodeRow| match &node.spec.network_mode {
        NetworkMode::Node(owner) => uids.get(owner.as_str()).copied().unwrap_or(node.uid),
        _ => node.uid,
    };
    let mut all: BTreeMap<NodeUid, BTreeMap<NodeUid, String>> = BTreeMap::new();
    if asked.iter().all(|n| n.spec.placement.apart_from.is_empty()) {
        return all;
    }
    let mut together: BTreeMap<NodeUid, Vec<&NodeRow>> = BTreeMap::new();
    for &node in &asked {
        together.entry(owner(node)).or_default().push(node);
    }
    for &node in &asked {
        for other in node.spec.placement.apart_from.iter().filter_map(|id| uids.get(id.as_str())) {
            let Some(other) = rows.nodes.get(other) else { continue };
            let sides = [node, other].map(|n| together.get(&owner(n)).map(Vec::as_slice).unwrap_or_default());
            for (a, b) in sides[0].iter().flat_map(|a| sides[1].iter().map(move |b| (a, b))) {
                all.entry(a.uid).or_default().insert(b.uid, b.id.to_string());
                all.entry(b.uid).or_default().insert(a.uid, a.id.to_string());
            }
        }
    }
    all
}
