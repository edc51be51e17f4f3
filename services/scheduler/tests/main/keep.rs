//! What was there before a change stays until what takes its place can be made, is kept until that is known to work, and a cancel finds it as it was.

use std::collections::{BTreeMap, BTreeSet};

use netloom_model::id::Digest;
use netloom_model::observed::Phase;
use netloom_proto::scheduler::v1 as ps;
use netloom_proto::v1 as p;
use netloom_service::testing::eventually;

use crate::world::{BOUND, World, actions, spec};

/// Every instance of the host that has its place, by its uid: with which hash and in which start it runs.
fn instances(world: &World) -> BTreeMap<String, (String, String, String)> {
    let of = |(uid, e): (&String, &crate::fake::Existing)| {
        (uid.clone(), (e.node.clone(), e.spec_hash.clone(), e.start.clone()))
    };
    world.host().read(|s| s.exists.iter().filter(|(_, e)| e.phase != Phase::Aside).map(of).collect())
}

/// Every container of the host, whatever became of it.
pub fn containers(world: &World) -> BTreeSet<String> {
    world.host().read(|s| s.exists.values().map(|e| e.id.clone()).collect())
}

fn wires(world: &World) -> (Vec<u64>, Vec<u64>) {
    world.host().read(|s| (s.wires.keys().copied().collect(), s.nics.keys().copied().collect()))
}

/// Waits until an operation tells this of an object.
pub async fn is_told(world: &World, operation: &str, id: &str, state: &str) {
    eventually(&format!("{id} is {state}"), BOUND, || async {
        let now = world.operation(operation).await;
        now.progress.iter().any(|p| p.id == id && p.state == state)
    })
    .await;
}

#[tokio::test]
async fn a_mistyped_image_costs_no_running_node() {
    let world = World::new().await;
    let first = spec(3, &[(1, 2), (2, 3)]);
    world.deploy("l", first.clone()).await;
    let (before, cables) = (instances(&world), wires(&world));
    let mut wrong = first.clone();
    wrong.nodes[1].image = "linx:1".into();
    wrong.nodes[2].env.insert("A".into(), "1".into());
    let operation = world.deploy("l", wrong.clone()).await;
    assert_eq!(actions(&operation), ["RECREATE node n2", "RECREATE node n3"]);
    assert_eq!(operation.state(), p::OperationState::Failed);
    let told = operation.error.clone().unwrap().message;
    assert!(
        told.contains(
            "1 of 3 nodes did not come up\n  n2: FAILED: linx:1: not found upstream; what ran before runs on"
        ),
        "{told}"
    );
    assert!(operation.progress.iter().any(|p| p.id == "n2" && p.state == "FAILED"), "{operation:?}");
    let n2 = world.node("l", "n2").await;
    assert_eq!(n2.state(), p::NodeState::Ready, "it says what runs");
    assert_eq!(n2.reason, "it is not made anew: linx:1: not found upstream");
    assert_eq!(n2.spec.unwrap().image, "linux:1");
    let now = instances(&world);
    let of = |all: &BTreeMap<String, (String, String, String)>, node: &str| {
        all.iter().find(|(_, e)| e.0 == node).map(|(uid, e)| (uid.clone(), e.clone())).unwrap()
    };
    assert_eq!((of(&now, "n1"), of(&now, "n2")), (of(&before, "n1"), of(&before, "n2")));
    assert_ne!(of(&now, "n3").0, of(&before, "n3").0, "what could be made was");
    assert_eq!(wires(&world).0, cables.0);
    assert!(world.links("l").await.iter().all(|l| l.state() == p::LinkState::Up));

    // Asked again it is tried again; put right, it is made anew.
    world.host().with(|s| s.pullable.insert("linx:1".into()));
    let again = world.deploy("l", wrong).await;
    assert_eq!(actions(&again), ["RECREATE node n2"]);
    assert_eq!(again.state(), p::OperationState::Succeeded, "{again:?}");
    assert_ne!(of(&instances(&world), "n2").0, of(&before, "n2").0);
    assert_eq!(world.host().running(), ["n1", "n2", "n3"]);
}

