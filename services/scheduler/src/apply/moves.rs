//! Nodes that are moved to other hosts: by name, off a host that is drained, or to have fewer links between hosts. The spec stays.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::try_join_all;
use netloom_model::failure::{Code, Failure};
use netloom_model::id::{HostId, LabId, NodeUid};
use netloom_model::plan::{Action, Object, Plan, Rejection};
use netloom_service::telemetry;

use super::images::image_uses;
use super::refuse::{lab_not_found, refuse_if_busy, refuse_without_vni, repeated_in};
use super::{Purpose, put_back};
use crate::client::{ImageUse, Verdict};
use crate::error::Result;
use crate::plan::{Before, Context, MOVE_FAILED, Moves, lost, move_nodes, on_host, rebalanced};
use crate::rows::{LabRows, NodeRow, OperationKind, OperationRow, OperationState};
use crate::scheduler::Scheduler;
use crate::store::{Tx, progress};
use crate::world::{HostView, World};

/// Nodes of a lab to be moved.
#[derive(Debug, Clone)]
pub struct Move {
    /// The lab.
    pub lab: LabId,
    /// Which nodes, and where to.
    pub what: What,
    /// True when disks of virtual machines are not copied, and lost.
    pub lose_disks: bool,
    /// True when nodes of a host that is not heard of are made elsewhere, although it may still run them.
    pub force: bool,
    /// True when a user asks: what failed before is tried again.
    pub asked: bool,
    /// True changes nothing.
    pub validate_only: bool,
    /// The caller's key against doing it twice.
    pub request_id: Option<String>,
}

/// What of a lab is moved.
#[derive(Debug, Clone)]
pub enum What {
    /// These nodes, to a host or wherever there is room beside the hosts that they are on.
    Nodes(Vec<String>, Option<HostId>),
    /// All nodes on a host.
    Off(HostId),
    /// Those on a host that has been silent for so long that they run there no longer.
    Lost(HostId),
    /// Those that would better be elsewhere.
    Rebalance,
}

impl Move {
    /// The nodes that are meant, and where they may go.
    fn moves(
        &self,
        rows: &LabRows,
        world: &World,
        disks: BTreeMap<NodeUid, Result<u64, String>>,
        ctx: Context<'_>,
    ) -> Result<Moves> {
        let (lose_disks, force) = (self.lose_disks, self.force);
        let moves = Moves { lose_disks, force, disks, ..Moves::default() };
        match &self.what {
            What::Off(host) => {
                Ok(Moves { nodes: on_host(rows, host), not_to: [host.clone()].into(), ..moves })
            }
            What::Lost(host) => {
                // It may have been heard of meanwhile.
                let silent = world.host(host, HostView::silent).unwrap_or_default();
                let nodes = lost::given_up(rows, host, silent);
                let not_to = [host.clone()].into();
                Ok(Moves { nodes, not_to, silent_for: rows.lab.spec.reschedule_after_seconds, ..moves })
            }
            What::Rebalance => Ok(Moves { nodes: rebalanced(rows, &moves, ctx), ..moves }),
            What::Nodes(ids, to) => {
                let (mut nodes, mut not_to) = (BTreeMap::new(), BTreeSet::new());
                for id in ids {
                    let node = rows.node(&id.to_ascii_lowercase()).filter(|n| n.is_wanted());
                    let node = node.ok_or_else(|| {
                        let message = format!("there is no node \"{id}\" in lab \"{}\"", rows.lab.id);
                        Failure::new(Code::NotFound, "NODE_NOT_FOUND", message).with("node", id.clone())
                    })?;
                    // One that has no host is placed by itself; one that is there already stays.
                    if let Some(host) = node.host.as_ref().filter(|host| to.as_ref() != Some(*host)) {
                        nodes.insert(node.uid, to.clone());
                        not_to.insert(host.clone());
                    }
                }
                Ok(Moves { nodes, not_to, ..moves })
            }
        }
    }
}

