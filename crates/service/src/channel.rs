//! The seam between programs: an endpoint to listen on or to call, by TLS, TCP, Unix socket or memory.
//!
//! Between machines it is TLS ([`crate::tls`]): a listener there admits the controller only, and calls of hosts only where it was made for them.
//!
//! A caller's channel connects when first used and again after a loss, so programs may start in any order.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
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
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::Connected;
use tower::util::BoxService;

use crate::replicas::{PATIENCE, Replicas, Search, Whom};
use crate::telemetry::Inject;
use crate::tls::handshakes::{self, Handshakes};
use crate::tls::{Caller, Controller, Identity, Peer, Pinned, TlsError, host_of, plain};
use crate::{Settings, Shutdown, Together};

/// A channel to another program: it carries the caller's trace context and, over TCP, the shared token.
pub type Channel = InterceptedService<tonic::transport::Channel, Inject>;

/// What makes a channel's connections.
type Way = BoxService<Uri, TokioIo<Io>, io::Error>;

/// Bytes that an in-memory connection holds in each direction before its writer waits.
const MEMORY_PIPE: usize = 256 << 10;

/// Where a program is reached: `unix:/path`, `http://address:port`, `https://[host:uid@]address:port` or `mem:name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Endpoint {
    /// A Unix socket, made with mode 0600.
    Unix(PathBuf),
    /// A TCP address, as `host:port`.
    Tcp(String),
    /// A TCP address with TLS.
    Tls {
        /// Whose certificate is expected there.
        peer: Peer,
        /// As `host:port`.
        address: String,
    },
    /// A name within this process.
    Memory(String),
}

/// Why a text is not an endpoint.
#[derive(Debug, thiserror::Error)]
#[error(
    "\"{0}\" is not an endpoint: write unix:/path, http://address:port, https://[host:uid@]address:port or mem:name"
)]
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
        } else if let Some(rest) = s.strip_prefix("https://") {
            let rest = rest.trim_end_matches('/');
            let (peer, address) = match rest.split_once('@') {
                Some((peer, address)) => {
                    let (id, uid) = peer.split_once(':').ok_or_else(refused)?;
                    (Peer::Host { id: id.parse().map_err(|_| refused())?, uid: some(uid)? }, address)
                }
                None => (Peer::Controller, rest),
            };
            let (name, port) = address.rsplit_once(':').ok_or_else(refused)?;
            if name.is_empty() || port.parse::<u16>().is_err() {
                return Err(refused());
            }
            Ok(Endpoint::Tls { peer, address: address.to_owned() })
        } else if let Some(name) = s.strip_prefix("mem:") {
            Ok(Endpoint::Memory(some(name)?))
        } else {
            Err(refused())
        }
    }
}

impl Endpoint {
    /// The name or address of the machine that is reached over TLS.
    pub fn tls_name(&self) -> Option<&str> {
        match self {
            Endpoint::Tls { address, .. } => Some(host_of(address)),
            Endpoint::Unix(_) | Endpoint::Tcp(_) | Endpoint::Memory(_) => None,
        }
    }

    /// Says in the log of what others on a network can read along, and what to do `instead` between machines.
    pub fn warn_of_plain(&self, instead: &str) {
        if self.is_plain_on_a_network() {
            tracing::warn!(
                "what goes over {self} is not encrypted: {instead} where that leaves this machine"
            );
        }
    }

    fn is_plain_on_a_network(&self) -> bool {
        let Endpoint::Tcp(address) = self else { return false };
        let host = host_of(address);
        host != "localhost" && !host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
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
            Endpoint::Tls { peer: Peer::Host { id, uid }, address } => {
                write!(f, "https://{id}:{uid}@{address}")
            }
            Endpoint::Tls { peer: Peer::Controller, address } => write!(f, "https://{address}"),
            Endpoint::Memory(name) => write!(f, "mem:{name}"),
        }
    }
}

/// Opens channels and listeners. One connector holds the in-memory names of its process: clones share them.
#[derive(Clone, Default)]
pub struct Connector {
    memory: Arc<Mutex<HashMap<String, mpsc::UnboundedSender<DuplexStream>>>>,
    token: Option<Arc<str>>,
    shows: Shows,
    /// What runs the connections of its channels; none is a task each.
    runs: Option<Together>,
}

/// What is shown over TLS.
#[derive(Clone, Default)]
enum Shows {
    #[default]
    Nothing,
    /// A certificate of the controller, once its authority is there.
    Controller(Arc<Controller>),
    This(Arc<Identity>),
    /// Nothing yet: whom it may believe it knows by a token.
    Joining(Pinned),
}

