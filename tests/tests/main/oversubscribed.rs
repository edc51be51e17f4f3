//! More is asked for than one host has: nodes go where there is room, and what fits nowhere waits and is told what is missing, on each host.

use std::time::{Duration, Instant};

use netloom_service::testing::libvirt::{Libvirtd, guest};
use netloom_service::testing::require;
use netloom_tests::{Pair, Sandbox, eventually};
use serde_json::Value;

use crate::{IMAGE, real};

/// What a lab may take to come up whose five guests boot at once, each of them emulated.
const BOUND: Duration = Duration::from_secs(300);
/// Virtual machines ask for a core each; containers of the kind that the test adds for this much, in thousandths.
const MACHINES: u64 = 5;
const CONTAINERS: u64 = 9;
const OF_CONTAINER: u64 = 375;
/// What may be reserved of a host, in thousandths: all of the lab is 156 % of it.
const ROOM: u64 = 5_360;

/// Virtual machines and containers in a ring: link i joins the ith and the next one as 10.0.i.0/24.
fn ring(lab: &str, policy: &str) -> String {
    let names = names();
    let mut text = format!("name: {lab}\nplacement-policy: {policy}\ntopology:\n  nodes:\n");
    for name in &names {
        text += &match name.starts_with('v') {
            true => format!(
                "    {name}: {{kind: linux, runtime: libvirt, image: netloom/guest:local, memory: 128MiB}}\n"
            ),
            false => format!("    {name}: {{kind: busy, image: {IMAGE:?}, image-pull-policy: Never}}\n"),
        };
    }
    text += "  links:\n";
    for (n, name) in names.iter().enumerate() {
        let next = &names[(n + 1) % names.len()];
        text += &format!(
            "    - endpoints: [\"{name}:eth2\", \"{next}:eth1\"]\n      ipv4: [10.0.{at}.1/24, 10.0.{at}.2/24]\n",
            at = n + 1
        );
    }
    text
}

fn names() -> Vec<String> {
    (1..=MACHINES).map(|n| format!("v{n}")).chain((1..=CONTAINERS).map(|n| format!("c{n}"))).collect()
}

fn host(near: &Sandbox, id: &str) -> Value {
    near.get(&format!("/v1/hosts/{id}")).map_or(Value::Null, |reply| reply.body)
}

fn reserved(near: &Sandbox, id: &str) -> u64 {
    host(near, id)["cpuReservedMillis"].as_str().and_then(|n| n.parse().ok()).expect("a number")
}

/// Lets this much of a host's CPU be reserved, in thousandths of a core.
fn give(near: &Sandbox, id: &str, millis: u64) {
    let has = host(near, id)["cpuTotalMillis"].as_str().and_then(|n| n.parse::<f64>().ok());
    // A little more, so that what is cut off at the end is not of it.
    let times = (millis as f64 + 0.4) / has.expect("a number");
    near.netloom(&["host", "set", id, "--cpu-overcommit", &times.to_string()]).must();
}

fn cores(millis: u64) -> String {
    let all = format!("{:.3}", millis as f64 / 1_000.0);
    all.strip_suffix('0').unwrap_or(&all).to_owned()
}

/// What a host has to say to a node for which its CPU does not do.
fn lacks(near: &Sandbox, id: &str, room: u64, wants: u64) -> String {
    let free = room - reserved(near, id);
    let [wants, free, room, missing] = [wants, free, room, wants.saturating_sub(free)].map(cores);
    format!("needs {wants} CPU, {free} of {room} free, {missing} missing")
}

/// Nodes of a lab in a state.
fn nodes_in(near: &Sandbox, lab: &str, state: &str) -> Vec<Value> {
    let nodes = near.get(&format!("/v1/labs/{lab}/nodes")).map_or(Value::Null, |reply| reply.body);
    let nodes = nodes["nodes"].as_array().cloned().unwrap_or_default();
    nodes.into_iter().filter(|node| node["state"] == format!("NODE_STATE_{state}")).collect()
}

fn containers(pair: &Pair) -> Vec<String> {
    let of = |host: &Sandbox| {
        let mut ids: Vec<String> =
            host.docker(&["ps", "-aq", "--no-trunc"]).must().stdout.lines().map(str::to_owned).collect();
        ids.sort();
        ids
    };
    [of(&pair.near), of(&pair.far)].concat()
}

