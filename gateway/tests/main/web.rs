//! gRPC-Web, and web pages of other origins: which may come in, and what their browsers are told.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use netloom_api::v1;
use prost::Message;

use crate::fake::World;
use crate::fixture::DONE;
use crate::rig::Rig;

const BINARY: &str = "application/grpc-web+proto";
const TEXT: &str = "application/grpc-web-text+proto";
const PAGE: &str = "https://ui.example";

/// A message as gRPC frames it.
fn framed(message: &impl Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[0], length.as_slice(), bytes.as_slice()].concat()
}

/// The messages of an answer, and its trailers.
fn parts(mut body: &[u8]) -> (Vec<Vec<u8>>, String) {
    let (mut messages, mut trailers) = (Vec::new(), String::new());
    while let [flags, a, b, c, d, rest @ ..] = body {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let (frame, after) = rest.split_at(length);
        assert!(trailers.is_empty(), "trailers end the answer");
        match flags {
            0 => messages.push(frame.to_vec()),
            0x80 => trailers = String::from_utf8(frame.to_vec()).unwrap(),
            other => panic!("a frame with flags {other:#x}"),
        }
        body = after;
    }
    assert!(body.is_empty(), "{} bytes are no frame", body.len());
    (messages, trailers)
}

/// A call over HTTP/1.1.
async fn call(rig: &Rig, method: &str, kind: &str, message: &impl Message) -> (Vec<Vec<u8>>, String) {
    let is_text = kind == TEXT;
    let frame = framed(message);
    let body = if is_text { BASE64_STANDARD.encode(frame).into_bytes() } else { frame };
    let headers = [("content-type", kind), ("accept", kind), ("x-grpc-web", "1")];
    let response = rig.send("POST", &format!("/netloom.v1.{method}"), &headers, body).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["content-type"]),
        (200, &kind.parse().unwrap())
    );
    let bytes = rig.bytes(response).await;
    if !is_text {
        return parts(&bytes);
    }
    // Each part is encoded by itself, with its own padding.
    let text = std::str::from_utf8(&bytes).unwrap();
    let decoded: Vec<u8> =
        text.as_bytes().chunks(4).flat_map(|c| BASE64_STANDARD.decode(c).unwrap()).collect();
    parts(&decoded)
}

#[tokio::test]
async fn unary_calls_and_streams_in_both_encodings() {
    let rig = Rig::new().await;
    for kind in [BINARY, TEXT] {
        let get = v1::GetLabRequest { name: "labs/mixed".into() };
        let (messages, trailers) = call(&rig, "LabService/GetLab", kind, &get).await;
        assert_eq!(messages.len(), 1);
        let lab = v1::Lab::decode(messages[0].as_slice()).unwrap();
        assert_eq!((lab.name.as_str(), lab.node_count), ("labs/mixed", 8));
        assert!(trailers.to_lowercase().contains("grpc-status:0"), "{kind}: {trailers:?}");

        let exec = v1::ExecNodeRequest {
            name: "labs/mixed/nodes/r1".into(),
            command: vec!["cat".into()],
            stdin: b"hi".to_vec(),
        };
        let (messages, trailers) = call(&rig, "NodeService/ExecNode", kind, &exec).await;
        let told: Vec<_> = messages
            .iter()
            .map(|m| v1::ExecNodeResponse::decode(m.as_slice()).unwrap().part.unwrap())
            .collect();
        use v1::exec_node_response::Part;
        assert_eq!(
            told,
            [Part::Stderr(b"hello\n".to_vec()), Part::Stdout(b"hi".to_vec()), Part::ExitCode(7)]
        );
        assert!(trailers.contains("grpc-status:0"), "{kind}: {trailers:?}");

        // A failure after the first answer is in the trailers, with its details.
        let fail = v1::ExecNodeRequest { command: vec!["fail".into()], ..exec };
        let (messages, trailers) = call(&rig, "NodeService/ExecNode", kind, &fail).await;
        assert!(messages.is_empty() && trailers.contains("grpc-status:9"), "{trailers:?}");
        assert!(trailers.contains("grpc-status-details-bin:"), "{trailers:?}");
    }
    let watch = v1::WatchOperationRequest { name: format!("operations/{DONE}") };
    let (messages, _) = call(&rig, "OperationService/WatchOperation", BINARY, &watch).await;
    assert!(v1::Operation::decode(messages[0].as_slice()).unwrap().done);
}

