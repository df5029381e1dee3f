//! Running one job: training on its own thread, its lease renewed beside it.

use super::worker::{Scheduler, millis};
use crate::compute::device_of_job;
use crate::contract::{checkpoint_event, message_event, progress_message};
use crate::energy::analytic::AnalyticPotential;
use crate::energy::{System, SystemDefinition};
use crate::engine::{DeviceSlot, Priority, SlotGuard};
use crate::metrics::Metrics;
use crate::sample::ModelCard;
use crate::store::{
    Artifacts, ArtifactsError, Claim, DatasetDocument, JobError, Lease, LeaseState, ModelDocument, NewResource,
    ResourceKind, Store, StoreError, SystemDocument,
};
use crate::train::{
    CheckpointError, Directive, Observer, Outcome, Progress, RunError, StopReason, TrainError, Trainer, TrainingData,
    run,
};
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use tokio::runtime::Handle;
use tracing::{info, warn};

/// The system of an id: one that comes with the program, or a stored one.
pub async fn load_system(store: &dyn Store, id: &str) -> Result<System, LoadSystemError> {
    let definition = match AnalyticPotential::built_in(id) {
        Some(potential) => SystemDefinition::Analytic(potential),
        None => store.get_resource(ResourceKind::System, id).await?.read::<SystemDocument>()?.definition,
    };
    let built = tokio::task::spawn_blocking(move || System::build(definition)).await;
    built.map_err(|_| LoadSystemError::Lost)?.map_err(LoadSystemError::Energy)
}

/// Why a stored system cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadSystemError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Energy(crate::energy::EnergyError),
    #[error("the computation ended without an answer")]
    Lost,
}

/// How a worker left a job.
pub(super) enum JobEnd {
    Succeeded,
    Failed(String),
    Cancelled,
    Released,
}

impl fmt::Display for JobEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Succeeded => f.write_str("succeeded"),
            Self::Failed(reason) => write!(f, "failed: {reason}"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::Released => f.write_str("released"),
        }
    }
}

/// Runs a job to its end, or as far as this server goes. An error means that the job's state could not be written.
pub(super) async fn run_job(scheduler: &Scheduler, claim: Claim) -> Result<JobEnd, StoreError> {
    let directive = Arc::new(AtomicU8::new(CONTINUE));
    let training = train(scheduler, &claim, Arc::clone(&directive));
    tokio::pin!(training);
    let mut renewal = tokio::time::interval(scheduler.settings.lease / 3);
    let mut changes = scheduler.store.changes();
    let ended = loop {
        tokio::select! {
            ended = &mut training => break ended,
            () = scheduler.draining.cancelled(), if directive.load(Ordering::Relaxed) == CONTINUE => {
                directive.store(RELEASE, Ordering::Relaxed);
            }
            // A request to cancel is a change of the job: it does not have to wait for the lease's renewal.
            _ = async { tokio::select! { _ = renewal.tick() => {}, _ = changes.changed() => {} } } => {
                match scheduler.store.renew_lease(&claim.lease, millis(scheduler.settings.lease)).await {
                    Ok(LeaseState::Held) => {}
                    Ok(LeaseState::CancelRequested) => directive.store(CANCEL, Ordering::Relaxed),
                    // The thread stops at its next step; what it writes until then is refused.
                    Err(StoreError::LeaseLost(_)) => directive.store(CANCEL, Ordering::Relaxed),
                    Err(e) => warn!(job = %claim.job.id, error = %e, "the lease could not be renewed"),
                }
            }
        }
    };
    settle(scheduler, &claim, ended).await
}

const CONTINUE: u8 = 0;
const RELEASE: u8 = 1;
const CANCEL: u8 = 2;

/// What the job's thread ended with.
enum Ended {
    Finished {
        card: Box<ModelCard>,
        model: Vec<u8>,
        flow_dimension: usize,
    },
    Released,
    Cancelled,
    Failed(JobError),
    /// Something outside of the job did not work, and may work later: it goes on from its last checkpoint.
    Deferred(String),
}

