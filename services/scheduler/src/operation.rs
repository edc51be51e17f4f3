//! Operations: a deploy or a removal, watched until it is done.
//!
//! An operation does nothing itself: its intents were written with it, and reconcilers bring them about. This task, woken by signal and timer, looks at
//! the rows and says when it is over. So a scheduler that was killed in the middle goes on where it was: what is to be done is in the rows.
//!
//! Once all that a deploy asked for is there and has been so for a moment, what was set aside for it is removed. Until then a cancel, or the former spec, has it back.
//! That removal is waited for, but not for ever: reconcilers go on with it when nobody waits.
//!
//! A deploy is over when its hosts acknowledged everything, nothing is left to remove, every node is settled and at the end of its stages, and every link between
//! ready nodes is up or had its time; and when all certificates are issued. What waits by its stages for something that cannot come about is not waited for. An
//! operation of some nodes asks the same of those and their links. What a host refuses for good ends it at once.

mod failures;
mod health;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use netloom_model::failure::{Code, Failure};
use netloom_model::id::{HostId, LinkUid, NodeUid, OperationId};
use netloom_model::plan::{Action, Object, Plan, Verb};
use netloom_model::state::{LinkState, NodeState, Runtime, Wanted};
use netloom_service::Shutdown;
use netloom_service::pace::Pace;
use tokio::time::Instant;

use self::failures::{host_refused, lab_removed};
use self::health::{Health, health, is_ill};
use crate::client::{COMPUTE, NETWORK};
use crate::error::Result;
use crate::facts::BACK;
use crate::rows::{Index, LabRows, LinkRow, NodeRow, OperationKind, OperationRow, OperationState, now_us};
use crate::scheduler::{LONGEST_REST, Scheduler};
use crate::store::progress;
use crate::world::HostView;
use crate::{certificates, slices, stages};

/// How often active operations are looked at although nothing happened.
const TICK: Duration = Duration::from_secs(1);
/// Longest rest before they are looked at again, when little is to come.
const SHORT_REST: Duration = Duration::from_millis(10);
/// How many nodes and links a failed operation's message names.
const NAMED: usize = 20;

/// What is known of an active operation beside its row.
struct Watched {
    /// The rows' revision when it was first seen: what hosts acknowledged before does not count.
    revision: u64,
    /// Since when both nodes of a link are ready and it is not up.
    late: HashMap<LinkUid, Instant>,
    /// When its hosts had acknowledged everything.
    acknowledged_us: Option<i64>,
    /// Since when everything is as asked for.
    well: Option<Instant>,
    /// The start of each node that it starts and that runs, and since when it was seen.
    started: HashMap<NodeUid, (String, Instant)>,
    /// Since when nothing but removals is waited for.
    removing: Option<Instant>,
    /// Certificates were still to be issued when it was last looked at.
    awaits_certificates: bool,
}

/// How long after an acknowledgement a host's word may still be from before it.
const STALE: Duration = Duration::from_millis(20);
/// How much later than a node's start its host's word of it comes at most, as far as the start is believed.
const LATE: Duration = Duration::from_millis(50);
/// How soon to look again while a host's next word is waited for.
const SOON: Duration = Duration::from_millis(25);

/// Watches active operations for ever.
pub async fn run(core: Arc<Scheduler>, shutdown: Shutdown) {
    let (mut revision, mut answers) = (core.store.subscribe(), core.world.subscribe_answers());
    let mut watched: BTreeMap<OperationId, Watched> = BTreeMap::new();
    let mut pace = Pace::new(LONGEST_REST);
    loop {
        revision.borrow_and_update();
        answers.borrow_and_update();
        let wake = match pass(&core, &mut watched).await {
            Ok(wake) => wake,
            Err(e) => {
                tracing::error!("operations could not be looked at, tried again: {e}");
                None
            }
        };
        pace.looked();
        let tick = Instant::now() + TICK;
        let woken = async {
            tokio::select! {
                _ = revision.changed() => {}
                _ = answers.changed() => {}
                () = tokio::time::sleep_until(wake.map_or(tick, |w| w.min(tick))) => {}
            }
            core.rest(&pace, SHORT_REST).await;
        };
        tokio::select! {
            () = woken => {}
            () = shutdown.cancelled() => return,
        }
    }
}

