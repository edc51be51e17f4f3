//! Tells each host what it is to have, until it has it.
//!
//! ```text
//! rows of each lab ─► slices (pure) ─► minus what the host acknowledged ─► Settle, Remove, Ensure ─► rows of what is gone deleted
//! ```
//!
//! One task a host and service, without arguments: woken by commits, by what hosts say and by a timer, it compares. Labs are told side by side, so that a
//! slow removal of one holds up no other; within a lab removals come first, since they free names. When a stream of observations begins anew, or the host says
//! that it lost its slice, everything is told again by Sync. What was acknowledged is only remembered in memory: after a restart all is told once more, which
//! changes nothing on a host that has it.

mod compute;
mod network;

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use netloom_model::id::{LabUid, OperationId};
use netloom_service::pace::Pace;
use netloom_service::{Shutdown, telemetry};
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::client::HostClient;
use crate::error::Result;
use crate::figures;
use crate::rows::LabRows;
use crate::scheduler::{LONGEST_REST, Scheduler};
use crate::world::Refusal;

pub use self::compute::Compute;
pub use self::network::Network;

/// How often rows and hosts are compared although nothing happened.
const TICK: Duration = Duration::from_secs(5);
/// How long the removal of leftovers may hold up the rest; the host goes on with it.
const STRAYS: Duration = Duration::from_secs(10);
/// Longest rest before rows and a host are compared again, when little is to come.
const SHORT_REST: Duration = Duration::from_millis(15);
/// How long rows are waited for to follow what a host said.
const ROWS_FOLLOW: Duration = Duration::from_millis(50);
/// How long after a failure a lab is told again, and the most that this grows to.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// One service of a host, to the loop that tells it.
pub trait Service: Send + 'static {
    /// What a host acknowledges of a lab.
    type Slice: Send + 'static;
    /// What is to be told of a lab.
    type Work: Send + 'static;

    /// The service's name.
    const NAME: &'static str;

    /// The connection's epoch, when the service is heard of: a new one asks for a Sync.
    fn epoch(core: &Scheduler, host: &HostClient) -> Option<u64>;

    /// Replaces everything on the host by what these labs want; says what each lab has by that.
    fn sync(
        core: &Scheduler,
        host: &HostClient,
        labs: &[Arc<LabRows>],
    ) -> impl Future<Output = Result<HashMap<LabUid, Self::Slice>>> + Send;

    /// Removes what the host has of objects that are known to be removed, and tells once of those that are not known: they are left alone.
    fn remove_strays(
        core: &Scheduler,
        host: &HostClient,
        told: &mut BTreeSet<String>,
    ) -> impl Future<Output = Result<()>> + Send;

    /// What differs between a lab's rows and what the host acknowledged of it; when to look again although nothing happened.
    fn compare(
        &mut self,
        core: &Scheduler,
        host: &HostClient,
        rows: &LabRows,
        acknowledged: Option<&Self::Slice>,
    ) -> (Option<Self::Work>, Option<Again>);

    /// Tells it; says what the host then has of the lab.
    fn tell(
        core: Arc<Scheduler>,
        host: HostClient,
        rows: Arc<LabRows>,
        work: Self::Work,
    ) -> impl Future<Output = Result<Self::Slice>> + Send;
}

/// When to look at a lab again although nothing happened.
#[derive(Clone, Copy)]
pub struct Again {
    at: Instant,
    /// True when only removals that failed are tried again then: the host has all that it is to have.
    only_removals: bool,
}

/// What is remembered of a lab.
struct Lab<S> {
    acknowledged: Option<S>,
    /// The rows of which nothing was left to tell and nothing to wait for: the same rows need no second look.
    clean: Option<Arc<LabRows>>,
    busy: bool,
    retry: Retry,
}

/// When to try again after a failure.
#[derive(Clone)]
struct Retry {
    not_before: Option<Instant>,
    pause: Duration,
    /// The operation that the lab had then: the next one may well have mended what was wrong.
    of: Option<OperationId>,
}

impl Default for Retry {
    fn default() -> Self {
        Retry { not_before: None, pause: BACKOFF.0, of: None }
    }
}

impl Retry {
    /// When to try again; none when it is time.
    fn not_before(&self) -> Option<Instant> {
        self.not_before.filter(|t| *t > Instant::now())
    }

    /// Notes a failure; says when to try again.
    fn failed(&mut self) -> Instant {
        let again = Instant::now() + self.pause;
        self.not_before = Some(again);
        self.pause = (self.pause * 2).min(BACKOFF.1);
        again
    }
}

impl<S> Default for Lab<S> {
    fn default() -> Self {
        Lab { acknowledged: None, clean: None, busy: false, retry: Retry::default() }
    }
}

/// A lab, the revision of its rows that was told, and what came of it.
type Told<S> = (LabUid, u64, Result<S>);

