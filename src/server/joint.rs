//! Free energies from a model's samples and datasets together: the part of EstimateFreeEnergy with `data`.

use super::app::App;
use super::errors::ApiError;
use super::free_energy::response;
use super::sampling::stream_status;
use crate::contract::v1;
use crate::contract::{FieldError, array, estimate, id_of, method_message, weights_of};
use crate::engine::{
    EstimateItem, Frames, FramesError, JointItem, JointRequest, JointState, LoadedModel, MOST_FRAMES, StreamError,
    UsedFrames,
};
use crate::thermo::{Estimate, FreeEnergyQuery, JointEstimate};
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;
use v1::FreeEnergyEstimator as Estimator;

/// Datasets of a request.
const MAX_DATA: usize = 16;

/// Temperatures of all frames.
const MAX_DATA_TEMPERATURES: usize = 64;

/// Samples of each density of the model when the client does not choose.
const DEFAULT_SAMPLES: u64 = 20_000;

/// Reduced energies of all samples in all states, half of samples and half of frames.
const MAX_ENERGIES: usize = 1 << 24;

/// Elements of the overlap matrix under this between a state and all others: the least that is recommended (Klimovich, Shirts and
/// Mobley, J. Comput. Aided Mol. Des. 29, 397 (2015)).
const LEAST_OVERLAP: f64 = 0.03;

/// Fewer independent frames say little about their own correlation.
const FEW_FRAMES: u64 = 50;

/// Which estimators a request wants.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Estimators {
    pub importance: bool,
    bar: bool,
    mbar: bool,
}

impl Estimators {
    /// Nothing for importance weights alone.
    pub fn read(request: &v1::EstimateFreeEnergyRequest) -> Result<Option<Self>, FieldError> {
        let mut wanted = Self::default();
        for (i, number) in request.estimators.iter().enumerate() {
            match Estimator::try_from(*number) {
                Ok(Estimator::Importance) => wanted.importance = true,
                Ok(Estimator::Bar) => wanted.bar = true,
                Ok(Estimator::Mbar) => wanted.mbar = true,
                _ => {
                    let reason = format!("{number} is not a FreeEnergyEstimator");
                    return Err(FieldError::invalid(format!("estimators[{i}]"), reason));
                }
            }
        }
        if request.estimators.is_empty() {
            wanted = Self { importance: true, bar: false, mbar: !request.data.is_empty() };
        }
        let joint = wanted.bar || wanted.mbar;
        if joint && request.data.is_empty() {
            return Err(FieldError::invalid("data", "there are none, and BAR and MBAR need frames; add a dataset"));
        }
        if !joint && !request.data.is_empty() {
            return Err(FieldError::invalid("data", "importance weights do not use them; ask for BAR or MBAR as well"));
        }
        if joint && !wanted.importance && !request.profiles.is_empty() {
            return Err(FieldError::invalid("profiles", "they are by importance weights; ask for IMPORTANCE as well"));
        }
        if request.data.len() > MAX_DATA {
            let reason = format!("there are {}; at most {MAX_DATA} are allowed", request.data.len());
            return Err(FieldError::invalid("data", reason));
        }
        Ok(joint.then_some(wanted))
    }
}

/// What the request says besides its estimators and data.
pub(super) struct Rest {
    pub model: Arc<LoadedModel>,
    pub query: FreeEnergyQuery,
    /// With all but estimators, data and the number of samples.
    pub request: JointRequest,
    pub permit: OwnedSemaphorePermit,
}

