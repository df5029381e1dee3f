//! Maximum likelihood on the flow's own samples, and how these are drawn.

use super::maximum_likelihood;
use super::plan::Stage;
use super::replay::{Annealing, OwnBatch, RUNGS};
use super::trainer::{TrainError, Trainer};
use crate::flow::{Direction, Flow, FlowDraws, LatentAddress};
use crate::math::{Purpose, Randoms, log_sum_exp};
use crate::sample::{AnnealingPath, Goal, PathStarts, WideLatents, tuned};
use candle_core::Tensor;
use rayon::prelude::*;

/// Rows whose latents are drawn by one task.
const ROWS_PER_TASK: usize = 64;

/// Addresses of a step.
const ADDRESSES: u64 = 1 << 16;

/// −⟨log q⟩ (a scalar, differentiable) over a batch of own samples.
///
/// Annealed samples are of p̃²/q as it was when they were annealed, and the loss whose gradient is that of ∫p̃²/q is over p̃²/q as
/// it is: each counts by q_then/q_now (Midgley et al. 2023, appendix B). The factors are normalised over the batch instead of
/// clipped: of a sum of one none is too large, and a mode that the flow has left since is not forgotten.
pub(super) fn loss(flow: &Flow, own: &OwnBatch) -> Result<Tensor, TrainError> {
    let (OwnBatch { coordinates, log_probs, .. }, tau) = (own, own.tau());
    if log_probs.is_empty() {
        return maximum_likelihood::loss(flow, coordinates, tau);
    }
    let (z, ladj) = flow.apply(coordinates, tau, Direction::Inverse)?;
    let now = (flow.prior().training_log_prob(&z, tau)? + ladj)?;
    let then = Tensor::from_slice(log_probs, log_probs.len(), coordinates.device())?;
    let factors = (then - now.detach())?;
    let factors = factors.broadcast_sub(&factors.max(0)?)?.exp()?;
    let factors = factors.broadcast_div(&factors.sum_all()?)?.detach();
    Ok((now * factors)?.sum_all()?.neg()?)
}

impl Trainer {
    /// Draws the flow as it is, where that is due; when a generation is whole, it is the one to train on.
    pub(super) fn keep_own_samples(&mut self, stage: &Stage, factor: f64) -> Result<(), TrainError> {
        if !self.counters.step.is_multiple_of(stage.replay.every) {
            return Ok(());
        }
        self.own.gather(stage.replay.annealing.map(|_| factor));
        let rungs = self.rungs(factor);
        let taus = self.latent_temperatures(&rungs);
        for batch in 0..stage.replay.batches {
            let first = self.counters.step * ADDRESSES + batch * stage.batch as u64;
            self.keep_batch(stage, first, &rungs, &taus)?;
        }
        if self.own.pending() as u64 >= stage.replay.samples(stage.batch) {
            let told = self.plan.temperature_range.map(|_| taus.as_slice());
            self.own.turn(&stage.replay.transport, self.target.system().scale(), &rungs, told);
        }
        Ok(())
    }

    /// Draws a batch whose addresses begin at `first`, its rows in turn at the temperature of each rung.
    fn keep_batch(&mut self, stage: &Stage, first: u64, rungs: &[f64], taus: &[f64]) -> Result<(), TrainError> {
        let begun = self.own.pending();
        let of_rows = |of_rungs: &[f64]| -> Vec<f64> {
            (begun..begun + stage.batch).map(|row| of_rungs[row % of_rungs.len()]).collect()
        };
        let taus = of_rows(taus);
        let address =
            |(row, &tau)| LatentAddress { seed: self.plan.seed, purpose: Purpose::OwnSample, index: first + row, tau };
        let addresses: Vec<_> = (0..).zip(&taus).map(address).collect();
        let (draws, excess) = self.own_or_wider(&addresses, stage.replay.wide_share)?;
        self.counters.samples += stage.batch as u64;
        match &stage.replay.annealing {
            None => {
                let batch = self.target.evaluate(&draws.coordinates)?;
                self.own.add(draws, excess, batch);
                self.counters.energy_evaluations += stage.batch as u64;
            }
            Some(annealing) => self.anneal(annealing, draws, first, &of_rows(rungs), &taus)?,
        }
        Ok(())
    }

    /// Draws of the flow as it is, a share a of which, by chance, has wide latents instead, and the log of how much likelier than
    /// the flow makes it each is drawn, log(1 − a + a·h), so that weights are exact.
    fn own_or_wider(&self, addresses: &[LatentAddress], share: f64) -> Result<(FlowDraws, Vec<f64>), TrainError> {
        let Some(wide) = WideLatents::of(self.flow.prior()).filter(|_| share > 0.0) else {
            return Ok((self.draw(addresses)?, vec![0.0; addresses.len()]));
        };
        let (d, narrow) = (self.target.dimension(), (1.0 - share).ln());
        let mut latents = self.flow.prior().sample(addresses);
        let rows = addresses.par_iter().zip(latents.par_chunks_mut(d)).with_min_len(ROWS_PER_TASK);
        let excess = rows
            .map(|(address, z)| {
                let mut random = Randoms::new(address.seed, Purpose::WideOwnSample, address.index);
                if random.uniform() < share {
                    wide.draw(address.tau, &mut random, z);
                }
                log_sum_exp(&[narrow, share.ln() + wide.log_excess(address.tau, z)])
            })
            .collect();
        let taus: Vec<f64> = addresses.iter().map(|address| address.tau).collect();
        Ok((self.carry(latents, &taus)?, excess))
    }

    /// Carries draws towards p̃²/q, each row at its own temperature, keeps their ends, and tunes the step sizes.
    fn anneal(
        &mut self,
        annealing: &Annealing,
        draws: FlowDraws,
        first: u64,
        temperatures: &[f64],
        taus: &[f64],
    ) -> Result<(), TrainError> {
        let Annealing { path: length, step_size } = *annealing;
        if self.own.step_sizes.len() != length.distributions {
            self.own.step_sizes = vec![step_size; length.distributions];
        }
        let random = |row: usize| Randoms::new(self.plan.seed, Purpose::OwnMove, first + row as u64);
        let starts = PathStarts {
            coordinates: draws.coordinates,
            log_probs: &draws.log_probs,
            temperatures,
            taus,
            randoms: (0..taus.len()).map(random).collect(),
        };
        let path = AnnealingPath {
            // Of weights that do not change on the way.
            flow: &self.unaveraged()?,
            target: &self.target,
            length,
            goal: Goal::LeastVariance,
            step_sizes: &self.own.step_sizes,
        };
        let ends = path.carry(starts, || Ok::<(), TrainError>(()))?;
        tuned(&mut self.own.step_sizes, &ends.acceptance, 1.0);
        self.counters.samples += ends.evaluations;
        self.counters.energy_evaluations += ends.evaluations;
        self.own.add_annealed(ends);
        Ok(())
    }

    /// The temperatures that own samples are drawn at: the plan's, or some of its range in equal ratios; times a factor.
    fn rungs(&self, factor: f64) -> Vec<f64> {
        match self.plan.temperature_range {
            None => vec![self.plan.temperature * factor],
            Some(range) => (0..RUNGS).map(|i| factor * range.at(i as f64 / (RUNGS - 1) as f64)).collect(),
        }
    }
}
