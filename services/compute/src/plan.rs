//! What to do next with an instance, and what to say of it: pure decisions from what is wanted, what exists, and what was tried before.
//!
//! netloom restarts nodes itself, by the node's policy and with back-off, since a runtime's own restarts know nothing of links. What cannot be made is tried again the same way.

use std::time::{Duration, Instant};

use netloom_model::observed::Phase;
use netloom_model::slice::Instance;
use netloom_model::spec::RestartPolicy;
use netloom_model::state::Wanted;

use crate::driver::{Found, Process};

/// A node that ran this long is healthy: its back-off begins anew.
const HEALTHY: Duration = Duration::from_secs(60);
/// The longest pause between two tries.
const LONGEST: Duration = Duration::from_secs(60);
/// So many ends in a row and it counts as failed, though it is still tried.
const HOPELESS: u32 = 3;
/// Pause where something of ours is about to go out of the way.
const SOON: Duration = Duration::from_millis(500);

/// Pauses of 1 s, doubling to 60 s.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    tries: u32,
}

impl Backoff {
    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        let pause = Duration::from_secs(1u64 << self.tries.min(6)).min(LONGEST);
        self.tries = self.tries.saturating_add(1);
        pause
    }
}

/// What is asked of an instance.
#[derive(Debug, Clone, Copy)]
pub enum Want<'a> {
    /// Nothing was said: it is left alone.
    Unsaid,
    /// It is in the slice.
    Keep(&'a Instance),
    /// It is to be removed.
    Gone,
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Makes and starts it.
    Create,
    /// Starts what exists.
    Start,
    /// Stops it, keeping its disk.
    Stop,
    /// Removes it.
    Remove,
    /// Brings what may change while it lives (host entries, the list of interfaces) up to date.
    Refresh,
}

/// What is to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing until something changes.
    Nothing,
    /// Nothing before then.
    At(Instant),
    /// This, now.
    Do(Step),
}

/// A step that did not work.
#[derive(Debug, Clone)]
struct Failed {
    message: String,
    /// What is in the way goes by itself.
    passing: bool,
}

/// What was tried before.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    restarts: Backoff,
    failures: Backoff,
    retry_at: Option<Instant>,
    failure: Option<Failed>,
    pausing: String,
    ended: Option<String>,
    /// How often it was restarted after its process ended by itself.
    pub restart_count: u32,
    /// Exit code when its process last ended.
    pub exit_code: Option<i32>,
    /// It was stopped on demand and is to run again, whatever its restart policy says.
    pub start_demanded: bool,
    /// What may change while it lives is not up to date.
    pub stale: bool,
}

impl Memory {
    /// Its process was seen to have ended, after running for so long; `asked` when it was stopped on demand.
    pub fn ended(&mut self, start: &str, ran: Duration, code: i32, asked: bool, now: Instant) {
        if self.ended.as_deref() == Some(start) {
            return;
        }
        self.ended = Some(start.to_owned());
        self.exit_code = Some(code);
        if ran >= HEALTHY || asked {
            self.restarts = Backoff::default();
        }
        if asked {
            return;
        }
        let pause = self.restarts.pause();
        self.retry_at = Some(now + pause);
        self.pausing = format!("{}; starts again in {} s", exited(code), pause.as_secs());
    }

    /// A start of ours was seen to run. It counts as a restart when its process had ended by itself.
    pub fn began(&mut self) {
        if self.ended.take().is_some() && !self.start_demanded {
            self.restart_count += 1;
        }
    }

    /// A step worked.
    pub fn worked(&mut self, step: Step) {
        self.failure = None;
        self.failures = Backoff::default();
        match step {
            Step::Create | Step::Start => {
                self.retry_at = None;
                self.stale = false;
                self.start_demanded = false;
            }
            Step::Refresh => self.stale = false,
            Step::Stop | Step::Remove => self.retry_at = None,
        }
    }

