//! Sampling jobs: a model's samples, kept as a dataset with their weights.
//!
//! A sample is what its address says, so a checkpoint needs only the files that samples are in: one that is taken up again reads
//! the weights in them and goes on with the next index. When to stop is looked at after fixed counts of samples, and does not
//! depend on the speed of the machine or on interruptions.

use super::energy_range::EnergyRange;
use super::kept_frames::{KeptFrames, product, remove_products};
use super::run_job::{CANCEL, CONTINUE, Ended, Keeper, checkpoint_of, failure};
use super::worker::Scheduler;
use crate::contract::{SamplingReport, method_message, sampling_message, weights_of};
use crate::engine::{Engine, EngineError, LoadedModel, Lookout, StreamError};
use crate::math::Purpose;
use crate::sample::{Method, SampleKey, WeightedBatch};
use crate::store::{
    ArtifactsError, Claim, DatasetDocument, NewResource, ResourceKind, SamplingJob, StoreError, WeightedFrames,
};
use crate::thermo::WeightAccumulator;
use prost::Message;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// Time between two checkpoints.
const CHECKPOINT: Duration = Duration::from_secs(30);
/// Bytes of frames that are held in memory between two checkpoints.
const MOST_HELD: usize = 16 << 20;
/// Time between two reports of progress.
const REPORT: Duration = Duration::from_secs(2);

/// Why a sampling job's thread ended early.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error("cancelled")]
    Cancelled,
    #[error("released")]
    Released,
    #[error("samples could not be drawn: {0}")]
    Engine(EngineError),
    #[error(
        "at temperature {temperature} {:.3} % of the samples are effective, and the job asks for {:.3} % at least; train a model \
         for a range of temperatures with this one in it, or leave out least_effective_fraction",
        100.0 * .effective_fraction, 100.0 * .least
    )]
    Uncovered { temperature: f64, effective_fraction: f64, least: f64 },
    #[error("the checkpoint is damaged: {0}")]
    Checkpoint(String),
    #[error("samples could not be kept: {0}")]
    NotKept(String),
}

impl From<ArtifactsError> for Stop {
    fn from(error: ArtifactsError) -> Self {
        match error {
            ArtifactsError::Missing(_) | ArtifactsError::CutShort(_) => Self::Checkpoint(error.to_string()),
            _ => Self::NotKept(error.to_string()),
        }
    }
}

impl From<StreamError> for Stop {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Engine(e) => Self::Engine(e),
            StreamError::Uncovered { temperature, effective_fraction, least } => {
                Self::Uncovered { temperature, effective_fraction, least }
            }
            // Nothing but the job's end breaks off what is drawn for it.
            StreamError::Draining { .. }
            | StreamError::Stalled { .. }
            | StreamError::OutOfTime
            | StreamError::Frames(_)
            | StreamError::Difference(_)
            | StreamError::Joint(_)
            | StreamError::Gone => Self::Released,
        }
    }
}

