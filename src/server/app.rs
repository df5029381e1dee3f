//! What all services share.

use super::errors::ApiError;
use crate::contract::{FieldError, check_id};
use crate::engine::Engine;
use crate::metrics::Metrics;
use crate::store::{Artifacts, RequestKey, Store};
use prost::Message;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

/// Who owns what is created while there is no authentication.
pub(super) const OWNER: &str = "anonymous";

/// How long a call waits for others to end.
const TRANSFER_WAIT: Duration = Duration::from_secs(10);

const MAX_REQUEST_ID: usize = 64;
const MAX_DISPLAY_NAME: usize = 200;
const MAX_LABELS: usize = 64;
const MAX_LABEL: usize = 63;

/// What a server accepts at most.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Streams of samples and estimates at a time.
    pub streams: usize,
    /// How long a stream waits for a client that does not read.
    pub stall: Duration,
    /// Uploads, downloads and evaluations at a time.
    pub transfers: usize,
    /// Jobs that wait or run.
    pub unfinished_jobs: u64,
    /// Bytes of a dataset.
    pub dataset_bytes: u64,
    /// Bytes of an imported model.
    pub model_bytes: usize,
    /// Models kept in memory.
    pub loaded_models: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams: 64,
            stall: Duration::from_secs(300),
            transfers: 4,
            unfinished_jobs: 1000,
            dataset_bytes: 1 << 30,
            model_bytes: 256 << 20,
            loaded_models: 16,
        }
    }
}

/// The parts that handlers work with.
#[derive(Clone)]
pub(super) struct App {
    pub store: Arc<dyn Store>,
    pub artifacts: Artifacts,
    pub engine: Engine,
    pub metrics: Metrics,
    /// Room for calls that hold much in memory.
    pub transfers: Arc<Semaphore>,
    pub limits: Limits,
    pub draining: CancellationToken,
}

impl App {
    /// Refuses new work while the server drains.
    pub fn check_open(&self) -> Result<(), ApiError> {
        if self.draining.is_cancelled() { Err(ApiError::Draining) } else { Ok(()) }
    }

    /// Room for a call that holds much in memory; there is a short wait for it.
    pub async fn transfer(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let room = Arc::clone(&self.transfers).acquire_owned();
        match tokio::time::timeout(TRANSFER_WAIT, room).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(ApiError::TooManyTransfers),
        }
    }

    /// The next message of a client's stream; a client that sends nothing for too long loses its place.
    pub async fn next_message<T>(&self, stream: &mut Streaming<T>) -> Result<Option<T>, ApiError> {
        match tokio::time::timeout(self.limits.stall, stream.message()).await {
            Ok(message) => message.map_err(ApiError::Transport),
            Err(_) => Err(ApiError::SilentClient),
        }
    }
}

/// The key of a create request, if it has an id: the id, and a hash of the request without it.
pub(super) fn request_key(id: &str, request: &impl Message) -> Result<Option<RequestKey>, FieldError> {
    if id.is_empty() {
        return Ok(None);
    }
    if id.len() > MAX_REQUEST_ID || !id.bytes().all(|b| b.is_ascii_graphic()) {
        let reason = format!("it must be at most {MAX_REQUEST_ID} printable ASCII characters without spaces");
        return Err(FieldError::invalid("request_id", reason));
    }
    let hash = Sha256::digest(request.encode_to_vec()).iter().map(|b| format!("{b:02x}")).collect();
    Ok(Some(RequestKey { id: id.to_string(), hash }))
}

/// The id that the client asks for, or a new one.
pub(super) fn chosen_id(field: &str, requested: &str, prefix: &str) -> Result<String, FieldError> {
    if requested.is_empty() {
        // The low bits of a version 7 UUID are random.
        let random = uuid::Uuid::now_v7().as_u128() & 0xffff_ffff_ffff;
        return Ok(format!("{prefix}-{random:012x}"));
    }
    check_id(field, requested)?;
    Ok(requested.to_string())
}

/// That what people write about a resource has bounds.
pub(super) fn check_notes(
    field: &str,
    display_name: &str,
    labels: &BTreeMap<String, String>,
) -> Result<(), FieldError> {
    if display_name.chars().count() > MAX_DISPLAY_NAME {
        let reason = format!("it has more than {MAX_DISPLAY_NAME} characters");
        return Err(FieldError::invalid(format!("{field}.display_name"), reason));
    }
    let too_long = labels.iter().any(|(k, v)| k.is_empty() || k.len() > MAX_LABEL || v.len() > MAX_LABEL);
    if labels.len() > MAX_LABELS || too_long {
        let reason =
            format!("at most {MAX_LABELS} labels, keys of 1 to {MAX_LABEL} bytes, values of at most {MAX_LABEL}");
        return Err(FieldError::invalid(format!("{field}.labels"), reason));
    }
    Ok(())
}

/// The display name, without anything that could upset a terminal.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
