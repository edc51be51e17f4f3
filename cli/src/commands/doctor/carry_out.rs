//! Carries a fix out: files with a backup, commands to their end. The check that found the fault then has to say that it is gone; when it does not, files are put back, and then
//! what commands did is taken back by the commands that do that. What nothing takes back is named.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::finding::{Check, Status};
use super::plan::{self, Command, Step};
use super::tool::Tool;
use crate::atomic;

/// What was done about a finding.
#[derive(Debug)]
pub struct Fixed {
    /// The check.
    pub name: String,
    /// What was changed.
    pub steps: Vec<Step>,
    /// Why it did not take; none when it did.
    pub failed: Option<String>,
}

/// Copies of files as they were before this run, by file.
#[derive(Debug, Default)]
pub struct Backups {
    taken: BTreeMap<PathBuf, PathBuf>,
}

impl Backups {
    /// The copies, each beside its file.
    pub fn taken(&self) -> &BTreeMap<PathBuf, PathBuf> {
        &self.taken
    }

    /// Makes one unless this run has made it; true when it did.
    fn take(&mut self, path: &Path) -> io::Result<bool> {
        if self.taken.contains_key(path) {
            return Ok(false);
        }
        let mut name = path.as_os_str().to_owned();
        name.push(jiff::Timestamp::now().strftime(".netloom-%Y%m%dT%H%M%SZ").to_string());
        let backup = PathBuf::from(name);
        if backup.exists() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{} is there", backup.display()),
            ));
        }
        std::fs::copy(path, &backup)?;
        self.taken.insert(path.to_owned(), backup);
        Ok(true)
    }

    fn forget(&mut self, path: &Path) -> io::Result<()> {
        self.taken.remove(path).map_or(Ok(()), std::fs::remove_file)
    }
}

/// What a file holds; none when it does not exist.
pub fn read(path: &Path) -> io::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io::Error::new(e.kind(), format!("{}: {e}", path.display()))),
    }
}

/// What was done, to be taken back.
#[derive(Default)]
struct Done {
    files: Vec<Written>,
    commands: Vec<Command>,
}

/// A file that was written.
struct Written {
    path: PathBuf,
    before: Option<String>,
    backed_up: bool,
}

/// Carries out what the finding plans; `again` makes the same check.
pub async fn fix(found: &Check, backups: &mut Backups, again: impl AsyncFnOnce() -> Check) -> (Fixed, Check) {
    let mut done = Done::default();
    let (steps, outcome) = match plan::steps(&found.plan, &mut BTreeMap::new(), read) {
        Ok(steps) => {
            let outcome = carry_out(&steps, backups, &mut done).await;
            (steps, outcome)
        }
        Err(e) => (Vec::new(), Err(e)),
    };
    let after = again().await;
    let failed = match outcome {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Some(format!("{e}: run it with sudo")),
        Err(e) => Some(e.to_string()),
        Ok(()) if took(found, &after) => None,
        Ok(()) => Some(format!("it was carried out and has no effect: {}", after.evidence)),
    };
    let failed = match failed {
        Some(why) => Some([vec![why], take_back(done, backups).await].concat().join("; ")),
        None => None,
    };
    (Fixed { name: found.name.clone(), steps, failed }, after)
}

/// The fault is gone, or smaller.
pub fn took(before: &Check, after: &Check) -> bool {
    after.status == Status::Ok || after.status < before.status
}

async fn carry_out(steps: &[Step], backups: &mut Backups, done: &mut Done) -> io::Result<()> {
    for step in steps {
        match step {
            Step::Write { path, before, after } => {
                let named = |e: io::Error| {
                    io::Error::new(e.kind(), format!("{} cannot be written: {e}", path.display()))
                };
                let backed_up = before.is_some() && backups.take(path).map_err(named)?;
                done.files.push(Written { path: path.clone(), before: before.clone(), backed_up });
                path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(named)?;
                atomic::write(path, after.as_bytes()).map_err(named)?;
            }
            Step::Run(command) => {
                run(&command.words).await?;
                done.commands.push(command.clone());
            }
        }
    }
    Ok(())
}

async fn run(command: &[String]) -> io::Result<()> {
    let (program, arguments) = command.split_first().expect("a command has a name");
    let said = Tool::new(program).run(arguments).await?;
    match said.ok() {
        true => Ok(()),
        false => Err(io::Error::other(format!("{}: {}", command.join(" "), said.why()))),
    }
}

