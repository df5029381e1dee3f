//! Running one job on its own thread, its lease renewed beside it, and writing what it ended with.

use super::kept_frames::remove_products;
use super::sample_job::sample;
use super::simulate_job::simulate;
use super::train_job::train;
use super::worker::{Scheduler, millis};
use crate::contract::{checkpoint_event, message_event};
use crate::energy::analytic::AnalyticPotential;
use crate::energy::{System, SystemDefinition};
use crate::metrics::Metrics;
use crate::store::{
    Artifacts, ArtifactsError, Claim, JobError, JobSpec, Lease, LeaseState, NewResource, ResourceKind, Store,
    StoreError, SystemDocument,
};
use bytes::Bytes;
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

/// The system of a job, or what the job ends with instead.
pub(super) async fn system_of(scheduler: &Scheduler, id: &str) -> Result<System, Ended> {
    load_system(scheduler.store.as_ref(), id).await.map_err(|error| match error {
        LoadSystemError::Store(StoreError::Database(e)) => {
            Ended::Deferred(format!("the system could not be read: {e}"))
        }
        e => failure(tonic::Code::FailedPrecondition, "UNSUITABLE_SYSTEM", e.to_string()),
    })
}

/// The job's checkpoint, if it has one.
pub(super) async fn checkpoint_of(scheduler: &Scheduler, claim: &Claim) -> Result<Option<Bytes>, Ended> {
    let Some((_, path)) = &claim.job.checkpoint else { return Ok(None) };
    scheduler.artifacts.get(path).await.map(Some).map_err(|e| unreadable("the checkpoint", &e))
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
    let work = async {
        match &claim.job.spec {
            JobSpec::Training(job) => train(scheduler, &claim, job, Arc::clone(&directive)).await,
            JobSpec::Simulation(job) => simulate(scheduler, &claim, job, Arc::clone(&directive)).await,
            JobSpec::Sampling(job) => sample(scheduler, &claim, job, Arc::clone(&directive)).await,
        }
    };
    tokio::pin!(work);
    let mut renewal = tokio::time::interval(scheduler.settings.lease / 3);
    let mut changes = scheduler.store.changes();
    let ended = loop {
        tokio::select! {
            ended = &mut work => break ended,
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

pub(super) const CONTINUE: u8 = 0;
pub(super) const RELEASE: u8 = 1;
pub(super) const CANCEL: u8 = 2;

/// What the job's thread ended with.
pub(super) enum Ended {
    /// With what the job made; its files are kept already.
    Finished(NewResource),
    Released,
    Cancelled,
    Failed(JobError),
    /// Something outside of the job did not work, and may work later: it goes on from its last checkpoint.
    Deferred(String),
}

pub(super) fn failure(code: tonic::Code, reason: &str, message: impl Into<String>) -> Ended {
    Ended::Failed(JobError { code: code as i32, reason: reason.to_string(), message: message.into() })
}

/// What a file that cannot be read means: lost for good, or not to be had now.
pub(super) fn unreadable(what: &str, error: &ArtifactsError) -> Ended {
    match error {
        ArtifactsError::Missing(_) | ArtifactsError::CutShort(_) => {
            failure(tonic::Code::DataLoss, "DAMAGED_ARTIFACT", format!("{what}: {error}"))
        }
        _ => Ended::Deferred(format!("{what} could not be read: {error}")),
    }
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
        Ended::Finished(product) => {
            let what = product.kind.name();
            match store.succeed_job(lease, product).await {
                Ok(()) => JobEnd::Succeeded,
                // These may pass: the job is taken up again from its checkpoint.
                Err(e @ (StoreError::LeaseLost(_) | StoreError::Database(_))) => return Err(e),
                Err(e) => {
                    let error = JobError {
                        code: tonic::Code::Aborted as i32,
                        reason: "RESULT_NOT_KEPT".into(),
                        message: format!("the {what} could not be kept: {e}"),
                    };
                    store.fail_job(lease, &error).await?;
                    JobEnd::Failed(error.message)
                }
            }
        }
    };
    // Of a dataset that did not come to be nothing stays.
    if !matches!(end, JobEnd::Succeeded)
        && let (ResourceKind::Dataset, id) = claim.job.spec.product()
        && let Err(e) = remove_products(&scheduler.artifacts, id, &claim.job.id, lease.epoch + 1).await
    {
        warn!(job = %claim.job.id, error = %e, "files of its dataset could not be removed");
    }
    // What a failed job had reached stays until the job is deleted, as do the files of one that was lost and cancelled.
    if !matches!(end, JobEnd::Failed(_))
        && let Err(e) = scheduler.artifacts.delete_folder(&format!("jobs/{}", claim.job.id)).await
    {
        warn!(job = %claim.job.id, error = %e, "checkpoints could not be removed");
    }
    Ok(end)
}

/// A hash in hexadecimal.
pub(super) fn hex_digest(hash: Sha256) -> String {
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// Writes a job's events and checkpoints, from the job's thread.
pub(super) struct Keeper {
    pub store: Arc<dyn Store>,
    pub artifacts: Artifacts,
    pub lease: Lease,
    pub runtime: Handle,
    pub metrics: Metrics,
}

impl Keeper {
    pub fn append(&self, payload: Vec<u8>, progress: Option<Vec<u8>>) {
        if let Err(e) = self.runtime.block_on(self.store.append_event(&self.lease, payload, progress)) {
            warn!(job = %self.lease.job, error = %e, "an event was not written");
        }
    }

    pub fn note(&self, text: String) {
        info!(job = %self.lease.job, "{text}");
        self.append(message_event(text), None);
    }

    /// What a job's thread writes with.
    pub fn new(scheduler: &Scheduler, claim: &Claim) -> Self {
        Self {
            store: Arc::clone(&scheduler.store),
            artifacts: scheduler.artifacts.clone(),
            lease: claim.lease.clone(),
            runtime: Handle::current(),
            metrics: scheduler.metrics.clone(),
        }
    }

    /// Keeps a checkpoint after so many steps, in place of the one before.
    pub fn checkpoint(&self, step: u64, bytes: Vec<u8>) -> Result<(), String> {
        let Self { store, artifacts, lease, runtime, metrics } = self;
        let _timer = metrics.checkpoint_seconds.start_timer();
        let path = format!("jobs/{}/e{}/{step}.checkpoint", lease.job, lease.epoch);
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
