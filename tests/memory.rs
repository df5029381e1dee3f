//! A server's memory does not grow with what it has sent, nor with what is asked for at once.
//!
//! `BOLTZFLOW_MEMORY_SAMPLES=100000000 cargo test --release --test memory -- --nocapture` is the long run; without it five
//! million samples are streamed.

mod common;

use boltzflow::contract::v1::{self, stream_samples_response::Part};
use common::*;

fn samples() -> u64 {
    std::env::var("BOLTZFLOW_MEMORY_SAMPLES").map_or(5_000_000, |n| n.parse().unwrap())
}

/// Resident memory as a stream is read: once a tenth of it is there, and the most after that.
async fn stream(server: &Process, clients: &mut Clients, count: u64, request: v1::StreamSamplesRequest) -> (u64, u64) {
    let mut stream =
        clients.sampling.stream_samples(v1::StreamSamplesRequest { count, ..request }).await.unwrap().into_inner();
    let (mut settled, mut most, mut received, mut look) = (0, 0, 0, count / 10);
    while let Some(message) = stream.message().await.unwrap() {
        let Some(Part::Batch(batch)) = message.part else { continue };
        received = batch.samples;
        if received >= look {
            let now = server.resident();
            settled = if settled == 0 { now } else { settled };
            most = most.max(now);
            look += count / 100;
        }
    }
    assert_eq!(received, count);
    (settled, most)
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_flat() {
    let folder = tempfile::tempdir().unwrap();
    let server = Process::start(folder.path());
    let mut clients = Clients::connect(&server.url).await;
    let model = clients.train(small_task(20)).await;
    let request = v1::StreamSamplesRequest { model, ..v1::StreamSamplesRequest::default() };

    let (settled, most) = stream(&server, &mut clients, samples(), request.clone()).await;
    println!(
        "{} samples: {:.1} MB after a tenth, {:.1} MB at most",
        samples(),
        settled as f64 / 1e6,
        most as f64 / 1e6
    );
    // Five per cent; where the stream is short, what the allocator keeps of a message or two.
    let long = samples() >= 50_000_000;
    if !long {
        println!("(the run of 100,000,000 samples, and its bound of 5 %, are skipped: set BOLTZFLOW_MEMORY_SAMPLES)");
    }
    let room = if long { settled / 20 } else { 4 << 20 };
    assert!(most <= settled + room, "resident memory went from {settled} to {most} bytes");

    // A million at once, ten times: they come in messages of at most 16 MiB, of which a few are in memory, and not the
    // 880 MB that ten million samples are.
    let at_once = v1::StreamSamplesRequest { batch_size: 1_000_000, ..request };
    let (_, after) = stream(&server, &mut clients, 10_000_000, at_once).await;
    println!("in messages as long as may be: {:.1} MB at most", after as f64 / 1e6);
    assert!(after <= most + (256 << 20), "resident memory went from {most} to {after} bytes");
    assert!(server.terminate());
}
