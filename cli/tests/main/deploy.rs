//! deploy, plan and inspect.

use std::time::Duration;

use netloom_api::v1 as api;
use netloom_model::{Code, Failure};
use netloom_service::status::{to_rpc_status, to_status};
use netloom_service::testing::eventually;
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::fake::{Ended, Fake, Script, refused};

const BOUND: Duration = Duration::from_secs(30);
const LAB: &str = "name: x\ntopology:\n  nodes:\n    a: {kind: linux, image: a:1}\n    b: {kind: only-here, image: a:1}\n  links:\n  - endpoints: [\"a:eth1\", \"b:eth1\"]\n";

fn progress(object: &str, id: &str, state: &str, detail: &str) -> api::Progress {
    api::Progress {
        object: object.into(),
        id: id.into(),
        state: state.into(),
        detail: detail.into(),
        boot: None,
    }
}

fn running(progress: Vec<api::Progress>) -> api::Operation {
    let create = |object: &str, id: &str| api::Action {
        verb: api::ActionVerb::Create.into(),
        object: object.into(),
        id: id.into(),
        host: if object == "node" { "local".into() } else { String::new() },
        ..api::Action::default()
    };
    api::Operation {
        name: "operations/1".into(),
        kind: api::OperationKind::Deploy.into(),
        lab_name: "labs/x".into(),
        state: api::OperationState::Running.into(),
        plan: Some(api::Plan {
            actions: vec![create("node", "a"), create("node", "b"), create("link", "a:eth1--b:eth1")],
            ..api::Plan::default()
        }),
        progress,
        ..api::Operation::default()
    }
}

fn succeeded() -> api::Operation {
    api::Operation {
        state: api::OperationState::Succeeded.into(),
        done: true,
        ..running(vec![
            progress("node", "a", "READY", ""),
            progress("node", "b", "READY", ""),
            progress("link", "a:eth1--b:eth1", "UP", ""),
        ])
    }
}

fn lab() -> api::Lab {
    api::Lab {
        name: "labs/x".into(),
        state: api::LabState::Running.into(),
        node_count: 2,
        ready_count: 2,
        link_count: 1,
        up_link_count: 1,
        ..api::Lab::default()
    }
}

fn node(id: &str) -> api::Node {
    api::Node {
        name: format!("labs/x/nodes/{id}"),
        kind: "linux".into(),
        image: "a:1".into(),
        state: api::NodeState::Ready.into(),
        host: "hosts/local".into(),
        ..api::Node::default()
    }
}

fn script(operations: Vec<api::Operation>) -> Script {
    let end = |node: &str| {
        Some(api::Endpoint { node: node.into(), interface: "eth1".into(), ..api::Endpoint::default() })
    };
    let link = api::Link {
        a: end("a"),
        b: end("b"),
        mtu: 9500,
        state: api::LinkState::Up.into(),
        ..Default::default()
    };
    Script {
        import: Some(Ok(running(vec![progress("node", "a", "CREATING", "")]))),
        watches: vec![(operations, None)],
        labs: vec![lab()],
        nodes: vec![node("a"), node("b")],
        links: vec![link],
        ..Script::default()
    }
}

/// Standard output with every time as `T`.
fn without_times(out: &str) -> String {
    let words = |line: &str| {
        let word = |w: &str| match w.strip_suffix('s').map(str::parse::<f64>) {
            Some(Ok(_)) => "T".to_owned(),
            _ => w.to_owned(),
        };
        line.trim_start().split(' ').map(word).collect::<Vec<String>>().join(" ")
    };
    out.lines().map(|line| words(line) + "\n").collect()
}

