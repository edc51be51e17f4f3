//! The second day of a node, on every driver: restarts, stages, limits, health, and nodes that live by others.

use std::time::{Duration, Instant};

use netloom_model::observed::{ExecPhase, Observed, Phase, StagePoint};
use netloom_model::slice::Instance;
use netloom_model::spec::{Healthcheck, NetworkMode, RestartPolicy, Stage, StageExec, StageSpec};
use netloom_model::state::Wanted;
use netloom_proto::compute::v1 as p;

use crate::rig::{BOUND, Rig, rehash};
use crate::tiny::Tiny;

suite!(
    a_restart_that_is_asked_for_is_made_once,
    limits_change_on_a_running_node,
    what_is_held_is_made_when_it_is_let_go,
    a_startup_delay_is_kept,
    stage_commands_run_at_their_points,
    a_changed_exec_list_runs_what_is_new,
    health_is_told,
    what_ends_is_removed_and_comes_back_when_asked_for,
    a_node_shares_the_namespace_of_another,
    a_followed_log_goes_on_with_the_next_start,
);

/// Ends as soon as it is asked to.
const OBEDIENT: [&str; 3] = ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"];

fn obedient(rig: &Rig, node: &str) -> Instance {
    let mut one = rig.instance(node);
    if !rig.has_machines() {
        one.spec.cmd = OBEDIENT.map(str::to_owned).to_vec();
    }
    rehash(&mut one);
    one
}

async fn a_restart_that_is_asked_for_is_made_once(rig: Rig) {
    let mut one = obedient(&rig, "r1");
    one.spec.restart_policy = RestartPolicy::Never;
    let first = rig.run(&one).await;
    assert_eq!(first.restarts, 0);
    one.restarts = 3;
    rig.ensure(std::slice::from_ref(&one)).await;
    let again = |o: &Observed| o.phase == Phase::Running && o.start_id != first.start_id && o.restarts == 3;
    let second = rig.until_node(one.uid, "started again", again).await;
    assert_eq!((&second.instance_id, second.restart_count), (&first.instance_id, 0));
    assert!(!second.exited, "it did not end by itself");
    // Said again, and with something else that is new, it is not made again.
    one.interfaces = vec!["eth1".into()];
    rig.ensure(std::slice::from_ref(&one)).await;
    let other = rig.instance("r2");
    rig.ensure(&[one.clone(), other.clone()]).await;
    rig.until_phase(other.uid, Phase::Running).await;
    assert_eq!(rig.view.borrow().instances[&one.uid].start_id, second.start_id);
    // One that is asked for while it is stopped is what it is started for.
    one.wanted = Wanted::Stopped;
    one.restarts = 4;
    rig.ensure(std::slice::from_ref(&one)).await;
    rig.until_phase(one.uid, Phase::Stopped).await;
    one.wanted = Wanted::Running;
    rig.ensure(std::slice::from_ref(&one)).await;
    let third =
        rig.until_node(one.uid, "runs for it", |o| o.phase == Phase::Running && o.restarts == 4).await;
    assert_ne!(third.start_id, second.start_id);
}

async fn limits_change_on_a_running_node(rig: Rig) {
    let mut one = rig.instance("r1");
    let first = rig.run(&one).await;
    let hash = one.spec_hash.clone();
    if rig.has_machines() {
        return limits_come_with_the_next_start(&rig, one, &first).await;
    }
    for (cpu, memory, set) in [(500, 64 << 20, "0"), (250, 32 << 20, "0"), (0, 0, "")] {
        one.spec.cpu_limit_millis = cpu;
        one.spec.memory_limit_bytes = memory;
        one.spec.cpu_set = set.into();
        rehash(&mut one);
        assert_eq!(one.spec_hash, hash, "they make nothing anew");
        rig.ensure(std::slice::from_ref(&one)).await;
        if rig.is_docker {
            let wanted = if cpu > 0 { format!("{memory}\n0\n") } else { String::new() };
            let script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpuset/cpuset.cpus 2>/dev/null \
                          || cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpuset.cpus.effective";
            let inside = || async {
                let now = rig.sh(one.uid, script).await.0;
                if cpu > 0 { now == wanted } else { !now.ends_with("\n0\n") && now.len() > 12 }
            };
            netloom_service::testing::eventually("the limits are inside", BOUND, inside).await;
        }
        let other = rig.instance("after");
        rig.run(&other).await;
        let now = rig.view.borrow().instances[&one.uid].clone();
        assert_eq!((now.phase, &now.start_id, now.detail.as_str()), (Phase::Running, &first.start_id, ""));
        assert!(rig.remove(&[other.uid], &[]).await.is_empty());
    }
}

