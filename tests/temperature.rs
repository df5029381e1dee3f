//! One flow at many temperatures, over gRPC: what a request gets within the range that a model was trained for, outside of
//! it, and where a temperature is too poor to answer.

mod common;

use boltzflow::contract::v1;
use common::*;
use tonic::Code;
use v1::SamplingMethod as M;
use v1::job_event::Event;

#[tokio::test(flavor = "multi_thread")]
async fn a_model_of_a_range_is_told_the_temperature() {
    let (_folder, server, mut clients) = fresh().await;
    let mut task = small_task(300);
    task.temperature_range = Some(v1::TemperatureRange { low: 0.5, high: 2.0 });
    task.stages[0].own_samples = Some(v1::Ramp { start: 1.0, end: 1.0, shape: 0 });
    task.stages[0].reverse_kl = None;
    task.stages[0].replay = Some(v1::Replay { generation: 20, ..v1::Replay::default() });
    task.weight_average = 0.9;
    let job = v1::Job { task: Some(v1::job::Task::Training(task)), ..v1::Job::default() };
    let request = v1::CreateJobRequest { job: Some(job), ..v1::CreateJobRequest::default() };
    let job = clients.jobs.create_job(request).await.unwrap().into_inner();
    let request = v1::WatchJobRequest { name: job.name.clone(), after_sequence: 0 };
    let mut stream = clients.jobs.watch_job(request).await.unwrap().into_inner();
    let mut sentences = Vec::new();
    while let Some(event) = stream.message().await.unwrap() {
        if let Some(Event::Message(sentence)) = event.event {
            sentences.push(sentence);
        }
    }
    for what in [
        "recipe transport: ",
        "coordinates: ",
        "conditioned on temperature",
        "at temperature 0.5: ",
        "at temperature 2: ",
    ] {
        assert!(sentences.iter().any(|s| s.contains(what)), "nothing says '{what}': {sentences:?}");
    }
    let model = clients.job(&job.name).await.model;
    let request = v1::GetModelRequest { name: model.clone() };
    let card = clients.models.get_model(request).await.unwrap().into_inner().card.unwrap();
    assert_eq!(card.temperature_range, Some(v1::TemperatureRange { low: 0.5, high: 2.0 }));
    let measured: Vec<f64> = card.by_temperature.iter().map(|m| m.temperature).collect();
    assert_eq!((measured[0], measured.len(), measured[4]), (0.5, 5, 2.0));
    // The course of training is in the card, and not in lists of models.
    let last = card.course.last().unwrap();
    assert_eq!((last.step, last.energy_evaluations), (card.steps, card.energy_evaluations));
    assert!(last.log_z.is_some() && last.effective_sample_fraction > 0.0, "{last:?}");
    let listed = clients.models.list_models(v1::ListModelsRequest::default()).await.unwrap().into_inner().models;
    assert!(listed.iter().all(|model| model.card.as_ref().is_some_and(|card| card.course.is_empty())));

    let request = |temperature, method: M| v1::StreamSamplesRequest {
        model: model.clone(),
        temperature,
        method: method.into(),
        count: 3000,
        ..v1::StreamSamplesRequest::default()
    };
    // Within the range the flow is told the temperature, beyond it a pilot says whether that still is the best.
    for (temperature, only) in [(0.7, true), (4.0, false)] {
        let samples = clients.sample(request(temperature, M::Auto)).await.unwrap();
        let header = samples.header.unwrap();
        assert!(!only || header.method() == M::Conditioned, "{header:?}");
        assert_eq!(only, !header.method_reason.contains("reweighting has"), "{header:?}");
        assert!(header.method_reason.contains("the flow conditioned on temperature has"), "{header:?}");
    }
    // The samples of a temperature are the same whichever way it was asked for.
    let asked = clients.sample(request(0.7, M::Conditioned)).await.unwrap();
    assert_eq!(asked.positions, clients.sample(request(0.7, M::Auto)).await.unwrap().positions);
    let scaled = clients.sample(request(0.7, M::LatentScaling)).await.unwrap_err();
    assert_eq!((scaled.code(), reason(&scaled).as_str()), (Code::InvalidArgument, "INVALID_FIELD"));

    // A temperature that is poor is answered with a warning, or refused where the request says so.
    let poor = |least| v1::StreamSamplesRequest { least_effective_fraction: least, ..request(300.0, M::Conditioned) };
    let answered = clients.sample(poor(0.0)).await.unwrap();
    let weights = answered.summary.unwrap().weights.unwrap();
    assert!(!weights.reliable || weights.warning.contains("poor at this temperature"), "{weights:?}");
    let refused = clients.sample(poor(0.9)).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "TEMPERATURE_NOT_COVERED"));
    assert!(refused.message().contains("temperature_range"), "{}", refused.message());
    let good = v1::StreamSamplesRequest { least_effective_fraction: 0.01, ..request(1.0, M::Auto) };
    clients.sample(good).await.unwrap();
    let estimate = v1::EstimateFreeEnergyRequest {
        model: model.clone(),
        temperatures: vec![1.0, 300.0],
        samples: 5000,
        method: M::Conditioned.into(),
        least_effective_fraction: 0.9,
        ..v1::EstimateFreeEnergyRequest::default()
    };
    let refused = clients.estimate(estimate).await.unwrap_err();
    assert_eq!(reason(&refused), "TEMPERATURE_NOT_COVERED");
    server.stop().await;
}
