//! Choosing coordinates for a system.

use super::cartesian::CartesianCoordinates;
use super::constraints::{across_angles, fixed_coordinates};
use super::equivalent::{equivalent_pairs, put_in_order};
use super::internal::{InternalCoordinate, InternalCoordinates, InternalQuantity};
use super::mean_free::MeanFreeCoordinates;
use super::pilot::pilot;
use super::relabelled::RelabelledCoordinates;
use super::transform::{CoordinateKind, CoordinateTransform, CoordinatesError};
use super::zmatrix::{Molecule, ZMatrix};
use crate::energy::analytic::{AnalyticPotential, ParticleSymmetry};
use crate::energy::{System, SystemDefinition, has_start, relax};
use crate::math::special::wrap_angle;
use std::f64::consts::PI;
use std::sync::Arc;

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

/// Coordinates for a system at a temperature, scaled to `data` (configurations, rows of the system's dimension) if there
/// are any, else to the potential: its extent, the curvature of its minimum-energy structure, or a pilot simulation.
pub fn choose_coordinates(
    system: &System,
    data: Option<&[f64]>,
    temperature: f64,
) -> Result<Arc<dyn CoordinateTransform>, CoordinatesError> {
    if is_molecule(system) {
        return Ok(Arc::new(internal(system, data, temperature)?));
    }
    check_unconstrained(system)?;
    let d = system.dimension();
    let analytic = match system.definition() {
        SystemDefinition::Analytic(potential) => Some(potential),
        SystemDefinition::OpenMm { .. } => None,
    };
    match (analytic.and_then(AnalyticPotential::particle_symmetry), analytic) {
        (Some(ParticleSymmetry::Translation { space }), Some(potential)) => {
            let scale = match data {
                Some(data) => {
                    let unscaled = MeanFreeCoordinates::new(d / space, space, 1.0)?;
                    let mut y = vec![0.0; unscaled.kinds().len()];
                    let square = |x: &[f64]| {
                        unscaled.to_coordinates(x, &mut y);
                        y.iter().map(|y| y * y).sum::<f64>() / y.len() as f64
                    };
                    (data.chunks_exact(d).map(square).sum::<f64>() / (data.len() / d) as f64).sqrt()
                }
                None => potential.extent().first().map_or(1.0, |e| e.1),
            };
            Ok(Arc::new(MeanFreeCoordinates::new(d / space, space, scale)?))
        }
        (Some(ParticleSymmetry::Exchange { space, identical }), Some(potential)) => {
            let relabelled = |extent: &[(f64, f64)]| {
                let cartesian = CartesianCoordinates::new(extent)?;
                RelabelledCoordinates::new(cartesian, space, identical.clone(), potential.start())
            };
            let mut transform = relabelled(&potential.extent())?;
            if let Some(data) = data {
                let mut data = data.to_vec();
                data.chunks_exact_mut(d).for_each(|x| transform.put_in_order(x));
                transform = relabelled(&moments(&data, d)?)?;
            }
            Ok(Arc::new(transform))
        }
        _ => {
            let extent = match (data, analytic) {
                (Some(data), _) => moments(data, d)?,
                (None, Some(potential)) => potential.extent(),
                (None, None) => moments(&pilot(system, temperature)?, d)?,
            };
            Ok(Arc::new(CartesianCoordinates::new(&extent)?))
        }
    }
}

/// Whether a system's coordinates are those within a molecule.
fn is_molecule(system: &System) -> bool {
    system.atoms().is_some() && system.potential().is_rigid_invariant()
}

fn check_unconstrained(system: &System) -> Result<(), CoordinatesError> {
    if system.constraints().is_empty() {
        return Ok(());
    }
    Err(CoordinatesError::Unsuitable(
        "forces hold the molecule in space, so that its coordinates are Cartesian, in which constraints cannot be held; \
         write the system with constraints=None"
            .into(),
    ))
}

/// The kinds of coordinates that a system will have, without the work of scaling them; or why it cannot have any. Data
/// may later turn a torsion that never goes round into a real coordinate.
pub fn preview_kinds(system: &System, has_data: bool) -> Result<Vec<CoordinateKind>, CoordinatesError> {
    if !is_molecule(system) {
        check_unconstrained(system)?;
        let d = system.dimension();
        let symmetry = match system.definition() {
            SystemDefinition::Analytic(potential) => potential.particle_symmetry(),
            SystemDefinition::OpenMm { .. } if !has_data && !has_start(system) => return Err(no_structure()),
            SystemDefinition::OpenMm { .. } => None,
        };
        let free = match symmetry {
            Some(ParticleSymmetry::Translation { space }) => d - space,
            _ => d,
        };
        return Ok(vec![CoordinateKind::Real; free]);
    }
    if !has_data && system.topology().is_none() {
        return Err(no_structure());
    }
    let structure = system.topology().map(|topology| topology.positions.as_slice());
    let zmatrix = zmatrix(system, structure)?;
    let fixed = match structure {
        Some(structure) => fixed_coordinates(&zmatrix, system.constraints(), structure)?,
        None => Vec::new(),
    };
    let quantities = InternalCoordinates::quantities(&zmatrix).into_iter().enumerate();
    let free = quantities.filter(|(k, _)| fixed.iter().all(|(fixed, _)| fixed != k));
    Ok(free.map(|(k, q)| kind(&zmatrix, k, q)).collect())
}

