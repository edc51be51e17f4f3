//! Machines that share a base image.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use netloom_model::id::Digest;
use netloom_model::observed::{ExecPhase, Observed, Phase};
use netloom_model::slice::Instance;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::console::{boot, ready_by_console};
use super::own;
use crate::rig::{Rig, Undo, eventually, rehash};

/// How the base is read: past the page cache, as machines read it, and through it, as all others do.
const WAYS: [i32; 2] = [nix::libc::O_DIRECT, 0];

/// A file's digest as it is now, read so.
fn digest(path: &Path, way: i32) -> Digest {
    use std::os::unix::fs::OpenOptionsExt as _;
    #[repr(align(4096))]
    struct Block([u8; 1 << 16]);
    let mut file = File::options().read(true).custom_flags(way).open(path).unwrap();
    let (mut block, mut all) = (Box::new(Block([0; 1 << 16])), Vec::new());
    loop {
        match std::io::Read::read(&mut file, &mut block.0).unwrap() {
            0 => return Digest::of(&all),
            n => all.extend(&block.0[..n]),
        }
    }
}

/// What a guest is told to do until it is told that it is enough: it writes what is not zero, and counts.
const WRITE: &[u8] = b"(tr '\\0' x </dev/zero | head -c 1048576 >/run/x; n=0; while [ ! -e /run/enough ]; do for i in 0 1 2 3 4 5 6 7; do dd if=/run/x of=/data/large bs=1M seek=$i conv=notrunc 2>/dev/null; done; sync; n=$((n + 1)); echo round $n; done; echo wrote it: $?) &\n";

