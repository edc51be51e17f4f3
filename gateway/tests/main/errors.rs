//! Errors: every reason that is told is in the table of `netloom_model::reason`, and for each one answer is checked in.
//!
//! `NETLOOM_UPDATE_GOLDEN=1` writes the answers and `docs/errors.md` anew.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use netloom_model::Failure;
use netloom_model::failure::Violation;
use netloom_model::reason::{INTERNAL, REASONS, Reason};
use netloom_service::status::{from_status, http_status, to_status};
use serde_json::{Value, json};

use crate::fixture::RUNNING;
use crate::rig::{Answer, Rig};

/// Words in capitals that are told nobody as a reason.
const OTHER_WORDS: &[&str] = &[
    "ALREADY_EXISTS",
    "CHANGE_WAITS",
    "DATA_LOSS",
    "DISK_ON_HOST",
    "FAILED_PRECONDITION",
    "HOST_ANSWERS",
    "INVALID_ARGUMENT",
    "MOVE_FAILED",
    "NETWORK_ELSEWHERE",
    "NOT_FOUND",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "SCREAMING_SNAKE_CASE",
    "TIED_TO_HOST",
];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
            found.push(path);
        }
    }
}

/// `"UPPER_SNAKE"` in a line of code.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let is_word = |w: &&str| {
        let mut parts = w.split('_');
        let well_formed = |p: &str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_uppercase());
        w.contains('_') && parts.all(well_formed)
    };
    line.split('"').skip(1).step_by(2).filter(is_word)
}

#[test]
fn every_reason_in_the_code_is_in_the_table_and_every_one_in_the_table_is_told() {
    let mut files = Vec::new();
    for directory in [
        "gateway/src",
        "services/scheduler/src",
        "services/image-registry/src",
        "services/network/src",
        "services/compute/src",
        "crates/service/src",
        "crates/proto/src",
        "crates/image/src",
    ] {
        sources(&repository().join(directory), &mut files);
    }
    files.push(repository().join("crates/model/src/failure.rs"));
    let known: BTreeSet<&str> = REASONS.iter().chain(INTERNAL).map(|r| r.name).collect();
    let mut told = BTreeSet::new();
    let mut unknown = BTreeMap::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for line in code.lines().filter(|l| !l.trim_start().starts_with("//") && !l.contains("env!")) {
            for word in words(line) {
                told.insert(word.to_owned());
                if !known.contains(word)
                    && !OTHER_WORDS.contains(&word)
                    && !netloom_model::spec::is_capability(word)
                    && !word.starts_with("NETLOOM_")
                    && !word.starts_with("OTEL_")
                {
                    unknown.insert(word.to_owned(), file.clone());
                }
            }
        }
        // Reasons of one word.
        for word in known.iter().filter(|w| !w.contains('_')) {
            if code.contains(&format!("\"{word}\"")) {
                told.insert((*word).to_owned());
            }
        }
    }
    assert!(
        unknown.is_empty(),
        "these are not in crates/model/src/reason.rs, with what they mean (or in OTHER_WORDS here, if they are no reasons): {unknown:#?}"
    );
    let silent: Vec<&&str> = known.iter().filter(|w| !told.contains(**w)).collect();
    assert!(silent.is_empty(), "nothing tells these reasons any more: {silent:?}");
}

/// The failure that a reason's row describes.
fn example(reason: &Reason) -> Failure {
    let mut failure = Failure::new(reason.code, reason.name, reason.meaning);
    for (key, value) in reason.facts {
        failure = failure.with(key, *value);
    }
    if reason.code == netloom_model::Code::InvalidArgument {
        failure.violations =
            vec![Violation { field: "spec.nodes[0]".into(), description: "is wrong".into() }];
    }
    failure
}

/// A reason, and the request that it answers: method, path, headers, body.
type Provocation<'r> = (&'r str, &'r str, &'r str, &'r [(&'r str, &'r str)], &'r str);

/// The gateway's own refusals, provoked by requests; all other reasons come from behind and pass through.
async fn provoked(rig: &Rig) -> BTreeMap<String, Answer> {
    let wait = format!("/v1/operations/{RUNNING}:wait");
    let large = format!("{{\"requestId\":\"{}\"}}", "x".repeat(5 << 20));
    let import = json!({"text": "name: x\ntopology:\n  nodes: 1\n", "fileName": "x.clab.yml"}).to_string();
    let etag = json!({"spec": {}, "etag": "\"none\""}).to_string();
    let requests: [Provocation<'_>; 16] = [
        ("BIDI_NEEDS_GRPC", "POST", "/v1/shell:open", &[], "{}"),
        ("BODY_TOO_LARGE", "PATCH", "/v1/labs/mixed", &[], &large),
        ("CONTENT_TYPE_UNSUPPORTED", "POST", "/v1/labs", &[("content-type", "text/plain")], "{}"),
        ("DEADLINE_EXCEEDED", "POST", &wait, &[("grpc-timeout", "50m")], "{}"),
        ("ETAG_MISMATCH", "PATCH", "/v1/labs/mixed", &[], &etag),
        ("HOST_FOREIGN", "GET", "/v1/labs", &[("host", "evil.example")], ""),
        ("INVALID_REQUEST", "GET", "/v1/labs?pageSize=x", &[], ""),
        ("KIND_NOT_FOUND", "GET", "/v1/kinds/nosuch", &[], ""),
        ("LAB_NOT_FOUND", "GET", "/v1/labs/ospf", &[], ""),
        ("METHOD_NOT_ALLOWED", "POST", "/v1/kinds", &[], "{}"),
        ("ORIGIN_FOREIGN", "GET", "/v1/labs", &[("origin", "https://evil.example")], ""),
        ("PAGE_TOKEN_INVALID", "GET", "/v1/labs?pageToken=x", &[], ""),
        ("PATH_NOT_FOUND", "GET", "/v1/nowhere", &[], ""),
        ("RELIST_NEEDED", "GET", "/v1/labs:watch?since=1", &[], ""),
        ("TOKEN_INVALID", "GET", "/v1/labs", &[("authorization", "")], ""),
        ("TOPOLOGY_INVALID", "POST", "/v1/labs:import", &[], &import),
    ];
    let mut answers = BTreeMap::new();
    for (name, verb, path, headers, body) in requests {
        let answer = rig.http(verb, path, headers, body).await;
        assert_eq!(answer.reason(), name, "{verb} {path}: {}", answer.text);
        answers.insert(name.to_owned(), answer);
    }
    answers
}

