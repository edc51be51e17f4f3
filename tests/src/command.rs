//! Running a command and keeping what it said.

use std::ffi::OsStr;
use std::io::Write as _;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What a command said, and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// True when it ended with 0.
    pub fn ok(&self) -> bool {
        self.code == 0
    }

    /// Panics with what it said unless it ended with 0.
    pub fn must(self) -> Output {
        assert!(self.ok(), "exit code {}\n{}{}", self.code, self.stdout, self.stderr);
        self
    }
}

/// Runs a command to its end.
pub fn run<S: AsRef<OsStr>>(program: &str, args: &[S]) -> Output {
    finish(Command::new(program).args(args), None)
}

/// Runs a command to its end with this on its standard input.
pub fn run_with_input(command: &mut Command, input: &str) -> Output {
    finish(command, Some(input))
}

/// Runs a command to its end, with this on its standard input where there is any.
pub fn finish(command: &mut Command, input: Option<&str>) -> Output {
    let program = command.get_program().to_string_lossy().into_owned();
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("cannot run {program}: {e}"));
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        // Who does not read its input to the end has its reasons.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().unwrap_or_else(|e| panic!("cannot wait for {program}: {e}"));
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A process that is stopped until this is dropped.
pub struct Frozen(Pid);

impl Frozen {
    /// Stops a process that the test started.
    pub(crate) fn new(pid: u32) -> Frozen {
        let pid = Pid::from_raw(pid.cast_signed());
        kill(pid, Signal::SIGSTOP).expect("it runs");
        Frozen(pid)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}
