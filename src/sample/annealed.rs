//! Annealed samples by their address: paths from the flow to the target, each with its own random numbers.

use super::annealing::{AnnealingPath, Goal, PathEnds, PathError, PathLength, PathStarts, tuned};
use super::generator::Generator;
use super::importance::{SampleError, SampleKey, SampleRun, WeightedBatch};
use super::method::{Method, PILOT_SEED};
use crate::flow::{FlowDraws, LatentAddress};
use crate::math::{Purpose, Randoms};

/// Rounds of a pilot that tunes step sizes, the rows of each, and the step size that it begins with.
const TUNING_ROUNDS: usize = 16;
const TUNING_ROWS: usize = 128;
const FIRST_STEP_SIZE: f64 = 0.1;

/// How paths are made.
#[derive(Clone, Debug, PartialEq)]
pub struct AnnealedPaths {
    pub length: PathLength,
    /// Leapfrog step sizes in flow coordinates (K) for a latent temperature of 1; those of others are √τ as large.
    pub step_sizes: Vec<f64>,
}

/// n draws of the flow.
#[derive(Clone, Debug)]
pub(super) struct Draws {
    pub first_index: u64,
    /// Latents and flow coordinates (n, d).
    pub latents: Vec<f64>,
    pub coordinates: Vec<f64>,
    /// log q(y) (n).
    pub log_probs: Vec<f64>,
    /// What the flow was told, and the variance of its latents.
    pub tau: f64,
}

impl Generator {
    /// How the flow gives the starts of paths to a temperature: as near to it as it can without a pilot. Auxiliary variables of
    /// scaled latents are not where the end of a path has them.
    pub fn start_method(&self, temperature: f64) -> Method {
        match self.methods(temperature).last() {
            Some(Method::LatentScaling) if self.target.coordinates().auxiliary() > 0 => Method::Reweighting,
            last => last.copied().unwrap_or(Method::Reweighting),
        }
    }

    /// The samples of a run at the ends of annealed paths: latents and `log_probs` are those of the flow where a path begins,
    /// coordinates, positions and energies those of its end, and the weights are of the whole path. The run's method says how
    /// the flow gives the starts. `proceed` is asked before each leapfrog step.
    pub fn annealed<E: From<PathError> + From<SampleError>>(
        &self,
        run: &SampleRun,
        paths: &AnnealedPaths,
        proceed: impl FnMut() -> Result<(), E>,
    ) -> Result<WeightedBatch, E> {
        let (draws, ends) = self.carried(run, paths.length, &paths.step_sizes, proceed)?;
        let kt = self.kt(run.key.temperature);
        let outside = |ladj: f64| ladj == f64::NEG_INFINITY;
        let log_probs = draws.log_probs.iter().zip(&ends.start_ladj);
        Ok(WeightedBatch {
            first_index: run.first_index,
            latents: draws.latents,
            coordinates: ends.coordinates,
            positions: ends.target.positions,
            reduced_energies: ends.target.energies.iter().map(|u| u / kt).collect(),
            energies: ends.target.energies,
            log_probs: log_probs.map(|(q, &ladj)| if outside(ladj) { f64::NAN } else { q - ladj }).collect(),
            log_weights: ends.log_weights,
            ancestors: Vec::new(),
        })
    }

    /// Draws of the flow, without their coordinates, and the ends of the paths that begin there.
    fn carried<E: From<PathError> + From<SampleError>>(
        &self,
        run: &SampleRun,
        length: PathLength,
        step_sizes: &[f64],
        proceed: impl FnMut() -> Result<(), E>,
    ) -> Result<(FlowDraws, PathEnds), E> {
        let SampleRun { key, first_index, count } = *run;
        let tau = self.latent_temperature(&key);
        let mut draws = self.flow_draws(&key, first_index, count)?;
        let moves = if key.purpose == Purpose::Sample { Purpose::SampleMove } else { Purpose::PilotMove };
        let starts = PathStarts {
            coordinates: std::mem::take(&mut draws.coordinates),
            log_probs: &draws.log_probs,
            temperatures: &vec![key.temperature; count],
            taus: &vec![tau; count],
            randoms: (0..count as u64).map(|row| Randoms::new(key.seed, moves, first_index + row)).collect(),
        };
        let path = AnnealingPath { flow: &self.flow, target: &self.target, length, goal: Goal::Target, step_sizes };
        let ends = path.carry(starts, proceed)?;
        Ok((draws, ends))
    }

    fn flow_draws(&self, key: &SampleKey, first_index: u64, count: usize) -> Result<FlowDraws, SampleError> {
        let end = first_index.checked_add(count as u64).ok_or(SampleError::IndexOverflow)?;
        let tau = self.latent_temperature(key);
        let address = |index| LatentAddress { seed: key.seed, purpose: key.purpose, index, tau };
        Ok(self.flow.draw(&(first_index..end).map(address).collect::<Vec<_>>()).map_err(PathError::from)?)
    }

    /// Draws of the flow that are to be carried on.
    pub(super) fn draws(&self, key: &SampleKey, first_index: u64, count: usize) -> Result<Draws, SampleError> {
        let FlowDraws { latents, coordinates, log_probs } = self.flow_draws(key, first_index, count)?;
        Ok(Draws { first_index, latents, coordinates, log_probs, tau: self.latent_temperature(key) })
    }

    /// Step sizes of paths of a length to a temperature, by pilots of a fixed seed: a property of model, temperature and
    /// length.
    pub fn tuned_step_sizes<E: From<PathError> + From<SampleError>>(
        &self,
        temperature: f64,
        length: PathLength,
        mut proceed: impl FnMut() -> Result<(), E>,
    ) -> Result<Vec<f64>, E> {
        let method = self.start_method(temperature);
        let key = SampleKey { temperature, method, seed: PILOT_SEED, purpose: Purpose::Pilot };
        let mut step_sizes = vec![FIRST_STEP_SIZE; length.distributions];
        for round in 0..TUNING_ROUNDS {
            let run = SampleRun { key, first_index: (round * TUNING_ROWS) as u64, count: TUNING_ROWS };
            let (_, ends) = self.carried(&run, length, &step_sizes, &mut proceed)?;
            // At first boldly, then so that the noise of few rows averages out.
            tuned(&mut step_sizes, &ends.acceptance, 4.0 / (1.0 + 0.5 * round as f64));
        }
        Ok(step_sizes)
    }
}
