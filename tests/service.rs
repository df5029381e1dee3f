//! The service as its clients see it: real servers, real calls.

mod common;

use boltzflow::contract::v1::{self, job_event::Event};
use boltzflow::contract::{numbers, v1::upload_dataset_request::Part as Upload};
use common::*;
use std::time::{Duration, Instant};
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_watched_sampled_and_asked_for_free_energies() {
    let (_folder, server, mut clients) = fresh().await;
    let job = clients.create(small_task(60)).await;
    assert!(matches!(job.state(), v1::JobState::Queued | v1::JobState::Running));
    let watch = |after| v1::WatchJobRequest { name: job.name.clone(), after_sequence: after };
    let mut events = Vec::new();
    let mut stream = clients.jobs.watch_job(watch(0)).await.unwrap().into_inner();
    while let Some(event) = stream.message().await.unwrap() {
        events.push(event);
    }
    // Numbered without a gap, from queued to succeeded, with progress and checkpoints between.
    assert!(events.iter().enumerate().all(|(i, e)| e.sequence == i as i64 + 1));
    let states: Vec<i32> = events
        .iter()
        .filter_map(|e| match e.event {
            Some(Event::State(state)) => Some(state),
            _ => None,
        })
        .collect();
    assert_eq!(states, [v1::JobState::Queued, v1::JobState::Running, v1::JobState::Succeeded].map(i32::from));
    let steps: Vec<i64> = events
        .iter()
        .filter_map(|e| match &e.event {
            Some(Event::Training(p)) => Some(p.step),
            _ => None,
        })
        .collect();
    // The last one is of the finished model, on more samples.
    assert_eq!(steps, [10, 20, 30, 40, 50, 60, 60]);
    assert!(events.iter().any(|e| matches!(e.event, Some(Event::CheckpointStep(50)))));
    // A watcher that comes back gets the rest, once.
    let mut stream = clients.jobs.watch_job(watch(4)).await.unwrap().into_inner();
    let mut rest = Vec::new();
    while let Some(event) = stream.message().await.unwrap() {
        rest.push(event);
    }
    assert_eq!(rest, events[4..]);

    let job = clients.job(&job.name).await;
    assert_eq!((job.attempt, job.state()), (1, v1::JobState::Succeeded));
    let request = v1::GetModelRequest { name: job.model.clone() };
    let model = clients.models.get_model(request).await.unwrap().into_inner();
    let card = model.card.clone().unwrap();
    assert_eq!((card.steps, card.samples, card.energy_evaluations), (60, 60 * 128, 60 * 128));
    assert_eq!((model.system.as_str(), model.job.as_str()), ("systems/double-well", job.name.as_str()));

    let request = v1::StreamSamplesRequest {
        model: job.model.clone(),
        temperature: 1.3,
        count: 5000,
        ..v1::StreamSamplesRequest::default()
    };
    let samples = clients.sample(request).await.unwrap();
    let (header, summary) = (samples.header.unwrap(), samples.summary.unwrap());
    assert_eq!((&header.model_digest, &header.energy_digest), (&model.digest, &card.energy_digest));
    assert_eq!((header.temperature, header.trained_temperature), (1.3, 1.0));
    assert_ne!(header.method(), v1::SamplingMethod::Auto);
    assert!(header.method_reason.contains("pilot"));
    assert_eq!((samples.log_weights.len(), summary.next_index), (5000, 5000));
    assert_eq!(summary.coverage(), v1::Coverage::Unverified);
    // The summary is that of the samples that came.
    let weights = summary.weights.unwrap();
    let w: Vec<f64> = samples.log_weights.iter().map(|l| l.exp()).collect();
    let (sum, squares) = (w.iter().sum::<f64>(), w.iter().map(|w| w * w).sum::<f64>());
    assert!((weights.effective_samples / (sum * sum / squares) - 1.0).abs() < 1e-9);
    assert!((weights.log_z - (sum / 5000.0).ln()).abs() < 1e-9);
    for i in 0..5000 {
        let (x, y) = (samples.positions[2 * i], samples.positions[2 * i + 1]);
        let u = (x.powi(4) - 6.0 * x * x + x + 0.5 * y * y) / 1.3;
        assert!((samples.reduced_energies[i] - u).abs() < 1e-9 * (1.0 + u.abs()));
        assert!((samples.log_weights[i] + u + samples.log_probs[i]).abs() < 1e-9 * (1.0 + u.abs()));
    }

    let x = Some(boltzflow::contract::variable_message(&"coordinate(0)".parse().unwrap()));
    let state = |name: &str, low, high| v1::State {
        name: name.into(),
        intervals: vec![v1::Interval { variable: x.clone(), low, high }],
    };
    let profile = v1::ProfileSpec {
        variable: x.clone(),
        low: -3.0,
        high: 3.0,
        bins: 12,
        second: None,
        kernel_density: Some(v1::KernelDensity { bandwidth: 0.1 }),
    };
    let energy = boltzflow::contract::variable_message(
        &"expression(x^4-6*x^2+x+y^2/2;x=coordinate(0);y=coordinate(1))".parse().unwrap(),
    );
    let second = v1::ProfileAxis { variable: Some(energy.clone()), low: -12.0, high: 0.0, bins: 8 };
    let request = v1::EstimateFreeEnergyRequest {
        model: job.model,
        temperatures: vec![1.0, 2.0],
        states: vec![state("left", f64::NEG_INFINITY, 0.0), state("right", 0.0, f64::INFINITY)],
        profiles: vec![profile.clone(), v1::ProfileSpec { second: Some(second), kernel_density: None, ..profile }],
        samples: 20_000,
        ..v1::EstimateFreeEnergyRequest::default()
    };
    let answer = clients.estimate(request).await.unwrap();
    assert_eq!(answer.estimates.len(), 2);
    for e in &answer.estimates {
        let value = |e: &Option<v1::Estimate>| e.unwrap().value;
        let p: f64 = e.states.iter().map(|s| value(&s.probability)).sum();
        assert!((p - 1.0).abs() < 1e-9);
        // F = U − TS, and the reverse KL bound is above F/kT.
        let f = value(&e.internal_energy) - e.temperature * value(&e.entropy);
        assert!((f - value(&e.free_energy)).abs() < 1e-9 * f.abs());
        assert!(e.weights.as_ref().unwrap().free_energy_bound > f / e.temperature);
        let [one, two] = &e.profiles[..] else { panic!("{}", e.profiles.len()) };
        assert_eq!((one.edges.len(), one.free_energy.len(), one.kernel_free_energy.len()), (13, 12, 12));
        assert_eq!((one.bandwidth, one.bandwidth_rule()), (0.1, v1::BandwidthRule::Given));
        assert!(one.second_variable.is_none() && one.second_edges.is_empty() && one.covered > 0.99);
        assert_eq!((two.second_variable.as_ref(), two.second_edges.len()), (Some(&energy), 9));
        assert_eq!((two.free_energy.len(), two.kernel_free_energy.len(), two.bandwidth), (96, 0, 0.0));
        // Below an energy of zero is less than everything.
        assert!((0.5..1.0).contains(&two.covered) && two.covered < one.covered, "{}", two.covered);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_is_the_same_in_every_batch_and_every_stream() {
    let (_folder, server, mut clients) = fresh().await;
    let model = clients.train(small_task(20)).await;
    let request = |first_index, count, batch_size| v1::StreamSamplesRequest {
        model: model.clone(),
        temperature: 1.5,
        method: v1::SamplingMethod::LatentScaling.into(),
        seed: 11,
        first_index,
        count,
        batch_size,
        ..v1::StreamSamplesRequest::default()
    };
    let small = clients.sample(request(0, 7000, 100)).await.unwrap();
    let large = clients.sample(request(5000, 3000, 1000)).await.unwrap();
    assert_eq!(small.first_indices.len(), 70);
    assert_eq!(large.first_indices, [5000, 6000, 7000]);
    let bits = |numbers: &[f64]| numbers.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&small.positions[2 * 5000..]), bits(&large.positions[..2 * 2000]));
    for (a, b) in [
        (&small.log_weights, &large.log_weights),
        (&small.log_probs, &large.log_probs),
        (&small.reduced_energies, &large.reduced_energies),
    ] {
        assert_eq!(bits(&a[5000..]), bits(&b[..2000]));
    }
    let other = clients.sample(v1::StreamSamplesRequest { seed: 12, ..request(0, 10, 10) }).await.unwrap();
    assert_ne!(bits(&other.positions), bits(&small.positions[..20]));

    // Annealed samples too, of step sizes that the first answer names; a pilot tunes them once.
    let annealed = |first_index, count, batch_size, step_sizes| v1::StreamSamplesRequest {
        method: v1::SamplingMethod::Annealed.into(),
        annealed: Some(v1::AnnealedPaths { distributions: 3, moves: 1, leapfrog_steps: 2, step_sizes }),
        ..request(first_index, count, batch_size)
    };
    let tuned = clients.sample(annealed(0, 300, 100, Vec::new())).await.unwrap();
    let header = tuned.header.as_ref().unwrap();
    assert_eq!(header.method(), v1::SamplingMethod::Annealed);
    let step_sizes = header.annealed.as_ref().unwrap().step_sizes.clone();
    assert!(step_sizes.len() == 3 && step_sizes.iter().all(|size| (0.01..10.0).contains(size)), "{step_sizes:?}");
    let given = clients.sample(annealed(200, 90, 1000, step_sizes)).await.unwrap();
    assert_eq!(bits(&tuned.positions[400..580]), bits(&given.positions));
    assert_eq!(bits(&tuned.log_weights[200..290]), bits(&given.log_weights));
    // Paths begin where the flow's samples are.
    assert_eq!(bits(&tuned.log_probs), bits(&small.log_probs[..300]));
    let summary = tuned.summary.unwrap().weights.unwrap();
    assert!((summary.log_z - 7.924214).abs() < 4.0 * summary.log_z_standard_error, "{summary:?}");

    // Time that is over ends them between two evaluations, in the pilot and on the way: here there are two million of these.
    for step_sizes in [Vec::new(), vec![0.1]] {
        let is_tuned = step_sizes.is_empty();
        let mut long = annealed(0, 0, 0, step_sizes);
        long.annealed =
            Some(v1::AnnealedPaths { distributions: 1, moves: 1, leapfrog_steps: 1024, ..long.annealed.unwrap() });
        long.max_duration = Some(prost_types::Duration { seconds: 0, nanos: 20_000_000 });
        let begin = Instant::now();
        match clients.sample(long).await {
            Err(status) => assert!(is_tuned && reason(&status) == "OUT_OF_TIME", "{status:?}"),
            Ok(samples) => {
                assert!(!is_tuned);
                assert_eq!(samples.summary.unwrap().stop_cause(), v1::StopCause::MaxDuration);
            }
        }
        assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    }

    // The same samples in other clothes.
    let clothes = |change: fn(&mut v1::StreamSamplesRequest)| {
        let mut request = request(0, 300, 0);
        change(&mut request);
        request
    };
    let values = clothes(|r| r.encoding = v1::ArrayEncoding::Values.into());
    assert_eq!(bits(&clients.sample(values).await.unwrap().positions), bits(&small.positions[..600]));
    let single = clothes(|r| r.position_dtype = v1::DataType::Float32.into());
    let single = clients.sample(single).await.unwrap();
    assert!(single.positions.iter().zip(&small.positions).all(|(a, b)| *a == f64::from(*b as f32)));
    let latent = clothes(|r| r.representation = v1::Representation::Latent.into());
    let latent = clients.sample(latent).await.unwrap();
    assert_eq!(latent.positions.len(), 600);
    let forces = clients.sample(clothes(|r| r.include_forces = true)).await.unwrap();
    for (x, f) in forces.positions.chunks(2).zip(forces.forces.chunks(2)) {
        let expected = [-(4.0 * x[0].powi(3) - 12.0 * x[0] + 1.0), -x[1]];
        assert!((f[0] - expected[0]).abs() < 1e-9 * (1.0 + expected[0].abs()) && f[1] == expected[1]);
    }

    // Other ways to stop.
    let target = clothes(|r| (r.count, r.target_effective_samples) = (0, 50.0));
    let summary = clients.sample(target).await.unwrap().summary.unwrap();
    assert_eq!(summary.stop_cause(), v1::StopCause::TargetReached);
    assert!(summary.weights.unwrap().effective_samples >= 50.0);
    let brief = clothes(|r| {
        r.count = 0;
        r.max_duration = Some(prost_types::Duration { seconds: 0, nanos: 200_000_000 });
    });
    let summary = clients.sample(brief).await.unwrap().summary.unwrap();
    assert_eq!(summary.stop_cause(), v1::StopCause::MaxDuration);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_stops_the_computation_and_too_many_are_told_to_wait() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path());
    settings.limits.streams = 1;
    let server = TestServer::start(settings).await;
    let mut clients = server.clients().await;
    let model = clients.train(small_task(10)).await;
    let request =
        v1::StreamSamplesRequest { model, count: 1 << 39, batch_size: 20_000, ..v1::StreamSamplesRequest::default() };
    let mut stream = clients.sampling.stream_samples(request.clone()).await.unwrap().into_inner();
    for _ in 0..3 {
        stream.message().await.unwrap();
    }
    let drawn = async || {
        let (_, text) = http_get(server.admin, "/metrics").await;
        let lines = text.lines().filter(|l| l.starts_with("boltzflow_samples_total"));
        lines.map(|l| l.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum::<f64>()
    };
    // Once the windows of HTTP/2 are full nothing more is drawn.
    let mut before = drawn().await;
    let begin = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = drawn().await;
        if now == before {
            break;
        }
        before = now;
        assert!(begin.elapsed() < Duration::from_secs(30), "a stalled stream goes on drawing");
    }
    assert!(before < 1e6, "{before} samples were drawn for a reader that took 40,000");

    let refused = clients.sample(request.clone()).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "TOO_MANY_STREAMS"));
    let retry = tonic_types::StatusExt::get_details_retry_info(&refused).unwrap();
    assert!(retry.retry_delay.unwrap() > Duration::ZERO);
    // A reader that goes away makes room.
    drop(stream);
    let begin = Instant::now();
    let short = v1::StreamSamplesRequest { count: 10, ..request };
    while clients.sample(short.clone()).await.is_err() {
        assert!(begin.elapsed() < Duration::from_secs(10), "the stream of a lost client is still open");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    server.stop().await;
}

