//! Replica exchange of alanine dipeptide, as a simulation job runs it.

use super::super::alanine_dipeptide::{SYSTEM, TOPOLOGY};
use super::super::client::CliError;
use super::workload::Setting;
use crate::energy::{System, SystemDefinition, own_start};
use crate::simulate::{Method, Simulation, SimulationPlan, Temperatures};

const WALKERS: usize = 32;
const TEMPERATURES: usize = 8;
/// Steps of a call, after which a frame is saved and temperatures are exchanged.
const STEPS: u64 = 100;
/// The largest component of the gradient (kJ/mol/nm) that the structure is relaxed to.
const RELAXED: f64 = 10.0;

/// Steps of Langevin dynamics, summed over replicas.
pub(super) fn run(setting: &Setting) -> Result<(f64, f64), CliError> {
    let failed = |e: &dyn std::fmt::Display| CliError::failed(e.to_string());
    let definition = SystemDefinition::OpenMm { system_xml: SYSTEM.into(), topology_pdb: Some(TOPOLOGY.into()) };
    let system = System::build(definition).map_err(|e| failed(&e))?;
    let (start, _) = own_start(&system, RELAXED).map_err(|e| failed(&e))?;
    let plan = SimulationPlan {
        method: Method::Langevin { timestep_ps: 0.001, friction_per_ps: 2.0 },
        temperatures: Temperatures::Geometric { low: 300.0, high: 820.0, count: TEMPERATURES },
        walkers: WALKERS,
        equilibration_steps: 0,
        // More than there is time for.
        production_steps: 10_000_000,
        save_stride: STEPS,
        exchange_stride: STEPS,
        seed: 1,
    };
    let mut simulation = Simulation::new(plan, system, &start).map_err(|e| failed(&e))?;
    let seconds = setting.pace.time(|| {
        while simulation.advance().map_err(|e| failed(&e))?.frames.is_none() {}
        Ok(())
    })?;
    Ok((STEPS as f64 * (WALKERS * TEMPERATURES) as f64, seconds))
}