/// A proper torsion goes round; an improper one is stiff.
fn kind(zmatrix: &ZMatrix, k: usize, quantity: InternalQuantity) -> CoordinateKind {
    let improper = k < 3 || zmatrix.rows[k / 3 - 1].improper;
    if quantity == InternalQuantity::Torsion && !improper { CoordinateKind::Circular } else { CoordinateKind::Real }
}

fn no_structure() -> CoordinatesError {
    CoordinatesError::Unsuitable("a molecule needs a topology_pdb with a structure, or a dataset, to start from".into())
}

/// Mean and standard deviation of each column.
fn moments(data: &[f64], d: usize) -> Result<Vec<(f64, f64)>, CoordinatesError> {
    let n = (data.len() / d) as f64;
    let mean: Vec<f64> = (0..d).map(|j| data.iter().skip(j).step_by(d).sum::<f64>() / n).collect();
    (0..d)
        .map(|j| {
            let variance = data.iter().skip(j).step_by(d).map(|x| (x - mean[j]).powi(2)).sum::<f64>() / n;
            if variance > 0.0 {
                Ok((mean[j], variance.sqrt()))
            } else {
                Err(CoordinatesError::Unsuitable(format!("coordinate {j} of the dataset never changes")))
            }
        })
        .collect()
}

fn internal(system: &System, data: Option<&[f64]>, temperature: f64) -> Result<InternalCoordinates, CoordinatesError> {
    let d = system.dimension();
    let structure = match (data.and_then(|data| data.get(..d)), system.topology()) {
        (Some(frame), _) => frame.to_vec(),
        (None, Some(topology)) => topology.positions.clone(),
        (None, None) => return Err(no_structure()),
    };
    let zmatrix = zmatrix(system, Some(&structure))?;
    let fixed = fixed_coordinates(&zmatrix, system.constraints(), &structure)?;
    let mut pairs = equivalent_pairs(&zmatrix, system, &structure, &fixed);
    let measured: Option<Vec<Vec<f64>>> = data.map(|data| {
        let in_order = |x: &[f64]| {
            let mut values = InternalCoordinates::measure(&zmatrix, x);
            put_in_order(&pairs, &mut values);
            values
        };
        data.chunks_exact(d).map(in_order).collect()
    });
    let mut coordinates = match &measured {
        Some(measured) => scaled_to_data(&zmatrix, measured, &fixed),
        None => scaled_to_minimum(system, &zmatrix, structure, temperature, &fixed)?,
    };
    confine(&zmatrix, &mut coordinates);
    // What the data leave is not forbidden to them.
    for values in measured.iter().flatten() {
        for (c, value) in coordinates.iter_mut().zip(values) {
            if c.half_circle.is_some_and(|middle| wrap_angle(value - middle).abs() >= PI / 2.0) {
                c.half_circle = None;
            }
        }
    }
    pairs.retain(|rows| rows.iter().all(|row| coordinates[3 * row + 5].half_circle.is_some()));
    InternalCoordinates::new(zmatrix, coordinates, pairs)
}

fn zmatrix(system: &System, structure: Option<&[f64]>) -> Result<ZMatrix, CoordinatesError> {
    let heavy: Vec<bool> = system.masses().iter().map(|&m| m > HYDROGEN_MASS).collect();
    let angles = across_angles(system.constraints(), heavy.len());
    let mut bonds: Vec<_> = system.bonds().iter().copied().filter(|bond| !angles.contains(bond)).collect();
    if let Some(topology) = system.topology() {
        bonds.extend(&topology.bonds);
    }
    let constraints: Vec<_> = system.constraints().iter().map(|c| (c.i.min(c.j), c.i.max(c.j))).collect();
    ZMatrix::new(&Molecule { bonds: &bonds, constraints: &constraints, heavy: &heavy, structure })
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
fn confine(zmatrix: &ZMatrix, coordinates: &mut [InternalCoordinate]) {
    let stiff: Vec<(usize, usize)> =
        zmatrix.rows.iter().enumerate().filter(|(_, r)| r.improper).map(|(i, r)| (3 * i + 5, r.bond)).collect();
    for &(k, centre) in &stiff {
        if coordinates[k].kind != CoordinateKind::Real {
            continue;
        }
        let angle = coordinates[k].centre;
        let others: Vec<f64> =
            stiff.iter().filter(|(j, c)| *c == centre && *j != k).map(|(j, _)| coordinates[*j].centre).collect();
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
    let transform = InternalCoordinates::new(zmatrix.clone(), coordinates.clone(), Vec::new())?;
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
