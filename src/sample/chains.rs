//! Markov chains of the target that a flow's draws come into.
//!
//! Replicas 1 … K of a chain are at γ_β = q^{1−β}·p̃^β, β_1 < … < β_K = 1; what is below β_1 is the flow, whose draws are
//! independent. A step is
//!
//! * for the first replica a jump to a new draw y' of the flow, accepted with min(1, [r(y')/r(y)]^{β_1}), r = p̃/q: the
//!   independence sampler (Hastings 1970), or an exchange with a replica that has no memory (learned replica exchange, Invernizzi,
//!   Krämer, Clementi and Noé 2022; §4.1 of the note);
//! * an exchange of neighbours, accepted with min(1, [r(y_k)/r(y_{k+1})]^{β_{k+1} − β_k}), pairs in turn;
//! * moves of latents, and of Hamiltonian Monte Carlo, of each replica, if wanted.
//!
//! Samples are what the last replica is at. They have equal weights, and follow p only as far as the burn-in, which begins at
//! a draw of the flow, has been long enough; and they are correlated, how much is measured. Blocks of chains have their own
//! random numbers, so that a sample has an address.

use super::annealed::Draws;
use super::annealing::{MOST_EVALUATIONS, PathError, tuned};
use super::generator::Generator;
use super::importance::{SampleError, SampleKey, WeightedBatch};
use super::method::PILOT_SEED;
use super::moves::{Effort, Moves};
use super::points::{Densities, Points, append, put};
use super::population_tuning::PopulationGoal;
use crate::math::{Purpose, Randoms};

/// Draws that are made together.
const DRAWS: usize = 2048;

/// Steps of the pilot that tunes step sizes, and the step size that it begins with.
const PILOT_STEPS: usize = 32;
const FIRST_STEP_SIZE: f64 = 0.1;

/// How far apart the weights of neighbouring replicas are, where they are placed by a pilot, and how its rows are moved: see
/// [`PopulationGoal`].
const CONDITIONAL_FRACTION: f64 = 0.6;
const PLACING: Effort = Effort { latent_moves: 8, moves: 0, leapfrog_steps: 0 };

/// Replicas of a chain, at most.
pub const MOST_REPLICAS: usize = 32;

/// What is asked of chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChainShape {
    /// W: chains side by side, in a block.
    pub chains: usize,
    /// L: samples of each.
    pub length: usize,
    /// Steps before these.
    pub burn_in: usize,
    /// Nothing for jumps and exchanges alone.
    pub effort: Option<Effort>,
}

impl ChainShape {
    /// What is taken where nobody says anything.
    pub const DEFAULT: Self = Self {
        chains: 64,
        length: 256,
        burn_in: 64,
        effort: Some(Effort { latent_moves: 2, moves: 1, leapfrog_steps: 5 }),
    };

    /// The same of a flow that gives no gradients.
    pub const WITHOUT_SCORE: Self =
        Self { effort: Some(Effort { latent_moves: 4, moves: 0, leapfrog_steps: 0 }), ..Self::DEFAULT };
}

/// How chains go.
#[derive(Clone, Debug, PartialEq)]
pub struct Chains {
    pub shape: ChainShape,
    /// β_1 < … < β_K = 1.
    pub exponents: Vec<f64>,
    /// Leapfrog step sizes of each replica (K), for a latent temperature of 1; those of others are √τ as large. None without
    /// moves by gradients.
    pub step_sizes: Vec<f64>,
}

impl Chains {
    /// Samples of a block.
    pub fn block(&self) -> u64 {
        self.shape.chains as u64 * self.shape.length as u64
    }

    /// Evaluations of energy and flow that a sample costs.
    pub fn evaluations(&self) -> f64 {
        let ChainShape { length, burn_in, effort, .. } = self.shape;
        let moves = effort.map_or(0, |e| e.evaluations() * self.exponents.len());
        (1 + moves) as f64 * (1.0 + burn_in as f64 / length.max(1) as f64)
    }
}

