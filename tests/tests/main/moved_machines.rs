//! A virtual machine on two hosts, one after the other: each has a Docker, a libvirt and an Open vSwitch of its own.

use std::time::Duration;

use netloom_service::testing::libvirt::{Libvirtd, guest};
use netloom_service::testing::require;
use netloom_tests::{Pair, eventually};

use crate::{IMAGE, real};

/// A guest boots in seconds where nothing else runs; here everything is emulated, on a busy machine.
const BOUND: Duration = Duration::from_secs(300);

#[test]
fn a_drained_machine_has_its_disk_and_its_snapshots_on_the_other_host() {
    let test = "moved_machines::a_drained_machine_has_its_disk_and_its_snapshots_on_the_other_host";
    if !real(test) || !require(test, "libvirt") {
        return;
    }
    let mut libvirtds = Vec::new();
    let pair = Pair::start_with(&[IMAGE], "", |host| {
        let libvirtd = Libvirtd::start_by(host.in_namespace("unshare"));
        host.use_libvirt(libvirtd.uri());
        libvirtds.push(libvirtd);
    });
    // They go before what they are in.
    let _libvirtds = libvirtds;
    let (near, far, lab) = (&pair.near, &pair.far, pair.near.lab("moved"));
    eventually("both run virtual machines", BOUND, || {
        ["local", "far"].iter().all(|host| {
            let shown = near.get(&format!("/v1/hosts/{host}")).map(|reply| reply.body.to_string());
            shown.is_ok_and(|shown| shown.contains("RUNTIME_LIBVIRT"))
        })
    });
    near.netloom(&["image", "push", &guest().display().to_string(), "netloom/guest:local"]).must();
    near.netloom(&["host", "cordon", "far"]).must();
    let text = format!(
        "name: {lab}\ntopology:\n  nodes:\n    vm: {{kind: linux, runtime: libvirt, image: netloom/guest:local, memory: 128MiB}}\n    c1: {{kind: linux, image: {IMAGE:?}}}\n  links:\n    - endpoints: [\"vm:eth1\", \"c1:eth1\"]\n      ipv4: [10.0.0.1/24, 10.0.0.2/24]\n"
    );
    near.deploy(&text);
    near.wait_ready(&lab, 2, 1, BOUND);
    let guest = |command: &str| near.netloom(&["exec", &lab, "vm", "--", "sh", "-c", command]);
    guest("echo first >/data/marker; sync").must();
    near.netloom(&["node", "snapshot", "create", &lab, "vm", "before"]).must();
    guest("echo second >/data/marker; sync").must();
    let mac = guest("cat /sys/class/net/eth1/address").must().stdout;
    let macs = guest("cat /sys/class/net/eth0/address").must().stdout;

    near.netloom(&["host", "uncordon", "far"]).must();
    let planned = near.netloom(&["host", "drain", "local", "--dry-run"]).must().stdout;
    assert!(planned.contains("moves from local to far with its disk ("), "{planned}");
    near.netloom(&["host", "drain", "local", "--yes"]).must();
    near.wait_ready(&lab, 2, 1, BOUND);
    assert!(near.node_json(&lab, "vm")["host"].as_str().is_some_and(|host| host.ends_with("far")));
    assert_eq!(guest("cat /data/marker").must().stdout.trim(), "second");
    assert_eq!(guest("cat /sys/class/net/eth1/address").must().stdout, mac);
    assert_eq!(guest("cat /sys/class/net/eth0/address").must().stdout, macs);
    let log = near.netloom(&["logs", &lab, "vm"]).must().stdout;
    assert!(log.contains("(boot 2)"), "its guest counts its boots on its disk: {log}");
    eventually("it reaches the container", BOUND, || guest("ping -c 1 -W 1 10.0.0.2").ok());
    eventually("nothing of it is left where it was", BOUND, || {
        std::fs::read_dir(near.data_dir().join("instances")).is_ok_and(|mut left| left.next().is_none())
    });
    assert_eq!(std::fs::read_dir(far.data_dir().join("instances")).expect("its disks").count(), 1);

    // What was kept of its disk went along.
    let kept = near.netloom(&["node", "snapshot", "list", &lab, "vm"]).must().stdout;
    assert!(kept.contains("before"), "{kept}");
    near.netloom(&["node", "snapshot", "restore", &lab, "vm", "before", "--yes"]).must();
    near.wait_ready(&lab, 2, 1, BOUND);
    assert_eq!(guest("cat /data/marker").must().stdout.trim(), "first");
    near.netloom(&["destroy", &lab, "--yes"]).must();
}
