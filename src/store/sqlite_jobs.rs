//! Jobs, their leases and their events in SQLite.

use super::StoreError;
use super::records::{
    Claim, Created, JobError, JobFilter, JobRecord, JobState, Lease, LeaseState, NewJob, NewResource, Page,
    ResourceKind,
};
use super::sqlite::{SqliteStore, insert_resource, now, same_request};
use crate::contract::encode_state_event;
use crate::energy::analytic::AnalyticPotential;
use serde::de::DeserializeOwned;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite, Transaction};

type Tx = Transaction<'static, Sqlite>;

fn job(row: &SqliteRow) -> Result<JobRecord, StoreError> {
    fn json<T: DeserializeOwned>(text: &str) -> Result<T, StoreError> {
        serde_json::from_str(text).map_err(|e| StoreError::Damaged(format!("a job: {e}")))
    }
    let (step, path): (Option<i64>, Option<String>) =
        (row.try_get("checkpoint_step")?, row.try_get("checkpoint_path")?);
    let error: Option<String> = row.try_get("error")?;
    Ok(JobRecord {
        id: row.try_get("id")?,
        owner: row.try_get("owner")?,
        display_name: row.try_get("display_name")?,
        labels: json(row.try_get("labels")?)?,
        state: JobState::parse(row.try_get("state")?)?,
        spec: json(row.try_get("spec")?)?,
        attempt: row.try_get("attempt")?,
        cancel_requested: row.try_get("cancel_requested")?,
        checkpoint: step.zip(path).map(|(step, path)| (step.max(0) as u64, path)),
        progress: row.try_get("progress")?,
        error: error.as_deref().map(json).transpose()?,
        created_at: row.try_get("created_at")?,
        started_at: row.try_get("started_at")?,
        ended_at: row.try_get("ended_at")?,
    })
}

async fn append(tx: &mut Tx, id: &str, payload: &[u8]) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO job_events (job, sequence, created_at, payload)
         SELECT ?1, coalesce(max(sequence), 0) + 1, ?2, ?3 FROM job_events WHERE job = ?1",
    )
    .bind(id)
    .bind(now())
    .bind(payload)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn exists(tx: &mut Tx, kind: &'static str, id: &str) -> Result<bool, StoreError> {
    let query = sqlx::query("SELECT 1 FROM resources WHERE kind = ? AND id = ?").bind(kind).bind(id);
    Ok(query.fetch_optional(&mut **tx).await?.is_some())
}

/// That a system exists: one that comes with the program, or a stored one.
pub(super) async fn check_system(tx: &mut Tx, id: &str) -> Result<(), StoreError> {
    if AnalyticPotential::built_in(id).is_some() || exists(tx, "system", id).await? {
        return Ok(());
    }
    Err(StoreError::NotFound { kind: "system", id: id.to_string() })
}

/// The system, the dataset and the model exist, and the name of what the job makes is free, also of other jobs' products to come.
async fn check_needs(tx: &mut Tx, new: &NewJob) -> Result<(), StoreError> {
    check_system(tx, new.spec.system()).await?;
    for (kind, id) in [("dataset", new.spec.dataset()), ("model", new.spec.model())] {
        if let Some(id) = id
            && !exists(tx, kind, id).await?
        {
            return Err(StoreError::NotFound { kind, id: id.to_string() });
        }
    }
    let (kind, id) = new.spec.product();
    if promised(tx, kind, id).await? || exists(tx, kind.name(), id).await? {
        return Err(StoreError::Exists { kind: kind.name(), id: id.to_string() });
    }
    Ok(())
}

/// Whether an unfinished job will make a resource of this name.
pub(super) async fn promised(tx: &mut Tx, kind: ResourceKind, id: &str) -> Result<bool, StoreError> {
    let query =
        sqlx::query("SELECT 1 FROM jobs WHERE state IN ('QUEUED', 'RUNNING') AND product_kind = ? AND product = ?");
    Ok(query.bind(kind.name()).bind(id).fetch_optional(&mut **tx).await?.is_some())
}

fn not_found(id: &str) -> StoreError {
    StoreError::NotFound { kind: "job", id: id.to_string() }
}

/// Ends a job's row.
async fn close(tx: &mut Tx, id: &str, state: JobState, error: Option<&JobError>) -> Result<(), StoreError> {
    let error =
        error.map(serde_json::to_string).transpose().map_err(|e| StoreError::Damaged(format!("a job's error: {e}")))?;
    sqlx::query(
        "UPDATE jobs SET state = ?, error = ?, ended_at = ?, lease_owner = NULL, lease_expires_at = NULL
         WHERE id = ?",
    )
    .bind(state.name())
    .bind(error)
    .bind(now())
    .bind(id)
    .execute(&mut **tx)
    .await?;
    append(tx, id, &encode_state_event(state.name())).await
}

