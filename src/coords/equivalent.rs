//! Pairs of equivalent atoms on one centre, such as the hydrogens of a CH₂ or two of a CH₃.
//!
//! Exchanging the two changes no energy, whatever else moves, and no bond has to break for a flow to place them: but it
//! places them in one order only. That order stands for both. (In a methyl group the turns about its axis are the other
//! half of the six orders; its torsion goes through them.) That atoms are equivalent is tried, rather than read off from
//! names and parameters: so it holds for any force.

use super::geometry::dihedral;
use super::zmatrix::ZMatrix;
use crate::energy::System;
use crate::math::{Purpose, Randoms};

/// How far atoms are moved from the structure (nm) before energies are compared.
const SHAKEN: f64 = 0.004;
/// Structures that are compared.
const TRIALS: u64 = 3;
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
    let mut is_centre = vec![false; zmatrix.atoms()];
    zmatrix.rows.iter().for_each(|row| is_centre[row.bond] = true);
    let start = zmatrix.base.internal_coordinates();
    let held = |coordinate: usize| fixed.iter().find(|(k, _)| *k == coordinate).map(|(_, value)| *value);
    let at = |atom: usize| [structure[3 * atom], structure[3 * atom + 1], structure[3 * atom + 2]];
    let mut pairs: Vec<[usize; 2]> = Vec::new();
    for (i, a) in zmatrix.rows.iter().enumerate() {
        for (j, b) in zmatrix.rows.iter().enumerate().skip(i + 1) {
            let same_place = a.improper && b.improper && [a.bond, a.angle, a.torsion] == [b.bond, b.angle, b.torsion];
            let same_bonds = (0..2).all(|k| held(start + 3 * i + k) == held(start + 3 * j + k));
            let are_free = held(start + 3 * i + 2).is_none() && held(start + 3 * j + 2).is_none();
            let are_leaves = !is_centre[a.atom] && !is_centre[b.atom];
            let is_new = !pairs.iter().flatten().any(|&row| row == i || row == j);
            if !(same_place && same_bonds && are_free && are_leaves && is_new) {
                continue;
            }
            let torsion = |atom: usize| dihedral(at(atom), at(a.bond), at(a.angle), at(a.torsion));
            let in_order = match (torsion(a.atom), torsion(b.atom)) {
                (first, second) if first > 0.0 && second < 0.0 => [i, j],
                (first, second) if first < 0.0 && second > 0.0 => [j, i],
                _ => continue,
            };
            if are_equivalent(system, structure, a.atom, b.atom) {
                pairs.push(in_order);
            }
        }
    }
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
    mass(a) == mass(b)
        && (0..TRIALS).all(|trial| {
            let mut random = Randoms::new(trial, Purpose::Architecture, 0);
            let mut x: Vec<f64> = structure.iter().map(|x| x + SHAKEN * random.normal()).collect();
            let shaken = x.clone();
            (0..3).for_each(|k| x.swap(3 * a + k, 3 * b + k));
            let mut energies = [0.0; 2];
            let evaluated = system.potential().evaluate(&[shaken, x].concat(), &mut energies, None);
            let [before, after] = energies;
            evaluated.is_ok() && (before - after).abs() <= TOLERANCE * (1.0 + before.abs().max(after.abs()))
        })
}
