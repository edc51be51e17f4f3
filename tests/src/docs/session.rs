//! Runs blocks in a sandbox, the way a reader would: in one directory, each command in a shell.
//!
//! A page speaks of an installed netloom. Its paths are put in place of the sandbox's and back (`paths`), and every topology file gets a `prefix` of the
//! sandbox's own, because names of containers are the machine's.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::docs::page::{Page, Step, What};
use crate::docs::{compare, terminal};
use crate::sandbox::{Sandbox, binaries};

/// Longest time that a command may take.
const BOUND: Duration = Duration::from_secs(60);

/// A directory and an environment to run blocks in.
pub struct Session<'a> {
    sandbox: &'a Sandbox,
    dir: PathBuf,
}

/// What a command said, line by line, and its exit code.
struct Said {
    lines: Vec<String>,
    code: i32,
}

impl<'a> Session<'a> {
    /// Opens one in `dir` below the sandbox, with a copy of the repository's `examples` and `kinds`.
    pub fn open(sandbox: &'a Sandbox, root: &Path, dir: &str) -> Session<'a> {
        let dir = sandbox.path().join(dir);
        let bin = sandbox.path().join("bin");
        for directory in [&dir, &bin, &sandbox.path().join("share")] {
            fs::create_dir_all(directory).expect("a directory");
        }
        for (from, to) in [
            ("examples", dir.join("examples")),
            ("examples", share(sandbox, "examples")),
            ("kinds", share(sandbox, "kinds")),
        ] {
            if !to.exists() {
                crate::run("cp", &["-r".as_ref(), root.join(from).as_os_str(), to.as_os_str()]).must();
            }
        }
        // Who runs the tests is root already.
        let sudo = bin.join("sudo");
        fs::write(&sudo, "#!/bin/sh\nexec \"$@\"\n").expect("a script");
        fs::set_permissions(&sudo, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("a mode");
        Session { sandbox, dir }
    }

    /// Runs all blocks of a page, in order. The error names file and line, and what was said instead.
    pub fn run(&self, page: &Page) -> Result<(), String> {
        for block in &page.blocks {
            let at = |line: usize, why: String| format!("{}:{line}: {why}", page.file);
            match &block.what {
                What::Console(steps) => self.steps(&page.file, steps, block.within, block.exit_code)?,
                What::File { name, text } => self.write(name, text).map_err(|e| at(block.line, e))?,
                What::Change { name, places } => self.change(name, places).map_err(|e| at(block.line, e))?,
                What::Topology(text) => {
                    self.write("unnamed/lab.clab.yml", text).map_err(|e| at(block.line, e))?;
                    let said = self.output("netloom validate unnamed/lab.clab.yml")?;
                    if said.code != 0 {
                        return Err(at(block.line, format!("it is not valid:\n{}", said.lines.join("\n"))));
                    }
                }
                What::NotRun(_) | What::Text => {}
            }
        }
        Ok(())
    }

    /// Runs commands, each repeated for as long as `within` says until it says what is expected.
    pub fn steps(
        &self,
        file: &str,
        steps: &[Step],
        within: Option<Duration>,
        last_code: i32,
    ) -> Result<(), String> {
        for (i, step) in steps.iter().enumerate() {
            let code = if i + 1 == steps.len() { last_code } else { 0 };
            let end = Instant::now() + within.unwrap_or_default();
            loop {
                match self.step(step, code) {
                    Ok(()) => break,
                    Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(200)),
                    Err((line, why)) => return Err(format!("{file}:{line}: `{}` {why}", step.command)),
                }
            }
        }
        Ok(())
    }

    fn step(&self, step: &Step, code: i32) -> Result<(), (usize, String)> {
        self.own_names().map_err(|e| (step.line, e))?;
        if !step.typed.is_empty() {
            return self.typed(step);
        }
        let said = self.output(&step.command).map_err(|e| (step.line, e))?;
        let shown = || format!("it said:\n{}", said.lines.join("\n"));
        if said.code != code {
            return Err((step.line, format!("ended with exit code {}, not {code}; {}", said.code, shown())));
        }
        if step.expected.is_empty() {
            return Ok(());
        }
        compare_with(&step.expected, &said.lines)
            .map_err(|(line, text)| (line, format!("did not say \"{text}\"; {}", shown())))
    }

    fn typed(&self, step: &Step) -> Result<(), (usize, String)> {
        let command = self.shell(&self.put_in(&step.command));
        let parts = terminal::converse(command, &step.typed)
            .map_err(|(n, why)| (n.and_then(|n| step.typed.get(n)).map_or(step.line, |t| t.line), why))?;
        let expected = std::iter::once(&step.expected).chain(step.typed.iter().map(|t| &t.expected));
        for (expected, part) in expected.zip(parts) {
            let lines: Vec<String> = part.lines().map(|l| self.put_back(l)).collect();
            if !expected.is_empty() {
                compare_with(expected, &lines).map_err(|(line, text)| {
                    (line, format!("did not say \"{text}\"; it said:\n{}", lines.join("\n")))
                })?;
            }
        }
        Ok(())
    }

    /// Runs a command line that is no page's, and demands success; what it says, line by line.
    pub fn say(&self, line: &str) -> Result<Vec<String>, String> {
        self.own_names()?;
        let said = self.output(line)?;
        if said.code == 0 {
            Ok(said.lines)
        } else {
            Err(format!("`{line}` failed:\n{}", said.lines.join("\n")))
        }
    }

    /// Runs a command line; what it says is standard output and error as they came.
    fn output(&self, line: &str) -> Result<Said, String> {
        let output = self.dir.with_extension("output");
        let file = File::create(&output).map_err(|e| e.to_string())?;
        // Not a pipe: what a command leaves in the background may hold it open.
        let status = self
            .shell(&self.put_in(line))
            .stdin(Stdio::null())
            .stdout(file.try_clone().map_err(|e| e.to_string())?)
            .stderr(file)
            .status()
            .map_err(|e| format!("cannot be run: {e}"))?;
        let text = String::from_utf8_lossy(&fs::read(&output).map_err(|e| e.to_string())?).into_owned();
        let lines = text.lines().map(|l| self.put_back(l)).collect();
        match status.code() {
            Some(124) => Err(format!("did not end within {BOUND:?}; it said:\n{text}")),
            code => Ok(Said { lines, code: code.unwrap_or(-1) }),
        }
    }

    /// A shell in the sandbox's network namespace, where its netloom listens.
    fn shell(&self, line: &str) -> Command {
        let bin = self.sandbox.path().join("bin");
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = self.sandbox.in_namespace("timeout");
        command
            .args(["--foreground", "--kill-after=5", &BOUND.as_secs().to_string(), "bash", "-c", line])
            .current_dir(&self.dir)
            .env("PATH", format!("{}:{}:{path}", bin.display(), binaries().display()))
            .env("NETLOOM_ENDPOINT", format!("unix:{}", self.sandbox.socket().display()))
            .env("NETLOOM_TOKEN_FILE", self.sandbox.data_dir().join("admin.token"))
            .env("OVS_RUNDIR", self.sandbox.ovs.run_dir())
            .env("TERM", "dumb")
            .env("LC_ALL", "C.UTF-8");
        command
    }

    fn write(&self, name: &str, text: &str) -> Result<(), String> {
        let path = self.dir.join(name);
        fs::create_dir_all(path.parent().unwrap_or(&self.dir))
            .and_then(|()| fs::write(&path, text))
            .map_err(|e| format!("{name}: {e}"))
    }

    fn change(&self, name: &str, places: &[(String, String)]) -> Result<(), String> {
        let path = self.dir.join(name);
        let mut text = fs::read_to_string(&path).map_err(|e| format!("{name}: {e}"))?;
        for (old, new) in places {
            match text.matches(old.as_str()).count() {
                1 => text = text.replacen(old.as_str(), new, 1),
                n => return Err(format!("{name} has these lines {n} times, not once:\n{old}it is:\n{text}")),
            }
        }
        fs::write(&path, text).map_err(|e| format!("{name}: {e}"))
    }

    /// Gives every topology file in the directory a prefix of the sandbox's own.
    fn own_names(&self) -> Result<(), String> {
        let mut directories = vec![self.dir.clone()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory).map_err(|e| e.to_string())?.flatten() {
                let path = entry.path();
                let name = entry.file_name().to_string_lossy().into_owned();
                if path.is_dir() && !path.is_symlink() {
                    directories.push(path);
                } else if name.ends_with(".clab.yml") || name.ends_with(".clab.yaml") {
                    let text = fs::read_to_string(&path).map_err(|e| format!("{name}: {e}"))?;
                    if let Some(own) = with_prefix(&text, self.sandbox.bridge()) {
                        fs::write(&path, own).map_err(|e| format!("{name}: {e}"))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Paths and names of an installed netloom, and the sandbox's.
    fn paths(&self) -> [(&'static str, String); 4] {
        let sandbox = self.sandbox;
        let path = |p: PathBuf| p.display().to_string();
        [
            ("/usr/local/share/netloom", path(sandbox.path().join("share"))),
            ("/var/lib/netloom", path(sandbox.data_dir())),
            ("/run/netloom", path(sandbox.path().join("run"))),
            ("netloom-", format!("{}-", sandbox.bridge())),
        ]
    }

    fn put_in(&self, line: &str) -> String {
        let paths = self.paths();
        // Names of containers are meant only where Docker is asked.
        let named = match line.contains("docker ") {
            true => line.replace(" netloom-", &format!(" {}", paths[3].1)),
            false => line.to_owned(),
        };
        paths[..3].iter().fold(named, |line, (shown, real)| line.replace(shown, real))
    }

    fn put_back(&self, line: &str) -> String {
        self.paths().iter().fold(line.to_owned(), |line, (shown, real)| line.replace(real, shown))
    }
}

fn share(sandbox: &Sandbox, name: &str) -> PathBuf {
    sandbox.path().join("share").join(name)
}

/// The text with this prefix; none when it has it already. A prefix that the text has becomes the end of it.
fn with_prefix(text: &str, prefix: &str) -> Option<String> {
    match text.lines().find_map(|l| l.strip_prefix("prefix:")) {
        Some(given) if given.trim().starts_with(prefix) => None,
        Some(given) => {
            let own = format!("prefix: {prefix}-{}", given.trim().trim_matches(['"', '\'']));
            Some(text.replacen(&format!("prefix:{given}"), &own, 1))
        }
        // At the end, so that no line gets another number.
        None => Some(format!("{}\nprefix: {prefix}\n", text.trim_end())),
    }
}

fn compare_with(expected: &[(usize, String)], lines: &[String]) -> Result<(), (usize, String)> {
    let texts: Vec<&String> = expected.iter().map(|(_, text)| text).collect();
    compare(&texts, lines).map_err(|at| expected[at].clone())
}

#[cfg(test)]
mod tests {
    use super::with_prefix;

    #[test]
    fn a_topology_gets_a_prefix_of_the_sandboxs() {
        assert_eq!(with_prefix("name: a\n", "nt1").as_deref(), Some("name: a\nprefix: nt1\n"));
        assert_eq!(
            with_prefix("prefix: \"x\"\nname: a\n", "nt1").as_deref(),
            Some("prefix: nt1-x\nname: a\n")
        );
        assert_eq!(with_prefix("name: a\nprefix: nt1\n", "nt1"), None);
        assert_eq!(with_prefix("prefix: nt1-x\nname: a\n", "nt1"), None);
    }
}
