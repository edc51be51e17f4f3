//! What breaks behind netloom's back is shown, and mended.

use std::time::Duration;

use netloom_tests::{Mode, Sandbox, Watch, container, docker, eventually, in_node, on_plane};

use crate::line;

const SHOWN: Duration = Duration::from_secs(5);
const MENDED: Duration = Duration::from_secs(40);

fn start(mode: Mode, name: &str) -> (Sandbox, String) {
    start_on(mode, name, "auto")
}

fn start_on(mode: Mode, name: &str, plane: &str) -> (Sandbox, String) {
    let sandbox = Sandbox::start(mode);
    let lab = sandbox.lab(name);
    sandbox.deploy(&on_plane(plane, &line(&lab, 2)));
    (sandbox, lab)
}

fn pings(sandbox: &Sandbox, lab: &str) -> bool {
    in_node(sandbox, lab, "n1", &["ping", "-c", "1", "-W", "1", "10.0.1.2"]).ok()
}

fn a_killed_node_is_shown_and_restarted(mode: Mode) {
    let (sandbox, lab) = start(mode, "kill");
    assert!(pings(&sandbox, &lab));
    docker(&["kill", &container(&sandbox, &lab, "n1").unwrap()]).must();
    eventually("the dead node is shown", SHOWN, || sandbox.lab_json(&lab)["runningCount"] == 1);
    sandbox.wait_ready(&lab, 2, 1, MENDED);
    assert!(sandbox.node_json(&lab, "n1")["restartCount"].as_u64().unwrap() >= 1);
    eventually("its addresses are back", Duration::from_secs(5), || pings(&sandbox, &lab));
}

fn a_removed_container_is_made_again(mode: Mode) {
    let (sandbox, lab) = start(mode, "rm");
    let old = container(&sandbox, &lab, "n2").unwrap();
    docker(&["rm", "-f", &old]).must();
    eventually("another container runs", MENDED, || {
        container(&sandbox, &lab, "n2").is_some_and(|id| id != old)
    });
    sandbox.wait_ready(&lab, 2, 1, MENDED);
    eventually("its wire carries again", Duration::from_secs(5), || pings(&sandbox, &lab));
}

fn links_and_addresses_survive_docker_restart(mode: Mode) {
    let (sandbox, lab) = start(mode, "restart");
    for _ in 0..3 {
        docker(&["restart", "-t", "0", &container(&sandbox, &lab, "n1").unwrap()]).must();
        sandbox.wait_ready(&lab, 2, 1, MENDED);
        eventually("pings again", Duration::from_secs(5), || pings(&sandbox, &lab));
    }
    let links = in_node(&sandbox, &lab, "n1", &["ip", "-br", "link"]).must().stdout;
    assert!(links.contains("eth2") && !links.contains("eth0"), "{links}");
}

fn a_deleted_flow_and_a_removed_port_come_back(mode: Mode) {
    let (sandbox, lab) = start_on(mode, "flow", "ovs");
    let ovs = &sandbox.ovs;
    let watch = Watch::start(&sandbox, &lab);
    ovs.ofctl("del-flows", sandbox.bridge(), &[]).must();
    eventually("the lost flows are shown", SHOWN, || watch.said("LINK_STATE_DOWN"));
    eventually("flows are back", MENDED, || pings(&sandbox, &lab));
    sandbox.wait_ready(&lab, 2, 1, MENDED);
    let ports = ovs.vsctl(&["list-ports", sandbox.bridge()]).must().stdout;
    let port = ports.split_whitespace().next().unwrap().to_owned();
    let watch = Watch::start(&sandbox, &lab);
    ovs.vsctl(&["del-port", sandbox.bridge(), &port]).must();
    eventually("the lost port is shown", SHOWN, || {
        watch.said("LINK_STATE_DOWN") || watch.said("LINK_STATE_PENDING")
    });
    eventually("the port is back", MENDED, || {
        ovs.vsctl(&["list-ports", sandbox.bridge()]).stdout.contains(&port) && pings(&sandbox, &lab)
    });
    sandbox.wait_ready(&lab, 2, 1, MENDED);
}

/// Deletes the redirect of one of the link's directions.
fn cut_redirect(sandbox: &Sandbox) {
    let links = sandbox.in_namespace("ip").args(["-o", "link"]).output().unwrap();
    let links = String::from_utf8_lossy(&links.stdout).into_owned();
    let name = links.split(": ").find(|word| word.starts_with("nl") && word.contains('@'));
    let end = name.unwrap().split('@').next().unwrap();
    assert_eq!(sandbox.joints(), [0, 2]);
    let cut = sandbox.in_namespace("tc").args(["filter", "del", "dev", end, "ingress"]).status().unwrap();
    assert!(cut.success());
}

