//! Training: objectives (one a file), the optimizer, the pure step, and the run around it.

mod adam;
mod checkpoint;
mod coordinate_entropy;
mod course;
mod coverage;
mod data;
mod flow_matching;
mod latents;
mod log_variance;
mod maximum_likelihood;
mod measuring;
mod own_draws;
mod own_samples;
mod plan;
mod recipe;
mod replay;
mod reverse_kl;
#[cfg(feature = "cuda")]
mod reverse_kl_device;
mod run;
mod schedule;
mod temperature_gradient;
mod trainer;
mod transport;

/// Frames that a dataset to train on has at least.
pub const FEWEST_FRAMES: u64 = data::HELD_OUT as u64;

pub use adam::AdamSettings;
pub use checkpoint::CheckpointError;
pub use coordinate_entropy::VariableRange;
pub use data::TrainingData;
pub use plan::{Budget, EnergyCut, Stage, TrainingPlan, Validation};
pub use recipe::{Recipe, default_plan};
pub use replay::{Annealing, Replay};
pub use run::{Directive, Observer, Outcome, Progress, RunError, StopReason, run};
pub use schedule::{Ramp, RampShape};
pub use trainer::{Step, StepReport, TrainError, Trainer};
pub use transport::Transport;