#[tokio::test]
async fn deploy_prints_plan_progress_and_the_lab() {
    let half = running(vec![
        progress("node", "a", "READY", ""),
        progress("node", "b", "STARTING", "waits for eth1"),
        progress("link", "a:eth1--b:eth1", "PENDING", ""),
    ]);
    let fake = Fake::start(script(vec![half, succeeded()])).await;
    fake.write("x.clab.yml", LAB);
    let ended = fake.run(&["deploy"]).await.expect(0);
    let expected = "\
+ node a               on local
+ node b               on local
+ link a:eth1--b:eth1
Plan: 3 to make, 0 to change, 0 to remove
T  node a  CREATING
T  node a  READY
T  node b  STARTING  waits for eth1
T  node b  READY
T  link a:eth1--b:eth1  UP

LAB  STATE    NODES READY  LINKS UP  REASON
x    RUNNING  2/2          1/1       -

NODE  KIND   IMAGE  STATE  HOST   MGMT ADDRESS  RESTARTS  REASON
a     linux  a:1    READY  local  -             0         -
b     linux  a:1    READY  local  -             0         -

A       B       STATE  MTU   PLANE  REASON
a:eth1  b:eth1  UP     9500  -      -

Deployed x in T
";
    assert_eq!(without_times(&ended.out), expected);

    let script = fake.script();
    let traces: std::collections::BTreeSet<&str> =
        script.calls.iter().map(|c| c.traceparent.split('-').nth(1).unwrap_or_default()).collect();
    assert_eq!(traces.len(), 1, "one command is one trace: {:?}", script.calls);
    assert_eq!(traces.first().map(|t| t.len()), Some(32));
    let imported = script.imported.as_ref().unwrap();
    assert_eq!((imported.text.as_str(), imported.validate_only), (LAB, false));
    assert!(!imported.request_id.is_empty());
}

#[tokio::test]
async fn a_deploy_ends_with_a_warning_about_exec_commands_that_failed() {
    let mut script = script(vec![succeeded()]);
    let why = "2 exec commands failed: \"false\" exited with 1; \"x\" was not run";
    for id in ["r10", "r2"] {
        let mut failed = node(id);
        (failed.exec_error, failed.state_reason) = (why.into(), why.into());
        script.nodes.push(failed);
    }
    let fake = Fake::start(script).await;
    fake.write("x.clab.yml", LAB);
    let ended = fake.run(&["deploy"]).await.expect(0);
    assert!(
        ended.out.contains("Deployed x in ") && ended.out.contains("2 exec commands failed"),
        "{}",
        ended.out
    );
    assert_eq!(ended.err, "warning: exec commands failed in r2, r10; `netloom inspect x` says which\n");
}

#[tokio::test]
async fn an_unchanged_file_has_nothing_to_do() {
    let done = api::Operation { plan: Some(api::Plan::default()), progress: Vec::new(), ..succeeded() };
    let fake = Fake::start(Script { import: Some(Ok(done)), ..script(Vec::new()) }).await;
    let file = fake.write("x.clab.yml", LAB);
    let ended = fake.run(&["deploy", "-t", file.to_str().unwrap()]).await.expect(0);
    assert!(
        ended.out.starts_with(&format!("Nothing to do: lab x is as {} says\n", file.display())),
        "{}",
        ended.out
    );
    assert!(!fake.methods().contains(&"WatchOperation"));
}

#[tokio::test]
async fn an_unchanged_file_of_a_lab_that_is_not_ready_fails() {
    let why = "1 of 2 nodes did not come up\n  b: FAILED: it is broken";
    let failed = api::Operation {
        plan: Some(api::Plan::default()),
        progress: Vec::new(),
        state: api::OperationState::Failed.into(),
        error: Some(to_rpc_status(&Failure::new(Code::FailedPrecondition, "DEPLOY_INCOMPLETE", why))),
        ..succeeded()
    };
    let fake = Fake::start(Script { import: Some(Ok(failed)), ..script(Vec::new()) }).await;
    fake.write("x.clab.yml", LAB);
    let ended = fake.run(&["deploy"]).await.expect(1);
    assert!(!ended.out.contains("Nothing to do") && !ended.out.contains("Deployed"), "{}", ended.out);
    assert!(ended.out.contains("NODE  KIND"), "the lab is shown as it is: {}", ended.out);
    let error = format!("error: there was nothing to change in x, and not all of it is ready: {why}\n");
    assert!(ended.err.contains(&error), "{}", ended.err);
}

