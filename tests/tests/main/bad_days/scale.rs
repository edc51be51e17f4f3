//! Many labs, and large ones.

use std::time::{Duration, Instant};

use netloom_tests::{Mode, Sandbox, eventually, in_node, request};
use serde_json::{Value, json};

use super::{cpu, is_as_asked, is_gone, played, resident};
use crate::IMAGE;

/// How long something large may take on a machine that does much else.
const LONG: Duration = Duration::from_secs(240);

/// A lab of simulated nodes, linked by nothing: what is simulated has no interfaces.
fn crowd(lab: &str, count: usize) -> String {
    let mut text = format!("name: {lab}\ntopology:\n  defaults: {{kind: linux, image: played}}\n  nodes:\n");
    (0..count).for_each(|n| text += &format!("    n{n}:\n"));
    text
}

fn import(sandbox: &Sandbox, text: &str) -> Value {
    let body = json!({"text": text, "fileName": "lab.clab.yml"});
    let reply = request(&sandbox.socket(), "POST", "/v1/labs:import", Some(&body)).expect("an answer");
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.body
}

/// All labs, page by page.
fn labs(sandbox: &Sandbox) -> Vec<Value> {
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let page = sandbox.get(&format!("/v1/labs?pageSize=1000&pageToken={token}")).expect("a page").body;
        all.extend(page["labs"].as_array().cloned().unwrap_or_default());
        token = page["nextPageToken"].as_str().unwrap_or_default().to_owned();
        if token.is_empty() {
            return all;
        }
    }
}

#[test]
fn a_thousand_labs_of_one_node() {
    if !crate::real("a_thousand_labs_of_one_node") {
        return;
    }
    const LABS: usize = 1_000;
    let sandbox = played(Mode::One, "");
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for part in 0..4 {
            let sandbox = &sandbox;
            scope.spawn(move || {
                for n in (part..LABS).step_by(4) {
                    import(sandbox, &crowd(&format!("lab-{n}"), 1));
                }
            });
        }
    });
    let (asked, first) = (begun.elapsed(), cpu(&sandbox));
    let ready = |labs: &[Value]| labs.iter().filter(|l| l["readyCount"] == 1 && l["operation"] == "").count();
    eventually("all labs are ready", LONG, || ready(&labs(&sandbox)) == LABS);
    let (up, deployed) = (begun.elapsed(), cpu(&sandbox));
    let reserved = |nodes: usize| {
        let host = sandbox.get("/v1/hosts/local").map(|reply| reply.body).unwrap_or_default();
        host["nodeCount"] == nodes
    };
    eventually("all nodes have their place on the host", LONG, || reserved(LABS));
    let listed = Instant::now();
    assert_eq!(labs(&sandbox).len(), LABS);
    let listed = listed.elapsed();
    // Started again it knows them all, and all run anew: what is simulated ends with the program.
    sandbox.crash();
    let begun = Instant::now();
    sandbox.run_programs();
    sandbox.wait_until_healthy();
    eventually("all labs are ready again", LONG, || ready(&labs(&sandbox)) == LABS);
    let again = begun.elapsed();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for part in 0..4 {
            let sandbox = &sandbox;
            scope.spawn(move || {
                for n in (part..LABS).step_by(4) {
                    let path = format!("/v1/labs/lab-{n}");
                    let reply = request(&sandbox.socket(), "DELETE", &path, None).expect("an answer");
                    assert_eq!(reply.status, 200, "{}", reply.text);
                }
            });
        }
    });
    eventually("all labs are gone", LONG, || labs(&sandbox).is_empty());
    eventually("nothing is left", LONG, || sandbox.leftovers().is_empty());
    eventually("nothing is reserved", LONG, || reserved(0));
    eprintln!(
        "{LABS} labs: asked for in {asked:?} ({first:?} of CPU), ready after {up:?} ({deployed:?}), listed in {listed:?}, ready again {again:?} after a crash, \
         gone in {:?} ({:?} of CPU since the crash); {} MB resident",
        begun.elapsed(),
        cpu(&sandbox),
        resident(&sandbox) >> 20
    );
    assert!(!sandbox.logs().contains("panicked"));
}

