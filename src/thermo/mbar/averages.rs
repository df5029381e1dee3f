//! Averages of observables over the states, from the samples of all of them.

use super::sums::Samples;
use super::{MbarError, MbarSettings, MbarSolution, covariance, rows};

/// Values of observables, at most.
const LARGEST: f64 = 1e150;

/// ⟨A⟩ in a state, with its asymptotic standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MbarAverage {
    pub value: f64,
    pub standard_error: f64,
}

impl MbarSolution {
    /// ⟨A⟩_k = Σ_n W_kn A_n in each of the K states (equation 13), of an observable's values A_n (N) at the samples that this is
    /// the solution of. With a column V_kn = W_kn A_n beside the weights, the variance is
    /// Θ_VV − 2⟨A⟩Θ_VW + ⟨A⟩²Θ_WW (equations 15 and 16, without the division by ⟨A⟩, which may be zero).
    pub fn averages(
        &self,
        u_kn: &[f64],
        n_k: &[u64],
        observable: &[f64],
        settings: &MbarSettings<'_>,
    ) -> Result<Vec<MbarAverage>, MbarError> {
        let all = rows(u_kn, n_k)?;
        let samples = self.log_densities.len();
        if observable.len() != samples || all.len() != self.f_k.len() || all.iter().any(|row| row.len() != samples) {
            return Err(MbarError::Observable { values: observable.len(), samples });
        }
        // Their squares must be numbers too.
        if let Some(sample) = observable.iter().position(|a| a.is_nan() || a.abs() > LARGEST) {
            return Err(MbarError::Value { sample, value: observable[sample] });
        }
        // About their mean: the variance of values that are large and alike keeps its digits.
        let mean = observable.iter().map(|a| a / samples as f64).sum::<f64>();
        let centred: Vec<f64> = observable.iter().map(|a| a - mean).collect();
        let sums =
            Samples { rows: &all, counts: None }.weights(&self.f_k, &self.log_densities, Some(&centred), settings)?;
        let counts: Vec<f64> = n_k.iter().map(|n| *n as f64).collect();
        let theta = covariance(&sums.second, &counts).ok_or(MbarError::NotConverged(self.iterations))?;
        let (k, columns) = (all.len(), 2 * all.len());
        let average = |state: usize| {
            let value = sums.first[k + state];
            let of = |i: usize, j: usize| theta[i * columns + j];
            let variance =
                of(k + state, k + state) - 2.0 * value * of(k + state, state) + value * value * of(state, state);
            MbarAverage { value: value + mean, standard_error: variance.max(0.0).sqrt() }
        };
        Ok((0..k).map(average).collect())
    }
}
