//! Labs that come, change and go.

use netloom_model::id::Digest;
use netloom_proto::scheduler::v1 as ps;
use netloom_proto::v1 as p;
use netloom_service::testing::eventually;
use prost::Message as _;

use crate::world::{BOUND, World, actions, spec};

#[tokio::test]
async fn a_lab_comes_up_changes_and_goes() {
    let world = World::new().await;
    let first = spec(3, &[(1, 2), (2, 3)]);
    let operation = world.apply("Demo", first.clone()).await.unwrap();
    assert_eq!(operation.state(), p::OperationState::Running);
    assert_eq!(actions(&operation).len(), 5);
    let operation = world.done(&operation.id).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    assert!(operation.progress.iter().all(|p| ["READY", "UP"].contains(&p.state.as_str())), "{operation:?}");
    assert_eq!(world.host().running(), ["n1", "n2", "n3"]);
    for node in world.nodes("demo").await {
        assert_eq!(node.state(), p::NodeState::Ready);
        assert_eq!((node.host.as_str(), node.lab.as_str()), ("h1", "Demo"));
        assert!(node.interfaces.iter().all(|i| i.present && i.carrier && !i.link.is_empty()), "{node:?}");
        assert_eq!(node.instance_name, format!("netloom-Demo-{}", node.spec.unwrap().id));
    }
    assert!(world.links("demo").await.iter().all(|l| l.state() == p::LinkState::Up && l.plane == "ovs"));
    // exec commands were released once a node, after its links.
    assert_eq!((world.host().count("settled n1"), world.host().count("settled n2")), (1, 1));
    let lab = world.lab("demo").await.unwrap();
    assert_eq!(lab.node_tallies.iter().map(|t| t.count).sum::<u32>(), 3);
    assert_eq!((lab.generation, lab.operation.as_str()), (1, ""));

    // The same file again: nothing.
    let before = world.host().read(|s| s.calls.len());
    let again = world.apply("demo", first.clone()).await.unwrap();
    assert_eq!((again.state(), actions(&again)), (p::OperationState::Succeeded, vec![]));
    let list = ps::ListOperationsRequest { page_size: 10, before: String::new() };
    let kept = world.client.clone().list_operations(list).await.unwrap().into_inner();
    assert_eq!(kept.operations.len(), 1);
    assert_eq!(world.host().read(|s| s.calls.len()), before, "hosts are not even asked");

    // One node's image, one link's MTU, one node less, one more: only those.
    let (n1, n2) = (world.node("demo", "n1").await, world.node("demo", "n2").await);
    let mut second = spec(4, &[(1, 2), (2, 4)]);
    second.nodes.remove(2);
    second.nodes[1].env.insert("A".into(), "1".into());
    second.links[0].mtu = 1_500;
    let operation = world.deploy("demo", second).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    assert_eq!(
        actions(&operation),
        [
            "RECREATE node n2",
            "CREATE node n4",
            "DELETE node n3",
            "UPDATE link n1:eth1--n2:eth1",
            "CREATE link n2:eth2--n4:eth1",
            "DELETE link n2:eth2--n3:eth1"
        ]
    );
    assert_eq!(operation.plan.unwrap().actions[0].reason, "forces a new container: env +A");
    assert_eq!(world.node("demo", "n1").await.uid, n1.uid);
    assert_ne!(world.node("demo", "n2").await.uid, n2.uid);
    assert_eq!(world.host().running(), ["n1", "n2", "n4"]);
    let wires = world.host().read(|s| s.wires.len());
    assert_eq!(wires, 2, "the wire of the deleted link is gone");

    let operation = world.destroy("demo").await.unwrap();
    assert_eq!(actions(&operation).len(), 5);
    let operation = world.done(&operation.id).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    assert!(operation.progress.iter().all(|p| p.state == "GONE"), "{operation:?}");
    assert_eq!(world.lab("demo").await.unwrap_err().code(), tonic::Code::NotFound);
    world.host().read(|s| {
        assert!(s.exists.is_empty() && s.wanted.is_empty() && s.nics.is_empty() && s.wires.is_empty());
        assert_eq!(s.calls.iter().filter(|c| c.starts_with("lab gone")).count(), 1);
    });
}

