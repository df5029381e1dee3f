//! A generator as one file: safetensors, with everything but the weights as JSON in its metadata.

use super::generator::Generator;
use crate::coords::{CoordinatesError, CoordinatesSpec, ReducedTarget};
use crate::energy::{EnergyError, EnergyScale, System, SystemDefinition};
use crate::flow::{Flow, FlowError, FlowSpec, TemperatureRange};
use candle_core::{DType, Device, Tensor};
use std::collections::{BTreeMap, HashMap};

/// A model of which a probe finds more of the target unseen misses a part of it.
pub const MOST_UNSEEN: f64 = 0.05;

const FORMAT: &str = "boltzflow-model/6";

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
    /// The temperatures trained at by a flow that is conditioned on it.
    pub temperature_range: Option<TemperatureRange>,
    /// SHA-256 of the training data, if there were any.
    pub data_digest: Option<String>,
    pub seed: u64,
    /// The reduced energy above which training saw a logarithm of it.
    pub energy_cut: f64,
    /// What was done, stage by stage.
    pub training: Vec<String>,
    pub steps: u64,
    /// Flow evaluations of training: configurations that the flow was run on, each time that it was, in whichever direction.
    /// What it was measured on is not among them.
    pub samples: u64,
    pub energy_evaluations: u64,
    pub seconds: f64,
    /// Samples that the next two were measured on, at the end of training at its temperature.
    pub validation_samples: u64,
    /// Kish's effective sample size as a fraction of the samples.
    pub effective_sample_fraction: f64,
    /// k̂ of the same samples; absent if it could not be fitted.
    pub pareto_k: Option<f64>,
    /// The same over the range of temperatures, and at those that frames were held out of; empty where there is none.
    pub by_temperature: Vec<TemperatureMeasure>,
    /// Mean log p of data that were held out from training, if there were any and it is finite.
    pub data_log_prob: Option<f64>,
    /// The effective fraction as held-out data see it: Z/⟨w⟩, with log Z from the model's samples and the mean of the
    /// weights w = exp(−U/kT)/p over the data. For a model that covers the data it is about
    /// `effective_sample_fraction`; where data lie in a mode that the model never visits, it is far less.
    pub data_effective_fraction: Option<f64>,
    /// The share of the target that `validation_samples` do not see at its temperature, as a probe finds it; absent where none was
    /// made, or nothing had any weight.
    pub unseen_share: Option<f64>,
    /// What was measured on the way, at most [`MOST_POINTS`] times; steps go back where the run went back. The last point is of the
    /// last step, also where the model is that of an earlier one.
    pub course: Vec<CoursePoint>,
}

/// A run of training as it was measured after a step, at the temperature trained at.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct CoursePoint {
    pub step: u64,
    pub samples: u64,
    pub energy_evaluations: u64,
    pub seconds: f64,
    pub effective_sample_fraction: f64,
    /// Absent while no sample has a weight.
    pub log_z: Option<f64>,
    /// −⟨log w⟩: the reverse Kullback-Leibler divergence less log Z. Absent while it is not finite.
    pub free_energy_bound: Option<f64>,
    /// Of held-out data, as of a card.
    pub data_log_prob: Option<f64>,
    pub data_effective_fraction: Option<f64>,
}

/// The weights of a model's samples at one temperature.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct TemperatureMeasure {
    pub temperature: f64,
    /// Kish's effective sample size as a fraction of the samples.
    pub effective_sample_fraction: f64,
    /// Absent if it could not be fitted.
    pub pareto_k: Option<f64>,
    /// [`ModelCard::data_effective_fraction`] at this temperature, if there were data of it and it is not the one trained at.
    pub data_effective_fraction: Option<f64>,
}

/// Points of a card's course.
pub const MOST_POINTS: usize = 257;

/// A model covers its held-out data if their effective fraction is at least this part of that of its own samples.
const COVERED: f64 = 0.1;

/// Whether a flow of an effective fraction of its own samples makes what held-out data hold, which is what they see of it.
pub fn covers(own: f64, of_data: f64) -> bool {
    of_data > 0.0 && of_data >= COVERED * own
}

impl ModelCard {
    /// Whether a probe found a part of the target that the model hardly makes.
    pub fn misses_a_part(&self) -> bool {
        self.unseen_share.is_some_and(|share| share > MOST_UNSEEN)
    }