async fn pass(core: &Scheduler, watched: &mut BTreeMap<OperationId, Watched>) -> Result<Option<Instant>> {
    let operations = core.store.active_operations();
    watched.retain(|id, _| operations.iter().any(|o| o.id == *id));
    let mut wake: Option<Instant> = None;
    for operation in operations {
        let revision = core.store.revision_of(operation.lab_uid);
        let seen = watched.entry(operation.id).or_insert_with(|| Watched {
            revision,
            late: HashMap::new(),
            acknowledged_us: None,
            well: None,
            started: HashMap::new(),
            removing: None,
            awaits_certificates: false,
        });
        let rows = core.store.rows(operation.lab_uid);
        let verdict = match (operation.kind, &rows) {
            (OperationKind::Destroy, None) => Some(Ok(())),
            (OperationKind::Destroy, Some(_)) => None,
            (_, None) => Some(Err(lab_removed(&operation))),
            (_, Some(rows)) => judge(core, &operation, rows, seen, &mut wake),
        };
        let is_well = verdict.as_ref().is_some_and(|v| v.is_ok());
        let well = *seen.well.get_or_insert_with(Instant::now);
        if !is_well {
            seen.well = None;
        }
        match (verdict, &rows) {
            (Some(Ok(())), Some(rows)) => {
                // Only a deploy of the whole lab says that it is good as it is: after one that failed, a link may well be changed.
                let releases = operation.kind.replaces() && keeps(rows, &operation);
                // A process that cannot do its work mostly ends as soon as it begins: it is not left before.
                let last = note_starts(rows, &operation.plan, &mut seen.started);
                let lasts = last.map(|t| t + core.config.start_watch()).filter(|_| !operation.released);
                // Also where nothing takes the place of what was dropped: whoever sees that it is missed can cancel.
                let is_kept = releases && !operation.released;
                let proven = if is_kept { well + core.config.aside_watch() } else { well };
                let proven = lasts.map_or(proven, |t| t.max(proven));
                let watches = operation.kind.replaces() && !operation.released;
                let health = if watches { health(rows, &seen.started, well) } else { Health::Told };
                if let Health::Silent(nodes) = health {
                    end(core, &operation, Err(incomplete(rows, &nodes, &[]))).await?;
                } else if let Health::Awaited(until) = health {
                    wake = wake.into_iter().chain([until]).min();
                } else if proven > Instant::now() {
                    wake = wake.into_iter().chain([proven]).min();
                } else if releases {
                    seen.removing = None;
                    release(core, &operation, rows).await?;
                } else {
                    end(core, &operation, Ok(())).await?;
                }
            }
            (Some(verdict), _) => end(core, &operation, verdict).await?,
            (None, _) => {}
        }
    }
    Ok(wake)
}

