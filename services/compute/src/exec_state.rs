//! How far the commands of a start are: which points of it were reached, which commands ran, and which is next; and whether the node is ready, which is asked after its `exec`. Pure.
//!
//! What goes on from a memory in which all was run runs none of it again.
//!
//! A command is known by its point and text. So a changed list runs what is new in it on the running node, and what ran in this start is not run again; a text that stands twice runs twice.

use std::collections::HashMap;

use netloom_model::observed::{ExecPhase, StagePoint};
use netloom_model::slice::{Instance, Readiness};
use netloom_model::spec::{NodeSpec, Stage};
use netloom_model::state::Runtime;
use serde::{Deserialize, Serialize};

/// Most bytes that are told of a command that failed, and of all that did.
pub const LONGEST_ERROR: usize = 4096;
/// Where a node's `exec` commands are run.
pub const EXEC: StagePoint = StagePoint { stage: Stage::Configure, on_exit: false };

/// See the module. What is written of it lets a restarted service go on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecState {
    /// Which start.
    #[serde(skip)]
    pub start_id: String,
    /// Points that were reached, in order.
    reached: Vec<StagePoint>,
    /// Points whose commands were all run, in order.
    pub done: Vec<StagePoint>,
    /// Commands that were begun, in order.
    ran: Vec<Ran>,
    /// Whether it is ready; none as long as that is not due, and where it is not asked.
    ready: Option<Ready>,
    /// All that is asked for now was run before.
    #[serde(skip)]
    prepared: bool,
    /// Which command runs, and since when.
    #[serde(skip)]
    pub progress: String,
    /// Its commands are being run.
    #[serde(skip)]
    busy: bool,
    /// There may be something to run.
    #[serde(skip)]
    unsure: bool,
}

/// A command that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Ran {
    point: StagePoint,
    command: String,
    /// How it failed; empty when it did not; none while it runs.
    failed: Option<String>,
}

/// Whether a node is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Ready {
    /// It is not known.
    Waits {
        /// Since when it is asked, in microseconds since 1970; 0: nobody asked yet.
        since_us: i64,
    },
    /// It is.
    Yes,
    /// It was not in time; this is how that is told.
    No(String),
}

/// What is wanted of a start.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The node, with its commands.
    pub spec: &'a NodeSpec,
    /// How to tell that it is ready.
    pub readiness: Option<&'a Readiness>,
    /// It has to boot before it takes commands: whether it is ready is asked before them.
    pub boots: bool,
}

impl<'a> Asked<'a> {
    /// Of an instance.
    pub fn of(instance: &'a Instance) -> Asked<'a> {
        let boots = instance.runtime == Runtime::Libvirt;
        Asked { spec: &instance.spec, readiness: instance.readiness.as_ref(), boots }
    }
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// A command is to be run.
    Command {
        /// Its point.
        point: StagePoint,
        /// Its words as a shell splits them.
        command: String,
    },
    /// The node is to be asked once whether it is ready.
    Ready {
        /// How.
        readiness: Readiness,
        /// Since when it is asked, in microseconds since 1970.
        since_us: i64,
    },
}

impl ExecState {
    /// Of a start of which no point was told yet.
    pub fn waiting(start_id: &str) -> ExecState {
        ExecState { start_id: start_id.to_owned(), ..ExecState::default() }
    }

    /// As it was written, for the service that goes on with it.
    pub fn resumed(mut self, start_id: &str) -> ExecState {
        self.start_id = start_id.to_owned();
        for ran in self.ran.iter_mut().filter(|r| r.failed.is_none()) {
            let why = "was interrupted: netloom's compute service was restarted";
            ran.failed = Some(format!("\"{}\" {why}", ran.command));
        }
        self.unsure = true;
        self
    }

    /// It goes on from a memory in which all commands had been run. Nothing new where it is known already how far they are.
    pub fn was_prepared(&mut self) {
        self.prepared = self.reached.is_empty() && self.ran.is_empty();
    }

    /// All commands were run, and it was ready where that is asked.
    pub fn is_prepared(&self, asked: Option<Asked<'_>>) -> bool {
        let is_over = matches!(self.phase(asked), ExecPhase::Done | ExecPhase::Failed);
        is_over && !matches!(self.ready, Some(Ready::No(_)))
    }

