//! All replicas at a fixed ladder of temperatures, and what happens to them between blocks of steps.

use super::cell::{Cell, Failure, Scratch, Setting, Stop, Tally, rows_of_cells};
use super::error::{Fault, SimulationError};
use super::exchange::Ladders;
use super::hybrid::HybridMonteCarlo;
use super::langevin::Langevin;
use super::mechanics::Mechanics;
use super::metropolis::Metropolis;
use super::noise::Source;
use super::plan::{Method, SimulationPlan};
use super::statistics::EnergySeries;
use crate::energy::{Potential, System};
use crate::math::Purpose;
use rayon::prelude::*;
use std::sync::Arc;

/// Moves between changes of their size.
const TUNE_STRIDE: u64 = 5;
/// A tuned size stays within this factor of the plan's.
const TUNE_RANGE: f64 = 1e4;

/// When what happens.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    pub equilibration: u64,
    pub total: u64,
    pub save_stride: u64,
    /// 0 for never.
    pub exchange_stride: u64,
    /// Whether the size of moves is tuned during equilibration.
    pub target_acceptance: Option<f64>,
}

impl Schedule {
    /// The step after `step` at which something happens, or the last.
    fn next(&self, step: u64) -> u64 {
        let multiple =
            |from: u64, stride: u64| from.saturating_add(((step - from) / stride + 1).saturating_mul(stride));
        let mut next = self.total;
        if step < self.equilibration {
            next = next.min(self.equilibration);
            if self.target_acceptance.is_some() {
                next = next.min(multiple(0, TUNE_STRIDE));
            }
        } else {
            next = next.min(multiple(self.equilibration, self.save_stride));
        }
        if self.exchange_stride > 0 {
            next = next.min(multiple(0, self.exchange_stride));
        }
        next
    }

    fn saves(&self, step: u64) -> bool {
        step > self.equilibration && (step - self.equilibration).is_multiple_of(self.save_stride)
    }
}

/// All that a restored run needs to go on as if nothing had happened.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    pub step: u64,
    /// (rows, d), and so the next two.
    pub positions: Vec<f64>,
    pub velocities: Vec<f64>,
    pub gradients: Vec<f64>,
    /// Of each row, and so the next three.
    pub energies: Vec<f64>,
    pub heat: Vec<f64>,
    /// Energy less heat at the end of equilibration.
    pub conserved: Vec<f64>,
    pub tallies: Vec<Tally>,
    /// Of each temperature, and so the next.
    pub counted: Vec<Tally>,
    /// As tuned; empty for Langevin dynamics.
    pub move_sizes: Vec<f64>,
    pub ladders: Ladders,
    /// Of each walker at each temperature, as in [`Frames`](super::Frames).
    pub series: EnergySeries,
}

#[derive(Debug)]
enum Mover {
    Langevin(Langevin),
    Hybrid(HybridMonteCarlo),
    Metropolis(Metropolis),
}

/// The replicas of a simulation. Row w·K + k starts as walker w at the k-th of K temperatures.
#[derive(Debug)]
pub struct Ensemble {
    potential: Arc<dyn Potential>,
    pub mechanics: Mechanics,
    pub temperatures: Vec<f64>,
    kt: Vec<f64>,
    source: Source,
    pub schedule: Schedule,
    plan_sizes: Vec<f64>,
    mover: Mover,
    pub state: State,
    scratch: Vec<Scratch>,
    cell_rows: usize,
}

/// What an ensemble is made from, besides its state.
pub struct Recipe<'a> {
    pub plan: &'a SimulationPlan,
    pub system: &'a System,
    pub temperatures: Vec<f64>,
    pub schedule: Schedule,
    pub pilot: bool,
}

