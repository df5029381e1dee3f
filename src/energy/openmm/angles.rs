//! Harmonic angles: U = ½·k·(θ − θ₀)².

use super::lanes::{Lanes, Vector};
use super::measures::LEAST_CROSS;
use super::vector::{add, cross, difference, dot, scaled, subtract};
use super::xml::Element;
use crate::energy::potential::EnergyError;
use crate::energy::tables::ForceTables;
use std::f64::consts::PI;

/// OpenMM's HarmonicAngleForce.
#[derive(Debug)]
pub(super) struct HarmonicAngles {
    angles: Vec<Angle>,
}

#[derive(Debug)]
struct Angle {
    /// The second atom is the vertex.
    atoms: [u32; 3],
    /// θ₀ in radian.
    equilibrium: f64,
    /// k in kJ/(mol·rad²).
    stiffness: f64,
}

impl HarmonicAngles {
    pub fn read(force: &Element, atoms: usize) -> Result<Self, EnergyError> {
        let mut angles = Vec::new();
        for angle in force.child("Angles")?.children("Angle") {
            let angle = angle?;
            let equilibrium = angle.non_negative("a")?;
            if equilibrium > 1.000_01 * PI {
                return Err(
                    angle.fault(format!("attribute a is {equilibrium}; it must be an angle from 0 to π radian"))
                );
            }
            angles.push(Angle {
                atoms: angle.particles(["p1", "p2", "p3"], atoms)?,
                equilibrium,
                stiffness: angle.number("k")?,
            });
        }
        Ok(Self { angles })
    }

    /// The force as tables; `energy/cuda/mechanics.cuh` says how they are laid out.
    pub fn tables(&self) -> ForceTables {
        let mut tables = ForceTables { integers: vec![self.angles.len() as u32], numbers: Vec::new() };
        for angle in &self.angles {
            tables.integers.extend(angle.atoms);
            tables.numbers.extend([angle.equilibrium, angle.stiffness]);
        }
        tables
    }

    #[inline(always)]
    pub fn evaluate<const GRADIENT: bool>(&self, at: &[Vector], gradient: &mut [Vector]) -> Lanes {
        let mut energy = Lanes::ZERO;
        for angle in &self.angles {
            let [i, j, k] = angle.atoms.map(|a| a as usize);
            let u = difference(&at[i], &at[j]);
            let v = difference(&at[k], &at[j]);
            let w = cross(&u, &v);
            let sine = dot(&w, &w).sqrt();
            let cosine = dot(&u, &v);
            let bend = sine.angle(cosine) - angle.equilibrium;
            energy += bend * bend * (0.5 * angle.stiffness);
            if GRADIENT {
                let slope = bend * angle.stiffness / sine.at_least(LEAST_CROSS);
                let pull_i = scaled(&cross(&u, &w), slope / dot(&u, &u));
                let pull_k = scaled(&cross(&w, &v), slope / dot(&v, &v));
                add(&mut gradient[i], &pull_i);
                add(&mut gradient[k], &pull_k);
                subtract(&mut gradient[j], &pull_i);
                subtract(&mut gradient[j], &pull_k);
            }
        }
        energy
    }
}
