//! Where tensors live, and the kernels that flows are made of.
//!
//! On the CPU a whole flow is one operation (`flow_op`), whose kernels are in `fused`, one idea a file: they carry a tile
//! of rows through all layers before they turn to the next. On other devices a flow is a sequence of the operations of
//! `features`, `bias_activation`, `affine` and `spline`, which are kernels of their own on CUDA devices (`cuda`, with the
//! feature of that name); `attention` is one of its own on the CPU. All are held against the same functions in plain candle operations (`plain`).

pub mod adam;
pub mod affine;
pub mod attention;
pub mod bias_activation;
#[cfg(feature = "cuda")]
mod cuda;
mod device;
pub mod features;
pub mod flow_op;
pub mod fused;
pub mod known_gradient;
pub mod logistic_mixture;
pub(crate) mod plain;
mod precision;
pub mod spline;
pub mod volume_preserving;

pub use device::{DeviceChoice, DeviceError, device_of_job, open_device};
pub use precision::Precision;

/// Which way a bijector is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the latent to the configuration: sampling.
    Forward,
    /// From the configuration to the latent: density evaluation.
    Inverse,
}
