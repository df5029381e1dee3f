//! The server: one gRPC service a file (validate, call, convert); errors in one place; layers; health; the admin port.

mod admin;
mod annealed;
mod app;
mod convert;
mod datasets;
mod decisions;
mod difference;
mod download;
mod errors;
mod free_energy;
mod independent;
mod instrument;
mod jobs;
mod joint;
mod mbar;
mod models;
mod pages;
mod plans;
mod reply;
mod run;
mod sampling;
mod sampling_task;
mod systems;

pub use app::Limits;
pub use run::{ServeError, Server, ServerSettings};
