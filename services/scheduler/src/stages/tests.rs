use netloom_model::kind::Catalogue;
use netloom_model::spec::{LabSpec, NodeSpec, StageExec, StageSpec};
use proptest::prelude::*;

use super::*;
use crate::place::Room;
use crate::plan::{Context, plan};

fn planned(nodes: Vec<NodeSpec>) -> LabRows {
    let room = Room {
        host: "h1".parse().unwrap(),
        heard: true,
        runtimes: [Runtime::Docker].into(),
        cpu_millis: 900_000,
        memory_bytes: 900 << 30,
        cpu_reserved: 0,
        memory_reserved: 0,
        disk_bytes: None,
        disk_reserved: 0,
        allowed: crate::place::Allowed {
            capabilities: vec!["NET_ADMIN".into(), "SYS_ADMIN".into()],
            ..Default::default()
        },
    };
    let spec = LabSpec { nodes, ..LabSpec::default() };
    let catalogue = Catalogue::embedded();
    let ctx = Context { catalogue: &catalogue, rooms: &[room], asked: true, revive: true, now: 1 };
    plan(&LabRows::new("lab".parse().unwrap(), 1), &spec, ctx).rows
}

fn node(id: &str, waits: &[(Stage, &str, Stage)]) -> NodeSpec {
    let stages = waits.iter().map(|(stage, node, of)| StageSpec {
        stage: *stage,
        wait_for: vec![StageWait { node: (*node).into(), stage: *of }],
        exec: Vec::new(),
    });
    NodeSpec {
        id: id.into(),
        kind: "linux".into(),
        image: "i".into(),
        stages: stages.collect(),
        ..NodeSpec::default()
    }
}

fn of<'r>(rows: &'r mut LabRows, id: &str) -> &'r mut NodeRow {
    rows.nodes.values_mut().find(|n| n.spec.id == id).unwrap()
}

fn starts(rows: &mut LabRows, id: &str) {
    let lab = rows.lab.uid;
    let node = of(rows, id);
    let mut seen = Observed::absent(node.uid, lab);
    (seen.phase, seen.exec_phase, seen.start_id) = (Phase::Running, ExecPhase::Waiting, "s1".into());
    node.observed = Some(seen.into());
    node.state = NodeState::Running;
}

fn seen<'r>(rows: &'r mut LabRows, id: &str) -> &'r mut Observed {
    of(rows, id).observed.as_mut().unwrap()
}

/// Everything comes about of a node's start.
fn is_well(rows: &mut LabRows, id: &str) {
    starts(rows, id);
    of(rows, id).settled_start = "s1".into();
    seen(rows, id).exec_phase = ExecPhase::Done;
    of(rows, id).state = NodeState::Ready;
}

fn reason(rows: &LabRows, id: &str) -> Option<(String, bool)> {
    let uid = rows.nodes.values().find(|n| n.spec.id == id).unwrap().uid;
    waits(rows).remove(&uid).map(|w| (w.reason, w.hopeless))
}

fn held(rows: &LabRows, id: &str) -> (bool, bool) {
    let node = rows.nodes.values().find(|n| n.spec.id == id).unwrap();
    (is_held(rows, node), are_links_held(rows, node))
}

#[test]
fn a_node_is_held_until_what_it_waits_for_is_over() {
    use Stage::{Configure, Create, CreateLinks, Healthy};
    let mut rows =
        planned(vec![node("a", &[]), node("b", &[(Create, "a", Healthy), (CreateLinks, "a", Configure)])]);
    of(&mut rows, "a").spec.healthcheck =
        Some(Healthcheck { test: vec!["CMD".into()], ..Healthcheck::default() });
    advance(&mut rows);
    assert_eq!(held(&rows, "b"), (true, true));
    assert_eq!(held(&rows, "a"), (false, false));
    assert_eq!(reason(&rows, "b"), Some(("waits for a to be healthy".into(), false)));
    is_well(&mut rows, "a");
    advance(&mut rows);
    assert_eq!(held(&rows, "b"), (true, false), "it is configured, and not healthy yet");
    seen(&mut rows, "a").health = "unhealthy".into();
    assert_eq!(
        reason(&rows, "b"),
        Some(("waits for a to be healthy (its health check fails)".into(), false))
    );
    seen(&mut rows, "a").health = "healthy".into();
    advance(&mut rows);
    assert_eq!(held(&rows, "b"), (false, false));
    // For good: what is unhealthy later stops nobody.
    seen(&mut rows, "a").health = "unhealthy".into();
    advance(&mut rows);
    assert_eq!((held(&rows, "b"), reason(&rows, "b")), ((false, false), None));
}

