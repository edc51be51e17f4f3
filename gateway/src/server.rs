//! The two doors, TCP and the Unix socket, with gRPC (h2c) and HTTP/JSON (HTTP/1.1 and h2c) on both.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};
use http::{Request, Response};
use hyper::body::{Body as _, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use netloom_model::Failure;
use netloom_service::Shutdown;
use netloom_service::channel::{Io, bind_unix};
use netloom_service::server::call_span;
use netloom_service::server::{CONNECTION_WINDOW, STREAM_WINDOW};
use netloom_service::status::{from_status, to_status};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower::{Service as _, ServiceBuilder};
use tower_http::trace::TraceLayer;

use crate::auth::{self, Door};
use crate::config::Config;
use crate::timeout;
use crate::transcode::http::Transcoder;

/// How long calls may go on after the gateway was asked to end.
const GRACE: Duration = Duration::from_secs(5);
/// How long a caller may take to send a request's headers.
const HEADERS: Duration = Duration::from_secs(30);
/// How often a silent HTTP/2 caller is asked whether it still lives.
const PING: Duration = Duration::from_secs(20);
/// Pause after the system refused a connection, for want of file descriptors, say.
const PAUSE: Duration = Duration::from_millis(100);

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
                Some((listener, address, Door::tcp(&token, listen, &config.allowed_hosts)))
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
    pub async fn serve(self, routes: Routes, transcoder: Transcoder, shutdown: Shutdown) {
        let Doors { tcp, unix, socket } = self;
        let inside = Arc::new(Inside { routes: routes.prepare(), transcoder });
        let mut arrivals = arrivals(tcp, unix);
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
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
            let connection = builder.serve_connection(TokioIo::new(io), service).into_owned();
            let connection = graceful.watch(connection);
            connections.spawn(async move {
                if let Err(e) = connection.await {
                    tracing::debug!(error = %e, "a connection broke");
                }
            });
        }
        drop(arrivals);
        let _ = std::fs::remove_file(&socket);
        if tokio::time::timeout(GRACE, graceful.shutdown()).await.is_err() {
            tracing::info!("ends connections that did not end by themselves");
        }
        connections.shutdown().await;
    }
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
struct Inside {
    routes: Routes,
    transcoder: Transcoder,
}

impl Inside {
    async fn call(&self, door: &Door, request: Request<Incoming>) -> Response<Body> {
        let grpc = auth::is_grpc(request.headers());
        let (parts, body) = request.into_parts();
        if let Err(refusal) = door.admit(&parts, !body.is_end_stream()) {
            return match grpc {
                true => to_status(refusal.failure).into_http(),
                false => self.transcoder.refuse(refusal),
            };
        }
        let request = Request::from_parts(parts, body);
        if grpc { self.grpc(request).await } else { self.transcoder.call(request).await }
    }

    async fn grpc(&self, request: Request<Incoming>) -> Response<Body> {
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

/// Gives an `ErrorInfo` to the errors that tonic makes by itself: of unknown methods, say, and of messages that are no messages.
fn explained(response: Response<Body>) -> Response<Body> {
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() != tonic::Code::Ok && status.details().is_empty() => {
            to_status(from_status(&status)).into_http()
        }
        _ => response,
    }
}
