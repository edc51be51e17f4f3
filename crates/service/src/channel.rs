//! The seam between programs: an endpoint to listen on or to call, by TCP, Unix socket or memory.
//!
//! A caller's channel connects when first used and again after a loss, so programs may start in any order.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use http::Uri;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::Connected;

use crate::telemetry::Inject;

/// A channel to another program: it carries the caller's trace context and, over TCP, the shared token.
pub type Channel = InterceptedService<tonic::transport::Channel, Inject>;

/// Bytes that an in-memory connection holds in each direction before its writer waits.
const MEMORY_PIPE: usize = 256 << 10;

/// Where a program is reached: `unix:/path`, `http://address:port` or `mem:name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Endpoint {
    /// A Unix socket, made with mode 0600.
    Unix(PathBuf),
    /// A TCP address, as `host:port`.
    Tcp(String),
    /// A name within this process.
    Memory(String),
}

/// Why a text is not an endpoint.
#[derive(Debug, thiserror::Error)]
#[error("\"{0}\" is not an endpoint: write unix:/path, http://address:port or mem:name")]
pub struct EndpointError(String);

impl FromStr for Endpoint {
    type Err = EndpointError;
    fn from_str(s: &str) -> Result<Self, EndpointError> {
        let refused = || EndpointError(s.to_owned());
        let some = |rest: &str| if rest.is_empty() { Err(refused()) } else { Ok(rest.to_owned()) };
        if let Some(path) = s.strip_prefix("unix:") {
            Ok(Endpoint::Unix(some(path.strip_prefix("//").unwrap_or(path))?.into()))
        } else if let Some(address) = s.strip_prefix("http://") {
            let address = address.trim_end_matches('/');
            if address.contains(':') { Ok(Endpoint::Tcp(some(address)?)) } else { Err(refused()) }
        } else if let Some(name) = s.strip_prefix("mem:") {
            Ok(Endpoint::Memory(some(name)?))
        } else {
            Err(refused())
        }
    }
}

impl TryFrom<String> for Endpoint {
    type Error = EndpointError;
    fn try_from(s: String) -> Result<Self, EndpointError> {
        s.parse()
    }
}

impl From<Endpoint> for String {
    fn from(e: Endpoint) -> String {
        e.to_string()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
            Endpoint::Tcp(address) => write!(f, "http://{address}"),
            Endpoint::Memory(name) => write!(f, "mem:{name}"),
        }
    }
}

/// Opens channels and listeners. One connector holds the in-memory names of its process: clones share them.
#[derive(Clone, Default)]
pub struct Connector {
    memory: Arc<Mutex<HashMap<String, mpsc::UnboundedSender<DuplexStream>>>>,
    token: Option<Arc<str>>,
}

impl Connector {
    /// A connector that shows this token on TCP, and demands it there.
    pub fn with_token(token: Option<&str>) -> Connector {
        Connector { token: token.map(Into::into), ..Connector::default() }
    }

    /// The token that TCP demands.
    pub fn token(&self) -> Option<Arc<str>> {
        self.token.clone()
    }

    /// A channel that connects when first used, and again after a loss.
    pub fn channel(&self, endpoint: &Endpoint) -> Channel {
        let token = matches!(endpoint, Endpoint::Tcp(_)).then(|| self.token.clone()).flatten();
        InterceptedService::new(self.transport(endpoint), Inject::new(token))
    }

    /// The same without trace context and token.
    pub(crate) fn transport(&self, endpoint: &Endpoint) -> tonic::transport::Channel {
        let (connector, target) = (self.clone(), endpoint.clone());
        // The address only fills the `:authority` header, which a gateway checks: the connector below knows where to go.
        let authority = match endpoint {
            Endpoint::Tcp(address) => {
                tonic::transport::Endpoint::from_shared(format!("http://{address}")).ok()
            }
            Endpoint::Unix(_) | Endpoint::Memory(_) => None,
        };
        authority
            .unwrap_or_else(|| tonic::transport::Endpoint::from_static("http://localhost"))
            .connect_timeout(Duration::from_secs(5))
            .initial_stream_window_size(crate::server::STREAM_WINDOW)
            .initial_connection_window_size(crate::server::CONNECTION_WINDOW)
            .max_frame_size(crate::server::FRAME)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(10))
            .connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
                let (connector, target) = (connector.clone(), target.clone());
                async move { connector.connect(&target).await.map(TokioIo::new) }
            }))
    }

    async fn connect(&self, endpoint: &Endpoint) -> io::Result<Io> {
        match endpoint {
            Endpoint::Unix(path) => UnixStream::connect(path).await.map(Io::Unix),
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect(address.as_str()).await?;
                stream.set_nodelay(true)?;
                Ok(Io::Tcp(stream))
            }
            Endpoint::Memory(name) => {
                let (ours, theirs) = tokio::io::duplex(MEMORY_PIPE);
                let listening = self.memory.lock().expect("no holder panics").get(name).cloned();
                listening.and_then(|listener| listener.send(theirs).ok()).ok_or_else(|| {
                    io::Error::new(io::ErrorKind::ConnectionRefused, format!("nothing listens on mem:{name}"))
                })?;
                Ok(Io::Memory(ours))
            }
        }
    }

    /// Listens. A Unix socket left over by a dead program is replaced, one that answers is not.
    pub async fn listen(&self, endpoint: &Endpoint) -> io::Result<Listener> {
        match endpoint {
            Endpoint::Unix(path) => {
                let inner = bind_unix(path, 0o600).await?;
                Ok(Listener { inner: Inner::Unix(inner), token: None })
            }
            Endpoint::Tcp(address) => {
                let inner = TcpListener::bind(address.as_str()).await?;
                Ok(Listener { inner: Inner::Tcp(inner), token: self.token.clone() })
            }
            Endpoint::Memory(name) => {
                let (sender, receiver) = mpsc::unbounded_channel();
                self.memory.lock().expect("no holder panics").insert(name.clone(), sender);
                Ok(Listener { inner: Inner::Memory(receiver), token: None })
            }
        }
    }
}

