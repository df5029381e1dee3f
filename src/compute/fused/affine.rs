//! The affine transform of RealNVP (Dinh, Sohl-Dickstein and Bengio 2017) on tiles, with its ladj and its gradients.
//!
//! y = x·exp(s) + t with s = b·tanh(raw/b). The log scale is computed in the conditioner's precision, as a part of it;
//! the transform of it, and ladj = Σ s, are f64.

use super::dense::{Lane, ROWS};
use super::number::Number;
use super::vectors::InstructionSet;
use crate::compute::Direction;

/// One column: x is transformed in place, and its part of ladj added.
#[inline(always)]
pub fn forward<I: InstructionSet, T: Number>(
    bound: T,
    raw: &Lane<T>,
    shift: &Lane<T>,
    direction: Direction,
    x: &mut Lane<f64>,
    ladj: &mut Lane<f64>,
) {
    match direction {
        Direction::Forward => {
            for r in 0..ROWS {
                let s = log_scale::<I, T>(bound, raw[r]).wide();
                x[r] = f64::madd::<I>(x[r], s.exponential::<I>(), shift[r].wide());
                ladj[r] += s;
            }
        }
        Direction::Inverse => {
            for r in 0..ROWS {
                let s = log_scale::<I, T>(bound, raw[r]).wide();
                x[r] = (x[r] - shift[r].wide()) * (-s).exponential::<I>();
                ladj[r] -= s;
            }
        }
    }
}

/// The bounded log scale.
#[inline(always)]
pub fn log_scale<I: InstructionSet, T: Number>(bound: T, raw: T) -> T {
    bound * (raw / bound).hyperbolic_tangent::<I>()
}

/// The gradients of one column. `gx` goes from that of the output to that of the input; `raw` and `shift` become those
/// of the parameters. `input` is that of the direction.
#[inline(always)]
pub fn backward<I: InstructionSet, T: Number>(
    bound: T,
    raw: &mut Lane<T>,
    shift: &mut Lane<T>,
    direction: Direction,
    input: &Lane<f64>,
    gx: &mut Lane<f64>,
    g_ladj: &Lane<f64>,
) {
    for r in 0..ROWS {
        let squash = (raw[r] / bound).hyperbolic_tangent::<I>();
        let s = (bound * squash).wide();
        let (dx, ds, dt) = match direction {
            Direction::Forward => {
                let dx = gx[r] * s.exponential::<I>();
                (dx, f64::madd::<I>(dx, input[r], g_ladj[r]), gx[r])
            }
            Direction::Inverse => {
                let dx = gx[r] * (-s).exponential::<I>();
                (dx, -dx * (input[r] - shift[r].wide()) - g_ladj[r], -dx)
            }
        };
        gx[r] = dx;
        raw[r] = T::narrow(ds) * (T::ONE - squash * squash);
        shift[r] = T::narrow(dt);
    }
}