impl Scheduler {
    /// Begins to move nodes, once it is known that their images are to be had where they go. When there is nothing to move, the operation is over at once; its plan names
    /// those that stay, with the reasons.
    pub async fn move_nodes(&self, asked: Move) -> Result<OperationRow> {
        self.first_word().await;
        Self::unless_overtaken(|held| self.move_unless_overtaken(&asked, held)).await
    }

    async fn move_unless_overtaken(&self, asked: &Move, held: bool) -> Result<OperationRow> {
        let mut judged: BTreeSet<(String, HostId)> = BTreeSet::new();
        let mut refused: BTreeMap<NodeUid, Vec<Rejection>> = BTreeMap::new();
        let mut disks: BTreeMap<NodeUid, Option<Result<u64, String>>> = BTreeMap::new();
        for _ in 0..self.attempts() {
            let mut tx = self.store.begin("scheduler.move").await?;
            tx.hold_hosts(held).await?;
            let id = asked.request_id.as_deref();
            if let Some(first) = repeated_in(&mut tx, id, OperationKind::Move, &asked.lab).await? {
                return Ok(first);
            }
            let Some(current) = self.store.rows_of(&asked.lab.folded()) else {
                return Err(lab_not_found(asked.lab.as_str()).into());
            };
            if !asked.validate_only {
                refuse_if_busy(&current)?;
            }
            if let (What::Off(host), false) = (&asked.what, asked.validate_only) {
                // It was uncordoned meanwhile: nothing is to leave it any more.
                if tx.host(host).await?.is_none_or(|row| row.drain.is_none()) {
                    let same = (*current).clone();
                    return self.begin_move(tx, asked, &current, same, Plan::default()).await;
                }
            }
            let rooms = self.rooms(&mut tx, current.lab.uid).await?;
            let ctx = Purpose::Back.context(&self.catalogue, &rooms, tx.now());
            let known = disks.iter().filter_map(|(uid, told)| Some((*uid, told.clone()?))).collect();
            let mut moves = asked.moves(&current, &self.world, known, ctx)?;
            self.refuse_no_host(&asked.what)?;
            moves.refused.clone_from(&refused);
            if !asked.asked {
                failed_before(&current, &mut moves.refused);
            }
            let (rows, plan) = move_nodes(&current, &moves, ctx);
            let uses = image_uses(&current, &rows);
            let of_use = |u: &ImageUse| (u.node.clone(), u.host.clone());
            let brought: Vec<&NodeRow> = brought(&current, &rows);
            if !uses.iter().all(|u| judged.contains(&of_use(u)))
                || !brought.iter().all(|old| disks.contains_key(&old.uid))
            {
                // Hosts are asked without holding the writer's lock; then the plan is made again on what is there by then.
                drop(tx);
                for (node, why) in self.refusals(&uses).await? {
                    let node = current.node(&node.to_ascii_lowercase()).map(|n| n.uid);
                    node.into_iter().for_each(|uid| refused.entry(uid).or_default().push(why.clone()));
                }
                judged.extend(uses.iter().map(of_use));
                disks.extend(self.disk_sizes(&brought).await);
                continue;
            }
            if let (What::Nodes(..), true) = (&asked.what, plan.actions.is_empty()) {
                refuse_if_all_stay(&current, &plan)?;
            }
            return self.begin_move(tx, asked, &current, rows, plan).await;
        }
        let message =
            format!("lab \"{}\" or its hosts keep changing while it is planned; try again", asked.lab);
        Err(Failure::new(Code::Aborted, "PLAN_OVERTAKEN", message).into())
    }

