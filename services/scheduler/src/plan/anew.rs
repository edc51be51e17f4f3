//! Nodes that are made, and made anew. Pure.
//!
//! What is there stays until its successor can be made. Until then the successor's row stands beside the one that is shown: its image and files are brought to
//! its host, and the host is asked whether it would take it. Only when that is known of everything that the lab is to get, they change places ([`take_over`]). So a
//! cancel before that, or an image that cannot be had, leaves the container that was there, with its disk, its interfaces and its links.
//!
//! ```text
//! successor ─► shown ─► set aside ─► to be gone: an operation succeeded, or the lab goes
//!     ▲                     │
//!     └─────────────────────┘ it is asked for again: by a cancel ([`Before`](super::Before)), or by its former spec
//! ```
//!
//! What changed places with its successor is set aside: out of the way, with all that its programs wrote. What is asked for and stands aside is not made, it comes back.

use std::collections::{BTreeMap, BTreeSet};

use netloom_model::id::{HostId, NodeId, NodeUid};
use netloom_model::kind::Catalogue;
use netloom_model::shared::Shared;
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

/// What became of a node that is to be another.
pub(super) enum Anew {
    /// It is made.
    Made,
    /// It comes back: it was set aside.
    Back,
    /// That is under way already, or failed and nobody asks for it again.
    AsBefore,
}

/// What was made so far.
pub(super) struct Made {
    /// The hosts of their former selves.
    pub(super) former: BTreeMap<NodeUid, HostId>,
    /// Their ids in lower case.
    pub(super) names: BTreeSet<String>,
    /// The successors that there are, by their ids in lower case.
    successors: BTreeMap<String, NodeUid>,
    /// Those that are still asked for.
    kept: BTreeSet<NodeUid>,
    /// The hashes that are asked for, by ids in lower case.
    asked: BTreeMap<String, String>,
    /// True when what failed before is tried again: a user asks.
    by_user: bool,
    /// True when what was stopped is to run.
    revive: bool,
}

/// Takes a node out of the lab: aside, since it may be asked to come back, when there may be something of it.
pub(super) fn leaves(node: &mut NodeRow) {
    if !node.wanted.stays() {
        return;
    }
    let has_disk =
        node.runtime != Runtime::Bridge && node.host.is_some() && node.image_step == ImageStep::Ready;
    node.wanted = if has_disk { Wanted::Aside } else { Wanted::Absent };
    // By the time it is back, its files there are another's.
    node.files = String::new();
}

impl Made {
    /// Nothing yet, among these rows; these hashes are asked for.
    pub(super) fn among(rows: &LabRows, asked: BTreeMap<String, String>, ctx: Context<'_>) -> Made {
        let successors = rows.nodes.values().filter(|n| n.is_successor());
        Made {
            former: BTreeMap::new(),
            names: BTreeSet::new(),
            successors: successors.map(|n| (n.id.folded(), n.uid)).collect(),
            kept: BTreeSet::new(),
            asked,
            by_user: ctx.asked,
            revive: ctx.revive,
        }
    }

    /// Adds the row of a new node; its former self leaves.
    pub(super) fn insert(&mut self, rows: &mut LabRows, new: New, former: Option<NodeUid>) {
        let former = former.and_then(|uid| rows.nodes.get_mut(&uid)).and_then(|old| {
            old.replaced = true;
            leaves(old);
            old.host.clone()
        });
        let node = new.row();
        self.names.insert(node.id.folded());
        self.former.extend(former.map(|host| (node.uid, host)));
        rows.nodes.insert(node.uid, node);
    }

    /// Makes a node anew: as what was set aside of it, at once when there is nothing of it, else by a successor.
    pub(super) fn anew(&mut self, rows: &mut LabRows, new: New, former: NodeUid) -> Anew {
        let folded = new.id.folded();
        let there = self.successors.get(&folded).and_then(|uid| rows.nodes.get_mut(uid));
        if let Some(successor) = there.filter(|n| new.is(n)) {
            self.names.insert(folded);
            self.kept.insert(successor.uid);
            successor.spec = new.spec.into();
            if self.revive {
                successor.wanted = Wanted::Running;
            }
            let again = self.by_user && successor.image_step == ImageStep::Failed;
            if !again {
                return Anew::AsBefore;
            }
            successor.image_step = ImageStep::Waiting;
            successor.image_detail = String::new();
            return Anew::Made;
        }
        if let Some(back) = self.set_aside(rows, &new).and_then(|uid| rows.nodes.get_mut(&uid)) {
            self.names.insert(folded);
            self.kept.insert(back.uid);
            (back.wanted, back.replaced, back.spec) = (Wanted::Running, true, new.spec.into());
            return Anew::Back;
        }
        let stands = |old: &NodeRow| {
            old.wanted.stays()
                && old.image_step == ImageStep::Ready
                && old.runtime != Runtime::Bridge
                && new.runtime != Runtime::Bridge
        };
        let Some(host) = rows.nodes.get(&former).filter(|n| stands(n)).and_then(|n| n.host.clone()) else {
            self.insert(rows, new, Some(former));
            return Anew::Made;
        };
        self.names.insert(folded);
        let node = NodeRow { replaced: true, placed: false, ..new.row() };
        self.kept.insert(node.uid);
        self.former.insert(node.uid, host);
        rows.nodes.insert(node.uid, node);
        Anew::Made
    }

