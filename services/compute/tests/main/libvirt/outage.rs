//! A machine that dies, a service that is restarted, a libvirtd that goes away, and one that hangs.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use netloom_model::observed::{Observed, Phase};
use netloom_model::slice::Instance;
use netloom_model::spec::RestartPolicy;
use netloom_proto::compute::v1 as p;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::own;
use crate::rig::{Rig, Undo, rehash};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_qemu_is_seen_at_once_and_started_again() {
    let Some(rig) = Rig::libvirt("a_killed_qemu_is_seen_at_once_and_started_again").await else { return };
    let mut took = Vec::new();
    let mut first = Vec::new();
    for one in ["r1", "r2", "r3"].map(|node| rig.instance(node)) {
        first.push(rig.run(&one).await);
        let qemu = rig.libvirtd.unwrap().qemu(&one.name).expect("it runs");
        let killed = Instant::now();
        kill(Pid::from_raw(qemu), Signal::SIGKILL).unwrap();
        let ended = rig.until_node(one.uid, "ended", |o| o.phase != Phase::Running).await;
        took.push(killed.elapsed());
        assert_eq!(ended.exit_code, Some(137));
        assert!(ended.detail.starts_with("exited with 137; starts again in"), "{}", ended.detail);
    }
    // Milliseconds on a quiet machine; of three, since one may meet with a busy moment.
    took.sort_unstable();
    assert!(took[1] < Duration::from_secs(1), "their ends are seen after {took:?}");
    let again = |o: &Observed| o.phase == Phase::Running && o.restart_count == 1;
    let next = rig.until_node(first[0].uid, "started again", again).await;
    assert_eq!(next.instance_id, first[0].instance_id, "the same machine");
    assert_ne!(next.start_id, first[0].start_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_to_a_machine_from_outside_is_heard_by_an_event() {
    let Some(rig) = Rig::libvirt("what_is_done_to_a_machine_from_outside_is_heard_by_an_event").await else {
        return;
    };
    let one = rig.instance("r1");
    rig.run(&one).await;
    // No process ends by it, and the list that is compared each 10 s says of both that it runs.
    for (verb, is_paused) in [("suspend", true), ("resume", false)] {
        let done = Instant::now();
        rig.libvirtd.unwrap().virsh(&[verb, &one.name]).unwrap();
        let heard = |o: &Observed| {
            o.phase == Phase::Running && o.detail.starts_with("it was paused (virsh resume") == is_paused
        };
        rig.until_node(one.uid, verb, heard).await;
        assert!(done.elapsed() < Duration::from_secs(3), "{verb} is heard after {:?}", done.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_of_never_leaves_a_dead_machine_off() {
    let Some(rig) = Rig::libvirt("a_policy_of_never_leaves_a_dead_machine_off").await else { return };
    let mut one = rig.instance("r1");
    one.spec.restart_policy = RestartPolicy::Never;
    rehash(&mut one);
    rig.run(&one).await;
    rig.libvirtd.unwrap().virsh(&["destroy", &one.name]).unwrap();
    let off = |o: &Observed| o.phase == Phase::Stopped && o.detail == "ended with exit code 137";
    assert_eq!(rig.until_node(one.uid, "off, by force", off).await.exit_code, Some(137));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_was_only_defined_is_made_whatever_the_policy() {
    let test = "a_start_that_was_only_defined_is_made_whatever_the_policy";
    let Some(mut rig) = Rig::libvirt(test).await else { return };
    let mut one = rig.instance("r1");
    one.spec.restart_policy = RestartPolicy::Never;
    rehash(&mut one);
    let first = rig.run(&one).await;
    rig.stop().await;
    // As a service leaves it that ends between the definition for a start and the start.
    let virsh = |arguments: &[&str]| rig.libvirtd.unwrap().virsh(arguments).unwrap();
    virsh(&["destroy", &one.name]);
    let xml = virsh(&["dumpxml", "--inactive", &one.name]);
    let (before, after) = (&first.start_id, (first.start_id.parse::<i64>().unwrap() + 1).to_string());
    assert!(xml.contains(before), "{xml}");
    let file = rig.dir.path().join("domain.xml");
    std::fs::write(&file, xml.replace(before, &after)).unwrap();
    virsh(&["define", &file.display().to_string()]);
    rig.start().await;
    rig.sync(std::slice::from_ref(&one)).await;
    let again = rig.until_phase(one.uid, Phase::Running).await;
    assert_eq!(again.instance_id, first.instance_id);
    assert!(again.start_id != first.start_id && again.start_id != after);
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_run_on_while_libvirtd_is_restarted_and_are_back_after_the_host_was() {
    let test = "machines_run_on_while_libvirtd_is_restarted_and_are_back_after_the_host_was";
    let Some(mut rig) = Rig::libvirt_on(test, own).await else { return };
    let libvirtd = rig.libvirtd.unwrap();
    let (one, two) = (rig.instance("r1"), rig.instance("r2"));
    let before = rig.run(&one).await;
    let qemu = libvirtd.qemu(&one.name);
    libvirtd.stop();
    rig.until_phase(one.uid, Phase::Unknown).await;
    rig.until("the problem is told", |v| {
        v.inventory.problems.iter().any(|p| p.contains("libvirt does not answer"))
    })
    .await;
    // What is asked for meanwhile is done when it is back.
    rig.ensure(&[one.clone(), two.clone()]).await;
    libvirtd.start_again();
    let after = rig.until_phase(one.uid, Phase::Running).await;
    assert_eq!((&after.start_id, libvirtd.qemu(&one.name)), (&before.start_id, qemu), "it ran on");
    rig.until_phase(two.uid, Phase::Running).await;
    // What a reboot of the host leaves: no service, no QEMU, and a libvirtd that finds none.
    let disk = rig.data_dir().join(format!("instances/{}/disk.qcow2", one.uid));
    let inode = |path: &Path| std::fs::metadata(path).unwrap().ino();
    let written = inode(&disk);
    rig.stop().await;
    libvirtd.stop();
    for machine in [&one, &two] {
        kill(Pid::from_raw(libvirtd.qemu(&machine.name).expect("it runs")), Signal::SIGKILL).unwrap();
    }
    libvirtd.start_again();
    rig.start().await;
    rig.sync(&[one.clone(), two.clone()]).await;
    let again = |o: &Observed| o.phase == Phase::Running && o.start_id != before.start_id;
    let back = rig.until_node(one.uid, "is back", again).await;
    assert_eq!((&back.instance_id, inode(&disk)), (&before.instance_id, written), "on its disk");
    rig.until_phase(two.uid, Phase::Running).await;
    assert!(rig.remove(&[], &[rig.lab_uid]).await.is_empty());
}

/// Longer than its keep-alive, 20 s, after which each connection is cut, and making another hangs too.
const HANGS: Duration = Duration::from_secs(24);

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_libvirtd_delays_nothing_but_what_it_is_to_do() {
    let test = "a_hanging_libvirtd_delays_nothing_but_what_it_is_to_do";
    let Some(rig) = Rig::libvirt_on(test, own).await else { return };
    let libvirtd = rig.libvirtd.unwrap();
    let (one, two, three) = (rig.instance("r1"), rig.instance("r2"), rig.instance("r3"));
    let before = rig.run(&one).await;
    let qemu = libvirtd.qemu(&one.name);
    // It hangs in the midst of a start.
    rig.ensure(std::slice::from_ref(&two)).await;
    rig.until_node(two.uid, "is made", |o| o.phase != Phase::Absent).await;
    libvirtd.freeze();
    // What clears up after a test that failed waits for it.
    let _thaws = Undo::new(move || libvirtd.thaw());
    let frozen = Instant::now();
    answers_at_once(&rig, &[one.clone(), two.clone(), three.clone()]).await;
    // It is said once its answer is overdue; what is known ages from the beginning on.
    rig.until_phase(one.uid, Phase::Unknown).await;
    rig.until("what is known is old", |v| v.oldest > Duration::from_secs(7)).await;
    tokio::time::sleep(HANGS.saturating_sub(frozen.elapsed())).await;
    // Now there is no connection, and nobody makes one: nothing waits for that either.
    answers_at_once(&rig, &[one.clone(), two.clone(), three.clone()]).await;
    assert_eq!(rig.view.borrow().instances[&one.uid].phase, Phase::Unknown);
    libvirtd.thaw();
    // All is as asked, by itself, and nothing was started twice.
    for machine in [&one, &two, &three] {
        let running = rig.until_phase(machine.uid, Phase::Running).await;
        assert_eq!((running.restart_count, running.exit_code), (0, None), "{}", running.detail);
    }
    rig.until("all is read again", |v| v.oldest < Duration::from_secs(3)).await;
    assert_eq!(rig.view.borrow().instances[&one.uid].start_id, before.start_id);
    assert_eq!(libvirtd.qemu(&one.name), qemu, "it ran on");
    assert_eq!(libvirtd.virsh(&["list", "--all", "--name"]).unwrap().split_whitespace().count(), 3);
    assert!(rig.remove(&[], &[rig.lab_uid]).await.is_empty());
}

/// What is seen last, and what is wanted, is told and taken at once though its libvirtd hangs.
async fn answers_at_once(rig: &Rig, instances: &[Instance]) {
    let mut took = Vec::new();
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        let asked = Instant::now();
        rig.ensure(instances).await;
        took.push(asked.elapsed());
        let asked = Instant::now();
        let mut told = rig.client.clone().observe(p::ObserveRequest {}).await.unwrap().into_inner();
        let first = told.message().await.unwrap().unwrap().event.unwrap();
        took.push(asked.elapsed());
        let p::observe_response::Event::Snapshot(snapshot) = first else {
            panic!("not a snapshot: {first:?}")
        };
        assert_eq!(snapshot.instances.len(), instances.len());
    }
    took.sort_unstable();
    let p99 = took[took.len() * 99 / 100];
    assert!(p99 < Duration::from_millis(50), "of {} calls the 99th in 100 took {p99:?}", took.len());
}
