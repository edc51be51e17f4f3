//! What a state is read from hangs: the state ages, and is UNKNOWN before long. It is never shown as if it had just been read.

use std::time::{Duration, SystemTime};

use netloom_tests::{Mode, Sandbox, eventually};
use serde_json::Value;

use crate::{IMAGE, line};

/// Five seconds until it is given up, with slack for a busy machine.
const BOUND: Duration = Duration::from_secs(60);

/// How old the state of a resource is, in seconds.
fn age(resource: &Value) -> f64 {
    let time = resource["observeTime"].as_str().expect("when it was read");
    let at: SystemTime = time.parse::<jiff::Timestamp>().expect("a time").into();
    SystemTime::now().duration_since(at).unwrap_or_default().as_secs_f64()
}

#[test]
fn what_docker_and_open_vswitch_do_not_tell_any_more_ages_and_is_unknown() {
    if !crate::real("what_docker_and_open_vswitch_do_not_tell_any_more_ages_and_is_unknown") {
        return;
    }
    let sandbox = Sandbox::prepare_with_docker(Mode::One, "", &[IMAGE]);
    sandbox.run_programs();
    sandbox.wait_until_healthy();
    let lab = sandbox.lab("silent");
    sandbox.deploy(&netloom_tests::on_plane("ovs", &line(&lab, 2)));
    let link = || sandbox.get(&format!("/v1/labs/{lab}/links/n1:eth2--n2:eth1")).expect("a link").body;
    let node = || sandbox.node_json(&lab, "n1");
    let all_is_well = || link()["state"] == "LINK_STATE_UP" && node()["state"] == "NODE_STATE_READY";
    assert_ne!(link()["state"], Value::Null);
    eventually("all is read again and again", BOUND, || {
        all_is_well() && age(&link()) < 2.5 && age(&node()) < 2.5
    });

    let frozen = sandbox.ovs.freeze_switch();
    eventually("the link ages while its node does not", BOUND, || age(&link()) > 2.5 && age(&node()) < 2.5);
    eventually("the link is unknown", BOUND, || link()["state"] == "LINK_STATE_UNKNOWN");
    assert_eq!(node()["state"], "NODE_STATE_READY");
    drop(frozen);
    eventually("all is well again", BOUND, || all_is_well() && age(&link()) < 2.5);

    let frozen = sandbox.private_docker.as_ref().expect("its own").freeze();
    eventually("the node ages", BOUND, || age(&node()) > 2.5);
    eventually("the node is unknown", BOUND, || node()["state"] == "NODE_STATE_UNKNOWN");
    drop(frozen);
    eventually("all is well again", BOUND, || all_is_well() && age(&node()) < 2.5);
    sandbox.netloom(&["destroy", &lab, "--yes"]).must();
    eventually("nothing is left", BOUND, || sandbox.leftovers().is_empty());
}
