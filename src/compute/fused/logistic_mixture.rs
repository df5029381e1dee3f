//! The smooth transform of Flow++ (Ho et al. 2019) on tiles: the distribution function of a mixture of logistic
//! distributions, the logit of it, and an affine map.
//!
//! y = φ(x)·exp(a) + b with φ = ln F − ln G, F(x) = Σ πₖ·σ(uₖ), G = 1 − F, uₖ = (x − μₖ)/sₖ. It maps the line onto the
//! line, as smoothly as anything, and far out as a straight line. ln F, ln G and ln F′ are each computed as a sum of
//! exponentials less its largest, so that none of them ends where numbers do. All of it is f64.

use super::dense::{Lane, ROWS};
use super::number::{Number, ln};
use super::vectors::InstructionSet;
use crate::compute::Direction;
use crate::compute::logistic_mixture::{MAX_COMPONENTS, MixtureShape};

/// Steps of the root finder, which halves an interval where Newton's method does not do better: enough for any interval of
/// numbers.
const MAX_STEPS: usize = 200;

/// The parameters of one row and column.
struct Mixture {
    count: usize,
    log_weight: [f64; MAX_COMPONENTS],
    mean: [f64; MAX_COMPONENTS],
    log_scale: [f64; MAX_COMPONENTS],
    /// 1/s.
    steepness: [f64; MAX_COMPONENTS],
    /// a and b of the affine map.
    log_slope: f64,
    shift: f64,
}

/// φ at a point, and its derivative's logarithm.
#[derive(Clone, Copy)]
struct Value {
    phi: f64,
    log_slope: f64,
    /// ln F, ln G and ln F′.
    logs: [f64; 3],
}

#[inline(always)]
fn bounded<I: InstructionSet>(raw: f64, bound: f64) -> f64 {
    bound * (raw / bound).hyperbolic_tangent::<I>()
}

impl Mixture {
    /// Of row r, from the parameters of a column.
    #[inline(always)]
    fn new<I: InstructionSet, T: Number>(shape: &MixtureShape, params: &[Lane<T>], r: usize) -> Self {
        let n = shape.components.min(MAX_COMPONENTS);
        let zero = [0.0; MAX_COMPONENTS];
        let mut mixture = Self {
            count: n,
            log_weight: zero,
            mean: zero,
            log_scale: zero,
            steepness: zero,
            log_slope: bounded::<I>(params[3 * n][r].wide(), shape.bound),
            shift: params[3 * n + 1][r].wide(),
        };
        for k in 0..n {
            mixture.log_weight[k] = params[k][r].wide();
            mixture.mean[k] = shape.centre(k) + params[n + k][r].wide();
            mixture.log_scale[k] = bounded::<I>(params[2 * n + k][r].wide(), shape.bound);
            mixture.steepness[k] = (-mixture.log_scale[k]).exponential::<I>();
        }
        let total = log_sum::<I>(&mixture.log_weight[..n]);
        mixture.log_weight[..n].iter_mut().for_each(|w| *w -= total);
        mixture
    }

    /// For each component u, and the logarithms of its parts of F, G and F′.
    #[inline(always)]
    fn parts<I: InstructionSet>(&self, x: f64) -> [[f64; MAX_COMPONENTS]; 4] {
        let mut parts = [[0.0; MAX_COMPONENTS]; 4];
        for k in 0..self.count {
            let u = (x - self.mean[k]) * self.steepness[k];
            let far = u.abs();
            let soft = ln::<I>(1.0 + (-far).exponential::<I>());
            parts[0][k] = u;
            parts[1][k] = self.log_weight[k] + 0.5 * (u - far) - soft;
            parts[2][k] = self.log_weight[k] - 0.5 * (u + far) - soft;
            parts[3][k] = self.log_weight[k] - far - 2.0 * soft - self.log_scale[k];
        }
        parts
    }

    #[inline(always)]
    fn value<I: InstructionSet>(&self, parts: &[[f64; MAX_COMPONENTS]; 4]) -> Value {
        let log = |part: &[f64; MAX_COMPONENTS]| log_sum::<I>(&part[..self.count]);
        let logs @ [f, g, density] = [log(&parts[1]), log(&parts[2]), log(&parts[3])];
        Value { phi: f - g, log_slope: density - f - g, logs }
    }

    #[inline(always)]
    fn at<I: InstructionSet>(&self, x: f64) -> Value {
        self.value::<I>(&self.parts::<I>(x))
    }

    /// The x whose φ this is, by Newton's method within an interval that is known to have it.
    #[inline(always)]
    fn solve<I: InstructionSet>(&self, phi: f64) -> f64 {
        // Each component alone would have it here, and φ is between those of all components.
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for k in 0..self.count {
            let alone = self.mean[k] + phi / self.steepness[k];
            (low, high) = (low.min(alone), high.max(alone));
        }
        let mut x = 0.5 * (low + high);
        let mut last = high - low;
        for _ in 0..MAX_STEPS {
            let value = self.at::<I>(x);
            let (error, inverse_slope) = (value.phi - phi, (-value.log_slope).exponential::<I>());
            let step = error * inverse_slope;
            let newton = x - step;
            // As near as rounding lets φ say.
            if step.abs() <= 4.0 * f64::EPSILON * (x.abs().max(1.0) + phi.abs().max(1.0) * inverse_slope) {
                return newton;
            }
            if error > 0.0 {
                high = x;
            } else {
                low = x;
            }
            // Written so that what is not a number halves.
            let good = newton > low && newton < high && step.abs() < 0.5 * last.abs();
            let next = if good { newton } else { 0.5 * (low + high) };
            (x, last) = (next, next - x);
        }
        x
    }