/// Probabilities of acceptance, summed, and how many there were.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Acceptance {
    pub sum: f64,
    pub count: u64,
}

impl Acceptance {
    fn add(&mut self, log_ratio: f64) {
        self.count += 1;
        if !log_ratio.is_nan() {
            self.sum += log_ratio.min(0.0).exp();
        }
    }

    /// NaN of none.
    pub fn mean(&self) -> f64 {
        self.sum / self.count as f64
    }

    pub fn merge(&mut self, other: &Self) {
        self.sum += other.sum;
        self.count += other.count;
    }
}

/// A block of chains on its way.
pub struct ChainBlock<'a> {
    generator: &'a Generator,
    key: SampleKey,
    plan: Chains,
    /// Index of the block's first draw.
    first_draw: u64,
    /// W rows of each replica.
    replicas: Vec<Points>,
    /// Draws for the next steps, and log p̃/q of each as the flow's way there has it.
    draws: Points,
    log_ratios: Vec<f64>,
    next_draw: usize,
    steps: usize,
    temperatures: Vec<f64>,
    taus: Vec<f64>,
    /// Of the moves of each replica's rows, and of what is accepted.
    moves: Vec<Vec<Randoms>>,
    exchanges: Vec<Randoms>,
    /// Of the first replica's jumps to draws of the flow, and of exchanges of neighbours (K − 1), in all steps.
    pub jumps: Acceptance,
    pub swaps: Vec<Acceptance>,
    /// log weights of the draws that jumps were tried to.
    pub drawn: Vec<f64>,
}

impl<'a> ChainBlock<'a> {
    /// Block `number`, at its start.
    pub fn begin(generator: &'a Generator, key: &SampleKey, plan: &Chains, number: u64) -> Result<Self, SampleError> {
        let ChainShape { chains, length, burn_in, .. } = plan.shape;
        let draws = chains as u64 * (1 + burn_in as u64 + length as u64);
        let first_draw = number.checked_mul(draws).ok_or(SampleError::IndexOverflow)?;
        let tau = generator.draws(key, first_draw, 0)?.tau;
        let replicas = plan.exponents.len();
        let (moves, exchanges) = match key.purpose {
            Purpose::Sample => (Purpose::SampleMove, Purpose::ChainExchange),
            _ => (Purpose::PilotMove, Purpose::PilotExchange),
        };
        let own = number.checked_mul((chains * replicas) as u64).ok_or(SampleError::IndexOverflow)?;
        let random = |purpose, place: usize| Randoms::new(key.seed, purpose, own.wrapping_add(place as u64));
        let mut block = Self {
            generator,
            key: *key,
            plan: plan.clone(),
            first_draw,
            replicas: Vec::new(),
            draws: Points::default(),
            log_ratios: Vec::new(),
            next_draw: 0,
            steps: 0,
            temperatures: vec![key.temperature; chains],
            taus: vec![tau; chains],
            moves: (0..replicas).map(|k| (0..chains).map(|c| random(moves, k * chains + c)).collect()).collect(),
            exchanges: (0..chains).map(|c| random(exchanges, c)).collect(),
            jumps: Acceptance::default(),
            swaps: vec![Acceptance::default(); replicas.saturating_sub(1)],
            drawn: Vec::new(),
        };
        block.draw()?;
        let start = block.draws.rows(&(0..chains).collect::<Vec<_>>());
        block.next_draw = chains;
        block.replicas = vec![start; replicas];
        Ok(block)
    }

