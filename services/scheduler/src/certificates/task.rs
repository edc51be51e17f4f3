//! Issues what is missing, as a step of whatever asked for it.
//!
//! One task, woken by commits and by a timer, without arguments: it reads from the rows what is missing, so it does not matter whether a deploy, a scheduler that was killed or
//! time made it so. What it makes in vain, since the lab was changed or a deploy cancelled meanwhile, is dropped.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use netloom_model::failure::Failure;
use netloom_model::id::{Digest, LabId, LabUid};
use netloom_model::spec::LabSpec;
use netloom_service::Shutdown;
use tokio::sync::{Semaphore, oneshot};

use super::{Wish, awaited, check, issue, missing, wishes};
use crate::error::Result;
use crate::rows::{AUTHORITY, LabRows, now_us};
use crate::scheduler::Scheduler;

/// How often what runs out is looked for.
const TICK: Duration = Duration::from_secs(600);
/// How long after a failure a lab is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// How many are issued before they are written down: nodes start as theirs are there.
const AT_ONCE: usize = 8;
/// For how many labs keys are made at the same time. Each takes what processors there are.
const LABS: usize = 2;

/// Issues certificates for ever.
pub async fn run(core: Arc<Scheduler>, shutdown: Shutdown) {
    let mut revision = core.store.subscribe();
    let room = Arc::new(Semaphore::new(LABS));
    let mut busy: HashSet<LabUid> = HashSet::new();
    let mut work = FuturesUnordered::new();
    loop {
        revision.borrow_and_update();
        for rows in core.store.all() {
            let lab = rows.lab.uid;
            if !busy.contains(&lab) && !due(&rows).is_empty() {
                busy.insert(lab);
                let (core, room) = (core.clone(), room.clone());
                work.push(async move {
                    let _room = room.acquire().await;
                    if let Err(e) = core.issue_due(lab).await {
                        tracing::error!(lab = %rows.lab.id, "certificates could not be issued, tried again: {e}");
                        tokio::time::sleep(AGAIN).await;
                    }
                    lab
                });
            }
        }
        tokio::select! {
            _ = revision.changed() => {}
            Some(lab) = work.next() => { busy.remove(&lab); }
            () = tokio::time::sleep(TICK) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// What is to be issued next. While a lab is being changed nothing is renewed: a cancel gives back what was there before.
fn due(rows: &LabRows) -> Vec<Wish> {
    let mut due = missing(rows, now_us());
    if rows.operation.is_some() {
        let awaited = awaited(rows);
        due.retain(|wish| awaited.contains(&wish.key));
    }
    // Another authority comes together with all that it issues: nodes know each other by it.
    let replaces = due.first().is_some_and(|w| w.key == AUTHORITY) && !rows.certificates.is_empty();
    if !replaces {
        due.truncate(AT_ONCE);
    }
    due
}

impl Scheduler {
    /// Issues what of a lab is next, unless it is gone or there by now.
    async fn issue_due(&self, lab: LabUid) -> Result<()> {
        let Some(rows) = self.store.rows(lab) else { return Ok(()) };
        let due = due(&rows);
        if due.is_empty() {
            return Ok(());
        }
        tracing::info!(lab = %rows.lab.id, certificates = due.len(), "certificates are issued");
        let contents = self.contents(&due).await?;
        let authority = rows.certificates.get(AUTHORITY).cloned();
        let new = aside(move || issue(&due, authority, &contents)).await?;
        self.change("scheduler.certificates", lab, |rows| {
            let wanted = missing(rows, now_us());
            // They go together: of another authority, or of what is not asked for any more, none is of use.
            let is_wanted = |(key, row): (&String, &crate::rows::CertificateRow)| {
                wanted.iter().any(|w| w.key == *key && w.request == row.request)
            };
            if new.iter().all(is_wanted) {
                rows.certificates.extend(new);
            }
        })
        .await
    }

    /// Refuses a spec of which certificates could not be issued, before anything is written. No key is made for it; files that were not sent are not looked at.
    pub async fn check_certificates(&self, lab: &LabId, spec: &LabSpec) -> Result<()> {
        let mut wishes = wishes(lab, spec);
        if wishes.is_empty() {
            return Ok(());
        }
        let contents = self.contents(&wishes).await?;
        wishes.retain(|wish| wish.given.iter().flatten().all(|(path, _)| contents.contains_key(path)));
        Ok(aside(move || check(&wishes, &contents)).await?)
    }

    /// The files of an authority that is given, by path; those that were sent.
    async fn contents(&self, wishes: &[Wish]) -> Result<BTreeMap<String, Vec<u8>>> {
        let mut contents = BTreeMap::new();
        let given: Vec<(String, Digest)> = wishes.iter().flat_map(|w| w.given.clone()).flatten().collect();
        for (path, digest) in given {
            if let Some(content) = self.store.file(&digest).await? {
                contents.insert(path, content);
            }
        }
        Ok(contents)
    }
}

/// Does this on a thread of its own: a scheduler that is to end does not wait for keys.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> std::result::Result<T, Failure> + Send + 'static,
) -> std::result::Result<T, Failure> {
    let (tell, told) = oneshot::channel();
    std::thread::spawn(move || drop(tell.send(work())));
    told.await.unwrap_or_else(|_| Err(Failure::internal("the issuing of certificates ended")))
}