#[tokio::test]
async fn a_deploy_that_failed_names_what_failed() {
    let error = to_rpc_status(&Failure::new(Code::FailedPrecondition, "NODES_FAILED", "1 of 2 nodes failed"));
    let failed = api::Operation {
        state: api::OperationState::Failed.into(),
        error: Some(error),
        progress: vec![progress("node", "a", "READY", ""), progress("node", "b", "FAILED", "exit code 1")],
        ..succeeded()
    };
    let fake = Fake::start(script(vec![failed])).await;
    fake.write("x.clab.yml", LAB);
    let ended = fake.run(&["deploy"]).await.expect(1);
    assert_eq!(ended.err.lines().last(), Some("  node b  FAILED  exit code 1"), "{}", ended.err);
    assert!(ended.err.contains("error: the deploy of x failed: 1 of 2 nodes failed\n"), "{}", ended.err);
    assert!(ended.out.contains("NODE  KIND"), "the lab is shown as it is: {}", ended.out);
}

#[tokio::test]
async fn a_file_with_errors_is_not_sent() {
    let fake = Fake::start(Script::default()).await;
    fake.write("x.clab.yml", "name: x\ntopology:\n  nodes:\n    a: {kind: linus, image: a:1}\n");
    let ended = fake.run(&["deploy"]).await.expect(5);
    assert!(ended.err.contains("x.clab.yml:4:"), "{}", ended.err);
    assert!(ended.err.contains("^\n"), "{}", ended.err);
    assert!(!fake.methods().contains(&"ImportLab"));
    assert_eq!(fake.run(&["deploy", "-t", "missing.clab.yml"]).await.code, 5);
}

#[tokio::test]
async fn what_the_server_refuses_is_printed_field_by_field() {
    let failure = Failure::new(Code::InvalidArgument, "TOPOLOGY_INVALID", "the topology cannot be used")
        .violation("x.clab.yml:4:8", "image a:1 is not known")
        .violation("x.clab.yml:5:8", "nor is this");
    let fake = Fake::start(Script { import: Some(Err(to_status(failure))), ..Script::default() }).await;
    fake.write("x.clab.yml", LAB);
    let ended = fake.run(&["plan"]).await.expect(5);
    let said = "error: the topology cannot be used [TOPOLOGY_INVALID]\n  x.clab.yml:4:8: image a:1 is not known\n  x.clab.yml:5:8: nor is this\n";
    assert!(ended.err.ends_with(said), "{}", ended.err);
}

#[tokio::test]
async fn plan_changes_nothing_and_reads_standard_input() {
    let planned = api::Operation { name: String::new(), done: true, ..running(Vec::new()) };
    let fake = Fake::start(Script { import: Some(Ok(planned)), ..Script::default() }).await;
    let ended = fake.run_with_input(&["plan", "-t", "-"], LAB.as_bytes()).await.expect(0);
    assert!(ended.out.ends_with("Plan: 3 to make, 0 to change, 0 to remove\n"), "{}", ended.out);
    assert!(fake.script().imported.as_ref().unwrap().validate_only);
    assert!(!fake.methods().contains(&"WatchOperation"));

    let json = fake.run_with_input(&["plan", "-t", "-", "--format", "json"], LAB.as_bytes()).await.expect(0);
    let value: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(value["plan"]["actions"][0]["verb"], "ACTION_VERB_CREATE");
}

