//! Operations of paths, from the rules.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::comments::Comments;
use super::schema::Schemas;
use crate::transcode::answer::{EVENTS, LINES, is_raw};
use crate::transcode::rules::{Body, Rule, Table};

/// All paths with their operations.
pub fn describe(table: &Table, comments: &Comments, schemas: &mut Schemas<'_>) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    // In an order that does not depend on how rules are tried.
    let mut rules: Vec<&Rule> = table.rules().iter().collect();
    rules.sort_by(|a, b| (&a.route, a.http.as_str()).cmp(&(&b.route, b.http.as_str())));
    for rule in rules {
        let siblings: Vec<&Rule> = table.rules().iter().filter(|r| r.method == rule.method).collect();
        let operation = operation(rule, &siblings, comments, schemas);
        paths.entry(rule.route.clone()).or_insert_with(|| json!({}))
            [rule.http.as_str().to_ascii_lowercase()] = operation;
    }
    paths.into()
}

/// What tells a rule from the others of its method: `LabService_WatchLabs` is of all labs, `LabService_WatchLabs_lab` of one, and of two with the same path the one
/// without a body is called by its verb.
fn id(rule: &Rule, siblings: &[&Rule]) -> String {
    let mut id = format!("{}_{}", rule.method.parent_service().name(), rule.method.name());
    let others = || siblings.iter().filter(|s| !std::ptr::eq(**s, rule));
    if others().any(|s| s.bindings.len() < rule.bindings.len()) {
        for part in rule.template.open().1 {
            id = format!("{id}_{}", part.name);
        }
    }
    if others().any(|s| s.route == rule.route) && matches!(rule.body, Body::None) {
        id = format!("{id}_{}", rule.http.as_str().to_ascii_lowercase());
    }
    id
}

fn operation(rule: &Rule, siblings: &[&Rule], comments: &Comments, schemas: &mut Schemas<'_>) -> Value {
    let method = &rule.method;
    let about = comments.of(method.parent_file().name(), method.path());
    let summary = about.split_once(". ").map_or(about, |(first, _)| first).trim_end_matches('.');
    let mut operation = json!({
        "operationId": id(rule, siblings),
        "tags": [method.parent_service().name()],
        "summary": summary,
        "description": about,
        "responses": responses(rule, schemas),
    });
    let mut parameters: Vec<Value> = rule.template.open().1.iter().map(path_parameter).collect();
    query_parameters(rule, siblings, schemas, &mut parameters);
    if method.is_server_streaming() && method.output().get_field_by_name("sequence").is_some() {
        parameters.push(json!({"$ref": "#/components/parameters/LastEventId"}));
    }
    parameters.push(json!({"$ref": "#/components/parameters/GrpcTimeout"}));
    operation["parameters"] = parameters.into();
    let bound: Vec<FieldDescriptor> =
        rule.bindings.iter().filter(|way| way.len() == 1).filter_map(|way| way.first().cloned()).collect();
    let body = match &rule.body {
        Body::None => None,
        Body::Whole => Some(schemas.body(&format!("{}Body", method.name()), &method.input(), &bound)),
        Body::Field(field) => Some(schemas.field(field)),
        Body::Bytes(_) => {
            let bytes = json!({"schema": {"type": "string", "format": "binary"}});
            operation["requestBody"] =
                json!({"required": true, "content": {"application/octet-stream": bytes}});
            None
        }
    };
    if let Some(schema) = body {
        operation["requestBody"] =
            json!({"required": true, "content": {"application/json": {"schema": schema}}});
    }
    operation
}

fn path_parameter(part: &crate::transcode::rules::Open) -> Value {
    let name = &part.name;
    let about = match part.many {
        true => format!("The {name}. Slashes in it are sent as they are or as %2F."),
        false => format!("Id of the {name}."),
    };
    json!({
        "name": name,
        "in": "path",
        "required": true,
        "description": about,
        "schema": {"type": "string", "minLength": 1},
    })
}

/// Every field that neither the path nor the body holds, also those of messages within. What another path of the method says is said there.
fn query_parameters(rule: &Rule, siblings: &[&Rule], schemas: &mut Schemas<'_>, parameters: &mut Vec<Value>) {
    let in_body = |field: &FieldDescriptor| match &rule.body {
        Body::None => false,
        Body::Whole => true,
        Body::Field(body) | Body::Bytes(body) => body == field,
    };
    let input = rule.method.input();
    let mut ways: Vec<Vec<FieldDescriptor>> = Vec::new();
    for field in input.fields().filter(|f| !in_body(f)) {
        leaves(vec![field], &mut ways);
    }
    let in_a_path = |way: &Vec<FieldDescriptor>| siblings.iter().any(|s| s.bindings.contains(way));
    for way in ways.into_iter().filter(|way| !in_a_path(way)) {
        let Some(field) = way.last() else { continue };
        let name = way.iter().map(|f| f.json_name()).collect::<Vec<_>>().join(".");
        let mut parameter = json!({"name": name, "in": "query", "schema": schemas.field(field)});
        let about = schemas.about(field);
        if !about.is_empty() {
            parameter["description"] = about.into();
        }
        parameters.push(parameter);
    }
}

/// The ways to all values below a field that a query can say.
fn leaves(way: Vec<FieldDescriptor>, found: &mut Vec<Vec<FieldDescriptor>>) {
    let Some(field) = way.last() else { return };
    if field.is_map() {
        return;
    }
    match field.kind() {
        Kind::Message(message) if !is_text(&message) => {
            // A message that holds itself has no last value.
            if field.is_list() || way.iter().rev().skip(1).any(|f| f.parent_message() == &message) {
                return;
            }
            for inner in message.fields() {
                leaves(way.iter().cloned().chain([inner]).collect(), found);
            }
        }
        _ => found.push(way),
    }
}

/// Messages that a query can say in one text.
fn is_text(message: &MessageDescriptor) -> bool {
    ["google.protobuf.Timestamp", "google.protobuf.Duration", "google.protobuf.FieldMask"]
        .contains(&message.full_name())
}

fn responses(rule: &Rule, schemas: &mut Schemas<'_>) -> Value {
    let method = &rule.method;
    let error = json!({"$ref": "#/components/responses/Error"});
    if method.is_client_streaming() && !matches!(rule.body, Body::Bytes(_)) {
        return json!({"501": error, "default": error});
    }
    let output = method.output();
    let (about, content) = if is_raw(&output) {
        (
            "Bytes.",
            json!({super::raw_type(method.name()): {"schema": {"type": "string", "format": "binary"}}}),
        )
    } else if method.is_server_streaming() {
        let failed = schemas.of_name(output.parent_pool(), "google.rpc.Status");
        let line = json!({
            "type": "object",
            "properties": {"result": schemas.message(&output), "error": failed},
            "additionalProperties": false,
        });
        let says = "One object a line: a result, or at the end of a failed stream the error. As server-sent events each is the data of an event: its id is the \
             message's sequence, its name the message's type in lower case, or `error`.";
        (says, json!({LINES: {"schema": line}, EVENTS: {"schema": {"type": "string"}}}))
    } else {
        ("The answer.", json!({"application/json": {"schema": schemas.message(&output)}}))
    };
    json!({"200": {"description": about, "content": content}, "default": error})
}
