//! One coordinate's rational-quadratic spline: evaluation, inversion and derivatives.
//!
//! Durkan, Bekasov, Murray and Papamakarios, "Neural spline flows" (2019), equations 4 to 8; on the circle, Rezende et
//! al., "Normalizing flows on tori and spheres" (2020). With ξ = (x − x_k)/w, s = h/w and D = s + (d₀ + d₁ − 2s)ξ(1−ξ),
//!
//! > g(x) = y_k + h (sξ² + d₀ξ(1−ξ))/D,  g'(x) = s² (d₁ξ² + 2sξ(1−ξ) + d₀(1−ξ)²)/D².

use super::rows::Real;

/// The most bins that a spline may have.
pub const MAX_BINS: usize = 32;

/// Smallest width and height of a bin, as a fraction of the domain.
pub(super) const MIN_BIN: f64 = 1e-3;

/// Smallest slope at a knot.
pub(super) const MIN_SLOPE: f64 = 1e-3;

/// How a coordinate's domain ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplineKind {
    /// The real line: a spline on [−B, B], the identity outside, with continuous slope.
    Linear,
    /// The circle [−π, π), with a slope that is continuous across its seam, followed by a rotation.
    Circular,
}

impl SplineKind {
    /// Parameters of a spline with `bins` bins: widths, heights, slopes, and for a circle a rotation.
    pub fn parameters(self, bins: usize) -> usize {
        match self {
            Self::Linear => 3 * bins - 1,
            Self::Circular => 3 * bins + 1,
        }
    }
}

/// The bin that a point lies in.
#[derive(Clone, Copy)]
pub struct Bin {
    index: usize,
    x0: f64,
    y0: f64,
    w: f64,
    h: f64,
    d0: f64,
    d1: f64,
}

/// A spline's knots, read from the conditioner's output; K is room for the number of bins.
pub struct Knots<'a, T, const K: usize> {
    params: &'a [T],
    kind: SplineKind,
    bins: usize,
    /// Half the length of the domain.
    half: f64,
    /// Softmax of the width and height parameters.
    p_width: [f64; K],
    p_height: [f64; K],
}

/// Gradient of a loss with respect to the raw parameters of the bin's shape.
struct BinGradient {
    x0: f64,
    y0: f64,
    w: f64,
    h: f64,
    d0: f64,
    d1: f64,
}

impl<'a, T: Real, const K: usize> Knots<'a, T, K> {
    #[inline(always)]
    pub fn new(params: &'a [T], kind: SplineKind, bins: usize, half: f64) -> Self {
        Self { params, kind, bins, half, p_width: softmax(&params[..bins]), p_height: softmax(&params[bins..2 * bins]) }
    }

    /// The rotation of a circular spline.
    #[inline(always)]
    pub fn rotation(&self) -> f64 {
        match self.kind {
            SplineKind::Linear => 0.0,
            SplineKind::Circular => self.params[3 * self.bins].to_f64(),
        }
    }

    #[inline(always)]
    fn slope_parameter(&self, knot: usize) -> Option<usize> {
        match self.kind {
            SplineKind::Linear if knot == 0 || knot == self.bins => None,
            SplineKind::Linear => Some(2 * self.bins + knot - 1),
            SplineKind::Circular => Some(2 * self.bins + knot % self.bins),
        }
    }

    #[inline(always)]
    fn slope(&self, knot: usize) -> f64 {
        match self.slope_parameter(knot) {
            None => 1.0,
            Some(i) => slope(self.params[i].to_f64()),
        }
    }

    /// The bin that contains `value` on the x axis (`on_x`) or on the y axis.
    #[inline(always)]
    pub fn locate(&self, value: f64, on_x: bool) -> Bin {
        let scale = 2.0 * self.half;
        let free = 1.0 - self.bins as f64 * MIN_BIN;
        let width = |i: usize| scale * (MIN_BIN + free * self.p_width[i]);
        let height = |i: usize| scale * (MIN_BIN + free * self.p_height[i]);
        let (mut x0, mut y0, mut index) = (-self.half, -self.half, 0);
        loop {
            let (w, h) = (width(index), height(index));
            let inside = if on_x { value < x0 + w } else { value < y0 + h };
            if inside || index + 1 == self.bins {
                return Bin { index, x0, y0, w, h, d0: self.slope(index), d1: self.slope(index + 1) };
            }
            x0 += w;
            y0 += h;
            index += 1;
        }
    }

    /// Adds to `grad` (laid out as the parameters) the gradient of a·g(x) + b·log g'(x), and returns its derivative
    /// with respect to x.
    #[inline(always)]
    pub fn accumulate(&self, bin: &Bin, x: f64, a: f64, b: f64, grad: &mut [T]) -> f64 {
        let (gx, g) = bin.gradient(x, a, b);
        let free = 2.0 * self.half * (1.0 - self.bins as f64 * MIN_BIN);
        softmax_backward(&self.p_width[..self.bins], bin.index, g.x0 * free, g.w * free, &mut grad[..self.bins]);
        let heights = &mut grad[self.bins..2 * self.bins];
        softmax_backward(&self.p_height[..self.bins], bin.index, g.y0 * free, g.h * free, heights);
        for (knot, gradient) in [(bin.index, g.d0), (bin.index + 1, g.d1)] {
            if let Some(i) = self.slope_parameter(knot) {
                grad[i] += T::from_f64(gradient * slope_derivative(self.params[i].to_f64()));
            }
        }
        gx
    }
}

