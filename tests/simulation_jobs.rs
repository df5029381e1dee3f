//! Simulation jobs: their frames, what is known of each, training on them, and interruptions that leave no trace.

mod common;

use boltzflow::contract::v1::{self, job::Task};
use common::*;
use std::time::Duration;

fn request(task: v1::SimulationTask) -> v1::CreateJobRequest {
    v1::CreateJobRequest {
        job: Some(v1::Job { task: Some(Task::Simulation(task)), ..v1::Job::default() }),
        ..v1::CreateJobRequest::default()
    }
}

fn double_well(steps: i64) -> v1::SimulationTask {
    v1::SimulationTask {
        system: "systems/double-well".into(),
        method: v1::SimulationMethod::Metropolis.into(),
        temperatures: vec![1.0, 2.0, 4.0],
        walkers: 8,
        steps,
        stride: steps / 100,
        exchange_every: 5,
        seed: 3,
        dataset_id: "wells".into(),
        ..v1::SimulationTask::default()
    }
}

async fn frames(clients: &mut Clients, name: &str) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let request = v1::DownloadDatasetRequest { name: name.into(), ..v1::DownloadDatasetRequest::default() };
    let mut stream = clients.datasets.download_dataset(request).await.unwrap().into_inner();
    let (mut positions, mut temperatures, mut energies) = (Vec::new(), Vec::new(), Vec::new());
    let numbers = |array: Option<v1::Array>| boltzflow::contract::numbers("array", &array.unwrap()).unwrap().0;
    while let Some(message) = stream.message().await.unwrap() {
        positions.extend(numbers(message.positions));
        temperatures.extend(numbers(message.temperatures));
        energies.extend(numbers(message.energies));
    }
    (positions, temperatures, energies)
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_have_their_temperatures_and_can_be_trained_on() {
    let (_folder, server, mut c) = fresh().await;
    let job = c.jobs.create_job(request(double_well(20_000))).await.unwrap().into_inner();
    let Some(Task::Simulation(task)) = &job.task else { panic!("{job:?}") };
    assert_eq!((task.equilibration_steps, task.exchange_every, task.target_acceptance), (2000, 5, 0.3));
    // The name of what it makes is taken until then.
    let again = c.jobs.create_job(request(double_well(10))).await.unwrap_err();
    assert_eq!(reason(&again), "RESOURCE_EXISTS", "{again}");
    let job = c.finish(&job.name).await;
    assert_eq!((job.state(), job.dataset.as_str()), (v1::JobState::Succeeded, "datasets/wells"), "{:?}", job.error);
    let progress = job.simulation_progress.unwrap();
    assert_eq!((progress.phase(), progress.frames), (v1::SimulationPhase::Finished, 2400));
    for rung in &progress.rungs {
        assert!((rung.acceptance.unwrap() - 0.3).abs() < 0.1 && rung.effective_samples > 100.0, "{rung:?}");
    }
    assert!(progress.rungs[0].exchange_acceptance.unwrap() > 0.2 && progress.rungs[2].exchange_acceptance.is_none());
    assert!(progress.round_trips > 8);

    let dataset = v1::GetDatasetRequest { name: job.dataset.clone() };
    let dataset = c.datasets.get_dataset(dataset).await.unwrap().into_inner();
    assert_eq!((dataset.frames, dataset.temperatures.as_slice()), (2400, [1.0, 2.0, 4.0].as_slice()));
    assert_eq!((dataset.job, dataset.temperature), (job.name.clone(), 0.0));
    let (positions, temperatures, energies) = frames(&mut c, &job.dataset).await;
    assert_eq!((positions.len(), temperatures.len()), (4800, 2400));
    let energy = |x: &[f64]| x[0].powi(4) - 6.0 * x[0] * x[0] + x[0] + 0.5 * x[1] * x[1];
    for (x, u) in positions.chunks(2).zip(&energies) {
        assert!((energy(x) - u).abs() < 1e-9);
    }
    for t in [1.0, 2.0, 4.0] {
        assert_eq!(temperatures.iter().filter(|x| **x == t).count(), 800);
    }

    // Another simulation goes on where each walker of each temperature was last: moves of nothing show where.
    let task = v1::SimulationTask {
        start: job.dataset.clone(),
        move_size: 1e-12,
        target_acceptance: -1.0,
        equilibration_steps: -1,
        exchange_every: -1,
        stride: 1,
        dataset_id: "further".into(),
        ..double_well(1)
    };
    let further = c.jobs.create_job(request(task)).await.unwrap().into_inner();
    let further = c.finish(&further.name).await;
    assert_eq!(further.state(), v1::JobState::Succeeded, "{:?}", further.error);
    let (begun, at, _) = frames(&mut c, &further.dataset).await;
    assert_eq!(at, temperatures[2400 - 24..]);
    assert!(begun.iter().zip(&positions[4800 - 48..]).all(|(a, b)| (a - b).abs() < 1e-9));

    // Training takes the frames of its own temperature.
    let task = v1::TrainingTask { dataset: job.dataset.clone(), temperature: 2.0, ..small_task(20) };
    let trained = c.create(task).await.name;
    let done = c.finish(&trained).await;
    assert_eq!(done.state(), v1::JobState::Succeeded, "{:?}", done.error);
    let watch = v1::WatchJobRequest { name: trained, after_sequence: 0 };
    let mut events = c.jobs.watch_job(watch).await.unwrap().into_inner();
    let mut said = false;
    while let Some(event) = events.message().await.unwrap() {
        said |= matches!(&event.event, Some(v1::job_event::Event::Message(m)) if m.starts_with("800 frames of wells"));
    }
    assert!(said, "nothing was said of the frames that are used");
    server.stop().await;
}

