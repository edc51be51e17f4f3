//! What hosts have in amounts, and nodes take of it.

use std::collections::BTreeMap;

use netloom_model::id::HostId;
use netloom_model::spec::NodeSpec;

use super::LabRows;

/// What nodes ask for, or have reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resources {
    /// CPU in thousandths of a core.
    pub cpu_millis: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Disk in bytes.
    pub disk_bytes: u64,
}

impl Resources {
    /// What a node asks for.
    pub fn of(node: &NodeSpec) -> Resources {
        Resources {
            cpu_millis: u64::from(node.cpu_request_millis),
            memory_bytes: node.memory_request_bytes,
            disk_bytes: node.disk_request_bytes,
        }
    }

    fn with(self, other: Resources, of: impl Fn(u64, u64) -> u64) -> Resources {
        Resources {
            cpu_millis: of(self.cpu_millis, other.cpu_millis),
            memory_bytes: of(self.memory_bytes, other.memory_bytes),
            disk_bytes: of(self.disk_bytes, other.disk_bytes),
        }
    }

    /// Both together.
    pub fn plus(self, other: Resources) -> Resources {
        self.with(other, u64::saturating_add)
    }

    /// What is left of it without the other.
    pub fn minus(self, other: Resources) -> Resources {
        self.with(other, u64::saturating_sub)
    }

    /// The larger of the two, of each.
    pub fn most(self, other: Resources) -> Resources {
        self.with(other, u64::max)
    }

    /// What of it is more than it was.
    pub fn grown(self, had: Resources) -> Resources {
        self.with(had, |now, had| if now > had { now } else { 0 })
    }
}

impl LabRows {
    /// What it has reserved of hosts: what its nodes have, or had when the operation that runs began, whichever is more.
    pub fn reserved(&self) -> BTreeMap<HostId, Resources> {
        let mut all = self.of_nodes();
        for (host, kept) in &self.kept {
            let most = all.entry(host.clone()).or_default();
            *most = most.most(*kept);
        }
        all
    }

    /// What its nodes have of hosts. A node and its successor never run at the same time, so on one host the larger of the two counts.
    pub fn of_nodes(&self) -> BTreeMap<HostId, Resources> {
        let mut of_nodes: BTreeMap<(&HostId, String), Resources> = BTreeMap::new();
        for node in self.nodes.values().filter(|n| n.wanted.stays()) {
            let Some(host) = &node.host else { continue };
            let most = of_nodes.entry((host, node.id.folded())).or_default();
            *most = most.most(Resources::of(&node.spec));
        }
        let mut all: BTreeMap<HostId, Resources> = BTreeMap::new();
        for ((host, _), of_node) in of_nodes {
            let sum = all.entry(host.clone()).or_default();
            *sum = sum.plus(of_node);
        }
        all
    }
}
