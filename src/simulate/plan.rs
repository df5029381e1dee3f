//! The plan of a simulation: all that decides its result, besides the system and the starting positions.

use super::error::PlanError;
use super::ladder;
use crate::energy::System;

/// Temperatures of a ladder.
pub const MAX_TEMPERATURES: usize = 128;
/// Walkers × temperatures.
pub const MAX_REPLICAS: usize = 1 << 16;
/// Walkers × temperatures × coordinates: the numbers of one frame.
pub const MAX_COORDINATES: usize = 1 << 24;
/// Saved frames × numbers of a frame.
pub const MAX_SAVED: u128 = 1 << 31;
/// Steps of a phase.
pub const MAX_STEPS: u64 = 1_000_000_000_000;
/// Leapfrog steps of a hybrid Monte Carlo move: a block cannot end within one, but for being given up.
pub const MAX_LEAPFROG: u32 = 1000;
const MAX_PILOT: u64 = 10_000_000;

/// A simulation. The same plan, system, constraints and starting positions give the same frames, bit for bit.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimulationPlan {
    pub method: Method,
    pub temperatures: Temperatures,
    /// Independent walkers at each temperature; the walkers of the same number make a ladder of replicas.
    pub walkers: usize,
    /// Steps before anything is saved or counted. A step is a timestep of Langevin dynamics, or a Monte Carlo move.
    pub equilibration_steps: u64,
    pub production_steps: u64,
    /// Steps between saved frames.
    pub save_stride: u64,
    /// Steps between exchanges of neighbouring temperatures; 0 for none.
    pub exchange_stride: u64,
    pub seed: u64,
}

/// How replicas move. Times are in ps for systems in molecular units, and in reduced units (masses 1) for the others.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Method {
    /// Langevin dynamics by BAOAB (Leimkuhler and Matthews, Appl. Math. Res. Express 2013, 34), with constraints by
    /// g-BAOAB (Leimkuhler and Matthews, Proc. R. Soc. A 472, 20160138 (2016)).
    Langevin { timestep_ps: f64, friction_per_ps: f64 },
    /// Hybrid Monte Carlo (Duane, Kennedy, Pendleton and Roweth, Phys. Lett. B 195, 216 (1987)) with `steps` leapfrog
    /// steps a move; with constraints by RATTLE. With a target, the timestep of each temperature is tuned during
    /// equilibration until the mean acceptance is the target's.
    HybridMonteCarlo { timestep_ps: f64, steps: u32, target_acceptance: Option<f64> },
    /// Metropolis Monte Carlo whose moves add normal numbers to all coordinates.
    Metropolis {
        /// Standard deviation of a move, in the system's length unit, at the lowest temperature.
        step: f64,
        /// Whether it grows as √(T/T₀) along the ladder.
        scale_with_temperature: bool,
        /// As for hybrid Monte Carlo.
        target_acceptance: Option<f64>,
    },
}

/// The ladder of temperatures, in the unit of the system's scale.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Temperatures {
    /// Ascending.
    List(Vec<f64>),
    /// Of constant ratio.
    Geometric { low: f64, high: f64, count: usize },
    /// As many as give neighbours about this acceptance of their exchanges, by a pilot of so many steps.
    Acceptance { low: f64, high: f64, acceptance: f64, pilot_steps: u64 },
}

impl SimulationPlan {
    /// That the plan can be carried out for a system.
    ///
    /// # Errors
    /// Names the first field that is wrong, and says what it should be.
    pub fn check(&self, system: &System) -> Result<(), PlanError> {
        self.method.check()?;
        self.temperatures.check()?;
        range("walkers", self.walkers as u64, 1, MAX_REPLICAS as u64)?;
        range("equilibration_steps", self.equilibration_steps, 0, MAX_STEPS)?;
        range("production_steps", self.production_steps, 1, MAX_STEPS)?;
        range("save_stride", self.save_stride, 1, self.production_steps)?;
        range("exchange_stride", self.exchange_stride, 0, MAX_STEPS)?;
        if self.method.target_acceptance().is_some() && self.equilibration_steps == 0 {
            let reason = "the size of moves is tuned to it during equilibration, and there are no steps of that; give \
                          equilibration steps, or -1 to keep the size"
                .into();
            return Err(PlanError { field: "target_acceptance", reason });
        }
        self.check_size(system.dimension(), self.temperatures.count_if_known())
    }

    /// That the replicas fit into memory and the frames into storage, for a ladder of so many temperatures.
    pub(super) fn check_size(&self, dimension: usize, temperatures: usize) -> Result<(), PlanError> {
        let replicas = self.walkers.saturating_mul(temperatures);
        if replicas > MAX_REPLICAS {
            let reason =
                format!("{replicas} replicas (walkers × temperatures) are more than {MAX_REPLICAS}; use fewer");
            return Err(PlanError { field: "walkers", reason });
        }
        let frame = replicas.saturating_mul(dimension);
        if frame > MAX_COORDINATES {
            let reason = format!(
                "{replicas} replicas of {dimension} coordinates are more than {MAX_COORDINATES} numbers; use fewer walkers"
            );
            return Err(PlanError { field: "walkers", reason });
        }
        let frames = u128::from(self.production_steps / self.save_stride.max(1));
        if frames * frame as u128 > MAX_SAVED {
            let reason = format!("{frames} frames of {frame} numbers are more than {MAX_SAVED}; save less often");
            return Err(PlanError { field: "save_stride", reason });
        }
        Ok(())
    }

