//! `boltzflow train`

use super::arrays::{Array, read_npz, read_positions};
use super::client::{CliError, Clients, ServerArgs};
use super::jobs::submit;
use super::names::{content_id, resource};
use super::output::JsonArgs;
use super::plan_file;
use super::specs;
use crate::contract::v1::{self, job::Task, upload_dataset_request::Part};
use crate::energy::analytic::AnalyticPotential;
use std::path::{Path, PathBuf};
use tonic::{Code, Status};

/// Bytes of frames in a message of an upload.
const CHUNK_BYTES: usize = 1 << 20;

/// Train a flow on a system; prints the model's name last
///
/// Examples:
///   boltzflow train --system double-well --wait
///   boltzflow train --system double-well --temperature-range 0.5:2 --wait
///   boltzflow train --system system.xml --topology topology.pdb --dataset trajectory.npz --temperature 300 --wait
///   boltzflow train --plan plan.toml --seed 2 --wait
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    /// A system on the server (double-well, systems/mine), or an OpenMM System XML file, which is sent to it
    #[arg(long, value_name = "NAME|SYSTEM.xml", required_unless_present = "plan")]
    system: Option<String>,
    /// A TOML file with the fields of TrainingTask: architecture, stages with their objectives, and all else that decides
    /// training, as docs/training.md says. Flags win over it
    #[arg(long, value_name = "FILE.toml")]
    plan: Option<PathBuf>,
    /// A PDB file of the same atoms, with a starting structure
    #[arg(long, value_name = "T.pdb")]
    topology: Option<PathBuf>,
    /// Frames to train on: a dataset on the server (datasets/mine), or a file of frames: .npz with positions_nm (and temperature_K, one or one a frame), .npy, .xtc, .dcd, .pdb, .nc
    #[arg(long, value_name = "NAME|D.npz")]
    dataset: Option<String>,
    /// Temperature to train at: kelvin for molecules, in units of the energy for reduced systems [default: the dataset's,
    /// else 300 K or 1]
    #[arg(long, value_name = "T", value_parser = specs::temperature, allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// Train one flow for all temperatures of a range, which is then sampled at any of them
    #[arg(long, value_name = "LOW:HIGH", value_parser = specs::temperature_range)]
    temperature_range: Option<v1::TemperatureRange>,
    /// How to train: transport, reverse-kl, annealing, fab, likelihood or flow-matching [default: what suits the system and the data at hand]
    #[arg(long, value_name = "NAME")]
    recipe: Option<String>,
    /// What random numbers begin from [default: 0]
    #[arg(long)]
    seed: Option<u64>,
    /// The coordinates that the flow works in: automatic, or mixed, which are a molecule's core in Cartesian coordinates and
    /// internal ones for the rest [default: automatic]
    #[arg(long, value_enum)]
    coordinates: Option<Scheme>,
    /// Atoms of the core of mixed coordinates, counted from 0 [default: the skeleton of heavy atoms]
    #[arg(long, value_name = "I,J,…", value_delimiter = ',')]
    core_atoms: Vec<i64>,
    /// Stop after this many seconds of training, with the model as it is then, however far its schedule has come
    #[arg(long, value_name = "SECONDS")]
    max_seconds: Option<f64>,
    /// Train for at most this many steps: the schedule is fitted to them
    #[arg(long, value_name = "N")]
    max_steps: Option<i64>,
    /// Name of the model
    #[arg(long, value_name = "ID")]
    model_id: Option<String>,
    /// Follow the job to its end
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Scheme {
    Automatic,
    Mixed,
}

impl From<Scheme> for v1::CoordinateScheme {
    fn from(scheme: Scheme) -> Self {
        match scheme {
            Scheme::Automatic => Self::Unspecified,
            Scheme::Mixed => Self::Mixed,
        }
    }
}