    /// Steps that were made, those of the burn-in included.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Makes draws for the next steps.
    fn draw(&mut self) -> Result<(), SampleError> {
        let ChainShape { chains, length, burn_in, effort } = self.plan.shape;
        let made = if self.replicas.is_empty() { 0 } else { self.steps + 1 };
        let ahead = (DRAWS / chains).clamp(1, (1 + burn_in + length).saturating_sub(made).max(1));
        let first = self.first_draw + (made * chains) as u64;
        let Draws { coordinates, log_probs, tau, .. } = self.generator.draws(&self.key, first, ahead * chains)?;
        let densities = Densities { flow: &self.generator.flow, target: &self.generator.target };
        let temperatures = vec![self.key.temperature; log_probs.len()];
        self.draws = match effort {
            Some(effort) if effort.needs_score() => {
                densities.points(coordinates, &temperatures, &vec![tau; log_probs.len()])?
            }
            _ => densities.drawn(coordinates, log_probs.clone(), &temperatures)?,
        };
        let ratio = |(p, q): (&f64, &f64)| if (p - q).is_finite() { p - q } else { f64::NEG_INFINITY };
        self.log_ratios = self.draws.log_targets.iter().zip(&log_probs).map(ratio).collect();
        self.next_draw = 0;
        Ok(())
    }

    /// A step of all chains. `proceed` is asked before each evaluation, and once where there are none.
    pub fn step<E: From<PathError> + From<SampleError>>(
        &mut self,
        proceed: &mut impl FnMut() -> Result<(), E>,
    ) -> Result<(), E> {
        proceed()?;
        self.jump()?;
        self.swap();
        self.move_all(proceed).map(|_| ())
    }

    fn jump(&mut self) -> Result<(), SampleError> {
        if self.next_draw >= self.draws.len() {
            self.draw()?;
        }
        let (Some(first), Some(beta)) = (self.replicas.first_mut(), self.plan.exponents.first()) else { return Ok(()) };
        for chain in 0..self.plan.shape.chains {
            let draw = self.next_draw + chain;
            let (there, here) = (self.draws.log_ratio(draw), first.log_ratio(chain));
            // From where there is no weight any weight is taken.
            let log_ratio = if there == f64::NEG_INFINITY { f64::NEG_INFINITY } else { beta * (there - here) };
            self.jumps.add(log_ratio);
            self.drawn.push(self.log_ratios[draw]);
            if self.exchanges[chain].uniform().ln() < log_ratio {
                put(&self.draws, draw, first, chain);
            }
        }
        self.next_draw += self.plan.shape.chains;
        Ok(())
    }

    fn swap(&mut self) {
        let replicas = self.replicas.len();
        for low in (self.steps % 2..replicas.saturating_sub(1)).step_by(2) {
            let step = self.plan.exponents[low + 1] - self.plan.exponents[low];
            let (below, above) = self.replicas.split_at_mut(low + 1);
            let (Some(below), Some(above)) = (below.last_mut(), above.first_mut()) else { continue };
            for chain in 0..self.plan.shape.chains {
                let (here, there) = (above.log_ratio(chain), below.log_ratio(chain));
                let log_ratio = if there == f64::NEG_INFINITY { f64::NEG_INFINITY } else { step * (there - here) };
                self.swaps[low].add(log_ratio);
                if self.exchanges[chain].uniform().ln() < log_ratio {
                    let mut kept = Points::default();
                    append(above, chain, &mut kept);
                    put(below, chain, above, chain);
                    put(&kept, 0, below, chain);
                }
            }
        }
    }

    /// The moves of all replicas, and the mean probability of acceptance of those by gradients of each.
    fn move_all<E: From<PathError>>(
        &mut self,
        proceed: &mut impl FnMut() -> Result<(), E>,
    ) -> Result<Vec<Option<f64>>, E> {
        self.steps += 1;
        let Some(effort) = self.plan.shape.effort else { return Ok(Vec::new()) };
        let densities = Densities { flow: &self.generator.flow, target: &self.generator.target };
        let (temperatures, taus) = (&self.temperatures, &self.taus);
        let moves = Moves { densities, effort, temperatures, taus };
        let mut acceptance = Vec::with_capacity(self.replicas.len());
        let replicas = self.replicas.iter_mut().zip(&mut self.moves).zip(&self.plan.exponents);
        for (k, ((points, randoms), &beta)) in replicas.enumerate() {
            let step_size = self.plan.step_sizes.get(k).copied();
            acceptance.push(moves.make(points, beta, step_size, randoms, proceed)?.acceptance());
        }
        Ok(acceptance)
    }

