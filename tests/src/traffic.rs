//! Traffic between nodes, of which none may be missing.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::lab::pid_of;
use crate::sandbox::Sandbox;

/// Pings from a node, one every 20 ms, until this is dropped.
pub struct Traffic(Child, PathBuf);

impl Traffic {
    /// Starts it, from the node `n1`.
    pub fn start(sandbox: &Sandbox, lab: &str, to: &str) -> Traffic {
        let log = sandbox.path().join(format!("ping-{to}.log"));
        let pid = pid_of(sandbox, lab, "n1").to_string();
        let ping = Command::new("nsenter")
            .args(["-t", &pid, "-n", "ping", "-n", "-i", "0.02", to])
            .stdin(Stdio::null())
            .stdout(File::create(&log).expect("a file"))
            .stderr(Stdio::null())
            .spawn()
            .expect("ping");
        Traffic(ping, log)
    }

    /// How many were answered.
    pub fn answers(&self) -> usize {
        let said = std::fs::read_to_string(&self.1).unwrap_or_default();
        said.lines().filter(|l| l.contains("bytes from")).count()
    }

    /// The numbers of those that were answered, in order.
    pub fn numbers(&self) -> Vec<usize> {
        let said = std::fs::read_to_string(&self.1).unwrap_or_default();
        // The last line may be half written.
        let whole = said.lines().filter(|l| l.contains("bytes from") && l.contains(" time="));
        let number = |line: &str| line.split("seq=").nth(1)?.split(' ').next()?.parse().ok();
        whole.map(|line| number(line).unwrap_or_else(|| panic!("no answer of ping's: {line}"))).collect()
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
