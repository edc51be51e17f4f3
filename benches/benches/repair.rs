//! How soon what breaks behind netloom's back is shown, and mended, from the moment on that somebody sets about breaking it: each kind by itself, with a netloomd and an Open vSwitch of its
//! own each time, since a switch daemon that loses its database again and again waits up to 8 s until it asks for it once more. The slowest time counts.

use std::time::{Duration, Instant};

use netloom_benches::{size, within};
use netloom_tests::{Mode, Sandbox, Watch, container, in_node, on_plane};
use serde_json::json;

use crate::rig::{links, topology};

/// Bounds of what is shown, and of what is mended.
const BARS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];
/// When it is given up.
const NEVER: Duration = Duration::from_secs(60);
/// How a node is told whose container is not there or does not run.
const NOT_RUNNING: &[&str] =
    &["NODE_STATE_STARTING", "NODE_STATE_PENDING", "NODE_STATE_CREATING", "NODE_STATE_STOPPED"];
/// How a link is told that does not carry.
const NOT_UP: &[&str] = &["LINK_STATE_DOWN", "LINK_STATE_PENDING", "LINK_STATE_FAILED", "LINK_STATE_UNKNOWN"];
/// The part of a lab with a management network that stands in no other.
const MGMT: &str = "mgmt: {ipv4-subnet: 10.219.77.0/24}\ntopology:";

