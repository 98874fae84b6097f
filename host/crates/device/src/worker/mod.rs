//! The child: one engine, no secrets, no files, no network.

mod busy;
mod engine;
mod ir;
mod openvino;
mod probe;
mod sandbox;

use std::{
    ffi::OsString,
    io,
    os::fd::{FromRawFd, OwnedFd, RawFd},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use wasmeter_inference::{Batching, Precision, Signature};
use wasmeter_usage::DeviceClass;

use self::{engine::OnnxRuntime, openvino::OpenVino};
use crate::{
    channel::Channel,
    patience::Patience,
    region::Region,
    target::{Library, Target},
    wire::{Placed, SandboxReport, ToHost, ToWorker, VERSION},
};

/// Name of the argument with the number of the inherited socket.
pub(crate) const ARG_SOCKET: &str = "--socket";
/// Names of the arguments with the path of an engine's library; there is one of them.
pub(crate) const ARG_ONNXRUNTIME: &str = "--onnxruntime";
/// See [`ARG_ONNXRUNTIME`].
pub(crate) const ARG_OPENVINO: &str = "--openvino";
/// Name of the argument with the device's name.
pub(crate) const ARG_DEVICE: &str = "--device";
/// Name of the argument with the most memory that the engine may take on an accelerator, in bytes.
pub(crate) const ARG_DEVICE_MEMORY: &str = "--device-memory";

/// A model that its engine has made ready.
struct Ready {
    signature: Signature,
    batching: Batching,
}

/// What a worker asks of its engine.
trait Engine {
    /// Makes a model ready from its sealed file. The text of an error is for the model's owner.
    fn load(&mut self, id: u32, file: OwnedFd, size: u64, precision: Precision) -> Result<Ready, String>;

    /// Forgets a model.
    fn unload(&mut self, id: u32);

    /// Runs a model once over the regions; the answer is `Ran` or `Failed`.
    fn run(&mut self, run: u64, id: u32, inputs: &[Placed], input: &Region, output: &Region) -> ToHost;
}

/// The longest that a worker looks for its next run before it sleeps. This is in no bill: busy time is taken around
/// the engine alone.
const LOOK: Duration = Duration::from_micros(30);

/// What the command line says.
struct Arguments {
    library: PathBuf,
    target: Target,
    device_memory: u64,
}

impl Arguments {
    /// Loads the library. The text of an error is for the operator.
    fn engine(&self, threads: usize, spin: bool) -> Result<Box<dyn Engine>, String> {
        Ok(match &self.target {
            Target::OpenVino(device) => Box::new(OpenVino::start(&self.library, device, threads)?),
            target => Box::new(OnnxRuntime::start(&self.library, target, threads, spin, self.device_memory)?),
        })
    }
}

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
    let (socket, arguments) = parse(arguments)?;
    let mut channel = Channel::new(socket);
    let mut out = Vec::new();
    let mut send = |channel: &Channel, message: &ToHost| {
        message.encode(&mut out);
        channel.send(&out, &[])
    };

    let packet = channel.receive()?;
    let hello = ToWorker::decode(packet.bytes).map_err(invalid)?;
    let ToWorker::Hello { version: VERSION, threads, spin, input_bytes, output_bytes } = hello else {
        return Err(invalid("the host speaks another version of the protocol"));
    };
    let mut fds = packet.fds.into_iter();
    let (Some(input), Some(output)) = (fds.next(), fds.next()) else {
        return Err(invalid("the host sent no shared memory"));
    };
    let input = Region::map(input, input_bytes, false)?;
    let output = Region::map(output, output_bytes, true)?;

    sandbox::lock_early()?;
    let accelerator = arguments.target.class() == DeviceClass::Gpu;
    let mut report = SandboxReport::default();
    if accelerator {
        report = sandbox::lock_for_accelerator(&arguments.library)?;
    }
    // The library is loaded and initialised while files can still be read; models come after the lock.
    let mut engine = match arguments.engine(usize::from(threads.max(1)), spin) {
        Ok(engine) => engine,
        Err(message) => {
            return send(&channel, &ToHost::NotReady { engine_missing: true, message });
        }
    };
    if !accelerator {
        report = match sandbox::lock(channel.socket(), &arguments.target, &arguments.library) {
            Ok(report) => report,
            Err(error) => {
                let message = format!("cannot confine the device worker: {error}");
                return send(&channel, &ToHost::NotReady { engine_missing: false, message });
            }
        };
    }
    send(&channel, &ToHost::Ready(report))?;

    let mut patience = Patience::new(if spin { LOOK } else { Duration::ZERO });
    loop {
        let packet = match channel.receive_with(&mut patience) {
            Ok(packet) => packet,
            // The host has closed its end, or is gone.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        let answer = match ToWorker::decode(packet.bytes).map_err(invalid)? {
            ToWorker::Hello { .. } => return Err(invalid("a second hello")),
            ToWorker::Load { model, size, precision } => {
                let Some(file) = packet.fds.into_iter().next() else {
                    return Err(invalid("a model without its file"));
                };
                match engine.load(model, file, size, precision) {
                    Ok(Ready { signature, batching }) => ToHost::Loaded { model, signature, batching },
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

fn parse(arguments: impl IntoIterator<Item = OsString>) -> io::Result<(OwnedFd, Arguments)> {
    let mut socket = None;
    let mut library = None;
    let mut target = Target::Cpu;
    let mut device_memory = 0;
    let mut arguments = arguments.into_iter();
    while let (Some(name), Some(value)) = (arguments.next(), arguments.next()) {
        if name == ARG_SOCKET {
            socket = value.to_str().and_then(|number| number.parse::<RawFd>().ok()).filter(|fd| *fd > 2);
        } else if name == ARG_ONNXRUNTIME {
            library = Some((Library::OnnxRuntime, PathBuf::from(value)));
        } else if name == ARG_OPENVINO {
            library = Some((Library::OpenVino, PathBuf::from(value)));
        } else if name == ARG_DEVICE {
            target = Target::parse(&value.to_string_lossy()).map_err(invalid)?;
        } else if name == ARG_DEVICE_MEMORY {
            device_memory =
                value.to_str().and_then(|bytes| bytes.parse().ok()).ok_or_else(|| invalid("no size"))?;
        }
    }
    let (Some(socket), Some((_, library))) =
        (socket, library.filter(|(library, _)| *library == target.library()))
    else {
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
    Ok((socket, Arguments { library, target, device_memory }))
}

fn invalid(reason: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason.to_string())
}

/// The smallest ONNX file, for what an engine does with its first model: IR version 7, operators of version 13, `y = Identity(x)`, both f32 [1].
const SMALLEST_ONNX: &[u8] = b"\x08\x07\x42\x02\x10\x0d\x3a\x37\
\x0a\x10\x0a\x01x\x12\x01y\x22\x08Identity\x12\x01g\
\x5a\x0f\x0a\x01x\x12\x0a\x0a\x08\x08\x01\x12\x04\x0a\x02\x08\x01\
\x62\x0f\x0a\x01y\x12\x0a\x0a\x08\x08\x01\x12\x04\x0a\x02\x08\x01";
