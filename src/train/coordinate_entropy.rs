//! Coordinate entropy: maximise the entropy of a collective variable over the flow's samples (the reaction-coordinate loss
//! J_RC of Noé et al. 2019), which keeps a flow from settling in one of several states.
//!
//! As in their code, the distribution is that over 11 Gaussian kernels between two values, of a width of an eleventh of what
//! is between them: each sample belongs to the kernels in shares that add up to 1, and p_k is the batch's mean share. The
//! loss is Σ p_k log p_k. A sample beyond the two values belongs to the kernel at that end.

use super::own_draws::Loss;
use super::trainer::{TrainError, Trainer};
use crate::coords::ReducedTarget;
use crate::energy::System;
use crate::flow::{Direction, Flow, Tau};
use crate::thermo::{BoundVariable, CollectiveVariable};
use candle_core::Tensor;
use rayon::prelude::*;

const KERNELS: usize = 11;

/// A collective variable between two values, in its unit.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VariableRange {
    pub variable: CollectiveVariable,
    pub low: f64,
    pub high: f64,
}

impl VariableRange {
    pub(super) fn check(&self) -> Result<(), String> {
        let Self { low, high, .. } = self;
        for (name, end) in [("low", low), ("high", high)] {
            if !end.is_finite() {
                return Err(format!("{name} is {end}; it must be a finite number"));
            }
        }
        if low >= high || !(high - low).is_finite() {
            return Err(format!("low is {low} and high {high}; it must go up"));
        }
        if let Some(period) = self.variable.period().filter(|period| high - low > period * (1.0 + 1e-6)) {
            return Err(format!("high is more than a turn, {period}, above low"));
        }
        Ok(())
    }

    /// The variable as one that a system has.
    pub(super) fn bind(&self, system: &System) -> Result<BoundVariable, String> {
        self.variable.bind(system).map_err(|error| format!("variable: {error}"))
    }

    /// The shares (11) of a value in the kernels, and their derivatives.
    fn shares(&self, value: f64) -> [(f64, f64); KERNELS] {
        let (span, count) = (self.high - self.low, KERNELS as f64);
        let width = span / count;
        let period = self.variable.period();
        // log of a kernel, and its derivative.
        let logs: [(f64, f64); KERNELS] = std::array::from_fn(|k| {
            let apart = value - (self.low + span * k as f64 / (count - 1.0));
            let apart = period.map_or(apart, |period| apart - period * (apart / period).round()) / width;
            (-0.5 * apart * apart, -apart / width)
        });
        let most = logs.iter().fold(f64::NEG_INFINITY, |most, (log, _)| most.max(*log));
        let sum: f64 = logs.iter().map(|(log, _)| (log - most).exp()).sum();
        let shares = logs.map(|(log, slope)| ((log - most).exp() / sum, slope));
        let mean: f64 = shares.iter().map(|(share, slope)| share * slope).sum();
        shares.map(|(share, slope)| (share, share * (slope - mean)))
    }

    /// Σ p_k log p_k over values, and its derivative with respect to each.
    fn minus_entropy(&self, values: &[f64]) -> (f64, Vec<f64>) {
        let part = 1.0 / values.len().max(1) as f64;
        let shares: Vec<_> = values.iter().map(|&value| self.shares(value)).collect();
        let mut p = [0.0; KERNELS];
        shares.iter().for_each(|row| p.iter_mut().zip(row).for_each(|(p, (share, _))| *p += part * share));
        // A kernel that nothing belongs to has no slope either.
        let logs = p.map(|p| if p > 0.0 { p.ln() } else { 0.0 });
        let sum = p.iter().zip(logs).map(|(p, log)| p * log).sum();
        let slope =
            |row: &[(f64, f64); KERNELS]| part * row.iter().zip(logs).map(|((_, slope), log)| slope * log).sum::<f64>();
        (sum, shares.iter().map(slope).collect())
    }
}

