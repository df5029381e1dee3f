//! Where a stream's samples come from, whichever way they are made: the next ones, and what is known of all so far.

use super::Engine;
use super::annealed::{Interruption, Limits, in_time};
use super::models::LoadedModel;
use super::outlet::{Outlet, StreamError};
use super::plans::{Decision, Plan};
use crate::sample::{
    Acceptance, AnnealedPaths, ChainBlock, Chains, Populations, SampleError, SampleKey, Together, WeightedBatch,
    resampled,
};
use crate::simulate::effective_samples;
use crate::thermo::{WeightAccumulator, WeightSummary};
use std::sync::Arc;

/// What is known of chains.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChainSummary {
    /// Samples for each independent one, by the reduced energy or log p/q, whichever is the slower.
    pub statistical_inefficiency: f64,
    /// Mean probability of acceptance of jumps to draws of the flow, and of exchanges of neighbouring replicas.
    pub jumps: f64,
    pub exchanges: Vec<f64>,
}

/// Samples one after the other.
pub(super) struct Source<'a> {
    key: SampleKey,
    kind: Kind<'a>,
    /// Of samples; of populations and windows, of ancestors; of chains, of the draws that jumps were tried to.
    weights: WeightAccumulator,
}

enum Kind<'a> {
    Independent,
    Annealed(AnnealedPaths),
    Window { size: usize, current: Option<WeightedBatch> },
    Population { plan: Populations, current: Option<WeightedBatch> },
    Chains { plan: Chains, block: Option<(u64, ChainBlock<'a>)>, tally: ChainTally },
}

/// Series of the chains of a block, and what finished blocks came to.
#[derive(Default)]
struct ChainTally {
    /// Reduced energies and log p/q of each chain.
    energies: Vec<Vec<f64>>,
    log_ratios: Vec<Vec<f64>>,
    finished_effective: f64,
    samples: u64,
    jumps: Acceptance,
    exchanges: Vec<Acceptance>,
}

impl<'a> Source<'a> {
    pub fn new(decision: &Decision, key: SampleKey) -> Self {
        let kind = match &decision.plan {
            Plan::Importance => Kind::Independent,
            Plan::Annealed(paths) => Kind::Annealed(paths.clone()),
            Plan::Resampled { window } => Kind::Window { size: *window, current: None },
            Plan::Populations(plan) => Kind::Population { plan: plan.clone(), current: None },
            Plan::Chains(plan) => Kind::Chains { plan: plan.clone(), block: None, tally: ChainTally::default() },
        };
        Self { key, kind, weights: WeightAccumulator::default() }
    }

    /// The first of the next `count` samples, from `limits.next_index` on, which follow those before; nothing if the time was over
    /// before they were there.
    pub fn next<T: Send + 'static>(
        &mut self,
        engine: &Engine,
        outlet: &Outlet<T>,
        model: &'a Arc<LoadedModel>,
        count: usize,
        limits: &Limits<'_>,
    ) -> Result<Option<WeightedBatch>, StreamError> {
        let index = limits.next_index;
        index.checked_add(count as u64).ok_or(SampleError::IndexOverflow)?;
        let key = self.key;
        match &mut self.kind {
            Kind::Independent => {
                let batch = engine.draw(outlet, model, &key, index, count)?;
                batch.log_weights.iter().for_each(|&w| self.weights.add(w));
                Ok(Some(batch))
            }
            Kind::Annealed(paths) => {
                let batch = engine.draw_annealed(outlet, model, &key, paths, count, limits)?;
                batch.iter().flat_map(|b| &b.log_weights).for_each(|&w| self.weights.add(w));
                Ok(batch)
            }
            Kind::Window { size, current } => {
                let size = *size;
                let make = |number: u64| {
                    let first = number.checked_mul(size as u64).ok_or(SampleError::IndexOverflow)?;
                    Ok(Some(resampled(&key, &engine.draw(outlet, model, &key, first, size)?)))
                };
                part_of(current, size, index, count, &mut self.weights, make)
            }
            Kind::Population { plan, current } => {
                let make = |number: u64| {
                    in_time(model.generator.population(&key, plan, number, engine.between_steps(outlet, limits)))
                };
                part_of(current, plan.size, index, count, &mut self.weights, make)
            }
            Kind::Chains { plan, block, tally } => {
                let weights = &mut self.weights;
                let proceed = engine.between_steps(outlet, limits);
                in_time(next_of_chains(model, &key, plan, block, tally, weights, index, count, proceed))
            }
        }
    }

    /// How many of the samples so far are as good as independent and equally weighted.
    pub fn effective_samples(&self) -> f64 {
        match &self.kind {
            Kind::Chains { tally, .. } => tally.effective_samples(),
            _ => self.weights.effective_samples(),
        }
    }

    pub fn weights(&self) -> WeightSummary {
        self.weights.summary()
    }

    pub fn chains(&self) -> Option<ChainSummary> {
        match &self.kind {
            Kind::Chains { tally, .. } => Some(ChainSummary {
                statistical_inefficiency: tally.samples as f64 / tally.effective_samples(),
                jumps: tally.jumps.mean(),
                exchanges: tally.exchanges.iter().map(Acceptance::mean).collect(),
            }),
            _ => None,
        }
    }
}

