//! What netloomd costs while nothing happens.

use std::time::{Duration, Instant};

use netloom_benches::{size, under};
use netloom_tests::{Mode, Sandbox};

use crate::rig::{cpu, links, resident_mb, topology};

/// How long it idles: `NETLOOM_BENCH_IDLE_SECONDS`, 600 when nothing is said.
fn span() -> Duration {
    let given = std::env::var("NETLOOM_BENCH_IDLE_SECONDS").ok().and_then(|s| s.parse().ok());
    Duration::from_secs(given.unwrap_or(size(600, 10)))
}

pub fn rows() {
    let nodes = size(50, 4);
    let links = links(nodes);
    let sandbox = Sandbox::start(Mode::One);
    let lab = sandbox.lab("idle");
    sandbox.deploy(&topology(&lab, nodes, &links));
    let pid = sandbox.pids()[0];
    let (begin, before) = (Instant::now(), cpu(pid));
    std::thread::sleep(span());
    let share = (cpu(pid) - before).as_secs_f64() / begin.elapsed().as_secs_f64();
    let resident = resident_mb(pid);
    let what = format!("netloomd idle, {nodes} containers, {} links, {} s", links.len(), span().as_secs());
    under(&format!("{what}: resident"), "MB", resident, 60.0);
    under(&format!("{what}: of a core"), "%", share * 100.0, 1.0);
    sandbox.netloom(&["destroy", &lab, "--yes"]).must();
}