/// The terminal of a machine. QEMU takes a moment to see that it is open: it has to stay so.
fn terminal(rig: &Rig, one: &Instance) -> File {
    let terminal = rig.libvirtd.unwrap().virsh(&["ttyconsole", &one.name]).unwrap();
    File::options().write(true).open(terminal.trim()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_machines_write_and_their_base_stays_as_it_is() {
    let Some(rig) = Rig::libvirt("two_machines_write_and_their_base_stays_as_it_is").await else { return };
    let base = rig.base();
    let is_as_it_was = |when: &str| {
        for way in WAYS {
            assert_eq!(digest(&base, way).to_string(), rig.image(), "{when}");
        }
    };
    is_as_it_was("before");
    let (one, two) = (ready_by_console(rig.instance("r1")), ready_by_console(rig.instance("r2")));
    // Once for both: a Sync names all that there is to be.
    rig.sync(&[]).await;
    rig.until("it is synced", |v| v.synced).await;
    // Each counts its boots on its disk: by the time that they are ready they have written.
    tokio::join!(boot(&rig, &one), boot(&rig, &two));
    is_as_it_was("while they run");
    // And now as much as they can, while somebody reads it all the time.
    let (enough, read) = (Arc::new(AtomicBool::new(false)), base.clone());
    let ends = enough.clone();
    let reader = tokio::task::spawn_blocking(move || {
        let mut seen = BTreeSet::new();
        while !ends.load(Ordering::Relaxed) {
            seen.insert(digest(&read, 0).to_string());
        }
        seen
    });
    let mut terminals = [&one, &two].map(|machine| terminal(&rig, machine));
    for terminal in &mut terminals {
        terminal.write_all(WRITE).unwrap();
    }
    for round in ["round 1", "round 2", "round 4"] {
        let both = async || rig.log(one.uid).await.contains(round) && rig.log(two.uid).await.contains(round);
        eventually("both go on writing", async || {
            is_as_it_was("while they write");
            both().await
        })
        .await;
    }
    for (machine, terminal) in [&one, &two].into_iter().zip(&mut terminals) {
        assert!(!rig.log(machine.uid).await.contains("wrote it: 0"), "it wrote to the end");
        terminal.write_all(b"touch /run/enough\n").unwrap();
        eventually("it has written", async || rig.log(machine.uid).await.contains("wrote it: 0")).await;
    }
    enough.store(true, Ordering::Relaxed);
    assert_eq!(reader.await.unwrap(), BTreeSet::from([rig.image()]), "as the reader saw it");
    // Nor can anybody else write to it by QEMU's tools, root included, while they run on it.
    let write = ["-f", "qcow2", "-c", "write 0 512"].map(str::to_owned);
    let refused = Command::new("qemu-io").args(write).arg(&base).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("lock"), "{said}{}", String::from_utf8_lossy(&refused.stdout));
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&base).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o444);
    for machine in [&one, &two] {
        let live = rig.libvirtd.unwrap().virsh(&["dumpxml", &machine.name]).unwrap();
        let disks = live.matches("<disk ").count();
        // Its own, and what it is told.
        assert_eq!((disks, live.matches("cache='none' io='native'").count()), (2, 2), "{live}");
        assert!(live.contains(&rig.base().display().to_string()), "on the shared base: {live}");
        let overlay = rig.data_dir().join(format!("instances/{}/disk.qcow2", machine.uid));
        assert!(std::fs::metadata(overlay).unwrap().len() > 8 << 20, "it was written to");
    }
    assert!(rig.remove(&[], &[rig.lab_uid]).await.is_empty());
    is_as_it_was("after they are gone");
    assert_eq!(
        std::fs::read_dir(rig.data_dir().join("instances")).unwrap().count(),
        0,
        "their disks are too"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_whose_domain_was_undefined_has_the_same_disk_when_it_is_made_anew() {
    let test = "a_machine_whose_domain_was_undefined_has_the_same_disk_when_it_is_made_anew";
    let Some(rig) = Rig::libvirt(test).await else { return };
    let one = ready_by_console(rig.instance("r1"));
    let first = boot(&rig, &one).await;
    let virsh = |command| rig.libvirtd.unwrap().virsh(&[command, &one.name]).unwrap();
    // While it runs: so nothing starts it again before it is gone.
    virsh("undefine");
    virsh("destroy");
    let anew = |o: &Observed| o.phase == Phase::Running && o.instance_id != first.instance_id;
    let second = rig.until_node(one.uid, "made anew", anew).await;
    rig.settle(&second).await;
    let booted = |o: &Observed| o.start_id == second.start_id && o.exec_phase == ExecPhase::Done;
    rig.until_node(one.uid, "booted again", booted).await;
    let log = rig.log(one.uid).await;
    assert!(log.contains("(boot 2)"), "its guest counts its boots on its disk: {log}");
    // Another spec is another machine.
    let mut other = one.clone();
    other.spec.hostname = "other".into();
    rehash(&mut other);
    let disk = rig.data_dir().join(format!("instances/{}/disk.qcow2", one.uid));
    let disk = std::fs::File::open(disk).unwrap();
    let is_there = || std::os::unix::fs::MetadataExt::nlink(&disk.metadata().unwrap()) > 0;
    assert!(is_there());
    rig.ensure(std::slice::from_ref(&other)).await;
    let anew = |o: &Observed| o.phase == Phase::Running && o.instance_id != second.instance_id;
    rig.until_node(one.uid, "made anew by its spec", anew).await;
    assert!(!is_there());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_the_host_is_told_and_the_machine_goes_on_when_there_is_room() {
    let test = "a_full_disk_of_the_host_is_told_and_the_machine_goes_on_when_there_is_room";
    if !netloom_service::testing::require(test, "root") {
        return;
    }
    // Before its libvirtd, whose mounts are a copy of those at its start.
    let small = tempfile::tempdir().unwrap();
    let room = |mib: u32, how: MsFlags| {
        let size = format!("size={mib}m");
        mount(Some("tmpfs"), small.path(), Some("tmpfs"), how, Some(size.as_str())).unwrap();
    };
    room(4, MsFlags::empty());
    let mounted = small.path().to_owned();
    let _undo = Undo::new(move || umount2(&mounted, MntFlags::MNT_DETACH).unwrap());
    let Some(rig) = Rig::libvirt_on(test, own).await else { return };
    let instances = rig.data_dir().join("instances");
    std::fs::remove_dir(&instances).unwrap();
    std::os::unix::fs::symlink(small.path(), &instances).unwrap();
    let one = ready_by_console(rig.instance("r1"));
    let first = boot(&rig, &one).await;
    let mut terminal = terminal(&rig, &one);
    terminal
        .write_all(b"dd if=/dev/zero of=/data/large bs=1M count=8; sync; echo 8 records out: $?\n")
        .unwrap();
    let stands = |o: &Observed| o.phase == Phase::Running && o.detail.contains("disk is full");
    let told = rig.until_node(one.uid, "stands still", stands).await;
    assert_eq!(told.start_id, first.start_id);
    room(64, MsFlags::MS_REMOUNT);
    // The same start: what its guest was about to write is written.
    let goes_on = |o: &Observed| o.phase == Phase::Running && o.detail.is_empty();
    assert_eq!(rig.until_node(one.uid, "goes on", goes_on).await.start_id, first.start_id);
    eventually("it was written", async || rig.log(one.uid).await.contains("8 records out: 0")).await;
}
