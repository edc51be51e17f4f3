//! Section `[compute]` of the configuration.

use std::path::PathBuf;

use serde::Deserialize;

/// What can be said of this service.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which drivers run instances. A runtime is served by the first that can.
    pub drivers: Vec<DriverName>,
    /// Docker's socket.
    pub docker_socket: PathBuf,
    /// Host directories that nodes may mount from; none unless named. Docker's socket is never among them.
    pub allowed_host_paths: Vec<PathBuf>,
    /// Devices of the host that nodes may be given.
    pub devices: Vec<String>,
    /// True lets nodes share the host's network namespace.
    pub host_network: bool,
    /// Docker security options that nodes may set.
    pub security_opts: Vec<String>,
    /// Seconds that a node asked to stop has before it is killed.
    pub stop_timeout: u32,
    /// The sim driver.
    pub sim: SimConfig,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            drivers: vec![DriverName::Docker],
            docker_socket: "/var/run/docker.sock".into(),
            allowed_host_paths: Vec::new(),
            // What a tunnel or a file system of a node's own needs, and nothing of the host's.
            devices: ["/dev/net/tun", "/dev/fuse"].map(str::to_owned).to_vec(),
            host_network: false,
            security_opts: vec!["no-new-privileges".to_owned()],
            stop_timeout: 10,
            sim: SimConfig::default(),
        }
    }
}

/// A driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DriverName {
    /// Containers by Docker.
    Docker,
    /// Instances in memory.
    Sim,
}

/// How instances in memory behave.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimConfig {
    /// Milliseconds that a creation takes.
    pub create_ms: u64,
    /// Milliseconds that a start takes.
    pub start_ms: u64,
    /// CPU that the host is said to have, in thousandths of a core; 0 says what it has.
    pub cpu_millis: u64,
    /// Memory that the host is said to have, in bytes; 0 says what it has.
    pub memory_bytes: u64,
}
