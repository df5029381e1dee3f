//! The distributions that populations go through, and the step sizes there, by pilots of a fixed seed: a property of model and
//! temperature, so that populations themselves are free of what is fitted to them.

use super::annealing::{MOST_EVALUATIONS, PathError, tuned};
use super::generator::Generator;
use super::importance::{SampleError, SampleKey};
use super::method::PILOT_SEED;
use super::moves::Effort;
use super::populations::{Population, Populations};
use crate::math::{Purpose, log_sum_exp};
use std::ops::RangeInclusive;

/// Rows of a pilot.
pub const PILOT_ROWS: usize = 1024;

const FIRST_STEP_SIZE: f64 = 0.1;

/// Rounds of moves by gradients at each distribution of the first pilot, and pilots after it.
const ROUNDS: usize = 4;
const MORE_PILOTS: usize = 3;

/// Halvings of an interval of β.
const HALVINGS: usize = 40;

/// Conditional effective fractions that may be asked for.
pub const CONDITIONAL_FRACTIONS: RangeInclusive<f64> = 0.1..=0.999;

/// What is asked of populations that are to be tuned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PopulationGoal {
    pub size: usize,
    pub effort: Effort,
    /// Of the weights that a step of β adds, as a fraction: the conditional effective sample size of Zhou, Johansen and Aston
    /// (2016).
    pub conditional_fraction: f64,
    /// What a sample may cost on its way.
    pub most_evaluations: usize,
    /// A first step of β that has to be smaller ends the search: from there the way is too long.
    pub least_first_step: f64,
}

impl PopulationGoal {
    /// What is taken where nobody says anything.
    pub const DEFAULT: Self = Self {
        size: 512,
        effort: Effort { latent_moves: 16, moves: 0, leapfrog_steps: 0 },
        conditional_fraction: 0.7,
        most_evaluations: MOST_EVALUATIONS,
        least_first_step: 0.0,
    };

    /// Distributions that a sample may be carried through.
    fn most_distributions(&self) -> usize {
        (self.most_evaluations / self.effort.evaluations().max(1)).max(1)
    }
}

/// What pilots found.
#[derive(Clone, Debug, PartialEq)]
pub struct TunedPopulations {
    pub plan: Populations,
    /// Whether all steps of β are as small as the goal says: the last one, to the target, is larger where there would be more
    /// distributions than a sample may cost, and where no step is small enough, as from a flow without weight at its target.
    pub arrives: bool,
}

/// Where to go from a distribution.
enum Next {
    /// To another one.
    At(f64),
    /// To the target.
    Target,
    /// To the target, further than the goal says.
    Stuck,
}

impl Generator {
    /// Distributions as far apart as the goal says, with step sizes for an acceptance of 0.65. Where these would be more than a
    /// sample may cost, the last step is as large as it is.
    pub fn tuned_populations<E: From<PathError> + From<SampleError>>(
        &self,
        temperature: f64,
        goal: PopulationGoal,
        mut proceed: impl FnMut() -> Result<(), E>,
    ) -> Result<TunedPopulations, E> {
        let PopulationGoal { size, effort, conditional_fraction, .. } = goal;
        let method = self.start_method(temperature);
        let key = SampleKey { temperature, method, seed: PILOT_SEED, purpose: Purpose::Pilot };
        let mut plan = Populations {
            size: PILOT_ROWS,
            effort,
            exponents: Vec::new(),
            step_sizes: Vec::new(),
            conditional_fraction,
        };
        let most = goal.most_distributions();
        let draws = self.draws(&key, 0, PILOT_ROWS)?;
        let mut pilot = Population::begin(self, &key, effort, &draws, 0)?;
        let mut before = 0.0;
        let mut step_size = FIRST_STEP_SIZE;
        let arrives = loop {
            let beta = match next_exponent(&pilot, before, conditional_fraction) {
                Next::Target => break true,
                Next::Stuck => break false,
                Next::At(_) if plan.exponents.len() >= most => break false,
                Next::At(beta) if plan.exponents.is_empty() && beta < goal.least_first_step => break false,
                Next::At(beta) => beta,
            };
            pilot.weigh(beta - before);
            pilot.level();
            before = beta;
            plan.exponents.push(beta);
            if !effort.needs_score() {
                pilot.move_on(beta, None, &mut proceed)?;
                continue;
            }
            for _ in 0..ROUNDS {
                let acceptance = pilot.move_on(beta, Some(step_size), &mut proceed)?;
                let mut one = [step_size];
                tuned(&mut one, &[acceptance], 2.0);
                step_size = one[0];
            }
            plan.step_sizes.push(step_size);
        };
        if !effort.needs_score() {
            return Ok(TunedPopulations { plan: Populations { size, ..plan }, arrives });
        }
        for number in 1..=MORE_PILOTS {
            let (_, _, acceptance) = self.carry_population(&key, &plan, number as u64, &mut proceed)?;
            tuned(&mut plan.step_sizes, &acceptance, 2.0 / number as f64);
        }
        Ok(TunedPopulations { plan: Populations { size, ..plan }, arrives })
    }
}

/// The next β, so that the weights of the step have the conditional effective fraction.
fn next_exponent(pilot: &Population<'_>, before: f64, fraction: f64) -> Next {
    let ratios: Vec<f64> = (0..pilot.points.len()).map(|row| pilot.points.log_ratio(row)).collect();
    let total = log_sum_exp(&pilot.log_weights);
    if !total.is_finite() {
        return Next::Stuck;
    }
    let rows: Vec<(f64, f64)> = pilot
        .log_weights
        .iter()
        .zip(&ratios)
        .filter(|(w, _)| **w > f64::NEG_INFINITY)
        .map(|(w, r)| (w - total, *r))
        .collect();
    // (Σ W v)² / Σ W v², v the weights of the step.
    let conditional = |step: f64| {
        let first = log_sum_exp(&rows.iter().map(|(w, r)| w + step * r).collect::<Vec<_>>());
        let second = log_sum_exp(&rows.iter().map(|(w, r)| w + 2.0 * step * r).collect::<Vec<_>>());
        (2.0 * first - second).exp()
    };
    // Of one row nothing can be told.
    if rows.len() < 2 {
        return Next::Stuck;
    }
    let all = 1.0 - before;
    if conditional(all) >= fraction {
        return Next::Target;
    }
    let (mut low, mut high) = (0.0, all);
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        if conditional(middle) >= fraction { low = middle } else { high = middle }
    }
    let beta = before + low;
    if beta > before && beta < 1.0 { Next::At(beta) } else { Next::Stuck }
}