#[tokio::test]
async fn a_plan_of_what_would_be_refused_is_shown_and_fails() {
    let failure = Failure::new(Code::ResourceExhausted, "LAB_DOES_NOT_FIT", "1 of 2 nodes fit on no host");
    let mut planned = api::Operation { name: String::new(), done: true, ..running(Vec::new()) };
    planned.state = api::OperationState::Failed.into();
    planned.error = Some(to_rpc_status(&failure));
    let plan = planned.plan.as_mut().unwrap();
    plan.unplaced = vec![api::Unplaced { node: "b".into(), rejections: Vec::new() }];
    plan.placements = vec![api::Placement {
        node: "a".into(),
        host: "local".into(),
        others: vec![api::HostRejection {
            host: "h2".into(),
            code: "HOST_UNKNOWN".into(),
            detail: "is not heard of".into(),
            resolvable: true,
        }],
    }];
    plan.cut_links = vec!["a:eth1--b:eth1".into()];
    let fake = Fake::start(Script { import: Some(Ok(planned)), ..Script::default() }).await;
    fake.write("x.clab.yml", LAB);
    let ended = fake.run(&["plan", "--exit-code"]).await.expect(1);
    assert!(
        ended.out.ends_with("1 that fit nowhere\nLinks between hosts: a:eth1--b:eth1\n"),
        "{}",
        ended.out
    );
    assert!(
        ended.err.ends_with("error: a deploy would be refused: 1 of 2 nodes fit on no host\n"),
        "{}",
        ended.err
    );
    let ended = fake.run(&["plan", "--why"]).await.expect(1);
    let said = "Node a goes to local\n  not to h2: is not heard of [HOST_UNKNOWN]\n";
    assert!(ended.out.contains(said), "{}", ended.out);
}

#[tokio::test]
async fn json_is_alone_on_standard_output() {
    let fake = Fake::start(script(vec![succeeded()])).await;
    fake.write("x.clab.yml", LAB);
    let ended = fake.run(&["deploy", "--format", "json"]).await.expect(0);
    let value: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(value["state"], "OPERATION_STATE_SUCCEEDED");
    assert!(ended.err.contains("node a  CREATING"), "{}", ended.err);
}

#[tokio::test]
async fn a_server_that_restarts_is_asked_again() {
    let mut script = script(vec![succeeded()]);
    script.watches.insert(0, (Vec::new(), Some(tonic::Status::unavailable("connection reset"))));
    let fake = Fake::start(script).await;
    fake.write("x.clab.yml", LAB);
    fake.run(&["deploy"]).await.expect(0);
    assert_eq!(fake.methods().iter().filter(|m| **m == "WatchOperation").count(), 2);
}

fn active() -> tonic::Status {
    let failure = Failure::new(Code::FailedPrecondition, "OPERATION_ACTIVE", "lab x is being deployed");
    to_status(failure.with("operation", "1").with("lab", "x"))
}

#[tokio::test]
async fn a_deploy_under_way_is_followed_and_the_file_applied_again() {
    let done = api::Operation { plan: Some(api::Plan::default()), progress: Vec::new(), ..succeeded() };
    let fake = Fake::start(Script {
        import_refusals: vec![active()],
        import: Some(Ok(done)),
        operation: Some(running(vec![progress("node", "a", "PULLING", "")])),
        ..script(vec![succeeded()])
    })
    .await;
    fake.write("x.clab.yml", LAB);
    let ended = fake.run(&["deploy"]).await.expect(0);
    assert!(ended.out.starts_with("Lab x is being deployed already: follows that deploy"), "{}", ended.out);
    assert!(
        ended.out.contains("node a  PULLING\n") && ended.out.contains("node a  READY\n"),
        "{}",
        ended.out
    );
    assert!(ended.out.contains("\nNothing to do: lab x is as x.clab.yml says\n"), "{}", ended.out);
    let script = fake.script();
    let called = |method: &str| {
        script.calls.iter().filter(|c| c.method == method).map(|c| c.what.clone()).collect::<Vec<_>>()
    };
    assert_eq!(called("ImportLab").len(), 2);
    assert_eq!(
        (called("GetOperation"), called("WatchOperation")),
        (vec!["operations/1".to_owned()], vec!["operations/1".to_owned()])
    );
}