#[tokio::test]
async fn a_link_that_moves_keeps_the_interface_that_stays() {
    let world = World::new().await;
    world.deploy("l", spec(3, &[(1, 2)])).await;
    let nic = world.node("l", "n1").await.interfaces[0].mac.clone();
    let start = world.host().read(|s| s.exists.values().find(|e| e.node == "n1").unwrap().start.clone());
    let operation = world.deploy("l", spec(3, &[(1, 3)])).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    assert_eq!(world.node("l", "n1").await.interfaces[0].mac, nic);
    let now = world.host().read(|s| s.exists.values().find(|e| e.node == "n1").unwrap().start.clone());
    assert_eq!(start, now, "a changed link never restarts a node");
}

#[tokio::test]
async fn a_bridge_joins_its_links() {
    let world = World::new().await;
    let mut lab = spec(3, &[(1, 3), (2, 3)]);
    lab.nodes[2] = p::NodeSpec { id: "n3".into(), kind: "bridge".into(), ..p::NodeSpec::default() };
    let operation = world.deploy("b", lab).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    let bridge = world.node("b", "n3").await;
    assert_eq!(bridge.state(), p::NodeState::Ready);
    // What a state was read from is what its host says, and nothing is made of it.
    assert_eq!(bridge.sources, [i32::from(p::EvidenceSource::Ovsdb)]);
    world.host().read(|s| {
        assert_eq!((s.segments.len(), s.nics.len(), s.wires.len(), s.exists.len()), (1, 2, 2, 2));
        assert!(s.segments.keys().all(|id| *id < 1 << 60));
    });
    let operation = world.destroy("b").await.unwrap();
    world.done(&operation.id).await;
    assert!(world.host().read(|s| s.segments.is_empty()));
}

#[tokio::test]
async fn a_bridge_added_to_a_running_lab_is_waited_for() {
    let world = World::new().await;
    let mut lab = spec(2, &[(1, 2)]);
    world.deploy("b", lab.clone()).await;
    world.host().with(|s| s.slow_segments = true);
    lab.nodes.push(p::NodeSpec { id: "s1".into(), kind: "bridge".into(), ..p::NodeSpec::default() });
    let end = |node: &str, interface: &str| {
        Some(p::Endpoint { node: node.into(), interface: interface.into(), ..p::Endpoint::default() })
    };
    lab.links.push(p::LinkSpec { a: end("n1", "eth2"), b: end("s1", "p1"), ..p::LinkSpec::default() });
    let operation = world.apply("b", lab).await.unwrap();
    world.node_is("b", "s1", p::NodeState::Creating).await;
    assert_eq!(world.operation(&operation.id).await.state(), p::OperationState::Running);
    world.host().with(|s| s.slow_segments = false);
    let operation = world.done(&operation.id).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    assert_eq!(world.node("b", "s1").await.state(), p::NodeState::Ready);
}

#[tokio::test]
async fn a_node_asks_for_more_only_while_its_host_has_it() {
    let world = World::new().await;
    let mut other = spec(1, &[]);
    other.nodes[0].cpu_request_millis = 2_000;
    world.deploy("other", other).await;
    let asking = |cpu: u32| {
        let mut lab = spec(2, &[]);
        lab.nodes[0].cpu_request_millis = cpu;
        lab.nodes[1].cpu_request_millis = 500;
        lab
    };
    world.deploy("g", asking(1_000)).await;
    let uid = world.node("g", "n1").await.uid;
    let failure = world.apply("g", asking(1_600)).await.unwrap_err();
    assert_eq!(failure.code, netloom_model::failure::Code::FailedPrecondition);
    assert_eq!((failure.reason.as_str(), failure.metadata["nodes"].as_str()), ("INSUFFICIENT_CPU", "n1"));
    assert!(
        failure.message.contains("n1: h1 needs 1.60 CPU, 1.50 of 4.00 free, 0.10 missing"),
        "{}",
        failure.message
    );
    let kept = world.node("g", "n1").await;
    assert_eq!((kept.uid.as_str(), kept.spec.unwrap().cpu_request_millis), (uid.as_str(), 1_000));
    let operation = world.deploy("g", asking(1_500)).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    assert_eq!(actions(&operation), ["UPDATE node n1"]);
    assert_eq!(world.node("g", "n1").await.uid, uid, "it is not made anew");
}

