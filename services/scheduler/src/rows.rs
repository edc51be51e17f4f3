//! The rows, as plain data. The store reads and writes them, everything else decides over them.
//!
//! All rows of a lab travel together as [`LabRows`]: whoever changes something takes them, changes a copy, and the store writes the difference
//! with its events in one transaction. There is no second way to write.

mod index;
mod operation;
mod resources;
mod table;

use std::collections::{BTreeMap, BTreeSet};

use netloom_model::id::{HostId, LabId, LabUid, LinkUid, NodeId, NodeUid, OperationId, WireId};
use netloom_model::observed::{ComputeInventory, NEEDS_RESTART, NetworkInventory, Observed, Phase, Underlay};
use netloom_model::plan::Rejection;
use netloom_model::shared::Shared;
use netloom_model::slice::{Network, files_hash, mgmt_bridge, wiped_hash};
use netloom_model::spec::{FileEntry, LabSpec, LinkSpec, NodeSpec, Plane, Stage};
use netloom_model::state::{LinkState, NodeState, Runtime, Wanted};
use netloom_model::tally::{LinkTally, NodeTally};
use serde::{Deserialize, Serialize};

pub use self::index::Index;
pub use self::operation::{OperationKind, OperationRow, OperationState};
pub use self::resources::Resources;
pub use self::table::{Difference, Table};
use crate::policy::HostPolicy;

/// A lab.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabRow {
    /// Unique for all time.
    pub uid: LabUid,
    /// Its id.
    pub id: LabId,
    /// What was asked for.
    pub spec: Shared<LabSpec>,
    /// What was asked for when a deploy was last over: where a cancel goes back to.
    pub completed: Option<Shared<LabSpec>>,
    /// Grows with each change of the spec.
    pub generation: u64,
    /// How many deploys of it succeeded: hosts keep what nodes made of files that are written over until the next one does.
    #[serde(default)]
    pub deploys: u64,
    /// The generation that last changed how long leases of its instances are.
    #[serde(default)]
    pub leases: u64,
    /// Running, or absent while it is being removed.
    pub wanted: Wanted,
    /// Trace context of the call that last changed it.
    pub traceparent: String,
    /// When it was made.
    pub create_us: i64,
    /// When its spec last changed.
    pub update_us: i64,
}

impl LabRow {
    /// The management network, as its instances get it: its bridge has a name.
    pub fn network(&self) -> Option<Network> {
        let mut network = network_of(&self.id, &self.spec)?;
        network.spec.bridge = mgmt_bridge(&self.uid, &network.spec);
        Some(network)
    }
}

/// The management network that a spec asks for.
pub fn network_of(lab: &LabId, spec: &LabSpec) -> Option<Network> {
    let mgmt = spec.mgmt.clone()?;
    let name = match mgmt.network.as_str() {
        "" => spec.full_prefix(lab),
        given => given.to_owned(),
    };
    Some(Network { name, spec: mgmt, ..Network::default() })
}

