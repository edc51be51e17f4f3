//! Carries a fix out: files with a backup, commands to their end. The check that found the fault then has to say that it is gone; when it does not, the files are put back.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::finding::{Check, Status};
use super::plan::{self, Step};
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

/// A file that was written, to be put back.
struct Written {
    path: PathBuf,
    before: Option<String>,
    backed_up: bool,
}

/// Carries out what the finding plans; `again` makes the same check.
pub async fn fix(found: &Check, backups: &mut Backups, again: impl AsyncFnOnce() -> Check) -> (Fixed, Check) {
    let mut written = Vec::new();
    let (steps, outcome) = match plan::steps(&found.plan, &mut BTreeMap::new(), read) {
        Ok(steps) => {
            let outcome = carry_out(&steps, backups, &mut written).await;
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
    let failed = failed.map(|why| match put_back(written, backups) {
        Ok(0) => why,
        Ok(_) => format!("{why}; the files are as they were"),
        Err(e) => format!("{why}; a file could not be put back: {e}"),
    });
    (Fixed { name: found.name.clone(), steps, failed }, after)
}

/// The fault is gone, or smaller.
fn took(before: &Check, after: &Check) -> bool {
    after.status == Status::Ok || after.status < before.status
}

async fn carry_out(steps: &[Step], backups: &mut Backups, written: &mut Vec<Written>) -> io::Result<()> {
    for step in steps {
        match step {
            Step::Write { path, before, after } => {
                let named = |e: io::Error| {
                    io::Error::new(e.kind(), format!("{} cannot be written: {e}", path.display()))
                };
                let backed_up = before.is_some() && backups.take(path).map_err(named)?;
                written.push(Written { path: path.clone(), before: before.clone(), backed_up });
                path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(named)?;
                atomic::write(path, after.as_bytes()).map_err(named)?;
            }
            Step::Run(command) => {
                let (program, arguments) = command.split_first().expect("a command has a name");
                let said = Tool::new(program).run(arguments).await?;
                if !said.ok() {
                    return Err(io::Error::other(format!("{}: {}", command.join(" "), said.why())));
                }
            }
        }
    }
    Ok(())
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
    use crate::commands::doctor::plan::{Change, line, run};

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

    #[test]
    fn a_fault_that_got_smaller_counts_as_mended() {
        let [bad, less] = [fail("x", "", "y"), warn("x", "", "y")];
        assert!(took(&bad, &less) && !took(&less, &bad) && !took(&less, &less));
    }
}
