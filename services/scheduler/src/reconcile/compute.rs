//! Instances.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use netloom_model::id::{HostId, LabUid, NodeUid};
use netloom_model::observed::{ExecPhase, Observed, Phase};
use netloom_model::slice::Instance;
use netloom_model::state::{LinkState, Wanted};
use tokio::time::Instant;

use super::Service;
use crate::client::{COMPUTE, HostClient};
use crate::error::Result;
use crate::facts;
use crate::operation::ends;
use crate::rows::{LabRows, NodeRow};
use crate::scheduler::Scheduler;
use crate::slices;
use crate::world::Heard;

/// A start of an instance.
type Start = (NodeUid, String);

/// Tells a host's compute service.
#[derive(Default)]
pub struct Compute {
    /// When each start that waits for its links was first seen.
    started: HashMap<Start, Instant>,
}

/// What a host acknowledged of a lab.
#[derive(Default)]
pub struct Slice {
    instances: BTreeMap<NodeUid, Instance>,
    /// Starts whose links were said to be settled.
    settled: BTreeSet<Start>,
}

/// What is to be told of a lab.
pub struct Work {
    settle: Vec<Start>,
    remove: BTreeSet<NodeUid>,
    /// True when nothing of the lab is left on the host but its files and networks.
    whole: bool,
    ensure: Vec<Instance>,
    has: Slice,
}

impl Service for Compute {
    type Slice = Slice;
    type Work = Work;

    const NAME: &'static str = COMPUTE;

    fn epoch(core: &Scheduler, host: &HostClient) -> Option<u64> {
        core.world.host(&host.id, |v| (v.compute.heard == Heard::Yes).then_some(v.compute.epoch)).flatten()
    }

    async fn sync(
        core: &Scheduler,
        host: &HostClient,
        labs: &[Arc<LabRows>],
    ) -> Result<HashMap<LabUid, Slice>> {
        let of =
            |r: &Arc<LabRows>| Slice { instances: slices::instances(r, &host.id), settled: BTreeSet::new() };
        let has: HashMap<LabUid, Slice> = labs.iter().map(|r| (r.lab.uid, of(r))).collect();
        let instances = has.values().flat_map(|s| s.instances.values()).cloned().collect();
        host.sync_instances(instances, &core.ticket_key).await?;
        Ok(has)
    }

    async fn remove_strays(core: &Scheduler, host: &HostClient, told: &mut BTreeSet<String>) -> Result<()> {
        let unwanted: Vec<(NodeUid, LabUid)> = core
            .world
            .host(&host.id, |v| {
                v.compute.instances.values().filter(|o| !o.wanted).map(|o| (o.uid, o.lab_uid)).collect()
            })
            .unwrap_or_default();
        let has_row = |lab: LabUid, node| core.store.rows(lab).is_some_and(|r| r.nodes.contains_key(&node));
        let strays: Vec<NodeUid> =
            unwanted.into_iter().filter(|(node, lab)| !has_row(*lab, *node)).map(|(node, _)| node).collect();
        let removed = core.store.removed_of(&strays).await?;
        for uid in strays.iter().filter(|uid| !removed.contains(uid)) {
            if told.insert(uid.to_string()) {
                tracing::warn!(host = %host.id, %uid, "the host runs an instance of this installation that is not known; it is left alone");
            }
        }
        if !removed.is_empty() {
            host.remove_instances(&removed, &[]).await?;
            tracing::info!(host = %host.id, instances = removed.len(), "instances of removed nodes removed");
        }
        Ok(())
    }

    fn compare(
        &mut self,
        core: &Scheduler,
        host: &HostClient,
        rows: &LabRows,
        acknowledged: Option<&Slice>,
    ) -> (Option<Work>, Option<Instant>) {
        let none = Slice::default();
        let acknowledged = acknowledged.unwrap_or(&none);
        let instances = slices::instances(rows, &host.id);
        let news = |i: &&Instance| acknowledged.instances.get(&i.uid) != Some(*i);
        let ensure: Vec<Instance> = instances.values().filter(news).cloned().collect();
        let remove = slices::instances_to_remove(rows, &host.id);
        let (settle, again) = self.settled_starts(core, host, rows, &acknowledged.settled);
        let settled =
            acknowledged.settled.iter().chain(&settle).filter(|(uid, _)| rows.nodes.contains_key(uid));
        let has = Slice { settled: settled.cloned().collect(), instances };
        let here = |h: &Option<HostId>| h.as_ref() == Some(&host.id);
        let whole = rows.lab.wanted == Wanted::Absent
            && !rows.nodes.values().any(|n| here(&n.host))
            && slices::wires_to_remove(rows, &host.id).is_empty();
        let nothing = ensure.is_empty() && remove.is_empty() && settle.is_empty() && !whole;
        ((!nothing).then_some(Work { settle, remove, whole, ensure, has }), again)
    }