/// A machine has what it was started with, and says so.
async fn limits_come_with_the_next_start(rig: &Rig, mut one: Instance, first: &Observed) {
    (one.spec.cpu_limit_millis, one.spec.memory_limit_bytes) = (2000, 48 << 20);
    let hash = one.spec_hash.clone();
    rehash(&mut one);
    assert_eq!(one.spec_hash, hash, "they make nothing anew");
    rig.ensure(std::slice::from_ref(&one)).await;
    let told = |o: &Observed| o.detail.contains("when it is started again: netloom node restart");
    let waits = rig.until_node(one.uid, "it says how", told).await;
    assert_eq!((waits.phase, &waits.start_id), (Phase::Running, &first.start_id));
    one.restarts = 1;
    rig.ensure(std::slice::from_ref(&one)).await;
    let again = |o: &Observed| o.phase == Phase::Running && o.restarts == 1 && o.detail.is_empty();
    let second = rig.until_node(one.uid, "started again", again).await;
    assert_eq!(second.instance_id, first.instance_id);
    let has = rig.libvirtd.unwrap().virsh(&["dominfo", &one.name]).unwrap();
    let has: Vec<String> = has.lines().map(|line| line.split_whitespace().collect()).collect();
    let expected = ["CPU(s):2", "Maxmemory:49152KiB"];
    assert!(expected.iter().all(|line| has.iter().any(|l| l == line)), "{has:?}");
}

async fn what_is_held_is_made_when_it_is_let_go(rig: Rig) {
    let (mut held, other) = (rig.instance("r1"), rig.instance("r2"));
    held.held = true;
    rig.sync(&[held.clone(), other.clone()]).await;
    rig.until_phase(other.uid, Phase::Running).await;
    let told = rig.view.borrow().instances[&held.uid].clone();
    assert_eq!((told.phase, told.detail.as_str()), (Phase::Absent, "waits for other nodes"));
    assert!(told.instance_id.is_empty(), "nothing was made");
    held.held = false;
    rig.ensure(std::slice::from_ref(&held)).await;
    rig.until_phase(held.uid, Phase::Running).await;
}

async fn a_startup_delay_is_kept(rig: Rig) {
    let mut one = rig.instance("r1");
    one.spec.startup_delay_seconds = 2;
    let asked = Instant::now();
    rig.sync(std::slice::from_ref(&one)).await;
    let waits = |o: &Observed| o.phase == Phase::Absent && o.detail == "waits for its startup delay of 2 s";
    rig.until_node(one.uid, "waits", waits).await;
    rig.until_phase(one.uid, Phase::Running).await;
    assert!(asked.elapsed() >= Duration::from_secs(2), "{:?}", asked.elapsed());
}

fn point(stage: Stage, on_exit: bool) -> StagePoint {
    StagePoint { stage, on_exit }
}

async fn stage_commands_run_at_their_points(rig: Rig) {
    let mut one = rig.instance("r1");
    let command = |text: &str| rig.leaves(text);
    let exec = |text: &str, on_exit| StageExec { command: command(text), on_exit };
    one.spec.exec = vec![command("exec")];
    one.spec.stages = vec![
        StageSpec { stage: Stage::Create, wait_for: Vec::new(), exec: vec![exec("created", true)] },
        StageSpec {
            stage: Stage::Configure,
            wait_for: Vec::new(),
            exec: vec![exec("configured", true), exec("configures", false)],
        },
    ];
    let started = rig.run(&one).await;
    let points = [
        point(Stage::Create, true),
        point(Stage::CreateLinks, false),
        point(Stage::CreateLinks, true),
        point(Stage::Configure, false),
        point(Stage::Configure, true),
    ];
    rig.reach(&started, &points[..3]).await;
    let first = rig.until_node(one.uid, "three points", |o| o.stages_done == points[..3]).await;
    assert_eq!(first.exec_phase, ExecPhase::Waiting);
    rig.reach(&started, &points[..4]).await;
    let is_done = |o: &Observed| o.stages_done == points[..4] && o.exec_phase == ExecPhase::Done;
    rig.until_node(one.uid, "its exec is done", is_done).await;
    rig.reach(&started, &points).await;
    rig.reach(&started, &points).await;
    rig.until_node(one.uid, "all points", |o| o.stages_done == points).await;
    rig.expect_left(&one, &["created", "configures", "exec", "configured"]).await;
}

