//! A node's exec and stage commands run once for each start of it, at the points that the scheduler tells. A marker in `<run dir>/exec/<uid>.<start>` is written before and after each
//! command, so that a restart of this service neither runs one twice nor leaves the rest out. The run directory is emptied at boot, which ends every start too. After the `exec` commands
//! a node is asked whether it is ready, when its kind says how; that is in the marker as well. A virtual machine is asked before them: it takes no command before it has booted, nor the configuration
//! that its kind has typed at its console. What is typed waits until no person types there.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use netloom_model::id::NodeUid;
use netloom_model::slice::Instance;
use netloom_model::words;
use netloom_service::{Shutdown, fail_point};

use crate::driver::{Command, Driver, Output};
use crate::error::Error;
use crate::exec_state::{Due, ExecState, LONGEST_ERROR};
use crate::readiness::{self, Asking};
use crate::table::{ExecJob, Table};

/// So long a person who types at a console is waited for: then what was to be typed fails, and says so.
const CONSOLE_WITHIN: Duration = Duration::from_secs(600);
/// How often it is looked whether a console is free.
const CONSOLE_LOOK: Duration = Duration::from_millis(250);

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
        match serde_json::from_str::<ExecState>(&text) {
            Ok(state) => state.resumed(start_id),
            Err(_) => ExecState::waiting(start_id),
        }
    }

    /// Writes how far they are.
    pub fn mark(&self, uid: NodeUid, state: &ExecState) {
        let path = self.path(uid, &state.start_id);
        let draft = path.with_extension(format!("{}-new", state.start_id));
        let text = serde_json::to_vec(state).expect("a marker always serialises");
        fail_point::pass("compute.mark", "before");
        if let Err(error) = std::fs::write(&draft, text).and_then(|()| std::fs::rename(&draft, &path)) {
            tracing::warn!(%error, path = %path.display(), "an exec marker cannot be written; after a restart of this service commands may run again");
        }
        fail_point::pass("compute.mark", "after");
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

    /// Does what is due, one after the other, until nothing is; a command that fails does not keep the next from running. A new command is run between two questions whether the
    /// node is ready; these end with this service, and the next one goes on asking.
    pub async fn run(&self, job: &ExecJob, driver: &dyn Driver, table: &Table, shutdown: &Shutdown) {
        let start = job.start_id.as_str();
        let mut asking: Option<Asking> = None;
        loop {
            let now = jiff::Timestamp::now();
            let begun = table.command_begins(job.uid, start, now.as_microsecond(), |due| told(due, now));
            let Some((due, state)) = begun else { return };
            let doing = state.progress.clone();
            let state = match due {
                Due::Command { command, .. } => {
                    // Before it is marked: what was never begun is not taken for interrupted.
                    if !console_free(job, driver, table, shutdown, doing).await {
                        return;
                    }
                    self.mark(job.uid, &state);
                    let argv = words::split(&command).map_err(|e| format!("cannot be split into words: {e}"));
                    let outcome = match argv {
                        Ok(argv) => one(driver, job, argv).await,
                        Err(why) => Err(why),
                    };
                    let failed = match outcome {
                        Ok(()) => {
                            tracing::info!(command, "command ran");
                            String::new()
                        }
                        Err(why) => {
                            tracing::warn!(command, error = why, "command failed");
                            // On one line, since the first is what is told where there is room for no more.
                            tail(format!("\"{}\" {why}", command.replace(['\n', '\r'], " ")))
                        }
                    };
                    table.command_ended(job.uid, start, failed)
                }
                Due::Ready { readiness, since_us } => {
                    if asking.as_ref().is_none_or(|a| !a.is_of(&readiness)) {
                        self.mark(job.uid, &state);
                        asking = None;
                    }
                    let asking =
                        asking.get_or_insert_with(|| Asking::new(readiness, since_us, job.started_us));
                    let answer = tokio::select! {
                        () = shutdown.cancelled() => return,
                        answer = asking.ask(driver, job) => answer,
                    };
                    let Some(mut answer) = answer else { continue };
                    if answer.is_ok() {
                        if !console_free(job, driver, table, shutdown, doing).await {
                            return;
                        }
                        let typing = driver.configure(&job.id, &job.instance);
                        let bound = typing_time(&job.instance, asking.bound());
                        answer = configured(bound, typing).await.map_err(|e| e.to_string());
                    }
                    match &answer {
                        Ok(()) => tracing::info!("it is ready"),
                        Err(why) => tracing::warn!(error = why, "it is not ready"),
                    }
                    table.ready_known(job.uid, start, answer.map_err(tail))
                }
            };
            match state {
                Some(state) => self.mark(job.uid, &state),
                // It was started anew, or has ended, meanwhile.
                None => return self.forget(job.uid, start),
            }
        }
    }
}

