//! What was tried with an instance since this service started: pauses between tries, and what went wrong.

use std::time::{Duration, Instant};

use crate::plan::Step;

/// A node that ran this long is healthy: its back-off begins anew.
const HEALTHY: Duration = Duration::from_secs(60);
/// A process that ended sooner than this may well do so again: its next start is believed only when it has run for as long as was paused before.
const SHORT: Duration = Duration::from_secs(10);
/// The longest pause between two tries.
const LONGEST: Duration = Duration::from_secs(60);
/// Pause where something of ours is about to go out of the way.
pub const SOON: Duration = Duration::from_millis(500);

/// Pauses of 1 s, doubling to 60 s.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    /// How many there were.
    pub tries: u32,
}

impl Backoff {
    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        let pause = Duration::from_secs(1u64 << self.tries.min(6)).min(LONGEST);
        self.tries = self.tries.saturating_add(1);
        pause
    }
}

/// A step that did not work.
#[derive(Debug, Clone)]
pub struct Failed {
    /// Which.
    pub step: Step,
    /// Why, in words.
    pub message: String,
    /// What is in the way goes by itself.
    pub passing: bool,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// Ends in a row.
    pub restarts: Backoff,
    failures: Backoff,
    /// Nothing is tried before then.
    pub retry_at: Option<Instant>,
    /// What did not work last.
    pub failure: Option<Failed>,
    /// The pause after its last end.
    pause: Duration,
    /// Why it pauses, in words.
    pub pausing: String,
    /// The start that ended last, as long as none was seen to run since.
    pub ended: Option<String>,
    /// It ended since the step that is being taken began.
    ended_meanwhile: bool,
    /// How long the next start is to run before it is believed, where the one before ended soon.
    doubt: Option<Duration>,
    /// The start that runs is believed from then on; none where nothing speaks against it.
    pub believed_at: Option<Instant>,
    /// What is said until then.
    pub doubting: String,
    /// How often it was restarted after its process ended by itself.
    pub restart_count: u32,
    /// Exit code when its process last ended.
    pub exit_code: Option<i32>,
    /// It was stopped on demand and is to run again, whatever its restart policy says.
    pub start_demanded: bool,
    /// What may change while it lives is not up to date.
    pub stale: bool,
    /// Since when nothing but its own delay keeps it from being made.
    pub free_since: Option<Instant>,
}

impl Memory {
    /// Nothing was tried yet of what ended before.
    pub fn after(exit_code: Option<i32>) -> Memory {
        Memory { exit_code, ..Memory::default() }
    }

    /// Its process was seen to have ended, after running for so long; `asked` when it was stopped on demand.
    pub fn ended(&mut self, start: &str, ran: Duration, code: i32, asked: bool, now: Instant) {
        if self.ended.as_deref() == Some(start) {
            // That it ended may be known before how.
            return self.tell(code);
        }
        self.ended = Some(start.to_owned());
        self.ended_meanwhile = true;
        (self.doubt, self.believed_at) = (None, None);
        if ran >= HEALTHY || asked {
            self.restarts = Backoff::default();
        }
        if !asked {
            self.pause = self.restarts.pause();
            self.retry_at = Some(now + self.pause);
            self.doubt = (ran < SHORT).then_some(self.pause);
        }
        self.tell(code);
    }

    /// How its process last ended.
    fn tell(&mut self, code: i32) {
        self.exit_code = Some(code);
        let pause = self.pause.as_secs();
        self.pausing = format!("exited with {code}; starts again in {pause} s");
        self.doubting =
            format!("exited with {code} and was started again; ready when it has run for {pause} s");
    }

    /// A start of ours was seen to run. It counts as a restart when its process had ended by itself, which is told.
    pub fn began(&mut self, by_itself: bool, now: Instant) {
        if self.ended.take().is_some() && by_itself && !self.start_demanded {
            self.restart_count += 1;
            self.believed_at = self.doubt.take().map(|pause| now + pause);
        }
    }

    /// True the first time that a start was believed which was not before.
    pub fn comes_to_believe(&mut self, now: Instant) -> bool {
        self.believed_at.take_if(|at| *at <= now).is_some()
    }

    /// A step is being taken. What changes from now on, it does not know of.
    pub fn begins(&mut self, step: Step) {
        self.ended_meanwhile = false;
        if matches!(step, Step::Create | Step::Start | Step::Refresh) {
            self.stale = false;
        }
    }

