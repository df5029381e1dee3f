//! Numbers of any number of bits, one after the other.

/// Reads bits, the highest of each byte first.
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    /// How many bits were read.
    at: usize,
}

impl<'a> BitReader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// A number of at most 32 bits; none where fewer are left.
    pub fn number(&mut self, bits: u32) -> Option<u32> {
        let end = self.at.checked_add(bits as usize)?;
        if end.div_ceil(8) > self.bytes.len() {
            return None;
        }
        let mut window = [0; 8];
        let ahead = self.bytes.get(self.at / 8..)?;
        for (to, from) in window.iter_mut().zip(ahead) {
            *to = *from;
        }
        let aligned = u64::from_be_bytes(window) << (self.at % 8);
        self.at = end;
        u32::try_from(aligned.checked_shr(64 - bits).unwrap_or(0)).ok()
    }

    /// A point inside of `sizes` from the one number that stands for it, whose bytes come lowest first. None where bits
    /// are missing or the point is not inside.
    pub fn point(&mut self, bits: u32, sizes: [u32; 3]) -> Option<[i64; 3]> {
        let mut number = 0;
        for shift in (0..bits).step_by(8) {
            number |= u128::from(self.number((bits - shift).min(8))?) << shift;
        }
        let [_, y, z] = sizes.map(u64::from);
        let point = match u64::try_from(number) {
            Ok(number) => {
                let (rows, z_value) = (number.checked_div(z)?, number.checked_rem(z)?);
                [rows.checked_div(y)?, rows.checked_rem(y)?, z_value]
            }
            Err(_) => {
                let (y, z) = (u128::from(y), u128::from(z));
                let (rows, z_value) = (number.checked_div(z)?, number.checked_rem(z)?);
                let point = [rows.checked_div(y)?, rows.checked_rem(y)?, z_value];
                [u64::try_from(point[0]).ok()?, u64::try_from(point[1]).ok()?, u64::try_from(point[2]).ok()?]
            }
        };
        (point[0] < u64::from(sizes[0])).then(|| point.map(|value| value as i64))
    }
}

/// Writes what [`BitReader`] reads.
#[derive(Default)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    /// Bits that do not fill a byte yet, and how many there are.
    pending: u64,
    count: u32,
}

impl BitWriter {
    /// A number of at most 32 bits.
    pub fn number(&mut self, bits: u32, number: u32) {
        self.pending = self.pending << bits | u64::from(number);
        self.count += bits;
        while self.count >= 8 {
            self.count -= 8;
            self.bytes.push((self.pending >> self.count) as u8);
        }
        self.pending &= (1 << self.count) - 1;
    }

    /// A point inside of `sizes` as one number.
    pub fn point(&mut self, bits: u32, sizes: [u32; 3], point: [u32; 3]) {
        let [_, y, z] = sizes.map(u128::from);
        let number = (u128::from(point[0]) * y + u128::from(point[1])) * z + u128::from(point[2]);
        for shift in (0..bits).step_by(8) {
            let width = (bits - shift).min(8);
            self.number(width, (number >> shift) as u32 & ((1 << width) - 1));
        }
    }

    pub fn finish(mut self) -> Vec<u8> {
        if self.count > 0 {
            self.number(8 - self.count, 0);
        }
        self.bytes
    }
}
