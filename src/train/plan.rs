//! The plan of a training run: all that decides its result.

use super::adam::AdamSettings;
use super::coordinate_entropy::VariableRange;
use super::replay::{Annealing, Replay};
use super::schedule::Ramp;
use crate::coords::CoordinateChoice;
use crate::energy::System;
use crate::flow::{Architecture, ArchitectureKind, FlowSpec, PriorComponent, TemperatureRange};
use crate::thermo::BoundVariable;

const MAX_STAGES: usize = 64;
pub(super) const MAX_BATCH: usize = 1 << 16;

/// Samples of a measurement.
const MAX_VALIDATION: u64 = 1 << 20;

/// Generations of own samples in a shortened stage, at least.
const SHORTEST: u64 = 10;

/// Of a flow's own samples, in two generations.
const MAX_KEPT_BYTES: u64 = 1 << 28;

/// Rows of a generation of these: their weights are solved for in one step.
const MAX_GENERATION: u64 = 1 << 20;

/// Numbers that attention keeps of a batch; and those of an intermediate result of a batch of a continuous flow, where its field is evaluated once, and where all
/// evaluations of an integration are kept for the way back: some hundreds, of a few dozen results each.
const MAX_EVALUATED: usize = 1 << 28;
const MAX_INTEGRATED: usize = 1 << 17;

/// Temperatures are within this factor of the one trained for.
const MAX_FACTOR: f64 = 1e6;

/// Of a stage.
const MAX_STEPS: u64 = 1_000_000_000;

/// A training run. The same plan, system, data and device give the same weights, bit for bit.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingPlan {
    /// The temperature that the flow is trained for, in the unit of the system's scale.
    pub temperature: f64,
    /// With a range, in the same unit and around `temperature`, the flow is conditioned on temperature and trained for all
    /// of it.
    pub temperature_range: Option<TemperatureRange>,
    pub seed: u64,
    pub coordinates: CoordinateChoice,
    pub architecture: Architecture,
    pub stages: Vec<Stage>,
    pub adam: AdamSettings,
    /// Decay of a moving average of the weights, which the model then is made of; absent is none.
    pub weight_average: Option<f64>,
    /// Measurements of the last stage without an improvement, after which the run ends with the best state; absent is to
    /// go on to the end.
    pub patience: Option<u64>,
    /// Largest Euclidean norm of the whole gradient; longer ones are shortened to it.
    pub gradient_clip: f64,
    pub energy_cut: EnergyCut,
    pub budget: Budget,
    pub validation: Validation,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// The variable whose entropy stages with `coordinate_entropy` raise.
    pub collective_variable: Option<VariableRange>,
}

/// Part of a run, with its own mixture of objectives.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    pub steps: u64,
    /// Samples of each objective in a step.
    pub batch: usize,
    /// Weight of the maximum-likelihood objective; needs data where it is not zero.
    pub maximum_likelihood: Ramp,
    /// Weight of the reverse Kullback-Leibler objective.
    pub reverse_kl: Ramp,
    /// Weight of flow matching; needs data and a continuous flow where it is not zero.
    pub flow_matching: Ramp,
    /// Weight of maximum likelihood on the flow's own samples, weighted towards the target; of flow matching on them for a
    /// continuous flow.
    pub own_samples: Ramp,
    /// Weight of ½ Var[log w] over the flow's samples.
    pub log_variance: Ramp,
    /// Weight of the law that log p follows in temperature; needs a range of them where it is not zero.
    pub temperature_gradient: Ramp,
    /// Weight of minus the entropy of the plan's collective variable.
    pub coordinate_entropy: Ramp,
    /// How these are kept; of use where `own_samples` is not zero.
    pub replay: Replay,
    /// The energy is trained on at this multiple of the plan's temperature.
    pub temperature_factor: Ramp,
    pub learning_rate: Ramp,
}

