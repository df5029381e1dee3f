//! The density of a generator at configurations that come from elsewhere.

use super::generator::Generator;
use super::importance::{SampleError, SampleKey};

impl Generator {
    /// log p_τ(x) (n) of positions x (n, D) as [`Generator::log_prob`] has it, and −∞ where the flow has no density in f64.
    pub fn log_density(&self, key: &SampleKey, positions: &[f64]) -> Result<Vec<f64>, SampleError> {
        let mut log_q = self.log_prob(key, positions)?;
        log_q.iter_mut().filter(|q| !q.is_finite()).for_each(|q| *q = f64::NEG_INFINITY);
        Ok(log_q)
    }

    /// Whether the samples of two keys are of the same density, whatever they are weighted to.
    pub fn is_same_density(&self, a: &SampleKey, b: &SampleKey) -> bool {
        let (of_a, of_b) = (self.latent_temperature(a), self.latent_temperature(b));
        of_a == of_b && (a.method == b.method || self.target.coordinates().auxiliary() == 0)
    }
}