#[tokio::test]
async fn what_holds_a_removal_up_is_told() {
    let world = World::new().await;
    world.deploy("d", spec(1, &[])).await;
    world.host().with(|s| s.stuck = "its network is in use".into());
    let operation = world.destroy("d").await.unwrap();
    eventually("the operation says why", BOUND, || async {
        let operation = world.operation(&operation.id).await;
        let why = "files or networks on host h1 could not be removed, tried again: its network is in use";
        operation.progress.iter().any(|p| p.state == "GONE" && p.detail.contains(why))
    })
    .await;
    world.host().with(|s| s.stuck.clear());
    let operation = world.done(&operation.id).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded);
    assert!(operation.progress.iter().all(|p| p.detail.is_empty()), "{operation:?}");
}

#[tokio::test]
async fn what_fits_runs_and_the_rest_waits_for_room() {
    let world = World::new().await;
    let mut big = spec(3, &[]);
    for node in &mut big.nodes {
        node.cpu_request_millis = 1_500;
    }
    let operation = world.deploy("big", big.clone()).await;
    assert_eq!(operation.state(), p::OperationState::Failed);
    let error = operation.error.unwrap();
    assert!(error.message.contains("1 of 3 nodes did not come up"), "{}", error.message);
    assert!(error.message.contains("needs 1.50 CPU, 1.00 of 4.00 free, 0.50 missing"), "{}", error.message);
    let unplaced = &operation.plan.unwrap().unplaced;
    assert_eq!((unplaced.len(), unplaced[0].rejections[0].code.as_str()), (1, "INSUFFICIENT_CPU"));
    let waits = world.node("big", "n3").await;
    assert_eq!((waits.state(), waits.rejections.len()), (p::NodeState::Unschedulable, 1));

    // Planned again while it is full: the running nodes are not counted twice.
    let again = world.apply("big", big).await.unwrap();
    assert_eq!(actions(&again), Vec::<String>::new());

    // The host grows.
    world.host().with(|s| s.cpu_millis = 8_000);
    world.node_is("big", "n3", p::NodeState::Ready).await;

    // Another lab takes what is left, and its going makes room for the next one.
    let mut other = spec(2, &[]);
    for node in &mut other.nodes {
        node.cpu_request_millis = 1_750;
    }
    assert_eq!(world.deploy("other", other.clone()).await.state(), p::OperationState::Succeeded);
    assert_eq!(world.deploy("third", other).await.state(), p::OperationState::Failed);
    let operation = world.destroy("other").await.unwrap();
    world.done(&operation.id).await;
    world.node_is("third", "n1", p::NodeState::Ready).await;
    world.node_is("third", "n2", p::NodeState::Ready).await;
}

#[tokio::test]
async fn an_image_is_fetched_once_and_one_that_cannot_be_had_fails_its_nodes_only() {
    let world = World::new().await;
    world.host().with(|s| s.pullable.insert("far:1".into()));
    let mut lab = spec(4, &[(1, 2)]);
    lab.nodes[0].image = "far:1".into();
    lab.nodes[1].image = "far:1".into();
    lab.nodes[2].image = "nowhere:1".into();
    let operation = world.deploy("pull", lab.clone()).await;
    assert_eq!(operation.state(), p::OperationState::Failed);
    let error = operation.error.unwrap().message;
    assert!(error.contains("n3: FAILED: nowhere:1: not found upstream"), "{error}");
    assert_eq!(world.host().running(), ["n1", "n2", "n4"]);
    assert_eq!(world.host().count("compute.pull_image"), 2);
    let users = world.client.clone().list_image_users(ps::ListImageUsersRequest {}).await.unwrap();
    let users: Vec<(String, String, usize)> =
        users.into_inner().users.into_iter().map(|u| (u.lab, u.reference, u.digests.len())).collect();
    let used = |image: &str, digests| ("pull".to_owned(), image.to_owned(), digests);
    assert_eq!(users, [used("far:1", 1), used(&lab.nodes[3].image, 1), used("nowhere:1", 0)]);
    // Asked again, it is tried again.
    world.host().with(|s| s.pullable.insert("nowhere:1".into()));
    let operation = world.deploy("pull", lab).await;
    assert_eq!(actions(&operation), ["UPDATE node n3"]);
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
}

