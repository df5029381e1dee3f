//! Pairs of equivalent atoms on one centre, such as the hydrogens of a CH₂ or two of a CH₃.
//!
//! Exchanging the two changes no energy, whatever else moves, and no bond has to break for a flow to place them: but it
//! places them in one order only. That order stands for both. (In a methyl group the turns about its axis are the other
//! half of the six orders; its torsion goes through them.) That atoms are equivalent is tried, near the structure and far from
//! it, rather than read off from names and parameters: so it works for any force.

use super::geometry::dihedral;
use super::zmatrix::ZMatrix;
use crate::energy::System;
use crate::math::{Purpose, Randoms};
use std::collections::BTreeMap;

/// How far the two atoms are moved from the structure (nm) before energies are compared: near, and beyond what would be flat
/// to a small step. All others are moved by [`SHAKEN`].
const MOVED: [f64; 6] = [0.004, 0.004, 0.02, 0.06, 0.15, 0.4];
const SHAKEN: f64 = 0.004;
/// Energies up to this (kJ/mol) tell atoms apart, and in so many structures at least they must not.
const TELLING: f64 = 1e6;
const LEAST_TOLD: usize = 2;
/// The difference of energies, relative to their size, that rounding can make.
const TOLERANCE: f64 = 1e-9;

/// Rows of two equivalent atoms, with the signs of their torsions in the one order: the first's is positive, the second's
/// negative. `fixed` are the coordinates that constraints fix.
pub(super) fn equivalent_pairs(
    zmatrix: &ZMatrix,
    system: &System,
    structure: &[f64],
    fixed: &[(usize, f64)],
) -> Vec<[usize; 2]> {
    let is_reference = zmatrix.references();
    let start = zmatrix.base.internal_coordinates();
    let fixed: BTreeMap<usize, f64> = fixed.iter().copied().collect();
    let held = |row: usize| [0, 1, 2].map(|k| fixed.get(&(start + 3 * row + k)).copied());
    let at = |atom: usize| [structure[3 * atom], structure[3 * atom + 1], structure[3 * atom + 2]];
    let mut of_place: BTreeMap<[usize; 3], Vec<usize>> = BTreeMap::new();
    for (i, row) in zmatrix.rows.iter().enumerate() {
        let is_free = row.improper && !is_reference[row.atom] && held(i)[2].is_none();
        if is_free {
            of_place.entry([row.bond, row.angle, row.torsion]).or_default().push(i);
        }
    }
    let mut pairs: Vec<[usize; 2]> = Vec::new();
    for (place, rows) in &of_place {
        let [centre, axis, beyond] = place.map(at);
        let torsion = |row: usize| dihedral(at(zmatrix.rows[row].atom), centre, axis, beyond);
        let mut left = rows.clone();
        while let Some(i) = left.pop() {
            let partner = left.iter().position(|&j| {
                let opposite = torsion(i) * torsion(j) < 0.0;
                let (a, b) = (zmatrix.rows[i].atom, zmatrix.rows[j].atom);
                opposite && held(i) == held(j) && are_equivalent(system, structure, a, b)
            });
            if let Some(partner) = partner {
                let j = left.swap_remove(partner);
                pairs.push(if torsion(i) > 0.0 { [i, j] } else { [j, i] });
            }
        }
    }
    pairs.sort_unstable();
    pairs
}

/// Puts the values of all coordinates of one configuration into the order of the pairs.
pub(super) fn put_in_order(zmatrix: &ZMatrix, pairs: &[[usize; 2]], values: &mut [f64]) {
    let start = zmatrix.base.internal_coordinates();
    for [first, second] in pairs.iter().map(|pair| pair.map(|row| start + 3 * row)) {
        if values[first + 2] < 0.0 && values[second + 2] > 0.0 {
            (0..3).for_each(|k| values.swap(first + k, second + k));
        }
    }
}

fn are_equivalent(system: &System, structure: &[f64], a: usize, b: usize) -> bool {
    let mass = |atom: usize| system.masses().get(atom);
    if mass(a) != mass(b) {
        return false;
    }
    let mut told = 0;
    for (&moved, trial) in MOVED.iter().zip(0..) {
        let mut random = Randoms::new(trial, Purpose::Architecture, 0);
        let mut x: Vec<f64> = structure.iter().map(|x| x + SHAKEN * random.normal()).collect();
        for k in (3 * a..3 * a + 3).chain(3 * b..3 * b + 3) {
            x[k] += moved * random.normal();
        }
        let shaken = x.clone();
        (0..3).for_each(|k| x.swap(3 * a + k, 3 * b + k));
        let mut energies = [0.0; 2];
        let evaluated = system.potential().evaluate(&[shaken, x].concat(), &mut energies, None);
        let [before, after] = energies;
        let size = before.abs().max(after.abs());
        // In a clash, what else differs is lost in rounding.
        if size < TELLING {
            if evaluated.is_err() || (before - after).abs() > TOLERANCE * (1.0 + size) {
                return false;
            }
            told += 1;
        }
    }
    told >= LEAST_TOLD
}
