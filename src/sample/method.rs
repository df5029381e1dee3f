//! How a temperature is reached, and choosing the better way by trying both.

use super::generator::Generator;
use super::importance::{SampleKey, WeightedBatch};
use crate::math::Purpose;
use crate::thermo::{WeightAccumulator, WeightSummary};

/// Samples of each method in the pilot.
pub const PILOT_SAMPLES: usize = 8192;

/// The pilot's seed. It is fixed, so that the choice is a property of the model and the temperature.
pub(super) const PILOT_SEED: u64 = 0x70_69_6c_6f_74;

/// The seed of pilots that try what others were fitted to.
pub const TRIAL_SEED: u64 = 0x74_72_69_61_6c;

/// How a temperature is reached. At the one trained at all are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Samples of the nearest temperature that was trained at, weighted to the one asked for.
    Reweighting,
    /// Gaussian latents of variance τ = T/T₀, with their exact log p_τ (§4 of the note), of a flow of one temperature.
    LatentScaling,
    /// A flow conditioned on temperature is told the one asked for, or the nearest that it knows, with latents of variance τ.
    Conditioned,
}

/// The outcome of a pilot.
#[derive(Clone, Debug)]
pub struct MethodChoice {
    pub method: Method,
    /// The weights of each method that could be used.
    pub pilots: Vec<(Method, WeightSummary)>,
    /// Where scaled latents were tried: [`Generator::predicted_fraction`].
    pub predicted: Option<f64>,
}

impl MethodChoice {
    /// The weights of the method that was chosen.
    pub fn weights(&self) -> Option<&WeightSummary> {
        self.pilots.iter().find(|(method, _)| *method == self.method).map(|(_, summary)| summary)
    }

    /// Its effective samples, as a fraction of its pilot.
    pub fn effective_fraction(&self) -> f64 {
        self.weights().map_or(0.0, WeightSummary::effective_fraction)
    }
}

impl Generator {
    /// The methods that the model has for a temperature, the plainest first; never none.
    pub fn methods(&self, temperature: f64) -> &'static [Method] {
        match self.card.temperature_range {
            _ if temperature == self.temperature() => &[Method::Reweighting],
            None => &[Method::Reweighting, Method::LatentScaling],
            Some(range) if (range.low..=range.high).contains(&temperature) => &[Method::Conditioned],
            Some(_) => &[Method::Reweighting, Method::Conditioned],
        }
    }

    /// Picks the best of the methods, or tries the only one, by a pilot of each; `draw` gives the samples of a key from index 0 on, so many.
    pub fn choose_method<E>(
        &self,
        temperature: f64,
        only: Option<Method>,
        mut draw: impl FnMut(&SampleKey, usize) -> Result<WeightedBatch, E>,
    ) -> Result<MethodChoice, E> {
        let mut pilots = Vec::new();
        let mut predicted = None;
        for &method in only.as_ref().map_or(self.methods(temperature), std::slice::from_ref) {
            let key = SampleKey { temperature, method, seed: PILOT_SEED, purpose: Purpose::Pilot };
            let mut weights = WeightAccumulator::default();
            let batch = draw(&key, PILOT_SAMPLES)?;
            if method == Method::LatentScaling {
                predicted = Some(self.predicted_fraction(&key, &batch));
            }
            batch.log_weights.into_iter().for_each(|w| weights.add(w));
            pilots.push((method, weights.summary()));
        }
        // Of equals the plainest.
        let best = pilots.iter().rev().max_by(|(_, a), (_, b)| score(a).total_cmp(&score(b)));
        Ok(MethodChoice { method: best.map_or(Method::Reweighting, |(method, _)| *method), pilots, predicted })
    }

    /// The effective fraction that scaled latents would have if the flow were perfect at the temperature trained at, from
    /// the spread of ladj over samples at τ alone: their log weights are then −(1 − 1/τ)·ladj(x → z) up to a constant
    /// (§4.2 of the note). One for a flow of constant Jacobian. It takes no energies.
    pub fn predicted_fraction(&self, key: &SampleKey, batch: &WeightedBatch) -> f64 {
        let tau = self.latent_temperature(key);
        let d = self.target.dimension();
        let drawn = batch.latents.chunks_exact(d).zip(batch.coordinates.chunks_exact(d));
        let mut weights = WeightAccumulator::default();
        for ((z, y), log_prob) in drawn.zip(&batch.log_probs) {
            let ladj = log_prob + self.target.log_auxiliary(y, tau) - self.flow.prior().log_prob(z, tau);
            weights.add(if ladj.is_finite() { -(1.0 - 1.0 / tau) * ladj } else { f64::NEG_INFINITY });
        }
        weights.summary().effective_fraction()
    }

    /// The latent temperature that a method samples at: the variance of Gaussian latents, and what a flow conditioned on
    /// temperature is told.
    pub(super) fn latent_temperature(&self, key: &SampleKey) -> f64 {
        let tau = key.temperature / self.temperature();
        match (key.method, self.card.temperature_range) {
            (Method::Reweighting, None) => 1.0,
            (Method::Reweighting, Some(range)) => range.nearest(key.temperature) / self.temperature(),
            (Method::LatentScaling | Method::Conditioned, _) => tau,
        }
    }
}

/// Effective samples, discounted where the tail of the weights says that they cannot be believed: a pilot of heavy-tailed
/// weights has not met the largest ones yet. The discount is smooth in k̂, which a pilot knows to about 0.1.
fn score(summary: &WeightSummary) -> f64 {
    if summary.pareto_k.is_nan() && !summary.tail_is_light() {
        return 0.0;
    }
    let excess = (summary.pareto_k - summary.pareto_k_threshold).max(0.0);
    summary.effective_samples * 10f64.powf(-2.0 * excess)
}
