//! Annealed importance sampling from a flow to a target (Neal 2001), with exact weights of paths.
//!
//! Rows y₀ of the flow's density q are carried along the geometric path
//!
//!   γ_β(y) = q(y)^{1−β} · p̃(y)^β,   β₀ = 0 < β₁ < … < β_K < β_{K+1},
//!
//! by moves that leave γ_{β_k} invariant: y_k is made of y_{k−1} at β_k. The weight of a path,
//!
//!   log w = Σ_{k=1}^{K+1} [log γ_{β_k}(y_{k−1}) − log γ_{β_{k−1}}(y_{k−1})],
//!
//! is exact whatever the moves do and however many there are: ⟨w⟩ = ∫γ_{β_{K+1}}, and ⟨w·A(y_K)⟩/⟨w⟩ is the average of A over
//! γ_{β_{K+1}}. It ends at the target p̃ with β = 1, or at p̃²/q with β = 2, of which weighted samples have the least variance
//! of importance weights p̃/q (Midgley et al., "Flow annealed importance sampling bootstrap", ICLR 2023).
//!
//! These moves are the stochastic layers of a stochastic normalizing flow (Wu, Köhler and Noé, NeurIPS 2020). There a path
//! z → y₀ → y₁ → … → y_K through deterministic and stochastic layers has the weight
//!
//!   log w = −u(y_K) − log q(z) + Σ_layers ΔS,
//!
//! with ΔS = ladj for a deterministic layer and, for a layer of moves that obey detailed balance with respect to e^{−u_k},
//! ΔS_k = u_k(y_k) − u_k(y_{k−1}), minus the heat that it takes up. With u_k = −log γ_{β_k} and the flow as the deterministic
//! layers this is the sum above, its terms in another order.

use super::moves::{Effort, Moves};
use super::points::{Densities, Points};
use crate::coords::{ReducedTarget, TargetBatch};
use crate::energy::EnergyError;
use crate::flow::{Flow, FlowError};
use crate::math::Randoms;

/// Acceptance that step sizes are tuned to: near the best of Hamiltonian Monte Carlo (Beskos et al. 2013).
const ACCEPTANCE: f64 = 0.65;

/// How far the logarithm of a step size goes for an acceptance that is off by one.
const ADAPTATION: f64 = 0.5;

/// Step sizes are between these.
pub const STEP_SIZES: std::ops::RangeInclusive<f64> = 1e-8..=1e3;

/// Evaluations of a row on its way from the flow to the target, at most.
pub const MOST_EVALUATIONS: usize = 1024;

/// The length of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathLength {
    /// K: distributions between the flow's and the last one, at equal distances.
    pub distributions: usize,
    /// Moves at each of them.
    pub moves: usize,
    /// Leapfrog steps of a move.
    pub leapfrog_steps: usize,
}

impl PathLength {
    /// Evaluations of the energy, its gradient and the flow's for one row, besides the one where it begins.
    pub fn evaluations(&self) -> usize {
        self.distributions.saturating_mul(self.moves).saturating_mul(self.leapfrog_steps)
    }

    /// That the path is one, and not too long; the message names the field.
    pub fn check(&self) -> Result<(), String> {
        for (name, value) in
            [("distributions", self.distributions), ("moves", self.moves), ("leapfrog_steps", self.leapfrog_steps)]
        {
            if !(1..=MOST_EVALUATIONS).contains(&value) {
                return Err(format!("{name} is {value}; it must be from 1 to {MOST_EVALUATIONS}"));
            }
        }
        let all = self.evaluations();
        if all > MOST_EVALUATIONS {
            return Err(format!(
                "distributions × moves × leapfrog_steps is {all}; a path has at most {MOST_EVALUATIONS} evaluations"
            ));
        }
        Ok(())
    }
}

/// Where paths end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// p̃.
    Target,
    /// p̃²/q.
    LeastVariance,
}

/// A path from a flow to a goal.
#[derive(Debug)]
pub struct AnnealingPath<'a> {
    pub flow: &'a Flow,
    pub target: &'a ReducedTarget,
    pub length: PathLength,
    pub goal: Goal,
    /// Leapfrog step sizes in flow coordinates (K), for rows of latent temperature 1; those of others are √τ as large.
    pub step_sizes: &'a [f64],
}

