//! Gradients of dense layers' weights and biases: sums over the rows of many tiles.

use super::dense::{Lane, ROWS};
use super::number::Number;
use super::vectors::{InstructionSet, Kernel, Vector};

/// Outputs of a dense layer whose weights' gradients are made in one go.
pub const PANEL: usize = 128;

/// Tiles that are summed over in one go: the lanes of a few inputs in all of them stay in the first cache.
const TILES: usize = 32;

/// The lanes of one matrix in each of many tiles: tile t has its lanes from `first + t·stride` on.
#[derive(Clone, Copy)]
pub struct TileLanes<'a, T> {
    pub all: &'a [Lane<T>],
    pub first: usize,
    pub stride: usize,
    pub lanes: usize,
}

impl<'a, T: Number> TileLanes<'a, T> {
    /// Some lanes of a tile.
    #[inline(always)]
    fn of(&self, tile: usize, from: usize, lanes: usize) -> &'a [Lane<T>] {
        &self.all[self.first + tile * self.stride + from..][..lanes]
    }
}

/// Room for copies of lanes: in the tape those of one feature are so far apart as to share the few places of a cache.
pub struct GradientScratch<T> {
    left: Vec<Lane<T>>,
    right: Vec<Lane<T>>,
}

impl<T> Default for GradientScratch<T> {
    fn default() -> Self {
        Self { left: Vec::new(), right: Vec::new() }
    }
}

/// The gradient of some rows of W, dW(o, i) = Σ over the rows of all tiles of dz(o)·h(i), and of as much of b, Σ dz(o).
pub struct WeightGradient<'a, T> {
    pub tiles: usize,
    pub dz: TileLanes<'a, T>,
    pub h: TileLanes<'a, T>,
    /// The first of the outputs; there are as many as `bias` has places.
    pub from: usize,
    pub weight: &'a mut [T],
    pub bias: &'a mut [T],
    pub scratch: &'a mut GradientScratch<T>,
}

/// Groups of at most `most` of `total` things: as many of these as possible, then pairs, then one.
fn groups(total: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let size = match total - at {
            0 => return None,
            left if left >= most => most,
            2.. => 2,
            _ => 1,
        };
        at += size;
        Some((at - size, size))
    })
}

impl<T: Number> Kernel for WeightGradient<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: InstructionSet>(self) {
        let Self { tiles, dz, h, from, weight, bias, scratch: GradientScratch { left, right } } = self;
        let (count, inputs) = (bias.len(), h.lanes);
        assert!(weight.len() == count * inputs);
        weight.fill(T::ZERO);
        bias.fill(T::ZERO);
        // With 32 registers for vectors 24 hold sums, with 16 eight.
        let (most_outputs, most_inputs) = if I::WIDE { (4, 6) } else { (2, 4) };
        left.resize(TILES * count, [T::ZERO; ROWS]);
        right.resize(TILES * most_inputs, [T::ZERO; ROWS]);
        for first in (0..tiles).step_by(TILES) {
            let tiles = first..(first + TILES).min(tiles);
            for (t, tile) in tiles.clone().enumerate() {
                let lanes = dz.of(tile, from, count);
                for (o, no) in groups(count, most_outputs) {
                    left[o * tiles.len() + t * no..][..no].copy_from_slice(&lanes[o..o + no]);
                }
            }
            // Tiles whose next lanes are fetched beside each product.
            let ahead = tiles.len().div_ceil(groups(count, most_outputs).count().max(1));
            for (i, ni) in groups(inputs, most_inputs) {
                for (t, tile) in tiles.clone().enumerate() {
                    right[t * ni..][..ni].copy_from_slice(h.of(tile, i, ni));
                }
                let right = &right[..tiles.len() * ni];
                let next = most_inputs.min(inputs - i - ni);
                for (g, (o, no)) in groups(count, most_outputs).enumerate() {
                    for tile in tiles.clone().skip(g * ahead).take(ahead) {
                        h.of(tile, i + ni, next).iter().for_each(I::prefetch);
                    }
                    let left = &left[o * tiles.len()..(o + no) * tiles.len()];
                    let out = &mut weight[o * inputs + i..];
                    match (no, ni) {
                        (4, 6) => outer::<I, T, 4, 6>(left, right, out, inputs),
                        (4, 2) => outer::<I, T, 4, 2>(left, right, out, inputs),
                        (4, _) => outer::<I, T, 4, 1>(left, right, out, inputs),
                        (2, 6) => outer::<I, T, 2, 6>(left, right, out, inputs),
                        (2, 4) => outer::<I, T, 2, 4>(left, right, out, inputs),
                        (2, 2) => outer::<I, T, 2, 2>(left, right, out, inputs),
                        (2, _) => outer::<I, T, 2, 1>(left, right, out, inputs),
                        (_, 6) => outer::<I, T, 1, 6>(left, right, out, inputs),
                        (_, 4) => outer::<I, T, 1, 4>(left, right, out, inputs),
                        (_, 2) => outer::<I, T, 1, 2>(left, right, out, inputs),
                        _ => outer::<I, T, 1, 1>(left, right, out, inputs),
                    }
                }
            }
            for (o, no) in groups(count, most_outputs) {
                for (k, lane) in left[o * tiles.len()..(o + no) * tiles.len()].iter().enumerate() {
                    bias[o + k % no] += lane.iter().fold(T::ZERO, |sum, &d| sum + d);
                }
            }
        }
    }
}

/// Adds to `A` rows of `B` elements of the gradient, `width` apart. Each tile has `A` lanes in `left`, `B` in `right`.
#[inline(always)]
fn outer<I: InstructionSet, T: Number, const A: usize, const B: usize>(
    left: &[Lane<T>],
    right: &[Lane<T>],
    out: &mut [T],
    width: usize,
) {
    let lanes = <T::Vector<I> as Vector<T>>::LANES;
    let tiles = left.len() / A;
    assert!(left.len() == tiles * A && right.len() == tiles * B);
    // SAFETY: the assertion says that each tile has its lanes; within a lane, `row` runs over its ROWS numbers in steps
    // of a vector, of which ROWS is a multiple.
    let sums = unsafe {
        let mut sums = [[T::Vector::<I>::splat(T::ZERO); B]; A];
        let (mut l, mut r) = (left.as_ptr().cast::<T>(), right.as_ptr().cast::<T>());
        for _ in 0..tiles {
            let mut row = 0;
            while row < ROWS {
                let mut h = [T::Vector::<I>::splat(T::ZERO); B];
                for (b, h) in h.iter_mut().enumerate() {
                    *h = T::Vector::<I>::load(r.add(b * ROWS + row));
                }
                for (a, sums) in sums.iter_mut().enumerate() {
                    let d = T::Vector::<I>::load(l.add(a * ROWS + row));
                    for (sum, h) in sums.iter_mut().zip(h) {
                        *sum = sum.plus_product(d, h);
                    }
                }
                row += lanes;
            }
            l = l.add(A * ROWS);
            r = r.add(B * ROWS);
        }
        sums
    };
    for (a, sums) in sums.into_iter().enumerate() {
        for (b, sum) in sums.into_iter().enumerate() {
            // SAFETY: a sum of registers.
            out[a * width + b] += unsafe { sum.sum() };
        }
    }
}
