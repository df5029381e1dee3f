//! `boltzflow datasets`

use super::client::{CliError, ServerArgs, every_page};
use super::download::download;
use super::methods::method_name;
use super::names::resource;
use super::output::{JsonArgs, number, table};
use super::train::send_dataset;
use crate::contract::v1;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Look after datasets
///
/// Example: boltzflow datasets upload trajectory.npz --system systems/alanine --temperature 300
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List datasets
    List {
        #[command(flatten)]
        json: JsonArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Send frames; prints the dataset's name
    Upload {
        /// An .npz file with positions_nm (and temperature_K, one or one a frame), an .npy file, or a trajectory: .xtc, .dcd, .pdb, Amber's .nc
        #[arg(value_name = "D.npz")]
        file: String,
        /// systems/NAME
        #[arg(long)]
        system: String,
        /// Temperature that the frames were sampled at; of a file with several, those to send
        #[arg(long, value_name = "T")]
        temperature: Option<f64>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Fetch frames into a file: .npz with all that is known of them; or, of molecules, .xtc, .dcd or .pdb, which round
    ///
    /// Positions are float64 in .npz, and rounded to 0.001 nm in .xtc, to float32 in .dcd and to 0.0001 nm in .pdb. What these
    /// have no room for (temperatures, energies and weights of frames) goes into X.xtc.npz beside X.xtc. A download that
    /// breaks off is taken up again where it broke.
    Download {
        name: String,
        #[arg(short, long, value_name = "X.npz|X.xtc|X.dcd|X.pdb")]
        output: PathBuf,
        /// A PDB file with the names of the atoms, for a .pdb of a system that was created without one
        #[arg(long, value_name = "T.pdb")]
        topology: Option<PathBuf>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Delete a dataset
    Delete {
        name: String,
        #[command(flatten)]
        server: ServerArgs,
    },
}

fn dataset_json(d: &v1::Dataset) -> Value {
    json!({
        "name": d.name,
        "system": d.system,
        "temperature": d.temperature,
        "frames": d.frames,
        "digest": d.digest,
        "energy_min": d.energy_min,
        "energy_mean": d.energy_mean,
        "energy_max": d.energy_max,
        "warnings": d.warnings,
        "job": d.job,
        "temperatures": d.temperatures,
        "weighted": d.weighted.as_ref().map(|of| {
            let weights = of.weights.clone().unwrap_or_default();
            json!({
                "model": of.model,
                "model_digest": of.model_digest,
                "method": method_name(of.method()),
                "seed": of.seed,
                "first_index": of.first_index,
                "effective_samples": number(weights.effective_samples),
                "pareto_k": number(weights.pareto_k),
                "log_z": number(weights.log_z),
                "log_z_stderr": number(weights.log_z_standard_error),
            })
        }),
    })
}

pub(super) async fn run(command: Command) -> Result<(), CliError> {
    match command {
        Command::List { json, server } => {
            let mut clients = server.connect().await?;
            let datasets = every_page(async |page_token| {
                let request = v1::ListDatasetsRequest { page_size: 0, page_token };
                let page = clients.datasets.list_datasets(request).await?.into_inner();
                Ok((page.datasets, page.next_page_token))
            })
            .await?;
            if json.write(&datasets.iter().map(dataset_json).collect())? {
                let rows: Vec<Vec<String>> = datasets
                    .iter()
                    .map(|d| {
                        let energy = format!("{:.3}", d.energy_mean);
                        vec![d.name.clone(), d.system.clone(), d.frames.to_string(), d.temperature.to_string(), energy]
                    })
                    .collect();
                say!("{}", table(&["dataset", "system", "frames", "T", "mean energy"], &rows));
            }
        }
        Command::Upload { file, system, temperature, server } => {
            if !std::path::Path::new(&file).is_file() {
                return Err(CliError::failed(format!("{file}: there is no such file")));
            }
            let mut clients = server.connect().await?;
            let system = resource("systems", &system);
            say!("{}", send_dataset(&mut clients, &file, &system, temperature, temperature).await?);
        }
        Command::Download { name, output, topology, server } => {
            let mut clients = server.connect().await?;
            download(&mut clients, &resource("datasets", &name), &output, topology.as_deref()).await?;
        }
        Command::Delete { name, server } => {
            let mut clients = server.connect().await?;
            clients.datasets.delete_dataset(v1::DeleteDatasetRequest { name: resource("datasets", &name) }).await?;
        }
    }
    Ok(())
}