#[tokio::test]
async fn a_deploy_that_cannot_be_followed_is_refused() {
    let removal = api::Operation { kind: api::OperationKind::Destroy.into(), ..running(Vec::new()) };
    let fake = Fake::start(Script {
        import_refusals: vec![active(), active()],
        operation: Some(removal),
        ..Script::default()
    })
    .await;
    fake.write("x.clab.yml", LAB);
    for command in ["deploy", "plan"] {
        let ended = fake.run(&[command]).await.expect(1);
        assert!(
            ended.err.contains("[OPERATION_ACTIVE]\nhint: ") && ended.err.contains("inspect x "),
            "{}",
            ended.err
        );
    }
    assert!(!fake.methods().contains(&"WatchOperation"));
}

#[tokio::test]
async fn an_operation_that_is_gone_is_not_waited_for() {
    let mut script = script(Vec::new());
    script.watches = vec![(Vec::new(), Some(refused(Code::NotFound, "OPERATION_NOT_FOUND", "it is gone")))];
    let fake = Fake::start(script).await;
    fake.write("x.clab.yml", LAB);
    let ended = fake.run(&["deploy"]).await.expect(4);
    assert!(ended.err.contains("OPERATION_NOT_FOUND"), "{}", ended.err);
}

#[tokio::test]
async fn waiting_too_long_and_ctrl_c_leave_the_deploy_to_the_server() {
    let fake = Fake::start(script(Vec::new())).await;
    fake.write("x.clab.yml", LAB);
    let ended = fake.run(&["deploy", "--timeout", "1s"]).await.expect(1);
    assert!(ended.err.contains("goes on in the server"), "{}", ended.err);

    let mut child = fake.command(&["deploy"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    // The first line of progress: it waits for the operation now, and for the signal.
    while !lines.next_line().await.unwrap().expect("there is progress").contains("CREATING") {}
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap());
    // The signal is listened to from the first wait on, which is moments after that line.
    let waits = || async { fake.methods().ends_with(&["WatchOperation"]) };
    eventually("it watches the operation", BOUND, waits).await;
    kill(pid, Signal::SIGINT).unwrap();
    let output = tokio::time::timeout(BOUND, child.wait_with_output()).await.expect("it ends").unwrap();
    let ended = Ended::of(&output).expect(130);
    assert!(ended.err.contains("interrupted: detached;"), "{}", ended.err);
    assert!(ended.err.contains("netloom inspect x"), "{}", ended.err);
}

/// It removed what else ran in the lab without a word.
#[tokio::test]
async fn a_node_filter_that_removes_nodes_of_a_lab_has_to_be_meant() {
    let mut planned = running(Vec::new());
    let delete = api::Action {
        verb: api::ActionVerb::Delete.into(),
        object: "node".into(),
        id: "b".into(),
        reason: "the node filter leaves it out".into(),
        ..api::Action::default()
    };
    planned.plan = Some(api::Plan { actions: vec![delete], ..api::Plan::default() });
    let fake = Fake::start(Script { import: Some(Ok(planned)), ..script(vec![succeeded()]) }).await;
    fake.write("x.clab.yml", LAB);
    let filtered = ["deploy", "x.clab.yml", "--node-filter", "a"];
    let ended = fake.run(&filtered).await.expect(2);
    assert!(ended.err.contains("--node-filter leaves out 1 node that lab x has (b)"), "{}", ended.err);
    assert!(ended.err.contains("say --yes") && ended.out.is_empty(), "{} {}", ended.err, ended.out);
    assert!(fake.script().imported.take().unwrap().validate_only, "nothing was asked for");
    let ended = fake.run(&[&filtered[..], &["--yes"]].concat()).await.expect(0);
    assert!(ended.out.contains("- node b  the node filter leaves it out"), "{}", ended.out);
    // What removes no node is not asked about.
    fake.script().import = Some(Ok(running(Vec::new())));
    fake.script().watches = vec![(vec![succeeded()], None)];
    fake.run(&filtered).await.expect(0);
}

fn removing(nodes: &[&str]) -> api::Operation {
    let delete = |node: &&str| api::Action {
        verb: api::ActionVerb::Delete.into(),
        object: "node".into(),
        id: (*node).into(),
        ..api::Action::default()
    };
    let plan = api::Plan { actions: nodes.iter().map(delete).collect(), ..api::Plan::default() };
    api::Operation { plan: Some(plan), ..running(Vec::new()) }
}

/// The question was not asked when the server refused to plan: another operation was followed, and then the nodes were removed unasked.
#[tokio::test]
async fn a_node_filter_is_asked_about_again_after_another_operation_was_followed() {
    let fake = Fake::start(Script {
        import_refusals: vec![active()],
        import: Some(Ok(removing(&["b"]))),
        operation: Some(running(Vec::new())),
        ..script(vec![succeeded()])
    })
    .await;
    fake.write("x.clab.yml", LAB);
    let filtered = ["deploy", "x.clab.yml", "--node-filter", "a"];
    let ended = fake.run(&filtered).await.expect(2);
    assert!(ended.out.starts_with("Lab x is being deployed already: follows that deploy"), "{}", ended.out);
    assert!(ended.err.contains("--node-filter leaves out 1 node that lab x has (b)"), "{}", ended.err);
    let imports = || fake.methods().iter().filter(|m| **m == "ImportLab").count();
    assert_eq!(imports(), 2);
    assert!(fake.script().imported.take().unwrap().validate_only, "nothing was asked for");
    // Any other refusal is how it ends.
    fake.script().import_refusals =
        vec![refused(Code::Unavailable, "HOST_UNAVAILABLE", "no host is heard of")];
    let ended = fake.run(&filtered).await;
    assert!(ended.code != 0 && ended.err.contains("HOST_UNAVAILABLE"), "{}", ended.err);
    assert_eq!(imports(), 3);
    assert!(fake.script().imported.take().unwrap().validate_only, "nothing was asked for");
}

/// Nodes that the file has no more were counted as left out by the filter, and what is said of the file was said for each request.
#[tokio::test]
async fn a_node_filter_is_not_blamed_for_what_the_file_dropped_and_warns_once() {
    let fake =
        Fake::start(Script { import: Some(Ok(removing(&["b", "c"]))), ..script(vec![succeeded()]) }).await;
    let text = LAB.replace("a: {kind: linux,", "a: {kind: linux, position: here,");
    fake.write("x.clab.yml", &text);
    let filtered = ["deploy", "x.clab.yml", "--node-filter", "a"];
    let ended = fake.run(&filtered).await.expect(2);
    assert!(ended.err.contains("leaves out 1 node that lab x has (b):"), "{}", ended.err);
    fake.script().import = Some(Ok(removing(&["c"])));
    let ended = fake.run(&filtered).await.expect(0);
    assert_eq!(fake.methods().iter().filter(|m| **m == "ImportLab").count(), 3);
    assert_eq!(ended.err.matches("warning: ").count(), 1, "{}", ended.err);
}

#[tokio::test]
async fn inspect_shows_one_lab_or_all() {
    let fake = Fake::start(script(Vec::new())).await;
    let json = fake.run(&["inspect", "x", "--format", "json"]).await.expect(0);
    let value: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(
        (&value["lab"]["nodeCount"], &value["nodes"][1]["name"]),
        (&2.into(), &"labs/x/nodes/b".into())
    );
    assert_eq!(value["links"][0]["state"], "LINK_STATE_UP");

    let all = fake.run(&["inspect", "--all"]).await.expect(0);
    assert!(all.out.contains("LAB  NODE  KIND"), "{}", all.out);
    // Without a name it is the lab of the file.
    fake.write("x.clab.yml", LAB);
    assert!(fake.run(&["inspect"]).await.expect(0).out.starts_with("LAB  STATE"));

    // One node of it, with the links that end there.
    let json = fake.run(&["inspect", "x", "b", "--format", "json"]).await.expect(0).out;
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["nodes"].as_array().map(Vec::len), Some(1), "{value}");
    assert_eq!(
        (&value["nodes"][0]["name"], &value["links"][0]["a"]["node"]),
        (&"labs/x/nodes/b".into(), &"a".into())
    );
    let none = fake.run(&["inspect", "x", "c"]).await.expect(4);
    assert!(none.err.contains("lab x has no node \"c\" [NODE_NOT_FOUND]"), "{}", none.err);

    let missing = fake.run(&["inspect", "nowhere"]).await.expect(4);
    assert!(missing.err.contains("[LAB_NOT_FOUND]\nhint: "), "{}", missing.err);
}

