//! Equal weights: samples are taken as often as their weights say.
//!
//! Systematic resampling (Kitagawa 1996): n places at equal distances on the line of cumulated weights, shifted together by one
//! random number. Each row is taken ⌊nW⌋ or ⌈nW⌉ times, nW times on average, W being its share of the weights.

use super::importance::{SampleKey, WeightedBatch};
use crate::math::{Purpose, Randoms, log_sum_exp};
use crate::thermo::WeightAccumulator;
use std::ops::RangeInclusive;

/// Windows have so many samples.
pub const WINDOWS: RangeInclusive<usize> = 16..=65_536;

/// Which rows are taken, in their order, from log weights (n) of any size and a number in [0, 1); nothing if no row has weight.
pub(super) fn systematic(log_weights: &[f64], shift: f64) -> Option<Vec<usize>> {
    let n = log_weights.len();
    let largest = log_weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !largest.is_finite() {
        return None;
    }
    let weights: Vec<f64> = log_weights.iter().map(|w| (w - largest).exp()).collect();
    let step = weights.iter().sum::<f64>() / n as f64;
    let mut taken = Vec::with_capacity(n);
    let mut cumulated = 0.0;
    for (row, weight) in weights.iter().enumerate() {
        cumulated += weight;
        while taken.len() < n && (taken.len() as f64 + shift) * step < cumulated {
            taken.push(row);
        }
    }
    // What rounding leaves over at the end is the last row's that has weight.
    let last = weights.iter().rposition(|w| *w > 0.0)?;
    taken.resize(n, last);
    Some(taken)
}

/// The random number of a resampling: the `step`-th of population or window `number`.
pub(super) fn shift(key: &SampleKey, number: u64, step: u64) -> f64 {
    let purpose = if key.purpose == Purpose::Sample { Purpose::SampleResampling } else { Purpose::PilotResampling };
    let mut random = Randoms::new(key.seed, purpose, number);
    (0..step).for_each(|_| {
        random.uniform();
    });
    random.uniform()
}

/// Samples that were computed together, and depend on each other: the last of what they are made of decides on all.
#[derive(Clone, Debug, Default)]
pub struct Together {
    /// In an order that knows nothing of weights, with their ancestors.
    pub batch: WeightedBatch,
    /// log of the summed weights of each ancestor's samples (n): independent, or nearly, from one ancestor to the next, and
    /// their mean is Z. −∞ of ancestors without any.
    pub log_family_weights: Vec<f64>,
    /// How many of these never had weight, since an energy or density was not finite.
    pub non_finite: usize,
    /// Of a window, log weights of the draws themselves (n), which are independent; else empty.
    drawn: Vec<f64>,
}

impl Together {
    /// Adds the weights to an account: of a window, those of its draws; of a population, those of its ancestors, a number of whom
    /// may have equal ones.
    pub fn account(&self, weights: &mut WeightAccumulator) {
        if self.drawn.is_empty() {
            self.account_copies(weights);
        }
        self.drawn.iter().for_each(|&w| weights.add(w));
    }

    /// Adds the weights that all samples of each ancestor have together.
    pub fn account_copies(&self, weights: &mut WeightAccumulator) {
        let mut non_finite = self.non_finite;
        for &w in &self.log_family_weights {
            if w > f64::NEG_INFINITY || non_finite > 0 {
                weights.add(w);
                non_finite -= usize::from(w == f64::NEG_INFINITY);
            } else {
                weights.add_weightless();
            }
        }
    }

    /// Of samples in the order of their ancestors, n of which there are from `first` on.
    pub(super) fn new(key: &SampleKey, batch: WeightedBatch, first: u64, n: usize, non_finite: usize) -> Self {
        let mut log_family_weights = vec![f64::NEG_INFINITY; n];
        let mut from = 0;
        for family in batch.ancestors.chunk_by(|a, b| a == b) {
            let rows = from..from + family.len();
            from = rows.end;
            if let Some(place) = family.first().and_then(|a| log_family_weights.get_mut((a - first) as usize)) {
                *place = log_sum_exp(&batch.log_weights[rows]);
            }
        }
        // The first of those in order would be of light ancestors: a part of what is computed together must be like the whole.
        let mut random = Randoms::new(key.seed, Purpose::SampleOrder, first);
        let mut order: Vec<usize> = (0..batch.len()).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, random.below(i as u64 + 1) as usize);
        }
        Self { batch: batch.rows(&order), log_family_weights, non_finite, drawn: Vec::new() }
    }
}

/// A window of draws of the flow as equal weights. The logarithm of each is that of the window's mean weight, so that averages
/// over windows have no bias that a window is too small for. Of a window without any weight all draws are taken, and have none.
pub fn resampled(key: &SampleKey, drawn: &WeightedBatch) -> Together {
    let window = drawn.len();
    let log_mean = log_sum_exp(&drawn.log_weights) - (window as f64).ln();
    let non_finite = drawn.log_weights.iter().filter(|w| **w == f64::NEG_INFINITY).count();
    let number = drawn.first_index / window.max(1) as u64;
    let order = systematic(&drawn.log_weights, shift(key, number, 0));
    let mut batch = drawn.rows(&order.unwrap_or_else(|| (0..window).collect()));
    batch.log_weights.fill(log_mean);
    let together = Together::new(key, batch, drawn.first_index, window, non_finite);
    Together { drawn: drawn.log_weights.clone(), ..together }
}
