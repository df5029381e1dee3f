//! How far a set of log weights is to be trusted.

use super::pareto::{pareto_k, pareto_k_threshold, tail_length};
use super::unseen::MOST_BIAS;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The most weights kept for the Pareto fit: the tail of 480 million samples.
const MAX_TAIL: usize = 65_536;

/// A running account of log weights, in memory that grows with the square root of their number.
///
/// The tail is kept in a heap whose capacity grows with the samples seen; an early weight that falls out of it could
/// only come back into the tail if weights grew smaller as sampling goes on, which independent samples do not do.
#[derive(Clone, Debug, Default)]
pub struct WeightAccumulator {
    samples: u64,
    non_finite: u64,
    beyond_cut: Option<u64>,
    /// The largest log weight; Σw and Σw² in units of that weight and of its square.
    largest: f64,
    sum: f64,
    sum_of_squares: f64,
    sum_of_negative_logs: f64,
    tail: BinaryHeap<Reverse<Ordered>>,
}

/// f64 in the total order of IEEE 754.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ordered(f64);

impl Eq for Ordered {}

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// What is known of n weighted samples. Logarithms are natural.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightSummary {
    /// The number n of samples.
    pub samples: u64,
    /// Samples whose energy or density was infinite or not a number. Their weight is zero, and they count in n.
    pub non_finite: u64,
    /// Samples whose energy is over the one that training saw as it is, where they were counted. Their weight is exact like any.
    pub beyond_cut: Option<u64>,
    /// Of independent samples, where it was looked for: the share of the target in places that so many samples have one sample of,
    /// beyond that one's. Where it does not come, log Z is too small by it.
    pub unseen_share: Option<f64>,
    /// Kish's effective sample size (Σw)²/Σw².
    pub effective_samples: f64,
    /// Shape k̂ of the weights' tail; NaN if there are too few samples or all weights are equal.
    pub pareto_k: f64,
    /// Above this k̂, standard errors of n samples cannot be trusted.
    pub pareto_k_threshold: f64,
    /// Share of the largest weight in the sum.
    pub largest_share: f64,
    /// log of the mean weight: the estimate of log Z.
    pub log_z: f64,
    /// Standard error of `log_z` by the delta method.
    pub log_z_standard_error: f64,
    /// The reverse Kullback-Leibler bound −⟨log w⟩ ≥ −log Z (equations 25, 26 and 43 of the note); +∞ if any weight is
    /// zero.
    pub free_energy_bound: f64,
}

impl WeightSummary {
    /// Effective samples as a fraction of the samples; zero of none. Equal weights may round to a little more than all.
    pub fn effective_fraction(&self) -> f64 {
        (self.effective_samples / self.samples.max(1) as f64).min(1.0)
    }

    /// Whether the tail of the weights lets errors be believed. k̂ is NaN where all weights are alike, which is the best
    /// case, or where hardly any sample has one.
    pub fn tail_is_light(&self) -> bool {
        if self.pareto_k.is_nan() {
            return self.effective_samples >= 0.5 * self.samples as f64;
        }
        self.pareto_k <= self.pareto_k_threshold
    }

    /// Whether errors are to be believed: by the tail of the weights, and since what is not seen is small beside them.
    pub fn is_believable(&self) -> bool {
        self.tail_is_light() && !self.misses_a_part()
    }

    /// Whether log Z may be off by more than it may for what is not seen.
    pub fn misses_a_part(&self) -> bool {
        self.unseen_share.is_some_and(|share| share > MOST_BIAS * self.log_z_standard_error)
    }
}

impl WeightAccumulator {
    /// Adds the log weight of a sample; −∞ for one that counts but has no weight.
    pub fn add(&mut self, log_weight: f64) {
        self.samples += 1;
        if log_weight == f64::NEG_INFINITY {
            self.non_finite += 1;
            self.sum_of_negative_logs = f64::INFINITY;
            return;
        }
        if self.sum == 0.0 {
            (self.largest, self.sum, self.sum_of_squares) = (log_weight, 1.0, 1.0);
        } else if log_weight <= self.largest {
            let w = (log_weight - self.largest).exp();
            self.sum += w;
            self.sum_of_squares += w * w;
        } else {
            let w = (self.largest - log_weight).exp();
            self.sum = self.sum * w + 1.0;
            self.sum_of_squares = self.sum_of_squares * w * w + 1.0;
            self.largest = log_weight;
        }
        self.sum_of_negative_logs -= log_weight;
        self.keep_in_tail(log_weight);
    }

