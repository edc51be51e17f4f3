//! Many hosts: how much faster several are than one, and what a thousand cost the scheduler that leads them. The hosts simulate, in a process of their own, and each makes one node at a time.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use netloom_api::v1 as api;
use netloom_api::v1::lab_service_client::LabServiceClient;
use netloom_benches::{at_most, size, timed, told, under, within};
use netloom_service::Channel;
use netloom_tests::{binaries, eventually, request};
use serde_json::json;

use crate::rig::{cpu, labs, links, resident_mb, runtime, topology};

/// What each node of a lab has reserved of a host's memory: what fills a host first.
const NODE: u64 = 64 << 20;

pub fn rows() {
    spread();
    thousand();
}

/// The same lab on one host, on two, on eight, that have just the room for it.
fn spread() {
    let nodes: usize = size(100, 16);
    let rounds = size(3, 1);
    let mut took = Vec::new();
    for hosts in [1usize, 2, 8] {
        let room = nodes.div_ceil(hosts) as u64;
        let cluster = Cluster::start(hosts, 50, room);
        let lab = topology("spread", nodes, &links(nodes));
        let runs = (0..rounds).map(|_| cluster.deploy_once(&lab, "spread"));
        took.push(netloom_benches::middle(runs.collect::<Vec<Duration>>()).as_secs_f64());
    }
    let what = format!("a lab of {nodes} nodes");
    at_most(&format!("deploy {what} on 2 hosts / on 1"), "s", took[1], took[0], 0.6);
    at_most(&format!("deploy {what} on 8 hosts / on 1"), "s", took[2], took[0], 0.16);
}

/// A thousand hosts that are full of nodes, of which nothing is asked.
fn thousand() {
    const NODES: usize = 100;
    let hosts = size(1000, 20);
    let count = hosts / 10;
    let (took, mut cluster) = timed(|| Cluster::start(hosts, 0, 10));
    told(&format!("{hosts} hosts are heard of"), &netloom_benches::text(took), "", "");
    let (took, ()) = timed(|| cluster.fill(count, NODES));
    let what = format!("{hosts} hosts, {} nodes", count * NODES);
    told(&format!("deploy {count} labs of {NODES} nodes"), &netloom_benches::text(took), "", "");
    let pid = cluster.scheduler.id();
    // What was begun at the end of a deploy is over.
    std::thread::sleep(Duration::from_secs(size(40, 2)));
    let (begin, before) = (Instant::now(), cpu(pid));
    std::thread::sleep(Duration::from_secs(size(60, 5)));
    let share = (cpu(pid) - before).as_secs_f64() / begin.elapsed().as_secs_f64();
    under(&format!("{what}: the scheduler, of a core"), "%", share * 100.0, 25.0);
    under(&format!("{what}: the scheduler, resident"), "MB", resident_mb(pid), 300.0);
    let (took, ()) = timed(|| {
        cluster.kill_scheduler();
        cluster.await_labs(count, NODES, Duration::from_secs(120));
    });
    within(&format!("{what}: all known to the next scheduler"), took, Duration::from_secs(5));
    std::thread::sleep(Duration::from_secs(size(40, 1)));
    under(&format!("{what}: the next scheduler, resident"), "MB", resident_mb(cluster.scheduler.id()), 300.0);
}

/// A controller, and hosts that simulate.
struct Cluster {
    dir: tempfile::TempDir,
    hosts: usize,
    scheduler: Child,
    others: Vec<Child>,
}

impl Cluster {
    /// Starts it and waits until all hosts are heard of. Each makes a node in so many milliseconds, and has room for so many.
    fn start(hosts: usize, create_ms: u64, room: u64) -> Cluster {
        let dir = tempfile::Builder::new().prefix("netloom-bench-").tempdir().expect("a temporary directory");
        let path = dir.path().display();
        let config = json!({
            "dir": dir.path(),
            "hosts": hosts,
            "create_ms": create_ms,
            "cpu_millis": 1_000_000,
            "memory_bytes": room * NODE,
        });
        std::fs::write(dir.path().join("hosts.json"), config.to_string()).expect("a file");
        let mut text =
            format!("data_dir = \"{path}/data\"\nrun_dir = \"{path}/run\"\n[gateway]\nlisten = \"\"\n");
        for n in 0..hosts {
            text += &format!(
                "[[hosts]]\nid = \"h{n}\"\ncompute = \"unix:{path}/h{n}/host.sock\"\nnetwork = \"unix:{path}/h{n}/host.sock\"\n"
            );
        }
        std::fs::write(dir.path().join("netloom.toml"), text).expect("a file");
        let start = |name, args: &[&str]| start(&dir, name, args);
        let mut others = vec![start("netloom-bench-hosts", &["hosts.json"])];
        let config = ["--config", "netloom.toml"];
        others.extend(["netloom-image-registry", "netloom-gateway"].map(|name| start(name, &config)));
        let scheduler = start("netloom-scheduler", &config);
        let cluster = Cluster { dir, hosts, scheduler, others };
        cluster.await_hosts();
        cluster
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("run/api.sock")
    }

