//! What was replaced is set aside until what took its place is known to work: a cancel and the former file have the very container back.

use netloom_model::observed::Phase;
use netloom_proto::scheduler::v1 as ps;
use netloom_proto::v1 as p;
use netloom_service::testing::eventually;

use crate::keep::{containers, is_told};
use crate::world::{BOUND, World, actions, spec};

/// Four nodes in a line; then two made anew, the second of which waits until the first is healthy, and one that is gone.
fn in_a_line() -> (p::LabSpec, p::LabSpec) {
    let first = spec(4, &[(1, 2), (2, 3), (3, 4)]);
    let mut second = spec(3, &[(1, 2), (2, 3)]);
    for n in [1, 2] {
        second.nodes[n].env.insert("A".into(), "1".into());
    }
    second.nodes[1].healthcheck =
        Some(p::Healthcheck { test: vec!["CMD".into(), "true".into()], ..p::Healthcheck::default() });
    let wait = p::StageWait { node: "n2".into(), stage: p::Stage::Healthy.into() };
    second.nodes[2].stages =
        vec![p::StageSpec { stage: p::Stage::Create.into(), wait_for: vec![wait], exec: Vec::new() }];
    (first, second)
}

/// What is set aside on the host, by node.
pub fn aside(world: &World) -> Vec<String> {
    let all = |s: &crate::fake::State| {
        s.exists.values().filter(|e| e.phase == Phase::Aside).map(|e| e.node.clone()).collect::<Vec<_>>()
    };
    let mut nodes = world.host().read(all);
    nodes.sort();
    nodes
}

#[tokio::test]
async fn a_cancel_at_any_step_gives_back_the_very_containers() {
    let (first, second) = in_a_line();
    let steps = [
        "decided",
        "going aside",
        "aside",
        "host out of reach",
        "held by a stage",
        "not linked",
        "well for a moment",
        "released",
    ];
    for (step, restart) in steps.into_iter().flat_map(|step| [(step, false), (step, true)]) {
        let mut world = World::with(&["h1"], "aside_watch_ms = 1000").await;
        world.deploy("l", first.clone()).await;
        let before = containers(&world);
        let macs = |all: Vec<ps::NodeFacts>| -> Vec<String> {
            all.into_iter().flat_map(|n| n.interfaces).map(|i| i.mac).collect()
        };
        let addresses = macs(world.nodes("l").await);
        world.host().with(|s| {
            s.health
                .insert("n2".into(), if step == "held by a stage" { "starting" } else { "healthy" }.into());
            match step {
                "going aside" => s.hold_aside = true,
                "aside" | "host out of reach" => s.hold = true,
                "not linked" => s.unplugged = true,
                "released" => s.hold_removals = true,
                _ => {}
            }
        });
        let operation = world.apply("l", second.clone()).await.unwrap();
        assert_eq!(
            actions(&operation),
            ["RECREATE node n2", "RECREATE node n3", "DELETE node n4", "DELETE link n3:eth2--n4:eth1"]
        );
        let told = |id: &'static str, state: &'static str| is_told(&world, &operation.id, id, state);
        match step {
            "decided" => {}
            "going aside" => told("n4", "STOPPING").await,
            "aside" | "host out of reach" => {
                eventually("all are aside", BOUND, || async { aside(&world) == ["n2", "n3", "n4"] }).await;
                if step == "host out of reach" {
                    world.host().with(|s| s.silent = true);
                    world.node_is("l", "n1", p::NodeState::Unknown).await;
                }
            }
            "held by a stage" => {
                told("n2", "READY").await;
                eventually("n3 is aside", BOUND, || async { aside(&world) == ["n2", "n3", "n4"] }).await;
                let n3 = world.node("l", "n3").await;
                assert_eq!(
                    (n3.state(), n3.reason.as_str()),
                    (p::NodeState::Pending, "waits for n2 to be healthy")
                );
            }
            "not linked" => {
                told("n3", "RUNNING").await;
                assert_eq!(aside(&world), ["n2", "n3", "n4"], "until all is there");
            }
            _ => {
                told("n3", "READY").await;
                world.link_is("l", "n2:eth2--n3:eth1", p::LinkState::Up).await;
                assert_eq!(world.operation(&operation.id).await.state(), p::OperationState::Running);
                assert_eq!(aside(&world), ["n2", "n3", "n4"], "until all has been there for a moment");
            }
        }
        if step == "released" {
            let asked = || world.host().count("compute.remove") > 0;
            eventually("what was before is being removed", BOUND, || async { asked() }).await;
        }
        if restart {
            world.kill().await;
            world.start().await;
        }
        let cancelled = world.cancel(&operation.id).await;
        world.host().with(|s| {
            (s.hold, s.hold_aside, s.unplugged, s.hold_removals) = (false, false, false, false);
            s.silent = false;
            s.health.insert("n2".into(), "healthy".into());
        });
        if step == "released" {
            assert_eq!(cancelled.unwrap_err().reason, "NOT_CANCELLABLE", "restart: {restart}");
            let operation = world.done(&operation.id).await;
            assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
            assert!(aside(&world).is_empty() && world.host().running() == ["n1", "n2", "n3"]);
            assert_eq!(containers(&world).intersection(&before).count(), 1);
            continue;
        }
        cancelled.unwrap();
        let what = format!("{step}, restart {restart}: the same containers, and no other");
        eventually(&what, BOUND, || async {
            containers(&world) == before && world.host().running() == ["n1", "n2", "n3", "n4"]
        })
        .await;
        for node in ["n1", "n2", "n3", "n4"] {
            world.node_is("l", node, p::NodeState::Ready).await;
            assert_eq!(world.node("l", node).await.reason, "");
        }
        for link in ["n1:eth1--n2:eth1", "n2:eth2--n3:eth1", "n3:eth2--n4:eth1"] {
            world.link_is("l", link, p::LinkState::Up).await;
        }
        eventually("no more is there than is wanted", BOUND, || async {
            world.host().read(|s| s.wires.len() == 3 && s.nics.len() == 6)
        })
        .await;
        assert_eq!(macs(world.nodes("l").await), addresses, "{step}: with their interfaces");
        let again = world.apply("l", first.clone()).await.unwrap();
        assert_eq!(actions(&again), Vec::<String>::new(), "{step}: the cancel went back by itself");
    }
}

