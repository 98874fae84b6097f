use std::io::{self, Read, Write};
use std::process::ExitCode;

use super::{REFUSED, sandbox};
use crate::engine::compile_engine;
use crate::kind::{Entry, Kind};
use crate::outline::outline;

/// The main function of `wasmeter compile`: a component on standard input, its artifact on standard output.
///
/// Nothing that the host signs may be influenced by anything but the component, so the process first gives up the
/// file system, the network and the right to start others.
#[must_use]
pub fn compile_main() -> ExitCode {
    if let Err(error) = sandbox::enter() {
        eprintln!("cannot confine the compiler: {error}");
        return ExitCode::FAILURE;
    }
    match compile() {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed::Refused(reason)) => {
            eprintln!("{reason}");
            ExitCode::from(REFUSED)
        }
        Err(Failed::Broken(reason)) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}

enum Failed {
    Refused(String),
    Broken(String),
}

fn compile() -> Result<(), Failed> {
    let broken = |e: io::Error| Failed::Broken(e.to_string());
    let mut component = Vec::new();
    io::stdin().lock().read_to_end(&mut component).map_err(broken)?;
    // What it exports is read from it in the same way by the host, which takes the same engine.
    let exports = outline(&component).map_err(Failed::Refused)?.exports;
    let engine = compile_engine(Entry::wasi(&exports)).map_err(|e| Failed::Broken(e.to_string()))?;
    let artifact = match Kind::of(&component) {
        Some(Kind::Module) => engine.precompile_module(&component),
        // What is neither is refused with a reason.
        Some(Kind::Component) | None => engine.precompile_component(&component),
    };
    let artifact = artifact.map_err(|e| Failed::Refused(format!("{e:#}")))?;
    let mut out = io::stdout().lock();
    out.write_all(&artifact).and_then(|()| out.flush()).map_err(broken)
}
