//! Free energies of several states from samples of all of them: the multistate Bennett acceptance ratio (Shirts and
//! Chodera 2008).
//!
//! With u_k(x) the reduced energy of state k and N_k samples from it, the free energies f_k solve
//! f_k = −log Σ_n exp(−u_kn) / D_n, D_n = Σ_j N_j exp(f_j − u_jn), where n goes over the samples of all states (equation 11
//! of the paper). They are where the convex function Σ_n log D_n − Σ_k N_k f_k is least; a few self-consistent iterations
//! come near, and Newton's method ends at working precision.

mod averages;
mod bootstrap;
mod sums;

pub use averages::MbarAverage;
pub use bootstrap::MbarBootstrap;

use crate::math::{LogSumExp, solve_linear};
use rayon::prelude::*;
use sums::{Samples, Sums};

/// Self-consistent iterations before the first step of Newton.
const FIRST_ITERATIONS: usize = 4;
const MAX_ITERATIONS: usize = 500;

/// The longest step of a free energy (kT): far from the solution the convex function is nowhere near a parabola.
const LONGEST_STEP: f64 = 15.0;

/// Halvings of a step of Newton that leads away, before a self-consistent iteration is made instead.
const MAX_HALVINGS: usize = 6;

/// Σ_n p_i p_j below which two states share no sample: the standard error of their difference would be above 100 kT.
const LEAST_SHARED: f64 = 1e-4;

/// Why free energies cannot be found.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MbarError {
    #[error("u_kn holds {energies} numbers for {states} states; it needs one row of all samples for each state")]
    Shape { energies: usize, states: usize },
    #[error(
        "the counts n_k add up to {counted} samples, but u_kn has {samples}; count each sample under the state it is from"
    )]
    Counts { counted: u64, samples: u64 },
    #[error(
        "u_kn of state {state} at sample {sample} is {value}; reduced energies are finite, or +∞ where there is no density"
    )]
    Energy { state: usize, sample: usize, value: f64 },
    #[error("sample {0} has no density in any state with samples; it cannot be one of theirs")]
    Impossible(usize),
    #[error("no sample has any density in state {0}; leave the state out, or add samples that it could have")]
    Unreachable(usize),
    #[error("the states fall into groups that share no samples: {}; add states between them", groups(.0))]
    Disconnected(Vec<Vec<usize>>),
    #[error("no solution after {0} iterations; states with so little overlap need others between them")]
    NotConverged(usize),
    #[error("an observable has {values} values for {samples} samples; it needs one for each")]
    Observable { values: usize, samples: usize },
    #[error("an observable is {value} at sample {sample}; its values must be numbers of at most 1e150")]
    Value { sample: usize, value: f64 },
    #[error("it was stopped")]
    Stopped,
}

/// How free energies are looked for.
pub struct MbarSettings<'a> {
    /// They are found when Newton's step is below this part of them, or of one kT.
    pub tolerance: f64,
    /// Asked several times in a pass over the samples: whether to go on.
    pub proceed: &'a (dyn Fn() -> bool + Sync),
}

impl Default for MbarSettings<'_> {
    fn default() -> Self {
        Self { tolerance: 1e-10, proceed: &|| true }
    }
}

impl MbarSettings<'_> {
    fn check(&self) -> Result<(), MbarError> {
        if (self.proceed)() { Ok(()) } else { Err(MbarError::Stopped) }
    }
}

fn groups(components: &[Vec<usize>]) -> String {
    components.iter().map(|c| format!("{c:?}")).collect::<Vec<_>>().join(" and ")
}

/// Free energies of K states, with what is needed to judge them.
#[derive(Clone, Debug, PartialEq)]
pub struct MbarSolution {
    /// f_k (K) in kT, that of the first state being zero.
    pub f_k: Vec<f64>,
    /// Self-consistent iterations and steps of Newton.
    pub iterations: usize,
    /// O_ij = Σ_n W_ni N_j W_nj (K, K): how probable it is that a sample of state i is taken for one of state j. Rows add
    /// up to one.
    pub overlap: Vec<f64>,
    /// Θ (K, K), the asymptotic covariance of the f_k (equation 8) up to a constant that all of its elements share.
    pub covariance: Vec<f64>,
    /// log D_n (N): the weight of sample n in state k is exp(f_k − u_kn − log D_n), and those of a state add up to one.
    pub log_densities: Vec<f64>,
}

