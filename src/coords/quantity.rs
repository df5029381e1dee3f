//! A bond, an angle or a torsion as a coordinate of a flow.

use super::tables::Measure;
use super::transform::CoordinateKind;
use crate::math::special::wrap_angle;
use std::f64::consts::PI;

/// What a coordinate measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InternalQuantity {
    /// A distance in nm.
    Bond,
    /// An angle in radian.
    Angle,
    /// A dihedral in radian.
    Torsion,
}

/// One coordinate: value = centre + scale·y. A circular torsion has scale 1 and is wrapped; a real torsion has less than a
/// turn, and only the half circle about `half_circle` (radian) if there is one. A constraint's coordinate is fixed: its value
/// is its centre, and the flow has none for it.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct InternalCoordinate {
    pub quantity: InternalQuantity,
    pub kind: CoordinateKind,
    pub centre: f64,
    pub scale: f64,
    pub half_circle: Option<f64>,
    pub fixed: bool,
}

impl InternalCoordinate {
    /// The value (nm or radian), or nothing if it is outside of the coordinate's domain.
    pub(super) fn within(&self, value: f64) -> Option<f64> {
        match (self.quantity, self.kind) {
            (InternalQuantity::Bond, _) => (value > 0.0).then_some(value),
            (InternalQuantity::Angle, _) => (value > 0.0 && value < PI).then_some(value),
            (InternalQuantity::Torsion, CoordinateKind::Circular) => Some(value),
            (InternalQuantity::Torsion, CoordinateKind::Real) => {
                let (middle, reach) = self.torsion_range();
                ((value - middle).abs() < reach).then_some(value)
            }
        }
    }

    /// The middle of a real torsion's domain, and how far it reaches to both sides.
    pub(super) fn torsion_range(&self) -> (f64, f64) {
        match self.half_circle {
            None => (self.centre, PI),
            Some(middle) => (self.centre + wrap_angle(middle - self.centre), PI / 2.0),
        }
    }

    pub(super) fn measure(&self) -> Measure {
        match (self.quantity, self.kind) {
            _ if self.fixed => Measure::Fixed,
            (InternalQuantity::Bond, _) => Measure::Bond,
            (InternalQuantity::Angle, _) => Measure::Angle,
            (InternalQuantity::Torsion, CoordinateKind::Circular) => Measure::CircularTorsion,
            (InternalQuantity::Torsion, CoordinateKind::Real) => Measure::RealTorsion,
        }
    }

    pub(super) fn coordinate(&self, value: f64) -> f64 {
        match (self.quantity, self.kind) {
            (InternalQuantity::Torsion, CoordinateKind::Circular) => wrap_angle((value - self.centre) / self.scale),
            (InternalQuantity::Torsion, CoordinateKind::Real) => wrap_angle(value - self.centre) / self.scale,
            _ => (value - self.centre) / self.scale,
        }
    }
}
