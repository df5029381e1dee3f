//! `boltzflow jobs`

use super::client::{CliError, Clients, ServerArgs, every_page};
use super::names::resource;
use super::output::{JsonArgs, duration, number, progress_bar, table};
use crate::contract::v1::{self, JobState, job::Task, job_event::Event};
use serde_json::{Value, json};
use std::io::IsTerminal;
use tonic::Code;

/// Look after jobs
///
/// Example: boltzflow jobs watch jobs/job-0123456789ab
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List jobs, newest first
    List {
        #[command(flatten)]
        json: JsonArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show one job
    Show {
        name: String,
        #[command(flatten)]
        json: JsonArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Follow a job to its end
    Watch {
        name: String,
        /// Go on after this event
        #[arg(long, default_value_t = 0)]
        after: i64,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Ask a job to stop
    Cancel {
        name: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Forget a job that is over
    Delete {
        name: String,
        #[command(flatten)]
        server: ServerArgs,
    },
}

pub(super) async fn run(command: Command) -> Result<(), CliError> {
    match command {
        Command::List { json, server } => {
            let mut clients = server.connect().await?;
            let jobs = every_page(async |page_token| {
                let request = v1::ListJobsRequest { page_token, ..v1::ListJobsRequest::default() };
                let page = clients.jobs.list_jobs(request).await?.into_inner();
                Ok((page.jobs, page.next_page_token))
            })
            .await?;
            if json.write(&jobs.iter().map(job_json).collect())? {
                let rows: Vec<_> = jobs.iter().map(row).collect();
                say!("{}", table(&["job", "state", "system", "step", "ESS", "makes"], &rows));
            }
        }
        Command::Show { name, json, server } => {
            let mut clients = server.connect().await?;
            let request = v1::GetJobRequest { name: resource("jobs", &name) };
            let job = clients.jobs.get_job(request).await?.into_inner();
            json.show(&job_json(&job))?;
        }
        Command::Watch { name, after, server } => {
            let mut clients = server.connect().await?;
            let job = follow(&mut clients, &resource("jobs", &name), after).await?;
            say!("{}", product_name(&job));
        }
        Command::Cancel { name, server } => {
            let mut clients = server.connect().await?;
            let request = v1::CancelJobRequest { name: resource("jobs", &name) };
            let job = clients.jobs.cancel_job(request).await?.into_inner();
            say!("{} {}", job.name, if job.end_time.is_some() { "is cancelled" } else { "will stop" });
        }
        Command::Delete { name, server } => {
            let mut clients = server.connect().await?;
            clients.jobs.delete_job(v1::DeleteJobRequest { name: resource("jobs", &name) }).await?;
        }
    }
    Ok(())
}

fn state(job: &v1::Job) -> &'static str {
    job.state().as_str_name().trim_start_matches("JOB_STATE_")
}

fn row(job: &v1::Job) -> Vec<String> {
    let system = match &job.task {
        Some(Task::Training(task)) => task.system.clone(),
        Some(Task::Simulation(task)) => task.system.clone(),
        Some(Task::Sampling(task)) => task.system.clone(),
        None => String::new(),
    };
    let percent = |weights: &Option<v1::WeightSummary>| {
        format!("{:.1} %", 100.0 * weights.as_ref().map_or(f64::NAN, |w| w.effective_fraction))
    };
    let (step, ess) = match (&job.progress, &job.simulation_progress, &job.sampling_progress) {
        (Some(p), ..) => (format!("{}/{}", p.step, p.total_steps), percent(&p.weights)),
        (_, Some(p), _) => (format!("{}/{}", p.step, p.total_steps), String::new()),
        (.., Some(p)) => (format!("{}/{}", p.samples, p.count), percent(&p.weights)),
        _ => Default::default(),
    };
    vec![job.name.clone(), state(job).to_string(), system, step, ess, product_name(job)]
}

/// The model or dataset that a job made or will make.
pub(super) fn product_name(job: &v1::Job) -> String {
    match &job.task {
        Some(Task::Training(task)) => resource("models", &task.model_id),
        Some(Task::Simulation(task)) => resource("datasets", &task.dataset_id),
        Some(Task::Sampling(task)) => resource("datasets", &task.dataset_id),
        None => String::new(),
    }
}

/// A job for programs.
pub(super) fn job_json(job: &v1::Job) -> Value {
    let progress = job.progress.as_ref().map(|p| {
        let weights = p.weights.as_ref();
        json!({
            "step": p.step,
            "total_steps": p.total_steps,
            "effective_fraction": weights.map_or(Value::Null, |w| number(w.effective_fraction)),
            "pareto_k": weights.map_or(Value::Null, |w| number(w.pareto_k)),
            "log_z": weights.map_or(Value::Null, |w| number(w.log_z)),
            "held_out_log_prob": p.held_out_log_prob.map_or(Value::Null, number),
            "seconds": number(p.seconds),
            "seconds_left": number(p.seconds_left),
            "energy_evaluations": p.energy_evaluations,
        })
    });
    let simulation = job.simulation_progress.as_ref().map(|p| {
        let optional = |x: Option<f64>| x.map_or(Value::Null, number);
        let rung = |rung: &v1::simulation_progress::Rung| {
            json!({
                "temperature": number(rung.temperature),
                "acceptance": optional(rung.acceptance),
                "exchange_acceptance": optional(rung.exchange_acceptance),
                "kinetic_temperature": optional(rung.kinetic_temperature),
                "mean_energy": number(rung.mean_energy),
                "effective_samples": number(rung.effective_samples),
            })
        };
        json!({
            "step": p.step,
            "total_steps": p.total_steps,
            "frames": p.frames,
            "round_trips": p.round_trips,
            "energy_drift": optional(p.energy_drift),
            "steps_per_second": number(p.steps_per_second),
            "seconds": number(p.seconds),
            "seconds_left": number(p.seconds_left),
            "rungs": p.rungs.iter().map(rung).collect::<Vec<_>>(),
        })
    });
    let sampling = job.sampling_progress.as_ref().map(|p| {
        let weights = p.weights.clone().unwrap_or_default();
        json!({
            "samples": p.samples,
            "count": p.count,
            "effective_samples": number(weights.effective_samples),
            "effective_fraction": number(weights.effective_fraction),
            "pareto_k": number(weights.pareto_k),
            "log_z": number(weights.log_z),
            "samples_per_second": number(p.samples_per_second),
            "seconds": number(p.seconds),
            "seconds_left": number(p.seconds_left),
        })
    });
    let error = job.error.as_ref().map(|e| json!({ "code": e.code, "reason": e.reason, "message": e.message }));
    json!({
        "name": job.name,
        "state": state(job),
        "attempt": job.attempt,
        "model": if matches!(job.task, Some(Task::Training(_))) { product_name(job) } else { String::new() },
        "dataset": if matches!(job.task, Some(Task::Simulation(_) | Task::Sampling(_))) { product_name(job) } else { String::new() },
        "progress": progress,
        "simulation_progress": simulation,
        "sampling_progress": sampling,
        "error": error,
    })
}

/// Queues a job, follows it if asked to, and prints the name of what it makes.
pub(super) async fn submit(clients: &mut Clients, task: Task, wait: bool, json: &JsonArgs) -> Result<(), CliError> {
    let request = v1::CreateJobRequest {
        job: Some(v1::Job { task: Some(task), ..v1::Job::default() }),
        request_id: uuid::Uuid::now_v7().to_string(),
        ..v1::CreateJobRequest::default()
    };
    let job = clients.jobs.create_job(request).await?.into_inner();
    remark!("{} is queued", job.name);
    let job = if wait { follow(clients, &job.name, 0).await? } else { job };
    if json.write(&job_json(&job))? {
        say!("{}", product_name(&job));
    }
    Ok(())
}

/// Follows a job's events to its end, with a progress bar on a terminal and lines elsewhere. A stream that breaks is
/// taken up again where it broke.
pub(super) async fn follow(clients: &mut Clients, name: &str, mut after: i64) -> Result<v1::Job, CliError> {
    let bar = progress_bar(0, "{bar:30} {pos}/{len} steps, {msg}");
    let lines = !std::io::stderr().is_terminal();
    let mut retries = 0;
    'connection: loop {
        let request = v1::WatchJobRequest { name: name.to_string(), after_sequence: after };
        let mut events = match clients.jobs.watch_job(request).await {
            Ok(response) => response.into_inner(),
            Err(status) if status.code() == Code::Unavailable && retries < 30 => {
                retries += 1;
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                continue 'connection;
            }
            Err(status) => return Err(status.into()),
        };
        loop {
            match events.message().await {
                Ok(Some(event)) => {
                    retries = 0;
                    after = event.sequence;
                    show(&event, &bar, lines);
                }
                Ok(None) => break 'connection,
                Err(status) if matches!(status.code(), Code::Unavailable | Code::Unknown) && retries < 30 => {
                    retries += 1;
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                    continue 'connection;
                }
                Err(status) => return Err(status.into()),
            }
        }
    }
    bar.finish_and_clear();
    let job = clients.jobs.get_job(v1::GetJobRequest { name: name.to_string() }).await?.into_inner();
    match (job.state(), &job.error) {
        (JobState::Succeeded, _) => Ok(job),
        (_, Some(error)) => Err(CliError::Job(format!("{name} failed: {} [{}]", error.message, error.reason))),
        _ => Err(CliError::Job(format!("{name} is {}", state(&job)))),
    }
}

/// A simulation's progress in a line: the least of what its temperatures have.
fn simulation_line(p: &v1::SimulationProgress) -> String {
    let phase = p.phase().as_str_name().trim_start_matches("SIMULATION_PHASE_").to_lowercase();
    let least = |of: fn(&v1::simulation_progress::Rung) -> Option<f64>| p.rungs.iter().filter_map(of).reduce(f64::min);
    let mut text = format!("{phase}, {} frames", p.frames);
    if let Some(samples) = least(|rung| Some(rung.effective_samples)) {
        text.push_str(&format!(", {samples:.0} independent"));
    }
    if let Some(acceptance) = least(|rung| rung.acceptance) {
        text.push_str(&format!(", acceptance {acceptance:.2}"));
    }
    if let Some(acceptance) = least(|rung| rung.exchange_acceptance) {
        text.push_str(&format!(", exchanges {acceptance:.2}"));
    }
    text.push_str(&format!(", {:.0} steps/s, {} left", p.steps_per_second, duration(p.seconds_left)));
    text
}

fn show(event: &v1::JobEvent, bar: &indicatif::ProgressBar, lines: bool) {
    let say = |text: String| if lines { remark!("{text}") } else { bar.println(text) };
    let at = |step: i64, total: i64, text: String| {
        if lines {
            remark!("step {step}/{total}: {text}");
        } else {
            bar.set_length(total.unsigned_abs());
            bar.set_position(step.unsigned_abs());
            bar.set_message(text);
        }
    };
    match &event.event {
        Some(Event::Training(p)) => {
            let weights = p.weights.clone().unwrap_or_default();
            let text = format!(
                "ESS {:.1} %, k {:.2}, log Z {:.3} ± {:.3}, {:.1} steps/s, {} left",
                100.0 * weights.effective_fraction,
                weights.pareto_k,
                weights.log_z,
                weights.log_z_standard_error,
                p.steps_per_second,
                duration(p.seconds_left)
            );
            at(p.step, p.total_steps, text);
        }
        Some(Event::Simulation(p)) => at(p.step, p.total_steps, simulation_line(p)),
        Some(Event::Sampling(p)) => {
            let weights = p.weights.clone().unwrap_or_default();
            let text = format!(
                "{:.0} effective samples, k {:.2}, {:.0} samples/s, {} left",
                weights.effective_samples,
                weights.pareto_k,
                p.samples_per_second,
                duration(p.seconds_left)
            );
            at(p.samples, p.count, text);
        }
        Some(Event::Message(text)) => say(text.clone()),
        Some(Event::State(_)) => {
            if let Some(Event::State(number)) = event.event
                && let Ok(state) = JobState::try_from(number)
            {
                say(format!("job {}", state.as_str_name().trim_start_matches("JOB_STATE_").to_lowercase()));
            }
        }
        Some(Event::CheckpointStep(_)) | None => {}
    }
}
