//! `boltzflow serve`

use super::client::CliError;
use crate::config::{Config, LogFormat, ServeOptions};
use crate::server::Server;
use std::io::Write;
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;
use tracing_subscriber::EnvFilter;

/// Run the server
///
/// Example: boltzflow serve --listen 127.0.0.1:50051 --database sqlite:///var/lib/boltzflow/state.db --artifacts
/// file:///var/lib/boltzflow/artifacts
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A TOML file with the options below in snake_case; flags and environment win over it
    #[arg(long, env = "BOLTZFLOW_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    options: ServeOptions,
}

pub(super) async fn run(args: Args) -> Result<(), CliError> {
    let failed = |e: &dyn std::fmt::Display| CliError::failed(e.to_string());
    let config = Config::resolve(args.options, args.config.as_deref()).map_err(|e| failed(&e))?;
    start_logging(&config)?;
    let server = Server::bind(config.server, config.listen, config.admin).await.map_err(|e| failed(&e))?;
    let (address, admin) = (server.address().map_err(|e| failed(&e))?, server.admin_address().map_err(|e| failed(&e))?);
    info!(%address, %admin, version = env!("CARGO_PKG_VERSION"), "serving");
    // The server runs, whether anybody reads this or not.
    let _ = writeln!(std::io::stdout(), "listening on {address}, admin on {admin}");
    let shutdown = CancellationToken::new();
    tokio::spawn(wait_for_signals(shutdown.clone()));
    server.run(shutdown).await.map_err(|e| failed(&e))
}

/// SIGTERM or SIGINT begins to drain; the second one ends the process.
async fn wait_for_signals(shutdown: CancellationToken) {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return;
    };
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if shutdown.is_cancelled() {
            std::process::exit(130);
        }
        shutdown.cancel();
    }
}

fn start_logging(config: &Config) -> Result<(), CliError> {
    let filter = EnvFilter::try_new(&config.log).map_err(|e| CliError::failed(format!("log filter: {e}")))?;
    // A line that cannot be written is lost: saying so on the same stream would panic.
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    let started = match config.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    started.map_err(|e| CliError::failed(format!("logging: {e}")))
}
