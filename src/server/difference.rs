//! FreeEnergyService.EstimateFreeEnergyDifference.

use super::app::App;
use super::errors::ApiError;
use super::free_energy::{requested_replicates, requested_target};
use super::independent::{NO_DENSITY, independent_method};
use super::sampling::{cause_message, check_method, requested_duration, requested_temperature, stream_status};
use crate::contract::v1;
use crate::contract::v1::estimate_free_energy_difference_request::{EndPoint as EndMessage, end_point::Kind};
use crate::contract::v1::estimate_free_energy_difference_response::{Result as ResultMessage, Samples};
use crate::contract::{FieldError, coverage, estimate, id_of, method_message, weight_summary, weights_of};
use crate::coords::Measure;
use crate::engine::{DifferenceItem, DifferenceRequest, EndPoint, EndReport, Frames, StreamError};
use crate::scheduler::load_system;
use crate::thermo::{Difference, DifferenceEstimate, WeightSummary};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;
use v1::DifferenceEstimator as Estimator;

const DEFAULT_SAMPLES: u64 = 100_000;
const MAX_SAMPLES: u64 = 1 << 19;

/// Below this overlap an element of the overlap matrix is under 0.03, the least that is recommended between neighbours (Klimovich,
/// Shirts and Mobley, J. Comput. Aided Mol. Des. 29, 397 (2015)).
const LEAST_OVERLAP: f64 = 0.06;

/// Fewer independent frames say little about their own correlation.
const FEW_FRAMES: f64 = 50.0;

const NAMES: [&str; 2] = ["from", "to"];

/// Starts an estimation, and gives its answers.
pub(super) async fn start(
    app: &App,
    request: v1::EstimateFreeEnergyDifferenceRequest,
) -> Result<impl Stream<Item = Result<v1::EstimateFreeEnergyDifferenceResponse, Status>> + Send + use<>, ApiError> {
    app.check_open()?;
    let max_duration = requested_duration(request.max_duration)?;
    let target_standard_error = requested_target(request.target_standard_error)?;
    let replicates = requested_replicates(request.bootstrap_replicates)?;
    if request.samples > MAX_SAMPLES {
        let reason = format!("it is {}; it must be at most {MAX_SAMPLES}", request.samples);
        return Err(FieldError::invalid("samples", reason).into());
    }
    let wanted = wanted(&request.estimators)?;
    let permit = app.engine.admit().ok_or(ApiError::TooManyStreams)?;
    let from = end(app, "from", request.from).await?;
    let to = end(app, "to", request.to).await?;
    let measure = compare(&from, &to)?;
    let ends = [from, to];
    let models = ends.iter().filter(|end| matches!(end, EndPoint::Model { .. })).count();
    if models < 2 && request.estimators.contains(&Estimator::Targeted.into()) {
        let reason = "TARGETED is for two models, whose flows it maps onto each other; use FORWARD, REVERSE or BAR";
        return Err(FieldError::invalid("estimators", reason).into());
    }
    let facts = ends.clone();
    let samples = if request.samples == 0 { DEFAULT_SAMPLES } else { request.samples };
    let estimation = DifferenceRequest {
        ends,
        samples: usize::try_from(samples).unwrap_or(usize::MAX),
        target_standard_error,
        max_duration,
        seed: request.seed,
        replicates,
    };
    let items = app.engine.difference(estimation, permit, app.draining.clone());
    Ok(ReceiverStream::new(items).map(move |item: Result<DifferenceItem, StreamError>| {
        item.map(|item| response(&item, &facts, &wanted, &measure)).map_err(stream_status)
    }))
}

/// The estimators asked for, or all, in the order that they are answered in.
fn wanted(numbers: &[i32]) -> Result<Vec<Estimator>, FieldError> {
    let all = [Estimator::Forward, Estimator::Reverse, Estimator::Bar, Estimator::Targeted];
    for (i, number) in numbers.iter().enumerate() {
        if !all.iter().any(|e| i32::from(*e) == *number) {
            let reason = format!("{number} is not a DifferenceEstimator");
            return Err(FieldError::invalid(format!("estimators[{i}]"), reason));
        }
    }
    Ok(all.into_iter().filter(|e| numbers.is_empty() || numbers.contains(&(*e).into())).collect())
}

