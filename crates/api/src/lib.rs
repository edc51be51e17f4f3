//! The public API of netloom: messages, clients and servers, generated from `proto/netloom/v1`.
//!
//! Only the gateway builds these messages, in its view; the command line and tests read them.

/// Version 1.
#[allow(missing_docs, clippy::all)]
pub mod v1 {
    pub use netloom_proto::v1::*;
    tonic::include_proto!("netloom.v1");
}

/// What is not netloom's own.
pub mod google {
    /// Bodies that are passed on as they are.
    #[allow(missing_docs, clippy::all)]
    pub mod api {
        tonic::include_proto!("google.api");
    }
}

/// The encoded descriptor set of the public API with its HTTP rules and comments.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));