/// How far the image and the files of a node are on its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ImageStep {
    /// Not looked at yet.
    Waiting,
    /// Being fetched.
    Pulling,
    /// There: the node is admitted to its host.
    Ready,
    /// It cannot be used.
    Failed,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeRow {
    /// Unique for all time.
    pub uid: NodeUid,
    /// Its id.
    pub id: NodeId,
    /// True for a row beside the one that is shown: a former self, set aside or leaving, or a successor.
    pub replaced: bool,
    /// What runs it.
    pub runtime: Runtime,
    /// What was asked of it.
    pub wanted: Wanted,
    /// The node, its kind's defaults filled in.
    pub spec: Shared<NodeSpec>,
    /// Hash over what makes a recreation needed.
    pub spec_hash: String,
    /// Where it runs; none when no host has room.
    pub host: Option<HostId>,
    /// A bridge's segment.
    pub segment: Option<WireId>,
    /// Why each host does not take it, when it has none.
    pub rejections: Vec<Rejection>,
    /// How far its image and files are.
    pub image_step: ImageStep,
    /// Progress, or what went wrong with them.
    pub image_detail: String,
    /// Digest of the image that was judged: what it is made from, whatever its reference comes to mean.
    #[serde(default)]
    pub image_digest: String,
    /// Hash of the files that were put on its host for it.
    #[serde(default)]
    pub files: String,
    /// The files that were last put there for it.
    #[serde(skip)]
    pub own_files: Vec<FileEntry>,
    /// True once it had its place: there may be an instance of it on its host, whatever was last read back.
    #[serde(default)]
    pub placed: bool,
    /// The node whose network namespace it was made to share.
    #[serde(default)]
    pub shares: Option<NodeUid>,
    /// Why it could not be removed yet.
    pub removal: String,
    /// The start whose links were said to be settled.
    pub settled_start: String,
    /// Grows with each start and restart that was asked for.
    #[serde(default)]
    pub restarts: u64,
    /// How often it was wiped.
    #[serde(default)]
    pub wipes: u64,
    /// The snapshot that its last start that was asked for begins from; empty: from its disk as it is.
    #[serde(default)]
    pub restore: String,
    /// Of a virtual machine that brought its disk from another host: the node that the disk was first made for ([`NodeRow::origin`]).
    #[serde(default)]
    pub disk_of: Option<NodeUid>,
    /// True until that disk is on its host.
    #[serde(default)]
    pub disk_due: bool,
    /// How far it came in its stages.
    #[serde(default)]
    pub stages: Stages,
    /// Its state.
    pub state: NodeState,
    /// Why, in words.
    pub reason: String,
    /// What its host last read back of it.
    pub observed: Option<Shared<Observed>>,
    /// When it was made.
    pub create_us: i64,
    /// When what is told of it last changed.
    pub update_us: i64,
}

impl NodeRow {
    /// True when it is wanted: neither set aside, nor being removed, nor a successor.
    pub fn is_wanted(&self) -> bool {
        self.wanted.stays() && !self.replaced
    }

    /// True for a former self: it is set aside, or waits for its removal.
    pub fn is_former(&self) -> bool {
        !self.wanted.stays() && self.replaced
    }

    /// True for what is to take the place of a node that stays until all is ready for that: its image is on the host, and the host would take it.
    pub fn is_successor(&self) -> bool {
        self.wanted.stays() && self.replaced
    }

    /// True for what is set aside: its disk is kept until an operation succeeds, since it may be asked to come back.
    pub fn is_aside(&self) -> bool {
        self.wanted == Wanted::Aside
    }

    /// The node that its disk was first made for, on whichever host.
    pub fn origin(&self) -> NodeUid {
        self.disk_of.unwrap_or(self.uid)
    }

    /// True when it may have written to a disk of its own, which is on its host.
    pub fn has_disk(&self) -> bool {
        self.runtime == Runtime::Libvirt && self.image_step == ImageStep::Ready
    }

    /// The image that it is made from. One that brings its disk lies on the very bytes that the disk lies on, whatever their name has come to mean.
    pub fn image(&self) -> String {
        let image = self.spec.image.as_str();
        match self.disk_of.is_some() && !self.image_digest.is_empty() {
            true => {
                format!("{}@{}", image.split_once('@').map_or(image, |(name, _)| name), self.image_digest)
            }
            false => image.to_owned(),
        }
    }

    /// The hash that its instance is to have.
    pub fn instance_hash(&self) -> String {
        wiped_hash(&self.spec_hash, self.wipes)
    }

    /// Where its instance is in its life, as last read back; none when there is none.
    pub fn phase(&self) -> Option<Phase> {
        self.observed.as_deref().map(|o| o.phase).filter(|p| *p != Phase::Absent)
    }

    /// True for what leaves and may still have the name, the ports or the addresses of what takes its place.
    pub fn is_in_the_way(&self) -> bool {
        !self.wanted.stays() && self.phase().is_some_and(|p| p != Phase::Aside)
    }

    /// True while its image and files are still awaited on its host.
    pub fn is_preparing(&self) -> bool {
        self.wanted.stays()
            && self.runtime != Runtime::Bridge
            && self.host.is_some()
            && matches!(self.image_step, ImageStep::Waiting | ImageStep::Pulling)
    }
}

/// How far a node came in its stages since its row was made: a wait that is over is over for good. Only kept in labs where a node says something of stages.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Stages {
    /// Those that were entered.
    pub entered: BTreeSet<Stage>,
    /// Those that are over.
    pub over: BTreeSet<Stage>,
}

