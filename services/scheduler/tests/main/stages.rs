//! Nodes that wait for stages of others.

use netloom_proto::v1 as p;
use netloom_service::testing::eventually;

use crate::world::{BOUND, World, spec};

fn waits(stage: p::Stage, node: &str, awaited: p::Stage) -> p::StageSpec {
    p::StageSpec {
        stage: stage.into(),
        wait_for: vec![p::StageWait { node: node.into(), stage: awaited.into() }],
        exec: Vec::new(),
    }
}

#[tokio::test]
async fn a_node_is_made_when_the_one_it_waits_for_is_healthy() {
    let world = World::new().await;
    world.host().with(|s| s.health.insert("n1".into(), "starting".into()));
    let mut lab = spec(2, &[(1, 2)]);
    lab.nodes[0].healthcheck =
        Some(p::Healthcheck { test: vec!["CMD".into(), "true".into()], ..Default::default() });
    lab.nodes[1].stages = vec![waits(p::Stage::Create, "n1", p::Stage::Healthy)];
    let operation = world.apply("s", lab).await.unwrap();
    world.node_is("s", "n1", p::NodeState::Ready).await;
    eventually("n2 says what it waits for", BOUND, || async {
        world.node("s", "n2").await.reason == "waits for n1 to be healthy"
    })
    .await;
    assert_eq!(world.host().running(), ["n1"], "n1 does not wait for the link to a node that is held");
    assert_eq!(world.operation(&operation.id).await.state(), p::OperationState::Running);
    world.host().with(|s| s.health.insert("n1".into(), "healthy".into()));
    let operation = world.done(&operation.id).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    assert_eq!(world.host().running(), ["n1", "n2"]);
    assert_eq!(world.node("s", "n1").await.health, "healthy");
}

#[tokio::test]
async fn links_and_commands_come_in_their_stages() {
    let world = World::new().await;
    let mut lab = spec(3, &[(1, 2)]);
    let command = |on_exit| p::StageExec { command: "touch /x".into(), on_exit };
    lab.nodes[0].stages = vec![
        waits(p::Stage::CreateLinks, "n3", p::Stage::Configure),
        p::StageSpec { stage: p::Stage::Create.into(), wait_for: Vec::new(), exec: vec![command(false)] },
        p::StageSpec { stage: p::Stage::Healthy.into(), wait_for: Vec::new(), exec: vec![command(true)] },
    ];
    lab.nodes[2].stages = vec![waits(p::Stage::Configure, "n2", p::Stage::Healthy)];
    world.host().with(|s| s.health.insert("n2".into(), "starting".into()));
    lab.nodes[1].healthcheck =
        Some(p::Healthcheck { test: vec!["CMD".into(), "true".into()], ..Default::default() });
    let operation = world.apply("s", lab).await.unwrap();
    eventually("n1 runs, and its first command was released", BOUND, || async {
        world.host().count("n1 create entered") == 1
    })
    .await;
    world.node_is("s", "n2", p::NodeState::Ready).await;
    world.host().read(|s| {
        let n1 = s.wanted.values().find(|i| i.spec.as_ref().unwrap().id == "n1").unwrap();
        assert!(n1.interfaces.is_empty(), "its process does not wait for interfaces that come later");
        assert_eq!((s.nics.len(), s.wires.len()), (1, 0), "neither its interface nor its link is there");
    });
    eventually("n1 says what it waits for", BOUND, || async {
        world.node("s", "n1").await.reason == "waits for n3 to be configured"
    })
    .await;
    world.host().with(|s| s.health.insert("n2".into(), "healthy".into()));
    let operation = world.done(&operation.id).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    let calls = world.host().read(|s| s.calls.clone());
    let at =
        |call: &str| calls.iter().position(|c| c == call).unwrap_or_else(|| panic!("{call} in {calls:?}"));
    assert!(at("n2 configure entered") < at("n3 configure entered"));
    assert!(at("n3 configure entered") < at("n1 configure entered"));
    assert!(at("n1 configure entered") < at("n1 healthy over"));
    assert_eq!(world.link("s", "n1:eth1--n2:eth1").await.state(), p::LinkState::Up);
}

#[tokio::test]
async fn what_waits_for_a_node_that_failed_is_not_waited_for() {
    let world = World::new().await;
    world.host().with(|s| s.broken.insert("n1".into()));
    let mut lab = spec(3, &[]);
    lab.nodes[1].stages = vec![waits(p::Stage::Create, "n1", p::Stage::Configure)];
    let operation = world.deploy("s", lab).await;
    assert_eq!(operation.state(), p::OperationState::Failed);
    let error = operation.error.unwrap().message;
    assert!(error.contains("n1: FAILED"), "{error}");
    let why = "n2: PENDING: waits for n1 to be configured, which cannot come about: n1 is FAILED";
    assert!(error.contains(why), "{error}");
    assert_eq!(world.node("s", "n3").await.state(), p::NodeState::Ready);
}

#[tokio::test]
async fn a_job_that_ended_releases_who_waited_and_a_killed_scheduler_goes_on() {
    let mut world = World::new().await;
    let mut lab = spec(2, &[]);
    lab.nodes[0].restart_policy = p::RestartPolicy::Never.into();
    lab.nodes[1].stages = vec![waits(p::Stage::Create, "n1", p::Stage::Exit)];
    let operation = world.apply("s", lab).await.unwrap();
    world.node_is("s", "n1", p::NodeState::Ready).await;
    world.kill().await;
    world.start().await;
    assert_eq!(world.host().running(), ["n1"]);
    world.host().with(|s| s.end("n1", 0));
    let operation = world.done(&operation.id).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    assert_eq!(world.host().running(), ["n2"]);
}

#[tokio::test]
async fn changed_exec_commands_run_on_the_running_node() {
    let world = World::new().await;
    let mut lab = spec(1, &[]);
    lab.nodes[0].exec = vec!["one".into()];
    world.deploy("s", lab.clone()).await;
    let uid = world.node("s", "n1").await.uid;
    lab.nodes[0].exec.push("two".into());
    let operation = world.deploy("s", lab).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    let reason = &operation.plan.unwrap().actions[0].reason;
    assert_eq!(reason, "exec changed (new commands run now, what earlier ones did stays)");
    assert_eq!(world.node("s", "n1").await.uid, uid);
    assert_eq!((world.host().count("exec n1 one"), world.host().count("exec n1 two")), (1, 1));
}
