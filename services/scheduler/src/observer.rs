//! Listens to each host's services, and keeps the rows in step with what they say.
//!
//! ```text
//! Observe streams ─► world (memory) ─► keeper: rows of dirty labs ─► facts::refresh ─► difference + events, one transaction
//! ```
//!
//! A stream that breaks is opened again at once; a service that was silent for too long is given up and what it told becomes unknown, until it is heard
//! again. The keeper takes no arguments: it is woken, takes what is dirty, and compares; many changes seen together become one transaction.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use netloom_model::id::{HostId, LabUid};
use netloom_model::observed::{ObservedWire, Source, WireState};
use netloom_service::Shutdown;
use netloom_service::pace::Pace;
use tokio::time::Instant;

use crate::client::{COMPUTE, ComputeEvent, HostClient, NETWORK, NetworkEvent, NetworkObjects};
use crate::error::Result;
use crate::rows::now_us;
use crate::scheduler::{LONGEST_REST, Scheduler};
use crate::world::{ComputeView, Dirty, NetworkView, News};

/// How long after a break a stream is opened again.
const AGAIN: Duration = Duration::from_millis(200);
/// How often what hosts proved is written down although nothing changed.
const REMEMBER: Duration = Duration::from_secs(60);

/// Longest rest before the rows are kept in step again, when little is to come.
const SHORT_REST: Duration = Duration::from_millis(10);
/// How many labs are brought in step by one write: all of them as they were and as they are would be in memory at once.
const LABS: usize = 8;
/// How far a host's clock goes from what was said of it until that is said again.
const APART: Duration = Duration::from_secs(10);
/// Longest wait until a loss is written down before the next word of its host is taken in.
const SHOWN: Duration = Duration::from_secs(1);

/// Listens to a host's compute service for ever.
pub async fn listen_compute(core: Arc<Scheduler>, host: HostClient, shutdown: Shutdown) {
    let mut silence = Silence::new(&core, COMPUTE, &host);
    while !shutdown.is_cancelled() {
        let opened = silence.bound(host.observe_instances(), &shutdown).await;
        if let Some(Ok(mut stream)) = opened {
            let mut first = true;
            while let Some(Some(event)) = silence.bound(stream.next(), &shutdown).await {
                match event {
                    Ok((event, clocks)) => {
                        silence.heard();
                        core.world.compute(&host.id, |view, dirty| {
                            compare_clocks(view, &host.id, clocks.us);
                            view.beat = clocks.beat;
                            compute_said(view, dirty, event, first)
                        });
                        first = false;
                    }
                    Err(e) => {
                        tracing::debug!(host = %host.id, "compute stream ended: {e}");
                        break;
                    }
                }
            }
        }
        silence.pause(&shutdown).await;
    }
}

/// Listens to a host's network service for ever.
pub async fn listen_network(core: Arc<Scheduler>, host: HostClient, shutdown: Shutdown) {
    let mut silence = Silence::new(&core, NETWORK, &host);
    while !shutdown.is_cancelled() {
        let opened = silence.bound(host.observe_network(), &shutdown).await;
        if let Some(Ok(mut stream)) = opened {
            let mut first = true;
            while let Some(Some(event)) = silence.bound(stream.next(), &shutdown).await {
                match event {
                    Ok(event) => {
                        silence.heard();
                        let loss =
                            core.world.host(&host.id, |v| is_loss(&v.network, &event)).unwrap_or(false);
                        core.world.network(&host.id, |view, dirty| network_said(view, dirty, event, first));
                        first = false;
                        if loss {
                            // What is mended within milliseconds is shown all the same: the next word waits until this one is written down.
                            let _ = tokio::time::timeout(SHOWN, core.world.until_kept()).await;
                        }
                    }
                    Err(e) => {
                        tracing::debug!(host = %host.id, "network stream ended: {e}");
                        break;
                    }
                }
            }
        }
        silence.pause(&shutdown).await;
    }
}

/// How long a service has been silent.
struct Silence<'a> {
    core: &'a Scheduler,
    service: &'static str,
    host: &'a HostClient,
    since: Instant,
}

impl<'a> Silence<'a> {
    fn new(core: &'a Scheduler, service: &'static str, host: &'a HostClient) -> Self {
        Silence { core, service, host, since: Instant::now() }
    }

