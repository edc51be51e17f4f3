//! Generates the public API with a pure-Rust protobuf compiler. Specs and states are the ones of `netloom-proto`, so that a spec is one Rust type
//! from the public door to the host.

use std::path::PathBuf;

use prost::Message as _;

const SHARED: [&str; 2] = ["netloom/v1/spec.proto", "netloom/v1/state.proto"];
/// Where google.api.HttpBody is, and what it needs.
const BODIES: [&str; 2] = ["google/api/httpbody.proto", "google/protobuf/any.proto"];
const PROTOS: [&str; 11] = [
    "netloom/v1/host.proto",
    "netloom/v1/image.proto",
    "netloom/v1/kind.proto",
    "netloom/v1/lab.proto",
    "netloom/v1/lab_service.proto",
    "netloom/v1/link.proto",
    "netloom/v1/node.proto",
    "netloom/v1/operation.proto",
    "netloom/v1/quota.proto",
    "netloom/v1/snapshot.proto",
    // Error details travel as Any: whoever reads the descriptor set must find them in it.
    "google/rpc/error_details.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_imports(true).include_source_info(true).open_files(PROTOS)?;
    // The typed set would drop options it does not know, google.api.http among them; the bytes keep everything.
    let bytes = compiler.encode_file_descriptor_set();
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptor.bin"), &bytes)?;
    let set = prost_types::FileDescriptorSet::decode(bytes.as_slice())?;
    let mut config = tonic_prost_build::configure()
        .extern_path(".google.rpc", "::tonic_types::pb")
        .extern_path(".google.api", "crate::google::api")
        // Bytes of images are handed on, not copied.
        .bytes(".netloom.v1.WriteUploadRequest.data");
    for file in set.file.iter().filter(|f| SHARED.contains(&f.name())) {
        let messages = file.message_type.iter().map(|m| m.name());
        for name in messages.chain(file.enum_type.iter().map(|e| e.name())) {
            config =
                config.extern_path(format!(".netloom.v1.{name}"), format!("::netloom_proto::v1::{name}"));
        }
    }
    let bodies = set.file.iter().filter(|f| BODIES.contains(&f.name())).cloned().collect();
    config.compile_fds(set)?;
    tonic_prost_build::configure().compile_fds(prost_types::FileDescriptorSet { file: bodies })?;
    Ok(())
}
