//! The run around the step: checkpoints, progress, budgets and the end.

use super::checkpoint::CheckpointError;
use super::measuring::{Measured, measure, measured_at, summary_of};
use super::trainer::{Step, StepReport, TrainError, Trainer};
use crate::compute::DeviceError;
use crate::sample::{ArtifactError, Generator, MOST_UNSEEN, ModelCard, SampleError, TemperatureMeasure};
use crate::thermo::WeightSummary;
use std::time::Instant;

/// What the run is told between steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directive {
    Continue,
    /// Write a checkpoint and stop, to go on later.
    Release,
    /// Stop for good.
    Cancel,
}

/// Who watches a run and keeps its checkpoints.
pub trait Observer {
    /// Called before each step and each batch of samples that the flow is measured on, and free to wait there for the
    /// device.
    fn directive(&mut self) -> Directive;

    /// Called every `validation.every` steps, and at the end.
    fn progress(&mut self, progress: &Progress);

    /// What people should know of the run's course, in a sentence.
    fn note(&mut self, sentence: String);

    /// Must not return before the checkpoint is safe.
    fn checkpoint(&mut self, step: u64, bytes: Vec<u8>) -> Result<(), String>;
}

/// A run as seen from outside.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    pub step: u64,
    pub total_steps: u64,
    /// Nothing if no step has been made since the run was taken up.
    pub last: Option<StepReport>,
    /// Weights of samples at the plan's temperature; log Z among them.
    pub weights: WeightSummary,
    /// ⟨log p⟩ of held-out data, if there are data.
    pub held_out_log_prob: Option<f64>,
    /// The effective fraction as these see it: see `ModelCard::data_effective_fraction`.
    pub held_out_effective_fraction: Option<f64>,
    pub steps_per_second: f64,
    /// Seconds of training so far, over all attempts.
    pub seconds: f64,
    /// Seconds left, if all stages are run to their end or to the budget of seconds.
    pub seconds_left: f64,
    pub samples: u64,
    pub energy_evaluations: u64,
    /// Samples left out of gradients because their energy was not finite.
    pub non_finite: u64,
    pub skipped_steps: u64,
}

/// Why a run is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// All stages are done.
    Completed,
    /// The budget is spent; the model is that of the last step.
    BudgetSpent,
    /// The plan's patience is; the model is the best that was measured.
    Converged,
}

/// How a run ended.
#[derive(Debug)]
pub enum Outcome {
    Finished { reason: StopReason, card: Box<ModelCard>, model: Vec<u8> },
    Released,
    Cancelled,
}

/// Why a run could not end well.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Train(#[from] TrainError),
    #[error(transparent)]
    Sample(#[from] SampleError),
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("the checkpoint could not be kept: {0}")]
    NotKept(String),
}

/// Samples that a finished model is measured on.
const FINAL_SAMPLES: u64 = 20_480;

/// How often a run that loses its way goes back, and by how much it is slower then.
const MAX_ROLLBACKS: u64 = 3;
const SLOWER: f64 = 0.5;

/// One in so many weights, the largest, may be in a tail that says nothing of the rest. (One of 8,192 has made an effective fraction
/// of 44 % look like 1 %.)
const OUTLIERS: usize = 1000;

/// Why a run leaves its course.
pub(super) enum Turn {
    Told(Directive),
    Failed(RunError),
}

