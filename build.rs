//! Compiles the protos with protox, so that no `protoc` is needed, and keeps their descriptors for reflection.

use prost::Message;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROTOS: [&str; 7] = ["common", "system", "dataset", "job", "model", "sampling", "free_energy"];

/// CUDA sources, and what nvcc is told about each besides: latents must have the bits that a CPU draws.
const KERNELS: [(&str, &[&str]); 3] = [
    ("src/energy/cuda/potential.cu", &[]),
    ("src/coords/cuda/coordinates.cu", &[]),
    ("src/flow/cuda/latents.cu", &["-fmad=false"]),
];

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
    if std::env::var_os("CARGO_FEATURE_CUDA").is_some() {
        KERNELS.iter().try_for_each(|(source, flags)| compile_kernels(source, flags, &out))?;
    }
    Ok(())
}

/// Compiles a CUDA source to PTX, which the driver of any GPU of the capability or a later one takes.
fn compile_kernels(source: &str, flags: &[&str], out: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let source = Path::new(source);
    if let Some(folder) = source.parent() {
        println!("cargo:rerun-if-changed={}", folder.display());
    }
    ["CUDA_COMPUTE_CAP", "CUDA_HOME", "NVCC_CCBIN"].iter().for_each(|name| println!("cargo:rerun-if-env-changed={name}"));
    let capability = std::env::var("CUDA_COMPUTE_CAP").unwrap_or_else(|_| "80".into());
    let nvcc = std::env::var_os("CUDA_HOME").map_or_else(|| "nvcc".into(), |home| PathBuf::from(home).join("bin/nvcc"));
    let ptx = out.join(source.with_extension("ptx").file_name().ok_or("a kernel's source has no name")?);
    let mut command = Command::new(&nvcc);
    command.arg(format!("-arch=compute_{capability}")).args(["-ptx", "-O3"]).args(flags).arg("-o").arg(ptx).arg(source);
    let status = command.status().map_err(|e| format!("{} cannot be run ({e}); install the CUDA toolkit", nvcc.display()))?;
    if !status.success() {
        return Err(format!("nvcc could not compile {}", source.display()).into());
    }
    Ok(())
}
