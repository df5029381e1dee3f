//! Rows between a flow and its target: the densities of both there, and their gradients.

use super::annealing::PathError;
use crate::coords::{ReducedTarget, TargetBatch};
use crate::flow::{Flow, Tau};

/// A flow's density q and the target's p̃, both of flow coordinates.
#[derive(Clone, Copy, Debug)]
pub(super) struct Densities<'a> {
    pub flow: &'a Flow,
    pub target: &'a ReducedTarget,
}

impl Densities<'_> {
    /// Both at rows y (n, d), each of its own target temperature and latent temperature (n), with their gradients.
    pub fn points(&self, coordinates: Vec<f64>, temperatures: &[f64], taus: &[f64]) -> Result<Points, PathError> {
        let scores = self.flow.score(&coordinates, Tau::Each(taus))?;
        let target = self.target.evaluate_with_gradient(&coordinates, |row| temperatures[row], |_| 1.0)?;
        let log_targets = self.log_targets(&target, temperatures);
        Ok(Points { coordinates, log_probs: scores.log_probs, scores: scores.gradients, log_targets, target })
    }

    /// Both at rows of a flow that log q is known of, without their gradients.
    pub fn drawn(&self, coordinates: Vec<f64>, log_probs: Vec<f64>, temperatures: &[f64]) -> Result<Points, PathError> {
        let target = self.target.evaluate(&coordinates)?;
        let log_targets = self.log_targets(&target, temperatures);
        Ok(Points { coordinates, log_probs, scores: Vec::new(), log_targets, target })
    }

    /// ladj − U/kT (n).
    fn log_targets(&self, target: &TargetBatch, temperatures: &[f64]) -> Vec<f64> {
        let scale = self.target.system().scale();
        let energies = target.energies.iter().zip(&target.ladj).zip(temperatures);
        energies.map(|((energy, ladj), &t)| ladj - energy / scale.kt(t)).collect()
    }
}

/// The densities at n rows, and all that moves need of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Points {
    pub coordinates: Vec<f64>,
    /// log q (n) and its gradient (n, d).
    pub log_probs: Vec<f64>,
    pub scores: Vec<f64>,
    /// log p̃ = ladj − U/kT (n).
    pub log_targets: Vec<f64>,
    /// With the gradients of −log p̃.
    pub target: TargetBatch,
}

impl Points {
    /// The number n of rows.
    pub fn len(&self) -> usize {
        self.log_probs.len()
    }

    /// log p̃/q of a row; −∞ where it is not finite.
    pub fn log_ratio(&self, row: usize) -> f64 {
        let ratio = self.log_targets[row] - self.log_probs[row];
        if ratio.is_finite() { ratio } else { f64::NEG_INFINITY }
    }

    /// Rows in another order, each as often as it is named.
    pub fn rows(&self, order: &[usize]) -> Self {
        let mut taken = Self::default();
        order.iter().for_each(|&row| append(self, row, &mut taken));
        taken
    }

    /// log γ_β of a row.
    pub fn log_density(&self, row: usize, beta: f64) -> f64 {
        (1.0 - beta) * self.log_probs[row] + beta * self.log_targets[row]
    }

    /// ∂ log γ_β/∂y of a coordinate, by its place in (n, d).
    pub fn slope(&self, at: usize, beta: f64) -> f64 {
        (1.0 - beta) * self.scores[at] - beta * self.target.gradients[at]
    }

    /// Whether everything at a row is finite.
    pub fn is_sound(&self, row: usize, d: usize) -> bool {
        let at = row * d..(row + 1) * d;
        self.log_probs[row].is_finite()
            && self.log_targets[row].is_finite()
            && self.scores[at.clone()].iter().chain(&self.target.gradients[at]).all(|g| g.is_finite())
    }
}

/// All arrays of points, and of other points.
fn arrays<'a>(from: &'a Points, to: &'a mut Points) -> [(&'a [f64], &'a mut Vec<f64>); 8] {
    [
        (&from.coordinates, &mut to.coordinates),
        (&from.log_probs, &mut to.log_probs),
        (&from.scores, &mut to.scores),
        (&from.log_targets, &mut to.log_targets),
        (&from.target.positions, &mut to.target.positions),
        (&from.target.energies, &mut to.target.energies),
        (&from.target.ladj, &mut to.target.ladj),
        (&from.target.gradients, &mut to.target.gradients),
    ]
}

pub(super) fn append(from: &Points, row: usize, to: &mut Points) {
    let n = from.log_probs.len();
    for (from, to) in arrays(from, to) {
        let width = from.len() / n;
        to.extend_from_slice(&from[row * width..(row + 1) * width]);
    }
}

pub(super) fn put(from: &Points, row: usize, to: &mut Points, at: usize) {
    let n = from.log_probs.len();
    for (from, to) in arrays(from, to) {
        let width = from.len() / n;
        to[at * width..(at + 1) * width].copy_from_slice(&from[row * width..(row + 1) * width]);
    }
}
