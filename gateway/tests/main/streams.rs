//! Streams: watches, waiting for operations, and byte streams to a node's host.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use netloom_api::v1;
use netloom_api::v1::open_shell_request::Part as Typed;
use netloom_api::v1::open_shell_response::Part as Shown;
use netloom_proto::compute::v1 as pc;
use netloom_proto::scheduler::v1 as ps;
use netloom_service::testing::eventually;
use serde_json::{Value, json};

use crate::fake::{SEQUENCE, World, event, heartbeat};
use crate::fixture::RUNNING;
use crate::rig::{BOUND, Rig};

fn json_of(message: &prost_reflect::DynamicMessage) -> Value {
    serde_json::to_value(crate::reflect::Json(message)).unwrap()
}

#[tokio::test]
async fn a_watch_is_a_snapshot_then_changes() {
    let rig = Rig::new().await;
    let events: Vec<Value> = rig
        .grpc_messages("LabService/WatchLabs", &json!({"name": "labs/mixed"}), 19)
        .await
        .iter()
        .map(json_of)
        .collect();
    let types: Vec<&str> = events.iter().map(|e| e["type"].as_str().unwrap()).collect();
    assert_eq!(types[..14], ["WATCH_EVENT_TYPE_SNAPSHOT"; 14]);
    assert_eq!(types[14], "WATCH_EVENT_TYPE_SNAPSHOT_END");
    assert_eq!(types[15..18], ["WATCH_EVENT_TYPE_CHANGED"; 3]);
    assert_eq!(types[18], "WATCH_EVENT_TYPE_DELETED");
    let number = SEQUENCE.to_string();
    assert!(events[..15].iter().all(|e| e["sequence"] == number.as_str()));
    assert_eq!(events[18]["sequence"], "45");
    assert!(events[14].get("lab").is_none() && events[0]["lab"]["name"] == "labs/mixed");

    // From a number on there is no snapshot.
    let resumed = rig.grpc_messages("LabService/WatchLabs", &json!({"since": "43"}), 2).await;
    let resumed: Vec<Value> = resumed.iter().map(json_of).collect();
    assert_eq!((&resumed[0]["sequence"], &resumed[1]["sequence"]), (&json!("44"), &json!("45")));
    let failure = rig.grpc_failure("LabService/WatchLabs", &json!({"since": "1"})).await;
    assert_eq!(failure.reason, "RELIST_NEEDED");
}

#[tokio::test]
async fn heartbeats_and_operations_are_told_too() {
    let rig = Rig::new().await;
    rig.world.script.lock().unwrap().clear();
    let mut events = rig.grpc("LabService/WatchLabs", &json!({"name": "labs/busy"})).await.unwrap();
    let mut next =
        async || json_of(&tokio::time::timeout(BOUND, events.message()).await.unwrap().unwrap().unwrap());
    assert_eq!(next().await["lab"]["name"], "labs/busy");
    assert_eq!(next().await["node"]["name"], "labs/busy/nodes/c1");
    assert_eq!(next().await["type"], "WATCH_EVENT_TYPE_SNAPSHOT_END");
    rig.world.events.send(heartbeat(47)).unwrap();
    let beat = next().await;
    assert_eq!((&beat["type"], &beat["sequence"]), (&json!("WATCH_EVENT_TYPE_HEARTBEAT"), &json!("47")));
    rig.world.set_operation(RUNNING, v1::OperationState::Succeeded);
    let change = next().await;
    assert_eq!(
        (&change["operation"]["done"], &change["operation"]["name"]),
        (&json!(true), &json!(format!("operations/{RUNNING}")))
    );
}

#[tokio::test]
async fn a_watcher_that_does_not_read_is_held_back() {
    let world = World::new();
    let many = 10_000;
    let node = world.nodes[1].clone();
    *world.script.lock().unwrap() =
        (0..many).map(|i| event(100 + i, "mixed", ps::watch_response::Object::Node(node.clone()))).collect();
    let rig = Rig::with(world, "").await;
    let watching = rig.send("GET", "/v1/labs/mixed:watch?since=50", &[], Vec::new()).await;
    // The level to wait for: the number handed out stops growing.
    let taken = || rig.world.watched.load(Ordering::Relaxed);
    let mut last = (usize::MAX, Instant::now());
    eventually("the scheduler's stream is held back", BOUND, || {
        if taken() != last.0 {
            last = (taken(), Instant::now());
        }
        let still = last.0 > 0 && last.1.elapsed() > Duration::from_millis(500);
        async move { still }
    })
    .await;
    assert!(taken() < many as usize, "all {many} events were taken, although nobody reads");
    // And nothing was lost.
    let lines = rig.lines(watching, many as usize).await;
    let last: Value = serde_json::from_str(&lines[many as usize - 1]).unwrap();
    assert_eq!(last["result"]["sequence"], (100 + many - 1).to_string());
}

