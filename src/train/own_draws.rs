//! Samples of the flow as it is, drawn for one step, in groups of one temperature each; what objectives on them share.

use super::plan::EnergyCut;
use super::trainer::{TrainError, Trainer};
use crate::coords::ReducedTarget;
use crate::flow::{Direction, Flow, LatentAddress, Tau};
use crate::math::Purpose;
use candle_core::Tensor;

/// What an objective is at a batch.
pub(super) struct Loss {
    /// A scalar whose gradient is that of the objective; its value means nothing.
    pub surrogate: Tensor,
    /// The objective; a scalar.
    pub value: f64,
    /// How many samples were left out because their energy, density or gradient is not finite.
    pub non_finite: usize,
}

/// Temperatures of a group: the energy's, in the unit of the system's scale, and the latent τ that the flow is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    pub temperature: f64,
    pub tau: f64,
}

/// Rows of the flow's own samples without those that are not finite.
pub(super) struct OwnDraws {
    /// Flow coordinates y (n, d).
    pub coordinates: Vec<f64>,
    /// U and ladj (y → x) (n).
    pub energies: Vec<f64>,
    pub ladj: Vec<f64>,
    /// The group of each row (n).
    pub groups: Vec<usize>,
    pub non_finite: usize,
}

impl Trainer {
    /// Draws `batch` samples, in turn at the temperature of each group, whose latents are for a purpose; without a gradient
    /// through the drawing.
    pub(super) fn own_draws(&self, purpose: Purpose, groups: &[At], batch: usize) -> Result<OwnDraws, TrainError> {
        let (d, address) = (self.target.dimension(), self.own_address(purpose));
        let of_row = |row: usize| row % groups.len().max(1);
        let addresses: Vec<_> = (0..batch)
            .map(|row| LatentAddress { index: address.index + row as u64, tau: groups[of_row(row)].tau, ..address })
            .collect();
        let draws = self.draw(&addresses)?;
        let found = self.target.evaluate(&draws.coordinates)?;
        let mut kept = OwnDraws {
            coordinates: Vec::new(),
            energies: Vec::new(),
            ladj: Vec::new(),
            groups: Vec::new(),
            non_finite: 0,
        };
        for (row, y) in draws.coordinates.chunks_exact(d).enumerate() {
            let numbers = [found.energies[row], found.ladj[row], draws.log_probs[row]];
            if numbers.iter().chain(y).all(|number| number.is_finite()) {
                kept.coordinates.extend_from_slice(y);
                kept.energies.push(found.energies[row]);
                kept.ladj.push(found.ladj[row]);
                kept.groups.push(of_row(row));
            } else {
                kept.non_finite += 1;
            }
        }
        Ok(kept)
    }
}

impl OwnDraws {
    /// log p_τ(y) (n) of the rows, each at the latent temperature that `tau` says of its group; differentiable.
    pub fn log_probs(&self, flow: &Flow, tau: impl Fn(usize) -> f64) -> Result<Tensor, TrainError> {
        let taus: Vec<f64> = self.groups.iter().map(|&group| tau(group)).collect();
        let d = flow.spec().dimension();
        let y = Tensor::from_slice(&self.coordinates, (taus.len(), d), flow.device())?;
        let (z, ladj) = flow.apply(&y, Tau::Each(&taus), Direction::Inverse)?;
        Ok((flow.prior().training_log_prob(&z, Tau::Each(&taus))? + ladj)?)
    }

    /// ½ of the variance of `values` (n) within groups, each row's share of it multiplied by `scale` of its group, and its
    /// derivative with respect to each value.
    ///
    /// The variance is unbiased: squares are divided by the rows less the groups that have any. A row whose value is not
    /// finite is left out, and counted last.
    pub fn half_variance(&self, values: &[f64], scale: impl Fn(usize) -> f64) -> (f64, Vec<f64>, usize) {
        let count = self.groups.iter().copied().max().map_or(0, |last| last + 1);
        let (mut sums, mut rows) = (vec![0.0; count], vec![0usize; count]);
        for (value, &group) in values.iter().zip(&self.groups).filter(|(value, _)| value.is_finite()) {
            sums[group] += value;
            rows[group] += 1;
        }
        let used: usize = rows.iter().map(|&rows| rows.saturating_sub(1)).sum();
        let share = 1.0 / used.max(1) as f64;
        let mut half = 0.0;
        let mut left_out = 0;
        let slopes = values.iter().zip(&self.groups).map(|(value, &group)| {
            if !value.is_finite() {
                left_out += 1;
                return 0.0;
            }
            let apart = value - sums[group] / rows[group] as f64;
            half += 0.5 * share * scale(group) * apart * apart;
            share * scale(group) * apart
        });
        let slopes = slopes.collect();
        (half, slopes, left_out)
    }
}

/// −ladj and the regularised energy at a temperature, in kT: minus the logarithm of the target in flow coordinates, without its
/// normalisation.
pub(super) fn reduced(target: &ReducedTarget, energy: f64, ladj: f64, temperature: f64, cut: &EnergyCut) -> f64 {
    cut.value(energy / target.system().scale().kt(temperature)) - ladj
}

/// Σ slopes · values: a scalar whose gradient is the slopes times those of the values.
pub(super) fn with_slopes(values: &Tensor, slopes: Vec<f64>) -> Result<Tensor, TrainError> {
    let slopes = Tensor::from_vec(slopes, values.dims1()?, values.device())?;
    Ok((values * slopes)?.sum_all()?)
}

impl Trainer {
    /// A temperature, and what the flow is told of it.
    pub(super) fn told(&self, temperature: f64) -> At {
        let conditioned = self.plan.temperature_range.is_some();
        At { temperature, tau: if conditioned { temperature / self.plan.temperature } else { 1.0 } }
    }

    /// The latents of a step that are for a purpose: where they begin.
    fn own_address(&self, purpose: Purpose) -> LatentAddress {
        LatentAddress { seed: self.plan.seed, purpose, index: self.counters.step * (1 << 16), tau: 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_are_those_of_the_variance_within_groups() {
        let groups = vec![0, 1, 0, 1, 0, 2, 1];
        let values = [0.3, -1.0, 2.0, 0.5, -0.7, 4.0, f64::INFINITY];
        let draws = OwnDraws { coordinates: Vec::new(), energies: Vec::new(), ladj: Vec::new(), groups, non_finite: 0 };
        let scale = |group: usize| [1.0, 3.0, 5.0][group];
        let (half, slopes, left_out) = draws.half_variance(&values, scale);
        // Squares of 1.6/3, −1.4667, 1.2333 in the first group; ±0.75, tripled, in the second; nothing in the third.
        let mean = 1.6 / 3.0;
        let first: f64 = [0.3, 2.0, -0.7].iter().map(|v: &f64| (v - mean).powi(2)).sum();
        assert!((half - 0.5 * (first + 3.0 * 2.0 * 0.5625) / 3.0).abs() < 1e-12, "{half}");
        assert_eq!(left_out, 1);
        for (i, slope) in slopes.iter().enumerate().take(6) {
            let at = |h: f64| {
                let mut moved = values;
                moved[i] += h;
                draws.half_variance(&moved, scale).0
            };
            let expected = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!((slope - expected).abs() < 1e-8, "{i}: {slope}, {expected}");
        }
        assert_eq!(slopes[6], 0.0);
    }
}
