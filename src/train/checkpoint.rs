//! A training run as bytes: weights, both moments of Adam, and counters; enough to go on bit for bit.

use super::trainer::{Counters, Trainer};
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
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Header {
    run: String,
    updates: u64,
    counters: Counters,
}

impl Trainer {
    /// The run as it stands.
    pub fn checkpoint(&self) -> Result<Vec<u8>, CheckpointError> {
        let mut tensors: BTreeMap<String, &Tensor> = BTreeMap::new();
        for (name, var) in &self.variables {
            tensors.insert(format!("weight/{name}"), var.as_tensor());
        }
        for (name, (m, v)) in &self.adam.moments {
            tensors.insert(format!("first/{name}"), m);
            tensors.insert(format!("second/{name}"), v);
        }
        let header = Header { run: self.run_digest(), updates: self.adam.updates, counters: self.counters };
        let header = serde_json::to_string(&header).map_err(|e| CheckpointError::Damaged(e.to_string()))?;
        let metadata = HashMap::from([("boltzflow-checkpoint".to_string(), header)]);
        safetensors::serialize(tensors, Some(metadata)).map_err(|e| CheckpointError::Damaged(e.to_string()))
    }

    /// Puts a new run of the same plan, system and data where the checkpoint was.
    pub fn restore(&mut self, bytes: &[u8], device: &Device) -> Result<(), CheckpointError> {
        let damaged = |reason: String| CheckpointError::Damaged(reason);
        let (_, metadata) = safetensors::SafeTensors::read_metadata(bytes).map_err(|e| damaged(e.to_string()))?;
        let header = metadata.metadata().as_ref().and_then(|m| m.get("boltzflow-checkpoint"));
        let header = header.ok_or_else(|| damaged("it has no header".into()))?;
        let header: Header = serde_json::from_str(header).map_err(|e| damaged(e.to_string()))?;
        if header.run != self.run_digest() {
            return Err(CheckpointError::Foreign);
        }
        let mut tensors = candle_core::safetensors::load_buffer(bytes, device).map_err(|e| damaged(e.to_string()))?;
        let mut take = |kind: &str, name: &str| {
            let key = format!("{kind}/{name}");
            tensors.remove(&key).ok_or_else(|| damaged(format!("{key} is missing")))
        };
        for (name, var) in &self.variables {
            var.set(&take("weight", name)?).map_err(|e| damaged(e.to_string()))?;
        }
        for (name, moments) in &mut self.adam.moments {
            *moments = (take("first", name)?, take("second", name)?);
        }
        self.adam.updates = header.updates;
        self.counters = header.counters;
        Ok(())
    }

    /// Names the run: everything that its result depends on, besides the device.
    fn run_digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(serde_json::to_string(&self.plan).unwrap_or_default());
        hash.update(self.target.system().digest());
        hash.update(self.data_digest().unwrap_or_default());
        hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
    }
}
