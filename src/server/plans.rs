//! How ways of sampling are asked for.

use super::annealed::{default_paths, requested_paths, step_sizes};
use super::independent::{NO_DENSITY, independent_method};
use super::sampling::check_method;
use crate::contract::{FieldError, v1};
use crate::engine::{ChainsRequest, Furthest, MOST_BYTES, PlanRequest, PopulationsRequest, bytes_of_rows};
use crate::sample::{
    CONDITIONAL_FRACTIONS, ChainShape, Chains, Effort, Generator, MOST_EVALUATIONS, MOST_REPLICAS, PILOT_ROWS,
    POPULATIONS, PopulationGoal, Populations, WINDOWS,
};
use std::ops::RangeInclusive;

const DEFAULT_WINDOW: usize = 4096;
/// Of estimates.
const ESTIMATE_WINDOW: usize = 512;
const CHAINS: RangeInclusive<usize> = 1..=1024;
const LENGTHS: RangeInclusive<usize> = 16..=65_536;
const BURN_INS: RangeInclusive<usize> = 1..=65_536;
const EFFORTS: RangeInclusive<usize> = 1..=1024;
const LEAPFROG_STEPS: usize = 5;

fn invalid(field: &str, reason: String) -> FieldError {
    FieldError::invalid(field, reason)
}

/// A number from a range; 0 means a default.
fn size(field: &str, value: i64, range: &RangeInclusive<usize>, default: usize) -> Result<usize, FieldError> {
    match usize::try_from(value) {
        Ok(0) => Ok(default),
        Ok(value) if range.contains(&value) => Ok(value),
        _ => {
            let (least, most) = (range.start(), range.end());
            Err(invalid(field, format!("it is {value}; it must be from {least} to {most}, or 0 for {default}")))
        }
    }
}

/// The moves that are asked for; nothing if none are.
fn effort(outer: &str, latent_moves: i64, moves: i64, leapfrog_steps: i64) -> Result<Option<Effort>, FieldError> {
    let field = |name: &str| format!("{outer}.{name}");
    let latent_moves = size(&field("latent_moves"), latent_moves, &EFFORTS, 0)?;
    let moves = size(&field("moves"), moves, &EFFORTS, 0)?;
    let steps = size(&field("leapfrog_steps"), leapfrog_steps, &EFFORTS, LEAPFROG_STEPS)?;
    if moves == 0 && leapfrog_steps != 0 {
        return Err(invalid(&field("leapfrog_steps"), "there are no moves of which they would be; set moves".into()));
    }
    let effort = Effort { latent_moves, moves, leapfrog_steps: if moves > 0 { steps } else { 0 } };
    Ok((effort.evaluations() > 0).then_some(effort))
}

/// That exponents ascend, from above 0.
fn check_exponents(field: &str, exponents: &[f64]) -> Result<(), FieldError> {
    if exponents.len() > MOST_EVALUATIONS {
        let reason = format!("there are {}; at most {MOST_EVALUATIONS} are allowed", exponents.len());
        return Err(invalid(field, reason));
    }
    let mut before = 0.0;
    for (i, &exponent) in exponents.iter().enumerate() {
        // NaN is above nothing.
        if exponent.is_nan() || exponent <= before {
            let reason = format!("that of place {i} is {exponent}, behind {before}; they must be positive and ascend");
            return Err(invalid(field, reason));
        }
        before = exponent;
    }
    Ok(())
}

