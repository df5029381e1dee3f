//! Simulation jobs.
//!
//! Frames are kept in files as they come, with the temperature and energy of each. A checkpoint names the files and has the
//! simulation's snapshot; so one that is taken up again goes on bit for bit, and its frames are those of a run that was never
//! interrupted.

use super::data::{Frames, load_frames};
use super::energy_range::EnergyRange;
use super::kept_frames::{KeptFrames, product, remove_products};
use super::run_job::{CANCEL, CONTINUE, Ended, Keeper, checkpoint_of, failure, system_of};
use super::worker::Scheduler;
use crate::contract::{SimulationReport, simulation_message};
use crate::energy::{EnergyError, System, own_start};
use crate::engine::{DeviceSlot, Priority};
use crate::simulate::{
    Frames as Saved, Phase, PlanError, Progress, RungSummary, Simulation, SimulationError, SimulationPlan,
    SnapshotError, Summary,
};
use crate::store::{ArtifactsError, Claim, DatasetDocument, NewResource, ResourceKind, SimulatedFrames, SimulationJob};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time between two checkpoints.
const CHECKPOINT: Duration = Duration::from_secs(30);
/// Bytes of frames that are held in memory between two checkpoints.
const MOST_HELD: usize = 64 << 20;
/// Time between two reports of progress.
const REPORT: Duration = Duration::from_secs(2);
/// The largest component of the gradient, in the system's units, that a starting structure is relaxed to.
const RELAXED: f64 = 10.0;
/// Others have the device too after so long: a block is long over by then, unless a single step is longer.
const TURN: Duration = Duration::from_millis(250);
/// A job that is to end gives a step up that takes longer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Below this acceptance of exchanges the ladder is in pieces.
const POOR_EXCHANGE: f64 = 0.05;
/// Fewer independent frames of a temperature are worth a warning, and fewer of a walker.
const FEW_SAMPLES: f64 = 50.0;
const FEW_OF_A_WALKER: f64 = 3.0;

