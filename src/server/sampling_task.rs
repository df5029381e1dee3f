//! Sampling tasks: what is asked for, with all that is left out filled in.

use super::errors::ApiError;
use super::independent::independent_method;
use super::jobs::{Jobs, product_id};
use super::sampling::{MAX_SAMPLES, batch_size, check_method, requested_fraction, requested_temperature};
use crate::contract::{FieldError, id_of, v1};
use crate::sample::SampleError;
use crate::scheduler::load_system;
use crate::store::{ResourceKind, SamplingJob, WeightedFrames};

const TASK: &str = "job.sampling";

fn invalid(field: &str, reason: String) -> FieldError {
    FieldError::invalid(format!("{TASK}.{field}"), reason)
}

impl Jobs {
    /// The job of a task.
    pub(super) async fn sampling(&self, task: v1::SamplingTask) -> Result<SamplingJob, ApiError> {
        let within = |e: FieldError| e.within(TASK);
        let model_id = id_of("job.sampling.model", "models", &task.model)?;
        let why = "a job keeps samples that stand each for itself";
        let method = independent_method(task.method, why).map_err(within)?;
        let least_effective_fraction = requested_fraction(task.least_effective_fraction).map_err(within)?;
        let target = task.target_effective_samples;
        if !(target.is_finite() && target >= 0.0) {
            return Err(invalid(
                "target_effective_samples",
                format!("it is {target}; it must be a positive finite number"),
            )
            .into());
        }
        if task.count == 0 && target == 0.0 {
            let reason = "it is 0, and there is no other limit; set count or target_effective_samples";
            return Err(invalid("count", reason.into()).into());
        }
        let _permit = self.app.transfer().await?;
        let model = self.app.engine.models.get(model_id).await?;
        check_method(method, &model.generator).map_err(within)?;
        let trained = model.generator.temperature();
        let temperature = requested_temperature("temperature", task.temperature, trained).map_err(within)?;
        let system = self.system_of(&task, model_id, &model.generator.card.energy_digest).await?;

        let frame_bytes = 8 * (model.generator.target.system().dimension() + WeightedFrames::COLUMNS) as u64;
        let limit = self.app.limits.dataset_bytes;
        let most = (limit / frame_bytes).min(MAX_SAMPLES);
        if task.count > most {
            let reason = format!(
                "{} samples are more than the {limit} bytes that a dataset may have; ask for {most} at most",
                task.count
            );
            return Err(invalid("count", reason).into());
        }
        let count = match task.count {
            0 => most.min(u64::MAX - task.first_index),
            count => count,
        };
        if count == 0 || task.first_index.checked_add(count).is_none() {
            return Err(SampleError::IndexOverflow.into());
        }
        Ok(SamplingJob {
            dataset_id: product_id("job.sampling.dataset_id", &task.dataset_id, &system)?,
            system,
            model: model_id.to_string(),
            temperature,
            method,
            seed: task.seed,
            first_index: task.first_index,
            count,
            target_effective_samples: (target > 0.0).then_some(target),
            least_effective_fraction,
            batch: batch_size(&v1::StreamSamplesRequest::default(), &model) as u64,
        })
    }

    /// The id of the system that the dataset is of: as asked, or the model's.
    async fn system_of(&self, task: &v1::SamplingTask, model: &str, energy_digest: &str) -> Result<String, ApiError> {
        let own = self.app.store.get_resource(ResourceKind::Model, model).await?.system;
        let id = match (task.system.as_str(), own) {
            ("", Some(own)) => own,
            ("", None) => {
                let reason =
                    format!("models/{model} was imported, and its system is not known here; name one of its energy");
                return Err(invalid("system", reason).into());
            }
            (name, _) => id_of("job.sampling.system", "systems", name)?.to_string(),
        };
        if load_system(self.app.store.as_ref(), &id).await?.digest() != energy_digest {
            let reason = format!("systems/{id} has another energy than models/{model}; name one that has the same");
            return Err(invalid("system", reason).into());
        }
        Ok(id)
    }
}
