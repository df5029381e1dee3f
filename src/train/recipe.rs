//! Plans for users who name a system and nothing else, or a recipe by its name.

use super::adam::AdamSettings;
use super::plan::{Budget, EnergyCut, Stage, TrainingPlan, Validation};
use super::replay::{Annealing, Replay};
use super::schedule::{Ramp, RampShape};
use super::transport::Transport;
use crate::compute::bias_activation::Activation;
use crate::coords::{CoordinateChoice, free_particles};
use crate::energy::analytic::AnalyticPotential;
use crate::energy::{System, SystemDefinition};
use crate::flow::{Architecture, ArchitectureKind, ConditionerKind, Mixing, TemperatureRange};

/// A way of training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipe {
    /// The flow's own samples, weighted towards the target as far as they bear (constrained mass transport). Modes that the
    /// flow covers when it begins are not lost.
    Transport,
    /// Reverse Kullback-Leibler divergence while the target cools down, with a little maximum likelihood if there are data; of a
    /// molecule without any, own samples after that.
    ReverseKl,
    /// Reverse Kullback-Leibler divergence at four times the temperature, then own samples weighted from there down
    /// (temperature-annealed Boltzmann generators).
    Annealing,
    /// Own samples that are annealed towards p̃²/q and weighted by their paths (flow annealed importance sampling bootstrap):
    /// moves go where the flow does not. It takes many more energies for a step.
    Fab,
    /// Data alone, until what is held out of them is no longer described better.
    Likelihood,
    /// Data alone, by flow matching: a continuous flow.
    FlowMatching,
}

impl Recipe {
    pub const ALL: [Self; 6] =
        [Self::Transport, Self::ReverseKl, Self::Annealing, Self::Fab, Self::Likelihood, Self::FlowMatching];