/// How samples of a model are to be made.
pub(super) fn requested_plan(
    request: &v1::StreamSamplesRequest,
    generator: &Generator,
) -> Result<PlanRequest, FieldError> {
    use v1::SamplingMethod as M;
    let method = request.method();
    let belongs = |is_there: bool, field: &str, to: &str, is_it: bool| match is_there && !is_it {
        true => Err(invalid(field, format!("it belongs to the method {to}; set method to it"))),
        false => Ok(()),
    };
    let of_chains = matches!(method, M::Chain | M::ReplicaExchange);
    belongs(request.resampling.is_some(), "resampling", "RESAMPLED", method == M::Resampled)?;
    let field = "sequential_monte_carlo";
    let is_it = method == M::SequentialMonteCarlo;
    belongs(request.sequential_monte_carlo.is_some(), field, "SEQUENTIAL_MONTE_CARLO", is_it)?;
    belongs(request.chains.is_some(), "chains", "CHAIN or REPLICA_EXCHANGE", of_chains)?;
    if (of_chains || method == M::SequentialMonteCarlo) && request.least_effective_fraction != 0.0 {
        let reason = format!("no pilot of {} is weighed; leave it out, or use AUTO", method.as_str_name());
        return Err(invalid("least_effective_fraction", reason));
    }
    if of_chains && request.representation() == v1::Representation::Latent {
        return Err(invalid("representation", "samples of chains have no latents; use FLOW_COORDINATES".into()));
    }
    if let Some(paths) = requested_paths(request)? {
        return Ok(PlanRequest::Annealed(paths));
    }
    match method {
        M::Resampled => {
            let window = request.resampling.map_or(0, |r| r.window);
            Ok(PlanRequest::Resampled { window: size("resampling.window", window, &WINDOWS, DEFAULT_WINDOW)? })
        }
        M::SequentialMonteCarlo => populations(request.sequential_monte_carlo.clone().unwrap_or_default()),
        M::Chain | M::ReplicaExchange => {
            let default = if generator.has_score() { ChainShape::DEFAULT } else { ChainShape::WITHOUT_SCORE };
            chains(request.chains.clone().unwrap_or_default(), method, default)
        }
        _ => Ok(match independent_method(request.method, NO_DENSITY)? {
            None if request.representation() == v1::Representation::Latent => PlanRequest::Auto(Furthest::Importance),
            None => PlanRequest::Auto(Furthest::Chains),
            Some(method) => PlanRequest::Importance(method),
        }),
    }
}

/// How the samples of an estimate of log Z are to be made, by the numbers that pilots find.
pub(super) fn plan_of_estimates(method: i32, least_effective_fraction: f64) -> Result<PlanRequest, FieldError> {
    use v1::SamplingMethod as M;
    let method_name = M::try_from(method).unwrap_or_default();
    if matches!(method_name, M::Annealed | M::SequentialMonteCarlo) && least_effective_fraction != 0.0 {
        let reason = format!("no pilot of {} is weighed; leave it out, or use AUTO", method_name.as_str_name());
        return Err(invalid("least_effective_fraction", reason));
    }
    match M::try_from(method) {
        // Small ones: Z has no bias for any, and errors are told from how they differ.
        Ok(M::Resampled) => Ok(PlanRequest::Resampled { window: ESTIMATE_WINDOW }),
        Ok(M::Annealed) => Ok(PlanRequest::Annealed(default_paths())),
        Ok(M::SequentialMonteCarlo) => populations(v1::SequentialMonteCarlo::default()),
        Ok(other @ (M::Chain | M::ReplicaExchange)) => {
            let reason = format!("samples of {} have no weights, and give no log Z; use AUTO", other.as_str_name());
            Err(invalid("method", reason))
        }
        _ => Ok(match independent_method(method, NO_DENSITY)? {
            None => PlanRequest::Auto(Furthest::Populations),
            Some(method) => PlanRequest::Importance(method),
        }),
    }
}

