//! The workloads by name, and what each item of theirs costs.

use super::super::client::CliError;
use super::flows::{REALNVP_2, REALNVP_60, SPLINE_60};
use super::report::Measurement;
use super::timing::Pace;
use super::{free_energies, molecule, replica_exchange, sampling, service, sgemm, training};
use crate::compute::{DeviceChoice, Precision};
use candle_core::Device;
use clap::ValueEnum;

/// Where and how long workloads run.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Setting {
    /// What a server in this process is told to run on: `device` by its name.
    pub choice: DeviceChoice,
    pub device: Device,
    pub precision: Precision,
    pub pace: Pace,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Workload {
    #[value(name = "realnvp-2")]
    RealNvp2,
    #[value(name = "realnvp-60")]
    RealNvp60,
    #[value(name = "realnvp-60-train")]
    RealNvp60Train,
    #[value(name = "spline-60")]
    Spline60,
    #[value(name = "spline-60-train")]
    Spline60Train,
    #[value(name = "ala2-energy")]
    Ala2Energy,
    #[value(name = "ala2-weighted")]
    Ala2Weighted,
    #[value(name = "ala2-exchange")]
    Ala2Exchange,
    #[value(name = "peptide-energy")]
    PeptideEnergy,
    #[value(name = "sgemm")]
    Sgemm,
    #[value(name = "grpc-stream")]
    GrpcStream,
    #[value(name = "grpc-latency")]
    GrpcLatency,
    #[value(name = "mbar-solve")]
    MbarSolve,
}

/// Floating-point operations and bytes of memory traffic of one item; benches/README.md derives them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cost {
    pub flop: f64,
    pub byte: f64,
}

impl Workload {
    pub fn name(self) -> String {
        self.to_possible_value().map(|v| v.get_name().to_string()).unwrap_or_default()
    }

    /// What an item is.
    pub(super) fn item(self) -> &'static str {
        match self {
            Self::Sgemm => "GFLOP",
            Self::Ala2Energy | Self::PeptideEnergy => "energies",
            Self::Ala2Exchange => "steps",
            Self::GrpcLatency => "requests",
            _ => "samples",
        }
    }

    /// What an item costs, where that is counted.
    pub(super) fn cost(self) -> Option<Cost> {
        match self {
            Self::RealNvp2 => Some(REALNVP_2.sampling_cost()),
            Self::RealNvp60 | Self::GrpcStream => Some(REALNVP_60.sampling_cost()),
            Self::RealNvp60Train => Some(REALNVP_60.training_cost()),
            Self::Spline60 => Some(SPLINE_60.sampling_cost()),
            Self::Spline60Train => Some(SPLINE_60.training_cost()),
            Self::Sgemm => Some(sgemm::COST),
            Self::Ala2Energy
            | Self::Ala2Weighted
            | Self::Ala2Exchange
            | Self::PeptideEnergy
            | Self::GrpcLatency
            | Self::MbarSolve => None,
        }
    }

    /// Measures the workload; what computes does so on threads that may block.
    pub(super) async fn measure(self, setting: &Setting) -> Result<Measurement, CliError> {
        let run: fn(&Setting) -> Result<(f64, f64), CliError> = match self {
            Self::GrpcStream => return service::stream(setting).await,
            Self::GrpcLatency => return service::latency(setting).await,
            Self::RealNvp2 => |setting| sampling::run(&REALNVP_2, setting),
            Self::RealNvp60 => |setting| sampling::run(&REALNVP_60, setting),
            Self::Spline60 => |setting| sampling::run(&SPLINE_60, setting),
            Self::RealNvp60Train => |setting| training::reverse_kl(&REALNVP_60, setting),
            Self::Spline60Train => |setting| training::maximum_likelihood(&SPLINE_60, setting),
            Self::Ala2Energy => molecule::energies,
            Self::Ala2Weighted => molecule::weighted,
            Self::Ala2Exchange => replica_exchange::run,
            Self::PeptideEnergy => molecule::peptide_energies,
            Self::Sgemm => sgemm::run,
            Self::MbarSolve => free_energies::solve,
        };
        let setting = setting.clone();
        let compute = move || run(&setting).map(|(items, seconds)| Measurement::new(self, items, seconds));
        let failed = |e| CliError::failed(format!("{} died: {e}", self.name()));
        tokio::task::spawn_blocking(compute).await.map_err(failed)?
    }
}
