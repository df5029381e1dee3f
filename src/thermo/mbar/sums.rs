//! The sums over samples that MBAR is made of, in passes that threads share.
//!
//! A pass takes the exponentials anew, so that nothing of the size of u_kn is kept beside it. It goes over blocks of samples
//! that fit in a core's cache, and adds them up in stripes whose number and limits depend on the number of samples alone:
//! the same bits for any number of threads.

use super::{MbarError, MbarSettings};
use crate::compute::fused::{InstructionSet, Kernel, Number, dispatch, ln};
use rayon::prelude::*;
use std::ops::Range;

/// Samples in a block.
const BLOCK: usize = 128;
type Block = [f64; BLOCK];

/// Stripes that a pass is shared in, and those between two questions whether to go on.
const STRIPES: usize = 256;
const AT_ONCE: usize = 16;

/// Numbers that are summed side by side.
const LANES: usize = 8;

/// Below this exponent an exponential is zero.
const LEAST_EXPONENT: f64 = -700.0;

/// Reduced energies of N samples in some states, and how often each sample counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Samples<'a> {
    /// u_kn (states, N), by state.
    pub rows: &'a [&'a [f64]],
    /// Nothing where each counts once.
    pub counts: Option<&'a [u32]>,
}

/// Sums over all samples of columns a (columns, samples).
#[derive(Clone, Debug)]
pub(super) struct Sums {
    /// Σ_n a_cn (columns).
    pub first: Vec<f64>,
    /// Σ_n a_cn a_dn (columns, columns); empty if it was not asked for.
    pub second: Vec<f64>,
}

impl Sums {
    fn new(columns: usize, second: bool) -> Self {
        Self { first: vec![0.0; columns], second: vec![0.0; if second { columns * columns } else { 0 }] }
    }

    fn merge(mut self, other: &Self) -> Self {
        self.first.iter_mut().zip(&other.first).for_each(|(a, b)| *a += b);
        self.second.iter_mut().zip(&other.second).for_each(|(a, b)| *a += b);
        self
    }

    /// The other half of the second moments.
    fn mirrored(mut self) -> Self {
        let columns = if self.second.is_empty() { 0 } else { self.first.len() };
        for i in 0..columns {
            for j in 0..i {
                self.second[j * columns + i] = self.second[i * columns + j];
            }
        }
        self
    }
}

impl Samples<'_> {
    fn len(&self) -> usize {
        self.rows.first().map_or(0, |row| row.len())
    }

    /// Σ p and, if `second`, Σ pp of the probabilities p_kn = exp(s_k − u_kn) / Σ_j exp(s_j − u_jn), with
    /// s_k = `log_shares` = log N_k + f_k.
    pub fn probabilities(
        &self,
        log_shares: &[f64],
        second: bool,
        settings: &MbarSettings<'_>,
    ) -> Result<Sums, MbarError> {
        let pass = Pass { samples: *self, shifts: log_shares, log_densities: None, observable: None, second };
        self.pass(pass, settings)
    }

    /// Σ W and Σ WW of the weights W_kn = exp(f_k − u_kn − log D_n), D_n being the samples' densities; with an observable
    /// A_n (N) of columns W_kn·A_n behind these.
    pub fn weights(
        &self,
        f: &[f64],
        log_densities: &[f64],
        observable: Option<&[f64]>,
        settings: &MbarSettings<'_>,
    ) -> Result<Sums, MbarError> {
        let log_densities = Some(log_densities);
        self.pass(Pass { samples: *self, shifts: f, log_densities, observable, second: true }, settings)
    }

    fn pass(&self, pass: Pass<'_>, settings: &MbarSettings<'_>) -> Result<Sums, MbarError> {
        let (n, columns) = (self.len(), pass.columns());
        let stripe = n.div_ceil(BLOCK).div_ceil(STRIPES).max(1) * BLOCK;
        let mut all = Sums::new(columns, pass.second);
        let stripes = n.div_ceil(stripe);
        for first in (0..stripes).step_by(AT_ONCE) {
            settings.check()?;
            let some: Vec<Sums> = (first..(first + AT_ONCE).min(stripes))
                .into_par_iter()
                .map(|s| dispatch(Stripe { pass, range: s * stripe..((s + 1) * stripe).min(n) }))
                .collect();
            all = some.iter().fold(all, Sums::merge);
        }
        Ok(all.mirrored())
    }

    /// log D_n = log Σ_k exp(s_k − u_kn) (N).
    pub fn log_densities(&self, log_shares: &[f64]) -> Vec<f64> {
        let mut all = vec![0.0; self.len()];
        all.par_chunks_mut(BLOCK).enumerate().for_each(|(block, out)| {
            dispatch(LogDensities { samples: *self, log_shares, first: block * BLOCK, out });
        });
        all
    }
}

