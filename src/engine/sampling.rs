//! Streams of samples, computed on a thread of their own.

use super::annealed::{Limits, deadlines};
use super::models::LoadedModel;
use super::outlet::{Outlet, StreamError};
use super::plans::{Decision, PlanRequest};
use super::source::{ChainSummary, Source};
use super::{Engine, Priority};
use crate::math::Purpose;
use crate::sample::{Method, MethodChoice, SampleError, SampleKey, WeightedBatch};
use crate::thermo::WeightSummary;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

/// Configurations whose forces are computed in one turn.
const FORCES_AT_ONCE: usize = 512;

/// What is asked of a stream. It ends at whichever limit comes first.
#[derive(Clone, Debug)]
pub struct SampleRequest {
    pub temperature: f64,
    pub plan: PlanRequest,
    /// A temperature with a lower effective fraction is refused.
    pub least_effective_fraction: Option<f64>,
    pub seed: u64,
    pub first_index: u64,
    pub count: Option<u64>,
    pub target_effective_samples: Option<f64>,
    pub max_duration: Option<Duration>,
    /// Samples in a batch.
    pub batch: usize,
    pub forces: bool,
}

/// Why a stream or an estimation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopCause {
    Count,
    TargetReached,
    MaxDuration,
}

/// What a stream is made of, in this order: one start, batches, one end.
#[derive(Debug)]
pub enum SampleItem {
    Started(Box<Decision>),
    Batch {
        batch: WeightedBatch,
        /// Forces (n, D), if asked for.
        forces: Option<Vec<f64>>,
        samples: u64,
        effective_samples: f64,
    },
    Finished {
        weights: WeightSummary,
        effective_samples: f64,
        chains: Option<ChainSummary>,
        next_index: u64,
        cause: StopCause,
        seconds: f64,
    },
}

impl Engine {
    /// Starts a stream. A reader that stops reading stops the computation, and dropping the receiver ends it. The permit is
    /// held until then.
    pub fn stream_samples(
        &self,
        model: Arc<LoadedModel>,
        request: SampleRequest,
        permit: OwnedSemaphorePermit,
        draining: CancellationToken,
    ) -> mpsc::Receiver<Result<SampleItem, StreamError>> {
        let engine = self.clone();
        Outlet::run(self.stall, move |outlet| {
            let _permit = permit;
            engine.produce_samples(&model, &request, &draining, outlet)
        })
    }

    /// Sends items until a limit is reached.
    fn produce_samples(
        &self,
        model: &Arc<LoadedModel>,
        request: &SampleRequest,
        draining: &CancellationToken,
        outlet: &Outlet<SampleItem>,
    ) -> Result<(), StreamError> {
        let begin = Instant::now();
        let (pilots, deadline) = deadlines(begin, request.max_duration);
        let limits = |next_index| Limits { draining, next_index, resume: Some(next_index), pilots, deadline };
        let (temperature, least) = (request.temperature, request.least_effective_fraction);
        let first = limits(request.first_index);
        let decision = self.decide(outlet, model, temperature, &request.plan, least, &first)?;
        let key = SampleKey { temperature, method: decision.method, seed: request.seed, purpose: Purpose::Sample };
        let mut source = Source::new(&decision, key);
        outlet.send(SampleItem::Started(Box::new(decision)), Some(request.first_index))?;
        let mut next_index = request.first_index;
        let mut samples = 0;
        let cause = loop {
            let left = request.count.map(|count| count - samples);
            if left == Some(0) {
                break StopCause::Count;
            }
            if request.target_effective_samples.is_some_and(|target| source.effective_samples() >= target) {
                break StopCause::TargetReached;
            }
            if request.max_duration.is_some_and(|limit| begin.elapsed() >= limit) {
                break StopCause::MaxDuration;
            }
            if draining.is_cancelled() {
                return Err(StreamError::Draining { next_index: Some(next_index) });
            }
            let n = left.map_or(request.batch, |left| (request.batch as u64).min(left) as usize);
            let Some(batch) = source.next(self, outlet, model, n, &limits(next_index))? else {
                break StopCause::MaxDuration;
            };
            let first = batch.first_index;
            next_index += batch.len() as u64;
            samples += batch.len() as u64;
            let forces = request.forces.then(|| self.forces(outlet, model, &batch)).transpose()?;
            let effective_samples = source.effective_samples();
            outlet.send(SampleItem::Batch { batch, forces, samples, effective_samples }, Some(first))?;
            source.look(self, outlet, model, None, false, &limits(next_index))?;
        };
        source.look(self, outlet, model, None, true, &limits(next_index))?;
        let seconds = begin.elapsed().as_secs_f64();
        let (weights, effective_samples, chains) = (source.weights(), source.effective_samples(), source.chains());
        let end = SampleItem::Finished { weights, effective_samples, chains, next_index, cause, seconds };
        outlet.send(end, Some(next_index))
    }

