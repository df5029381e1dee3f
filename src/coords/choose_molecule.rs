//! The coordinates of a molecule: internal ones, or mixed with a core in Cartesian coordinates.

use super::choose::CoordinateChoice;
use super::constraints::{across_angles, fixed_coordinates};
use super::core::WhitenedCore;
use super::equivalent::{equivalent_pairs, put_in_order};
use super::geometry::dihedral;
use super::internal::InternalCoordinates;
use super::placement::point;
use super::quantity::{InternalCoordinate, InternalQuantity};
use super::transform::{CoordinateKind, CoordinateTransform, CoordinatesError};
use super::zmatrix::{Base, Molecule, ZMatrix, ZMatrixRow, neighbours};
use crate::energy::{System, relax};
use crate::math::special::wrap_angle;
use std::f64::consts::PI;

/// Atoms lighter than this (dalton) are hydrogens, even with their masses repartitioned.
const HYDROGEN_MASS: f64 = 4.5;

/// A torsion is confined if data never leave this distance (radian) from their mean direction: half a turn away, where
/// the coordinate ends, is then out of reach.
const CONFINED: f64 = 1.3;

/// Two torsions of a four-bonded centre are on either side of the third if their sines are at least this.
const UPRIGHT: f64 = 0.3;

/// The largest component of the gradient (kJ/mol/nm) that a minimised structure may have.
const MINIMISED: f64 = 1.0;

/// Spreads outside of these are not physical: bonds in nm, angles and torsions in radian.
fn plausible_scale(quantity: InternalQuantity) -> (f64, f64) {
    match quantity {
        InternalQuantity::Bond => (5e-4, 0.02),
        InternalQuantity::Angle => (5e-3, 0.3),
        InternalQuantity::Torsion => (1e-2, 0.5),
    }
}

/// A proper torsion goes round; an improper one is stiff.
fn kind(zmatrix: &ZMatrix, k: usize, quantity: InternalQuantity) -> CoordinateKind {
    let row = k.checked_sub(zmatrix.base.internal_coordinates()).map(|k| &zmatrix.rows[k / 3]);
    let improper = row.is_none_or(|row| row.improper);
    if quantity == InternalQuantity::Torsion && !improper { CoordinateKind::Circular } else { CoordinateKind::Real }
}

pub(super) fn no_structure() -> CoordinatesError {
    CoordinatesError::Unsuitable("a molecule needs a topology_pdb with a structure, or a dataset, to start from".into())
}

/// Internal coordinates, or mixed ones, scaled to data, or to the structure of least energy.
pub(super) fn internal_coordinates(
    system: &System,
    data: Option<&[f64]>,
    temperature: f64,
    choice: &CoordinateChoice,
) -> Result<InternalCoordinates, CoordinatesError> {
    let d = system.dimension();
    let structure = match (data.and_then(|data| data.get(..d)), system.topology()) {
        (Some(frame), _) => frame.to_vec(),
        (None, Some(topology)) => topology.positions.clone(),
        (None, None) => return Err(no_structure()),
    };
    let bonds = bonds(system);
    let zmatrix = zmatrix(system, &bonds, Some(&structure), choice)?;
    let core = match (&zmatrix.base, data) {
        (Base::Frame(_), _) => None,
        (Base::Core(atoms), Some(data)) => {
            Some(WhitenedCore::of_data(atoms.clone(), data, d, &neighbours(&bonds, d / 3)?)?)
        }
        (Base::Core(_), None) => return Err(no_data()),
    };
    let fixed = fixed_coordinates(&zmatrix, system.constraints(), &structure)?;
    let mut pairs = equivalent_pairs(&zmatrix, system, &structure, &fixed);
    let within_core = torsions_within_core(&zmatrix, &bonds, &structure);
    let first = zmatrix.base.internal_coordinates();
    let mut broken: Vec<[usize; 2]> = Vec::new();
    loop {
        let measured: Option<Vec<Vec<f64>>> = data.map(|data| {
            let in_order = |x: &[f64]| {
                let mut values = InternalCoordinates::measure(&zmatrix, x);
                put_in_order(&zmatrix, &pairs, &mut values);
                values
            };
            data.chunks_exact(d).map(in_order).collect()
        });
        let mut coordinates = match &measured {
            Some(measured) => scaled_to_data(&zmatrix, measured, &fixed),
            None => scaled_to_minimum(system, &zmatrix, structure.clone(), temperature, &fixed)?,
        };
        confine(&zmatrix, &mut coordinates, &within_core);
        // Without an order, either may be anywhere.
        broken.iter().flatten().for_each(|row| coordinates[first + 3 * row + 2].half_circle = None);
        // What the data leave is not forbidden to them.
        for values in measured.iter().flatten() {
            for (c, value) in coordinates.iter_mut().zip(values) {
                if c.half_circle.is_some_and(|middle| wrap_angle(value - middle).abs() >= PI / 2.0) {
                    c.half_circle = None;
                }
            }
        }
        let half = |row: usize| coordinates[first + 3 * row + 2].half_circle;
        let is_in_order = |pair: &[usize; 2]| pair.map(half) == [Some(PI / 2.0), Some(-PI / 2.0)];
        if pairs.iter().all(is_in_order) {
            return InternalCoordinates::new(zmatrix, core, coordinates, pairs);
        }
        let (kept, others) = pairs.into_iter().partition(is_in_order);
        pairs = kept;
        broken.extend::<Vec<_>>(others);
    }
}

