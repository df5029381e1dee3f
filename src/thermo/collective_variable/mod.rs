//! Functions of a configuration that states and profiles are defined by.

use crate::coords::{angle, angle_gradient, dihedral, dihedral_gradient, distance, distance_gradient};
use std::fmt;
use std::str::FromStr;

/// A collective variable of a configuration; stored as the text that it is parsed from.
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
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CollectiveVariableError {
    #[error("{variable}: {reason}")]
    Unsuitable { variable: String, reason: String },
    #[error(
        "'{0}' is not a collective variable; use coordinate(0), linear(0.7,-0.7), distance(4,6), angle(4,6,8) or \
         dihedral(4,6,8,14), with coordinates and atoms counted from 0"
    )]
    Syntax(String),
}

impl CollectiveVariable {
    /// That the variable exists for a system of `dimension` coordinates, and of `atoms` atoms if it has atoms.
    pub fn check(&self, dimension: usize, atoms: Option<usize>) -> Result<(), CollectiveVariableError> {
        let fail = |reason: String| Err(CollectiveVariableError::Unsuitable { variable: self.to_string(), reason });
        let of_atoms = |list: &[usize]| {
            let Some(atoms) = atoms else {
                return fail("the system is not made of atoms; use coordinate or linear".into());
            };
            if let Some(atom) = list.iter().find(|&&a| a >= atoms) {
                return fail(format!("there is no atom {atom}; the system has atoms 0 to {}", atoms - 1));
            }
            if (1..list.len()).any(|i| list[..i].contains(&list[i])) {
                return fail("an atom is named twice".into());
            }
            Ok(())
        };
        match self {
            Self::Coordinate { index } if *index < dimension => Ok(()),
            Self::Coordinate { .. } => fail(format!("the system has coordinates 0 to {}", dimension - 1)),
            Self::Linear { coefficients } => {
                if coefficients.is_empty() || coefficients.len() > dimension {
                    return fail(format!("it needs from 1 to {dimension} coefficients"));
                }
                if coefficients.iter().any(|c| !c.is_finite()) || coefficients.iter().all(|&c| c == 0.0) {
                    return fail("its coefficients must be finite, and not all zero".into());
                }
                Ok(())
            }
            Self::Distance { atoms } => of_atoms(atoms),
            Self::Angle { atoms } => of_atoms(atoms),
            Self::Dihedral { atoms } => of_atoms(atoms),
        }
    }

    /// The value at positions x.
    pub fn value(&self, x: &[f64]) -> f64 {
        let point = |atom: usize| [x[3 * atom], x[3 * atom + 1], x[3 * atom + 2]];
        match self {
            Self::Coordinate { index } => x[*index],
            Self::Linear { coefficients } => coefficients.iter().zip(x).map(|(c, x)| c * x).sum(),
            Self::Distance { atoms: [a, b] } => distance(point(*a), point(*b)),
            Self::Angle { atoms: [a, b, c] } => angle(point(*a), point(*b), point(*c)),
            Self::Dihedral { atoms: [a, b, c, d] } => dihedral(point(*a), point(*b), point(*c), point(*d)),
        }
    }

    /// Writes ∂s/∂x of the value s at positions x. Where it has no direction (atoms that coincide, or lie on a line) it is not
    /// finite.
    pub fn gradient(&self, x: &[f64], gradient: &mut [f64]) {
        fn put(gradient: &mut [f64], atoms: &[usize], of_atoms: &[[f64; 3]]) {
            for (atom, of_atom) in atoms.iter().zip(of_atoms) {
                gradient[3 * atom..3 * atom + 3].copy_from_slice(of_atom);
            }
        }
        let point = |atom: usize| [x[3 * atom], x[3 * atom + 1], x[3 * atom + 2]];
        gradient.fill(0.0);
        match self {
            Self::Coordinate { index } => gradient[*index] = 1.0,
            Self::Linear { coefficients } => gradient[..coefficients.len()].copy_from_slice(coefficients),
            Self::Distance { atoms } => put(gradient, atoms, &distance_gradient(atoms.map(point))),
            Self::Angle { atoms } => put(gradient, atoms, &angle_gradient(atoms.map(point))),
            Self::Dihedral { atoms } => put(gradient, atoms, &dihedral_gradient(atoms.map(point))),
        }
    }

    /// The period, if the variable is an angle of a whole circle.
    pub fn period(&self) -> Option<f64> {
        matches!(self, Self::Dihedral { .. }).then_some(2.0 * std::f64::consts::PI)
    }

    /// Whether a value is in [low, high). On a circle the interval is the arc that starts at `low` and goes up to
    /// `high`, across the seam if need be.
    pub fn contains(&self, low: f64, high: f64, value: f64) -> bool {
        match self.period() {
            None => low <= value && value < high,
            Some(period) => (value - low).rem_euclid(period) < arc(low, high, period),
        }
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

impl fmt::Display for CollectiveVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, name: &str, items: &[T]) -> fmt::Result {
            write!(f, "{name}(")?;
            for (i, item) in items.iter().enumerate() {
                write!(f, "{}{item}", if i == 0 { "" } else { "," })?;
            }
            f.write_str(")")
        }
        match self {
            Self::Coordinate { index } => list(f, "coordinate", &[index]),
            Self::Linear { coefficients } => list(f, "linear", coefficients),
            Self::Distance { atoms } => list(f, "distance", atoms),
            Self::Angle { atoms } => list(f, "angle", atoms),
            Self::Dihedral { atoms } => list(f, "dihedral", atoms),
        }
    }
}

