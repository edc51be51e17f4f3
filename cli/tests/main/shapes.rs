//! generate, graph and inventory.

use netloom_api::v1 as api;

use crate::fake::{Fake, Script, command, finish};

async fn run(directory: &std::path::Path, args: &[&str]) -> crate::fake::Ended {
    finish(command(directory, args), b"").await
}

#[tokio::test]
async fn what_is_generated_is_valid_and_can_be_drawn_without_a_server() {
    let dir = tempfile::tempdir().unwrap();
    for shape in [
        &["clos", "--spines", "2", "--leaves", "3"][..],
        &["clos", "--nodes", "2,4,8", "--hosts", "0"],
        &["fat-tree", "-k", "4", "--name", "dc1"],
        &["ring", "-n", "5", "--ipv4", "10.0.0.0/24"],
        &["mesh", "--hosts", "1"],
        &["line"],
        &["star", "--ipv4", "10.0.0.0/24"],
    ] {
        let generated = run(dir.path(), &[&["generate"], shape].concat()).await.expect(0);
        let file = dir.path().join("x.clab.yml");
        std::fs::write(&file, &generated.out).unwrap();
        run(dir.path(), &["validate", "x.clab.yml"]).await.expect(0);
        let drawn = run(dir.path(), &["graph", "-t", "x.clab.yml"]).await.expect(0);
        assert!(drawn.out.starts_with("<svg ") && drawn.out.ends_with("</svg>\n"), "{}", drawn.out);
        let json = run(dir.path(), &["graph", "--format", "json"]).await.expect(0);
        let value: serde_json::Value = serde_json::from_str(&json.out).unwrap();
        let nodes = generated.out.lines().filter(|l| l.contains("{kind: ")).count();
        assert_eq!(value["nodes"].as_array().unwrap().len(), nodes);
    }
}

#[tokio::test]
async fn generate_does_not_write_over_a_file_unless_told_to() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), &["generate", "ring", "-o", "a.clab.yml"]).await.expect(0);
    let refused = run(dir.path(), &["generate", "line", "-o", "a.clab.yml"]).await.expect(2);
    assert!(refused.err.contains("--force"), "{}", refused.err);
    assert!(std::fs::read_to_string(dir.path().join("a.clab.yml")).unwrap().contains("name: ring"));
    run(dir.path(), &["generate", "line", "-o", "a.clab.yml", "--force"]).await.expect(0);
    assert!(std::fs::read_to_string(dir.path().join("a.clab.yml")).unwrap().contains("name: line"));
}

#[tokio::test]
async fn generate_refuses_what_no_lab_holds_before_it_makes_it() {
    let dir = tempfile::tempdir().unwrap();
    for (args, part) in [
        (&["generate", "mesh", "-n", "5000"][..], "12497500 links"),
        (&["generate", "clos", "--nodes", "4000,4000"], "16004000 links"),
        (&["generate", "fat-tree", "-k", "5"], "an even number"),
        (&["generate", "ring", "-n", "2"], "2"),
        (&["generate", "ring", "--ipv4", "10.0.0.1/16"], "10.0.0.0/16"),
        (&["generate", "ring", "--name", "a b"], "--name"),
    ] {
        let refused = run(dir.path(), args).await.expect(2);
        assert!(refused.err.contains(part), "{}", refused.err);
    }
    let refused = run(dir.path(), &["generate", "ring", "--kind", "nosuch"]).await.expect(5);
    assert!(refused.err.contains("nosuch"), "{}", refused.err);
}

fn lab() -> Script {
    let node = |id: &str, state: api::NodeState| api::Node {
        name: format!("labs/x/nodes/{id}"),
        kind: "frr".into(),
        runtime: api::Runtime::Docker.into(),
        instance_name: format!("netloom-x-{id}"),
        mgmt_ipv4: "172.20.20.2/24".into(),
        state: state.into(),
        ..api::Node::default()
    };
    let end = |node: &str| {
        Some(api::Endpoint { node: node.into(), interface: "eth1".into(), ..api::Endpoint::default() })
    };
    let link =
        api::Link { a: end("r1"), b: end("r2"), state: api::LinkState::Down.into(), ..Default::default() };
    Script {
        labs: vec![api::Lab { name: "labs/x".into(), ..api::Lab::default() }],
        nodes: vec![node("r1", api::NodeState::Ready), node("r2", api::NodeState::Failed)],
        links: vec![link],
        ..Script::default()
    }
}

#[tokio::test]
async fn a_running_lab_is_drawn_with_its_states() {
    let fake = Fake::start(lab()).await;
    fake.run(&["graph", "x", "-o", "x.svg", "--dark"]).await.expect(0);
    let drawn = std::fs::read_to_string(fake.dir.path().join("x.svg")).unwrap();
    for part in ["READY 1", "FAILED 1", "link DOWN 1", "r1:eth1 to r2:eth1 (DOWN)"] {
        assert!(drawn.contains(part), "{part} in {drawn}");
    }
    fake.run(&["graph", "x", "-o", "x.dot"]).await.expect(0);
    let dot = std::fs::read_to_string(fake.dir.path().join("x.dot")).unwrap();
    assert!(dot.starts_with("graph \"x\" {\n") && dot.contains("\"r1\" -- \"r2\""), "{dot}");
    let mermaid = fake.run(&["graph", "x", "--format", "mermaid"]).await.expect(0);
    assert!(mermaid.out.contains("n0 -.-|\"eth1 - eth1\"| n1"), "{}", mermaid.out);
    fake.run(&["graph", "nosuch"]).await.expect(4);
}

#[tokio::test]
async fn a_file_with_errors_is_not_drawn() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("x.clab.yml"), "name: x\ntopology:\n  nodez: {}\n").unwrap();
    let refused = run(dir.path(), &["graph"]).await.expect(5);
    assert!(refused.err.contains("UNKNOWN_KEY") && refused.out.is_empty(), "{}", refused.err);
}

#[tokio::test]
async fn an_inventory_is_what_each_tool_reads() {
    let fake = Fake::start(lab()).await;
    let ansible = fake.run(&["inventory", "x"]).await.expect(0);
    assert!(ansible.out.contains("ansible_host: \"netloom-x-r1\""), "{}", ansible.out);
    let hosts = fake.run(&["inventory", "x", "--format", "hosts"]).await.expect(0);
    assert!(hosts.out.contains("172.20.20.2\tr1.x netloom-x-r1\n"), "{}", hosts.out);
    let ssh = fake.run(&["inventory", "x", "--format", "ssh-config"]).await.expect(0);
    assert!(ssh.out.contains("\nHost r2.x netloom-x-r2\n  HostName 172.20.20.2\n"), "{}", ssh.out);
    let json = fake.run(&["inventory", "x", "--format", "json"]).await.expect(0);
    let value: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(value["nodes"][1]["instance"], "netloom-x-r2");
}