/// Two hosts made nodes of one deploy from what each had found under a name, and nobody was told.
#[tokio::test]
async fn nodes_of_one_deploy_are_made_from_the_same_on_all_hosts() {
    let world = World::with(&["h1", "h2"], "").await;
    for (host, others) in world.hosts.iter().zip([false, true]) {
        host.with(|s| {
            s.pullable.insert("far:1".into());
            s.pulls_others = others;
        });
    }
    let mut lab = spec(2, &[]);
    for node in &mut lab.nodes {
        (node.cpu_request_millis, node.image) = (3_000, "far:1".into());
    }
    let operation = world.deploy("same", lab.clone()).await;
    assert_eq!(operation.state(), p::OperationState::Failed);
    let error = operation.error.unwrap().message;
    let digests = ["far:1", "far:1 of others"].map(|meant| Digest::of(meant.as_bytes()).to_string());
    for part in ["on host h1", "on host h2", "push the one that is meant", &digests[0], &digests[1]] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let running = || world.hosts.iter().map(|host| host.running().len()).sum::<usize>();
    assert_eq!(running(), 1, "what came first runs");
    // Who has read that and deploys again means it.
    let operation = world.deploy("same", lab.clone()).await;
    assert_eq!(
        (operation.state(), actions(&operation).len()),
        (p::OperationState::Succeeded, 1),
        "{operation:?}"
    );
    assert_eq!(running(), 2);
}

/// A base image that was set aside was fetched for nodes about to be made only: one that was there could not be started again, and nobody fetched it.
#[tokio::test]
async fn an_image_that_is_gone_from_under_a_disk_is_fetched_again_by_its_digest() {
    let world = World::new().await;
    world.deploy("lost", spec(1, &[])).await;
    assert_eq!(world.host().count("compute.pull_image"), 0);
    let digest = Digest::of(b"what the name was").to_string();
    world.host().with(|s| {
        s.pullable.insert(format!("linux:1@{digest}"));
        s.lost_images.insert("n1".into(), digest.clone());
    });
    let is_there = || async { world.host().with(|s| s.lost_images.is_empty()) };
    eventually("it is fetched again", BOUND, is_there).await;
    assert_eq!(world.host().running(), ["n1"], "it is still wanted there");
}

#[tokio::test]
async fn a_fetch_whose_ticket_ran_out_or_whose_bytes_were_mended_meanwhile_is_asked_for_anew() {
    let world = World::new().await;
    world.host().with(|s| {
        s.pullable.insert("far:1".into());
        s.refused_pulls = vec!["BLOB_MENDED", "TICKET_EXPIRED"];
    });
    let mut lab = spec(1, &[]);
    lab.nodes[0].image = "far:1".into();
    let operation = world.deploy("pull", lab).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    assert_eq!(world.host().count("compute.pull_image"), 3);
}