    /// The nodes whose images are not to be had where they go, and why. A host that does not answer takes none of them: another one may.
    async fn refusals(&self, uses: &[ImageUse]) -> Result<Vec<(String, Rejection)>> {
        let mut of_hosts: BTreeMap<&HostId, Vec<ImageUse>> = BTreeMap::new();
        for of in uses {
            of_hosts.entry(&of.host).or_default().push(of.clone());
        }
        let ask = async |(host, uses): (&HostId, Vec<ImageUse>)| {
            let reject = |of: &ImageUse, code: &str, detail: String, resolvable: bool| {
                let why = Rejection { host: host.to_string(), code: code.to_owned(), detail, resolvable };
                (of.node.clone(), why)
            };
            match self.verdicts(&uses).await {
                Ok(verdicts) => {
                    let refused = uses.iter().zip(verdicts).filter_map(|(of, verdict)| match verdict {
                        Verdict::Refuse { reason, message } => Some(reject(of, &reason, message, false)),
                        Verdict::Use { .. } | Verdict::Pull { .. } => None,
                    });
                    Ok(refused.collect::<Vec<_>>())
                }
                Err(e) if e.is_silent_host() => {
                    let why = Failure::from(e).message;
                    let silent = |of: &ImageUse| reject(of, "HOST_UNAVAILABLE", why.clone(), true);
                    Ok(uses.iter().map(silent).collect())
                }
                Err(e) => Err(e),
            }
        };
        Ok(try_join_all(of_hosts.into_iter().map(ask)).await?.concat())
    }

    /// How large the disks of these nodes are, or why they are not given; none of one whose host does not answer now.
    async fn disk_sizes(&self, nodes: &[&NodeRow]) -> Vec<(NodeUid, Option<Result<u64, String>>)> {
        let ask = async |node: &&NodeRow| {
            let Some(client) = node.host.as_ref().and_then(|host| self.host(host)) else {
                return (node.uid, None);
            };
            let told = match client.disk_size(node.uid).await {
                Ok(size) => Some(Ok(size)),
                Err(e) if e.is_unreachable() => None,
                Err(e) => Some(Err(Failure::from(e).message)),
            };
            (node.uid, told)
        };
        futures::future::join_all(nodes.iter().map(ask)).await
    }

    /// Refuses a host that nodes are to go to and that is not there.
    fn refuse_no_host(&self, what: &What) -> Result<()> {
        match what {
            What::Nodes(_, Some(host)) if self.host(host).is_none() => {
                let message = format!("there is no host \"{host}\": see netloom host list");
                let failure = Failure::new(Code::NotFound, "HOST_NOT_FOUND", message);
                Err(failure.with("host", host.to_string()).into())
            }
            _ => Ok(()),
        }
    }

    async fn begin_move(
        &self,
        mut tx: Tx<'_>,
        asked: &Move,
        current: &LabRows,
        mut rows: LabRows,
        plan: Plan,
    ) -> Result<OperationRow> {
        let now = tx.now();
        let nothing_to_do = plan.actions.is_empty();
        let mut operation =
            OperationRow::new(OperationKind::Move, &rows, plan, &telemetry::traceparent(), now);
        if asked.validate_only || nothing_to_do {
            operation.end(OperationState::Succeeded, None, Vec::new(), now);
            return Ok(operation);
        }
        operation.request_id.clone_from(&asked.request_id);
        rows.operation = Some(operation.id);
        rows.lab.traceparent.clone_from(&operation.traceparent);
        self.refresh(&tx, &mut rows);
        refuse_without_vni(&rows, &self.config)?;
        operation.progress = progress(&operation, Some(&rows));
        tracing::info!(
            lab = %rows.lab.id, operation = %operation.id, actions = operation.plan.actions.len(), force = asked.force,
            "nodes are moved"
        );
        tx.put_operation(&operation).await?;
        tx.put_before(operation.id, &Before::of(current)).await?;
        tx.save(Some(current), rows).await?;
        tx.commit().await?;
        Ok(operation)
    }

