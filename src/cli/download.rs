//! Fetching a dataset into a file.

use super::arrays::NpzWriter;
use super::client::{CliError, Clients};
use super::methods::method_name;
use super::output::progress_bar;
use crate::contract::{numbers, v1};
use crate::energy::openmm::Topology;
use crate::trajectory::{self, Format, Trajectory};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::{Code, Status};

/// Failures in a row, without a frame between them, after which a download is given up.
const MOST_FAILURES: u32 = 10;
const PAUSE: Duration = Duration::from_secs(1);

/// The frames of a dataset that have come.
#[derive(Default)]
struct Frames {
    /// Of one frame.
    shape: Vec<usize>,
    positions: Vec<f64>,
    /// What is known of each, by name.
    columns: Vec<(&'static str, Vec<f64>)>,
}

impl Frames {
    fn width(&self) -> usize {
        self.shape.iter().product::<usize>().max(1)
    }

    fn count(&self) -> usize {
        self.positions.len() / self.width()
    }

    /// Takes what comes next.
    fn add(&mut self, message: v1::DownloadDatasetResponse) -> Result<(), CliError> {
        let broken = |what: String| CliError::failed(format!("the server's frames are not as agreed: {what}"));
        if usize::try_from(message.first_frame) != Ok(self.count()) {
            return Err(broken(format!("frame {} comes where {} should", message.first_frame, self.count())));
        }
        let read = |name, array: &v1::Array| numbers(name, array).map_err(|e| broken(e.to_string()));
        let (positions, shape) = read("positions", &message.positions.unwrap_or_default())?;
        let [n, shape @ ..] = &shape[..] else { return Err(broken("positions have no shape".into())) };
        if self.shape.is_empty() {
            self.shape = shape.to_vec();
        }
        if self.shape != shape || positions.len() != n * self.width() {
            return Err(broken(format!("a frame has the shape {shape:?} after {:?}", self.shape)));
        }
        let columns = [
            ("temperatures", message.temperatures),
            ("energies", message.energies),
            ("log_weights", message.log_weights),
            ("reduced_energies", message.reduced_energies),
            ("log_probs", message.log_probs),
        ];
        for (name, array) in columns {
            let Some(array) = array else { continue };
            let numbers = read(name, &array)?.0;
            if numbers.len() != *n {
                return Err(broken(format!("{} {name} come with {n} frames", numbers.len())));
            }
            match self.columns.iter_mut().find(|(known, _)| *known == name) {
                Some((_, column)) => column.extend(numbers),
                None => self.columns.push((name, numbers)),
            }
        }
        self.positions.extend(positions);
        Ok(())
    }

    /// The same without the frames whose positions are not finite, which samples without weight may have, and the number of each
    /// that is left.
    fn finite(self) -> (Self, Vec<u64>) {
        let width = self.width();
        let rows = || self.positions.chunks_exact(width);
        let kept: Vec<bool> = rows().map(|row| row.iter().all(|x| x.is_finite())).collect();
        let of = |column: &[f64]| column.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(x, _)| *x).collect();
        let frames = Self {
            positions: rows().zip(&kept).filter(|(_, kept)| **kept).flat_map(|(row, _)| row.to_vec()).collect(),
            columns: self.columns.iter().map(|(name, column)| (*name, of(column))).collect(),
            shape: self.shape,
        };
        (frames, (0..).zip(&kept).filter(|(_, kept)| **kept).map(|(i, _)| i).collect())
    }
}

/// Writes a dataset into a file of the kind that its name says.
pub(super) async fn download(
    clients: &mut Clients,
    name: &str,
    output: &Path,
    topology: Option<&Path>,
) -> Result<(), CliError> {
    let request = v1::GetDatasetRequest { name: name.to_string() };
    let dataset = clients.datasets.get_dataset(request).await?.into_inner();
    let Some(format) = Format::of_path(output) else {
        if output.extension().is_none_or(|extension| extension != "npz") {
            return Err(CliError::file(output, "it must end in .npz, .xtc, .dcd or .pdb"));
        }
        let frames = fetch(clients, &dataset).await?;
        let indices = (0..frames.count() as u64).collect();
        return write_npz(output, &dataset, &frames, indices, true);
    };
    let request = v1::GetSystemRequest { name: dataset.system.clone(), full: format == Format::Pdb };
    let system = clients.systems.get_system(request).await?.into_inner();
    let atoms = match usize::try_from(system.atoms) {
        Ok(atoms) if atoms > 0 => atoms,
        _ => {
            let reason =
                format!("{format} is for molecules, in nm, and {} is of no atoms; write an .npz file", system.name);
            return Err(CliError::failed(reason));
        }
    };
    let topology = if format == Format::Pdb { Some(topology_of(system, topology)?) } else { None };
    let frames = fetch(clients, &dataset).await?;
    let all = frames.count();
    let (frames, indices) = frames.finite();
    if indices.len() < all {
        remark!(
            "note: {} of {all} frames, without weight, have no finite positions and are left out",
            all - indices.len()
        );
    }
    let Frames { positions, columns, shape } = frames;
    let trajectory = Trajectory { atoms, positions, times_ps: None, lost: None };
    let bytes = trajectory::write(&trajectory, format, topology.as_ref()).map_err(|e| CliError::file(output, e))?;
    std::fs::write(output, bytes).map_err(|e| CliError::file(output, e))?;
    remark!("note: {format} rounds positions to {}; an .npz file has them as they are", precision(format));
    if columns.is_empty() {
        return Ok(());
    }
    let mut beside = output.as_os_str().to_owned();
    beside.push(".npz");
    let beside = PathBuf::from(beside);
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    remark!("note: {} of the frames are in {}", names.join(", "), beside.display());
    write_npz(&beside, &dataset, &Frames { positions: Vec::new(), columns, shape }, indices, false)
}

