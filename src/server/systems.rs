//! SystemService.

use super::app::{App, OWNER, check_notes, chosen_id, clean, request_key};
use super::convert;
use super::errors::ApiError;
use super::pages::{next_token, read_page};
use crate::contract::v1;
use crate::contract::v1::system_service_server::SystemService;
use crate::contract::{FieldError, array, check_encoding, energy_unit, finite_rows, id_of, system_definition};
use crate::energy::analytic::AnalyticPotential;
use crate::energy::{System, SystemDefinition};
use crate::engine::Priority;
use crate::scheduler::load_system;
use crate::store::{NewResource, ResourceKind, StoreError, SystemDocument, SystemFacts};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// Configurations evaluated between two looks at whether the client is still there.
const CHUNK: usize = 512;

/// Systems and their energies.
pub(super) struct Systems {
    pub app: App,
}

/// Builds a system off the async threads.
async fn build(definition: SystemDefinition, field: &'static str) -> Result<System, ApiError> {
    tokio::task::spawn_blocking(move || System::build(definition))
        .await
        .map_err(|_| ApiError::Internal("building a system panicked".into()))?
        .map_err(|error| ApiError::Definition { field, error })
}

async fn built_in(id: &str) -> Result<Option<v1::System>, ApiError> {
    let Some(potential) = AnalyticPotential::built_in(id) else { return Ok(None) };
    let system = build(SystemDefinition::Analytic(potential.clone()), "system").await?;
    Ok(Some(convert::built_in_system(id, &potential, &SystemFacts::of(&system))))
}

#[tonic::async_trait]
impl SystemService for Systems {
    async fn create_system(&self, request: Request<v1::CreateSystemRequest>) -> Result<Response<v1::System>, Status> {
        self.app.check_open()?;
        let mut request = request.into_inner();
        let request_id = std::mem::take(&mut request.request_id);
        let key = request_key(&request_id, &request)?;
        let v1::CreateSystemRequest { system, system_id, validate_only, .. } = request;
        let Some(system) = system else {
            return Err(FieldError::invalid("system", "it is missing").into());
        };
        check_notes("system", &system.display_name, &system.labels)?;
        let id = chosen_id("system_id", &system_id, "system")?;
        if AnalyticPotential::built_in(&id).is_some() {
            return Err(StoreError::Exists { kind: "system", id }.into());
        }
        let field = match &system.definition {
            Some(v1::system::Definition::Openmm(_)) => "system.openmm",
            _ => "system.analytic",
        };
        let definition = system_definition(system.definition.as_ref()).map_err(|e| e.within("system"))?;
        let built = build(definition.clone(), field).await?;
        let document = SystemDocument {
            display_name: clean(&system.display_name),
            labels: system.labels,
            definition,
            facts: SystemFacts::of(&built),
        };
        let document = serde_json::to_string(&document).map_err(|e| ApiError::Internal(e.to_string()))?;
        let new =
            NewResource { kind: ResourceKind::System, id, owner: OWNER.into(), system: None, request: key, document };
        let resource = self.app.store.create_resource(new, validate_only).await?.into_inner();
        Ok(Response::new(convert::system(&resource, false)?))
    }

    async fn get_system(&self, request: Request<v1::GetSystemRequest>) -> Result<Response<v1::System>, Status> {
        let request = request.into_inner();
        let id = id_of("name", "systems", &request.name)?;
        if let Some(system) = built_in(id).await? {
            return Ok(Response::new(system));
        }
        let resource = self.app.store.get_resource(ResourceKind::System, id).await?;
        Ok(Response::new(convert::system(&resource, request.full)?))
    }

