//! Rational-quadratic splines on tiles: where a value lies, and what the spline makes of it.
//!
//! Durkan, Bekasov, Murray and Papamakarios, "Neural spline flows" (2019), equations 4 to 8; on the circle, Rezende et
//! al., "Normalizing flows on tori and spheres" (2020). With ξ = (x − x_k)/w, s = h/w and D = s + (d₀ + d₁ − 2s)ξ(1−ξ),
//!
//! > g(x) = y_k + h (sξ² + d₀ξ(1−ξ))/D,  g'(x) = s² (d₁ξ² + 2sξ(1−ξ) + d₀(1−ξ)²)/D².
//!
//! Exponentials of the sizes' logits are in the conditioner's precision, as a part of it; knots, and all that is made of
//! them, are f64.

use super::dense::{Lane, ROWS};
use super::number::{Number, ln};
use super::vectors::InstructionSet;
use crate::compute::Direction;
use crate::compute::spline::{MAX_BINS, MIN_BIN, MIN_SLOPE, SplineKind};
use std::f64::consts::PI;
use std::hint::select_unpredictable;

/// A spline's shape.
#[derive(Clone, Copy)]
pub struct Shape {
    pub kind: SplineKind,
    pub bins: usize,
    /// Half the length of the domain.
    pub half: f64,
}

impl Shape {
    /// The smallest size of a bin.
    fn least(&self) -> f64 {
        2.0 * self.half * MIN_BIN
    }

    /// What is shared out among the bins beyond that.
    pub(super) fn free(&self) -> f64 {
        2.0 * self.half * (1.0 - self.bins as f64 * MIN_BIN)
    }

    /// The parameter of a knot's slope; at the ends of a line the slope is one, which is that of a parameter of zero.
    pub(super) fn slope_parameter(&self, knot: usize) -> Option<usize> {
        match self.kind {
            SplineKind::Linear if knot == 0 || knot == self.bins => None,
            SplineKind::Linear => Some(2 * self.bins + knot - 1),
            SplineKind::Circular => Some(2 * self.bins + knot % self.bins),
        }
    }
}

/// The values of one column, and the bins that they lie in.
pub struct Located<T> {
    /// The value itself, within the domain; zero where it is outside.
    pub value: Lane<f64>,
    /// One inside of the domain, zero outside.
    pub inside: Lane<f64>,
    pub index: Lane<f64>,
    pub x0: Lane<f64>,
    pub y0: Lane<f64>,
    pub w: Lane<f64>,
    pub h: Lane<f64>,
    /// Parameters of the slopes at the bin's two knots.
    pub p0: Lane<T>,
    pub p1: Lane<T>,
    /// exp(logit − largest) of each width and height, and what makes shares of the domain of them.
    pub widths: [Lane<T>; MAX_BINS],
    pub heights: [Lane<T>; MAX_BINS],
    pub width_scale: Lane<f64>,
    pub height_scale: Lane<f64>,
}

impl<T: Number> Default for Located<T> {
    fn default() -> Self {
        Self {
            value: [0.0; ROWS],
            inside: [0.0; ROWS],
            index: [0.0; ROWS],
            x0: [0.0; ROWS],
            y0: [0.0; ROWS],
            w: [0.0; ROWS],
            h: [0.0; ROWS],
            p0: [T::ZERO; ROWS],
            p1: [T::ZERO; ROWS],
            widths: [[T::ZERO; ROWS]; MAX_BINS],
            heights: [[T::ZERO; ROWS]; MAX_BINS],
            width_scale: [0.0; ROWS],
            height_scale: [0.0; ROWS],
        }
    }
}

/// The angle in [−π, π).
#[inline(always)]
pub(super) fn wrap(angle: f64) -> f64 {
    let turned = angle - (2.0 * PI) * (angle * (1.0 / (2.0 * PI)) + 0.5).floor();
    // Rounding may have made it π.
    if turned >= PI { turned - 2.0 * PI } else { turned }
}

/// exp(logit − largest) of each size, and what makes shares of `free` of them.
#[inline(always)]
fn exponentials<I: InstructionSet, T: Number>(
    free: f64,
    logits: &[Lane<T>],
    out: &mut [Lane<T>],
    scale: &mut Lane<f64>,
) {
    let mut largest = logits[0];
    for lane in &logits[1..] {
        for r in 0..ROWS {
            largest[r] = if lane[r] > largest[r] { lane[r] } else { largest[r] };
        }
    }
    let mut sum = [0.0; ROWS];
    for (logits, out) in logits.iter().zip(out) {
        for r in 0..ROWS {
            out[r] = (logits[r] - largest[r]).exponential::<I>();
        }
        for r in 0..ROWS {
            sum[r] += out[r].wide();
        }
    }
    for r in 0..ROWS {
        scale[r] = free / sum[r];
    }
}

