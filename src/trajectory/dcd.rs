//! DCD: Fortran records of f32 in Å, as CHARMM, NAMD and OpenMM write them.

use super::bytes::Bytes;
use super::error::{cut_off, damaged, unsupported, unwritable};
use super::{Format, Trajectory, TrajectoryError};

/// The unit of time in ps, as OpenMM has it.
const AKMA_PS: f64 = 0.048_888_21;
/// What CHARMM and its like call their version. X-PLOR's files have none, and a time step in f64 over the flags.
const CHARMM: i32 = 24;
const CELL_BYTES: usize = 48;
const TITLE_BYTES: usize = 80;
const REWRITE: &str = "write it anew with OpenMM, MDAnalysis or VMD, or convert it to XTC";

/// Why there is no record.
enum Fault {
    CutOff,
    OtherLength(u32),
}

/// What the records before the frames say.
struct Header {
    frames: usize,
    first_step: i32,
    interval: i32,
    /// In units of [`AKMA_PS`].
    step: f64,
    has_cell: bool,
    has_fourth_dimension: bool,
    atoms: usize,
}

pub(super) fn read(bytes: &[u8]) -> Result<Trajectory, TrajectoryError> {
    let mut file = match bytes.first_chunk::<8>() {
        Some([84, 0, 0, 0, b'C', b'O', b'R', b'D']) => Bytes::little_endian(bytes),
        Some([0, 0, 0, 84, b'C', b'O', b'R', b'D']) => Bytes::big_endian(bytes),
        Some([84, 0, 0, 0, 0, 0, 0, 0] | [0, 0, 0, 0, 0, 0, 0, 84]) => {
            return Err(unsupported(Format::Dcd, "its records have lengths of 64 bits", REWRITE));
        }
        Some([_, _, _, _, b'V', b'E', b'L', b'D']) => {
            return Err(unsupported(Format::Dcd, "it holds velocities", "pass the file of positions"));
        }
        _ => {
            let reason = "it does not begin with a record of 84 bytes and CORD".to_string();
            return Err(TrajectoryError::OtherFormat { format: Format::Dcd, reason });
        }
    };
    let header = Header::read(&mut file)?;
    let mut trajectory = Trajectory { atoms: header.atoms, positions: Vec::new(), times_ps: None, lost: None };
    let mut frames = 0;
    while file.left() > 0 {
        let left = file.left();
        match header.frame(&mut file) {
            Ok([mut x, mut y, mut z]) => {
                while let (Some(x), Some(y), Some(z)) = (x.f32(), y.f32(), z.f32()) {
                    trajectory.positions.extend([x, y, z].map(|x| 0.1 * x));
                }
                frames += 1;
            }
            Err(Fault::CutOff) => {
                trajectory.lost = Some(cut_off(left, frames + 1));
                break;
            }
            Err(Fault::OtherLength(length)) => {
                let (frame, atoms) = (frames + 1, header.atoms);
                let reason = format!("frame {frame} has a record of {length} bytes, which do not hold {atoms} atoms");
                return Err(damaged(Format::Dcd, reason));
            }
        }
    }
    trajectory.times_ps = header.times(frames);
    if trajectory.lost.is_none() && header.frames > frames {
        trajectory.lost =
            Some(format!("the header speaks of {} frames, and the file ends after {frames}", header.frames));
    }
    Ok(trajectory)
}

/// The data of a record, of `bytes` bytes where that is known.
fn record<'a>(file: &mut Bytes<'a>, bytes: Option<usize>) -> Result<Bytes<'a>, Fault> {
    let length = file.u32().ok_or(Fault::CutOff)?;
    let count = usize::try_from(length).map_err(|_| Fault::OtherLength(length))?;
    if bytes.is_some_and(|bytes| bytes != count) {
        return Err(Fault::OtherLength(length));
    }
    let data = file.part(count).ok_or(Fault::CutOff)?;
    match file.u32().ok_or(Fault::CutOff)? {
        again if again == length => Ok(data),
        again => Err(Fault::OtherLength(again)),
    }
}

impl Header {
    fn read(file: &mut Bytes<'_>) -> Result<Self, TrajectoryError> {
        let header = Self::records(file).ok_or_else(|| damaged(Format::Dcd, "its header is not whole"))?;
        header.1.map_or(Ok(header.0), Err)
    }

