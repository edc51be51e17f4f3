//! What a user asks of labs: apply, destroy, cancel. Each decides over the rows, writes all intents in one transaction, and is answered after its commit;
//! reconcilers bring them about.
//!
//! Nothing is written when anything is wrong: the spec, a missing file, an image that cannot be used where its node is to run.

mod images;
mod link;
mod moves;
mod nodes;
mod refuse;

use std::collections::BTreeSet;
use std::path::Path;

use netloom_model::failure::{Code, Failure, Violation};
use netloom_model::id::{LabId, LabUid};
use netloom_model::kind::Catalogue;
use netloom_model::spec::{BindSource, LabSpec};
use netloom_model::state::Wanted;
use netloom_service::telemetry;

use self::images::image_uses;
pub use self::link::{LinkChange, LinkEdit};
pub use self::moves::{Move, What};
pub use self::nodes::ChangeNodes;
pub use self::refuse::lab_not_found;
use self::refuse::{
    does_not_fit, files_are_there, refuse_forbidden, refuse_growth, refuse_if_busy, refuse_if_changed,
    refuse_if_nothing_can_run, refuse_unknown_hosts, refuse_without_vni, repeated_in,
};
use crate::certificates;
use crate::client::ImageUse;
use crate::error::Result;
use crate::operation::unchanged_verdict;
use crate::place::Room;
use crate::plan::{Before, Context, Planned, explain, plan};
use crate::rows::{LabRows, NodeRow, OperationKind, OperationRow, OperationState};
use crate::scheduler::Scheduler;
use crate::store::{Tx, progress};

/// How often a plan is made again, beside once for each host, because the rows changed while its images were looked at.
const ATTEMPTS: usize = 5;

/// A lab as asked for.
#[derive(Debug, Clone)]
pub struct Apply {
    /// Its id.
    pub lab: LabId,
    /// What it is to be.
    pub change: Change,
    /// True changes nothing.
    pub validate_only: bool,
    /// Generation the caller saw; 0 for any.
    pub generation: u64,
    /// The caller's key against doing it twice.
    pub request_id: Option<String>,
    /// Whether the lab may or must exist.
    pub existence: Existence,
    /// Nodes that a filter left out of what it is to be.
    pub left_out: Vec<String>,
}

/// What a lab is to be.
#[derive(Debug, Clone)]
pub enum Change {
    /// All of it.
    Whole(Box<LabSpec>),
    /// As it is, but for one link.
    Link(Box<LinkEdit>),
}

/// Whether a lab may or must exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existence {
    /// It may.
    May,
    /// It must not.
    MustNot,
    /// It must.
    Must,
}

/// What a plan is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A lab is to be as asked for, its nodes and links included that were taken out of it for a time.
    Deploy,
    /// A part of it is.
    Edit,
    /// It goes back to what it was, or away.
    Back,
}

impl Purpose {
    pub(crate) fn context<'a>(self, catalogue: &'a Catalogue, rooms: &'a [Room], now: i64) -> Context<'a> {
        Context { catalogue, rooms, asked: self != Purpose::Back, revive: self == Purpose::Deploy, now }
    }
}

impl Apply {
    /// The rows to start from, if the request may go on with them.
    fn admit(&self, rows: Option<&LabRows>) -> Result<()> {
        match rows {
            None if self.existence == Existence::Must => Err(lab_not_found(self.lab.as_str()).into()),
            None if self.generation != 0 => Err(lab_not_found(self.lab.as_str()).into()),
            None => Ok(()),
            Some(rows) if self.existence == Existence::MustNot => {
                let message = format!("lab \"{}\" exists already; apply to change it", rows.lab.id);
                let failure = Failure::new(Code::AlreadyExists, "LAB_EXISTS", message);
                Err(failure.with("lab", rows.lab.id.to_string()).into())
            }
            Some(rows) => {
                refuse_if_changed(rows, self.generation)?;
                refuse_if_busy(rows)
            }
        }
    }
}

