//! Speaking to a server, and what can go wrong with it.

use crate::contract::v1::dataset_service_client::DatasetServiceClient;
use crate::contract::v1::free_energy_service_client::FreeEnergyServiceClient;
use crate::contract::v1::job_service_client::JobServiceClient;
use crate::contract::v1::model_service_client::ModelServiceClient;
use crate::contract::v1::sampling_service_client::SamplingServiceClient;
use crate::contract::v1::system_service_client::SystemServiceClient;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Samples come in messages of up to 16 MiB.
const MAX_MESSAGE: usize = 64 << 20;

/// The server may write so much at once: a frame is a call to the system on both sides.
const FRAME: u32 = 1 << 20;

/// Which server to speak to.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ServerArgs {
    /// The server's address
    #[arg(long, env = "BOLTZFLOW_SERVER", value_name = "URL", default_value = "http://127.0.0.1:50051")]
    pub server: String,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    #[error("cannot reach the server at {url}: {reason}; is it running? (boltzflow serve)")]
    Unreachable { url: String, reason: String },
    #[error("{}", describe(.0))]
    Server(Box<Status>),
    #[error("{0}")]
    Failed(String),
    #[error("{0}")]
    Job(String),
}

impl From<Status> for CliError {
    fn from(status: Status) -> Self {
        Self::Server(Box::new(status))
    }
}

impl CliError {
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    /// What a file had to do with it.
    pub fn file(path: &std::path::Path, error: impl std::fmt::Display) -> Self {
        Self::Failed(format!("{}: {error}", path.display()))
    }

    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Unreachable { .. } => 3,
            Self::Server(status) => match status.code() {
                Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded => 3,
                Code::Internal | Code::Unknown | Code::DataLoss => 1,
                _ => 4,
            },
            Self::Job(_) => 5,
        }
    }
}

/// A status as a sentence, with its reason.
fn describe(status: &Status) -> String {
    match status.get_details_error_info() {
        Some(info) => format!("{} [{}]", status.message(), info.reason),
        None => format!("{} [{:?}]", status.message(), status.code()),
    }
}

/// Clients of all services, over one connection.
#[derive(Clone)]
pub(super) struct Clients {
    pub systems: SystemServiceClient<Channel>,
    pub datasets: DatasetServiceClient<Channel>,
    pub jobs: JobServiceClient<Channel>,
    pub models: ModelServiceClient<Channel>,
    pub sampling: SamplingServiceClient<Channel>,
    pub free_energy: FreeEnergyServiceClient<Channel>,
}

impl ServerArgs {
    /// Connects to the server.
    pub async fn connect(&self) -> Result<Clients, CliError> {
        let fail = |reason: String| CliError::Unreachable { url: self.server.clone(), reason };
        let endpoint = Endpoint::from_shared(self.server.clone())
            .map_err(|e| fail(e.to_string()))?
            .connect_timeout(Duration::from_secs(5))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20))
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(8 << 20)
            .max_frame_size(FRAME);
        let channel = endpoint.connect().await.map_err(|e| fail(root_cause(&e)))?;
        Ok(Clients {
            systems: SystemServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE + (32 << 20)),
            datasets: DatasetServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
            jobs: JobServiceClient::new(channel.clone()),
            models: ModelServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
            sampling: SamplingServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
            free_energy: FreeEnergyServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE),
        })
    }
}

/// All of a list that comes in pages: `page` asks for the one behind a token, and gives its items and the next token.
pub(super) async fn every_page<T>(
    mut page: impl AsyncFnMut(String) -> Result<(Vec<T>, String), CliError>,
) -> Result<Vec<T>, CliError> {
    let (mut all, mut next) = page(String::new()).await?;
    while !next.is_empty() {
        let (items, token) = page(next).await?;
        all.extend(items);
        next = token;
    }
    Ok(all)
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
