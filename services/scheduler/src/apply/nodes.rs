//! Nodes that are started, stopped and restarted. The spec stays.

use std::collections::BTreeSet;

use netloom_model::failure::{Code, Failure};
use netloom_model::id::{LabId, NodeUid};
use netloom_model::state::Runtime;
use netloom_service::telemetry;

use super::refuse::{lab_not_found, refuse_if_busy, repeated_in};
use crate::error::Result;
use crate::facts::BACK;
use crate::plan::{NodeChange, change_nodes};
use crate::rows::{LabRows, OperationKind, OperationRow, OperationState};
use crate::scheduler::Scheduler;
use crate::store::progress;

/// Nodes to be started, stopped or restarted.
#[derive(Debug, Clone)]
pub struct ChangeNodes {
    /// Their lab.
    pub lab: LabId,
    /// Their ids.
    pub nodes: Vec<String>,
    /// What is done to them.
    pub change: NodeChange,
    /// The caller's key against doing it twice.
    pub request_id: Option<String>,
}

impl ChangeNodes {
    fn kind(&self) -> OperationKind {
        match self.change {
            NodeChange::Start => OperationKind::Start,
            NodeChange::Stop => OperationKind::Stop,
            NodeChange::Restart => OperationKind::Restart,
            NodeChange::Wipe => OperationKind::Wipe,
            NodeChange::Restore(_) => OperationKind::Restore,
        }
    }

    /// The nodes, if all are there and each has something to start and stop.
    fn uids(&self, rows: &LabRows) -> Result<BTreeSet<NodeUid>> {
        let aside =
            self.nodes.iter().find_map(|id| rows.node(&id.to_ascii_lowercase()).filter(|n| n.is_aside()));
        if let Some(node) = aside {
            let message = format!(
                "node {} is set aside: what lab \"{}\" was last asked to be does not have it; {BACK}",
                node.id, rows.lab.id
            );
            let failure = Failure::new(Code::FailedPrecondition, "NODE_SET_ASIDE", message);
            return Err(failure.with("node", node.id.to_string()).into());
        }
        let found = |id: &String| {
            let node = rows.node(&id.to_ascii_lowercase()).filter(|n| n.wanted.stays());
            node.ok_or_else(|| id.clone())
        };
        let (nodes, missing): (Vec<_>, Vec<_>) = self.nodes.iter().map(found).partition(|n| n.is_ok());
        let missing: Vec<String> = missing.into_iter().filter_map(|m| m.err()).collect();
        if !missing.is_empty() {
            let message =
                format!("there is no node \"{}\" in lab \"{}\"", missing.join("\", \""), rows.lab.id);
            let failure = Failure::new(Code::NotFound, "NODE_NOT_FOUND", message);
            return Err(failure.with("node", missing.join(",")).into());
        }
        let nodes: Vec<_> = nodes.into_iter().filter_map(|n| n.ok()).collect();
        if let Some(bridge) = nodes.iter().find(|n| n.runtime == Runtime::Bridge) {
            let message = format!(
                "node {} is a segment and has no process: it cannot be started or stopped; unplug its links with `netloom link down`",
                bridge.id
            );
            let failure = Failure::new(Code::FailedPrecondition, "NODE_HAS_NO_PROCESS", message);
            return Err(failure.with("node", bridge.id.to_string()).into());
        }
        Ok(nodes.into_iter().map(|n| n.uid).collect())
    }
}

impl Scheduler {
    /// Starts, stops or restarts nodes. What is as asked already is not touched; when that is all, the operation is over at once.
    pub async fn change_nodes(&self, change: ChangeNodes) -> Result<OperationRow> {
        if change.nodes.is_empty() {
            let failure = Failure::new(Code::InvalidArgument, "INVALID_REQUEST", "no node is named");
            return Err(failure.violation("nodes", "is empty: name at least one node").into());
        }
        let mut tx = self.store.begin("scheduler.change-nodes").await?;
        let (kind, id) = (change.kind(), change.request_id.as_deref());
        if let Some(first) = repeated_in(&mut tx, id, kind, &change.lab).await? {
            return Ok(first);
        }
        let Some(before) = self.store.rows_of(&change.lab.folded()) else {
            return Err(lab_not_found(change.lab.as_str()).into());
        };
        refuse_if_busy(&before)?;
        let uids = change.uids(&before)?;
        let mut rows = (*before).clone();
        let plan = change_nodes(&mut rows, &uids, &change.change);
        let nothing_to_do = plan.actions.is_empty();
        let mut operation = OperationRow::new(kind, &rows, plan, &telemetry::traceparent(), tx.now());
        operation.request_id = change.request_id;
        if nothing_to_do {
            operation.end(OperationState::Succeeded, None, Vec::new(), tx.now());
            return Ok(operation);
        }
        rows.operation = Some(operation.id);
        rows.lab.traceparent.clone_from(&operation.traceparent);
        self.refresh(&tx, &mut rows);
        operation.progress = progress(&operation, Some(&rows));
        tracing::info!(
            lab = %rows.lab.id, operation = %operation.id, nodes = operation.plan.actions.len(),
            "{} it", kind.words()
        );
        tx.put_operation(&operation).await?;
        tx.save(Some(&before), rows).await?;
        tx.commit().await?;
        Ok(operation)
    }
}