/// Whether an operation on rows that are there is over, and how; none while something better may come by waiting.
fn judge(
    core: &Scheduler,
    operation: &OperationRow,
    rows: &LabRows,
    seen: &mut Watched,
    wake: &mut Option<Instant>,
) -> Option<Result<(), Failure>> {
    let mut wake_at = |at: Option<Instant>| *wake = (*wake).into_iter().chain(at).min();
    let bound = core.config.link_bound();
    wake_at(note_late_links(rows, &mut seen.late, bound));
    if let Some(refused) = core.world.refusal(operation.lab_uid, seen.revision) {
        return Some(Err(host_refused(rows, refused)));
    }
    if operation.kind.is_of_spec() && !certificates::awaited(rows).is_empty() {
        seen.awaits_certificates = true;
        return None;
    }
    if std::mem::take(&mut seen.awaits_certificates) {
        // What hosts acknowledged before they were told of them does not count.
        (seen.revision, seen.acknowledged_us) = (core.store.revision_of(operation.lab_uid), None);
    }
    let mut left = operation.released.then_some(Ok(()));
    let asked = Asked::of(core, operation, rows);
    if acknowledged(core, rows, seen.revision, &asked.silent) {
        let acknowledged_us = *seen.acknowledged_us.get_or_insert_with(now_us);
        if heard_since(core, rows, &operation.plan, acknowledged_us) {
            note_starts(rows, &operation.plan, &mut seen.started);
            let late = |link| seen.late.get(&link).is_some_and(|t| t.elapsed() >= bound);
            let over = verdict(rows, &asked, late, Removals::Awaited);
            if over.is_some() {
                seen.removing = None;
                return over;
            }
            left = left.or_else(|| verdict(rows, &asked, late, Removals::Left));
        } else {
            wake_at(Some(Instant::now() + SOON));
        }
    }
    // What cannot be removed now, since its host does not answer or something holds it, is removed whenever it can be. One that was released brought about
    // all that it was for, whatever is heard since.
    if left.is_none() {
        seen.removing = None;
        return None;
    }
    let over = *seen.removing.get_or_insert_with(Instant::now) + core.config.removal_bound();
    if over > Instant::now() {
        wake_at(Some(over));
        return None;
    }
    left
}

/// True when every host of the lab acknowledged its part as of this revision, those aside that are not waited for.
fn acknowledged(core: &Scheduler, rows: &LabRows, revision: u64, silent: &BTreeSet<HostId>) -> bool {
    let by = |host, service| core.world.has_acknowledged(host, service, rows.lab.uid, revision);
    rows.hosts.iter().filter(|h| !silent.contains(*h)).all(|h| by(h, COMPUTE) && by(h, NETWORK))
}

/// What an operation asks for.
#[derive(Default)]
struct Asked {
    /// The nodes it is about, with their links; none when it is about the whole lab.
    of: Option<BTreeSet<NodeUid>>,
    /// True when it is over only when all is gone that is to leave.
    leaving: bool,
    /// Hosts that it does not wait for: those that nodes were moved away from by force.
    silent: BTreeSet<HostId>,
}

impl Asked {
    fn whole() -> Asked {
        Asked { leaving: true, ..Asked::default() }
    }

    fn of(core: &Scheduler, operation: &OperationRow, rows: &LabRows) -> Asked {
        match operation.kind {
            OperationKind::Move => {
                let heard = |h: &&HostId| core.world.host(h, HostView::is_heard).unwrap_or(false);
                let silent = rows.hosts.iter().filter(|h| !heard(h)).cloned().collect();
                Asked { of: Some(moved_by(rows, &operation.plan)), leaving: true, silent }
            }
            kind if kind.is_of_nodes() => {
                Asked { of: Some(nodes_of(rows, &operation.plan)), ..Asked::default() }
            }
            _ => Asked::whole(),
        }
    }
}

/// The nodes that a plan moves: the shown ones, and their successors.
fn moved_by(rows: &LabRows, plan: &Plan) -> BTreeSet<NodeUid> {
    let of_nodes = plan.actions.iter().filter(|a| a.object == Object::Node);
    let ids: BTreeSet<String> = of_nodes.map(|a| a.id.to_ascii_lowercase()).collect();
    let there = |n: &&NodeRow| n.wanted.stays() && ids.contains(&n.id.folded());
    rows.nodes.values().filter(there).map(|n| n.uid).collect()
}

/// True when what hosts say is of a time after they acknowledged: what is changed in place looks the same before and after.
fn heard_since(core: &Scheduler, rows: &LabRows, plan: &Plan, acknowledged_us: i64) -> bool {
    use Verb as V;
    let in_place = |verb| matches!(verb, V::Update | V::Start | V::Stop | V::Restart | V::Wipe | V::Restore);
    if !plan.actions.iter().any(|a| in_place(a.verb)) {
        return true;
    }
    let since = acknowledged_us + i64::try_from(STALE.as_micros()).unwrap_or_default();
    core.world.heard_us(rows.hosts.iter()) > since || rows.hosts.is_empty()
}