impl Connector {
    /// A connector that shows this token on TCP, and demands it there.
    pub fn with_token(token: Option<&str>) -> Connector {
        Connector { token: token.map(Into::into), ..Connector::default() }
    }

    /// The connector of one of the controller's programs: with the configured token, and the installation's authority where it is needed. What is not encrypted on a network is told in the log.
    pub fn of(settings: &Settings) -> Connector {
        for endpoint in settings.controllers() {
            endpoint.warn_of_plain("write https:// in [endpoints] and in listen");
        }
        let names = settings.controller_names();
        let shows = Shows::Controller(Arc::new(Controller::new(settings.data_dir.clone(), names)));
        Connector { shows, ..Connector::with_token(settings.token.as_deref()) }
    }

    /// The same, as this identity over TLS.
    pub fn showing(self, identity: Arc<Identity>) -> Connector {
        Connector { shows: Shows::This(identity), ..self }
    }

    /// The same, for who is about to join.
    pub fn joining(self, believes: Pinned) -> Connector {
        Connector { shows: Shows::Joining(believes), ..self }
    }

    /// The same, and its channels run as part of that task: they work as long as it does, and wherever they are used.
    pub fn within(&self, task: Together) -> Connector {
        Connector { runs: Some(task), ..self.clone() }
    }

    fn identity(&self) -> Result<Arc<Identity>, TlsError> {
        match &self.shows {
            Shows::This(identity) => Ok(identity.clone()),
            Shows::Nothing | Shows::Joining(_) => {
                Err(TlsError::NoIdentity("this program was given none".to_owned()))
            }
            Shows::Controller(controller) => controller.identity(),
        }
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

    /// A channel to one of several programs, as [`crate::replicas`] tells: it follows the one that leads. To the only one it is as [`Connector::channel`].
    pub fn channel_to(&self, to: &Replicas, whom: Whom) -> Channel {
        let (settings, way) = self.way_to(to, whom);
        InterceptedService::new(settings.connect_with_connector_lazy(way), self.inject(to))
    }

    /// The same, once it is connected.
    pub async fn connected_to(&self, to: &Replicas, whom: Whom) -> Result<Channel, tonic::transport::Error> {
        let (settings, way) = self.way_to(to, whom);
        Ok(InterceptedService::new(settings.connect_with_connector(way).await?, self.inject(to)))
    }

    fn inject(&self, to: &Replicas) -> Inject {
        let tcp = to.all().iter().any(|endpoint| matches!(endpoint, Endpoint::Tcp(_)));
        Inject::new(tcp.then(|| self.token.clone()).flatten())
    }

    fn way_to(&self, to: &Replicas, whom: Whom) -> (tonic::transport::Endpoint, Way) {
        if let Some(only) = to.only() {
            return self.way(only);
        }
        let search = Arc::new(Search::new(self.clone(), to.clone(), whom));
        let settings = self
            .settings(None)
            .connect_timeout(PATIENCE * 2)
            // A machine that is gone is noticed within these, so that the next one that leads is found.
            .http2_keep_alive_interval(Duration::from_secs(1))
            .keep_alive_timeout(Duration::from_secs(2))
            .keep_alive_while_idle(true);
        let way = tower::service_fn(move |_: Uri| {
            let search = search.clone();
            async move { search.connect().await.map(TokioIo::new) }
        });
        (settings, Way::new(way))
    }

    /// A channel without trace context and token.
    pub(crate) fn transport(&self, endpoint: &Endpoint) -> tonic::transport::Channel {
        let (settings, way) = self.way(endpoint);
        settings.connect_with_connector_lazy(way)
    }

    fn way(&self, endpoint: &Endpoint) -> (tonic::transport::Endpoint, Way) {
        let (connector, target) = (self.clone(), endpoint.clone());
        // The address only fills the `:authority` header, which a gateway checks: the connector below knows where to go.
        let authority = match endpoint {
            Endpoint::Tcp(address) | Endpoint::Tls { address, .. } => {
                tonic::transport::Endpoint::from_shared(format!("http://{address}")).ok()
            }
            Endpoint::Unix(_) | Endpoint::Memory(_) => None,
        };
        let way = tower::service_fn(move |_: Uri| {
            let (connector, target) = (connector.clone(), target.clone());
            async move { connector.connect(&target).await.map(TokioIo::new) }
        });
        (self.settings(authority), Way::new(way))
    }

    /// What all channels have in common.
    fn settings(&self, authority: Option<tonic::transport::Endpoint>) -> tonic::transport::Endpoint {
        let settings = authority
            .unwrap_or_else(|| tonic::transport::Endpoint::from_static("http://localhost"))
            .connect_timeout(Duration::from_secs(5))
            .initial_stream_window_size(crate::server::STREAM_WINDOW)
            .initial_connection_window_size(crate::server::CONNECTION_WINDOW)
            .max_frame_size(crate::server::FRAME)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(10));
        match &self.runs {
            Some(task) => settings.executor(task.clone()),
            None => settings,
        }
    }

