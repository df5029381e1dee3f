//! Standard normal and uniform numbers for the rows of a tile, by their address.
//!
//! Number j of an address comes from a block of Philox of its own, whatever is asked for beside it. No product and sum
//! is fused here, so that every processor draws the same bits.

use super::dense::{Lane, ROWS};
use super::number::{ln, quadrant_sin_cos};
use super::vectors::Portable;
use crate::math::{Philox, Purpose, open_uniform};
use std::f64::consts::FRAC_PI_2;

/// The addresses of a tile's rows.
pub struct LatentLanes {
    key: [Lane<u32>; 2],
    counter: [Lane<u32>; 3],
}

/// Blocks from here on are for uniform numbers.
const UNIFORM: u32 = 1 << 31;

impl LatentLanes {
    /// Of (seed, purpose, index) of each row; lanes without a row repeat the last one.
    #[inline(always)]
    pub fn new(mut address: impl FnMut(usize) -> (u64, Purpose, u64)) -> Self {
        let mut lanes = Self { key: [[0; ROWS]; 2], counter: [[0; ROWS]; 3] };
        for r in 0..ROWS {
            let (seed, purpose, index) = address(r);
            lanes.key[0][r] = seed as u32;
            lanes.key[1][r] = (seed >> 32) as u32;
            lanes.counter[0][r] = purpose as u32;
            lanes.counter[1][r] = index as u32;
            lanes.counter[2][r] = (index >> 32) as u32;
        }
        lanes
    }

    /// Two uniform numbers in the open interval (0, 1), on a grid of 2⁻⁵².
    #[inline(always)]
    fn block(&self, block: u32) -> [Lane<f64>; 2] {
        let mut out = [[0.0; ROWS]; 2];
        for r in 0..ROWS {
            let philox = Philox::new([self.key[0][r], self.key[1][r]]);
            let words = philox.block([block, self.counter[0][r], self.counter[1][r], self.counter[2][r]]);
            out[0][r] = open_uniform(u64::from(words[1]) << 32 | u64::from(words[0]));
            out[1][r] = open_uniform(u64::from(words[3]) << 32 | u64::from(words[2]));
        }
        out
    }

    /// Standard normal numbers 2·pair and 2·pair + 1, by the transformation of Box and Muller (1958).
    #[inline(always)]
    pub fn normals(&self, pair: usize) -> [Lane<f64>; 2] {
        let [u, v] = self.block(pair as u32 & !UNIFORM);
        let mut out = [[0.0; ROWS]; 2];
        for r in 0..ROWS {
            let radius = (-2.0 * ln::<Portable>(u[r])).sqrt();
            // Adding 1.5·2⁵² rounds to whole quarter turns.
            let quarters = 4.0 * v[r] + 6_755_399_441_055_744.0;
            let rest = 4.0 * v[r] - (quarters - 6_755_399_441_055_744.0);
            let (sin, cos) = quadrant_sin_cos::<Portable>(rest * FRAC_PI_2, quarters.to_bits());
            out[0][r] = radius * cos;
            out[1][r] = radius * sin;
        }
        out
    }

    /// Uniform numbers 2·pair and 2·pair + 1 in (0, 1).
    #[inline(always)]
    pub fn uniforms(&self, pair: usize) -> [Lane<f64>; 2] {
        self.block(pair as u32 | UNIFORM)
    }
}
