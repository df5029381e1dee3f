//! How a temperature is reached, and choosing the better way by trying both.

use super::generator::Generator;
use super::importance::{SampleError, SampleKey, TILE};
use crate::math::Purpose;
use crate::thermo::{WeightAccumulator, WeightSummary};

/// Samples of each method in the pilot.
pub const PILOT_SAMPLES: u64 = 16 * TILE as u64;

/// The pilot's seed. It is fixed, so that the choice is a property of the model and the temperature.
const PILOT_SEED: u64 = 0x70_69_6c_6f_74;

/// How a temperature other than the trained one is reached. At the trained one both are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Samples of the trained temperature, weighted to the one asked for.
    Reweighting,
    /// Gaussian latents of variance τ = T/T₀, with their exact log p_τ (§4 of the note).
    LatentScaling,
}

/// The outcome of a pilot.
#[derive(Clone, Debug)]
pub struct MethodChoice {
    pub method: Method,
    pub reweighting: WeightSummary,
    pub latent_scaling: WeightSummary,
}

impl Generator {
    /// Draws a pilot batch by each method and picks the better one. What `turn` gives is held while a tile is computed.
    pub fn choose_method<G>(&self, temperature: f64, mut turn: impl FnMut() -> G) -> Result<MethodChoice, SampleError> {
        let mut pilot = |method| -> Result<WeightSummary, SampleError> {
            let key = SampleKey { temperature, method, seed: PILOT_SEED, purpose: Purpose::Pilot };
            let mut weights = WeightAccumulator::default();
            for tile in 0..PILOT_SAMPLES / TILE as u64 {
                let _turn = turn();
                self.tile(&key, tile)?.log_weights.into_iter().for_each(|w| weights.add(w));
            }
            Ok(weights.summary())
        };
        let reweighting = pilot(Method::Reweighting)?;
        let latent_scaling = pilot(Method::LatentScaling)?;
        let scaling_wins = score(&latent_scaling) > score(&reweighting);
        let method = if scaling_wins { Method::LatentScaling } else { Method::Reweighting };
        Ok(MethodChoice { method, reweighting, latent_scaling })
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
