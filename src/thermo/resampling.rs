//! Bootstrap errors of a free-energy difference.
//!
//! The samples of each end are dealt into blocks, as cards are: neighbours in different blocks, so that those of a trajectory are
//! as correlated as their samples. Of N blocks N/g are drawn with replacement, with the statistical inefficiency g. Bennett's
//! equation is solved again for each drawing: the sums of a block are known at some γ around the answer with their slopes, and a
//! cubic goes between them.

use super::bootstrap::{Estimate, summarise};
use super::difference::{DifferenceSettings, EndSamples, Mixture};
use crate::math::{LogSumExp, Purpose, Randoms};
use rayon::prelude::*;

/// Blocks of an end, at most.
const MOST_BLOCKS: usize = 1024;

/// Errors that a drawing may be away from the answer.
const REACH: f64 = 10.0;

/// kT between two γ, at most; a cubic's error is then below 1e-4 of a sum.
const STEP: f64 = 0.5;

/// γ on each side of the answer: at least, and at most.
const FEWEST_POINTS: usize = 4;
const MOST_POINTS: usize = 400;

/// Halvings of the interval between two γ.
const HALVINGS: usize = 50;

/// The samples i, i + blocks, i + 2·blocks … of an end are its block i.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocks {
    samples: usize,
    blocks: usize,
    /// Blocks of a drawing.
    drawn: usize,
}

impl Blocks {
    pub fn of(samples: &EndSamples, inefficiency: f64) -> Self {
        let blocks = samples.len().min(MOST_BLOCKS);
        let drawn = ((blocks as f64 / inefficiency).round() as usize).clamp(1, blocks.max(1));
        Self { samples: samples.len(), blocks, drawn }
    }

    fn samples_of(self, block: usize) -> impl Iterator<Item = usize> {
        (block..self.samples).step_by(self.blocks.max(1))
    }

    /// How often each block is in a drawing, and how many samples that are.
    fn draw(self, random: &mut Randoms) -> (Vec<u32>, f64) {
        let mut counts = vec![0; self.blocks];
        for _ in 0..self.drawn {
            if let Some(count) = counts.get_mut(random.below(self.blocks as u64) as usize) {
                *count += 1;
            }
        }
        let samples = counts.iter().enumerate().map(|(b, &n)| f64::from(n) * self.samples_of(b).count() as f64).sum();
        (counts, samples)
    }
}

/// What is resampled, and the answers around which.
pub(super) struct Resampling<'a> {
    pub mixture: &'a Mixture<'a>,
    pub blocks: [Blocks; 2],
    /// The blocks of both ends are drawn together.
    pub paired: bool,
    pub gamma: f64,
    /// The asymptotic error of the answer from both ends.
    pub spread: f64,
    /// log Z of both ends by each estimator: forward, reverse, both, targeted.
    pub log_z: [[f64; 2]; 4],
}

/// Sums over a block's samples at one γ, with their derivatives: Σ p of the other end, Σ r₀/Z₀, Σ r₁/Z₁.
#[derive(Clone, Copy, Default)]
struct Sums([(f64, f64); 3]);

/// Means over a block's samples of the weights to both ends, over those of the answer.
#[derive(Clone, Copy, Default)]
struct Weights([f64; 2]);

