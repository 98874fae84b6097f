use std::net::SocketAddr;
use std::path::PathBuf;

use wasmeter_types::WallTime;

use crate::serve::Mode;

/// What is absent here comes from the environment, then from the configuration, then is the default.
#[derive(clap::Args)]
pub(crate) struct ServeArgs {
    /// Configuration file (TOML); without one, a single machine with a tenant `dev`
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where everything is kept [default: .wasmeter]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Public listener [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// Listener of /metrics [default: 127.0.0.1:9464]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) admin_listen: Option<SocketAddr>,
    /// Listen on other than loopback addresses without TLS
    #[arg(long)]
    pub(crate) insecure: bool,
    /// What an answered invocation's usage survives [default: process]
    #[arg(long, value_enum)]
    pub(crate) durability: Option<DurabilityArg>,
    /// libonnxruntime.so; without it, model calls answer 503
    #[arg(long, value_name = "FILE")]
    pub(crate) onnxruntime: Option<PathBuf>,
    /// How long running invocations may take to end at a stop [default: 30s]
    #[arg(long, value_name = "DURATION")]
    pub(crate) drain_timeout: Option<WallTime>,
    /// Who collects the money [default: off]
    #[arg(long, value_enum, value_name = "MODE")]
    pub(crate) billing: Option<Mode>,
    /// With test or live: Stripe's secret key; only billing opens it
    #[arg(long, value_name = "FILE")]
    pub(crate) stripe_key_file: Option<PathBuf>,
    /// With test or live: the secret of Stripe's webhook endpoint; only billing opens it
    #[arg(long, value_name = "FILE")]
    pub(crate) webhook_secret_file: Option<PathBuf>,
    /// Record no usage at all, to measure what recording costs (deploy/bench/metering.sh); loopback only
    #[arg(long, hide = true)]
    pub(crate) bench_without_metering: bool,
}

/// `--durability`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum DurabilityArg {
    /// The death of every process at any instant
    Process,
    /// A power cut too; the last byte of an answer waits for the disk
    Power,
}
