//! Compiles the protos with protox, so that no `protoc` is needed, and keeps their descriptors for reflection.

use prost::Message;
use std::path::PathBuf;

const PROTOS: [&str; 7] = ["common", "system", "dataset", "job", "model", "sampling", "free_energy"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=proto");
    let files = PROTOS.map(|name| format!("proto/boltzflow/v1/{name}.proto"));
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(files)?;
    let descriptors = compiler.file_descriptor_set();
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".boltzflow.v1.Array")
        // One order of encoding, so that a repeated request is known by the hash of its bytes.
        .btree_map(".boltzflow.v1")
        .codec_path("crate::contract::codec::StrictCodec")
        .compile_fds(descriptors)?;
    Ok(())
}