    async fn list_systems(
        &self,
        request: Request<v1::ListSystemsRequest>,
    ) -> Result<Response<v1::ListSystemsResponse>, Status> {
        let request = request.into_inner();
        let page = read_page(request.page_size, &request.page_token, "systems")?;
        let mut systems = Vec::new();
        // Those that come with the server are on the first page, beside its entries.
        if page.after.is_none() {
            for id in AnalyticPotential::BUILT_IN {
                systems.extend(built_in(id).await?);
            }
        }
        let stored = self.app.store.list_resources(ResourceKind::System, None, &page).await?;
        let last = stored.last().map(|r| (r.created_at, r.id.as_str()));
        let next_page_token = next_token(&page, stored.len(), last, "systems");
        for resource in &stored {
            systems.push(convert::system(resource, false)?);
        }
        Ok(Response::new(v1::ListSystemsResponse { systems, next_page_token }))
    }

    async fn delete_system(
        &self,
        request: Request<v1::DeleteSystemRequest>,
    ) -> Result<Response<v1::DeleteSystemResponse>, Status> {
        let name = request.into_inner().name;
        let id = id_of("name", "systems", &name)?;
        if AnalyticPotential::built_in(id).is_some() {
            return Err(ApiError::ReadOnly(name).into());
        }
        self.app.store.delete_resource(ResourceKind::System, id).await?;
        Ok(Response::new(v1::DeleteSystemResponse {}))
    }

    async fn evaluate_energy(
        &self,
        request: Request<v1::EvaluateEnergyRequest>,
    ) -> Result<Response<v1::EvaluateEnergyResponse>, Status> {
        let request = request.into_inner();
        let id = id_of("system", "systems", &request.system)?;
        let encoding = check_encoding(request.encoding)?;
        let permit = self.app.transfer().await?;
        let system = load_system(self.app.store.as_ref(), id).await?;
        let positions = finite_rows("positions", request.positions.as_ref(), system.dimension(), system.atoms())?;
        // Dropped with this call: the computation of a client that has gone away ends at its next chunk.
        let cancelled = CancellationToken::new();
        let _guard = cancelled.clone().drop_guard();
        let slot = Arc::clone(&self.app.engine.slot);
        let computed = tokio::task::spawn_blocking(move || -> Result<v1::EvaluateEnergyResponse, ApiError> {
            let _permit = permit;
            let d = system.dimension();
            let n = positions.len() / d;
            let names = if request.by_force { system.potential().term_names() } else { Vec::new() };
            let mut energies = vec![0.0; n];
            let mut forces = vec![0.0; if request.include_forces { positions.len() } else { 0 }];
            let mut terms = vec![0.0; n * names.len()];
            for (chunk, x) in positions.chunks(CHUNK * d).enumerate() {
                if cancelled.is_cancelled() {
                    return Err(ApiError::Transport(Status::cancelled("the client has gone away")));
                }
                let _turn = slot.acquire(Priority::Interactive);
                let (first, rows) = (chunk * CHUNK, x.len() / d);
                let wanted = request.include_forces.then(|| &mut forces[first * d..(first + rows) * d]);
                let energies = &mut energies[first..first + rows];
                let failed = |error| ApiError::Definition { field: "positions", error };
                system.potential().evaluate(x, energies, wanted).map_err(failed)?;
                if request.by_force {
                    let terms = &mut terms[first * names.len()..(first + rows) * names.len()];
                    system.potential().evaluate_terms(x, terms).map_err(failed)?;
                }
            }
            forces.iter_mut().for_each(|g| *g = -*g);
            let number = v1::DataType::Float64;
            let by_force = names.iter().enumerate().map(|(j, name)| {
                let column: Vec<f64> = terms.iter().skip(j).step_by(names.len()).copied().collect();
                v1::ForceEnergy { name: name.clone(), energies: Some(array(column, &[n], number, encoding)) }
            });
            Ok(v1::EvaluateEnergyResponse {
                energies: Some(array(energies, &[n], number, encoding)),
                forces: request.include_forces.then(|| array(forces, &system.shape(n), number, encoding)),
                by_force: by_force.collect(),
                energy_unit: energy_unit(system.scale()).into(),
                energy_digest: system.digest().to_string(),
            })
        });
        let response = computed.await.map_err(|_| ApiError::Internal("an energy evaluation panicked".into()))??;
        Ok(Response::new(response))
    }
}