/// The nodes that a plan is about.
fn nodes_of(rows: &LabRows, plan: &Plan) -> BTreeSet<NodeUid> {
    let of_nodes = plan.actions.iter().filter(|a| a.object == Object::Node);
    of_nodes.filter_map(|a| rows.node(&a.id.to_ascii_lowercase())).map(|n| n.uid).collect()
}

/// Notes since when the nodes that a plan starts run; says when the last of them began to. One that was started again begins anew.
fn note_starts(
    rows: &LabRows,
    plan: &Plan,
    started: &mut HashMap<NodeUid, (String, Instant)>,
) -> Option<Instant> {
    use Verb as V;
    let starts =
        |verb| matches!(verb, V::Create | V::Recreate | V::Start | V::Restart | V::Wipe | V::Restore);
    let runs = |n: &NodeRow| n.runtime != Runtime::Bridge && n.state.is_running();
    let told = rows.told();
    let of_nodes = plan.actions.iter().filter(|a| a.object == Object::Node && starts(a.verb));
    let running: Vec<&NodeRow> =
        of_nodes.filter_map(|a| told.get(&a.id.to_ascii_lowercase()).copied()).filter(|n| runs(n)).collect();
    let before = std::mem::take(started);
    for node in running {
        let start = node.observed.as_deref().map(|o| o.start_id.clone()).unwrap_or_default();
        let since = before.get(&node.uid).filter(|(s, _)| *s == start).map(|(_, since)| *since);
        started.insert(node.uid, (start, since.unwrap_or_else(|| began(node))));
    }
    started.values().map(|(_, since)| *since).max()
}

/// When a node that was just seen to run began to: as its host says, whose word may come so much later and not more, whatever its clock shows.
fn began(node: &NodeRow) -> Instant {
    let start_us = node.observed.as_deref().map(|o| o.start_time_us).filter(|us| *us > 0);
    let ran = start_us.map_or(0, |us| u64::try_from(now_us().saturating_sub(us)).unwrap_or_default());
    Instant::now() - Duration::from_micros(ran).min(LATE)
}

/// True when its nodes are ready and it is plugged, so that the link is only waited for by itself.
fn is_due(index: &Index<'_>, link: &LinkRow) -> bool {
    let ready = |n: Option<&NodeRow>| {
        n.is_some_and(|n| n.state == NodeState::Ready && !stages::keeps_links_back(index.rows, n))
    };
    // One that is up says what of it is still to come.
    let done = matches!(link.state, LinkState::Up) && link.reason.is_empty();
    link.is_wanted()
        && link.enabled
        && !done
        && link.state != LinkState::Failed
        // Nobody waits for what only a start that is not asked for brings about.
        && !link.needs_restart()
        && index.ends(link).all(ready)
}

/// True while an operation still has something to bring about beside removing what lost its place.
pub fn is_under_way(rows: &LabRows) -> bool {
    let any_due = || {
        let index = rows.index();
        rows.links.values().any(|l| is_due(&index, l))
    };
    rows.operation.is_some()
        && (rows.nodes.values().any(|n| n.is_aside() || (n.is_wanted() && !n.state.is_settled(n.wanted)))
            || any_due())
}

/// Notes since when links are late; says when the first of them has had its time.
fn note_late_links(rows: &LabRows, late: &mut HashMap<LinkUid, Instant>, bound: Duration) -> Option<Instant> {
    let index = rows.index();
    late.retain(|uid, _| rows.links.get(uid).is_some_and(|l| is_due(&index, l)));
    for link in rows.links.values().filter(|l| is_due(&index, l)) {
        late.entry(link.uid).or_insert_with(Instant::now);
    }
    late.values().map(|t| *t + bound).filter(|t| *t > Instant::now()).min()
}

