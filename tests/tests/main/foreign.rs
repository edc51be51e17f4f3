//! What is not ours is never touched, and what is missing is said.

use std::time::Duration;

use netloom_tests::{Mode, Sandbox, docker, eventually, on_plane};

use crate::{IMAGE, line};

/// A container that is not netloom's: it goes with this.
pub struct Foreign(pub String);

impl Drop for Foreign {
    fn drop(&mut self) {
        docker(&["rm", "-f", &self.0]);
    }
}

fn a_foreign_container_of_our_name_is_untouched(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let lab = sandbox.lab("clash");
    let name = format!("netloom-{lab}-n1");
    let foreign = Foreign(
        docker(&["run", "-d", "--name", &name, "--network", "none", IMAGE]).must().stdout.trim().to_owned(),
    );
    let said = sandbox.try_deploy(&line(&lab, 2));
    assert!(!said.ok());
    assert!((said.stdout.clone() + &said.stderr).contains(&name), "{}{}", said.stdout, said.stderr);
    assert_eq!(sandbox.node_json(&lab, "n1")["state"], "NODE_STATE_FAILED");
    sandbox.netloom(&["destroy", &lab, "--yes"]).must();
    let state = docker(&["inspect", "-f", "{{.State.Running}}", &foreign.0]).must().stdout;
    assert_eq!(state.trim(), "true");
    assert_eq!(sandbox.leftovers(), Vec::<String>::new());
}

fn two_installations_do_not_touch_each_other(mode: Mode) {
    let one = Sandbox::start(mode);
    let other = Sandbox::start(mode);
    let lab = one.lab("both");
    one.deploy(&line(&lab, 2));
    // The same lab name again: the container names are taken by the first installation.
    let said = other.try_deploy(&line(&lab, 2));
    assert!(!said.ok());
    other.netloom(&["destroy", &lab, "--yes"]).must();
    assert_eq!(other.leftovers(), Vec::<String>::new());
    one.wait_ready(&lab, 2, 1, Duration::from_secs(10));
    one.netloom(&["destroy", &lab, "--yes"]).must();
    assert_eq!(one.leftovers(), Vec::<String>::new());
}

fn a_foreign_bridge_of_our_name_is_untouched(mode: Mode) {
    let sandbox = Sandbox::prepare(mode, "");
    let ovs = &sandbox.ovs;
    ovs.vsctl(&["add-br", sandbox.bridge(), "--", "set", "bridge", sandbox.bridge(), "datapath_type=netdev"])
        .must();
    let before = ovs.vsctl(&["list", "bridge", sandbox.bridge()]).must().stdout;
    sandbox.run_programs();
    let problem = || {
        let host = sandbox.get("/v1/hosts/local").map(|r| r.body).unwrap_or_default();
        host["stateReason"].as_str().unwrap_or_default().contains(sandbox.bridge())
    };
    eventually("the host says what is wrong", Duration::from_secs(20), problem);
    let lab = sandbox.lab("bridge");
    assert!(!sandbox.try_deploy(&on_plane("ovs", &line(&lab, 2))).ok());
    // What does not go through it is not held up by it.
    let other = sandbox.lab("kernel");
    sandbox.deploy(&line(&other, 2));
    let after = ovs.vsctl(&["list", "bridge", sandbox.bridge()]).must().stdout;
    assert_eq!(before, after);
}

fn a_missing_image_is_refused_before_anything_is_made(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let lab = sandbox.lab("image");
    let text = line(&lab, 2).replacen("    n2:\n", "    n2: {image: \"netloom/no-such-image:1\"}\n", 1);
    let said = sandbox.try_deploy(&text);
    assert!(!said.ok());
    let text = said.stdout + &said.stderr;
    assert!(text.contains("netloom/no-such-image:1") && text.contains("IMAGE_MISSING"), "{text}");
    assert_eq!(sandbox.get(&format!("/v1/labs/{lab}")).unwrap().status, 404);
    assert_eq!(sandbox.leftovers(), Vec::<String>::new());
}

fn docker_that_does_not_answer_is_said(mode: Mode) {
    let sandbox = Sandbox::prepare(mode, "[compute]\ndocker_socket = \"/nonexistent/docker.sock\"\n");
    sandbox.run_programs();
    let said = || {
        let host = sandbox.get("/v1/hosts/local").map(|r| r.body).unwrap_or_default();
        host["state"] == "HOST_STATE_DEGRADED"
            && host["stateReason"].as_str().unwrap_or_default().contains("Docker")
    };
    eventually("the host says that Docker does not answer", Duration::from_secs(20), said);
    let lab = sandbox.lab("docker");
    let tried = sandbox.try_deploy(&line(&lab, 2));
    assert!(!tried.ok());
    assert!((tried.stdout + &tried.stderr).contains("ocker"));
}

in_both_modes!(
    a_foreign_container_of_our_name_is_untouched,
    two_installations_do_not_touch_each_other,
    a_foreign_bridge_of_our_name_is_untouched,
    a_missing_image_is_refused_before_anything_is_made,
    docker_that_does_not_answer_is_said
);
