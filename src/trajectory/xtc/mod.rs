//! GROMACS's XTC: frames of XDR numbers, whose positions are compressed for ten atoms and more.

mod bits;
mod decode;
mod encode;

use super::bytes::Bytes;
use super::error::{cut_off, damaged, unwritable};
use super::{Format, Trajectory, TrajectoryError};

/// What a frame begins with; the later number means that compressed positions give their length in 64 bits.
const MAGIC: i32 = 1995;
const MAGIC_LONG: i32 = 2023;
/// The most atoms whose positions are not compressed.
const UNCOMPRESSED: usize = 9;
/// Steps a nm: positions are written to the nearest step, as programs do by default.
const PRECISION: f32 = 1000.0;
/// Three vectors of the box, as a file holds them.
const BOX_BYTES: usize = 36;

/// Sizes of the cubes that compressed differences lie in, by index: the cube with index i takes i bits. The format's
/// definition has these numbers; some are not the rounded powers 2^(i/3) that they are meant to be.
const SIZES: [u32; 73] = [
    0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 10, 12, 16, 20, 25, 32, 40, 50, 64, 80, 101, 128, 161, 203, 256, 322, 406, 512, 645,
    812, 1024, 1290, 1625, 2048, 2580, 3250, 4096, 5060, 6501, 8192, 10321, 13003, 16384, 20642, 26007, 32768, 41285,
    52015, 65536, 82570, 104031, 131072, 165140, 208063, 262144, 330280, 416127, 524287, 660561, 832255, 1048576,
    1321122, 1664510, 2097152, 2642245, 3329021, 4194304, 5284491, 6658042, 8388607, 10568983, 13316085, 16777216,
];
/// The index of the smallest cube.
const FIRST_SIZE: usize = 9;
/// The most atoms that are told by their differences one after the other.
const LONGEST_RUN: usize = 8;
/// Sizes of which all are below this take their bits together, others each its own.
const SIZES_TOGETHER: u32 = 1 << 24;

/// The lowest and the highest of each coordinate in steps, between which all positions of a frame lie.
struct Bounds {
    low: [i32; 3],
    high: [i32; 3],
    /// How many values there are from one to the other.
    sizes: [u32; 3],
}

impl Bounds {
    /// None where a bound is on the wrong side of the other, or farther away than the format can say.
    fn new(low: [i32; 3], high: [i32; 3]) -> Option<Self> {
        let mut sizes = [0; 3];
        for ((size, low), high) in sizes.iter_mut().zip(low).zip(high) {
            *size = u32::try_from(i64::from(high) - i64::from(low) + 1).ok().filter(|size| *size > 0)?;
        }
        Some(Self { low, high, sizes })
    }

    fn together(&self) -> bool {
        self.sizes.iter().all(|size| *size < SIZES_TOGETHER)
    }
}

/// The bits in which any position inside of `sizes` can be told.
fn bits_together(sizes: [u32; 3]) -> u32 {
    bits_of(sizes.iter().map(|size| u128::from(*size)).product())
}

fn bits_of(number: u128) -> u32 {
    u128::BITS - number.leading_zeros()
}

pub(super) fn read(bytes: &[u8]) -> Result<Trajectory, TrajectoryError> {
    let mut file = Bytes::big_endian(bytes);
    let mut trajectory = Trajectory { atoms: 0, positions: Vec::new(), times_ps: None, lost: None };
    let mut times = Vec::new();
    while file.left() > 0 {
        let left = file.left();
        let frame = times.len() + 1;
        match read_frame(&mut file, frame, &mut trajectory)? {
            Some(time) => times.push(time),
            None => {
                trajectory.lost = Some(cut_off(left, frame));
                break;
            }
        }
    }
    trajectory.times_ps = Some(times);
    Ok(trajectory)
}

/// Adds a frame to the trajectory and gives its time; none where the file ends within it.
fn read_frame(file: &mut Bytes<'_>, frame: usize, trajectory: &mut Trajectory) -> Result<Option<f64>, TrajectoryError> {
    let Some(magic) = file.i32() else { return Ok(None) };
    if magic != MAGIC && magic != MAGIC_LONG {
        let reason = format!("frame {frame} begins with {magic}, not with {MAGIC} or {MAGIC_LONG}");
        return Err(match frame {
            1 => TrajectoryError::OtherFormat { format: Format::Xtc, reason },
            _ => damaged(Format::Xtc, reason),
        });
    }
    let Some(header) = Header::read(file) else { return Ok(None) };
    let atoms = match usize::try_from(header.atoms) {
        Ok(atoms) if atoms > 0 && header.atoms == header.atoms_again => atoms,
        _ => {
            let (atoms, again) = (header.atoms, header.atoms_again);
            return Err(damaged(
                Format::Xtc,
                format!("frame {frame} says that it has {atoms} atoms, and then {again}"),
            ));
        }
    };
    if frame == 1 {
        trajectory.atoms = atoms;
    } else if atoms != trajectory.atoms {
        return Err(TrajectoryError::OtherAtoms { format: Format::Xtc, frame, atoms, before: trajectory.atoms });
    }
    if atoms <= UNCOMPRESSED {
        let Some(numbers) = file.take(12 * atoms) else { return Ok(None) };
        let mut numbers = Bytes::big_endian(numbers);
        trajectory.positions.extend(std::iter::from_fn(|| numbers.f32()));
        return Ok(Some(header.time));
    }
    let Some(compressed) = decode::Compressed::read(file, magic == MAGIC_LONG) else { return Ok(None) };
    compressed
        .decode(atoms, &mut trajectory.positions)
        .map_err(|reason| damaged(Format::Xtc, format!("in frame {frame} {reason}")))?;
    Ok(Some(header.time))
}

/// What is before the positions of a frame, but for the magic number.
struct Header {
    atoms: i32,
    time: f64,
    atoms_again: i32,
}

impl Header {
    fn read(file: &mut Bytes<'_>) -> Option<Self> {
        let atoms = file.i32()?;
        let _step = file.i32()?;
        let time = file.f32()?;
        let _box = file.take(BOX_BYTES)?;
        Some(Self { atoms, time, atoms_again: file.i32()? })
    }
}

pub(super) fn write(trajectory: &Trajectory) -> Result<Vec<u8>, TrajectoryError> {
    let atoms = i32::try_from(trajectory.atoms)
        .map_err(|_| unwritable(Format::Xtc, format!("{} atoms are too many", trajectory.atoms), "write DCD"))?;
    let mut file = Vec::new();
    for (index, row) in trajectory.rows().enumerate() {
        let time = trajectory.times_ps.as_ref().and_then(|times| times.get(index)).map_or(index as f64, |time| *time);
        file.extend(MAGIC.to_be_bytes());
        file.extend(atoms.to_be_bytes());
        file.extend(i32::try_from(index).unwrap_or(i32::MAX).to_be_bytes());
        file.extend((time as f32).to_be_bytes());
        file.extend([0; BOX_BYTES]);
        file.extend(atoms.to_be_bytes());
        if trajectory.atoms <= UNCOMPRESSED {
            for x in row.iter().map(|x| *x as f32) {
                if !x.is_finite() {
                    let reason = format!("frame {} has positions too far away for f32", index + 1);
                    return Err(unwritable(Format::Xtc, reason, "leave out that frame"));
                }
                file.extend(x.to_be_bytes());
            }
        } else {
            encode::encode(row, &mut file)
                .map_err(|(reason, remedy)| unwritable(Format::Xtc, format!("frame {} {reason}", index + 1), remedy))?;
        }
    }
    Ok(file)
}
