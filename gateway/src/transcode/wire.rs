//! Encoded messages → proto3 JSON as grpc-gateway writes it: names in lowerCamelCase and in the order of the proto file, 64-bit integers as strings, enums by name,
//! bytes in base64, and fields that are not set with their defaults (`null` for a message), but for members of a oneof and optional ones.
//!
//! What a type looks like is found out once ([`Forms`]), and an answer is written from its bytes: no message is made between the handler's and the text. Of a list of a thousand labs
//! that was most of the work. The bytes come from a handler of this process, encoded by prost.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Write as _;

use base64::display::Base64Display;
use base64::prelude::BASE64_STANDARD;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, SerializeOptions,
};

use self::read::{Found, Malformed, Raw, Reader};

mod read;

/// How every type of a pool is written.
#[derive(Debug)]
pub struct Forms {
    forms: Vec<Form>,
    places: HashMap<String, usize>,
}

/// How one type is written.
#[derive(Debug)]
struct Form {
    shape: Shape,
    /// In the order of the proto file.
    fields: Vec<Field>,
    /// Where in `fields` a field is, by its number.
    numbers: Vec<Option<u16>>,
}

#[derive(Debug)]
enum Shape {
    /// An object of its fields.
    Plain,
    /// An object of the fields of what it holds, and of its type.
    Any,
    /// As proto3 JSON has it for this one type.
    WellKnown(MessageDescriptor),
}

#[derive(Debug)]
struct Field {
    /// `"name":`
    key: String,
    /// What is written where it is not set; it is left out where there is none.
    unset: Option<Cow<'static, str>>,
    list: bool,
    map: bool,
    kind: Kind,
    /// Of a message, where its form is.
    form: usize,
    /// Of an enum, its names in quotes by number.
    names: HashMap<i32, String>,
}

impl Forms {
    /// For all messages of a pool.
    pub fn new(pool: &DescriptorPool) -> Result<Forms, String> {
        let all: Vec<MessageDescriptor> = pool.all_messages().collect();
        let places = all.iter().enumerate().map(|(at, m)| (m.full_name().to_owned(), at));
        let places: HashMap<String, usize> = places.collect();
        let forms = all.iter().map(|message| Form::new(message, &places)).collect::<Result<_, _>>()?;
        Ok(Forms { forms, places })
    }

    /// A message of a type, by its full name, as JSON.
    pub fn json(&self, name: &str, bytes: &[u8]) -> Result<Vec<u8>, Malformed> {
        let form = self.places.get(name).ok_or(Malformed("is of no known type"))?;
        // Fields that are not set take no bytes there, and many here.
        let mut out = Vec::with_capacity(64 + 16 * bytes.len());
        self.message(*form, bytes, &mut out)?;
        Ok(out)
    }

    fn message(&self, form: usize, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        match &self.forms[form].shape {
            Shape::WellKnown(descriptor) => return well_known(descriptor, bytes, out),
            Shape::Plain => {
                out.push(b'{');
                self.fields(form, bytes, out)?;
            }
            Shape::Any => {
                out.push(b'{');
                self.any(bytes, out)?;
            }
        }
        out.push(b'}');
        Ok(())
    }

    /// What an Any holds, with its type: `{"@type": …, field: …}`, or `{"@type": …, "value": …}` where that is no object of fields.
    fn any(&self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        let found = Found::read(bytes, 2, |number| number.checked_sub(1).filter(|at| *at < 2))?;
        let [url, value] = [0, 1].map(|at| found.last(at).map_or(Ok(&[][..]), Raw::bytes));
        let url = text(url?)?;
        let name = url.rsplit('/').next().unwrap_or_default();
        let form = *self.places.get(name).ok_or(Malformed("holds what is of no known type"))?;
        out.extend_from_slice(b"\"@type\":");
        quoted(url, out);
        match self.forms[form].shape {
            Shape::Plain => self.fields(form, value?, out),
            Shape::Any | Shape::WellKnown(_) => {
                out.extend_from_slice(b",\"value\":");
                self.message(form, value?, out)
            }
        }
    }

