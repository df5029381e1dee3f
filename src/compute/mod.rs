//! Where tensors live, and the fused kernels that flows are made of.
//!
//! Each kernel is a candle custom operation with a hand-written backward pass on the CPU. On other devices the same
//! function is written in plain candle operations (`plain.rs`), which the tests also hold the kernels against.

pub mod affine;
pub mod bias_activation;
mod device;
pub mod features;
mod plain;
mod rows;
pub mod spline;
mod spline_element;

pub use device::{DeviceChoice, DeviceError, open_device};

/// Which way a bijector is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the latent to the configuration: sampling.
    Forward,
    /// From the configuration to the latent: density evaluation.
    Inverse,
}
