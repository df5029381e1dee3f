//! The server: one gRPC service a file (validate, call, convert); errors in one place; layers; health; the admin port.

mod admin;
mod annealed;
mod app;
mod convert;
mod datasets;
mod errors;
mod free_energy;
mod instrument;
mod independent;
mod jobs;
mod models;
mod pages;
mod reply;
mod run;
mod sampling;
mod systems;
mod sampling_task;

pub use app::Limits;
pub use run::{ServeError, Server, ServerSettings};