#[tokio::test]
async fn what_ran_before_a_deploy_that_failed_is_kept_for_its_file() {
    let world = World::new().await;
    let first = spec(3, &[(1, 2), (2, 3)]);
    let with = |name: &str| {
        let mut changed = spec(2, &[(1, 2)]);
        changed.nodes[1].env.insert(name.into(), "1".into());
        changed
    };
    world.deploy("l", first.clone()).await;
    let before = containers(&world);
    world.host().with(|s| s.crashes.extend(["A".to_owned(), "B".to_owned()]));
    for (name, kept) in [("A", vec!["n2", "n3"]), ("B", vec!["n2", "n2", "n3"])] {
        let operation = world.deploy("l", with(name)).await;
        assert_eq!(operation.state(), p::OperationState::Failed);
        let told = operation.error.unwrap().message;
        let says = "1 of 2 nodes did not come up\n  n2: FAILED: it is broken\nwhat ran before is kept (n2, n3): \
                    deploy the former file to have it back; it goes when a deploy succeeds";
        assert_eq!(told, says);
        assert_eq!(aside(&world), kept);
        let n2 = world.node("l", "n2").await;
        assert!(
            n2.reason.starts_with("it is broken; what ran before is kept: deploy the former file"),
            "{n2:?}"
        );
        let n3 = world.node("l", "n3").await;
        assert_eq!((n3.state(), n3.wanted()), (p::NodeState::Stopped, p::Wanted::Absent));
        assert!(n3.reason.starts_with("it is set aside: deploy the former file"), "{n3:?}");
    }
    // Asked for as it is, it fails as before and loses nothing.
    let again = world.deploy("l", with("B")).await;
    assert_eq!((again.state(), actions(&again)), (p::OperationState::Failed, Vec::new()));
    assert_eq!(aside(&world).len(), 3);

    let back = world.deploy("l", first.clone()).await;
    assert_eq!(actions(&back)[..2], ["RECREATE node n2", "START node n3"]);
    assert_eq!(back.plan.unwrap().actions[0].reason, "its former container comes back");
    assert_eq!(back.state, i32::from(p::OperationState::Succeeded), "{:?}", back.error);
    assert_eq!(containers(&world), before, "nothing else is left");
    assert_eq!(world.host().running(), ["n1", "n2", "n3"]);
    assert_eq!(world.node("l", "n2").await.reason, "");

    // The next one that works keeps nothing; nor does a removal, whatever is aside.
    let operation = world.deploy("l", with("C")).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    assert_eq!((aside(&world).len(), world.host().running()), (0, vec!["n1".to_owned(), "n2".to_owned()]));
    world.deploy("l", with("A")).await;
    assert_eq!(aside(&world), ["n2"]);
    let operation = world.destroy("l").await.unwrap();
    world.done(&operation.id).await;
    assert!(world.host().read(|s| s.exists.is_empty() && s.nics.is_empty()));
}

