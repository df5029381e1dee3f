//! Events of jobs. The database keeps them encoded, without their sequence number and time.

use super::v1::{JobEvent, JobState, TrainingProgress, job_event::Event};
use super::{SamplingReport, SimulationReport, sampling_progress, simulation_progress, weight_summary};
use crate::train::Progress;
use prost::Message;

fn encode(event: Event) -> Vec<u8> {
    JobEvent { event: Some(event), ..JobEvent::default() }.encode_to_vec()
}

/// The state of a name such as `QUEUED`.
pub fn state_message(name: &str) -> JobState {
    JobState::from_str_name(&format!("JOB_STATE_{name}")).unwrap_or(JobState::Unspecified)
}

/// The job entered a state, given by its name such as `QUEUED`.
pub fn encode_state_event(name: &str) -> Vec<u8> {
    encode(Event::State(state_message(name).into()))
}

pub fn checkpoint_event(step: u64) -> Vec<u8> {
    encode(Event::CheckpointStep(step as i64))
}

pub fn message_event(text: String) -> Vec<u8> {
    encode(Event::Message(text))
}

/// The event, and the message on its own, of a run's progress.
pub fn progress_message(progress: &Progress) -> (Vec<u8>, Vec<u8>) {
    let last = progress.last.as_ref();
    let message = TrainingProgress {
        step: progress.step as i64,
        total_steps: progress.total_steps as i64,
        stage: last.map(|l| i32::try_from(l.stage).unwrap_or(i32::MAX)),
        maximum_likelihood: last.and_then(|l| l.maximum_likelihood),
        flow_matching: last.and_then(|l| l.flow_matching),
        reverse_kl: last.and_then(|l| l.reverse_kl),
        own_samples: last.and_then(|l| l.own_samples),
        log_variance: last.and_then(|l| l.log_variance),
        temperature_gradient: last.and_then(|l| l.temperature_gradient),
        coordinate_entropy: last.and_then(|l| l.coordinate_entropy),
        gradient_norm: last.map(|l| l.gradient_norm),
        learning_rate: last.map(|l| l.learning_rate),
        weights: Some(weight_summary(&progress.weights)),
        held_out_log_prob: progress.held_out_log_prob,
        held_out_effective_fraction: progress.held_out_effective_fraction,
        steps_per_second: progress.steps_per_second,
        seconds: progress.seconds,
        seconds_left: progress.seconds_left,
        samples: progress.samples as i64,
        energy_evaluations: progress.energy_evaluations as i64,
        non_finite: progress.non_finite as i64,
        skipped_steps: progress.skipped_steps as i64,
    };
    let alone = message.encode_to_vec();
    (encode(Event::Training(message)), alone)
}

/// The event, and the message on its own, of a simulation's progress.
pub fn simulation_message(report: &SimulationReport) -> (Vec<u8>, Vec<u8>) {
    let message = simulation_progress(report);
    let alone = message.encode_to_vec();
    (encode(Event::Simulation(message)), alone)
}

/// The event, and the message on its own, of a sampling job's progress.
pub fn sampling_message(report: &SamplingReport) -> (Vec<u8>, Vec<u8>) {
    let message = sampling_progress(report);
    let alone = message.encode_to_vec();
    (encode(Event::Sampling(message)), alone)
}

/// A stored event as it is sent.
pub fn job_event(sequence: i64, time_ms: i64, payload: &[u8]) -> Result<JobEvent, prost::DecodeError> {
    let mut event = JobEvent::decode(payload)?;
    event.sequence = sequence;
    event.time = Some(super::timestamp(time_ms));
    Ok(event)
}
