//! Docker goes away in the middle of things and comes back.

use std::time::Duration;

use netloom_tests::{Mode, Sandbox, eventually};

use super::{BOUND, Running, is_as_asked, is_gone};
use crate::{IMAGE, line};

const NODES: usize = 6;

/// A deploy that is under way when Docker ends: some containers are there, some are not.
fn interrupted_deploy(sandbox: &mut Sandbox, lab: &str, interrupt: impl FnOnce(&mut Sandbox)) {
    let file = sandbox.write("lab.clab.yml", &line(lab, NODES));
    let file = file.display().to_string();
    let deploy = Running::start(sandbox, &["deploy", "-t", &file]);
    let some = |sandbox: &Sandbox| sandbox.docker(&["ps", "-q"]).stdout.lines().count() >= 2;
    eventually("some nodes run", Duration::from_secs(60), || some(sandbox));
    interrupt(sandbox);
    eventually("the host says that Docker does not answer", Duration::from_secs(20), || {
        let host = sandbox.get("/v1/hosts/local").map(|r| r.body).unwrap_or_default();
        host["stateReason"].as_str().unwrap_or_default().contains("Docker does not answer")
    });
    assert_ne!(sandbox.lab_json(lab)["readyCount"], NODES, "nothing is said to be ready that cannot be seen");
    sandbox.private_docker.as_mut().expect("a Docker of its own").start_again();
    is_as_asked(sandbox, lab, NODES, NODES - 1);
    deploy.ends_well();
}

fn docker_stopped_in_the_middle_of_a_deploy(mode: Mode) {
    let mut sandbox = Sandbox::prepare_with_docker(mode, "", &[IMAGE]);
    sandbox.run_programs();
    sandbox.wait_until_healthy();
    let lab = sandbox.lab("stopped");
    interrupted_deploy(&mut sandbox, &lab, |s| s.private_docker.as_mut().expect("its own").stop());
    is_gone(&sandbox, &lab);
    let lab = sandbox.lab("killed");
    interrupted_deploy(&mut sandbox, &lab, |s| s.private_docker.as_mut().expect("its own").kill());

    // A removal that Docker does not see to the end is seen to when it is back.
    sandbox.private_docker.as_mut().expect("its own").kill();
    let destroy = Running::start(&sandbox, &["destroy", &lab, "--yes"]);
    eventually("the removal waits for Docker", Duration::from_secs(20), || {
        sandbox.lab_json(&lab)["operation"].as_str().is_some_and(|o| !o.is_empty())
    });
    sandbox.private_docker.as_mut().expect("its own").start_again();
    destroy.ends_well();
    eventually("nothing is left", BOUND, || sandbox.leftovers().is_empty());
}

in_both_modes!(docker_stopped_in_the_middle_of_a_deploy);
