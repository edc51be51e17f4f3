//! netloomd, or one of five programs, killed at every step of a deploy, a deploy of something else, one that brings back what a failed one had set aside, and a removal.
//!
//! The steps are not listed here. A first run without failures records every fail point that each of them passes, in order; then, for each passing, netloomd dies there, is started again and
//! must bring about what was asked for, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use netloom_tests::{Mode, Sandbox, docker, eventually, finish};
use serde_json::Value;

use super::{BOUND, Running};
use crate::IMAGE;

/// What is done to a lab, in this order.
const VERBS: [&str; 4] = ["deploy", "change", "back", "destroy"];

/// What a node says that is made anew and does not start, on Docker and simulated.
const BROKEN: &str = "      user: nobody-here\n      labels: {sim.fail-start: it is broken}\n";

/// Steps that are no part of these verbs, and what passes them.
const ELSEWHERE: &[(&str, &str)] = &[
    ("compute.publish-machine", "virtual machines"),
    ("compute.take-disk", "virtual machines that move"),
    ("network.adopt", "virtual machines"),
    ("compute.stop", "netloom node stop"),
    ("scheduler.change-nodes", "netloom node start, stop and restart"),
    ("scheduler.plug", "netloom link up, down and set"),
    ("scheduler.cancel", "netloom operation cancel"),
    ("scheduler.place", "a host that has room again"),
    ("scheduler.start", "the start of a scheduler"),
    ("scheduler.heard", "a host that says what it can do, and once a minute that it was heard of"),
    ("scheduler.host_token", "netloom host token"),
    ("scheduler.join", "a host that joins"),
    ("scheduler.renew", "a host's next certificate"),
    ("scheduler.cordon", "netloom host cordon and uncordon"),
    ("scheduler.share-authority", "controllers on one database"),
    ("scheduler.update_host", "netloom host label, taint and set"),
    ("scheduler.quota", "netloom quota set and remove"),
    ("scheduler.drain", "netloom host drain"),
    ("scheduler.move", "netloom host drain, node move and node rebalance"),
    ("scheduler.disk", "virtual machines that move"),
    ("scheduler.copy-disk", "virtual machines that move"),
    ("scheduler.disk-copied", "virtual machines that move"),
    ("scheduler.remove_host", "netloom host remove"),
    ("scheduler.touch", "images that are fetched for a deploy"),
    ("scheduler.sweep", "now and then"),
    ("scheduler.tell-sync", "a host that is met"),
    ("scheduler.tell-network-sync", "a host that is met"),
];

/// How often a fail point is tried once more that was passed in the run without failures, and at which nothing died.
const AGAIN: usize = 5;

/// The nth passing of a fail point.
type Passing = (String, usize);

/// The passings of each verb.
type Passings = BTreeMap<&'static str, Vec<Passing>>;

/// What died where.
type Death = (&'static str, Passing);

/// A lab in two versions, and what there is to see of each.
trait Play: Sync {
    fn sandbox(&self) -> Sandbox;
    /// The file of the lab, before and after the change.
    fn text(&self, lab: &str, changed: bool) -> String;
    /// Nodes and links, before and after the change.
    fn nodes(&self, changed: bool) -> &'static [&'static str];
    /// Nodes of which nothing runs: bridges.
    fn bridges(&self) -> &'static [&'static str] {
        &[]
    }
    /// Whether what was changed in place is as asked.
    fn is_set(&self, _: &Sandbox, _changed: bool) -> bool {
        true
    }
    /// Ports of all bridges, and what joins links.
    fn wiring(&self, changed: bool) -> (usize, [usize; 2]);
    /// What exists of the nodes on the host: its own name, and that of its node.
    fn all(&self, sandbox: &Sandbox) -> Vec<(String, String)>;
    /// The nodes of which something exists on the host.
    fn instances(&self, sandbox: &Sandbox) -> Vec<String> {
        self.all(sandbox).into_iter().map(|(_, node)| node).collect()
    }
}

/// Which passings are tried: all, the first of each point in each verb, or the first of each point.
#[derive(Clone, Copy, PartialEq)]
enum Which {
    All,
    Firsts,
    Once,
}

