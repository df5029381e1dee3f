//! What the beginning of a classic NetCDF file says of its variables.

use crate::trajectory::bytes::Bytes;

/// What lists begin with; an empty list may begin with zero.
const DIMENSIONS: u32 = 10;
const VARIABLES: u32 = 11;
const ATTRIBUTES: u32 = 12;
/// Kinds of numbers.
const TEXT: u32 = 2;
const F32: u32 = 5;
const F64: u32 = 6;

pub(super) struct Header<'a> {
    /// How many records there are; none where the writer did not go back to write it.
    pub records: Option<usize>,
    pub records_begin: usize,
    pub record_bytes: usize,
    variables: Vec<Variable<'a>>,
}

pub(super) struct Variable<'a> {
    name: &'a [u8],
    /// Of all dimensions; that of records is zero.
    lengths: Vec<usize>,
    kind: u32,
    pub begin: usize,
    pub units: String,
    /// What numbers are multiplied with, before the unit.
    pub scale: f64,
}

impl Variable<'_> {
    fn is_record(&self) -> bool {
        self.frames() == Some(0)
    }

    /// The lengths but for that of the first dimension, which is taken for frames.
    pub fn frame_lengths(&self) -> &[usize] {
        self.lengths.get(1..).unwrap_or_default()
    }

    /// The first dimension's length, which is zero where frames are records.
    pub fn frames(&self) -> Option<usize> {
        self.lengths.first().copied()
    }

    /// Whether numbers are of 64 bits, if they are floats.
    pub fn is_f64(&self) -> Option<bool> {
        matches!(self.kind, F32 | F64).then_some(self.kind == F64)
    }

    /// The bytes of one record, without those that pad it.
    fn record_bytes(&self) -> Option<usize> {
        self.frame_lengths().iter().try_fold(bytes_of(self.kind)?, |bytes, length| bytes.checked_mul(*length))
    }
}

/// The bytes of a number of this kind.
fn bytes_of(kind: u32) -> Option<usize> {
    match kind {
        1 | TEXT | 7 => Some(1),
        3 | 8 => Some(2),
        4 | F32 | 9 => Some(4),
        F64 | 10 | 11 => Some(8),
        _ => None,
    }
}

impl<'a> Header<'a> {
    /// None where the file ends within its header, or the header is not sound.
    pub fn read(bytes: &'a [u8], version: u8) -> Option<Self> {
        let mut reader = Reader { bytes: Bytes::big_endian(bytes), version };
        let _magic = reader.bytes.take(4)?;
        let records = reader.records()?;
        let dimensions = reader.list(DIMENSIONS, |reader| {
            let _name = reader.name()?;
            reader.count()
        })?;
        reader.attributes()?;
        let variables = reader.list(VARIABLES, |reader| reader.variable(&dimensions))?;

        // A variable that is alone in its records is not padded; but those that are read here need no padding.
        let in_records = || variables.iter().filter(|variable| variable.is_record());
        let record_bytes = in_records().try_fold(0_usize, |sum, variable| {
            sum.checked_add(variable.record_bytes()?.checked_next_multiple_of(4)?)
        })?;
        let records_begin = in_records().map(|variable| variable.begin).min().unwrap_or(bytes.len());
        Some(Self { records, records_begin, record_bytes, variables })
    }

    pub fn variable(&self, name: &str) -> Option<&Variable<'a>> {
        self.variables.iter().find(|variable| variable.name == name.as_bytes())
    }
}

struct Reader<'a> {
    bytes: Bytes<'a>,
    version: u8,
}

impl<'a> Reader<'a> {
    /// Counts have 64 bits since version 5.
    fn count(&mut self) -> Option<usize> {
        if self.version == 5 { self.bytes.u64()?.try_into().ok() } else { self.bytes.u32()?.try_into().ok() }
    }

    fn records(&mut self) -> Option<Option<usize>> {
        let (count, unknown) = match self.version {
            5 => (self.bytes.u64()?, u64::MAX),
            _ => (self.bytes.u32()?.into(), u32::MAX.into()),
        };
        Some(if count == unknown { None } else { Some(count.try_into().ok()?) })
    }

    /// Places have 64 bits since version 2.
    fn place(&mut self) -> Option<usize> {
        if self.version == 1 { self.bytes.u32()?.try_into().ok() } else { self.bytes.u64()?.try_into().ok() }
    }

    fn name(&mut self) -> Option<&'a [u8]> {
        let length = self.count()?;
        self.bytes.take_padded(length)
    }

    /// Items until the list or the file ends: the list grows as items are read, whatever length it claims.
    fn list<T>(&mut self, tag: u32, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let (found, count) = (self.bytes.u32()?, self.count()?);
        if found != tag && (found, count) != (0, 0) {
            return None;
        }
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(item(self)?);
        }
        Some(items)
    }

    /// The attributes that are of use: a unit, empty where there is none, and a scale.
    fn attributes(&mut self) -> Option<(String, f64)> {
        let (mut units, mut scale) = (String::new(), 1.0);
        self.list(ATTRIBUTES, |reader| {
            let (name, kind, count) = (reader.name()?, reader.bytes.u32()?, reader.count()?);
            let values = reader.bytes.take_padded(count.checked_mul(bytes_of(kind)?)?)?;
            match (name, kind) {
                (b"units", TEXT) => units = String::from_utf8_lossy(values).into_owned(),
                (b"scale_factor", F32) => scale = Bytes::big_endian(values).f32()?,
                (b"scale_factor", F64) => scale = Bytes::big_endian(values).f64()?,
                _ => {}
            }
            Some(())
        })?;
        Some((units, scale))
    }

    fn variable(&mut self, dimensions: &[usize]) -> Option<Variable<'a>> {
        let name = self.name()?;
        let rank = self.count()?;
        let mut lengths = Vec::new();
        for _ in 0..rank {
            let dimension = self.count()?;
            lengths.push(*dimensions.get(dimension)?);
        }
        // Only the first dimension may be that of records.
        if lengths.iter().skip(1).any(|length| *length == 0) {
            return None;
        }
        let (units, scale) = self.attributes()?;
        let kind = self.bytes.u32()?;
        // What the file says of the variable's size is wrong for large variables by the format's definition.
        let _size = self.count()?;
        let begin = self.place()?;
        bytes_of(kind)?;
        Some(Variable { name, lengths, kind, begin, units, scale })
    }
}
