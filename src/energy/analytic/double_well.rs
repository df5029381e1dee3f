//! The asymmetric double well of Noé, Olsson, Köhler and Wu, Science 365, eaaw1147 (2019), as their code has it.

use super::finite;
use crate::energy::potential::{EnergyError, Pointwise};

/// u(x, y, …) = a₄x⁴ − a₂x² + a₁x + ½k(y² + …).
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DoubleWell {
    pub a4: f64,
    pub a2: f64,
    pub a1: f64,
    /// Stiffness of the harmonic coordinates.
    pub k: f64,
    /// Number of coordinates, the first of which is the double well.
    pub dimension: usize,
}

impl Default for DoubleWell {
    fn default() -> Self {
        Self { a4: 1.0, a2: 6.0, a1: 1.0, k: 1.0, dimension: 2 }
    }
}

impl DoubleWell {
    pub(super) fn checked(self) -> Result<Self, EnergyError> {
        super::dimension(self.dimension, 1)?;
        finite("a4", self.a4, true)?;
        finite("a2", self.a2, false)?;
        finite("a1", self.a1, false)?;
        finite("k", self.k, true)?;
        Ok(self)
    }

    pub(super) fn extent(&self) -> Vec<(f64, f64)> {
        let wells = (self.a2 / (2.0 * self.a4)).max(0.0).sqrt();
        let mut extent = vec![(0.0, 1.0 / self.k.sqrt()); self.dimension];
        extent[0] = (0.0, wells.max(self.a4.powf(-0.25)));
        extent
    }
}

impl Pointwise for DoubleWell {
    fn name(&self) -> &'static str {
        "DoubleWell"
    }

    fn dimension(&self) -> usize {
        self.dimension
    }

    fn value(&self, x: &[f64], gradient: Option<&mut [f64]>) -> f64 {
        let (q, rest) = (x[0], &x[1..]);
        if let Some(gradient) = gradient {
            gradient[0] = 4.0 * self.a4 * q * q * q - 2.0 * self.a2 * q + self.a1;
            gradient[1..].iter_mut().zip(rest).for_each(|(g, y)| *g = self.k * y);
        }
        let well = ((self.a4 * q * q - self.a2) * q + self.a1) * q;
        well + 0.5 * self.k * rest.iter().map(|y| y * y).sum::<f64>()
    }
}
