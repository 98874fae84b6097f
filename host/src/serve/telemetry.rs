use std::io::IsTerminal;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Between two foldings of samples: 8 bytes each wait meanwhile.
const UPKEEP: Duration = Duration::from_secs(5);

/// Logs on standard error; `WASMETER_LOG` filters, `WASMETER_LOG_FORMAT=json` is for machines.
pub(crate) fn init_logs() {
    // wasmtime-wasi-http warns of what a guest does wrong, such as a request to nowhere: its own log says so.
    let default = || EnvFilter::new("info,wasmtime_wasi_http=error");
    let filter = EnvFilter::try_from_env("WASMETER_LOG").unwrap_or_else(|_| default());
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    // An error means that a subscriber is there already, which only tests have.
    let _ = if std::env::var_os("WASMETER_LOG_FORMAT").is_some_and(|f| f == "json") {
        logs.json().flatten_event(true).try_init()
    } else {
        logs.try_init()
    };
}

/// Samples of histograms gather until somebody looks at `/metrics`, perhaps never: they are folded in between.
pub(crate) async fn keep(metrics: PrometheusHandle, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(UPKEEP)).await.is_some() {
        metrics.run_upkeep();
    }
}

/// The recorder behind `/metrics`. Before anything makes its handles.
pub(crate) fn install_metrics() -> anyhow::Result<PrometheusHandle> {
    const SECONDS: [f64; 12] = [0.000_05, 0.000_2, 0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
    let builder =
        PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?;
    Ok(builder.install_recorder()?)
}
