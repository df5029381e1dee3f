//! Linear maps of some columns on tiles, in f64: what the maps of `lu` and `householder` share.
//!
//! Their weights are few beside their rows, so that the gradient of a weight is summed over the rows of a tile at once,
//! and the tape has one number for each weight and tile.

use super::dense::{Lane, ROWS};
use super::number::Number;
use super::vectors::InstructionSet;
use super::{householder, lu};
use crate::compute::Direction;

/// A linear map, and where its weights begin among the flow's.
#[derive(Clone)]
pub struct Linear {
    /// The columns that are mapped, ascending; the others are passed through.
    pub columns: Vec<usize>,
    pub map: LinearMap,
    pub first_weight: usize,
}

/// Which map of m columns, and its weights.
#[derive(Clone)]
pub enum LinearMap {
    /// P·L·(U + diag(s)): number k of the output is number `order[k]` of L·(U + diag(s))·x. The weights are a matrix
    /// (m, m): L below the diagonal, log s on it, U above.
    Lu { order: Vec<usize> },
    /// Reflections of Householder's, the first of them first. The weights are their vectors (count, m).
    Reflections { count: usize },
}

/// The weights of a linear map as kernels read them.
pub struct PackedLinear {
    /// The matrix, with s on its diagonal; or the vectors.
    pub numbers: Vec<f64>,
    /// 2/|v|² of each vector.
    pub factors: Vec<f64>,
    /// Of the forward direction.
    pub ladj: f64,
}

impl Linear {
    /// The number of weights.
    pub fn weights(&self) -> usize {
        let m = self.columns.len();
        match &self.map {
            LinearMap::Lu { .. } => m * m,
            LinearMap::Reflections { count } => count * m,
        }
    }

    /// Lanes of intermediate results, there and back.
    pub fn room(&self) -> usize {
        5 * self.columns.len()
    }

    /// Lanes of the tape: the input, and after it a number for each weight.
    pub fn tape_lanes(&self) -> usize {
        self.columns.len() + self.weights().div_ceil(ROWS)
    }

    pub fn pack<T: Number>(&self, flat: &[T]) -> PackedLinear {
        let weights = &flat[self.first_weight..][..self.weights()];
        let numbers = weights.iter().map(|w| w.wide()).collect();
        match &self.map {
            LinearMap::Lu { .. } => lu::pack(numbers, self.columns.len()),
            LinearMap::Reflections { .. } => householder::pack(numbers, self.columns.len()),
        }
    }

    /// Copies the columns.
    #[inline(always)]
    pub fn keep(&self, x: &[Lane<f64>], kept: &mut [Lane<f64>]) {
        for (kept, &j) in kept.iter_mut().zip(&self.columns) {
            *kept = x[j];
        }
    }

    #[inline(always)]
    pub fn apply<I: InstructionSet>(
        &self,
        packed: &PackedLinear,
        direction: Direction,
        x: &mut [Lane<f64>],
        ladj: &mut Lane<f64>,
        room: &mut [Lane<f64>],
    ) {
        let (h, room) = room.split_at_mut(self.columns.len());
        self.keep(x, h);
        match &self.map {
            LinearMap::Lu { order } => lu::apply::<I>(packed, order, direction, h, room),
            LinearMap::Reflections { .. } => householder::apply::<I>(packed, direction, h),
        }
        for (h, &j) in h.iter().zip(&self.columns) {
            x[j] = *h;
        }
        let change = if direction == Direction::Forward { packed.ladj } else { -packed.ladj };
        ladj.iter_mut().for_each(|l| *l += change);
    }

    /// The way back. `gx` goes from the gradient of the output to that of the input; what [`Linear::keep`] left in `tape`
    /// is followed by the tile's part of the weights' gradients.
    #[inline(always)]
    pub fn backward<I: InstructionSet>(
        &self,
        packed: &PackedLinear,
        direction: Direction,
        tape: &mut [Lane<f64>],
        gx: &mut [Lane<f64>],
        g_ladj: &Lane<f64>,
        room: &mut [Lane<f64>],
    ) {
        let (g, room) = room.split_at_mut(self.columns.len());
        self.keep(gx, g);
        let (input, sums) = tape.split_at_mut(self.columns.len());
        let sums = &mut sums.as_flattened_mut()[..self.weights()];
        match &self.map {
            LinearMap::Lu { order } => lu::backward::<I>(packed, order, direction, input, g, g_ladj, room, sums),
            LinearMap::Reflections { .. } => householder::backward::<I>(packed, direction, input, g, room, sums),
        }
        for (g, &j) in g.iter().zip(&self.columns) {
            gx[j] = *g;
        }
    }

    /// A tile's part of the gradient of a weight, which [`Linear::backward`] left.
    pub fn part(&self, tape: &[Lane<f64>], weight: usize) -> f64 {
        tape.as_flattened()[self.columns.len() * ROWS + weight]
    }
}

/// Adds a multiple of a lane to another.
#[inline(always)]
pub fn add<I: InstructionSet>(to: &mut Lane<f64>, factor: f64, lane: &Lane<f64>) {
    for r in 0..ROWS {
        to[r] = f64::madd::<I>(factor, lane[r], to[r]);
    }
}

/// Σ a·b over the rows of a tile.
#[inline(always)]
pub fn dot<I: InstructionSet>(a: &Lane<f64>, b: &Lane<f64>) -> f64 {
    // Eight sums side by side, so that they become a vector.
    let mut sums = [0.0; 8];
    for (a, b) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        for k in 0..8 {
            sums[k] = f64::madd::<I>(a[k], b[k], sums[k]);
        }
    }
    sums.iter().sum()
}
