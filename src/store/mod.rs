//! What outlives the process: resources and jobs in a database, files in an artifact store.
//!
//! [`Store`] is a trait, so that other databases can take SQLite's place. Every change is one transaction; a job's
//! worker names the epoch of its lease in each write, and a write that finds another epoch is refused.

mod artifacts;
mod records;
mod sqlite;
mod sqlite_jobs;

pub use artifacts::{Artifacts, ArtifactsError};
pub use records::{
    Claim, Created, DatasetDocument, JobError, JobFilter, JobRecord, JobSpec, JobState, Lease, LeaseState,
    ModelDocument, NewJob, NewResource, Page, RequestKey, Resource, ResourceKind, SamplingJob, SimulatedFrames,
    SimulationJob, SystemDocument, SystemFacts, TrainingJob, WeightedFrames,
};
pub use sqlite::SqliteStore;

use async_trait::async_trait;
use std::sync::Arc;
use tokio::sync::watch;

/// Why the store did not do as asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// There is something of that name already.
    #[error("{kind} '{id}' exists already")]
    Exists { kind: &'static str, id: String },
    /// The request id was used for another request.
    #[error("request_id '{0}' was used for a different request; use a new one")]
    RequestReused(String),
    #[error("{kind} '{id}' does not exist")]
    NotFound { kind: &'static str, id: String },
    /// Something else needs it.
    #[error("{0}")]
    InUse(String),
    #[error("jobs/{id} is over: {state}")]
    JobOver { id: String, state: &'static str },
    #[error("jobs/{id} is {state}; cancel it first")]
    JobNotOver { id: String, state: &'static str },
    /// The worker's lease is not the job's any more: somebody else has taken the job up, or ended it.
    #[error("the lease on job '{0}' is lost")]
    LeaseLost(String),
    #[error("there are {0} unfinished jobs, which is the most; try again when some are done")]
    QueueFull(u64),
    /// The database failed.
    #[error("the database failed: {0}")]
    Database(#[source] Arc<sqlx::Error>),
    /// A row does not hold what it should.
    #[error("a row of the database is damaged: {0}")]
    Damaged(String),
    #[error("{0}")]
    Setup(String),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(Arc::new(error))
    }
}

/// Resources and jobs.
#[async_trait]
pub trait Store: Send + Sync {
    /// Stores a resource whose system exists. With a request id that was used for the same request, answers with what
    /// that one stored. If it is only to be validated, nothing is kept.
    async fn create_resource(&self, new: NewResource, validate_only: bool) -> Result<Created<Resource>, StoreError>;

    async fn get_resource(&self, kind: ResourceKind, id: &str) -> Result<Resource, StoreError>;

    /// A page of resources: systems (without the texts of OpenMM systems) and datasets by id, models from the newest on.
    async fn list_resources(
        &self,
        kind: ResourceKind,
        system: Option<&str>,
        page: &Page,
    ) -> Result<Vec<Resource>, StoreError>;

    /// Deletes a resource that nothing needs, and answers with what it was.
    async fn delete_resource(&self, kind: ResourceKind, id: &str) -> Result<Resource, StoreError>;

    /// Queues a job whose system, dataset and model exist, unless `most_unfinished` jobs are waiting or running. If it is only to
    /// be validated, nothing is kept.
    async fn create_job(
        &self,
        new: NewJob,
        most_unfinished: u64,
        validate_only: bool,
    ) -> Result<Created<JobRecord>, StoreError>;

    async fn get_job(&self, id: &str) -> Result<JobRecord, StoreError>;

    /// A page of jobs, from the newest on.
    async fn list_jobs(&self, filter: &JobFilter, page: &Page) -> Result<Vec<JobRecord>, StoreError>;

    /// Forgets a job that is over.
    async fn delete_job(&self, id: &str) -> Result<(), StoreError>;

    /// Asks a job to stop: a queued one is cancelled at once.
    async fn cancel_job(&self, id: &str) -> Result<JobRecord, StoreError>;

    /// Encoded events of a job after a sequence number, at most `limit`: (sequence, time in ms, payload).
    async fn events_after(&self, id: &str, sequence: i64, limit: u32) -> Result<Vec<(i64, i64, Vec<u8>)>, StoreError>;

    /// Gives the oldest queued job to a worker, if there is one.
    async fn claim_job(&self, worker: &str, lease_ms: i64) -> Result<Option<Claim>, StoreError>;

    /// Keeps a lease alive, and says whether the job is to be cancelled.
    async fn renew_lease(&self, lease: &Lease, lease_ms: i64) -> Result<LeaseState, StoreError>;

    /// Adds an event to a leased job; progress is kept with the job as well.
    async fn append_event(&self, lease: &Lease, payload: Vec<u8>, progress: Option<Vec<u8>>) -> Result<(), StoreError>;

    /// Publishes a checkpoint; answers with the path of the one before.
    async fn set_checkpoint(
        &self,
        lease: &Lease,
        step: u64,
        path: &str,
        payload: Vec<u8>,
    ) -> Result<Option<String>, StoreError>;

    /// Ends a job with what it made, in one transaction.
    async fn succeed_job(&self, lease: &Lease, product: NewResource) -> Result<(), StoreError>;

    async fn fail_job(&self, lease: &Lease, error: &JobError) -> Result<(), StoreError>;

    /// Ends a running job that was to be cancelled.
    async fn confirm_cancel(&self, lease: &Lease) -> Result<(), StoreError>;

    /// Puts a running job back into the queue, to go on from its checkpoint after a delay; or ends it, if it was to be
    /// cancelled.
    async fn release_job(&self, lease: &Lease, delay_ms: i64) -> Result<(), StoreError>;

    /// Puts jobs back into the queue whose lease has run out, or, if `all`, all running ones: this process has just
    /// started, and no other can have the database. One that was to be cancelled ends, and so does one that has been
    /// lost too often since its last checkpoint. Answers with their number.
    async fn requeue_lost_jobs(&self, all: bool) -> Result<u64, StoreError>;

    /// The number of jobs in each state.
    async fn count_jobs(&self) -> Result<Vec<(JobState, u64)>, StoreError>;

    /// That the database answers, and can be written.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Changes whenever a job or its events may have changed.
    fn changes(&self) -> watch::Receiver<u64>;
}
