//! How far to trust a simulation: acceptances, temperatures, drifts, and how many of its frames are independent.

use super::cell::Tally;

/// Block means that are kept of each series; when there are more, neighbours are merged.
const MOST_BLOCKS: usize = 2048;
const FEWEST_BLOCKS: usize = 64;
/// Block means that are kept of all series.
const MOST_NUMBERS: usize = 1 << 22;

/// What a simulation knows about its own quality; of the production phase, once that has begun.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Steps of this phase that were counted.
    pub steps: u64,
    pub rungs: Vec<RungSummary>,
    /// Of each pair of neighbouring temperatures.
    pub exchanges: Vec<ExchangeSummary>,
    /// Times that a replica came back to the lowest temperature from the highest, after it had been at the lowest
    /// before.
    pub round_trips: u64,
    /// Langevin dynamics: what one replica gains by the error of the integrator per time, in the energy unit; energy
    /// less the heat of the thermostat, over all replicas. Sivak, Chodera and Crooks, Phys. Rev. X 3, 011007 (2013),
    /// call its integral shadow work.
    pub drift_per_time: Option<f64>,
}

/// One temperature.
#[derive(Clone, Debug, PartialEq)]
pub struct RungSummary {
    pub temperature: f64,
    /// 2·K over the degrees of freedom, in temperature units, where there are velocities: with Langevin dynamics those of
    /// half steps, which are exact for oscillators (Zhang, Liu, Yan, Tuckerman and Liu, J. Phys. Chem. A 123, 6056 (2019)).
    pub kinetic_temperature: Option<f64>,
    /// Accepted share of Monte Carlo moves.
    pub acceptance: Option<f64>,
    /// Timestep of hybrid Monte Carlo or step of Metropolis Monte Carlo, as tuned.
    pub move_size: Option<f64>,
    /// Hybrid Monte Carlo: the mean of ΔH/kT over trajectories that did not diverge.
    pub mean_error: Option<f64>,
    /// Hybrid Monte Carlo: the mean of exp(−ΔH/kT), which is 1 at equilibrium (Creutz, Phys. Rev. D 38, 1228 (1988)).
    pub mean_weight: Option<f64>,
    /// Hybrid Monte Carlo: the share of trajectories that diverged.
    pub diverged: Option<f64>,
    pub mean_energy: f64,
    pub energy_variance: f64,
    /// Saved frames of all walkers.
    pub frames: u64,
    /// Frames that are as good as independent, by the potential energy.
    pub effective_samples: f64,
    /// Saved frames for each independent one.
    pub statistical_inefficiency: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExchangeSummary {
    pub low: f64,
    pub high: f64,
    pub attempts: u64,
    pub accepted: u64,
    /// What the pilot predicted, if there was one.
    pub predicted: Option<f64>,
}

impl ExchangeSummary {
    pub fn acceptance(&self) -> f64 {
        if self.attempts == 0 { 0.0 } else { self.accepted as f64 / self.attempts as f64 }
    }
}

/// Energies of saved frames as block means, in memory that does not grow; and their moments.
#[derive(Clone, Debug, PartialEq)]
pub struct EnergySeries {
    pub series: usize,
    /// Frames of a block.
    pub block: u64,
    /// Frames in `partial`.
    pub pending: u64,
    pub partial: Vec<f64>,
    /// Means (blocks, series).
    pub means: Vec<f64>,
    pub frames: u64,
    /// Sums over frames of energies less `origin`, and of their squares.
    pub origin: Vec<f64>,
    pub sums: Vec<f64>,
    pub squares: Vec<f64>,
}

impl EnergySeries {
    pub fn new(series: usize) -> Self {
        let zeros = vec![0.0; series];
        Self {
            series,
            block: 1,
            pending: 0,
            partial: zeros.clone(),
            means: Vec::new(),
            frames: 0,
            origin: zeros.clone(),
            sums: zeros.clone(),
            squares: zeros,
        }
    }

