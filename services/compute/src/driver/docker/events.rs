//! Docker's event stream: which containers of ours changed.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::Docker;
use bollard::query_parameters::EventsOptionsBuilder;
use futures::StreamExt as _;
use futures::stream::BoxStream;

/// What changes a container's life; all else (exec, attach, resize, …) is noise.
const LIFE: [&str; 8] = ["create", "start", "die", "destroy", "pause", "unpause", "update", "health_status"];

/// The subscription begins this much in the past, since it begins when the stream is first read. Docker keeps its last events.
const BEFORE: Duration = Duration::from_secs(1);

/// Ids of containers as they change, from now on. Ends with the first error: what was missed then has to be looked for.
pub(super) fn changes(
    client: Docker,
    mut filters: HashMap<&'static str, Vec<String>>,
) -> BoxStream<'static, String> {
    filters.insert("type", vec!["container".to_owned()]);
    filters.insert("event", LIFE.map(str::to_owned).to_vec());
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(BEFORE);
    let since = format!("{}.{:09}", since.as_secs(), since.subsec_nanos());
    let options = EventsOptionsBuilder::default().filters(&filters).since(&since).build();
    let events = client.events(Some(options));
    let events = events.take_while(|event| {
        let whole = event.is_ok();
        async move { whole }
    });
    events.filter_map(|event| async move { event.ok()?.actor?.id }).boxed()
}
