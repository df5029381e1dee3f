//! What of a system its dynamics needs: masses of coordinates, constraints, degrees of freedom.

use super::constraints::ConstraintSet;
use super::error::SimulationError;
use crate::energy::System;
use crate::energy::openmm::Constraint;

/// Masses are in dalton for systems of atoms (the potential's gradient over a mass is then an acceleration in nm/ps²),
/// and 1 for others.
#[derive(Debug)]
pub struct Mechanics {
    pub dimension: usize,
    /// Of each coordinate.
    pub mass: Vec<f64>,
    pub inverse_mass: Vec<f64>,
    /// 1/√m: times √kT the standard deviation of a velocity.
    pub root_inverse_mass: Vec<f64>,
    pub constraints: Option<ConstraintSet>,
    /// Velocities that thermal motion has, one for each coordinate less one for each constraint.
    pub degrees_of_freedom: usize,
}

impl Mechanics {
    pub fn new(system: &System, constraints: &[Constraint], lowest_kt: f64) -> Result<Self, SimulationError> {
        let dimension = system.dimension();
        for (atom, &mass) in system.masses().iter().enumerate() {
            if !(mass.is_finite() && mass > 0.0) {
                return Err(SimulationError::Mass { atom, mass });
            }
        }
        let mass: Vec<f64> = match system.masses() {
            [] => vec![1.0; dimension],
            masses => masses.iter().flat_map(|&m| [m; 3]).collect(),
        };
        let set = match constraints {
            [] => None,
            list => Some(ConstraintSet::new(list, system.masses(), lowest_kt)?),
        };
        let degrees_of_freedom = dimension.saturating_sub(constraints.len());
        if degrees_of_freedom == 0 {
            let reason = format!("{} constraints leave none of {dimension} degrees of freedom", constraints.len());
            return Err(SimulationError::Constraint { index: constraints.len().saturating_sub(1), reason });
        }
        Ok(Self {
            dimension,
            inverse_mass: mass.iter().map(|m| 1.0 / m).collect(),
            root_inverse_mass: mass.iter().map(|m| (1.0 / m).sqrt()).collect(),
            mass,
            constraints: set,
            degrees_of_freedom,
        })
    }

    /// Twice the kinetic energy of a row of velocities.
    pub fn twice_kinetic(&self, v: &[f64]) -> f64 {
        v.iter().zip(&self.mass).map(|(v, m)| m * v * v).sum()
    }
}
