//! How far a system reaches, where nothing else says so: by a short simulation.

use super::transform::CoordinatesError;
use crate::energy::{System, has_start, own_start};
use crate::simulate::{Method, Phase, Simulation, SimulationError, SimulationPlan, Temperatures};
use std::time::{Duration, Instant};

/// The pilot cannot be cancelled: what takes longer is refused.
const LONGEST: Duration = Duration::from_secs(20);

/// The largest component of the gradient (kJ/mol/nm) that the starting structure is relaxed to.
const RELAXED: f64 = 10.0;

/// Replica exchange of hybrid Monte Carlo up to eight times the temperature, so that barriers are passed; the timestep is
/// tuned.
fn plan(temperature: f64) -> SimulationPlan {
    SimulationPlan {
        method: Method::HybridMonteCarlo { timestep_ps: 0.001, steps: 5, target_acceptance: Some(0.8) },
        temperatures: Temperatures::Geometric { low: temperature, high: 8.0 * temperature, count: 6 },
        walkers: 16,
        equilibration_steps: 500,
        production_steps: 1000,
        save_stride: 10,
        exchange_stride: 5,
        seed: 0,
    }
}

/// Configurations (n, D) of a system at a temperature, enough to scale coordinates to.
pub(super) fn pilot(system: &System, temperature: f64) -> Result<Vec<f64>, CoordinatesError> {
    let fail = |reason: String| {
        let remedy = "train on a dataset, which a simulation job makes, to scale coordinates to";
        CoordinatesError::Unsuitable(format!("{reason}; {remedy}"))
    };
    if !has_start(system) {
        return Err(fail("this system has neither a topology_pdb nor a dataset to start from".into()));
    }
    let begin = Instant::now();
    let (start, _) = own_start(system, RELAXED).map_err(|e| fail(e.to_string()))?;
    let plan = plan(temperature);
    let lowest = plan.walkers * system.dimension();
    let mut simulation = Simulation::new(plan, system.clone(), &start).map_err(|e| fail(e.to_string()))?;
    let mut positions = Vec::new();
    while simulation.phase() != Phase::Finished {
        let progress = simulation.advance_unless(&|| begin.elapsed() > LONGEST).map_err(|e| match e {
            SimulationError::Stopped => {
                fail(format!("a short simulation of it takes more than {} s", LONGEST.as_secs()))
            }
            e => fail(format!("a short simulation failed: {e}")),
        })?;
        if let Some(frames) = progress.frames {
            // Frames go from the lowest temperature up.
            positions.extend(frames.positions.into_iter().take(lowest));
        }
    }
    Ok(positions)
}