impl Scheduler {
    /// Makes or changes a lab.
    pub async fn apply(&self, mut apply: Apply) -> Result<OperationRow> {
        if let Change::Whole(spec) = &mut apply.change {
            self.choose_images(spec).await?;
            self.count_disks(self.store.rows_of(&apply.lab.folded()).as_deref(), spec).await;
            self.check(&apply.lab, spec)?;
            self.check_certificates(&apply.lab, spec).await?;
        }
        self.first_word().await;
        Self::unless_overtaken(|held| self.deploy(&apply, held)).await
    }

    /// How often a plan is made: each may find one host more that is to be asked, since others took the room or a host does not take a node.
    fn attempts(&self) -> usize {
        ATTEMPTS + self.world.read(|hosts| hosts.len())
    }

    async fn deploy(&self, apply: &Apply, held: bool) -> Result<OperationRow> {
        let mut judged = BTreeSet::new();
        for _ in 0..self.attempts() {
            let mut tx = self.store.begin("scheduler.deploy").await?;
            tx.hold_hosts(held).await?;
            let id = apply.request_id.as_deref();
            if let Some(first) = repeated_in(&mut tx, id, apply.change.kind(), &apply.lab).await? {
                return Ok(first);
            }
            let current = self.store.rows_of(&apply.lab.folded());
            apply.admit(current.as_deref())?;
            let (spec, purpose) = match &apply.change {
                Change::Whole(spec) => (spec.as_ref().clone(), Purpose::Deploy),
                Change::Link(edit) => {
                    let rows = current.as_deref().ok_or_else(|| lab_not_found(apply.lab.as_str()))?;
                    (self.edited(rows, edit)?, Purpose::Edit)
                }
            };
            let spec = self.catalogue.canonical(spec);
            if !apply.validate_only {
                files_are_there(&mut tx, &spec).await?;
            }
            let fresh = LabRows::new(apply.lab.clone(), tx.now());
            let base = current.as_deref().unwrap_or(&fresh);
            let mut planned = self.planned(&mut tx, base, &spec, purpose).await?;
            crate::plan::tell_left_out(&mut planned.plan, &apply.left_out);
            if current.is_none() {
                refuse_if_nothing_can_run(&planned)?;
            }
            if matches!(apply.change, Change::Whole(_)) {
                self.world.read(|hosts| refuse_unknown_hosts(&planned, hosts.keys()))?;
            }
            refuse_forbidden(&planned)?;
            refuse_growth(&planned)?;
            self.refuse_over_quota(&mut tx, current.as_deref(), &planned.rows).await?;
            let unfit = match apply.change {
                Change::Whole(_) => does_not_fit(&planned),
                Change::Link(_) => None,
            };
            if apply.validate_only {
                let rooms = self.rooms(&mut tx, base.lab.uid).await?;
                explain(base, &mut planned, &spec, &rooms);
            } else if let Some(unfit) = unfit {
                return Err(unfit.into());
            }
            self.refuse_host_paths(&planned.rows)?;
            let uses = image_uses(base, &planned.rows);
            let of_use = |u: &ImageUse| (u.node.clone(), u.host.clone());
            if !uses.iter().all(|u| judged.contains(&of_use(u))) {
                // Hosts are asked without holding the writer's lock; then the plan is made again on what is there by then.
                drop(tx);
                self.validate(&uses).await?;
                self.refuse_what_hosts_do_not_take(&planned.rows).await?;
                judged.extend(uses.iter().map(of_use));
                continue;
            }
            return self.write(tx, apply, current.as_deref(), planned, unfit).await;
        }
        let message =
            format!("lab \"{}\" or its hosts keep changing while it is planned; try again", apply.lab);
        Err(Failure::new(Code::Aborted, "PLAN_OVERTAKEN", message).into())
    }

