//! Bennett's acceptance ratio (J. Comput. Phys. 22, 245 (1976)) between two sampled densities.
//!
//! Of densities ρ₀ and ρ₁ with normalisation constants C₀ and C₁, let x be a sample and t = γ + log(n₁ρ₁/n₀ρ₀) at it: it is one of
//! ρ₁ with probability p₁ = 1/(1 + e^(−t)), where γ = −log(C₁/C₀). Bennett's γ is where the samples of ρ₀ are taken for those of ρ₁
//! as often as the other way round: Σ₀ p₁ = Σ₁ p₀. The left side grows with γ and the right side falls, so that there is one root
//! or none; with n_s independent samples each, it is the estimate of the least error (Shirts, Bair, Hooker and Pande, Phys. Rev.
//! Lett. 91, 140601 (2003)).

use super::difference::{Difference, DifferenceSettings, EndSamples, difference};
use crate::math::LogSumExp;
use rayon::prelude::*;

/// Samples that a thread takes at a time; sums have one order.
pub(super) const STRIPE: usize = 8192;

/// Halvings and steps of Newton, each of which halves the step or the bracket: from the widest bracket of f64 to its last digit.
const MAX_ITERATIONS: usize = 2400;

/// Bits of γ that are left open, relative to one kT or to γ.
const TOLERANCE: f64 = 1e-13;

/// Σ p₀p₁ below which no sample could be of both: the error would be above 100 kT.
const LEAST_SHARED: f64 = 1e-4;

/// Why there is no free-energy difference.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BarError {
    #[error("there are no samples of the {0} end; both ends are needed")]
    Empty(&'static str),
    #[error("the work of sample {sample} of the {end} end is not a number; an impossible move has the work +∞")]
    NotANumber { end: &'static str, sample: usize },
    #[error(
        "no sample of one end could be one of the other: the ends do not overlap; put ends between them (a temperature, or a \
         system half-way), and add up the differences"
    )]
    NoOverlap,
}

/// Free-energy difference f₁ − f₀ (kT) by Bennett's acceptance ratio, with the exponential averages (Zwanzig, J. Chem. Phys. 22,
/// 1420 (1954)) in both directions beside it.
///
/// `forward` are the works u₁(x) − u₀(x) (n₀) of independent samples of the end 0, `reverse` u₀(x) − u₁(x) (n₁) of those of the
/// end 1, in kT. +∞ is a sample that the other end does not have: it counts, with no weight. −∞ is one that its own end should
/// not have; Bennett's ratio takes it for one of the other end, and exponential averages are −∞ then. NaN is refused.
pub fn bar(forward: &[f64], reverse: &[f64], settings: &DifferenceSettings) -> Result<Difference, BarError> {
    let end = |works: &[f64]| EndSamples::boltzmann(works.iter().map(|w| -w).collect());
    difference(&end(forward), &end(reverse), settings)
}

/// What Bennett's equation is made of: t without γ of the samples of each end, and the numbers of independent samples.
pub(super) struct Equation<'a> {
    /// log ρ₁/ρ₀ of the samples of end 0, log ρ₀/ρ₁ of those of end 1.
    pub log_ratios: [&'a [f64]; 2],
    pub counts: [f64; 2],
}

/// Sums over the samples of one end at a γ, all times n_s over its samples.
struct Sums {
    /// log Σ p of the other end.
    log_other: f64,
    /// Σ p₀p₁/Σ p of the other end.
    slope: f64,
}

/// log 1/(1 + e^(−t)).
pub(super) fn log_logistic(t: f64) -> f64 {
    if t >= 0.0 { -(-t).exp().ln_1p() } else { t - t.exp().ln_1p() }
}

impl Equation<'_> {
    /// t of the other end's probability 1/(1 + e^(−t)) at a sample.
    fn place(&self, end: usize, gamma: f64, log_ratio: f64) -> f64 {
        let offset = gamma + (self.counts[1] / self.counts[0]).ln();
        if end == 0 { offset + log_ratio } else { log_ratio - offset }
    }

    fn sums(&self, end: usize, gamma: f64) -> Sums {
        let stripe = |ratios: &[f64]| {
            let (mut other, mut both) = (LogSumExp::default(), LogSumExp::default());
            for &ratio in ratios {
                let t = self.place(end, gamma, ratio);
                let log_other = log_logistic(t);
                other.add(log_other);
                both.add(log_other + log_logistic(-t));
            }
            (other.value(), both.value())
        };
        let stripes: Vec<(f64, f64)> = self.log_ratios[end].par_chunks(STRIPE).map(stripe).collect();
        let (mut other, mut both) = (LogSumExp::default(), LogSumExp::default());
        for (o, b) in stripes {
            other.add(o);
            both.add(b);
        }
        let scale = (self.counts[end] / self.log_ratios[end].len() as f64).ln();
        let slope = if other.value() == f64::NEG_INFINITY { 0.0 } else { (both.value() - other.value()).exp() };
        Sums { log_other: other.value() + scale, slope }
    }

    /// log Σ₀ p₁ − log Σ₁ p₀, which grows with γ, and its derivative.
    fn at(&self, gamma: f64) -> (f64, f64) {
        let (zero, one) = (self.sums(0, gamma), self.sums(1, gamma));
        (zero.log_other - one.log_other, zero.slope + one.slope)
    }

    /// Bennett's γ.
    pub fn solve(&self) -> Result<f64, BarError> {
        let finite =
            |end: usize, sign: f64| self.log_ratios[end].iter().filter(|r| r.is_finite()).map(move |r| sign * r);
        // −log ρ₁/ρ₀ of all samples: beyond them all are taken for those of one end.
        let places = || finite(0, -1.0).chain(finite(1, 1.0));
        let (low, high) = places().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), x| (l.min(x), h.max(x)));
        if low > high {
            return Err(BarError::NoOverlap);
        }
        let samples = (self.log_ratios[0].len() + self.log_ratios[1].len()) as f64;
        let margin = 40.0 + samples.ln() + (self.counts[1] / self.counts[0]).ln().abs();
        let (mut low, mut high) = (low - margin, high + margin);
        let crosses = |gamma: f64, sign: f64| sign * self.at(gamma).0 > 0.0;
        if !(crosses(low, -1.0) && crosses(high, 1.0)) {
            return Err(BarError::NoOverlap);
        }
        let mut gamma = 0.5 * (low + high);
        let mut last_step = high - low;
        for _ in 0..MAX_ITERATIONS {
            let (value, slope) = self.at(gamma);
            if value > 0.0 {
                high = gamma;
            } else {
                low = gamma;
            }
            let tolerance = TOLERANCE * gamma.abs().max(1.0);
            if value == 0.0 || high - low <= tolerance {
                break;
            }
            // Newton's step where it is at most half of the one before; the bracket is halved where it is not.
            let newton = -value / slope;
            let inside = gamma + newton > low && gamma + newton < high;
            let step = if inside && newton.abs() <= 0.5 * last_step { newton } else { 0.5 * (low + high) - gamma };
            gamma += step;
            if step.abs() <= tolerance {
                break;
            }
            last_step = step.abs();
        }
        let shared: f64 = (0..2)
            .map(|end| {
                let sums = self.sums(end, gamma);
                sums.log_other.exp() * sums.slope
            })
            .sum();
        if shared < LEAST_SHARED { Err(BarError::NoOverlap) } else { Ok(gamma) }
    }
}
