//! Maximum likelihood: minimise −⟨log p(x)⟩ over data, the forward Kullback-Leibler divergence up to a constant (§1.1 of
//! the note; Noé et al. 2019, J_ML).

use super::trainer::TrainError;
use crate::flow::{Direction, Flow, Tau};
use candle_core::Tensor;

/// −⟨log p_τ(y)⟩ (a scalar, differentiable) of data in flow coordinates y (n, d), each row at its own temperature.
pub(super) fn loss(flow: &Flow, y: &Tensor, tau: Tau<'_>) -> Result<Tensor, TrainError> {
    let (z, ladj) = flow.apply(y, tau, Direction::Inverse)?;
    let log_prob = (flow.prior().training_log_prob(&z, tau)? + ladj)?;
    Ok(log_prob.mean(0)?.neg()?)
}
