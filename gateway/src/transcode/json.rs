//! Messages ↔ proto3 JSON as grpc-gateway writes it: names in lowerCamelCase and in the order of the proto file, 64-bit integers as strings, enums by name,
//! bytes in base64, and fields that are not set with their defaults (`null` for a message), but for members of a oneof and optional ones.

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::display::Base64Display;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::BASE64_STANDARD;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage as _, SerializeOptions,
    Value,
};
use serde::ser::{Error as _, Serialize, SerializeMap as _, SerializeSeq as _, Serializer};

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

/// Reads a message from JSON text; nothing at all is a message without fields.
pub fn read(descriptor: &MessageDescriptor, text: &[u8]) -> Result<DynamicMessage, String> {
    if text.trim_ascii().is_empty() {
        return Ok(DynamicMessage::new(descriptor.clone()));
    }
    let mut reader = serde_json::Deserializer::from_slice(text);
    let message = DynamicMessage::deserialize(descriptor.clone(), &mut reader).map_err(|e| e.to_string())?;
    reader.end().map_err(|e| e.to_string())?;
    Ok(message)
}

/// Sets the field at the end of a way to texts from a path or a query: one, or several for a list.
pub fn bind(message: &mut DynamicMessage, way: &[FieldDescriptor], texts: &[String]) -> Result<(), String> {
    let Some((field, through)) = way.split_last() else { return Ok(()) };
    let mut message = message;
    for step in through {
        message = message.get_field_mut(step).as_message_mut().ok_or("the way leads through no message")?;
    }
    let value = match texts {
        _ if field.is_map() => {
            return Err("is a map, which a query cannot say: send it in the body".to_owned());
        }
        texts if field.is_list() => {
            Value::List(texts.iter().map(|t| scalar(&field.kind(), t)).collect::<Result<_, _>>()?)
        }
        [text] => scalar(&field.kind(), text)?,
        texts => return Err(format!("is given {} times, and holds one value", texts.len())),
    };
    message.set_field(field, value);
    Ok(())
}

fn scalar(kind: &Kind, text: &str) -> Result<Value, String> {
    fn number<T: std::str::FromStr>(text: &str, what: &str) -> Result<T, String> {
        text.parse().map_err(|_| format!("\"{text}\" is not {what}"))
    }
    Ok(match kind {
        Kind::String => Value::String(text.to_owned()),
        Kind::Bool => Value::Bool(match text {
            "true" | "1" => true,
            "false" | "0" => false,
            _ => return Err(format!("\"{text}\" is neither true nor false")),
        }),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(number(text, "a 32-bit integer")?),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(number(text, "a 64-bit integer")?),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(number(text, "a 32-bit integer from 0")?),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(number(text, "a 64-bit integer from 0")?),
        Kind::Float => Value::F32(number(text, "a number")?),
        Kind::Double => Value::F64(number(text, "a number")?),
        Kind::Bytes => Value::Bytes(base64(text).ok_or_else(|| format!("\"{text}\" is not base64"))?.into()),
        Kind::Enum(e) => {
            let by_number = || text.parse().ok().and_then(|n| e.get_value(n));
            let value = e.get_value_by_name(text).or_else(by_number);
            Value::EnumNumber(value.ok_or_else(|| format!("\"{text}\" is not a {}", e.name()))?.number())
        }
        Kind::Message(m) => match m.full_name() {
            "google.protobuf.Timestamp" | "google.protobuf.Duration" | "google.protobuf.FieldMask" => {
                let text = serde_json::Value::String(text.to_owned());
                let message = DynamicMessage::deserialize(m.clone(), text);
                Value::Message(message.map_err(|e| e.to_string())?)
            }
            other => return Err(format!("is a {other}, which a query cannot say: name a field of it")),
        },
    })
}

/// Either alphabet, padded or not.
fn base64(text: &str) -> Option<Vec<u8>> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let url = text.contains(['-', '_']);
    GeneralPurpose::new(if url { &URL_SAFE } else { &STANDARD }, config).decode(text).ok()
}
