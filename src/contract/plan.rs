//! Training tasks: from a request, with all that it leaves out chosen for the system, and back.

use super::FieldError;
use super::v1;
use super::variables::{collective_variable, variable_message};
use crate::compute::bias_activation::Activation;
use crate::coords::CoordinateChoice;
use crate::energy::System;
use crate::flow::{ArchitectureKind, ConditionerKind, Mixing, TemperatureRange};
use crate::sample::PathLength;
use crate::train::{Annealing, Ramp, RampShape, Recipe, Replay, Stage, TrainingPlan, Transport, VariableRange};

/// Where the fields of a training task are in a request.
const PREFIX: &str = "job.training.";

/// The plan of a task: what it says, and the default for the system where it says nothing.
pub fn training_plan(task: &v1::TrainingTask, system: &System, temperature: f64) -> Result<TrainingPlan, FieldError> {
    let range = task.temperature_range.as_ref().map(read_range);
    let has_data = !task.dataset.is_empty();
    let mut plan = chosen_recipe(task, system)?.0.plan(system, temperature, range, has_data);
    plan.seed = task.seed;
    if let Some(coordinates) = &task.coordinates {
        plan.coordinates = read_coordinates(coordinates)?;
    }
    if let Some(architecture) = &task.architecture {
        read_architecture(architecture, &mut plan)?;
    }
    if !task.stages.is_empty() {
        plan.stages = task.stages.iter().enumerate().map(|(i, s)| stage(i, s)).collect::<Result<_, _>>()?;
    }
    if let Some(adam) = &task.adam {
        set(&mut plan.adam.beta1, adam.beta1);
        set(&mut plan.adam.beta2, adam.beta2);
        set(&mut plan.adam.epsilon, adam.epsilon);
    }
    if task.weight_average < 0.0 {
        plan.weight_average = None;
    } else if task.weight_average != 0.0 {
        plan.weight_average = Some(task.weight_average);
    }
    match u64::try_from(task.patience) {
        Err(_) => plan.patience = None,
        Ok(0) => {}
        Ok(patience) => plan.patience = Some(patience),
    }
    set(&mut plan.gradient_clip, task.gradient_clip);
    if let Some(cut) = &task.energy_cut {
        set(&mut plan.energy_cut.high, cut.high);
        set(&mut plan.energy_cut.max, cut.max);
    }
    if let Some(budget) = &task.budget {
        plan.budget.steps = limit("budget.steps", budget.steps)?;
        plan.budget.samples = limit("budget.samples", budget.samples)?;
        plan.budget.energy_evaluations = limit("budget.energy_evaluations", budget.energy_evaluations)?;
        plan.budget.seconds = (budget.seconds != 0.0).then_some(budget.seconds);
        if let Some(steps) = plan.budget.steps.filter(|_| task.stages.is_empty()) {
            plan.fit_to(steps);
        }
    }
    count("validation_every", task.validation_every, &mut plan.validation.every)?;
    count("validation_samples", task.validation_samples, &mut plan.validation.samples)?;
    count("checkpoint_every", task.checkpoint_every, &mut plan.checkpoint_every)?;
    plan.collective_variable = task.collective_variable.as_ref().map(read_variable).transpose()?;
    plan.check().map_err(|sentence| FieldError::from_sentence(PREFIX, &sentence))?;
    plan.bound_variable(system).map_err(|sentence| FieldError::from_sentence(PREFIX, &sentence))?;
    Ok(plan)
}

fn read_variable(message: &v1::VariableRange) -> Result<VariableRange, FieldError> {
    let variable = collective_variable(message.variable.as_ref())
        .map_err(|error| error.within(&format!("{PREFIX}collective_variable")))?;
    Ok(VariableRange { variable, low: message.low, high: message.high })
}

/// The recipe of a task, and why it is that one.
pub fn chosen_recipe(task: &v1::TrainingTask, system: &System) -> Result<(Recipe, &'static str), FieldError> {
    if task.recipe.is_empty() {
        return Ok(Recipe::suited(system, !task.dataset.is_empty(), task.temperature_range.is_some()));
    }
    match Recipe::named(&task.recipe) {
        Some(recipe) => Ok((recipe, "it was asked for")),
        None => {
            let known: Vec<&str> = Recipe::ALL.iter().map(|recipe| recipe.name()).collect();
            Err(invalid("recipe", format!("there is no '{}'; use one of {}", task.recipe, known.join(", "))))
        }
    }
}

