//! One living worker: its regions, its models, and the conversation with it.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::Duration,
};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use wasmeter_inference::{
    BackendError, Batch, BatchEntry, BatchOutput, Batching, DType, Loaded, ModelKey, Precision, Tensor,
};

use wasmeter_usage::DeviceClass;

use super::{
    WorkerOptions,
    control::{Control, Stopwatch},
    idle::Lease,
    process::{Kill, Process, printable},
    rows::Rows,
};
use crate::{
    channel::{self, Channel, Packet},
    patience::Patience,
    region::{Region, align_up},
    target::Target,
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
    tenant: Option<String>,
    models: HashMap<ModelKey, Model>,
    next_model: u32,
    cores: u16,
    /// The longest that the lane looks for the answer of a run before it sleeps.
    look: Duration,
    out: Vec<u8>,
    /// Killed, though its last answer came through.
    doomed: bool,
    /// Of workers that end when they are idle.
    pub(super) lease: Option<Arc<Lease>>,
    pub(super) sandbox: SandboxReport,
}

struct Model {
    id: u32,
    outputs: Arc<[DType]>,
    /// Whether entries may be laid together.
    rows: bool,
    patience: Patience,
}

/// Inputs on their way into the region.
#[derive(Default)]
struct Laying {
    placed: Vec<Placed>,
    end: u64,
}

/// See [`Worker`]'s `look`, where looking is on.
const LOOK: Duration = Duration::from_micros(50);

/// Why a worker did not start.
pub(super) enum StartError {
    Engine(String),
    Failed(String),
}

/// Why a conversation failed: the worker is dead, or has to die.
enum Broken {
    /// It died before it read the last message, so that what was asked was never begun. Messages are read in their
    /// order: an earlier one that is unread makes no difference.
    Unread,
    /// It died over it.
    Died,
    /// It has to die.
    Strange(String),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Broken::Unread,
            io::ErrorKind::UnexpectedEof => Broken::Died,
            io::ErrorKind::TimedOut => Broken::Strange("it took too long".to_owned()),
            _ => Broken::Strange(error.to_string()),
        }
    }
}

