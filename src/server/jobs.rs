//! JobService.

use super::app::{App, OWNER, check_notes, chosen_id, clean, request_key};
use super::convert;
use super::errors::ApiError;
use super::pages::{next_token, read_page};
use crate::contract::v1;
use crate::contract::v1::job_service_server::JobService;
use crate::contract::{
    FieldError, chosen_recipe, encode_state_event, id_of, job_event, simulation_plan, training_plan,
};
use crate::coords::{CoordinateKind, free_particles, preview_kinds};
use crate::energy::has_start;
use crate::energy::{EnergyScale, System};
use crate::scheduler::load_system;
use crate::simulate::Method;
use crate::store::{
    DatasetDocument, JobFilter, JobSpec, JobState, NewJob, ResourceKind, SimulationJob, StoreError, TrainingJob,
};
use crate::train::{FEWEST_FRAMES, TrainingPlan};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tracing::warn;

/// Events read from the database at a time.
const EVENTS: u32 = 100;

/// How long a watcher waits when nothing announces a change.
const POLL: Duration = Duration::from_secs(2);

/// The temperature of a molecule when nothing says another, in kelvin.
const ROOM: f64 = 300.0;

/// Jobs and their events.
pub(super) struct Jobs {
    pub app: App,
}

impl Jobs {
    async fn create(&self, mut request: v1::CreateJobRequest) -> Result<v1::Job, ApiError> {
        self.app.check_open()?;
        let request_id = std::mem::take(&mut request.request_id);
        let key = request_key(&request_id, &request)?;
        let Some(job) = request.job else { return Err(FieldError::invalid("job", "it is missing").into()) };
        check_notes("job", &job.display_name, &job.labels)?;
        let spec = match job.task {
            Some(v1::job::Task::Training(task)) => JobSpec::Training(Box::new(self.training(task).await?)),
            Some(v1::job::Task::Simulation(task)) => JobSpec::Simulation(self.simulation(task).await?),
            Some(v1::job::Task::Sampling(task)) => JobSpec::Sampling(self.sampling(task).await?),
            None => {
                let reason = "it is missing; give a task, training, simulation or sampling";
                return Err(FieldError::invalid("job.training", reason).into());
            }
        };
        let new = NewJob {
            id: chosen_id("job_id", &request.job_id, "job")?,
            owner: OWNER.into(),
            display_name: clean(&job.display_name),
            labels: job.labels,
            request: key,
            spec,
            payload: encode_state_event(JobState::Queued.name()),
        };
        let limit = self.app.limits.unfinished_jobs;
        let record = self.app.store.create_job(new, limit, request.validate_only).await?.into_inner();
        convert::job(&record)
    }

    async fn training(&self, task: v1::TrainingTask) -> Result<TrainingJob, ApiError> {
        let system_id = id_of("job.training.system", "systems", &task.system)?.to_string();
        let system = load_system(self.app.store.as_ref(), &system_id).await?;
        let dataset = match task.dataset.as_str() {
            "" => None,
            name => Some(self.dataset("job.training.dataset", name, &system_id).await?),
        };
        if let Some((id, DatasetDocument { weighted: Some(of), .. })) = &dataset {
            let reason = format!(
                "datasets/{id} has weighted samples of models/{}, which training would take for frames that are distributed as \
                 the system's are; name frames of a simulation, or train without a dataset",
                of.model
            );
            return Err(FieldError::invalid("job.training.dataset", reason).into());
        }
        if let Some((id, document)) = &dataset
            && document.frames < FEWEST_FRAMES
        {
            let reason =
                format!("datasets/{id} has {} frames; training needs {FEWEST_FRAMES} at least", document.frames);
            return Err(FieldError::invalid("job.training.dataset", reason).into());
        }
        let temperature = temperature(&task, &system, dataset.as_ref().map(|(_, d)| d))?;
        let (recipe, reason) = chosen_recipe(&task, &system)?;
        let plan = training_plan(&task, &system, temperature)?;
        if plan.needs_data() && dataset.is_none() {
            let reason = "a stage has a maximum_likelihood weight; name a dataset, or train by reverse_kl alone";
            return Err(FieldError::invalid("job.training.dataset", reason).into());
        }
        let plan = check_flow(system, plan, dataset.is_some()).await?;
        let model_id = product_id("job.training.model_id", &task.model_id, &system_id)?;
        Ok(TrainingJob {
            system: system_id,
            dataset: dataset.map(|(id, _)| id),
            model_id,
            recipe: recipe.name().to_string(),
            reason: reason.to_string(),
            plan,
        })
    }

