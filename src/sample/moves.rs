//! Moves that leave γ_β = q^{1−β}·p̃^β invariant, many rows at once: of latents, and by gradients.

use super::annealing::PathError;
use super::points::{Densities, Points};
use crate::math::Randoms;

/// How much is done at a distribution: moves of latents, then moves of Hamiltonian Monte Carlo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Effort {
    /// Each takes one evaluation of the energy, and none of gradients.
    pub latent_moves: usize,
    /// Of Hamiltonian Monte Carlo.
    pub moves: usize,
    /// Of such a move, each of which takes one evaluation with gradients.
    pub leapfrog_steps: usize,
}

impl Effort {
    /// Evaluations of the energy at each distribution.
    pub fn evaluations(&self) -> usize {
        self.latent_moves.saturating_add(self.moves.saturating_mul(self.leapfrog_steps))
    }

    /// Whether there are moves that take the gradient of the flow's density.
    pub fn needs_score(&self) -> bool {
        self.moves > 0
    }
}

/// Moves of the rows of a batch.
pub(super) struct Moves<'a> {
    pub densities: Densities<'a>,
    pub effort: Effort,
    /// The temperature of the target at each row (n).
    pub temperatures: &'a [f64],
    /// What the flow is told of each, and the variance of its latents (n).
    pub taus: &'a [f64],
}

/// What moves by gradients came to.
#[derive(Default)]
pub(super) struct Outcome {
    pub sum: f64,
    pub count: u64,
    /// Of the energy, by all moves.
    pub evaluations: u64,
}

impl Outcome {
    /// The mean probability of acceptance; nothing of no moves.
    pub fn acceptance(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }
}

impl Moves<'_> {
    /// The effort at γ_β, of all rows; there is a step size where there are moves by gradients. `proceed` is asked before each
    /// evaluation.
    pub fn make<E: From<PathError>>(
        &self,
        points: &mut Points,
        beta: f64,
        step_size: Option<f64>,
        randoms: &mut [Randoms],
        proceed: &mut impl FnMut() -> Result<(), E>,
    ) -> Result<Outcome, E> {
        let mut outcome = Outcome::default();
        self.move_latents(points, beta, randoms, proceed, &mut outcome)?;
        if let Some(step_size) = step_size {
            self.move_by_gradients(points, beta, step_size, randoms, proceed, &mut outcome)?;
        }
        Ok(outcome)
    }

    /// Rows as moves need them: with gradients where there are moves that take them.
    pub fn points(
        &self,
        coordinates: Vec<f64>,
        log_probs: Vec<f64>,
        temperatures: &[f64],
        taus: &[f64],
    ) -> Result<Points, PathError> {
        match self.effort.needs_score() {
            true => self.densities.points(coordinates, temperatures, taus),
            false => self.densities.drawn(coordinates, log_probs, temperatures),
        }
    }
}
