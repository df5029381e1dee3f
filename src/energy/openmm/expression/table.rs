//! Functions of up to three arguments that are given by their values on a grid.
//!
//! Between the points of the grid a smooth one is the tensor product of cubic splines, natural or periodic along each
//! axis: in a cell it is the polynomial that has the values and the first mixed derivatives of the splines at the
//! corners. OpenMM's continuous functions and its torsion maps are these.

use super::super::lanes::{Lanes, WIDTH};

/// The points of a grid along one argument.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in super::super) struct Axis {
    pub minimum: f64,
    pub maximum: f64,
    /// Including both ends, also where they are the same point of a circle.
    pub points: usize,
    pub periodic: bool,
}

/// A function by its values on a grid.
#[derive(Debug)]
pub(in super::super) struct Table {
    axes: Vec<Axis>,
    /// Of a discrete function one value for each point, the first argument running fastest; of a smooth one, 2ᵃ numbers
    /// for a axes: bit k of the place says whether it is differentiated along axis k.
    nodes: Vec<f64>,
    smooth: bool,
}

/// The most axes of a table.
const MOST_AXES: usize = 3;

impl Table {
    /// A function of whole numbers from 0; anything in between is rounded, what is outside has no value (NaN).
    pub fn discrete(points: &[usize], values: Vec<f64>) -> Result<Self, String> {
        let axis = |&points: &usize| Axis { minimum: 0.0, maximum: points as f64 - 1.0, points, periodic: false };
        let axes: Vec<_> = points.iter().map(axis).collect();
        check(&axes, values.len(), 1)?;
        Ok(Self { axes, nodes: values, smooth: false })
    }

    /// A smooth function, which is zero outside of the range of an axis that is not periodic.
    pub fn smooth(axes: Vec<Axis>, values: &[f64]) -> Result<Self, String> {
        check(&axes, values.len(), 2)?;
        for axis in &axes {
            if axis.minimum >= axis.maximum {
                return Err(format!("its range from {} to {} is empty", axis.minimum, axis.maximum));
            }
        }
        let kinds = 1 << axes.len();
        let mut nodes = vec![0.0; values.len() * kinds];
        nodes.iter_mut().step_by(kinds).zip(values).for_each(|(node, value)| *node = *value);
        let mut stride = 1;
        for (k, axis) in axes.iter().enumerate() {
            let line = |start: usize| (0..axis.points).map(move |i| start + i * stride);
            for start in (0..values.len()).filter(|i| i / stride % axis.points == 0) {
                // What is known so far is differentiated along this axis too.
                for kind in 0..1 << k {
                    let along: Vec<f64> = line(start).map(|i| nodes[i * kinds + kind]).collect();
                    for (i, slope) in line(start).zip(slopes(&along, axis)) {
                        nodes[i * kinds + kind + (1 << k)] = slope;
                    }
                }
            }
            stride *= axis.points;
        }
        Ok(Self { axes, nodes, smooth: true })
    }

    /// The number of arguments.
    pub fn arguments(&self) -> usize {
        self.axes.len()
    }

    pub fn is_smooth(&self) -> bool {
        self.smooth
    }

    /// The value, or the derivative with respect to one argument.
    pub fn evaluate(&self, arguments: [f64; MOST_AXES], derivative: Option<u8>) -> f64 {
        if !self.smooth {
            return self.nearest(arguments.map(Lanes::all)).0[0];
        }
        let mut first = 0;
        // For each axis, where its corner lies, and the weights of value and slope at both ends of the cell.
        let mut weights = [[[0.0; 2]; 2]; MOST_AXES];
        let mut strides = [0; MOST_AXES];
        let mut stride = 1;
        for (k, (axis, x)) in self.axes.iter().zip(arguments).enumerate() {
            if !x.is_finite() {
                return f64::NAN;
            }
            let range = axis.maximum - axis.minimum;
            let mut x = x;
            if axis.periodic {
                x -= range * ((x - axis.minimum) / range).floor();
            } else if x < axis.minimum || x > axis.maximum {
                return 0.0;
            }
            let width = range / (axis.points - 1) as f64;
            let place = (x - axis.minimum) / width;
            let cell = (place as usize).min(axis.points - 2);
            let u = place - cell as f64;
            weights[k] = match derivative {
                Some(which) if usize::from(which) == k => hermite_slopes(u, width),
                _ => hermite(u, width),
            };
            first += cell * stride;
            strides[k] = stride;
            stride *= axis.points;
        }
        let kinds = 1usize << self.axes.len();
        let mut sum = 0.0;
        for corner in 0..kinds {
            let bit = |k: usize| corner >> k & 1;
            let node = first + (0..self.axes.len()).map(|k| bit(k) * strides[k]).sum::<usize>();
            for kind in 0..kinds {
                let weight: f64 = (0..self.axes.len()).map(|k| weights[k][bit(k)][kind >> k & 1]).product();
                sum += weight * self.nodes[node * kinds + kind];
            }
        }
        sum
    }

