//! Takes the steps that are due, a few instances at a time and one step at a time for each. It wakes when something changed and when a pause is over; what to do is decided by
//! [`crate::plan`].

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;
use std::time::Instant;

use netloom_model::slice::Instance;
use netloom_model::state::Wanted;
use netloom_service::fail_point;
use netloom_service::telemetry::continue_trace;
use tokio::task::JoinSet;
use tracing::Instrument as _;

use crate::driver::{Driver, Found};
use crate::error::Error;
use crate::figures;
use crate::host::Host;
use crate::plan::Step;
use crate::table::{Due, ExecJob, Job};

/// Runs until shut down.
pub async fn run(host: Arc<Host>) {
    let mut tasks = JoinSet::new();
    loop {
        let due = host.table.work(Instant::now());
        for step in due.steps {
            tasks.spawn(work(host.clone(), step));
        }
        for run in due.commands {
            tasks.spawn(commands(host.clone(), run));
        }
        let timer = async {
            match due.again {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => pending().await,
            }
        };
        tokio::select! {
            // What is under way is let finish.
            () = host.shutdown.cancelled() => return tasks.detach_all(),
            Some(ended) = tasks.join_next() => {
                // It held an instance that nobody would touch again.
                if let Err(e) = ended && let Ok(panic) = e.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            }
            () = host.table.wake.notified() => {}
            () = timer => {}
        }
    }
}

async fn work(host: Arc<Host>, Due { uid, driver, is_stop }: Due) {
    let _held = host.holds.hold(uid).await;
    // A stop is mostly a wait for a process to end: one must not keep others waiting.
    let turns = if is_stop { &host.stops } else { &host.turns[driver] };
    let Ok(_turn) = turns.acquire().await else { return };
    if host.shutdown.is_cancelled() {
        return;
    }
    let Some(job) = host.table.begin(uid) else { return };
    let (lab, node) = match (&job.instance, &job.found) {
        (Some(i), _) => (i.lab.to_string(), i.spec.id.clone()),
        (None, Some(f)) => (f.lab.clone(), f.node.clone()),
        (None, None) => Default::default(),
    };
    let span = tracing::info_span!("instance", lab, node, uid = %job.uid);
    continue_trace(&span, &job.traceparent);
    async {
        let step = format!("{:?}", job.step).to_lowercase();
        let outcome = figures::STEPS.time(&[step.as_str()], take(&host, &job)).await;
        if let Err(error) = &outcome {
            tracing::warn!(%error, step = ?job.step, "step failed");
            make_up(&host, &job).await;
        }
        let outcome =
            outcome.map_err(|e| (e.to_string(), matches!(e, Error::Busy(_) | Error::Unavailable(_))));
        host.table.ended(&job, outcome);
    }
    .instrument(span)
    .await;
}

/// Looks at the instance of a step that failed before it came to that: events were left to its look.
async fn make_up(host: &Arc<Host>, job: &Job) {
    let Some(instance) = host.table.instance_of(job.uid).filter(|id| !host.table.is_news(id)) else { return };
    if let Err(error) = host.look(job.driver, &instance).await {
        tracing::warn!(%error, instance, "an instance cannot be looked at");
    }
}

async fn start(host: &Host, driver: &dyn Driver, id: &str, instance: &Instance) -> Result<(), Error> {
    host.table.refuse_taken_address(instance, &BTreeSet::new())?;
    driver.start(id, instance).await
}

