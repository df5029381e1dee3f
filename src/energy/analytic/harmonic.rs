//! Independent harmonic oscillators.

use super::{MAX_DIMENSION, finite};
use crate::compute::fused::{InstructionSet, Lane, ROWS};
use crate::energy::lanewise::Lanewise;
use crate::energy::potential::EnergyError;
use crate::energy::tables::{PotentialKind, PotentialTables};

/// u(x) = ½ Σ kᵢ (xᵢ − cᵢ)². log Z(τ) = ½ Σ log(2πτ/kᵢ).
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Harmonic {
    /// kᵢ, one for each coordinate, all positive.
    pub stiffness: Vec<f64>,
    /// cᵢ, as many as there are stiffnesses.
    pub centre: Vec<f64>,
}

impl Default for Harmonic {
    /// Two oscillators of stiffness 1 and 4 around the origin.
    fn default() -> Self {
        Self { stiffness: vec![1.0, 4.0], centre: vec![0.0, 0.0] }
    }
}

impl Harmonic {
    pub(super) fn checked(self) -> Result<Self, EnergyError> {
        super::dimension(self.stiffness.len().min(MAX_DIMENSION + 1), 1)?;
        if self.centre.len() != self.stiffness.len() {
            return Err(EnergyError::Definition(format!(
                "centre has {} numbers and stiffness {}; they must be as many",
                self.centre.len(),
                self.stiffness.len()
            )));
        }
        self.stiffness.iter().try_for_each(|&k| finite("stiffness", k, true))?;
        self.centre.iter().try_for_each(|&c| finite("centre", c, false))?;
        Ok(self)
    }

    pub(super) fn extent(&self) -> Vec<(f64, f64)> {
        self.centre.iter().zip(&self.stiffness).map(|(&c, &k)| (c, 1.0 / k.sqrt())).collect()
    }
}

impl Lanewise for Harmonic {
    fn name(&self) -> &'static str {
        "Harmonic"
    }

    fn dimension(&self) -> usize {
        self.stiffness.len()
    }

    fn tables(&self) -> Option<PotentialTables> {
        self.clone().checked().ok()?;
        let numbers = self.stiffness.iter().chain(&self.centre).copied().collect();
        Some(PotentialTables::analytic(PotentialKind::Harmonic, self.stiffness.len(), &[], numbers))
    }

    #[inline(always)]
    fn evaluate<I: InstructionSet>(&self, x: &[Lane<f64>], energy: &mut Lane<f64>, gradient: Option<&mut [Lane<f64>]>) {
        let terms = || x.iter().zip(&self.stiffness).zip(&self.centre);
        *energy = [0.0; ROWS];
        for ((x, k), c) in terms() {
            for r in 0..ROWS {
                energy[r] += 0.5 * k * (x[r] - c) * (x[r] - c);
            }
        }
        if let Some(gradient) = gradient {
            for (((x, k), c), g) in terms().zip(gradient) {
                for r in 0..ROWS {
                    g[r] = k * (x[r] - c);
                }
            }
        }
    }
}
