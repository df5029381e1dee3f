//! The number of threads that a process computes with.

use super::super::client::CliError;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Read by rayon, and by the tensor library for its matrix products.
const VARIABLE: &str = "RAYON_NUM_THREADS";

/// The number of threads that this process computes with. Where another one is asked for, the process becomes one that was
/// started with it: the tensor library reads the environment whenever it multiplies, and an environment cannot be changed
/// safely while threads run.
pub(super) fn with_threads(wanted: Option<u32>) -> Result<usize, CliError> {
    let Some(wanted) = wanted.map(|n| n.to_string()) else { return Ok(rayon::current_num_threads()) };
    if std::env::var(VARIABLE).is_ok_and(|now| now == wanted) {
        return Ok(rayon::current_num_threads());
    }
    let failed = |e: std::io::Error| CliError::failed(format!("cannot start again with {VARIABLE}={wanted}: {e}"));
    let program = std::env::current_exe().map_err(failed)?;
    Err(failed(Command::new(program).args(std::env::args_os().skip(1)).env(VARIABLE, &wanted).exec()))
}