#[tokio::test]
async fn text_is_answered_in_text_unless_accept_names_the_other() {
    let rig = Rig::new().await;
    let body = BASE64_STANDARD.encode(framed(&v1::GetLabRequest { name: "labs/mixed".into() }));
    for (accept, kind) in [(None, TEXT), (Some("*/*"), TEXT), (Some(TEXT), TEXT), (Some(BINARY), BINARY)] {
        let headers: Vec<_> =
            [("content-type", TEXT)].into_iter().chain(accept.map(|a| ("accept", a))).collect();
        let body = body.clone().into_bytes();
        let response = rig.send("POST", "/netloom.v1.LabService/GetLab", &headers, body).await;
        assert_eq!(response.headers()["content-type"], kind, "{accept:?}");
        let bytes = rig.bytes(response).await;
        assert_eq!(bytes.starts_with(&BASE64_STANDARD.encode([0, 0, 0]).into_bytes()), kind == TEXT);
    }
    // A refusal is of the same type.
    let headers = [("content-type", TEXT), ("authorization", "")];
    let refused = rig.send("POST", "/netloom.v1.LabService/GetLab", &headers, body.into_bytes()).await;
    assert_eq!(
        (&refused.headers()["content-type"], &refused.headers()["grpc-status"]),
        (&TEXT.parse().unwrap(), &"16".parse().unwrap())
    );
}

#[tokio::test]
async fn failures_are_what_they_are_over_grpc() {
    let rig = Rig::new().await;
    let none = framed(&v1::GetLabRequest { name: "labs/none".into() });
    let headers = [("content-type", BINARY)];
    for (path, code) in [("/netloom.v1.LabService/GetLab", "5"), ("/netloom.v1.LabService/Nothing", "12")] {
        let response = rig.send("POST", path, &headers, none.clone()).await;
        let told = response.headers().get("grpc-status").cloned();
        let (messages, trailers) = parts(&rig.bytes(response).await);
        let told = told.map_or(trailers, |t| format!("grpc-status:{}", t.to_str().unwrap()));
        assert!(messages.is_empty() && told.contains(&format!("grpc-status:{code}")), "{path}: {told}");
    }
    // The same doors, in the same order.
    for (headers, code) in [
        (vec![("authorization", "")], "16"),
        (vec![("host", "evil.example")], "7"),
        (vec![("origin", "https://evil.example")], "7"),
    ] {
        let headers: Vec<_> = headers.into_iter().chain([("content-type", BINARY)]).collect();
        let response = rig.send("POST", "/netloom.v1.LabService/GetLab", &headers, none.clone()).await;
        assert_eq!(response.headers()["grpc-status"], code, "{headers:?}");
        assert_eq!(response.headers()["content-type"], BINARY);
        assert!(response.headers().contains_key("grpc-status-details-bin"));
    }
    let answer = rig.http("PATCH", "/netloom.v1.LabService/GetLab", &headers, none).await;
    assert_eq!((answer.status.as_u16(), &answer.headers["allow"]), (405, &"POST".parse().unwrap()));
    let wait = framed(&v1::WaitOperationRequest {
        name: format!("operations/{}", crate::fixture::RUNNING),
        timeout: None,
    });
    let timed = [("content-type", BINARY), ("grpc-timeout", "50m")];
    let response = rig.send("POST", "/netloom.v1.OperationService/WaitOperation", &timed, wait).await;
    assert_eq!(response.headers()["grpc-status"], "4");
}

