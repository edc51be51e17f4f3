//! What a host is told to bring about: its slice of instances, NICs, wires and segments.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};

use crate::id::{Digest, LabId, LabUid, NodeUid, WireId};
use crate::shared::Shared;
use crate::spec::{BindSource, CertificateSpec, FileEntry, Impairment, MgmtSpec, NodeSpec, Plane};
use crate::state::{Runtime, Wanted};

/// An instance as the scheduler wants it on a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// The node's uid.
    pub uid: NodeUid,
    /// Its lab's uid.
    pub lab_uid: LabUid,
    /// Its lab's id.
    pub lab: LabId,
    /// Name of the container or domain.
    pub name: String,
    /// The node, its kind's defaults filled in.
    pub spec: Shared<NodeSpec>,
    /// What runs it: never [`Runtime::Bridge`].
    pub runtime: Runtime,
    /// Running or stopped.
    pub wanted: Wanted,
    /// Guest names of the interfaces it waits for.
    pub interfaces: Vec<String>,
    /// Of a virtual machine: its NICs that have a cable. Those of a container are for the network service alone.
    pub nics: Vec<MachineNic>,
    /// Its lab's management network.
    pub network: Option<Network>,
    /// The files its binds use.
    pub files: Vec<FileEntry>,
    /// Lines of /etc/hosts beyond localhost and its own name.
    pub host_entries: Shared<Vec<HostEntry>>,
    /// Hash over what makes a recreation needed: [`spec_hash`].
    pub spec_hash: String,
    /// Grows with each restart that was asked for.
    pub restarts: u64,
    /// True while its process must not be started yet: it waits for another node.
    pub held: bool,
    /// Its certificate, when it is given one.
    pub certificate: Option<Certificate>,
    /// The node whose network namespace it shares.
    pub network_of: Option<NodeUid>,
    /// How to tell that it has booted; none: it is ready once its commands were run.
    pub readiness: Option<Readiness>,
    /// Digest of the image that it is made from, as it was judged; empty when it is not known. Not part of the hash.
    #[serde(default)]
    pub image_digest: String,
    /// How often it was wiped: what was made for a lower number goes, with its disk and its volumes. Part of [`Instance::spec_hash`], by [`wiped_hash`].
    #[serde(default)]
    pub wipes: u64,
    /// The snapshot that the start for [`Instance::restarts`] begins from; empty: from its disk as it is.
    #[serde(default)]
    pub restore: String,
    /// Its lease; none: it goes on whatever its host hears. Not part of the hash.
    #[serde(default)]
    pub lease: Option<Lease>,
    /// Of a virtual machine whose disk came from another host: the node that it was first made for ([`Instance::origin`]). Not part of the hash.
    #[serde(default)]
    pub disk_of: Option<NodeUid>,
}

impl Instance {
    /// The node that its disk was first made for: what its guest knows its machine by follows from that, wherever it is.
    pub fn origin(&self) -> NodeUid {
        self.disk_of.unwrap_or(self.uid)
    }

    /// True of one that begins on a disk that came from another host: once wiped, its disk is made here.
    pub fn brings_disk(&self) -> bool {
        self.disk_of.is_some() && self.wipes == 0
    }
}

/// How long an instance goes on where its host is not told that it may: then it may be made anew elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Seconds after which its host stops it where the lease was not renewed.
    pub seconds: u32,
    /// The generation of its lab's spec that last changed how long leases are: no two leases that were asked for one after the other are alike.
    pub generation: u64,
}

/// How to tell that an instance has booted. Not part of the hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// What is asked, after the exec commands of each start.
    pub check: ReadinessCheck,
    /// Seconds that are waited at most, from the end of these commands; 1 to 7,200.
    pub timeout_seconds: u32,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadinessCheck {
    /// This command and its arguments end with 0 inside it.
    Command(Vec<String>),
    /// A line of its log since its start matches this regular expression.
    LogPattern(String),
    /// Its host can connect to this port at its management address.
    TcpPort(NonZeroU16),
}

/// A certificate of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// Its private key, PEM (PKCS#8).
    pub key_pem: String,
    /// The certificate of the lab's authority, PEM.
    pub authority_pem: String,
}

/// A lab's management network.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Network {
    /// Name of the Docker network.
    pub name: String,
    /// What was asked for of it.
    pub spec: MgmtSpec,
    /// The fixed addresses of the lab's containers, which no virtual machine is given. Not part of the hash, nor is what follows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fixed: Vec<String>,
    /// The fixed addresses of the lab's virtual machines, which the runtime of containers is to give to none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fixed_of_machines: Vec<String>,
}

/// A line of /etc/hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostEntry {
    /// IPv4 or IPv6 address.
    pub address: String,
    /// The names.
    pub names: Vec<String>,
}

