//! The law: whatever method tells of a lab, node, link, host or image, over gRPC or over HTTP, tells the same.
//!
//! The methods are found in the descriptors, not listed here: one that is added later and is not called by [`crate::calls`] fails this test, and so does a
//! field that the fixture leaves at its default everywhere, since comparing defaults compares nothing.

use std::collections::{BTreeMap, BTreeSet};

use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, ReflectMessage as _, Value};

use crate::calls::{self, Call};
use crate::reflect::Json;
use crate::rig::Rig;

const RESOURCES: [&str; 5] =
    ["netloom.v1.Lab", "netloom.v1.Node", "netloom.v1.Link", "netloom.v1.Host", "netloom.v1.Image"];
/// Methods that are documented to leave out the lab of each operation.
const LEAVE_OUT: [&str; 1] = ["OperationService/ListOperations"];

/// True when a message of this type holds a resource somewhere.
fn carries(message: &MessageDescriptor, seen: &mut BTreeSet<String>) -> bool {
    if RESOURCES.contains(&message.full_name()) {
        return true;
    }
    seen.insert(message.full_name().to_owned())
        && message.fields().any(|f| f.kind().as_message().is_some_and(|m| carries(m, seen)))
}

/// All resources in a message.
fn resources(message: &DynamicMessage, found: &mut Vec<DynamicMessage>) {
    if RESOURCES.contains(&message.descriptor().full_name()) {
        found.push(message.clone());
    }
    for (_, value) in message.fields() {
        match value {
            Value::Message(inner) => resources(inner, found),
            Value::List(values) => {
                values.iter().filter_map(Value::as_message).for_each(|inner| resources(inner, found));
            }
            _ => {}
        }
    }
}

/// The fields in which two messages of one type differ. Compared as they are written: whether a default was sent or left out says nothing.
fn differences(a: &DynamicMessage, b: &DynamicMessage) -> Vec<String> {
    let (a, b) = (serde_json::to_value(Json(a)).unwrap(), serde_json::to_value(Json(b)).unwrap());
    let fields: BTreeSet<&String> = [&a, &b].iter().flat_map(|m| m.as_object().unwrap().keys()).collect();
    let differ = fields.into_iter().filter(|f| a.get(f) != b.get(f));
    differ.map(|f| format!("{f}: {:?} and {:?}", a.get(f), b.get(f))).collect()
}

/// A resource's first telling, and by whom.
#[derive(Default)]
struct Told(BTreeMap<(String, String), (String, DynamicMessage)>);

impl Told {
    fn hold(&mut self, by: &str, resource: DynamicMessage) {
        let name = resource.get_field_by_name("name").unwrap().as_str().unwrap().to_owned();
        assert!(!name.is_empty(), "{by} tells of a resource without a name");
        let key = (resource.descriptor().full_name().to_owned(), name);
        let (first, told) = self.0.entry(key.clone()).or_insert_with(|| (by.to_owned(), resource.clone()));
        let differences = differences(told, &resource);
        assert!(
            differences.is_empty(),
            "{} {} differs between {first} and {by}: {differences:#?}",
            key.0,
            key.1
        );
    }
}

async fn over_http(rig: &Rig, call: &Call) -> Vec<DynamicMessage> {
    let (verb, path, body) = &call.http;
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let method = rig.method(call.method);
    let read = |text: &str| {
        let mut reader = serde_json::Deserializer::from_str(text);
        DynamicMessage::deserialize(method.output(), &mut reader).unwrap_or_else(|e| panic!("{e}: {text}"))
    };
    let response = rig.send(verb, path, &[], body).await;
    let status = response.status();
    let lines = rig.lines(response, call.messages).await;
    assert_eq!(status, 200, "{verb} {path}: {lines:?}");
    if !method.is_server_streaming() {
        return vec![read(&lines.join("\n"))];
    }
    let result = |line: &String| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        read(&line.get("result").unwrap_or_else(|| panic!("{line}")).to_string())
    };
    lines.iter().map(result).collect()
}

