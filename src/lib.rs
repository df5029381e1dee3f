//! boltzflow: trained normalizing flows (Boltzmann generators) behind a gRPC service.
//!
//! The crate is a house of floors, and imports only point down (`tests/floors.rs` holds that):
//!
//! | floor | what lives there |
//! |---|---|
//! | [`train`] | objectives, optimizer, the pure training step, and the run around it |
//! | [`sample`] | trained generators, weighted batches, importance sampling |
//! | [`thermo`] | effective sample size, Pareto diagnostics, free energies, profiles, bootstrap |
//! | [`flow`] | bijectors, conditioners, priors; a flow is a prior and its bijectors |
//! | [`coords`] | the flow's coordinates: Cartesian to internal and back, and the target in them |
//! | [`energy`] | potentials: analytic ones, and molecular mechanics read from OpenMM System XML |
//! | [`compute`] | devices, and fused kernels as candle custom operations |
//! | [`math`] | counter-based random numbers, log-sum-exp, special functions |

pub mod compute;
pub mod coords;
pub mod energy;
pub mod flow;
pub mod math;
pub mod sample;
pub mod thermo;
pub mod train;