/// Zero in a message means the default.
fn set(target: &mut f64, value: f64) {
    if value != 0.0 {
        *target = value;
    }
}

fn invalid(field: &str, reason: impl Into<String>) -> FieldError {
    FieldError::invalid(format!("{PREFIX}{field}"), reason)
}

fn limit(field: &str, value: i64) -> Result<Option<u64>, FieldError> {
    match u64::try_from(value) {
        Ok(0) => Ok(None),
        Ok(n) => Ok(Some(n)),
        Err(_) => Err(invalid(field, format!("{value} is negative; use 0 for no limit"))),
    }
}

fn count(field: &str, value: i64, target: &mut u64) -> Result<(), FieldError> {
    if let Some(n) = limit(field, value)? {
        *target = n;
    }
    Ok(())
}

fn read_range(message: &v1::TemperatureRange) -> TemperatureRange {
    TemperatureRange { low: message.low, high: message.high }
}

fn read_coordinates(message: &v1::Coordinates) -> Result<CoordinateChoice, FieldError> {
    match v1::CoordinateScheme::try_from(message.scheme) {
        Ok(v1::CoordinateScheme::Unspecified) if message.core_atoms.is_empty() => Ok(CoordinateChoice::Automatic),
        Ok(v1::CoordinateScheme::Unspecified) => {
            Err(invalid("coordinates.core_atoms", "a core belongs to COORDINATE_SCHEME_MIXED; set scheme to it"))
        }
        Ok(v1::CoordinateScheme::Mixed) => {
            let atom = |&atom: &i64| {
                usize::try_from(atom)
                    .map_err(|_| invalid("coordinates.core_atoms", format!("{atom} is negative; atoms count from 0")))
            };
            let core_atoms = message.core_atoms.iter().map(atom).collect::<Result<_, _>>()?;
            Ok(CoordinateChoice::Mixed { core_atoms })
        }
        Err(_) => Err(invalid("coordinates.scheme", format!("{} is not a value that exists", message.scheme))),
    }
}

fn coordinates_message(choice: &CoordinateChoice) -> v1::Coordinates {
    match choice {
        CoordinateChoice::Automatic => v1::Coordinates::default(),
        CoordinateChoice::Mixed { core_atoms } => v1::Coordinates {
            scheme: v1::CoordinateScheme::Mixed.into(),
            core_atoms: core_atoms.iter().map(|&atom| atom as i64).collect(),
        },
    }
}

