//! Steps of training, as a job makes them.

use super::super::client::CliError;
use super::flows::{FlowShape, TRAINING_BATCH};
use super::workload::Setting;
use crate::coords::CoordinateChoice;
use crate::energy::analytic::{AnalyticPotential, Harmonic};
use crate::energy::{System, SystemDefinition};
use crate::math::{Purpose, Randoms};
use crate::train::{
    AdamSettings, Budget, EnergyCut, Ramp, Replay, Stage, Trainer, TrainingData, TrainingPlan, Validation,
};

const FRAMES: usize = 4096;

/// Reverse Kullback-Leibler divergence from a standard normal.
pub(super) fn reverse_kl(shape: &FlowShape, setting: &Setting) -> Result<(f64, f64), CliError> {
    run(shape, plan(shape, 0.0, 1.0), None, setting)
}

/// Maximum likelihood of frames of a standard normal.
pub(super) fn maximum_likelihood(shape: &FlowShape, setting: &Setting) -> Result<(f64, f64), CliError> {
    let mut random = Randoms::new(0, Purpose::Validation, 0);
    let positions = (0..FRAMES * shape.dimension).map(|_| random.normal()).collect();
    run(
        shape,
        plan(shape, 1.0, 0.0),
        Some(TrainingData { positions, temperatures: Vec::new(), digest: String::new() }),
        setting,
    )
}

/// A standard normal as a system.
pub(super) fn standard_normal(dimension: usize) -> Result<System, CliError> {
    let harmonic = Harmonic { stiffness: vec![1.0; dimension], centre: vec![0.0; dimension] };
    let definition = SystemDefinition::Analytic(AnalyticPotential::Harmonic(harmonic));
    System::build(definition).map_err(|e| CliError::failed(e.to_string()))
}

fn run(
    shape: &FlowShape,
    plan: TrainingPlan,
    data: Option<TrainingData>,
    setting: &Setting,
) -> Result<(f64, f64), CliError> {
    let system = standard_normal(shape.dimension)?;
    let failed = |e: crate::train::TrainError| CliError::failed(e.to_string());
    let mut trainer = Trainer::new(plan, system, data, &setting.device).map_err(failed)?;
    let seconds = setting.pace.time(|| trainer.step().map(drop).map_err(failed))?;
    Ok((TRAINING_BATCH as f64, seconds))
}

/// One stage that is longer than any measurement.
fn plan(shape: &FlowShape, maximum_likelihood: f64, reverse_kl: f64) -> TrainingPlan {
    TrainingPlan {
        temperature: 1.0,
        temperature_range: None,
        seed: 0,
        coordinates: CoordinateChoice::Automatic,
        architecture: shape.architecture(),
        stages: vec![Stage {
            steps: 1_000_000_000,
            batch: TRAINING_BATCH,
            maximum_likelihood: Ramp::constant(maximum_likelihood),
            own_samples: Ramp::constant(0.0),
            log_variance: Ramp::constant(0.0),
            temperature_gradient: Ramp::constant(0.0),
            coordinate_entropy: Ramp::constant(0.0),
            replay: Replay::default(),
            flow_matching: Ramp::constant(0.0),
            reverse_kl: Ramp::constant(reverse_kl),
            temperature_factor: Ramp::constant(1.0),
            learning_rate: Ramp::constant(1e-4),
        }],
        adam: AdamSettings::default(),
        weight_average: None,
        patience: None,
        gradient_clip: 10.0,
        energy_cut: EnergyCut { high: 1e6, max: 1e12 },
        budget: Budget::default(),
        validation: Validation { every: 1, samples: 512 },
        checkpoint_every: 1,
        collective_variable: None,
    }
}
