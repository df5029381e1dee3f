//! Importance sampling: independent samples with exact log weights.

use super::annealing::PathError;
use super::generator::Generator;
use super::method::Method;
use crate::coords::TargetBatch;
use crate::energy::EnergyError;
use crate::flow::{Direction, FlowDraws, FlowError, LatentAddress, Tau};
use crate::math::Purpose;

/// What a sample's address is made of, besides its index and its model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleKey {
    /// In the unit of the system's scale.
    pub temperature: f64,
    pub method: Method,
    pub seed: u64,
    pub purpose: Purpose,
}

/// n weighted samples, in the order of their index.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WeightedBatch {
    pub first_index: u64,
    /// Latents z (n, d).
    pub latents: Vec<f64>,
    /// Flow coordinates y (n, d).
    pub coordinates: Vec<f64>,
    /// Positions x (n, D) in the system's length unit.
    pub positions: Vec<f64>,
    /// Potential energies U (n) in the system's energy unit.
    pub energies: Vec<f64>,
    /// Reduced energies U/kT (n).
    pub reduced_energies: Vec<f64>,
    /// log p(x) (n) of the distribution that was sampled from; NaN outside of the coordinates' domain.
    pub log_probs: Vec<f64>,
    /// log w = −U/kT − log p(x) (n), never clipped; −∞ where the energy or the density is not finite.
    pub log_weights: Vec<f64>,
    /// Indices of the flow's draws that samples come from (n), where several may come from one; else empty.
    pub ancestors: Vec<u64>,
}

impl WeightedBatch {
    /// The number n of samples.
    pub fn len(&self) -> usize {
        self.log_weights.len()
    }

    pub fn is_empty(&self) -> bool {
        self.log_weights.is_empty()
    }

    /// Rows in another order, each as often as it is named.
    pub fn rows(&self, order: &[usize]) -> Self {
        let n = self.len().max(1);
        fn taken<T: Copy>(all: &[T], n: usize, order: &[usize]) -> Vec<T> {
            let width = all.len() / n;
            order.iter().flat_map(|&row| all[row * width..(row + 1) * width].iter().copied()).collect()
        }
        let of = |all: &[f64]| taken(all, n, order);
        let ancestors = match self.ancestors.is_empty() {
            true => order.iter().map(|&row| self.first_index + row as u64).collect(),
            false => taken(&self.ancestors, n, order),
        };
        Self {
            first_index: self.first_index,
            latents: of(&self.latents),
            coordinates: of(&self.coordinates),
            positions: of(&self.positions),
            energies: of(&self.energies),
            reduced_energies: of(&self.reduced_energies),
            log_probs: of(&self.log_probs),
            log_weights: of(&self.log_weights),
            ancestors,
        }
    }

    /// Consecutive samples, from a place in this batch on.
    pub fn part(&self, range: std::ops::Range<usize>) -> Self {
        let first_index = self.first_index + range.start as u64;
        let has_ancestors = !self.ancestors.is_empty();
        let mut part = self.rows(&range.collect::<Vec<_>>());
        if !has_ancestors {
            part.ancestors.clear();
        }
        Self { first_index, ..part }
    }
}

