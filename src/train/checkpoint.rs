//! A training run as bytes: weights, both moments of Adam, and counters; enough to go on bit for bit.

use super::course::Course;
use super::data::TrainingData;
use super::plan::TrainingPlan;
use super::replay::Buffer;
use super::trainer::{Best, Counters, Standing, TrainError, Trainer};
use crate::compute::adam::{Account, Tally};
use crate::coords::CoordinatesSpec;
use crate::energy::System;
use candle_core::{Device, Tensor};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};

/// Why a checkpoint cannot be continued from.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("the checkpoint is not whole: {0}")]
    Damaged(String),
    #[error("the checkpoint belongs to another plan, system or dataset")]
    Foreign,
    #[error(transparent)]
    Run(#[from] TrainError),
}

/// What the parts of a checkpoint are, before their path.
const WEIGHT: &str = "weight";
const FIRST: &str = "first";
const SECOND: &str = "second";
const AVERAGE: &str = "average";
const BEST: &str = "best";
const OWN: &str = "own";
const SAFE: &str = "safe";

#[derive(serde::Serialize, serde::Deserialize)]
struct Header {
    run: String,
    /// Another machine's arithmetic might choose others.
    coordinates: CoordinatesSpec,
    tally: Tally,
    counters: Counters,
    best: Option<Standing>,
    course: Course,
}

impl Trainer {
    /// The run as it stands.
    ///
    /// Fails if it must not be gone on from: see [`TrainError`].
    pub fn checkpoint(&mut self) -> Result<Vec<u8>, CheckpointError> {
        self.written(None)
    }

    /// The run as it stands between two checkpoints, with the one before it: it goes back there should it lose its way.
    pub(super) fn released(&mut self, safe: &[u8]) -> Result<Vec<u8>, CheckpointError> {
        self.written(Some(safe))
    }

    fn written(&mut self, safe: Option<&[u8]>) -> Result<Vec<u8>, CheckpointError> {
        self.settle()?;
        let failed = |e: candle_core::Error| CheckpointError::Damaged(e.to_string());
        let (first, second): (Vec<_>, Vec<_>) = self.adam.moments.iter().cloned().unzip();
        let mut tensors = BTreeMap::new();
        for (kind, parts) in [
            (WEIGHT, self.weights.values()),
            (FIRST, self.weights.by_path(&first)),
            (SECOND, self.weights.by_path(&second)),
        ] {
            tensors.extend(parts.map_err(failed)?.into_iter().map(|(path, part)| (format!("{kind}/{path}"), part)));
        }
        if let Some(average) = &self.average {
            let average = self.weights.by_path(average).map_err(failed)?;
            tensors.extend(average.into_iter().map(|(path, part)| (format!("{AVERAGE}/{path}"), part)));
        }
        if let Some(best) = &self.best {
            let best = self.weights.by_path(&best.weights).map_err(failed)?;
            tensors.extend(best.into_iter().map(|(path, part)| (format!("{BEST}/{path}"), part)));
        }
        if let Some(safe) = safe {
            let bytes = Tensor::from_slice(safe, safe.len(), &Device::Cpu).map_err(failed)?;
            tensors.insert(format!("{SAFE}/bytes"), bytes);
        }
        let own = self.own.parts().map_err(failed)?;
        tensors.extend(own.into_iter().map(|(name, part)| (format!("{OWN}/{name}"), part)));
        let header = Header {
            run: run_digest(&self.plan, self.target.system(), self.data_digest().as_deref()),
            coordinates: self.target.coordinates().spec(),
            tally: self.tally()?,
            counters: self.counters,
            best: self.best.as_ref().map(|best| best.standing),
            course: self.course.clone(),
        };
        let header = serde_json::to_string(&header).map_err(|e| CheckpointError::Damaged(e.to_string()))?;
        let metadata = HashMap::from([("boltzflow-checkpoint".to_string(), header)]);
        safetensors::serialize(tensors, Some(metadata)).map_err(|e| CheckpointError::Damaged(e.to_string()))
    }

