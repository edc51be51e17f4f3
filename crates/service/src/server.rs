//! A server: the same layers for every service, on any listener.
//!
//! From the outside in: trace (a span per call, child of the caller's) → measure (counts and times it) → token (TCP only) → `/metrics` → handler. Health
//! (`grpc.health.v1`) and reflection (v1, and v1alpha for clients that still speak it) come with each server.

use std::sync::Arc;

use http::{HeaderValue, Request, Response};
use netloom_model::{Code, Failure};
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::Server;
use tower::ServiceBuilder;
use tower_http::trace::TraceLayer;
use tracing::{Span, field};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::Shutdown;
use crate::channel::Listener;
use crate::measure::MeasureLayer;
use crate::scrape::ScrapeLayer;
use crate::status::to_status;
use crate::telemetry;

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
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status("", tonic_health::ServingStatus::Serving).await;
    health.set_service_status(service, tonic_health::ServingStatus::Serving).await;
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
        .layer(TokenLayer { token: listener.token() })
        .layer(ScrapeLayer)
        .into_inner();
    Server::builder()
        .accept_http1(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .layer(layers)
        .add_routes(routes)
        .serve_with_incoming_shutdown(listener, shutdown.cancelled_owned())
        .await?;
    Ok(())
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

/// Refuses calls without the token, where one is demanded.
#[derive(Clone)]
struct TokenLayer {
    token: Option<Arc<str>>,
}

impl<S> tower::Layer<S> for TokenLayer {
    type Service = TokenCheck<S>;
    fn layer(&self, inner: S) -> TokenCheck<S> {
        let expected = self.token.as_ref().map(|t| format!("Bearer {t}").into());
        TokenCheck { inner, expected }
    }
}

#[derive(Clone)]
struct TokenCheck<S> {
    inner: S,
    expected: Option<Arc<str>>,
}

impl<S, B> tower::Service<Request<B>> for TokenCheck<S>
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
        let shown = request.headers().get(http::header::AUTHORIZATION).map(HeaderValue::as_bytes);
        let allowed = match &self.expected {
            None => true,
            Some(expected) => shown.is_some_and(|s| same_bytes(s, expected.as_bytes())),
        };
        if !allowed {
            let failure = Failure::new(
                Code::Unauthenticated,
                "TOKEN_INVALID",
                "this service demands its shared token: set the same `token` in both configurations",
            );
            return Box::pin(async move { Ok(to_status(failure).into_http()) });
        }
        Box::pin(self.inner.call(request))
    }
}

/// Compares in a time that does not tell how much was right.
pub fn same_bytes(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}