impl Worker {
    pub(super) fn start(
        options: &WorkerOptions,
        target: &Target,
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
        let mut process = Process::start(options, target, library, theirs, name).map_err(failed)?;
        let mut cores = options.cores();
        if target.class() == DeviceClass::Gpu {
            // An accelerator is busy for as long as its lane is, whatever the processor does meanwhile.
            process.clock = None;
            cores = 1;
        }
        control.started(&process.kill);
        let mut worker = Self {
            process,
            channel: Channel::new(ours),
            input,
            output,
            used: (0, 0),
            tenant: None,
            models: HashMap::new(),
            next_model: 1,
            cores,
            look: if options.spin { LOOK } else { Duration::ZERO },
            out: Vec::new(),
            doomed: false,
            lease: None,
            sandbox: SandboxReport::default(),
        };
        let hello = ToWorker::Hello {
            version: VERSION,
            threads: options.cores(),
            spin: options.spin,
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
            Ok(_) => Err(StartError::Failed(worker.end(&out_of_turn()))),
            Err(broken) => Err(StartError::Failed(worker.end(&broken))),
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

    pub(super) fn kill(&self) -> &Arc<Kill> {
        &self.process.kill
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.pid
    }

    /// Makes sure that the worker is dead; says how it ended.
    fn end(&self, why: &Broken) -> String {
        match why {
            Broken::Unread | Broken::Died => self.process.reaped_or_killed(),
            Broken::Strange(why) => format!("{why} ({})", self.process.end()),
        }
    }

    fn send(&mut self, message: &ToWorker, fds: &[BorrowedFd<'_>]) -> Result<(), Broken> {
        message.encode(&mut self.out);
        Ok(self.channel.send(&self.out, fds)?)
    }

    fn receive(&mut self) -> Result<ToHost, Broken> {
        message(&self.channel.receive()?)
    }

    pub(super) fn load(
        &mut self,
        key: &ModelKey,
        file: impl AsFd,
        size: u64,
        precision: Precision,
        limit: Duration,
    ) -> Result<Loaded, BackendError> {
        self.unload(key);
        let id = self.next_model;
        self.next_model = self.next_model.wrapping_add(1);
        let stopwatch = self.stopwatch();
        let answer =
            self.send(&ToWorker::Load { model: id, size, precision }, &[file.as_fd()]).and_then(|()| {
                self.channel.wait(limit)?;
                self.receive()
            });
        match answer {
            Ok(ToHost::Loaded { model, signature, batching }) if model == id => {
                let busy_ns = stopwatch.busy_ns();
                let model = Model {
                    id,
                    outputs: signature.outputs.iter().map(|port| port.dtype).collect(),
                    rows: batching == Batching::Rows,
                    patience: Patience::new(self.look),
                };
                self.models.insert(key.clone(), model);
                let batching = match batching {
                    Batching::Off(reason) => Batching::Off(printable(&reason)),
                    rows => rows,
                };
                Ok(Loaded { signature, batching, busy_ns })
            }
            Ok(ToHost::Refused { model, message }) if model == id => {
                Err(BackendError::InvalidModel { message: printable(&message), busy_ns: stopwatch.busy_ns() })
            }
            Ok(_) => Err(self.lost(&out_of_turn(), stopwatch)),
            Err(broken) => Err(self.lost(&broken, stopwatch)),
        }
    }

    pub(super) fn unload(&mut self, key: &ModelKey) {
        if let Some(model) = self.models.remove(key) {
            // A worker that cannot be told is dead, and the next call finds that out.
            let _ = self.send(&ToWorker::Unload { model: model.id }, &[]);
        }
    }

    fn stopwatch(&self) -> Stopwatch {
        Stopwatch::start(&self.process, self.cores)
    }

    fn lost(&mut self, why: &Broken, stopwatch: Stopwatch) -> BackendError {
        let message = format!("device worker died: {}", self.end(why));
        let busy_ns = stopwatch.wall_ns();
        match why {
            Broken::Unread => BackendError::Away { message, busy_ns },
            Broken::Died | Broken::Strange(_) => BackendError::Lost { message, busy_ns },
        }
    }

    /// Runs a batch: as one where the model's rows are independent, else one entry after the other.
    pub(super) fn run(&mut self, batch: &Batch<'_>, control: &Control) -> Result<BatchOutput, BackendError> {
        let Some(model) = self.models.get(batch.model) else { return Err(BackendError::NotLoaded) };
        if batch.entries.len() > 1
            && model.rows
            && let Some(rows) = Rows::of(batch.entries)
        {
            return self.run_rows(batch, &rows, control);
        }
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
        let strange = self.turn_to(Some(&entry.tenant))?;
        let mut laying = Laying::default();
        for tensor in &entry.inputs {
            self.lay(&mut laying, tensor.dtype(), tensor.dims().to_vec(), [tensor.data().as_ref()])?;
        }
        let inputs = self.laid(laying, strange);
        self.call(batch, inputs, control)
    }

    /// One run for all entries.
    fn run_rows(
        &mut self,
        batch: &Batch<'_>,
        rows: &Rows,
        control: &Control,
    ) -> Result<BatchOutput, BackendError> {
        let (first, others) = batch.entries.split_first().ok_or(BackendError::NotLoaded)?;
        let same = others.iter().all(|entry| entry.tenant == first.tenant);
        let strange = self.turn_to(same.then_some(&first.tenant))?;
        let mut laying = Laying::default();
        for (index, tensor) in first.inputs.iter().enumerate() {
            let mut dims = tensor.dims().to_vec();
            if let Some(dim) = dims.first_mut() {
                *dim = rows.total();
            }
            let parts = batch.entries.iter().filter_map(|entry| entry.inputs.get(index));
            self.lay(&mut laying, tensor.dtype(), dims, parts.map(|tensor| tensor.data().as_ref()))?;
        }
        let inputs = self.laid(laying, strange);
        let (tensors, busy_ns) = self.call(batch, inputs, control)?;
        let entries = rows.split(&tensors).ok_or_else(|| BackendError::Engine {
            message: "the model gave other rows than went in".to_owned(),
            busy_ns,
        })?;
        Ok(BatchOutput { entries, busy_ns })
    }

    /// One run of the engine.
    fn call(
        &mut self,
        batch: &Batch<'_>,
        inputs: Vec<Placed>,
        control: &Control,
    ) -> Result<(Vec<Tensor>, u64), BackendError> {
        let Some(model) = self.models.get(batch.model) else { return Err(BackendError::NotLoaded) };
        let (id, outputs, mut patience) = (model.id, Arc::clone(&model.outputs), model.patience);
        let stopwatch = self.stopwatch();
        control.dispatched(batch.run, &self.process.kill, stopwatch);
        let sent = self.send(&ToWorker::Run { run: batch.run, model: id, inputs }, &[]);
        let answer = sent.and_then(|()| {
            let packet = self.channel.receive_with(&mut patience)?;
            message(&packet)
        });
        if let Some(model) = self.models.get_mut(batch.model) {
            model.patience = patience;
        }
        let most_ns = stopwatch.busy_ns();
        let bound = |claimed: u64| claimed.min(most_ns);
        let result = match answer {
            Ok(ToHost::Ran { run, busy_ns, outputs: placed }) if run == batch.run => {
                if placed.iter().map(|placed| placed.dtype).eq(outputs.iter().copied()) {
                    match self.take(&placed) {
                        Some(tensors) => Ok((tensors, bound(busy_ns))),
                        None => Err(self.lost(&strange("it placed an output outside its region"), stopwatch)),
                    }
                } else {
                    Err(self.lost(&strange("its outputs are not the model's"), stopwatch))
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
            Ok(_) => Err(self.lost(&out_of_turn(), stopwatch)),
            Err(broken) => Err(self.lost(&broken, stopwatch)),
        };
        self.doomed = control.returned(match &result {
            Ok((_, busy_ns)) => *busy_ns,
            Err(error) => error.busy_ns(),
        });
        result
    }

    /// The regions get another user; `None` for several at once. True where what is in them is somebody else's:
    /// no tenant's tensors are left for the next one.
    fn turn_to(&mut self, tenant: Option<&str>) -> Result<bool, BackendError> {
        let (input, output) = self.used;
        let strange = tenant.is_none() || tenant != self.tenant.as_deref();
        if input.max(output) > KEEP_BYTES {
            let wiped = self.input.wipe(input).and_then(|()| self.output.wipe(output));
            wiped.map_err(unclear)?;
            self.used = (0, 0);
        } else if strange {
            self.output.wipe(output).map_err(unclear)?;
            self.used.1 = 0;
        }
        if strange {
            self.tenant = tenant.map(ToOwned::to_owned);
        }
        Ok(strange)
    }

    /// Lays one tensor, which may come in parts, behind those before.
    fn lay<'d>(
        &mut self,
        laying: &mut Laying,
        dtype: DType,
        dims: Vec<u32>,
        parts: impl IntoIterator<Item = &'d [u8]>,
    ) -> Result<(), BackendError> {
        let limit = self.input.size();
        let too_large = || BackendError::TooLarge {
            message: format!("the inputs do not fit into the {limit} bytes for inputs"),
            busy_ns: 0,
        };
        let offset = align_up(laying.end).filter(|offset| *offset <= limit).ok_or_else(too_large)?;
        // What was there before in the gap may be somebody else's.
        self.input.clear(laying.end, offset);
        let mut end = offset;
        for part in parts {
            if !self.input.write(end, part) {
                return Err(too_large());
            }
            end += part.len() as u64;
            self.used.0 = self.used.0.max(end);
        }
        laying.end = end;
        laying.placed.push(Placed { dtype, dims, offset });
        Ok(())
    }

    /// All is laid: what remains of the last user behind it goes.
    fn laid(&mut self, laying: Laying, strange: bool) -> Vec<Placed> {
        if strange {
            self.input.clear(laying.end, self.used.0);
            self.used.0 = laying.end;
        }
        laying.placed
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
            Ok(_) => Err(self.end(&out_of_turn())),
            Err(broken) => Err(self.end(&broken)),
        }
    }
}

fn message(packet: &Packet<'_>) -> Result<ToHost, Broken> {
    if !packet.fds.is_empty() {
        return Err(strange("it sent a descriptor"));
    }
    ToHost::decode(packet.bytes).map_err(|_| strange("it sent a malformed message"))
}

fn strange(why: &str) -> Broken {
    Broken::Strange(why.to_owned())
}

fn out_of_turn() -> Broken {
    strange("it answered out of turn")
}

fn unclear(error: io::Error) -> BackendError {
    BackendError::Engine { message: format!("cannot clear the shared memory: {error}"), busy_ns: 0 }
}

#[cfg(test)]
#[path = "liar.rs"]
mod liar;