fn read_architecture(message: &v1::FlowArchitecture, plan: &mut TrainingPlan) -> Result<(), FieldError> {
    let target = &mut plan.architecture;
    let unknown = |field: &str, value: i32| invalid(field, format!("{value} is not a value that exists"));
    match v1::FlowKind::try_from(message.kind) {
        Ok(v1::FlowKind::Unspecified) => {}
        Ok(v1::FlowKind::Nice) => target.kind = ArchitectureKind::Nice,
        Ok(v1::FlowKind::NiceScaled) => target.kind = ArchitectureKind::NiceScaled,
        Ok(v1::FlowKind::Gin) => target.kind = ArchitectureKind::Gin,
        Ok(v1::FlowKind::GinScaled) => target.kind = ArchitectureKind::GinScaled,
        Ok(v1::FlowKind::Realnvp) => target.kind = ArchitectureKind::RealNvp,
        Ok(v1::FlowKind::Autoregressive) => target.kind = ArchitectureKind::Autoregressive,
        Ok(v1::FlowKind::InverseAutoregressive) => target.kind = ArchitectureKind::InverseAutoregressive,
        Ok(v1::FlowKind::Smooth) => target.kind = ArchitectureKind::Smooth,
        Ok(v1::FlowKind::Spline) => target.kind = ArchitectureKind::Spline,
        Ok(v1::FlowKind::AffineSpline) => target.kind = ArchitectureKind::AffineSpline,
        Ok(v1::FlowKind::Continuous) => target.kind = ArchitectureKind::Continuous,
        Err(_) => return Err(unknown("architecture.kind", message.kind)),
    }
    match v1::Mixing::try_from(message.mixing) {
        Ok(v1::Mixing::Unspecified) => {}
        Ok(v1::Mixing::None) => target.mixing = Mixing::None,
        Ok(v1::Mixing::Lu) => target.mixing = Mixing::Lu,
        Ok(v1::Mixing::Householder) => target.mixing = Mixing::Householder,
        Err(_) => return Err(unknown("architecture.mixing", message.mixing)),
    }
    match v1::ConditionerKind::try_from(message.conditioner) {
        Ok(v1::ConditionerKind::Unspecified) => {}
        Ok(v1::ConditionerKind::Mlp) => target.conditioner = ConditionerKind::Mlp,
        Ok(v1::ConditionerKind::Residual) => target.conditioner = ConditionerKind::Residual,
        Ok(v1::ConditionerKind::Attention) => target.conditioner = ConditionerKind::Attention,
        Err(_) => return Err(unknown("architecture.conditioner", message.conditioner)),
    }
    match v1::Activation::try_from(message.activation) {
        Ok(v1::Activation::Unspecified) => {}
        Ok(v1::Activation::Silu) => target.activation = Activation::Silu,
        Ok(v1::Activation::Relu) => target.activation = Activation::Relu,
        Ok(v1::Activation::Tanh) => target.activation = Activation::Tanh,
        Err(_) => return Err(unknown("architecture.activation", message.activation)),
    }
    let size = |field: &str, value: i64| {
        usize::try_from(value).map_err(|_| invalid(field, format!("{value} is negative; use 0 for the default")))
    };
    match size("architecture.couplings", message.couplings)? {
        0 => {}
        n => target.couplings = n,
    }
    match size("architecture.auxiliary", message.auxiliary)? {
        0 => {}
        n => target.auxiliary = n,
    }
    match size("architecture.bins", message.bins)? {
        0 => {}
        n => target.bins = n,
    }
    if !message.hidden.is_empty() {
        let widths = message.hidden.iter().map(|&w| size("architecture.hidden", w));
        target.hidden = widths.collect::<Result<_, _>>()?;
    }
    set(&mut target.spline_bound, message.spline_bound);
    set(&mut target.log_scale_bound, message.log_scale_bound);
    set(&mut target.tolerance, message.tolerance);
    Ok(())
}

fn stage(i: usize, message: &v1::TrainingStage) -> Result<Stage, FieldError> {
    let name = |field: &str| format!("stages[{i}].{field}");
    let Some(steps) = limit(&name("steps"), message.steps)? else {
        return Err(invalid(&name("steps"), "it is 0; leave the stage out"));
    };
    let mut batch = 512;
    count(&name("batch"), message.batch, &mut batch)?;
    Ok(Stage {
        steps,
        batch: usize::try_from(batch).unwrap_or(usize::MAX),
        maximum_likelihood: ramp(
            &name("maximum_likelihood"),
            message.maximum_likelihood.as_ref(),
            Ramp::constant(0.0),
        )?,
        reverse_kl: ramp(&name("reverse_kl"), message.reverse_kl.as_ref(), Ramp::constant(0.0))?,
        flow_matching: ramp(&name("flow_matching"), message.flow_matching.as_ref(), Ramp::constant(0.0))?,
        own_samples: ramp(&name("own_samples"), message.own_samples.as_ref(), Ramp::constant(0.0))?,
        log_variance: ramp(&name("log_variance"), message.log_variance.as_ref(), Ramp::constant(0.0))?,
        temperature_gradient: ramp(
            &name("temperature_gradient"),
            message.temperature_gradient.as_ref(),
            Ramp::constant(0.0),
        )?,
        coordinate_entropy: ramp(
            &name("coordinate_entropy"),
            message.coordinate_entropy.as_ref(),
            Ramp::constant(0.0),
        )?,
        replay: replay(&name("replay"), message.replay.as_ref())?,
        temperature_factor: ramp(
            &name("temperature_factor"),
            message.temperature_factor.as_ref(),
            Ramp::constant(1.0),
        )?,
        learning_rate: ramp(
            &name("learning_rate"),
            message.learning_rate.as_ref(),
            Ramp::new(1e-3, 1e-5, RampShape::Cosine),
        )?,
    })
}