    /// A step worked.
    pub fn worked(&mut self, step: Step) {
        self.failure = None;
        self.failures = Backoff::default();
        match step {
            Step::Create | Step::Start => {
                // What it started may have ended before that was known: then there is a pause all the same.
                if !self.ended_meanwhile {
                    self.retry_at = None;
                }
                self.start_demanded = false;
            }
            Step::Refresh => {}
            Step::Stop | Step::Halt | Step::SetAside | Step::Remove => self.retry_at = None,
            // It is to run again, however it came to stand aside.
            Step::BringBack => (self.retry_at, self.start_demanded) = (None, true),
        }
    }

    /// A step did not work. What is `passing` (an earlier node that is just being removed, a runtime that is just being restarted) is no failure of the instance.
    pub fn failed(&mut self, step: Step, message: String, passing: bool, now: Instant) {
        self.stale |= step == Step::Refresh;
        let pause = if passing { SOON } else { self.failures.pause() };
        self.retry_at = Some(now + pause);
        self.failure = Some(Failed { step, message, passing });
    }

    /// It is to be another: what was tried with the former says nothing.
    pub fn renew(&mut self) {
        *self = Memory {
            restart_count: self.restart_count,
            exit_code: self.exit_code,
            free_since: self.free_since,
            ..Memory::default()
        };
    }

    /// What was wrong may be right now (the runtime answers again): tries at once.
    pub fn forgive(&mut self) {
        if self.failure.take().is_some() {
            self.failures = Backoff::default();
            self.retry_at = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_a_minute() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u64> = (0..8).map(|_| backoff.pause().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn one_end_is_counted_once_and_a_long_run_forgives() {
        let (now, short, long) = (Instant::now(), Duration::from_secs(2), Duration::from_secs(61));
        let mut memory = Memory::default();
        memory.ended("1", short, 1, false, now);
        memory.ended("1", short, 1, false, now + Duration::from_secs(9));
        assert_eq!(memory.retry_at, Some(now + Duration::from_secs(1)));
        memory.began(true, now);
        memory.began(true, now);
        memory.worked(Step::Start);
        memory.ended("2", short, 1, false, now);
        assert_eq!((memory.restart_count, memory.retry_at), (1, Some(now + Duration::from_secs(2))));
        memory.began(false, now);
        assert_eq!(memory.restart_count, 1, "one that was asked for does not count");
        memory.worked(Step::Start);
        memory.ended("3", long, 1, false, now);
        assert_eq!(memory.retry_at, Some(now + Duration::from_secs(1)));
    }

    #[test]
    fn how_a_process_ended_may_be_known_later_than_that_it_did() {
        let (now, short) = (Instant::now(), Duration::from_secs(2));
        let mut memory = Memory::default();
        memory.ended("1", short, 137, false, now);
        memory.ended("1", short, 0, false, now + short);
        assert_eq!((memory.exit_code, memory.retry_at), (Some(0), Some(now + Duration::from_secs(1))));
        assert_eq!(memory.pausing, "exited with 0; starts again in 1 s");
    }

    #[test]
    fn a_start_after_a_short_run_is_believed_once_it_lasts_as_long_as_the_pause() {
        let (begun, second) = (Instant::now(), Duration::from_secs(1));
        let mut memory = Memory::default();
        memory.ended("1", second, 3, false, begun);
        memory.worked(Step::Start);
        memory.began(true, begun + second);
        assert_eq!(memory.believed_at, Some(begun + 2 * second));
        assert_eq!(memory.doubting, "exited with 3 and was started again; ready when it has run for 1 s");
        assert!(!memory.comes_to_believe(begun + second));
        assert!(memory.comes_to_believe(begun + 2 * second));
        assert!(!memory.comes_to_believe(begun + 3 * second), "once");
        // The next time it is to last for longer; and one that ended meanwhile is not believed by and by.
        memory.ended("2", second, 3, false, begun);
        memory.began(true, begun);
        assert_eq!(memory.believed_at, Some(begun + 2 * second));
        memory.ended("3", second, 3, false, begun);
        assert_eq!(memory.believed_at, None);
        // One that somebody asked for, or that had run for long, is believed at once.
        memory.began(false, begun);
        assert_eq!(memory.believed_at, None);
        memory.ended("4", 11 * second, 3, false, begun);
        memory.began(true, begun);
        assert_eq!(memory.believed_at, None);
    }
    #[test]
    fn a_process_that_ends_before_its_start_is_known_is_paused_for_too() {
        let (now, none) = (Instant::now(), Duration::ZERO);
        let mut memory = Memory::default();
        memory.begins(Step::Create);
        memory.ended("1", none, 3, false, now);
        memory.worked(Step::Create);
        assert_eq!(memory.retry_at, Some(now + Duration::from_secs(1)));
        memory.begins(Step::Create);
        memory.worked(Step::Start);
        assert_eq!(memory.retry_at, None);
    }
}
