//! Normalizing flows: a prior, and the bijectors that carry it to the configurations.
//!
//! One bijector a file, and a folder for continuous flows. All obey one trait and pass one generic test suite (`tests/bijectors.rs`). Direction: *forward*
//! carries a latent to a configuration (sampling); *inverse* carries a configuration to its latent (the f of the
//! founding note). Coordinates and log-determinants are f64 throughout; only conditioners have a precision of their own.

mod act_norm;
mod additive;
mod affine;
mod architecture;
mod attention;
mod autoregressive;
mod bijector;
mod conditioner;
mod continuous;
mod coupling;
#[cfg(feature = "cuda")]
pub mod cuda;
mod draw;
mod error;
mod fused;
mod gin;
mod global_affine;
mod helmert;
mod householder;
mod lu;
mod made;
mod normalizing_flow;
mod parameters;
mod permutation;
mod prior;
mod score;
mod smooth;
mod spec;
mod spline;
mod temperature;
mod weights;

pub use architecture::{Architecture, ArchitectureKind, Mixing};
pub use bijector::Bijector;
pub use conditioner::{ConditionerKind, ConditionerSpec, Tokens};
pub use continuous::Continuous;
pub use draw::{FlowDraws, LatentAddress, ROWS_OF_A_CALL};
pub use error::FlowError;
pub use normalizing_flow::Flow;
pub use prior::{Prior, PriorComponent};
pub use score::FlowScores;
pub use spec::{AutoregressiveKind, ContinuousSpec, CouplingSpec, FieldSpec, FlowSpec, LayerSpec, ParticleShape};
pub use temperature::{Tau, TemperatureRange};
pub use weights::Weights;

pub use crate::compute::{Direction, Precision};
pub use crate::coords::CoordinateKind;
