//! A generator as one file: safetensors, with everything but the weights as JSON in its metadata.

use super::generator::Generator;
use crate::coords::{CoordinatesError, CoordinatesSpec, ReducedTarget};
use crate::energy::{EnergyError, EnergyScale, System, SystemDefinition};
use crate::flow::{Flow, FlowError, FlowSpec};
use candle_core::{DType, Device, Tensor};
use std::collections::{BTreeMap, HashMap};

const FORMAT: &str = "boltzflow-model/1";

/// What a model says of itself.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ModelCard {
    /// SHA-256 of the energy's definition.
    pub energy_digest: String,
    pub energy_scale: EnergyScale,
    /// One sentence on the flow's coordinates and what is confined in them.
    pub coordinates: String,
    /// The temperature trained at.
    pub temperature: f64,
    /// SHA-256 of the training data, if there were any.
    pub data_digest: Option<String>,
    pub seed: u64,
    /// What was done, stage by stage.
    pub training: Vec<String>,
    pub steps: u64,
    pub samples: u64,
    pub energy_evaluations: u64,
    pub seconds: f64,
    /// Kish's effective sample size as a fraction of the samples, measured at the end of training at its temperature.
    pub effective_sample_fraction: f64,
    /// k̂ of the same samples; absent if it could not be fitted.
    pub pareto_k: Option<f64>,
    /// Mean log p of the training data under the trained flow, if there were any.
    pub data_log_prob: Option<f64>,
}

/// Why a file is not a model.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    #[error("this is not a whole model file: {0}")]
    Damaged(String),
    #[error("the model's energy: {0}")]
    Energy(#[from] EnergyError),
    #[error("the model's {0}")]
    Coordinates(#[from] CoordinatesError),
    #[error("the model's flow: {0}")]
    Flow(#[from] FlowError),
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Header {
    format: String,
    system: SystemDefinition,
    coordinates: CoordinatesSpec,
    flow: FlowSpec,
    card: ModelCard,
}

impl Generator {
    /// The bytes of a model file with the given weights, which are in the conditioners' precision.
    pub fn encode(
        target: &ReducedTarget,
        flow: &FlowSpec,
        weights: &BTreeMap<String, Tensor>,
        card: &ModelCard,
    ) -> Result<Vec<u8>, ArtifactError> {
        let header = Header {
            format: FORMAT.into(),
            system: target.system().definition().clone(),
            coordinates: target.coordinates().spec(),
            flow: flow.clone(),
            card: card.clone(),
        };
        let header = serde_json::to_string(&header).map_err(|e| ArtifactError::Damaged(e.to_string()))?;
        let metadata = HashMap::from([("boltzflow".to_string(), header)]);
        safetensors::serialize(weights, Some(metadata)).map_err(|e| ArtifactError::Damaged(e.to_string()))
    }

    /// Reads a model file.
    pub fn decode(bytes: &[u8], device: &Device) -> Result<Self, ArtifactError> {
        let damaged = |reason: String| ArtifactError::Damaged(reason);
        let (_, metadata) = safetensors::SafeTensors::read_metadata(bytes).map_err(|e| damaged(e.to_string()))?;
        let header = metadata.metadata().as_ref().and_then(|m| m.get("boltzflow"));
        let header = header.ok_or_else(|| damaged("it has no boltzflow header".into()))?;
        let header: Header = serde_json::from_str(header).map_err(|e| damaged(e.to_string()))?;
        if header.format != FORMAT {
            return Err(damaged(format!("its format is {}, this version reads {FORMAT}", header.format)));
        }
        let weights = candle_core::safetensors::load_buffer(bytes, device).map_err(|e| damaged(e.to_string()))?;
        let dtype = weights.values().map(Tensor::dtype).next().unwrap_or(DType::F32);
        let system = System::build(header.system)?;
        if system.digest() != header.card.energy_digest {
            return Err(damaged("its energy is not the one that its card names".into()));
        }
        let coordinates = header.coordinates.build(system.dimension())?;
        if coordinates.kinds() != header.flow.coordinates {
            return Err(damaged("its flow does not fit its coordinates".into()));
        }
        let flow = Flow::from_weights(header.flow, weights, dtype, device)?;
        Ok(Self { target: ReducedTarget::new(system, coordinates), flow, card: header.card })
    }
}
