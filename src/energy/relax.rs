//! The minimum of a system's energy near a structure, constraints included.

use super::minimise::minimise;
use super::openmm::Constraint;
use super::potential::{EnergyError, Potential};
use super::system::System;

/// Moves a configuration downhill until no component of the gradient exceeds `tolerance`, or the steps run out. In a
/// constraint's place there is a spring, since nothing else may hold its atoms together.
pub fn relax(system: &System, x: &mut [f64], tolerance: f64) -> Result<(), EnergyError> {
    let potential = system.potential().as_ref();
    if system.constraints().is_empty() {
        return minimise(potential, x, tolerance);
    }
    minimise(&HeldTogether { potential, constraints: system.constraints() }, x, tolerance)
}

/// The stiffness of a spring in a constraint's place, in kJ/(mol·nm²): that of a bond to hydrogen.
const STIFFNESS: f64 = 3e5;

/// A potential with springs for the constraints, whose atoms nothing else may hold together.
#[derive(Debug)]
struct HeldTogether<'a> {
    potential: &'a dyn Potential,
    constraints: &'a [Constraint],
}

impl Potential for HeldTogether<'_> {
    fn dimension(&self) -> usize {
        self.potential.dimension()
    }

    fn evaluate(
        &self,
        positions: &[f64],
        energies: &mut [f64],
        mut gradients: Option<&mut [f64]>,
    ) -> Result<(), EnergyError> {
        self.potential.evaluate(positions, energies, gradients.as_deref_mut())?;
        let d = self.dimension();
        for (row, (x, energy)) in positions.chunks_exact(d).zip(energies).enumerate() {
            for Constraint { i, j, distance } in self.constraints {
                let apart = [0, 1, 2].map(|axis| x[3 * i + axis] - x[3 * j + axis]);
                let r = apart.iter().map(|d| d * d).sum::<f64>().sqrt();
                *energy += 0.5 * STIFFNESS * (r - distance).powi(2);
                if let Some(gradient) = gradients.as_deref_mut().map(|g| &mut g[row * d..(row + 1) * d]) {
                    for axis in 0..3 {
                        let pull = STIFFNESS * (r - distance) * apart[axis] / r;
                        gradient[3 * i + axis] += pull;
                        gradient[3 * j + axis] -= pull;
                    }
                }
            }
        }
        Ok(())
    }

    fn term_names(&self) -> Vec<String> {
        self.potential.term_names()
    }

    fn evaluate_terms(&self, positions: &[f64], energies: &mut [f64]) -> Result<(), EnergyError> {
        self.potential.evaluate_terms(positions, energies)
    }
}