async fn a_changed_exec_list_runs_what_is_new(rig: Rig) {
    let mut one = rig.commanded("r1");
    let command = |text: &str| rig.leaves(text);
    one.spec.exec = vec![command("a"), rig.fails().into()];
    one.spec.labels.insert("sim.fail-exec".into(), "/bin/sh -c exit 1".into());
    rehash(&mut one);
    let started = rig.run(&one).await;
    rig.settle(&started).await;
    rig.until_node(one.uid, "it fails", |o| o.exec_phase == ExecPhase::Failed).await;
    one.spec.exec = vec![command("b"), command("a")];
    rig.ensure(std::slice::from_ref(&one)).await;
    let done = rig.until_node(one.uid, "it is well", |o| o.exec_phase == ExecPhase::Done).await;
    assert_eq!((done.start_id, done.exec_error.as_str()), (started.start_id, ""));
    rig.expect_left(&one, &["a", "b"]).await;
}

async fn health_is_told(rig: Rig) {
    let mut one = rig.instance("r1");
    one.spec.healthcheck = Some(Healthcheck {
        test: ["CMD-SHELL", "ls /healthy"].map(str::to_owned).to_vec(),
        interval_seconds: 1,
        retries: 1,
        ..Healthcheck::default()
    });
    one.spec.labels.insert("sim.health".into(), "healthy".into());
    one.spec.labels.insert("sim.health-after-ms".into(), "300".into());
    rehash(&mut one);
    if rig.has_machines() {
        return rig.expect_refused(&one, "health checks").await;
    }
    rig.sync(std::slice::from_ref(&one)).await;
    rig.until_node(one.uid, "starting", |o| o.health == "starting").await;
    if rig.is_docker {
        rig.until_node(one.uid, "unhealthy", |o| o.health == "unhealthy").await;
        rig.sh(one.uid, "touch /healthy").await;
    }
    rig.until_node(one.uid, "healthy", |o| o.health == "healthy").await;
    one.wanted = Wanted::Stopped;
    rig.ensure(std::slice::from_ref(&one)).await;
    let stopped = rig.until_phase(one.uid, Phase::Stopped).await;
    assert_eq!(stopped.health, "");
}

async fn what_ends_is_removed_and_comes_back_when_asked_for(rig: Rig) {
    let (mut one, code) = rig.short_lived("r1", RestartPolicy::default());
    one.spec.auto_remove = true;
    rehash(&mut one);
    let first = rig.run(&one).await;
    let is_gone = |o: &Observed| o.phase == Phase::Stopped && o.instance_id.is_empty();
    let gone = rig.until_node(one.uid, "is removed", is_gone).await;
    assert_eq!((gone.exit_code, gone.exited), (Some(code), true));
    assert_eq!(gone.detail, format!("ended with exit code {code} and was removed"));
    // Said again, it stays so.
    one.interfaces = vec!["eth1".into()];
    let other = rig.instance("r2");
    rig.ensure(&[one.clone(), other.clone()]).await;
    rig.until_phase(other.uid, Phase::Running).await;
    assert!(is_gone(&rig.view.borrow().instances[&one.uid]));
    one.interfaces = Vec::new();
    one.restarts = 1;
    rig.ensure(std::slice::from_ref(&one)).await;
    let anew =
        |o: &Observed| o.restarts == 1 && !o.instance_id.is_empty() && o.instance_id != first.instance_id;
    rig.until_node(one.uid, "is made anew", anew).await;
    rig.until_node(one.uid, "is removed again", is_gone).await;
}

