//! What starting, stopping, restarting, wiping and restoring nodes does to the rows. Pure.
//!
//! The spec stays: what is asked of a node is intent. A node that shares the network namespace of another one goes with it, since that namespace is made anew
//! at each start. What is to take a node's place, and waits for room or its image, is asked the same: else who stops a node would have it run once there is room.

use std::collections::{BTreeMap, BTreeSet};

use netloom_model::id::NodeUid;
use netloom_model::plan::{Action, Object, Plan, Verb};
use netloom_model::spec::NetworkMode;
use netloom_model::state::{NodeState, Wanted};

use super::action;
use crate::rows::{LabRows, NodeRow};

/// What is done to nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeChange {
    /// They are started.
    Start,
    /// They are stopped.
    Stop,
    /// They are stopped and started again.
    Restart,
    /// Their disks are thrown away; those that are to run are stopped and started again.
    Wipe,
    /// They are started from the snapshot of this name.
    Restore(String),
}

/// Changes what is asked of these nodes, and says what differs: nothing for one that is as asked already.
pub fn change_nodes(rows: &mut LabRows, uids: &BTreeSet<NodeUid>, change: &NodeChange) -> Plan {
    let mut actions: Vec<Action> = Vec::new();
    let mut done = BTreeSet::new();
    let comes = rows.nodes.values().filter(|n| n.is_successor() && n.wanted == Wanted::Running);
    let comes: BTreeSet<String> = comes.map(|n| n.id.folded()).collect();
    let named = rows.nodes.values_mut().filter(|n| n.is_wanted() && uids.contains(&n.uid));
    for node in named {
        let is_to_run = node.wanted == Wanted::Running || comes.contains(&node.id.folded());
        let Some((verb, reason)) = asked_for(node, is_to_run, change) else { continue };
        apply(node, verb);
        if let NodeChange::Restore(snapshot) = change {
            node.restore.clone_from(snapshot);
        }
        done.insert(node.uid);
        actions.push(of_node(node, verb, reason));
    }
    while let Some((uid, verb, reason)) = next_follower(rows, &done, change) {
        let Some(node) = rows.nodes.get_mut(&uid) else { break };
        apply(node, verb);
        done.insert(uid);
        actions.push(of_node(node, verb, reason));
    }
    let shown = rows.nodes.values().filter(|n| done.contains(&n.uid));
    let asked: BTreeMap<String, Wanted> = shown.map(|n| (n.id.folded(), n.wanted)).collect();
    for node in rows.nodes.values_mut().filter(|n| n.is_successor()) {
        node.wanted = asked.get(&node.id.folded()).copied().unwrap_or(node.wanted);
    }
    actions.sort_by(|a, b| a.id.cmp(&b.id));
    Plan { actions, ..Plan::default() }
}

/// What a change asks of a node, and why; none when it is as asked. It or what comes in its place `is_to_run`.
fn asked_for(node: &NodeRow, is_to_run: bool, change: &NodeChange) -> Option<(Verb, String)> {
    let stopped = node.wanted == Wanted::Stopped;
    match change {
        NodeChange::Stop => is_to_run.then(|| (Verb::Stop, "asked for".to_owned())),
        NodeChange::Start if stopped => Some((Verb::Start, "it was stopped".to_owned())),
        NodeChange::Start if node.state == NodeState::Stopped => {
            Some((Verb::Start, "its process had ended".to_owned()))
        }
        NodeChange::Start if node.state == NodeState::Failed => {
            Some((Verb::Start, format!("it failed: {}", node.reason)))
        }
        NodeChange::Start => None,
        NodeChange::Restart if stopped => Some((Verb::Start, "it was stopped".to_owned())),
        NodeChange::Restart => Some((Verb::Restart, "asked for".to_owned())),
        NodeChange::Wipe => Some((Verb::Wipe, "asked for".to_owned())),
        NodeChange::Restore(snapshot) => Some((Verb::Restore, format!("from snapshot {snapshot}"))),
    }
}

/// Sets what is asked of a node.
pub(super) fn apply(node: &mut NodeRow, verb: Verb) {
    node.wipes += u64::from(verb == Verb::Wipe);
    let stays_stopped = verb == Verb::Wipe && node.wanted == Wanted::Stopped;
    if verb == Verb::Stop || stays_stopped {
        node.wanted = Wanted::Stopped;
    } else {
        node.wanted = Wanted::Running;
        // Also for one that does not run: what hosts say of the time before does not count.
        node.restarts += 1;
        node.restore = String::new();
    }
}

/// The next node that shares the namespace of one that was changed, and what becomes of it.
fn next_follower(
    rows: &LabRows,
    done: &BTreeSet<NodeUid>,
    change: &NodeChange,
) -> Option<(NodeUid, Verb, String)> {
    let moved =
        |id: &str| rows.nodes.values().any(|n| n.is_wanted() && n.spec.id == id && done.contains(&n.uid));
    let runs = rows.nodes.values().filter(|n| n.wanted == Wanted::Running && n.is_wanted());
    runs.filter(|n| !done.contains(&n.uid)).find_map(|node| {
        let NetworkMode::Node(owner) = &node.spec.network_mode else { return None };
        let verb = if *change == NodeChange::Stop { Verb::Stop } else { Verb::Restart };
        moved(owner).then(|| (node.uid, verb, format!("it shares the network namespace of {owner}")))
    })
}

fn of_node(node: &NodeRow, verb: Verb, reason: String) -> Action {
    let mut action = action(verb, Object::Node, node.id.as_str(), reason);
    action.host = node.host.as_ref().map(ToString::to_string).unwrap_or_default();
    action
}
