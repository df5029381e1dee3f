//! Maximum likelihood: minimise −⟨log p(x)⟩ over data, the forward Kullback-Leibler divergence up to a constant (§1.1 of
//! the note; Noé et al. 2019, J_ML).

use super::trainer::TrainError;
use crate::flow::{Direction, Flow};
use candle_core::Tensor;

/// −⟨log p(y)⟩ (a scalar, differentiable) of data in flow coordinates y (n, d).
pub(super) fn loss(flow: &Flow, y: &Tensor) -> Result<Tensor, TrainError> {
    let (z, ladj) = flow.apply(y, Direction::Inverse)?;
    let log_prob = (flow.prior().training_log_prob(&z)? + ladj)?;
    Ok(log_prob.mean(0)?.neg()?)
}
