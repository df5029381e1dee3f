//! The free-energy difference of two end points, on a thread of its own.

use super::Engine;
use super::annealed::{Limits, deadlines};
use super::frames::Frames;
use super::lookout::Lookout;
use super::models::LoadedModel;
use super::outlet::{Outlet, StreamError};
use super::sampling::StopCause;
use crate::energy::System;
use crate::math::Purpose;
use crate::sample::{Method, SampleKey, WeightedBatch};
use crate::thermo::{
    BarError, Difference, DifferenceSettings, EndSamples, WeightAccumulator, WeightSummary, difference,
};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

/// Samples of each model between two looks at the clock.
const CHUNK: usize = 4096;

/// Samples before the error is first compared with the target.
const FIRST_LOOK: usize = 4 * CHUNK;

/// Time between two estimates on the way, and times that one took.
const REPORT_EVERY: Duration = Duration::from_secs(1);
const REPORT_SHARE: u32 = 5;

/// Bootstrap resamplings of an estimate on the way.
const QUICK_REPLICATES: usize = 100;

/// One end: a Boltzmann distribution, and what its samples are of.
#[derive(Clone, Debug)]
pub enum EndPoint {
    /// A model's system at a temperature, sampled by its flow.
    Model { model: Arc<LoadedModel>, temperature: f64, method: Option<Method> },
    /// A system at the temperature of frames of it.
    Data { system: Box<System>, frames: Frames },
}

impl EndPoint {
    pub fn system(&self) -> &System {
        match self {
            Self::Model { model, .. } => model.generator.target.system(),
            Self::Data { system, .. } => system,
        }
    }

    pub fn temperature(&self) -> f64 {
        match self {
            Self::Model { temperature, .. } => *temperature,
            Self::Data { frames, .. } => frames.temperature,
        }
    }

    fn kt(&self) -> f64 {
        self.system().scale().kt(self.temperature())
    }
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct DifferenceRequest {
    /// f of the second less that of the first.
    pub ends: [EndPoint; 2],
    /// Samples of each model, at most.
    pub samples: usize,
    /// End once the asymptotic error of the estimate from both ends is at most this.
    pub target_standard_error: Option<f64>,
    pub max_duration: Option<Duration>,
    pub seed: u64,
    pub replicates: usize,
}

/// What is known of an end's samples.
#[derive(Clone, Debug)]
pub struct EndReport {
    /// How a model's samples were made.
    pub method: Option<Method>,
    pub samples: usize,
    /// Of a model's samples: their weights to their own end.
    pub own: Option<WeightSummary>,
    /// Weights of the samples to the other end.
    pub other: WeightSummary,
    /// Samples in the domain of their own end that the other end's model does not make.
    pub beyond: u64,
}

/// An estimate on the way, or the last one.
#[derive(Debug)]
pub struct DifferenceItem {
    /// Nothing while no sample could be of both ends.
    pub difference: Option<Difference>,
    pub ends: [EndReport; 2],
    pub finished: Option<StopCause>,
    pub seconds: f64,
}

/// The samples of an end so far, as [`EndSamples`] has them.
#[derive(Default)]
struct Column {
    own: Vec<f64>,
    other: Vec<f64>,
    density: Vec<f64>,
    own_weights: WeightAccumulator,
    other_weights: WeightAccumulator,
    beyond: u64,
    /// What a model's samples do not see, once it was looked for.
    lookout: Option<Lookout>,
}

impl Column {
    /// Weights of a model's samples to their own end.
    fn weights(&self) -> WeightSummary {
        let weights = self.own_weights.summary();
        match &self.lookout {
            Some(lookout) => lookout.complete(weights),
            None => weights,
        }
    }
}

impl Engine {
    /// Starts an estimation; see [`Engine::stream_samples`] for the channel.
    pub fn difference(
        &self,
        request: DifferenceRequest,
        permit: OwnedSemaphorePermit,
        draining: CancellationToken,
    ) -> mpsc::Receiver<Result<DifferenceItem, StreamError>> {
        let engine = self.clone();
        Outlet::run(self.stall, move |outlet| {
            let _permit = permit;
            engine.produce_differences(&request, &draining, outlet)
        })
    }

