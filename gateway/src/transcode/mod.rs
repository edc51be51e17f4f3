//! HTTP/JSON for every method of the public API, from the descriptors alone.
//!
//! A request finds its rule ([`rules`]: the `google.api.http` templates), its path, query and body become a message ([`json`]), the message goes through
//! the same tonic routes as a gRPC call ([`codec`]), and the answer becomes JSON ([`http`], [`answer`], [`wire`]). No method is known here by name, so that none can be forgotten and none
//! can answer differently than over gRPC.

pub mod answer;
pub mod codec;
pub mod http;
pub mod json;
pub mod rules;
pub mod wire;
