//! FreeEnergyService.

use super::app::App;
use super::errors::ApiError;
use super::sampling::{
    MAX_SAMPLES, cause_message, check_method, requested_duration, requested_fraction, requested_method,
    requested_temperature, stream_status,
};
use crate::contract::v1;
use crate::contract::v1::free_energy_service_server::FreeEnergyService;
use crate::contract::{
    FieldError, collective_variable, coverage, energy_unit, estimate, id_of, method_message, variable_message,
    weights_of,
};
use crate::energy::System;
use crate::engine::{EstimateItem, EstimateRequest, LoadedModel, TemperatureEstimate};
use crate::sample::ModelCard;
use crate::thermo::{CollectiveVariable, Estimate, FreeEnergyQuery, ProfileQuery, StateQuery};
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
/// Of all profiles of a request.
const MAX_ALL_BINS: usize = 4096;
const MAX_STATE_NAME: usize = 63;
const DEFAULT_SAMPLES: u64 = 100_000;
const DEFAULT_REPLICATES: i32 = 1000;
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
fn variable(message: Option<&v1::CollectiveVariable>, system: &System) -> Result<CollectiveVariable, FieldError> {
    let variable = collective_variable(message)?;
    variable.check(system.dimension(), system.atoms()).map_err(|e| FieldError::invalid("variable", e.to_string()))?;
    Ok(variable)
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
        let empty = low.is_nan() || high.is_nan() || (variable.period().is_none() && low >= high);
        if empty || (variable.period().is_some() && !(low.is_finite() && high.is_finite())) {
            return Err(FieldError::invalid(outer, format!("[{low}, {high}) is not an interval")));
        }
        intervals.push((variable, low, high));
    }
    Ok(StateQuery { name: message.name.clone(), intervals })
}

fn profile(message: &v1::ProfileSpec, system: &System) -> Result<ProfileQuery, FieldError> {
    let variable = variable(message.variable.as_ref(), system)?;
    let (low, high) = (message.low, message.high);
    if !(low.is_finite() && high.is_finite() && low < high) {
        return Err(FieldError::invalid("low", format!("[{low}, {high}) is not a finite interval")));
    }
    if variable.period().is_some_and(|period| high - low > period * (1.0 + 1e-12)) {
        return Err(FieldError::invalid("high", format!("[{low}, {high}) is more than a whole turn")));
    }
    match usize::try_from(message.bins) {
        Ok(bins) if (1..=MAX_BINS).contains(&message.bins) => Ok(ProfileQuery { variable, low, high, bins }),
        _ => Err(FieldError::invalid("bins", format!("it is {}; it must be from 1 to {MAX_BINS}", message.bins))),
    }
}

fn query(request: &v1::EstimateFreeEnergyRequest, system: &System) -> Result<FreeEnergyQuery, FieldError> {
    at_most("states", &request.states, MAX_STATES)?;
    at_most("profiles", &request.profiles, MAX_PROFILES)?;
    let mut names = HashSet::new();
    let mut query = FreeEnergyQuery::default();
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
    let bins: usize = query.profiles.iter().map(|p| p.bins).sum();
    if bins > MAX_ALL_BINS {
        return Err(FieldError::invalid("profiles", format!("they have {bins} bins; at most {MAX_ALL_BINS} in all")));
    }
    Ok(query)
}

impl FreeEnergies {
    async fn start(&self, request: v1::EstimateFreeEnergyRequest) -> Result<EstimateStream, ApiError> {
        self.app.check_open()?;
        let id = id_of("model", "models", &request.model)?;
        at_most("temperatures", &request.temperatures, MAX_TEMPERATURES)?;
        let method = requested_method(request.method)?;
        let max_duration = requested_duration(request.max_duration)?;
        if !(request.target_standard_error.is_finite() && request.target_standard_error >= 0.0) {
            let reason = format!("it is {}; it must be a positive finite number", request.target_standard_error);
            return Err(FieldError::invalid("target_standard_error", reason).into());
        }
        if request.samples > MAX_SAMPLES {
            let reason = format!("it is {}; it must be at most {MAX_SAMPLES}", request.samples);
            return Err(FieldError::invalid("samples", reason).into());
        }
        let replicates = match request.bootstrap_replicates {
            0 => DEFAULT_REPLICATES,
            n if (2..=MAX_REPLICATES).contains(&n) => n,
            n => {
                let reason = format!("it is {n}; it must be from 2 to {MAX_REPLICATES}");
                return Err(FieldError::invalid("bootstrap_replicates", reason).into());
            }
        };
        let permit = self.app.engine.admit().ok_or(ApiError::TooManyStreams)?;
        let model = self.app.engine.models.get(id).await?;
        check_method(method, &model.generator)?;
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
        let estimate_request = EstimateRequest {
            temperatures,
            query: query.clone(),
            samples: if request.samples == 0 { DEFAULT_SAMPLES } else { request.samples },
            target_standard_error: (request.target_standard_error > 0.0).then_some(request.target_standard_error),
            max_duration,
            seed: request.seed,
            method,
            least_effective_fraction: requested_fraction(request.least_effective_fraction)?,
            replicates: replicates.unsigned_abs() as usize,
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
            Ok(response(&item, &query, &model))
        })))
    }
}

fn response(item: &EstimateItem, query: &FreeEnergyQuery, model: &LoadedModel) -> v1::EstimateFreeEnergyResponse {
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
    }
}

fn estimate_message(item: &TemperatureEstimate, query: &FreeEnergyQuery, card: &ModelCard) -> v1::FreeEnergyEstimate {
    let report = &item.report;
    let zero = Estimate { value: 0.0, standard_error: 0.0, interval: (0.0, 0.0) };
    let differences = std::iter::once(&zero).chain(&report.state_differences);
    let states = query.states.iter().zip(&report.state_probabilities).zip(differences);
    let profiles = query.profiles.iter().zip(&report.profiles);
    v1::FreeEnergyEstimate {
        temperature: item.temperature,
        method: method_message(item.method).into(),
        weights: Some(weights_of(&item.weights, card)),
        log_z: Some(estimate(&report.log_z)),
        free_energy: Some(estimate(&report.free_energy)),
        internal_energy: Some(estimate(&report.internal_energy)),
        entropy: Some(estimate(&report.entropy)),
        heat_capacity: Some(estimate(&report.heat_capacity)),
        states: states
            .map(|((state, probability), difference)| v1::StateEstimate {
                name: state.name.clone(),
                probability: Some(estimate(probability)),
                difference: Some(estimate(difference)),
            })
            .collect(),
        profiles: profiles
            .map(|(query, profile)| v1::ProfileEstimate {
                variable: Some(variable_message(&query.variable)),
                edges: profile.edges.clone(),
                free_energy: profile.free_energy.iter().map(estimate).collect(),
                covered: profile.covered,
            })
            .collect(),
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
        _request: Request<v1::EstimateFreeEnergyDifferenceRequest>,
    ) -> Result<Response<DifferenceStream>, Status> {
        Err(ApiError::NotImplemented("EstimateFreeEnergyDifference").into())
    }

    async fn solve_mbar(
        &self,
        _request: Request<Streaming<v1::SolveMbarRequest>>,
    ) -> Result<Response<v1::SolveMbarResponse>, Status> {
        Err(ApiError::NotImplemented("SolveMbar").into())
    }
}
