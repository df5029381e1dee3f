//! ModelService.

use super::app::{App, OWNER, chosen_id, request_key};
use super::convert;
use super::errors::ApiError;
use super::independent::{NO_DENSITY, independent_method};
use super::pages::{next_token, read_page};
use super::reply::Reply;
use super::sampling::{check_method, requested_temperature, stream_error};
use crate::contract::v1;
use crate::contract::v1::model_service_server::ModelService;
use crate::contract::{FieldError, array, check_encoding, finite_rows, id_of, method_message};
use crate::engine::{Densities, DensityRequest};
use crate::sample::Generator;
use crate::store::{Created, ModelDocument, NewResource, ResourceKind, StoreError};
use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Bytes of a model file in a message.
const CHUNK: usize = 1 << 20;

/// Models and their files.
pub(super) struct Models {
    pub app: App,
}

impl Models {
    async fn import(&self, mut stream: Streaming<v1::ImportModelRequest>) -> Result<v1::Model, ApiError> {
        self.app.check_open()?;
        let _permit = self.app.transfer().await?;
        let first = self.app.next_message(&mut stream).await?;
        let Some(v1::import_model_request::Part::Header(mut header)) = first.and_then(|m| m.part) else {
            return Err(FieldError::invalid("header", "the first message must have it").into());
        };
        let mut file = BytesMut::new();
        while let Some(message) = self.app.next_message(&mut stream).await? {
            let Some(v1::import_model_request::Part::Data(data)) = message.part else {
                return Err(FieldError::invalid("data", "every message after the first must have it").into());
            };
            if file.len().saturating_add(data.len()) > self.app.limits.model_bytes {
                let limit = self.app.limits.model_bytes;
                return Err(ApiError::TooLarge(format!("a model file has at most {limit} bytes")));
            }
            file.extend_from_slice(&data);
        }
        let file: Bytes = file.freeze();
        let digest: String = Sha256::digest(&file).iter().map(|b| format!("{b:02x}")).collect();
        let request_id = std::mem::take(&mut header.request_id);
        let mut key = request_key(&request_id, &header)?;
        if let Some(key) = &mut key {
            key.hash.push_str(&digest);
        }
        let id = chosen_id("header.model_id", &header.model_id, "model")?;
        let device = self.app.engine.device.clone();
        let bytes = file.clone();
        // Only the card is kept: the weights are read again by whoever samples.
        let read = move || Generator::decode(&bytes, &device).map(|g| (g.target.dimension(), g.card));
        let (flow_dimension, card) = tokio::task::spawn_blocking(read)
            .await
            .map_err(|_| ApiError::Internal("reading a model panicked".into()))??;
        // A name of its own: what is removed below is nobody else's.
        let path = format!("models/{id}/{}.safetensors", uuid::Uuid::now_v7().simple());
        let size_bytes = file.len() as u64;
        let document = ModelDocument { job: None, digest, artifact: path.clone(), size_bytes, flow_dimension, card };
        let document = serde_json::to_string(&document).map_err(|e| ApiError::Internal(e.to_string()))?;
        self.app.artifacts.put(&path, file).await?;
        let new =
            NewResource { kind: ResourceKind::Model, id, owner: OWNER.into(), system: None, request: key, document };
        let created = self.app.store.create_resource(new, false).await;
        // A database that fails may have stored the row all the same; then the file stays.
        if !matches!(created, Ok(Created::New(_)) | Err(StoreError::Database(_))) {
            self.app.artifacts.delete(&path).await?;
        }
        convert::model(&created?.into_inner())
    }

