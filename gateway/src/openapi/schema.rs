//! Schemas of messages, as they are written by [`crate::transcode::json`].

use std::collections::{BTreeMap, BTreeSet};

use prost_reflect::{DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::comments::Comments;
use crate::transcode::rules::{self, Table};

/// The package whose names need no prefix.
const OURS: &str = "netloom.v1.";

/// Schemas that were asked for, under `#/components/schemas`.
pub struct Schemas<'a> {
    comments: &'a Comments,
    components: BTreeMap<String, Value>,
    /// Messages that a request can hold: of theirs no field is required.
    asked: BTreeSet<String>,
}

impl<'a> Schemas<'a> {
    /// None yet.
    pub fn new(comments: &'a Comments, table: &Table) -> Schemas<'a> {
        let mut asked = BTreeSet::new();
        for rule in table.rules() {
            match &rule.body {
                rules::Body::None | rules::Body::Bytes(_) => {}
                rules::Body::Whole => reach(&rule.method.input(), &mut asked),
                rules::Body::Field(field) => reach_kind(&field.kind(), &mut asked),
            }
        }
        Schemas { comments, components: BTreeMap::new(), asked }
    }

    /// All of them, by name.
    pub fn into_components(self) -> Value {
        Value::Object(self.components.into_iter().collect())
    }

    /// A message by its full name.
    pub fn of_name(&mut self, pool: &DescriptorPool, name: &str) -> Value {
        pool.get_message_by_name(name).map_or_else(|| json!({}), |m| self.message(&m))
    }

    /// A message: what stands for it where it is used.
    pub fn message(&mut self, message: &MessageDescriptor) -> Value {
        if let Some(well_known) = well_known(message) {
            return well_known;
        }
        let name = component(message.full_name());
        if !self.components.contains_key(&name) {
            // Put there first, so that a message that holds itself ends.
            self.components.insert(name.clone(), Value::Null);
            let schema = self.object(message, &[]);
            self.components.insert(name.clone(), schema);
        }
        reference(&name)
    }

    /// A message without the fields that the path holds, as a component of this name.
    pub fn body(&mut self, name: &str, message: &MessageDescriptor, without: &[FieldDescriptor]) -> Value {
        if without.is_empty() {
            return self.message(message);
        }
        let schema = self.object(message, without);
        self.components.insert(name.to_owned(), schema);
        reference(name)
    }

    fn object(&mut self, message: &MessageDescriptor, without: &[FieldDescriptor]) -> Value {
        let mut properties = Map::new();
        let mut required = Vec::new();
        let asked = self.asked.contains(message.full_name());
        for field in message.fields().filter(|f| !without.contains(f)) {
            let always = field.containing_oneof().is_none();
            if always && !asked {
                required.push(field.json_name().to_owned());
            }
            properties.insert(field.json_name().to_owned(), self.property(&field));
        }
        let mut schema = json!({"type": "object", "properties": properties, "additionalProperties": false});
        let about = self.comments.of(message.parent_file().name(), message.path());
        put(&mut schema, "description", about);
        if !required.is_empty() {
            schema["required"] = required.into();
        }
        schema
    }

    /// A field of an object.
    fn property(&mut self, field: &FieldDescriptor) -> Value {
        let mut schema = self.field(field);
        let single = !field.is_list() && !field.is_map();
        if single && field.containing_oneof().is_none() && matches!(field.kind(), Kind::Message(_)) {
            schema = or_null(schema);
        }
        let about = self.about(field);
        if about.ends_with("Output only.") {
            schema["readOnly"] = true.into();
        }
        put(&mut schema, "description", about.trim_end_matches("Output only.").trim_end());
        schema
    }

    /// What a field's comment says.
    pub fn about(&self, field: &FieldDescriptor) -> String {
        self.comments.of(field.parent_message().parent_file().name(), field.path()).to_owned()
    }

    /// A field's value.
    pub fn field(&mut self, field: &FieldDescriptor) -> Value {
        let kind = field.kind();
        if field.is_map() {
            let values = kind.as_message().map(|entry| entry.map_entry_value_field().kind());
            let values = values.map_or_else(|| json!({}), |kind| self.value(&kind));
            return json!({"type": "object", "additionalProperties": values});
        }
        let value = self.value(&kind);
        if field.is_list() { json!({"type": "array", "items": value}) } else { value }
    }

    fn value(&mut self, kind: &Kind) -> Value {
        match kind {
            Kind::Bool => json!({"type": "boolean"}),
            Kind::String => json!({"type": "string"}),
            Kind::Bytes => json!({"type": "string", "contentEncoding": "base64"}),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                json!({"type": "integer", "format": "int32", "minimum": i32::MIN, "maximum": i32::MAX})
            }
            Kind::Uint32 | Kind::Fixed32 => {
                json!({"type": "integer", "format": "int64", "minimum": 0, "maximum": u32::MAX})
            }
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                json!({"type": "string", "format": "int64", "pattern": "^-?[0-9]{1,19}$"})
            }
            Kind::Uint64 | Kind::Fixed64 => {
                json!({"type": "string", "format": "uint64", "pattern": "^[0-9]{1,20}$"})
            }
            Kind::Float => number("float"),
            Kind::Double => number("double"),
            Kind::Message(message) => self.message(message),
            Kind::Enum(of) => self.enumeration(of),
        }
    }

    fn enumeration(&mut self, of: &EnumDescriptor) -> Value {
        let name = component(of.full_name());
        if !self.components.contains_key(&name) {
            let file = of.parent_file();
            let mut about = self.comments.of(file.name(), of.path()).to_owned();
            for value in of.values() {
                let says = self.comments.of(file.name(), value.path());
                if !says.is_empty() {
                    about.push_str(&format!("\n- `{}`: {says}", value.name()));
                }
            }
            let values: Vec<String> = of.values().map(|v| v.name().to_owned()).collect();
            let mut schema = json!({"type": "string", "enum": values});
            put(&mut schema, "description", &about);
            self.components.insert(name.clone(), schema);
        }
        reference(&name)
    }
}

