use netloom_model::observed::{Observed, Phase};
use netloom_model::spec::LabSpec;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;
use crate::place::Room;
use crate::plan::{Before, NodeChange, change_nodes, plan};

/// An owner, one that shares its network namespace, and one that has its own.
fn spec(env: &str) -> LabSpec {
    let node = |id: &str, network_mode: &str| {
        let mut node: NodeSpec =
            serde_json::from_value(serde_json::json!({"id": id, "kind": "linux", "image": "i"})).unwrap();
        if !network_mode.is_empty() {
            node.network_mode = NetworkMode::Node(network_mode.into());
        }
        node
    };
    // Who shares comes first: the order in a file says nothing.
    let mut spec = LabSpec {
        nodes: vec![node("side", "main"), node("main", ""), node("own", "")],
        ..LabSpec::default()
    };
    spec.nodes[1].env.insert("A".into(), env.into());
    spec
}

fn room() -> Room {
    Room {
        host: "h1".parse().unwrap(),
        heard: true,
        runtimes: [Runtime::Docker].into(),
        cpu_millis: 9_000,
        memory_bytes: 9 << 30,
        cpu_reserved: 0,
        memory_reserved: 0,
        disk_bytes: None,
        disk_reserved: 0,
        allowed: crate::place::Allowed {
            capabilities: vec!["NET_ADMIN".into(), "SYS_ADMIN".into()],
            ..Default::default()
        },
    }
}

/// The rows when a spec is deployed, or gone back to, and all of it runs.
fn after(current: &LabRows, spec: &LabSpec, now: i64, asked: bool) -> LabRows {
    let room = room();
    let catalogue = Catalogue::embedded();
    let ctx = Context { catalogue: &catalogue, rooms: &[room], asked, revive: asked, now };
    let mut rows = plan(current, spec, ctx).rows;
    for node in rows.nodes.values_mut() {
        node.image_step = ImageStep::Ready;
    }
    take_over(&mut rows, &catalogue, now);
    seen(&mut rows);
    // What is to be gone goes.
    rows.nodes.retain(|_, n| n.wanted != Wanted::Absent);
    rows
}

/// All that is told to hosts is there.
fn seen(rows: &mut LabRows) {
    let lab = rows.lab.uid;
    for node in rows.nodes.values_mut().filter(|n| !n.is_successor()) {
        let mut seen = Observed::absent(node.uid, lab);
        seen.phase = if node.is_aside() { Phase::Aside } else { Phase::Running };
        node.observed = Some(seen.into());
    }
}

fn uid(rows: &LabRows, id: &str) -> NodeUid {
    rows.node(id).unwrap().uid
}

fn aside(rows: &LabRows) -> BTreeSet<NodeUid> {
    rows.nodes.values().filter(|n| n.is_aside()).map(|n| n.uid).collect()
}

#[test]
fn what_was_set_aside_comes_back_for_its_own_spec_and_a_cancel_keeps_nothing_else() {
    let first = after(&LabRows::new("lab".parse().unwrap(), 1), &spec("a"), 1, true);
    let (main, side, own) = (uid(&first, "main"), uid(&first, "side"), uid(&first, "own"));
    let mut dropped = spec("b");
    dropped.nodes.pop();
    let second = after(&first, &dropped, 2, true);
    assert_eq!(aside(&second), [main, side, own].into());
    assert!(!second.node("own").unwrap().replaced, "it is still shown");

    let mut current = second.clone();
    Before::of(&first).put_back(&mut current);
    let cancelled = after(&current, &spec("a"), 3, false);
    assert_eq!(cancelled.nodes.keys().collect::<Vec<_>>(), first.nodes.keys().collect::<Vec<_>>());
    assert!(cancelled.nodes.values().all(NodeRow::is_wanted));

    // Asked for, it comes back too, and what ran until then is kept for as long.
    let back = after(&second, &spec("a"), 3, true);
    assert_eq!((uid(&back, "main"), uid(&back, "side"), uid(&back, "own")), (main, side, own));
    assert_eq!(aside(&back), [uid(&second, "main"), uid(&second, "side")].into());

    // Taken back while it waits for an image, it stands aside as before.
    let catalogue = Catalogue::embedded();
    let mut waiting = spec("a");
    waiting.nodes[2].image = "j".into();
    let third = after(&second, &dropped, 3, true);
    let rooms = [room()];
    let ctx = |asked| Context { catalogue: &catalogue, rooms: &rooms, asked, revive: asked, now: 4 };
    let waits = plan(&third, &waiting, ctx(true)).rows;
    assert!(waits.nodes[&main].is_successor(), "only when it is known what can be made");
    let taken_back = plan(&waits, &dropped, ctx(false)).rows;
    assert_eq!(aside(&taken_back), [main, side, own].into());
}

