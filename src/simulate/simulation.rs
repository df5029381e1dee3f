//! A simulation from its plan to its last frame, in blocks that end soon.

use super::cell::Stop;
use super::ensemble::{Ensemble, Recipe, Schedule};
use super::error::PlanError;
use super::error::{SimulationError, SnapshotError};
use super::ladder::{PILOT_LOOKS, PILOT_TEMPERATURES, RungEnergy, place_rungs};
use super::plan::{MAX_TEMPERATURES, SimulationPlan, Temperatures};
use super::snapshot::{Reader, Writer};
use super::statistics::{ExchangeSummary, RungSummary, Summary, ratios};
use crate::energy::System;
use std::time::{Duration, Instant};

/// A block ends after about this long, when nothing else has ended it.
const BLOCK: Duration = Duration::from_millis(50);
/// Steps that are taken without looking at the clock.
const MOST_STEPS: u64 = 1 << 20;

/// What a simulation is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Measuring energies, to place the temperatures.
    Pilot,
    Equilibration,
    Production,
    Finished,
}

/// How far a simulation is after a block.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    pub phase: Phase,
    /// Steps of equilibration and production, or of the pilot, that are done, and all of them.
    pub step: u64,
    pub total_steps: u64,
    /// What the block saved.
    pub frames: Option<Frames>,
}

/// The configurations of all walkers at all temperatures at one time, by temperature: replicas change their temperatures,
/// rows here do not.
#[derive(Clone, Debug, PartialEq)]
pub struct Frames {
    pub step: u64,
    /// (temperatures, walkers, d). Where the energy is invariant under translations, the centre of mass is at the
    /// origin.
    pub positions: Vec<f64>,
    /// Potential energies (temperatures, walkers).
    pub energies: Vec<f64>,
    /// The replica in each place (temperatures, walkers), by the row that it started as: walker w at temperature k of K
    /// is w·K + k.
    pub replicas: Vec<u32>,
}

/// A simulation that is under way.
#[derive(Debug)]
pub struct Simulation {
    plan: SimulationPlan,
    system: System,
    is_pilot: bool,
    /// Of each pair of neighbouring temperatures, by the pilot.
    predicted: Vec<f64>,
    ensemble: Ensemble,
    /// Steps that are taken before looking at the clock. Where blocks end changes nothing of what comes out.
    steps_at_once: u64,
    failed: Option<SimulationError>,
}

impl Simulation {
    /// A simulation at its start. `starts` are rows of positions that the replicas begin at, in turn; constrained
    /// distances in them are set right.
    ///
    /// # Errors
    /// When the plan or the constraints cannot be carried out, an atom has no mass, or a starting position has no finite
    /// energy.
    pub fn new(plan: SimulationPlan, system: System, starts: &[f64]) -> Result<Self, SimulationError> {
        plan.check(&system)?;
        let d = system.dimension();
        if starts.is_empty() || !starts.len().is_multiple_of(d.max(1)) {
            let reason = format!("there are {} numbers; pass rows of {d}, at least one", starts.len());
            return Err(SimulationError::Start(reason));
        }
        if let Some(i) = starts.iter().position(|x| !x.is_finite()) {
            let reason = format!("number {i} is {}; all must be finite", starts[i]);
            return Err(SimulationError::Start(reason));
        }
        let is_pilot = matches!(plan.temperatures, Temperatures::Acceptance { .. });
        let temperatures = plan.temperatures.at_start();
        let recipe = recipe(&plan, &system, temperatures, is_pilot);
        let ensemble = Ensemble::start(&recipe, starts)?;
        let predicted = Vec::new();
        Ok(Self { plan, system, is_pilot, predicted, ensemble, steps_at_once: 1, failed: None })
    }

    /// Steps that are done, of the phases that [`Progress::step`] counts.
    pub fn step(&self) -> u64 {
        self.ensemble.state.step
    }

    /// The numbers of a configuration.
    pub fn dimension(&self) -> usize {
        self.system.dimension()
    }

    pub fn plan(&self) -> &SimulationPlan {
        &self.plan
    }

    /// The ladder; during a pilot, that of the pilot.
    pub fn temperatures(&self) -> &[f64] {
        &self.ensemble.temperatures
    }

    pub fn phase(&self) -> Phase {
        match () {
            () if self.is_pilot => Phase::Pilot,
            () if self.ensemble.is_done() => Phase::Finished,
            () if self.ensemble.state.step < self.ensemble.schedule.equilibration => Phase::Equilibration,
            () => Phase::Production,
        }
    }

    /// Goes on until a frame is saved, the phase or the simulation ends, or a twentieth of a second has passed (one step has
    /// been taken, if that takes longer).
    ///
    /// # Errors
    /// A replica whose energy is not finite or whose constraints are lost ends the simulation; every call after that
    /// gives the same error.
    pub fn advance(&mut self) -> Result<Progress, SimulationError> {
        self.advance_unless(&|| false)
    }

