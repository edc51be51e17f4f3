//! What hands are used to typing.

use netloom_api::v1 as api;
use netloom_api::v1::exec_node_response::Part;

use crate::fake::{Fake, Script};

const FILE: &str = "name: ospf\ntopology:\n  nodes:\n    r1: {kind: linux, image: a:1}\n";

fn exec() -> Script {
    let exit = api::ExecNodeResponse { part: Some(Part::ExitCode(0)) };
    Script { exec: vec![Ok(exit)], ..Script::default() }
}

#[tokio::test]
async fn a_topology_file_names_the_lab_of_every_command() {
    let fake = Fake::start(exec()).await;
    fake.write("x.clab.yml", FILE);
    for option in ["-t", "--topo", "--topology"] {
        fake.run(&["exec", option, "x.clab.yml", "r1", "--", "ls"]).await.expect(0);
        let call = fake.script().calls.pop().unwrap();
        assert_eq!((call.method, call.what.as_str()), ("ExecNode", "labs/ospf/nodes/r1 [\"ls\"] "));
    }
    for args in [
        &["save", "-t", "x.clab.yml"][..],
        &["logs", "--all", "-t", "x.clab.yml"],
        &["inventory", "-t", "x.clab.yml"],
        &["link", "down", "-t", "x.clab.yml", "r1:eth1"],
        &["inspect", "--topo", "x.clab.yml"],
    ] {
        fake.run(args).await;
        let calls = std::mem::take(&mut fake.script().calls);
        assert!(calls.iter().any(|c| c.what == "labs/ospf"), "{args:?}: {calls:?}");
    }
    let twice = fake.run(&["link", "down", "-t", "x.clab.yml", "ospf", "r1:eth1"]).await.expect(2);
    assert!(twice.err.contains("the lab is not named again"), "{}", twice.err);
    let none = fake.run(&["node", "stop", "-t", "x.clab.yml"]).await.expect(2);
    assert!(none.err.contains("name the nodes"), "{}", none.err);
    assert_eq!(fake.methods(), <[&str; 0]>::default());
}

#[tokio::test]
async fn a_topology_file_where_a_lab_stands_is_told_with_the_line_to_type() {
    let fake = Fake::start(Script::default()).await;
    fake.write("x.clab.yml", FILE);
    for verb in ["inspect", "destroy"] {
        let said = fake.run(&[verb, "x.clab.yml"]).await.expect(2);
        assert!(said.err.contains(&format!(": netloom {verb} -t x.clab.yml\n")), "{}", said.err);
    }
    let said = fake.run(&["exec", "-t", "ospf", "r1", "--", "sh"]).await.expect(2);
    assert!(said.err.ends_with(": netloom shell ospf r1 -- sh\n"), "{}", said.err);
}

#[tokio::test]
async fn no_picture_is_written_over_a_file_that_is_there() {
    let fake = Fake::start(Script::default()).await;
    fake.write("x.clab.yml", FILE);
    fake.write("x.svg", "mine");
    let svg = || std::fs::read_to_string(fake.dir.path().join("x.svg")).unwrap();
    let graph = ["graph", "-t", "x.clab.yml", "-o", "x.svg"];
    let said = fake.run(&graph).await.expect(2);
    assert!(said.err.contains("x.svg exists already") && svg() == "mine", "{}", said.err);
    fake.run(&[&graph[..], &["--force"]].concat()).await.expect(0);
    assert!(svg().contains("<svg"));
}

#[tokio::test]
async fn a_file_is_deployed_planned_and_checked_by_its_name_alone() {
    let fake = Fake::start(Script::default()).await;
    fake.write("x.clab.yml", FILE.replace("kind: linux", "kind: nosuch").as_str());
    for verb in ["deploy", "plan"] {
        let said = fake.run(&[verb, "x.clab.yml"]).await.expect(5);
        assert!(said.err.contains("x.clab.yml:4:"), "{}", said.err);
    }
    fake.run(&["validate", "-t", "x.clab.yml"]).await.expect(1);
    fake.run(&["deploy", "x.clab.yml", "-t", "x.clab.yml"]).await.expect(2);
}

#[tokio::test]
async fn the_environment_is_not_part_of_the_usage_that_comes_with_an_error() {
    let fake = Fake::start(exec()).await;
    let wrong = fake.run(&["exec", "ospf", "r1", "ls", "-l"]).await.expect(2);
    assert!(!wrong.err.contains("--endpoint"), "{}", wrong.err);
    assert!(wrong.err.contains("netloom exec ospf r1 -- ls -l"), "{}", wrong.err);
    let mut command = fake.command(&["inspect", "--all"]);
    command.env("NETLOOM_ENDPOINT", "foo");
    let odd = crate::fake::finish(command, b"").await.expect(2);
    assert!(odd.err.contains("NETLOOM_ENDPOINT is \"foo\": write unix:/path"), "{}", odd.err);
}
