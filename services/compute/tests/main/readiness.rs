//! A node is only done with its start when it is ready, on every driver.

use std::time::{Duration, Instant};

use netloom_model::observed::{ExecPhase, NOT_READY, Observed, Phase};
use netloom_model::slice::{Instance, Readiness, ReadinessCheck};

use crate::rig::{Rig, rehash};
use crate::tiny::{NO, SECOND, Tiny};

suite!(
    it_is_ready_when_its_command_says_so,
    what_is_not_ready_in_time_runs_on_and_says_why,
    a_line_of_its_log_tells,
    a_new_command_is_run_while_it_is_asked,
);

/// An instance that is ready when this script ends with 0, which the sim driver makes fail so many times; a machine is asked this command in its place.
fn asked(rig: &Rig, script: &str, command: &str, timeout_seconds: u32, failures: u32) -> Instance {
    let mut one = rig.instance("r1");
    let argv = match rig.has_machines() {
        true => command.split(' ').map(str::to_owned).collect::<Vec<_>>(),
        false => ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
    };
    one.spec.labels.insert("sim.fail-exec".into(), argv.join(" "));
    one.spec.labels.insert("sim.fail-exec-times".into(), failures.to_string());
    one.readiness = Some(Readiness { check: ReadinessCheck::Command(argv), timeout_seconds });
    rehash(&mut one);
    one
}

fn waits(o: &Observed) -> bool {
    o.exec_phase == ExecPhase::Running && o.detail.starts_with("waits until it is ready: ")
}

async fn it_is_ready_when_its_command_says_so(rig: Rig) {
    let mut one = asked(&rig, "echo x >> /tries; [ $(wc -l < /tries) -ge 3 ]", "T /tries", 60, 2);
    // A container is given its commands before it is asked, a machine after it has booted.
    let command = "/bin/sh -c 'sleep 0; test ! -e /tries'";
    one.spec.exec = vec![if rig.has_machines() { rig.leaves("x") } else { command.into() }];
    rehash(&mut one);
    let started = rig.run(&one).await;
    assert_eq!(started.exec_phase, ExecPhase::Waiting);
    let begun = Instant::now();
    rig.settle(&started).await;
    let waiting = rig.until_node(one.uid, "it waits", waits).await;
    assert!(waiting.detail.contains("/tries"), "{}", waiting.detail);
    let done = rig.until_node(one.uid, "it is ready", |o| o.exec_phase == ExecPhase::Done).await;
    assert!(begun.elapsed() >= Duration::from_millis(750), "two pauses: {:?}", begun.elapsed());
    assert_eq!((done.detail.as_str(), done.exec_error.as_str()), ("", ""));
    if rig.is_docker {
        assert_eq!(rig.sh(one.uid, "wc -l < /tries").await.0, "3\n", "it is not asked again");
    }
    if rig.has_machines() {
        rig.expect_left(&one, &["T /tries", "T /tries", "T /tries", "x"]).await;
    }
}

async fn what_is_not_ready_in_time_runs_on_and_says_why(rig: Rig) {
    let one = asked(&rig, "echo no router; exit 1", "F echo no router", 1, u32::MAX);
    let started = rig.run(&one).await;
    rig.settle(&started).await;
    let late = rig.until_node(one.uid, "it is late", |o| o.exec_phase == ExecPhase::Failed).await;
    assert_eq!((late.phase, late.start_id), (Phase::Running, started.start_id));
    let error = &late.exec_error;
    assert!(error.starts_with(&format!("{NOT_READY} 1 s: ")), "{error}");
    assert!(error.contains("echo no router") && error.contains("exited with 1: "), "{error}");
    assert!(error.ends_with("no router") || !rig.is_docker, "{error}");
    assert!(error.ends_with(NO) || !rig.has_machines(), "{error}");
}

