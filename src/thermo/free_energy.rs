//! Free energies from weighted samples: log Z, F, U, S (equations 38 to 43 of the note), states and profiles.

use super::bootstrap::{BlockSums, Estimate, Totals};
use super::collective_variable::BoundVariable;
use super::density::{BandwidthRule, CELLS, Grid, OnGrid};
use super::profile::{KernelProfile, Profile, ProfileQuery};
use super::smoothing::{Change, HeavySample, HeavySamples};

/// A state: the configurations whose variables are in all of these intervals [low, high).
#[derive(Clone, Debug)]
pub struct StateQuery {
    pub name: String,
    pub intervals: Vec<(BoundVariable, f64, f64)>,
}

/// What is asked of one temperature.
#[derive(Clone, Debug, Default)]
pub struct FreeEnergyQuery {
    /// At most 64.
    pub states: Vec<StateQuery>,
    pub profiles: Vec<ProfileQuery>,
    /// Whether estimates from smoothed and from truncated weights are wanted beside those from exact ones.
    pub changed_weights: bool,
}

impl FreeEnergyQuery {
    /// The states that a configuration x (D) is in: bit i of state i.
    pub fn states_of(&self, x: &[f64]) -> u64 {
        let is_in = |state: &StateQuery| {
            let inside = |(variable, low, high): &(BoundVariable, f64, f64)| {
                variable.description().contains(*low, *high, variable.value(x))
            };
            state.intervals.iter().all(inside)
        };
        self.states.iter().enumerate().filter(|(_, state)| is_in(state)).map(|(at, _)| 1 << at).sum()
    }
}

/// Sums that the answers are made of, over weighted samples at one temperature.
#[derive(Clone, Debug)]
pub struct FreeEnergyAccumulator {
    query: FreeEnergyQuery,
    /// k_B·T in the system's energy unit.
    kt: f64,
    /// u₀.
    origin: Option<f64>,
    /// Of each profile, that of its kernel density.
    grids: Vec<Option<(Grid, OnGrid)>>,
    sums: BlockSums,
    /// Samples in each state, each counting one.
    counts: Vec<u64>,
    heavy: Option<HeavySamples>,
}

/// What the grid of a kernel density is made into a profile with.
struct Smoother {
    bandwidth: f64,
    rule: BandwidthRule,
    /// As [`Grid::kernel`] says.
    kernel: Vec<f64>,
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
    /// The share of the samples themselves that is in each state, whatever they weigh.
    pub state_shares: Vec<f64>,
    /// Where it was looked for what samples do not see: how much F(state) − F(first state) would change with it, in kT, as
    /// `state_differences`; else empty.
    pub unseen_changes: Vec<f64>,
    pub profiles: Vec<Profile>,
    /// From smoothed weights, if asked for and there is a tail to smooth.
    pub smoothed: Option<ChangedWeights>,
    /// From truncated weights, if asked for.
    pub truncated: Option<ChangedWeights>,
}

/// Estimates from weights of which the largest were changed. They are biased, and how much is not known.
#[derive(Clone, Debug, PartialEq)]
pub struct ChangedWeights {
    /// How many weights were changed.
    pub changed: u64,
    pub log_z: f64,
    /// ⟨U⟩, in the system's energy unit.
    pub internal_energy: f64,
    /// In the order of the query.
    pub state_probabilities: Vec<f64>,
}

/// Σw, Σw·(u − u₀), Σw·(u − u₀)²: the sums before those of states and profiles. u₀ is the energy of a heavy sample: the
/// variance of energies that are large and alike keeps its digits.
const MOMENTS: usize = 3;

