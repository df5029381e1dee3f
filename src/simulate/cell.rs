//! A cell: some rows of an ensemble that one thread carries through many steps.

use super::constraints::ConstraintScratch;
use super::error::Fault;
use super::mechanics::Mechanics;
use super::noise::{Source, UNIT};
use crate::energy::{EnergyError, Potential};

/// Rows of the largest cells: energies are evaluated in groups of 8 or 32, and this many stay in the cache.
const MOST_ROWS: usize = 32;

/// Rows of a cell, for all threads to have some.
pub fn rows_of_cells(rows: usize, threads: usize) -> usize {
    rows.div_ceil(2 * threads.max(1)).next_multiple_of(UNIT).clamp(UNIT, MOST_ROWS)
}

/// What the steps of a replica add up to, until they are counted for the temperature that it has.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// Velocities that were looked at, and the sum of 2·K/kT over them.
    pub looks: f64,
    pub twice_kinetic: f64,
    pub moves: f64,
    pub accepted: f64,
    /// Trajectories that did not diverge, the sum of ΔH/kT over them, and of exp(−ΔH/kT).
    pub measured: f64,
    pub error: f64,
    pub weight: f64,
}

impl Tally {
    pub const NUMBERS: usize = 7;

    pub fn numbers(&self) -> [f64; Self::NUMBERS] {
        [self.looks, self.twice_kinetic, self.moves, self.accepted, self.measured, self.error, self.weight]
    }

    pub fn from_numbers(n: [f64; Self::NUMBERS]) -> Self {
        let [looks, twice_kinetic, moves, accepted, measured, error, weight] = n;
        Self { looks, twice_kinetic, moves, accepted, measured, error, weight }
    }

    pub fn add(&mut self, other: &Self) {
        let (a, b) = (self.numbers(), other.numbers());
        *self = Self::from_numbers(std::array::from_fn(|i| a[i] + b[i]));
    }
}

/// Asked by all threads before each evaluation of energies: whether to give up, in the midst of a step.
pub type Stop<'a> = &'a (dyn Fn() -> bool + Sync);

/// What a method works with.
pub struct Setting<'a> {
    pub potential: &'a dyn Potential,
    pub mechanics: &'a Mechanics,
    pub source: Source,
    /// kT of each temperature.
    pub kt: &'a [f64],
    pub stop: Stop<'a>,
}

/// The state of some rows.
pub struct Cell<'a> {
    /// Of the ensemble.
    pub first_row: usize,
    /// The temperature that each row has, by its place on the ladder.
    pub rungs: &'a [u32],
    pub positions: &'a mut [f64],
    /// Of Langevin dynamics: those before the kick of the next step.
    pub velocities: &'a mut [f64],
    pub gradients: &'a mut [f64],
    pub energies: &'a mut [f64],
    /// Energy that each row's thermostat has given it.
    pub heat: &'a mut [f64],
    pub tallies: &'a mut [Tally],
    pub scratch: &'a mut Scratch,
}

/// Memory of a cell that holds nothing from one block to the next, but for its fault.
#[derive(Debug)]
pub struct Scratch {
    pub noise: Vec<f64>,
    /// Positions before a drift, for the constraints.
    pub old: Vec<f64>,
    /// Where the moves of Monte Carlo methods began, or lead to.
    pub positions: Vec<f64>,
    pub gradients: Vec<f64>,
    pub energies: Vec<f64>,
    pub kinetic: Vec<f64>,
    /// A time of each row.
    pub times: Vec<f64>,
    /// Whether each row's constraints could be restored.
    pub held: Vec<bool>,
    pub constraints: Option<ConstraintScratch>,
    pub failure: Option<Failure>,
}

/// Why a cell stopped.
#[derive(Clone, Debug)]
pub enum Failure {
    Energy(EnergyError),
    Row { step: u64, row: usize, fault: Fault },
    Stopped,
}

impl Scratch {
    pub fn new(rows: usize, mechanics: &Mechanics) -> Self {
        let numbers = vec![0.0; rows * mechanics.dimension];
        Self {
            noise: numbers.clone(),
            old: numbers.clone(),
            positions: numbers.clone(),
            gradients: numbers,
            energies: vec![0.0; rows],
            kinetic: vec![0.0; rows],
            times: vec![0.0; rows],
            held: vec![true; rows],
            constraints: mechanics.constraints.as_ref().map(|set| set.scratch()),
            failure: None,
        }
    }
}

impl Cell<'_> {
    /// Evaluates energies and gradients at the positions, unless it is told to stop.
    pub fn evaluate(&mut self, setting: &Setting) -> Result<(), Failure> {
        if (setting.stop)() {
            return Err(Failure::Stopped);
        }
        setting.potential.evaluate(self.positions, self.energies, Some(self.gradients)).map_err(Failure::Energy)
    }

    /// That all is well after so many steps.
    pub fn check(&self, step: u64) -> Result<(), Failure> {
        let row = |row: usize, fault| Err(Failure::Row { step, row: self.first_row + row, fault });
        if let Some(r) = self.energies.iter().position(|e| !e.is_finite()) {
            return row(r, Fault::Energy);
        }
        match self.scratch.held.iter().take(self.energies.len()).position(|held| !held) {
            Some(r) => row(r, Fault::Constraints),
            None => Ok(()),
        }
    }

    /// Takes from the velocities what constraints do not allow.
    pub fn project(&mut self, mechanics: &Mechanics) {
        if let (Some(set), Some(scratch)) = (&mechanics.constraints, &mut self.scratch.constraints) {
            set.project(scratch, mechanics.dimension, self.positions, self.velocities, &mut self.scratch.held);
        }
    }

    /// Moves all rows for the times in `scratch.times`, and restores constraints.
    pub fn drift(&mut self, mechanics: &Mechanics) {
        let d = mechanics.dimension;
        let Scratch { old, times, held, constraints, .. } = &mut *self.scratch;
        let constrained = mechanics.constraints.as_ref().zip(constraints.as_mut());
        if constrained.is_some() {
            old[..self.positions.len()].copy_from_slice(self.positions);
        }
        let rows = self.positions.chunks_exact_mut(d).zip(self.velocities.chunks_exact(d)).zip(&*times);
        for ((x, v), &time) in rows {
            x.iter_mut().zip(v).for_each(|(x, v)| *x += time * v);
        }
        if let Some((set, scratch)) = constrained {
            let old = &old[..self.positions.len()];
            set.restore(scratch, d, old, self.positions, Some((self.velocities, times)), held);
        }
    }

    /// Changes the velocities by `factor` times the force over the times in `scratch.times`.
    pub fn kick(&mut self, mechanics: &Mechanics, factor: f64) {
        let d = mechanics.dimension;
        let rows = self.velocities.chunks_exact_mut(d).zip(self.gradients.chunks_exact(d)).zip(&self.scratch.times);
        for ((v, g), &time) in rows {
            let time = factor * time;
            v.iter_mut().zip(g).zip(&mechanics.inverse_mass).for_each(|((v, g), w)| *v -= time * w * g);
        }
    }
}
