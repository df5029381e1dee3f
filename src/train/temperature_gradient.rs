//! Temperature gradients: how the density of a flow that is conditioned on temperature changes with it is known,
//! ∂ log p_β(x)/∂β = ⟨U⟩_β − U(x) (TRADE, Wahl et al. 2024).
//!
//! This is the same law integrated from β₂ to β₁: D(x) = log p_β₁(x) − log p_β₂(x) + (β₁ − β₂) U(x) is the same for all x,
//! log Z(β₂)/Z(β₁). The loss is ½ Var[D] / ln²(β₁/β₂), which is zero only if it holds, needs no ⟨U⟩, and keeps its size
//! however far apart the temperatures are; for β₁ → β₂ it is ½ β² Var[∂ log p_β/∂β + U], TRADE's loss in units of kT with the
//! batch's mean for ⟨U⟩. Any density of x would do for the variance; it is over samples of the flow at β₁.
//!
//! It says nothing of any one temperature: beside it another objective has to fix the flow at some of them.

use super::own_draws::{At, Loss, OwnDraws, reduced, with_slopes};
use super::plan::EnergyCut;
use super::trainer::{TrainError, Trainer};
use crate::coords::ReducedTarget;
use crate::flow::{Flow, TemperatureRange};
use crate::math::{Purpose, Randoms};

/// Pairs of temperatures in a step.
const PAIRS: usize = 8;

/// How far apart a pair is at least, in shares of the range's logarithm: nearer, the rounding of conditioners would be large
/// beside what they differ by.
const APART: f64 = 0.1;

/// Pairs of temperatures of a range, times a factor: the first ones spread over it, the second ones anywhere in it.
pub(super) fn pairs(range: TemperatureRange, factor: f64, batch: usize, random: &mut Randoms) -> Vec<(f64, f64)> {
    let count = PAIRS.min(batch / 2).max(1);
    let pair = |i| {
        let first = (i as f64 + random.uniform()) / count as f64;
        let second = (first + APART + (1.0 - 2.0 * APART) * random.uniform()).fract();
        (factor * range.at(first), factor * range.at(second))
    };
    (0..count).map(pair).collect()
}

impl Trainer {
    /// One batch of a step, at a factor of the temperature; nothing where there is nothing to learn from.
    pub(super) fn temperature_gradient(&mut self, batch: usize, factor: f64) -> Result<Option<Loss>, TrainError> {
        let Some(range) = self.plan.temperature_range else { return Ok(None) };
        let mut random = Randoms::new(self.plan.seed, Purpose::TemperaturePair, self.counters.step);
        let pairs = pairs(range, factor, batch, &mut random);
        let pairs: Vec<(At, At)> = pairs.into_iter().map(|(a, b)| (self.told(a), self.told(b))).collect();
        // Each sample is drawn, and its density taken at two temperatures.
        self.counters.samples += 3 * batch as u64;
        self.counters.energy_evaluations += batch as u64;
        let first: Vec<At> = pairs.iter().map(|(first, _)| *first).collect();
        let draws = self.own_draws(Purpose::TemperatureGradient, &first, batch)?;
        loss(&self.flow, &self.target, &draws, &pairs, &self.plan.energy_cut)
    }
}

/// The objective on samples of the flow, each at the first of its pair of temperatures.
fn loss(
    flow: &Flow,
    target: &ReducedTarget,
    draws: &OwnDraws,
    pairs: &[(At, At)],
    cut: &EnergyCut,
) -> Result<Option<Loss>, TrainError> {
    if draws.groups.is_empty() {
        return Ok(None);
    }
    let at_first = draws.log_probs(flow, |group| pairs[group].0.tau)?;
    let at_second = draws.log_probs(flow, |group| pairs[group].1.tau)?;
    let change = (at_first - at_second)?;
    let differences = change.to_vec1::<f64>()?.into_iter().enumerate().map(|(row, change)| {
        let (first, second) = pairs[draws.groups[row]];
        let u = |at: At| reduced(target, draws.energies[row], draws.ladj[row], at.temperature, cut);
        change + u(first) - u(second)
    });
    let scale = |group: usize| {
        let (first, second) = pairs[group];
        (first.temperature / second.temperature).ln().powi(-2)
    };
    let (value, slopes, left_out) = draws.half_variance(&differences.collect::<Vec<_>>(), scale);
    let surrogate = with_slopes(&change, slopes)?;
    Ok(Some(Loss { surrogate, value, non_finite: draws.non_finite + left_out }))
}
