//! Amber's trajectories: NetCDF classic files (CDF-1, CDF-2 and CDF-5) by the convention that Amber uses.
//!
//! A classic file has a header of dimensions, attributes and variables, then the variables of fixed size, then the records:
//! of each variable along the record dimension one piece, padded to four bytes. Amber's frames are records.

use super::cursor::Cursor;
use super::{ANGSTROM, Trajectory, TrajectoryError};
use std::ops::Range;

/// Tags of the header's lists.
const DIMENSIONS: u32 = 10;
const VARIABLES: u32 = 11;
const ATTRIBUTES: u32 = 12;
/// The most entries of a list of the header.
const MOST_ENTRIES: u64 = 1 << 16;

fn foreign(reason: impl Into<String>) -> TrajectoryError {
    TrajectoryError::Foreign { format: "NetCDF", reason: reason.into() }
}

/// A file's header as it is read.
struct Reader<'a> {
    cursor: Cursor<'a>,
    /// Counts have 64 bits in CDF-5, offsets from CDF-2 on.
    wide_counts: bool,
    wide_offsets: bool,
}

struct Dimension {
    name: String,
    /// Zero for the record dimension.
    length: u64,
}

struct Variable {
    name: String,
    dimensions: Vec<u64>,
    attributes: Vec<Attribute>,
    kind: u32,
    begin: u64,
}

/// Where an attribute's values are.
struct Attribute {
    name: String,
    kind: u32,
    values: Range<usize>,
}

/// Bytes of a number of a type; nothing for a type that there is not.
fn width(kind: u32) -> Option<u64> {
    Some(match kind {
        1 | 2 | 7 => 1,
        3 | 8 => 2,
        4 | 5 | 9 => 4,
        6 | 10 | 11 => 8,
        _ => return None,
    })
}

impl Reader<'_> {
    fn count(&mut self) -> Option<u64> {
        if self.wide_counts { self.cursor.u64() } else { self.cursor.u32().map(u64::from) }
    }

    fn offset(&mut self) -> Option<u64> {
        if self.wide_offsets { self.cursor.u64() } else { self.cursor.u32().map(u64::from) }
    }

    fn name(&mut self) -> Option<String> {
        let length = usize::try_from(self.count()?).ok()?;
        let bytes = self.cursor.take(length.checked_next_multiple_of(4)?)?;
        Some(String::from_utf8_lossy(bytes.get(..length)?).into_owned())
    }

    /// The number of entries of a list with the tag; an absent list is empty.
    fn list(&mut self, tag: u32) -> Option<u64> {
        let (actual, count) = (self.cursor.u32()?, self.count()?);
        match actual {
            0 if count == 0 => Some(0),
            _ if actual == tag && count <= MOST_ENTRIES => Some(count),
            _ => None,
        }
    }

    fn dimensions(&mut self) -> Option<Vec<Dimension>> {
        (0..self.list(DIMENSIONS)?).map(|_| Some(Dimension { name: self.name()?, length: self.count()? })).collect()
    }

    fn attributes(&mut self) -> Option<Vec<Attribute>> {
        let attribute = |reader: &mut Self| {
            let (name, kind, count) = (reader.name()?, reader.cursor.u32()?, reader.count()?);
            let bytes = usize::try_from(count.checked_mul(width(kind)?)?).ok()?;
            let begin = reader.cursor.at();
            reader.cursor.take(bytes.checked_next_multiple_of(4)?)?;
            Some(Attribute { name, kind, values: begin..begin + bytes })
        };
        (0..self.list(ATTRIBUTES)?).map(|_| attribute(self)).collect()
    }

    fn variables(&mut self) -> Option<Vec<Variable>> {
        let variable = |reader: &mut Self| {
            let name = reader.name()?;
            let rank = reader.count().filter(|rank| *rank <= MOST_ENTRIES)?;
            let dimensions = (0..rank).map(|_| reader.count()).collect::<Option<_>>()?;
            let attributes = reader.attributes()?;
            let kind = reader.cursor.u32()?;
            reader.count()?;
            Some(Variable { name, dimensions, attributes, kind, begin: reader.offset()? })
        };
        (0..self.list(VARIABLES)?).map(|_| variable(self)).collect()
    }

    fn number(&self, attribute: &Attribute) -> Option<f64> {
        let mut cursor = self.cursor.moved_to(attribute.values.start);
        match attribute.kind {
            5 => cursor.f32().map(f64::from),
            6 => cursor.doubles(1)?.first().copied(),
            _ => None,
        }
    }
}

/// Numbers of a variable for each record, and the bytes that they take.
fn record_size(variable: &Variable, dimensions: &[Dimension]) -> Option<(u64, u64)> {
    let lengths = variable.dimensions.iter().map(|&d| dimensions.get(usize::try_from(d).ok()?).map(|d| d.length));
    let mut numbers = 1u64;
    for length in lengths.collect::<Option<Vec<_>>>()?.into_iter().skip(1) {
        numbers = numbers.checked_mul(length)?;
    }
    Some((numbers, numbers.checked_mul(width(variable.kind)?)?))
}

