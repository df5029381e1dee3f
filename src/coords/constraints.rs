//! Constraints as coordinates of a Z-matrix that do not change.
//!
//! A constraint holds the distance of two atoms. Between bonded atoms that is a bond's length; between two atoms bonded to a
//! third, with both those bonds held, it is an angle, or, for the second sibling of an atom, a torsion.

use super::geometry::dihedral;
use super::transform::CoordinatesError;
use super::zmatrix::{Base, ZMatrix};
use crate::energy::openmm::Constraint;
use std::collections::{BTreeMap, BTreeSet};

/// The pairs of constrained atoms that are not bonds: the longest side of a triangle of constraints.
pub(super) fn across_angles(constraints: &[Constraint], atoms: usize) -> BTreeSet<(usize, usize)> {
    let distances = distances(constraints);
    let held = |i: usize, j: usize| distances.get(&(i.min(j), i.max(j))).copied();
    let mut partners = vec![Vec::new(); atoms];
    for &(i, j) in distances.keys() {
        partners[i].push(j);
        partners[j].push(i);
    }
    let is_longest = |&(&(i, j), &distance): &(&(usize, usize), &f64)| {
        let mut others = partners[i].iter().filter_map(|&centre| Some((held(i, centre)?, held(centre, j)?)));
        others.any(|(a, b)| a.max(b) < distance)
    };
    distances.iter().filter(is_longest).map(|(pair, _)| *pair).collect()
}

fn distances(constraints: &[Constraint]) -> BTreeMap<(usize, usize), f64> {
    constraints.iter().map(|c| ((c.i.min(c.j), c.i.max(c.j)), c.distance)).collect()
}

/// The coordinates of a Z-matrix that constraints fix: (coordinate, value), of a structure whose torsions have the signs
/// that they are to keep.
pub(super) fn fixed_coordinates(
    zmatrix: &ZMatrix,
    constraints: &[Constraint],
    structure: &[f64],
) -> Result<Vec<(usize, f64)>, CoordinatesError> {
    let distances = distances(constraints);
    let held = |i: usize, j: usize| distances.get(&(i.min(j), i.max(j))).copied();
    let angle = |i: usize, centre: usize, j: usize| {
        let (a, b, c) = (held(i, centre)?, held(centre, j)?, held(i, j)?);
        let cosine = (a * a + b * b - c * c) / (2.0 * a * b);
        (cosine.abs() < 1.0).then(|| cosine.acos())
    };
    let mut fixed = Vec::new();
    let mut used = BTreeSet::new();
    let mut fix = |coordinate: usize, value: Option<f64>, i: usize, j: usize| {
        if let Some(value) = value {
            fixed.push((coordinate, value));
            used.insert((i.min(j), i.max(j)));
        }
    };
    if let Base::Frame([root, second, third]) = zmatrix.base {
        fix(0, held(root, second), root, second);
        fix(1, held(root, third), root, third);
        fix(2, angle(second, root, third), second, third);
    }
    let first = zmatrix.base.internal_coordinates();
    for (k, row) in zmatrix.rows.iter().enumerate() {
        fix(first + 3 * k, held(row.atom, row.bond), row.atom, row.bond);
        let own = angle(row.atom, row.bond, row.angle);
        fix(first + 3 * k + 1, own, row.atom, row.angle);
        let (other, between) = (angle(row.torsion, row.bond, row.angle), angle(row.atom, row.bond, row.torsion));
        if let (Some(own), Some(other), Some(between)) = (own, other, between) {
            let cosine = (between.cos() - own.cos() * other.cos()) / (own.sin() * other.sin());
            let at = |atom: usize| [structure[3 * atom], structure[3 * atom + 1], structure[3 * atom + 2]];
            let torsion = dihedral(at(row.atom), at(row.bond), at(row.angle), at(row.torsion));
            let value = (cosine.abs() < 1.0).then(|| cosine.acos().copysign(torsion));
            fix(first + 3 * k + 2, value, row.atom, row.torsion);
        }
    }
    match distances.keys().find(|pair| !used.contains(pair)) {
        None => Ok(fixed),
        Some((i, j)) => Err(CoordinatesError::Unsuitable(format!(
            "the constraint between atoms {i} and {j} is neither a bond nor an angle between constrained bonds, and no \
             coordinate of a flow; write the system with constraints=None, HBonds, or rigidWater"
        ))),
    }
}
