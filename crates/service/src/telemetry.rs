//! Logs and traces. A call's W3C trace context (<https://www.w3.org/TR/trace-context/>) goes with it from program to program, and every log line says which
//! trace it belongs to, so that one id leads from the command line to the Docker and OVSDB calls it caused.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue, global};
use opentelemetry_otlp::WithTonicConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tonic::metadata::{KeyRef, MetadataMap, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};
use tracing::span::Record;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::field::{RecordFields, VisitOutput as _};
use tracing_subscriber::fmt::format::{DefaultVisitor, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::{Connector, Endpoint};

/// How long the sending of the last spans may hold up the end of a program.
const FLUSH: Duration = Duration::from_secs(3);

/// Spans on their way to a collector.
#[must_use = "spans that were not flushed are lost"]
pub struct Spans {
    provider: Option<SdkTracerProvider>,
}

impl Spans {
    /// Sends what has not been sent yet. It blocks, and must not be called on a thread of the runtime.
    pub fn flush(self) {
        let Some(provider) = self.provider else { return };
        if let Err(e) = provider.shutdown_with_timeout(FLUSH) {
            tracing::warn!(error = %e, "the last spans could not be sent");
        }
    }
}

/// Starts logs to standard error, filtered by `NETLOOM_LOG` (default `info`). Spans only carry ids. A second call does nothing.
pub fn init(program: &'static str) {
    begin(program, SdkTracerProvider::builder().build());
}

/// The same, and sends spans by OTLP over gRPC where there is an endpoint; to be called within a runtime.
pub fn start(program: &'static str, otlp: Option<&Endpoint>) -> anyhow::Result<Spans> {
    let provider = provider(program, otlp)?;
    begin(program, provider.clone());
    if let Some(endpoint) = otlp {
        tracing::info!(%endpoint, "sends spans");
    }
    Ok(Spans { provider: otlp.map(|_| provider) })
}

fn begin(program: &'static str, provider: SdkTracerProvider) {
    global::set_text_map_propagator(TraceContextPropagator::new());
    let tracer = provider.tracer(program);
    global::set_tracer_provider(provider);
    // A filter per layer: as one for all, it would drop the spans that carry the trace ids.
    let filter = EnvFilter::try_from_env("NETLOOM_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .event_format(Line { program })
        .fmt_fields(Fields)
        .with_ansi(false)
        .with_filter(filter);
    let traces = tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_filter(tracing_subscriber::filter::LevelFilter::INFO);
    let _ = tracing_subscriber::registry().with(traces).with(lines).try_init();
}

/// What makes spans, and sends them when there is where to. `OTEL_SERVICE_NAME` and the other variables of OpenTelemetry's SDK are followed.
pub fn provider(program: &'static str, otlp: Option<&Endpoint>) -> anyhow::Result<SdkTracerProvider> {
    let Some(endpoint) = otlp else { return Ok(SdkTracerProvider::builder().build()) };
    let mut resource = Resource::builder();
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name(program);
    }
    let resource = resource.with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_channel(Connector::default().transport(endpoint))
        .build()?;
    Ok(SdkTracerProvider::builder().with_resource(resource.build()).with_batch_exporter(exporter).build())
}

/// Says that a request, which came in by another form, is a call of this method. HTTP's own words for it go into `route`.
pub fn is_call(service: &str, method: &str, route: &str) {
    let span = Span::current();
    // A span that has begun is not renamed by a record.
    span.context().span().update_name(format!("{service}/{method}"));
    span.record("rpc.system", "grpc");
    span.record("rpc.service", service);
    span.record("rpc.method", method);
    span.record("http.route", route);
}

/// Notes what a call is about on its span, once the handler knows: `netloom.lab`, `netloom.node` or `netloom.operation`.
pub fn about(field: &'static str, name: &dyn std::fmt::Display) {
    Span::current().record(field, tracing::field::display(name));
}

/// Fields as the log shows them: without those that only a collector has a use for.
struct Fields;

impl<'w> FormatFields<'w> for Fields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> std::fmt::Result {
        let mut visitor = FieldWriter { inner: DefaultVisitor::new(writer, true) };
        fields.record(&mut visitor);
        visitor.inner.finish()
    }

    fn add_fields(&self, current: &'w mut FormattedFields<Self>, fields: &Record<'_>) -> std::fmt::Result {
        let mut more = String::new();
        let mut visitor = FieldWriter { inner: DefaultVisitor::new(Writer::new(&mut more), true) };
        fields.record(&mut visitor);
        visitor.inner.finish()?;
        if !more.is_empty() {
            if !current.fields.is_empty() {
                current.fields.push(' ');
            }
            current.fields.push_str(&more);
        }
        Ok(())
    }
}

struct FieldWriter<'w> {
    inner: DefaultVisitor<'w>,
}

