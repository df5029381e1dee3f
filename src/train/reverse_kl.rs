//! Reverse Kullback-Leibler divergence: minimise ⟨u(f⁻¹(z)) − ladj(z → x)⟩ over the prior (equations 23 and 24 of the
//! note). It needs no data, and equals −⟨log w⟩ up to constants.

use super::plan::EnergyCut;
use super::trainer::TrainError;
use crate::coords::ReducedTarget;
use crate::flow::{Direction, Flow};
use candle_core::Tensor;

/// The loss, and what went into it.
pub(super) struct ReverseKl {
    /// A scalar whose gradient is that of the regularised objective.
    pub surrogate: Tensor,
    /// ⟨u − ladj⟩ over samples with finite energy, with energies as they are.
    pub value: f64,
    /// Samples left out of the gradient because their energy or its gradient is not finite.
    pub non_finite: usize,
}

/// The objective on latents z (n, d), for energies at `temperature`.
///
/// The energy is not a tensor operation. Σ y·g, with g = ∂u/∂y held constant, has the same gradient with respect to the
/// weights as Σ u(y).
pub(super) fn loss(
    flow: &Flow,
    target: &ReducedTarget,
    z: &Tensor,
    temperature: f64,
    cut: &EnergyCut,
) -> Result<ReverseKl, TrainError> {
    let (y, ladj) = flow.apply(z, Direction::Forward)?;
    let (n, d) = y.dims2()?;
    let rows = y.flatten_all()?.to_vec1::<f64>()?;
    let ladj_rows = ladj.to_vec1::<f64>()?;
    let mut batch = target.evaluate_with_gradient(&rows, temperature, |u| cut.slope(u))?;
    let kt = target.system().scale().kt(temperature);
    let (mut value, mut counted) = (0.0, vec![0.0; n]);
    for (i, gradient) in batch.gradients.chunks_exact_mut(d).enumerate() {
        let u = batch.energies[i] / kt - batch.ladj[i] - ladj_rows[i];
        if u.is_finite() && gradient.iter().all(|g| g.is_finite()) {
            counted[i] = 1.0;
            value += u;
        } else {
            gradient.fill(0.0);
        }
    }
    let finite = counted.iter().sum::<f64>();
    let scale = 1.0 / finite.max(1.0);
    let gradients = Tensor::from_vec(batch.gradients, (n, d), z.device())?;
    let counted = Tensor::from_vec(counted, n, z.device())?;
    let surrogate = ((y.mul(&gradients)?.sum_all()? - ladj.mul(&counted)?.sum_all()?)? * scale)?;
    Ok(ReverseKl { surrogate, value: value * scale, non_finite: n - finite as usize })
}
