//! What a benchmark target is: a system, temperatures, what is known exactly, and what others have published.

use super::super::super::alanine_dipeptide::{SYSTEM, TOPOLOGY};
use super::super::super::client::CliError;
use super::measure::Quantity;
use super::replica_exchange;
use crate::energy::analytic::AnalyticPotential;
use crate::energy::{System, SystemDefinition};
use crate::math::{Purpose, Randoms};
use crate::sample::PathLength;
use crate::train::TrainingData;

/// A system with the temperatures that a flow of it is measured at.
pub(super) struct Target {
    /// The name of the built-in potential; what is no potential's name is alanine dipeptide.
    pub name: &'static str,
    /// The temperature that flows are trained at, in the unit of the system's scale.
    pub trained_at: f64,
    pub temperatures: &'static [f64],
    pub regions: fn(&System) -> Option<Regions>,
    pub references: References,
    pub trained_on: TrainedOn,
    /// What carries a model's samples to the target, where weights alone do not; else nothing.
    pub paths: Option<PathLength>,
    pub published: &'static [Published],
}

/// A number that others have reached.
pub(super) struct Published {
    pub temperature: f64,
    pub quantity: Quantity,
    pub value: f64,
    /// Who has, and where it is said.
    pub by: &'static str,
}

/// What flows learn from, besides the energy.
pub(super) enum TrainedOn {
    Nothing,
    /// Frames of replica exchange, of another seed than the reference's.
    Frames,
    /// The same, of another potential of the same coordinates: one in which states that are rare in the target are not. What a
    /// model's card says of its coverage is of that potential's frames.
    FramesOf(fn() -> AnalyticPotential),
}

/// Where the exact answers of a target come from.
pub(super) enum References {
    /// From the potential, one temperature at a time.
    Exact(fn(&System, Option<&Regions>, f64) -> Result<Reference, CliError>),
    /// Replica exchange over a ladder that has the target's temperatures among its own.
    ReplicaExchange(&'static [f64]),
}

/// Regions of configuration space whose weights are compared. There may be several sets of them, each of which divides the
/// whole space; where modes are a product of those of each dimension, a set is a dimension.
pub(super) struct Regions {
    pub kind: RegionKind,
    pub sets: usize,
    /// Regions of a set.
    pub regions: usize,
    /// The region, below `regions`, of a configuration in a set.
    pub of: Box<RegionOf>,
}

/// The region of a configuration in a set.
pub(super) type RegionOf = dyn Fn(&[f64], usize) -> usize + Send + Sync;

/// What regions are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RegionKind {
    Modes,
    /// Bins of the Ramachandran plane.
    Ramachandran,
}

impl Regions {
    /// The region of a configuration in each set.
    pub fn of_all(&self, x: &[f64]) -> impl Iterator<Item = usize> {
        (0..self.sets).map(move |set| (self.of)(x, set).min(self.regions - 1))
    }
}

/// What is known of a target at one temperature.
pub(super) struct Reference {
    pub log_z: Option<f64>,
    /// E_p[log p], which E_p[log q] reaches where q = p.
    pub mean_log_p: Option<f64>,
    /// The weight of each region (sets, regions); empty where it is not known.
    pub weights: Vec<f64>,
    pub marginal: Option<Marginal>,
    pub samples: Samples,
}

impl Reference {
    pub fn unknown() -> Self {
        Self { log_z: None, mean_log_p: None, weights: Vec::new(), marginal: None, samples: Samples::Unknown }
    }
}

/// A variable of which the exact density is known.
pub(super) struct Marginal {
    pub name: &'static str,
    pub of: fn(&[f64]) -> f64,
    /// Equidistant values, and the density at each.
    pub density: Vec<(f64, f64)>,
}

/// What is below this part of the largest density is left out where a density is shown.
const NEGLIGIBLE: f64 = 1e-3;

impl Marginal {
    /// The values from the first to the last at which the density is not negligible.
    pub fn visible(&self) -> &[(f64, f64)] {
        let largest = self.density.iter().map(|p| p.1).fold(0.0, f64::max);
        let is_seen = |p: &(f64, f64)| p.1 > NEGLIGIBLE * largest;
        let first = self.density.iter().position(is_seen);
        let last = self.density.iter().rposition(is_seen);
        first.zip(last).and_then(|(first, last)| self.density.get(first..=last)).unwrap_or_default()
    }
}

/// Samples of the target itself.
pub(super) enum Samples {
    Unknown,
    Independent(Box<dyn Sampler + Send + Sync>),
    Frames(Frames),
}

/// Frames (n, D) of a simulation.
pub(super) struct Frames {
    pub positions: Vec<f64>,
    /// Frames for each independent one.
    pub inefficiency: f64,
    /// The weight of each region by the first and by the second half of the walkers, which never meet.
    pub halves: [Vec<f64>; 2],
    /// The total variation that the noise of the frames makes between their histogram and an exact one.
    pub noise: f64,
}

/// Draws independent samples of a density.
pub(super) trait Sampler {
    fn dimension(&self) -> usize;

    /// Writes a sample to `x`.
    fn draw(&self, random: &mut Randoms, x: &mut [f64]);

    /// Samples (n, D): a function of the seed, each of the random numbers of its own index.
    fn sample(&self, seed: u64, n: usize) -> Vec<f64> {
        let d = self.dimension();
        let mut positions = vec![0.0; n * d];
        for (index, x) in positions.chunks_exact_mut(d).enumerate() {
            self.draw(&mut Randoms::new(SEED ^ seed, Purpose::Validation, index as u64), x);
        }
        positions
    }
}

/// Apart from the seeds of training, which measures its progress on numbers of the same purpose.
const SEED: u64 = 0x7265_6665_7265_6e63;

impl Target {
    pub fn system(&self) -> Result<System, CliError> {
        let definition = match AnalyticPotential::built_in(self.name) {
            Some(potential) => SystemDefinition::Analytic(potential),
            None => SystemDefinition::OpenMm { system_xml: SYSTEM.into(), topology_pdb: Some(TOPOLOGY.into()) },
        };
        System::build(definition).map_err(|e| CliError::failed(format!("{}: {e}", self.name)))
    }

    /// Frames to train on, and the energy evaluations that they took; nothing where the energy is all there is.
    pub fn data(&self, system: &System) -> Result<Option<(TrainingData, u64)>, CliError> {
        let References::ReplicaExchange(ladder) = self.references else { return Ok(None) };
        let other;
        let simulated = match self.trained_on {
            TrainedOn::Nothing => return Ok(None),
            TrainedOn::Frames => system,
            TrainedOn::FramesOf(potential) => {
                let built = System::build(SystemDefinition::Analytic(potential()));
                other = built.map_err(|e| CliError::failed(format!("{}: {e}", self.name)))?;
                &other
            }
        };
        replica_exchange::training_data(simulated, ladder, self.temperatures).map(Some)
    }

    /// What others have reached.
    pub fn published(&self, temperature: f64, quantity: Quantity) -> Option<&'static Published> {
        self.published.iter().find(|p| p.temperature == temperature && p.quantity == quantity)
    }
}
