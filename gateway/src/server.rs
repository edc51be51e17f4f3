//! The two doors, TCP and the Unix socket, with gRPC (h2c), gRPC-Web and HTTP/JSON (HTTP/1.1 and h2c) on both.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response};
use hyper::body::{Body as _, Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use netloom_model::Failure;
use netloom_service::channel::{Io, bind_unix};
use netloom_service::measure::Measure;
use netloom_service::server::{CONNECTION_WINDOW, FRAME, STREAM_WINDOW, call_span};
use netloom_service::status::{from_status, to_status};
use netloom_service::{Shutdown, Together, metrics, scrape};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tonic_web::GrpcWebLayer;
use tower::{Layer as _, Service as _, ServiceBuilder};
use tower_http::trace::TraceLayer;

use crate::auth::{self, Admission, Door, Form};
use crate::client::as_one;
use crate::config::Config;
use crate::openapi::{self, Document};
use crate::transcode::answer::{self, Refusal};
use crate::transcode::http::{Transcoder, not_allowed};
use crate::transcode::rules;
use crate::{cors, timeout};

static REQUESTS: LazyLock<metrics::IntCounterVec> = LazyLock::new(|| {
    let help = "Requests that were answered, by form and HTTP status; of a stream, when it began.";
    metrics::counters("netloom_gateway_requests_total", help, &["form", "status"])
});

/// How long calls may go on after the gateway was asked to end.
const GRACE: Duration = Duration::from_secs(5);
/// How long a caller may take to send a request's headers.
const HEADERS: Duration = Duration::from_secs(30);
/// How often a silent HTTP/2 caller is asked whether it still lives.
const PING: Duration = Duration::from_secs(20);
/// Pause after the system refused a connection, for want of file descriptors, say.
const PAUSE: Duration = Duration::from_millis(100);

/// How tonic begins to say that bytes are no message of the method's.
const UNREADABLE: &str = "failed to decode Protobuf message";

/// Both doors, bound and not yet open.
pub struct Doors {
    tcp: Option<(TcpListener, SocketAddr, Door)>,
    unix: UnixListener,
    socket: PathBuf,
}

impl Doors {
    /// Binds the doors that the configuration asks for.
    pub async fn bind(config: &Config, data_dir: &Path, run_dir: &Path) -> anyhow::Result<Doors> {
        let socket = config.socket.clone().unwrap_or_else(|| run_dir.join("api.sock"));
        let listening = |what: &dyn std::fmt::Display| format!("the gateway cannot listen on {what}");
        let unix = bind_unix(&socket, 0o660).await.with_context(|| listening(&socket.display()))?;
        auth::give_to_group(&socket)?;
        let tcp = match config.listen.as_str() {
            "" => None,
            listen => {
                let token = auth::token(data_dir)?;
                let listener = TcpListener::bind(listen).await.with_context(|| listening(&listen))?;
                let address = listener.local_addr()?;
                Some((listener, address, Door::tcp(&token, config)?))
            }
        };
        Ok(Doors { tcp, unix, socket })
    }

    /// The TCP address that was bound.
    pub fn address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().map(|(_, address, _)| *address)
    }

    /// The socket that was bound.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Serves until shut down; then calls in flight are given a little time.
    pub async fn serve(self, inside: Inside, shutdown: Shutdown) {
        let Doors { tcp, unix, socket } = self;
        let inside = Arc::new(inside);
        let mut arrivals = arrivals(tcp, unix);
        let graceful = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        loop {
            let (door, io) = tokio::select! {
                () = shutdown.cancelled() => break,
                Some(arrival) = arrivals.next() => arrival,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            };
            let io = match io {
                Ok(io) => io,
                Err(e) => {
                    tracing::warn!(error = %e, "a connection could not be taken");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let (inside, door) = (inside.clone(), Arc::new(door));
            let service = ServiceBuilder::new()
                .layer(
                    TraceLayer::new_for_grpc()
                        .make_span_with(call_span)
                        .on_request(())
                        .on_response(())
                        .on_failure(()),
                )
                .service_fn(move |request| {
                    let (inside, door) = (inside.clone(), door.clone());
                    async move { Ok::<_, Infallible>(inside.call(&door, request).await) }
                });
            let service = TowerToHyperService::new(service);
            let task = Together::default();
            let connection = http(&task).serve_connection(TokioIo::new(io), service).into_owned();
            let connection = graceful.watch(connection);
            connections.spawn(as_one(task, async move {
                if let Err(e) = connection.await {
                    tracing::debug!(error = %e, "a connection broke");
                }
            }));
        }
        drop(arrivals);
        let _ = std::fs::remove_file(&socket);
        if tokio::time::timeout(GRACE, graceful.shutdown()).await.is_err() {
            tracing::info!("ends connections that did not end by themselves");
        }
        connections.shutdown().await;
    }
}

/// What a connection speaks, all of it in this task.
fn http(task: &Together) -> Builder<Together> {
    let mut builder = Builder::new(task.clone());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME);
    builder
}

/// Connections of both doors as they come.
fn arrivals(
    tcp: Option<(TcpListener, SocketAddr, Door)>,
    unix: UnixListener,
) -> BoxStream<'static, (Door, std::io::Result<Io>)> {
    let unix = UnixListenerStream::new(unix).map(|io| (Door::Socket, io.map(Io::Unix)));
    let Some((listener, _, door)) = tcp else { return unix.boxed() };
    let tcp = TcpListenerStream::new(listener).map(move |io| {
        let io = io.and_then(|io| {
            io.set_nodelay(true)?;
            Ok(Io::Tcp(io))
        });
        (door.clone(), io)
    });
    stream::select(tcp, unix).boxed()
}