#[tokio::test]
async fn a_deploy_that_heals_by_itself_keeps_nothing_once_it_is_asked_for_again() {
    let world = World::new().await;
    world.deploy("l", spec(1, &[])).await;
    let mut changed = spec(1, &[]);
    changed.nodes[0].env.insert("A".into(), "1".into());
    world.host().with(|s| s.crashes.insert("A".into()));
    assert_eq!(world.deploy("l", changed.clone()).await.state(), p::OperationState::Failed);
    world.host().with(|s| {
        s.crashes.clear();
        s.exists.retain(|_, e| e.phase == Phase::Aside);
    });
    world.node_is("l", "n1", p::NodeState::Ready).await;
    assert_eq!(aside(&world), ["n1"], "nobody said that it is good");
    let operation = world.deploy("l", changed).await;
    assert_eq!((operation.state(), actions(&operation)), (p::OperationState::Succeeded, Vec::new()));
    assert!(aside(&world).is_empty());
}

/// A change of a link that happened to find a successor running for a moment removed what an earlier deploy had kept.
#[tokio::test]
async fn a_change_of_a_link_does_not_remove_what_a_failed_deploy_kept() {
    let world = World::new().await;
    world.deploy("l", spec(2, &[(1, 2)])).await;
    let mut changed = spec(2, &[(1, 2)]);
    changed.nodes[1].env.insert("A".into(), "1".into());
    world.host().with(|s| s.crashes.insert("A".into()));
    assert_eq!(world.deploy("l", changed.clone()).await.state(), p::OperationState::Failed);
    world.host().with(|s| {
        s.crashes.clear();
        s.exists.retain(|_, e| e.phase == Phase::Aside || e.node != "n2");
    });
    world.node_is("l", "n2", p::NodeState::Ready).await;
    let wider = spec(2, &[(1, 2), (1, 2)]).links.remove(1);
    let id = "n1:eth2--n2:eth2";
    for (change, link) in [(ps::LinkChange::Create, Some(wider)), (ps::LinkChange::Delete, None)] {
        let request = ps::ChangeLinkRequest {
            lab: "l".into(),
            change: change.into(),
            link: if link.is_some() { String::new() } else { id.into() },
            spec: link,
            request_id: uuid::Uuid::now_v7().to_string(),
            ..ps::ChangeLinkRequest::default()
        };
        let operation = world.change_link(request.clone()).await.unwrap();
        assert_eq!(operation.kind(), p::OperationKind::Deploy);
        let operation = world.done(&operation.id).await;
        assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
        assert_eq!(aside(&world), ["n2"], "nobody said that its successor is good");
        let again = world.change_link(request).await.unwrap();
        assert_eq!(again.id, operation.id, "asked for once more by the same id, it is the same");
    }
    assert_eq!(world.deploy("l", changed).await.state(), p::OperationState::Succeeded);
    assert!(aside(&world).is_empty());
}

/// What could not be removed kept its operation under way for ever, which could not be cancelled, and every other from beginning.
#[tokio::test]
async fn what_cannot_be_removed_holds_no_lab() {
    let world = World::with(&["h1"], "removal_bound_ms = 500").await;
    let with = |name: &str| {
        let mut changed = spec(2, &[(1, 2)]);
        changed.nodes[1].env.insert(name.into(), "1".into());
        changed
    };
    // One that is replaced and one that is dropped.
    world.deploy("l", spec(3, &[(1, 2), (2, 3)])).await;
    world.host().with(|s| s.busy = true);
    for (name, stuck) in [("A", vec!["n2", "n3"]), ("B", vec!["n2", "n2", "n3"])] {
        let operation = world.deploy("l", with(name)).await;
        assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
        assert_eq!(aside(&world), stuck, "they could not be removed");
        assert_eq!(world.host().running(), ["n1", "n2"]);
    }
    let operation = world.destroy("l").await.unwrap();
    world.host().with(|s| s.busy = false);
    assert_eq!(world.done(&operation.id).await.state(), p::OperationState::Succeeded);
    assert!(world.host().read(|s| s.exists.is_empty() && s.nics.is_empty()), "nothing was forgotten");
}