/// The kinds of a molecule's coordinates, without the work of scaling them.
pub(super) fn molecule_kinds(
    system: &System,
    has_data: bool,
    choice: &CoordinateChoice,
) -> Result<Vec<CoordinateKind>, CoordinatesError> {
    if !has_data && system.topology().is_none() {
        return Err(no_structure());
    }
    if !has_data && *choice != CoordinateChoice::Automatic {
        return Err(no_data());
    }
    let structure = system.topology().map(|topology| topology.positions.as_slice());
    let zmatrix = zmatrix(system, &bonds(system), structure, choice)?;
    let fixed = match structure {
        Some(structure) => fixed_coordinates(&zmatrix, system.constraints(), structure)?,
        None => Vec::new(),
    };
    let quantities = InternalCoordinates::quantities(&zmatrix).into_iter().enumerate();
    let free = quantities.filter(|(k, _)| fixed.iter().all(|(fixed, _)| fixed != k));
    let of_core = match &zmatrix.base {
        Base::Frame(_) => 0,
        Base::Core(atoms) => WhitenedCore::dimension_of(atoms)?,
    };
    let mut kinds = vec![CoordinateKind::Real; of_core];
    kinds.extend(free.map(|(k, q)| kind(&zmatrix, k, q)));
    Ok(kinds)
}

/// The bonds of a molecule: those of its forces and constraints, and of its topology.
fn bonds(system: &System) -> Vec<(usize, usize)> {
    let angles = across_angles(system.constraints(), system.masses().len());
    let mut bonds: Vec<_> = system.bonds().iter().copied().filter(|bond| !angles.contains(bond)).collect();
    if let Some(topology) = system.topology() {
        bonds.extend(&topology.bonds);
    }
    bonds
}

fn zmatrix(
    system: &System,
    bonds: &[(usize, usize)],
    structure: Option<&[f64]>,
    choice: &CoordinateChoice,
) -> Result<ZMatrix, CoordinatesError> {
    let heavy: Vec<bool> = system.masses().iter().map(|&m| m > HYDROGEN_MASS).collect();
    let constraints: Vec<_> = system.constraints().iter().map(|c| (c.i.min(c.j), c.i.max(c.j))).collect();
    let molecule = Molecule { bonds, constraints: &constraints, heavy: &heavy, structure };
    let CoordinateChoice::Mixed { core_atoms } = choice else { return ZMatrix::new(&molecule) };
    let core =
        if core_atoms.is_empty() { skeleton(&neighbours(bonds, heavy.len())?, &heavy) } else { core_atoms.clone() };
    WhitenedCore::dimension_of(&core)?;
    let unsuitable = |reason: String| Err(CoordinatesError::Unsuitable(reason));
    if let Some(lost) = core.iter().find(|&&atom| atom >= heavy.len()) {
        return unsuitable(format!("core_atoms has {lost}; the system has {} atoms, counted from 0", heavy.len()));
    }
    if let Some(twice) = core.iter().enumerate().find(|(i, atom)| core[..*i].contains(atom)) {
        return unsuitable(format!("core_atoms has {} twice", twice.1));
    }
    if let Some((i, j)) = constraints.iter().find(|(i, j)| core.contains(i) && core.contains(j)) {
        return unsuitable(format!(
            "the constraint between atoms {i} and {j} is within the core, whose coordinates are Cartesian and cannot hold \
             it; leave one of them out of core_atoms, or write the system with constraints=None or HBonds"
        ));
    }
    ZMatrix::around(core, &molecule)
}

