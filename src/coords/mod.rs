//! The coordinates that flows work in, and the target density in them.
//!
//! A transform carries a flow's coordinates y to positions x and back, with the log-determinant of that map in f64.
//! Molecules use internal coordinates of a Z-matrix (`zmatrix`, `internal`), which leave out the six rigid motions and what
//! `constraints` fix, and keep pairs of `equivalent` atoms in one order, or those beside a `core` in Cartesian coordinates;
//! everything else uses scaled Cartesian coordinates,
//! without the motion of all particles where nothing holds them (`mean_free`), and with identical particles in one order
//! (`relabelled`). Auxiliary variables may stand beside all of these (`augmented`). `choose` makes them for a system, by a `pilot` simulation where nothing else says how far it reaches.

mod augmented;
mod cartesian;
mod choose;
mod choose_molecule;
mod constraints;
mod core;
#[cfg(feature = "cuda")]
pub mod cuda;
mod equivalent;
mod geometry;
mod internal;
mod mean_free;
mod measure;
mod pilot;
mod placement;
mod quantity;
mod relabelled;
mod tables;
mod target;
mod transform;
mod zmatrix;

pub use augmented::{AugmentedCoordinates, AugmentedSpec, with_auxiliary};
pub use cartesian::CartesianCoordinates;
pub use choose::{CoordinateChoice, choose_coordinates, free_particles, preview_kinds};
pub use geometry::{angle, angle_gradient, dihedral, dihedral_gradient, distance, distance_gradient};
pub use internal::InternalCoordinates;
pub use mean_free::{FreeParticles, MeanFreeCoordinates, helmert};
pub use measure::Measure;
pub use quantity::{InternalCoordinate, InternalQuantity};
pub use relabelled::RelabelledCoordinates;
pub use tables::TransformTables;
pub use target::{ReducedTarget, TargetBatch};
pub use transform::{CoordinateKind, CoordinateTransform, CoordinatesError, CoordinatesSpec};
pub use zmatrix::{Base, ZMatrix, ZMatrixRow};
