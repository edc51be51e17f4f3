//! events, and inspect --watch.

use std::time::Duration;

use netloom_api::v1 as api;
use netloom_api::v1::watch_labs_response::Object;
use netloom_model::Code;
use netloom_service::testing::eventually;
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt as _;

use crate::fake::{Fake, Script, refused};

const BOUND: Duration = Duration::from_secs(30);

fn node(state: api::NodeState) -> Object {
    Object::Node(api::Node {
        name: "labs/x/nodes/r1".into(),
        uid: "u1".into(),
        kind: "frr".into(),
        state: state.into(),
        ..api::Node::default()
    })
}

fn lab() -> Object {
    Object::Lab(api::Lab {
        name: "labs/x".into(),
        uid: "u0".into(),
        state: api::LabState::Running.into(),
        ..api::Lab::default()
    })
}

fn event(kind: api::WatchEventType, sequence: u64, object: Option<Object>) -> api::WatchLabsResponse {
    api::WatchLabsResponse { sequence, r#type: kind.into(), object, ..Default::default() }
}

fn snapshot(sequence: u64, state: api::NodeState) -> Vec<api::WatchLabsResponse> {
    vec![
        event(api::WatchEventType::Snapshot, sequence, Some(lab())),
        event(api::WatchEventType::Snapshot, sequence, Some(node(state))),
        event(api::WatchEventType::SnapshotEnd, sequence, None),
    ]
}

fn changed(sequence: u64, state: api::NodeState) -> api::WatchLabsResponse {
    event(api::WatchEventType::Changed, sequence, Some(node(state)))
}

/// Runs a program that has no end until the server was asked so often, ends it with Ctrl-C, and returns what it printed.
async fn until_asked(fake: &Fake, args: &[&str], times: usize) -> (Vec<String>, String) {
    let mut child = fake.command(args).spawn().unwrap();
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let calls = || async { fake.methods().iter().filter(|m| **m == "WatchLabs").count() >= times };
    eventually("the server is asked", BOUND, calls).await;
    // What the last stream says is read when the line about its last event is there.
    let mut out = String::new();
    let mut buffer = [0; 4_096];
    while !out.contains("LAST") && !out.contains("last-host") {
        let read =
            tokio::time::timeout(BOUND, stdout.read(&mut buffer)).await.expect("it says the last").unwrap();
        assert!(read > 0, "it ended: {out}");
        out.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    kill(Pid::from_raw(child.id().unwrap().cast_signed()), Signal::SIGINT).unwrap();
    let status = tokio::time::timeout(BOUND, child.wait()).await.expect("it ends").unwrap();
    assert_eq!(status.code(), Some(0), "who ends what has no end did not fail");
    let mut err = String::new();
    stderr.read_to_string(&mut err).await.unwrap();
    (
        out.lines()
            .map(|l| l.get(10..).unwrap_or(l).split_whitespace().collect::<Vec<_>>().join(" "))
            .collect(),
        err,
    )
}

/// The event after which a test has seen enough.
fn last(sequence: u64) -> api::WatchLabsResponse {
    let node = api::Node {
        name: "labs/x/nodes/r1".into(),
        uid: "u1".into(),
        kind: "frr".into(),
        state: api::NodeState::Ready.into(),
        state_reason: "LAST".into(),
        host: "hosts/last-host".into(),
        ..api::Node::default()
    };
    event(api::WatchEventType::Changed, sequence, Some(Object::Node(node)))
}

#[tokio::test]
async fn a_snapshot_and_then_what_changes() {
    let mut events = snapshot(7, api::NodeState::Starting);
    events.push(changed(8, api::NodeState::Running));
    events.push(event(api::WatchEventType::Heartbeat, 8, None));
    events.push(last(9));
    let fake = Fake::start(Script { lab_watches: vec![(events, None)], ..Script::default() }).await;
    let (lines, err) = until_asked(&fake, &["events", "x"], 1).await;
    assert_eq!(
        lines[..3],
        ["7 lab x RUNNING", "7 node x/r1 STARTING", "8 node x/r1 STARTING → RUNNING"],
        "{lines:?}"
    );
    assert!(lines[3].starts_with("9 node x/r1 RUNNING → READY: LAST, host - → hosts/last-host"), "{lines:?}");
    assert_eq!(err, "");
    assert_eq!(fake.script().calls[0].what, "labs/x since=0");
    let (lines, _) = until_asked(&fake, &["events", "--no-snapshot", "--since", "6"], 2).await;
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(fake.script().calls[1].what, " since=6");
}

#[tokio::test]
async fn a_server_that_went_away_is_asked_for_what_came_after() {
    let mut first = snapshot(7, api::NodeState::Starting);
    first.push(changed(8, api::NodeState::Running));
    let cut = || Some(tonic::Status::unavailable("connection reset"));
    let watches = vec![(first, cut()), (vec![], cut()), (vec![last(9)], None)];
    let fake = Fake::start(Script { lab_watches: watches, ..Script::default() }).await;
    let (lines, err) = until_asked(&fake, &["events"], 3).await;
    assert!(lines[3].starts_with("9 node x/r1 RUNNING → READY"), "what was known is known still: {lines:?}");
    let asked: Vec<String> = fake.script().calls.iter().map(|c| c.what.clone()).collect();
    assert_eq!(asked, [" since=0", " since=8", " since=8"]);
    assert!(
        err.contains("the server went away (connection reset)")
            && err.contains("goes on after the last event"),
        "{err}"
    );
}

#[tokio::test]
async fn events_that_are_no_longer_there_begin_anew() {
    let relist = refused(Code::OutOfRange, "RELIST_NEEDED", "too old");
    let mut fresh = snapshot(50, api::NodeState::Running);
    fresh.push(last(51));
    let half = snapshot(20, api::NodeState::Starting)[..2].to_vec();
    let cut = tonic::Status::unavailable("connection reset");
    let watches = vec![(vec![], Some(relist)), (half, Some(cut)), (fresh, None)];
    let fake = Fake::start(Script { lab_watches: watches, ..Script::default() }).await;
    let (lines, err) = until_asked(&fake, &["events", "--since", "3"], 3).await;
    let asked: Vec<String> = fake.script().calls.iter().map(|c| c.what.clone()).collect();
    assert_eq!(
        asked,
        [" since=3", " since=0", " since=0"],
        "of half a snapshot there is nothing to go on after"
    );
    assert!(lines.iter().any(|l| l == "50 node x/r1 RUNNING"), "{lines:?}");
    assert!(err.contains("a new snapshot follows"), "{err}");
}

#[tokio::test]
async fn json_is_a_message_a_line_and_a_refusal_ends_it() {
    let mut events = snapshot(7, api::NodeState::Starting);
    events.push(event(api::WatchEventType::Heartbeat, 7, None));
    events.push(last(8));
    let fake = Fake::start(Script { lab_watches: vec![(events, None)], ..Script::default() }).await;
    let mut child = fake.command(&["events", "--format", "json"]).spawn().unwrap();
    let mut lines =
        tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(child.stdout.take().unwrap()));
    let mut kinds = Vec::new();
    for _ in 0..4 {
        let line = tokio::time::timeout(BOUND, lines.next_line()).await.expect("a line").unwrap().unwrap();
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        kinds.push(value["type"].as_str().unwrap().trim_start_matches("WATCH_EVENT_TYPE_").to_owned());
    }
    assert_eq!(kinds, ["SNAPSHOT", "SNAPSHOT", "SNAPSHOT_END", "CHANGED"]);
    drop(child);
    let no_lab = refused(Code::NotFound, "LAB_NOT_FOUND", "there is no lab y");
    fake.script().lab_watches = vec![(vec![], Some(no_lab))];
    let ended = fake.run(&["events", "y"]).await.expect(4);
    assert!(ended.err.contains("[LAB_NOT_FOUND]\nhint: netloom inspect --all"), "{}", ended.err);
}

#[tokio::test]
async fn inspect_draws_anew_what_changes_and_ends_when_the_lab_is_gone() {
    let mut events = snapshot(7, api::NodeState::Starting);
    events.push(changed(8, api::NodeState::Running));
    let fake = Fake::start(Script { lab_watches: vec![(events, None)], ..Script::default() }).await;
    let size = Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = openpty(Some(&size), None).unwrap();
    let mut command = fake.command(&["inspect", "x", "--watch"]);
    let mut child = command.stdout(terminal.slave.try_clone().unwrap()).spawn().unwrap();
    drop(terminal.slave);
    drop(command);
    let master = std::fs::File::from(terminal.master);
    let mut reader = tokio::fs::File::from_std(master);
    let mut shown = String::new();
    let mut buffer = [0; 4_096];
    while !shown.contains("Ctrl-C ends this") {
        let read = tokio::time::timeout(BOUND, reader.read(&mut buffer)).await.expect("it draws").unwrap();
        shown.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    assert!(shown.contains("r1") && shown.contains("RUNNING") && shown.contains("NODES READY"), "{shown}");
    kill(Pid::from_raw(child.id().unwrap().cast_signed()), Signal::SIGINT).unwrap();
    let status = tokio::time::timeout(BOUND, child.wait()).await.expect("it ends").unwrap();
    assert_eq!(status.code(), Some(0));

    let mut events = snapshot(7, api::NodeState::Starting);
    events.push(event(api::WatchEventType::Deleted, 9, Some(lab())));
    fake.script().lab_watches = vec![(events, None)];
    let terminal = openpty(Some(&size), None).unwrap();
    let mut command = fake.command(&["inspect", "x", "--watch"]);
    let mut child = command.stdout(terminal.slave.try_clone().unwrap()).spawn().unwrap();
    let status = tokio::time::timeout(BOUND, child.wait()).await.expect("it ends").unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn inspect_without_a_terminal_tells_changes_line_by_line() {
    let mut events = snapshot(7, api::NodeState::Starting);
    events.push(last(8));
    let fake = Fake::start(Script { lab_watches: vec![(events, None)], ..Script::default() }).await;
    let (lines, _) = until_asked(&fake, &["inspect", "x", "--watch"], 1).await;
    assert_eq!(lines[1], "7 node x/r1 STARTING");
    let refused = fake.run(&["inspect", "x", "--watch", "--format", "json"]).await.expect(2);
    assert!(refused.err.contains("netloom events --format json"), "{}", refused.err);
}