    /// Whether stored numbers can be this.
    pub fn is_consistent(&self) -> bool {
        let n = self.series;
        let vectors = [&self.partial, &self.origin, &self.sums, &self.squares];
        let blocks = self.means.len() / n.max(1);
        vectors.iter().all(|v| v.len() == n)
            && self.means.len() == blocks * n
            && self.block > 0
            && self.pending < self.block
            && (blocks as u64).checked_mul(self.block).and_then(|f| f.checked_add(self.pending)) == Some(self.frames)
    }

    /// An even number, so that merging leaves none out.
    fn most_blocks(&self) -> usize {
        (MOST_NUMBERS / self.series.max(1)).clamp(FEWEST_BLOCKS, MOST_BLOCKS) & !1
    }

    /// Adds a frame: the energy of each series.
    pub fn add(&mut self, energies: &[f64]) {
        if self.frames == 0 {
            self.origin.copy_from_slice(energies);
        }
        self.frames = self.frames.saturating_add(1);
        self.pending += 1;
        for (s, &energy) in energies.iter().enumerate() {
            let e = energy - self.origin[s];
            self.sums[s] += e;
            self.squares[s] += e * e;
            self.partial[s] += e;
        }
        if self.pending == self.block {
            let scale = 1.0 / self.block as f64;
            self.means.extend(self.partial.iter().map(|sum| sum * scale));
            self.partial.fill(0.0);
            self.pending = 0;
            if self.means.len() >= self.most_blocks() * self.series {
                self.merge();
            }
        }
    }

    /// Joins neighbouring blocks.
    fn merge(&mut self) {
        let n = self.series;
        let blocks = self.means.len() / n / 2;
        for b in 0..blocks {
            for s in 0..n {
                self.means[b * n + s] = 0.5 * (self.means[2 * b * n + s] + self.means[(2 * b + 1) * n + s]);
            }
        }
        self.means.truncate(blocks * n);
        self.block = self.block.saturating_mul(2);
    }

    /// Mean and variance of the energies of some series taken together.
    pub fn moments(&self, series: impl Iterator<Item = usize> + Clone) -> (f64, f64) {
        let n = self.frames as f64 * series.clone().count() as f64;
        if n < 1.0 {
            return (f64::NAN, f64::NAN);
        }
        let Some(origin) = series.clone().next().map(|s| self.origin[s]) else { return (f64::NAN, f64::NAN) };
        let (mut sum, mut square) = (0.0, 0.0);
        for s in series {
            let shift = self.origin[s] - origin;
            sum += self.sums[s] + shift * self.frames as f64;
            square += self.squares[s] + 2.0 * shift * self.sums[s] + shift * shift * self.frames as f64;
        }
        let mean = sum / n;
        (origin + mean, (square / n - mean * mean).max(0.0))
    }

