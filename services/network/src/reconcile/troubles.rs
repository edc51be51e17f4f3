//! What failed: when it is tried again, and what the log has of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use netloom_model::id::WireId;

use crate::netns::Starts;
use crate::plan::Trouble;

/// How long a problem lasts before the log has it.
const LASTING: Duration = Duration::from_secs(1);
/// How long a failed effect rests, at first and at most.
const REST: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Effects that failed, by what they were for.
pub struct Troubles {
    resting: HashMap<WireId, Rest>,
    /// The slice and the namespaces that failures were met with: a change of either is a reason to try again.
    tried_with: (u64, Arc<Starts>),
}

/// When a failed effect is tried again.
struct Rest {
    message: String,
    until: Instant,
    length: Duration,
}

impl Troubles {
    /// None yet, with this slice and these namespaces.
    pub fn new(revision: u64, starts: Arc<Starts>) -> Troubles {
        Troubles { resting: HashMap::new(), tried_with: (revision, starts) }
    }

    /// What there is of them, with this slice and these namespaces.
    pub fn with(&mut self, revision: u64, starts: &Arc<Starts>) -> BTreeMap<WireId, Trouble> {
        let now = Instant::now();
        let tried_with = (revision, starts.clone());
        if self.tried_with != tried_with {
            self.tried_with = tried_with;
            self.resting.values_mut().for_each(|rest| rest.until = now);
        }
        let trouble = |(wire, rest): (&WireId, &Rest)| {
            let (resting, lasts) = (rest.until > now, rest.length > LASTING);
            (*wire, Trouble { message: rest.message.clone(), resting, lasts })
        };
        self.resting.iter().map(trouble).collect()
    }

    /// Notes how an effect went.
    pub fn note(&mut self, wire: WireId, outcome: Result<(), String>) {
        let Err(message) = outcome else {
            self.resting.remove(&wire);
            return;
        };
        let before = self.resting.get(&wire);
        if before.is_none_or(|rest| rest.message != message) {
            tracing::warn!(wire = wire.get(), "{message}");
        }
        let length = before.map_or(REST.0, |rest| (rest.length * 2).min(REST.1));
        self.resting.insert(wire, Rest { message, until: Instant::now() + length, length });
    }

    /// How long until the next one is tried again.
    pub fn due(&self) -> Option<Duration> {
        let now = Instant::now();
        self.resting.values().filter_map(|rest| rest.until.checked_duration_since(now)).min()
    }
}

/// Problems of the host: since when each is there, and whether the log has it.
#[derive(Default)]
pub struct Problems(BTreeMap<String, (Instant, bool)>);

impl Problems {
    /// Logs each problem once while it lasts. One that is over at once is none: at first nobody knows whether ovs-vswitchd takes up changes.
    pub fn log(&mut self, problems: &[String]) {
        self.0.retain(|problem, _| problems.contains(problem));
        for problem in problems {
            let (since, logged) = self.0.entry(problem.clone()).or_insert_with(|| (Instant::now(), false));
            if !*logged && since.elapsed() >= LASTING {
                *logged = true;
                tracing::warn!("{problem}");
            }
        }
    }
}
