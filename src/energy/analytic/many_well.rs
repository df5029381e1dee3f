//! The many-well of Midgley et al., "Flow annealed importance sampling bootstrap" (ICLR 2023): independent copies of a
//! two-dimensional double well, 2^(d/2) modes in d dimensions.

use crate::compute::fused::{InstructionSet, Lane, ROWS};
use crate::energy::lanewise::Lanewise;
use crate::energy::potential::EnergyError;
use crate::energy::tables::{PotentialKind, PotentialTables};

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

impl Lanewise for ManyWell {
    fn name(&self) -> &'static str {
        "ManyWell"
    }

    fn dimension(&self) -> usize {
        self.dimension
    }

    fn tables(&self) -> Option<PotentialTables> {
        self.clone().checked().ok()?;
        let numbers = vec![QUARTIC, QUADRATIC, LINEAR];
        Some(PotentialTables::analytic(PotentialKind::ManyWell, self.dimension, &[], numbers))
    }

    #[inline(always)]
    fn evaluate<I: InstructionSet>(&self, x: &[Lane<f64>], energy: &mut Lane<f64>, gradient: Option<&mut [Lane<f64>]>) {
        *energy = [0.0; ROWS];
        for pair in x.chunks_exact(2) {
            let (x, y) = (&pair[0], &pair[1]);
            for r in 0..ROWS {
                energy[r] += ((QUARTIC * x[r] * x[r] + QUADRATIC) * x[r] + LINEAR) * x[r] + 0.5 * y[r] * y[r];
            }
        }
        if let Some(gradient) = gradient {
            for (g, pair) in gradient.chunks_exact_mut(2).zip(x.chunks_exact(2)) {
                for r in 0..ROWS {
                    let x = pair[0][r];
                    g[0][r] = (4.0 * QUARTIC * x * x + 2.0 * QUADRATIC) * x + LINEAR;
                    g[1][r] = pair[1][r];
                }
            }
        }
    }
}
