//! `boltzflow quickstart`: the real server, in this process, and a client that checks it against known answers.

mod double_well;
mod exact;
mod molecule;

pub(super) use exact::SADDLE as DOUBLE_WELL_SADDLE;

use super::client::{CliError, Clients};
use super::jobs::follow;
use super::local_server::LocalServer;
use super::output::JsonArgs;
use crate::compute::{DeviceChoice, Precision};
use crate::contract::v1::{self, job::Task};
use std::path::{Path, PathBuf};

/// Train, sample and check a flow, start to end
///
/// Starts a server on a free loopback port with a fresh folder, trains on the double well of Noé et al. (2019) from its
/// energy alone, streams 100,000 samples at three temperatures, and prints free energies beside the exact ones. With
/// --molecule, the same for alanine dipeptide in implicit solvent, from a trajectory that comes with boltzflow.
///
/// Example: boltzflow quickstart --json result.json
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Alanine dipeptide instead of the double well (about 10 minutes on two cores)
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
    let here = LocalServer::start(DeviceChoice::Auto, Precision::default()).await?;
    say!("server on {}, its files in {}", here.server.server, here.folder.display());
    let mut clients = here.server.connect().await?;
    let result = if args.molecule {
        molecule::run(&args, &mut clients, &here.folder).await
    } else {
        double_well::run(&args, &mut clients).await
    };
    here.stop().await;
    result
}

/// Trains a model and answers with its name.
async fn train(clients: &mut Clients, task: v1::TrainingTask) -> Result<String, CliError> {
    let job = v1::Job { task: Some(Task::Training(task)), ..v1::Job::default() };
    let request = v1::CreateJobRequest { job: Some(job), ..v1::CreateJobRequest::default() };
    let job = clients.jobs.create_job(request).await?.into_inner();
    Ok(follow(clients, &job.name, 0).await?.model)
}

fn written(path: &Path) {
    say!("wrote {}", path.display());
}
