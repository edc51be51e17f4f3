//! A host that is cut off for so long that what it has is made anew elsewhere: it stops that by itself before, and nothing of it ever runs twice.

use std::time::{Duration, Instant};

use netloom_tests::{Host, Mode, Sandbox, container, eventually};
use serde_json::Value;

use super::BOUND;
use crate::{IMAGE, line, real};

/// What a lab says, and what a host may take of it.
const AFTER: Duration = Duration::from_secs(60);
const LEASE: Duration = Duration::from_secs(40);

/// A machine beside a sandbox, and a lab with a node on either: `n1` in the sandbox, `n2` on the machine.
struct Apart {
    sandbox: Sandbox,
    machine: Host,
    lab: String,
}

impl Apart {
    fn begin() -> Apart {
        let scheduler = "[scheduler]\njoin_listen = \"0.0.0.0:7601\"\n";
        let sandbox = Sandbox::prepare_on(Mode::One, scheduler, "tunnel_address = \"10.99.0.1\"");
        let mut machine = Host::beside(&sandbox, &[IMAGE]);
        sandbox.run_programs();
        sandbox.wait_until_healthy();
        machine.join(&sandbox, "rack2");
        let lab = sandbox.lab("lost");
        let apart = Apart { sandbox, machine, lab };
        apart.until("HOST_STATE_ONLINE");
        apart.sandbox.netloom(&["host", "cordon", "rack2"]).must();
        let topology = line(&apart.lab, 2).replacen("topology:", "reschedule-after: 60s\ntopology:", 1);
        apart.sandbox.deploy(&topology);
        apart.sandbox.netloom(&["host", "uncordon", "rack2"]).must();
        apart.sandbox.netloom(&["node", "move", &apart.lab, "n2", "--to", "rack2", "--yes"]).must();
        apart.sandbox.wait_ready(&apart.lab, 2, 1, BOUND);
        eventually("frames pass", BOUND, || apart.ping());
        apart
    }

    fn host(&self) -> Value {
        self.sandbox.get("/v1/hosts/rack2").map_or(Value::Null, |r| r.body)
    }

    fn until(&self, state: &str) {
        eventually(&format!("rack2 is {state}"), BOUND, || self.host()["state"] == state);
    }

    fn ping(&self) -> bool {
        self.sandbox.netloom(&["exec", &self.lab, "n1", "--", "ping", "-c", "1", "-W", "1", "10.0.1.2"]).ok()
    }

    /// Runs where netloom is asked.
    fn runs_here(&self, node: &str) -> bool {
        let Some(id) = container(&self.sandbox, &self.lab, node) else { return false };
        self.sandbox.docker(&["inspect", "-f", "{{.State.Running}}", &id]).stdout.trim() == "true"
    }

    /// A container there, and when it was started last.
    fn life_here(&self, node: &str) -> String {
        let id = container(&self.sandbox, &self.lab, node).expect("it is there");
        self.sandbox.docker(&["inspect", "-f", "{{.Id}} {{.State.StartedAt}}", &id]).must().stdout
    }

    fn end(self) {
        self.sandbox.netloom(&["destroy", &self.lab, "--yes"]).must();
        eventually("what is here is gone", BOUND, || self.sandbox.leftovers().is_empty());
        eventually("what is there is gone", BOUND, || self.machine.leftovers().is_empty());
        assert!(!self.sandbox.logs().contains("panicked") && !self.machine.logs().contains("panicked"));
    }
}

#[test]
fn what_a_host_has_that_is_cut_off_is_stopped_there_and_made_anew_here() {
    if !real("bad_days::lost::what_a_host_has_that_is_cut_off_is_stopped_there_and_made_anew_here") {
        return;
    }
    let apart = Apart::begin();
    let (before, there) = (apart.life_here("n1"), apart.machine.containers());
    assert_eq!(there.len(), 1, "{there:?}");

    apart.machine.plug(false);
    let begun = Instant::now();
    let (mut stopped, mut started) = (None, None);
    while started.is_none() && begun.elapsed() < 2 * AFTER {
        // In this order: it may be stopped there between two looks, never started here before.
        let runs_there = !apart.machine.containers().is_empty();
        let runs_here = apart.runs_here("n2");
        assert!(!(runs_there && runs_here), "twice after {:?}", begun.elapsed());
        if !runs_there {
            stopped.get_or_insert_with(|| begun.elapsed());
        }
        if runs_here {
            started.get_or_insert_with(|| begun.elapsed());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let (stopped, started) = (stopped.expect("it is stopped"), started.expect("it is started"));
    println!("cut off for {stopped:.1?} it was stopped there, after {started:.1?} it runs here");
    let slack = Duration::from_secs(3);
    assert!(stopped > LEASE - slack && stopped < AFTER && started > AFTER - slack, "{stopped:?} {started:?}");
    apart.sandbox.wait_ready(&apart.lab, 2, 1, BOUND);
    eventually("frames pass", BOUND, || apart.ping());
    let operations = apart.sandbox.get("/v1/operations").expect("operations").body.to_string();
    assert!(operations.contains("of which nothing was heard for 60 s, to local"), "{operations}");

    // Back again: it has nothing any more, and here all is as it was.
    let again = apart.life_here("n2");
    apart.machine.plug(true);
    apart.until("HOST_STATE_ONLINE");
    eventually("what was there is removed", BOUND, || apart.machine.leftovers().is_empty());
    apart.sandbox.wait_ready(&apart.lab, 2, 1, BOUND);
    assert!(apart.ping());
    assert_eq!((apart.life_here("n1"), apart.life_here("n2")), (before, again));
    apart.end();
}

#[test]
fn what_a_machine_has_whose_service_was_ended_is_left_to_it() {
    if !real("bad_days::lost::what_a_machine_has_whose_service_was_ended_is_left_to_it") {
        return;
    }
    let mut apart = Apart::begin();
    let lives = apart.machine.lives();
    apart.machine.stop();
    let shown = || apart.sandbox.netloom(&["host", "show", "rack2"]).must().stdout;
    eventually("it says why they stay", AFTER + BOUND, || shown().contains("its machine answers"));
    assert!(!apart.runs_here("n2"));
    assert_eq!(apart.machine.lives(), lives, "nobody stops it");
    apart.machine.start();
    apart.until("HOST_STATE_ONLINE");
    apart.sandbox.wait_ready(&apart.lab, 2, 1, BOUND);
    eventually("frames pass", BOUND, || apart.ping());
    assert!(!shown().contains("its machine answers"));
    apart.end();
}
