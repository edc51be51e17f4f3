//! One trace id from the caller to the services behind, over gRPC and over HTTP, also into streams that are fed by tasks of their own.

use std::sync::LazyLock;

use netloom_model::id::Digest;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use serde_json::json;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::collector::{Collector, Sent};
use crate::rig::Rig;

/// A second subscriber, which nobody uses: beside a single one, `tracing` asks only the thread that comes to a span first whether it matters, and that may be
/// another test's, which has none.
static ANOTHER: LazyLock<tracing::Dispatch> =
    LazyLock::new(|| tracing::Dispatch::new(tracing_subscriber::registry()));

// On one thread, so that the subscriber that is set for it sees all that happens in this test and nothing of others.
#[tokio::test(flavor = "current_thread")]
async fn a_callers_trace_goes_through() {
    LazyLock::force(&ANOTHER);
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let tracer = SdkTracerProvider::builder().build().tracer("test");
    let layer = tracing_opentelemetry::layer().with_tracer(tracer);
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    let rig = Rig::new().await;
    let id = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("00-{id}-b7ad6b7169203331-01");
    let headers = [("traceparent", parent.as_str())];

    let content = json!({
        "spec": {"files": [{"path": "f", "digest": Digest::of(b"").as_str()}]},
        "files": [{"path": "f"}],
    });
    assert_eq!(rig.http("POST", "/v1/labs/mixed:apply", &headers, content.to_string()).await.status, 200);
    let watching = rig.send("GET", "/v1/labs:watch", &headers, Vec::new()).await;
    assert_eq!(rig.lines(watching, 15).await.len(), 15);

    let mut labs = netloom_api::v1::lab_service_client::LabServiceClient::new(rig.channel.clone());
    let mut request = tonic::Request::new(netloom_api::v1::GetLabRequest { name: "labs/busy".into() });
    request.metadata_mut().insert("authorization", format!("Bearer {}", rig.token).parse().unwrap());
    request.metadata_mut().insert("traceparent", parent.parse().unwrap());
    labs.get_lab(request).await.unwrap();

    let traces = rig.world.traces.lock().unwrap().clone();
    let calls: Vec<&str> = traces.iter().map(|(call, _)| *call).collect();
    assert_eq!(
        calls,
        ["put_files", "apply_lab", "get_lab", "list_labs", "list_nodes", "list_nodes", "get_lab"]
    );
    for (call, trace) in &traces {
        assert!(trace.contains(id), "{call} came with \"{trace}\"");
        assert_ne!(*trace, parent, "{call} is the child of a span of the gateway");
    }
}

/// The span of a call, of those that a collector was sent.
fn of<'s>(spans: &'s [Sent], name: &str) -> &'s Sent {
    spans.iter().find(|s| s.span.name == name).unwrap_or_else(|| {
        let names: Vec<&str> = spans.iter().map(|s| s.span.name.as_str()).collect();
        panic!("no span {name} among {names:?}")
    })
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|b| format!("{b:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_is_sent_one_trace_with_each_call_below_its_caller() {
    LazyLock::force(&ANOTHER);
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let (collector, endpoint) = Collector::start().await;
    let provider = netloom_service::telemetry::provider("netloom-gateway", Some(&endpoint)).unwrap();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let subscriber = tracing_subscriber::registry().with(layer.with_filter(LevelFilter::INFO));
    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{id}-00f067aa0ba902b7-01");
    let seen = parent.clone();
    // A thread and a runtime of its own, so that the subscriber sees this and nothing of other tests.
    let calls = std::thread::spawn(move || {
        let _guard = tracing::subscriber::set_default(subscriber);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let rig = Rig::new().await;
            let headers = [("traceparent", seen.as_str())];
            let body = json!({"spec": {}}).to_string();
            assert_eq!(rig.http("POST", "/v1/labs/mixed:apply", &headers, body).await.status, 200);
            assert_eq!(rig.http("GET", "/v1/labs/mixed/nodes/r1", &headers, "").await.status, 200);
            assert_eq!(rig.http("GET", "/v1/labs/none", &headers, "").await.status, 404);
        });
    });
    tokio::task::spawn_blocking(move || calls.join().unwrap()).await.unwrap();
    tokio::task::spawn_blocking(move || provider.shutdown().unwrap()).await.unwrap();

    let spans: Vec<Sent> = collector.spans().into_iter().filter(|s| hex(&s.span.trace_id) == id).collect();
    assert!(spans.iter().all(|s| s.service == "netloom-gateway"), "{spans:?}");
    let apply = of(&spans, "netloom.v1.LabService/ApplyLab");
    assert_eq!(hex(&apply.span.parent_span_id), "00f067aa0ba902b7", "the caller's own span is above");
    let behind = of(&spans, "netloom.scheduler.v1.SchedulerService/ApplyLab");
    assert_eq!(behind.span.parent_span_id, apply.span.span_id, "the scheduler's is below the gateway's");
    for (sent, service, method) in [
        (apply, "netloom.v1.LabService", "ApplyLab"),
        (behind, "netloom.scheduler.v1.SchedulerService", "ApplyLab"),
    ] {
        assert_eq!(sent.attribute("rpc.system").as_deref(), Some("grpc"));
        assert_eq!(sent.attribute("rpc.service").as_deref(), Some(service));
        assert_eq!(sent.attribute("rpc.method").as_deref(), Some(method));
        assert_eq!(sent.attribute("rpc.grpc.status_code").as_deref(), Some("0"));
        assert_eq!(sent.span.kind, 2, "it is a server's");
    }
    assert_eq!(apply.attribute("netloom.lab").as_deref(), Some("mixed"));
    assert_eq!(apply.attribute("http.route").as_deref(), Some("/v1/labs/{lab}:apply"));
    let node = of(&spans, "netloom.v1.NodeService/GetNode");
    assert_eq!(
        (node.attribute("netloom.lab").as_deref(), node.attribute("netloom.node").as_deref()),
        (Some("mixed"), Some("r1"))
    );
    let missing = of(&spans, "netloom.v1.LabService/GetLab");
    let all: Vec<_> = spans.iter().filter(|s| s.span.name == "netloom.v1.LabService/GetLab").collect();
    let codes: Vec<_> = all.iter().filter_map(|s| s.attribute("rpc.grpc.status_code")).collect();
    assert!(codes.contains(&"5".to_owned()), "{missing:?}");
}

#[tokio::test]
async fn a_collector_that_is_away_holds_up_nothing() {
    let endpoint = "http://127.0.0.1:9".parse().unwrap();
    let provider = netloom_service::telemetry::provider("netloom-gateway", Some(&endpoint)).unwrap();
    let tracer = provider.tracer("test");
    let begun = std::time::Instant::now();
    for _ in 0..10_000 {
        drop(opentelemetry::trace::Tracer::start(&tracer, "span"));
    }
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
    let ended = tokio::task::spawn_blocking(move || {
        provider.shutdown_with_timeout(std::time::Duration::from_secs(2))
    });
    let ended = tokio::time::timeout(crate::rig::BOUND, ended).await;
    assert!(ended.is_ok(), "the end is not held up either");
}