impl MbarSolution {
    /// f_j − f_i and its asymptotic standard error (equation 12), in kT. The error takes the samples to be independent.
    pub fn difference(&self, i: usize, j: usize) -> Option<(f64, f64)> {
        let (k, theta) = (self.f_k.len(), &self.covariance);
        let value = self.f_k.get(j)? - self.f_k.get(i)?;
        let variance = theta[i * k + i] - 2.0 * theta[i * k + j] + theta[j * k + j];
        Some((value, variance.max(0.0).sqrt()))
    }

    /// The errors of all differences f_j − f_i (K, K).
    pub fn standard_errors(&self) -> Vec<f64> {
        let k = self.f_k.len();
        let error = |e: usize| self.difference(e / k, e % k).map_or(f64::NAN, |(_, error)| error);
        (0..k * k).map(error).collect()
    }
}

/// [`solve_with`] of the default settings.
pub fn solve(u_kn: &[f64], n_k: &[u64]) -> Result<MbarSolution, MbarError> {
    solve_with(u_kn, n_k, &MbarSettings::default())
}

/// The free energies of K states from reduced energies u_kn (K, N), row by row, of N samples, N_k of which are from state k,
/// in any order. States without samples are allowed: their free energies follow from the samples of the others. Beside u_kn
/// there is memory of a few numbers a sample; the bits do not depend on the number of threads.
pub fn solve_with(u_kn: &[f64], n_k: &[u64], settings: &MbarSettings<'_>) -> Result<MbarSolution, MbarError> {
    let all = rows(u_kn, n_k)?;
    let sampled: Vec<usize> = (0..n_k.len()).filter(|&k| n_k[k] > 0).collect();
    let own: Vec<&[f64]> = sampled.iter().map(|&k| all[k]).collect();
    let counts: Vec<f64> = sampled.iter().map(|&k| n_k[k] as f64).collect();
    check_energies(&all, &own)?;

    // As if all samples were equally probable: each state is then the most probable, or nearly, at some sample.
    let mut f = estimate(&all, None, None);
    let mut own_f: Vec<f64> = sampled.iter().map(|&k| f[k]).collect();
    let samples = Samples { rows: &own, counts: None };
    let (iterations, converged) = minimise(&samples, &counts, &mut own_f, FIRST_ITERATIONS, settings)?;
    let shares = log_shares(&own_f, &counts);
    let components = components(&samples.probabilities(&shares, true, settings)?, &sampled);
    if components.len() > 1 {
        return Err(MbarError::Disconnected(components));
    }
    if !converged {
        return Err(MbarError::NotConverged(iterations));
    }

    let mut log_densities = samples.log_densities(&shares);
    settings.check()?;
    f = estimate(&all, Some(&log_densities), None);
    let origin = f[0];
    f.iter_mut().chain(&mut log_densities).for_each(|f| *f -= origin);
    let gram = Samples { rows: &all, counts: None }.weights(&f, &log_densities, None, settings)?.second;
    let counts: Vec<f64> = n_k.iter().map(|n| *n as f64).collect();
    let covariance = covariance(&gram, &counts).ok_or(MbarError::NotConverged(iterations))?;
    let overlap = gram.iter().enumerate().map(|(e, g)| g * counts[e % counts.len()]).collect();
    Ok(MbarSolution { f_k: f, iterations, overlap, covariance, log_densities })
}

