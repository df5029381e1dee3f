//! What weighted samples say: how far to trust them, and the free energies that they give.

mod bar;
mod bootstrap;
mod collective_variable;
mod density;
mod difference;
mod free_energy;
mod joint;
mod mbar;
mod pareto;
mod profile;
mod resampling;
mod series;
mod smoothing;
mod unseen;
mod weights;

pub use bar::{BarError, bar};
pub use bootstrap::Estimate;
pub use collective_variable::{
    BoundVariable, CollectiveVariable, CollectiveVariableError, DEEPEST, DEFAULT_COORDINATION_POWER,
    split_outside_brackets,
};
pub use density::{BandwidthRule, CELLS as KERNEL_DENSITY_CELLS, KernelDensity};
pub use difference::{Difference, DifferenceEstimate, DifferenceSettings, EndSamples, difference};
pub use free_energy::{ChangedWeights, FreeEnergyAccumulator, FreeEnergyQuery, FreeEnergyReport, StateQuery};
pub use joint::{JointEstimate, JointReport, JointSamples, JointTarget, joint};
pub use mbar::{
    MbarAverage, MbarBootstrap, MbarError, MbarSettings, MbarSolution, solve as solve_mbar,
    solve_with as solve_mbar_with,
};
pub use pareto::{pareto_k, pareto_k_threshold};
pub use profile::{KernelProfile, Profile, ProfileAxis, ProfileQuery};
pub use series::statistical_inefficiency;
pub use unseen::UnseenPlace;
pub use weights::{WeightAccumulator, WeightSummary};