/// Starts an estimation, and gives its answers.
pub(super) async fn start(
    app: &App,
    message: &v1::EstimateFreeEnergyRequest,
    wanted: Estimators,
    rest: Rest,
) -> Result<impl Stream<Item = Result<v1::EstimateFreeEnergyResponse, Status>> + Send + use<>, ApiError> {
    let Rest { model, query, mut request, permit } = rest;
    if model.generator.target.coordinates().auxiliary() > 0 && request.temperatures.len() > 1 {
        let reason = "a model with auxiliary variables has no common space for its densities at several; ask for one";
        return Err(FieldError::invalid("temperatures", reason).into());
    }
    // u_kn is kept, and again for each resampling.
    let memory = app.transfer().await?;
    let mut data: Vec<Frames> = Vec::new();
    for (i, item) in message.data.iter().enumerate() {
        let field = format!("data[{i}]");
        let id = id_of(&format!("{field}.dataset"), "datasets", &item.dataset)?;
        if !(item.temperature.is_finite() && item.temperature >= 0.0) {
            let reason = format!("it is {}; give a positive number, or 0 for those of the frames", item.temperature);
            return Err(FieldError::invalid(format!("{field}.temperature"), reason).into());
        }
        let temperature = (item.temperature > 0.0).then_some(item.temperature);
        let system = model.generator.target.system();
        for frames in Frames::open_all(app.store.as_ref(), &app.artifacts, id, system, temperature).await? {
            let is_known = |known: &&Frames| known.digest == frames.digest && known.is_of(frames.temperature);
            if let Some(known) = data.iter().find(is_known) {
                let reason = format!(
                    "its frames at {} are those of datasets/{}, which are there; the same frames count once",
                    frames.temperature, known.id
                );
                return Err(FieldError::invalid(format!("{field}.dataset"), reason).into());
            }
            data.push(frames);
        }
        if data.len() > MAX_DATA_TEMPERATURES {
            let reason =
                format!("they have frames of {} temperatures; at most {MAX_DATA_TEMPERATURES} are allowed", data.len());
            return Err(FieldError::invalid("data", reason).into());
        }
    }
    for &temperature in &request.temperatures {
        if wanted.bar && !data.iter().any(|frames| frames.is_of(temperature)) {
            let known = data.iter().map(|frames| frames.temperature.to_string()).collect::<Vec<_>>().join(", ");
            let ids = data.iter().map(|frames| frames.id.as_str()).collect::<Vec<_>>().join(", ");
            return Err(FramesError::OtherTemperature { id: ids, wanted: temperature, known }.into());
        }
    }
    let flows = request.temperatures.len();
    let states = 2 * flows + data.len();
    let most = MAX_ENERGIES / 2 / states.max(1);
    let samples = if message.samples == 0 { DEFAULT_SAMPLES } else { message.samples };
    let most_samples = most / flows.max(1);
    request.samples = usize::try_from(samples).unwrap_or(usize::MAX);
    if request.samples > most_samples {
        let reason = format!(
            "it is {samples}; with BAR or MBAR, {flows} temperatures and frames of {} it must be at most {most_samples}",
            data.len()
        );
        return Err(FieldError::invalid("samples", reason).into());
    }
    let most_frames = (most / data.len().max(1)).clamp(1, MOST_FRAMES);
    request.data = data.iter().map(|frames| frames.thinned(frames.len().div_ceil(most_frames))).collect();
    (request.importance, request.bar, request.mbar) = (wanted.importance, wanted.bar, wanted.mbar);
    let temperatures = request.temperatures.clone();
    let items = app.engine.joint(Arc::clone(&model), request, permit, app.draining.clone());
    Ok(ReceiverStream::new(items).map(move |item: Result<JointItem, StreamError>| {
        let _held = &memory;
        item.map(|item| answer(item, &temperatures, &query, &model)).map_err(stream_status)
    }))
}

