//! Resources in SQLite, and opening the database.

use super::records::{Created, NewResource, Page, RequestKey, Resource, ResourceKind};
use super::sqlite_jobs::{check_system, promised};
use super::{Claim, JobError, JobFilter, JobRecord, JobState, Lease, LeaseState, NewJob, Store, StoreError};
use async_trait::async_trait;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{QueryBuilder, Row, Sqlite, Transaction};
use std::fs::File;
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

const READERS: u32 = 4;
const BUSY: Duration = Duration::from_secs(5);

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// A store in one SQLite file, which this process alone has open.
pub struct SqliteStore {
    pub(super) writer: SqlitePool,
    pub(super) reader: SqlitePool,
    pub(super) changed: watch::Sender<u64>,
    /// Held as long as the store lives: a second server on the same file is refused.
    _lock: File,
}

impl SqliteStore {
    /// Opens (or makes) the database of a URL `sqlite:///absolute/path` or `sqlite://relative/path`.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let setup = |reason: String| StoreError::Setup(format!("database '{url}': {reason}"));
        let Some(path) = url.strip_prefix("sqlite://").filter(|p| !p.is_empty() && !p.contains('?')) else {
            return Err(setup("it must be sqlite:///path/to/file.db".into()));
        };
        if let Some(folder) = Path::new(path).parent().filter(|f| !f.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|e| setup(e.to_string()))?;
        }
        let lock = File::create(format!("{path}.lock")).map_err(|e| setup(e.to_string()))?;
        lock.try_lock().map_err(|_| {
            setup("another server has it open; stop that one, or give this one a database of its own".into())
        })?;
        // Durable to the last transaction, whatever happens to the machine.
        let options = SqliteConnectOptions::from_str(&format!("sqlite://{path}"))
            .map_err(|e| setup(e.to_string()))?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY);
        let pool = |size: u32| SqlitePoolOptions::new().max_connections(size).acquire_timeout(2 * BUSY);
        let writer = pool(1).connect_with(options.clone()).await.map_err(|e| setup(e.to_string()))?;
        MIGRATIONS.run(&writer).await.map_err(|e| setup(format!("its tables: {e}")))?;
        let reader = pool(READERS).connect_with(options.read_only(true)).await.map_err(|e| setup(e.to_string()))?;
        Ok(Self { writer, reader, changed: watch::channel(0).0, _lock: lock })
    }

    /// A transaction that holds the write lock from its beginning, so that what it reads stays true.
    pub(super) async fn begin(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        match self.writer.begin_with("BEGIN IMMEDIATE").await {
            // A transaction that could not be rolled back (a full disk is enough) spoils its connection for ever.
            Err(sqlx::Error::InvalidSavePointStatement) => {
                self.writer.acquire().await?.close().await?;
                Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
            }
            begun => Ok(begun?),
        }
    }

    pub(super) fn announce(&self) {
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }
}

/// Milliseconds since 1970.
pub(super) fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}

fn resource(kind: ResourceKind, row: &SqliteRow) -> Result<Resource, StoreError> {
    Ok(Resource {
        kind,
        id: row.try_get("id")?,
        owner: row.try_get("owner")?,
        system: row.try_get("system")?,
        created_at: row.try_get("created_at")?,
        document: row.try_get("document")?,
    })
}

