//! Images from the registry's store: this service and a registry, as a pair.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use netloom_model::Failure;
use netloom_model::id::Digest;
use netloom_model::observed::{NEEDS_IMAGE, Observed, Phase};
use netloom_proto::{compute::v1 as pc, v1 as pv};
use netloom_service::status::from_status;
use netloom_service::ticket;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::rig::{KEY, Rig, eventually};
use store::{Store, disk, pull};

mod archive;
mod store;
mod verify;

const MIB: u64 = 1 << 20;
use pv::Runtime::Libvirt;

/// What a pull ends in, and what it told before.
async fn pulled(rig: &Rig, request: pc::PullImageRequest) -> Result<(pc::ImageFacts, Vec<String>), Failure> {
    let answers = rig.client.clone().pull_image(request).await.map_err(|s| from_status(&s))?;
    let (mut answers, mut told) = (answers.into_inner(), Vec::new());
    loop {
        use pc::pull_image_response::Event;
        match answers.message().await.map_err(|s| from_status(&s))?.expect("a result").event.unwrap() {
            Event::Progress(text) => told.push(text),
            Event::Done(facts) => return Ok((facts, told)),
        }
    }
}

fn file(rig: &Rig, part: &str, digest: &str) -> PathBuf {
    rig.data_dir().join("images").join(part).join(digest.strip_prefix("sha256:").unwrap())
}

