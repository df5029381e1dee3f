//! What the database holds, as the rest of the program sees it.

use super::StoreError;
use crate::energy::{EnergyScale, System, SystemDefinition};
use crate::sample::{Method, ModelCard};
use crate::simulate::SimulationPlan;
use crate::train::TrainingPlan;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;

/// The kinds of resource besides jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceKind {
    System,
    Dataset,
    Model,
}

impl ResourceKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Dataset => "dataset",
            Self::Model => "model",
        }
    }

    /// The collection that names begin with.
    pub fn collection(self) -> &'static str {
        match self {
            Self::System => "systems",
            Self::Dataset => "datasets",
            Self::Model => "models",
        }
    }
}

/// What makes a create call safe to repeat: the client's id, and a hash of the rest of the request.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestKey {
    pub id: String,
    pub hash: String,
}

/// Whether a create call created, or found what an earlier one of the same request id had created.
#[derive(Clone, Debug, PartialEq)]
pub enum Created<T> {
    New(T),
    Repeated(T),
}

impl<T> Created<T> {
    pub fn into_inner(self) -> T {
        match self {
            Self::New(t) | Self::Repeated(t) => t,
        }
    }
}

/// A resource to store.
#[derive(Clone, Debug)]
pub struct NewResource {
    pub kind: ResourceKind,
    pub id: String,
    pub owner: String,
    pub system: Option<String>,
    pub request: Option<RequestKey>,
    /// JSON of the kind's document.
    pub document: String,
}

/// A stored resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    pub kind: ResourceKind,
    pub id: String,
    pub owner: String,
    pub system: Option<String>,
    /// Milliseconds since 1970.
    pub created_at: i64,
    pub document: String,
}

impl Resource {
    /// The document, as its kind's type.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, StoreError> {
        serde_json::from_str(&self.document)
            .map_err(|e| StoreError::Damaged(format!("{} '{}': {e}", self.kind.name(), self.id)))
    }
}

/// What is stored of a system.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SystemDocument {
    pub display_name: String,
    pub labels: BTreeMap<String, String>,
    pub definition: SystemDefinition,
    pub facts: SystemFacts,
}

/// What is known of a system once it is built.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SystemFacts {
    pub scale: EnergyScale,
    pub dimension: usize,
    pub atoms: usize,
    pub energy_digest: String,
    pub forces: Vec<String>,
    pub constraints: usize,
}

impl SystemFacts {
    pub fn of(system: &System) -> Self {
        Self {
            scale: system.scale(),
            dimension: system.dimension(),
            atoms: system.atoms().unwrap_or(0),
            energy_digest: system.digest().to_string(),
            forces: system.potential().term_names(),
            constraints: system.constraints().len(),
        }
    }
}

/// What is stored of a dataset; its frames are an artifact.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DatasetDocument {
    pub display_name: String,
    pub labels: BTreeMap<String, String>,
    /// Zero if unknown.
    pub temperature: f64,
    pub frames: u64,
    /// Numbers in a frame.
    pub dimension: usize,
    /// SHA-256 of the frames as little-endian float64.
    pub digest: String,
    pub artifact: String,
    pub energy_min: f64,
    pub energy_mean: f64,
    pub energy_max: f64,
    pub energy_digest: String,
    pub warnings: Vec<String>,
    /// What is known of the frames of a simulation.
    pub simulated: Option<SimulatedFrames>,
    /// What is known of the frames of a model's samples, which are not to be used without their weights.
    pub weighted: Option<WeightedFrames>,
}

impl DatasetDocument {
    /// The job that made it.
    pub fn job(&self) -> Option<&str> {
        let of_simulation = self.simulated.as_ref().map(|simulated| &simulated.job);
        of_simulation.or(self.weighted.as_ref().map(|weighted| &weighted.job)).map(String::as_str)
    }

    /// The file of what is known of each frame, if there is one, and the numbers in each of its rows.
    pub fn table(&self) -> Option<(&str, usize)> {
        let of_simulation = self.simulated.as_ref().map(|s| (s.table.as_str(), SimulatedFrames::COLUMNS));
        of_simulation.or(self.weighted.as_ref().map(|w| (w.table.as_str(), WeightedFrames::COLUMNS)))
    }
}

/// What is stored of a dataset that a simulation made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SimulatedFrames {
    pub job: String,
    pub temperatures: Vec<f64>,
    /// A file of (temperature, energy) of each frame, little-endian float64.
    pub table: String,
}

impl SimulatedFrames {
    pub const COLUMNS: usize = 2;
}

/// What is stored of a dataset of a model's samples: frame i is the sample of index `first_index` + i.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WeightedFrames {
    pub job: String,
    pub model: String,
    pub model_digest: String,
    pub method: Method,
    pub seed: u64,
    pub first_index: u64,
    /// The measure that log p refers to, and what conditioners were computed in.
    pub coordinates: String,
    pub precision: String,
    /// Encoded boltzflow.v1.WeightSummary.
    pub weights: Vec<u8>,
    /// A file of (log weight, reduced energy, log p) of each frame, little-endian float64.
    pub table: String,
}