/// What a pass sums.
#[derive(Clone, Copy)]
struct Pass<'a> {
    samples: Samples<'a>,
    shifts: &'a [f64],
    /// Of weights; nothing of probabilities, which are normalised.
    log_densities: Option<&'a [f64]>,
    observable: Option<&'a [f64]>,
    second: bool,
}

impl Pass<'_> {
    fn columns(&self) -> usize {
        self.shifts.len() * if self.observable.is_some() { 2 } else { 1 }
    }
}

/// A stripe of a pass.
struct Stripe<'a> {
    pass: Pass<'a>,
    range: Range<usize>,
}

impl Kernel for Stripe<'_> {
    type Output = Sums;

    #[inline(always)]
    fn run<I: InstructionSet>(self) -> Sums {
        let Self { pass, range } = self;
        let (states, columns) = (pass.shifts.len(), pass.columns());
        let mut sums = Sums::new(columns, pass.second);
        let mut block = vec![[0.0; BLOCK]; columns];
        for first in range.clone().step_by(BLOCK) {
            let b = BLOCK.min(range.end - first);
            let mut roots = [0.0; BLOCK];
            match pass.samples.counts {
                None => roots[..b].fill(1.0),
                Some(counts) => {
                    roots.iter_mut().zip(&counts[first..first + b]).for_each(|(r, c)| *r = f64::from(*c).sqrt());
                }
            }
            let (weights, products) = block.split_at_mut(states);
            logits(pass.samples.rows, pass.shifts, first, b, weights);
            match pass.log_densities {
                None => normalise::<I>(weights),
                Some(densities) => {
                    let mut log_density = [0.0; BLOCK];
                    log_density[..b].copy_from_slice(&densities[first..first + b]);
                    for row in weights.iter_mut() {
                        row.iter_mut().zip(&log_density).for_each(|(x, d)| *x = exponential::<I>(*x - d));
                    }
                }
            }
            if let Some(observable) = pass.observable {
                let mut values = [0.0; BLOCK];
                values[..b].copy_from_slice(&observable[first..first + b]);
                for (product, weight) in products.iter_mut().zip(weights.iter()) {
                    product.iter_mut().zip(weight).zip(&values).for_each(|((p, w), a)| *p = w * a);
                }
            }
            // A sample that counts c times is √c in each of two factors; what is behind the last sample counts never.
            for (row, first) in block.iter_mut().zip(&mut sums.first) {
                row.iter_mut().zip(&roots).for_each(|(x, r)| *x *= r);
                *first += dot::<I>(row, &roots);
            }
            if pass.second {
                add_products::<I>(&block, &mut sums.second);
            }
        }
        sums
    }
}

/// log D_n of a block.
struct LogDensities<'a> {
    samples: Samples<'a>,
    log_shares: &'a [f64],
    first: usize,
    out: &'a mut [f64],
}