fn replay(field: &str, message: Option<&v1::Replay>) -> Result<Replay, FieldError> {
    let mut replay = Replay::default();
    let Some(v1::Replay { generation, trust, entropy, every, batches, wide_share, annealing }) = message else {
        return Ok(replay);
    };
    count(&format!("{field}.generation"), *generation, &mut replay.generation)?;
    count(&format!("{field}.every"), *every, &mut replay.every)?;
    count(&format!("{field}.batches"), *batches, &mut replay.batches)?;
    replay.annealing = annealing.as_ref().map(|message| read_annealing(field, message)).transpose()?;
    if *trust < 0.0 {
        replay.transport.trust = None;
    } else if *trust != 0.0 {
        replay.transport.trust = Some(*trust);
    }
    replay.transport.entropy = (*entropy != 0.0).then_some(*entropy);
    replay.wide_share = *wide_share;
    Ok(replay)
}

fn read_annealing(field: &str, message: &v1::Annealing) -> Result<Annealing, FieldError> {
    let Annealing { path, mut step_size } = Annealing::default();
    let length = |name: &str, value: i64, default: usize| {
        let mut length = default as u64;
        count(&format!("{field}.annealing.{name}"), value, &mut length)?;
        Ok::<usize, FieldError>(usize::try_from(length).unwrap_or(usize::MAX))
    };
    let path = PathLength {
        distributions: length("distributions", message.distributions, path.distributions)?,
        moves: length("moves", message.moves, path.moves)?,
        leapfrog_steps: length("leapfrog_steps", message.leapfrog_steps, path.leapfrog_steps)?,
    };
    set(&mut step_size, message.step_size);
    Ok(Annealing { path, step_size })
}

fn ramp(field: &str, message: Option<&v1::Ramp>, default: Ramp) -> Result<Ramp, FieldError> {
    let Some(message) = message else { return Ok(default) };
    let shape = match v1::RampShape::try_from(message.shape) {
        Ok(v1::RampShape::Unspecified | v1::RampShape::Linear) => RampShape::Linear,
        Ok(v1::RampShape::Exponential) => RampShape::Exponential,
        Ok(v1::RampShape::Cosine) => RampShape::Cosine,
        Err(_) => return Err(invalid(&format!("{field}.shape"), format!("{} is not a RampShape", message.shape))),
    };
    Ok(Ramp { start: message.start, end: message.end, shape })
}