    /// The rows of a lab of which a move failed: all is where it was, and of those at fault it is noted that they did not come up where they were to go. So they are not
    /// moved there again unless a user asks.
    pub(crate) async fn taken_back(
        &self,
        tx: &mut Tx<'_>,
        operation: &OperationRow,
        before: &LabRows,
        why: &Failure,
    ) -> Result<LabRows> {
        let current = put_back(tx, operation, before).await?;
        let spec = before.lab.spec.clone();
        let mut rows = self.planned(tx, &current, &spec, Purpose::Back).await?.rows;
        for action in at_fault(&operation.plan, before, why) {
            let folded = action.id.to_ascii_lowercase();
            let Some(uid) = rows.node(&folded).map(|n| n.uid) else { continue };
            if let Some(node) = rows.nodes.get_mut(&uid) {
                let detail = format!("it did not come up there: {}", why.message);
                node.rejections.retain(|r| r.host != action.host);
                node.rejections.push(Rejection {
                    host: action.host.clone(),
                    code: MOVE_FAILED.to_owned(),
                    detail,
                    resolvable: false,
                });
            }
        }
        Ok(rows)
    }
}

/// The nodes whose successors bring their disks.
fn brought<'r>(current: &'r LabRows, rows: &LabRows) -> Vec<&'r NodeRow> {
    let due = rows.nodes.values().filter(|n| n.disk_due && !current.nodes.contains_key(&n.uid));
    due.filter_map(|n| current.node(&n.id.folded())).collect()
}

/// The nodes of a move that failed of which it is noted: those that the failure names, the ends of links that it names, those that went to a host that it names. Where it names
/// none of those that moved, it may have been any of them.
fn at_fault<'p>(plan: &'p Plan, rows: &LabRows, why: &Failure) -> Vec<&'p Action> {
    let named = |key: &str| -> BTreeSet<String> {
        let all = why.metadata.get(key).into_iter().flat_map(|ids| ids.split(','));
        all.filter(|id| !id.is_empty()).map(str::to_ascii_lowercase).collect()
    };
    let (mut nodes, links, hosts) = (named("nodes"), named("links"), named("host"));
    for link in rows.links.values().filter(|l| links.contains(&l.id.to_ascii_lowercase())) {
        nodes.extend(link.spec.node_ends().map(|end| end.node.to_ascii_lowercase()));
    }
    let of_nodes: Vec<&Action> = plan.actions.iter().filter(|a| a.object == Object::Node).collect();
    let is_named = |a: &&Action| {
        nodes.contains(&a.id.to_ascii_lowercase()) || hosts.contains(&a.host.to_ascii_lowercase())
    };
    let at_fault: Vec<&Action> = of_nodes.iter().copied().filter(is_named).collect();
    if at_fault.is_empty() { of_nodes } else { at_fault }
}

/// Adds where nodes did not come up before.
fn failed_before(rows: &LabRows, refused: &mut BTreeMap<NodeUid, Vec<Rejection>>) {
    for node in rows.nodes.values().filter(|n| n.is_wanted()) {
        let failed = node.rejections.iter().filter(|r| r.code == MOVE_FAILED);
        let failed: Vec<Rejection> = failed.cloned().collect();
        if !failed.is_empty() {
            refused.entry(node.uid).or_default().extend(failed);
        }
    }
}

fn refuse_if_all_stay(rows: &LabRows, plan: &Plan) -> Result<()> {
    let Some(first) = plan.unplaced.first() else { return Ok(()) };
    let lines = plan.unplaced.iter().map(|stays| {
        let why: Vec<String> = stays.rejections.iter().map(|r| format!("{} {}", r.host, r.detail)).collect();
        format!("  {}: {}", stays.node, why.join("; "))
    });
    let message =
        format!("no node of lab \"{}\" is moved:\n{}", rows.lab.id, lines.collect::<Vec<_>>().join("\n"));
    let nodes: Vec<&str> = plan.unplaced.iter().map(|stays| stays.node.as_str()).collect();
    let code = first.rejections.first().map(|r| r.code.clone()).unwrap_or_default();
    Err(Failure::new(Code::FailedPrecondition, "NODE_NOT_MOVABLE", message)
        .with("nodes", nodes.join(","))
        .with("why", code)
        .into())
}

#[cfg(test)]
mod tests;