    /// Refuses a spec that is wrong by itself or for its kinds, with everything that is.
    fn check(&self, lab: &LabId, spec: &LabSpec) -> Result<()> {
        let mut wrong = spec.check();
        wrong.extend(self.catalogue.check(spec));
        for (i, node) in spec.nodes.iter().enumerate() {
            let lacks = self.catalogue.lacks_image(node);
            let description = lacks.map(|what| format!("node {}: {what}", node.id));
            wrong.extend(
                description.map(|d| Violation { field: format!("nodes[{i}].image"), description: d }),
            );
        }
        if wrong.is_empty() {
            return Ok(());
        }
        for violation in &mut wrong {
            violation.field = format!("spec.{}", violation.field);
        }
        let places = if wrong.len() == 1 { "place" } else { "places" };
        let message = format!("the spec of lab \"{lab}\" is wrong in {} {places}", wrong.len());
        Err(Failure::invalid(message, wrong).into())
    }

    /// Refuses host paths that the host chosen does not allow. compute checks them again when it mounts them, links followed.
    fn refuse_host_paths(&self, rows: &LabRows) -> Result<()> {
        let mut wrong = Vec::new();
        self.world.read(|hosts| {
            for node in rows.asked_for() {
                let Some(view) = node.host.as_ref().and_then(|host| hosts.get(host)) else { continue };
                let roots = &view.compute.inventory.host_path_roots;
                for bind in &node.spec.binds {
                    let BindSource::Host(path) = &bind.source else { continue };
                    if !roots.iter().any(|root| Path::new(path).starts_with(root)) {
                        let description = format!(
                            "host path {path} is not below an allowed directory: put the file beside the topology and mount it by a \
                             relative path, or name a directory in `allowed_host_paths` of [compute]"
                        );
                        wrong.push(Violation { field: format!("node {}", node.id), description });
                    }
                }
            }
        });
        if wrong.is_empty() {
            return Ok(());
        }
        let message = format!("lab \"{}\" mounts host paths that are not allowed", rows.lab.id);
        let failure = Failure::new(Code::FailedPrecondition, "HOST_PATH_NOT_ALLOWED", message);
        Err(Failure { violations: wrong, ..failure }.into())
    }

    async fn write(
        &self,
        mut tx: Tx<'_>,
        apply: &Apply,
        current: Option<&LabRows>,
        planned: Planned,
        unfit: Option<Failure>,
    ) -> Result<OperationRow> {
        let now = tx.now();
        let Planned { mut rows, plan, .. } = planned;
        let mut operation =
            OperationRow::new(apply.change.kind(), &rows, plan, &telemetry::traceparent(), now);
        let nothing_to_do = operation.plan.actions.is_empty();
        let as_before = current == Some(&rows);
        self.refresh(&tx, &mut rows);
        refuse_without_vni(&rows, &self.config)?;
        if apply.validate_only {
            // That nothing is to be done says nothing of whether it is as asked.
            let not_ready = match nothing_to_do && current.is_some() {
                true => unchanged_verdict(&rows).and_then(|verdict| verdict.err()),
                false => None,
            };
            let not_ready = unfit.or(not_ready);
            let state = if not_ready.is_none() { OperationState::Succeeded } else { OperationState::Failed };
            operation.end(state, not_ready, Vec::new(), now);
            return Ok(operation);
        }
        // A deploy that changes nothing is over at once when nothing better comes by waiting, and says what is not ready all the same.
        let settled = nothing_to_do
            && current.is_some()
            && !rows.nodes.values().any(NodeRow::is_aside)
            && certificates::awaited(&rows).is_empty();
        let verdict = if settled { unchanged_verdict(&rows) } else { None };
        let over = verdict.is_some();
        if let Some(verdict) = verdict {
            let state = if verdict.is_ok() { OperationState::Succeeded } else { OperationState::Failed };
            operation.end(state, verdict.err(), Vec::new(), now);
        }
        if over && as_before {
            return Ok(operation);
        }
        operation.request_id.clone_from(&apply.request_id);
        if over {
            // Only labels, order or what waits for room changed.
            rows.lab.completed = Some(rows.lab.spec.clone());
        } else {
            rows.operation = Some(operation.id);
            rows.lab.traceparent.clone_from(&operation.traceparent);
        }
        tracing::info!(
            lab = %rows.lab.id, operation = %operation.id, actions = operation.plan.actions.len(),
            unplaced = operation.plan.unplaced.len(), "deploy begins"
        );
        operation.progress = progress(&operation, Some(&rows));
        tx.put_operation(&operation).await?;
        if let Some(current) = current.filter(|_| !over) {
            tx.put_before(operation.id, &Before::of(current)).await?;
        }
        tx.save(current, rows).await?;
        tx.commit().await?;
        self.room_appeared();
        Ok(operation)
    }

