//! Molecular mechanics of alanine dipeptide, alone and after a flow, and of a peptide.

use super::super::alanine_dipeptide::{TRAJECTORY, array, system};
use super::super::arrays::read_npz_entry;
use super::super::client::CliError;
use super::flows::REALNVP_60;
use super::sampling::fresh;
use super::workload::Setting;
use crate::energy::openmm::read_system;
use crate::energy::{EnergyError, Potential};
use crate::math::{Purpose, Randoms};
use std::io::Cursor;
use std::sync::Arc;

/// Configurations of a call.
const N: usize = 1024;

/// A peptide of 147 atoms in amber14 and OBC2, and configurations of it.
const PEPTIDE: &str = include_str!("../../../examples/peptide/system.xml");
const PEPTIDE_FRAMES: &[u8] = include_bytes!("../../../examples/peptide/reference.npz");
/// How far atoms are moved (nm) to make other configurations of a few.
const SHAKEN: f64 = 0.002;

/// Energies and forces of alanine dipeptide.
pub(super) fn energies(setting: &Setting) -> Result<(f64, f64), CliError> {
    let (potential, positions) = configurations()?;
    energies_of(potential.as_ref(), &positions, setting)
}

/// Energies and forces of the peptide.
pub(super) fn peptide_energies(setting: &Setting) -> Result<(f64, f64), CliError> {
    let potential = read_system(PEPTIDE).map_err(|e: EnergyError| CliError::failed(e.to_string()))?.potential;
    let frames = read_npz_entry(Cursor::new(PEPTIDE_FRAMES), "positions_nm").map_err(CliError::failed)?;
    let frames = frames.map(|array| array.numbers).unwrap_or_default();
    let mut random = Randoms::new(1, Purpose::Sample, 0);
    let d = potential.dimension();
    let positions: Vec<f64> = frames.iter().cycle().take(N * d).map(|x| x + SHAKEN * random.normal()).collect();
    energies_of(&potential, &positions, setting)
}

fn energies_of(potential: &dyn Potential, positions: &[f64], setting: &Setting) -> Result<(f64, f64), CliError> {
    let (mut energies, mut gradients) = (vec![0.0; N], vec![0.0; positions.len()]);
    let seconds = setting.pace.time(|| {
        let evaluated = potential.evaluate(positions, &mut energies, Some(&mut gradients));
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
