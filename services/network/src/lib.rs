//! NICs, wires and segments on one host: Open vSwitch and the kernel.
//!
//! The flow: `grpc` takes the scheduler's calls and `slice` keeps what is wanted, refusing a scheduler that no longer leads. `reconcile` is
//! the one loop that acts: it reads five levels (the slice, the published network namespaces in `netns`, the host's interfaces in `links`,
//! Open vSwitch's database through `netloom-ovsdb` and the flows that `driver::flows` read back), asks the pure `plan` what to do and what
//! to tell, does it, and waits until any of them changes. `namespace` makes the NICs of a namespace in one visit, `taps` takes over those of virtual machines, `driver::ovs` makes of all
//! changes one transaction, `driver::flows` one bundle a bridge. `qdisc` has the words for what slows and redirects frames, `probe` finds out
//! which of them the kernel understands, `counts` tells what wires carried. `observe` says what is new to an observer; `capture` reads packets for whoever holds a ticket,
//! `check` sends marked frames over a wire and says where they come by, `uplink` looks at what of the host segments are joined to, `paths` measures how large packets get to other hosts.
//!
//! What this prevents: a wire called up because it was asked for, not because its flows were read back; a subprocess, or a visit, per port
//! or link; two labs that meet because port numbers changed under flows; and work that is lost when anything restarts, since there is no
//! list of work, only what is and what is wanted.

mod capture;
mod carrier;
mod check;
mod config;
mod counts;
mod driver;
mod error;
mod figures;
mod grpc;
mod guest;
mod links;
mod names;
mod namespace;
mod netlink;
mod netns;
mod observe;
mod offload;
mod paths;
mod plan;
mod probe;
mod qdisc;
mod reconcile;
mod redirect;
mod slice;
mod taps;
mod trace;
mod underlay;
mod uplink;

use std::pin::pin;
use std::sync::Arc;

use anyhow::Context as _;
use netloom_proto::network::v1::network_service_server::NetworkServiceServer;
use netloom_service::server::MAX_MESSAGE;
use netloom_service::{Connector, Settings, Shutdown, installation, server};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tonic::service::Routes;

pub use config::{Config, Datapath};
pub use driver::ovs::{DATABASE, tables};
pub use error::Error;

use crate::capture::{Capturer, Running};
use crate::check::Checker;
use crate::grpc::Grpc;
use crate::links::Monitor;
use crate::names::Names;
use crate::reconcile::{Reconciler, Reports, Sources, Ways};
use crate::slice::Store;

/// Runs the service in the network namespace it is called in, until shut down. What it made goes on carrying after.
pub async fn run(settings: Settings, connector: Connector, shutdown: Shutdown) -> anyhow::Result<()> {
    let _claim = netloom_service::installation::claim(&settings, "network").await?;
    let config: Config = settings.section("network")?;
    config.check()?;
    let names = Names::new(&config, installation::owner(&settings.data_dir)?);
    let store = Store::open(&settings.data_dir)?;
    let starts = netns::watch(&settings.run_dir.join("netns"))?;
    let sources = Sources {
        store: store.clone(),
        starts: starts.clone(),
        monitor: Monitor::start(starts)?,
        client: netloom_ovsdb::Client::connect(
            config.ovsdb_socket.clone(),
            driver::ovs::DATABASE,
            driver::ovs::tables(),
        ),
    };
    let capturer = Capturer {
        store: store.clone(),
        links: sources.monitor.links(),
        names: names.clone(),
        shutdown: shutdown.clone(),
        running: Running::default(),
    };
    let (report, reports) = watch::channel(None);
    let (site, sites) = watch::channel(None);
    let (path, paths) = watch::channel(Arc::default());
    let (peer, peers) = watch::channel(Arc::default());
    let checker = Checker {
        store: store.clone(),
        starts: sources.starts.clone(),
        links: sources.monitor.links(),
        reports: reports.clone(),
        client: sources.client.clone(),
        names: names.clone(),
        config: Arc::new(config.clone()),
        shutdown: shutdown.clone(),
    };
    let reconciler = Reconciler::new(names, config, sources, Ways { site, paths })?;
    let (count, counts) = watch::channel(Arc::default());
    let (note_read, reads) = watch::channel(Arc::default());
    let listener = connector.listen(&settings.endpoints.network).await?;
    let service =
        NetworkServiceServer::new(Grpc::new(store, reports, counts, reads, capturer, checker, peer))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
    let mut work = JoinSet::new();
    work.spawn(reconciler.run(Reports { report, counts: count, reads: note_read }, shutdown.clone()));
    tokio::spawn(paths::run(sites, peers, path, shutdown.clone()));
    let mut served = pin!(server::serve(
        listener,
        Routes::new(service),
        "netloom.network.v1.NetworkService",
        netloom_proto::DESCRIPTORS,
        shutdown.clone(),
    ));
    let outcome = tokio::select! {
        outcome = &mut served => outcome,
        // The loop notices the end of every other task. Without it nothing is true any more of what is told.
        Some(ended) = work.join_next() => match finished(ended) {
            Ok(()) => served.await,
            failed => failed,
        },
    };
    shutdown.cancel();
    match work.join_next().await {
        Some(ended) => outcome.and(finished(ended)),
        None => outcome,
    }
}

/// Why the loop ended, unless it was asked to.
fn finished(ended: Result<Result<(), Error>, JoinError>) -> anyhow::Result<()> {
    ended
        .context("the loop that makes NICs and wires ended badly")?
        .context("the loop that makes NICs and wires")
}
