//! What a lab was when an operation began, so that a cancel gives back just that. Pure.
//!
//! The spec that was last completed does not tell: an operation that failed leaves nodes of another spec running, and some set aside. So the places of all rows are written
//! down with the operation. Nothing that was there then is removed by a cancel, whatever is planned after it.

use std::collections::{BTreeMap, BTreeSet};

use netloom_model::id::{HostId, NodeUid};
use netloom_model::state::Wanted;
use serde::{Deserialize, Serialize};

use super::anew::leaves;
use crate::rows::{CertificateRow, ImageStep, LabRows, NodeRow, Resources};

/// What the nodes and links of a lab were.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Before {
    nodes: BTreeMap<NodeUid, Was>,
    /// Successors that could not be made, of which there is nothing.
    unmade: Vec<NodeRow>,
    /// Those that waited for room. What they asked for may not fit where something else that was asked for did.
    #[serde(default)]
    waiting: Vec<NodeRow>,
    /// Ids of the links that were unplugged on request.
    unplugged: BTreeSet<String>,
    /// Its certificates by node id in lower case, its authority's among them.
    #[serde(default)]
    certificates: Option<BTreeMap<String, CertificateRow>>,
}

/// What was asked of a node, and whether it stood beside the one that is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Was {
    wanted: Wanted,
    replaced: bool,
    image_step: ImageStep,
}

impl Before {
    /// What these rows are.
    pub fn of(rows: &LabRows) -> Before {
        let was = |n: &NodeRow| Was { wanted: n.wanted, replaced: n.replaced, image_step: n.image_step };
        let unplugged = rows.links.values().filter(|l| l.is_wanted() && !l.enabled);
        let unmade = rows.nodes.values().filter(|n| n.is_successor() && !n.placed);
        let waits = |n: &&NodeRow| n.wanted.stays() && !n.replaced && n.host.is_none() && !n.is_successor();
        Before {
            unmade: unmade.cloned().collect(),
            waiting: rows.nodes.values().filter(waits).cloned().collect(),
            nodes: rows.nodes.values().map(|n| (n.uid, was(n))).collect(),
            unplugged: unplugged.map(|l| l.id.clone()).collect(),
            certificates: Some(rows.certificates.clone()),
        }
    }

    /// Gives every node the place and the certificate that it had, and takes away those that were not there. What is being removed already, of which there was nothing, is left to the plan.
    ///
    /// One that waited for room and found it stays, unless it asks for something else again, or has what another one gave up that has it again.
    pub fn put_back(&self, rows: &mut LabRows) {
        let found = |n: &NodeRow| {
            let now = rows.nodes.get(&n.uid)?;
            Some((now.host.clone()?, now.spec != n.spec))
        };
        let found: Vec<(&NodeRow, HostId, bool)> =
            self.waiting.iter().filter_map(|n| found(n).map(|(host, other)| (n, host, other))).collect();
        let mut back = rows.kept.clone();
        for (node, host, _) in found.iter().filter(|(.., is_other)| !is_other) {
            let sum = back.entry(host.clone()).or_default();
            *sum = sum.plus(Resources::of(&node.spec));
        }
        let held = rows.reserved();
        let is_over = |host: &HostId| {
            let held = held.get(host).copied().unwrap_or_default();
            back.get(host).is_some_and(|back| back.most(held) != held)
        };
        let again = found.iter().filter(|(_, host, is_other)| *is_other || is_over(host)).map(|(n, ..)| *n);
        let unmade: Vec<&NodeRow> = self.unmade.iter().chain(again).collect();
        for node in rows.nodes.values_mut() {
            match self.nodes.get(&node.uid).filter(|_| !unmade.iter().any(|n| n.uid == node.uid)) {
                // It was to come back, and is back: so it is out of the way again.
                Some(was) if was.replaced && was.wanted.stays() && !node.replaced => {
                    leaves(node);
                    node.replaced = true;
                }
                Some(was) if node.wanted != Wanted::Absent => {
                    if !was.wanted.stays() {
                        leaves(node);
                    }
                    (node.wanted, node.replaced) = (was.wanted, was.replaced);
                    if node.is_successor() {
                        node.image_step = was.image_step;
                    }
                }
                Some(_) => {}
                None => {
                    leaves(node);
                    (node.wanted, node.replaced) = (Wanted::Absent, true);
                }
            }
        }
        // They may have been made since, so they are others. One that waited for room waits again.
        let unmade = unmade.into_iter().map(|n| NodeRow {
            uid: NodeUid::new(),
            image_step: if n.host.is_none() { n.image_step } else { ImageStep::Failed },
            ..n.clone()
        });
        rows.nodes.extend(unmade.map(|node| (node.uid, node)));
        if let Some(certificates) = &self.certificates {
            rows.certificates.clone_from(certificates);
        }
        for link in rows.links.values_mut().filter(|l| self.unplugged.contains(&l.id)) {
            link.enabled = false;
        }
    }
}
