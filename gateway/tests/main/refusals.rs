//! Who is not let in, over TCP and over the socket, over gRPC and over HTTP.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use netloom_api::v1;
use netloom_model::Code;
use netloom_service::status::from_status;
use serde_json::json;

use crate::fake::World;
use crate::rig::Rig;

#[tokio::test]
async fn tcp_demands_the_token_for_everything() {
    let rig = Rig::new().await;
    for (verb, path) in [
        ("GET", "/v1/labs"),
        ("GET", "/"),
        ("GET", "/nowhere"),
        ("POST", "/v1/labs:import"),
        ("OPTIONS", "/v1/labs"),
    ] {
        for token in ["", "Bearer", "Bearer wrong", "Basic eDp5"] {
            let answer = rig.http(verb, path, &[("authorization", token)], "").await;
            assert_eq!(
                (answer.status.as_u16(), answer.reason().as_str()),
                (401, "TOKEN_INVALID"),
                "{verb} {path}"
            );
            assert_eq!(answer.json()["code"], 16);
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
        }
    }
    let mut labs = v1::lab_service_client::LabServiceClient::new(rig.channel.clone());
    let failure = from_status(&labs.list_labs(v1::ListLabsRequest::default()).await.unwrap_err());
    assert_eq!((failure.code, failure.reason.as_str()), (Code::Unauthenticated, "TOKEN_INVALID"));
    let mut health = tonic_health::pb::health_client::HealthClient::new(rig.channel.clone());
    let check = tonic_health::pb::HealthCheckRequest::default();
    assert_eq!(health.check(check).await.unwrap_err().code(), tonic::Code::Unauthenticated);
    assert_eq!(rig.world.applied.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn foreign_names_and_pages_are_refused_before_the_token() {
    let rig = Rig::with(World::new(), "allowed_hosts = [\"lab.example\"]\n").await;
    let port = rig.address.split_once(':').unwrap().1.to_owned();
    for host in ["evil.example", &format!("evil.example:{port}"), "127.0.0.1.evil.example"] {
        for token in ["", "Bearer wrong"] {
            let answer = rig.http("GET", "/v1/labs", &[("host", host), ("authorization", token)], "").await;
            assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (403, "HOST_FOREIGN"), "{host}");
        }
    }
    for host in [format!("localhost:{port}"), format!("[::1]:{port}"), "lab.example".to_owned()] {
        let answer = rig.http("GET", "/v1/labs", &[("host", &host)], "").await;
        assert_eq!(answer.status, 200, "{host}: {}", answer.text);
    }
    for origin in [
        "http://evil.example",
        "null",
        "http://127.0.0.1:1",
        "file://",
        &format!("https://evil.example:{port}"),
    ] {
        let answer = rig.http("GET", "/v1/labs", &[("origin", origin), ("authorization", "")], "").await;
        assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (403, "ORIGIN_FOREIGN"), "{origin}");
    }
    let own = format!("http://{}", rig.address);
    assert_eq!(rig.http("GET", "/v1/labs", &[("origin", &own)], "").await.status, 200);

    let foreign = http::Uri::from_static("http://evil.example");
    let channel =
        tonic::transport::Endpoint::from_shared(format!("http://{}", rig.address)).unwrap().origin(foreign);
    let mut labs = v1::lab_service_client::LabServiceClient::new(channel.connect_lazy());
    let mut request = tonic::Request::new(v1::ListLabsRequest::default());
    request.metadata_mut().insert("authorization", format!("Bearer {}", rig.token).parse().unwrap());
    let failure = from_status(&labs.list_labs(request).await.unwrap_err());
    assert_eq!((failure.code, failure.reason.as_str()), (Code::PermissionDenied, "HOST_FOREIGN"));
}

