//! The server's configuration: defaults < TOML file < environment < flags.

use crate::compute::{DeviceChoice, DeviceError, Precision};
use crate::server::{Limits, ServerSettings};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// What may be given on the command line, in the environment, or in a TOML file by the same names in snake_case.
#[derive(Clone, Debug, Default, clap::Args, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServeOptions {
    /// Address for gRPC [default: 127.0.0.1:50051]
    #[arg(long, env = "BOLTZFLOW_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// Address for probes and metrics, plain HTTP [default: 127.0.0.1:8080]
    #[arg(long, env = "BOLTZFLOW_ADMIN", value_name = "ADDRESS")]
    pub admin: Option<SocketAddr>,
    /// Where jobs and names are kept [default: sqlite://boltzflow-data/state.db]
    #[arg(long, env = "BOLTZFLOW_DATABASE", value_name = "URL")]
    pub database: Option<String>,
    /// Where models, checkpoints and frames are kept [default: file://boltzflow-data/artifacts]
    #[arg(long, env = "BOLTZFLOW_ARTIFACTS", value_name = "URL")]
    pub artifacts: Option<String>,
    /// auto, cpu or cuda:N [default: auto]
    #[arg(long, env = "BOLTZFLOW_DEVICE")]
    pub device: Option<String>,
    /// What conditioners are sampled in: f32, bf16 or (on CUDA) tf32; weights are exact in each [default: f32]
    #[arg(long, env = "BOLTZFLOW_PRECISION")]
    pub precision: Option<String>,
    /// Streams of samples and estimates at a time [default: 64]
    #[arg(long, env = "BOLTZFLOW_MAX_STREAMS", value_name = "N")]
    pub max_streams: Option<usize>,
    /// Uploads, downloads and energy evaluations at a time [default: 4]
    #[arg(long, env = "BOLTZFLOW_MAX_TRANSFERS", value_name = "N")]
    pub max_transfers: Option<usize>,
    /// Seconds that a stream waits for a client that neither reads nor sends [default: 300]
    #[arg(long, env = "BOLTZFLOW_STALL_SECONDS", value_name = "SECONDS")]
    pub stall_seconds: Option<f64>,
    /// Jobs that wait or run, at most [default: 1000]
    #[arg(long, env = "BOLTZFLOW_MAX_JOBS", value_name = "N")]
    pub max_jobs: Option<u64>,
    /// Bytes of a dataset, at most [default: 1073741824]
    #[arg(long, env = "BOLTZFLOW_MAX_DATASET_BYTES", value_name = "N")]
    pub max_dataset_bytes: Option<u64>,
    /// Bytes of an imported model, at most [default: 268435456]
    #[arg(long, env = "BOLTZFLOW_MAX_MODEL_BYTES", value_name = "N")]
    pub max_model_bytes: Option<usize>,
    /// Models kept in memory [default: 16]
    #[arg(long, env = "BOLTZFLOW_LOADED_MODELS", value_name = "N")]
    pub loaded_models: Option<usize>,
    /// Seconds that open calls may go on after SIGTERM [default: 25]
    #[arg(long, env = "BOLTZFLOW_DRAIN_SECONDS", value_name = "SECONDS")]
    pub drain_seconds: Option<f64>,
    /// text or json [default: text]
    #[arg(long, env = "BOLTZFLOW_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// Which log lines are written, as in RUST_LOG [default: info]
    #[arg(long, env = "BOLTZFLOW_LOG", value_name = "FILTER")]
    pub log: Option<String>,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {source}")]
    Parse { path: PathBuf, source: Box<toml::de::Error> },
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("{0}")]
    Value(String),
}

/// A configuration with nothing left open.
#[derive(Clone, Debug)]
pub struct Config {
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    pub server: ServerSettings,
    pub log_format: LogFormat,
    pub log: String,
}

/// A lease is long enough for a checkpoint to be written, and short enough for a dead worker's job not to wait.
const LEASE: Duration = Duration::from_secs(30);

