use anyhow::Context;
use tracing_subscriber::EnvFilter;

/// Logs to stderr: level from `WASMETER_LOG` (default `info`), JSON if `WASMETER_LOG_FORMAT=json`.
pub(crate) fn init() -> anyhow::Result<()> {
    let level = std::env::var("WASMETER_LOG").unwrap_or_else(|_| "info".to_owned());
    let filter = EnvFilter::try_new(&level)
        .with_context(|| format!("WASMETER_LOG={level:?} is not a filter; use a level such as info"))?;
    // A reader of our stderr that died must not make us panic: internal errors of the logger stay silent.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .log_internal_errors(false);
    match std::env::var("WASMETER_LOG_FORMAT").as_deref() {
        Ok("json") => builder.json().init(),
        Ok("text") | Err(_) => builder.init(),
        Ok(other) => anyhow::bail!("WASMETER_LOG_FORMAT={other:?} is unknown; use text or json"),
    }
    Ok(())
}
