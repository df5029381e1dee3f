//! Sequential Monte Carlo from a flow to its target (Del Moral, Doucet and Jasra 2006).
//!
//! A population of M draws of the flow is carried along γ_β = q^{1−β}·p̃^β, as annealed samples are (`annealing`); but where the
//! weights have become unequal, it is resampled, and what is then moved on is where the weight is. With weights w_i between
//! two resamplings, the product of their means estimates Z without bias, whatever the moves do, since the distributions and step
//! sizes were fixed by other draws (`population_tuning`). A sample's weight is its population's estimate times its share.
//!
//! Samples of one ancestor are relatives. From the weights W_a that all of an ancestor's descendants have together, which are
//! zero where there are none, the variance of the estimate follows from a single population (Chan and Lai 2013; Lee and
//! Whiteley 2018): that of a mean of M numbers. So all that is said about weights is said about those of ancestors.

use super::annealed::Draws;
use super::annealing::PathError;
use super::generator::Generator;
use super::importance::{SampleError, SampleKey, WeightedBatch};
use super::moves::{Effort, Moves};
use super::points::{Densities, Points};
use super::resampling::{Together, shift, systematic};
use crate::math::{Purpose, Randoms, log_sum_exp};
use std::ops::RangeInclusive;

/// Populations are so large.
pub const POPULATIONS: RangeInclusive<usize> = 16..=16_384;

/// Below this effective fraction a population is resampled.
const LEAST_FRACTION: f64 = 0.5;

/// How populations are carried.
#[derive(Clone, Debug, PartialEq)]
pub struct Populations {
    /// M.
    pub size: usize,
    pub effort: Effort,
    /// β_1 < … < β_K, between 0 and 1 (K).
    pub exponents: Vec<f64>,
    /// Leapfrog step sizes at each (K), for a latent temperature of 1; those of others are √τ as large. None without moves by
    /// gradients.
    pub step_sizes: Vec<f64>,
    /// By which pilots placed the exponents, or found that there need not be any: see
    /// [`PopulationGoal`](super::population_tuning::PopulationGoal).
    pub conditional_fraction: f64,
}

impl Populations {
    /// Evaluations of energy and flow that a sample costs.
    pub fn evaluations(&self) -> usize {
        1 + self.exponents.len() * self.effort.evaluations()
    }
}

/// A population on its way.
pub(super) struct Population<'a> {
    densities: Densities<'a>,
    effort: Effort,
    key: SampleKey,
    number: u64,
    pub points: Points,
    /// log of the weights since the population began (M).
    pub log_weights: Vec<f64>,
    /// Places among the flow's draws (M).
    ancestors: Vec<usize>,
    temperatures: Vec<f64>,
    taus: Vec<f64>,
    randoms: Vec<Randoms>,
    resamplings: u64,
    /// Of draws without weight.
    non_finite: usize,
    /// log q(x) of the draws (M); NaN outside of the coordinates' domain.
    log_densities: Vec<f64>,
}

impl<'a> Population<'a> {
    pub fn begin(
        generator: &'a Generator,
        key: &SampleKey,
        effort: Effort,
        draws: &Draws,
        number: u64,
    ) -> Result<Self, PathError> {
        let n = draws.log_probs.len();
        let densities = Densities { flow: &generator.flow, target: &generator.target };
        let (temperatures, taus) = (vec![key.temperature; n], vec![draws.tau; n]);
        let moves = Moves { densities, effort, temperatures: &temperatures, taus: &taus };
        let points = moves.points(draws.coordinates.clone(), draws.log_probs.clone(), &temperatures, &taus)?;
        // The flow's density as the way there has it may be rounded otherwise than on the way back.
        let gain = |row: usize| {
            let gain = points.log_probs[row] - draws.log_probs[row];
            if gain.is_finite() && points.log_ratio(row).is_finite() { gain } else { f64::NEG_INFINITY }
        };
        let log_weights: Vec<f64> = (0..n).map(gain).collect();
        let density = |(q, ladj): (&f64, &f64)| if *ladj == f64::NEG_INFINITY { f64::NAN } else { q - ladj };
        let log_densities = draws.log_probs.iter().zip(&points.target.ladj).map(density).collect();
        let moves = if key.purpose == Purpose::Sample { Purpose::SampleMove } else { Purpose::PilotMove };
        Ok(Self {
            densities,
            effort,
            key: *key,
            number,
            non_finite: log_weights.iter().filter(|w| **w == f64::NEG_INFINITY).count(),
            log_densities,
            log_weights,
            points,
            ancestors: (0..n).collect(),
            temperatures,
            taus,
            randoms: (0..n as u64).map(|row| Randoms::new(key.seed, moves, draws.first_index + row)).collect(),
            resamplings: 0,
        })
    }

