//! Logs and metrics: set up once for the process.
//!
//! A log line reads by itself and has fields. Never in it, at any level: subjects, bodies, names, addresses, tokens,
//! `clientState`, request bodies (I5). Types that hold such things print as `[redacted]`; libraries that log what they
//! send (HTTP clients, the calendar SDK) are held at `warn` whatever level is asked for.

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Libraries that would log addresses, headers or bodies.
const QUIET: [&str; 9] = [
    "hyper=warn",
    "hyper_util=warn",
    "reqwest=warn",
    "rustls=warn",
    "h2=warn",
    "azure_core=warn",
    "azure_identity=warn",
    "graph_rs_sdk=warn",
    "typespec_client_core=warn",
];

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is not one.
    #[error("`{given}` is not a log level")]
    Level {
        /// What was given.
        given: String,
        /// Why.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// A second set-up in one process.
    #[error("telemetry was set up before")]
    Twice(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Sends log lines to standard error.
///
/// # Errors
/// [`TelemetryError`] names the level that is none.
pub fn log(format: LogFormat, level: &str) -> Result<(), TelemetryError> {
    let directives = QUIET.iter().fold(level.to_owned(), |all, quiet| format!("{all},{quiet}"));
    let filter = EnvFilter::builder()
        .parse(directives)
        .map_err(|source| TelemetryError::Level { given: level.to_owned(), source })?;
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Text => registry.with(fmt::layer().with_writer(std::io::stderr)).try_init(),
        LogFormat::Json => registry.with(fmt::layer().json().with_writer(std::io::stderr)).try_init(),
    }
    .map_err(|error| TelemetryError::Twice(Box::new(error)))
}

/// Bounds of the latency histograms, in seconds: fine around the promises of 250 ms and 1 s.
const BUCKETS: [f64; 13] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.175, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 900.0];

/// Those of the time from an edge to the hand-over of what it brings, where a millisecond is much and a second too much.
const FINE_BUCKETS: [f64; 13] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 10.0];

/// Collects metrics; the handle renders them for Prometheus.
///
/// # Errors
/// [`TelemetryError::Twice`].
pub fn metrics() -> Result<PrometheusHandle, TelemetryError> {
    let twice = |error: BuildError| TelemetryError::Twice(Box::new(error));
    let fine = Matcher::Full("narvaro_edge_scheduling_seconds".to_owned());
    let builder = PrometheusBuilder::new().set_buckets(&BUCKETS).map_err(twice)?;
    builder.set_buckets_for_metric(fine, &FINE_BUCKETS).map_err(twice)?.install_recorder().map_err(twice)
}

/// Folds what histograms have gathered together every few seconds; without it they grow while nobody asks for metrics.
pub async fn upkeep(metrics: PrometheusHandle, shutdown: CancellationToken) {
    let mut beat = tokio::time::interval(std::time::Duration::from_secs(5));
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = beat.tick() => metrics.run_upkeep(),
        }
    }
}
