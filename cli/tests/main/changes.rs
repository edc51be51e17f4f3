//! node and link: what is asked of the server, what is waited for, and what Ctrl-C does to a deploy.

use std::time::Duration;

use netloom_api::v1 as api;
use netloom_model::{Code, Failure};
use netloom_service::status::{to_rpc_status, to_status};
use netloom_service::testing::eventually;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::fake::{Ended, Fake, Script, refused};

const BOUND: Duration = Duration::from_secs(30);

fn operation(kind: api::OperationKind, object: &str, id: &str, state: &str) -> api::Operation {
    let action = api::Action {
        verb: api::ActionVerb::Stop.into(),
        object: object.into(),
        id: id.into(),
        reason: "asked for".into(),
        host: String::new(),
    };
    let progress = api::Progress {
        object: object.into(),
        id: id.into(),
        state: state.into(),
        detail: String::new(),
        boot: None,
    };
    api::Operation {
        name: "operations/1".into(),
        kind: kind.into(),
        lab_name: "labs/x".into(),
        state: api::OperationState::Succeeded.into(),
        done: true,
        plan: Some(api::Plan { actions: vec![action], ..api::Plan::default() }),
        progress: vec![progress],
        ..api::Operation::default()
    }
}

fn link(id: &str, state: api::LinkState, enabled: bool, reason: &str) -> api::Link {
    let (a, b) = id.split_once("--").unwrap();
    let end = |text: &str| {
        let (node, interface) = text.split_once(':').unwrap();
        Some(api::Endpoint { node: node.into(), interface: interface.into(), ..api::Endpoint::default() })
    };
    api::Link {
        name: format!("labs/x/links/{id}"),
        a: end(a),
        b: end(b),
        state: state.into(),
        enabled,
        state_reason: reason.into(),
        etag: "E".into(),
        a_to_b: Some(api::Impairment { rate_bps: 7, loss_ppm: 3, ..api::Impairment::default() }),
        ..api::Link::default()
    }
}

const LINK: &str = "r1:eth1--r2:eth1";

fn node(id: &str, runtime: api::Runtime) -> api::Node {
    api::Node { name: format!("labs/x/nodes/{id}"), runtime: runtime.into(), ..api::Node::default() }
}

#[tokio::test]
async fn several_nodes_are_one_operation_and_patterns_mean_those_with_a_process() {
    use api::Runtime::{Bridge, Docker};
    let fake = Fake::start(Script {
        change: Some(Ok(operation(api::OperationKind::Stop, "node", "r1", "STOPPED"))),
        nodes: vec![node("r1", Docker), node("r2", Docker), node("rs", Bridge), node("h1", Docker)],
        ..Script::default()
    })
    .await;
    let ended = fake.run(&["node", "stop", "x", "r*", "h1"]).await.expect(0);
    assert!(
        ended.out.contains("node r1  STOPPED") && ended.out.contains("Stopped 1 node of x in "),
        "{}",
        ended.out
    );
    let what = |method: &str| fake.script().calls.iter().find(|c| c.method == method).unwrap().what.clone();
    assert_eq!(what("StopNode"), "labs/x/nodes/h1 r1 r2");
    fake.run(&["node", "restart", "x", "r2"]).await.expect(0);
    assert_eq!(what("RestartNode"), "labs/x/nodes/r2 ");
    let json = fake.run(&["node", "start", "x", "r2", "--format", "json"]).await.expect(0);
    let value: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(value["state"], "OPERATION_STATE_SUCCEEDED");
    let ended = fake.run(&["node", "stop", "x", "q*"]).await.expect(4);
    assert!(ended.err.contains("no node of lab x is called like"), "{}", ended.err);
}