impl Resampling<'_> {
    /// The estimates forward, reverse, both, targeted.
    pub fn estimates(&self, settings: &DifferenceSettings) -> Vec<Estimate> {
        let values = self.log_z.map(|[zero, one]| zero - one);
        if settings.replicates < 2 || self.blocks.iter().any(|b| b.drawn < 2) {
            return values.into_iter().map(Estimate::without_error).collect();
        }
        let gammas = self.gammas();
        let tables = [0, 1].map(|end| self.table(end, &gammas));
        let weights = [0, 1].map(|end| self.weights(end));
        let replicate = |r: usize| {
            let mut random = Randoms::new(settings.seed, Purpose::Bootstrap, r as u64);
            let first = self.blocks[0].draw(&mut random);
            let second = if self.paired { first.clone() } else { self.blocks[1].draw(&mut random) };
            let drawn = [first, second];
            let single = |end: usize| {
                let sums = total(&drawn[end].0, &weights[end], |sum: &mut Weights, w, n| {
                    sum.0.iter_mut().zip(w.0).for_each(|(s, w)| *s += n * w);
                });
                sums.0.map(|sum| (sum / drawn[end].1).ln())
            };
            let (forward, reverse) = (single(0), single(1));
            let both = self.solve(&gammas, &tables, &drawn);
            [forward[0] - forward[1], reverse[0] - reverse[1], both, forward[0] - reverse[1]]
        };
        let rows: Vec<[f64; 4]> = (0..settings.replicates).into_par_iter().map(replicate).collect();
        let column = |(j, value): (usize, f64)| {
            if !value.is_finite() {
                return Estimate::without_error(value);
            }
            summarise(value, rows.iter().map(|row| value + row[j]).collect())
        };
        values.into_iter().enumerate().map(column).collect()
    }

    /// Where Bennett's equation is looked at; only at the answer if γ is known.
    fn gammas(&self) -> Vec<f64> {
        if self.mixture.gamma_is_known {
            return vec![self.gamma];
        }
        let rounding = 1e-9 * self.gamma.abs().max(1.0);
        let reach =
            if self.spread.is_finite() { (REACH * self.spread).max(rounding) } else { STEP * MOST_POINTS as f64 };
        let points = ((reach / STEP).ceil() as usize).clamp(FEWEST_POINTS, MOST_POINTS);
        let step = (reach / points as f64).min(STEP);
        (0..=2 * points).map(|i| self.gamma + step * (i as f64 - points as f64)).collect()
    }

    /// The sums of each block of an end (blocks, γ).
    fn table(&self, end: usize, gammas: &[f64]) -> Vec<Vec<Sums>> {
        let [_, _, log_z, _] = self.log_z;
        let sums = |gamma: f64, block: usize| {
            let mut sums = Sums::default();
            for i in self.blocks[end].samples_of(block) {
                let (other, log_r) = self.mixture.row(end, i, gamma);
                let of_one = if end == 0 { other } else { 1.0 - other };
                let slope = other * (1.0 - other) * if end == 0 { 1.0 } else { -1.0 };
                let mut terms = [(other, slope); 3];
                for k in 0..2 {
                    let r = (log_r[k] - log_z[k]).exp();
                    terms[k + 1] = (r, -r * of_one);
                }
                sums.0.iter_mut().zip(terms).for_each(|(sum, term)| {
                    sum.0 += term.0;
                    sum.1 += term.1;
                });
            }
            sums
        };
        let of_block = |block: usize| gammas.iter().map(|&gamma| sums(gamma, block)).collect();
        (0..self.blocks[end].blocks).into_par_iter().map(of_block).collect()
    }

    /// The weights of each block of an end to the ends 0 and 1.
    fn weights(&self, end: usize) -> Vec<Weights> {
        let samples = self.mixture.ends[end];
        let log_z = self.log_z[end];
        let of_block = |block: usize| {
            let mut sums = [LogSumExp::default(); 2];
            for i in self.blocks[end].samples_of(block) {
                let (own, other) = (samples.own(i), samples.other(i));
                let log_w = if end == 0 { [own, other] } else { [other, own] };
                sums.iter_mut().zip(log_w).for_each(|(sum, w)| sum.add(w));
            }
            Weights([0, 1].map(|k| (sums[k].value() - log_z[k]).exp()))
        };
        (0..self.blocks[end].blocks).map(of_block).collect()
    }

    /// The answer from both ends' drawings, less that from all samples; NaN where it is beyond the γ that were looked at.
    fn solve(&self, gammas: &[f64], tables: &[Vec<Vec<Sums>>; 2], drawn: &[(Vec<u32>, f64); 2]) -> f64 {
        let sums: Vec<Vec<Sums>> = [0, 1]
            .into_iter()
            .map(|end| {
                // As many independent samples as the answer has.
                let scale = self.mixture.counts[end] / drawn[end].1;
                let mut sums = vec![Sums::default(); gammas.len()];
                for (&n, block) in drawn[end].0.iter().zip(&tables[end]).filter(|(n, _)| **n > 0) {
                    for (sum, term) in sums.iter_mut().zip(block) {
                        for (s, t) in sum.0.iter_mut().zip(term.0) {
                            s.0 += scale * f64::from(n) * t.0;
                            s.1 += scale * f64::from(n) * t.1;
                        }
                    }
                }
                sums
            })
            .collect();
        let (zero, one) = (&sums[0], &sums[1]);
        // Bennett's equation, Z₀ and Z₁ at each γ, with their slopes.
        let curves: Vec<[(f64, f64); 3]> = zero
            .iter()
            .zip(one)
            .map(|(a, b)| {
                let join = |k: usize, sign: f64| (a.0[k].0 + sign * b.0[k].0, a.0[k].1 + sign * b.0[k].1);
                [join(0, -1.0), join(1, 1.0), join(2, 1.0)]
            })
            .collect();
        if let [only] = curves.as_slice() {
            return only[1].0.ln() - only[2].0.ln();
        }
        let Some(cell) = (1..curves.len()).find(|&i| curves[i - 1][0].0 <= 0.0 && curves[i][0].0 >= 0.0) else {
            return f64::NAN;
        };
        let step = gammas[cell] - gammas[cell - 1];
        let at = |k: usize, x: f64| cubic(curves[cell - 1][k], curves[cell][k], step, x);
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..HALVINGS {
            let middle = 0.5 * (low + high);
            if at(0, middle) > 0.0 {
                high = middle;
            } else {
                low = middle;
            }
        }
        let x = 0.5 * (low + high);
        at(1, x).ln() - at(2, x).ln()
    }
}

fn total<T: Default>(counts: &[u32], blocks: &[T], add: impl Fn(&mut T, &T, f64)) -> T {
    let mut sum = T::default();
    for (&n, block) in counts.iter().zip(blocks).filter(|(n, _)| **n > 0) {
        add(&mut sum, block, f64::from(n));
    }
    sum
}

/// The cubic through two values with two slopes, `step` apart, at a part x of the way (Hermite).
fn cubic(from: (f64, f64), to: (f64, f64), step: f64, x: f64) -> f64 {
    let y = 1.0 - x;
    let value = from.0 * y * y * (1.0 + 2.0 * x) + to.0 * x * x * (1.0 + 2.0 * y);
    value + step * x * y * (from.1 * y - to.1 * x)
}
