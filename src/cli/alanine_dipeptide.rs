//! The molecule that comes with the binary: alanine dipeptide, ff96 and OBC1, from examples/alanine-dipeptide.

use super::arrays::{Array, read_npz_entry};
use super::client::CliError;
use crate::energy::{System, SystemDefinition};
use std::io::Cursor;

pub(super) const SYSTEM: &str = include_str!("../../examples/alanine-dipeptide/system.xml");
pub(super) const TOPOLOGY: &str = include_str!("../../examples/alanine-dipeptide/topology.pdb");
/// Frames at 300 K: `positions_nm` (frames, atoms, 3).
pub(super) const TRAJECTORY: &[u8] = include_bytes!("../../examples/alanine-dipeptide/trajectory-300K.npz");
/// Eight configurations as OpenMM's Reference platform evaluates them: `positions_nm`, `energy_kj_mol`,
/// `forces_kj_mol_nm`; openmm-reference.json beside it says by which version.
pub(super) const REFERENCE: &[u8] = include_bytes!("../../examples/alanine-dipeptide/openmm-reference.npz");

/// The molecule as a system.
pub(super) fn system() -> Result<System, CliError> {
    let definition = SystemDefinition::OpenMm { system_xml: SYSTEM.into(), topology_pdb: None };
    System::build(definition).map_err(|e| CliError::failed(format!("alanine dipeptide: {e}")))
}

/// An array of one of the files.
pub(super) fn array(file: &[u8], name: &str) -> Result<Array, CliError> {
    let damaged = |reason: &str| CliError::failed(format!("the bundled {name} of alanine dipeptide: {reason}"));
    read_npz_entry(Cursor::new(file), name).map_err(|e| damaged(&e))?.ok_or_else(|| damaged("it is missing"))
}
