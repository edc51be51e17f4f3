//! netloom killed with KILL in the middle of things: started again it completes them, and nothing is there twice.

use std::process::Stdio;
use std::time::Duration;

use netloom_tests::{Mode, Sandbox, docker, eventually};

use crate::line;

const NODES: usize = 8;

fn containers(sandbox: &Sandbox, lab: &str) -> usize {
    let owner = format!("label=netloom.owner={}", sandbox.owner());
    let filter = format!("label=netloom.lab={lab}");
    docker(&["ps", "-aq", "--filter", &owner, "--filter", &filter]).must().stdout.lines().count()
}

fn killed_in_the_middle(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let lab = sandbox.lab("crash");
    let file = sandbox.write("lab.clab.yml", &line(&lab, NODES));
    let run = |args: &[&str]| {
        sandbox
            .command()
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };

    let mut deploy = run(&["deploy", "-t", &file.display().to_string()]);
    eventually("some containers exist", Duration::from_secs(20), || containers(&sandbox, &lab) >= 2);
    sandbox.crash();
    assert!(containers(&sandbox, &lab) >= 2, "a crash removes nothing");
    let _ = deploy.kill();
    let _ = deploy.wait();
    sandbox.run_programs();
    sandbox.wait_until_healthy();
    sandbox.wait_ready(&lab, NODES as u64, NODES as u64 - 1, Duration::from_secs(60));
    assert_eq!(containers(&sandbox, &lab), NODES, "nothing twice");
    eventually("the operation ended", Duration::from_secs(30), || sandbox.lab_json(&lab)["operation"] == "");
    let operations = sandbox.get("/v1/operations").unwrap().body;
    assert_eq!(operations["operations"][0]["state"], "OPERATION_STATE_SUCCEEDED", "{operations}");
    assert_eq!(sandbox.joints(), [0, 2 * (NODES - 1)], "two redirects a link, nothing twice");

    let mut destroy = run(&["destroy", &lab, "--yes"]);
    eventually("some containers are gone", Duration::from_secs(20), || containers(&sandbox, &lab) < NODES);
    sandbox.crash();
    let _ = destroy.kill();
    let _ = destroy.wait();
    sandbox.run_programs();
    sandbox.wait_until_healthy();
    eventually("the lab is gone", Duration::from_secs(60), || {
        sandbox.get(&format!("/v1/labs/{lab}")).is_ok_and(|r| r.status == 404)
    });
    assert_eq!(sandbox.leftovers(), Vec::<String>::new());
}

in_both_modes!(killed_in_the_middle);
