//! Nodes that are started, stopped and restarted.

use netloom_proto::scheduler::v1 as ps;
use netloom_proto::v1 as p;
use ps::NodeChange::{Restart, Start, Stop, Wipe};

use crate::world::{World, actions, spec};

const LINK: &str = "n1:eth1--n2:eth1";

#[tokio::test]
async fn a_node_stops_and_starts_and_its_links_with_it() {
    let world = World::new().await;
    world.deploy("l", spec(3, &[(1, 2), (2, 3)])).await;
    let before = world.node("l", "n1").await;

    let operation = world.change_nodes("l", Stop, &["n1"]).await.unwrap();
    assert_eq!(
        (operation.kind(), actions(&operation)),
        (p::OperationKind::Stop, vec!["STOP node n1".into()])
    );
    let operation = world.done(&operation.id).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    assert_eq!(operation.progress[0].state, "STOPPED");
    let node = world.node("l", "n1").await;
    assert_eq!((node.state(), node.wanted()), (p::NodeState::Stopped, p::Wanted::Stopped));
    assert_eq!(node.uid, before.uid, "its instance stays");
    world.link_is("l", LINK, p::LinkState::Down).await;
    assert_eq!(world.link("l", LINK).await.reason, "node n1 does not run");
    assert_eq!(world.link("l", "n2:eth2--n3:eth1").await.state(), p::LinkState::Up);
    assert_eq!(world.host().running(), ["n2", "n3"]);

    // What is as asked already is over at once.
    let again = world.change_nodes("l", Stop, &["n1"]).await.unwrap();
    assert_eq!((again.state(), actions(&again)), (p::OperationState::Succeeded, vec![]));

    let operation = world.change_nodes("l", Start, &["N1", "n2"]).await.unwrap();
    assert_eq!(actions(&operation), ["START node n1"]);
    assert_eq!(operation.plan.clone().unwrap().actions[0].reason, "it was stopped");
    let operation = world.done(&operation.id).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    assert_eq!(world.node("l", "n1").await.state(), p::NodeState::Ready);
    assert_eq!(world.link("l", LINK).await.state(), p::LinkState::Up);
    assert_eq!(world.host().count("settled n1"), 2, "its exec commands run at each start");
}

#[tokio::test]
async fn a_restart_is_over_when_the_new_start_is_ready() {
    let world = World::new().await;
    world.deploy("l", spec(2, &[(1, 2)])).await;
    let start = |node: &'static str| {
        world.host().read(|s| s.exists.values().find(|e| e.node == node).unwrap().start.clone())
    };
    let (first, other) = (start("n1"), start("n2"));
    let operation = world.change_nodes("l", Restart, &["n1"]).await.unwrap();
    assert_eq!(
        (operation.kind(), actions(&operation)),
        (p::OperationKind::Restart, vec!["RESTART node n1".into()])
    );
    let operation = world.done(&operation.id).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    assert_ne!(start("n1"), first);
    assert_eq!(start("n2"), other);
    assert_eq!(world.node("l", "n1").await.state(), p::NodeState::Ready);
    assert_eq!(world.host().count("settled n1"), 2);
}

#[tokio::test]
async fn a_wiped_node_is_made_anew_and_is_the_same_node() {
    let world = World::new().await;
    world.deploy("l", spec(2, &[(1, 2)])).await;
    let before = world.node("l", "n1").await;
    let operation = world.change_nodes("l", Wipe, &["n1"]).await.unwrap();
    assert_eq!(
        (operation.kind(), actions(&operation)),
        (p::OperationKind::Wipe, vec!["WIPE node n1".into()])
    );
    let operation = world.done(&operation.id).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    let after = world.node("l", "n1").await;
    assert_eq!((after.state(), &after.uid), (p::NodeState::Ready, &before.uid));
    assert_eq!(after.interfaces, before.interfaces, "with the same interfaces");
    assert_eq!(world.host().count("wiped n1"), 1);
    world.link_is("l", LINK, p::LinkState::Up).await;
    // What is asked for after it throws nothing away.
    let operation = world.change_nodes("l", Restart, &["n1"]).await.unwrap();
    world.done(&operation.id).await;
    assert_eq!(world.host().count("wiped n1"), 1);

    // One that is stopped stays so.
    let operation = world.change_nodes("l", Stop, &["n1"]).await.unwrap();
    world.done(&operation.id).await;
    let operation = world.change_nodes("l", Wipe, &["n1"]).await.unwrap();
    let operation = world.done(&operation.id).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    assert_eq!(world.host().count("wiped n1"), 2);
    assert_eq!(world.node("l", "n1").await.state(), p::NodeState::Stopped);
    assert_eq!(world.host().running(), ["n2"]);
    let operation = world.change_nodes("l", Start, &["n1"]).await.unwrap();
    world.done(&operation.id).await;
    assert_eq!(world.node("l", "n1").await.state(), p::NodeState::Ready);
}