impl Args {
    /// A task with what flags say in place of what it has.
    fn laid_over(&self, mut task: v1::TrainingTask) -> v1::TrainingTask {
        fn put<T: Clone>(field: &mut T, flag: &Option<T>) {
            if let Some(flag) = flag {
                field.clone_from(flag);
            }
        }
        put(&mut task.temperature, &self.temperature);
        put(&mut task.seed, &self.seed);
        put(&mut task.model_id, &self.model_id);
        put(&mut task.recipe, &self.recipe);
        if self.temperature_range.is_some() {
            task.temperature_range = self.temperature_range;
        }
        if self.max_steps.is_some() || self.max_seconds.is_some() {
            let budget = task.budget.get_or_insert_default();
            put(&mut budget.steps, &self.max_steps);
            put(&mut budget.seconds, &self.max_seconds);
        }
        if let Some(scheme) = self.coordinates {
            task.coordinates.get_or_insert_default().scheme = v1::CoordinateScheme::from(scheme).into();
        }
        if !self.core_atoms.is_empty() {
            task.coordinates.get_or_insert_default().core_atoms.clone_from(&self.core_atoms);
        }
        task
    }
}

pub(super) async fn run(args: Args) -> Result<(), CliError> {
    // A file that is wrong is refused before anything is sent.
    let file = args.plan.as_deref().map(plan_file::read).transpose()?.unwrap_or_default();
    let system = args.system.clone().unwrap_or_else(|| file.system.clone());
    if system.is_empty() {
        return Err(CliError::failed("no system is named; give --system, or `system` in the plan's file"));
    }
    let mut clients = args.server.connect().await?;
    let system = send_system(&mut clients, &system, args.topology.as_deref()).await?;
    let temperature = args.temperature.or((file.temperature != 0.0).then_some(file.temperature));
    let dataset = match args.dataset.as_ref().or(Some(&file.dataset).filter(|name| !name.is_empty())) {
        None => String::new(),
        Some(name) => send_dataset(&mut clients, name, &system, None, temperature).await?,
    };
    let task = args.laid_over(v1::TrainingTask { system, dataset, ..file });
    submit(&mut clients, Task::Training(task), args.wait, &args.json).await
}

/// The name of a system on the server; a file is sent unless it is there already.
pub(super) async fn send_system(
    clients: &mut Clients,
    name: &str,
    topology: Option<&Path>,
) -> Result<String, CliError> {
    let path = Path::new(name);
    let is_file = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("xml")) || path.is_file();
    if !is_file || AnalyticPotential::built_in(name).is_some() {
        if topology.is_some() {
            return Err(CliError::failed("--topology belongs to a System XML file, not to a system on the server"));
        }
        return Ok(resource("systems", name));
    }
    let read = |path: &Path| std::fs::read_to_string(path).map_err(|e| CliError::file(path, e));
    let system_xml = read(path)?;
    let topology_pdb = topology.map(read).transpose()?.unwrap_or_default();
    let id = content_id(path, &[system_xml.as_bytes(), topology_pdb.as_bytes()]);
    let system = v1::System {
        display_name: path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
        definition: Some(v1::system::Definition::Openmm(v1::OpenMmSystem { system_xml, topology_pdb })),
        ..v1::System::default()
    };
    let request =
        v1::CreateSystemRequest { system: Some(system), system_id: id.clone(), ..v1::CreateSystemRequest::default() };
    let created = clients.systems.create_system(request).await;
    unless_there(created.map(|r| r.into_inner().name), resource("systems", &id))
}

/// The id is a hash of the contents: what is there under it is the same.
fn unless_there(created: Result<String, Status>, name: String) -> Result<String, CliError> {
    match created {
        Ok(name) => Ok(name),
        Err(status) if status.code() == Code::AlreadyExists => Ok(name),
        Err(status) => Err(status.into()),
    }
}

/// The name of a dataset on the server; a file is sent unless it is there already. Its frames are of the temperature that
/// is `declared`, else of the one that the file says, else of an unknown one; of a file with several, those of the
/// temperature `wanted` are sent.
pub(super) async fn send_dataset(
    clients: &mut Clients,
    name: &str,
    system: &str,
    declared: Option<f64>,
    wanted: Option<f64>,
) -> Result<String, CliError> {
    let path = Path::new(name);
    if !path.is_file() {
        return Ok(resource("datasets", name));
    }
    let (Array { numbers, shape }, said) = frames_of(path, wanted)?;
    if let Some((declared, said)) = declared.zip(said).filter(|(a, b)| (a - b).abs() > 1e-6 * b.abs()) {
        return Err(CliError::file(
            path,
            format!("its frames are of temperature {said}, and --temperature says {declared}"),
        ));
    }
    let temperature = declared.or(said).unwrap_or(0.0);
    let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
    let id = content_id(path, &[system.as_bytes(), &temperature.to_le_bytes(), &bytes]);
    let name = resource("datasets", &id);
    if clients.datasets.get_dataset(v1::GetDatasetRequest { name: name.clone() }).await.is_ok() {
        return Ok(name);
    }
    let display_name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let dataset = v1::Dataset { system: system.to_string(), temperature, display_name, ..v1::Dataset::default() };
    let created = upload(clients, &id, dataset, bytes, &shape).await;
    if let Ok(dataset) = &created {
        dataset.warnings.iter().for_each(|w| remark!("warning: {}: {w}", dataset.name));
    }
    unless_there(created.map(|d| d.name), name)
}

