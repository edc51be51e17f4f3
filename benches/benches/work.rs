//! What netloomd itself does for a deploy and a destroy: its processor time, and how often it does what costs. Counts say the same on a busy machine.

use std::collections::BTreeMap;
use std::time::Duration;

use netloom_benches::{median, size, text, timed, told};
use netloom_tests::{Mode, Sandbox};

use crate::rig::{cpu, figures, links, settle, topology};

/// What is counted: how it is told, and the figure.
const COUNTS: [(&str, &str); 5] = [
    ("commits of the scheduler", "netloom_scheduler_commit_duration_seconds_count"),
    ("calls between services", "netloom_rpc_requests_total"),
    ("calls of Docker", "netloom_docker_call_duration_seconds_count"),
    ("passes of the network service", "netloom_network_pass_duration_seconds_count"),
    ("transactions of OVSDB", "netloom_ovsdb_transaction_duration_seconds_count"),
];

/// One piece of work: how long it took, netloomd's processor time, and its figures before and after.
struct Done {
    took: Duration,
    cpu: Duration,
    before: BTreeMap<String, f64>,
    after: BTreeMap<String, f64>,
}

pub fn rows() {
    for plane in ["kernel", "ovs"] {
        on(plane);
    }
}

fn on(plane: &str) {
    let nodes = size(50, 6);
    let links = links(nodes);
    let count = format!("{nodes} containers, {} links, {plane}", links.len());
    let sandbox = Sandbox::start_on(Mode::One, &format!("plane = {plane:?}"));
    let lab = sandbox.lab("work");
    let text = topology(&lab, nodes, &links);
    let pid = sandbox.pids()[0];
    let done = |work: &dyn Fn()| {
        settle(&sandbox);
        let (before, begin) = (figures(&sandbox), cpu(pid));
        let (took, ()) = timed(work);
        let cpu = cpu(pid).saturating_sub(begin);
        Done { took, cpu, before, after: figures(&sandbox) }
    };
    let (mut deploys, mut destroys) = (Vec::new(), Vec::new());
    for _ in 0..size(3, 1) {
        deploys.push(done(&|| drop(sandbox.deploy(&text))));
        destroys.push(done(&|| drop(sandbox.netloom(&["destroy", &lab, "--yes"]).must())));
    }
    tell(&format!("deploy ({count})"), &deploys);
    tell(&format!("destroy ({count})"), &destroys);
}

fn tell(what: &str, all: &[Done]) {
    let middle = |of: &dyn Fn(&Done) -> Duration| {
        let mut times = all.iter().map(of);
        text(median(all.len(), || times.next().unwrap_or_default()))
    };
    told(
        &format!("{what}: processor time of netloomd, of all"),
        &middle(&|d| d.cpu),
        &middle(&|d| d.took),
        "",
    );
    for (name, figure) in COUNTS {
        let of = |figures: &BTreeMap<String, f64>| figures.get(figure).copied().unwrap_or_default();
        let mut counts: Vec<f64> = all.iter().map(|d| of(&d.after) - of(&d.before)).collect();
        counts.sort_by(f64::total_cmp);
        told(&format!("{what}: {name}"), &format!("{}", counts[counts.len() / 2]), "", "");
    }
}
