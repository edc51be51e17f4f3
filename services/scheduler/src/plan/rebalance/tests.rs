use netloom_model::spec::LabSpec;

use super::*;
use crate::plan::move_nodes;
use crate::plan::moves::tests::{ctx, host, link, node, room, running};

/// Two rings of four, and one link between them.
fn rings() -> LabSpec {
    let ids: Vec<String> = (0..8).map(|n| format!("n{n}")).collect();
    let mut links = Vec::new();
    for ring in [0, 4] {
        for i in 0..4 {
            links.push(link(&format!("n{}:eth1", ring + i), &format!("n{}:eth2", ring + (i + 1) % 4)));
        }
    }
    links.push(link("n0:eth3", "n4:eth3"));
    LabSpec { nodes: ids.iter().map(|id| node(id)).collect(), links, ..LabSpec::default() }
}

fn apart(rows: &LabRows) -> usize {
    let of = |id: &str| rows.node(id).unwrap().host.clone();
    rows.lab.spec.links.iter().filter(|l| of(&l.a.node) != of(&l.b.node)).count()
}

/// The lab after the moves, as if all were done.
fn moved(rows: &LabRows, to: &BTreeMap<NodeUid, Option<HostId>>) -> LabRows {
    let mut after = rows.clone();
    for (uid, host) in to {
        after.nodes.get_mut(uid).unwrap().host.clone_from(host);
    }
    after
}

#[test]
fn fewer_links_go_between_hosts_after_it_and_then_nothing_moves() {
    let rooms = [room("h1", 4_000), room("h2", 4_000)];
    let mut rows = running(&rings(), &rooms);
    assert_eq!(apart(&rows), 1);
    assert!(rebalanced(&rows, &Moves::default(), ctx(&rooms)).is_empty(), "as good as it gets");
    // Alternating: the worst there is.
    for (n, node) in rows.nodes.values_mut().enumerate() {
        node.host = Some(host(if n % 2 == 0 { "h1" } else { "h2" }));
    }
    assert!(apart(&rows) >= 5);
    let to = rebalanced(&rows, &Moves::default(), ctx(&rooms));
    let after = moved(&rows, &to);
    assert_eq!(apart(&after), 1, "both hosts are full, so nodes change places");
    assert!(rebalanced(&after, &Moves::default(), ctx(&rooms)).is_empty(), "done twice nothing moves");
    let moves = Moves { nodes: to.clone(), ..Moves::default() };
    let (_, plan) = move_nodes(&rows, &moves, ctx(&rooms));
    assert!(plan.unplaced.is_empty(), "what changes places has room: {plan:?}");
}

#[test]
fn an_empty_host_takes_nodes_without_links_and_no_link_is_given_for_that() {
    let rooms = [room("h1", 9_000), room("h2", 9_000)];
    let spec = LabSpec { nodes: (0..8).map(|n| node(&format!("n{n}"))).collect(), ..LabSpec::default() };
    let rows = running(&spec, &rooms[..1]);
    let to = rebalanced(&rows, &Moves::default(), ctx(&rooms));
    assert!((3..=4).contains(&to.len()), "{to:?}");
    let rows = running(&rings(), &rooms[..1]);
    assert!(rebalanced(&rows, &Moves::default(), ctx(&rooms)).is_empty());
    // One on a host that is not heard of stays.
    let silent = [Room { heard: false, ..room("h1", 9_000) }, room("h2", 9_000)];
    let rows = running(&spec, &rooms[..1]);
    assert!(rebalanced(&rows, &Moves::default(), ctx(&silent)).is_empty());
}

#[test]
fn what_is_to_be_apart_stays_apart_although_links_would_be_saved() {
    let rooms = [room("h1", 9_000), room("h2", 9_000)];
    let apart_from_b = |mut node: netloom_model::spec::NodeSpec| {
        node.placement.apart_from = vec!["b".into()];
        node
    };
    let spec = LabSpec {
        nodes: vec![apart_from_b(node("a")), node("b"), node("c")],
        links: vec![link("a:eth1", "b:eth1"), link("a:eth2", "b:eth2"), link("b:eth3", "c:eth1")],
        ..LabSpec::default()
    };
    let mut rows = running(&spec, &rooms);
    for node in rows.nodes.values_mut() {
        node.host = Some(host(if node.id.as_str() == "b" { "h2" } else { "h1" }));
    }
    let to = rebalanced(&rows, &Moves::default(), ctx(&rooms));
    let after = moved(&rows, &to);
    let at = |id: &str| after.node(id).unwrap().host.clone();
    assert_ne!(at("a"), at("b"));
    assert_eq!(at("c"), at("b"), "what may be saved is");
}
