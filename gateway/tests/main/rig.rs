//! A gateway with the fakes behind it, and clients for both of its doors.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use netloom_api::DESCRIPTORS;
use netloom_gateway::Gateway;
use netloom_gateway::transcode::http::Transcoder;
use netloom_service::measure::MeasureLayer;
use netloom_service::{Connector, Endpoint, Settings, Shutdown};
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use tower::Layer as _;

use crate::fake::World;
use crate::reflect::Reflected;

/// Longest that anything in these tests may take.
pub const BOUND: Duration = Duration::from_secs(20);

pub struct Rig {
    pub world: Arc<World>,
    pub address: String,
    pub socket: PathBuf,
    pub token: String,
    pub shutdown: Shutdown,
    pub pool: DescriptorPool,
    pub channel: Channel,
    connector: Connector,
    settings: Settings,
    client: Client<HttpConnector, Full<Bytes>>,
    _dir: tempfile::TempDir,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// An answer over HTTP.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    /// The reason in the error's ErrorInfo; every error must have one.
    pub fn reason(&self) -> String {
        reason(&self.json())
    }
}

/// The reason in a google.rpc.Status.
pub fn reason(status: &serde_json::Value) -> String {
    let details = status["details"].as_array().unwrap_or_else(|| panic!("no details: {status}"));
    let info = details.iter().find(|d| d["@type"] == "type.googleapis.com/google.rpc.ErrorInfo");
    let info = info.unwrap_or_else(|| panic!("no ErrorInfo: {status}"));
    assert_eq!(info["domain"], "netloom");
    info["reason"].as_str().unwrap().to_owned()
}

impl Rig {
    pub async fn new() -> Rig {
        Rig::with(World::new(), "").await
    }

    /// With these facts, and more lines in the section `[gateway]`.
    pub async fn with(world: World, more: &str) -> Rig {
        Rig::of(world, "mem:scheduler", more).await
    }

    /// With a scheduler at this socket, for [`Rig::serve_scheduler`].
    pub async fn behind(world: World, socket: &Path) -> Rig {
        Rig::of(world, &format!("unix:{}", socket.display()), "").await
    }

