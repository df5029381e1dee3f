//! Servers that are stopped, killed, and started again: nothing that was acknowledged is lost, and a training run ends
//! with the weights that it would have had.

mod common;

use boltzflow::contract::v1;
use common::*;
use std::path::Path;
use std::time::{Duration, Instant};
use tonic::Code;

const STEPS: i64 = 400;

fn task(model_id: &str) -> v1::TrainingTask {
    v1::TrainingTask { model_id: model_id.into(), ..small_task(STEPS) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_run_ends_with_the_weights_of_an_undisturbed_one() {
    let (calm, stormy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Process::start(calm.path());
    let mut clients = Clients::connect(&server.url).await;
    let undisturbed = clients.train(task("calm")).await;
    let expected = clients.weights(&undisturbed).await;
    assert!(server.terminate(), "SIGTERM is not the end of an orderly server");

    let mut server = Process::start(stormy.path());
    let mut clients = Clients::connect(&server.url).await;
    let job = clients.create(task("stormy")).await.name;
    for step in [STEPS / 5, 3 * STEPS / 5] {
        clients.wait_for_step(&job, step).await;
        server.kill();
        server = Process::start(stormy.path());
        clients = Clients::connect(&server.url).await;
    }
    let job = clients.finish(&job).await;
    assert_eq!(job.state(), v1::JobState::Succeeded, "{:?}", job.error);
    assert_eq!(job.attempt, 3);
    let actual = clients.weights(&job.model).await;
    assert!(!expected.is_empty());
    assert_eq!(actual, expected, "the weights differ from those of an undisturbed run");

    // And the samples that they give.
    let request = |model: &str| v1::StreamSamplesRequest {
        model: model.into(),
        count: 600,
        seed: 5,
        ..v1::StreamSamplesRequest::default()
    };
    let stormy_samples = clients.sample(request("models/stormy")).await.unwrap();
    server.kill();
    let server = Process::start(calm.path());
    let mut clients = Clients::connect(&server.url).await;
    let calm_samples = clients.sample(request("models/calm")).await.unwrap();
    assert_eq!(stormy_samples.positions, calm_samples.positions);
    assert_eq!(stormy_samples.log_weights, calm_samples.log_weights);
    assert!(server.terminate());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_server_hands_its_work_over() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(settings(folder.path())).await;
    let mut clients = server.clients().await;
    let model = clients.train(small_task(10)).await;
    let request = |first_index, count| v1::StreamSamplesRequest {
        model: model.clone(),
        first_index,
        count,
        batch_size: 256,
        ..v1::StreamSamplesRequest::default()
    };
    let job = clients.create(task("handed-over")).await.name;
    clients.wait_for_step(&job, 20).await;
    let mut stream = clients.sampling.stream_samples(request(0, 1 << 39)).await.unwrap().into_inner();
    let mut received = Samples::default();
    for _ in 0..4 {
        received.add(stream.message().await.unwrap().unwrap());
    }
    let begin = Instant::now();
    server.shutdown.cancel();
    let (broken, next) = received.until_broken(&mut stream).await;
    assert_eq!((broken.code(), reason(&broken).as_str()), (Code::Unavailable, "DRAINING"));
    drop((stream, clients));
    server.stop().await;
    assert!(begin.elapsed() < Duration::from_secs(8), "draining took {:?}", begin.elapsed());

    // The next server goes on with both.
    let server = TestServer::start(settings(folder.path())).await;
    let mut clients = server.clients().await;
    let rest = clients.sample(request(next, 500)).await.unwrap();
    let whole = clients.sample(request(0, next + 500)).await.unwrap();
    received.log_weights.extend(rest.log_weights);
    assert_eq!(received.log_weights, whole.log_weights);
    let job = clients.finish(&job).await;
    assert_eq!((job.state(), job.attempt), (v1::JobState::Succeeded, 2));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_the_same_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(settings(folder.path())).await;
    let free = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let second = boltzflow::server::Server::bind(settings(folder.path()), free, free).await;
    let error = second.err().expect("a second server").to_string();
    assert!(error.contains("another server has it open"), "{error}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_files_are_said_to_be_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(settings(folder.path())).await;
    let mut clients = server.clients().await;
    let model = clients.train(small_task(10)).await;
    let job = clients.create(task("cut-short")).await.name;
    clients.wait_for_step(&job, 30).await;
    drop(clients);
    server.stop().await;

    // The job was put back into the queue with its checkpoint; both files lose their ends.
    let cut = |path: &Path| {
        let bytes = std::fs::read(path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() - 100]).unwrap();
    };
    let mut files = 0;
    let mut folders = vec![folder.path().join("artifacts")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                cut(&path);
                files += 1;
            }
        }
    }
    assert_eq!(files, 2, "one model and one checkpoint are kept");

    let server = TestServer::start(settings(folder.path())).await;
    let mut clients = server.clients().await;
    let job = clients.finish(&job).await;
    let error = job.error.clone().unwrap();
    assert_eq!((job.state(), error.reason.as_str()), (v1::JobState::Failed, "DAMAGED_ARTIFACT"));
    assert_eq!(error.code, Code::DataLoss as i32);
    assert!(error.message.contains("checkpoint"), "{}", error.message);
    let request = v1::StreamSamplesRequest { model, count: 10, ..v1::StreamSamplesRequest::default() };
    let refused = clients.sample(request).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::DataLoss, "DAMAGED_ARTIFACT"));
    // The server is as well as before.
    clients.train(small_task(10)).await;
    server.stop().await;
}