/// Regularisation of energies in gradients: above `high` (in kT) the energy rises as a logarithm, and above `max` not at
/// all. Weights are always made of the energy as it is.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnergyCut {
    pub high: f64,
    pub max: f64,
}

impl EnergyCut {
    /// The regularised energy of the energy u.
    pub fn value(&self, u: f64) -> f64 {
        if u <= self.high { u } else { self.high + (u.min(self.max) - self.high).ln_1p() }
    }

    /// The derivative of the regularised energy with respect to the energy u.
    pub fn slope(&self, u: f64) -> f64 {
        if u <= self.high {
            1.0
        } else if u <= self.max {
            1.0 / (1.0 + u - self.high)
        } else {
            0.0
        }
    }
}

/// What a run may spend; it stops with a usable model at whichever comes first. Absent is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    pub steps: Option<u64>,
    /// Configurations that the flow was run on.
    pub samples: Option<u64>,
    pub energy_evaluations: Option<u64>,
    /// Seconds of training, over all attempts.
    pub seconds: Option<f64>,
}

/// How progress is measured: every so many steps, on so many weighted samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Validation {
    pub every: u64,
    pub samples: u64,
}

impl TrainingPlan {
    /// The steps of all stages.
    pub fn total_steps(&self) -> u64 {
        self.stages.iter().fold(0u64, |sum, stage| sum.saturating_add(stage.steps))
    }

    /// Shortens the stages in proportion, so that they end after `steps` steps; a longer plan is not made longer.
    pub fn fit_to(&mut self, steps: u64) {
        let all = self.total_steps();
        if steps >= all {
            return;
        }
        let (mut before, mut given) = (0u64, 0u64);
        for stage in &mut self.stages {
            before += stage.steps;
            let until = (u128::from(before) * u128::from(steps) / u128::from(all)) as u64;
            stage.steps = until - given;
            // Nothing is learned of own samples before the first generation is whole.
            stage.replay.generation = stage.replay.generation.min(stage.steps / SHORTEST).max(1);
            stage.replay.every = stage.replay.every.min(stage.replay.generation);
            given = until;
        }
        self.stages.retain(|stage| stage.steps > 0);
    }

    /// What a run has done after `steps` steps, stage by stage.
    pub fn done_by(&self, steps: u64) -> Vec<String> {
        let mut left = steps;
        let mut done = Vec::new();
        for stage in &self.stages {
            let within = left.min(stage.steps);
            if within == stage.steps {
                done.push(stage.to_string());
            } else if within > 0 {
                let fraction = within as f64 / stage.steps as f64;
                done.push(format!(
                    "stopped after {within} steps, at temperature × {:.3} and learning rate {:.1e}, of: {stage}",
                    stage.temperature_factor.at(fraction),
                    stage.learning_rate.at(fraction)
                ));
            }
            left -= within;
        }
        done
    }

    /// The stage of a step, its index, and how much of it is done, from 0 to 1; nothing past the last step.
    pub fn stage_at(&self, step: u64) -> Option<(usize, &Stage, f64)> {
        let mut first = 0u64;
        for (i, stage) in self.stages.iter().enumerate() {
            let within = step - first;
            if within < stage.steps {
                let last = stage.steps.saturating_sub(1).max(1);
                return Some((i, stage, within as f64 / last as f64));
            }
            first = first.saturating_add(stage.steps);
        }
        None
    }

    /// The latent temperatures τ = T/temperature that any stage trains at, where there is a range.
    pub fn conditions(&self) -> Option<TemperatureRange> {
        let TemperatureRange { low, high } = self.temperature_range?;
        let factors = || self.stages.iter().flat_map(|s| [s.temperature_factor.start, s.temperature_factor.end]);
        let (least, most) = factors().fold((1.0f64, 1.0f64), |(least, most), f| (least.min(f), most.max(f)));
        Some(TemperatureRange { low: low * least / self.temperature, high: high * most / self.temperature })
    }