fn file_of(sandbox: &Sandbox, play: &impl Play, lab: &str, changed: bool) -> String {
    sandbox.write("binds/one.conf", if changed { "two\n" } else { "one\n" });
    sandbox.write("lab.clab.yml", &play.text(lab, changed)).display().to_string()
}

fn command(sandbox: &Sandbox, play: &impl Play, lab: &str, verb: &str) -> Vec<String> {
    let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
    match verb {
        "destroy" => words(&["destroy", lab, "--yes"]),
        _ => words(&["deploy", "-t", &file_of(sandbox, play, lab, verb != "deploy")]),
    }
}

/// Before something can come back: a deploy that fails, for which it is set aside.
fn sets_aside(sandbox: &Sandbox, play: &impl Play, lab: &str, verb: &str) {
    if verb != "back" {
        return;
    }
    let text = play.text(lab, true).replacen("    n3:\n", &format!("    n3:\n{BROKEN}"), 1);
    let file = sandbox.write("broken.clab.yml", &text).display().to_string();
    assert!(!sandbox.netloom(&["deploy", "-t", &file]).ok());
    assert_eq!(
        play.instances(sandbox).iter().filter(|node| *node == "n3").count(),
        2,
        "{:?}",
        play.all(sandbox)
    );
}

fn step_of(point: &str) -> &str {
    point.rsplit_once('.').expect("a step and a moment").0
}

/// Whether it is chance when one of these verbs passes a point: then it may not pass it again.
fn is_elsewhere(point: &str) -> bool {
    ELSEWHERE.iter().any(|(step, _)| step_of(point) == *step)
}

/// The passings of each verb, in a run without failures.
fn record(play: &impl Play, which: Which) -> Passings {
    let sandbox = play.sandbox();
    let lab = sandbox.lab("points");
    sandbox.record_points();
    let mut passings = BTreeMap::new();
    for verb in VERBS {
        sets_aside(&sandbox, play, &lab, verb);
        sandbox.passed_points();
        sandbox.netloom(&command(&sandbox, play, &lab, verb)).must();
        let mut counts = BTreeMap::<String, usize>::new();
        let mut all: Vec<Passing> = Vec::new();
        for point in sandbox.passed_points() {
            let count = counts.entry(point.clone()).or_default();
            *count += 1;
            all.push((point, *count));
        }
        if which != Which::All {
            all.retain(|(_, nth)| *nth == 1);
        }
        let services = if play.wiring(false).0 > 0 {
            &["scheduler.", "compute.", "network."][..]
        } else {
            &["scheduler.", "compute."]
        };
        for service in services {
            let steps = all.iter().filter(|(point, _)| point.starts_with(service)).count();
            assert!(steps >= 4, "too few steps of {service} in {verb}: {all:#?}");
        }
        passings.insert(verb, all);
    }
    if which == Which::Once { once(&passings) } else { passings }
}

/// Each point in one of the verbs that pass it: in that which has the fewest so far.
fn once(passings: &Passings) -> Passings {
    let mut spread: Passings = VERBS.iter().map(|verb| (*verb, Vec::new())).collect();
    let all: BTreeSet<&Passing> = passings.values().flatten().collect();
    for passing in all {
        let of = VERBS.iter().filter(|verb| passings[*verb].contains(passing));
        let fewest = of.min_by_key(|verb| spread[*verb].len()).expect("what a verb passes");
        spread.get_mut(fewest).expect("a verb").push(passing.clone());
    }
    spread
}

/// What the API shows of a lab: the names of its nodes, when all are ready and all its links are up, and nothing is under way.
fn shown(sandbox: &Sandbox, lab: &str) -> Option<Vec<String>> {
    let json = sandbox.lab_json(lab);
    if json["operation"] != ""
        || json["readyCount"] != json["nodeCount"]
        || json["upLinkCount"] != json["linkCount"]
    {
        return None;
    }
    let nodes = sandbox.get(&format!("/v1/labs/{lab}/nodes")).ok()?.body;
    let id = |n: &Value| n["name"].as_str().and_then(|n| n.rsplit('/').next()).map(str::to_owned);
    let mut ids: Vec<String> = nodes["nodes"].as_array()?.iter().filter_map(id).collect();
    ids.sort();
    Some(ids)
}

fn is_unknown(sandbox: &Sandbox, lab: &str) -> bool {
    sandbox.get(&format!("/v1/labs/{lab}")).is_ok_and(|r| r.status == 404)
}

