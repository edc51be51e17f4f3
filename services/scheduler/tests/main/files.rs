//! Files and certificates of nodes that change together with what makes them anew: they are put in place once it is known that they are for something, and given back.

use netloom_proto::v1 as p;
use netloom_service::testing::eventually;

use crate::aside::aside;
use crate::keep::{containers, is_told, with_contents, with_file};
use crate::world::{BOUND, World, actions, spec};

/// The file was written over before it was known whether what it is for could be made.
#[tokio::test]
async fn a_file_of_a_node_that_cannot_be_made_anew_is_not_written_over() {
    let world = with_contents().await;
    world.deploy("l", with_file("one")).await;
    let there = || world.host().read(|s| s.files["a.conf"].clone());
    let sent = || world.host().count("compute.put_files");
    let mut wrong = with_file("two");
    wrong.nodes[0].image = "linx:1".into();
    let before = sent();
    let operation = world.deploy("l", wrong.clone()).await;
    assert_eq!(operation.state(), p::OperationState::Failed);
    let why = operation.plan.unwrap().actions[0].reason.clone();
    assert_eq!(
        why,
        "forces a new container: image linux:1 → linx:1; bind /etc/a.conf: content changes, and what it changed in it itself is lost"
    );
    assert_eq!((sent(), there()), (before, b"one".to_vec()));
    // Nor while its image is fetched and that is cancelled.
    world.host().with(|s| {
        s.hold_pulls = true;
        s.pullable.insert("linx:1".into());
    });
    let operation = world.apply("l", wrong.clone()).await.unwrap();
    is_told(&world, &operation.id, "n1", "PULLING").await;
    world.cancel(&operation.id).await.unwrap();
    world.host().with(|s| s.hold_pulls = false);
    world.deploy("l", with_file("one")).await;
    assert_eq!((sent(), there()), (before, b"one".to_vec()));
    // Made, it has the new one before it starts.
    let operation = world.deploy("l", wrong).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    assert_eq!((sent(), there()), (before + 1, b"two".to_vec()));
}

/// Hosts keep what nodes made of their files for as long as somebody may go back: they are told when a deploy succeeded, and only then.
#[tokio::test]
async fn hosts_are_told_with_files_how_many_deploys_succeeded() {
    let world = with_contents().await;
    let with = |content: &str, env: &str| {
        let mut lab = with_file(content);
        lab.nodes[0].env.insert(env.into(), "1".into());
        lab
    };
    let told = || world.host().read(|s| s.deploys);
    world.deploy("l", with("one", "A")).await;
    assert_eq!(told(), 0);
    world.host().with(|s| s.crashes.insert("B".into()));
    for (content, env, succeeded) in [("two", "B", 1), ("three", "B", 1), ("one", "A", 1), ("two", "A", 2)] {
        world.deploy("l", with(content, env)).await;
        assert_eq!(told(), succeeded, "{content} {env}");
    }
}

#[tokio::test]
async fn a_file_that_a_bound_directory_loses_goes_from_the_host_and_a_cancel_has_it_back() {
    let world = with_contents().await;
    let with = |names: &[&str]| {
        let mut lab = with_file("one");
        let file = lab.files.remove(0);
        let path = |name: &&str| p::FileEntry { path: format!("d/{name}"), ..file.clone() };
        lab.files = names.iter().map(path).collect();
        lab.nodes[0].binds[0].source = Some(p::bind::Source::BundlePath("d".into()));
        lab
    };
    let there = || world.host().read(|s| s.files.keys().cloned().collect::<Vec<_>>());
    world.deploy("l", with(&["a", "b", "c"])).await;
    let before = containers(&world);
    world.host().with(|s| s.hold_files = true);
    let operation = world.apply("l", with(&["b"])).await.unwrap();
    let why = operation.plan.unwrap().actions[0].reason.clone();
    assert!(why.starts_with("bind /etc/a.conf: a and 1 more go, in place;"), "{why}");
    world.host().with(|s| s.hold_files = false);
    assert_eq!(world.done(&operation.id).await.state(), p::OperationState::Succeeded);
    assert_eq!(there(), ["d/b"]);

    world.host().with(|s| s.hold_files = true);
    let operation = world.apply("l", with(&["a"])).await.unwrap();
    world.cancel(&operation.id).await.unwrap();
    world.host().with(|s| s.hold_files = false);
    eventually("it is as it was", BOUND, || async { there() == ["d/b"] }).await;
    assert_eq!(containers(&world), before);
}