#[tokio::test]
async fn every_reason_has_its_answer_on_record() {
    let update = std::env::var_os("NETLOOM_UPDATE_GOLDEN").is_some();
    let directory = repository().join("gateway/tests/golden/errors");
    if update {
        // What is on record for a reason that is gone goes with it.
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).unwrap();
    }
    let rig = Rig::new().await;
    let own = provoked(&rig).await;
    let mut recorded = BTreeSet::new();
    for reason in REASONS {
        let failure = example(reason);
        let answer = match own.get(reason.name) {
            Some(answer) => (answer.status.as_u16(), answer.json()),
            None => {
                *rig.world.broken.lock().unwrap() = Some(failure.clone());
                // The same over gRPC, unchanged.
                let name = json!({"name": "labs/mixed"});
                assert_eq!(rig.grpc_failure("LabService/GetLab", &name).await, failure);
                let answer = rig.get("/v1/labs/mixed").await;
                *rig.world.broken.lock().unwrap() = None;
                (answer.status.as_u16(), answer.json())
            }
        };
        let code = to_status(failure).code();
        assert_eq!(answer.0, reason.http.unwrap_or(http_status(code)), "{}", reason.name);
        assert_eq!(answer.1["code"], i32::from(code), "{}", reason.name);
        assert_eq!(answer.1["details"][0]["reason"], reason.name);
        let facts: BTreeSet<&String> =
            answer.1["details"][0]["metadata"].as_object().unwrap().keys().collect();
        let described: BTreeSet<String> = reason.facts.iter().map(|(k, _)| (*k).to_owned()).collect();
        assert_eq!(facts, described.iter().collect(), "{}", reason.name);

        let is = json!({"httpStatus": answer.0, "body": answer.1});
        let file = directory.join(format!("{}.json", reason.name));
        if update {
            std::fs::write(&file, format!("{}\n", serde_json::to_string_pretty(&is).unwrap())).unwrap();
        }
        let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let was: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(is, was, "{} is not told as in {}", reason.name, file.display());
        recorded.insert(format!("{}.json", reason.name));
    }
    let there = std::fs::read_dir(&directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    assert_eq!(there.collect::<BTreeSet<_>>(), recorded, "an answer is on record for a reason that is gone");
}

#[test]
fn every_reason_survives_the_wire() {
    for reason in REASONS.iter().chain(INTERNAL) {
        let failure = example(reason);
        assert_eq!(from_status(&to_status(failure.clone())), failure);
    }
}

#[test]
fn the_page_of_errors_is_written_from_the_table() {
    let row = |r: &Reason| {
        let code = to_status(example(r)).code();
        let facts: Vec<String> = r.facts.iter().map(|(k, _)| format!("`{k}`")).collect();
        format!(
            "| `{}` | {} | {} | {} | {} | {} |\n",
            r.name,
            netloom_service::status::code_word(code),
            r.http.unwrap_or(http_status(code)),
            r.meaning,
            r.advice,
            facts.join(", ")
        )
    };
    let head = "| reason | code | HTTP | what it means | what to do | facts |\n|---|---|---|---|---|---|\n";
    let is = format!(
        "# Errors\n\nEvery error is a `google.rpc.Status` with a `google.rpc.ErrorInfo` of domain `netloom`, over gRPC, gRPC-Web and HTTP alike. Programs go by its `reason`, which is never \
         renamed; people read the message, which names the object at fault and says what to do. Facts are keys of `ErrorInfo.metadata`. A wrong request also has a \
         `google.rpc.BadRequest` with every field at fault.\n\n\
         The same call may succeed later, unchanged, when the code is UNAVAILABLE, DEADLINE_EXCEEDED or ABORTED; with the same `request_id` it is done once.\n\n\
         This page is written from `crates/model/src/reason.rs`.\n\n{head}{}\n## Between services\n\nWho is told one of these by the API has found a fault.\n\n{head}{}",
        REASONS.iter().map(row).collect::<String>(),
        INTERNAL.iter().map(row).collect::<String>(),
    );
    let file = repository().join("docs/errors.md");
    if std::env::var_os("NETLOOM_UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &is).unwrap();
    }
    let was = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    assert_eq!(
        is, was,
        "docs/errors.md does not say what the table says: write it anew with NETLOOM_UPDATE_GOLDEN=1"
    );
}