impl tracing::field::Visit for FieldWriter<'_> {
    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        if is_logged(field) {
            self.inner.record_str(field, value);
        }
    }

    fn record_error(&mut self, field: &tracing::field::Field, value: &(dyn std::error::Error + 'static)) {
        self.inner.record_error(field, value);
    }

    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        if is_logged(field) {
            self.inner.record_debug(field, value);
        }
    }
}

fn is_logged(field: &tracing::field::Field) -> bool {
    let name = field.name();
    !["otel.", "rpc.", "http."].iter().any(|prefix| name.starts_with(prefix))
}

/// `time LEVEL program trace=… span{fields}: message`.
struct Line {
    program: &'static str,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &tracing::Event<'_>,
    ) -> std::fmt::Result {
        use tracing_subscriber::fmt::time::FormatTime as _;
        tracing_subscriber::fmt::time::SystemTime.format_time(&mut writer)?;
        write!(writer, " {:5} {}", event.metadata().level(), self.program)?;
        if let Some(trace) = trace_id() {
            write!(writer, " trace={trace}")?;
        }
        for span in ctx.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            write!(writer, " {}", span.name())?;
            let extensions = span.extensions();
            if let Some(fields) = extensions.get::<FormattedFields<N>>().filter(|f| !f.is_empty()) {
                write!(writer, "{{{fields}}}")?;
            }
        }
        write!(writer, ": ")?;
        ctx.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// The current span's trace id, in 32 hexadecimal digits.
pub fn trace_id() -> Option<String> {
    let context = Span::current().context();
    let id = context.span().span_context().trace_id();
    (id != opentelemetry::TraceId::INVALID).then(|| id.to_string())
}

/// The current span as a `traceparent` header, to be stored with work that outlives the call.
pub fn traceparent() -> String {
    let mut headers = http::HeaderMap::new();
    inject(&mut headers);
    headers.get("traceparent").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
}

/// Makes the span a child of a stored `traceparent`.
pub fn continue_trace(span: &Span, traceparent: &str) {
    let mut headers = http::HeaderMap::new();
    if let Ok(value) = traceparent.parse() {
        headers.insert("traceparent", value);
        let _ = span.set_parent(extract(&headers));
    }
}

/// The trace context in a request's headers.
pub fn extract(headers: &http::HeaderMap) -> Context {
    global::get_text_map_propagator(|p| p.extract(&Headers(headers)))
}

/// Puts the current trace context into a request's headers.
pub fn inject(headers: &mut http::HeaderMap) {
    let context = Span::current().context();
    global::get_text_map_propagator(|p| p.inject_context(&context, &mut HeadersMut(headers)));
}

struct Headers<'a>(&'a http::HeaderMap);

impl opentelemetry::propagation::Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|v| v.to_str().ok())
    }
    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

struct HeadersMut<'a>(&'a mut http::HeaderMap);

impl opentelemetry::propagation::Injector for HeadersMut<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (key.parse::<http::HeaderName>(), value.parse()) {
            self.0.insert(name, value);
        }
    }
}

struct Metadata<'a>(&'a mut MetadataMap);

impl opentelemetry::propagation::Injector for Metadata<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) =
            (tonic::metadata::MetadataKey::from_bytes(key.as_bytes()), MetadataValue::try_from(value))
        {
            self.0.insert(name, value);
        }
    }
}

/// Puts the caller's trace context, and the token where there is one, on each call of a channel.
#[derive(Clone)]
pub struct Inject {
    token: Option<Arc<str>>,
}

impl Inject {
    /// With this token, if any.
    pub fn new(token: Option<Arc<str>>) -> Inject {
        Inject { token }
    }
}

impl Interceptor for Inject {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let carries_one =
            request.metadata().keys().any(|k| matches!(k, KeyRef::Ascii(k) if k == "traceparent"));
        if !carries_one {
            let context = Span::current().context();
            global::get_text_map_propagator(|p| {
                p.inject_context(&context, &mut Metadata(request.metadata_mut()))
            });
        }
        if let Some(token) = &self.token {
            let value = MetadataValue::try_from(format!("Bearer {token}"))
                .map_err(|_| Status::internal("the token holds characters that a header cannot carry"))?;
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Text(Arc<Mutex<Vec<u8>>>);

    impl Write for Text {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_leave_out_what_only_a_collector_reads() {
        let text = Text::default();
        let written = text.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(move || written.clone())
            .event_format(Line { program: "p" })
            .fmt_fields(Fields)
            .with_ansi(false);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let request = http::Request::post("/v1/labs/a:apply").body(()).unwrap();
            let span = crate::server::call_span(&request);
            let _inside = span.enter();
            is_call("netloom.v1.LabService", "ApplyLab", "/v1/labs/{lab}:apply");
            about("netloom.lab", &"a");
            tracing::info!(nodes = 2, "applied");
        });
        let said = String::from_utf8(text.0.lock().unwrap().clone()).unwrap();
        let line = said.split_once("INFO  p ").unwrap().1;
        assert_eq!(line, "call{rpc=\"/v1/labs/a:apply\" netloom.lab=a}: applied nodes=2\n");
    }
}