    pub(crate) async fn connect(&self, endpoint: &Endpoint) -> io::Result<Io> {
        match endpoint {
            Endpoint::Unix(path) => UnixStream::connect(path).await.map(Io::Unix),
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect(address.as_str()).await?;
                stream.set_nodelay(true)?;
                Ok(Io::Tcp(stream))
            }
            Endpoint::Tls { peer, address } => {
                let stream = match &self.shows {
                    Shows::Joining(believes) => believes.connect(address).await?,
                    _ => self.identity()?.connect(address, peer).await?,
                };
                Ok(Io::Tls(Box::new(stream), Caller::default()))
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

    /// Listens. A Unix socket left over by a dead program is replaced, one that answers is not. Over TLS the controller is admitted, and nobody else; while there is nothing to show yet
    /// to anybody, who dials is turned away. Without TLS and without a token nobody listens beyond this machine.
    pub async fn listen(&self, endpoint: &Endpoint) -> io::Result<Listener> {
        let (inner, gate) = match endpoint {
            Endpoint::Unix(path) => (Inner::Unix(bind_unix(path, 0o600).await?), Gate::Open),
            Endpoint::Tcp(_) if self.token.is_none() && endpoint.is_plain_on_a_network() => {
                let message = format!(
                    "anybody on the network could call {endpoint}: write https:// in [endpoints] and in listen, or, where that does not leave this machine, set token"
                );
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
            }
            Endpoint::Tcp(address) => {
                let gate = self.token.clone().map_or(Gate::Open, Gate::Token);
                (Inner::Tcp(TcpListener::bind(address.as_str()).await?), gate)
            }
            Endpoint::Tls { address, .. } => {
                let listener = TcpListener::bind(address.as_str()).await?;
                (Inner::tls(listener, self.clone())?, Gate::Controller)
            }
            Endpoint::Memory(name) => {
                let (sender, receiver) = mpsc::unbounded_channel();
                self.memory.lock().expect("no holder panics").insert(name.clone(), sender);
                (Inner::Memory(receiver), Gate::Open)
            }
        };
        Ok(Listener { inner, gate })
    }

    /// Listens over TLS for whoever comes, also without a certificate: handlers find the [`Caller`] among a request's extensions, and decide.
    pub async fn listen_for_hosts(&self, address: &str) -> io::Result<Listener> {
        let inner = Inner::tls(TcpListener::bind(address).await?, self.clone())?;
        Ok(Listener { inner, gate: Gate::Handlers })
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
    gate: Gate,
}

/// Who may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// Whoever can connect.
    Open,
    /// Who shows this token.
    Token(Arc<str>),
    /// Who shows the controller's certificate.
    Controller,
    /// Whoever can connect, to netloom's own services, whose handlers decide; to nothing else that is served beside them.
    Handlers,
}

enum Inner {
    Unix(UnixListener),
    Tcp(TcpListener),
    Tls { ready: mpsc::Receiver<io::Result<Io>>, port: u16, _end: tokio_util::sync::DropGuard },
    Memory(mpsc::UnboundedReceiver<DuplexStream>),
}

impl Inner {
    /// Handshakes are made beside the listener, a bounded number of them for a bounded time.
    fn tls(listener: TcpListener, shows: Connector) -> io::Result<Inner> {
        match shows.identity() {
            Ok(_) | Err(TlsError::NoAuthority(_)) => {}
            Err(e) => return Err(e.into()),
        }
        let port = listener.local_addr()?.port();
        let (sender, ready) = mpsc::channel(handshakes::MOST);
        let end = Shutdown::new();
        tokio::spawn(end.clone().run_until_cancelled_owned(accept_tls(listener, shows, sender)));
        Ok(Inner::Tls { ready, port, _end: end.drop_guard() })
    }
}

async fn accept_tls(listener: TcpListener, shows: Connector, ready: mpsc::Sender<io::Result<Io>>) {
    let slots = Arc::new(Semaphore::new(handshakes::MOST));
    let under_way = Handshakes::default();
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let (mut stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                tracing::warn!("a connection cannot be accepted: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(handshake) = under_way.begin(from.ip()) else {
            tracing::info!(%from, "refused: too many handshakes are under way from there");
            continue;
        };
        let (identity, ready) = match shows.identity() {
            Ok(identity) => (identity, ready.clone()),
            Err(e) => {
                tracing::debug!(%from, "turned away: {e}");
                continue;
            }
        };
        tokio::spawn(async move {
            let _places = (slot, handshake);
            let _ = stream.set_nodelay(true);
            let accepted = async {
                match plain::refused(&mut stream).await? {
                    true => Err(io::Error::other("it does not speak TLS")),
                    false => identity.accept(stream).await,
                }
            };
            match tokio::time::timeout(handshakes::WITHIN, accepted).await {
                Ok(Ok((stream, peer))) => drop(ready.send(Ok(Io::Tls(Box::new(stream), Caller(peer)))).await),
                Ok(Err(e)) => tracing::info!(%from, "refused: {e}"),
                Err(_) => tracing::info!(%from, "refused: no handshake within {:?}", handshakes::WITHIN),
            }
        });
    }
}

impl Listener {
    /// Who may call here.
    pub fn gate(&self) -> Gate {
        self.gate.clone()
    }

    /// The TCP port that was bound, for endpoints with port 0.
    pub fn port(&self) -> Option<u16> {
        match &self.inner {
            Inner::Tcp(listener) => listener.local_addr().ok().map(|a| a.port()),
            Inner::Tls { port, .. } => Some(*port),
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
            Inner::Tls { ready, .. } => ready.poll_recv(cx),
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
    /// Over TLS, from this caller.
    Tls(Box<TlsStream<TcpStream>>, Caller),
    /// Within the process.
    Memory(DuplexStream),
}

impl Connected for Io {
    type ConnectInfo = Caller;
    fn connect_info(&self) -> Caller {
        match self {
            Io::Tls(_, caller) => caller.clone(),
            Io::Unix(_) | Io::Tcp(_) | Io::Memory(_) => Caller::default(),
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Unix(s) => Pin::new(s).poll_read(cx, buf),
            Io::Tcp(s) => Pin::new(s).poll_read(cx, buf),
            Io::Tls(s, _) => Pin::new(s).poll_read(cx, buf),
            Io::Memory(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Io::Unix(s) => Pin::new(s).poll_write(cx, buf),
            Io::Tcp(s) => Pin::new(s).poll_write(cx, buf),
            Io::Tls(s, _) => Pin::new(s).poll_write(cx, buf),
            Io::Memory(s) => Pin::new(s).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Unix(s) => Pin::new(s).poll_flush(cx),
            Io::Tcp(s) => Pin::new(s).poll_flush(cx),
            Io::Tls(s, _) => Pin::new(s).poll_flush(cx),
            Io::Memory(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Unix(s) => Pin::new(s).poll_shutdown(cx),
            Io::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Io::Tls(s, _) => Pin::new(s).poll_shutdown(cx),
            Io::Memory(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_back() {
        for text in [
            "unix:/run/x.sock",
            "http://127.0.0.1:7600",
            "https://ctl:7601",
            "https://h2:uid@[::1]:7602",
            "mem:scheduler",
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        assert_eq!("unix:///a".parse::<Endpoint>().unwrap(), Endpoint::Unix("/a".into()));
        for text in [
            "",
            "unix:",
            "http://",
            "http://host",
            "mem:",
            "/run/x.sock",
            "https://a",
            "https://a:b",
            "https://@a:1",
            "https://h1@a:1",
            "https://h1:@a:1",
            "https://:uid@a:1",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn nobody_listens_on_a_network_for_anybody() {
        let everywhere: Endpoint = "http://0.0.0.0:0".parse().unwrap();
        let said = Connector::default().listen(&everywhere).await.err().unwrap().to_string();
        assert!(said.contains("anybody on the network could call http://0.0.0.0:0"), "{said}");
        assert!(Connector::with_token(Some("t")).listen(&everywhere).await.is_ok());
        assert!(Connector::default().listen(&"http://127.0.0.1:0".parse().unwrap()).await.is_ok());
    }

    #[test]
    fn what_others_on_a_network_can_read_along_is_known() {
        let is_plain = |text: &&str| text.parse::<Endpoint>().unwrap().is_plain_on_a_network();
        assert!(
            ["http://10.0.0.1:1", "http://0.0.0.0:1", "http://scheduler1:1", "http://[fd00::1]:1"]
                .iter()
                .all(is_plain)
        );
        let here = [
            "unix:/s",
            "mem:s",
            "https://10.0.0.1:1",
            "http://127.0.0.2:1",
            "http://[::1]:1",
            "http://localhost:1",
        ];
        assert!(!here.iter().any(is_plain));
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
