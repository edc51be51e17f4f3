//! Copies that are compared with their digests on the disk.

use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;

use netloom_model::id::Digest;
use netloom_model::observed::{NEEDS_IMAGE, Observed, Phase};
use netloom_proto::compute::v1 as pc;
use netloom_proto::v1::Runtime::Libvirt;
use netloom_proto::v1::{ImageCheckResult, ImageFormat};
use pc::verify_images_response::Event;

use super::store::{Store, disk, pull};
use super::{file, image, pulled};
use crate::rig::{Rig, eventually};
use crate::tiny::UP;

/// Turns one bit of a file and leaves all else of it as it was.
fn turn_a_bit(path: &Path) {
    let before = std::fs::metadata(path).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    // In the last byte, which says nothing to any machine.
    let (at, mut byte) = (before.len() - 1, [0]);
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    file.sync_all().unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
    file.set_permissions(before.permissions()).unwrap();
}

/// What came of each, in order.
async fn verified(rig: &Rig, digests: &[&str]) -> Vec<pc::CheckedImage> {
    let digests = digests.iter().map(|digest| (*digest).to_owned()).collect();
    let request = pc::VerifyImagesRequest { term: 1, digests };
    let mut told = rig.client.clone().verify_images(request).await.unwrap().into_inner();
    let mut all = Vec::new();
    while let Some(part) = told.message().await.unwrap() {
        if let Event::Checked(checked) = part.event.unwrap() {
            all.push(checked);
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_lost_a_bit_is_found_told_and_used_no_more_until_it_is_fetched_again() {
    let rig = Rig::sim().await;
    let mut store = Store::of(&rig).await;
    let (one, two) = (store.push("one:1", &disk(3, 1)).await, store.push("two:1", &disk(1, 2)).await);
    for (reference, stored) in [("one:1", &one), ("two:1", &two)] {
        pulled(&rig, pull(reference, Libvirt, stored)).await.unwrap();
    }
    let results = |all: &[pc::CheckedImage]| all.iter().map(pc::CheckedImage::result).collect::<Vec<_>>();
    use ImageCheckResult::{Absent, Right, SetAside, Unreadable};
    let other = Digest::of(b"never here").to_string();
    let asked = [one.digest.as_str(), two.digest.as_str(), other.as_str()];
    assert_eq!(results(&verified(&rig, &asked).await), [Right, Right, Absent]);

    turn_a_bit(&image(&rig, &one));
    let all = verified(&rig, &asked).await;
    assert_eq!(results(&all), [SetAside, Right, Absent]);
    assert_eq!((all[0].size_bytes, all[0].node_uids.len()), (3 << 20, 0));
    assert!(all[0].message.contains("set aside"), "{}", all[0].message);
    assert!(file(&rig, "quarantine", &one.digest).exists() && !image(&rig, &one).exists());
    let lost: Digest = one.digest.clone().try_into().unwrap();
    rig.until("it is told", |v| {
        v.inventory.lost_images == [lost.clone()]
            && v.inventory.problems.iter().any(|p| p.contains("set aside"))
    })
    .await;
    pulled(&rig, pull("one:1", Libvirt, &one)).await.unwrap();
    rig.until("it is here", |v| v.inventory.lost_images.is_empty() && v.inventory.problems.is_empty()).await;

    // What cannot be read keeps nothing else from being compared, whatever comes first.
    let bad = Digest::of(b"on a bad disk").to_string();
    let at = file(&rig, "", &bad);
    std::os::unix::fs::symlink("/proc/self/mem", &at).unwrap();
    let all = verified(&rig, &[&bad, &two.digest]).await;
    assert_eq!(results(&all), [Unreadable, Right]);
    for part in ["Input/output error", &at.display().to_string()] {
        assert!(all[0].message.contains(part), "{}", all[0].message);
    }
    rig.until("it is told", |v| v.inventory.problems.iter().any(|p| p.contains(&bad))).await;
    assert_eq!(verified(&rig, &[]).await.len(), 3, "all that there is");
    std::fs::remove_file(&at).unwrap();
    assert_eq!(results(&verified(&rig, &[&bad]).await), [Absent]);
    rig.until("that is over", |v| v.inventory.problems.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_compares_its_copies_by_itself_now_and_then() {
    let rig = Rig::sim_with("image_check_seconds = 1\nimage_check_bytes_per_second = 4194304\n").await;
    let mut store = Store::of(&rig).await;
    let stored = store.push("one:1", &disk(2, 3)).await;
    pulled(&rig, pull("one:1", Libvirt, &stored)).await.unwrap();
    let checked = file(&rig, "checked", &stored.digest);
    eventually("it was compared", async || checked.exists()).await;
    turn_a_bit(&image(&rig, &stored));
    eventually("it is set aside", async || file(&rig, "quarantine", &stored.digest).exists()).await;
    rig.until("it is told", |v| v.inventory.lost_images.len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_under_a_machine_stays_where_it_was_set_aside_and_the_machine_starts_on_the_right_one() {
    let test = "a_base_under_a_machine_stays_where_it_was_set_aside";
    let Some(rig) = Rig::tiny(test).await else { return };
    let mut store = Store::of(&rig).await;
    let base = file(&rig, "", &rig.image());
    let stored = store.push_as("tiny:1", &std::fs::read(&base).unwrap(), ImageFormat::Raw).await;
    let mut one = rig.commanded("r1");
    let first = rig.run(&one).await;
    // It has counted its boot before it is ended.
    rig.mark(&one).await;
    turn_a_bit(&base);
    let found = verified(&rig, &[&stored.digest]).await;
    assert_eq!(
        (found[0].result(), found[0].node_uids.as_slice()),
        (ImageCheckResult::SetAside, [one.uid.to_string()].as_slice())
    );
    let told = |o: &Observed| o.phase == Phase::Running && o.detail.contains("found damaged");
    let runs_on = rig.until_node(one.uid, "it says so and runs on", told).await;
    assert_eq!(runs_on.start_id, first.start_id);
    // Nothing starts on it any more.
    one.restarts = 1;
    rig.ensure(std::slice::from_ref(&one)).await;
    let lacks = |o: &Observed| o.phase == Phase::Failed && o.detail.starts_with(NEEDS_IMAGE);
    rig.until_node(one.uid, "it says what it needs", lacks).await;
    assert!(file(&rig, "quarantine", &stored.digest).exists());
    pulled(&rig, pull("tiny:1", Libvirt, &stored)).await.unwrap();
    let again = |o: &Observed| o.phase == Phase::Running && o.restarts == 1 && o.detail.is_empty();
    rig.until_node(one.uid, "it runs on the right one", again).await;
    // On the disk that it had.
    eventually("it boots", async || rig.log(one.uid).await.contains(&format!("{UP} (boot 2)"))).await;
}
