use std::sync::LazyLock;

use super::*;
use crate::driver::testing::{found, instance};
use crate::memory::SOON;

static NOTHING: LazyLock<Record> = LazyLock::new(Record::default);

fn at<'a>(want: Want<'a>, found: Option<&'a Found>, memory: &'a Memory) -> Situation<'a> {
    Situation {
        synced: true,
        over: false,
        answers: true,
        want,
        found,
        doing: None,
        memory,
        record: &NOTHING,
        peer: None,
    }
}

fn ended(code: i32) -> Found {
    Found { process: Process::Ended { code, error: String::new() }, ..found() }
}

#[test]
fn nothing_happens_before_sync_or_while_the_runtime_is_silent_or_unasked() {
    let (memory, wanted, now) = (Memory::default(), instance(), Instant::now());
    let keep = at(Want::Keep(&wanted), None, &memory);
    assert_eq!(next(&keep, now), Next::Do(Step::Create));
    assert_eq!(next(&Situation { synced: false, ..keep }, now), Next::Nothing);
    assert_eq!(next(&Situation { synced: false, want: Want::Gone, ..keep }, now), Next::Nothing);
    assert_eq!(next(&Situation { answers: false, ..keep }, now), Next::Nothing);
    assert_eq!(next(&Situation { doing: Some(Step::Create), ..keep }, now), Next::Nothing);
    let extra = ended(1);
    assert_eq!(next(&at(Want::Unsaid, Some(&extra), &memory), now), Next::Nothing);
}

#[test]
fn each_difference_has_its_step() {
    let (mut memory, now) = (Memory::default(), Instant::now());
    let (running, wanted) = (found(), instance());
    let stopped = Instance { wanted: Wanted::Stopped, ..instance() };
    let changed = Instance { spec_hash: "other".into(), ..instance() };
    let created = Found { process: Process::Created, ..found() };
    let of = |want: &Instance, found: Option<&Found>, memory: &Memory| {
        next(&at(Want::Keep(want), found, memory), now)
    };
    assert_eq!(of(&wanted, Some(&running), &memory), Next::Nothing);
    assert_eq!(of(&stopped, Some(&running), &memory), Next::Do(Step::Stop));
    assert_eq!(of(&stopped, None, &memory), Next::Nothing);
    assert_eq!(of(&changed, Some(&running), &memory), Next::Do(Step::Remove));
    assert_eq!(of(&wanted, Some(&created), &memory), Next::Do(Step::Start));
    assert_eq!(next(&at(Want::Gone, None, &memory), now), Next::Do(Step::Remove));
    memory.stale = true;
    assert_eq!(of(&wanted, Some(&running), &memory), Next::Do(Step::Refresh));
}

#[test]
fn what_is_aside_stays_so_until_it_is_wanted_again() {
    let (memory, now) = (Memory::default(), Instant::now());
    let (wanted, aside) = (instance(), Instance { wanted: Wanted::Aside, ..instance() });
    let of = |want: Want<'_>, found: &Found| {
        let s = at(want, Some(found), &memory);
        (next(&s, now), phase(&s).0)
    };
    assert_eq!(of(Want::Keep(&aside), &found()), (Next::Do(Step::SetAside), Phase::Running));
    // Died between its stop and its new name, or of another spec: nothing of it is lost.
    let other = Found { spec_hash: "other".into(), ..ended(0) };
    assert_eq!(of(Want::Keep(&aside), &other), (Next::Do(Step::SetAside), Phase::Stopped));
    let set = Found { aside: true, ..ended(137) };
    assert_eq!(of(Want::Keep(&aside), &set), (Next::Nothing, Phase::Aside));
    assert_eq!(of(Want::Unsaid, &set), (Next::Nothing, Phase::Aside));
    assert_eq!(of(Want::Gone, &set), (Next::Do(Step::Remove), Phase::Aside));
    assert_eq!(of(Want::Keep(&wanted), &set).0, Next::Do(Step::BringBack));
    let mut once = aside;
    once.spec.auto_remove = true;
    assert_eq!(of(Want::Keep(&once), &set).0, Next::Nothing, "it is not removed because its process ended");
}

#[test]
fn a_node_whose_management_network_is_gone_runs_on_and_says_so() {
    let spec = netloom_model::spec::MgmtSpec::default();
    let network = netloom_model::slice::Network {
        name: "net1".into(),
        spec,
        ..netloom_model::slice::Network::default()
    };
    let wanted = Instance { network: Some(network), ..instance() };
    let (memory, now) = (Memory::default(), Instant::now());
    let on_it = Found { networks: ["net1".to_owned()].into(), ..found() };
    assert_eq!(phase(&at(Want::Keep(&wanted), Some(&on_it), &memory)), (Phase::Running, String::new()));
    let lost = found();
    let s = at(Want::Keep(&wanted), Some(&lost), &memory);
    let (state, why) = phase(&s);
    assert_eq!((state, next(&s, now)), (Phase::Running, Next::Nothing));
    assert!(why.contains("management network net1") && why.contains("netloom node restart"), "{why}");
    let mut own = wanted.clone();
    own.spec.network_mode = netloom_model::spec::NetworkMode::Host;
    assert_eq!(phase(&at(Want::Keep(&own), Some(&lost), &memory)).1, "", "it was never on it");
}

