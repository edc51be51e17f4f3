//! A node's exec commands run once for each start of it, after its links. A marker in `<run dir>/exec/<uid>.<start>` is written before and after each command, so that a restart of
//! this service neither runs one twice nor leaves the rest out. The run directory is emptied at boot, which ends every start too.

use std::collections::BTreeSet;
use std::path::PathBuf;

use bytes::Bytes;
use futures::StreamExt as _;
use netloom_model::id::NodeUid;
use netloom_model::observed::ExecPhase;
use serde::{Deserialize, Serialize};

use crate::driver::{Command, Driver, Output};
use crate::error::Error;
use crate::table::{ExecJob, Table};
use netloom_model::words;

/// Most bytes that are told of what failed.
const LONGEST_ERROR: usize = 4096;

/// How far the commands of a start are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecState {
    /// Which start.
    pub start_id: String,
    /// How far.
    pub phase: ExecPhase,
    /// What failed first.
    pub error: String,
    /// Which command runs, and since when.
    pub progress: String,
    /// The first command that was not begun.
    pub from: usize,
    due: bool,
}

impl ExecState {
    fn waiting(start_id: &str) -> ExecState {
        ExecState { start_id: start_id.to_owned(), phase: ExecPhase::Waiting, ..ExecState::default() }
    }

    /// The links of a start are settled: its commands are due. False when that is known, or it is another start.
    pub fn settle(&mut self, start_id: &str) -> bool {
        let first = self.start_id == start_id && self.phase == ExecPhase::Waiting;
        if first {
            self.phase = ExecPhase::Running;
            self.due = true;
        }
        first
    }

