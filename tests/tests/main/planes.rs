//! A lab that runs changes the plane of its links, by its own word and by its host's.

use std::time::Duration;

use netloom_tests::{Mode, Sandbox, Traffic, container, eventually, on_plane};

use crate::line;

const BOUND: Duration = Duration::from_secs(60);

/// Most pings of a change that may stay without an answer: some ten milliseconds of one every twenty, with the slack of a machine that runs other tests; how few they are is measured where one wire is alone.
const LOST: usize = 25;

/// What joins the link of two nodes on each plane: flows, and redirects.
fn joints(plane: &str) -> [usize; 2] {
    if plane == "ovs" { [2, 0] } else { [0, 2] }
}

/// What stays the same of each node whatever carries its link: its container, and of its NIC the index and how often its carrier changed.
fn identities(sandbox: &Sandbox, lab: &str) -> [(Option<String>, String); 2] {
    [("n1", "eth2"), ("n2", "eth1")].map(|(node, nic)| {
        let nic = ["ifindex", "carrier_changes", "address"].map(|of| format!("/sys/class/net/{nic}/{of}"));
        let nic = sandbox.netloom(&["exec", lab, node, "--", "cat", &nic[0], &nic[1], &nic[2]]);
        (container(sandbox, lab, node), nic.must().stdout)
    })
}

/// Has its plane changed under traffic, and demands that nothing else is.
fn changes_under_traffic(sandbox: &Sandbox, lab: &str, plane: &str, change: impl FnOnce()) {
    let before = identities(sandbox, lab);
    let traffic = Traffic::start(sandbox, lab, "10.0.1.2");
    eventually("traffic flows", BOUND, || traffic.answers() > 20);
    change();
    let is_carried = || {
        let links = sandbox.get(&format!("/v1/labs/{lab}/links")).map(|reply| reply.body).unwrap_or_default();
        links["links"][0]["plane"] == plane && sandbox.joints() == joints(plane)
    };
    eventually(&format!("the link is on the plane {plane}"), BOUND, is_carried);
    sandbox.wait_ready(lab, 2, 1, BOUND);
    let now = traffic.answers();
    eventually("traffic flows on", BOUND, || traffic.answers() > now + 20);
    let numbers = traffic.numbers();
    let sent = numbers.last().unwrap_or(&0) - numbers[0] + 1;
    let lost = sent - numbers.len();
    eprintln!("to {plane}: {lost} of {sent} pings were lost");
    assert!(lost <= LOST, "{lost} of {sent} pings were lost: {numbers:?}");
    assert_eq!(identities(sandbox, lab), before, "the same nodes and NICs, whose carrier stayed");
}

fn a_lab_that_runs_changes_its_plane(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let lab = sandbox.lab("planes");
    let text = |plane: &str| on_plane(plane, &line(&lab, 2));
    sandbox.deploy(&text("ovs"));
    assert_eq!(sandbox.joints(), joints("ovs"));
    for plane in ["kernel", "ovs"] {
        let file = sandbox.write("other.clab.yml", &text(plane)).display().to_string();
        let plan = sandbox.netloom(&["plan", "-t", &file]).must().stdout;
        assert!(plan.contains("n1:eth2--n2:eth1") && !plan.contains("node"), "{plan}");
        changes_under_traffic(&sandbox, &lab, plane, || drop(sandbox.deploy(&text(plane))));
    }
    sandbox.netloom(&["destroy", &lab, "--yes"]).must();
    assert_eq!(sandbox.leftovers(), Vec::<String>::new());
}

fn a_lab_that_runs_changes_its_plane_with_its_hosts_default(mode: Mode) {
    let sandbox = Sandbox::start_on(mode, "plane = \"ovs\"");
    let lab = sandbox.lab("default");
    sandbox.deploy(&line(&lab, 2));
    assert_eq!(sandbox.joints(), joints("ovs"));
    let config = sandbox.path().join("netloom.toml");
    for (before, plane) in [("ovs", "kernel"), ("kernel", "ovs")] {
        changes_under_traffic(&sandbox, &lab, plane, || {
            let text = std::fs::read_to_string(&config).expect("its configuration");
            let other = text.replace(&format!("plane = \"{before}\""), &format!("plane = \"{plane}\""));
            assert_ne!(text, other);
            std::fs::write(&config, other).expect("its configuration");
            sandbox.crash();
            sandbox.run_programs();
            sandbox.wait_until_healthy();
        });
    }
    sandbox.netloom(&["destroy", &lab, "--yes"]).must();
    assert_eq!(sandbox.leftovers(), Vec::<String>::new());
}

in_both_modes!(a_lab_that_runs_changes_its_plane, a_lab_that_runs_changes_its_plane_with_its_hosts_default);
