//! Coulomb and Lennard-Jones forces between all pairs of atoms.
//!
//! U = Σ q_i·q_j/(4πε₀·r) + 4ε·((σ/r)¹² − (σ/r)⁶), with σ the mean and ε the geometric mean of the two atoms'. Pairs that
//! an exception names are left out of the sum, and enter with the exception's own numbers instead.
//!
//! With a cutoff r_c the Coulomb energy has the reaction field of a dielectric ε around it (Tironi et al., J. Chem. Phys.
//! 102, 5451 (1995)): 1/r + k·r² − c with k = (ε − 1)/((2ε + 1)·r_c³) and c = 3ε/((2ε + 1)·r_c); the Lennard-Jones energy may
//! be switched off by 1 − 10x³ + 15x⁴ − 6x⁵ of the fraction x of the way to r_c. Exceptions know of neither.

use super::custom_reader::{cutoff, switching_distance};
use super::lanes::{Lanes, Vector};
use super::pairs::Pairs;
use super::vector::{add, difference, dot, scaled, subtract};
use super::xml::{Element, check_all_pairs};
use crate::energy::potential::EnergyError;
use crate::energy::tables::ForceTables;
use std::collections::BTreeSet;

/// 1/(4πε₀) in kJ·nm/(mol·e²), from e and N_A of the SI and ε₀ of CODATA 2018, as OpenMM 8 has it.
pub(super) const COULOMB: f64 = 138.935_457_644_381_98;

/// OpenMM's NonbondedForce with the method NoCutoff or CutoffNonPeriodic.
#[derive(Debug)]
pub(super) struct Nonbonded {
    atoms: Vec<Atom>,
    /// All but the exceptions.
    pairs: Pairs,
    exceptions: Vec<Exception>,
    cutoff: Option<Cutoff>,
}

/// What ends at a distance, and how.
#[derive(Clone, Copy, Debug)]
struct Cutoff {
    /// r_c in nm.
    distance: f64,
    /// k in nm⁻³.
    field: f64,
    /// c in nm⁻¹.
    constant: f64,
    /// Where switching begins, in nm; at the cutoff if there is none.
    switch: f64,
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
        Ok(Self { atoms: parameters, pairs: Pairs::all_but(&excluded), exceptions, cutoff: read_cutoff(force)? })
    }

    /// The force as tables, of which there are none with a cutoff; `energy/cuda/mechanics.cuh` says how they are laid out.
    pub fn tables(&self) -> Option<ForceTables> {
        if self.cutoff.is_some() {
            return None;
        }
        let mut tables = ForceTables { integers: vec![self.atoms.len() as u32], numbers: Vec::new() };
        for (atom, (_, runs)) in self.atoms.iter().zip(self.pairs.rows()) {
            tables.integers.push(runs.len() as u32);
            tables.integers.extend(runs.iter().flat_map(|run| [run.start as u32, run.end as u32]));
            tables.numbers.extend([atom.charge, atom.half_sigma, atom.twice_root_epsilon]);
        }
        tables.integers.push(self.exceptions.len() as u32);
        for Exception { atoms, pair } in &self.exceptions {
            tables.integers.extend(atoms);
            tables.numbers.extend([pair.coulomb, pair.sigma_squared, pair.four_epsilon]);
        }
        Some(tables)
    }

    #[inline(always)]
    pub fn evaluate<const GRADIENT: bool>(&self, at: &[Vector], gradient: &mut [Vector]) -> Lanes {
        let mut energy = match self.cutoff {
            None => self.pairs_energy::<GRADIENT, false>(at, gradient),
            Some(_) => self.pairs_energy::<GRADIENT, true>(at, gradient),
        };
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

    /// `CUT` says whether there is a cutoff. It is no function that evaluates a pair: the compiler called that, without the
    /// vectors of the machine.
    #[inline(always)]
    fn pairs_energy<const GRADIENT: bool, const CUT: bool>(&self, at: &[Vector], gradient: &mut [Vector]) -> Lanes {
        let mut energy = Lanes::ZERO;
        for (i, partners) in self.pairs.rows() {
            let atom = &self.atoms[i];
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
                let rr = dot(&d, &d);
                let (pair_energy, slope) = match &self.cutoff {
                    Some(cutoff) if CUT => pair.evaluate_within(rr, cutoff),
                    _ => pair.evaluate(rr),
                };
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

    /// The same with a cutoff.
    #[inline(always)]
    fn evaluate_within(&self, rr: Lanes, cutoff: &Cutoff) -> (Lanes, Lanes) {
        let inverse = rr.recip();
        let bare = inverse.sqrt() * self.coulomb;
        let coulomb = bare + (rr * cutoff.field - cutoff.constant) * self.coulomb;
        let two = inverse * self.sigma_squared;
        let six = two * two * two;
        let dispersion = six * self.four_epsilon;
        let repulsion = dispersion * six;
        let mut energy = repulsion - dispersion;
        let mut slope = -((repulsion * 12.0 - dispersion * 6.0) * inverse);
        if cutoff.switch < cutoff.distance {
            let r = rr.sqrt();
            let width = cutoff.distance - cutoff.switch;
            let beyond = r - cutoff.switch;
            let x = (beyond / width).zero_unless(beyond, 0.0);
            let xx = x * x;
            let factor = xx * x * ((x * -6.0 + 15.0) * x - 10.0) + 1.0;
            let fall = xx * ((x * -30.0 + 60.0) * x - 30.0) / width;
            slope = slope * factor + energy * fall / r;
            energy = energy * factor;
        }
        slope = slope - bare * inverse + 2.0 * cutoff.field * self.coulomb;
        let within = -rr + cutoff.distance * cutoff.distance;
        ((energy + coulomb).zero_unless(within, 0.0), slope.zero_unless(within, 0.0))
    }
}

fn read_cutoff(force: &Element) -> Result<Option<Cutoff>, EnergyError> {
    let Some(distance) = cutoff(force)? else { return Ok(None) };
    let dielectric = force.number("rfDielectric")?;
    if dielectric <= 0.0 {
        return Err(force.fault(format!("attribute rfDielectric is {dielectric}; it must be positive")));
    }
    let switch = switching_distance(force, Some(distance))?;
    Ok(Some(Cutoff {
        distance,
        field: (dielectric - 1.0) / (2.0 * dielectric + 1.0) / distance.powi(3),
        constant: 3.0 * dielectric / (2.0 * dielectric + 1.0) / distance,
        switch: switch.unwrap_or(distance),
    }))
}
