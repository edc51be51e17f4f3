//! What every store of the catalogue has to do: in SQLite, each case with a file of its own, and in PostgreSQL, on one server of which each case finds nothing there.

use std::time::Duration;

use netloom_image_registry::blob::Blobs;
use netloom_image_registry::error::Error;
use netloom_image_registry::reference::Reference;
use netloom_image_registry::store::blobs::{ImageKind, Upload};
use netloom_image_registry::store::{Database, Lock, Store};
use netloom_image_registry::upload::Uploads;
use netloom_image_registry::validate::{Format, Presence};
use netloom_model::state::Runtime;
use netloom_service::testing::postgres::Postgres;
use netloom_service::testing::require;

use crate::held::upload;
use crate::images::disk;

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

async fn open(db: &Database) -> Store {
    Store::open(db).await.unwrap()
}

/// Makes a test of each case, and one of all of them on PostgreSQL.
macro_rules! on_both {
    ($($case:ident),+ $(,)?) => {
        mod sqlite {$(
            #[tokio::test]
            async fn $case() {
                let dir = tempfile::tempdir().unwrap();
                super::$case(&super::Database::File(dir.path().join("data/image-registry.db"))).await;
            }
        )+}

        #[tokio::test(flavor = "multi_thread")]
        async fn the_same_on_postgresql() {
            if !require("store::the_same_on_postgresql", "postgres") {
                return;
            }
            let server = Postgres::start();
            $(
                server.run("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
                $case(&Database::named(&server.url())).await;
            )+
        }
    };
}

on_both!(
    what_a_host_says_replaces_what_it_said_before,
    a_store_named_twice_in_a_report_counts_once,
    rows_outlive_the_process_and_keep_their_uid,
    an_image_that_nobody_named_is_not_found,
    pages_follow_each_other_without_gap_or_repeat,
    a_catalogue_keeps_its_id_and_the_first_key,
    one_image_of_a_kind_is_preferred,
);

async fn what_a_host_says_replaces_what_it_said_before(db: &Database) {
    let store = open(db).await;
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

async fn a_store_named_twice_in_a_report_counts_once(db: &Database) {
    let store = open(db).await;
    let said = |digest| (reference("a"), presence("h1", Runtime::Docker, digest));
    store.record("h1", &[said("sha256:1"), said("sha256:2")]).await.unwrap();
    let presences = store.get(&reference("a")).await.unwrap().presences;
    assert_eq!(presences.iter().map(|p| p.digest.as_str()).collect::<Vec<_>>(), ["sha256:2"]);
}

async fn rows_outlive_the_process_and_keep_their_uid(db: &Database) {
    let store = open(db).await;
    store.ask(&[reference("a")]).await.unwrap();
    let first = store.get(&reference("a")).await.unwrap();
    drop(store);
    let store = open(db).await;
    store.ask(&[reference("a")]).await.unwrap();
    assert_eq!(store.get(&reference("docker.io/library/a:latest")).await.unwrap(), first);
}

async fn an_image_that_nobody_named_is_not_found(db: &Database) {
    let missing = open(db).await.get(&reference("nothing")).await.unwrap_err();
    assert!(matches!(missing, Error::NotFound(r) if r == "nothing:latest"));
}

async fn pages_follow_each_other_without_gap_or_repeat(db: &Database) {
    let store = open(db).await;
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

async fn a_catalogue_keeps_its_id_and_the_first_key(db: &Database) {
    let store = open(db).await;
    let id = store.id().await.unwrap();
    assert!(store.ticket_key().await.unwrap().is_empty());
    store.set_ticket_key(&[0, 255, 7]).await.unwrap();
    drop(store);
    let store = open(db).await;
    assert_eq!((store.id().await.unwrap(), store.ticket_key().await.unwrap()), (id, vec![0, 255, 7]));
    assert!(matches!(store.set_ticket_key(&[1]).await, Err(Error::OtherScheduler)));
    store.forget_ticket_key().await.unwrap();
    store.set_ticket_key(&[1]).await.unwrap();
}

async fn one_image_of_a_kind_is_preferred(db: &Database) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(db).await;
    let blobs = Blobs::open(dir.path(), None, "me").unwrap();
    let uploads = Uploads::new(store.clone(), blobs, Duration::from_secs(600), Duration::from_secs(60));
    let push = async |name: &str, fill: u8| {
        let kinds = vec![ImageKind { kind: "vr".into(), version: name.into(), preferred: true }];
        let upload = Upload { kinds, ..upload(name) };
        let id = uploads.create(upload).await.unwrap().upload.id;
        let writing = uploads.write(&id, 0).await.unwrap();
        assert!(writing.take(disk(1, fill).into()).await);
        writing.finish().await.unwrap();
        uploads.finish(&id, None).await.unwrap()
    };
    push("first", 1).await;
    let second = push("second", 2).await;
    assert_eq!(store.preferred("vr").await.unwrap(), Some(reference("second")));
    assert!(second.kinds[0].preferred && second.stored.is_some());
    let (listed, more) = store.list("", 10).await.unwrap();
    let preferred: Vec<bool> = listed.iter().map(|i| i.kinds[0].preferred).collect();
    assert_eq!((preferred, more), (vec![false, true], false));
    let rows = store.blobs().await.unwrap();
    assert!(rows.len() == 2 && rows.iter().all(|(_, used)| *used));
    let first = store.get(&reference("first")).await.unwrap().stored.unwrap().digest;
    store.unstore("first:latest", &first).await.unwrap();
    let unused: Vec<_> = store.blobs().await.unwrap().into_iter().filter(|(_, used)| !used).collect();
    assert_eq!(unused.iter().map(|(b, _)| &b.digest).collect::<Vec<_>>(), [&first]);
    store.verified(&first, "it is wrong").await.unwrap();
    assert_eq!(store.blob(&first).await.unwrap().unwrap().problem, "it is wrong");
    assert!(store.has_size(1 << 20).await.unwrap());
    store.forget_blob(&first, Lock::default(), async { Ok(()) }).await.unwrap();
    assert_eq!(store.blob(&first).await.unwrap(), None);
}
