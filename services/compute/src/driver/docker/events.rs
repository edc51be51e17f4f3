//! Docker's event stream: which containers of ours changed.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::Docker;
use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use futures::future::ready;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};

/// What changes a container's life; all else (exec, attach, resize, …) is noise. Who makes or starts one of ours looks at it by himself ([`Starts`]).
const LIFE: [&str; 7] = ["start", "die", "destroy", "pause", "unpause", "update", "health_status"];

/// The subscription begins this much in the past, since it begins when the stream is first read. Docker keeps its last events.
const BEFORE: Duration = Duration::from_secs(1);

/// The starts that were asked for here and that Docker has not told of yet: whoever asked looks once the start is made, so its event tells nothing more.
#[derive(Debug, Clone, Default)]
pub(super) struct Starts(Arc<Mutex<HashSet<String>>>);

impl Starts {
    fn with<T>(&self, work: impl FnOnce(&mut HashSet<String>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A container is about to be started.
    pub(super) fn begin(&self, id: &str) {
        self.with(|starts| starts.insert(id.to_owned()));
    }

    /// It was not, as far as is known.
    pub(super) fn failed(&self, id: &str) {
        self.with(|starts| starts.remove(id));
    }

    /// True when an event is the start that was asked for here. What ends a container ends the wait for its start: the next one may be somebody else's.
    fn is_ours(&self, action: &str, id: &str) -> bool {
        match action {
            "start" => self.with(|starts| starts.remove(id)),
            "die" | "destroy" => {
                self.with(|starts| starts.remove(id));
                false
            }
            _ => false,
        }
    }
}

/// Ids of containers as they change, from now on, also of others that are taken off a network: of which containers a network is, no label
/// tells. Ends with the first error: what was missed then has to be looked for.
pub(super) fn changes(
    client: Docker,
    mut filters: HashMap<&'static str, Vec<String>>,
    starts: Starts,
) -> BoxStream<'static, String> {
    filters.insert("type", vec!["container".to_owned()]);
    filters.insert("event", LIFE.map(str::to_owned).to_vec());
    let words = |word: &str| vec![word.to_owned()];
    let parted = HashMap::from([("type", words("network")), ("event", words("disconnect"))]);
    let lives = told(&client, &filters, move |event| {
        let (action, id) = (event.action?, event.actor?.id?);
        (!starts.is_ours(&action, &id)).then_some(id)
    });
    let parted = told(&client, &parted, |event| event.actor?.attributes?.remove("container"));
    // Both end when one does.
    let (lives, parted) = (lives.map(Some).chain(once()), parted.map(Some).chain(once()));
    futures::stream::select(lives, parted).take_while(|id| ready(id.is_some())).filter_map(ready).boxed()
}

fn once<T: Send + 'static>() -> impl Stream<Item = Option<T>> + Send {
    futures::stream::iter([None])
}

fn told(
    client: &Docker,
    filters: &HashMap<&'static str, Vec<String>>,
    id: impl Fn(EventMessage) -> Option<String> + Send + 'static,
) -> BoxStream<'static, String> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(BEFORE);
    let since = format!("{}.{:09}", since.as_secs(), since.subsec_nanos());
    let options = EventsOptionsBuilder::default().filters(filters).since(&since).build();
    let events = client.events(Some(options));
    let events = events.take_while(|event| {
        let whole = event.is_ok();
        async move { whole }
    });
    events.filter_map(move |event| ready(event.ok().and_then(&id))).boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_start_that_was_asked_for_is_no_news_and_every_other_is() {
        let starts = Starts::default();
        assert!(!starts.is_ours("start", "a"), "somebody else's");
        starts.begin("a");
        assert!(!starts.is_ours("start", "b") && !starts.is_ours("update", "a"));
        assert!(starts.is_ours("start", "a"));
        assert!(!starts.is_ours("start", "a"), "it was started again");
        starts.begin("a");
        starts.failed("a");
        assert!(!starts.is_ours("start", "a"), "it was started all the same");
        starts.begin("a");
        assert!(!starts.is_ours("die", "a"), "an end is always news");
        assert!(!starts.is_ours("start", "a"), "and so is the start after it");
    }
}