    /// What the header says, and what speaks against using the file.
    fn records(file: &mut Bytes<'_>) -> Option<(Self, Option<TrajectoryError>)> {
        let mut numbers = record(file, None).ok()?;
        let _cord = numbers.take(4)?;
        let mut step = numbers.clone();
        let mut control = [0; 20];
        for number in &mut control {
            *number = numbers.i32()?;
        }
        let [frames, first_step, interval, _, _, _, _, _, fixed, _, cell, fourth_dimension, .., version] = control;
        let _before_the_step = step.take(36)?;
        let step = if version == 0 { step.f64()? } else { step.f32()? };
        let _titles = record(file, None).ok()?;
        let atoms = record(file, Some(4)).ok()?.i32()?;

        let fault = if fixed != 0 {
            let reason = format!("{fixed} of its atoms are fixed, and told in its first frame only");
            Some(unsupported(Format::Dcd, reason, REWRITE))
        } else if atoms <= 0 {
            Some(damaged(Format::Dcd, format!("it says that it has {atoms} atoms")))
        } else {
            None
        };
        let header = Self {
            frames: usize::try_from(frames).unwrap_or(0),
            first_step,
            interval,
            step,
            has_cell: version != 0 && cell != 0,
            has_fourth_dimension: version != 0 && fourth_dimension != 0,
            atoms: usize::try_from(atoms).unwrap_or(0),
        };
        Some((header, fault))
    }

    /// The x, y and z of a frame in Å.
    fn frame<'a>(&self, file: &mut Bytes<'a>) -> Result<[Bytes<'a>; 3], Fault> {
        let axis = self.atoms.saturating_mul(4);
        if self.has_cell {
            record(file, Some(CELL_BYTES))?;
        }
        let axes = [record(file, Some(axis))?, record(file, Some(axis))?, record(file, Some(axis))?];
        if self.has_fourth_dimension {
            record(file, Some(axis))?;
        }
        Ok(axes)
    }

    /// The times of frames, where the header has an interval for them.
    fn times(&self, frames: usize) -> Option<Vec<f64>> {
        let interval = f64::from(self.interval) * self.step * AKMA_PS;
        let first = f64::from(self.first_step) * self.step * AKMA_PS;
        (interval > 0.0).then(|| (0..frames).map(|i| first + i as f64 * interval).collect())
    }
}

pub(super) fn write(trajectory: &Trajectory) -> Result<Vec<u8>, TrajectoryError> {
    let too_many = |what: &str| unwritable(Format::Dcd, format!("there are too many {what}"), "write several files");
    let frames = i32::try_from(trajectory.frames()).map_err(|_| too_many("frames"))?;
    let axis_bytes = trajectory.atoms.checked_mul(4).and_then(|n| i32::try_from(n).ok());
    let axis_bytes = axis_bytes.ok_or_else(|| too_many("atoms"))?.to_le_bytes();
    let (first, interval_ps) = trajectory.times_ps.as_deref().and_then(regular).unwrap_or((0, 0.0));

    let mut control = [0; 20];
    (control[0], control[1], control[2]) = (frames, first, 1);
    control[3] = first.saturating_add(frames - 1);
    control[9] = i32::from_le_bytes(((interval_ps / AKMA_PS) as f32).to_le_bytes());
    control[19] = CHARMM;

    let mut file = Vec::new();
    let mut record = |data: &[u8]| {
        let length = (data.len() as u32).to_le_bytes();
        file.extend(length);
        file.extend(data);
        file.extend(length);
    };
    record(&[b"CORD".as_slice(), &control.map(i32::to_le_bytes).concat()].concat());
    let mut titles = 1_i32.to_le_bytes().to_vec();
    titles.extend(b"Created by boltzflow");
    titles.resize(4 + TITLE_BYTES, b' ');
    record(&titles);
    record(&(trajectory.atoms as u32).to_le_bytes());

    for (frame, row) in trajectory.rows().enumerate() {
        for axis in 0..3 {
            file.extend(axis_bytes);
            for (atom, x) in row.iter().skip(axis).step_by(3).enumerate() {
                let x = (10.0 * x) as f32;
                if !x.is_finite() {
                    let reason = format!("atom {} in frame {} is too far away for f32", atom + 1, frame + 1);
                    return Err(unwritable(Format::Dcd, reason, "leave out that frame"));
                }
                file.extend(x.to_le_bytes());
            }
            file.extend(axis_bytes);
        }
    }
    Ok(file)
}

/// The first of equally distant times as a number of intervals, and the interval. A single time is its own interval.
fn regular(times: &[f64]) -> Option<(i32, f64)> {
    let (first, last) = (*times.first()?, *times.last()?);
    let interval = if times.len() > 1 { (last - first) / (times.len() - 1) as f64 } else { first };
    let offset = (first / interval).round();
    let is_regular =
        times.iter().enumerate().all(|(i, t)| (t - (offset + i as f64) * interval).abs() < 1e-3 * interval);
    (interval > 0.0 && is_regular && offset.abs() < f64::from(i32::MAX)).then_some((offset as i32, interval))
}
