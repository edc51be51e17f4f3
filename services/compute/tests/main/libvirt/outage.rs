//! A machine that dies, a service that is restarted, a libvirtd that goes away, and one that hangs.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use netloom_model::observed::{Observed, Phase};
use netloom_model::spec::RestartPolicy;
use netloom_proto::compute::v1 as p;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::own;
use crate::rig::{Rig, rehash};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_qemu_is_seen_at_once_and_started_again() {
    let Some(rig) = Rig::libvirt("a_killed_qemu_is_seen_at_once_and_started_again").await else { return };
    let one = rig.instance("r1");
    let first = rig.run(&one).await;
    let qemu = rig.libvirtd.unwrap().qemu(&one.name).expect("it runs");
    let killed = Instant::now();
    kill(Pid::from_raw(qemu), Signal::SIGKILL).unwrap();
    let ended = rig.until_node(one.uid, "ended", |o| o.phase != Phase::Running).await;
    // Milliseconds on a quiet machine, and less than what would be a look on the timer.
    let seen = killed.elapsed();
    assert!(seen < Duration::from_secs(5), "its end is seen after {seen:?}");
    assert_eq!(ended.exit_code, Some(137));
    assert!(ended.detail.starts_with("exited with 137; starts again in"), "{}", ended.detail);
    let again = |o: &Observed| o.phase == Phase::Running && o.restart_count == 1;
    let next = rig.until_node(one.uid, "started again", again).await;
    assert_eq!(next.instance_id, first.instance_id, "the same machine");
    assert_ne!(next.start_id, first.start_id);
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

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_libvirtd_delays_nothing_but_what_it_is_to_do() {
    let test = "a_hanging_libvirtd_delays_nothing_but_what_it_is_to_do";
    let Some(rig) = Rig::libvirt_on(test, own).await else { return };
    let (one, two) = (rig.instance("r1"), rig.instance("r2"));
    rig.run(&one).await;
    rig.libvirtd.unwrap().freeze();
    rig.ensure(&[one.clone(), two.clone()]).await;
    let mut slowest = Vec::new();
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        let asked = Instant::now();
        let mut told = rig.client.clone().observe(p::ObserveRequest {}).await.unwrap().into_inner();
        let first = told.message().await.unwrap().unwrap().event.unwrap();
        slowest.push(asked.elapsed());
        let p::observe_response::Event::Snapshot(snapshot) = first else {
            panic!("not a snapshot: {first:?}")
        };
        assert_eq!(snapshot.instances.len(), 2, "what was seen last, and what is wanted");
        let asked = Instant::now();
        rig.ensure(&[one.clone(), two.clone()]).await;
        slowest.push(asked.elapsed());
    }
    slowest.sort_unstable();
    let p99 = slowest[slowest.len() * 99 / 100];
    assert!(p99 < Duration::from_millis(50), "of {} calls the 99th in 100 took {p99:?}", slowest.len());
    // It is said, once its answer is overdue, and mended when it comes back.
    rig.until_phase(one.uid, Phase::Unknown).await;
    rig.libvirtd.unwrap().thaw();
    rig.until_phase(one.uid, Phase::Running).await;
    rig.until_phase(two.uid, Phase::Running).await;
}
