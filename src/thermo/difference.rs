//! The free-energy difference of two ends from samples of both, whatever density each was sampled from.
//!
//! An end is a Boltzmann factor e^(−u), and its samples are of a density ρ: the Boltzmann distribution itself (molecular dynamics),
//! whose constant is what is looked for, or a flow's density q, whose constant is 1. What is answered is
//! f₁ − f₀ = log Z₀ − log Z₁, by
//!
//! * samples of one end, weighted to both: log Σ e^(−u₀)/ρ − log Σ e^(−u₁)/ρ. With ρ ∝ e^(−u₀) it is the exponential average of the
//!   work (Zwanzig 1954), and with e^(−u₁) carried through a map targeted perturbation (Jarzynski 2002);
//! * samples of both ends, each weighted to both by 1/(n₀ρ₀/C₀ + n₁ρ₁/C₁): Bennett's acceptance ratio of the two sampled densities
//!   for γ = −log(C₁/C₀), where that is not known, and MBAR's weights for what is not sampled (Shirts and Chodera 2008,
//!   equation 13). Where both ends are Boltzmann distributions it is Bennett's ratio; between a flow and a distribution its
//!   γ is the learned acceptance ratio (Wirnsberger et al., J. Chem. Phys. 153, 144112 (2020)); between two flows the balance
//!   heuristic (Veach and Guibas 1995);
//! * of two flows, each end's own weights: log mean w₀ − log mean w₁ of the same latents, which is targeted perturbation along
//!   the map from one flow through the latents to the other: its works are log w₀(z) − log w₁(z).
//!
//! Errors beside each other: asymptotic ones from the influence of each sample on the answer, and bootstrap ones.

use super::bar::{BarError, Equation, log_logistic};
use super::bootstrap::Estimate;
use super::resampling::{Blocks, Resampling};
use super::series::statistical_inefficiency;
use crate::math::log_sum_exp;

/// The samples of one end, as logarithms of densities at them. −∞ is no density there; a sample that is of no use at all has −∞
/// everywhere, and counts.
#[derive(Clone, Debug)]
pub struct EndSamples {
    /// log e^(−u)/ρ (n) of the end's own Boltzmann factor over the density sampled; empty where they are the same.
    own: Vec<f64>,
    /// Of the other end's Boltzmann factor (n).
    other: Vec<f64>,
    /// log ρ_other/ρ (n) of the density that the other end's samples are of; empty where that is its Boltzmann factor.
    density: Vec<f64>,
    /// Frames in the order of a trajectory, which may be correlated.
    correlated: bool,
}

impl EndSamples {
    /// Independent samples of the end's Boltzmann distribution, where the other end's samples are of its own too: −works (n).
    pub fn boltzmann(negative_works: Vec<f64>) -> Self {
        Self { own: Vec::new(), other: negative_works, density: Vec::new(), correlated: false }
    }

    /// Frames of the end's Boltzmann distribution, in the order of a trajectory: log of the other end's Boltzmann factor over its
    /// own, and of the other end's sampled density over it, if that is a flow's.
    pub fn trajectory(other: Vec<f64>, density: Option<Vec<f64>>) -> Self {
        Self { own: Vec::new(), other, density: density.unwrap_or_default(), correlated: true }
    }

    /// Samples of a flow: log weights to the own end and to the other one, and log of the other flow's density over this flow's;
    /// without it the other end's samples are of its Boltzmann distribution.
    pub fn flow(own: Vec<f64>, other: Vec<f64>, density: Option<Vec<f64>>) -> Self {
        Self { own, other, density: density.unwrap_or_default(), correlated: false }
    }

    /// The number of samples.
    pub fn len(&self) -> usize {
        self.other.len()
    }

    pub fn is_empty(&self) -> bool {
        self.other.is_empty()
    }

    /// Whether the samples are of the Boltzmann distribution of their end.
    fn is_boltzmann(&self) -> bool {
        self.own.is_empty()
    }

    /// log ρ_other/ρ.
    fn log_ratios(&self) -> &[f64] {
        if self.density.is_empty() { &self.other } else { &self.density }
    }

    pub(super) fn own(&self, i: usize) -> f64 {
        self.own.get(i).copied().unwrap_or(0.0)
    }

    pub(super) fn other(&self, i: usize) -> f64 {
        self.other.get(i).copied().unwrap_or(f64::NEG_INFINITY)
    }

    /// How many samples are worth an independent one.
    fn inefficiency(&self) -> f64 {
        if !self.correlated {
            return 1.0;
        }
        let of_other = statistical_inefficiency(&self.other);
        if self.density.is_empty() { of_other } else { of_other.max(statistical_inefficiency(&self.density)) }
    }

