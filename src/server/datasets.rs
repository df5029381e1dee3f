//! DatasetService.

use super::app::{App, OWNER, check_notes, chosen_id, clean, request_key};
use super::convert;
use super::download::download;
use super::errors::ApiError;
use super::pages::{next_token, read_page};
use crate::contract::v1;
use crate::contract::v1::dataset_service_server::DatasetService;
use crate::contract::{FieldError, id_of, rows};
use crate::energy::System;
use crate::engine::Priority;
use crate::scheduler::{EnergyRange, load_system};
use crate::store::{ArtifactsError, Created, DatasetDocument, NewResource, ResourceKind, StoreError};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Energies more than this many kT per degree of freedom above the lowest look like a wrong unit.
const SUSPICIOUS: f64 = 100.0;

/// Datasets and their frames.
pub(super) struct Datasets {
    pub app: App,
}

/// What is learned of frames while they arrive.
struct Intake {
    system: System,
    hash: Sha256,
    bytes: u64,
    energies: EnergyRange,
    unit_warning: Option<String>,
}

impl Intake {
    /// Checks frames, evaluates their energies, and gives their bytes to store.
    fn add(&mut self, frames: &[f64]) -> Result<Vec<u8>, ApiError> {
        let d = self.system.dimension();
        let frame_of = |i: usize| self.energies.count + (i / d) as u64;
        if let Some(i) = frames.iter().position(|x| !x.is_finite()) {
            let reason = format!("frame {} holds {}; all positions must be finite", frame_of(i), frames[i]);
            return Err(FieldError::invalid("frames.positions", reason).into());
        }
        if self.energies.count == 0 {
            self.unit_warning = self.system.unit_warning(frames);
        }
        let mut energies = vec![0.0; frames.len() / d];
        let evaluated = self.system.potential().evaluate(frames, &mut energies, None);
        evaluated.map_err(|error| ApiError::Definition { field: "frames.positions", error })?;
        if let Some(i) = energies.iter().position(|e| !e.is_finite()) {
            let reason = format!(
                "frame {} has the energy {}: its atoms overlap, or its positions are not in the system's length unit",
                frame_of(i * d),
                energies[i]
            );
            return Err(FieldError::invalid("frames.positions", reason).into());
        }
        energies.into_iter().for_each(|energy| self.energies.add(energy));
        let bytes: Vec<u8> = frames.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.hash.update(&bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes)
    }

    fn warnings(&self, temperature: f64) -> Vec<String> {
        let mut warnings: Vec<String> = self.unit_warning.clone().into_iter().collect();
        let reference = if temperature > 0.0 { temperature } else { 300.0 };
        let spread = (self.energies.mean - self.energies.least) / self.system.scale().kt(reference);
        if spread > SUSPICIOUS * self.system.dimension() as f64 {
            warnings.push(format!(
                "The mean energy is {spread:.0} kT above the lowest: are the positions in the system's length unit?"
            ));
        }
        if temperature == 0.0 {
            warnings.push("The temperature of the frames is unknown.".to_string());
        }
        warnings
    }
}

impl Datasets {
    async fn upload(&self, mut stream: Streaming<v1::UploadDatasetRequest>) -> Result<v1::Dataset, ApiError> {
        self.app.check_open()?;
        let _permit = self.app.transfer().await?;
        let first = self.app.next_message(&mut stream).await?;
        let Some(v1::upload_dataset_request::Part::Header(mut header)) = first.and_then(|m| m.part) else {
            return Err(FieldError::invalid("header", "the first message must have it").into());
        };
        let request_id = std::mem::take(&mut header.request_id);
        let mut key = request_key(&request_id, &header)?;
        let Some(dataset) = header.dataset else {
            return Err(FieldError::invalid("header.dataset", "it is missing").into());
        };
        check_notes("header.dataset", &dataset.display_name, &dataset.labels)?;
        let id = chosen_id("header.dataset_id", &header.dataset_id, "dataset")?;
        if !(dataset.temperature.is_finite() && dataset.temperature >= 0.0) {
            let reason = format!("it is {}; give a positive number, or 0 if it is unknown", dataset.temperature);
            return Err(FieldError::invalid("header.dataset.temperature", reason).into());
        }
        let system_id = id_of("header.dataset.system", "systems", &dataset.system)?.to_string();
        let system = load_system(self.app.store.as_ref(), &system_id).await?;

        let path = format!("datasets/{id}/{}.f64", uuid::Uuid::now_v7().simple());
        let mut writer = self.app.artifacts.writer(&path).await?;
        let intake =
            Intake { system, hash: Sha256::new(), bytes: 0, energies: EnergyRange::default(), unit_warning: None };
        let taken = self.take_frames(&mut stream, intake, &mut writer).await;
        let intake = match taken {
            Ok(intake) => intake,
            Err(e) => {
                // The client's error is what matters.
                let _ = writer.abort().await;
                return Err(e);
            }
        };
        writer.finish().await.map_err(ArtifactsError::from)?;
        let warnings = intake.warnings(dataset.temperature);
        let digest: String = intake.hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
        if let Some(key) = &mut key {
            key.hash.push_str(&digest);
        }
        let document = DatasetDocument {
            display_name: clean(&dataset.display_name),
            labels: dataset.labels,
            temperature: dataset.temperature,
            frames: intake.energies.count,
            dimension: intake.system.dimension(),
            digest,
            artifact: path.clone(),
            energy_min: intake.energies.least,
            energy_mean: intake.energies.mean,
            energy_max: intake.energies.greatest,
            energy_digest: intake.system.digest().to_string(),
            warnings,
            simulated: None,
            weighted: None,
        };
        let document = serde_json::to_string(&document).map_err(|e| ApiError::Internal(e.to_string()))?;
        let new = NewResource {
            kind: ResourceKind::Dataset,
            id,
            owner: OWNER.into(),
            system: Some(system_id),
            request: key,
            document,
        };
        let created = self.app.store.create_resource(new, false).await;
        // A repeated request, and one that lost the name, leave the frames that they brought; a database that fails may
        // have stored the row all the same.
        if !matches!(&created, Ok(Created::New(_)) | Err(StoreError::Database(_))) {
            self.app.artifacts.delete(&path).await?;
        }
        convert::dataset(&created?.into_inner())
    }

