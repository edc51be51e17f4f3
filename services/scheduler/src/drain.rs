//! Hosts that are drained: they take no new nodes, and what is on them moves away.
//!
//! ```text
//! host drain ─► cordoned, drain kept in the host's row ─► for each lab with nodes there that is idle: a move ─► nothing left: drained
//!                         ▲                                             │ none can move
//!                         └──── a lab is idle, a host has room ◄────────┘ told with the reasons
//! ```
//!
//! That a host is drained is kept like what a lab is to be: whoever restarts the scheduler, or drains a host while its labs are being changed, has it done all the same.
//! What could not be moved is tried again when its lab or a host changed, but never where it did not come up before.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use netloom_model::id::{HostId, LabId, LabUid};
use netloom_model::plan::{Object, Plan};
use netloom_model::state::Wanted;
use netloom_service::Shutdown;
use tokio::time::Instant;

use crate::apply::{Move, What};
use crate::error::Result;
use crate::membership::host_not_found;
use crate::plan::{has_nodes_on, is_on};
use crate::rows::{Drain, LabRows, NodeRow, OperationKind, OperationRow};
use crate::scheduler::Scheduler;

/// How often what stays is tried although its lab did not change: another host may have room by now.
const AGAIN: Duration = Duration::from_secs(10);
/// How often it is looked whether anything is to be done.
const TICK: Duration = Duration::from_secs(1);
/// How often what is planned for a lab that keeps changing.
const REST: Duration = Duration::from_millis(500);
/// Of how many labs moves are begun at once: a host that is slow to say what images it has holds up these and no other.
const AT_ONCE: usize = 16;

/// A host to be drained.
#[derive(Debug, Clone)]
pub struct DrainHost {
    /// The host.
    pub host: HostId,
    /// True when disks of virtual machines are not copied, and lost.
    pub lose_disks: bool,
    /// True changes nothing.
    pub validate_only: bool,
}

/// What a drain does.
#[derive(Debug)]
pub struct Drained {
    /// The host.
    pub host: HostId,
    /// The moves that were begun or are under way, or would be; one for each lab.
    pub moves: Vec<OperationRow>,
    /// Labs that something else is done to: their nodes move when that is over.
    pub busy: Vec<LabId>,
}

/// True when nothing of a lab is left on a host.
pub fn is_empty(core: &Scheduler, host: &HostId) -> bool {
    !core.store.all().iter().any(|rows| is_on(rows, host))
}

