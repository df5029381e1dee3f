//! Which way samples are made: as it is asked for, and as it is decided.

use super::Engine;
use super::annealed::{AnnealedRequest, Limits, in_time};
use super::models::LoadedModel;
use super::outlet::{Outlet, StreamError};
use crate::math::Purpose;
use crate::sample::{
    AnnealedPaths, ChainShape, Chains, Generator, MOST_REPLICAS, MOST_UNSEEN, Method, MethodChoice, PILOT_ROWS,
    PopulationGoal, Populations, SampleKey, TunedPopulations,
};
use crate::thermo::{WeightAccumulator, WeightSummary, pareto_k_threshold};
use std::sync::Arc;

/// What a sample may cost, in evaluations of the energy, of the way that is chosen where nobody asked for one.
pub const ESCALATION_COST: usize = 256;

/// The first step of β on such a way: what needs a smaller one costs more.
const LEAST_FIRST_STEP: f64 = 0.01;

/// Below this effective fraction, or with a heavier tail than errors can be trusted with, a better way is looked for.
const LEAST_FRACTION: f64 = 0.01;

/// With it populations are good enough, whatever their tail looks like.
const SAFE_FRACTION: f64 = 0.1;

/// Populations of a trial.
const TRIAL_POPULATIONS: u64 = 2;

/// Validation samples that a card is believed of.
const FEWEST_VALIDATED: u64 = 256;

/// Bytes of what is computed together, at most.
pub const MOST_BYTES: usize = 256 << 20;

/// What is taken where more than importance sampling is needed.
const DEFAULT_GOAL: PopulationGoal = PopulationGoal {
    most_evaluations: ESCALATION_COST - 1,
    least_first_step: LEAST_FIRST_STEP,
    ..PopulationGoal::DEFAULT
};

/// How samples are asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum PlanRequest {
    /// The least that pilots find good enough, and how far it may go.
    Auto(Furthest),
    /// Importance sampling.
    Importance(Method),
    Annealed(AnnealedRequest),
    Resampled {
        window: usize,
    },
    Populations(PopulationsRequest),
    Chains(ChainsRequest),
}

#[derive(Clone, Debug, PartialEq)]
pub enum PopulationsRequest {
    Tuned(PopulationGoal),
    Given(Populations),
}

#[derive(Clone, Debug, PartialEq)]
pub enum ChainsRequest {
    /// With replicas at these exponents, or where a pilot places them.
    Tuned(ChainShape, Option<Vec<f64>>),
    Given(Chains),
}

/// How samples are made.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// Independent samples of the flow, each with its weight.
    Importance,
    Annealed(AnnealedPaths),
    Resampled {
        window: usize,
    },
    Populations(Populations),
    Chains(Chains),
}

impl Plan {
    /// How many samples depend on each other; 1 where they are independent. Not of chains, all of which do.
    pub fn together(&self) -> u64 {
        match self {
            Self::Importance | Self::Annealed(_) | Self::Chains(_) => 1,
            Self::Resampled { window } => *window as u64,
            Self::Populations(populations) => populations.size as u64,
        }
    }

    /// Evaluations of the energy that a sample costs.
    pub fn evaluations(&self) -> f64 {
        match self {
            Self::Importance | Self::Resampled { .. } => 1.0,
            Self::Annealed(paths) => 1.0 + paths.length.evaluations() as f64,
            Self::Populations(populations) => populations.evaluations() as f64,
            Self::Chains(chains) => chains.evaluations(),
        }
    }
}

/// What was tried besides importance sampling.
#[derive(Clone, Debug)]
pub struct Trial {
    pub plan: Plan,
    /// Of the pilot populations; nothing of chains.
    pub weights: Option<WeightSummary>,
}

/// How far it may go where importance sampling is not good enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Furthest {
    /// Not at all, since latents are to be those that weights are of.
    Importance,
    /// To what gives log Z.
    Populations,
    /// To samples that have no weights.
    Chains,
}

/// Why nothing more was tried where importance sampling was not good enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenUp {
    /// The flow is so far from its target that a sample would cost more than [`ESCALATION_COST`].
    TooFar,
    /// The flow is so near that there is nothing between it and its target: populations are importance sampling.
    Near,
    /// More than [`MOST_BYTES`] would be computed together.
    TooLarge,
    OutOfTime,
}

