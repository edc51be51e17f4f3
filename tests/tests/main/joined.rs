//! What hosts that joined make nodes of comes to them from the controller, at its door: images, and the disks of machines that move.

use std::process::Stdio;
use std::time::Duration;

use netloom_service::testing::libvirt::guest;
use netloom_service::testing::require;
use netloom_tests::{Host, Mode, Sandbox, docker, eventually, finish};

use crate::{IMAGE, real};

/// A guest boots in seconds where nothing else runs; here everything is emulated, on a busy machine.
const BOUND: Duration = Duration::from_secs(300);
/// Makes the cable of the first host so slow that a fetch takes seconds.
const SLOW: &str = "qdisc add dev up1 root tbf rate 16mbit burst 32kb latency 400ms";

#[test]
fn hosts_that_joined_fetch_images_and_move_disks() {
    let test = "joined::hosts_that_joined_fetch_images_and_move_disks";
    if !real(test) || !require(test, "libvirt") {
        return;
    }
    let sandbox = Sandbox::prepare(Mode::Five, "[scheduler]\njoin_listen = \"0.0.0.0:7601\"\n");
    sandbox.make_switch(&["10.99.0.1/24"]);
    let mut hosts = [1, 2].map(|n| Host::on_switch(&sandbox, n, &[]));
    sandbox.run_programs();
    sandbox.wait_until_healthy();
    for (host, id) in hosts.iter_mut().zip(["rack1", "rack2"]) {
        host.give_libvirt();
        host.join(&sandbox, id);
    }
    eventually("both run virtual machines", BOUND, || {
        ["rack1", "rack2"].iter().all(|id| {
            let shown = sandbox.get(&format!("/v1/hosts/{id}")).map(|reply| reply.body.to_string());
            shown.is_ok_and(|shown| shown.contains("RUNTIME_LIBVIRT"))
        })
    });
    let push = |file: &str, name: &str| {
        let pushed = sandbox.netloom(&["image", "push", file, name]).must().stdout;
        pushed.split_once("sha256:").expect("its digest").1.trim().to_owned()
    };
    let disk = push(&guest().display().to_string(), "shipped/guest:1");
    let archive = sandbox.path().join("shipped.tar").display().to_string();
    docker(&["save", IMAGE, "-o", &archive]).must();
    push(&archive, "shipped/test:1");
    for id in ["local", "rack2"] {
        sandbox.netloom(&["host", "cordon", id]).must();
    }

    // Who gives it dies while it comes: first the registry, then the scheduler, at whose door it is fetched.
    finish(sandbox.in_namespace("tc").args(SLOW.split(' ')), None).must();
    let lab = sandbox.lab("shipped");
    let text = format!(
        "name: {lab}\ntopology:\n  nodes:\n    vm: {{kind: linux, runtime: libvirt, image: shipped/guest:1, memory: 128MiB}}\n    c1: {{kind: linux, image: shipped/test:1}}\n  links:\n    - endpoints: [\"vm:eth1\", \"c1:eth1\"]\n      ipv4: [10.0.0.1/24, 10.0.0.2/24]\n"
    );
    let file = sandbox.write("shipped.clab.yml", &text).display().to_string();
    let mut deploy = sandbox.command();
    let mut deploy = deploy.args(["deploy", "-t", &file]).stdout(Stdio::null()).spawn().expect("netloom");
    let images = hosts[0].data_dir().join("images");
    let (part, whole) = (images.join("parts").join(&disk), images.join(&disk));
    let far = || std::fs::metadata(&part).map_or(0, |part| part.len());
    for program in ["netloom-image-registry", "netloom-scheduler"] {
        let before = far();
        eventually("some more of it has come", BOUND, || far() > before + (1 << 20));
        sandbox.kill(program);
        let before = far();
        assert!(!whole.exists(), "it was cut, not done");
        sandbox.revive();
        eventually("it goes on where it was", BOUND, || {
            let now = far();
            assert!(now >= before || whole.exists(), "{now} of {before} bytes are left");
            now > before || whole.exists()
        });
    }
    assert!(deploy.wait().expect("it ends").success());
    let cuts = hosts[0].logs().matches("cut off").count();
    assert!(cuts >= 2, "it was cut off {cuts} times");
    sandbox.wait_ready(&lab, 2, 1, BOUND);
    let is_on = |id: &str| {
        let on = |node: &str| sandbox.node_json(&lab, node)["host"] == format!("hosts/{id}");
        assert!(["vm", "c1"].into_iter().all(on), "both are on {id}");
    };
    is_on("rack1");
    let guest = |command: &str| sandbox.netloom(&["exec", &lab, "vm", "--", "sh", "-c", command]);
    let reaches = || eventually("it reaches the container", BOUND, || guest("ping -c 1 -W 1 10.0.0.2").ok());
    reaches();
    guest("echo kept >/data/marker; sync").must();

    sandbox.netloom(&["host", "uncordon", "rack2"]).must();
    sandbox.netloom(&["host", "drain", "rack1", "--yes"]).must();
    sandbox.wait_ready(&lab, 2, 1, BOUND);
    is_on("rack2");
    assert_eq!(guest("cat /data/marker").must().stdout.trim(), "kept");
    reaches();
    sandbox.netloom(&["destroy", &lab, "--yes"]).must();
    for host in &hosts {
        assert_eq!(host.leftovers(), [] as [String; 0]);
        let disks = std::fs::read_dir(host.data_dir().join("instances")).expect("its disks");
        assert_eq!(disks.count(), 0);
    }
}
