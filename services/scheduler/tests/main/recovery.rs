//! What happens when the scheduler or a host goes away, and what watchers see.

use std::collections::BTreeMap;

use netloom_proto::scheduler::v1 as ps;
use netloom_proto::v1 as p;
use netloom_service::testing::eventually;

use crate::world::{BOUND, World, spec};

#[tokio::test]
async fn a_deploy_goes_on_after_the_scheduler_was_killed() {
    let mut world = World::new().await;
    world.host().with(|s| s.hold = true);
    let operation = world.apply("k", spec(3, &[(1, 2), (2, 3)])).await.unwrap();
    let uids: BTreeMap<String, String> =
        world.nodes("k").await.into_iter().map(|n| (n.spec.unwrap().id, n.uid)).collect();
    world.kill().await;
    let term = world.host().read(|s| s.term);
    world.host().with(|s| s.hold = false);
    world.start().await;
    let operation = world.done(&operation.id).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    for node in world.nodes("k").await {
        assert_eq!(uids[&node.spec.unwrap().id], node.uid, "nothing was made twice");
    }
    assert_eq!(world.host().read(|s| s.exists.len()), 3);
    assert_eq!(world.host().read(|s| s.term), term + 1, "a new leader has a higher term");
}

#[tokio::test]
async fn a_removal_goes_on_after_the_scheduler_was_killed() {
    let mut world = World::new().await;
    world.deploy("k", spec(2, &[(1, 2)])).await;
    world.host().with(|s| s.silent = true);
    let operation = world.destroy("k").await.unwrap();
    world.kill().await;
    world.host().with(|s| s.silent = false);
    world.start().await;
    assert_eq!(world.done(&operation.id).await.state(), p::OperationState::Succeeded);
    world.host().read(|s| assert!(s.exists.is_empty() && s.wires.is_empty()));
}

#[tokio::test]
async fn a_restart_of_the_scheduler_changes_nothing_that_is_shown() {
    let mut world = World::new().await;
    world.deploy("s", spec(2, &[(1, 2)])).await;
    let last = newest(&world).await;
    world.stop().await;
    world.start().await;
    eventually("the host is heard of", BOUND, || async { heard(&world).await }).await;
    eventually("all is told again", BOUND, || async { world.host().count("compute.sync") == 2 }).await;
    assert_eq!(newest(&world).await, last, "no state changed by a restart");
    assert_eq!(world.host().count("settled n1"), 1);
}

