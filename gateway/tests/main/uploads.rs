//! Uploads of images: what the registry behind is told, over gRPC and over HTTP.

use netloom_model::kind::Catalogue;
use netloom_proto::image_registry::v1 as pr;
use prost_reflect::ReflectMessage as _;
use serde_json::{Value, json};

use crate::fixture::UPLOAD;
use crate::rig::{Answer, Rig};

fn reason(answer: &Answer) -> String {
    answer.json()["details"][0]["reason"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn bytes_go_through_as_they_are_over_http_and_over_grpc() {
    let rig = Rig::new().await;
    let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    let path = format!("/v1/uploads/{UPLOAD}?offset=7");
    let kind = [("content-type", "application/octet-stream")];
    let answer = rig.http("PUT", &path, &kind, bytes.clone()).await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()["offset"].as_str()),
        (200, Some("7")),
        "{}",
        answer.text
    );
    let empty = rig.http("PUT", &path, &[], Vec::new()).await;
    assert_eq!(empty.status, 200, "{}", empty.text);
    let request = json!({"name": format!("uploads/{UPLOAD}"), "offset": "9", "data": "AQID"});
    let by_grpc = rig.grpc_messages("ImageService/WriteUpload", &request, 1).await;
    assert_eq!(by_grpc[0].descriptor().name(), "Upload");
    let written = rig.world.written.lock().unwrap().clone();
    assert_eq!(written.len(), 3);
    assert!(written == [(7, bytes), (7, Vec::new()), (9, vec![1, 2, 3])]);
}

#[tokio::test]
async fn what_is_no_upload_of_bytes_is_refused() {
    let rig = Rig::new().await;
    let bytes = [("content-type", "application/octet-stream")];
    let unknown = rig.http("PUT", "/v1/uploads/nosuch", &bytes, b"x".to_vec()).await;
    assert_eq!(unknown.status, 404, "{}", unknown.text);
    let negative = rig.http("PUT", &format!("/v1/uploads/{UPLOAD}?offset=-1"), &bytes, b"x".to_vec()).await;
    assert_eq!((negative.status.as_u16(), reason(&negative).as_str()), (400, "INVALID_REQUEST"));
    let in_query = rig.http("PUT", &format!("/v1/uploads/{UPLOAD}?data=AQID"), &bytes, b"x".to_vec()).await;
    assert_eq!(in_query.status, 400, "{}", in_query.text);
    // Only what a page cannot send to another origin unasked may be bytes.
    let posted = rig.http("POST", "/v1/uploads", &bytes, b"x".to_vec()).await;
    assert_eq!((posted.status.as_u16(), reason(&posted).as_str()), (415, "CONTENT_TYPE_UNSUPPORTED"));
}

#[tokio::test]
async fn a_files_name_is_only_a_suggestion_and_kinds_have_to_exist() {
    let rig = Rig::new().await;
    let upload = json!({"fileName": "vyos-1.4.0.qcow2", "kinds": [{"kind": "vyos", "preferred": true}]});
    let made = rig.post("/v1/uploads", &upload.to_string()).await;
    assert_eq!(made.status, 200, "{}", made.text);
    let suggested = json!({"reference": "vyos:1.4.0", "kind": "vyos", "version": "1.4.0"});
    assert_eq!(made.json()["suggestion"], suggested);
    let asked = rig.world.uploads.lock().unwrap().pop().unwrap();
    let kind = pr::ImageKind { kind: "vyos".into(), preferred: true, ..pr::ImageKind::default() };
    let expected =
        pr::Upload { file_name: "vyos-1.4.0.qcow2".into(), kinds: vec![kind], ..pr::Upload::default() };
    assert_eq!(asked, expected);
    let wrong = rig.post("/v1/uploads", &json!({"kinds": [{"kind": "nosuch"}]}).to_string()).await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.text.contains("upload.kinds[0].kind"), "{}", wrong.text);
    for kind in netloom_image::suggest::kinds() {
        assert!(Catalogue::embedded().get(kind).is_some(), "{kind} is suggested and no kind");
    }
}

