//! Bodies that are no JSON (`google.api.HttpBody`), and headers that are metadata: with a service that this test describes and serves itself.

use std::convert::Infallible;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::Frame;
use netloom_gateway::transcode::http::Transcoder;
use netloom_service::measure::MeasureLayer;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, Value};
use tonic::body::Body;
use tonic::service::Routes;
use tower::Layer as _;

/// A service `test.Raw` with methods `Whole` and `Parts` that answer raw bodies.
fn described() -> DescriptorPool {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto");
    let mut compiler =
        protox::Compiler::new([root, concat!(env!("CARGO_MANIFEST_DIR"), "/tests/proto")]).unwrap();
    compiler.include_imports(true).open_files(["raw.proto", "google/rpc/error_details.proto"]).unwrap();
    compiler.open_file("google/rpc/status.proto").unwrap();
    DescriptorPool::decode(compiler.encode_file_descriptor_set().as_slice()).unwrap()
}

#[derive(Clone)]
struct Raw(DescriptorPool);

impl tonic::server::NamedService for Raw {
    const NAME: &'static str = "test.Raw";
}

impl Raw {
    fn framed(&self, kind: &str, data: &[u8]) -> Bytes {
        let descriptor = self.0.get_message_by_name("google.api.HttpBody").unwrap();
        let mut message = DynamicMessage::new(descriptor);
        message.set_field_by_name("content_type", Value::String(kind.into()));
        message.set_field_by_name("data", Value::Bytes(data.to_vec().into()));
        let bytes = message.encode_to_vec();
        [&[0], u32::try_from(bytes.len()).unwrap().to_be_bytes().as_slice(), &bytes].concat().into()
    }
}

impl tower::Service<Request<Body>> for Raw {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let trailers = |code: &'static str| {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static(code));
            Frame::trailers(trailers)
        };
        let frames = match (request.uri().path(), request.headers().get("x-mode").map(|v| v.as_bytes())) {
            ("/test.Raw/Whole", _) => {
                vec![Frame::data(self.framed("text/plain", b"all of it")), trailers("0")]
            }
            (_, Some(b"empty")) => vec![trailers("0")],
            (_, Some(b"broken")) => vec![Frame::data(self.framed("a/b", b"one ")), trailers("14")],
            (_, Some(b"refused")) => vec![trailers("5")],
            _ => vec![
                Frame::data(self.framed("application/vnd.tcpdump.pcap", b"one ")),
                Frame::data(self.framed("", b"two")),
                trailers("0"),
            ],
        };
        let frames = futures::stream::iter(frames.into_iter().map(Ok::<_, Infallible>));
        let mut response = Response::new(Body::new(StreamBody::new(frames)));
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        for (name, value) in request.headers() {
            if name.as_str().starts_with("x-") {
                response.headers_mut().insert(name, value.clone());
            }
        }
        Box::pin(async move { Ok(response) })
    }
}

fn transcoder() -> Transcoder {
    let pool = described();
    let measure = MeasureLayer::new(&[]).unwrap();
    Transcoder::new(&pool, measure.layer(Routes::new(Raw(pool.clone())))).unwrap()
}

async fn ask(path: &str, headers: &[(&str, &str)]) -> (http::response::Parts, Result<Bytes, tonic::Status>) {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = transcoder().call(request.body(Empty::<Bytes>::new()).unwrap()).await;
    let (parts, body) = response.into_parts();
    (parts, body.collect().await.map(|b| b.to_bytes()))
}

#[tokio::test]
async fn a_raw_body_is_the_answer_as_it_is() {
    let (head, body) = ask("/v1/raw:whole", &[]).await;
    assert_eq!((head.status.as_u16(), &head.headers["content-type"]), (200, &"text/plain".parse().unwrap()));
    assert_eq!(head.headers["content-length"], "9");
    assert_eq!(body.unwrap(), "all of it");
    // Also for those who ask for events: there are none.
    let (head, body) = ask("/v1/raw:parts", &[("accept", "text/event-stream")]).await;
    assert_eq!(head.headers["content-type"], "application/vnd.tcpdump.pcap", "the first part names the type");
    assert!(!head.headers.contains_key("content-length"));
    assert_eq!(body.unwrap(), "one two");
    let (head, body) = ask("/v1/raw:parts", &[("grpc-metadata-x-mode", "empty")]).await;
    assert_eq!((head.status.as_u16(), body.unwrap().len()), (200, 0));
}

#[tokio::test]
async fn what_breaks_a_raw_body_is_not_taken_for_its_end() {
    let (head, body) = ask("/v1/raw:parts", &[("grpc-metadata-x-mode", "broken")]).await;
    assert_eq!(head.status, 200);
    assert!(body.is_err(), "the connection is cut");
    // Before the first part there is still room for a status.
    let (head, body) = ask("/v1/raw:parts", &[("grpc-metadata-x-mode", "refused")]).await;
    assert_eq!(
        (head.status.as_u16(), &head.headers["content-type"]),
        (404, &"application/json".parse().unwrap())
    );
    let status: serde_json::Value = serde_json::from_slice(&body.unwrap()).unwrap();
    assert_eq!(status["code"], 5);
}

#[tokio::test]
async fn headers_are_metadata_and_metadata_are_headers() {
    let sent = [("grpc-metadata-x-course", "ospf"), ("x-plain", "no"), ("Grpc-Metadata-X-Key-Bin", "AQI=")];
    let (head, _) = ask("/v1/raw:whole", &sent).await;
    assert_eq!(head.headers["grpc-metadata-x-course"], "ospf");
    assert_eq!(head.headers["grpc-metadata-x-key-bin"], "AQI=");
    assert!(!head.headers.contains_key("grpc-metadata-x-plain"), "only what has the prefix is passed on");
    assert!(!head.headers.contains_key("grpc-metadata-content-type"));
    // What is gRPC's own is not a caller's to set.
    let (head, _) =
        ask("/v1/raw:whole", &[("grpc-metadata-grpc-timeout", "1n"), ("grpc-metadata-te", "x")]).await;
    assert_eq!(head.status, 200);
}

#[test]
fn it_is_described_as_bytes() {
    let pool = described();
    let transcoder = transcoder();
    let document = netloom_gateway::openapi::describe(&pool, transcoder.table());
    let answer = &document["paths"]["/v1/raw:parts"]["get"]["responses"]["200"]["content"]["*/*"]["schema"];
    assert_eq!(*answer, serde_json::json!({"type": "string", "format": "binary"}));
}
