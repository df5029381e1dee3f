//! What an absolute log Z is an integral over.

use super::choose::free_particles;
use super::transform::CoordinatesSpec;
use crate::energy::System;
use std::fmt;

/// The configurations that a density is per volume of. Densities of different measures cannot be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// All position coordinates.
    Positions,
    /// Positions about their mean: the motion of all particles together is left out.
    AboutMean,
    /// Shapes: the six rigid motions are left out, in the measure Π r² sin θ of any Z-matrix.
    Shapes,
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Positions => "all positions",
            Self::AboutMean => "positions about their mean",
            Self::Shapes => "shapes, without rigid motions",
        })
    }
}

impl Measure {
    /// Whether a system's energy is a function of what is left, so that its Boltzmann distribution has a density of this measure.
    pub fn suits(self, system: &System) -> bool {
        match self {
            Self::Positions => true,
            Self::AboutMean => free_particles(system).is_some(),
            Self::Shapes => system.potential().is_rigid_invariant(),
        }
    }
}

impl CoordinatesSpec {
    /// The measure of densities of these coordinates.
    pub fn measure(&self) -> Measure {
        match self {
            Self::Cartesian(_) | Self::Relabelled(_) => Measure::Positions,
            Self::MeanFree(_) => Measure::AboutMean,
            Self::Internal(_) => Measure::Shapes,
            Self::Augmented(augmented) => augmented.system.measure(),
        }
    }
}
