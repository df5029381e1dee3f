//! SamplingService.

use super::app::App;
use super::decisions::{describe, plan_method};
use super::errors::ApiError;
use super::plans::{check_plan, requested_plan};
use crate::contract::v1;
use crate::contract::v1::sampling_service_server::SamplingService;
use crate::contract::{FieldError, array, check_encoding, coverage, energy_unit, id_of, weights_of};
use crate::engine::{ChainSummary, LoadedModel, PlanRequest, SampleItem, SampleRequest, StopCause, StreamError};
use crate::sample::{Generator, Method, WeightedBatch};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

/// Bytes of a batch when the client does not choose.
const BATCH_BYTES: usize = 1 << 20;
const MAX_BATCH_BYTES: usize = 16 << 20;

/// The most samples of a stream or of an estimate.
pub(super) const MAX_SAMPLES: u64 = 1_000_000_000_000;

/// Streams of samples.
pub(super) struct Sampling {
    pub app: App,
}

/// That the model can be sampled by the method asked for.
pub(super) fn check_method(method: Option<Method>, generator: &Generator) -> Result<(), FieldError> {
    match (method, generator.card.temperature_range) {
        (Some(Method::LatentScaling), Some(_)) => Err(FieldError::invalid(
            "method",
            "LATENT_SCALING is for flows of one temperature, and this model is conditioned on it; use CONDITIONED or AUTO",
        )),
        (Some(Method::Conditioned), None) => Err(FieldError::invalid(
            "method",
            "CONDITIONED is for models that were trained for a range of temperatures, and this one was not; use AUTO",
        )),
        _ => Ok(()),
    }
}

pub(super) fn cause_message(cause: StopCause) -> v1::StopCause {
    match cause {
        StopCause::Count => v1::StopCause::Count,
        StopCause::TargetReached => v1::StopCause::TargetReached,
        StopCause::MaxDuration => v1::StopCause::MaxDuration,
    }
}

/// A temperature of a request; zero means the one trained at.
pub(super) fn requested_temperature(field: &str, value: f64, trained: f64) -> Result<f64, FieldError> {
    if value == 0.0 {
        return Ok(trained);
    }
    if !(value.is_finite() && value > 0.0) {
        return Err(FieldError::invalid(field, format!("it is {value}; it must be a positive finite number")));
    }
    // Beyond this the latent's variance, or the exponent, leaves the range of numbers.
    if !(1e-6..=1e6).contains(&(value / trained)) {
        let reason = format!("it is {value}; it must be within a factor of 1e6 of the trained temperature {trained}");
        return Err(FieldError::invalid(field, reason));
    }
    Ok(value)
}

/// The least effective fraction that is answered; nothing if the request does not say.
pub(super) fn requested_fraction(value: f64) -> Result<Option<f64>, FieldError> {
    match value {
        0.0 => Ok(None),
        value if (0.0..=1.0).contains(&value) => Ok(Some(value)),
        _ => Err(FieldError::invalid("least_effective_fraction", format!("it is {value}; it must be from 0 to 1"))),
    }
}

/// The longest duration of protobuf: about 10,000 years.
const MAX_SECONDS: i64 = 315_576_000_000;

pub(super) fn requested_duration(value: Option<prost_types::Duration>) -> Result<Option<Duration>, FieldError> {
    let Some(value) = value else { return Ok(None) };
    let well_formed = (0..=MAX_SECONDS).contains(&value.seconds) && (0..1_000_000_000).contains(&value.nanos);
    match Duration::try_from(value) {
        Ok(duration) if well_formed && !duration.is_zero() => Ok(Some(duration)),
        _ => Err(FieldError::invalid("max_duration", "it must be positive, and a duration as protobuf defines it")),
    }
}

pub(super) fn stream_error(error: StreamError) -> ApiError {
    match error {
        StreamError::Engine(e) => e.into(),
        StreamError::Uncovered { temperature, effective_fraction, least } => {
            ApiError::Uncovered { temperature, effective_fraction, least }
        }
        StreamError::OutOfTime => ApiError::OutOfTime,
        StreamError::Draining { next_index } => ApiError::DrainingStream { next_index },
        StreamError::Stalled { next_index } => ApiError::Stalled { next_index },
        StreamError::Frames(e) => e.into(),
        StreamError::Difference(e) => e.into(),
        StreamError::Joint(e) => ApiError::Joint(e),
        // Nobody is there to be told.
        StreamError::Gone => ApiError::Transport(Status::cancelled("the client has gone away")),
    }
}