/// Moves nodes away from hosts that are drained, for ever.
pub async fn run(core: Arc<Scheduler>, shutdown: Shutdown) {
    let mut revision = core.store.subscribe();
    let mut tried: HashMap<(HostId, LabUid), (Arc<LabRows>, Instant)> = HashMap::new();
    loop {
        revision.borrow_and_update();
        let drained = core.world.drained();
        tried.retain(|(host, _), _| drained.contains_key(host));
        for (host, drain) in drained {
            let mut due = Vec::new();
            for rows in core.store.all() {
                let key = (host.clone(), rows.lab.uid);
                if !has_nodes_on(&rows, &host) {
                    tried.remove(&key);
                    core.world.stay(&host, rows.lab.uid, None);
                    continue;
                }
                let is_told = tried.get(&key).is_some_and(|(was, at)| {
                    let pause = if Arc::ptr_eq(was, &rows) { AGAIN } else { REST };
                    at.elapsed() < pause
                });
                if rows.operation.is_some() || is_told {
                    continue;
                }
                tried.insert(key, (rows.clone(), Instant::now()));
                due.push(rows);
            }
            let began = |rows: Arc<LabRows>| {
                let (core, host) = (&core, &host);
                async move {
                    match core.move_nodes(off(&rows.lab.id, host, drain, false)).await {
                        Ok(operation) => core.world.stay(host, rows.lab.uid, Some(operation.plan.unplaced)),
                        Err(e) => {
                            tracing::warn!(%host, lab = %rows.lab.id, "nodes are not moved yet, tried again: {e}");
                        }
                    }
                }
            };
            futures::stream::iter(due).for_each_concurrent(AT_ONCE, began).await;
        }
        tokio::select! {
            _ = revision.changed() => {}
            () = tokio::time::sleep(TICK) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

fn off(lab: &LabId, host: &HostId, drain: Drain, asked: bool) -> Move {
    Move {
        lab: lab.clone(),
        what: What::Off(host.clone()),
        lose_disks: drain.lose_disks,
        force: false,
        asked,
        validate_only: false,
        request_id: None,
    }
}

/// True when a plan of moves takes nodes off a host: what they were is on it, aside or not.
fn moves_off(rows: &LabRows, plan: &Plan, host: &HostId) -> bool {
    let goes = plan.actions.iter().filter(|a| a.object == Object::Node && a.host != host.as_str());
    let ids: BTreeSet<String> = goes.map(|a| a.id.to_ascii_lowercase()).collect();
    let is_former = |n: &NodeRow| n.wanted != Wanted::Absent && !n.is_successor();
    let mut there = rows.nodes.values().filter(|n| n.host.as_ref() == Some(host) && is_former(n));
    there.any(|n| ids.contains(&n.id.folded()))
}

impl Scheduler {
    /// Drains a host, or says what that would do.
    pub async fn drain(&self, asked: DrainHost) -> Result<Drained> {
        let drain = Drain { lose_disks: asked.lose_disks };
        let mut tx = self.store.begin("scheduler.drain").await?;
        let Some(row) = tx.host(&asked.host).await? else { return Err(host_not_found(&asked.host).into()) };
        if asked.validate_only {
            drop(tx);
        } else {
            tx.set_cordoned(&row.id, true, Some(drain)).await?;
            tx.commit().await?;
            self.world.set_cordoned(&row.id, true, Some(drain));
            tracing::info!(host = %row.id, lose_disks = drain.lose_disks, "is drained");
        }
        let mut told = Drained { host: row.id, moves: Vec::new(), busy: Vec::new() };
        let labs = self.store.all().into_iter().filter(|rows| has_nodes_on(rows, &told.host));
        let host = told.host.clone();
        let begin = |rows: Arc<LabRows>| {
            let off = off(&rows.lab.id, &host, drain, true);
            async move { (self.move_nodes(Move { validate_only: asked.validate_only, ..off }).await, rows) }
        };
        let mut began = futures::stream::iter(labs).map(begin).buffered(AT_ONCE);
        while let Some((began, rows)) = began.next().await {
            match began {
                Ok(operation) => {
                    let stay = operation.plan.unplaced.clone();
                    if !asked.validate_only {
                        self.world.stay(&told.host, rows.lab.uid, Some(stay));
                    }
                    told.moves.push(operation);
                }
                Err(e) if e.is_refused_for("OPERATION_ACTIVE") => {
                    match self.move_under_way(rows.lab.uid).await? {
                        Some(operation) => told.moves.push(operation),
                        None => told.busy.push(rows.lab.id.clone()),
                    }
                }
                Err(e) if e.is_refused_for("LAB_NOT_FOUND") => {}
                Err(e) => return Err(e),
            }
        }
        drop(began);
        Ok(told)
    }

    async fn move_under_way(&self, lab: LabUid) -> Result<Option<OperationRow>> {
        let Some(id) = self.store.rows(lab).and_then(|rows| rows.operation) else { return Ok(None) };
        let operation = self.store.operation(id).await?;
        Ok(operation.filter(|o| o.kind == OperationKind::Move))
    }

    /// Takes nodes on a host again: moves away from it that are under way are cancelled, and no other.
    pub async fn cancel_drain(&self, host: &HostId) -> Result<()> {
        for rows in self.store.all().into_iter().filter(|rows| has_nodes_on(rows, host)) {
            let under_way = self.move_under_way(rows.lab.uid).await?;
            if let Some(operation) = under_way.filter(|o| moves_off(&rows, &o.plan, host)) {
                match self.cancel(&operation.id.to_string()).await {
                    Ok(_) => {}
                    // All of it is elsewhere already, or it is over.
                    Err(e) if e.is_refused_for("NOT_CANCELLABLE") || e.is_refused_for("OPERATION_DONE") => {}
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(())
    }
}
