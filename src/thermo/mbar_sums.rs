//! The sums over samples that MBAR is made of, in passes that threads share.
//!
//! A pass goes over blocks of samples that fit in a core's cache, and adds them up in stripes whose number and limits
//! depend on the number of samples alone: the same bits for any number of threads.

use rayon::prelude::*;

/// Samples in a block.
const BLOCK: usize = 128;

/// Stripes that a pass is shared in.
const STRIPES: usize = 64;

/// Free energies this far (kT) from those of the reference are reached without new exponentials: what is lost of a sum to
/// the range of f64 is then below e³⁰·10⁻³⁰⁸ of it.
pub(super) const REACH: f64 = 30.0;

/// The probabilities p (states, samples) of the states at each sample, p_k = N_k exp(f_k − u_k) / Σ_j N_j exp(f_j − u_j),
/// for reference free energies f; those for others near by are products. In blocks of samples, each (states, samples of
/// the block).
pub(super) struct Mixture<'a> {
    /// Reduced energies (states, samples) of the sampled states, by state.
    rows: Vec<&'a [f64]>,
    /// log N_k.
    log_counts: Vec<f64>,
    reference: Vec<f64>,
    probabilities: Vec<f64>,
}

/// Sums over all samples, of probabilities or weights a (states, samples).
#[derive(Clone, Debug)]
pub(super) struct Sums {
    /// Σ_n a_kn (states).
    pub first: Vec<f64>,
    /// Σ_n a_in a_jn (states, states); of zeros if it was not asked for.
    pub second: Vec<f64>,
}

impl Sums {
    fn new(states: usize) -> Self {
        Self { first: vec![0.0; states], second: vec![0.0; states * states] }
    }

    fn merge(mut self, other: &Self) -> Self {
        self.first.iter_mut().zip(&other.first).for_each(|(a, b)| *a += b);
        self.second.iter_mut().zip(&other.second).for_each(|(a, b)| *a += b);
        self
    }

    /// Adds a block a (states, samples of the block).
    fn add(&mut self, block: &[f64], states: usize, second: bool) {
        let b = block.len() / states;
        for (i, a) in block.chunks_exact(b).enumerate() {
            self.first[i] += sum(a);
            if second {
                for (j, other) in block[..(i + 1) * b].chunks_exact(b).enumerate() {
                    self.second[i * states + j] += dot(a, other);
                }
            }
        }
    }

    /// The other half of the second moments.
    fn mirrored(mut self) -> Self {
        let states = self.first.len();
        for i in 0..states {
            for j in 0..i {
                self.second[j * states + i] = self.second[i * states + j];
            }
        }
        self
    }
}

impl<'a> Mixture<'a> {
    pub fn new(rows: Vec<&'a [f64]>, counts: &[f64], reference: Vec<f64>) -> Self {
        let samples = rows.first().map_or(0, |row| row.len());
        let probabilities = vec![0.0; rows.len() * samples];
        let log_counts = counts.iter().map(|n| n.ln()).collect();
        let mut mixture = Self { rows, log_counts, reference, probabilities };
        mixture.fill();
        mixture
    }

    /// Σ p and Σ pp at free energies f; the second only if it is asked for.
    pub fn sums(&mut self, f: &[f64], second: bool) -> Sums {
        if f.iter().zip(&self.reference).any(|(f, r)| (f - r).abs() > REACH) {
            self.reference.copy_from_slice(f);
            self.fill();
        }
        let states = self.rows.len();
        let factors: Vec<f64> = f.iter().zip(&self.reference).map(|(f, r)| (f - r).exp()).collect();
        let stripe = stripe_blocks(self.probabilities.len() / states) * BLOCK * states;
        let stripes: Vec<Sums> = self
            .probabilities
            .par_chunks(stripe)
            .map(|stripe| {
                let mut sums = Sums::new(states);
                let mut scratch = vec![0.0; states * BLOCK];
                for block in stripe.chunks(states * BLOCK) {
                    let scaled = &mut scratch[..block.len()];
                    scale(block, &factors, scaled);
                    sums.add(scaled, states, second);
                }
                sums
            })
            .collect();
        stripes.iter().fold(Sums::new(states), Sums::merge).mirrored()
    }

    /// log Σ_k N_k exp(f_k − u_kn) of each sample.
    pub fn log_densities(&self, f: &[f64]) -> Vec<f64> {
        let mut all = vec![0.0; self.probabilities.len() / self.rows.len()];
        all.par_chunks_mut(BLOCK).enumerate().for_each(|(block, out)| {
            let mut logits = vec![0.0; self.rows.len() * out.len()];
            self.logits(block, f, &mut logits);
            normalise(&mut logits, out);
        });
        all
    }

