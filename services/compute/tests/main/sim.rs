//! What the sim driver's script can do.

use std::time::Duration;

use netloom_model::id::LabUid;
use netloom_model::observed::Phase;
use netloom_model::slice::{Instance, Lease};
use netloom_model::state::Runtime;
use netloom_proto::compute::v1 as p;
use netloom_proto::v1 as pv;
use netloom_service::status::from_status;

use crate::rig::{Rig, rehash};

async fn scripted(rig: &Rig, labels: &[(&str, &str)]) -> Instance {
    let mut one = rig.instance("r1");
    one.spec.labels.extend(labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
    rehash(&mut one);
    rig.sync(std::slice::from_ref(&one)).await;
    one
}

#[tokio::test(flavor = "multi_thread")]
async fn scripted_faults_are_told() {
    for (label, message) in [
        ("sim.fail-create", "no room"),
        ("sim.fail-start", "no kernel"),
        ("sim.image-missing", "is not on this host"),
    ] {
        let rig = Rig::sim().await;
        let one = scripted(&rig, &[(label, message)]).await;
        let failed = rig.until_phase(one.uid, Phase::Failed).await;
        assert!(failed.detail.contains(message), "{label}: {}", failed.detail);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_removal_is_told_and_can_be_asked_again() {
    let rig = Rig::sim().await;
    let one = scripted(&rig, &[("sim.fail-remove", "stuck")]).await;
    rig.until_phase(one.uid, Phase::Running).await;
    for _ in 0..2 {
        let failures = rig.remove(&[one.uid], &[rig.lab_uid]).await;
        assert_eq!(failures.len(), 2, "{failures:?}");
        assert_eq!(
            (failures[0].uid.as_str(), failures[0].message.as_str()),
            (one.uid.to_string().as_str(), "stuck")
        );
        assert_eq!(failures[1].uid, rig.lab_uid.to_string());
    }
}

/// Each is held until as many have begun as a host takes on at once: one after the other, none would ever end.
#[tokio::test(flavor = "multi_thread")]
async fn instances_are_removed_side_by_side() {
    let rig = Rig::sim().await;
    let many: Vec<_> = (0..8)
        .map(|n| {
            let mut one = rig.instance(&format!("r{n}"));
            one.spec.labels.insert("sim.remove-together".into(), "4".into());
            rehash(&mut one);
            one
        })
        .collect();
    rig.sync(&many).await;
    for one in &many {
        rig.until_phase(one.uid, Phase::Running).await;
    }
    let uids: Vec<_> = many.iter().map(|one| one.uid).collect();
    assert!(rig.remove(&uids, &[]).await.is_empty());
    rig.until("all are gone", |v| v.instances.is_empty()).await;
}

/// What left takes long to stop: the lab is wanted here again before it is gone.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_lab_has_stays_when_it_comes_back_while_its_removal_waits() {
    let rig = Rig::sim().await;
    let waits = |name: &str| {
        let mut one = rig.instance(name);
        one.spec.labels.insert("sim.remove-together".into(), "2".into());
        rehash(&mut one);
        one
    };
    let (one, mut two, back) = (waits("r1"), waits("r2"), rig.instance("r3"));
    two.lab_uid = LabUid::new();
    rig.sync(&[one.clone(), two.clone()]).await;
    for started in [&one, &two] {
        rig.until_phase(started.uid, Phase::Running).await;
    }
    let remove = |instance: &Instance, lab_uids: Vec<String>, decision| p::RemoveRequest {
        term: 1,
        uids: vec![instance.uid.to_string()],
        lab_uids,
        decision,
    };
    let (mut client, first) = (rig.client.clone(), remove(&one, vec![rig.lab_uid.to_string()], 1));
    let removal = tokio::spawn(async move { client.remove(first).await });
    rig.until_node(one.uid, "not wanted", |o| !o.wanted).await;
    rig.put("kept", b"x").await;
    let instances = vec![back.clone().into()];
    let ensure = p::EnsureRequest { term: 1, instances, decision: 2, ..Default::default() };
    rig.client.clone().ensure(ensure).await.unwrap();
    rig.client.clone().remove(remove(&two, Vec::new(), 3)).await.unwrap();
    let late = removal.await.unwrap().unwrap_err();
    assert_eq!(from_status(&late).reason, "OVERTAKEN");
    let kept = rig.data_dir().join("labs").join(rig.lab_uid.to_string()).join("files/kept");
    assert!(kept.exists(), "{}", kept.display());
    rig.until_phase(back.uid, Phase::Running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_ending_is_failed_and_a_machine_can_be_played() {
    let rig = Rig::sim().await;
    let mut vm = rig.instance("vm");
    vm.runtime = Runtime::Libvirt;
    rig.sync(std::slice::from_ref(&vm)).await;
    rig.until_phase(vm.uid, Phase::Running).await;
    let query =
        p::ImageQuery { reference: "x".into(), runtime: pv::Runtime::Libvirt.into(), digest: String::new() };
    let request = p::InspectImagesRequest { images: vec![query] };
    let images = rig.client.clone().inspect_images(request).await.unwrap().into_inner().images;
    assert_eq!((images[0].present, images[0].format()), (true, pv::ImageFormat::Qcow2));
    let dying = scripted(&rig, &[("sim.exit-after-ms", "1")]).await;
    let failed = rig.until_phase(dying.uid, Phase::Failed).await;
    assert!(failed.detail.contains("4 times in a row"), "{}", failed.detail);
    assert_eq!(failed.restart_count, 3);
}

/// What this host says with its next word.
async fn beat(rig: &Rig) -> String {
    let mut words = rig.client.clone().observe(p::ObserveRequest {}).await.unwrap().into_inner();
    words.message().await.unwrap().unwrap().beat
}

async fn renew(rig: &Rig, beat: &str) {
    rig.client.clone().renew(p::RenewRequest { term: 1, beat: beat.into() }).await.unwrap();
}

/// Tells it the whole slice, as of when this was heard.
async fn told(rig: &Rig, beat: &str, all: &[Instance]) -> Result<(), String> {
    let instances = all.iter().cloned().map(Into::into).collect();
    let request = p::SyncRequest { term: 1, instances, beat: beat.into(), ..p::SyncRequest::default() };
    rig.client.clone().sync(request).await.map(drop).map_err(|status| from_status(&status).reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_lease_is_renewed_for_stops_by_itself_and_runs_again_when_a_sync_says_so() {
    let rig = Rig::sim().await;
    let lease = Some(Lease { seconds: 3, generation: 5 });
    let leased = Instance { lease, ..rig.instance("leased") };
    let all = [leased.clone(), rig.instance("free")];
    let old = beat(&rig).await;
    renew(&rig, &old).await;
    told(&rig, &old, &all).await.unwrap();
    let first = rig.until_phase(leased.uid, Phase::Running).await;
    assert_eq!(first.lease, lease);
    let free = rig.until_phase(all[1].uid, Phase::Running).await;
    for _ in 0..10 {
        renew(&rig, &beat(&rig).await).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let now = rig.until_phase(leased.uid, Phase::Running).await;
    assert_eq!(now.start_id, first.start_id, "it goes on as long as its lease is renewed");
    let stopped = rig.until_phase(leased.uid, Phase::Stopped).await;
    assert!(stopped.detail.contains("not heard of the scheduler"), "{}", stopped.detail);
    // Neither an answer that comes late starts it, nor what was to be when it was heard of last.
    let last = beat(&rig).await;
    renew(&rig, &old).await;
    told(&rig, &last, &all).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    rig.until_phase(leased.uid, Phase::Stopped).await;
    // Heard of again, it waits for the slice as it is by now.
    let heard = beat(&rig).await;
    renew(&rig, &heard).await;
    assert_eq!(told(&rig, &last, &all).await, Err("OVERTAKEN".into()), "it may be elsewhere by now");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!rig.view.borrow().synced);
    rig.until_phase(leased.uid, Phase::Starting).await;
    told(&rig, &heard, &all).await.unwrap();
    let again = rig.until_phase(leased.uid, Phase::Running).await;
    assert_ne!(again.start_id, first.start_id);
    assert_eq!(rig.until_phase(all[1].uid, Phase::Running).await.start_id, free.start_id, "others have none");
    // One that is not in the slice any more has no lease, and stays as it is until it is removed.
    told(&rig, &beat(&rig).await, &all[1..]).await.unwrap();
    assert!(rig.remove(&[leased.uid], &[]).await.is_empty());
}