    /// A step did not work. What is `passing` (an earlier node that is just being removed, a runtime that is just being restarted) is no failure of the instance.
    pub fn failed(&mut self, message: String, passing: bool, now: Instant) {
        let pause = if passing { SOON } else { self.failures.pause() };
        self.retry_at = Some(now + pause);
        self.failure = Some(Failed { message, passing });
    }

    /// It is to be another: what was tried with the former says nothing.
    pub fn renew(&mut self) {
        *self = Memory { restart_count: self.restart_count, exit_code: self.exit_code, ..Memory::default() };
    }

    /// What was wrong may be right now (the runtime answers again): tries at once.
    pub fn forgive(&mut self) {
        if self.failure.take().is_some() {
            self.failures = Backoff::default();
            self.retry_at = None;
        }
    }
}

/// Everything that a decision follows from.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// A Sync was taken since the service started.
    pub synced: bool,
    /// The runtime answers.
    pub answers: bool,
    /// What is asked.
    pub want: Want<'a>,
    /// What exists.
    pub found: Option<&'a Found>,
    /// What is being done.
    pub doing: Option<Step>,
    /// What was tried.
    pub memory: &'a Memory,
}

/// What is to happen next.
pub fn next(s: &Situation<'_>, now: Instant) -> Next {
    if !s.synced || !s.answers || s.doing.is_some() {
        return Next::Nothing;
    }
    let instance = match s.want {
        Want::Unsaid => return Next::Nothing,
        Want::Gone => return Next::Do(Step::Remove),
        Want::Keep(instance) => instance,
    };
    let step = match s.found {
        None if instance.wanted == Wanted::Running => Step::Create,
        None => return Next::Nothing,
        Some(found) if found.process == Process::Removing => return Next::Nothing,
        Some(found) if found.spec_hash != instance.spec_hash => Step::Remove,
        Some(found) => match (&found.process, instance.wanted) {
            (Process::Running { .. }, Wanted::Running) if s.memory.stale => Step::Refresh,
            (Process::Running { .. }, Wanted::Running) => return Next::Nothing,
            (Process::Running { .. }, _) => Step::Stop,
            (Process::Created, Wanted::Running) => Step::Start,
            (Process::Ended { code, .. }, Wanted::Running) if restarts(instance, s.memory, *code) => {
                Step::Start
            }
            _ => return Next::Nothing,
        },
    };
    // A pause is between two starts or two tries; a stop or a changed spec does not wait for it.
    let paused = matches!(step, Step::Create | Step::Start) || s.memory.failure.is_some();
    match s.memory.retry_at {
        Some(at) if paused && at > now && !(s.memory.start_demanded && s.memory.failure.is_none()) => {
            Next::At(at)
        }
        _ => Next::Do(step),
    }
}

/// Where the instance is in its life, and why.
pub fn phase(s: &Situation<'_>) -> (Phase, String) {
    if !s.answers {
        return (Phase::Unknown, "its runtime does not answer".to_owned());
    }
    let wants_running = matches!(s.want, Want::Keep(i) if i.wanted == Wanted::Running);
    let of_process = || match s.found.map(|f| &f.process) {
        None => (Phase::Absent, String::new()),
        Some(Process::Removing) => (Phase::Stopping, String::new()),
        Some(Process::Running { .. }) => (Phase::Running, String::new()),
        Some(Process::Created) if wants_running => (Phase::Starting, String::new()),
        Some(Process::Created) => (Phase::Stopped, "never started".to_owned()),
        Some(Process::Ended { code, error }) => match s.want {
            Want::Keep(i) if wants_running && restarts(i, s.memory, *code) => {
                let hopeless = s.memory.restarts.tries > HOPELESS;
                let phase = if hopeless { Phase::Failed } else { Phase::Starting };
                (phase, s.memory.pausing.clone() + &hint(i, *code) + &times(s.memory.restarts.tries))
            }
            // By itself, and its policy leaves it so.
            Want::Keep(i) if wants_running => {
                (Phase::Stopped, format!("ended with exit code {code}") + &hint(i, *code))
            }
            Want::Keep(i) => (Phase::Stopped, exited(*code) + &hint(i, *code)),
            _ if error.is_empty() => (Phase::Stopped, exited(*code)),
            _ => (Phase::Stopped, error.clone()),
        },
    };
    match (&s.memory.failure, s.doing) {
        (_, Some(Step::Remove | Step::Stop)) => (Phase::Stopping, String::new()),
        // Said as long as it holds, also while it is tried again: else the state would change with each try.
        (Some(failure), _) => {
            let phase = match s.found {
                _ if !failure.passing => Phase::Failed,
                None => Phase::Creating,
                Some(_) => Phase::Starting,
            };
            (phase, failure.message.clone())
        }
        (None, Some(Step::Create)) => match of_process() {
            (Phase::Absent, detail) => (Phase::Creating, detail),
            other => other,
        },
        (None, Some(Step::Start)) => match of_process() {
            running @ (Phase::Running, _) => running,
            _ => (Phase::Starting, String::new()),
        },
        (None, Some(Step::Refresh) | None) => of_process(),
    }
}

