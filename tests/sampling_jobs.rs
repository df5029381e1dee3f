//! Samples that the server keeps, and densities of configurations that a client sends: both are those of the streams.

mod common;
mod npz;

use boltzflow::contract::v1::{self, SamplingMethod as Method, job::Task};
use common::*;
use std::time::{Duration, Instant};
use tonic::{Code, Status};

fn bits(numbers: &[f64]) -> Vec<u64> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

fn numbers(array: Option<v1::Array>) -> Vec<f64> {
    boltzflow::contract::numbers("array", &array.unwrap()).unwrap().0
}

async fn log_prob(
    c: &mut Clients,
    model: &str,
    temperature: f64,
    method: Method,
    (positions, shape): (&[f64], &[usize]),
) -> Result<v1::EvaluateLogProbResponse, Status> {
    let array = boltzflow::contract::array(positions.to_vec(), shape, v1::DataType::Float64, v1::ArrayEncoding::Bytes);
    let request = v1::EvaluateLogProbRequest {
        model: model.into(),
        temperature,
        method: method.into(),
        positions: Some(array),
        ..v1::EvaluateLogProbRequest::default()
    };
    Ok(c.models.evaluate_log_prob(request).await?.into_inner())
}

fn near(a: &[f64], b: &[f64], error: f64) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= error * (1.0 + b.abs()), "{a} is not {b}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stream_says_of_its_samples_comes_back() {
    let (folder, server, mut c) = fresh().await;
    let plain = c.train(small_task(40)).await;
    let mut ranged = small_task(10);
    ranged.temperature_range = Some(v1::TemperatureRange { low: 0.7, high: 2.0 });
    let ranged = c.train(ranged).await;
    for (model, temperature, method) in [
        (&plain, 0.0, Method::Auto),
        (&plain, 1.4, Method::Auto),
        (&plain, 1.4, Method::Reweighting),
        (&plain, 0.6, Method::LatentScaling),
        (&ranged, 1.4, Method::Auto),
        (&ranged, 3.0, Method::Conditioned),
    ] {
        // The best of importance sampling, where a stream might do more.
        let known = log_prob(&mut c, model, temperature, method, (&[1.0, 2.0], &[1, 2])).await.unwrap().method();
        let request = v1::StreamSamplesRequest {
            model: model.clone(),
            temperature,
            method: known.into(),
            seed: 3,
            count: 1500,
            ..v1::StreamSamplesRequest::default()
        };
        let samples = c.sample(request).await.unwrap();
        let answer = log_prob(&mut c, model, temperature, method, (&samples.positions, &[1500, 2])).await.unwrap();
        let header = samples.header.unwrap();
        assert_eq!((answer.method(), answer.temperature), (header.method(), header.temperature));
        assert_eq!((answer.model_digest, answer.precision), (header.model_digest, header.precision));
        near(&numbers(answer.log_probs), &samples.log_probs, 1e-9);
        near(&numbers(answer.reduced_energies), &samples.reduced_energies, 1e-12);
        near(&numbers(answer.log_weights), &samples.log_weights, 1e-9);
    }

    let one: (&[f64], &[usize]) = (&[1.0, 2.0], &[1, 2]);
    for (model, temperature, method, positions, code, word) in [
        ("models/none", 0.0, Method::Auto, one, Code::NotFound, "none"),
        (&plain, f64::NAN, Method::Auto, one, Code::InvalidArgument, "temperature"),
        (&plain, 1e9, Method::Auto, one, Code::InvalidArgument, "temperature"),
        (&plain, 2.0, Method::Annealed, one, Code::InvalidArgument, "ANNEALED"),
        (&plain, 2.0, Method::Conditioned, one, Code::InvalidArgument, "method"),
        (&plain, 0.0, Method::Auto, (&[1.0, f64::INFINITY], &[1, 2]), Code::InvalidArgument, "finite"),
        (&plain, 0.0, Method::Auto, (&[1.0, 2.0, 3.0], &[1, 3]), Code::InvalidArgument, "positions"),
    ] {
        let refused = log_prob(&mut c, model, temperature, method, positions).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
        assert!(refused.message().contains(word), "{refused}");
    }

    // The command, of a file.
    let (samples, densities) = (folder.path().join("s.npz"), folder.path().join("p.npz"));
    let server_url = format!("http://{}", server.address);
    let run = async |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_boltzflow"));
        command.args(arguments).env("BOLTZFLOW_SERVER", &server_url);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let (s, p) = (samples.to_string_lossy(), densities.to_string_lossy());
    run(&["sample", &plain, "--temperature", "1.4", "--method", "reweighting", "--count", "500", "-o", &s]).await;
    run(&["log-prob", &plain, &s, "--temperature", "1.4", "--method", "reweighting", "-o", &p]).await;
    let column = |path, name| npz::read::<f64>(path, name);
    near(&column(&densities, "log_probs"), &column(&samples, "log_probs"), 1e-9);
    near(&column(&densities, "log_weights"), &column(&samples, "log_weights"), 1e-9);
    server.stop().await;
}