/// An end point, with its model or its frames found.
async fn end(app: &App, field: &str, message: Option<EndMessage>) -> Result<EndPoint, ApiError> {
    let Some(EndMessage { kind: Some(kind), temperature, method }) = message else {
        let reason = "it is missing; give a model, or a system with a dataset";
        return Err(FieldError::invalid(field, reason).into());
    };
    let method = independent_method(method, NO_DENSITY).map_err(|e| e.within(field))?;
    let of_temperature = format!("{field}.temperature");
    match kind {
        Kind::Model(name) => {
            let id = id_of(&format!("{field}.model"), "models", &name)?;
            let model = app.engine.models.get(id).await?;
            check_method(method, &model.generator).map_err(|e| e.within(field))?;
            let temperature = requested_temperature(&of_temperature, temperature, model.generator.temperature())?;
            Ok(EndPoint::Model { model, temperature, method })
        }
        Kind::System(data) => {
            let system_id = id_of(&format!("{field}.system.system"), "systems", &data.system)?;
            let dataset = id_of(&format!("{field}.system.dataset"), "datasets", &data.dataset)?;
            if method.is_some() {
                let reason = "it is for models; a dataset's frames are there already";
                return Err(FieldError::invalid(format!("{field}.method"), reason).into());
            }
            if !(temperature.is_finite() && temperature >= 0.0) {
                let reason = format!("it is {temperature}; give a positive number, or 0 for that of the frames");
                return Err(FieldError::invalid(of_temperature, reason).into());
            }
            let system = load_system(app.store.as_ref(), system_id).await?;
            let wanted = (temperature > 0.0).then_some(temperature);
            let frames = Frames::open(app.store.as_ref(), &app.artifacts, dataset, &system, wanted).await?;
            Ok(EndPoint::Data { system: Box::new(system), frames })
        }
    }
}

/// That both free energies are of the same kind, and what they are integrals over.
fn compare(from: &EndPoint, to: &EndPoint) -> Result<String, ApiError> {
    let (a, b) = (from.system(), to.system());
    let refuse = |reason: String| Err(ApiError::Incomparable(reason));
    if a.scale() != b.scale() {
        return refuse("one end has energies in kJ/mol and the other in reduced units; give both in the same".into());
    }
    if a.atoms() != b.atoms() || a.dimension() != b.dimension() {
        return refuse(format!(
            "the ends have {} and {} coordinates of {} and {} atoms; both must have the same atoms (keep one that vanishes as an \
             atom without interactions)",
            a.dimension(),
            b.dimension(),
            a.atoms().unwrap_or(0),
            b.atoms().unwrap_or(0)
        ));
    }
    if a.constraints() != b.constraints() {
        return refuse(
            "the ends have different constraints, so that their integrals are over different configurations; make both systems \
             with the same ones, or without"
                .into(),
        );
    }
    let of = |end: &EndPoint| match end {
        EndPoint::Model { model, .. } => Some(model.generator.target.coordinates().spec().measure()),
        EndPoint::Data { .. } => None,
    };
    let measures: Vec<Measure> = [of(from), of(to)].into_iter().flatten().collect();
    if let [one, other] = measures.as_slice()
        && one != other
    {
        return refuse(format!(
            "log Z of one model is over {one} and of the other over {other}; train both in the same kind of coordinates"
        ));
    }
    // Of two datasets nobody says what they are integrals over: one that is held in space has no difference from one that is not.
    for measure in [Measure::AboutMean, Measure::Shapes] {
        if measures.is_empty() && measure.suits(a) != measure.suits(b) {
            let (free, held) = if measure.suits(a) { NAMES.into() } else { (NAMES[1], NAMES[0]) };
            return refuse(format!(
                "the energy of {free} is a function of {measure}, and that of {held} is not: it holds its particles in space, and the                  difference depends on how much room the others have; hold both, or neither"
            ));
        }
    }
    for (end, name) in [from, to].into_iter().zip(NAMES) {
        if let Some(measure) = measures.iter().find(|measure| !measure.suits(end.system())) {
            return refuse(format!(
                "log Z of the model is over {measure}, and the energy of {name} is no function of these: it holds its particles in \
                 space; train the model on a system that does so too"
            ));
        }
    }
    Ok(measures.first().map_or_else(
        || "Both integrals are over all positions that the systems let their atoms have.".to_string(),
        |measure| {
            format!(
                "Both integrals are over {measure}; what the coordinates of a model confine is left out of its own."
            )
        },
    ))
}

fn response(
    item: &DifferenceItem,
    ends: &[EndPoint; 2],
    wanted: &[Estimator],
    measure: &str,
) -> v1::EstimateFreeEnergyDifferenceResponse {
    let results = item.difference.iter().flat_map(|found| {
        wanted.iter().filter_map(|estimator| {
            let DifferenceEstimate { estimate: value, asymptotic_error } = of(found, *estimator)?;
            Some(ResultMessage {
                estimator: (*estimator).into(),
                difference: Some(estimate(&value)),
                asymptotic_standard_error: asymptotic_error,
            })
        })
    });
    let samples = |end: usize| {
        let inefficiency = item.difference.as_ref().map_or(f64::NAN, |found| found.inefficiencies[end]);
        samples_message(&ends[end], &item.ends[end], inefficiency)
    };
    v1::EstimateFreeEnergyDifferenceResponse {
        results: results.collect(),
        overlap: item.difference.as_ref().map_or(f64::NAN, |found| found.overlap),
        r#final: item.finished.is_some(),
        stop_cause: item.finished.map_or(v1::StopCause::Unspecified, cause_message).into(),
        from: Some(samples(0)),
        to: Some(samples(1)),
        measure: measure.to_string(),
        warnings: item.difference.as_ref().map(|found| warnings(found, item, ends, wanted)).unwrap_or_default(),
        seconds: item.seconds,
    }
}

