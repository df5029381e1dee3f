//! A server in this process, on free loopback ports, with a folder of its own.

use super::client::{CliError, ServerArgs};
use crate::compute::{DeviceChoice, Precision};
use crate::server::{Limits, Server, ServerSettings};
use std::path::PathBuf;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A server that runs until it is stopped.
pub(super) struct LocalServer {
    /// How to reach it.
    pub server: ServerArgs,
    pub folder: PathBuf,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl LocalServer {
    pub async fn start(device: DeviceChoice, precision: Precision) -> Result<Self, CliError> {
        let folder = std::env::temp_dir().join(format!("boltzflow-{}", uuid::Uuid::now_v7().simple()));
        std::fs::create_dir_all(&folder).map_err(|e| CliError::file(&folder, e))?;
        let settings = ServerSettings {
            database: format!("sqlite://{}", folder.join("state.db").display()),
            artifacts: format!("file://{}", folder.join("artifacts").display()),
            device,
            precision,
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
                remark!("the server failed: {e}");
            }
        });
        Ok(Self { server: ServerArgs { server: format!("http://{address}") }, folder, shutdown, task })
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        // What the server could not end by then, the end of the process ends.
        let _ = self.task.await;
        if let Err(e) = std::fs::remove_dir_all(&self.folder) {
            remark!("warning: {}: {e}", self.folder.display());
        }
    }
}
