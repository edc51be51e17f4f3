use netloom_model::id::LabUid;
use netloom_model::observed::Observed;
use netloom_model::spec::{Endpoint, LinkSpec, NetworkMode, NodeSpec};

use super::*;
use crate::plan::anew::New;

fn row(id: &str, runtime: Runtime, host: &str, lease: Option<Lease>) -> NodeRow {
    let spec = NodeSpec { id: id.into(), ..NodeSpec::default() };
    let new = New { id: id.parse().unwrap(), spec, runtime, hash: String::new(), now: 1 };
    let seen = Observed { lease, ..Observed::absent(NodeUid::new(), LabUid::new()) };
    NodeRow { host: Some(host.parse().unwrap()), observed: Some(seen.into()), ..new.row() }
}

fn lab(after: u32, links: &[(&str, &str)]) -> LabRows {
    let mut rows = LabRows::new("l".parse().unwrap(), 1);
    let end = |node: &&str| Endpoint { node: (*node).into(), ..Endpoint::default() };
    let mut spec = rows.lab.spec.clone().into_inner();
    spec.reschedule_after_seconds = after;
    spec.links =
        links.iter().map(|(a, b)| LinkSpec { a: end(a), b: end(b), ..LinkSpec::default() }).collect();
    (rows.lab.spec, rows.lab.leases) = (spec.into(), 7);
    let kept = |seconds, generation| Some(Lease { seconds, generation });
    let with = |node: NodeRow, owner: &str| {
        let mut spec = node.spec.clone().into_inner();
        spec.network_mode = NetworkMode::Node(owner.into());
        NodeRow { spec: spec.into(), ..node }
    };
    let all = [
        row("kept", Runtime::Docker, "h1", kept(40, 7)),
        row("longer", Runtime::Docker, "h1", kept(60, 6)),
        row("before", Runtime::Docker, "h1", kept(40, 5)),
        row("unsaid", Runtime::Docker, "h1", None),
        NodeRow { observed: None, ..row("unseen", Runtime::Docker, "h1", None) },
        row("elsewhere", Runtime::Docker, "h2", kept(40, 7)),
        row("disk", Runtime::Libvirt, "h1", kept(40, 7)),
        row("segment", Runtime::Bridge, "h1", None),
        NodeRow { wanted: Wanted::Stopped, ..row("stopped", Runtime::Docker, "h1", kept(40, 7)) },
        NodeRow { wanted: Wanted::Absent, ..row("leaves", Runtime::Docker, "h1", kept(40, 7)) },
        NodeRow { replaced: true, ..row("kept", Runtime::Docker, "h1", kept(40, 7)) },
        row("owner", Runtime::Docker, "h1", kept(40, 7)),
        with(row("sharer", Runtime::Docker, "h1", kept(40, 7)), "owner"),
        row("owner2", Runtime::Docker, "h1", kept(40, 7)),
        with(row("unsaid2", Runtime::Docker, "h1", None), "owner2"),
    ];
    rows.nodes.extend(all.map(|node| (node.uid, node)));
    rows
}

fn gone(rows: &LabRows, silent: u64) -> Vec<String> {
    let all = given_up(rows, &"h1".parse().unwrap(), Duration::from_secs(silent));
    let mut ids: Vec<String> = all.keys().map(|uid| rows.nodes[uid].id.to_string()).collect();
    ids.sort();
    ids
}

#[test]
fn only_what_its_host_keeps_the_lease_for_that_is_asked_for_is_given_up() {
    assert!(gone(&lab(0, &[]), 1_000_000).is_empty(), "nobody asked for it");
    assert!(gone(&lab(60, &[]), 59).is_empty());
    assert_eq!(gone(&lab(60, &[]), 60), ["kept", "owner", "sharer"]);
    assert!(
        gone(&lab(90, &[]), 1_000).is_empty(),
        "the time was changed, and the host did not say that it knows"
    );
}

#[test]
fn a_segment_goes_with_those_that_it_connects() {
    let with = |links: &[(&str, &str)]| gone(&lab(60, links), 60).contains(&"segment".to_owned());
    assert!(with(&[("kept", "segment"), ("segment", "disk")]));
    assert!(with(&[("segment", "elsewhere")]));
    assert!(!with(&[("segment", "disk"), ("unsaid", "segment")]), "all that it connects stays");
    assert!(!with(&[("kept", "disk")]));
}

#[test]
fn a_lease_is_over_well_before_the_time_of_the_lab() {
    for after in [60, 61, 62, 90, 86_400] {
        let rows = lab(after, &[]);
        for node in rows.nodes.values() {
            let lease = lease(&rows, node);
            let expected = node.runtime == Runtime::Docker && node.wanted == Wanted::Running;
            assert_eq!(lease.is_some(), expected, "{}", node.id);
            assert!(lease.is_none_or(|l| l.seconds + 20 <= after && l.generation == 7));
        }
    }
    let none = lab(0, &[]);
    assert!(none.nodes.values().all(|node| lease(&none, node).is_none()));
}
