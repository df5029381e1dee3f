//! Hybrid Monte Carlo: dynamics of constant energy from new velocities, accepted as a whole.

use super::cell::{Cell, Failure, Setting};
use crate::compute::fused::{Number, Portable, ln};
use crate::math::Purpose;

/// ΔH/kT from which a trajectory counts as diverged: its error says nothing of the others'.
const DIVERGED: f64 = 500.0;

#[derive(Debug)]
pub struct HybridMonteCarlo {
    pub steps: u32,
    /// Of each temperature.
    pub timesteps: Vec<f64>,
}

impl HybridMonteCarlo {
    /// Carries a cell through moves `first + 1` to `first + moves`. A trajectory that ends where the energy is not finite,
    /// or loses its constraints, is not accepted.
    pub fn advance(&self, cell: &mut Cell, setting: &Setting, first: u64, moves: u64) -> Result<(), Failure> {
        for step in first..first.saturating_add(moves) {
            self.draw_velocities(cell, setting, step);
            let n = cell.positions.len();
            cell.scratch.positions[..n].copy_from_slice(cell.positions);
            cell.scratch.gradients[..n].copy_from_slice(cell.gradients);
            cell.scratch.energies[..cell.energies.len()].copy_from_slice(cell.energies);
            self.trajectory(cell, setting)?;
            accept(cell, setting, step);
        }
        Ok(())
    }

    /// Velocities of the temperatures, and their kinetic energies.
    fn draw_velocities(&self, cell: &mut Cell, setting: &Setting, step: u64) {
        let d = setting.mechanics.dimension;
        setting.source.normals(Purpose::SimulationNoise, step, cell.first_row, d, cell.velocities);
        for (v, &rung) in cell.velocities.chunks_exact_mut(d).zip(cell.rungs) {
            let speed = setting.kt[rung as usize].sqrt();
            v.iter_mut().zip(&setting.mechanics.root_inverse_mass).for_each(|(v, w)| *v *= speed * w);
        }
        cell.scratch.held.fill(true);
        cell.project(setting.mechanics);
        for (r, v) in cell.velocities.chunks_exact(d).enumerate() {
            let twice_kinetic = setting.mechanics.twice_kinetic(v);
            cell.scratch.kinetic[r] = 0.5 * twice_kinetic;
            cell.tallies[r].looks += 1.0;
            cell.tallies[r].twice_kinetic += twice_kinetic / setting.kt[cell.rungs[r] as usize];
        }
    }

    /// The leapfrog method with half kicks at its ends.
    fn trajectory(&self, cell: &mut Cell, setting: &Setting) -> Result<(), Failure> {
        for (time, &rung) in cell.scratch.times.iter_mut().zip(cell.rungs) {
            *time = self.timesteps[rung as usize];
        }
        cell.kick(setting.mechanics, 0.5);
        for step in 1..=self.steps {
            cell.drift(setting.mechanics);
            cell.evaluate(setting)?;
            cell.kick(setting.mechanics, if step < self.steps { 1.0 } else { 0.5 });
        }
        cell.project(setting.mechanics);
        Ok(())
    }
}

/// Accepts trajectories by the change of their total energy, and puts the others back.
fn accept(cell: &mut Cell, setting: &Setting, step: u64) {
    let d = setting.mechanics.dimension;
    let kept = &*cell.scratch;
    for (r, v) in cell.velocities.chunks_exact(d).enumerate() {
        let after = cell.energies[r] + 0.5 * setting.mechanics.twice_kinetic(v);
        let error = (after - kept.energies[r] - kept.kinetic[r]) / setting.kt[cell.rungs[r] as usize];
        let usable = error.is_finite() && cell.energies[r].is_finite() && kept.held[r];
        let tally = &mut cell.tallies[r];
        tally.moves += 1.0;
        if usable && error.abs() < DIVERGED {
            tally.measured += 1.0;
            tally.error += error;
            tally.weight += (-error).exponential::<Portable>();
        }
        let u = setting.source.uniform(Purpose::SimulationAccept, step, cell.first_row + r);
        if usable && ln::<Portable>(u) < -error {
            tally.accepted += 1.0;
        } else {
            let row = r * d..(r + 1) * d;
            cell.positions[row.clone()].copy_from_slice(&kept.positions[row.clone()]);
            cell.gradients[row.clone()].copy_from_slice(&kept.gradients[row]);
            cell.energies[r] = kept.energies[r];
        }
    }
}
