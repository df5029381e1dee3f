//! What every coordinate transform can do, and how it is stored.

use super::augmented::{AugmentedCoordinates, AugmentedSpec};
use super::cartesian::CartesianCoordinates;
use super::internal::InternalCoordinates;
use super::mean_free::MeanFreeCoordinates;
use super::relabelled::RelabelledCoordinates;
use super::tables::TransformTables;
use std::fmt::Debug;
use std::sync::Arc;

/// The topology of a flow's coordinate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CoordinateKind {
    /// The real line, in units of its typical spread.
    Real,
    /// An angle in [−π, π).
    Circular,
}

/// Why coordinates cannot be made for a system, or read back.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CoordinatesError {
    #[error("{0}")]
    Unsuitable(String),
    #[error("stored coordinates: {0}")]
    Stored(String),
}

/// A map from a flow's coordinates y (d) to positions x (D), and back.
///
/// `ladj` is always log |det ∂x/∂y|, of the map from y to x. For molecules x is 3N numbers in nm and y has 3N − 6: the
/// determinant is that of the change to the internal measure Π r² sin θ, in which six rigid motions are integrated out.
pub trait CoordinateTransform: Debug + Send + Sync {
    /// The kind of each of the d coordinates.
    fn kinds(&self) -> &[CoordinateKind];

    /// The number D of position coordinates.
    fn position_dimension(&self) -> usize;

    /// The last so many coordinates are auxiliary variables, on which x does not depend and which are standard normal.
    fn auxiliary(&self) -> usize {
        0
    }

    /// One configuration: writes x and returns ladj. A y outside of the map's domain (a bond that is not positive, an
    /// angle beyond [0, π], a torsion beyond its half circle) gives −∞: the target has no density there.
    fn to_positions(&self, y: &[f64], x: &mut [f64]) -> f64;

    /// One configuration: writes y and returns ladj at it.
    fn to_coordinates(&self, x: &[f64], y: &mut [f64]) -> f64;

    /// Turns ∂E/∂x (`gradient_x`, used as scratch space) at x = x(y) into ∂(E − ladj)/∂y.
    fn pull_back(&self, y: &[f64], x: &[f64], gradient_x: &mut [f64], gradient_y: &mut [f64]);

    /// The transform as tables for a processor that computes it natively, if there is such a form of it.
    fn tables(&self) -> Option<TransformTables> {
        None
    }

    /// What to store to make the same transform again.
    fn spec(&self) -> CoordinatesSpec;

    /// One sentence for people: which coordinates these are, and what is confined.
    fn description(&self) -> String;
}

/// A coordinate transform as it is stored with a model.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CoordinatesSpec {
    Cartesian(CartesianCoordinates),
    Internal(InternalCoordinates),
    MeanFree(MeanFreeCoordinates),
    Relabelled(RelabelledCoordinates),
    Augmented(AugmentedSpec),
}

impl CoordinatesSpec {
    /// The transform, for positions of `position_dimension` numbers.
    pub fn build(self, position_dimension: usize) -> Result<Arc<dyn CoordinateTransform>, CoordinatesError> {
        let transform: Arc<dyn CoordinateTransform> = match self {
            Self::Cartesian(cartesian) => Arc::new(cartesian.checked()?),
            Self::Internal(internal) => Arc::new(internal.checked()?),
            Self::MeanFree(mean_free) => Arc::new(mean_free.checked()?),
            Self::Relabelled(relabelled) => Arc::new(relabelled.checked()?),
            Self::Augmented(AugmentedSpec { system, .. }) if matches!(*system, Self::Augmented(_)) => {
                return Err(CoordinatesError::Stored("auxiliary variables are beside auxiliary variables".into()));
            }
            Self::Augmented(AugmentedSpec { system, auxiliary }) => {
                Arc::new(AugmentedCoordinates::new(system.build(position_dimension)?, auxiliary)?)
            }
        };
        if transform.position_dimension() != position_dimension {
            return Err(CoordinatesError::Stored(format!(
                "they are for positions of {} numbers, the system has {position_dimension}",
                transform.position_dimension()
            )));
        }
        Ok(transform)
    }
}
