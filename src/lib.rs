//! boltzflow: trained normalizing flows (Boltzmann generators) behind a gRPC service.
//!
//! The crate is a house of floors, and imports only point down (`tests/floors.rs` holds that):
//!
//! | floor | what lives there |
//! |---|---|
//! | [`cli`] | the command line, one subcommand a file |
//! | [`config`] | the server's configuration |
//! | [`server`] | one gRPC service a file, layers, health, the admin port |
//! | [`scheduler`] | workers that take jobs from the queue, under leases |
//! | [`engine`] | loaded models, and turns on the device |
//! | [`store`] | the database and the artifacts |
//! | [`metrics`] | Prometheus metrics, by name |
//! | [`contract`] | messages of the gRPC contract, and their conversion |
//! | [`train`] | objectives, optimizer, the pure training step, and the run around it |
//! | [`sample`] | trained generators, weighted batches, importance sampling |
//! | [`thermo`] | effective sample size, Pareto diagnostics, free energies, MBAR, profiles, bootstrap |
//! | [`flow`] | bijectors, conditioners, priors; a flow is a prior and its bijectors |
//! | [`coords`] | the flow's coordinates: Cartesian to internal and back, and the target in them |
//! | [`simulate`] | Langevin dynamics, Monte Carlo and replica exchange of many walkers |
//! | [`trajectory`] | files of trajectories: XTC, DCD, PDB, Amber's NetCDF |
//! | [`energy`] | potentials: analytic ones, and molecular mechanics read from OpenMM System XML |
//! | [`compute`] | devices, and fused kernels as candle custom operations |
//! | [`math`] | counter-based random numbers, log-sum-exp, special functions |

// What is printed goes by `cli/say.rs`, which does not panic where nobody reads.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod cli;
pub mod compute;
pub mod config;
pub mod contract;
pub mod coords;
pub mod energy;
pub mod engine;
pub mod flow;
pub mod math;
pub mod metrics;
pub mod sample;
pub mod scheduler;
pub mod server;
pub mod simulate;
pub mod store;
pub mod thermo;
pub mod train;
pub mod trajectory;