/// A link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkRow {
    /// Unique for all time.
    pub uid: LinkUid,
    /// Its id: the sorted end pair.
    pub id: String,
    /// True for the former self of a link that was made anew.
    pub replaced: bool,
    /// Names its wire.
    pub wire_id: WireId,
    /// Running or absent.
    pub wanted: Wanted,
    /// The link, its ends sorted.
    pub spec: Shared<LinkSpec>,
    /// The host that both ends are on, or that its first end is on; none while one of them has no host.
    pub host: Option<HostId>,
    /// The host of its second end, when that is another one.
    #[serde(default)]
    pub far: Option<Far>,
    /// The network identifier that both hosts have for it. Kept until it is gone from both.
    #[serde(default)]
    pub vni: Option<u32>,
    /// False while it is unplugged on request.
    #[serde(default = "plugged")]
    pub enabled: bool,
    /// Its state.
    pub state: LinkState,
    /// Why, in words.
    pub reason: String,
    /// What carries it.
    pub plane: String,
    /// Why that carries it, in words.
    #[serde(default)]
    pub plane_reason: String,
    /// When it was made.
    pub create_us: i64,
    /// When what is told of it last changed.
    pub update_us: i64,
}

// Events that were written before links could be unplugged say nothing of it.
fn plugged() -> bool {
    true
}

/// Where a link goes on another host, and how it gets there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Far {
    /// The host of its second end.
    pub host: HostId,
    /// Where tunnels begin on the host of its first end and on this one, as they last said; none of one that did not say.
    pub underlays: [Option<Underlay>; 2],
    /// What both hosts carry it by: never [`Plane::Auto`].
    pub plane: Plane,
    /// Why, in words.
    pub plane_reason: String,
    /// MTU of the largest frames that were measured to get through both ways; none while nobody has measured it.
    #[serde(default)]
    pub path: Option<u32>,
}

impl Far {
    /// The way to a host of which nothing is known yet.
    pub fn to(host: HostId) -> Far {
        Far { host, underlays: [None, None], plane: Plane::Kernel, plane_reason: String::new(), path: None }
    }

    /// MTU of the largest frames that the interfaces of both hosts take; none while one of them is not known.
    pub fn believed(&self) -> Option<u32> {
        let [one, other] = self.underlays;
        Some(one?.mtu.min(other?.mtu))
    }

    /// MTU of the largest frames that fit through, as measured, or as believed until it was; none while the way is not known.
    pub fn mtu(&self) -> Option<u32> {
        self.believed().map(|believed| believed.min(self.path.unwrap_or(u32::MAX)))
    }
}

impl LinkRow {
    /// The hosts that it touches, that of its first end first.
    pub fn hosts(&self) -> impl Iterator<Item = &HostId> {
        self.host.iter().chain(self.far.as_ref().map(|far| &far.host))
    }

    /// True when it touches this host.
    pub fn is_on(&self, host: &HostId) -> bool {
        self.hosts().any(|h| h == host)
    }

    /// Notes that nothing is left of it on a host; true when nothing is left of it anywhere.
    pub fn leaves(&mut self, host: &HostId) -> bool {
        match self.far.take_if(|far| far.host == *host) {
            Some(_) => false,
            None if self.host.as_ref() == Some(host) => {
                self.host = self.far.take().map(|far| far.host);
                self.host.is_none()
            }
            None => false,
        }
    }

    /// True when it is wanted: neither being removed nor a former self.
    pub fn is_wanted(&self) -> bool {
        self.wanted != Wanted::Absent && !self.replaced
    }

    /// True while it is down until a node is started again, which nobody has asked for: nobody waits for it.
    pub fn needs_restart(&self) -> bool {
        self.enabled && self.state == LinkState::Down && self.reason.contains(NEEDS_RESTART)
    }
}

/// An interface of a node. It outlives its cable: a link that goes elsewhere changes `link_uid`, never the NIC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NicRow {
    /// Names it.
    pub wire_id: WireId,
    /// The node it is in.
    pub node_uid: NodeUid,
    /// The link it is an end of; none of a virtual machine's NIC that has no cable.
    pub link_uid: Option<LinkUid>,
    /// The name the kind gives it.
    pub interface: String,
    /// Index of the data port, from 0.
    pub port: u32,
    /// True while it is being removed.
    pub absent: bool,
    /// Its node's host.
    pub host: Option<HostId>,
    /// MAC address.
    pub mac: String,
    /// MTU in bytes.
    pub mtu: u32,
    /// Addresses with prefix length.
    pub addresses: Vec<String>,
    /// True when it was read back.
    pub present: bool,
    /// True when carrier was read back.
    pub carrier: bool,
    /// True when its node lives and has it set up, as its host last said; false while the host is not heard of. Carrier at the far end of its link follows it.
    pub alive: bool,
}