fn failure(code: tonic::Code, reason: &str, message: impl Into<String>) -> Ended {
    Ended::Failed(JobError { code: code as i32, reason: reason.to_string(), message: message.into() })
}

/// What a file that cannot be read means: lost for good, or not to be had now.
fn unreadable(what: &str, error: &ArtifactsError) -> Ended {
    match error {
        ArtifactsError::Missing(_) => failure(tonic::Code::DataLoss, "DAMAGED_ARTIFACT", format!("{what}: {error}")),
        _ => Ended::Deferred(format!("{what} could not be read: {error}")),
    }
}

async fn train(scheduler: &Scheduler, claim: &Claim, directive: Arc<AtomicU8>) -> Ended {
    let spec = claim.job.spec.clone();
    let system = match load_system(scheduler.store.as_ref(), &spec.system).await {
        Ok(system) => system,
        Err(LoadSystemError::Store(StoreError::Database(e))) => {
            return Ended::Deferred(format!("the system could not be read: {e}"));
        }
        Err(e) => return failure(tonic::Code::FailedPrecondition, "UNSUITABLE_SYSTEM", e.to_string()),
    };
    let mut notes = Vec::new();
    let data = match &spec.dataset {
        None => None,
        Some(id) => match load_data(scheduler, id).await {
            Ok((data, document)) => {
                notes.extend(document.warnings.iter().map(|w| format!("{id}: {w}")));
                let (of_data, wanted) = (document.temperature, spec.plan.temperature);
                if of_data > 0.0 && of_data != wanted && spec.plan.needs_data() {
                    notes.push(format!(
                        "{id} is of temperature {of_data}: maximum likelihood draws the flow there, not to {wanted}"
                    ));
                }
                Some(data)
            }
            Err(ended) => return ended,
        },
    };
    let checkpoint = match &claim.job.checkpoint {
        None => None,
        Some((_, path)) => match scheduler.artifacts.get(path).await {
            Ok(bytes) => Some(bytes),
            Err(e) => return unreadable("the checkpoint", &e),
        },
    };
    let (slot, device) = (Arc::clone(&scheduler.engine.slot), scheduler.engine.device.clone());
    let mut keeper = Keeper {
        store: Arc::clone(&scheduler.store),
        artifacts: scheduler.artifacts.clone(),
        lease: claim.lease.clone(),
        runtime: Handle::current(),
        metrics: scheduler.metrics.clone(),
        steps_counted: claim.job.checkpoint.as_ref().map_or(0, |(step, _)| *step),
    };
    let thread = tokio::task::spawn_blocking(move || {
        let device = device_of_job(&device)?;
        let mut trainer = Trainer::new(spec.plan, system, data, &device)?;
        match checkpoint {
            Some(bytes) => {
                trainer.restore(&bytes, &device)?;
                keeper.note(format!("resumed at step {} from a checkpoint", trainer.steps_done()));
            }
            None => {
                notes.into_iter().for_each(|note| keeper.note(note));
                keeper.note(format!("coordinates: {}", trainer.target().coordinates().description()));
            }
        }
        let flow_dimension = trainer.target().dimension();
        let mut observer = SlotObserver { keeper, slot: &slot, turn: None, directive };
        let outcome = run(&mut trainer, &mut observer)?;
        observer.turn = None;
        if let Outcome::Finished { reason: StopReason::BudgetSpent, .. } = &outcome {
            let (done, all) = (trainer.steps_done(), trainer.total_steps());
            if done < all {
                observer.keeper.note(format!("the budget ended the run after {done} of {all} steps"));
            }
        }
        Ok::<_, RunError>((outcome, flow_dimension))
    });
    match thread.await {
        Ok(Ok((Outcome::Finished { card, model, .. }, flow_dimension))) => {
            Ended::Finished { card, model, flow_dimension }
        }
        Ok(Ok((Outcome::Released, _))) => Ended::Released,
        Ok(Ok((Outcome::Cancelled, _))) => Ended::Cancelled,
        Ok(Err(RunError::Device(e))) => Ended::Deferred(e.to_string()),
        Ok(Err(RunError::NotKept(reason))) => Ended::Deferred(format!("a checkpoint could not be kept: {reason}")),
        Ok(Err(e)) => {
            let (code, reason) = match &e {
                RunError::Train(TrainError::Plan(_)) => (tonic::Code::InvalidArgument, "INVALID_FIELD"),
                RunError::Train(TrainError::Coordinates(_)) => (tonic::Code::FailedPrecondition, "UNSUITABLE_SYSTEM"),
                RunError::Train(TrainError::Diverged(_) | TrainError::NotFinite(_)) => {
                    (tonic::Code::Aborted, "TRAINING_DIVERGED")
                }
                RunError::Checkpoint(CheckpointError::Damaged(_) | CheckpointError::Foreign) => {
                    (tonic::Code::DataLoss, "DAMAGED_ARTIFACT")
                }
                _ => (tonic::Code::Internal, "INTERNAL"),
            };
            failure(code, reason, e.to_string())
        }
        Err(e) => failure(tonic::Code::Internal, "INTERNAL", format!("the job's thread died: {e}")),
    }
}

