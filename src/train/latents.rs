//! The temperatures and latents of a step, and draws of the flow as it is: functions of the seed and the step's number.

use super::trainer::{TrainError, Trainer};
use crate::flow::{FlowDraws, LatentAddress};
use crate::math::{Purpose, Randoms};
use candle_core::Tensor;

impl Trainer {
    /// The temperature of each row of a batch: the plan's, or of its range one for each of as many parts that are equally
    /// wide in ln T; times a factor.
    pub(super) fn temperatures(&self, batch: usize, factor: f64) -> Vec<f64> {
        let Some(range) = self.plan.temperature_range else {
            return vec![self.plan.temperature * factor; batch];
        };
        let mut random = Randoms::new(self.plan.seed, Purpose::TrainingTemperature, self.counters.step);
        (0..batch).map(|row| factor * range.at((row as f64 + random.uniform()) / batch as f64)).collect()
    }

    /// τ = T/T₀ of rows, for a flow that is conditioned on temperature; else the latents are those of T₀.
    pub(super) fn latent_temperatures(&self, temperatures: &[f64]) -> Vec<f64> {
        let conditioned = self.plan.temperature_range.is_some();
        temperatures.iter().map(|t| if conditioned { t / self.plan.temperature } else { 1.0 }).collect()
    }

    pub(super) fn latents(&self, taus: &[f64]) -> Result<Tensor, TrainError> {
        let (batch, d) = (taus.len(), self.target.dimension());
        let first = self.counters.step * (1 << 16);
        #[cfg(feature = "cuda")]
        if let Some(prior) = self.flow.device_prior()? {
            let z = prior.sample(batch, self.plan.seed, Purpose::TrainingLatent, first, 1.0)?.0;
            return Ok(if self.flow.temperatures().is_some() { prior.scaled(&z, taus)? } else { z });
        }
        let address = |(row, &tau)| LatentAddress {
            seed: self.plan.seed,
            purpose: Purpose::TrainingLatent,
            index: first + row,
            tau,
        };
        let addresses: Vec<_> = (0..).zip(taus).map(address).collect();
        Ok(Tensor::from_vec(self.flow.prior().sample(&addresses), (batch, d), self.flow.device())?)
    }

    /// Draws of the flow as it is, without a way back to its weights.
    pub(super) fn draw(&self, addresses: &[LatentAddress]) -> Result<FlowDraws, TrainError> {
        Ok(match self.has_kernels() {
            true => self.flow.draw(addresses)?,
            false => self.unaveraged()?.draw(addresses)?,
        })
    }

    /// The same of latents (n, d) at latent temperatures (n).
    pub(super) fn carry(&self, latents: Vec<f64>, taus: &[f64]) -> Result<FlowDraws, TrainError> {
        Ok(match self.has_kernels() {
            true => self.flow.carry(latents, taus)?,
            false => self.unaveraged()?.carry(latents, taus)?,
        })
    }

    /// Whether the flow in training can be drawn from as it is: operations on weights that can be trained keep all that they
    /// come by.
    fn has_kernels(&self) -> bool {
        (self.flow.is_fused() || !self.flow.device().is_cpu()) && self.flow.as_continuous().is_none()
    }
}
