//! exec and logs in several nodes, save, inspect in its other forms.

use std::collections::HashMap;

use netloom_api::v1 as api;
use netloom_api::v1::exec_node_response::Part;
use netloom_model::Code;
use tonic::Status;

use crate::fake::{Fake, Script, refused};

fn node(id: &str, kind: &str) -> api::Node {
    let interface = api::Interface {
        name: "eth1".into(),
        guest_name: "eth1".into(),
        present: true,
        carrier: true,
        ..api::Interface::default()
    };
    api::Node {
        name: format!("labs/x/nodes/{id}"),
        kind: kind.into(),
        runtime: api::Runtime::Docker.into(),
        labels: HashMap::from([("site".to_owned(), id[1..].to_owned())]),
        interfaces: vec![interface],
        ..api::Node::default()
    }
}

fn part(part: Part) -> Result<api::ExecNodeResponse, tonic::Status> {
    Ok(api::ExecNodeResponse { part: Some(part) })
}

fn says(text: &str, code: i32) -> Vec<Result<api::ExecNodeResponse, tonic::Status>> {
    vec![part(Part::Stdout(text.as_bytes().to_vec())), part(Part::ExitCode(code))]
}

fn script() -> Script {
    let not_running = vec![Err(refused(Code::FailedPrecondition, "NODE_NOT_RUNNING", "r2 does not run"))];
    Script {
        labs: vec![api::Lab { name: "labs/x".into(), ..api::Lab::default() }],
        nodes: vec![node("r10", "frr"), node("r2", "frr"), node("h1", "linux")],
        exec: says("one\ntwo", 0),
        exec_in: HashMap::from([
            ("labs/x/nodes/r10".to_owned(), says("three\n", 7)),
            ("labs/x/nodes/r2".to_owned(), not_running),
        ]),
        ..Script::default()
    }
}

#[tokio::test]
async fn exec_in_many_nodes_shows_each_below_its_name() {
    let fake = Fake::start(script()).await;
    let ended = fake.run(&["exec", "x", "--all", "--", "true"]).await.expect(7);
    assert_eq!(ended.out, "== h1\none\ntwo\n== r2: r2 does not run\n== r10: exit code 7\nthree\n");
    assert_eq!(ended.err, "2 of 3 nodes failed: r2 (r2 does not run), r10 (exit code 7)\n");
    let ended = fake.run(&["exec", "x", "r1*", "h1", "--prefix", "--", "true"]).await.expect(7);
    let mut lines: Vec<&str> = ended.out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["h1  | one", "h1  | two", "r10 | three"]);
}

#[tokio::test]
async fn exec_in_many_nodes_tells_programs_each_outcome() {
    let fake = Fake::start(script()).await;
    let ended = fake.run(&["exec", "x", "--kind", "frr", "--format", "json", "--", "true"]).await.expect(7);
    let value: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(value["r10"], serde_json::json!({"stdout": "three\n", "stderr": "", "exit_code": 7}));
    assert!(value["r2"]["exit_code"].is_null());
    assert_eq!(value["r2"]["error"], "r2 does not run");
    assert_eq!(value.as_object().unwrap().len(), 2);
    fake.run(&["exec", "x", "r2", "--format", "json", "--", "true"]).await.expect(1);
    let one = fake.run(&["exec", "x", "--label", "site=1", "--format", "json", "--", "true"]).await.expect(0);
    assert!(one.out.contains("\"h1\""), "{}", one.out);
}

#[tokio::test]
async fn exec_hands_the_same_input_to_each() {
    let fake = Fake::start(script()).await;
    fake.run_with_input(&["exec", "x", "h1", "r10", "-i", "--", "cat"], b"typed").await.expect(7);
    let script = fake.script();
    let mut asked: Vec<&str> =
        script.calls.iter().filter(|c| c.method == "ExecNode").map(|c| c.what.as_str()).collect();
    asked.sort_unstable();
    assert_eq!(asked, ["labs/x/nodes/h1 [\"cat\"] typed", "labs/x/nodes/r10 [\"cat\"] typed"]);
}

#[tokio::test]
async fn a_command_in_all_nodes_has_to_be_meant() {
    let fake = Fake::start(script()).await;
    let ended = fake.run(&["exec", "x", "--", "true"]).await.expect(2);
    assert!(ended.err.contains("--all"), "{}", ended.err);
    let ended = fake.run(&["exec", "x", "z*", "--", "true"]).await.expect(4);
    assert!(ended.err.contains("no node of lab x"), "{}", ended.err);
    assert!(!fake.methods().contains(&"ExecNode"));
}

