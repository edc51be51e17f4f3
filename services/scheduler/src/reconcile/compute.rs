//! Instances.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use netloom_model::id::{LabUid, NodeUid};
use netloom_model::observed::{ExecPhase, Observed, Phase, StagePoint};
use netloom_model::slice::Instance;
use netloom_model::spec::StageSpec;
use netloom_model::state::{LinkState, Wanted};
use tokio::time::Instant;

use super::{Again, Retry, Service};
use crate::client::{COMPUTE, HostClient};
use crate::error::Result;
use crate::facts;
use crate::rows::{Index, LabRows, NodeRow};
use crate::scheduler::Scheduler;
use crate::world::Heard;
use crate::{slices, stages};

/// Up to so many instances of a lab, a changed line of /etc/hosts is told at once.
const ENTRIES_AT_ONCE: usize = 256;
/// How often changed lines of /etc/hosts of a larger lab are told: each changes every instance, and each start brings one.
const ENTRIES_REST: Duration = Duration::from_secs(1);

/// A start of an instance.
type Start = (NodeUid, String);

/// What was told of a start.
#[derive(Clone, PartialEq)]
struct Told {
    /// The points it reached.
    reached: Vec<StagePoint>,
    /// The commands that were asked for then: others may have to be run.
    exec: Vec<String>,
    stages: Vec<StageSpec>,
}

/// Tells a host's compute service.
#[derive(Default)]
pub struct Compute {
    /// When each start that waits for its links was first seen.
    started: HashMap<Start, Instant>,
    /// When all instances of a lab were last told, their lines of /etc/hosts included.
    entries_told: HashMap<LabUid, Instant>,
}

/// What a host acknowledged of a lab.
#[derive(Default)]
pub struct Slice {
    instances: BTreeMap<NodeUid, Instance>,
    /// How far starts were said to be.
    told: BTreeMap<Start, Told>,
    stuck: Stuck,
}

/// What the host could not remove: that is tried again by itself, and holds up nothing else of the lab.
#[derive(Clone, Default)]
struct Stuck {
    uids: BTreeSet<NodeUid>,
    retry: Retry,
}

impl Stuck {
    /// Notes what came of removals.
    fn note(&mut self, asked: &BTreeSet<NodeUid>, failed: BTreeSet<NodeUid>) {
        self.uids.retain(|uid| !asked.contains(uid));
        if !failed.is_empty() {
            self.retry.failed();
            self.uids.extend(failed);
        } else if self.uids.is_empty() {
            self.retry = Retry::default();
        }
    }
}