    /// That the samples which stages keep fit into memory in d dimensions; the message names the field.
    pub fn check_dimension(&self, d: usize) -> Result<(), String> {
        for (i, stage) in self.stages.iter().enumerate().filter(|(_, stage)| stage.keeps_samples()) {
            let samples = stage.replay.samples(stage.batch);
            let bytes = samples.saturating_mul(16 * (d as u64 + 5));
            if samples > MAX_GENERATION {
                return Err(format!(
                    "stages[{i}].replay.generation is of more than {MAX_GENERATION} samples; make it, its \
                     batches or the batch smaller"
                ));
            }
            if bytes > MAX_KEPT_BYTES {
                return Err(format!(
                    "stages[{i}].replay.generation keeps samples of {bytes} bytes, at most {MAX_KEPT_BYTES} are allowed; \
                     make generations shorter, or batches smaller or fewer"
                ));
            }
        }
        Ok(())
    }

    /// That batches of the plan's flow fit into memory, and that it has the latents that stages widen; the message names the
    /// field.
    pub fn check_flow(&self, spec: &FlowSpec) -> Result<(), String> {
        let is_gaussian = spec.prior.components().contains(&PriorComponent::Gaussian);
        if let Some(i) = self.stages.iter().position(|s| !is_gaussian && s.keeps_samples() && s.replay.wide_share > 0.0)
        {
            return Err(format!(
                "stages[{i}].replay.wide_share is of Gaussian latents, and this flow has none; leave it out"
            ));
        }
        let of_attention = spec.attention_numbers_of_a_row();
        for (i, stage) in self.stages.iter().enumerate().filter(|_| of_attention > 0) {
            let most = MAX_EVALUATED / of_attention;
            if stage.batch > most {
                return Err(format!(
                    "stages[{i}].batch is {}; with attention of this size at most {most} rows fit into memory",
                    stage.batch
                ));
            }
        }
        let Some(numbers) = spec.numbers_of_a_row() else { return Ok(()) };
        for (i, stage) in self.stages.iter().enumerate() {
            let most = (if stage.is_integrated() { MAX_INTEGRATED } else { MAX_EVALUATED }) / numbers.max(1);
            if stage.batch > most {
                let unless = if stage.is_integrated() {
                    ", unless all weights but flow_matching and own_samples are 0"
                } else {
                    ""
                };
                return Err(format!(
                    "stages[{i}].batch is {}; of a continuous flow of this size at most {most} fit into memory{unless}",
                    stage.batch
                ));
            }
        }
        Ok(())
    }

    /// The plan's collective variable as one that a system has; the message of an error names the field.
    pub fn bound_variable(&self, system: &System) -> Result<Option<BoundVariable>, String> {
        let bound = self.collective_variable.as_ref().map(|range| range.bind(system));
        bound.transpose().map_err(|reason| format!("collective_variable.{reason}"))
    }

    /// Whether any stage needs data.
    pub fn needs_data(&self) -> bool {
        self.stages.iter().any(|s| s.maximum_likelihood.is_used() || s.flow_matching.is_used())
    }

