//! A real server in this process, and a client of it over loopback.

use super::super::client::{CliError, Clients};
use super::super::local_server::LocalServer;
use super::super::models::import;
use super::flows::REALNVP_60;
use super::report::Measurement;
use super::timing::{Clock, quantile};
use super::training::standard_normal;
use super::workload::{Setting, Workload};
use crate::contract::v1::{self, stream_samples_response::Part};
use crate::coords::{CoordinateChoice, ReducedTarget, choose_coordinates};
use crate::math::Purpose;
use crate::sample::{Generator, Method, ModelCard, SampleKey};
use std::sync::Arc;
use std::time::Instant;

/// Samples of a stream; of one of its messages.
const STREAM: u64 = 32_768;
const MESSAGE: usize = 2048;

/// Requests whose latency is measured for each second of a workload, from the fewest that have a 99th percentile to more
/// than enough, and those before to warm up.
const REQUESTS_PER_SECOND: f64 = 1000.0;
const REQUESTS: (f64, f64) = (200.0, 4000.0);
const WARM_UP: usize = 100;

/// Samples that a client receives, in turns with the same samples made in process: what is slower for a while is slower for
/// both.
pub(super) async fn stream(setting: &Setting) -> Result<Measurement, CliError> {
    let bytes = model(setting)?;
    let generator = Generator::decode(&bytes, &setting.device).map_err(|e| CliError::failed(e.to_string()))?;
    let generator = Arc::new(generator);
    let here = LocalServer::start(setting.choice, setting.precision).await?;
    let result = async {
        let mut clients = here.server.connect().await?;
        let model = import(&mut clients, &bytes, String::new()).await?.name;
        let (mut served, mut made) = (Vec::new(), Vec::new());
        let mut first_index = 0;
        let mut turn = async |clients: &mut Clients| {
            let first = first_index;
            first_index += STREAM;
            let begin = Instant::now();
            receive(clients, &model, first, STREAM).await?;
            let by_server = begin.elapsed().as_secs_f64();
            let begin = Instant::now();
            in_process(Arc::clone(&generator), first).await?;
            Ok::<_, CliError>((by_server, begin.elapsed().as_secs_f64()))
        };
        for _ in 0..setting.pace.warm_up {
            turn(&mut clients).await?;
        }
        let mut clock = Clock::start(&setting.pace);
        while clock.goes_on() {
            let (by_server, alone) = turn(&mut clients).await?;
            served.push(by_server);
            made.push(alone);
        }
        let measurement = Measurement::new(Workload::GrpcStream, STREAM as f64, quantile(&mut served, 0.5));
        Ok(Measurement { in_process: Some(STREAM as f64 / quantile(&mut made, 0.5)), ..measurement })
    }
    .await;
    here.stop().await;
    result
}

/// Streams of one sample, one after the other, from request to end; each is of another index.
pub(super) async fn latency(setting: &Setting) -> Result<Measurement, CliError> {
    let bytes = model(setting)?;
    let here = LocalServer::start(setting.choice, setting.precision).await?;
    let result = async {
        let mut clients = here.server.connect().await?;
        let model = import(&mut clients, &bytes, String::new()).await?.name;
        let requests = (REQUESTS_PER_SECOND * setting.pace.seconds).clamp(REQUESTS.0, REQUESTS.1) as usize;
        let mut milliseconds = Vec::with_capacity(requests);
        for request in 0..WARM_UP + requests {
            let begin = Instant::now();
            receive(&mut clients, &model, request as u64, 1).await?;
            if request >= WARM_UP {
                milliseconds.push(1e3 * begin.elapsed().as_secs_f64());
            }
        }
        let (p50, p99) = (quantile(&mut milliseconds, 0.5), quantile(&mut milliseconds, 0.99));
        let measurement = Measurement::new(Workload::GrpcLatency, 1.0, 1e-3 * p50);
        Ok(Measurement { latency_ms: Some((p50, p99)), ..measurement })
    }
    .await;
    here.stop().await;
    result
}

/// Reads a stream of samples to its end; all of them must come. Their bytes are left as they came, as a client that
/// writes them to a file would.
async fn receive(clients: &mut Clients, model: &str, first_index: u64, count: u64) -> Result<(), CliError> {
    let request = v1::StreamSamplesRequest {
        model: model.to_string(),
        first_index,
        count,
        batch_size: MESSAGE as u32,
        ..v1::StreamSamplesRequest::default()
    };
    let mut stream = clients.sampling.stream_samples(request).await?.into_inner();
    let mut bytes = 0;
    let mut next_index = first_index;
    while let Some(message) = stream.message().await? {
        match message.part {
            Some(Part::Batch(batch)) => bytes += batch.positions.map_or(0, |p| p.data.len() as u64),
            Some(Part::Summary(summary)) => next_index = summary.next_index,
            _ => {}
        }
    }
    if next_index != first_index + count || bytes != 8 * REALNVP_60.dimension as u64 * count {
        return Err(CliError::failed("the server's stream is not as agreed: samples are missing"));
    }
    Ok(())
}

/// The samples that a stream would bring, in batches of the same size.
async fn in_process(generator: Arc<Generator>, first_index: u64) -> Result<(), CliError> {
    let make = move || {
        let key = SampleKey { temperature: 1.0, method: Method::Reweighting, seed: 0, purpose: Purpose::Sample };
        for first in (first_index..first_index + STREAM).step_by(MESSAGE) {
            generator.samples(&key, first, MESSAGE).map_err(|e| CliError::failed(e.to_string()))?;
        }
        Ok(())
    };
    tokio::task::spawn_blocking(make).await.map_err(|e| CliError::failed(format!("sampling died: {e}")))?
}

/// The file of realnvp-60 as a model of a standard normal.
fn model(setting: &Setting) -> Result<Vec<u8>, CliError> {
    let failed = |e: &dyn std::fmt::Display| CliError::failed(e.to_string());
    let system = standard_normal(REALNVP_60.dimension)?;
    let coordinates = choose_coordinates(&system, None, 1.0, &CoordinateChoice::Automatic).map_err(|e| failed(&e))?;
    let card = ModelCard {
        energy_digest: system.digest().to_string(),
        energy_scale: system.scale(),
        coordinates: coordinates.description(),
        temperature: 1.0,
        temperature_range: None,
        data_digest: None,
        seed: 0,
        energy_cut: 1e3,
        training: Vec::new(),
        steps: 0,
        samples: 0,
        energy_evaluations: 0,
        seconds: 0.0,
        validation_samples: 0,
        effective_sample_fraction: 0.0,
        pareto_k: None,
        by_temperature: Vec::new(),
        data_log_prob: None,
        data_effective_fraction: None,
        unseen_share: None,
        course: Vec::new(),
    };
    let target = ReducedTarget::new(system, coordinates);
    let weights = REALNVP_60.weights(&setting.device)?;
    Generator::encode(&target, &REALNVP_60.spec(), &weights, &card).map_err(|e| failed(&e))
}
