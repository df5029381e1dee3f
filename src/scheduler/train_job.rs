//! Training jobs.

use super::data::{Frames, load_frames, of_range, of_temperature};
use super::run_job::{CANCEL, Ended, Keeper, RELEASE, checkpoint_of, failure, hex_digest, system_of};
use super::worker::Scheduler;
use crate::compute::device_of_job;
use crate::contract::progress_message;
use crate::engine::{DeviceSlot, Priority, SlotGuard};
use crate::sample::ModelCard;
use crate::store::{Claim, ModelDocument, NewResource, ResourceKind, TrainingJob};
use crate::train::{
    CheckpointError, Directive, Observer, Outcome, Progress, RunError, StopReason, TrainError, Trainer, TrainingData,
    TrainingPlan, run,
};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Trains a flow.
pub(super) async fn train(scheduler: &Scheduler, claim: &Claim, spec: &TrainingJob, directive: Arc<AtomicU8>) -> Ended {
    let system = match system_of(scheduler, &spec.system).await {
        Ok(system) => system,
        Err(ended) => return ended,
    };
    let mut notes = vec![format!("recipe {}: {}", spec.recipe, spec.reason)];
    let data = match &spec.dataset {
        None => None,
        Some(id) => match load_frames(scheduler, id).await {
            Ok(frames) if frames.document.weighted.is_some() => {
                let reason =
                    format!("dataset '{id}': its frames are weighted samples of a model, which are not trained on");
                return failure(tonic::Code::InvalidArgument, "INVALID_FIELD", reason);
            }
            Ok(frames) => {
                notes.extend(frames.document.warnings.iter().map(|w| format!("{id}: {w}")));
                Some(training_data(id, frames, &spec.plan, system.dimension(), &mut notes))
            }
            Err(ended) => return ended,
        },
    };
    let checkpoint = match checkpoint_of(scheduler, claim).await {
        Ok(checkpoint) => checkpoint,
        Err(ended) => return ended,
    };
    let (slot, device) = (Arc::clone(&scheduler.engine.slot), scheduler.engine.device.clone());
    let keeper = Keeper::new(scheduler, claim);
    let plan = spec.plan.clone();
    let steps_counted = claim.job.checkpoint.as_ref().map_or(0, |(step, _)| *step);
    let thread = tokio::task::spawn_blocking(move || {
        let device = device_of_job(&device)?;
        let mut trainer = match &checkpoint {
            Some(bytes) => Trainer::resume(plan, system, data, bytes, &device)?,
            None => Trainer::new(plan, system, data, &device)?,
        };
        match checkpoint {
            Some(_) => {
                keeper.note(format!("resumed at step {} from a checkpoint", trainer.steps_done()));
            }
            None => {
                notes.into_iter().for_each(|note| keeper.note(note));
                keeper.note(format!("coordinates: {}", trainer.target().coordinates().description()));
                keeper.note(format!("flow: {}", trainer.flow_summary()));
            }
        }
        let flow_dimension = trainer.target().dimension();
        let mut observer = SlotObserver { keeper, slot: &slot, turn: None, directive, steps_counted };
        let outcome = run(&mut trainer, &mut observer)?;
        observer.turn = None;
        if let Outcome::Finished { card, .. } = &outcome {
            for m in &card.by_temperature {
                let percent = 100.0 * m.effective_sample_fraction;
                let seen = m
                    .data_effective_fraction
                    .map(|of_data| format!(", {:.1} % as held-out data see it", 100.0 * of_data));
                let seen = seen.unwrap_or_default();
                let temperature = m.temperature;
                observer.keeper.note(format!("at temperature {temperature}: {percent:.1} % effective samples{seen}"));
            }
        }
        if let Outcome::Finished { reason: StopReason::BudgetSpent, .. } = &outcome {
            let (done, all) = (trainer.steps_done(), trainer.total_steps());
            if done < all {
                observer.keeper.note(format!("the budget ended the run after {done} of {all} steps"));
            }
        }
        Ok::<_, RunError>((outcome, flow_dimension))
    });
    match thread.await {
        Ok(Ok((Outcome::Finished { card, model, .. }, flow_dimension))) => {
            kept(scheduler, claim, spec, *card, model, flow_dimension).await
        }
        Ok(Ok((Outcome::Released, _))) => Ended::Released,
        Ok(Ok((Outcome::Cancelled, _))) => Ended::Cancelled,
        Ok(Err(RunError::Device(e))) => Ended::Deferred(e.to_string()),
        Ok(Err(RunError::NotKept(reason))) => Ended::Deferred(format!("a checkpoint could not be kept: {reason}")),
        Ok(Err(e)) => {
            let (code, reason) = match &e {
                RunError::Train(TrainError::Plan(_)) => (tonic::Code::InvalidArgument, "INVALID_FIELD"),
                RunError::Train(TrainError::Coordinates(_)) => (tonic::Code::FailedPrecondition, "UNSUITABLE_SYSTEM"),
                RunError::Train(TrainError::Diverged(_) | TrainError::NotFinite(_) | TrainError::Collapsed { .. }) => {
                    (tonic::Code::Aborted, "TRAINING_DIVERGED")
                }
                RunError::Checkpoint(CheckpointError::Damaged(_) | CheckpointError::Foreign) => {
                    (tonic::Code::DataLoss, "DAMAGED_ARTIFACT")
                }
                _ => (tonic::Code::Internal, "INTERNAL"),
            };
            failure(code, reason, e.to_string())
        }
        Err(e) => failure(tonic::Code::Internal, "INTERNAL", format!("the job's thread died: {e}")),
    }
}

