//! The OpenAPI description: that it is whole, that a validator nobody here wrote accepts it, and that requests generated from it find no fault.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use netloom_gateway::openapi;
use netloom_gateway::transcode::rules::Table;
use prost_reflect::DescriptorPool;
use serde_json::{Value, json};

use crate::fixture::DONE;
use crate::rig::Rig;

fn description() -> Value {
    let pool = DescriptorPool::decode(netloom_api::DESCRIPTORS).unwrap();
    openapi::describe(&pool, &Table::build(&pool).unwrap())
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Where the outside checkers are; none when they cannot be fetched, which is told.
fn checkers(test: &str) -> Option<PathBuf> {
    netloom_service::testing::pypi(test, "openapi").map(|dir| dir.join("bin"))
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// All values at a key, at any depth.
fn all<'v>(value: &'v Value, key: &str, found: &mut Vec<&'v Value>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get(key));
            map.values().for_each(|v| all(v, key, found));
        }
        Value::Array(list) => list.iter().for_each(|v| all(v, key, found)),
        _ => {}
    }
}

#[tokio::test]
async fn it_is_served_and_the_same_each_time() {
    let rig = Rig::new().await;
    for path in openapi::PATHS {
        let answer = rig.get(path).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.headers["content-type"]),
            (200, &"application/json".parse().unwrap())
        );
        assert_eq!(answer.text, description().to_string(), "{path}");
    }
}

#[test]
fn it_describes_every_rule_and_refers_to_nothing_that_is_not_there() {
    let pool = DescriptorPool::decode(netloom_api::DESCRIPTORS).unwrap();
    let table = Table::build(&pool).unwrap();
    let description = description();
    for rule in table.rules() {
        let (path, parts) = rule.template.open();
        let operation = &description["paths"][&path][rule.http.as_str().to_ascii_lowercase()];
        assert!(operation["operationId"].as_str().unwrap().contains(rule.method.name()), "{path}");
        for field in ["summary", "description"] {
            assert!(!operation[field].as_str().unwrap().is_empty(), "{path} has no {field}");
        }
        let empty = Vec::new();
        let parameters = operation["parameters"].as_array().unwrap_or(&empty);
        let in_path: Vec<&str> =
            parameters.iter().filter(|p| p["in"] == "path").map(|p| p["name"].as_str().unwrap()).collect();
        assert_eq!(in_path, parts.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), "{path}");
        assert!(operation["responses"]["default"].is_object(), "{path}");
    }
    let mut found = Vec::new();
    all(&description["paths"], "operationId", &mut found);
    let ids: BTreeSet<&str> = found.iter().filter_map(|v| v.as_str()).collect();
    assert_eq!(
        (ids.len(), ids.len()),
        (found.len(), table.rules().len()),
        "each operation has an id of its own"
    );
    let mut found = Vec::new();
    all(&description, "$ref", &mut found);
    let used: BTreeSet<&str> = found.iter().filter_map(|v| v.as_str()).collect();
    for reference in &used {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(description.pointer(pointer).is_some_and(Value::is_object), "{reference} leads nowhere");
    }
    for name in description["components"]["schemas"].as_object().unwrap().keys() {
        assert!(used.contains(format!("#/components/schemas/{name}").as_str()), "nothing uses {name}");
    }
}

#[test]
fn a_method_of_two_paths_has_two_plain_names_and_says_no_field_in_both() {
    let description = description();
    let paths = &description["paths"];
    let id = |path: &str, verb: &str| paths[path][verb]["operationId"].as_str().unwrap().to_owned();
    assert_eq!(id("/v1/labs:watch", "get"), "LabService_WatchLabs");
    assert_eq!(id("/v1/labs/{lab}:watch", "get"), "LabService_WatchLabs_lab");
    assert_eq!(id("/v1/labs/{lab}:capture", "post"), "LabService_CapturePackets");
    assert_eq!(id("/v1/labs/{lab}:capture", "get"), "LabService_CapturePackets_get");
    let watch = paths["/v1/labs:watch"]["get"]["parameters"].as_array().unwrap();
    assert!(
        watch.iter().all(|p| p["name"] != "name") && watch.iter().any(|p| p["name"] == "since"),
        "{watch:?}"
    );
}