    /// How many of the frames of some series are as good as independent.
    pub fn effective_samples(&self, series: impl Iterator<Item = usize> + Clone) -> f64 {
        let (mean, variance) = self.moments(series.clone());
        let columns: Vec<Vec<f64>> = series
            .map(|s| self.means.chunks_exact(self.series.max(1)).map(|block| block[s] + self.origin[s]).collect())
            .collect();
        let frames = self.frames as f64 * columns.len() as f64;
        // Walkers are compared with the mean of all: one that stays where others do not go shows as a long correlation.
        let (block_variance, inefficiency) = inefficiency(&columns, mean);
        let blocks = columns.iter().map(Vec::len).sum::<usize>() as f64;
        if variance <= 0.0 || block_variance <= 0.0 || blocks < 2.0 {
            return frames.min(1.0);
        }
        (variance * blocks / (block_variance * inefficiency)).clamp(1.0_f64.min(frames), frames.max(1.0))
    }
}

/// The number of independent samples that several equally long chains of a quantity are worth.
pub fn effective_samples(chains: &[Vec<f64>]) -> f64 {
    let n = chains.iter().map(Vec::len).sum::<usize>() as f64;
    if n < 2.0 {
        return n;
    }
    let mean = chains.iter().flatten().sum::<f64>() / n;
    let (variance, inefficiency) = inefficiency(chains, mean);
    if variance > 0.0 { (n / inefficiency).max(1.0) } else { 1.0 }
}

/// Variance, and the statistical inefficiency 1 + 2·Σρ(t): how many samples are worth one that is independent (Chodera et
/// al., J. Chem. Theory Comput. 3, 26 (2007)), the sum ending by the initial monotone positive sequence of Geyer
/// (Stat. Sci. 7, 473 (1992)).
fn inefficiency(chains: &[Vec<f64>], mean: f64) -> (f64, f64) {
    let length = chains.iter().map(Vec::len).min().unwrap_or(0);
    if length == 0 {
        return (0.0, 1.0);
    }
    let n = (length * chains.len()) as f64;
    // Divided by the number of samples, not of pairs: far lags have few pairs, and so a small weight.
    let covariance = |lag: usize| {
        let pairs = |chain: &Vec<f64>| -> f64 {
            chain.iter().zip(&chain[lag.min(chain.len())..]).map(|(a, b)| (a - mean) * (b - mean)).sum()
        };
        chains.iter().map(pairs).sum::<f64>() / n
    };
    let variance = covariance(0);
    if variance <= 0.0 {
        return (0.0, 1.0);
    }
    let mut sum = 0.0;
    let mut least = f64::INFINITY;
    for pair in 0..length / 2 {
        let both = (covariance(2 * pair) + covariance(2 * pair + 1)).min(least);
        // The sum over both signs of the lag has lag 0 once.
        if both <= 0.0 {
            break;
        }
        least = both;
        sum += both;
    }
    (variance, (2.0 * sum / variance - 1.0).max(1.0 / n.max(1.0)))
}

/// What a temperature's tallies say: kinetic temperature over temperature, acceptance, and the last three of
/// hybrid Monte Carlo in a [`RungSummary`].
pub fn ratios(tally: &Tally, degrees_of_freedom: usize) -> [Option<f64>; 5] {
    let ratio = |a: f64, b: f64| (b > 0.0).then_some(a / b);
    [
        ratio(tally.twice_kinetic, tally.looks * degrees_of_freedom as f64),
        ratio(tally.accepted, tally.moves),
        ratio(tally.error, tally.measured),
        ratio(tally.weight, tally.moves).filter(|_| tally.measured > 0.0),
        ratio(tally.moves - tally.measured, tally.moves).filter(|_| tally.looks > 0.0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::Purpose;
    use crate::simulate::noise::Source;

    /// First-order autoregression: 1 + 2·Σρ = (1 + a)/(1 − a). Blocks must not change what comes out by more than noise;
    /// the bounds are about four standard errors of the estimate at this length.
    #[test]
    fn independent_samples_of_an_autoregression() {
        let (series, frames, a) = (4, 40_000, 0.9f64);
        let mut energies = EnergySeries::new(series);
        let mut chains = vec![Vec::new(); series];
        let (mut x, mut z) = (vec![0.0; series], vec![0.0; series]);
        for t in 0..frames {
            Source::new(3, false).normals(Purpose::SimulationNoise, t, 0, series, &mut z);
            for s in 0..series {
                x[s] = a * x[s] + (1.0 - a * a).sqrt() * z[s];
                chains[s].push(x[s]);
            }
            energies.add(&x);
        }
        let expected = (series as u64 * frames) as f64 * (1.0 - a) / (1.0 + a);
        for found in [energies.effective_samples(0..series), effective_samples(&chains)] {
            assert!((found / expected - 1.0).abs() < 0.15, "{found} of {expected}");
        }
        let (mean, variance) = energies.moments(0..series);
        assert!(mean.abs() < 5.0 / expected.sqrt() && (variance - 1.0).abs() < 0.1);
    }

    #[test]
    fn chains_that_disagree_are_worth_little() {
        let mut energies = EnergySeries::new(2);
        let mut z = [0.0; 2];
        for t in 0..4000 {
            Source::new(4, false).normals(Purpose::SimulationNoise, t, 0, 2, &mut z);
            energies.add(&[z[0], z[1] + 10.0]);
        }
        assert!(energies.effective_samples(0..2) < 20.0);
    }
}
