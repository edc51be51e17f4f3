//! From a lab's rows to what one host is told: its instances, and its NICs, wires and segments. Pure.
//!
//! A node is admitted to its host when its image and files are there, and its disk where it brings one, and its former self is out of the way, so that two containers never fight for a name.
//! NICs and wires are told as soon as their nodes have a host: they are plugged when the instance appears.
//!
//! What leaves goes only when it is known what can be made: while images are awaited, nodes and links that are not wanted any more stay on the host, and what is to use
//! the same ends waits. Then nodes are set aside, with their interfaces, and an interface that loses its link stays too, until the operation has brought about everything else. A
//! cancel finds all of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use netloom_model::id::{HostId, NodeUid, WireId};
use netloom_model::kind::Catalogue;
use netloom_model::observed::Phase;
use netloom_model::shared::Shared;
use netloom_model::slice::{
    Certificate, HostEntry, Instance, MachineNic, Network, NetworkSlice, Nic, Readiness, Segment, Tunnel,
    Wire, WireEnd,
};
use netloom_model::spec::{Endpoint, EndpointType, NetworkMode};
use netloom_model::state::{NodeState, Runtime, Wanted};

use crate::plan::guest_name;
use crate::plan::lost;
use crate::rows::{AUTHORITY, ImageStep, Index, LabRows, LinkRow, NicRow, NodeRow};
use crate::{claims, operation, stages};

/// The instances of a lab on a host.
pub fn instances(rows: &LabRows, host: &HostId, catalogue: &Catalogue) -> BTreeMap<NodeUid, Instance> {
    let waiting = claims::waiting(rows);
    // One that comes back finds its own files there, not its successor's.
    let finds_others = |n: &NodeRow| n.phase() == Some(Phase::Aside) && rows.has_files_due(n);
    let admitted = |n: &NodeRow| {
        let is_ready = n.image_step == ImageStep::Ready && !n.disk_due;
        n.is_wanted() && is_ready && !waiting.contains_key(&n.uid) && !finds_others(n)
    };
    let goes_aside = !rows.is_preparing();
    let told = |n: &&NodeRow| {
        let here = n.runtime != Runtime::Bridge && n.host.as_ref() == Some(host);
        here && (admitted(n) || (goes_aside && n.is_aside()))
    };
    let nodes: Vec<&NodeRow> = rows.nodes.values().filter(told).collect();
    made_of(rows, nodes, catalogue)
}

/// What successors on a host would be there.
pub fn successors(rows: &LabRows, host: &HostId, catalogue: &Catalogue) -> BTreeMap<NodeUid, Instance> {
    let here = |n: &&NodeRow| n.is_successor() && n.host.as_ref() == Some(host);
    made_of(rows, rows.nodes.values().filter(here).collect(), catalogue)
}

fn made_of(rows: &LabRows, nodes: Vec<&NodeRow>, catalogue: &Catalogue) -> BTreeMap<NodeUid, Instance> {
    if nodes.is_empty() {
        return BTreeMap::new();
    }
    let index = rows.index();
    let (entries, network) = (Shared::from(host_entries(&index)), network_of(rows));
    nodes
        .into_iter()
        .map(|n| {
            let instance = Instance {
                uid: n.uid,
                lab_uid: rows.lab.uid,
                lab: rows.lab.id.clone(),
                name: rows.lab.spec.instance_name(&rows.lab.id, n.id.as_str()),
                spec: n.spec.clone(),
                runtime: n.runtime,
                wanted: n.wanted,
                interfaces: interfaces(&index, n),
                network: network.clone(),
                files: rows.files_for(n),
                host_entries: if n.is_aside() { Shared::default() } else { entries.clone() },
                spec_hash: n.instance_hash(),
                restarts: n.restarts,
                wipes: n.wipes,
                restore: n.restore.clone(),
                lease: lost::lease(rows, n),
                disk_of: n.disk_of,
                // One that left and is back may meet what its successor was sent.
                held: stages::is_held(rows, n) || rows.has_files_due(n),
                certificate: certificate(rows, n),
                network_of: match &n.spec.network_mode {
                    NetworkMode::Node(owner) => index.wanted(owner).map(|o| o.uid),
                    _ => None,
                },
                readiness: readiness(n, catalogue),
                nics: machine_nics(&index, n),
                image_digest: n.image_digest.clone(),
            };
            (n.uid, instance)
        })
        .collect()
}

