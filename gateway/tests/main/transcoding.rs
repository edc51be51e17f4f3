//! HTTP/JSON: how requests are read and answers written.

use netloom_api::v1;
use netloom_gateway::transcode::wire::Forms;
use netloom_gateway::transcode::{json, rules};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, ReflectMessage as _};
use serde_json::{Value, json};

use crate::fixture::{DONE, RUNNING};
use crate::reflect::Json;
use crate::rig::{Rig, reason};

fn message(name: &str) -> MessageDescriptor {
    let pool = DescriptorPool::decode(netloom_api::DESCRIPTORS).unwrap();
    pool.get_message_by_name(name).unwrap()
}

/// A message as the gateway writes it. By reflection it is the same text.
fn written_text(message: &DynamicMessage) -> String {
    let descriptor = message.descriptor();
    let forms = Forms::new(descriptor.parent_pool()).unwrap();
    let written = forms.json(descriptor.full_name(), &message.encode_to_vec()).unwrap();
    let written = String::from_utf8(written).unwrap();
    assert_eq!(written, serde_json::to_string(&Json(message)).unwrap());
    written
}

fn written(message: &DynamicMessage) -> Value {
    serde_json::from_str(&written_text(message)).unwrap()
}

#[test]
fn what_is_not_set_is_written_as_grpc_gateway_does() {
    let node = written(&DynamicMessage::new(message("netloom.v1.Node")));
    assert_eq!(node["name"], "");
    assert_eq!(node["runtime"], "RUNTIME_UNSPECIFIED");
    assert_eq!(node["restartCount"], 0);
    assert_eq!(node["memoryRequestBytes"], "0");
    assert_eq!(node["interfaces"], json!([]));
    assert_eq!(node["startTime"], Value::Null);
    assert!(node.as_object().unwrap().contains_key("startTime"));
    assert!(
        !node.as_object().unwrap().contains_key("exitCode"),
        "an optional field that is not set is left out"
    );
    let part = written(&DynamicMessage::new(message("netloom.v1.ExecNodeResponse")));
    assert_eq!(part, json!({}), "members of a oneof that are not set are left out");
    let spec = written(&DynamicMessage::new(message("netloom.v1.LabSpec")));
    assert_eq!(spec["labels"], json!({}));
}

