//! The asymmetric double well of Noé, Olsson, Köhler and Wu, Science 365, eaaw1147 (2019), as their code has it.

use super::finite;
use crate::compute::fused::{InstructionSet, Lane, ROWS};
use crate::energy::lanewise::Lanewise;
use crate::energy::potential::EnergyError;
use crate::energy::tables::{PotentialKind, PotentialTables};

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

impl Lanewise for DoubleWell {
    fn name(&self) -> &'static str {
        "DoubleWell"
    }

    fn dimension(&self) -> usize {
        self.dimension
    }

    fn tables(&self) -> Option<PotentialTables> {
        self.clone().checked().ok()?;
        let numbers = vec![self.a4, self.a2, self.a1, self.k];
        Some(PotentialTables::analytic(PotentialKind::DoubleWell, self.dimension, &[], numbers))
    }

    #[inline(always)]
    fn evaluate<I: InstructionSet>(&self, x: &[Lane<f64>], energy: &mut Lane<f64>, gradient: Option<&mut [Lane<f64>]>) {
        let (q, rest) = (&x[0], &x[1..]);
        for r in 0..ROWS {
            energy[r] = ((self.a4 * q[r] * q[r] - self.a2) * q[r] + self.a1) * q[r];
        }
        for y in rest {
            for r in 0..ROWS {
                energy[r] += 0.5 * self.k * y[r] * y[r];
            }
        }
        if let Some(gradient) = gradient {
            for r in 0..ROWS {
                gradient[0][r] = (4.0 * self.a4 * q[r] * q[r] - 2.0 * self.a2) * q[r] + self.a1;
            }
            for (g, y) in gradient[1..].iter_mut().zip(rest) {
                for r in 0..ROWS {
                    g[r] = self.k * y[r];
                }
            }
        }
    }
}