/// The lab's management network, with the addresses there that are not to be had.
fn network_of(rows: &LabRows) -> Option<Network> {
    let fixed = |machines: bool| {
        let such =
            rows.nodes.values().filter(|n| n.is_wanted() && (n.runtime == Runtime::Libvirt) == machines);
        let mut all: Vec<String> = such
            .flat_map(|n| [&n.spec.mgmt_ipv4, &n.spec.mgmt_ipv6])
            .filter(|a| !a.is_empty())
            .cloned()
            .collect();
        all.sort();
        all
    };
    let network = rows.lab.network()?;
    Some(Network { fixed: fixed(false), fixed_of_machines: fixed(true), ..network })
}

/// How its kind tells that it has booted.
fn readiness(node: &NodeRow, catalogue: &Catalogue) -> Option<Readiness> {
    catalogue.of(&node.spec)?.readiness.of_host()
}

/// The interfaces that a node's process waits for: none while its stages keep them back, since it is to start without them.
fn interfaces(index: &Index<'_>, node: &NodeRow) -> Vec<String> {
    if stages::are_links_held(index.rows, node) {
        return Vec::new();
    }
    index.nics_of(node.uid).iter().map(|nic| guest_name(nic)).collect()
}

/// The NICs that a virtual machine is started with.
fn machine_nics(index: &Index<'_>, node: &NodeRow) -> Vec<MachineNic> {
    if node.runtime != Runtime::Libvirt {
        return Vec::new();
    }
    let nic = |n: &&NicRow| MachineNic {
        wire_id: n.wire_id,
        guest_name: guest_name(n),
        mac: n.mac.clone(),
        mtu: n.mtu,
        addresses: n.addresses.clone(),
    };
    index.nics_of(node.uid).iter().map(nic).collect()
}

/// The certificate of a node that asks for one.
fn certificate(rows: &LabRows, node: &NodeRow) -> Option<Certificate> {
    node.spec.certificate.as_ref()?;
    let own = rows.certificates.get(&node.id.folded())?;
    Some(Certificate {
        certificate_pem: own.certificate_pem.clone(),
        key_pem: own.key_pem.clone(),
        authority_pem: rows.certificates.get(AUTHORITY)?.certificate_pem.clone(),
    })
}

/// Lines of /etc/hosts for all nodes of a lab: management addresses as read back, then the first address of each family on a link.
fn host_entries(index: &Index<'_>) -> Vec<HostEntry> {
    let mut nodes: Vec<&NodeRow> =
        index.rows.nodes.values().filter(|n| n.is_wanted() && n.runtime != Runtime::Bridge).collect();
    nodes.sort_by(|a, b| a.id.cmp(&b.id));
    let mut entries = Vec::new();
    for node in nodes {
        let mgmt = node
            .observed
            .iter()
            .flat_map(|o| [&o.mgmt_ipv4, &o.mgmt_ipv6])
            .filter(|a| !a.is_empty())
            .cloned();
        let of_links: Vec<&String> = index.nics_of(node.uid).iter().flat_map(|n| &n.addresses).collect();
        let first = |v6: bool| of_links.iter().find(|a| a.contains(':') == v6).map(|a| without_length(a));
        for address in mgmt.chain(first(false)).chain(first(true)) {
            let names = [node.id.to_string()].into_iter().chain(node.spec.aliases.iter().cloned());
            entries.push(HostEntry { address, names: names.collect() });
        }
    }
    entries
}

fn without_length(address: &str) -> String {
    address.split('/').next().unwrap_or_default().to_owned()
}

