//! What every potential can do.

use super::tables::PotentialTables;
use std::fmt::Debug;

/// The molar gas constant R = k_B·N_A in kJ/(mol·K), from the exact SI values of 2019.
pub const MOLAR_GAS_CONSTANT: f64 = 8.314_462_618_153_24e-3;

/// The unit of a system's energies, and with it the unit of its temperatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnergyScale {
    /// Energies without unit, k_B = 1: a temperature τ is a multiple of the temperature that energies are measured in.
    Reduced,
    /// Energies in kJ/mol, lengths in nm, temperatures in kelvin.
    KilojoulePerMole,
}

impl EnergyScale {
    /// k_B·T in the scale's energy unit.
    pub fn kt(self, temperature: f64) -> f64 {
        match self {
            Self::Reduced => temperature,
            Self::KilojoulePerMole => MOLAR_GAS_CONSTANT * temperature,
        }
    }
}

/// Why energies could not be computed at all. A configuration whose energy is infinite or NaN is not an error here.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EnergyError {
    #[error("{what} holds {actual} numbers, but {expected} are needed; pass rows of the system's dimension")]
    Shape { what: &'static str, expected: usize, actual: usize },
    #[error("{0}")]
    Definition(String),
    #[error("{force} is not supported: {reason}")]
    Unsupported { force: String, reason: String },
}

/// A potential energy U(x) over configurations of a fixed dimension d, evaluated in batches.
///
/// Positions are rows of d numbers (3N for molecules: x, y, z of each atom, in nm). Energies and gradients (∂U/∂x, the
/// negative of the force) are in the potential's unit. An overlapping or non-finite configuration has an energy that is
/// infinite or NaN, never a panic.
pub trait Potential: Send + Sync + Debug {
    /// The number d of coordinates of a configuration.
    fn dimension(&self) -> usize;

    /// Energies (n) of positions (n, d), and gradients (n, d) if a place for them is given.
    fn evaluate(
        &self,
        positions: &[f64],
        energies: &mut [f64],
        gradients: Option<&mut [f64]>,
    ) -> Result<(), EnergyError>;

    /// The names of the terms that the energy is a sum of.
    fn term_names(&self) -> Vec<String>;

    /// Energies (n, terms) of positions (n, d), term by term.
    fn evaluate_terms(&self, positions: &[f64], energies: &mut [f64]) -> Result<(), EnergyError>;

    /// The potential as tables for a processor that evaluates it natively, if there is such a form of it.
    fn tables(&self) -> Option<PotentialTables> {
        None
    }

    /// Whether U is the same after every translation and rotation of the whole configuration.
    fn is_rigid_invariant(&self) -> bool {
        false
    }
}

/// That `positions` are `rows` rows of `d` numbers, and that gradients, if wanted, have a place for each of them.
pub(crate) fn check_batch(
    d: usize,
    positions: &[f64],
    rows: usize,
    gradients: Option<&[f64]>,
) -> Result<(), EnergyError> {
    let expected = rows.saturating_mul(d);
    let shape =
        |what, actual| if actual == expected { Ok(()) } else { Err(EnergyError::Shape { what, expected, actual }) };
    shape("positions", positions.len())?;
    gradients.map_or(Ok(()), |g| shape("gradients", g.len()))
}
