//! Many hosts in one process (`netloom-bench-hosts`): compute services that simulate their nodes, each beside a network service that keeps its wires in memory, on one socket, as a host that
//! joined. What a scheduler of a program of its own costs with them is the scheduler's.

mod network;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use netloom_service::{Connector, Endpoint, Settings, Shutdown};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::Deserialize;
use tokio::task::JoinSet;

/// How many, where, and how they are.
#[derive(Debug, Deserialize)]
struct Config {
    /// Each has a directory `h<n>` in this one.
    dir: PathBuf,
    hosts: usize,
    /// How long each makes one node, one after the other.
    create_ms: u64,
    cpu_millis: u64,
    memory_bytes: u64,
}

fn main() -> ExitCode {
    let Some(file) = std::env::args().nth(1) else {
        eprintln!("usage: netloom-bench-hosts FILE");
        return ExitCode::from(2);
    };
    match run(&file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("netloom-bench-hosts: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until it is killed.
fn run(file: &str) -> anyhow::Result<()> {
    let config: Config = serde_json::from_slice(&std::fs::read(file)?)?;
    netloom_service::telemetry::init("netloom-bench-hosts");
    // Each has some ten sockets and files.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let mut hosts = JoinSet::new();
        for n in 0..config.hosts {
            let mut settings = settings(&config, n)?;
            settings.endpoints.compute = Endpoint::Memory("compute".into());
            let (compute, front) = (settings.endpoints.compute.clone(), settings.run_dir.join("host.sock"));
            let (connector, shutdown) = (Connector::default(), Shutdown::new());
            let front = Endpoint::Unix(front);
            hosts.spawn(network::run(n, front, compute, connector.clone(), shutdown.clone()));
            hosts.spawn(netloom_compute::run(settings, connector, shutdown));
        }
        hosts.join_next().await.context("there are no hosts")??
    })
}

fn settings(config: &Config, n: usize) -> anyhow::Result<Settings> {
    let Config { create_ms, cpu_millis, memory_bytes, .. } = config;
    let dir = config.dir.join(format!("h{n}"));
    std::fs::create_dir_all(&dir)?;
    let text = format!(
        "[compute]\ndrivers = [\"sim\"]\n[compute.sim]\nat_once = 1\ncreate_ms = {create_ms}\ncpu_millis = {cpu_millis}\nmemory_bytes = {memory_bytes}\ndisk_bytes = 1000000000000000\n"
    );
    Settings::from_toml(&text, &dir, &dir)
}
