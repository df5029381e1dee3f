//! Periodic torsions: U = k·(1 + cos(nφ − δ)), with φ as IUPAC defines it.
//!
//! Neither φ nor any circular function is computed: cos φ and sin φ follow from the vectors between the atoms, those of
//! nφ from the powers of cos φ + i·sin φ. Torsions about the same four atoms share the geometry.

use super::lanes::{Lanes, Vector};
use super::vector::{add, cross, difference, dot, scaled, subtract, sum};
use super::xml::Element;
use crate::energy::potential::EnergyError;
use crate::energy::tables::ForceTables;
use std::collections::BTreeMap;

/// OpenMM's PeriodicTorsionForce.
#[derive(Debug)]
pub(super) struct PeriodicTorsions {
    dihedrals: Vec<Dihedral>,
    /// Σ k of all torsions.
    constant: f64,
}

#[derive(Debug)]
struct Dihedral {
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

impl PeriodicTorsions {
    pub fn read(force: &Element, atoms: usize) -> Result<Self, EnergyError> {
        let mut constant = 0.0;
        let mut dihedrals: BTreeMap<[u32; 4], BTreeMap<u32, (f64, f64)>> = BTreeMap::new();
        for torsion in force.child("Torsions")?.children("Torsion") {
            let torsion = torsion?;
            let mut quadruple = torsion.particles(["p1", "p2", "p3", "p4"], atoms)?;
            if quadruple[0] > quadruple[3] {
                quadruple.reverse();
            }
            let periodicity = torsion.integer("periodicity")?;
            let Some(periodicity) = u32::try_from(periodicity).ok().filter(|&n| n >= 1) else {
                return Err(torsion.fault(format!("attribute periodicity is {periodicity}; it must be at least 1")));
            };
            let (phase, k) = (torsion.number("phase")?, torsion.number("k")?);
            let term = dihedrals.entry(quadruple).or_default().entry(periodicity).or_default();
            term.0 += k * phase.cos();
            term.1 += k * phase.sin();
            constant += k;
        }
        // Force fields write torsions without an energy too, and many of them.
        let fourier = |(periodicity, (cosine, sine))| {
            (cosine != 0.0 || sine != 0.0).then_some(Fourier { periodicity, cosine, sine })
        };
        let dihedrals = dihedrals
            .into_iter()
            .map(|(atoms, terms)| Dihedral { atoms, terms: terms.into_iter().filter_map(fourier).collect() })
            .filter(|dihedral: &Dihedral| !dihedral.terms.is_empty())
            .collect();
        Ok(Self { dihedrals, constant })
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
            let [i, j, k, l] = dihedral.atoms.map(|a| a as usize);
            let u = difference(&at[j], &at[i]);
            let v = difference(&at[k], &at[j]);
            let w = difference(&at[l], &at[k]);
            let m = cross(&u, &v);
            let n = cross(&v, &w);
            let (mm, nn, vv) = (dot(&m, &m), dot(&n, &n), dot(&v, &v));
            let length = vv.sqrt();
            let norm = (mm * nn).sqrt().recip();
            let phi = Complex { re: dot(&m, &n) * norm, im: length * dot(&u, &n) * norm };

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
                // Blondel and Karplus, J. Comput. Chem. 17, 1132 (1996), equation 27.
                let (slope_m, slope_n) = (slope / mm, slope / nn);
                let pull_i = scaled(&m, -(slope_m * length));
                let pull_l = scaled(&n, slope_n * length);
                let along = scaled(&m, slope_m * (dot(&u, &v) / length));
                let along = sum(&along, &scaled(&n, slope_n * (dot(&w, &v) / length)));
                add(&mut gradient[i], &pull_i);
                add(&mut gradient[l], &pull_l);
                subtract(&mut gradient[j], &pull_i);
                add(&mut gradient[j], &along);
                subtract(&mut gradient[k], &pull_l);
                subtract(&mut gradient[k], &along);
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
