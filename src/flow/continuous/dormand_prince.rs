//! Integration of an ordinary differential equation from time 0 to 1 by the pair of orders five and four of Dormand and
//! Prince (J. Comput. Appl. Math. 6, 19 (1980)), each row with steps of its own.

use candle_core::{Device, Result, Tensor};

/// Σ of a row of the tableau times the rates known by then is where the next one is taken.
const STAGES: [(f64, &[f64]); 6] = [
    (1.0 / 5.0, &[1.0 / 5.0]),
    (3.0 / 10.0, &[3.0 / 40.0, 9.0 / 40.0]),
    (4.0 / 5.0, &[44.0 / 45.0, -56.0 / 15.0, 32.0 / 9.0]),
    (8.0 / 9.0, &[19372.0 / 6561.0, -25360.0 / 2187.0, 64448.0 / 6561.0, -212.0 / 729.0]),
    (1.0, &[9017.0 / 3168.0, -355.0 / 33.0, 46732.0 / 5247.0, 49.0 / 176.0, -5103.0 / 18656.0]),
    (1.0, &[35.0 / 384.0, 0.0, 500.0 / 1113.0, 125.0 / 192.0, -2187.0 / 6784.0, 11.0 / 84.0]),
];

/// The difference of the two orders.
const ERROR: [f64; 7] =
    [71.0 / 57600.0, 0.0, -71.0 / 16695.0, 71.0 / 1920.0, -17253.0 / 339200.0, 22.0 / 525.0, -1.0 / 40.0];

/// A step's length is chosen so that its error would be this part of what is allowed, and at most so much shorter or longer
/// than the one before.
const SAFETY: f64 = 0.9;
const SHORTER: f64 = 0.2;
const LONGER: f64 = 5.0;

/// Steps of a row, accepted or not, and their least length: with more, or shorter ones, a row is given up.
const MOST_STEPS: usize = 500;
const SHORTEST: f64 = 1e-8;

/// A row on its way.
#[derive(Clone, Copy)]
struct Row {
    time: f64,
    step: f64,
    /// Steps tried so far.
    tried: usize,
    state: State,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    OnItsWay,
    Arrived,
    GivenUp,
}

impl Row {
    /// A row at its beginning.
    fn new(tolerance: f64) -> Self {
        Self { time: 0.0, step: tolerance.powf(0.2).min(0.1), tried: 0, state: State::OnItsWay }
    }

    /// Moves on by a step of this error, in units of the error allowed; says whether it counts.
    fn judge(&mut self, error: f64) -> bool {
        if self.state != State::OnItsWay {
            return false;
        }
        self.tried += 1;
        let accepted = error <= 1.0;
        if accepted {
            self.time += self.step;
        }
        if 1.0 - self.time <= 1e-12 {
            (self.state, self.step) = (State::Arrived, 0.0);
            return accepted;
        }
        // An error that is not a number is as good as a large one.
        let factor = if error.is_finite() { (SAFETY * error.powf(-0.2)).clamp(SHORTER, LONGER) } else { SHORTER };
        self.step *= if accepted { factor } else { factor.min(1.0) };
        if self.step < SHORTEST || self.tried >= MOST_STEPS {
            (self.state, self.step) = (State::GivenUp, 0.0);
        }
        self.step = self.step.min(1.0 - self.time);
        accepted
    }
}