/// Rows whose bins are searched together: as many as leave the search's state in registers.
const BLOCK: usize = 8;

#[inline(always)]
fn block<X: Copy>(lane: &Lane<X>, first: usize) -> [X; BLOCK] {
    std::array::from_fn(|r| lane[first + r])
}

impl<T: Number> Located<T> {
    /// Finds the bins of a column's inputs.
    #[inline(always)]
    pub fn find<I: InstructionSet>(
        &mut self,
        shape: Shape,
        params: &[Lane<T>],
        direction: Direction,
        input: &Lane<f64>,
    ) {
        let Shape { kind, bins, half } = shape;
        match kind {
            SplineKind::Linear => {
                for r in 0..ROWS {
                    let inside = input[r] >= -half && input[r] < half;
                    self.inside[r] = if inside { 1.0 } else { 0.0 };
                    self.value[r] = if inside { input[r] } else { 0.0 };
                }
            }
            SplineKind::Circular => {
                self.inside = [1.0; ROWS];
                match direction {
                    Direction::Forward => {
                        for r in 0..ROWS {
                            self.value[r] = wrap(input[r]);
                        }
                    }
                    Direction::Inverse => {
                        let rotation = &params[3 * bins];
                        for r in 0..ROWS {
                            self.value[r] = wrap(input[r] - rotation[r].wide());
                        }
                    }
                }
            }
        }
        let free = shape.free();
        exponentials::<I, T>(free, &params[..bins], &mut self.widths[..bins], &mut self.width_scale);
        exponentials::<I, T>(free, &params[bins..2 * bins], &mut self.heights[..bins], &mut self.height_scale);
        self.search::<I>(shape, params, direction);
    }

    /// Goes through the bins; the last whose lower knot is not above the value is the value's.
    ///
    /// Selections are said to be unpredictable, or they become branches. What is selected is no wider than it must be:
    /// the exponentials of sizes, and not the sizes that are made of them.
    #[inline(always)]
    fn search<I: InstructionSet>(&mut self, shape: Shape, params: &[Lane<T>], direction: Direction) {
        let Shape { bins, half, .. } = shape;
        let zero = [T::ZERO; ROWS];
        let slope = |knot: usize| shape.slope_parameter(knot).map_or(&zero, |i| &params[i]);
        let least = shape.least();
        for first in (0..ROWS).step_by(BLOCK) {
            let mut index = [0.0; BLOCK];
            let (mut x0, mut y0) = ([-half; BLOCK], [-half; BLOCK]);
            let (mut p0, mut p1) = (block(slope(0), first), block(slope(1), first));
            let (mut width, mut height) = (block(&self.widths[0], first), block(&self.heights[0], first));
            let (mut x_sum, mut y_sum) = ([0.0; BLOCK], [0.0; BLOCK]);
            let value = block(&self.value, first);
            let (width_scale, height_scale) = (block(&self.width_scale, first), block(&self.height_scale, first));
            for k in 1..bins {
                let number = k as f64;
                let offset = number * least - half;
                let (left, below) = (block(&self.widths[k - 1], first), block(&self.heights[k - 1], first));
                let (own_width, own_height) = (block(&self.widths[k], first), block(&self.heights[k], first));
                let (before, after) = (block(slope(k), first), block(slope(k + 1), first));
                for r in 0..BLOCK {
                    x_sum[r] += left[r].wide();
                    y_sum[r] += below[r].wide();
                    let x = f64::madd::<I>(x_sum[r], width_scale[r], offset);
                    let y = f64::madd::<I>(y_sum[r], height_scale[r], offset);
                    let reached = value[r] >= if direction == Direction::Forward { x } else { y };
                    index[r] = select_unpredictable(reached, number, index[r]);
                    x0[r] = select_unpredictable(reached, x, x0[r]);
                    y0[r] = select_unpredictable(reached, y, y0[r]);
                    width[r] = select_unpredictable(reached, own_width[r], width[r]);
                    height[r] = select_unpredictable(reached, own_height[r], height[r]);
                    p0[r] = select_unpredictable(reached, before[r], p0[r]);
                    p1[r] = select_unpredictable(reached, after[r], p1[r]);
                }
            }
            for r in 0..BLOCK {
                self.index[first + r] = index[r];
                self.x0[first + r] = x0[r];
                self.y0[first + r] = y0[r];
                self.p0[first + r] = p0[r];
                self.p1[first + r] = p1[r];
                self.w[first + r] = f64::madd::<I>(width[r].wide(), width_scale[r], least);
                self.h[first + r] = f64::madd::<I>(height[r].wide(), height_scale[r], least);
            }
        }
    }