    fn check(&self, end: &'static str) -> Result<(), BarError> {
        if self.is_empty() {
            return Err(BarError::Empty(end));
        }
        let columns = [&self.own, &self.other, &self.density];
        match columns.iter().find_map(|column| column.iter().position(|x| x.is_nan())) {
            Some(sample) => Err(BarError::NotANumber { end, sample }),
            None => Ok(()),
        }
    }
}

/// How errors are found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DifferenceSettings {
    /// Bootstrap resamplings; below 2 there are no bootstrap errors.
    pub replicates: usize,
    pub seed: u64,
}

/// One estimate of f₁ − f₀, in kT.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DifferenceEstimate {
    /// With bootstrap errors.
    pub estimate: Estimate,
    pub asymptotic_error: f64,
}

/// All estimates of f₁ − f₀.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// From samples of the end 0 alone; ±∞ where one end has no weight among them.
    pub forward: DifferenceEstimate,
    /// From samples of the end 1 alone.
    pub reverse: DifferenceEstimate,
    /// From all samples.
    pub both: DifferenceEstimate,
    /// Of two flows: from each end's own weights.
    pub targeted: Option<DifferenceEstimate>,
    /// ∫ 2p₀p₁/(p₀ + p₁) of the two ends' distributions: 1 where they are the same, 0 where they share nothing.
    pub overlap: f64,
    /// Statistical inefficiencies of both ends' samples: errors count so many for one.
    pub inefficiencies: [f64; 2],
}

/// f₁ − f₀ from samples of both ends. Two flows are sampled from the same latents, sample by sample.
pub fn difference(zero: &EndSamples, one: &EndSamples, settings: &DifferenceSettings) -> Result<Difference, BarError> {
    zero.check("first")?;
    one.check("second")?;
    let inefficiencies = [zero.inefficiency(), one.inefficiency()];
    let counts = [zero.len() as f64 / inefficiencies[0], one.len() as f64 / inefficiencies[1]];
    let flows = !zero.is_boltzmann() && !one.is_boltzmann();
    let gamma = match flows {
        true => 0.0,
        false => Equation { log_ratios: [zero.log_ratios(), one.log_ratios()], counts }.solve()?,
    };
    let mixture = Mixture { ends: [zero, one], counts, gamma_is_known: flows };
    let (rows, log_z) = mixture.rows(gamma);
    let paired = flows && zero.len() == one.len();
    let asymptotic = mixture.asymptotic(&rows, paired);
    let single = |end: usize| {
        let of_end = |of_zero: bool| -> Vec<f64> {
            let samples = mixture.ends[end];
            (0..samples.len()).map(|i| if of_zero == (end == 0) { samples.own(i) } else { samples.other(i) }).collect()
        };
        let weights = [of_end(true), of_end(false)];
        let log_z = [0, 1].map(|to| log_sum_exp(&weights[to]) - (samples_of(mixture.ends[end])).ln());
        let influence =
            (0..mixture.ends[end].len()).map(|i| (weights[0][i] - log_z[0]).exp() - (weights[1][i] - log_z[1]).exp());
        let error = (variance(influence) / counts[end]).sqrt();
        (log_z, error)
    };
    let (forward, reverse) = (single(0), single(1));
    // Each end's own weights: the first of the first end, the second of the second.
    let own = [forward.0[0], reverse.0[1]];
    let own_error = paired.then(|| {
        let influence = (0..zero.len()).map(|i| (zero.own(i) - own[0]).exp() - (one.own(i) - own[1]).exp());
        (variance(influence) / counts[0]).sqrt()
    });
    let values = [forward.0, reverse.0, log_z, own];
    let resampling = Resampling {
        mixture: &mixture,
        blocks: [Blocks::of(zero, inefficiencies[0]), Blocks::of(one, inefficiencies[1])],
        paired,
        gamma,
        spread: asymptotic,
        log_z: values,
    };
    let mut estimates = resampling.estimates(settings).into_iter();
    let mut next = |error: f64| {
        let estimate = estimates.next().unwrap_or_else(|| Estimate::without_error(f64::NAN));
        // Where one end has no weight at all there is no error either.
        let asymptotic_error = if estimate.value.is_finite() { error } else { f64::INFINITY };
        DifferenceEstimate { estimate, asymptotic_error }
    };
    let (forward, reverse) = (next(forward.1), next(reverse.1));
    let both = next(asymptotic);
    let targeted = own_error.map(&mut next);
    Ok(Difference { forward, reverse, both, targeted, overlap: overlap(&rows), inefficiencies })
}

fn samples_of(samples: &EndSamples) -> f64 {
    samples.len() as f64
}

/// What a sample is worth in the mixture of both sampled densities.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// The probability that it is of the other end's density.
    pub other: f64,
    /// r_k = e^(−u_k)/(n₀ρ₀ + n₁ρ₁e^γ) over Z_k, for both ends k: weights that add up to one over all samples, each times the number
    /// of independent samples over that of samples.
    pub weights: [f64; 2],
}

