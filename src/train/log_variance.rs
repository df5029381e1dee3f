//! Log variance: minimise ½ Var[log w] over samples of the flow as it is (Richter et al. 2020, "VarGrad"; the mean of
//! |log w − ⟨log w⟩| at each temperature in the code of Noé et al. 2019). There is no gradient through the drawing, and none
//! of the energy: the gradient of the loss is an estimate of that of the reverse Kullback-Leibler divergence, with less and
//! less noise as log w becomes constant.

use super::own_draws::{At, Loss, OwnDraws, reduced, with_slopes};
use super::plan::EnergyCut;
use super::replay::RUNGS;
use super::trainer::{TrainError, Trainer};
use crate::coords::ReducedTarget;
use crate::flow::Flow;
use crate::math::Purpose;

impl Trainer {
    /// One batch of a step, at a factor of the temperature; nothing where there is nothing to learn from.
    pub(super) fn log_variance(&mut self, batch: usize, factor: f64) -> Result<Option<Loss>, TrainError> {
        let count = if self.plan.temperature_range.is_some() { RUNGS.min(batch / 2).max(1) } else { 1 };
        let groups: Vec<At> = self.temperatures(count, factor).into_iter().map(|t| self.told(t)).collect();
        // Each sample is drawn, and its density taken.
        self.counters.samples += 2 * batch as u64;
        self.counters.energy_evaluations += batch as u64;
        let draws = self.own_draws(Purpose::LogVariance, &groups, batch)?;
        loss(&self.flow, &self.target, &draws, &groups, &self.plan.energy_cut)
    }
}

/// The objective on samples of one temperature or of groups of one each: log Z, which is that of its temperature, drops out
/// within a group.
fn loss(
    flow: &Flow,
    target: &ReducedTarget,
    draws: &OwnDraws,
    groups: &[At],
    cut: &EnergyCut,
) -> Result<Option<Loss>, TrainError> {
    if draws.groups.is_empty() {
        return Ok(None);
    }
    let log_probs = draws.log_probs(flow, |group| groups[group].tau)?;
    // −log w: a square does not see the sign, and the slope is then that with respect to log p.
    let minus_log_weights = log_probs.to_vec1::<f64>()?.into_iter().enumerate().map(|(row, log_prob)| {
        let temperature = groups[draws.groups[row]].temperature;
        log_prob + reduced(target, draws.energies[row], draws.ladj[row], temperature, cut)
    });
    let (value, slopes, left_out) = draws.half_variance(&minus_log_weights.collect::<Vec<_>>(), |_| 1.0);
    let surrogate = with_slopes(&log_probs, slopes)?;
    Ok(Some(Loss { surrogate, value, non_finite: draws.non_finite + left_out }))
}