fn precision(format: Format) -> &'static str {
    match format {
        Format::Xtc => "0.001 nm",
        Format::Pdb => "0.0001 nm",
        Format::Dcd | Format::AmberNetCdf => "float32",
    }
}

/// All frames of a dataset. A download that breaks off is taken up again at the first frame that did not come.
async fn fetch(clients: &mut Clients, dataset: &v1::Dataset) -> Result<Frames, CliError> {
    let bar = progress_bar(dataset.frames.unsigned_abs(), "{bar:30} {pos}/{len} frames, {per_sec}");
    let mut frames = Frames::default();
    let (mut failures, mut reached) = (0, 0);
    while let Err(error) = receive(clients, &dataset.name, &mut frames, |n| bar.set_position(n)).await {
        let Failure::Broken(status) = error else { return Err(error.into()) };
        if frames.count() > reached {
            (failures, reached) = (0, frames.count());
        }
        failures += 1;
        if failures == MOST_FAILURES {
            return Err(CliError::failed(format!(
                "the download broke off {MOST_FAILURES} times in a row at frame {reached}, the last time because: {}",
                CliError::from(status)
            )));
        }
        bar.println(format!("the download broke off ({}); it goes on from frame {reached}", status.message()));
        tokio::time::sleep(PAUSE).await;
    }
    bar.finish_and_clear();
    if i64::try_from(frames.count()) != Ok(dataset.frames) {
        let (sent, all) = (frames.count(), dataset.frames);
        return Err(CliError::failed(format!("the server sent {sent} of the dataset's {all} frames")));
    }
    let mut hash = Sha256::new();
    frames.positions.iter().for_each(|x| hash.update(x.to_le_bytes()));
    let digest: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    if digest != dataset.digest {
        let reason =
            "the frames are not those that were stored: their SHA-256 is another; the server's files are damaged";
        return Err(CliError::failed(reason));
    }
    Ok(frames)
}

/// Why a download ended early.
enum Failure {
    /// It can be taken up again.
    Broken(Status),
    Final(CliError),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::Unavailable | Code::Unknown | Code::Aborted | Code::Cancelled | Code::ResourceExhausted => {
                Self::Broken(status)
            }
            // What the transport makes of a torn connection has no reason of the server's.
            Code::Internal if status.details().is_empty() => Self::Broken(status),
            _ => Self::Final(status.into()),
        }
    }
}

impl From<Failure> for CliError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Broken(status) => status.into(),
            Failure::Final(error) => error,
        }
    }
}

async fn receive(
    clients: &mut Clients,
    name: &str,
    frames: &mut Frames,
    mut seen: impl FnMut(u64),
) -> Result<(), Failure> {
    let request = v1::DownloadDatasetRequest {
        name: name.to_string(),
        first_frame: frames.count() as i64,
        ..v1::DownloadDatasetRequest::default()
    };
    let mut stream = clients.datasets.download_dataset(request).await?.into_inner();
    while let Some(message) = stream.message().await? {
        frames.add(message).map_err(Failure::Final)?;
        seen(frames.count() as u64);
    }
    Ok(())
}

/// The names of a system's atoms: those of a file, or those that the system was created with.
fn topology_of(system: v1::System, file: Option<&Path>) -> Result<Topology, CliError> {
    if let Some(path) = file {
        let text = std::fs::read_to_string(path).map_err(|e| CliError::file(path, e))?;
        return Topology::from_pdb(&text).map_err(|e| CliError::file(path, e));
    }
    let name = system.name;
    match system.definition {
        Some(v1::system::Definition::Openmm(texts)) if !texts.topology_pdb.is_empty() => {
            Topology::from_pdb(&texts.topology_pdb).map_err(|e| CliError::failed(format!("{name}: {e}")))
        }
        _ => Err(CliError::failed(format!(
            "{name} has no names of atoms, which a PDB file needs; give a PDB file of them as --topology, or write .xtc or .dcd"
        ))),
    }
}

/// Writes what is known of frames, and their positions if they are not elsewhere.
fn write_npz(
    path: &Path,
    dataset: &v1::Dataset,
    frames: &Frames,
    indices: Vec<u64>,
    with_positions: bool,
) -> Result<(), CliError> {
    let mut npz = NpzWriter::create(path)?;
    if with_positions {
        let mut shape = vec![frames.count()];
        shape.extend(&frames.shape);
        npz.add("positions", frames.positions.iter().copied(), &shape)?;
    }
    for (name, column) in &frames.columns {
        npz.add(name, column.iter().copied(), &[column.len()])?;
    }
    let weighted = dataset.weighted.as_ref();
    let first = weighted.map_or(0, |of| of.first_index);
    npz.add_indices("index", indices.into_iter().map(|frame| first.saturating_add(frame)))?;
    let mut said = json!({ "dataset": dataset.name, "system": dataset.system, "digest": dataset.digest });
    if dataset.temperature > 0.0 {
        said["temperature"] = dataset.temperature.into();
    }
    if let Some(of) = weighted {
        said["model"] = of.model.clone().into();
        said["model_digest"] = of.model_digest.clone().into();
        said["method"] = method_name(of.method()).into();
        said["seed"] = of.seed.into();
        said["coordinates"] = of.coordinates.clone().into();
        said["precision"] = of.precision.clone().into();
    }
    npz.add_json("metadata", &said)?;
    npz.finish()
}
