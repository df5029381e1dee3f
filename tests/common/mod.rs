//! Real servers on free loopback ports, and clients of them.
#![allow(dead_code)] // Each test program uses its part.

use boltzflow::compute::{DeviceChoice, Precision};
use boltzflow::contract::numbers;
use boltzflow::contract::v1::dataset_service_client::DatasetServiceClient;
use boltzflow::contract::v1::free_energy_service_client::FreeEnergyServiceClient;
use boltzflow::contract::v1::job_service_client::JobServiceClient;
use boltzflow::contract::v1::model_service_client::ModelServiceClient;
use boltzflow::contract::v1::sampling_service_client::SamplingServiceClient;
use boltzflow::contract::v1::system_service_client::SystemServiceClient;
use boltzflow::contract::v1::{self, job::Task, stream_samples_response::Part};
use boltzflow::server::{Limits, Server, ServerSettings};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::Channel;
use tonic_types::StatusExt;

pub struct TestServer {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub shutdown: CancellationToken,
    pub task: JoinHandle<()>,
}

pub fn settings(folder: &Path) -> ServerSettings {
    ServerSettings {
        database: format!("sqlite://{}/state.db", folder.display()),
        artifacts: format!("file://{}/artifacts", folder.display()),
        device: DeviceChoice::Cpu,
        precision: Precision::default(),
        limits: Limits::default(),
        drain: Duration::from_secs(10),
        lease: Duration::from_secs(30),
    }
}

impl TestServer {
    pub async fn start(settings: ServerSettings) -> Self {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Server::bind(settings, free, free).await.unwrap();
        let (address, admin) = (server.address().unwrap(), server.admin_address().unwrap());
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let task = tokio::spawn(async move { server.run(stop).await.unwrap() });
        Self { address, admin, shutdown, task }
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }

    pub async fn clients(&self) -> Clients {
        Clients::connect(&format!("http://{}", self.address)).await
    }
}

/// A server with a folder of its own, and clients of it.
pub async fn fresh() -> (TempDir, TestServer, Clients) {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(settings(folder.path())).await;
    let clients = server.clients().await;
    (folder, server, clients)
}

#[derive(Clone)]
pub struct Clients {
    pub channel: Channel,
    pub systems: SystemServiceClient<Channel>,
    pub datasets: DatasetServiceClient<Channel>,
    pub jobs: JobServiceClient<Channel>,
    pub models: ModelServiceClient<Channel>,
    pub sampling: SamplingServiceClient<Channel>,
    pub free_energy: FreeEnergyServiceClient<Channel>,
}

impl Clients {
    pub async fn connect(url: &str) -> Self {
        let channel = Channel::from_shared(url.to_string()).unwrap().connect().await.unwrap();
        let most = 128 << 20;
        Self {
            systems: SystemServiceClient::new(channel.clone()).max_encoding_message_size(most),
            datasets: DatasetServiceClient::new(channel.clone()).max_decoding_message_size(most),
            jobs: JobServiceClient::new(channel.clone()),
            models: ModelServiceClient::new(channel.clone()).max_decoding_message_size(most),
            sampling: SamplingServiceClient::new(channel.clone()).max_decoding_message_size(most),
            free_energy: FreeEnergyServiceClient::new(channel.clone()),
            channel,
        }
    }

    pub async fn create(&mut self, task: v1::TrainingTask) -> v1::Job {
        self.jobs.create_job(job_request(task)).await.unwrap().into_inner()
    }

    /// Waits until a job is over.
    pub async fn finish(&mut self, name: &str) -> v1::Job {
        let request = v1::WatchJobRequest { name: name.to_string(), after_sequence: 0 };
        let mut events = self.jobs.watch_job(request).await.unwrap().into_inner();
        while events.message().await.unwrap().is_some() {}
        self.job(name).await
    }

    pub async fn job(&mut self, name: &str) -> v1::Job {
        self.jobs.get_job(v1::GetJobRequest { name: name.to_string() }).await.unwrap().into_inner()
    }