/// Inserts a resource within a transaction.
pub(super) async fn insert_resource(
    tx: &mut Transaction<'_, Sqlite>,
    new: &NewResource,
) -> Result<Resource, StoreError> {
    let created_at = now();
    let taken = sqlx::query("SELECT 1 FROM resources WHERE kind = ? AND id = ?")
        .bind(new.kind.name())
        .bind(&new.id)
        .fetch_optional(&mut **tx)
        .await?;
    if taken.is_some() {
        return Err(StoreError::Exists { kind: new.kind.name(), id: new.id.clone() });
    }
    sqlx::query(
        "INSERT INTO resources (kind, id, owner, system, created_at, request_id, request_hash, document)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(new.kind.name())
    .bind(&new.id)
    .bind(&new.owner)
    .bind(&new.system)
    .bind(created_at)
    .bind(new.request.as_ref().map(|r| &r.id))
    .bind(new.request.as_ref().map(|r| &r.hash))
    .bind(&new.document)
    .execute(&mut **tx)
    .await?;
    Ok(Resource {
        kind: new.kind,
        id: new.id.clone(),
        owner: new.owner.clone(),
        system: new.system.clone(),
        created_at,
        document: new.document.clone(),
    })
}

/// Compares the hash that a request id was used with.
pub(super) fn same_request(row: &SqliteRow, request: &RequestKey) -> Result<(), StoreError> {
    let hash: Option<String> = row.try_get("request_hash")?;
    if hash.as_deref() == Some(&request.hash) { Ok(()) } else { Err(StoreError::RequestReused(request.id.clone())) }
}

#[async_trait]
impl Store for SqliteStore {
    async fn create_resource(&self, new: NewResource, validate_only: bool) -> Result<Created<Resource>, StoreError> {
        let mut tx = self.begin().await?;
        if let Some(request) = &new.request {
            let row = sqlx::query("SELECT * FROM resources WHERE kind = ? AND owner = ? AND request_id = ?")
                .bind(new.kind.name())
                .bind(&new.owner)
                .bind(&request.id)
                .fetch_optional(&mut *tx)
                .await?;
            if let Some(row) = row {
                same_request(&row, request)?;
                return Ok(Created::Repeated(resource(new.kind, &row)?));
            }
        }
        if let Some(system) = &new.system {
            check_system(&mut tx, system).await?;
        }
        if promised(&mut tx, new.kind, &new.id).await? {
            return Err(StoreError::Exists { kind: new.kind.name(), id: new.id });
        }
        let stored = insert_resource(&mut tx, &new).await?;
        if !validate_only {
            tx.commit().await?;
        }
        Ok(Created::New(stored))
    }

    async fn get_resource(&self, kind: ResourceKind, id: &str) -> Result<Resource, StoreError> {
        let row = sqlx::query("SELECT * FROM resources WHERE kind = ? AND id = ?")
            .bind(kind.name())
            .bind(id)
            .fetch_optional(&self.reader)
            .await?;
        match row {
            Some(row) => resource(kind, &row),
            None => Err(StoreError::NotFound { kind: kind.name(), id: id.to_string() }),
        }
    }

    async fn list_resources(
        &self,
        kind: ResourceKind,
        system: Option<&str>,
        page: &Page,
    ) -> Result<Vec<Resource>, StoreError> {
        let newest_first = kind == ResourceKind::Model;
        // A page of systems must not hold the whole texts of each.
        let document = match kind {
            ResourceKind::System => {
                "json_replace(document, '$.definition.open_mm.system_xml', '',
                              '$.definition.open_mm.topology_pdb', NULL) AS document"
            }
            ResourceKind::Dataset | ResourceKind::Model => "document",
        };
        let mut query = QueryBuilder::<Sqlite>::new("SELECT id, owner, system, created_at, ");
        query.push(document).push(" FROM resources WHERE kind = ");
        query.push_bind(kind.name());
        if let Some(system) = system {
            query.push(" AND system = ").push_bind(system.to_string());
        }
        if let Some((time, id)) = &page.after {
            if newest_first {
                query.push(" AND (created_at, id) < (").push_bind(*time).push(", ").push_bind(id.clone()).push(")");
            } else {
                query.push(" AND id > ").push_bind(id.clone());
            }
        }
        query.push(if newest_first { " ORDER BY created_at DESC, id DESC" } else { " ORDER BY id" });
        query.push(" LIMIT ").push_bind(i64::from(page.size));
        let rows = query.build().fetch_all(&self.reader).await?;
        rows.iter().map(|row| resource(kind, row)).collect()
    }

    async fn delete_resource(&self, kind: ResourceKind, id: &str) -> Result<Resource, StoreError> {
        let mut tx = self.begin().await?;
        let user = match kind {
            ResourceKind::System => sqlx::query(
                "SELECT kind || 's/' || id AS name FROM resources WHERE system = ?1
                 UNION ALL SELECT 'jobs/' || id FROM jobs
                 WHERE system = ?1 AND state IN ('QUEUED', 'RUNNING') LIMIT 1",
            )
            .bind(id),
            ResourceKind::Dataset => sqlx::query(
                "SELECT 'jobs/' || id AS name FROM jobs
                 WHERE dataset = ? AND state IN ('QUEUED', 'RUNNING') LIMIT 1",
            )
            .bind(id),
            ResourceKind::Model => sqlx::query(
                "SELECT 'jobs/' || id AS name FROM jobs
                 WHERE model = ? AND state IN ('QUEUED', 'RUNNING') LIMIT 1",
            )
            .bind(id),
        };
        if let Some(row) = user.fetch_optional(&mut *tx).await? {
            let name: String = row.try_get("name")?;
            return Err(StoreError::InUse(format!(
                "{}/{id} is needed by {name}; delete that first",
                kind.collection()
            )));
        }
        let row = sqlx::query("DELETE FROM resources WHERE kind = ? AND id = ? RETURNING *")
            .bind(kind.name())
            .bind(id)
            .fetch_optional(&mut *tx)
            .await?;
        let Some(row) = row else { return Err(StoreError::NotFound { kind: kind.name(), id: id.to_string() }) };
        let deleted = resource(kind, &row)?;
        tx.commit().await?;
        Ok(deleted)
    }

    async fn create_job(
        &self,
        new: NewJob,
        most_unfinished: u64,
        validate_only: bool,
    ) -> Result<Created<JobRecord>, StoreError> {
        self.insert_job(new, most_unfinished, validate_only).await
    }

    async fn get_job(&self, id: &str) -> Result<JobRecord, StoreError> {
        self.find_job(id).await
    }

    async fn list_jobs(&self, filter: &JobFilter, page: &Page) -> Result<Vec<JobRecord>, StoreError> {
        self.page_of_jobs(filter, page).await
    }

    async fn delete_job(&self, id: &str) -> Result<(), StoreError> {
        self.remove_job(id).await
    }

    async fn cancel_job(&self, id: &str) -> Result<JobRecord, StoreError> {
        self.request_cancel(id).await
    }

    async fn events_after(&self, id: &str, sequence: i64, limit: u32) -> Result<Vec<(i64, i64, Vec<u8>)>, StoreError> {
        self.read_events(id, sequence, limit).await
    }

    async fn claim_job(&self, worker: &str, lease_ms: i64) -> Result<Option<Claim>, StoreError> {
        self.take_job(worker, lease_ms).await
    }

    async fn renew_lease(&self, lease: &Lease, lease_ms: i64) -> Result<LeaseState, StoreError> {
        self.extend_lease(lease, lease_ms).await
    }

    async fn append_event(&self, lease: &Lease, payload: Vec<u8>, progress: Option<Vec<u8>>) -> Result<(), StoreError> {
        self.add_event(lease, payload, progress).await
    }

    async fn set_checkpoint(
        &self,
        lease: &Lease,
        step: u64,
        path: &str,
        payload: Vec<u8>,
    ) -> Result<Option<String>, StoreError> {
        self.publish_checkpoint(lease, step, path, payload).await
    }

    async fn succeed_job(&self, lease: &Lease, model: NewResource) -> Result<(), StoreError> {
        self.end_job(lease, JobState::Succeeded, Some(&model), None).await
    }

    async fn fail_job(&self, lease: &Lease, error: &JobError) -> Result<(), StoreError> {
        self.end_job(lease, JobState::Failed, None, Some(error)).await
    }

    async fn confirm_cancel(&self, lease: &Lease) -> Result<(), StoreError> {
        self.end_job(lease, JobState::Cancelled, None, None).await
    }

    async fn release_job(&self, lease: &Lease, delay_ms: i64) -> Result<(), StoreError> {
        self.requeue_job(lease, delay_ms).await
    }

    async fn requeue_lost_jobs(&self, all: bool) -> Result<u64, StoreError> {
        self.requeue_lost(all).await
    }

    async fn count_jobs(&self) -> Result<Vec<(JobState, u64)>, StoreError> {
        let rows = sqlx::query("SELECT state, count(*) AS n FROM jobs GROUP BY state").fetch_all(&self.reader).await?;
        rows.iter()
            .map(|row| {
                let n: i64 = row.try_get("n")?;
                Ok((JobState::parse(row.try_get("state")?)?, n.max(0) as u64))
            })
            .collect()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.reader).await?;
        let mut tx = self.begin().await?;
        sqlx::query("INSERT OR REPLACE INTO heartbeat (id, at) VALUES (1, ?)").bind(now()).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(())
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}