/// Whether the removal of nodes, with their interfaces, is waited for. That of links and of interfaces of nodes that stay always is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Removals {
    /// It is.
    Awaited,
    /// It had its time, and goes on by itself.
    Left,
}

/// True while something is to be removed that is waited for.
fn is_leaving(rows: &LabRows, removals: Removals, silent: &BTreeSet<HostId>) -> bool {
    let is_awaited = |n: &NodeRow| removals == Removals::Awaited || n.wanted != Wanted::Absent;
    let awaited = |node| rows.nodes.get(&node).map_or(removals == Removals::Awaited, is_awaited);
    let answers = |host: &Option<HostId>| host.as_ref().is_none_or(|host| !silent.contains(host));
    rows.nodes.values().any(|n| n.wanted == Wanted::Absent && is_awaited(n) && answers(&n.host))
        || rows.links.values().any(|l| l.wanted == Wanted::Absent && l.hosts().any(|h| !silent.contains(h)))
        || slices::removes_nics(rows, |nic| awaited(nic.node_uid) && answers(&nic.host))
}

/// Whether an operation is over, and how; none while something better may come by waiting. It is about some nodes and their links, or the whole lab.
fn verdict(
    rows: &LabRows,
    asked: &Asked,
    has_had_its_time: impl Fn(LinkUid) -> bool,
    removals: Removals,
) -> Option<Result<(), Failure>> {
    let of = asked.of.as_ref();
    let hopeless: BTreeMap<NodeUid, String> =
        stages::waits(rows).into_iter().filter(|(_, w)| w.hopeless).map(|(uid, w)| (uid, w.reason)).collect();
    let is_left = |n: &NodeRow| removals == Removals::Left && n.wanted == Wanted::Absent;
    let nodes = || rows.nodes.values().filter(|n| of.is_none_or(|of| of.contains(&n.uid)) && !is_left(n));
    let goes_on = |n: &NodeRow| {
        let unsettled = !n.state.is_settled(n.wanted) || stages::is_unfinished(n);
        (!hopeless.contains_key(&n.uid) && unsettled) || (asked.leaving && rows.has_files_due(n))
    };
    if (asked.leaving && is_leaving(rows, removals, &asked.silent)) || nodes().any(goes_on) {
        return None;
    }
    let index = rows.index();
    let touched = |l: &LinkRow| of.is_none_or(|of| index.ends(l).flatten().any(|n| of.contains(&n.uid)));
    let due = |l: &LinkRow| touched(l) && is_due(&index, l);
    if rows.links.values().any(|l| due(l) && !has_had_its_time(l.uid)) {
        return None;
    }
    let mut at_fault: Vec<&NodeRow> =
        nodes().filter(|n| is_at_fault(n) || hopeless.contains_key(&n.uid)).collect();
    at_fault.sort_by(|a, b| a.id.cmp(&b.id));
    let mut links: Vec<&LinkRow> =
        rows.links.values().filter(|l| (touched(l) && l.state == LinkState::Failed) || due(l)).collect();
    links.sort_by(|a, b| a.id.cmp(&b.id));
    if at_fault.is_empty() && links.is_empty() {
        return Some(Ok(()));
    }
    Some(Err(incomplete(rows, &at_fault, &links)))
}

/// Whether a deploy that changes nothing is over, and how; none while something better may come by waiting. A host that is not heard of is not waited for.
pub fn unchanged_verdict(rows: &LabRows) -> Option<Result<(), Failure>> {
    if rows.nodes.values().all(|n| n.state != NodeState::Unknown) {
        return verdict(rows, &Asked::whole(), |_| false, Removals::Awaited);
    }
    let not_ready = |n: &&NodeRow| n.state == NodeState::Unknown || is_at_fault(n);
    let mut nodes: Vec<&NodeRow> = rows.nodes.values().filter(not_ready).collect();
    nodes.sort_by(|a, b| a.id.cmp(&b.id));
    Some(Err(incomplete(rows, &nodes, &[])))
}