    fn fields(&self, form: usize, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        let form = &self.forms[form];
        let place = |number: usize| form.numbers.get(number).copied().flatten().map(usize::from);
        let found = Found::read(bytes, form.fields.len(), place)?;
        for (at, field) in form.fields.iter().enumerate() {
            let set = found.last(at);
            let (None, None) = (set, &field.unset) else {
                separate(out);
                out.extend_from_slice(field.key.as_bytes());
                match set {
                    None => out.extend_from_slice(field.unset.as_deref().unwrap_or_default().as_bytes()),
                    Some(_) if field.map => self.map(field, &found, at, out)?,
                    Some(_) if field.list => self.list(field, &found, at, out)?,
                    Some(raw) => self.one(field, &found, at, raw, out)?,
                }
                continue;
            };
        }
        Ok(())
    }

    /// Of several values the last counts; of a message all together.
    fn one<'b>(
        &self,
        field: &Field,
        found: &Found<'b>,
        at: usize,
        last: Raw<'b>,
        out: &mut Vec<u8>,
    ) -> Result<(), Malformed> {
        if matches!(field.kind, Kind::Message(_)) && found.all(at).nth(1).is_some() {
            let parts: Vec<&[u8]> = found.all(at).map(Raw::bytes).collect::<Result<_, _>>()?;
            return self.message(field.form, &parts.concat(), out);
        }
        self.value(field, last, out)
    }

    fn list(&self, field: &Field, found: &Found, at: usize, out: &mut Vec<u8>) -> Result<(), Malformed> {
        out.push(b'[');
        for raw in found.all(at) {
            match raw {
                // Numbers come many in one.
                Raw::Bytes(packed) if !is_delimited(&field.kind) => {
                    let mut reader = Reader(packed);
                    while !reader.0.is_empty() {
                        separate(out);
                        self.value(field, reader.packed(&field.kind)?, out)?;
                    }
                }
                raw => {
                    separate(out);
                    self.value(field, raw, out)?;
                }
            }
        }
        out.push(b']');
        Ok(())
    }

    /// Entries, which are messages of a key and a value, in the order of their keys; of several with one key the last counts.
    fn map(&self, field: &Field, found: &Found, at: usize, out: &mut Vec<u8>) -> Result<(), Malformed> {
        let [_, value] = self.forms[field.form].fields.as_slice() else {
            return Err(Malformed("has no map"));
        };
        let mut entries = Vec::new();
        for raw in found.all(at) {
            let entry = Found::read(raw.bytes()?, 2, |number| number.checked_sub(1).filter(|at| *at < 2))?;
            let key = text(entry.last(0).map_or(Ok(&[][..]), Raw::bytes)?)?;
            entries.push((key, entry));
        }
        entries.sort_by_key(|(key, _)| *key);
        out.push(b'{');
        for (at, (key, entry)) in entries.iter().enumerate() {
            if entries.get(at + 1).is_some_and(|(next, _)| next == key) {
                continue;
            }
            separate(out);
            quoted(key, out);
            out.push(b':');
            match (entry.last(1), &value.kind) {
                (Some(raw), _) => self.one(value, entry, 1, raw, out)?,
                (None, Kind::Message(_)) => self.message(value.form, &[], out)?,
                (None, _) => out.extend_from_slice(value.unset.as_deref().unwrap_or_default().as_bytes()),
            }
        }
        out.push(b'}');
        Ok(())
    }

    fn value(&self, field: &Field, raw: Raw<'_>, out: &mut Vec<u8>) -> Result<(), Malformed> {
        // Writing into memory does not fail.
        let _ = match &field.kind {
            Kind::Message(_) => return self.message(field.form, raw.bytes()?, out),
            Kind::String => {
                quoted(text(raw.bytes()?)?, out);
                Ok(())
            }
            Kind::Bytes => write!(out, "\"{}\"", Base64Display::new(raw.bytes()?, &BASE64_STANDARD)),
            Kind::Enum(_) => {
                let number = raw.number()? as i32;
                match field.names.get(&number) {
                    Some(name) => out.write_all(name.as_bytes()),
                    None => write!(out, "{number}"),
                }
            }
            Kind::Bool => write!(out, "{}", raw.number()? != 0),
            Kind::Int32 | Kind::Sfixed32 => write!(out, "{}", raw.number()? as i32),
            Kind::Uint32 | Kind::Fixed32 => write!(out, "{}", raw.number()? as u32),
            Kind::Int64 | Kind::Sfixed64 => write!(out, "\"{}\"", raw.number()? as i64),
            Kind::Uint64 | Kind::Fixed64 => write!(out, "\"{}\"", raw.number()?),
            Kind::Sint32 => write!(out, "{}", zigzag(raw.number()?) as i32),
            Kind::Sint64 => write!(out, "\"{}\"", zigzag(raw.number()?)),
            Kind::Float => float(f64::from(f32::from_bits(raw.number()? as u32)), out),
            Kind::Double => float(f64::from_bits(raw.number()?), out),
        };
        Ok(())
    }
}

