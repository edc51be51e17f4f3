//! Machines that share a base image.

use std::fs::File;
use std::io::Write as _;
use std::process::Command;

use netloom_model::id::Digest;
use netloom_model::observed::{ExecPhase, Observed, Phase};
use netloom_model::slice::Instance;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::console::{boot, ready_by_console};
use super::own;
use crate::rig::{Rig, Undo, eventually, rehash};

/// The base's digest as it is on the disk now, past the page cache.
fn digest(rig: &Rig) -> Digest {
    use std::os::unix::fs::OpenOptionsExt as _;
    #[repr(align(4096))]
    struct Block([u8; 1 << 16]);
    let mut file =
        std::fs::File::options().read(true).custom_flags(nix::libc::O_DIRECT).open(rig.base()).unwrap();
    let (mut block, mut all) = (Box::new(Block([0; 1 << 16])), Vec::new());
    loop {
        match std::io::Read::read(&mut file, &mut block.0).unwrap() {
            0 => return Digest::of(&all),
            n => all.extend(&block.0[..n]),
        }
    }
}

/// Has a guest write more than its host may have room for, and say when that is done. QEMU takes a moment to see that its terminal is open: it has to stay so.
fn write_much(rig: &Rig, one: &Instance) -> File {
    let terminal = rig.libvirtd.unwrap().virsh(&["ttyconsole", &one.name]).unwrap();
    let mut terminal = File::options().write(true).open(terminal.trim()).unwrap();
    let command = b"dd if=/dev/zero of=/data/large bs=1M count=8 && sync; echo 8 records out: $?\n";
    terminal.write_all(command).unwrap();
    terminal
}

#[tokio::test(flavor = "multi_thread")]
async fn two_machines_write_and_their_base_stays_as_it_is() {
    let Some(rig) = Rig::libvirt("two_machines_write_and_their_base_stays_as_it_is").await else { return };
    let before = digest(&rig);
    assert_eq!(before.to_string(), rig.image());
    let (one, two) = (ready_by_console(rig.instance("r1")), ready_by_console(rig.instance("r2")));
    // Once for both: a Sync names all that there is to be.
    rig.sync(&[]).await;
    rig.until("it is synced", |v| v.synced).await;
    // Each counts its boots on its disk: by the time that they are ready they have written.
    tokio::join!(boot(&rig, &one), boot(&rig, &two));
    assert_eq!(digest(&rig), before, "while they run");
    // And now as much as they can.
    let _terminals = [&one, &two].map(|machine| write_much(&rig, machine));
    for _ in 0..2 {
        assert_eq!(digest(&rig), before, "while they write");
    }
    for machine in [&one, &two] {
        eventually("it has written", async || rig.log(machine.uid).await.contains("8 records out: 0")).await;
    }
    // Nor can anybody else write to it by QEMU's tools, root included, while they run on it.
    let base = rig.base();
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
    assert_eq!(digest(&rig), before, "after they are gone");
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
    let terminal = rig.libvirtd.unwrap().virsh(&["ttyconsole", &one.name]).unwrap();
    let mut terminal = std::fs::File::options().write(true).open(terminal.trim()).unwrap();
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
