//! Rows by what they are looked up by. Looked for one by one, each costs a pass over the lab: a lab of thousands of nodes took seconds for each change.

use std::collections::HashMap;

use netloom_model::id::NodeUid;

use super::{LabRows, LinkRow, NicRow, NodeRow};

/// The wanted nodes of a lab by id, and the interfaces that stay by their nodes.
pub struct Index<'r> {
    /// The rows.
    pub rows: &'r LabRows,
    nodes: HashMap<&'r str, &'r NodeRow>,
    nics: HashMap<NodeUid, Vec<&'r NicRow>>,
}

impl LabRows {
    /// For whoever looks up more than one.
    pub fn index(&self) -> Index<'_> {
        let nodes = self.nodes.values().filter(|n| n.is_wanted()).map(|n| (n.spec.id.as_str(), n)).collect();
        let mut nics: HashMap<NodeUid, Vec<&NicRow>> = HashMap::new();
        for nic in self.nics.values().filter(|n| !n.absent) {
            nics.entry(nic.node_uid).or_default().push(nic);
        }
        nics.values_mut().for_each(|nics| nics.sort_by_key(|n| n.port));
        Index { rows: self, nodes, nics }
    }
}

impl<'r> Index<'r> {
    /// The wanted node with this id, in the spelling of the spec.
    pub fn wanted(&self, id: &str) -> Option<&'r NodeRow> {
        self.nodes.get(id).copied()
    }

    /// The interfaces of a node that stay, by port.
    pub fn nics_of(&self, node: NodeUid) -> &[&'r NicRow] {
        self.nics.get(&node).map_or(&[], Vec::as_slice)
    }

    /// The nodes at those ends of a link that are nodes'; none for one that is not wanted.
    pub fn ends(&self, link: &'r LinkRow) -> impl Iterator<Item = Option<&'r NodeRow>> {
        link.spec.node_ends().map(|end| self.wanted(&end.node))
    }
}