    /// log p̃/q of the last replica's rows (W).
    pub fn log_ratios(&self) -> Vec<f64> {
        let last = self.replicas.last();
        last.map_or_else(Vec::new, |points| (0..points.len()).map(|row| points.log_ratio(row)).collect())
    }

    /// U/kT of the last replica's rows (W).
    pub fn reduced_energies(&self) -> Vec<f64> {
        let kt = self.generator.kt(self.key.temperature);
        let last = self.replicas.last();
        last.map_or_else(Vec::new, |points| points.target.energies.iter().map(|u| u / kt).collect())
    }

    /// The samples of this step, of equal weights, one of each chain; `log_probs` are the flow's there. They have no latents.
    pub fn samples(&self, first_index: u64) -> WeightedBatch {
        let Some(points) = self.replicas.last() else { return WeightedBatch::default() };
        let log_probs = points.log_probs.iter().zip(&points.target.ladj);
        WeightedBatch {
            first_index,
            latents: Vec::new(),
            coordinates: points.coordinates.clone(),
            positions: points.target.positions.clone(),
            reduced_energies: self.reduced_energies(),
            energies: points.target.energies.clone(),
            log_probs: log_probs
                .map(|(q, ladj)| if *ladj == f64::NEG_INFINITY { f64::NAN } else { q - ladj })
                .collect(),
            // A chain that has not come to where there is density has none to give.
            log_weights: (0..points.len())
                .map(|row| if points.log_ratio(row) == f64::NEG_INFINITY { f64::NEG_INFINITY } else { 0.0 })
                .collect(),
            ancestors: Vec::new(),
        }
    }
}

impl Generator {
    /// Chains of a shape with replicas at given exponents, or with so many as a pilot finds to be needed; with step sizes for an
    /// acceptance of 0.65, by pilots of a fixed seed.
    pub fn tuned_chains<E: From<PathError> + From<SampleError>>(
        &self,
        temperature: f64,
        shape: ChainShape,
        exponents: Option<Vec<f64>>,
        mut proceed: impl FnMut() -> Result<(), E>,
    ) -> Result<Chains, E> {
        let exponents = match exponents {
            Some(exponents) => exponents,
            None => {
                // With the last one no more than there may be, and than a sample may cost.
                let cost = shape.effort.map_or(1, |effort| effort.evaluations().max(1));
                let most = MOST_REPLICAS.min(MOST_EVALUATIONS / cost).saturating_sub(1);
                let goal = PopulationGoal {
                    effort: PLACING,
                    conditional_fraction: CONDITIONAL_FRACTION,
                    most_evaluations: most * PLACING.evaluations(),
                    ..PopulationGoal::DEFAULT
                };
                let mut placed = self.tuned_populations(temperature, goal, &mut proceed)?.plan.exponents;
                placed.truncate(most);
                placed.push(1.0);
                placed
            }
        };
        if !shape.effort.is_some_and(|effort| effort.needs_score()) {
            return Ok(Chains { shape, exponents, step_sizes: Vec::new() });
        }
        let mut plan = Chains { step_sizes: vec![FIRST_STEP_SIZE; exponents.len()], exponents, shape };
        let method = self.start_method(temperature);
        let key = SampleKey { temperature, method, seed: PILOT_SEED, purpose: Purpose::Pilot };
        let mut block = ChainBlock::begin(self, &key, &plan, 0)?;
        for step in 0..PILOT_STEPS {
            proceed()?;
            block.jump()?;
            block.swap();
            let acceptance = block.move_all(&mut proceed)?;
            tuned(&mut block.plan.step_sizes, &acceptance, 4.0 / (1.0 + 0.5 * step as f64));
        }
        plan.step_sizes = std::mem::take(&mut block.plan.step_sizes);
        Ok(plan)
    }
}
