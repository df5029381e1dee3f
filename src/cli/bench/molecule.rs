//! Molecular mechanics of alanine dipeptide, alone and after a flow.

use super::super::alanine_dipeptide::{TRAJECTORY, array, system};
use super::super::client::CliError;
use super::flows::REALNVP_60;
use super::sampling::fresh;
use super::workload::Setting;
use crate::energy::Potential;
use std::sync::Arc;

/// Configurations of a call.
const N: usize = 1024;

/// Energies and forces.
pub(super) fn energies(setting: &Setting) -> Result<(f64, f64), CliError> {
    let (potential, positions) = configurations()?;
    let (mut energies, mut gradients) = (vec![0.0; N], vec![0.0; positions.len()]);
    let seconds = setting.pace.time(|| {
        let evaluated = potential.evaluate(&positions, &mut energies, Some(&mut gradients));
        evaluated.map_err(|e| CliError::failed(e.to_string()))
    })?;
    Ok((N as f64, seconds))
}

/// The cost of a weighted sample: a draw of realnvp-60, and an energy.
pub(super) fn weighted(setting: &Setting) -> Result<(f64, f64), CliError> {
    let (potential, positions) = configurations()?;
    let flow = REALNVP_60.flow(&setting.device)?.with_precision(setting.precision);
    let mut energies = vec![0.0; N];
    let mut next = 0;
    let seconds = setting.pace.time(|| {
        flow.draw(&fresh(&mut next, N)).map_err(|e| CliError::failed(e.to_string()))?;
        potential.evaluate(&positions, &mut energies, None).map_err(|e| CliError::failed(e.to_string()))
    })?;
    Ok((N as f64, seconds))
}

/// The molecule's potential, and frames that are spread over its trajectory.
fn configurations() -> Result<(Arc<dyn Potential>, Vec<f64>), CliError> {
    let potential = Arc::clone(system()?.potential());
    let d = potential.dimension();
    let all = array(TRAJECTORY, "positions_nm")?.numbers;
    let stride = (all.len() / d / N).max(1);
    let positions: Vec<f64> = all.chunks_exact(d).step_by(stride).take(N).flatten().copied().collect();
    if positions.len() != N * d {
        return Err(CliError::failed("the bundled trajectory of alanine dipeptide is too short"));
    }
    Ok((potential, positions))
}