impl<E: Into<RunError>> From<E> for Turn {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Whether the run is to go on.
pub(super) fn ask(observer: &mut dyn Observer) -> Result<(), Turn> {
    match observer.directive() {
        Directive::Continue => Ok(()),
        told => Err(Turn::Told(told)),
    }
}

/// Runs a trainer from where it stands to its end.
pub fn run(trainer: &mut Trainer, observer: &mut dyn Observer) -> Result<Outcome, RunError> {
    match proceed(trainer, observer) {
        Ok(outcome) => Ok(outcome),
        Err(Turn::Failed(error)) => Err(error),
        Err(Turn::Told(Directive::Cancel)) => Ok(Outcome::Cancelled),
        Err(Turn::Told(_)) => {
            save(trainer, observer)?;
            Ok(Outcome::Released)
        }
    }
}

fn proceed(trainer: &mut Trainer, observer: &mut dyn Observer) -> Result<Outcome, Turn> {
    let mut clock = Clock::default();
    let mut last_step = None;
    if trainer.safe.is_empty() {
        trainer.safe = trainer.checkpoint()?;
    }
    let reason = loop {
        match advance(trainer, observer, &mut clock, &mut last_step) {
            Ok(None) => {}
            Ok(Some(reason)) => break reason,
            Err(Turn::Failed(RunError::Train(error))) if may_go_back(trainer, &error) => {
                go_back(trainer, observer, &error)?;
            }
            Err(turn) => return Err(turn),
        }
    };
    if let (StopReason::Converged, Some(best)) = (reason, &trainer.best) {
        observer.note(format!("no better for some time: the model is that of step {}", best.standing.step));
    }
    let samples = trainer.plan.validation.samples.max(FINAL_SAMPLES);
    let weights = trainer.validate(trainer.plan.temperature, samples, observer)?;
    let mut by_temperature = Vec::new();
    let seen = trainer.held_out_at_others()?;
    for temperature in measured_at(trainer.plan.temperature_range, &seen) {
        let held_out = seen.iter().find(|(of, _)| *of == temperature).map(|(_, held_out)| held_out);
        by_temperature.push(measure(temperature, &trainer.validate(temperature, samples, observer)?, held_out));
    }
    let unseen_share = trainer.unseen_share(&weights, observer)?;
    let report = progress(trainer, last_step.as_ref(), clock.rate, weights.clone())?;
    observer.progress(&report);
    trainer.note_course(&report, true);
    trainer.look_for_lost_modes(&report, observer);
    if let Some(share) = unseen_share {
        let remedy = "; a part may be missing: train longer, start hotter (temperature_factor), or on data too";
        let remedy = if share > MOST_UNSEEN { remedy } else { "" };
        observer.note(format!(
            "wider latents find {:.2} % of the target that {} samples of the model do not see{remedy}",
            100.0 * share,
            weights.samples
        ));
    }
    finish(trainer, reason, &weights, by_temperature, unseen_share)
}

fn may_go_back(trainer: &Trainer, error: &TrainError) -> bool {
    error.is_divergence() && trainer.counters.rollbacks < MAX_ROLLBACKS
}

/// Makes the last checkpoint the present state, at lower learning rates.
fn go_back(trainer: &mut Trainer, observer: &mut dyn Observer, error: &TrainError) -> Result<(), RunError> {
    let safe = std::mem::take(&mut trainer.safe);
    trainer.roll_back(&safe, SLOWER)?;
    trainer.safe = trainer.checkpoint()?;
    let (step, scale) = (trainer.counters.step, trainer.counters.learning_rate_scale);
    observer.note(format!("{error}: going on from step {step} at {scale} times the learning rates"));
    Ok(())
}

/// One step, and what is due after it; the reason if the run is over.
fn advance(
    trainer: &mut Trainer,
    observer: &mut dyn Observer,
    clock: &mut Clock,
    last_step: &mut Option<Step>,
) -> Result<Option<StopReason>, Turn> {
    ask(observer)?;
    if trainer.counters.converged {
        return Ok(Some(StopReason::Converged));
    }
    let step = trainer.counters.step;
    if trainer.counters.measured_at != step && is_due(trainer) {
        return measure_course(trainer, observer, clock, last_step.as_ref());
    }
    if trainer.budget_spent() {
        clock.settle(trainer)?;
        return Ok(Some(StopReason::BudgetSpent));
    }
    let begin = Instant::now();
    let Some(made) = trainer.step()? else {
        clock.settle(trainer)?;
        return Ok(Some(StopReason::Completed));
    };
    clock.step(trainer, begin);
    *last_step = Some(made);
    Ok(None)
}

/// Whether progress or a checkpoint is due at the present step.
fn is_due(trainer: &Trainer) -> bool {
    let (step, plan) = (trainer.counters.step, &trainer.plan);
    step.is_multiple_of(plan.validation.every) || step.is_multiple_of(plan.checkpoint_every)
}

/// Measures the flow, and keeps what is due. A checkpoint is only made of a flow that has lost nothing: it is what a run goes
/// back to.
fn measure_course(
    trainer: &mut Trainer,
    observer: &mut dyn Observer,
    clock: &mut Clock,
    last_step: Option<&Step>,
) -> Result<Option<StopReason>, Turn> {
    clock.settle(trainer)?;
    let step = trainer.counters.step;
    let weights = trainer.validate(trainer.plan.temperature, trainer.plan.validation.samples, observer)?;
    let report = progress(trainer, last_step, clock.rate, weights)?;
    if step.is_multiple_of(trainer.plan.validation.every) {
        observer.progress(&report);
    }
    if !is_heated(trainer) {
        trainer.look_for_lost_modes(&report, observer);
    }
    if !is_heated(trainer) && trainer.counters.rollbacks < MAX_ROLLBACKS {
        check_collapse(trainer, report.weights.effective_fraction(), observer)?;
    }
    trainer.counters.measured_at = step;
    if step.is_multiple_of(trainer.plan.validation.every) {
        trainer.note_course(&report, false);
    }
    if step.is_multiple_of(trainer.plan.validation.every) && has_converged(trainer, &report)? {
        trainer.counters.converged = true;
        return Ok(Some(StopReason::Converged));
    }
    if step.is_multiple_of(trainer.plan.checkpoint_every) {
        trainer.safe = trainer.checkpoint()?;
        observer.checkpoint(step, trainer.safe.clone()).map_err(RunError::NotKept)?;
    }
    Ok(None)
}

/// Fails if the flow has lost what it had. Weights of few samples have heavy tails, and one of them can look like a loss: that
/// is asked again with four times as many others, of which the largest are left out. Of averaged weights the present ones are looked at too, which is where a
/// run goes on from.
fn check_collapse(trainer: &mut Trainer, fraction: f64, observer: &mut dyn Observer) -> Result<(), Turn> {
    let samples = trainer.plan.validation.samples;
    let mut least = fraction;
    if trainer.average.is_some() {
        let raw = trainer.log_weights_of_samples(Measured::Present, samples, observer)?;
        least = least.min(summary_of(raw).effective_fraction());
    }
    if trainer.is_lost(least) {
        let of = if least < fraction { Measured::Present } else { Measured::Model };
        let mut again = trainer.log_weights_of_samples(of, 4 * samples, observer)?;
        again.sort_unstable_by(f64::total_cmp);
        again.truncate(again.len() - again.len().div_ceil(OUTLIERS));
        trainer.check_lost(summary_of(again).effective_fraction())?;
    }
    trainer.counters.best_fraction = trainer.counters.best_fraction.max(fraction);
    Ok(())
}

/// Whether the last stage has brought nothing for as many measurements as the plan has patience for. What is measured is
/// ⟨log p⟩ of held-out data where there are any, else the effective fraction of the flow's own samples.
fn has_converged(trainer: &mut Trainer, report: &Progress) -> Result<bool, Turn> {
    let Some(patience) = trainer.plan.patience else { return Ok(false) };
    if !is_last_stage(trainer) {
        return Ok(false);
    }
    Ok(trainer.judge(report.held_out_log_prob.unwrap_or(report.weights.effective_fraction()))? >= patience)
}

fn is_last_stage(trainer: &Trainer) -> bool {
    let (plan, made) = (&trainer.plan, trainer.counters.step.saturating_sub(1));
    plan.stage_at(made).is_some_and(|(stage, ..)| stage + 1 == plan.stages.len())
}

/// Whether the step just made was at another temperature than the one that is measured at.
fn is_heated(trainer: &Trainer) -> bool {
    let stage = trainer.plan.stage_at(trainer.counters.step.saturating_sub(1));
    stage.is_some_and(|(_, stage, fraction)| stage.temperature_factor.at(fraction) != 1.0)
}

/// The time of steps. A device goes on when they have been asked for: what is left is waited for when a run is settled.
#[derive(Default)]
struct Clock {
    /// Since the run was last settled.
    steps: u64,
    seconds: f64,
    /// Steps a second between the last two times.
    rate: f64,
}

impl Clock {
    fn add(&mut self, trainer: &mut Trainer, begin: Instant) {
        let seconds = begin.elapsed().as_secs_f64();
        trainer.counters.seconds += seconds;
        self.seconds += seconds;
    }