    /// ∂/∂x of g_phi·φ + g_slope·ln φ′; the derivatives by logits, means and log scales go to `out`, if there is one.
    #[inline(always)]
    fn gradient<I: InstructionSet>(
        &self,
        x: f64,
        g_phi: f64,
        g_slope: f64,
        mut out: Option<&mut [[f64; MAX_COMPONENTS]; 3]>,
    ) -> f64 {
        let parts = self.parts::<I>(x);
        let [f, g, density] = self.value::<I>(&parts).logs;
        let (of_f, of_g, of_density) = (g_phi - g_slope, -g_phi - g_slope, g_slope);
        let mut gx = 0.0;
        for k in 0..self.count {
            let u = parts[0][k];
            let shares = [
                (parts[1][k] - f).exponential::<I>(),
                (parts[2][k] - g).exponential::<I>(),
                (parts[3][k] - density).exponential::<I>(),
            ];
            let tanh = (0.5 * u).hyperbolic_tangent::<I>();
            let (sigmoid, rest) = (0.5 + 0.5 * tanh, 0.5 - 0.5 * tanh);
            let gu = of_f * shares[0] * rest - of_g * shares[1] * sigmoid - of_density * shares[2] * tanh;
            let through_x = gu * self.steepness[k];
            gx += through_x;
            if let Some(out) = &mut out {
                let weight = self.log_weight[k].exponential::<I>();
                out[0][k] =
                    of_f * (shares[0] - weight) + of_g * (shares[1] - weight) + of_density * (shares[2] - weight);
                out[1][k] = -through_x;
                out[2][k] = -gu * u - of_density * shares[2];
            }
        }
        gx
    }
}

/// ln Σ exp.
#[inline(always)]
fn log_sum<I: InstructionSet>(terms: &[f64]) -> f64 {
    let largest = terms.iter().fold(f64::NEG_INFINITY, |m, &t| if t > m { t } else { m });
    largest + ln::<I>(terms.iter().map(|t| (t - largest).exponential::<I>()).sum())
}

/// One column: x is transformed in place, and its part of ladj added.
#[inline(always)]
pub fn forward<I: InstructionSet, T: Number>(
    shape: &MixtureShape,
    params: &[Lane<T>],
    direction: Direction,
    x: &mut Lane<f64>,
    ladj: &mut Lane<f64>,
) {
    for r in 0..ROWS {
        let mixture = Mixture::new::<I, T>(shape, params, r);
        match direction {
            Direction::Forward => {
                let value = mixture.at::<I>(x[r]);
                x[r] = value.phi * mixture.log_slope.exponential::<I>() + mixture.shift;
                ladj[r] += value.log_slope + mixture.log_slope;
            }
            Direction::Inverse => {
                let phi = (x[r] - mixture.shift) * (-mixture.log_slope).exponential::<I>();
                x[r] = mixture.solve::<I>(phi);
                ladj[r] -= mixture.at::<I>(x[r]).log_slope + mixture.log_slope;
            }
        }
    }
}

/// The gradients of one column. `gx` goes from that of the output to that of the input, and the parameters become theirs;
/// those of the inverse follow from the equation that it solves. `input` is that of the direction.
#[inline(always)]
pub fn backward<I: InstructionSet, T: Number>(
    shape: &MixtureShape,
    params: &mut [Lane<T>],
    direction: Direction,
    input: &Lane<f64>,
    gx: &mut Lane<f64>,
    g_ladj: &Lane<f64>,
) {
    for r in 0..ROWS {
        let mixture = Mixture::new::<I, T>(shape, params, r);
        let mut of_params = [[0.0; MAX_COMPONENTS]; 3];
        let (g, g_ladj) = (gx[r], g_ladj[r]);
        let (g_log_slope, g_shift);
        match direction {
            Direction::Forward => {
                let slope = mixture.log_slope.exponential::<I>();
                let phi = mixture.at::<I>(input[r]).phi;
                gx[r] = mixture.gradient::<I>(input[r], g * slope, g_ladj, Some(&mut of_params));
                (g_log_slope, g_shift) = (g * slope * phi + g_ladj, g);
            }
            Direction::Inverse => {
                let slope = (-mixture.log_slope).exponential::<I>();
                let phi = (input[r] - mixture.shift) * slope;
                let x = mixture.solve::<I>(phi);
                let whole = g + mixture.gradient::<I>(x, 0.0, -g_ladj, None);
                let g_phi = whole * (-mixture.at::<I>(x).log_slope).exponential::<I>();
                mixture.gradient::<I>(x, -g_phi, -g_ladj, Some(&mut of_params));
                gx[r] = g_phi * slope;
                (g_log_slope, g_shift) = (-g_phi * phi - g_ladj, -g_phi * slope);
            }
        }
        let n = mixture.count;
        let through_bound = |g: f64, value: f64| g * (1.0 - (value / shape.bound).powi(2));
        for k in 0..n {
            params[k][r] = T::narrow(of_params[0][k]);
            params[n + k][r] = T::narrow(of_params[1][k]);
            params[2 * n + k][r] = T::narrow(through_bound(of_params[2][k], mixture.log_scale[k]));
        }
        params[3 * n][r] = T::narrow(through_bound(g_log_slope, mixture.log_slope));
        params[3 * n + 1][r] = T::narrow(g_shift);
    }
}
