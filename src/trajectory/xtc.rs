//! GROMACS's XTC: coordinates as whole multiples of a precision, packed to as few bits as their range needs.
//!
//! A frame has a header, the box, and, above nine atoms, one stream of bits: an atom's three numbers in the range of all
//! atoms, packed as the digits of one number; then a flag, and, if it is set, how many of the atoms that follow are given
//! relative to it, in a small range whose size steps through a table as the frame goes on.

use super::cursor::Cursor;
use super::{Trajectory, TrajectoryError};

/// The numbers that frames begin with. The second one has 64 bits for the length of the packed bytes.
const MAGIC: [i32; 2] = [1995, 2023];
/// Up to so many atoms are not packed.
const PLAIN_ATOMS: usize = 9;
/// Sizes of small ranges, from the first of them on: each about the cube root of two times the one before.
const SIZES: [u32; 64] = [
    8, 10, 12, 16, 20, 25, 32, 40, 50, 64, 80, 101, 128, 161, 203, 256, 322, 406, 512, 645, 812, 1024, 1290, 1625,
    2048, 2580, 3250, 4096, 5060, 6501, 8192, 10321, 13003, 16384, 20642, 26007, 32768, 41285, 52015, 65536, 82570,
    104_031, 131_072, 165_140, 208_063, 262_144, 330_280, 416_127, 524_287, 660_561, 832_255, 1_048_576, 1_321_122,
    1_664_510, 2_097_152, 2_642_245, 3_329_021, 4_194_304, 5_284_491, 6_658_042, 8_388_607, 10_568_983, 13_316_085,
    16_777_216,
];
/// The index that the format gives to the first of [`SIZES`].
const FIRST: u32 = 9;
/// Ranges above this are packed number by number.
const LARGEST_JOINT: u32 = 0xFF_FFFF;
/// Multiples of 1/precision nm that are written: 0.001 nm, as GROMACS and OpenMM do by default.
const PRECISION: f32 = 1000.0;

fn fault(frame: usize, reason: impl Into<String>) -> TrajectoryError {
    TrajectoryError::Frame { format: "XTC", frame, reason: reason.into() }
}

pub(super) fn read(bytes: &[u8]) -> Result<Trajectory, TrajectoryError> {
    let mut trajectory = Trajectory::default();
    let mut times = Vec::new();
    let mut cursor = Cursor::new(bytes, false);
    while cursor.left() > 0 {
        let begin = cursor;
        let frame = times.len();
        match read_frame(&mut cursor, frame)? {
            Some((time, positions)) => {
                let atoms = positions.len() / 3;
                if frame == 0 {
                    trajectory.atoms = atoms;
                } else if atoms != trajectory.atoms {
                    let reason = format!("it has {atoms} atoms, and the first has {}", trajectory.atoms);
                    return Err(fault(frame, reason));
                }
                times.push(time);
                trajectory.positions.extend(positions);
            }
            None => {
                trajectory.lost =
                    Some(format!("the file ends within frame {frame}: its last {} bytes are not used", begin.left()));
                break;
            }
        }
    }
    trajectory.times = Some(times);
    Ok(trajectory)
}