    /// That the plan can be carried out; the message names the field.
    pub fn check(&self) -> Result<(), String> {
        positive("temperature", self.temperature)?;
        if let Some(TemperatureRange { low, high }) = self.temperature_range {
            positive("temperature_range.low", low)?;
            positive("temperature_range.high", high)?;
            if low >= high {
                return Err(format!("temperature_range goes from {low} to {high}; it must go up"));
            }
            if low * MAX_FACTOR < self.temperature || self.temperature * MAX_FACTOR < high {
                return Err(format!(
                    "temperature_range goes from {low} to {high}; it must be within a factor of {MAX_FACTOR} of temperature, {}",
                    self.temperature
                ));
            }
            if !(low..=high).contains(&self.temperature) {
                let temperature = self.temperature;
                return Err(format!("temperature is {temperature}; it must be in temperature_range, {low} to {high}"));
            }
        }
        positive("gradient_clip", self.gradient_clip)?;
        self.adam.check()?;
        if self.weight_average.is_some_and(|decay| !(0.0..1.0).contains(&decay)) {
            return Err("weight_average must be from 0 to 1, and below 1".into());
        }
        if self.patience == Some(0) {
            return Err("patience is 0; leave it out to go on to the end".into());
        }
        self.architecture.check().map_err(|reason| format!("architecture.{reason}"))?;
        if self.stages.is_empty() || self.stages.len() > MAX_STAGES {
            return Err(format!("stages has {} entries; it must have from 1 to {MAX_STAGES}", self.stages.len()));
        }
        for (i, stage) in self.stages.iter().enumerate() {
            stage.check().map_err(|reason| format!("stages[{i}].{reason}"))?;
            if stage.flow_matching.is_used() && self.architecture.kind != ArchitectureKind::Continuous {
                return Err(format!(
                    "stages[{i}].flow_matching is for continuous flows; choose that kind of architecture"
                ));
            }
            if stage.replay.annealing.is_some() && self.architecture.kind == ArchitectureKind::Continuous {
                return Err(format!(
                    "stages[{i}].replay.annealing takes gradients along paths, which are not there for continuous flows"
                ));
            }
            if stage.temperature_gradient.is_used() && self.temperature_range.is_none() {
                return Err(format!(
                    "stages[{i}].temperature_gradient is of a flow that is told the temperature; set temperature_range"
                ));
            }
            if stage.coordinate_entropy.is_used() && self.collective_variable.is_none() {
                return Err(format!(
                    "stages[{i}].coordinate_entropy is the entropy of a variable; set collective_variable"
                ));
            }
        }
        if let Some(range) = &self.collective_variable {
            range.check().map_err(|reason| format!("collective_variable.{reason}"))?;
            if !self.stages.iter().any(|stage| stage.coordinate_entropy.is_used()) {
                return Err(
                    "collective_variable is of no use to any stage; give one a coordinate_entropy weight".into()
                );
            }
        }
        let cut = &self.energy_cut;
        if !(cut.high.is_finite() && cut.max.is_finite() && cut.high <= cut.max) {
            return Err("energy_cut.high and energy_cut.max must be finite, and the second at least the first".into());
        }
        if self.budget.seconds.is_some_and(|s| !(s.is_finite() && s > 0.0)) {
            return Err("budget.seconds must be a positive finite number".into());
        }
        for (name, limit) in [
            ("steps", self.budget.steps),
            ("samples", self.budget.samples),
            ("energy_evaluations", self.budget.energy_evaluations),
        ] {
            if limit == Some(0) {
                return Err(format!("budget.{name} is 0; leave it out for no limit"));
            }
        }
        if self.validation.every == 0 {
            return Err("validation_every is 0; it must be positive".into());
        }
        if !(2..=MAX_VALIDATION).contains(&self.validation.samples) {
            let samples = self.validation.samples;
            return Err(format!("validation_samples is {samples}; it must be from 2 to {MAX_VALIDATION}"));
        }
        if self.checkpoint_every == 0 {
            return Err("checkpoint_every must be positive".into());
        }
        Ok(())
    }
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ramp =
            |r: &Ramp| if r.start == r.end { format!("{}", r.start) } else { format!("{} to {}", r.start, r.end) };
        let seldom: String = [
            ("flow matching", &self.flow_matching),
            ("log variance", &self.log_variance),
            ("temperature gradient", &self.temperature_gradient),
            ("coordinate entropy", &self.coordinate_entropy),
        ]
        .into_iter()
        .filter(|(_, weight)| weight.is_used())
        .map(|(name, weight)| format!(", {name} × {}", ramp(weight)))
        .collect();
        write!(
            f,
            "{} steps of {}: maximum likelihood × {}, reverse KL × {}, own samples × {}{} at temperature × {}, learning rate {}",
            self.steps,
            self.batch,
            ramp(&self.maximum_likelihood),
            ramp(&self.reverse_kl),
            ramp(&self.own_samples),
            seldom,
            ramp(&self.temperature_factor),
            ramp(&self.learning_rate),
        )?;
        if !self.keeps_samples() {
            return Ok(());
        }
        let Replay { batches, wide_share, annealing, .. } = &self.replay;
        if *batches > 1 {
            write!(f, ", own samples drawn by {batches} batches")?;
        }
        if *wide_share > 0.0 {
            write!(f, ", a share of {wide_share} of own samples from wide latents")?;
        }
        let Some(Annealing { path, .. }) = annealing else { return Ok(()) };
        write!(
            f,
            ", annealed over {} distributions of {} moves of {} leapfrog steps",
            path.distributions, path.moves, path.leapfrog_steps
        )
    }
}