pub(super) fn read(bytes: &[u8]) -> Result<Trajectory, TrajectoryError> {
    let version = match bytes {
        [b'C', b'D', b'F', version @ (1 | 2 | 5), ..] => *version,
        [0x89, b'H', b'D', b'F', ..] => {
            return Err(foreign("it is NetCDF 4 (HDF5); convert it with nccopy -k classic"));
        }
        _ => return Err(foreign("it does not begin with CDF")),
    };
    let mut reader =
        Reader { cursor: Cursor::new(bytes, false).moved_to(4), wide_counts: version == 5, wide_offsets: version > 1 };
    let header = (|| {
        // The number of records may not have been written; what is there tells it.
        reader.count()?;
        let dimensions = reader.dimensions()?;
        reader.attributes()?;
        Some((dimensions, reader.variables()?))
    })();
    let (dimensions, variables) = header.ok_or_else(|| foreign("its header is cut off or damaged"))?;

    let is_record = |variable: &Variable| {
        let first = variable.dimensions.first().and_then(|&d| dimensions.get(usize::try_from(d).ok()?));
        first.is_some_and(|d| d.length == 0)
    };
    let find = |name: &str| variables.iter().find(|v| v.name == name && is_record(v));
    let coordinates =
        find("coordinates").ok_or_else(|| foreign("it has no variable coordinates(frame, atom, spatial)"))?;
    let shape: Vec<_> =
        coordinates.dimensions.iter().filter_map(|&d| dimensions.get(usize::try_from(d).ok()?)).collect();
    let [_, atoms, axes] = shape[..] else { return Err(foreign("coordinates has not three dimensions")) };
    if axes.length != 3 || atoms.name != "atom" || atoms.length == 0 {
        return Err(foreign("coordinates is not (frame, atom, spatial) with three axes"));
    }
    let sizes: Option<Vec<u64>> = variables
        .iter()
        .filter(|v| is_record(v))
        .map(|v| record_size(v, &dimensions).map(|(_, bytes)| bytes))
        .collect();
    let sizes = sizes.ok_or_else(|| foreign("the sizes of its variables are not possible"))?;
    // Pieces are padded, but not that of an only variable.
    let padded = |size: &u64| if sizes.len() == 1 { Some(*size) } else { size.checked_next_multiple_of(4) };
    let record = sizes.iter().try_fold(0u64, |sum, size| sum.checked_add(padded(size)?));
    let too_large = || foreign("the sizes of its variables are not possible");
    let record = record.and_then(|r| usize::try_from(r).ok()).filter(|r| *r > 0).ok_or_else(too_large)?;
    let begin = variables.iter().filter(|v| is_record(v)).map(|v| v.begin).min().unwrap_or(0);
    let begin = usize::try_from(begin).map_err(|_| too_large())?;

    let values = |variable: &Variable, frame: usize| -> Option<Vec<f64>> {
        let (count, _) = record_size(variable, &dimensions)?;
        let at = usize::try_from(variable.begin).ok()?.checked_add(frame.checked_mul(record)?)?;
        let mut cursor = Cursor::new(bytes, false).moved_to(at);
        let count = usize::try_from(count).ok()?;
        match variable.kind {
            5 => cursor.floats(count),
            6 => cursor.doubles(count),
            _ => None,
        }
    };
    let scale = |variable: &Variable| {
        let attribute = variable.attributes.iter().find(|a| a.name == "scale_factor");
        attribute.and_then(|a| reader.number(a)).unwrap_or(1.0)
    };
    if !matches!(coordinates.kind, 5 | 6) {
        return Err(foreign("its coordinates are neither float nor double"));
    }
    let there = bytes.len().saturating_sub(begin);
    let (frames, rest) = (there / record, there % record);
    let mut trajectory = Trajectory {
        atoms: usize::try_from(atoms.length).map_err(|_| too_large())?,
        lost: (rest > 0).then(|| format!("the file ends within frame {frames}: its last {rest} bytes are not used")),
        ..Trajectory::default()
    };
    let factor = ANGSTROM * scale(coordinates);
    for frame in 0..frames {
        let row = values(coordinates, frame).ok_or_else(|| TrajectoryError::Frame {
            format: "NetCDF",
            frame,
            reason: "its coordinates are not in the file".into(),
        })?;
        trajectory.positions.extend(row.iter().map(|x| factor * x));
    }
    if let Some(time) = find("time") {
        let column = (0..frames).map(|frame| values(time, frame)?.first().copied());
        trajectory.times = column.collect::<Option<Vec<f64>>>().map(|t| t.iter().map(|t| scale(time) * t).collect());
    }
    Ok(trajectory)
}
