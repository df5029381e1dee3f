//! Functions of a configuration that states and profiles are defined by.
//!
//! A [`CollectiveVariable`] is a description: what is stored, sent, and written as text (`text`). Bound to a system, whose
//! atoms and masses it then knows, it is a [`BoundVariable`], which has values and gradients (`bound`). Those with more than
//! a formula have files of their own: `gyration`, `rmsd`, `coordination`, `expression`.

mod bound;
mod coordination;
mod expression;
mod gyration;
mod points;
mod rmsd;
#[cfg(test)]
mod tests;
mod text;

pub use bound::BoundVariable;
pub use text::split_outside_brackets;

use std::collections::BTreeMap;

/// Expressions may have expressions as variables, up to this depth.
pub const DEEPEST: usize = 4;

/// The n of a coordination number whose n is not said.
pub const DEFAULT_COORDINATION_POWER: u32 = 6;

/// Characters of a variable that an error repeats.
const SHOWN: usize = 120;

/// A collective variable of a configuration; stored as the text that it is parsed from. Coordinates and atoms are counted
/// from 0.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum CollectiveVariable {
    /// One position coordinate, in the system's length unit.
    Coordinate { index: usize },
    /// Σ cᵢxᵢ over the first coordinates.
    Linear { coefficients: Vec<f64> },
    /// Distance of two atoms, nm.
    Distance { atoms: [usize; 2] },
    /// Angle of three atoms at the second, radian in [0, π].
    Angle { atoms: [usize; 3] },
    /// Dihedral of four atoms, radian in [−π, π), IUPAC sign; periodic.
    Dihedral { atoms: [usize; 4] },
    /// Radius of gyration of some atoms, of all if none is named: the root of their mass-weighted mean square distance
    /// from their centre of mass, nm.
    RadiusOfGyration { atoms: Vec<usize> },
    /// Root mean square distance of some atoms, of all if none is named, from reference positions (atoms × 3 numbers, nm),
    /// after the superposition that makes it least. Each atom counts the same. nm.
    Rmsd { atoms: Vec<usize>, reference: Vec<f64> },
    /// Σ 1/(1 + (r/r0)ⁿ), which is (1 − (r/r0)ⁿ)/(1 − (r/r0)²ⁿ), over the distances r of an atom of one group and another
    /// atom of the other. r0 is in nm.
    Coordination { groups: [Vec<usize>; 2], r0: f64, power: u32 },
    /// An expression of other variables by name, in OpenMM's expression language; periodic if it has a period.
    Expression { expression: String, variables: BTreeMap<String, CollectiveVariable>, period: Option<f64> },
}

/// Why something is not a collective variable, or not one of a system.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CollectiveVariableError {
    #[error("{variable}: {reason}")]
    Unsuitable { variable: String, reason: String },
    #[error(
        "'{0}' is not a collective variable; use coordinate(0), linear(0.7,-0.7), distance(4,6), angle(4,6,8), \
         dihedral(4,6,8,14), radius_of_gyration(4,6,8), rmsd(4,6,8;REFERENCE), coordination(0,1;2,3;0.35) or \
         expression(a-b;a=distance(0,1);b=distance(1,2)), with coordinates and atoms counted from 0"
    )]
    Syntax(String),
}

impl CollectiveVariable {
    /// The period, if values that far apart are the same.
    pub fn period(&self) -> Option<f64> {
        match self {
            Self::Dihedral { .. } => Some(2.0 * std::f64::consts::PI),
            Self::Expression { period, .. } => *period,
            _ => None,
        }
    }

    /// Whether a value is in [low, high). On a circle the interval is the arc that starts at `low` and goes up to
    /// `high`, across the seam if need be.
    pub fn contains(&self, low: f64, high: f64, value: f64) -> bool {
        match self.period() {
            None => low <= value && value < high,
            Some(period) => (value - low).rem_euclid(period) < arc(low, high, period),
        }
    }

    /// Its text, cut where it is long: references have thousands of numbers.
    pub fn short(&self) -> String {
        shortened(&self.to_string())
    }

    fn unsuitable(&self, reason: impl Into<String>) -> CollectiveVariableError {
        CollectiveVariableError::Unsuitable { variable: self.short(), reason: reason.into() }
    }
}

/// The length of the arc from `low` up to `high`: a whole turn if they are the same point or more than a turn apart.
fn arc(low: f64, high: f64, period: f64) -> f64 {
    if high - low >= period {
        return period;
    }
    let length = (high - low).rem_euclid(period);
    if length == 0.0 { period } else { length }
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= SHOWN {
        return text.to_string();
    }
    let (begin, end): (String, String) = (text.chars().take(SHOWN).collect(), text.chars().rev().take(1).collect());
    format!("{begin}…{end}")
}