/// The next frame's time and positions; nothing if it is not all there.
fn read_frame(cursor: &mut Cursor, frame: usize) -> Result<Option<(f64, Vec<f64>)>, TrajectoryError> {
    let Some(magic) = cursor.i32() else { return Ok(None) };
    if !MAGIC.contains(&magic) {
        if frame == 0 {
            let reason = format!("it begins with {magic}, not with 1995 or 2023");
            return Err(TrajectoryError::Foreign { format: "XTC", reason });
        }
        return Err(fault(frame, format!("it begins with {magic}, not with 1995 or 2023; the file is damaged")));
    }
    let header = (|| {
        let atoms = cursor.i32()?;
        let _step = cursor.i32()?;
        let time = cursor.f32()?;
        cursor.take(36)?;
        Some((atoms, time, cursor.i32()?))
    })();
    let Some((atoms, time, again)) = header else { return Ok(None) };
    if atoms < 1 || atoms != again {
        return Err(fault(frame, format!("it says that it has {atoms} atoms, and then {again}")));
    }
    let atoms = atoms.unsigned_abs() as usize;
    let time = f64::from(time);
    if atoms <= PLAIN_ATOMS {
        return Ok(cursor.floats(3 * atoms).map(|positions| (time, positions)));
    }
    let packing = (|| {
        let precision = cursor.f32()?;
        let mut six = [0; 6];
        for number in &mut six {
            *number = cursor.i32()?;
        }
        let small = cursor.u32()?;
        let length = if magic == MAGIC[0] { u64::from(cursor.u32()?) } else { cursor.u64()? };
        Some((precision, six, small, length))
    })();
    let Some((precision, [x, y, z, x_end, y_end, z_end], small, length)) = packing else { return Ok(None) };
    let padded = usize::try_from(length).ok().and_then(|length| length.checked_next_multiple_of(4));
    let Some(packed) = padded.and_then(|padded| cursor.take(padded)) else { return Ok(None) };
    if !(precision.is_finite() && precision > 0.0) {
        return Err(fault(frame, format!("its precision is {precision}; it must be positive")));
    }
    // An atom takes a bit at least: so a number that nothing is behind takes no memory either.
    if atoms > 8 * packed.len() {
        return Err(fault(frame, format!("{} bytes cannot hold {atoms} atoms", packed.len())));
    }
    let packing = Packing { least: [x, y, z], greatest: [x_end, y_end, z_end], small };
    let whole = packing.unpack(packed, atoms).map_err(|reason| fault(frame, reason))?;
    let scale = 1.0 / f64::from(precision);
    Ok(Some((time, whole.into_iter().flatten().map(|n| f64::from(n) * scale).collect())))
}

/// What the header of a frame says of its bits.
struct Packing {
    least: [i32; 3],
    greatest: [i32; 3],
    /// Index of the first small range.
    small: u32,
}

fn size(index: u32) -> Result<u32, String> {
    let size = index.checked_sub(FIRST).and_then(|i| SIZES.get(i as usize));
    size.copied().ok_or_else(|| format!("{index} is the size of no range; the frame is damaged"))
}

impl Packing {
    fn unpack(&self, packed: &[u8], atoms: usize) -> Result<Vec<[i32; 3]>, String> {
        let range = |k: usize| {
            let size = i64::from(self.greatest[k]) - i64::from(self.least[k]) + 1;
            u32::try_from(size).ok().filter(|&s| s > 0).ok_or("its least coordinate is above its greatest")
        };
        let ranges = [range(0)?, range(1)?, range(2)?];
        let joint = ranges.iter().all(|&r| r <= LARGEST_JOINT);
        let joint_bits = bits_of(ranges.iter().map(|&r| u128::from(r)).product());
        let mut bits = Bits { bytes: packed, at: 0 };
        let mut small = self.small;
        let mut small_size = size(small)?;
        let mut run = 0;
        let mut out: Vec<[i32; 3]> = Vec::with_capacity(atoms);
        while out.len() < atoms {
            let digits = if joint {
                bits.digits(joint_bits, ranges)?
            } else {
                let mut digits = [0; 3];
                for (digit, &range) in digits.iter_mut().zip(&ranges) {
                    *digit = bits.number(bits_of(u128::from(range)))? as u32;
                }
                digits
            };
            let mut atom = [0, 1, 2].map(|k| self.least[k].wrapping_add_unsigned(digits[k]));
            let mut step = 0;
            if bits.number(1)? == 1 {
                let code = bits.number(5)? as i32;
                step = code % 3 - 1;
                run = (code / 3) as usize;
            }
            if run == 0 {
                out.push(atom);
            }
            for k in 0..run {
                let digits = bits.digits(small, [small_size; 3])?;
                let half = (small_size / 2).cast_signed();
                let near = [0, 1, 2].map(|k| atom[k].wrapping_add_unsigned(digits[k]).wrapping_sub(half));
                // The first of a run and the atom before it change places, which is shorter for water.
                if k == 0 {
                    out.extend([near, atom]);
                } else {
                    out.push(near);
                }
                atom = near;
            }
            if step != 0 {
                small = small.wrapping_add_signed(step);
                small_size = size(small)?;
            }
        }
        if out.len() != atoms {
            return Err(format!("its bits hold {} atoms, not {atoms}", out.len()));
        }
        Ok(out)
    }
}

/// The bits that a number below `bound`, or the bound itself, takes.
fn bits_of(bound: u128) -> u32 {
    128 - bound.leading_zeros()
}

