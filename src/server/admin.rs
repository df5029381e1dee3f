//! The admin port: plain HTTP for probes and Prometheus.

use super::app::App;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Router, serve};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

/// A probe that takes longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(2);

/// Serves the admin port until `stop`.
pub(super) async fn serve_admin(listener: TcpListener, app: App, stop: CancellationToken) {
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/version", get(|| async { concat!(env!("CARGO_PKG_VERSION"), "\n") }))
        .with_state(app);
    if let Err(e) = serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await {
        error!(error = %e, "the admin port failed");
    }
}

/// Ready while the store answers and the server does not drain.
async fn ready(State(app): State<App>) -> impl IntoResponse {
    if app.draining.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n");
    }
    match tokio::time::timeout(PATIENCE, app.store.ping()).await {
        Ok(Ok(())) => (StatusCode::OK, "ok\n"),
        Ok(Err(e)) => {
            warn!(error = %e, "not ready: the database failed");
            (StatusCode::SERVICE_UNAVAILABLE, "the database failed\n")
        }
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the database does not answer\n"),
    }
}

async fn metrics(State(app): State<App>) -> impl IntoResponse {
    let metrics = &app.metrics;
    match app.store.count_jobs().await {
        Ok(counts) => {
            for state in crate::store::JobState::ALL {
                let n = counts.iter().find(|(s, _)| *s == state).map_or(0, |(_, n)| *n);
                metrics.jobs.with_label_values(&[state.name()]).set(n as f64);
            }
        }
        Err(e) => warn!(error = %e, "jobs could not be counted"),
    }
    metrics.compute_waiting.set(i64::try_from(app.engine.slot.waiting()).unwrap_or(i64::MAX));
    metrics.compute_busy_seconds.set(app.engine.slot.busy_seconds());
    metrics.models_loaded.set(i64::try_from(app.engine.models.count()).unwrap_or(i64::MAX));
    match metrics.render() {
        Ok(text) => (StatusCode::OK, [(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text),
        Err(e) => {
            error!(error = %e, "metrics could not be written");
            (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "text/plain")], String::new())
        }
    }
}
