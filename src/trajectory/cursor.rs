//! Reading numbers from bytes that may end anywhere.

/// A place in a file. What is not all there is nothing, and leaves the place as it is.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    little_endian: bool,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8], little_endian: bool) -> Self {
        Self { bytes, at: 0, little_endian }
    }

    /// Where it is, from the beginning.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The same bytes from another place.
    pub fn moved_to(&self, at: usize) -> Self {
        Self { at: at.min(self.bytes.len()), ..*self }
    }

    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    pub fn u32(&mut self) -> Option<u32> {
        let bytes = self.take(4)?.try_into().ok()?;
        Some(if self.little_endian { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    pub fn i32(&mut self) -> Option<i32> {
        self.u32().map(u32::cast_signed)
    }

    pub fn u64(&mut self) -> Option<u64> {
        let bytes = self.take(8)?.try_into().ok()?;
        Some(if self.little_endian { u64::from_le_bytes(bytes) } else { u64::from_be_bytes(bytes) })
    }

    pub fn f32(&mut self) -> Option<f32> {
        self.u32().map(f32::from_bits)
    }

    /// So many float32.
    pub fn floats(&mut self, count: usize) -> Option<Vec<f64>> {
        let little_endian = self.little_endian;
        let bytes = self.take(count.checked_mul(4)?)?;
        let number = |b: &[u8; 4]| if little_endian { f32::from_le_bytes(*b) } else { f32::from_be_bytes(*b) };
        Some(bytes.as_chunks::<4>().0.iter().map(|b| f64::from(number(b))).collect())
    }

    /// So many float64.
    pub fn doubles(&mut self, count: usize) -> Option<Vec<f64>> {
        let little_endian = self.little_endian;
        let bytes = self.take(count.checked_mul(8)?)?;
        let number = |b: &[u8; 8]| if little_endian { f64::from_le_bytes(*b) } else { f64::from_be_bytes(*b) };
        Some(bytes.as_chunks::<8>().0.iter().map(number).collect())
    }
}
