//! All of it at once: two controllers, each of separate programs, on PostgreSQL and Redis, and two machines that joined both over TLS, with a Docker and an Open vSwitch each.

use std::process::Stdio;
use std::time::{Duration, Instant};

use netloom_service::testing::require;
use netloom_tests::{Controllers, Host, TO_JOIN, eventually, finish};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{IMAGE, line, real};

const BOUND: Duration = Duration::from_secs(60);
/// How long the API may be without an answer.
const TAKEOVER: Duration = Duration::from_secs(5);
const LAB: &str = "whole";

fn lab(both: &Controllers, controller: usize) -> Value {
    both.get(controller, &format!("/v1/labs/{LAB}")).map_or(Value::Null, |reply| reply.body)
}

/// All four nodes run, all three links are up, frames pass on each, and both controllers say so.
fn is_well(both: &Controllers) {
    eventually("all nodes are ready and all links up", BOUND, || {
        (0..2).all(|n| {
            let lab = lab(both, n);
            lab["readyCount"] == 4 && lab["upLinkCount"] == 3
        })
    });
    for n in 1..4 {
        let (node, far) = (format!("n{n}"), format!("10.0.{n}.2"));
        let ping = ["exec", LAB, &node, "--", "ping", "-c", "1", "-W", "1", &far];
        eventually(&format!("{node} reaches the next one"), BOUND, || {
            finish(&mut both.netloom(n % 2, &ping), None).ok()
        });
    }
}

#[test]
fn the_leader_is_killed_in_a_deploy_and_a_host_is_cut_off() {
    let test = "whole::the_leader_is_killed_in_a_deploy_and_a_host_is_cut_off";
    if !real(test) || !require(test, "postgres") || !require(test, "redis") {
        return;
    }
    let mut both = Controllers::start_alone();
    let mut machines = [1, 2].map(|n| Host::on_switch(&both.host, n, &[IMAGE]));
    for (machine, id) in machines.iter_mut().zip(["rack1", "rack2"]) {
        let said = finish(&mut both.netloom(1, &["host", "token", "--format", "json"]), None).must().stdout;
        let said: Value = serde_json::from_str(&said).expect("JSON");
        machine.join_at(TO_JOIN, said["token"].as_str().expect("a token"), id);
    }
    both.until_online(&["rack1", "rack2"]);
    let lives = || machines.iter().flat_map(Host::lives).collect::<Vec<_>>();
    // One that was never started has no time of it.
    let running = || lives().into_iter().filter(|life| !life.contains(" 0001-")).collect::<Vec<_>>();

    // Every link goes across, and two nodes wait until the first one has a file, which it gets when the leader is gone.
    let mut text = line(LAB, 4);
    let (check, wait) = (
        ", healthcheck: {test: [CMD-SHELL, test -e /go], interval: 1, start-period: 300}",
        ", stages: {create: {wait-for: [{node: n1, stage: healthy}]}}",
    );
    for (n, more) in [(1, check), (2, ""), (3, wait), (4, wait)] {
        let host = if n % 2 == 1 { "rack1" } else { "rack2" };
        let node = format!("    n{n}: {{placement: {{host: {host}}}{more}}}\n");
        text = text.replacen(&format!("    n{n}:\n"), &node, 1);
    }
    let file = both.host.write("whole.clab.yml", &text).display().to_string();
    let mut command = both.netloom(1, &["deploy", "-t", &file]);
    let mut deploy = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("netloom starts");
    let mut is_over = || deploy.try_wait().is_ok_and(|status| status.is_some());
    eventually("two nodes run", BOUND, || running().len() == 2 || is_over());
    let first = running();
    let begun = Instant::now();
    both.end(0, "netloom-scheduler", Signal::SIGKILL);
    for n in 0..2 {
        eventually("the other one leads", BOUND, || lab(&both, n)["name"] == format!("labs/{LAB}"));
    }
    let taken = begun.elapsed();
    println!("answered again after {taken:?}");
    assert!(taken < TAKEOVER, "{taken:?}");
    assert!(running() == first && !is_over(), "the deploy goes on");
    let go = || finish(&mut both.netloom(0, &["exec", LAB, "n1", "--", "touch", "/go"]), None).ok();
    eventually("the check is passed", BOUND, go);
    let said = deploy.wait_with_output().expect("netloom ends");
    let told = [said.stdout, said.stderr].concat();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&told));
    is_well(&both);
    let made = lives();
    assert!(made.len() == 4 && first.len() == 2, "each once: {first:?} {made:?}");
    assert!(first.iter().all(|life| made.contains(life)), "what ran runs on: {first:?} {made:?}");

    // The former leader is back, and stands by; a host is cut off, and is back.
    both.run(0, "netloom-scheduler");
    machines[1].plug(false);
    eventually("its nodes are not known", BOUND, || (0..2).all(|n| lab(&both, n)["readyCount"] == 2));
    machines[1].plug(true);
    both.until_online(&["rack1", "rack2"]);
    is_well(&both);
    assert_eq!(lives(), made, "the same containers, none of them started anew");

    finish(&mut both.netloom(0, &["destroy", LAB, "--yes"]), None).must();
    for machine in &machines {
        eventually("nothing is left", BOUND, || machine.leftovers().is_empty());
        assert!(!machine.logs().contains("panicked"));
    }
    for n in 0..2 {
        assert!(!both.logged(n, "netloom-scheduler").contains("panicked"));
    }
}
