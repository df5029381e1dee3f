//! A worker: takes jobs one after the other.

use super::run_job::run_job;
use crate::engine::Engine;
use crate::metrics::Metrics;
use crate::store::{Artifacts, Store, StoreError};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// How a worker behaves.
#[derive(Clone, Debug)]
pub struct SchedulerSettings {
    /// Who holds a lease.
    pub worker: String,
    /// How long a lease lasts without being renewed; it is renewed three times in that time.
    pub lease: Duration,
    /// How long to wait between two looks at the queue when nothing announces a change.
    pub poll: Duration,
}

/// What workers need to run jobs.
#[derive(Clone)]
pub struct Scheduler {
    pub(super) store: Arc<dyn Store>,
    pub(super) artifacts: Artifacts,
    pub(super) engine: Engine,
    pub(super) metrics: Metrics,
    pub(super) settings: SchedulerSettings,
    /// Cancelled when the server drains: running jobs are checkpointed and put back into the queue.
    pub(super) draining: CancellationToken,
}

impl Scheduler {
    pub fn new(
        store: Arc<dyn Store>,
        artifacts: Artifacts,
        engine: Engine,
        metrics: Metrics,
        settings: SchedulerSettings,
        draining: CancellationToken,
    ) -> Self {
        Self { store, artifacts, engine, metrics, settings, draining }
    }

    /// Takes and runs jobs until the server drains.
    pub async fn work(self) {
        let mut changes = self.store.changes();
        while !self.draining.is_cancelled() {
            changes.mark_unchanged();
            if let Err(e) = self.store.requeue_lost_jobs(false).await {
                warn!(error = %e, "lost jobs could not be put back into the queue");
            }
            match self.store.claim_job(&self.settings.worker, millis(self.settings.lease)).await {
                Ok(Some(claim)) => {
                    let (id, attempt) = (claim.job.id.clone(), claim.job.attempt);
                    info!(job = %id, attempt, "job taken");
                    if let (1, Some(started)) = (attempt, claim.job.started_at) {
                        let waited = Duration::from_millis(started.abs_diff(claim.job.created_at));
                        self.metrics.job_queue_wait.observe(waited.as_secs_f64());
                    }
                    match run_job(&self, claim).await {
                        Ok(end) => info!(job = %id, %end, "job left"),
                        Err(StoreError::LeaseLost(_)) => {
                            self.metrics.leases_lost.inc();
                            warn!(job = %id, "the job's lease was lost");
                        }
                        Err(e) => error!(job = %id, error = %e, "the job's state could not be written"),
                    }
                    continue;
                }
                Ok(None) => {}
                Err(e) => warn!(error = %e, "the queue could not be read"),
            }
            tokio::select! {
                () = self.draining.cancelled() => {}
                _ = changes.changed() => {}
                () = tokio::time::sleep(self.settings.poll) => {}
            }
        }
    }
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