/// Messages that others hold, with themselves.
fn reach(message: &MessageDescriptor, found: &mut BTreeSet<String>) {
    if found.insert(message.full_name().to_owned()) {
        message.fields().for_each(|f| reach_kind(&f.kind(), found));
    }
}

fn reach_kind(kind: &Kind, found: &mut BTreeSet<String>) {
    if let Kind::Message(message) = kind {
        reach(message, found);
    }
}

fn number(format: &str) -> Value {
    let finite = json!({"type": "number", "format": format});
    json!({"anyOf": [finite, {"type": "string", "enum": ["NaN", "Infinity", "-Infinity"]}]})
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn or_null(schema: Value) -> Value {
    match schema.get("type") {
        Some(Value::String(kind)) => {
            let both = json!([kind, "null"]);
            let mut schema = schema;
            schema["type"] = both;
            schema
        }
        _ => json!({"anyOf": [schema, {"type": "null"}]}),
    }
}

fn put(schema: &mut Value, key: &str, text: &str) {
    if !text.is_empty() {
        schema[key] = text.into();
    }
}

fn component(full_name: &str) -> String {
    full_name.strip_prefix(OURS).unwrap_or(full_name).to_owned()
}

/// Messages that are written in a form of their own.
fn well_known(message: &MessageDescriptor) -> Option<Value> {
    Some(match message.full_name() {
        "google.protobuf.Timestamp" => json!({"type": "string", "format": "date-time"}),
        "google.protobuf.Duration" => {
            json!({"type": "string", "pattern": "^-?[0-9]{1,12}(\\.[0-9]{1,9})?s$", "examples": ["1.500s"]})
        }
        "google.protobuf.FieldMask" => json!({"type": "string", "examples": ["labels,image"]}),
        "google.protobuf.Empty" => json!({"type": "object", "additionalProperties": false}),
        "google.protobuf.Struct" => json!({"type": "object"}),
        "google.protobuf.Value" => json!({}),
        "google.protobuf.ListValue" => json!({"type": "array"}),
        "google.protobuf.Any" => json!({
            "type": "object",
            "description": "A message of the type that @type names.",
            "properties": {"@type": {"type": "string"}},
            "required": ["@type"],
        }),
        _ => return None,
    })
}
