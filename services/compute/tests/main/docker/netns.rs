//! The hand-over of network namespaces, and the wait for interfaces.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use netloom_model::observed::{Observed, Phase};
use netloom_model::spec::NetworkMode;
use netloom_service::testing::eventually;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::rig::{BOUND, Rig, connect, rehash};

fn published(rig: &Rig) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(rig.run_dir().join("netns")).into_iter().flatten().flatten();
    entries.map(|e| e.path()).collect()
}

fn path_of(rig: &Rig, o: &Observed) -> PathBuf {
    rig.run_dir().join("netns").join(format!("{}.{}", o.uid, o.start_id))
}

async fn pid_of(o: &Observed) -> i32 {
    let container = connect().await.unwrap().inspect_container(&o.instance_id, None).await.unwrap();
    container.state.unwrap().pid.unwrap() as i32
}

fn inode(path: impl AsRef<Path>) -> (u64, u64) {
    let meta = std::fs::metadata(path).unwrap();
    (meta.dev(), meta.ino())
}

/// Runs a program in a network namespace.
fn in_namespace(netns: &Path, program: &[&str]) {
    let status = std::process::Command::new("nsenter")
        .arg(format!("--net={}", netns.display()))
        .args(program)
        .status();
    assert!(status.unwrap().success(), "{program:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_there_while_its_start_lives() {
    let Some(rig) = Rig::docker("a_namespace_is_there_while_its_start_lives").await else { return };
    let one = rig.instance("r1");
    let first = rig.run(&one).await;
    let pid = pid_of(&first).await;
    assert_eq!(inode(path_of(&rig, &first)), inode(format!("/proc/{pid}/ns/net")));
    assert_eq!(published(&rig), [path_of(&rig, &first)]);

    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    let died = Instant::now();
    while path_of(&rig, &first).exists() {
        assert!(died.elapsed() < BOUND, "the namespace of a dead node stays");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    eprintln!("namespace gone {:?} after the kill", died.elapsed());
    let second = rig
        .until_node(one.uid, "runs again", |o| o.phase == Phase::Running && o.start_id != first.start_id)
        .await;
    assert_eq!((second.restart_count, second.exit_code), (1, Some(137)));
    assert_eq!(inode(path_of(&rig, &second)), inode(format!("/proc/{}/ns/net", pid_of(&second).await)));
    assert!(rig.remove(&[one.uid], &[rig.lab_uid]).await.is_empty());
    eventually("nothing is published", BOUND, || async { published(&rig).is_empty() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_starts_when_its_interfaces_are_there() {
    let Some(rig) = Rig::docker("a_program_starts_when_its_interfaces_are_there").await else { return };
    let mut one = rig.instance("r1");
    // Not root, and a program that says what it finds.
    one.spec.user = "1000".into();
    one.spec.cmd = ["/bin/sh", "-c", "ls /sys/class/net; exec sleep 1000000"].map(str::to_owned).to_vec();
    one.interfaces = vec!["eth1".into(), "eth2".into()];
    rehash(&mut one);
    let running = rig.run(&one).await;
    let netns = path_of(&rig, &running);
    let program = async || rig.sh(one.uid, "cat /proc/1/cmdline").await.0;
    assert!(program().await.starts_with("/.netloom/wait\0"));
    in_namespace(&netns, &["ip", "link", "add", "eth1", "type", "veth", "peer", "name", "x"]);
    assert!(program().await.starts_with("/.netloom/wait\0"), "one of two is not enough");
    in_namespace(&netns, &["ip", "link", "set", "x", "name", "eth2"]);
    eventually("the program runs", BOUND, || async { program().await.starts_with("sleep\0") }).await;
    let found = || async { rig.log(one.uid).await.split_whitespace().eq(["eth1", "eth2", "lo"]) };
    eventually("the program found them", BOUND, found).await;

    // With fewer links the next start waits for fewer, without being made anew.
    one.interfaces = Vec::new();
    rig.ensure(std::slice::from_ref(&one)).await;
    let list = || async { rig.sh(one.uid, "grep -c eth /.netloom/interfaces").await.0.trim() == "0" };
    eventually("the list inside is empty", BOUND, list).await;
    connect().await.unwrap().restart_container(&running.instance_id, None).await.unwrap();
    let again = rig
        .until_node(one.uid, "adopted", |o| o.phase == Phase::Running && o.start_id != running.start_id)
        .await;
    assert_eq!(
        (again.restart_count, again.instance_id),
        (0, running.instance_id),
        "somebody else's restart is adopted"
    );
    eventually("the program runs at once", BOUND, || async { program().await.starts_with("sleep\0") }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shares_a_namespace_follows_a_node_that_died() {
    let Some(rig) = Rig::docker("who_shares_a_namespace_follows_a_node_that_died").await else { return };
    let (main, mut side) = (rig.instance("r1"), rig.instance("r2"));
    side.spec.network_mode = NetworkMode::Node("r1".into());
    side.network_of = Some(main.uid);
    rehash(&mut side);
    rig.sync(&[main.clone(), side.clone()]).await;
    let first = rig.until_phase(main.uid, Phase::Running).await;
    let beside = rig.until_phase(side.uid, Phase::Running).await;
    assert_eq!(published(&rig), [path_of(&rig, &first)], "only who has it hands it over");
    let old = inode(path_of(&rig, &first));
    // No other one is given its number while somebody has it.
    let _held = std::fs::File::open(path_of(&rig, &first)).unwrap();

    kill(Pid::from_raw(pid_of(&first).await), Signal::SIGKILL).unwrap();
    let anew = |o: &Observed, before: &Observed| o.phase == Phase::Running && o.start_id != before.start_id;
    let second = rig.until_node(main.uid, "runs again", |o| anew(o, &first)).await;
    let follows = rig.until_node(side.uid, "follows", |o| anew(o, &beside)).await;
    assert_eq!((second.restart_count, second.exited), (1, true));
    assert_eq!((follows.restart_count, follows.exited), (0, false), "it did not end by itself");
    let inside = |o: &Observed| {
        let o = o.clone();
        async move { inode(format!("/proc/{}/ns/net", pid_of(&o).await)) }
    };
    assert_eq!(inside(&follows).await, inside(&second).await);
    assert_ne!(inside(&second).await, old);
}