/// Why a simulation's thread ended early.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error("cancelled")]
    Cancelled,
    #[error("released")]
    Released,
    #[error(transparent)]
    Simulation(#[from] SimulationError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error("the checkpoint is damaged: {0}")]
    Checkpoint(String),
    #[error("frames could not be kept: {0}")]
    NotKept(String),
    #[error(transparent)]
    Start(#[from] EnergyError),
}

impl From<ArtifactsError> for Stop {
    fn from(error: ArtifactsError) -> Self {
        match error {
            ArtifactsError::Missing(_) | ArtifactsError::CutShort(_) => Self::Checkpoint(error.to_string()),
            _ => Self::NotKept(error.to_string()),
        }
    }
}

/// Simulates a system.
pub(super) async fn simulate(
    scheduler: &Scheduler,
    claim: &Claim,
    spec: &SimulationJob,
    directive: Arc<AtomicU8>,
) -> Ended {
    let system = match system_of(scheduler, &spec.system).await {
        Ok(system) => system,
        Err(ended) => return ended,
    };
    let starts = match &spec.start {
        None => None,
        Some(id) => match load_frames(scheduler, id).await {
            Ok(frames) => Some(frames),
            Err(ended) => return ended,
        },
    };
    let checkpoint = match checkpoint_of(scheduler, claim).await {
        Ok(checkpoint) => checkpoint,
        Err(ended) => return ended,
    };
    let (slot, keeper) = (Arc::clone(&scheduler.engine.slot), Keeper::new(scheduler, claim));
    let (job, owner) = (claim.job.id.clone(), claim.job.owner.clone());
    let spec = spec.clone();
    let thread = tokio::task::spawn_blocking(move || {
        let mut run = match checkpoint {
            None => Run::begin(keeper, &spec, &system, starts.map(|frames| latest_of_each(frames, &spec.plan)))?,
            Some(bytes) => Run::resume(keeper, &system, &bytes)?,
        };
        run.finish(&slot, &directive, spec.most_bytes)?;
        let document = run.dataset(&system, &job, &spec.dataset_id)?;
        let document = serde_json::to_string(&document).map_err(|e| Stop::NotKept(e.to_string()))?;
        Ok::<_, Stop>(NewResource {
            kind: ResourceKind::Dataset,
            id: spec.dataset_id,
            owner,
            system: Some(spec.system),
            request: None,
            document,
        })
    });
    match thread.await {
        Ok(Ok(dataset)) => Ended::Finished(dataset),
        Ok(Err(Stop::Cancelled)) => Ended::Cancelled,
        Ok(Err(Stop::Released)) => Ended::Released,
        Ok(Err(Stop::NotKept(reason))) => Ended::Deferred(reason),
        Ok(Err(e)) => {
            let (code, reason) = match &e {
                Stop::Simulation(SimulationError::Plan(_)) => (tonic::Code::InvalidArgument, "INVALID_FIELD"),
                Stop::Simulation(SimulationError::Diverged { .. }) => (tonic::Code::Aborted, "SIMULATION_DIVERGED"),
                Stop::Snapshot(_) | Stop::Checkpoint(_) => (tonic::Code::DataLoss, "DAMAGED_ARTIFACT"),
                _ => (tonic::Code::FailedPrecondition, "UNSUITABLE_SYSTEM"),
            };
            failure(code, reason, e.to_string())
        }
        Err(e) => failure(tonic::Code::Internal, "INTERNAL", format!("the job's thread died: {e}")),
    }
}

/// Starting positions, in the order that replicas have: of a simulation's frames the latest of the nearest temperature for
/// each, so that it goes on from where that one ended; else the frames as they come.
fn latest_of_each(frames: Frames, plan: &SimulationPlan) -> Vec<f64> {
    let Some(table) = &frames.table else { return frames.positions };
    let mut latest: Vec<(f64, VecDeque<usize>)> = Vec::new();
    for (row, &temperature) in table.iter().step_by(2).enumerate() {
        let known = latest.iter().position(|(t, _)| *t == temperature);
        let known = known.unwrap_or_else(|| {
            latest.push((temperature, VecDeque::new()));
            latest.len() - 1
        });
        let rows = &mut latest[known].1;
        rows.push_back(row);
        if rows.len() > plan.walkers {
            rows.pop_front();
        }
    }
    let nearest = |wanted: f64| {
        let gap = |t: f64| (t / wanted).ln().abs();
        latest.iter().min_by(|a, b| gap(a.0).total_cmp(&gap(b.0))).map(|(_, rows)| rows)
    };
    let of_rungs: Vec<_> = plan.temperatures.at_start().into_iter().filter_map(nearest).collect();
    let d = frames.document.dimension;
    let mut starts = Vec::with_capacity(plan.walkers * of_rungs.len() * d);
    for walker in 0..plan.walkers {
        for rows in &of_rungs {
            let row = rows[walker % rows.len()];
            starts.extend_from_slice(&frames.positions[row * d..(row + 1) * d]);
        }
    }
    starts
}

/// What a checkpoint has besides the simulation's snapshot.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
struct Header {
    frames: KeptFrames,
    seconds: f64,
}

/// A simulation job that is under way.
struct Run {
    keeper: Keeper,
    simulation: Simulation,
    /// Of its own: those that all share are for others, when a step is long.
    threads: rayon::ThreadPool,
    header: Header,
    begun: Instant,
    /// Where the speed is measured from: steps in this attempt and phase.
    mark: (Phase, u64, Instant),
}

impl Run {
    fn new(keeper: Keeper, simulation: Simulation, header: Header) -> Result<Self, Stop> {
        let threads = rayon::ThreadPoolBuilder::new().num_threads(rayon::current_num_threads()).build();
        let threads = threads.map_err(|e| Stop::NotKept(format!("its threads could not be started: {e}")))?;
        let begun = Instant::now();
        let mark = (simulation.phase(), simulation.step(), begun);
        Ok(Self { keeper, simulation, threads, header, begun, mark })
    }

    fn begin(keeper: Keeper, spec: &SimulationJob, system: &System, starts: Option<Vec<f64>>) -> Result<Self, Stop> {
        let starts = match starts {
            Some(starts) => starts,
            None => {
                let (start, how) = own_start(system, RELAXED)?;
                keeper.note(format!("walkers start from {how}"));
                start
            }
        };
        let simulation = Simulation::new(spec.plan.clone(), system.clone(), &starts)?;
        Self::new(keeper, simulation, Header::default())
    }

    fn resume(keeper: Keeper, system: &System, bytes: &[u8]) -> Result<Self, Stop> {
        let damaged = || Stop::Checkpoint("it does not hold what it should".into());
        let (length, rest) = bytes.split_first_chunk::<8>().ok_or_else(damaged)?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| damaged())?;
        let (header, snapshot) = rest.split_at_checked(length).ok_or_else(damaged)?;
        let header: Header = serde_json::from_slice(header).map_err(|e| Stop::Checkpoint(e.to_string()))?;
        let simulation = Simulation::restore(snapshot, system.clone())?;
        let run = Self::new(keeper, simulation, header)?;
        run.keeper.note(format!("resumed with {} frames from a checkpoint", run.header.frames.count()));
        Ok(run)
    }

    fn finish(&mut self, slot: &DeviceSlot, directive: &AtomicU8, most_bytes: u64) -> Result<(), Stop> {
        let (mut reported, mut checked) = (Instant::now(), Instant::now());
        let mut phase = self.simulation.phase();
        loop {
            match directive.load(Ordering::Relaxed) {
                CONTINUE => {}
                CANCEL => return Err(Stop::Cancelled),
                _ => {
                    self.checkpoint()?;
                    return Err(Stop::Released);
                }
            }
            let progress = match self.advance(slot, directive) {
                Err(Stop::Simulation(SimulationError::Stopped)) => {
                    // The last checkpoint has all but the step that was given up, and what came since.
                    let cancelled = directive.load(Ordering::Relaxed) == CANCEL;
                    return Err(if cancelled { Stop::Cancelled } else { Stop::Released });
                }
                progress => progress?,
            };
            if let Some(frames) = &progress.frames {
                self.take(frames);
            }
            if progress.phase != phase {
                if phase == Phase::Pilot {
                    self.pilot_ended(most_bytes)?;
                }
                phase = progress.phase;
                // The last report is of the speed until the end.
                if phase != Phase::Finished {
                    self.mark = (phase, progress.step, Instant::now());
                }
            }
            if phase == Phase::Finished || reported.elapsed() >= REPORT {
                self.report(&progress);
                reported = Instant::now();
            }
            if phase == Phase::Finished || checked.elapsed() >= CHECKPOINT || self.header.frames.held() > MOST_HELD {
                self.checkpoint()?;
                checked = Instant::now();
            }
            if phase == Phase::Finished {
                return Ok(());
            }
        }
    }

    fn take(&mut self, frames: &Saved) {
        let temperatures = self.simulation.temperatures();
        let walkers = (frames.energies.len() / temperatures.len().max(1)).max(1);
        let of_row = |row: usize| temperatures.get(row / walkers).copied().unwrap_or(0.0);
        let table = frames.energies.iter().enumerate().flat_map(|(row, energy)| [of_row(row), *energy]);
        self.header.frames.add(frames.energies.len(), &frames.positions, table);
    }

    /// A block of the simulation. Where a step is long, others have the device beside it, and it is given up when the job is
    /// to end.
    fn advance(&mut self, slot: &DeviceSlot, directive: &AtomicU8) -> Result<Progress, Stop> {
        let turn = Mutex::new(Some(slot.acquire(Priority::Background)));
        let begun = Instant::now();
        let stop = || {
            let elapsed = begun.elapsed();
            if elapsed > TURN {
                turn.lock().unwrap_or_else(PoisonError::into_inner).take();
            }
            directive.load(Ordering::Relaxed) != CONTINUE && elapsed > PATIENCE
        };
        let Self { simulation, threads, .. } = self;
        Ok(threads.install(|| simulation.advance_unless(&stop))?)
    }

    fn pilot_ended(&self, most_bytes: u64) -> Result<(), Stop> {
        let temperatures = self.simulation.temperatures();
        let list: Vec<String> = temperatures.iter().map(|t| format!("{t:.2}")).collect();
        self.keeper.note(format!("the pilot chose {} temperatures: {}", list.len(), list.join(", ")));
        let plan = self.simulation.plan();
        let frames = plan.frames(Some(temperatures.len()));
        if frames.saturating_mul(8 * self.simulation.dimension() as u64) > most_bytes {
            let reason = format!(
                "at the {} temperatures that the pilot chose, {frames} frames are more than the {most_bytes} bytes that a \
                 dataset may have; keep fewer, or ask for a lower acceptance of exchanges",
                list.len()
            );
            return Err(SimulationError::from(PlanError { field: "save_stride", reason }).into());
        }
        Ok(())
    }

    fn seconds(&self) -> f64 {
        self.header.seconds + self.begun.elapsed().as_secs_f64()
    }

    fn report(&mut self, progress: &Progress) {
        let summary = self.simulation.summary();
        let (_, from, since) = self.mark;
        let replicas = (self.simulation.temperatures().len() * self.simulation.plan().walkers) as f64;
        let per_second = progress.step.saturating_sub(from) as f64 / since.elapsed().as_secs_f64().max(1e-9);
        self.keeper.metrics.simulation_steps_per_second.set(per_second * replicas);
        let left = progress.total_steps.saturating_sub(progress.step) as f64;
        let report = SimulationReport {
            progress,
            summary: &summary,
            frames: self.header.frames.count(),
            steps_per_second: per_second * replicas,
            seconds: self.seconds(),
            seconds_left: if per_second > 0.0 { left / per_second } else { 0.0 },
        };
        let (event, message) = simulation_message(&report);
        self.keeper.append(event, Some(message));
    }

    fn checkpoint(&mut self) -> Result<(), Stop> {
        let Keeper { artifacts, lease, runtime, .. } = &self.keeper;
        runtime.block_on(self.header.frames.flush(artifacts, lease))?;
        let header = Header { frames: self.header.frames.clone(), seconds: self.seconds() };
        let header = serde_json::to_vec(&header).map_err(|e| Stop::NotKept(e.to_string()))?;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header);
        bytes.extend(self.simulation.snapshot());
        let step = self.simulation.step();
        self.keeper.checkpoint(step, bytes).map_err(Stop::NotKept)
    }

    /// Joins the files of frames, and describes them.
    fn dataset(&self, system: &System, job: &str, id: &str) -> Result<DatasetDocument, Stop> {
        let summary = self.simulation.summary();
        let temperatures = self.simulation.temperatures().to_vec();
        let runtime = &self.keeper.runtime;
        let (artifacts, frames, epoch) = (&self.keeper.artifacts, &self.header.frames, self.keeper.lease.epoch);
        runtime.block_on(remove_products(artifacts, id, job, epoch))?;
        let path = |what: &str| product(id, job, epoch, what);
        let (artifact, table) = (path("f64"), path("table"));
        let bytes = |numbers: usize| frames.count().saturating_mul(8 * numbers as u64);
        let all = bytes(system.dimension());
        let digest = runtime.block_on(frames.join_positions(artifacts, &artifact, all, |_| Ok::<_, Stop>(())))?;
        let mut range = EnergyRange::default();
        let see = |bytes: &[u8]| {
            let numbers = bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b));
            numbers.skip(1).step_by(SimulatedFrames::COLUMNS).for_each(|energy| range.add(energy));
            Ok::<_, Stop>(())
        };
        runtime.block_on(frames.join_table(artifacts, &table, bytes(SimulatedFrames::COLUMNS), see))?;
        let warnings = warnings(&summary, self.simulation.plan().walkers);
        warnings.iter().for_each(|warning| self.keeper.note(warning.clone()));
        Ok(DatasetDocument {
            display_name: String::new(),
            labels: Default::default(),
            temperature: if let [only] = temperatures[..] { only } else { 0.0 },
            frames: self.header.frames.count(),
            dimension: system.dimension(),
            digest,
            artifact,
            energy_min: range.least,
            energy_mean: range.mean,
            energy_max: range.greatest,
            energy_digest: system.digest().to_string(),
            warnings,
            simulated: Some(SimulatedFrames { job: job.to_string(), temperatures, table }),
            weighted: None,
        })
    }
}