    fn heard(&mut self) {
        self.since = Instant::now();
    }

    /// Waits for something as long as the service may be silent; none when that is over, or at shutdown.
    async fn bound<T>(&mut self, wait: impl Future<Output = T>, shutdown: &Shutdown) -> Option<T> {
        let silence = self.core.config.silence_bound();
        // A service given up long ago gets a whole bound to answer, each time.
        let end = (self.since + silence).max(Instant::now() + AGAIN);
        tokio::select! {
            done = wait => Some(done),
            () = tokio::time::sleep_until(end) => {
                self.core.world.lost(&self.host.id, self.service);
                None
            }
            () = shutdown.cancelled() => None,
        }
    }

    async fn pause(&mut self, shutdown: &Shutdown) {
        if self.since.elapsed() >= self.core.config.silence_bound() && !shutdown.is_cancelled() {
            self.core.world.lost(&self.host.id, self.service);
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = shutdown.cancelled() => {}
        }
    }
}

/// Notes how far a host's clock is from this machine's. Nothing of netloom's needs them to agree, but people read the logs of both side by side.
fn compare_clocks(view: &mut ComputeView, host: &HostId, clock_us: i64) {
    if clock_us == 0 {
        return;
    }
    let ahead_us = clock_us.saturating_sub(now_us());
    let apart = i64::try_from(APART.as_micros()).unwrap_or_default();
    if (ahead_us - view.ahead_us).abs() >= apart {
        tracing::warn!(%host, seconds = ahead_us / 1_000_000, "the host's clock is ahead of this machine's (less than 0: behind)");
    }
    view.ahead_us = ahead_us;
}

fn compute_said(view: &mut ComputeView, dirty: &mut Dirty, event: ComputeEvent, first: bool) -> News {
    let mut news = News::default();
    match event {
        ComputeEvent::Snapshot { instances, inventory, synced } => {
            view.instances = instances.into_iter().map(|o| (o.uid, o.into())).collect();
            news.inventory = replace(&mut view.inventory, Some(inventory));
            if first || !synced {
                view.epoch += 1;
            }
            news.all = true;
        }
        ComputeEvent::Changed(o) => {
            dirty.labs.insert(o.lab_uid);
            view.instances.insert(o.uid, o.into());
            news.some = true;
        }
        ComputeEvent::Gone(uid) => {
            let gone = view.instances.remove(&uid);
            news.some = gone.is_some();
            dirty.labs.extend(gone.map(|o| o.lab_uid));
        }
        ComputeEvent::Heartbeat { inventory, ages } => {
            view.reads = reads(ages);
            news.inventory = replace(&mut view.inventory, inventory);
        }
    }
    news
}

/// Takes what is told, if anything is; true when it is something else than before.
fn replace<T: PartialEq>(known: &mut T, told: Option<T>) -> bool {
    let Some(told) = told.filter(|told| told != known) else { return false };
    *known = told;
    true
}

fn network_said(view: &mut NetworkView, dirty: &mut Dirty, event: NetworkEvent, first: bool) -> News {
    let mut news = News::default();
    match event {
        NetworkEvent::Snapshot { objects, inventory, synced, unwanted } => {
            view.nics.clear();
            view.wires.clear();
            view.segments.clear();
            take(view, dirty, objects);
            let wires = &view.wires;
            view.carried.retain(|wire, _| wires.contains_key(wire));
            news.inventory = replace(&mut view.inventory, Some(inventory));
            view.unwanted = unwanted.into_iter().collect();
            if first || !synced {
                view.epoch += 1;
            }
            news.all = true;
        }
        NetworkEvent::Changes(objects) => {
            take(view, dirty, objects);
            news.some = true;
        }
        NetworkEvent::Heartbeat { inventory, carried, ages } => {
            view.reads = reads(ages);
            news.inventory = replace(&mut view.inventory, inventory);
            view.carried.extend(carried);
        }
    }
    news
}

/// When sources were read, by this machine's clock: those of two machines may differ by hours.
fn reads(ages: BTreeMap<Source, Duration>) -> BTreeMap<Source, i64> {
    let now = now_us();
    let at = |age: Duration| now.saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX));
    ages.into_iter().map(|(source, age)| (source, at(age))).collect()
}

