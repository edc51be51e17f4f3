//! What hosts read back. "Running", "up" and "present" are only ever said from these.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{Digest, LabUid, NodeUid, WireId};
use crate::slice::Lease;
use crate::spec::{PortMapping, Stage};
use crate::state::Runtime;

/// Where an instance is in its life, as its host sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Phase {
    /// Nothing exists of it.
    Absent,
    /// It is being created.
    Creating,
    /// It exists and is being started, or waits for its next restart.
    Starting,
    /// Its process runs.
    Running,
    /// It is being stopped or removed.
    Stopping,
    /// It exists and its process has ended.
    Stopped,
    /// It exists, does not run, and is out of the way of what takes its place.
    Aside,
    /// It cannot be created, started or kept running.
    Failed,
    /// The runtime does not answer.
    Unknown,
}

/// What a host read something from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Source {
    /// Docker.
    Docker,
    /// Open vSwitch's database.
    Ovsdb,
    /// The flows of a bridge of Open vSwitch.
    Flows,
    /// The kernel's interfaces.
    Interfaces,
    /// The kernel's traffic control: redirects and queues.
    Redirects,
    /// Nothing that runs: a node that is only played.
    Sim,
    /// libvirt.
    Libvirt,
}

/// How the error of a start begins when its node did not get ready in time.
pub const NOT_READY: &str = "it was not ready within";

/// How what is said begins of an interface that a virtual machine runs without, and has from its next start on.
pub const NEEDS_RESTART: &str = "needs node restart";

/// How what is said begins of an instance that cannot be started before its host has the image again that its disk lies on.
pub const NEEDS_IMAGE: &str = "needs image";

/// How the exec commands of a start went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ExecPhase {
    /// There is no start.
    #[default]
    None,
    /// They wait for the links.
    Waiting,
    /// They are being run, or were and it is not ready yet.
    Running,
    /// All ended with 0, or there are none, and it is ready.
    Done,
    /// All were run and one did not end with 0, or it was not ready in time.
    Failed,
}

/// An instance as its host reads it back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    /// The node.
    pub uid: NodeUid,
    /// Its lab, from the instance's own label.
    pub lab_uid: LabUid,
    /// Where it is in its life.
    pub phase: Phase,
    /// Which start this is; empty before the first.
    pub start_id: String,
    /// Hash label of the instance that exists; empty when none does.
    pub spec_hash: String,
    /// The container's or domain's own id.
    pub instance_id: String,
    /// Digest of the image it was made from.
    pub image_digest: String,
    /// Exit code when its process last ended.
    pub exit_code: Option<i32>,
    /// What went wrong or is being done, in words.
    pub detail: String,
    /// How the exec commands of this start went.
    pub exec_phase: ExecPhase,
    /// Output of the exec command that failed, else what was waited for in vain, which begins with [`NOT_READY`].
    pub exec_error: String,
    /// How often it was restarted after its process ended by itself.
    pub restart_count: u32,
    /// When its process started, in microseconds since 1970; 0 when it did not.
    pub start_time_us: i64,
    /// Management IPv4 address.
    pub mgmt_ipv4: String,
    /// Management IPv6 address.
    pub mgmt_ipv6: String,
    /// False when it is not in the host's slice.
    pub wanted: bool,
    /// What its health check says: "healthy", "unhealthy" or "starting"; empty without one or while it does not run.
    #[serde(default)]
    pub health: String,
    /// The restart that it was last started for.
    #[serde(default)]
    pub restarts: u64,
    /// True when its process ended by itself at least once since it was made.
    #[serde(default)]
    pub exited: bool,
    /// Which stage commands of this start were run, in order.
    #[serde(default)]
    pub stages_done: Vec<StagePoint>,
    /// Its ports on the host as they are now, the port that Docker chose included.
    #[serde(default)]
    pub ports: Vec<PortMapping>,
    /// What this was read from; empty where nothing could be read.
    #[serde(default)]
    pub sources: Vec<Source>,
    /// The lease that its host keeps for it.
    #[serde(default)]
    pub lease: Option<Lease>,
}