/// Hash over everything that a container cannot change while it lives. What a host can bring about on a running node is not part of it (its limits, commands, stages, certificate, policy, what
/// the files that it mounts hold), nor what is counted against the host, nor links: none of these restarts a node.
pub fn spec_hash(name: &str, spec: &NodeSpec, files: &[FileEntry], network: Option<&Network>) -> String {
    let mut fixed = spec.clone();
    fixed.exec = Vec::new();
    fixed.group = String::new();
    fixed.r#type = String::new();
    fixed.cpu_request_millis = 0;
    fixed.memory_request_bytes = 0;
    fixed.disk_request_bytes = 0;
    // It stays where it is.
    fixed.placement = Default::default();
    fixed.image_pull_policy = Default::default();
    fixed.restart_policy = Default::default();
    fixed.cpu_limit_millis = 0;
    fixed.memory_limit_bytes = 0;
    fixed.cpu_set = String::new();
    fixed.stages = Vec::new();
    fixed.startup_delay_seconds = 0;
    fixed.auto_remove = false;
    fixed.enforce_startup_config = false;
    fixed.save_file = String::new();
    // Those of its container follow when it is next made anew.
    fixed.labels = Default::default();
    // Names in /etc/hosts; those on the management network are given when it joins it.
    fixed.aliases = Vec::new();
    // Where it is mounted cannot change; what is there can.
    fixed.certificate = spec.certificate.as_ref().map(|_| CertificateSpec::default());
    // A file that is mounted by itself cannot become a directory, nor the other way round.
    let text = serde_json::to_vec(&(name, fixed, mounted_files(spec, files), network))
        .expect("these types always serialise");
    Digest::of(&text).as_str()["sha256:".len()..].to_owned()
}

/// The hash of an instance that was wiped so often: what was made before the last time has another, and is made anew.
pub fn wiped_hash(spec_hash: &str, wipes: u64) -> String {
    match wipes {
        0 => spec_hash.to_owned(),
        wipes => format!("{spec_hash}.{wipes}"),
    }
}

/// The paths of the files that a node mounts one by one, not as a part of a directory.
pub fn mounted_files<'f>(spec: &NodeSpec, files: &'f [FileEntry]) -> Vec<&'f str> {
    let mounts = |file: &&FileEntry| {
        spec.binds.iter().any(|b| matches!(&b.source, BindSource::Bundle(path) if *path == file.path))
    };
    files.iter().filter(mounts).map(|f| f.path.as_str()).collect()
}

/// Hash over the files of a node; empty when it has none.
pub fn files_hash(files: &[FileEntry]) -> String {
    if files.is_empty() {
        return String::new();
    }
    let text = serde_json::to_vec(files).expect("these types always serialise");
    Digest::of(&text).as_str()["sha256:".len()..].to_owned()
}

/// An interface of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// Names it, and its host end.
    pub wire_id: WireId,
    /// The node it is in.
    pub node_uid: NodeUid,
    /// Its name inside the node.
    pub guest_name: String,
    /// MAC address.
    pub mac: String,
    /// MTU in bytes.
    pub mtu: u32,
    /// Addresses with prefix length.
    pub addresses: Vec<String>,
    /// The lab.
    pub lab_uid: LabUid,
}

/// An interface of a virtual machine, which it is started with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineNic {
    /// Names it, and its tap.
    pub wire_id: WireId,
    /// What it would be called in a container, which says which of its kind's ports it is.
    pub guest_name: String,
    /// MAC address.
    pub mac: String,
    /// MTU in bytes that its guest is told; 0: it is told none.
    pub mtu: u32,
    /// Addresses with prefix length that its guest is told.
    pub addresses: Vec<String>,
}

/// A cable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wire {
    /// Names it; the cookie of its flows.
    pub wire_id: WireId,
    /// One end.
    pub a: WireEnd,
    /// The other end.
    pub b: WireEnd,
    /// False unplugs it.
    pub enabled: bool,
    /// The lab.
    pub lab_uid: LabUid,
    /// What happens to frames from `a` to `b`.
    pub a_to_b: Impairment,
    /// What happens to frames from `b` to `a`.
    pub b_to_a: Impairment,
    /// What its lab wants it to be carried by; none is as the host says.
    pub plane: Option<Plane>,
}

/// What a wire ends in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum WireEnd {
    /// A NIC on this host.
    Nic(WireId),
    /// A segment on this host.
    Segment(WireId),
    /// An interface of the host: the name that the host end of the NIC at the other end gets.
    HostInterface(String),
    /// The Linux bridge of a management network, by name: the host end of the NIC at the other end becomes a port of it.
    Bridge(String),
    /// Nothing.
    Dummy,
    /// Another host, where the wire goes on: it ends there in what is at the far end of the link.
    Tunnel(Tunnel),
}