#[tokio::test]
async fn what_loses_something_is_not_done_unasked() {
    let snapshot = |id: &str, seconds, has_memory| api::Snapshot {
        name: format!("labs/x/nodes/v1/snapshots/{id}"),
        create_time: Some(prost_types::Timestamp { seconds, nanos: 5 }),
        size_bytes: 3 << 20,
        has_memory,
    };
    let fake = Fake::start(Script {
        change: Some(Ok(operation(api::OperationKind::Wipe, "node", "v1", "READY"))),
        nodes: vec![node("v1", api::Runtime::Libvirt), node("v2", api::Runtime::Libvirt)],
        snapshots: vec![snapshot("b", 1_700_000_000, true), snapshot("a", 1_600_000_000, false)],
        ..Script::default()
    })
    .await;
    for unasked in [&["node", "wipe", "x", "v1"][..], &["node", "snapshot", "restore", "x", "v1", "a"]] {
        let ended = fake.run(unasked).await.expect(2);
        assert!(ended.err.contains("--yes"), "{}", ended.err);
    }
    assert!(!fake.methods().iter().any(|m| ["WipeNode", "RestoreSnapshot"].contains(m)));
    let ended = fake.run(&["node", "wipe", "x", "v*", "--yes"]).await.expect(0);
    assert!(ended.out.contains("Wiped 1 node of x in "), "{}", ended.out);
    fake.run(&["node", "snapshot", "restore", "x", "v1", "a", "-y"]).await.expect(0);
    let listed = fake.run(&["node", "snapshot", "list", "x", "v1"]).await.expect(0);
    let rows: Vec<Vec<&str>> = listed.out.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["SNAPSHOT", "TAKEN", "SIZE", "MEMORY"]);
    assert_eq!(rows[1][..2], ["a", "2020-09-13T12:26:40Z"], "the oldest first: {}", listed.out);
    assert_eq!((rows[2][0], rows[2].last()), ("b", Some(&"yes")));
    let taken = fake.run(&["node", "snapshot", "create", "x", "v1", "c"]).await.expect(0);
    assert!(taken.out.starts_with("Kept its disk and memory as c ("), "{}", taken.out);
    fake.run(&["node", "snapshot", "delete", "x", "v1", "c"]).await.expect(0);
    let what = |method: &str| fake.script().calls.iter().find(|c| c.method == method).unwrap().what.clone();
    assert_eq!(what("WipeNode"), "labs/x/nodes/v1 v2");
    assert_eq!(what("RestoreSnapshot"), "labs/x/nodes/v1/snapshots/a");
    assert_eq!(what("DeleteSnapshot"), "labs/x/nodes/v1/snapshots/c");
}

#[tokio::test]
async fn a_link_is_named_by_its_id_or_an_end() {
    let fake = Fake::start(Script {
        change: Some(Ok(operation(api::OperationKind::Deploy, "link", LINK, "GONE"))),
        links: vec![link(LINK, api::LinkState::Up, true, "")],
        ..Script::default()
    })
    .await;
    for name in [LINK, "r2:eth1--r1:eth1", "r1:eth1", "r2:eth1"] {
        fake.run(&["link", "remove", "x", name]).await.expect(0);
        let last = fake.script().calls.last().unwrap().clone();
        assert_eq!((last.method, last.what.as_str()), ("DeleteLink", "labs/x/links/r1:eth1--r2:eth1"));
    }
    let ended = fake.run(&["link", "remove", "x", "r1:eth9"]).await.expect(4);
    assert!(ended.err.contains("no link \"r1:eth9\"; it has r1:eth1--r2:eth1"), "{}", ended.err);
    let listed = fake.run(&["link", "list", "x"]).await.expect(0);
    assert!(listed.out.contains("r1:eth1--r2:eth1") || listed.out.contains("r1:eth1"), "{}", listed.out);
    let json = fake.run(&["link", "list", "x", "--format", "json"]).await.expect(0);
    let value: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(value[0]["enabled"], true);
}

