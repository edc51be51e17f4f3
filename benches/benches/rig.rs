//! What several sections need: labs as text, netloom's own API, a quiet switch.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use netloom_api::v1::lab_service_client::LabServiceClient;
use netloom_service::{Channel, Connector, Endpoint};
use netloom_tests::Sandbox;

static NUMBER: AtomicU64 = AtomicU64::new(0);

/// The image of all nodes.
pub const IMAGE: &str = "netloom/test:local";

/// Links of a lab: node, interface, node, interface.
pub type Links = Vec<[String; 4]>;

/// Two links a node: to the next one, and to one farther away.
pub fn links(nodes: usize) -> Links {
    let far = if nodes > 14 { 7 } else { 2 };
    let link = |n: usize, x: usize, to: usize| {
        [format!("n{n}"), format!("eth{x}"), format!("n{}", (n + to) % nodes), format!("eth{}", x + 1)]
    };
    (0..nodes).flat_map(|n| [link(n, 1, 1), link(n, 3, far)]).collect()
}

/// A lab of Docker nodes, with limits, so that these are part of the work.
pub fn topology(lab: &str, nodes: usize, links: &Links) -> String {
    let mut text = format!(
        "name: {lab}\ntopology:\n  defaults: {{kind: linux, image: {IMAGE}, cpu: 1.5, memory: 256MB}}\n  nodes:\n"
    );
    for n in 0..nodes {
        text += &format!("    n{n}:\n");
    }
    if !links.is_empty() {
        text += "  links:\n";
    }
    for [a, x, b, y] in links {
        text += &format!("    - endpoints: [\"{a}:{x}\", \"{b}:{y}\"]\n");
    }
    text
}

/// Waits until the switch has taken up everything that was asked of it: what is measured next begins quiet.
pub fn settle(sandbox: &Sandbox) {
    let begin = Instant::now();
    // Another value each time: a transaction that changes nothing is not waited for.
    let value = format!("external_ids:bench={}", NUMBER.fetch_add(1, Ordering::Relaxed));
    while !sandbox.ovs.vsctl(&["set", "Open_vSwitch", ".", &value]).ok() {
        assert!(
            begin.elapsed() < Duration::from_secs(120),
            "ovs-vswitchd does not take up its configuration"
        );
    }
}

/// A client of labs at a Unix socket.
pub fn labs(socket: &Path) -> LabServiceClient<Channel> {
    let channel = Connector::default().channel(&Endpoint::Unix(socket.to_owned()));
    LabServiceClient::new(channel).max_decoding_message_size(256 << 20)
}

/// A runtime for clients.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// Processor time that a process has had.
pub fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    // The name, in parentheses, may hold anything; utime and stime are the 12th and 13th after it.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|f| f.parse::<u64>().expect("ticks")).sum();
    let each = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    Duration::from_secs_f64(ticks as f64 / each as f64)
}

/// Memory that a process holds, in megabytes.
pub fn resident_mb(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("its resident memory");
    let kb: f64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
    kb * 1024.0 / 1e6
}

/// Figures that netloomd tells of itself, summed over their labels: how often things were done, not how long.
pub fn figures(sandbox: &Sandbox) -> BTreeMap<String, f64> {
    let text = sandbox.get("/metrics").expect("figures").text;
    let mut sums = BTreeMap::new();
    for (name, value) in text.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.rsplit_once(' ')) {
        let name = name.split('{').next().unwrap_or_default();
        if name.ends_with("_count") || name.ends_with("_total") {
            *sums.entry(name.to_owned()).or_default() += value.parse().unwrap_or(0.0);
        }
    }
    sums
}