    /// The same, unless it is told to stop in the midst of a step, which ends the simulation.
    pub fn advance_unless(&mut self, stop: Stop) -> Result<Progress, SimulationError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = self.block(stop);
        self.failed = result.as_ref().err().cloned();
        result
    }

    fn block(&mut self, stop: Stop) -> Result<Progress, SimulationError> {
        let (begin, phase) = (Instant::now(), self.phase());
        let mut frames = None;
        while frames.is_none() && self.phase() == phase && phase != Phase::Finished && begin.elapsed() < BLOCK {
            let (from, clock) = (self.ensemble.state.step, Instant::now());
            let saves = self.ensemble.advance(self.steps_at_once, stop)?;
            if saves {
                let saved = self.frames();
                self.ensemble.state.series.add(&saved.energies);
                frames = (!self.is_pilot).then_some(saved);
            }
            self.ensemble.exchange_if_due();
            let steps = self.ensemble.state.step - from;
            let per_step = clock.elapsed().as_secs_f64() / steps.max(1) as f64;
            self.steps_at_once = ((BLOCK.as_secs_f64() / per_step.max(1e-9)) as u64).clamp(1, MOST_STEPS);
            if self.is_pilot && self.ensemble.is_done() {
                self.end_pilot()?;
            }
        }
        let (step, total_steps) = (self.ensemble.state.step, self.ensemble.schedule.total);
        Ok(Progress { phase: self.phase(), step, total_steps, frames })
    }

    /// The configurations as they are.
    pub fn frames(&self) -> Frames {
        let state = &self.ensemble.state;
        let (d, k) = (self.system.dimension(), self.temperatures().len().max(1));
        let walkers = self.ensemble.rows() / k;
        let slots = (0..k).flat_map(|rung| (0..walkers).map(move |walker| walker * k + rung));
        let replicas: Vec<u32> = slots.map(|slot| state.ladders.rows[slot]).collect();
        let mut positions = Vec::with_capacity(replicas.len() * d);
        let centred = self.system.potential().is_rigid_invariant() && self.system.atoms().is_some();
        for &row in &replicas {
            let from = positions.len();
            positions.extend_from_slice(&state.positions[row as usize * d..][..d]);
            if centred {
                centre(&mut positions[from..], &self.ensemble.mechanics.mass);
            }
        }
        let energies = replicas.iter().map(|&row| state.energies[row as usize]).collect();
        Frames { step: state.step, positions, energies, replicas }
    }

    /// What the pilot measured.
    fn measured(&self) -> Vec<RungEnergy> {
        let walkers = self.plan.walkers;
        let rung = |(k, &temperature): (usize, &f64)| {
            let (mean, variance) = self.ensemble.state.series.moments(k * walkers..(k + 1) * walkers);
            RungEnergy { temperature, mean, variance }
        };
        self.temperatures().iter().enumerate().map(rung).collect()
    }

    /// Places the ladder by what the pilot measured; each replica starts where one of the nearest temperature is.
    fn end_pilot(&mut self) -> Result<(), SimulationError> {
        let Temperatures::Acceptance { acceptance, .. } = self.plan.temperatures else { return Ok(()) };
        let Some((ladder, predicted)) = place_rungs(self.system.scale(), &self.measured(), acceptance) else {
            let reason = format!(
                "by what the pilot measured, no {MAX_TEMPERATURES} temperatures have exchanges between neighbours accepted \
                 this often; ask for less, or for a smaller range"
            );
            return Err(PlanError { field: "temperatures.acceptance.acceptance", reason }.into());
        };
        self.plan.check_size(self.system.dimension(), ladder.len())?;
        let (d, walkers) = (self.system.dimension(), self.plan.walkers);
        let frames = self.frames();
        let nearest = |t: f64| {
            let gap = |&i: &usize| (self.temperatures()[i] / t).ln().abs();
            (0..self.temperatures().len()).min_by(|a, b| gap(a).total_cmp(&gap(b))).unwrap_or(0)
        };
        let mut starts = Vec::with_capacity(walkers * ladder.len() * d);
        for walker in 0..walkers {
            for &t in &ladder {
                starts.extend_from_slice(&frames.positions[(nearest(t) * walkers + walker) * d..][..d]);
            }
        }
        let recipe = recipe(&self.plan, &self.system, ladder, false);
        self.ensemble = Ensemble::start(&recipe, &starts)?;
        (self.predicted, self.is_pilot) = (predicted, false);
        Ok(())
    }

    /// The quality of what there is so far.
    pub fn summary(&self) -> Summary {
        let Ensemble { state, schedule, mechanics, .. } = &self.ensemble;
        let walkers = self.plan.walkers;
        let rung = |(k, &temperature): (usize, &f64)| {
            let series = k * walkers..(k + 1) * walkers;
            let [kinetic, acceptance, mean_error, mean_weight, diverged] =
                ratios(&state.counted[k], mechanics.degrees_of_freedom);
            let (mean_energy, energy_variance) = state.series.moments(series.clone());
            let frames = state.series.frames.saturating_mul(walkers as u64);
            let effective_samples = state.series.effective_samples(series);
            RungSummary {
                temperature,
                kinetic_temperature: kinetic.map(|ratio| ratio * temperature),
                acceptance,
                move_size: state.move_sizes.get(k).copied(),
                mean_error,
                mean_weight,
                diverged,
                mean_energy,
                energy_variance,
                frames,
                effective_samples,
                statistical_inefficiency: frames as f64 / effective_samples.max(1.0),
            }
        };
        let pair = |(i, pair): (usize, &[f64])| ExchangeSummary {
            low: pair[0],
            high: pair[1],
            attempts: state.ladders.attempts[i],
            accepted: state.ladders.accepted[i],
            predicted: self.predicted.get(i).copied(),
        };
        let steps = if state.step > schedule.equilibration { state.step - schedule.equilibration } else { state.step };
        let drift = |timestep: f64| {
            let now = self.ensemble.energy_less_heat();
            let gained: f64 = now.iter().zip(&state.conserved).map(|(now, then)| now - then).sum();
            gained / (now.len().max(1) as f64 * timestep * steps.max(1) as f64)
        };
        Summary {
            steps,
            rungs: self.temperatures().iter().enumerate().map(rung).collect(),
            exchanges: self.temperatures().windows(2).enumerate().map(pair).collect(),
            round_trips: state.ladders.round_trips.iter().map(|&n| u64::from(n)).sum(),
            drift_per_time: self.ensemble.timestep().map(drift),
        }
    }

    /// All that is needed to go on with the same bits.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        // A plan that was checked has no numbers that JSON has not.
        writer.text(&serde_json::to_vec(&self.plan).unwrap_or_default());
        writer.text(self.system.digest().as_bytes());
        writer.number(u64::from(self.is_pilot));
        writer.reals(self.temperatures());
        writer.reals(&self.predicted);
        writer.state(&self.ensemble.state);
        writer.finish()
    }

    /// The simulation that a snapshot was taken of.
    ///
    /// # Errors
    /// When the bytes are not those of a snapshot, or the system is not the one that it was taken with.
    pub fn restore(bytes: &[u8], system: System) -> Result<Self, SnapshotError> {
        let mut reader = Reader::new(bytes)?;
        let json = |_| SnapshotError::Damaged("its plan cannot be read");
        let plan: SimulationPlan = serde_json::from_slice(reader.text()?).map_err(json)?;
        if reader.text()? != system.digest().as_bytes() {
            return Err(SnapshotError::Mismatch("system"));
        }
        plan.check(&system).map_err(SimulationError::from)?;
        let is_pilot = reader.number()? == 1;
        let temperatures = reader.reals()?;
        let predicted = reader.reals()?;
        let expected = match &plan.temperatures {
            Temperatures::List(list) => !is_pilot && *list == temperatures,
            // Logarithms may round otherwise on the machine that wrote them.
            Temperatures::Geometric { count, .. } => !is_pilot && *count == temperatures.len(),
            Temperatures::Acceptance { .. } => !is_pilot || temperatures.len() == PILOT_TEMPERATURES,
        };
        let ascending = temperatures.windows(2).all(|pair| pair[0] < pair[1]);
        let usable = temperatures.iter().all(|t| t.is_finite() && *t > 0.0);
        if temperatures.is_empty() || !expected || !ascending || !usable {
            return Err(SnapshotError::Damaged("its temperatures are not those of its plan"));
        }
        plan.check_size(system.dimension(), temperatures.len()).map_err(SimulationError::from)?;
        let state = reader.state(system.dimension(), temperatures.len(), plan.walkers)?;
        reader.end()?;
        let recipe = recipe(&plan, &system, temperatures, is_pilot);
        if state.step > recipe.schedule.total {
            return Err(SnapshotError::Damaged("it is past its last step"));
        }
        let ensemble = Ensemble::with_state(&recipe, state)?;
        Ok(Self { plan, system, is_pilot, predicted, ensemble, steps_at_once: 1, failed: None })
    }
}

