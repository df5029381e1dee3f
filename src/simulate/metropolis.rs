//! Metropolis Monte Carlo (Metropolis, Rosenbluth, Rosenbluth, Teller and Teller, J. Chem. Phys. 21, 1087 (1953)) with
//! moves of all coordinates.

use super::cell::{Cell, Failure, Scratch, Setting};
use crate::compute::fused::{Portable, ln};
use crate::math::Purpose;

#[derive(Debug)]
pub struct Metropolis {
    /// Standard deviation of a move at each temperature.
    pub steps: Vec<f64>,
}

impl Metropolis {
    /// Carries a cell through moves `first + 1` to `first + moves`. A move to where the energy is not finite is not
    /// accepted.
    pub fn advance(&self, cell: &mut Cell, setting: &Setting, first: u64, moves: u64) -> Result<(), Failure> {
        let (d, n) = (setting.mechanics.dimension, cell.positions.len());
        for step in first..first.saturating_add(moves) {
            let Scratch { noise, energies, .. } = &mut *cell.scratch;
            let (proposed, energies) = (&mut noise[..n], &mut energies[..cell.rungs.len()]);
            setting.source.normals(Purpose::SimulationNoise, step, cell.first_row, d, proposed);
            let rows = proposed.chunks_exact_mut(d).zip(cell.positions.chunks_exact(d));
            for ((to, from), &rung) in rows.zip(cell.rungs) {
                let size = self.steps[rung as usize];
                to.iter_mut().zip(from).for_each(|(to, from)| *to = from + size * *to);
            }
            if (setting.stop)() {
                return Err(Failure::Stopped);
            }
            setting.potential.evaluate(proposed, energies, None).map_err(Failure::Energy)?;
            let rows = proposed.chunks_exact(d).zip(cell.positions.chunks_exact_mut(d)).zip(energies);
            for (r, ((to, from), energy)) in rows.enumerate() {
                let rise = (*energy - cell.energies[r]) / setting.kt[cell.rungs[r] as usize];
                let tally = &mut cell.tallies[r];
                tally.moves += 1.0;
                let u = setting.source.uniform(Purpose::SimulationAccept, step, cell.first_row + r);
                if energy.is_finite() && ln::<Portable>(u) < -rise {
                    tally.accepted += 1.0;
                    from.copy_from_slice(to);
                    cell.energies[r] = *energy;
                }
            }
        }
        Ok(())
    }
}