impl Stage {
    /// Whether a continuous flow is integrated with its gradients, and not only its field evaluated.
    fn is_integrated(&self) -> bool {
        let objectives = [
            &self.maximum_likelihood,
            &self.reverse_kl,
            &self.log_variance,
            &self.temperature_gradient,
            &self.coordinate_entropy,
        ];
        objectives.into_iter().any(Ramp::is_used)
    }

    /// Whether own samples are trained on.
    pub(super) fn keeps_samples(&self) -> bool {
        self.own_samples.is_used()
    }

    fn check(&self) -> Result<(), String> {
        if !(1..=MAX_STEPS).contains(&self.steps) {
            return Err(format!("steps is {}; it must be from 1 to {MAX_STEPS}", self.steps));
        }
        if !(2..=MAX_BATCH).contains(&self.batch) {
            return Err(format!("batch is {}; it must be from 2 to {MAX_BATCH}", self.batch));
        }
        self.maximum_likelihood.check("maximum_likelihood", 0.0)?;
        self.flow_matching.check("flow_matching", 0.0)?;
        self.reverse_kl.check("reverse_kl", 0.0)?;
        self.own_samples.check("own_samples", 0.0)?;
        self.log_variance.check("log_variance", 0.0)?;
        self.temperature_gradient.check("temperature_gradient", 0.0)?;
        self.coordinate_entropy.check("coordinate_entropy", 0.0)?;
        self.replay.check(self.batch).map_err(|reason| format!("replay.{reason}"))?;
        self.temperature_factor.check("temperature_factor", 1e-6)?;
        if self.temperature_factor.start > MAX_FACTOR || self.temperature_factor.end > MAX_FACTOR {
            return Err(format!("temperature_factor goes above {MAX_FACTOR}"));
        }
        if self.keeps_samples()
            && self.replay.annealing.is_some()
            && self.temperature_factor.start != self.temperature_factor.end
        {
            return Err(
                "temperature_factor changes, and path weights are of one temperature; keep it with replay.annealing"
                    .into(),
            );
        }
        self.learning_rate.check("learning_rate", 0.0)?;
        if self.learning_rate.start > 1.0 || self.learning_rate.end > 1.0 {
            return Err("learning_rate goes above 1; weights are of that size, so that no step can be".into());
        }
        let objectives = [
            &self.maximum_likelihood,
            &self.flow_matching,
            &self.reverse_kl,
            &self.own_samples,
            &self.log_variance,
            &self.temperature_gradient,
            &self.coordinate_entropy,
        ];
        if !objectives.into_iter().any(Ramp::is_used) {
            return Err(
                "maximum_likelihood, flow_matching, reverse_kl, own_samples, log_variance, temperature_gradient \
                        and coordinate_entropy are all 0; there is nothing to train on"
                    .into(),
            );
        }
        Ok(())
    }
}

fn positive(name: &str, value: f64) -> Result<(), String> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(format!("{name} is {value}; it must be a positive finite number"))
}
