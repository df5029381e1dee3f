//! Positions to their compressed form, as [`decode`](super::decode) describes it.
//!
//! The size of differences stays the same through a frame: the one that makes the frame shortest, found by trying all.

use super::bits::BitWriter;
use super::{Bounds, FIRST_SIZE, LONGEST_RUN, PRECISION, SIZES, bits_of, bits_together};

/// The farthest from the origin, and from one end of the frame to the other, that programs read.
const FARTHEST: i32 = i32::MAX - 2;
const FAR: (&str, &str) = ("has positions that are millions of nm apart", "write DCD");

/// Appends positions in nm; or says why it cannot, and what to do about it.
pub(super) fn encode(positions: &[f64], file: &mut Vec<u8>) -> Result<(), (&'static str, &'static str)> {
    let (points, bounds) = points(positions).ok_or(FAR)?;
    let bits = if bounds.together() {
        bits_together(bounds.sizes)
    } else {
        bounds.sizes.map(|s| bits_of(s.into())).iter().sum()
    };
    let small = smallest(&points, bits);
    let size = SIZES.get(small).copied().unwrap_or_default();

    let mut data = BitWriter::default();
    let mut run_before = 0;
    for group in Groups::new(&points, size) {
        let [first, rest @ ..] = group else { continue };
        // A run's second atom is its head, and the first comes after it.
        let (head, run) = (rest.first().unwrap_or(first), rest.len());
        let offset: [u32; 3] = difference(*head, bounds.low.map(i64::from));
        if bounds.together() {
            data.point(bits, bounds.sizes, offset);
        } else {
            bounds.sizes.iter().zip(offset).for_each(|(size, x)| data.number(bits_of((*size).into()), x));
        }
        if run == run_before {
            data.number(1, 0);
        } else {
            data.number(1, 1);
            data.number(5, run as u32 * 3 + 1);
            run_before = run;
        }
        if run > 0 {
            let mut before = *head;
            for point in std::iter::once(first).chain(rest.iter().skip(1)) {
                data.point(small as u32, [size; 3], difference(*point, before.map(|x| x - i64::from(size / 2))));
                before = *point;
            }
        }
    }
    let data = data.finish();
    let length = i32::try_from(data.len()).map_err(|_| ("has too many atoms", "write DCD"))?;

    file.extend(PRECISION.to_be_bytes());
    bounds.low.iter().chain(&bounds.high).for_each(|bound| file.extend(bound.to_be_bytes()));
    file.extend((small as u32).to_be_bytes());
    file.extend(length.to_be_bytes());
    file.extend(&data);
    file.extend(std::iter::repeat_n(0, data.len().wrapping_neg() % 4));
    Ok(())
}

/// Positions in steps, and their bounds; none where they are too far apart.
fn points(positions: &[f64]) -> Option<(Vec<[i64; 3]>, Bounds)> {
    let (mut low, mut high) = ([FARTHEST; 3], [-FARTHEST; 3]);
    let mut points = Vec::with_capacity(positions.len() / 3);
    for position in positions.as_chunks::<3>().0 {
        let steps = position.map(|x| (x * f64::from(PRECISION)).round());
        if steps.iter().any(|x| x.abs() > f64::from(FARTHEST)) {
            return None;
        }
        let point = steps.map(|x| x as i32);
        for ((low, high), x) in low.iter_mut().zip(&mut high).zip(point) {
            (*low, *high) = ((*low).min(x), (*high).max(x));
        }
        points.push(point.map(i64::from));
    }
    let bounds = Bounds::new(low, high)?;
    bounds.sizes.iter().all(|size| i64::from(*size) < i64::from(FARTHEST)).then_some((points, bounds))
}

/// The index of the size with which a frame takes the fewest bits, where a whole position takes `bits`.
fn smallest(points: &[[i64; 3]], bits: u32) -> usize {
    let length = |small: usize, size: u32| {
        let mut run_before = 0;
        let mut length = 0;
        for group in Groups::new(points, size) {
            let run = group.len().saturating_sub(1);
            length += bits as usize + 1 + run * small + if run == run_before { 0 } else { 5 };
            run_before = run;
        }
        length
    };
    let sizes = SIZES.iter().enumerate().skip(FIRST_SIZE);
    // Sizes of which some differences would not fit into the bits are a mistake of the format's.
    let sound = sizes.filter(|(small, size)| u128::from(**size).pow(3) <= 1 << small);
    let useful = sound.take_while(|(small, _)| *small == FIRST_SIZE || *small < bits as usize);
    useful.min_by_key(|(small, size)| length(*small, **size)).map_or(FIRST_SIZE, |(small, _)| small)
}

/// Splits the atoms of a frame into heads with their runs, for differences of one size.
struct Groups<'a> {
    points: &'a [[i64; 3]],
    size: i64,
}

impl<'a> Groups<'a> {
    fn new(points: &'a [[i64; 3]], size: u32) -> Self {
        Self { points, size: size.into() }
    }

    fn is_near(&self, a: &[i64; 3], b: &[i64; 3]) -> bool {
        a.iter().zip(b).all(|(a, b)| (0..self.size).contains(&(a - b + self.size / 2)))
    }
}

impl<'a> Iterator for Groups<'a> {
    type Item = &'a [[i64; 3]];

    fn next(&mut self) -> Option<Self::Item> {
        let [first, rest @ ..] = self.points else { return None };
        let mut count = 1;
        if let [second, rest @ ..] = rest
            && self.is_near(first, second)
        {
            count += 1;
            let mut before = first;
            for point in rest.iter().take(LONGEST_RUN - 1) {
                if !self.is_near(point, before) {
                    break;
                }
                (before, count) = (point, count + 1);
            }
        }
        let (group, rest) = self.points.split_at_checked(count)?;
        self.points = rest;
        Some(group)
    }
}

/// a − b, which is in the range of what is written.
fn difference(a: [i64; 3], b: [i64; 3]) -> [u32; 3] {
    let mut difference = [0; 3];
    for ((difference, a), b) in difference.iter_mut().zip(a).zip(b) {
        *difference = (a - b) as u32;
    }
    difference
}
