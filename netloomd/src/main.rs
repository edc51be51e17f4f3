//! All of netloom in one process.
//!
//! The same five programs, each started by its own `run`, over in-memory channels instead of sockets: no service can tell the difference, and neither can a
//! client. The first program that fails ends them all with its error, so that netloomd never runs half. They end in the order of [`start_all`]: the gateway
//! first, so that no call arrives at a service that is gone.

use std::process::ExitCode;

use netloom_service::programs::Programs;
use netloom_service::settings::Endpoints;
use netloom_service::{Connector, Endpoint, Settings, Shutdown, program};

fn main() -> ExitCode {
    program("netloomd", "all of netloom in one process", |mut settings, shutdown| async move {
        check(&settings)?;
        require_root(&settings)?;
        settings.endpoints = in_memory();
        start_all(&settings, shutdown.clone()).finish(shutdown).await
    })
}

/// Starts the programs, in the order in which they end.
fn start_all(settings: &Settings, shutdown: Shutdown) -> Programs {
    let connector = Connector::of(settings);
    let mut programs = Programs::new(shutdown);
    let own = || (settings.clone(), connector.clone());
    let (s, c) = own();
    programs.start("gateway", |stop| netloom_gateway::run(s, c, stop));
    let (s, c) = own();
    programs.start("scheduler", |stop| netloom_scheduler::run(s, c, stop));
    let (s, c) = own();
    programs.start("image-registry", |stop| netloom_image_registry::run(s, c, stop));
    let (s, c) = own();
    programs.start("compute", |stop| netloom_compute::run(s, c, stop));
    let (s, c) = own();
    programs.start("network", |stop| netloom_network::run(s, c, stop));
    programs
}

/// Refuses what no program can read, all of it at once and before anything is started.
fn check(settings: &Settings) -> anyhow::Result<()> {
    let wrong = [
        settings.check::<netloom_gateway::config::Config>("gateway"),
        settings.check::<netloom_scheduler::config::Config>("scheduler"),
        settings.check::<netloom_image_registry::config::Config>("image_registry"),
        settings.check::<netloom_compute::Config>("compute"),
        settings.check::<netloom_network::Config>("network"),
    ]
    .concat();
    anyhow::ensure!(wrong.is_empty(), "the configuration cannot be used:\n{}", wrong.join("\n"));
    for (key, of) in
        [("scheduler", &settings.endpoints.scheduler), ("image_registry", &settings.endpoints.image_registry)]
    {
        let listen: Option<Endpoint> = settings.value(&format!("{key}.listen"))?;
        anyhow::ensure!(
            listen.is_none() && of.only().is_some(),
            "netloomd is all of netloom by itself, and {key} of [endpoints] or listen of [{key}] speaks of several: run the separate programs (docs/operations.md#several-controllers)"
        );
    }
    Ok(())
}

/// Containers, namespaces and links are root's. Only with nothing but simulated instances can another user run it.
fn require_root(settings: &Settings) -> anyhow::Result<()> {
    let drivers: Option<Vec<String>> = settings.value("compute.drivers")?;
    let simulates = drivers.is_some_and(|all| all.iter().all(|driver| driver == "sim"));
    anyhow::ensure!(
        simulates || nix::unistd::geteuid().is_root(),
        "it makes containers, network namespaces and links, which only root may: start it with sudo, or by systemd"
    );
    Ok(())
}

fn in_memory() -> Endpoints {
    Endpoints {
        scheduler: Endpoint::Memory("scheduler".into()).into(),
        image_registry: Endpoint::Memory("image-registry".into()).into(),
        compute: Endpoint::Memory("compute".into()),
        network: Endpoint::Memory("network".into()),
    }
}