impl Bin {
    /// (g(x), log g'(x)).
    #[inline(always)]
    pub fn evaluate(&self, x: f64) -> (f64, f64) {
        let u = ((x - self.x0) / self.w).clamp(0.0, 1.0);
        let s = self.h / self.w;
        let uv = u * (1.0 - u);
        let denominator = s + (self.d0 + self.d1 - 2.0 * s) * uv;
        let y = self.y0 + self.h * (s * u * u + self.d0 * uv) / denominator;
        (y, self.log_slope(u, uv, s, denominator))
    }

    /// (x, log g'(x)) where g(x) = y.
    ///
    /// The discriminant is never negative for slopes and heights that are positive; rounding can make it −10⁻¹⁷.
    #[inline(always)]
    pub fn invert(&self, y: f64) -> (f64, f64) {
        let s = self.h / self.w;
        // Not `clamp`, which panics where weights have diverged and the height is NaN.
        let rise = (y - self.y0).max(0.0).min(self.h);
        let curvature = self.d0 + self.d1 - 2.0 * s;
        let a = self.h * (s - self.d0) + rise * curvature;
        let b = self.h * self.d0 - rise * curvature;
        let c = -s * rise;
        let root = (b * b - 4.0 * a * c).max(0.0).sqrt();
        let u = if rise == 0.0 { 0.0 } else { (2.0 * c / (-b - root)).clamp(0.0, 1.0) };
        let uv = u * (1.0 - u);
        (self.x0 + u * self.w, self.log_slope(u, uv, s, s + curvature * uv))
    }

    #[inline(always)]
    fn log_slope(&self, u: f64, uv: f64, s: f64, denominator: f64) -> f64 {
        let v = 1.0 - u;
        let ratio = s / denominator;
        (ratio * ratio * (self.d1 * u * u + 2.0 * s * uv + self.d0 * v * v)).ln()
    }

    /// d log g'(x)/dx.
    #[inline(always)]
    pub fn log_slope_derivative(&self, x: f64) -> f64 {
        self.gradient(x, 0.0, 1.0).0
    }

    #[inline(always)]
    fn gradient(&self, x: f64, a: f64, b: f64) -> (f64, BinGradient) {
        let Self { w, h, d0, d1, .. } = *self;
        let u = ((x - self.x0) / w).clamp(0.0, 1.0);
        let (v, s) = (1.0 - u, h / w);
        let uv = u * v;
        let curvature = d0 + d1 - 2.0 * s;
        let den = s + curvature * uv;
        let num = s * u * u + d0 * uv;
        let p = d1 * u * u + 2.0 * s * uv + d0 * v * v;
        let inv2 = 1.0 / (den * den);
        let g_u = a * h * s * p * inv2
            + b * ((2.0 * d1 * u + 2.0 * s * (1.0 - 2.0 * u) - 2.0 * d0 * v) / p
                - 2.0 * curvature * (1.0 - 2.0 * u) / den);
        let g_s = a * h * (u * u * den - num * (1.0 - 2.0 * uv)) * inv2
            + b * (2.0 / s + 2.0 * uv / p - 2.0 * (1.0 - 2.0 * uv) / den);
        let g_d0 = a * h * uv * (den - num) * inv2 + b * (v * v / p - 2.0 * uv / den);
        let g_d1 = -a * h * num * uv * inv2 + b * (u * u / p - 2.0 * uv / den);
        let g_h = a * num / den;
        let gradient =
            BinGradient { x0: -g_u / w, y0: a, w: -(g_u * u + g_s * s) / w, h: g_h + g_s / w, d0: g_d0, d1: g_d1 };
        (g_u / w, gradient)
    }
}

#[inline(always)]
fn softmax<T: Real, const K: usize>(logits: &[T]) -> [f64; K] {
    let mut max = logits[0];
    for &l in logits {
        max = if l > max { l } else { max };
    }
    let mut exponentials = [T::zero(); K];
    for (e, &l) in exponentials.iter_mut().zip(logits) {
        *e = (l - max).exponential();
    }
    let mut out = [0.0; K];
    let mut sum = 0.0;
    for (o, e) in out.iter_mut().zip(&exponentials[..logits.len()]) {
        *o = e.to_f64();
        sum += *o;
    }
    let scale = 1.0 / sum;
    out[..logits.len()].iter_mut().for_each(|o| *o *= scale);
    out
}

/// Adds the gradient through softmax, where sizes before `index` have gradient `before` and the one at it `at`.
#[inline(always)]
fn softmax_backward<T: Real>(p: &[f64], index: usize, before: f64, at: f64, grad: &mut [T]) {
    let mean = p[..index].iter().sum::<f64>() * before + p[index] * at;
    for (i, (g, &p)) in grad.iter_mut().zip(p).enumerate() {
        let own = match i.cmp(&index) {
            std::cmp::Ordering::Less => before,
            std::cmp::Ordering::Equal => at,
            std::cmp::Ordering::Greater => 0.0,
        };
        *g += T::from_f64(p * (own - mean));
    }
}

/// A knot's slope from its parameter p: positive, one at p = 0, and like p for large p (the "squareplus" of Barron 2021,
/// which needs no transcendental function).
#[inline(always)]
fn slope(p: f64) -> f64 {
    MIN_SLOPE + (1.0 - MIN_SLOPE) * 0.5 * (p + (p * p + 4.0).sqrt())
}

#[inline(always)]
fn slope_derivative(p: f64) -> f64 {
    (1.0 - MIN_SLOPE) * 0.5 * (1.0 + p / (p * p + 4.0).sqrt())
}
