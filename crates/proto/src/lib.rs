//! Internal contracts between netloom's services.
//!
//! The messages are generated from `proto/`; [`convert`] turns them into the model's types and back. A service decodes in its `grpc.rs`, a caller
//! encodes in its `client.rs`, and no message goes further than that.

#![cfg_attr(test, recursion_limit = "256")]

pub mod codec;
pub mod convert;

/// Specs and states, shared with the public API.
#[allow(missing_docs, clippy::all)]
pub mod v1 {
    tonic::include_proto!("netloom.v1");
}

/// The scheduler's contract.
pub mod scheduler {
    /// Version 1.
    #[allow(missing_docs, clippy::all)]
    pub mod v1 {
        tonic::include_proto!("netloom.scheduler.v1");
    }
}

/// The image registry's contract.
pub mod image_registry {
    /// Version 1.
    #[allow(missing_docs, clippy::all)]
    pub mod v1 {
        tonic::include_proto!("netloom.image_registry.v1");
    }
}

/// The network service's contract.
pub mod network {
    /// Version 1.
    #[allow(missing_docs, clippy::all)]
    pub mod v1 {
        tonic::include_proto!("netloom.network.v1");
    }
}

/// The compute service's contract.
pub mod compute {
    /// Version 1.
    #[allow(missing_docs, clippy::all)]
    pub mod v1 {
        tonic::include_proto!("netloom.compute.v1");
    }
}

/// The encoded descriptor set of all internal contracts, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));