impl WeightedFrames {
    pub const COLUMNS: usize = 3;
}

/// What is stored of a model; its file is an artifact.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModelDocument {
    pub job: Option<String>,
    /// SHA-256 of the file.
    pub digest: String,
    pub artifact: String,
    pub size_bytes: u64,
    pub flow_dimension: usize,
    pub card: ModelCard,
}

/// A page of a list: what comes after the position that the page before ended at.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    pub size: u32,
    /// (time of creation, id) of the last entry of the page before.
    pub after: Option<(i64, String)>,
}

/// The states of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobState {
    Queued,
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

impl JobState {
    pub const ALL: [Self; 5] = [Self::Queued, Self::Running, Self::Succeeded, Self::Failed, Self::Cancelled];

    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "QUEUED",
            Self::Running => "RUNNING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, StoreError> {
        Self::ALL
            .into_iter()
            .find(|s| s.name() == text)
            .ok_or_else(|| StoreError::Damaged(format!("'{text}' is not a job state")))
    }

    /// Whether nothing more will happen to the job.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// A training job with all choices made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingJob {
    pub system: String,
    pub dataset: Option<String>,
    pub model_id: String,
    /// The recipe that choices were made by, and why it is that one.
    pub recipe: String,
    pub reason: String,
    pub plan: TrainingPlan,
}

/// A simulation job with all choices made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SimulationJob {
    pub system: String,
    /// The dataset with the starting configurations.
    pub start: Option<String>,
    pub dataset_id: String,
    /// Bytes of frames that the dataset may have.
    pub most_bytes: u64,
    pub plan: SimulationPlan,
}

/// A sampling job with all choices made, but for the method that a pilot chooses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SamplingJob {
    pub system: String,
    pub model: String,
    pub dataset_id: String,
    pub temperature: f64,
    /// Nothing lets a pilot choose.
    pub method: Option<Method>,
    pub seed: u64,
    pub first_index: u64,
    /// Samples, at most.
    pub count: u64,
    pub target_effective_samples: Option<f64>,
    pub least_effective_fraction: Option<f64>,
    /// Samples between two looks at the target: those of a stream's batch.
    pub batch: u64,
}

/// What a job does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobSpec {
    Training(Box<TrainingJob>),
    Simulation(SimulationJob),
    Sampling(SamplingJob),
}

impl JobSpec {
    pub fn system(&self) -> &str {
        match self {
            Self::Training(job) => &job.system,
            Self::Simulation(job) => &job.system,
            Self::Sampling(job) => &job.system,
        }
    }

    /// The dataset that it needs.
    pub fn dataset(&self) -> Option<&str> {
        match self {
            Self::Training(job) => job.dataset.as_deref(),
            Self::Simulation(job) => job.start.as_deref(),
            Self::Sampling(_) => None,
        }
    }

    /// The model that it needs.
    pub fn model(&self) -> Option<&str> {
        match self {
            Self::Training(_) | Self::Simulation(_) => None,
            Self::Sampling(job) => Some(&job.model),
        }
    }

    /// The resource that it makes.
    pub fn product(&self) -> (ResourceKind, &str) {
        match self {
            Self::Training(job) => (ResourceKind::Model, &job.model_id),
            Self::Simulation(job) => (ResourceKind::Dataset, &job.dataset_id),
            Self::Sampling(job) => (ResourceKind::Dataset, &job.dataset_id),
        }
    }
}

/// A job to queue.
#[derive(Clone, Debug)]
pub struct NewJob {
    pub id: String,
    pub owner: String,
    pub display_name: String,
    pub labels: BTreeMap<String, String>,
    pub request: Option<RequestKey>,
    pub spec: JobSpec,
    /// The encoded event of its being queued.
    pub payload: Vec<u8>,
}

/// Why a job failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobError {
    /// A gRPC status code.
    pub code: i32,
    pub reason: String,
    pub message: String,
}

/// A stored job.
#[derive(Clone, Debug, PartialEq)]
pub struct JobRecord {
    pub id: String,
    pub owner: String,
    pub display_name: String,
    pub labels: BTreeMap<String, String>,
    pub state: JobState,
    pub spec: JobSpec,
    pub attempt: i64,
    pub cancel_requested: bool,
    pub checkpoint: Option<(u64, String)>,
    /// Encoded boltzflow.v1.TrainingProgress, SimulationProgress or SamplingProgress.
    pub progress: Option<Vec<u8>>,
    pub error: Option<JobError>,
    pub created_at: i64,
    pub started_at: Option<i64>,
    pub ended_at: Option<i64>,
}

/// Which jobs to list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobFilter {
    /// Empty means all.
    pub states: Vec<JobState>,
}

/// A worker's right to work on a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub job: String,
    pub epoch: i64,
}

/// A job, and the lease on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    pub lease: Lease,
    pub job: JobRecord,
}

/// What a worker learns when it renews its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseState {
    Held,
    CancelRequested,
}