impl Ensemble {
    /// Replicas at positions (any number of rows, used in turn), on the constraints, with velocities of their
    /// temperatures.
    pub fn start(recipe: &Recipe, starts: &[f64]) -> Result<Self, SimulationError> {
        let d = recipe.system.dimension();
        let rows = recipe.temperatures.len().saturating_mul(recipe.plan.walkers);
        let positions: Vec<f64> = starts.chunks_exact(d.max(1)).cycle().take(rows).flatten().copied().collect();
        let zeros = |n: usize| vec![0.0; n];
        let mut new = Self::with_state(
            recipe,
            State {
                step: 0,
                velocities: zeros(positions.len()),
                gradients: zeros(positions.len()),
                positions,
                energies: zeros(rows),
                heat: zeros(rows),
                conserved: zeros(rows),
                tallies: vec![Tally::default(); rows],
                counted: vec![Tally::default(); recipe.temperatures.len()],
                move_sizes: Vec::new(),
                ladders: Ladders::new(recipe.temperatures.len(), recipe.plan.walkers),
                series: EnergySeries::new(rows),
            },
        )?;
        new.state.move_sizes.clone_from(&new.plan_sizes);
        new.prepare()?;
        Ok(new)
    }

    /// Replicas in a state that fits the recipe.
    pub fn with_state(recipe: &Recipe, state: State) -> Result<Self, SimulationError> {
        let Recipe { plan, system, temperatures, schedule, pilot } = recipe;
        let constraints = system.constraints();
        let kt: Vec<f64> = temperatures.iter().map(|&t| system.scale().kt(t)).collect();
        let lowest = kt.iter().copied().fold(f64::INFINITY, f64::min);
        let mechanics = Mechanics::new(system, constraints, lowest)?;
        if matches!(plan.method, Method::Metropolis { .. }) && !constraints.is_empty() {
            let reason = "Metropolis moves do not keep constraints; use langevin or hybrid_monte_carlo".into();
            return Err(SimulationError::Constraint { index: 0, reason });
        }
        let (mover, plan_sizes) = match plan.method {
            Method::Langevin { timestep_ps, friction_per_ps } => {
                let langevin = Langevin::new(timestep_ps, friction_per_ps, &kt, &mechanics.inverse_mass);
                (Mover::Langevin(langevin), Vec::new())
            }
            Method::HybridMonteCarlo { timestep_ps, steps, .. } => {
                let timesteps = vec![timestep_ps; kt.len()];
                (Mover::Hybrid(HybridMonteCarlo { steps, timesteps: timesteps.clone() }), timesteps)
            }
            Method::Metropolis { step, scale_with_temperature, .. } => {
                let factor = |kt: &f64| if scale_with_temperature { (kt / lowest).sqrt() } else { 1.0 };
                let steps: Vec<f64> = kt.iter().map(|kt| step * factor(kt)).collect();
                (Mover::Metropolis(Metropolis { steps: steps.clone() }), steps)
            }
        };
        let rows = state.energies.len();
        let cell_rows = rows_of_cells(rows, rayon::current_num_threads());
        let scratch = (0..rows.div_ceil(cell_rows)).map(|_| Scratch::new(cell_rows, &mechanics)).collect();
        let mut new = Self {
            potential: system.potential().clone(),
            mechanics,
            temperatures: temperatures.clone(),
            kt,
            source: Source::new(plan.seed, *pilot),
            schedule: *schedule,
            plan_sizes,
            mover,
            state,
            scratch,
            cell_rows,
        };
        new.use_move_sizes();
        Ok(new)
    }

    pub fn rows(&self) -> usize {
        self.state.energies.len()
    }

    pub fn is_done(&self) -> bool {
        self.state.step >= self.schedule.total
    }

    /// Puts the replicas on the constraints, evaluates them, and gives them velocities.
    fn prepare(&mut self) -> Result<(), SimulationError> {
        let d = self.mechanics.dimension;
        let mut held = vec![true; self.rows()];
        if let Some(set) = &self.mechanics.constraints {
            let old = self.state.positions.clone();
            set.restore(&mut set.scratch(), d, &old, &mut self.state.positions, None, &mut held);
        }
        if let Some(row) = held.iter().position(|held| !held) {
            return Err(self.diverged(0, row, Fault::Constraints));
        }
        let State { positions, energies, gradients, .. } = &mut self.state;
        self.potential.evaluate(positions, energies, Some(gradients))?;
        if let Some(row) = energies.iter().position(|e| !e.is_finite()) {
            return Err(self.diverged(0, row, Fault::Energy));
        }
        if let Mover::Langevin(langevin) = &self.mover {
            let half = 0.5 * langevin.timestep;
            let State { velocities, gradients, positions, ladders, .. } = &mut self.state;
            self.source.normals(Purpose::SimulationStart, 0, 0, d, velocities);
            let rows = velocities.chunks_exact_mut(d).zip(gradients.chunks_exact(d)).zip(&ladders.rungs);
            for ((v, g), &rung) in rows {
                let speed = self.kt[rung as usize].sqrt();
                for (i, v) in v.iter_mut().enumerate() {
                    *v =
                        speed * self.mechanics.root_inverse_mass[i] * *v + half * self.mechanics.inverse_mass[i] * g[i];
                }
            }
            if let Some(set) = &self.mechanics.constraints {
                set.project(&mut set.scratch(), d, positions, velocities, &mut held);
            }
        }
        self.state.conserved = self.energy_less_heat();
        Ok(())
    }

