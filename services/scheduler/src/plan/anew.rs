//! Nodes that are made, and made anew. Pure.
//!
//! What is there stays until its successor can be made. Until then the successor's row stands beside the one that is shown: its image and files are brought to
//! its host, and the host is asked whether it would take it. Only when that is known of everything that the lab is to get, they change places ([`take_over`]). So a
//! cancel before that, or an image that cannot be had, leaves the container that was there, with its disk, its interfaces and its links.

use std::collections::{BTreeMap, BTreeSet};

use netloom_model::id::{HostId, NodeId, NodeUid};
use netloom_model::kind::Catalogue;
use netloom_model::slice::spec_hash;
use netloom_model::spec::{NetworkMode, NodeSpec};
use netloom_model::state::{NodeState, Runtime, Wanted};

use super::{Context, links, new_wire_id, wire_up};
use crate::rows::{ImageStep, LabRows, NodeRow, Stages, network_of};

/// A node to be made.
pub(super) struct New {
    pub(super) id: NodeId,
    pub(super) spec: NodeSpec,
    pub(super) runtime: Runtime,
    pub(super) hash: String,
    pub(super) now: i64,
}

/// What was made so far.
#[derive(Default)]
pub(super) struct Made {
    /// The hosts of their former selves.
    pub(super) former: BTreeMap<NodeUid, HostId>,
    /// Their ids in lower case.
    pub(super) names: BTreeSet<String>,
    /// The successors that there are, by their ids in lower case.
    successors: BTreeMap<String, NodeUid>,
    /// Those that are still asked for.
    kept: BTreeSet<NodeUid>,
}

impl Made {
    /// Nothing yet, among these rows.
    pub(super) fn among(rows: &LabRows) -> Made {
        let successors = rows.nodes.values().filter(|n| n.is_successor());
        Made { successors: successors.map(|n| (n.id.folded(), n.uid)).collect(), ..Made::default() }
    }

    /// Adds the row of a new node; its former self, of which there is nothing or which is going anyway, is to be gone.
    pub(super) fn insert(&mut self, rows: &mut LabRows, new: New, former: Option<NodeUid>) {
        let former = former.and_then(|uid| rows.nodes.get_mut(&uid)).and_then(|old| {
            old.replaced = true;
            old.wanted = Wanted::Absent;
            old.host.clone()
        });
        let node = new.row();
        self.names.insert(node.id.folded());
        self.former.extend(former.map(|host| (node.uid, host)));
        rows.nodes.insert(node.uid, node);
    }

    /// Makes a node anew: at once when there is nothing of it, else by a successor. False when that is under way already, or failed and nobody asks for it again.
    pub(super) fn anew(&mut self, rows: &mut LabRows, new: New, former: NodeUid, asked: bool) -> bool {
        let stands = |old: &NodeRow| {
            old.image_step == ImageStep::Ready
                && old.runtime != Runtime::Bridge
                && new.runtime != Runtime::Bridge
        };
        let Some(host) = rows.nodes.get(&former).filter(|n| stands(n)).and_then(|n| n.host.clone()) else {
            self.insert(rows, new, Some(former));
            return true;
        };
        let folded = new.id.folded();
        self.names.insert(folded.clone());
        let same = |n: &NodeRow| n.spec_hash == new.hash && n.runtime == new.runtime && n.id == new.id;
        let there = self.successors.get(&folded).and_then(|uid| rows.nodes.get_mut(uid));
        if let Some(successor) = there.filter(|n| same(n)) {
            self.kept.insert(successor.uid);
            successor.spec = new.spec.into();
            let again = asked && successor.image_step == ImageStep::Failed;
            if again {
                successor.image_step = ImageStep::Waiting;
                successor.image_detail = String::new();
            }
            return again;
        }
        let node = NodeRow { replaced: true, ..new.row() };
        self.kept.insert(node.uid);
        self.former.insert(node.uid, host);
        rows.nodes.insert(node.uid, node);
        true
    }

    /// Drops the successors that nobody asks for any more. Nothing was made of them.
    pub(super) fn drop_others(&self, rows: &mut LabRows) {
        rows.nodes.retain(|uid, n| !n.is_successor() || self.kept.contains(uid));
    }
}