/// The NICs, wires and segments of a lab on a host.
pub fn network(rows: &LabRows, host: &HostId) -> NetworkSlice {
    let mut slice = NetworkSlice::default();
    let lab_uid = rows.lab.uid;
    let held: BTreeSet<NodeUid> = match stages::any(rows) {
        true => rows.nodes.values().filter(|n| stages::are_links_held(rows, n)).map(|n| n.uid).collect(),
        false => BTreeSet::new(),
    };
    let held_back = held_back(rows);
    let made = |n: &&NicRow| {
        (!n.absent || stays(rows, n, &held_back))
            && n.host.as_ref() == Some(host)
            && !held.contains(&n.node_uid)
    };
    for nic in rows.nics.values().filter(made) {
        let nic = Nic {
            wire_id: nic.wire_id,
            node_uid: nic.node_uid,
            guest_name: guest_name(nic),
            mac: nic.mac.clone(),
            mtu: nic.mtu,
            addresses: nic.addresses.clone(),
            lab_uid,
        };
        slice.nics.insert(nic.wire_id, nic);
    }
    let leaves = |n: &NodeRow| n.wanted == Wanted::Absent && !n.replaced;
    let there = |n: &&NodeRow| n.is_wanted() || (leaves(n) && held_back.all);
    for node in rows.nodes.values().filter(there).filter(|n| n.host.as_ref() == Some(host)) {
        if let Some(wire_id) = node.segment {
            let uplink = node.spec.uplink.clone();
            slice.segments.insert(wire_id, Segment { wire_id, node_uid: node.uid, lab_uid, uplink });
        }
    }
    let remains = |l: &LinkRow| l.wanted == Wanted::Absent && !l.replaced && held_back.all;
    let used: BTreeSet<(EndpointType, &str, &str)> = rows
        .links
        .values()
        .filter(|l| remains(l))
        .flat_map(|l| [&l.spec.a, &l.spec.b])
        .filter_map(taken)
        .collect();
    let is_free =
        |l: &LinkRow| [&l.spec.a, &l.spec.b].into_iter().filter_map(taken).all(|e| !used.contains(&e));
    let told = |l: &&LinkRow| remains(l) || (l.is_wanted() && is_free(l));
    let ends = Ends::of(rows, &held_back);
    for link in rows.links.values().filter(told).filter(|l| l.is_on(host)) {
        // A wire ends in what is made only.
        let end = |end: &Endpoint| {
            ends.wire_end(end).filter(|end| match end {
                WireEnd::Nic(wire_id) => slice.nics.contains_key(wire_id),
                _ => true,
            })
        };
        // Of a link between two hosts each has its end.
        let (is_first, far) = (link.host.as_ref() == Some(host), link.far.as_ref());
        let (a, b) = match (far, is_first) {
            (None, _) => (end(&link.spec.a), end(&link.spec.b)),
            (Some(_), true) => (end(&link.spec.a), ends.tunnel(link, is_first)),
            (Some(_), false) => (ends.tunnel(link, is_first), end(&link.spec.b)),
        };
        if let (Some(a), Some(b)) = (a, b) {
            let (a_to_b, b_to_a) = (link.spec.a_to_b, link.spec.b_to_a);
            let plane = far.map_or(rows.lab.spec.plane, |far| Some(far.plane));
            let (wire_id, enabled) = (link.wire_id, link.enabled);
            let wire = Wire { wire_id, a, b, enabled, lab_uid, a_to_b, b_to_a, plane };
            slice.wires.insert(link.wire_id, wire);
        }
    }
    slice
}

/// What of an end only one link can have.
fn taken(end: &Endpoint) -> Option<(EndpointType, &str, &str)> {
    matches!(end.kind, EndpointType::Node | EndpointType::Host)
        .then(|| (end.kind, &*end.node, &*end.interface))
}

/// What is not wanted any more and stays all the same.
struct HeldBack {
    /// Nodes, links and interfaces: it is not known yet what can be made.
    all: bool,
    /// Interfaces: what is to come is not all there yet.
    nics: bool,
}

fn held_back(rows: &LabRows) -> HeldBack {
    let all = rows.is_preparing();
    // Looked at last: it goes through everything.
    let nics = all || (rows.nics.values().any(|n| n.absent) && operation::is_under_way(rows));
    HeldBack { all, nics }
}

/// True when an interface that is not wanted any more stays: its node does, is set aside, or is known to leave only later.
fn stays(rows: &LabRows, nic: &NicRow, held: &HeldBack) -> bool {
    let with = |n: &NodeRow| held.nics && !n.is_former() && (n.is_wanted() || held.all);
    rows.nodes.get(&nic.node_uid).is_some_and(|n| n.is_aside() || with(n))
}

/// What wires may end in, by the names that links have for it.
struct Ends<'r> {
    rows: &'r LabRows,
    nodes: HashMap<&'r str, &'r NodeRow>,
    nics: HashMap<(NodeUid, &'r str), WireId>,
}

