//! Downloads of datasets: every frame as it was stored, from any frame on, whatever happens to client, server and files.

mod common;
mod npz;

use boltzflow::contract::v1::dataset_service_client::DatasetServiceClient;
use boltzflow::contract::v1::{self, upload_dataset_request::Part as Upload};
use boltzflow::trajectory::{Format, read};
use common::*;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Frames of a double well that no two digits of repeat: 4.8 MB.
const FRAMES: usize = 300_000;

fn frames() -> Vec<f64> {
    (0..2 * FRAMES).map(|i| 1.5 * (0.7 * i as f64).sin()).collect()
}

async fn upload(clients: &mut Clients, system: &str, id: &str, frames: &[f64], shape: &[usize]) -> v1::Dataset {
    let dataset = v1::Dataset { system: system.into(), temperature: 1.0, ..v1::Dataset::default() };
    let header = v1::UploadHeader { dataset: Some(dataset), dataset_id: id.into(), request_id: String::new() };
    let array = boltzflow::contract::array(frames.to_vec(), shape, v1::DataType::Float64, v1::ArrayEncoding::Bytes);
    let parts = [Upload::Header(header), Upload::Frames(v1::FrameChunk { positions: Some(array) })];
    let messages = parts.map(|part| v1::UploadDatasetRequest { part: Some(part) });
    let mut datasets = clients.datasets.clone().max_encoding_message_size(64 << 20);
    datasets.upload_dataset(tokio_stream::iter(messages)).await.unwrap().into_inner()
}

fn from(name: &str, first_frame: i64, count: i64) -> v1::DownloadDatasetRequest {
    v1::DownloadDatasetRequest { name: name.into(), first_frame, count, ..v1::DownloadDatasetRequest::default() }
}

fn numbers(array: Option<v1::Array>) -> Vec<f64> {
    boltzflow::contract::numbers("array", &array.unwrap()).unwrap().0
}

fn bits(numbers: &[f64]) -> Vec<u64> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

async fn download(clients: &mut Clients, request: v1::DownloadDatasetRequest) -> Result<Vec<f64>, Status> {
    let mut next = request.first_frame;
    let mut stream = clients.datasets.download_dataset(request).await?.into_inner();
    let mut positions = Vec::new();
    while let Some(message) = stream.message().await? {
        assert_eq!(message.first_frame, next);
        let part = numbers(message.positions);
        assert!(8 * part.len() <= 1 << 20);
        next += part.len() as i64 / 2;
        positions.extend(part);
    }
    Ok(positions)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_frame_comes_back_from_any_frame_on() {
    let (folder, server, mut c) = fresh().await;
    let sent = frames();
    let name = upload(&mut c, "systems/double-well", "waves", &sent, &[FRAMES, 2]).await.name;
    assert_eq!(bits(&download(&mut c, from(&name, 0, 0)).await.unwrap()), bits(&sent));
    // A frame is the same whatever it comes with, and in either encoding.
    for (first, count) in [(FRAMES - 1, 0), (1, 1), (70_001, 65_537), (123_456, i64::MAX)] {
        let mut request = from(&name, first as i64, count);
        let end = if count == 0 { FRAMES } else { first.saturating_add(count as usize).min(FRAMES) };
        assert_eq!(bits(&download(&mut c, request.clone()).await.unwrap()), bits(&sent[2 * first..2 * end]));
        request.encoding = v1::ArrayEncoding::Values.into();
        assert_eq!(bits(&download(&mut c, request).await.unwrap()), bits(&sent[2 * first..2 * end]));
    }
    assert!(download(&mut c, from(&name, FRAMES as i64, 0)).await.unwrap().is_empty());

    let encoding = v1::DownloadDatasetRequest { encoding: 9, ..from(&name, 0, 0) };
    for (request, code, expected, word) in [
        (from(&name, FRAMES as i64 + 1, 0), Code::OutOfRange, "FRAME_OUT_OF_RANGE", "300000 frames"),
        (from(&name, i64::MAX, 1), Code::OutOfRange, "FRAME_OUT_OF_RANGE", "first_frame"),
        (from(&name, -1, 0), Code::InvalidArgument, "INVALID_FIELD", "first_frame"),
        (from(&name, 0, -1), Code::InvalidArgument, "INVALID_FIELD", "count"),
        (from("datasets/none", 0, 0), Code::NotFound, "RESOURCE_NOT_FOUND", "none"),
        (from("waves", 0, 0), Code::InvalidArgument, "INVALID_FIELD", "name"),
        (encoding, Code::InvalidArgument, "INVALID_FIELD", "encoding"),
    ] {
        let refused = download(&mut c, request).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (code, expected), "{refused}");
        assert!(refused.message().contains(word), "{refused}");
    }

    // Frames that are lost are said to be, before others are sent.
    let files = folder.path().join("artifacts/datasets/waves");
    let file = std::fs::read_dir(files).unwrap().next().unwrap().unwrap().path();
    let whole = std::fs::read(&file).unwrap();
    for damage in [Some(&whole[..whole.len() - 8]), Some(&[]), None] {
        match damage {
            Some(bytes) => std::fs::write(&file, bytes).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        let refused = download(&mut c, from(&name, 0, 10)).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::DataLoss, "DAMAGED_ARTIFACT"), "{refused}");
    }
    server.stop().await;
}