/// A point in a start at which stage commands are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StagePoint {
    /// The stage.
    pub stage: Stage,
    /// False when it is entered, true when it is over.
    pub on_exit: bool,
}

impl Observed {
    /// An instance of which nothing exists.
    pub fn absent(uid: NodeUid, lab_uid: LabUid) -> Observed {
        Observed {
            uid,
            lab_uid,
            phase: Phase::Absent,
            start_id: String::new(),
            spec_hash: String::new(),
            instance_id: String::new(),
            image_digest: String::new(),
            exit_code: None,
            detail: String::new(),
            exec_phase: ExecPhase::None,
            exec_error: String::new(),
            restart_count: 0,
            start_time_us: 0,
            mgmt_ipv4: String::new(),
            mgmt_ipv6: String::new(),
            wanted: true,
            health: String::new(),
            restarts: 0,
            exited: false,
            stages_done: Vec::new(),
            ports: Vec::new(),
            sources: Vec::new(),
            lease: None,
        }
    }
}

/// A NIC as its host reads it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedNic {
    /// Names it.
    pub wire_id: WireId,
    /// True when its host end exists.
    pub present: bool,
    /// The start it was plugged into; empty when not plugged.
    pub start_id: String,
    /// True when its host end has carrier.
    pub carrier: bool,
    /// True when its node lives and has it set up, whatever carrier it has: what carrier at the far end of its link follows.
    #[serde(default)]
    pub alive: bool,
    /// What went wrong, in words.
    pub detail: String,
}

/// The state of a wire or a segment on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WireState {
    /// It is being made; of a wire, also: a NIC it ends in is not plugged yet.
    Pending,
    /// Its flows were read back, its ports exist and both ends have carrier.
    Up,
    /// Made, without carrier at an end, or not enabled.
    Down,
    /// It cannot be made; tried again.
    Failed,
    /// Open vSwitch does not answer.
    Unknown,
}

/// An end of a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum End {
    /// The first.
    A,
    /// The second.
    B,
}

/// A wire as its host reads it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedWire {
    /// Names it.
    pub wire_id: WireId,
    /// Its state.
    pub state: WireState,
    /// Why, in words. Of one that is up: what of it is not as asked for yet; else empty.
    pub detail: String,
    /// The end that it is because of, where it is one.
    #[serde(default)]
    pub end: Option<End>,
    /// What carries it.
    pub plane: String,
    /// Why that carries it, in words.
    #[serde(default)]
    pub plane_reason: String,
    /// What its state was read from; empty where nothing could be read.
    #[serde(default)]
    pub sources: Vec<Source>,
}

/// Frames and bytes that went one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Frames.
    pub frames: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What a wire carried since its joints were made, each direction by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Carried {
    /// From its first end to its second.
    pub a_to_b: Count,
    /// From its second end to its first.
    pub b_to_a: Count,
}

/// A segment as its host reads it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedSegment {
    /// Names it.
    pub wire_id: WireId,
    /// Its state: up when its bridge exists, was taken up, its flow was read back and it is joined to its uplink.
    pub state: WireState,
    /// Why, in words; when up, what is to be said of its uplink, mostly nothing.
    pub detail: String,
    /// What its state was read from; empty where nothing could be read.
    #[serde(default)]
    pub sources: Vec<Source>,
}

