//! A server: the same layers for every service, on any listener.
//!
//! From the outside in: trace (a span per call, child of the caller's) → measure (counts and times it) → gate (TCP: the token; TLS: the controller's certificate) → `/metrics` → handler. Health
//! (`grpc.health.v1`) and reflection (v1, and v1alpha for clients that still speak it) come with each server.

use std::convert::Infallible;

use http::{HeaderValue, Request, Response};
use netloom_model::{Code, Failure};
use tokio::sync::watch;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tower::ServiceBuilder;
use tower_http::trace::TraceLayer;
use tracing::{Span, field};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::Shutdown;
use crate::channel::{Gate, Listener};
use crate::measure::MeasureLayer;
use crate::scrape::ScrapeLayer;
use crate::status::to_status;
use crate::telemetry;
use crate::tls::{Caller, Peer};

/// Most bytes of a message between netloom's services.
pub const MAX_MESSAGE: usize = 8 << 20;

/// Bytes of a stream that may wait unread, and of all streams of a connection. The first is a small part of the second: a stream that nobody reads then holds up
/// itself and no other call on its connection.
pub const STREAM_WINDOW: u32 = 256 << 10;
/// See [`STREAM_WINDOW`].
pub const CONNECTION_WINDOW: u32 = 16 << 20;
/// Most bytes of a frame: an image comes in messages of a mebibyte, which the usual 16 KiB would cut into 64.
pub const FRAME: u32 = 128 << 10;

/// Serves the routes, with health and reflection over these descriptors, until shut down; calls in flight are let finish.
pub async fn serve(
    listener: Listener,
    routes: Routes,
    service: &str,
    descriptors: &'static [u8],
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    serve_when(listener, routes, service, descriptors, watch::channel(true).1, shutdown).await
}

/// The same, and says of the service that it does not serve while this is false: callers that know of others go to them. The program is healthy all the while.
pub async fn serve_when(
    listener: Listener,
    routes: Routes,
    service: &str,
    descriptors: &'static [u8],
    mut serves: watch::Receiver<bool>,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status("", ServingStatus::Serving).await;
    let routes = routes.add_service(health_service);
    let routes = with_reflection(routes, descriptors)?;
    let layers = ServiceBuilder::new()
        .layer(
            TraceLayer::new_for_grpc()
                .make_span_with(call_span)
                .on_request(())
                .on_response(())
                .on_failure(()),
        )
        .layer(MeasureLayer::new(&[descriptors, tonic_health::pb::FILE_DESCRIPTOR_SET])?)
        .layer(GateLayer(listener.gate()))
        .layer(ScrapeLayer)
        .into_inner();
    let served = Server::builder()
        .accept_http1(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .layer(layers)
        .add_routes(routes)
        .serve_with_incoming_shutdown(listener, shutdown.cancelled_owned());
    let told = async {
        loop {
            let status =
                if *serves.borrow_and_update() { ServingStatus::Serving } else { ServingStatus::NotServing };
            health.set_service_status(service, status).await;
            if serves.changed().await.is_err() {
                // It stays so.
                std::future::pending::<Infallible>().await;
            }
        }
    };
    // First what is ready at once, so that nobody is told otherwise.
    tokio::select! {
        biased;
        never = told => never,
        served = served => Ok(served?),
    }
}

/// Adds reflection, in both versions.
pub fn with_reflection(routes: Routes, descriptors: &'static [u8]) -> anyhow::Result<Routes> {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(descriptors)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    Ok(routes.add_service(builder().build_v1()?).add_service(builder().build_v1alpha()?))
}

/// The span of a request: a child of the caller's. Attributes are OpenTelemetry's; what only the handler knows is noted later ([`telemetry::about`]).
pub fn call_span<B>(request: &Request<B>) -> Span {
    let path = request.uri().path();
    let span = tracing::info_span!(
        "call",
        rpc = path,
        otel.name = request.method().as_str(),
        otel.kind = "server",
        otel.status_code = field::Empty,
        http.route = field::Empty,
        rpc.system = field::Empty,
        rpc.service = field::Empty,
        rpc.method = field::Empty,
        rpc.grpc.status_code = field::Empty,
        netloom.lab = field::Empty,
        netloom.node = field::Empty,
        netloom.operation = field::Empty,
    );
    let kind = request.headers().get(http::header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    if let Some((service, method)) = path.strip_prefix('/').and_then(|p| p.split_once('/'))
        && kind.is_some_and(|k| k.starts_with(b"application/grpc"))
    {
        span.record("otel.name", format_args!("{service}/{method}"));
        span.record("rpc.system", "grpc");
        span.record("rpc.service", service);
        span.record("rpc.method", method);
    }
    let _ = span.set_parent(telemetry::extract(request.headers()));
    span
}

/// Refuses calls of those who may not call here.
#[derive(Clone)]
struct GateLayer(Gate);

impl<S> tower::Layer<S> for GateLayer {
    type Service = GateCheck<S>;
    fn layer(&self, inner: S) -> GateCheck<S> {
        GateCheck { inner, gate: self.0.clone() }
    }
}

#[derive(Clone)]
struct GateCheck<S> {
    inner: S,
    gate: Gate,
}

impl<S, B> tower::Service<Request<B>> for GateCheck<S>
where
    S: tower::Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = futures::future::BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match admit(&self.gate, &request) {
            Ok(()) => Box::pin(self.inner.call(request)),
            Err(failure) => Box::pin(async move { Ok(to_status(failure).into_http()) }),
        }
    }
}

fn admit<B>(gate: &Gate, request: &Request<B>) -> Result<(), Failure> {
    match gate {
        Gate::Open => Ok(()),
        Gate::Handlers if request.uri().path().starts_with("/netloom.") => Ok(()),
        Gate::Handlers => {
            let said = "this is not for callers from other machines";
            Err(Failure::new(Code::PermissionDenied, "PEER_REFUSED", said))
        }
        Gate::Token(token) => {
            let shown = request.headers().get(http::header::AUTHORIZATION).map(HeaderValue::as_bytes);
            let expected = format!("Bearer {token}");
            if shown.is_some_and(|s| same_bytes(s, expected.as_bytes())) {
                return Ok(());
            }
            let said = "this service demands its shared token: set the same `token` in both configurations";
            Err(Failure::new(Code::Unauthenticated, "TOKEN_INVALID", said))
        }
        Gate::Controller => match request.extensions().get::<Caller>().and_then(|c| c.0.as_ref()) {
            Some(Peer::Controller) => Ok(()),
            Some(other) => {
                let said =
                    format!("only the controller may call here, and this is the certificate of {other}");
                Err(Failure::new(Code::PermissionDenied, "PEER_REFUSED", said))
            }
            None => {
                let said = "only the controller may call here, and no certificate was shown";
                Err(Failure::new(Code::Unauthenticated, "CERTIFICATE_MISSING", said))
            }
        },
    }
}

/// Compares in a time that does not tell how much was right.
pub fn same_bytes(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}