/// All that there is of a sandbox's, on the host and in what it knows.
fn everything(sandbox: &Sandbox, play: &impl Play) -> Vec<String> {
    let mut found = sandbox.leftovers();
    found.extend(play.instances(sandbox).into_iter().map(|i| format!("instance {i}")));
    for dir in [sandbox.data_dir().join("labs"), sandbox.path().join("run/exec")] {
        let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
        found.extend(entries.map(|e| format!("file {}", e.path().display())));
    }
    let seen = |path: &str| sandbox.get(path).map(|reply| reply.body).unwrap_or_default();
    let (labs, host) = (seen("/v1/labs"), seen("/v1/hosts/local"));
    if labs["labs"] != serde_json::json!([]) {
        found.push(format!("labs {labs}"));
    }
    if host["nodeCount"] != 0 {
        found.push(format!("reservations {host}"));
    }
    found
}

fn nothing_is_left(sandbox: &Sandbox, play: &impl Play, after: &str) {
    let end = Instant::now() + BOUND;
    loop {
        let left = everything(sandbox, play);
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "left after {after}: {left:#?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn is_as_asked(sandbox: &Sandbox, play: &impl Play, changed: bool) {
    let runs = |node: &&&str| !play.bridges().contains(node);
    let wanted: Vec<String> = play.nodes(changed).iter().filter(runs).map(|n| (*n).to_owned()).collect();
    let mut there = Vec::new();
    let mut is = || {
        there = play.instances(sandbox);
        there.sort();
        there == wanted
            && (sandbox.ovs.ports().len(), sandbox.joints()) == play.wiring(changed)
            && play.is_set(sandbox, changed)
    };
    eventually("there is what was asked for, once, and nothing else", BOUND, &mut is);
}

/// Has netloomd die at a passing of a verb, and demands what was asked for. False when the verb came to its end without that passing.
fn dies(sandbox: &Sandbox, play: &impl Play, lab: &str, verb: &str, passing: &Passing) -> bool {
    let words = command(sandbox, play, lab, verb);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let before = play.all(sandbox);
    sets_aside(sandbox, play, lab, verb);
    eprintln!("a death at {passing:?} of {verb} of {lab}");
    sandbox.die_at(&passing.0, passing.1);
    let mut running = Running::start(sandbox, &words);
    let end = Instant::now() + BOUND;
    let mut died = sandbox.has_died();
    // A command that fails has met a death, which may not be seen yet.
    while !died && running.has_ended() != Some(0) {
        assert!(Instant::now() < end, "{verb} neither ended well nor died at {passing:?}");
        std::thread::sleep(Duration::from_millis(10));
        died = sandbox.has_died();
    }
    drop(running);
    sandbox.pass_all_points();
    died |= sandbox.has_died();
    if died {
        sandbox.revive();
        sandbox.wait_until_healthy();
    }
    let again = || drop(sandbox.netloom(&words).must());
    match verb {
        "destroy" => {
            // Where it was not heard, the lab stands as before.
            let mut stands = false;
            eventually("the lab stands or is gone", BOUND, || {
                stands = shown(sandbox, lab).is_some();
                stands || is_unknown(sandbox, lab)
            });
            if stands {
                is_as_asked(sandbox, play, true);
                again();
            }
            nothing_is_left(sandbox, play, &format!("a death at {passing:?} of {verb}"));
        }
        _ => {
            let changed = verb != "deploy";
            if !changed && is_unknown(sandbox, lab) {
                // It was not heard: nothing may be there but files that came before it. They go with the next deploy and destroy, as a life shows at its end.
                let files = format!("file {}/", sandbox.data_dir().join("labs").display());
                let mut left = everything(sandbox, play);
                left.retain(|what| !what.starts_with(&files));
                assert_eq!(left, Vec::<String>::new(), "after a death at {passing:?} of {verb}");
                again();
            }
            if verb == "back" {
                eventually("nothing is under way", BOUND, || sandbox.lab_json(lab)["operation"] == "");
                if play.all(sandbox) != before {
                    again();
                }
            }
            let mut ids = None;
            eventually("nothing is under way, and all is ready", BOUND, || {
                ids = shown(sandbox, lab);
                ids.is_some()
            });
            let names = |changed| play.nodes(changed).iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
            if verb == "change" && ids == Some(names(false)) {
                is_as_asked(sandbox, play, false);
                again();
                ids = shown(sandbox, lab);
            }
            assert_eq!(ids, Some(names(changed)), "after a death at {passing:?} of {verb}");
            is_as_asked(sandbox, play, changed);
            if verb == "back" {
                assert_eq!(play.all(sandbox), before, "the very same, after a death at {passing:?}");
            }
        }
    }
    died
}

/// Does all to a lab of this name, and dies at what is told for each verb. What died; nothing is left.
fn life<'a>(
    sandbox: &Sandbox,
    play: &impl Play,
    name: &str,
    of: impl Fn(&str) -> Option<&'a Passing>,
) -> Vec<Death> {
    let lab = sandbox.lab(name);
    let mut died = Vec::new();
    for verb in VERBS {
        match of(verb) {
            Some(passing) if dies(sandbox, play, &lab, verb, passing) => died.push((verb, passing.clone())),
            Some(_) => {}
            // What would come back never left.
            None if verb == "back" => {}
            None => drop(sandbox.netloom(&command(sandbox, play, &lab, verb)).must()),
        }
    }
    nothing_is_left(sandbox, play, &format!("deaths at {died:?}"));
    died
}