#[test]
fn values_keep_their_precision_and_order() {
    let descriptor = message("netloom.v1.Node");
    let text = r#"{"memoryRequestBytes":"9007199254740993","startTime":"2026-01-02T03:04:05.678Z","exitCode":0,"state":"NODE_STATE_READY"}"#;
    let node = json::read(&descriptor, text.as_bytes()).unwrap();
    let again = written(&node);
    assert_eq!(again["memoryRequestBytes"], "9007199254740993");
    assert_eq!(again["startTime"], "2026-01-02T03:04:05.678Z");
    assert_eq!(again["exitCode"], 0);
    let number = json::read(&descriptor, br#"{"memoryRequestBytes": 9007199254740993}"#).unwrap();
    assert_eq!(written(&number)["memoryRequestBytes"], "9007199254740993");
    let text = written_text(&node);
    let at = |field: &str| text.find(&format!("\"{field}\"")).unwrap();
    assert!(at("name") < at("uid") && at("uid") < at("kind") && at("state") < at("execError"), "{text}");

    let host = message("netloom.v1.Host");
    for (given, is) in [
        ("8.0", "8"),
        ("1.5", "1.5"),
        ("\"NaN\"", "\"NaN\""),
        ("\"-Infinity\"", "\"-Infinity\""),
        ("1e30", "1e+30"),
    ] {
        let host = json::read(&host, format!("{{\"cpuOvercommit\":{given}}}").as_bytes()).unwrap();
        let text = written_text(&host);
        assert!(text.contains(&format!("\"cpuOvercommit\":{is},")), "{text}");
    }
    let unknown = json::read(&descriptor, br#"{"state": 99}"#).unwrap();
    assert_eq!(written(&unknown)["state"], 99, "an enum value that is not known is written as its number");
}

#[test]
fn maps_are_written_in_order() {
    let labels: Vec<String> = (0..20).map(|i| format!("\"k{i:02}\":\"v\"")).collect();
    let text = format!("{{\"labels\":{{{}}}}}", labels.join(","));
    let spec = json::read(&message("netloom.v1.LabSpec"), text.as_bytes()).unwrap();
    assert!(written_text(&spec).contains(&labels.join(",")));
}

/// Binds one query parameter to a field of a message of the well-known types.
fn bound(of: &str, field: &str, texts: &[&str]) -> Result<Value, String> {
    let descriptor = message(of);
    let way = rules::resolve(&descriptor, field)?;
    let mut message = DynamicMessage::new(descriptor);
    json::bind(&mut message, &way, &texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>())?;
    Ok(written(&message))
}

#[test]
fn texts_become_values_of_the_fields_type() {
    let lab = "netloom.v1.Lab";
    assert_eq!(bound(lab, "nodeCount", &["-7"]).unwrap()["nodeCount"], -7);
    assert_eq!(bound(lab, "node_count", &["7"]).unwrap()["nodeCount"], 7);
    assert_eq!(bound(lab, "generation", &["9007199254740993"]).unwrap()["generation"], "9007199254740993");
    assert_eq!(bound(lab, "state", &["LAB_STATE_RUNNING"]).unwrap()["state"], "LAB_STATE_RUNNING");
    assert_eq!(bound(lab, "state", &["7"]).unwrap()["state"], "LAB_STATE_RUNNING");
    assert_eq!(bound(lab, "reconciling", &["true"]).unwrap()["reconciling"], true);
    assert_eq!(
        bound(lab, "create_time", &["2026-01-02T03:04:05Z"]).unwrap()["createTime"],
        "2026-01-02T03:04:05Z"
    );
    assert_eq!(bound(lab, "spec.mgmt.mtu", &["9000"]).unwrap()["spec"]["mgmt"]["mtu"], 9000);
    assert_eq!(
        bound("netloom.v1.WaitOperationRequest", "timeout", &["1.500s"]).unwrap()["timeout"],
        "1.500s"
    );
    let command = bound("netloom.v1.ExecNodeRequest", "command", &["ip", "a"]).unwrap();
    assert_eq!(command["command"], json!(["ip", "a"]));
    for text in ["-_-_", "+/+/"] {
        assert_eq!(bound("netloom.v1.ExecNodeRequest", "stdin", &[text]).unwrap()["stdin"], "+/+/");
    }
    for (of, field, texts, says) in [
        (lab, "nodeCount", &["x"][..], "not a 32-bit integer"),
        (lab, "nodeCount", &["4294967296"], "not a 32-bit integer"),
        (lab, "state", &["RUNNING"], "not a LabState"),
        (lab, "reconciling", &["yes"], "neither true nor false"),
        (lab, "nodeCount", &["1", "2"], "given 2 times"),
        (lab, "spec", &["{}"], "name a field of it"),
        (lab, "spec.labels", &["a"], "is a map"),
        (lab, "nothing", &["a"], "no field \"nothing\""),
        (lab, "name.x", &["a"], "no field \"name.x\""),
        (lab, "create_time", &["yesterday"], ""),
        ("netloom.v1.ExecNodeRequest", "stdin", &["!"], "not base64"),
    ] {
        let said = bound(of, field, texts).unwrap_err();
        assert!(said.contains(says), "{field}: {said}");
    }
}

#[test]
fn field_masks_are_read_and_written() {
    use prost_types::field_descriptor_proto::{Label, Type};
    // No request of the API has a mask yet: a message of this test's own.
    let field = prost_types::FieldDescriptorProto {
        name: Some("update_mask".into()),
        json_name: Some("updateMask".into()),
        number: Some(1),
        label: Some(Label::Optional.into()),
        r#type: Some(Type::Message.into()),
        type_name: Some(".google.protobuf.FieldMask".into()),
        ..Default::default()
    };
    let file = prost_types::FileDescriptorProto {
        name: Some("test.proto".into()),
        package: Some("test".into()),
        syntax: Some("proto3".into()),
        dependency: vec!["google/protobuf/field_mask.proto".into()],
        message_type: vec![prost_types::DescriptorProto {
            name: Some("Change".into()),
            field: vec![field],
            ..Default::default()
        }],
        ..Default::default()
    };
    let mut pool = DescriptorPool::global();
    pool.add_file_descriptor_proto(file).unwrap();
    let change = pool.get_message_by_name("test.Change").unwrap();
    let read = json::read(&change, br#"{"updateMask":"labName,spec.nodeCount"}"#).unwrap();
    assert_eq!(written(&read), json!({"updateMask": "labName,spec.nodeCount"}));
    let way = rules::resolve(&change, "update_mask").unwrap();
    let mut message = DynamicMessage::new(change);
    json::bind(&mut message, &way, &["labName,spec.nodeCount".to_owned()]).unwrap();
    assert_eq!(message, read);
    let mask = read.get_field_by_name("update_mask").unwrap();
    let paths = mask.as_message().unwrap().get_field_by_name("paths").unwrap().into_owned();
    assert_eq!(paths.as_list().unwrap()[1].as_str(), Some("spec.node_count"));
}

#[tokio::test]
async fn path_query_and_body_make_one_request() {
    let rig = Rig::new().await;
    let body = json!({"spec": {"nodes": [{"id": "a", "memoryLimitBytes": "9007199254740993"}]}, "requestId": "r", "validateOnly": true});
    let answer = rig.post("/v1/labs/mixed:apply", &body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json()["name"], "", "a plan has no name");
    let applied = rig.world.applied.lock().unwrap().pop().unwrap();
    assert_eq!(
        (applied.lab.as_str(), applied.validate_only, applied.request_id.as_str()),
        ("mixed", true, "r")
    );
    assert_eq!(applied.spec.unwrap().nodes[0].memory_limit_bytes, 9_007_199_254_740_993);

    let answer = rig.post("/v1/labs?lab_id=mixed&requestId=q%2B1", r#"{"spec":{"prefix":"x"}}"#).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let applied = rig.world.applied.lock().unwrap().pop().unwrap();
    assert_eq!((applied.lab.as_str(), applied.request_id.as_str()), ("mixed", "q+1"));
    assert_eq!(applied.existence(), netloom_proto::scheduler::v1::Existence::MustNotExist);

    // The path wins over a name in the body.
    let answer = rig.http("PATCH", "/v1/labs/mixed", &[], r#"{"name":"labs/other","spec":{}}"#).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(rig.world.applied.lock().unwrap().pop().unwrap().lab, "mixed");

    let answer = rig.get("/v1/labs?pageSize=1").await.json();
    assert_eq!(answer["labs"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn wrong_requests_are_told_what_is_wrong() {
    let rig = Rig::new().await;
    for (verb, path, body, says) in [
        ("GET", "/v1/labs?page_sise=1", "", "there is no field \"page_sise\""),
        ("GET", "/v1/labs?pageSize=x", "", "not a 32-bit integer"),
        ("GET", "/v1/labs?pageSize=-1", "", "is negative"),
        ("GET", "/v1/labs?pageToken=xyz", "", "page token"),
        ("GET", "/v1/labs?pageSize=1&pageSize=2", "", "given 2 times"),
        ("GET", "/v1/labs?pageSize=%zz", "", "percent-encoded"),
        ("GET", "/v1/labs/mixed?name=labs/other", "", "is set by the path"),
        ("GET", "/v1/labs/-x", "", "not a valid lab name"),
        ("GET", "/v1/operations/1", "", "not a uid"),
        ("POST", "/v1/labs/mixed:apply", "{", "JSON"),
        ("POST", "/v1/labs/mixed:apply", "{} {}", "trailing"),
        ("POST", "/v1/labs/mixed:apply", "[]", "JSON"),
        ("POST", "/v1/labs/mixed:apply", "{\"spek\":{}}", "spek"),
        ("POST", "/v1/labs/mixed:apply", "{\"spec\":{\"nodes\":[{\"ids\":\"a\"}]}}", "ids"),
        ("POST", "/v1/labs/mixed:apply", "{}", "spec: is not set"),
        ("POST", "/v1/labs/mixed:apply?validateOnly=true", "{\"spec\":{}}", "belongs into the body"),
        ("POST", "/v1/labs?labId=mixed&lab.name=x", "{}", "belongs into the body"),
        ("POST", "/v1/labs/mixed/nodes/r1:exec", "{}", "command"),
        ("PATCH", "/v1/labs/mixed", "{}", "lab.spec"),
    ] {
        let answer = rig.http(verb, path, &[], body).await;
        assert_eq!(answer.status, 400, "{verb} {path} {body}: {}", answer.text);
        let status = answer.json();
        assert_eq!(status["code"], 3, "{status}");
        assert!(status["message"].as_str().unwrap().contains(says), "{verb} {path} {body}: {status}");
        assert!(["INVALID_REQUEST", "PAGE_TOKEN_INVALID"].contains(&reason(&status).as_str()), "{status}");
    }
    let wrong = rig.get("/v1/labs/-x").await.json();
    let fields = &wrong["details"]
        .as_array()
        .unwrap()
        .iter()
        .find(|d| d["@type"] == "type.googleapis.com/google.rpc.BadRequest")
        .unwrap()["fieldViolations"];
    assert_eq!(fields[0]["field"], "name");
}

#[tokio::test]
async fn paths_and_methods_that_are_not_there() {
    let rig = Rig::new().await;
    for path in [
        "/",
        "/v1",
        "/v1/labs/",
        "/v1/labs//nodes",
        "/v2/labs",
        "/netloom.v1.LabService/ListLabs",
        "/v1/labs/a/b",
    ] {
        let answer = rig.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (404, "PATH_NOT_FOUND"), "{path}");
        assert_eq!(answer.headers["content-type"], "application/json");
    }
    for (verb, path, allow) in [
        ("PUT", "/v1/labs/mixed", "GET, HEAD, PATCH, DELETE, OPTIONS"),
        ("DELETE", "/v1/labs", "GET, HEAD, POST, OPTIONS"),
        ("GET", "/v1/labs/mixed:apply", "POST, OPTIONS"),
        ("HEAD", "/v1/labs/mixed:apply", "POST, OPTIONS"),
        ("BREW", "/v1/kinds", "GET, HEAD, OPTIONS"),
        ("POST", "/openapi.json", "GET, HEAD, OPTIONS"),
        ("POST", "/metrics", "GET, HEAD, OPTIONS"),
    ] {
        let answer = rig.http(verb, path, &[], "").await;
        assert_eq!(answer.status, 405, "{verb} {path}");
        assert_eq!(answer.headers["allow"], allow, "{verb} {path}");
        if verb != "HEAD" {
            assert_eq!(answer.reason(), "METHOD_NOT_ALLOWED");
        }
    }
    let answer = rig.post("/v1/shell:open", "{}").await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (501, "BIDI_NEEDS_GRPC"));
}

#[tokio::test]
async fn head_is_get_without_the_body_and_options_says_what_there_is() {
    let rig = Rig::new().await;
    for path in ["/v1/labs/mixed", "/v1/labs/none", "/nowhere", "/openapi.json", "/v1/labs?pageSize=x"] {
        let (get, head) = (rig.get(path).await, rig.http("HEAD", path, &[], "").await);
        assert_eq!((head.status, head.text.as_str()), (get.status, ""), "{path}");
        for name in ["content-type", "content-length"] {
            assert_eq!(head.headers.get(name), get.headers.get(name), "{path}: {name}");
        }
        assert_eq!(head.headers["content-length"], get.text.len().to_string(), "{path}");
    }
    let head = rig.http("HEAD", "/v1/labs:watch", &[], "").await;
    assert_eq!(
        (head.status.as_u16(), &head.headers["content-type"]),
        (200, &"application/x-ndjson".parse().unwrap())
    );
    for (path, allow) in [
        ("/v1/labs", "GET, HEAD, POST, OPTIONS"),
        ("/v1/labs/mixed:apply", "POST, OPTIONS"),
        ("/openapi.json", "GET, HEAD, OPTIONS"),
    ] {
        let answer = rig.http("OPTIONS", path, &[], "").await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""), "{path}");
        assert_eq!(answer.headers["allow"], allow, "{path}");
    }
    assert_eq!(rig.http("OPTIONS", "/nowhere", &[], "").await.status, 404);
}

#[tokio::test]
async fn errors_from_behind_pass_unchanged() {
    let rig = Rig::new().await;
    let answer = rig.get("/v1/labs/none").await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (404, "LAB_NOT_FOUND"));
    let status = answer.json();
    assert_eq!((&status["code"], &status["message"]), (&json!(5), &json!("there is no lab \"none\"")));
    assert_eq!(status["details"][0]["metadata"]["lab"], "none");
    let failure = rig.grpc_failure("LabService/GetLab", &json!({"name": "labs/none"})).await;
    assert_eq!((failure.reason.as_str(), failure.metadata["lab"].as_str()), ("LAB_NOT_FOUND", "none"));

    let answer = rig.get("/v1/images/no/such:image").await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (404, "IMAGE_NOT_FOUND"));
    let answer = rig.get("/v1/kinds/none").await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (404, "KIND_NOT_FOUND"));

    let busy =
        netloom_model::Failure::new(netloom_model::Code::FailedPrecondition, "OPERATION_ACTIVE", "busy")
            .with("operation", RUNNING)
            .violation("spec.nodes[0].image", "missing");
    *rig.world.broken.lock().unwrap() = Some(busy.clone());
    let answer = rig.http("DELETE", "/v1/labs/mixed", &[], "").await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (400, "OPERATION_ACTIVE"));
    assert_eq!(rig.grpc_failure("LabService/DeleteLab", &json!({"name": "labs/mixed"})).await, busy);
}

