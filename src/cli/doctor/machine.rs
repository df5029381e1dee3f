//! What this machine is.

use super::super::bench::device_name;
use crate::compute::fused::Found;
use candle_core::Device;
use std::fmt;

/// A machine as far as it matters for speed.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    pub device: String,
    pub processor: String,
    /// Threads that compute.
    pub threads: usize,
    /// Vector instructions of the processor, of those that there are kernels or matrix products for.
    pub instructions: Vec<&'static str>,
    /// The set of them that kernels are run with.
    pub kernels: &'static str,
}

impl Machine {
    pub fn here(device: &Device) -> Self {
        Self {
            device: device_name(device),
            processor: processor(),
            threads: rayon::current_num_threads(),
            instructions: instructions(),
            kernels: Found::here().name(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instructions = if self.instructions.is_empty() { "none".into() } else { self.instructions.join(", ") };
        write!(
            f,
            "boltzflow {} on {}: {}, {} threads, vector instructions: {instructions}; kernels: {}",
            env!("CARGO_PKG_VERSION"),
            self.device,
            self.processor,
            self.threads,
            self.kernels
        )
    }
}

/// The processor's name, where the system tells it.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.to_string(), |(_, name)| name.trim().to_string())
}

#[cfg(target_arch = "x86_64")]
fn instructions() -> Vec<&'static str> {
    let found = [
        ("AVX2", std::arch::is_x86_feature_detected!("avx2")),
        ("FMA", std::arch::is_x86_feature_detected!("fma")),
        ("AVX-512F", std::arch::is_x86_feature_detected!("avx512f")),
        ("AVX512-BF16", std::arch::is_x86_feature_detected!("avx512bf16")),
    ];
    found.into_iter().filter_map(|(name, there)| there.then_some(name)).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn instructions() -> Vec<&'static str> {
    Vec::new()
}