    async fn of(world: World, scheduler: &str, more: &str) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            "[endpoints]\nscheduler = {scheduler:?}\nimage_registry = \"mem:registry\"\n[gateway]\nlisten = \"127.0.0.1:0\"\n{more}"
        );
        let settings = Settings::from_toml(&text, &dir.path().join("data"), &dir.path().join("run")).unwrap();
        let (connector, shutdown) = (Connector::default(), Shutdown::new());
        let world = Arc::new(world);
        world.serve(&connector, &shutdown).await;
        let gateway = Gateway::bind(&settings, connector.clone(), shutdown.clone()).await.unwrap();
        let address = gateway.address().unwrap().to_string();
        let socket = gateway.socket().to_owned();
        tokio::spawn(gateway.serve());
        let token = std::fs::read_to_string(dir.path().join("data/admin.token")).unwrap();
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect_lazy();
        Rig {
            world,
            address,
            socket,
            token,
            shutdown,
            pool: DescriptorPool::decode(DESCRIPTORS).unwrap(),
            channel,
            connector,
            settings,
            client: Client::builder(TokioExecutor::new()).build_http(),
            _dir: dir,
        }
    }

    /// A request over TCP with the token and, with a body, the content type; the headers given replace them.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> http::Response<Incoming> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .header("authorization", format!("Bearer {}", self.token));
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        let mut request = request.body(Full::new(Bytes::from(body))).unwrap();
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().unwrap();
            match *value {
                "" => drop(request.headers_mut().remove(name)),
                value => drop(request.headers_mut().insert(name, value.parse().unwrap())),
            }
        }
        tokio::time::timeout(BOUND, self.client.request(request)).await.expect("an answer in time").unwrap()
    }

    pub async fn http(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Answer {
        read(self.send(method, path, headers, body.into()).await).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.http("GET", path, &[], Vec::new()).await
    }

    pub async fn post(&self, path: &str, body: &str) -> Answer {
        self.http("POST", path, &[], body).await
    }

    /// A request over the Unix socket, without a token.
    pub async fn over_socket(&self, request: Request<Full<Bytes>>) -> Answer {
        let stream = tokio::net::UnixStream::connect(&self.socket).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        read(sender.send_request(request).await.unwrap()).await
    }

    /// Serves the scheduler at another place, too.
    pub async fn serve_scheduler(&self, socket: &Path) {
        self.world.serve_scheduler(&self.connector, &Endpoint::Unix(socket.to_owned()), &self.shutdown).await;
    }

    /// HTTP/JSON without a door before it, on the same services.
    pub fn transcoder(&self) -> Transcoder {
        let api = netloom_gateway::grpc::Api {
            peers: netloom_gateway::client::Peers::new(self.connector.clone(), &self.settings.endpoints),
            catalogue: Arc::new(self.settings.catalogue().unwrap()),
            shutdown: self.shutdown.clone(),
        };
        let measure = MeasureLayer::new(&[DESCRIPTORS]).unwrap();
        Transcoder::new(&self.pool, measure.layer(api.routes().prepare())).unwrap()
    }

    /// The bytes of an answer.
    pub async fn bytes(&self, response: http::Response<Incoming>) -> Bytes {
        let body = tokio::time::timeout(BOUND, response.into_body().collect());
        body.await.expect("a body in time").unwrap().to_bytes()
    }

    /// The first lines of a streamed answer: as many as are asked for, or all there are.
    pub async fn lines(&self, response: http::Response<Incoming>, count: usize) -> Vec<String> {
        let mut body = response.into_body();
        let (mut text, mut ends) = (String::new(), 0);
        let reading = async {
            while ends < count {
                let Some(frame) = body.frame().await else { break };
                if let Ok(data) = frame.unwrap().into_data() {
                    ends += data.iter().filter(|b| **b == b'\n').count();
                    text.push_str(std::str::from_utf8(&data).unwrap());
                }
            }
        };
        tokio::time::timeout(BOUND, reading).await.unwrap_or_else(|_| panic!("{count} lines in time"));
        text.lines().take(count).map(str::to_owned).collect()
    }

    /// The headers of the answer to a gRPC call whose bytes are given, over the socket.
    pub async fn raw_grpc(&self, method: &str, headers: &[(&str, &str)], frame: Vec<u8>) -> HeaderMap {
        let stream = tokio::net::UnixStream::connect(&self.socket).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::post(format!("http://x/netloom.v1.{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(frame))).unwrap();
        let response =
            tokio::time::timeout(BOUND, sender.send_request(request)).await.expect("an answer in time");
        response.unwrap().headers().clone()
    }

    pub fn method(&self, name: &str) -> MethodDescriptor {
        let (service, method) = name.split_once('/').unwrap();
        let service = self.pool.get_service_by_name(&format!("netloom.v1.{service}")).unwrap();
        service.methods().find(|m| m.name() == method).unwrap_or_else(|| panic!("{name}"))
    }

    /// Calls any method over gRPC, by name and with its request as JSON.
    pub async fn grpc(
        &self,
        name: &str,
        request: &serde_json::Value,
    ) -> Result<Streaming<DynamicMessage>, Status> {
        let method = self.method(name);
        let message = DynamicMessage::deserialize(method.input(), request).unwrap();
        let mut request = tonic::Request::new(tokio_stream::once(message));
        let token = format!("Bearer {}", self.token).parse().unwrap();
        request.metadata_mut().insert("authorization", token);
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name()).try_into().unwrap();
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        client.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
        Ok(client.streaming(request, path, Reflected { output: method.output() }).await?.into_inner())
    }

    /// The first messages of such a call: as many as are asked for, or all there are.
    pub async fn grpc_messages(
        &self,
        name: &str,
        request: &serde_json::Value,
        count: usize,
    ) -> Vec<DynamicMessage> {
        let mut messages = Vec::new();
        let reading = async {
            let mut answers = self.grpc(name, request).await.unwrap_or_else(|e| panic!("{name}: {e}"));
            while messages.len() < count {
                match answers.message().await.unwrap_or_else(|e| panic!("{name}: {e}")) {
                    Some(message) => messages.push(message),
                    None => break,
                }
            }
        };
        tokio::time::timeout(BOUND, reading).await.unwrap_or_else(|_| panic!("{name} in time"));
        messages
    }

    /// The failure of such a call.
    pub async fn grpc_failure(&self, name: &str, request: &serde_json::Value) -> netloom_model::Failure {
        let status = match self.grpc(name, request).await {
            Err(status) => status,
            Ok(mut answers) => answers.message().await.expect_err("a failure"),
        };
        netloom_service::status::from_status(&status)
    }
}

async fn read(response: http::Response<Incoming>) -> Answer {
    let (parts, body) = response.into_parts();
    let bytes =
        tokio::time::timeout(BOUND, body.collect()).await.expect("a body in time").unwrap().to_bytes();
    Answer { status: parts.status, headers: parts.headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
}