/// Tries every recorded passing, on so many sandboxes side by side.
fn at_every_step(play: &impl Play, passings: &Passings, side_by_side: usize) {
    let rounds = passings.values().map(Vec::len).max().unwrap_or_default();
    let (next, died) = (Mutex::new(0), Mutex::new(BTreeSet::<Death>::new()));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..side_by_side {
            scope.spawn(|| {
                let sandbox = play.sandbox();
                loop {
                    let round = {
                        let mut next = next.lock().unwrap();
                        *next += 1;
                        *next - 1
                    };
                    if round >= rounds {
                        return;
                    }
                    let deaths = life(&sandbox, play, &format!("r{round}"), |verb| passings[verb].get(round));
                    died.lock().unwrap().extend(deaths);
                }
            });
        }
    });
    let died = died.into_inner().unwrap();
    let all: Vec<Death> = VERBS
        .iter()
        .flat_map(|verb| passings[verb].iter().map(move |passing| (*verb, passing.clone())))
        .collect();
    eprintln!(
        "{} of {} passings of fail points were deaths, in {:?}",
        died.len(),
        all.len(),
        begun.elapsed()
    );
    let missed: Vec<_> = all.iter().filter(|passing| !died.contains(passing)).collect();
    eprintln!("not passed again: {missed:?}");
    assert!(missed.len() * 5 <= all.len(), "too many passings were not passed again: {missed:#?}");
    // How often a point is passed varies with time; that it is passed does not, but for what another happened to do just before.
    for (verb, passing) in missed.into_iter().filter(|(_, (point, nth))| *nth == 1 && !is_elsewhere(point)) {
        let sandbox = play.sandbox();
        let lives = |n| life(&sandbox, play, &format!("again{n}"), |now| (now == *verb).then_some(passing));
        assert!(
            (0..AGAIN).map(lives).any(|deaths| !deaths.is_empty()),
            "nothing dies at {passing:?} of {verb}"
        );
    }
}

/// Every fail point of the sources, by the text of its call: steps, and writes of the scheduler's database.
fn points_of_sources() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../services");
    let mut points = BTreeSet::new();
    let mut dirs: Vec<_> = ["compute", "network", "scheduler"].map(|s| root.join(s).join("src")).into();
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).expect("sources").flatten() {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("a source");
            for call in ["store.begin(\"", ".change(\"scheduler."] {
                let names = text.split(call).skip(1).filter_map(|rest| rest.split('"').next());
                let of = |name: &str| format!("scheduler.{}", name.trim_start_matches("scheduler."));
                points.extend(
                    names.flat_map(|name| ["before", "after"].map(|when| format!("{}.{when}", of(name)))),
                );
            }
            for rest in text.split("fail_point::pass(").skip(1) {
                let words: Vec<&str> = rest.split(')').next().unwrap_or_default().split('"').collect();
                // One that takes its name from elsewhere is that of writes.
                if let [_, step, _, when, _] = words[..] {
                    points.insert(format!("{step}.{when}"));
                }
            }
        }
    }
    points
}

