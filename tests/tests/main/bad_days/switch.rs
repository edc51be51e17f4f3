//! Open vSwitch restarted again and again under traffic.

use std::time::Duration;

use netloom_tests::{Mode, Sandbox, Traffic, eventually, in_node, on_plane};

use super::{BOUND, is_gone};
use crate::IMAGE;

/// Two nodes on one link, with these addresses.
fn pair(lab: &str, a: &str, b: &str) -> String {
    format!(
        "name: {lab}\ntopology:\n  defaults: {{kind: linux, image: {IMAGE}, image-pull-policy: Never}}\n  nodes:\n    n1:\n    n2:\n  links:\n    \
         - endpoints: [\"n1:eth1\", \"n2:eth1\"]\n      ipv4: [\"{a}/24\", \"{b}/24\"]\n"
    )
}

fn open_vswitch_restarted_under_traffic(mode: Mode) {
    let mut sandbox = Sandbox::start(mode);
    let (lab, other) = (sandbox.lab("one"), sandbox.lab("other"));
    sandbox.deploy(&on_plane("ovs", &pair(&lab, "10.0.1.1", "10.0.1.2")));
    sandbox.deploy(&on_plane("ovs", &pair(&other, "10.0.1.1", "10.0.1.3")));
    assert_eq!(sandbox.joints(), [4, 0], "it is Open vSwitch that carries");
    let own = Traffic::start(&sandbox, &lab, "10.0.1.2");
    // The same network in another lab: port numbers are given anew at each restart, and no flow may be made from old ones.
    let foreign = Traffic::start(&sandbox, &lab, "10.0.1.3");
    eventually("traffic flows", BOUND, || own.answers() > 20);
    for _ in 0..3 {
        sandbox.ovs.restart_switch();
        let before = own.answers();
        eventually("traffic flows again", BOUND, || own.answers() > before + 20);
    }
    assert_eq!(foreign.answers(), 0, "frames came into another lab");
    for lab in [&lab, &other] {
        sandbox.wait_ready(lab, 2, 1, BOUND);
    }
    in_node(&sandbox, &other, "n1", &["ping", "-c", "1", "-W", "2", "10.0.1.3"]).must();
    drop((own, foreign));
    sandbox.netloom(&["destroy", &other, "--yes"]).must();
    sandbox.wait_ready(&lab, 2, 1, BOUND);
    eventually("two flows a link", BOUND, || sandbox.joints() == [2, 0]);
    // Removed while Open vSwitch is away, it is gone when that is back.
    let destroy = super::Running::start(&sandbox, &["destroy", &lab, "--yes"]);
    sandbox.ovs.restart_switch();
    destroy.ends_well();
    eventually("nothing is left", Duration::from_secs(30), || sandbox.leftovers().is_empty());
}

fn a_wire_of_the_kernel_loses_nothing_when_open_vswitch_restarts(mode: Mode) {
    let mut sandbox = Sandbox::start(mode);
    let lab = sandbox.lab("kernel");
    sandbox.deploy(&on_plane("kernel", &pair(&lab, "10.0.1.1", "10.0.1.2")));
    assert_eq!(sandbox.joints(), [0, 2], "it is the kernel that carries");
    let traffic = Traffic::start(&sandbox, &lab, "10.0.1.2");
    eventually("traffic flows", BOUND, || traffic.answers() > 20);
    for _ in 0..3 {
        let before = traffic.answers();
        sandbox.ovs.restart_switch();
        // Also when all is looked at after the restart.
        eventually("traffic flows on", BOUND, || traffic.answers() > before + 100);
    }
    let numbers = traffic.numbers();
    let sent = *numbers.last().unwrap();
    assert_eq!(numbers, (1..=sent).collect::<Vec<_>>(), "frames were lost");
    drop(traffic);
    is_gone(&sandbox, &lab);
}

in_both_modes!(
    open_vswitch_restarted_under_traffic,
    a_wire_of_the_kernel_loses_nothing_when_open_vswitch_restarts,
);