    fn produce_differences(
        &self,
        request: &DifferenceRequest,
        draining: &CancellationToken,
        outlet: &Outlet<DifferenceItem>,
    ) -> Result<(), StreamError> {
        let begin = Instant::now();
        let (_, deadline) = deadlines(begin, request.max_duration);
        let late = || request.max_duration.is_some_and(|limit| begin.elapsed() >= limit);
        let key_of = |end: &EndPoint| match end {
            EndPoint::Data { .. } => Ok(None),
            EndPoint::Model { model, temperature, method } => {
                let (method, _) = self.method_for(outlet, model, *temperature, *method, None)?;
                let key = SampleKey { temperature: *temperature, method, seed: request.seed, purpose: Purpose::Sample };
                Ok::<_, StreamError>(Some(key))
            }
        };
        let work =
            Work { engine: self, ends: &request.ends, keys: [key_of(&request.ends[0])?, key_of(&request.ends[1])?] };
        let mut columns = [Column::default(), Column::default()];
        let limits = Limits { draining, next_index: 0, resume: None, pilots: None, deadline };
        let mut cause = StopCause::Count;
        for end in 0..2 {
            let EndPoint::Data { frames, .. } = &request.ends[end] else { continue };
            while columns[end].other.len() < frames.len() {
                Self::check_wanted(outlet, draining)?;
                if late() && !columns[end].other.is_empty() {
                    cause = StopCause::MaxDuration;
                    break;
                }
                let positions = outlet.wait(frames.read(columns[end].other.len(), CHUNK))?;
                work.add_frames(outlet, end, &positions, &mut columns[end])?;
            }
        }
        let drawn_of = |columns: &[Column; 2]| {
            let of_models = (0..2).filter(|&end| work.keys[end].is_some());
            of_models.map(|end| columns[end].other.len()).next()
        };
        let mut next_look = FIRST_LOOK;
        let mut next_report = REPORT_EVERY;
        while let Some(drawn) = drawn_of(&columns) {
            if drawn >= request.samples {
                break;
            }
            if late() && drawn > 0 {
                cause = StopCause::MaxDuration;
                break;
            }
            let n = CHUNK.min(request.samples - drawn);
            for end in 0..2 {
                let (EndPoint::Model { model, .. }, Some(key)) = (&request.ends[end], &work.keys[end]) else {
                    continue;
                };
                Self::check_wanted(outlet, draining)?;
                let batch = self.draw(outlet, model, key, drawn as u64, n)?;
                work.add_samples(outlet, end, &batch, &mut columns[end])?;
            }
            // Looks at fixed counts of samples: when to stop must not depend on the speed of the machine.
            if let Some(target) = request.target_standard_error
                && drawn + n >= next_look
            {
                next_look = (drawn + n) + (drawn + n) / 4;
                let settings = DifferenceSettings { replicates: 0, seed: request.seed };
                let found = work.estimate(&columns, &settings);
                work.look(outlet, &mut columns, &limits)?;
                let believable = columns.iter().all(|c| c.own.is_empty() || c.weights().is_believable());
                if believable && found.is_ok_and(|found| found.both.asymptotic_error <= target) {
                    cause = StopCause::TargetReached;
                    break;
                }
            }
            if begin.elapsed() >= next_report {
                let before = begin.elapsed();
                let replicates = QUICK_REPLICATES.min(request.replicates);
                let found = work.estimate(&columns, &DifferenceSettings { replicates, seed: request.seed });
                let difference = match found {
                    Ok(found) => Some(found),
                    Err(BarError::NoOverlap) => None,
                    Err(error) => return Err(error.into()),
                };
                let seconds = begin.elapsed().as_secs_f64();
                outlet
                    .send(DifferenceItem { difference, ends: work.reports(&columns), finished: None, seconds }, None)?;
                next_report = begin.elapsed() + REPORT_EVERY.max((begin.elapsed() - before) * REPORT_SHARE);
            }
        }
        Self::check_wanted(outlet, draining)?;
        work.look(outlet, &mut columns, &limits)?;
        let settings = DifferenceSettings { replicates: request.replicates, seed: request.seed };
        let found = work.estimate(&columns, &settings)?;
        let seconds = begin.elapsed().as_secs_f64();
        let ends = work.reports(&columns);
        outlet.send(DifferenceItem { difference: Some(found), ends, finished: Some(cause), seconds }, None)
    }
}

/// Two ends, and the addresses of their models' samples.
struct Work<'a> {
    engine: &'a Engine,
    ends: &'a [EndPoint; 2],
    keys: [Option<SampleKey>; 2],
}

