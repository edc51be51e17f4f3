//! Who asked for what: the trace of the call that last changed a NIC, wire or segment, so that the line in the log about an effect carries
//! the trace id of the command that caused it, though the effect comes later and in a batch with others.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;

use netloom_model::id::WireId;
use netloom_service::telemetry;

/// `traceparent`s by wire id.
#[derive(Debug, Clone, Default)]
pub struct Traces(Arc<HashMap<WireId, Arc<str>>>);

impl Traces {
    /// Notes the caller of the current span for these.
    pub fn note(&mut self, wires: impl IntoIterator<Item = WireId>) {
        let caller: Arc<str> = telemetry::traceparent().into();
        let traces = Arc::make_mut(&mut self.0);
        for wire in wires {
            traces.insert(wire, caller.clone());
        }
    }

    /// Keeps only those.
    pub fn retain(&mut self, keep: impl Fn(WireId) -> bool) {
        Arc::make_mut(&mut self.0).retain(|wire, _| keep(*wire));
    }

    /// Calls `log` once for each trace among the items, in a span that continues it, with the items that belong to it.
    pub fn each<T>(
        &self,
        items: impl IntoIterator<Item = T>,
        id: impl Fn(&T) -> Option<WireId>,
        log: impl Fn(&[T]),
    ) {
        let mut by_trace = BTreeMap::<&str, Vec<T>>::new();
        for item in items {
            let trace = id(&item).and_then(|wire| self.0.get(&wire)).map_or("", |trace| trace);
            by_trace.entry(trace).or_default().push(item);
        }
        for (trace, items) in by_trace {
            let span = tracing::info_span!("effect");
            if !trace.is_empty() {
                telemetry::continue_trace(&span, trace);
            }
            span.in_scope(|| log(&items));
        }
    }
}
