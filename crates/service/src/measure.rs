//! Counts and times every call that a server answers, by service, method and code.
//!
//! | figure | what it says |
//! |---|---|
//! | `netloom_rpc_requests_total{service,method,code}` | calls that ended, by their code |
//! | `netloom_rpc_duration_seconds{service,method,code}` | from the request's headers to the end of the answer: a stream counts whole |
//! | `netloom_rpc_in_flight{service}` | calls that have not ended |
//!
//! Only methods of the descriptors become labels, all others are `unknown`: a caller cannot make figures grow. What a call costs here is one look-up of its
//! path; the figures themselves are found once per method and code.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use prost::Message as _;
use tonic::Code;
use tonic::body::Body;
use tracing::Span;

use crate::metrics::{self, Durations, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use crate::status::code_word;

static REQUESTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let labels = &["service", "method", "code"];
    metrics::counters("netloom_rpc_requests_total", "Calls that ended, by their gRPC code.", labels)
});
static SECONDS: LazyLock<Durations> = LazyLock::new(|| {
    let help = "From a call's first byte to the end of its answer, in seconds. A stream counts whole.";
    metrics::call_seconds("netloom_rpc_duration_seconds", help, &["service", "method", "code"])
});
static IN_FLIGHT: LazyLock<IntGaugeVec> =
    LazyLock::new(|| metrics::gauges("netloom_rpc_in_flight", "Calls that have not ended.", &["service"]));

/// How many codes gRPC has, from 0.
const CODES: usize = 17;

/// The figures of one method.
struct Method {
    service: String,
    method: String,
    in_flight: IntGauge,
    codes: [OnceLock<(IntCounter, Histogram)>; CODES],
}

impl Method {
    fn new(service: &str, method: &str) -> Arc<Method> {
        Arc::new(Method {
            in_flight: IN_FLIGHT.with_label_values(&[service]),
            service: service.to_owned(),
            method: method.to_owned(),
            codes: std::array::from_fn(|_| OnceLock::new()),
        })
    }

    fn note(&self, code: Code, begun: Instant) {
        let (requests, seconds) = self.codes[code as usize].get_or_init(|| {
            let labels = [self.service.as_str(), self.method.as_str(), code_word(code)];
            (REQUESTS.with_label_values(&labels), SECONDS.of(&labels))
        });
        requests.inc();
        seconds.observe(begun.elapsed().as_secs_f64());
    }
}

/// Measures the methods of some descriptors.
#[derive(Clone)]
pub struct MeasureLayer {
    methods: Arc<HashMap<String, Arc<Method>>>,
    unknown: Arc<Method>,
}

impl MeasureLayer {
    /// For the services in these encoded descriptor sets.
    pub fn new(descriptors: &[&[u8]]) -> Result<MeasureLayer, prost::DecodeError> {
        let mut methods = HashMap::new();
        for set in descriptors {
            for file in prost_types::FileDescriptorSet::decode(*set)?.file {
                for service in &file.service {
                    let name = format!("{}.{}", file.package(), service.name());
                    for method in &service.method {
                        let path = format!("/{name}/{}", method.name());
                        methods.insert(path, Method::new(&name, method.name()));
                    }
                }
            }
        }
        Ok(MeasureLayer { methods: Arc::new(methods), unknown: Method::new("unknown", "unknown") })
    }

    /// The figures for a request; none for what is no call.
    fn method<B>(&self, request: &Request<B>) -> Option<Arc<Method>> {
        let known = self.methods.get(request.uri().path());
        let is_call = || {
            let kind = request.headers().get(http::header::CONTENT_TYPE);
            kind.is_some_and(|k| k.as_bytes().starts_with(b"application/grpc"))
        };
        known.or_else(|| is_call().then_some(&self.unknown)).cloned()
    }
}

impl<S> tower::Layer<S> for MeasureLayer {
    type Service = Measure<S>;
    fn layer(&self, inner: S) -> Measure<S> {
        Measure { inner, layer: self.clone() }
    }
}

/// A service whose calls are measured.
#[derive(Clone)]
pub struct Measure<S> {
    inner: S,
    layer: MeasureLayer,
}

impl<S, B> tower::Service<Request<B>> for Measure<S>
where
    S: tower::Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let call = self.layer.method(&request).map(Call::begin);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await?;
            let Some(call) = call else { return Ok(response) };
            // An error that comes instead of an answer is in the headers.
            if let Some(code) = code_in(response.headers()) {
                call.end(code);
                return Ok(response);
            }
            Ok(response.map(|body| Body::new(Measured { body, call: Some(call) })))
        })
    }
}

/// A call under way. One that is dropped was given up by its caller.
struct Call {
    method: Arc<Method>,
    begun: Instant,
    span: Span,
    ended: bool,
}

impl Call {
    fn begin(method: Arc<Method>) -> Call {
        method.in_flight.inc();
        Call { method, begun: Instant::now(), span: Span::current(), ended: false }
    }

    fn end(mut self, code: Code) {
        self.over(code);
    }

    fn over(&mut self, code: Code) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.method.in_flight.dec();
        self.method.note(code, self.begun);
        self.span.record("rpc.grpc.status_code", code as i32);
        let ours = [Code::Unknown, Code::Internal, Code::Unavailable, Code::DataLoss, Code::DeadlineExceeded];
        if ours.contains(&code) {
            self.span.record("otel.status_code", "ERROR");
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.over(Code::Cancelled);
    }
}

/// An answer whose end says how the call went.
struct Measured {
    body: Body,
    call: Option<Call>,
}

impl HttpBody for Measured {
    type Data = bytes::Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<bytes::Bytes>, tonic::Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let code = match &frame {
            Some(Ok(frame)) => frame.trailers_ref().map(|t| code_in(t).unwrap_or(Code::Unknown)),
            Some(Err(status)) => Some(status.code()),
            None => Some(Code::Unknown),
        };
        if let Some((code, call)) = code.and_then(|code| Some((code, self.call.take()?))) {
            call.end(code);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn code_in(headers: &HeaderMap) -> Option<Code> {
    headers.get("grpc-status").map(|code| Code::from_bytes(code.as_bytes()))
}