/// The mirror image of a molecule is nothing that its flow makes.
#[tokio::test(flavor = "multi_thread")]
async fn there_is_no_density_outside_of_the_support() {
    let (_folder, server, mut c) = fresh().await;
    let text = |file: &str| std::fs::read_to_string(test_data("openmm/alanine-dipeptide-vacuum").join(file)).unwrap();
    let openmm = v1::OpenMmSystem { system_xml: text("system.xml"), topology_pdb: text("topology.pdb") };
    let system = v1::System { definition: Some(v1::system::Definition::Openmm(openmm)), ..v1::System::default() };
    let create = v1::CreateSystemRequest { system: Some(system), ..v1::CreateSystemRequest::default() };
    let system = c.systems.create_system(create).await.unwrap().into_inner().name;
    let mut task = v1::TrainingTask { system, ..small_task(2) };
    task.stages[0].batch = 16;
    let model = c.train(task).await;
    let request = v1::StreamSamplesRequest { model: model.clone(), count: 64, ..v1::StreamSamplesRequest::default() };
    let samples = c.sample(request).await.unwrap();
    let rows = samples.positions.chunks(66).zip(&samples.log_probs).filter(|(_, log_p)| log_p.is_finite());
    let (x, log_probs): (Vec<&[f64]>, Vec<f64>) = rows.unzip();
    let (x, n) = (x.concat(), log_probs.len());
    assert!(n > 16, "{n} samples are in the domain");
    let answer = log_prob(&mut c, &model, 0.0, Method::Auto, (&x, &[n, 22, 3])).await.unwrap();
    near(&numbers(answer.log_probs), &log_probs, 1e-7);
    let mirrored: Vec<f64> = x.iter().map(|x| -x).collect();
    let answer = log_prob(&mut c, &model, 0.0, Method::Auto, (&mirrored, &[n, 22, 3])).await.unwrap();
    assert!(numbers(answer.log_probs).iter().all(|log_p| *log_p == f64::NEG_INFINITY));
    let energies = numbers(answer.reduced_energies);
    for (log_w, u) in numbers(answer.log_weights).iter().zip(energies) {
        assert!(*log_w == f64::INFINITY || !u.is_finite(), "{log_w} at {u}");
    }
    server.stop().await;
}

fn request(task: v1::SamplingTask) -> v1::CreateJobRequest {
    let job = v1::Job { task: Some(Task::Sampling(task)), ..v1::Job::default() };
    v1::CreateJobRequest { job: Some(job), ..v1::CreateJobRequest::default() }
}

fn task(model: &str, count: u64) -> v1::SamplingTask {
    v1::SamplingTask { model: model.into(), count, seed: 9, ..v1::SamplingTask::default() }
}

