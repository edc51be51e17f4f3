//! Docker's event stream: which containers of ours changed.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::Docker;
use bollard::models::EventActor;
use bollard::query_parameters::EventsOptionsBuilder;
use futures::future::ready;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};

/// What changes a container's life; all else (exec, attach, resize, …) is noise. Who makes one of ours looks at it by himself.
const LIFE: [&str; 7] = ["start", "die", "destroy", "pause", "unpause", "update", "health_status"];

/// The subscription begins this much in the past, since it begins when the stream is first read. Docker keeps its last events.
const BEFORE: Duration = Duration::from_secs(1);

/// Ids of containers as they change, from now on, also of others that are taken off a network: of which containers a network is, no label
/// tells. Ends with the first error: what was missed then has to be looked for.
pub(super) fn changes(
    client: Docker,
    mut filters: HashMap<&'static str, Vec<String>>,
) -> BoxStream<'static, String> {
    filters.insert("type", vec!["container".to_owned()]);
    filters.insert("event", LIFE.map(str::to_owned).to_vec());
    let words = |word: &str| vec![word.to_owned()];
    let parted = HashMap::from([("type", words("network")), ("event", words("disconnect"))]);
    let lives = told(&client, &filters, |actor| actor.id);
    let parted = told(&client, &parted, |actor| actor.attributes?.remove("container"));
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
    id: fn(EventActor) -> Option<String>,
) -> BoxStream<'static, String> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(BEFORE);
    let since = format!("{}.{:09}", since.as_secs(), since.subsec_nanos());
    let options = EventsOptionsBuilder::default().filters(filters).since(&since).build();
    let events = client.events(Some(options));
    let events = events.take_while(|event| {
        let whole = event.is_ok();
        async move { whole }
    });
    events.filter_map(move |event| ready(event.ok().and_then(|event| id(event.actor?)))).boxed()
}