#[tokio::test]
async fn a_body_must_be_json() {
    let rig = Rig::new().await;
    for kind in
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/json-seq", ""]
    {
        for (verb, path) in
            [("POST", "/v1/labs/mixed:apply"), ("PATCH", "/v1/labs/mixed"), ("PUT", "/nowhere")]
        {
            let answer = rig.http(verb, path, &[("content-type", kind)], "{\"spec\":{}}").await;
            assert_eq!(
                (answer.status.as_u16(), answer.reason().as_str()),
                (415, "CONTENT_TYPE_UNSUPPORTED"),
                "{verb} {path} {kind}"
            );
        }
        let request = Request::post("/v1/labs/mixed:apply").header("content-type", kind).header("host", "x");
        let answer = rig.over_socket(request.body(Full::new(Bytes::from("{}"))).unwrap()).await;
        assert_eq!(answer.status, 415, "over the socket too");
    }
    assert_eq!(rig.world.applied.lock().unwrap().len(), 0);
    // Nothing to read, nothing to refuse.
    let answer = rig.http("POST", &format!("/v1/operations/{}:cancel", crate::fixture::DONE), &[], "").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

#[tokio::test]
async fn the_socket_needs_no_token() {
    use std::os::unix::fs::PermissionsExt as _;
    let rig = Rig::new().await;
    let mode = std::fs::metadata(&rig.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let request = Request::get("/v1/labs").header("host", "anything").body(Full::default()).unwrap();
    assert_eq!(rig.over_socket(request).await.status, 200);

    let socket = rig.socket.clone();
    let connect = tower::service_fn(move |_: http::Uri| {
        let socket = socket.clone();
        async move { tokio::net::UnixStream::connect(socket).await.map(hyper_util::rt::TokioIo::new) }
    });
    let channel =
        tonic::transport::Endpoint::from_static("http://netloom").connect_with_connector_lazy(connect);
    let mut labs = v1::lab_service_client::LabServiceClient::new(channel.clone());
    assert_eq!(labs.list_labs(v1::ListLabsRequest::default()).await.unwrap().into_inner().labs.len(), 2);
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let check = tonic_health::pb::HealthCheckRequest { service: "netloom.v1.LabService".into() };
    assert_eq!(health.check(check).await.unwrap().into_inner().status, 1);
}

#[tokio::test]
async fn bodies_are_bounded() {
    let rig = Rig::new().await;
    let large = |bytes: usize| format!("{{\"requestId\":\"{}\"}}", "x".repeat(bytes));
    let answer = rig.http("PATCH", "/v1/labs/mixed", &[], large(5 << 20)).await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (413, "BODY_TOO_LARGE"));
    // A lab's files may be larger.
    let answer = rig.http("POST", "/v1/labs/mixed:apply", &[], large(5 << 20)).await;
    assert_eq!(answer.status, 400, "{}", &answer.text[..answer.text.len().min(500)]);
    let answer = rig.http("POST", "/v1/labs/mixed:apply", &[], large(97 << 20)).await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (413, "BODY_TOO_LARGE"));

    let failure = rig.grpc_failure("NodeService/GetNode", &json!({"name": "x".repeat(5 << 20)})).await;
    assert_eq!(failure.code, Code::OutOfRange, "{failure}");
    let failure = rig.grpc_failure("LabService/GetLab", &json!({"name": "x".repeat(5 << 20)})).await;
    assert_eq!(failure.code, Code::InvalidArgument, "LabService takes it, and says that it is no name");
}

#[tokio::test]
async fn grpc_errors_of_every_kind_have_a_reason() {
    let rig = Rig::new().await;
    let mut client = tonic::client::Grpc::new(rig.channel.clone());
    for path in ["/netloom.v1.LabService/Nothing", "/nobody.Service/Nothing"] {
        let mut request = tonic::Request::new(());
        request.metadata_mut().insert("authorization", format!("Bearer {}", rig.token).parse().unwrap());
        client.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        let status = client.unary(request, path.parse().unwrap(), codec).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unimplemented);
        assert!(!status.details().is_empty(), "{path}");
    }
}

#[tokio::test]
async fn http2_carries_json_under_the_same_rules() {
    let rig = Rig::new().await;
    let stream = tokio::net::TcpStream::connect(&rig.address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(stream),
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    for (authority, token, status) in [
        ("127.0.0.1:1", rig.token.as_str(), 200),
        ("127.0.0.1:1", "x", 401),
        ("evil.example", rig.token.as_str(), 403),
    ] {
        let request = Request::get(format!("http://{authority}/v1/labs"))
            .header("authorization", format!("Bearer {token}"));
        let response = sender.send_request(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
        assert_eq!(response.status(), status, "{authority}");
        assert_eq!(response.headers()["content-type"], "application/json");
    }
}