impl New {
    fn row(self) -> NodeRow {
        let bridge = self.runtime == Runtime::Bridge;
        NodeRow {
            uid: NodeUid::new(),
            id: self.id,
            replaced: false,
            runtime: self.runtime,
            wanted: Wanted::Running,
            spec: self.spec.into(),
            spec_hash: self.hash,
            host: None,
            // A bridge's name has room for 60 bits only.
            segment: bridge.then(|| new_wire_id(60)),
            rejections: Vec::new(),
            image_step: if bridge { ImageStep::Ready } else { ImageStep::Waiting },
            image_detail: String::new(),
            files: String::new(),
            removal: String::new(),
            settled_start: String::new(),
            restarts: 0,
            stages: Stages::default(),
            state: NodeState::Pending,
            reason: String::new(),
            observed: None,
            create_us: self.now,
            update_us: self.now,
        }
    }
}

/// Puts the successors that can be made in the places of those they succeed, once nothing of the lab is being prepared any more. Those that belong together, by a network
/// namespace or by what surrounds all of them, change together or not at all.
pub fn take_over(rows: &mut LabRows, catalogue: &Catalogue, now: i64) {
    if rows.is_preparing() || !rows.nodes.values().any(NodeRow::is_successor) {
        return;
    }
    for (uid, why) in kept_back(rows) {
        if let Some(node) = rows.nodes.get_mut(&uid) {
            node.image_step = ImageStep::Failed;
            node.image_detail = why;
        }
    }
    let ready = |n: &&NodeRow| n.is_successor() && n.host.is_some() && n.image_step == ImageStep::Ready;
    let able: BTreeMap<String, NodeUid> =
        rows.nodes.values().filter(ready).map(|n| (n.id.folded(), n.uid)).collect();
    if able.is_empty() {
        return;
    }
    for node in rows.nodes.values_mut() {
        match able.get(&node.id.folded()) {
            Some(uid) if *uid == node.uid => node.replaced = false,
            Some(_) if !node.replaced => {
                node.replaced = true;
                node.wanted = Wanted::Absent;
            }
            _ => {}
        }
    }
    let spec = rows.lab.spec.clone();
    let ctx = Context { catalogue, rooms: &[], asked: false, revive: false, now };
    links::links(rows, &spec, &spec, ctx, &mut Vec::new());
    wire_up(rows, ctx);
}

/// Successors that could be made, but for another one that cannot, and why they stay behind.
fn kept_back(rows: &LabRows) -> BTreeMap<NodeUid, String> {
    let successors: Vec<&NodeRow> = rows.nodes.values().filter(|n| n.is_successor()).collect();
    let can = |n: &NodeRow| n.host.is_some() && n.image_step == ImageStep::Ready;
    let mut stay: BTreeMap<String, String> = BTreeMap::new();
    for node in successors.iter().filter(|n| !can(n)) {
        stay.insert(node.id.folded(), String::new());
    }
    let Some(first) = stay.keys().next().cloned() else { return BTreeMap::new() };
    let everything =
        successors.iter().any(|n| rows.node(&n.id.folded()).is_some_and(|old| is_around(rows, old)));
    loop {
        let shares = |a: &NodeRow, b: &NodeRow| matches!(&a.spec.network_mode, NetworkMode::Node(owner) if owner.eq_ignore_ascii_case(b.id.as_str()));
        let with = |n: &NodeRow| {
            let other = successors
                .iter()
                .find(|o| stay.contains_key(&o.id.folded()) && (shares(n, o) || shares(o, n)));
            other.map(|o| o.id.folded()).or_else(|| everything.then(|| first.clone()))
        };
        let next = successors.iter().filter(|n| !stay.contains_key(&n.id.folded()));
        let Some((folded, other)) = next.filter_map(|n| Some((n.id.folded(), with(n)?))).next() else {
            break;
        };
        stay.insert(folded, format!("it changes together with {other}, which cannot be made anew"));
    }
    let told = |n: &&NodeRow| Some((n.uid, stay.get(&n.id.folded()).filter(|why| !why.is_empty())?.clone()));
    successors.iter().filter_map(told).collect()
}

/// True when what surrounds a node, its lab's management network or the names of its containers, is to be another: as long as one has the former, no other can have the new.
fn is_around(rows: &LabRows, old: &NodeRow) -> bool {
    let spec = &rows.lab.spec;
    let name = spec.instance_name(&rows.lab.id, &old.spec.id);
    let network = network_of(&rows.lab.id, spec);
    spec_hash(&name, &old.spec, &spec.files_of(&old.spec), network.as_ref()) != old.spec_hash
}
