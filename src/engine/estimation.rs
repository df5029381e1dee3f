//! Free-energy estimation, temperature by temperature, on a thread of its own.

use super::Engine;
use super::annealed::{Limits, deadlines};
use super::models::LoadedModel;
use super::outlet::{Outlet, StreamError};
use super::plans::{Decision, Plan, PlanRequest};
use super::sampling::StopCause;
use super::source::Source;
use crate::math::Purpose;
use crate::sample::{Method, SampleKey};
use crate::thermo::{FreeEnergyAccumulator, FreeEnergyQuery, FreeEnergyReport, WeightSummary};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

/// Time between two estimates on the way to the final one.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Bootstrap resamplings of an estimate on the way.
const QUICK_REPLICATES: usize = 100;

/// Samples before the errors are first compared with the target.
const FIRST_LOOK: u64 = 4 * CHUNK as u64;

/// Populations or windows that errors are told from, at least.
const FEWEST_TOGETHER: u64 = 32;

/// Samples drawn between two looks at the clock.
const CHUNK: usize = 4096;

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
    /// A way that gives log Z.
    pub plan: PlanRequest,
    /// Temperatures with a lower effective fraction are refused.
    pub least_effective_fraction: Option<f64>,
    pub replicates: usize,
}

/// The answer at one temperature.
#[derive(Clone, Debug)]
pub struct TemperatureEstimate {
    pub temperature: f64,
    /// How the flow gives the draws that all begins with.
    pub method: Method,
    /// Nothing where samples are of importance sampling, as they are beside frames.
    pub decision: Option<Decision>,
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
        let engine = self.clone();
        Outlet::run(self.stall, move |outlet| {
            let _permit = permit;
            engine.produce_estimates(&model, &request, &draining, outlet)
        })
    }

    fn produce_estimates(
        &self,
        model: &Arc<LoadedModel>,
        request: &EstimateRequest,
        draining: &CancellationToken,
        outlet: &Outlet<EstimateItem>,
    ) -> Result<(), StreamError> {
        let begin = Instant::now();
        let mut done: Vec<TemperatureEstimate> = Vec::new();
        let mut cause = StopCause::Count;
        let (pilots, deadline) = deadlines(begin, request.max_duration);
        let limits = |next_index| Limits { draining, next_index, resume: None, pilots, deadline };
        // What is to be refused is refused before anything is computed.
        let least = request.least_effective_fraction;
        let decisions: Vec<Decision> = request
            .temperatures
            .iter()
            .map(|&temperature| self.decide(outlet, model, temperature, &request.plan, least, &limits(0)))
            .collect::<Result<_, StreamError>>()?;
        for (&temperature, decision) in request.temperatures.iter().zip(&decisions) {
            let method = decision.method;
            let key = SampleKey { temperature, method, seed: request.seed, purpose: Purpose::Sample };
            let together = decision.plan.together();
            let mut source = Source::new(decision, key);
            let kt = model.generator.kt(temperature);
            // Weights of what is computed together are not independent, and have no tail of their own.
            let changed_weights = request.query.changed_weights && together == 1;
            let query = FreeEnergyQuery { changed_weights, ..request.query.clone() };
            let mut sums = FreeEnergyAccumulator::new(query, kt, together);
            let mut last_report = Instant::now();
            let is_importance = decision.plan == Plan::Importance;
            let snapshot = |source: &Source<'_>, sums: &FreeEnergyAccumulator, replicates| {
                let mut report = sums.report(replicates, request.seed);
                let (decision, weights) = (Some(decision.clone()), source.weights());
                if !is_importance {
                    // What is counted is not what the flow makes.
                    report.state_shares.clear();
                } else if let Some(places) = source.unseen_places(weights.samples) {
                    report.add_unseen(&places);
                }
                TemperatureEstimate { temperature, method, decision, weights, report }
            };
            let mut next_look = FIRST_LOOK.max(FEWEST_TOGETHER * together);
            let mut samples = 0;
            // Whole populations, and as many as a bootstrap of them can tell errors from.
            let wanted = match together {
                1 => request.samples,
                _ => request.samples.max(FEWEST_TOGETHER * together).next_multiple_of(together),
            };
            let stop = loop {
                let left = wanted - samples;
                if left == 0 {
                    break StopCause::Count;
                }
                if request.max_duration.is_some_and(|limit| begin.elapsed() >= limit) && samples > 0 {
                    break StopCause::MaxDuration;
                }
                if draining.is_cancelled() {
                    return Err(StreamError::Draining { next_index: None });
                }
                let n = left.min(CHUNK as u64) as usize;
                let Some(batch) = source.next(self, outlet, model, n, &limits(samples))? else {
                    if samples == 0 {
                        return Err(StreamError::OutOfTime);
                    }
                    break StopCause::MaxDuration;
                };
                samples += batch.len() as u64;
                sums.add(&batch.log_weights, &batch.energies, &batch.positions);
                // Looks at fixed counts of samples: when to stop must not depend on the speed of the machine.
                if let Some(target) = request.target_standard_error
                    && samples >= next_look
                {
                    source.look(self, outlet, model, Some(&request.query), true, &limits(samples))?;
                    if snapshot(&source, &sums, request.replicates).is_within(target) {
                        break StopCause::TargetReached;
                    }
                    next_look = samples + samples / 4;
                }
                if last_report.elapsed() >= REPORT_EVERY {
                    let estimate = snapshot(&source, &sums, QUICK_REPLICATES);
                    let estimates = done.iter().cloned().chain([estimate]).collect();
                    let seconds = begin.elapsed().as_secs_f64();
                    outlet.send(EstimateItem { estimates, finished: None, seconds }, None)?;
                    last_report = Instant::now();
                }
            };
            source.look(self, outlet, model, Some(&request.query), true, &limits(samples))?;
            done.push(snapshot(&source, &sums, request.replicates));
            cause = stop;
            if stop == StopCause::MaxDuration {
                break;
            }
        }
        let seconds = begin.elapsed().as_secs_f64();
        outlet.send(EstimateItem { estimates: done, finished: Some(cause), seconds }, None)
    }
}

impl TemperatureEstimate {
    /// Whether log Z and all differences of states are as exact as asked for, by weights that let their errors be believed: before
    /// the largest weights have come, or places that are hardly made, errors look small.
    fn is_within(&self, target: f64) -> bool {
        if !self.weights.is_believable() || self.report.misjudged_states().next().is_some() {
            return false;
        }
        let differences = self.report.state_differences.iter();
        self.report.log_z.standard_error <= target && differences.into_iter().all(|d| d.standard_error <= target)
    }
}
