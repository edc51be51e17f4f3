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
//! | [`across`], [`vnis`] | pure: how a link gets from one host to another, and by which network identifier |
//! | [`prepare`], [`reconcile`], [`observer`], [`operation`] | the tasks |
//! | [`drain`] | moves what is on hosts that are drained |
//! | [`copies`] | compares copies of images on hosts, and has those fetched again that were set aside |
//! | [`membership`], [`door`], [`hosts`] | which machines are hosts, where they come in, the tasks of each; `authority`: who signs for them |
//! | [`store`] | all SQL; [`rows`] is what it stores, [`world`] what it does not |
//! | [`grpc`], [`client`] | messages in and out; `stand_by`: what is answered while another one leads |
//! | [`figures`] | what is counted; `replicas`: who else is there |

pub mod across;
pub mod apply;
mod authority;
pub mod bells;
pub mod certificates;
mod check;
mod claims;
pub mod client;
pub mod config;
pub mod copies;
mod detached;
mod disks;
pub mod door;
pub mod drain;
pub mod error;
pub mod events;
pub mod facts;
pub mod figures;
pub mod grpc;
pub mod hosts;
pub mod janitor;
pub mod lost;
pub mod membership;
pub mod observer;
pub mod operation;
mod peers;
pub mod place;
pub mod plan;
pub mod policy;
pub mod prepare;
pub mod quota;
pub mod reconcile;
mod replicas;
pub mod rows;
pub mod scheduler;
pub mod slices;
pub mod stages;
mod stand_by;
pub mod store;
pub mod vnis;
pub mod world;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::FutureExt as _;
use netloom_proto::scheduler::v1::scheduler_service_server::SchedulerServiceServer;
use netloom_service::server::{MAX_MESSAGE, serve_when};
use netloom_service::{Connector, Endpoint, Settings, Shutdown, Whom, installation};
use tokio::sync::watch;
use tonic::server::NamedService as _;
use tonic::service::Routes;

use crate::client::RegistryClient;
use crate::config::Config;
use crate::detached::Detached;
use crate::door::Door;
use crate::grpc::Grpc;
use crate::scheduler::Scheduler;
use crate::stand_by::StandBy;
use crate::store::Store;

/// How often nodes that fitted nowhere are placed again although nothing happened.
const PLACE_AGAIN: Duration = Duration::from_secs(10);

/// Runs the scheduler until shut down.
pub async fn run(settings: Settings, connector: Connector, shutdown: Shutdown) -> anyhow::Result<()> {
    let _claim = netloom_service::installation::claim(&settings, "scheduler").await?;
    let config = Config::load(&settings)?;
    let database = config.database(&settings);
    let failed = || format!("the database {database}");
    database.file().map_or(Ok(()), installation::private_file).with_context(failed)?;
    let (service, leads) = (StandBy::default(), watch::Sender::new(false));
    let endpoint = settings.endpoints.scheduler.own(config.listen.as_ref(), "scheduler")?;
    let is_shared = database.file().is_none();
    let redis = settings.redis()?.filter(|_| is_shared);
    let bus = netloom_bus::open(redis.as_deref())?;
    let presence = redis.map(|_| tokio::spawn(replicas::run(bus.clone(), leads.subscribe())));
    let _presence = AbortOnDrop(presence);
    let served = listen(&connector, &endpoint, service.clone(), leads.subscribe(), shutdown.clone());
    let mut served = std::pin::pin!(served.fuse());
    let signs = !config.join_listen.is_empty() || settings.controllers_use_tls();
    let store = tokio::select! {
        store = Store::open(&database, config.events_kept, bus) => store.with_context(failed)?,
        // One that stands by says so; where there is only one, callers wait for it to begin.
        outcome = &mut served, if is_shared => return outcome,
        Err(e) = authority::fetch(&database, &settings.data_dir), if is_shared && signs => return Err(e),
        () = shutdown.cancelled() => return Ok(()),
    };
    let catalogue = settings.catalogue()?;
    let registry = RegistryClient::new(&settings.endpoints.image_registry, &connector);
    let hosts = config::hosts(&settings)?;
    let door = match signs {
        true => {
            let authority = authority::open(&store, &settings.data_dir, is_shared).await?;
            (!config.join_listen.is_empty()).then(|| Door::open(&settings, &config, authority)).transpose()?
        }
        false => None,
    };
    let core = Scheduler::start(store, config, catalogue, hosts, registry, &connector, door.clone()).await?;
    let core = Arc::new(core);

    figures::tell_levels(&core);

    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(hosts::run(core.clone(), shutdown.clone()));
    tasks.spawn(observer::keep(core.clone(), shutdown.clone()));
    tasks.spawn(prepare::run(core.clone(), shutdown.clone()));
    tasks.spawn(disks::run(core.clone(), shutdown.clone()));
    tasks.spawn(copies::mend(core.clone(), shutdown.clone()));
    tasks.spawn(certificates::run(core.clone(), shutdown.clone()));
    tasks.spawn(peers::run(core.clone(), shutdown.clone()));
    tasks.spawn(operation::run(core.clone(), shutdown.clone()));
    tasks.spawn(place_again(core.clone(), shutdown.clone()));
    tasks.spawn(drain::run(core.clone(), shutdown.clone()));
    tasks.spawn(janitor::run(core.clone(), shutdown.clone()));
    tasks.spawn(lost::run(core.clone(), shutdown.clone()));

    let grpc = SchedulerServiceServer::new(Grpc::new(core.clone(), shutdown.clone()));
    service
        .lead(Detached(grpc.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)));
    leads.send_replace(true);
    let at_door = async {
        let Some(door) = door else { return Ok(()) };
        let images = connector.channel_to(&settings.endpoints.image_registry, Whom::Any);
        door.serve(core.clone(), &connector, images, shutdown.clone()).await
    };
    let outcome = tokio::select! {
        outcome = async { tokio::try_join!(served.as_mut(), at_door) } => outcome.map(drop),
        why = core.store.deposed() => {
            // Whoever asks now is to ask the next one, and nothing that was begun is gone on with.
            service.stand_by();
            leads.send_replace(false);
            tasks.abort_all();
            Err(anyhow::anyhow!("{why}: {database}"))
        }
        // Tasks end at shutdown only; one that panicked leaves a scheduler that cannot be trusted.
        Some(Err(e)) = ended_badly(&mut tasks) => Err(anyhow::Error::new(e).context("a task of the scheduler ended")),
    };
    shutdown.cancel();
    let ended = async {
        while tasks.join_next().await.is_some() {}
        core.store.close().await;
    };
    // Calls are answered to the end.
    tokio::select! {
        () = ended => outcome,
        never = async { drop(served.await); std::future::pending().await } => never,
    }
}

/// A task that ends with what it is told of.
struct AbortOnDrop(Option<tokio::task::JoinHandle<()>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// The service as callers see it.
type Service = Detached<SchedulerServiceServer<Grpc>>;

/// Serves until shut down: everything while this one leads, else refusals.
async fn listen(
    connector: &Connector,
    endpoint: &Endpoint,
    service: StandBy<Service>,
    leads: watch::Receiver<bool>,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let listener = connector.listen(endpoint).await;
    let listener = listener.with_context(|| format!("listen on {endpoint}"))?;
    serve_when(listener, Routes::new(service), Service::NAME, netloom_proto::DESCRIPTORS, leads, shutdown)
        .await
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
