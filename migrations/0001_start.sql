-- Systems, datasets and models. Times are milliseconds since 1970; documents are JSON.
CREATE TABLE resources (
    kind         TEXT    NOT NULL,
    id           TEXT    NOT NULL,
    owner        TEXT    NOT NULL,
    -- The system that a dataset or a model is of.
    system       TEXT,
    created_at   INTEGER NOT NULL,
    request_id   TEXT,
    request_hash TEXT,
    document     TEXT    NOT NULL,
    PRIMARY KEY (kind, id)
);
CREATE UNIQUE INDEX resources_request ON resources (kind, owner, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX resources_system ON resources (system) WHERE system IS NOT NULL;
CREATE INDEX resources_created ON resources (kind, created_at, id);

CREATE TABLE jobs (
    id               TEXT    NOT NULL PRIMARY KEY,
    owner            TEXT    NOT NULL,
    display_name     TEXT    NOT NULL,
    labels           TEXT    NOT NULL,
    request_id       TEXT,
    request_hash     TEXT,
    state            TEXT    NOT NULL,
    system           TEXT    NOT NULL,
    -- The dataset and the model that it needs.
    dataset          TEXT,
    model            TEXT,
    spec             TEXT    NOT NULL,
    attempt          INTEGER NOT NULL DEFAULT 0,
    -- Not to be taken up before this time.
    not_before       INTEGER NOT NULL DEFAULT 0,
    -- Attempts since the last checkpoint.
    barren_attempts  INTEGER NOT NULL DEFAULT 0,
    -- Whoever holds the lease works on the job; every write of a worker names its epoch.
    lease_owner      TEXT,
    lease_epoch      INTEGER NOT NULL DEFAULT 0,
    lease_expires_at INTEGER,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    checkpoint_step  INTEGER,
    checkpoint_path  TEXT,
    -- The resource that it makes.
    product_kind     TEXT    NOT NULL,
    product          TEXT    NOT NULL,
    -- Encoded boltzflow.v1.TrainingProgress, SimulationProgress or SamplingProgress.
    progress         BLOB,
    error            TEXT,
    created_at       INTEGER NOT NULL,
    started_at       INTEGER,
    ended_at         INTEGER
);
CREATE UNIQUE INDEX jobs_request ON jobs (owner, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX jobs_state ON jobs (state, created_at, id);
CREATE INDEX jobs_created ON jobs (created_at, id);
CREATE INDEX jobs_system ON jobs (system);
CREATE INDEX jobs_product ON jobs (product_kind, product);

-- Append only; a watcher resumes after the last sequence number that it has seen.
CREATE TABLE job_events (
    job        TEXT    NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    sequence   INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    -- Encoded boltzflow.v1.JobEvent, without sequence and time.
    payload    BLOB    NOT NULL,
    PRIMARY KEY (job, sequence)
) WITHOUT ROWID;

-- One row, written to see that the database can be.
CREATE TABLE heartbeat (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL
);