#[tokio::test]
async fn every_method_tells_the_same() {
    let rig = Rig::new().await;
    let calls = calls::all();
    let mut told = Told::default();
    let mut methods = 0;
    for method in rig.pool.services().flat_map(|s| s.methods().collect::<Vec<_>>()) {
        if !carries(&method.output(), &mut BTreeSet::new()) {
            continue;
        }
        methods += 1;
        let name = format!("{}/{}", method.parent_service().name(), method.name());
        let ways: Vec<&Call> = calls.iter().filter(|c| c.method == name).collect();
        assert!(
            !ways.is_empty(),
            "{name} carries a resource, and tests/main/calls.rs does not say how to call it"
        );
        let mut tellings = 0;
        for call in ways {
            let by_grpc = rig.grpc_messages(&name, &call.request, call.messages).await;
            let by_http = over_http(&rig, call).await;
            for (way, messages) in [("gRPC", &by_grpc), ("HTTP", &by_http)] {
                assert!(!messages.is_empty(), "{name} over {way} answered nothing");
                let mut found = Vec::new();
                messages.iter().for_each(|m| resources(m, &mut found));
                tellings += found.len();
                let by = format!("{name} over {way} {}", call.request);
                found.into_iter().for_each(|r| told.hold(&by, r));
            }
            // Not only the resources in them: the answers as a whole are the same.
            let text = |messages: &[DynamicMessage]| {
                messages.iter().map(|m| serde_json::to_value(Json(m)).unwrap()).collect::<Vec<_>>()
            };
            assert_eq!(text(&by_grpc), text(&by_http), "{name}");
        }
        assert_eq!(tellings == 0, LEAVE_OUT.contains(&name.as_str()), "{name} told of {tellings} resources");
    }
    assert!(methods >= 20, "only {methods} methods carry a resource");

    let mut defaults = Vec::new();
    for resource in RESOURCES {
        let descriptor = rig.pool.get_message_by_name(resource).unwrap();
        for field in descriptor.fields() {
            let somewhere = told.0.iter().any(|((of, _), (_, r))| of == resource && is_said(r, &field));
            if !somewhere {
                defaults.push(field.full_name().to_owned());
            }
        }
    }
    assert!(defaults.is_empty(), "the fixture leaves these at their defaults everywhere: {defaults:?}");
}

fn is_said(message: &DynamicMessage, field: &prost_reflect::FieldDescriptor) -> bool {
    let value = message.get_field(field);
    let empty = matches!(field.kind(), Kind::Message(_))
        && value.as_message().is_some_and(|m| m.fields().next().is_none());
    message.has_field(field) && !empty
}

#[tokio::test]
async fn a_difference_would_be_seen() {
    let rig = Rig::new().await;
    let lab =
        rig.grpc_messages("LabService/GetLab", &serde_json::json!({"name": "labs/mixed"}), 1).await.remove(0);
    for field in lab.descriptor().fields() {
        let mut other = lab.clone();
        other.clear_field(&field);
        let differ = differences(&lab, &other);
        assert_eq!(differ.is_empty(), !lab.has_field(&field), "{}: {differ:?}", field.name());
    }
}

#[tokio::test]
async fn the_figures_are_those_of_the_fixture() {
    let rig = Rig::new().await;
    let lab = rig.get("/v1/labs/mixed").await.json();
    for (field, is) in [
        ("nodeCount", 8),
        ("runningCount", 4),
        ("readyCount", 3),
        ("failedCount", 2),
        ("unknownCount", 1),
        ("containerCount", 6),
        ("vmCount", 1),
        ("bridgeCount", 1),
        ("linkCount", 5),
        ("upLinkCount", 1),
    ] {
        assert_eq!(lab[field], is, "{field}");
    }
    assert_eq!(lab["state"], "LAB_STATE_UNKNOWN");
    assert_eq!(lab["reconciling"], true);
    assert_eq!(rig.get("/v1/labs/busy").await.json()["state"], "LAB_STATE_DEPLOYING");
    assert_eq!(rig.get("/v1/labs/mixed/nodes/r1").await.json()["rejections"], serde_json::json!([]));
    let image = rig.get("/v1/images/netloom/frr:local").await.json();
    assert_eq!((&image["hostCount"], &image["observeTime"]), (&2.into(), &"2025-11-24T16:00:45.250Z".into()));
}
