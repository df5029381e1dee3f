//! A server from its beginning to its end.

use super::admin::serve_admin;
use super::app::{App, Limits};
use super::datasets::Datasets;
use super::free_energy::FreeEnergies;
use super::instrument::InstrumentLayer;
use super::jobs::Jobs;
use super::models::Models as ModelHandlers;
use super::sampling::Sampling;
use super::systems::Systems;
use crate::compute::{DeviceChoice, DeviceError, Precision, open_device};
use crate::contract::DESCRIPTORS;
use crate::contract::v1::dataset_service_server::DatasetServiceServer;
use crate::contract::v1::free_energy_service_server::FreeEnergyServiceServer;
use crate::contract::v1::job_service_server::JobServiceServer;
use crate::contract::v1::model_service_server::ModelServiceServer;
use crate::contract::v1::sampling_service_server::SamplingServiceServer;
use crate::contract::v1::system_service_server::SystemServiceServer;
use crate::energy::openmm::MAX_XML_BYTES;
use crate::engine::{Engine, Models};
use crate::metrics::Metrics;
use crate::scheduler::{Scheduler, SchedulerSettings};
use crate::store::{Artifacts, ArtifactsError, SqliteStore, Store, StoreError};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tracing::{info, warn};

/// Messages are at most this long, where they do not carry frames or whole systems.
const MESSAGE_BYTES: usize = 4 << 20;

/// A system's XML, its PDB file and the message around them; arrays of positions.
const LONG_MESSAGE_BYTES: usize = MAX_XML_BYTES + (16 << 20);

/// How long the admin port may go on answering once everything else has stopped.
const ADMIN_DRAIN: Duration = Duration::from_secs(1);

const KEEPALIVE: Duration = Duration::from_secs(30);
const MAX_STREAMS_PER_CONNECTION: u32 = 256;
const MAX_HEADER_BYTES: u32 = 16 << 10;

/// Where a server listens and keeps its things.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// `sqlite:///path`.
    pub database: String,
    /// `file:///path`.
    pub artifacts: String,
    pub device: DeviceChoice,
    /// What conditioners are sampled in.
    pub precision: Precision,
    pub limits: Limits,
    /// How long calls may go on once the server drains.
    pub drain: Duration,
    /// Time without renewal after which a worker's job is given to another.
    pub lease: Duration,
}

