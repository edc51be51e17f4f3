//! Timing for the benches: what a piece of work took, and its ratio to a floor.

use std::time::{Duration, Instant};

/// How long the work took.
pub fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let begin = Instant::now();
    let result = work();
    (begin.elapsed(), result)
}

/// Median of so many runs.
pub fn median(runs: usize, mut work: impl FnMut() -> Duration) -> Duration {
    let mut times: Vec<Duration> = (0..runs).map(|_| work()).collect();
    times.sort();
    times[times.len() / 2]
}

/// Prints a row: what was measured, the floor, and their ratio beside the bar it should stay under.
pub fn row(what: &str, measured: Duration, floor: Duration, bar: f64) {
    let ratio = measured.as_secs_f64() / floor.as_secs_f64();
    let verdict = if ratio <= bar { "within" } else { "OVER" };
    println!("{what:<44} {measured:>12.3?} {floor:>12.3?} {ratio:>9.4} {verdict:>7} {bar}");
}
