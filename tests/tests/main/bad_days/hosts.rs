//! Bad days of a host that joined: it is cut off, goes down, and has another time than the machine that leads. What it had is there again by itself, once, and
//! nothing else.

use std::time::{Duration, Instant};

use netloom_tests::{Host, Mode, Sandbox, eventually};
use serde_json::Value;

use super::{BOUND, Running};
use crate::{IMAGE, line, real};

const HOUR: i64 = 3_600;

fn state(sandbox: &Sandbox) -> Value {
    sandbox.get("/v1/hosts/rack2").map_or(Value::Null, |r| r.body["state"].clone())
}

fn until_online(sandbox: &Sandbox) {
    eventually("rack2 is heard of", BOUND, || state(sandbox) == "HOST_STATE_ONLINE");
}

#[test]
fn a_host_is_an_hour_away_is_cut_off_and_goes_down() {
    if !real("bad_days::hosts::a_host_is_an_hour_away_is_cut_off_and_goes_down") {
        return;
    }
    // Each host has room for two of the four nodes.
    let share = 0.1 / std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64);
    let scheduler = format!("[scheduler]\njoin_listen = \"0.0.0.0:7601\"\ncpu_overcommit = {share}\n");
    let sandbox = Sandbox::prepare_on(Mode::One, &scheduler, "tunnel_address = \"10.99.0.1\"");
    let mut machine = Host::beside(&sandbox, &[IMAGE]);
    sandbox.run_programs();
    sandbox.wait_until_healthy();
    let lab = sandbox.lab("apart");

    // Certificates are taken, nodes run, and their doors open, whatever the clock of their host shows.
    machine.set_clock(HOUR);
    machine.join(&sandbox, "rack2");
    until_online(&sandbox);
    sandbox.deploy(&line(&lab, 4));
    sandbox.wait_ready(&lab, 4, 3, BOUND);
    assert_eq!(machine.containers().len(), 2, "{:?}", machine.containers());
    let is_well = || {
        sandbox.wait_ready(&lab, 4, 3, BOUND);
        // Not at once: a host that was just started may not listen yet.
        for n in 1..=4 {
            let exec = ["exec", &lab, &format!("n{n}"), "--", "true"];
            eventually("a node is opened", BOUND, || sandbox.netloom(&exec).ok());
        }
        for n in 1..4 {
            let (node, address) = (format!("n{n}"), format!("10.0.{n}.2"));
            eventually("frames pass", BOUND, || {
                sandbox.netloom(&["exec", &lab, &node, "--", "ping", "-c", "1", "-W", "1", &address]).ok()
            });
        }
    };
    is_well();
    let said = |what: &str| eventually(what, BOUND, || sandbox.logs().contains(what));
    said("seconds=3599");
    for clock in [-HOUR, 0] {
        let begun = Instant::now();
        machine.stop();
        assert!(begun.elapsed() < Duration::from_secs(5), "it ends after {:?}", begun.elapsed());
        machine.set_clock(clock);
        machine.start();
        until_online(&sandbox);
        is_well();
    }
    said("seconds=-3600");
    let before = machine.lives();

    // Cut off, and back before anybody minds; then for so long that its nodes are not known.
    machine.plug(false);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(state(&sandbox), "HOST_STATE_ONLINE");
    machine.plug(true);
    is_well();
    let cut_off = |machine: &Host| {
        machine.plug(false);
        let begun = Instant::now();
        eventually("its nodes are not known", BOUND, || sandbox.lab_json(&lab)["readyCount"] == 2);
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    };
    cut_off(&machine);
    machine.plug(true);
    until_online(&sandbox);
    is_well();
    assert_eq!(machine.lives(), before, "none was made, removed or started anew");

    // Down, with its containers, its Open vSwitch and all interfaces.
    let ids =
        |lives: &[String]| lives.iter().map(|l| l.split(' ').nth(1).map(str::to_owned)).collect::<Vec<_>>();
    machine.reboot();
    until_online(&sandbox);
    is_well();
    assert_eq!(ids(&machine.lives()), ids(&before), "the same containers, started again");

    // What is asked for while it is away is done when it is back.
    cut_off(&machine);
    let destroy = Running::start(&sandbox, &["destroy", &lab, "--yes"]);
    eventually("what is here is gone", BOUND, || sandbox.leftovers().is_empty());
    assert_eq!(machine.lives().len(), 2, "nobody can tell it");
    machine.plug(true);
    destroy.ends_well();
    eventually("what is there is gone", BOUND, || machine.leftovers().is_empty());
    assert!(!sandbox.logs().contains("panicked") && !machine.logs().contains("panicked"));
}
