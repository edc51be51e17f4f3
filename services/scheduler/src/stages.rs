//! Stages: what a node's start waits for, and how far it is. Pure.
//!
//! ```text
//! create ─► create-links ─► configure ─► healthy ─► exit      of each node, side by side
//!    └ waits for stages of other nodes to be over; commands are run as a stage is entered and when it is over
//! ```
//!
//! A stage is entered when the one before it is over and everything it waits for is. What was entered once stays so for as long as the node's row lives: a node
//! that is started again waits for nobody. What *comes about* is judged of each start anew, from what hosts read back.
//!
//! | stage | comes about when |
//! |---|---|
//! | create | its process runs |
//! | create-links | its links are settled: up, or nothing better comes of them |
//! | configure | its exec commands were run |
//! | healthy | its health check says so; without one at once |
//! | exit | its process ended by itself |
//!
//! It is over when its commands were run too. What waits for something that cannot come about any more, is told so and no operation waits for it.

use std::collections::{BTreeMap, BTreeSet};

use netloom_model::id::NodeUid;
use netloom_model::observed::{ExecPhase, Observed, Phase, StagePoint};
use netloom_model::spec::{Healthcheck, Stage, StageWait};
use netloom_model::state::{NodeState, Runtime, Wanted};

use crate::rows::{LabRows, NodeRow};

/// True when a node of the lab says something of stages.
pub fn any(rows: &LabRows) -> bool {
    rows.nodes.values().any(|n| n.is_wanted() && !n.spec.stages.is_empty())
}

/// Notes which stages were entered and are over. Nodes' evidence is in the rows.
pub fn advance(rows: &mut LabRows) {
    if !any(rows) {
        return;
    }
    let uids: Vec<NodeUid> = rows.nodes.values().filter(|n| n.is_wanted()).map(|n| n.uid).collect();
    // Each pass takes what the one before made possible; a stage is noted once, so this ends.
    while uids.iter().any(|uid| advance_one(rows, *uid)) {}
}

fn advance_one(rows: &mut LabRows, uid: NodeUid) -> bool {
    let Some(node) = rows.nodes.get(&uid) else { return false };
    let mut stages = node.stages.clone();
    for stage in Stage::ALL {
        let may = before(stage).is_none_or(|s| stages.over.contains(&s));
        if may && !stages.entered.contains(&stage) && unmet(rows, node, stage).is_empty() {
            stages.entered.insert(stage);
        }
        // A process ends whenever it likes.
        let entered = stages.entered.contains(&stage) || stage == Stage::Exit;
        if entered && came_about(node, stage, is_settled(node)) && commands_done(node, stage) {
            stages.over.insert(stage);
        }
    }
    let changed = stages != node.stages;
    if let Some(node) = rows.nodes.get_mut(&uid).filter(|_| changed) {
        node.stages = stages;
    }
    changed
}

fn before(stage: Stage) -> Option<Stage> {
    Stage::ALL.into_iter().take_while(|s| *s != stage).last()
}

/// The waits of a stage that are not over; none once it was entered.
fn unmet<'r>(rows: &LabRows, node: &'r NodeRow, stage: Stage) -> Vec<&'r StageWait> {
    if node.stages.entered.contains(&stage) {
        return Vec::new();
    }
    let of_stage = node.spec.stages.iter().filter(|s| s.stage == stage).flat_map(|s| &s.wait_for);
    of_stage.filter(|wait| other(rows, wait).is_none_or(|n| !n.stages.over.contains(&wait.stage))).collect()
}

fn other<'r>(rows: &'r LabRows, wait: &StageWait) -> Option<&'r NodeRow> {
    rows.nodes.values().find(|n| n.is_wanted() && n.spec.id == wait.node)
}

/// True while a node's process must not be started.
pub fn is_held(rows: &LabRows, node: &NodeRow) -> bool {
    !unmet(rows, node, Stage::Create).is_empty()
}