/// What a plan trains on of a dataset, and notes on it.
fn training_data(
    id: &str,
    frames: Frames,
    plan: &TrainingPlan,
    dimension: usize,
    notes: &mut Vec<String>,
) -> TrainingData {
    let wanted = plan.temperature;
    let digest = frames.document.digest.clone();
    let count = |positions: &[f64]| positions.len() / dimension.max(1);
    if let Some(range) = plan.temperature_range {
        let (temperatures, positions) = of_range(frames, wanted, range);
        let used = count(&positions);
        let ends = temperatures.iter().fold((f64::INFINITY, 0.0f64), |(low, high), &t| (low.min(t), high.max(t)));
        notes.push(match temperatures.is_empty() {
            true => format!("{used} frames of {id}, of unknown temperature, are used as if they were of {wanted}"),
            false if ends.1 < range.low * (1.0 - 1e-6) || range.high * (1.0 + 1e-6) < ends.0 => format!(
                "no frame of {id} is within the range: the {used} frames of temperature {} are used, for their own temperature; \
                 maximum likelihood draws the flow there, and coverage is judged by them",
                ends.0
            ),
            false => format!("{used} frames of {id} are used, of temperatures from {} to {}", ends.0, ends.1),
        });
        return TrainingData { positions, temperatures, digest };
    }
    let (of_data, positions) = of_temperature(frames, wanted);
    let used = count(&positions);
    notes.push(match of_data.filter(|t| *t != wanted) {
        Some(other) if plan.needs_data() => format!(
            "the {used} frames used of {id} are of temperature {other}: maximum likelihood draws the flow there, not to \
             {wanted}, and coverage is judged by them"
        ),
        Some(other) => format!(
            "the {used} frames used of {id} are of temperature {other}, not {wanted}: coverage is judged by them"
        ),
        None => format!("{used} frames of {id} are used"),
    });
    TrainingData { positions, temperatures: Vec::new(), digest }
}

/// Keeps a model's file, and makes its row.
async fn kept(
    scheduler: &Scheduler,
    claim: &Claim,
    spec: &TrainingJob,
    card: ModelCard,
    model: Vec<u8>,
    flow_dimension: usize,
) -> Ended {
    let digest = hex_digest(Sha256::new_with_prefix(&model));
    let artifact = format!("models/{}/{digest}.safetensors", spec.model_id);
    let size_bytes = model.len() as u64;
    if let Err(e) = scheduler.artifacts.put(&artifact, model).await {
        return Ended::Deferred(format!("the model could not be kept: {e}"));
    }
    let job = Some(claim.job.id.clone());
    let document = ModelDocument { job, digest, artifact, size_bytes, flow_dimension, card };
    match serde_json::to_string(&document) {
        Ok(document) => Ended::Finished(NewResource {
            kind: ResourceKind::Model,
            id: spec.model_id.clone(),
            owner: claim.job.owner.clone(),
            system: Some(spec.system.clone()),
            request: None,
            document,
        }),
        Err(e) => failure(tonic::Code::Internal, "INTERNAL", format!("the model's card: {e}")),
    }
}

/// Lets a run use the device step by step, and keeps what it makes.
struct SlotObserver<'a> {
    keeper: Keeper,
    slot: &'a DeviceSlot,
    turn: Option<SlotGuard<'a>>,
    directive: Arc<AtomicU8>,
    /// Steps that the metrics know of.
    steps_counted: u64,
}

impl Observer for SlotObserver<'_> {
    fn directive(&mut self) -> Directive {
        self.turn = None;
        match self.directive.load(Ordering::Relaxed) {
            CANCEL => Directive::Cancel,
            RELEASE => Directive::Release,
            _ => {
                self.turn = Some(self.slot.acquire(Priority::Background));
                Directive::Continue
            }
        }
    }

    fn progress(&mut self, progress: &Progress) {
        let metrics = &self.keeper.metrics;
        metrics.train_steps.inc_by(progress.step.saturating_sub(self.steps_counted));
        metrics.train_effective_fraction.set(progress.weights.effective_fraction());
        self.steps_counted = progress.step;
        let (event, message) = progress_message(progress);
        self.keeper.append(event, Some(message));
    }

    fn note(&mut self, sentence: String) {
        self.keeper.note(sentence);
    }

    fn checkpoint(&mut self, step: u64, bytes: Vec<u8>) -> Result<(), String> {
        self.turn = None;
        self.keeper.checkpoint(step, bytes)
    }
}
