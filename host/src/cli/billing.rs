use std::convert::Infallible;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// Becomes `wasmeter-billing`, which lies beside this program.
pub(crate) fn run(args: &[OsString]) -> Result<()> {
    become_billing(args).map(|never| match never {})
}

/// As [`run`], with one of its commands before the arguments.
pub(crate) fn run_command(command: &str, args: &[OsString]) -> Result<()> {
    let all: Vec<_> = std::iter::once(OsString::from(command)).chain(args.iter().cloned()).collect();
    run(&all)
}

fn become_billing(args: &[OsString]) -> Result<Infallible> {
    let program =
        std::env::current_exe().context("the path of this program")?.with_file_name("wasmeter-billing");
    if !program.is_file() {
        bail!("no {}: install wasmeter-billing beside wasmeter", program.display());
    }
    let error = Command::new(&program).args(args).exec();
    Err(error).with_context(|| format!("{} could not be started", program.display()))
}