async fn take(host: &Arc<Host>, job: &Job) -> Result<(), Error> {
    let driver = &host.drivers[job.driver];
    let id = job.found.as_ref().map(|f| f.id.as_str()).unwrap_or_default();
    let instance =
        || job.instance.as_deref().ok_or_else(|| Error::Busy("it is not wanted any more".to_owned()));
    match job.step {
        Step::Create => {
            let instance = instance()?;
            host.driver_of(instance.runtime)?;
            fail_point::pass("compute.create", "before");
            let id = driver.create(instance, job.shares.as_deref()).await?;
            host.table.made(job.uid, &id);
            fail_point::pass("compute.create", "after");
            tracing::info!(instance = id, name = instance.name, "instance created");
            if instance.wanted == Wanted::Running {
                fail_point::pass("compute.start", "before");
                let started = start(host, &**driver, &id, instance).await;
                fail_point::pass("compute.start", "after");
                host.look(job.driver, &id).await?;
                started?;
                tracing::info!(instance = id, "instance started");
            } else {
                host.look(job.driver, &id).await?;
            }
        }
        Step::Start => {
            let instance = instance()?;
            if let Some(found) = &job.found {
                driver.refresh(id, instance, &found.limits).await?;
            }
            fail_point::pass("compute.start-again", "before");
            let started = start(host, &**driver, id, instance).await;
            fail_point::pass("compute.start-again", "after");
            host.look(job.driver, id).await?;
            started?;
            tracing::info!(instance = id, "instance started");
        }
        Step::Stop | Step::Halt => {
            fail_point::pass("compute.stop", "before");
            if job.step == Step::Stop {
                driver.stop(id).await?
            } else {
                driver.halt(id).await?
            }
            fail_point::pass("compute.stop", "after");
            tracing::info!(instance = id, "instance stopped");
            host.look(job.driver, id).await?;
        }
        Step::SetAside => {
            fail_point::pass("compute.set-aside", "before");
            driver.set_aside(id, instance()?).await?;
            fail_point::pass("compute.set-aside", "after");
            tracing::info!(instance = id, "instance set aside");
            host.look(job.driver, id).await?;
        }
        Step::BringBack => {
            fail_point::pass("compute.bring-back", "before");
            driver.bring_back(id, instance()?).await?;
            fail_point::pass("compute.bring-back", "after");
            tracing::info!(instance = id, "instance brought back");
            host.look(job.driver, id).await?;
        }
        Step::Remove => {
            if job.found.is_some() {
                fail_point::pass("compute.remove", "before");
                driver.remove(id).await?;
                fail_point::pass("compute.remove", "after");
                tracing::info!(instance = id, "instance removed");
                host.gone(id);
            }
            // What was wiped has its volumes anew too.
            let is_wipe = |i: &Instance, f: &Found| i.wipes > 0 && f.spec_hash != i.spec_hash;
            if job.instance.as_deref().zip(job.found.as_ref()).is_some_and(|(i, f)| is_wipe(i, f)) {
                driver.remove_node(job.uid).await?;
                tracing::info!(instance = id, "what a node had written was thrown away");
            }
            if let Some(pins) = &host.pins {
                pins.release(job.uid);
            }
            // With an instance it is only made anew, and keeps its files.
            if job.instance.is_none() {
                host.exec_runs.forget_node(job.uid);
                fail_point::pass("compute.remove-volumes", "before");
                driver.remove_node(job.uid).await?;
                fail_point::pass("compute.remove-volumes", "after");
                let (lab, node) = (job.lab_uid, job.uid);
                fail_point::pass("compute.remove-node-files", "before");
                host.on_files(move |files| files.remove_node(lab, node)).await?;
                fail_point::pass("compute.remove-node-files", "after");
            }
        }
        Step::Refresh => {
            let (instance, found) = (instance()?, job.found.as_ref().ok_or_else(gone)?);
            fail_point::pass("compute.refresh", "before");
            driver.refresh(id, instance, &found.limits).await?;
            fail_point::pass("compute.refresh", "after");
            if !found.limits.satisfy(&instance.spec) {
                let now = driver.inspect(id).await?.ok_or_else(gone)?;
                host.look(job.driver, id).await?;
                if !now.limits.satisfy(&instance.spec) {
                    return Err(Error::Refused(format!(
                        "the runtime took the new limits and still shows {:?}",
                        now.limits
                    )));
                }
                tracing::info!(instance = id, limits = ?now.limits, "limits changed");
            }
        }
    }
    Ok(())
}

fn gone() -> Error {
    Error::Busy("it is gone meanwhile".to_owned())
}

async fn commands(host: Arc<Host>, job: ExecJob) {
    let span = tracing::info_span!("exec", lab = job.lab, node = job.node, uid = %job.uid);
    continue_trace(&span, &job.traceparent);
    let driver = host.drivers[job.driver].clone();
    host.exec_runs.run(&job, driver.as_ref(), &host.table, &host.shutdown).instrument(span).await;
}