/// Samples of what is computed together, `size` at a time.
fn part_of(
    current: &mut Option<WeightedBatch>,
    size: usize,
    index: u64,
    count: usize,
    weights: &mut WeightAccumulator,
    make: impl FnOnce(u64) -> Result<Option<Together>, StreamError>,
) -> Result<Option<WeightedBatch>, StreamError> {
    let (number, place) = (index / size as u64, (index % size as u64) as usize);
    let first = number * size as u64;
    if current.as_ref().is_none_or(|batch| batch.first_index != first) {
        let Some(made) = make(number)? else { return Ok(None) };
        made.account(weights);
        *current = Some(made.batch);
    }
    Ok(current.as_ref().map(|batch| batch.part(place..batch.len().min(place + count))))
}

#[allow(clippy::too_many_arguments)]
fn next_of_chains<'a>(
    model: &'a LoadedModel,
    key: &SampleKey,
    plan: &Chains,
    block: &mut Option<(u64, ChainBlock<'a>)>,
    tally: &mut ChainTally,
    weights: &mut WeightAccumulator,
    index: u64,
    count: usize,
    mut proceed: impl FnMut() -> Result<(), Interruption>,
) -> Result<WeightedBatch, Interruption> {
    let (chains, burn_in) = (plan.shape.chains, plan.shape.burn_in);
    let mut all = WeightedBatch { first_index: index, ..WeightedBatch::default() };
    while all.len() < count {
        let next = index + all.len() as u64;
        let (number, within) = (next / plan.block(), next % plan.block());
        let (step, chain) = ((within / chains as u64) as usize, (within % chains as u64) as usize);
        if block.as_ref().is_none_or(|(current, _)| *current != number) {
            tally.finish();
            *block = Some((number, ChainBlock::begin(&model.generator, key, plan, number)?));
        }
        let Some((_, current)) = block.as_mut() else { break };
        while current.steps() < burn_in + step + 1 {
            current.step(&mut proceed)?;
            current.drawn.drain(..).for_each(|w| weights.add(w));
            if current.steps() == burn_in + step + 1 {
                tally.add(current);
            }
        }
        let rows = current.samples(next - chain as u64).part(chain..chains.min(chain + count - all.len()));
        tally.samples += rows.len() as u64;
        all.append(rows);
    }
    Ok(all)
}

impl ChainTally {
    /// A step of the chains of a block.
    fn add(&mut self, block: &mut ChainBlock<'_>) {
        let (energies, log_ratios) = (block.samples(0).reduced_energies, block.log_ratios());
        self.energies.resize(energies.len(), Vec::new());
        self.log_ratios.resize(energies.len(), Vec::new());
        self.energies.iter_mut().zip(energies).for_each(|(series, u)| series.push(u));
        self.log_ratios.iter_mut().zip(log_ratios).for_each(|(series, r)| series.push(r));
        self.jumps.merge(&std::mem::take(&mut block.jumps));
        self.exchanges.resize(block.swaps.len(), Acceptance::default());
        self.exchanges.iter_mut().zip(&mut block.swaps).for_each(|(all, one)| all.merge(&std::mem::take(one)));
    }

    /// The end of a block, whose chains have nothing to do with those of the next.
    fn finish(&mut self) {
        self.finished_effective += self.of_block();
        self.energies.clear();
        self.log_ratios.clear();
    }

    fn of_block(&self) -> f64 {
        if self.energies.is_empty() {
            return 0.0;
        }
        effective_samples(&self.energies).min(effective_samples(&self.log_ratios))
    }

    fn effective_samples(&self) -> f64 {
        self.finished_effective + self.of_block()
    }
}
