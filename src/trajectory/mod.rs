//! Files of molecular trajectories.
//!
//! Positions are in nm and times in ps, whatever a format has: XTC has these, DCD, PDB and Amber's NetCDF have ångström. A
//! file that was cut off while a frame was written has the frames before it, and says what is lost. Nothing here trusts a
//! number of the file: what is read is bounded by what is there.

mod cursor;
mod dcd;
mod netcdf;
mod pdb;
mod xtc;

use crate::energy::openmm::Topology;
use std::path::Path;

/// nm in an ångström.
const ANGSTROM: f64 = 0.1;

/// The formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// GROMACS, compressed to a precision that the file states; nm and ps.
    Xtc,
    /// CHARMM, NAMD and OpenMM, float32; Å.
    Dcd,
    /// The Protein Data Bank's text, one model a frame, to 0.001 Å.
    Pdb,
    /// Amber's NetCDF convention, to read only; Å and ps.
    NetCdf,
}

impl Format {
    /// The format of a file by the end of its name.
    pub fn of_path(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "xtc" => Some(Self::Xtc),
            "dcd" => Some(Self::Dcd),
            "pdb" | "ent" => Some(Self::Pdb),
            "nc" | "ncdf" | "netcdf" => Some(Self::NetCdf),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Xtc => "XTC",
            Self::Dcd => "DCD",
            Self::Pdb => "PDB",
            Self::NetCdf => "NetCDF",
        }
    }
}

/// Frames of the same atoms.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trajectory {
    pub atoms: usize,
    /// (frames, atoms, 3) in nm.
    pub positions: Vec<f64>,
    /// Of each frame, in ps, if the file has them.
    pub times: Option<Vec<f64>>,
    /// What is missing at the file's end, in a sentence.
    pub lost: Option<String>,
}

impl Trajectory {
    pub fn frames(&self) -> usize {
        self.positions.len() / (3 * self.atoms).max(1)
    }
}

/// Why a trajectory cannot be read or written.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TrajectoryError {
    #[error("the file is empty; was the program that wrote it stopped before its first frame?")]
    Empty,
    #[error("this is no {format} file: {reason}")]
    Foreign { format: &'static str, reason: String },
    #[error("frame {frame} of the {format} file: {reason}")]
    Frame { format: &'static str, frame: usize, reason: String },
    #[error("{format} files {reason}")]
    Unsupported { format: &'static str, reason: &'static str },
    #[error("{0}")]
    Topology(String),
}

/// Reads a file's bytes.
///
/// # Errors
/// When there is no whole frame, or one that is not what it should be: another number of atoms, positions that are not
/// finite. A frame that is not all there is no error: [`Trajectory::lost`] speaks of it.
pub fn read(bytes: &[u8], format: Format) -> Result<Trajectory, TrajectoryError> {
    if bytes.is_empty() {
        return Err(TrajectoryError::Empty);
    }
    let trajectory = match format {
        Format::Xtc => xtc::read(bytes)?,
        Format::Dcd => dcd::read(bytes)?,
        Format::Pdb => pdb::read(bytes)?,
        Format::NetCdf => netcdf::read(bytes)?,
    };
    let row = (3 * trajectory.atoms).max(1);
    if let Some(i) = trajectory.positions.iter().position(|x| !x.is_finite()) {
        let reason = format!("atom {} has the coordinate {}; it must be finite", i % row / 3, trajectory.positions[i]);
        return Err(TrajectoryError::Frame { format: format.name(), frame: i / row, reason });
    }
    if trajectory.positions.is_empty() {
        let reason = trajectory.lost.unwrap_or_else(|| "it has no frames".into());
        return Err(TrajectoryError::Foreign { format: format.name(), reason });
    }
    Ok(trajectory)
}

/// The bytes of a file. PDB files need the topology of the atoms.
pub fn write(trajectory: &Trajectory, format: Format, topology: Option<&Topology>) -> Result<Vec<u8>, TrajectoryError> {
    match format {
        Format::Xtc => xtc::write(trajectory),
        Format::Dcd => dcd::write(trajectory),
        Format::Pdb => match topology {
            Some(topology) if topology.atoms.len() == trajectory.atoms => pdb::write(trajectory, topology),
            Some(topology) => Err(TrajectoryError::Topology(format!(
                "the topology has {} atoms and the trajectory {}; give the topology of the same system",
                topology.atoms.len(),
                trajectory.atoms
            ))),
            None => Err(TrajectoryError::Topology("a PDB file needs the names of atoms; give a topology".into())),
        },
        Format::NetCdf => {
            Err(TrajectoryError::Unsupported { format: "NetCDF", reason: "are not written; use XTC or DCD" })
        }
    }
}