/// Bits, the highest of each byte first.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    /// A number of so many bits, at most 64.
    fn number(&mut self, count: u32) -> Result<u64, String> {
        let mut value = 0;
        for _ in 0..count {
            let byte = self.bytes.get(self.at / 8).ok_or("its bits end before its atoms")?;
            value = value << 1 | u64::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Ok(value)
    }

    /// Three digits of one number, which is written byte by byte, the lowest first.
    fn digits(&mut self, count: u32, ranges: [u32; 3]) -> Result<[u32; 3], String> {
        let (mut value, mut shift) = (0u128, 0);
        while shift < count {
            let bits = (count - shift).min(8);
            value |= u128::from(self.number(bits)?) << shift;
            shift += 8;
        }
        let mut digits = [0; 3];
        for k in [2, 1] {
            let range = u128::from(ranges[k]);
            digits[k] = (value % range) as u32;
            value /= range;
        }
        digits[0] = value as u32;
        Ok(digits)
    }
}

/// Bits as they are written.
#[derive(Default)]
struct BitWriter {
    bytes: Vec<u8>,
    used: u32,
}

impl BitWriter {
    fn number(&mut self, value: u64, count: u32) {
        for bit in (0..count).rev() {
            if self.used == 0 {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((value >> bit & 1) as u8) << (7 - self.used);
            }
            self.used = (self.used + 1) % 8;
        }
    }
}

/// Every atom in the range of all: larger than with runs, by less than half for a molecule, and as good to any reader.
pub(super) fn write(trajectory: &Trajectory) -> Result<Vec<u8>, TrajectoryError> {
    let mut out = Vec::new();
    let atoms = i32::try_from(trajectory.atoms).map_err(|_| fault(0, "it has too many atoms"))?;
    for (frame, positions) in trajectory.positions.chunks_exact((3 * trajectory.atoms).max(1)).enumerate() {
        let time = trajectory.times.as_ref().and_then(|times| times.get(frame)).map_or(frame as f64, |t| *t);
        let step = i32::try_from(frame).map_err(|_| fault(frame, "there are too many frames"))?;
        for number in [MAGIC[0], atoms, step] {
            out.extend(number.to_be_bytes());
        }
        out.extend((time as f32).to_be_bytes());
        out.extend([0; 36]);
        out.extend(atoms.to_be_bytes());
        if trajectory.atoms <= PLAIN_ATOMS {
            positions.iter().for_each(|x| out.extend((*x as f32).to_be_bytes()));
            continue;
        }
        let mut whole = Vec::with_capacity(positions.len());
        for x in positions {
            let multiple = (x * f64::from(PRECISION)).round();
            if multiple.is_nan() || multiple.abs() > 1e9 {
                return Err(fault(frame, format!("a coordinate is {x} nm, which the format cannot hold")));
            }
            whole.push(multiple as i32);
        }
        let column = |k: usize| whole.iter().copied().skip(k).step_by(3);
        let least = [0, 1, 2].map(|k| column(k).min().unwrap_or(0));
        let greatest = [0, 1, 2].map(|k| column(k).max().unwrap_or(0));
        let ranges = [0, 1, 2].map(|k| greatest[k].abs_diff(least[k]) + 1);
        let joint_bits = bits_of(ranges.iter().map(|&r| u128::from(r)).product());
        let joint = ranges.iter().all(|&r| r <= LARGEST_JOINT);
        let mut bits = BitWriter::default();
        for atom in whole.chunks_exact(3) {
            let digits = [0, 1, 2].map(|k| atom[k].abs_diff(least[k]));
            if joint {
                let [x, y, z] = digits.map(u128::from);
                let value = (x * u128::from(ranges[1]) + y) * u128::from(ranges[2]) + z;
                for shift in (0..joint_bits).step_by(8) {
                    bits.number((value >> shift) as u64 & 0xFF, (joint_bits - shift).min(8));
                }
            } else {
                for (digit, range) in digits.into_iter().zip(ranges) {
                    bits.number(u64::from(digit), bits_of(u128::from(range)));
                }
            }
            // No run follows.
            bits.number(0, 1);
        }
        out.extend(PRECISION.to_be_bytes());
        least.into_iter().chain(greatest).for_each(|n| out.extend(n.to_be_bytes()));
        out.extend(FIRST.to_be_bytes());
        let length = u32::try_from(bits.bytes.len()).map_err(|_| fault(frame, "it has too many atoms"))?;
        out.extend(length.to_be_bytes());
        bits.bytes.resize(bits.bytes.len().next_multiple_of(4), 0);
        out.extend(bits.bytes);
    }
    Ok(out)
}