async fn a_node_shares_the_namespace_of_another(rig: Rig) {
    let (mut main, mut side) = (obedient(&rig, "r1"), obedient(&rig, "r2"));
    side.spec.network_mode = NetworkMode::Node("r1".into());
    side.network_of = Some(main.uid);
    rehash(&mut side);
    if rig.has_machines() {
        return rig.expect_refused(&side, "networks of others").await;
    }
    rig.sync(std::slice::from_ref(&side)).await;
    let waits =
        |o: &Observed| o.phase == Phase::Absent && o.detail.starts_with("waits for r1, whose network");
    rig.until_node(side.uid, "waits", waits).await;
    rig.ensure(std::slice::from_ref(&main)).await;
    let first = rig.until_phase(side.uid, Phase::Running).await;
    let main_first = rig.until_phase(main.uid, Phase::Running).await;
    let (main_uid, side_uid) = (main.uid, side.uid);
    let same = async || {
        if rig.is_docker {
            let of = async |uid| rig.sh(uid, "ls -l /proc/1/ns/net | grep -o 'net:.*'").await.0;
            assert_eq!(of(main_uid).await, of(side_uid).await);
        }
    };
    same().await;
    // When the other starts again its namespace is another.
    main.restarts = 1;
    rig.ensure(std::slice::from_ref(&main)).await;
    rig.until_node(main.uid, "restarted", |o| o.phase == Phase::Running && o.restarts == 1).await;
    let again = |o: &Observed| o.phase == Phase::Running && o.start_id != first.start_id;
    let second = rig.until_node(side.uid, "follows", again).await;
    assert_eq!(
        (&second.instance_id, second.restart_count, second.exited),
        (&first.instance_id, 0, false),
        "it is started again, not made anew"
    );
    same().await;
    // When the other is made anew, it must be too.
    main.spec.env.insert("A".into(), "b".into());
    rehash(&mut main);
    rig.ensure(std::slice::from_ref(&main)).await;
    let anew = |o: &Observed| o.phase == Phase::Running && o.instance_id != main_first.instance_id;
    rig.until_node(main.uid, "made anew", anew).await;
    let follows = |o: &Observed| o.phase == Phase::Running && o.instance_id != first.instance_id;
    rig.until_node(side.uid, "made anew too", follows).await;
    same().await;
    // When the other is stopped, it waits.
    main.wanted = Wanted::Stopped;
    rig.ensure(std::slice::from_ref(&main)).await;
    let waits = |o: &Observed| o.phase == Phase::Starting && o.detail.starts_with("waits for r1");
    rig.until_node(side.uid, "waits again", waits).await;
    main.wanted = Wanted::Running;
    rig.ensure(std::slice::from_ref(&main)).await;
    rig.until_phase(side.uid, Phase::Running).await;
    same().await;
}

async fn a_followed_log_goes_on_with_the_next_start(rig: Rig) {
    let mut one = rig.instance("r1");
    let script = "trap 'exit 0' TERM; echo start; while :; do sleep 0.1; done";
    match rig.has_machines() {
        true => rig.program(&mut one, Tiny { says: &[(0, "start")], ends_after: None }),
        false => one.spec.cmd = ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
    }
    rehash(&mut one);
    rig.run(&one).await;
    let request = p::LogsRequest {
        ticket: rig.ticket(one.uid, "logs"),
        uid: one.uid.to_string(),
        follow: true,
        tail: 0,
        after_ns: 0,
    };
    let mut log = rig.client.clone().logs(request).await.unwrap().into_inner();
    let mut text = String::new();
    let mut until = async |starts: usize| {
        while text.matches("start").count() < starts {
            let next = tokio::time::timeout(BOUND, log.message()).await.expect("more comes").unwrap();
            let Some(p::logs_response::Part::Stdout(bytes)) = next.expect("it goes on").part else {
                continue;
            };
            text.push_str(std::str::from_utf8(&bytes).unwrap());
        }
        assert_eq!(text.matches("start").count(), starts, "each once: {text:?}");
    };
    until(1).await;
    // The same container started again, twice, then another one in its place.
    for restarts in 1..=2 {
        one.restarts = restarts;
        rig.ensure(std::slice::from_ref(&one)).await;
        until(1 + restarts as usize).await;
    }
    one.spec.env.insert("A".into(), "b".into());
    rehash(&mut one);
    rig.ensure(std::slice::from_ref(&one)).await;
    until(4).await;
    assert!(rig.remove(&[one.uid], &[]).await.is_empty());
    // What came behind the last word may still come, and then the end.
    let rest = async {
        let mut rest = Vec::new();
        while let Some(part) = log.message().await.unwrap() {
            if let Some(p::logs_response::Part::Stdout(bytes)) = part.part {
                rest.extend(bytes);
            }
        }
        String::from_utf8(rest).unwrap()
    };
    let rest = tokio::time::timeout(BOUND, rest).await.expect("it ends with the node");
    assert!(!rest.contains("start"), "{rest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_stop_at_once() {
    let rig = Rig::sim().await;
    let mut many: Vec<_> = (0..40).map(|n| rig.instance(&format!("r{n}"))).collect();
    for one in &mut many {
        one.spec.labels.insert("sim.stop-ms".into(), "1000".into());
        rehash(one);
    }
    rig.sync(&many).await;
    let all = |phase| {
        let uids: Vec<_> = many.iter().map(|i| i.uid).collect();
        move |v: &crate::rig::View| {
            uids.iter().all(|uid| v.instances.get(uid).is_some_and(|o| o.phase == phase))
        }
    };
    rig.until("all run", all(Phase::Running)).await;
    let stopped: Vec<_> = many.iter().map(|i| Instance { wanted: Wanted::Stopped, ..i.clone() }).collect();
    let asked = Instant::now();
    rig.ensure(&stopped).await;
    rig.until("all are stopped", all(Phase::Stopped)).await;
    assert!(asked.elapsed() < Duration::from_secs(5), "one after the other: {:?}", asked.elapsed());
}