/// The files of a lab are the spec's, and the spec stays that of a deploy that failed: what ran before it, and is back after another one was cancelled, had that one's.
#[tokio::test]
async fn what_goes_on_after_a_deploy_that_failed_has_its_own_files_again_after_a_cancel() {
    let world = with_contents().await;
    let with = |content: &str, image: &str| {
        let mut lab = with_file(content);
        lab.nodes[0].image = image.into();
        lab
    };
    world.deploy("l", with("one", "linux:1")).await;
    let before = containers(&world);
    let there = || world.host().read(|s| s.files["a.conf"].clone());
    assert_eq!(world.deploy("l", with("two", "linx:1")).await.state(), p::OperationState::Failed);
    assert_eq!(there(), b"one");
    // The same file again says the same of it.
    let again = world.apply("l", with("two", "linx:1")).await.unwrap();
    assert!(again.plan.unwrap().actions[0].reason.contains("bind /etc/a.conf: content changes"));
    world.done(&again.id).await;

    world.host().with(|s| s.unplugged = true);
    let operation = world.apply("l", with("three", "netloom/frr:local")).await.unwrap();
    eventually("the new file is there", BOUND, || async { there() == b"three" }).await;
    world.cancel(&operation.id).await.unwrap();
    world.host().with(|s| s.unplugged = false);
    world.node_is("l", "n1", p::NodeState::Ready).await;
    assert_eq!((containers(&world), there()), (before, b"one".to_vec()));
}

#[tokio::test]
async fn what_comes_back_finds_its_own_files() {
    let world = with_contents().await;
    let with = |content: &str, env: &str| {
        let mut lab = with_file(content);
        lab.nodes[0].env.insert(env.into(), "1".into());
        lab
    };
    world.deploy("l", with("one", "A")).await;
    let before = containers(&world);
    world.host().with(|s| s.unplugged = true);
    let operation = world.apply("l", with("two", "B")).await.unwrap();
    is_told(&world, &operation.id, "n1", "RUNNING").await;
    let there = || world.host().read(|s| s.files["a.conf"].clone());
    assert_eq!(there(), b"two");
    world.host().with(|s| s.hold_files = true);
    let sent = world.host().count("compute.put_files");
    world.cancel(&operation.id).await.unwrap();
    eventually("its files are sent", BOUND, || async { world.host().count("compute.put_files") > sent })
        .await;
    assert_eq!(aside(&world), ["n1"], "it does not start with another's");
    world.host().with(|s| (s.hold_files, s.unplugged) = (false, false));
    world.node_is("l", "n1", p::NodeState::Ready).await;
    assert_eq!((containers(&world), there()), (before, b"one".to_vec()));
}

#[tokio::test]
async fn a_cancel_gives_back_certificates_and_the_authority_of_before() {
    let world = World::new().await;
    let with = |key_bits: u32, validity_seconds: u64| {
        let mut lab = spec(2, &[(1, 2)]);
        lab.certificate_authority = Some(p::AuthoritySpec { validity_seconds, ..Default::default() });
        lab.nodes[0].certificate = Some(p::CertificateSpec { key_bits, ..p::CertificateSpec::default() });
        lab
    };
    let told = || {
        let certificate = |i: &netloom_proto::compute::v1::Instance| i.certificate.clone();
        world.host().read(|s| s.wanted.values().find_map(certificate)).unwrap()
    };
    world.deploy("l", with(0, 0)).await;
    let before = told();
    world.host().with(|s| s.unplugged = true);
    let operation = world.apply("l", with(0, 999_999)).await.unwrap();
    eventually("others are told", BOUND, || async { told() != before }).await;
    world.cancel(&operation.id).await.unwrap();
    eventually("those of before are told", BOUND, || async { told() == before }).await;
    world.host().with(|s| s.unplugged = false);
    let again = world.apply("l", with(0, 0)).await.unwrap();
    assert_eq!(actions(&again), Vec::<String>::new());
    assert_eq!(told(), before);
}

/// Keys were made while the deploy was asked for: its caller waited, and nothing could be cancelled.
#[tokio::test]
async fn a_deploy_is_answered_before_keys_are_made_and_its_nodes_wait_for_their_certificates() {
    let world = World::new().await;
    let mut lab = spec(3, &[(1, 2)]);
    let asks = p::CertificateSpec { key_bits: 2048, ..p::CertificateSpec::default() };
    lab.nodes[..2].iter_mut().for_each(|n| n.certificate = Some(asks.clone()));
    let operation = world.apply("l", lab.clone()).await.unwrap();
    let told = |id: &str| operation.progress.iter().find(|o| o.id == id).unwrap().detail.clone();
    assert_eq!([told("n1"), told("n2")], ["waits for its certificate"; 2], "{operation:?}");
    let done = world.done(&operation.id).await;
    assert_eq!(done.state(), p::OperationState::Succeeded, "{done:?}");
    let certificates = || {
        let of = |i: &netloom_proto::compute::v1::Instance| i.certificate.clone();
        world.host().read(|s| s.wanted.values().filter_map(of).collect::<Vec<_>>())
    };
    assert_eq!(certificates().len(), 2, "no node was ever told without");
    // One that runs has its own until another is there, and the operation is not over before that.
    let before = certificates();
    lab.nodes[0].aliases.push("router".into());
    let done = world.deploy("l", lab.clone()).await;
    assert_eq!(done.state(), p::OperationState::Succeeded, "{done:?}");
    assert_eq!(certificates().iter().filter(|c| before.contains(c)).count(), 1);
    // What could not be issued is refused before anything is written.
    lab.nodes[0].certificate.as_mut().unwrap().sans = vec!["r\u{f6}uter".into()];
    let refused = world.apply("l", lab).await.unwrap_err();
    assert_eq!(refused.reason, "CERTIFICATE_INVALID", "{refused}");
}
