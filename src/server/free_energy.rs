//! FreeEnergyService.

use super::app::App;
use super::decisions::{plan_method, reason};
use super::difference;
use super::errors::ApiError;
use super::independent::{NO_DENSITY, independent_method};
use super::joint;
use super::mbar;
use super::plans::{check_plan, plan_of_estimates};
use super::sampling::{
    MAX_SAMPLES, cause_message, requested_duration, requested_fraction, requested_temperature, stream_status,
};
use crate::contract::v1;
use crate::contract::v1::free_energy_service_server::FreeEnergyService;
use crate::contract::{
    FieldError, collective_variable, coverage, energy_unit, estimate, id_of, method_message, variable_message, warn,
    weights_of,
};
use crate::energy::System;
use crate::engine::{EstimateItem, EstimateRequest, JointRequest, LoadedModel, PlanRequest, TemperatureEstimate};
use crate::sample::ModelCard;
use crate::thermo::{
    BandwidthRule, BoundVariable, ChangedWeights, Estimate, FreeEnergyQuery, KERNEL_DENSITY_CELLS, KernelDensity,
    Profile, ProfileAxis, ProfileQuery, StateQuery,
};
use prost::Message;
use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

const MAX_TEMPERATURES: usize = 64;
const MAX_STATES: usize = 64;
const MAX_PROFILES: usize = 16;
const MAX_BINS: i32 = 1000;
/// Of all profiles of a request, and the cells of their kernel densities.
const MAX_ALL_BINS: usize = 4096;
/// Pairs, atoms and operations that the variables of a request are computed from: between two looks at the clock they are
/// computed for some thousands of samples.
const MAX_TERMS: usize = 400_000;
/// Of the variables of profiles, which the answer repeats for each temperature.
const MAX_REPEATED_BYTES: usize = 4 << 20;
const MAX_STATE_NAME: usize = 63;
const DEFAULT_SAMPLES: u64 = 100_000;
const DEFAULT_REPLICATES: usize = 1000;
const MAX_REPLICATES: i32 = 4000;

/// Free energies.
pub(super) struct FreeEnergies {
    pub app: App,
}

type EstimateStream = Pin<Box<dyn Stream<Item = Result<v1::EstimateFreeEnergyResponse, Status>> + Send>>;
type DifferenceStream = Pin<Box<dyn Stream<Item = Result<v1::EstimateFreeEnergyDifferenceResponse, Status>> + Send>>;

fn at_most<T>(field: &str, list: &[T], most: usize) -> Result<(), FieldError> {
    if list.len() <= most {
        return Ok(());
    }
    Err(FieldError::invalid(field, format!("there are {}; at most {most} are allowed", list.len())))
}

/// A variable that the system has.
fn variable(message: Option<&v1::CollectiveVariable>, system: &System) -> Result<BoundVariable, FieldError> {
    let bound = collective_variable(message)?.bind(system);
    bound.map_err(|e| FieldError::invalid("variable", e.to_string()))
}

fn state(message: &v1::State, system: &System) -> Result<StateQuery, FieldError> {
    if message.name.is_empty() || message.name.len() > MAX_STATE_NAME {
        return Err(FieldError::invalid("name", format!("it must have from 1 to {MAX_STATE_NAME} bytes")));
    }
    if message.intervals.is_empty() {
        return Err(FieldError::invalid("intervals", "there are none: the state would be everything"));
    }
    at_most("intervals", &message.intervals, 8)?;
    let mut intervals = Vec::with_capacity(message.intervals.len());
    for (i, interval) in message.intervals.iter().enumerate() {
        let outer = format!("intervals[{i}]");
        let variable = variable(interval.variable.as_ref(), system).map_err(|e| e.within(&outer))?;
        let (low, high) = (interval.low, interval.high);
        let is_periodic = variable.description().period().is_some();
        let empty = low.is_nan() || high.is_nan() || (!is_periodic && low >= high);
        if empty || (is_periodic && !(low.is_finite() && high.is_finite())) {
            return Err(FieldError::invalid(outer, format!("[{low}, {high}) is not an interval")));
        }
        intervals.push((variable, low, high));
    }
    Ok(StateQuery { name: message.name.clone(), intervals })
}

