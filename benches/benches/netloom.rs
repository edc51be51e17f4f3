//! `make bench`: each row is a ratio against a floor measured in the same run, never an absolute figure that says more of the machine than of netloom.

mod carrier;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netloom_benches::{median, row, timed};
use netloom_ovsdb::Client;
use netloom_tests::{Mode, Namespace, Ovs, Sandbox, run};

const IMAGE: &str = "netloom/test:local";
const PORTS: usize = 264;

fn main() {
    println!("{:<44} {:>12} {:>12} {:>9} {:>7} bar", "what", "measured", "floor", "ratio", "");
    discovery();
    carrier::rows();
    redeploy();
}

/// Ports discovered at start, against two subprocesses a port.
fn discovery() {
    let dir = tempfile::tempdir().expect("a directory");
    let ovs = Ovs::start(&dir.path().join("ovs"), Arc::new(Namespace::make("netloom-bench")));
    let mut args =
        vec!["--no-wait", "add-br", "bench", "--", "set", "bridge", "bench", "datapath_type=dummy"];
    let names: Vec<String> = (0..PORTS).map(|n| format!("p{n}")).collect();
    for name in &names {
        args.extend(["--", "add-port", "bench", name]);
    }
    ovs.vsctl(&args).must();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let socket = ovs.socket();
    let measured = median(5, || runtime.block_on(snapshot_of(&socket)));
    let (floor, ()) = timed(|| {
        for name in &names {
            ovs.vsctl(&["get", "interface", name, "ofport"]).must();
            run("cat", &["/sys/class/net/lo/ifindex"]).must();
        }
    });
    row(&format!("discover {PORTS} ports / 2 subprocesses each"), measured, floor, 0.005);
}

async fn snapshot_of(socket: &Path) -> Duration {
    let begin = Instant::now();
    let tables = vec![
        ("Port", vec!["name", "interfaces"]),
        ("Interface", vec!["name", "ofport", "link_state", "ifindex"]),
    ];
    let client = Client::connect(socket.to_owned(), "Open_vSwitch", tables);
    let mut snapshots = client.snapshots();
    let complete = snapshots.wait_for(|db| db.as_ref().is_some_and(|db| db.count("Port") > PORTS)).await;
    assert!(complete.is_ok(), "the connection ended");
    begin.elapsed()
}

/// A deploy with nothing to do, against the deploy.
fn redeploy() {
    let sandbox = Sandbox::start(Mode::One);
    let lab = sandbox.lab("bench");
    let mut text = format!("name: {lab}\ntopology:\n  defaults: {{kind: linux, image: {IMAGE}}}\n  nodes:\n");
    for n in 0..50 {
        text += &format!("    n{n}:\n");
    }
    text += "  links:\n";
    for n in 0..50 {
        text += &format!("    - endpoints: [\"n{n}:eth1\", \"n{}:eth2\"]\n", (n + 1) % 50);
        text += &format!("    - endpoints: [\"n{n}:eth3\", \"n{}:eth4\"]\n", (n + 7) % 50);
    }
    let (deploy, _) = timed(|| sandbox.deploy(&text));
    let again = median(5, || timed(|| sandbox.deploy(&text)).0);
    row("re-deploy, nothing to do / deploy (50, 100)", again, deploy, 0.02);
    let (destroy, _) = timed(|| sandbox.netloom(&["destroy", &lab, "--yes"]).must());
    row("destroy / deploy (50, 100)", destroy, deploy, 1.0);
}
