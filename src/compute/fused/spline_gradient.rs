//! Gradients of rational-quadratic splines on tiles, in both directions.

use super::dense::{Lane, ROWS};
use super::number::Number;
use super::spline::{Located, Shape, slope, unit};
use super::vectors::InstructionSet;
use crate::compute::Direction;
use crate::compute::spline::SplineKind;

/// Gradients of a·g(x) + b·log g'(x) with respect to x and to the bin's shape.
struct BinGradient {
    x: f64,
    x0: f64,
    w: f64,
    h: f64,
    d0: f64,
    d1: f64,
}

/// With ξ = u, v = 1 − u, s = h/w, D and g as `spline.rs` has them, and P the bracket of g'.
#[inline(always)]
fn bin_gradient<I: InstructionSet>(u: f64, w: f64, h: f64, d0: f64, d1: f64, a: f64, b: f64) -> BinGradient {
    let (v, s) = (1.0 - u, h / w);
    let uv = u * v;
    let curvature = d0 + d1 - 2.0 * s;
    let den = f64::madd::<I>(curvature, uv, s);
    let num = f64::madd::<I>(s * u, u, d0 * uv);
    let p = f64::madd::<I>(d1 * u, u, f64::madd::<I>(2.0 * s, uv, d0 * v * v));
    let (inv_den, inv_p, inv_w) = (1.0 / den, 1.0 / p, 1.0 / w);
    let inv2 = inv_den * inv_den;
    let tilt = 1.0 - 2.0 * u;
    let ah = a * h;
    let g_u = ah * s * p * inv2 + b * (2.0 * (d1 * u + s * tilt - d0 * v) * inv_p - 2.0 * curvature * tilt * inv_den);
    let g_s = ah * (u * u * den - num * (1.0 - 2.0 * uv)) * inv2
        + b * (2.0 / s + 2.0 * uv * inv_p - 2.0 * (1.0 - 2.0 * uv) * inv_den);
    let g_d0 = ah * uv * (den - num) * inv2 + b * (v * v * inv_p - 2.0 * uv * inv_den);
    let g_d1 = -ah * num * uv * inv2 + b * (u * u * inv_p - 2.0 * uv * inv_den);
    BinGradient {
        x: g_u * inv_w,
        x0: -g_u * inv_w,
        w: -(g_u * u + g_s * s) * inv_w,
        h: a * num * inv_den + g_s * inv_w,
        d0: g_d0,
        d1: g_d1,
    }
}

#[inline(always)]
fn slope_derivative(p: f64) -> f64 {
    (1.0 - crate::compute::spline::MIN_SLOPE) * 0.5 * (1.0 + p / (p * p + 4.0).sqrt())
}

/// The gradients of one column. `gx` goes from that of the output to that of the input; `params` become those of the
/// parameters.
#[inline(always)]
pub fn backward<I: InstructionSet, T: Number>(
    shape: Shape,
    params: &mut [Lane<T>],
    direction: Direction,
    input: &Lane<f64>,
    gx: &mut Lane<f64>,
    g_ladj: &Lane<f64>,
    at: &mut Located<T>,
) {
    at.find::<I>(shape, params, direction, input);
    let zero = [0.0; ROWS];
    let (mut x0, mut w, mut y0, mut h) = (zero, zero, zero, zero);
    let (mut p0, mut p1) = (zero, zero);
    let mut rotation = zero;
    for r in 0..ROWS {
        let (q0, q1) = (at.p0[r].wide(), at.p1[r].wide());
        let (d0, d1) = (slope(q0), slope(q1));
        let inside = at.inside[r];
        let (out, ladj) = (gx[r] * inside, g_ladj[r] * inside);
        let (g, gy, to_input) = match direction {
            Direction::Forward => {
                let u = unit((at.value[r] - at.x0[r]) / at.w[r]);
                let g = bin_gradient::<I>(u, at.w[r], at.h[r], d0, d1, out, ladj);
                let x = g.x;
                (g, out, x)
            }
            // With x = g⁻¹(y) and ladj = −log g'(x): dx = (dy − ∂g/∂θ dθ)/g'.
            Direction::Inverse => {
                let (x, log_slope) = at.invert::<I>(r);
                let u = unit((x - at.x0[r]) / at.w[r]);
                let slope_change = bin_gradient::<I>(u, at.w[r], at.h[r], d0, d1, 0.0, 1.0).x;
                let gy = (out - ladj * slope_change) * (-log_slope).exponential::<I>();
                (bin_gradient::<I>(u, at.w[r], at.h[r], d0, d1, -gy, -ladj), -gy, gy)
            }
        };
        rotation[r] = gy;
        (x0[r], w[r], y0[r], h[r]) = (g.x0, g.w, gy, g.h);
        p0[r] = g.d0 * slope_derivative(q0);
        p1[r] = g.d1 * slope_derivative(q1);
        gx[r] = if inside > 0.0 { to_input } else { gx[r] };
    }
    let bins = shape.bins;
    softmax_gradient::<I, T>(
        shape.free(),
        &at.widths[..bins],
        &at.width_scale,
        &at.index,
        &x0,
        &w,
        &mut params[..bins],
    );
    let heights = &mut params[bins..2 * bins];
    softmax_gradient::<I, T>(shape.free(), &at.heights[..bins], &at.height_scale, &at.index, &y0, &h, heights);
    let first = 2 * bins;
    for knot in params[first..].iter_mut() {
        *knot = [T::ZERO; ROWS];
    }
    for knot in 0..=bins {
        let Some(i) = shape.slope_parameter(knot) else { continue };
        let (before, after) = (knot as f64 - 1.0, knot as f64);
        let out = &mut params[i];
        for r in 0..ROWS {
            let from_right = if at.index[r] == after { p0[r] } else { 0.0 };
            let from_left = if at.index[r] == before { p1[r] } else { 0.0 };
            out[r] += T::narrow(from_right + from_left);
        }
    }
    if shape.kind == SplineKind::Circular {
        for r in 0..ROWS {
            params[3 * bins][r] = T::narrow(rotation[r]);
        }
    }
}

/// The gradient through the softmax of sizes, where sizes before the bin have gradient `before` and the bin's own `at`.
#[inline(always)]
fn softmax_gradient<I: InstructionSet, T: Number>(
    free: f64,
    exponentials: &[Lane<T>],
    scale: &Lane<f64>,
    index: &Lane<f64>,
    before: &Lane<f64>,
    at: &Lane<f64>,
    out: &mut [Lane<T>],
) {
    let own = |k: usize, r: usize| {
        let k = k as f64;
        let reached = if k == index[r] { at[r] } else { 0.0 };
        if k < index[r] { before[r] } else { reached }
    };
    let mut mean = [0.0; ROWS];
    for (k, e) in exponentials.iter().enumerate() {
        for r in 0..ROWS {
            mean[r] = f64::madd::<I>(e[r].wide() * scale[r], own(k, r), mean[r]);
        }
    }
    // The sizes' shares add up to `free`.
    let per_free = 1.0 / free;
    for (k, (e, out)) in exponentials.iter().zip(out).enumerate() {
        for r in 0..ROWS {
            out[r] = T::narrow(e[r].wide() * scale[r] * f64::madd::<I>(mean[r], -per_free, own(k, r)));
        }
    }
}