fn stream(task: &v1::SamplingTask) -> v1::StreamSamplesRequest {
    v1::StreamSamplesRequest {
        model: task.model.clone(),
        temperature: task.temperature,
        method: task.method,
        seed: task.seed,
        first_index: task.first_index,
        count: task.count,
        target_effective_samples: task.target_effective_samples,
        ..v1::StreamSamplesRequest::default()
    }
}

async fn kept(c: &mut Clients, task: v1::SamplingTask) -> v1::Job {
    let job = c.jobs.create_job(request(task)).await.unwrap().into_inner();
    c.finish(&job.name).await
}

/// Positions, log weights, reduced energies and log p of a dataset, from a frame on.
async fn frames(c: &mut Clients, name: &str, first_frame: u64) -> [Vec<f64>; 4] {
    let request = v1::DownloadDatasetRequest {
        name: name.into(),
        first_frame: first_frame as i64,
        ..v1::DownloadDatasetRequest::default()
    };
    let mut stream = c.datasets.download_dataset(request).await.unwrap().into_inner();
    let mut all = <[Vec<f64>; 4]>::default();
    while let Some(m) = stream.message().await.unwrap() {
        assert!(m.temperatures.is_none() && m.energies.is_none());
        for (to, array) in all.iter_mut().zip([m.positions, m.log_weights, m.reduced_energies, m.log_probs]) {
            to.extend(numbers(array));
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_keeps_what_a_stream_gives() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path());
    settings.limits.dataset_bytes = 40 * 60_000;
    let server = TestServer::start(settings).await;
    let mut c = server.clients().await;
    let model = c.train(small_task(40)).await;
    let warm = v1::SamplingTask { temperature: 1.3, first_index: 77, ..task(&model, 5000) };
    // A target is looked at where a stream looks at it; without a count there are as many as may be kept.
    let aimed = v1::SamplingTask { target_effective_samples: 2500.0, ..task(&model, 0) };
    let unreachable = v1::SamplingTask { target_effective_samples: 1e9, ..task(&model, 0) };
    for (task, warned) in [(warm, false), (aimed, false), (unreachable, true)] {
        let job = kept(&mut c, task.clone()).await;
        assert_eq!(job.state(), v1::JobState::Succeeded, "{:?}", job.error);
        let dataset = v1::GetDatasetRequest { name: job.dataset.clone() };
        let dataset = c.datasets.get_dataset(dataset).await.unwrap().into_inner();
        let of = dataset.weighted.unwrap();
        let count = if warned { 60_000 } else { task.count };
        let streamed = v1::StreamSamplesRequest { count, method: of.method, ..stream(&task) };
        let streamed = c.sample(streamed).await.unwrap();
        let (header, summary) = (streamed.header.unwrap(), streamed.summary.unwrap());
        let [positions, log_weights, reduced_energies, log_probs] = frames(&mut c, &job.dataset, 0).await;
        assert_eq!(dataset.frames as usize, streamed.log_weights.len());
        assert_eq!(bits(&positions), bits(&streamed.positions));
        assert_eq!(bits(&log_weights), bits(&streamed.log_weights));
        assert_eq!(bits(&reduced_energies), bits(&streamed.reduced_energies));
        assert_eq!(bits(&log_probs), bits(&streamed.log_probs));
        assert_eq!((of.method(), of.model_digest), (header.method(), header.model_digest));
        assert_eq!((of.model, of.seed, of.first_index), (model.clone(), task.seed, task.first_index));
        assert_eq!((of.precision, dataset.temperature), (header.precision, header.temperature));
        assert_eq!(of.weights, summary.weights);
        assert_eq!((dataset.job, dataset.system.as_str()), (job.name, "systems/double-well"));
        assert_eq!(dataset.warnings.iter().any(|w| w.contains("asked for")), warned, "{:?}", dataset.warnings);
        let progress = job.sampling_progress.unwrap();
        assert_eq!((progress.samples, progress.weights), (dataset.frames, summary.weights));
    }
    let (_, metrics) = http_get(server.admin, "/metrics").await;
    assert!(metrics.contains("boltzflow_samples_total{method=\"SAMPLING_METHOD_REWEIGHTING\"}"), "{metrics}");

    // Weighted frames are nothing to train on; walkers may start from them.
    let weighted = kept(&mut c, v1::SamplingTask { dataset_id: "weighted".into(), ..task(&model, 100) }).await.dataset;
    let training = v1::TrainingTask { dataset: weighted.clone(), ..small_task(10) };
    let refused = c.jobs.create_job(job_request(training)).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, "INVALID_FIELD"));
    assert!(refused.message().contains("weighted samples of models/"), "{refused}");
    let simulation = v1::SimulationTask {
        system: "systems/double-well".into(),
        method: v1::SimulationMethod::Metropolis.into(),
        start: weighted.clone(),
        walkers: 4,
        steps: 10,
        ..v1::SimulationTask::default()
    };
    let simulation = v1::Job { task: Some(Task::Simulation(simulation)), ..v1::Job::default() };
    let simulation = v1::CreateJobRequest { job: Some(simulation), ..v1::CreateJobRequest::default() };
    let simulation = c.jobs.create_job(simulation).await.unwrap().into_inner().name;
    let simulation = c.finish(&simulation).await;
    assert_eq!(simulation.state(), v1::JobState::Succeeded, "{:?}", simulation.error);

    // A file of weighted frames is not taken for data either, and a deleted dataset leaves nothing behind.
    let path = folder.path().join("weighted.npz");
    let (file, url) = (path.to_string_lossy().into_owned(), format!("http://{}", server.address));
    for (arguments, succeeds) in [
        (vec!["datasets", "download", "weighted", "-o", &file], true),
        (vec!["datasets", "upload", &file, "--system", "double-well"], false),
        (vec!["sample", &model, "--store", "--count", "50", "--dataset-id", "stored", "--wait"], true),
    ] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_boltzflow"));
        command.args(arguments).env("BOLTZFLOW_SERVER", &url);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert_eq!(output.status.success(), succeeds, "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(npz::read::<f64>(&path, "log_weights").len(), 100);
    assert_eq!(frames(&mut c, "datasets/stored", 0).await[1].len(), 50);
    c.datasets.delete_dataset(v1::DeleteDatasetRequest { name: weighted }).await.unwrap();
    assert!(std::fs::read_dir(folder.path().join("artifacts/datasets/weighted")).is_ok_and(|mut d| d.next().is_none()));
    server.stop().await;
}

