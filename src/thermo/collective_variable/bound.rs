//! Variables of a system, with values and gradients.

use super::coordination::Coordination;
use super::expression::Composite;
use super::gyration::Gyration;
use super::points::{Points, add_at, at};
use super::rmsd::Rmsd;
use super::{CollectiveVariable, CollectiveVariableError, DEEPEST};
use crate::coords::{angle, angle_gradient, dihedral, dihedral_gradient, distance, distance_gradient};
use crate::energy::System;
use std::sync::Arc;

/// The most pairs, atoms and operations that one variable may be computed from.
const MOST_TERMS: usize = 100_000;

/// A collective variable that a system has.
#[derive(Clone, Debug)]
pub struct BoundVariable {
    description: Arc<CollectiveVariable>,
    function: Arc<Function>,
}

/// How a variable is computed. Its indices are within the system's positions.
#[derive(Debug)]
pub(super) enum Function {
    Coordinate(usize),
    Linear(Vec<f64>),
    Distance([usize; 2]),
    Angle([usize; 3]),
    Dihedral([usize; 4]),
    Gyration(Gyration),
    Rmsd(Rmsd),
    Coordination(Coordination),
    Expression(Composite),
}

impl CollectiveVariable {
    /// The variable as one of a system's.
    ///
    /// # Errors
    /// [`CollectiveVariableError::Unsuitable`] says what the system does not have (a coordinate, atoms, an atom, masses), or
    /// what else is wrong with the variable: no atoms, a reference of another size, a name that an expression does not know,
    /// numbers that are not finite, too much to compute.
    pub fn bind(&self, system: &System) -> Result<BoundVariable, CollectiveVariableError> {
        let points = Points::of(system);
        let function = self.function(system.dimension(), points.as_ref(), 1)?;
        let terms = function.terms();
        if terms > MOST_TERMS {
            let reason =
                format!("it is computed from {terms} pairs, atoms and operations; at most {MOST_TERMS} are allowed");
            return Err(self.unsuitable(reason));
        }
        Ok(BoundVariable { description: Arc::new(self.clone()), function: Arc::new(function) })
    }

    /// How the variable is computed from positions of so many coordinates; `depth` counts the expressions that it is in,
    /// and itself.
    fn function(
        &self,
        dimension: usize,
        points: Option<&Points>,
        depth: usize,
    ) -> Result<Function, CollectiveVariableError> {
        let made = match self {
            Self::Coordinate { index } if *index < dimension => Ok(Function::Coordinate(*index)),
            Self::Coordinate { .. } => Err(format!("the system has coordinates 0 to {}", dimension.saturating_sub(1))),
            Self::Linear { coefficients } => linear(coefficients, dimension),
            Self::Expression { expression, variables, period } => {
                if depth > DEEPEST {
                    return Err(self.unsuitable(format!("expressions are nested more than {DEEPEST} deep")));
                }
                let function = |variable: &Self| variable.function(dimension, points, depth + 1);
                let variables = variables.iter().map(|(name, variable)| match function(variable) {
                    Ok(function) => Ok((name.as_str(), function)),
                    Err(error) => Err(self.unsuitable(error.to_string())),
                });
                let variables = variables.collect::<Result<_, _>>()?;
                Composite::new(expression, variables, *period).map(Function::Expression)
            }
            of_points => match points {
                Some(points) => of_points.function_of_points(points),
                None => {
                    let reason = "the system is not made of atoms, nor of particles in three dimensions; use coordinate or \
                                  linear";
                    Err(reason.into())
                }
            },
        };
        made.map_err(|reason| self.unsuitable(reason))
    }

    fn function_of_points(&self, points: &Points) -> Result<Function, String> {
        Ok(match self {
            Self::Distance { atoms } => points.check(atoms).map(|()| Function::Distance(*atoms))?,
            Self::Angle { atoms } => points.check(atoms).map(|()| Function::Angle(*atoms))?,
            Self::Dihedral { atoms } => points.check(atoms).map(|()| Function::Dihedral(*atoms))?,
            Self::RadiusOfGyration { atoms } => Function::Gyration(Gyration::new(atoms, points)?),
            Self::Rmsd { atoms, reference } => Function::Rmsd(Rmsd::new(atoms, reference, points)?),
            Self::Coordination { groups, r0, power } => {
                Function::Coordination(Coordination::new(groups, *r0, *power, points)?)
            }
            Self::Coordinate { .. } | Self::Linear { .. } | Self::Expression { .. } => {
                return Err("it is no function of points".into());
            }
        })
    }
}

