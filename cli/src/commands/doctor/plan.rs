//! What a fix does, as data: edits of files and commands. Pure: what a file holds comes in, what it is to hold goes out.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::lvm;

/// First line of files that are made.
const HEADER: &str = "# Written by netloom doctor --fix.\n";

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A file is edited, or made.
    Edit {
        /// Which.
        path: PathBuf,
        /// How.
        edit: Edit,
    },
    /// A command is run.
    Run(Command),
}

/// A command, and what takes back what it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The command.
    pub words: Vec<String>,
    /// What takes it back once files are as they were; none when nothing does.
    pub undo: Option<Vec<String>>,
}

/// How a file is edited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// The line that sets `key` becomes `line`; one is added where there is none.
    Line {
        /// What the line begins with.
        key: String,
        /// The whole line.
        line: String,
    },
    /// LVM's filter, see [`lvm::mend`].
    LvmFilter,
}

/// A change as it comes out for the files as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A file is written.
    Write {
        /// Which.
        path: PathBuf,
        /// What it holds; none when it does not exist.
        before: Option<String>,
        /// What it is to hold.
        after: String,
    },
    /// A command is run.
    Run(Command),
}

/// A command of which what it did stays.
pub fn run(words: &[&str]) -> Change {
    Change::Run(Command { words: owned(words), undo: None })
}

/// A command that another one takes back.
pub fn run_undone_by(words: &[&str], undo: &[&str]) -> Change {
    Change::Run(Command { words: owned(words), undo: Some(owned(undo)) })
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

/// A line of a file; `key` is what the line begins with.
pub fn line(path: &str, key: &str, line: &str) -> Change {
    Change::Edit { path: path.into(), edit: Edit::Line { key: key.to_owned(), line: line.to_owned() } }
}

/// What the changes come to. Reads a file once by `read`, and remembers in `files` what it is to hold, for changes that come after.
pub fn steps(
    changes: &[Change],
    files: &mut BTreeMap<PathBuf, Option<String>>,
    read: impl Fn(&Path) -> io::Result<Option<String>>,
) -> io::Result<Vec<Step>> {
    let mut steps = Vec::new();
    for change in changes {
        match change {
            Change::Run(command) => steps.push(Step::Run(command.clone())),
            Change::Edit { path, edit } => {
                let before = match files.get(path) {
                    Some(known) => known.clone(),
                    None => read(path)?,
                };
                let after = edit.apply(before.as_deref());
                files.insert(path.clone(), Some(after.clone()));
                if before.as_deref() != Some(after.as_str()) {
                    steps.push(Step::Write { path: path.clone(), before, after });
                }
            }
        }
    }
    Ok(steps)
}

impl Edit {
    fn apply(&self, before: Option<&str>) -> String {
        match self {
            Edit::LvmFilter => lvm::mend(before.unwrap_or_default()),
            Edit::Line { key, line } => set_line(before.unwrap_or(HEADER), key, line),
        }
    }
}

fn set_line(before: &str, key: &str, line: &str) -> String {
    let sets = |text: &str| {
        let rest = text.trim_start().strip_prefix(key);
        rest.is_some_and(|r| r.is_empty() || r.starts_with(|c: char| c.is_whitespace() || "=,".contains(c)))
    };
    let mut lines: Vec<&str> = before.lines().collect();
    // The last of several lines counts.
    match lines.iter().rposition(|l| sets(l)) {
        Some(at) => lines[at] = line,
        None => lines.push(line),
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_set_where_it_was_else_added_and_a_second_time_changes_nothing() {
        let edit = Edit::Line { key: "a.b".into(), line: "a.b = 2".into() };
        assert_eq!(edit.apply(None), format!("{HEADER}a.b = 2\n"));
        assert_eq!(
            edit.apply(Some("x = 1\na.b=1\n# a.b = 0\na.bc = 1\n")),
            "x = 1\na.b = 2\n# a.b = 0\na.bc = 1\n"
        );
        assert_eq!(edit.apply(Some("x = 1")), "x = 1\na.b = 2\n");
        for text in ["", "x = 1\n", "a.b = 3\na.b = 1"] {
            let once = edit.apply(Some(text));
            assert_eq!(edit.apply(Some(&once)), once);
        }
    }

    #[test]
    fn changes_of_one_file_build_on_each_other_and_what_is_right_is_no_step() {
        let changes = [line("/f", "a", "a = 1"), run(&["true"]), line("/f", "b", "b = 2")];
        let mut files = BTreeMap::new();
        let made = steps(&changes, &mut files, |_| Ok(Some("a = 1\n".to_owned()))).unwrap();
        let expected = [
            Step::Run(Command { words: vec!["true".to_owned()], undo: None }),
            Step::Write { path: "/f".into(), before: Some("a = 1\n".into()), after: "a = 1\nb = 2\n".into() },
        ];
        assert_eq!(made, expected);
        assert!(steps(&changes, &mut BTreeMap::new(), |_| Err(io::Error::other("no"))).is_err());
    }
}
