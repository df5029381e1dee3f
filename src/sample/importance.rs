//! Importance sampling: independent samples with exact log weights.

use super::generator::Generator;
use super::method::Method;
use crate::coords::TargetBatch;
use crate::energy::EnergyError;
use crate::flow::{Direction, FlowDraws, FlowError, LatentAddress};
use crate::math::Purpose;

/// Samples are computed in tiles of this many, aligned to their index. A matrix product may round differently for
/// another number of rows; with fixed tiles a sample has the same bits whatever batch it is asked for in.
pub const TILE: usize = 512;

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
}

impl WeightedBatch {
    /// The number n of samples.
    pub fn len(&self) -> usize {
        self.log_weights.len()
    }

    pub fn is_empty(&self) -> bool {
        self.log_weights.is_empty()
    }
}

/// Why samples could not be drawn.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    #[error(transparent)]
    Flow(#[from] FlowError),
    #[error(transparent)]
    Energy(#[from] EnergyError),
    #[error("sample indices end at 2^64 − 1; ask for fewer samples from a smaller first index")]
    IndexOverflow,
}

impl Generator {
    /// The tile of [`TILE`] samples that begins at index `tile · TILE`.
    pub fn tile(&self, key: &SampleKey, tile: u64) -> Result<WeightedBatch, SampleError> {
        let first_index = tile.checked_mul(TILE as u64).ok_or(SampleError::IndexOverflow)?;
        let last_index = first_index.checked_add(TILE as u64 - 1).ok_or(SampleError::IndexOverflow)?;
        let tau = self.latent_temperature(key);
        #[cfg(feature = "cuda")]
        if let Some((draws, target)) = self.draw_on_device(key, first_index, TILE, tau)? {
            return Ok(self.weighted(key, first_index, draws, target));
        }
        let addresses: Vec<LatentAddress> = (first_index..=last_index)
            .map(|index| LatentAddress { seed: key.seed, purpose: key.purpose, index, tau })
            .collect();
        let draws = self.flow.draw(&addresses)?;
        let target = self.target.evaluate(&draws.coordinates)?;
        Ok(self.weighted(key, first_index, draws, target))
    }

    /// The weights of draws, given the target at their coordinates.
    fn weighted(&self, key: &SampleKey, first_index: u64, draws: FlowDraws, target: TargetBatch) -> WeightedBatch {
        let FlowDraws { latents, coordinates, log_probs } = draws;
        let kt = self.kt(key.temperature);
        let mut batch = WeightedBatch {
            first_index,
            latents,
            coordinates,
            reduced_energies: target.energies.iter().map(|u| u / kt).collect(),
            energies: target.energies,
            positions: target.positions,
            ..WeightedBatch::default()
        };
        for (i, log_q) in log_probs.into_iter().enumerate() {
            let outside = target.ladj[i] == f64::NEG_INFINITY;
            let log_p = if outside { f64::NAN } else { log_q - target.ladj[i] };
            let log_w = -batch.reduced_energies[i] - log_p;
            batch.log_probs.push(log_p);
            batch.log_weights.push(if log_w.is_finite() { log_w } else { f64::NEG_INFINITY });
        }
        batch
    }

    /// log p_τ(x) (n) of positions x (n, D): the density that [`Generator::tile`] samples from.
    pub fn log_prob(&self, key: &SampleKey, positions: &[f64]) -> Result<Vec<f64>, SampleError> {
        let tau = self.latent_temperature(key);
        let d = self.target.dimension();
        let (coordinates, ladj) = self.target.to_coordinates(positions);
        let (latents, flow_ladj) = self.flow.apply_rows(&coordinates, Direction::Inverse)?;
        let log_q = latents.chunks_exact(d).map(|z| self.flow.prior().log_prob(z, tau));
        Ok(log_q.zip(flow_ladj).zip(ladj).map(|((q, f), c)| q + f - c).collect())
    }

    /// The variance of the latents: τ = T/T₀ if they are scaled (§4.2 of the note), else one.
    fn latent_temperature(&self, key: &SampleKey) -> f64 {
        match key.method {
            Method::Reweighting => 1.0,
            Method::LatentScaling => key.temperature / self.temperature(),
        }
    }
}

/// A position in the sequence of samples of a key.
#[derive(Clone, Debug)]
pub struct SampleCursor {
    key: SampleKey,
    next_index: u64,
    tile: Option<WeightedBatch>,
}

impl SampleCursor {
    pub fn new(key: SampleKey, first_index: u64) -> Self {
        Self { key, next_index: first_index, tile: None }
    }

    /// The index of the next sample.
    pub fn next_index(&self) -> u64 {
        self.next_index
    }

    /// The next n samples. What `turn` gives is held while a tile is computed.
    pub fn take<G>(
        &mut self,
        generator: &Generator,
        n: usize,
        mut turn: impl FnMut() -> G,
    ) -> Result<WeightedBatch, SampleError> {
        let end = self.next_index.checked_add(n as u64).ok_or(SampleError::IndexOverflow)?;
        let mut out = WeightedBatch { first_index: self.next_index, ..WeightedBatch::default() };
        while self.next_index < end {
            let number = self.next_index / TILE as u64;
            if self.tile.as_ref().is_none_or(|tile| tile.first_index / TILE as u64 != number) {
                let _turn = turn();
                self.tile = Some(generator.tile(&self.key, number)?);
            }
            if let Some(tile) = &self.tile {
                let from = (self.next_index - tile.first_index) as usize;
                let to = (end - tile.first_index).min(TILE as u64) as usize;
                out.extend(tile, from, to);
                self.next_index += (to - from) as u64;
            }
        }
        Ok(out)
    }
}

impl WeightedBatch {
    /// Appends samples `from..to` of another batch.
    fn extend(&mut self, other: &Self, from: usize, to: usize) {
        let rows = |target: &mut Vec<f64>, source: &[f64]| {
            let width = source.len() / other.len();
            target.extend_from_slice(&source[from * width..to * width]);
        };
        rows(&mut self.latents, &other.latents);
        rows(&mut self.coordinates, &other.coordinates);
        rows(&mut self.positions, &other.positions);
        rows(&mut self.energies, &other.energies);
        rows(&mut self.reduced_energies, &other.reduced_energies);
        rows(&mut self.log_probs, &other.log_probs);
        rows(&mut self.log_weights, &other.log_weights);
    }
}
