use netloom_model::kind::Catalogue;
use netloom_model::spec::{Endpoint, LabSpec, LinkSpec, NodeSpec};
use netloom_model::state::Runtime;

use super::*;
use crate::place::Room;
use crate::plan::{Context, plan};

/// Two nodes and a link, all well.
fn well() -> LabRows {
    let node =
        |id: &str| NodeSpec { id: id.into(), kind: "linux".into(), image: "i".into(), ..NodeSpec::default() };
    let end = |id: &str| Endpoint { node: id.into(), interface: "eth1".into(), ..Endpoint::default() };
    let spec = LabSpec {
        nodes: vec![node("a"), node("b")],
        links: vec![LinkSpec { a: end("a"), b: end("b"), ..LinkSpec::default() }],
        ..LabSpec::default()
    };
    let room = Room {
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
    };
    let catalogue = Catalogue::embedded();
    let ctx = Context { catalogue: &catalogue, rooms: &[room], asked: true, revive: true, now: 1 };
    let mut rows = plan(&LabRows::new("lab".parse().unwrap(), 1), &spec, ctx).rows;
    rows.nodes.values_mut().for_each(|n| n.state = NodeState::Ready);
    rows.links.values_mut().for_each(|l| l.state = LinkState::Up);
    rows
}

fn verdict(change: impl FnOnce(&mut LabRows), time_is_over: bool) -> Option<Result<(), Failure>> {
    let mut rows = well();
    change(&mut rows);
    super::verdict(&rows, &Asked::whole(), |_| time_is_over, Removals::Awaited)
}

fn node(rows: &mut LabRows, state: NodeState) {
    rows.nodes.values_mut().next().unwrap().state = state;
}

fn link(rows: &mut LabRows, state: LinkState) {
    rows.links.values_mut().next().unwrap().state = state;
}

#[test]
fn a_deploy_is_over_when_nothing_better_comes_by_waiting() {
    assert_eq!(verdict(|_| {}, false), Some(Ok(())));
    for state in
        [NodeState::Pending, NodeState::Pulling, NodeState::Starting, NodeState::Running, NodeState::Unknown]
    {
        assert_eq!(verdict(|r| node(r, state), true), None, "{state}");
    }
    for state in [LinkState::Pending, LinkState::Down, LinkState::Unknown] {
        assert_eq!(verdict(|r| link(r, state), false), None, "{state}");
        let failure = verdict(|r| link(r, state), true).unwrap().unwrap_err();
        assert_eq!(
            (failure.reason.as_str(), failure.metadata["links"].as_str()),
            ("DEPLOY_INCOMPLETE", "a:eth1--b:eth1")
        );
    }
    assert!(verdict(|r| link(r, LinkState::Failed), false).unwrap().is_err());
    let changing = |r: &mut LabRows| {
        r.links.values_mut().next().unwrap().reason = "its impairment is being made".into();
    };
    assert_eq!(verdict(changing, false), None, "up, and not yet what it is to be");
    let former = |r: &mut LabRows| {
        let mut old = r.nodes.values().next().unwrap().clone();
        (old.uid, old.replaced, old.wanted) = (netloom_model::id::NodeUid::new(), true, Wanted::Absent);
        r.nodes.insert(old.uid, old);
    };
    assert_eq!(verdict(former, true), None, "something is still to be removed");
    let mut rows = well();
    former(&mut rows);
    assert_eq!(
        super::verdict(&rows, &Asked::whole(), |_| true, Removals::Left),
        Some(Ok(())),
        "it had its time"
    );
    rows.links.values_mut().for_each(|l| l.wanted = Wanted::Absent);
    assert_eq!(
        super::verdict(&rows, &Asked::whole(), |_| true, Removals::Left),
        None,
        "links always are waited for"
    );
}

