//! Periodic torsions: U = k·(1 + cos(nφ − δ)), with φ as IUPAC defines it.
//!
//! Neither φ nor any circular function is computed: cos φ and sin φ follow from the vectors between the atoms, those of
//! nφ from the powers of cos φ + i·sin φ. Torsions about the same four atoms share the geometry.

use super::lanes::{Lanes, Vector};
use super::measures::Dihedral;
use super::xml::Element;
use crate::energy::potential::EnergyError;
use crate::energy::tables::ForceTables;
use std::collections::BTreeMap;

/// OpenMM's PeriodicTorsionForce, or what is the same sum.
#[derive(Debug)]
pub(super) struct PeriodicTorsions {
    dihedrals: Vec<TorsionTerms>,
    /// Σ k of all torsions.
    constant: f64,
}

#[derive(Debug)]
struct TorsionTerms {
    atoms: [u32; 4],
    /// Sorted by periodicity.
    terms: Vec<Fourier>,
}

/// a·cos nφ + b·sin nφ.
#[derive(Debug)]
struct Fourier {
    periodicity: u32,
    cosine: f64,
    sine: f64,
}

/// Torsions as they are read: (a, b) of each periodicity of each four atoms.
#[derive(Default)]
struct Terms {
    dihedrals: BTreeMap<[u32; 4], BTreeMap<u32, (f64, f64)>>,
    constant: f64,
}

impl Terms {
    fn add(&mut self, mut atoms: [u32; 4], periodicity: u32, cosine: f64, sine: f64) {
        if atoms[0] > atoms[3] {
            atoms.reverse();
        }
        let term = self.dihedrals.entry(atoms).or_default().entry(periodicity).or_default();
        term.0 += cosine;
        term.1 += sine;
    }

    fn torsions(self) -> PeriodicTorsions {
        // Force fields write torsions without an energy too, and many of them.
        let fourier = |(periodicity, (cosine, sine))| {
            (cosine != 0.0 || sine != 0.0).then_some(Fourier { periodicity, cosine, sine })
        };
        let dihedrals = self.dihedrals.into_iter();
        let dihedrals = dihedrals
            .map(|(atoms, terms)| TorsionTerms { atoms, terms: terms.into_iter().filter_map(fourier).collect() })
            .filter(|dihedral: &TorsionTerms| !dihedral.terms.is_empty())
            .collect();
        PeriodicTorsions { dihedrals, constant: self.constant }
    }
}

impl PeriodicTorsions {
    pub fn read(force: &Element, atoms: usize) -> Result<Self, EnergyError> {
        let mut terms = Terms::default();
        for torsion in force.child("Torsions")?.children("Torsion") {
            let torsion = torsion?;
            let quadruple = torsion.particles(["p1", "p2", "p3", "p4"], atoms)?;
            let periodicity = torsion.integer("periodicity")?;
            let Some(periodicity) = u32::try_from(periodicity).ok().filter(|&n| n >= 1) else {
                return Err(torsion.fault(format!("attribute periodicity is {periodicity}; it must be at least 1")));
            };
            let (phase, k) = (torsion.number("phase")?, torsion.number("k")?);
            terms.add(quadruple, periodicity, k * phase.cos(), k * phase.sin());
            terms.constant += k;
        }
        Ok(terms.torsions())
    }

    /// OpenMM's RBTorsionForce, U = Σ cₙ cosⁿ(φ − 180°) for n from 0 to 5 (Ryckaert and Bellemans, Chem. Phys. Lett. 30,
    /// 123, 1975): powers of a cosine are sums of cosines of multiples.
    pub fn read_ryckaert_bellemans(force: &Element, atoms: usize) -> Result<Self, EnergyError> {
        let mut terms = Terms::default();
        for torsion in force.child("Torsions")?.children("Torsion") {
            let torsion = torsion?;
            let quadruple = torsion.particles(["p1", "p2", "p3", "p4"], atoms)?;
            let mut c = [0.0; 6];
            for (n, (name, c)) in ["c0", "c1", "c2", "c3", "c4", "c5"].into_iter().zip(&mut c).enumerate() {
                let sign = if n % 2 == 0 { 1.0 } else { -1.0 };
                *c = sign * torsion.number(name)?;
            }
            terms.constant += c[0] + c[2] / 2.0 + 3.0 * c[4] / 8.0;
            terms.add(quadruple, 1, c[1] + 3.0 * c[3] / 4.0 + 5.0 * c[5] / 8.0, 0.0);
            terms.add(quadruple, 2, (c[2] + c[4]) / 2.0, 0.0);
            terms.add(quadruple, 3, c[3] / 4.0 + 5.0 * c[5] / 16.0, 0.0);
            terms.add(quadruple, 4, c[4] / 8.0, 0.0);
            terms.add(quadruple, 5, c[5] / 16.0, 0.0);
        }
        Ok(terms.torsions())
    }

    /// The force as tables; `energy/cuda/mechanics.cuh` says how they are laid out.
    pub fn tables(&self) -> ForceTables {
        let mut tables = ForceTables { integers: vec![self.dihedrals.len() as u32], numbers: vec![self.constant] };
        for dihedral in &self.dihedrals {
            tables.integers.extend(dihedral.atoms);
            tables.integers.push(dihedral.terms.len() as u32);
            for term in &dihedral.terms {
                tables.integers.push(term.periodicity);
                tables.numbers.extend([term.cosine, term.sine]);
            }
        }
        tables
    }

    #[inline(always)]
    pub fn evaluate<const GRADIENT: bool>(&self, at: &[Vector], gradient: &mut [Vector]) -> Lanes {
        let mut energy = Lanes::all(self.constant);
        for dihedral in &self.dihedrals {
            let atoms = dihedral.atoms.map(|a| a as usize);
            let geometry = Dihedral::new(at, atoms);
            let norm = (geometry.mm * geometry.nn).sqrt().recip();
            let [sine, cosine] = geometry.sine_and_cosine();
            let phi = Complex { re: cosine * norm, im: sine * norm };

            let mut power = phi;
            let mut reached = 1;
            let mut slope = Lanes::ZERO;
            for term in &dihedral.terms {
                match term.periodicity - reached {
                    0 => {}
                    gap => power = power.times(phi.to_the(gap)),
                }
                reached = term.periodicity;
                energy += power.re * term.cosine + power.im * term.sine;
                slope += (power.re * term.sine - power.im * term.cosine) * f64::from(term.periodicity);
            }
            if GRADIENT {
                geometry.pull(gradient, atoms, slope);
            }
        }
        energy
    }
}

/// cos φ + i·sin φ.
#[derive(Clone, Copy)]
struct Complex {
    re: Lanes,
    im: Lanes,
}

impl Complex {
    #[inline(always)]
    fn times(self, other: Self) -> Self {
        Self { re: self.re * other.re - self.im * other.im, im: self.re * other.im + self.im * other.re }
    }

    /// The power of a positive exponent, by repeated squaring: a hostile periodicity costs no more than 32 steps.
    #[inline(always)]
    fn to_the(self, exponent: u32) -> Self {
        let mut result = self;
        for bit in (0..exponent.ilog2()).rev() {
            result = result.times(result);
            if exponent >> bit & 1 == 1 {
                result = result.times(self);
            }
        }
        result
    }
}
