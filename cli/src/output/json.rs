//! Messages as the API's own JSON: proto3's mapping with every field, as the server writes it over HTTP.

use std::sync::LazyLock;

use netloom_api::DESCRIPTORS;
use prost_reflect::prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::Value;

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(DESCRIPTORS).expect("the API's descriptors are valid: a test reads them")
});

/// A message of `netloom.v1` with this name.
pub fn value(name: &str, message: &impl Message) -> Value {
    let descriptor = POOL
        .get_message_by_name(&format!("netloom.v1.{name}"))
        .unwrap_or_else(|| panic!("{name} is not a message of netloom.v1"));
    let dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())
        .expect("what was encoded can be decoded");
    dynamic
        .serialize_with_options(
            serde_json::value::Serializer,
            &SerializeOptions::new().skip_default_fields(false),
        )
        .expect("the API's messages have a JSON form")
}

/// Messages of one kind.
pub fn list<M: Message>(name: &str, messages: &[M]) -> Value {
    messages.iter().map(|m| value(name, m)).collect()
}

/// The text that is printed.
pub fn text(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("a JSON value always serialises");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use netloom_api::v1 as api;

    use super::*;

    #[test]
    fn it_is_the_apis_json() {
        let node = api::Node {
            name: "labs/x/nodes/r1".into(),
            state: api::NodeState::Ready.into(),
            memory_request_bytes: 134_217_728,
            ..api::Node::default()
        };
        let json = value("Node", &node);
        assert_eq!(json["state"], "NODE_STATE_READY");
        assert_eq!(json["memoryRequestBytes"], "134217728", "64-bit numbers are strings");
        assert_eq!(json["restartCount"], 0, "fields at their default are there");
        assert!(json.get("exitCode").is_none(), "optional fields that are absent are not");
    }

    #[test]
    fn errors_with_details_have_a_form() {
        let failure = netloom_model::Failure::internal("x").with("lab", "a");
        let error = Some(netloom_service::status::to_rpc_status(&failure));
        let json = value("Operation", &api::Operation { error, ..api::Operation::default() });
        assert_eq!(json["error"]["details"][0]["metadata"]["lab"], "a");
    }
}
