//! The queue's other end: workers that take jobs, run them, and keep what they make.
//!
//! A job is taken with a lease, which the worker renews while the job runs on a thread of its own. Checkpoints and
//! events are written under the lease's epoch: a worker that lost its lease can change nothing. `run_job` is what all jobs
//! have in common; `train_job`, `simulate_job` and `sample_job` are the three kinds, `data` the frames that they work with,
//! `kept_frames` those that they make, `energy_range` what their energies are between.

mod data;
mod energy_range;
mod kept_frames;
mod run_job;
mod sample_job;
mod simulate_job;
mod train_job;
mod worker;

pub use energy_range::EnergyRange;
pub use run_job::{LoadSystemError, load_system};
pub use worker::{Scheduler, SchedulerSettings};