/// The solution at time 1 of dy/dt = `rate`(y, t) from y (n, m) at time 0, differentiable in y and in what the rate depends on;
/// steps are taken as constant. `rate` is given times (n, 1). A step's error in the mean square over a row is at most
/// `tolerance`·(1 + |y|). A row that needs too many steps ends as NaN, and has no gradient. A row's numbers do not depend on its company.
pub(super) fn integrate(
    y: &Tensor,
    tolerance: f64,
    mut rate: impl FnMut(&Tensor, &Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let (n, device) = (y.dim(0)?, y.device().clone());
    let mut rows = vec![Row::new(tolerance); n];
    let mut y = y.clone();
    let mut first = rate(&y, &column(rows.iter().map(|r| r.time), &device)?)?;
    while rows.iter().any(|row| row.state == State::OnItsWay) {
        let step = column(rows.iter().map(|r| r.step), &device)?;
        let mut rates = vec![first.clone()];
        let mut next = y.clone();
        for (share, weights) in STAGES {
            next = (&y + weighted(weights, &rates)?.broadcast_mul(&step)?)?;
            let times = column(rows.iter().map(|r| r.time + share * r.step), &device)?;
            rates.push(rate(&next, &times)?);
        }
        let errors = errors(&weighted(&ERROR, &rates)?.broadcast_mul(&step)?, &y, &next, tolerance)?;
        let accepted: Vec<u8> = rows.iter_mut().zip(errors).map(|(row, error)| u8::from(row.judge(error))).collect();
        if accepted.contains(&1) {
            let accepted = Tensor::from_vec(accepted, (n, 1), &device)?.broadcast_as(y.shape())?;
            y = accepted.where_cond(&next, &y)?;
            if let Some(last) = rates.last() {
                first = accepted.where_cond(last, &first)?;
            }
        }
    }
    if rows.iter().any(|row| row.state == State::GivenUp) {
        // Chosen rather than added, so that no gradient of a lost row is NaN times nothing.
        let lost: Vec<u8> = rows.iter().map(|r| u8::from(r.state == State::GivenUp)).collect();
        let lost = Tensor::from_vec(lost, (n, 1), &device)?.broadcast_as(y.shape())?;
        return lost.where_cond(&(y.zeros_like()? + f64::NAN)?, &y);
    }
    Ok(y)
}

/// [`integrate`] of rows y (n, m) in host memory, in place and without gradients. `rate` is given the numbers of the rows that are
/// on their way, their states (k, m) and times (k), and writes their rates (k, m).
pub(super) fn integrate_rows(
    y: &mut [f64],
    m: usize,
    tolerance: f64,
    mut rate: impl FnMut(&[usize], &[f64], &[f64], &mut [f64]) -> Result<()>,
) -> Result<()> {
    let n = y.len() / m.max(1);
    let mut rows: Vec<(usize, Row)> = (0..n).map(|row| (row, Row::new(tolerance))).collect();
    let mut on_way: Vec<usize> = (0..n).collect();
    let mut states = y.to_vec();
    let mut next = states.clone();
    let mut times = vec![0.0; n];
    let mut rates = vec![vec![0.0; n * m]; 1 + STAGES.len()];
    rate(&on_way, &states, &times, &mut rates[0])?;
    while !rows.is_empty() {
        let k = rows.len();
        for (s, (share, weights)) in STAGES.iter().enumerate() {
            let (known, after) = rates.split_at_mut(s + 1);
            for (r, (_, row)) in rows.iter().enumerate() {
                times[r] = row.time + share * row.step;
                for at in r * m..(r + 1) * m {
                    next[at] = states[at] + weighted_sum(weights, known, at) * row.step;
                }
            }
            rate(&on_way, &next[..k * m], &times[..k], &mut after[0][..k * m])?;
        }
        // Rows that are still on their way move up to the places of those that are not.
        let mut kept = 0;
        for r in 0..k {
            let (number, mut row) = rows[r];
            let allowed = |at: usize| tolerance * states[at].abs().max(next[at].abs()) + tolerance;
            let error = |at: usize| (weighted_sum(&ERROR, &rates, at) * row.step / allowed(at)).powi(2);
            let error = ((r * m..(r + 1) * m).map(error).sum::<f64>() / m as f64).sqrt();
            let is_accepted = row.judge(error);
            let to = kept * m;
            if is_accepted {
                states[to..to + m].copy_from_slice(&next[r * m..(r + 1) * m]);
                let last = rates.len() - 1;
                let (first, last) = rates.split_at_mut(last);
                first[0][to..to + m].copy_from_slice(&last[0][r * m..(r + 1) * m]);
            } else {
                states.copy_within(r * m..(r + 1) * m, to);
                rates[0].copy_within(r * m..(r + 1) * m, to);
            }
            match row.state {
                State::OnItsWay => {
                    (rows[kept], on_way[kept]) = ((number, row), number);
                    kept += 1;
                }
                State::Arrived => y[number * m..(number + 1) * m].copy_from_slice(&states[to..to + m]),
                State::GivenUp => y[number * m..(number + 1) * m].fill(f64::NAN),
            }
        }
        rows.truncate(kept);
        on_way.truncate(kept);
    }
    Ok(())
}

/// Σ wᵢ·kᵢ of one number.
fn weighted_sum(weights: &[f64], rates: &[Vec<f64>], at: usize) -> f64 {
    let terms =
        weights.iter().zip(rates).filter(|(weight, _)| **weight != 0.0).map(|(weight, rates)| rates[at] * weight);
    terms.reduce(|sum, term| sum + term).unwrap_or(0.0)
}

/// (n, 1).
fn column(numbers: impl Iterator<Item = f64>, device: &Device) -> Result<Tensor> {
    let numbers: Vec<f64> = numbers.collect();
    let n = numbers.len();
    Tensor::from_vec(numbers, (n, 1), device)
}

/// Σ wᵢ·kᵢ.
fn weighted(weights: &[f64], rates: &[Tensor]) -> Result<Tensor> {
    let mut sum: Option<Tensor> = None;
    for (weight, rate) in weights.iter().zip(rates).filter(|(weight, _)| **weight != 0.0) {
        let term = (rate * *weight)?;
        sum = Some(match sum {
            None => term,
            Some(sum) => (sum + term)?,
        });
    }
    match sum {
        Some(sum) => Ok(sum),
        None => candle_core::bail!("a stage of no rates"),
    }
}

/// The root mean square of each row's error, in units of what is allowed.
fn errors(error: &Tensor, before: &Tensor, after: &Tensor, tolerance: f64) -> Result<Vec<f64>> {
    let (error, before, after) = (error.detach(), before.detach(), after.detach());
    let allowed = before.abs()?.maximum(&after.abs()?)?.affine(tolerance, tolerance)?;
    error.div(&allowed)?.sqr()?.mean(1)?.sqrt()?.to_vec1()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// dy/dt = λ·y − 2t, each row with its own λ: as exact as asked, whatever else is in the batch.
    #[test]
    fn solutions_are_as_exact_as_asked() {
        let lambdas = [-30.0, -1.0, 0.5, 3.0];
        let solve = |lambdas: &[f64], tolerance: f64| {
            let n = lambdas.len();
            let of = Tensor::from_slice(lambdas, (n, 1), &Device::Cpu).unwrap();
            let y = Tensor::ones((n, 1), candle_core::DType::F64, &Device::Cpu).unwrap();
            let mut calls = 0;
            let end = integrate(&y, tolerance, |y, t| {
                calls += 1;
                (y * &of)? - (t * 2.0)?
            });
            let end = end.unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            // Numbers in host memory go the same way.
            let mut rows = vec![1.0; n];
            integrate_rows(&mut rows, 1, tolerance, |of, y, t, rates| {
                rates
                    .iter_mut()
                    .zip(of)
                    .zip(y.iter().zip(t))
                    .for_each(|((r, &i), (y, t))| *r = y * lambdas[i] - t * 2.0);
                Ok(())
            })
            .unwrap();
            assert_eq!(rows, end);
            (end, calls)
        };
        // y = (1 − 2/λ²)·e^{λt} + 2t/λ + 2/λ².
        let exact = |l: f64| (1.0 - 2.0 / (l * l)) * l.exp() + 2.0 / l + 2.0 / (l * l);
        let (loose, few) = solve(&lambdas, 1e-4);
        let (tight, many) = solve(&lambdas, 1e-10);
        for ((loose, tight), l) in loose.iter().zip(&tight).zip(lambdas) {
            assert!((tight - exact(l)).abs() < 1e-8 * (1.0 + exact(l).abs()), "{l}: {tight}, {}", exact(l));
            assert!((loose - exact(l)).abs() < 1e-2 * (1.0 + exact(l).abs()), "{l}: {loose}, {}", exact(l));
        }
        assert!(few < many);
        for (i, l) in lambdas.into_iter().enumerate() {
            assert_eq!(solve(&[l], 1e-4).0[0], loose[i]);
        }
    }

    /// dy/dt = y² from 2 is infinite at t = 1/2: a row that cannot be carried on is NaN, and the others go on.
    #[test]
    fn what_cannot_be_solved_is_nan() {
        let y = Tensor::from_slice(&[2.0, 0.5], (2, 1), &Device::Cpu).unwrap();
        let end = integrate(&y, 1e-6, |y, _| y.sqr()).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        assert!(end[0].is_nan() && (end[1] - 1.0).abs() < 1e-4, "{end:?}");
        let mut rows = [2.0, 0.5];
        integrate_rows(&mut rows, 1, 1e-6, |_, y, _, rates| {
            rates.iter_mut().zip(y).for_each(|(rate, y)| *rate = y * y);
            Ok(())
        })
        .unwrap();
        assert!(rows[0].is_nan() && rows[1] == end[1], "{rows:?}");
        // y(1) = y/(1 − y), whose derivative is 1/(1 − y)²; a gradient that leaves the lost row out is that of the others.
        let y = candle_core::Var::from_tensor(&y).unwrap();
        let end = integrate(&y, 1e-6, |y, _| y.sqr()).unwrap();
        let kept = Tensor::from_slice(&[0.0, 1.0], (2, 1), &Device::Cpu).unwrap();
        let gradient = (end.sqr().unwrap() * kept).unwrap().sum_all().unwrap().backward().unwrap();
        let gradient = gradient.get(&y).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        assert!(gradient[0] == 0.0 && (gradient[1] - 8.0).abs() < 1e-3, "{gradient:?}");
    }
}