    /// Takes steps until something happens, or `most` of them; then does what happens. True when a frame is to be
    /// saved.
    pub fn advance(&mut self, most: u64, stop: Stop) -> Result<bool, SimulationError> {
        let first = self.state.step;
        if self.is_done() {
            return Ok(false);
        }
        let next = self.schedule.next(first);
        let steps = (next - first).min(most.max(1));
        self.take_steps(first, steps, stop)?;
        self.state.step = first + steps;
        if self.state.step < next {
            return Ok(false);
        }
        self.count();
        Ok(self.happens(next))
    }

    fn take_steps(&mut self, first: u64, steps: u64, stop: Stop) -> Result<(), SimulationError> {
        let n = self.cell_rows;
        let d = self.mechanics.dimension;
        let setting = Setting {
            potential: &*self.potential,
            mechanics: &self.mechanics,
            source: self.source,
            kt: &self.kt,
            stop,
        };
        let (mover, state) = (&self.mover, &mut self.state);
        let vectors = (state.positions.par_chunks_mut(n * d), state.velocities.par_chunks_mut(n * d));
        let numbers = (state.energies.par_chunks_mut(n), state.heat.par_chunks_mut(n));
        let rest = (state.gradients.par_chunks_mut(n * d), state.tallies.par_chunks_mut(n));
        let cells = (vectors, numbers, rest, state.ladders.rungs.par_chunks(n), self.scratch.par_iter_mut());
        cells.into_par_iter().with_max_len(1).enumerate().for_each(|(i, cell)| {
            let ((positions, velocities), (energies, heat), (gradients, tallies), rungs, scratch) = cell;
            let first_row = i * n;
            let mut cell =
                Cell { first_row, rungs, positions, velocities, gradients, energies, heat, tallies, scratch };
            let result = match mover {
                Mover::Langevin(langevin) => langevin.advance(&mut cell, &setting, first, steps),
                Mover::Hybrid(hybrid) => hybrid.advance(&mut cell, &setting, first, steps),
                Mover::Metropolis(metropolis) => metropolis.advance(&mut cell, &setting, first, steps),
            };
            cell.scratch.failure = result.err();
        });
        // The earliest in the simulation, whichever thread was first.
        let failures = self.scratch.iter_mut().filter_map(|scratch| scratch.failure.take());
        let earliest = failures.min_by_key(|failure| match failure {
            Failure::Stopped | Failure::Energy(_) => (0, 0),
            Failure::Row { step, row, .. } => (*step, *row),
        });
        match earliest {
            None => Ok(()),
            Some(Failure::Energy(error)) => Err(error.into()),
            Some(Failure::Stopped) => Err(SimulationError::Stopped),
            Some(Failure::Row { step, row, fault }) => Err(self.diverged(step, row, fault)),
        }
    }

    fn diverged(&self, step: u64, row: usize, fault: Fault) -> SimulationError {
        let rung = self.state.ladders.rungs.get(row).map_or(0, |&k| k as usize);
        let temperature = self.temperatures.get(rung).copied().unwrap_or(f64::NAN);
        SimulationError::Diverged { step, walker: row / self.temperatures.len().max(1), temperature, fault }
    }

    /// Counts what the replicas did for the temperatures that they had.
    fn count(&mut self) {
        let State { tallies, counted, ladders, .. } = &mut self.state;
        for (tally, &rung) in tallies.iter_mut().zip(&ladders.rungs) {
            counted[rung as usize].add(tally);
            *tally = Tally::default();
        }
    }