    async fn simulation(&self, task: v1::SimulationTask) -> Result<SimulationJob, ApiError> {
        let system_id = id_of("job.simulation.system", "systems", &task.system)?.to_string();
        let system = load_system(self.app.store.as_ref(), &system_id).await?;
        let start = match task.start.as_str() {
            "" => None,
            name => Some(self.dataset("job.simulation.start", name, &system_id).await?.0),
        };
        if start.is_none() && !has_start(&system) {
            return Err(ApiError::Unsuitable(
                "the system has no structure to start from; create it with a topology_pdb, or name a dataset as start"
                    .into(),
            ));
        }
        let plan = simulation_plan(&task, &system)?;
        if !system.constraints().is_empty() && matches!(plan.method, Method::Metropolis { .. }) {
            let reason = "Metropolis moves do not keep the system's constraints; use another method";
            return Err(FieldError::invalid("job.simulation.method", reason).into());
        }
        let (frames, limit) = (plan.frames(None), self.app.limits.dataset_bytes);
        if frames.saturating_mul(8 * system.dimension() as u64) > limit {
            let reason = format!("{frames} frames are more than the {limit} bytes that a dataset may have; keep fewer");
            return Err(FieldError::invalid("job.simulation.stride", reason).into());
        }
        let dataset_id = product_id("job.simulation.dataset_id", &task.dataset_id, &system_id)?;
        Ok(SimulationJob { system: system_id, start, dataset_id, most_bytes: limit, plan })
    }

    /// A dataset of a system.
    async fn dataset(
        &self,
        field: &'static str,
        name: &str,
        system_id: &str,
    ) -> Result<(String, DatasetDocument), ApiError> {
        let id = id_of(field, "datasets", name)?;
        let resource = self.app.store.get_resource(ResourceKind::Dataset, id).await?;
        if resource.system.as_deref() != Some(system_id) {
            let reason = format!("{name} is of another system than systems/{system_id}");
            return Err(FieldError::invalid(field, reason).into());
        }
        Ok((id.to_string(), resource.read()?))
    }