#[tokio::test]
async fn the_registry_is_told_which_lab_uses_which_image() {
    let rig = Rig::new().await;
    let mut expected = Vec::new();
    for lab in &rig.world.labs {
        for node in lab.spec.clone().unwrap_or_default().nodes.into_iter().filter(|n| !n.image.is_empty()) {
            expected.push((lab.id.clone(), node.image));
        }
    }
    assert!(!expected.is_empty());
    let told = || -> Vec<(String, String)> {
        rig.world.users.lock().unwrap().drain(..).map(|u| (u.lab, u.reference)).collect()
    };
    rig.http("DELETE", "/v1/images/netloom/frr:local", &[], Vec::new()).await;
    let of_delete = told();
    assert!(expected.iter().all(|e| of_delete.contains(e)), "{of_delete:?} lacks some of {expected:?}");
    let request = r#"{"validateOnly": true, "unusedImages": true}"#;
    let collected = rig.post("/v1/images:collectGarbage", request).await.json();
    assert_eq!(told(), of_delete);
    let said = collected["garbage"].as_array().unwrap().iter().map(|g| g["name"].as_str().unwrap());
    assert_eq!(said.collect::<Vec<_>>(), ["sha256:aa", "uploads/u", "images/a:1"]);
    assert_eq!(collected["freedBytes"], "23");
}

#[tokio::test]
async fn a_pull_tells_how_far_it_is_and_then_the_image() {
    let rig = Rig::new().await;
    let asked = json!({"source": "netloom/frr:local", "credentials": {"username": "u", "password": "p"}});
    let told = rig.post("/v1/images:pull", &asked.to_string()).await;
    assert_eq!(told.status, 200, "{}", told.text);
    let lines: Vec<Value> = told.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["result"]["progress"], json!({"doneBytes": "1", "totalBytes": "2"}));
    assert_eq!(lines[1]["result"]["image"]["reference"], "netloom/frr:local");
    assert_eq!(lines.len(), 2);
    let wrong = rig.post("/v1/images:pull", &json!({"kinds": [{"kind": "nosuch"}]}).to_string()).await;
    assert!(wrong.text.contains("kinds[0].kind"), "{}", wrong.text);
}

#[tokio::test]
async fn copies_on_hosts_are_told_as_they_are_compared_over_http_and_over_grpc() {
    let rig = Rig::new().await;
    let path = "/v1/images/netloom/host:local:verifyOnHosts";
    let told = rig.post(path, "{}").await;
    assert_eq!(told.status, 200, "{}", told.text);
    let read = |line| serde_json::from_str::<Value>(line).unwrap()["result"].take();
    let lines: Vec<Value> = told.text.lines().map(read).collect();
    let digest = format!("sha256:{}", "ab".repeat(32));
    let far = json!({"progress": {"host": "hosts/alpha", "doneBytes": "524288", "totalBytes": "1048576"}});
    let right = json!({"host": "hosts/alpha", "digest": digest, "result": "IMAGE_CHECK_RESULT_RIGHT", "sizeBytes": "1048576"});
    let aside = json!({
        "host": "hosts/beta", "digest": digest, "result": "IMAGE_CHECK_RESULT_SET_ASIDE", "sizeBytes": "1048576",
        "message": "its bytes were others", "fetched": true, "nodes": ["labs/mixed/nodes/r1"],
    });
    let shown = |line: &Value| match line.get("check") {
        // What is not set may be told or not.
        Some(check) => {
            let mut check = check.clone();
            let empty = [json!(""), json!(false), json!([])];
            check.as_object_mut().unwrap().retain(|_, value| !empty.contains(value));
            check
        }
        None => line.clone(),
    };
    assert_eq!(lines.iter().map(shown).collect::<Vec<_>>(), [far, right, aside]);
    let request = json!({"name": "images/netloom/host:local", "host": "hosts/beta"});
    assert_eq!(rig.grpc_messages("ImageService/VerifyImageOnHosts", &request, 2).await.len(), 2);
    let malformed = rig.post(path, r#"{"host": "beta"}"#).await;
    assert_eq!((malformed.status.as_u16(), reason(&malformed).as_str()), (400, "INVALID_REQUEST"));
    assert!(malformed.text.contains("hosts/{host}"), "{}", malformed.text);
}
