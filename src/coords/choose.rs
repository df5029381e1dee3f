//! Choosing coordinates for a system.

use super::cartesian::CartesianCoordinates;
use super::internal::{InternalCoordinate, InternalCoordinates, InternalQuantity};
use super::transform::{CoordinateKind, CoordinateTransform, CoordinatesError};
use super::zmatrix::ZMatrix;
use crate::energy::{System, SystemDefinition, minimise};
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
/// are any, else to the potential: its extent, or the curvature of its minimum-energy structure.
pub fn choose_coordinates(
    system: &System,
    data: Option<&[f64]>,
    temperature: f64,
) -> Result<Arc<dyn CoordinateTransform>, CoordinatesError> {
    if system.atoms().is_some() && system.potential().is_rigid_invariant() {
        return Ok(Arc::new(internal(system, data, temperature)?));
    }
    let extent = match (data, system.definition()) {
        (Some(data), _) => moments(data, system.dimension())?,
        (None, SystemDefinition::Analytic(potential)) => potential.extent(),
        (None, SystemDefinition::OpenMm { .. }) => {
            return Err(CoordinatesError::Unsuitable("this system needs a dataset to scale its coordinates to".into()));
        }
    };
    Ok(Arc::new(CartesianCoordinates::new(&extent)?))
}

/// The kinds of coordinates that a system will have, without the work of scaling them; or why it cannot have any. Data
/// may later turn a torsion that never goes round into a real coordinate.
pub fn preview_kinds(system: &System, has_data: bool) -> Result<Vec<CoordinateKind>, CoordinatesError> {
    if system.atoms().is_none() || !system.potential().is_rigid_invariant() {
        return Ok(vec![CoordinateKind::Real; system.dimension()]);
    }
    if !has_data && system.topology().is_none() {
        return Err(no_structure());
    }
    let zmatrix = zmatrix(system)?;
    Ok(InternalCoordinates::quantities(&zmatrix).into_iter().enumerate().map(|(k, q)| kind(&zmatrix, k, q)).collect())
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
    let zmatrix = zmatrix(system)?;
    let mut coordinates = match data {
        Some(data) => scaled_to_data(&zmatrix, data, system.dimension()),
        None => scaled_to_minimum(system, &zmatrix, temperature)?,
    };
    confine(&zmatrix, &mut coordinates);
    if let Some(data) = data {
        // What the data leave is not forbidden to them.
        for x in data.chunks_exact(system.dimension()) {
            for (c, value) in coordinates.iter_mut().zip(InternalCoordinates::measure(&zmatrix, x)) {
                if c.half_circle.is_some_and(|middle| wrap_angle(value - middle).abs() >= PI / 2.0) {
                    c.half_circle = None;
                }
            }
        }
    }
    InternalCoordinates::new(zmatrix, coordinates)
}