    /// Samples of a key, together with what others want of the model. A client that goes away ends it after a part.
    pub(super) fn draw<T: Send + 'static>(
        &self,
        outlet: &Outlet<T>,
        model: &Arc<LoadedModel>,
        key: &SampleKey,
        first_index: u64,
        count: usize,
    ) -> Result<WeightedBatch, StreamError> {
        first_index.checked_add(count as u64).ok_or(SampleError::IndexOverflow)?;
        let mut all = WeightedBatch { first_index, ..WeightedBatch::default() };
        while all.len() < count {
            if outlet.is_closed() {
                return Err(StreamError::Gone);
            }
            let (next, left) = (first_index + all.len() as u64, count - all.len());
            all.append(self.batches.draw(&self.slot, &self.metrics, model, key, next, left)?);
        }
        Ok(all)
    }

    /// The method asked for, or the pilot's choice; refused where a pilot of it has a lower effective fraction than `least`.
    pub(super) fn method_for<T: Send + 'static>(
        &self,
        outlet: &Outlet<T>,
        model: &Arc<LoadedModel>,
        temperature: f64,
        method: Option<Method>,
        least: Option<f64>,
    ) -> Result<(Method, Option<MethodChoice>), StreamError> {
        method_from(model, temperature, method, least, |key, count| self.draw(outlet, model, key, 0, count))
    }

    /// Forces (n, D) of a batch, a turn of the device at a time.
    fn forces<T: Send + 'static>(
        &self,
        outlet: &Outlet<T>,
        model: &LoadedModel,
        batch: &WeightedBatch,
    ) -> Result<Vec<f64>, StreamError> {
        let potential = model.generator.target.system().potential();
        let d = potential.dimension();
        let mut forces = vec![0.0; batch.positions.len()];
        let mut energies = vec![0.0; FORCES_AT_ONCE];
        for (x, f) in batch.positions.chunks(FORCES_AT_ONCE * d).zip(forces.chunks_mut(FORCES_AT_ONCE * d)) {
            if outlet.is_closed() {
                return Err(StreamError::Gone);
            }
            let _turn = self.slot.acquire(Priority::Interactive);
            potential.evaluate(x, &mut energies[..x.len() / d], Some(f)).map_err(SampleError::from)?;
            f.iter_mut().for_each(|f| *f = -*f);
        }
        Ok(forces)
    }
}

/// [`Engine::method_for`] with the pilot's samples from anywhere: `draw` gives those of a key from index 0 on, so many.
pub(super) fn method_from(
    model: &LoadedModel,
    temperature: f64,
    method: Option<Method>,
    least: Option<f64>,
    draw: impl FnMut(&SampleKey, usize) -> Result<WeightedBatch, StreamError>,
) -> Result<(Method, Option<MethodChoice>), StreamError> {
    let only = match method {
        Some(method) => Some(method),
        // All are the same there.
        None if temperature == model.generator.temperature() => Some(Method::Reweighting),
        None => None,
    };
    if let (Some(method), None) = (only, least) {
        return Ok((method, None));
    }
    let choice = model.choose_method(temperature, only, draw)?;
    let effective_fraction = choice.effective_fraction();
    match least {
        Some(least) if effective_fraction < least => {
            Err(StreamError::Uncovered { temperature, effective_fraction, least })
        }
        _ => Ok((choice.method, only.is_none().then_some(choice))),
    }
}