impl From<CollectiveVariable> for String {
    fn from(variable: CollectiveVariable) -> Self {
        variable.to_string()
    }
}

impl TryFrom<String> for CollectiveVariable {
    type Error = CollectiveVariableError;

    fn try_from(text: String) -> Result<Self, CollectiveVariableError> {
        text.parse()
    }
}

impl FromStr for CollectiveVariable {
    type Err = CollectiveVariableError;

    fn from_str(text: &str) -> Result<Self, CollectiveVariableError> {
        let error = || CollectiveVariableError::Syntax(text.to_string());
        let (name, rest) = text.trim().split_once('(').ok_or_else(error)?;
        let items: Vec<&str> = rest.strip_suffix(')').ok_or_else(error)?.split(',').map(str::trim).collect();
        fn parse<T: FromStr, const N: usize>(items: &[&str]) -> Option<[T; N]> {
            let all: Option<Vec<T>> = items.iter().map(|i| i.parse().ok()).collect();
            all?.try_into().ok()
        }
        match name.trim() {
            "coordinate" => parse(&items).map(|[index]| Self::Coordinate { index }),
            "linear" => {
                let coefficients: Option<Vec<f64>> = items.iter().map(|i| i.parse().ok()).collect();
                coefficients.map(|coefficients| Self::Linear { coefficients })
            }
            "distance" => parse(&items).map(|atoms| Self::Distance { atoms }),
            "angle" => parse(&items).map(|atoms| Self::Angle { atoms }),
            "dihedral" => parse(&items).map(|atoms| Self::Dihedral { atoms }),
            _ => None,
        }
        .ok_or_else(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes_and_says_what_is_wrong() {
        for text in ["coordinate(0)", "linear(0.7,-0.7)", "distance(4,6)", "angle(4,6,8)", "dihedral(4,6,8,14)"] {
            let variable: CollectiveVariable = text.parse().unwrap();
            assert_eq!(variable.to_string(), text);
        }
        for text in ["", "phi", "dihedral(1,2,3)", "distance(1,-2)", "coordinate(0", "coordinate(a)"] {
            assert!(text.parse::<CollectiveVariable>().is_err(), "{text}");
        }
        let check = |text: &str, atoms| text.parse::<CollectiveVariable>().unwrap().check(6, atoms);
        assert!(check("coordinate(6)", None).unwrap_err().to_string().contains("0 to 5"));
        assert!(check("distance(0,2)", Some(2)).unwrap_err().to_string().contains("no atom 2"));
        assert!(check("distance(1,1)", Some(2)).unwrap_err().to_string().contains("twice"));
        assert!(check("distance(0,1)", None).is_err());
        assert!(check("linear(0,0)", None).is_err());
        assert!(check("distance(0,1)", Some(2)).is_ok());
    }

    #[test]
    fn gradients_are_those_of_the_values() {
        let mut random = crate::math::Randoms::new(5, crate::math::Purpose::Validation, 0);
        for text in ["coordinate(4)", "linear(0.7,-0.7,2)", "distance(1,3)", "angle(2,0,3)", "dihedral(3,0,2,1)"] {
            let variable: CollectiveVariable = text.parse().unwrap();
            for _ in 0..20 {
                let x: Vec<f64> = (0..12).map(|_| random.normal()).collect();
                let mut gradient = vec![f64::NAN; 12];
                variable.gradient(&x, &mut gradient);
                for (i, found) in gradient.iter().enumerate() {
                    let at = |h: f64| {
                        let mut moved = x.clone();
                        moved[i] += h;
                        variable.value(&moved)
                    };
                    // Across the seam of a dihedral the values are a turn apart.
                    let turn = 2.0 * std::f64::consts::PI;
                    let change = at(1e-6) - at(-1e-6);
                    let expected = (change - turn * (change / turn).round()) / 2e-6;
                    assert!((found - expected).abs() < 1e-5 * (1.0 + expected.abs()), "{text}: {found}, {expected}");
                }
            }
        }
    }

    #[test]
    fn intervals_on_a_circle_may_cross_its_seam() {
        let phi = CollectiveVariable::Dihedral { atoms: [0, 1, 2, 3] };
        assert!(phi.contains(2.5, -2.5, 3.1) && phi.contains(2.5, -2.5, -3.0) && !phi.contains(2.5, -2.5, 0.0));
        assert!(phi.contains(-3.2, 3.2, 1.0));
        let x = CollectiveVariable::Coordinate { index: 0 };
        assert!(x.contains(0.0, f64::INFINITY, 3.0) && !x.contains(0.0, 1.0, 1.0));
    }
}