/// What is to be told of a lab.
pub struct Work {
    settle: BTreeMap<Start, Told>,
    /// Starts whose links are settled, which is written down.
    settled: Vec<Start>,
    remove: BTreeSet<NodeUid>,
    /// True when nothing of the lab is left on the host but its files and networks, which are of no use there.
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
        let of = |r: &Arc<LabRows>| Slice {
            instances: slices::instances(r, &host.id, &core.catalogue),
            ..Slice::default()
        };
        let has: HashMap<LabUid, Slice> = labs.iter().map(|r| (r.lab.uid, of(r))).collect();
        let instances: Vec<Instance> = has.values().flat_map(|s| s.instances.values()).cloned().collect();
        renew_for(core, host, &instances).await?;
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
    ) -> (Option<Work>, Option<Again>) {
        let none = Slice::default();
        let acknowledged = acknowledged.unwrap_or(&none);
        let instances = slices::instances(rows, &host.id, &core.catalogue);
        let rest = self.entries_told.get(&rows.lab.uid).map(|t| *t + ENTRIES_REST);
        let rest = rest.filter(|t| instances.len() > ENTRIES_AT_ONCE && *t > Instant::now());
        let Tell { ensure, instances, held } = to_tell(instances, &acknowledged.instances, rest.is_some());
        if !ensure.is_empty() && rest.is_none() {
            self.entries_told.insert(rows.lab.uid, Instant::now());
        }
        let mut remove = slices::instances_to_remove(rows, &host.id);
        let stuck = acknowledged.stuck.clone();
        let later = stuck.retry.not_before().filter(|_| !remove.is_disjoint(&stuck.uids));
        if later.is_some() {
            remove.retain(|uid| !stuck.uids.contains(uid));
        }
        let Starts { settle, settled, again } = self.starts(core, host, rows, &acknowledged.told);
        let awaited = again.into_iter().chain(rest.filter(|_| held)).min();
        let again = awaited.into_iter().chain(later).min();
        let again = again.map(|at| Again { at, only_removals: awaited.is_none() });
        let mut told = acknowledged.told.clone();
        told.extend(settle.clone());
        told.retain(|(uid, _), _| rows.nodes.contains_key(uid));
        let has = Slice { told, instances, stuck };
        let whole = slices::is_left_by(rows, &host.id);
        let nothing =
            ensure.is_empty() && remove.is_empty() && settle.is_empty() && settled.is_empty() && !whole;
        ((!nothing).then_some(Work { settle, settled, remove, whole, ensure, has }), again)
    }

    async fn tell(
        core: Arc<Scheduler>,
        host: HostClient,
        rows: Arc<LabRows>,
        mut work: Work,
    ) -> Result<Slice> {
        let lab = rows.lab.uid;
        // Nodes may have been placed here meanwhile, whose files are about to come.
        let cleaned = work.whole.then(|| core.world.clean(lab, &host.id));
        let has_left = |rows: &LabRows| slices::is_left_by(rows, &host.id);
        work.whole &= core.store.rows(lab).is_some_and(|rows| has_left(&rows));
        // What leaves holds up nothing else: a node whose name it has is not told yet.
        let leave = async {
            match work.remove.is_empty() && !work.whole {
                true => Ok(BTreeSet::new()),
                false => remove(&core, &host, lab, &work).await,
            }
        };
        let (removed, told) = tokio::join!(leave, tell_all(&core, &host, lab, &work));
        drop(cleaned);
        told?;
        work.has.stuck.note(&work.remove, removed?);
        Ok(work.has)
    }
}

/// Tells what instances are to be like, then how far their starts are: commands that changed are known before they are due.
async fn tell_all(core: &Scheduler, host: &HostClient, lab: LabUid, work: &Work) -> Result<()> {
    renew_for(core, host, &work.ensure).await?;
    if !work.ensure.is_empty() {
        host.ensure_instances(work.ensure.clone()).await?;
        tracing::info!(instances = work.ensure.len(), "instances told");
    }
    if !work.settle.is_empty() {
        let starts =
            work.settle.iter().map(|((uid, start), told)| (*uid, start.clone(), told.reached.clone()));
        host.settle(starts.collect()).await?;
    }
    if work.settled.is_empty() {
        return Ok(());
    }
    core.change("scheduler.settled", lab, |rows| {
        for (uid, start) in &work.settled {
            if let Some(node) = rows.nodes.get_mut(uid) {
                node.settled_start.clone_from(start);
            }
        }
    })
    .await
}

/// What is told of has its lease from then on: else it would not run before the next renewal.
async fn renew_for(core: &Scheduler, host: &HostClient, instances: &[Instance]) -> Result<()> {
    if instances.iter().any(|i| i.lease.is_some()) && core.store.leads().await? {
        host.renew().await?;
    }
    Ok(())
}

/// What of a lab's instances is told now.
struct Tell {
    ensure: Vec<Instance>,
    /// What the host has then.
    instances: BTreeMap<NodeUid, Instance>,
    /// True when lines of /etc/hosts are left for later.
    held: bool,
}

/// The instances that a host does not have alike; those of which only lines of /etc/hosts differ can be left for later.
fn to_tell(
    mut instances: BTreeMap<NodeUid, Instance>,
    known: &BTreeMap<NodeUid, Instance>,
    hold_entries: bool,
) -> Tell {
    let (mut ensure, mut held) = (Vec::new(), false);
    for (uid, instance) in &mut instances {
        let Some(old) = known.get(uid) else {
            ensure.push(instance.clone());
            continue;
        };
        if instance == old {
            continue;
        }
        if hold_entries {
            let entries = std::mem::replace(&mut instance.host_entries, old.host_entries.clone());
            if instance == old {
                held = true;
                continue;
            }
            instance.host_entries = entries;
        }
        ensure.push(instance.clone());
    }
    Tell { ensure, instances, held }
}