#[tokio::test]
async fn a_deploy_starts_what_was_stopped() {
    let world = World::new().await;
    world.deploy("l", spec(2, &[(1, 2)])).await;
    for node in ["n1", "n2"] {
        let operation = world.change_nodes("l", Stop, &[node]).await.unwrap();
        world.done(&operation.id).await;
    }
    let lab = world.lab("l").await.unwrap();
    let nodes: Vec<_> = lab.node_tallies.into_iter().map(|t| t.try_into().unwrap()).collect();
    let links: Vec<_> = lab.link_tallies.into_iter().map(|t| t.try_into().unwrap()).collect();
    let running = netloom_model::state::Wanted::Running;
    let (state, _) = netloom_model::tally::lab_state(&nodes, &links, running, false);
    assert_eq!(state, netloom_model::state::LabState::Stopped);

    // One that starts only: a changed link leaves what was stopped alone.
    let link = p::LinkSpec { mtu: 1_500, ..spec(2, &[(1, 2)]).links[0].clone() };
    let request = ps::ChangeLinkRequest {
        lab: "l".into(),
        change: ps::LinkChange::Update.into(),
        link: LINK.into(),
        spec: Some(link),
        ..Default::default()
    };
    let operation = world.change_link(request).await.unwrap();
    assert_eq!(actions(&operation), [format!("UPDATE link {LINK}")]);
    world.done(&operation.id).await;
    assert_eq!(world.node("l", "n1").await.state(), p::NodeState::Stopped);

    let operation = world.deploy("l", spec(2, &[(1, 2)])).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    assert_eq!(
        actions(&operation),
        ["START node n1".into(), "START node n2".into(), format!("UPDATE link {LINK}")]
    );
    assert_eq!(world.host().running(), ["n1", "n2"]);
    assert_eq!(world.link("l", LINK).await.state(), p::LinkState::Up);
}

#[tokio::test]
async fn what_cannot_be_started_or_stopped_is_told() {
    let world = World::new().await;
    let mut lab = spec(2, &[(1, 2)]);
    lab.nodes[1] = p::NodeSpec { id: "n2".into(), kind: "bridge".into(), ..p::NodeSpec::default() };
    world.deploy("b", lab).await;
    let reason = |failure: netloom_model::Failure| failure.reason;
    let stop = |nodes: &'static [&'static str]| world.change_nodes("b", Stop, nodes);
    assert_eq!(reason(stop(&["n2"]).await.unwrap_err()), "NODE_HAS_NO_PROCESS");
    let missing = stop(&["n1", "nx"]).await.unwrap_err();
    assert_eq!((missing.reason.as_str(), missing.metadata["node"].as_str()), ("NODE_NOT_FOUND", "nx"));
    assert_eq!(reason(stop(&[]).await.unwrap_err()), "INVALID_REQUEST");
    assert_eq!(reason(world.change_nodes("none", Stop, &["n1"]).await.unwrap_err()), "LAB_NOT_FOUND");
    assert_eq!(world.node("b", "n1").await.state(), p::NodeState::Ready, "nothing was begun");

    // While something else works on the lab.
    world.host().with(|s| s.hold = true);
    let operation = world.apply("b", spec(3, &[])).await.unwrap();
    let busy = stop(&["n1"]).await.unwrap_err();
    assert_eq!(
        (busy.reason.as_str(), busy.metadata["operation"].as_str()),
        ("OPERATION_ACTIVE", operation.id.as_str())
    );
}

#[tokio::test]
async fn a_request_that_is_repeated_is_done_once() {
    let world = World::new().await;
    world.deploy("l", spec(1, &[])).await;
    let request = ps::ChangeNodesRequest {
        snapshot: String::new(),
        lab: "l".into(),
        nodes: vec!["n1".into()],
        change: Restart.into(),
        request_id: "0190c0de-0000-7000-8000-000000000001".into(),
    };
    let ask = |request: ps::ChangeNodesRequest| async {
        let answer = world.client.clone().change_nodes(request).await;
        answer.map(|r| r.into_inner().operation.unwrap().id)
    };
    let first = ask(request.clone()).await.unwrap();
    world.done(&first).await;
    assert_eq!(ask(request.clone()).await.unwrap(), first);
    let other = ps::ChangeNodesRequest { change: Stop.into(), ..request };
    assert_eq!(ask(other).await.unwrap_err().code(), tonic::Code::InvalidArgument);
}

#[tokio::test]
async fn a_change_of_nodes_that_is_cancelled_lets_the_lab_go_on() {
    let world = World::new().await;
    world.deploy("l", spec(2, &[(1, 2)])).await;
    world.host().with(|s| s.hold = true);
    let operation = world.change_nodes("l", Stop, &["n1"]).await.unwrap();
    let cancelled = world.cancel(&operation.id).await.unwrap();
    assert_eq!(cancelled.state(), p::OperationState::Cancelled);
    world.host().with(|s| s.hold = false);
    world.node_is("l", "n1", p::NodeState::Stopped).await;
    assert_eq!(world.deploy("l", spec(2, &[(1, 2)])).await.state(), p::OperationState::Succeeded);
}

#[tokio::test]
async fn a_node_that_shares_a_namespace_goes_with_it() {
    let world = World::new().await;
    let mut lab = spec(3, &[(1, 2)]);
    let mode = p::network_mode::Mode::Node("n1".into());
    lab.nodes[2].network_mode = Some(p::NetworkMode { mode: Some(mode) });
    world.deploy("s", lab.clone()).await;
    let owner = world.node("s", "n1").await.uid;
    world.host().read(|s| {
        let sharer = s.wanted.values().find(|i| i.spec.as_ref().unwrap().id == "n3").unwrap();
        assert_eq!(sharer.network_of, owner);
    });
    let operation = world.change_nodes("s", Restart, &["n1"]).await.unwrap();
    assert_eq!(actions(&operation), ["RESTART node n1", "RESTART node n3"]);
    world.done(&operation.id).await;
    lab.nodes[0].env.insert("A".into(), "1".into());
    let operation = world.deploy("s", lab).await;
    assert_eq!(actions(&operation), ["RECREATE node n1", "RECREATE node n3"]);
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    let reason = &operation.plan.unwrap().actions[1].reason;
    assert!(reason.contains("shares the network namespace of n1"), "{reason}");
}
