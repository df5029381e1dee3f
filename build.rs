//! Compiles the protos with protox, so that no `protoc` is needed, and keeps their descriptors for reflection. With the
//! feature `cuda`, compiles the kernels to PTX as well.

use prost::Message;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROTOS: [&str; 7] = ["common", "system", "dataset", "job", "model", "sampling", "free_energy"];

/// The CUDA sources, and how each is compiled besides. Products are fused with sums, but for latents, which are to have the
/// bits that a CPU draws.
const KERNELS: [(&str, &str); 4] = [
    ("src/compute/cuda/kernels.cu", "--fmad=true"),
    ("src/energy/cuda/potential.cu", "--fmad=true"),
    ("src/coords/cuda/coordinates.cu", "--fmad=true"),
    ("src/flow/cuda/latents.cu", "--fmad=false"),
];

/// The oldest architecture that the kernels are made for by default: PTX runs on it and on all that came after.
const COMPUTE_CAPABILITY: &str = "80";

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
        compile_kernels(&out)?;
    }
    Ok(())
}

/// Compiles the CUDA sources to PTX, which the driver compiles for its device when it is loaded. Where nothing is said of
/// a source, all is as IEEE 754 has it (there is no `--use_fast_math`).
fn compile_kernels(out: &Path) -> Result<(), Box<dyn std::error::Error>> {
    for variable in ["NVCC", "CUDA_HOME", "CUDA_COMPUTE_CAP", "NVCC_CCBIN"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let nvcc = match (set("NVCC"), set("CUDA_HOME")) {
        (Some(nvcc), _) => PathBuf::from(nvcc),
        (None, Some(home)) => Path::new(&home).join("bin/nvcc"),
        (None, None) => PathBuf::from("nvcc"),
    };
    let capability = set("CUDA_COMPUTE_CAP").unwrap_or_else(|| COMPUTE_CAPABILITY.to_string());
    for (source, fusing) in KERNELS {
        let source = Path::new(source);
        let (Some(folder), Some(name)) = (source.parent(), source.file_stem()) else { continue };
        println!("cargo:rerun-if-changed={}", folder.display());
        let status = Command::new(&nvcc)
            .args(["--ptx", "-O3", "-std=c++17", fusing])
            .arg(format!("-arch=compute_{capability}"))
            .arg("-o")
            .arg(out.join(name).with_extension("ptx"))
            .arg(source)
            .status()
            .map_err(|e| {
                let nvcc = nvcc.display();
                format!("{nvcc} cannot be run ({e}); install the CUDA toolkit and set NVCC, CUDA_HOME or PATH to where its nvcc is, or build without --features cuda")
            })?;
        if !status.success() {
            return Err(format!("{} could not compile {} ({status})", nvcc.display(), source.display()).into());
        }
    }
    Ok(())
}
