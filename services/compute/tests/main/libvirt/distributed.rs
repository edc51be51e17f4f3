//! A libvirtd as distributions have it: QEMU is not root, and consoles are written by the log daemon. One boot for all of it.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt};

use netloom_model::observed::{Observed, Phase};
use netloom_model::slice::wiped_hash;
use netloom_service::testing::eventually;
use netloom_service::testing::libvirt::Libvirtd;

use super::console::{boot, ready_by_console};
use super::handover::cabled;
use super::second_day::ask;
use super::serial::Console;
use crate::rig::{BOUND, Rig};

fn distributed() -> &'static Libvirtd {
    Box::leak(Box::new(Libvirtd::distributed()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_lives_on_a_libvirtd_as_distributions_have_it() {
    let test = "a_machine_lives_on_a_libvirtd_as_distributions_have_it";
    let Some(mut rig) = Rig::libvirt_on(test, distributed).await else { return };
    let libvirtd = rig.libvirtd.unwrap();
    // A data directory is open to all, as its unit makes it; a temporary one is not.
    std::fs::set_permissions(rig.dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let mut one = ready_by_console(rig.instance("r1"));
    one.nics = vec![cabled("eth1")];
    let first = boot(&rig, &one).await;
    let qemu = std::path::PathBuf::from(format!("/proc/{}", libvirtd.qemu(&one.name).unwrap()));
    assert_ne!(std::fs::metadata(&qemu).unwrap().uid(), 0, "it runs as a user of its own");
    let opened = std::fs::read_dir(qemu.join("fd")).unwrap().flatten();
    let opened: Vec<_> = opened.filter_map(|fd| std::fs::read_link(fd.path()).ok()).collect();
    let instance = rig.data_dir().join(format!("instances/{}", one.uid));
    assert!(opened.iter().any(|file| file.starts_with(&instance)), "its disk: {opened:?}");
    assert!(!opened.iter().any(|file| file.to_string_lossy().ends_with(".log")), "{opened:?}");

    // Its console is heard and typed at, and its log is read on where the daemon has put a part of it aside.
    let mut console = Console::open(&rig, &one).await;
    console.says("echo $((6 * 7)) is the answer", "42 is the answer").await;
    let flood = "head -c 200000 /dev/zero | tr '\\0' x | fold -w 99; echo flo''od is over";
    console.says(flood, "flood is over").await;
    drop(console);
    let put_aside = || async {
        let logs = std::fs::read_dir(instance.join("console")).unwrap().flatten();
        logs.map(|log| log.file_name()).any(|name| name.to_string_lossy().ends_with(".log.0"))
    };
    eventually("the daemon has put a part aside", BOUND, put_aside).await;
    let log = rig.log(one.uid).await;
    assert!(
        log.contains("netloom guest is ready (boot 1)") && log.contains("42 is the answer"),
        "its beginning is there"
    );

    // A snapshot with its memory, a restart of libvirt, and back.
    ask(&rig, &one, "echo one > /data/mark").await;
    assert!(rig.keep(one.uid, "before").await.unwrap().has_memory);
    ask(&rig, &one, "echo two > /data/mark").await;
    libvirtd.stop();
    rig.until_phase(one.uid, Phase::Unknown).await;
    libvirtd.start_again();
    let after = rig.until_phase(one.uid, Phase::Running).await;
    assert_eq!(after.start_id, first.start_id, "it ran on");
    rig.stop().await;
    rig.start().await;
    rig.sync(std::slice::from_ref(&one)).await;
    rig.until_phase(one.uid, Phase::Running).await;
    (one.restarts, one.restore) = (1, "before".to_owned());
    rig.ready_again(&one).await;
    assert_eq!(ask(&rig, &one, "cat /data/mark").await, "one");

    // Restarted it boots; wiped it begins anew, on a base that nobody has changed.
    (one.restarts, one.restore) = (2, String::new());
    rig.ready_again(&one).await;
    assert!(rig.log(one.uid).await.contains("(boot 2)"));
    (one.wipes, one.restarts) = (1, 3);
    one.spec_hash = wiped_hash(&one.spec_hash, one.wipes);
    rig.ready_again(&one).await;
    assert_eq!(ask(&rig, &one, "cat /data/boots").await, "1");
    let base = netloom_model::id::Digest::of(&std::fs::read(rig.base()).unwrap());
    assert_eq!(base.to_string(), rig.image());
    let again = |o: &Observed| o.phase == Phase::Running;
    rig.until_node(one.uid, "runs", again).await;
    assert!(rig.remove(&[one.uid], &[rig.lab_uid]).await.is_empty());
    assert!(!instance.exists(), "nothing is left behind");
}