/// Draws samples of a model.
pub(super) async fn sample(
    scheduler: &Scheduler,
    claim: &Claim,
    spec: &SamplingJob,
    directive: Arc<AtomicU8>,
) -> Ended {
    let model = match scheduler.engine.models.get(&spec.model).await {
        Ok(model) => model,
        Err(error) => return unusable(error),
    };
    let checkpoint = match checkpoint_of(scheduler, claim).await {
        Ok(checkpoint) => checkpoint,
        Err(ended) => return ended,
    };
    let (engine, keeper) = (scheduler.engine.clone(), Keeper::new(scheduler, claim));
    let (job, owner, spec) = (claim.job.id.clone(), claim.job.owner.clone(), spec.clone());
    let thread = tokio::task::spawn_blocking(move || {
        let mut run = Run::begin(engine, model, keeper, spec, directive, checkpoint.as_deref())?;
        run.finish()?;
        let document = run.dataset(&job)?;
        let document = serde_json::to_string(&document).map_err(|e| Stop::NotKept(e.to_string()))?;
        let Run { spec, .. } = run;
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
        Ok(Err(Stop::Engine(error))) => unusable(error),
        Ok(Err(e @ Stop::Uncovered { .. })) => {
            failure(tonic::Code::FailedPrecondition, "TEMPERATURE_NOT_COVERED", e.to_string())
        }
        Ok(Err(e @ Stop::Checkpoint(_))) => failure(tonic::Code::DataLoss, "DAMAGED_ARTIFACT", e.to_string()),
        Err(e) => failure(tonic::Code::Internal, "INTERNAL", format!("the job's thread died: {e}")),
    }
}

/// What a model that cannot be read or sampled means for its job.
fn unusable(error: EngineError) -> Ended {
    let damaged = |e: &EngineError| failure(tonic::Code::DataLoss, "DAMAGED_ARTIFACT", e.to_string());
    match &error {
        EngineError::Store(StoreError::Database(_)) => Ended::Deferred(format!("the model could not be read: {error}")),
        EngineError::Store(StoreError::NotFound { .. }) => {
            failure(tonic::Code::NotFound, "RESOURCE_NOT_FOUND", error.to_string())
        }
        EngineError::Store(_) | EngineError::Damaged { .. } => damaged(&error),
        EngineError::Artifacts { source: ArtifactsError::Missing(_) | ArtifactsError::CutShort(_), .. } => {
            damaged(&error)
        }
        EngineError::Artifacts { .. } => Ended::Deferred(error.to_string()),
        EngineError::Sample(_) | EngineError::Lost => failure(tonic::Code::Internal, "INTERNAL", error.to_string()),
    }
}

/// A checkpoint.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct Header {
    frames: KeptFrames,
    seconds: f64,
    method: Method,
    /// In which samples have the bits that they have.
    precision: String,
}

/// A sampling job that is under way.
struct Run {
    engine: Engine,
    model: Arc<LoadedModel>,
    keeper: Keeper,
    spec: SamplingJob,
    directive: Arc<AtomicU8>,
    header: Header,
    /// Of the samples so far.
    weights: WeightAccumulator,
    /// What they do not see, once all are there.
    lookout: Lookout,
    begun: Instant,
    /// Samples that there were then.
    from: u64,
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = f64> {
    bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b))
}

impl Run {
    /// From a checkpoint, if there is one that fits this server.
    fn begin(
        engine: Engine,
        model: Arc<LoadedModel>,
        keeper: Keeper,
        spec: SamplingJob,
        directive: Arc<AtomicU8>,
        checkpoint: Option<&[u8]>,
    ) -> Result<Self, Stop> {
        let precision = model.generator.flow.precision();
        let known: Option<Header> =
            checkpoint.map(serde_json::from_slice).transpose().map_err(|e| Stop::Checkpoint(e.to_string()))?;
        let fits = |header: &Header| header.precision == precision;
        if let Some(header) = known.as_ref().filter(|header| !fits(header)) {
            let before = &header.precision;
            keeper.note(format!(
                "begun anew: this server computes in {precision}, and the samples so far are of {before}"
            ));
        }
        let begun = Instant::now();
        let mut weights = WeightAccumulator::default();
        let header = match known.filter(fits) {
            Some(header) => {
                let add = |table: &[u8]| {
                    numbers(table).step_by(WeightedFrames::COLUMNS).for_each(|log_w| weights.add(log_w));
                    let energies: Vec<f64> = numbers(table).skip(1).step_by(WeightedFrames::COLUMNS).collect();
                    weights.count_beyond(&energies, model.generator.card.energy_cut);
                    match directive.load(Ordering::Relaxed) {
                        CONTINUE => Ok(()),
                        _ => Err(ended_by(&directive, StreamError::Gone)),
                    }
                };
                keeper.runtime.block_on(header.frames.read_table(&keeper.artifacts, add))?;
                let (found, needed) = (weights.samples(), header.frames.count());
                if found != needed {
                    return Err(Stop::Checkpoint(format!(
                        "there are weights of {found} samples, and {needed} are needed"
                    )));
                }
                keeper.note(format!("resumed with {needed} samples from a checkpoint"));
                header
            }
            None => {
                let is_over = || directive.load(Ordering::Relaxed) != CONTINUE;
                let SamplingJob { temperature, method, least_effective_fraction, .. } = spec;
                let chosen =
                    engine.method_in_background(&model, temperature, method, least_effective_fraction, &is_over);
                let (method, choice) = chosen.map_err(|e| ended_by(&directive, e))?;
                if let Some(choice) = choice {
                    let percent = 100.0 * choice.effective_fraction();
                    keeper.note(format!(
                        "the pilot chose {}, of whose samples {percent:.1} % are effective",
                        method_message(method).as_str_name().trim_start_matches("SAMPLING_METHOD_")
                    ));
                }
                Header { frames: KeptFrames::default(), seconds: 0.0, method, precision }
            }
        };
        let from = header.frames.count();
        let lookout = Lookout::default();
        Ok(Self { engine, model, keeper, spec, directive, header, weights, lookout, begun, from })
    }