/// The timers find and mend what no event tells of: a link that was cut, and a node whose process was killed.
fn what_no_event_tells_of_is_mended_by_the_timers(mode: Mode) {
    type Deed = (&'static str, fn(&Sandbox), &'static str);
    let deeds: [Deed; 2] = [
        (
            "ovs",
            |sandbox| drop(sandbox.ovs.ofctl("del-flows", sandbox.bridge(), &[]).must()),
            "network.flows",
        ),
        ("kernel", cut_redirect, "network.interfaces"),
    ];
    for (plane, cut, source) in deeds {
        let (sandbox, lab) = start_on(mode, "deaf", plane);
        sandbox.go_deaf();
        let is_dropped = |source: &str| sandbox.passed_points().iter().any(|line| line == source);
        is_dropped("what came before");
        cut(&sandbox);
        eventually("an event of it was dropped", MENDED, || is_dropped(source));
        eventually("the link is mended", MENDED, || pings(&sandbox, &lab));
        sandbox.wait_ready(&lab, 2, 1, MENDED);
        is_dropped("what came before");
        let (n2, restarts) = (container(&sandbox, &lab, "n2").unwrap(), "restartCount");
        let before = sandbox.node_json(&lab, "n2")[restarts].as_u64().unwrap_or_default();
        docker(&["kill", &n2]).must();
        eventually("an event of it was dropped", MENDED, || is_dropped("compute.events"));
        eventually("the node was restarted", MENDED, || {
            sandbox.node_json(&lab, "n2")[restarts].as_u64().unwrap_or_default() > before
        });
        eventually("the node is mended", MENDED, || pings(&sandbox, &lab));
        sandbox.wait_ready(&lab, 2, 1, MENDED);
        assert_eq!(container(&sandbox, &lab, "n2"), Some(n2));
    }
}

fn a_deleted_redirect_comes_back(mode: Mode) {
    let (sandbox, lab) = start_on(mode, "redirect", "kernel");
    let watch = Watch::start(&sandbox, &lab);
    cut_redirect(&sandbox);
    eventually("the lost redirect is shown", SHOWN, || watch.said("LINK_STATE_DOWN"));
    eventually("it is back", MENDED, || sandbox.joints() == [0, 2] && pings(&sandbox, &lab));
    sandbox.wait_ready(&lab, 2, 1, MENDED);
}

fn a_wire_of_the_kernel_carries_on_while_netloom_and_open_vswitch_restart(mode: Mode) {
    let (mut sandbox, lab) = start_on(mode, "through", "kernel");
    let n1 = container(&sandbox, &lab, "n1").unwrap();
    let ping = ["exec", &n1, "ping", "-c", "400", "-i", "0.02", "-W", "2", "10.0.1.2"];
    let ping = std::process::Command::new("docker").args(ping).stdout(std::process::Stdio::piped()).spawn();
    sandbox.ovs.restart_switch();
    sandbox.crash();
    sandbox.run_programs();
    sandbox.wait_until_healthy();
    let said = ping.unwrap().wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(
        said.contains("400 packets transmitted, 400 received") || said.contains(" 400 packets received"),
        "{said}"
    );
    sandbox.wait_ready(&lab, 2, 1, MENDED);
}

fn all_wires_return_after_a_restart_of_open_vswitch(mode: Mode) {
    let (mut sandbox, lab) = start_on(mode, "ovs", "ovs");
    sandbox.ovs.restart_switch();
    eventually("pings again", MENDED, || pings(&sandbox, &lab));
    sandbox.wait_ready(&lab, 2, 1, MENDED);
}

fn exec_runs_once_a_start_and_again_after_a_restart(mode: Mode) {
    let sandbox = Sandbox::start(mode);
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

in_both_modes!(
    a_killed_node_is_shown_and_restarted,
    a_removed_container_is_made_again,
    links_and_addresses_survive_docker_restart,
    a_deleted_flow_and_a_removed_port_come_back,
    a_deleted_redirect_comes_back,
    what_no_event_tells_of_is_mended_by_the_timers,
    a_wire_of_the_kernel_carries_on_while_netloom_and_open_vswitch_restart,
    all_wires_return_after_a_restart_of_open_vswitch,
    exec_runs_once_a_start_and_again_after_a_restart
);
