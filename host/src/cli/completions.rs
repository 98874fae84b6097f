use anyhow::Result;
use clap::CommandFactory as _;
use clap_complete::Shell;

use super::Cli;
use super::output::data_bytes;

#[derive(clap::Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "wasmeter", &mut script);
    data_bytes(&script)
}