    fn step(&mut self, trainer: &mut Trainer, begin: Instant) {
        self.add(trainer, begin);
        self.steps += 1;
    }

    fn settle(&mut self, trainer: &mut Trainer) -> Result<(), TrainError> {
        let begin = Instant::now();
        trainer.settle()?;
        self.add(trainer, begin);
        if self.steps > 0 {
            self.rate = self.steps as f64 / self.seconds.max(1e-9);
        }
        (self.steps, self.seconds) = (0, 0.0);
        Ok(())
    }
}

fn save(trainer: &mut Trainer, observer: &mut dyn Observer) -> Result<(), RunError> {
    // The last steps may have lost the way, which is only known now.
    match trainer.settle() {
        Err(error) if may_go_back(trainer, &error) => go_back(trainer, observer, &error)?,
        settled => settled?,
    }
    let safe = std::mem::take(&mut trainer.safe);
    observer.checkpoint(trainer.counters.step, trainer.released(&safe)?).map_err(RunError::NotKept)
}

impl Trainer {
    fn budget_spent(&self) -> bool {
        let (budget, spent) = (&self.plan.budget, &self.counters);
        budget.steps.is_some_and(|limit| spent.step >= limit)
            || budget.samples.is_some_and(|limit| spent.samples >= limit)
            || budget.energy_evaluations.is_some_and(|limit| spent.energy_evaluations >= limit)
            || budget.seconds.is_some_and(|limit| spent.seconds >= limit)
    }

