//! A matrix as a product of triangular ones, P·L·(U + diag(s)) (Kingma and Dhariwal 2018, §3.2), on tiles.
//!
//! L has ones on its diagonal, s is positive. The inverse is by substitution, as exact as the matrix is well conditioned.

use super::dense::{Lane, ROWS};
use super::linear::{PackedLinear, add, dot};
use super::vectors::InstructionSet;
use crate::compute::Direction;

pub fn pack(mut numbers: Vec<f64>, m: usize) -> PackedLinear {
    let mut ladj = 0.0;
    for diagonal in numbers.iter_mut().step_by(m + 1) {
        ladj += *diagonal;
        *diagonal = diagonal.exp();
    }
    PackedLinear { numbers, factors: Vec::new(), ladj }
}

/// L or U + diag(s), as it is or transposed.
#[derive(Clone, Copy)]
struct Triangle<'a> {
    matrix: &'a [f64],
    m: usize,
    upper: bool,
    transposed: bool,
}

impl<'a> Triangle<'a> {
    fn lower(packed: &'a PackedLinear, m: usize) -> Self {
        Self { matrix: &packed.numbers, m, upper: false, transposed: false }
    }

    fn upper(packed: &'a PackedLinear, m: usize) -> Self {
        Self { matrix: &packed.numbers, m, upper: true, transposed: false }
    }

    fn transposed(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    #[inline(always)]
    fn at(&self, i: usize, j: usize) -> f64 {
        if self.transposed { self.matrix[j * self.m + i] } else { self.matrix[i * self.m + j] }
    }

    #[inline(always)]
    fn diagonal(&self, i: usize) -> f64 {
        if self.upper { self.matrix[i * self.m + i] } else { 1.0 }
    }

    /// Whether its elements are above the diagonal.
    fn is_above(&self) -> bool {
        self.upper != self.transposed
    }

    /// The columns beside the diagonal that row i has elements in.
    #[inline(always)]
    fn beside(&self, i: usize) -> std::ops::Range<usize> {
        if self.is_above() { i + 1..self.m } else { 0..i }
    }

    /// h becomes the product with h.
    #[inline(always)]
    fn times<I: InstructionSet>(&self, h: &mut [Lane<f64>]) {
        for k in 0..self.m {
            // What a row needs is still as it was.
            let i = if self.is_above() { k } else { self.m - 1 - k };
            let mut sum = [0.0; ROWS];
            add::<I>(&mut sum, self.diagonal(i), &h[i]);
            for j in self.beside(i) {
                add::<I>(&mut sum, self.at(i, j), &h[j]);
            }
            h[i] = sum;
        }
    }

    /// h becomes what the product with is h.
    #[inline(always)]
    fn solve<I: InstructionSet>(&self, h: &mut [Lane<f64>]) {
        for k in 0..self.m {
            let i = if self.is_above() { self.m - 1 - k } else { k };
            let mut rest = h[i];
            for j in self.beside(i) {
                add::<I>(&mut rest, -self.at(i, j), &h[j]);
            }
            let diagonal = self.diagonal(i);
            h[i] = rest.map(|rest| rest / diagonal);
        }
    }
}

#[inline(always)]
pub fn apply<I: InstructionSet>(
    packed: &PackedLinear,
    order: &[usize],
    direction: Direction,
    h: &mut [Lane<f64>],
    room: &mut [Lane<f64>],
) {
    let m = h.len();
    let (lower, upper) = (Triangle::lower(packed, m), Triangle::upper(packed, m));
    let copy = &mut room[..m];
    match direction {
        Direction::Forward => {
            upper.times::<I>(h);
            lower.times::<I>(h);
            copy.copy_from_slice(h);
            order.iter().enumerate().for_each(|(to, &from)| h[to] = copy[from]);
        }
        Direction::Inverse => {
            copy.copy_from_slice(h);
            order.iter().enumerate().for_each(|(to, &from)| h[from] = copy[to]);
            lower.solve::<I>(h);
            upper.solve::<I>(h);
        }
    }
}

/// The way back: g goes from the gradient of the output to that of the input, `sums` (m, m) are the tile's part of those
/// of the weights.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub fn backward<I: InstructionSet>(
    packed: &PackedLinear,
    order: &[usize],
    direction: Direction,
    input: &[Lane<f64>],
    g: &mut [Lane<f64>],
    g_ladj: &Lane<f64>,
    room: &mut [Lane<f64>],
    sums: &mut [f64],
) {
    let m = g.len();
    let (lower, upper) = (Triangle::lower(packed, m), Triangle::upper(packed, m));
    // Of U·x = h and L·h: x, h, and the gradients of h and of L·h, were the map run forward; run inversely, these are
    // the gradients of what the substitutions begin with, with their sign.
    let (x, room) = room.split_at_mut(m);
    let (h, room) = room.split_at_mut(m);
    let (gh, gy) = room.split_at_mut(m);
    let gy = &mut gy[..m];
    let sign = match direction {
        Direction::Forward => {
            x.copy_from_slice(input);
            h.copy_from_slice(input);
            upper.times::<I>(h);
            order.iter().enumerate().for_each(|(to, &from)| gy[from] = g[to]);
            gh.copy_from_slice(gy);
            lower.transposed().times::<I>(gh);
            g.copy_from_slice(gh);
            upper.transposed().times::<I>(g);
            1.0
        }
        Direction::Inverse => {
            order.iter().enumerate().for_each(|(to, &from)| h[from] = input[to]);
            lower.solve::<I>(h);
            x.copy_from_slice(h);
            upper.solve::<I>(x);
            gh.copy_from_slice(g);
            upper.transposed().solve::<I>(gh);
            gy.copy_from_slice(gh);
            lower.transposed().solve::<I>(gy);
            order.iter().enumerate().for_each(|(to, &from)| g[to] = gy[from]);
            -1.0
        }
    };
    let g_ladj: f64 = g_ladj.iter().sum();
    for i in 0..m {
        for j in 0..m {
            sums[i * m + j] = sign
                * if j < i {
                    dot::<I>(&gy[i], &h[j])
                } else if j > i {
                    dot::<I>(&gh[i], &x[j])
                } else {
                    upper.diagonal(i) * dot::<I>(&gh[i], &x[i]) + g_ladj
                };
        }
    }
}