/// Why samples could not be drawn.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    #[error(transparent)]
    Flow(#[from] FlowError),
    #[error(transparent)]
    Energy(#[from] EnergyError),
    #[error(transparent)]
    Path(#[from] PathError),
    #[error("sample indices end at 2^64 − 1; ask for fewer samples from a smaller first index")]
    IndexOverflow,
}

/// Samples of consecutive indices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleRun {
    pub key: SampleKey,
    pub first_index: u64,
    pub count: usize,
}

impl Generator {
    /// The samples of each run, all of them computed as one batch. What a sample is does not depend on the others.
    pub fn draw(&self, runs: &[SampleRun]) -> Result<Vec<WeightedBatch>, SampleError> {
        // On a thread of the pool, where each of the parallel parts need not wake it first.
        rayon::join(|| self.draw_here(runs), || ()).0
    }

    fn draw_here(&self, runs: &[SampleRun]) -> Result<Vec<WeightedBatch>, SampleError> {
        let total = runs.iter().map(|run| run.count).sum();
        let mut addresses = Vec::with_capacity(total);
        for SampleRun { key, first_index, count } in runs {
            let end = first_index.checked_add(*count as u64).ok_or(SampleError::IndexOverflow)?;
            let tau = self.latent_temperature(key);
            let address = |index| LatentAddress { seed: key.seed, purpose: key.purpose, index, tau };
            addresses.extend((*first_index..end).map(address));
        }
        let (FlowDraws { latents, coordinates, log_probs }, target) = self.draw_batch(runs, &addresses)?;
        if let [run] = runs {
            return Ok(vec![self.weighted(run, latents, coordinates, log_probs, target)]);
        }
        let mut from = 0;
        let batch = |run: &SampleRun| {
            let rows = from..from + run.count;
            from = rows.end;
            let part = |all: &[f64]| {
                let width = all.len() / total.max(1);
                all[rows.start * width..rows.end * width].to_vec()
            };
            let target = TargetBatch {
                positions: part(&target.positions),
                energies: part(&target.energies),
                ladj: part(&target.ladj),
                gradients: Vec::new(),
            };
            self.weighted(run, part(&latents), part(&coordinates), part(&log_probs), target)
        };
        Ok(runs.iter().map(batch).collect())
    }

    /// The draws of all runs, whose addresses are given beside them, and the target at them.
    #[cfg_attr(not(feature = "cuda"), allow(unused_variables))]
    fn draw_batch(
        &self,
        runs: &[SampleRun],
        addresses: &[LatentAddress],
    ) -> Result<(FlowDraws, TargetBatch), SampleError> {
        #[cfg(feature = "cuda")]
        if let Some(batch) = self.draw_on_device(runs)? {
            return Ok(batch);
        }
        let draws = self.flow.draw(addresses)?;
        let target = self.target.evaluate(&draws.coordinates)?;
        Ok((draws, target))
    }

    /// The samples of one run.
    pub fn samples(&self, key: &SampleKey, first_index: u64, count: usize) -> Result<WeightedBatch, SampleError> {
        let mut batches = self.draw(&[SampleRun { key: *key, first_index, count }])?;
        Ok(batches.pop().unwrap_or_default())
    }

    pub(super) fn weighted(
        &self,
        run: &SampleRun,
        latents: Vec<f64>,
        coordinates: Vec<f64>,
        log_probs: Vec<f64>,
        target: TargetBatch,
    ) -> WeightedBatch {
        let kt = self.kt(run.key.temperature);
        let mut target = target;
        if let Some(variance) = self.scaled_auxiliary(&run.key) {
            for (ladj, y) in target.ladj.iter_mut().zip(coordinates.chunks_exact(self.target.dimension())) {
                *ladj += self.target.log_auxiliary(y, variance) - self.target.log_auxiliary(y, 1.0);
            }
        }
        let mut batch = WeightedBatch {
            first_index: run.first_index,
            latents,
            coordinates,
            positions: target.positions,
            reduced_energies: target.energies.iter().map(|u| u / kt).collect(),
            energies: target.energies,
            log_probs,
            log_weights: Vec::with_capacity(run.count),
            ancestors: Vec::new(),
        };
        for ((log_p, ladj), u) in batch.log_probs.iter_mut().zip(target.ladj).zip(&batch.reduced_energies) {
            *log_p = if ladj == f64::NEG_INFINITY { f64::NAN } else { *log_p - ladj };
            let log_w = -u - *log_p;
            batch.log_weights.push(if log_w.is_finite() { log_w } else { f64::NEG_INFINITY });
        }
        batch
    }

    /// The variance of auxiliary variables, if there are any and it is not 1: of scaled latents τ, as the note's §4 has it of all
    /// coordinates.
    fn scaled_auxiliary(&self, key: &SampleKey) -> Option<f64> {
        let is_scaled = key.method == Method::LatentScaling && self.target.coordinates().auxiliary() > 0;
        is_scaled.then(|| self.latent_temperature(key))
    }

    /// log p_τ(x) (n) of positions x (n, D): the density that [`Generator::draw`] samples from; −∞ outside of the coordinates'
    /// domain. Of a model with auxiliary variables it is log p_τ(x, a) − log N(a) of one a, drawn as a function of x.
    pub fn log_prob(&self, key: &SampleKey, positions: &[f64]) -> Result<Vec<f64>, SampleError> {
        let tau = self.latent_temperature(key);
        let d = self.target.dimension();
        let (mut coordinates, mut ladj) = self.target.to_coordinates(positions);
        if let Some(variance) = self.scaled_auxiliary(key) {
            let first = d - self.target.coordinates().auxiliary();
            for (ladj, y) in ladj.iter_mut().zip(coordinates.chunks_exact_mut(d)) {
                *ladj -= self.target.log_auxiliary(y, 1.0);
                y[first..].iter_mut().for_each(|a| *a *= variance.sqrt());
                *ladj += self.target.log_auxiliary(y, variance);
            }
        }
        let (latents, flow_ladj) = self.flow.apply_rows(&coordinates, Tau::One(tau), Direction::Inverse)?;
        let log_q = latents.chunks_exact(d).map(|z| self.flow.prior().log_prob(z, tau));
        let log_p = log_q.zip(flow_ladj).zip(ladj).map(|((q, f), c)| q + f - c);
        let inside = self.target.has_density(&coordinates);
        // Where atoms coincide nothing has a number.
        let is_density = |(log_p, inside): &(f64, bool)| *inside && !log_p.is_nan();
        Ok(log_p.zip(inside).map(|found| if is_density(&found) { found.0 } else { f64::NEG_INFINITY }).collect())
    }
}

impl WeightedBatch {
    /// Appends the samples that come next.
    pub fn append(&mut self, next: Self) {
        if self.is_empty() {
            *self = next;
            return;
        }
        self.latents.extend(next.latents);
        self.coordinates.extend(next.coordinates);
        self.positions.extend(next.positions);
        self.energies.extend(next.energies);
        self.reduced_energies.extend(next.reduced_energies);
        self.log_probs.extend(next.log_probs);
        self.log_weights.extend(next.log_weights);
        self.ancestors.extend(next.ancestors);
    }
}