#[test]
fn an_end_is_answered_by_policy_and_after_a_pause() {
    let now = Instant::now();
    let with = |policy| {
        let mut i = instance();
        i.spec.restart_policy = policy;
        i
    };
    let mut memory = Memory::default();
    memory.ended("1", Duration::from_secs(1), 0, false, now);
    let clean = ended(0);
    let due = Next::At(now + Duration::from_secs(1));
    for (policy, expected) in [
        (RestartPolicy::Always, due),
        (RestartPolicy::OnFailure, Next::Nothing),
        (RestartPolicy::Never, Next::Nothing),
    ] {
        assert_eq!(next(&at(Want::Keep(&with(policy)), Some(&clean), &memory), now), expected, "{policy:?}");
    }
    let always = with(RestartPolicy::Always);
    let s = at(Want::Keep(&always), Some(&clean), &memory);
    assert_eq!(phase(&s), (Phase::Starting, "exited with 0; starts again in 1 s".into()));
    assert_eq!(next(&s, now + Duration::from_secs(1)), Next::Do(Step::Start));
    let never = with(RestartPolicy::Never);
    let on_failure = with(RestartPolicy::OnFailure);
    for left in [&never, &on_failure] {
        let said = phase(&at(Want::Keep(left), Some(&clean), &memory));
        assert_eq!(said, (Phase::Stopped, "ended with exit code 0".into()));
    }
    let failed = ended(3);
    assert_eq!(phase(&at(Want::Keep(&on_failure), Some(&failed), &memory)).0, Phase::Starting);
    memory.start_demanded = true;
    assert_eq!(next(&at(Want::Keep(&never), Some(&clean), &memory), now), Next::Do(Step::Start));
}

#[test]
fn what_keeps_ending_counts_as_failed() {
    let (now, wanted, dead) = (Instant::now(), instance(), ended(1));
    let mut memory = Memory::default();
    for start in ["1", "2", "3", "4"] {
        memory.ended(start, Duration::ZERO, 1, false, now);
    }
    let (phase, detail) = phase(&at(Want::Keep(&wanted), Some(&dead), &memory));
    assert_eq!(phase, Phase::Failed);
    assert_eq!(detail, "exited with 1; starts again in 8 s; ended 4 times in a row");
}

#[test]
fn a_failure_is_said_until_it_is_over() {
    let (now, wanted) = (Instant::now(), instance());
    let mut memory = Memory::default();
    memory.failed(Step::Create, "no image".into(), false, now);
    let s = at(Want::Keep(&wanted), None, &memory);
    assert_eq!(phase(&s), (Phase::Failed, "no image".into()));
    assert_eq!(phase(&Situation { doing: Some(Step::Create), ..s }).0, Phase::Failed);
    assert_eq!(phase(&Situation { answers: false, ..s }).0, Phase::Unknown);
    assert_eq!(next(&s, now), Next::At(now + Duration::from_secs(1)));
    memory.forgive();
    assert_eq!(next(&at(Want::Keep(&wanted), None, &memory), now), Next::Do(Step::Create));
    memory.failed(Step::Create, "waits for another".into(), true, now);
    let s = at(Want::Keep(&wanted), None, &memory);
    assert_eq!(phase(&s), (Phase::Creating, "waits for another".into()));
    assert_eq!(next(&s, now), Next::At(now + SOON));
}

#[test]
fn what_is_held_or_delayed_waits_and_says_so() {
    let (mut memory, now) = (Memory::default(), Instant::now());
    let mut one = instance();
    one.held = true;
    let held = at(Want::Keep(&one), None, &memory);
    assert_eq!(next(&held, now), Next::Nothing);
    assert_eq!(phase(&held), (Phase::Absent, "waits for other nodes".into()));
    let stopped = ended(0);
    assert_eq!(next(&at(Want::Keep(&one), Some(&stopped), &memory), now), Next::Nothing);
    let runs = found();
    assert_eq!(next(&at(Want::Keep(&one), Some(&runs), &memory), now), Next::Nothing, "it is left running");

    one.held = false;
    one.spec.startup_delay_seconds = 5;
    memory.free_since = Some(now);
    let delayed = at(Want::Keep(&one), None, &memory);
    let due = now + Duration::from_secs(5);
    assert_eq!(next(&delayed, now), Next::At(due));
    assert_eq!(phase(&delayed), (Phase::Absent, "waits for its startup delay of 5 s".into()));
    assert_eq!(next(&delayed, due), Next::Do(Step::Create));
}

