//! Records of the store as messages.

use super::errors::ApiError;
use crate::contract::v1;
use crate::contract::{
    analytic_message, card_message, energy_unit, method_message, simulation_task, state_message, timestamp,
    training_task,
};
use crate::energy::SystemDefinition;
use crate::energy::analytic::AnalyticPotential;
use crate::store::{
    DatasetDocument, JobRecord, JobSpec, JobState, ModelDocument, Resource, ResourceKind, SamplingJob, StoreError,
    SystemDocument, SystemFacts, WeightedFrames,
};
use prost::Message;

fn name(kind: ResourceKind, id: &str) -> String {
    format!("{}/{id}", kind.collection())
}

/// A stored system; `full` with the texts of an OpenMM system.
pub(super) fn system(resource: &Resource, full: bool) -> Result<v1::System, ApiError> {
    let document: SystemDocument = resource.read()?;
    let definition = match document.definition {
        SystemDefinition::Analytic(potential) => v1::system::Definition::Analytic(analytic_message(&potential)),
        SystemDefinition::OpenMm { system_xml, topology_pdb } => {
            let texts = v1::OpenMmSystem { system_xml, topology_pdb: topology_pdb.unwrap_or_default() };
            v1::system::Definition::Openmm(if full { texts } else { v1::OpenMmSystem::default() })
        }
    };
    Ok(v1::System {
        name: name(ResourceKind::System, &resource.id),
        display_name: document.display_name,
        labels: document.labels,
        definition: Some(definition),
        owner: resource.owner.clone(),
        create_time: Some(timestamp(resource.created_at)),
        ..facts(&document.facts)
    })
}

fn facts(facts: &SystemFacts) -> v1::System {
    v1::System {
        energy_unit: energy_unit(facts.scale).into(),
        dimension: facts.dimension as i64,
        atoms: facts.atoms as i64,
        energy_digest: facts.energy_digest.clone(),
        forces: facts.forces.clone(),
        constraints: facts.constraints as i64,
        ..v1::System::default()
    }
}

/// A system that comes with the server.
pub(super) fn built_in_system(id: &str, potential: &AnalyticPotential, facts_of: &SystemFacts) -> v1::System {
    v1::System {
        name: name(ResourceKind::System, id),
        definition: Some(v1::system::Definition::Analytic(analytic_message(potential))),
        owner: "boltzflow".into(),
        built_in: true,
        ..facts(facts_of)
    }
}

pub(super) fn dataset(resource: &Resource) -> Result<v1::Dataset, ApiError> {
    let document: DatasetDocument = resource.read()?;
    let job = document.job().map(|id| format!("jobs/{id}")).unwrap_or_default();
    Ok(v1::Dataset {
        name: name(ResourceKind::Dataset, &resource.id),
        system: name(ResourceKind::System, resource.system.as_deref().unwrap_or_default()),
        temperature: document.temperature,
        display_name: document.display_name,
        labels: document.labels,
        owner: resource.owner.clone(),
        create_time: Some(timestamp(resource.created_at)),
        frames: document.frames as i64,
        digest: document.digest,
        energy_min: document.energy_min,
        energy_mean: document.energy_mean,
        energy_max: document.energy_max,
        energy_digest: document.energy_digest,
        warnings: document.warnings,
        job,
        temperatures: document.simulated.map(|s| s.temperatures).unwrap_or_default(),
        weighted: document.weighted.map(|weighted| weighted_frames(weighted, &resource.id)).transpose()?,
    })
}

fn weighted_frames(frames: WeightedFrames, dataset: &str) -> Result<v1::WeightedFrames, ApiError> {
    let damaged = |e| StoreError::Damaged(format!("the weights of dataset '{dataset}': {e}"));
    Ok(v1::WeightedFrames {
        model: name(ResourceKind::Model, &frames.model),
        model_digest: frames.model_digest,
        method: method_message(frames.method).into(),
        seed: frames.seed,
        first_index: frames.first_index,
        coordinates: frames.coordinates,
        precision: frames.precision,
        weights: Some(v1::WeightSummary::decode(frames.weights.as_slice()).map_err(damaged)?),
    })
}

/// The message of a sampling job, with nothing left out but the method that a pilot chooses.
fn sampling_task(job: &SamplingJob) -> v1::SamplingTask {
    v1::SamplingTask {
        model: name(ResourceKind::Model, &job.model),
        temperature: job.temperature,
        method: job.method.map_or(v1::SamplingMethod::Auto, method_message).into(),
        seed: job.seed,
        first_index: job.first_index,
        count: job.count,
        target_effective_samples: job.target_effective_samples.unwrap_or(0.0),
        least_effective_fraction: job.least_effective_fraction.unwrap_or(0.0),
        dataset_id: job.dataset_id.clone(),
        system: name(ResourceKind::System, &job.system),
    }
}

pub(super) fn model(resource: &Resource) -> Result<v1::Model, ApiError> {
    let document: ModelDocument = resource.read()?;
    Ok(v1::Model {
        name: name(ResourceKind::Model, &resource.id),
        system: resource.system.as_deref().map(|id| name(ResourceKind::System, id)).unwrap_or_default(),
        job: document.job.map(|id| format!("jobs/{id}")).unwrap_or_default(),
        owner: resource.owner.clone(),
        create_time: Some(timestamp(resource.created_at)),
        digest: document.digest,
        size_bytes: document.size_bytes as i64,
        card: Some(card_message(&document.card, document.flow_dimension)),
    })
}

pub(super) fn job(record: &JobRecord) -> Result<v1::Job, ApiError> {
    let damaged = |e| StoreError::Damaged(format!("the progress of job '{}': {e}", record.id));
    let progress = record.progress.as_deref();
    let (kind, product) = record.spec.product();
    let made = if record.state == JobState::Succeeded { name(kind, product) } else { String::new() };
    let own = match &record.spec {
        JobSpec::Training(job) => v1::Job {
            task: Some(v1::job::Task::Training(training_task(
                &job.plan,
                &job.system,
                job.dataset.as_deref(),
                &job.model_id,
                &job.recipe,
            ))),
            progress: progress.map(v1::TrainingProgress::decode).transpose().map_err(damaged)?,
            model: made,
            ..v1::Job::default()
        },
        JobSpec::Simulation(job) => v1::Job {
            task: Some(v1::job::Task::Simulation(simulation_task(
                &job.plan,
                &job.system,
                job.start.as_deref(),
                &job.dataset_id,
            ))),
            simulation_progress: progress.map(v1::SimulationProgress::decode).transpose().map_err(damaged)?,
            dataset: made,
            ..v1::Job::default()
        },
        JobSpec::Sampling(job) => v1::Job {
            task: Some(v1::job::Task::Sampling(sampling_task(job))),
            sampling_progress: progress.map(v1::SamplingProgress::decode).transpose().map_err(damaged)?,
            dataset: made,
            ..v1::Job::default()
        },
    };
    Ok(v1::Job {
        name: format!("jobs/{}", record.id),
        display_name: record.display_name.clone(),
        labels: record.labels.clone(),
        owner: record.owner.clone(),
        state: state_message(record.state.name()).into(),
        create_time: Some(timestamp(record.created_at)),
        start_time: record.started_at.map(timestamp),
        end_time: record.ended_at.map(timestamp),
        attempt: i32::try_from(record.attempt).unwrap_or(i32::MAX),
        error: record.error.clone().map(|e| v1::JobError { code: e.code, reason: e.reason, message: e.message }),
        cancel_requested: record.cancel_requested,
        ..own
    })
}
