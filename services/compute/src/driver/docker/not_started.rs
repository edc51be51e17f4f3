//! A command that was never started. Docker tells it as if the command itself had written its runtime's error and had ended with 126; what a shell would say of it is found here. Pure.

use crate::driver::{NotStarted, Output};

/// How the runtime's error begins.
const BEGINNING: &[u8] = b"OCI runtime exec failed: ";
/// Longer than any error of the runtime's.
const LONGEST: usize = 8 << 10;
/// Exit codes of a shell.
const NOT_RUNNABLE: i32 = 126;
const NOT_FOUND: i32 = 127;

/// Output that is held back for as long as it may be the runtime's error: that is known when the command has ended.
#[derive(Default)]
pub(super) struct Held {
    parts: Vec<Output>,
    is_over: bool,
}

impl Held {
    /// What may be passed on now.
    pub fn take(&mut self, part: Output) -> Vec<Output> {
        if self.is_over {
            return vec![part];
        }
        self.parts.push(part);
        let written = bytes(&self.parts);
        let compared = written.len().min(BEGINNING.len());
        self.is_over = written[..compared] != BEGINNING[..compared] || written.len() > LONGEST;
        if self.is_over { std::mem::take(&mut self.parts) } else { Vec::new() }
    }

    /// What is held at the end.
    pub fn rest(&mut self) -> Vec<Output> {
        self.is_over = true;
        std::mem::take(&mut self.parts)
    }
}

fn bytes(parts: &[Output]) -> Vec<u8> {
    let written = |part: &Output| match part {
        Output::Stdout(bytes) | Output::Stderr(bytes) => bytes.to_vec(),
        Output::Exit(_) | Output::NotStarted(_) => Vec::new(),
    };
    parts.iter().flat_map(written).collect()
}

/// What these parts say.
pub(super) fn text(parts: &[Output]) -> String {
    String::from_utf8_lossy(&bytes(parts)).into_owned()
}

/// What the runtime's error means for a command that begins with this word.
pub(super) fn read(program: &str, error: &str) -> NotStarted {
    let error = error.trim().trim_end_matches(": unknown");
    let error = error.as_bytes().strip_prefix(BEGINNING).map_or(error, |_| &error[BEGINNING.len()..]);
    // What is said of the program itself, and not of its directory or of its interpreter.
    let of_program = error.split_once(&format!("exec: \"{program}\": ")).map(|(_, why)| why);
    match of_program {
        Some(why) if why.contains("not found") || why.contains("no such file") => {
            NotStarted { code: NOT_FOUND, why: format!("command not found: {program}") }
        }
        Some(why) if why.contains("permission denied") || why.contains("is a directory") => {
            NotStarted { code: NOT_RUNNABLE, why: format!("not executable: {program}") }
        }
        _ => {
            let why = error.rsplit_once("container process: ").map_or(error, |(_, why)| why);
            NotStarted { code: NOT_RUNNABLE, why: format!("{program} cannot be run: {why}") }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stdout(text: &str) -> Output {
        Output::Stdout(text.as_bytes().to_vec().into())
    }

    #[test]
    fn what_the_runtime_says_becomes_what_a_shell_says() {
        let starting = "OCI runtime exec failed: exec failed: unable to start container process: ";
        for (program, error, code, why) in [
            (
                "nosuch",
                "exec: \"nosuch\": executable file not found in $PATH: unknown\r\n",
                127,
                "command not found: nosuch",
            ),
            (
                "./x",
                "exec: \"./x\": stat ./x: no such file or directory: unknown",
                127,
                "command not found: ./x",
            ),
            (
                "/etc/passwd",
                "exec: \"/etc/passwd\": permission denied: unknown",
                126,
                "not executable: /etc/passwd",
            ),
            ("/etc", "exec: \"/etc\": is a directory: unknown", 126, "not executable: /etc"),
            (
                "/x.sh",
                "exec /x.sh: no such file or directory: unknown",
                126,
                "/x.sh cannot be run: exec /x.sh: no such file or directory",
            ),
            (
                "ls",
                "chdir to cwd (\"/gone\") set in config.json failed: no such file or directory",
                126,
                "ls cannot be run: chdir to cwd (\"/gone\") set in config.json failed: no such file or directory",
            ),
        ] {
            let expected = NotStarted { code, why: why.to_owned() };
            assert_eq!(read(program, &format!("{starting}{error}")), expected, "{error}");
        }
    }

    #[test]
    fn only_what_may_be_the_runtimes_error_is_held_back() {
        let mut held = Held::default();
        assert_eq!(held.take(stdout("hello")), [stdout("hello")]);
        assert_eq!(held.take(stdout("OCI runtime")), [stdout("OCI runtime")], "it began with something else");

        let mut held = Held::default();
        assert_eq!(held.take(stdout("OCI run")), []);
        assert_eq!(held.take(stdout("time x")), [stdout("OCI run"), stdout("time x")]);

        let mut held = Held::default();
        assert_eq!(held.take(stdout("OCI runtime exec failed: exec")), []);
        assert_eq!(held.take(stdout(" failed")), []);
        assert_eq!(text(&held.rest()), "OCI runtime exec failed: exec failed");

        let mut held = Held::default();
        assert_eq!(held.take(stdout("OCI runtime exec failed: ")), []);
        let long = stdout(&"x".repeat(LONGEST));
        assert_eq!(held.take(long.clone()).len(), 2, "nothing is held for ever");
        assert_eq!(held.take(long.clone()), [long]);
    }
}
