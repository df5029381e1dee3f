//! Free-energy estimation, temperature by temperature, on a thread of its own.

use super::models::LoadedModel;
use super::sampling::{StopCause, StreamError};
use super::{Engine, Priority};
use crate::math::Purpose;
use crate::sample::{Method, SampleCursor, SampleKey, TILE};
use crate::thermo::{FreeEnergyAccumulator, FreeEnergyQuery, FreeEnergyReport, WeightAccumulator, WeightSummary};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

/// Time between two estimates on the way to the final one.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Bootstrap resamplings of an estimate on the way.
const QUICK_REPLICATES: usize = 100;

/// Samples drawn between two looks at the clock.
const CHUNK: usize = 8 * TILE;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct EstimateRequest {
    pub temperatures: Vec<f64>,
    pub query: FreeEnergyQuery,
    /// Samples at each temperature, at most.
    pub samples: u64,
    /// Go on to the next temperature once the errors of log Z and of state differences are at most this.
    pub target_standard_error: Option<f64>,
    pub max_duration: Option<Duration>,
    pub seed: u64,
    pub method: Option<Method>,
    pub replicates: usize,
}

/// The answer at one temperature.
#[derive(Clone, Debug)]
pub struct TemperatureEstimate {
    pub temperature: f64,
    pub method: Method,
    pub weights: WeightSummary,
    pub report: FreeEnergyReport,
}

/// All temperatures begun so far.
#[derive(Debug)]
pub struct EstimateItem {
    pub estimates: Vec<TemperatureEstimate>,
    /// Why it ended, on the final item.
    pub finished: Option<StopCause>,
    pub seconds: f64,
}

impl Engine {
    /// Starts an estimation; see [`Engine::stream_samples`] for the channel.
    pub fn estimate(
        &self,
        model: Arc<LoadedModel>,
        request: EstimateRequest,
        permit: OwnedSemaphorePermit,
        draining: CancellationToken,
    ) -> mpsc::Receiver<Result<EstimateItem, StreamError>> {
        let (sender, receiver) = mpsc::channel(1);
        let engine = self.clone();
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let mut send = |item| sender.blocking_send(Ok(item)).is_ok();
            if let Err(error) = engine.produce_estimates(&model, &request, &draining, &mut send) {
                // Nobody listens if the client has gone away.
                let _ = sender.blocking_send(Err(error));
            }
        });
        receiver
    }

    fn produce_estimates(
        &self,
        model: &LoadedModel,
        request: &EstimateRequest,
        draining: &CancellationToken,
        send: &mut dyn FnMut(EstimateItem) -> bool,
    ) -> Result<(), StreamError> {
        let begin = Instant::now();
        let mut done: Vec<TemperatureEstimate> = Vec::new();
        let mut cause = StopCause::Count;
        for &temperature in &request.temperatures {
            let (method, _) = self.method_for(model, temperature, request.method)?;
            let key = SampleKey { temperature, method, seed: request.seed, purpose: Purpose::Sample };
            let mut cursor = SampleCursor::new(key, 0);
            let mut weights = WeightAccumulator::default();
            let mut sums = FreeEnergyAccumulator::new(request.query.clone(), model.generator.kt(temperature));
            let mut last_report = Instant::now();
            let snapshot =
                |weights: &WeightAccumulator, sums: &FreeEnergyAccumulator, replicates| TemperatureEstimate {
                    temperature,
                    method,
                    weights: weights.summary(),
                    report: sums.report(replicates, request.seed),
                };
            let stop = loop {
                let left = request.samples - weights.samples();
                if left == 0 {
                    break StopCause::Count;
                }
                if request.max_duration.is_some_and(|limit| begin.elapsed() >= limit) && weights.samples() > 0 {
                    break StopCause::MaxDuration;
                }
                if draining.is_cancelled() {
                    return Err(StreamError::Draining { next_index: 0 });
                }
                let n = left.min(CHUNK as u64) as usize;
                let batch = cursor.take(&model.generator, n, || self.slot.acquire(Priority::Interactive))?;
                batch.log_weights.iter().for_each(|&w| weights.add(w));
                sums.add(&batch.log_weights, &batch.energies, &batch.positions);
                if last_report.elapsed() >= REPORT_EVERY {
                    let estimate = snapshot(&weights, &sums, QUICK_REPLICATES);
                    let reached = request.target_standard_error.is_some_and(|target| estimate.is_within(target));
                    let estimates = done.iter().cloned().chain([estimate]).collect();
                    let seconds = begin.elapsed().as_secs_f64();
                    if !send(EstimateItem { estimates, finished: None, seconds }) {
                        return Ok(());
                    }
                    if reached {
                        break StopCause::TargetReached;
                    }
                    last_report = Instant::now();
                }
            };
            done.push(snapshot(&weights, &sums, request.replicates));
            cause = stop;
            if stop == StopCause::MaxDuration {
                break;
            }
        }
        send(EstimateItem { estimates: done, finished: Some(cause), seconds: begin.elapsed().as_secs_f64() });
        Ok(())
    }
}

impl TemperatureEstimate {
    /// Whether log Z and all differences of states are as exact as asked for.
    fn is_within(&self, target: f64) -> bool {
        let differences = self.report.state_differences.iter();
        self.report.log_z.standard_error <= target && differences.into_iter().all(|d| d.standard_error <= target)
    }
}
