//! The potential of Müller and Brown, Theor. Chim. Acta 53, 75 (1979).

use super::finite;
use crate::compute::fused::{InstructionSet, Lane, Number, ROWS};
use crate::energy::lanewise::Lanewise;
use crate::energy::potential::EnergyError;
use crate::energy::tables::{PotentialKind, PotentialTables};

const AMPLITUDE: [f64; 4] = [-200.0, -100.0, -170.0, 15.0];
const XX: [f64; 4] = [-1.0, -1.0, -6.5, 0.7];
const XY: [f64; 4] = [0.0, 0.0, 11.0, 0.6];
const YY: [f64; 4] = [-10.0, -10.0, -6.5, 0.7];
const X: [f64; 4] = [1.0, 0.0, -0.5, -1.0];
const Y: [f64; 4] = [0.0, 0.5, 1.5, 1.0];

/// u = k·(V(x, y) + ½(z² + …)) with V the four-Gaussian surface of Müller and Brown.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MullerBrown {
    /// k; 0.1 is the scaling of Noé et al. (2019).
    pub scale: f64,
    /// Number of coordinates; those after the second are harmonic.
    pub dimension: usize,
}

impl Default for MullerBrown {
    fn default() -> Self {
        Self { scale: 0.1, dimension: 2 }
    }
}

impl MullerBrown {
    pub(super) fn checked(self) -> Result<Self, EnergyError> {
        super::dimension(self.dimension, 2)?;
        finite("scale", self.scale, true)?;
        Ok(self)
    }

    pub(super) fn extent(&self) -> Vec<(f64, f64)> {
        let mut extent = vec![(0.0, 1.0 / self.scale.sqrt()); self.dimension];
        extent[0] = (-0.2, 0.6);
        extent[1] = (0.8, 0.6);
        extent
    }
}

impl Lanewise for MullerBrown {
    fn name(&self) -> &'static str {
        "MullerBrown"
    }

    fn dimension(&self) -> usize {
        self.dimension
    }

    fn tables(&self) -> Option<PotentialTables> {
        self.clone().checked().ok()?;
        let mut numbers = vec![self.scale];
        (0..4).for_each(|j| numbers.extend([AMPLITUDE[j], XX[j], XY[j], YY[j], X[j], Y[j]]));
        Some(PotentialTables::analytic(PotentialKind::MullerBrown, self.dimension, &[], numbers))
    }

    #[inline(always)]
    fn evaluate<I: InstructionSet>(&self, x: &[Lane<f64>], energy: &mut Lane<f64>, gradient: Option<&mut [Lane<f64>]>) {
        let (mut v, mut vx, mut vy) = ([0.0; ROWS], [0.0; ROWS], [0.0; ROWS]);
        for j in 0..4 {
            for r in 0..ROWS {
                let (dx, dy) = (x[0][r] - X[j], x[1][r] - Y[j]);
                let exponent = XX[j] * dx * dx + XY[j] * dx * dy + YY[j] * dy * dy;
                let term = AMPLITUDE[j] * exponent.exponential::<I>();
                v[r] += term;
                vx[r] += term * (2.0 * XX[j] * dx + XY[j] * dy);
                vy[r] += term * (XY[j] * dx + 2.0 * YY[j] * dy);
            }
        }
        for z in &x[2..] {
            for r in 0..ROWS {
                v[r] += 0.5 * z[r] * z[r];
            }
        }
        for r in 0..ROWS {
            energy[r] = self.scale * v[r];
        }
        if let Some(gradient) = gradient {
            for r in 0..ROWS {
                gradient[0][r] = self.scale * vx[r];
                gradient[1][r] = self.scale * vy[r];
            }
            for (g, z) in gradient[2..].iter_mut().zip(&x[2..]) {
                for r in 0..ROWS {
                    g[r] = self.scale * z[r];
                }
            }
        }
    }
}
