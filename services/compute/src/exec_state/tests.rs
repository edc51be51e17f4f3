use super::*;
use netloom_model::slice::ReadinessCheck;
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

fn asked(spec: &NodeSpec) -> Asked<'_> {
    Asked { spec, readiness: None, boots: false }
}

fn words(due: &Due) -> String {
    match due {
        Due::Command { command, .. } => command.clone(),
        Due::Ready { since_us, .. } => format!("ready? {since_us}"),
    }
}

/// Runs all that is due and answers what that was. It is ready when it is asked for the third time.
fn run_asked(state: &mut ExecState, asked: Asked<'_>) -> Vec<String> {
    let mut ran = Vec::new();
    if state.take(asked) {
        assert!(!state.take(asked), "one runs them");
        while let Some(due) = state.begin(asked, 5 + ran.len() as i64, words) {
            assert_eq!(state.progress, words(&due));
            match due {
                Due::Command { ref command, .. } => {
                    let failed = if command == "bad" { "bad failed" } else { "" };
                    state.end(Some(asked), failed.to_owned());
                }
                Due::Ready { .. } if ran.iter().filter(|r: &&String| r.starts_with("ready")).count() < 2 => {}
                Due::Ready { .. } => state.answer(Ok(())),
            }
            ran.push(words(&due));
        }
    }
    ran
}

fn run(state: &mut ExecState, spec: &NodeSpec) -> Vec<String> {
    run_asked(state, asked(spec))
}

#[test]
fn points_run_their_commands_in_order_and_once() {
    let (mut state, spec) = (ExecState::waiting("7"), spec(&["a", "b", "a"]));
    assert!(!state.reach("6", &[CREATED]));
    assert!(!state.take(asked(&spec)));
    assert!(state.reach("7", &[CREATED]));
    assert_eq!(state.phase(Some(asked(&spec))), ExecPhase::Waiting);
    assert_eq!(run(&mut state, &spec), ["made"]);
    assert!(state.reach("7", &[CREATED, EXEC]));
    assert_eq!(state.phase(Some(asked(&spec))), ExecPhase::Running);
    assert_eq!(run(&mut state, &spec), ["first", "a", "b", "a"]);
    assert_eq!((state.phase(Some(asked(&spec))), &state.done), (ExecPhase::Done, &vec![CREATED, EXEC]));
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
        (state.phase(Some(asked(&before))), state.error(Some(asked(&before)))),
        (ExecPhase::Failed, "exec command bad failed".to_owned())
    );
    let after = spec(&["new", "a", "a"]);
    state.changed();
    assert_eq!(state.phase(Some(asked(&after))), ExecPhase::Running);
    assert_eq!(run(&mut state, &after), ["new", "a"]);
    assert_eq!(state.phase(Some(asked(&after))), ExecPhase::Done, "what failed is not asked for any more");
}

#[test]
fn all_commands_that_failed_are_told_with_their_number() {
    let commands: Vec<String> = (1..=900).map(|n| format!("c{n}")).collect();
    let failing = |count: usize| {
        let spec = NodeSpec { exec: commands[..count].to_vec(), ..NodeSpec::default() };
        let mut state = ExecState::waiting("7");
        state.reach("7", &[EXEC]);
        assert!(state.take(asked(&spec)));
        while let Some(due) = state.begin(asked(&spec), 5, words) {
            let command = words(&due);
            let why = format!("\"{command}\" exited with 1: first\nsecond");
            state.end(Some(asked(&spec)), if command == "c2" { String::new() } else { why });
        }
        state.error(Some(asked(&spec)))
    };
    assert_eq!(failing(1), "exec command \"c1\" exited with 1: first\nsecond");
    assert_eq!(failing(2), failing(1), "what went well is not told");
    assert_eq!(
        failing(4),
        "3 exec commands failed: \"c1\" exited with 1: first; \"c3\" exited with 1: first; \"c4\" exited with 1: first"
    );
    let many = failing(900);
    assert!(many.len() <= LONGEST_ERROR && many.starts_with("899 exec commands failed: \"c1\""), "{many}");
    let told = many.matches("exited with").count();
    assert!(told > 50 && many.ends_with(&format!("; and {} more", 899 - told)), "{many}");
    assert!(several(&[&"ä".repeat(3000), "b"]).ends_with("ä…; b"));
}

#[test]
fn what_was_written_goes_on() {
    let (mut state, spec) = (ExecState::waiting("7"), spec(&["a", "b"]));
    state.reach("7", &[EXEC]);
    assert!(state.take(asked(&spec)));
    for _ in 0..2 {
        state.begin(asked(&spec), 5, words);
        state.end(Some(asked(&spec)), String::new());
    }
    let before = serde_json::to_string(&state).unwrap();
    let cut = serde_json::from_str::<ExecState>(&before).unwrap().resumed("7");
    assert_eq!(cut.phase(None), ExecPhase::Running, "one is left");
    state.begin(asked(&spec), 5, words);
    let text = serde_json::to_string(&state).unwrap();
    let mut resumed = serde_json::from_str::<ExecState>(&text).unwrap().resumed("7");
    assert!(resumed.error(Some(asked(&spec))).contains("interrupted"));
    assert!(run(&mut resumed, &spec).is_empty(), "what was cut off is not run again");
    assert_eq!(resumed.phase(Some(asked(&spec))), ExecPhase::Failed);
    assert_eq!((resumed.phase(None), resumed.done), (ExecPhase::Failed, vec![EXEC]));
}