/// The heavy atoms of each molecule with two heavy neighbours or more; its heavy atoms where there are none such, or all
/// atoms. All heavy atoms, if that is too few for a core.
fn skeleton(neighbours: &[Vec<usize>], heavy: &[bool]) -> Vec<usize> {
    let rank = |atom: usize| match (heavy[atom], neighbours[atom].iter().filter(|&&j| heavy[j]).count()) {
        (true, 2..) => 2,
        (true, _) => 1,
        (false, _) => 0,
    };
    let mut core = Vec::new();
    let mut seen = vec![false; heavy.len()];
    for start in 0..heavy.len() {
        let mut molecule = Vec::new();
        let mut stack = vec![start];
        while let Some(atom) = stack.pop() {
            if !std::mem::replace(&mut seen[atom], true) {
                molecule.push(atom);
                stack.extend(&neighbours[atom]);
            }
        }
        let best = molecule.iter().map(|&atom| rank(atom)).max();
        core.extend(molecule.into_iter().filter(|&atom| Some(rank(atom)) == best));
    }
    if core.len() < 3 {
        core = (0..heavy.len()).filter(|&atom| heavy[atom]).collect();
    }
    core.sort_unstable();
    core
}

fn no_data() -> CoordinatesError {
    CoordinatesError::Unsuitable("mixed coordinates are scaled to data: name a dataset".into())
}

/// Of each row at a centre of the core: the torsions of the centre's other atoms in the core, in the row's frame.
fn torsions_within_core(zmatrix: &ZMatrix, bonds: &[(usize, usize)], structure: &[f64]) -> Vec<Vec<f64>> {
    let at = |atom: usize| point(structure, atom);
    let Base::Core(core) = &zmatrix.base else { return vec![Vec::new(); zmatrix.rows.len()] };
    let of_row = |row: &ZMatrixRow| {
        let bonded = bonds.iter().filter_map(|&(i, j)| match row.bond {
            centre if centre == i => Some(j),
            centre if centre == j => Some(i),
            _ => None,
        });
        let mut others: Vec<usize> = bonded
            .filter(|j| core.contains(&row.bond) && core.contains(j) && *j != row.angle && *j != row.torsion)
            .collect();
        others.sort_unstable();
        others.dedup();
        others.into_iter().map(|j| dihedral(at(j), at(row.bond), at(row.angle), at(row.torsion))).collect()
    };
    zmatrix.rows.iter().map(of_row).collect()
}

/// A coordinate before its scale is known.
fn unscaled(
    quantity: InternalQuantity,
    kind: CoordinateKind,
    value: f64,
    k: usize,
    fixed: &[(usize, f64)],
) -> InternalCoordinate {
    let held = fixed.iter().find(|(fixed, _)| *fixed == k).map(|(_, value)| *value);
    InternalCoordinate {
        quantity,
        kind: if held.is_some() { CoordinateKind::Real } else { kind },
        centre: held.unwrap_or(value),
        scale: 1.0,
        half_circle: None,
        fixed: held.is_some(),
    }
}

/// Gives the stiff torsions between atoms on one centre their half circle.
///
/// Around a centre with four bonds, the torsions of two atoms relative to a third have opposite signs; they keep them, and
/// with them the handedness of the centre, which for three hydrogens is their order. Around one with three bonds the
/// single torsion may pass the plane, where it is π, but not zero.
fn confine(zmatrix: &ZMatrix, coordinates: &mut [InternalCoordinate], within_core: &[Vec<f64>]) {
    let first = zmatrix.base.internal_coordinates();
    let improper = zmatrix.rows.iter().enumerate().filter(|(_, r)| r.improper);
    let stiff: Vec<(usize, usize, usize)> = improper.map(|(i, r)| (i, first + 3 * i + 2, r.bond)).collect();
    for &(i, k, centre) in &stiff {
        if coordinates[k].kind != CoordinateKind::Real {
            continue;
        }
        let angle = coordinates[k].centre;
        let siblings = stiff.iter().filter(|(_, j, c)| *c == centre && *j != k);
        let mut others: Vec<f64> = siblings.map(|(_, j, _)| coordinates[*j].centre).collect();
        others.extend(&within_core[i]);
        coordinates[k].half_circle = Some(match others.as_slice() {
            [] if angle.cos() < 0.0 => PI,
            [other] if angle.sin() * other.sin() < 0.0 && angle.sin().abs().min(other.sin().abs()) > UPRIGHT => {
                (PI / 2.0).copysign(angle.sin())
            }
            _ => angle,
        });
    }
}

