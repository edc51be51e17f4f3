//! Images and files: what a placed node needs on its host before it is admitted there.
//!
//! ```text
//! node placed, image WAITING ─► files ─► InspectImages ─► registry's verdict ─► pull where needed ─► image READY
//!                                   of a successor also: would the host take it? ─► all READY or FAILED: successors take over ─► their files
//! ```
//!
//! An image is fetched once more for a node that has long been made when its host says that its disk lies on one that is gone: its host starts it then.
//!
//! Files that are others in a new spec are sent the same way, to nodes that run on. A successor's come when it has the place of its former self: they are written
//! over those that run there, which is not done for something that may not come about.
//!
//! One task a lab and host, woken by signal and timer, without arguments: it reads from the rows what waits, so it does not matter whether a deploy, a
//! restart of the scheduler or room that appeared made it wait. A host that does not answer is asked again; an image that cannot be had fails its nodes only.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use netloom_model::failure::{Code, Failure};
use netloom_model::id::{Digest, HostId, LabUid, NodeUid};
use netloom_model::observed::NEEDS_IMAGE;
use netloom_model::slice::files_hash;
use netloom_model::spec::FileEntry;
use netloom_model::state::{Runtime, Wanted};
use netloom_service::{Shutdown, telemetry};
use tracing::Instrument as _;

use crate::client::{HostClient, ImageUse, StoredBlob, Verdict};
use crate::error::{Error, Result};
use crate::plan::{different, take_over};
use crate::rows::{ImageStep, LabRows, NodeRow, now_us};
use crate::scheduler::Scheduler;

/// What a host says that does not reach the image registry.
const NO_REGISTRY: &str = "IMAGE_REGISTRY_UNAVAILABLE";
/// What asking for an image once more helps against: the right to read it is over, or it was pushed anew while it was read.
const ASKED_ANEW: [&str; 2] = ["TICKET_EXPIRED", "BLOB_MENDED"];
/// How often what waits is looked for although nothing happened.
const TICK: Duration = Duration::from_secs(5);
/// How long after a failure a lab is tried again, and the most that this grows to.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// How soon to look again while what a lab had on a host before is removed from there.
const CLEANED: Duration = Duration::from_millis(20);
/// How soon to look again whether a host has started what lacked its image.
const STARTED: Duration = Duration::from_secs(1);
/// How many images are fetched at once on a host for a lab.
const PULLS: usize = 3;

/// True for a node whose image is awaited on its host, or whose files there are to be others.
fn waits(rows: &LabRows, node: &NodeRow) -> bool {
    node.is_preparing() || rows.has_files_due(node) || lost_image(node).is_some()
}

/// Digest of the image that the disk of a node lies on, when its host lacks that.
fn lost_image(node: &NodeRow) -> Option<&str> {
    let observed = node.observed.as_deref().filter(|o| o.detail.starts_with(NEEDS_IMAGE))?;
    let is_made = node.wanted.stays() && node.host.is_some() && node.image_step == ImageStep::Ready;
    (is_made && !observed.image_digest.is_empty()).then_some(&observed.image_digest)
}