#[tokio::test]
async fn a_page_that_is_named_may_ask_and_read() {
    let rig = Rig::with(World::new(), &format!("allowed_origins = [\"{PAGE}\"]\n")).await;
    let preflight = [
        ("origin", PAGE),
        ("authorization", ""),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type,x-grpc-web"),
    ];
    for path in ["/netloom.v1.LabService/GetLab", "/v1/labs/mixed", "/nowhere"] {
        let answer = rig.http("OPTIONS", path, &preflight, "").await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""), "{path}");
        assert_eq!(answer.headers["access-control-allow-origin"], PAGE);
        assert_eq!(answer.headers["vary"], "origin");
        let (methods, headers) = (
            &answer.headers["access-control-allow-methods"],
            &answer.headers["access-control-allow-headers"],
        );
        for method in ["GET", "POST", "PATCH", "DELETE"] {
            assert!(methods.to_str().unwrap().contains(method), "{methods:?}");
        }
        for header in ["authorization", "content-type", "x-grpc-web", "grpc-timeout", "last-event-id"] {
            assert!(headers.to_str().unwrap().contains(header), "{headers:?}");
        }
        assert!(
            !answer.headers.contains_key("access-control-allow-credentials"),
            "the token is all there is"
        );
    }
    // It reads answers and refusals alike, and must show the token.
    for (path, token, status) in
        [("/v1/labs", None, 200), ("/v1/labs/none", None, 404), ("/v1/labs", Some(""), 401)]
    {
        let headers: Vec<_> =
            [("origin", PAGE)].into_iter().chain(token.map(|t| ("authorization", t))).collect();
        let answer = rig.http("GET", path, &headers, "").await;
        assert_eq!(
            (answer.status.as_u16(), &answer.headers["access-control-allow-origin"]),
            (status, &PAGE.parse().unwrap()),
            "{path}"
        );
    }
    let get = framed(&v1::GetLabRequest { name: "labs/mixed".into() });
    let response = rig
        .send("POST", "/netloom.v1.LabService/GetLab", &[("content-type", BINARY), ("origin", PAGE)], get)
        .await;
    let exposed = response.headers()["access-control-expose-headers"].to_str().unwrap().to_owned();
    assert!(exposed.contains("grpc-status") && exposed.contains("grpc-message"), "{exposed}");
    assert_eq!(parts(&rig.bytes(response).await).0.len(), 1);
}

#[tokio::test]
async fn no_other_page_is_told_anything() {
    for more in ["", "allowed_origins = [\"https://ui.example\"]\n"] {
        let rig = Rig::with(World::new(), more).await;
        for origin in ["https://evil.example", "https://ui.example.evil", "http://ui.example", "null"] {
            let headers =
                [("origin", origin), ("authorization", ""), ("access-control-request-method", "POST")];
            let answer = rig.http("OPTIONS", "/v1/labs", &headers, "").await;
            assert_eq!(
                (answer.status.as_u16(), answer.reason().as_str()),
                (403, "ORIGIN_FOREIGN"),
                "{origin}"
            );
            assert!(!answer.headers.contains_key("access-control-allow-origin"), "{origin}");
            // The token does not help a page that is not named.
            let answer = rig.http("GET", "/v1/labs", &[("origin", origin)], "").await;
            assert_eq!(
                (answer.status.as_u16(), answer.reason().as_str()),
                (403, "ORIGIN_FOREIGN"),
                "{origin}"
            );
        }
    }
    // Without an origin there is no question of origins.
    let rig = Rig::with(World::new(), "allowed_origins = [\"https://ui.example\"]\n").await;
    assert!(!rig.get("/v1/labs").await.headers.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn a_star_is_no_origin() {
    for wrong in ["*", "https://ui.example/", "ui.example"] {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("[gateway]\nlisten = \"127.0.0.1:0\"\nallowed_origins = [\"{wrong}\"]\n");
        let settings = netloom_service::Settings::from_toml(&text, dir.path(), dir.path()).unwrap();
        let bound = netloom_gateway::Gateway::bind(&settings, Default::default(), Default::default()).await;
        let said = bound.err().unwrap().to_string();
        assert!(said.contains("allowed_origins") && said.contains(wrong), "{said}");
    }
}
