//! Auxiliary variables beside a system's coordinates.

use super::transform::{CoordinateKind, CoordinateTransform, CoordinatesError, CoordinatesSpec};
use crate::energy::analytic::MAX_DIMENSION;
use crate::math::special::HALF_LOG_TWO_PI;
use crate::math::{Purpose, Randoms};
use std::sync::Arc;

/// Coordinates y of a system, and after them k auxiliary variables a, on which positions do not depend (augmented flows: Huang,
/// Dinh and Courville, 2020). The target of (y, a) is that of y times N(a; 0, I), whose logarithm is in ladj: log Z is that of the
/// system, and log weights are exact. What a flow has as log p(x) is log p(x, a) − log N(a; 0, I), of one a.
///
/// Positions do not say what a was. Those that come from elsewhere get an a that is drawn from N(0, I), as a function of their
/// bits, so that the same positions always have the same density. The transform has no form for a GPU.
#[derive(Clone, Debug)]
pub struct AugmentedCoordinates {
    system: Arc<dyn CoordinateTransform>,
    auxiliary: usize,
    kinds: Vec<CoordinateKind>,
}

/// The same as it is stored.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AugmentedSpec {
    pub(super) system: Box<CoordinatesSpec>,
    pub(super) auxiliary: usize,
}

impl AugmentedCoordinates {
    /// Coordinates with so many auxiliary variables, one at least.
    pub fn new(system: Arc<dyn CoordinateTransform>, auxiliary: usize) -> Result<Self, CoordinatesError> {
        if !(1..=MAX_DIMENSION).contains(&auxiliary) || system.auxiliary() > 0 {
            return Err(CoordinatesError::Stored(format!(
                "{auxiliary} auxiliary variables: there must be from 1 to {MAX_DIMENSION}, and none already"
            )));
        }
        let kinds =
            system.kinds().iter().copied().chain(std::iter::repeat_n(CoordinateKind::Real, auxiliary)).collect();
        Ok(Self { system, auxiliary, kinds })
    }

    fn own(&self) -> usize {
        self.system.kinds().len()
    }
}

/// Coordinates with so many auxiliary variables beside them; as they are with none.
pub fn with_auxiliary(
    system: Arc<dyn CoordinateTransform>,
    auxiliary: usize,
) -> Result<Arc<dyn CoordinateTransform>, CoordinatesError> {
    match auxiliary {
        0 => Ok(system),
        _ => Ok(Arc::new(AugmentedCoordinates::new(system, auxiliary)?)),
    }
}

/// log N(a; 0, variance·I).
pub(super) fn log_normal(auxiliary: &[f64], variance: f64) -> f64 {
    let constant = HALF_LOG_TWO_PI + 0.5 * variance.ln();
    auxiliary.iter().map(|a| -0.5 * a * a / variance - constant).sum()
}

/// A number for positions, by their bits.
fn digest(x: &[f64]) -> u64 {
    x.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, x| {
        let mixed = (hash ^ x.to_bits()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 29)
    })
}

impl CoordinateTransform for AugmentedCoordinates {
    fn kinds(&self) -> &[CoordinateKind] {
        &self.kinds
    }

    fn position_dimension(&self) -> usize {
        self.system.position_dimension()
    }

    fn auxiliary(&self) -> usize {
        self.auxiliary
    }

    fn to_positions(&self, y: &[f64], x: &mut [f64]) -> f64 {
        let (y, auxiliary) = y.split_at(self.own());
        self.system.to_positions(y, x) + log_normal(auxiliary, 1.0)
    }

    fn to_coordinates(&self, x: &[f64], y: &mut [f64]) -> f64 {
        let (y, auxiliary) = y.split_at_mut(self.own());
        let mut random = Randoms::new(digest(x), Purpose::Auxiliary, 0);
        auxiliary.fill_with(|| random.normal());
        self.system.to_coordinates(x, y) + log_normal(auxiliary, 1.0)
    }

    fn pull_back(&self, y: &[f64], x: &[f64], gradient_x: &mut [f64], gradient_y: &mut [f64]) {
        let (y, auxiliary) = y.split_at(self.own());
        let (of_system, of_auxiliary) = gradient_y.split_at_mut(self.own());
        self.system.pull_back(y, x, gradient_x, of_system);
        of_auxiliary.copy_from_slice(auxiliary);
    }

    fn spec(&self) -> CoordinatesSpec {
        CoordinatesSpec::Augmented(AugmentedSpec { system: Box::new(self.system.spec()), auxiliary: self.auxiliary })
    }

    fn description(&self) -> String {
        format!(
            "{}; beside them {} auxiliary variables of a standard normal distribution, which positions do not depend on",
            self.system.description(),
            self.auxiliary
        )
    }
}