impl Trainer {
    /// One batch of a step, at a factor of the temperature; nothing where there is nothing to learn from.
    pub(super) fn coordinate_entropy(&mut self, batch: usize, factor: f64) -> Result<Option<Loss>, TrainError> {
        let (Some(range), Some(variable)) = (&self.plan.collective_variable, &self.variable) else { return Ok(None) };
        let taus = self.latent_temperatures(&self.temperatures(batch, factor));
        let z = self.latents(&taus)?;
        self.counters.samples += batch as u64;
        loss(&self.flow, &self.target, &z, Tau::Each(&taus), (range, variable)).map(Some)
    }
}

/// The objective on latents z (n, d) of latent temperatures `tau`: over samples of all of these together.
pub(super) fn loss(
    flow: &Flow,
    target: &ReducedTarget,
    z: &Tensor,
    tau: Tau<'_>,
    (range, variable): (&VariableRange, &BoundVariable),
) -> Result<Loss, TrainError> {
    let (y, _) = flow.apply(z, tau, Direction::Forward)?;
    let (n, d) = z.dims2()?;
    let rows = y.flatten_all()?.to_vec1::<f64>()?;
    let mut gradients = vec![0.0; n * d];
    let values: Vec<Option<f64>> = gradients
        .par_chunks_mut(d)
        .zip(rows.par_chunks(d))
        .map(|(gradient, y)| along(target, variable, y, gradient))
        .collect();
    let (value, slopes) = range.minus_entropy(&values.iter().flatten().copied().collect::<Vec<_>>());
    let mut slopes = slopes.into_iter();
    for (gradient, value) in gradients.chunks_exact_mut(d).zip(&values) {
        let slope = if value.is_some() { slopes.next().unwrap_or(0.0) } else { 0.0 };
        gradient.iter_mut().for_each(|g| *g = if slope == 0.0 { 0.0 } else { *g * slope });
    }
    let gradients = Tensor::from_vec(gradients, (n, d), y.device())?;
    let non_finite = values.iter().filter(|value| value.is_none()).count();
    Ok(Loss { surrogate: (y * gradients)?.sum_all()?, value, non_finite })
}

/// The variable at flow coordinates y, and its gradient with respect to them; nothing if that is not finite, or y is outside of
/// the coordinates' domain.
fn along(target: &ReducedTarget, variable: &BoundVariable, y: &[f64], gradient: &mut [f64]) -> Option<f64> {
    let coordinates = target.coordinates();
    let mut x = vec![0.0; coordinates.position_dimension()];
    let ladj = coordinates.to_positions(y, &mut x);
    let value = variable.value(&x);
    let mut of_x = vec![0.0; x.len()];
    variable.gradient(&x, &mut of_x);
    coordinates.pull_back(y, &x, &mut of_x, gradient);
    // A transform pulls a gradient back together with that of its ladj, which no gradient at all leaves alone.
    let mut of_ladj = vec![0.0; y.len()];
    coordinates.pull_back(y, &x, &mut vec![0.0; x.len()], &mut of_ladj);
    gradient.iter_mut().zip(of_ladj).for_each(|(gradient, of_ladj)| *gradient -= of_ladj);
    let finite = ladj.is_finite() && value.is_finite() && gradient.iter().all(|g| g.is_finite());
    finite.then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_are_those_of_the_entropy() {
        for text in ["coordinate(0)", "dihedral(0,1,2,3)"] {
            let range = VariableRange { variable: text.parse().unwrap(), low: -3.0, high: 3.0 };
            // Evenly spread, all kernels have nearly the same share; in one place, few have any.
            let spread: Vec<f64> = (0..110).map(|i| -3.0 + 6.0 * i as f64 / 109.0).collect();
            assert!(range.minus_entropy(&spread).0 < -0.97 * (KERNELS as f64).ln());
            assert!(range.minus_entropy(&[0.0; 9]).0 > -1.5);
            let values = [-3.4, -2.9, -1.0, 0.2, 0.25, 1.7, 40.0];
            let (_, slopes) = range.minus_entropy(&values);
            for (i, slope) in slopes.iter().enumerate() {
                let at = |h: f64| {
                    let mut moved = values;
                    moved[i] += h;
                    range.minus_entropy(&moved).0
                };
                let expected = (at(1e-5) - at(-1e-5)) / 2e-5;
                assert!((slope - expected).abs() < 1e-7, "{text}, {i}: {slope}, {expected}");
            }
        }
    }
}