impl FreeEnergyAccumulator {
    /// For samples at k_B·T = `kt` in the system's energy unit, `together` of which, one after the other, depend on each other; 1
    /// where they are independent.
    pub fn new(query: FreeEnergyQuery, kt: f64, together: u64) -> Self {
        let grid = |profile: &ProfileQuery| profile.kernel.map(|_| (Grid::new(&profile.first), OnGrid::default()));
        let grids: Vec<_> = query.profiles.iter().map(grid).collect();
        let cells = CELLS * grids.iter().flatten().count();
        let bins: usize = query.profiles.iter().map(ProfileQuery::bins).sum();
        let sums = BlockSums::new(MOMENTS + query.states.len() + bins + cells, together);
        let (counts, heavy) = (vec![0; query.states.len()], query.changed_weights.then(HeavySamples::default));
        Self { query, kt, origin: None, grids, sums, counts, heavy }
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
            let (query, grids) = (&self.query, &mut self.grids);
            let u = energy / self.kt - self.origin.unwrap_or(0.0);
            let states_of = query.states_of(x);
            self.counts.iter_mut().enumerate().for_each(|(at, count)| *count += states_of >> at & 1);
            if let Some(heavy) = &mut self.heavy {
                heavy.add(HeavySample { log_weight, energy: u, states: states_of });
            }
            self.sums.add(log_weight, |w, sums| {
                sums[0] += w;
                sums[1] += w * u;
                sums[2] += w * u * u;
                let (states, mut rest) = sums[MOMENTS..].split_at_mut(query.states.len());
                for (at, sum) in states.iter_mut().enumerate() {
                    if states_of >> at & 1 == 1 {
                        *sum += w;
                    }
                }
                for (profile, grid) in query.profiles.iter().zip(grids) {
                    let (bins, after) = rest.split_at_mut(profile.bins());
                    let first = profile.first.variable.value(x);
                    let second = profile.second.as_ref().map(|axis| axis.variable.value(x));
                    if let Some(bin) = profile.bin(first, second) {
                        bins[bin] += w;
                    }
                    rest = after;
                    let Some((grid, on_grid)) = grid else { continue };
                    let (cells, after) = rest.split_at_mut(CELLS);
                    if let Some(cell) = grid.cell(first) {
                        cells[cell] += w;
                        on_grid.add(log_weight);
                    }
                    rest = after;
                }
            });
        }
    }

    /// The answers so far, with bootstrap errors from `replicates` resamplings.
    pub fn report(&self, replicates: usize, seed: u64) -> FreeEnergyReport {
        let (kt, states) = (self.kt, self.query.states.len());
        let totals = self.sums.totals();
        let smoothers = self.smoothers(&totals);
        let estimates = self.sums.estimate(replicates, seed, |t| self.quantities(t, &smoothers));
        let mut rest = estimates[4..].iter().copied();
        let state_probabilities = rest.by_ref().take(states).map(Estimate::of_probability).collect();
        let state_differences = rest.by_ref().take(states.saturating_sub(1)).collect();
        let mut sums = &totals.sums[MOMENTS + states..];
        let profiles = self
            .query
            .profiles
            .iter()
            .zip(smoothers)
            .map(|(query, smoother)| {
                let (bins, after) = sums.split_at(query.bins());
                sums = &after[if smoother.is_some() { CELLS } else { 0 }..];
                Profile {
                    edges: query.first.edges(),
                    second_edges: query.second.as_ref().map(|axis| axis.edges()).unwrap_or_default(),
                    free_energy: rest.by_ref().take(query.bins()).collect(),
                    covered: bins.iter().sum::<f64>() / totals.sums[0],
                    kernel: smoother.map(|Smoother { bandwidth, rule, .. }| KernelProfile {
                        free_energy: rest.by_ref().take(query.first.bins).collect(),
                        bandwidth,
                        rule,
                    }),
                }
            })
            .collect();
        let changed = |change: Change| self.heavy.as_ref().and_then(|heavy| self.changed(heavy, change, &totals));
        FreeEnergyReport {
            state_shares: self.counts.iter().map(|count| *count as f64 / totals.samples).collect(),
            smoothed: changed(Change::Smoothed),
            truncated: changed(Change::Truncated),
            log_z: estimates[0],
            free_energy: estimates[0].scaled(-kt),
            internal_energy: estimates[1].scaled(kt),
            entropy: estimates[2],
            heat_capacity: estimates[3],
            state_probabilities,
            state_differences,
            unseen_changes: Vec::new(),
            profiles,
        }
    }

    /// Estimates from changed weights.
    fn changed(&self, heavy: &HeavySamples, change: Change, totals: &Totals) -> Option<ChangedWeights> {
        let states = self.query.states.len();
        let mut sums = totals.sums[..MOMENTS + states].to_vec();
        let log_mean = (sums[0] / totals.samples).ln() + totals.log_scale;
        let changed = heavy.changed(change, log_mean)?;
        for (sample, log_weight) in &changed {
            let gain = (log_weight - totals.log_scale).exp() - (sample.log_weight - totals.log_scale).exp();
            sums[0] += gain;
            sums[1] += gain * sample.energy;
            for (at, sum) in sums[MOMENTS..].iter_mut().enumerate() {
                if sample.states >> at & 1 == 1 {
                    *sum += gain;
                }
            }
        }
        let w = sums[0];
        Some(ChangedWeights {
            changed: changed.len() as u64,
            log_z: (w / totals.samples).ln() + totals.log_scale,
            internal_energy: self.kt * (sums[1] / w + self.origin.unwrap_or(0.0)),
            // What rounding leaves of a state that lost all of its weight may be below zero.
            state_probabilities: sums[MOMENTS..].iter().map(|s| (s / w).max(0.0)).collect(),
        })
    }

    /// How the grids of kernel densities are made into profiles, by the bandwidths that all samples give: a resampling has the
    /// same.
    fn smoothers(&self, t: &Totals) -> Vec<Option<Smoother>> {
        let mut sums = &t.sums[MOMENTS + self.query.states.len()..];
        let mut all = Vec::with_capacity(self.grids.len());
        for (profile, grid) in self.query.profiles.iter().zip(&self.grids) {
            sums = &sums[profile.bins()..];
            let (Some((grid, on_grid)), Some(asked)) = (grid, profile.kernel) else {
                all.push(None);
                continue;
            };
            let (cells, after) = sums.split_at(CELLS);
            sums = after;
            let (bandwidth, rule) = grid.bandwidth(asked, cells, on_grid);
            all.push(Some(Smoother { bandwidth, rule, kernel: grid.kernel(profile.first.centres(), bandwidth) }));
        }
        all
    }

    /// log Z, U/kT, S/k, C/k, then states, differences and profiles, each with its kernel density behind it.
    fn quantities(&self, t: &Totals, smoothers: &[Option<Smoother>]) -> Vec<f64> {
        let w = t.sums[0];
        let log_z = (w / t.samples).ln() + t.log_scale;
        let (shifted, squared) = (t.sums[1] / w, t.sums[2] / w);
        let u = shifted + self.origin.unwrap_or(0.0);
        let mut all = vec![log_z, u, u + log_z, squared - shifted * shifted];
        let probabilities: Vec<f64> =
            t.sums[MOMENTS..MOMENTS + self.query.states.len()].iter().map(|s| s / w).collect();
        all.extend(&probabilities);
        all.extend(probabilities.iter().skip(1).map(|p| (probabilities[0] / p).ln()));
        let mut sums = &t.sums[MOMENTS + self.query.states.len()..];
        let mut push = |densities: &[f64]| {
            let highest = densities.iter().copied().fold(0.0, f64::max);
            all.extend(densities.iter().map(|density| (highest / density).ln()));
        };
        for (profile, smoother) in self.query.profiles.iter().zip(smoothers) {
            let (bins, after) = sums.split_at(profile.bins());
            push(bins);
            sums = after;
            if let Some(smoother) = smoother {
                let (cells, after) = sums.split_at(CELLS);
                let density = |row: &[f64]| row.iter().zip(cells).map(|(k, s)| k * s).sum();
                push(&smoother.kernel.chunks_exact(CELLS).map(density).collect::<Vec<f64>>());
                sums = after;
            }
        }
        all
    }
}
