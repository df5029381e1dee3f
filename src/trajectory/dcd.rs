//! The DCD of CHARMM, NAMD and OpenMM: Fortran records, each between two copies of its length.
//!
//! Three records of header, then for each frame the unit cell, if the header says that there are cells, and x, y and z of
//! all atoms in Å as float32. The number of frames in the header is not believed: a program that was stopped had no time to
//! correct it.

use super::cursor::Cursor;
use super::{ANGSTROM, Trajectory, TrajectoryError};

/// Length of the first record, which tells the order of bytes.
const HEADER: u32 = 84;
/// ps in CHARMM's unit of time.
const AKMA: f64 = 0.048_888_21;

fn foreign(reason: impl Into<String>) -> TrajectoryError {
    TrajectoryError::Foreign { format: "DCD", reason: reason.into() }
}

/// The next record; nothing if it is not all there, an error if its two lengths differ.
fn record<'a>(cursor: &mut Cursor<'a>) -> Result<Option<&'a [u8]>, String> {
    let Some(length) = cursor.u32() else { return Ok(None) };
    let Some(bytes) = cursor.take(length as usize) else { return Ok(None) };
    match cursor.u32() {
        None => Ok(None),
        Some(again) if again == length => Ok(Some(bytes)),
        Some(again) => Err(format!("a record has {length} bytes at its beginning and {again} at its end")),
    }
}

pub(super) fn read(bytes: &[u8]) -> Result<Trajectory, TrajectoryError> {
    let little_endian = match bytes.first_chunk::<4>() {
        Some(first) if u32::from_le_bytes(*first) == HEADER => true,
        Some(first) if u32::from_be_bytes(*first) == HEADER => false,
        _ => return Err(foreign("it does not begin with a record of 84 bytes")),
    };
    let mut cursor = Cursor::new(bytes, little_endian);
    let mut next = || {
        let found = record(&mut cursor).map_err(foreign)?;
        found.ok_or_else(|| foreign("it ends within its header"))
    };
    let header = next()?;
    next()?;
    let atoms = Cursor::new(next()?, little_endian).u32().unwrap_or(0) as usize;
    if !header.starts_with(b"CORD") {
        return Err(foreign("its header does not say CORD; files of velocities are not read"));
    }
    if atoms == 0 {
        return Err(foreign("it has no atoms"));
    }
    let number = |k: usize| Cursor::new(header, little_endian).moved_to(4 + 4 * k).u32().unwrap_or(0);
    if number(8) > 0 {
        let reason = "with fixed atoms are not read; write all atoms of each frame";
        return Err(TrajectoryError::Unsupported { format: "DCD", reason });
    }
    let is_charmm = number(19) != 0;
    let (has_cell, has_fourth) = (is_charmm && number(10) != 0, is_charmm && number(11) != 0);
    let interval = f64::from(number(2).max(1));
    let step = if is_charmm {
        Cursor::new(header, little_endian).moved_to(40).f32().map_or(0.0, f64::from)
    } else {
        Cursor::new(header, little_endian).moved_to(40).doubles(1).and_then(|d| d.first().copied()).unwrap_or(0.0)
    };

    let mut trajectory = Trajectory { atoms, ..Trajectory::default() };
    let mut frames = 0;
    while cursor.left() > 0 {
        let begin = cursor;
        let fault = |reason: String| TrajectoryError::Frame { format: "DCD", frame: frames, reason };
        let frame = (|| -> Result<Option<[Vec<f64>; 3]>, String> {
            if has_cell && record(&mut cursor)?.is_none() {
                return Ok(None);
            }
            let mut columns: [Vec<f64>; 3] = Default::default();
            for column in &mut columns {
                let Some(bytes) = record(&mut cursor)? else { return Ok(None) };
                if bytes.len() / 4 != atoms || bytes.len() % 4 != 0 {
                    return Err(format!("it has {} coordinates along an axis, and {atoms} atoms", bytes.len() / 4));
                }
                *column = Cursor::new(bytes, little_endian).floats(atoms).unwrap_or_default();
            }
            if has_fourth && record(&mut cursor)?.is_none() {
                return Ok(None);
            }
            Ok(Some(columns))
        })();
        match frame.map_err(fault)? {
            Some([x, y, z]) => {
                for ((x, y), z) in x.iter().zip(&y).zip(&z) {
                    trajectory.positions.extend([x, y, z].map(|r| ANGSTROM * r));
                }
                frames += 1;
            }
            None => {
                let left = begin.left();
                trajectory.lost =
                    Some(format!("the file ends within frame {frames}: its last {left} bytes are not used"));
                break;
            }
        }
    }
    if step.is_finite() && step > 0.0 {
        let first = f64::from(number(1).max(1)) / interval;
        trajectory.times = Some((0..frames).map(|k| (first + k as f64) * interval * step * AKMA).collect());
    }
    Ok(trajectory)
}

pub(super) fn write(trajectory: &Trajectory) -> Result<Vec<u8>, TrajectoryError> {
    let many = |what: &'static str| TrajectoryError::Unsupported { format: "DCD", reason: what };
    let atoms = u32::try_from(trajectory.atoms).ok().filter(|n| *n < 1 << 28);
    let atoms = atoms.ok_or_else(|| many("cannot hold so many atoms"))?;
    let frames = u32::try_from(trajectory.frames()).map_err(|_| many("cannot hold so many frames"))?;
    let step = match trajectory.times.as_deref() {
        Some([first, second, ..]) => (second - first) / AKMA,
        _ => 1.0 / AKMA,
    };
    let mut out = Vec::new();
    let mut record = |bytes: &[u8]| {
        let length = (bytes.len() as u32).to_le_bytes();
        out.extend(length);
        out.extend(bytes);
        out.extend(length);
    };
    // Frames, the first step, the interval, and steps in all; the time step; and the version of CHARMM that this is like.
    let mut header = b"CORD".to_vec();
    let mut numbers = [0u32; 20];
    (numbers[0], numbers[1], numbers[2], numbers[3]) = (frames, 1, 1, frames);
    numbers[9] = (step as f32).to_bits();
    numbers[19] = 24;
    numbers.iter().for_each(|n| header.extend(n.to_le_bytes()));
    record(&header);
    let mut title = 1u32.to_le_bytes().to_vec();
    title.extend(format!("{:<80}", "boltzflow; coordinates in angstrom").into_bytes());
    record(&title);
    record(&atoms.to_le_bytes());
    for positions in trajectory.positions.chunks_exact((3 * trajectory.atoms).max(1)) {
        for axis in 0..3 {
            let column = positions.iter().skip(axis).step_by(3);
            let bytes: Vec<u8> = column.flat_map(|x| ((x / ANGSTROM) as f32).to_le_bytes()).collect();
            record(&bytes);
        }
    }
    Ok(out)
}
