//! One living worker: its regions, its models, and the conversation with it.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use wasmeter_inference::{BackendError, Batch, BatchEntry, BatchOutput, Loaded, ModelKey, Signature, Tensor};

use super::{
    WorkerOptions,
    control::{Control, Stopwatch},
    process::{Process, printable},
};
use crate::{
    channel::{self, Channel},
    region::{Region, align_up},
    wire::{Failure, Placed, Probe, SandboxReport, ToHost, ToWorker, VERSION},
};

/// Regions that one entry used beyond this give their pages back at once.
const KEEP_BYTES: u64 = 4 << 20;

/// How long a message may wait for room in the socket, and a probe for its answer.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Worker {
    process: Process,
    channel: Channel,
    input: Region,
    output: Region,
    /// How much of each region the last entry used, and whose data it was.
    used: (u64, u64),
    tenant: String,
    models: HashMap<ModelKey, Model>,
    next_model: u32,
    cores: u16,
    out: Vec<u8>,
    /// Killed, though its last answer came through.
    doomed: bool,
    pub(super) sandbox: SandboxReport,
}

struct Model {
    id: u32,
    signature: Signature,
}

/// Why a worker did not start.
pub(super) enum StartError {
    Engine(String),
    Failed(String),
}

/// Why a conversation failed: the worker is dead, or has to die.
struct Broken(String);

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Broken(match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => String::new(),
            io::ErrorKind::TimedOut => "it took too long".to_owned(),
            _ => error.to_string(),
        })
    }
}

impl Worker {
    pub(super) fn start(
        options: &WorkerOptions,
        library: &std::path::Path,
        name: &str,
        control: &Control,
    ) -> Result<Self, StartError> {
        let failed = |error: io::Error| StartError::Failed(error.to_string());
        let input = Region::create("inputs", options.input_bytes).map_err(failed)?;
        let output = Region::create("outputs", options.output_bytes).map_err(failed)?;
        let (ours, theirs) = channel::pair().map_err(failed)?;
        // A worker that does not read must not hold the lane.
        set_socket_timeout(&ours, Timeout::Send, Some(SEND_TIMEOUT)).map_err(|errno| failed(errno.into()))?;
        let process = Process::start(options, library, theirs, name).map_err(failed)?;
        control.started(&process.kill);
        let mut worker = Self {
            process,
            channel: Channel::new(ours),
            input,
            output,
            used: (0, 0),
            tenant: String::new(),
            models: HashMap::new(),
            next_model: 1,
            cores: options.cores(),
            out: Vec::new(),
            doomed: false,
            sandbox: SandboxReport::default(),
        };
        let hello = ToWorker::Hello {
            version: VERSION,
            threads: options.cores(),
            input_bytes: worker.input.size(),
            output_bytes: worker.output.size(),
        };
        match worker.greet(&hello, options.start_timeout) {
            Ok(ToHost::Ready(report)) => {
                worker.sandbox = report;
                Ok(worker)
            }
            Ok(ToHost::NotReady { engine_missing: true, message }) => {
                Err(StartError::Engine(printable(&message)))
            }
            Ok(ToHost::NotReady { engine_missing: false, message }) => {
                Err(StartError::Failed(printable(&message)))
            }
            Ok(_) => Err(StartError::Failed(worker.end("it answered out of turn"))),
            Err(Broken(why)) => Err(StartError::Failed(worker.end(&why))),
        }
    }

    fn greet(&mut self, hello: &ToWorker, limit: Duration) -> Result<ToHost, Broken> {
        hello.encode(&mut self.out);
        self.channel.send(&self.out, &[self.input.fd(), self.output.fd()])?;
        self.channel.wait(limit)?;
        self.receive()
    }

    pub(super) fn is_dead(&self) -> bool {
        self.doomed || self.process.is_dead()
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.pid
    }

    /// Makes sure that the worker is dead; says how it ended.
    fn end(&self, why: &str) -> String {
        if why.is_empty() {
            self.process.reaped_or_killed()
        } else {
            format!("{why} ({})", self.process.end())
        }
    }

