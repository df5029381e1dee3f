//! Cartesian coordinates, shifted and scaled.

use super::tables::{TransformKind, TransformTables};
use super::transform::{CoordinateKind, CoordinateTransform, CoordinatesError, CoordinatesSpec};

/// x = centre + scale·y, coordinate by coordinate.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct CartesianCoordinates {
    centre: Vec<f64>,
    scale: Vec<f64>,
    #[serde(skip)]
    kinds: Vec<CoordinateKind>,
    #[serde(skip)]
    ladj: f64,
}

impl CartesianCoordinates {
    /// From (centre, scale) of each coordinate.
    pub fn new(extent: &[(f64, f64)]) -> Result<Self, CoordinatesError> {
        Self {
            centre: extent.iter().map(|e| e.0).collect(),
            scale: extent.iter().map(|e| e.1).collect(),
            kinds: Vec::new(),
            ladj: 0.0,
        }
        .checked()
    }

    pub(super) fn checked(mut self) -> Result<Self, CoordinatesError> {
        let sound = self.centre.len() == self.scale.len()
            && !self.scale.is_empty()
            && self.centre.iter().all(|c| c.is_finite())
            && self.scale.iter().all(|s| s.is_finite() && *s > 0.0);
        if !sound {
            return Err(CoordinatesError::Stored("centres must be finite and scales positive, as many of each".into()));
        }
        self.kinds = vec![CoordinateKind::Real; self.scale.len()];
        self.ladj = self.scale.iter().map(|s| s.ln()).sum();
        Ok(self)
    }
}

impl CoordinateTransform for CartesianCoordinates {
    fn kinds(&self) -> &[CoordinateKind] {
        &self.kinds
    }

    fn position_dimension(&self) -> usize {
        self.scale.len()
    }

    fn to_positions(&self, y: &[f64], x: &mut [f64]) -> f64 {
        for (((x, y), c), s) in x.iter_mut().zip(y).zip(&self.centre).zip(&self.scale) {
            *x = c + s * y;
        }
        self.ladj
    }

    fn to_coordinates(&self, x: &[f64], y: &mut [f64]) -> f64 {
        for (((x, y), c), s) in x.iter().zip(y).zip(&self.centre).zip(&self.scale) {
            *y = (x - c) / s;
        }
        self.ladj
    }

    fn pull_back(&self, _y: &[f64], _x: &[f64], gradient_x: &mut [f64], gradient_y: &mut [f64]) {
        for ((gy, gx), s) in gradient_y.iter_mut().zip(gradient_x).zip(&self.scale) {
            *gy = *gx * s;
        }
    }

    fn tables(&self) -> Option<TransformTables> {
        // Kinds are known of what was checked.
        if self.kinds.is_empty() || self.kinds.len() != self.scale.len() {
            return None;
        }
        let d = self.scale.len() as u32;
        let mut numbers = vec![self.ladj];
        self.centre.iter().zip(&self.scale).for_each(|(&c, &s)| numbers.extend([c, s, 0.0, 0.0]));
        Some(TransformTables { integers: vec![TransformKind::Cartesian as u32, d, d], numbers })
    }

    fn spec(&self) -> CoordinatesSpec {
        CoordinatesSpec::Cartesian(self.clone())
    }

    fn description(&self) -> String {
        format!("{} Cartesian coordinates, shifted and scaled", self.scale.len())
    }
}