fn restarts(instance: &Instance, memory: &Memory, code: i32) -> bool {
    memory.start_demanded
        || match instance.spec.restart_policy {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => code != 0,
            RestartPolicy::Never => false,
        }
}

fn exited(code: i32) -> String {
    format!("exited with {code}")
}

fn times(tries: u32) -> String {
    if tries > 1 { format!("; ended {tries} times in a row") } else { String::new() }
}

/// 75 is what the interface wait ends with.
fn hint(instance: &Instance, code: i32) -> String {
    if code == 75 && !instance.spec.skip_interface_wait {
        " (its interfaces were not there within 60 s; see its log)".to_owned()
    } else {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::testing::{found, instance};

    fn at<'a>(want: Want<'a>, found: Option<&'a Found>, memory: &'a Memory) -> Situation<'a> {
        Situation { synced: true, answers: true, want, found, doing: None, memory }
    }

    fn ended(code: i32) -> Found {
        Found { process: Process::Ended { code, error: String::new() }, ..found() }
    }

    #[test]
    fn pauses_double_to_a_minute() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u64> = (0..8).map(|_| backoff.pause().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
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
            assert_eq!(
                next(&at(Want::Keep(&with(policy)), Some(&clean), &memory), now),
                expected,
                "{policy:?}"
            );
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
    fn one_end_is_counted_once_and_a_long_run_forgives() {
        let (now, short, long) = (Instant::now(), Duration::from_secs(2), Duration::from_secs(61));
        let mut memory = Memory::default();
        memory.ended("1", short, 1, false, now);
        memory.ended("1", short, 1, false, now + Duration::from_secs(9));
        assert_eq!(memory.retry_at, Some(now + Duration::from_secs(1)));
        memory.began();
        memory.began();
        memory.worked(Step::Start);
        memory.ended("2", short, 1, false, now);
        assert_eq!((memory.restart_count, memory.retry_at), (1, Some(now + Duration::from_secs(2))));
        memory.worked(Step::Start);
        memory.ended("3", long, 1, false, now);
        assert_eq!(memory.retry_at, Some(now + Duration::from_secs(1)));
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
        memory.failed("no image".into(), false, now);
        let s = at(Want::Keep(&wanted), None, &memory);
        assert_eq!(phase(&s), (Phase::Failed, "no image".into()));
        assert_eq!(phase(&Situation { doing: Some(Step::Create), ..s }).0, Phase::Failed);
        assert_eq!(phase(&Situation { answers: false, ..s }).0, Phase::Unknown);
        assert_eq!(next(&s, now), Next::At(now + Duration::from_secs(1)));
        memory.forgive();
        assert_eq!(next(&at(Want::Keep(&wanted), None, &memory), now), Next::Do(Step::Create));
        memory.failed("waits for another".into(), true, now);
        let s = at(Want::Keep(&wanted), None, &memory);
        assert_eq!(phase(&s), (Phase::Creating, "waits for another".into()));
        assert_eq!(next(&s, now), Next::At(now + SOON));
    }
}