#[test]
fn a_process_that_ended_is_judged_by_its_exit_code() {
    let ended = |code: Option<i32>| {
        verdict(
            |r| {
                let lab = r.lab.uid;
                let node = r.nodes.values_mut().next().unwrap();
                node.state = NodeState::Stopped;
                let mut seen = netloom_model::observed::Observed::absent(node.uid, lab);
                seen.exit_code = code;
                node.observed = Some(seen.into());
                link(r, LinkState::Down);
            },
            false,
        )
    };
    assert_eq!(ended(Some(0)), Some(Ok(())));
    let failure = ended(Some(137)).unwrap().unwrap_err();
    assert!(
        failure.message.ends_with("STOPPED: its process ended with exit code 137"),
        "{}",
        failure.message
    );
    assert!(ended(None).unwrap().is_err(), "what is not known is not said to be well");
}

#[test]
fn a_failed_node_does_not_make_its_links_wait() {
    for state in [NodeState::Failed, NodeState::Unschedulable] {
        let failed = |r: &mut LabRows| {
            node(r, state);
            link(r, LinkState::Pending);
        };
        let failure = verdict(failed, false).unwrap().unwrap_err();
        assert_eq!((failure.metadata["nodes"].as_str(), failure.metadata["links"].as_str()), ("a", ""));
        assert!(failure.message.starts_with("1 of 2 nodes did not come up"), "{}", failure.message);
    }
}

#[test]
fn a_link_has_its_time_from_when_both_nodes_are_ready() {
    let mut rows = well();
    let bound = Duration::from_secs(30);
    let mut late = HashMap::new();
    assert_eq!(note_late_links(&rows, &mut late, bound), None);
    link(&mut rows, LinkState::Down);
    let first = note_late_links(&rows, &mut late, bound).unwrap();
    assert_eq!(note_late_links(&rows, &mut late, bound), Some(first), "looking again does not begin anew");
    node(&mut rows, NodeState::Starting);
    assert_eq!(note_late_links(&rows, &mut late, bound), None);
    assert!(late.is_empty());
}

/// It counted from the first node that ran: those that started last were not looked at.
#[test]
fn the_watch_of_starts_is_that_of_the_node_that_started_last() {
    let mut rows = well();
    let action = |id: &str| netloom_model::plan::Action {
        verb: Verb::Create,
        object: Object::Node,
        id: id.into(),
        reason: String::new(),
        host: String::new(),
    };
    let both = Plan { actions: vec![action("a"), action("b")], ..Plan::default() };
    let is = |rows: &mut LabRows, id: &str, state: NodeState, start: &str| {
        let lab = rows.lab.uid;
        let node = rows.nodes.values_mut().find(|n| n.id.as_str() == id).unwrap();
        let mut seen = netloom_model::observed::Observed::absent(node.uid, lab);
        seen.start_id = start.into();
        (node.state, node.observed) = (state, Some(seen.into()));
    };
    is(&mut rows, "a", NodeState::Ready, "1");
    is(&mut rows, "b", NodeState::Starting, "");
    let mut started = HashMap::new();
    assert_eq!(
        note_starts(&rows, &Plan::default(), &mut started),
        None,
        "what starts nothing waits for nothing"
    );
    let first = note_starts(&rows, &both, &mut started).unwrap();
    assert_eq!(note_starts(&rows, &both, &mut started), Some(first), "looking again does not begin anew");
    is(&mut rows, "b", NodeState::Ready, "1");
    let second = note_starts(&rows, &both, &mut started).unwrap();
    assert!(second > first);
    is(&mut rows, "a", NodeState::Ready, "2");
    let third = note_starts(&rows, &both, &mut started).unwrap();
    assert!(third > second, "one that was started again begins anew");
    is(&mut rows, "a", NodeState::Stopped, "");
    assert_eq!(note_starts(&rows, &both, &mut started), Some(second), "what ended is judged, not watched");
}

#[test]
fn an_operation_whose_lab_was_removed_meanwhile_says_so() {
    let rows = well();
    let operation = OperationRow::new(OperationKind::Deploy, &rows, Plan::default(), "", 1);
    let failure = lab_removed(&operation);
    assert_eq!((failure.code, failure.reason.as_str()), (Code::FailedPrecondition, "LAB_REMOVED"));
    assert!(failure.message.contains("lab \"lab\" was removed"), "{}", failure.message);
    assert_eq!(netloom_model::reason::find(&failure.reason).map(|r| r.code), Some(failure.code));
}