/// True for a settled node that is not what was asked for. One whose process ended by itself did what was asked of it when its exit code is 0.
fn is_at_fault(node: &NodeRow) -> bool {
    match node.state {
        // Whatever is wanted of it: what it was has the only disk.
        _ if node.disk_due => true,
        NodeState::Failed | NodeState::Unschedulable => node.wanted == Wanted::Running,
        NodeState::Stopped => node.wanted == Wanted::Running && exit_code(node) != Some(0),
        NodeState::Ready => is_ill(node),
        _ => false,
    }
}

fn exit_code(node: &NodeRow) -> Option<i32> {
    node.observed.as_deref().and_then(|o| o.exit_code)
}

fn what_happened(node: &NodeRow) -> String {
    match (node.state, exit_code(node)) {
        (NodeState::Stopped, Some(code)) => format!("its process ended with exit code {code}"),
        (NodeState::Stopped, None) => "its process ended, with an exit code that is not known".to_owned(),
        _ => node.reason.clone(),
    }
}

/// True while something is set aside: it goes once everything has been as asked for as long as a start is watched.
fn keeps(rows: &LabRows, operation: &OperationRow) -> bool {
    rows.nodes.values().any(|n| n.is_aside() && releases(rows, operation, n))
}

/// True when an operation that succeeds removes what is set aside of this node: a deploy all of it, a move what it put there itself.
fn releases(rows: &LabRows, operation: &OperationRow, node: &NodeRow) -> bool {
    let is_moved = |id: &str| {
        let of_node = |a: &Action| a.object == Object::Node && a.id.eq_ignore_ascii_case(id);
        operation.plan.actions.iter().any(of_node)
    };
    let is_elsewhere = || rows.node(&node.id.folded()).is_some_and(|shown| shown.host != node.host);
    operation.kind == OperationKind::Deploy || (is_moved(node.id.as_str()) && is_elsewhere())
}

/// All that was asked for is there: what was set aside for it is to be gone. Nothing if the rows are others by now.
async fn release(core: &Scheduler, seen: &OperationRow, rows: &Arc<LabRows>) -> Result<()> {
    let mut tx = core.store.begin("scheduler.release").await?;
    let operation = tx.operation(seen.id).await?.filter(|o| o.state == OperationState::Running);
    let before = tx.rows(seen.lab_uid).filter(|now| Arc::ptr_eq(now, rows));
    let (Some(mut operation), Some(before)) = (operation, before) else { return Ok(()) };
    let mut after = (*before).clone();
    let goes = |n: &&NodeRow| n.is_aside() && releases(&before, &operation, n);
    let aside: Vec<NodeUid> = before.nodes.values().filter(goes).map(|n| n.uid).collect();
    let count = aside.len();
    after.nodes.values_mut().filter(|n| aside.contains(&n.uid)).for_each(|n| n.wanted = Wanted::Absent);
    after.kept.clear();
    tracing::info!(lab = %operation.lab, operation = %operation.id, count, "all is there; what was before is removed");
    operation.released = true;
    operation.update_us = tx.now();
    tx.put_operation(&operation).await?;
    core.refresh(&tx, &mut after);
    tx.save(Some(&before), after).await?;
    tx.commit().await?;
    core.room_appeared();
    Ok(())
}