/// Why a server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Artifacts(#[from] ArtifactsError),
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("the server failed: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// A server that listens.
pub struct Server {
    app: App,
    settings: ServerSettings,
    listener: TcpListener,
    admin: TcpListener,
}

impl Server {
    /// Opens the stores, puts interrupted jobs back into the queue, and listens. Port 0 is any free port.
    pub async fn bind(settings: ServerSettings, listen: SocketAddr, admin: SocketAddr) -> Result<Self, ServeError> {
        let bind = async |address: SocketAddr| {
            TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })
        };
        let (listener, admin) = (bind(listen).await?, bind(admin).await?);
        let device = open_device(settings.device)?;
        settings.precision.prepare(&device)?;
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&settings.database).await?);
        let artifacts = Artifacts::open(&settings.artifacts)?;
        let requeued = store.requeue_lost_jobs(true).await?;
        if requeued > 0 {
            info!(jobs = requeued, "interrupted jobs are in the queue again");
        }
        let models = Models::new(
            Arc::clone(&store),
            artifacts.clone(),
            device.clone(),
            settings.precision,
            settings.limits.loaded_models,
        );
        let metrics = Metrics::new()?;
        let (streams, stall) = (settings.limits.streams, settings.limits.stall);
        let engine = Engine::new(device, models, metrics.clone(), streams, stall);
        let app = App {
            store,
            artifacts,
            engine,
            metrics,
            transfers: Arc::new(Semaphore::new(settings.limits.transfers)),
            limits: settings.limits.clone(),
            draining: CancellationToken::new(),
        };
        Ok(Self { app, settings, listener, admin })
    }

    /// The address that gRPC is served on.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The address of the admin port.
    pub fn admin_address(&self) -> std::io::Result<SocketAddr> {
        self.admin.local_addr()
    }

    /// Serves until `shutdown` is cancelled, then drains: health says NOT_SERVING, the running job is checkpointed and
    /// put back into the queue, streams end with the index to go on from, and calls have `settings.drain` to end.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ServeError> {
        let Self { app, settings, listener, admin } = self;
        let (reporter, health) = tonic_health::server::health_reporter();
        set_health(&reporter, ServingStatus::Serving).await;
        let worker = spawn_worker(&app, &settings);
        let admin_stop = CancellationToken::new();
        let admin_port = tokio::spawn(serve_admin(admin, app.clone(), admin_stop.clone()));

        let stop = CancellationToken::new();
        let router = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
            .http2_max_header_list_size(MAX_HEADER_BYTES)
            .layer(InstrumentLayer { metrics: app.metrics.clone() })
            .add_service(health)
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?)
            .add_service(
                SystemServiceServer::new(Systems { app: app.clone() }).max_decoding_message_size(LONG_MESSAGE_BYTES),
            )
            .add_service(
                DatasetServiceServer::new(Datasets { app: app.clone() }).max_decoding_message_size(LONG_MESSAGE_BYTES),
            )
            .add_service(JobServiceServer::new(Jobs { app: app.clone() }).max_decoding_message_size(MESSAGE_BYTES))
            .add_service(
                ModelServiceServer::new(ModelHandlers { app: app.clone() })
                    .max_decoding_message_size(LONG_MESSAGE_BYTES),
            )
            .add_service(
                SamplingServiceServer::new(Sampling { app: app.clone() }).max_decoding_message_size(MESSAGE_BYTES),
            )
            .add_service(
                FreeEnergyServiceServer::new(FreeEnergies { app: app.clone() })
                    .max_decoding_message_size(MESSAGE_BYTES),
            );
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true)).with_keepalive(Some(2 * KEEPALIVE));
        let serving = router.serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
        tokio::pin!(serving);
        let result = tokio::select! {
            ended = &mut serving => ended,
            () = shutdown.cancelled() => {
                info!(seconds = settings.drain.as_secs_f64(), "draining");
                app.draining.cancel();
                set_health(&reporter, ServingStatus::NotServing).await;
                stop.cancel();
                let drained = async { tokio::join!(&mut serving, worker) };
                match tokio::time::timeout(settings.drain, drained).await {
                    Ok((ended, _)) => ended,
                    Err(_) => {
                        warn!("calls were still open when the time to drain was over");
                        Ok(())
                    }
                }
            }
        };
        admin_stop.cancel();
        // A half-sent request must not hold the process.
        let admin_abort = admin_port.abort_handle();
        match tokio::time::timeout(ADMIN_DRAIN, admin_port).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => warn!(error = %e, "the admin port ended badly"),
            Err(_) => admin_abort.abort(),
        }
        info!("stopped");
        Ok(result?)
    }
}

fn spawn_worker(app: &App, settings: &ServerSettings) -> JoinHandle<()> {
    let scheduler = Scheduler::new(
        Arc::clone(&app.store),
        app.artifacts.clone(),
        app.engine.clone(),
        app.metrics.clone(),
        SchedulerSettings {
            worker: format!("worker-{}", uuid::Uuid::now_v7().simple()),
            lease: settings.lease,
            poll: Duration::from_secs(2),
        },
        app.draining.clone(),
    );
    tokio::spawn(scheduler.work())
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

async fn set_health(reporter: &HealthReporter, status: ServingStatus) {
    use crate::contract::v1;
    for service in [
        "",
        v1::system_service_server::SERVICE_NAME,
        v1::dataset_service_server::SERVICE_NAME,
        v1::job_service_server::SERVICE_NAME,
        v1::model_service_server::SERVICE_NAME,
        v1::sampling_service_server::SERVICE_NAME,
        v1::free_energy_service_server::SERVICE_NAME,
    ] {
        reporter.set_service_status(service, status).await;
    }
}