impl Form {
    fn new(message: &MessageDescriptor, places: &HashMap<String, usize>) -> Result<Form, String> {
        let shape = match message.full_name() {
            "google.protobuf.Any" => Shape::Any,
            name if name.starts_with("google.protobuf.") => Shape::WellKnown(message.clone()),
            _ => Shape::Plain,
        };
        let mut form = Form { shape, fields: Vec::new(), numbers: Vec::new() };
        // How a type of Google's is written is not for its fields to say.
        if matches!(form.shape, Shape::WellKnown(_)) {
            return Ok(form);
        }
        for (at, field) in message.fields().enumerate() {
            let number = field.number() as usize;
            if form.numbers.len() <= number {
                form.numbers.resize(number + 1, None);
            }
            form.numbers[number] = u16::try_from(at).ok();
            form.fields.push(Field::new(&field, places)?);
        }
        Ok(form)
    }
}

impl Field {
    fn new(field: &FieldDescriptor, places: &HashMap<String, usize>) -> Result<Field, String> {
        let kind = field.kind();
        if let (true, Some(entry)) = (field.is_map(), kind.as_message())
            && entry.map_entry_key_field().kind() != Kind::String
        {
            return Err(format!("{}: only maps with texts for keys are written as JSON", field.full_name()));
        }
        let mut names = HashMap::new();
        // Of names with one number the first counts.
        for value in kind.as_enum().iter().flat_map(|of| of.values()) {
            names.entry(value.number()).or_insert_with(|| format!("\"{}\"", value.name()));
        }
        let unset = match &kind {
            _ if field.is_map() => Some("{}".into()),
            _ if field.is_list() => Some("[]".into()),
            _ if field.containing_oneof().is_some() => None,
            kind => Some(names.get(&0).map_or_else(|| zero(kind).into(), |name| name.clone().into())),
        };
        let form = kind.as_message().and_then(|m| places.get(m.full_name())).copied().unwrap_or_default();
        let key = format!("{}:", serde_json::Value::from(field.json_name()));
        Ok(Field { key, unset, list: field.is_list(), map: field.is_map(), kind, form, names })
    }
}

/// What stands for a value that is not set; of an enum that has no name for it, its number.
fn zero(kind: &Kind) -> &'static str {
    match kind {
        Kind::Message(_) => "null",
        Kind::String | Kind::Bytes => "\"\"",
        Kind::Bool => "false",
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 | Kind::Uint64 | Kind::Fixed64 => "\"0\"",
        _ => "0",
    }
}

fn is_delimited(kind: &Kind) -> bool {
    matches!(kind, Kind::Message(_) | Kind::String | Kind::Bytes)
}

/// A comma, unless what comes is the first within its brackets.
fn separate(out: &mut Vec<u8>) {
    if !matches!(out.last(), Some(b'{' | b'[')) {
        out.push(b',');
    }
}

fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed("holds a text that is not UTF-8"))
}

fn quoted(text: &str, out: &mut Vec<u8>) {
    // A text that goes into memory has nothing that fails.
    let _ = serde_json::to_writer(out, text);
}

fn zigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

fn float(v: f64, out: &mut Vec<u8>) -> std::io::Result<()> {
    // Up to here every whole number is exact, and is written without a point.
    const WHOLE: f64 = 9_007_199_254_740_992.0;
    if v.is_nan() {
        out.write_all(b"\"NaN\"")
    } else if v.is_infinite() {
        out.write_all(if v > 0.0 { b"\"Infinity\"" } else { b"\"-Infinity\"" })
    } else if v.fract() == 0.0 && v.abs() < WHOLE && (v != 0.0 || v.is_sign_positive()) {
        write!(out, "{}", v as i64)
    } else {
        serde_json::to_writer(out, &v).map_err(Into::into)
    }
}

/// Timestamps and the like, which are few.
fn well_known(descriptor: &MessageDescriptor, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let message = DynamicMessage::decode(descriptor.clone(), bytes);
    let message = message.map_err(|_| Malformed("holds what is not of its type"))?;
    let options = SerializeOptions::new().skip_default_fields(false);
    let written = message.serialize_with_options(&mut serde_json::Serializer::new(out), &options);
    written.map_err(|_| Malformed("holds a time that is none"))
}