#[tokio::test]
async fn a_service_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[endpoints]\nscheduler = \"mem:nobody\"\nimage_registry = \"unix:/nonexistent/r.sock\"\n[gateway]\nlisten = \"\"\n";
    let settings = netloom_service::Settings::from_toml(text, dir.path(), dir.path()).unwrap();
    let shutdown = netloom_service::Shutdown::new();
    let gateway =
        netloom_gateway::Gateway::bind(&settings, Default::default(), shutdown.clone()).await.unwrap();
    assert_eq!(gateway.address(), None);
    let socket = gateway.socket().to_owned();
    let serving = tokio::spawn(gateway.serve());
    for (path, name) in [
        ("/v1/labs", "the scheduler at mem:nobody"),
        ("/v1/images", "the image registry at unix:/nonexistent/r.sock"),
    ] {
        let stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::get(path)
            .header("host", "x")
            .body(http_body_util::Empty::<bytes::Bytes>::new())
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 503);
        let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
        let status: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(reason(&status), "SERVICE_UNREACHABLE");
        assert!(status["message"].as_str().unwrap().contains(name), "{status}");
    }
    shutdown.cancel();
    tokio::time::timeout(crate::rig::BOUND, serving).await.unwrap().unwrap();
    assert!(!socket.exists(), "the socket is removed at the end");
}

