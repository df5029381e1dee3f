//! Benchmark potentials with known answers, in reduced units.

mod clusters;
mod double_well;
mod funnel;
mod gaussian_mixture;
mod harmonic;
mod many_well;
mod muller_brown;
mod particle_dimer;
mod particles;

pub use clusters::{DoubleWellCluster, LennardJonesCluster};
pub use double_well::DoubleWell;
pub use funnel::Funnel;
pub use gaussian_mixture::GaussianMixture;
pub use harmonic::Harmonic;
pub use many_well::ManyWell;
pub use muller_brown::MullerBrown;
pub use particle_dimer::ParticleDimer;
pub use particles::ParticleSymmetry;

use super::potential::{EnergyError, Potential};
use std::sync::Arc;

/// An analytic potential by its parameters.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnalyticPotential {
    Harmonic(Harmonic),
    DoubleWell(DoubleWell),
    MullerBrown(MullerBrown),
    ManyWell(ManyWell),
    GaussianMixture(GaussianMixture),
    DoubleWellCluster(DoubleWellCluster),
    LennardJonesCluster(LennardJonesCluster),
    ParticleDimer(ParticleDimer),
    Funnel(Funnel),
}

/// The largest dimension of an analytic potential.
pub const MAX_DIMENSION: usize = 4096;

impl AnalyticPotential {
    /// The benchmark potentials of the literature, by the names that they are known under.
    pub fn built_in(name: &str) -> Option<Self> {
        Some(match name {
            "harmonic" => Self::Harmonic(Harmonic::default()),
            "double-well" => Self::DoubleWell(DoubleWell::default()),
            "muller-brown" => Self::MullerBrown(MullerBrown::default()),
            "many-well-32" => Self::ManyWell(ManyWell::default()),
            "gaussian-mixture-9" => Self::GaussianMixture(GaussianMixture::nine()),
            "gaussian-mixture-40" => Self::GaussianMixture(GaussianMixture::forty()),
            "dw4" => Self::DoubleWellCluster(DoubleWellCluster::default()),
            "lj13" => Self::LennardJonesCluster(LennardJonesCluster::default()),
            "lj55" => Self::LennardJonesCluster(LennardJonesCluster { particles: 55, ..Default::default() }),
            "particle-dimer" => Self::ParticleDimer(ParticleDimer::default()),
            "funnel-10" => Self::Funnel(Funnel::default()),
            _ => return None,
        })
    }

    /// The names that [`AnalyticPotential::built_in`] knows.
    pub const BUILT_IN: [&'static str; 11] = [
        "double-well",
        "dw4",
        "funnel-10",
        "gaussian-mixture-40",
        "gaussian-mixture-9",
        "harmonic",
        "lj13",
        "lj55",
        "many-well-32",
        "muller-brown",
        "particle-dimer",
    ];

    pub(super) fn build(&self) -> Result<Arc<dyn Potential>, EnergyError> {
        Ok(match self {
            Self::Harmonic(p) => Arc::new(p.clone().checked()?),
            Self::DoubleWell(p) => Arc::new(p.clone().checked()?),
            Self::MullerBrown(p) => Arc::new(p.clone().checked()?),
            Self::ManyWell(p) => Arc::new(p.clone().checked()?),
            Self::GaussianMixture(p) => Arc::new(p.clone().checked()?),
            Self::DoubleWellCluster(p) => Arc::new(p.clone().checked()?),
            Self::LennardJonesCluster(p) => Arc::new(p.clone().checked()?),
            Self::ParticleDimer(p) => Arc::new(p.clone().checked()?),
            Self::Funnel(p) => Arc::new(p.clone().checked()?),
        })
    }

    /// Where the potential's low energies lie: (centre, half width) of each coordinate. A flow that starts from a
    /// standard normal is scaled by this.
    pub fn extent(&self) -> Vec<(f64, f64)> {
        match self {
            Self::Harmonic(p) => p.extent(),
            Self::DoubleWell(p) => p.extent(),
            Self::MullerBrown(p) => p.extent(),
            Self::ManyWell(p) => p.extent(),
            Self::GaussianMixture(p) => p.extent(),
            Self::DoubleWellCluster(p) => p.extent(),
            Self::LennardJonesCluster(p) => p.extent(),
            Self::ParticleDimer(p) => p.extent(),
            Self::Funnel(p) => p.extent(),
        }
    }

    /// A configuration of finite energy to start a simulation from.
    pub fn start(&self) -> Vec<f64> {
        match self {
            Self::DoubleWellCluster(p) => p.start(),
            Self::LennardJonesCluster(p) => p.start(),
            Self::ParticleDimer(p) => p.start(),
            _ => self.extent().iter().map(|e| e.0).collect(),
        }
    }

    /// What can be done to the potential's particles without a change of U; nothing if it has none.
    pub fn particle_symmetry(&self) -> Option<ParticleSymmetry> {
        match self {
            Self::DoubleWellCluster(p) => Some(p.symmetry()),
            Self::LennardJonesCluster(p) => Some(p.symmetry()),
            Self::ParticleDimer(p) => Some(p.symmetry()),
            _ => None,
        }
    }
}

/// That a parameter is a finite number, and positive where it must be.
fn finite(name: &str, value: f64, positive: bool) -> Result<(), EnergyError> {
    if !value.is_finite() || (positive && value <= 0.0) {
        let kind = if positive { "a positive finite number" } else { "a finite number" };
        return Err(EnergyError::Definition(format!("{name} is {value}; it must be {kind}")));
    }
    Ok(())
}

/// That a dimension is at least `least` and not absurd.
fn dimension(value: usize, least: usize) -> Result<(), EnergyError> {
    if (least..=MAX_DIMENSION).contains(&value) {
        return Ok(());
    }
    Err(EnergyError::Definition(format!("dimension is {value}; it must be from {least} to {MAX_DIMENSION}")))
}