#[tokio::test]
async fn files_are_on_the_host_before_the_node_is() {
    let world = World::new().await;
    let content = b"hostname r1\n".to_vec();
    let digest = Digest::of(&content).to_string();
    let mut lab = spec(1, &[]);
    lab.files =
        vec![p::FileEntry { path: "r1.conf".into(), digest: digest.clone(), size_bytes: 12, mode: 0o644 }];
    lab.nodes[0].binds = vec![p::Bind {
        source: Some(p::bind::Source::BundlePath("r1.conf".into())),
        target: "/etc/r1.conf".into(),
        read_only: false,
    }];
    let failure = world.apply("f", lab.clone()).await.unwrap_err();
    assert_eq!(
        (failure.reason.as_str(), failure.metadata["digests"].as_str()),
        ("FILES_MISSING", digest.as_str())
    );
    let (a, b) = content.split_at(5);
    let parts = [a, b].map(|part| ps::PutFilesRequest { digest: digest.clone(), content: part.to_vec() });
    world.client.clone().put_files(futures::stream::iter(parts)).await.unwrap();
    let operation = world.deploy("f", lab.clone()).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    assert_eq!(world.host().read(|s| s.files["r1.conf"].clone()), content);
    let calls = world.host().read(|s| s.calls.clone());
    let at = |call: &str| calls.iter().position(|c| c == call).unwrap();
    assert!(at("compute.put_files") < at("compute.ensure"));

    // What the spec tells of a file is what was sent.
    lab.files[0].size_bytes = 11;
    let failure = world.apply("f", lab.clone()).await.unwrap_err();
    assert_eq!((failure.reason.as_str(), failure.violations.len()), ("INVALID_REQUEST", 1));
    assert_eq!(failure.violations[0].field, "spec.files[0].size_bytes");
    lab.files[0].size_bytes = 12;

    // A lab that goes while its files are sent leaves none.
    world.host().with(|s| {
        s.hold_files = true;
        s.files.clear();
    });
    let operation = world.apply("late", lab).await.unwrap();
    eventually("files are sent", BOUND, || async { world.host().count("compute.put_files") == 2 }).await;
    world.cancel(&operation.id).await.unwrap();
    eventually("the lab is gone", BOUND, || async { world.lab("late").await.is_err() }).await;
    let removals = || world.host().read(|s| s.calls.iter().filter(|c| c.starts_with("lab gone")).count());
    assert_eq!(removals(), 1);
    world.host().with(|s| s.hold_files = false);
    eventually("it is removed once more", BOUND, || async { removals() == 2 }).await;
    world.host().read(|s| assert!(s.files.is_empty()));

    // A content under another's digest is refused.
    let wrong = ps::PutFilesRequest { digest, content: b"else".to_vec() };
    let refused = world.client.clone().put_files(futures::stream::iter([wrong])).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
}

#[tokio::test]
async fn a_cancelled_deploy_goes_back_to_what_was_completed() {
    let world = World::new().await;
    world.deploy("c", spec(1, &[])).await;
    world.host().with(|s| s.hold = true);
    let operation = world.apply("c", spec(3, &[(1, 2)])).await.unwrap();
    let busy = world.apply("c", spec(2, &[])).await.unwrap_err();
    assert_eq!(
        (busy.reason.as_str(), busy.metadata["operation"].as_str()),
        ("OPERATION_ACTIVE", operation.id.as_str())
    );
    assert_eq!(world.destroy("c").await.unwrap_err().reason, "OPERATION_ACTIVE");
    let cancelled = world.cancel(&operation.id).await.unwrap();
    assert_eq!(cancelled.state(), p::OperationState::Cancelled);
    assert_eq!(world.cancel(&operation.id).await.unwrap_err().reason, "OPERATION_DONE");
    world.host().with(|s| s.hold = false);
    eventually("only n1 is left", BOUND, || async {
        world.nodes("c").await.len() == 1 && world.host().running() == ["n1"]
    })
    .await;
    assert_eq!(world.lab("c").await.unwrap().spec.unwrap().nodes.len(), 1);

    // Also one that failed in part was over: a cancel goes back to it, and takes nothing away that runs.
    world.host().with(|s| s.broken.insert("n2".into()));
    assert_eq!(world.deploy("part", spec(2, &[])).await.state(), p::OperationState::Failed);
    world.host().with(|s| s.hold = true);
    let operation = world.apply("part", spec(3, &[])).await.unwrap();
    world.cancel(&operation.id).await.unwrap();
    world.host().with(|s| s.hold = false);
    eventually("n3 is gone", BOUND, || async { world.nodes("part").await.len() == 2 }).await;
    assert!(world.host().running().len() >= 2);

    // One that was never over goes away.
    world.host().with(|s| s.hold = true);
    let operation = world.apply("new", spec(2, &[(1, 2)])).await.unwrap();
    world.cancel(&operation.id).await.unwrap();
    eventually("the lab is gone", BOUND, || async { world.lab("new").await.is_err() }).await;
}