    /// These points of a start were reached. False when that is known, or it is another start.
    pub fn reach(&mut self, start_id: &str, points: &[StagePoint]) -> bool {
        if self.start_id != start_id {
            return false;
        }
        let before = self.reached.len();
        for point in points {
            if !self.reached.contains(point) {
                self.reached.push(*point);
            }
        }
        let more = self.reached.len() > before;
        self.unsure |= more;
        more
    }

    /// The commands may be others than before.
    pub fn changed(&mut self) {
        self.unsure = true;
    }

    /// Takes note of the points that have no command left.
    pub fn advance(&mut self, asked: Asked<'_>) {
        if !self.busy {
            let _ = self.next(asked);
        }
    }

    /// True when there is something to do and nobody does it; the caller then does.
    pub fn take(&mut self, asked: Asked<'_>) -> bool {
        if self.busy || !self.unsure {
            return false;
        }
        self.busy = self.next(asked).is_some();
        self.unsure = self.busy;
        self.busy
    }

    /// What is due for who took the commands, who has no more to do when there is nothing. `now_us` is in microseconds since 1970.
    pub fn begin(
        &mut self,
        asked: Asked<'_>,
        now_us: i64,
        progress: impl FnOnce(&Due) -> String,
    ) -> Option<Due> {
        let mut due = self.next(asked);
        match &mut due {
            Some(Due::Command { point, command }) => {
                self.ran.push(Ran { point: *point, command: command.clone(), failed: None });
            }
            Some(Due::Ready { since_us, .. }) => {
                if *since_us == 0 {
                    *since_us = now_us;
                }
                self.ready = Some(Ready::Waits { since_us: *since_us });
            }
            None => self.leave(),
        }
        self.progress = due.as_ref().map(progress).unwrap_or_default();
        due
    }

    /// The command that was begun has ended; how it failed, or nothing.
    pub fn end(&mut self, asked: Option<Asked<'_>>, failed: String) {
        self.progress.clear();
        if let Some(ran) = self.ran.iter_mut().rfind(|r| r.failed.is_none()) {
            ran.failed = Some(failed);
        }
        // What is written now says it all, also when nothing follows.
        let _ = asked.and_then(|asked| self.next(asked));
    }

    /// It is ready, or was not in time, and how that is told.
    pub fn answer(&mut self, ready: Result<(), String>) {
        self.progress.clear();
        self.ready = Some(match ready {
            Ok(()) => Ready::Yes,
            Err(why) => Ready::No(why),
        });
    }

    /// Who took the commands does not go on.
    pub fn leave(&mut self) {
        (self.busy, self.unsure) = (false, false);
    }

    /// The first command of a reached point that did not run, and whether it is ready: before the commands of what boots, else after them. Points before it are done.
    fn next(&mut self, asked: Asked<'_>) -> Option<Due> {
        if std::mem::take(&mut self.prepared) {
            let ran = |(point, command): (_, &str)| {
                let command = command.to_owned();
                Ran { point, command, failed: Some(String::new()) }
            };
            self.ran = all(asked.spec).map(ran).collect();
        }
        for point in self.reached.clone() {
            if let Some(command) = self.missing(asked.spec, point) {
                let command = Due::Command { point, command: command.to_owned() };
                let first = if asked.boots { self.unready(asked) } else { None };
                return Some(first.unwrap_or(command));
            }
            if !self.done.contains(&point) {
                self.done.push(point);
            }
        }
        if self.reached.contains(&EXEC) { self.unready(asked) } else { None }
    }

    /// The question whether it is ready, as long as that is not known.
    fn unready(&mut self, asked: Asked<'_>) -> Option<Due> {
        let readiness = asked.readiness?;
        match self.ready.get_or_insert(Ready::Waits { since_us: 0 }) {
            Ready::Waits { since_us } => {
                Some(Due::Ready { readiness: readiness.clone(), since_us: *since_us })
            }
            Ready::Yes | Ready::No(_) => None,
        }
    }

