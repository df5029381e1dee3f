//! Choosing coordinates for a system.

use super::cartesian::CartesianCoordinates;
use super::choose_molecule::{internal_coordinates, molecule_kinds, no_structure};
use super::mean_free::{FreeParticles, MeanFreeCoordinates};
use super::pilot::pilot;
use super::relabelled::RelabelledCoordinates;
use super::transform::{CoordinateKind, CoordinateTransform, CoordinatesError};
use crate::energy::analytic::{AnalyticPotential, ParticleSymmetry};
use crate::energy::{System, SystemDefinition, has_start};
use std::sync::Arc;

/// Which coordinates are wanted.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum CoordinateChoice {
    /// Those that suit the system: of a molecule its internal coordinates.
    Automatic,
    /// Of a molecule: a core in whitened Cartesian coordinates and internal coordinates for the rest (Noé et al., Science 365,
    /// eaaw1147 (2019)). They need data. Without `core_atoms`, the core is the skeleton of heavy atoms.
    Mixed { core_atoms: Vec<usize> },
}

/// Coordinates for a system at a temperature, scaled to `data` (configurations, rows of the system's dimension) if there
/// are any, else to the potential: its extent, the curvature of its minimum-energy structure, or a pilot simulation.
pub fn choose_coordinates(
    system: &System,
    data: Option<&[f64]>,
    temperature: f64,
    choice: &CoordinateChoice,
) -> Result<Arc<dyn CoordinateTransform>, CoordinatesError> {
    if is_molecule(system) {
        return Ok(Arc::new(internal_coordinates(system, data, temperature, choice)?));
    }
    check_automatic(choice)?;
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
            if analytic.is_none() {
                check_held(system, data)?;
            }
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

fn check_automatic(choice: &CoordinateChoice) -> Result<(), CoordinatesError> {
    match choice {
        CoordinateChoice::Automatic => Ok(()),
        CoordinateChoice::Mixed { .. } => Err(CoordinatesError::Unsuitable(
            "mixed coordinates are for molecules that nothing holds in space; leave the choice of coordinates out"
                .into(),
        )),
    }
}

/// Distances (nm) over which a system is moved, to see whether it is held: from within a flat part to beyond any wall.
const SHIFTS: [f64; 4] = [0.1, -1.3, 11.0, -1e3];
/// The difference of energies, relative to their size, that rounding can make.
const ROUNDING: f64 = 1e-8;

/// That forces hold the system along all axes: else its density has no integral in Cartesian coordinates.
fn check_held(system: &System, data: Option<&[f64]>) -> Result<(), CoordinatesError> {
    let d = system.dimension();
    let structure = match (data.and_then(|data| data.get(..d)), system.topology()) {
        (Some(frame), _) => frame.to_vec(),
        (None, Some(topology)) => topology.positions.clone(),
        (None, None) => vec![0.0; d],
    };
    let unsuitable = |reason: String| CoordinatesError::Unsuitable(reason);
    for axis in 0..3 {
        let mut rows = structure.repeat(SHIFTS.len() + 1);
        for (row, shift) in rows.chunks_exact_mut(d).skip(1).zip(SHIFTS) {
            row.iter_mut().skip(axis).step_by(3).for_each(|x| *x += shift);
        }
        let mut energies = [0.0; SHIFTS.len() + 1];
        system.potential().evaluate(&rows, &mut energies, None).map_err(|e| unsuitable(e.to_string()))?;
        let [first, rest @ ..] = energies;
        if rest.iter().all(|e| (e - first).abs() <= ROUNDING * (1.0 + first.abs())) {
            let name = ["x", "y", "z"][axis];
            return Err(unsuitable(format!(
                "its forces use the coordinates of atoms, but nothing holds it along {name}, so that its density has no \
                 integral: add a force that does, or, if its energy depends on distances and angles only, write it with \
                 distance(), angle() and dihedral() of particles"
            )));
        }
    }
    Ok(())
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
pub fn preview_kinds(
    system: &System,
    has_data: bool,
    choice: &CoordinateChoice,
) -> Result<Vec<CoordinateKind>, CoordinatesError> {
    if is_molecule(system) {
        return molecule_kinds(system, has_data, choice);
    }
    check_automatic(choice)?;
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
    Ok(vec![CoordinateKind::Real; free])
}

/// The particles of a system whose coordinates are those about their mean: they are all alike.
pub fn free_particles(system: &System) -> Option<FreeParticles> {
    match system.definition() {
        SystemDefinition::Analytic(potential) => match potential.particle_symmetry()? {
            ParticleSymmetry::Translation { space } => {
                Some(FreeParticles { particles: system.dimension() / space, space })
            }
            ParticleSymmetry::Exchange { .. } => None,
        },
        SystemDefinition::OpenMm { .. } => None,
    }
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
