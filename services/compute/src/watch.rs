//! Follows what a runtime has: its events, the whole list now and then, and the whole list with every detail after events may have been missed. While it does not answer, that is said, and it
//! is asked again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use netloom_service::fail_point;

use crate::driver::{Answer, Probe};
use crate::error::Error;
use crate::host::Host;
use crate::inventory::Inventory;

/// How often the list is compared, though events tell all.
const EVERY: Duration = Duration::from_secs(10);
/// How often a runtime is asked whether it answers at all: one that hangs tells of nothing that happens.
const PING: Duration = Duration::from_secs(1);
/// How long it may take for that.
const ANSWER: Duration = Duration::from_secs(5);
/// How long until a silent runtime is asked again.
const AGAIN: Duration = Duration::from_millis(500);
/// So many instances are looked at at once.
const AT_ONCE: usize = 8;

/// Runs until shut down.
pub async fn run(host: Arc<Host>, driver: usize, inventory: Arc<Inventory>) {
    let mut said = String::new();
    loop {
        let why = tokio::select! {
            () = host.shutdown.cancelled() => return,
            why = follow(&host, driver, &inventory) => why,
        };
        match why {
            Ok(()) => {
                said.clear();
                tracing::warn!("a runtime's events were lost; everything is looked at again");
            }
            Err(error) => {
                let error = error.to_string();
                inventory.set(driver, Err(error.clone()));
                inventory.tell(|now| host.table.answers(driver, false, now));
                // Twice a second it is asked; once it is told.
                if said != error {
                    tracing::warn!(error, "a runtime does not answer");
                    said = error;
                }
            }
        }
        tokio::select! {
            () = host.shutdown.cancelled() => return,
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

/// Follows until the runtime fails to answer, or `Ok` when only events were lost.
async fn follow(host: &Arc<Host>, driver: usize, inventory: &Inventory) -> Result<(), Error> {
    let runtime = &host.drivers[driver];
    let probe: Probe = runtime.probe().await?;
    // First events, then the list: what changes in between is told twice rather than never.
    let mut events = runtime.events().await?;
    compare(host, driver, true).await?;
    inventory.set(driver, Ok(probe));
    if inventory.first(driver) {
        sweep(host, inventory);
    }
    inventory.tell(|now| host.table.answers(driver, true, now));
    host.sweep();
    let mut timer = tokio::time::interval_at(tokio::time::Instant::now() + EVERY, EVERY);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut ping = tokio::time::interval_at(tokio::time::Instant::now() + PING, PING);
    ping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // What it is may change while it answers: how guests run, for instance. Nothing waits for that.
    let mut probing: Option<Answer<'_, Probe>> = None;
    let mut aside = host.images.set_aside();
    loop {
        tokio::select! {
            probe = async { probing.as_mut().expect("asked for below").await }, if probing.is_some() => {
                probing = None;
                let (before, now) = (inventory.now(), inventory.set(driver, Ok(probe?)));
                if now != before {
                    inventory.tell(|now| host.table.answers(driver, true, now));
                }
            }
            ids = next_batch(&mut events) => {
                let Some(mut ids) = ids else { return Ok(()) };
                if fail_point::is_deaf("compute.events") {
                    continue;
                }
                ids.retain(|id| host.table.is_news(id));
                look_at(host, driver, ids).await?;
            }
            // What lies on one that was set aside says so.
            Ok(()) = aside.changed() => compare(host, driver, true).await?,
            _ = timer.tick() => {
                probing.get_or_insert_with(|| runtime.probe());
                compare(host, driver, false).await?;
            }
            _ = ping.tick() => match tokio::time::timeout(ANSWER, runtime.answers()).await {
                Ok(answers) => if answers? { host.table.was_read(driver) },
                Err(_) => {
                    let why = format!("it has not answered for {} s", ANSWER.as_secs());
                    return Err(Error::Unavailable(why));
                }
            },
        }
    }
}

/// The next event's instance, and those of all events that are there already.
async fn next_batch(events: &mut stream::BoxStream<'static, String>) -> Option<Vec<String>> {
    use futures::FutureExt as _;
    let mut ids = vec![events.next().await?];
    while ids.len() < 256 {
        match events.next().now_or_never() {
            Some(Some(id)) if ids.contains(&id) => {}
            Some(Some(id)) => ids.push(id),
            // The end is seen again at the next turn.
            Some(None) | None => break,
        }
    }
    Some(ids)
}

/// Compares the list with what is known and looks at what differs, or at everything.
async fn compare(host: &Arc<Host>, driver: usize, everything: bool) -> Result<(), Error> {
    let glance = host.table.glance();
    let listed = host.drivers[driver].list().await?;
    let known: BTreeMap<String, bool> = host.table.known(driver).into_iter().collect();
    let there: BTreeSet<&str> = listed.iter().map(|l| l.id.as_str()).collect();
    for id in known.keys().filter(|id| !there.contains(id.as_str())) {
        host.table.not_seen(id, glance);
    }
    let differs = |id: &str, running: bool| known.get(id) != Some(&running);
    let ids = listed.into_iter().filter(|l| everything || differs(&l.id, l.running)).map(|l| l.id);
    look_at(host, driver, ids.collect()).await?;
    host.table.was_read(driver);
    Ok(())
}

/// Looks at instances. What cannot be said of one is no reason to give up the others; a runtime that is silent is.
async fn look_at(host: &Arc<Host>, driver: usize, ids: Vec<String>) -> Result<(), Error> {
    let looks = ids.into_iter().map(|id| async move {
        match host.look(driver, &id).await {
            Err(error) if !matches!(error, Error::Unavailable(_)) => {
                tracing::warn!(%error, instance = id, "an instance cannot be looked at");
                Ok(())
            }
            other => other,
        }
    });
    stream::iter(looks).buffer_unordered(AT_ONCE).try_collect().await
}

/// Takes away what an earlier service left behind, once every driver has told what runs.
fn sweep(host: &Host, inventory: &Inventory) {
    if !inventory.all_answered() {
        return;
    }
    let running = host.table.running();
    host.exec_runs.keep(&running);
    if let Some(netns) = &host.netns {
        netns.keep(&running);
    }
    if let Some(pins) = &host.pins {
        pins.keep(&host.table.uids());
    }
}
