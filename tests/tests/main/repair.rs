//! What breaks behind netloom's back is shown, and mended.

use std::time::Duration;

use netloom_tests::{Mode, Sandbox, container, docker, eventually, in_node};

use crate::{line, real};

const SHOWN: Duration = Duration::from_secs(5);
const MENDED: Duration = Duration::from_secs(40);

fn start(name: &str) -> (Sandbox, String) {
    let sandbox = Sandbox::start(Mode::One);
    let lab = sandbox.lab(name);
    sandbox.deploy(&line(&lab, 2));
    (sandbox, lab)
}

fn pings(sandbox: &Sandbox, lab: &str) -> bool {
    in_node(sandbox, lab, "n1", &["ping", "-c", "1", "-W", "1", "10.0.1.2"]).ok()
}

#[test]
fn a_killed_node_is_shown_and_restarted() {
    if !real("a_killed_node_is_shown_and_restarted") {
        return;
    }
    let (sandbox, lab) = start("kill");
    assert!(pings(&sandbox, &lab));
    docker(&["kill", &container(&sandbox, &lab, "n1").unwrap()]).must();
    eventually("the dead node is shown", SHOWN, || sandbox.lab_json(&lab)["runningCount"] == 1);
    sandbox.wait_ready(&lab, 2, 1, MENDED);
    assert!(sandbox.node_json(&lab, "n1")["restartCount"].as_u64().unwrap() >= 1);
    eventually("its addresses are back", Duration::from_secs(5), || pings(&sandbox, &lab));
}

#[test]
fn a_removed_container_is_made_again() {
    if !real("a_removed_container_is_made_again") {
        return;
    }
    let (sandbox, lab) = start("rm");
    let old = container(&sandbox, &lab, "n2").unwrap();
    docker(&["rm", "-f", &old]).must();
    eventually("another container runs", MENDED, || {
        container(&sandbox, &lab, "n2").is_some_and(|id| id != old)
    });
    sandbox.wait_ready(&lab, 2, 1, MENDED);
    eventually("its wire carries again", Duration::from_secs(5), || pings(&sandbox, &lab));
}

#[test]
fn links_and_addresses_survive_docker_restart() {
    if !real("links_and_addresses_survive_docker_restart") {
        return;
    }
    let (sandbox, lab) = start("restart");
    for _ in 0..3 {
        docker(&["restart", "-t", "0", &container(&sandbox, &lab, "n1").unwrap()]).must();
        sandbox.wait_ready(&lab, 2, 1, MENDED);
        eventually("pings again", Duration::from_secs(5), || pings(&sandbox, &lab));
    }
    let links = in_node(&sandbox, &lab, "n1", &["ip", "-br", "link"]).must().stdout;
    assert!(links.contains("eth2") && !links.contains("eth0"), "{links}");
}

#[test]
fn a_deleted_flow_and_a_removed_port_come_back() {
    if !real("a_deleted_flow_and_a_removed_port_come_back") {
        return;
    }
    let (sandbox, lab) = start("flow");
    let ovs = &sandbox.ovs;
    ovs.ofctl("del-flows", sandbox.bridge(), &[]).must();
    eventually("flows are back", MENDED, || pings(&sandbox, &lab));
    let ports = ovs.vsctl(&["list-ports", sandbox.bridge()]).must().stdout;
    let port = ports.split_whitespace().next().unwrap().to_owned();
    ovs.vsctl(&["del-port", sandbox.bridge(), &port]).must();
    eventually("the port is back", MENDED, || {
        ovs.vsctl(&["list-ports", sandbox.bridge()]).stdout.contains(&port) && pings(&sandbox, &lab)
    });
    sandbox.wait_ready(&lab, 2, 1, MENDED);
}

#[test]
fn all_wires_return_after_a_restart_of_open_vswitch() {
    if !real("all_wires_return_after_a_restart_of_open_vswitch") {
        return;
    }
    let (mut sandbox, lab) = start("ovs");
    sandbox.ovs.restart_switch();
    eventually("pings again", MENDED, || pings(&sandbox, &lab));
    sandbox.wait_ready(&lab, 2, 1, MENDED);
}

#[test]
fn exec_runs_once_a_start_and_again_after_a_restart() {
    if !real("exec_runs_once_a_start_and_again_after_a_restart") {
        return;
    }
    let sandbox = Sandbox::start(Mode::One);
    let lab = sandbox.lab("exec");
    // The link must be there when exec runs: the address goes onto its interface.
    let text = line(&lab, 2).replacen(
        "    n1:\n",
        "    n1:\n      exec:\n        - ip addr add 192.0.2.1/32 dev eth2\n        - sh -c 'echo ran >> /ran'\n",
        1,
    );
    sandbox.deploy(&text);
    let ran = || sandbox.netloom(&["exec", &lab, "n1", "--", "cat", "/ran"]).stdout.lines().count();
    let addressed =
        || in_node(&sandbox, &lab, "n1", &["ip", "-br", "addr", "show", "eth2"]).stdout.contains("192.0.2.1");
    assert_eq!(ran(), 1);
    assert!(addressed());
    sandbox.crash();
    sandbox.run_programs();
    sandbox.wait_until_healthy();
    sandbox.wait_ready(&lab, 2, 1, MENDED);
    assert_eq!(ran(), 1, "a restart of netloom is not a start of the node");
    docker(&["restart", "-t", "0", &container(&sandbox, &lab, "n1").unwrap()]).must();
    eventually("exec ran for the new start", MENDED, || ran() == 2 && addressed());
}