#[tokio::test]
async fn a_host_that_does_not_reach_the_registry_is_told_and_fails_its_nodes_in_the_end() {
    let world = World::with(&["h1"], "registry_bound_ms = 1500").await;
    world.host().with(|s| {
        s.no_registry = true;
        s.pullable.insert("far:1".into());
    });
    let mut lab = spec(1, &[]);
    lab.nodes[0].image = "far:1".into();
    let operation = world.apply("l", lab.clone()).await.unwrap();
    eventually("it waits, and says for what", BOUND, || async {
        let told = world.node("l", "n1").await.reason;
        told.contains("tried again") && told.contains("the image registry at unix:/r does not answer")
    })
    .await;
    let operation = world.done(&operation.id).await;
    let told = operation.error.clone().unwrap().message;
    for part in ["host h1", "see `image_registry` of [endpoints]", "deploy again"] {
        assert!(told.contains(part), "{told}");
    }
    assert_eq!(world.node("l", "n1").await.state(), p::NodeState::Failed);
    world.host().with(|s| s.no_registry = false);
    let again = world.deploy("l", lab).await;
    assert_eq!(again.state(), p::OperationState::Succeeded);
}

#[tokio::test]
async fn a_host_that_ends_while_it_fetches_is_asked_again_and_what_failed_before_stays_failed() {
    let world = World::new().await;
    let first = spec(2, &[(1, 2)]);
    world.deploy("l", first.clone()).await;
    let before = instances(&world);
    world.host().with(|s| {
        s.hold_pulls = true;
        s.cut_pulls = 1;
        s.pullable.insert("far:1".into());
    });
    let mut second = first;
    second.nodes[0].image = "linx:1".into();
    second.nodes[1].image = "far:1".into();
    let operation = world.apply("l", second).await.unwrap();
    is_told(&world, &operation.id, "n1", "FAILED").await;
    is_told(&world, &operation.id, "n2", "PULLING").await;
    world.host().with(|s| s.hold_pulls = false);
    let operation = world.done(&operation.id).await;
    assert_eq!(operation.state(), p::OperationState::Failed);
    let told = operation.error.clone().unwrap().message;
    assert!(
        told.contains("1 of 2 nodes did not come up\n  n1: FAILED: linx:1: not found upstream"),
        "{told}"
    );
    let now = instances(&world);
    let kept: Vec<_> = before.iter().filter(|(uid, _)| now.contains_key(*uid)).map(|(_, e)| &e.0).collect();
    assert_eq!(kept, ["n1"], "what could not be made anew runs on");
    assert_eq!(world.host().running(), ["n1", "n2"]);
}

#[tokio::test]
async fn a_cancel_while_an_image_is_fetched_leaves_everything_as_it_was() {
    let mut world = World::new().await;
    let first = spec(4, &[(1, 2), (3, 4)]);
    world.deploy("l", first.clone()).await;
    let (before, cables) = (instances(&world), wires(&world));
    world.host().with(|s| {
        s.hold_pulls = true;
        s.pullable.insert("far:1".into());
    });
    // One node made anew with an image that is far, one without, one that leaves, one that is new, and a link that moves.
    let mut second = spec(5, &[(1, 2), (3, 5)]);
    second.nodes[0].image = "far:1".into();
    second.nodes[1].env.insert("A".into(), "1".into());
    second.nodes.remove(3);
    for restart in [false, true] {
        let operation = world.apply("l", second.clone()).await.unwrap();
        is_told(&world, &operation.id, "n1", "PULLING").await;
        eventually("the new node runs", BOUND, || async { world.host().running().contains(&"n5".into()) })
            .await;
        if restart {
            world.kill().await;
            world.start().await;
            is_told(&world, &operation.id, "n1", "PULLING").await;
        }
        assert_eq!(world.node("l", "n1").await.state(), p::NodeState::Ready);
        let told = world.node("l", "n1").await.reason;
        assert!(told.starts_with("it is to be made anew: "), "{told}");
        let now = instances(&world);
        assert!(before.iter().all(|(uid, e)| now.get(uid) == Some(e)), "nothing that ran was touched");
        let (now, nics) = wires(&world);
        assert!(cables.0.iter().all(|w| now.contains(w)) && cables.1.iter().all(|n| nics.contains(n)));
        world.cancel(&operation.id).await.unwrap();
        eventually("it is as it was", BOUND, || async {
            instances(&world) == before && wires(&world) == cables
        })
        .await;
        for node in ["n1", "n2", "n3", "n4"] {
            world.node_is("l", node, p::NodeState::Ready).await;
            assert_eq!(world.node("l", node).await.reason, "");
        }
        for link in ["n1:eth1--n2:eth1", "n3:eth1--n4:eth1"] {
            world.link_is("l", link, p::LinkState::Up).await;
        }
    }
    assert_eq!(world.lab("l").await.unwrap().spec.unwrap().nodes.len(), 4);
    // And nothing hangs about of what was taken back.
    world.host().with(|s| s.hold_pulls = false);
    assert_eq!(actions(&world.apply("l", first).await.unwrap()), Vec::<String>::new());
    let operation = world.deploy("l", second).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    assert_eq!(world.host().running(), ["n1", "n2", "n3", "n5"]);
}

