//! A configuration that a system has by itself.

use super::potential::EnergyError;
use super::relax::relax;
use super::system::{System, SystemDefinition};

/// Whether [`own_start`] finds one.
pub fn has_start(system: &System) -> bool {
    matches!(system.definition(), SystemDefinition::Analytic(_))
        || system.topology().is_some()
        || system.atoms() == Some(1)
}

/// A configuration to start from, and what it is: of a molecule its topology's structure, of particles a lattice, relaxed
/// until no component of the gradient exceeds `tolerance`.
pub fn own_start(system: &System, tolerance: f64) -> Result<(Vec<f64>, &'static str), EnergyError> {
    let (mut start, how) = match (system.definition(), system.topology()) {
        (SystemDefinition::Analytic(potential), _) => match potential.particle_symmetry() {
            None => return Ok((potential.start(), "the centre of the potential")),
            Some(_) => (potential.start(), "a lattice of particles, relaxed"),
        },
        (_, Some(topology)) => (topology.positions.clone(), "the structure of the topology, relaxed"),
        (_, None) => (vec![0.0; system.dimension()], "the origin, relaxed"),
    };
    relax(system, &mut start, tolerance)?;
    Ok((start, how))
}