fn recipe<'a>(plan: &'a SimulationPlan, system: &'a System, temperatures: Vec<f64>, pilot: bool) -> Recipe<'a> {
    let target_acceptance = plan.method.target_acceptance();
    let exchange_stride = plan.exchange_stride;
    let schedule = match plan.temperatures {
        Temperatures::Acceptance { pilot_steps, .. } if pilot => {
            let half = pilot_steps / 2;
            let save_stride = (half / PILOT_LOOKS).max(1);
            Schedule { equilibration: half, total: 2 * half, save_stride, exchange_stride, target_acceptance }
        }
        _ => Schedule {
            equilibration: plan.equilibration_steps,
            total: plan.total_steps(),
            save_stride: plan.save_stride,
            exchange_stride,
            target_acceptance,
        },
    };
    Recipe { plan, system, temperatures, schedule, pilot }
}

/// Moves the centre of mass to the origin. `mass` has one number for each coordinate.
fn centre(x: &mut [f64], mass: &[f64]) {
    let total: f64 = mass.iter().step_by(3).sum();
    for axis in 0..3 {
        let of_axis = x.iter().zip(mass).skip(axis).step_by(3);
        let mean = of_axis.map(|(x, m)| m * x).sum::<f64>() / total;
        x.iter_mut().skip(axis).step_by(3).for_each(|x| *x -= mean);
    }
}
