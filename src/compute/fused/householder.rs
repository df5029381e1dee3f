//! An orthogonal matrix as a product of Householder reflections, H = 1 − 2·v·vᵀ/|v|² (Tomczak and Welling 2016), on
//! tiles.

use super::dense::{Lane, ROWS};
use super::linear::{PackedLinear, add, dot};
use super::vectors::InstructionSet;
use crate::compute::Direction;

/// A vector that is zero reflects nothing.
pub fn pack(numbers: Vec<f64>, m: usize) -> PackedLinear {
    let factor = |v: &[f64]| match v.iter().map(|v| v * v).sum::<f64>() {
        0.0 => 0.0,
        square => 2.0 / square,
    };
    PackedLinear { factors: numbers.chunks(m.max(1)).map(factor).collect(), numbers, ladj: 0.0 }
}

/// The reflections, vector and 2/|v|² of each, in the order of a direction.
#[inline(always)]
fn reflections(
    packed: &PackedLinear,
    m: usize,
    direction: Direction,
) -> impl DoubleEndedIterator<Item = (usize, &[f64], f64)> {
    let count = packed.factors.len();
    (0..count).map(move |k| {
        let k = if direction == Direction::Forward { k } else { count - 1 - k };
        (k, &packed.numbers[k * m..(k + 1) * m], packed.factors[k])
    })
}

/// vᵀ·h of each row.
#[inline(always)]
fn along<I: InstructionSet>(v: &[f64], h: &[Lane<f64>]) -> Lane<f64> {
    let mut sum = [0.0; ROWS];
    for (&v, h) in v.iter().zip(h) {
        add::<I>(&mut sum, v, h);
    }
    sum
}

/// h becomes h − factor·v·along.
#[inline(always)]
fn reflect<I: InstructionSet>(v: &[f64], factor: f64, along: &Lane<f64>, h: &mut [Lane<f64>]) {
    for (&v, h) in v.iter().zip(h) {
        add::<I>(h, -factor * v, along);
    }
}

#[inline(always)]
pub fn apply<I: InstructionSet>(packed: &PackedLinear, direction: Direction, h: &mut [Lane<f64>]) {
    for (_, v, factor) in reflections(packed, h.len(), direction) {
        let along = along::<I>(v, h);
        reflect::<I>(v, factor, &along, h);
    }
}

/// The way back: g goes from the gradient of the output to that of the input, `sums` (count, m) are the tile's part of
/// those of the vectors.
#[inline(always)]
pub fn backward<I: InstructionSet>(
    packed: &PackedLinear,
    direction: Direction,
    input: &[Lane<f64>],
    g: &mut [Lane<f64>],
    room: &mut [Lane<f64>],
    sums: &mut [f64],
) {
    let m = g.len();
    let h = &mut room[..m];
    h.copy_from_slice(input);
    apply::<I>(packed, direction, h);
    for (k, v, factor) in reflections(packed, m, direction).rev() {
        // A reflection undoes itself: h is what came to it.
        let after = along::<I>(v, h);
        reflect::<I>(v, factor, &after, h);
        let a = after.map(|a| -a);
        let b = along::<I>(v, g);
        let both = factor * factor * dot::<I>(&a, &b);
        for (((sum, &v), h), g) in sums[k * m..].iter_mut().zip(v).zip(&*h).zip(&*g) {
            *sum = both * v - factor * (dot::<I>(&b, h) + dot::<I>(&a, g));
        }
        reflect::<I>(v, factor, &b, g);
    }
}