    /// Whether the model makes what the held-out data hold, at each temperature that they are of; nothing if there were no data.
    pub fn covers_data(&self) -> Option<bool> {
        let at_reference = (self.effective_sample_fraction, self.data_effective_fraction);
        let others = self.by_temperature.iter().map(|m| (m.effective_sample_fraction, m.data_effective_fraction));
        let of = |(own, of_data): (f64, Option<f64>)| of_data.map(|of_data| covers(own, of_data));
        std::iter::once(at_reference).chain(others).filter_map(of).reduce(|all, one| all && one)
    }
}

impl ModelCard {
    fn check(&self) -> Result<(), String> {
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return Err(format!("its card names the temperature {}", self.temperature));
        }
        if let Some(TemperatureRange { low, high }) = self.temperature_range
            && !(0.0 < low && low <= self.temperature && self.temperature <= high && high.is_finite())
        {
            return Err(format!(
                "its card names temperatures from {low} to {high}, trained around {}",
                self.temperature
            ));
        }
        if self.course.len() > MOST_POINTS {
            return Err(format!("its card has a course of {} points, of at most {MOST_POINTS}", self.course.len()));
        }
        if self.by_temperature.iter().any(|m| !(m.temperature.is_finite() && m.temperature > 0.0)) {
            return Err("its card was measured at temperatures that there are not".into());
        }
        let fractions = [Some(self.effective_sample_fraction), self.data_effective_fraction];
        let measured = self
            .by_temperature
            .iter()
            .flat_map(|m| [Some(m.effective_sample_fraction), m.data_effective_fraction].into_iter().flatten());
        if fractions.into_iter().flatten().chain(measured).any(|f| !(0.0..=1.0).contains(&f)) {
            return Err("its card names an effective fraction that is not from 0 to 1".into());
        }
        Ok(())
    }
}

/// The precision of a model's weights, which are all of one and finite.
fn check_weights(weights: &HashMap<String, Tensor>) -> Result<DType, String> {
    let dtype = weights.values().map(Tensor::dtype).next().unwrap_or(DType::F32);
    for (name, tensor) in weights {
        if tensor.dtype() != dtype || !matches!(dtype, DType::F32 | DType::F64) {
            return Err(format!("weight '{name}' is {:?}; all must be F32, or all F64", tensor.dtype()));
        }
        let numbers = tensor.flatten_all().and_then(|t| t.to_dtype(DType::F64)).and_then(|t| t.to_vec1::<f64>());
        if !numbers.map_err(|e| e.to_string())?.iter().all(|x| x.is_finite()) {
            return Err(format!("weight '{name}' has values that are not finite"));
        }
    }
    Ok(dtype)
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

#[derive(serde::Deserialize)]
struct Version {
    format: String,
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
        // What else is in the header depends on the format.
        let Version { format } = serde_json::from_str(header).map_err(|e| damaged(e.to_string()))?;
        if format != FORMAT {
            return Err(damaged(format!("its format is {format}, this version reads {FORMAT}; train the model again")));
        }
        let header: Header = serde_json::from_str(header).map_err(|e| damaged(e.to_string()))?;
        let weights = candle_core::safetensors::load_buffer(bytes, device).map_err(|e| damaged(e.to_string()))?;
        let dtype = check_weights(&weights).map_err(damaged)?;
        let system = System::build(header.system)?;
        if system.digest() != header.card.energy_digest {
            return Err(damaged("its energy is not the one that its card names".into()));
        }
        let coordinates = header.coordinates.build(system.dimension())?;
        if coordinates.kinds() != header.flow.coordinates {
            return Err(damaged("its flow does not fit its coordinates".into()));
        }
        let mut card = header.card;
        card.check().map_err(damaged)?;
        if header.flow.temperatures.is_some() != card.temperature_range.is_some() {
            return Err(damaged("its flow and its card disagree on whether it is conditioned on temperature".into()));
        }
        // What follows from the rest is not taken from the card.
        card.energy_scale = system.scale();
        card.coordinates = coordinates.description();
        let flow = Flow::from_weights(header.flow, weights, dtype, device)?;
        Ok(Self { target: ReducedTarget::new(system, coordinates), flow, card })
    }
}