fn take(view: &mut NetworkView, dirty: &mut Dirty, objects: NetworkObjects) {
    for nic in objects.nics {
        dirty.wires.insert(nic.wire_id);
        view.nics.insert(nic.wire_id, nic);
    }
    for wire in objects.wires {
        dirty.wires.insert(wire.wire_id);
        view.wires.insert(wire.wire_id, wire);
    }
    for segment in objects.segments {
        dirty.wires.insert(segment.wire_id);
        view.segments.insert(segment.wire_id, segment);
    }
}

/// True when a wire that carried as it should does so no longer: also one that is up and lacks what slows it.
fn is_loss(view: &NetworkView, event: &NetworkEvent) -> bool {
    let is_well = |w: &ObservedWire| w.state == WireState::Up && w.detail.is_empty();
    let was_well = |id| view.wires.get(&id).is_some_and(is_well);
    matches!(event, NetworkEvent::Changes(c) if c.wires.iter().any(|w| !is_well(w) && was_well(w.wire_id)))
}

/// Keeps the rows in step with the world for ever.
pub async fn keep(core: Arc<Scheduler>, shutdown: Shutdown) {
    let mut changed = core.world.subscribe();
    let (mut remembered, mut pace) = (Instant::now(), Pace::new(LONGEST_REST));
    loop {
        let seen = *changed.borrow_and_update();
        let dirty = core.world.take_dirty();
        let room = dirty.room;
        let remember = remembered.elapsed() >= REMEMBER;
        if let Err(e) = pass(&core, &dirty, remember).await {
            tracing::error!("the rows could not be kept in step, tried again: {e}");
            core.world.mark(|d| merge(d, dirty));
            tokio::time::sleep(AGAIN).await;
        } else {
            core.world.kept(seen);
            if remember {
                remembered = Instant::now();
            }
        }
        if room {
            core.room_appeared();
        }
        pace.looked();
        let woken = async {
            tokio::select! {
                _ = changed.changed() => {}
                () = tokio::time::sleep(REMEMBER) => {}
            }
            core.rest(&pace, SHORT_REST).await;
        };
        tokio::select! {
            () = woken => {}
            () = shutdown.cancelled() => return,
        }
    }
}

fn merge(into: &mut Dirty, from: Dirty) {
    into.hosts.extend(from.hosts);
    into.labs.extend(from.labs);
    into.wires.extend(from.wires);
    into.room |= from.room;
    into.told.extend(from.told);
}

async fn pass(core: &Scheduler, dirty: &Dirty, remember: bool) -> Result<()> {
    let mut labs = dirty.labs.clone();
    labs.extend(dirty.wires.iter().filter_map(|w| core.store.lab_of_wire(*w)));
    labs.extend(dirty.hosts.iter().flat_map(|host| core.store.on(host)).map(|rows| rows.lab.uid));
    let stale = |lab: LabUid| {
        let rows = core.store.rows(lab)?;
        core.refreshed(&rows).map(|fresh| (rows, fresh))
    };
    let mut stale = labs.into_iter().filter_map(stale).peekable();
    while stale.peek().is_some() {
        let mut tx = core.store.begin("scheduler.observe").await?;
        for (was, fresh) in stale.by_ref().take(LABS) {
            let Some(before) = tx.rows(was.lab.uid) else { continue };
            // Somebody else may have written before it was this one's turn.
            let after = if Arc::ptr_eq(&was, &before) { Some(fresh) } else { core.refreshed(&before) };
            if let Some(after) = after {
                tx.save(Some(&before), after).await?;
            }
        }
        tx.commit().await?;
    }
    if dirty.told.is_empty() && !remember {
        return Ok(());
    }
    let mut tx = core.store.begin("scheduler.heard").await?;
    for host in &dirty.told {
        let told = core.world.host(host, |view| {
            (view.compute.inventory.clone(), view.network.inventory.clone(), view.heard_us())
        });
        if let Some((compute, network, heard_us)) = told.filter(|(.., heard_us)| *heard_us > 0) {
            tx.put_host(host, &compute, &network, heard_us).await?;
        }
    }
    if remember {
        let heard: Vec<(HostId, i64)> = core.world.read(|hosts| {
            let heard = hosts.iter().filter(|(_, view)| view.is_heard());
            heard.map(|(id, view)| (id.clone(), view.heard_us())).collect()
        });
        tx.put_heard(&heard).await?;
    }
    tx.commit().await
}