    /// What happens after a step; true when a frame is to be saved, which has the temperatures before an exchange.
    fn happens(&mut self, step: u64) -> bool {
        let schedule = self.schedule;
        if step <= schedule.equilibration && schedule.target_acceptance.is_some() {
            self.tune(step);
        }
        if step == schedule.equilibration {
            self.state.counted.fill(Tally::default());
            self.state.ladders.forget();
            self.state.conserved = self.energy_less_heat();
        }
        schedule.saves(step)
    }

    /// What comes after a frame was saved, or would have been.
    pub fn exchange_if_due(&mut self) {
        let (step, stride) = (self.state.step, self.schedule.exchange_stride);
        if stride == 0 || step == 0 || !step.is_multiple_of(stride) || self.is_done() {
            return;
        }
        let mut changed = Vec::new();
        self.state.ladders.round(&self.source, step, step / stride, &self.kt, &self.state.energies, |row, old, new| {
            changed.push((row, old, new));
        });
        for (row, old, new) in changed {
            self.rescale(row, (self.kt[new] / self.kt[old]).sqrt());
        }
    }

    /// Gives the velocities of a row another temperature: those of the whole step, not those before its half kick.
    fn rescale(&mut self, row: usize, factor: f64) {
        let Some(now) = self.whole_step_velocities(row) else { return };
        let d = self.mechanics.dimension;
        let v = &mut self.state.velocities[row * d..(row + 1) * d];
        v.iter_mut().zip(&now).for_each(|(v, now)| *v += (factor - 1.0) * now);
        self.state.heat[row] += 0.5 * (factor * factor - 1.0) * self.mechanics.twice_kinetic(&now);
    }

    /// The velocities of Langevin dynamics at the end of its last step.
    fn whole_step_velocities(&self, row: usize) -> Option<Vec<f64>> {
        let Mover::Langevin(langevin) = &self.mover else { return None };
        let d = self.mechanics.dimension;
        let of = |list: &[f64]| list[row * d..(row + 1) * d].to_vec();
        let mut v = of(&self.state.velocities);
        let force = self.state.gradients[row * d..].iter().zip(&self.mechanics.inverse_mass);
        v.iter_mut().zip(force).for_each(|(v, (g, w))| *v -= 0.5 * langevin.timestep * w * g);
        if let Some(set) = &self.mechanics.constraints {
            set.project(&mut set.scratch(), d, &of(&self.state.positions), &mut v, &mut [true]);
        }
        Some(v)
    }

    /// Of each row, for Langevin dynamics; what an exact integrator would not change.
    pub fn energy_less_heat(&self) -> Vec<f64> {
        let of = |row: usize| {
            let v = self.whole_step_velocities(row)?;
            Some(self.state.energies[row] + 0.5 * self.mechanics.twice_kinetic(&v) - self.state.heat[row])
        };
        (0..self.rows()).map(|row| of(row).unwrap_or(0.0)).collect()
    }

    /// The time that is between steps, for Langevin dynamics.
    pub fn timestep(&self) -> Option<f64> {
        match &self.mover {
            Mover::Langevin(langevin) => Some(langevin.timestep),
            _ => None,
        }
    }

    /// Stochastic approximation (Robbins and Monro, Ann. Math. Stat. 22, 400 (1951)) of the size that has the acceptance
    /// wanted.
    fn tune(&mut self, step: u64) {
        let Some(target) = self.schedule.target_acceptance else { return };
        let gain = 2.0 / (1.0 + (step / TUNE_STRIDE) as f64).powf(0.6);
        let State { counted, move_sizes, .. } = &mut self.state;
        for ((tally, size), planned) in counted.iter_mut().zip(move_sizes).zip(&self.plan_sizes) {
            if tally.moves > 0.0 {
                let factor = (gain * (tally.accepted / tally.moves - target)).exp();
                *size = (*size * factor).clamp(planned / TUNE_RANGE, planned * TUNE_RANGE);
            }
            *tally = Tally::default();
        }
        self.use_move_sizes();
    }

    fn use_move_sizes(&mut self) {
        let sizes = &self.state.move_sizes;
        if sizes.len() != self.kt.len() {
            return;
        }
        match &mut self.mover {
            Mover::Langevin(_) => {}
            Mover::Hybrid(hybrid) => hybrid.timesteps.clone_from(sizes),
            Mover::Metropolis(metropolis) => metropolis.steps.clone_from(sizes),
        }
    }
}
