//! Nodes that share the network namespace of another.

use std::collections::{BTreeMap, BTreeSet};

use netloom_model::id::NodeUid;
use netloom_model::slice::Instance;
use netloom_model::spec::NetworkMode;

use super::Inner;
use super::entry::Entry;
use crate::plan::Peer;

/// Which nodes were said to share the namespace of which. One that shares none any more may still be among them.
#[derive(Default)]
pub(super) struct Sharers {
    of: BTreeMap<NodeUid, BTreeSet<NodeUid>>,
}

impl Sharers {
    /// Takes note of what an instance shares.
    pub(super) fn note(&mut self, instance: &Instance) {
        if let Some(peer) = instance.network_of {
            self.of.entry(peer).or_default().insert(instance.uid);
        }
    }

    /// Those that share a node's.
    pub(super) fn of(&self, uid: NodeUid) -> Vec<NodeUid> {
        self.of.get(&uid).into_iter().flatten().copied().collect()
    }

    /// Forgets all but these.
    pub(super) fn keep(&mut self, is_there: impl Fn(&NodeUid) -> bool) {
        for sharers in self.of.values_mut() {
            sharers.retain(&is_there);
        }
        self.of.retain(|_, sharers| !sharers.is_empty());
    }
}

impl Inner {
    /// The instance whose network namespace a node shares, as it is now; none when it shares none.
    pub(super) fn peer_of(&self, uid: NodeUid) -> Option<Peer> {
        let instance = self.entries.get(&uid)?.instance()?;
        let peer = self.entries.get(&instance.network_of?).map(Entry::as_peer);
        Some(peer.unwrap_or_else(|| match &instance.spec.network_mode {
            NetworkMode::Node(node) => Peer { node: node.clone(), ..Peer::default() },
            _ => Peer::default(),
        }))
    }

    /// That of every node that shares one.
    pub(super) fn peers(&self) -> BTreeMap<NodeUid, Peer> {
        let sharers = self.sharers.of.values().flatten();
        sharers.filter_map(|uid| Some((*uid, self.peer_of(*uid)?))).collect()
    }
}