    /// Starts to remove a lab.
    pub async fn destroy(
        &self,
        lab: &LabId,
        generation: u64,
        request_id: Option<String>,
    ) -> Result<OperationRow> {
        let mut tx = self.store.begin("scheduler.destroy").await?;
        if let Some(first) = repeated_in(&mut tx, request_id.as_deref(), OperationKind::Destroy, lab).await? {
            return Ok(first);
        }
        let Some(current) = self.store.rows_of(&lab.folded()) else {
            return Err(lab_not_found(lab.as_str()).into());
        };
        refuse_if_changed(&current, generation)?;
        refuse_if_busy(&current)?;
        let operation =
            self.remove(&mut tx, &current, &current, request_id, &telemetry::traceparent()).await?;
        tx.commit().await?;
        self.room_appeared();
        Ok(operation)
    }

    /// Marks everything of a lab as to be gone, with the operation that waits for it.
    async fn remove(
        &self,
        tx: &mut Tx<'_>,
        before: &LabRows,
        current: &LabRows,
        request_id: Option<String>,
        traceparent: &str,
    ) -> Result<OperationRow> {
        let Planned { mut rows, plan, .. } =
            self.planned(tx, current, &LabSpec::default(), Purpose::Back).await?;
        // The spec stays what was asked for: only the lab is not wanted any more.
        rows.lab.spec.clone_from(&current.lab.spec);
        rows.lab.wanted = Wanted::Absent;
        rows.nodes.values_mut().filter(|n| n.is_aside()).for_each(|n| n.wanted = Wanted::Absent);
        let mut operation = OperationRow::new(OperationKind::Destroy, &rows, plan, traceparent, tx.now());
        operation.request_id = request_id;
        rows.operation = Some(operation.id);
        rows.lab.traceparent = traceparent.to_owned();
        tracing::info!(lab = %rows.lab.id, operation = %operation.id, "removal begins");
        self.refresh(tx, &mut rows);
        operation.progress = progress(&operation, Some(&rows));
        tx.put_operation(&operation).await?;
        tx.save(Some(before), rows).await?;
        Ok(operation)
    }

    /// Cancels a deploy: the spec goes back to the one last completed, or the lab away when there was none.
    pub async fn cancel(&self, id: &str) -> Result<OperationRow> {
        Self::unless_overtaken(|held| self.take_back(id, held)).await
    }

    async fn take_back(&self, id: &str, held: bool) -> Result<OperationRow> {
        let not_found = || {
            let message = format!("there is no operation \"{id}\"");
            Failure::new(Code::NotFound, "OPERATION_NOT_FOUND", message).with("operation", id)
        };
        let operation_id = id.parse().map_err(|_| not_found())?;
        let mut tx = self.store.begin("scheduler.cancel").await?;
        tx.hold_hosts(held).await?;
        let mut operation = tx.operation(operation_id).await?.ok_or_else(not_found)?;
        let refuse = |reason: &str, message: String| {
            Err(Failure::new(Code::FailedPrecondition, reason, message).with("operation", id).into())
        };
        if operation.state != OperationState::Running {
            return refuse("OPERATION_DONE", format!("operation {id} is over already"));
        }
        if operation.kind == OperationKind::Destroy {
            return refuse(
                "NOT_CANCELLABLE",
                format!("operation {id} removes a lab, which cannot be taken back"),
            );
        }
        if operation.released {
            let message = format!(
                "all that operation {id} was to bring about is there, and what was before is being removed, which cannot be taken back; wait for its end, then deploy \
                 what you want"
            );
            return refuse("NOT_CANCELLABLE", message);
        }
        let Some(before) = tx.rows(operation.lab_uid) else { return Err(not_found().into()) };
        let mut current = put_back(&mut tx, &operation, &before).await?;
        operation.end(OperationState::Cancelled, None, progress(&operation, Some(&before)), tx.now());
        tx.put_operation(&operation).await?;
        let traceparent = telemetry::traceparent();
        match before.lab.completed.clone() {
            // What was asked of nodes stays asked of them: each of them is whole, started or stopped.
            _ if operation.kind.is_of_nodes() => {
                self.refresh(&tx, &mut current);
                tx.save(Some(&before), current).await?;
            }
            // A move asks for no other spec.
            _ if operation.kind == OperationKind::Move => {
                let spec = before.lab.spec.clone();
                let mut rows = self.planned(&mut tx, &current, &spec, Purpose::Back).await?.rows;
                rows.lab.traceparent = traceparent;
                self.refresh(&tx, &mut rows);
                tx.save(Some(&before), rows).await?;
            }
            Some(spec) => {
                let mut rows = self.planned(&mut tx, &current, &spec, Purpose::Back).await?.rows;
                rows.lab.traceparent = traceparent;
                self.refresh(&tx, &mut rows);
                tx.save(Some(&before), rows).await?;
            }
            None => {
                self.remove(&mut tx, &before, &current, None, &traceparent).await?;
            }
        }
        tx.commit().await?;
        tracing::info!(lab = %operation.lab, operation = %operation.id, "operation cancelled");
        self.room_appeared();
        Ok(operation)
    }

