//! What a user asks for. The proto twins are in `proto/netloom/v1/spec.proto`, where each field is explained; here the ids are typed.
//!
//! [`LabSpec::check`] holds the rules that no reader of topology files can be trusted to have checked, since a spec also comes in over the API.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{Digest, LabId};

mod capability;
mod check;
mod link;
mod node;
mod placement;
mod plane;
pub mod stages;
mod subnet;

pub use self::capability::{CAPABILITIES, is_capability};
pub use self::check::{
    INTERFACE_NAME, is_cidr, is_interface_name, is_mac, is_relative_normal, is_sysctl, is_word,
    security_option,
};
pub use self::link::{Endpoint, EndpointType, Impairment, LinkSpec, share_text};
pub use self::node::{
    Bind, BindSource, CertificateSpec, DeviceMapping, DnsSpec, Healthcheck, NetworkMode, NodeSpec,
    PortMapping, PullPolicy, RestartPolicy, Stage, StageExec, StageSpec, StageWait, VolumeMount, capability,
};
pub use self::placement::{KvmNeed, NoPolicy, Placement, PlacementPolicy, wrong_label};
pub use self::plane::{NoPlane, PLANES, Plane};
pub use self::subnet::Subnet;

/// MTU of a link that names none, as containerlab's.
pub const DEFAULT_MTU: u32 = 9500;
/// Prefix of instance names of a lab that names none.
pub const DEFAULT_PREFIX: &str = "netloom";
/// Prefix of a lab whose instances are called `<lab>-<node>`.
pub const LAB_NAME_PREFIX: &str = "__lab-name";
/// Words that name no node as an end of a link, nor a kind: what is outside the lab.
pub const RESERVED_ENDS: [&str; 4] = ["host", "mgmt-net", "dummy", "macvlan"];
/// Most nodes of a lab.
pub const MAX_NODES: usize = 5_000;
/// Most links of a lab.
pub const MAX_LINKS: usize = 20_000;
/// Most bytes of all files of a lab.
pub const MAX_FILES_BYTES: u64 = 64 << 20;
/// Most files of a lab.
pub const MAX_FILES: usize = 10_000;
/// Most CPU that a node can ask for, in thousandths of a core.
pub const MAX_CPU_MILLIS: u32 = 1_024_000;
/// Most memory that a node can ask for, in bytes.
pub const MAX_MEMORY_BYTES: u64 = 64 << 40;
/// Most disk that a node can ask for, in bytes.
pub const MAX_DISK_BYTES: u64 = 1 << 50;

/// A whole lab as asked for.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LabSpec {
    /// Prefix of instance names; empty means [`DEFAULT_PREFIX`], [`LAB_NAME_PREFIX`] none but the lab's name.
    pub prefix: String,
    /// The management network, if there is to be one.
    pub mgmt: Option<MgmtSpec>,
    /// The nodes.
    pub nodes: Vec<NodeSpec>,
    /// The links.
    pub links: Vec<LinkSpec>,
    /// The files that binds refer to.
    pub files: Vec<FileEntry>,
    /// Labels of the lab.
    pub labels: BTreeMap<String, String>,
    /// Its certificate authority, when it says something of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_authority: Option<AuthoritySpec>,
    /// What is to carry its links between two nodes; none is as the host says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plane: Option<Plane>,
    /// What becomes of it when it does not fit whole.
    #[serde(skip_serializing_if = "PlacementPolicy::is_best_effort")]
    pub placement_policy: PlacementPolicy,
    /// The project it belongs to, whose quota it counts against; empty means none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub project: String,
    /// How long a host is silent until containers on it are made anew elsewhere, in seconds; 0: never.
    #[serde(skip_serializing_if = "is_zero")]
    pub reschedule_after_seconds: u32,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// The certificate authority of a lab.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthoritySpec {
    /// A CA certificate in PEM among the lab's files; empty makes a new one.
    pub certificate: String,
    /// Its private key in PEM among the lab's files.
    pub key: String,
    /// Size of a made RSA key in bits, 2048 to 4096; 0 makes an ECDSA P-256 key.
    pub key_bits: u32,
    /// How long a made certificate is valid, in seconds; 0 means 5 years.
    pub validity_seconds: u64,
}

/// A lab's management network.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MgmtSpec {
    /// Name of the Docker network; empty means `<prefix>-<lab>`.
    pub network: String,
    /// IPv4 subnet in CIDR form; empty lets Docker choose.
    pub ipv4_subnet: String,
    /// IPv6 subnet in CIDR form; empty means no IPv6.
    pub ipv6_subnet: String,
    /// IPv4 gateway; empty means the first address.
    pub ipv4_gateway: String,
    /// IPv6 gateway; empty means the first address.
    pub ipv6_gateway: String,
    /// MTU in bytes; 0 means Docker's default.
    pub mtu: u32,
    /// Name of the Linux bridge; empty lets netloom make one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub bridge: String,
    /// IPv4 range that addresses are given from; empty means the whole subnet.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ipv4_range: String,
    /// IPv6 range that addresses are given from; empty means the whole subnet.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ipv6_range: String,
    /// True keeps its nodes from reaching beyond it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub internal: bool,
    /// Options of Docker's bridge driver.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub driver_options: BTreeMap<String, String>,
}

/// A file that belongs to a lab; its content travels separately, by digest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileEntry {
    /// Relative path in normal form.
    pub path: String,
    /// Digest of its content.
    pub digest: Digest,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Permission bits.
    pub mode: u32,
}

impl LabSpec {
    /// What the names of all that is made for the lab begin with: `<prefix>-<lab>`.
    pub fn full_prefix(&self, lab: &LabId) -> String {
        match self.prefix.as_str() {
            "" => format!("{DEFAULT_PREFIX}-{lab}"),
            LAB_NAME_PREFIX => lab.to_string(),
            prefix => format!("{prefix}-{lab}"),
        }
    }

    /// Name of a node's container or domain.
    pub fn instance_name(&self, lab: &LabId, node: &str) -> String {
        format!("{}-{node}", self.full_prefix(lab))
    }

    /// The files that a node needs on its host: its binds, its configuration and its licence, sorted by path.
    pub fn files_of(&self, node: &NodeSpec) -> Vec<FileEntry> {
        let used = |file: &&FileEntry| {
            file.path == node.startup_config
                || file.path == node.license
                || node.binds.iter().any(|b| match &b.source {
                    BindSource::Bundle(p) => {
                        file.path == *p
                            || file.path.strip_prefix(p.as_str()).is_some_and(|r| r.starts_with('/'))
                    }
                    BindSource::Host(_) => false,
                })
        };
        let mut files: Vec<FileEntry> = self.files.iter().filter(used).cloned().collect();
        files.sort();
        files
    }

    fn files_under<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a FileEntry> {
        self.files.iter().filter(move |f| {
            f.path == path || f.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'))
        })
    }
}