#[tokio::test]
async fn a_host_that_is_lost_before_it_removed_what_was_before_holds_no_lab() {
    for restart in [false, true] {
        let mut world = World::with(&["h1"], "removal_bound_ms = 1500").await;
        world.deploy("l", spec(2, &[(1, 2)])).await;
        world.host().with(|s| s.hold_removals = true);
        let mut changed = spec(2, &[(1, 2)]);
        changed.nodes[1].env.insert("A".into(), "1".into());
        let operation = world.apply("l", changed.clone()).await.unwrap();
        let asked = || world.host().count("compute.remove") > 0;
        eventually("what was before is being removed", BOUND, || async { asked() }).await;
        world.host().with(|s| s.silent = true);
        if restart {
            world.kill().await;
            world.start().await;
        }
        let operation = world.done(&operation.id).await;
        assert_eq!(operation.state(), p::OperationState::Succeeded, "restart {restart}: {operation:?}");
        assert_eq!(aside(&world), ["n2"]);
        world.host().with(|s| (s.silent, s.hold_removals) = (false, false));
        eventually("it is removed once its host is back", BOUND, || async { aside(&world).is_empty() }).await;
    }
}

#[tokio::test]
async fn what_is_set_aside_has_no_room_reserved_and_asks_for_it_when_it_comes_back() {
    let world = World::new().await;
    let sized = |cpu_millis: u32, env: &str| {
        let mut lab = spec(1, &[]);
        lab.nodes[0].cpu_request_millis = cpu_millis;
        lab.nodes[0].env.insert(env.into(), "1".into());
        lab
    };
    world.deploy("l", sized(3_000, "A")).await;
    world.host().with(|s| s.crashes.insert("B".into()));
    assert_eq!(world.deploy("l", sized(500, "B")).await.state(), p::OperationState::Failed);
    let other = world.deploy("m", sized(2_000, "C")).await;
    assert_eq!(other.state(), p::OperationState::Succeeded, "{other:?}");
    let failure = world.apply("l", sized(3_000, "A")).await.unwrap_err();
    assert!(failure.message.contains("more than their hosts have free"), "{}", failure.message);
    let gone = world.destroy("m").await.unwrap();
    world.done(&gone.id).await;
    let back = world.deploy("l", sized(3_000, "A")).await;
    assert_eq!(back.state(), p::OperationState::Succeeded, "{back:?}");
}

/// A deploy of what worked, after one that failed, and one of a third thing, cancelled when they are far: what was there when they began is there again.
#[tokio::test]
async fn a_cancel_after_a_deploy_that_failed_gives_back_what_was_there() {
    let with = |name: &str, image: &str| {
        let mut changed = spec(2, &[(1, 2)]);
        changed.nodes[1].env.insert(name.into(), "1".into());
        if !image.is_empty() {
            changed.nodes[1].image = image.into();
        }
        changed
    };
    for restart in [false, true] {
        let mut world = World::new().await;
        world.host().with(|s| s.crashes.insert("B".into()));
        world.deploy("l", with("A", "")).await;
        let good = containers(&world);
        assert_eq!(world.deploy("l", with("B", "")).await.state(), p::OperationState::Failed);
        let both = containers(&world);
        let failed = world.node("l", "n2").await.uid;
        assert_eq!((aside(&world), both.len()), (vec!["n2".to_owned()], 3));

        // What worked is back, and what failed aside, when it is cancelled.
        world.host().with(|s| s.unplugged = true);
        let rescue = world.apply("l", with("A", "")).await.unwrap();
        is_told(&world, &rescue.id, "n2", "RUNNING").await;
        assert_eq!(containers(&world), both);
        if restart {
            world.kill().await;
            world.start().await;
        }
        world.cancel(&rescue.id).await.unwrap();
        world.host().with(|s| s.unplugged = false);
        eventually("all is as it was", BOUND, || async {
            containers(&world) == both
                && aside(&world) == ["n2"]
                && world.host().running() == ["n1", "n2"]
                && world.node("l", "n2").await.uid == failed
        })
        .await;
        let rescue = world.deploy("l", with("A", "")).await;
        assert_eq!(rescue.state(), p::OperationState::Succeeded, "{rescue:?}");
        assert_eq!(containers(&world), good);

        // An image that cannot be had changes nothing; nor does a cancel of what corrects that.
        assert_eq!(world.deploy("l", with("C", "linx:1")).await.state(), p::OperationState::Failed);
        assert_eq!(containers(&world), good);
        world.host().with(|s| s.unplugged = true);
        let corrected = world.apply("l", with("C", "")).await.unwrap();
        is_told(&world, &corrected.id, "n2", "RUNNING").await;
        world.cancel(&corrected.id).await.unwrap();
        world.host().with(|s| s.unplugged = false);
        eventually("what ran runs, and nothing else", BOUND, || async {
            containers(&world) == good && aside(&world).is_empty()
        })
        .await;
        world.node_is("l", "n2", p::NodeState::Ready).await;
    }
}

