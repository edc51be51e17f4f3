//! Asks a node whether it is ready, in the way that its kind says: now and then, until it is or the time is over.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use futures::StreamExt as _;
use netloom_model::observed::NOT_READY;
use netloom_model::slice::{Readiness, ReadinessCheck};
use netloom_model::words;
use regex::bytes::Regex;
use tokio::net::TcpStream;

use crate::driver::{Driver, Lines, Output};
use crate::exec_runs::{one, shown};
use crate::table::ExecJob;

/// Pause after the first question; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Longest time that an answer takes: a command that hangs must not take all the time there is.
const LONGEST_ANSWER: Duration = Duration::from_secs(20);
/// Longest time that a port has to answer: it is beside its host.
const LONGEST_CONNECT: Duration = Duration::from_secs(2);
/// So many of the last lines are told when the time is over.
const LAST_LINES: usize = 5;
/// Least time for an answer, also when the time is over.
const LEAST_ANSWER: Duration = Duration::from_secs(2);
/// A runtime notes the time of a start a little after it, and the process may have written by then.
const BEFORE_START_NS: i64 = 1_000_000_000;

/// The questions to a node in one start.
pub struct Asking {
    readiness: Readiness,
    /// Of its log; `Err` says what is wrong with it.
    pattern: Result<Regex, String>,
    since_us: i64,
    /// Of the last line that was read.
    log_ns: i64,
    /// The last lines.
    said: VecDeque<String>,
    pause: Duration,
}

impl Asking {
    /// Asked since then of a start of that time, both in microseconds since 1970.
    pub fn new(readiness: Readiness, since_us: i64, started_us: i64) -> Asking {
        let pattern = match &readiness.check {
            ReadinessCheck::LogPattern(pattern) => pattern.as_str(),
            ReadinessCheck::Command(_) | ReadinessCheck::TcpPort(_) => "",
        };
        let pattern =
            Regex::new(pattern).map_err(|e| format!("/{pattern}/ is not a regular expression: {e}"));
        let log_ns = started_us.saturating_mul(1000).saturating_sub(BEFORE_START_NS).max(0);
        Asking { readiness, pattern, since_us, log_ns, said: VecDeque::new(), pause: FIRST_PAUSE }
    }

    /// True when this is what it asks.
    pub fn is_of(&self, readiness: &Readiness) -> bool {
        self.readiness == *readiness
    }

    /// The time that its kind gives it.
    pub fn bound(&self) -> Duration {
        Duration::from_secs(self.readiness.timeout_seconds.into())
    }

    /// Asks once. `Err` says what was waited for in vain, when the time is over; none when it is to be asked again, after a pause that is over then.
    pub async fn ask(&mut self, driver: &dyn Driver, job: &ExecJob) -> Option<Result<(), String>> {
        let bound = self.left().clamp(LEAST_ANSWER, LONGEST_ANSWER);
        let answer = match self.readiness.check.clone() {
            ReadinessCheck::Command(argv) => tokio::time::timeout(bound, one(driver, job, argv)).await,
            ReadinessCheck::LogPattern(_) => tokio::time::timeout(bound, self.look(driver, &job.id)).await,
            ReadinessCheck::TcpPort(port) => Ok(connect(driver, &job.id, port).await),
        };
        let why = match answer {
            Ok(Ok(())) => return Some(Ok(())),
            Ok(Err(why)) => why,
            Err(_) => format!("did not end within {} s", bound.as_secs()),
        };
        let left = self.left();
        if left.is_zero() {
            let (what, seconds) = (what(&self.readiness.check), self.readiness.timeout_seconds);
            return Some(Err(format!("{NOT_READY} {seconds} s: {what} {why}{}", self.last_words())));
        }
        tokio::time::sleep(self.pause.min(left)).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        None
    }

    /// Looks through the lines that came since it last did.
    async fn look(&mut self, driver: &dyn Driver, id: &str) -> Result<(), String> {
        let pattern = self.pattern.clone()?;
        let lines = Lines { follow: false, tail: 0, after_ns: self.log_ns };
        let mut log = driver.logs(id, lines).await.map_err(|e| format!("cannot be read: {e}"))?;
        while let Some(line) = log.next().await {
            let line = line.map_err(|e| format!("cannot be read: {e}"))?;
            // One without a time is not the last.
            if line.at_ns != i64::MAX {
                self.log_ns = self.log_ns.max(line.at_ns);
            }
            if let Output::Stdout(text) | Output::Stderr(text) = &line.output {
                if pattern.is_match(text.trim_ascii_end()) {
                    return Ok(());
                }
                self.note(text);
            }
        }
        Err(format!("has no line that matches /{pattern}/"))
    }

    /// Keeps the last lines that say something.
    fn note(&mut self, text: &[u8]) {
        let text = String::from_utf8_lossy(text);
        let text: String = text.trim().chars().filter(|c| !c.is_control()).collect();
        if !text.is_empty() {
            self.said.push_back(shown(&text));
            self.said.drain(..self.said.len().saturating_sub(LAST_LINES));
        }
    }

    /// What it said last, for people.
    fn last_words(&self) -> String {
        let lines: Vec<&str> = self.said.iter().map(String::as_str).collect();
        if lines.is_empty() { String::new() } else { format!("; it ends: {}", lines.join(" | ")) }
    }

    /// What is left of the time.
    fn left(&self) -> Duration {
        let passed = jiff::Timestamp::now().as_microsecond().saturating_sub(self.since_us);
        let passed = Duration::from_micros(u64::try_from(passed).unwrap_or_default());
        Duration::from_secs(self.readiness.timeout_seconds.into()).saturating_sub(passed)
    }
}

/// Connects to a port at one of its management addresses, as they are read back now.
async fn connect(driver: &dyn Driver, id: &str, port: NonZeroU16) -> Result<(), String> {
    let found = driver.inspect(id).await.map_err(|e| format!("cannot be asked: {e}"))?;
    let addresses = found.into_iter().flat_map(|found| [found.mgmt_ipv4, found.mgmt_ipv6]);
    let mut why = "cannot be asked: it has no management address".to_owned();
    for address in addresses.filter_map(|address| address.parse::<IpAddr>().ok()) {
        let tried = tokio::time::timeout(LONGEST_CONNECT, TcpStream::connect((address, port.get()))).await;
        why = match tried {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(e)) => format!("does not answer at {address}: {e}"),
            Err(_) => format!("does not answer at {address} within {} s", LONGEST_CONNECT.as_secs()),
        };
    }
    Err(why)
}

/// What is said while it is waited for.
pub fn waiting(readiness: &Readiness) -> String {
    let what = what(&readiness.check);
    match &readiness.check {
        ReadinessCheck::Command(_) => format!("waits until it is ready: {what} is to end with 0"),
        ReadinessCheck::LogPattern(pattern) => {
            format!("waits until it is ready: {what} is to say /{pattern}/")
        }
        ReadinessCheck::TcpPort(_) => format!("waits until it is ready: {what} is to answer"),
    }
}

/// What is asked, on one line.
fn what(check: &ReadinessCheck) -> String {
    match check {
        ReadinessCheck::Command(argv) => {
            let words: Vec<String> = words::join(argv).split_whitespace().map(str::to_owned).collect();
            format!("\"{}\"", shown(&words.join(" ")))
        }
        ReadinessCheck::LogPattern(_) => "its log".to_owned(),
        ReadinessCheck::TcpPort(port) => format!("TCP port {port} of its management address"),
    }
}