#[tokio::test]
async fn a_cancelled_change_of_a_link_brings_the_former_cable_back_and_loses_no_interface() {
    let world = World::new().await;
    world.deploy("l", spec(3, &[(1, 2)])).await;
    let ((cable, nics), macs) = (wires(&world), world.node("l", "n2").await.interfaces);
    world.host().with(|s| s.unplugged = true);
    let operation = world.apply("l", spec(3, &[(1, 3)])).await.unwrap();
    eventually("the cable is plugged elsewhere", BOUND, || async {
        let now = wires(&world).0;
        now.len() == 1 && now != cable
    })
    .await;
    assert!(nics.iter().all(|n| wires(&world).1.contains(n)), "no interface was lost");
    world.cancel(&operation.id).await.unwrap();
    world.host().with(|s| s.unplugged = false);
    eventually("the former cable is there, and nothing else", BOUND, || async {
        wires(&world).0.len() == 1 && wires(&world).1 == nics
    })
    .await;
    world.link_is("l", "n1:eth1--n2:eth1", p::LinkState::Up).await;
    let mac = |all: &[ps::InterfaceFacts]| all.iter().map(|i| i.mac.clone()).collect::<Vec<_>>();
    assert_eq!(mac(&world.node("l", "n2").await.interfaces), mac(&macs));
    // Brought about, the interface goes with its link.
    let operation = world.deploy("l", spec(3, &[(1, 3)])).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    assert_eq!(wires(&world).1.len(), 2);
    // Also when the new link does not come up in time.
    world.host().with(|s| s.unplugged = true);
    let operation = world.deploy("l", spec(3, &[(2, 3)])).await;
    assert_eq!(operation.state(), p::OperationState::Failed);
    eventually("the interface goes all the same", BOUND, || async { wires(&world).1.len() == 2 }).await;
}

#[tokio::test]
async fn a_host_port_that_somebody_else_has_is_refused_and_what_ran_runs_on() {
    let world = World::new().await;
    let with_port = |port: u32| {
        let mut lab = spec(2, &[(1, 2)]);
        lab.mgmt = Some(p::MgmtSpec::default());
        lab.nodes[0].ports =
            vec![p::PortMapping { host_port: port, node_port: 80, ..p::PortMapping::default() }];
        lab
    };
    world.deploy("l", with_port(8_080)).await;
    let before = instances(&world);
    world.host().with(|s| s.taken_ports.insert(8_081));
    for validate_only in [true, false] {
        let request = ps::ApplyLabRequest {
            lab: "l".into(),
            spec: Some(with_port(8_081)),
            validate_only,
            ..Default::default()
        };
        let failure = world.request(request).await.unwrap_err();
        assert_eq!((failure.reason.as_str(), failure.metadata["nodes"].as_str()), ("HOST_PORT_TAKEN", "n1"));
        assert!(failure.message.contains("n1: h1: host port 8081 is taken"), "{}", failure.message);
    }
    assert_eq!(instances(&world), before);

    // One that is taken only while an image is on its way.
    world.host().with(|s| {
        s.taken_ports.clear();
        s.hold_pulls = true;
        s.pullable.insert("far:1".into());
    });
    let mut far = with_port(8_081);
    far.nodes[0].image = "far:1".into();
    let operation = world.apply("l", far).await.unwrap();
    is_told(&world, &operation.id, "n1", "PULLING").await;
    world.host().with(|s| {
        s.taken_ports.insert(8_081);
        s.hold_pulls = false;
    });
    let operation = world.done(&operation.id).await;
    assert_eq!(operation.state(), p::OperationState::Failed);
    let told = operation.error.unwrap().message;
    assert!(told.contains("n1: FAILED: host port 8081 is taken; what ran before runs on"), "{told}");
    assert_eq!(instances(&world), before);
}