/// A row went with what was to come back while its host's word of it was missing for a moment: its container was nobody's then.
#[test]
fn what_was_to_come_back_and_is_not_seen_for_a_moment_stays_aside() {
    let first = after(&LabRows::new("lab".parse().unwrap(), 1), &spec("a"), 1, true);
    let second = after(&first, &spec("b"), 2, true);
    let (main, side) = (uid(&first, "main"), uid(&first, "side"));
    let catalogue = Catalogue::embedded();
    let rooms = [room()];
    let ctx = Context { catalogue: &catalogue, rooms: &rooms, asked: true, revive: true, now: 3 };
    let mut waiting = spec("a");
    waiting.nodes[2].image = "j".into();
    let mut waits = plan(&second, &waiting, ctx).rows;
    assert!(waits.nodes[&main].is_successor());
    waits.nodes.values_mut().for_each(|n| n.observed = None);
    let before = Before::of(&waits);
    let taken_back = plan(&waits, &spec("b"), ctx).rows;
    assert_eq!(aside(&taken_back), [main, side].into());
    let mut put_back = taken_back.clone();
    before.put_back(&mut put_back);
    assert!(put_back.nodes.contains_key(&main) && put_back.nodes.contains_key(&side));
}

/// By the time that rows were made the owner was the wrong one: all of a plan are of the same moment, and a clock may go back.
#[test]
fn whose_network_namespace_a_node_was_made_to_share_is_written_down() {
    for nows in [[1, 1, 1, 1], [9, 5, 3, 1]] {
        let first = after(&LabRows::new("lab".parse().unwrap(), 1), &spec("a"), nows[0], true);
        let second = after(&first, &spec("b"), nows[1], true);
        let third = after(&second, &spec("c"), nows[2], true);
        for rows in [&first, &second, &third] {
            assert_eq!(rows.node("side").unwrap().shares, Some(uid(rows, "main")));
        }
        for (env, of) in [("a", &first), ("b", &second)] {
            let back = after(&third, &spec(env), nows[3], true);
            assert_eq!((uid(&back, "main"), uid(&back, "side")), (uid(of, "main"), uid(of, "side")), "{env}");
        }
    }
}

#[test]
fn who_shares_a_network_namespace_comes_back_with_its_owner_only() {
    let first = after(&LabRows::new("lab".parse().unwrap(), 1), &spec("a"), 1, true);
    let second = after(&first, &spec("b"), 2, true);
    // Its own spec is the same each time; the namespace is not.
    let third = after(&second, &spec("c"), 3, true);
    let sides = [&first, &second, &third].map(|rows| uid(rows, "side"));
    assert!(sides[0] != sides[1] && sides[1] != sides[2] && sides[0] != sides[2]);
    for (n, env) in ["a", "b"].into_iter().enumerate() {
        for asked in [true, false] {
            let back = after(&third, &spec(env), 4, asked);
            let of = [&first, &second][n];
            assert_eq!((uid(&back, "main"), uid(&back, "side")), (uid(of, "main"), uid(of, "side")));
        }
    }
    let mut dropped = spec("c");
    dropped.nodes.remove(0);
    let without = after(&second, &dropped, 3, true);
    let again = after(&without, &spec("c"), 4, true);
    assert!(!sides.contains(&uid(&again, "side")), "its namespace is gone, so it is another");
    assert!(aside(&again).contains(&sides[1]), "and nothing of it is lost");
}

/// Deploys of which parts fail, each cancelled at some moment: what was there when it began is there afterwards, and has the place that it had.
#[test]
fn a_cancel_gives_back_what_was_there_whatever_failed_before() {
    let catalogue = Catalogue::embedded();
    let rooms = [room()];
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut rows = after(&LabRows::new("lab".parse().unwrap(), 1), &spec("a"), 1, true);
        let mut completed = spec("a");
        for now in 2..9 {
            let mut asked = spec(["a", "b", "c"][random.random_range(0..3)]);
            asked.nodes.retain(|_| random.random_bool(0.9));
            asked
                .nodes
                .iter_mut()
                .filter(|n| n.id == "own")
                .for_each(|n| n.image = random.random_range(0..3).to_string());
            let before = Before::of(&rows);
            // What is to come back, and could not, may do so after a cancel.
            let comes_back: BTreeSet<_> = rows
                .nodes
                .values()
                .filter(|n| n.is_successor() && n.phase().is_some())
                .map(|n| n.id.folded())
                .collect();
            let has_disk = |n: &&NodeRow| n.image_step == ImageStep::Ready && !n.is_successor();
            let there: BTreeMap<_, _> = rows
                .nodes
                .values()
                .filter(has_disk)
                .map(|n| (n.uid, (n.wanted, n.replaced, comes_back.contains(&n.id.folded()))))
                .collect();
            let ctx = |asked| Context { catalogue: &catalogue, rooms: &rooms, asked, revive: asked, now };
            let mut under_way = plan(&rows, &asked, ctx(true)).rows;
            if random.random_bool(0.7) {
                let fails = random.random_bool(0.4);
                for node in under_way.nodes.values_mut().filter(|n| n.is_preparing()) {
                    node.image_step = if fails { ImageStep::Failed } else { ImageStep::Ready };
                }
                take_over(&mut under_way, &catalogue, now);
                seen(&mut under_way);
            }
            if random.random_bool(0.4) {
                (rows, completed) = (under_way, asked);
                continue;
            }
            before.put_back(&mut under_way);
            rows = plan(&under_way, &completed, ctx(false)).rows;
            for (uid, (wanted, replaced, moves)) in there {
                let has = rows.nodes.get(&uid).map(|n| (n.wanted, n.replaced));
                let told = format!("seed {seed}, deploy {now}: {uid} was {wanted} {replaced}, is {has:?}");
                assert!(has.is_some_and(|(wanted, _)| wanted != Wanted::Absent), "{told}");
                assert!(has == Some((wanted, replaced)) || wanted == Wanted::Aside || moves, "{told}");
            }
            rows.nodes.retain(|_, n| n.wanted != Wanted::Absent);
        }
    }
}