    fn is_complete(&self) -> bool {
        let done = self.header.frames.count();
        let target = self.spec.target_effective_samples;
        done >= self.spec.count
            || done.is_multiple_of(self.spec.batch.max(1))
                && target.is_some_and(|target| self.weights.effective_samples() >= target)
    }

    fn finish(&mut self) -> Result<(), Stop> {
        let (mut reported, mut checked) = (Instant::now(), Instant::now());
        let SamplingJob { temperature, seed, first_index, count, .. } = self.spec;
        let batch_size = self.spec.batch.max(1);
        let key = SampleKey { temperature, method: self.header.method, seed, purpose: Purpose::Sample };
        let directive = Arc::clone(&self.directive);
        let is_over = || directive.load(Ordering::Relaxed) != CONTINUE;
        while !self.is_complete() {
            let done = self.header.frames.count();
            let left = (batch_size - done % batch_size).min(count - done);
            let left = usize::try_from(left).unwrap_or(usize::MAX);
            // The index is that of a sample before the last, which there is.
            let next = first_index.saturating_add(done);
            match self.engine.draw_in_background(&self.model, &key, next, left, &is_over) {
                Ok(batch) => self.take(&batch),
                Err(e) => {
                    let stop = ended_by(&directive, e);
                    if matches!(stop, Stop::Released) {
                        self.checkpoint()?;
                    }
                    return Err(stop);
                }
            }
            if reported.elapsed() >= REPORT {
                self.report();
                reported = Instant::now();
            }
            if checked.elapsed() >= CHECKPOINT || self.header.frames.held() > MOST_HELD {
                self.checkpoint()?;
                checked = Instant::now();
            }
        }
        self.report();
        self.checkpoint()?;
        if self.weights.samples() >= self.model.generator.probed_from() {
            let found = self.engine.look_in_background(&self.model, &key, &is_over);
            self.lookout = found.map_err(|e| ended_by(&directive, e))?;
            self.report();
        }
        Ok(())
    }

    fn take(&mut self, batch: &WeightedBatch) {
        let rows = batch.log_weights.iter().zip(&batch.reduced_energies).zip(&batch.log_probs);
        let table = rows.flat_map(|((log_w, u), log_p)| [*log_w, *u, *log_p]);
        self.header.frames.add(batch.len(), &batch.positions, table);
        batch.log_weights.iter().for_each(|&log_w| self.weights.add(log_w));
        self.weights.count_beyond(&batch.reduced_energies, self.model.generator.card.energy_cut);
        let label = method_message(self.header.method).as_str_name();
        self.keeper.metrics.samples.with_label_values(&[label]).inc_by(batch.len() as u64);
    }

    fn seconds(&self) -> f64 {
        self.header.seconds + self.begun.elapsed().as_secs_f64()
    }

    fn report(&self) {
        let weights = self.lookout.complete(self.weights.summary());
        let done = weights.samples as f64;
        let rate = weights.samples.saturating_sub(self.from) as f64 / self.begun.elapsed().as_secs_f64().max(1e-9);
        let to_count = self.spec.count as f64 - done;
        // As many as it takes if the others weigh like those so far.
        let to_target =
            self.spec.target_effective_samples.map(|target| target * done / weights.effective_samples - done);
        let left = to_target.filter(|left| left.is_finite()).map_or(to_count, |left| left.clamp(0.0, to_count));
        let report = SamplingReport {
            weights: &weights,
            count: self.spec.count,
            samples_per_second: rate,
            seconds: self.seconds(),
            seconds_left: if rate > 0.0 { left / rate } else { 0.0 },
        };
        let (event, message) = sampling_message(&report);
        self.keeper.append(event, Some(message));
    }

