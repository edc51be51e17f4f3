//! Bad days: what netloom does when the ground under it gives way. Afterwards what was asked for is there, and nothing else is.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use netloom_tests::{Sandbox, eventually};

mod docker;

/// What a lab may take to come up, or to be mended, when everything goes wrong first.
const BOUND: Duration = Duration::from_secs(90);

/// Demands that a lab has this many nodes ready and links up, each once, and that its operation is over.
fn is_as_asked(sandbox: &Sandbox, lab: &str, nodes: usize, links: usize) {
    sandbox.wait_ready(lab, nodes as u64, links as u64, BOUND);
    eventually("no operation is left", BOUND, || sandbox.lab_json(lab)["operation"] == "");
    let owner = format!("label=netloom.owner={}", sandbox.owner());
    let containers =
        || sandbox.docker(&["ps", "-aq", "--filter", &owner]).must().stdout.split_whitespace().count();
    eventually("as many containers as nodes", BOUND, || containers() == nodes);
    let ports = || sandbox.ovs.vsctl(&["list-ports", sandbox.bridge()]).must().stdout.lines().count();
    let flows = || {
        let flows = sandbox.ovs.ofctl("dump-flows", sandbox.bridge(), &["--no-stats"]).must().stdout;
        flows.lines().filter(|l| l.contains("actions=")).count()
    };
    eventually("two ports and two flows a link", BOUND, || (ports(), flows()) == (2 * links, 2 * links));
}

/// Destroys a lab and demands that nothing is left of the sandbox's.
fn is_gone(sandbox: &Sandbox, lab: &str) {
    sandbox.netloom(&["destroy", lab, "--yes"]).must();
    eventually("nothing is left", BOUND, || sandbox.leftovers().is_empty());
}

/// A command of netloom's that is under way, ended with its test.
struct Running(Child);

impl Running {
    fn start(sandbox: &Sandbox, args: &[&str]) -> Running {
        let log = std::fs::File::create(sandbox.path().join("running.log")).expect("a log file");
        let mut command = sandbox.command();
        command.args(args).stdin(Stdio::null()).stdout(log.try_clone().expect("a file handle")).stderr(log);
        Running(command.spawn().expect("netloom"))
    }

    /// Its exit code, for which it has the usual bound; -1 when a signal ended it.
    fn ends(mut self) -> i32 {
        let end = Instant::now() + BOUND;
        loop {
            match self.0.try_wait().expect("a child of this test") {
                Some(status) => return status.code().unwrap_or(-1),
                None => assert!(Instant::now() < end, "the command goes on and on"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn ends_well(self) {
        assert_eq!(self.ends(), 0, "exit code of the command that was under way");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
