//! Models in memory.

use super::remembered::Remembered;
use super::shared_batches::Pace;
use crate::compute::Precision;
use crate::sample::{
    ArtifactError, ChainShape, Chains, Effort, Generator, Method, MethodChoice, PathError, PathLength, PopulationGoal,
    Populations, Probe, SampleError, SampleKey, TunedPopulations, WeightedBatch,
};
use crate::store::{Artifacts, ArtifactsError, ModelDocument, ResourceKind, Store, StoreError};
use crate::thermo::WeightSummary;
use candle_core::Device;
use std::sync::{Arc, Mutex, PoisonError};

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the file of model '{id}' cannot be read: {source}")]
    Artifacts { id: String, source: ArtifactsError },
    #[error("model '{id}': {source}")]
    Damaged { id: String, source: ArtifactError },
    #[error(transparent)]
    Sample(#[from] Arc<SampleError>),
    #[error("the computation ended without an answer")]
    Lost,
}

/// A temperature, an effort, a conditional fraction, and what limits the search; numbers by their bits.
type PopulationsKey = (u64, Effort, u64, (usize, u64));

/// A temperature, an effort and exponents; numbers by their bits.
type ChainsKey = (u64, Option<Effort>, Option<Vec<u64>>);

/// A model ready to sample.
#[derive(Debug)]
pub struct LoadedModel {
    pub id: String,
    /// SHA-256 of its file.
    pub digest: String,
    pub generator: Generator,
    pub(super) pace: Pace,
    /// By temperature, and by the method if there was no choice.
    pilots: Remembered<(u64, Option<Method>), MethodChoice>,
    /// By temperature and length of paths.
    step_sizes: Remembered<(u64, PathLength), Vec<f64>>,
    /// By all of their goal but the size.
    populations: Remembered<PopulationsKey, TunedPopulations>,
    /// By temperature, effort and the exponents that were given, whatever their number and length.
    chains: Remembered<ChainsKey, Chains>,
    /// What populations were found to be worth, by temperature.
    trials: Remembered<u64, WeightSummary>,
    /// By temperature and method.
    probes: Remembered<(u64, Method), Option<Arc<Probe>>>,
}

impl LoadedModel {
    /// The best method for a temperature, or how good the only one is. The pilot is run once for each temperature; `draw` gives
    /// its samples.
    pub fn choose_method<E>(
        &self,
        temperature: f64,
        only: Option<Method>,
        draw: impl FnMut(&SampleKey, usize) -> Result<WeightedBatch, E>,
    ) -> Result<MethodChoice, E> {
        let key = (temperature.to_bits(), only);
        self.pilots.get_or_make(key, || self.generator.choose_method(temperature, only, draw))
    }

    /// The tuned step sizes of annealed paths. The pilots are run once for each temperature and length.
    pub fn step_sizes<E: From<PathError> + From<SampleError>>(
        &self,
        temperature: f64,
        length: PathLength,
        proceed: impl FnMut() -> Result<(), E>,
    ) -> Result<Vec<f64>, E> {
        let key = (temperature.to_bits(), length);
        self.step_sizes.get_or_make(key, || self.generator.tuned_step_sizes(temperature, length, proceed))
    }

    /// Tuned populations. The pilots are run once for each temperature and goal.
    pub fn populations<E: From<PathError> + From<SampleError>>(
        &self,
        temperature: f64,
        goal: PopulationGoal,
        proceed: impl FnMut() -> Result<(), E>,
    ) -> Result<TunedPopulations, E> {
        let limits = (goal.most_evaluations, goal.least_first_step.to_bits());
        let key = (temperature.to_bits(), goal.effort, goal.conditional_fraction.to_bits(), limits);
        let tuned = || self.generator.tuned_populations(temperature, goal, proceed);
        let TunedPopulations { plan, arrives } = self.populations.get_or_make(key, tuned)?;
        Ok(TunedPopulations { plan: Populations { size: goal.size, ..plan }, arrives })
    }

