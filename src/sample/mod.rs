//! Weighted samples from a trained generator.
//!
//! A sample has an address: number i of (model, temperature, method, seed) is the same in every batch, on every replica.

mod annealed;
mod annealing;
mod artifact;
mod chains;
mod density;
#[cfg(feature = "cuda")]
mod device;
mod generator;
mod hamiltonian;
mod importance;
mod latent_moves;
mod method;
mod moves;
mod points;
mod population_tuning;
mod populations;
mod probe;
mod resampling;
mod wide_latents;

pub use annealed::AnnealedPaths;
pub use annealing::{
    AnnealingPath, Goal, MOST_EVALUATIONS, PathEnds, PathError, PathLength, PathStarts, STEP_SIZES, tuned,
};
pub use artifact::{ArtifactError, CoursePoint, MOST_POINTS, MOST_UNSEEN, ModelCard, TemperatureMeasure, covers};
pub use chains::{Acceptance, ChainBlock, ChainShape, Chains, MOST_REPLICAS};
pub use generator::Generator;
pub use importance::{SampleError, SampleKey, SampleRun, WeightedBatch};
pub use method::{Method, MethodChoice, PILOT_SAMPLES, TRIAL_SEED};
pub use moves::Effort;
pub use population_tuning::{CONDITIONAL_FRACTIONS, PILOT_ROWS, PopulationGoal, TunedPopulations};
pub use populations::{POPULATIONS, Populations};
pub use probe::{FEWEST_JUDGED, PROBES, Place, Probe};
pub use resampling::{Together, WINDOWS, resampled};
pub use wide_latents::WideLatents;
