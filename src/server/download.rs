//! Downloads of datasets: frames in chunks, from any frame on.

use super::app::App;
use super::errors::ApiError;
use super::reply::Reply;
use crate::contract::{FieldError, array, check_encoding, id_of, v1};
use crate::energy::System;
use crate::scheduler::load_system;
use crate::store::{Artifacts, ArtifactsError, DatasetDocument, ResourceKind};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Bytes of frames in a message, with what is beside them, unless one frame has more.
const CHUNK_BYTES: u64 = 1 << 20;

/// Starts a download.
pub(super) async fn download(
    app: &App,
    request: v1::DownloadDatasetRequest,
) -> Result<ReceiverStream<Result<v1::DownloadDatasetResponse, Status>>, ApiError> {
    app.check_open()?;
    let id = id_of("name", "datasets", &request.name)?;
    let encoding = check_encoding(request.encoding)?;
    let index = |field: &'static str, value: i64| {
        u64::try_from(value).map_err(|_| FieldError::invalid(field, format!("{value} is negative")))
    };
    let first = index("first_frame", request.first_frame)?;
    let count = index("count", request.count)?;
    let resource = app.store.get_resource(ResourceKind::Dataset, id).await?;
    let document: DatasetDocument = resource.read()?;
    let frames = document.frames;
    if first > frames {
        return Err(ApiError::NoSuchFrame { first, frames });
    }
    let end = if count == 0 { frames } else { first.saturating_add(count).min(frames) };
    let system = load_system(app.store.as_ref(), resource.system.as_deref().unwrap_or_default()).await?;
    let permit = app.transfer().await?;
    let source = Source { artifacts: app.artifacts.clone(), document, system, encoding };
    source.check().await?;
    let draining = app.draining.clone();
    Ok(Reply::stream(app.limits.stall, async move |mut reply| {
        let _permit = permit;
        let step = (CHUNK_BYTES / (source.frame_bytes() + source.row_bytes())).max(1);
        let mut frame = first;
        while frame < end {
            if draining.is_cancelled() {
                return reply.fail(ApiError::DrainingStream { next_index: Some(frame) });
            }
            let n = step.min(end - frame);
            let message = match source.chunk(frame, n).await {
                Ok(message) => message,
                Err(e) => return reply.fail(e.into()),
            };
            let Some(open) = reply.send(message, Some(frame)).await else { return };
            reply = open;
            frame += n;
        }
        reply.finish();
    }))
}

/// A dataset's files, and how what is in them is written.
struct Source {
    artifacts: Artifacts,
    document: DatasetDocument,
    system: System,
    encoding: v1::ArrayEncoding,
}

impl Source {
    fn frame_bytes(&self) -> u64 {
        8 * self.document.dimension.max(1) as u64
    }

    /// Of what is beside a frame.
    fn row_bytes(&self) -> u64 {
        self.document.table().map_or(0, |(_, columns)| 8 * columns as u64)
    }

    /// That the files are there, and as long as they were: what is lost is said before anything is sent.
    async fn check(&self) -> Result<(), ApiError> {
        let table = self.document.table().map(|(path, columns)| (path, 8 * columns as u64));
        for (path, width) in std::iter::once((self.document.artifact.as_str(), self.frame_bytes())).chain(table) {
            if self.artifacts.size(path).await? != self.document.frames.saturating_mul(width) {
                return Err(ArtifactsError::CutShort(path.to_string()).into());
            }
        }
        Ok(())
    }

    /// The numbers of `n` frames in a file of `width` bytes for each.
    async fn read(&self, path: &str, width: u64, frame: u64, n: u64) -> Result<Vec<f64>, ArtifactsError> {
        let bytes =
            self.artifacts.get_range(path, frame.saturating_mul(width)..(frame + n).saturating_mul(width)).await?;
        Ok(bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect())
    }

    /// The message of `n` frames, with what is known of each beside them.
    async fn chunk(&self, frame: u64, n: u64) -> Result<v1::DownloadDatasetResponse, ArtifactsError> {
        let write = |numbers, shape: &[usize]| Some(array(numbers, shape, v1::DataType::Float64, self.encoding));
        let rows = n as usize;
        let positions = self.read(&self.document.artifact, self.frame_bytes(), frame, n).await?;
        let mut message = v1::DownloadDatasetResponse {
            first_frame: frame as i64,
            positions: write(positions, &self.system.shape(rows)),
            ..v1::DownloadDatasetResponse::default()
        };
        if let Some((path, columns)) = self.document.table() {
            let table = self.read(path, 8 * columns as u64, frame, n).await?;
            let column = |k: usize| write(table.iter().skip(k).step_by(columns).copied().collect(), &[rows]);
            if self.document.weighted.is_some() {
                (message.log_weights, message.reduced_energies, message.log_probs) = (column(0), column(1), column(2));
            } else {
                (message.temperatures, message.energies) = (column(0), column(1));
            }
        }
        Ok(message)
    }
}