/// Demands that every fail point of the sources was passed, but for those that only something else passes.
fn is_every_point_passed(plays: &[&Passings]) {
    let sources = points_of_sources();
    let passings = plays.iter().flat_map(|play| play.values().flatten());
    let passed: BTreeSet<String> = passings.map(|(point, _)| point.clone()).collect();
    let unknown: Vec<_> = passed.difference(&sources).collect();
    assert!(unknown.is_empty(), "no source names {unknown:?}");
    let missed: Vec<_> = sources.difference(&passed).filter(|point| !is_elsewhere(point)).collect();
    assert!(missed.is_empty(), "no play passes {missed:?}");
    let stale = ELSEWHERE.iter().find(|(step, _)| !sources.iter().any(|point| step_of(point) == *step));
    assert_eq!(stale, None, "no source names it");
}

struct OnDocker(Mode);

/// A management network that labs of other sandboxes do not have.
fn subnet_of(lab: &str) -> String {
    let random = u32::from_str_radix(&lab[2..8], 16).expect("the number of its sandbox");
    format!("10.{}.{}.{}/28", 224 + (random >> 12) % 32, random >> 4 & 0xff, (random & 0xf) << 4)
}

/// What one of the nodes may use: billionths of a CPU, and bytes.
fn limits(changed: bool) -> [u64; 2] {
    if changed { [600_000_000, 192 << 20] } else { [500_000_000, 128 << 20] }
}

impl Play for OnDocker {
    fn sandbox(&self) -> Sandbox {
        let sandbox = Sandbox::prepare_on(self.0, "", "uplinks = [\"wan0\"]");
        for args in ["link add wan0 type veth peer name far0", "link set far0 up"] {
            finish(sandbox.in_namespace("ip").args(args.split(' ')), None).must();
        }
        sandbox.run_programs();
        sandbox.wait_until_healthy();
        sandbox
    }

    fn text(&self, lab: &str, changed: bool) -> String {
        let (second, mtu, env) = if changed { ("n3", 1400, "b") } else { ("n2", 1500, "a") };
        let impaired = if changed { "" } else { "\n      impairment: {rate: 10mbit}" };
        let [cpu, memory] = limits(changed);
        let cpu = cpu / 1_000_000;
        // Two links of a node that stays leave at once, while others stay.
        let leave = match changed {
            true => "",
            false => {
                "    - endpoints: [\"n1:eth5\", \"n2:eth5\"]\n    - endpoints: [\"n1:eth6\", \"n2:eth6\"]\n"
            }
        };
        format!(
            "name: {lab}\nplane: ovs\nmgmt: {{ipv4-subnet: {subnet}}}\ntopology:\n  defaults:\n    kind: linux\n    image: {IMAGE}\n    \
             image-pull-policy: Never\n  nodes:\n    \
             n1:\n      exec: [\"echo {env}\"]\n      cpu: 0.{cpu}\n      memory: {memory}\n      certificate: {{issue: true}}\n    {second}:\n      env: {{WHICH: {env}}}\n      binds: [\"binds/one.conf:/one.conf\"]\n    \
             sw: {{kind: bridge, uplink: wan0}}\n  links:\n    \
             - endpoints: [\"n1:eth1\", \"{second}:eth1\"]\n      mtu: {mtu}\n      ipv4: [\"10.0.1.1/24\", \"10.0.1.2/24\"]\n    \
             - endpoints: [\"n1:eth2\", \"{second}:eth2\"]\n      impairment: {{rate: 10mbit}}\n    \
             - endpoints: [\"n1:eth3\", \"sw:p1\"]{impaired}\n    \
             - endpoints: [\"{second}:eth3\", \"sw:p2\"]\n    \
             - endpoints: [\"n1:eth4\", \"host:up0\"]\n{leave}",
            subnet = subnet_of(lab)
        )
    }

