//! Timing for the benches, and the table that they fill: what a piece of work took, and how it compares.
//!
//! A row says a ratio against a floor that was measured in the same run, in turns with what is measured, so that whatever else the machine does is done to both. Where
//! there is no floor a row says a figure and its bound, or just the figure.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// What a row says of its bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Within,
    Over,
    NoBar,
}

#[derive(Debug, Clone)]
struct Row {
    what: String,
    measured: String,
    floor: String,
    ratio: String,
    bar: String,
    verdict: Verdict,
}

static ROWS: Mutex<Vec<Row>> = Mutex::new(Vec::new());

/// True when sizes are to be small, to see that the benches work: `NETLOOM_BENCH_QUICK=1`. Such a run says nothing of bars.
pub fn quick() -> bool {
    std::env::var_os("NETLOOM_BENCH_QUICK").is_some_and(|v| !v.is_empty() && v != "0")
}

/// One of two sizes.
pub fn size<T>(whole: T, small: T) -> T {
    if quick() { small } else { whole }
}

/// How long the work took.
pub fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let begin = Instant::now();
    let result = work();
    (begin.elapsed(), result)
}

/// Does both; who goes first takes turns too.
pub fn both<A, B>(round: usize, one: impl FnOnce() -> A, other: impl FnOnce() -> B) -> (A, B) {
    if round.is_multiple_of(2) {
        let one = one();
        (one, other())
    } else {
        let other = other();
        (one(), other)
    }
}

/// Median of so many runs.
pub fn median(runs: usize, mut work: impl FnMut() -> Duration) -> Duration {
    middle((0..runs).map(|_| work()).collect())
}

/// The shortest of so many runs: what the work takes when nothing else gets in its way.
pub fn shortest(runs: usize, work: impl FnMut() -> Duration) -> Duration {
    std::iter::repeat_with(work).take(runs).min().unwrap_or_default()
}

/// Median.
pub fn middle<T: PartialOrd + Copy>(mut all: Vec<T>) -> T {
    all.sort_by(|a, b| a.partial_cmp(b).expect("times and ratios compare"));
    all[all.len() / 2]
}

/// Two things measured in turns.
#[derive(Debug, Clone, Default)]
pub struct Turns {
    pairs: Vec<(Duration, Duration)>,
}

impl Turns {
    /// Measures both so many times, in turns.
    pub fn take(
        rounds: usize,
        mut measured: impl FnMut() -> Duration,
        mut floor: impl FnMut() -> Duration,
    ) -> Turns {
        Turns { pairs: (0..rounds).map(|round| both(round, &mut measured, &mut floor)).collect() }
    }

    /// Notes one turn of each.
    pub fn add(&mut self, measured: Duration, floor: Duration) {
        self.pairs.push((measured, floor));
    }

    /// Median of what is measured.
    pub fn measured(&self) -> Duration {
        middle(self.pairs.iter().map(|p| p.0).collect())
    }

    /// Median of the floor.
    pub fn floor(&self) -> Duration {
        middle(self.pairs.iter().map(|p| p.1).collect())
    }

    /// Median of the turns' ratios: what slows both of a turn does not count.
    pub fn ratio(&self) -> f64 {
        middle(self.pairs.iter().map(|(m, f)| m.as_secs_f64() / f.as_secs_f64()).collect())
    }

    /// Says a row whose ratio is to stay at or under the bar.
    pub fn row(&self, what: &str, bar: f64) {
        let (measured, floor) = (text(self.measured()), text(self.floor()));
        let ratio = self.ratio();
        say(what, &measured, &floor, &format!("{ratio:.4}"), &format!("≤ {bar}"), verdict(ratio <= bar));
    }
}

/// Says a row whose ratio is to stay at or under the bar.
pub fn row(what: &str, measured: Duration, floor: Duration, bar: f64) {
    let ratio = measured.as_secs_f64() / floor.as_secs_f64();
    let verdict = verdict(ratio <= bar);
    say(what, &text(measured), &text(floor), &format!("{ratio:.4}"), &format!("≤ {bar}"), verdict);
}

/// Says a row of figures of which more is better, each with its floor of the same turn: the median of the ratios is to reach the bar.
pub fn at_least(what: &str, unit: &str, turns: &[(f64, f64)], bar: f64) {
    let ratio = middle(turns.iter().map(|(m, f)| m / f).collect());
    let (measured, floor) =
        (middle(turns.iter().map(|t| t.0).collect()), middle(turns.iter().map(|t| t.1).collect()));
    let figure = |n: f64| format!("{n:.1} {unit}");
    let verdict = verdict(ratio >= bar);
    say(what, &figure(measured), &figure(floor), &format!("{ratio:.4}"), &format!("≥ {bar}"), verdict);
}