#[test]
fn points_are_told_as_they_are_reached() {
    use Stage::{Configure, Create, CreateLinks, Healthy};
    let mut lab = vec![node("a", &[(Configure, "b", Create)]), node("b", &[])];
    let exec = |stage, on_exit| StageSpec {
        stage,
        wait_for: Vec::new(),
        exec: vec![StageExec { command: "x".into(), on_exit }],
    };
    lab[0].stages.extend([exec(Create, false), exec(CreateLinks, true), exec(Healthy, true)]);
    let mut rows = planned(lab);
    let told = |rows: &LabRows, settled| -> Vec<(Stage, bool)> {
        let node = rows.nodes.values().find(|n| n.spec.id == "a").unwrap();
        reached(rows, node, settled).into_iter().map(|p| (p.stage, p.on_exit)).collect()
    };
    advance(&mut rows);
    assert_eq!(told(&rows, false), []);
    starts(&mut rows, "a");
    advance(&mut rows);
    assert_eq!(told(&rows, false), [(Create, false)]);
    assert_eq!(told(&rows, true).last(), Some(&(CreateLinks, true)));
    starts(&mut rows, "b");
    of(&mut rows, "a").settled_start = "s1".into();
    advance(&mut rows);
    // Its commands at the end of its links were not run yet: it is not configured before.
    assert!(!of(&mut rows, "a").stages.over.contains(&CreateLinks));
    seen(&mut rows, "a").stages_done =
        vec![StagePoint { stage: Create, on_exit: false }, StagePoint { stage: CreateLinks, on_exit: true }];
    advance(&mut rows);
    assert_eq!(told(&rows, true).last(), Some(&(Configure, false)));
    seen(&mut rows, "a").exec_phase = ExecPhase::Done;
    of(&mut rows, "a").state = NodeState::Ready;
    advance(&mut rows);
    assert_eq!(told(&rows, true).last(), Some(&(Healthy, true)));
    assert!(is_unfinished(of(&mut rows, "a")), "a command is still to be run");
    seen(&mut rows, "a").stages_done.push(StagePoint { stage: Healthy, on_exit: true });
    advance(&mut rows);
    assert!(!is_unfinished(of(&mut rows, "a")));
    // A node that says nothing of stages is told one thing: that its commands may run.
    let b = rows.nodes.values().find(|n| n.spec.id == "b").unwrap();
    assert_eq!(reached(&rows, b, false), []);
    assert_eq!(reached(&rows, b, true).last(), Some(&StagePoint { stage: Configure, on_exit: false }));
}

#[test]
fn links_are_made_after_the_commands_at_their_entry() {
    let mut lab = node("a", &[]);
    let exec = vec![StageExec { command: "x".into(), on_exit: false }];
    lab.stages = vec![StageSpec { stage: Stage::CreateLinks, wait_for: Vec::new(), exec }];
    let mut rows = planned(vec![lab]);
    starts(&mut rows, "a");
    advance(&mut rows);
    assert_eq!(held(&rows, "a"), (false, true));
    let entry = StagePoint { stage: Stage::CreateLinks, on_exit: false };
    assert_eq!(reached(&rows, of(&mut rows.clone(), "a"), false).last(), Some(&entry));
    seen(&mut rows, "a").stages_done.push(entry);
    assert_eq!(held(&rows, "a"), (false, false));
    // Of a later start they come at once, as its NICs are there.
    of(&mut rows, "a").settled_start = "s1".into();
    advance(&mut rows);
    starts(&mut rows, "a");
    assert_eq!(held(&rows, "a"), (false, false));
}