#[tokio::test]
async fn a_link_is_added_and_set_with_what_happens_to_frames() {
    let fake = Fake::start(Script {
        change: Some(Ok(operation(api::OperationKind::Deploy, "link", LINK, "UP"))),
        links: vec![link(LINK, api::LinkState::Up, true, "")],
        ..Script::default()
    })
    .await;
    fake.run(&["link", "add", "x", "r1:eth3", "r2:eth3", "--mtu", "1500", "--rate", "10mbit"])
        .await
        .expect(0);
    let asked = fake.script().asked_link.clone().unwrap();
    assert_eq!((asked.mtu, asked.a.unwrap().interface.as_str()), (1_500, "eth3"));
    assert_eq!((asked.a_to_b.unwrap().rate_bps, asked.b_to_a.unwrap().rate_bps), (10_000_000, 10_000_000));
    assert!(fake.run(&["link", "add", "x", "r1", "r2:eth3"]).await.expect(2).err.contains("r1:eth1"));

    let set = async |more: &[&str]| {
        let mut line = vec!["link", "set", "x", "r1:eth1"];
        line.extend(more);
        fake.run(&line).await.expect(0);
        let mask = fake.script().calls.last().unwrap().what.clone();
        (mask, fake.script().asked_link.clone().unwrap())
    };
    let (mask, asked) = set(&["--delay", "5ms", "--direction", "a-to-b"]).await;
    let a_to_b = asked.a_to_b.unwrap();
    assert_eq!((mask.as_str(), asked.b_to_a, asked.etag.as_str()), ("a_to_b", None, "E"));
    assert_eq!((a_to_b.rate_bps, a_to_b.loss_ppm, a_to_b.delay_us), (7, 3, 5_000), "what is not named stays");
    let (mask, asked) = set(&["--clear"]).await;
    assert_eq!(mask, "a_to_b,b_to_a");
    assert_eq!(asked.a_to_b, Some(api::Impairment::default()));
    fake.run(&["link", "set", "x", "r1:eth1"]).await.expect(2);
}

#[tokio::test]
async fn a_link_is_waited_for_until_it_was_read_back() {
    let up = |enabled| link(LINK, api::LinkState::Up, enabled, "");
    let fake = Fake::start(Script {
        links: vec![up(true)],
        looks: vec![up(false), up(false), link(LINK, api::LinkState::Down, false, "it is unplugged")],
        ..Script::default()
    })
    .await;
    let ended = fake.run(&["link", "down", "x", "r1:eth1"]).await.expect(0);
    assert_eq!(ended.out, "Link r1:eth1--r2:eth1 is DOWN: it is unplugged\n");
    assert_eq!(fake.methods().iter().filter(|m| **m == "GetLink").count(), 2);
    let ended = fake.run(&["link", "up", "x", "r1:eth1", "--timeout", "1s"]).await.expect(1);
    assert!(ended.err.contains("is DOWN after") && ended.err.contains("not UP"), "{}", ended.err);
}

#[tokio::test]
async fn what_the_server_refuses_is_told() {
    let fake = Fake::start(Script {
        change: Some(Err(refused(
            Code::FailedPrecondition,
            "OPERATION_ACTIVE",
            "lab \"x\" is being changed",
        ))),
        ..Script::default()
    })
    .await;
    let ended = fake.run(&["node", "stop", "x", "r1"]).await.expect(1);
    assert!(
        ended.err.contains("is being changed") && ended.err.contains("OPERATION_ACTIVE"),
        "{}",
        ended.err
    );
}

#[tokio::test]
async fn what_is_in_the_way_is_told_and_waited_for_when_asked_to() {
    let busy = || {
        let failure = netloom_model::Failure::new(Code::FailedPrecondition, "OPERATION_ACTIVE", "busy");
        netloom_service::status::to_status(failure.with("operation", "7").with("lab", "x"))
    };
    let progress = |id: &str, state: &str| api::Progress {
        object: "node".into(),
        id: id.into(),
        state: state.into(),
        ..api::Progress::default()
    };
    let active = api::Operation {
        name: "operations/7".into(),
        lab_name: "labs/x".into(),
        kind: api::OperationKind::Deploy.into(),
        progress: vec![progress("r1", "READY"), progress("r2", "STARTING")],
        ..api::Operation::default()
    };
    let done = api::Operation {
        name: "operations/8".into(),
        lab_name: "labs/x".into(),
        kind: api::OperationKind::Stop.into(),
        state: api::OperationState::Succeeded.into(),
        done: true,
        ..api::Operation::default()
    };
    let fake = Fake::start(Script {
        change_refusals: vec![busy(), busy()],
        change: Some(Ok(done)),
        operation: Some(active),
        ..Script::default()
    })
    .await;
    let refused = fake.run(&["node", "stop", "x", "r1"]).await.expect(1);
    let expected = "error: lab x is being deployed: 1 of 2 nodes are done; --wait waits for its end [OPERATION_ACTIVE]\n";
    assert!(refused.err.starts_with(expected), "{}", refused.err);
    assert!(refused.err.contains("netloom cancel x"), "{}", refused.err);
    let waited = fake.run(&["node", "stop", "x", "r1", "--wait"]).await.expect(0);
    assert_eq!(waited.err, "note: lab x is being deployed: 1 of 2 nodes are done; waits for its end\n");
    let methods = fake.methods();
    assert_eq!(methods[2..], ["StopNode", "GetOperation", "WaitOperation", "StopNode"]);
}