/// A wire's way to another host.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tunnel {
    /// The other host's tunnel address.
    pub remote: IpAddr,
    /// The network identifier of the link, which both hosts have alike and no other link has: 1 to [`VNI_MAX`].
    pub vni: u32,
    /// True when what the link ends in there lives and is set up: that is what carrier follows here.
    pub remote_up: bool,
}

/// The highest network identifier: there are 24 bits for it in each frame.
pub const VNI_MAX: u32 = (1 << 24) - 1;

/// A switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Names it, and its bridge.
    pub wire_id: WireId,
    /// The bridge node.
    pub node_uid: NodeUid,
    /// The lab.
    pub lab_uid: LabUid,
    /// The interface or the bridge of the host that it is joined to; empty when to none.
    #[serde(default)]
    pub uplink: String,
}

/// Everything a host's network is told.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NetworkSlice {
    /// The NICs.
    pub nics: BTreeMap<WireId, Nic>,
    /// The wires.
    pub wires: BTreeMap<WireId, Wire>,
    /// The segments.
    pub segments: BTreeMap<WireId, Segment>,
}

/// Name of the Linux bridge of a lab's management network, at most 15 bytes: the one asked for, or one made from the lab's uid.
pub fn mgmt_bridge(lab: &LabUid, spec: &MgmtSpec) -> String {
    if !spec.bridge.is_empty() {
        return spec.bridge.clone();
    }
    // The tail of a UUIDv7 is random; its head is the time.
    let digits: String = lab.to_string().chars().filter(|c| *c != '-').collect();
    format!("nlm{}", &digits[digits.len() - 12..])
}

/// A stable, locally administered unicast MAC address for a NIC that names none, from its wire id.
pub fn mac_of(wire: WireId) -> String {
    let n = wire.get();
    format!(
        "02:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}",
        n >> 32 & 255,
        n >> 24 & 255,
        n >> 16 & 255,
        n >> 8 & 255,
        n & 255
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Bind;

    #[test]
    fn only_what_a_container_cannot_change_is_hashed() {
        let base = NodeSpec { id: "a".into(), image: "i".into(), ..NodeSpec::default() };
        let hash = |spec: &NodeSpec| spec_hash("n", spec, &[], None);
        let exec = NodeSpec { exec: vec!["x".into()], cpu_request_millis: 9, ..base.clone() };
        assert_eq!(hash(&base), hash(&exec));
        let limits = NodeSpec {
            cpu_limit_millis: 500,
            memory_limit_bytes: 1 << 26,
            cpu_set: "0".into(),
            startup_delay_seconds: 3,
            save_file: "/etc/app.conf".into(),
            auto_remove: true,
            aliases: vec!["b".into()],
            labels: [("graph-icon".into(), "router".into())].into(),
            ..base.clone()
        };
        assert_eq!(hash(&base), hash(&limits));
        let with = |key_bits| NodeSpec {
            certificate: Some(CertificateSpec { key_bits, ..CertificateSpec::default() }),
            ..base.clone()
        };
        assert_eq!(hash(&with(0)), hash(&with(2048)));
        assert_ne!(hash(&base), hash(&with(0)), "its place is mounted when it is made");
        let image = NodeSpec { image: "j".into(), ..base.clone() };
        assert_ne!(hash(&base), hash(&image));
        let file = |content: &[u8], path: &str| FileEntry {
            path: path.into(),
            digest: Digest::of(content),
            size_bytes: 1,
            mode: 0o644,
        };
        let source = BindSource::Bundle("p".into());
        let bind = Bind { source, target: "/p".into(), read_only: false };
        let bound = NodeSpec { binds: vec![bind], ..base.clone() };
        let of_files = |file: FileEntry| spec_hash("n", &bound, &[file], None);
        assert_eq!(of_files(file(b"1", "p")), of_files(file(b"2", "p")), "what a file holds can change");
        assert_eq!(of_files(file(b"1", "p/a")), of_files(file(b"1", "p/b")));
        assert_ne!(
            of_files(file(b"1", "p")),
            of_files(file(b"1", "p/a")),
            "a file cannot become a directory"
        );
        assert_ne!(files_hash(&[file(b"1", "p")]), files_hash(&[file(b"2", "p")]));
    }

    #[test]
    fn a_management_bridge_has_a_name_of_its_own() {
        let (lab, other) = (LabUid::new(), LabUid::new());
        let name = mgmt_bridge(&lab, &MgmtSpec::default());
        assert_eq!(name.len(), 15);
        assert_eq!(name, mgmt_bridge(&lab, &MgmtSpec::default()));
        assert_ne!(name, mgmt_bridge(&other, &MgmtSpec::default()));
        let asked = MgmtSpec { bridge: "br-lab".into(), ..MgmtSpec::default() };
        assert_eq!(mgmt_bridge(&lab, &asked), "br-lab");
    }

    #[test]
    fn made_macs_are_valid() {
        assert!(crate::spec::is_mac(&mac_of(WireId::try_from(u64::MAX >> 1).unwrap())));
    }
}