    /// Adds a sample that has no weight for good reason: nothing about it is infinite or not a number.
    pub fn add_weightless(&mut self) {
        self.samples += 1;
        self.sum_of_negative_logs = f64::INFINITY;
    }

    /// Counts energies U/kT beyond the cut of training, those that are not numbers among them.
    pub fn count_beyond(&mut self, reduced_energies: &[f64], cut: f64) {
        let within = reduced_energies.iter().filter(|u| **u <= cut).count();
        *self.beyond_cut.get_or_insert(0) += (reduced_energies.len() - within) as u64;
    }

    fn keep_in_tail(&mut self, log_weight: f64) {
        let capacity = (2 * tail_length(self.samples) + 64).min(MAX_TAIL);
        if self.tail.len() < capacity {
            self.tail.push(Reverse(Ordered(log_weight)));
        } else if self.tail.peek().is_some_and(|smallest| log_weight > smallest.0.0) {
            self.tail.pop();
            self.tail.push(Reverse(Ordered(log_weight)));
        }
    }

    /// The number of samples added.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Kish's effective sample size; zero for no samples.
    pub fn effective_samples(&self) -> f64 {
        if self.sum == 0.0 { 0.0 } else { self.sum * self.sum / self.sum_of_squares }
    }

    pub fn summary(&self) -> WeightSummary {
        let n = self.samples as f64;
        let effective_samples = self.effective_samples();
        let weightless = effective_samples == 0.0;
        WeightSummary {
            samples: self.samples,
            non_finite: self.non_finite,
            beyond_cut: self.beyond_cut,
            unseen_share: None,
            effective_samples,
            pareto_k: pareto_k(self.samples, self.tail.iter().map(|w| w.0.0).collect()),
            pareto_k_threshold: pareto_k_threshold(self.samples),
            largest_share: if weightless { f64::NAN } else { 1.0 / self.sum },
            log_z: if weightless { f64::NEG_INFINITY } else { self.largest + self.sum.ln() - n.ln() },
            log_z_standard_error: if weightless || self.samples < 2 {
                f64::INFINITY
            } else {
                ((n / effective_samples - 1.0).max(0.0) / (n - 1.0)).sqrt()
            },
            free_energy_bound: self.sum_of_negative_logs / n,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::{Purpose, Randoms};

    #[test]
    fn equal_weights_are_all_effective() {
        let mut account = WeightAccumulator::default();
        (0..1000).for_each(|_| account.add(-3.0));
        let s = account.summary();
        assert!((s.effective_samples - 1000.0).abs() < 1e-6);
        assert!((s.log_z + 3.0).abs() < 1e-12 && s.log_z_standard_error < 1e-6);
        assert!((s.largest_share - 1e-3).abs() < 1e-9 && (s.free_energy_bound - 3.0).abs() < 1e-12);
    }

    /// w = exp(σξ − σ²/2): ESS/n = exp(−σ²), log Z = 0. Bounds are five standard errors of 200,000 samples.
    #[test]
    fn log_normal_weights_have_their_known_efficiency() {
        let sigma = 0.7f64;
        let mut account = WeightAccumulator::default();
        let mut random = Randoms::new(4, Purpose::Validation, 0);
        let n = 200_000;
        (0..n).for_each(|_| account.add(sigma * random.normal() - 0.5 * sigma * sigma));
        let s = account.summary();
        assert!((s.effective_samples / f64::from(n) - (-sigma * sigma).exp()).abs() < 0.02);
        assert!(s.log_z.abs() < 5.0 * s.log_z_standard_error);
        let expected = (((sigma * sigma).exp() - 1.0) / f64::from(n)).sqrt();
        assert!((s.log_z_standard_error / expected - 1.0).abs() < 0.05);
        assert!(s.pareto_k < 0.5);
        assert!((s.free_energy_bound - 0.5 * sigma * sigma).abs() < 0.01);
    }

    #[test]
    fn weightless_samples_count_and_are_reported() {
        let mut account = WeightAccumulator::default();
        [0.0, f64::NEG_INFINITY, 0.0, f64::NEG_INFINITY].into_iter().for_each(|w| account.add(w));
        let s = account.summary();
        assert_eq!((s.samples, s.non_finite), (4, 2));
        assert!((s.log_z - 0.5f64.ln()).abs() < 1e-12);
        assert_eq!(s.free_energy_bound, f64::INFINITY);
        assert_eq!(WeightAccumulator::default().effective_samples(), 0.0);
    }
}