async fn load_data(scheduler: &Scheduler, id: &str) -> Result<(TrainingData, DatasetDocument), Ended> {
    let what = format!("dataset '{id}'");
    let damaged = |reason: String| failure(tonic::Code::DataLoss, "DAMAGED_ARTIFACT", format!("{what}: {reason}"));
    let resource = match scheduler.store.get_resource(ResourceKind::Dataset, id).await {
        Ok(resource) => resource,
        Err(StoreError::Database(e)) => return Err(Ended::Deferred(format!("{what} could not be read: {e}"))),
        Err(e) => return Err(damaged(e.to_string())),
    };
    let document: DatasetDocument = resource.read().map_err(|e| damaged(e.to_string()))?;
    let bytes = scheduler.artifacts.get(&document.artifact).await.map_err(|e| unreadable(&what, &e))?;
    let expected = document.frames.saturating_mul(document.dimension as u64).saturating_mul(8);
    if bytes.len() as u64 != expected {
        return Err(damaged(format!("its file has {} bytes, {expected} are needed", bytes.len())));
    }
    let positions = bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
    Ok((TrainingData { positions, digest: document.digest.clone() }, document))
}

/// Writes what the thread ended with.
async fn settle(scheduler: &Scheduler, claim: &Claim, ended: Ended) -> Result<JobEnd, StoreError> {
    let (store, lease) = (scheduler.store.as_ref(), &claim.lease);
    let end = match ended {
        Ended::Released => {
            store.release_job(lease, 0).await?;
            return Ok(JobEnd::Released);
        }
        Ended::Cancelled => {
            store.confirm_cancel(lease).await?;
            JobEnd::Cancelled
        }
        Ended::Failed(error) => {
            store.fail_job(lease, &error).await?;
            JobEnd::Failed(error.message)
        }
        Ended::Deferred(reason) => {
            warn!(job = %claim.job.id, %reason, "the job is put off");
            let note = message_event(format!("{reason}; the job goes on from its last checkpoint in a moment"));
            // Where the database itself is out of reach the lease runs out, which comes to the same.
            store.append_event(lease, note, None).await?;
            // Others have their turn meanwhile.
            store.release_job(lease, millis(scheduler.settings.lease)).await?;
            return Ok(JobEnd::Released);
        }
        Ended::Finished { card, model, flow_dimension } => {
            let spec = &claim.job.spec;
            let digest = hex_digest(&model);
            let path = format!("models/{}/{digest}.safetensors", spec.model_id);
            let size_bytes = model.len() as u64;
            if let Err(e) = scheduler.artifacts.put(&path, model).await {
                let later = Ended::Deferred(format!("the model could not be kept: {e}"));
                return Box::pin(settle(scheduler, claim, later)).await;
            }
            let document = ModelDocument {
                job: Some(claim.job.id.clone()),
                digest,
                artifact: path,
                size_bytes,
                flow_dimension,
                card: *card,
            };
            let document =
                serde_json::to_string(&document).map_err(|e| StoreError::Damaged(format!("a model's card: {e}")))?;
            let model = NewResource {
                kind: ResourceKind::Model,
                id: spec.model_id.clone(),
                owner: claim.job.owner.clone(),
                system: Some(spec.system.clone()),
                request: None,
                document,
            };
            match store.succeed_job(lease, model).await {
                Ok(()) => JobEnd::Succeeded,
                // These may pass: the job is taken up again from its checkpoint.
                Err(e @ (StoreError::LeaseLost(_) | StoreError::Database(_))) => return Err(e),
                Err(e) => {
                    let error = JobError {
                        code: tonic::Code::Aborted as i32,
                        reason: "MODEL_NOT_KEPT".into(),
                        message: format!("the model could not be kept: {e}"),
                    };
                    store.fail_job(lease, &error).await?;
                    JobEnd::Failed(error.message)
                }
            }
        }
    };
    // What a failed job had reached stays until the job is deleted, as do the files of one that was lost and cancelled.
    if !matches!(end, JobEnd::Failed(_))
        && let Err(e) = scheduler.artifacts.delete_folder(&format!("jobs/{}", claim.job.id)).await
    {
        warn!(job = %claim.job.id, error = %e, "checkpoints could not be removed");
    }
    Ok(end)
}