/// What is broken: in words, on which planes, how, and how it shows.
type Kind = (&'static str, &'static [&'static str], fn(&mut Sandbox, &str), &'static [&'static str]);

/// What is broken of everything on a host at once.
const OF_ALL: [&str; 3] = ["all flows deleted", "the bridge deleted", "the database of Open vSwitch wiped"];

const OVS: &[&str] = &["ovs"];
const KERNEL: &[&str] = &["kernel"];
const BOTH: &[&str] = &["ovs", "kernel"];

const KINDS: [Kind; 12] = [
    (
        "a container killed",
        OVS,
        |s, lab| drop(s.docker(&["kill", &container(s, lab, "n0").expect("it runs")]).must()),
        NOT_RUNNING,
    ),
    (
        "a container removed",
        OVS,
        |s, lab| drop(s.docker(&["rm", "-f", &container(s, lab, "n0").expect("it runs")]).must()),
        NOT_RUNNING,
    ),
    ("all flows deleted", OVS, |s, _| drop(s.ovs.ofctl("del-flows", s.bridge(), &[]).must()), NOT_UP),
    (
        "a port removed from the bridge",
        OVS,
        |s, _| drop(s.ovs.vsctl(&["del-port", s.bridge(), &host_end(s)]).must()),
        NOT_UP,
    ),
    ("the bridge deleted", OVS, |s, _| drop(s.ovs.vsctl(&["del-br", s.bridge()]).must()), NOT_UP),
    (
        "an interface renamed in its node",
        BOTH,
        |s, lab| drop(in_node(s, lab, "n0", &["ip", "link", "set", "eth1", "name", "wan"]).must()),
        &["calls the interface wan"],
    ),
    (
        "an interface deleted in its node",
        BOTH,
        |s, lab| drop(in_node(s, lab, "n0", &["ip", "link", "delete", "eth1"]).must()),
        NOT_UP,
    ),
    (
        "a host end renamed",
        BOTH,
        |s, _| {
            let end = host_end(s);
            ip(s, &["link", "set", &end, "down"]);
            ip(s, &["link", "set", &end, "name", "renamed0"]);
        },
        NOT_UP,
    ),
    ("a host end deleted", BOTH, |s, _| ip(s, &["link", "delete", &host_end(s)]), NOT_UP),
    ("a redirect deleted", KERNEL, |s, _| tc(s, &["filter", "del", "dev", &host_end(s), "ingress"]), NOT_UP),
    (
        "the place of a redirect deleted",
        KERNEL,
        |s, _| tc(s, &["qdisc", "del", "dev", &host_end(s), "ingress"]),
        NOT_UP,
    ),
    ("the database of Open vSwitch wiped", OVS, |s, _| s.ovs.wipe(), NOT_UP),
];

pub fn rows() {
    let rounds = size(5, 1);
    for (what, planes, breaks, shows) in KINDS {
        for plane in planes {
            broken(&format!("{what} ({plane})"), plane, 2, rounds, breaks, shows);
        }
    }
    // What is of the whole host takes the longer the more there is.
    let nodes = size(50, 6);
    for (what, _, breaks, shows) in KINDS.into_iter().filter(|(what, ..)| OF_ALL.contains(what)) {
        broken(&format!("{what} ({nodes} containers, ovs)"), "ovs", nodes, size(3, 1), breaks, shows);
    }
    management_network(&Sandbox::start(Mode::One), rounds);
}

fn broken(
    what: &str,
    plane: &str,
    nodes: usize,
    rounds: usize,
    breaks: fn(&mut Sandbox, &str),
    shows: &[&str],
) {
    let links = if nodes == 2 { links(2)[..1].to_vec() } else { links(nodes) };
    let (mut shown, mut mended) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..rounds {
        let mut sandbox = Sandbox::start(Mode::One);
        let lab = sandbox.lab("repair");
        sandbox.deploy(&on_plane(plane, &topology(&lab, nodes, &links)));
        until(|| is_whole(&sandbox, &lab, nodes, links.len()));
        let watch = Watch::start(&sandbox, &lab);
        let begin = Instant::now();
        breaks(&mut sandbox, &lab);
        until(|| shows.iter().any(|words| watch.said(words)));
        shown = shown.max(begin.elapsed());
        until(|| is_whole(&sandbox, &lab, nodes, links.len()));
        mended = mended.max(begin.elapsed());
        drop(watch);
        sandbox.netloom(&["destroy", &lab, "--yes"]).must();
    }
    within(&format!("{what}: shown, slowest of {rounds}"), shown, BARS[0]);
    within(&format!("{what}: all well again"), mended, BARS[1]);
}

/// A management network is not put back under nodes that run: they say that it is gone, and what to do.
fn management_network(sandbox: &Sandbox, rounds: usize) {
    let lab = sandbox.lab("managed");
    let text = topology(&lab, 2, &links(2)[..1].to_vec()).replacen("topology:", MGMT, 1);
    let mut told = Duration::ZERO;
    for _ in 0..rounds {
        sandbox.deploy(&text);
        until(|| is_whole(sandbox, &lab, 2, 1));
        let owner = format!("label=netloom.owner={}", sandbox.owner());
        let network = sandbox.docker(&["network", "ls", "-q", "--filter", &owner]).must().stdout;
        let begin = Instant::now();
        for node in ["n0", "n1"] {
            let id = container(sandbox, &lab, node).expect("it runs");
            sandbox.docker(&["network", "disconnect", "-f", network.trim(), &id]).must();
        }
        sandbox.docker(&["network", "rm", network.trim()]).must();
        let says = |node: &str| {
            let why = &sandbox.node_json(&lab, node)["stateReason"];
            why.as_str().is_some_and(|why| why.contains("netloom node restart"))
        };
        until(|| says("n0") && says("n1"));
        told = told.max(begin.elapsed());
        sandbox.netloom(&["destroy", &lab, "--yes"]).must();
    }
    within("a management network deleted: told, and what to do, slowest", told, BARS[0]);
}

fn is_whole(sandbox: &Sandbox, lab: &str, nodes: usize, links: usize) -> bool {
    let lab = sandbox.lab_json(lab);
    (&lab["readyCount"], &lab["upLinkCount"]) == (&json!(nodes), &json!(links))
        && lab["state"] == "LAB_STATE_RUNNING"
}

/// Name of a host end.
fn host_end(sandbox: &Sandbox) -> String {
    let shown = sandbox.in_namespace("ip").args(["-brief", "link", "show"]).output().expect("ip");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let names = shown.lines().filter_map(|line| line.split(['@', ' ']).next());
    names.filter(|name| name.starts_with("nl")).min().expect("a host end").to_owned()
}

fn ip(sandbox: &Sandbox, args: &[&str]) {
    assert!(sandbox.in_namespace("ip").args(args).status().expect("ip").success(), "ip {args:?}");
}

fn tc(sandbox: &Sandbox, args: &[&str]) {
    assert!(sandbox.in_namespace("tc").args(args).status().expect("tc").success(), "tc {args:?}");
}

/// How long until it holds.
pub fn until(holds: impl Fn() -> bool) -> Duration {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < NEVER, "not within {NEVER:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
    begin.elapsed()
}