/// The samples of both ends as one.
pub(super) struct Mixture<'a> {
    pub ends: [&'a EndSamples; 2],
    /// Independent samples.
    pub counts: [f64; 2],
    pub gamma_is_known: bool,
}

impl Mixture<'_> {
    /// The probability of the other end's density at a sample, and log r_k of both ends.
    pub fn row(&self, end: usize, i: usize, gamma: f64) -> (f64, [f64; 2]) {
        let samples = self.ends[end];
        let offset = gamma + (self.counts[1] / self.counts[0]).ln();
        let ratio = samples.log_ratios().get(i).copied().unwrap_or(f64::NEG_INFINITY);
        let t = if end == 0 { offset + ratio } else { ratio - offset };
        let (log_other, log_own) = (log_logistic(t), log_logistic(-t));
        // log of the sampled densities' weights; that of end 1 is normalised by e^γ.
        let scales = [-self.counts[0].ln(), -gamma - self.counts[1].ln()];
        let own = if samples.is_boltzmann() { log_own } else { samples.own(i) + log_own };
        // Written by the other end's density where that is its Boltzmann factor, which may be infinite here.
        let other = if samples.density.is_empty() {
            log_other + scales[1 - end]
        } else {
            samples.other(i) + log_own + scales[end]
        };
        let own = own + scales[end];
        (log_other.exp(), if end == 0 { [own, other] } else { [other, own] })
    }

    /// The rows of both ends, and log Z of both.
    fn rows(&self, gamma: f64) -> ([Vec<Row>; 2], [f64; 2]) {
        let mut logs: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
        let mut others: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
        for end in 0..2 {
            let scale = (self.counts[end] / samples_of(self.ends[end])).ln();
            for i in 0..self.ends[end].len() {
                let (other, log_r) = self.row(end, i, gamma);
                others[end].push(other);
                logs.iter_mut().zip(log_r).for_each(|(logs, log_r)| logs.push(log_r + scale));
            }
        }
        let log_z = [log_sum_exp(&logs[0]), log_sum_exp(&logs[1])];
        let first = self.ends[0].len();
        let rows = [0, 1].map(|end| {
            let from = if end == 0 { 0 } else { first };
            let row = |(i, &other): (usize, &f64)| {
                let weights = [0, 1].map(|k| (logs[k][from + i] - log_z[k]).exp());
                Row { other, weights }
            };
            others[end].iter().enumerate().map(row).collect()
        });
        (rows, log_z)
    }

    /// The standard error of log Z₀ − log Z₁ from the influence of each sample on it. With g its term in Bennett's equation and I
    /// the slope of that, it is r₀/Z₀ − r₁/Z₁ − (∂(log Z₀ − log Z₁)/∂γ)·g/I.
    fn asymptotic(&self, rows: &[Vec<Row>; 2], paired: bool) -> f64 {
        let scale = |end: usize| self.counts[end] / samples_of(self.ends[end]);
        let (mut information, mut slope) = (0.0, 0.0);
        for end in 0..2 {
            for row in &rows[end] {
                // Weights of both ends fall with γ by the probability of the density 1.
                let of_one = if end == 0 { row.other } else { 1.0 - row.other };
                information += scale(end) * row.other * (1.0 - row.other);
                slope -= (row.weights[0] - row.weights[1]) * of_one;
            }
        }
        let follow = if self.gamma_is_known { 0.0 } else { slope / information };
        let influence = |end: usize, row: &Row| {
            let sign = if end == 0 { 1.0 } else { -1.0 };
            (row.weights[0] - row.weights[1]) / scale(end) - follow * sign * row.other
        };
        let of_end = |end: usize| rows[end].iter().map(move |row| influence(end, row));
        let total = match paired {
            true => self.counts[0] * variance(of_end(0).zip(of_end(1)).map(|(a, b)| a + b)),
            false => (0..2).map(|end| self.counts[end] * variance(of_end(end))).sum(),
        };
        total.sqrt()
    }
}

/// Σ 2ab/(a + b) over all samples, with the weights a and b of both ends.
fn overlap(rows: &[Vec<Row>; 2]) -> f64 {
    let shared = |row: &Row| {
        let [a, b] = row.weights;
        if a + b > 0.0 { 2.0 * a * b / (a + b) } else { 0.0 }
    };
    rows.iter().flatten().map(shared).sum::<f64>().min(1.0)
}

fn variance(numbers: impl Iterator<Item = f64>) -> f64 {
    let (mut n, mut mean, mut squares) = (0.0, 0.0, 0.0);
    for x in numbers {
        n += 1.0;
        let before = x - mean;
        mean += before / n;
        squares += before * (x - mean);
    }
    if n > 1.0 { squares / n } else { f64::INFINITY }
}