#[test]
fn headers_that_calls_take_and_the_type_of_captures_are_described() {
    let description = description();
    let headers = |path: &str| -> Vec<String> {
        let parameters = description["paths"][path]["get"]["parameters"].as_array().unwrap();
        let pointers = parameters.iter().filter_map(|p| p["$ref"].as_str()?.strip_prefix('#'));
        pointers.map(|p| description.pointer(p).unwrap()["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(headers("/v1/labs:watch"), ["Last-Event-ID", "Grpc-Timeout"]);
    assert_eq!(headers("/v1/labs"), ["Grpc-Timeout"]);
    let capture = &description["paths"]["/v1/labs/{lab}:capture"]["get"]["responses"]["200"]["content"];
    let types: Vec<&String> = capture.as_object().unwrap().keys().collect();
    assert_eq!(types, ["application/x-pcapng"], "as captures.rs sees it answered");
}

#[test]
fn it_says_what_the_contracts_say() {
    let description = description();
    let paths = &description["paths"];
    let get = &paths["/v1/labs/{lab}"]["get"];
    assert_eq!(get["operationId"], "LabService_GetLab");
    let answer = "/responses/200/content/application~1json/schema/$ref";
    assert_eq!(get.pointer(answer).unwrap(), "#/components/schemas/Lab");
    let apply = &paths["/v1/labs/{lab}:apply"]["post"];
    assert_eq!(
        apply.pointer("/requestBody/content/application~1json/schema/$ref").unwrap(),
        "#/components/schemas/ApplyLabBody"
    );
    let schemas = &description["components"]["schemas"];
    let body = &schemas["ApplyLabBody"]["properties"];
    assert!(
        body.get("name").is_none() && body.get("spec").is_some(),
        "what the path says is not in the body: {body}"
    );
    let list = paths["/v1/labs"]["get"]["parameters"].as_array().unwrap();
    assert_eq!(list.iter().filter_map(|p| p["name"].as_str()).collect::<Vec<_>>(), ["pageSize", "pageToken"]);
    let watch = &paths["/v1/labs:watch"]["get"]["responses"]["200"]["content"];
    assert!(watch["application/x-ndjson"].is_object() && watch["text/event-stream"].is_object(), "{watch}");
    assert_eq!(paths["/v1/images/{image}"]["get"]["parameters"][0]["name"], "image");
    assert!(paths["/v1/shell:open"]["post"]["responses"].get("200").is_none(), "it needs gRPC");

    assert!(schemas["Link"]["properties"]["etag"].get("readOnly").is_none(), "it is sent with a change");
    let node = &schemas["Node"];
    assert_eq!(node["properties"]["uid"]["readOnly"], true);
    assert_eq!(node["properties"]["memoryRequestBytes"]["type"], "string", "64 bits are a string");
    assert_eq!(node["properties"]["startTime"]["type"], json!(["string", "null"]));
    let required: Vec<&str> = node["required"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(required.contains(&"state") && !required.contains(&"exitCode"), "{required:?}");
    assert!(
        schemas["NodeSpec"].get("required").is_none(),
        "who sends a spec may leave out what has a default"
    );
    let state = &schemas["NodeState"];
    assert!(state["enum"].as_array().unwrap().contains(&json!("NODE_STATE_READY")));
    assert!(state["description"].as_str().unwrap().contains("`NODE_STATE_READY`: "), "{state}");
    assert!(schemas["google.rpc.Status"]["properties"]["details"].is_object());
    assert_eq!(description["components"]["securitySchemes"]["token"]["scheme"], "bearer");
}

#[test]
fn an_outside_validator_accepts_it() {
    let Some(bin) = checkers(concat!(module_path!(), "::an_outside_validator_accepts_it")) else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("openapi.json");
    std::fs::write(&file, description().to_string()).unwrap();
    let run = Command::new(bin.join("openapi-spec-validator")).arg(&file).output().unwrap();
    assert!(run.status.success(), "{}", said(&run));
    // And it would have seen a fault.
    let mut wrong = description();
    wrong["paths"]["/v1/labs/{lab}"]["get"]["parameters"][0]["required"] = json!("yes");
    std::fs::write(&file, wrong.to_string()).unwrap();
    let run = Command::new(bin.join("openapi-spec-validator")).arg(&file).output().unwrap();
    assert!(!run.status.success(), "{}", said(&run));
}

/// Schemathesis' settings: what is checked. A method that this gateway cannot do over HTTP says so by 501, a host that does not answer is told by 503, a
/// caller's time that was over by 504; no other answer may be a fault of the server.
const CHECKED: &str = r#"
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "501", "503", "504"]
positive_data_acceptance.enabled = false
negative_data_rejection.enabled = false
missing_required_header.enabled = false
use_after_free.enabled = false
ensure_resource_availability.enabled = false
"#;

/// Values that lead to things that exist.
const EXISTING: &str = r#"
[parameters]
"path.lab" = "mixed"
"path.node" = "r1"
"path.link" = "r1:eth1--r2:eth1"
"path.host" = "local"
"path.kind" = "bridge"
"path.image" = "netloom/frr:local"
"#;

/// Sends requests that schemathesis makes of the description, right ones and wrong ones, in a bounded number.
async fn generated(bin: PathBuf, settings: &str, phases: &str, examples: u32) {
    let rig = Rig::new().await;
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("schemathesis.toml");
    let hooks = repository().join("gateway/tests/openapi/lines.py");
    std::fs::copy(hooks, dir.path().join("lines.py")).unwrap();
    std::fs::write(&config, format!("hooks = \"lines\"\n{settings}{CHECKED}")).unwrap();
    let mut command = Command::new(bin.join("schemathesis"));
    command
        .current_dir(dir.path())
        .env("PYTHONPATH", dir.path())
        .arg("--config-file")
        .arg(&config)
        .args(["run", &format!("http://{}/openapi.json", rig.address)])
        .args(["--header", &format!("Authorization: Bearer {}", rig.token)])
        // Streams that have no end are over then.
        .args(["--header", "Grpc-Timeout: 100m"])
        // One worker: Python 3.11 may fail to parse on a second thread (SystemError: AST constructor recursion depth mismatch).
        .args(["--phases", phases, "--mode", "all", "--workers", "1"])
        .args(["--max-examples", &examples.to_string(), "--seed", "1", "--request-timeout", "10"])
        .args(["--suppress-health-check", "all", "--warnings", "off", "--no-color"]);
    let run = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(run.status.success(), "{}", said(&run));
}

#[tokio::test]
async fn generated_requests_find_no_fault() {
    let Some(bin) = checkers(concat!(module_path!(), "::generated_requests_find_no_fault")) else { return };
    let things_that_exist = format!("{EXISTING}\"path.operation\" = \"{DONE}\"\n");
    generated(bin.clone(), &things_that_exist, "examples,coverage,fuzzing", 5).await;
    generated(bin, "", "fuzzing", 3).await;
}
