//! What one thread needs to evaluate a handful of configurations, allocated once and used for many of them.

use super::lanes::{Lanes, Vector, WIDTH};
use super::mechanics::Scratch;

/// Positions, gradients and energies of [`WIDTH`] configurations, and the intermediate results of their forces.
#[derive(Debug)]
pub(super) struct Workspace {
    /// Positions of the atoms in nm.
    pub at: Vec<Vector>,
    /// ∂U/∂x of the atoms in kJ/(mol·nm), which every force adds to.
    pub gradient: Vec<Vector>,
    /// Energies of the terms in kJ/mol.
    pub energies: Vec<Lanes>,
    /// What each term keeps.
    pub scratch: Vec<Scratch>,
    /// The lanes that have configurations of their own.
    pub loaded: usize,
    finite: [bool; WIDTH],
}

/// Intermediate results of the generalized Born model, one for each atom; see `born.rs`.
#[derive(Debug)]
pub(super) struct BornScratch {
    pub integral: Vec<Lanes>,
    pub radius: Vec<Lanes>,
    pub inverse_radius: Vec<Lanes>,
    /// dB/dI, and after that dU/dI.
    pub chain: Vec<Lanes>,
    pub radius_gradient: Vec<Lanes>,
    /// (dI_i/dr)/r and (dI_j/dr)/r of every pair i < j, where there are few enough of them to be kept.
    pub slopes: Vec<[Lanes; 2]>,
}

impl BornScratch {
    pub fn new(atoms: usize, pairs: usize) -> Self {
        let lanes = || vec![Lanes::ZERO; atoms];
        Self {
            integral: lanes(),
            radius: lanes(),
            inverse_radius: lanes(),
            chain: lanes(),
            radius_gradient: lanes(),
            slopes: vec![[Lanes::ZERO; 2]; pairs],
        }
    }
}

impl Workspace {
    pub fn new(atoms: usize, scratch: Vec<Scratch>) -> Self {
        Self {
            at: vec![[Lanes::ZERO; 3]; atoms],
            gradient: vec![[Lanes::ZERO; 3]; atoms],
            energies: vec![Lanes::ZERO; scratch.len()],
            scratch,
            loaded: 0,
            finite: [false; WIDTH],
        }
    }

    /// Takes up to [`WIDTH`] rows of 3N positions; lanes without a row repeat the last one.
    pub fn load(&mut self, rows: &[f64]) {
        let d = 3 * self.at.len();
        self.loaded = (rows.len() / d).min(WIDTH);
        let last = self.loaded.saturating_sub(1);
        for lane in 0..WIDTH {
            let start = lane.min(last) * d;
            let row = &rows[start..start + d];
            self.finite[lane] = row.iter().all(|x| x.is_finite());
            for (at, x) in self.at.iter_mut().zip(row.chunks_exact(3)) {
                for axis in 0..3 {
                    at[axis].0[lane] = x[axis];
                }
            }
        }
        self.gradient.fill([Lanes::ZERO; 3]);
    }

    /// Total energies, one for each row that was loaded.
    pub fn store_energies(&self, totals: &mut [f64]) {
        for (lane, total) in totals.iter_mut().enumerate() {
            let sum: f64 = self.energies.iter().map(|e| e.0[lane]).sum();
            *total = self.if_finite(lane, sum);
        }
    }

    /// Energies (rows, terms) of the rows that were loaded.
    pub fn store_terms(&self, terms: &mut [f64]) {
        for (lane, row) in terms.chunks_exact_mut(self.energies.len()).enumerate() {
            for (term, e) in row.iter_mut().zip(&self.energies) {
                *term = self.if_finite(lane, e.0[lane]);
            }
        }
    }

    /// Gradients (rows, 3N) of the rows that were loaded.
    pub fn store_gradients(&self, gradients: &mut [f64]) {
        for (lane, row) in gradients.chunks_exact_mut(3 * self.at.len()).enumerate() {
            for (to, from) in row.chunks_exact_mut(3).zip(&self.gradient) {
                for axis in 0..3 {
                    to[axis] = self.if_finite(lane, from[axis].0[lane]);
                }
            }
        }
    }

    /// An atom at infinity is out of reach of every pair force, so that without this its energy could be finite.
    fn if_finite(&self, lane: usize, value: f64) -> f64 {
        if self.finite[lane] { value } else { f64::NAN }
    }
}