/// Centres and scales of the coordinates' values, one row for each configuration.
fn scaled_to_data(zmatrix: &ZMatrix, measured: &[Vec<f64>], fixed: &[(usize, f64)]) -> Vec<InternalCoordinate> {
    let n = measured.len() as f64;
    let coordinate = |(k, quantity): (usize, InternalQuantity)| {
        let column = || measured.iter().map(|values| values[k]);
        let is_torsion = quantity == InternalQuantity::Torsion;
        let centre = if is_torsion {
            column().map(f64::sin).sum::<f64>().atan2(column().map(f64::cos).sum())
        } else {
            column().sum::<f64>() / n
        };
        let gaps = || column().map(|value| if is_torsion { wrap_angle(value - centre) } else { value - centre });
        let goes_round = is_torsion && gaps().any(|gap| gap.abs() >= CONFINED);
        let kind = if goes_round { CoordinateKind::Circular } else { CoordinateKind::Real };
        let mut coordinate = unscaled(quantity, kind, centre, k, fixed);
        if coordinate.kind == CoordinateKind::Real && !coordinate.fixed {
            let (low, high) = plausible_scale(quantity);
            coordinate.scale = (gaps().map(|gap| gap * gap).sum::<f64>() / n).sqrt().clamp(low, high);
        }
        coordinate
    };
    InternalCoordinates::quantities(zmatrix).into_iter().enumerate().map(coordinate).collect()
}

/// Centres at the minimum-energy structure, scales from the curvature of the reduced potential there.
fn scaled_to_minimum(
    system: &System,
    zmatrix: &ZMatrix,
    structure: Vec<f64>,
    temperature: f64,
    fixed: &[(usize, f64)],
) -> Result<Vec<InternalCoordinate>, CoordinatesError> {
    let unsuitable = |reason: String| CoordinatesError::Unsuitable(reason);
    let mut x = structure;
    relax(system, &mut x, MINIMISED).map_err(|e| unsuitable(e.to_string()))?;
    let values = InternalCoordinates::measure(zmatrix, &x);
    let mut coordinates: Vec<InternalCoordinate> = InternalCoordinates::quantities(zmatrix)
        .into_iter()
        .enumerate()
        .map(|(k, quantity)| unscaled(quantity, kind(zmatrix, k, quantity), values[k], k, fixed))
        .collect();
    let transform = InternalCoordinates::new(zmatrix.clone(), None, coordinates.clone(), Vec::new())?;
    let beta = 1.0 / system.scale().kt(temperature);
    let gradient = |place: usize, y: f64| {
        let d = transform.kinds().len();
        let (mut point, mut out) = (vec![0.0; d], vec![0.0; d]);
        point[place] = y;
        let mut positions = vec![0.0; system.dimension()];
        transform.to_positions(&point, &mut positions);
        let mut force = vec![0.0; system.dimension()];
        system.potential().evaluate(&positions, &mut [0.0], Some(&mut force)).map_err(|e| unsuitable(e.to_string()))?;
        force.iter_mut().for_each(|f| *f *= beta);
        transform.pull_back(&point, &positions, &mut force, &mut out);
        Ok::<f64, CoordinatesError>(out[place])
    };
    for (place, coordinate) in coordinates.iter_mut().filter(|c| !c.fixed).enumerate() {
        if coordinate.kind == CoordinateKind::Circular {
            continue;
        }
        let (low, high) = plausible_scale(coordinate.quantity);
        let step = low;
        let curvature = (gradient(place, step)? - gradient(place, -step)?) / (2.0 * step);
        coordinate.scale = if curvature > 0.0 { (1.0 / curvature.sqrt()).clamp(low, high) } else { high };
    }
    Ok(coordinates)
}
