//! proto3 JSON, and the texts of paths and queries, → messages. The other way is [`super::wire`].

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

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
