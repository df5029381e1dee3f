//! The contract: messages generated from `proto/boltzflow/v1`, and their conversion from and to what the program works
//! with. A message that cannot be converted is a [`FieldError`], which names the field.

mod arrays;
pub mod codec;
mod energy;
mod errors;
mod events;
mod names;
mod plan;
mod sampling;
mod simulation;
mod variables;
mod weights;

/// The generated messages, clients and servers.
pub mod v1 {
    #![allow(missing_docs, clippy::all, clippy::pedantic)]
    tonic::include_proto!("boltzflow.v1");
}

/// The encoded descriptors of all messages and services, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The domain of every google.rpc.ErrorInfo.
pub const ERROR_DOMAIN: &str = "boltzflow.dev";

pub use arrays::{array, check_encoding, finite_rows, numbers, rows};
pub use energy::{analytic_message, energy_unit, system_definition};
pub use errors::FieldError;
pub use events::{
    checkpoint_event, encode_state_event, job_event, message_event, progress_message, sampling_message,
    simulation_message, state_message,
};
pub use names::{check_id, id_of, page_size, timestamp};
pub use plan::{chosen_recipe, training_plan, training_task};
pub use sampling::{SamplingReport, method_message, sampling_progress};
pub use simulation::{SimulationReport, simulation_plan, simulation_progress, simulation_task};
pub use variables::{collective_variable, variable_message};
pub use weights::{card_message, coverage, estimate, warn, weight_summary, weights_of};