/// What the sim driver runs is gone with the service.
#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_service_goes_on_asking() {
    let Some(mut rig) = Rig::docker("a_restarted_service_goes_on_asking").await else { return };
    let mut one = asked(&rig, "test -e /ready", "T", 60, 3);
    one.spec.exec = vec!["/bin/sh -c 'echo x >> /count'".into()];
    rehash(&mut one);
    let started = rig.run(&one).await;
    rig.settle(&started).await;
    rig.until_node(one.uid, "it waits", waits).await;
    rig.stop().await;
    rig.start().await;
    let found = rig.until_node(one.uid, "it is found", |o| o.phase == Phase::Running).await;
    assert_eq!((found.start_id, found.exec_phase), (started.start_id, ExecPhase::Running));
    rig.sync(std::slice::from_ref(&one)).await;
    rig.until_node(one.uid, "it waits again", waits).await;
    rig.sh(one.uid, "touch /ready").await;
    rig.until_node(one.uid, "it is ready", |o| o.exec_phase == ExecPhase::Done).await;
    assert_eq!(rig.sh(one.uid, "wc -l < /count").await.0, "1\n", "its commands ran once");
    rig.stop().await;
    rig.start().await;
    rig.until_node(one.uid, "that is remembered", |o| o.exec_phase == ExecPhase::Done).await;
}

/// An instance that is ready when it says "up 7", a second after its first start.
fn talkative(rig: &Rig, script: &str, timeout_seconds: u32) -> Instance {
    let mut one = rig.instance("r1");
    match rig.has_machines() {
        true => {
            rig.program(&mut one, Tiny { says: &[(0, "up and away"), (SECOND, "up 7")], ends_after: None })
        }
        false => one.spec.cmd = ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
    }
    one.spec.labels.insert("sim.log".into(), "up 7".into());
    one.spec.labels.insert("sim.log-after-ms".into(), "1000".into());
    let check = ReadinessCheck::LogPattern("^up [0-9]$".into());
    one.readiness = Some(Readiness { check, timeout_seconds });
    rehash(&mut one);
    one
}

async fn a_line_of_its_log_tells(rig: Rig) {
    let one = talkative(&rig, "echo up and away; sleep 1; echo up 7 >&2; exec sleep 1000000", 60);
    let started = rig.run(&one).await;
    rig.settle(&started).await;
    let waiting = rig.until_node(one.uid, "it waits", waits).await;
    assert!(waiting.detail.ends_with("its log is to say /^up [0-9]$/"), "{}", waiting.detail);
    rig.until_node(one.uid, "it is ready", |o| o.exec_phase == ExecPhase::Done).await;
}

/// Only Docker's log has lines of what a test lets its process say.
#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_an_earlier_start_does_not_tell() {
    let Some(rig) = Rig::docker("a_line_of_an_earlier_start_does_not_tell").await else { return };
    let script = "[ -e /was ] && exec sleep 1000000; touch /was; trap 'exit 0' TERM; echo up 7; while :; do sleep 0.1; done";
    let mut one = talkative(&rig, script, 2);
    let started = rig.run(&one).await;
    rig.settle(&started).await;
    let first = rig.until_node(one.uid, "it is ready", |o| o.exec_phase == ExecPhase::Done).await;
    // The line is then longer ago than a runtime may be late to note a start.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    one.restarts = 1;
    rig.ensure(std::slice::from_ref(&one)).await;
    let is_next = |o: &Observed| o.phase == Phase::Running && o.start_id != first.start_id;
    let again = rig.until_node(one.uid, "it runs again", is_next).await;
    rig.settle(&again).await;
    let late = rig.until_node(one.uid, "it is late", |o| o.exec_phase == ExecPhase::Failed).await;
    assert!(late.exec_error.contains("its log has no line that matches /^up [0-9]$/"), "{}", late.exec_error);
}

async fn a_new_command_is_run_while_it_is_asked(rig: Rig) {
    let mut one = asked(&rig, "test -e /ready", "T", 60, 3);
    let started = rig.run(&one).await;
    rig.settle(&started).await;
    rig.until_node(one.uid, "it waits", waits).await;
    // That makes a container ready; a machine has to be so by itself before it takes a command.
    one.spec.exec = vec![if rig.has_machines() { rig.leaves("x") } else { "/bin/touch /ready".into() }];
    rig.ensure(std::slice::from_ref(&one)).await;
    let done = rig.until_node(one.uid, "it is ready", |o| o.exec_phase == ExecPhase::Done).await;
    assert_eq!(done.start_id, started.start_id);
    if rig.has_machines() {
        rig.expect_left(&one, &["T", "T", "T", "x"]).await;
    }
}