    fn nodes(&self, changed: bool) -> &'static [&'static str] {
        if changed { &["n1", "n3", "sw"] } else { &["n1", "n2", "sw"] }
    }

    fn bridges(&self) -> &'static [&'static str] {
        &["sw"]
    }

    fn wiring(&self, changed: bool) -> (usize, [usize; 2]) {
        // One link is on Open vSwitch, or three, one in the kernel. Of two into the bridge one is in the kernel too, until it is impaired no more.
        if changed { (5, [2, 2]) } else { (9, [6, 4]) }
    }

    fn is_set(&self, sandbox: &Sandbox, changed: bool) -> bool {
        let of = format!("label=netloom.owner={}", sandbox.owner());
        let ids = docker(&["ps", "-q", "--filter", &of, "--filter", "label=netloom.node=n1"]).stdout;
        let shown = ids.lines().map(|id| {
            docker(&["inspect", "-f", "{{.HostConfig.NanoCpus}} {{.HostConfig.Memory}}", id]).stdout
        });
        shown.collect::<String>().split_whitespace().eq(limits(changed).map(|limit| limit.to_string()))
    }

    fn all(&self, sandbox: &Sandbox) -> Vec<(String, String)> {
        let owner = format!("label=netloom.owner={}", sandbox.owner());
        let format = "{{.ID}} {{.Label \"netloom.node\"}}";
        let all = docker(&["ps", "-a", "--filter", &owner, "--format", format]).must().stdout;
        let mut all: Vec<_> =
            all.lines().filter_map(|l| l.split_once(' ')).map(|(id, n)| (id.into(), n.into())).collect();
        all.sort();
        all
    }
}

struct Simulated;

impl Play for Simulated {
    fn sandbox(&self) -> Sandbox {
        let sandbox =
            Sandbox::prepare(Mode::One, "[compute]\ndrivers = [\"sim\"]\n[compute.sim]\nfile = \"SIM\"\n");
        let config = sandbox.path().join("netloom.toml");
        let text = std::fs::read_to_string(&config).expect("the configuration");
        let file = sandbox.path().join("sim.json").display().to_string();
        std::fs::write(&config, text.replace("SIM", &file)).expect("the configuration");
        sandbox.run_programs();
        sandbox.wait_until_healthy();
        sandbox
    }

    fn text(&self, lab: &str, changed: bool) -> String {
        let (second, env) = if changed { ("n3", "b") } else { ("n2", "a") };
        format!(
            "name: {lab}\ntopology:\n  defaults: {{kind: linux, image: played}}\n  nodes:\n    n1:\n      exec: [\"echo {env}\"]\n    \
             {second}:\n      env: {{WHICH: {env}}}\n      binds: [\"binds/one.conf:/one.conf\"]\n"
        )
    }

    fn nodes(&self, changed: bool) -> &'static [&'static str] {
        if changed { &["n1", "n3"] } else { &["n1", "n2"] }
    }

    fn wiring(&self, _: bool) -> (usize, [usize; 2]) {
        (0, [0, 0])
    }

    fn all(&self, sandbox: &Sandbox) -> Vec<(String, String)> {
        let kept = std::fs::read_to_string(sandbox.path().join("sim.json")).unwrap_or_default();
        let kept: BTreeMap<String, Value> = serde_json::from_str(&kept).unwrap_or_default();
        kept.into_iter().filter_map(|(id, i)| Some((id, i["found"]["node"].as_str()?.to_owned()))).collect()
    }
}

#[test]
fn netloomd_killed_at_every_passing_of_a_fail_point_on_simulated_nodes() {
    if crate::real("netloomd_killed_at_every_passing_of_a_fail_point_on_simulated_nodes") {
        at_every_step(&Simulated, &record(&Simulated, Which::All), 3);
    }
}

#[test]
fn netloomd_killed_at_every_fail_point_on_docker() {
    if crate::real("netloomd_killed_at_every_fail_point_on_docker") {
        let play = OnDocker(Mode::One);
        let passings = record(&play, Which::Firsts);
        is_every_point_passed(&[&passings, &record(&Simulated, Which::Firsts)]);
        at_every_step(&play, &passings, 4);
    }
}

/// Here the program that passes the point dies, and the other four go on. What a death at a point means for each verb is tried above.
#[test]
fn each_of_five_programs_killed_at_every_fail_point_on_docker() {
    if crate::real("each_of_five_programs_killed_at_every_fail_point_on_docker") {
        let play = OnDocker(Mode::Five);
        at_every_step(&play, &record(&play, Which::Once), 4);
    }
}