/// What was decided.
#[derive(Clone, Debug)]
pub struct Decision {
    /// How the flow gives the draws that all begins with.
    pub method: Method,
    pub plan: Plan,
    /// The pilot's outcome, if there was one.
    pub choice: Option<MethodChoice>,
    /// The share of the target that the pilot, or the card's samples, were found not to see, as far as it was looked for.
    pub unseen_share: Option<f64>,
    /// Whether importance sampling was found not good enough.
    pub is_poor: bool,
    /// What was tried since it was not, the last of it being the plan.
    pub trials: Vec<Trial>,
    pub given_up: Option<GivenUp>,
}

impl Decision {
    fn of(method: Method, plan: Plan, choice: Option<MethodChoice>) -> Self {
        Self { method, plan, choice, unseen_share: None, is_poor: false, trials: Vec::new(), given_up: None }
    }
}

impl Engine {
    /// Decides how samples are made. A temperature at which fewer of the pilot's samples are effective than `least` is refused.
    pub(super) fn decide<T: Send + 'static>(
        &self,
        outlet: &Outlet<T>,
        model: &Arc<LoadedModel>,
        temperature: f64,
        request: &PlanRequest,
        least: Option<f64>,
        limits: &Limits<'_>,
    ) -> Result<Decision, StreamError> {
        let carried = |plan| Decision::of(model.generator.start_method(temperature), plan, None);
        Ok(match request {
            PlanRequest::Auto(furthest) => self.escalate(outlet, model, temperature, *furthest, least, limits)?,
            PlanRequest::Importance(method) => {
                let (method, choice) = self.method_for(outlet, model, temperature, Some(*method), least)?;
                Decision::of(method, Plan::Importance, choice)
            }
            PlanRequest::Resampled { window } => {
                let (method, choice) = self.method_for(outlet, model, temperature, None, least)?;
                Decision::of(method, Plan::Resampled { window: *window }, choice)
            }
            PlanRequest::Annealed(paths) => {
                carried(Plan::Annealed(self.paths(outlet, model, temperature, paths, limits)?))
            }
            PlanRequest::Populations(PopulationsRequest::Given(populations)) => {
                carried(Plan::Populations(populations.clone()))
            }
            PlanRequest::Populations(PopulationsRequest::Tuned(goal)) => {
                let tuned = in_time(model.populations(temperature, *goal, self.between_steps(outlet, limits)))?;
                carried(Plan::Populations(tuned.ok_or(StreamError::OutOfTime)?.plan))
            }
            PlanRequest::Chains(ChainsRequest::Given(chains)) => carried(Plan::Chains(chains.clone())),
            PlanRequest::Chains(ChainsRequest::Tuned(shape, exponents)) => {
                let proceed = self.between_steps(outlet, limits);
                let tuned = in_time(model.chains(temperature, *shape, exponents.clone(), proceed))?;
                carried(Plan::Chains(tuned.ok_or(StreamError::OutOfTime)?))
            }
        })
    }

    /// Importance sampling where it is good enough; else populations where these are; else chains.
    fn escalate<T: Send + 'static>(
        &self,
        outlet: &Outlet<T>,
        model: &Arc<LoadedModel>,
        temperature: f64,
        furthest: Furthest,
        least: Option<f64>,
        limits: &Limits<'_>,
    ) -> Result<Decision, StreamError> {
        let refuse = |effective_fraction: f64| match least {
            Some(least) if effective_fraction < least => {
                Err(StreamError::Uncovered { temperature, effective_fraction, least })
            }
            _ => Ok(()),
        };
        let (method, choice) = self.method_for(outlet, model, temperature, None, None)?;
        let mut decision = Decision::of(method, Plan::Importance, choice);
        if decision.choice.is_none()
            && temperature == model.generator.temperature()
            && (least.is_some() || model.generator.card.validation_samples < FEWEST_VALIDATED)
        {
            let draw = |key: &SampleKey, count: usize| self.draw(outlet, model, key, 0, count);
            decision.choice = Some(model.choose_method(temperature, Some(method), draw)?);
        }
        let (mut enough, fraction) = match &decision.choice {
            Some(choice) => (choice.weights().is_some_and(is_good), choice.effective_fraction()),
            // At the temperature trained at the card knows.
            None => {
                let card = &model.generator.card;
                decision.unseen_share = card.unseen_share;
                let fraction = card.effective_sample_fraction;
                let threshold = pareto_k_threshold(card.validation_samples);
                // Without k̂ all weights are alike, or hardly any sample has one.
                let is_light = card.pareto_k.map_or(fraction >= 0.5, |k| k <= threshold);
                (is_light && fraction >= LEAST_FRACTION && !card.misses_a_part(), fraction)
            }
        };
        if enough
            && furthest != Furthest::Importance
            && let Some(pilot) = decision.choice.as_ref().and_then(MethodChoice::weights)
            && pilot.samples >= model.generator.probed_from()
        {
            let key = SampleKey { temperature, method, seed: 0, purpose: Purpose::Probe };
            let in_pilots = Limits { deadline: limits.pilots, ..*limits };
            let lookout = self.look(outlet, model, &key, None, &in_pilots)?;
            decision.unseen_share = lookout.complete(pilot.clone()).unseen_share;
            enough = decision.unseen_share.is_none_or(|share| share <= MOST_UNSEEN);
        }
        decision.is_poor = !enough;
        if enough || furthest == Furthest::Importance {
            refuse(fraction)?;
            return Ok(decision);
        }
        let give_up = |decision: Decision, why: GivenUp| {
            refuse(fraction)?;
            Ok(Decision { given_up: Some(why), ..decision })
        };
        if bytes_of_rows(&model.generator, PILOT_ROWS) > MOST_BYTES {
            return give_up(decision, GivenUp::TooLarge);
        }
        let start = model.generator.start_method(temperature);
        // What is left of the time is for samples.
        let limits = &Limits { deadline: limits.pilots, ..*limits };
        let proceed = self.between_steps(outlet, limits);
        let Some(TunedPopulations { plan: populations, arrives }) =
            in_time(model.populations(temperature, DEFAULT_GOAL, proceed))?
        else {
            return give_up(decision, GivenUp::OutOfTime);
        };
        if !arrives {
            return give_up(decision, GivenUp::TooFar);
        }
        if populations.exponents.is_empty() {
            return give_up(decision, GivenUp::Near);
        }
        let tried =
            model.trial(temperature, || self.try_populations(outlet, model, temperature, &populations, limits))?;
        let Some(weights) = tried else { return give_up(decision, GivenUp::OutOfTime) };
        decision.method = start;
        decision.plan = Plan::Populations(populations);
        decision.trials.push(Trial { plan: decision.plan.clone(), weights: Some(weights.clone()) });
        refuse(weights.effective_fraction())?;
        // Ancestors whose descendants are counted have tails of ties, which k̂ takes for heavy ones.
        if is_good(&weights) || weights.effective_fraction() >= SAFE_FRACTION || furthest != Furthest::Chains {
            return Ok(decision);
        }
        let shape = if model.generator.has_score() { ChainShape::DEFAULT } else { ChainShape::WITHOUT_SCORE };
        if bytes_of_rows(&model.generator, shape.chains * MOST_REPLICAS) > MOST_BYTES {
            return Ok(Decision { given_up: Some(GivenUp::TooLarge), ..decision });
        }
        let tuned = in_time(model.chains(temperature, shape, None, self.between_steps(outlet, limits)))?;
        let Some(tuned) = tuned else { return Ok(Decision { given_up: Some(GivenUp::OutOfTime), ..decision }) };
        if tuned.evaluations() > ESCALATION_COST as f64 {
            return Ok(Decision { given_up: Some(GivenUp::TooFar), ..decision });
        }
        decision.plan = Plan::Chains(tuned);
        decision.trials.push(Trial { plan: decision.plan.clone(), weights: None });
        Ok(decision)
    }

    /// The weights of pilot populations; nothing if the time was over.
    fn try_populations<T: Send + 'static>(
        &self,
        outlet: &Outlet<T>,
        model: &Arc<LoadedModel>,
        temperature: f64,
        plan: &Populations,
        limits: &Limits<'_>,
    ) -> Result<Option<WeightSummary>, StreamError> {
        let method = model.generator.start_method(temperature);
        let mut weights = WeightAccumulator::default();
        for number in 0..TRIAL_POPULATIONS {
            // Others than those that the plan was fitted to.
            let key = SampleKey { temperature, method, seed: crate::sample::TRIAL_SEED, purpose: Purpose::Pilot };
            let made = model.generator.population(&key, plan, number, self.between_steps(outlet, limits));
            let Some(together) = in_time(made)? else { return Ok(None) };
            together.account(&mut weights);
        }
        Ok(Some(weights.summary()))
    }
}

/// Bytes that rows on their way take: densities, their gradients, and a move under way.
pub fn bytes_of_rows(generator: &Generator, rows: usize) -> usize {
    let numbers = 12 * generator.target.dimension() + 3 * generator.target.system().dimension();
    rows.saturating_mul(numbers).saturating_mul(8)
}

fn is_good(weights: &WeightSummary) -> bool {
    weights.tail_is_light() && weights.effective_fraction() >= LEAST_FRACTION
}
