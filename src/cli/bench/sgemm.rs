//! A product of two square matrices in f32: the ceiling of everything that flows do.

use super::super::client::CliError;
use super::workload::{Cost, Setting};
use crate::math::{Purpose, Randoms};
use candle_core::{DType, Device, Result, Tensor};

const N: usize = 2048;

/// An item is 10⁹ operations; three matrices are read or written for each product.
pub(super) const COST: Cost = Cost { flop: 1e9, byte: 12.0 * (N * N) as f64 / GFLOP };

const GFLOP: f64 = 2.0 * (N * N * N) as f64 * 1e-9;

pub(super) fn run(setting: &Setting) -> std::result::Result<(f64, f64), CliError> {
    let failed = |e: candle_core::Error| CliError::failed(e.to_string());
    let (a, b) = (random(0, &setting.device).map_err(failed)?, random(1, &setting.device).map_err(failed)?);
    let seconds = setting.pace.time(|| {
        a.matmul(&b).map_err(failed)?;
        setting.device.synchronize().map_err(failed)
    })?;
    Ok((GFLOP, seconds))
}

fn random(stream: u64, device: &Device) -> Result<Tensor> {
    let mut random = Randoms::new(0, Purpose::Validation, stream);
    let values: Vec<f64> = (0..N * N).map(|_| random.normal()).collect();
    Tensor::from_vec(values, (N, N), device)?.to_dtype(DType::F32)
}