#[test]
fn what_boots_is_ready_before_it_is_given_commands() {
    let readiness = Readiness { check: ReadinessCheck::LogPattern("login:".into()), timeout_seconds: 60 };
    let spec = spec(&["a"]);
    let asked = Asked { spec: &spec, readiness: Some(&readiness), boots: true };
    let mut state = ExecState::waiting("7");
    state.reach("7", &[CREATED]);
    assert_eq!(run_asked(&mut state, asked), ["ready? 5", "ready? 5", "ready? 5", "made"]);
    state.reach("7", &[CREATED, EXEC]);
    assert_eq!(state.phase(Some(asked)), ExecPhase::Running);
    assert_eq!(run_asked(&mut state, asked), ["first", "a"]);
    assert_eq!(state.phase(Some(asked)), ExecPhase::Done);
}

#[test]
fn ready_is_asked_after_the_commands_until_it_is_answered() {
    let readiness = Readiness { check: ReadinessCheck::Command(vec!["true".into()]), timeout_seconds: 60 };
    let spec = NodeSpec { exec: vec!["a".into()], ..NodeSpec::default() };
    let asked = Asked { spec: &spec, readiness: Some(&readiness), boots: false };
    let mut state = ExecState::waiting("7");
    assert!(!state.take(asked), "not before its point is reached");
    state.reach("7", &[EXEC]);
    assert!(state.take(asked));
    state.begin(asked, 5, words);
    state.end(Some(asked), String::new());
    // Cut off here, it is not taken for ready by who knows only what was written.
    let text = serde_json::to_string(&state).unwrap();
    let cut = serde_json::from_str::<ExecState>(&text).unwrap().resumed("7");
    assert_eq!((cut.phase(None), cut.phase(Some(asked))), (ExecPhase::Running, ExecPhase::Running));
    assert_eq!(words(&state.begin(asked, 6, words).unwrap()), "ready? 6");
    let text = serde_json::to_string(&state).unwrap();
    let mut resumed = serde_json::from_str::<ExecState>(&text).unwrap().resumed("7");
    assert_eq!(run_asked(&mut resumed, asked), ["ready? 6"; 3], "the time goes on from its beginning");
    assert_eq!((resumed.phase(Some(asked)), resumed.phase(None)), (ExecPhase::Done, ExecPhase::Done));
    let text = serde_json::to_string(&resumed).unwrap();
    let mut after = serde_json::from_str::<ExecState>(&text).unwrap().resumed("7");
    assert!(run_asked(&mut after, asked).is_empty(), "what is known is not asked again");

    state.answer(Err("too late".into()));
    assert!(state.begin(asked, 9, words).is_none());
    let late = (ExecPhase::Failed, "too late".to_owned());
    assert_eq!((state.phase(Some(asked)), state.error(Some(asked))), late);
    assert_eq!((state.phase(None), state.error(None)), late);
    let not_asked = Asked { readiness: None, ..asked };
    assert_eq!(state.phase(Some(not_asked)), ExecPhase::Done, "the kind does not ask for it any more");
}

#[test]
fn what_goes_on_from_a_memory_that_had_all_runs_only_what_is_new() {
    let before = spec(&["a", "a"]);
    let asked = |spec| Asked { spec, readiness: None, boots: true };
    let mut first = ExecState::waiting("1");
    assert!(!first.is_prepared(Some(asked(&before))));
    first.reach("1", &[CREATED, EXEC]);
    while let Some(Due::Command { .. }) = first.begin(asked(&before), 1, |_| String::new()) {
        first.end(Some(asked(&before)), String::new());
    }
    assert!(first.is_prepared(Some(asked(&before))));
    let mut next = ExecState::waiting("2");
    next.was_prepared();
    next.advance(asked(&before));
    next.reach("2", &[CREATED, EXEC]);
    assert!(!next.take(asked(&before)));
    assert_eq!(next.phase(Some(asked(&before))), ExecPhase::Done);
    let after = spec(&["a", "a", "b"]);
    next.changed();
    assert!(next.take(asked(&after)));
    let due = next.begin(asked(&after), 1, |_| String::new());
    assert_eq!(due, Some(Due::Command { point: EXEC, command: "b".into() }));
    // What is known of a start already is not changed.
    let mut known = ExecState::waiting("3");
    known.reach("3", &[EXEC]);
    known.was_prepared();
    assert!(known.take(asked(&before)));
}
