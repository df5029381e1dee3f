//! The Pareto diagnostic of importance weights (Vehtari, Simpson, Gelman, Yao and Gabry, "Pareto smoothed importance
//! sampling", JMLR 25 (2024)): the shape k of a generalised Pareto distribution fitted to the largest weights, by the
//! estimator of Zhang and Stephens, Technometrics 51, 316 (2009).

/// Fewest weights in the tail that a shape is fitted to.
const MIN_TAIL: usize = 5;

/// Weights that are smaller than the largest by more than this factor e^x are zero beside it.
const SWAMPED: f64 = 700.0;

/// How many of `n` weights are the tail: min(n/5, 3√n).
pub(super) fn tail_length(n: u64) -> usize {
    let n = n as f64;
    (0.2 * n).min(3.0 * n.sqrt()).ceil() as usize
}

/// Above this shape, the error estimates of n weights cannot be trusted: min(1 − 1/log₁₀ n, 0.7).
pub fn pareto_k_threshold(n: u64) -> f64 {
    (1.0 - 1.0 / (n as f64).log10()).min(0.7)
}

/// The shape k̂ of the tail of `n` weights, given the log weights of (at least) the tail and the one below it, in any
/// order. NaN where the tail is too short or all its weights are equal: there is nothing to fit. +∞ where a few weights
/// are so much larger than the rest of the tail that nothing else of it is left in f64.
pub fn pareto_k(n: u64, mut largest: Vec<f64>) -> f64 {
    largest.sort_unstable_by(|a, b| b.total_cmp(a));
    match tail_of(n, &largest) {
        Tail::Unfit => f64::NAN,
        Tail::Swamped => f64::INFINITY,
        Tail::Over { exceedances, .. } => zhang_stephens(&exceedances).shape,
    }
}

/// The logarithms of the weights that the fitted distribution has at the ranks of the tail's, the largest first, none of them larger
/// than the largest weight; of the same descending log weights as [`pareto_k`]. Nothing where there is nothing to fit.
pub(super) fn smoothed_tail(n: u64, largest: &[f64]) -> Option<Vec<f64>> {
    let Tail::Over { exceedances, base } = tail_of(n, largest) else { return None };
    let fitted = zhang_stephens(&exceedances);
    let (count, max) = (exceedances.len(), largest.first()?);
    let at_rank = |rank: usize| {
        let survival = (rank as f64 + 0.5) / count as f64;
        (base + fitted.exceeded_with(survival)).min(1.0).ln() + max
    };
    Some((0..count).map(at_rank).collect())
}

/// What there is to fit of descending log weights.
enum Tail {
    Unfit,
    Swamped,
    /// Relative to the largest weight: the cutoff, and how much weights exceed it (ascending).
    Over {
        exceedances: Vec<f64>,
        base: f64,
    },
}

fn tail_of(n: u64, largest: &[f64]) -> Tail {
    let tail = tail_length(n).min(largest.len().saturating_sub(1));
    if tail < MIN_TAIL {
        return Tail::Unfit;
    }
    let (max, cutoff) = (largest[0], largest[tail]);
    // Only ratios matter: weights relative to the largest, exceedances over the cutoff.
    if max - largest[MIN_TAIL - 1] > SWAMPED {
        return Tail::Swamped;
    }
    let base = if cutoff == f64::NEG_INFINITY { 0.0 } else { (cutoff - max).exp() };
    let mut exceedances: Vec<f64> = largest[..tail].iter().rev().map(|&l| (l - max).exp() - base).collect();
    exceedances.retain(|&x| x > 0.0);
    if exceedances.len() < MIN_TAIL { Tail::Unfit } else { Tail::Over { exceedances, base } }
}

/// A generalised Pareto distribution of positive numbers.
struct GeneralisedPareto {
    shape: f64,
    scale: f64,
}

impl GeneralisedPareto {
    /// The number that is exceeded with a probability.
    fn exceeded_with(&self, probability: f64) -> f64 {
        let Self { shape, scale } = self;
        if shape.abs() < 1e-9 { -scale * probability.ln() } else { scale / shape * (probability.powf(-shape) - 1.0) }
    }
}

/// That of positive numbers, ascending; its shape with the weak prior of PSIS (ten observations at k = ½).
fn zhang_stephens(x: &[f64]) -> GeneralisedPareto {
    let n = x.len() as f64;
    let grid = 30 + n.sqrt() as usize;
    let quartile = x[((n / 4.0 + 0.5).floor() as usize).clamp(1, x.len()) - 1];
    let largest = x[x.len() - 1];
    let theta: Vec<f64> = (1..=grid)
        .map(|j| 1.0 / largest + (1.0 - (grid as f64 / (j as f64 - 0.5)).sqrt()) / (3.0 * quartile))
        .collect();
    let shape = |theta: f64| x.iter().map(|x| (-theta * x).ln_1p()).sum::<f64>() / n;
    let profile: Vec<f64> = theta
        .iter()
        .map(|&t| {
            let k = shape(t);
            n * ((-t / k).ln() - k - 1.0)
        })
        .collect();
    let weight = |j: usize| 1.0 / profile.iter().map(|l| (l - profile[j]).exp()).sum::<f64>();
    let mean = theta.iter().enumerate().map(|(j, t)| t * weight(j)).sum::<f64>();
    let k = shape(mean);
    GeneralisedPareto { shape: (n * k + 10.0 * 0.5) / (n + 10.0), scale: -k / mean }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::{Purpose, Randoms};

    /// Weights that are exactly Pareto with shape k; the estimate's spread at n = 100,000 is about 0.03, so that a
    /// bound of 0.12 is four standard errors (false alarms below 1e-3, with fixed seeds none).
    #[test]
    fn finds_the_shape_of_pareto_weights() {
        let n = 100_000u64;
        for (seed, k) in [(1, 0.2), (2, 0.5), (3, 0.9), (4, 1.4)] {
            let mut random = Randoms::new(seed, Purpose::Validation, 0);
            let log_weights: Vec<f64> = (0..n).map(|_| -k * random.uniform().ln()).collect();
            let fitted = pareto_k(n, log_weights);
            assert!((fitted - k).abs() < 0.12, "shape {k}: fitted {fitted}");
        }
    }

    #[test]
    fn light_tails_are_safe_and_degenerate_ones_are_not_fitted() {
        let mut random = Randoms::new(9, Purpose::Validation, 0);
        let uniform: Vec<f64> = (0..50_000).map(|_| random.uniform().ln()).collect();
        assert!(pareto_k(50_000, uniform) < 0.0);
        assert!(pareto_k(100, vec![1.0; 100]).is_nan());
        assert!(pareto_k(3, vec![1.0, 2.0, 3.0]).is_nan());
        assert!((pareto_k_threshold(100) - 0.5).abs() < 1e-12);
        assert_eq!(pareto_k_threshold(1_000_000), 0.7);
    }
}