#[test]
fn one_lab_of_five_thousand_nodes() {
    if !crate::real("one_lab_of_five_thousand_nodes") {
        return;
    }
    const NODES: usize = 5_000;
    let sandbox = played(Mode::One, "");
    let lab = sandbox.lab("crowd");
    let (mut took, mut before) = (Vec::new(), cpu(&sandbox));
    // Twice the nodes take about twice the time: what is quadratic takes four times.
    for nodes in [NODES / 2, NODES] {
        let begun = Instant::now();
        sandbox.deploy(&crowd(&lab, nodes));
        let now = cpu(&sandbox);
        took.push((begun.elapsed(), now - before));
        before = now;
        assert_eq!(sandbox.lab_json(&lab)["readyCount"], nodes);
    }
    let begun = Instant::now();
    sandbox.deploy(&crowd(&lab, NODES));
    let unchanged = begun.elapsed();
    sandbox.crash();
    let begun = Instant::now();
    sandbox.run_programs();
    sandbox.wait_until_healthy();
    eventually("all nodes are ready again", LONG, || sandbox.lab_json(&lab)["readyCount"] == NODES);
    let again = begun.elapsed();
    let begun = Instant::now();
    is_gone(&sandbox, &lab);
    eprintln!(
        "{NODES} nodes: halves deployed in {took:?} (and so much CPU), an unchanged deploy {unchanged:?}, ready again {again:?} after a crash, gone in {:?}; {} MB resident",
        begun.elapsed(),
        resident(&sandbox) >> 20
    );
    assert!(
        took[1].1 < took[0].1 * 3,
        "the second half took {:?} of CPU, the first {:?}",
        took[1].1,
        took[0].1
    );
    assert!(!sandbox.logs().contains("panicked"));
}

/// Nodes in a ring.
fn ring(lab: &str, count: usize) -> String {
    let mut text = format!(
        "name: {lab}\ntopology:\n  defaults: {{kind: linux, image: {IMAGE}, image-pull-policy: Never}}\n  nodes:\n"
    );
    (0..count).for_each(|n| text += &format!("    n{n}:\n"));
    text += "  links:\n";
    for n in 0..count {
        text += &format!("    - endpoints: [\"n{n}:eth2\", \"n{}:eth1\"]\n", (n + 1) % count);
    }
    text
}

#[test]
fn a_ring_of_five_hundred_containers() {
    const NODES: usize = 500;
    if !crate::real("a_ring_of_five_hundred_containers") {
        return;
    }
    // Joined in the kernel: a userspace switch takes longer for each port the more it has.
    let sandbox =
        Sandbox::prepare(Mode::One, "[scheduler]\ncpu_overcommit = 100.0\nmemory_overcommit = 4.0\n");
    let config = sandbox.path().join("netloom.toml");
    let text = std::fs::read_to_string(&config).expect("the configuration");
    std::fs::write(&config, text.replace("[network]\n", "[network]\nplane = \"kernel\"\n")).expect("a file");
    sandbox.run_programs();
    sandbox.wait_until_healthy();
    let lab = sandbox.lab("ring");
    let begun = Instant::now();
    sandbox.deploy(&ring(&lab, NODES));
    let up = begun.elapsed();
    sandbox.wait_ready(&lab, NODES as u64, NODES as u64, LONG);
    is_as_asked(&sandbox, &lab, NODES, NODES);
    for (net, node, next) in [(1, 0, 1), (2, 250, 251), (3, NODES - 1, 0)] {
        let [here, there] = [1, 2].map(|end| format!("10.0.{net}.{end}"));
        for (node, interface, address) in [(node, "eth2", &here), (next, "eth1", &there)] {
            let add = ["ip", "address", "add", &format!("{address}/24"), "dev", interface];
            in_node(&sandbox, &lab, &format!("n{node}"), &add).must();
        }
        in_node(&sandbox, &lab, &format!("n{node}"), &["ping", "-c", "1", "-W", "5", &there]).must();
    }
    let begun = Instant::now();
    sandbox.netloom(&["destroy", &lab, "--yes"]).must();
    eprintln!(
        "{NODES} containers in a ring: up in {up:?}, gone in {:?}; {} MB resident",
        begun.elapsed(),
        resident(&sandbox) >> 20
    );
    eventually("nothing is left", LONG, || sandbox.leftovers().is_empty());
    assert!(!sandbox.logs().contains("panicked"));
}