/// Queues a running job again; a new epoch keeps its last worker from writing.
async fn put_back(tx: &mut Tx, id: &str) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE jobs SET state = 'QUEUED', lease_owner = NULL, lease_expires_at = NULL,
                         lease_epoch = lease_epoch + 1 WHERE id = ?",
    )
    .bind(id)
    .execute(&mut **tx)
    .await?;
    append(tx, id, &encode_state_event(JobState::Queued.name())).await
}

/// Attempts in a row that may end without a checkpoint and without an answer: a job that takes the server down with it
/// must not do so for ever.
const MOST_BARREN_ATTEMPTS: i64 = 5;

fn abandoned(attempts: i64) -> JobError {
    JobError {
        code: tonic::Code::Aborted as i32,
        reason: "JOB_ABANDONED".into(),
        message: format!(
            "the server ended, or lost its database, {attempts} times while it ran this job, each time before a \
             checkpoint; if it ran out of memory, use a smaller batch, architecture or dataset, and let checkpoints be made sooner"
        ),
    }
}

impl SqliteStore {
    pub(super) async fn insert_job(
        &self,
        new: NewJob,
        most_unfinished: u64,
        validate_only: bool,
    ) -> Result<Created<JobRecord>, StoreError> {
        let mut tx = self.begin().await?;
        if let Some(request) = &new.request {
            let row = sqlx::query("SELECT * FROM jobs WHERE owner = ? AND request_id = ?")
                .bind(&new.owner)
                .bind(&request.id)
                .fetch_optional(&mut *tx)
                .await?;
            if let Some(row) = row {
                same_request(&row, request)?;
                return Ok(Created::Repeated(job(&row)?));
            }
        }
        if sqlx::query("SELECT 1 FROM jobs WHERE id = ?").bind(&new.id).fetch_optional(&mut *tx).await?.is_some() {
            return Err(StoreError::Exists { kind: "job", id: new.id });
        }
        check_needs(&mut tx, &new).await?;
        let unfinished: i64 = sqlx::query("SELECT count(*) AS n FROM jobs WHERE state IN ('QUEUED', 'RUNNING')")
            .fetch_one(&mut *tx)
            .await?
            .try_get("n")?;
        if unfinished.max(0) as u64 >= most_unfinished {
            return Err(StoreError::QueueFull(most_unfinished));
        }
        let text = |e: serde_json::Error| StoreError::Damaged(format!("a new job: {e}"));
        let row = sqlx::query(
            "INSERT INTO jobs (id, owner, display_name, labels, request_id, request_hash, state, system, dataset,
                               model, product_kind, product, spec, created_at)
             VALUES (?, ?, ?, ?, ?, ?, 'QUEUED', ?, ?, ?, ?, ?, ?, ?) RETURNING *",
        )
        .bind(&new.id)
        .bind(&new.owner)
        .bind(&new.display_name)
        .bind(serde_json::to_string(&new.labels).map_err(text)?)
        .bind(new.request.as_ref().map(|r| &r.id))
        .bind(new.request.as_ref().map(|r| &r.hash))
        .bind(new.spec.system())
        .bind(new.spec.dataset())
        .bind(new.spec.model())
        .bind(new.spec.product().0.name())
        .bind(new.spec.product().1)
        .bind(serde_json::to_string(&new.spec).map_err(text)?)
        .bind(now())
        .fetch_one(&mut *tx)
        .await?;
        let stored = job(&row)?;
        append(&mut tx, &new.id, &new.payload).await?;
        if !validate_only {
            tx.commit().await?;
            self.announce();
        }
        Ok(Created::New(stored))
    }

    pub(super) async fn find_job(&self, id: &str) -> Result<JobRecord, StoreError> {
        let row = sqlx::query("SELECT * FROM jobs WHERE id = ?").bind(id).fetch_optional(&self.reader).await?;
        job(&row.ok_or_else(|| not_found(id))?)
    }

    pub(super) async fn page_of_jobs(&self, filter: &JobFilter, page: &Page) -> Result<Vec<JobRecord>, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new("SELECT * FROM jobs WHERE TRUE");
        if !filter.states.is_empty() {
            query.push(" AND state IN (");
            let mut list = query.separated(", ");
            filter.states.iter().for_each(|state| {
                list.push_bind(state.name());
            });
            query.push(")");
        }
        if let Some((time, id)) = &page.after {
            query.push(" AND (created_at, id) < (").push_bind(*time).push(", ").push_bind(id.clone()).push(")");
        }
        query.push(" ORDER BY created_at DESC, id DESC LIMIT ").push_bind(i64::from(page.size));
        query.build().fetch_all(&self.reader).await?.iter().map(job).collect()
    }

    pub(super) async fn remove_job(&self, id: &str) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let row = sqlx::query("SELECT * FROM jobs WHERE id = ?").bind(id).fetch_optional(&mut *tx).await?;
        let found = job(&row.ok_or_else(|| not_found(id))?)?;
        if !found.state.is_over() {
            return Err(StoreError::JobNotOver { id: id.to_string(), state: found.state.name() });
        }
        sqlx::query("DELETE FROM jobs WHERE id = ?").bind(id).execute(&mut *tx).await?;
        tx.commit().await?;
        self.announce();
        Ok(())
    }

    pub(super) async fn request_cancel(&self, id: &str) -> Result<JobRecord, StoreError> {
        let mut tx = self.begin().await?;
        let row = sqlx::query("SELECT * FROM jobs WHERE id = ?").bind(id).fetch_optional(&mut *tx).await?;
        let found = job(&row.ok_or_else(|| not_found(id))?)?;
        let row = match found.state {
            JobState::Cancelled => return Ok(found),
            JobState::Succeeded | JobState::Failed => {
                return Err(StoreError::JobOver { id: id.to_string(), state: found.state.name() });
            }
            JobState::Queued => {
                append(&mut tx, id, &encode_state_event(JobState::Cancelled.name())).await?;
                sqlx::query(
                    "UPDATE jobs SET state = 'CANCELLED', cancel_requested = 1, ended_at = ? WHERE id = ? RETURNING *",
                )
                .bind(now())
                .bind(id)
                .fetch_one(&mut *tx)
                .await?
            }
            JobState::Running => {
                sqlx::query("UPDATE jobs SET cancel_requested = 1 WHERE id = ? RETURNING *")
                    .bind(id)
                    .fetch_one(&mut *tx)
                    .await?
            }
        };
        let cancelled = job(&row)?;
        tx.commit().await?;
        self.announce();
        Ok(cancelled)
    }

    pub(super) async fn read_events(
        &self,
        id: &str,
        sequence: i64,
        limit: u32,
    ) -> Result<Vec<(i64, i64, Vec<u8>)>, StoreError> {
        let rows = sqlx::query("SELECT * FROM job_events WHERE job = ? AND sequence > ? ORDER BY sequence LIMIT ?")
            .bind(id)
            .bind(sequence)
            .bind(i64::from(limit))
            .fetch_all(&self.reader)
            .await?;
        rows.iter()
            .map(|row| Ok((row.try_get("sequence")?, row.try_get("created_at")?, row.try_get("payload")?)))
            .collect()
    }

    pub(super) async fn take_job(&self, worker: &str, lease_ms: i64) -> Result<Option<Claim>, StoreError> {
        let mut tx = self.begin().await?;
        let time = now();
        let row = sqlx::query(
            "UPDATE jobs SET state = 'RUNNING', lease_owner = ?, lease_epoch = lease_epoch + 1, lease_expires_at = ?,
                             attempt = attempt + 1, barren_attempts = barren_attempts + 1,
                             started_at = coalesce(started_at, ?)
             WHERE id = (SELECT id FROM jobs WHERE state = 'QUEUED' AND not_before <= ?
                         ORDER BY created_at, id LIMIT 1) RETURNING *",
        )
        .bind(worker)
        .bind(time.saturating_add(lease_ms))
        .bind(time)
        .bind(time)
        .fetch_optional(&mut *tx)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let taken = match job(&row) {
            Err(StoreError::Damaged(reason)) => {
                // It is the first in the queue: left there, it would be taken again and again, and nothing after it.
                let error = JobError {
                    code: tonic::Code::DataLoss as i32,
                    reason: "DAMAGED_JOB".into(),
                    message: format!("the job as it is stored cannot be read: {reason}"),
                };
                let id: String = row.try_get("id")?;
                close(&mut tx, &id, JobState::Failed, Some(&error)).await?;
                tx.commit().await?;
                self.announce();
                return Err(StoreError::Damaged(format!("job '{id}': {reason}")));
            }
            taken => taken?,
        };
        let lease = Lease { job: taken.id.clone(), epoch: row.try_get("lease_epoch")? };
        append(&mut tx, &taken.id, &encode_state_event(JobState::Running.name())).await?;
        tx.commit().await?;
        self.announce();
        Ok(Some(Claim { lease, job: taken }))
    }

    pub(super) async fn extend_lease(&self, lease: &Lease, lease_ms: i64) -> Result<LeaseState, StoreError> {
        let row = sqlx::query(
            "UPDATE jobs SET lease_expires_at = ? WHERE id = ? AND lease_epoch = ? AND state = 'RUNNING'
             RETURNING cancel_requested",
        )
        .bind(now().saturating_add(lease_ms))
        .bind(&lease.job)
        .bind(lease.epoch)
        .fetch_optional(&self.writer)
        .await?;
        let row = row.ok_or_else(|| StoreError::LeaseLost(lease.job.clone()))?;
        let cancel: bool = row.try_get("cancel_requested")?;
        Ok(if cancel { LeaseState::CancelRequested } else { LeaseState::Held })
    }

    /// The leased job's row, or the news that the lease is lost.
    async fn leased(&self, tx: &mut Tx, lease: &Lease) -> Result<JobRecord, StoreError> {
        let row = sqlx::query("SELECT * FROM jobs WHERE id = ? AND lease_epoch = ? AND state = 'RUNNING'")
            .bind(&lease.job)
            .bind(lease.epoch)
            .fetch_optional(&mut **tx)
            .await?;
        job(&row.ok_or_else(|| StoreError::LeaseLost(lease.job.clone()))?)
    }

    pub(super) async fn add_event(
        &self,
        lease: &Lease,
        payload: Vec<u8>,
        progress: Option<Vec<u8>>,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        self.leased(&mut tx, lease).await?;
        append(&mut tx, &lease.job, &payload).await?;
        if let Some(progress) = progress {
            sqlx::query("UPDATE jobs SET progress = ? WHERE id = ?")
                .bind(progress)
                .bind(&lease.job)
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        self.announce();
        Ok(())
    }

    pub(super) async fn publish_checkpoint(
        &self,
        lease: &Lease,
        step: u64,
        path: &str,
        payload: Vec<u8>,
    ) -> Result<Option<String>, StoreError> {
        let mut tx = self.begin().await?;
        let before = self.leased(&mut tx, lease).await?.checkpoint;
        sqlx::query("UPDATE jobs SET checkpoint_step = ?, checkpoint_path = ?, barren_attempts = 0 WHERE id = ?")
            .bind(i64::try_from(step).unwrap_or(i64::MAX))
            .bind(path)
            .bind(&lease.job)
            .execute(&mut *tx)
            .await?;
        append(&mut tx, &lease.job, &payload).await?;
        tx.commit().await?;
        self.announce();
        Ok(before.map(|(_, path)| path))
    }

    pub(super) async fn end_job(
        &self,
        lease: &Lease,
        state: JobState,
        product: Option<&NewResource>,
        error: Option<&JobError>,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        self.leased(&mut tx, lease).await?;
        if let Some(product) = product {
            insert_resource(&mut tx, product).await?;
        }
        close(&mut tx, &lease.job, state, error).await?;
        tx.commit().await?;
        self.announce();
        Ok(())
    }

    pub(super) async fn requeue_job(&self, lease: &Lease, delay_ms: i64) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        if self.leased(&mut tx, lease).await?.cancel_requested {
            close(&mut tx, &lease.job, JobState::Cancelled, None).await?;
        } else {
            put_back(&mut tx, &lease.job).await?;
            // An attempt that ends in order says nothing against the job.
            sqlx::query("UPDATE jobs SET barren_attempts = 0, not_before = ? WHERE id = ?")
                .bind(now().saturating_add(delay_ms))
                .bind(&lease.job)
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        self.announce();
        Ok(())
    }

    pub(super) async fn requeue_lost(&self, all: bool) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        let rows =
            sqlx::query("SELECT id, barren_attempts, cancel_requested FROM jobs WHERE state = 'RUNNING' AND (? OR lease_expires_at < ?)")
                .bind(all)
                .bind(now())
                .fetch_all(&mut *tx)
                .await?;
        for row in &rows {
            let (id, barren): (String, i64) = (row.try_get("id")?, row.try_get("barren_attempts")?);
            if row.try_get("cancel_requested")? {
                close(&mut tx, &id, JobState::Cancelled, None).await?;
            } else if barren < MOST_BARREN_ATTEMPTS {
                put_back(&mut tx, &id).await?;
            } else {
                close(&mut tx, &id, JobState::Failed, Some(&abandoned(barren))).await?;
            }
        }
        tx.commit().await?;
        if !rows.is_empty() {
            self.announce();
        }
        Ok(rows.len() as u64)
    }
}