/// Tells one service of a host for ever.
pub async fn run<S: Service>(mut service: S, core: Arc<Scheduler>, host: HostClient, shutdown: Shutdown) {
    let (mut rows, mut world) = (core.store.subscribe_on(&host.id), core.world.subscribe_to(&host.id));
    let mut synced: Option<u64> = None;
    let mut sync = Retry::default();
    let (mut strays_at, mut told_of) = (Instant::now(), BTreeSet::new());
    let mut labs: HashMap<LabUid, Lab<S::Slice>> = HashMap::new();
    let mut telling: FuturesUnordered<BoxFuture<'static, Told<S::Slice>>> = FuturesUnordered::new();
    let mut pace = Pace::new(LONGEST_REST);
    loop {
        rows.borrow_and_update();
        world.borrow_and_update();
        let mut wake = Instant::now() + TICK;
        let epoch = S::epoch(&core, &host);
        // Before any rows are read.
        let host = host.deciding(core.world.beat(&host.id));
        if let Some(later) = sync.not_before() {
            wake = wake.min(later);
        } else if let Some(epoch) = epoch.filter(|e| synced != Some(*e)) {
            // What was under way was for the former connection.
            telling.clear();
            labs.clear();
            match S::sync(&core, &host, &core.store.on(&host.id)).await {
                Ok(has) => {
                    tracing::info!(host = %host.id, service = S::NAME, labs = has.len(), "host synced");
                    synced = Some(epoch);
                    sync = Retry::default();
                    strays_at = Instant::now();
                    labs.extend(
                        has.into_iter()
                            .map(|(lab, has)| (lab, Lab { acknowledged: Some(has), ..Lab::default() })),
                    );
                }
                Err(e) => {
                    tracing::warn!(host = %host.id, service = S::NAME, "host not synced, tried again: {e}");
                    wake = wake.min(sync.failed());
                }
            }
        }
        if epoch.is_some() && synced == epoch {
            if strays_at <= Instant::now() {
                strays_at = Instant::now() + TICK;
                let removal = tokio::time::timeout(STRAYS, S::remove_strays(&core, &host, &mut told_of));
                if let Ok(Err(e)) = removal.await {
                    tracing::warn!(host = %host.id, service = S::NAME, "leftovers not removed, tried again: {e}");
                }
            }
            // Others may have decided something of this host meanwhile.
            let host = host.deciding(core.world.beat(&host.id));
            let at = core.store.revision();
            let here = core.store.on(&host.id);
            labs.retain(|uid, lab| lab.busy || core.store.rows(*uid).is_some());
            for rows in here {
                let lab = labs.entry(rows.lab.uid).or_default();
                if lab.busy {
                    continue;
                }
                if let Some(later) = lab.retry.not_before().filter(|_| lab.retry.of == rows.operation) {
                    wake = wake.min(later);
                    continue;
                }
                let looked_at = lab.clean.as_ref().is_some_and(|c| Arc::ptr_eq(c, &rows));
                let (work, again) = if looked_at {
                    (None, None)
                } else {
                    service.compare(&core, &host, &rows, lab.acknowledged.as_ref())
                };
                wake = again.map_or(wake, |a| wake.min(a.at));
                let Some(work) = work else {
                    lab.clean = again.is_none().then(|| rows.clone());
                    // What is left for later is not acknowledged yet.
                    if rows.operation.is_some() && again.is_none_or(|a| a.only_removals) {
                        core.world.acknowledged(&host.id, S::NAME, rows.lab.uid, at);
                    }
                    continue;
                };
                lab.busy = true;
                let span =
                    tracing::info_span!("reconcile", lab = %rows.lab.id, host = %host.id, service = S::NAME);
                telemetry::continue_trace(&span, &rows.lab.traceparent);
                let (core, host, uid) = (core.clone(), host.clone(), rows.lab.uid);
                let tell = async move {
                    (uid, at, figures::RECONCILES.time(&[S::NAME], S::tell(core, host, rows, work)).await)
                };
                telling.push(Box::pin(tell.instrument(span)));
            }
        }
        pace.looked();
        let woken = async {
            tokio::select! {
                _ = rows.changed() => {}
                _ = world.changed() => {
                    let _ = tokio::time::timeout(ROWS_FOLLOW, core.world.until_kept()).await;
                }
            }
            core.rest(&pace, SHORT_REST).await;
        };
        tokio::select! {
            () = woken => {}
            Some((uid, at, told)) = telling.next() => {
                let lab = labs.entry(uid).or_default();
                lab.busy = false;
                match told {
                    Ok(has) => {
                        *lab = Lab { acknowledged: Some(has), ..Lab::default() };
                        core.world.refused(&host.id, S::NAME, uid, None);
                    }
                    Err(e) => {
                        // Whoever waits for it is told; it is tried again all the same, since the host may be another one by then.
                        if let Some(failure) = e.refused_for_good() {
                            let refusal = Refusal { revision: at, why: failure.to_string() };
                            core.world.refused(&host.id, S::NAME, uid, Some(refusal));
                        }
                        tracing::warn!(host = %host.id, service = S::NAME, "told again in {:?}: {e}", lab.retry.pause);
                        lab.retry.failed();
                        lab.retry.of = core.store.rows(uid).and_then(|rows| rows.operation);
                        // What of it was taken is not known: everything of the lab is told again.
                        lab.acknowledged = None;
                    }
                }
            }
            () = tokio::time::sleep_until(wake) => {}
            () = shutdown.cancelled() => return,
        }
    }
}