    /// Sends events as they come, until the job is over or the watcher goes away.
    async fn watch(app: App, id: String, mut after: i64, sender: mpsc::Sender<Result<v1::JobEvent, Status>>) {
        let mut changes = app.store.changes();
        loop {
            changes.mark_unchanged();
            // The state is read first: an event that comes after it is found in the next round.
            let over = match app.store.get_job(&id).await {
                Ok(job) => job.state.is_over(),
                Err(e) => {
                    let _ = sender.send(Err(e.into())).await;
                    return;
                }
            };
            let events = match app.store.events_after(&id, after, EVENTS).await {
                Ok(events) => events,
                Err(e) => {
                    let _ = sender.send(Err(e.into())).await;
                    return;
                }
            };
            let more = events.len() == EVENTS as usize;
            for (sequence, time, payload) in events {
                let message = job_event(sequence, time, &payload).map_err(|e| {
                    warn!(job = %id, sequence, error = %e, "a stored event is damaged");
                    ApiError::from(StoreError::Damaged(format!("event {sequence} of job '{id}'"))).into()
                });
                if sender.send(message).await.is_err() {
                    return;
                }
                after = sequence;
            }
            if more {
                continue;
            }
            if over {
                return;
            }
            tokio::select! {
                () = app.draining.cancelled() => {
                    let _ = sender.send(Err(ApiError::Draining.into())).await;
                    return;
                }
                () = sender.closed() => return,
                _ = changes.changed() => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }
}

/// The name of what a job makes: as asked, or after the system.
pub(super) fn product_id(field: &'static str, asked: &str, system_id: &str) -> Result<String, ApiError> {
    let prefix: String = system_id.chars().take(40).collect();
    Ok(chosen_id(field, asked, prefix.trim_end_matches('-'))?)
}

/// The temperature to train at: as asked, or the dataset's, or the usual one.
fn temperature(task: &v1::TrainingTask, system: &System, dataset: Option<&DatasetDocument>) -> Result<f64, FieldError> {
    if !(task.temperature.is_finite() && task.temperature >= 0.0) {
        let reason = format!("it is {}; it must be a positive finite number, or 0 for the default", task.temperature);
        return Err(FieldError::invalid("job.training.temperature", reason));
    }
    if task.temperature > 0.0 {
        return Ok(task.temperature);
    }
    let default = match (dataset, system.scale()) {
        (Some(dataset), _) if dataset.temperature > 0.0 => dataset.temperature,
        (_, EnergyScale::Reduced) => 1.0,
        (_, EnergyScale::KilojoulePerMole) => ROOM,
    };
    Ok(match &task.temperature_range {
        // What is no range is refused with the rest of the plan.
        Some(range) if default < range.low || range.high < default => Some((range.low * range.high).sqrt())
            .filter(|middle| (range.low..=range.high).contains(middle))
            .unwrap_or(default),
        _ => default,
    })
}

/// That the system can have coordinates, and the flow can be built in them; off the async threads, since both take time
/// for a large molecule.
async fn check_flow(system: System, plan: TrainingPlan, has_data: bool) -> Result<TrainingPlan, ApiError> {
    let checked = tokio::task::spawn_blocking(move || {
        let mut kinds =
            preview_kinds(&system, has_data, &plan.coordinates).map_err(|e| ApiError::Unsuitable(e.to_string()))?;
        let particles = free_particles(&system);
        kinds.extend(vec![CoordinateKind::Real; plan.architecture.auxiliary_variables(particles)]);
        plan.check_dimension(kinds.len()).map_err(|e| FieldError::from_sentence("job.training.", &e))?;
        let spec = plan
            .architecture
            .expand(&kinds, particles, plan.conditions(), plan.seed)
            .map_err(|e| FieldError::invalid("job.training.architecture", e.to_string()))?;
        plan.check_flow(&spec).map_err(|e| FieldError::from_sentence("job.training.", &e))?;
        Ok(plan)
    });
    checked.await.map_err(|_| ApiError::Internal("checking a flow panicked".into()))?
}

#[tonic::async_trait]
impl JobService for Jobs {
    type WatchJobStream = ReceiverStream<Result<v1::JobEvent, Status>>;

    async fn create_job(&self, request: Request<v1::CreateJobRequest>) -> Result<Response<v1::Job>, Status> {
        Ok(Response::new(self.create(request.into_inner()).await?))
    }

    async fn get_job(&self, request: Request<v1::GetJobRequest>) -> Result<Response<v1::Job>, Status> {
        let name = request.into_inner().name;
        let record = self.app.store.get_job(id_of("name", "jobs", &name)?).await?;
        Ok(Response::new(convert::job(&record)?))
    }

    async fn list_jobs(&self, request: Request<v1::ListJobsRequest>) -> Result<Response<v1::ListJobsResponse>, Status> {
        let request = request.into_inner();
        let mut filter = JobFilter::default();
        for &number in &request.states {
            let state = match v1::JobState::try_from(number) {
                Ok(v1::JobState::Queued) => JobState::Queued,
                Ok(v1::JobState::Running) => JobState::Running,
                Ok(v1::JobState::Succeeded) => JobState::Succeeded,
                Ok(v1::JobState::Failed) => JobState::Failed,
                Ok(v1::JobState::Cancelled) => JobState::Cancelled,
                Ok(v1::JobState::Unspecified) | Err(_) => {
                    return Err(FieldError::invalid("states", format!("{number} is not a state of a job")).into());
                }
            };
            if !filter.states.contains(&state) {
                filter.states.push(state);
            }
        }
        let list = format!("jobs {:?}", filter.states);
        let page = read_page(request.page_size, &request.page_token, &list)?;
        let records = self.app.store.list_jobs(&filter, &page).await?;
        let last = records.last().map(|r| (r.created_at, r.id.as_str()));
        let next_page_token = next_token(&page, records.len(), last, &list);
        let jobs = records.iter().map(convert::job).collect::<Result<_, _>>()?;
        Ok(Response::new(v1::ListJobsResponse { jobs, next_page_token }))
    }

    async fn watch_job(&self, request: Request<v1::WatchJobRequest>) -> Result<Response<Self::WatchJobStream>, Status> {
        let request = request.into_inner();
        let id = id_of("name", "jobs", &request.name)?.to_string();
        if request.after_sequence < 0 {
            return Err(FieldError::invalid("after_sequence", "it is negative; use 0 for the beginning").into());
        }
        self.app.store.get_job(&id).await?;
        let (sender, receiver) = mpsc::channel(4);
        tokio::spawn(Self::watch(self.app.clone(), id, request.after_sequence, sender));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn cancel_job(&self, request: Request<v1::CancelJobRequest>) -> Result<Response<v1::Job>, Status> {
        let name = request.into_inner().name;
        let record = self.app.store.cancel_job(id_of("name", "jobs", &name)?).await?;
        Ok(Response::new(convert::job(&record)?))
    }

    async fn delete_job(
        &self,
        request: Request<v1::DeleteJobRequest>,
    ) -> Result<Response<v1::DeleteJobResponse>, Status> {
        let name = request.into_inner().name;
        let id = id_of("name", "jobs", &name)?;
        self.app.store.delete_job(id).await?;
        self.app.artifacts.delete_folder(&format!("jobs/{id}")).await?;
        Ok(Response::new(v1::DeleteJobResponse {}))
    }
}