    /// (g(x), log g'(x)) of row r.
    #[inline(always)]
    fn evaluate<I: InstructionSet>(&self, r: usize) -> (f64, f64) {
        let (h, d0, d1) = (self.h[r], slope(self.p0[r].wide()), slope(self.p1[r].wide()));
        let per_width = 1.0 / self.w[r];
        let u = unit((self.value[r] - self.x0[r]) * per_width);
        let s = h * per_width;
        let uv = u * (1.0 - u);
        let per_den = 1.0 / f64::madd::<I>(d0 + d1 - 2.0 * s, uv, s);
        let num = f64::madd::<I>(s * u, u, d0 * uv);
        (f64::madd::<I>(h * num, per_den, self.y0[r]), log_slope::<I>(u, uv, s, d0, d1, per_den))
    }

    /// (x, log g'(x)) where g(x) is the value of row r.
    ///
    /// The discriminant is never negative for slopes and heights that are positive; rounding can make it −10⁻¹⁷.
    #[inline(always)]
    pub(super) fn invert<I: InstructionSet>(&self, r: usize) -> (f64, f64) {
        let (w, h, d0, d1) = (self.w[r], self.h[r], slope(self.p0[r].wide()), slope(self.p1[r].wide()));
        let s = h / w;
        let rise = self.value[r] - self.y0[r];
        let rise = if rise < 0.0 { 0.0 } else { rise };
        let rise = if rise > h { h } else { rise };
        let curvature = d0 + d1 - 2.0 * s;
        let a = f64::madd::<I>(h, s - d0, rise * curvature);
        let b = f64::madd::<I>(h, d0, -(rise * curvature));
        let c = -s * rise;
        let square = f64::madd::<I>(b, b, -4.0 * a * c);
        let root = if square < 0.0 { 0.0 } else { square }.sqrt();
        // b is positive where rise is zero: no division of zero by zero.
        let u = unit(2.0 * c / (-b - root));
        let uv = u * (1.0 - u);
        let per_den = 1.0 / f64::madd::<I>(curvature, uv, s);
        (f64::madd::<I>(u, w, self.x0[r]), log_slope::<I>(u, uv, s, d0, d1, per_den))
    }
}

#[inline(always)]
pub(super) fn unit(u: f64) -> f64 {
    let u = if u < 0.0 { 0.0 } else { u };
    if u > 1.0 { 1.0 } else { u }
}

#[inline(always)]
fn log_slope<I: InstructionSet>(u: f64, uv: f64, s: f64, d0: f64, d1: f64, per_den: f64) -> f64 {
    let v = 1.0 - u;
    let ratio = s * per_den;
    ln::<I>(ratio * ratio * f64::madd::<I>(d1 * u, u, f64::madd::<I>(2.0 * s, uv, d0 * v * v)))
}

/// A knot's slope from its parameter p: positive, one at p = 0, and like p for large p (the "squareplus" of Barron 2021,
/// which needs no transcendental function).
#[inline(always)]
pub(super) fn slope(p: f64) -> f64 {
    MIN_SLOPE + (1.0 - MIN_SLOPE) * 0.5 * (p + (p * p + 4.0).sqrt())
}

/// One column: x is transformed in place, and its part of ladj added.
#[inline(always)]
pub fn forward<I: InstructionSet, T: Number>(
    shape: Shape,
    params: &[Lane<T>],
    direction: Direction,
    x: &mut Lane<f64>,
    ladj: &mut Lane<f64>,
    at: &mut Located<T>,
) {
    at.find::<I>(shape, params, direction, x);
    let circular = shape.kind == SplineKind::Circular;
    match direction {
        Direction::Forward => {
            let mut y = [0.0; ROWS];
            for r in 0..ROWS {
                let (value, log_slope) = at.evaluate::<I>(r);
                y[r] = value;
                ladj[r] += if at.inside[r] > 0.0 { log_slope } else { 0.0 };
            }
            if circular {
                let rotation = &params[3 * shape.bins];
                for r in 0..ROWS {
                    x[r] = wrap(y[r] + rotation[r].wide());
                }
            } else {
                for r in 0..ROWS {
                    x[r] = if at.inside[r] > 0.0 { y[r] } else { x[r] };
                }
            }
        }
        Direction::Inverse => {
            for r in 0..ROWS {
                let (value, log_slope) = at.invert::<I>(r);
                ladj[r] -= if at.inside[r] > 0.0 { log_slope } else { 0.0 };
                x[r] = if at.inside[r] > 0.0 { value } else { x[r] };
            }
            if circular {
                for r in 0..ROWS {
                    x[r] = wrap(x[r]);
                }
            }
        }
    }
}