#[tokio::test]
async fn the_database_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new().await;
    world.deploy("m", spec(1, &[])).await;
    for file in ["scheduler.db", "scheduler.db-wal"] {
        let mode = std::fs::metadata(world.dir().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

async fn newest(world: &World) -> u64 {
    let mut watch = world.client.clone().watch(ps::WatchRequest::default()).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap().sequence
}

async fn heard(world: &World) -> bool {
    let request = ps::GetHostRequest { host: "h1".into() };
    world.client.clone().get_host(request).await.unwrap().into_inner().heard
}

#[tokio::test]
async fn a_host_that_is_not_heard_of_makes_its_nodes_unknown_not_gone() {
    let world = World::new().await;
    world.deploy("u", spec(2, &[(1, 2)])).await;
    world.host().with(|s| s.silent = true);
    world.node_is("u", "n1", p::NodeState::Unknown).await;
    eventually("the link is unknown", BOUND, || async {
        world.links("u").await[0].state() == p::LinkState::Unknown
    })
    .await;
    let host =
        world.client.clone().get_host(ps::GetHostRequest { host: "h1".into() }).await.unwrap().into_inner();
    assert!(!host.heard);
    assert!(host.problems.iter().any(|p| p.contains("not heard of")), "{host:?}");
    assert_eq!(host.cpu_millis, 4_000, "what was last proved stays");
    let again = world.apply("u", spec(2, &[(1, 2)])).await.unwrap();
    assert_eq!(again.state(), p::OperationState::Failed, "nothing changes, and nothing is known to be ready");
    let error = again.error.unwrap().message;
    assert!(error.contains("n1, n2: UNKNOWN: its host is not heard of"), "{error}");
    world.host().with(|s| s.silent = false);
    world.node_is("u", "n1", p::NodeState::Ready).await;
    world.node_is("u", "n2", p::NodeState::Ready).await;
    eventually("the link is up", BOUND, || async { world.links("u").await[0].state() == p::LinkState::Up })
        .await;
}

#[tokio::test]
async fn a_host_that_lost_its_slice_is_told_everything_again() {
    let world = World::new().await;
    world.deploy("h", spec(2, &[(1, 2)])).await;
    let syncs = world.host().count("compute.sync");
    world.host().with(|s| {
        s.forget_instances();
        s.forget_wires();
    });
    eventually("synced again", BOUND, || async { world.host().count("compute.sync") > syncs }).await;
    world.host().read(|s| assert_eq!((s.wanted.len(), s.exists.len()), (2, 2)));
    eventually("the link is up", BOUND, || async { world.links("h").await[0].state() == p::LinkState::Up })
        .await;
}

#[tokio::test]
async fn what_a_host_still_has_of_a_removed_node_is_removed_and_what_is_not_known_is_left() {
    let world = World::new().await;
    world.deploy("g", spec(2, &[(1, 2)])).await;
    let wire = world.host().read(|s| *s.wires.keys().next().unwrap());
    let ghost = world.host().read(|s| s.exists.iter().next().map(|(k, v)| (k.clone(), v.clone())).unwrap());
    let operation = world.destroy("g").await.unwrap();
    world.done(&operation.id).await;
    let stranger = uuid::Uuid::now_v7().to_string();
    world.host().with(|s| {
        s.exists.insert(ghost.0.clone(), ghost.1.clone());
        s.exists.insert(stranger.clone(), ghost.1.clone());
        s.leftovers = [wire, 7].into();
        s.synced = false;
    });
    eventually("the wire is gone", BOUND, || async { world.host().read(|s| !s.leftovers.contains(&wire)) })
        .await;
    eventually("the ghost is gone", BOUND, || async {
        world.host().read(|s| !s.exists.contains_key(&ghost.0))
    })
    .await;
    assert!(world.host().read(|s| s.exists.contains_key(&stranger) && s.leftovers.contains(&7)));
}

#[tokio::test]
async fn watchers_see_every_number_once_and_go_on_where_they_were() {
    let world = World::new().await;
    let mut watch = world.client.clone().watch(ps::WatchRequest::default()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().kind(), ps::EventKind::Heartbeat);
    world.deploy("w", spec(2, &[(1, 2)])).await;
    let operation = world.destroy("w").await.unwrap();
    world.done(&operation.id).await;
    let last = newest(&world).await;
    let mut events = Vec::new();
    while events.last().is_none_or(|e: &ps::WatchResponse| e.sequence < last) {
        events.push(watch.message().await.unwrap().unwrap());
    }
    let numbers: Vec<u64> = events.iter().map(|e| e.sequence).collect();
    assert_eq!(numbers, (1..=last).collect::<Vec<_>>());

    use ps::watch_response::Object as O;
    let mut tallies = Vec::new();
    let (mut nodes_gone, mut lab_gone) = (0, 0);
    for event in &events {
        let deleted = event.kind() == ps::EventKind::Deleted;
        match event.object.as_ref().unwrap() {
            O::LabFacts(lab) if deleted => {
                assert_eq!(lab.spec.as_ref().unwrap().nodes.len(), 2, "a deleted lab travels as it last was");
                lab_gone += 1;
            }
            O::LabFacts(lab) => tallies.push(lab.node_tallies.clone()),
            O::Node(_) => nodes_gone += usize::from(deleted),
            _ => {}
        }
    }
    assert_eq!((nodes_gone, lab_gone), (2, 1));
    let ready = |t: &&Vec<ps::NodeTally>| t.iter().any(|t| t.state() == p::NodeState::Ready && t.count == 2);
    assert!(tallies.iter().any(|t| ready(&t)), "the lab's tallies are told as they change");

    let since = numbers[numbers.len() / 2];
    let request = ps::WatchRequest { since, lab: "W".into(), operations: false };
    let mut again = world.client.clone().watch(request).await.unwrap().into_inner();
    assert_eq!(again.message().await.unwrap().unwrap().sequence, since + 1);
    let request = ps::WatchRequest { since: last + 100, lab: String::new(), operations: false };
    let refused = world.client.clone().watch(request).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::OutOfRange);
    let (asked, newest) = (format!("no event {} yet", last + 100), format!("newest is number {last}"));
    let said = refused.message();
    assert!(said.contains(&asked) && said.contains(&newest) && !said.contains("kept"), "{said}");
}

#[tokio::test]
async fn events_dropped_ask_for_a_new_list() {
    let world = World::with(&["h1"], "events_kept = 10").await;
    for _ in 0..3 {
        world.deploy("w", spec(3, &[(1, 2)])).await;
        let operation = world.destroy("w").await.unwrap();
        world.done(&operation.id).await;
    }
    let request = ps::WatchRequest { since: 1, lab: String::new(), operations: false };
    let refused = world.client.clone().watch(request).await.expect_err("the call itself is refused");
    let failure = netloom_service::status::from_status(&refused);
    assert_eq!(failure.reason, "RELIST_NEEDED");
}

#[tokio::test]
async fn an_image_is_judged_only_when_it_is_known_what_its_host_is() {
    let mut world = World::new().await;
    world.host().with(|s| {
        s.pullable.insert("other:1".into());
        s.hold_pulls = true;
    });
    let mut asked = spec(1, &[]);
    asked.nodes[0].image = "other:1".into();
    let operation = world.apply("i", asked).await.unwrap();
    world.node_is("i", "n1", p::NodeState::Pulling).await;
    world.kill().await;
    world.host().with(|s| (s.hold_pulls, s.mute) = (false, true));
    let before = world.host().count("compute.inspect_images");
    world.start().await;
    eventually("the store is looked at", BOUND, || async {
        world.host().count("compute.inspect_images") > before + 1
    })
    .await;
    world.host().with(|s| s.mute = false);
    assert_eq!(world.done(&operation.id).await.state(), p::OperationState::Succeeded);
    assert_eq!(*world.registry.judged_for.lock().unwrap(), ["riscv64".to_owned()].into());
}