#[tokio::test]
async fn a_log_that_is_followed_goes_on_after_the_last_line_when_the_server_is_back() {
    let away = || Status::unavailable("the server is going away");
    let logs = vec![
        (vec![("one\n", 7), ("two\n", 8)], Some(away())),
        (Vec::new(), Some(refused(Code::FailedPrecondition, "NODE_NOT_RUNNING", "it is UNKNOWN"))),
        (vec![("three\n", 9)], None),
    ];
    let watches = vec![(Vec::new(), Some(away())), (Vec::new(), None)];
    let fake = Fake::start(Script { logs, lab_watches: watches, ..script() }).await;
    // The last stream ends, and the node is no more.
    let ended = fake.run(&["logs", "x", "gone", "-f", "--tail", "2"]).await.expect(0);
    assert_eq!(ended.out, "one\ntwo\nthree\n");
    assert!(
        ended.err.contains("note: the server went away (the server is going away); asks it again"),
        "{}",
        ended.err
    );
    assert!(ended.err.contains("note: the server is back: goes on after the last line"), "{}", ended.err);
    let calls = fake.script().calls.clone();
    let asked: Vec<&str> =
        calls.iter().filter(|c| c.method == "StreamLogs").map(|c| c.what.as_str()).collect();
    let after = "labs/x/nodes/gone follow=true tail=0 after=8";
    assert_eq!(asked, ["labs/x/nodes/gone follow=true tail=2", after, after]);
}

#[tokio::test]
async fn logs_of_many_have_the_name_before_each_line() {
    let fake = Fake::start(script()).await;
    let ended = fake.run(&["logs", "x", "r*", "--tail", "5"]).await.expect(0);
    let mut lines: Vec<&str> = ended.out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["r10 | hello", "r2  | hello"]);
    assert!(ended.err.contains("r10 | oops\n"), "{}", ended.err);
}

#[tokio::test]
async fn a_log_has_nothing_that_steers_a_terminal_unless_it_is_asked_for() {
    // As a serial console does it: in the middle of what steers, the next part comes.
    let said = || (vec![("\u{1b}[2J\u{1b}[1;1Hboots\u{1b}[", 1), ("0m\nlogin: \u{1b}[6n", 2)], None);
    let logs = vec![said(), said(), said()];
    let fake = Fake::start(Script { logs, ..script() }).await;
    assert_eq!(fake.run(&["logs", "x", "h1"]).await.expect(0).out, "boots\nlogin: ");
    let named = fake.run(&["logs", "x", "h*"]).await.expect(0);
    assert_eq!(named.out, "h1 | boots\nh1 | login: \n");
    let raw = fake.run(&["logs", "x", "h1", "--raw"]).await.expect(0).out;
    assert_eq!(raw, "\u{1b}[2J\u{1b}[1;1Hboots\u{1b}[0m\nlogin: \u{1b}[6n");
}

#[tokio::test]
async fn a_log_that_is_followed_says_when_a_node_is_started_again() {
    use api::watch_labs_response::Object;
    let started = |seconds, sequence| {
        let start_time = Some(prost_types::Timestamp { seconds, nanos: 0 });
        api::WatchLabsResponse {
            sequence,
            r#type: api::WatchEventType::Changed.into(),
            object: Some(Object::Node(api::Node { start_time, ..node("h1", "linux") })),
            ..Default::default()
        }
    };
    let watches = vec![(vec![started(1, 1), started(1, 2), started(9, 3)], None)];
    let fake = Fake::start(Script { lab_watches: watches, endless_logs: true, ..script() }).await;
    let mut child = fake.command(&["logs", "x", "h1", "-f"]).spawn().unwrap();
    let mut lines =
        tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(child.stderr.take().unwrap()));
    let bound = std::time::Duration::from_secs(30);
    let mut said = Vec::new();
    while said.len() < 2 {
        said.push(tokio::time::timeout(bound, lines.next_line()).await.expect("a line").unwrap().unwrap());
    }
    said.sort();
    assert!(said[0].starts_with("note: h1 was started again"), "{said:?}");
    assert_eq!(said[1], "oops");
}

