//! MBAR on harmonic states.

use super::super::client::CliError;
use super::workload::Setting;
use crate::math::{Purpose, Randoms};
use crate::thermo;

const STATES: usize = 20;
const SAMPLES_PER_STATE: usize = 10_000;

pub(super) fn solve(setting: &Setting) -> Result<(f64, f64), CliError> {
    let n = STATES * SAMPLES_PER_STATE;
    let u_kn = reduced_energies();
    let n_k = [SAMPLES_PER_STATE as u64; STATES];
    let seconds = setting.pace.time(|| {
        let solved = thermo::solve_mbar(&u_kn, &n_k);
        solved.map(drop).map_err(|e| CliError::failed(e.to_string()))
    })?;
    Ok((n as f64, seconds))
}

/// u_kn (states, samples) of oscillators that are shifted and stiffened from one state to the next, and overlap with their
/// neighbours.
fn reduced_energies() -> Vec<f64> {
    let states: Vec<(f64, f64)> = (0..STATES).map(|k| (0.5 * k as f64, 1.0 + 0.2 * k as f64)).collect();
    let mut x = Vec::with_capacity(STATES * SAMPLES_PER_STATE);
    for (k, (centre, stiffness)) in states.iter().enumerate() {
        let mut random = Randoms::new(0, Purpose::Validation, k as u64);
        x.extend((0..SAMPLES_PER_STATE).map(|_| centre + random.normal() / stiffness.sqrt()));
    }
    states.iter().flat_map(|(c, k)| x.iter().map(move |x| 0.5 * k * (x - c) * (x - c))).collect()
}
