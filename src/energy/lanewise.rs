//! Potentials written as functions of tiles: several configurations side by side, so that vectors run along them.

use super::potential::{EnergyError, Potential, check_batch};
use super::tables::PotentialTables;
use crate::compute::fused::{InstructionSet, Kernel, Lane, ROWS, dispatch, load, store};
use rayon::prelude::*;
use std::fmt::Debug;

/// A potential by its function of a tile; batches are cut into tiles, and these shared among threads.
pub trait Lanewise: Send + Sync + Debug {
    fn name(&self) -> &'static str;
    fn dimension(&self) -> usize;

    /// See [`Potential::tables`].
    fn tables(&self) -> Option<PotentialTables> {
        None
    }

    /// U of each configuration of the tile x (d lanes); where a place for it is given, the gradient is written (not
    /// added) to it. Must be `#[inline(always)]`.
    fn evaluate<I: InstructionSet>(&self, x: &[Lane<f64>], energy: &mut Lane<f64>, gradient: Option<&mut [Lane<f64>]>);
}

impl<P: Lanewise> Potential for P {
    fn dimension(&self) -> usize {
        Lanewise::dimension(self)
    }

    fn evaluate(
        &self,
        positions: &[f64],
        energies: &mut [f64],
        gradients: Option<&mut [f64]>,
    ) -> Result<(), EnergyError> {
        let d = Lanewise::dimension(self);
        check_batch(d, positions, energies.len(), gradients.as_deref())?;
        let tiles = positions.par_chunks(ROWS * d).zip(energies.par_chunks_mut(ROWS));
        let room = || (vec![[0.0; ROWS]; d], vec![[0.0; ROWS]; d]);
        match gradients {
            Some(gradients) => {
                tiles.zip(gradients.par_chunks_mut(ROWS * d)).for_each_init(
                    room,
                    |room, ((rows, energies), gradients)| {
                        dispatch(EnergyTile { potential: self, rows, energies, gradients: Some(gradients), room });
                    },
                );
            }
            None => tiles.for_each_init(room, |room, (rows, energies)| {
                dispatch(EnergyTile { potential: self, rows, energies, gradients: None, room });
            }),
        }
        Ok(())
    }

    fn tables(&self) -> Option<PotentialTables> {
        Lanewise::tables(self)
    }

    fn term_names(&self) -> Vec<String> {
        vec![self.name().to_string()]
    }

    fn evaluate_terms(&self, positions: &[f64], energies: &mut [f64]) -> Result<(), EnergyError> {
        Potential::evaluate(self, positions, energies, None)
    }
}

struct EnergyTile<'a, P> {
    potential: &'a P,
    rows: &'a [f64],
    energies: &'a mut [f64],
    gradients: Option<&'a mut [f64]>,
    room: &'a mut (Vec<Lane<f64>>, Vec<Lane<f64>>),
}

impl<P: Lanewise> Kernel for EnergyTile<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<I: InstructionSet>(self) {
        let (x, g) = self.room;
        let mut energy = [0.0; ROWS];
        load(self.rows, x);
        match self.gradients {
            Some(gradients) => {
                self.potential.evaluate::<I>(x, &mut energy, Some(g));
                store(g, gradients, x.len());
            }
            None => self.potential.evaluate::<I>(x, &mut energy, None),
        }
        self.energies.iter_mut().zip(energy).for_each(|(out, energy)| *out = energy);
    }
}