    async fn log_prob(&self, request: v1::EvaluateLogProbRequest) -> Result<v1::EvaluateLogProbResponse, ApiError> {
        self.app.check_open()?;
        let id = id_of("model", "models", &request.model)?;
        let encoding = check_encoding(request.encoding)?;
        let method = independent_method(request.method, NO_DENSITY)?;
        let permit = self.app.transfer().await?;
        let model = self.app.engine.models.get(id).await?;
        check_method(method, &model.generator)?;
        let trained = model.generator.temperature();
        let temperature = requested_temperature("temperature", request.temperature, trained)?;
        let system = model.generator.target.system();
        let positions = finite_rows("positions", request.positions.as_ref(), system.dimension(), system.atoms())?;
        let density = DensityRequest { temperature, method, positions };
        // Dropped with this call: the computation of a client that has gone away ends at its next chunk.
        let mut answer = self.app.engine.densities(Arc::clone(&model), density, permit);
        let found = match answer.recv().await {
            Some(found) => found.map_err(stream_error)?,
            None => return Err(ApiError::Internal("an evaluation of densities ended without an answer".into())),
        };
        let Densities { method, log_probs, reduced_energies } = found;
        let log_weights = log_probs.iter().zip(&reduced_energies).map(|(log_p, u)| -u - log_p).collect();
        let n = log_probs.len();
        let column = |numbers| Some(array(numbers, &[n], v1::DataType::Float64, encoding));
        Ok(v1::EvaluateLogProbResponse {
            log_probs: column(log_probs),
            log_weights: column(log_weights),
            reduced_energies: column(reduced_energies),
            temperature,
            method: method_message(method).into(),
            model_digest: model.digest.clone(),
            coordinates: model.generator.card.coordinates.clone(),
            precision: model.generator.flow.precision(),
        })
    }
}

#[tonic::async_trait]
impl ModelService for Models {
    type ExportModelStream = ReceiverStream<Result<v1::ExportModelResponse, Status>>;

    async fn get_model(&self, request: Request<v1::GetModelRequest>) -> Result<Response<v1::Model>, Status> {
        let name = request.into_inner().name;
        let id = id_of("name", "models", &name)?;
        let resource = self.app.store.get_resource(ResourceKind::Model, id).await?;
        Ok(Response::new(convert::model(&resource)?))
    }

    async fn list_models(
        &self,
        request: Request<v1::ListModelsRequest>,
    ) -> Result<Response<v1::ListModelsResponse>, Status> {
        let request = request.into_inner();
        let system = match request.system.as_str() {
            "" => None,
            name => Some(id_of("system", "systems", name)?),
        };
        let list = format!("models of {}", system.unwrap_or_default());
        let page = read_page(request.page_size, &request.page_token, &list)?;
        let stored = self.app.store.list_resources(ResourceKind::Model, system, &page).await?;
        let last = stored.last().map(|r| (r.created_at, r.id.as_str()));
        let next_page_token = next_token(&page, stored.len(), last, &list);
        let without_course = |resource| {
            let mut model = convert::model(resource)?;
            model.card.as_mut().into_iter().for_each(|card| card.course.clear());
            Ok::<_, ApiError>(model)
        };
        let models = stored.iter().map(without_course).collect::<Result<_, _>>()?;
        Ok(Response::new(v1::ListModelsResponse { models, next_page_token }))
    }

    async fn delete_model(
        &self,
        request: Request<v1::DeleteModelRequest>,
    ) -> Result<Response<v1::DeleteModelResponse>, Status> {
        let name = request.into_inner().name;
        let id = id_of("name", "models", &name)?;
        let deleted = self.app.store.delete_resource(ResourceKind::Model, id).await?;
        let document: ModelDocument = deleted.read()?;
        self.app.artifacts.delete(&document.artifact).await?;
        Ok(Response::new(v1::DeleteModelResponse {}))
    }

    async fn export_model(
        &self,
        request: Request<v1::ExportModelRequest>,
    ) -> Result<Response<Self::ExportModelStream>, Status> {
        let name = request.into_inner().name;
        let id = id_of("name", "models", &name)?;
        let document: ModelDocument = self.app.store.get_resource(ResourceKind::Model, id).await?.read()?;
        let permit = self.app.transfer().await?;
        let file = self.app.artifacts.get(&document.artifact).await?;
        let stream = Reply::stream(self.app.limits.stall, async move |mut reply| {
            let _permit = permit;
            for chunk in file.chunks(CHUNK) {
                let message = v1::ExportModelResponse { data: chunk.to_vec() };
                let Some(open) = reply.send(message, None).await else { return };
                reply = open;
            }
            reply.finish();
        });
        Ok(Response::new(stream))
    }

    async fn import_model(
        &self,
        request: Request<Streaming<v1::ImportModelRequest>>,
    ) -> Result<Response<v1::Model>, Status> {
        Ok(Response::new(self.import(request.into_inner()).await?))
    }

    async fn evaluate_log_prob(
        &self,
        request: Request<v1::EvaluateLogProbRequest>,
    ) -> Result<Response<v1::EvaluateLogProbResponse>, Status> {
        Ok(Response::new(self.log_prob(request.into_inner()).await?))
    }
}