    /// The run that the checkpoint is of; plan, system and data must be the same.
    pub fn resume(
        plan: TrainingPlan,
        system: System,
        data: Option<TrainingData>,
        bytes: &[u8],
        device: &Device,
    ) -> Result<Self, CheckpointError> {
        let header = read_header(bytes)?;
        if header.run != run_digest(&plan, &system, data.as_ref().map(|data| data.digest.as_str())) {
            return Err(CheckpointError::Foreign);
        }
        let mut run = Self::prepared(plan, system, data, device, Some(header.coordinates.clone()))?;
        run.safe = bytes.to_vec();
        run.restore(header, bytes)?;
        Ok(run)
    }

    /// The state of an earlier checkpoint of this run, with learning rates `slower` times as high from there on.
    pub(super) fn roll_back(&mut self, bytes: &[u8], slower: f64) -> Result<(), CheckpointError> {
        let (spent, course) = (self.counters, self.course.clone());
        self.restore(read_header(bytes)?, bytes)?;
        // What was spent is spent, and what was measured was measured.
        self.course = course;
        self.counters = Counters {
            step: self.counters.step,
            measured_at: self.counters.step,
            best_fraction: self.counters.best_fraction,
            learning_rate_scale: spent.learning_rate_scale * slower,
            rollbacks: spent.rollbacks + 1,
            ..spent
        };
        Ok(())
    }

    fn restore(&mut self, header: Header, bytes: &[u8]) -> Result<(), CheckpointError> {
        let damaged = |reason: String| CheckpointError::Damaged(reason);
        let failed = |e: candle_core::Error| CheckpointError::Damaged(e.to_string());
        let device = self.flow.device().clone();
        let mut parts: BTreeMap<String, BTreeMap<String, Tensor>> = BTreeMap::new();
        for (name, part) in candle_core::safetensors::load_buffer(bytes, &device).map_err(failed)? {
            let (kind, path) = name.split_once('/').ok_or_else(|| damaged(format!("{name} is not known")))?;
            parts.entry(kind.into()).or_default().insert(path.into(), part);
        }
        let mut take = |kind: &str| parts.remove(kind).unwrap_or_default();
        let first = self.weights.joined(take(FIRST)).map_err(failed)?;
        let second = self.weights.joined(take(SECOND)).map_err(failed)?;
        self.weights.set(take(WEIGHT)).map_err(failed)?;
        if self.average.is_some() {
            self.average = Some(self.weights.joined(take(AVERAGE)).map_err(failed)?);
        }
        self.best = match header.best {
            Some(standing) => Some(Best { standing, weights: self.weights.joined(take(BEST)).map_err(failed)? }),
            None => None,
        };
        if let Some(safe) = take(SAFE).remove("bytes") {
            self.safe = safe.to_vec1::<u8>().map_err(failed)?;
        }
        self.own = Buffer::from_parts(take(OWN), self.target.dimension()).map_err(damaged)?;
        self.adam.moments = first.into_iter().zip(second).collect();
        self.adam.account = Account::new(header.tally, &device).map_err(failed)?;
        self.counters = header.counters;
        self.course = header.course;
        Ok(())
    }
}

fn read_header(bytes: &[u8]) -> Result<Header, CheckpointError> {
    let damaged = |reason: String| CheckpointError::Damaged(reason);
    let (_, metadata) = safetensors::SafeTensors::read_metadata(bytes).map_err(|e| damaged(e.to_string()))?;
    let header = metadata.metadata().as_ref().and_then(|m| m.get("boltzflow-checkpoint"));
    let header = header.ok_or_else(|| damaged("it has no header".into()))?;
    serde_json::from_str(header).map_err(|e| damaged(e.to_string()))
}

/// Names the run: everything that its result depends on, besides the device.
/// Another one whenever flows of the same plan have other weights than before.
const WEIGHTS: &str = "2";

fn run_digest(plan: &TrainingPlan, system: &System, data: Option<&str>) -> String {
    let mut hash = Sha256::new();
    hash.update(WEIGHTS);
    hash.update(serde_json::to_string(plan).unwrap_or_default());
    hash.update(system.digest());
    hash.update(data.unwrap_or_default());
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}