#[tokio::test]
async fn a_callers_time_is_kept() {
    let rig = Rig::new().await;
    let path = format!("/v1/operations/{RUNNING}:wait");
    let answer = rig.http("POST", &path, &[("grpc-timeout", "50m")], "{}").await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (504, "DEADLINE_EXCEEDED"));
    let answer = rig.http("POST", &path, &[("grpc-timeout", "soon")], "{}").await;
    assert_eq!(answer.status, 400);
    let response = rig.send("GET", "/v1/labs:watch", &[("grpc-timeout", "200m")], Vec::new()).await;
    let lines = rig.lines(response, usize::MAX).await;
    let last: Value = serde_json::from_str(lines.last().unwrap()).unwrap();
    assert_eq!(reason(&last["error"]), "DEADLINE_EXCEEDED");

    let request = v1::WaitOperationRequest { name: format!("operations/{RUNNING}"), timeout: None };
    let answer =
        rig.raw_grpc("OperationService/WaitOperation", &[("grpc-timeout", "50m")], framed(&request)).await;
    assert_eq!(answer["grpc-status"], "4", "{answer:?}");
    let answer =
        rig.raw_grpc("OperationService/WaitOperation", &[("grpc-timeout", "soon")], framed(&request)).await;
    assert_eq!(answer["grpc-status"], "3", "{answer:?}");
}

