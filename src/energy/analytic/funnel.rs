//! The funnel of Neal, "Slice sampling", Annals of Statistics 31, 705 (2003).

use super::finite;
use crate::compute::fused::{InstructionSet, Lane, Number, ROWS};
use crate::energy::lanewise::Lanewise;
use crate::energy::potential::EnergyError;
use crate::math::special::HALF_LOG_TWO_PI;

/// u(x) = −log p(x) of x₀ ~ N(0, σ²) and, given it, xᵢ ~ N(0, exp(x₀)) in variance for all others: log Z(τ = 1) = 0.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Funnel {
    /// σ, the standard deviation of the first coordinate.
    pub standard_deviation: f64,
    /// Number of coordinates, the first of which is the logarithm of the others' variance.
    pub dimension: usize,
}

impl Default for Funnel {
    fn default() -> Self {
        Self { standard_deviation: 3.0, dimension: 10 }
    }
}

impl Funnel {
    pub(super) fn checked(self) -> Result<Self, EnergyError> {
        super::dimension(self.dimension, 2)?;
        finite("standard_deviation", self.standard_deviation, true)?;
        Ok(self)
    }

    pub(super) fn extent(&self) -> Vec<(f64, f64)> {
        // The others' width is that of the middle of the funnel: their own standard deviation, exp(σ²/4), belongs to its
        // mouth, and most of what it spans has hardly any density.
        let mut extent = vec![(0.0, 1.0); self.dimension];
        extent[0] = (0.0, self.standard_deviation);
        extent
    }
}

impl Lanewise for Funnel {
    fn name(&self) -> &'static str {
        "Funnel"
    }

    fn dimension(&self) -> usize {
        self.dimension
    }

    #[inline(always)]
    fn evaluate<I: InstructionSet>(&self, x: &[Lane<f64>], energy: &mut Lane<f64>, gradient: Option<&mut [Lane<f64>]>) {
        let (neck, rest) = (&x[0], &x[1..]);
        let stiffness = self.standard_deviation.powi(-2);
        let others = rest.len() as f64;
        let constant = self.dimension as f64 * HALF_LOG_TWO_PI + self.standard_deviation.ln();
        let (mut precision, mut squares) = ([0.0; ROWS], [0.0; ROWS]);
        for r in 0..ROWS {
            precision[r] = (-neck[r]).exponential::<I>();
        }
        for y in rest {
            for r in 0..ROWS {
                squares[r] += y[r] * y[r];
            }
        }
        for r in 0..ROWS {
            let first = 0.5 * (stiffness * neck[r] * neck[r] + others * neck[r]);
            energy[r] = constant + first + 0.5 * precision[r] * squares[r];
        }
        if let Some(gradient) = gradient {
            for r in 0..ROWS {
                gradient[0][r] = stiffness * neck[r] + 0.5 * (others - precision[r] * squares[r]);
            }
            for (g, y) in gradient[1..].iter_mut().zip(rest) {
                for r in 0..ROWS {
                    g[r] = precision[r] * y[r];
                }
            }
        }
    }
}
