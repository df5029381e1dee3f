//! The reverse Kullback-Leibler objective where flow and target are on a CUDA device; see `reverse_kl`.

use super::plan::EnergyCut;
use super::reverse_kl::ReverseKl;
use crate::coords::cuda::{DeviceTarget, Regularisation};
use crate::energy::EnergyScale;
use candle_core::{DType, Result, Tensor};

/// The loss of a flow's output `packed` (n, d + 1), whose last column is ladj. Nothing leaves the device.
pub(super) fn loss(
    target: &DeviceTarget,
    packed: &Tensor,
    temperatures: &[f64],
    energies: EnergyScale,
    cut: &EnergyCut,
) -> Result<ReverseKl> {
    let (n, width) = packed.dims2()?;
    let d = width - 1;
    let rows = packed.detach();
    let phi = Regularisation { high: cut.high, largest: cut.max };
    let batch = target.evaluate_with_gradient(&rows.narrow(1, 0, d)?, temperatures, phi)?;
    let Some(gradients) = batch.gradients else { candle_core::bail!("the target gave no gradient") };
    let flow_ladj = rows.narrow(1, d, 1)?.squeeze(1)?;
    let betas: Vec<f64> = temperatures.iter().map(|&t| 1.0 / energies.kt(t)).collect();
    let betas = Tensor::from_vec(betas, n, packed.device())?;
    let u = (((batch.energies * betas)? - batch.ladj)? - flow_ladj)?;
    // Zero times a number that is not finite is not zero.
    let check = ((&gradients * 0.0)?.sum(1)? + (&u * 0.0)?)?;
    let kept = check.eq(0.0)?;
    let finite = kept.to_dtype(DType::F64)?.sum_all()?;
    let scale = finite.maximum(1.0)?.recip()?;
    let value = (kept.where_cond(&u, &u.zeros_like()?)?.sum_all()? * &scale)?;
    // The gradient of the objective with respect to y and ladj.
    let of_ladj = Tensor::full(-1.0, (n, 1), packed.device())?;
    let gradients = Tensor::cat(&[&gradients, &of_ladj], 1)?;
    let kept = kept.unsqueeze(1)?.broadcast_as((n, width))?.contiguous()?;
    let gradients = kept.where_cond(&gradients, &gradients.zeros_like()?)?;
    let surrogate = (packed.mul(&gradients)?.sum_all()? * scale)?;
    Ok(ReverseKl { surrogate, value, non_finite: finite.affine(-1.0, n as f64)? })
}