/// A reader that sleeps loses its place, and one whose server drains too; both are told where to go on, and miss nothing.
#[tokio::test(flavor = "multi_thread")]
async fn downloads_that_end_early_say_where_to_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path());
    settings.limits.stall = Duration::from_millis(300);
    settings.limits.transfers = 1;
    let server = TestServer::start(settings).await;
    let mut c = server.clients().await;
    // More than what is under way can hold.
    let sent = frames().repeat(4);
    let name = upload(&mut c, "systems/double-well", "waves", &sent, &[4 * FRAMES, 2]).await.name;
    // A reader whose windows hold little, so that it is waited for.
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    let endpoint = endpoint.initial_stream_window_size(65_535).initial_connection_window_size(65_535);
    let mut reader = DatasetServiceClient::new(endpoint.connect().await.unwrap());
    for (stops, code, expected) in [(false, Code::Aborted, "STREAM_STALLED"), (true, Code::Unavailable, "DRAINING")] {
        let mut stream = reader.download_dataset(from(&name, 0, 0)).await.unwrap().into_inner();
        let mut received = numbers(stream.message().await.unwrap().unwrap().positions);
        if stops {
            server.shutdown.cancel();
        } else {
            // There is room for another once the sleeper is given up.
            let other = download(&mut c.clone(), from(&name, 5, 1)).await.unwrap();
            assert_eq!(other, sent[10..12]);
        }
        let broken = loop {
            match stream.message().await {
                Ok(message) => received.extend(numbers(message.expect("an error").positions)),
                Err(status) => break status,
            }
        };
        assert_eq!((broken.code(), reason(&broken).as_str()), (code, expected), "{broken}");
        let next: usize = broken.get_details_error_info().unwrap().metadata["next_index"].parse().unwrap();
        assert_eq!((next, bits(&received)), (received.len() / 2, bits(&sent[..2 * next])));
        if !stops {
            received.extend(download(&mut c, from(&name, next as i64, 0)).await.unwrap());
            assert_eq!(bits(&received), bits(&sent));
        }
    }
    drop((c, reader));
    server.stop().await;
}