/// A reader of one model shares batches with another and leaves, while others read a second model: all get what they get
/// alone, and nothing more is drawn for who has left.
#[tokio::test(flavor = "multi_thread")]
async fn company_that_leaves_takes_nobody_along() {
    let (_folder, server, mut clients) = fresh().await;
    let (first, second) = (clients.train(small_task(10)).await, clients.train(small_task(20)).await);
    let request = |model: &String, count| v1::StreamSamplesRequest {
        model: model.clone(),
        method: v1::SamplingMethod::Reweighting.into(),
        count,
        batch_size: 5_000,
        ..v1::StreamSamplesRequest::default()
    };
    let alone = [&first, &second].map(|model| (clients.clone(), request(model, 100_000)));
    let [alone_first, alone_second] = alone.map(|(mut clients, request)| async move { clients.sample(request).await });
    let (alone_first, alone_second) = (alone_first.await.unwrap(), alone_second.await.unwrap());

    let mut leaver = clients.sampling.stream_samples(request(&first, 1 << 39)).await.unwrap().into_inner();
    let begin = Instant::now();
    let leaves = async {
        for _ in 0..10 {
            leaver.message().await.unwrap().unwrap();
        }
        drop(leaver);
    };
    let (mut a, mut b) = (clients.clone(), clients.clone());
    let ((), in_company, elsewhere) =
        tokio::join!(leaves, a.sample(request(&first, 100_000)), b.sample(request(&second, 100_000)));
    assert_eq!(in_company.unwrap().positions, alone_first.positions);
    assert_eq!(elsewhere.unwrap().positions, alone_second.positions);
    assert!(begin.elapsed() < Duration::from_secs(60), "two readers waited for one that went away");
    let drawn = async || {
        let (_, text) = http_get(server.admin, "/metrics").await;
        let lines = text.lines().filter(|l| l.starts_with("boltzflow_batch_rows_sum"));
        lines.map(|l| l.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum::<f64>()
    };
    let mut before = drawn().await;
    assert!(before >= 400_000.0, "{before}");
    let begin = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = drawn().await;
        if now == before {
            break;
        }
        before = now;
        assert!(begin.elapsed() < Duration::from_secs(20), "samples are drawn for a reader that has left");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_sleeps_loses_its_place_and_is_told_where_to_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path());
    settings.limits.streams = 1;
    settings.limits.stall = Duration::from_millis(300);
    let server = TestServer::start(settings).await;
    let mut clients = server.clients().await;
    let model = clients.train(small_task(10)).await;
    let request = |first_index, count| v1::StreamSamplesRequest {
        model: model.clone(),
        first_index,
        count,
        batch_size: 20_000,
        ..v1::StreamSamplesRequest::default()
    };
    let mut stream = clients.sampling.stream_samples(request(0, 1 << 39)).await.unwrap().into_inner();
    let mut received = Samples::default();
    received.add(stream.message().await.unwrap().unwrap());
    // It reads nothing more; there is room for others in the end.
    let begin = Instant::now();
    while clients.sample(request(0, 10)).await.is_err() {
        assert!(begin.elapsed() < Duration::from_secs(30), "a sleeping reader keeps its place");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (ended, _) = received.until_broken(&mut stream).await;
    assert_eq!((ended.code(), reason(&ended).as_str()), (Code::Aborted, "STREAM_STALLED"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn create_calls_are_safe_to_repeat() {
    let (_folder, server, mut clients) = fresh().await;
    // Labels have no order of their own: the same request must be known whatever order they are sent in.
    let request = |id: &str, steps| {
        let mut request = v1::CreateJobRequest { request_id: id.into(), ..job_request(small_task(steps)) };
        request.job.as_mut().unwrap().labels = (0..8).map(|i| (format!("key-{i}"), i.to_string())).collect();
        request
    };
    let first = clients.jobs.create_job(request("a", 10)).await.unwrap().into_inner();
    let again = clients.jobs.create_job(request("a", 10)).await.unwrap().into_inner();
    assert_eq!(first.name, again.name);
    let misuse = clients.jobs.create_job(request("a", 11)).await.unwrap_err();
    assert_eq!((misuse.code(), reason(&misuse).as_str()), (Code::AlreadyExists, "REQUEST_ID_REUSED"));

    let system = |scale: f64, request_id: &str| v1::CreateSystemRequest {
        system: Some(v1::System {
            definition: Some(v1::system::Definition::Analytic(v1::AnalyticPotential {
                potential: Some(v1::analytic_potential::Potential::MullerBrown(v1::analytic_potential::MullerBrown {
                    scale: Some(scale),
                    dimension: 0,
                })),
            })),
            ..v1::System::default()
        }),
        request_id: request_id.into(),
        ..v1::CreateSystemRequest::default()
    };
    // A schedule that nobody wrote is fitted to the budget.
    let task = v1::TrainingTask {
        system: "systems/double-well".into(),
        budget: Some(v1::Budget { steps: 30, ..v1::Budget::default() }),
        recipe: "reverse-kl".into(),
        ..v1::TrainingTask::default()
    };
    let fitted = v1::CreateJobRequest { validate_only: true, ..job_request(task) };
    let fitted = clients.jobs.create_job(fitted).await.unwrap().into_inner();
    let Some(v1::job::Task::Training(task)) = fitted.task else { panic!("no training task") };
    assert_eq!(task.stages.iter().map(|s| s.steps).collect::<Vec<_>>(), [15, 15]);
    // What is answered, sent again, is the same plan.
    let mut all = small_task(10);
    all.temperature_range = Some(v1::TemperatureRange { low: 0.5, high: 2.0 });
    all.weight_average = -1.0;
    all.patience = 3;
    all.recipe = "annealing".into();
    all.stages[0].log_variance = Some(v1::Ramp { start: 0.5, end: 0.25, shape: v1::RampShape::Linear.into() });
    all.stages[0].temperature_gradient = Some(v1::Ramp { start: 0.0, end: 1.0, shape: v1::RampShape::Linear.into() });
    all.stages[0].coordinate_entropy = Some(v1::Ramp { start: 2.0, end: 0.0, shape: v1::RampShape::Cosine.into() });
    let variable = v1::collective_variable::Linear { coefficients: vec![0.1, -0.7] };
    let variable = v1::collective_variable::Variable::Linear(variable);
    let variable = Some(v1::CollectiveVariable { variable: Some(variable) });
    all.collective_variable = Some(v1::VariableRange { variable, low: -2.0, high: 2.0 });
    let (stage, variable) = (all.stages[0], all.collective_variable.clone());
    let annealing = v1::Annealing { distributions: 5, moves: 2, leapfrog_steps: 3, step_size: 0.01 };
    all.stages[0].replay = Some(v1::Replay { every: 3, annealing: Some(annealing), ..v1::Replay::default() });
    let wide = v1::Replay { batches: 2, wide_share: 0.3, ..v1::Replay::default() };
    all.stages.push(v1::TrainingStage { replay: Some(wide), ..stage });
    let architecture = all.architecture.get_or_insert_default();
    architecture.mixing = v1::Mixing::Lu.into();
    architecture.kind = v1::FlowKind::AffineSpline.into();
    let answered = async |clients: &mut Clients, task| {
        let request = v1::CreateJobRequest { validate_only: true, ..job_request(task) };
        match clients.jobs.create_job(request).await.unwrap().into_inner().task {
            Some(v1::job::Task::Training(task)) => task,
            other => panic!("no training task: {other:?}"),
        }
    };
    let first = answered(&mut clients, all).await;
    assert_eq!((first.weight_average, first.patience, first.recipe.as_str()), (-1.0, 3, "annealing"));
    assert_eq!(
        (&first.stages[0].log_variance, &first.stages[0].coordinate_entropy),
        (&stage.log_variance, &stage.coordinate_entropy)
    );
    assert_eq!(
        (&first.stages[0].temperature_gradient, &first.collective_variable),
        (&stage.temperature_gradient, &variable)
    );
    assert_eq!(first.stages[1].replay.map(|replay| (replay.batches, replay.wide_share)), Some((2, 0.3)));
    assert_eq!(answered(&mut clients, first.clone()).await, first);
    let absent = clients.jobs.get_job(v1::GetJobRequest { name: fitted.name }).await.unwrap_err();
    assert_eq!(absent.code(), Code::NotFound);

    let a = clients.systems.create_system(system(0.2, "x")).await.unwrap().into_inner();
    let b = clients.systems.create_system(system(0.2, "x")).await.unwrap().into_inner();
    assert_eq!(a, b);
    assert_eq!(clients.systems.create_system(system(0.3, "x")).await.unwrap_err().code(), Code::AlreadyExists);
    let only = v1::CreateSystemRequest { validate_only: true, ..system(0.2, "") };
    let validated = clients.systems.create_system(only).await.unwrap().into_inner();
    let request = v1::GetSystemRequest { name: validated.name, full: false };
    assert_eq!(clients.systems.get_system(request).await.unwrap_err().code(), Code::NotFound);

    // Pages: one by one gives the same list as all at once.
    let all = clients.systems.list_systems(v1::ListSystemsRequest::default()).await.unwrap().into_inner();
    let mut paged = Vec::new();
    let mut page_token = String::new();
    for _ in 0..20 {
        let request = v1::ListSystemsRequest { page_size: 1, page_token };
        let page = clients.systems.list_systems(request).await.unwrap().into_inner();
        paged.extend(page.systems);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(all.systems, paged);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_come_back_as_they_were_sent_and_are_trained_on() {
    let (_folder, server, mut clients) = fresh().await;
    let frames: Vec<f64> =
        (0..500).flat_map(|i| [-1.7 + 0.001 * f64::from(i % 100), 0.01 * f64::from(i - 250)]).collect();
    let chunk = |frames: &[f64]| {
        let shape = [frames.len() / 2, 2];
        let array =
            boltzflow::contract::array(frames.to_vec(), &shape, v1::DataType::Float64, v1::ArrayEncoding::Bytes);
        v1::UploadDatasetRequest { part: Some(Upload::Frames(v1::FrameChunk { positions: Some(array) })) }
    };
    let header = |id: &str, temperature: f64| {
        let dataset = v1::Dataset { system: "systems/double-well".into(), temperature, ..v1::Dataset::default() };
        let header = v1::UploadHeader { dataset: Some(dataset), dataset_id: id.into(), request_id: String::new() };
        v1::UploadDatasetRequest { part: Some(Upload::Header(header)) }
    };
    let uploads = clients.datasets.clone();
    let send = |messages: Vec<v1::UploadDatasetRequest>| {
        let mut datasets = uploads.clone();
        async move { datasets.upload_dataset(tokio_stream::iter(messages)).await }
    };
    let sent = send(vec![header("wells", 1.0), chunk(&frames[..300]), chunk(&frames[300..])]).await;
    let dataset = sent.unwrap().into_inner();
    assert_eq!((dataset.frames, dataset.name.as_str()), (500, "datasets/wells"));
    let u = |x: f64, y: f64| x.powi(4) - 6.0 * x * x + x + 0.5 * y * y;
    let mean = frames.chunks(2).map(|f| u(f[0], f[1])).sum::<f64>() / 500.0;
    assert!((dataset.energy_mean - mean).abs() < 1e-9);

    let request = v1::DownloadDatasetRequest {
        name: dataset.name.clone(),
        first_frame: 100,
        count: 150,
        ..v1::DownloadDatasetRequest::default()
    };
    let mut stream = clients.datasets.download_dataset(request).await.unwrap().into_inner();
    let mut back = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        back.extend(numbers("positions", &message.positions.unwrap()).unwrap().0);
    }
    assert_eq!(back, frames[200..500]);

    // What is wrong is refused, and leaves nothing behind.
    let mut with_nan = frames[..20].to_vec();
    with_nan[7] = f64::NAN;
    let shape3 =
        boltzflow::contract::array(frames[..21].to_vec(), &[7, 3], v1::DataType::Float64, v1::ArrayEncoding::Bytes);
    let shape3 = v1::UploadDatasetRequest { part: Some(Upload::Frames(v1::FrameChunk { positions: Some(shape3) })) };
    for (messages, word) in [
        (vec![header("bad", 1.0), chunk(&with_nan)], "frame 3"),
        (vec![header("bad", 1.0), shape3], "frames.positions"),
        (vec![header("bad", 1.0)], "none"),
        (vec![chunk(&frames)], "header"),
        (vec![header("bad", f64::NAN), chunk(&frames)], "temperature"),
        (vec![header("BAD", 1.0), chunk(&frames)], "dataset_id"),
        (vec![header("bad", 1.0), header("bad", 1.0)], "frames"),
    ] {
        let refused = send(messages).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
        assert!(refused.message().contains(word), "{}", refused.message());
        assert_eq!(reason(&refused), "INVALID_FIELD");
    }
    // The same request id with the same frames is the same dataset, with others it is refused. Energies whose sum is out
    // of range have a mean.
    let huge = [1.1e77, 0.0, -1.1e77, 0.0];
    let keyed = |frames: &[f64]| {
        let Some(Upload::Header(header)) = header("far", 1.0).part else { panic!("no header") };
        let header = v1::UploadHeader { dataset_id: String::new(), request_id: "once".into(), ..header };
        vec![v1::UploadDatasetRequest { part: Some(Upload::Header(header)) }, chunk(frames)]
    };
    let first = send(keyed(&huge)).await.unwrap().into_inner();
    assert!(first.energy_mean.is_finite() && first.energy_mean > 1e308);
    assert_eq!(send(keyed(&huge)).await.unwrap().into_inner(), first);
    let misuse = send(keyed(&frames[..8])).await.unwrap_err();
    assert_eq!((misuse.code(), reason(&misuse).as_str()), (Code::AlreadyExists, "REQUEST_ID_REUSED"));
    let listed = clients.datasets.list_datasets(v1::ListDatasetsRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.datasets.len(), 2);
    clients.datasets.delete_dataset(v1::DeleteDatasetRequest { name: first.name }).await.unwrap();

    let missing = v1::GetDatasetRequest { name: "datasets/bad".into() };
    assert_eq!(clients.datasets.get_dataset(missing).await.unwrap_err().code(), Code::NotFound);

    let mut task = small_task(40);
    task.dataset = dataset.name.clone();
    task.stages[0].maximum_likelihood = Some(v1::Ramp { start: 1.0, end: 0.5, shape: 0 });
    let job = clients.create(task).await;
    let needed = v1::DeleteDatasetRequest { name: dataset.name.clone() };
    let in_use = clients.datasets.delete_dataset(needed.clone()).await;
    let job = clients.finish(&job.name).await;
    assert_eq!(job.state(), v1::JobState::Succeeded, "{:?}", job.error);
    let progress = job.progress.unwrap();
    assert!(progress.maximum_likelihood.is_some() && progress.held_out_log_prob.is_some());
    // The job may have been over by the time of the first try.
    if let Err(status) = in_use {
        assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "RESOURCE_IN_USE"));
        clients.datasets.delete_dataset(needed).await.unwrap();
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn models_travel_and_damaged_ones_do_not_arrive() {
    use v1::import_model_request::Part;
    let (folder, server, mut clients) = fresh().await;
    let model = clients.train(small_task(10)).await;
    let file = clients.export(&model).await;
    let imports = clients.models.clone();
    let import = |id: &str, file: &[u8]| {
        let header = v1::ImportHeader { model_id: id.into(), request_id: String::new() };
        let mut messages = vec![v1::ImportModelRequest { part: Some(Part::Header(header)) }];
        let data = file.chunks(5000).map(|c| v1::ImportModelRequest { part: Some(Part::Data(c.to_vec())) });
        messages.extend(data);
        let mut models = imports.clone();
        async move { models.import_model(tokio_stream::iter(messages)).await }
    };
    let imported = import("twin", &file).await.unwrap().into_inner();
    assert_eq!(imported.name, "models/twin");
    let request = |model: &str| v1::StreamSamplesRequest {
        model: model.into(),
        count: 700,
        seed: 3,
        ..v1::StreamSamplesRequest::default()
    };
    let ours = clients.sample(request(&model)).await.unwrap();
    let twins = clients.sample(request("models/twin")).await.unwrap();
    assert_eq!(ours.positions, twins.positions);
    assert_eq!(ours.log_weights, twins.log_weights);

    let mut flipped = file.clone();
    flipped[12] ^= 0xff;
    let header_end = 8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    for damaged in [&file[..file.len() - 1], &file[..header_end / 2], &file[..4], &flipped[..], b"", &[0xff; 64]] {
        let refused = import("broken", damaged).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::DataLoss, "DAMAGED_ARTIFACT"));
    }
    // A card that cannot be true, in a file that is whole.
    let text = b"\\\"temperature\\\":1.0";
    let at = file.windows(text.len()).rposition(|w| w == text).unwrap();
    let mut frozen = file.clone();
    frozen[at + text.len() - 3] = b'0';
    let refused = import("broken", &frozen).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::DataLoss, "DAMAGED_ARTIFACT"));
    assert!(refused.message().contains("temperature 0"), "{}", refused.message());
    // The name of a model that a job will make is taken already.
    let promise = v1::TrainingTask { model_id: "promised".into(), ..small_task(1_000_000) };
    let promise = clients.create(promise).await.name;
    let taken = import("promised", &file).await.unwrap_err();
    assert_eq!((taken.code(), reason(&taken).as_str()), (Code::AlreadyExists, "RESOURCE_EXISTS"));
    clients.jobs.cancel_job(v1::CancelJobRequest { name: promise }).await.unwrap();
    // Nothing of all that was kept.
    let mut kept: Vec<_> = std::fs::read_dir(folder.path().join("artifacts/models")).unwrap().collect();
    kept.retain(|entry| std::fs::read_dir(entry.as_ref().unwrap().path()).unwrap().next().is_some());
    assert_eq!(kept.len(), 2, "{kept:?}");

    let missing = v1::GetModelRequest { name: "models/broken".into() };
    assert_eq!(clients.models.get_model(missing).await.unwrap_err().code(), Code::NotFound);
    let taken = import("twin", &file).await.unwrap_err();
    assert_eq!((taken.code(), reason(&taken).as_str()), (Code::AlreadyExists, "RESOURCE_EXISTS"));
    clients.models.delete_model(v1::DeleteModelRequest { name: "models/twin".into() }).await.unwrap();
    assert_eq!(clients.sample(request("models/twin")).await.unwrap_err().code(), Code::NotFound);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_job_stops_within_a_second_of_being_cancelled() {
    let (_folder, server, mut clients) = fresh().await;
    let running = clients.create(small_task(1_000_000)).await;
    let waiting = clients.create(small_task(1_000_000)).await;
    clients.wait_for_step(&running.name, 10).await;
    let cancel = |name: &str| v1::CancelJobRequest { name: name.to_string() };
    let job = clients.jobs.cancel_job(cancel(&waiting.name)).await.unwrap().into_inner();
    assert_eq!(job.state(), v1::JobState::Cancelled);
    let delete = v1::DeleteJobRequest { name: running.name.clone() };
    let refused = clients.jobs.delete_job(delete.clone()).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "JOB_NOT_FINISHED"));
    let begin = Instant::now();
    clients.jobs.cancel_job(cancel(&running.name)).await.unwrap();
    let job = clients.finish(&running.name).await;
    assert!(begin.elapsed() < Duration::from_secs(1), "it took {:?}", begin.elapsed());
    assert_eq!(job.state(), v1::JobState::Cancelled);
    clients.jobs.delete_job(delete).await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_reflection_and_metrics_are_there() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let (_folder, server, mut clients) = fresh().await;
    clients.train(small_task(10)).await;
    let mut health = HealthClient::new(clients.channel.clone());
    for service in ["", "boltzflow.v1.SamplingService", "boltzflow.v1.JobService"] {
        let answer = health.check(HealthCheckRequest { service: service.into() }).await.unwrap().into_inner();
        assert_eq!(answer.status, 1, "{service} is not serving");
    }
    let services = {
        use tonic_reflection::pb::v1::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let request = ServerReflectionRequest {
            message_request: Some(MessageRequest::ListServices(String::new())),
            ..ServerReflectionRequest::default()
        };
        let mut client = ServerReflectionClient::new(clients.channel.clone());
        let stream = client.server_reflection_info(tokio_stream::once(request)).await.unwrap();
        let answer = stream.into_inner().message().await.unwrap().unwrap();
        let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else { panic!("{answer:?}") };
        list.service.into_iter().map(|s| s.name).collect::<Vec<_>>()
    };
    let older = {
        use tonic_reflection::pb::v1alpha::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let request = ServerReflectionRequest {
            message_request: Some(MessageRequest::FileContainingSymbol("grpc.health.v1.Health".into())),
            ..ServerReflectionRequest::default()
        };
        let mut client = ServerReflectionClient::new(clients.channel.clone());
        let stream = client.server_reflection_info(tokio_stream::once(request)).await.unwrap();
        let answer = stream.into_inner().message().await.unwrap().unwrap();
        matches!(answer.message_response, Some(MessageResponse::FileDescriptorResponse(_)))
    };
    assert!(older, "the older reflection does not know the health service");
    for name in
        ["SystemService", "DatasetService", "JobService", "ModelService", "SamplingService", "FreeEnergyService"]
    {
        assert!(services.contains(&format!("boltzflow.v1.{name}")), "{services:?}");
    }
    assert_eq!(http_get(server.admin, "/livez").await.0, 200);
    assert_eq!(http_get(server.admin, "/readyz").await.0, 200);
    let (_, metrics) = http_get(server.admin, "/metrics").await;
    for line in [
        "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"CreateJob\"",
        "boltzflow_jobs{state=\"SUCCEEDED\"} 1",
        "boltzflow_train_steps_total 10",
        "boltzflow_build_info",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    server.stop().await;
}

/// Streams that share batches get what they would have got alone.
#[tokio::test(flavor = "multi_thread")]
async fn streams_that_share_batches_do_not_notice() {
    let (_folder, server, mut clients) = fresh().await;
    let model = clients.train(small_task(20)).await;
    let request = |i: u64| v1::StreamSamplesRequest {
        model: model.clone(),
        temperature: [0.7, 1.0, 1.5][i as usize % 3],
        method: v1::SamplingMethod::LatentScaling.into(),
        seed: i,
        first_index: 1000 * i,
        count: 50_000 + 37 * i,
        batch_size: 1000 + i as u32,
        ..v1::StreamSamplesRequest::default()
    };
    let mut alone = Vec::new();
    for i in 0..16 {
        alone.push(clients.sample(request(i)).await.unwrap());
    }
    let together = (0..16).map(|i| {
        let (mut clients, request) = (clients.clone(), request(i));
        tokio::spawn(async move { clients.sample(request).await.unwrap() })
    });
    for (together, alone) in futures::future::join_all(together).await.into_iter().zip(alone) {
        let together = together.unwrap();
        assert_eq!(together.positions, alone.positions);
        assert_eq!(together.log_weights, alone.log_weights);
    }
    let (_, metrics) = http_get(server.admin, "/metrics").await;
    let value = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let (requests, batches) = (value("boltzflow_batch_requests_sum"), value("boltzflow_batch_requests_count"));
    assert!(requests > batches, "{requests} requests were computed in {batches} batches: none was shared");
    server.stop().await;
}

/// Whoever wants one sample waits for a turn of the device, not for those who want all: some 20 ms, here with room for a
/// slow machine. Training gives way as well.
#[tokio::test(flavor = "multi_thread")]
async fn one_sample_does_not_wait_for_many() {
    let (_folder, server, mut clients) = fresh().await;
    let model = clients.train(small_task(20)).await;
    let job = clients.create(small_task(1_000_000)).await;
    clients.wait_for_step(&job.name, 1).await;
    // More than will ever come, in messages that are cut where they would be too long.
    let all = v1::StreamSamplesRequest {
        model: model.clone(),
        method: v1::SamplingMethod::Reweighting.into(),
        count: 1 << 39,
        batch_size: 1_000_000,
        ..v1::StreamSamplesRequest::default()
    };
    let mut reader = clients.clone();
    let done = tokio_util::sync::CancellationToken::new();
    let stop = done.clone();
    let many = tokio::spawn(async move {
        let mut stream = reader.sampling.stream_samples(all).await.unwrap().into_inner();
        let (mut longest, mut samples) = (0, 0);
        while let Some(message) = stream.message().await.unwrap()
            && !(stop.is_cancelled() && samples > 1_000_000)
        {
            if let Some(v1::stream_samples_response::Part::Batch(batch)) = message.part {
                longest = longest.max(batch.positions.unwrap().data.len());
                samples = batch.samples;
            }
        }
        (longest, samples)
    });
    let method = v1::SamplingMethod::Reweighting.into();
    let one = v1::StreamSamplesRequest { model, method, count: 1, ..v1::StreamSamplesRequest::default() };
    let mut waits = Vec::new();
    for _ in 0..20 {
        let begin = Instant::now();
        clients.sample(one.clone()).await.unwrap();
        waits.push(begin.elapsed());
    }
    waits.sort();
    assert!(waits[10] < Duration::from_millis(250), "one sample took {:?}", waits[10]);
    assert!(!many.is_finished());
    done.cancel();
    let (longest, samples) = many.await.unwrap();
    assert!(samples > 1_000_000 && longest <= 16 << 20, "{samples} samples, in messages of up to {longest} bytes");
    clients.jobs.cancel_job(v1::CancelJobRequest { name: job.name }).await.unwrap();
    server.stop().await;
}
