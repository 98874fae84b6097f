//! `wasmeter-billing`: the process that keeps the ledger. The host sends it usage records and asks it questions over a
//! Unix socket; tenant code and the network never reach it.

mod alerts;
mod backup;
mod budget;
mod call;
mod check;
mod connection;
mod data_dir;
mod frame;
mod logging;
mod nodes;
mod now;
mod parent;
mod prices;
mod readers;
mod serve;
mod service;
mod socket;
mod stripe;
mod twin;
mod verify;
mod writer;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "wasmeter-billing", version, about = "Keeps the usage ledger of wasmeter")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Book usage records and answer questions on a Unix socket
    Serve(Box<serve::Options>),
    /// Look at price books
    #[command(subcommand)]
    Prices(PricesCommand),
    /// Recompute every entry, balance and sequence of a ledger; exits 1 on a difference
    Check(check::Options),
    /// Make product, meters and prices of the price book at Stripe, and bring subscriptions to them; run again, it changes
    /// nothing
    Setup(stripe::commands::setup::Options),
    /// Compare the ledger with Stripe's sums, by customer, meter and hour, and every invoice that is out with what the entries
    /// of its period come to; exits 1 on a difference
    Reconcile(stripe::commands::reconcile::Options),
    /// Prove a test-mode key end to end: set-up, customer, pages, an event that is counted once
    Selftest(stripe::commands::selftest::Options),
    /// Look at the usage on its way to Stripe
    #[command(subcommand)]
    Outbox(stripe::commands::outbox::OutboxCommand),
    /// Copy the ledger as of one commit, while it runs
    Backup(backup::BackupOptions),
    /// Put a backup in the place of a lost ledger
    Restore(backup::RestoreOptions),
    /// Stand in for Stripe on this machine, with play money: for tests and the demo
    Twin(twin::Options),
    /// Check receipts: signatures, chain, proofs, prices and sums; exits 1 where one is wrong
    Verify(verify::Options),
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
        Command::Serve(options) => serve::run(*options),
        Command::Prices(PricesCommand::Check(options)) => prices::check(&options),
        Command::Check(options) => check::run(&options),
        Command::Setup(options) => stripe::commands::setup::run(&options),
        Command::Reconcile(options) => stripe::commands::reconcile::run(&options),
        Command::Selftest(options) => stripe::commands::selftest::run(&options),
        Command::Outbox(stripe::commands::outbox::OutboxCommand::List(options)) => {
            stripe::commands::outbox::list(&options)
        }
        Command::Backup(options) => backup::backup(&options),
        Command::Restore(options) => backup::restore(&options),
        Command::Twin(options) => twin::run(options),
        Command::Verify(options) => verify::run(&options),
    };
    result.unwrap_or_else(|error| {
        eprintln!("wasmeter-billing: {error:#}");
        ExitCode::FAILURE
    })
}
