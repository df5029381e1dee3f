//! The plan of a training run: all that decides its result.

use super::adam::AdamSettings;
use super::schedule::Ramp;
use crate::flow::Architecture;

const MAX_STAGES: usize = 64;
const MAX_BATCH: usize = 1 << 16;

/// Of a stage.
const MAX_STEPS: u64 = 1_000_000_000;

/// A training run. The same plan, system, data and device give the same weights, bit for bit.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingPlan {
    /// The temperature that the flow is trained for, in the unit of the system's scale.
    pub temperature: f64,
    pub seed: u64,
    pub architecture: Architecture,
    pub stages: Vec<Stage>,
    pub adam: AdamSettings,
    /// Largest Euclidean norm of the whole gradient; longer ones are shortened to it.
    pub gradient_clip: f64,
    pub energy_cut: EnergyCut,
    pub budget: Budget,
    pub validation: Validation,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
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

    /// Whether any stage needs data.
    pub fn needs_data(&self) -> bool {
        self.stages.iter().any(|s| s.maximum_likelihood.start > 0.0 || s.maximum_likelihood.end > 0.0)
    }

    /// That the plan can be carried out; the message names the field.
    pub fn check(&self) -> Result<(), String> {
        positive("temperature", self.temperature)?;
        positive("gradient_clip", self.gradient_clip)?;
        self.adam.check()?;
        if self.stages.is_empty() || self.stages.len() > MAX_STAGES {
            return Err(format!("stages has {} entries; it must have from 1 to {MAX_STAGES}", self.stages.len()));
        }
        for (i, stage) in self.stages.iter().enumerate() {
            stage.check().map_err(|reason| format!("stages[{i}].{reason}"))?;
        }
        if !self.energy_cut.high.is_finite()
            || self.energy_cut.max.is_nan()
            || self.energy_cut.max < self.energy_cut.high
        {
            return Err("energy_cut.high must be finite, and energy_cut.max at least as large".into());
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
        if self.validation.every == 0 || !(2..=1 << 20).contains(&self.validation.samples) {
            return Err("validation.every must be positive, and validation.samples from 2 to 1048576".into());
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
        write!(
            f,
            "{} steps of {}: maximum likelihood × {}, reverse KL × {} at temperature × {}, learning rate {}",
            self.steps,
            self.batch,
            ramp(&self.maximum_likelihood),
            ramp(&self.reverse_kl),
            ramp(&self.temperature_factor),
            ramp(&self.learning_rate),
        )
    }
}

impl Stage {
    fn check(&self) -> Result<(), String> {
        if !(1..=MAX_STEPS).contains(&self.steps) {
            return Err(format!("steps is {}; it must be from 1 to {MAX_STEPS}", self.steps));
        }
        if !(2..=MAX_BATCH).contains(&self.batch) {
            return Err(format!("batch is {}; it must be from 2 to {MAX_BATCH}", self.batch));
        }
        self.maximum_likelihood.check("maximum_likelihood", 0.0)?;
        self.reverse_kl.check("reverse_kl", 0.0)?;
        self.temperature_factor.check("temperature_factor", 1e-6)?;
        self.learning_rate.check("learning_rate", 0.0)?;
        let weight = |f: f64| self.maximum_likelihood.at(f) + self.reverse_kl.at(f);
        if weight(0.0) <= 0.0 && weight(1.0) <= 0.0 {
            return Err("maximum_likelihood and reverse_kl are both 0; there is nothing to train on".into());
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