#[test]
fn what_waits_for_ever_is_told_so() {
    use Stage::{Create, Exit, Healthy};
    let mut rows = planned(vec![
        node("a", &[]),
        node("b", &[(Create, "a", Healthy)]),
        node("c", &[(Create, "b", Healthy)]),
        node("d", &[(Create, "a", Exit)]),
    ]);
    of(&mut rows, "a").state = NodeState::Failed;
    advance(&mut rows);
    let (why, hopeless) = reason(&rows, "b").unwrap();
    assert!(hopeless && why.ends_with("which cannot come about: a is FAILED"), "{why}");
    assert!(reason(&rows, "c").unwrap().0.ends_with("b waits for ever"));
    assert!(reason(&rows, "d").unwrap().1);
    // A job that ended did what it was waited for.
    is_well(&mut rows, "a");
    (seen(&mut rows, "a").exited, seen(&mut rows, "a").phase) = (true, Phase::Stopped);
    of(&mut rows, "a").state = NodeState::Stopped;
    advance(&mut rows);
    assert_eq!(reason(&rows, "d"), None);
    assert!(reason(&rows, "b").unwrap().1, "it ended before it was healthy");
}

fn stage() -> impl Strategy<Value = Stage> {
    prop::sample::select(&Stage::ALL[..4])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever waits for whatever, as long as it is no circle: everything comes to its end, and nothing before its time.
    #[test]
    fn every_node_finishes_and_in_order(
        edges in prop::collection::vec((1usize..8, 0usize..8, stage(), stage()), 0..20),
        choices in prop::collection::vec(0usize..1_000, 400),
    ) {
        let names: Vec<String> = (0..8).map(|i| format!("n{i}")).collect();
        let waits: Vec<Vec<(Stage, &str, Stage)>> = (0..8)
            .map(|i| {
                let own = edges.iter().filter(|(from, ..)| *from == i);
                own.map(|(from, to, at, awaited)| (*at, names[to % from].as_str(), *awaited)).collect()
            })
            .collect();
        let mut rows = planned((0..8).map(|i| node(&names[i], &waits[i])).collect());
        let over = |rows: &LabRows, id: &str, stage: Stage| {
            rows.nodes.values().find(|n| n.spec.id == id).unwrap().stages.over.contains(&stage)
        };
        for choice in choices {
            advance(&mut rows);
            let mut events: Vec<(String, Stage)> = Vec::new();
            for n in rows.nodes.values() {
                let settled = is_settled(n);
                match current(n) {
                    None if !is_held(&rows, n) => events.push((n.spec.id.clone(), Stage::Create)),
                    None => {}
                    Some(_) if !settled && !keeps_links_back(&rows, n) => {
                        events.push((n.spec.id.clone(), Stage::CreateLinks));
                    }
                    Some(o) if o.exec_phase == ExecPhase::Waiting => {
                        let point = StagePoint { stage: Stage::Configure, on_exit: false };
                        if reached(&rows, n, settled).contains(&point) {
                            events.push((n.spec.id.clone(), Stage::Configure));
                        }
                    }
                    Some(_) => {}
                }
            }
            let Some((id, happens)) = events.get(choice % events.len().max(1)).cloned() else { break };
            // Nothing happens to a node before what it waits for there is over.
            let index = names.iter().position(|n| *n == id).unwrap();
            for (_, other, awaited) in waits[index].iter().filter(|(at, ..)| *at == happens) {
                prop_assert!(over(&rows, other, *awaited), "{id} {happens:?} before {other} {awaited:?}");
            }
            match happens {
                Stage::Create => starts(&mut rows, &id),
                Stage::CreateLinks => of(&mut rows, &id).settled_start = "s1".into(),
                _ => {
                    seen(&mut rows, &id).exec_phase = ExecPhase::Done;
                    of(&mut rows, &id).state = NodeState::Ready;
                }
            }
        }
        advance(&mut rows);
        for n in rows.nodes.values() {
            prop_assert!(n.stages.over.contains(&Stage::Healthy) || !super::any(&rows), "{} {:?}", n.id, n.stages);
            prop_assert!(!is_unfinished(n));
        }
        prop_assert!(super::waits(&rows).is_empty());
    }
}
