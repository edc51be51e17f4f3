//! How far the commands of a start are: which points of it were reached, which commands ran, and which is next. Pure.
//!
//! A command is known by its point and text. So a changed list runs what is new in it on the running node, and what ran in this start is not run again; a text that stands twice runs twice.

use std::collections::HashMap;

use netloom_model::observed::{ExecPhase, StagePoint};
use netloom_model::spec::{NodeSpec, Stage};
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

/// A command to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Its point.
    pub point: StagePoint,
    /// Its words as a shell splits them.
    pub command: String,
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
    pub fn advance(&mut self, spec: &NodeSpec) {
        if !self.busy {
            let _ = self.next(spec);
        }
    }

    /// True when there is a command to run and nobody runs any; the caller then does.
    pub fn take(&mut self, spec: &NodeSpec) -> bool {
        if self.busy || !self.unsure {
            return false;
        }
        self.busy = self.next(spec).is_some();
        self.unsure = self.busy;
        self.busy
    }

    /// The command that is due for who took them, who has no more to do when there is none.
    pub fn begin(&mut self, spec: &NodeSpec, progress: impl FnOnce(&str) -> String) -> Option<Due> {
        let due = self.next(spec);
        match &due {
            Some(Due { point, command }) => {
                self.progress = progress(command);
                self.ran.push(Ran { point: *point, command: command.clone(), failed: None });
            }
            None => self.leave(),
        }
        due
    }

    /// The command that was begun has ended; how it failed, or nothing.
    pub fn end(&mut self, spec: Option<&NodeSpec>, failed: String) {
        self.progress.clear();
        if let Some(ran) = self.ran.iter_mut().rfind(|r| r.failed.is_none()) {
            ran.failed = Some(failed);
        }
        // What is written now says it all, also when nothing follows.
        let _ = spec.and_then(|spec| self.next(spec));
    }

    /// Who took the commands does not go on.
    pub fn leave(&mut self) {
        (self.busy, self.unsure) = (false, false);
    }

    /// The first command of a reached point that did not run. Points before it are done.
    fn next(&mut self, spec: &NodeSpec) -> Option<Due> {
        for point in self.reached.clone() {
            if let Some(command) = self.missing(spec, point) {
                return Some(Due { point, command: command.to_owned() });
            }
            if !self.done.contains(&point) {
                self.done.push(point);
            }
        }
        None
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

    /// How the `exec` commands went. Without a spec, as far as is remembered.
    pub fn phase(&self, spec: Option<&NodeSpec>) -> ExecPhase {
        if !self.reached.contains(&EXEC) {
            return ExecPhase::Waiting;
        }
        let pending = spec.is_some_and(|s| self.missing(s, EXEC).is_some());
        let runs = self.ran.iter().any(|r| r.point == EXEC && r.failed.is_none());
        if pending || runs || !self.done.contains(&EXEC) {
            ExecPhase::Running
        } else if self.error(spec).is_empty() {
            ExecPhase::Done
        } else {
            ExecPhase::Failed
        }
    }

    /// What failed of what is still asked for: the one command with all that is known, or the first line of each.
    pub fn error(&self, spec: Option<&NodeSpec>) -> String {
        let asked = |r: &&Ran| spec.is_none_or(|s| commands(s, r.point).any(|c| c == r.command));
        let failed = self.ran.iter().filter(asked).filter_map(|r| r.failed.as_deref());
        match failed.filter(|why| !why.is_empty()).collect::<Vec<&str>>().as_slice() {
            [] => String::new(),
            [one] => format!("exec command {one}"),
            all => several(all),
        }
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

/// The commands of a point: its stage's, then the node's `exec` where they are run.
fn commands(spec: &NodeSpec, point: StagePoint) -> impl Iterator<Item = &str> {
    let of_stage = spec.stages.iter().filter(move |s| s.stage == point.stage).flat_map(|s| &s.exec);
    let of_stage = of_stage.filter(move |e| e.on_exit == point.on_exit).map(|e| e.command.as_str());
    let own = spec.exec.iter().filter(move |_| point == EXEC).map(String::as_str);
    of_stage.chain(own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use netloom_model::spec::{StageExec, StageSpec};

    const CREATED: StagePoint = StagePoint { stage: Stage::Create, on_exit: true };

    fn spec(exec: &[&str]) -> NodeSpec {
        let stage = |stage, on_exit, command: &str| StageSpec {
            stage,
            wait_for: Vec::new(),
            exec: vec![StageExec { command: command.into(), on_exit }],
        };
        NodeSpec {
            exec: exec.iter().map(|c| (*c).to_owned()).collect(),
            stages: vec![stage(Stage::Create, true, "made"), stage(Stage::Configure, false, "first")],
            ..NodeSpec::default()
        }
    }

    /// Runs all that is due and answers what that was.
    fn run(state: &mut ExecState, spec: &NodeSpec) -> Vec<String> {
        let mut ran = Vec::new();
        if state.take(spec) {
            assert!(!state.take(spec), "one runs them");
            while let Some(due) = state.begin(spec, str::to_owned) {
                assert_eq!(state.progress, due.command);
                state.end(Some(spec), if due.command == "bad" { "bad failed".into() } else { String::new() });
                ran.push(due.command);
            }
        }
        ran
    }

    #[test]
    fn points_run_their_commands_in_order_and_once() {
        let (mut state, spec) = (ExecState::waiting("7"), spec(&["a", "b", "a"]));
        assert!(!state.reach("6", &[CREATED]));
        assert!(!state.take(&spec));
        assert!(state.reach("7", &[CREATED]));
        assert_eq!(state.phase(Some(&spec)), ExecPhase::Waiting);
        assert_eq!(run(&mut state, &spec), ["made"]);
        assert!(state.reach("7", &[CREATED, EXEC]));
        assert_eq!(state.phase(Some(&spec)), ExecPhase::Running);
        assert_eq!(run(&mut state, &spec), ["first", "a", "b", "a"]);
        assert_eq!((state.phase(Some(&spec)), &state.done), (ExecPhase::Done, &vec![CREATED, EXEC]));
        assert!(!state.reach("7", &[CREATED, EXEC]));
        state.changed();
        assert!(run(&mut state, &spec).is_empty());
    }

    #[test]
    fn a_changed_list_runs_what_is_new_in_it() {
        let mut state = ExecState::waiting("7");
        state.reach("7", &[CREATED, EXEC]);
        let before = spec(&["a", "bad"]);
        run(&mut state, &before);
        assert_eq!(
            (state.phase(Some(&before)), state.error(Some(&before))),
            (ExecPhase::Failed, "exec command bad failed".to_owned())
        );
        let after = spec(&["new", "a", "a"]);
        state.changed();
        assert_eq!(state.phase(Some(&after)), ExecPhase::Running);
        assert_eq!(run(&mut state, &after), ["new", "a"]);
        assert_eq!(state.phase(Some(&after)), ExecPhase::Done, "what failed is not asked for any more");
    }

    #[test]
    fn all_commands_that_failed_are_told_with_their_number() {
        let commands: Vec<String> = (1..=900).map(|n| format!("c{n}")).collect();
        let failing = |count: usize| {
            let spec = NodeSpec { exec: commands[..count].to_vec(), ..NodeSpec::default() };
            let mut state = ExecState::waiting("7");
            state.reach("7", &[EXEC]);
            assert!(state.take(&spec));
            while let Some(due) = state.begin(&spec, str::to_owned) {
                let why = format!("\"{}\" exited with 1: first\nsecond", due.command);
                state.end(Some(&spec), if due.command == "c2" { String::new() } else { why });
            }
            state.error(Some(&spec))
        };
        assert_eq!(failing(1), "exec command \"c1\" exited with 1: first\nsecond");
        assert_eq!(failing(2), failing(1), "what went well is not told");
        assert_eq!(
            failing(4),
            "3 exec commands failed: \"c1\" exited with 1: first; \"c3\" exited with 1: first; \"c4\" exited with 1: first"
        );
        let many = failing(900);
        assert!(
            many.len() <= LONGEST_ERROR && many.starts_with("899 exec commands failed: \"c1\""),
            "{many}"
        );
        let told = many.matches("exited with").count();
        assert!(told > 50 && many.ends_with(&format!("; and {} more", 899 - told)), "{many}");
        assert!(several(&[&"ä".repeat(3000), "b"]).ends_with("ä…; b"));
    }

    #[test]
    fn what_was_written_goes_on() {
        let (mut state, spec) = (ExecState::waiting("7"), spec(&["a", "b"]));
        state.reach("7", &[EXEC]);
        assert!(state.take(&spec));
        for _ in 0..2 {
            state.begin(&spec, str::to_owned);
            state.end(Some(&spec), String::new());
        }
        let before = serde_json::to_string(&state).unwrap();
        let cut = serde_json::from_str::<ExecState>(&before).unwrap().resumed("7");
        assert_eq!(cut.phase(None), ExecPhase::Running, "one is left");
        state.begin(&spec, str::to_owned);
        let text = serde_json::to_string(&state).unwrap();
        let mut resumed = serde_json::from_str::<ExecState>(&text).unwrap().resumed("7");
        assert!(resumed.error(Some(&spec)).contains("interrupted"));
        assert!(run(&mut resumed, &spec).is_empty(), "what was cut off is not run again");
        assert_eq!(resumed.phase(Some(&spec)), ExecPhase::Failed);
        assert_eq!((resumed.phase(None), resumed.done), (ExecPhase::Failed, vec![EXEC]));
    }
}
