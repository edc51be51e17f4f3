//! The scheduler: labs, hosts, placement, operations, observed facts and the event log.
//!
//! ```text
//!  ApplyLab ─► apply ─► plan (+ place) ─► rows: spec, intent ──┐ one transaction, then the answer
//!                                                              ▼
//!          ┌──────────────── store: rows, operations, numbered events ◄───────────────┐
//!          ▼ wakes                 ▼ wakes                       ▼ wakes              │ facts
//!   prepare: images, files   reconcile: slices of each host   operation: is it done?  │
//!          └────────► compute, network of each host ─► Observe ─► observer ─► world ──┘
//! ```
//!
//! Whoever wants something changes rows; whoever does something compares rows with what hosts have. No task remembers what it was about to do, so one
//! that is killed at any point, or a whole scheduler, goes on from the rows. Tasks are woken by commits and by what hosts say, with a timer behind it.
//!
//! | file | what it decides or does |
//! |---|---|
//! | [`apply`] | what a user asks: checks, plan, intents in one transaction |
//! | [`certificates`] | those that nodes are given: which, and the task that issues them |
//! | [`plan`], [`place`], [`slices`], [`facts`], [`stages`] | pure: spec → rows, nodes → hosts, rows → what a host is told, evidence → states, what waits for what |
//! | [`prepare`], [`reconcile`], [`observer`], [`operation`] | the tasks |
//! | [`store`] | all SQL; [`rows`] is what it stores, [`world`] what it does not |
//! | [`grpc`], [`client`] | messages in and out |
//! | [`figures`] | what is counted |

pub mod apply;
pub mod certificates;
mod claims;
pub mod client;
pub mod config;
pub mod error;
pub mod events;
pub mod facts;
pub mod figures;
pub mod grpc;
pub mod janitor;
pub mod observer;
pub mod operation;
pub mod place;
pub mod plan;
pub mod prepare;
pub mod reconcile;
pub mod rows;
pub mod scheduler;
pub mod shared;
pub mod slices;
pub mod stages;
pub mod store;
pub mod world;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use netloom_proto::scheduler::v1::scheduler_service_server::SchedulerServiceServer;
use netloom_service::server::{MAX_MESSAGE, serve};
use netloom_service::{Connector, Settings, Shutdown, installation};
use tonic::service::Routes;

use crate::client::RegistryClient;
use crate::config::Config;
use crate::grpc::Grpc;
use crate::reconcile::{Compute, Network};
use crate::scheduler::Scheduler;
use crate::store::Store;

/// How often nodes that fitted nowhere are placed again although nothing happened.
const PLACE_AGAIN: Duration = Duration::from_secs(10);

/// Runs the scheduler until shut down.
pub async fn run(settings: Settings, connector: Connector, shutdown: Shutdown) -> anyhow::Result<()> {
    let _claim = netloom_service::installation::claim(&settings, "scheduler").await?;
    let config = Config::load(&settings)?;
    let path = config.database(&settings);
    installation::private_file(&path).with_context(|| format!("the database {}", path.display()))?;
    let store = Store::open(&path, config.events_kept).await;
    let store = store.with_context(|| format!("the database {}", path.display()))?;
    let catalogue = settings.catalogue()?;
    let registry = RegistryClient::new(&settings.endpoints.image_registry, &connector);
    let hosts = config::hosts(&settings)?;
    let core = Arc::new(Scheduler::start(store, config, catalogue, hosts, registry, &connector).await?);

    figures::tell_levels(&core);

    let mut tasks = tokio::task::JoinSet::new();
    for host in core.hosts.values().cloned() {
        tasks.spawn(observer::listen_compute(core.clone(), host.clone(), shutdown.clone()));
        tasks.spawn(observer::listen_network(core.clone(), host.clone(), shutdown.clone()));
        tasks.spawn(reconcile::run(Compute::default(), core.clone(), host.clone(), shutdown.clone()));
        tasks.spawn(reconcile::run(Network, core.clone(), host, shutdown.clone()));
    }
    tasks.spawn(observer::keep(core.clone(), shutdown.clone()));
    tasks.spawn(prepare::run(core.clone(), shutdown.clone()));
    tasks.spawn(certificates::run(core.clone(), shutdown.clone()));
    tasks.spawn(operation::run(core.clone(), shutdown.clone()));
    tasks.spawn(place_again(core.clone(), shutdown.clone()));
    tasks.spawn(janitor::run(core.clone(), shutdown.clone()));

    let listener = connector.listen(&settings.endpoints.scheduler).await;
    let listener = listener.with_context(|| format!("listen on {}", settings.endpoints.scheduler))?;
    let service = SchedulerServiceServer::new(Grpc::new(core.clone(), shutdown.clone()));
    let service = service.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
    let routes = Routes::new(service);
    let name = "netloom.scheduler.v1.SchedulerService";
    let served = serve(listener, routes, name, netloom_proto::DESCRIPTORS, shutdown.clone());
    let outcome = tokio::select! {
        outcome = served => outcome,
        // Tasks end at shutdown only; one that panicked leaves a scheduler that cannot be trusted.
        Some(Err(e)) = ended_badly(&mut tasks) => Err(anyhow::Error::new(e).context("a task of the scheduler ended")),
    };
    shutdown.cancel();
    while tasks.join_next().await.is_some() {}
    core.store.close().await;
    outcome
}

/// The first task that did not end as asked.
async fn ended_badly(tasks: &mut tokio::task::JoinSet<()>) -> Option<Result<(), tokio::task::JoinError>> {
    loop {
        match tasks.join_next().await {
            Some(Ok(())) => {}
            Some(failed) => return Some(failed),
            None => std::future::pending().await,
        }
    }
}

async fn place_again(core: Arc<Scheduler>, shutdown: Shutdown) {
    loop {
        if let Err(e) = core.place_again().await {
            tracing::error!("nodes that wait for room could not be placed, tried again: {e}");
        }
        tokio::select! {
            () = core.room() => {}
            () = tokio::time::sleep(PLACE_AGAIN) => {}
            () = shutdown.cancelled() => return,
        }
    }
}
