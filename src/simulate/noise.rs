//! Random numbers of a simulation, by their address: a pure function of (seed, purpose, step, place).
//!
//! Eight blocks of Philox go side by side. No product and sum is fused, so that every processor draws the same bits.

use crate::compute::fused::{InstructionSet, Kernel, Portable, dispatch, ln, quadrant_sin_cos};
use crate::math::{Philox, Purpose, open_uniform};
use std::f64::consts::FRAC_PI_2;

/// Rows whose normal numbers are drawn together. A cell has whole units of them, so that numbers do not depend on how
/// large cells are.
pub const UNIT: usize = 8;

const LANES: usize = 8;
/// Normal numbers of [`LANES`] blocks.
const GROUP: usize = 2 * LANES;
type Words = [u64; LANES];

/// The seed, and whether the random numbers are those of the pilot or of the run.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    key: [u32; 2],
    offset: u32,
}

impl Source {
    pub fn new(seed: u64, pilot: bool) -> Self {
        Self { key: [seed as u32, (seed >> 32) as u32], offset: if pilot { 8 } else { 0 } }
    }

    /// A uniform number in (0, 1) for a place in a step.
    pub fn uniform(&self, purpose: Purpose, step: u64, place: usize) -> f64 {
        let counter = [place as u32, purpose as u32 + self.offset, step as u32, (step >> 32) as u32];
        let words = Philox::new(self.key).block(counter);
        open_uniform(u64::from(words[1]) << 32 | u64::from(words[0]))
    }

    /// Standard normal numbers for rows of d coordinates, the first of which is a multiple of [`UNIT`].
    pub fn normals(&self, purpose: Purpose, step: u64, first_row: usize, d: usize, out: &mut [f64]) {
        dispatch(Normals { source: *self, purpose, step, first_row, d, out });
    }
}

/// As a kernel calls it: see [`Source::normals`].
#[inline(always)]
pub fn fill_normals(source: &Source, purpose: Purpose, step: u64, first_row: usize, d: usize, out: &mut [f64]) {
    let groups = (UNIT * d).div_ceil(GROUP);
    let last = [u64::from(purpose as u32 + source.offset), u64::from(step as u32), step >> 32];
    for (unit, rows) in out.chunks_mut(UNIT * d).enumerate() {
        let first = (first_row / UNIT + unit) * groups * LANES;
        for (group, out) in rows.chunks_mut(GROUP).enumerate() {
            let numbers = normal_group(source.key, (first + group * LANES) as u32, last);
            match out.as_chunks_mut::<GROUP>() {
                ([whole], []) => *whole = numbers,
                (_, part) => part.iter_mut().zip(numbers).for_each(|(o, z)| *o = z),
            }
        }
    }
}

struct Normals<'a> {
    source: Source,
    purpose: Purpose,
    step: u64,
    first_row: usize,
    d: usize,
    out: &'a mut [f64],
}

impl Kernel for Normals<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: InstructionSet>(self) {
        fill_normals(&self.source, self.purpose, self.step, self.first_row, self.d, self.out);
    }
}

/// Standard normal numbers of consecutive blocks, by the transformation of Box and Muller (1958).
#[inline(always)]
fn normal_group(key: [u32; 2], first_block: u32, last: [u64; 3]) -> [f64; GROUP] {
    let words = blocks(key, first_block, last);
    let mut out = [0.0; GROUP];
    let (cosines, sines) = out.split_at_mut(LANES);
    for l in 0..LANES {
        let radius = (-2.0 * ln::<Portable>(open_uniform(words[1][l] << 32 | words[0][l]))).sqrt();
        let turn = 4.0 * open_uniform(words[3][l] << 32 | words[2][l]);
        // Adding 1.5·2⁵² rounds to whole quarter turns.
        let quarters = turn + 6_755_399_441_055_744.0;
        let rest = turn - (quarters - 6_755_399_441_055_744.0);
        let (sin, cos) = quadrant_sin_cos::<Portable>(rest * FRAC_PI_2, quarters.to_bits());
        cosines[l] = radius * cos;
        sines[l] = radius * sin;
    }
    out
}

/// [`Philox::block`] of consecutive counters. Words are kept in the lower halves of 64 bits, and what is above them is
/// only cleared at the end: the vector instruction for a product reads the lower halves anyway.
#[inline(always)]
fn blocks(key: [u32; 2], first: u32, last: [u64; 3]) -> [Words; 4] {
    const LOW: u64 = 0xFFFF_FFFF;
    let mut c: [Words; 4] = [
        std::array::from_fn(|l| u64::from(first.wrapping_add(l as u32))),
        [last[0]; LANES],
        [last[1]; LANES],
        [last[2]; LANES],
    ];
    let mut k = key;
    for _ in 0..10 {
        for l in 0..LANES {
            let p0 = 0xD251_1F53 * (c[0][l] & LOW);
            let p1 = 0xCD9E_8D57 * (c[2][l] & LOW);
            let (c1, c3) = (c[1][l], c[3][l]);
            c[0][l] = (p1 >> 32) ^ c1 ^ u64::from(k[0]);
            c[1][l] = p1;
            c[2][l] = (p0 >> 32) ^ c3 ^ u64::from(k[1]);
            c[3][l] = p0;
        }
        k = [k[0].wrapping_add(0x9E37_79B9), k[1].wrapping_add(0xBB67_AE85)];
    }
    c.map(|words| words.map(|word| word & LOW))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_those_of_philox() {
        let key = [0xa409_3822, 0x299f_31d0];
        let words = blocks(key, 0xFFFF_FFFD, [0x85a3_08d3, 0x1319_8a2e, 0x0370_7344]);
        for l in 0..LANES {
            let counter = [0xFFFF_FFFDu32.wrapping_add(l as u32), 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
            let block = Philox::new(key).block(counter);
            assert_eq!(words.map(|w| w[l]), block.map(u64::from));
        }
    }

    #[test]
    fn numbers_do_not_depend_on_the_rows_beside_them() {
        let source = Source::new(5, false);
        for d in [1, 2, 3, 66, 67] {
            let mut all = vec![0.0; 40 * d];
            source.normals(Purpose::SimulationNoise, 9, 0, d, &mut all);
            let mut part = vec![0.0; 13 * d];
            source.normals(Purpose::SimulationNoise, 9, 16, d, &mut part);
            assert_eq!(part, all[16 * d..29 * d]);
        }
    }

    /// Bounds of five standard errors: false alarms below 1e-5.
    #[test]
    fn normals_have_their_moments() {
        let (rows, d, steps) = (64, 31, 500);
        let (n, mut sums, mut along) = ((rows * d * steps) as f64, [0.0f64; 4], 0.0);
        let mut z = vec![0.0; rows * d];
        for step in 0..steps as u64 {
            Source::new(1, false).normals(Purpose::SimulationNoise, step, 0, d, &mut z);
            z.iter().for_each(|z| (1..=4).for_each(|k| sums[k - 1] += z.powi(k as i32)));
            along += z.windows(2).map(|z| z[0] * z[1]).sum::<f64>();
        }
        let [m1, m2, m3, m4] = sums.map(|s| s / n);
        let five = 5.0 / n.sqrt();
        assert!(m1.abs() < five && (m2 - 1.0).abs() < five * 2f64.sqrt());
        assert!(m3.abs() < five * 15f64.sqrt() && (m4 - 3.0).abs() < five * 96f64.sqrt());
        assert!((along / n).abs() < five);
    }
}
