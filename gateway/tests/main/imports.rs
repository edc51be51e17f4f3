//! Topology files and the contents that go with a spec.

use netloom_model::Code;
use netloom_model::id::Digest;
use serde_json::json;

use crate::calls::TOPOLOGY;
use crate::rig::Rig;

/// Base64 of some bytes.
fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::prelude::BASE64_STANDARD.encode(bytes)
}

#[tokio::test]
async fn a_topology_file_becomes_an_operation() {
    let rig = Rig::new().await;
    let text = "name: mixed\ntopology:\n  nodes:\n    a:\n      kind: linux\n      image: x\n      binds:\n        - conf/a.txt:/etc/a.txt\n";
    let body = json!({
        "text": text,
        "fileName": "m.clab.yml",
        "files": [{"path": "conf/a.txt", "content": base64(b"hello"), "mode": 420}, {"path": "unused", "content": base64(b"x")}],
    });
    let answer = rig.post("/v1/labs:import", &body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let operation = answer.json();
    assert_eq!(
        (&operation["labName"], &operation["lab"]["name"]),
        (&json!("labs/mixed"), &json!("labs/mixed"))
    );
    let applied = rig.world.applied.lock().unwrap().pop().unwrap();
    let file = &applied.spec.as_ref().unwrap().files[0];
    assert_eq!(
        (file.path.as_str(), file.digest.as_str(), file.mode),
        ("conf/a.txt", Digest::of(b"hello").as_str(), 0o644)
    );
    // Only what the lab uses is sent on.
    assert_eq!(*rig.world.parts.lock().unwrap(), [(Digest::of(b"hello").to_string(), 5)]);
}

#[tokio::test]
async fn every_error_of_a_file_is_told_with_its_place() {
    let rig = Rig::new().await;
    let text = "name: mixed\ntopology:\n  nodes:\n    a:\n      kind: lynux\n      imaje: x\n";
    let request = json!({"text": text, "fileName": "m.clab.yml"});
    let failure = rig.grpc_failure("LabService/ImportLab", &request).await;
    assert_eq!((failure.code, failure.reason.as_str()), (Code::InvalidArgument, "TOPOLOGY_INVALID"));
    let places: Vec<&str> = failure.violations.iter().map(|v| v.field.as_str()).collect();
    assert!(places.iter().any(|p| p.starts_with("m.clab.yml:6:")), "{failure}");
    let answer = rig.post("/v1/labs:import", &request.to_string()).await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (400, "TOPOLOGY_INVALID"));
    assert_eq!(rig.world.applied.lock().unwrap().len(), 0, "nothing was asked of the scheduler");

    for (body, reason) in [
        (json!({"text": ""}), "TOPOLOGY_INVALID"),
        (json!({"text": "{{{{"}), "TOPOLOGY_INVALID"),
        (json!({"text": "x".repeat(5 << 20)}), "TOPOLOGY_INVALID"),
        (json!({"text": TOPOLOGY, "files": [{"path": "../../etc/shadow"}]}), "INVALID_REQUEST"),
        (json!({"text": TOPOLOGY, "files": [{"path": "a"}, {"path": "a"}]}), "INVALID_REQUEST"),
    ] {
        let answer = rig.post("/v1/labs:import", &body.to_string()).await;
        assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (400, reason), "{}", answer.text);
    }
}

#[tokio::test]
async fn a_thousand_errors_still_arrive_over_grpc() {
    let rig = Rig::new().await;
    let keys: String = (0..1000).map(|i| format!("      wrong-key-{i}: x\n")).collect();
    let text = format!("name: mixed\ntopology:\n  nodes:\n    a:\n      kind: linux\n      image: x\n{keys}");
    let failure = rig.grpc_failure("LabService/ImportLab", &json!({"text": text})).await;
    assert_eq!(failure.reason, "TOPOLOGY_INVALID", "{failure}");
    assert!(failure.violations.len() > 5);
}

#[tokio::test]
async fn warnings_come_with_the_operation() {
    let rig = Rig::new().await;
    // How much is logged is no matter of a lab.
    let text = "name: mixed\n\ndebug: true\ntopology:\n  nodes:\n    a:\n      kind: linux\n      image: x\n";
    let answer =
        rig.post("/v1/labs:import", &json!({"text": text, "fileName": "m.clab.yml"}).to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let diagnostics = answer.json()["diagnostics"].clone();
    assert_eq!(
        (&diagnostics[0]["file"], &diagnostics[0]["line"]),
        (&json!("m.clab.yml"), &json!(3)),
        "{diagnostics}"
    );
    assert_eq!(diagnostics[0]["severity"], "SEVERITY_WARNING");
}

#[tokio::test]
async fn contents_go_to_the_scheduler_in_parts() {
    let rig = Rig::new().await;
    let content: Vec<u8> = (0..(5usize << 19)).map(|i| (i % 251) as u8).collect();
    let digest = Digest::of(&content);
    let entry = |digest: &Digest| json!({"files": [{"path": "big", "digest": digest.as_str(), "sizeBytes": content.len().to_string()}]});
    let body = |spec| json!({"spec": spec, "files": [{"path": "big", "content": base64(&content)}]});
    let answer = rig.post("/v1/labs/mixed:apply", &body(entry(&digest)).to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let parts = rig.world.parts.lock().unwrap().clone();
    let name = digest.to_string();
    assert_eq!(parts, [(name.clone(), 1 << 20), (name.clone(), 1 << 20), (name, 1 << 19)]);
    let answer = rig.post("/v1/labs/mixed:apply", &body(entry(&Digest::of(b"other"))).to_string()).await;
    assert_eq!(answer.status, 400);
    assert!(answer.json()["message"].as_str().unwrap().contains("files[0].content"), "{}", answer.text);
}

#[tokio::test]
async fn an_etag_guards_a_change() {
    let rig = Rig::new().await;
    let etag = rig.get("/v1/labs/mixed").await.json()["etag"].as_str().unwrap().to_owned();
    let other = rig.get("/v1/labs/busy").await.json()["etag"].as_str().unwrap().to_owned();
    assert_ne!(etag, other);
    let answer =
        rig.http("PATCH", "/v1/labs/mixed", &[], json!({"spec": {}, "etag": etag}).to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(rig.world.applied.lock().unwrap().pop().unwrap().generation, 3);
    for wrong in [other.as_str(), "x", "*"] {
        let answer =
            rig.http("PATCH", "/v1/labs/mixed", &[], json!({"spec": {}, "etag": wrong}).to_string()).await;
        assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (409, "ETAG_MISMATCH"));
        let answer = rig.http("DELETE", &format!("/v1/labs/mixed?etag={wrong}"), &[], "").await;
        assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (409, "ETAG_MISMATCH"));
    }
    assert_eq!(rig.world.applied.lock().unwrap().len(), 0);
}
