//! Many at once: one visit a namespace, one transaction, one bundle.

use std::time::Instant;

use crate::harness::{Host, Node, On, Slice, nic, on_a_host, on_both_planes};

on_both_planes!(a_hundred_wires_come_and_go_in_batches,);

fn a_hundred_wires_come_and_go_in_batches(on: On) {
    on_a_host("a_hundred_wires_come_and_go_in_batches", || async move {
        let host = Host::start_on(on).await;
        let nodes: Vec<Node> = (0..50).map(|_| host.node()).collect();
        host.sync(&Slice::default()).await;
        host.until("the bridge is there", |t| t.synced && t.inventory.problems.is_empty()).await;
        let mut slice = Slice::default();
        let mut wires = Vec::new();
        for (at, node) in nodes.iter().enumerate() {
            let next = &nodes[(at + 1) % nodes.len()];
            for (here, there) in [("eth1", "eth2"), ("eth3", "eth4")] {
                let ends = [slice.nic(node, here), slice.nic(next, there)];
                wires.push(slice.wire(nic(ends[0]), nic(ends[1])));
            }
        }
        let begun = Instant::now();
        host.ensure(&slice).await;
        host.until_up(&wires).await;
        eprintln!("200 NICs and 100 wires up after {:?}", begun.elapsed());
        assert_eq!(host.joints().len(), 200);
        assert_eq!(host.interfaces().len(), 200);

        let begun = Instant::now();
        host.ensure(&slice).await;
        host.until("still up", |t| wires.iter().all(|w| t.up(*w))).await;
        eprintln!("nothing to do took {:?}", begun.elapsed());

        let begun = Instant::now();
        host.remove(slice.ids()).await;
        eprintln!("removed after {:?}", begun.elapsed());
        assert!(host.joints().is_empty());
        assert_eq!(host.ovs.vsctl(&["list-ports", "nl0"]), "");
        assert_eq!(host.interfaces(), Vec::<String>::new());
    });
}

/// Counted at Open vSwitch: what it was told in one go, and not how long that took. A pass takes what there is; what is heard meanwhile may make a second one.
#[test]
fn a_hundred_wires_are_a_handful_of_transactions_and_bundles() {
    const MOST: usize = 8;
    on_a_host("a_hundred_wires_are_a_handful_of_transactions_and_bundles", || async {
        let host = Host::start_on(On::Ovs).await;
        let nodes: Vec<Node> = (0..20).map(|_| host.node()).collect();
        host.sync(&Slice::default()).await;
        host.until("the bridge is there", |t| t.synced && t.inventory.problems.is_empty()).await;
        let mut slice = Slice::default();
        let mut wires = Vec::new();
        for (at, node) in nodes.iter().enumerate() {
            let next = &nodes[(at + 1) % nodes.len()];
            for port in 1..=5 {
                let ends =
                    [slice.nic(node, &format!("eth{port}")), slice.nic(next, &format!("eth{}", port + 5))];
                wires.push(slice.wire(nic(ends[0]), nic(ends[1])));
            }
        }
        host.ovs.log_messages();
        for (what, count) in [("made", 200), ("removed", 200)] {
            let (before, bundles) = (host.ovs.transactions_of_ports().len(), host.ovs.bundles());
            match what {
                "made" => {
                    host.ensure(&slice).await;
                    host.until_up(&wires).await;
                }
                _ => host.remove(slice.ids()).await,
            }
            let transactions = host.ovs.transactions_of_ports().split_off(before);
            let bundles = host.ovs.bundles() - bundles;
            assert_eq!(transactions.iter().sum::<usize>(), count, "{what}: {transactions:?}");
            assert!(transactions.len() <= MOST, "{what}: {transactions:?}");
            assert!((1..=MOST).contains(&bundles), "{what}: {bundles} bundles");
        }
    });
}

/// A process per port or link is what makes others slow; here there is no way to start one.
#[test]
fn the_service_starts_no_process() {
    fn sources(directory: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { sources(&path, found) } else { found.push(path) }
        }
    }
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for part in ["src", "../../crates/ovsdb/src", "../../crates/openflow/src"] {
        let mut files = Vec::new();
        sources(&root.join(part), &mut files);
        assert!(files.len() > 3, "{part}");
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            for word in ["process::Command", "execve", "fork(", "posix_spawn"] {
                assert!(!text.contains(word), "{} mentions {word}", file.display());
            }
        }
    }
}
