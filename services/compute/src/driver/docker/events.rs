//! Docker's event stream: which containers of ours changed.

use std::collections::HashMap;

use bollard::Docker;
use bollard::query_parameters::EventsOptionsBuilder;
use futures::StreamExt as _;
use futures::stream::BoxStream;

/// What changes a container's life; all else (exec, attach, resize, …) is noise.
const LIFE: [&str; 6] = ["create", "start", "die", "destroy", "pause", "unpause"];

/// Ids of containers as they change. Ends with the first error: what was missed then has to be looked for.
pub(super) fn changes(
    client: Docker,
    mut filters: HashMap<&'static str, Vec<String>>,
) -> BoxStream<'static, String> {
    filters.insert("type", vec!["container".to_owned()]);
    filters.insert("event", LIFE.map(str::to_owned).to_vec());
    let events = client.events(Some(EventsOptionsBuilder::default().filters(&filters).build()));
    let events = events.take_while(|event| {
        let whole = event.is_ok();
        async move { whole }
    });
    events.filter_map(|event| async move { event.ok()?.actor?.id }).boxed()
}