#[tokio::test]
async fn nodes_that_belong_together_are_made_anew_together_or_not_at_all() {
    let world = World::new().await;
    let mut lab = spec(3, &[]);
    lab.mgmt = Some(p::MgmtSpec { ipv4_subnet: "10.9.0.0/24".into(), ..p::MgmtSpec::default() });
    world.deploy("l", lab.clone()).await;
    let before = instances(&world);
    // As long as one is on the former network, no other can be on the new one.
    lab.mgmt = Some(p::MgmtSpec { ipv4_subnet: "10.8.0.0/24".into(), ..p::MgmtSpec::default() });
    lab.nodes[2].image = "nowhere:1".into();
    let operation = world.deploy("l", lab.clone()).await;
    assert_eq!(operation.state(), p::OperationState::Failed);
    let told = operation.error.unwrap().message;
    assert!(
        told.contains("3 of 3 nodes did not come up")
            && told.contains("n1, n2: FAILED: it changes together with n3"),
        "{told}"
    );
    assert_eq!(instances(&world), before);
    lab.nodes[2].image = "linux:1".into();
    let operation = world.deploy("l", lab).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    assert!(before.keys().all(|uid| !instances(&world).contains_key(uid)));
}

/// Two nodes, the first of which mounts a file of this content.
pub fn with_file(content: &str) -> p::LabSpec {
    let digest = Digest::of(content.as_bytes()).to_string();
    let mut lab = spec(2, &[(1, 2)]);
    let size_bytes = content.len() as u64;
    lab.files = vec![p::FileEntry { path: "a.conf".into(), digest, size_bytes, mode: 0o644 }];
    lab.nodes[0].binds = vec![p::Bind {
        source: Some(p::bind::Source::BundlePath("a.conf".into())),
        target: "/etc/a.conf".into(),
        read_only: false,
    }];
    lab
}

/// A world that holds the contents "one", "two" and "three".
pub async fn with_contents() -> World {
    let world = World::new().await;
    for content in ["one", "two", "three"] {
        let digest = Digest::of(content.as_bytes()).to_string();
        let part = ps::PutFilesRequest { digest, content: content.into() };
        world.client.clone().put_files(futures::stream::iter([part])).await.unwrap();
    }
    world
}

#[tokio::test]
async fn a_file_that_changes_is_written_where_it_is_mounted() {
    let world = with_contents().await;
    let with = with_file;
    world.deploy("l", with("one")).await;
    let before = instances(&world);
    let operation = world.deploy("l", with("two")).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    let said = |o: &ps::OperationFacts| o.plan.clone().unwrap().actions[0].reason.clone();
    let changes = "bind /etc/a.conf: content changes, in place; the node reads it when it next does, and what it changed in it itself is lost";
    assert_eq!((actions(&operation), said(&operation)), (vec!["UPDATE node n1".into()], changes.into()));
    let there = || world.host().read(|s| s.files["a.conf"].clone());
    assert_eq!((instances(&world), there()), (before.clone(), b"two".to_vec()));
    let sent = || world.host().count("compute.put_files");
    assert_eq!(sent(), 2);

    // The operation is over only once they are there; taken back, they are the former ones again.
    world.host().with(|s| s.hold_files = true);
    let operation = world.apply("l", with("three")).await.unwrap();
    eventually("files are sent", BOUND, || async { sent() == 3 }).await;
    assert_eq!(world.operation(&operation.id).await.state(), p::OperationState::Running);
    world.cancel(&operation.id).await.unwrap();
    world.host().with(|s| s.hold_files = false);
    eventually("the former files are there", BOUND, || async { sent() == 4 && there() == b"two" }).await;
    assert_eq!(instances(&world), before);
    world.node_is("l", "n1", p::NodeState::Ready).await;
}

#[tokio::test]
async fn a_file_that_was_written_by_half_is_sent_again_when_the_lab_goes_back_to_its_former_content() {
    let world = with_contents().await;
    world.deploy("l", with_file("one")).await;
    let before = instances(&world);
    let there = || world.host().read(|s| s.files["a.conf"].clone());
    world.host().with(|s| s.cuts_files = true);
    let operation = world.apply("l", with_file("three")).await.unwrap();
    eventually("half of it is there", BOUND, || async { there() == b"th" }).await;
    let reason = || async { world.node("l", "n1").await.reason };
    eventually("the node says so", BOUND, || async { reason().await.contains("no space left") }).await;
    world.cancel(&operation.id).await.unwrap();
    world.host().with(|s| s.cuts_files = false);
    eventually("the former content is there", BOUND, || async { there() == b"one" }).await;
    eventually("nothing is said of files any more", BOUND, || async { reason().await.is_empty() }).await;
    assert_eq!(instances(&world), before);
}
