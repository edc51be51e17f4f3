//! The compute service: instances on one host, as the scheduler wants them.
//!
//! ```text
//!            Sync, Ensure, Remove, Settle                        Observe
//!                      │                                            ▲
//!   grpc ─► host ──► fence (is this leader's term current?)         │ snapshot, deltas, heartbeat
//!                      ▼                                            │
//!                    table: wanted, seen, tried ────────────────────┘
//!            work due  │   ▲                  ▲ ended (pidfd)
//!                      ▼   │ look             │
//!     reconcile ◄── plan   watch ◄─ events, lists        netns ─► <run dir>/netns/<uid>.<start>
//!         │                  │                             ▲          (the network service plugs there)
//!         └──────► driver ◄──┘── docker, libvirt, sim────────────┘
//! ```
//!
//! What cannot be read back and must outlive the service is in small files: which restart a start was made for and why a process ended (`record`), and which commands ran (`exec_runs`).
//!
//! A call only takes note. `reconcile` brings it about by what `plan` decides from what is wanted (`table`), what was seen (`watch`) and what was tried, so a crash at any point leaves
//! nothing to be undone: the next look finds it. Nothing is started, changed or removed before the first Sync, and absence never removes: a scheduler that
//! lost its memory cannot empty a host. What does not carry our owner is not even seen.

mod carry;
mod config;
mod disk;
mod driver;
mod error;
mod exec_runs;
mod exec_state;
mod figures;
mod files;
mod grpc;
mod holds;
mod host;
mod hosts_file;
mod images;
mod inventory;
mod lease;
mod log;
mod memory;
mod mounts;
mod netns;
mod pins;
mod plan;
mod readiness;
mod reconcile;
mod record;
mod slice;
mod table;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use netloom_proto::compute::v1::compute_service_server::ComputeServiceServer;
use netloom_service::fence::{Fence, term_file};
use netloom_service::{Connector, Settings, Shutdown, installation, server};
use tokio::task::JoinSet;
use tonic::service::Routes;

pub use config::Config;
use config::{DriverName, NicNames};
use driver::Driver;
use driver::docker::DockerDriver;
use driver::libvirt::LibvirtDriver;
use driver::sim::SimDriver;
use exec_runs::ExecRuns;
use files::Files;
use host::Host;
use images::Images;
use images::scrub::{self, Pace};
use inventory::Inventory;
use lease::Lease;
use netns::Netns;
use pins::Pins;
use table::Table;

