//! What a user asks for of a node. The proto twins explain each field.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Placement;
use crate::state::Runtime;

/// A node as asked for. Empty fields take the value of its kind.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    /// Its id. Checked by [`LabSpec::check`](super::LabSpec::check).
    pub id: String,
    /// Its kind.
    pub kind: String,
    /// What runs it, where that is not what runs its kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
    /// Image reference.
    pub image: String,
    /// When the image is fetched.
    pub image_pull_policy: PullPolicy,
    /// Kind-specific variant.
    pub r#type: String,
    /// The group it was declared in.
    pub group: String,
    /// Environment of its first process.
    pub env: BTreeMap<String, String>,
    /// Files and directories mounted into it.
    pub binds: Vec<Bind>,
    /// Commands run once per start, after its links; words as a shell splits them.
    pub exec: Vec<String>,
    /// Replaces the image's command.
    pub cmd: Vec<String>,
    /// Replaces the image's entrypoint.
    pub entrypoint: Vec<String>,
    /// User of its first process.
    pub user: String,
    /// Capabilities added to Docker's default set; [`capability()`] says how one is told from another.
    pub cap_add: Vec<String>,
    /// Kernel parameters of its own namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Most CPU in thousandths of a core; 0 is no limit.
    pub cpu_limit_millis: u32,
    /// Most memory in bytes; 0 is no limit.
    pub memory_limit_bytes: u64,
    /// CPU counted against the host; 0 takes the kind's.
    pub cpu_request_millis: u32,
    /// Memory counted against the host; 0 takes the kind's.
    pub memory_request_bytes: u64,
    /// Disk counted against the host; 0 takes the kind's, and of a virtual machine the size of its disks.
    #[serde(skip_serializing_if = "is_zero")]
    pub disk_request_bytes: u64,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Host name inside; empty means its id.
    pub hostname: String,
    /// Fixed management IPv4 address.
    pub mgmt_ipv4: String,
    /// Fixed management IPv6 address.
    pub mgmt_ipv6: String,
    /// What happens when its first process ends by itself.
    pub restart_policy: RestartPolicy,
    /// True starts the first process without waiting for the interfaces.
    pub skip_interface_wait: bool,
    /// The configuration it starts with, among the lab's files; empty leaves the image's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub startup_config: String,
    /// True puts it in place at every start.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub enforce_startup_config: bool,
    /// A licence file among the lab's files.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub license: String,
    /// Absolute path, inside, of the file that is its configuration, which is saved in place of what its kind says.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub save_file: String,
    /// Other names it is known by in its lab.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Volumes of the lab mounted into it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeMount>,
    /// File systems in memory: mount options by target.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tmpfs: BTreeMap<String, String>,
    /// Devices of the host.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceMapping>,
    /// Size of /dev/shm in bytes; 0 means Docker's.
    #[serde(skip_serializing_if = "is_zero")]
    pub shm_size_bytes: u64,
    /// Docker security options.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub security_opts: Vec<String>,
    /// Cores it may run on; empty means any.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cpu_set: String,
    /// Ports published on the host.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortMapping>,
    /// How it resolves names, when not as the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsSpec>,
    /// Which network namespace it has.
    #[serde(skip_serializing_if = "NetworkMode::is_own")]
    pub network_mode: NetworkMode,
    /// True removes its instance when its process ends by itself.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub auto_remove: bool,
    /// Seconds that its start waits.
    #[serde(skip_serializing_if = "is_zero_u32")]
    pub startup_delay_seconds: u32,
    /// How its health is told, when not as its image says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// What its stages wait for and run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<StageSpec>,
    /// The certificate it is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateSpec>,
    /// Parent cgroup; empty means Docker's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cgroup_parent: String,
    /// Where it may be.
    #[serde(skip_serializing_if = "Placement::is_any")]
    pub placement: Placement,
    /// Of a bridge: the interface or the bridge of its host that it is joined to; empty when to none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uplink: String,
}

// What a node does not say is left out of its hash too, so that a new field does not make every node anew.
fn is_zero(n: &u64) -> bool {
    *n == 0
}

fn is_zero_u32(n: &u32) -> bool {
    *n == 0
}

/// A volume of the lab mounted into a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeMount {
    /// Name within the lab; empty is one of the node's own.
    pub name: String,
    /// Absolute path inside the node.
    pub target: String,
    /// True mounts it read-only.
    pub read_only: bool,
}

/// A device of the host in a node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceMapping {
    /// Absolute path on the host.
    pub host_path: String,
    /// Absolute path inside the node; empty means as on the host.
    pub target: String,
    /// Any of r, w and m; empty means rwm.
    pub permissions: String,
}

