//! Groups of three equivalent atoms at the end of a bond, such as the hydrogens of a methyl group.
//!
//! Exchanging the three in turn changes no energy, whatever else moves. That is tried, rather than read off from names and
//! parameters: so it holds for any force.

use super::geometry::dihedral;
use super::zmatrix::ZMatrix;
use crate::energy::System;
use crate::math::{Purpose, Randoms};
use std::f64::consts::PI;

/// How far atoms are moved from the structure (nm) before energies are compared.
const SHAKEN: f64 = 0.004;
/// Structures that are compared.
const TRIALS: u64 = 3;
/// The difference of energies, relative to their size, that rounding can make.
const TOLERANCE: f64 = 1e-9;

/// Marks the first row of each group whose atoms can be exchanged in turn. `frames` are the configurations (n, 3N) that
/// must have the order of `structure`: a group that has another order in any of them stays as it is. `fixed` are the
/// coordinates that constraints fix.
pub(super) fn mark_rotors(
    zmatrix: &mut ZMatrix,
    system: &System,
    structure: &[f64],
    frames: &[f64],
    fixed: &[(usize, f64)],
) {
    let mut is_centre = vec![false; zmatrix.atoms()];
    for row in &zmatrix.rows {
        is_centre[row.bond] = true;
    }
    for k in 0..zmatrix.rows.len() {
        let first = zmatrix.rows[k];
        let others: Vec<usize> = zmatrix
            .rows
            .iter()
            .enumerate()
            .filter(|(j, row)| *j != k && row.bond == first.bond)
            .map(|(j, _)| j)
            .collect();
        let &[second, third] = others.as_slice() else { continue };
        let rows = [k, second, third].map(|row| zmatrix.rows[row]);
        let placed_by_first = |row: usize| {
            let row = zmatrix.rows[row];
            row.improper && row.torsion == first.atom && row.angle == first.angle
        };
        if first.improper || !placed_by_first(second) || !placed_by_first(third) {
            continue;
        }
        let held = |coordinate: usize| fixed.iter().find(|(k, _)| *k == coordinate).map(|(_, value)| *value);
        let is_free = |row: &usize| held(3 * row + 4).is_none() && held(3 * row + 5).is_none();
        let alike = [second, third].iter().all(|row| held(3 * row + 3) == held(3 * k + 3));
        if !alike || ![k, second, third].iter().all(is_free) {
            continue;
        }
        let atoms = rows.map(|row| row.atom);
        if atoms.iter().any(|&atom| is_centre[atom] || zmatrix.frame.contains(&atom)) || !same_masses(system, atoms) {
            continue;
        }
        // On which side of the first atom the second is, where the third is on the other.
        let side = |x: &[f64]| {
            let torsion = |i: usize| {
                let row = zmatrix.rows[i];
                let at = |atom: usize| [x[3 * atom], x[3 * atom + 1], x[3 * atom + 2]];
                dihedral(at(row.atom), at(row.bond), at(row.angle), at(row.torsion))
            };
            let (a, b) = (torsion(second), torsion(third));
            (a * b < 0.0 && (a - b).abs() > PI).then_some(a > 0.0)
        };
        let handedness = side(structure);
        let all_alike = frames.chunks_exact(structure.len()).all(|x| side(x) == handedness);
        if handedness.is_some() && all_alike && are_equivalent(system, structure, atoms) {
            zmatrix.rows[k].rotor = Some([second, third]);
        }
    }
}

fn same_masses(system: &System, atoms: [usize; 3]) -> bool {
    let mass = |atom: usize| system.masses().get(atom);
    atoms.iter().all(|&atom| mass(atom) == mass(atoms[0]))
}

fn are_equivalent(system: &System, structure: &[f64], [a, b, c]: [usize; 3]) -> bool {
    (0..TRIALS).all(|trial| {
        let mut random = Randoms::new(trial, Purpose::Architecture, 0);
        let x: Vec<f64> = structure.iter().map(|x| x + SHAKEN * random.normal()).collect();
        let mut turned = x.clone();
        for (to, from) in [(a, b), (b, c), (c, a)] {
            turned[3 * to..3 * to + 3].copy_from_slice(&x[3 * from..3 * from + 3]);
        }
        let mut energies = [0.0; 2];
        let evaluated = system.potential().evaluate(&[x, turned].concat(), &mut energies, None);
        let [before, after] = energies;
        evaluated.is_ok() && (before - after).abs() <= TOLERANCE * (1.0 + before.abs().max(after.abs()))
    })
}