    async fn take_frames(
        &self,
        stream: &mut Streaming<v1::UploadDatasetRequest>,
        mut intake: Intake,
        writer: &mut object_store::WriteMultipart,
    ) -> Result<Intake, ApiError> {
        while let Some(message) = self.app.next_message(stream).await? {
            let Some(v1::upload_dataset_request::Part::Frames(chunk)) = message.part else {
                return Err(FieldError::invalid("frames", "every message after the first must have it").into());
            };
            let (d, atoms) = (intake.system.dimension(), intake.system.atoms());
            let frames = rows("frames.positions", chunk.positions.as_ref(), d, atoms)?;
            let limit = self.app.limits.dataset_bytes;
            if intake.bytes.saturating_add(8 * frames.len() as u64) > limit {
                return Err(ApiError::TooLarge(format!("a dataset has at most {limit} bytes; send fewer frames")));
            }
            let slot = Arc::clone(&self.app.engine.slot);
            let computed = tokio::task::spawn_blocking(move || {
                let _turn = slot.acquire(Priority::Interactive);
                let bytes = intake.add(&frames)?;
                Ok::<_, ApiError>((intake, bytes))
            });
            let (back, bytes) = computed.await.map_err(|_| ApiError::Internal("reading frames panicked".into()))??;
            intake = back;
            writer.wait_for_capacity(2).await.map_err(ArtifactsError::from)?;
            writer.write(&bytes);
        }
        if intake.energies.count == 0 {
            return Err(FieldError::invalid("frames", "there are none").into());
        }
        Ok(intake)
    }
}

#[tonic::async_trait]
impl DatasetService for Datasets {
    type DownloadDatasetStream = ReceiverStream<Result<v1::DownloadDatasetResponse, Status>>;

    async fn upload_dataset(
        &self,
        request: Request<Streaming<v1::UploadDatasetRequest>>,
    ) -> Result<Response<v1::Dataset>, Status> {
        Ok(Response::new(self.upload(request.into_inner()).await?))
    }

    async fn get_dataset(&self, request: Request<v1::GetDatasetRequest>) -> Result<Response<v1::Dataset>, Status> {
        let name = request.into_inner().name;
        let id = id_of("name", "datasets", &name)?;
        let resource = self.app.store.get_resource(ResourceKind::Dataset, id).await?;
        Ok(Response::new(convert::dataset(&resource)?))
    }

    async fn list_datasets(
        &self,
        request: Request<v1::ListDatasetsRequest>,
    ) -> Result<Response<v1::ListDatasetsResponse>, Status> {
        let request = request.into_inner();
        let page = read_page(request.page_size, &request.page_token, "datasets")?;
        let stored = self.app.store.list_resources(ResourceKind::Dataset, None, &page).await?;
        let last = stored.last().map(|r| (r.created_at, r.id.as_str()));
        let next_page_token = next_token(&page, stored.len(), last, "datasets");
        let datasets = stored.iter().map(convert::dataset).collect::<Result<_, _>>()?;
        Ok(Response::new(v1::ListDatasetsResponse { datasets, next_page_token }))
    }

    async fn delete_dataset(
        &self,
        request: Request<v1::DeleteDatasetRequest>,
    ) -> Result<Response<v1::DeleteDatasetResponse>, Status> {
        let name = request.into_inner().name;
        let id = id_of("name", "datasets", &name)?;
        let deleted = self.app.store.delete_resource(ResourceKind::Dataset, id).await?;
        let document: DatasetDocument = deleted.read()?;
        self.app.artifacts.delete(&document.artifact).await?;
        if let Some((table, _)) = document.table() {
            self.app.artifacts.delete(table).await?;
        }
        Ok(Response::new(v1::DeleteDatasetResponse {}))
    }

    async fn download_dataset(
        &self,
        request: Request<v1::DownloadDatasetRequest>,
    ) -> Result<Response<Self::DownloadDatasetStream>, Status> {
        Ok(Response::new(download(&self.app, request.into_inner()).await?))
    }
}