#[tokio::test]
async fn a_watch_ends_when_its_watcher_goes() {
    let rig = Rig::new().await;
    let watching = rig.send("GET", "/v1/labs:watch", &[], Vec::new()).await;
    assert_eq!(rig.world.events.receiver_count(), 1);
    drop(watching);
    eventually("the scheduler's stream is closed", BOUND, || async {
        rig.world.events.receiver_count() == 0
    })
    .await;
}

#[tokio::test]
async fn waiting_ends_with_the_operation_or_the_time() {
    let rig = Rig::new().await;
    let path = format!("/v1/operations/{RUNNING}:wait");
    let begin = Instant::now();
    let answer = rig.post(&path, r#"{"timeout":"0.2s"}"#).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["done"]), (200, &json!(false)), "{}", answer.text);
    assert!(begin.elapsed() >= Duration::from_millis(200));
    let answer = rig.post(&path, r#"{"timeout":"-1s"}"#).await;
    assert_eq!(answer.status, 400);

    let finish = async {
        eventually("somebody waits", BOUND, || async { rig.world.events.receiver_count() > 0 }).await;
        rig.world.set_operation(RUNNING, v1::OperationState::Succeeded);
    };
    let (answer, ()) = tokio::join!(rig.post(&path, r#"{"timeout":"600s"}"#), finish);
    let operation = answer.json();
    assert_eq!((&operation["done"], &operation["lab"]["name"]), (&json!(true), &json!("labs/busy")));
    // An operation that is over needs no waiting.
    assert_eq!(rig.post(&path, "").await.json()["done"], true);
    assert_eq!(rig.post("/v1/operations/019aa000-0000-7000-8000-00000000ffff:wait", "{}").await.status, 404);
}

/// It lagged by up to a heartbeat, 5 s: only events of the operation itself were heard.
#[tokio::test]
async fn progress_is_as_prompt_as_what_happens_in_the_lab() {
    let rig = Rig::new().await;
    rig.world.script.lock().unwrap().clear();
    let request = json!({"name": format!("operations/{RUNNING}")});
    let mut changes = rig.grpc("OperationService/WatchOperation", &request).await.unwrap();
    let mut next =
        async || json_of(&tokio::time::timeout(BOUND, changes.message()).await.unwrap().unwrap().unwrap());
    assert_eq!(next().await["state"], "OPERATION_STATE_RUNNING");
    eventually("it is watched", BOUND, || async { rig.world.events.receiver_count() > 0 }).await;
    // A hundred at once are read once or twice, and no heartbeat comes.
    let node = rig.world.nodes.iter().find(|n| n.spec.as_ref().unwrap().id == "c1").unwrap().clone();
    let reads = rig.world.read_operations.load(Ordering::Relaxed);
    for (n, state) in ["PULLING", "READY"].into_iter().enumerate() {
        rig.world.operations.lock().unwrap().get_mut(RUNNING).unwrap().progress[0].state = state.into();
        for i in 0..100 {
            let number = 48 + 100 * n as u64 + i;
            let event = event(number, "busy", ps::watch_response::Object::Node(node.clone()));
            rig.world.events.send(event).unwrap();
        }
        assert_eq!(next().await["progress"][0]["state"], state);
    }
    let reads = rig.world.read_operations.load(Ordering::Relaxed) - reads;
    assert!((2..8).contains(&reads), "read {reads} times for 200 events");
}

#[tokio::test]
async fn an_operation_is_watched_until_it_is_over() {
    let rig = Rig::new().await;
    let mut changes = rig
        .grpc("OperationService/WatchOperation", &json!({"name": format!("operations/{RUNNING}")}))
        .await
        .unwrap();
    let first = tokio::time::timeout(BOUND, changes.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(json_of(&first)["state"], "OPERATION_STATE_RUNNING");
    eventually("it is watched", BOUND, || async { rig.world.events.receiver_count() > 0 }).await;
    // A change that no event tells of is seen at the next heartbeat.
    rig.world.operations.lock().unwrap().get_mut(RUNNING).unwrap().progress[0].state = "GONE".into();
    rig.world.events.send(heartbeat(48)).unwrap();
    let second = tokio::time::timeout(BOUND, changes.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(json_of(&second)["progress"][0]["state"], "GONE");
    rig.world.set_operation(RUNNING, v1::OperationState::Cancelled);
    let third = tokio::time::timeout(BOUND, changes.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(
        (&json_of(&third)["done"], &json_of(&third)["state"]),
        (&json!(true), &json!("OPERATION_STATE_CANCELLED"))
    );
    assert!(tokio::time::timeout(BOUND, changes.message()).await.unwrap().unwrap().is_none());
}

#[tokio::test]
async fn a_command_runs_at_the_nodes_host() {
    let rig = Rig::new().await;
    let body = json!({"command": ["cat"], "stdin": "aGk="});
    let answer = rig.post("/v1/labs/mixed/nodes/r1:exec", &body.to_string()).await;
    let parts: Vec<Value> = answer.text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(
        parts,
        [
            json!({"result": {"stderr": "aGVsbG8K"}}),
            json!({"result": {"stdout": "aGk="}}),
            json!({"result": {"exitCode": 7}}),
        ]
    );
    let typed = rig.world.typed.lock().unwrap().clone();
    let Some(pc::exec_request::Part::Start(start)) = typed.first() else { panic!("{typed:?}") };
    assert_eq!(
        (start.uid.as_str(), start.ticket.as_str(), start.tty),
        ("uid of r1", "ticket for exec", false)
    );
    assert_eq!(start.command, ["cat"]);

    let answer = rig.post("/v1/labs/mixed/nodes/s1:exec", &body.to_string()).await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (400, "NODE_NOT_RUNNING"));
    let answer = rig.post("/v1/labs/mixed/nodes/v1:exec", &body.to_string()).await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (503, "SERVICE_UNREACHABLE"));
    assert!(answer.json()["message"].as_str().unwrap().contains("the compute service at mem:nowhere"));
}

#[tokio::test]
async fn a_node_tells_its_configuration_or_why_it_does_not() {
    let rig = Rig::new().await;
    let answer = rig.get("/v1/labs/mixed/nodes/r1:config").await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
    let config = answer.json();
    assert_eq!(config["name"], "labs/mixed/nodes/r1");
    assert_eq!(config["method"], "show 'running config'");
    assert_eq!(
        config["content"], "aG9zdG5hbWUgcjEK",
        "what it printed, without its warnings and what is no configuration"
    );
    assert!(config["readTime"].is_string());

    for (node, reason, part) in [
        ("h1", "CONFIG_NOT_SUPPORTED", "say save-file in the topology file"),
        ("s1", "NODE_NOT_RUNNING", "does not run"),
        ("r2", "RUNTIME_REFUSED", "no program fail"),
        ("r3", "CONFIG_FAILED", "silent printed nothing"),
        ("r4", "CONFIG_FAILED", "longer than 4194304 bytes"),
        ("r5", "CONFIG_FAILED", "cat ended with exit code 7: hello"),
    ] {
        let answer = rig.get(&format!("/v1/labs/mixed/nodes/{node}:config")).await;
        assert_eq!(answer.reason(), reason, "{node}");
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(part), "{node}: {message}");
    }
}

#[tokio::test]
async fn logs_are_streamed_and_followed() {
    let rig = Rig::new().await;
    let answer = rig.get("/v1/labs/mixed/nodes/r1:logs?tail=5").await;
    assert_eq!(answer.text.lines().count(), 1);
    let line: Value = serde_json::from_str(&answer.text).unwrap();
    use base64::Engine as _;
    let said = base64::prelude::BASE64_STANDARD.decode(line["result"]["stdout"].as_str().unwrap()).unwrap();
    assert_eq!(said, b"uid of r1 ticket for logs 5\n");
    let after = "2026-11-26T08:00:00.123456789Z";
    let later = rig.get(&format!("/v1/labs/mixed/nodes/r1:logs?after={after}")).await;
    let line: Value = serde_json::from_str(&later.text).unwrap();
    assert_eq!(
        line["result"]["writeTime"],
        after.replace("789Z", "790Z"),
        "it is what a stream goes on after"
    );
    let following = rig.send("GET", "/v1/labs/mixed/nodes/r1:logs?follow=true", &[], Vec::new()).await;
    assert_eq!(rig.lines(following, 1).await.len(), 1);
}

/// A request to open a terminal that sends these messages and then stays open, or not.
fn shell(
    rig: &Rig,
    messages: Vec<Typed>,
    open: bool,
) -> tonic::Request<futures::stream::BoxStream<'static, v1::OpenShellRequest>> {
    let messages =
        futures::stream::iter(messages.into_iter().map(|part| v1::OpenShellRequest { part: Some(part) }));
    let stream = if open { messages.chain(futures::stream::pending()).boxed() } else { messages.boxed() };
    let mut request = tonic::Request::new(stream);
    request.metadata_mut().insert("authorization", format!("Bearer {}", rig.token).parse().unwrap());
    request
}

#[tokio::test]
async fn a_terminal_goes_both_ways() {
    let rig = Rig::new().await;
    let mut nodes = v1::node_service_client::NodeServiceClient::new(rig.channel.clone());
    let size = |columns| v1::ShellSize { columns, rows: 24 };
    let start =
        v1::ShellStart { name: "labs/mixed/nodes/r1".into(), command: Vec::new(), size: Some(size(80)) };
    let typed = vec![Typed::Start(start.clone()), Typed::Input(b"ls\n".to_vec()), Typed::Resize(size(100))];
    let shown = nodes.open_shell(shell(&rig, typed, false)).await.unwrap().into_inner();
    let shown: Vec<_> = shown.map(|m| m.unwrap().part.unwrap()).collect().await;
    assert_eq!(
        shown,
        [Shown::Output(b"hello\n".to_vec()), Shown::Output(b"ls\n".to_vec()), Shown::ExitCode(7)]
    );
    let told = rig.world.typed.lock().unwrap().clone();
    let Some(pc::exec_request::Part::Start(first)) = told.first() else { panic!("{told:?}") };
    assert_eq!(
        (first.tty, first.command.clone(), first.size.unwrap().columns),
        (true, vec!["/bin/sh".to_owned()], 80)
    );
    assert!(matches!(told[2], pc::exec_request::Part::Resize(pc::ExecSize { columns: 100, .. })), "{told:?}");

    let without = nodes.open_shell(shell(&rig, vec![Typed::Input(b"x".to_vec())], true)).await.unwrap_err();
    assert_eq!(without.code(), tonic::Code::InvalidArgument);

    // The gateway's end is the terminal's, and is told as one.
    let mut open = nodes.open_shell(shell(&rig, vec![Typed::Start(start)], true)).await.unwrap().into_inner();
    assert!(open.message().await.unwrap().is_some());
    rig.shutdown.cancel();
    let end = tokio::time::timeout(BOUND, open.message()).await.unwrap().unwrap_err();
    assert_eq!(end.code(), tonic::Code::Unavailable, "{end}");
}

#[tokio::test]
async fn a_console_goes_both_ways() {
    use v1::open_console_request::Part as Given;
    use v1::open_console_response::Part as Told;
    let rig = Rig::new().await;
    let mut nodes = v1::node_service_client::NodeServiceClient::new(rig.channel.clone());
    let with = |messages: Vec<Given>| {
        let messages = messages.into_iter().map(|part| v1::OpenConsoleRequest { part: Some(part) });
        let mut request = tonic::Request::new(futures::stream::iter(messages.collect::<Vec<_>>()));
        request.metadata_mut().insert("authorization", format!("Bearer {}", rig.token).parse().unwrap());
        request
    };
    let start = v1::ConsoleStart { name: "labs/mixed/nodes/r1".into(), read_only: false, take: true };
    let given = vec![Given::Start(start.clone()), Given::Input(b"ls\n".to_vec()), Given::Start(start)];
    let told = nodes.open_console(with(given)).await.unwrap().into_inner();
    let told: Vec<_> = told.map(|m| m.unwrap().part.unwrap()).collect().await;
    let event = |event: v1::ConsoleEvent| Told::Event(event.into());
    let expected = [
        event(v1::ConsoleEvent::Attached),
        Told::Output(b"uid of r1 ticket for console false true".to_vec()),
        Told::Output(b"ls\n".to_vec()),
        event(v1::ConsoleEvent::Ended),
    ];
    assert_eq!(told, expected);
    let without = nodes.open_console(with(vec![Given::Input(b"x".to_vec())])).await.unwrap_err();
    assert_eq!(without.code(), tonic::Code::InvalidArgument);
    let answer = rig.http("POST", "/v1/console:open", &[], "{}").await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (501, "BIDI_NEEDS_GRPC"));
}

#[tokio::test]
async fn reflection_answers_in_both_versions() {
    let rig = Rig::new().await;
    macro_rules! services {
        ($version:ident) => {{
            use tonic_reflection::pb::$version as pb;
            let mut client = pb::server_reflection_client::ServerReflectionClient::new(rig.channel.clone());
            let question = pb::ServerReflectionRequest {
                message_request: Some(pb::server_reflection_request::MessageRequest::ListServices(
                    String::new(),
                )),
                ..Default::default()
            };
            let mut request = tonic::Request::new(futures::stream::iter([question]));
            request.metadata_mut().insert("authorization", format!("Bearer {}", rig.token).parse().unwrap());
            let answer = client
                .server_reflection_info(request)
                .await
                .unwrap()
                .into_inner()
                .message()
                .await
                .unwrap()
                .unwrap();
            format!("{answer:?}")
        }};
    }
    for said in [services!(v1), services!(v1alpha)] {
        for service in ["netloom.v1.LabService", "netloom.v1.OperationService", "grpc.health.v1.Health"] {
            assert!(said.contains(service), "{said}");
        }
    }
}