/// Removes instances and, of a lab that is gone, the rest; deletes the rows of what is gone. Says which instances stay; a rest that does is an error.
async fn remove(core: &Scheduler, host: &HostClient, lab: LabUid, work: &Work) -> Result<BTreeSet<NodeUid>> {
    let uids: Vec<NodeUid> = work.remove.iter().copied().collect();
    let labs: Vec<LabUid> = work.whole.then_some(lab).into_iter().collect();
    let answer = host.remove_instances(&uids, &labs).await;
    if work.whole {
        let why = match &answer {
            Ok(failures) => {
                failures.iter().find(|(uid, _)| *uid == lab.to_string()).map(|(_, why)| why.clone())
            }
            Err(e) => Some(e.to_string()),
        };
        if core.world.note_left(lab, &host.id, why) {
            core.touch_operation(lab).await?;
        }
    }
    let failures: BTreeMap<String, String> = answer?.into_iter().collect();
    tracing::info!(
        instances = uids.len(),
        failures = failures.len(),
        whole = work.whole,
        "instances removed"
    );
    core.change("scheduler.removed", lab, |rows| {
        for uid in &uids {
            match failures.get(&uid.to_string()) {
                // One that is wanted again meanwhile is made anew by what is told next.
                None => rows.nodes.retain(|id, n| id != uid || n.wanted != Wanted::Absent),
                Some(why) => {
                    if let Some(node) = rows.nodes.get_mut(uid).filter(|n| n.wanted == Wanted::Absent) {
                        node.removal = format!("it could not be removed, tried again: {why}");
                    }
                }
            }
        }
        if work.whole && failures.is_empty() && slices::is_left_by(rows, &host.id) {
            rows.hosts.remove(&host.id);
        }
    })
    .await?;
    if let Some(why) = failures.get(&lab.to_string()) {
        return Err(host.could_not_remove(COMPUTE, &lab.to_string(), why));
    }
    let stay: BTreeSet<NodeUid> =
        uids.into_iter().filter(|uid| failures.contains_key(&uid.to_string())).collect();
    if let Some((uid, why)) = failures.first_key_value() {
        tracing::warn!(host = %host.id, instances = stay.len(), "tried again later: {}", host.could_not_remove(COMPUTE, uid, why));
    }
    Ok(stay)
}

/// What is to be said of starts.
#[derive(Default)]
struct Starts {
    settle: BTreeMap<Start, Told>,
    settled: Vec<Start>,
    /// When the next one has waited long enough for its links.
    again: Option<Instant>,
}

impl Compute {
    /// How far the starts of a lab are that were not said to be so far.
    fn starts(
        &mut self,
        core: &Scheduler,
        host: &HostClient,
        rows: &LabRows,
        told: &BTreeMap<Start, Told>,
    ) -> Starts {
        let bound = core.config.settle_bound();
        let mut starts = Starts::default();
        let index = rows.index();
        for node in rows.nodes.values().filter(|n| n.is_wanted() && n.host.as_ref() == Some(&host.id)) {
            let observed =
                core.world.host(&host.id, |v| v.compute.instances.get(&node.uid).cloned()).flatten();
            let running = observed.filter(|o| o.phase == Phase::Running && !o.start_id.is_empty());
            let Some(observed) = running else {
                self.started.retain(|(uid, _), _| *uid != node.uid);
                continue;
            };
            if node.observed.as_deref().is_none_or(|o| o.start_id != observed.start_id) {
                // The rows are about to follow, and wake this loop.
                continue;
            }
            let start = (node.uid, observed.start_id.clone());
            let mut settled = node.settled_start == start.1;
            if !settled && !stages::keeps_links_back(rows, node) {
                let since = *self.started.entry(start.clone()).or_insert_with(Instant::now);
                settled = since.elapsed() >= bound || links_settled(core, host, &index, node, &start.1);
                if settled {
                    starts.settled.push(start.clone());
                } else {
                    starts.again = starts.again.into_iter().chain([since + bound]).min();
                }
            }
            if settled {
                self.started.remove(&start);
            }
            let reached = stages::reached(rows, node, settled);
            let next = Told { reached, exec: node.spec.exec.clone(), stages: node.spec.stages.clone() };
            let before = told.get(&start);
            // After a restart of this scheduler only what still waits is said again.
            let news = match before {
                Some(before) => *before != next,
                None => is_waiting(&observed) || !next.stages.is_empty(),
            };
            if news && !next.reached.is_empty() {
                starts.settle.insert(start, next);
            }
        }
        starts
    }
}

