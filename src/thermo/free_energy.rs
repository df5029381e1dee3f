//! Free energies from weighted samples: log Z, F, U, S (equations 38 to 43 of the note), states and profiles.

use super::bootstrap::{BlockSums, Estimate, Totals};
use super::collective_variable::CollectiveVariable;

/// A state: the configurations whose variables are in all of these intervals [low, high).
#[derive(Clone, Debug, PartialEq)]
pub struct StateQuery {
    pub name: String,
    pub intervals: Vec<(CollectiveVariable, f64, f64)>,
}

/// A free-energy profile over `bins` equal bins of [low, high).
#[derive(Clone, Debug, PartialEq)]
pub struct ProfileQuery {
    pub variable: CollectiveVariable,
    pub low: f64,
    pub high: f64,
    pub bins: usize,
}

/// What is asked of one temperature.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FreeEnergyQuery {
    pub states: Vec<StateQuery>,
    pub profiles: Vec<ProfileQuery>,
}

/// Sums that the answers are made of, over weighted samples at one temperature.
#[derive(Clone, Debug)]
pub struct FreeEnergyAccumulator {
    query: FreeEnergyQuery,
    /// k_B·T in the system's energy unit.
    kt: f64,
    /// u₀.
    origin: Option<f64>,
    sums: BlockSums,
}

/// A profile as estimated.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// bins + 1 edges.
    pub edges: Vec<f64>,
    /// −log of the probability density in each bin, in kT, its smallest value being zero; +∞ in empty bins.
    pub free_energy: Vec<Estimate>,
    /// The probability of being inside [low, high).
    pub covered: f64,
}

/// The answers at one temperature. Energies are in the system's unit; S is in units of k_B.
#[derive(Clone, Debug, PartialEq)]
pub struct FreeEnergyReport {
    pub log_z: Estimate,
    /// F = −kT log Z.
    pub free_energy: Estimate,
    /// U = ⟨U(x)⟩.
    pub internal_energy: Estimate,
    /// S/k_B = (U − F)/kT.
    pub entropy: Estimate,
    /// C/k_B = Var(U)/(kT)².
    pub heat_capacity: Estimate,
    /// Probability of each state, in the order of the query.
    pub state_probabilities: Vec<Estimate>,
    /// F(state) − F(first state), in kT, for each state after the first.
    pub state_differences: Vec<Estimate>,
    pub profiles: Vec<Profile>,
}

/// Σw, Σw·(u − u₀), Σw·(u − u₀)²: the sums before those of states and profiles. u₀ is the energy of a heavy sample: the
/// variance of energies that are large and alike keeps its digits.
const MOMENTS: usize = 3;

impl FreeEnergyAccumulator {
    pub fn new(query: FreeEnergyQuery, kt: f64) -> Self {
        let bins: usize = query.profiles.iter().map(|p| p.bins).sum();
        let sums = BlockSums::new(MOMENTS + query.states.len() + bins);
        Self { query, kt, origin: None, sums }
    }

    /// Adds samples: log weights (n), potential energies (n), positions (n, D).
    pub fn add(&mut self, log_weights: &[f64], energies: &[f64], positions: &[f64]) {
        let width = positions.len() / log_weights.len().max(1);
        if self.origin.is_none() {
            // Of the heaviest sample: a typical energy, where that of a clash would drown the rest.
            let heaviest = log_weights.iter().zip(energies).max_by(|a, b| a.0.total_cmp(b.0));
            self.origin = heaviest.filter(|(w, _)| **w > f64::NEG_INFINITY).map(|(_, energy)| energy / self.kt);
        }
        for ((&log_weight, &energy), x) in log_weights.iter().zip(energies).zip(positions.chunks(width.max(1))) {
            let query = &self.query;
            let u = energy / self.kt - self.origin.unwrap_or(0.0);
            self.sums.add(log_weight, |w, sums| {
                sums[0] += w;
                sums[1] += w * u;
                sums[2] += w * u * u;
                let (states, bins) = sums[MOMENTS..].split_at_mut(query.states.len());
                for (sum, state) in states.iter_mut().zip(&query.states) {
                    if state.intervals.iter().all(|(cv, low, high)| cv.contains(*low, *high, cv.value(x))) {
                        *sum += w;
                    }
                }
                let mut first = 0;
                for profile in &query.profiles {
                    if let Some(bin) = profile.bin(profile.variable.value(x)) {
                        bins[first + bin] += w;
                    }
                    first += profile.bins;
                }
            });
        }
    }

