use netloom_model::id::OperationId;
use netloom_model::kind::Catalogue;
use netloom_model::spec::{NodeSpec, Placement};

use super::*;
use crate::plan::moves::tests::{ctx, node, room, running};
use crate::plan::{Planned, place_again, plan, take_over};

fn of_size(id: &str, cpu_millis: u32, image: &str) -> NodeSpec {
    NodeSpec { cpu_request_millis: cpu_millis, image: image.into(), ..node(id) }
}

fn lab(nodes: &[NodeSpec]) -> LabSpec {
    LabSpec { nodes: nodes.to_vec(), ..LabSpec::default() }
}

/// A deploy that is under way, as of this time.
fn deploy(rows: &LabRows, spec: &LabSpec, rooms: &[Room], now: i64) -> Planned {
    let mut planned = plan(rows, spec, Context { asked: true, revive: true, now, ..ctx(rooms) });
    planned.rows.operation = Some(OperationId::new());
    planned
}

/// The images of all but these are there, those of these cannot be had.
fn prepared(rows: &LabRows, failed: &[&str]) -> LabRows {
    let mut rows = rows.clone();
    for node in rows.nodes.values_mut().filter(|n| n.is_preparing()) {
        let fails = failed.contains(&node.id.as_str());
        node.image_step = if fails { ImageStep::Failed } else { ImageStep::Ready };
    }
    take_over(&mut rows, &Catalogue::embedded(), 20);
    rows
}

fn at(rows: &LabRows, id: &str) -> Option<String> {
    rows.node(id).and_then(|n| n.host.as_ref()).map(ToString::to_string)
}

#[test]
fn the_room_of_one_whose_successor_cannot_be_made_is_given_to_nobody() {
    let rooms = [room("h1", 500)];
    let first = running(&lab(&[of_size("a", 400, "i")]), &rooms);
    let second = lab(&[of_size("a", 200, "j"), of_size("b", 300, "i")]);
    let under_way = deploy(&first, &second, &rooms, 10);
    assert_eq!(at(&under_way.rows, "b"), None, "what it needs is a's until its successor is made");
    assert_eq!(under_way.plan.unplaced, [], "it does fit, and waits for that only");
    assert_eq!(at(&place_again(&under_way.rows, ctx(&rooms)), "b"), None);

    let failed = prepared(&under_way.rows, &["a"]);
    assert!(failed.nodes.values().any(|n| n.is_successor() && n.image_step == ImageStep::Failed));
    for operation in [failed.operation, None] {
        let failed = LabRows { operation, ..failed.clone() };
        assert_eq!(at(&place_again(&failed, ctx(&rooms)), "b"), None, "a goes on with 400 of 500");
    }
    let made = prepared(&under_way.rows, &[]);
    assert_eq!(at(&place_again(&made, ctx(&rooms)), "b").as_deref(), Some("h1"), "it is free now");
}

#[test]
fn a_request_does_not_grow_into_the_room_of_one_whose_successor_may_not_be_made() {
    let rooms = [room("h1", 500)];
    let first = running(&lab(&[of_size("a", 400, "i"), of_size("b", 100, "i")]), &rooms);
    let grown = |a: NodeSpec| deploy(&first, &lab(&[a, of_size("b", 300, "i")]), &rooms, 10).overgrown;
    assert_eq!(grown(of_size("a", 200, "j"))[0].0.as_str(), "b");
    assert!(grown(of_size("a", 200, "i")).is_empty(), "what shrinks as it runs gives it up at once");
}

#[test]
fn what_an_operation_set_aside_keeps_its_room_from_all_that_outlive_a_cancel() {
    let rooms = [room("h1", 500)];
    let first = lab(&[of_size("a", 400, "i"), of_size("b", 300, "i")]);
    let first = running(&first, &rooms);
    assert_eq!(at(&first, "b"), None);
    let second = lab(&[of_size("a", 200, "j"), of_size("b", 300, "i")]);
    let made = prepared(&deploy(&first, &second, &rooms, 10).rows, &[]);
    assert!(made.nodes.values().any(NodeRow::is_aside));
    assert_eq!(at(&place_again(&made, ctx(&rooms)), "b"), None, "a cancel has a back, and leaves b");
    let over = LabRows { operation: None, ..made };
    assert_eq!(at(&place_again(&over, ctx(&rooms)), "b").as_deref(), Some("h1"));
}

#[test]
fn the_room_of_what_moves_is_its_own_until_it_has_moved() {
    let rooms = [room("h1", 500), room("h2", 500)];
    let mut rows = running(&lab(&[of_size("a", 400, "i"), of_size("b", 600, "i")]), &rooms);
    let h2: HostId = "h2".parse().unwrap();
    let a = rows.node("a").unwrap();
    assert_eq!(a.host.as_ref().map(HostId::as_str), Some("h1"));
    let successor = NodeRow {
        uid: NodeUid::new(),
        replaced: true,
        placed: false,
        host: Some(h2),
        image_step: ImageStep::Waiting,
        ..a.clone()
    };
    rows.nodes.insert(successor.uid, successor);
    rows.operation = Some(OperationId::new());
    let b = rows.nodes.values_mut().find(|n| n.id.as_str() == "b").unwrap();
    let mut spec = NodeSpec::clone(&b.spec);
    spec.cpu_request_millis = 300;
    b.spec = spec.into();
    assert_eq!(
        at(&place_again(&rows, ctx(&rooms)), "b"),
        None,
        "a runs on h1, and its successor is to run on h2"
    );
    let moved = prepared(&rows, &[]);
    assert_eq!(at(&moved, "a").as_deref(), Some("h2"));
    let over = LabRows { operation: None, ..moved };
    assert_eq!(at(&place_again(&over, ctx(&rooms)), "b").as_deref(), Some("h1"));
}

#[test]
fn nodes_that_are_to_be_apart_are_apart_when_they_are_made_anew() {
    let rooms = [room("h1", 9_000), room("h2", 9_000)];
    let placement = Placement { apart_from: vec!["b".into()], ..Placement::default() };
    let with = |image: &str| {
        lab(&[
            NodeSpec { placement: placement.clone(), ..of_size("a", 100, image) },
            of_size("b", 100, image),
        ])
    };
    let first = running(&with("i"), &rooms);
    assert_ne!(at(&first, "a"), at(&first, "b"));
    let second = prepared(&deploy(&first, &with("j"), &rooms, 10).rows, &[]);
    assert_eq!(second.nodes.values().filter(|n| n.is_aside()).count(), 2, "both are others");
    assert_ne!(at(&second, "a"), at(&second, "b"));
}

#[test]
fn a_label_that_no_host_has_is_refused_although_hosts_are_cordoned_or_silent() {
    let mut rooms = [room("h1", 9_000), room("h2", 9_000), room("h3", 9_000)];
    rooms[0].allowed.cordoned = true;
    rooms[1].heard = false;
    let placement = Placement { labels: [("rack".into(), "9".into())].into(), ..Placement::default() };
    let planned = deploy(
        &LabRows::new("lab".parse().unwrap(), 1),
        &lab(&[NodeSpec { placement, ..node("a") }]),
        &rooms,
        10,
    );
    let codes: Vec<&str> = planned.forbidden.iter().map(|(_, why)| why.code.as_str()).collect();
    assert_eq!(codes, ["HOST_LABEL_MISSING"; 3]);
}
