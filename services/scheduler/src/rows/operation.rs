//! The rows of operations.

use netloom_model::Failure;
use netloom_model::id::{LabId, LabUid, OperationId};
use netloom_model::plan::{Plan, Progress};
use serde::{Deserialize, Serialize};

use super::LabRows;

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OperationKind {
    /// Brings a lab to its spec.
    Deploy,
    /// Changes a link of a lab's spec, and the lab with it.
    Edit,
    /// Removes a lab.
    Destroy,
    /// Starts nodes.
    Start,
    /// Stops nodes.
    Stop,
    /// Stops nodes and starts them again.
    Restart,
    /// Throws away the disks of nodes.
    Wipe,
    /// Starts nodes from snapshots.
    Restore,
    /// Moves nodes to other hosts.
    Move,
}

impl OperationKind {
    /// True for one that is about some nodes of a lab, and leaves its spec alone.
    pub fn is_of_nodes(self) -> bool {
        use OperationKind as K;
        matches!(self, K::Start | K::Stop | K::Restart | K::Wipe | K::Restore)
    }

    /// True for one that keeps what it replaces until that which takes its place is known to work.
    pub fn replaces(self) -> bool {
        matches!(self, OperationKind::Deploy | OperationKind::Move)
    }

    /// True for one that writes another spec.
    pub fn is_of_spec(self) -> bool {
        matches!(self, OperationKind::Deploy | OperationKind::Edit)
    }

    /// What it does to a lab, in words: "deploys".
    pub fn words(self) -> &'static str {
        match self {
            OperationKind::Deploy => "deploys",
            OperationKind::Edit => "changes a link of",
            OperationKind::Destroy => "removes",
            OperationKind::Start => "starts nodes of",
            OperationKind::Stop => "stops nodes of",
            OperationKind::Restart => "restarts nodes of",
            OperationKind::Wipe => "wipes nodes of",
            OperationKind::Restore => "restores nodes of",
            OperationKind::Move => "moves nodes of",
        }
    }
}

/// The state of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OperationState {
    /// Under way.
    Running,
    /// Everything it was for is there, or gone.
    Succeeded,
    /// Ended with something failed or unschedulable.
    Failed,
    /// Taken back.
    Cancelled,
}

/// An operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperationRow {
    /// Its id.
    pub id: OperationId,
    /// Uid of its lab.
    pub lab_uid: LabUid,
    /// Id of its lab.
    pub lab: LabId,
    /// What it does.
    pub kind: OperationKind,
    /// Its state.
    pub state: OperationState,
    /// What it does, step by step.
    pub plan: Plan,
    /// How far each object was when it ended; while it runs this follows from the rows.
    pub progress: Vec<Progress>,
    /// What went wrong.
    pub error: Option<Failure>,
    /// True once all that was asked for is there and what was set aside for it is being removed: from then on nothing can be taken back.
    #[serde(default)]
    pub released: bool,
    /// The caller's key against doing it twice.
    pub request_id: Option<String>,
    /// The caller's trace context.
    pub traceparent: String,
    /// When it was asked for.
    pub create_us: i64,
    /// When it last changed.
    pub update_us: i64,
    /// When it was over; 0 before.
    pub end_us: i64,
}

impl OperationRow {
    /// A new one, under way.
    pub fn new(kind: OperationKind, rows: &LabRows, plan: Plan, traceparent: &str, now: i64) -> OperationRow {
        OperationRow {
            id: OperationId::new(),
            lab_uid: rows.lab.uid,
            lab: rows.lab.id.clone(),
            kind,
            state: OperationState::Running,
            plan,
            progress: Vec::new(),
            error: None,
            released: false,
            request_id: None,
            traceparent: traceparent.to_owned(),
            create_us: now,
            update_us: now,
            end_us: 0,
        }
    }

    /// Ends it.
    pub fn end(&mut self, state: OperationState, error: Option<Failure>, progress: Vec<Progress>, now: i64) {
        self.state = state;
        self.error = error;
        self.progress = progress;
        self.update_us = now;
        self.end_us = now;
    }
}
