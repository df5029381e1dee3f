//! Trajectories of molecules in the files of other programs. Positions are in nm and times in ps here, whatever a file
//! has them in.

mod amber_netcdf;
mod bytes;
mod dcd;
mod error;
mod pdb;
mod xtc;

use crate::energy::openmm::Topology;
pub use error::TrajectoryError;
use std::fmt;
use std::path::Path;

/// Frames of one molecule.
#[derive(Clone, Debug, PartialEq)]
pub struct Trajectory {
    pub atoms: usize,
    /// Rows of 3N coordinates in nm, one a frame.
    pub positions: Vec<f64>,
    /// The time of each frame in ps; none where a file has no times, or times that are not numbers.
    pub times_ps: Option<Vec<f64>>,
    /// What the file's end, where it was cut off, says of frames that are not here; in words.
    pub lost: Option<String>,
}

/// The kinds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// GROMACS: compressed, nm and ps.
    Xtc,
    /// CHARMM, NAMD and OpenMM: f32, Å, steps of AKMA time.
    Dcd,
    /// Text, Å, no times; frames are models.
    Pdb,
    /// Amber: classic NetCDF, Å and ps. It is read only.
    AmberNetCdf,
}

impl Format {
    /// The format that a file's name says it has.
    pub fn of_path(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "xtc" => Some(Self::Xtc),
            "dcd" => Some(Self::Dcd),
            "pdb" => Some(Self::Pdb),
            "nc" | "ncdf" => Some(Self::AmberNetCdf),
            _ => None,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Xtc => "XTC",
            Self::Dcd => "DCD",
            Self::Pdb => "PDB",
            Self::AmberNetCdf => "Amber NetCDF",
        })
    }
}

impl Trajectory {
    pub fn frames(&self) -> usize {
        self.rows().len()
    }

    fn rows(&self) -> std::slice::ChunksExact<'_, f64> {
        self.positions.chunks_exact(self.atoms.saturating_mul(3).max(1))
    }

    /// What every format needs of frames: at least one, of at least one atom, of finite numbers.
    fn check(&self, format: Format) -> Result<(), TrajectoryError> {
        if self.atoms == 0 || self.positions.is_empty() || !self.rows().remainder().is_empty() {
            return Err(TrajectoryError::Shape { atoms: self.atoms, numbers: self.positions.len() });
        }
        if let Some(times) = &self.times_ps
            && times.len() != self.frames()
        {
            return Err(TrajectoryError::Times { frames: self.frames(), times: times.len() });
        }
        for (frame, row) in self.rows().enumerate() {
            if let Some(atom) = row.chunks_exact(3).position(|x| x.iter().any(|x| !x.is_finite())) {
                return Err(TrajectoryError::NotFinite { format, frame: frame + 1, atom: atom + 1 });
            }
        }
        Ok(())
    }
}

/// Reads a whole file. What is needed of memory is bounded by the file's size, not by what it claims to hold.
///
/// # Errors
/// [`TrajectoryError`] when there is no whole frame, or one that is damaged, not finite, or of another number of atoms.
/// A frame that the file's end cuts off is not an error: `lost` speaks of it.
pub fn read(bytes: &[u8], format: Format) -> Result<Trajectory, TrajectoryError> {
    if bytes.is_empty() {
        return Err(TrajectoryError::Empty);
    }
    let mut trajectory = match format {
        Format::Xtc => xtc::read(bytes)?,
        Format::Dcd => dcd::read(bytes)?,
        Format::Pdb => pdb::read(bytes)?,
        Format::AmberNetCdf => amber_netcdf::read(bytes)?,
    };
    if trajectory.positions.is_empty() {
        return Err(TrajectoryError::NoFrame { format, lost: trajectory.lost.unwrap_or_default() });
    }
    trajectory.times_ps.take_if(|times| times.iter().any(|t| !t.is_finite()));
    trajectory.check(format)?;
    Ok(trajectory)
}

/// Writes a whole file; a PDB file has the names and bonds of `topology`, which others do not need.
///
/// XTC rounds positions to 0.001 nm; DCD and, for nine atoms or less, XTC to f32; PDB to 0.0001 nm. XTC has the
/// numbers of frames as times where there are none. DCD holds times that are a whole number of equal intervals; others
/// are left out. PDB holds none.
///
/// # Errors
/// [`TrajectoryError`] when the frames are not rows of finite positions, or are not what the format can hold.
pub fn write(trajectory: &Trajectory, format: Format, topology: Option<&Topology>) -> Result<Vec<u8>, TrajectoryError> {
    trajectory.check(format)?;
    match (format, topology) {
        (Format::Xtc, _) => xtc::write(trajectory),
        (Format::Dcd, _) => dcd::write(trajectory),
        (Format::Pdb, Some(topology)) => pdb::write(trajectory, topology),
        (Format::Pdb, None) => {
            Err(error::unwritable(format, "it names the atoms, and no names were given", "give a topology"))
        }
        (Format::AmberNetCdf, _) => {
            Err(error::unwritable(format, "this program only reads it", "write XTC, DCD or PDB"))
        }
    }
}