fn axis(message: &v1::ProfileAxis, system: &System) -> Result<ProfileAxis, FieldError> {
    let variable = variable(message.variable.as_ref(), system)?;
    let (low, high) = (message.low, message.high);
    if !(low < high && low.is_finite() && (high - low).is_finite()) {
        return Err(FieldError::invalid("low", format!("[{low}, {high}) is not a finite interval")));
    }
    if let Some(period) = variable.description().period().filter(|period| high - low > period * (1.0 + 1e-12)) {
        return Err(FieldError::invalid("high", format!("[{low}, {high}) is more than a whole turn, {period}")));
    }
    match usize::try_from(message.bins) {
        Ok(bins) if (1..=MAX_BINS).contains(&message.bins) => Ok(ProfileAxis { variable, low, high, bins }),
        _ => Err(FieldError::invalid("bins", format!("it is {}; it must be from 1 to {MAX_BINS}", message.bins))),
    }
}

fn profile(message: &v1::ProfileSpec, system: &System) -> Result<ProfileQuery, FieldError> {
    let v1::ProfileSpec { variable, low, high, bins, second, kernel_density } = message;
    let first = v1::ProfileAxis { variable: variable.clone(), low: *low, high: *high, bins: *bins };
    let first = axis(&first, system)?;
    let second = second.as_ref().map(|second| axis(second, system).map_err(|e| e.within("second"))).transpose()?;
    if kernel_density.is_some() && second.is_some() {
        let reason = "there is none of two variables; ask for it in one, or leave out `second`";
        return Err(FieldError::invalid("kernel_density", reason));
    }
    let kernel = kernel_density.as_ref().map(|kernel| kernel_of(kernel, &first)).transpose()?;
    Ok(ProfileQuery { first, second, kernel })
}

fn kernel_of(message: &v1::KernelDensity, axis: &ProfileAxis) -> Result<KernelDensity, FieldError> {
    let (bandwidth, (least, most)) = (message.bandwidth, axis.bandwidths());
    if bandwidth == 0.0 {
        return Ok(KernelDensity { bandwidth: None });
    }
    if !(least..=most).contains(&bandwidth) {
        let reason =
            format!("it is {bandwidth}; over this range it must be from {least} to {most}, or 0 for the rule's");
        return Err(FieldError::invalid("kernel_density.bandwidth", reason));
    }
    Ok(KernelDensity { bandwidth: Some(bandwidth) })
}

fn query(request: &v1::EstimateFreeEnergyRequest, system: &System) -> Result<FreeEnergyQuery, FieldError> {
    at_most("states", &request.states, MAX_STATES)?;
    at_most("profiles", &request.profiles, MAX_PROFILES)?;
    let mut names = HashSet::new();
    let mut query = FreeEnergyQuery { changed_weights: request.changed_weights, ..FreeEnergyQuery::default() };
    for (i, message) in request.states.iter().enumerate() {
        let outer = format!("states[{i}]");
        query.states.push(state(message, system).map_err(|e| e.within(&outer))?);
        if !names.insert(message.name.as_str()) {
            return Err(FieldError::invalid(format!("{outer}.name"), format!("'{}' is there twice", message.name)));
        }
    }
    for (i, message) in request.profiles.iter().enumerate() {
        let outer = format!("profiles[{i}]");
        query.profiles.push(profile(message, system).map_err(|e| e.within(&outer))?);
    }
    let bins: usize = query.profiles.iter().map(ProfileQuery::bins).sum();
    let cells = KERNEL_DENSITY_CELLS * query.profiles.iter().filter(|profile| profile.kernel.is_some()).count();
    if bins + cells > MAX_ALL_BINS {
        let kernels = if cells > 0 { format!(", and {cells} cells of kernel densities") } else { String::new() };
        let reason = format!("they have {bins} bins{kernels}; at most {MAX_ALL_BINS} are allowed in all");
        return Err(FieldError::invalid("profiles", reason));
    }
    let of_states = query.states.iter().flat_map(|state| &state.intervals).map(|(variable, ..)| variable);
    let axes = query.profiles.iter().flat_map(|profile| [Some(&profile.first), profile.second.as_ref()]).flatten();
    let terms: usize = of_states.chain(axes.map(|axis| &axis.variable)).map(BoundVariable::terms).sum();
    if terms > MAX_TERMS {
        let reason = format!(
            "the variables of states and profiles are computed from {terms} pairs, atoms and operations; at most \
             {MAX_TERMS} are allowed"
        );
        return Err(FieldError::invalid("states", reason));
    }
    Ok(query)
}

