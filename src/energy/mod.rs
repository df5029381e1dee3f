//! Potential energies: one trait, batched, in f64, with gradients.
//!
//! [`analytic`] holds the benchmark potentials with known answers; [`openmm`] holds molecular mechanics read from an
//! OpenMM System XML. A [`System`] is a potential together with what is needed to speak of it: its units, its
//! topology, and the digest that names it in every answer.

pub mod analytic;
#[cfg(feature = "cuda")]
pub mod cuda;
mod lanewise;
mod minimise;
pub mod openmm;
mod potential;
mod relax;
mod start;
mod system;
mod tables;

pub use lanewise::Lanewise;
pub use minimise::minimise;
pub use potential::{EnergyError, EnergyScale, MOLAR_GAS_CONSTANT, Potential};
pub use relax::relax;
pub use start::{has_start, own_start};
pub use system::{System, SystemDefinition};
pub use tables::PotentialTables;
