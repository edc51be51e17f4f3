//! Figures for Prometheus: one registry for the process, and how a program's parts put figures into it.
//!
//! A figure is a `static` beside the code that it counts, made when it is first used:
//!
//! ```
//! use std::sync::LazyLock;
//! use netloom_service::metrics::{self, IntCounter};
//!
//! static MADE: LazyLock<IntCounter> = LazyLock::new(|| metrics::counter("netloom_things_made_total", "Things made."));
//! MADE.inc();
//! assert!(metrics::text().contains("netloom_things_made_total 1"));
//! ```
//!
//! Names begin with `netloom_`; counters end in `_total`, times are in seconds and end in `_seconds`. Labels hold words from short lists, never names that
//! users choose: a figure must not grow with the number of labs. What exists anyway as a level, nodes by state for instance, is read when somebody asks
//! ([`on_scrape`]) and costs nothing otherwise.

use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::{HistogramOpts, HistogramVec, Opts, Registry, TextEncoder, core::Collector};

pub use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

/// What an answer with figures is, in HTTP's words.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds in seconds for calls: from half a millisecond to half a minute.
const CALL_BOUNDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];
/// Upper bounds in seconds for work that takes its time: from a tenth of a second to half an hour.
const WORK_BOUNDS: [f64; 12] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0, 1800.0];

static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::new);
type Source = Box<dyn Fn() -> bool + Send>;
static SOURCES: Mutex<Vec<Source>> = Mutex::new(Vec::new());

/// Adds a figure to those that are told. A name that is taken is a fault in the program, found the first time it runs.
fn registered<C: Collector + Clone + 'static>(figure: prometheus::Result<C>) -> C {
    let figure = figure.expect("a metric's name and labels are valid");
    REGISTRY.register(Box::new(figure.clone())).expect("a metric's name is used once");
    figure
}

/// A count that only grows.
pub fn counter(name: &str, help: &str) -> IntCounter {
    registered(IntCounter::new(name, help))
}

/// Counts that only grow, one for each value of the labels.
pub fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    registered(IntCounterVec::new(Opts::new(name, help), labels))
}

/// Levels, one for each value of the labels.
pub fn gauges(name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    registered(IntGaugeVec::new(Opts::new(name, help), labels))
}

/// How long calls take: half a millisecond to half a minute.
pub fn call_seconds(name: &str, help: &str, labels: &[&str]) -> Durations {
    durations(name, help, labels, &CALL_BOUNDS)
}

/// How long work takes: a tenth of a second to half an hour.
pub fn work_seconds(name: &str, help: &str, labels: &[&str]) -> Durations {
    durations(name, help, labels, &WORK_BOUNDS)
}

fn durations(name: &str, help: &str, labels: &[&str], bounds: &[f64]) -> Durations {
    let options = HistogramOpts::new(name, help).buckets(bounds.to_vec());
    Durations(registered(HistogramVec::new(options, labels)))
}

/// Durations, one histogram for each value of the labels.
#[derive(Clone)]
pub struct Durations(HistogramVec);

impl Durations {
    /// The histogram of these values, to be kept where every nanosecond counts.
    pub fn of(&self, labels: &[&str]) -> Histogram {
        self.0.with_label_values(labels)
    }

    /// Notes one duration.
    pub fn note(&self, labels: &[&str], took: Duration) {
        self.of(labels).observe(took.as_secs_f64());
    }

    /// Awaits a call and notes how long it took. Its last label is `outcome`: `ok` or `failed`.
    pub async fn time<T, E>(
        &self,
        labels: &[&str],
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let begun = Instant::now();
        let outcome = call.await;
        let mut labels = labels.to_vec();
        labels.push(if outcome.is_ok() { "ok" } else { "failed" });
        self.note(&labels, begun.elapsed());
        outcome
    }
}

/// Has a function set levels each time somebody asks for figures, until it returns false.
pub fn on_scrape(source: impl Fn() -> bool + Send + 'static) {
    SOURCES.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(source));
}

/// Says which program runs, in which version: `netloom_build_info`.
pub fn build_info(program: &str, version: &str) {
    static INFO: LazyLock<IntGaugeVec> = LazyLock::new(|| {
        gauges(
            "netloom_build_info",
            "Which program runs, in which version; always 1.",
            &["program", "version"],
        )
    });
    INFO.with_label_values(&[program, version]).set(1);
}

/// All figures in Prometheus' text format.
pub fn text() -> String {
    // Held until the levels are written: two who ask at once do not see half of each other's.
    let mut sources = SOURCES.lock().unwrap_or_else(PoisonError::into_inner);
    sources.retain(|source| source());
    let mut text = String::new();
    if let Err(e) = TextEncoder::new().encode_utf8(&REGISTRY.gather(), &mut text) {
        tracing::error!(error = %e, "figures could not be written");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_when_asked_for_and_not_after_their_source_is_gone() {
        let level = gauges("netloom_test_levels", "A test's.", &["of"]);
        let source = std::sync::Arc::new(());
        let weak = std::sync::Arc::downgrade(&source);
        let asked = level.with_label_values(&["x"]);
        on_scrape(move || {
            asked.inc();
            weak.upgrade().is_some()
        });
        text();
        assert!(text().contains("netloom_test_levels{of=\"x\"} 2"));
        drop(source);
        text();
        text();
        assert_eq!(level.with_label_values(&["x"]).get(), 3);
    }

    #[tokio::test]
    async fn calls_are_timed_by_outcome() {
        let calls = call_seconds("netloom_test_call_seconds", "A test's.", &["call", "outcome"]);
        let ok: Result<u8, ()> = calls.time(&["a"], async { Ok(1) }).await;
        assert_eq!((ok, calls.time(&["a"], async { Err::<u8, u8>(2) }).await), (Ok(1), Err(2)));
        let text = text();
        for outcome in ["ok", "failed"] {
            let line = format!("netloom_test_call_seconds_count{{call=\"a\",outcome=\"{outcome}\"}} 1");
            assert!(text.contains(&line), "{text}");
        }
    }
}