/// Runs the service until shut down. Instances stay as they are.
pub async fn run(settings: Settings, connector: Connector, shutdown: Shutdown) -> anyhow::Result<()> {
    let _claim = netloom_service::installation::claim(&settings, "compute").await?;
    let config: Config = settings.section("compute")?;
    let owner = installation::owner(&settings.data_dir)?;
    let files = Arc::new(Files::open(&settings.data_dir)?);
    let named = config.drivers(&settings.data_dir);
    let mut drivers: Vec<Arc<dyn Driver>> = Vec::new();
    let has = |name| named.iter().any(|(driver, _)| *driver == name);
    let pins = has(DriverName::Docker).then(|| Pins::open(settings.run_dir.join("binds"))).transpose()?;
    let pins = pins.map(Arc::new);
    // Virtual machines are on its networks too.
    let docker = pins
        .clone()
        .map(|pins| DockerDriver::new(owner, config.clone(), files.clone(), pins, &settings.data_dir));
    let docker = docker.transpose()?.map(Arc::new);
    let netns = (has(DriverName::Docker) || has(DriverName::Libvirt))
        .then(|| Netns::open(settings.run_dir.join("netns"), has(DriverName::Docker)))
        .transpose()?
        .map(Arc::new);
    let mut sources = Vec::new();
    for &(name, needed) in &named {
        sources.push((name.source(), needed));
        match name {
            DriverName::Docker => drivers.extend(docker.clone().map(|docker| docker as Arc<dyn Driver>)),
            DriverName::Libvirt => {
                let kinds = settings.catalogue()?;
                let prefix = settings.section::<NicNames>("network")?.nic_prefix;
                let (files, data, end) = (files.clone(), &settings.data_dir, shutdown.clone());
                let docker = docker.clone();
                let libvirt = LibvirtDriver::new(owner, &config, kinds, files, data, prefix, docker, end)?;
                drivers.push(Arc::new(libvirt));
            }
            DriverName::Sim => drivers.push(Arc::new(SimDriver::new(config.sim.clone())?)),
        }
    }
    let inventory = Arc::new(Inventory::new(&config, &named));
    let keep = Duration::from_secs(config.image_keep_seconds);
    let registry = &settings.endpoints.image_registry;
    let images = Images::open(&settings.data_dir, registry, &connector, keep, shutdown.clone())?;
    let host = Arc::new(Host::new(
        drivers,
        Table::new(sources, inventory.now(), files.clone()),
        files,
        Arc::new(images),
        ExecRuns::open(settings.run_dir.join("exec"))?,
        netns.clone(),
        pins.clone(),
        Fence::open(&term_file(&settings.data_dir, "compute"))?,
        Lease::open(settings.data_dir.join("compute").join("lease"))?,
        settings.catalogue()?,
        shutdown.clone(),
    ));
    let listener = connector.listen(&settings.endpoints.compute).await?;
    let mut tasks = JoinSet::new();
    for driver in 0..host.drivers.len() {
        tasks.spawn(watch::run(host.clone(), driver, inventory.clone()));
    }
    if config.sim.disk_bytes == 0 {
        tasks.spawn(disk::run(host.clone(), inventory.clone(), settings.data_dir.clone()));
    }
    tasks.spawn(reconcile::run(host.clone()));
    tasks.spawn(lease::run(host.clone()));
    tasks.spawn(images::run(host.clone()));
    let every = Duration::from_secs(config.image_check_seconds);
    let pace = Pace::Idle { bytes_per_second: config.image_check_bytes_per_second };
    tasks.spawn(scrub::run(host.clone(), every, pace));
    tasks.spawn(scrub::tell(host.clone(), inventory.clone()));
    let service = ComputeServiceServer::new(grpc::Grpc::new(host))
        .max_decoding_message_size(server::MAX_MESSAGE)
        .max_encoding_message_size(server::MAX_MESSAGE);
    let name = <ComputeServiceServer<grpc::Grpc> as tonic::server::NamedService>::NAME;
    let routes = Routes::new(service);
    let outcome = tokio::select! {
        outcome = server::serve(listener, routes, name, netloom_proto::DESCRIPTORS, shutdown.clone()) => outcome,
        e = ended_early(&mut tasks, &shutdown) => Err(e),
    };
    shutdown.cancel();
    while tasks.join_next().await.is_some() {}
    if let Some(netns) = netns {
        netns.close();
    }
    if let Some(pins) = pins {
        pins.close();
    }
    outcome
}

/// Waits for a task that ends before it is asked to: without it this service would answer and do nothing.
async fn ended_early(tasks: &mut JoinSet<()>, shutdown: &Shutdown) -> anyhow::Error {
    loop {
        match tasks.join_next().await {
            Some(Ok(())) if shutdown.is_cancelled() => {}
            Some(Ok(())) => {
                return anyhow::anyhow!("a task of the compute service ended without being asked to");
            }
            Some(Err(e)) => return anyhow::Error::new(e).context("a task of the compute service ended"),
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_early_is_told_and_one_that_was_asked_to_is_not() {
        let (asked, unasked) = (Shutdown::new(), Shutdown::new());
        asked.cancel();
        let mut tasks = JoinSet::new();
        tasks.spawn(async {});
        let silence = std::time::Duration::from_millis(50);
        assert!(tokio::time::timeout(silence, ended_early(&mut tasks, &asked)).await.is_err());
        tasks.spawn(async {});
        assert!(ended_early(&mut tasks, &unasked).await.to_string().contains("without being asked"));
        tasks.spawn(async { panic!("on purpose") });
        assert!(ended_early(&mut tasks, &asked).await.is::<tokio::task::JoinError>());
    }
}
