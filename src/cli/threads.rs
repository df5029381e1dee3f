//! The number of threads that a process computes with.

use super::client::CliError;
use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Read by rayon, and by the tensor library for its matrix products.
const RAYON: &str = "RAYON_NUM_THREADS";

/// Read by the tensor library for sums and the like. Its own threads would spin beside ours, which have the cores.
const CANDLE: &str = "CANDLE_NUM_THREADS";

/// Settles how many threads compute, before there are any. The libraries read the environment, which cannot be changed
/// safely once threads run: where it says nothing, the process starts again with what it should say. Processors are
/// counted with the limits of a container in mind.
pub(super) fn settle() {
    if std::env::var_os(RAYON).is_some() && std::env::var_os(CANDLE).is_some() {
        return;
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from).to_string();
    let rayon = std::env::var_os(RAYON).unwrap_or(processors.into());
    let candle = std::env::var_os(CANDLE).unwrap_or("1".into());
    let error = start_again(&[(RAYON, &rayon), (CANDLE, &candle)]);
    remark!("warning: cannot start again with {RAYON} and {CANDLE} set ({error}); computations may be slower");
}

/// The number of threads that this process computes with; another one if it is wanted.
pub(super) fn with_threads(wanted: Option<u32>) -> Result<usize, CliError> {
    let Some(wanted) = wanted.map(|n| n.to_string()) else { return Ok(rayon::current_num_threads()) };
    if std::env::var(RAYON).is_ok_and(|now| now == wanted) {
        return Ok(rayon::current_num_threads());
    }
    let error = start_again(&[(RAYON, OsStr::new(&wanted))]);
    Err(CliError::failed(format!("cannot start again with {RAYON}={wanted}: {error}")))
}

/// Becomes this program anew, in the same process; comes back only with an error.
fn start_again(variables: &[(&str, &OsStr)]) -> std::io::Error {
    match std::env::current_exe() {
        Ok(program) => {
            let mut command = Command::new(program);
            command.args(std::env::args_os().skip(1)).envs(variables.iter().copied()).exec()
        }
        Err(error) => error,
    }
}
