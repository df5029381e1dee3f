//! Samples that stay on a CUDA device until they are whole: latent, flow, positions and energy.

use super::generator::Generator;
use super::importance::SampleKey;
use crate::coords::TargetBatch;
use crate::coords::cuda::DeviceTarget;
use crate::flow::cuda::DevicePrior;
use crate::flow::{Direction, FlowDraws, FlowError};
use candle_core::Tensor;

impl Generator {
    /// n draws from `first_index` on, and the target at them; nothing where flow or target are not on a CUDA device.
    pub(super) fn draw_on_device(
        &self,
        key: &SampleKey,
        first_index: u64,
        n: usize,
        tau: f64,
    ) -> Result<Option<(FlowDraws, TargetBatch)>, FlowError> {
        let device = self.flow.device();
        let (Some(target), Some(prior)) =
            (self.target.on_device(device)?, DevicePrior::new(self.flow.prior(), device)?)
        else {
            return Ok(None);
        };
        let (z, log_q) = prior.sample(n, key.seed, key.purpose, first_index, tau)?;
        let (y, flow_ladj) = self.flow.apply(&z, Direction::Forward)?;
        let log_probs = (log_q - flow_ladj)?;
        Ok(Some(download(&target, &z, &y, &log_probs)?))
    }
}

fn download(
    target: &DeviceTarget,
    z: &Tensor,
    y: &Tensor,
    log_probs: &Tensor,
) -> candle_core::Result<(FlowDraws, TargetBatch)> {
    let numbers = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f64>();
    let batch = target.evaluate(y)?;
    let draws = FlowDraws { latents: numbers(z)?, coordinates: numbers(y)?, log_probs: numbers(log_probs)? };
    let batch = TargetBatch {
        positions: numbers(&batch.positions)?,
        energies: numbers(&batch.energies)?,
        ladj: numbers(&batch.ladj)?,
        gradients: Vec::new(),
    };
    Ok((draws, batch))
}