const LAB: &str = "name: x\ntopology:\n  nodes:\n    a: {kind: linux, image: a:1}\n";

fn deploy(state: api::OperationState) -> api::Operation {
    api::Operation {
        state: state.into(),
        done: state != api::OperationState::Running,
        ..operation(api::OperationKind::Deploy, "node", "a", "CREATING")
    }
}

#[tokio::test]
async fn a_deploy_is_cancelled_by_ctrl_c_where_that_was_asked_for() {
    let running = deploy(api::OperationState::Running);
    let fake = Fake::start(Script {
        import: Some(Ok(running.clone())),
        watches: vec![(vec![running], None)],
        operation: Some(deploy(api::OperationState::Cancelled)),
        labs: vec![api::Lab {
            name: "labs/x".into(),
            state: api::LabState::Running.into(),
            ..api::Lab::default()
        }],
        ..Script::default()
    })
    .await;
    fake.write("x.clab.yml", LAB);
    let output = interrupted_while_it_watches(&fake).await;
    let ended = Ended::of(&output).expect(130);
    assert!(ended.err.contains("cancelled; lab x is back at what was deployed before"), "{}", ended.err);
    assert!(fake.methods().contains(&"CancelOperation"));
}

/// What a deploy says that cancels when it is interrupted, and is, once it watches its operation.
async fn interrupted_while_it_watches(fake: &Fake) -> std::process::Output {
    let child = fake.command(&["deploy", "--on-interrupt", "cancel"]).spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap());
    eventually("it watches the operation", BOUND, || async { fake.methods().contains(&"WatchOperation") })
        .await;
    kill(pid, Signal::SIGINT).unwrap();
    tokio::time::timeout(BOUND, child.wait_with_output()).await.expect("it ends").unwrap()
}

/// Ctrl-C in the last moment of a deploy ended with the server's refusal.
#[tokio::test]
async fn a_deploy_that_is_interrupted_in_its_last_moment_is_followed_to_its_end() {
    let running = deploy(api::OperationState::Running);
    let refused = Failure::new(Code::FailedPrecondition, "NOT_CANCELLABLE", "it is there");
    let fake = Fake::start(Script {
        import: Some(Ok(running.clone())),
        watches: vec![(vec![running], None), (vec![deploy(api::OperationState::Succeeded)], None)],
        operation: Some(deploy(api::OperationState::Running)),
        cancel_refusal: Some(to_status(refused)),
        labs: vec![api::Lab {
            name: "labs/x".into(),
            state: api::LabState::Running.into(),
            operation: "operations/1".into(),
            ..api::Lab::default()
        }],
        ..Script::default()
    })
    .await;
    fake.write("x.clab.yml", LAB);
    let output = interrupted_while_it_watches(&fake).await;
    let ended = Ended::of(&output).expect(0);
    assert!(ended.out.contains("Deployed x in "), "{}", ended.out);
    assert!(ended.err.contains("Too late to cancel: all that the deploy was for is there"), "{}", ended.err);

    fake.script().watches = vec![(vec![deploy(api::OperationState::Succeeded)], None)];
    let ended = fake.run(&["cancel", "x"]).await.expect(0);
    assert!(ended.out.ends_with("The deploy of x was over before it could be cancelled\n"), "{}", ended.out);
}