    /// [`Table::evaluate`] for each lane.
    #[inline(always)]
    pub fn of_lanes(&self, [mut out, b, c]: [Lanes; MOST_AXES], derivative: Option<u8>) -> Lanes {
        if !self.smooth {
            return self.nearest([out, b, c]);
        }
        for lane in 0..WIDTH {
            out.0[lane] = self.evaluate([out.0[lane], b.0[lane], c.0[lane]], derivative);
        }
        out
    }

    /// The values at the nearest points, halves being rounded away from zero.
    #[inline(always)]
    fn nearest(&self, arguments: [Lanes; MOST_AXES]) -> Lanes {
        // Adding and subtracting it rounds to a whole number, halves to an even one; it is 1.5·2⁵².
        const ROUND: f64 = 6_755_399_441_055_744.0;
        let (mut places, mut stride) = (Lanes::ZERO, 1.0);
        for (axis, x) in self.axes.iter().zip(arguments) {
            for lane in 0..WIDTH {
                let x = x.0[lane];
                let even = (x + ROUND) - ROUND;
                let whole = if x - even == 0.5 { even + 1.0 } else { even };
                // NaN is in no range.
                let is_in_range = (x > -0.5) & (whole <= axis.maximum);
                places.0[lane] += if is_in_range { whole * stride } else { f64::INFINITY };
            }
            stride *= axis.points as f64;
        }
        // What is out of range of an argument is beyond all nodes.
        for place in &mut places.0 {
            *place = self.nodes.get(*place as usize).copied().unwrap_or(f64::NAN);
        }
        places
    }
}

fn check(axes: &[Axis], values: usize, least: usize) -> Result<(), String> {
    let points = axes.iter().try_fold(1usize, |product, axis| product.checked_mul(axis.points));
    if axes.is_empty() || axes.len() > MOST_AXES || axes.iter().any(|axis| axis.points < least) {
        return Err(format!("it must have at least {least} points along each argument"));
    }
    if points != Some(values) {
        let sizes: Vec<_> = axes.iter().map(|axis| axis.points.to_string()).collect();
        return Err(format!("it has {values} values, and its grid is {}", sizes.join(" × ")));
    }
    Ok(())
}

/// Weights of value and slope at the ends of a cell, for the value at a fraction u of its width.
fn hermite(u: f64, width: f64) -> [[f64; 2]; 2] {
    let (uu, v) = (u * u, 1.0 - u);
    [[(1.0 + 2.0 * u) * v * v, width * u * v * v], [uu * (3.0 - 2.0 * u), -width * uu * v]]
}

/// The same for the slope.
fn hermite_slopes(u: f64, width: f64) -> [[f64; 2]; 2] {
    let steep = 6.0 * u * (1.0 - u) / width;
    [[-steep, (1.0 - u) * (1.0 - 3.0 * u)], [steep, u * (3.0 * u - 2.0)]]
}

/// The derivatives at its points of the cubic spline through values at equal distances.
fn slopes(y: &[f64], axis: &Axis) -> Vec<f64> {
    let n = y.len();
    let h = (axis.maximum - axis.minimum) / (n - 1) as f64;
    let bends = if axis.periodic { periodic_bends(&y[..n - 1], h) } else { natural_bends(y, h) };
    let slope = |i: usize| {
        let (left, right) = if i + 1 < n { (i, i + 1) } else { (n - 2, n - 1) };
        let mean = (y[right] - y[left]) / h;
        let bend = if i + 1 < n { -(2.0 * bends[left] + bends[right]) } else { bends[left] + 2.0 * bends[right] };
        mean + h * bend / 6.0
    };
    (0..n).map(slope).collect()
}

/// Second derivatives at all points; zero at both ends.
fn natural_bends(y: &[f64], h: f64) -> Vec<f64> {
    let n = y.len();
    let mut bends = vec![0.0; n];
    if n > 2 {
        let right: Vec<f64> = y.windows(3).map(|y| 6.0 * (y[2] - 2.0 * y[1] + y[0]) / (h * h)).collect();
        bends[1..n - 1].copy_from_slice(&solve(4.0, 4.0, 4.0, &right));
    }
    bends
}

/// Second derivatives at the points of a circle, the first repeated at the end.
fn periodic_bends(y: &[f64], h: f64) -> Vec<f64> {
    let n = y.len();
    let right: Vec<f64> = (0..n).map(|i| 6.0 * (y[(i + 1) % n] - 2.0 * y[i] + y[(i + n - 1) % n]) / (h * h)).collect();
    let mut bends = match n {
        1 => vec![0.0],
        2 => vec![(2.0 * right[0] - right[1]) / 6.0, (2.0 * right[1] - right[0]) / 6.0],
        _ => {
            // Sherman and Morrison: a tridiagonal matrix and an outer product of (−4, 0 … 0, 1) and (1, 0 … 0, −¼).
            let plain = solve(8.0, 4.0, 4.25, &right);
            let mut corner = vec![0.0; n];
            (corner[0], corner[n - 1]) = (-4.0, 1.0);
            let corner = solve(8.0, 4.0, 4.25, &corner);
            let factor = (plain[0] - plain[n - 1] / 4.0) / (1.0 + corner[0] - corner[n - 1] / 4.0);
            plain.iter().zip(&corner).map(|(p, c)| p - factor * c).collect()
        }
    };
    bends.push(bends[0]);
    bends
}

