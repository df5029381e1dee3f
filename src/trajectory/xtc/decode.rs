//! Positions from their compressed form.
//!
//! Positions are whole numbers of steps. One is told within the frame's bounds; a run of up to eight atoms may follow
//! it, each told by how little it differs from the one before. The first atom of a run comes before the one that it
//! follows, for the sake of water: hydrogen, oxygen, hydrogen has the shorter differences. How much "little" is
//! changes by one index of [`SIZES`] after a run, where the run's header says so.

use super::bits::BitReader;
use super::{Bounds, FIRST_SIZE, LONGEST_RUN, SIZES, bits_of, bits_together};
use crate::trajectory::bytes::Bytes;

pub(super) struct Compressed<'a> {
    precision: f64,
    low: [i32; 3],
    high: [i32; 3],
    small: u32,
    data: &'a [u8],
}

impl<'a> Compressed<'a> {
    /// None where the file ends within it.
    pub fn read(file: &mut Bytes<'a>, long: bool) -> Option<Self> {
        let precision = file.f32()?;
        let low = [file.i32()?, file.i32()?, file.i32()?];
        let high = [file.i32()?, file.i32()?, file.i32()?];
        let small = file.u32()?;
        let length = if long { file.u64()? } else { u64::from(file.u32()?) };
        let data = file.take_padded(usize::try_from(length).ok()?)?;
        Some(Self { precision, low, high, small, data })
    }

    /// Appends positions in nm.
    pub fn decode(&self, atoms: usize, positions: &mut Vec<f64>) -> Result<(), &'static str> {
        if !(self.precision.is_finite() && self.precision > 0.0) {
            return Err("the precision is no positive number");
        }
        let bounds = Bounds::new(self.low, self.high).ok_or("the highest positions are below the lowest")?;
        let mut points = Points::new(bounds, self.small, self.data);
        // An atom takes two bits at least, so that what is read stays in proportion to the file.
        if self.data.len().saturating_mul(4) < atoms {
            return Err("there are fewer positions than atoms");
        }
        let mut left = atoms;
        while left > 0 {
            let [head, run @ ..] = &points.next()?;
            let run = run.get(..points.run).unwrap_or_default();
            left = left.checked_sub(1 + run.len()).ok_or("there are more positions than atoms")?;
            for point in std::iter::once(head).chain(run) {
                if point.iter().zip(self.low).zip(self.high).any(|((x, low), high)| *x < low.into() || *x > high.into())
                {
                    return Err("a position is outside of the bounds");
                }
                positions.extend(point.map(|x| x as f64 / self.precision));
            }
        }
        Ok(())
    }
}

struct Points<'a> {
    bounds: Bounds,
    /// The bits of a point within the bounds; none where each coordinate has its own.
    bits: Option<u32>,
    /// The index of the size of a run's differences.
    small: usize,
    /// The atoms of a run, the same until a header says otherwise.
    run: usize,
    data: BitReader<'a>,
}

impl<'a> Points<'a> {
    fn new(bounds: Bounds, small: u32, data: &'a [u8]) -> Self {
        let bits = bounds.together().then(|| bits_together(bounds.sizes));
        Self { bounds, bits, small: small as usize, run: 0, data: BitReader::new(data) }
    }

    /// A point and the run after it, of which `run` are there, in the order of the atoms.
    fn next(&mut self) -> Result<[[i64; 3]; 1 + LONGEST_RUN], &'static str> {
        const ENDS: &str = "the positions end too early, or lie outside of the bounds";
        let mut before = self.whole().ok_or(ENDS)?;
        let mut points = [before; 1 + LONGEST_RUN];
        // One more than what is added to the index of the size.
        let mut change = 1;
        if self.data.number(1).ok_or(ENDS)? == 1 {
            let header = self.data.number(5).ok_or(ENDS)? as usize;
            (self.run, change) = (header / 3, header % 3);
        }
        if self.run > 0 {
            let size = match SIZES.get(self.small) {
                Some(size) if self.small >= FIRST_SIZE && self.run <= LONGEST_RUN => *size,
                _ => return Err("a run is longer, or its differences of another size, than the format allows"),
            };
            for point in points.iter_mut().skip(1).take(self.run) {
                let difference = self.data.point(self.small as u32, [size; 3]).ok_or(ENDS)?;
                for (before, difference) in before.iter_mut().zip(difference) {
                    *before += difference - i64::from(size / 2);
                }
                *point = before;
            }
            points.swap(0, 1);
        }
        self.small = self.small.saturating_add(change).saturating_sub(1);
        Ok(points)
    }

    /// A point that is told within the bounds.
    fn whole(&mut self) -> Option<[i64; 3]> {
        let mut point = match self.bits {
            Some(bits) => self.data.point(bits, self.bounds.sizes)?,
            None => {
                let mut point = [0; 3];
                for (x, size) in point.iter_mut().zip(self.bounds.sizes) {
                    *x = i64::from(self.data.number(bits_of(size.into()))?);
                }
                point
            }
        };
        for (x, low) in point.iter_mut().zip(self.bounds.low) {
            *x += i64::from(low);
        }
        Some(point)
    }
}