/// A pilot that would need more temperatures than there may be, or more bytes than a dataset may have, says so.
#[tokio::test(flavor = "multi_thread")]
async fn ladders_that_a_pilot_cannot_place_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path());
    settings.limits.dataset_bytes = 41_000;
    let server = TestServer::start(settings).await;
    let mut c = server.clients().await;
    let cluster = |acceptance: f64, steps: i64| v1::SimulationTask {
        system: "systems/lj13".into(),
        ladder: Some(v1::TemperatureLadder {
            low: 0.05,
            high: 1.0,
            acceptance,
            pilot_steps: 400,
            ..Default::default()
        }),
        walkers: 4,
        steps,
        stride: 40,
        ..v1::SimulationTask::default()
    };
    for (task, reason) in [(cluster(0.99, 160), "no 128 temperatures"), (cluster(0.3, 160), "bytes that a dataset")] {
        let job = c.jobs.create_job(request(task)).await.unwrap().into_inner();
        let job = c.finish(&job.name).await;
        let error = job.error.unwrap_or_else(|| panic!("{reason}: {:?}", job.simulation_progress));
        assert!(job.state == i32::from(v1::JobState::Failed) && error.message.contains(reason), "{error:?}");
        assert_eq!(error.reason, "INVALID_FIELD");
    }
}

/// A Monte Carlo move of minutes: others have the device meanwhile, and it is given up when the job is cancelled.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_long_move() {
    let (_folder, _server, mut c) = fresh().await;
    let training = c.create(small_task(20)).await.name;
    let model = c.finish(&training).await.model;
    let task = v1::SimulationTask {
        system: "systems/lj55".into(),
        method: v1::SimulationMethod::HybridMonteCarlo.into(),
        leapfrog_steps: 1000,
        walkers: 32_768,
        steps: 10,
        ..v1::SimulationTask::default()
    };
    let job = c.jobs.create_job(request(task)).await.unwrap().into_inner();
    tokio::time::sleep(Duration::from_secs(8)).await;
    let begun = std::time::Instant::now();
    c.sample(v1::StreamSamplesRequest { model, count: 1000, ..Default::default() }).await.unwrap();
    let waited = begun.elapsed();
    c.jobs.cancel_job(v1::CancelJobRequest { name: job.name.clone() }).await.unwrap();
    let job = c.finish(&job.name).await;
    assert_eq!(job.state(), v1::JobState::Cancelled);
    // The move takes minutes.
    assert!(waited < Duration::from_secs(10) && begun.elapsed() < Duration::from_secs(30), "{waited:?}");
}