#[test]
fn a_restart_that_was_asked_for_is_a_stop_and_a_start_whatever_the_policy() {
    let (memory, now, runs, dead) = (Memory::default(), Instant::now(), found(), ended(143));
    let mut one = instance();
    one.spec.restart_policy = RestartPolicy::Never;
    one.restarts = 2;
    let mut record = Record::default();
    fn of<'a>(one: &'a Instance, found: &'a Found, memory: &'a Memory, record: &'a Record) -> Situation<'a> {
        Situation { record, ..at(Want::Keep(one), Some(found), memory) }
    }
    assert_eq!(next(&of(&one, &runs, &memory, &record), now), Next::Do(Step::Stop));
    assert_eq!(next(&of(&one, &dead, &memory, &record), now), Next::Do(Step::Start));
    assert_eq!(phase(&of(&one, &dead, &memory, &record)), (Phase::Starting, String::new()));
    record.started(&one);
    assert_eq!(next(&of(&one, &runs, &memory, &record), now), Next::Nothing);
    assert_eq!(next(&of(&one, &dead, &memory, &record), now), Next::Nothing);
    record.rests();
    assert_eq!(
        next(&of(&one, &dead, &memory, &record), now),
        Next::Do(Step::Start),
        "it had been stopped on demand"
    );
}

#[test]
fn changed_limits_are_a_refresh() {
    let (memory, now, runs) = (Memory::default(), Instant::now(), found());
    let mut one = instance();
    one.spec.cpu_limit_millis = 500;
    assert_eq!(next(&at(Want::Keep(&one), Some(&runs), &memory), now), Next::Do(Step::Refresh));
    let mut failed = Memory::default();
    failed.failed(Step::Refresh, "no".into(), false, now);
    let s = at(Want::Keep(&one), Some(&runs), &failed);
    assert_eq!(phase(&s), (Phase::Running, "no".into()), "it runs on");
    assert_eq!(next(&s, now), Next::At(now + Duration::from_secs(1)));
}

#[test]
fn what_ends_and_is_to_be_removed_then_is() {
    let (memory, now, dead) = (Memory::default(), Instant::now(), ended(0));
    let mut one = instance();
    one.spec.auto_remove = true;
    assert_eq!(next(&at(Want::Keep(&one), Some(&dead), &memory), now), Next::Do(Step::Remove));
    let mut record = Record::default();
    record.went(&dead);
    let gone = Situation { record: &record, ..at(Want::Keep(&one), None, &memory) };
    assert_eq!(next(&gone, now), Next::Nothing);
    assert_eq!(phase(&gone), (Phase::Stopped, "ended with exit code 0 and was removed".into()));
    one.restarts = 1;
    let asked = Situation { record: &record, ..at(Want::Keep(&one), None, &memory) };
    assert_eq!(next(&asked, now), Next::Do(Step::Create));
}

#[test]
fn a_node_lives_in_the_namespace_of_its_peer() {
    let (memory, now, one) = (Memory::default(), Instant::now(), instance());
    let of = |id: &str, namespace| Found {
        network: NetworkOf::Instance(id.into()),
        namespace: Some(namespace),
        ..found()
    };
    let peer = |id: &str, runs, namespace| Peer { node: "r2".into(), id: id.into(), runs, namespace };
    let step = |found: Option<&Found>, peer: &Peer| {
        next(&Situation { peer: Some(peer), ..at(Want::Keep(&one), found, &memory) }, now)
    };
    let (up, down) = (peer("p", true, Some(7)), peer("p", false, None));
    assert_eq!(step(None, &down), Next::Nothing);
    let waits = Situation { peer: Some(&down), ..at(Want::Keep(&one), None, &memory) };
    assert_eq!(phase(&waits), (Phase::Absent, "waits for r2, whose network namespace it shares".into()));
    assert_eq!(step(None, &up), Next::Do(Step::Create));
    assert_eq!(step(Some(&of("p", 7)), &up), Next::Nothing);
    assert_eq!(step(Some(&of("p", 6)), &up), Next::Do(Step::Stop), "its peer was started anew");
    assert_eq!(step(Some(&of("p", 7)), &peer("p", true, None)), Next::Nothing, "not read, not known");
    assert_eq!(step(Some(&of("p", 7)), &down), Next::Do(Step::Stop));
    assert_eq!(step(Some(&of("old", 7)), &up), Next::Do(Step::Remove), "its peer was made anew");
}

#[test]
fn what_has_no_lease_any_more_is_stopped_and_not_started_whatever_is_asked() {
    let (memory, now) = (Memory::default(), Instant::now());
    let (one, running) = (instance(), found());
    for want in [Want::Unsaid, Want::Gone, Want::Keep(&one)] {
        for synced in [true, false] {
            let s = Situation { synced, over: true, ..at(want, Some(&running), &memory) };
            assert_eq!(next(&s, now), Next::Do(Step::Halt), "{want:?}");
            assert_eq!(next(&Situation { found: None, ..s }, now), Next::Nothing);
            assert_eq!(next(&Situation { answers: false, ..s }, now), Next::Nothing);
        }
    }
}