    fn missing<'a>(&self, spec: &'a NodeSpec, point: StagePoint) -> Option<&'a str> {
        let mut ran: HashMap<&str, usize> = HashMap::new();
        for r in self.ran.iter().filter(|r| r.point == point) {
            *ran.entry(&r.command).or_default() += 1;
        }
        commands(spec, point).find(|command| match ran.get_mut(command) {
            Some(left) if *left > 0 => {
                *left -= 1;
                false
            }
            _ => true,
        })
    }

    /// How the `exec` commands went, and whether it is ready. Without what is asked, as far as is remembered.
    pub fn phase(&self, asked: Option<Asked<'_>>) -> ExecPhase {
        if !self.reached.contains(&EXEC) {
            return ExecPhase::Waiting;
        }
        let pending = asked.is_some_and(|a| self.missing(a.spec, EXEC).is_some());
        let runs = self.ran.iter().any(|r| r.point == EXEC && r.failed.is_none());
        let waits = match (asked.map(|a| a.readiness), &self.ready) {
            (Some(None), _) | (None, None) | (_, Some(Ready::Yes | Ready::No(_))) => false,
            (Some(Some(_)), None) | (_, Some(Ready::Waits { .. })) => true,
        };
        if pending || runs || waits || !self.done.contains(&EXEC) {
            ExecPhase::Running
        } else if self.error(asked).is_empty() {
            ExecPhase::Done
        } else {
            ExecPhase::Failed
        }
    }

    /// What failed of what is still asked for: the one command with all that is known, or the first line of each; and whether it is not ready.
    pub fn error(&self, asked: Option<Asked<'_>>) -> String {
        let is_asked = |r: &&Ran| asked.is_none_or(|a| commands(a.spec, r.point).any(|c| c == r.command));
        let failed = self.ran.iter().filter(is_asked).filter_map(|r| r.failed.as_deref());
        let failed: Vec<&str> = failed.filter(|why| !why.is_empty()).collect();
        let commands = match failed.as_slice() {
            [] => String::new(),
            [one] => format!("exec command {one}"),
            all => several(all),
        };
        let late = match &self.ready {
            Some(Ready::No(why)) if asked.is_none_or(|a| a.readiness.is_some()) => why.as_str(),
            _ => "",
        };
        [commands.as_str(), late].into_iter().filter(|why| !why.is_empty()).collect::<Vec<_>>().join("\n")
    }
}

/// How many failed, and the beginning of each as far as there is room.
fn several(failed: &[&str]) -> String {
    const LONGEST: usize = 256;
    let mut text = format!("{} exec commands failed", failed.len());
    for (i, why) in failed.iter().enumerate() {
        let line = why.lines().next().unwrap_or_default().trim_end_matches([':', ' ']);
        let (line, cut) = match line.len() {
            0..=LONGEST => (line, ""),
            _ => (&line[..line.floor_char_boundary(LONGEST)], "…"),
        };
        if text.len() + line.len() + 32 > LONGEST_ERROR {
            return format!("{text}; and {} more", failed.len() - i);
        }
        text += &format!("{} {line}{cut}", if i == 0 { ":" } else { ";" });
    }
    text
}

/// All commands, with the points that they belong to.
fn all(spec: &NodeSpec) -> impl Iterator<Item = (StagePoint, &str)> {
    let of_stages = spec.stages.iter().flat_map(|s| {
        let point = |on_exit| StagePoint { stage: s.stage, on_exit };
        s.exec.iter().map(move |e| (point(e.on_exit), e.command.as_str()))
    });
    of_stages.chain(spec.exec.iter().map(|command| (EXEC, command.as_str())))
}

/// The commands of a point: its stage's, then the node's `exec` where they are run.
fn commands(spec: &NodeSpec, point: StagePoint) -> impl Iterator<Item = &str> {
    let of_stage = spec.stages.iter().filter(move |s| s.stage == point.stage).flat_map(|s| &s.exec);
    let of_stage = of_stage.filter(move |e| e.on_exit == point.on_exit).map(|e| e.command.as_str());
    let own = spec.exec.iter().filter(move |_| point == EXEC).map(String::as_str);
    of_stage.chain(own)
}

#[cfg(test)]
mod tests;
