//! `boltzflow models`

use super::client::{CliError, Clients, ServerArgs, every_page};
use super::names::resource;
use super::output::{JsonArgs, number, table};
use crate::contract::v1::{self, import_model_request::Part};
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;

const CHUNK: usize = 1 << 20;

/// Look after models
///
/// Example: boltzflow models export models/double-well-0123456789ab -o model.safetensors
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List models, newest first
    List {
        #[command(flatten)]
        json: JsonArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show a model's card
    Show {
        name: String,
        #[command(flatten)]
        json: JsonArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Fetch a model as a safetensors file
    Export {
        name: String,
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Send a model file; prints the model's name
    Import {
        file: PathBuf,
        /// Name of the model
        #[arg(long, value_name = "ID")]
        model_id: Option<String>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Delete a model
    Delete {
        name: String,
        #[command(flatten)]
        server: ServerArgs,
    },
}

fn model_json(model: &v1::Model) -> Value {
    let card = model.card.clone().unwrap_or_default();
    json!({
        "name": model.name,
        "system": model.system,
        "job": model.job,
        "digest": model.digest,
        "size_bytes": model.size_bytes,
        "energy_digest": card.energy_digest,
        "coordinates": card.coordinates,
        "temperature": card.temperature,
        "data_digest": card.data_digest,
        "seed": card.seed,
        "training": card.training,
        "steps": card.steps,
        "energy_evaluations": card.energy_evaluations,
        "seconds": number(card.seconds),
        "effective_sample_fraction": number(card.effective_sample_fraction),
        "pareto_k": number(card.pareto_k),
        "validation_samples": card.validation_samples,
        "held_out_log_prob": card.held_out_log_prob.map_or(Value::Null, number),
        "held_out_effective_fraction": card.held_out_effective_fraction.map_or(Value::Null, number),
        "unseen_share": card.unseen_share,
        "flow_dimension": card.flow_dimension,
        "temperature_range": card.temperature_range.map(|range| json!([range.low, range.high])),
        "by_temperature": card.by_temperature.iter().map(|m| json!({
            "temperature": m.temperature,
            "effective_sample_fraction": number(m.effective_sample_fraction),
            "pareto_k": number(m.pareto_k),
            "held_out_effective_fraction": m.held_out_effective_fraction.map_or(Value::Null, number),
        })).collect::<Vec<_>>(),
        "course": card.course.iter().map(|p| json!({
            "step": p.step,
            "samples": p.samples,
            "energy_evaluations": p.energy_evaluations,
            "seconds": number(p.seconds),
            "effective_sample_fraction": number(p.effective_sample_fraction),
            "log_z": p.log_z,
            "free_energy_bound": p.free_energy_bound,
            "held_out_log_prob": p.held_out_log_prob,
            "held_out_effective_fraction": p.held_out_effective_fraction,
        })).collect::<Vec<_>>(),
    })
}

pub(super) async fn run(command: Command) -> Result<(), CliError> {
    match command {
        Command::List { json, server } => {
            let mut clients = server.connect().await?;
            let models = every_page(async |page_token| {
                let request = v1::ListModelsRequest { page_token, ..v1::ListModelsRequest::default() };
                let page = clients.models.list_models(request).await?.into_inner();
                Ok((page.models, page.next_page_token))
            })
            .await?;
            if json.write(&models.iter().map(model_json).collect())? {
                let rows: Vec<Vec<String>> = models
                    .iter()
                    .map(|m| {
                        let card = m.card.clone().unwrap_or_default();
                        let ess = format!("{:.1} %", 100.0 * card.effective_sample_fraction);
                        vec![m.name.clone(), m.system.clone(), card.temperature.to_string(), ess]
                    })
                    .collect();
                say!("{}", table(&["model", "system", "T", "ESS"], &rows));
            }
        }
        Command::Show { name, json, server } => {
            let mut clients = server.connect().await?;
            let request = v1::GetModelRequest { name: resource("models", &name) };
            let value = model_json(&clients.models.get_model(request).await?.into_inner());
            json.show(&value)?;
        }
        Command::Export { name, output, server } => {
            let mut clients = server.connect().await?;
            let name = resource("models", &name);
            let model = clients.models.get_model(v1::GetModelRequest { name: name.clone() }).await?.into_inner();
            let request = v1::ExportModelRequest { name };
            let mut received = 0;
            let mut stream = clients.models.export_model(request).await?.into_inner();
            let mut file = std::fs::File::create(&output).map_err(|e| CliError::file(&output, e))?;
            while let Some(message) = stream.message().await? {
                file.write_all(&message.data).map_err(|e| CliError::file(&output, e))?;
                received += message.data.len() as i64;
            }
            if received != model.size_bytes {
                let size = model.size_bytes;
                return Err(CliError::failed(format!("the server sent {received} of the model's {size} bytes")));
            }
        }
        Command::Import { file, model_id, server } => {
            let mut clients = server.connect().await?;
            let bytes = std::fs::read(&file).map_err(|e| CliError::file(&file, e))?;
            let model = import(&mut clients, &bytes, model_id.unwrap_or_default()).await?;
            say!("{}", model.name);
        }
        Command::Delete { name, server } => {
            let mut clients = server.connect().await?;
            clients.models.delete_model(v1::DeleteModelRequest { name: resource("models", &name) }).await?;
        }
    }
    Ok(())
}

/// Sends the bytes of a model file; the server chooses the model's id if it is empty.
pub(super) async fn import(clients: &mut Clients, bytes: &[u8], model_id: String) -> Result<v1::Model, CliError> {
    let header = v1::ImportHeader { model_id, request_id: String::new() };
    let chunks: Vec<Part> = bytes.chunks(CHUNK).map(|c| Part::Data(c.to_vec())).collect();
    let parts = std::iter::once(Part::Header(header)).chain(chunks);
    let messages = parts.map(|part| v1::ImportModelRequest { part: Some(part) });
    Ok(clients.models.import_model(tokio_stream::iter(messages)).await?.into_inner())
}
