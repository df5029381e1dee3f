//! Amber's trajectories: classic NetCDF, with the variables `coordinates` (frame, atom, spatial) and `time` (frame).

mod header;

use super::bytes::Bytes;
use super::error::{cut_off, damaged, unsupported};
use super::{Format, Trajectory, TrajectoryError};
use header::{Header, Variable};

const REWRITE: &str = "write it anew with cpptraj or MDAnalysis, or convert it to XTC";

pub(super) fn read(bytes: &[u8]) -> Result<Trajectory, TrajectoryError> {
    let other = |reason: &str| TrajectoryError::OtherFormat { format: Format::AmberNetCdf, reason: reason.to_string() };
    let version = match bytes {
        [b'C', b'D', b'F', version @ (1 | 2 | 5), ..] => *version,
        [0x89, b'H', b'D', b'F', ..] => {
            let remedy = "convert it with `nccopy -k classic`";
            return Err(unsupported(Format::AmberNetCdf, "it is NetCDF-4, not classic NetCDF", remedy));
        }
        _ => return Err(other("it does not begin with CDF and the number of a version")),
    };
    let header = Header::read(bytes, version)
        .ok_or_else(|| damaged(Format::AmberNetCdf, "its header is not whole, or contradicts itself"))?;
    let coordinates = header.variable("coordinates").ok_or_else(|| other("it has no variable `coordinates`"))?;
    let atoms = match coordinates.frame_lengths() {
        [atoms, 3] if *atoms > 0 => *atoms,
        lengths => {
            let reason = format!("a frame of its coordinates has the dimensions {lengths:?}, not (atoms, 3)");
            return Err(unsupported(Format::AmberNetCdf, reason, REWRITE));
        }
    };
    let unit = |unit| unsupported(Format::AmberNetCdf, format!("its coordinates are in \"{unit}\""), REWRITE);
    let positions = Series::new(&header, coordinates, &[("angstrom", 0.1), ("nanometer", 1.0)])
        .ok_or_else(|| unit(coordinates.units.chars().take(20).collect::<String>()))?;
    // A time in another unit, or of other frames, is as good as none.
    let times = header.variable("time").filter(|time| time.frame_lengths().is_empty());
    let times = times.and_then(|time| Series::new(&header, time, &[("picosecond", 1.0)]));
    let times = times.filter(|times| times.frames == positions.frames);

    let mut trajectory = Trajectory { atoms, positions: Vec::new(), times_ps: None, lost: None };
    let mut read_times = Vec::new();
    let mut count = 0;
    while positions.frames.is_none_or(|frames| count < frames) {
        let Some(row) = positions.frame(bytes, count) else { break };
        if let Some(times) = &times {
            let Some(time) = times.frame(bytes, count) else { break };
            read_times.extend(time);
        }
        trajectory.positions.extend(row);
        count += 1;
    }
    trajectory.times_ps = times.map(|_| read_times);
    trajectory.lost = match positions.frames {
        Some(frames) if count < frames => {
            Some(format!("the header speaks of {frames} frames, and the file ends within frame {}", count + 1))
        }
        Some(_) => None,
        None => {
            let whole = count.saturating_mul(header.record_bytes).saturating_add(header.records_begin);
            let left = bytes.len().saturating_sub(whole);
            (left > 0).then(|| cut_off(left, count + 1))
        }
    };
    Ok(trajectory)
}

/// The numbers of a variable, frame by frame, in this program's unit.
struct Series {
    begin: usize,
    /// From one frame to the next, and how much of that are numbers of this variable.
    stride: usize,
    bytes: usize,
    is_f64: bool,
    factor: f64,
    /// As many as the header says; none where it says that nobody has counted them.
    frames: Option<usize>,
}

impl Series {
    /// None where the variable has another unit than those given, or another kind of numbers. Without a unit it has the
    /// first one.
    fn new(header: &Header<'_>, variable: &Variable<'_>, units: &[(&str, f64)]) -> Option<Self> {
        let unit =
            units.iter().find(|(unit, _)| variable.units.trim_end_matches(['s', '\0']).eq_ignore_ascii_case(unit));
        let factor = if variable.units.is_empty() { units.first()? } else { unit? }.1 * variable.scale;
        let is_f64 = variable.is_f64()?;
        let numbers = variable.frame_lengths().iter().try_fold(1_usize, |product, n| product.checked_mul(*n))?;
        let bytes = numbers.checked_mul(if is_f64 { 8 } else { 4 })?;
        let (stride, frames) = match variable.frames()? {
            0 => (header.record_bytes, header.records),
            frames => (bytes, Some(frames)),
        };
        Some(Self { begin: variable.begin, stride, bytes, is_f64, factor, frames })
    }

    /// A frame's numbers; none where the file ends before or within them.
    fn frame<'a>(&self, bytes: &'a [u8], index: usize) -> Option<impl Iterator<Item = f64> + use<'a>> {
        let begin = self.begin.checked_add(index.checked_mul(self.stride)?)?;
        let mut numbers = Bytes::big_endian(bytes.get(begin..begin.checked_add(self.bytes)?)?);
        let (is_f64, factor) = (self.is_f64, self.factor);
        Some(std::iter::from_fn(move || if is_f64 { numbers.f64() } else { numbers.f32() }).map(move |x| x * factor))
    }
}