/// The task of a plan, with nothing left out.
pub fn training_task(
    plan: &TrainingPlan,
    system: &str,
    dataset: Option<&str>,
    model_id: &str,
    recipe: &str,
) -> v1::TrainingTask {
    let architecture = &plan.architecture;
    let kind = match architecture.kind {
        ArchitectureKind::Nice => v1::FlowKind::Nice,
        ArchitectureKind::NiceScaled => v1::FlowKind::NiceScaled,
        ArchitectureKind::Gin => v1::FlowKind::Gin,
        ArchitectureKind::GinScaled => v1::FlowKind::GinScaled,
        ArchitectureKind::RealNvp => v1::FlowKind::Realnvp,
        ArchitectureKind::Autoregressive => v1::FlowKind::Autoregressive,
        ArchitectureKind::InverseAutoregressive => v1::FlowKind::InverseAutoregressive,
        ArchitectureKind::Smooth => v1::FlowKind::Smooth,
        ArchitectureKind::Spline => v1::FlowKind::Spline,
        ArchitectureKind::AffineSpline => v1::FlowKind::AffineSpline,
        ArchitectureKind::Continuous => v1::FlowKind::Continuous,
    };
    let mixing = match architecture.mixing {
        Mixing::None => v1::Mixing::None,
        Mixing::Lu => v1::Mixing::Lu,
        Mixing::Householder => v1::Mixing::Householder,
    };
    let conditioner = match architecture.conditioner {
        ConditionerKind::Mlp => v1::ConditionerKind::Mlp,
        ConditionerKind::Residual => v1::ConditionerKind::Residual,
        ConditionerKind::Attention => v1::ConditionerKind::Attention,
    };
    let activation = match architecture.activation {
        Activation::Identity => v1::Activation::Unspecified,
        Activation::Silu => v1::Activation::Silu,
        Activation::Relu => v1::Activation::Relu,
        Activation::Tanh => v1::Activation::Tanh,
    };
    v1::TrainingTask {
        system: format!("systems/{system}"),
        dataset: dataset.map(|d| format!("datasets/{d}")).unwrap_or_default(),
        temperature: plan.temperature,
        seed: plan.seed,
        architecture: Some(v1::FlowArchitecture {
            kind: kind.into(),
            conditioner: conditioner.into(),
            mixing: mixing.into(),
            couplings: architecture.couplings as i64,
            hidden: architecture.hidden.iter().map(|&w| w as i64).collect(),
            activation: activation.into(),
            bins: architecture.bins as i64,
            spline_bound: architecture.spline_bound,
            log_scale_bound: architecture.log_scale_bound,
            tolerance: architecture.tolerance,
            auxiliary: architecture.auxiliary as i64,
        }),
        stages: plan.stages.iter().map(stage_message).collect(),
        adam: Some(v1::Adam { beta1: plan.adam.beta1, beta2: plan.adam.beta2, epsilon: plan.adam.epsilon }),
        gradient_clip: plan.gradient_clip,
        energy_cut: Some(v1::EnergyCut { high: plan.energy_cut.high, max: plan.energy_cut.max }),
        budget: Some(v1::Budget {
            steps: plan.budget.steps.unwrap_or(0) as i64,
            samples: plan.budget.samples.unwrap_or(0) as i64,
            energy_evaluations: plan.budget.energy_evaluations.unwrap_or(0) as i64,
            seconds: plan.budget.seconds.unwrap_or(0.0),
        }),
        validation_every: plan.validation.every as i64,
        validation_samples: plan.validation.samples as i64,
        checkpoint_every: plan.checkpoint_every as i64,
        model_id: model_id.to_string(),
        recipe: recipe.to_string(),
        coordinates: Some(coordinates_message(&plan.coordinates)),
        temperature_range: plan.temperature_range.map(range_message),
        weight_average: plan.weight_average.unwrap_or(-1.0),
        patience: plan.patience.map_or(-1, |patience| patience as i64),
        collective_variable: plan.collective_variable.as_ref().map(|range| v1::VariableRange {
            variable: Some(variable_message(&range.variable)),
            low: range.low,
            high: range.high,
        }),
    }
}

/// A range of temperatures.
pub fn range_message(range: TemperatureRange) -> v1::TemperatureRange {
    v1::TemperatureRange { low: range.low, high: range.high }
}

fn replay_message(replay: &Replay) -> v1::Replay {
    let Transport { trust, entropy } = replay.transport;
    let annealing = replay.annealing.map(|Annealing { path, step_size }| v1::Annealing {
        distributions: path.distributions as i64,
        moves: path.moves as i64,
        leapfrog_steps: path.leapfrog_steps as i64,
        step_size,
    });
    v1::Replay {
        generation: replay.generation as i64,
        trust: trust.unwrap_or(-1.0),
        entropy: entropy.unwrap_or(0.0),
        every: replay.every as i64,
        batches: replay.batches as i64,
        wide_share: replay.wide_share,
        annealing,
    }
}

fn stage_message(stage: &Stage) -> v1::TrainingStage {
    let ramp = |r: &Ramp| {
        let shape = match r.shape {
            RampShape::Linear => v1::RampShape::Linear,
            RampShape::Exponential => v1::RampShape::Exponential,
            RampShape::Cosine => v1::RampShape::Cosine,
        };
        Some(v1::Ramp { start: r.start, end: r.end, shape: shape.into() })
    };
    v1::TrainingStage {
        steps: stage.steps as i64,
        batch: stage.batch as i64,
        maximum_likelihood: ramp(&stage.maximum_likelihood),
        reverse_kl: ramp(&stage.reverse_kl),
        own_samples: ramp(&stage.own_samples),
        flow_matching: ramp(&stage.flow_matching),
        log_variance: ramp(&stage.log_variance),
        temperature_gradient: ramp(&stage.temperature_gradient),
        coordinate_entropy: ramp(&stage.coordinate_entropy),
        replay: Some(replay_message(&stage.replay)),
        temperature_factor: ramp(&stage.temperature_factor),
        learning_rate: ramp(&stage.learning_rate),
    }
}