/// The error at which an estimation may end; nothing if the request does not say.
pub(super) fn requested_target(value: f64) -> Result<Option<f64>, FieldError> {
    if !(value.is_finite() && value >= 0.0) {
        let reason = format!("it is {value}; it must be a positive finite number");
        return Err(FieldError::invalid("target_standard_error", reason));
    }
    Ok((value > 0.0).then_some(value))
}

/// Bootstrap resamplings.
pub(super) fn requested_replicates(value: i32) -> Result<usize, FieldError> {
    match value {
        0 => Ok(DEFAULT_REPLICATES),
        n if (2..=MAX_REPLICATES).contains(&n) => Ok(n.unsigned_abs() as usize),
        n => {
            let reason = format!("it is {n}; it must be from 2 to {MAX_REPLICATES}");
            Err(FieldError::invalid("bootstrap_replicates", reason))
        }
    }
}

impl FreeEnergies {
    async fn start(&self, request: v1::EstimateFreeEnergyRequest) -> Result<EstimateStream, ApiError> {
        self.app.check_open()?;
        let id = id_of("model", "models", &request.model)?;
        at_most("temperatures", &request.temperatures, MAX_TEMPERATURES)?;
        let plan = plan_of_estimates(request.method, request.least_effective_fraction)?;
        let max_duration = requested_duration(request.max_duration)?;
        let target_standard_error = requested_target(request.target_standard_error)?;
        if request.samples > MAX_SAMPLES {
            let reason = format!("it is {}; it must be at most {MAX_SAMPLES}", request.samples);
            return Err(FieldError::invalid("samples", reason).into());
        }
        let replicates = requested_replicates(request.bootstrap_replicates)?;
        let joint_estimators = joint::Estimators::read(&request)?;
        if request.changed_weights && matches!(plan, PlanRequest::Resampled { .. } | PlanRequest::Populations(_)) {
            let reason = "weights of windows and populations are not independent; leave it out, or the method";
            return Err(FieldError::invalid("changed_weights", reason).into());
        }
        if request.changed_weights && joint_estimators.as_ref().is_some_and(|wanted| !wanted.importance) {
            let reason = "they are by IMPORTANCE, which is not among the estimators; leave it out, or add this";
            return Err(FieldError::invalid("changed_weights", reason).into());
        }
        let permit = self.app.engine.admit().ok_or(ApiError::TooManyStreams)?;
        let model = self.app.engine.models.get(id).await?;
        check_plan(&plan, request.method, &model.generator)?;
        let trained = model.generator.temperature();
        let query = query(&request, model.generator.target.system())?;
        let mut temperatures = Vec::with_capacity(request.temperatures.len().max(1));
        for (i, &temperature) in request.temperatures.iter().enumerate() {
            let field = format!("temperatures[{i}]");
            if temperature == 0.0 {
                return Err(FieldError::invalid(field, "it is 0; it must be positive").into());
            }
            temperatures.push(requested_temperature(&field, temperature, trained)?);
        }
        if temperatures.is_empty() {
            temperatures.push(trained);
        }
        let repeated = request.profiles.iter().map(Message::encoded_len).sum::<usize>() * temperatures.len();
        if repeated > MAX_REPEATED_BYTES {
            let reason = format!(
                "their variables, which the answer repeats for each temperature, would have {repeated} bytes in it; at most \
                 {MAX_REPEATED_BYTES} are allowed"
            );
            return Err(FieldError::invalid("profiles", reason).into());
        }
        let least_effective_fraction = requested_fraction(request.least_effective_fraction)?;
        if let Some(wanted) = joint_estimators {
            let joint_request = JointRequest {
                temperatures,
                query: query.clone(),
                importance: false,
                bar: false,
                mbar: false,
                data: Vec::new(),
                samples: 0,
                target_standard_error,
                max_duration,
                seed: request.seed,
                method: independent_method(request.method, NO_DENSITY)?,
                least_effective_fraction,
                replicates,
            };
            let rest = joint::Rest { model, query, request: joint_request, permit };
            return Ok(Box::pin(joint::start(&self.app, &request, wanted, rest).await?));
        }
        let estimate_request = EstimateRequest {
            temperatures,
            query: query.clone(),
            samples: if request.samples == 0 { DEFAULT_SAMPLES } else { request.samples },
            target_standard_error,
            max_duration,
            seed: request.seed,
            plan: plan.clone(),
            least_effective_fraction,
            replicates,
        };
        let items = self.app.engine.estimate(Arc::clone(&model), estimate_request, permit, self.app.draining.clone());
        let metrics = self.app.metrics.clone();
        Ok(Box::pin(ReceiverStream::new(items).map(move |item| {
            let item = item.map_err(stream_status)?;
            if item.finished.is_some() {
                for estimate in &item.estimates {
                    let fraction = estimate.weights.effective_fraction();
                    metrics.sample_effective_fraction.observe(fraction);
                }
            }
            let mut answer = response(&item, &query, &model);
            for (message, estimate) in answer.estimates.iter_mut().zip(&item.estimates) {
                describe_estimate(message, estimate, &plan, trained);
            }
            Ok(answer)
        })))
    }
}

