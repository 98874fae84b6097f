//! The `wasmeter` binary: one program, whose commands are processes of their own.

mod cli;
mod serve;

use std::process::ExitCode;

use clap::Parser as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let done = match cli::Cli::parse().command {
        cli::Command::Serve(args) => serve::run(*args),
        // Both confine themselves before they start a thread, so nothing may run before them.
        cli::Command::Compile(_) => Ok(wasmeter_runtime::compile_main()),
        cli::Command::DeviceWorker(passed) => Ok(wasmeter_device::worker_main(passed.args)),
        command => cli::run(command),
    };
    done.unwrap_or_else(|error| {
        eprintln!("wasmeter: {error:#}");
        ExitCode::FAILURE
    })
}
