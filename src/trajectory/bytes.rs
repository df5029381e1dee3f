//! Numbers from a slice of bytes, up to its end and never beyond.

/// A place in a file. Every method gives nothing where the file has too few bytes left.
#[derive(Clone)]
pub(super) struct Bytes<'a> {
    rest: &'a [u8],
    little_endian: bool,
}

impl<'a> Bytes<'a> {
    pub fn big_endian(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, little_endian: false }
    }

    pub fn little_endian(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, little_endian: true }
    }

    /// How many bytes are left.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    /// The next bytes, with numbers in the same order of bytes.
    pub fn part(&mut self, count: usize) -> Option<Self> {
        Some(Self { rest: self.take(count)?, little_endian: self.little_endian })
    }

    /// The next bytes, without those that pad them to a multiple of four.
    pub fn take_padded(&mut self, count: usize) -> Option<&'a [u8]> {
        let padding = count.wrapping_neg() % 4;
        let taken = self.take(count.checked_add(padding)?)?;
        taken.get(..count)
    }

    fn number<const SIZE: usize>(&mut self) -> Option<[u8; SIZE]> {
        let (bytes, rest) = self.rest.split_first_chunk::<SIZE>()?;
        self.rest = rest;
        let mut bytes = *bytes;
        if self.little_endian {
            bytes.reverse();
        }
        Some(bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.number().map(u32::from_be_bytes)
    }

    pub fn i32(&mut self) -> Option<i32> {
        self.number().map(i32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.number().map(u64::from_be_bytes)
    }

    pub fn f32(&mut self) -> Option<f64> {
        self.number().map(|bytes| f64::from(f32::from_be_bytes(bytes)))
    }

    pub fn f64(&mut self) -> Option<f64> {
        self.number().map(f64::from_be_bytes)
    }
}