/// Binds a Unix socket with this mode. One left over by a dead program is replaced; one that answers is not.
pub async fn bind_unix(path: &std::path::Path, mode: u32) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt as _;
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    if path.exists() {
        if UnixStream::connect(path).await.is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                format!("another program listens on {}; stop it first", path.display()),
            ));
        }
        std::fs::remove_file(path)?;
    }
    // Bound under a name of its own and renamed, so that it never exists with a wider mode.
    let draft = path.with_extension(format!("{}.new", std::process::id()));
    let _ = std::fs::remove_file(&draft);
    let listener = UnixListener::bind(&draft)?;
    std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(mode))?;
    std::fs::rename(&draft, path)?;
    Ok(listener)
}

/// A listening endpoint, as a stream of connections.
pub struct Listener {
    inner: Inner,
    token: Option<Arc<str>>,
}

enum Inner {
    Unix(UnixListener),
    Tcp(TcpListener),
    Memory(mpsc::UnboundedReceiver<DuplexStream>),
}

impl Listener {
    /// The token that callers have to show; none on Unix sockets and in memory.
    pub fn token(&self) -> Option<Arc<str>> {
        self.token.clone()
    }

    /// The TCP port that was bound, for endpoints with port 0.
    pub fn port(&self) -> Option<u16> {
        match &self.inner {
            Inner::Tcp(listener) => listener.local_addr().ok().map(|a| a.port()),
            Inner::Unix(_) | Inner::Memory(_) => None,
        }
    }
}

impl Stream for Listener {
    type Item = io::Result<Io>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Io>>> {
        match &mut self.inner {
            Inner::Unix(l) => l.poll_accept(cx).map(|r| Some(r.map(|(s, _)| Io::Unix(s)))),
            Inner::Tcp(l) => l.poll_accept(cx).map(|r| {
                Some(r.and_then(|(s, _)| {
                    s.set_nodelay(true)?;
                    Ok(Io::Tcp(s))
                }))
            }),
            Inner::Memory(r) => r.poll_recv(cx).map(|s| s.map(|s| Ok(Io::Memory(s)))),
        }
    }
}

/// One connection.
pub enum Io {
    /// Over a Unix socket.
    Unix(UnixStream),
    /// Over TCP.
    Tcp(TcpStream),
    /// Within the process.
    Memory(DuplexStream),
}

impl Connected for Io {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Unix(s) => Pin::new(s).poll_read(cx, buf),
            Io::Tcp(s) => Pin::new(s).poll_read(cx, buf),
            Io::Memory(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Io::Unix(s) => Pin::new(s).poll_write(cx, buf),
            Io::Tcp(s) => Pin::new(s).poll_write(cx, buf),
            Io::Memory(s) => Pin::new(s).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Unix(s) => Pin::new(s).poll_flush(cx),
            Io::Tcp(s) => Pin::new(s).poll_flush(cx),
            Io::Memory(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Unix(s) => Pin::new(s).poll_shutdown(cx),
            Io::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Io::Memory(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_back() {
        for text in ["unix:/run/x.sock", "http://127.0.0.1:7600", "mem:scheduler"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        assert_eq!("unix:///a".parse::<Endpoint>().unwrap(), Endpoint::Unix("/a".into()));
        for text in ["", "unix:", "http://", "http://host", "mem:", "/run/x.sock", "https://a:1"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let first = bind_unix(&path, 0o600).await.unwrap();
        let refused = bind_unix(&path, 0o600).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert!(bind_unix(&path, 0o600).await.is_ok());
    }
}
