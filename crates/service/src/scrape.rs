//! `GET /metrics`: on each program's own listener, and on an address of its own where the configuration names one.

use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use futures::future::BoxFuture;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::body::Body;

use crate::{Shutdown, metrics};

/// Where figures are told.
pub const PATH: &str = "/metrics";
/// How long a caller may take to send a request's headers.
const HEADERS: Duration = Duration::from_secs(10);
/// Pause after the system refused a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// The figures, as an answer to this method.
pub fn answer(method: &Method) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    match *method {
        Method::GET | Method::HEAD => {
            let text = metrics::text();
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
            headers.insert(header::CONTENT_LENGTH, text.len().into());
            if *method == Method::GET {
                *response.body_mut() = Body::new(text);
            }
        }
        _ => {
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
    }
    response
}

fn nothing_here() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

/// Answers `/metrics` beside the calls that a server takes. HTTP/1 is spoken for that alone: calls are HTTP/2.
#[derive(Clone, Copy)]
pub(crate) struct ScrapeLayer;

impl<S> tower::Layer<S> for ScrapeLayer {
    type Service = Scrape<S>;
    fn layer(&self, inner: S) -> Scrape<S> {
        Scrape { inner }
    }
}

#[derive(Clone)]
pub(crate) struct Scrape<S> {
    inner: S,
}

impl<S, B> tower::Service<Request<B>> for Scrape<S>
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
        if request.uri().path() == PATH {
            let response = answer(request.method());
            return Box::pin(async move { Ok(response) });
        }
        if request.version() < Version::HTTP_2 {
            return Box::pin(async { Ok(nothing_here()) });
        }
        Box::pin(self.inner.call(request))
    }
}

/// Tells figures at an address of its own, without a token, until shut down: they name no lab and no node. The address that was bound comes back.
pub async fn listen(address: &str, shutdown: Shutdown) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(address);
    let listener = listener.await.with_context(|| format!("metrics cannot be served at {address}"))?;
    let bound = listener.local_addr()?;
    tracing::info!(address = %bound, "serves metrics");
    tokio::spawn(serve(listener, shutdown));
    Ok(bound)
}

async fn serve(listener: TcpListener, shutdown: Shutdown) {
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            () = shutdown.cancelled() => return,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(e) => {
                    tracing::warn!(error = %e, "a connection for metrics could not be taken");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
        };
        let service = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| async move {
            let ours = request.uri().path() == PATH;
            Ok::<_, std::convert::Infallible>(if ours { answer(request.method()) } else { nothing_here() })
        });
        connections.spawn(async move {
            let mut server = hyper::server::conn::http1::Builder::new();
            let served = server.timer(TokioTimer::new()).header_read_timeout(HEADERS);
            let _ = served.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Empty};
    use tonic::service::Routes;

    use super::*;
    use crate::channel::{Connector, Io};
    use crate::{Endpoint, server};

    /// Asks over HTTP/1; the status and the text.
    async fn ask(io: Io, path: &str, token: Option<&str>) -> (u16, String) {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::get(path).header("host", "x");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response =
            sender.send_request(request.body(Empty::<bytes::Bytes>::new()).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn a_program_tells_its_figures_where_it_listens_and_to_whom_it_listens() {
        let dir = tempfile::tempdir().unwrap();
        let connector = Connector::with_token(Some("secret"));
        let shutdown = Shutdown::new();
        let socket = dir.path().join("x.sock");
        let tcp = connector.listen(&Endpoint::Tcp("127.0.0.1:0".into())).await.unwrap();
        let address = format!("127.0.0.1:{}", tcp.port().unwrap());
        for listener in [connector.listen(&Endpoint::Unix(socket.clone())).await.unwrap(), tcp] {
            let descriptors = tonic_health::pb::FILE_DESCRIPTOR_SET;
            tokio::spawn(server::serve(listener, Routes::default(), "x", descriptors, shutdown.clone()));
        }
        metrics::build_info("test", "1");
        let over_socket = || async { Io::Unix(tokio::net::UnixStream::connect(&socket).await.unwrap()) };
        let over_tcp = || async { Io::Tcp(tokio::net::TcpStream::connect(&address).await.unwrap()) };
        let (status, text) = ask(over_socket().await, PATH, None).await;
        assert_eq!(status, 200);
        assert!(text.contains("netloom_build_info{program=\"test\",version=\"1\"} 1"), "{text}");
        assert_eq!(ask(over_socket().await, "/grpc.health.v1.Health/Check", None).await.0, 404);
        assert_eq!(ask(over_tcp().await, PATH, Some("secret")).await.0, 200);
        for token in [None, Some("other")] {
            let (_, text) = ask(over_tcp().await, PATH, token).await;
            assert!(!text.contains("netloom_build_info"), "{token:?}: {text}");
        }
        // A call over the same door is counted.
        let channel = connector.channel(&Endpoint::Tcp(address.clone()));
        let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
        health.check(tonic_health::pb::HealthCheckRequest::default()).await.unwrap();
        let counted =
            "netloom_rpc_requests_total{code=\"OK\",method=\"Check\",service=\"grpc.health.v1.Health\"} 1";
        let (_, text) = ask(over_socket().await, PATH, None).await;
        assert!(text.contains(counted), "{text}");
        shutdown.cancel();
    }
}
