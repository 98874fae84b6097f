//! `wasmeter-billing`: the process that keeps the ledger. The host sends it usage records and asks it questions over a
//! Unix socket; tenant code and the network never reach it.

mod budget;
mod call;
mod check;
mod connection;
mod data_dir;
mod frame;
mod logging;
mod now;
mod parent;
mod prices;
mod readers;
mod serve;
mod service;
mod socket;
mod twin;
mod writer;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

#[derive(Parser)]
#[command(name = "wasmeter-billing", version, about = "Keeps the usage ledger of wasmeter")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Book usage records and answer questions on a Unix socket
    Serve(serve::Options),
    /// Look at price books
    #[command(subcommand)]
    Prices(PricesCommand),
    /// Recompute every entry, balance and sequence of a ledger; exits 1 on a difference
    Check(check::Options),
    /// Stand in for Stripe on this machine, with play money: for tests and the demo
    Twin(twin::Options),
}

#[derive(Subcommand)]
enum PricesCommand {
    /// Validate a price book and show what it says
    Check(prices::CheckOptions),
}

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Serve(options) => serve::run(options),
        Command::Prices(PricesCommand::Check(options)) => prices::check(&options),
        Command::Check(options) => check::run(&options),
        Command::Twin(options) => twin::run(options),
    };
    result.unwrap_or_else(|error| {
        eprintln!("wasmeter-billing: {error:#}");
        ExitCode::FAILURE
    })
}
