//! How samples were made, and why, as a client is told.

use super::annealed::paths_message;
use crate::contract::{method_message, v1};
use crate::engine::{Decision, ESCALATION_COST, GivenUp, Plan, PlanRequest, Trial};
use crate::sample::{MOST_UNSEEN, Method, MethodChoice, PILOT_SAMPLES};
use crate::thermo::WeightSummary;

/// The method of a decision.
pub(super) fn plan_method(plan: &Plan, proposal: Method) -> v1::SamplingMethod {
    match plan {
        Plan::Importance => method_message(proposal),
        Plan::Annealed(_) => v1::SamplingMethod::Annealed,
        Plan::Resampled { .. } => v1::SamplingMethod::Resampled,
        Plan::Populations(_) => v1::SamplingMethod::SequentialMonteCarlo,
        Plan::Chains(chains) if chains.exponents.len() == 1 => v1::SamplingMethod::Chain,
        Plan::Chains(_) => v1::SamplingMethod::ReplicaExchange,
    }
}

/// Says in a header what was decided, and why.
pub(super) fn describe(decision: &Decision, request: &PlanRequest, header: &mut v1::SampleHeader) {
    header.method = plan_method(&decision.plan, decision.method).into();
    header.proposal = method_message(decision.method).into();
    header.evaluations_per_sample = decision.plan.evaluations();
    header.method_reason = reason(decision, request, header.temperature == header.trained_temperature);
    match &decision.plan {
        Plan::Importance => {}
        Plan::Annealed(paths) => header.annealed = Some(paths_message(paths.clone())),
        Plan::Resampled { window } => header.resampling = Some(v1::Resampling { window: *window as i64 }),
        Plan::Populations(plan) => {
            header.sequential_monte_carlo = Some(v1::SequentialMonteCarlo {
                population: plan.size as i64,
                latent_moves: plan.effort.latent_moves as i64,
                moves: plan.effort.moves as i64,
                leapfrog_steps: plan.effort.leapfrog_steps as i64,
                conditional_fraction: plan.conditional_fraction,
                exponents: plan.exponents.clone(),
                step_sizes: plan.step_sizes.clone(),
            });
        }
        Plan::Chains(plan) => {
            let effort = plan.shape.effort;
            header.chains = Some(v1::MarkovChains {
                chains: plan.shape.chains as i64,
                length: plan.shape.length as i64,
                burn_in: plan.shape.burn_in as i64,
                without_moves: effort.is_none(),
                latent_moves: effort.map_or(0, |e| e.latent_moves as i64),
                moves: effort.map_or(0, |e| e.moves as i64),
                leapfrog_steps: effort.map_or(0, |e| e.leapfrog_steps as i64),
                exponents: plan.exponents.clone(),
                step_sizes: plan.step_sizes.clone(),
            });
        }
    }
}

/// Why it was decided so, in sentences for people.
pub(super) fn reason(decision: &Decision, request: &PlanRequest, as_trained: bool) -> String {
    let mut sentences = Vec::new();
    match (&decision.choice, request) {
        (Some(choice), _) => sentences.push(method_reason(choice)),
        (None, PlanRequest::Auto(_)) if as_trained && !decision.is_poor => {
            sentences.push("At the temperature trained at nothing has to be done.".into());
        }
        (None, PlanRequest::Auto(_)) if as_trained => sentences.push(
            "By the model's card its weights are too heavy-tailed, too few of them effective, or a part of the target is missed, for \
             importance sampling."
                .into(),
        ),
        _ => sentences.push("It was asked for.".into()),
    }
    if let Some(share) = decision.unseen_share.filter(|share| *share > MOST_UNSEEN) {
        let percent = 100.0 * share;
        sentences.push(format!("Wider latents find {percent:.1} % of the target that such samples do not see."));
    }
    match decision.given_up {
        None => {}
        Some(GivenUp::TooFar) => sentences.push(format!(
            "More would take over {ESCALATION_COST} evaluations of the energy a sample, for which it has to be asked by name."
        )),
        Some(GivenUp::Near) if decision.unseen_share.is_some_and(|share| share > MOST_UNSEEN) => {
            sentences.push("Its weights are so even that populations have no way to go, and would see no more.".into());
        }
        Some(GivenUp::Near) => {
            sentences.push("But for the tail of the weights the flow is so near that there is no way to go.".into());
        }
        Some(GivenUp::TooLarge) => {
            sentences.push("Of this system more would be computed together than there is memory for.".into());
        }
        Some(GivenUp::OutOfTime) => sentences.push("The time was over before more could be tried.".into()),
    }
    for Trial { plan, weights } in &decision.trials {
        let cost = plan.evaluations();
        sentences.push(match weights {
            Some(weights) => format!(
                "Of sequential Monte Carlo, at {cost:.0} evaluations of the energy a sample, {}.",
                effective(weights)
            ),
            None => format!(
                "Markov chains, at {cost:.0} evaluations a sample, have no weights that a tail could be too heavy of."
            ),
        });
    }
    sentences.join(" ")
}

fn effective(weights: &WeightSummary) -> String {
    format!("{:.1} % are effective, with k = {:.2}", 100.0 * weights.effective_fraction(), weights.pareto_k)
}

/// Why the pilot chose a way to reach a temperature, in a sentence.
fn method_reason(choice: &MethodChoice) -> String {
    let part = |(method, weights): &(Method, WeightSummary)| {
        let name = match method {
            Method::Reweighting => "reweighting",
            Method::LatentScaling => "latent scaling",
            Method::Conditioned => "the flow conditioned on temperature",
        };
        let fraction = 100.0 * weights.effective_fraction();
        format!("{name} has {fraction:.1} % effective samples and k = {:.2}", weights.pareto_k)
    };
    let parts: Vec<String> = choice.pilots.iter().map(part).collect();
    let predicted = match choice.predicted {
        Some(fraction) => {
            format!(" From the spread of ladj, scaled latents of a perfect flow would have {:.1} %.", 100.0 * fraction)
        }
        None => String::new(),
    };
    format!("Of {PILOT_SAMPLES} pilot samples, {}.{predicted}", parts.join("; "))
}
