//! What the gateway writes from encoded bytes, held against reflection over random messages of every type.

use netloom_gateway::transcode::wire::Forms;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MapKey, MessageDescriptor};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::reflect::Json;

/// A value of a kind that says something: extremes, texts that need quoting, and what is a default.
fn some_value(kind: &Kind, depth: u32, random: &mut StdRng) -> prost_reflect::Value {
    use prost_reflect::Value as V;
    const TEXTS: [&str; 6] = ["", "a", "\"{[\\", "\u{1}\n\t\u{7f}", "naïve ✓ 𝄞", "</script>&"];
    match kind {
        Kind::Bool => V::Bool(random.random()),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => V::I32(random.random()),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => V::I64(random.random()),
        Kind::Uint32 | Kind::Fixed32 => V::U32(random.random()),
        Kind::Uint64 | Kind::Fixed64 => V::U64(random.random()),
        Kind::Float => V::F32(f32::from_bits(random.random())),
        Kind::Double => V::F64(f64::from_bits(random.random())),
        Kind::String => V::String(TEXTS[random.random_range(0..TEXTS.len())].to_owned()),
        Kind::Bytes => {
            V::Bytes((0..random.random_range(0..9)).map(|_| random.random()).collect::<Vec<u8>>().into())
        }
        Kind::Enum(_) => V::EnumNumber(random.random_range(-1..12)),
        Kind::Message(of) => V::Message(some_message(of, depth + 1, random)),
    }
}

/// A message with a part of its fields set.
fn some_message(of: &MessageDescriptor, depth: u32, random: &mut StdRng) -> DynamicMessage {
    let mut message = DynamicMessage::new(of.clone());
    match of.full_name() {
        "google.protobuf.Timestamp" | "google.protobuf.Duration" => {
            let seconds = random.random_range(0..4_000_000_000_i64);
            message.set_field_by_name("seconds", prost_reflect::Value::I64(seconds));
            let nanos = [0, 5_000_000, 999_999_999][random.random_range(0..3)];
            message.set_field_by_name("nanos", prost_reflect::Value::I32(nanos));
        }
        "google.protobuf.Any" => {
            let pool = of.parent_pool();
            let names = ["netloom.v1.Host", "google.protobuf.Timestamp", "google.rpc.ErrorInfo"];
            let name = names[random.random_range(0..names.len())];
            let held = some_message(&pool.get_message_by_name(name).unwrap(), depth + 1, random);
            let url = prost_reflect::Value::String(format!("type.googleapis.com/{name}"));
            message.set_field_by_name("type_url", url);
            message.set_field_by_name("value", prost_reflect::Value::Bytes(held.encode_to_vec().into()));
        }
        name if name.starts_with("google.protobuf.") => {}
        _ => {
            for field in of.fields().filter(|f| depth < 4 || f.kind().as_message().is_none()) {
                if random.random_bool(0.4) {
                    continue;
                }
                let kind = field.kind();
                let count = random.random_range(0..4);
                let value = if field.is_map() {
                    let entry = kind.as_message().unwrap().map_entry_value_field().kind();
                    let mut key = || MapKey::String(format!("k{}", random.random_range(0..100)));
                    let keys: Vec<MapKey> = (0..count).map(|_| key()).collect();
                    let entries = keys.into_iter().map(|key| (key, some_value(&entry, depth, random)));
                    prost_reflect::Value::Map(entries.collect())
                } else if field.is_list() {
                    prost_reflect::Value::List((0..count).map(|_| some_value(&kind, depth, random)).collect())
                } else {
                    some_value(&kind, depth, random)
                };
                message.set_field(&field, value);
            }
        }
    }
    message
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(32))]
    #[test]
    fn an_answer_is_written_as_by_reflection(seed in proptest::prelude::any::<u64>()) {
        let pool = DescriptorPool::decode(netloom_api::DESCRIPTORS).unwrap();
        let forms = Forms::new(&pool).unwrap();
        let mut random = StdRng::seed_from_u64(seed);
        for of in pool.all_messages().filter(|m| !m.full_name().starts_with("google.protobuf.") && !m.is_map_entry()) {
            let message = some_message(&of, 0, &mut random);
            let bytes = message.encode_to_vec();
            let written = String::from_utf8(forms.json(of.full_name(), &bytes).unwrap()).unwrap();
            proptest::prop_assert_eq!(&written, &serde_json::to_string(&Json(&message)).unwrap(), "{}", of.full_name());
            // What is cut off is refused or shorter, and never a panic.
            for cut in (0..bytes.len()).step_by(bytes.len() / 20 + 1) {
                let _ = forms.json(of.full_name(), &bytes[..cut]);
            }
        }
    }
}