impl<'r> Ends<'r> {
    fn of(rows: &'r LabRows, held: &HeldBack) -> Ends<'r> {
        let there = |n: &&NodeRow| !n.replaced && (n.is_wanted() || held.all);
        let made = |n: &&NicRow| !n.absent || stays(rows, n, held);
        Ends {
            rows,
            nodes: rows.nodes.values().filter(there).map(|n| (n.spec.id.as_str(), n)).collect(),
            nics: rows
                .nics
                .values()
                .filter(made)
                .map(|n| ((n.node_uid, n.interface.as_str()), n.wire_id))
                .collect(),
        }
    }

    fn wire_end(&self, end: &Endpoint) -> Option<WireEnd> {
        match end.kind {
            EndpointType::Node => {}
            EndpointType::Host => return Some(WireEnd::HostInterface(end.interface.clone())),
            EndpointType::MgmtNet => {
                return self.rows.lab.network().map(|n| WireEnd::Bridge(n.spec.bridge));
            }
            EndpointType::Dummy => return Some(WireEnd::Dummy),
        }
        let node = self.nodes.get(end.node.as_str())?;
        match node.segment {
            Some(segment) => Some(WireEnd::Segment(segment)),
            None => self.nics.get(&(node.uid, end.interface.as_str())).copied().map(WireEnd::Nic),
        }
    }

    /// The way of a link from one of its hosts to the other; none until all of it is known.
    fn tunnel(&self, link: &LinkRow, from_first: bool) -> Option<WireEnd> {
        let (far, vni) = (link.far.as_ref()?, link.vni?);
        let [first, second] = far.underlays;
        let (end, remote) = if from_first { (&link.spec.b, second?) } else { (&link.spec.a, first?) };
        let remote_up = match self.wire_end(end)? {
            WireEnd::Nic(nic) => self.rows.nics.get(&nic).is_some_and(|nic| nic.alive),
            // Carrier does not cross a segment: what is beyond it is of no matter, only that it is there.
            _ => self.nodes.get(end.node.as_str()).is_some_and(|node| node.state != NodeState::Unknown),
        };
        Some(WireEnd::Tunnel(Tunnel { remote: remote.address, vni, remote_up }))
    }
}

/// True when no node and no wire of a lab is on a host, or leaves it: what may be left of it there are files and networks.
pub fn is_left_by(rows: &LabRows, host: &HostId) -> bool {
    let here = |h: &Option<HostId>| h.as_ref() == Some(host);
    let nodes = rows.nodes.values().any(|n| here(&n.host));
    let nics = rows.nics.values().any(|n| here(&n.host));
    !nodes && !nics && !rows.links.values().any(|l| l.is_on(host))
}

/// Uids of the lab's instances that are to be removed from a host.
pub fn instances_to_remove(rows: &LabRows, host: &HostId) -> BTreeSet<NodeUid> {
    let held = rows.is_preparing();
    let leaves = |n: &&NodeRow| n.wanted == Wanted::Absent && (n.replaced || !held);
    let here = |n: &&NodeRow| n.runtime != Runtime::Bridge && n.host.as_ref() == Some(host);
    rows.nodes.values().filter(leaves).filter(here).map(|n| n.uid).collect()
}

/// Wire ids of the lab's NICs, wires and segments that are to be removed from a host.
pub fn wires_to_remove(rows: &LabRows, host: &HostId) -> BTreeSet<WireId> {
    let here = |h: &Option<HostId>| h.as_ref() == Some(host);
    let held = held_back(rows);
    let nics = rows.nics.values().filter(|n| n.absent && here(&n.host) && !stays(rows, n, &held));
    let links = rows.links.values().filter(|l| l.wanted == Wanted::Absent && l.is_on(host));
    let links = links.filter(|l| l.replaced || !held.all);
    let nodes = rows.nodes.values().filter(|n| n.wanted == Wanted::Absent && here(&n.host));
    let segments = nodes.filter(|n| n.replaced || !held.all).filter_map(|n| n.segment);
    nics.map(|n| n.wire_id).chain(links.map(|l| l.wire_id)).chain(segments).collect()
}

/// True when such an interface is to be removed and is not held back.
pub fn removes_nics(rows: &LabRows, such: impl Fn(&NicRow) -> bool) -> bool {
    let held = held_back(rows);
    rows.nics.values().any(|n| n.absent && such(n) && !stays(rows, n, &held))
}

#[cfg(test)]
mod tests;