    /// True once when the commands are due.
    pub fn take_due(&mut self) -> bool {
        std::mem::take(&mut self.due)
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Marker {
    /// How many commands were begun.
    begun: usize,
    /// How many of them ended.
    ended: usize,
    /// None follows.
    complete: bool,
    /// What failed first.
    error: String,
}

impl Marker {
    fn state(self, start_id: &str) -> ExecState {
        let mut state = ExecState { from: self.begun, error: self.error, ..ExecState::waiting(start_id) };
        if self.complete {
            state.phase = if state.error.is_empty() { ExecPhase::Done } else { ExecPhase::Failed };
            return state;
        }
        if self.ended < self.begun && state.error.is_empty() {
            state.error =
                format!("command {} was interrupted: netloom's compute service was restarted", self.begun);
        }
        state.phase = ExecPhase::Running;
        state.due = true;
        state
    }
}

/// The markers.
pub struct ExecRuns {
    dir: PathBuf,
}

impl ExecRuns {
    /// In this directory.
    pub fn open(dir: PathBuf) -> Result<ExecRuns, Error> {
        std::fs::create_dir_all(&dir)
            .map_err(|e| Error::host(format!("cannot make {}", dir.display()), e))?;
        Ok(ExecRuns { dir })
    }

    fn path(&self, uid: NodeUid, start_id: &str) -> PathBuf {
        self.dir.join(format!("{uid}.{start_id}"))
    }

    /// How far the commands of a start are.
    pub fn load(&self, uid: NodeUid, start_id: &str) -> ExecState {
        let text = std::fs::read_to_string(self.path(uid, start_id)).unwrap_or_default();
        match serde_json::from_str::<Marker>(&text) {
            Ok(marker) => marker.state(start_id),
            Err(_) => ExecState::waiting(start_id),
        }
    }

    fn mark(&self, uid: NodeUid, start_id: &str, marker: &Marker) {
        let path = self.path(uid, start_id);
        let draft = path.with_extension(format!("{start_id}-new"));
        let text = serde_json::to_vec(marker).expect("a marker always serialises");
        if let Err(error) = std::fs::write(&draft, text).and_then(|()| std::fs::rename(&draft, &path)) {
            tracing::warn!(%error, path = %path.display(), "an exec marker cannot be written; after a restart of this service commands may run again");
        }
    }

    /// Drops the markers of all starts but these.
    pub fn keep(&self, running: &BTreeSet<(NodeUid, String)>) {
        let names: BTreeSet<String> = running.iter().map(|(uid, start)| format!("{uid}.{start}")).collect();
        self.drop_where(|name| !names.contains(name));
    }

    /// Drops the marker of a start that ended.
    pub fn forget(&self, uid: NodeUid, start_id: &str) {
        let _ = std::fs::remove_file(self.path(uid, start_id));
    }

    /// Drops what there is of a node.
    pub fn forget_node(&self, uid: NodeUid) {
        let prefix = format!("{uid}.");
        self.drop_where(|name| name.starts_with(&prefix));
    }

    fn drop_where(&self, drop: impl Fn(&str) -> bool) {
        for entry in std::fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(&drop) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// Runs what is due, one after the other; a command that fails does not keep the next from running.
    pub async fn run(&self, job: ExecJob, driver: &dyn Driver, table: &Table) {
        let (uid, start) = (job.instance.uid, job.start_id.as_str());
        let commands = &job.instance.spec.exec;
        let mut marker =
            Marker { begun: job.from, ended: job.from, complete: false, error: job.error.clone() };
        let went = |phase, progress: &str, error: &str| table.exec_went(uid, start, phase, progress, error);
        for (index, command) in commands.iter().enumerate().skip(job.from) {
            marker.begun = index + 1;
            self.mark(uid, start, &marker);
            went(ExecPhase::Running, &running(command, jiff::Timestamp::now()), &marker.error);
            let outcome = one(driver, &job.id, command).await;
            marker.ended = index + 1;
            match outcome {
                Ok(()) => tracing::info!(command, "exec command ran"),
                Err(why) => {
                    tracing::warn!(command, error = why, "exec command failed");
                    if marker.error.is_empty() {
                        marker.error = tail(format!("\"{command}\" {why}"));
                    }
                }
            }
            self.mark(uid, start, &marker);
        }
        marker.complete = true;
        self.mark(uid, start, &marker);
        let phase = if marker.error.is_empty() { ExecPhase::Done } else { ExecPhase::Failed };
        went(phase, "", &marker.error);
        if !table.running().contains(&(uid, job.start_id.clone())) {
            self.forget(uid, start);
        }
    }
}

/// Runs one command; `Err` says how it failed.
async fn one(driver: &dyn Driver, id: &str, command: &str) -> Result<(), String> {
    let argv = words::split(command).map_err(|e| format!("cannot be split into words: {e}"))?;
    let command = Command { argv, tty: false, stdin: false, size: None };
    let mut session = driver.exec(id, command).await.map_err(|e| format!("was not run: {e}"))?;
    let mut output = Vec::new();
    while let Some(part) = session.output.next().await {
        match part.map_err(|e| format!("was cut off: {e}"))? {
            Output::Stdout(bytes) | Output::Stderr(bytes) => keep_tail(&mut output, &bytes),
            Output::Exit(0) => return Ok(()),
            Output::Exit(code) => {
                return Err(format!("exited with {code}: {}", String::from_utf8_lossy(&output).trim_end()));
            }
        }
    }
    Err("was cut off".to_owned())
}

/// What is said while a command runs: one that never ends is then found by its name.
fn running(command: &str, since: jiff::Timestamp) -> String {
    const LONGEST: usize = 120;
    let shown = match command.len() {
        0..=LONGEST => command.to_owned(),
        _ => format!("{}…", &command[..command.floor_char_boundary(LONGEST)]),
    };
    format!("runs its exec command \"{shown}\" since {since:.0}")
}

fn keep_tail(output: &mut Vec<u8>, bytes: &Bytes) {
    output.extend_from_slice(bytes);
    if output.len() > 2 * LONGEST_ERROR {
        output.drain(..output.len() - LONGEST_ERROR);
    }
}

/// What fits of a text: its beginning names the command, its end says what went wrong.
fn tail(text: String) -> String {
    if text.len() <= LONGEST_ERROR {
        return text;
    }
    const HEAD: usize = 512;
    const GAP: &str = " … ";
    let head = text.floor_char_boundary(HEAD);
    let end = text.ceil_char_boundary(text.len() - (LONGEST_ERROR - HEAD - GAP.len()));
    format!("{}{GAP}{}", &text[..head], &text[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_settled_once() {
        let mut state = ExecState::waiting("7");
        assert!(!state.settle("6"));
        assert!(!state.take_due());
        assert!(state.settle("7"));
        assert!(state.take_due());
        assert!(!state.take_due());
        assert!(!state.settle("7"));
    }

    #[test]
    fn markers_tell_what_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let runs = ExecRuns::open(dir.path().join("exec")).unwrap();
        let (uid, other) = (NodeUid::new(), NodeUid::new());
        assert_eq!(runs.load(uid, "7").phase, ExecPhase::Waiting);

        runs.mark(uid, "7", &Marker { begun: 2, ended: 1, ..Marker::default() });
        let mut cut = runs.load(uid, "7");
        assert_eq!((cut.phase, cut.from), (ExecPhase::Running, 2));
        assert!(cut.error.contains("interrupted"), "{}", cut.error);
        assert!(cut.take_due(), "the rest is due without being settled again");

        runs.mark(uid, "7", &Marker { begun: 3, ended: 3, complete: true, ..Marker::default() });
        let mut done = runs.load(uid, "7");
        assert_eq!(done.phase, ExecPhase::Done);
        assert!(!done.take_due());

        runs.mark(uid, "8", &Marker { complete: true, error: "x".into(), ..Marker::default() });
        runs.mark(other, "9", &Marker::default());
        assert_eq!(runs.load(uid, "8").phase, ExecPhase::Failed);
        runs.keep(&BTreeSet::from([(uid, "8".to_owned()), (other, "9".to_owned())]));
        assert_eq!(runs.load(uid, "7").phase, ExecPhase::Waiting);
        runs.forget_node(uid);
        assert_eq!(runs.load(uid, "8").phase, ExecPhase::Waiting);
        assert_eq!(runs.load(other, "9").phase, ExecPhase::Running);
    }

    #[test]
    fn what_runs_is_named_with_its_begin() {
        let since = "2026-01-02T03:04:05.6Z".parse().unwrap();
        assert_eq!(running("ping x", since), "runs its exec command \"ping x\" since 2026-01-02T03:04:05Z");
        assert!(running(&"ä".repeat(900), since).len() < 300);
    }

    #[test]
    fn a_long_error_keeps_both_ends() {
        let text = tail(format!("\"cmd\" {}end", "ä".repeat(9000)));
        assert!(text.len() <= LONGEST_ERROR, "{}", text.len());
        assert!(text.starts_with("\"cmd\"") && text.ends_with("end"));
        assert_eq!(tail("short".into()), "short");
    }
}
