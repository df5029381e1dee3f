//! `boltzflow datasets`

use super::arrays::NpzWriter;
use super::client::{CliError, ServerArgs, every_page};
use super::names::resource;
use super::output::{JsonArgs, table};
use super::train::send_dataset;
use crate::contract::{numbers, v1};
use crate::energy::openmm::Topology;
use crate::trajectory::{self, Format, Trajectory};
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
    /// Fetch frames into a file: .npz (with temperatures and energies where they are known), .xtc, .dcd or .pdb
    Download {
        name: String,
        #[arg(short, long, value_name = "X.npz")]
        output: PathBuf,
        /// A PDB file with the names of the atoms, for a .pdb
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
                println!("{}", table(&["dataset", "system", "frames", "T", "mean energy"], &rows));
            }
        }
        Command::Upload { file, system, temperature, server } => {
            if !std::path::Path::new(&file).is_file() {
                return Err(CliError::failed(format!("{file}: there is no such file")));
            }
            let mut clients = server.connect().await?;
            let system = resource("systems", &system);
            println!("{}", send_dataset(&mut clients, &file, &system, temperature, temperature).await?);
        }
        Command::Download { name, output, topology, server } => {
            let mut clients = server.connect().await?;
            let request = v1::DownloadDatasetRequest {
                name: resource("datasets", &name),
                ..v1::DownloadDatasetRequest::default()
            };
            let mut stream = clients.datasets.download_dataset(request).await?.into_inner();
            let (mut all, mut shape) = (Vec::new(), Vec::new());
            let (mut temperatures, mut energies) = (Vec::new(), Vec::new());
            while let Some(message) = stream.message().await? {
                let array = message.positions.unwrap_or_default();
                let (frames, chunk_shape) =
                    numbers("positions", &array).map_err(|e| CliError::failed(e.to_string()))?;
                all.extend(frames);
                shape = chunk_shape;
                for (to, field, array) in [
                    (&mut temperatures, "temperatures", message.temperatures),
                    (&mut energies, "energies", message.energies),
                ] {
                    if let Some(array) = array {
                        to.extend(numbers(field, &array).map_err(|e| CliError::failed(e.to_string()))?.0);
                    }
                }
            }
            let frame: usize = shape.iter().skip(1).product();
            if let Some(n) = shape.first_mut() {
                *n = all.len() / frame.max(1);
            }
            if let Some(format) = Format::of_path(&output) {
                if temperatures.iter().any(|t| Some(t) != temperatures.first()) {
                    eprintln!(
                        "warning: the frames are of several temperatures, which {} does not say; an .npz file does",
                        output.display()
                    );
                }
                let [_, atoms, 3] = shape[..] else {
                    return Err(CliError::failed("trajectories are of atoms; fetch this dataset into an .npz file"));
                };
                let topology = match &topology {
                    None => None,
                    Some(path) => {
                        let text = std::fs::read_to_string(path).map_err(|e| CliError::file(path, e))?;
                        Some(Topology::from_pdb(&text).map_err(|e| CliError::file(path, e))?)
                    }
                };
                let frames = Trajectory { atoms, positions: all, times_ps: None, lost: None };
                let bytes = trajectory::write(&frames, format, topology.as_ref());
                let bytes = bytes.map_err(|e| CliError::file(&output, e))?;
                return std::fs::write(&output, bytes).map_err(|e| CliError::file(&output, e));
            }
            let mut npz = NpzWriter::create(&output)?;
            npz.add("positions", all.into_iter(), &shape)?;
            for (name, column) in [("temperatures", temperatures), ("energies", energies)] {
                if !column.is_empty() {
                    let n = column.len();
                    npz.add(name, column.into_iter(), &[n])?;
                }
            }
            npz.finish()?;
        }
        Command::Delete { name, server } => {
            let mut clients = server.connect().await?;
            clients.datasets.delete_dataset(v1::DeleteDatasetRequest { name: resource("datasets", &name) }).await?;
        }
    }
    Ok(())
}
