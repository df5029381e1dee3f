//! `boltzflow simulate`

use super::client::{CliError, ServerArgs};
use super::jobs::submit;
use super::output::JsonArgs;
use super::specs;
use super::train::{send_dataset, send_system};
use crate::contract::v1::{self, job::Task};
use std::path::PathBuf;

/// Simulate a system; prints the dataset's name last
///
/// Examples:
///   boltzflow simulate --system double-well --method metropolis --steps 10000 --wait
///   boltzflow simulate --system system.xml --topology topology.pdb --ladder 300:820:8 --walkers 16 --steps 200000 --wait
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    /// A system on the server (double-well, systems/mine), or an OpenMM System XML file, which is sent to it
    #[arg(long, value_name = "NAME|SYSTEM.xml")]
    system: String,
    /// A PDB file of the same atoms, with a starting structure
    #[arg(long, value_name = "T.pdb")]
    topology: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t = MethodArg::Langevin)]
    method: MethodArg,
    /// Temperatures, ascending: kelvin for molecules, in units of the energy for reduced systems [default: 300 K or 1]
    #[arg(long, value_name = "T,T,…", value_delimiter = ',', value_parser = specs::temperature, conflicts_with = "ladder")]
    temperatures: Vec<f64>,
    /// So many temperatures of constant ratio, or, without COUNT, as many as give exchanges the --exchange-acceptance
    #[arg(long, value_name = "LOW:HIGH[:COUNT]", value_parser = ladder)]
    ladder: Option<(f64, f64, i64)>,
    /// Acceptance of exchanges that a ladder without COUNT is placed for
    #[arg(long, value_name = "P", default_value_t = 0.3, requires = "ladder")]
    exchange_acceptance: f64,
    /// Independent walkers at each temperature
    #[arg(long, value_name = "N", default_value_t = 16)]
    walkers: i64,
    /// Steps of dynamics, or Monte Carlo moves, of each walker
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    steps: i64,
    /// Steps before frames are kept [default: a tenth of the steps]
    #[arg(long, value_name = "N")]
    equilibration: Option<i64>,
    /// Steps between two frames
    #[arg(long, value_name = "N", default_value_t = 100)]
    stride: i64,
    /// Steps between exchanges of neighbouring temperatures, 0 for none [default: 100 where there are several]
    #[arg(long, value_name = "N")]
    exchange_every: Option<i64>,
    /// ps for molecules [default: 0.001, with constraints 0.002; 0.01 for reduced systems]
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    time_step: f64,
    /// Of Langevin dynamics, 1/ps for molecules [default: 1]
    #[arg(long, value_name = "RATE", default_value_t = 0.0)]
    friction: f64,
    /// Steps of a hybrid Monte Carlo move [default: 10]
    #[arg(long, value_name = "N", default_value_t = 0)]
    leapfrog_steps: i64,
    /// Of a Metropolis move, before it is tuned [default: 0.002 nm, 0.1 for reduced systems]
    #[arg(long, value_name = "LENGTH", default_value_t = 0.0)]
    move_size: f64,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Starting configurations: a dataset on the server, or a file of frames [default: the structure of the topology]
    #[arg(long, value_name = "NAME|FILE")]
    start: Option<String>,
    /// Name of the dataset
    #[arg(long, value_name = "ID")]
    dataset_id: Option<String>,
    /// Follow the job to its end
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum MethodArg {
    Langevin,
    HybridMonteCarlo,
    Metropolis,
}

impl From<MethodArg> for v1::SimulationMethod {
    fn from(method: MethodArg) -> Self {
        match method {
            MethodArg::Langevin => Self::Langevin,
            MethodArg::HybridMonteCarlo => Self::HybridMonteCarlo,
            MethodArg::Metropolis => Self::Metropolis,
        }
    }
}

fn ladder(text: &str) -> Result<(f64, f64, i64), String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (low, high, count) = match parts[..] {
        [low, high] => (low, high, "0"),
        [low, high, count] => (low, high, count),
        _ => return Err(format!("'{text}' is not LOW:HIGH or LOW:HIGH:COUNT, as in 300:820:8")),
    };
    let count = count.parse().map_err(|_| format!("'{count}' is not a number of temperatures"))?;
    Ok((specs::temperature(low)?, specs::temperature(high)?, count))
}

pub(super) async fn run(args: Args) -> Result<(), CliError> {
    let mut clients = args.server.connect().await?;
    let system = send_system(&mut clients, &args.system, args.topology.as_deref()).await?;
    let start = match &args.start {
        None => String::new(),
        Some(name) => send_dataset(&mut clients, name, &system, None, None).await?,
    };
    // Zero means none here, and the default in the request.
    let or_none = |steps: Option<i64>| steps.map_or(0, |steps| if steps == 0 { -1 } else { steps });
    let task = v1::SimulationTask {
        system,
        method: v1::SimulationMethod::from(args.method).into(),
        temperatures: args.temperatures,
        ladder: args.ladder.map(|(low, high, count)| v1::TemperatureLadder {
            low,
            high,
            count,
            acceptance: args.exchange_acceptance,
            pilot_steps: 0,
        }),
        walkers: args.walkers,
        equilibration_steps: or_none(args.equilibration),
        steps: args.steps,
        stride: args.stride,
        exchange_every: or_none(args.exchange_every),
        time_step: args.time_step,
        friction: args.friction,
        leapfrog_steps: args.leapfrog_steps,
        move_size: args.move_size,
        target_acceptance: 0.0,
        seed: args.seed,
        start,
        dataset_id: args.dataset_id.unwrap_or_default(),
    };
    submit(&mut clients, Task::Simulation(task), args.wait, &args.json).await
}