pub(super) fn stream_status(error: StreamError) -> Status {
    stream_error(error).into()
}

/// How batches are written.
#[derive(Clone, Copy)]
struct Format {
    representation: v1::Representation,
    encoding: v1::ArrayEncoding,
    position_dtype: v1::DataType,
}

impl Format {
    fn read(request: &v1::StreamSamplesRequest) -> Result<Self, FieldError> {
        let representation = match v1::Representation::try_from(request.representation) {
            Ok(v1::Representation::Unspecified) => v1::Representation::Cartesian,
            Ok(representation) => representation,
            Err(_) => {
                let reason = format!("{} is not a Representation", request.representation);
                return Err(FieldError::invalid("representation", reason));
            }
        };
        let position_dtype = match v1::DataType::try_from(request.position_dtype) {
            Ok(v1::DataType::Unspecified) => v1::DataType::Float64,
            Ok(dtype) => dtype,
            Err(_) => {
                let reason = format!("{} is not a DataType", request.position_dtype);
                return Err(FieldError::invalid("position_dtype", reason));
            }
        };
        Ok(Self { representation, encoding: check_encoding(request.encoding)?, position_dtype })
    }

    fn batch(&self, model: &LoadedModel, item: WeightedBatch, forces: Option<Vec<f64>>) -> v1::SampleBatch {
        let n = item.len();
        let system = model.generator.target.system();
        let flow_shape = [n, model.generator.target.dimension()];
        let cartesian = system.shape(n);
        let (numbers, shape): (Vec<f64>, &[usize]) = match self.representation {
            v1::Representation::FlowCoordinates => (item.coordinates, &flow_shape),
            v1::Representation::Latent => (item.latents, &flow_shape),
            _ => (item.positions, &cartesian),
        };
        let double = |numbers: Vec<f64>| Some(array(numbers, &[n], v1::DataType::Float64, self.encoding));
        v1::SampleBatch {
            first_index: item.first_index,
            positions: Some(array(numbers, shape, self.position_dtype, self.encoding)),
            log_weights: double(item.log_weights),
            reduced_energies: double(item.reduced_energies),
            log_probs: double(item.log_probs),
            forces: forces.map(|f| array(f, &cartesian, self.position_dtype, self.encoding)),
            samples: 0,
            effective_samples: 0.0,
            ancestors: item.ancestors,
        }
    }
}

impl Sampling {
    async fn start(
        &self,
        request: v1::StreamSamplesRequest,
    ) -> Result<impl Stream<Item = Result<v1::StreamSamplesResponse, Status>> + Send + use<>, ApiError> {
        self.app.check_open()?;
        let id = id_of("model", "models", &request.model)?;
        let format = Format::read(&request)?;
        let max_duration = requested_duration(request.max_duration)?;
        if !(request.target_effective_samples.is_finite() && request.target_effective_samples >= 0.0) {
            let reason = format!("it is {}; it must be a positive finite number", request.target_effective_samples);
            return Err(FieldError::invalid("target_effective_samples", reason).into());
        }
        let target = (request.target_effective_samples > 0.0).then_some(request.target_effective_samples);
        let count = (request.count > 0).then_some(request.count);
        if count.is_none() && target.is_none() && max_duration.is_none() {
            let reason = "it is 0, and there is no other limit; set count, target_effective_samples or max_duration";
            return Err(FieldError::invalid("count", reason).into());
        }
        if request.count > MAX_SAMPLES {
            let reason = format!("it is {}; a stream has at most {MAX_SAMPLES} samples", request.count);
            return Err(FieldError::invalid("count", reason).into());
        }
        if request.first_index.checked_add(request.count).is_none() {
            return Err(crate::sample::SampleError::IndexOverflow.into());
        }
        let permit = self.app.engine.admit().ok_or(ApiError::TooManyStreams)?;
        let model = self.app.engine.models.get(id).await?;
        let plan = requested_plan(&request, &model.generator)?;
        check_plan(&plan, request.method, &model.generator)?;
        let trained = model.generator.temperature();
        let temperature = requested_temperature("temperature", request.temperature, trained)?;
        let batch = batch_size(&request, &model);
        let header = v1::SampleHeader {
            model: request.model.clone(),
            model_digest: model.digest.clone(),
            energy_digest: model.generator.card.energy_digest.clone(),
            energy_unit: energy_unit(model.generator.card.energy_scale).into(),
            temperature,
            trained_temperature: trained,
            seed: request.seed,
            first_index: request.first_index,
            coordinates: model.generator.card.coordinates.clone(),
            precision: model.generator.flow.precision(),
            ..v1::SampleHeader::default()
        };
        let sample_request = SampleRequest {
            temperature,
            plan: plan.clone(),
            least_effective_fraction: requested_fraction(request.least_effective_fraction)?,
            seed: request.seed,
            first_index: request.first_index,
            count,
            target_effective_samples: target,
            max_duration,
            batch,
            forces: request.include_forces,
        };
        let items =
            self.app.engine.stream_samples(Arc::clone(&model), sample_request, permit, self.app.draining.clone());
        let app = self.app.clone();
        app.metrics.streams_open.inc();
        let open = OpenStream { app, method: None };
        Ok(messages(ReceiverStream::new(items), open, model, format, plan, header))
    }
}

