//! Many streams at once of one model, through a real server: the same samples however they are shared out, fair shares of the
//! device, and answers that begin at once. What is timed are ratios on one machine, with room for its noise; the figures themselves
//! are printed.

mod common;

use boltzflow::contract::v1::{self, stream_samples_response::Part};
use common::*;
use std::time::{Duration, Instant};

const STREAMS: usize = 64;

/// Held by what is timed.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn ask(model: &str) -> v1::StreamSamplesRequest {
    v1::StreamSamplesRequest {
        model: model.into(),
        method: v1::SamplingMethod::Reweighting.into(),
        seed: 3,
        batch_size: 1000,
        count: 1_000_000_000,
        ..Default::default()
    }
}

/// 64 clients, each with a connection of its own and its part of the indices, have together what one has alone.
#[tokio::test(flavor = "multi_thread")]
async fn parts_of_many_clients_make_the_whole() {
    let _alone = ALONE.lock().await;
    let (_folder, server, mut clients) = fresh().await;
    let model = clients.train(small_task(20)).await;
    let each = 500;
    let whole = v1::StreamSamplesRequest { count: each * STREAMS as u64, ..ask(&model) };
    let whole = clients.sample(whole).await.unwrap();
    let mut parts = Vec::new();
    for i in 0..STREAMS as u64 {
        let mut own = server.clients().await;
        let batch_size = 100 + 7 * i as u32;
        let part = v1::StreamSamplesRequest { first_index: each * i, count: each, batch_size, ..ask(&model) };
        parts.push(tokio::spawn(async move { own.sample(part).await.unwrap() }));
    }
    let (mut positions, mut log_weights) = (Vec::new(), Vec::new());
    for part in parts {
        let part = part.await.unwrap();
        positions.extend(part.positions);
        log_weights.extend(part.log_weights);
    }
    let bits = |numbers: &[f64]| numbers.iter().map(|x| x.to_bits()).collect::<Vec<u64>>();
    assert_eq!(bits(&positions), bits(&whole.positions));
    assert_eq!(bits(&log_weights), bits(&whole.log_weights));
    server.stop().await;
}

/// Samples that come between two moments.
async fn draw(mut clients: Clients, model: String, from: Instant, to: Instant) -> u64 {
    let ask = v1::StreamSamplesRequest { batch_size: 100, ..ask(&model) };
    let mut stream = clients.sampling.stream_samples(ask).await.unwrap().into_inner();
    let mut samples = 0;
    while let Some(message) = stream.message().await.unwrap() {
        let Part::Batch(_) = message.part.unwrap() else { continue };
        let now = Instant::now();
        if now >= to {
            break;
        }
        samples += if now >= from { 100 } else { 0 };
    }
    samples
}

/// The slowest of 64 streams has at least half of what they have on average, and all of them together nine tenths of what one has
/// alone, of which three quarters are asked here.
#[tokio::test(flavor = "multi_thread")]
async fn streams_share_the_device() {
    let _alone = ALONE.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path());
    // One that has just ended may not be gone yet.
    settings.limits.streams = STREAMS + 8;
    let server = TestServer::start(settings).await;
    let mut clients = server.clients().await;
    // So large that sampling takes longer than sending.
    let system = "systems/many-well-32".to_string();
    let architecture = v1::FlowArchitecture {
        kind: v1::FlowKind::Realnvp.into(),
        couplings: 8,
        hidden: vec![256, 256],
        ..v1::FlowArchitecture::default()
    };
    let task = v1::TrainingTask { system, architecture: Some(architecture), ..small_task(1) };
    let model = clients.train(task).await;
    let (wait, time) = (Duration::from_secs(1), Duration::from_secs(4));
    let from = Instant::now() + wait;
    let alone = draw(server.clients().await, model.clone(), from, from + time).await;
    let mut connections = Vec::new();
    for _ in 0..STREAMS {
        connections.push(server.clients().await);
    }
    let from = Instant::now() + wait;
    let streams = connections.into_iter().map(|own| tokio::spawn(draw(own, model.clone(), from, from + time)));
    let mut shares = Vec::new();
    for stream in streams.collect::<Vec<_>>() {
        shares.push(stream.await.unwrap());
    }
    let total: u64 = shares.iter().sum();
    let slowest = *shares.iter().min().unwrap() as f64 / (total as f64 / STREAMS as f64);
    println!("alone {alone}, {STREAMS} together {total}; the slowest has {slowest:.2} of the mean");
    assert!(slowest >= 0.5, "{shares:?}");
    assert!(total as f64 >= 0.75 * alone as f64, "{total} of {alone}");
    server.stop().await;
}

/// The median of 21 requests: the first batch of a loaded model comes within 50 ms.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_begins_at_once() {
    let _alone = ALONE.lock().await;
    let (_folder, server, mut clients) = fresh().await;
    let model = clients.train(small_task(20)).await;
    let mut times = Vec::new();
    for _ in 0..22 {
        let begin = Instant::now();
        let mut stream = clients.sampling.stream_samples(ask(&model)).await.unwrap().into_inner();
        loop {
            if let Part::Batch(_) = stream.message().await.unwrap().unwrap().part.unwrap() {
                break;
            }
        }
        times.push(begin.elapsed());
    }
    // The first one loads the model.
    times.remove(0);
    times.sort();
    println!("the first batch comes after {:?}, at most {:?}", times[10], times[20]);
    assert!(times[10] <= Duration::from_millis(50), "{times:?}");
    server.stop().await;
}