/// What the certificate of a lab's authority is kept under, where nodes' are under their ids.
pub const AUTHORITY: &str = "";

/// A certificate that was issued, with its private key. Never part of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRow {
    /// What it was issued for, hashed: another one makes it anew.
    pub request: String,
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// Its private key, PEM (PKCS#8).
    pub key_pem: String,
    /// When it expires.
    pub expire_us: i64,
}

/// All rows of a lab.
#[derive(Debug, Clone, PartialEq)]
pub struct LabRows {
    /// The lab itself.
    pub lab: LabRow,
    /// Hosts that may hold files or networks of it.
    pub hosts: BTreeSet<HostId>,
    /// Its nodes.
    pub nodes: Table<NodeUid, NodeRow>,
    /// Its links.
    pub links: Table<LinkUid, LinkRow>,
    /// Its nodes' interfaces.
    pub nics: Table<WireId, NicRow>,
    /// Certificates by node id in lower case; the lab's authority has the empty one.
    pub certificates: BTreeMap<String, CertificateRow>,
    /// The active operation.
    pub operation: Option<OperationId>,
    /// What the lab had of each host when that began: kept for as long as a cancel may give it back, since hosts would not be asked again.
    pub kept: BTreeMap<HostId, Resources>,
}

impl LabRows {
    /// A lab of which nothing exists yet.
    pub fn new(id: LabId, now: i64) -> LabRows {
        let lab = LabRow {
            uid: LabUid::new(),
            id,
            spec: Shared::default(),
            completed: None,
            generation: 0,
            deploys: 0,
            leases: 0,
            wanted: Wanted::Running,
            traceparent: String::new(),
            create_us: now,
            update_us: now,
        };
        LabRows {
            lab,
            hosts: BTreeSet::new(),
            nodes: Table::default(),
            links: Table::default(),
            nics: Table::default(),
            certificates: BTreeMap::new(),
            operation: None,
            kept: BTreeMap::new(),
        }
    }

    /// True when the lab is not wanted and nothing is left of it on any host: its row goes too.
    pub fn is_gone(&self) -> bool {
        self.lab.wanted == Wanted::Absent
            && self.nodes.is_empty()
            && self.links.is_empty()
            && self.nics.is_empty()
            && self.hosts.is_empty()
    }

    /// The node with this id, as it is shown.
    pub fn node(&self, folded: &str) -> Option<&NodeRow> {
        self.nodes.values().find(|n| !n.replaced && n.id.folded() == folded)
    }

    /// The nodes by their ids in lower case, as an operation tells of them: how far a successor is, whatever still runs in its place.
    pub fn told(&self) -> BTreeMap<String, &NodeRow> {
        let of = |successors: bool| {
            let all = self.nodes.values().filter(move |n| n.is_successor() == successors);
            all.filter(|n| !n.is_former()).map(|n| (n.id.folded(), n))
        };
        of(false).chain(of(true)).collect()
    }

    /// The files that a node is to have on its host. One beside which a successor stands has its own: the spec's are for the successor, of which it is not known
    /// whether it ever takes its place.
    pub fn files_for(&self, node: &NodeRow) -> Vec<FileEntry> {
        if self.lab.spec.files.is_empty() && node.own_files.is_empty() {
            return Vec::new();
        }
        let succeeds = |n: &NodeRow| n.is_successor() && n.id.folded() == node.id.folded();
        match node.is_wanted() && self.nodes.values().any(succeeds) {
            true => node.own_files.clone(),
            false => self.lab.spec.files_of(&node.spec),
        }
    }

    /// True when other files than those that are there are to be put on a node's host for it.
    pub fn has_files_due(&self, node: &NodeRow) -> bool {
        node.is_wanted()
            && node.runtime != Runtime::Bridge
            && node.host.is_some()
            && node.image_step == ImageStep::Ready
            && !(self.lab.spec.files.is_empty() && node.files.is_empty() && node.own_files.is_empty())
            && files_hash(&self.files_for(node)) != node.files
    }