#[tokio::test]
async fn a_cancel_leaves_what_was_stopped_and_unplugged_as_it_was() {
    let world = World::new().await;
    world.deploy("l", spec(2, &[(1, 2)])).await;
    let stopped = world.change_nodes("l", ps::NodeChange::Stop, &["n2"]).await.unwrap();
    world.done(&stopped.id).await;
    let before = containers(&world);
    let mut changed = spec(2, &[(1, 2)]);
    changed.nodes[1].env.insert("A".into(), "1".into());
    world.host().with(|s| s.unplugged = true);
    let operation = world.apply("l", changed).await.unwrap();
    is_told(&world, &operation.id, "n2", "RUNNING").await;
    world.cancel(&operation.id).await.unwrap();
    eventually("the former is there, stopped", BOUND, || async {
        containers(&world) == before && world.host().running() == ["n1"]
    })
    .await;
    assert_eq!(world.node("l", "n2").await.wanted(), p::Wanted::Stopped);
}

/// It was over at once, so that nobody could take it back.
#[tokio::test]
async fn a_deploy_that_only_drops_nodes_can_be_cancelled_until_it_was_looked_at() {
    let mut world = World::with(&["h1"], "aside_watch_ms = 4000").await;
    world.deploy("l", spec(3, &[(1, 2), (2, 3)])).await;
    let before = containers(&world);
    for restart in [false, true] {
        let operation = world.apply("l", spec(2, &[(1, 2)])).await.unwrap();
        eventually("it is aside", BOUND, || async { aside(&world) == ["n3"] }).await;
        if restart {
            world.kill().await;
            world.start().await;
        }
        assert_eq!(world.operation(&operation.id).await.state(), p::OperationState::Running);
        world.cancel(&operation.id).await.unwrap();
        world.node_is("l", "n3", p::NodeState::Ready).await;
        world.link_is("l", "n2:eth2--n3:eth1", p::LinkState::Up).await;
        assert_eq!((containers(&world), world.host().running().len()), (before.clone(), 3));
    }
    let operation = world.deploy("l", spec(2, &[(1, 2)])).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded);
    assert_eq!((aside(&world).len(), containers(&world).len()), (0, 2), "then it goes");
}

/// Docker refused what was not free yet, and the node was FAILED for a moment.
#[tokio::test]
async fn a_host_port_or_address_that_another_node_gives_up_is_waited_for() {
    let world = World::new().await;
    let port = |host_port: u32| p::PortMapping { host_port, node_port: 80, ..p::PortMapping::default() };
    let mgmt = || Some(p::MgmtSpec { ipv4_subnet: "10.9.0.0/24".into(), ..p::MgmtSpec::default() });
    let mut first = spec(3, &[]);
    first.mgmt = mgmt();
    first.nodes[0].ports = vec![port(8_080)];
    first.nodes[1].mgmt_ipv4 = "10.9.0.9".into();
    first.nodes[2].ports = vec![port(8_081)];
    world.deploy("l", first.clone()).await;
    // One that is dropped, one that gives up its address, and one that gives up its port while its own successor's image is far; three that want what these have.
    let mut second = spec(6, &[]);
    second.mgmt = mgmt();
    second.nodes[2].image = "far:1".into();
    second.nodes[3].ports = vec![port(8_080)];
    second.nodes[4].mgmt_ipv4 = "10.9.0.9".into();
    second.nodes[5].ports = vec![port(8_081)];
    second.nodes.remove(0);
    world.host().with(|s| {
        s.hold_aside = true;
        s.hold_pulls = true;
        s.pullable.insert("far:1".into());
    });
    let operation = world.apply("l", second).await.unwrap();
    is_told(&world, &operation.id, "n3", "PULLING").await;
    let why = "waits for a host port or an address that another node gives up";
    let all_wait = || async {
        let mut waits = 0;
        for node in ["n4", "n5", "n6"] {
            let node = world.node("l", node).await;
            waits += usize::from(node.state() == p::NodeState::Pending && node.reason == why);
        }
        waits == 3
    };
    eventually("they wait", BOUND, all_wait).await;
    world.host().with(|s| s.hold_pulls = false);
    eventually("what leaves is asked to", BOUND, || async {
        world.host().read(|s| s.wanted.values().filter(|i| i.aside).count() == 3)
    })
    .await;
    assert!(all_wait().await);
    assert_eq!(world.host().running(), ["n1", "n2", "n3"]);
    world.host().with(|s| s.hold_aside = false);
    let operation = world.done(&operation.id).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    assert_eq!(world.host().running(), ["n2", "n3", "n4", "n5", "n6"]);
}