/// True when the exec commands of a start wait to be released.
fn is_waiting(observed: &Observed) -> bool {
    matches!(observed.exec_phase, ExecPhase::None | ExecPhase::Waiting)
}

/// True when every interface of this start is plugged, and every link is up or cannot come up as things are.
fn links_settled(
    core: &Scheduler,
    host: &HostClient,
    index: &Index<'_>,
    node: &NodeRow,
    start: &str,
) -> bool {
    let rows = index.rows;
    let plugged = |wire| {
        let of_start = |v: &crate::world::HostView| {
            v.network.nics.get(&wire).is_some_and(|n| n.present && n.start_id == start)
        };
        core.world.host(&host.id, of_start).unwrap_or(false)
    };
    index.nics_of(node.uid).iter().all(|nic| {
        let Some(link) = nic.link_uid.and_then(|uid| rows.links.get(&uid)) else { return true };
        let other_is_dead = || {
            let mut others = index.ends(link).flatten().filter(|n| n.uid != node.uid);
            others.any(|n| facts::is_dead_end(n) || stages::keeps_links_back(rows, n))
        };
        // That comes with the next start only.
        link.needs_restart()
            || plugged(nic.wire_id)
                && (matches!(link.state, LinkState::Up | LinkState::Failed)
                    || link.host.is_none()
                    || !link.enabled
                    || other_is_dead())
    })
}

#[cfg(test)]
mod tests {
    use netloom_model::slice::HostEntry;
    use netloom_model::spec::NodeSpec;
    use netloom_model::state::Runtime;

    use super::*;

    fn instance(uid: NodeUid, address: &str) -> Instance {
        let entry = HostEntry { address: address.into(), names: vec!["a".into()] };
        Instance {
            uid,
            lab_uid: LabUid::new(),
            lab: "lab".parse().unwrap(),
            name: "x".into(),
            spec: NodeSpec::default().into(),
            runtime: Runtime::Docker,
            wanted: Wanted::Running,
            interfaces: Vec::new(),
            network: None,
            files: Vec::new(),
            host_entries: vec![entry].into(),
            spec_hash: "h".into(),
            restarts: 0,
            held: false,
            certificate: None,
            network_of: None,
            readiness: None,
            image_digest: String::new(),
            wipes: 0,
            restore: String::new(),
            lease: None,
            disk_of: None,
            nics: Vec::new(),
        }
    }

    #[test]
    fn lines_of_hosts_can_wait_and_nothing_else() {
        let (a, b, c) = (NodeUid::new(), NodeUid::new(), NodeUid::new());
        let known: BTreeMap<_, _> = [a, b].map(|uid| (uid, instance(uid, "10.0.0.1"))).into();
        let mut now = known.clone();
        now.values_mut().for_each(|i| i.host_entries[0].address = "10.0.0.2".into());
        now.get_mut(&b).unwrap().wanted = Wanted::Stopped;
        now.insert(c, instance(c, "10.0.0.2"));
        let uids = |tell: &Tell| tell.ensure.iter().map(|i| i.uid).collect::<BTreeSet<_>>();

        let all = to_tell(now.clone(), &known, false);
        assert_eq!((uids(&all), all.held), ([a, b, c].into(), false));
        assert_eq!(all.instances, now);

        let some = to_tell(now.clone(), &known, true);
        assert_eq!((uids(&some), some.held), ([b, c].into(), true));
        assert_eq!(some.instances[&a], known[&a], "what was held back is not taken for told");
        assert_eq!(some.instances[&b], now[&b]);
        // Later they are told.
        let rest = to_tell(now.clone(), &some.instances, false);
        assert_eq!((uids(&rest), rest.held), ([a].into(), false));
        assert!(to_tell(now.clone(), &rest.instances, true).ensure.is_empty());
    }
}
