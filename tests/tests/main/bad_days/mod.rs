//! Bad days: what netloom does when the ground under it gives way. Afterwards what was asked for is there, and nothing else is.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use netloom_tests::{Mode, Sandbox, eventually};
use nix::mount::{MsFlags, mount};

mod docker;
mod garbage;
mod hosts;
mod lost;
mod nodes;
mod points;
mod resources;
mod scale;
mod switch;
mod watcher;

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
    eventually("two redirects a link", BOUND, || sandbox.joints() == [0, 2 * links]);
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
        Running::start_as(sandbox, "running", args)
    }

    /// Starts it, and writes what it says to `<name>.log` in the sandbox's directory.
    fn start_as(sandbox: &Sandbox, name: &str, args: &[&str]) -> Running {
        let log = std::fs::File::create(sandbox.path().join(format!("{name}.log"))).expect("a log file");
        let mut command = sandbox.command();
        command.args(args).stdin(Stdio::null()).stdout(log.try_clone().expect("a file handle")).stderr(log);
        Running(command.spawn().expect("netloom"))
    }

    /// Its exit code, for which it has the usual bound; -1 when a signal ended it.
    fn ends(mut self) -> i32 {
        let end = Instant::now() + BOUND;
        loop {
            match self.has_ended() {
                Some(code) => return code,
                None => assert!(Instant::now() < end, "the command goes on and on"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Its exit code, when it has ended.
    fn has_ended(&mut self) -> Option<i32> {
        self.0.try_wait().expect("a child of this test").map(|status| status.code().unwrap_or(-1))
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

/// A sandbox of simulated nodes on a host that has room for any number of them, with more configuration.
fn played(mode: Mode, more: &str) -> Sandbox {
    let room = "[compute]\ndrivers = [\"sim\"]\n[compute.sim]\ncpu_millis = 100000000\nmemory_bytes = 1125899906842624\n";
    let sandbox = Sandbox::prepare(mode, &format!("{room}{more}"));
    // In memory: how fast a disk takes a thousand writes says nothing of netloom.
    in_memory(&sandbox, "1g");
    sandbox.run_programs();
    sandbox.wait_until_healthy();
    sandbox
}

/// Gives a sandbox, before its programs run, a data directory in memory that takes so much.
fn in_memory(sandbox: &Sandbox, size: &str) {
    let data = sandbox.data_dir();
    std::fs::create_dir_all(&data).expect("a data directory");
    let size = format!("size={size}");
    mount(Some("tmpfs"), &data, Some("tmpfs"), MsFlags::empty(), Some(size.as_str())).expect("a file system");
}

/// CPU time that a sandbox's programs have taken since they were started: what else the machine does matters little to it.
fn cpu(sandbox: &Sandbox) -> Duration {
    let of = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        // utime and stime, in hundredths of a second.
        fields.skip(11).take(2).filter_map(|f| f.parse::<u64>().ok()).sum::<u64>()
    };
    Duration::from_millis(10 * sandbox.pids().into_iter().map(of).sum::<u64>())
}

/// Memory that a sandbox's programs have, in bytes.
fn resident(sandbox: &Sandbox) -> u64 {
    let of = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() << 10
    };
    sandbox.pids().into_iter().map(of).sum()
}

/// Numbers that follow from a seed (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn new(seed: u64) -> Numbers {
        Numbers(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 11) as usize % bound
    }

    /// At most so many bytes.
    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| self.next() as u8).collect()
    }

    /// A short text of any characters.
    fn text(&mut self) -> String {
        const LETTERS: [char; 16] =
            ['a', 'Z', '0', '-', '.', '/', '%', '"', '\\', ' ', '\n', 'é', '\u{202e}', '\0', '*', ':'];
        (0..self.below(24)).map(|_| LETTERS[self.below(LETTERS.len())]).collect()
    }
}