/// The rows of u_kn.
fn rows<'a>(u_kn: &'a [f64], n_k: &[u64]) -> Result<Vec<&'a [f64]>, MbarError> {
    let (energies, states) = (u_kn.len(), n_k.len());
    if energies == 0 || states == 0 || !energies.is_multiple_of(states) {
        return Err(MbarError::Shape { energies, states });
    }
    let samples = (energies / states) as u64;
    let counted = n_k.iter().fold(0u64, |sum, n| sum.saturating_add(*n));
    if counted != samples {
        return Err(MbarError::Counts { counted, samples });
    }
    Ok(u_kn.chunks_exact(energies / states).collect())
}

/// That energies are numbers, that each sample can be one of a state with samples, and that each state has density at some
/// sample.
fn check_energies(all: &[&[f64]], sampled: &[&[f64]]) -> Result<(), MbarError> {
    for (state, row) in all.iter().enumerate() {
        let bad = |u: &f64| u.is_nan() || *u == f64::NEG_INFINITY;
        if let Some(sample) = row.par_iter().position_first(bad) {
            return Err(MbarError::Energy { state, sample, value: row[sample] });
        }
        if row.iter().all(|u| *u == f64::INFINITY) {
            return Err(MbarError::Unreachable(state));
        }
    }
    let samples = all[0].len();
    let impossible = (0..samples).into_par_iter().find_first(|&n| sampled.iter().all(|row| row[n] == f64::INFINITY));
    impossible.map_or(Ok(()), |n| Err(MbarError::Impossible(n)))
}

/// f_k = −log Σ_n c_n exp(−u_kn) / D_n: equation 11, each sum in the order of its samples; D_n and c_n are one where they are
/// not given.
fn estimate(rows: &[&[f64]], log_densities: Option<&[f64]>, counts: Option<&[u32]>) -> Vec<f64> {
    rows.par_iter()
        .map(|row| {
            let mut sum = LogSumExp::default();
            for (n, u) in row.iter().enumerate() {
                let log_density = log_densities.map_or(0.0, |all| all[n]);
                let log_count = counts.map_or(0.0, |all| f64::from(all[n]).ln());
                sum.add(log_count - u - log_density);
            }
            -sum.value()
        })
        .collect()
}

/// log N_k + f_k.
fn log_shares(f: &[f64], counts: &[f64]) -> Vec<f64> {
    f.iter().zip(counts).map(|(f, n)| f + n.ln()).collect()
}

/// Brings the sampled states' free energies to their solution, by so many self-consistent iterations and then by Newton's
/// method; the iterations that it took, and whether they are found.
fn minimise(
    samples: &Samples<'_>,
    counts: &[f64],
    f: &mut Vec<f64>,
    first_iterations: usize,
    settings: &MbarSettings<'_>,
) -> Result<(usize, bool), MbarError> {
    let sums = |f: &[f64], second| samples.probabilities(&log_shares(f, counts), second, settings);
    for _ in 0..first_iterations {
        let here = sums(f, false)?;
        iterate(f, &here, counts);
    }
    let mut here = sums(f, true)?;
    for iteration in first_iterations + 1..=MAX_ITERATIONS {
        let Some(step) = newton_step(&here, counts) else {
            iterate(f, &here, counts);
            here = sums(f, true)?;
            continue;
        };
        let size = step.iter().fold(0.0, |size: f64, s| size.max(s.abs()));
        let scale = f.iter().fold(1.0, |scale: f64, x| scale.max((x - f[0]).abs()));
        if size <= settings.tolerance * scale {
            f.iter_mut().zip(&step).for_each(|(f, s)| *f += s);
            return Ok((iteration, true));
        }
        let before = distance(&here, counts);
        let mut length = (LONGEST_STEP / size).min(1.0);
        let mut better = None;
        for _ in 0..=MAX_HALVINGS {
            let there: Vec<f64> = f.iter().zip(&step).map(|(f, s)| f + length * s).collect();
            let there_sums = sums(&there, true)?;
            if distance(&there_sums, counts) < before {
                better = Some((there, there_sums));
                break;
            }
            length *= 0.5;
        }
        match better {
            Some((there, there_sums)) => (*f, here) = (there, there_sums),
            None => {
                iterate(f, &here, counts);
                here = sums(f, true)?;
            }
        }
    }
    Ok((MAX_ITERATIONS, false))
}