/// Solves the tridiagonal system with ones beside a diagonal of first, middle…, last.
fn solve(first: f64, middle: f64, last: f64, right: &[f64]) -> Vec<f64> {
    let n = right.len();
    let mut x = right.to_vec();
    let mut above = vec![0.0; n];
    let mut pivot = if n == 1 { middle } else { first };
    x[0] /= pivot;
    for i in 1..n {
        above[i - 1] = 1.0 / pivot;
        pivot = if i + 1 == n { last } else { middle } - above[i - 1];
        x[i] = (x[i] - x[i - 1]) / pivot;
    }
    for i in (0..n - 1).rev() {
        x[i] -= above[i] * x[i + 1];
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(minimum: f64, maximum: f64, points: usize, periodic: bool) -> Axis {
        Axis { minimum, maximum, points, periodic }
    }

    /// A periodic spline through enough points of a smooth function is the function, and so are its derivatives.
    #[test]
    fn smooth_functions_come_back() {
        let turn = 2.0 * std::f64::consts::PI;
        let f = |x: f64, y: f64| x.sin() * (2.0 * y).cos();
        let n = 65;
        let at = |i: usize| turn * i as f64 / (n - 1) as f64;
        let values: Vec<f64> = (0..n * n).map(|k| f(at(k % n), at(k / n))).collect();
        let table = Table::smooth(vec![axis(0.0, turn, n, true), axis(0.0, turn, n, true)], &values).unwrap();
        for (x, y) in [(0.1, 0.2), (-3.0, 9.0), (6.2, 0.0), (1.0, -1.0)] {
            let error = |value: f64, exact: f64| (value - exact).abs();
            assert!(error(table.evaluate([x, y, 0.0], None), f(x, y)) < 1e-5);
            assert!(error(table.evaluate([x, y, 0.0], Some(0)), x.cos() * (2.0 * y).cos()) < 1e-3);
            assert!(error(table.evaluate([x, y, 0.0], Some(1)), -2.0 * x.sin() * (2.0 * y).sin()) < 2e-3);
        }
    }

    #[test]
    fn natural_splines_pass_through_their_points_and_end_straight() {
        let values = [1.0, 3.0, -2.0, 0.5];
        let table = Table::smooth(vec![axis(-1.0, 2.0, 4, false)], &values).unwrap();
        for (i, value) in values.iter().enumerate() {
            assert!((table.evaluate([i as f64 - 1.0, 0.0, 0.0], None) - value).abs() < 1e-12);
        }
        let bend = |x: f64| table.evaluate([x + 1e-4, 0.0, 0.0], Some(0)) - table.evaluate([x, 0.0, 0.0], Some(0));
        assert!(bend(-1.0).abs() < 1e-6 && bend(1.9999).abs() < 1e-6);
        assert_eq!(table.evaluate([2.1, 0.0, 0.0], None), 0.0);
        assert!(table.evaluate([f64::NAN, 0.0, 0.0], None).is_nan());
    }

    #[test]
    fn discrete_functions_have_values_at_whole_numbers_only() {
        let table = Table::discrete(&[2, 3], vec![0.0, 1.0, 10.0, 11.0, 20.0, 21.0]).unwrap();
        assert_eq!(table.evaluate([1.2, 1.9, 0.0], None), 21.0);
        assert!(table.evaluate([2.0, 0.0, 0.0], None).is_nan());
        assert!(table.evaluate([-1.0, 0.0, 0.0], None).is_nan());
        // Halves away from zero, and so out of range below it.
        assert_eq!(table.evaluate([0.49999999999999994, 0.5, 0.0], None), 10.0);
        assert_eq!(table.evaluate([-0.49, 1.5, 0.0], None), 20.0);
        assert!(table.evaluate([-0.5, 0.0, 0.0], None).is_nan());
        assert!(table.evaluate([0.0, 2.5, 0.0], None).is_nan());
        assert!(table.evaluate([f64::NAN, 0.0, 0.0], None).is_nan());
        assert!(table.evaluate([0.0, f64::INFINITY, 0.0], None).is_nan());
        assert!(Table::discrete(&[2, 3], vec![0.0; 5]).is_err());
        assert!(Table::discrete(&[usize::MAX, 2], vec![0.0; 5]).is_err());
    }
}