impl Work<'_> {
    /// log of an end's Boltzmann factor (n) at positions x (n, D), −∞ where its model makes nothing; and the log density of its
    /// flow, if it is a model. With its energies U (n) at them, if they are known.
    fn factors<T: Send + 'static>(
        &self,
        outlet: &Outlet<T>,
        end: usize,
        positions: &[f64],
        energies: Option<&[f64]>,
    ) -> Result<(Vec<f64>, Option<Vec<f64>>), StreamError> {
        let point = &self.ends[end];
        let kt = point.kt();
        let mut factors: Vec<f64> = match energies {
            Some(energies) => energies.iter().map(|u| -u / kt).collect(),
            None => self.engine.energies(outlet, point.system(), positions)?.iter().map(|u| -u / kt).collect(),
        };
        let (EndPoint::Model { model, .. }, Some(key)) = (point, &self.keys[end]) else { return Ok((factors, None)) };
        let log_q = self.engine.log_densities(outlet, model, key, positions)?;
        for (factor, log_q) in factors.iter_mut().zip(&log_q) {
            if *log_q == f64::NEG_INFINITY {
                *factor = f64::NEG_INFINITY;
            }
        }
        Ok((factors, Some(log_q)))
    }

    /// Frames x (n, D) of an end.
    fn add_frames<T: Send + 'static>(
        &self,
        outlet: &Outlet<T>,
        end: usize,
        positions: &[f64],
        column: &mut Column,
    ) -> Result<(), StreamError> {
        let point = &self.ends[end];
        let energies = self.engine.energies(outlet, point.system(), positions)?;
        let shared = self.shares_energy().then_some(energies.as_slice());
        let (factors, log_q) = self.factors(outlet, 1 - end, positions, shared)?;
        let kt = point.kt();
        for (i, (energy, factor)) in energies.iter().zip(&factors).enumerate() {
            let u = energy / kt;
            let other = factor + u;
            column.other.push(other);
            // What is not a number is refused when the estimate is made.
            column.other_weights.add(if other.is_nan() { f64::NEG_INFINITY } else { other });
            if let Some(log_q) = log_q.as_ref().and_then(|log_q| log_q.get(i)) {
                column.density.push(log_q + u);
                column.beyond += u64::from(*log_q == f64::NEG_INFINITY);
            }
        }
        Ok(())
    }

    /// Samples of an end's model.
    fn add_samples<T: Send + 'static>(
        &self,
        outlet: &Outlet<T>,
        end: usize,
        batch: &WeightedBatch,
        column: &mut Column,
    ) -> Result<(), StreamError> {
        let shared = self.shares_energy().then_some(batch.energies.as_slice());
        let (factors, log_q) = self.factors(outlet, 1 - end, &batch.positions, shared)?;
        let samples = batch.log_weights.iter().zip(&batch.log_probs).zip(&factors);
        for (i, ((own, log_p), factor)) in samples.enumerate() {
            // Outside of the coordinates' domain there is no density to compare; such samples count.
            let weight = |x: f64| if log_p.is_finite() && x.is_finite() { x } else { f64::NEG_INFINITY };
            let other = weight(factor - log_p);
            column.own.push(*own);
            column.other.push(other);
            column.own_weights.add(*own);
            column.other_weights.add(other);
            if let Some(log_q) = log_q.as_ref().and_then(|log_q| log_q.get(i)) {
                column.density.push(weight(log_q - log_p));
                column.beyond += u64::from(*log_q == f64::NEG_INFINITY && log_p.is_finite());
            }
        }
        Ok(())
    }

    /// Whether both ends have the same energy, and differ in temperature.
    fn shares_energy(&self) -> bool {
        self.ends[0].system().digest() == self.ends[1].system().digest()
    }

    fn estimate(&self, columns: &[Column; 2], settings: &DifferenceSettings) -> Result<Difference, BarError> {
        let of = |end: usize| {
            let column = &columns[end];
            let density = (!column.density.is_empty()).then(|| column.density.clone());
            match self.keys[end] {
                Some(_) => EndSamples::flow(column.own.clone(), column.other.clone(), density),
                None => EndSamples::trajectory(column.other.clone(), density),
            }
        };
        difference(&of(0), &of(1), settings)
    }

    /// Looks for what the samples of models do not see, if there are so many that it is worth it.
    fn look<T: Send + 'static>(
        &self,
        outlet: &Outlet<T>,
        columns: &mut [Column; 2],
        limits: &Limits<'_>,
    ) -> Result<(), StreamError> {
        for ((end, key), column) in self.ends.iter().zip(&self.keys).zip(columns) {
            let (EndPoint::Model { model, .. }, Some(key)) = (end, key) else { continue };
            if column.lookout.is_none() && column.own.len() as u64 >= model.generator.probed_from() {
                column.lookout = Some(self.engine.look(outlet, model, key, None, limits)?);
            }
        }
        Ok(())
    }

    fn reports(&self, columns: &[Column; 2]) -> [EndReport; 2] {
        [0, 1].map(|end| {
            let column = &columns[end];
            EndReport {
                method: self.keys[end].map(|key| key.method),
                samples: column.other.len(),
                own: self.keys[end].map(|_| column.weights()),
                other: column.other_weights.summary(),
                beyond: column.beyond,
            }
        })
    }
}
