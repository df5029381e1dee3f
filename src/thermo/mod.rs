//! What weighted samples say: how far to trust them, and the free energies that they give.

mod bootstrap;
mod collective_variable;
mod free_energy;
mod mbar;
mod mbar_sums;
mod pareto;
mod weights;

pub use bootstrap::Estimate;
pub use collective_variable::{CollectiveVariable, CollectiveVariableError};
pub use free_energy::{FreeEnergyAccumulator, FreeEnergyQuery, FreeEnergyReport, Profile, ProfileQuery, StateQuery};
pub use mbar::{MbarError, MbarSolution, solve as solve_mbar};
pub use pareto::{pareto_k, pareto_k_threshold};
pub use weights::{WeightAccumulator, WeightSummary};