    fn send(&mut self, message: &ToWorker, fds: &[BorrowedFd<'_>]) -> Result<(), Broken> {
        message.encode(&mut self.out);
        Ok(self.channel.send(&self.out, fds)?)
    }

    fn receive(&mut self) -> Result<ToHost, Broken> {
        let packet = self.channel.receive()?;
        if !packet.fds.is_empty() {
            return Err(Broken("it sent a descriptor".to_owned()));
        }
        ToHost::decode(packet.bytes).map_err(|_| Broken("it sent a malformed message".to_owned()))
    }

    pub(super) fn load(
        &mut self,
        key: &ModelKey,
        file: impl AsFd,
        size: u64,
        limit: Duration,
    ) -> Result<Loaded, BackendError> {
        self.unload(key);
        let id = self.next_model;
        self.next_model = self.next_model.wrapping_add(1);
        let stopwatch = Stopwatch::start(&self.process, self.cores);
        let answer = self.send(&ToWorker::Load { model: id, size }, &[file.as_fd()]).and_then(|()| {
            self.channel.wait(limit)?;
            self.receive()
        });
        match answer {
            Ok(ToHost::Loaded { model, signature }) if model == id => {
                let busy_ns = stopwatch.busy_ns();
                self.models.insert(key.clone(), Model { id, signature: signature.clone() });
                Ok(Loaded { signature, busy_ns })
            }
            Ok(ToHost::Refused { model, message }) if model == id => {
                Err(BackendError::InvalidModel { message: printable(&message), busy_ns: stopwatch.busy_ns() })
            }
            Ok(_) => Err(self.lost("it answered out of turn", stopwatch)),
            Err(Broken(why)) => Err(self.lost(&why, stopwatch)),
        }
    }

    pub(super) fn unload(&mut self, key: &ModelKey) {
        if let Some(model) = self.models.remove(key) {
            // A worker that cannot be told is dead, and the next call finds that out.
            let _ = self.send(&ToWorker::Unload { model: model.id }, &[]);
        }
    }

    fn lost(&mut self, why: &str, stopwatch: Stopwatch) -> BackendError {
        let message = format!("device worker died: {}", self.end(why));
        BackendError::Lost { message, busy_ns: stopwatch.wall_ns() }
    }

    /// Runs the entries of a batch, one after the other.
    pub(super) fn run(&mut self, batch: &Batch<'_>, control: &Control) -> Result<BatchOutput, BackendError> {
        let mut output = BatchOutput { entries: Vec::with_capacity(batch.entries.len()), busy_ns: 0 };
        for entry in batch.entries {
            let (tensors, busy_ns) =
                self.run_entry(batch, entry, control).map_err(|error| error.after(output.busy_ns))?;
            output.busy_ns = output.busy_ns.saturating_add(busy_ns);
            output.entries.push(tensors);
        }
        Ok(output)
    }

    fn run_entry(
        &mut self,
        batch: &Batch<'_>,
        entry: &BatchEntry,
        control: &Control,
    ) -> Result<(Vec<Tensor>, u64), BackendError> {
        let Some(model) = self.models.get(batch.model) else { return Err(BackendError::NotLoaded) };
        let (id, outputs) = (model.id, model.signature.outputs.clone());
        self.wipe_for(&entry.tenant)?;
        let inputs = self.place(&entry.inputs)?;
        let stopwatch = Stopwatch::start(&self.process, self.cores);
        control.dispatched(batch.run, &self.process.kill, stopwatch);
        let sent = self.send(&ToWorker::Run { run: batch.run, model: id, inputs }, &[]);
        if matches!(&sent, Err(Broken(why)) if why.is_empty()) {
            // Its end of the socket is closed: it died while it was idle, and the run never reached it.
            self.end("");
            control.returned(0);
            return Err(BackendError::NotLoaded);
        }
        let answer = sent.and_then(|()| self.receive());
        let most_ns = stopwatch.busy_ns();
        let bound = |claimed: u64| claimed.min(most_ns);
        let result = match answer {
            Ok(ToHost::Ran { run, busy_ns, outputs: placed }) if run == batch.run => {
                let dtypes = outputs.iter().map(|port| port.dtype);
                if placed.len() == outputs.len() && placed.iter().map(|placed| placed.dtype).eq(dtypes) {
                    match self.take(&placed) {
                        Some(tensors) => Ok((tensors, bound(busy_ns))),
                        None => Err(self.lost("it placed an output outside its region", stopwatch)),
                    }
                } else {
                    Err(self.lost("its outputs are not the model's", stopwatch))
                }
            }
            Ok(ToHost::Failed { run, busy_ns, kind, message }) if run == batch.run => {
                let (message, busy_ns) = (printable(&message), bound(busy_ns));
                Err(match kind {
                    Failure::Input => BackendError::InvalidInput { message, busy_ns },
                    Failure::Engine => BackendError::Engine { message, busy_ns },
                    Failure::TooLarge => BackendError::TooLarge { message, busy_ns },
                })
            }
            Ok(_) => Err(self.lost("it answered out of turn", stopwatch)),
            Err(Broken(why)) => Err(self.lost(&why, stopwatch)),
        };
        self.doomed = control.returned(match &result {
            Ok((_, busy_ns)) => *busy_ns,
            Err(error) => error.busy_ns(),
        });
        result
    }

    /// No tenant's tensors are left for the next one.
    fn wipe_for(&mut self, tenant: &str) -> Result<(), BackendError> {
        let (input, output) = self.used;
        let large = input.max(output) > KEEP_BYTES;
        if self.tenant != tenant || large {
            let wiped = self.input.wipe(input).and_then(|()| self.output.wipe(output));
            wiped.map_err(|error| engine(format!("cannot clear the shared memory: {error}")))?;
            self.used = (0, 0);
            tenant.clone_into(&mut self.tenant);
        }
        Ok(())
    }

    fn place(&mut self, inputs: &[Tensor]) -> Result<Vec<Placed>, BackendError> {
        let limit = self.input.size();
        let too_large = || BackendError::TooLarge {
            message: format!("the inputs do not fit into the {limit} bytes for inputs"),
            busy_ns: 0,
        };
        let mut end = 0u64;
        let mut placed = Vec::with_capacity(inputs.len());
        for tensor in inputs {
            let offset = align_up(end).ok_or_else(too_large)?;
            end = offset.checked_add(tensor.data().len() as u64).ok_or_else(too_large)?;
            if end > limit {
                return Err(too_large());
            }
            self.used.0 = self.used.0.max(end);
            if !self.input.write(offset, tensor.data()) {
                return Err(too_large());
            }
            placed.push(Placed { dtype: tensor.dtype(), dims: tensor.dims().to_vec(), offset });
        }
        Ok(placed)
    }

    /// Copies outputs out; `None` where one is not where the worker says.
    fn take(&mut self, placed: &[Placed]) -> Option<Vec<Tensor>> {
        // Overlapping outputs would multiply a small region into much memory of ours.
        let total = placed.iter().try_fold(0u64, |total, placed| {
            total.checked_add(u64::try_from(placed.dtype.bytes(&placed.dims)?).ok()?)
        })?;
        if total > self.output.size() {
            return None;
        }
        let mut tensors = Vec::with_capacity(placed.len());
        for Placed { dtype, dims, offset } in placed {
            let len = dtype.bytes(dims)?;
            let data = self.output.read(*offset, len)?;
            self.used.1 = self.used.1.max(offset.checked_add(len as u64)?);
            tensors.push(Tensor::new(*dtype, dims.clone(), data).ok()?);
        }
        Some(tensors)
    }

    /// Gives the pages of a large entry back. Called when the answer is on its way.
    pub(super) fn tidy(&mut self) {
        let (input, output) = self.used;
        if input > KEEP_BYTES && self.input.give_back().is_ok() {
            self.used.0 = 0;
        }
        if output > KEEP_BYTES && self.output.give_back().is_ok() {
            self.used.1 = 0;
        }
    }

    /// What the sandbox refuses, tried from inside.
    pub(super) fn probe(&mut self) -> Result<Vec<Probe>, String> {
        let answer = self.send(&ToWorker::Probe, &[]).and_then(|()| {
            self.channel.wait(SEND_TIMEOUT)?;
            self.receive()
        });
        match answer {
            Ok(ToHost::Probed(probes)) => Ok(probes),
            Ok(_) => Err(self.end("it answered out of turn")),
            Err(Broken(why)) => Err(self.end(&why)),
        }
    }
}

fn engine(message: String) -> BackendError {
    BackendError::Engine { message, busy_ns: 0 }
}

#[cfg(test)]
#[path = "liar.rs"]
mod liar;