/// A job that cannot be read fails; those after it do not wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_job_does_not_stop_the_queue() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(settings(folder.path())).await;
    let mut clients = server.clients().await;
    let job = clients.create(task("cut-short")).await.name;
    clients.wait_for_step(&job, 30).await;
    drop(clients);
    server.stop().await;
    let database = format!("sqlite://{}/state.db", folder.path().display());
    let pool = sqlx::SqlitePool::connect(&database).await.unwrap();
    let damaged = sqlx::query("UPDATE jobs SET spec = '{}' WHERE state = 'QUEUED'").execute(&pool).await.unwrap();
    assert_eq!(damaged.rows_affected(), 1);
    pool.close().await;

    let server = TestServer::start(settings(folder.path())).await;
    let mut clients = server.clients().await;
    clients.train(small_task(10)).await;
    let lost = clients.jobs.get_job(v1::GetJobRequest { name: job }).await.unwrap_err();
    assert_eq!(lost.code(), Code::DataLoss, "{lost}");
    server.stop().await;
}

/// Files that cannot be written for a while put a job off; they do not end it, and it loses nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_outlives_a_store_that_fails() {
    let (calm, ill) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = TestServer::start(settings(calm.path())).await;
    let expected = {
        let mut clients = server.clients().await;
        let model = clients.train(task("calm")).await;
        clients.weights(&model).await
    };
    server.stop().await;

    let mut settings = settings(ill.path());
    settings.lease = Duration::from_secs(3);
    let server = TestServer::start(settings).await;
    let mut clients = server.clients().await;
    let job = clients.create(task("ill")).await.name;
    clients.wait_for_step(&job, 30).await;
    // Where the next checkpoint would go there is a file.
    let folder = ill.path().join("artifacts").join(&job);
    let (aside, block) = (ill.path().join("aside"), folder.clone());
    std::fs::rename(&folder, &aside).unwrap();
    std::fs::write(&block, "in the way").unwrap();
    let mut events = clients
        .jobs
        .watch_job(v1::WatchJobRequest { name: job.clone(), after_sequence: 0 })
        .await
        .unwrap()
        .into_inner();
    loop {
        let event = events.message().await.unwrap().expect("the job ended");
        if let Some(v1::job_event::Event::Message(text)) = event.event
            && text.contains("could not be")
        {
            break;
        }
    }
    std::fs::remove_file(&block).unwrap();
    std::fs::rename(&aside, &folder).unwrap();
    let job = clients.finish(&job).await;
    assert_eq!(job.state(), v1::JobState::Succeeded, "{:?}", job.error);
    assert!(job.attempt >= 2);
    assert_eq!(clients.weights(&job.model).await, expected);
    server.stop().await;
}

/// A job that takes the server down with it, again and again, is given up; one that was to be cancelled is not taken up.
#[tokio::test]
async fn jobs_that_are_lost_too_often_end() {
    use boltzflow::store::{JobState, SqliteStore, Store};
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(settings(folder.path())).await;
    let mut clients = server.clients().await;
    let request = |id: &str| v1::CreateJobRequest { job_id: id.into(), ..job_request(small_task(1_000_000)) };
    // One that runs keeps the other two waiting until the server stops.
    for id in ["first", "second", "third"] {
        clients.jobs.create_job(request(id)).await.unwrap();
    }
    drop(clients);
    server.stop().await;

    let store = SqliteStore::open(&format!("sqlite://{}/state.db", folder.path().display())).await.unwrap();
    let mut claimed = std::collections::BTreeMap::new();
    for _ in 0..20 {
        let Some(claim) = store.claim_job("worker", 1000).await.unwrap() else { break };
        *claimed.entry(claim.job.id.clone()).or_insert(0) += 1;
        if claim.job.id == "second" {
            store.cancel_job("second").await.unwrap();
        }
        // The process dies here, and another one starts.
        store.requeue_lost_jobs(true).await.unwrap();
    }
    assert_eq!(claimed.values().copied().collect::<Vec<_>>(), [5, 1, 5], "{claimed:?}");
    let job = store.get_job("first").await.unwrap();
    assert_eq!((job.state, job.error.unwrap().reason.as_str()), (JobState::Failed, "JOB_ABANDONED"));
    assert_eq!(store.get_job("second").await.unwrap().state, JobState::Cancelled);
}

/// A request on the admin port that is never finished does not keep a server from ending.
#[tokio::test(flavor = "multi_thread")]
async fn half_a_request_does_not_hold_a_server() {
    use tokio::io::AsyncWriteExt;
    let (_folder, server, _clients) = fresh().await;
    let mut half = tokio::net::TcpStream::connect(server.admin).await.unwrap();
    half.write_all(b"GET /livez HTTP/1.1\r\nHost: test\r\n").await.unwrap();
    let begin = Instant::now();
    drop(_clients);
    server.stop().await;
    assert!(begin.elapsed() < Duration::from_secs(8), "it took {:?}", begin.elapsed());
}