    pub(super) fn card(&self) -> ModelCard {
        let steps = match &self.best {
            Some(best) if self.counters.converged => best.standing.step,
            _ => self.counters.step,
        };
        ModelCard {
            energy_digest: self.target.system().digest().to_string(),
            energy_scale: self.target.system().scale(),
            coordinates: self.target.coordinates().description(),
            temperature: self.plan.temperature,
            temperature_range: self.plan.temperature_range,
            data_digest: self.data_digest(),
            seed: self.plan.seed,
            energy_cut: self.plan.energy_cut.high,
            training: self.plan.done_by(steps),
            steps,
            samples: self.counters.samples,
            energy_evaluations: self.counters.energy_evaluations,
            seconds: self.counters.seconds,
            validation_samples: 0,
            effective_sample_fraction: 0.0,
            pareto_k: None,
            by_temperature: Vec::new(),
            data_log_prob: None,
            data_effective_fraction: None,
            unseen_share: None,
            course: self.course.points.clone(),
        }
    }
}

fn progress(trainer: &Trainer, last: Option<&Step>, rate: f64, weights: WeightSummary) -> Result<Progress, TrainError> {
    let (counters, plan) = (&trainer.counters, &trainer.plan);
    let steps = plan.budget.steps.map_or(plan.total_steps(), |limit| limit.min(plan.total_steps()));
    let by_steps = steps.saturating_sub(counters.step) as f64 / rate;
    let by_time = plan.budget.seconds.map_or(f64::INFINITY, |limit| (limit - counters.seconds).max(0.0));
    let held_out = trainer.held_out()?;
    Ok(Progress {
        step: counters.step,
        total_steps: steps,
        last: last.map(|step| trainer.report(step)).transpose()?,
        held_out_log_prob: held_out.map(|h| h.log_prob),
        held_out_effective_fraction: held_out.map(|h| h.effective_fraction(weights.log_z)),
        weights,
        steps_per_second: rate,
        seconds: counters.seconds,
        seconds_left: by_steps.min(by_time),
        samples: counters.samples,
        energy_evaluations: counters.energy_evaluations,
        non_finite: counters.non_finite,
        skipped_steps: trainer.tally()?.skipped,
    })
}

fn finish(
    trainer: &Trainer,
    reason: StopReason,
    weights: &WeightSummary,
    by_temperature: Vec<TemperatureMeasure>,
    unseen_share: Option<f64>,
) -> Result<Outcome, Turn> {
    let mut card = Box::new(trainer.card());
    card.validation_samples = weights.samples;
    let held_out = trainer.held_out()?;
    let at_reference = measure(card.temperature, weights, held_out.as_ref());
    card.effective_sample_fraction = at_reference.effective_sample_fraction;
    card.pareto_k = at_reference.pareto_k;
    card.data_effective_fraction = at_reference.data_effective_fraction;
    card.data_log_prob = held_out.map(|held_out| held_out.log_prob).filter(|log_prob| log_prob.is_finite());
    card.by_temperature = by_temperature;
    card.unseen_share = unseen_share;
    let model = Generator::encode(&trainer.target, trainer.flow.spec(), &trainer.frozen()?, &card)?;
    Ok(Outcome::Finished { reason, card, model })
}
