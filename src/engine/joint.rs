//! Free energies from a model's samples and frames of molecular dynamics together, on a thread of its own.

use super::Engine;
use super::estimation::TemperatureEstimate;
use super::frames::Frames;
use super::joint_run::{Run, Solved};
use super::models::LoadedModel;
use super::outlet::{Outlet, StreamError};
use super::sampling::StopCause;
use crate::sample::Method;
use crate::thermo::{FreeEnergyQuery, JointEstimate, MbarError, MbarSolution, WeightSummary};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

/// Samples of each flow between two looks at the clock.
const CHUNK: usize = 4096;

/// Samples before errors are first compared with the target.
const FIRST_LOOK: usize = 4 * CHUNK;

/// Time between two estimates on the way, and their bootstrap resamplings.
const REPORT_EVERY: Duration = Duration::from_secs(1);
const QUICK_REPLICATES: usize = 100;

/// Resamplings of estimates that are solved for again in each, at most.
pub const MOST_SOLVED: usize = 200;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct JointRequest {
    pub temperatures: Vec<f64>,
    pub query: FreeEnergyQuery,
    /// Which estimators are wanted.
    pub importance: bool,
    pub bar: bool,
    pub mbar: bool,
    /// Frames, those of each temperature of a dataset apart.
    pub data: Vec<Frames>,
    /// Samples of each density of the model, at most.
    pub samples: usize,
    /// End once the asymptotic errors of log Z by the joint estimators are at most this.
    pub target_standard_error: Option<f64>,
    pub max_duration: Option<Duration>,
    pub seed: u64,
    pub method: Option<Method>,
    pub least_effective_fraction: Option<f64>,
    pub replicates: usize,
}

/// Frames as they were used.
#[derive(Clone, Debug)]
pub struct UsedFrames {
    pub dataset: String,
    pub temperature: f64,
    /// Of the temperature in the dataset.
    pub frames: u64,
    pub used: u64,
    /// Of the frames that were looked at, which are every so-manieth of the dataset.
    pub inefficiency: f64,
    pub looked_at_every: u64,
    /// Of those looked at: outside of what the model makes.
    pub beyond: u64,
}

/// A state of MBAR.
#[derive(Clone, Debug)]
pub struct JointState {
    /// Of a flow's density: how it is sampled.
    pub method: Option<Method>,
    pub temperature: f64,
    pub samples: u64,
}

/// The answers, or what there is of them.
#[derive(Debug)]
pub struct JointItem {
    /// By importance weights, for each temperature if they are wanted.
    pub importance: Vec<TemperatureEstimate>,
    /// By Bennett's ratio, for each temperature if it is wanted; on the final item only, as are those by MBAR.
    pub bar: Vec<JointEstimate>,
    pub mbar: Vec<JointEstimate>,
    pub states: Vec<JointState>,
    pub solution: Option<MbarSolution>,
    /// Of each temperature.
    pub methods: Vec<Method>,
    pub weights: Vec<WeightSummary>,
    pub data: Vec<UsedFrames>,
    /// Of each temperature that there are frames of, the share of those that count that is in each state.
    pub frame_shares: Vec<Option<Vec<f64>>>,
    pub finished: Option<StopCause>,
    pub seconds: f64,
}

impl Engine {
    /// Starts an estimation; see [`Engine::stream_samples`] for the channel.
    pub fn joint(
        &self,
        model: Arc<LoadedModel>,
        request: JointRequest,
        permit: OwnedSemaphorePermit,
        draining: CancellationToken,
    ) -> mpsc::Receiver<Result<JointItem, StreamError>> {
        let engine = self.clone();
        Outlet::run(self.stall, move |outlet| {
            let _permit = permit;
            engine.produce_joint(&model, &request, &draining, outlet)
        })
    }

    fn produce_joint(
        &self,
        model: &Arc<LoadedModel>,
        request: &JointRequest,
        draining: &CancellationToken,
        outlet: &Outlet<JointItem>,
    ) -> Result<(), StreamError> {
        let begin = Instant::now();
        let late = || request.max_duration.is_some_and(|limit| begin.elapsed() >= limit);
        let mut run = Run::begin(self, model, request, outlet)?;
        let mut cause = StopCause::Count;
        for frames in &request.data {
            run.read(frames, draining, outlet)?;
        }
        let (mut next_look, mut next_report) = (FIRST_LOOK, REPORT_EVERY);
        loop {
            let drawn = run.drawn();
            if drawn >= request.samples {
                break;
            }
            if late() && drawn > 0 {
                cause = StopCause::MaxDuration;
                break;
            }
            let n = CHUNK.min(request.samples - drawn);
            for flow in 0..run.flows().len() {
                Self::check_wanted(outlet, draining)?;
                let batch = self.draw(outlet, model, &run.flows()[flow], drawn as u64, n)?;
                run.add(flow, &batch, outlet)?;
            }
            // Looks at fixed counts of samples: when to stop must not depend on the speed of the machine.
            if let Some(target) = request.target_standard_error
                && drawn + n >= next_look
            {
                next_look = 2 * (drawn + n);
                let found = run.solve(0, || !outlet.is_closed() && !draining.is_cancelled());
                if found.is_ok_and(|found| found.errors().all(|error| error <= target)) {
                    cause = StopCause::TargetReached;
                    break;
                }
            }
            if begin.elapsed() >= next_report {
                let item = run.item(None, QUICK_REPLICATES.min(request.replicates), begin, Solved::default());
                outlet.send(item, None)?;
                next_report = begin.elapsed() + REPORT_EVERY;
            }
        }
        Self::check_wanted(outlet, draining)?;
        let replicates = request.replicates.min(MOST_SOLVED);
        let solved = match run.solve(replicates, || !outlet.is_closed() && !draining.is_cancelled()) {
            Err(StreamError::Joint(MbarError::Stopped)) => {
                Self::check_wanted(outlet, draining)?;
                return Err(StreamError::Gone);
            }
            solved => solved?,
        };
        Self::check_wanted(outlet, draining)?;
        outlet.send(run.item(Some(cause), request.replicates, begin, solved), None)
    }
}