    /// As users write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Transport => "transport",
            Self::ReverseKl => "reverse-kl",
            Self::Annealing => "annealing",
            Self::Fab => "fab",
            Self::Likelihood => "likelihood",
            Self::FlowMatching => "flow-matching",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|recipe| recipe.name() == name)
    }

    /// The one that suits a system, and why, in a sentence.
    pub fn suited(system: &System, has_data: bool, has_range: bool) -> (Self, &'static str) {
        match (system.atoms().is_some(), has_data) {
            (false, true) if free_particles(system).is_some() => (
                Self::FlowMatching,
                "particles are alike and nothing holds them: a field of pairs has their symmetries, and data teach it quickly",
            ),
            // Data may be of one temperature of a range.
            (false, true) if demand(system) == Demand::Ordered && !has_range => (
                Self::Likelihood,
                "particles are alike and held in places: only one of their orders has a density, which forces do not know of",
            ),
            (true, _) => (
                Self::ReverseKl,
                "a molecule is stiff: forces tell a flow more than weights of its first samples, which are all zero",
            ),
            (false, true) => (Self::ReverseKl, "there are data, which keep reverse KL from losing their modes"),
            (false, false) => {
                (Self::Transport, "nothing but the energy is known: modes are found by covering everything")
            }
        }
    }

    /// The plan for a system.
    pub fn plan(
        self,
        system: &System,
        temperature: f64,
        temperature_range: Option<TemperatureRange>,
        has_data: bool,
    ) -> TrainingPlan {
        // A sample of a continuous flow takes as long as many of its steps.
        let (measured_every, samples) = if self == Self::FlowMatching { (2500, 1024) } else { (100, 2048) };
        TrainingPlan {
            temperature,
            temperature_range,
            seed: 0,
            coordinates: CoordinateChoice::Automatic,
            architecture: self.architecture(system),
            stages: self.stages(system, has_data, temperature_range.is_some()),
            adam: AdamSettings::default(),
            weight_average: (self != Self::ReverseKl || demand(system) == Demand::Molecule).then_some(0.999),
            patience: (self == Self::Likelihood).then_some(20),
            gradient_clip: 10.0,
            energy_cut: EnergyCut { high: 1e3, max: 1e20 },
            budget: Budget::default(),
            validation: Validation { every: measured_every, samples },
            checkpoint_every: if self == Self::FlowMatching { 500 } else { 250 },
            collective_variable: None,
        }
    }

    fn stages(self, system: &System, has_data: bool, has_range: bool) -> Vec<Stage> {
        let demand = demand(system);
        let molecule = demand == Demand::Molecule;
        let batch = if matches!(demand, Demand::Islands | Demand::Scales) { 1024 } else { 512 };
        let stage = |steps, ml: f64, kl: f64, own: f64, factor: Ramp, learning_rate: Ramp| Stage {
            steps,
            batch,
            maximum_likelihood: Ramp::constant(ml),
            flow_matching: Ramp::constant(0.0),
            reverse_kl: Ramp::constant(kl),
            own_samples: Ramp::constant(own),
            log_variance: Ramp::constant(0.0),
            temperature_gradient: Ramp::constant(0.0),
            coordinate_entropy: Ramp::constant(0.0),
            replay: Replay::default(),
            temperature_factor: factor,
            learning_rate,
        };
        let flat = Ramp::constant;
        let decay = |from, to| Ramp::new(from, to, RampShape::Cosine);
        let still = flat(1.0);
        // At a high temperature the modes of the target run into one another, and the flow finds them all before they part.
        let cooling = Ramp::new(4.0, 1.0, RampShape::Exponential);
        let fast = if molecule { 5e-4 } else { 1e-3 };
        let long = match demand {
            Demand::Molecule => 24_000,
            Demand::Small | Demand::Large | Demand::Particles | Demand::Ordered => 5000,
            Demand::Islands => 6000,
            Demand::Scales => 20_000,
        };
        match (self, molecule, has_data) {
            (Self::Transport, ..) => vec![stage(long, 0.0, 0.0, 1.0, still, decay(fast, 1e-5))],
            (Self::Annealing, ..) => {
                let mut down = stage(2 * long / 3, 0.0, 0.0, 1.0, cooling, flat(fast));
                down.replay.transport = Transport { trust: None, entropy: None };
                let mut last = stage(long / 3, 0.0, 0.0, 1.0, still, decay(fast, 1e-5));
                last.replay = down.replay;
                vec![stage(long / 3, 0.0, 1.0, 0.0, flat(4.0), flat(fast)), down, last]
            }
            (Self::FlowMatching, ..) => {
                let mut matching = stage(2 * long, 0.0, 0.0, 0.0, still, decay(2e-3, 1e-6));
                matching.flow_matching = flat(1.0);
                vec![matching]
            }
            (Self::Fab, ..) => {
                let mut fab = stage(long, 0.0, 0.0, 1.0, still, decay(fast, 1e-5));
                // A bound, since paths of a flow far from its target have weights that a few samples rule.
                fab.replay = Replay {
                    generation: 64,
                    every: 8,
                    batches: 1,
                    transport: Transport { trust: Some(1.0), entropy: None },
                    wide_share: 0.0,
                    annealing: Some(Annealing::default()),
                };
                vec![fab]
            }
            // Short enough for the rate to come down before the data are known by heart.
            (Self::Likelihood, ..) if demand == Demand::Ordered => {
                vec![stage(2 * long, 1.0, 0.0, 0.0, still, decay(fast, 1e-5))]
            }
            (Self::Likelihood, ..) => vec![stage(10 * long, 1.0, 0.0, 0.0, still, decay(fast, 1e-5))],
            // Trajectories are short for the dimension: trained on heavily, a flow learns their noise. A little of them
            // keeps it from forgetting what they have seen.
            (Self::ReverseKl, true, true) => {
                // Many temperatures are more to learn than one.
                let (first, second) = if has_range { (6000, 30_000) } else { (4000, 20_000) };
                vec![
                    stage(first, 0.0, 1.0, 0.0, cooling, flat(fast)),
                    stage(second, 0.1, 1.0, 0.0, still, decay(fast, 1e-5)),
                ]
            }
            // Forces bring a flow near, in small batches and with a high rate. From there on its own samples have weights that
            // bear, and lift the density where it is too low, which reverse KL hardly sees; many are drawn, some of them wider,
            // so that what the flow has next to none of is among them.
            (Self::ReverseKl, true, false) => {
                let mut own = stage(if has_range { 40_000 } else { 20_000 }, 0.0, 0.0, 1.0, still, decay(fast, 1e-5));
                own.replay.batches = 3;
                own.replay.generation =
                    (own.replay.generation * KEPT_WHOLE / system.dimension().max(1) as u64).clamp(8, 64);
                own.replay.wide_share = 0.25;
                let stages = [
                    stage(2400, 0.0, 1.0, 0.0, cooling, flat(2.0 * fast)),
                    stage(3000, 0.0, 1.0, 0.0, still, decay(2.0 * fast, fast)),
                    own,
                ];
                stages.map(|stage| Stage { batch: 256, ..stage }).to_vec()
            }
            (Self::ReverseKl, false, true) => {
                vec![stage(500, 1.0, 0.0, 0.0, still, flat(fast)), stage(2500, 0.2, 1.0, 0.0, still, decay(fast, 1e-5))]
            }
            (Self::ReverseKl, false, false) => vec![
                stage(1500, 0.0, 1.0, 0.0, cooling, flat(2e-3)),
                stage(1500, 0.0, 1.0, 0.0, still, decay(2e-3, 1e-5)),
            ],
        }
    }

    /// A flow of a kind and size that suits the system.
    fn architecture(self, system: &System) -> Architecture {
        use ArchitectureKind::{Continuous, RealNvp, Spline};
        let (kind, couplings, hidden, bins, log_scale_bound) = match demand(system) {
            _ if self == Self::FlowMatching => (Continuous, 1, vec![128; 3], 32, 2.0),
            Demand::Small => (Spline, 6, vec![32; 2], 16, 2.0),
            Demand::Islands => (Spline, 10, vec![96; 2], 32, 2.0),
            Demand::Scales => (RealNvp, 8, vec![64; 2], 8, 4.0),
            Demand::Large | Demand::Particles => (Spline, 6, vec![128; 2], 16, 2.0),
            Demand::Ordered => (Spline, 8, vec![128; 2], 8, 2.0),
            Demand::Molecule => (Spline, 8, vec![128; 2], 8, 2.0),
        };
        Architecture {
            kind,
            couplings,
            conditioner: ConditionerKind::Mlp,
            mixing: Mixing::None,
            hidden,
            activation: Activation::Silu,
            bins,
            spline_bound: 5.0,
            log_scale_bound,
            tolerance: 1e-4,
            auxiliary: 0,
        }
    }
}