/// A message as gRPC frames it.
fn framed(message: &impl prost::Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[0], length.as_slice(), bytes.as_slice()].concat()
}

#[tokio::test]
async fn streams_are_lines_or_events() {
    let rig = Rig::new().await;
    let path = format!("/v1/operations/{DONE}:watch");
    let response = rig.send("GET", &path, &[], Vec::new()).await;
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let lines = rig.lines(response, usize::MAX).await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(serde_json::from_str::<Value>(&lines[0]).unwrap()["result"]["done"], true);

    // What fails before the first answer fails the request; what fails later is the last line.
    let answer = rig.get("/v1/labs/none:watch").await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (404, "LAB_NOT_FOUND"));
    let answer = rig.get("/v1/labs:watch?since=1").await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (400, "RELIST_NEEDED"));
    let answer = rig.post("/v1/labs/mixed/nodes/r1:exec", r#"{"command":["fail"]}"#).await;
    let last: Value = serde_json::from_str(answer.text.lines().last().unwrap()).unwrap();
    assert_eq!(reason(&last["error"]), "RUNTIME_REFUSED");
}

#[tokio::test]
async fn pages_go_on_where_the_last_ended() {
    let rig = Rig::new().await;
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let page = rig.get(&format!("/v1/labs/mixed/nodes?page_size=3&page_token={token}")).await.json();
        seen.extend(page["nodes"].as_array().unwrap().iter().map(|n| n["name"].as_str().unwrap().to_owned()));
        token = page["nextPageToken"].as_str().unwrap().to_owned();
        if token.is_empty() {
            break;
        }
        let other = rig.get(&format!("/v1/labs/busy/nodes?page_token={token}")).await;
        assert_eq!((other.status.as_u16(), other.reason().as_str()), (400, "PAGE_TOKEN_INVALID"));
    }
    assert_eq!(seen.len(), 8);
    assert!(seen.is_sorted());
    for path in ["/v1/labs", "/v1/hosts", "/v1/images", "/v1/kinds", "/v1/operations", "/v1/labs/mixed/links"]
    {
        let collection = path.rsplit('/').next().unwrap();
        let first = rig.get(&format!("{path}?page_size=1")).await.json();
        let token = first["nextPageToken"].as_str().unwrap();
        let second = rig.get(&format!("{path}?page_size=1&page_token={token}")).await.json();
        assert_ne!(first[collection][0]["name"], second[collection][0]["name"], "{path}");
        assert!(second[collection][0]["name"].is_string(), "{path}: {second}");
    }
}
