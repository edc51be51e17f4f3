//! Virtual machines: ten made and started against the same calls of libvirt by hand; how soon a killed one is shown; and what answers while libvirt hangs.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use netloom_api::v1 as api;
use netloom_api::v1::node_service_client::NodeServiceClient;
use netloom_benches::{Turns, both, median, size, timed, told, within};
use netloom_service::testing::libvirt::Libvirtd;
use netloom_service::{Connector, Endpoint};
use netloom_tests::{Mode, Sandbox, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::floor::Lab;
use crate::repair::until;
use crate::rig::runtime;

/// Its guests halt as soon as they run: what is measured is their making, not their work.
const KIND: &str = "name = \"halts\"
description = \"A machine that halts at once\"
runtime = \"libvirt\"
verified = false
source = \"this bench\"

[interfaces]
pattern = \"eth{n}\"
first = 1
max = 4

[resources]
cpu_request_millis = 1000
memory_request_mib = 64

[console]
method = \"serial\"
";
const IMAGE: &str = "bench/halts:1";
/// `cli`, `hlt`, and again should anything wake it.
const HALT: [u8; 4] = [0xfa, 0xf4, 0xeb, 0xfd];
/// What a call may take, and what is shown may be late.
const SHOWN: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_millis(50);

pub fn rows() {
    let kinds = tempfile::tempdir().expect("a directory");
    std::fs::write(kinds.path().join("halts.toml"), KIND).expect("a kind");
    let mut sandbox = Sandbox::prepare(Mode::One, &format!("kinds_dir = {:?}\n", kinds.path()));
    let libvirtd = Libvirtd::start_by(sandbox.in_namespace("unshare"));
    sandbox.use_libvirt(libvirtd.uri());
    sandbox.run_programs();
    sandbox.wait_until_healthy();
    eventually("libvirt answers", Duration::from_secs(60), || {
        sandbox
            .get("/v1/hosts/local")
            .is_ok_and(|r| r.body["runtimeVersions"].to_string().contains("libvirt"))
    });
    let base = push(&sandbox);
    let lab = sandbox.lab("vms");
    against_by_hand(&sandbox, &libvirtd, &lab, &base);
    sandbox.deploy(&topology(&lab, 2));
    killed(&sandbox, &libvirtd, &lab);
    stalled(&sandbox, &libvirtd, &lab);
    sandbox.netloom(&["destroy", &lab, "--yes"]).must();
}

/// Pushes the disk; where it is on the host once a machine was made of it.
fn push(sandbox: &Sandbox) -> PathBuf {
    let mut disk = vec![0; 1 << 20];
    disk[..4].copy_from_slice(&HALT);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let file = sandbox.path().join("halts.raw");
    std::fs::write(&file, disk).expect("a file");
    sandbox.netloom(&["image", "push", &file.to_string_lossy(), IMAGE, "--content", "raw"]).must();
    let image = sandbox.get(&format!("/v1/images/{IMAGE}")).expect("the image").body;
    let digest = image["stored"]["digest"].as_str().expect("a digest").to_owned();
    sandbox.data_dir().join("images").join(digest.trim_start_matches("sha256:"))
}

fn topology(lab: &str, machines: usize) -> String {
    let mut text =
        format!("name: {lab}\ntopology:\n  defaults: {{kind: halts, image: {IMAGE:?}}}\n  nodes:\n");
    for n in 0..machines {
        text += &format!("    n{n}:\n");
    }
    text
}

fn against_by_hand(sandbox: &Sandbox, libvirtd: &Libvirtd, lab: &str, base: &std::path::Path) {
    let count = size(10, 2);
    let text = topology(lab, count);
    let deploy = || timed(|| sandbox.deploy(&text)).0;
    let destroy = || timed(|| sandbox.netloom(&["destroy", lab, "--yes"]).must()).0;
    // Not measured: the host fetches the image, and libvirtd asks QEMU what it can do.
    deploy();
    let mut floor = Lab::of_machines(sandbox, &libvirtd.uri(), base);
    floor.order(&format!("copy {}", sandbox.owner()));
    destroy();
    let mut tried: Vec<(Duration, usize)> = Vec::new();
    for at_once in size(vec![1, 2, 4, 8], vec![2]) {
        tried.push((floor.order(&format!("deploy {at_once}")), at_once));
        floor.order(&format!("destroy {at_once}"));
    }
    let text: Vec<String> = tried.iter().map(|(t, n)| format!("{n}: {:.1} s", t.as_secs_f64())).collect();
    let at_once = tried.iter().min().map_or(1, |(_, n)| *n);
    told(&format!("floor: machines at once ({})", text.join(", ")), &format!("{at_once}"), "", "");
    let (mut up, mut down) = (Turns::default(), Turns::default());
    for round in 0..size(5, 1) {
        let of_netloom = || (deploy(), destroy());
        let of_floor =
            || (floor.order(&format!("deploy {at_once}")), floor.order(&format!("destroy {at_once}")));
        let (one, other) = both(round, of_netloom, of_floor);
        up.add(one.0, other.0);
        down.add(one.1, other.1);
    }
    up.row(&format!("deploy {count} machines / the same calls of libvirt by hand"), 1.2);
    let ratio = format!("{:.2}", down.ratio());
    let [measured, floor] = [down.measured(), down.floor()].map(netloom_benches::text);
    told(&format!("destroy {count} machines / the same by hand"), &measured, &floor, &ratio);
}

fn killed(sandbox: &Sandbox, libvirtd: &Libvirtd, lab: &str) {
    let ready = || sandbox.lab_json(lab)["readyCount"] == 2;
    let mut shown = Vec::new();
    let again = median(size(3, 1), || {
        until(ready);
        let qemu = libvirtd.qemu(&format!("netloom-{lab}-n0")).expect("it runs");
        kill(Pid::from_raw(qemu), Signal::SIGKILL).expect("it is there");
        let begin = Instant::now();
        shown.push(until(|| !ready()));
        until(ready);
        begin.elapsed()
    });
    shown.sort();
    within("a QEMU killed: shown", shown[shown.len() / 2], SHOWN);
    told("a QEMU killed: its machine runs again", &netloom_benches::text(again), "", "");
}

/// Answers while libvirtd does nothing at all, also once its silence is noticed.
fn stalled(sandbox: &Sandbox, libvirtd: &Libvirtd, lab: &str) {
    let runtime = runtime();
    let _within = runtime.enter();
    let channel = Connector::default().channel(&Endpoint::Unix(sandbox.socket()));
    let (mut health, mut nodes) = (HealthClient::new(channel.clone()), NodeServiceClient::new(channel));
    let request =
        api::ListNodesRequest { parent: format!("labs/{lab}"), page_size: 100, ..Default::default() };
    let mut times: [Vec<Duration>; 3] = Default::default();
    libvirtd.freeze();
    let until = Instant::now() + size(Duration::from_secs(30), Duration::from_secs(2));
    while Instant::now() < until {
        let (check, ()) = timed(|| {
            let checked = runtime.block_on(health.check(HealthCheckRequest::default()));
            assert_eq!(checked.expect("an answer").into_inner().status, 1, "it serves");
        });
        let (list, ()) = timed(|| {
            let listed = runtime.block_on(nodes.list_nodes(request.clone()));
            assert_eq!(listed.expect("an answer").into_inner().nodes.len(), 2);
        });
        let (http, ()) = timed(|| {
            let reply = sandbox.get(&format!("/v1/labs/{lab}/nodes")).expect("an answer");
            assert_eq!(reply.body["nodes"].as_array().map(Vec::len), Some(2));
        });
        [check, list, http].into_iter().zip(&mut times).for_each(|(took, times)| times.push(took));
        std::thread::sleep(Duration::from_millis(5));
    }
    libvirtd.thaw();
    let what = ["grpc.health.v1 over gRPC", "ListNodes over gRPC", "ListNodes over HTTP"];
    for (what, times) in what.into_iter().zip(&mut times) {
        times.sort();
        let p99 = times[times.len() * 99 / 100];
        within(&format!("libvirt hangs: {what}, p99 of {}", times.len()), p99, ANSWER);
    }
}
