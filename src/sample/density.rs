//! The density of a generator at configurations that come from elsewhere.

use super::generator::Generator;
use super::importance::{SampleError, SampleKey};
use rayon::prelude::*;

/// Configurations that one thread takes at a time.
const ROWS_PER_TASK: usize = 16;

impl Generator {
    /// log p_τ(x) (n) of positions x (n, D) as [`Generator::log_prob`] has it, and −∞ outside of the coordinates' domain (another
    /// chirality, an angle of atoms on a line), where the model makes nothing, and where the flow has no density in f64.
    pub fn log_density(&self, key: &SampleKey, positions: &[f64]) -> Result<Vec<f64>, SampleError> {
        let mut log_q = self.log_prob(key, positions)?;
        let coordinates = self.target.coordinates();
        log_q
            .par_iter_mut()
            .zip(positions.par_chunks(coordinates.position_dimension()))
            .with_min_len(ROWS_PER_TASK)
            .for_each(|(log_q, x)| {
                if !log_q.is_finite() || !self.target.makes(x) {
                    *log_q = f64::NEG_INFINITY;
                }
            });
        Ok(log_q)
    }

    /// Whether the samples of two keys are of the same density, whatever they are weighted to.
    pub fn is_same_density(&self, a: &SampleKey, b: &SampleKey) -> bool {
        let (of_a, of_b) = (self.latent_temperature(a), self.latent_temperature(b));
        of_a == of_b && (a.method == b.method || self.target.coordinates().auxiliary() == 0)
    }
}