/// Coordinates of the largest molecule that keeps whole generations of own samples; of larger ones they would take too much memory.
const KEPT_WHOLE: u64 = 300;

/// What a flow has to be able to do, where the potential is a known one.
#[derive(Clone, Copy, PartialEq)]
enum Demand {
    /// Two coordinates, a few modes.
    Small,
    /// Many modes, with next to nothing between them: many knots.
    Islands,
    /// Scales that differ by orders of magnitude: affine couplings, which have no domain to leave.
    Scales,
    Large,
    /// Identical particles that nothing holds.
    Particles,
    /// Identical particles that are held, which are put in one order.
    Ordered,
    Molecule,
}

fn demand(system: &System) -> Demand {
    match system.definition() {
        SystemDefinition::OpenMm { .. } => Demand::Molecule,
        SystemDefinition::Analytic(AnalyticPotential::GaussianMixture(_)) => Demand::Islands,
        SystemDefinition::Analytic(AnalyticPotential::Funnel(_)) => Demand::Scales,
        SystemDefinition::Analytic(potential) if potential.particle_symmetry().is_some() => {
            if free_particles(system).is_some() { Demand::Particles } else { Demand::Ordered }
        }
        SystemDefinition::Analytic(_) if system.dimension() > 8 => Demand::Large,
        SystemDefinition::Analytic(_) => Demand::Small,
    }
}

/// The plan of the recipe that suits a system: by its dimension, its kind, and whether there are data.
pub fn default_plan(
    system: &System,
    temperature: f64,
    temperature_range: Option<TemperatureRange>,
    has_data: bool,
) -> TrainingPlan {
    Recipe::suited(system, has_data, temperature_range.is_some()).0.plan(
        system,
        temperature,
        temperature_range,
        has_data,
    )
}