/// Says how an estimate's samples were made, and why.
fn describe_estimate(
    message: &mut v1::FreeEnergyEstimate,
    estimate: &TemperatureEstimate,
    request: &PlanRequest,
    trained: f64,
) {
    if let Some(decision) = &estimate.decision {
        message.method = plan_method(&decision.plan, decision.method).into();
        message.method_reason = reason(decision, request, estimate.temperature == trained);
        message.evaluations_per_sample = decision.plan.evaluations();
    }
}

pub(super) fn response(
    item: &EstimateItem,
    query: &FreeEnergyQuery,
    model: &LoadedModel,
) -> v1::EstimateFreeEnergyResponse {
    let card = &model.generator.card;
    v1::EstimateFreeEnergyResponse {
        estimates: item.estimates.iter().map(|e| estimate_message(e, query, card)).collect(),
        r#final: item.finished.is_some(),
        stop_cause: item.finished.map_or(v1::StopCause::Unspecified, cause_message).into(),
        model_digest: model.digest.clone(),
        energy_digest: card.energy_digest.clone(),
        energy_unit: energy_unit(card.energy_scale).into(),
        coordinates: card.coordinates.clone(),
        coverage: coverage(card).into(),
        seconds: item.seconds,
        ..v1::EstimateFreeEnergyResponse::default()
    }
}