    fn await_hosts(&self) {
        eventually("all hosts are heard of", Duration::from_secs(120), || {
            let path = format!("/v1/hosts?pageSize={}", self.hosts);
            let online = |hosts: &serde_json::Value| {
                let all = hosts["hosts"].as_array().into_iter().flatten();
                all.filter(|host| host["state"] == "HOST_STATE_ONLINE").count()
            };
            request(&self.socket(), "GET", &path, None).is_ok_and(|reply| online(&reply.body) == self.hosts)
        });
    }

    /// Deploys a lab by the command line and takes it away again; how long the first took.
    fn deploy_once(&self, topology: &str, lab: &str) -> Duration {
        std::fs::write(self.dir.path().join("lab.clab.yml"), topology).expect("a file");
        let (took, ()) = timed(|| self.netloom(&["deploy", "-t", "lab.clab.yml"]));
        self.netloom(&["destroy", lab, "--yes"]);
        took
    }

    fn netloom(&self, args: &[&str]) {
        let mut command = Command::new(binaries().join("netloom"));
        command.args(args).current_dir(self.dir.path());
        command.env("NETLOOM_ENDPOINT", format!("unix:{}", self.socket().display()));
        let output = command.output().expect("it runs");
        assert!(output.status.success(), "netloom {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Deploys so many labs of so many nodes, and waits until all are ready.
    fn fill(&self, count: usize, nodes: usize) {
        let runtime = runtime();
        let _within = runtime.enter();
        let client = labs(&self.socket());
        let import = |n: usize| {
            let mut client = client.clone();
            let text = topology(&format!("lab{n:03}"), nodes, &links(nodes));
            async move { import(&mut client, text).await }
        };
        runtime
            .block_on(futures::stream::iter((0..count).map(import)).buffer_unordered(4).collect::<Vec<()>>());
        self.await_labs(count, nodes, Duration::from_secs(600));
    }

    /// Waits until so many labs have all of so many nodes ready and all their links up.
    fn await_labs(&self, count: usize, nodes: usize, bound: Duration) {
        eventually("all labs are ready", bound, || {
            let Ok(reply) = request(&self.socket(), "GET", "/v1/labs?pageSize=1000", None) else {
                return false;
            };
            let all = reply.body["labs"].as_array().cloned().unwrap_or_default();
            let ready =
                |lab: &&serde_json::Value| lab["readyCount"] == nodes && lab["upLinkCount"] == 2 * nodes;
            all.iter().filter(ready).count() == count
        });
    }

    /// Kills the scheduler, as a crash does, and starts the next.
    fn kill_scheduler(&mut self) {
        let _ = self.scheduler.kill();
        let _ = self.scheduler.wait();
        self.scheduler = start(&self.dir, "netloom-scheduler", &["--config", "netloom.toml"]);
    }
}

async fn import(client: &mut LabServiceClient<Channel>, text: String) {
    let request = api::ImportLabRequest { text, ..api::ImportLabRequest::default() };
    client.import_lab(request).await.expect("the lab is taken");
}

fn start(dir: &tempfile::TempDir, name: &str, args: &[&str]) -> Child {
    let log = File::options().create(true).append(true).open(dir.path().join(format!("{name}.log")));
    let log = log.expect("a log file");
    let mut command = Command::new(binaries().join(name));
    command.args(args).current_dir(dir.path()).stdin(Stdio::null());
    command.stdout(log.try_clone().expect("a file handle")).stderr(log);
    command.spawn().unwrap_or_else(|e| panic!("cannot start {name}: {e}"))
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.others.iter_mut().chain([&mut self.scheduler]) {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            for name in ["netloom-bench-hosts", "netloom-scheduler", "netloom-gateway"] {
                let log =
                    std::fs::read_to_string(self.dir.path().join(format!("{name}.log"))).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(20).collect();
                eprintln!("---- last lines of {name}");
                tail.into_iter().rev().for_each(|line| eprintln!("{line}"));
            }
        }
    }
}
