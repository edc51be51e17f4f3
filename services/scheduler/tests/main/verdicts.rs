//! When a deploy is over, and whether it went well.

use netloom_proto::scheduler::v1 as ps;
use netloom_proto::v1 as p;
use netloom_service::testing::eventually;

use crate::world::{BOUND, World, actions, spec};

#[tokio::test]
async fn a_node_that_ends_by_itself_did_what_was_asked_when_its_exit_code_is_0() {
    let world = World::new().await;
    world.host().with(|s| s.ends = [("n2".to_owned(), 0)].into());
    let operation = world.deploy("job", spec(2, &[(1, 2)])).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    assert_eq!(world.node("job", "n2").await.state(), p::NodeState::Stopped);
    let lab = world.lab("job").await.unwrap();
    let nodes: Vec<_> = lab.node_tallies.into_iter().map(|t| t.try_into().unwrap()).collect();
    let links: Vec<_> = lab.link_tallies.into_iter().map(|t| t.try_into().unwrap()).collect();
    let running = netloom_model::state::Wanted::Running;
    let (state, why) = netloom_model::tally::lab_state(&nodes, &links, running, false);
    assert_eq!((state, why.as_str()), (netloom_model::state::LabState::Running, ""));

    world.host().with(|s| s.ends = [("n1".to_owned(), 3)].into());
    let operation = world.deploy("bad", spec(2, &[])).await;
    assert_eq!(operation.state(), p::OperationState::Failed);
    let error = operation.error.unwrap().message;
    assert!(error.contains("n1: STOPPED: its process ended with exit code 3"), "{error}");
}

#[tokio::test]
async fn a_deploy_that_changes_nothing_fails_while_something_is_not_ready() {
    let world = World::new().await;
    world.host().with(|s| s.broken.insert("n2".into()));
    let mut lab = spec(3, &[]);
    lab.nodes[2].cpu_request_millis = 9_000;
    let first = world.deploy("x", lab.clone()).await;
    assert_eq!(first.state(), p::OperationState::Failed);
    let calls = world.host().read(|s| s.calls.len());
    let again = world.apply("x", lab.clone()).await.unwrap();
    assert_eq!((again.state(), actions(&again)), (p::OperationState::Failed, vec![]));
    let message = again.error.unwrap().message;
    assert!(
        message.contains("n2: FAILED: it is broken") && message.contains("n3: UNSCHEDULABLE"),
        "{message}"
    );
    assert_eq!(world.host().read(|s| s.calls.len()), calls, "hosts are not even asked");
    // Also with other labels, which are kept.
    lab.labels.insert("a".into(), "b".into());
    let again = world.apply("x", lab).await.unwrap();
    assert_eq!((again.state(), actions(&again)), (p::OperationState::Failed, vec![]));
    let kept = world.lab("x").await.unwrap();
    assert_eq!((kept.operation.as_str(), kept.spec.unwrap().labels.len()), ("", 1));
}

#[tokio::test]
async fn a_deploy_that_changes_nothing_waits_for_what_is_on_its_way() {
    let world = World::new().await;
    world.deploy("x", spec(1, &[])).await;
    world.host().with(|s| {
        s.exists.values_mut().for_each(|e| e.phase = netloom_model::observed::Phase::Starting);
    });
    world.node_is("x", "n1", p::NodeState::Starting).await;
    let operation = world.apply("x", spec(1, &[])).await.unwrap();
    assert_eq!((operation.state(), actions(&operation)), (p::OperationState::Running, vec![]));
    world.host().with(|s| {
        s.exists.values_mut().for_each(|e| e.phase = netloom_model::observed::Phase::Running);
    });
    assert_eq!(world.done(&operation.id).await.state(), p::OperationState::Succeeded);
}

#[tokio::test]
async fn a_node_that_cannot_run_fails_the_deploy_and_stops_no_other() {
    let world = World::new().await;
    world.host().with(|s| s.broken.insert("n2".into()));
    let operation = world.deploy("x", spec(3, &[(1, 2), (1, 3)])).await;
    assert_eq!(operation.state(), p::OperationState::Failed);
    let error = operation.error.unwrap().message;
    assert!(error.contains("1 of 3 nodes did not come up\n  n2: FAILED: it is broken"), "{error}");
    // Nothing comes of the link to n2: n1 does not wait its whole bound for it, and is ready.
    assert_eq!(world.node("x", "n1").await.state(), p::NodeState::Ready);
}

/// A deploy ended well at the first moment in which all was ready, and with it one whose process ended right after.
#[tokio::test]
async fn a_deploy_that_starts_nodes_looks_at_them_for_a_moment() {
    let world = World::with(&["h1"], "start_watch_ms = 600000").await;
    let operation = world.apply("x", spec(2, &[(1, 2)])).await.unwrap();
    for node in ["n1", "n2"] {
        world.node_is("x", node, p::NodeState::Ready).await;
    }
    world.host().with(|s| s.end("n1", 3));
    let ended = world.done(&operation.id).await;
    assert_eq!(ended.state(), p::OperationState::Failed, "{ended:?}");
    let error = ended.error.unwrap().message;
    assert!(error.contains("n1: STOPPED: its process ended with exit code 3"), "{error}");
}

