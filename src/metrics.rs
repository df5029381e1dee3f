//! Prometheus metrics, all of them, by name.

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts,
    Registry, TextEncoder,
};

/// The metrics of one server. They live in a registry of their own, so that several servers fit in a process.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    /// Calls begun and ended, by method; the names of go-grpc-prometheus, so that stock dashboards work.
    pub grpc_started: IntCounterVec,
    pub grpc_handled: IntCounterVec,
    pub grpc_seconds: HistogramVec,
    pub jobs: GaugeVec,
    pub job_queue_wait: Histogram,
    pub train_steps: IntCounter,
    pub train_effective_fraction: Gauge,
    pub simulation_steps_per_second: Gauge,
    pub checkpoint_seconds: Histogram,
    pub leases_lost: IntCounter,
    pub samples: IntCounterVec,
    pub sample_effective_fraction: Histogram,
    pub streams_open: IntGauge,
    pub batch_rows: Histogram,
    pub batch_requests: Histogram,
    pub compute_busy_seconds: Gauge,
    pub compute_waiting: IntGauge,
    pub models_loaded: IntGauge,
}

const SECONDS: [f64; 12] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0];
const FRACTIONS: [f64; 9] = [0.001, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95];

const ROWS: [f64; 8] = [1.0, 16.0, 64.0, 256.0, 512.0, 1024.0, 4096.0, 8192.0];
const REQUESTS: [f64; 6] = [1.0, 2.0, 4.0, 8.0, 16.0, 64.0];

impl Metrics {
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let add = |collector: Box<dyn prometheus::core::Collector>| registry.register(collector);
        let call = &["grpc_type", "grpc_service", "grpc_method"];
        let ended = &["grpc_type", "grpc_service", "grpc_method", "grpc_code"];
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))
        };
        let metrics = Self {
            grpc_started: IntCounterVec::new(Opts::new("grpc_server_started_total", "Calls begun"), call)?,
            grpc_handled: IntCounterVec::new(Opts::new("grpc_server_handled_total", "Calls ended, by status"), ended)?,
            grpc_seconds: HistogramVec::new(
                HistogramOpts::new("grpc_server_handling_seconds", "Time from a call's beginning to its end")
                    .buckets(SECONDS.to_vec()),
                call,
            )?,
            jobs: GaugeVec::new(Opts::new("boltzflow_jobs", "Jobs in the database, by state"), &["state"])?,
            job_queue_wait: histogram(
                "boltzflow_job_queue_wait_seconds",
                "Time that jobs waited for a worker",
                &SECONDS,
            )?,
            train_steps: IntCounter::new("boltzflow_train_steps_total", "Training steps done")?,
            train_effective_fraction: Gauge::new(
                "boltzflow_train_effective_fraction",
                "Effective sample size as a fraction, last measured in training",
            )?,
            simulation_steps_per_second: Gauge::new(
                "boltzflow_simulation_steps_per_second",
                "Steps of a simulation in a second, summed over its walkers, last measured",
            )?,
            checkpoint_seconds: histogram("boltzflow_checkpoint_seconds", "Time to keep a checkpoint", &SECONDS)?,
            leases_lost: IntCounter::new("boltzflow_leases_lost_total", "Jobs that a worker lost to another")?,
            samples: IntCounterVec::new(Opts::new("boltzflow_samples_total", "Samples drawn, by method"), &["method"])?,
            sample_effective_fraction: histogram(
                "boltzflow_sample_effective_fraction",
                "Effective sample size of finished streams, estimates and sampling jobs, as a fraction",
                &FRACTIONS,
            )?,
            batch_rows: histogram("boltzflow_batch_rows", "Samples computed as one batch", &ROWS)?,
            batch_requests: histogram("boltzflow_batch_requests", "Requests that shared a batch", &REQUESTS)?,
            streams_open: IntGauge::new("boltzflow_streams_open", "Streams of samples or estimates that are open")?,
            compute_busy_seconds: Gauge::new("boltzflow_compute_busy_seconds", "Time that the device was in use")?,
            compute_waiting: IntGauge::new("boltzflow_compute_waiting", "Computations that wait for the device")?,
            models_loaded: IntGauge::new("boltzflow_models_loaded", "Models in memory")?,
            registry: registry.clone(),
        };
        for collector in [&metrics.grpc_started, &metrics.grpc_handled, &metrics.samples] {
            add(Box::new(collector.clone()))?;
        }
        for collector in [&metrics.job_queue_wait, &metrics.checkpoint_seconds, &metrics.sample_effective_fraction] {
            add(Box::new(collector.clone()))?;
        }
        for collector in [&metrics.batch_rows, &metrics.batch_requests] {
            add(Box::new(collector.clone()))?;
        }
        for collector in [&metrics.streams_open, &metrics.compute_waiting, &metrics.models_loaded] {
            add(Box::new(collector.clone()))?;
        }
        for collector in [&metrics.train_steps, &metrics.leases_lost] {
            add(Box::new(collector.clone()))?;
        }
        for collector in
            [&metrics.train_effective_fraction, &metrics.simulation_steps_per_second, &metrics.compute_busy_seconds]
        {
            add(Box::new(collector.clone()))?;
        }
        add(Box::new(metrics.grpc_seconds.clone()))?;
        add(Box::new(metrics.jobs.clone()))?;
        let build = GaugeVec::new(Opts::new("boltzflow_build_info", "The version that runs"), &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        add(Box::new(build))?;
        #[cfg(target_os = "linux")]
        add(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(metrics)
    }

    /// All metrics in Prometheus's text format.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut buffer = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer).into_owned())
    }
}
