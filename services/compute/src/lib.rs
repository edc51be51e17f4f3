//! The compute service: instances on one host, as the scheduler wants them.
//!
//! ```text
//!            Sync, Ensure, Remove, Settle                        Observe
//!                      │                                            ▲
//!   grpc ─► host ──► slice (is this leader's term current?)         │ snapshot, deltas, heartbeat
//!                      ▼                                            │
//!                    table: wanted, seen, tried ────────────────────┘
//!            work due  │   ▲                  ▲ ended (pidfd)
//!                      ▼   │ look             │
//!     reconcile ◄── plan   watch ◄─ events, lists        netns ─► <run dir>/netns/<uid>.<start>
//!         │                  │                             ▲          (the network service plugs there)
//!         └──────► driver ◄──┘── docker, sim ──────────────┘
//! ```
//!
//! A call only takes note. `reconcile` brings it about by what `plan` decides from what is wanted (`slice`), what was seen (`watch`) and what was tried, so a crash at any point leaves
//! nothing to be undone: the next look finds it. Nothing is started, changed or removed before the first Sync, and absence never removes: a scheduler that
//! lost its memory cannot empty a host. What does not carry our owner is not even seen.

mod config;
mod driver;
mod error;
mod exec_runs;
mod files;
mod grpc;
mod host;
mod hosts_file;
mod inventory;
mod netns;
mod plan;
mod reconcile;
mod slice;
mod table;
mod watch;

use std::sync::Arc;

use netloom_proto::compute::v1::compute_service_server::ComputeServiceServer;
use netloom_service::{Connector, Settings, Shutdown, installation, server};
use tonic::service::Routes;

use config::{Config, DriverName};
use driver::Driver;
use driver::docker::DockerDriver;
use driver::sim::SimDriver;
use exec_runs::ExecRuns;
use files::Files;
use host::Host;
use inventory::Inventory;
use netns::Netns;
use slice::Fence;
use table::Table;

/// Runs the service until shut down. Instances stay as they are.
pub async fn run(settings: Settings, connector: Connector, shutdown: Shutdown) -> anyhow::Result<()> {
    let config: Config = settings.section("compute")?;
    let owner = installation::owner(&settings.data_dir)?;
    let files = Arc::new(Files::open(&settings.data_dir)?);
    let mut drivers: Vec<Arc<dyn Driver>> = Vec::new();
    let mut netns = None;
    for name in &config.drivers {
        match name {
            DriverName::Docker => {
                let docker = DockerDriver::new(owner, config.clone(), files.clone(), &settings.data_dir)?;
                drivers.push(Arc::new(docker));
                netns = Some(Arc::new(Netns::open(settings.run_dir.join("netns"))?));
            }
            DriverName::Sim => drivers.push(Arc::new(SimDriver::new(config.sim.clone()))),
        }
    }
    let inventory = Arc::new(Inventory::new(drivers.len(), &config));
    let host = Arc::new(Host::new(
        drivers,
        Table::new(config.drivers.len(), inventory.now()),
        files,
        ExecRuns::open(settings.run_dir.join("exec"))?,
        netns.clone(),
        Fence::open(&settings.data_dir.join("compute/term"))?,
        settings.catalogue()?,
        shutdown.clone(),
    ));
    let listener = connector.listen(&settings.endpoints.compute).await?;
    for driver in 0..host.drivers.len() {
        tokio::spawn(watch::run(host.clone(), driver, inventory.clone()));
    }
    tokio::spawn(reconcile::run(host.clone()));
    let service = ComputeServiceServer::new(grpc::Grpc::new(host))
        .max_decoding_message_size(server::MAX_MESSAGE)
        .max_encoding_message_size(server::MAX_MESSAGE);
    let name = <ComputeServiceServer<grpc::Grpc> as tonic::server::NamedService>::NAME;
    server::serve(listener, Routes::new(service), name, netloom_proto::DESCRIPTORS, shutdown).await?;
    if let Some(netns) = netns {
        netns.close();
    }
    Ok(())
}