/// Stopped in order and killed, again and again: the dataset is that of a run left alone.
#[tokio::test(flavor = "multi_thread")]
async fn interruptions_leave_no_trace_in_the_samples() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Process::start(folder.path());
    let mut c = Clients::connect(&server.url).await;
    let model = c.train(small_task(10)).await;
    // Two seconds at two million samples a second, which is fast for two cores: one interruption at least at five times that.
    let count = 5_000_000;
    let long = v1::SamplingTask { temperature: 1.2, ..task(&model, count) };
    let calm = kept(&mut c, v1::SamplingTask { dataset_id: "calm".into(), ..long.clone() }).await;
    assert_eq!((calm.state(), calm.attempt), (v1::JobState::Succeeded, 1), "{:?}", calm.error);
    let stormy = v1::SamplingTask { dataset_id: "stormy".into(), ..long };
    let job = c.jobs.create_job(request(stormy)).await.unwrap().into_inner().name;
    for orderly in [true, false, true, false] {
        // Not while it waits for its turn, which may take any time after a kill.
        let turn = async {
            while c.job(&job).await.state() == v1::JobState::Queued {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), turn).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        if orderly {
            assert!(server.terminate());
        } else {
            server.kill();
        }
        server = Process::start(folder.path());
        c = Clients::connect(&server.url).await;
    }
    let stormy = c.finish(&job).await;
    assert_eq!(stormy.state(), v1::JobState::Succeeded, "{:?}", stormy.error);
    assert!((2..=5).contains(&stormy.attempt), "{stormy:?}");
    let (a, b) =
        (frames(&mut c, &calm.dataset, count - 2000).await, frames(&mut c, &stormy.dataset, count - 2000).await);
    assert_eq!(a[1].len(), 2000);
    for (a, b) in a.iter().zip(&b) {
        assert_eq!(bits(a), bits(b), "the samples differ from those of an undisturbed run");
    }
    let mut summaries = Vec::new();
    for name in [calm.dataset, stormy.dataset] {
        let dataset = c.datasets.get_dataset(v1::GetDatasetRequest { name }).await.unwrap().into_inner();
        summaries.push((dataset.digest, dataset.weighted.unwrap().weights, dataset.energy_mean.to_bits()));
    }
    assert_eq!(summaries[0], summaries[1]);
    assert!(server.terminate());
}