fn image(rig: &Rig, stored: &pc::StoredImage) -> PathBuf {
    file(rig, "", &stored.digest)
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |m| m.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_comes_once_for_all_who_ask_and_never_again() {
    let rig = Rig::sim().await;
    let mut store = Store::of(&rig).await;
    let bytes = disk(8, 1);
    let stored = store.push("router:1", &bytes).await;
    store.line.hold_at(store.line.passed() + 2 * MIB);
    let asked: Vec<_> = (0..4)
        .map(|n| {
            let (mut client, request) = (rig.client.clone(), pull(&format!("router:{n}"), Libvirt, &stored));
            tokio::spawn(async move {
                let mut answers = client.pull_image(request).await.unwrap().into_inner();
                let mut told = 0;
                while answers.message().await.unwrap().is_some() {
                    told += 1;
                }
                told
            })
        })
        .collect();
    eventually("some of it came", async || length(&file(&rig, "parts", &stored.digest)) >= MIB).await;
    store.line.release();
    for one in asked {
        assert!(one.await.unwrap() >= 2, "progress, and the result");
    }
    let once = store.line.passed();
    assert!((8 * MIB..12 * MIB).contains(&once), "{once}");
    assert_eq!(std::fs::read(image(&rig, &stored)).unwrap(), bytes);
    assert_eq!(std::fs::metadata(image(&rig, &stored)).unwrap().permissions().mode() & 0o777, 0o444);

    pulled(&rig, pull("router:1", Libvirt, &stored)).await.unwrap();
    assert!(store.line.passed() < once + MIB, "what is here is not fetched again");
}

/// Three at once come over one line and onto one disk; more wait for their turn, and each has it.
#[tokio::test(flavor = "multi_thread")]
async fn no_more_images_come_at_once_than_a_few() {
    const AT_ONCE: usize = 3;
    let rig = Rig::sim().await;
    let mut store = Store::of(&rig).await;
    let mut all = Vec::new();
    for n in 0..6 {
        all.push(store.push(&format!("router:{n}"), &disk(4, 20 + n)).await);
    }
    // None of them is there before all have asked.
    store.line.hold_at(store.line.passed() + 3 * MIB);
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let asked: Vec<_> = all
        .iter()
        .map(|stored| {
            let (mut client, request) = (rig.client.clone(), pull("router:1", Libvirt, stored));
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut answers = client.pull_image(request).await.unwrap().into_inner();
                let mut first = answers.message().await.unwrap();
                tell.send(first.clone()).unwrap();
                while let Some(answer) = answers.message().await.unwrap() {
                    first = Some(answer);
                }
                first.expect("a result").event.unwrap()
            })
        })
        .collect();
    let parts = || {
        let parts = std::fs::read_dir(rig.data_dir().join("images/parts")).unwrap();
        parts.flatten().filter(|part| part.path().is_file()).count()
    };
    for _ in &all {
        told.recv().await.expect("each is told something");
    }
    eventually("a few come", async || parts() >= AT_ONCE).await;
    let mut most = parts();
    store.line.release();
    eventually("all are there", async || {
        most = most.max(parts());
        all.iter().all(|stored| image(&rig, stored).exists())
    })
    .await;
    assert_eq!(most, AT_ONCE, "so many came at once");
    for one in asked {
        assert!(matches!(one.await.unwrap(), pc::pull_image_response::Event::Done(_)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_is_cut_goes_on_where_it_was() {
    let rig = Rig::sim().await;
    let mut store = Store::of(&rig).await;
    let bytes = disk(8, 2);
    let stored = store.push("router:1", &bytes).await;
    store.line.cut_at(5 * MIB);
    let (_, told) = pulled(&rig, pull("router:1", Libvirt, &stored)).await.unwrap();
    assert!(told.last().unwrap().ends_with("of 8.4 MB"), "{told:?}");
    assert_eq!(std::fs::read(image(&rig, &stored)).unwrap(), bytes);
    assert!(store.line.passed() < 12 * MIB, "{}", store.line.passed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_goes_on_after_a_restart_and_bytes_that_a_crash_spoiled_come_anew() {
    for is_spoiled in [false, true] {
        let mut rig = Rig::sim().await;
        let mut store = Store::of(&rig).await;
        let bytes = disk(8, 3);
        let stored = store.push("router:1", &bytes).await;
        store.line.hold_at(5 * MIB);
        let begun = rig.client.clone().pull_image(pull("router:1", Libvirt, &stored)).await.unwrap();
        let part = file(&rig, "parts", &stored.digest);
        eventually("half of it came", async || length(&part) >= 4 * MIB).await;
        rig.stop().await;
        drop(begun);
        if is_spoiled {
            let mut spoiled = std::fs::read(&part).unwrap();
            spoiled[MIB as usize] ^= 1;
            std::fs::write(&part, spoiled).unwrap();
        }
        store.line.release();
        let before = store.line.passed();
        rig.start().await;
        pulled(&rig, pull("router:1", Libvirt, &stored)).await.unwrap();
        assert_eq!(std::fs::read(image(&rig, &stored)).unwrap(), bytes);
        let came = store.line.passed() - before;
        assert_eq!(came > 8 * MIB, is_spoiled, "{came}");
        assert_eq!(length(&part), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_away_is_told_and_what_came_stays() {
    let rig = Rig::sim().await;
    let mut store = Store::of(&rig).await;
    let stored = store.push("router:1", &disk(4, 4)).await;
    store.line.hold_at(2 * MIB);
    let request = pull("router:1", Libvirt, &stored);
    let (fetch, part) = (pulled(&rig, request.clone()), file(&rig, "parts", &stored.digest));
    let cut = async {
        eventually("some of it came", async || length(&part) >= MIB).await;
        store.line.open(false);
    };
    let (refused, ()) = tokio::join!(fetch, cut);
    let refused = refused.unwrap_err();
    assert_eq!(refused.reason, "IMAGE_REGISTRY_UNAVAILABLE");
    assert!(refused.message.contains("image-registry.sock"), "{}", refused.message);
    assert!(length(&part) >= MIB);
    store.line.open(true);
    store.line.release();
    pulled(&rig, request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_registry_refuses_is_told_as_it_said_it() {
    let rig = Rig::sim().await;
    let mut store = Store::of(&rig).await;
    let stored = store.push("router:1", &disk(1, 5)).await;
    let refused = async |stored: pc::StoredImage| {
        pulled(&rig, pull("router:1", Libvirt, &stored)).await.unwrap_err().reason
    };
    let other = Digest::of(b"nowhere").to_string();
    let unknown =
        pc::StoredImage { ticket: store::ticket_for(&other), digest: other.clone(), ..stored.clone() };
    assert_eq!(refused(unknown).await, "BLOB_NOT_FOUND");
    assert_eq!(
        refused(pc::StoredImage { ticket: store::ticket_for(&other), ..stored.clone() }).await,
        "TICKET_INVALID"
    );
    let old = ticket::sign(KEY, &stored.digest, ticket::READ_BLOB, 1);
    assert_eq!(refused(pc::StoredImage { ticket: old, ..stored.clone() }).await, "TICKET_EXPIRED");
    assert_eq!(
        refused(pc::StoredImage { digest: "sha256:1".into(), ..stored.clone() }).await,
        "INVALID_REQUEST"
    );
    let iso = pc::StoredImage { format: pv::ImageFormat::Iso.into(), ..stored.clone() };
    assert_eq!(refused(iso).await, "INVALID_REQUEST");
    // A registry that says less than the scheduler does.
    assert_eq!(refused(pc::StoredImage { size_bytes: 1000, ..stored }).await, "DIGEST_MISMATCH");
    for part in ["", "parts", "quarantine"] {
        let files = std::fs::read_dir(rig.data_dir().join("images").join(part)).unwrap();
        let files: Vec<_> = files.flatten().filter(|f| f.path().is_file()).collect();
        assert!(files.is_empty(), "{files:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_or_runs_full_is_told_and_gets_its_room_back() {
    if !netloom_service::testing::require("a_disk_that_is_full_or_runs_full", "root") {
        return;
    }
    let mut rig = Rig::sim().await;
    rig.stop().await;
    let small = Mounted::new(&rig.data_dir().join("images"), "6m");
    rig.start().await;
    let mut store = Store::of(&rig).await;
    let large = store.push("large:1", &disk(8, 6)).await;
    let before = store.line.passed();
    let refused = pulled(&rig, pull("large:1", Libvirt, &large)).await.unwrap_err();
    assert_eq!(refused.reason, "DISK_FULL");
    assert!(refused.message.contains(&*small.0.to_string_lossy()), "{}", refused.message);
    assert!(store.line.passed() < before + MIB, "nothing comes for which there is no room");

    let bytes = disk(4, 7);
    let fits = store.push("fits:1", &bytes).await;
    store.line.hold_at(store.line.passed() + 2 * MIB);
    let (ballast, part) = (small.0.join("ballast"), file(&rig, "parts", &fits.digest));
    let fill = async {
        eventually("some of it came", async || length(&part) >= MIB).await;
        let room = nix::sys::statvfs::statvfs(&small.0).unwrap();
        let room = room.blocks_available() * room.fragment_size();
        std::fs::write(&ballast, vec![0; usize::try_from(room - MIB / 2).unwrap()]).unwrap();
        store.line.release();
    };
    let (refused, ()) = tokio::join!(pulled(&rig, pull("fits:1", Libvirt, &fits)), fill);
    assert_eq!(refused.unwrap_err().reason, "DISK_FULL");
    assert_eq!(length(&part), 0, "the room is given back");
    std::fs::remove_file(ballast).unwrap();
    pulled(&rig, pull("fits:1", Libvirt, &fits)).await.unwrap();
    assert_eq!(std::fs::read(image(&rig, &fits)).unwrap(), bytes);
    rig.stop().await;
}

/// A small file system of its own, gone with the value.
struct Mounted(PathBuf);

impl Mounted {
    fn new(at: &Path, size: &str) -> Mounted {
        std::fs::create_dir_all(at).unwrap();
        let options = format!("size={size}");
        mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).unwrap();
        Mounted(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_goes_when_nothing_here_needs_it_any_more() {
    let rig = Rig::sim_with("image_keep_seconds = 1\n").await;
    let mut store = Store::of(&rig).await;
    let used = store.push("used:1", &disk(1, 8)).await;
    let unused = store.push("unused:1", &disk(1, 9)).await;
    for (reference, stored) in [("used:1", &used), ("unused:1", &unused)] {
        pulled(&rig, pull(reference, Libvirt, stored)).await.unwrap();
    }
    let mut instance = rig.instance("r1");
    instance.spec.image = format!("used:1@{}", used.digest);
    rig.sync(&[instance]).await;
    eventually("the unused one is gone", async || !image(&rig, &unused).exists()).await;
    assert!(image(&rig, &used).exists());
    rig.sync(&[]).await;
    rig.remove(&[], &[rig.lab_uid]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_was_changed_is_found_set_aside_and_fetched_anew() {
    let Some(rig) = Rig::libvirt("a_disk_that_was_changed").await else { return };
    let mut store = Store::of(&rig).await;
    let bytes = disk(2, 10);
    let stored = store.push("router:1", &bytes).await;
    let query = pc::ImageQuery {
        reference: "router:1".into(),
        runtime: Libvirt.into(),
        digest: stored.digest.clone(),
    };
    let looked = async || {
        let request = pc::InspectImagesRequest { images: vec![query.clone()] };
        rig.client.clone().inspect_images(request).await.unwrap().into_inner().images.remove(0)
    };
    assert!(!looked().await.present);
    for _ in 0..2 {
        let (facts, _) = pulled(&rig, pull("router:1", Libvirt, &stored)).await.unwrap();
        assert_eq!((facts.digest.as_str(), facts.size_bytes), (stored.digest.as_str(), 2 * MIB));
        assert_eq!((facts.format(), facts.reference.as_str()), (pv::ImageFormat::Raw, "router:1"));
        assert_eq!(looked().await, facts);
        let path = image(&rig, &stored);
        let mut changed = bytes.clone();
        changed[MIB as usize] ^= 1;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        std::fs::write(&path, changed).unwrap();
        assert!(!looked().await.present);
        assert!(file(&rig, "quarantine", &stored.digest).exists());
    }
}

/// A base that was set aside was looked for only when a machine was made: one that was there failed to start for ever, with QEMU's word that it cannot open a file.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_whose_base_was_set_aside_says_so_and_starts_once_that_is_fetched_again() {
    let test = "a_machine_whose_base_was_set_aside_says_so_and_starts_once_that_is_fetched_again";
    let Some(rig) = Rig::libvirt(test).await else { return };
    let mut store = Store::of(&rig).await;
    let stored = store.push("guest:1", &std::fs::read(rig.base()).unwrap()).await;
    let mut one = rig.instance("r1");
    rig.run(&one).await;

    let spoiled = rig.base().with_extension("spoiled");
    std::fs::write(&spoiled, "something else").unwrap();
    std::fs::rename(&spoiled, rig.base()).unwrap();
    let reference = format!("guest:1@{}", stored.digest);
    let query = pc::ImageQuery {
        reference: reference.clone(),
        runtime: Libvirt.into(),
        digest: stored.digest.clone(),
    };
    let looked = rig.client.clone().inspect_images(pc::InspectImagesRequest { images: vec![query] }).await;
    assert!(!looked.unwrap().into_inner().images[0].present);
    assert!(file(&rig, "quarantine", &stored.digest).exists() && !rig.base().exists());

    one.restarts = 1;
    rig.ensure(std::slice::from_ref(&one)).await;
    let lacks = |o: &Observed| o.phase == Phase::Failed && o.detail.starts_with(NEEDS_IMAGE);
    let told = rig.until_node(one.uid, "it says what it lacks", lacks).await;
    assert!(told.detail.contains(&stored.digest), "{}", told.detail);
    assert_eq!(told.image_digest, stored.digest);
    pulled(&rig, pull(&reference, Libvirt, &stored)).await.unwrap();
    rig.until_node(one.uid, "started", |o| o.phase == Phase::Running && o.restarts == 1).await;
}
