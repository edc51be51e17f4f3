//! What is there at start: ports of a switch, and rows of a database.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netloom_benches::{at_most, median, row, shortest, size, timed, told};
use netloom_network::{DATABASE, tables};
use netloom_ovsdb::Client;
use netloom_tests::{Namespace, Ovs, eventually, run};

use crate::rig::runtime;

/// Subprocesses are run for so many ports at most, and count for all: each does the same.
const SAMPLE: usize = 264;

pub fn rows() {
    let namespace = Arc::new(Namespace::make(&format!("nb{}", std::process::id())));
    let dir = tempfile::tempdir().expect("a directory");
    let switch = Ovs::start(&dir.path().join("switch"), namespace.clone());
    ports(&switch, size(264, 20));
    drop(switch);
    let sizes = size([264, 1000, 2000], [20, 50, 100]);
    let each = sizes.map(|count| {
        let database = Ovs::start_database_alone(&dir.path().join(format!("rows{count}")), namespace.clone());
        let one = rows_alone(&database, count).as_secs_f64() * 1e6 / count as f64;
        told(&format!("one of {count} rows, shortest of 15"), &format!("{one:.1} µs"), "", "");
        one
    });
    at_most(&format!("one of {} rows / one of {} rows", sizes[2], sizes[0]), "µs", each[2], each[0], 1.5);
}

fn add(ovs: &Ovs, names: &[String]) {
    let mut args = vec!["--no-wait", "--may-exist", "add-br", "bench", "--", "set", "bridge", "bench"];
    args.push("datapath_type=netdev");
    for name in names {
        args.extend(["--", "add-port", "bench", name, "--", "set", "interface", name, "type=internal"]);
    }
    ovs.vsctl(&args).must();
}

/// Ports of a switch that runs, which has made an interface of each.
fn ports(ovs: &Ovs, count: usize) {
    let names: Vec<String> = (0..count).map(|n| format!("p{n}")).collect();
    add(ovs, &names);
    eventually("the switch has taken up its ports", Duration::from_secs(120), || {
        let told = ovs.vsctl(&["--bare", "--columns=ofport", "list", "interface"]).stdout;
        told.split_whitespace().filter(|number| number.parse::<u32>().is_ok_and(|n| n > 0)).count() > count
    });
    let measured = discovered(ovs, count);
    let floor = by_subprocesses(ovs, &names);
    row(&format!("discover {count} ports of a switch / 2 subprocesses each"), measured, floor, 0.005);
}

/// Rows of a database alone.
fn rows_alone(ovs: &Ovs, count: usize) -> Duration {
    let names: Vec<String> = (0..count).map(|n| format!("p{n}")).collect();
    for names in names.chunks(500) {
        add(ovs, names);
    }
    let measured = discovered(ovs, count);
    let floor = by_subprocesses(ovs, &names);
    row(&format!("discover {count} rows of a database / 2 subprocesses each"), measured, floor, 0.005);
    let (runtime, socket) = (runtime(), ovs.socket());
    shortest(15, || runtime.block_on(snapshot_of(&socket, count)))
}

fn discovered(ovs: &Ovs, count: usize) -> Duration {
    let (runtime, socket) = (runtime(), ovs.socket());
    median(9, || runtime.block_on(snapshot_of(&socket, count)))
}

/// What the network service asks for at its start.
async fn snapshot_of(socket: &Path, count: usize) -> Duration {
    let begin = Instant::now();
    let client = Client::connect(socket.to_owned(), DATABASE, tables());
    let mut snapshots = client.snapshots();
    let complete = snapshots.wait_for(|db| db.as_ref().is_some_and(|db| db.count("Port") > count)).await;
    assert!(complete.is_ok(), "the connection ended");
    begin.elapsed()
}

fn by_subprocesses(ovs: &Ovs, names: &[String]) -> Duration {
    let sample = &names[..names.len().min(SAMPLE)];
    let (took, ()) = timed(|| {
        for name in sample {
            ovs.vsctl(&["--no-wait", "get", "interface", name, "ofport"]).must();
            run("cat", &["/sys/class/net/lo/ifindex"]).must();
        }
    });
    took.mul_f64(names.len() as f64 / sample.len() as f64)
}