    /// What was set aside and is what is asked for.
    fn set_aside(&self, rows: &LabRows, new: &New) -> Option<NodeUid> {
        let fits = |n: &&NodeRow| n.is_aside() && new.is(n) && self.finds_its_owner(rows, n);
        rows.nodes.values().filter(fits).max_by_key(|n| n.create_us).map(|n| n.uid)
    }

    /// True unless it was made to share a network namespace that is not there any more, and does not come back with it: a container cannot have another.
    pub(super) fn finds_its_owner(&self, rows: &LabRows, node: &NodeRow) -> bool {
        let NetworkMode::Node(owner) = &node.spec.network_mode else { return true };
        let there = node.shares.and_then(|uid| rows.nodes.get(&uid));
        let is_asked = |o: &NodeRow| self.asked.get(&owner.to_ascii_lowercase()) == Some(&o.spec_hash);
        there.is_some_and(|o| is_asked(o) && self.finds_its_owner(rows, o))
    }

    /// Drops the successors that nobody asks for any more: nothing was made of them, except of those that were to come back, whether they are seen just now or not.
    pub(super) fn drop_others(&self, rows: &mut LabRows) {
        let dropped = |n: &NodeRow| n.is_successor() && !self.kept.contains(&n.uid);
        rows.nodes.retain(|_, n| !dropped(n) || n.placed);
        for node in rows.nodes.values_mut().filter(|n| dropped(n)) {
            (node.wanted, node.files) = (Wanted::Aside, String::new());
        }
    }
}

/// Notes of what is to be made whose network namespace it will share. Of what was made that is told already.
pub(super) fn note_owners(rows: &mut LabRows) {
    let uids: BTreeMap<String, NodeUid> =
        rows.asked_for().into_iter().map(|n| (n.id.folded(), n.uid)).collect();
    let is_open = |n: &&mut Shared<NodeRow>| n.wanted.stays() && (!n.placed || n.shares.is_none());
    for node in rows.nodes.values_mut().filter(is_open) {
        if let NetworkMode::Node(owner) = &node.spec.network_mode {
            node.shares = uids.get(&owner.to_ascii_lowercase()).copied();
        }
    }
}

impl New {
    /// True of a row that is this very node.
    pub(super) fn is(&self, row: &NodeRow) -> bool {
        row.spec_hash == self.hash && row.runtime == self.runtime && row.id == self.id
    }

    pub(super) fn row(self) -> NodeRow {
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
            image_digest: String::new(),
            files: String::new(),
            own_files: Vec::new(),
            placed: true,
            shares: None,
            removal: String::new(),
            settled_start: String::new(),
            restarts: 0,
            wipes: 0,
            restore: String::new(),
            disk_of: None,
            disk_due: false,
            stages: Stages::default(),
            state: NodeState::Pending,
            reason: String::new(),
            observed: None,
            create_us: self.now,
            update_us: self.now,
        }
    }
}

/// Puts the successors that can be made in the places of those they succeed, once nothing of the lab is being prepared any more; those leave. Those that
/// belong together, by a network namespace or by what surrounds all of them, change together or not at all.
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
    let shown: Vec<(NodeUid, String)> =
        rows.nodes.values().filter(|n| !n.replaced).map(|n| (n.uid, n.id.folded())).collect();
    for (old, folded) in shown {
        if let Some(new) = able.get(&folded) {
            swap(rows, old, *new);
        }
    }
    let spec = rows.lab.spec.clone();
    let ctx = Context { catalogue, rooms: &[], asked: false, revive: false, now };
    links::links(rows, &spec, &spec, ctx, &mut Vec::new());
    wire_up(rows, ctx);
}

/// Puts a successor in the place of the node that it succeeds, which leaves.
pub(super) fn swap(rows: &mut LabRows, old: NodeUid, new: NodeUid) {
    if let Some(old) = rows.nodes.get_mut(&old) {
        old.replaced = true;
        leaves(old);
    }
    if let Some(new) = rows.nodes.get_mut(&new) {
        (new.replaced, new.placed) = (false, true);
    }
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

#[cfg(test)]
mod tests;