/// Says a row of figures of which fewer are better: the ratio is to stay at or under the bar.
pub fn at_most(what: &str, unit: &str, measured: f64, floor: f64, bar: f64) {
    let ratio = measured / floor;
    let figure = |n: f64| format!("{n:.1} {unit}");
    let verdict = verdict(measured <= bar * floor);
    say(what, &figure(measured), &figure(floor), &format!("{ratio:.4}"), &format!("≤ {bar}"), verdict);
}

/// Says a figure that is to stay under a bound.
pub fn under(what: &str, unit: &str, measured: f64, bound: f64) {
    let verdict = verdict(measured < bound);
    say(what, &format!("{measured:.2} {unit}"), "", "", &format!("< {bound} {unit}"), verdict);
}

/// Says a time that is to stay under a bound.
pub fn within(what: &str, measured: Duration, bound: Duration) {
    say(what, &text(measured), "", "", &format!("< {}", text(bound)), verdict(measured < bound));
}

/// Says what was measured, which has no bar; `floor` and `ratio` may be empty.
pub fn told(what: &str, measured: &str, floor: &str, ratio: &str) {
    say(what, measured, floor, ratio, "", Verdict::NoBar);
}

/// A time as rows say it.
pub fn text(time: Duration) -> String {
    format!("{time:.3?}")
}

fn verdict(within: bool) -> Verdict {
    if within { Verdict::Within } else { Verdict::Over }
}

fn say(what: &str, measured: &str, floor: &str, ratio: &str, bar: &str, verdict: Verdict) {
    let row = Row {
        what: what.to_owned(),
        measured: measured.to_owned(),
        floor: floor.to_owned(),
        ratio: ratio.to_owned(),
        bar: bar.to_owned(),
        verdict,
    };
    println!("{}", line(&row));
    ROWS.lock().expect("no holder panics").push(row);
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Within => "within",
        Verdict::Over => "OVER",
        Verdict::NoBar => "",
    }
}

fn line(row: &Row) -> String {
    let Row { what, measured, floor, ratio, bar, verdict } = row;
    format!("{what:<64} {measured:>12} {floor:>12} {ratio:>9} {bar:>10} {}", word(*verdict))
}

/// What was measured over its bar.
pub fn over() -> Vec<String> {
    let rows = ROWS.lock().expect("no holder panics");
    rows.iter().filter(|row| row.verdict == Verdict::Over).map(|row| row.what.clone()).collect()
}

/// The head of what is printed as rows come.
pub fn head() -> String {
    let [what, measured, floor, ratio, bar] = ["what", "measured", "floor", "ratio", "bar"];
    format!("{what:<64} {measured:>12} {floor:>12} {ratio:>9} {bar:>10}")
}

/// All rows so far, as a table for a page.
pub fn table() -> String {
    let mut text = "| what | measured | floor | ratio | bar | |\n|---|---|---|---|---|---|\n".to_owned();
    for Row { what, measured, floor, ratio, bar, verdict } in ROWS.lock().expect("no holder panics").iter() {
        let _ = writeln!(text, "| {what} | {measured} | {floor} | {ratio} | {bar} | {} |", word(*verdict));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_slows_both_of_a_turn_does_not_count() {
        let mut turns = Turns::default();
        for (measured, floor) in [(10, 10), (100, 50), (40, 20), (4, 2), (90, 30)] {
            turns.add(Duration::from_millis(measured), Duration::from_millis(floor));
        }
        assert_eq!((turns.measured().as_millis(), turns.floor().as_millis()), (40, 20));
        assert!((turns.ratio() - 2.0).abs() < 1e-9);
    }

    #[test]
    fn a_row_says_on_which_side_of_its_bar_it_is() {
        row("slow", Duration::from_millis(3), Duration::from_millis(1), 2.0);
        row("quick", Duration::from_millis(1), Duration::from_millis(1), 2.0);
        at_least("much", "Gbit/s", &[(9.0, 10.0)], 0.85);
        at_most("few", "links", 12.0, 10.0, 1.1);
        under("small", "MB", 70.0, 60.0);
        told("seen", "3 ms", "", "");
        let table = table();
        let all = over();
        assert!(all.contains(&"slow".to_owned()) && !all.contains(&"quick".to_owned()), "{all:?}");
        let of = |what: &str| table.lines().find(|l| l.contains(what)).expect("a row").to_owned();
        assert!(["slow", "few", "small"].iter().all(|row| of(row).contains("OVER")), "{table}");
        assert!(of("quick").contains("within") && of("much").contains("within"), "{table}");
        assert!(!of("seen").contains("within") && !of("seen").contains("OVER"), "{table}");
    }
}