/// All that a deploy writes to a terminal of so many rows.
async fn deploy_on_terminal(fake: &Fake, rows: u16) -> String {
    let size = Winsize { ws_row: rows, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = openpty(Some(&size), None).unwrap();
    let mut command = fake.command(&["deploy"]);
    let mut child = command.stdout(terminal.slave).spawn().unwrap();
    // The command keeps its copy of the terminal until it is dropped.
    drop(command);
    let reader = std::thread::spawn(move || {
        let mut seen = Vec::new();
        // The end of a terminal is an error (EIO) that comes after everything that was written.
        let _ = std::io::Read::read_to_end(&mut std::fs::File::from(terminal.master), &mut seen);
        String::from_utf8_lossy(&seen).into_owned()
    });
    let status = tokio::time::timeout(BOUND, child.wait()).await.expect("it ends").unwrap();
    let seen = reader.join().unwrap();
    assert!(status.success(), "{seen}");
    seen
}

#[tokio::test]
async fn on_a_terminal_progress_is_drawn_in_place() {
    let half = running(vec![progress("node", "a", "READY", ""), progress("node", "b", "STARTING", "")]);
    let fake = Fake::start(script(vec![half, succeeded()])).await;
    fake.write("x.clab.yml", LAB);
    let seen = deploy_on_terminal(&fake, 24).await;
    assert!(seen.contains("nodes 1/2") && seen.contains("nodes 2/2  links 1/1"), "{seen}");
    // Three lines are drawn over, and at last wiped: only the tables stay.
    assert!(seen.contains("\u{1b}[3A\r\u{1b}[J"), "{seen:?}");
    assert!(seen.contains("\u{1b}[32mREADY\u{1b}[0m"), "{seen:?}");
    assert!(seen.trim_end().lines().last().unwrap().contains("Deployed x in "), "{seen}");
}

#[tokio::test]
async fn on_a_small_terminal_progress_never_scrolls() {
    let states = |state| (0..30).map(|i| progress("node", &format!("n{i}"), state, "")).collect::<Vec<_>>();
    let done = api::Operation { progress: states("READY"), ..succeeded() };
    let fake = Fake::start(script(vec![running(states("STARTING")), done])).await;
    fake.write("x.clab.yml", LAB);
    let seen = deploy_on_terminal(&fake, 8).await;
    // How far each frame goes up is how tall the one before was.
    let up = |part: &str| part.split_once('A').and_then(|(rows, _)| rows.parse::<usize>().ok());
    let heights: Vec<usize> = seen.split("\u{1b}[").filter_map(up).collect();
    assert!(heights.contains(&7) && heights.iter().all(|rows| *rows < 8), "{heights:?}");
    assert!(seen.contains("… and 25 more"), "{seen}");
}
