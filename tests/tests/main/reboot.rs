//! The whole machine restarts: every container is stopped, Open vSwitch is empty, the run directory is gone.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use netloom_tests::{Mode, Sandbox, container, eventually, in_node, on_plane};

use crate::{IMAGE, line};

/// From the first program on until all is well; a boot takes longer.
const BOUND: Duration = Duration::from_secs(90);

fn pings(sandbox: &Sandbox, lab: &str, node: &str, address: &str) -> bool {
    in_node(sandbox, lab, node, &["ping", "-c", "1", "-W", "1", address]).ok()
}

fn every_lab_that_was_up_comes_back_by_itself(mode: Mode) {
    let mut sandbox = Sandbox::prepare_with_docker(mode, "", &[IMAGE]);
    sandbox.run_programs();
    sandbox.wait_until_healthy();
    let (first, second, stopped) = (sandbox.lab("first"), sandbox.lab("second"), sandbox.lab("stopped"));
    // Ports and flows have to come back, and redirects.
    sandbox.deploy(&on_plane("ovs", &line(&first, 3)));
    let managed = on_plane("kernel", &line(&second, 2)).replacen(
        "topology:",
        "mgmt: {ipv4-subnet: 10.214.0.0/24}\ntopology:",
        1,
    );
    sandbox.deploy(&managed);
    sandbox.netloom(&["link", "set", &second, "n1:eth2", "--rate", "100mbit"]).must();
    // Bridges have to come back as well, and a way out of the lab.
    let bridged = line(&stopped, 2).replacen("    n2:\n", "    n2:\n    sw: {kind: bridge}\n", 1)
        + "    - endpoints: [\"n1:eth3\", \"sw:p1\"]\n    - endpoints: [\"n1:eth4\", \"host:up0\"]\n";
    sandbox.deploy(&bridged);
    sandbox.netloom(&["node", "stop", &stopped, "n2"]).must();
    let ids = |sandbox: &Sandbox| {
        [(&first, "n1"), (&second, "n2"), (&stopped, "n2")].map(|(lab, node)| container(sandbox, lab, node))
    };
    let before = ids(&sandbox);
    let ports = |sandbox: &Sandbox| {
        let ports = sandbox.ovs.vsctl(&["list-ports", sandbox.bridge()]).must().stdout;
        ports.lines().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let ports_before = ports(&sandbox);
    assert_eq!(ports_before.len(), 4, "two a link that Open vSwitch carries: {ports_before:?}");
    eventually("flows and redirects join the links", BOUND, || sandbox.joints() == [4, 2]);
    // All but the link to what is stopped.
    let others_are_up = |sandbox: &Sandbox| {
        let out = sandbox.in_namespace("ip").args(["-o", "link", "show", "up0"]).output().expect("ip");
        let bridges = sandbox.ovs.vsctl(&["list-br"]).must().stdout.lines().count();
        let is_out = String::from_utf8_lossy(&out.stdout).contains("LOWER_UP");
        sandbox.lab_json(&stopped)["upLinkCount"] == 2 && is_out && bridges == 2
    };
    eventually("the links into a bridge and out of the lab are up", BOUND, || others_are_up(&sandbox));

    // Power fails: nobody is asked to end.
    sandbox.reboot();
    let docker = sandbox.docker(&["ps", "-q"]).must().stdout;
    assert_eq!(docker.trim(), "", "no container runs after a boot: {docker}");
    let begun = Instant::now();
    sandbox.run_programs();
    sandbox.wait_until_healthy();
    for (lab, nodes, links) in [(&first, 3, 2), (&second, 2, 1)] {
        sandbox.wait_ready(lab, nodes, links, BOUND);
    }
    println!("all labs are up after {:.1?}", begun.elapsed());
    eventually("links carry", BOUND, || {
        pings(&sandbox, &first, "n1", "10.0.1.2")
            && pings(&sandbox, &first, "n3", "10.0.2.1")
            && pings(&sandbox, &second, "n1", "10.0.1.2")
    });
    assert_eq!(ids(&sandbox), before, "the same containers, with what is on their disks");
    assert!(!sandbox.node_json(&second, "n1")["mgmtIpv4"].as_str().unwrap_or_default().is_empty());
    assert_eq!(ports(&sandbox), ports_before);
    eventually("flows and redirects are back", BOUND, || sandbox.joints() == [4, 2]);
    // What was stopped stays so, and its lab is as it was.
    eventually("the other node of its lab runs", BOUND, || {
        sandbox.node_json(&stopped, "n1")["state"] == "NODE_STATE_READY"
    });
    assert_eq!(sandbox.node_json(&stopped, "n2")["state"], "NODE_STATE_STOPPED");
    eventually("its links into a bridge and out of the lab are up", BOUND, || others_are_up(&sandbox));
    for lab in [&first, &second, &stopped] {
        sandbox.netloom(&["destroy", lab, "--yes"]).must();
    }
    eventually("nothing is left", BOUND, || sandbox.leftovers().is_empty());
}

in_both_modes!(every_lab_that_was_up_comes_back_by_itself);