/// Waits until no person types at its console, as long as that is waited for. False: the start is over, or this service; there is nothing more to do.
async fn console_free(
    job: &ExecJob,
    driver: &dyn Driver,
    table: &Table,
    shutdown: &Shutdown,
    then: String,
) -> bool {
    if !driver.console_held(&job.id) {
        return true;
    }
    tracing::info!("waits for its console, where a person types");
    if !table.command_waits(job.uid, &job.start_id, HELD.to_owned()) {
        return false;
    }
    let free = async {
        while driver.console_held(&job.id) {
            tokio::time::sleep(CONSOLE_LOOK).await;
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => return false,
        // One that is held still refuses what is to be typed, and says why.
        _ = tokio::time::timeout(CONSOLE_WITHIN, free) => {}
    }
    table.command_waits(job.uid, &job.start_id, then)
}

/// What is said while a console is waited for.
const HELD: &str = "waits for its console, where somebody types (netloom console): its configuration and its commands are typed there when it is left";

/// So long its configuration may take to be typed: the time of its kind, and a second for each 50 bytes, several times what a line at a prompt takes.
fn typing_time(instance: &Instance, of_kind: Duration) -> Duration {
    let file = instance.files.iter().find(|file| file.path == instance.spec.startup_config);
    of_kind + Duration::from_secs(file.map_or(0, |file| file.size_bytes / 50))
}

/// A configuration that is typed has this time: one that never ends would hold the console for ever.
async fn configured(bound: Duration, typing: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    tokio::time::timeout(bound, typing).await.unwrap_or_else(|_| {
        Err(Error::ConsoleFailed(format!(
            "it did not take its startup configuration within {} s, which was broken off: look at the console, with netloom console or netloom logs, and start the node again (netloom node restart)",
            bound.as_secs()
        )))
    })
}

/// Runs one command; `Err` says how it failed.
pub(crate) async fn one(driver: &dyn Driver, job: &ExecJob, argv: Vec<String>) -> Result<(), String> {
    let command = Command { argv, tty: false, stdin: false, size: None };
    let session = driver.exec(&job.id, Some(&job.instance), command).await;
    let mut session = session.map_err(|e| format!("was not run: {e}"))?;
    let mut output = Vec::new();
    while let Some(part) = session.output.next().await {
        match part.map_err(|e| format!("was cut off: {e}"))? {
            Output::Stdout(bytes) | Output::Stderr(bytes) => keep_tail(&mut output, &bytes),
            Output::Exit(0) => return Ok(()),
            Output::Exit(code) => {
                return Err(exited(code, &String::from_utf8_lossy(&output)));
            }
            Output::NotStarted(not) => return Err(format!("was not run: {}", not.why)),
        }
    }
    Err("was cut off".to_owned())
}

fn exited(code: i32, output: &str) -> String {
    match output.trim() {
        "" => format!("exited with {code}"),
        output => format!("exited with {code}: {output}"),
    }
}

/// What is said while something is done.
fn told(due: &Due, now: jiff::Timestamp) -> String {
    match due {
        Due::Command { command, .. } => running(command, now),
        Due::Ready { readiness, .. } => readiness::waiting(readiness),
    }
}

/// What is said while a command runs: one that never ends is then found by its name.
fn running(command: &str, since: jiff::Timestamp) -> String {
    format!("runs its exec command \"{}\" since {since:.0}", shown(command))
}

/// The beginning of a command.
pub(crate) fn shown(command: &str) -> String {
    const LONGEST: usize = 120;
    match command.len() {
        0..=LONGEST => command.to_owned(),
        _ => format!("{}…", &command[..command.floor_char_boundary(LONGEST)]),
    }
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
    use crate::exec_state::{Asked, EXEC};
    use netloom_model::observed::ExecPhase;
    use netloom_model::spec::NodeSpec;

    #[test]
    fn markers_tell_what_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let runs = ExecRuns::open(dir.path().join("exec")).unwrap();
        let (uid, other) = (NodeUid::new(), NodeUid::new());
        let none = NodeSpec::default();
        let asked = Asked { spec: &none, readiness: None, boots: false };
        let phase = |uid, start| runs.load(uid, start).phase(Some(asked));
        assert_eq!(phase(uid, "7"), ExecPhase::Waiting);
        for (uid, start) in [(uid, "7"), (uid, "8"), (other, "9")] {
            let mut state = ExecState::waiting(start);
            state.reach(start, &[EXEC]);
            state.advance(asked);
            runs.mark(uid, &state);
        }
        assert_eq!(phase(uid, "7"), ExecPhase::Done);
        runs.keep(&BTreeSet::from([(uid, "8".to_owned()), (other, "9".to_owned())]));
        assert_eq!((phase(uid, "7"), phase(uid, "8")), (ExecPhase::Waiting, ExecPhase::Done));
        runs.forget_node(uid);
        assert_eq!((phase(uid, "8"), phase(other, "9")), (ExecPhase::Waiting, ExecPhase::Done));
    }

    #[tokio::test]
    async fn a_configuration_that_never_ends_is_broken_off_and_told() {
        let late = configured(Duration::ZERO, std::future::pending()).await.unwrap_err();
        assert!(matches!(&late, Error::ConsoleFailed(why) if why.contains("within 0 s")), "{late}");
        assert!(configured(Duration::from_secs(60), async { Ok(()) }).await.is_ok());
    }

    #[test]
    fn what_runs_is_named_with_its_begin() {
        let since = "2026-01-02T03:04:05.6Z".parse().unwrap();
        assert_eq!(running("ping x", since), "runs its exec command \"ping x\" since 2026-01-02T03:04:05Z");
        assert!(running(&"ä".repeat(900), since).len() < 300);
    }

    #[test]
    fn a_command_that_said_nothing_leaves_no_colon_behind() {
        assert_eq!(exited(1, " \n"), "exited with 1");
        assert_eq!(exited(2, "\nno such file\n"), "exited with 2: no such file");
    }

    #[test]
    fn a_long_error_keeps_both_ends() {
        let text = tail(format!("\"cmd\" {}end", "ä".repeat(9000)));
        assert!(text.len() <= LONGEST_ERROR, "{}", text.len());
        assert!(text.starts_with("\"cmd\"") && text.ends_with("end"));
        assert_eq!(tail("short".into()), "short");
    }
}