/// One self-consistent iteration: f_k − log Σ_n p_kn / N_k, which is equation 11 written with probabilities.
fn iterate(f: &mut [f64], sums: &Sums, counts: &[f64]) {
    for ((f, s), n) in f.iter_mut().zip(&sums.first).zip(counts) {
        *f -= (s / n).ln().clamp(-LONGEST_STEP, LONGEST_STEP);
    }
}

/// How far the states' numbers of samples are from those expected, Σ_k (Σ_n p_kn − N_k)² / N_k.
fn distance(sums: &Sums, counts: &[f64]) -> f64 {
    sums.first.iter().zip(counts).map(|(s, n)| (s - n) * (s - n) / n).sum()
}

/// −H⁻¹g of the convex function, with the first state held still: g_k = Σ_n p_kn − N_k, H = diag(Σ_n p_kn) − Σ_n p pᵀ.
fn newton_step(sums: &Sums, counts: &[f64]) -> Option<Vec<f64>> {
    let k = counts.len();
    if k == 1 {
        return Some(vec![0.0]);
    }
    let mut hessian = Vec::with_capacity((k - 1) * (k - 1));
    for i in 1..k {
        for j in 1..k {
            let diagonal = if i == j { sums.first[i] } else { 0.0 };
            hessian.push(diagonal - sums.second[i * k + j]);
        }
    }
    let downhill = (1..k).map(|i| counts[i] - sums.first[i]).collect();
    let mut step = vec![0.0];
    step.extend(solve_linear(hessian, downhill, k - 1)?);
    Some(step)
}

/// The groups of sampled states that are joined by samples which could be of several of them.
fn components(sums: &Sums, sampled: &[usize]) -> Vec<Vec<usize>> {
    let k = sampled.len();
    let mut group: Vec<usize> = (0..k).collect();
    for i in 0..k {
        for j in 0..i {
            if sums.second[i * k + j] >= LEAST_SHARED && group[i] != group[j] {
                let (from, to) = (group[i], group[j]);
                group.iter_mut().filter(|g| **g == from).for_each(|g| *g = to);
            }
        }
    }
    let mut components: Vec<Vec<usize>> = Vec::new();
    for g in 0..k {
        let members: Vec<usize> = (0..k).filter(|&i| group[i] == g).map(|i| sampled[i]).collect();
        if !members.is_empty() {
            components.push(members);
        }
    }
    components.sort_unstable();
    components
}

/// Θ (columns, columns) from G = XᵀX of some columns X, the first of which are the weights W of the states whose numbers of
/// samples are given; others belong to no samples. Equation 8 is Θ = Xᵀ(1 − W N Wᵀ)⁺X, whose null direction is known: W N 1 = 1.
/// Without it Θ = (1 − G·A)⁻¹G with A = N − N 1 1ᵀ N / Σ N_k, a system of as many equations as columns, that may be solved also
/// where two states are alike. What is left out adds a constant to all elements of states.
fn covariance(gram: &[f64], counts: &[f64]) -> Option<Vec<f64>> {
    let columns = gram.len().isqrt();
    let counts: Vec<f64> = (0..columns).map(|k| counts.get(k).copied().unwrap_or(0.0)).collect();
    let total: f64 = counts.iter().sum();
    let mut matrix = vec![0.0; gram.len()];
    for (row, g) in matrix.chunks_exact_mut(columns).zip(gram.chunks_exact(columns)) {
        let weighted: f64 = g.iter().zip(&counts).map(|(g, n)| g * n).sum();
        for (j, (m, g)) in row.iter_mut().zip(g).enumerate() {
            *m = -counts[j] * (g - weighted / total);
        }
    }
    (0..columns).for_each(|i| matrix[i * columns + i] += 1.0);
    solve_linear(matrix, gram.to_vec(), columns)
}