    /// The configurations that it saves at so many temperatures; where a pilot is to choose them, as many as the pilot has.
    pub fn frames(&self, temperatures: Option<usize>) -> u64 {
        let temperatures = temperatures.unwrap_or_else(|| self.temperatures.count_if_known());
        let at_once = self.walkers.saturating_mul(temperatures) as u64;
        (self.production_steps / self.save_stride.max(1)).saturating_mul(at_once)
    }

    /// Equilibration and production.
    pub fn total_steps(&self) -> u64 {
        self.equilibration_steps.saturating_add(self.production_steps)
    }
}

impl Method {
    fn check(&self) -> Result<(), PlanError> {
        match *self {
            Self::Langevin { timestep_ps, friction_per_ps } => {
                positive("method.langevin.timestep_ps", timestep_ps)?;
                positive("method.langevin.friction_per_ps", friction_per_ps)
            }
            Self::HybridMonteCarlo { timestep_ps, steps, target_acceptance } => {
                positive("method.hybrid_monte_carlo.timestep_ps", timestep_ps)?;
                range("method.hybrid_monte_carlo.steps", u64::from(steps), 1, u64::from(MAX_LEAPFROG))?;
                fraction("method.hybrid_monte_carlo.target_acceptance", target_acceptance.unwrap_or(0.5))
            }
            Self::Metropolis { step, target_acceptance, .. } => {
                positive("method.metropolis.step", step)?;
                fraction("method.metropolis.target_acceptance", target_acceptance.unwrap_or(0.5))
            }
        }
    }

    /// The acceptance that the size of moves is tuned to, if it is.
    pub fn target_acceptance(&self) -> Option<f64> {
        match *self {
            Self::Langevin { .. } => None,
            Self::HybridMonteCarlo { target_acceptance, .. } | Self::Metropolis { target_acceptance, .. } => {
                target_acceptance
            }
        }
    }
}

impl Temperatures {
    fn check(&self) -> Result<(), PlanError> {
        match self {
            Self::List(list) => {
                range("temperatures.list", list.len() as u64, 1, MAX_TEMPERATURES as u64)?;
                list.iter().try_for_each(|&t| positive("temperatures.list", t))?;
                if list.windows(2).any(|pair| pair[0] >= pair[1]) {
                    let reason = "it must ascend, each temperature once".into();
                    return Err(PlanError { field: "temperatures.list", reason });
                }
                Ok(())
            }
            Self::Geometric { low, high, count } => {
                range("temperatures.geometric.count", *count as u64, 2, MAX_TEMPERATURES as u64)?;
                ascending("temperatures.geometric.low", *low, "temperatures.geometric.high", *high)
            }
            Self::Acceptance { low, high, acceptance, pilot_steps } => {
                ascending("temperatures.acceptance.low", *low, "temperatures.acceptance.high", *high)?;
                fraction("temperatures.acceptance.acceptance", *acceptance)?;
                range("temperatures.acceptance.pilot_steps", *pilot_steps, ladder::FEWEST_PILOT_STEPS, MAX_PILOT)
            }
        }
    }

    /// Those that a simulation starts with: of the pilot, where a pilot chooses them.
    pub fn at_start(&self) -> Vec<f64> {
        match self {
            Self::List(list) => list.clone(),
            Self::Geometric { low, high, count } => ladder::geometric(*low, *high, *count),
            Self::Acceptance { low, high, .. } => ladder::geometric(*low, *high, ladder::PILOT_TEMPERATURES),
        }
    }

    /// Their number, or that of the pilot where a pilot chooses them.
    fn count_if_known(&self) -> usize {
        match self {
            Self::List(list) => list.len(),
            Self::Geometric { count, .. } => *count,
            Self::Acceptance { .. } => ladder::PILOT_TEMPERATURES,
        }
    }
}

fn range(field: &'static str, value: u64, least: u64, most: u64) -> Result<(), PlanError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(PlanError { field, reason: format!("it is {value}; it must be from {least} to {most}") })
}

fn positive(field: &'static str, value: f64) -> Result<(), PlanError> {
    // Within these bounds squares and quotients of such numbers are finite, and far from it.
    if (1e-30..=1e30).contains(&value) {
        return Ok(());
    }
    Err(PlanError { field, reason: format!("it is {value}; it must be a positive number, from 1e-30 to 1e30") })
}

fn fraction(field: &'static str, value: f64) -> Result<(), PlanError> {
    if (0.01..=0.99).contains(&value) {
        return Ok(());
    }
    Err(PlanError { field, reason: format!("it is {value}; it must be from 0.01 to 0.99") })
}

fn ascending(low_field: &'static str, low: f64, field: &'static str, high: f64) -> Result<(), PlanError> {
    positive(low_field, low)?;
    positive(field, high)?;
    if low < high {
        return Ok(());
    }
    Err(PlanError { field, reason: format!("it is {high}; it must be above the lowest temperature, {low}") })
}