impl Kernel for LogDensities<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: InstructionSet>(self) {
        let mut block = vec![[0.0; BLOCK]; self.log_shares.len()];
        logits(self.samples.rows, self.log_shares, self.first, self.out.len(), &mut block);
        let largest = largest(&block);
        let mut total = [0.0; BLOCK];
        for row in &block {
            for ((x, l), t) in row.iter().zip(&largest).zip(&mut total) {
                *t += exponential::<I>(x - l);
            }
        }
        let log_total = total.map(|t| ln::<I>(t));
        self.out.iter_mut().zip(&largest).zip(&log_total).for_each(|((o, l), t)| *o = l + t);
    }
}

/// shift_k − u_kn of a block of `b` samples; zeros behind them.
#[inline(always)]
fn logits(rows: &[&[f64]], shifts: &[f64], first: usize, b: usize, out: &mut [Block]) {
    for ((row, shift), out) in rows.iter().zip(shifts).zip(out) {
        out.iter_mut().zip(&row[first..first + b]).for_each(|(o, u)| *o = shift - u);
        out[b..].fill(0.0);
    }
}

#[inline(always)]
fn largest(block: &[Block]) -> Block {
    let mut largest = [f64::NEG_INFINITY; BLOCK];
    for row in block {
        largest.iter_mut().zip(row).for_each(|(l, x)| *l = if *x > *l { *x } else { *l });
    }
    largest
}

#[inline(always)]
fn exponential<I: InstructionSet>(x: f64) -> f64 {
    let e = x.exponential::<I>();
    if x < LEAST_EXPONENT { 0.0 } else { e }
}

/// Makes probabilities of logits. A sample of which no state can be, whose logits are all −∞, must have been refused before.
#[inline(always)]
fn normalise<I: InstructionSet>(block: &mut [Block]) {
    let largest = largest(block);
    let mut total = [0.0; BLOCK];
    for row in block.iter_mut() {
        for ((x, l), t) in row.iter_mut().zip(&largest).zip(&mut total) {
            *x = exponential::<I>(*x - l);
            *t += *x;
        }
    }
    total.iter_mut().for_each(|t| *t = 1.0 / *t);
    for row in block.iter_mut() {
        row.iter_mut().zip(&total).for_each(|(x, t)| *x *= t);
    }
}

/// Adds all products of two rows of a block to one half of the second moments: two rows by two, so that a number that is
/// loaded is used twice.
#[inline(always)]
fn add_products<I: InstructionSet>(block: &[Block], second: &mut [f64]) {
    let columns = block.len();
    for i in (0..columns).step_by(2) {
        let (a, b) = (&block[i], &block[(i + 1).min(columns - 1)]);
        for j in (0..=i).step_by(2) {
            let (c, d) = (&block[j], &block[(j + 1).min(columns - 1)]);
            let mut sums = [[0.0; LANES]; 4];
            for at in (0..BLOCK).step_by(LANES) {
                for l in 0..LANES {
                    let n = at + l;
                    sums[0][l] = f64::madd::<I>(a[n], c[n], sums[0][l]);
                    sums[1][l] = f64::madd::<I>(a[n], d[n], sums[1][l]);
                    sums[2][l] = f64::madd::<I>(b[n], c[n], sums[2][l]);
                    sums[3][l] = f64::madd::<I>(b[n], d[n], sums[3][l]);
                }
            }
            for (at, sums) in [(i, j), (i, j + 1), (i + 1, j), (i + 1, j + 1)].into_iter().zip(&sums) {
                if at.0 < columns && at.1 <= at.0 {
                    second[at.0 * columns + at.1] += sums.iter().sum::<f64>();
                }
            }
        }
    }
}

#[inline(always)]
fn dot<I: InstructionSet>(a: &Block, b: &Block) -> f64 {
    let mut sums = [0.0; LANES];
    for at in (0..BLOCK).step_by(LANES) {
        for l in 0..LANES {
            sums[l] = f64::madd::<I>(a[at + l], b[at + l], sums[l]);
        }
    }
    sums.iter().sum()
}
