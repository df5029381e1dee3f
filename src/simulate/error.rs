//! Why a simulation cannot be planned, started, continued or restored.

use crate::energy::EnergyError;

/// A field of a plan that cannot be carried out.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct PlanError {
    /// The field's path in the plan.
    pub field: &'static str,
    /// What is wrong with it, and what it should be.
    pub reason: String,
}

/// What went wrong with one replica.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum Fault {
    #[error("the potential energy is not finite; use a smaller timestep, or minimise the starting positions first")]
    Energy,
    #[error(
        "constrained distances could not be restored; use a smaller timestep, or minimise the starting positions first"
    )]
    Constraints,
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SimulationError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Energy(#[from] EnergyError),
    #[error("constraint {index}: {reason}")]
    Constraint { index: usize, reason: String },
    #[error("atom {atom} has mass {mass}; every atom needs a positive mass to be moved, so give it one")]
    Mass { atom: usize, mass: f64 },
    #[error("starting positions: {0}")]
    Start(String),
    #[error("step {step}, walker {walker} at temperature {temperature}: {fault}")]
    Diverged { step: u64, walker: usize, temperature: f64, fault: Fault },
    /// By its watch; what it was at is lost, and it cannot go on.
    #[error("stopped in the midst of a step")]
    Stopped,
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SnapshotError {
    #[error("the snapshot is damaged: {0}; go back to an earlier one")]
    Damaged(&'static str),
    #[error("the snapshot is of another {0}; restore it with what the simulation was started with")]
    Mismatch(&'static str),
    #[error(transparent)]
    Simulation(#[from] SimulationError),
}
