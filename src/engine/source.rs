//! Where a stream's samples come from, whichever way they are made: the next ones, and what is known of all so far.

use super::Engine;
use super::annealed::{Interruption, Limits, in_time};
use super::lookout::Lookout;
use super::models::LoadedModel;
use super::outlet::{Outlet, StreamError};
use super::plans::{Decision, Plan};
use crate::sample::{
    Acceptance, AnnealedPaths, ChainBlock, Chains, PROBES, Populations, SampleError, SampleKey, Together,
    WeightedBatch, resampled,
};
use crate::simulate::EnergySeries;
use crate::thermo::{FreeEnergyQuery, UnseenPlace, WeightAccumulator, WeightSummary};
use std::sync::Arc;
use std::time::Instant;

/// Samples of a window between two looks at the clock.
const DRAWN_AT_ONCE: usize = 4096;

/// Steps of chains that correlation can be seen in.
const FEWEST_STEPS: u64 = 16;

/// Energies beyond are as far as any.
const FAR: f64 = 1e100;

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
    /// Of samples; of populations, of ancestors; of windows, of the flow's samples in them; of chains, of the draws that jumps were
    /// tried to. Of populations and windows that have been sent to their end.
    weights: WeightAccumulator,
    /// Of windows, the same of the copies of each ancestor.
    copies: WeightAccumulator,
    /// What they do not see, once it was looked for.
    lookout: Option<Lookout>,
}

/// What is computed together, and sent in parts.
#[derive(Default)]
struct Current {
    made: Option<Together>,
    /// Whether it is in the account, having been sent to its end.
    is_accounted: bool,
}

enum Kind<'a> {
    Independent,
    Annealed(AnnealedPaths),
    Window { size: usize, current: Current },
    Population { plan: Populations, current: Current },
    Chains(Box<ChainsUnderWay<'a>>),
}

/// Chains, the block of them that is made, by its number, and what all came to.
struct ChainsUnderWay<'a> {
    plan: Chains,
    block: Option<(u64, ChainBlock<'a>)>,
    tally: ChainTally,
}

/// Series of the chains of a block, and what finished blocks came to.
#[derive(Default)]
struct ChainTally {
    /// Reduced energies, and log p/q, of each chain.
    series: Option<(EnergySeries, EnergySeries)>,
    /// The block's effective samples, as of so many steps.
    looked: (u64, f64),
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
            Plan::Resampled { window } => Kind::Window { size: *window, current: Current::default() },
            Plan::Populations(plan) => Kind::Population { plan: plan.clone(), current: Current::default() },
            Plan::Chains(plan) => {
                Kind::Chains(Box::new(ChainsUnderWay { plan: plan.clone(), block: None, tally: ChainTally::default() }))
            }
        };
        let (weights, copies) = Default::default();
        Self { key, kind, weights, copies, lookout: None }
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
        let batch: Result<Option<WeightedBatch>, StreamError> = match &mut self.kind {
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
                    let drawn = window(engine, outlet, model, &key, first, size, limits)?;
                    Ok(drawn.map(|drawn| resampled(&key, &drawn)))
                };
                part_of(current, size, index, count, (&mut self.weights, &mut self.copies), make)
            }
            Kind::Population { plan, current } => {
                let make = |number: u64| {
                    in_time(model.generator.population(&key, plan, number, engine.between_steps(outlet, limits)))
                };
                part_of(current, plan.size, index, count, (&mut self.weights, &mut self.copies), make)
            }
            Kind::Chains(chains) => {
                let proceed = engine.between_steps(outlet, limits);
                in_time(chains.next(model, &key, &mut self.weights, index, count, proceed))
            }
        };
        let batch = batch?;
        // Of what is sent, whatever the weights are of.
        batch.iter().for_each(|b| self.weights.count_beyond(&b.reduced_energies, model.generator.card.energy_cut));
        Ok(batch)
    }

    /// How many of the samples so far are as good as independent and equally weighted; of populations and windows, of those that
    /// were sent to their end.
    pub fn effective_samples(&self) -> f64 {
        match &self.kind {
            Kind::Chains(chains) => chains.tally.effective_samples(),
            Kind::Window { .. } => self.copies.effective_samples(),
            _ => self.weights.effective_samples(),
        }
    }

    /// Looks for what independent samples do not see, once there are so many that it is worth it, or by the end of them; also for
    /// the states of a query that it is in.
    pub fn look<T: Send + 'static>(
        &mut self,
        engine: &Engine,
        outlet: &Outlet<T>,
        model: &LoadedModel,
        query: Option<&FreeEnergyQuery>,
        is_end: bool,
        limits: &Limits<'_>,
    ) -> Result<(), StreamError> {
        let is_independent = matches!(self.kind, Kind::Independent | Kind::Window { .. });
        let least = if is_end { model.generator.probed_from() } else { PROBES as u64 };
        if is_independent && self.lookout.is_none() && self.weights.samples() >= least {
            self.lookout = Some(engine.look(outlet, model, &self.key, query, limits)?);
        }
        Ok(())
    }

    /// The places that so many samples do not see, with the states of the query that was looked with.
    pub fn unseen_places(&self, samples: u64) -> Option<Vec<UnseenPlace>> {
        self.lookout.as_ref().and_then(|lookout| lookout.places(samples))
    }

    /// Of all so far, those that a last part was sent of included.
    pub fn weights(&self) -> WeightSummary {
        let weights = self.sent_weights();
        match &self.lookout {
            Some(lookout) => lookout.complete(weights),
            None => weights,
        }
    }

    fn sent_weights(&self) -> WeightSummary {
        match &self.kind {
            Kind::Window { current: Current { made: Some(made), is_accounted: false }, .. }
            | Kind::Population { current: Current { made: Some(made), is_accounted: false }, .. } => {
                let mut all = self.weights.clone();
                made.account(&mut all);
                all.summary()
            }
            _ => self.weights.summary(),
        }
    }

    pub fn chains(&self) -> Option<ChainSummary> {
        match &self.kind {
            Kind::Chains(chains) => Some(chains.tally.summary()),
            _ => None,
        }
    }
}

