//! Coulomb and Lennard-Jones forces between all pairs of atoms, without a cutoff.
//!
//! U = Σ q_i·q_j/(4πε₀·r) + 4ε·((σ/r)¹² − (σ/r)⁶), with σ the mean and ε the geometric mean of the two atoms'. Pairs that
//! an exception names are left out of the sum, and enter with the exception's own numbers instead.

use super::lanes::{Lanes, Vector};
use super::vector::{add, difference, dot, scaled, subtract};
use super::xml::{Element, check_all_pairs};
use crate::energy::potential::EnergyError;
use crate::energy::tables::ForceTables;
use std::collections::BTreeSet;
use std::ops::Range;

/// 1/(4πε₀) in kJ·nm/(mol·e²), from e and N_A of the SI and ε₀ of CODATA 2018, as OpenMM 8 has it.
pub(super) const COULOMB: f64 = 138.935_457_644_381_98;

/// OpenMM's NonbondedForce with the method NoCutoff.
#[derive(Debug)]
pub(super) struct Nonbonded {
    atoms: Vec<Atom>,
    /// For each atom, the later atoms that it interacts with, as runs of consecutive ones: all but the exceptions.
    partners: Vec<Vec<Range<usize>>>,
    exceptions: Vec<Exception>,
}

#[derive(Debug)]
struct Atom {
    /// q·(4πε₀)^−½.
    charge: f64,
    /// ½σ in nm.
    half_sigma: f64,
    /// 2√ε.
    twice_root_epsilon: f64,
}

#[derive(Debug)]
struct Exception {
    atoms: [u32; 2],
    pair: Pair,
}

/// What the energy of two atoms at a given distance depends on.
#[derive(Debug)]
struct Pair {
    /// q_i·q_j/(4πε₀) in kJ·nm/mol.
    coulomb: f64,
    /// σ² in nm².
    sigma_squared: f64,
    /// 4ε in kJ/mol.
    four_epsilon: f64,
}

impl Nonbonded {
    pub fn read(force: &Element, atoms: usize) -> Result<Self, EnergyError> {
        check_all_pairs(force, atoms)?;
        let mut parameters = Vec::with_capacity(atoms);
        for particle in force.particles_of("Particles", "Particle", atoms)? {
            parameters.push(Atom {
                charge: COULOMB.sqrt() * particle.number("q")?,
                half_sigma: 0.5 * particle.non_negative("sig")?,
                twice_root_epsilon: 2.0 * particle.non_negative("eps")?.sqrt(),
            });
        }
        let mut excluded = vec![BTreeSet::new(); atoms];
        let mut exceptions = Vec::new();
        for exception in force.child("Exceptions")?.children("Exception") {
            let exception = exception?;
            let [p1, p2] = exception.particles(["p1", "p2"], atoms)?;
            let (first, second) = (p1.min(p2) as usize, p1.max(p2) as usize);
            if !excluded[first].insert(second) {
                return Err(
                    exception.fault(format!("a second exception for particles {p1} and {p2}; keep one of them"))
                );
            }
            let pair = Pair {
                coulomb: COULOMB * exception.number("q")?,
                sigma_squared: exception.non_negative("sig")?.powi(2),
                four_epsilon: 4.0 * exception.non_negative("eps")?,
            };
            if pair.coulomb != 0.0 || pair.four_epsilon != 0.0 {
                exceptions.push(Exception { atoms: [p1, p2], pair });
            }
        }
        let partners = excluded.iter().enumerate().map(|(i, excluded)| runs(i + 1..atoms, excluded)).collect();
        Ok(Self { atoms: parameters, partners, exceptions })
    }

    /// The force as tables; `energy/cuda/mechanics.cuh` says how they are laid out.
    pub fn tables(&self) -> ForceTables {
        let mut tables = ForceTables { integers: vec![self.atoms.len() as u32], numbers: Vec::new() };
        for (atom, runs) in self.atoms.iter().zip(&self.partners) {
            tables.integers.push(runs.len() as u32);
            tables.integers.extend(runs.iter().flat_map(|run| [run.start as u32, run.end as u32]));
            tables.numbers.extend([atom.charge, atom.half_sigma, atom.twice_root_epsilon]);
        }
        tables.integers.push(self.exceptions.len() as u32);
        for Exception { atoms, pair } in &self.exceptions {
            tables.integers.extend(atoms);
            tables.numbers.extend([pair.coulomb, pair.sigma_squared, pair.four_epsilon]);
        }
        tables
    }

    #[inline(always)]
    pub fn evaluate<const GRADIENT: bool>(&self, at: &[Vector], gradient: &mut [Vector]) -> Lanes {
        let mut energy = Lanes::ZERO;
        for (i, (atom, partners)) in self.atoms.iter().zip(&self.partners).enumerate() {
            let mut pull_i = [Lanes::ZERO; 3];
            for j in partners.iter().cloned().flatten() {
                let partner = &self.atoms[j];
                let sigma = atom.half_sigma + partner.half_sigma;
                let pair = Pair {
                    coulomb: atom.charge * partner.charge,
                    sigma_squared: sigma * sigma,
                    four_epsilon: atom.twice_root_epsilon * partner.twice_root_epsilon,
                };
                let d = difference(&at[i], &at[j]);
                let (pair_energy, slope) = pair.evaluate(dot(&d, &d));
                energy += pair_energy;
                if GRADIENT {
                    let pull = scaled(&d, slope);
                    add(&mut pull_i, &pull);
                    subtract(&mut gradient[j], &pull);
                }
            }
            if GRADIENT {
                add(&mut gradient[i], &pull_i);
            }
        }
        for Exception { atoms: [i, j], pair } in &self.exceptions {
            let (i, j) = (*i as usize, *j as usize);
            let d = difference(&at[i], &at[j]);
            let (pair_energy, slope) = pair.evaluate(dot(&d, &d));
            energy += pair_energy;
            if GRADIENT {
                let pull = scaled(&d, slope);
                add(&mut gradient[i], &pull);
                subtract(&mut gradient[j], &pull);
            }
        }
        energy
    }
}

impl Pair {
    /// The energy at a squared distance, and (dU/dr)/r.
    #[inline(always)]
    fn evaluate(&self, rr: Lanes) -> (Lanes, Lanes) {
        let inverse = rr.recip();
        let coulomb = inverse.sqrt() * self.coulomb;
        let two = inverse * self.sigma_squared;
        let six = two * two * two;
        let dispersion = six * self.four_epsilon;
        let repulsion = dispersion * six;
        let slope = -((repulsion * 12.0 - dispersion * 6.0 + coulomb) * inverse);
        (coulomb + (repulsion - dispersion), slope)
    }
}

/// The runs of consecutive numbers in `range` that are not in `excluded`.
fn runs(range: Range<usize>, excluded: &BTreeSet<usize>) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let mut start = range.start;
    for &gap in excluded {
        if start < gap {
            runs.push(start..gap);
        }
        start = gap + 1;
    }
    if start < range.end {
        runs.push(start..range.end);
    }
    runs
}