    fn checkpoint(&mut self) -> Result<(), Stop> {
        let Keeper { artifacts, lease, runtime, .. } = &self.keeper;
        runtime.block_on(self.header.frames.flush(artifacts, lease))?;
        let header = Header { seconds: self.seconds(), ..self.header.clone() };
        let bytes = serde_json::to_vec(&header).map_err(|e| Stop::NotKept(e.to_string()))?;
        self.keeper.checkpoint(header.frames.count(), bytes).map_err(Stop::NotKept)
    }

    /// Joins the files of frames, and describes them.
    fn dataset(&self, job: &str) -> Result<DatasetDocument, Stop> {
        let Self { model, keeper, spec, header, directive, .. } = self;
        let (frames, card) = (header.frames.count(), &model.generator.card);
        let dimension = model.generator.target.system().dimension();
        let epoch = keeper.lease.epoch;
        keeper.runtime.block_on(remove_products(&keeper.artifacts, &spec.dataset_id, job, epoch))?;
        let path = |what: &str| product(&spec.dataset_id, job, epoch, what);
        let (artifact, table) = (path("f64"), path("table"));
        let bytes = |numbers: usize| frames.saturating_mul(8 * numbers as u64);
        let proceed = || if directive.load(Ordering::Relaxed) == CANCEL { Err(Stop::Cancelled) } else { Ok(()) };
        let artifacts = &keeper.artifacts;
        let positions = header.frames.join_positions(artifacts, &artifact, bytes(dimension), |_| proceed());
        let digest = keeper.runtime.block_on(positions)?;
        let kt = model.generator.kt(spec.temperature);
        let mut range = EnergyRange::default();
        let see = |part: &[u8]| {
            let energies = numbers(part).skip(1).step_by(WeightedFrames::COLUMNS).map(|u| u * kt);
            energies.filter(|energy| energy.is_finite()).for_each(|energy| range.add(energy));
            proceed()
        };
        let columns = header.frames.join_table(artifacts, &table, bytes(WeightedFrames::COLUMNS), see);
        keeper.runtime.block_on(columns)?;
        if range.count == 0 {
            (range.least, range.greatest) = (0.0, 0.0);
        }
        let summary = self.lookout.complete(self.weights.summary());
        keeper.metrics.sample_effective_fraction.observe(summary.effective_fraction());
        let weights = weights_of(&summary, card, spec.temperature);
        let mut warnings: Vec<String> = Some(weights.warning.clone()).filter(|w| !w.is_empty()).into_iter().collect();
        if let Some(target) = spec.target_effective_samples.filter(|target| summary.effective_samples < *target) {
            warnings.push(format!(
                "{:.0} samples are effective where {target:.0} were asked for: {frames} are as many as there may be.",
                summary.effective_samples
            ));
        }
        warnings.iter().for_each(|warning| keeper.note(warning.clone()));
        Ok(DatasetDocument {
            display_name: String::new(),
            labels: Default::default(),
            temperature: spec.temperature,
            frames,
            dimension,
            digest,
            artifact,
            energy_min: range.least,
            energy_mean: range.mean,
            energy_max: range.greatest,
            energy_digest: card.energy_digest.clone(),
            warnings,
            simulated: None,
            weighted: Some(WeightedFrames {
                job: job.to_string(),
                model: spec.model.clone(),
                model_digest: model.digest.clone(),
                method: header.method,
                seed: spec.seed,
                first_index: spec.first_index,
                coordinates: card.coordinates.clone(),
                precision: header.precision.clone(),
                weights: weights.encode_to_vec(),
                table,
            }),
        })
    }
}

/// What a job that is broken off ends with: what it was told to.
fn ended_by(directive: &AtomicU8, error: StreamError) -> Stop {
    match error {
        StreamError::Gone if directive.load(Ordering::Relaxed) == CANCEL => Stop::Cancelled,
        error => error.into(),
    }
}