/// A molecule from its topology, at a ladder that a pilot places; constraints hold.
#[tokio::test(flavor = "multi_thread")]
async fn molecules_start_from_their_topology() {
    let (_folder, server, mut c) = fresh().await;
    let read = |file: &str| std::fs::read_to_string(test_data("openmm/ace-aaa-nme-hbonds").join(file)).unwrap();
    let openmm = v1::OpenMmSystem { system_xml: read("system.xml"), topology_pdb: read("topology.pdb") };
    let system = v1::System { definition: Some(v1::system::Definition::Openmm(openmm)), ..v1::System::default() };
    let create = v1::CreateSystemRequest { system: Some(system), ..v1::CreateSystemRequest::default() };
    let system = c.systems.create_system(create).await.unwrap().into_inner().name;
    let ladder = v1::TemperatureLadder { low: 300.0, high: 360.0, pilot_steps: 1000, ..Default::default() };
    let task = v1::SimulationTask {
        system: system.clone(),
        ladder: Some(ladder),
        walkers: 2,
        steps: 400,
        ..v1::SimulationTask::default()
    };
    let metropolis = v1::SimulationTask { method: v1::SimulationMethod::Metropolis.into(), ..task.clone() };
    let refused = c.jobs.create_job(request(metropolis)).await.unwrap_err();
    assert!(refused.message().contains("constraints"), "{refused}");
    let job = c.jobs.create_job(request(task)).await.unwrap().into_inner();
    let job = c.finish(&job.name).await;
    assert_eq!(job.state(), v1::JobState::Succeeded, "{:?}", job.error);
    let progress = job.simulation_progress.unwrap();
    assert!(progress.rungs.len() >= 2 && progress.rungs.iter().all(|r| r.kinetic_temperature.unwrap() > 100.0));
    let (positions, _, energies) = frames(&mut c, &job.dataset).await;
    assert_eq!(positions.len(), energies.len() * 126);
    server.stop().await;
}

/// Killed before it has a checkpoint, and stopped in order after that: the frames are those of a run left alone.
#[tokio::test(flavor = "multi_thread")]
async fn interruptions_leave_no_trace_in_the_frames() {
    let long = || v1::SimulationTask { temperatures: Vec::new(), ..double_well(6_000_000) };
    let mut digests = Vec::new();
    for interrupted in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Process::start(folder.path());
        let mut clients = Clients::connect(&server.url).await;
        let job = clients.jobs.create_job(request(long())).await.unwrap().into_inner().name;
        if interrupted {
            for orderly in [false, true, true] {
                tokio::time::sleep(Duration::from_millis(700)).await;
                if orderly {
                    assert!(server.terminate());
                } else {
                    server.kill();
                }
                server = Process::start(folder.path());
                clients = Clients::connect(&server.url).await;
            }
        }
        let job = clients.finish(&job).await;
        assert_eq!(job.state(), v1::JobState::Succeeded, "{:?}", job.error);
        assert_eq!(job.attempt, if interrupted { 4 } else { 1 });
        let get = v1::GetDatasetRequest { name: job.dataset };
        let dataset = clients.datasets.get_dataset(get).await.unwrap().into_inner();
        assert_eq!(dataset.frames, 800);
        digests.push(dataset.digest);
        assert!(server.terminate());
    }
    assert_eq!(digests[0], digests[1]);
}
