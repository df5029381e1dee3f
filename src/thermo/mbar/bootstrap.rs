//! Bootstrap errors of MBAR: the samples of each state are drawn anew, with replacement, and the free energies found again.

use super::sums::Samples;
use super::{MbarError, MbarSettings, MbarSolution, estimate, log_shares, minimise, rows};
use crate::math::{Purpose, Randoms};

/// How often the samples are drawn anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MbarBootstrap {
    /// At least 2.
    pub replicates: usize,
    pub seed: u64,
}

impl MbarBootstrap {
    /// Standard errors of f_j − f_i (K, K) in kT, of a solution of u_kn (K, N) whose samples come state by state. Infinite where
    /// some draw leaves them undefined.
    pub fn standard_errors(
        &self,
        solution: &MbarSolution,
        u_kn: &[f64],
        n_k: &[u64],
        settings: &MbarSettings<'_>,
    ) -> Result<Vec<f64>, MbarError> {
        let k = n_k.len();
        let mut moments = Moments { draws: 0.0, mean: vec![0.0; k * k], squares: vec![0.0; k * k] };
        let mut all_are_defined = true;
        self.draws(solution, u_kn, n_k, settings, |f_k, _| match f_k {
            Some(f_k) => moments.add(f_k),
            None => all_are_defined = false,
        })?;
        Ok(if all_are_defined { moments.standard_errors() } else { vec![f64::INFINITY; k * k] })
    }

    /// Shows `see` the free energies (K), up to a constant, of each draw, nothing where it leaves them undefined, and how often each
    /// sample is in it (N). The samples of u_kn (K, N) come state by state.
    pub fn draws(
        &self,
        solution: &MbarSolution,
        u_kn: &[f64],
        n_k: &[u64],
        settings: &MbarSettings<'_>,
        mut see: impl FnMut(Option<&[f64]>, &[u32]),
    ) -> Result<(), MbarError> {
        let all = rows(u_kn, n_k)?;
        let k = n_k.len();
        let sampled: Vec<usize> = (0..k).filter(|&k| n_k[k] > 0).collect();
        let unsampled: Vec<usize> = (0..k).filter(|&k| n_k[k] == 0).collect();
        let own: Vec<&[f64]> = sampled.iter().map(|&k| all[k]).collect();
        let counts: Vec<f64> = sampled.iter().map(|&k| n_k[k] as f64).collect();
        let mut drawn = vec![0u32; solution.log_densities.len()];
        for replicate in 0..self.replicates {
            self.draw(replicate as u64, n_k, &mut drawn);
            let samples = Samples { rows: &own, counts: Some(&drawn) };
            let mut f: Vec<f64> = sampled.iter().map(|&k| solution.f_k[k]).collect();
            let (_, converged) = minimise(&samples, &counts, &mut f, 0, settings)?;
            if !converged {
                see(None, &drawn);
                continue;
            }
            let mut f_k = vec![0.0; k];
            sampled.iter().zip(&f).for_each(|(&k, f)| f_k[k] = *f);
            if !unsampled.is_empty() {
                let log_densities = samples.log_densities(&log_shares(&f, &counts));
                let others: Vec<&[f64]> = unsampled.iter().map(|&k| all[k]).collect();
                let found = estimate(&others, Some(&log_densities), Some(&drawn));
                unsampled.iter().zip(found).for_each(|(&k, f)| f_k[k] = f);
            }
            see(Some(&f_k), &drawn);
        }
        Ok(())
    }

    /// How often each sample is in a draw.
    fn draw(&self, replicate: u64, n_k: &[u64], drawn: &mut [u32]) {
        let mut random = Randoms::new(self.seed, Purpose::Bootstrap, replicate);
        drawn.fill(0);
        let mut rest = drawn;
        for &n in n_k {
            let (own, others) = std::mem::take(&mut rest).split_at_mut(n as usize);
            (0..n).for_each(|_| own[random.below(n) as usize] += 1);
            rest = others;
        }
    }
}

/// Mean and spread of the differences f_j − f_i, draw by draw (Welford).
struct Moments {
    draws: f64,
    mean: Vec<f64>,
    squares: Vec<f64>,
}

impl Moments {
    fn add(&mut self, f: &[f64]) {
        self.draws += 1.0;
        for (e, (mean, squares)) in self.mean.iter_mut().zip(&mut self.squares).enumerate() {
            let difference = f[e % f.len()] - f[e / f.len()];
            let before = difference - *mean;
            *mean += before / self.draws;
            *squares += before * (difference - *mean);
        }
    }

    fn standard_errors(self) -> Vec<f64> {
        let variance = |s: f64| s / (self.draws - 1.0);
        self.squares
            .into_iter()
            .map(|s| if variance(s).is_nan() { f64::INFINITY } else { variance(s).sqrt() })
            .collect()
    }
}