#[tokio::test]
async fn a_plan_of_a_file_that_failed_does_not_say_that_all_is_well() {
    let why = "1 of 2 nodes did not come up\n  b: FAILED: it is broken";
    let failed = api::Operation {
        name: String::new(),
        plan: Some(api::Plan::default()),
        error: Some(to_rpc_status(&Failure::new(Code::FailedPrecondition, "DEPLOY_INCOMPLETE", why))),
        ..deploy(api::OperationState::Failed)
    };
    let fake = Fake::start(Script { import: Some(Ok(failed)), ..Script::default() }).await;
    fake.write("x.clab.yml", LAB);
    let ended = fake.run(&["plan"]).await.expect(0);
    let said = format!("Nothing to change in lab x, but not all of it is as x.clab.yml says: {why}\n");
    assert!(ended.out.ends_with(&said), "{}", ended.out);
}

#[tokio::test]
async fn a_plan_says_by_its_exit_code_whether_there_is_something_to_do() {
    let planned = api::Operation { name: String::new(), ..deploy(api::OperationState::Succeeded) };
    let fake = Fake::start(Script { import: Some(Ok(planned.clone())), ..Script::default() }).await;
    fake.write("x.clab.yml", LAB);
    fake.run(&["plan"]).await.expect(0);
    fake.run(&["plan", "--exit-code"]).await.expect(10);
    let nothing = api::Operation { plan: Some(api::Plan::default()), ..planned };
    let fake = Fake::start(Script { import: Some(Ok(nothing)), ..Script::default() }).await;
    fake.write("x.clab.yml", LAB);
    fake.run(&["plan", "--exit-code"]).await.expect(0);
}

/// Ten frames from r1 to r2, which do not come to the last of these places.
fn way(verdict: api::PathVerdict, reason: &str, seen: &[(api::PathPlace, Option<u32>)]) -> api::PathCheck {
    let stop = |(place, seen): &(api::PathPlace, Option<u32>)| api::PathStop {
        place: (*place).into(),
        host: "h1".into(),
        interface: "eth1".into(),
        seen: *seen,
        seen_large: seen.unwrap_or_default() / 2,
        detail: String::new(),
    };
    api::PathCheck {
        verdict: verdict.into(),
        reason: reason.into(),
        sent: 10,
        sent_large: 5,
        stops: seen.iter().map(stop).collect(),
        ..api::PathCheck::default()
    }
}

#[tokio::test]
async fn a_check_of_a_link_says_where_frames_stop_and_ends_accordingly() {
    use api::PathPlace::{ReceivingInterface, SendingInterface};
    let passes = || {
        Some(way(api::PathVerdict::Passes, "", &[(SendingInterface, None), (ReceivingInterface, Some(10))]))
    };
    let stops = way(
        api::PathVerdict::Stops,
        "frames do not leave eth1 in its node: it is set down",
        &[(SendingInterface, Some(0)), (ReceivingInterface, Some(0))],
    );
    let links = vec![link("r1:eth1--r2:eth1", api::LinkState::Up, true, "")];
    let check = api::CheckLinkResponse { a_to_b: passes(), b_to_a: passes() };
    let fake = Fake::start(Script { links, link_check: check, ..Script::default() }).await;
    let ended = fake.run(&["link", "check", "x", "r2:eth1", "--frames", "10"]).await.expect(0);
    let expected = "\
Link r1:eth1--r2:eth1

r1:eth1 to r2:eth1: frames pass
PLACE                HOST  INTERFACE  FRAMES  FULL SIZE  DETAIL
sending interface    h1    eth1       -       -          -
receiving interface  h1    eth1       10/10   5/5        -
";
    assert!(ended.out.starts_with(expected), "{}", ended.out);
    let calls = fake.script().calls.clone();
    let call = calls.iter().find(|call| call.method == "CheckLink").unwrap();
    assert_eq!(call.what, "labs/x/links/r1:eth1--r2:eth1 10");

    fake.script().link_check.b_to_a = Some(stops);
    let ended = fake.run(&["link", "check", "x", "r2:eth1"]).await.expect(1);
    let said = "r2:eth1 to r1:eth1: frames stop\n  frames do not leave eth1 in its node: it is set down\n";
    assert!(ended.out.contains(said), "{}", ended.out);
    let ended = fake.run(&["link", "check", "x", "r1:eth1", "--format", "json"]).await.expect(1);
    let json: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(json["bToA"]["verdict"], "PATH_VERDICT_STOPS");
    fake.run(&["link", "check", "x", "r1:eth1", "--frames", "201"]).await.expect(2);
}