fn estimate_message(item: &TemperatureEstimate, query: &FreeEnergyQuery, card: &ModelCard) -> v1::FreeEnergyEstimate {
    let report = &item.report;
    let zero = Estimate { value: 0.0, standard_error: 0.0, interval: (0.0, 0.0) };
    let differences = std::iter::once(&zero).chain(&report.state_differences);
    let states = query.states.iter().zip(&report.state_probabilities).zip(differences).enumerate();
    let profiles = query.profiles.iter().zip(&report.profiles);
    let mut weights = weights_of(&item.weights, card, item.temperature);
    let misjudged: Vec<usize> = report.misjudged_states().collect();
    if !misjudged.is_empty() {
        weights.reliable = false;
        let named = misjudged.iter().filter_map(|&i| query.states.get(i));
        let names: Vec<String> = named.map(|state| format!("'{}'", state.name)).collect();
        let sentence = format!(
            "What wider latents find would change the difference of {} by more than its error allows for.",
            names.join(", ")
        );
        warn(&mut weights, &sentence);
    }
    v1::FreeEnergyEstimate {
        temperature: item.temperature,
        method: method_message(item.method).into(),
        estimator: v1::FreeEnergyEstimator::Importance.into(),
        weights: Some(weights),
        log_z: Some(estimate(&report.log_z)),
        log_z_asymptotic_error: item.weights.log_z_standard_error,
        free_energy: Some(estimate(&report.free_energy)),
        internal_energy: Some(estimate(&report.internal_energy)),
        entropy: Some(estimate(&report.entropy)),
        heat_capacity: Some(estimate(&report.heat_capacity)),
        states: states
            .map(|(i, ((state, probability), difference))| v1::StateEstimate {
                name: state.name.clone(),
                probability: Some(estimate(probability)),
                difference: Some(estimate(difference)),
                sample_share: report.state_shares.get(i).copied(),
                frame_share: None,
                unseen_change: match i.checked_sub(1) {
                    Some(after) => report.unseen_changes.get(after).copied(),
                    None => None,
                },
            })
            .collect(),
        profiles: profiles.map(|(query, profile)| profile_message(query, profile)).collect(),
        smoothed: report.smoothed.as_ref().map(changed_message),
        truncated: report.truncated.as_ref().map(changed_message),
        ..v1::FreeEnergyEstimate::default()
    }
}

fn changed_message(changed: &ChangedWeights) -> v1::ChangedWeightsEstimate {
    v1::ChangedWeightsEstimate {
        changed: changed.changed,
        log_z: changed.log_z,
        internal_energy: changed.internal_energy,
        state_probabilities: changed.state_probabilities.clone(),
    }
}

fn profile_message(query: &ProfileQuery, profile: &Profile) -> v1::ProfileEstimate {
    let variable = |axis: &ProfileAxis| variable_message(axis.variable.description());
    let kernel = profile.kernel.as_ref();
    v1::ProfileEstimate {
        variable: Some(variable(&query.first)),
        edges: profile.edges.clone(),
        free_energy: profile.free_energy.iter().map(estimate).collect(),
        covered: profile.covered,
        second_variable: query.second.as_ref().map(variable),
        second_edges: profile.second_edges.clone(),
        kernel_free_energy: kernel.iter().flat_map(|kernel| &kernel.free_energy).map(estimate).collect(),
        bandwidth: kernel.map_or(0.0, |kernel| kernel.bandwidth),
        bandwidth_rule: kernel
            .map_or(v1::BandwidthRule::Unspecified, |kernel| match kernel.rule {
                BandwidthRule::Given => v1::BandwidthRule::Given,
                BandwidthRule::Silverman => v1::BandwidthRule::Silverman,
                BandwidthRule::LimitedSilverman => v1::BandwidthRule::SilvermanLimited,
            })
            .into(),
    }
}

#[tonic::async_trait]
impl FreeEnergyService for FreeEnergies {
    type EstimateFreeEnergyStream = EstimateStream;
    type EstimateFreeEnergyDifferenceStream = DifferenceStream;

    async fn estimate_free_energy(
        &self,
        request: Request<v1::EstimateFreeEnergyRequest>,
    ) -> Result<Response<EstimateStream>, Status> {
        Ok(Response::new(self.start(request.into_inner()).await?))
    }

    async fn estimate_free_energy_difference(
        &self,
        request: Request<v1::EstimateFreeEnergyDifferenceRequest>,
    ) -> Result<Response<DifferenceStream>, Status> {
        let answers = difference::start(&self.app, request.into_inner()).await?;
        Ok(Response::new(Box::pin(answers)))
    }

    async fn solve_mbar(
        &self,
        request: Request<Streaming<v1::SolveMbarRequest>>,
    ) -> Result<Response<v1::SolveMbarResponse>, Status> {
        Ok(Response::new(mbar::solve(&self.app, request.into_inner()).await?))
    }
}