fn answer(
    item: JointItem,
    temperatures: &[f64],
    query: &FreeEnergyQuery,
    model: &LoadedModel,
) -> v1::EstimateFreeEnergyResponse {
    let JointItem { importance, bar, mbar, states, solution, methods, weights, data, frame_shares, finished, seconds } =
        item;
    let mut message = response(&EstimateItem { estimates: importance, finished, seconds }, query, model);
    for (estimator, estimates) in [(Estimator::Bar, &bar), (Estimator::Mbar, &mbar)] {
        let of_temperatures = temperatures.iter().zip(&methods).zip(&weights).zip(&frame_shares);
        for (found, (((temperature, method), weights), shares)) in estimates.iter().zip(of_temperatures) {
            message.estimates.push(v1::FreeEnergyEstimate {
                temperature: *temperature,
                estimator: estimator.into(),
                method: method_message(*method).into(),
                weights: Some(weights_of(weights, &model.generator.card, *temperature)),
                ..estimate_message(found, query, shares.as_deref())
            });
        }
    }
    message.warnings = data.iter().flat_map(warnings).collect();
    message.data = data.iter().map(used_message).collect();
    if let Some(solution) = solution {
        let k = states.len();
        message.warnings.extend(alone(&states, &solution.overlap));
        message.joint_states = states
            .iter()
            .enumerate()
            .map(|(i, state)| {
                let (f, error) = solution.difference(0, i).unwrap_or((f64::NAN, f64::INFINITY));
                v1::JointState {
                    method: state.method.map_or(v1::SamplingMethod::Unspecified, method_message).into(),
                    temperature: state.temperature,
                    samples: state.samples,
                    f,
                    f_standard_error: error,
                }
            })
            .collect();
        let overlap = array(solution.overlap, &[k, k], v1::DataType::Float64, v1::ArrayEncoding::Values);
        message.overlap = Some(overlap);
    }
    message
}

fn estimate_message(found: &JointEstimate, query: &FreeEnergyQuery, shares: Option<&[f64]>) -> v1::FreeEnergyEstimate {
    let zero = Estimate { value: 0.0, standard_error: 0.0, interval: (0.0, 0.0) };
    let differences = std::iter::once(&zero).chain(&found.state_differences);
    let states = query.states.iter().zip(&found.state_probabilities).zip(differences);
    v1::FreeEnergyEstimate {
        log_z: Some(estimate(&found.log_z)),
        log_z_asymptotic_error: found.asymptotic_error,
        free_energy: Some(estimate(&found.free_energy)),
        internal_energy: Some(estimate(&found.internal_energy)),
        entropy: Some(estimate(&found.entropy)),
        heat_capacity: Some(estimate(&found.heat_capacity)),
        states: states
            .enumerate()
            .map(|(i, ((state, probability), difference))| v1::StateEstimate {
                name: state.name.clone(),
                probability: Some(estimate(probability)),
                difference: Some(estimate(difference)),
                sample_share: None,
                unseen_change: None,
                frame_share: shares.and_then(|shares| shares.get(i).copied()),
            })
            .collect(),
        ..v1::FreeEnergyEstimate::default()
    }
}

fn used_message(used: &UsedFrames) -> v1::UsedFrames {
    v1::UsedFrames {
        dataset: format!("datasets/{}", used.dataset),
        temperature: used.temperature,
        frames: used.frames,
        stride: used.looked_at_every,
        statistical_inefficiency: used.inefficiency,
        used: used.used,
        beyond_domain: used.beyond,
    }
}

fn warnings(used: &UsedFrames) -> Vec<String> {
    let UsedFrames { dataset, temperature, frames, used, looked_at_every, beyond, .. } = used;
    let mut all = Vec::new();
    if *beyond > 0 {
        all.push(format!(
            "{beyond} frames of datasets/{dataset} at {temperature} are outside of what the model makes (another hand, say): log Z by \
             BAR and MBAR counts them, and that by importance weights does not."
        ));
    }
    if *looked_at_every > 1 {
        all.push(format!(
            "Of {frames} frames of datasets/{dataset} at {temperature} one in {looked_at_every} was looked at."
        ));
    }
    if *used < FEW_FRAMES {
        all.push(format!(
            "datasets/{dataset} has about {used} independent frames at {temperature}: errors say little; simulate longer."
        ));
    }
    all
}

/// A sentence for each state that hardly shares samples with all others.
fn alone(states: &[JointState], overlap: &[f64]) -> Vec<String> {
    let k = states.len();
    let sentence = |(i, state): (usize, &JointState)| {
        let others = (0..k).filter(|&j| j != i).filter_map(|j| overlap.get(i * k + j)).sum::<f64>();
        let what = if state.method.is_some() { "flow" } else { "Boltzmann distribution" };
        (others < LEAST_OVERLAP).then(|| {
            format!(
                "The {what} at {} shares {:.2} % of its samples with all others: errors may be too small; add temperatures \
                 between, or train a better model.",
                state.temperature,
                100.0 * others
            )
        })
    };
    states.iter().enumerate().filter_map(sentence).collect()
}
