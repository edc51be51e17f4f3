//! How a loop that looks at everything leaves the machine to others.
//!
//! Such a loop is woken by each of many small changes and does the same whole look each time. Looks that follow each other without a pause tell nothing more than one look a
//! little later, and take the processor from those who make the changes. So the first looks after a quiet time are at once, and what a single change asks for is done by then; who
//! is woken on and on rests before each look, up to a bound.

use std::time::Duration;

use tokio::time::Instant;

/// So many looks after a quiet time are at once.
const AT_ONCE: u32 = 4;
/// So long after a look was due without one is a quiet time.
const QUIET: Duration = Duration::from_millis(60);
/// The first rest; each is twice as long as the one before.
const FIRST: Duration = Duration::from_millis(2);

/// A loop's pace.
#[derive(Debug)]
pub struct Pace {
    longest: Duration,
    looks: u32,
    last: Option<Instant>,
}

impl Pace {
    /// A pace with rests of this length at most: so much later is the last change of many seen.
    pub fn new(longest: Duration) -> Pace {
        Pace { longest, looks: 0, last: None }
    }

    /// Notes a look, which ended just now.
    pub fn looked(&mut self) {
        self.looked_at(Instant::now());
    }

    fn looked_at(&mut self, now: Instant) {
        let due = self.last.map(|last| last + rest(self.looks, self.longest).unwrap_or_default());
        let is_quiet = due.is_none_or(|due| now > due + QUIET);
        self.looks = if is_quiet { 1 } else { self.looks.saturating_add(1) };
        self.last = Some(now);
    }

    /// Waits until the next look is due; to be called when there is something to look for again. Dropped before, it may be called again.
    pub async fn rest(&self) {
        self.rest_at_most(self.longest).await;
    }

    /// The same, where somebody waits for what is looked for.
    pub async fn rest_at_most(&self, longest: Duration) {
        if let Some(due) = self.due(longest) {
            tokio::time::sleep_until(due).await;
        }
    }

    fn due(&self, longest: Duration) -> Option<Instant> {
        Some(self.last? + rest(self.looks, self.longest)?.min(longest))
    }
}

/// How long after so many looks the next one may be.
fn rest(looks: u32, longest: Duration) -> Option<Duration> {
    let doublings = looks.checked_sub(AT_ONCE)?;
    Some(2u32.checked_pow(doublings).map_or(longest, |times| (FIRST * times.min(1 << 16)).min(longest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_millis(20);

    #[test]
    fn rests_grow_with_the_looks_in_a_row_up_to_a_bound() {
        let rests =
            [0, 3, 4, 5, 6, 7, 8, 100, u32::MAX].map(|looks| rest(looks, LONGEST).map(|r| r.as_millis()));
        assert_eq!(rests, [None, None, Some(2), Some(4), Some(8), Some(16), Some(20), Some(20), Some(20)]);
    }

    #[test]
    fn who_is_woken_on_and_on_rests_and_after_a_quiet_time_looks_at_once() {
        let (mut pace, mut now) = (Pace::new(LONGEST), Instant::now());
        let begun = now;
        let mut at = Vec::new();
        for _ in 0..12 {
            now = pace.due(LONGEST).unwrap_or(now).max(now);
            at.push((now - begun).as_millis());
            pace.looked_at(now);
        }
        assert_eq!(at, [0, 0, 0, 0, 2, 6, 14, 30, 50, 70, 90, 110]);
        now += LONGEST + QUIET + FIRST;
        for _ in 1..AT_ONCE {
            pace.looked_at(now);
            assert_eq!(pace.due(LONGEST), None);
        }
        pace.looked_at(now);
        assert_eq!(pace.due(LONGEST), Some(now + FIRST));
        assert_eq!(pace.due(FIRST / 2), Some(now + FIRST / 2));
    }

    #[tokio::test]
    async fn a_rest_that_is_over_is_not_made_up_for() {
        let mut pace = Pace::new(LONGEST);
        (0..50).for_each(|_| pace.looked_at(Instant::now() - LONGEST * 2));
        let begun = Instant::now();
        pace.rest().await;
        assert!(begun.elapsed() < LONGEST);
    }
}