/// A port of the host that leads to one of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PortMapping {
    /// Address of the host; empty means 127.0.0.1.
    pub host_address: String,
    /// Port of the host; 0 lets Docker choose.
    pub host_port: u32,
    /// Port of the node.
    pub node_port: u32,
    /// "tcp" or "udp"; empty means tcp.
    pub protocol: String,
}

/// How a node resolves names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsSpec {
    /// Addresses of name servers.
    pub servers: Vec<String>,
    /// Domains searched.
    pub search: Vec<String>,
    /// Options of resolv.conf(5).
    pub options: Vec<String>,
}

/// Which network namespace a node has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkMode {
    /// Its own, with the lab's management network where there is one.
    #[default]
    Own,
    /// Its own, without the management network.
    None,
    /// That of this node.
    Node(String),
    /// The host's.
    Host,
}

impl NodeSpec {
    /// The paths of its binds that are files or directories of the lab.
    pub fn bundled(&self) -> impl Iterator<Item = &str> {
        self.binds.iter().filter_map(|bind| match &bind.source {
            BindSource::Bundle(path) => Some(path.as_str()),
            BindSource::Host(_) => None,
        })
    }
}

impl NetworkMode {
    /// True for the default.
    pub fn is_own(&self) -> bool {
        *self == NetworkMode::Own
    }
}

/// How a node's health is told.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Healthcheck {
    /// The command, its first word CMD, CMD-SHELL or NONE.
    pub test: Vec<String>,
    /// Seconds between two checks; 0 means 30.
    pub interval_seconds: u32,
    /// Seconds that a check may take; 0 means 30.
    pub timeout_seconds: u32,
    /// Checks that fail in a row before it is unhealthy; 0 means 3.
    pub retries: u32,
    /// Seconds after the start in which a failed check does not count.
    pub start_period_seconds: u32,
}

/// A step in the start of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Its instance is made and its process started.
    Create,
    /// Its links are made.
    CreateLinks,
    /// Its exec commands are run.
    Configure,
    /// Its health check succeeds; without one it is healthy when configured.
    Healthy,
    /// Its process ended by itself.
    Exit,
}

impl Stage {
    /// All of them, in order.
    pub const ALL: [Stage; 5] =
        [Stage::Create, Stage::CreateLinks, Stage::Configure, Stage::Healthy, Stage::Exit];

    /// The word in topology files.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Create => "create",
            Stage::CreateLinks => "create-links",
            Stage::Configure => "configure",
            Stage::Healthy => "healthy",
            Stage::Exit => "exit",
        }
    }
}

/// A stage of a node: what it waits for and what is run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageSpec {
    /// The stage.
    pub stage: Stage,
    /// It is entered when all of these are over.
    pub wait_for: Vec<StageWait>,
    /// Commands run in the node.
    pub exec: Vec<StageExec>,
}

/// A stage of another node to be over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageWait {
    /// The other node.
    pub node: String,
    /// Its stage.
    pub stage: Stage,
}

/// A command run in a node at a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageExec {
    /// The command, words as a shell splits them.
    pub command: String,
    /// False runs it when the stage is entered, true when it is over.
    pub on_exit: bool,
}

/// A certificate from the lab's authority.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CertificateSpec {
    /// Names and addresses it is valid for beyond the node's own.
    pub sans: Vec<String>,
    /// Size of its RSA key in bits, 2048 to 4096; 0 makes an ECDSA P-256 key.
    pub key_bits: u32,
    /// How long it is valid, in seconds; 0 means 1 year.
    pub validity_seconds: u64,
}

/// When an image is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PullPolicy {
    /// Only when the host does not have it.
    #[default]
    IfNotPresent,
    /// Never.
    Never,
    /// At each deploy that creates the node.
    Always,
}

/// What happens when a node's first process ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// It is started again.
    #[default]
    Always,
    /// It is started again unless it ended with 0.
    OnFailure,
    /// It stays stopped.
    Never,
}

/// A file or directory mounted into a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Where the content comes from.
    pub source: BindSource,
    /// Absolute path inside the node.
    pub target: String,
    /// True mounts it read-only.
    pub read_only: bool,
}

/// Where the content of a bind comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BindSource {
    /// A file, or a directory of files, among the lab's files.
    Bundle(String),
    /// An absolute path on the host, below an allowed root.
    Host(String),
}

/// A capability as it is compared: Docker takes it in either case and with or without `CAP_`.
pub fn capability(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned()
}
