//! The command line: one subcommand a file.

// First, for its macro.
#[macro_use]
mod say;

mod alanine_dipeptide;
mod arrays;
mod bench;
mod client;
mod datasets;
mod doctor;
mod download;
mod energy;
mod free_energy;
mod free_energy_difference;
mod jobs;
mod line;
mod local_server;
mod log_prob;
mod mbar;
mod methods;
mod models;
mod names;
mod output;
mod plan_file;
mod plots;
mod quickstart;
mod sample;
mod serve;
mod simulate;
mod specs;
mod systems;
mod threads;
mod train;

use crate::compute::fused::Found;
use clap::{Parser, Subcommand};
use client::CliError;
use std::process::ExitCode;

/// Train normalizing flows on molecular potentials, and stream exactly weighted Boltzmann samples from them.
///
/// Exit codes: 0 done; 1 failed; 2 wrong usage; 3 the server cannot be reached or is busy; 4 the server refused the
/// request; 5 the job failed or was cancelled; 141 the reader of the output has left.
#[derive(Debug, Parser)]
#[command(name = "boltzflow", version, arg_required_else_help = true)]
struct Cli {
    /// Vector instructions to compute with, no better ones than these; the best of this machine if not given
    #[arg(long, global = true, env = "BOLTZFLOW_INSTRUCTIONS", value_name = "SET")]
    instructions: Option<Instructions>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Args),
    Quickstart(quickstart::Args),
    Train(train::Args),
    Simulate(simulate::Args),
    Sample(sample::Args),
    FreeEnergy(free_energy::Args),
    LogProb(log_prob::Args),
    Mbar(mbar::Args),
    FreeEnergyDifference(free_energy_difference::Args),
    Energy(energy::Args),
    Bench(bench::Args),
    Doctor(doctor::Args),
    #[command(subcommand)]
    Systems(systems::Command),
    #[command(subcommand)]
    Datasets(datasets::Command),
    #[command(subcommand)]
    Jobs(jobs::Command),
    #[command(subcommand)]
    Models(models::Command),
}

/// Sets of vector instructions, as the command line names them.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Instructions {
    Portable,
    Avx2,
    Avx512,
    #[value(name = "avx512-bf16")]
    Avx512Bf16,
}

impl From<Instructions> for Found {
    fn from(set: Instructions) -> Self {
        match set {
            Instructions::Portable => Self::Portable,
            Instructions::Avx2 => Self::Avx2,
            Instructions::Avx512 => Self::Avx512,
            Instructions::Avx512Bf16 => Self::Avx512Bf16,
        }
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    threads::settle();
    let cli = Cli::parse();
    if let Some(set) = cli.instructions.map(Found::from)
        && !set.limit()
    {
        remark!("error: this machine has no {}; leave --instructions out", set.name());
        return ExitCode::from(2);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            remark!("error: no runtime: {e}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(run(cli.command));
    // A computation that nobody waits for any more must not hold the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            remark!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

async fn run(command: Command) -> Result<(), CliError> {
    match command {
        Command::Serve(args) => serve::run(args).await,
        Command::Quickstart(args) => quickstart::run(args).await,
        Command::Train(args) => train::run(args).await,
        Command::Simulate(args) => simulate::run(args).await,
        Command::Sample(args) => sample::run(args).await,
        Command::FreeEnergy(args) => free_energy::run(args).await,
        Command::LogProb(args) => log_prob::run(args).await,
        Command::Mbar(args) => mbar::run(args).await,
        Command::FreeEnergyDifference(args) => free_energy_difference::run(args).await,
        Command::Energy(args) => energy::run(args).await,
        Command::Bench(args) => bench::run(args).await,
        Command::Doctor(args) => doctor::run(args).await,
        Command::Systems(command) => systems::run(command).await,
        Command::Datasets(command) => datasets::run(command).await,
        Command::Jobs(command) => jobs::run(command).await,
        Command::Models(command) => models::run(command).await,
    }
}