/// True while a node's links must not be made: they wait for others, or for the commands that are run before them.
pub fn are_links_held(rows: &LabRows, node: &NodeRow) -> bool {
    let entry = StagePoint { stage: Stage::CreateLinks, on_exit: false };
    let commands_first = has_commands(node, entry) && !node.stages.over.contains(&Stage::CreateLinks);
    let were_run = || current(node).is_some_and(|o| o.stages_done.contains(&entry));
    !unmet(rows, node, Stage::CreateLinks).is_empty() || (commands_first && !were_run())
}

/// True when nobody is to wait for links of this node: its stages keep them back.
pub fn keeps_links_back(rows: &LabRows, node: &NodeRow) -> bool {
    !node.spec.stages.is_empty() && (is_held(rows, node) || are_links_held(rows, node))
}

fn current(node: &NodeRow) -> Option<&Observed> {
    node.observed.as_deref().filter(|o| o.phase == Phase::Running && !o.start_id.is_empty())
}

/// True when the links of the current start were said to be settled.
fn is_settled(node: &NodeRow) -> bool {
    current(node).is_some_and(|o| o.start_id == node.settled_start)
}

/// True when what a stage is about is there, as far as hosts read back.
fn came_about(node: &NodeRow, stage: Stage, links_settled: bool) -> bool {
    if node.runtime == Runtime::Bridge {
        return stage != Stage::Exit && node.state == NodeState::Ready;
    }
    if stage == Stage::Exit {
        return node.observed.as_deref().is_some_and(|o| o.exited);
    }
    if stage == Stage::Create && node.observed.as_deref().is_some_and(|o| o.exited) {
        return true;
    }
    let Some(o) = current(node) else { return false };
    match stage {
        Stage::Create => true,
        Stage::CreateLinks => links_settled,
        Stage::Configure => matches!(o.exec_phase, ExecPhase::Done | ExecPhase::Failed),
        Stage::Healthy => o.health == "healthy" || (o.health.is_empty() && !is_checked(node)),
        Stage::Exit => false,
    }
}

/// True when the node itself says how its health is told; one of its image's shows in what is read back.
fn is_checked(node: &NodeRow) -> bool {
    let none = |h: &Healthcheck| h.test.first().is_none_or(|word| word == "NONE");
    node.spec.healthcheck.as_ref().is_some_and(|h| !none(h))
}

fn has_commands(node: &NodeRow, point: StagePoint) -> bool {
    let of_stage = node.spec.stages.iter().filter(|s| s.stage == point.stage).flat_map(|s| &s.exec);
    of_stage.into_iter().any(|e| e.on_exit == point.on_exit)
}

/// True when the commands of a stage were run in the current start. Those of a process that ended can be run no more.
fn commands_done(node: &NodeRow, stage: Stage) -> bool {
    if stage == Stage::Exit {
        return true;
    }
    let done = |point: StagePoint| current(node).is_some_and(|o| o.stages_done.contains(&point));
    [false, true]
        .into_iter()
        .map(|on_exit| StagePoint { stage, on_exit })
        .all(|p| !has_commands(node, p) || done(p))
}

/// The points that the current start of a node reached, in order, up to the last at which there is something to run.
pub fn reached(rows: &LabRows, node: &NodeRow, links_settled: bool) -> Vec<StagePoint> {
    let mut all = Vec::new();
    if current(node).is_none() {
        return all;
    }
    for stage in Stage::ALL {
        if !unmet(rows, node, stage).is_empty() {
            break;
        }
        all.push(StagePoint { stage, on_exit: false });
        if !came_about(node, stage, links_settled) || stage == Stage::Exit {
            break;
        }
        all.push(StagePoint { stage, on_exit: true });
    }
    let runs = |p: &StagePoint| (p.stage == Stage::Configure && !p.on_exit) || has_commands(node, *p);
    all.truncate(all.iter().rposition(runs).map_or(0, |last| last + 1));
    all
}

