//! The many-well of Midgley et al., "Flow annealed importance sampling bootstrap" (ICLR 2023): independent copies of a
//! two-dimensional double well, 2^(d/2) modes in d dimensions.

use crate::energy::potential::{EnergyError, Pointwise};

const QUARTIC: f64 = 1.0;
const QUADRATIC: f64 = -6.0;
const LINEAR: f64 = -0.5;

/// u = Σ over pairs (x, y) of x⁴ − 6x² − ½x + ½y², the pairs being consecutive coordinates.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManyWell {
    /// Number of coordinates, even.
    pub dimension: usize,
}

impl Default for ManyWell {
    fn default() -> Self {
        Self { dimension: 32 }
    }
}

impl ManyWell {
    pub(super) fn checked(self) -> Result<Self, EnergyError> {
        super::dimension(self.dimension, 2)?;
        if self.dimension % 2 == 1 {
            return Err(EnergyError::Definition(format!("dimension is {}; it must be even", self.dimension)));
        }
        Ok(self)
    }

    pub(super) fn extent(&self) -> Vec<(f64, f64)> {
        (0..self.dimension).map(|i| (0.0, if i % 2 == 0 { 1.7 } else { 1.0 })).collect()
    }
}

impl Pointwise for ManyWell {
    fn name(&self) -> &'static str {
        "ManyWell"
    }

    fn dimension(&self) -> usize {
        self.dimension
    }

    fn value(&self, x: &[f64], gradient: Option<&mut [f64]>) -> f64 {
        if let Some(gradient) = gradient {
            for (g, p) in gradient.chunks_exact_mut(2).zip(x.chunks_exact(2)) {
                g[0] = 4.0 * QUARTIC * p[0] * p[0] * p[0] + 2.0 * QUADRATIC * p[0] + LINEAR;
                g[1] = p[1];
            }
        }
        x.chunks_exact(2)
            .map(|p| ((QUARTIC * p[0] * p[0] + QUADRATIC) * p[0] + LINEAR) * p[0] + 0.5 * p[1] * p[1])
            .sum()
    }
}