/// The watch was over before the last nodes of a long deploy had started.
#[tokio::test]
async fn a_deploy_looks_for_a_moment_at_the_nodes_that_start_last() {
    let watch = std::time::Duration::from_secs(2);
    let world = World::with(&["h1"], "start_watch_ms = 2000").await;
    let mut lab = spec(2, &[]);
    lab.nodes[0].healthcheck =
        Some(p::Healthcheck { test: vec!["CMD".into(), "true".into()], ..p::Healthcheck::default() });
    let wait = p::StageWait { node: "n1".into(), stage: p::Stage::Healthy.into() };
    lab.nodes[1].stages =
        vec![p::StageSpec { stage: p::Stage::Create.into(), wait_for: vec![wait], exec: Vec::new() }];
    world.host().with(|s| s.health.insert("n1".into(), "starting".into()));
    let operation = world.apply("x", lab.clone()).await.unwrap();
    world.node_is("x", "n1", p::NodeState::Ready).await;
    let since = std::time::Instant::now();
    eventually("that of the first is over", BOUND, || async { since.elapsed() > watch }).await;
    world.host().with(|s| s.health.insert("n1".into(), "healthy".into()));
    world.node_is("x", "n2", p::NodeState::Ready).await;
    world.host().with(|s| s.end("n2", 3));
    let ended = world.done(&operation.id).await;
    assert_eq!(ended.state(), p::OperationState::Failed, "{ended:?}");
    let error = ended.error.unwrap().message;
    assert!(error.contains("n2: STOPPED: its process ended with exit code 3"), "{error}");
}

#[tokio::test]
async fn links_that_do_not_come_up_in_their_time_are_named() {
    let world = World::new().await;
    world.host().with(|s| s.unplugged = true);
    let operation = world.deploy("slow", spec(2, &[(1, 2)])).await;
    assert_eq!(operation.state(), p::OperationState::Failed);
    let error = operation.error.unwrap().message;
    assert!(error.contains("1 of 1 links did not come up\n  n1:eth1--n2:eth1: DOWN"), "{error}");
    // exec commands ran all the same, after the bound.
    assert_eq!(world.host().count("settled n1"), 1);
}

fn checked(env: &str) -> p::LabSpec {
    let mut lab = spec(2, &[(1, 2)]);
    lab.nodes[0].env.insert(env.into(), "1".into());
    lab.nodes[0].healthcheck = Some(p::Healthcheck {
        test: vec!["CMD".into(), "true".into()],
        interval_seconds: 1,
        timeout_seconds: 1,
        retries: 1,
        start_period_seconds: 0,
    });
    lab
}

/// The deploy succeeded, and what ran before was removed, before the health check had said anything.
#[tokio::test]
async fn a_node_whose_health_is_not_known_yet_does_not_count_as_one_that_works() {
    let world = World::new().await;
    let says = |word: &str| world.host().with(|s| drop(s.health.insert("n1".into(), word.into())));
    says("healthy");
    assert_eq!(world.deploy("l", checked("A")).await.state(), p::OperationState::Succeeded);
    says("starting");
    let operation = world.apply("l", checked("B")).await.unwrap();
    crate::keep::is_told(&world, &operation.id, "n1", "READY").await;
    let reason = || async { world.node("l", "n1").await.reason };
    assert_eq!(reason().await, "its health check has not said anything yet");
    assert_eq!(world.operation(&operation.id).await.state(), p::OperationState::Running);
    says("unhealthy");
    let operation = world.done(&operation.id).await;
    assert_eq!(operation.state(), p::OperationState::Failed);
    let told = operation.error.unwrap().message;
    assert!(
        told.contains("1 of 2 nodes did not come up\n  n1: READY: its health check fails")
            && told.contains("what ran before is kept (n1)"),
        "{told}"
    );
    // Asked for again it is not better, and loses nothing.
    let plan = ps::ApplyLabRequest {
        lab: "l".into(),
        spec: Some(checked("B")),
        validate_only: true,
        ..ps::ApplyLabRequest::default()
    };
    let plan = world.request(plan).await.unwrap();
    assert_eq!((actions(&plan).len(), plan.state()), (0, p::OperationState::Failed));
    let again = world.deploy("l", checked("B")).await;
    assert_eq!(again.state(), p::OperationState::Failed);
    assert!(again.error.unwrap().message.contains("what ran before is kept (n1)"));
    // One that never says anything is not waited for longer than a check takes to fail.
    says("starting");
    let operation = world.deploy("l", checked("C")).await;
    assert_eq!(operation.state(), p::OperationState::Failed, "{operation:?}");
    says("healthy");
    let operation = world.deploy("l", checked("D")).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
}

#[tokio::test]
async fn a_process_that_ends_within_the_watch_again_and_again_is_no_success() {
    let world = World::with(&["h1"], "start_watch_ms = 60000").await;
    let operation = world.apply("l", spec(1, &[])).await.unwrap();
    crate::keep::is_told(&world, &operation.id, "n1", "READY").await;
    for _ in 0..3 {
        // It lives for a moment each time.
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        world.host().with(|s| s.restart("n1"));
        assert_eq!(world.operation(&operation.id).await.state(), p::OperationState::Running);
    }
    world
        .host()
        .with(|s| s.exists.values_mut().for_each(|e| e.phase = netloom_model::observed::Phase::Failed));
    let operation = world.done(&operation.id).await;
    assert_eq!(operation.state(), p::OperationState::Failed, "{operation:?}");
}