#[test]
fn the_room_of_one_whose_successor_fits_nowhere_is_not_given_away() {
    let with = |env: &str, requests: &[(&str, u32)]| {
        let mut spec = spec(env);
        spec.nodes.retain(|n| n.id == "main");
        for (id, cpu) in requests {
            let mut node = spec.nodes[0].clone();
            (node.id, node.cpu_request_millis) = ((*id).to_owned(), *cpu);
            spec.nodes.retain(|n| n.id != *id);
            spec.nodes.push(node);
        }
        spec
    };
    let empty = LabRows::new("lab".parse().unwrap(), 1);
    let rows = after(&empty, &with("1", &[("main", 5_000)]), 2, true);
    // There are 9,000: the new one would fit if the former one were to leave.
    let rows = after(&rows, &with("2", &[("main", 10_000), ("more", 6_000)]), 3, true);
    let on = |rows: &LabRows, id: &str| rows.node(id).and_then(|n| n.host.clone()).map(|h| h.to_string());
    assert_eq!(on(&rows, "main").as_deref(), Some("h1"), "it goes on as it was");
    assert_eq!(on(&rows, "more"), None, "and so does what it has");
    let (room, catalogue) = (room(), Catalogue::embedded());
    let rooms = [room];
    let ctx = Context { catalogue: &catalogue, rooms: &rooms, asked: false, revive: false, now: 4 };
    assert_eq!(on(&crate::plan::place_again(&rows, ctx), "more"), None, "also when it is tried again");
    // One that can be made takes its place, and gives up the room.
    let rows = after(&rows, &with("3", &[("main", 3_000), ("more", 6_000)]), 5, true);
    assert_eq!(on(&crate::plan::place_again(&rows, ctx), "more").as_deref(), Some("h1"));
}

#[test]
fn a_node_that_is_stopped_stays_so_when_there_is_room_for_its_successor() {
    let with = |env: &str, cpu: u32| {
        let mut spec = spec(env);
        spec.nodes.retain(|n| n.id == "main");
        spec.nodes[0].cpu_request_millis = cpu;
        spec
    };
    let empty = LabRows::new("lab".parse().unwrap(), 1);
    let larger = with("2", 10_000);
    let catalogue = Catalogue::embedded();
    let room_appears = |rows: &LabRows| {
        let rooms = [Room { cpu_millis: 20_000, ..room() }];
        let ctx = Context { catalogue: &catalogue, rooms: &rooms, asked: false, revive: false, now: 9 };
        let mut rows = crate::plan::place_again(rows, ctx);
        rows.nodes.values_mut().for_each(|n| n.image_step = ImageStep::Ready);
        take_over(&mut rows, &catalogue, 9);
        let node = rows.node("main").unwrap();
        assert_eq!(node.spec.cpu_request_millis, 10_000);
        node.wanted
    };
    let running = after(&after(&empty, &with("1", 5_000), 2, true), &larger, 3, true);
    let change = |rows: &LabRows, change: NodeChange| {
        let (mut rows, main) = (rows.clone(), uid(rows, "main"));
        let plan = change_nodes(&mut rows, &[main].into(), &change);
        (rows, plan.actions.len())
    };
    let (stopped, _) = change(&running, NodeChange::Stop);
    assert_eq!((room_appears(&running), room_appears(&stopped)), (Wanted::Running, Wanted::Stopped));
    assert_eq!(change(&stopped, NodeChange::Stop).1, 0, "it is as asked");
    assert_eq!(room_appears(&change(&stopped, NodeChange::Start).0), Wanted::Running);
    // Who deploys wants it to run, also as it was asked for before; and one that stood already may be stopped again.
    let again = after(&stopped, &larger, 4, true);
    assert_eq!(
        (again.node("main").unwrap().wanted, room_appears(&again)),
        (Wanted::Stopped, Wanted::Running)
    );
    let (stopped, actions) = change(&again, NodeChange::Stop);
    assert_eq!((actions, room_appears(&stopped)), (1, Wanted::Stopped));
}
