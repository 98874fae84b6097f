use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use rustix::fs::Mode;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wasmeter_ledger::{Ledger, Stamp};
use wasmeter_receipt::UNSTAMPED;

use crate::data_dir::DataDir;
use crate::nodes::Nodes;
use crate::now::now_ns;
use crate::readers::Readers;
use crate::service::Service;
use crate::socket::{Socket, is_own_user};
use crate::writer::Writer;
use crate::{alerts, connection, logging, now, parent, prices, stripe};

/// Connections at once. Each may hold one frame of 16 MiB.
const CONNECTIONS: usize = 32;

/// How long calls at hand, and then the last transaction, may take after a signal.
const DRAIN: Duration = Duration::from_secs(10);

#[derive(Args)]
pub(crate) struct Options {
    /// Data directory: made with mode 0700, locked, holds ledger.sqlite
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Unix socket to listen on, mode 0600
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// Price book, TOML [default: built in]
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// What the ledger is stamped with for ever: twin, test or live [default: as --stripe; without it a ledger that has no
    /// stamp gets none]
    #[arg(long)]
    stamp: Option<Stamp>,
    #[command(flatten)]
    stripe: stripe::Options,
    #[command(flatten)]
    alerts: alerts::Options,
    /// The clock runs ahead of the machine's by the seconds in this file (tests)
    #[arg(long, value_name = "FILE", hide = true)]
    clock_file: Option<PathBuf>,
    /// Die with the parent process; its id closes the race of a parent that died at once
    #[arg(long, value_name = "PID", num_args = 0..=1, require_equals = true)]
    #[allow(clippy::option_option, reason = "absent, bare, with an id")]
    die_with_parent: Option<Option<u32>>,
}

pub(crate) fn run(options: Options) -> anyhow::Result<ExitCode> {
    if let Some(pid) = options.die_with_parent {
        parent::die_with(pid)?;
    }
    // Whatever is made from here on, SQLite's files and the socket among it, is our user's alone.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    logging::init()?;
    if let Some(file) = &options.clock_file {
        now::follow(file);
    }
    let book = prices::load(options.prices.as_deref())?;
    let in_force = book.at(now_ns())?.sheet.hash.clone();
    let stamp = options.stamp.or(options.stripe.access.stripe);
    let stripe = options.stripe.open(stamp, book.clone())?.map(Arc::new);
    let alerts = options.alerts.open()?;
    let data = DataDir::open(&options.data)?;
    let path = data.ledger();
    let mut ledger = Ledger::open(&path, stamp, book.currency(), now_ns())
        .with_context(|| format!("cannot open ledger {}", path.display()))?;
    for entry in book.entries() {
        ledger.add_sheet(&entry.sheet, now_ns())?;
    }
    let rejected = ledger.reader()?.rejected()?;
    let stamp = ledger.stamp().map_or(UNSTAMPED, Stamp::as_str);
    let readers = Readers::open(&ledger)?;
    let (writer, ended) = Writer::start(ledger).context("cannot start the writer thread")?;
    let currency = book.currency().to_owned();
    let nodes = Nodes::default();
    let stripes = stripe.clone();
    let service = Arc::new(Service {
        book,
        stamp,
        nodes,
        readers,
        writer,
        stripe: stripes,
        alerts,
        free: Arc::default(),
        currency,
    });

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(64)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let code = runtime.block_on(async {
        let mut signals = Signals::new()?;
        let socket = Socket::bind(&options.socket)?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        if let Some(stripe) = &stripe {
            stripe::start(&service, stripe, options.stripe.webhook_listen, &tasks, &stop).await?;
        }
        alerts::start(&service, &tasks, &stop);
        let charges = stripe.as_ref().map_or("nobody", |stripe| stripe.address.as_str());
        tracing::info!(
            charges,
            socket = %options.socket.display(),
            stamp,
            prices = in_force,
            rejected,
            "billing is ready"
        );
        Box::pin(accept_until_stopped(socket, service, ended, &mut signals, stop, tasks)).await
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    drop(data);
    code
}

/// TERM and INT.
struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self { term: listen(SignalKind::terminate())?, int: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "TERM",
            _ = self.int.recv() => "INT",
        }
    }
}

async fn accept_until_stopped(
    socket: Socket,
    service: Arc<Service>,
    mut ended: oneshot::Receiver<()>,
    signals: &mut Signals,
    stop: CancellationToken,
    tasks: TaskTracker,
) -> anyhow::Result<ExitCode> {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            name = signals.next() => {
                tracing::info!(signal = name, "stopping");
                break;
            }
            _ = &mut ended => anyhow::bail!("the thread that writes the ledger ended; start again"),
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                // Out of descriptors, most likely: those that close make room.
                tracing::error!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if !is_own_user(&stream) {
            tracing::warn!("a process of another user was turned away");
            continue;
        }
        match Arc::clone(&room).try_acquire_owned() {
            Ok(permit) => {
                let (service, stop) = (Arc::clone(&service), stop.clone());
                tasks.spawn(async move {
                    connection::serve(stream, service, stop).await;
                    drop(permit);
                });
            }
            Err(_) => {
                tracing::warn!(limit = CONNECTIONS, "a connection too many was turned away");
                tasks.spawn(timeout(Duration::from_secs(1), connection::turn_away(stream)));
            }
        }
    }
    drop(socket);
    stop.cancel();
    tasks.close();
    let drained = async {
        let _ = timeout(DRAIN, tasks.wait()).await;
        // The last handle of the writer goes with the service: its thread finishes what it has, and ends.
        drop(service);
        timeout(DRAIN, ended).await
    };
    tokio::select! {
        outcome = drained => match outcome {
            Ok(_) => {
                tracing::info!("stopped");
                Ok(ExitCode::SUCCESS)
            }
            Err(_) => anyhow::bail!("the last transaction did not end in time; it is undone or complete"),
        },
        // Asked twice: the ledger is safe at any instant.
        _ = signals.next() => Ok(ExitCode::from(130)),
    }
}
