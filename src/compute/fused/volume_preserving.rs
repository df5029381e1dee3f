//! The affine transform of GIN (Sorrenson, Rother and Köthe 2020) on tiles, with its gradients.
//!
//! y = x·exp(σ) + t with σ = s − mean(s) over the transformed columns and s = b·tanh(raw/b): Σ σ = 0, so that the volume
//! is preserved. Of a tile's parameters the first half are the raw log scales, the second half the shifts.

use super::affine::log_scale;
use super::dense::{Lane, ROWS};
use super::number::Number;
use super::vectors::InstructionSet;
use crate::compute::Direction;

/// The columns of x are transformed in place; ladj stays as it is.
#[inline(always)]
pub fn forward<I: InstructionSet, T: Number>(
    columns: &[usize],
    bound: T,
    params: &[Lane<T>],
    direction: Direction,
    x: &mut [Lane<f64>],
) {
    let (raw, shift) = params.split_at(columns.len());
    let mut mean = [0.0; ROWS];
    for raw in raw {
        for r in 0..ROWS {
            mean[r] += log_scale::<I, T>(bound, raw[r]).wide();
        }
    }
    mean.iter_mut().for_each(|mean| *mean /= columns.len() as f64);
    for ((&j, raw), shift) in columns.iter().zip(raw).zip(shift) {
        let x = &mut x[j];
        for r in 0..ROWS {
            let s = log_scale::<I, T>(bound, raw[r]).wide() - mean[r];
            x[r] = match direction {
                Direction::Forward => f64::madd::<I>(x[r], s.exponential::<I>(), shift[r].wide()),
                Direction::Inverse => (x[r] - shift[r].wide()) * (-s).exponential::<I>(),
            };
        }
    }
}

/// The way back. `gx` goes from the gradient of the output to that of the input, and the parameters become their
/// gradients. `input` has the transformed columns of the direction's input.
#[inline(always)]
pub fn backward<I: InstructionSet, T: Number>(
    columns: &[usize],
    bound: T,
    params: &mut [Lane<T>],
    direction: Direction,
    input: &[Lane<f64>],
    gx: &mut [Lane<f64>],
) {
    let (raw, shift) = params.split_at_mut(columns.len());
    let share = 1.0 / columns.len() as f64;
    // The raw log scales make room for their hyperbolic tangents.
    let mut mean = [0.0; ROWS];
    for raw in &mut *raw {
        for r in 0..ROWS {
            raw[r] = (raw[r] / bound).hyperbolic_tangent::<I>();
            mean[r] += share * (bound * raw[r]).wide();
        }
    }
    let mut mean_slope = [0.0; ROWS];
    let slope = |gx: f64, input: f64, shift: T| match direction {
        Direction::Forward => gx * input,
        Direction::Inverse => -gx * (input - shift.wide()),
    };
    for (((&j, raw), shift), input) in columns.iter().zip(&*raw).zip(&mut *shift).zip(input) {
        let gx = &mut gx[j];
        for r in 0..ROWS {
            let s = (bound * raw[r]).wide() - mean[r];
            let g = gx[r];
            gx[r] = g * if direction == Direction::Forward { s } else { -s }.exponential::<I>();
            mean_slope[r] += share * slope(gx[r], input[r], shift[r]);
            if direction == Direction::Forward {
                shift[r] = T::narrow(g);
            }
        }
    }
    for (((&j, raw), shift), input) in columns.iter().zip(raw).zip(shift).zip(input) {
        let gx = &gx[j];
        for r in 0..ROWS {
            let ds = slope(gx[r], input[r], shift[r]) - mean_slope[r];
            raw[r] = T::narrow(ds) * (T::ONE - raw[r] * raw[r]);
            if direction == Direction::Inverse {
                shift[r] = T::narrow(-gx[r]);
            }
        }
    }
}