/// Takes everything back, the last first, files before commands: what a command reads is then as it was. Says what is as it was and what is not.
async fn take_back(done: Done, backups: &mut Backups) -> Vec<String> {
    let mut told = Vec::new();
    match put_back(done.files, backups) {
        Ok(0) => {}
        Ok(_) => told.push("the files are as they were".to_owned()),
        Err(e) => told.push(format!("a file could not be put back: {e}")),
    }
    for Command { words, undo } in done.commands.into_iter().rev() {
        let words = words.join(" ");
        match undo {
            None => told.push(format!("what `{words}` did stays")),
            Some(undo) => match run(&undo).await {
                Ok(()) => told.push(format!("`{words}` was taken back by `{}`", undo.join(" "))),
                Err(e) => {
                    told.push(format!("what `{words}` did stays, since it could not be taken back: {e}"))
                }
            },
        }
    }
    told
}

/// Puts files back as they were, the last first; how many.
fn put_back(written: Vec<Written>, backups: &mut Backups) -> io::Result<usize> {
    let count = written.len();
    for Written { path, before, backed_up } in written.into_iter().rev() {
        match before {
            Some(before) => atomic::write(&path, before.as_bytes())?,
            None => match std::fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            },
        }
        if backed_up {
            backups.forget(&path)?;
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::finding::{fail, ok, warn};
    use crate::commands::doctor::plan::{Change, line, run, run_undone_by};

    fn found(dir: &Path, more: Option<Change>) -> Check {
        let mut plan = vec![
            line(dir.join("old").to_str().unwrap(), "a", "a = 2"),
            line(dir.join("sub/new").to_str().unwrap(), "b", "b = 1"),
        ];
        plan.extend(more);
        warn("x", "wrong", "mend it").with(plan)
    }

    fn tree(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
            .filter(|n| n != "sub")
            .collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_fix_that_takes_keeps_a_backup() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("old"), "a = 1\n").unwrap();
        let mut backups = Backups::default();
        let (fixed, after) = fix(&found(dir.path(), None), &mut backups, async || ok("x", "right")).await;
        assert_eq!((fixed.failed, fixed.steps.len(), after.status), (None, 2, Status::Ok));
        assert_eq!(read(&dir.path().join("old")).unwrap().unwrap(), "a = 2\n");
        let backup = &backups.taken()[&dir.path().join("old")];
        assert_eq!(read(backup).unwrap().unwrap(), "a = 1\n");
        assert_eq!(backups.taken().len(), 1, "a file that was made has none");
    }

    #[tokio::test]
    async fn a_fix_that_does_not_take_is_told_and_put_back() {
        for (more, expected) in [
            (None, "has no effect: still wrong; the files are as they were"),
            (Some(run(&["false"])), "false: exit code 1; the files are as they were"),
            (Some(run(&["netloom-no-such-program"])), "netloom-no-such-program cannot be run"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("old"), "a = 1\n").unwrap();
            let mut backups = Backups::default();
            let again = async || warn("x", "still wrong", "mend it");
            let (fixed, _) = fix(&found(dir.path(), more), &mut backups, again).await;
            let why = fixed.failed.unwrap();
            assert!(why.contains(expected), "{why}");
            assert_eq!(tree(dir.path()), ["old"]);
            assert_eq!(tree(&dir.path().join("sub")), Vec::<String>::new());
            assert_eq!(read(&dir.path().join("old")).unwrap().unwrap(), "a = 1\n");
            assert!(backups.taken().is_empty());
        }
    }

    /// What a command had done stayed done without a word.
    #[tokio::test]
    async fn what_commands_did_is_taken_back_after_the_files_or_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("old"), "a = 1\n").unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        // Taking back finds the file as it was: it copies it.
        let more = run_undone_by(&["touch", &at("made")], &["mv", &at("old"), &at("made")]);
        let mut plan = found(dir.path(), Some(more)).plan;
        plan.extend([run(&["true"]), run_undone_by(&["true"], &["false"])]);
        let check = warn("x", "wrong", "mend it").with(plan);
        let (fixed, _) =
            fix(&check, &mut Backups::default(), async || warn("x", "still wrong", "mend it")).await;
        let why = fixed.failed.unwrap();
        let expected = format!(
            "the files are as they were; what `true` did stays, since it could not be taken back: false: exit code 1; what `true` did stays; \
             `touch {}` was taken back by `mv {} {}`",
            at("made"),
            at("old"),
            at("made")
        );
        assert!(why.ends_with(&expected), "{why}");
        assert_eq!(read(&dir.path().join("made")).unwrap().unwrap(), "a = 1\n");
    }

    #[test]
    fn a_fault_that_got_smaller_counts_as_mended() {
        let [bad, less] = [fail("x", "", "y"), warn("x", "", "y")];
        assert!(took(&bad, &less) && !took(&less, &bad) && !took(&less, &less));
    }
}
