//! The temperature that a flow is told.
//!
//! A flow conditioned on temperature is one map for each temperature of a range: f(z; τ), with latents of variance τ. What
//! scaling the latent does exactly (§4.2 of the note: harmonic wells, tails) is left to the latent; what it cannot do, the
//! conditioners learn.

use super::error::FlowError;
use candle_core::{Device, Result, Tensor};

/// The latent temperatures τ = T/T₀ that a flow is conditioned on.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemperatureRange {
    pub low: f64,
    pub high: f64,
}

impl TemperatureRange {
    pub(super) fn check(&self) -> std::result::Result<(), FlowError> {
        let Self { low, high } = *self;
        if low.is_finite() && high.is_finite() && 0.0 < low && low < high {
            return Ok(());
        }
        Err(FlowError::Spec(format!("[{low}, {high}] is not a range of temperatures")))
    }

    /// What conditioners see of τ: −1 at the lower end, 1 at the upper, linear in ln τ between them. Beyond its ends the
    /// range goes on as it ends.
    pub fn feature(&self, tau: f64) -> f64 {
        2.0 * ((tau / self.low).ln() / (self.high / self.low).ln()).clamp(0.0, 1.0) - 1.0
    }

    /// The temperature at a share of the range, linear in its logarithm: its ends at 0 and 1.
    pub fn at(&self, share: f64) -> f64 {
        if share == 1.0 { self.high } else { self.low * (self.high / self.low).powf(share) }
    }

    /// The τ of the range that is nearest.
    pub fn nearest(&self, tau: f64) -> f64 {
        tau.clamp(self.low, self.high)
    }
}

/// The latent temperatures of the rows of a batch. Flows that are not conditioned on temperature do not look at them.
#[derive(Clone, Copy, Debug)]
pub enum Tau<'a> {
    /// The same for all.
    One(f64),
    /// One for each row.
    Each(&'a [f64]),
}

impl Tau<'_> {
    /// The temperature trained at.
    pub const REFERENCE: Self = Self::One(1.0);

    /// Of a row.
    pub fn of(&self, row: usize) -> f64 {
        match self {
            Self::One(tau) => *tau,
            Self::Each(taus) => taus[row],
        }
    }

    /// The features of n rows, (n, 1).
    pub(super) fn features(&self, range: &TemperatureRange, n: usize, device: &Device) -> Result<Tensor> {
        let features: Vec<f64> = (0..n).map(|row| range.feature(self.of(row))).collect();
        Tensor::from_vec(features, (n, 1), device)
    }
}