fn zmatrix(system: &System) -> Result<ZMatrix, CoordinatesError> {
    if system.constraints() > 0 {
        return Err(CoordinatesError::Unsuitable(format!(
            "the system has {} constraints, which flows cannot respect yet; write the system with constraints=None",
            system.constraints()
        )));
    }
    let heavy: Vec<bool> = system.masses().iter().map(|&m| m > HYDROGEN_MASS).collect();
    let mut bonds = system.bonds().to_vec();
    if let Some(topology) = system.topology() {
        bonds.extend(&topology.bonds);
    }
    ZMatrix::from_bonds(heavy.len(), &bonds, &heavy)
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

fn scaled_to_data(zmatrix: &ZMatrix, data: &[f64], d: usize) -> Vec<InternalCoordinate> {
    let quantities = InternalCoordinates::quantities(zmatrix);
    let n = (data.len() / d) as f64;
    let (mut sums, mut sines, mut cosines) =
        (vec![0.0; quantities.len()], vec![0.0; quantities.len()], vec![0.0; quantities.len()]);
    for x in data.chunks_exact(d) {
        for (k, value) in InternalCoordinates::measure(zmatrix, x).into_iter().enumerate() {
            sums[k] += value;
            sines[k] += value.sin();
            cosines[k] += value.cos();
        }
    }
    let centres: Vec<f64> = quantities
        .iter()
        .enumerate()
        .map(|(k, q)| if *q == InternalQuantity::Torsion { sines[k].atan2(cosines[k]) } else { sums[k] / n })
        .collect();
    let (mut squares, mut farthest) = (vec![0.0; quantities.len()], vec![0.0f64; quantities.len()]);
    for x in data.chunks_exact(d) {
        for (k, value) in InternalCoordinates::measure(zmatrix, x).into_iter().enumerate() {
            let gap = value - centres[k];
            let gap = if quantities[k] == InternalQuantity::Torsion { wrap_angle(gap) } else { gap };
            squares[k] += gap * gap;
            farthest[k] = farthest[k].max(gap.abs());
        }
    }
    quantities
        .into_iter()
        .enumerate()
        .map(|(k, quantity)| {
            let (low, high) = plausible_scale(quantity);
            let circular = quantity == InternalQuantity::Torsion && farthest[k] >= CONFINED;
            InternalCoordinate {
                quantity,
                kind: if circular { CoordinateKind::Circular } else { CoordinateKind::Real },
                centre: centres[k],
                scale: if circular { 1.0 } else { (squares[k] / n).sqrt().clamp(low, high) },
                half_circle: None,
            }
        })
        .collect()
}

/// Centres at the minimum-energy structure, scales from the curvature of the reduced potential there.
fn scaled_to_minimum(
    system: &System,
    zmatrix: &ZMatrix,
    temperature: f64,
) -> Result<Vec<InternalCoordinate>, CoordinatesError> {
    let unsuitable = |reason: String| CoordinatesError::Unsuitable(reason);
    let Some(topology) = system.topology() else {
        return Err(no_structure());
    };
    let mut x = topology.positions.clone();
    minimise(system.potential().as_ref(), &mut x, MINIMISED).map_err(|e| unsuitable(e.to_string()))?;
    let values = InternalCoordinates::measure(zmatrix, &x);
    let mut coordinates: Vec<InternalCoordinate> = InternalCoordinates::quantities(zmatrix)
        .into_iter()
        .enumerate()
        .map(|(k, quantity)| InternalCoordinate {
            quantity,
            kind: kind(zmatrix, k, quantity),
            centre: values[k],
            scale: 1.0,
            half_circle: None,
        })
        .collect();
    let transform = InternalCoordinates::new(zmatrix.clone(), coordinates.clone())?;
    let beta = 1.0 / system.scale().kt(temperature);
    let gradient = |k: usize, y: f64| {
        let d = coordinates.len();
        let (mut point, mut out) = (vec![0.0; d], vec![0.0; d]);
        point[k] = y;
        let mut positions = vec![0.0; system.dimension()];
        transform.to_positions(&point, &mut positions);
        let mut force = vec![0.0; system.dimension()];
        system.potential().evaluate(&positions, &mut [0.0], Some(&mut force)).map_err(|e| unsuitable(e.to_string()))?;
        force.iter_mut().for_each(|f| *f *= beta);
        transform.pull_back(&point, &positions, &mut force, &mut out);
        Ok::<f64, CoordinatesError>(out[k])
    };
    let mut scales = Vec::with_capacity(coordinates.len());
    for (k, coordinate) in coordinates.iter().enumerate() {
        let (low, high) = plausible_scale(coordinate.quantity);
        let step = low;
        let curvature = (gradient(k, step)? - gradient(k, -step)?) / (2.0 * step);
        scales.push(if coordinate.kind == CoordinateKind::Circular {
            1.0
        } else if curvature > 0.0 {
            (1.0 / curvature.sqrt()).clamp(low, high)
        } else {
            high
        });
    }
    coordinates.iter_mut().zip(scales).for_each(|(c, scale)| c.scale = scale);
    Ok(coordinates)
}
