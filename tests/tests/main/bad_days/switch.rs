//! Open vSwitch restarted again and again under traffic.

use std::process::{Child, Stdio};
use std::time::Duration;

use netloom_tests::{Mode, Sandbox, eventually, in_node, pid_of};

use super::{BOUND, is_as_asked};
use crate::IMAGE;

/// Two nodes on one link, with these addresses.
fn pair(lab: &str, a: &str, b: &str) -> String {
    format!(
        "name: {lab}\ntopology:\n  defaults: {{kind: linux, image: {IMAGE}, image-pull-policy: Never}}\n  nodes:\n    n1:\n    n2:\n  links:\n    \
         - endpoints: [\"n1:eth1\", \"n2:eth1\"]\n      ipv4: [\"{a}/24\", \"{b}/24\"]\n"
    )
}

/// Traffic from a node, until it is asked for its answers.
struct Traffic(Child, std::path::PathBuf);

impl Traffic {
    fn start(sandbox: &Sandbox, lab: &str, to: &str) -> Traffic {
        let log = sandbox.path().join(format!("ping-{to}.log"));
        let pid = pid_of(sandbox, lab, "n1").to_string();
        let ping = std::process::Command::new("nsenter")
            .args(["-t", &pid, "-n", "ping", "-n", "-i", "0.02", to])
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&log).expect("a file"))
            .stderr(Stdio::null())
            .spawn()
            .expect("ping");
        Traffic(ping, log)
    }

    fn answers(&self) -> usize {
        let said = std::fs::read_to_string(&self.1).unwrap_or_default();
        said.lines().filter(|l| l.contains("bytes from")).count()
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn open_vswitch_restarted_under_traffic(mode: Mode) {
    let mut sandbox = Sandbox::start(mode);
    let (lab, other) = (sandbox.lab("one"), sandbox.lab("other"));
    sandbox.deploy(&pair(&lab, "10.0.1.1", "10.0.1.2"));
    sandbox.deploy(&pair(&other, "10.0.1.1", "10.0.1.3"));
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
    is_as_asked(&sandbox, &lab, 2, 1);
    // Removed while Open vSwitch is away, it is gone when that is back.
    let destroy = super::Running::start(&sandbox, &["destroy", &lab, "--yes"]);
    sandbox.ovs.restart_switch();
    destroy.ends_well();
    eventually("nothing is left", Duration::from_secs(30), || sandbox.leftovers().is_empty());
}

in_both_modes!(open_vswitch_restarted_under_traffic);