    /// Places what fitted nowhere, in every lab, and says whether something found a place.
    pub async fn place_again(&self) -> Result<()> {
        for rows in self.store.all().into_iter().filter(|rows| waits_for_room(rows)) {
            Self::unless_overtaken(|held| self.place_lab_again(rows.lab.uid, held)).await?;
        }
        Ok(())
    }

    async fn place_lab_again(&self, lab: LabUid, held: bool) -> Result<()> {
        let mut tx = self.store.begin("scheduler.place").await?;
        tx.hold_hosts(held).await?;
        // It may be removed by now: its links would be made anew.
        let Some(before) = tx.rows(lab).filter(|rows| waits_for_room(rows)) else { return Ok(()) };
        let rooms = self.rooms(&mut tx, lab).await?;
        let ctx = Purpose::Back.context(&self.catalogue, &rooms, tx.now());
        let mut after = crate::plan::place_again(&before, ctx);
        self.refresh(&tx, &mut after);
        if tx.save(Some(&before), after).await? {
            tx.commit().await?;
        }
        Ok(())
    }

    async fn planned(
        &self,
        tx: &mut Tx<'_>,
        current: &LabRows,
        spec: &LabSpec,
        purpose: Purpose,
    ) -> Result<Planned> {
        let rooms = self.rooms(tx, current.lab.uid).await?;
        let silent = !rooms.is_empty() && rooms.iter().all(|r| !r.heard);
        let ctx = purpose.context(&self.catalogue, &rooms, tx.now());
        let (asked, planned) = (ctx.asked, plan(current, spec, ctx));
        let places = planned.rows.nodes.values().any(|n| n.wanted.stays() && n.host.is_none());
        if asked && silent && places {
            let hosts: Vec<&str> = rooms.iter().map(|r| r.host.as_str()).collect();
            let message = format!(
                "no host is heard of ({}): check that netloom's compute and network services run there, then try again",
                hosts.join(", ")
            );
            return Err(Failure::new(Code::Unavailable, "HOST_UNAVAILABLE", message).into());
        }
        Ok(planned)
    }
}

/// True while nodes of a lab that is wanted have no host.
fn waits_for_room(rows: &LabRows) -> bool {
    let waits = |n: &NodeRow| n.wanted.stays() && n.host.is_none();
    rows.lab.wanted != Wanted::Absent && rows.nodes.values().any(waits)
}

/// The rows without an operation, everything in the place that it had when that began.
async fn put_back(tx: &mut Tx<'_>, operation: &OperationRow, rows: &LabRows) -> Result<LabRows> {
    let mut rows = rows.clone();
    rows.operation = None;
    if let Some(before) = tx.before(operation.id).await? {
        before.put_back(&mut rows);
    }
    Ok(rows)
}