fn populations(message: v1::SequentialMonteCarlo) -> Result<PlanRequest, FieldError> {
    let outer = "sequential_monte_carlo";
    let field = |name: &str| format!("{outer}.{name}");
    let size = size(&field("population"), message.population, &POPULATIONS, PopulationGoal::DEFAULT.size)?;
    let effort = effort(outer, message.latent_moves, message.moves, message.leapfrog_steps)?
        .unwrap_or(PopulationGoal::DEFAULT.effort);
    let conditional_fraction = match message.conditional_fraction {
        0.0 => PopulationGoal::DEFAULT.conditional_fraction,
        f if CONDITIONAL_FRACTIONS.contains(&f) => f,
        f => {
            let (least, most) = (CONDITIONAL_FRACTIONS.start(), CONDITIONAL_FRACTIONS.end());
            return Err(invalid(
                &field("conditional_fraction"),
                format!("it is {f}; it must be from {least} to {most}"),
            ));
        }
    };
    let exponents = message.exponents;
    if exponents.is_empty() {
        if !message.step_sizes.is_empty() {
            let reason = "there are some without exponents; give both, or none for both to be found";
            return Err(invalid(&field("step_sizes"), reason.into()));
        }
        let goal = PopulationGoal { size, effort, conditional_fraction, ..PopulationGoal::DEFAULT };
        check_cost(outer, effort, 1)?;
        return Ok(PlanRequest::Populations(PopulationsRequest::Tuned(goal)));
    }
    check_exponents(&field("exponents"), &exponents)?;
    if exponents.last().is_some_and(|b| *b >= 1.0) {
        return Err(invalid(&field("exponents"), "the last is not below 1, where samples end by themselves".into()));
    }
    check_cost(outer, effort, exponents.len())?;
    let step_sizes = sizes_of(&field("step_sizes"), &message.step_sizes, effort, exponents.len())?;
    Ok(PlanRequest::Populations(PopulationsRequest::Given(Populations {
        size,
        effort,
        exponents,
        step_sizes,
        conditional_fraction,
    })))
}

/// Step sizes of moves by gradients; none where there are no such moves.
fn sizes_of(field: &str, given: &[f64], effort: Effort, distributions: usize) -> Result<Vec<f64>, FieldError> {
    match effort.needs_score() {
        true => step_sizes(field, given, distributions),
        false if given.is_empty() => Ok(Vec::new()),
        false => Err(invalid(field, "there are no moves that would have them; set moves".into())),
    }
}

fn check_cost(outer: &str, effort: Effort, distributions: usize) -> Result<(), FieldError> {
    let cost = distributions.saturating_mul(effort.evaluations());
    if cost <= MOST_EVALUATIONS {
        return Ok(());
    }
    let reason = format!(
        "exponents × (latent_moves + moves × leapfrog_steps) is {cost}; a sample has at most {MOST_EVALUATIONS}"
    );
    Err(invalid(&format!("{outer}.leapfrog_steps"), reason))
}

fn chains(
    message: v1::MarkovChains,
    method: v1::SamplingMethod,
    default: ChainShape,
) -> Result<PlanRequest, FieldError> {
    let outer = "chains";
    let asked = effort(outer, message.latent_moves, message.moves, message.leapfrog_steps)?;
    let effort = match (message.without_moves, asked) {
        (true, Some(_)) => {
            return Err(invalid("chains.without_moves", "there are to be moves; leave them out, or this".into()));
        }
        (true, None) => None,
        (false, asked) => asked.or(default.effort),
    };
    let shape = ChainShape {
        chains: size("chains.chains", message.chains, &CHAINS, default.chains)?,
        length: size("chains.length", message.length, &LENGTHS, default.length)?,
        burn_in: size("chains.burn_in", message.burn_in, &BURN_INS, default.burn_in)?,
        effort,
    };
    let exponents = match (method, message.exponents.as_slice()) {
        (v1::SamplingMethod::Chain, [] | [1.0]) => Some(vec![1.0]),
        (v1::SamplingMethod::Chain, _) => {
            return Err(invalid("chains.exponents", "CHAIN has the exponent 1 only; use REPLICA_EXCHANGE".into()));
        }
        (_, []) => None,
        (_, given) => Some(given.to_vec()),
    };
    if let Some(exponents) = &exponents {
        let field = "chains.exponents";
        check_exponents(field, exponents)?;
        if exponents.last() != Some(&1.0) || exponents.len() > MOST_REPLICAS {
            let reason = format!("the last must be 1, of at most {MOST_REPLICAS}");
            return Err(invalid(field, reason));
        }
        if let Some(effort) = effort {
            check_cost(outer, effort, exponents.len())?;
        }
    } else if let Some(effort) = effort {
        check_cost(outer, effort, 2)?;
    }
    if message.step_sizes.is_empty() {
        return Ok(PlanRequest::Chains(ChainsRequest::Tuned(shape, exponents)));
    }
    let Some(effort) = effort.filter(Effort::needs_score) else {
        return Err(invalid("chains.step_sizes", "there are no moves that would have them; set chains.moves".into()));
    };
    let Some(exponents) = exponents else {
        let reason = "there are some without exponents; give both, or none for both to be found";
        return Err(invalid("chains.step_sizes", reason.into()));
    };
    let step_sizes = sizes_of("chains.step_sizes", &message.step_sizes, effort, exponents.len())?;
    Ok(PlanRequest::Chains(ChainsRequest::Given(Chains { shape, exponents, step_sizes })))
}