/// The frames of a file and the temperature that it says they have; those of one temperature if it has several.
fn frames_of(path: &Path, wanted: Option<f64>) -> Result<(Array, Option<f64>), CliError> {
    let Array { mut numbers, mut shape } = read_positions(path)?;
    if path.extension().is_none_or(|extension| extension != "npz") {
        return Ok((Array { numbers, shape }, None));
    }
    if read_npz(path, "log_weights")?.is_some() {
        return Err(CliError::file(
            path,
            "its frames are weighted samples of a model, which would be taken for frames that are distributed as the system's \
             are; draw frames by their weights first, and leave the weights out of the file",
        ));
    }
    let said = match read_npz(path, "temperature_K")? {
        Some(array) => array.numbers,
        None => read_npz(path, "temperatures")?.map(|array| array.numbers).unwrap_or_default(),
    };
    let frames = shape.first().copied().unwrap_or(0);
    let mut several = said.clone();
    several.sort_by(f64::total_cmp);
    several.dedup();
    match several.as_slice() {
        [] => return Ok((Array { numbers, shape }, None)),
        [one] => return Ok((Array { numbers, shape }, Some(*one))),
        _ if said.len() != frames => {
            let reason = format!("it has {} temperatures for {frames} frames; give each frame one", said.len());
            return Err(CliError::file(path, reason));
        }
        _ => {}
    }
    // Files of single precision have 300.15 with an error of 1e-8.
    let is_near = |t: &f64| wanted.is_some_and(|wanted| (t - wanted).abs() <= 1e-6 * t.abs());
    let of = several.iter().copied().find(is_near).ok_or_else(|| {
        let known: Vec<String> = several.iter().map(f64::to_string).collect();
        CliError::file(
            path,
            format!(
                "its frames are of the temperatures {}: `boltzflow datasets upload --temperature` sends those of one, and \
                 `train --temperature` takes them",
                known.join(", ")
            ),
        )
    })?;
    let width = numbers.len() / frames.max(1);
    let kept = numbers.chunks(width.max(1)).zip(&said).filter(|(_, t)| **t == of);
    numbers = kept.flat_map(|(frame, _)| frame.to_vec()).collect();
    shape[0] = said.iter().filter(|t| **t == of).count();
    Ok((Array { numbers, shape }, Some(of)))
}

/// Sends a dataset in chunks.
pub(super) async fn upload(
    clients: &mut Clients,
    id: &str,
    dataset: v1::Dataset,
    bytes: Vec<u8>,
    shape: &[usize],
) -> Result<v1::Dataset, Status> {
    let frame: Vec<i64> = shape.iter().skip(1).map(|&n| n as i64).collect();
    let frame_bytes = 8 * frame.iter().product::<i64>().max(1) as usize;
    let frames_per_chunk = (CHUNK_BYTES / frame_bytes).max(1);
    let header = v1::UploadHeader { dataset: Some(dataset), dataset_id: id.to_string(), request_id: String::new() };
    let bytes = bytes::Bytes::from(bytes);
    let chunk_bytes = frames_per_chunk * frame_bytes;
    let chunks = (0..bytes.len()).step_by(chunk_bytes).map(move |from| {
        let data = bytes.slice(from..(from + chunk_bytes).min(bytes.len()));
        let mut shape = vec![(data.len() / frame_bytes) as i64];
        shape.extend(&frame);
        let positions = v1::Array { dtype: v1::DataType::Float64.into(), shape, data, values: Vec::new() };
        Part::Frames(v1::FrameChunk { positions: Some(positions) })
    });
    let parts = std::iter::once(Part::Header(header)).chain(chunks);
    let messages = parts.map(|part| v1::UploadDatasetRequest { part: Some(part) });
    Ok(clients.datasets.upload_dataset(tokio_stream::iter(messages)).await?.into_inner())
}
