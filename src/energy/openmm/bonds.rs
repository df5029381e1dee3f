//! Harmonic bonds: U = ½·k·(r − r₀)².

use super::lanes::{Lanes, Vector};
use super::vector::{add, difference, dot, scaled, subtract};
use super::xml::Element;
use crate::energy::potential::EnergyError;
use crate::energy::tables::ForceTables;

/// OpenMM's HarmonicBondForce.
#[derive(Debug)]
pub(super) struct HarmonicBonds {
    bonds: Vec<Bond>,
}

#[derive(Debug)]
struct Bond {
    atoms: [u32; 2],
    /// r₀ in nm.
    length: f64,
    /// k in kJ/(mol·nm²).
    stiffness: f64,
}

impl HarmonicBonds {
    pub fn read(force: &Element, atoms: usize) -> Result<Self, EnergyError> {
        let mut bonds = Vec::new();
        for bond in force.child("Bonds")?.children("Bond") {
            let bond = bond?;
            bonds.push(Bond {
                atoms: bond.particles(["p1", "p2"], atoms)?,
                length: bond.non_negative("d")?,
                stiffness: bond.number("k")?,
            });
        }
        Ok(Self { bonds })
    }

    /// The bonded pairs of atoms.
    pub fn pairs(&self) -> impl Iterator<Item = [u32; 2]> {
        self.bonds.iter().map(|bond| bond.atoms)
    }

    /// The force as tables; `energy/cuda/mechanics.cuh` says how they are laid out.
    pub fn tables(&self) -> ForceTables {
        let mut tables = ForceTables { integers: vec![self.bonds.len() as u32], numbers: Vec::new() };
        for bond in &self.bonds {
            tables.integers.extend(bond.atoms);
            tables.numbers.extend([bond.length, bond.stiffness]);
        }
        tables
    }

    #[inline(always)]
    pub fn evaluate<const GRADIENT: bool>(&self, at: &[Vector], gradient: &mut [Vector]) -> Lanes {
        let mut energy = Lanes::ZERO;
        for bond in &self.bonds {
            let [i, j] = bond.atoms.map(|a| a as usize);
            let d = difference(&at[i], &at[j]);
            let r = dot(&d, &d).sqrt();
            let stretch = r - bond.length;
            energy += stretch * stretch * (0.5 * bond.stiffness);
            if GRADIENT {
                // Where the atoms coincide the bond has no direction, and pulls in none.
                let pull = scaled(&d, (stretch * bond.stiffness / r).zero_unless(r, 0.0));
                add(&mut gradient[i], &pull);
                subtract(&mut gradient[j], &pull);
            }
        }
        energy
    }
}
