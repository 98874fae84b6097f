use std::convert::Infallible;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// Becomes `wasmeter-billing`, which lies beside this program.
pub(crate) fn run(args: &[OsString]) -> Result<()> {
    become_billing(args).map(|never| match never {})
}

/// `wasmeter-billing` with these arguments.
pub(crate) fn command(args: &[OsString]) -> Result<Command> {
    let program =
        std::env::current_exe().context("the path of this program")?.with_file_name("wasmeter-billing");
    if !program.is_file() {
        bail!("no {}: install wasmeter-billing beside wasmeter", program.display());
    }
    let mut command = Command::new(program);
    command.args(args);
    Ok(command)
}

fn become_billing(args: &[OsString]) -> Result<Infallible> {
    let mut command = command(args)?;
    let error = command.exec();
    Err(error).with_context(|| format!("{} could not be started", command.get_program().display()))
}