    async fn tell(core: Arc<Scheduler>, host: HostClient, rows: Arc<LabRows>, work: Work) -> Result<Slice> {
        let lab = rows.lab.uid;
        if !work.settle.is_empty() {
            host.settle(&work.settle).await?;
            core.change(lab, |rows| {
                for (uid, start) in &work.settle {
                    if let Some(node) = rows.nodes.get_mut(uid) {
                        node.settled_start.clone_from(start);
                    }
                }
            })
            .await?;
        }
        let mut removed = Ok(());
        if !work.remove.is_empty() || work.whole {
            removed = remove(&core, &host, lab, &work).await;
        }
        if !work.ensure.is_empty() {
            let count = work.ensure.len();
            host.ensure_instances(work.ensure).await?;
            tracing::info!(instances = count, "instances told");
        }
        removed.map(|()| work.has)
    }
}

/// Removes instances and, of a lab that is gone, the rest; deletes the rows of what is gone. What stays is an error, so that it is tried again later.
async fn remove(core: &Scheduler, host: &HostClient, lab: LabUid, work: &Work) -> Result<()> {
    let uids: Vec<NodeUid> = work.remove.iter().copied().collect();
    let labs: Vec<LabUid> = work.whole.then_some(lab).into_iter().collect();
    let failures: BTreeMap<String, String> = host.remove_instances(&uids, &labs).await?.into_iter().collect();
    tracing::info!(
        instances = uids.len(),
        failures = failures.len(),
        whole = work.whole,
        "instances removed"
    );
    core.change(lab, |rows| {
        for uid in &uids {
            match failures.get(&uid.to_string()) {
                None => drop(rows.nodes.remove(uid)),
                Some(why) => {
                    if let Some(node) = rows.nodes.get_mut(uid) {
                        node.removal = format!("it could not be removed, tried again: {why}");
                    }
                }
            }
        }
        if work.whole && failures.is_empty() {
            rows.hosts.remove(&host.id);
        }
    })
    .await?;
    match failures.into_iter().next() {
        None => Ok(()),
        Some((uid, why)) => Err(host.could_not_remove(COMPUTE, &uid, &why)),
    }
}

impl Compute {
    /// The starts of a lab whose links are settled and were not said to be, and when the next one has had its time.
    fn settled_starts(
        &mut self,
        core: &Scheduler,
        host: &HostClient,
        rows: &LabRows,
        told: &BTreeSet<Start>,
    ) -> (Vec<Start>, Option<Instant>) {
        let bound = core.config.settle_bound();
        let mut settle = Vec::new();
        let mut again: Option<Instant> = None;
        for node in rows.nodes.values().filter(|n| n.is_wanted() && n.host.as_ref() == Some(&host.id)) {
            let observed =
                core.world.host(&host.id, |v| v.compute.instances.get(&node.uid).cloned()).flatten();
            let start = observed.as_ref().and_then(|o| waiting_start(node, o)).filter(|s| !told.contains(s));
            let Some(start) = start else {
                self.started.retain(|(uid, _), _| *uid != node.uid);
                continue;
            };
            let since = *self.started.entry(start.clone()).or_insert_with(Instant::now);
            let said_before = node.settled_start == start.1;
            if said_before || since.elapsed() >= bound || links_settled(core, host, rows, node, &start.1) {
                settle.push(start);
            } else {
                again = again.into_iter().chain([since + bound]).min();
            }
        }
        (settle, again)
    }
}

/// The current start, when its exec commands wait for the links.
fn waiting_start(node: &NodeRow, observed: &Observed) -> Option<Start> {
    let waits = observed.phase == Phase::Running
        && matches!(observed.exec_phase, ExecPhase::None | ExecPhase::Waiting)
        && !observed.start_id.is_empty();
    waits.then(|| (node.uid, observed.start_id.clone()))
}

/// True when every interface of this start is plugged, and every link is up or cannot come up as things are.
fn links_settled(core: &Scheduler, host: &HostClient, rows: &LabRows, node: &NodeRow, start: &str) -> bool {
    let plugged = |wire| {
        let of_start = |v: &crate::world::HostView| {
            v.network.nics.get(&wire).is_some_and(|n| n.present && n.start_id == start)
        };
        core.world.host(&host.id, of_start).unwrap_or(false)
    };
    rows.nics_of(node.uid).into_iter().all(|nic| {
        let Some(link) = rows.links.get(&nic.link_uid) else { return true };
        let other_is_dead =
            || ends(rows, link).into_iter().flatten().any(|n| n.uid != node.uid && facts::is_dead_end(n));
        plugged(nic.wire_id)
            && (matches!(link.state, LinkState::Up | LinkState::Failed)
                || link.host.is_none()
                || other_is_dead())
    })
}