/// That a model can be sampled so.
pub(super) fn check_plan(plan: &PlanRequest, method: i32, generator: &Generator) -> Result<(), FieldError> {
    if let PlanRequest::Importance(method) = plan {
        check_method(Some(*method), generator)?;
    }
    let carried = |rows: usize| bytes_of_rows(generator, rows);
    // With the rows of the pilots that tune.
    let (field, bytes) = match plan {
        PlanRequest::Resampled { window } => {
            let numbers = 2 * (2 * generator.target.dimension() + generator.target.system().dimension() + 5);
            ("resampling.window", window.saturating_mul(numbers).saturating_mul(8))
        }
        PlanRequest::Populations(PopulationsRequest::Tuned(goal)) => {
            ("sequential_monte_carlo.population", carried(goal.size.max(PILOT_ROWS)))
        }
        PlanRequest::Populations(PopulationsRequest::Given(plan)) => {
            ("sequential_monte_carlo.population", carried(plan.size))
        }
        PlanRequest::Chains(ChainsRequest::Tuned(shape, exponents)) => {
            let replicas = exponents.as_ref().map_or(MOST_REPLICAS, Vec::len);
            let pilot = if exponents.is_none() { PILOT_ROWS } else { 0 };
            ("chains.chains", carried(shape.chains.max(ChainShape::DEFAULT.chains).saturating_mul(replicas).max(pilot)))
        }
        PlanRequest::Chains(ChainsRequest::Given(chains)) => {
            ("chains.chains", carried(chains.shape.chains.saturating_mul(chains.exponents.len())))
        }
        PlanRequest::Auto(_) | PlanRequest::Importance(_) | PlanRequest::Annealed(_) => ("method", 0),
    };
    if bytes > MOST_BYTES {
        let reason = format!("of this system it would take {bytes} bytes of memory; at most {MOST_BYTES} are allowed");
        return Err(invalid(field, reason));
    }
    if needs_score(plan) && !generator.has_score() {
        let name = v1::SamplingMethod::try_from(method).unwrap_or_default().as_str_name();
        let reason = format!(
            "{name} with moves by gradients needs those of the flow's density, which continuous flows do not give; leave out moves, or \
             use another method"
        );
        return Err(FieldError::invalid("method", reason));
    }
    Ok(())
}

/// Whether the plan moves samples by gradients, which the flow must give.
fn needs_score(plan: &PlanRequest) -> bool {
    match plan {
        PlanRequest::Auto(_) | PlanRequest::Importance(_) | PlanRequest::Resampled { .. } => false,
        PlanRequest::Annealed(_) => true,
        PlanRequest::Populations(PopulationsRequest::Tuned(goal)) => goal.effort.needs_score(),
        PlanRequest::Populations(PopulationsRequest::Given(plan)) => plan.effort.needs_score(),
        PlanRequest::Chains(ChainsRequest::Tuned(shape, _)) => shape.effort.is_some_and(|e| e.needs_score()),
        PlanRequest::Chains(ChainsRequest::Given(chains)) => chains.shape.effort.is_some_and(|e| e.needs_score()),
    }
}