#[tokio::test]
async fn nothing_to_save_leaves_no_directory_behind() {
    let refusal = Err(refused(Code::FailedPrecondition, "CONFIG_NOT_SUPPORTED", "no"));
    let nodes = ["h1", "r2", "r10"].map(|n| (format!("labs/x/nodes/{n}"), refusal.clone()));
    let fake = Fake::start(Script { configs: HashMap::from(nodes), ..script() }).await;
    let ended = fake.run(&["save", "x"]).await.expect(0);
    assert!(ended.out.ends_with("0 configurations saved\n"), "{}", ended.out);
    assert!(!fake.dir.path().join("x-config").exists());
}

/// It printed a comment and nothing else, and ended well.
#[tokio::test]
async fn an_inventory_of_addresses_that_no_node_has_says_so() {
    let fake = Fake::start(script()).await;
    for format in ["ssh-config", "hosts"] {
        let ended = fake.run(&["inventory", "x", "--format", format]).await.expect(1);
        assert!(
            ended.err.starts_with("warning: no node of lab x has a management address: "),
            "{}",
            ended.err
        );
    }
    for format in ["ansible", "json"] {
        assert_eq!(fake.run(&["inventory", "x", "--format", format]).await.expect(0).err, "");
    }
}

#[tokio::test]
async fn save_never_puts_anything_else_in_place_of_a_configuration() {
    let config = |content: &str| {
        Ok(api::NodeConfig { content: content.as_bytes().to_vec(), ..api::NodeConfig::default() })
    };
    let refusal = |reason: &str| Err(refused(Code::FailedPrecondition, reason, "no"));
    let configs = HashMap::from([
        ("labs/x/nodes/r10".to_owned(), config("hostname r10\n")),
        ("labs/x/nodes/r2".to_owned(), refusal("CONFIG_FAILED")),
        ("labs/x/nodes/h1".to_owned(), refusal("CONFIG_NOT_SUPPORTED")),
    ]);
    let fake = Fake::start(Script { configs, ..script() }).await;
    let saved = fake.dir.path().join("x-config");
    std::fs::create_dir(&saved).unwrap();
    std::fs::write(saved.join("r2.cfg"), "the old one").unwrap();
    let ended = fake.run(&["save", "x"]).await.expect(1);
    assert!(ended.out.ends_with("1 configuration saved, 1 node failed\n"), "{}", ended.out);
    assert!(ended.out.contains("CONFIG_FAILED") && ended.out.contains("SKIPPED"), "{}", ended.out);
    assert_eq!(std::fs::read_to_string(saved.join("r10.cfg")).unwrap(), "hostname r10\n");
    assert_eq!(std::fs::read_to_string(saved.join("r2.cfg")).unwrap(), "the old one");
    assert_eq!(std::fs::read_dir(&saved).unwrap().count(), 2);

    fake.run(&["save", "x", "h1"]).await.expect(1);
    fake.script().configs.insert("labs/x/nodes/r2".to_owned(), config(" \n"));
    fake.run(&["save", "x", "r2", "--dir", "x-config"]).await.expect(1);
    assert_eq!(
        std::fs::read_to_string(saved.join("r2.cfg")).unwrap(),
        "the old one",
        "empty is no configuration"
    );
    let json = fake.run(&["save", "x", "r10", "--format", "json"]).await.expect(0);
    let value: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(value["nodes"][0]["result"], "SAVED");
    assert_eq!(value["nodes"][0]["changed"], false);
}

#[tokio::test]
async fn inspect_has_interfaces_and_rows_for_spreadsheets() {
    let fake = Fake::start(script()).await;
    let shown = fake.run(&["inspect", "interfaces", "x", "--node", "r2"]).await.expect(0);
    assert_eq!(
        shown.out.lines().nth(1).unwrap().split_whitespace().take(4).collect::<Vec<_>>(),
        ["r2", "eth1", "eth1", "UP"]
    );
    let json = fake.run(&["inspect", "interfaces", "x", "--format", "json"]).await.expect(0);
    let value: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(value["interfaces"].as_array().unwrap().len(), 3);
    let csv = fake.run(&["inspect", "x", "--format", "csv"]).await.expect(0);
    assert!(csv.out.starts_with("lab,node,kind,") && csv.out.contains("\r\nx,r2,frr,"), "{}", csv.out);
    let wide = fake.run(&["inspect", "--all", "--wide"]).await.expect(0);
    assert!(wide.out.contains("site=10"), "{}", wide.out);
    fake.run(&["inspect", "interfaces", "x", "--node", "nosuch"]).await.expect(4);
}