/// Prepares what waits, for ever.
pub async fn run(core: Arc<Scheduler>, shutdown: Shutdown) {
    let mut revision = core.store.subscribe();
    let mut busy: HashSet<(LabUid, HostId)> = HashSet::new();
    let mut work = FuturesUnordered::new();
    // Rows in which nothing waits: the same ones need no second look.
    let mut clean: HashMap<LabUid, Arc<LabRows>> = HashMap::new();
    loop {
        revision.borrow_and_update();
        let all = core.store.all();
        clean.retain(|lab, _| core.store.rows(*lab).is_some());
        for rows in all {
            if clean.get(&rows.lab.uid).is_some_and(|c| Arc::ptr_eq(c, &rows)) {
                continue;
            }
            let hosts: BTreeSet<HostId> =
                rows.nodes.values().filter(|n| waits(&rows, n)).filter_map(|n| n.host.clone()).collect();
            if hosts.is_empty() {
                clean.insert(rows.lab.uid, rows);
                continue;
            }
            for host in hosts {
                let key = (rows.lab.uid, host.clone());
                let Some(client) = core.host(&host) else { continue };
                if busy.insert(key.clone()) {
                    let core = core.clone();
                    let span = tracing::info_span!("prepare", lab = %rows.lab.id, %host);
                    telemetry::continue_trace(&span, &rows.lab.traceparent);
                    work.push(async move {
                        prepare(&core, key.0, &client).instrument(span).await;
                        key
                    });
                }
            }
        }
        tokio::select! {
            _ = revision.changed() => {}
            Some(done) = work.next() => { busy.remove(&done); }
            () = tokio::time::sleep(TICK) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Prepares what waits of a lab on a host until nothing does.
async fn prepare(core: &Scheduler, lab: LabUid, client: &HostClient) {
    let mut pause = BACKOFF.0;
    let mut without_registry: Option<Instant> = None;
    loop {
        while core.world.is_cleaned(lab, &client.id) {
            tokio::time::sleep(CLEANED).await;
        }
        let Some(rows) = core.store.rows(lab) else { return };
        let nodes: Vec<NodeRow> = rows
            .nodes
            .values()
            .filter(|n| waits(&rows, n) && n.host.as_ref() == Some(&client.id))
            .cloned()
            .collect();
        if nodes.is_empty() {
            return;
        }
        let is_last = without_registry.is_some_and(|since| since.elapsed() >= core.config.registry_bound());
        let prepared = attempt(core, &rows, client, &nodes, is_last).await;
        match prepared.and(fetch_again(core, client, &nodes).await) {
            Ok(()) => {
                (pause, without_registry) = (BACKOFF.0, None);
                // What took over may ask for less than what it succeeded.
                core.room_appeared();
            }
            Err(e) => {
                without_registry =
                    e.is_of(NO_REGISTRY).then(|| without_registry.unwrap_or_else(Instant::now));
                tracing::warn!("not prepared yet, tried again in {pause:?}: {e}");
                let detail = format!("tried again: {e}");
                let uids: Vec<NodeUid> = nodes.iter().map(|n| n.uid).collect();
                let noted = core.change("scheduler.image", lab, |rows| waits_on(rows, &uids, &detail)).await;
                if let Err(e) = noted {
                    tracing::error!("{e}");
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(BACKOFF.1);
            }
        }
    }
}

/// Notes that these nodes wait on, and why. One that is there already runs on meanwhile; one that failed before the host went has failed.
fn waits_on(rows: &mut LabRows, nodes: &[NodeUid], detail: &str) {
    for uid in nodes {
        let Some(now) = rows.nodes.get(uid) else { continue };
        let now = if now.is_preparing() { ImageStep::Waiting } else { now.image_step };
        if now != ImageStep::Failed {
            step(rows, &[*uid], now, detail);
        }
    }
}

/// Sets how far images are. Nodes that are not wanted any more are left alone.
fn step(rows: &mut LabRows, nodes: &[NodeUid], step: ImageStep, detail: &str) {
    for uid in nodes {
        if let Some(node) = rows.nodes.get_mut(uid).filter(|n| n.wanted.stays()) {
            node.image_step = step;
            node.image_detail = detail.to_owned();
        }
    }
}

/// Does what is to be done for these nodes. With `is_last`, a host that does not reach the image registry fails them.
async fn attempt(
    core: &Scheduler,
    rows: &LabRows,
    client: &HostClient,
    nodes: &[NodeRow],
    is_last: bool,
) -> Result<()> {
    let lab = rows.lab.uid;
    let image_use = |n: &NodeRow| ImageUse {
        node: n.id.to_string(),
        reference: n.image(),
        runtime: n.runtime,
        host: client.id.clone(),
        policy: n.spec.image_pull_policy,
    };
    let takes_files: Vec<&NodeRow> =
        nodes.iter().filter(|n| !n.is_successor() && (n.is_preparing() || rows.has_files_due(n))).collect();
    send_files(core, rows, client, &takes_files).await?;
    let nodes: Vec<&NodeRow> = nodes.iter().filter(|n| n.is_preparing()).collect();
    if nodes.is_empty() {
        return Ok(());
    }
    let uses: Vec<ImageUse> = nodes.iter().map(|n| image_use(n)).collect();
    let verdicts = core.verdicts(&uses).await?;
    let mut ready = Vec::new();
    let mut refused: BTreeMap<&str, Vec<NodeUid>> = BTreeMap::new();
    let mut pulls: BTreeMap<(String, Runtime), (Option<StoredBlob>, Vec<NodeUid>)> = BTreeMap::new();
    for (node, verdict) in nodes.iter().zip(&verdicts) {
        match verdict {
            Verdict::Use { digest } => ready.push((node.uid, digest.clone())),
            Verdict::Pull { stored } => {
                let key = (node.image(), node.runtime);
                pulls.entry(key).or_insert_with(|| (stored.clone(), Vec::new())).1.push(node.uid);
            }
            Verdict::Refuse { message, .. } => refused.entry(message).or_default().push(node.uid),
        }
    }
    core.change("scheduler.image", lab, |rows| {
        for (why, nodes) in &refused {
            step(rows, nodes, ImageStep::Failed, why);
        }
        for ((reference, _), (_, nodes)) in &pulls {
            step(rows, nodes, ImageStep::Pulling, &format!("fetches {reference}"));
        }
        take_over(rows, &core.catalogue, now_us());
    })
    .await?;
    are_ready(core, lab, client, &ready).await?;
    let pull = |(image, (stored, nodes))| pull(core, lab, client, image, stored, nodes, is_last);
    let mut running = futures::stream::iter(pulls.into_iter().map(pull)).buffer_unordered(PULLS);
    let mut outcome = Ok(());
    while let Some(done) = running.next().await {
        outcome = outcome.and(done);
    }
    outcome
}

/// Fetches images that are gone from under the disks of nodes, by their digests: their names may lead to others by now. Tells the first that cannot be had.
async fn fetch_again(core: &Scheduler, client: &HostClient, nodes: &[NodeRow]) -> Result<()> {
    let lost = nodes.iter().filter_map(|n| {
        let (digest, image) = (lost_image(n)?, &n.spec.image);
        let name = image.split_once('@').map_or(image.as_str(), |(name, _)| name);
        let (node, reference) = (n.id.to_string(), format!("{name}@{digest}"));
        let (runtime, policy) = (n.runtime, n.spec.image_pull_policy);
        Some(ImageUse { node, reference, runtime, host: client.id.clone(), policy })
    });
    let uses: Vec<ImageUse> = lost.collect();
    if uses.is_empty() {
        return Ok(());
    }
    let mut outcome = Ok(());
    for (of, verdict) in uses.iter().zip(core.verdicts(&uses).await?) {
        let done = match verdict {
            Verdict::Use { .. } => Ok(()),
            Verdict::Refuse { reason, message } => {
                Err(Failure::new(Code::FailedPrecondition, &reason, message).into())
            }
            Verdict::Pull { stored } => {
                tracing::warn!(image = of.reference, node = of.node, "an image is gone from under a disk");
                let stored = stored.map(|blob| (core.fetch_ticket(blob.digest()), blob));
                let stored = stored.map(|(ticket, blob)| (blob, ticket));
                client.pull_image(&of.reference, of.runtime, stored, |_| ()).await.map(drop)
            }
        };
        outcome = outcome.and(done);
    }
    // The host starts them when it tries again, and says so.
    tokio::time::sleep(STARTED).await;
    outcome
}

/// Notes that the images of these nodes are there. What is to take the place of another is ready only when its host would take it, and none is that would be made from other bytes than what is on another host.
async fn are_ready(
    core: &Scheduler,
    lab: LabUid,
    client: &HostClient,
    nodes: &[(NodeUid, String)],
) -> Result<()> {
    if nodes.is_empty() {
        return Ok(());
    }
    let uids: Vec<NodeUid> = nodes.iter().map(|(uid, _)| *uid).collect();
    let refused = match core.store.rows(lab) {
        Some(mut rows) => {
            // A host is asked about what it would make.
            pin(Arc::make_mut(&mut rows), nodes);
            core.refused_by(client, &rows, &uids).await?
        }
        None => Vec::new(),
    };
    let deploy = core.store.active_operations().into_iter().find(|o| o.lab_uid == lab);
    let actions = deploy.as_ref().map(|o| o.plan.actions.as_slice()).unwrap_or_default();
    let architecture = |host: &HostId| {
        core.world.host(host, |v| v.compute.inventory.architecture.clone()).unwrap_or_default()
    };
    core.change("scheduler.image", lab, |rows| {
        let differs = different(rows, actions, nodes, architecture);
        pin(rows, nodes);
        step(rows, &uids, ImageStep::Ready, "");
        let refused = refused.iter().map(|r| (r.uid, r.message.clone()));
        for (uid, why) in refused.chain(differs) {
            step(rows, &[uid], ImageStep::Failed, &why);
        }
        take_over(rows, &core.catalogue, now_us());
    })
    .await
}

/// Notes which images these nodes are made from.
fn pin(rows: &mut LabRows, nodes: &[(NodeUid, String)]) {
    for (uid, digest) in nodes {
        if let Some(node) = rows.nodes.get_mut(uid) {
            node.image_digest.clone_from(digest);
        }
    }
}

/// Fetches one image once for all nodes that wait for it; only a host that cannot be reached, or is to be asked anew, is an error.
async fn pull(
    core: &Scheduler,
    lab: LabUid,
    client: &HostClient,
    (reference, runtime): (String, Runtime),
    stored: Option<StoredBlob>,
    nodes: Vec<NodeUid>,
    is_last: bool,
) -> Result<()> {
    let stored = stored.map(|blob| {
        let ticket = core.fetch_ticket(blob.digest());
        (blob, ticket)
    });
    let (tell, told) = tokio::sync::watch::channel(String::new());
    let fetch = async move {
        let fetched =
            client.pull_image(&reference, runtime, stored, |text| drop(tell.send_replace(text))).await;
        drop(tell);
        fetched
    };
    // Progress is written as fast as the database takes it; what came in between is overwritten, never queued.
    let write = async {
        let mut told = told;
        while told.changed().await.is_ok() {
            let text = told.borrow_and_update().clone();
            core.change("scheduler.image", lab, |rows| step(rows, &nodes, ImageStep::Pulling, &text)).await?;
        }
        Ok::<(), Error>(())
    };
    let (fetched, written) = tokio::join!(fetch, write);
    written?;
    match fetched {
        Ok(facts) => {
            let pinned: Vec<(NodeUid, String)> =
                nodes.iter().map(|uid| (*uid, facts.digest().to_owned())).collect();
            core.note_images(&client.id, vec![facts]).await?;
            are_ready(core, lab, client, &pinned).await
        }
        Err(e)
            if ASKED_ANEW.iter().any(|reason| e.is_of(reason))
                || (e.is_unreachable() && !(is_last && e.is_of(NO_REGISTRY))) =>
        {
            Err(e)
        }
        Err(e) => {
            let why = e.peer().map_or_else(|| e.to_string(), |f| f.message.clone());
            let why = match e.is_of(NO_REGISTRY) {
                true => format!("host {}: {why}; deploy again when that is mended", client.id),
                false => why,
            };
            core.change("scheduler.image", lab, |rows| {
                step(rows, &nodes, ImageStep::Failed, &why);
                take_over(rows, &core.catalogue, now_us());
            })
            .await
        }
    }
}

/// Puts the files that these nodes' binds use on the host, and notes which.
async fn send_files(core: &Scheduler, rows: &LabRows, client: &HostClient, nodes: &[&NodeRow]) -> Result<()> {
    let of_nodes: Vec<(&NodeRow, Vec<FileEntry>)> = nodes.iter().map(|n| (*n, rows.files_for(n))).collect();
    let files: BTreeSet<FileEntry> = of_nodes.iter().flat_map(|(_, files)| files).cloned().collect();
    // What is sent in vain may be half there: going back to the former files has to send those again.
    let unknown: BTreeSet<NodeUid> = of_nodes
        .iter()
        .filter(|(n, files)| !n.files.is_empty() && !files.is_empty() && files_hash(files) != n.files)
        .map(|(n, _)| n.uid)
        .collect();
    if !unknown.is_empty() {
        let forget = |rows: &mut LabRows| {
            rows.nodes.values_mut().filter(|n| unknown.contains(&n.uid)).for_each(|n| n.files.clear());
        };
        core.change("scheduler.files", rows.lab.uid, forget).await?;
    }
    let paths: BTreeSet<String> = files.iter().map(|f| f.path.clone()).collect();
    if !files.is_empty() && !put(core, rows, client, files).await? {
        return Ok(());
    }
    let directories: BTreeSet<String> = nodes
        .iter()
        .flat_map(|n| n.spec.bundled())
        .filter(|path| !paths.contains(*path))
        .map(str::to_owned)
        .collect();
    if !directories.is_empty() {
        let (directories, paths) = (directories.into_iter().collect(), paths.into_iter().collect());
        client.remove_files(rows.lab.uid, rows.lab.deploys, directories, paths).await?;
    }
    let sent: BTreeMap<NodeUid, Vec<FileEntry>> = of_nodes
        .into_iter()
        .filter(|(_, files)| !files.is_empty())
        .map(|(n, files)| (n.uid, files))
        .collect();
    let due = nodes.iter().any(|n| rows.has_files_due(n));
    if sent.is_empty() && !due {
        return Ok(());
    }
    let uids: Vec<NodeUid> = nodes.iter().filter(|n| !n.is_preparing()).map(|n| n.uid).collect();
    core.change("scheduler.files", rows.lab.uid, |rows| {
        step(rows, &uids, ImageStep::Ready, "");
        for uid in nodes.iter().map(|n| n.uid) {
            let files = sent.get(&uid).cloned().unwrap_or_default();
            if let Some(node) = rows.nodes.get_mut(&uid) {
                (node.files, node.own_files) = (files_hash(&files), files);
            }
        }
    })
    .await
}

/// Puts these files on the host; false when the lab went meanwhile.
async fn put(
    core: &Scheduler,
    rows: &LabRows,
    client: &HostClient,
    files: BTreeSet<FileEntry>,
) -> Result<bool> {
    let mut contents: BTreeMap<Digest, Arc<Vec<u8>>> = BTreeMap::new();
    for file in &files {
        if !contents.contains_key(&file.digest) {
            let content = core.store.file(&file.digest).await?.ok_or_else(|| Error::Row {
                column: "files.digest",
                value: format!("nothing for {} ({})", file.path, file.digest),
            })?;
            contents.insert(file.digest.clone(), Arc::new(content));
        }
    }
    let count = files.len();
    let with_content = |f: FileEntry| {
        let content = contents.get(&f.digest).cloned().unwrap_or_default();
        (f, content)
    };
    let lab = rows.lab.uid;
    let sent = client.put_files(lab, rows.lab.deploys, files.into_iter().map(with_content).collect()).await;
    let client = client.deciding(core.world.beat(&client.id));
    if is_gone_from(core, lab, &client) {
        // Its removal may have passed by the files: nothing else would ever remove them.
        let failures = client.remove_instances(&[], &[lab]).await?;
        tracing::info!(failures = failures.len(), "the lab went while its files were sent: they are removed");
        return Ok(false);
    }
    sent?;
    tracing::info!(count, "files sent");
    Ok(true)
}

/// True when nothing of a lab is on a host any more or its files are next to go.
fn is_gone_from(core: &Scheduler, lab: LabUid, client: &HostClient) -> bool {
    core.store.rows(lab).is_none_or(|rows| {
        rows.lab.wanted == Wanted::Absent && !rows.nodes.values().any(|n| n.host.as_ref() == Some(&client.id))
    })
}
