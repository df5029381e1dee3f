//! Choosing the device that flows run on.

use super::Precision;
use candle_core::{Device, DeviceLocation};
use std::str::FromStr;

/// What a user asks for: `auto` (the first CUDA device if there is one, else the CPU), `cpu`, or `cuda:N`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    #[default]
    Auto,
    Cpu,
    Cuda(usize),
}

#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error("'{0}' is not a device; use auto, cpu or cuda:N")]
    Unknown(String),
    #[error("cuda:{ordinal} cannot be opened ({reason}); use --device cpu, or a binary built with --features cuda")]
    Unavailable { ordinal: usize, reason: String },
    #[error("'{0}' is not a precision of conditioners; use f32, bf16 or tf32")]
    UnknownPrecision(String),
    #[error("conditioners in {0} need a CUDA device; use f32 or bf16")]
    Precision(Precision),
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|n| n.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| DeviceError::Unknown(text.to_string())),
        }
    }
}

/// Opens the device. `Auto` never fails: without a usable CUDA device it is the CPU.
///
/// On CUDA all work of a handle is on one stream, in the order of its launches: the library's default, a stream for each
/// thread, would leave what one thread has loaded unordered with what another computes from it.
pub fn open_device(choice: DeviceChoice) -> Result<Device, DeviceError> {
    match choice {
        DeviceChoice::Cpu => Ok(Device::Cpu),
        DeviceChoice::Auto => Ok(Device::new_cuda_with_stream(0).unwrap_or(Device::Cpu)),
        DeviceChoice::Cuda(ordinal) => Device::new_cuda_with_stream(ordinal)
            .map_err(|e| DeviceError::Unavailable { ordinal, reason: e.to_string() }),
    }
}

/// A handle of the same device for one job: on CUDA it has a stream of its own. Its tensors are for it alone.
pub fn device_of_job(device: &Device) -> Result<Device, DeviceError> {
    match device.location() {
        DeviceLocation::Cuda { gpu_id } => open_device(DeviceChoice::Cuda(gpu_id)),
        _ => Ok(device.clone()),
    }
}