/// The command as people run it.
async fn boltzflow(server: SocketAddr, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_boltzflow"));
    command.args(arguments).env("BOLTZFLOW_SERVER", format!("http://{server}"));
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Passes connections on, the first few only until so many bytes have come from the server.
async fn torn(server: SocketAddr, times: usize, bytes: u64) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut taken = 0;
        while let Ok((client, _)) = listener.accept().await {
            taken += 1;
            let limit = if taken <= times { bytes } else { u64::MAX };
            tokio::spawn(async move {
                let server = TcpStream::connect(server).await.unwrap();
                let ((mut from_client, mut to_client), (from_server, mut to_server)) =
                    (client.into_split(), server.into_split());
                let sent = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
                let mut some = tokio::io::AsyncReadExt::take(from_server, limit);
                let _ = tokio::io::copy(&mut some, &mut to_client).await;
                let _ = to_client.shutdown().await;
                sent.abort();
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_connection_costs_the_command_nothing() {
    let (folder, server, mut c) = fresh().await;
    let sent = frames();
    upload(&mut c, "systems/double-well", "waves", &sent, &[FRAMES, 2]).await;
    let path = folder.path().join("waves.npz");
    let file = path.to_string_lossy();
    let address = torn(server.address, 3, 1_500_000).await;
    let output = boltzflow(address, &["datasets", "download", "waves", "-o", &file]).await;
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(bits(&npz::read::<f64>(&path, "positions")), bits(&sent));
    // It is a dataset as it stands.
    let output = boltzflow(server.address, &["datasets", "upload", &file, "--system", "double-well"]).await;
    assert!(output.status.success(), "{}", text(&output));

    // One that never holds is given up; so are frames that are not those that were stored, and files of no kind.
    let address = torn(server.address, usize::MAX, 20_000).await;
    let begun = std::time::Instant::now();
    let output = boltzflow(address, &["datasets", "download", "waves", "-o", &file]).await;
    assert!(!output.status.success() && text(&output).contains("10 times"), "{}", text(&output));
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    let output = boltzflow(server.address, &["datasets", "download", "waves", "-o", "waves.xtcc"]).await;
    assert!(text(&output).contains(".npz, .xtc, .dcd or .pdb"), "{}", text(&output));
    let stored = folder.path().join("artifacts/datasets/waves");
    let stored = std::fs::read_dir(stored).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&stored).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&stored, bytes).unwrap();
    let output = boltzflow(server.address, &["datasets", "download", "waves", "-o", &file]).await;
    assert!(!output.status.success() && text(&output).contains("SHA-256"), "{}", text(&output));
    server.stop().await;
}

/// A molecule's frames in each format, read back; what it has no room for is beside it.
#[tokio::test(flavor = "multi_thread")]
async fn formats_hold_what_they_say_they_hold() {
    let (folder, server, mut c) = fresh().await;
    let text_of =
        |file: &str| std::fs::read_to_string(test_data("openmm/alanine-dipeptide-vacuum").join(file)).unwrap();
    let openmm = v1::OpenMmSystem { system_xml: text_of("system.xml"), topology_pdb: text_of("topology.pdb") };
    let system = v1::System { definition: Some(v1::system::Definition::Openmm(openmm)), ..v1::System::default() };
    let create = v1::CreateSystemRequest { system: Some(system), ..v1::CreateSystemRequest::default() };
    let system = c.systems.create_system(create).await.unwrap().into_inner().name;
    let task = v1::SimulationTask {
        system,
        temperatures: vec![300.0, 320.0],
        walkers: 2,
        steps: 60,
        stride: 20,
        dataset_id: "ala".into(),
        ..v1::SimulationTask::default()
    };
    let job = v1::Job { task: Some(v1::job::Task::Simulation(task)), ..v1::Job::default() };
    let request = v1::CreateJobRequest { job: Some(job), ..v1::CreateJobRequest::default() };
    let job = c.jobs.create_job(request).await.unwrap().into_inner();
    let job = c.finish(&job.name).await;
    assert_eq!(job.state(), v1::JobState::Succeeded, "{:?}", job.error);
    let mut stream = c.datasets.download_dataset(from("datasets/ala", 0, 0)).await.unwrap().into_inner();
    let all = stream.message().await.unwrap().unwrap();
    assert!(stream.message().await.unwrap().is_none());
    let (positions, temperatures, energies) =
        (numbers(all.positions), numbers(all.temperatures), numbers(all.energies));
    assert_eq!(positions.len(), 12 * 66);

    let near = |path: &Path, format: Format, error: f64| {
        let back = read(&std::fs::read(path).unwrap(), format).unwrap();
        assert_eq!((back.atoms, back.frames()), (22, 12));
        let worst = back.positions.iter().zip(&positions).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst <= error, "{format}: {worst}");
    };
    for (ending, format, error) in
        [("xtc", Format::Xtc, 0.000_501), ("dcd", Format::Dcd, 1e-6), ("pdb", Format::Pdb, 0.000_051)]
    {
        let path = folder.path().join(format!("ala.{ending}"));
        let output = boltzflow(server.address, &["datasets", "download", "ala", "-o", &path.to_string_lossy()]).await;
        assert!(output.status.success() && text(&output).contains("rounds"), "{}", text(&output));
        near(&path, format, error);
        let beside = folder.path().join(format!("ala.{ending}.npz"));
        assert_eq!(npz::read::<f64>(&beside, "temperatures"), temperatures);
        assert_eq!(bits(&npz::read::<f64>(&beside, "energies")), bits(&energies));
        assert_eq!(npz::read::<u64>(&beside, "index"), (0..12).collect::<Vec<_>>());
    }
    let path = folder.path().join("ala.npz");
    let output = boltzflow(server.address, &["datasets", "download", "ala", "-o", &path.to_string_lossy()]).await;
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(bits(&npz::read::<f64>(&path, "positions")), bits(&positions));
    assert_eq!(npz::read::<f64>(&path, "temperatures"), temperatures);

    // What is of no atoms is no trajectory.
    upload(&mut c, "systems/double-well", "flat", &[0.5; 8], &[4, 2]).await;
    let output = boltzflow(server.address, &["datasets", "download", "flat", "-o", "flat.xtc"]).await;
    assert!(!output.status.success() && text(&output).contains("atoms"), "{}", text(&output));
    server.stop().await;
}
