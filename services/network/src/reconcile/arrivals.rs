//! Nodes that start one after the other: while many are still to come they are wired a few at a time, and not one by one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netloom_model::id::NodeUid;
use netloom_model::slice::NetworkSlice;
use tokio::sync::watch;

use crate::netns::Starts;

/// From the beginning of one pass to the next, meanwhile.
const GATHER: Duration = Duration::from_millis(200);
/// From one change of Open vSwitch's database to the next, meanwhile: for each of them ovs-vswitchd looks at all ports that there are.
pub const PORTS: Duration = Duration::from_millis(400);
/// So many nodes are many.
const MANY: usize = 4;

/// See the module.
#[derive(Default)]
pub struct Arrivals {
    count: usize,
    last: Option<Instant>,
}

impl Arrivals {
    /// True while nodes go on starting and many of those that have NICs do not run yet.
    pub fn go_on(&mut self, slice: &NetworkSlice, starts: &Starts) -> bool {
        if starts.len() > self.count {
            self.last = Some(Instant::now());
        }
        self.count = starts.len();
        self.last.is_some_and(|at| at.elapsed() < GATHER * 4) && are_many_missing(slice, starts)
    }
}

/// Waits until the next pass is due after one that began then, or until only the last few are missing: they are waited for.
pub async fn gather(begun: Instant, slice: &NetworkSlice, mut starts: watch::Receiver<Arc<Starts>>) {
    let last_few = async {
        while are_many_missing(slice, &starts.borrow_and_update()) {
            if starts.changed().await.is_err() {
                return;
            }
        }
    };
    let _ = tokio::time::timeout_at((begun + GATHER).into(), last_few).await;
}

fn are_many_missing(slice: &NetworkSlice, starts: &Starts) -> bool {
    let nodes: BTreeSet<&NodeUid> = slice.nics.values().map(|nic| &nic.node_uid).collect();
    nodes.into_iter().filter(|node| !starts.contains_key(*node)).nth(MANY).is_some()
}

#[cfg(test)]
mod tests {
    use netloom_model::id::{LabUid, WireId};
    use netloom_model::slice::Nic;

    use super::*;
    use crate::netns::Start;

    fn slice(nodes: &[NodeUid]) -> NetworkSlice {
        let mut slice = NetworkSlice::default();
        for (node_uid, n) in nodes.iter().zip(1u64..) {
            let wire_id = WireId::try_from(n).unwrap();
            let (guest_name, mac, addresses) = ("eth1".to_owned(), String::new(), Vec::new());
            let nic = Nic {
                wire_id,
                node_uid: *node_uid,
                guest_name,
                mac,
                mtu: 9500,
                addresses,
                lab_uid: LabUid::new(),
            };
            slice.nics.insert(wire_id, nic);
        }
        slice
    }

    fn starts(nodes: &[NodeUid]) -> Arc<Starts> {
        let start = |node: &NodeUid| (*node, Start { id: "1".into(), path: "/".into(), machine: None });
        Arc::new(nodes.iter().map(start).collect())
    }

    #[tokio::test]
    async fn many_are_gathered_and_the_last_few_are_not() {
        let nodes: Vec<NodeUid> = (0..8).map(|_| NodeUid::new()).collect();
        let slice = slice(&nodes);
        let mut arrivals = Arrivals::default();
        assert!(!arrivals.go_on(&slice, &starts(&[])), "nobody has begun to come");
        assert!(arrivals.go_on(&slice, &starts(&nodes[..2])));
        assert!(!arrivals.go_on(&slice, &starts(&nodes[..4])));

        let (publish, there) = watch::channel(starts(&nodes[..2]));
        let begun = Instant::now();
        gather(begun, &slice, there.clone()).await;
        assert!(begun.elapsed() >= GATHER);
        let begun = Instant::now() + GATHER * 100;
        let (_, ()) = tokio::join!(
            async {
                publish.send_replace(starts(&nodes[..3]));
                tokio::task::yield_now().await;
                publish.send_replace(starts(&nodes[..4]));
            },
            gather(begun, &slice, there)
        );
        assert!(Instant::now() < begun, "it waited for the end of the rest");
    }
}