/// What a host had is written down: a scheduler that begins while it is silent goes by that.
#[tokio::test]
async fn a_request_does_not_grow_beyond_a_silent_host_over_a_restart() {
    let mut world = World::new().await;
    let asks = |cpu_millis| {
        let mut lab = spec(1, &[]);
        lab.nodes[0].cpu_request_millis = cpu_millis;
        lab
    };
    world.deploy("l", asks(1_000)).await;
    world.host().with(|s| s.silent = true);
    world.kill().await;
    world.start().await;
    let failure = world.apply("l", asks(100_000)).await.unwrap_err();
    assert!(failure.message.contains("more than their hosts have free"), "{failure:?}");
    world.apply("l", asks(2_000)).await.unwrap();
}

/// What a running deploy gave up was another lab's at once: after a cancel more was reserved than there was.
#[tokio::test]
async fn what_a_cancel_gives_back_is_kept_from_other_labs() {
    let asks = |nodes, cpu_millis, env: &str| {
        let mut lab = spec(nodes, &[]);
        lab.nodes[0].cpu_request_millis = cpu_millis;
        lab.nodes[0].env.insert(env.into(), "1".into());
        lab
    };
    // In place, and by another container.
    for env in ["A", "B"] {
        let mut world = World::new().await;
        world.deploy("l", asks(1, 3_000, "A")).await;
        world.host().with(|s| s.hold = true);
        let less = world.apply("l", asks(2, 500, env)).await.unwrap();
        world.apply("m", asks(1, 2_000, "A")).await.unwrap();
        world.node_is("m", "n1", p::NodeState::Unschedulable).await;
        world.kill().await;
        world.start().await;
        let other = world.deploy("other", asks(1, 2_000, "A")).await;
        assert_eq!(other.plan.unwrap().unplaced.len(), 1, "over a restart too");
        let gone = world.destroy("other").await.unwrap();
        world.done(&gone.id).await;
        world.cancel(&less.id).await.expect("it was under way all the time");
        assert_eq!(crate::drain::facts(&world, "h1").await.cpu_reserved_millis, 3_000);
        world.host().with(|s| s.hold = false);
        world.node_is("l", "n1", p::NodeState::Ready).await;
        assert_eq!(world.deploy("l", asks(2, 500, env)).await.state(), p::OperationState::Succeeded);
        world.node_is("m", "n1", p::NodeState::Ready).await;
    }
}

/// The same within a lab: the former request and what had found room by it were both there.
#[tokio::test]
async fn a_cancel_lets_a_node_wait_again_that_has_what_another_one_gave_up() {
    let world = World::new().await;
    let asks = |first| {
        let mut lab = spec(2, &[(1, 2)]);
        (lab.nodes[0].cpu_request_millis, lab.nodes[1].cpu_request_millis) = (first, 2_000);
        lab
    };
    world.deploy("l", asks(3_000)).await;
    assert_eq!(world.node("l", "n2").await.state(), p::NodeState::Unschedulable);
    world.host().with(|s| s.hold = true);
    let operation = world.apply("l", asks(500)).await.unwrap();
    assert!(!world.node("l", "n2").await.host.is_empty());
    world.cancel(&operation.id).await.unwrap();
    world.host().with(|s| s.hold = false);
    world.node_is("l", "n2", p::NodeState::Unschedulable).await;
    assert_eq!(crate::drain::facts(&world, "h1").await.cpu_reserved_millis, 3_000);
}

