//! Errors as a client sees them: a code, a reason that a program can match, a sentence that a person can act on.

use crate::contract::{ERROR_DOMAIN, FieldError};
use crate::energy::EnergyError;
use crate::engine::{EngineError, FramesError};
use crate::sample::{ArtifactError, SampleError};
use crate::scheduler::LoadSystemError;
use crate::store::{ArtifactsError, StoreError};
use crate::thermo::{BarError, MbarError};
use std::collections::HashMap;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use tracing::error;

/// Everything that a handler can answer instead of a result.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Artifacts(#[from] ArtifactsError),
    /// The system cannot be used for what was asked.
    #[error("{0}")]
    Unsuitable(String),
    #[error("{0} cannot be changed: it comes with the server")]
    ReadOnly(String),
    #[error("there are as many streams as this server allows; try again, or take another replica")]
    TooManyStreams,
    #[error("there are as many uploads, downloads and evaluations as this server allows; try again in a moment")]
    TooManyTransfers,
    #[error("nothing was sent for so long that the call had to end; send it again")]
    SilentClient,
    #[error("{0}")]
    TooLarge(String),
    #[error("the server is shutting down; go on from {}, on another replica or here in a moment", resume(.next_index))]
    DrainingStream { next_index: Option<u64> },
    #[error("nothing was read from the stream for so long that it had to end; go on from {}", resume(.next_index))]
    Stalled { next_index: Option<u64> },
    #[error(
        "max_duration was over before pilots had found how to make the first sample; give it longer, or the numbers themselves"
    )]
    OutOfTime,
    #[error("the server is shutting down; try again in a moment")]
    Draining,
    #[error(
        "at temperature {temperature} {} % of the samples are effective, and the request asks for {} % at least; train a model \
         for a range of temperatures (temperature_range) with this one in it, or ask without least_effective_fraction",
        percent(.effective_fraction), percent(.least)
    )]
    Uncovered { temperature: f64, effective_fraction: f64, least: f64 },
    /// End points whose free energies mean different things.
    #[error("{0}")]
    Incomparable(String),
    /// Samples of two ends that have no difference.
    #[error(transparent)]
    Difference(#[from] BarError),
    /// Samples and frames that have no free energies together.
    #[error("the model's samples are state 0 and those after it, then come the temperatures of the frames: {0}")]
    Joint(MbarError),
    /// Frames that cannot be used for what was asked.
    #[error("{0}")]
    Frames(FramesError),
    #[error("first_frame: it is {first}, and the dataset has {frames} frames, counted from 0")]
    NoSuchFrame { first: u64, frames: u64 },
    #[error("{0}")]
    Damaged(String),
    /// A system's definition, or numbers for it, in the field that they are in.
    #[error("{field}: {error}")]
    Definition { field: &'static str, error: EnergyError },
    /// An uploaded model file.
    #[error("{0}")]
    ModelFile(#[from] ArtifactError),
    /// What the transport said: the client went away, or sent what is not a message.
    #[error("{}", .0.message())]
    Transport(Status),
    #[error("{0}")]
    Internal(String),
}

impl From<LoadSystemError> for ApiError {
    fn from(error: LoadSystemError) -> Self {
        match error {
            LoadSystemError::Store(e) => Self::Store(e),
            LoadSystemError::Energy(e) => Self::Damaged(format!("the stored system: {e}")),
            LoadSystemError::Lost => Self::Internal("building a system panicked".into()),
        }
    }
}

impl From<FramesError> for ApiError {
    fn from(error: FramesError) -> Self {
        match error {
            FramesError::Store(e) => Self::Store(e),
            FramesError::Artifacts { source, .. } => Self::Artifacts(source),
            FramesError::Short { .. } => Self::Damaged(error.to_string()),
            error => Self::Frames(error),
        }
    }
}

impl From<SampleError> for ApiError {
    fn from(error: SampleError) -> Self {
        Self::Engine(EngineError::Sample(error.into()))
    }
}

fn resume(next_index: &Option<u64>) -> String {
    next_index.map_or_else(|| "the beginning".to_string(), |index| format!("index {index}"))
}

const SOON: Duration = Duration::from_secs(5);

/// What a status says besides its sentence.
struct Shape {
    code: Code,
    reason: &'static str,
    retry: Option<Duration>,
    field: Option<String>,
    resource: Option<(&'static str, String)>,
    metadata: HashMap<String, String>,
}

impl Shape {
    fn new(code: Code, reason: &'static str) -> Self {
        Self { code, reason, retry: None, field: None, resource: None, metadata: HashMap::new() }
    }

    fn retry(mut self, delay: Duration) -> Self {
        self.retry = Some(delay);
        self
    }

    fn next_index(mut self, index: Option<u64>) -> Self {
        self.metadata.extend(index.map(|index| ("next_index".to_string(), index.to_string())));
        self
    }

    fn field(mut self, field: &str) -> Self {
        self.field = Some(field.to_string());
        self
    }

    fn resource(mut self, kind: &'static str, name: &str) -> Self {
        self.resource = Some((kind, name.to_string()));
        self
    }
}

fn percent(fraction: &f64) -> String {
    format!("{:.3}", 100.0 * fraction)
}

impl ApiError {
    fn shape(&self) -> Shape {
        match self {
            Self::Field(FieldError { field, .. }) => Shape::new(Code::InvalidArgument, "INVALID_FIELD").field(field),
            Self::Store(e) => store_shape(e),
            Self::Engine(EngineError::Store(e)) => store_shape(e),
            Self::Engine(EngineError::Artifacts { source: ArtifactsError::Missing(_), .. })
            | Self::Engine(EngineError::Damaged { .. })
            | Self::Damaged(_)
            | Self::Artifacts(ArtifactsError::Missing(_) | ArtifactsError::CutShort(_)) => {
                Shape::new(Code::DataLoss, "DAMAGED_ARTIFACT")
            }
            Self::Engine(EngineError::Artifacts { .. }) | Self::Artifacts(_) => {
                Shape::new(Code::Unavailable, "STORE_UNAVAILABLE").retry(SOON)
            }
            Self::Engine(EngineError::Sample(e)) if matches!(**e, SampleError::IndexOverflow) => {
                Shape::new(Code::OutOfRange, "INDEX_OVERFLOW").field("first_index")
            }
            Self::Engine(_) | Self::Internal(_) => Shape::new(Code::Internal, "INTERNAL"),
            Self::Unsuitable(_) => Shape::new(Code::FailedPrecondition, "UNSUITABLE_SYSTEM"),
            Self::ReadOnly(_) => Shape::new(Code::FailedPrecondition, "READ_ONLY_RESOURCE"),
            Self::TooManyStreams => Shape::new(Code::ResourceExhausted, "TOO_MANY_STREAMS").retry(SOON),
            Self::TooManyTransfers => Shape::new(Code::ResourceExhausted, "TOO_MANY_TRANSFERS").retry(SOON),
            Self::SilentClient => Shape::new(Code::Aborted, "STREAM_STALLED"),
            Self::OutOfTime => Shape::new(Code::DeadlineExceeded, "OUT_OF_TIME"),
            Self::TooLarge(_) => Shape::new(Code::ResourceExhausted, "UPLOAD_TOO_LARGE"),
            Self::DrainingStream { next_index } => {
                Shape::new(Code::Unavailable, "DRAINING").retry(SOON).next_index(*next_index)
            }
            Self::Stalled { next_index } => Shape::new(Code::Aborted, "STREAM_STALLED").next_index(*next_index),
            Self::Uncovered { effective_fraction, .. } => {
                let mut shape = Shape::new(Code::FailedPrecondition, "TEMPERATURE_NOT_COVERED");
                shape.metadata.insert("effective_fraction".to_string(), effective_fraction.to_string());
                shape
            }
            Self::Incomparable(_) => Shape::new(Code::FailedPrecondition, "INCOMPARABLE_ENDS"),
            Self::Difference(BarError::NoOverlap)
            | Self::Joint(MbarError::Disconnected(_) | MbarError::NotConverged(_) | MbarError::Unreachable(_)) => {
                Shape::new(Code::FailedPrecondition, "NO_OVERLAP")
            }
            Self::Difference(_) | Self::Joint(_) | Self::Frames(_) => {
                Shape::new(Code::FailedPrecondition, "UNSUITABLE_DATASET")
            }
            Self::NoSuchFrame { .. } => Shape::new(Code::OutOfRange, "FRAME_OUT_OF_RANGE").field("first_frame"),
            Self::Draining => Shape::new(Code::Unavailable, "DRAINING").retry(SOON),
            Self::Definition { field, error: EnergyError::Unsupported { .. } } => {
                Shape::new(Code::InvalidArgument, "UNSUPPORTED_FORCE").field(field)
            }
            Self::Definition { field, .. } => Shape::new(Code::InvalidArgument, "MALFORMED_SYSTEM").field(field),
            Self::ModelFile(_) => Shape::new(Code::DataLoss, "DAMAGED_ARTIFACT").field("data"),
            Self::Transport(status) => Shape::new(status.code(), reason_of(status.code())),
        }
    }
}

fn store_shape(error: &StoreError) -> Shape {
    match error {
        StoreError::Exists { kind, id } => Shape::new(Code::AlreadyExists, "RESOURCE_EXISTS").resource(kind, id),
        StoreError::RequestReused(_) => Shape::new(Code::AlreadyExists, "REQUEST_ID_REUSED").field("request_id"),
        StoreError::NotFound { kind, id } => Shape::new(Code::NotFound, "RESOURCE_NOT_FOUND").resource(kind, id),
        StoreError::InUse(_) => Shape::new(Code::FailedPrecondition, "RESOURCE_IN_USE"),
        StoreError::JobOver { .. } => Shape::new(Code::FailedPrecondition, "JOB_FINISHED"),
        StoreError::JobNotOver { .. } => Shape::new(Code::FailedPrecondition, "JOB_NOT_FINISHED"),
        StoreError::QueueFull(_) => Shape::new(Code::ResourceExhausted, "QUEUE_FULL").retry(Duration::from_secs(60)),
        StoreError::Damaged(_) => Shape::new(Code::DataLoss, "DAMAGED_ARTIFACT"),
        StoreError::Database(_) | StoreError::LeaseLost(_) | StoreError::Setup(_) => {
            Shape::new(Code::Unavailable, "STORE_UNAVAILABLE").retry(SOON)
        }
    }
}

/// One conversion for all errors that `?` meets in a handler.
macro_rules! into_status {
    ($($error:ty),*) => {
        $(impl From<$error> for Status {
            fn from(error: $error) -> Self {
                ApiError::from(error).into()
            }
        })*
    };
}

into_status!(FieldError, StoreError, EngineError, ArtifactsError, LoadSystemError, SampleError, FramesError, BarError);

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let shape = error.shape();
        let message = match (&error, shape.code) {
            // What went wrong inside is for the log, not for the client.
            (ApiError::Engine(_) | ApiError::Internal(_), Code::Internal) => {
                error!(%error, "internal error");
                "the server failed; its log has the reason".to_string()
            }
            (ApiError::Store(StoreError::Database(_)) | ApiError::Engine(EngineError::Store(_)), Code::Unavailable) => {
                error!(%error, "the database failed");
                "the database does not answer; try again in a moment".to_string()
            }
            (
                ApiError::Artifacts(ArtifactsError::Store(_))
                | ApiError::Engine(EngineError::Artifacts { source: ArtifactsError::Store(_), .. }),
                _,
            ) => {
                error!(%error, "the artifact store failed");
                "the server's files cannot be read or written now; try again in a moment".to_string()
            }
            _ => error.to_string(),
        };
        status(&shape, clipped(message))
    }
}

/// Messages go into headers, which have a limit; parts of a request that they quote may be long.
fn clipped(mut message: String) -> String {
    const MOST: usize = 1000;
    if message.len() > MOST {
        message.truncate(message.floor_char_boundary(MOST));
        message.push('…');
    }
    message
}

fn status(shape: &Shape, message: String) -> Status {
    let mut details = ErrorDetails::with_error_info(shape.reason, ERROR_DOMAIN, shape.metadata.clone());
    if let Some(field) = &shape.field {
        details.add_bad_request_violation(clipped(field.clone()), &message);
    }
    if let Some(delay) = shape.retry {
        details.set_retry_info(Some(delay));
    }
    if let Some((kind, name)) = &shape.resource {
        details.set_resource_info(*kind, name, "", &message);
    }
    Status::with_error_details(shape.code, message, details)
}

/// The reason for a status that the transport made itself.
fn reason_of(code: Code) -> &'static str {
    match code {
        Code::InvalidArgument => "INVALID_FIELD",
        Code::OutOfRange | Code::ResourceExhausted => "MESSAGE_TOO_LARGE",
        Code::Unimplemented => "NOT_IMPLEMENTED",
        Code::Cancelled => "CANCELLED",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::Unavailable => "UNAVAILABLE",
        _ => "INTERNAL",
    }
}

/// The same status with an ErrorInfo, if the transport made it without one.
pub(super) fn with_error_info(status: &Status) -> Status {
    ApiError::Transport(status.clone()).into()
}