    fn fill(&mut self) {
        let mut probabilities = std::mem::take(&mut self.probabilities);
        let states = self.rows.len();
        probabilities.par_chunks_mut(states * BLOCK).enumerate().for_each(|(block, out)| {
            self.logits(block, &self.reference, out);
            normalise(out, &mut [0.0; BLOCK][..out.len() / states]);
        });
        self.probabilities = probabilities;
    }

    /// log N_k + f_k − u_kn of a block.
    fn logits(&self, block: usize, f: &[f64], out: &mut [f64]) {
        let b = out.len() / self.rows.len();
        for (k, out) in out.chunks_exact_mut(b).enumerate() {
            let shift = self.log_counts[k] + f[k];
            out.iter_mut().zip(&self.rows[k][block * BLOCK..]).for_each(|(o, u)| *o = shift - u);
        }
    }
}

/// Σ W and Σ WW of weights W_kn = exp(f_k − u_kn − log D_n), D_n being the samples' densities.
pub(super) fn weight_sums(rows: &[&[f64]], f: &[f64], log_densities: &[f64]) -> Sums {
    let states = rows.len();
    let stripe = stripe_blocks(log_densities.len()) * BLOCK;
    let stripes: Vec<Sums> = log_densities
        .par_chunks(stripe)
        .enumerate()
        .map(|(number, densities)| {
            let mut sums = Sums::new(states);
            let mut scratch = vec![0.0; states * BLOCK];
            for (block, densities) in densities.chunks(BLOCK).enumerate() {
                let weights = &mut scratch[..states * densities.len()];
                for ((row, f), out) in rows.iter().zip(f).zip(weights.chunks_exact_mut(densities.len())) {
                    let energies = &row[number * stripe + block * BLOCK..];
                    for ((o, u), d) in out.iter_mut().zip(energies).zip(densities) {
                        *o = (f - u - d).exp();
                    }
                }
                sums.add(weights, states, true);
            }
            sums
        })
        .collect();
    stripes.iter().fold(Sums::new(states), Sums::merge).mirrored()
}

/// Blocks in a stripe.
fn stripe_blocks(samples: usize) -> usize {
    samples.div_ceil(BLOCK).div_ceil(STRIPES).max(1)
}

/// Makes probabilities of logits (states, samples of a block), and gives log Σ exp of each sample. A sample of which no
/// state can be, whose logits are all −∞, must have been refused before.
fn normalise(logits: &mut [f64], log_sums: &mut [f64]) {
    let b = log_sums.len();
    let mut largest = [f64::NEG_INFINITY; BLOCK];
    let mut total = [0.0; BLOCK];
    for row in logits.chunks_exact(b) {
        largest.iter_mut().zip(row).for_each(|(l, x)| *l = l.max(*x));
    }
    for row in logits.chunks_exact_mut(b) {
        for ((x, l), t) in row.iter_mut().zip(&largest).zip(&mut total) {
            *x = (*x - l).exp();
            *t += *x;
        }
    }
    for row in logits.chunks_exact_mut(b) {
        row.iter_mut().zip(&total).for_each(|(x, t)| *x /= t);
    }
    log_sums.iter_mut().zip(&largest).zip(&total).for_each(|((s, l), t)| *s = l + t.ln());
}

/// Probabilities at other free energies: those of the block times the states' factors, normalised.
fn scale(block: &[f64], factors: &[f64], out: &mut [f64]) {
    let b = block.len() / factors.len();
    let mut total = [0.0; BLOCK];
    for ((row, factor), out) in block.chunks_exact(b).zip(factors).zip(out.chunks_exact_mut(b)) {
        for ((p, o), t) in row.iter().zip(out).zip(&mut total) {
            *o = p * factor;
            *t += *o;
        }
    }
    total.iter_mut().for_each(|t| *t = 1.0 / *t);
    for out in out.chunks_exact_mut(b) {
        out.iter_mut().zip(&total).for_each(|(o, t)| *o *= t);
    }
}

fn sum(a: &[f64]) -> f64 {
    lanes(a.chunks_exact(8).map(|a| std::array::from_fn(|i| a[i])), a.chunks_exact(8).remainder().iter().copied())
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (heads, tails) = (a.chunks_exact(8).zip(b.chunks_exact(8)), (a.chunks_exact(8), b.chunks_exact(8)));
    let tail = tails.0.remainder().iter().zip(tails.1.remainder()).map(|(a, b)| a * b);
    lanes(heads.map(|(a, b)| std::array::from_fn(|i| a[i] * b[i])), tail)
}

/// Sums in eight independent lanes, which the processor can keep side by side.
#[inline(always)]
fn lanes(heads: impl Iterator<Item = [f64; 8]>, tail: impl Iterator<Item = f64>) -> f64 {
    let mut sums = [0.0; 8];
    for head in heads {
        sums.iter_mut().zip(head).for_each(|(s, h)| *s += h);
    }
    sums.iter().sum::<f64>() + tail.sum::<f64>()
}