/// The samples in a message: as many as are asked for, and as fit.
pub(super) fn batch_size(request: &v1::StreamSamplesRequest, model: &LoadedModel) -> usize {
    let target = &model.generator.target;
    let rows = if request.include_forces { 2 } else { 1 };
    let sample_bytes = 8 * (rows * target.system().dimension().max(target.dimension()) + 3);
    let most = (MAX_BATCH_BYTES / sample_bytes).max(1);
    match request.batch_size as usize {
        0 => (BATCH_BYTES / sample_bytes).max(1),
        n => n.min(most),
    }
}

/// Counts a stream as open until it is dropped.
struct OpenStream {
    app: App,
    method: Option<v1::SamplingMethod>,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.app.metrics.streams_open.dec();
    }
}

fn messages(
    items: ReceiverStream<Result<SampleItem, StreamError>>,
    mut open: OpenStream,
    model: Arc<LoadedModel>,
    format: Format,
    plan: PlanRequest,
    mut header: v1::SampleHeader,
) -> impl Stream<Item = Result<v1::StreamSamplesResponse, Status>> + Send {
    use v1::stream_samples_response::Part;
    items.map(move |item| {
        let part = match item.map_err(stream_status)? {
            SampleItem::Started(decision) => {
                open.method = Some(plan_method(&decision.plan, decision.method));
                describe(&decision, &plan, &mut header);
                Part::Header(header.clone())
            }
            SampleItem::Batch { batch, forces, samples, effective_samples } => {
                if let Some(method) = open.method {
                    let label = method.as_str_name();
                    open.app.metrics.samples.with_label_values(&[label]).inc_by(batch.len() as u64);
                }
                let message = format.batch(&model, batch, forces);
                Part::Batch(v1::SampleBatch { samples, effective_samples, ..message })
            }
            SampleItem::Finished { weights, effective_samples, chains, next_index, cause, seconds } => {
                let fraction = weights.effective_fraction();
                open.app.metrics.sample_effective_fraction.observe(fraction);
                Part::Summary(v1::SampleSummary {
                    weights: Some(weights_of(&weights, &model.generator.card, header.temperature)),
                    next_index,
                    stop_cause: cause_message(cause).into(),
                    seconds,
                    coverage: coverage(&model.generator.card).into(),
                    effective_samples,
                    chains: chains.map(chain_summary),
                })
            }
        };
        Ok(v1::StreamSamplesResponse { part: Some(part) })
    })
}

fn chain_summary(chains: ChainSummary) -> v1::ChainSummary {
    v1::ChainSummary {
        statistical_inefficiency: chains.statistical_inefficiency,
        jump_acceptance: chains.jumps,
        exchange_acceptance: chains.exchanges,
    }
}

#[tonic::async_trait]
impl SamplingService for Sampling {
    type StreamSamplesStream = Pin<Box<dyn Stream<Item = Result<v1::StreamSamplesResponse, Status>> + Send>>;

    async fn stream_samples(
        &self,
        request: Request<v1::StreamSamplesRequest>,
    ) -> Result<Response<Self::StreamSamplesStream>, Status> {
        let stream = self.start(request.into_inner()).await?;
        Ok(Response::new(Box::pin(stream)))
    }
}
