//! What every store of the catalogue has to do.

use netloom_image_registry::error::Error;
use netloom_image_registry::reference::Reference;
use netloom_image_registry::store::Store;
use netloom_image_registry::validate::{Format, Presence};
use netloom_model::state::Runtime;

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

fn presence(host: &str, runtime: Runtime, digest: &str) -> Presence {
    Presence {
        host: host.into(),
        runtime,
        present: true,
        digest: digest.into(),
        format: Format::Docker,
        size_bytes: 7,
        architecture: "amd64".into(),
        observe_time_us: 1_000_000,
    }
}

async fn open(dir: &tempfile::TempDir) -> Store {
    Store::open(&dir.path().join("data/image-registry.db")).await.unwrap()
}

#[tokio::test]
async fn what_a_host_says_replaces_what_it_said_before() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let a = reference("a");
    let docker = presence("h1", Runtime::Docker, "sha256:1");
    let libvirt = Presence { format: Format::RAW, ..presence("h1", Runtime::Libvirt, "sha256:2") };
    let both = [(a.clone(), docker), (a.clone(), libvirt.clone())];
    store.record("h1", &both).await.unwrap();
    store.record("h2", &[(a.clone(), presence("h2", Runtime::Docker, "sha256:3"))]).await.unwrap();
    assert_eq!(store.get(&a).await.unwrap().presences.len(), 3);

    store.record("h1", &[(a.clone(), libvirt.clone())]).await.unwrap();
    let left = store.get(&a).await.unwrap().presences;
    assert_eq!(left, [libvirt, presence("h2", Runtime::Docker, "sha256:3")]);
}

#[tokio::test]
async fn a_store_named_twice_in_a_report_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let said = |digest| (reference("a"), presence("h1", Runtime::Docker, digest));
    store.record("h1", &[said("sha256:1"), said("sha256:2")]).await.unwrap();
    let presences = store.get(&reference("a")).await.unwrap().presences;
    assert_eq!(presences.iter().map(|p| p.digest.as_str()).collect::<Vec<_>>(), ["sha256:2"]);
}

#[tokio::test]
async fn rows_outlive_the_process_and_keep_their_uid() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    store.ask(&[reference("a")]).await.unwrap();
    let first = store.get(&reference("a")).await.unwrap();
    drop(store);
    let store = open(&dir).await;
    store.ask(&[reference("a")]).await.unwrap();
    assert_eq!(store.get(&reference("docker.io/library/a:latest")).await.unwrap(), first);
}

#[tokio::test]
async fn an_image_that_nobody_named_is_not_found() {
    let dir = tempfile::tempdir().unwrap();
    let missing = open(&dir).await.get(&reference("nothing")).await.unwrap_err();
    assert!(matches!(missing, Error::NotFound(r) if r == "nothing:latest"));
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_repeat() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let names: Vec<Reference> = (0..7).map(|i| reference(&format!("image-{i}"))).collect();
    for name in names.iter().rev() {
        store.record("h1", &[(name.clone(), presence("h1", Runtime::Docker, name.as_str()))]).await.unwrap();
    }
    // What no host has is not listed, wherever it stands among the others.
    for name in ["imag", "image-3a", "image-9"] {
        let absent = Presence { present: false, ..presence("h1", Runtime::Docker, "") };
        store.record("h1", &[(reference(name), absent)]).await.unwrap();
    }
    let (mut after, mut seen) = (String::new(), Vec::new());
    loop {
        let (images, more) = store.list(&after, 3).await.unwrap();
        for image in &images {
            assert_eq!(image.presences[0].digest, image.reference, "each image has its own presence");
            seen.push(reference(&image.reference));
        }
        after = images.last().unwrap().reference.clone();
        if !more {
            break;
        }
    }
    assert_eq!(seen, names);
    assert_eq!(store.list(&after, 3).await.unwrap(), (vec![], false));
}
