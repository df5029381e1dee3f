//! What conditioners are computed in.

use super::DeviceError;
use candle_core::Device;
use std::fmt;
use std::str::FromStr;

/// The arithmetic of conditioners where a flow is run without gradients.
///
/// A coupling layer's Jacobian is triangular whatever its conditioner computes, so that log weights are exact in each of
/// them: a rounded conditioner is another flow, not an error. What changes is the samples, all of them a little, and with
/// them the effective sample size. Coordinates, transforms, log-determinants, energies and
/// weights are f64 in any case, and training is in the precision of the weights (but for tf32, which is switched on for a
/// process).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// That of the model's weights: f32.
    #[default]
    Full,
    /// Weights and hidden layers rounded to bf16, sums in f32.
    Bf16,
    /// Products of f32 with ten bits of mantissa, as tensor cores have it; on CUDA only.
    Tf32,
}

impl Precision {
    /// That the device has it; switches it on where the whole process has to agree.
    pub fn prepare(self, device: &Device) -> Result<(), DeviceError> {
        if self == Self::Tf32 && !device.is_cuda() {
            return Err(DeviceError::Precision(self));
        }
        #[cfg(feature = "cuda")]
        if device.is_cuda() {
            candle_core::cuda::set_gemm_reduced_precision_f32(self == Self::Tf32);
        }
        Ok(())
    }
}

impl FromStr for Precision {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        match text {
            "f32" => Ok(Self::Full),
            "bf16" => Ok(Self::Bf16),
            "tf32" => Ok(Self::Tf32),
            _ => Err(DeviceError::UnknownPrecision(text.to_string())),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "f32",
            Self::Bf16 => "bf16",
            Self::Tf32 => "tf32",
        })
    }
}