    /// Tuned chains. The pilots are run once for each temperature, effort and exponents.
    pub fn chains<E: From<PathError> + From<SampleError>>(
        &self,
        temperature: f64,
        shape: ChainShape,
        exponents: Option<Vec<f64>>,
        proceed: impl FnMut() -> Result<(), E>,
    ) -> Result<Chains, E> {
        let bits = exponents.as_ref().map(|all| all.iter().map(|b| b.to_bits()).collect());
        let pilot = ChainShape { effort: shape.effort, ..ChainShape::DEFAULT };
        let tuned = || self.generator.tuned_chains(temperature, pilot, exponents, proceed);
        let key = (temperature.to_bits(), shape.effort, bits);
        Ok(Chains { shape, ..self.chains.get_or_make(key, tuned)? })
    }

    /// What `make` gives as the probe of a key's density. It is asked once for each temperature and method.
    pub(super) fn probe<E>(
        &self,
        key: &SampleKey,
        make: impl FnOnce() -> Result<Option<Probe>, E>,
    ) -> Result<Option<Arc<Probe>>, E> {
        let of = (key.temperature.to_bits(), key.method);
        self.probes.get_or_make(of, || Ok(make()?.map(Arc::new)))
    }

    /// What pilot populations are worth at a temperature; `make` is asked once, and its nothing is not remembered.
    pub fn trial<E>(
        &self,
        temperature: f64,
        make: impl FnOnce() -> Result<Option<WeightSummary>, E>,
    ) -> Result<Option<WeightSummary>, E> {
        let made = self.trials.get_or_make(temperature.to_bits(), || match make() {
            Ok(Some(weights)) => Ok(weights),
            Ok(None) => Err(None),
            Err(error) => Err(Some(error)),
        });
        match made {
            Ok(weights) => Ok(Some(weights)),
            Err(None) => Ok(None),
            Err(Some(error)) => Err(error),
        }
    }
}

/// The models in memory: the most recently used ones.
pub struct Models {
    store: Arc<dyn Store>,
    artifacts: Artifacts,
    device: Device,
    precision: Precision,
    capacity: usize,
    /// From the least to the most recently used.
    loaded: Mutex<Vec<Arc<LoadedModel>>>,
}

impl Models {
    pub fn new(
        store: Arc<dyn Store>,
        artifacts: Artifacts,
        device: Device,
        precision: Precision,
        capacity: usize,
    ) -> Self {
        Self { store, artifacts, device, precision, capacity: capacity.max(1), loaded: Mutex::default() }
    }

    /// A model by id, from memory or from its file.
    pub async fn get(&self, id: &str) -> Result<Arc<LoadedModel>, EngineError> {
        let document: ModelDocument = self.store.get_resource(ResourceKind::Model, id).await?.read()?;
        if let Some(model) = self.find(id, &document.digest) {
            return Ok(model);
        }
        let bytes = self
            .artifacts
            .get(&document.artifact)
            .await
            .map_err(|source| EngineError::Artifacts { id: id.to_string(), source })?;
        let device = self.device.clone();
        let precision = self.precision;
        let decode = move || Generator::decode(&bytes, &device).map(|generator| generator.with_precision(precision));
        let generator = tokio::task::spawn_blocking(decode)
            .await
            .map_err(|_| EngineError::Lost)?
            .map_err(|source| EngineError::Damaged { id: id.to_string(), source })?;
        let model = Arc::new(LoadedModel {
            id: id.to_string(),
            digest: document.digest,
            generator,
            pace: Pace::default(),
            pilots: Remembered::default(),
            step_sizes: Remembered::default(),
            populations: Remembered::default(),
            chains: Remembered::default(),
            trials: Remembered::default(),
            probes: Remembered::default(),
        });
        // Another request may have read the same file meanwhile.
        if let Some(model) = self.find(id, &model.digest) {
            return Ok(model);
        }
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.len() >= self.capacity {
            loaded.remove(0);
        }
        loaded.push(Arc::clone(&model));
        Ok(model)
    }

    fn find(&self, id: &str, digest: &str) -> Option<Arc<LoadedModel>> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let at = loaded.iter().position(|m| m.id == id && m.digest == digest)?;
        let model = loaded.remove(at);
        loaded.push(Arc::clone(&model));
        Some(model)
    }

    /// The number of models in memory.
    pub fn count(&self) -> usize {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