/// Samples of what is computed together, `size` at a time.
fn part_of(
    current: &mut Current,
    size: usize,
    index: u64,
    count: usize,
    (weights, copies): (&mut WeightAccumulator, &mut WeightAccumulator),
    make: impl FnOnce(u64) -> Result<Option<Together>, StreamError>,
) -> Result<Option<WeightedBatch>, StreamError> {
    let (number, place) = (index / size as u64, (index % size as u64) as usize);
    let first = number * size as u64;
    if current.made.as_ref().is_none_or(|made| made.batch.first_index != first) {
        let Some(made) = make(number)? else { return Ok(None) };
        *current = Current { made: Some(made), is_accounted: false };
    }
    let Some(made) = &current.made else { return Ok(None) };
    let end = made.batch.len().min(place + count);
    if end == made.batch.len() && !current.is_accounted {
        made.account(weights);
        made.account_copies(copies);
        current.is_accounted = true;
    }
    Ok(Some(made.batch.part(place..end)))
}

/// The draws of a window; nothing if the time was over before they were there.
fn window<T: Send + 'static>(
    engine: &Engine,
    outlet: &Outlet<T>,
    model: &Arc<LoadedModel>,
    key: &SampleKey,
    first: u64,
    size: usize,
    limits: &Limits<'_>,
) -> Result<Option<WeightedBatch>, StreamError> {
    let mut drawn = WeightedBatch { first_index: first, ..WeightedBatch::default() };
    while drawn.len() < size {
        if limits.draining.is_cancelled() {
            return Err(StreamError::Draining { next_index: limits.resume });
        }
        if limits.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(None);
        }
        let left = (size - drawn.len()).min(DRAWN_AT_ONCE);
        drawn.append(engine.draw(outlet, model, key, first + drawn.len() as u64, left)?);
    }
    Ok(Some(drawn))
}

impl<'a> ChainsUnderWay<'a> {
    /// The first of the next `count` samples.
    fn next(
        &mut self,
        model: &'a LoadedModel,
        key: &SampleKey,
        weights: &mut WeightAccumulator,
        index: u64,
        count: usize,
        mut proceed: impl FnMut() -> Result<(), Interruption>,
    ) -> Result<WeightedBatch, Interruption> {
        let Self { plan, block, tally } = self;
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
                match current.step(&mut proceed) {
                    // What was made before the time was over is sent.
                    Err(Interruption::OutOfTime) if !all.is_empty() => return Ok(all),
                    made => made?,
                }
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
}

impl ChainTally {
    /// A step of the chains of a block.
    fn add(&mut self, block: &mut ChainBlock<'_>) {
        let (energies, log_ratios) = (block.reduced_energies(), block.log_ratios());
        let chains = energies.len();
        let series = self.series.get_or_insert_with(|| (EnergySeries::new(chains), EnergySeries::new(chains)));
        // A chain that has not come to where there is density is nowhere near the others.
        let finite = |all: Vec<f64>| all.into_iter().map(|x| x.clamp(-FAR, FAR)).collect::<Vec<f64>>();
        series.0.add(&finite(energies));
        series.1.add(&finite(log_ratios));
        self.jumps.merge(&std::mem::take(&mut block.jumps));
        self.exchanges.resize(block.swaps.len(), Acceptance::default());
        self.exchanges.iter_mut().zip(&mut block.swaps).for_each(|(all, one)| all.merge(&std::mem::take(one)));
        // A look goes over all that is kept of the series: after a quarter more each time.
        if series.0.frames >= self.looked.0 + self.looked.0.div_ceil(4).max(1) {
            self.look();
        }
    }

    fn look(&mut self) {
        let Some((energies, log_ratios)) = &self.series else { return };
        let (steps, chains) = (energies.frames, energies.series);
        let found = energies.effective_samples(0..chains).min(log_ratios.effective_samples(0..chains));
        // Of few steps no correlation can be seen; but chains know nothing of each other.
        let most = if steps < FEWEST_STEPS { chains as f64 } else { f64::INFINITY };
        self.looked = (steps, found.min(most));
    }

    fn summary(&self) -> ChainSummary {
        ChainSummary {
            statistical_inefficiency: self.samples as f64 / self.effective_samples(),
            jumps: self.jumps.mean(),
            exchanges: self.exchanges.iter().map(Acceptance::mean).collect(),
        }
    }

    /// The end of a block, whose chains have nothing to do with those of the next.
    fn finish(&mut self) {
        self.look();
        self.finished_effective += self.looked.1;
        self.series = None;
        self.looked = (0, 0.0);
    }

    fn effective_samples(&self) -> f64 {
        self.finished_effective + self.looked.1
    }
}