/// n rows where paths begin.
#[derive(Debug)]
pub struct PathStarts<'a> {
    /// Flow coordinates y (n, d).
    pub coordinates: Vec<f64>,
    /// log of the density that each was drawn from (n): weights are exact with respect to it.
    pub log_probs: &'a [f64],
    /// The temperature of the target at each row (n).
    pub temperatures: &'a [f64],
    /// What the flow is told of each, and the variance of its latents (n).
    pub taus: &'a [f64],
    /// Each row's own random numbers (n).
    pub randoms: Vec<Randoms>,
}

/// n rows where paths end.
#[derive(Clone, Debug, Default)]
pub struct PathEnds {
    /// Flow coordinates y (n, d).
    pub coordinates: Vec<f64>,
    /// The target there: positions, energies and ladj.
    pub target: TargetBatch,
    /// log q there (n).
    pub log_probs: Vec<f64>,
    /// log w of the paths (n), never clipped; −∞ where the target has no density or a number is not finite.
    pub log_weights: Vec<f64>,
    /// ladj where each path began (n).
    pub start_ladj: Vec<f64>,
    /// The mean probability of acceptance at each distribution (K); nothing where no row could be moved.
    pub acceptance: Vec<Option<f64>>,
    /// Configurations that the energy was evaluated at.
    pub evaluations: u64,
}

impl AnnealingPath<'_> {
    /// β_k of k from 0 to K + 1.
    fn exponent(&self, k: usize) -> f64 {
        let last = match self.goal {
            Goal::Target => 1.0,
            Goal::LeastVariance => 2.0,
        };
        last * k as f64 / (self.length.distributions + 1) as f64
    }

    /// Carries rows from the flow to the goal. What becomes of a row depends on its numbers alone. `proceed` is asked before
    /// each leapfrog step of all rows, and ends it with its error.
    pub fn carry<E: From<PathError>>(
        &self,
        starts: PathStarts<'_>,
        mut proceed: impl FnMut() -> Result<(), E>,
    ) -> Result<PathEnds, E> {
        let PathStarts { coordinates, log_probs, temperatures, taus, mut randoms } = starts;
        let densities = Densities { flow: self.flow, target: self.target };
        let mut points = densities.points(coordinates, temperatures, taus)?;
        // The flow's density as the way there has it may be rounded otherwise than on the way back.
        let mut log_weights: Vec<f64> =
            points.log_probs.iter().zip(log_probs).map(|(back, there)| back - there).collect();
        let gain = |points: &Points, log_weights: &mut [f64], step: f64| {
            for (row, w) in log_weights.iter_mut().enumerate() {
                *w += step * (points.log_targets[row] - points.log_probs[row]);
            }
        };
        let mut evaluations = log_weights.len() as u64;
        let start_ladj = points.target.ladj.clone();
        let mut acceptance = Vec::with_capacity(self.length.distributions);
        let PathLength { moves, leapfrog_steps, .. } = self.length;
        let moves = Moves { densities, effort: Effort { latent_moves: 0, moves, leapfrog_steps }, temperatures, taus };
        for (k, &step_size) in (1..).zip(self.step_sizes) {
            gain(&points, &mut log_weights, self.exponent(k) - self.exponent(k - 1));
            let outcome = moves.make(&mut points, self.exponent(k), Some(step_size), &mut randoms, &mut proceed)?;
            evaluations += outcome.evaluations;
            acceptance.push(outcome.acceptance());
        }
        let k = self.step_sizes.len();
        gain(&points, &mut log_weights, self.exponent(k + 1) - self.exponent(k));
        log_weights.iter_mut().filter(|w| !w.is_finite()).for_each(|w| *w = f64::NEG_INFINITY);
        let Points { coordinates, log_probs, target, .. } = points;
        let target = TargetBatch { gradients: Vec::new(), ..target };
        Ok(PathEnds { coordinates, target, log_probs, log_weights, start_ladj, acceptance, evaluations })
    }
}

/// Step sizes that bring the acceptance nearer to what it should be; with `gain` from 0 to 1 how fast.
pub fn tuned(step_sizes: &mut [f64], acceptance: &[Option<f64>], gain: f64) {
    for (step_size, acceptance) in step_sizes.iter_mut().zip(acceptance) {
        if let Some(acceptance) = acceptance {
            let factor = libm::exp(gain * ADAPTATION * (acceptance - ACCEPTANCE));
            *step_size = (*step_size * factor).clamp(*STEP_SIZES.start(), *STEP_SIZES.end());
        }
    }
}

/// Why rows could not be carried.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    #[error(transparent)]
    Flow(#[from] FlowError),
    #[error(transparent)]
    Energy(#[from] EnergyError),
}