    /// The nodes as they are to be: successors instead of those whose place they take.
    pub fn asked_for(&self) -> Vec<&NodeRow> {
        let successors = self.nodes.values().filter(|n| n.is_successor());
        let succeeded: BTreeSet<String> = successors.map(|n| n.id.folded()).collect();
        let stays = |n: &&NodeRow| n.is_successor() || (n.is_wanted() && !succeeded.contains(&n.id.folded()));
        self.nodes.values().filter(stays).collect()
    }

    /// True while something that is to be made waits for its image: what leaves stays until it is known what can be made.
    pub fn is_preparing(&self) -> bool {
        self.lab.wanted != Wanted::Absent && self.nodes.values().any(NodeRow::is_preparing)
    }

    /// The link with this id, as it is shown.
    pub fn link(&self, id: &str) -> Option<&LinkRow> {
        self.links.values().find(|l| !l.replaced && l.id == id)
    }

    /// The links by their ids, as they are shown.
    pub fn links_by_id(&self) -> BTreeMap<&str, &LinkRow> {
        self.links.values().filter(|l| !l.replaced).map(|l| (l.id.as_str(), l)).collect()
    }

    /// What MTU the interfaces of each link are given.
    pub fn mtus(&self) -> BTreeMap<LinkUid, u32> {
        self.nics.values().filter(|n| !n.absent).filter_map(|n| Some((n.link_uid?, n.mtu))).collect()
    }

    /// The interfaces of one node by port.
    pub fn nics_of(&self, node: NodeUid) -> Vec<&NicRow> {
        let mut nics: Vec<&NicRow> = self.nics.values().filter(|n| n.node_uid == node && !n.absent).collect();
        nics.sort_by_key(|n| n.port);
        nics
    }

    /// Every wire id in use by these rows.
    pub fn wire_ids(&self) -> BTreeSet<WireId> {
        let segments = self.nodes.values().filter_map(|n| n.segment);
        self.nics.keys().copied().chain(self.links.values().map(|l| l.wire_id)).chain(segments).collect()
    }

    /// Nodes and links as they are counted: what is shown, grouped.
    pub fn tallies(&self) -> (Vec<NodeTally>, Vec<LinkTally>) {
        let mut nodes: BTreeMap<(Runtime, Wanted, NodeState), u32> = BTreeMap::new();
        for n in self.nodes.values().filter(|n| !n.replaced) {
            *nodes.entry((n.runtime, n.wanted, n.state)).or_default() += 1;
        }
        let mut links: BTreeMap<(LinkState, bool, bool), u32> = BTreeMap::new();
        for l in self.links.values().filter(|l| !l.replaced) {
            *links.entry((l.state, !l.enabled, l.needs_restart())).or_default() += 1;
        }
        (
            nodes
                .into_iter()
                .map(|((runtime, wanted, state), count)| NodeTally { runtime, wanted, state, count })
                .collect(),
            links
                .into_iter()
                .map(|((state, unplugged, needs_restart), count)| LinkTally {
                    state,
                    count,
                    unplugged,
                    needs_restart,
                })
                .collect(),
        )
    }
}

/// A host.
#[derive(Debug, Clone, PartialEq)]
pub struct HostRow {
    /// Its id.
    pub id: HostId,
    /// Unique for all time.
    pub uid: String,
    /// What its runtimes last proved.
    pub compute: ComputeInventory,
    /// What its network last proved.
    pub network: NetworkInventory,
    /// When it was last heard of.
    pub heard_us: i64,
    /// True while it takes no new nodes.
    pub cordoned: bool,
    /// What its administrator says of it.
    pub policy: HostPolicy,
    /// Set while what is on it moves away.
    pub drain: Option<Drain>,
    /// How it joined; all empty for a host of the configuration.
    pub membership: Membership,
}

/// How a host is drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drain {
    /// True when disks of virtual machines are not copied, and lost.
    pub lose_disks: bool,
}

/// Where a host that joined is, and which certificate it was last given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Membership {
    /// Where it is reached, as `address:port`.
    pub address: String,
    /// Serial number of its certificate.
    pub serial: String,
    /// When its certificate is no longer valid.
    pub expire_us: i64,
}

/// Microseconds since 1970.
pub fn now_us() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX))
}
