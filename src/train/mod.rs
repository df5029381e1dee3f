//! Training: objectives (one a file), the optimizer, the pure step, and the run around it.

mod adam;
mod checkpoint;
mod maximum_likelihood;
mod plan;
mod recipe;
mod reverse_kl;
mod run;
mod schedule;
mod trainer;

pub use adam::AdamSettings;
pub use checkpoint::CheckpointError;
pub use plan::{Budget, EnergyCut, Stage, TrainingPlan, Validation};
pub use recipe::default_plan;
pub use run::{Directive, Observer, Outcome, Progress, RunError, StopReason, run};
pub use schedule::{Ramp, RampShape};
pub use trainer::{StepReport, TrainError, Trainer, TrainingData};
