//! One trace id from the caller to the services behind, over gRPC and over HTTP, also into streams that are fed by tasks of their own.

use netloom_model::id::Digest;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use serde_json::json;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::rig::Rig;

// On one thread, so that the subscriber that is set for it sees all that happens in this test and nothing of others.
#[tokio::test(flavor = "current_thread")]
async fn a_callers_trace_goes_through() {
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
