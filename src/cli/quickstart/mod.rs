//! `boltzflow quickstart`: the real server, in this process, and a client that checks it against known answers.

mod double_well;
mod exact;
mod molecule;
mod plots;

use super::client::{CliError, Clients, ServerArgs};
use super::jobs::follow;
use super::output::JsonArgs;
use crate::compute::DeviceChoice;
use crate::contract::v1::{self, job::Task};
use crate::server::{Limits, Server, ServerSettings};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Train, sample and check a flow, start to end
///
/// Starts a server on a free loopback port with a fresh folder, trains on the double well of Noé et al. (2019) from its
/// energy alone, streams 100,000 samples at three temperatures, and prints free energies beside the exact ones. With
/// --molecule, the same for alanine dipeptide in implicit solvent, from a trajectory that comes with boltzflow.
///
/// Example: boltzflow quickstart --json result.json
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Alanine dipeptide instead of the double well (about 20 minutes on two cores)
    #[arg(long)]
    molecule: bool,
    /// Folder for plots
    #[arg(short, long, value_name = "DIR", default_value = "boltzflow-quickstart")]
    output: PathBuf,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    json: JsonArgs,
}

pub(super) async fn run(args: Args) -> Result<(), CliError> {
    std::fs::create_dir_all(&args.output).map_err(|e| CliError::file(&args.output, e))?;
    let here = LocalServer::start().await?;
    let mut clients = here.server.connect().await?;
    let result = if args.molecule {
        molecule::run(&args, &mut clients, &here.folder).await
    } else {
        double_well::run(&args, &mut clients).await
    };
    here.stop().await;
    result
}

/// A server in this process, with a folder of its own.
struct LocalServer {
    server: ServerArgs,
    folder: PathBuf,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl LocalServer {
    async fn start() -> Result<Self, CliError> {
        let folder = std::env::temp_dir().join(format!("boltzflow-{}", uuid::Uuid::now_v7().simple()));
        std::fs::create_dir_all(&folder).map_err(|e| CliError::file(&folder, e))?;
        let settings = ServerSettings {
            database: format!("sqlite://{}", folder.join("state.db").display()),
            artifacts: format!("file://{}", folder.join("artifacts").display()),
            device: DeviceChoice::Auto,
            limits: Limits::default(),
            drain: Duration::from_secs(2),
            lease: Duration::from_secs(30),
        };
        let free = ([127, 0, 0, 1], 0).into();
        let failed = |e: &dyn std::fmt::Display| CliError::failed(e.to_string());
        let server = Server::bind(settings, free, free).await.map_err(|e| failed(&e))?;
        let address = server.address().map_err(|e| failed(&e))?;
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let task = tokio::spawn(async move {
            if let Err(e) = server.run(stop).await {
                eprintln!("the server failed: {e}");
            }
        });
        println!("server on {address}, its files in {}", folder.display());
        Ok(Self { server: ServerArgs { server: format!("http://{address}") }, folder, shutdown, task })
    }

    async fn stop(self) {
        self.shutdown.cancel();
        // What the server could not end by then, the end of the process ends.
        let _ = self.task.await;
        if let Err(e) = std::fs::remove_dir_all(&self.folder) {
            eprintln!("warning: {}: {e}", self.folder.display());
        }
    }
}

/// Trains a model and answers with its name.
async fn train(clients: &mut Clients, task: v1::TrainingTask) -> Result<String, CliError> {
    let job = v1::Job { task: Some(Task::Training(task)), ..v1::Job::default() };
    let request = v1::CreateJobRequest { job: Some(job), ..v1::CreateJobRequest::default() };
    let job = clients.jobs.create_job(request).await?.into_inner();
    Ok(follow(clients, &job.name, 0).await?.model)
}

fn written(path: &Path) {
    println!("wrote {}", path.display());
}
