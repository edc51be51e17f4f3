//! Section `[compute]` of the configuration.

use std::path::{Path, PathBuf};

use netloom_model::observed::Source;
use serde::Deserialize;

use crate::driver::libvirt::has_machines;

/// Docker's default set, and what the programs of routers need in namespaces of their own. Not: what loads modules, reaches memory and devices, reboots,
/// sets the clock, or reads files that were not given (`SYS_MODULE`, `SYS_RAWIO`, `SYS_BOOT`, `SYS_TIME`, `DAC_READ_SEARCH`, `MAC_ADMIN`, …).
const CAPABILITIES: [&str; 22] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_ADMIN",
    "SYS_CHROOT",
    "SYS_NICE",
    "SYS_PTRACE",
    "SYS_RESOURCE",
];

/// What can be said of this service.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which drivers run instances; a runtime is served by the first that can. Without a word it is Docker, and libvirt where it answers.
    pub drivers: Option<Vec<DriverName>>,
    /// Docker's socket.
    pub docker_socket: PathBuf,
    /// Where libvirt is, as its own programs are told.
    pub libvirt_uri: String,
    /// Host directories that nodes may mount from; none unless named. Docker's socket is never among them.
    pub allowed_host_paths: Vec<PathBuf>,
    /// Devices of the host that nodes may be given.
    pub devices: Vec<String>,
    /// True lets nodes share the host's network namespace.
    pub host_network: bool,
    /// Docker security options that nodes may set.
    pub security_opts: Vec<String>,
    /// Capabilities that nodes may be given, by their kind or `cap-add`.
    pub capabilities: Vec<String>,
    /// Seconds that a node asked to stop has before it is killed.
    pub stop_timeout: u32,
    /// Seconds that an image from the registry's store stays on this host after nothing here needs it any more.
    pub image_keep_seconds: u64,
    /// Seconds after which an image that is kept here is read from the disk and compared again; 0: only when it is asked for.
    pub image_check_seconds: u64,
    /// Bytes of images a second that are read for that at most.
    pub image_check_bytes_per_second: u64,
    /// The sim driver.
    pub sim: SimConfig,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            drivers: None,
            docker_socket: "/var/run/docker.sock".into(),
            libvirt_uri: "qemu:///system".to_owned(),
            allowed_host_paths: Vec::new(),
            // What a tunnel or a file system of a node's own needs, and nothing of the host's.
            devices: ["/dev/net/tun", "/dev/fuse"].map(str::to_owned).to_vec(),
            host_network: false,
            security_opts: vec!["no-new-privileges".to_owned()],
            capabilities: CAPABILITIES.map(str::to_owned).to_vec(),
            stop_timeout: 10,
            image_keep_seconds: 86_400,
            image_check_seconds: 7 * 86_400,
            image_check_bytes_per_second: 32 << 20,
            sim: SimConfig::default(),
        }
    }
}

impl Config {
    /// The drivers, and whether something is wrong with the host where one does not answer: not with one that nobody named, unless machines of an earlier run may be in this data directory.
    pub fn drivers(&self, data_dir: &Path) -> Vec<(DriverName, bool)> {
        match &self.drivers {
            Some(named) => named.iter().map(|name| (*name, true)).collect(),
            None => vec![(DriverName::Docker, true), (DriverName::Libvirt, has_machines(data_dir))],
        }
    }
}

/// What of the section `[network]` this service has to know: taps of virtual machines are called as the network service calls host ends.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct NicNames {
    /// What host ends of NICs begin with.
    pub nic_prefix: String,
}

impl Default for NicNames {
    fn default() -> Self {
        NicNames { nic_prefix: "nl".to_owned() }
    }
}

/// A driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DriverName {
    /// Containers by Docker.
    Docker,
    /// Virtual machines by libvirt.
    Libvirt,
    /// Instances in memory.
    Sim,
}

impl DriverName {
    /// What it reads from.
    pub fn source(self) -> Source {
        match self {
            DriverName::Docker => Source::Docker,
            DriverName::Libvirt => Source::Libvirt,
            DriverName::Sim => Source::Sim,
        }
    }
}

/// How instances in memory behave.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimConfig {
    /// Milliseconds that a creation takes.
    pub create_ms: u64,
    /// Milliseconds that a start takes.
    pub start_ms: u64,
    /// So many instances are made, started or removed at once; 0 says as many as of other runtimes.
    pub at_once: usize,
    /// CPU that the host is said to have, in thousandths of a core; 0 says what it has.
    pub cpu_millis: u64,
    /// Memory that the host is said to have, in bytes; 0 says what it has.
    pub memory_bytes: u64,
    /// Disk that the host is said to have, in bytes; 0 says what it has.
    pub disk_bytes: u64,
    /// File that keeps instances over an end of this service; they are gone with it unless it is named.
    pub file: PathBuf,
}