/// What is behind the doors.
pub struct Inside {
    /// All gRPC services.
    pub routes: Measure<Routes>,
    /// HTTP/JSON.
    pub transcoder: Transcoder,
    /// The description of HTTP/JSON.
    pub document: Document,
}

impl Inside {
    async fn call(self: &Arc<Self>, door: &Door, request: Request<Incoming>) -> Response<Body> {
        let form = Form::of(request.headers());
        let mut request = request;
        if form == Form::GrpcWeb {
            let kind = Form::web_answer(request.headers());
            request.headers_mut().insert(ACCEPT, kind);
        }
        let granted = door.granted(request.headers());
        let mut response = self.admitted(door, form, request).await;
        if let Some(origin) = granted {
            cors::grant(&mut response, origin);
        }
        REQUESTS.with_label_values(&[form.word(), response.status().as_str()]).inc();
        response
    }

    async fn admitted(
        self: &Arc<Self>,
        door: &Door,
        form: Form,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let accept = parts.headers.get(ACCEPT).cloned();
        match door.admit(&parts, !body.is_end_stream()) {
            Ok(Admission::Request) => {}
            Ok(Admission::Preflight) => return cors::preflight(&parts),
            Err(refusal) => return self.refuse(form, refusal, accept),
        }
        let request = Request::from_parts(parts, body);
        match form {
            Form::Grpc => self.grpc(request).await,
            Form::GrpcWeb => self.grpc_web(request).await,
            Form::Http => self.http(request).await,
        }
    }

    fn refuse(&self, form: Form, refusal: Refusal, accept: Option<HeaderValue>) -> Response<Body> {
        match form {
            Form::Grpc => to_status(refusal.failure).into_http(),
            Form::GrpcWeb => web_status(to_status(refusal.failure), accept),
            Form::Http => self.transcoder.refuse(refusal),
        }
    }

    /// The documents that are served beside the API, and the API.
    async fn http(&self, request: Request<Incoming>) -> Response<Body> {
        let (method, path) = (request.method(), request.uri().path());
        if !openapi::PATHS.contains(&path) && path != scrape::PATH {
            return self.transcoder.call(request).await;
        }
        const TAKEN: [&Method; 1] = [&Method::GET];
        match *method {
            Method::GET | Method::HEAD if path == scrape::PATH => scrape::answer(method),
            Method::GET => self.document.response(),
            Method::HEAD => answer::without_body(self.document.response()),
            Method::OPTIONS => answer::options(&rules::allow(&TAKEN)),
            _ => self.transcoder.refuse(not_allowed(path, method, rules::allow(&TAKEN))),
        }
    }

    /// A gRPC-Web call: the same call, whose trailers come as the end of the body. tonic-web speaks it in both encodings.
    async fn grpc_web(self: &Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        if request.method() != Method::POST {
            let refusal = not_allowed(request.uri().path(), request.method(), Method::POST.to_string());
            return self.transcoder.refuse(refusal);
        }
        let inside = self.clone();
        let calls = tower::service_fn(move |request: Request<Body>| {
            let inside = inside.clone();
            async move { Ok::<_, Infallible>(inside.grpc(request).await) }
        });
        let answer = GrpcWebLayer::new().layer(calls).call(request).await;
        answer.unwrap_or_else(|never| match never {})
    }

    async fn grpc<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let end = match timeout::read(request.headers()) {
            Ok(limit) => limit.map(|l| Instant::now() + l),
            Err(text) => {
                let failure =
                    Failure::invalid(format!("grpc-timeout: \"{text}\" is not a time like 30S"), Vec::new());
                return to_status(failure).into_http();
            }
        };
        let mut routes = self.routes.clone();
        let call = async { Ok(routes.call(request).await.unwrap_or_else(|never| match never {})) };
        match timeout::bound(end, call).await {
            Ok(response) => explained(response),
            Err(status) => status.into_http(),
        }
    }
}

/// A status that comes instead of an answer, to a gRPC-Web caller.
fn web_status(status: Status, accept: Option<HeaderValue>) -> Response<Body> {
    let mut response = status.into_http();
    if let Some(kind) = accept {
        response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    response
}

/// Gives an `ErrorInfo` to the errors that tonic makes by itself: of unknown methods, say, and of messages that are no messages.
fn explained(response: Response<Body>) -> Response<Body> {
    match Status::from_header_map(response.headers()) {
        // tonic takes what it cannot read for a fault of the server's.
        Some(status) if status.message().starts_with(UNREADABLE) => {
            to_status(Failure::invalid(status.message().to_owned(), Vec::new())).into_http()
        }
        Some(status) if status.code() != tonic::Code::Ok && status.details().is_empty() => {
            to_status(from_status(&status)).into_http()
        }
        _ => response,
    }
}
