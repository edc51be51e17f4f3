//! What a node that is to be started waits for beside its image and its files. Pure.
//!
//! What of a host only one instance can have, the name of its node, host ports, a fixed management address: what is to have it waits for what leaves. Tried at once it would fail,
//! and be tried again until the other is gone: a deploy that works would say FAILED for a moment. And its certificate, which its process may read as it starts.

use std::collections::{BTreeMap, BTreeSet};

use netloom_model::id::{HostId, NodeUid};
use netloom_model::observed::Phase;

use crate::certificates;
use crate::rows::{ImageStep, LabRows, NodeRow};

/// Something that only one instance can have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    Port(String, u32),
    Address(String),
}

/// The nodes that wait, and what is said of them.
pub fn waiting(rows: &LabRows) -> BTreeMap<NodeUid, &'static str> {
    let leaving: Vec<&NodeRow> = rows.nodes.values().filter(|n| n.is_in_the_way()).collect();
    // Those whose successors may still take their place: what is free then is not yet.
    let to_leave = || {
        let hopeful =
            |n: &&NodeRow| n.is_successor() && n.image_step != ImageStep::Failed && n.host.is_some();
        let succeeded: BTreeSet<String> =
            rows.nodes.values().filter(hopeful).map(|n| n.id.folded()).collect();
        let runs = |n: &&NodeRow| n.is_wanted() && holds(n) && succeeded.contains(&n.id.folded());
        rows.nodes.values().filter(runs).collect::<Vec<_>>()
    };
    let names: BTreeSet<String> = leaving.iter().map(|n| n.id.folded()).collect();
    let taken: BTreeMap<(&HostId, Claim), NodeUid> = leaving
        .iter()
        .copied()
        .chain(to_leave())
        .filter_map(|n| Some((n.uid, n.host.as_ref()?, n)))
        .flat_map(|(uid, host, n)| claims(n).map(move |claim| ((host, claim), uid)))
        .collect();
    let certificates = certificates::awaited(rows);
    if names.is_empty() && taken.is_empty() && certificates.is_empty() {
        return BTreeMap::new();
    }
    let why = |n: &NodeRow| {
        if names.contains(&n.id.folded()) {
            return Some("what is in its place is being taken out of the way");
        }
        let host = n.host.as_ref().filter(|_| !holds(n))?;
        if n.spec.certificate.is_some() && certificates.contains(&n.id.folded()) {
            return Some("waits for its certificate");
        }
        let is_taken = |claim: Claim| taken.get(&(host, claim)).is_some_and(|uid| *uid != n.uid);
        claims(n).any(is_taken).then_some("waits for a host port or an address that another node gives up")
    };
    let wanted = rows.nodes.values().filter(|n| n.is_wanted());
    wanted.filter_map(|n| Some((n.uid, why(n)?))).collect()
}

/// True while there is an instance that has what it claims.
fn holds(node: &NodeRow) -> bool {
    node.phase().is_some_and(|phase| phase != Phase::Aside)
}

fn claims(node: &NodeRow) -> impl Iterator<Item = Claim> {
    let ports = node.spec.ports.iter().filter(|p| p.host_port > 0);
    let ports = ports.map(|p| {
        let protocol = if p.protocol.is_empty() { "tcp" } else { &p.protocol };
        Claim::Port(protocol.to_owned(), p.host_port)
    });
    let addresses = [&node.spec.mgmt_ipv4, &node.spec.mgmt_ipv6].into_iter().filter(|a| !a.is_empty());
    ports.chain(addresses.map(|a| Claim::Address(a.clone())))
}