fn of(found: &Difference, estimator: Estimator) -> Option<DifferenceEstimate> {
    match estimator {
        Estimator::Forward => Some(found.forward),
        Estimator::Reverse => Some(found.reverse),
        Estimator::Bar => Some(found.both),
        Estimator::Targeted => found.targeted,
        Estimator::Unspecified => None,
    }
}

fn samples_message(end: &EndPoint, report: &EndReport, inefficiency: f64) -> Samples {
    let common = Samples {
        temperature: end.temperature(),
        samples: report.samples as u64,
        statistical_inefficiency: inefficiency,
        other_weights: Some(weight_summary(&report.other)),
        beyond_domain: report.beyond,
        energy_digest: end.system().digest().to_string(),
        ..Samples::default()
    };
    match end {
        EndPoint::Model { model, .. } => {
            let card = &model.generator.card;
            Samples {
                method: report.method.map_or(v1::SamplingMethod::Unspecified, method_message).into(),
                own_weights: report.own.as_ref().map(|weights| weights_of(weights, card, end.temperature())),
                coordinates: card.coordinates.clone(),
                model_digest: model.digest.clone(),
                coverage: coverage(card).into(),
                ..common
            }
        }
        EndPoint::Data { frames, .. } => Samples {
            frames: frames.of_temperature,
            stride: frames.stride,
            dataset_digest: frames.digest.clone(),
            ..common
        },
    }
}

/// What there is to beware of, in sentences.
fn warnings(found: &Difference, item: &DifferenceItem, ends: &[EndPoint; 2], wanted: &[Estimator]) -> Vec<String> {
    let mut all = Vec::new();
    let is_model = |end: usize| matches!(ends[end], EndPoint::Model { .. });
    let heavy = |what: String, weights: &WeightSummary, estimator: &str| {
        (!weights.tail_is_light()).then(|| {
            format!(
                "{what} have a heavy tail (k = {:.2}, over {:.2}, {:.1} effective): the error of {estimator} cannot be trusted.",
                weights.pareto_k, weights.pareto_k_threshold, weights.effective_samples
            )
        })
    };
    let unseen = |name: &str, weights: &WeightSummary| {
        let share = weights.unseen_share.filter(|_| weights.misses_a_part())?;
        Some(format!(
            "Wider latents find {:.2} % of {name} where its model makes one of {} samples: what no sample shows, no error does.",
            100.0 * share,
            weights.samples
        ))
    };
    for (end, estimator) in [Estimator::Forward, Estimator::Reverse].into_iter().enumerate() {
        let (name, other) = (NAMES[end], NAMES[1 - end]);
        let report = &item.ends[end];
        if wanted.contains(&estimator) {
            let label = if end == 0 { "FORWARD" } else { "REVERSE" };
            all.extend(heavy(format!("The weights of {name}'s samples to {other}"), &report.other, label));
        }
        if let Some(own) = &report.own {
            all.extend(heavy(format!("The weights of {name}'s samples to itself"), own, "every estimate"));
            all.extend(unseen(name, own));
        }
        if report.beyond > 0 {
            all.push(format!(
                "{} of {name}'s samples are outside of what {other}'s model makes (another hand, or the other side of a bond's or \
                 angle's end): they count in {name} and not in {other}, so that the difference has the logarithm of that part in it. \
                 Estimates from {other}'s samples alone cannot see them.",
                report.beyond
            ));
        }
        if let EndPoint::Data { frames, .. } = &ends[end] {
            let independent = report.samples as f64 / found.inefficiencies[end];
            if independent < FEW_FRAMES {
                all.push(format!(
                    "datasets/{} has about {independent:.0} independent frames: errors say little; simulate longer.",
                    frames.id
                ));
            }
            if frames.stride > 1 {
                all.push(format!(
                    "Of {} frames of datasets/{} one in {} is used.",
                    frames.of_temperature, frames.id, frames.stride
                ));
            }
        }
    }
    if found.overlap < LEAST_OVERLAP && !(is_model(0) && is_model(1)) {
        all.push(format!(
            "The ends overlap by {:.2} %: the error of BAR may be too small; put ends between them and add up the differences.",
            100.0 * found.overlap
        ));
    }
    if let [EndPoint::Model { model: a, .. }, EndPoint::Model { model: b, .. }] = ends
        && a.generator.target.coordinates().spec() != b.generator.target.coordinates().spec()
        && a.generator.card.coordinates != b.generator.card.coordinates
    {
        all.push(
            "The models' coordinates are not the same (see `coordinates`): where one confines what the other does not, the \
             difference has the logarithm of that symmetry number in it."
                .to_string(),
        );
    }
    all
}