#[tokio::test(flavor = "multi_thread")]
async fn sampling_jobs_are_cancelled_and_bad_ones_refused() {
    let (folder, server, mut c) = fresh().await;
    let model = c.train(small_task(10)).await;
    let job = c.jobs.create_job(request(task(&model, 20_000_000))).await.unwrap().into_inner();
    let Some(Task::Sampling(whole)) = &job.task else { panic!("{job:?}") };
    assert_eq!((whole.temperature, whole.system.as_str()), (1.0, "systems/double-well"));
    // What is answered, sent again, is the same task.
    let again = v1::SamplingTask { dataset_id: "other".into(), ..whole.clone() };
    let again = v1::CreateJobRequest { validate_only: true, ..request(again) };
    let again = c.jobs.create_job(again).await.unwrap().into_inner();
    let Some(Task::Sampling(again)) = again.task else { panic!("no sampling task") };
    assert_eq!(v1::SamplingTask { dataset_id: whole.dataset_id.clone(), ..again }, *whole);
    while c.job(&job.name).await.state() != v1::JobState::Running {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let in_use = c.models.delete_model(v1::DeleteModelRequest { name: model.clone() }).await.unwrap_err();
    assert_eq!((in_use.code(), reason(&in_use).as_str()), (Code::FailedPrecondition, "RESOURCE_IN_USE"));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begin = Instant::now();
    c.jobs.cancel_job(v1::CancelJobRequest { name: job.name.clone() }).await.unwrap();
    let job = c.finish(&job.name).await;
    assert!(begin.elapsed() < Duration::from_secs(1), "it took {:?}", begin.elapsed());
    assert_eq!((job.state(), job.dataset.as_str()), (v1::JobState::Cancelled, ""));

    // The name of its dataset is its own until then; what was cancelled leaves no files, and the name is free.
    let late = v1::SamplingTask { dataset_id: "late".into(), ..task(&model, 20_000_000) };
    let job = c.jobs.create_job(request(late)).await.unwrap().into_inner();
    let upload = || {
        use v1::upload_dataset_request::Part as Upload;
        let dataset = v1::Dataset { system: "systems/double-well".into(), temperature: 1.0, ..v1::Dataset::default() };
        let header = v1::UploadHeader { dataset: Some(dataset), dataset_id: "late".into(), request_id: String::new() };
        let frame =
            boltzflow::contract::array(vec![1.0, 2.0], &[1, 2], v1::DataType::Float64, v1::ArrayEncoding::Bytes);
        let parts = [Upload::Header(header), Upload::Frames(v1::FrameChunk { positions: Some(frame) })];
        tokio_stream::iter(parts.map(|part| v1::UploadDatasetRequest { part: Some(part) }))
    };
    let taken = c.datasets.upload_dataset(upload()).await.unwrap_err();
    assert_eq!((taken.code(), reason(&taken).as_str()), (Code::AlreadyExists, "RESOURCE_EXISTS"));
    c.jobs.cancel_job(v1::CancelJobRequest { name: job.name.clone() }).await.unwrap();
    assert_eq!(c.finish(&job.name).await.state(), v1::JobState::Cancelled);
    let files = |folder_of: String| {
        let entries = std::fs::read_dir(folder.path().join("artifacts").join(folder_of));
        entries.map_or(0, |entries| entries.count())
    };
    assert_eq!((files("datasets/late".into()), files(job.name.clone())), (0, 0));
    c.datasets.upload_dataset(upload()).await.unwrap();
    assert_eq!(files("datasets/late".into()), 1);

    // A temperature that the model does not cover is found by a pilot.
    let far = v1::SamplingTask { temperature: 1e-3, least_effective_fraction: 0.9, ..task(&model, 10) };
    let error = kept(&mut c, far).await.error.unwrap();
    assert_eq!((error.code, error.reason.as_str()), (Code::FailedPrecondition as i32, "TEMPERATURE_NOT_COVERED"));

    let bad = |change: fn(&mut v1::SamplingTask)| {
        let mut task = task(&model, 10);
        change(&mut task);
        request(task)
    };
    for (request, code, word) in [
        (bad(|t| t.model = "models/none".into()), Code::NotFound, "none"),
        (bad(|t| t.model = "none".into()), Code::InvalidArgument, "job.sampling.model"),
        (bad(|t| t.count = 0), Code::InvalidArgument, "job.sampling.count"),
        (bad(|t| t.count = 1 << 40), Code::InvalidArgument, "bytes"),
        (bad(|t| t.target_effective_samples = f64::NAN), Code::InvalidArgument, "target_effective_samples"),
        (bad(|t| t.target_effective_samples = -1.0), Code::InvalidArgument, "target_effective_samples"),
        (bad(|t| t.temperature = -1.0), Code::InvalidArgument, "job.sampling.temperature"),
        (bad(|t| t.least_effective_fraction = 2.0), Code::InvalidArgument, "job.sampling.least_effective_fraction"),
        (bad(|t| t.method = Method::Annealed.into()), Code::InvalidArgument, "ANNEALED"),
        (bad(|t| t.method = Method::Chain.into()), Code::InvalidArgument, "CHAIN"),
        (bad(|t| t.method = Method::Conditioned.into()), Code::InvalidArgument, "job.sampling.method"),
        (bad(|t| t.method = 99), Code::InvalidArgument, "99"),
        (bad(|t| t.first_index = u64::MAX), Code::OutOfRange, "indices"),
        (bad(|t| t.dataset_id = "-".into()), Code::InvalidArgument, "job.sampling.dataset_id"),
        (bad(|t| t.system = "systems/harmonic".into()), Code::InvalidArgument, "job.sampling.system"),
    ] {
        let refused = c.jobs.create_job(request).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
        assert!(refused.message().contains(word), "{refused}");
    }

    // A model from elsewhere has to be told which system is its own.
    let file = c.export(&model).await;
    use v1::import_model_request::Part;
    let header = v1::ImportHeader { model_id: "twin".into(), request_id: String::new() };
    let messages = [Part::Header(header), Part::Data(file)].map(|part| v1::ImportModelRequest { part: Some(part) });
    c.models.import_model(tokio_stream::iter(messages)).await.unwrap();
    let refused = c.jobs.create_job(request(task("models/twin", 10))).await.unwrap_err();
    assert!(refused.message().contains("imported"), "{refused}");
    let told = v1::SamplingTask { system: "systems/double-well".into(), ..task("models/twin", 10) };
    let told = kept(&mut c, told).await;
    assert_eq!(told.state(), v1::JobState::Succeeded, "{:?}", told.error);
    server.stop().await;
}