impl Config {
    /// Merges the options over those of the file, over the defaults.
    pub fn resolve(options: ServeOptions, file: Option<&Path>) -> Result<Self, ConfigError> {
        let below = file.map(read_file).transpose()?.unwrap_or_default();
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let limits = Limits::default();
        let drain = options.drain_seconds.or(below.drain_seconds).unwrap_or(25.0);
        if !(0.0..=3600.0).contains(&drain) {
            return Err(ConfigError::Value(format!("drain_seconds is {drain}; it must be from 0 to 3600")));
        }
        let streams = options.max_streams.or(below.max_streams).unwrap_or(limits.streams);
        if !(1..=400).contains(&streams) {
            return Err(ConfigError::Value(format!("max_streams is {streams}; it must be from 1 to 400")));
        }
        let transfers = options.max_transfers.or(below.max_transfers).unwrap_or(limits.transfers);
        if !(1..=1000).contains(&transfers) {
            return Err(ConfigError::Value(format!("max_transfers is {transfers}; it must be from 1 to 1000")));
        }
        let stall = options.stall_seconds.or(below.stall_seconds).unwrap_or(limits.stall.as_secs_f64());
        if !(0.1..=86_400.0).contains(&stall) {
            return Err(ConfigError::Value(format!("stall_seconds is {stall}; it must be from 0.1 to 86400")));
        }
        Ok(Self {
            listen: options.listen.or(below.listen).unwrap_or(local(50051)),
            admin: options.admin.or(below.admin).unwrap_or(local(8080)),
            server: ServerSettings {
                database: options
                    .database
                    .or(below.database)
                    .unwrap_or_else(|| "sqlite://boltzflow-data/state.db".into()),
                artifacts: options
                    .artifacts
                    .or(below.artifacts)
                    .unwrap_or_else(|| "file://boltzflow-data/artifacts".into()),
                precision: match options.precision.or(below.precision) {
                    Some(text) => text.parse()?,
                    None => Precision::default(),
                },
                device: match options.device.or(below.device) {
                    Some(text) => text.parse()?,
                    None => DeviceChoice::Auto,
                },
                limits: Limits {
                    streams,
                    stall: Duration::from_secs_f64(stall),
                    transfers,
                    unfinished_jobs: options.max_jobs.or(below.max_jobs).unwrap_or(limits.unfinished_jobs),
                    dataset_bytes: options
                        .max_dataset_bytes
                        .or(below.max_dataset_bytes)
                        .unwrap_or(limits.dataset_bytes),
                    model_bytes: options.max_model_bytes.or(below.max_model_bytes).unwrap_or(limits.model_bytes),
                    loaded_models: options.loaded_models.or(below.loaded_models).unwrap_or(limits.loaded_models),
                },
                drain: Duration::from_secs_f64(drain),
                lease: LEASE,
            },
            log_format: options.log_format.or(below.log_format).unwrap_or_default(),
            log: options.log.or(below.log).unwrap_or_else(|| "info".into()),
        })
    }
}

fn read_file(path: &Path) -> Result<ServeOptions, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_path_buf(), source })?;
    toml::from_str(&text).map_err(|source| ConfigError::Parse { path: path.to_path_buf(), source: Box::new(source) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("boltzflow.toml");
        std::fs::write(&path, "listen = \"127.0.0.1:1\"\nmax_streams = 3\nlog_format = \"json\"\n").unwrap();
        let options = ServeOptions { listen: Some("127.0.0.1:2".parse().unwrap()), ..ServeOptions::default() };
        let config = Config::resolve(options, Some(&path)).unwrap();
        assert_eq!(config.listen.port(), 2);
        assert_eq!(config.server.limits.streams, 3);
        assert_eq!(config.log_format, LogFormat::Json);
        assert_eq!(config.admin.port(), 8080);
        std::fs::write(&path, "lisen = 1\n").unwrap();
        assert!(Config::resolve(ServeOptions::default(), Some(&path)).unwrap_err().to_string().contains("lisen"));
    }
}
