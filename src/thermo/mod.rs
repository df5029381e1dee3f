//! What weighted samples say: how far to trust them, and the free energies that they give.

mod bootstrap;
mod collective_variable;
mod free_energy;
mod mbar;
mod pareto;
mod weights;

pub use bootstrap::Estimate;
pub use collective_variable::{CollectiveVariable, CollectiveVariableError};
pub use free_energy::{FreeEnergyAccumulator, FreeEnergyQuery, FreeEnergyReport, Profile, ProfileQuery, StateQuery};
pub use mbar::{
    MbarAverage, MbarBootstrap, MbarError, MbarSettings, MbarSolution, solve as solve_mbar,
    solve_with as solve_mbar_with,
};
pub use pareto::{pareto_k, pareto_k_threshold};
pub use weights::{WeightAccumulator, WeightSummary};