/// SHA-256 in hexadecimal.
fn hex_digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// Writes a job's events and checkpoints, from the job's thread.
struct Keeper {
    store: Arc<dyn Store>,
    artifacts: Artifacts,
    lease: Lease,
    runtime: Handle,
    metrics: Metrics,
    /// Steps that the metrics know of.
    steps_counted: u64,
}

impl Keeper {
    fn append(&self, payload: Vec<u8>, progress: Option<Vec<u8>>) {
        if let Err(e) = self.runtime.block_on(self.store.append_event(&self.lease, payload, progress)) {
            warn!(job = %self.lease.job, error = %e, "an event was not written");
        }
    }

    fn note(&mut self, text: String) {
        info!(job = %self.lease.job, "{text}");
        self.append(message_event(text), None);
    }
}

/// Lets a run use the device step by step, and keeps what it makes.
struct SlotObserver<'a> {
    keeper: Keeper,
    slot: &'a DeviceSlot,
    turn: Option<SlotGuard<'a>>,
    directive: Arc<AtomicU8>,
}

impl Observer for SlotObserver<'_> {
    fn directive(&mut self) -> Directive {
        self.turn = None;
        match self.directive.load(Ordering::Relaxed) {
            CANCEL => Directive::Cancel,
            RELEASE => Directive::Release,
            _ => {
                self.turn = Some(self.slot.acquire(Priority::Background));
                Directive::Continue
            }
        }
    }

    fn progress(&mut self, progress: &Progress) {
        let metrics = &self.keeper.metrics;
        metrics.train_steps.inc_by(progress.step.saturating_sub(self.keeper.steps_counted));
        metrics.train_effective_fraction.set(progress.weights.effective_samples / progress.weights.samples as f64);
        self.keeper.steps_counted = progress.step;
        let (event, message) = progress_message(progress);
        self.keeper.append(event, Some(message));
    }

    fn checkpoint(&mut self, step: u64, bytes: Vec<u8>) -> Result<(), String> {
        self.turn = None;
        let Keeper { store, artifacts, lease, runtime, metrics, .. } = &self.keeper;
        let _timer = metrics.checkpoint_seconds.start_timer();
        let path = format!("jobs/{}/e{}/{step}.safetensors", lease.job, lease.epoch);
        runtime.block_on(async {
            artifacts.put(&path, bytes).await.map_err(|e| e.to_string())?;
            let before =
                store.set_checkpoint(lease, step, &path, checkpoint_event(step)).await.map_err(|e| e.to_string())?;
            if let Some(before) = before.filter(|b| *b != path)
                && let Err(e) = artifacts.delete(&before).await
            {
                warn!(job = %lease.job, error = %e, "an old checkpoint could not be removed");
            }
            Ok(())
        })
    }
}
