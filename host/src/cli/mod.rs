//! The command line: data on stdout, talk on stderr.

mod alias;
mod bill;
mod billing;
mod budget;
mod build;
mod client;
mod completions;
mod connect;
mod deploy;
mod doctor;
mod functions;
mod invoke;
mod logs;
mod models;
mod new;
mod output;
mod pages;
mod pre_init;
mod project;
mod quote;
mod receipts;
mod record;
mod refund;
mod secrets;
pub(crate) mod serve;
mod tenants;
mod token;
mod upload;
mod usage;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};

pub(crate) use serve::ServeArgs;

/// Functions that call models, metered to the call.
#[derive(Parser)]
#[command(name = "wasmeter", version, propagate_version = false, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Everything that the binary does.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run the server
    Serve(Box<ServeArgs>),
    /// Make a new function
    New(new::NewArgs),
    /// Build a function to a component
    Build(build::BuildArgs),
    /// Build and deploy a function
    Deploy(deploy::DeployArgs),
    /// Call a function and show what it cost
    Invoke(invoke::InvokeArgs),
    /// Show what a function wrote
    Logs(logs::LogsArgs),
    /// List, show, roll back and remove functions
    #[command(subcommand)]
    Functions(functions::FunctionsCommand),
    /// Point aliases to revisions, with weights
    #[command(subcommand)]
    Alias(alias::AliasCommand),
    /// Push, list, show, label, grant, measure and remove models
    #[command(subcommand)]
    Models(models::ModelsCommand),
    /// Set, list and remove secrets
    #[command(subcommand)]
    Secrets(secrets::SecretsCommand),
    /// List, create and remove tenants (operator)
    #[command(subcommand)]
    Tenants(tenants::TenantsCommand),
    /// Show what was used
    Usage(usage::UsageArgs),
    /// Show the bill, with its tiers, and what is due
    Bill(bill::BillArgs),
    /// Print the address of the page where the tenant subscribes
    Checkout(pages::PageArgs),
    /// Print the address of the page where the tenant sees invoices, changes how it pays, and cancels
    Portal(pages::PageArgs),
    /// Show and set what may be spent
    #[command(subcommand)]
    Budget(budget::BudgetCommand),
    /// Grant prepaid credits (operator)
    #[command(subcommand)]
    Credits(budget::CreditsCommand),
    /// Give back what an invocation cost, or an amount (operator)
    Refund(refund::RefundArgs),
    /// Show what calls of a function cost
    Quote(quote::QuoteArgs),
    /// Show the receipts of invocations
    Receipts(receipts::ReceiptsArgs),
    /// Check receipts offline: signatures, chain, proofs, prices and sums; exits 0 where nothing is wrong, 1 where something
    /// is or they cannot be read
    Verify(verify::VerifyArgs),
    /// Have calls recorded, so that `verify --replay` can run them again
    Record(record::RecordArgs),
    /// Make a token that allows less
    Token(token::TokenArgs),
    /// Look at what this machine offers and lacks
    Doctor(doctor::DoctorArgs),
    /// Print the completions of a shell
    Completions(completions::CompletionsArgs),
    /// Run the billing process
    #[command(disable_help_flag = true)]
    Billing(Passed),
    /// The confined compiler; the server starts it
    #[command(hide = true, disable_help_flag = true)]
    Compile(Passed),
    /// The process of a device; the server starts it
    #[command(hide = true, disable_help_flag = true)]
    DeviceWorker(Passed),
}

/// Arguments that another program reads.
#[derive(clap::Args)]
pub(crate) struct Passed {
    /// Passed on as they are
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<OsString>,
}

/// Runs a command of the client. The server's own are wired in `main`.
pub(crate) fn run(command: Command) -> Result<ExitCode> {
    let done = match command {
        Command::New(args) => new::run(&args),
        Command::Build(args) => build::run(&args),
        Command::Deploy(args) => deploy::run(&args),
        Command::Invoke(args) => return quiet_pipe(invoke::run(&args)),
        Command::Logs(args) => logs::run(&args),
        Command::Functions(command) => functions::run(&command),
        Command::Alias(command) => alias::run(&command),
        Command::Models(command) => models::run(&command),
        Command::Secrets(command) => secrets::run(&command),
        Command::Tenants(command) => tenants::run(&command),
        Command::Usage(args) => usage::run(&args),
        Command::Bill(args) => bill::run(&args),
        Command::Checkout(args) => pages::checkout(&args),
        Command::Portal(args) => pages::portal(&args),
        Command::Budget(command) => budget::budget(&command),
        Command::Credits(command) => budget::credits(&command),
        Command::Refund(args) => refund::run(&args),
        Command::Quote(args) => quote::run(&args),
        Command::Receipts(args) => receipts::run(&args),
        Command::Token(args) => token::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Verify(args) => return quiet_pipe(verify::run(&args)),
        Command::Record(args) => record::run(&args),
        Command::Billing(passed) => billing::run(&passed.args),
        Command::Serve(_) | Command::Compile(_) | Command::DeviceWorker(_) => {
            bail!("this command is the server's own")
        }
    };
    quiet_pipe(done.map(|()| ExitCode::SUCCESS))
}

/// A reader that has seen enough (`wasmeter receipts | head`) is not an error.
fn quiet_pipe(done: Result<ExitCode>) -> Result<ExitCode> {
    match done {
        Err(error) if output::is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn help(command: &mut clap::Command, path: &str, text: &mut String) {
        text.push_str(&format!("$ {path} -h\n"));
        for line in command.render_help().to_string().lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text.push('\n');
        for sub in command.get_subcommands_mut().filter(|c| !c.is_hide_set()) {
            let path = format!("{path} {}", sub.get_name());
            help(sub, &path, text);
        }
    }

    /// Write the file anew with `WASMETER_WRITE_GOLDEN=1` and look at the difference.
    #[test]
    fn golden_help() {
        let mut command = Cli::command();
        command.build();
        let mut text = String::new();
        help(&mut command, "wasmeter", &mut text);
        if std::env::var_os("WASMETER_WRITE_GOLDEN").is_some() {
            return std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/help.txt"), text).unwrap();
        }
        let golden = include_str!("help.txt");
        let other = text.lines().zip(golden.lines()).find(|(new, old)| new != old);
        assert!(text == golden, "the help differs from help.txt, first in {other:?}");
    }

    #[test]
    fn the_declarations_hold_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn arguments_of_other_programs_pass_through() {
        let cli = Cli::try_parse_from(["wasmeter", "device-worker", "--fd", "3", "--help"]).unwrap();
        let Command::DeviceWorker(passed) = cli.command else { panic!("another command") };
        assert_eq!(passed.args, ["--fd", "3", "--help"]);
        assert!(Cli::try_parse_from(["wasmeter", "deploy", "--name", "../x"]).is_err());
        assert!(Cli::try_parse_from(["wasmeter", "serve", "--listen", "nowhere"]).is_err());
    }
}