    /// The answers so far, with bootstrap errors from `replicates` resamplings.
    pub fn report(&self, replicates: usize, seed: u64) -> FreeEnergyReport {
        let (kt, states) = (self.kt, self.query.states.len());
        let estimates = self.sums.estimate(replicates, seed, |t| self.quantities(t));
        let scaled = |e: Estimate, s: f64| {
            let (a, b) = (s * e.interval.0, s * e.interval.1);
            Estimate { value: s * e.value, standard_error: s.abs() * e.standard_error, interval: (a.min(b), a.max(b)) }
        };
        let mut rest = estimates[4..].iter().copied();
        // A state that was never visited is not known to have no probability, nor one that was never left to have all.
        let known = |e: Estimate| {
            let seen = e.value > 0.0 && e.value < 1.0;
            if seen { e } else { Estimate { interval: (0.0, 1.0), ..Estimate::without_error(e.value) } }
        };
        let state_probabilities = rest.by_ref().take(states).map(known).collect();
        let state_differences = rest.by_ref().take(states.saturating_sub(1)).collect();
        let totals = self.sums.totals();
        let mut first = MOMENTS + states;
        let profiles = self
            .query
            .profiles
            .iter()
            .map(|query| {
                let inside: f64 = totals.sums[first..first + query.bins].iter().sum();
                first += query.bins;
                Profile {
                    edges: query.edges(),
                    free_energy: rest.by_ref().take(query.bins).collect(),
                    covered: inside / totals.sums[0],
                }
            })
            .collect();
        FreeEnergyReport {
            log_z: estimates[0],
            free_energy: scaled(estimates[0], -kt),
            internal_energy: scaled(estimates[1], kt),
            entropy: estimates[2],
            heat_capacity: estimates[3],
            state_probabilities,
            state_differences,
            profiles,
        }
    }

    /// log Z, U/kT, S/k, C/k, then states, differences and profiles.
    fn quantities(&self, t: &Totals) -> Vec<f64> {
        let w = t.sums[0];
        let log_z = (w / t.samples).ln() + t.log_scale;
        let (shifted, squared) = (t.sums[1] / w, t.sums[2] / w);
        let u = shifted + self.origin.unwrap_or(0.0);
        let mut all = vec![log_z, u, u + log_z, squared - shifted * shifted];
        let probabilities: Vec<f64> =
            t.sums[MOMENTS..MOMENTS + self.query.states.len()].iter().map(|s| s / w).collect();
        all.extend(&probabilities);
        all.extend(probabilities.iter().skip(1).map(|p| (probabilities[0] / p).ln()));
        let mut first = MOMENTS + self.query.states.len();
        for profile in &self.query.profiles {
            let bins = &t.sums[first..first + profile.bins];
            let fullest = bins.iter().copied().fold(0.0, f64::max);
            all.extend(bins.iter().map(|b| (fullest / b).ln()));
            first += profile.bins;
        }
        all
    }
}

impl ProfileQuery {
    fn bin(&self, value: f64) -> Option<usize> {
        let value = match self.variable.period() {
            Some(period) => self.low + (value - self.low).rem_euclid(period),
            None => value,
        };
        if !(self.low..self.high).contains(&value) {
            return None;
        }
        let bin = ((value - self.low) / (self.high - self.low) * self.bins as f64) as usize;
        Some(bin.min(self.bins - 1))
    }

    fn edges(&self) -> Vec<f64> {
        (0..=self.bins).map(|i| self.low + (self.high - self.low) * i as f64 / self.bins as f64).collect()
    }
}
