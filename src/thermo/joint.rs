//! Free energies and averages at several temperatures from samples of several densities together: MBAR's weights.
//!
//! With MBAR's f and D_n = Σ_j N_j exp(f_j − u_jn), a sample counts in state k with the weight exp(−u_kn)/D_n, whether or not there
//! are samples of k (Shirts and Chodera 2008, equation 13). One of the states is a normalised density, a flow's: with its f that of
//! another is −log Z. Bootstrap errors solve for f again.

use super::bootstrap::{Estimate, summarise};
use super::mbar::{MbarBootstrap, MbarError, MbarSettings, MbarSolution, solve_with};
use crate::math::log_sum_exp;

/// Samples of K states, those of each state together and in the order of the states.
#[derive(Clone, Copy, Debug)]
pub struct JointSamples<'a> {
    /// Reduced energies (K, N), −log q of a flow's density q.
    pub u_kn: &'a [f64],
    /// Samples of each state (K).
    pub n_k: &'a [u64],
    /// Potential energies U (N), in the system's unit.
    pub energies: &'a [f64],
    /// Whether each sample is in each state of configurations (states, N).
    pub members: &'a [Vec<bool>],
}

/// A temperature that is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JointTarget {
    /// Which of the K states it is.
    pub state: usize,
    /// Which of them is normalised.
    pub reference: usize,
    /// k_B·T in the system's energy unit.
    pub kt: f64,
}

/// The answers at one temperature. Energies are in the system's unit.
#[derive(Clone, Debug, PartialEq)]
pub struct JointEstimate {
    pub log_z: Estimate,
    /// Of log Z, by MBAR's covariance.
    pub asymptotic_error: f64,
    /// F = −kT log Z.
    pub free_energy: Estimate,
    pub internal_energy: Estimate,
    /// (U − F)/kT.
    pub entropy: Estimate,
    /// Var(U)/(kT)².
    pub heat_capacity: Estimate,
    pub state_probabilities: Vec<Estimate>,
    /// −log of the probability over that of the first state, for each after it.
    pub state_differences: Vec<Estimate>,
}

/// All of it.
#[derive(Clone, Debug, PartialEq)]
pub struct JointReport {
    pub solution: MbarSolution,
    pub estimates: Vec<JointEstimate>,
}

/// Numbers of a temperature before those of states: log Z, U/kT, S/k, C/k.
const FIRST: usize = 4;

/// The answers at each target. `proceed` is asked several times in a pass over the samples: where it refuses to go on there is no
/// answer, and within resamplings one without bootstrap errors.
pub fn joint(
    samples: &JointSamples<'_>,
    targets: &[JointTarget],
    replicates: usize,
    seed: u64,
    proceed: impl Fn() -> bool + Sync,
) -> Result<JointReport, MbarError> {
    let settings = MbarSettings { proceed: &proceed, ..MbarSettings::default() };
    let solution = solve_with(samples.u_kn, samples.n_k, &settings)?;
    let values: Vec<Vec<f64>> = targets.iter().map(|target| quantities(samples, None, &solution.f_k, target)).collect();
    let mut drawings: Vec<Vec<Vec<f64>>> = vec![Vec::new(); targets.len()];
    let bootstrap = MbarBootstrap { replicates, seed };
    let drawn = bootstrap.draws(&solution, samples.u_kn, samples.n_k, &settings, |f_k, counts| {
        for ((drawings, target), values) in drawings.iter_mut().zip(targets).zip(&values) {
            drawings.push(match f_k {
                Some(f_k) => quantities(samples, Some(counts), f_k, target),
                None => vec![f64::NAN; values.len()],
            });
        }
    });
    match drawn {
        Err(MbarError::Stopped) => drawings.iter_mut().for_each(Vec::clear),
        drawn => drawn?,
    }
    let estimates = targets
        .iter()
        .zip(&values)
        .zip(&drawings)
        .map(|((target, values), drawings)| {
            let error = solution.difference(target.reference, target.state).map_or(f64::INFINITY, |(_, error)| error);
            estimate(target, values, drawings, samples.members.len(), error)
        })
        .collect();
    Ok(JointReport { solution, estimates })
}

/// log Z, U/kT, S/k, C/k, the probabilities of states, and the differences of those after the first, from samples that count so
/// often, or once each.
fn quantities(samples: &JointSamples<'_>, counts: Option<&[u32]>, f_k: &[f64], target: &JointTarget) -> Vec<f64> {
    let n = samples.energies.len();
    let rows: Vec<&[f64]> = samples.u_kn.chunks_exact(n.max(1)).collect();
    let offsets: Vec<f64> = samples.n_k.iter().zip(f_k).map(|(n, f)| (*n as f64).ln() + f).collect();
    let of_target = rows.get(target.state).copied().unwrap_or_default();
    let mut terms = vec![0.0; rows.len()];
    let log_weights: Vec<f64> = (0..n)
        .map(|i| match counts.and_then(|counts| counts.get(i)).map_or(1, |count| *count) {
            0 => f64::NEG_INFINITY,
            count => {
                terms.iter_mut().zip(&rows).zip(&offsets).for_each(|((term, row), offset)| *term = offset - row[i]);
                f64::from(count).ln() - of_target[i] - log_sum_exp(&terms)
            }
        })
        .collect();
    let log_sum = log_sum_exp(&log_weights);
    let log_z = log_sum + f_k.get(target.reference).copied().unwrap_or(f64::NAN);
    // Energies about that of a heavy sample: the variance of large numbers that are alike keeps its digits.
    let heaviest = (0..n).max_by(|&a, &b| log_weights[a].total_cmp(&log_weights[b]));
    let energy = |i: usize| samples.energies[i] / target.kt;
    let origin = heaviest.map_or(0.0, energy);
    let (mut mean, mut square) = (0.0, 0.0);
    let mut probabilities = vec![0.0; samples.members.len()];
    for i in 0..n {
        let w = (log_weights[i] - log_sum).exp();
        if w > 0.0 {
            let u = energy(i) - origin;
            mean += w * u;
            square += w * u * u;
            for (p, members) in probabilities.iter_mut().zip(samples.members) {
                *p += if members.get(i).is_some_and(|inside| *inside) { w } else { 0.0 };
            }
        }
    }
    let u = mean + origin;
    let mut all = vec![log_z, u, u + log_z, square - mean * mean];
    all.extend(&probabilities);
    if let Some(first) = probabilities.first() {
        all.extend(probabilities.iter().skip(1).map(|p| (first / p).ln()));
    }
    all
}

fn estimate(
    target: &JointTarget,
    values: &[f64],
    drawings: &[Vec<f64>],
    states: usize,
    asymptotic_error: f64,
) -> JointEstimate {
    let of = |j: usize| {
        let value = values.get(j).copied().unwrap_or(f64::NAN);
        summarise(value, drawings.iter().filter_map(|row| row.get(j).copied()).collect())
    };
    JointEstimate {
        log_z: of(0),
        asymptotic_error,
        free_energy: of(0).scaled(-target.kt),
        internal_energy: of(1).scaled(target.kt),
        entropy: of(2),
        heat_capacity: of(3),
        state_probabilities: (0..states).map(|j| of(FIRST + j).of_probability()).collect(),
        state_differences: (1..states).map(|j| of(FIRST + states + j - 1)).collect(),
    }
}
