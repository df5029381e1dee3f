//! Molecular simulation over any [`System`](crate::energy::System): the data that flows are trained on and held
//! against.
//!
//! A [`SimulationPlan`] and a [`Simulation`] are all that a caller sees. The simulation is a pure computation in blocks:
//! its frames depend on the plan, the system, the constraints and the starting positions, and neither on the number of
//! threads, nor on where a block ends, nor on being stored and restored in between.
//!
//! `langevin`, `hybrid` and `metropolis` are the methods. Each moves a cell, some rows of the ensemble that one thread
//! carries through many steps while they stay in its cache (`cell`): replicas only meet when they exchange temperatures
//! (`exchange`). `ensemble` holds the replicas of one ladder of temperatures, `ladder` places one, `simulation` is a pilot
//! that measures what `ladder` needs, and then the run. `noise` draws random numbers in vectors, `constraints` holds
//! distances fixed, `statistics` says how far to trust the result.

mod cell;
mod constraints;
mod ensemble;
mod error;
mod exchange;
mod hybrid;
mod ladder;
mod langevin;
mod mechanics;
mod metropolis;
mod noise;
mod plan;
mod simulation;
mod snapshot;
mod statistics;

pub use cell::Stop;
pub use error::{Fault, PlanError, SimulationError, SnapshotError};
pub use ladder::{RungEnergy, geometric, place_rungs, predicted_acceptance};

pub use plan::{Method, SimulationPlan, Temperatures};
pub use simulation::{Frames, Phase, Progress, Simulation};
pub use statistics::{EnergySeries, ExchangeSummary, RungSummary, Summary, effective_samples};
