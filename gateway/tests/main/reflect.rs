//! Messages by reflection, as JSON and on the wire: slower than what the gateway does, and made another way, so that the two can be held against each other.

use base64::display::Base64Display;
use base64::prelude::BASE64_STANDARD;
use prost::Message as _;
use prost_reflect::{
    DynamicMessage, Kind, MapKey, MessageDescriptor, ReflectMessage as _, SerializeOptions, Value,
};
use serde::ser::{Error as _, Serialize, SerializeMap as _, SerializeSeq as _, Serializer};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// A codec of messages, those that are decoded of one type.
#[derive(Clone)]
pub struct Reflected {
    pub output: MessageDescriptor,
}

impl Codec for Reflected {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = Reflected;
    type Decoder = Reflected;

    fn encoder(&mut self) -> Reflected {
        self.clone()
    }

    fn decoder(&mut self) -> Reflected {
        self.clone()
    }
}

impl Encoder for Reflected {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, item: DynamicMessage, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buffer).map_err(|e| Status::internal(e.to_string()))
    }
}

impl Decoder for Reflected {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        let message = DynamicMessage::decode(self.output.clone(), buffer);
        message.map(Some).map_err(|e| Status::internal(e.to_string()))
    }
}

/// A message to be written as JSON.
pub struct Json<'a>(pub &'a DynamicMessage);

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let descriptor = self.0.descriptor();
        let (prefix, fields) = match descriptor.full_name() {
            "google.protobuf.Any" => {
                let (url, content) = unpack(self.0).map_err(S::Error::custom)?;
                let mut map = serializer.serialize_map(None)?;
                map.serialize_entry("@type", &url)?;
                if is_well_known(&content.descriptor()) {
                    map.serialize_entry("value", &Json(&content))?;
                } else {
                    write_fields::<S>(&mut map, &content)?;
                }
                return map.end();
            }
            name if name.starts_with("google.protobuf.") => {
                let options = SerializeOptions::new().skip_default_fields(false);
                return self.0.serialize_with_options(serializer, &options);
            }
            _ => (serializer.serialize_map(None)?, self.0),
        };
        let mut map = prefix;
        write_fields::<S>(&mut map, fields)?;
        map.end()
    }
}

fn is_well_known(descriptor: &MessageDescriptor) -> bool {
    descriptor.full_name().starts_with("google.protobuf.")
}

/// The type's URL and the message in an Any.
fn unpack(any: &DynamicMessage) -> Result<(String, DynamicMessage), String> {
    let field = |name: &str| any.get_field_by_name(name).ok_or("an Any without its fields");
    let url = field("type_url")?.as_str().unwrap_or_default().to_owned();
    let name = url.rsplit('/').next().unwrap_or_default();
    let pool = any.descriptor().parent_pool().clone();
    let descriptor = pool.get_message_by_name(name).ok_or_else(|| format!("{name} is not a known type"))?;
    let bytes = field("value")?.as_bytes().cloned().unwrap_or_default();
    let content = DynamicMessage::decode(descriptor, bytes).map_err(|e| e.to_string())?;
    Ok((url, content))
}

fn write_fields<S: Serializer>(map: &mut S::SerializeMap, message: &DynamicMessage) -> Result<(), S::Error> {
    for field in message.descriptor().fields() {
        let set = message.has_field(&field);
        if !set && field.containing_oneof().is_some() {
            continue;
        }
        let single = !field.is_list() && !field.is_map();
        if !set && single && matches!(field.kind(), Kind::Message(_)) {
            map.serialize_entry(field.json_name(), &())?;
            continue;
        }
        let value = message.get_field(&field);
        map.serialize_entry(field.json_name(), &JsonValue { value: &value, kind: &field.kind() })?;
    }
    Ok(())
}

struct JsonValue<'a> {
    value: &'a Value,
    kind: &'a Kind,
}

impl Serialize for JsonValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.value {
            Value::Bool(v) => serializer.serialize_bool(*v),
            Value::I32(v) => serializer.serialize_i32(*v),
            Value::U32(v) => serializer.serialize_u32(*v),
            Value::I64(v) => serializer.collect_str(v),
            Value::U64(v) => serializer.collect_str(v),
            Value::F32(v) => float(f64::from(*v), serializer),
            Value::F64(v) => float(*v, serializer),
            Value::String(v) => serializer.serialize_str(v),
            Value::Bytes(v) => serializer.collect_str(&Base64Display::new(v, &BASE64_STANDARD)),
            Value::EnumNumber(number) => match self.kind.as_enum().and_then(|e| e.get_value(*number)) {
                Some(value) => serializer.serialize_str(value.name()),
                None => serializer.serialize_i32(*number),
            },
            Value::Message(message) => Json(message).serialize(serializer),
            Value::List(values) => {
                let mut list = serializer.serialize_seq(Some(values.len()))?;
                for value in values {
                    list.serialize_element(&JsonValue { value, kind: self.kind })?;
                }
                list.end()
            }
            Value::Map(entries) => {
                let Kind::Message(entry) = self.kind else {
                    return Err(S::Error::custom("a map whose entries are no messages"));
                };
                let kind = entry.map_entry_value_field().kind();
                let mut sorted: Vec<(&MapKey, &Value)> = entries.iter().collect();
                sorted.sort_by_key(|(key, _)| *key);
                let mut map = serializer.serialize_map(Some(sorted.len()))?;
                for (key, value) in sorted {
                    map.serialize_entry(&key_text(key), &JsonValue { value, kind: &kind })?;
                }
                map.end()
            }
        }
    }
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(v) => v.to_string(),
        MapKey::I32(v) => v.to_string(),
        MapKey::I64(v) => v.to_string(),
        MapKey::U32(v) => v.to_string(),
        MapKey::U64(v) => v.to_string(),
        MapKey::String(v) => v.clone(),
    }
}

fn float<S: Serializer>(v: f64, serializer: S) -> Result<S::Ok, S::Error> {
    // Up to here every whole number is exact, and is written without a point.
    const WHOLE: f64 = 9_007_199_254_740_992.0;
    if v.is_nan() {
        serializer.serialize_str("NaN")
    } else if v.is_infinite() {
        serializer.serialize_str(if v > 0.0 { "Infinity" } else { "-Infinity" })
    } else if v.fract() == 0.0 && v.abs() < WHOLE && (v != 0.0 || v.is_sign_positive()) {
        serializer.serialize_i64(v as i64)
    } else {
        serializer.serialize_f64(v)
    }
}
