//! Plans for users who name a system and nothing else.

use super::adam::AdamSettings;
use super::plan::{Budget, EnergyCut, Stage, TrainingPlan, Validation};
use super::replay::Replay;
use super::schedule::{Ramp, RampShape};
use crate::compute::bias_activation::Activation;
use crate::coords::CoordinateChoice;
use crate::energy::System;
use crate::flow::{Architecture, ArchitectureKind, ConditionerKind, TemperatureRange};

/// A plan that suits a system: by its dimension, its kind, and whether there are data.
pub fn default_plan(
    system: &System,
    temperature: f64,
    temperature_range: Option<TemperatureRange>,
    has_data: bool,
) -> TrainingPlan {
    let d = system.dimension();
    let molecule = system.atoms().is_some();
    let architecture = Architecture {
        kind: ArchitectureKind::Spline,
        couplings: if molecule { 8 } else { 6 },
        conditioner: ConditionerKind::Mlp,
        hidden: if molecule || d > 8 { vec![128, 128] } else { vec![32, 32] },
        activation: Activation::Silu,
        bins: if molecule { 8 } else { 16 },
        spline_bound: 5.0,
        log_scale_bound: 2.0,
    };
    let stage = |steps, batch, ml: f64, kl: f64, factor: Ramp, lr: Ramp| Stage {
        steps,
        batch,
        maximum_likelihood: Ramp::constant(ml),
        reverse_kl: Ramp::constant(kl),
        own_samples: Ramp::constant(0.0),
        replay: Replay::default(),
        temperature_factor: factor,
        learning_rate: lr,
    };
    let still = Ramp::constant(1.0);
    // At a high temperature the modes of the target run into one another, and the flow finds them all before they part.
    let cooling = Ramp::new(4.0, 1.0, RampShape::Exponential);
    let flat = Ramp::constant;
    let decay = |from, to| Ramp::new(from, to, RampShape::Cosine);
    // Trajectories are short for the dimension: trained on heavily, a flow learns their noise. A little of them keeps it
    // from forgetting what they have seen.
    let stages = match (molecule, has_data) {
        (true, true) => {
            vec![stage(3000, 512, 0.0, 1.0, cooling, flat(5e-4)), stage(5500, 512, 0.1, 1.0, still, decay(5e-4, 1e-5))]
        }
        (true, false) => {
            vec![stage(3000, 512, 0.0, 1.0, cooling, flat(5e-4)), stage(5500, 512, 0.0, 1.0, still, decay(5e-4, 1e-5))]
        }
        (false, true) => {
            vec![stage(500, 512, 1.0, 0.0, still, flat(1e-3)), stage(2500, 512, 0.2, 1.0, still, decay(1e-3, 1e-5))]
        }
        (false, false) => {
            vec![stage(1500, 512, 0.0, 1.0, cooling, flat(2e-3)), stage(1500, 512, 0.0, 1.0, still, decay(2e-3, 1e-5))]
        }
    };
    TrainingPlan {
        temperature,
        temperature_range,
        seed: 0,
        coordinates: CoordinateChoice::Automatic,
        architecture,
        stages,
        adam: AdamSettings::default(),
        weight_average: None,
        patience: None,
        gradient_clip: 10.0,
        energy_cut: EnergyCut { high: 1e3, max: 1e20 },
        budget: Budget::default(),
        validation: Validation { every: 100, samples: 2048 },
        checkpoint_every: 250,
    }
}