/// What a host's runtimes can do, by evidence.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ComputeInventory {
    /// CPU in thousandths of a core.
    pub cpu_millis: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Disk for images and for the disks of virtual machines, in bytes: what is free of it and what these machines have taken. None where it is not told.
    #[serde(default)]
    pub disk_bytes: Option<u64>,
    /// Runtimes that answered.
    pub runtimes: Vec<Runtime>,
    /// What they said of themselves.
    pub runtime_versions: Vec<String>,
    /// What does not work, in words.
    pub problems: Vec<String>,
    /// Directories below which nodes may mount host paths.
    #[serde(default)]
    pub host_path_roots: Vec<String>,
    /// Architecture of the machine as images name it, for instance amd64; empty when not told.
    #[serde(default)]
    pub architecture: String,
    /// Devices that nodes may be given.
    #[serde(default)]
    pub allowed_devices: Vec<String>,
    /// True when nodes may share the host's network namespace.
    #[serde(default)]
    pub host_network: bool,
    /// Docker security options that nodes may set.
    #[serde(default)]
    pub allowed_security_opts: Vec<String>,
    /// Capabilities that nodes may be given, without `CAP_`.
    #[serde(default)]
    pub allowed_capabilities: Vec<String>,
    /// Runtimes that need not be there and do not answer, each with why, in words.
    #[serde(default)]
    pub missing_runtimes: Vec<String>,
    /// Images that were set aside since their bytes were others, and are not here since.
    #[serde(default)]
    pub lost_images: Vec<Digest>,
    /// What virtual machines run on; none where nothing runs them, or it does not tell.
    #[serde(default)]
    pub acceleration: Option<Acceleration>,
}

/// What virtual machines of a host run on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Acceleration {
    /// The processor, by KVM.
    Kvm,
    /// They are emulated: why, in words.
    Emulated(String),
}

/// What a host's network can do, by evidence.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NetworkInventory {
    /// "system" (kernel), "netdev" (userspace), or empty when Open vSwitch does not work.
    pub datapath: String,
    /// Version of Open vSwitch.
    pub ovs_version: String,
    /// What does not work, in words.
    pub problems: Vec<String>,
    /// Fields of an impairment that this kernel can bring about, found by trying.
    #[serde(default)]
    pub impairments: Vec<String>,
    /// True when wires may end in interfaces of the host.
    #[serde(default)]
    pub host_interfaces: bool,
    /// What carries links of labs that do not say.
    #[serde(default)]
    pub plane: String,
    /// Why that carries them, in words.
    #[serde(default)]
    pub plane_reason: String,
    /// Where its wires to other hosts begin; none where it has none.
    #[serde(default)]
    pub underlay: Option<Underlay>,
    /// What was measured of the ways to other hosts, in the order of their addresses. It is told again whenever a host is heard of, and kept nowhere.
    #[serde(skip)]
    pub paths: Arc<[PathMtu]>,
    /// What segments may have for uplinks, in the order of their names.
    #[serde(default)]
    pub uplinks: Vec<Uplink>,
}

/// An interface or a bridge of the host that segments may be joined to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uplink {
    /// Its name.
    pub interface: String,
    /// What it is; none while there is none of this name.
    pub kind: Option<UplinkKind>,
    /// Why no segment can be joined to it as it is, in words; empty when one can.
    pub problem: String,
}

/// What an uplink is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UplinkKind {
    /// An interface, which becomes a port of one segment.
    Nic,
    /// A Linux bridge, which any number of segments may be joined to.
    Bridge,
    /// A bridge of Open vSwitch, likewise.
    OvsBridge,
}

/// What was measured of the way to another host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathMtu {
    /// The other host's tunnel address.
    pub address: IpAddr,
    /// MTU, in bytes, that an interface may have whose frames go there through a tunnel; none when it is not known.
    pub mtu: Option<u32>,
    /// Why it is not known, in words.
    pub problem: String,
}

/// Where a host's wires to other hosts begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Underlay {
    /// Its tunnel address.
    pub address: IpAddr,
    /// The UDP port of tunnels in the kernel; those of Open vSwitch have the next one.
    pub port: u16,
    /// MTU, in bytes, that an interface may have whose frames go through a tunnel from there: what the interface with the address has, without what a tunnel adds.
    pub mtu: u32,
}
