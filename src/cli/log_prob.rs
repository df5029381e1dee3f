//! `boltzflow log-prob`

use super::arrays::{Array, NpzWriter, read_positions};
use super::client::{CliError, ServerArgs};
use super::methods::{method, method_name};
use super::names::resource;
use super::output::{JsonArgs, number, table};
use super::specs;
use crate::contract::{array, numbers, v1};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Bytes of positions in a request.
const CHUNK_BYTES: usize = 4 << 20;

/// Evaluate a model's log p at configurations, and what they weigh
///
/// It is the density that `sample` draws from at the same temperature by the same method, −inf where the model makes nothing;
/// log weights are −U/kT − log p. In JSON what is not finite is null.
///
/// Example: boltzflow log-prob models/double-well-0123456789ab frames.npz --temperature 0.5 -o densities.npz
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// models/NAME
    model: String,
    /// Configurations: an .npy file or an .npz file with positions_nm or positions, (n, atoms, 3) in nm or (n, dimension);
    /// or a trajectory, .xtc, .dcd, .pdb or Amber's .nc
    file: PathBuf,
    /// In the system's unit [default: the temperature trained at]
    #[arg(long, value_name = "T", value_parser = specs::temperature, allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// auto, reweighting, latent-scaling or conditioned
    #[arg(long, default_value = "auto")]
    method: String,
    /// Write log_probs, log_weights and reduced_energies
    #[arg(short, long, value_name = "X.npz")]
    output: Option<PathBuf>,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn run(args: Args) -> Result<(), CliError> {
    let Array { numbers: positions, shape } = read_positions(&args.file)?;
    let frame: Vec<usize> = shape.iter().skip(1).copied().collect();
    let width = frame.iter().product::<usize>().max(1);
    let mut clients = args.server.connect().await?;
    let asked = v1::EvaluateLogProbRequest {
        model: resource("models", &args.model),
        temperature: args.temperature.unwrap_or(0.0),
        method: method(&args.method)?.into(),
        ..v1::EvaluateLogProbRequest::default()
    };
    let mut columns = [("log_probs", Vec::new()), ("log_weights", Vec::new()), ("reduced_energies", Vec::new())];
    let mut said = v1::EvaluateLogProbResponse::default();
    for part in positions.chunks((CHUNK_BYTES / 8 / width).max(1) * width) {
        let mut shape = vec![part.len() / width];
        shape.extend(&frame);
        let part = array(part.to_vec(), &shape, v1::DataType::Float64, v1::ArrayEncoding::Bytes);
        let request = v1::EvaluateLogProbRequest { positions: Some(part), ..asked.clone() };
        let answer = clients.models.evaluate_log_prob(request).await?.into_inner();
        let found = [&answer.log_probs, &answer.log_weights, &answer.reduced_energies];
        for ((name, column), found) in columns.iter_mut().zip(found) {
            let found = found.as_ref().ok_or_else(|| CliError::failed(format!("the server's answer has no {name}")))?;
            column.extend(numbers(name, found).map_err(|e| CliError::failed(e.to_string()))?.0);
        }
        said = v1::EvaluateLogProbResponse { log_probs: None, log_weights: None, reduced_energies: None, ..answer };
    }
    let mut value = json!({
        "model": asked.model,
        "model_digest": said.model_digest,
        "temperature": said.temperature,
        "method": method_name(said.method()),
        "coordinates": said.coordinates,
        "precision": said.precision,
    });
    if let Some(path) = &args.output {
        let mut npz = NpzWriter::create(path)?;
        for (name, column) in &columns {
            npz.add(name, column.iter().copied(), &[column.len()])?;
        }
        npz.add_json("metadata", &value)?;
        npz.finish()?;
    }
    for (name, column) in &columns {
        value[*name] = column.iter().copied().map(number).collect::<Vec<Value>>().into();
    }
    if args.json.write(&value)? && args.output.is_none() {
        let [(_, log_probs), (_, log_weights), (_, energies)] = &columns;
        let rows = log_probs.iter().zip(log_weights).zip(energies).enumerate();
        let rows: Vec<Vec<String>> = rows
            .map(|(i, ((p, w), u))| vec![i.to_string(), format!("{p:.6}"), format!("{w:.6}"), format!("{u:.6}")])
            .collect();
        say!("{}", table(&["frame", "log p", "log weight", "U/kT"], &rows));
    }
    Ok(())
}