/// What each node waits for, in words, and whether that cannot come about any more.
pub fn waits(rows: &LabRows) -> BTreeMap<NodeUid, Waiting> {
    if !any(rows) {
        return BTreeMap::new();
    }
    let waiting: Vec<(&NodeRow, Stage, Vec<&StageWait>)> = rows
        .nodes
        .values()
        .filter(|n| n.is_wanted() && n.wanted == Wanted::Running)
        .filter_map(|n| {
            Stage::ALL.into_iter().map(|s| (n, s, unmet(rows, n, s))).find(|(_, _, unmet)| !unmet.is_empty())
        })
        .collect();
    let mut hopeless: BTreeMap<NodeUid, String> = BTreeMap::new();
    loop {
        let before = hopeless.len();
        for (node, _, unmet) in &waiting {
            if let Some(why) = unmet.iter().find_map(|wait| cannot(rows, wait, &hopeless)) {
                hopeless.entry(node.uid).or_insert(why);
            }
        }
        if hopeless.len() == before {
            break;
        }
    }
    waiting
        .into_iter()
        .map(|(node, stage, unmet)| {
            let said =
                |w: &&StageWait| format!("{} {}{}", w.node, to_be(w.stage), but(other(rows, w), w.stage));
            let what: Vec<String> = unmet.iter().map(said).collect();
            let what = format!("waits for {}", what.join(" and "));
            let (reason, hopeless) = match hopeless.get(&node.uid) {
                Some(why) => (format!("{what}, which cannot come about: {why}"), true),
                None => (what, false),
            };
            (node.uid, Waiting { stage, reason, hopeless })
        })
        .collect()
}

/// What a node waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The stage that it waits to enter.
    pub stage: Stage,
    /// For what, in words.
    pub reason: String,
    /// True when that cannot come about as things are.
    pub hopeless: bool,
}

fn to_be(stage: Stage) -> &'static str {
    match stage {
        Stage::Create => "to be created",
        Stage::CreateLinks => "to have its links",
        Stage::Configure => "to be configured",
        Stage::Healthy => "to be healthy",
        Stage::Exit => "to end",
    }
}

/// What speaks against it just now.
fn but(node: Option<&NodeRow>, stage: Stage) -> &'static str {
    let health = node.and_then(current).map(|o| o.health.as_str());
    if stage == Stage::Healthy && health == Some("unhealthy") { " (its health check fails)" } else { "" }
}

/// Why a wait cannot come to its end as things are, if so.
fn cannot(rows: &LabRows, wait: &StageWait, hopeless: &BTreeMap<NodeUid, String>) -> Option<String> {
    let Some(node) = other(rows, wait) else { return Some(format!("there is no node {}", wait.node)) };
    match node.state {
        NodeState::Failed | NodeState::Unschedulable | NodeState::Stopped => {
            Some(format!("{} is {}", node.id, node.state))
        }
        _ if node.wanted == Wanted::Stopped => Some(format!("{} is being stopped", node.id)),
        // One that waits to be configured for ever is created all the same.
        _ => {
            let stuck = Stage::ALL.into_iter().find(|s| !unmet(rows, node, *s).is_empty());
            let behind =
                stuck.is_some_and(|s| wait.stage != Stage::Exit && wait.stage >= s || s == Stage::Create);
            hopeless.get(&node.uid).filter(|_| behind).map(|_| format!("{} waits for ever", node.id))
        }
    }
}

/// True while a stage of a running node that says something of it is still to come: an operation waits for it. What happens when a process ends is waited for by
/// those who said so.
pub fn is_unfinished(node: &NodeRow) -> bool {
    if node.wanted != Wanted::Running || !node.state.is_running() {
        return false;
    }
    let told: BTreeSet<Stage> = node
        .spec
        .stages
        .iter()
        .filter(|s| s.stage != Stage::Exit && !(s.wait_for.is_empty() && s.exec.is_empty()))
        .map(|s| s.stage)
        .collect();
    told.into_iter().any(|s| !node.stages.over.contains(&s))
}

#[cfg(test)]
mod tests;
