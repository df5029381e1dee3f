//! Reverse Kullback-Leibler divergence: minimise ⟨u(f⁻¹(z)) − ladj(z → x)⟩ over the prior (equations 23 and 24 of the
//! note). It needs no data, and equals −⟨log w⟩ up to constants.

use super::plan::EnergyCut;
use super::trainer::TrainError;
use crate::compute::known_gradient::with_gradient;
use crate::coords::ReducedTarget;
use crate::flow::{Direction, Flow, Tau};
use candle_core::Tensor;

/// The loss, and what went into it.
pub(super) struct ReverseKl {
    /// A scalar whose gradient is that of the regularised objective; its value means nothing.
    pub surrogate: Tensor,
    /// ⟨u − ladj⟩ over samples with finite energy, with energies as they are; a scalar.
    pub value: Tensor,
    /// How many samples were left out of the gradient because their energy or its gradient is not finite; a scalar.
    pub non_finite: Tensor,
}

/// The objective on latents z (n, d) of latent temperature `tau`, for energies at a temperature (n) for each row.
///
/// The energy is not a tensor operation: its gradient with respect to y is made beside it, and given to the graph.
pub(super) fn loss(
    flow: &Flow,
    target: &ReducedTarget,
    z: &Tensor,
    tau: Tau<'_>,
    temperatures: &[f64],
    cut: &EnergyCut,
) -> Result<ReverseKl, TrainError> {
    let packed = flow.apply_packed(z, tau, Direction::Forward)?;
    let scale = target.system().scale();
    #[cfg(feature = "cuda")]
    if let Some(target) = target.on_device(z.device())? {
        return Ok(super::reverse_kl_device::loss(&target, &packed, temperatures, scale, cut)?);
    }
    let (n, d) = z.dims2()?;
    let mut rows = Vec::with_capacity(n * d);
    let mut ladj_rows = Vec::with_capacity(n);
    for row in packed.flatten_all()?.to_vec1::<f64>()?.chunks_exact(d + 1) {
        rows.extend_from_slice(&row[..d]);
        ladj_rows.push(row[d]);
    }
    let batch = target.evaluate_with_gradient(&rows, |row| temperatures[row], |u| cut.slope(u))?;
    let (mut value, mut finite) = (0.0, 0usize);
    // The gradient of the objective with respect to y and ladj.
    let mut gradients = vec![0.0; n * (d + 1)];
    for (i, (gradient, out)) in batch.gradients.chunks_exact(d).zip(gradients.chunks_exact_mut(d + 1)).enumerate() {
        let u = batch.energies[i] / scale.kt(temperatures[i]) - batch.ladj[i] - ladj_rows[i];
        if u.is_finite() && gradient.iter().all(|g| g.is_finite()) {
            out[..d].copy_from_slice(gradient);
            out[d] = -1.0;
            value += u;
            finite += 1;
        }
    }
    let share = 1.0 / finite.max(1) as f64;
    gradients.iter_mut().for_each(|g| *g *= share);
    let gradients = Tensor::from_vec(gradients, (n, d + 1), z.device())?;
    let surrogate = with_gradient(&packed, value * share, gradients)?;
    let scalar = |number: f64| Tensor::new(number, z.device());
    Ok(ReverseKl { surrogate, value: scalar(value * share)?, non_finite: scalar((n - finite) as f64)? })
}
