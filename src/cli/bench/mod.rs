//! `boltzflow bench`: how fast this machine runs what the service does, and how good the flows are.

mod flows;
mod free_energies;
mod molecule;
mod replica_exchange;
mod report;
mod sampling;
mod science;
mod service;
mod sgemm;
mod timing;
mod training;
mod workload;

pub(super) use report::{Measurement, device_name, measurements_json, measurements_table};
pub(super) use timing::Pace;
pub(super) use workload::{Setting, Workload};

use super::client::CliError;
use super::output::JsonArgs;
use crate::compute::{DeviceChoice, Precision, open_device};
use clap::ValueEnum;
use std::io::Write;

/// Measure how fast this machine samples, trains, evaluates energies and serves
///
/// Each workload is called three times to warm up, then for some seconds, five times at least; its rate is that of the
/// median call. Rates move from hour to hour: quote only ratios of runs made side by side on one machine. The shapes, and
/// the numbers of operations and bytes, are derived in benches/README.md.
///
/// realnvp-2, realnvp-60, spline-60: samples drawn with log q, per second. realnvp-60-train, spline-60-train: samples
/// trained on per second (reverse KL; maximum likelihood). ala2-energy: energies and forces of alanine dipeptide per second.
/// ala2-weighted: samples of realnvp-60, and as many energies. ala2-exchange: steps of its replica exchange per second, summed
/// over replicas. peptide-energy: energies and forces of a peptide of 147 atoms per second. sgemm: GFLOP/s of a product of 2048 × 2048 matrices, the
/// ceiling of all flows. grpc-stream: weighted samples of realnvp-60 that a client receives over loopback per second.
/// grpc-latency: streams of one sample per second, one after the other. mbar-solve: samples of 20 states per second of
/// solving for their free energies.
///
/// The JSON has threads, device, and items_per_second: {WORKLOAD: {"boltzflow": rate}}; beside them flop_per_item and
/// byte_per_item (where they are counted), latency_ms: {p50, p99} of grpc-latency, and in_process_per_second: {"grpc-stream":
/// rate}, what the same samples cost without a server, measured in turns with it.
///
/// Example: boltzflow bench realnvp-60 sgemm --threads 2 --json bench.json
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Workloads to measure [default: all]
    #[arg(value_enum, value_name = "WORKLOAD")]
    workloads: Vec<Workload>,
    /// Threads that compute [default: RAYON_NUM_THREADS, or one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    threads: Option<u32>,
    /// auto, cpu or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,
    /// What conditioners are sampled in: f32, bf16 or (on CUDA) tf32
    #[arg(long, value_name = "PRECISION", default_value = "f32")]
    precision: Precision,
    /// Seconds that each workload is called for
    #[arg(long, value_name = "SECONDS", default_value = "4", value_parser = timing::seconds)]
    seconds: f64,
    #[command(flatten)]
    json: JsonArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Science(science::Args),
}

pub(super) async fn run(args: Args) -> Result<(), CliError> {
    if let Some(Command::Science(args)) = args.command {
        return science::run(args).await;
    }
    let threads = super::threads::with_threads(args.threads)?;
    let device = open_device(args.device).map_err(|e| CliError::failed(e.to_string()))?;
    args.precision.prepare(&device).map_err(|e| CliError::failed(e.to_string()))?;
    let setting =
        Setting { choice: args.device, device, precision: args.precision, pace: Pace::thorough(args.seconds) };
    let workloads = if args.workloads.is_empty() { Workload::value_variants() } else { &args.workloads };
    let measurements = measure(workloads, &setting).await?;
    if args.json.write(&measurements_json(&measurements, threads, &setting))? {
        say!("{}", measurements_table(&measurements));
        say!("{threads} threads, {}, conditioners in {}", device_name(&setting.device), setting.precision);
    }
    Ok(())
}

/// Measures workloads one after the other.
pub(super) async fn measure(workloads: &[Workload], setting: &Setting) -> Result<Vec<Measurement>, CliError> {
    let mut measurements = Vec::new();
    for &workload in workloads {
        // Nobody may be reading.
        let _ = write!(std::io::stderr(), "{} … ", workload.name());
        let measurement = workload.measure(setting).await?;
        remark!("{}", report::rate(&measurement));
        measurements.push(measurement);
    }
    Ok(measurements)
}