    /// Goes on by `step` of β.
    pub fn weigh(&mut self, step: f64) {
        for (row, w) in self.log_weights.iter_mut().enumerate() {
            // −∞ stays so: no move leads there or from there.
            if *w > f64::NEG_INFINITY {
                *w += step * self.points.log_ratio(row);
            }
        }
    }

    /// Takes rows as often as their weights say if these are unequal.
    pub fn level(&mut self) {
        let n = self.log_weights.len() as f64;
        let total = log_sum_exp(&self.log_weights);
        let squares: f64 = self.log_weights.iter().map(|w| (2.0 * (w - total)).exp()).sum();
        if 1.0 / squares >= LEAST_FRACTION * n {
            return;
        }
        let shift = shift(&self.key, self.number, self.resamplings);
        let Some(order) = systematic(&self.log_weights, shift) else { return };
        self.resamplings += 1;
        self.points = self.points.rows(&order);
        self.ancestors = order.iter().map(|&row| self.ancestors[row]).collect();
        self.log_weights.fill(total - n.ln());
    }

    /// Moves at γ_β, and the mean probability of acceptance of those by gradients.
    pub fn move_on<E: From<PathError>>(
        &mut self,
        beta: f64,
        step_size: Option<f64>,
        proceed: &mut impl FnMut() -> Result<(), E>,
    ) -> Result<Option<f64>, E> {
        let (temperatures, taus) = (&self.temperatures, &self.taus);
        let moves = Moves { densities: self.densities, effort: self.effort, temperatures, taus };
        Ok(moves.make(&mut self.points, beta, step_size, &mut self.randoms, proceed)?.acceptance())
    }
}

impl Generator {
    /// The samples of population `number`, at the ends of their ways: latents and `log_probs` are those of the flow's draw that
    /// each began as, coordinates, positions and energies those of the end. The key's method says how the flow gives its draws.
    /// `proceed` is asked before each evaluation.
    pub fn population<E: From<PathError> + From<SampleError>>(
        &self,
        key: &SampleKey,
        plan: &Populations,
        number: u64,
        mut proceed: impl FnMut() -> Result<(), E>,
    ) -> Result<Together, E> {
        let (draws, population, _) = self.carry_population(key, plan, number, &mut proceed)?;
        let n = plan.size;
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by_key(|&row| population.ancestors[row]);
        let Points { coordinates, target, .. } = population.points.rows(&order);
        let ancestors: Vec<usize> = order.iter().map(|&row| population.ancestors[row]).collect();
        let kt = self.kt(key.temperature);
        let d = self.target.dimension();
        let latents = ancestors.iter().flat_map(|&a| draws.latents[a * d..(a + 1) * d].iter().copied()).collect();
        let batch = WeightedBatch {
            first_index: draws.first_index,
            latents,
            coordinates,
            positions: target.positions,
            reduced_energies: target.energies.iter().map(|u| u / kt).collect(),
            energies: target.energies,
            log_probs: ancestors.iter().map(|&a| population.log_densities[a]).collect(),
            log_weights: order.iter().map(|&row| population.log_weights[row]).collect(),
            ancestors: ancestors.iter().map(|&a| draws.first_index + a as u64).collect(),
        };
        Ok(Together::new(key, batch, draws.first_index, n, population.non_finite))
    }

    /// A population at its end, with the mean probability of acceptance of moves by gradients at each distribution.
    pub(super) fn carry_population<E: From<PathError> + From<SampleError>>(
        &self,
        key: &SampleKey,
        plan: &Populations,
        number: u64,
        proceed: &mut impl FnMut() -> Result<(), E>,
    ) -> Result<(Draws, Population<'_>, Vec<Option<f64>>), E> {
        let first = number.checked_mul(plan.size as u64).ok_or(SampleError::IndexOverflow)?;
        let draws = self.draws(key, first, plan.size)?;
        let mut population = Population::begin(self, key, plan.effort, &draws, number)?;
        let mut before = 0.0;
        let mut acceptance = Vec::with_capacity(plan.exponents.len());
        for (k, &beta) in plan.exponents.iter().enumerate() {
            population.weigh(beta - before);
            population.level();
            acceptance.push(population.move_on(beta, plan.step_sizes.get(k).copied(), proceed)?);
            before = beta;
        }
        population.weigh(1.0 - before);
        Ok((draws, population, acceptance))
    }
}
