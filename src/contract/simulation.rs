//! Simulation tasks: from a request, with all that it leaves out chosen for the system, and back; and their progress.

use super::FieldError;
use super::v1::{self, SimulationMethod, SimulationPhase};
use crate::energy::{EnergyScale, System};
use crate::simulate::{Method, Phase, Progress, SimulationPlan, Summary, Temperatures};

/// Where the fields of a simulation task are in a request.
const PREFIX: &str = "job.simulation.";

/// The temperature of a molecule when nothing says another, in kelvin.
const ROOM: f64 = 300.0;

/// The plan of a task: what it says, and the default for the system where it says nothing.
pub fn simulation_plan(task: &v1::SimulationTask, system: &System) -> Result<SimulationPlan, FieldError> {
    let temperatures = temperatures(task, system)?;
    let several = !matches!(&temperatures, Temperatures::List(list) if list.len() < 2);
    let steps = count("steps", task.steps, 100_000)?;
    let equilibration_steps = count_or_none("equilibration_steps", task.equilibration_steps, steps / 10)?;
    let plan = SimulationPlan {
        method: method(task, system, equilibration_steps > 0)?,
        temperatures,
        walkers: count("walkers", task.walkers, 16)? as usize,
        equilibration_steps,
        production_steps: steps,
        save_stride: count("stride", task.stride, 100.min(steps))?,
        exchange_stride: count_or_none("exchange_every", task.exchange_every, if several { 100 } else { 0 })?,
        seed: task.seed,
    };
    plan.check(system).map_err(|e| FieldError::invalid(field_of(e.field), e.reason))?;
    Ok(plan)
}

/// The field of the request that a field of a plan comes from.
fn field_of(field: &str) -> String {
    let own = match field {
        "production_steps" => "steps",
        "save_stride" => "stride",
        "exchange_stride" => "exchange_every",
        "temperatures.list" => "temperatures",
        _ if field.starts_with("temperatures.") => {
            return format!("{PREFIX}ladder.{}", field.rsplit('.').next().unwrap_or_default());
        }
        "method.langevin.friction_per_ps" => "friction",
        "method.hybrid_monte_carlo.steps" => "leapfrog_steps",
        "method.metropolis.step" => "move_size",
        _ if field.ends_with("timestep_ps") => "time_step",
        _ if field.ends_with("target_acceptance") => "target_acceptance",
        other => other,
    };
    format!("{PREFIX}{own}")
}

fn count(field: &str, value: i64, default: u64) -> Result<u64, FieldError> {
    match u64::try_from(value) {
        Ok(0) => Ok(default),
        Ok(n) => Ok(n),
        Err(_) => Err(FieldError::invalid(format!("{PREFIX}{field}"), format!("{value} is negative"))),
    }
}

/// As [`count`], but that −1 means none.
fn count_or_none(field: &str, value: i64, default: u64) -> Result<u64, FieldError> {
    if value == -1 { Ok(0) } else { count(field, value, default) }
}

fn or_default(value: f64, default: f64) -> f64 {
    if value == 0.0 { default } else { value }
}

fn temperatures(task: &v1::SimulationTask, system: &System) -> Result<Temperatures, FieldError> {
    let Some(ladder) = &task.ladder else {
        let usual = if system.scale() == EnergyScale::Reduced { 1.0 } else { ROOM };
        let list = if task.temperatures.is_empty() { vec![usual] } else { task.temperatures.clone() };
        return Ok(Temperatures::List(list));
    };
    if !task.temperatures.is_empty() {
        let reason = "there are temperatures and a ladder; give one of them";
        return Err(FieldError::invalid(format!("{PREFIX}ladder"), reason));
    }
    let (low, high) = (ladder.low, ladder.high);
    Ok(match count("ladder.count", ladder.count, 0)? {
        0 => Temperatures::Acceptance {
            low,
            high,
            acceptance: or_default(ladder.acceptance, 0.3),
            pilot_steps: count("ladder.pilot_steps", ladder.pilot_steps, 20_000)?,
        },
        count => Temperatures::Geometric { low, high, count: count as usize },
    })
}

/// The size of moves is tuned if it is asked for, and, unless it is refused, where there are steps to tune it in.
fn method(task: &v1::SimulationTask, system: &System, can_tune: bool) -> Result<Method, FieldError> {
    let reduced = system.scale() == EnergyScale::Reduced;
    let usual = match (reduced, system.constraints().is_empty()) {
        (true, _) => 0.01,
        (false, true) => 0.001,
        (false, false) => 0.002,
    };
    let timestep_ps = or_default(task.time_step, usual);
    let tuned = |default: f64| match task.target_acceptance {
        0.0 => can_tune.then_some(default),
        target if target < 0.0 => None,
        target => Some(target),
    };
    match SimulationMethod::try_from(task.method) {
        Ok(SimulationMethod::Unspecified | SimulationMethod::Langevin) => {
            Ok(Method::Langevin { timestep_ps, friction_per_ps: or_default(task.friction, 1.0) })
        }
        Ok(SimulationMethod::HybridMonteCarlo) => {
            let steps = count("leapfrog_steps", task.leapfrog_steps, 10)?;
            let steps = u32::try_from(steps).unwrap_or(u32::MAX);
            Ok(Method::HybridMonteCarlo { timestep_ps, steps, target_acceptance: tuned(0.8) })
        }
        Ok(SimulationMethod::Metropolis) => Ok(Method::Metropolis {
            step: or_default(task.move_size, if reduced { 0.1 } else { 0.002 }),
            scale_with_temperature: true,
            target_acceptance: tuned(0.3),
        }),
        Err(_) => Err(FieldError::invalid(format!("{PREFIX}method"), format!("{} is no method", task.method))),
    }
}

