//! Generates the internal contracts with a pure-Rust protobuf compiler: no protoc is needed to build netloom.

use std::path::PathBuf;

use prost::Message as _;

const PROTOS: [&str; 7] = [
    "netloom/v1/spec.proto",
    "netloom/v1/state.proto",
    "netloom/scheduler/v1/scheduler.proto",
    "netloom/scheduler/v1/membership.proto",
    "netloom/image_registry/v1/image_registry.proto",
    "netloom/network/v1/network.proto",
    "netloom/compute/v1/compute.proto",
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
    tonic_prost_build::configure()
        .extern_path(".google.rpc", "::tonic_types::pb")
        .codec_path("crate::codec::Lean")
        // Bytes of images are handed on, not copied.
        .bytes(".netloom.image_registry.v1.WriteUploadRequest.data")
        .bytes(".netloom.image_registry.v1.ReadBlobResponse.data")
        .compile_fds(set)?;
    Ok(())
}
