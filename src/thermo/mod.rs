//! What weighted samples say: how far to trust them, and the free energies that they give.

mod bar;
mod bootstrap;
mod collective_variable;
mod difference;
mod free_energy;
mod joint;
mod mbar;
mod mbar_sums;
mod pareto;
mod resampling;
mod series;
mod weights;

pub use bar::{BarError, bar};
pub use bootstrap::Estimate;
pub use collective_variable::{CollectiveVariable, CollectiveVariableError};
pub use difference::{Difference, DifferenceEstimate, DifferenceSettings, EndSamples, difference};
pub use free_energy::{FreeEnergyAccumulator, FreeEnergyQuery, FreeEnergyReport, Profile, ProfileQuery, StateQuery};
pub use joint::{JointEstimate, JointReport, JointSamples, JointTarget, joint};
pub use mbar::{MbarError, MbarSolution, solve as solve_mbar};
pub use pareto::{pareto_k, pareto_k_threshold};
pub use series::statistical_inefficiency;
pub use weights::{WeightAccumulator, WeightSummary};