fn incomplete(rows: &LabRows, nodes: &[&NodeRow], links: &[&LinkRow]) -> Failure {
    let of = |n: usize, all: usize, what: &str| format!("{n} of {all} {what}");
    let all_nodes = rows.nodes.values().filter(|n| n.is_wanted()).count();
    let all_links = rows.links.values().filter(|l| !l.replaced).count();
    let mut message = match (nodes.len(), links.len()) {
        (n, 0) => of(n, all_nodes, "nodes"),
        (0, l) => of(l, all_links, "links"),
        (n, l) => format!("{} and {}", of(n, all_nodes, "nodes"), of(l, all_links, "links")),
    };
    message.push_str(" did not come up");
    // What is the reason of several is told once.
    let mut told: Vec<(String, Vec<&str>)> = Vec::new();
    let why = nodes.iter().map(|n| (n.id.as_str(), format!("{}: {}", n.state, what_happened(n))));
    let why = why.chain(links.iter().map(|l| (l.id.as_str(), format!("{}: {}", l.state, l.reason))));
    for (id, why) in why.take(NAMED) {
        match told.iter_mut().find(|(w, _)| *w == why) {
            Some((_, ids)) => ids.push(id),
            None => told.push((why, vec![id])),
        }
    }
    message.extend(told.into_iter().map(|(why, ids)| format!("\n  {}: {why}", ids.join(", "))));
    if nodes.len() + links.len() > NAMED {
        message.push_str(&format!("\n  and {} more", nodes.len() + links.len() - NAMED));
    }
    let mut kept: Vec<&str> = rows.nodes.values().filter(|n| n.is_aside()).map(|n| n.id.as_str()).collect();
    kept.sort_unstable();
    kept.dedup();
    if !kept.is_empty() {
        message.push_str(&format!("\nwhat ran before is kept ({}): {BACK}", kept.join(", ")));
    }
    let named = |ids: Vec<&str>| ids.into_iter().take(NAMED).collect::<Vec<_>>().join(",");
    Failure::new(Code::FailedPrecondition, "DEPLOY_INCOMPLETE", message)
        .with("lab", rows.lab.id.to_string())
        .with("nodes", named(nodes.iter().map(|n| n.id.as_str()).collect()))
        .with("links", named(links.iter().map(|l| l.id.as_str()).collect()))
}

/// Writes that an operation is over, unless somebody else did.
async fn end(core: &Scheduler, seen: &OperationRow, verdict: Result<(), Failure>) -> Result<()> {
    Scheduler::unless_overtaken(|held| write_end(core, seen, verdict.clone(), held)).await
}

async fn write_end(
    core: &Scheduler,
    seen: &OperationRow,
    verdict: Result<(), Failure>,
    held: bool,
) -> Result<()> {
    let mut tx = core.store.begin("scheduler.end").await?;
    tx.hold_hosts(held).await?;
    let Some(mut operation) = tx.operation(seen.id).await?.filter(|o| o.state == OperationState::Running)
    else {
        return Ok(());
    };
    let before = tx.rows(operation.lab_uid);
    let how_far = progress(&operation, before.as_deref());
    let took_ms = (tx.now() - operation.create_us) / 1_000;
    match &verdict {
        Ok(()) => {
            tracing::info!(lab = %operation.lab, operation = %operation.id, took_ms, "operation succeeded")
        }
        Err(e) => {
            tracing::warn!(lab = %operation.lab, operation = %operation.id, took_ms, "operation failed: {e}")
        }
    }
    let state = if verdict.is_ok() { OperationState::Succeeded } else { OperationState::Failed };
    // What could not be moved is where it was.
    let back = match (&before, &verdict) {
        (Some(before), Err(why)) if operation.kind == OperationKind::Move && !operation.released => {
            Some(core.taken_back(&mut tx, &operation, before, why).await?)
        }
        _ => None,
    };
    operation.end(state, verdict.err(), how_far, tx.now());
    tx.put_operation(&operation).await?;
    if let Some(before) = before {
        let mut after = back.unwrap_or_else(|| (*before).clone());
        after.operation = None;
        // Also one that failed in part is over: a later cancel goes back to it, and does not take away what runs.
        if operation.kind.is_of_spec() {
            after.lab.completed = Some(after.lab.spec.clone());
        }
        if state == OperationState::Succeeded && operation.kind == OperationKind::Deploy {
            after.lab.deploys += 1;
        }
        core.refresh(&tx, &mut after);
        tx.save(Some(&before), after).await?;
    } else {
        core.world.forget(operation.lab_uid);
    }
    tx.commit().await?;
    // What it had set aside is nobody's any more.
    core.room_appeared();
    Ok(())
}

#[cfg(test)]
mod tests;