/// The message of a plan, with nothing left out.
pub fn simulation_task(plan: &SimulationPlan, system: &str, start: Option<&str>, dataset: &str) -> v1::SimulationTask {
    let mut task = v1::SimulationTask {
        system: format!("systems/{system}"),
        walkers: plan.walkers as i64,
        equilibration_steps: or_none(plan.equilibration_steps),
        steps: plan.production_steps as i64,
        stride: plan.save_stride as i64,
        exchange_every: or_none(plan.exchange_stride),
        seed: plan.seed,
        start: start.map(|id| format!("datasets/{id}")).unwrap_or_default(),
        dataset_id: dataset.to_string(),
        ..v1::SimulationTask::default()
    };
    match &plan.temperatures {
        Temperatures::List(list) => task.temperatures.clone_from(list),
        Temperatures::Geometric { low, high, count } => {
            let (low, high, count) = (*low, *high, *count as i64);
            task.ladder = Some(v1::TemperatureLadder { low, high, count, ..v1::TemperatureLadder::default() });
        }
        Temperatures::Acceptance { low, high, acceptance, pilot_steps } => {
            let (low, high, acceptance, pilot_steps) = (*low, *high, *acceptance, *pilot_steps as i64);
            task.ladder = Some(v1::TemperatureLadder { low, high, count: 0, acceptance, pilot_steps });
        }
    }
    match plan.method {
        Method::Langevin { timestep_ps, friction_per_ps } => {
            task.set_method(SimulationMethod::Langevin);
            (task.time_step, task.friction) = (timestep_ps, friction_per_ps);
        }
        Method::HybridMonteCarlo { timestep_ps, steps, target_acceptance } => {
            task.set_method(SimulationMethod::HybridMonteCarlo);
            (task.time_step, task.leapfrog_steps) = (timestep_ps, i64::from(steps));
            task.target_acceptance = target_acceptance.unwrap_or(-1.0);
        }
        Method::Metropolis { step, target_acceptance, .. } => {
            task.set_method(SimulationMethod::Metropolis);
            task.move_size = step;
            task.target_acceptance = target_acceptance.unwrap_or(-1.0);
        }
    }
    task
}

fn or_none(steps: u64) -> i64 {
    if steps == 0 { -1 } else { steps as i64 }
}

/// How far a simulation is, and what it knows of its quality.
pub struct SimulationReport<'a> {
    pub progress: &'a Progress,
    pub summary: &'a Summary,
    /// Frames kept.
    pub frames: u64,
    /// Summed over walkers; zero if it is not known.
    pub steps_per_second: f64,
    /// Over all attempts.
    pub seconds: f64,
    pub seconds_left: f64,
}

/// The message of a simulation's progress.
pub fn simulation_progress(report: &SimulationReport) -> v1::SimulationProgress {
    let phase = match report.progress.phase {
        Phase::Pilot => SimulationPhase::Pilot,
        Phase::Equilibration => SimulationPhase::Equilibration,
        Phase::Production => SimulationPhase::Production,
        Phase::Finished => SimulationPhase::Finished,
    };
    let exchange = |k: usize| report.summary.exchanges.get(k).filter(|e| e.attempts > 0).map(|e| e.acceptance());
    let rung = |(k, rung): (usize, &crate::simulate::RungSummary)| v1::simulation_progress::Rung {
        temperature: rung.temperature,
        acceptance: rung.acceptance,
        exchange_acceptance: exchange(k),
        kinetic_temperature: rung.kinetic_temperature,
        move_size: rung.move_size,
        mean_error: rung.mean_error,
        mean_energy: rung.mean_energy,
        effective_samples: rung.effective_samples,
    };
    v1::SimulationProgress {
        phase: phase.into(),
        step: report.progress.step as i64,
        total_steps: report.progress.total_steps as i64,
        frames: report.frames as i64,
        rungs: report.summary.rungs.iter().enumerate().map(rung).collect(),
        round_trips: report.summary.round_trips as i64,
        energy_drift: report.summary.drift_per_time,
        steps_per_second: report.steps_per_second,
        seconds: report.seconds,
        seconds_left: report.seconds_left,
    }
}