    /// Waits until a job has made so many steps.
    pub async fn wait_for_step(&mut self, name: &str, step: i64) {
        let begin = Instant::now();
        loop {
            let job = self.job(name).await;
            if job.progress.as_ref().is_some_and(|p| p.step >= step) {
                return;
            }
            assert!(begin.elapsed() < Duration::from_secs(120), "{name} does not get to step {step}: {job:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Trains a model and answers with its name.
    pub async fn train(&mut self, task: v1::TrainingTask) -> String {
        let job = self.create(task).await;
        let job = self.finish(&job.name).await;
        assert_eq!(job.state(), v1::JobState::Succeeded, "{:?}", job.error);
        job.model
    }

    pub async fn sample(&mut self, request: v1::StreamSamplesRequest) -> Result<Samples, Status> {
        let mut stream = self.sampling.stream_samples(request).await?.into_inner();
        let mut samples = Samples::default();
        while let Some(message) = stream.message().await? {
            samples.add(message);
        }
        Ok(samples)
    }

    /// The final answer.
    pub async fn estimate(
        &mut self,
        request: v1::EstimateFreeEnergyRequest,
    ) -> Result<v1::EstimateFreeEnergyResponse, Status> {
        let mut stream = self.free_energy.estimate_free_energy(request).await?.into_inner();
        let mut last = None;
        while let Some(message) = stream.message().await? {
            last = Some(message);
        }
        Ok(last.filter(|answer| answer.r#final).expect("a final estimate"))
    }

    /// The final answer.
    pub async fn difference(
        &mut self,
        request: v1::EstimateFreeEnergyDifferenceRequest,
    ) -> Result<v1::EstimateFreeEnergyDifferenceResponse, Status> {
        let mut stream = self.free_energy.estimate_free_energy_difference(request).await?.into_inner();
        let mut last = None;
        while let Some(message) = stream.message().await? {
            last = Some(message);
        }
        Ok(last.filter(|answer| answer.r#final).expect("a final estimate"))
    }

    /// Stores frames (n, d) of a system as a dataset, and answers with its name.
    pub async fn upload(&mut self, system: &str, id: &str, temperature: f64, frames: &[f64], d: usize) -> String {
        use v1::upload_dataset_request::Part;
        let dataset = v1::Dataset { system: system.into(), temperature, ..v1::Dataset::default() };
        let header = v1::UploadHeader { dataset: Some(dataset), dataset_id: id.into(), request_id: String::new() };
        let mut messages = vec![v1::UploadDatasetRequest { part: Some(Part::Header(header)) }];
        for chunk in frames.chunks(10_000 * d) {
            let shape = [chunk.len() / d, d];
            let positions = Some(boltzflow::contract::array(
                chunk.to_vec(),
                &shape,
                v1::DataType::Float64,
                v1::ArrayEncoding::Bytes,
            ));
            messages.push(v1::UploadDatasetRequest { part: Some(Part::Frames(v1::FrameChunk { positions })) });
        }
        self.datasets.upload_dataset(tokio_stream::iter(messages)).await.unwrap().into_inner().name
    }

    /// Stores an analytic system, and answers with its name.
    pub async fn analytic(&mut self, id: &str, potential: v1::analytic_potential::Potential) -> String {
        let analytic = v1::AnalyticPotential { potential: Some(potential) };
        let system =
            v1::System { definition: Some(v1::system::Definition::Analytic(analytic)), ..v1::System::default() };
        let request = v1::CreateSystemRequest {
            system: Some(system),
            system_id: id.into(),
            ..v1::CreateSystemRequest::default()
        };
        self.systems.create_system(request).await.unwrap().into_inner().name
    }

    /// The bytes of a model's weights, by path.
    pub async fn weights(&mut self, model: &str) -> BTreeMap<String, Vec<u8>> {
        let file = self.export(model).await;
        let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
        tensors.tensors().into_iter().map(|(name, view)| (name, view.data().to_vec())).collect()
    }

    pub async fn export(&mut self, model: &str) -> Vec<u8> {
        let request = v1::ExportModelRequest { name: model.to_string() };
        let mut stream = self.models.export_model(request).await.unwrap().into_inner();
        let mut file = Vec::new();
        while let Some(message) = stream.message().await.unwrap() {
            file.extend(message.data);
        }
        file
    }
}

pub fn job_request(task: v1::TrainingTask) -> v1::CreateJobRequest {
    let job = v1::Job { task: Some(Task::Training(task)), ..v1::Job::default() };
    v1::CreateJobRequest { job: Some(job), ..v1::CreateJobRequest::default() }
}

/// A small flow on the double well, trained for so many steps of 128 samples.
pub fn small_task(steps: i64) -> v1::TrainingTask {
    v1::TrainingTask {
        system: "systems/double-well".into(),
        seed: 7,
        architecture: Some(v1::FlowArchitecture {
            kind: v1::FlowKind::Spline.into(),
            couplings: 4,
            hidden: vec![16],
            bins: 8,
            ..v1::FlowArchitecture::default()
        }),
        stages: vec![v1::TrainingStage {
            steps,
            batch: 128,
            reverse_kl: Some(v1::Ramp { start: 1.0, end: 1.0, shape: 0 }),
            learning_rate: Some(v1::Ramp { start: 2e-3, end: 2e-3, shape: 0 }),
            ..v1::TrainingStage::default()
        }],
        validation_every: 10,
        validation_samples: 512,
        checkpoint_every: 10,
        ..v1::TrainingTask::default()
    }
}

/// All that a stream of samples brought.
#[derive(Default, Debug)]
pub struct Samples {
    pub header: Option<v1::SampleHeader>,
    pub summary: Option<v1::SampleSummary>,
    pub first_indices: Vec<u64>,
    pub positions: Vec<f64>,
    pub log_weights: Vec<f64>,
    pub reduced_energies: Vec<f64>,
    pub log_probs: Vec<f64>,
    pub forces: Vec<f64>,
    pub shape: Vec<usize>,
}

impl Samples {
    /// Reads a stream that breaks off: the status, and the index that it says to go on from, which is that of the first
    /// sample that did not come.
    pub async fn until_broken(&mut self, stream: &mut tonic::Streaming<v1::StreamSamplesResponse>) -> (Status, u64) {
        loop {
            match stream.message().await {
                Ok(Some(message)) => self.add(message),
                Ok(None) => panic!("the stream ended as if it were whole"),
                Err(status) => {
                    let info = status.get_details_error_info().unwrap();
                    let next = info.metadata["next_index"].parse().unwrap();
                    assert_eq!(next, self.log_weights.len() as u64);
                    return (status, next);
                }
            }
        }
    }

    pub fn add(&mut self, message: v1::StreamSamplesResponse) {
        match message.part.unwrap() {
            Part::Header(header) => self.header = Some(header),
            Part::Summary(summary) => self.summary = Some(summary),
            Part::Batch(batch) => {
                let read = |array: Option<v1::Array>| numbers("array", &array.unwrap()).unwrap();
                let (positions, shape) = read(batch.positions);
                self.first_indices.push(batch.first_index);
                self.shape = shape;
                self.positions.extend(positions);
                self.log_weights.extend(read(batch.log_weights).0);
                self.reduced_energies.extend(read(batch.reduced_energies).0);
                self.log_probs.extend(read(batch.log_probs).0);
                if batch.forces.is_some() {
                    self.forces.extend(read(batch.forces).0);
                }
            }
        }
    }
}

/// The reason in a status's ErrorInfo, which every error has.
pub fn reason(status: &Status) -> String {
    status.get_details_error_info().unwrap_or_else(|| panic!("{status:?} has no ErrorInfo")).reason
}

pub fn test_data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(path)
}

/// Plain HTTP, as a probe speaks it: (status, body).
pub async fn http_get(address: SocketAddr, path: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let status = text.split(' ').nth(1).unwrap().parse().unwrap();
    (status, text)
}

/// The real binary, as a cluster runs it.
pub struct Process {
    child: Child,
    pub url: String,
}

impl Process {
    pub fn start(folder: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_boltzflow"))
            .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--device", "cpu", "--log", "warn"])
            .arg(format!("--database=sqlite://{}/state.db", folder.display()))
            .arg(format!("--artifacts=file://{}/artifacts", folder.display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.strip_prefix("listening on ").and_then(|l| l.split(',').next());
        let url = format!("http://{}", address.unwrap_or_else(|| panic!("no address in '{line}'")));
        Self { child, url }
    }

    /// SIGKILL: no handler runs, nothing is flushed.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn terminate(mut self) -> bool {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        self.child.wait().unwrap().success()
    }

    /// Bytes of resident memory.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        1024 * line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    }
}
