//! Copies of images on hosts.

use netloom_model::id::Digest;
use netloom_proto::scheduler::v1 as ps;
use netloom_proto::v1::ImageCheckResult;
use netloom_service::status::from_status;
use netloom_service::testing::eventually;
use ps::verify_image_response::Event;

use crate::world::{BOUND, World, spec};

/// What came of an image on each host, sorted by host.
async fn verified(world: &World, reference: &str, host: &str) -> Vec<ps::ImageCheckFacts> {
    let request = ps::VerifyImageRequest { reference: reference.into(), host: host.into() };
    let mut told = world.client.clone().verify_image(request).await.unwrap().into_inner();
    let (mut all, mut has_progress) = (Vec::new(), false);
    while let Some(part) = told.message().await.unwrap() {
        match part.event.unwrap() {
            Event::Progress(_) => has_progress = true,
            Event::Checked(checked) => all.push(checked),
        }
    }
    assert!(has_progress);
    all.sort_by(|a, b| a.host.cmp(&b.host));
    all
}

#[tokio::test]
async fn copies_are_compared_on_each_host_and_fetched_again_where_they_were_set_aside() {
    let world = World::with(&["h1", "h2", "h3"], "").await;
    world.deploy("uses", spec(1, &[])).await;
    let users = world.client.clone().list_image_users(ps::ListImageUsersRequest {}).await.unwrap();
    let user = users.into_inner().users.remove(0);
    let digest: Digest = user.digests[0].clone().try_into().unwrap();
    let has_node = |host: &crate::fake::Host| !host.running().is_empty();
    let on = world.hosts.iter().position(has_node).expect("the node is somewhere");
    let away = (on + 1) % 3;
    // The store has its bytes, and the host may fetch them by their digest.
    world.registry.store(&digest);
    world.hosts[on].with(|s| {
        s.spoiled_images.insert(digest.to_string());
        s.pullable.insert(format!("lost@{digest}"));
    });
    world.hosts[away].with(|s| s.silent = true);
    let copies = verified(&world, &user.reference, "").await;
    assert_eq!(copies.iter().map(|c| c.host.as_str()).collect::<Vec<_>>(), ["h1", "h2", "h3"]);
    assert!(copies.iter().all(|c| c.digest == digest.as_str()));
    let (spoiled, silent, right) = (&copies[on], &copies[away], &copies[(on + 2) % 3]);
    assert_eq!((spoiled.result(), spoiled.fetched), (ImageCheckResult::SetAside, true));
    assert_eq!(spoiled.nodes, ["uses/n1"]);
    for part in ["it was set aside", "fetched from the store again", "uses/n1", "netloom node restart"] {
        assert!(spoiled.message.contains(part), "{part}: {}", spoiled.message);
    }
    assert_eq!(silent.result(), ImageCheckResult::Unreachable);
    assert_eq!((right.result(), right.message.as_str()), (ImageCheckResult::Right, ""));
    let host = world.hosts[on].name.clone();
    let copies = verified(&world, &user.reference, &host).await;
    assert_eq!((copies.len(), copies[0].result()), (1, ImageCheckResult::Right));
}

#[tokio::test]
async fn what_cannot_be_compared_is_refused() {
    let world = World::new().await;
    let refused = async |reference: &str, host: &str| {
        let request = ps::VerifyImageRequest { reference: reference.into(), host: host.into() };
        from_status(&world.client.clone().verify_image(request).await.unwrap_err()).reason
    };
    assert_eq!(refused("nobody:1", "").await, "IMAGE_NOT_STORED");
    assert_eq!(refused("nobody:1", "nowhere").await, "HOST_NOT_FOUND");
}

#[tokio::test]
async fn what_a_host_has_set_aside_is_fetched_again_once_the_store_has_it() {
    let world = World::new().await;
    let digest = Digest::of(b"a disk");
    world.host().with(|s| {
        s.aside_images.insert(digest.to_string());
        s.pullable.insert(format!("lost@{digest}"));
    });
    // Nothing to fetch yet.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(world.host().count("compute.pull_image"), 0);
    world.registry.store(&digest);
    let is_here = || async { world.host().with(|s| s.aside_images.is_empty()) };
    eventually("it is fetched again", BOUND, is_here).await;
}