/// What whoever uses the frames should know.
fn warnings(summary: &Summary, walkers: usize) -> Vec<String> {
    let mut warnings = Vec::new();
    for pair in summary.exchanges.iter().filter(|e| e.attempts > 0 && e.acceptance() < POOR_EXCHANGE) {
        warnings.push(format!(
            "Exchanges between {:.2} and {:.2} are accepted in {:.1} % of attempts: put temperatures between them.",
            pair.low,
            pair.high,
            100.0 * pair.acceptance()
        ));
    }
    for rung in &summary.rungs {
        let RungSummary { temperature, effective_samples, frames, energy_variance, .. } = rung;
        if *energy_variance <= 0.0 {
            warnings.push(format!(
                "At {temperature:.2} the energy never changes: how many of {frames} frames are independent is not known."
            ));
        } else if *effective_samples < FEW_SAMPLES {
            warnings.push(format!(
                "At {temperature:.2} there are about {effective_samples:.0} independent frames of {frames}: simulate longer."
            ));
        } else if *effective_samples < FEW_OF_A_WALKER * walkers as f64 {
            warnings.push(format!(
                "At {temperature:.2} each walker has about {:.1} independent frames, so that where it started may still \
                 show: simulate longer.",
                effective_samples / walkers as f64
            ));
        }
    }
    warnings
}