#[test]
fn fourteen_nodes_run_on_two_hosts_of_which_one_would_be_at_156_percent() {
    let test = "oversubscribed::fourteen_nodes_run_on_two_hosts_of_which_one_would_be_at_156_percent";
    if !real(test) || !require(test, "libvirt") {
        return;
    }
    let kinds = tempfile::tempdir().expect("a directory");
    let busy = format!(
        "name = \"busy\"\ndescription = \"A container that asks for much\"\nruntime = \"docker\"\nverified = false\nsource = \"a test of netloom's\"\n\
         [interfaces]\npattern = \"eth{{n}}\"\nfirst = 1\nmax = 4\n[resources]\ncpu_request_millis = {OF_CONTAINER}\nmemory_request_mib = 64\n"
    );
    std::fs::write(kinds.path().join("busy.toml"), busy).expect("a kind");
    // Only the first host runs virtual machines.
    let mut libvirtd = None;
    let pair = Pair::start_with(&[IMAGE], &format!("kinds_dir = {:?}", kinds.path()), |host| {
        if libvirtd.is_none() {
            let started = Libvirtd::start_by(host.in_namespace("unshare"));
            host.use_libvirt(started.uri());
            libvirtd = Some(started);
        }
    });
    // It goes before what it is in.
    let libvirtd = libvirtd.expect("two hosts");
    let (near, lab) = (&pair.near, pair.near.lab("batch"));
    eventually("one runs virtual machines", BOUND, || {
        host(near, "local").to_string().contains("RUNTIME_LIBVIRT")
    });
    near.netloom(&["image", "push", &guest().display().to_string(), "netloom/guest:local"]).must();

    let asked = 1_000 * MACHINES + OF_CONTAINER * CONTAINERS;
    assert_eq!(asked * 100 / ROOM, 156, "the case is the one that broke");
    ["local", "far"].iter().for_each(|id| give(near, id, ROOM));
    let begun = Instant::now();
    near.deploy(&ring(&lab, "best-effort"));
    near.wait_ready(&lab, 14, 14, BOUND);
    println!("fourteen nodes, five of them machines, in {:.1?}", begun.elapsed());
    let on = ["local", "far"].map(|id| reserved(near, id));
    assert!(on.iter().sum::<u64>() == asked && on.iter().all(|cpu| (1..=ROOM).contains(cpu)), "{on:?}");
    let machines = nodes_in(near, &lab, "READY");
    let machines = machines.iter().filter(|node| node["runtime"] == "RUNTIME_LIBVIRT");
    assert_eq!(machines.filter(|node| node["host"] == "hosts/local").count(), 5);
    // Each link that goes across passes frames.
    let names = names();
    let mut across = 0;
    for (n, one) in names.iter().enumerate() {
        let other = &names[(n + 1) % names.len()];
        if std::ptr::eq(pair.host_of(&lab, one), pair.host_of(&lab, other)) {
            continue;
        }
        across += 1;
        // From the container: a machine's console takes one command at a time.
        let (from, end) = if one.starts_with('c') { (one, 2) } else { (other, 1) };
        let to = format!("10.0.{}.{end}", n + 1);
        eventually(&format!("{from} reaches {to}"), BOUND, || {
            near.netloom(&["exec", &lab, from, "--", "ping", "-c", "1", "-W", "1", &to]).ok()
        });
        near.netloom(&["link", "check", &lab, &format!("{one}:eth2--{other}:eth1")]).must();
    }
    assert!(across >= 2, "a ring that is cut, is cut twice");
    near.netloom(&["destroy", &lab, "--yes"]).must();

    // Both hosts together have too little: as a whole nothing is made, and each host says what it lacks.
    let small = 1_500;
    ["local", "far"].iter().for_each(|id| give(near, id, small));
    let refused = near.try_deploy(&ring(&lab, "all-or-nothing"));
    assert!(!refused.ok() && refused.stderr.contains("LAB_DOES_NOT_FIT"), "{}", refused.stderr);
    for id in ["local", "far"] {
        let said = refused.stderr.split(['\n', ';']).find(|line| {
            line.contains(&format!("host {id}: needs ")) && line.trim_end().contains(" missing")
        });
        assert!(said.is_some(), "{id} says what is missing: {}", refused.stderr);
        assert_eq!(reserved(near, id), 0);
    }
    assert!(
        containers(&pair).is_empty()
            && libvirtd.virsh(&["list", "--all"]).is_ok_and(|all| all.trim().is_empty())
    );

    // What fits runs, and the rest says of each host what it lacks.
    let partly = near.try_deploy(&ring(&lab, "best-effort"));
    assert!(!partly.ok() && partly.stderr.contains("missing"), "{}{}", partly.stdout, partly.stderr);
    eventually("what fits runs, and the rest waits", BOUND, || {
        let (ready, waiting) =
            (nodes_in(near, &lab, "READY").len(), nodes_in(near, &lab, "UNSCHEDULABLE").len());
        ready >= 4 && waiting >= 4 && ready + waiting == 14
    });
    for node in nodes_in(near, &lab, "UNSCHEDULABLE") {
        let is_machine = node["runtime"] == "RUNTIME_LIBVIRT";
        let wants = if is_machine { 1_000 } else { OF_CONTAINER };
        for rejection in node["rejections"].as_array().expect("reasons") {
            let id = rejection["host"].as_str().expect("a host");
            if is_machine && id == "far" {
                assert_eq!(rejection["code"], "RUNTIME_MISSING", "{node}");
            } else {
                assert_eq!(rejection["code"], "INSUFFICIENT_CPU", "{node}");
                assert_eq!(rejection["detail"], lacks(near, id, small, wants), "{node}");
            }
        }
        assert_eq!(node["rejections"].as_array().map(Vec::len), Some(2), "{node}");
    }
    let before = containers(&pair);
    let refused = near.try_deploy(&ring(&lab, "all-or-nothing"));
    assert!(!refused.ok() && refused.stderr.contains("LAB_DOES_NOT_FIT"), "{}", refused.stderr);
    assert_eq!(containers(&pair), before, "nothing is changed");

    // Room appears, and the rest starts by itself; what ran runs on.
    give(near, "local", 2 * ROOM);
    give(near, "far", ROOM);
    near.wait_ready(&lab, 14, 14, BOUND);
    let after = containers(&pair);
    assert!(after.len() == 9 && before.iter().all(|id| after.contains(id)), "{before:?} {after:?}");
    println!("all of it in {:.1?}", begun.elapsed());

    near.netloom(&["destroy", &lab, "--yes"]).must();
    for host in [&pair.near, &pair.far] {
        assert_eq!(host.leftovers(), [] as [String; 0]);
    }
    assert_eq!(libvirtd.virsh(&["list", "--all"]).expect("libvirt answers").trim(), "");
}
