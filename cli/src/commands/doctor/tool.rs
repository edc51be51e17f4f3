//! Programs that are asked or told something: never for ever, in the words of the C locale, also where they are in `sbin`.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// How long a program may take, unless it is said otherwise.
const BOUND: Duration = Duration::from_secs(30);

/// A program.
pub struct Tool {
    program: String,
    bound: Duration,
    environment: Vec<(&'static str, &'static str)>,
}

/// How a program ended, and what it said.
#[derive(Debug, Clone)]
pub struct Said {
    /// Exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub out: String,
    /// What it wrote to standard error.
    pub err: String,
}

impl Tool {
    /// By its name.
    pub fn new(program: &str) -> Tool {
        Tool { program: program.to_owned(), bound: BOUND, environment: Vec::new() }
    }

    /// With a variable of its environment.
    pub fn env(mut self, name: &'static str, value: &'static str) -> Tool {
        self.environment.push((name, value));
        self
    }

    /// That may take so long.
    pub fn within(mut self, bound: Duration) -> Tool {
        self.bound = bound;
        self
    }

    /// Runs it. An error when it cannot be run ([`io::ErrorKind::NotFound`]: it is not here) or does not end; how it ends is in the answer.
    pub async fn run<S: AsRef<str>>(self, arguments: &[S]) -> io::Result<Said> {
        let mut path =
            std::env::var_os("PATH").filter(|p| !p.is_empty()).unwrap_or_else(|| "/usr/bin:/bin".into());
        path.push(":/usr/local/sbin:/usr/sbin:/sbin");
        let child = Command::new(&self.program)
            .args(arguments.iter().map(AsRef::as_ref))
            .env("PATH", path)
            .env("LC_ALL", "C")
            .envs(self.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| io::Error::new(e.kind(), format!("{} cannot be run: {e}", self.program)))?;
        let ended =
            tokio::time::timeout(self.bound, child.wait_with_output()).await.unwrap_or_else(|_| {
                let why = format!("{} did not end within {} s", self.program, self.bound.as_secs());
                Err(io::Error::new(io::ErrorKind::TimedOut, why))
            })?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Said { code: ended.status.code(), out: text(ended.stdout), err: text(ended.stderr) })
    }
}

impl Said {
    /// True when it ended well.
    pub fn ok(&self) -> bool {
        self.code == Some(0)
    }

    /// Its first words for why it did not, else its exit code.
    pub fn why(&self) -> String {
        let line = self.err.lines().chain(self.out.lines()).map(str::trim).find(|l| !l.is_empty());
        match (line, self.code) {
            (Some(line), _) => line.to_owned(),
            (None, Some(code)) => format!("exit code {code}"),
            (None, None) => "a signal ended it".to_owned(),
        }
    }
}
