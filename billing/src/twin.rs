use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use rustix::fs::Mode;
use tokio::signal::unix::{SignalKind, signal};
use wasmeter_twin::Running;

use crate::data_dir::DataDir;
use crate::{logging, parent};

#[derive(Args)]
pub(crate) struct Options {
    /// Data directory: made with mode 0700, locked, holds the journal, twin-url, secret-key and webhook-secret
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Loopback address to listen on; port 0 is the port of the last start, or any
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Makes ids, keys and faults of a new data directory repeatable
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Where webhooks go, on this machine, such as http://127.0.0.1:8080/stripe/webhook
    #[arg(long, value_name = "URL")]
    webhook_url: Option<String>,
    /// Die with the parent process; its id closes the race of a parent that died at once
    #[arg(long, value_name = "PID", num_args = 0..=1, require_equals = true)]
    #[allow(clippy::option_option, reason = "absent, bare, with an id")]
    die_with_parent: Option<Option<u32>>,
}

pub(crate) fn run(options: Options) -> anyhow::Result<ExitCode> {
    if let Some(pid) = options.die_with_parent {
        parent::die_with(pid)?;
    }
    if !options.listen.ip().is_loopback() {
        bail!(
            "{} is not a loopback address: the twin's money and its key are for this machine only",
            options.listen
        );
    }
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    logging::init()?;
    let data = DataDir::open(&options.data)?;
    let twin =
        wasmeter_twin::Options { data: options.data, seed: options.seed, webhook_url: options.webhook_url };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let running = Running::start(&twin, options.listen).await?;
        let mut out = std::io::stdout();
        writeln!(out, "twin listening on http://{}", running.address())?;
        out.flush()?;
        // All that was answered is in the journal: there is nothing to finish.
        tokio::select! {
            () = running.serve() => {}
            _ = term.recv() => tracing::info!(signal = "TERM", "stopping"),
            _ = int.recv() => tracing::info!(signal = "INT", "stopping"),
        }
        anyhow::Ok(())
    })?;
    drop(data);
    Ok(ExitCode::SUCCESS)
}
