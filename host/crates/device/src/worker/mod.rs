//! The child: one engine, no secrets, no files, no network.

mod engine;
mod gate;
mod probe;
mod sandbox;

use std::{
    ffi::OsString,
    io,
    os::fd::{FromRawFd, OwnedFd, RawFd},
    path::PathBuf,
    process::ExitCode,
};

use self::engine::Engine;
use crate::{
    channel::Channel,
    region::Region,
    wire::{ToHost, ToWorker, VERSION},
};

/// Name of the argument with the number of the inherited socket.
pub(crate) const ARG_SOCKET: &str = "--socket";
/// Name of the argument with the path of the engine's library.
pub(crate) const ARG_LIBRARY: &str = "--onnxruntime";

/// The device worker: serves one host over the inherited socket until that closes. `arguments` are those
/// after the subcommand's name. Call it before the process starts any thread: Landlock confines only the
/// calling thread and those it starts afterwards.
#[must_use]
pub fn worker_main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match serve(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("device worker: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: impl IntoIterator<Item = OsString>) -> io::Result<()> {
    sandbox::hide_memory()?;
    let (socket, library) = parse(arguments)?;
    let mut channel = Channel::new(socket);
    let mut out = Vec::new();
    let mut send = |channel: &Channel, message: &ToHost| {
        message.encode(&mut out);
        channel.send(&out, &[])
    };

    let packet = channel.receive()?;
    let hello = ToWorker::decode(packet.bytes).map_err(invalid)?;
    let ToWorker::Hello { version: VERSION, threads, input_bytes, output_bytes } = hello else {
        return Err(invalid("the host speaks another version of the protocol"));
    };
    let mut fds = packet.fds.into_iter();
    let (Some(input), Some(output)) = (fds.next(), fds.next()) else {
        return Err(invalid("the host sent no shared memory"));
    };
    let input = Region::map(input, input_bytes, false)?;
    let output = Region::map(output, output_bytes, true)?;

    sandbox::lock_early()?;
    // The library is loaded and initialised while files can still be read; models come after the lock.
    let mut engine = match Engine::start(&library, usize::from(threads.max(1))) {
        Ok(engine) => engine,
        Err(message) => {
            return send(&channel, &ToHost::NotReady { engine_missing: true, message });
        }
    };
    let report = match sandbox::lock(channel.socket()) {
        Ok(report) => report,
        Err(error) => {
            let message = format!("cannot confine the device worker: {error}");
            return send(&channel, &ToHost::NotReady { engine_missing: false, message });
        }
    };
    send(&channel, &ToHost::Ready(report))?;

    loop {
        let packet = match channel.receive() {
            Ok(packet) => packet,
            // The host has closed its end, or is gone.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        let answer = match ToWorker::decode(packet.bytes).map_err(invalid)? {
            ToWorker::Hello { .. } => return Err(invalid("a second hello")),
            ToWorker::Load { model, size } => {
                let Some(file) = packet.fds.into_iter().next() else {
                    return Err(invalid("a model without its file"));
                };
                match engine.load(model, file, size) {
                    Ok(signature) => ToHost::Loaded { model, signature },
                    Err(message) => ToHost::Refused { model, message },
                }
            }
            ToWorker::Unload { model } => {
                engine.unload(model);
                continue;
            }
            ToWorker::Run { run, model, inputs } => engine.run(run, model, &inputs, &input, &output),
            ToWorker::Probe => ToHost::Probed(probe::probe()),
        };
        send(&channel, &answer)?;
    }
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> io::Result<(OwnedFd, PathBuf)> {
    let mut socket = None;
    let mut library = None;
    let mut arguments = arguments.into_iter();
    while let (Some(name), Some(value)) = (arguments.next(), arguments.next()) {
        if name == ARG_SOCKET {
            socket = value.to_str().and_then(|number| number.parse::<RawFd>().ok()).filter(|fd| *fd > 2);
        } else if name == ARG_LIBRARY {
            library = Some(PathBuf::from(value));
        }
    }
    let (Some(socket), Some(library)) = (socket, library) else {
        return Err(invalid("it is started by `wasmeter serve`, not by hand"));
    };
    // The number comes from a command line: look before owning it.
    #[allow(unsafe_code, reason = "the descriptor is inherited, so only its number is known")]
    // SAFETY: F_GETFD on any number is harmless.
    if unsafe { libc::fcntl(socket, libc::F_GETFD) } < 0 {
        return Err(invalid("the inherited socket is not open"));
    }
    #[allow(unsafe_code, reason = "the descriptor is inherited, so only its number is known")]
    // SAFETY: it is open, and nothing else in this process, which has just started, owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    Ok((socket, library))
}

fn invalid(reason: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason.to_string())
}
