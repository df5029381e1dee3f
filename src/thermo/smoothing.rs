//! Estimates from weights that were changed so that a few samples say less: with less variance, and with a bias that the exact
//! weights do not have.

use super::pareto::{smoothed_tail, tail_length};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The most samples kept.
const MAX_TAIL: usize = 65_536;

/// One of the heaviest samples.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeavySample {
    pub log_weight: f64,
    /// Reduced energy less its origin.
    pub energy: f64,
    /// The states that it is in, one bit each.
    pub states: u64,
}

impl PartialEq for HeavySample {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for HeavySample {}

impl PartialOrd for HeavySample {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for HeavySample {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let by_weight = self.log_weight.total_cmp(&other.log_weight);
        by_weight.then(self.energy.total_cmp(&other.energy)).then(self.states.cmp(&other.states))
    }
}

/// The heaviest of n samples: all that a change of weights changes.
#[derive(Clone, Debug, Default)]
pub(super) struct HeavySamples {
    samples: u64,
    kept: BinaryHeap<Reverse<HeavySample>>,
}

/// How weights are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The largest weights are those that a generalised Pareto distribution fitted to them has at their ranks, and none is larger
    /// than the largest was (Vehtari et al., "Pareto smoothed importance sampling", JMLR 25 (2024)).
    Smoothed,
    /// None is larger than √n times the mean (Ionides, "Truncated importance sampling", 2008).
    Truncated,
}

impl HeavySamples {
    pub fn add(&mut self, sample: HeavySample) {
        self.samples += 1;
        let capacity = (2 * tail_length(self.samples) + 64).min(MAX_TAIL);
        if self.kept.len() < capacity {
            self.kept.push(Reverse(sample));
        } else if self.kept.peek().is_some_and(|least| sample > least.0) {
            self.kept.pop();
            self.kept.push(Reverse(sample));
        }
    }

    /// The samples whose weights change and the logarithms of their new ones, given the logarithm of the mean weight; nothing where
    /// the tail cannot be fitted.
    pub fn changed(&self, change: Change, log_mean: f64) -> Option<Vec<(HeavySample, f64)>> {
        let mut samples: Vec<HeavySample> = self.kept.iter().map(|kept| kept.0).collect();
        samples.sort_unstable_by(|a, b| b.cmp(a));
        match change {
            Change::Truncated => {
                let most = log_mean + 0.5 * (self.samples as f64).ln();
                Some(samples.into_iter().take_while(|s| s.log_weight > most).map(|s| (s, most)).collect())
            }
            Change::Smoothed => {
                let weights: Vec<f64> = samples.iter().map(|s| s.log_weight).collect();
                Some(samples.into_iter().zip(smoothed_tail(self.samples, &weights)?).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::{Purpose, Randoms};

    fn mean(log_weights: &[f64], changed: &[(HeavySample, f64)]) -> f64 {
        let gain: f64 = changed.iter().map(|(sample, new)| new.exp() - sample.log_weight.exp()).sum();
        (log_weights.iter().map(|w| w.exp()).sum::<f64>() + gain) / log_weights.len() as f64
    }

    /// Pareto weights of shape 0.6, mean 2.5 and no variance: over 200 repetitions smoothing brings the spread of means down, and
    /// truncation at √n times the mean changes just the weights over it.
    #[test]
    fn changed_weights_have_less_noise() {
        let n = 4000u64;
        let (mut raw, mut smoothed) = (Vec::new(), Vec::new());
        for seed in 0..200 {
            let mut random = Randoms::new(seed, Purpose::Validation, 1);
            let log_weights: Vec<f64> = (0..n).map(|_| -0.6 * random.uniform().ln()).collect();
            let mut heavy = HeavySamples::default();
            for &log_weight in &log_weights {
                heavy.add(HeavySample { log_weight, energy: 0.0, states: 0 });
            }
            let exact = mean(&log_weights, &[]);
            raw.push(exact);
            let changed = heavy.changed(Change::Smoothed, exact.ln()).unwrap();
            assert_eq!(changed.len(), tail_length(n));
            assert!(changed.iter().all(|(_, new)| *new <= changed[0].0.log_weight));
            smoothed.push(mean(&log_weights, &changed));
            let most = exact * (n as f64).sqrt();
            let truncated = heavy.changed(Change::Truncated, exact.ln()).unwrap();
            assert_eq!(truncated.len(), log_weights.iter().filter(|w| w.exp() > most).count());
            assert!(truncated.iter().all(|(_, new)| (new.exp() / most - 1.0).abs() < 1e-12));
        }
        let error = |means: &[f64]| (means.iter().map(|m| (m - 2.5).powi(2)).sum::<f64>() / means.len() as f64).sqrt();
        println!("raw {}, smoothed {}", error(&raw), error(&smoothed));
        assert!(error(&smoothed) < error(&raw));
    }

    #[test]
    fn weights_that_are_all_alike_have_no_tail_to_smooth() {
        let mut heavy = HeavySamples::default();
        (0..100).for_each(|_| heavy.add(HeavySample { log_weight: 1.0, energy: 0.0, states: 1 }));
        assert!(heavy.changed(Change::Smoothed, 1.0).is_none());
        assert_eq!(heavy.changed(Change::Truncated, 1.0).unwrap().len(), 0);
    }
}