fn linear(coefficients: &[f64], dimension: usize) -> Result<Function, String> {
    if coefficients.is_empty() || coefficients.len() > dimension {
        return Err(format!("it needs from 1 to {dimension} coefficients"));
    }
    if coefficients.iter().any(|c| !c.is_finite()) || coefficients.iter().all(|&c| c == 0.0) {
        return Err("its coefficients must be finite, and not all zero".into());
    }
    Ok(Function::Linear(coefficients.to_vec()))
}

impl BoundVariable {
    /// What it was made from.
    pub fn description(&self) -> &CollectiveVariable {
        &self.description
    }

    /// How many pairs, atoms and operations it is computed from.
    pub fn terms(&self) -> usize {
        self.function.terms()
    }

    /// The value at positions x of the system.
    pub fn value(&self, x: &[f64]) -> f64 {
        self.function.value(x)
    }

    /// Writes ∂s/∂x of the value s at positions x of the system. Where it has no direction (atoms that coincide, or lie on a
    /// line; atoms at their reference) it is not finite.
    pub fn gradient(&self, x: &[f64], gradient: &mut [f64]) {
        gradient.fill(0.0);
        self.function.add_gradient(x, 1.0, gradient);
    }
}

impl Function {
    /// How many pairs, atoms and operations it is made of.
    pub fn terms(&self) -> usize {
        match self {
            Self::Coordinate(_) | Self::Distance(_) | Self::Angle(_) | Self::Dihedral(_) => 1,
            Self::Linear(coefficients) => coefficients.len(),
            Self::Gyration(gyration) => gyration.terms(),
            Self::Rmsd(rmsd) => rmsd.terms(),
            Self::Coordination(coordination) => coordination.terms(),
            Self::Expression(composite) => composite.terms(),
        }
    }

    pub fn value(&self, x: &[f64]) -> f64 {
        match self {
            Self::Coordinate(index) => x[*index],
            Self::Linear(coefficients) => coefficients.iter().zip(x).map(|(c, x)| c * x).sum(),
            Self::Distance([a, b]) => distance(at(x, *a), at(x, *b)),
            Self::Angle([a, b, c]) => angle(at(x, *a), at(x, *b), at(x, *c)),
            Self::Dihedral([a, b, c, d]) => dihedral(at(x, *a), at(x, *b), at(x, *c), at(x, *d)),
            Self::Gyration(gyration) => gyration.value(x),
            Self::Rmsd(rmsd) => rmsd.value(x),
            Self::Coordination(coordination) => coordination.value(x),
            Self::Expression(composite) => composite.value(x),
        }
    }

    /// Adds scale·∂s/∂x.
    pub fn add_gradient(&self, x: &[f64], scale: f64, gradient: &mut [f64]) {
        let mut put = |atoms: &[usize], of_atoms: &[[f64; 3]]| {
            atoms.iter().zip(of_atoms).for_each(|(&atom, &of_atom)| add_at(gradient, atom, scale, of_atom));
        };
        match self {
            Self::Coordinate(index) => gradient[*index] += scale,
            Self::Linear(coefficients) => gradient.iter_mut().zip(coefficients).for_each(|(g, c)| *g += scale * c),
            Self::Distance(atoms) => put(atoms, &distance_gradient(atoms.map(|atom| at(x, atom)))),
            Self::Angle(atoms) => put(atoms, &angle_gradient(atoms.map(|atom| at(x, atom)))),
            Self::Dihedral(atoms) => put(atoms, &dihedral_gradient(atoms.map(|atom| at(x, atom)))),
            Self::Gyration(gyration) => gyration.add_gradient(x, scale, gradient),
            Self::Rmsd(rmsd) => rmsd.add_gradient(x, scale, gradient),
            Self::Coordination(coordination) => coordination.add_gradient(x, scale, gradient),
            Self::Expression(composite) => composite.add_gradient(x, scale, gradient),
        }
    }
}