#[tokio::test]
async fn a_cancel_lets_a_node_wait_again_that_found_room_for_less() {
    let world = World::new().await;
    let asks = |cpu_millis| {
        let mut lab = spec(2, &[(1, 2)]);
        lab.nodes[1].cpu_request_millis = cpu_millis;
        lab
    };
    world.deploy("l", asks(1_000_000)).await;
    assert_eq!(world.node("l", "n2").await.state(), p::NodeState::Unschedulable);
    let reserved = || async { crate::drain::facts(&world, "h1").await.cpu_reserved_millis };
    let before = reserved().await;
    world.host().with(|s| s.hold = true);
    let operation = world.apply("l", asks(100)).await.unwrap();
    assert!(!world.node("l", "n2").await.host.is_empty());
    world.cancel(&operation.id).await.unwrap();
    world.host().with(|s| s.hold = false);
    eventually("n2 waits for room", BOUND, || async {
        let nodes = world.nodes("l").await;
        let waits = |n: &ps::NodeFacts| n.host.is_empty() && n.state() == p::NodeState::Unschedulable;
        nodes.len() == 2 && nodes.iter().filter(|n| waits(n)).count() == 1
    })
    .await;
    assert_eq!(reserved().await, before);
    world.destroy("l").await.unwrap();
    eventually("nothing is left", BOUND, || async { world.host().read(|s| s.exists.is_empty()) }).await;
}

#[tokio::test]
async fn a_lab_stays_on_one_host_that_takes_it_whole() {
    let world = World::with(&["h1", "h2"], "").await;
    let operation = world.deploy("one", spec(6, &[(1, 2), (3, 4)])).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    let hosts: std::collections::BTreeSet<String> =
        world.nodes("one").await.into_iter().map(|n| n.host).collect();
    assert_eq!(hosts.len(), 1);
}

#[tokio::test]
async fn exec_is_released_again_after_a_restart() {
    let world = World::new().await;
    world.deploy("r", spec(2, &[(1, 2)])).await;
    world.host().with(|s| s.restart("n1"));
    eventually("settled again", BOUND, || async { world.host().count("settled n1") == 2 }).await;
    world.node_is("r", "n1", p::NodeState::Ready).await;
    assert_eq!(world.host().count("settled n2"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_stay_under_the_size_of_a_message() {
    let world = World::with(&["h1"], "memory_overcommit = 100.0").await;
    let mut lab = spec(40, &[]);
    for node in &mut lab.nodes {
        node.cpu_request_millis = 1;
        node.env.insert("BIG".into(), "x".repeat(150_000));
    }
    let operation = world.client.clone().max_encoding_message_size(16 << 20);
    let request = ps::ApplyLabRequest { lab: "big".into(), spec: Some(lab), ..Default::default() };
    let operation = operation.max_decoding_message_size(16 << 20).apply_lab(request).await.unwrap();
    let operation = world.done(&operation.into_inner().operation.unwrap().id).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{:?}", operation.error);
    assert_eq!(world.host().running().len(), 40);
    world.host().read(|s| assert!(s.largest_message > 1 << 20 && s.largest_message < 4 << 20));

    // So do pages, however many rows are asked for.
    let (mut after, mut nodes, mut pages) = (String::new(), Vec::new(), 0);
    loop {
        let request = ps::ListNodesRequest { lab: "big".into(), page_size: 1_000, after: after.clone() };
        let page = world.client.clone().list_nodes(request).await.unwrap().into_inner();
        assert!(page.encoded_len() <= 3 << 20 && !page.nodes.is_empty());
        nodes.extend(page.nodes.into_iter().map(|n| n.spec.unwrap().id));
        pages += 1;
        if !page.more {
            break;
        }
        after.clone_from(nodes.last().unwrap());
    }
    assert_eq!((pages, nodes.len()), (2, 40));
    assert!(nodes.iter().collect::<std::collections::BTreeSet<_>>().len() == 40);
    // One row at least, also one that is larger than a page.
    world.deploy("small", spec(1, &[])).await;
    let request = ps::ListLabsRequest { page_size: 10, after: String::new() };
    let mut client = world.client.clone().max_decoding_message_size(16 << 20);
    let page = client.list_labs(request).await.unwrap().into_inner();
    assert_eq!((page.labs.len(), page.labs[0].id.as_str(), page.more), (1, "big", true));
}
